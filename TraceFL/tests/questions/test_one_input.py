"""An image that is asked about, beside the same file in a data set."""

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tracefl.errors import DataError
from tracefl.learning.datasets import load_source, prepare_server
from tracefl.questions.one_input import read_question
from tracefl.questions.overrides import read_tracer
from tracefl.records.run import StoredRun


def photograph(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return "JPEG", Image.effect_noise((40, 24), 60).convert("RGB"), {"exif": exif}


def animated():
    frames = [Image.effect_noise((20, 20), 60) for _ in range(3)]
    return "GIF", frames[0], {"save_all": True, "append_images": frames[1:]}


FILES = {
    "upside down": photograph(3),
    "turned": photograph(6),
    "mirrored": photograph(7),
    "grey": ("PNG", Image.effect_noise((20, 30), 60), {}),
    "palette": ("PNG", Image.effect_noise((20, 30), 60).quantize(7), {"transparency": b"\x00\x80"}),
    "sixteen bits": ("PNG", Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160), {}),
    "32 bits": ("PPM", Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160), {}),
    "CMYK": ("JPEG", Image.effect_noise((20, 30), 60).convert("CMYK"), {}),
    "transparent": ("PNG", Image.merge("RGBA", [Image.effect_noise((20, 20), 60) for _ in range(4)]), {}),
    "transparent grey": ("PNG", Image.merge("LA", [Image.effect_noise((20, 20), 60) for _ in range(2)]), {}),
    "one bit": ("PNG", Image.effect_noise((20, 30), 60).convert("1"), {}),
    "animated": animated(),
}


def in_a_data_set(run, content, folder):
    """Return the pixels ``(3, H, W)`` of a file that a hub folder holds, as the run's server would see it."""
    for split in ("train", "test"):
        table = pa.table({"image": [{"bytes": content, "path": None}], "label": [0]})
        pq.write_table(table, folder / f"{split}.parquet")
    settings = replace(
        run.settings.dataset, source="hub", path=str(folder), input_columns=("image",), label_column="label"
    )
    examples, _ = prepare_server(load_source(settings, 0), settings, 0, None)
    return examples.features["pixels"][0]


@pytest.mark.parametrize("kind", FILES)
def test_a_file_gives_the_pixels_that_it_gives_in_the_data(image_run, tmp_path, kind):
    extension, image, options = FILES[kind]
    buffer = io.BytesIO()
    image.save(buffer, extension, **options)
    path = tmp_path / "asked"
    path.write_bytes(buffer.getvalue())
    run = StoredRun(image_run)
    question = read_question(run, read_tracer(run), "image", str(path))
    assert question.pixels.equal(in_a_data_set(run, buffer.getvalue(), tmp_path))
    assert question.pixels.float().std() > 1


@pytest.mark.parametrize("content", [b"", b"words", b"\x89PNG\r\n\x1a\n"])
def test_what_the_data_refuse_the_question_refuses(image_run, tmp_path, content):
    path = tmp_path / "asked.png"
    path.write_bytes(content)
    run = StoredRun(image_run)
    with pytest.raises(DataError, match=r"^image='.*asked\.png' is ") as asked:
        read_question(run, read_tracer(run), "image", str(path))
    with pytest.raises(DataError, match=r"split test, column 'image', row 0 \(from 0\): the image is ") as held:
        in_a_data_set(run, content, tmp_path)
    assert str(asked.value).partition("' ")[2] in str(held.value)
