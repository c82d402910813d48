import json
import logging
import os
import subprocess
import sys

import pytest
import torch

from tests.helpers.model_settings import TEXTS, image_settings, text_settings
from tracefl.errors import ConfigError, RecordError
from tracefl.learning.models import TextEncoder, build_text_encoder
from tracefl.learning.models.byte_pairs import train_tokenizer

TRAIN = """
import hashlib, random, sys
from tracefl.learning.models.byte_pairs import train_tokenizer
draw = random.Random(0)
syllables = ["ka", "lo", "mi", "ze", "tra", "ben", "é", "ß", "q9", "日", "本"]
words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(500)]
texts = [" ".join(draw.choices(words, k=15)) for _ in range(1500)]
print(hashlib.sha256(train_tokenizer(texts, 900).backend_tokenizer.to_str().encode()).hexdigest())
"""


def test_training_gives_one_vocabulary_whatever_the_process_and_its_threads():
    settings = (
        {"RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "1"},
        {"RAYON_NUM_THREADS": "4", "PYTHONHASHSEED": "2"},
        {"TOKENIZERS_PARALLELISM": "false"},
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN], env={**os.environ, **setting}, stdout=subprocess.PIPE, text=True
        )
        for setting in settings
    ]
    digests = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(set(digests)) == 1


def test_encoding_is_cut_and_padded_on_the_right(encoder):
    encoded = encoder.encode(TEXTS, 12)
    assert set(encoded) == {"input_ids", "attention_mask"}
    for tensor in encoded.values():
        assert tensor.shape == (4, 12)
        assert tensor.dtype == torch.int32
    length = int(encoded["attention_mask"][3].sum())
    assert encoded["attention_mask"][3].tolist() == [1] * length + [0] * (12 - length)
    assert (encoded["input_ids"][3, length:] == encoder.pad_id).all()
    assert encoder.tokenizer.decode(encoded["input_ids"][3, 1 : length - 1]).strip() == "a word"
    assert encoder.tokenizer.convert_ids_to_tokens(int(encoded["input_ids"][0, -1])) == "[SEP]"  # cut, not lost


def test_many_texts_are_encoded_like_each_alone(encoder):
    texts = [f"{TEXTS[row % 4]} {row}" for row in range(1100)]
    together = encoder.encode(texts, 16)["input_ids"]
    for row in (0, 1023, 1024, 1099):
        assert torch.equal(together[row : row + 1], encoder.encode([texts[row]], 16)["input_ids"])
    assert encoder.encode([], 16)["input_ids"].shape == (0, 16)


def test_no_room_for_text(encoder):
    with pytest.raises(ConfigError, match=r"dataset\.max_tokens=2: give more than the 2"):
        encoder.encode(TEXTS, 2)


def test_saved_tokenizer_gives_the_same_ids(encoder, tmp_path):
    encoder.save(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json"}
    loaded = TextEncoder.load(tmp_path)
    assert (loaded.origin, loaded.vocab_size, loaded.pad_id) == ("trained", encoder.vocab_size, encoder.pad_id)
    for name, tensor in encoder.encode(TEXTS, 24).items():
        assert torch.equal(loaded.encode(TEXTS, 24)[name], tensor)


def test_load_refuses_a_folder_without_tokenizer(encoder, tmp_path):
    with pytest.raises(RecordError, match="holds no saved tokenizer"):
        TextEncoder.load(tmp_path / "nowhere")
    encoder.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(RecordError, match="no readable tokenizer"):
        TextEncoder.load(tmp_path)


def test_load_refuses_what_tokenizers_cannot_read(encoder, tmp_path):
    """For which tokenizers raises Exception itself."""
    encoder.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["added_tokens"][0]["id"] = "0"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match="no readable tokenizer"):
        TextEncoder.load(tmp_path)


def test_vocabulary_is_capped(encoder):
    assert encoder.vocab_size <= 320
    assert len(train_tokenizer(TEXTS, 300)) == 300


def test_auto_without_weights_or_files_trains_and_says_so(caplog):
    asked = []
    with caplog.at_level(logging.INFO, logger="tracefl"):
        built = build_text_encoder(text_settings("gpt2", tokenizer="auto"), lambda: asked.append(1) or TEXTS)
    assert (built.origin, asked) == ("trained", [1])
    assert "tokenizer=trained model=nobody/tiny-gpt2" in caplog.text


def test_auto_takes_the_tokenizer_of_a_folder(encoder, tmp_path):
    encoder.save(tmp_path)

    def never():
        raise AssertionError("training texts were asked for")

    built = build_text_encoder(text_settings("gpt2", name=str(tmp_path), tokenizer="auto"), never)
    assert built.origin == "own"
    assert torch.equal(built.encode(TEXTS, 24)["input_ids"], encoder.encode(TEXTS, 24)["input_ids"])
    given = build_text_encoder(text_settings(tokenizer=str(tmp_path)), never)
    assert given.origin == "own"


def test_folder_with_a_configuration_alone_has_no_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    built = build_text_encoder(text_settings("bert", name=str(tmp_path), tokenizer="auto"), TEXTS)
    assert built.origin == "trained"


def test_tokenizer_without_padding_gets_one(encoder, tmp_path):
    encoder.save(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"pad_token": "[PAD]"', '"pad_token": null'))
    built = build_text_encoder(text_settings(tokenizer=str(tmp_path)), [])
    assert built.tokenizer.convert_ids_to_tokens(built.pad_id) == "[PAD]"


def test_what_does_not_go_together(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.tokenizer=trained does not go with model\.pretrained=True"):
        build_text_encoder(text_settings(pretrained=True), TEXTS)
    with pytest.raises(ConfigError, match="resnet18 takes images"):
        build_text_encoder(image_settings(), TEXTS)
    with pytest.raises(ConfigError, match="no texts to train"):
        build_text_encoder(text_settings(), [])
    with pytest.raises(ConfigError, match=r"set model\.tokenizer"):
        build_text_encoder(text_settings(tokenizer=str(tmp_path)), TEXTS)


def test_what_is_encoded_is_decoded_without_what_was_cut_and_padded():
    encoder = build_text_encoder(text_settings("gpt", tokenizer="trained"), TEXTS)
    text = TEXTS[0].lower()  # as the tokenizer makes it
    (whole,) = encoder.decode(encoder.encode([text], 64))
    (cut,) = encoder.decode(encoder.encode([text], 3))
    assert whole == text
    assert cut
    assert text.startswith(cut)
    assert len(cut) < len(text)
    assert encoder.decode(encoder.encode([""], 4)) == [""]
