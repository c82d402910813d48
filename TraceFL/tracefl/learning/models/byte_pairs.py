"""A tokenizer trained on the run's own texts, with the same result in every process.

It is byte-level BPE, because WordPiece, as the library ``tokenizers`` trains it, gives different ids in each process.
"""

from collections.abc import Sequence
from typing import Any

from tracefl.errors import ConfigError
from tracefl.learning.models.hub import load_transformers

PAD, FIRST, LAST = SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]")


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Any:
    """Train a tokenizer that lower-cases a text and puts ``FIRST`` before it and ``LAST`` after it.

    Args:
        texts: Training texts.
        vocab_size: Maximum number of ids, including special tokens and the 256 bytes.

    Returns:
        A fast tokenizer of transformers; the padding id is 0.

    Raises:
        ConfigError: There are no texts.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    if not texts:
        raise ConfigError("model.tokenizer: got no texts to train a tokenizer on; set it to a folder of one")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    ends = [(token, tokenizer.token_to_id(token)) for token in (FIRST, LAST)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{FIRST} $A {LAST}", special_tokens=ends)
    fast = load_transformers().PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, pad_token=PAD, cls_token=FIRST, sep_token=LAST)
