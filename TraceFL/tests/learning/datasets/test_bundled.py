import numpy as np
import pytest

from tracefl.learning.datasets import load_source


@pytest.fixture
def digits(make_settings):
    return lambda seed: load_source(make_settings(name="digits", source="digits"), seed)


@pytest.fixture
def corpus(make_settings):
    return lambda seed: load_source(make_settings(name="synthetic_text", source="synthetic_text", kind="text"), seed)


def test_digits_are_split_80_to_20_within_each_class(digits):
    raw = digits(0)
    assert (raw.kind, raw.num_classes, len(raw.train), len(raw.test)) == ("image", 10, 1437, 360)
    train, test = np.bincount(raw.train.labels), np.bincount(raw.test.labels)
    np.testing.assert_allclose(test / (train + test), 0.2, atol=0.01)


def test_digits_use_all_values_of_a_byte(digits):
    images = np.stack(digits(0).train.read(np.arange(100)))
    assert images.dtype == np.uint8
    assert images.shape == (100, 8, 8)
    assert (images.min(), images.max()) == (0, 255)
    assert np.isin(images, np.rint(np.arange(17) * 255 / 16)).all()


def test_digits_depend_on_the_seed_alone(digits):
    rows = np.arange(1437)
    first, same, other = (np.stack(digits(seed).train.read(rows)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_corpus_is_balanced_and_called_synthetic(corpus):
    raw = corpus(0)
    assert np.bincount(raw.train.labels).tolist() == [200] * 10
    assert np.bincount(raw.test.labels).tolist() == [50] * 10
    assert all(name.startswith("synthetic") for name in raw.label_names)


def test_corpus_depends_on_the_seed_alone(corpus):
    rows = np.arange(50)
    first, same, other = (corpus(seed).train.read(rows) for seed in (1, 1, 2))
    assert first == same
    assert first != other
    assert first != corpus(1).test.read(rows)


def test_corpus_can_be_learned_but_not_perfectly(corpus):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    raw = corpus(0)
    counter = CountVectorizer()
    model = MultinomialNB().fit(counter.fit_transform(raw.train.read(np.arange(2000))), raw.train.labels)
    accuracy = model.score(counter.transform(raw.test.read(np.arange(500))), raw.test.labels)
    assert 0.85 < accuracy < 0.99
