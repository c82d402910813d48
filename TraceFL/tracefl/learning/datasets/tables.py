"""Tables with columns of images or text and a column of labels, turned into splits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracefl.errors import DataError
from tracefl.learning.datasets.settings import DatasetSettings
from tracefl.learning.datasets.sources import RawDataset, Rows, Split

MOST_VALUES_SHOWN = 5


def raw_dataset(train: Any, test: Any, settings: DatasetSettings) -> RawDataset:
    """Describe two tables as a data set.

    Class names are ``dataset.label_names`` if set, otherwise the ClassLabel names in the files, otherwise the sorted
    distinct values of the label column in both tables.

    Args:
        train: ``datasets.Dataset`` with the columns that ``settings`` name.
        test: The same for the test split.
        settings: The data set's configuration.

    Raises:
        DataError: A column has an unexpected type, or a label is missing, negative or out of range.
    """
    names = settings.label_names or _class_names(train, test, settings)
    values = [_label_values(table, settings, split) for table, split in ((train, "train"), (test, "test"))]
    if names is None:
        classes = np.unique(np.concatenate(values))
        if classes.dtype.kind == "i" and classes[0] < 0:
            raise DataError(_labels_message(settings, classes[classes < 0].tolist(), "negative"))
        names = [str(value) for value in classes]
        train_labels, test_labels = (np.searchsorted(classes, each).astype(np.int64) for each in values)
    else:
        train_labels, test_labels = (_numbered(each, names, settings) for each in values)
    return RawDataset(
        settings.name,
        settings.kind,
        _split(train, train_labels, settings),
        _split(test, test_labels, settings),
        tuple(names),
    )


def _class_names(train: Any, test: Any, settings: DatasetSettings) -> list[str] | None:
    """Return the class names stored in the files, ``None`` if there are none."""
    names, test_names = (getattr(table.features[settings.label_column], "names", None) for table in (train, test))
    if names != test_names:
        raise DataError(
            f"data set {settings.name!r}: train names its classes {names}, test {test_names}; set dataset.label_names"
        )
    return names


def _label_values(table: Any, settings: DatasetSettings, split: str) -> NDArray[Any]:
    """Return a split's labels, ``(N,)`` int64 or text."""
    column = table.data.column(settings.label_column)
    if len(column) == 0 or column.null_count:
        problem = f"{column.null_count} missing labels" if len(column) else "no examples"
        raise DataError(
            f"data set {settings.name!r}: split {split} has {problem} in column {settings.label_column!r}; check the "
            "files or set dataset.label_column"
        )
    values = column.to_numpy()
    if values.dtype.kind in "iub":
        return np.asarray(values, dtype=np.int64)
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        return np.asarray(values, dtype=np.str_)
    raise DataError(
        f"data set {settings.name!r}: label column {settings.label_column!r} holds {column.type}, expected whole "
        "numbers or text; set dataset.label_column"
    )


def _numbered(values: NDArray[Any], names: Sequence[str], settings: DatasetSettings) -> Rows:
    """Turn label values into classes 0 to ``len(names) - 1``; text is looked up among ``names``."""
    distinct, inverse = np.unique(values, return_inverse=True)
    if distinct.dtype.kind == "i":
        outside = distinct[(distinct < 0) | (distinct >= len(names))]
        if len(outside):
            raise DataError(_labels_message(settings, outside.tolist(), f"outside 0 to {len(names) - 1}"))
        return values
    number = {name: index for index, name in enumerate(names)}
    unknown = [str(value) for value in distinct if value not in number]
    if unknown:
        raise DataError(_labels_message(settings, unknown, f"not among the {len(names)} names of classes"))
    return np.array([number[value] for value in distinct], dtype=np.int64)[inverse]


def _labels_message(settings: DatasetSettings, values: list[Any], problem: str) -> str:
    shown = ", ".join(map(repr, values[:MOST_VALUES_SHOWN])) + (", ..." if len(values) > MOST_VALUES_SHOWN else "")
    return (
        f"data set {settings.name!r}: label column {settings.label_column!r} holds {shown}, {problem}; remove those "
        "examples, or set dataset.label_column or dataset.label_names"
    )


def _split(table: Any, labels: Rows, settings: DatasetSettings) -> Split:
    if settings.kind == "text":
        return Split(labels, _text_reader(table, settings))
    return Split(labels, _image_reader(table, settings))


def _text_reader(table: Any, settings: DatasetSettings) -> Any:
    columns = list(settings.input_columns)
    for column in columns:
        if getattr(table.features[column], "dtype", None) not in ("string", "large_string"):
            raise DataError(_input_message(table, settings, column, "text"))
    texts = table.select_columns(columns)

    def read(rows: Rows) -> list[str]:
        chosen = texts[rows.tolist()]
        return ["\n".join(part for part in parts if part) for parts in zip(*(chosen[c] for c in columns), strict=True)]

    return read


def _image_reader(table: Any, settings: DatasetSettings) -> Any:
    from datasets import Image

    column = settings.input_columns[0]
    if not isinstance(table.features[column], Image):
        feature = table.features[column]
        encoded = getattr(feature, "dtype", None) in ("binary", "large_binary")
        if not encoded and not (isinstance(feature, dict) and set(feature) == {"bytes", "path"}):
            raise DataError(_input_message(table, settings, column, "encoded images"))
        table = table.cast_column(column, Image())
    images = table.select_columns([column])

    def read(rows: Rows) -> list[Any]:
        try:
            return list(images[rows.tolist()][column])
        except (OSError, SyntaxError, ValueError) as error:  # what PIL raises on damaged files
            raise DataError(
                f"data set {settings.name!r}: an image of column {column!r} in rows {rows.min()} to {rows.max()} "
                f"cannot be decoded ({error}); fetch the files again"
            ) from error

    return read


def _input_message(table: Any, settings: DatasetSettings, column: str, expected: str) -> str:
    return (
        f"data set {settings.name!r}: column {column!r} holds {table.data.schema.field(column).type}, expected "
        f"{expected}; set dataset.input_columns or dataset.kind (now {settings.kind})"
    )
