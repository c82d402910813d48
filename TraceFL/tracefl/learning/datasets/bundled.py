"""Data sets that need no download: scikit-learn's digits, and a synthetic corpus of topics."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracefl.common.seeds import derive_seed
from tracefl.learning.datasets.settings import DatasetSettings
from tracefl.learning.datasets.sources import RawDataset, Rows, Split, register_source

DIGITS_TEST_FRACTION = 0.2
DIGITS_HIGHEST_VALUE = 16

TRAIN_DOCUMENTS_PER_TOPIC = 200
TEST_DOCUMENTS_PER_TOPIC = 50
DOCUMENT_WORDS = (12, 40)
"""Fewest and most words of a synthetic document."""
TOPIC_FRACTION = (0.05, 0.35)
"""Lowest and highest fraction of a document's words that come from its own topic."""
STRAY_FRACTION = 0.06
"""Fraction of a document's words drawn at random from all topics, so that the task is not trivial."""

TOPICS = {
    "sea": "ship harbour tide sailor anchor wave coral fishing lighthouse reef cargo deck storm island",
    "kitchen": "oven recipe flour butter simmer spice onion sauce knife roast dough pepper salad taste",
    "astronomy": "planet orbit telescope star galaxy comet eclipse moon gravity nebula rocket asteroid sky lens",
    "law": "court judge contract statute verdict appeal witness lawyer clause trial evidence ruling jury plea",
    "garden": "soil seed tulip prune compost hedge lawn root blossom shovel weed rose orchard",
    "music": "violin chord rhythm concert singer melody drum orchestra album piano tempo choir guitar stage",
    "finance": "bank loan interest shares market invoice tax dividend budget pension currency broker profit audit",
    "medicine": "doctor patient fever vaccine surgery clinic dose symptom nurse therapy diagnosis blood heart pill",
    "railway": "train station platform track locomotive ticket signal carriage conductor bridge timetable freight",
    "football": "goal referee striker league stadium penalty coach midfield kick defender match trophy fans pitch",
}
COMMON_WORDS = (
    "the a of and to in is was for on with that it as at by from this be are or an they we had not but have were which "
    "one all some new first last many people year day time place made found said about after before between under over"
)


@register_source("digits")
def digits(settings: DatasetSettings, seed: int) -> RawDataset:
    """Open scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, in a stratified 80/20 split.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998.

    Args:
        settings: Only ``name`` is used.
        seed: The run's root seed; determines the split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    values, labels = load_digits(return_X_y=True)
    images = np.rint(values.reshape(-1, 8, 8) * (255 / DIGITS_HIGHEST_VALUE)).astype(np.uint8)  # (N, 8, 8)
    train_rows, test_rows = train_test_split(
        np.arange(len(labels)),
        test_size=DIGITS_TEST_FRACTION,
        stratify=labels,
        random_state=derive_seed(seed, "digits"),
    )
    train, test = (_split(labels[rows], images[rows]) for rows in (train_rows, test_rows))
    return RawDataset(settings.name, "image", train, test, tuple(str(digit) for digit in range(10)))


@register_source("synthetic_text")
def synthetic_text(settings: DatasetSettings, seed: int) -> RawDataset:
    """Generate a synthetic corpus: 2,000 training and 500 test documents on 10 topics, determined by the seed.

    A document mixes 12 to 40 words: common ones, some from its topic, and a few from any topic. It does not resemble
    real text: it serves to exercise text models without a download, not to measure them.

    Args:
        settings: Only ``name`` is used.
        seed: The run's root seed; determines every document.
    """
    train = _documents(TRAIN_DOCUMENTS_PER_TOPIC, derive_seed(seed, "synthetic_text", "train"))
    test = _documents(TEST_DOCUMENTS_PER_TOPIC, derive_seed(seed, "synthetic_text", "test"))
    return RawDataset(settings.name, "text", train, test, tuple(f"synthetic {topic}" for topic in TOPICS))


def _documents(per_topic: int, seed: int) -> Split:
    generator = np.random.default_rng(seed)
    vocabularies = [words.split() for words in TOPICS.values()]
    labels = generator.permutation(np.repeat(np.arange(len(vocabularies)), per_topic))
    return _split(labels, [_document(vocabularies, int(label), generator) for label in labels])


def _document(vocabularies: list[list[str]], label: int, generator: np.random.Generator) -> str:
    common = COMMON_WORDS.split()
    topic_fraction = generator.uniform(*TOPIC_FRACTION)
    words = []
    for draw in generator.random(generator.integers(*DOCUMENT_WORDS, endpoint=True)):
        if draw < topic_fraction:
            words.append(generator.choice(vocabularies[label]))
        elif draw < topic_fraction + STRAY_FRACTION:
            words.append(generator.choice(vocabularies[generator.integers(len(vocabularies))]))
        else:
            words.append(generator.choice(common))
    return " ".join(words)


def _split(labels: NDArray[Any], examples: NDArray[np.uint8] | list[str]) -> Split:
    def read(rows: Rows) -> list[Any]:
        return [examples[row] for row in rows]

    return Split(labels.astype(np.int64), read)
