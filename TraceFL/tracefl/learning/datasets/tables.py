"""Tables with columns of images or text and a column of labels, turned into splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracefl.errors import DataError
from tracefl.learning.datasets.images import decode_image
from tracefl.learning.datasets.settings import DatasetSettings
from tracefl.learning.datasets.sources import RawDataset, Rows, Split

MOST_VALUES_SHOWN = 5


def raw_dataset(tables: Mapping[str, Any], settings: DatasetSettings) -> RawDataset:
    """Describe the tables of splits as a data set.

    Class names are ``dataset.label_names`` if set, otherwise the ClassLabel names in the files, otherwise the sorted
    distinct values of the label column in all tables.

    Args:
        tables: Name of a split to its ``datasets.Dataset`` with the columns that ``settings`` name: of the train and
            the test split, or of one that becomes both.
        settings: The data set's configuration.

    Raises:
        DataError: A column has an unexpected type, or a label is missing, negative or out of range.
    """
    names = settings.label_names or _class_names(tables, settings)
    values = [_label_values(table, settings, split) for split, table in tables.items()]
    if names is None:
        classes = np.unique(np.concatenate(values))
        if classes.dtype.kind == "i" and classes[0] < 0:
            raise DataError(_labels_message(settings, classes[classes < 0].tolist(), "negative"))
        names = [str(value) for value in classes]
        labels = [np.searchsorted(classes, each).astype(np.int64) for each in values]
    else:
        labels = [_numbered(each, names, settings) for each in values]
    splits = [_split(table, its, split, settings) for (split, table), its in zip(tables.items(), labels, strict=True)]
    return RawDataset(settings.name, settings.kind, splits[0], splits[-1], tuple(names))


def class_names(schema: Any, column: str) -> list[str] | None:
    """Return the names of classes that a file's schema of Arrow stores for its label column; None if there are none."""
    from datasets import Features

    names: list[str] | None = getattr(Features.from_arrow_schema(schema)[column], "names", None)
    return names


def _class_names(tables: Mapping[str, Any], settings: DatasetSettings) -> list[str] | None:
    """Return the class names stored in the files, ``None`` if there are none."""
    named = {split: class_names(table.data.schema, str(settings.label_column)) for split, table in tables.items()}
    first, *others = named.values()
    if any(other != first for other in others):
        shown = ", ".join(f"{split} {names}" for split, names in named.items())
        raise DataError(f"data set {settings.name!r}: the splits name their classes {shown}; set dataset.label_names")
    return first


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


def _split(table: Any, labels: Rows, split: str, settings: DatasetSettings) -> Split:
    if settings.kind == "text":
        return Split(labels, _text_reader(table, settings))
    return Split(labels, _image_reader(table, split, settings))


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


def _image_reader(table: Any, split: str, settings: DatasetSettings) -> Any:
    from datasets import Image

    column = settings.input_columns[0]
    feature = table.features[column]
    if isinstance(feature, Image):
        table = table.cast_column(column, Image(decode=False))  # decoded in images.py, as an image asked about later is
    elif not _holds_bytes(feature) and not (isinstance(feature, dict) and set(feature) == {"bytes", "path"}):
        raise DataError(_input_message(table, settings, column, "encoded images"))
    images = table.select_columns([column])
    missing = np.flatnonzero(table.data.column(column).is_null().to_numpy())
    if len(missing):
        raise DataError(
            f"data set {settings.name!r}: split {split} has {len(missing)} rows without an image in column {column!r}, "
            f"the first is row {missing[0]} (from 0); remove them or set dataset.input_columns"
        )

    def read(rows: Rows) -> Sequence[Any]:
        place = f"data set {settings.name!r}: split {split}, column {column!r}"
        return _Images(images[rows.tolist()][column], rows, place)

    return read


@dataclass(frozen=True)
class _Images(Sequence[Any]):
    """Images that are decoded one at a time: many photographs together would not fit into memory.

    Attributes:
        encoded: Contents of files, or mappings of ``bytes`` and ``path``.
        rows: Each one's row.
        place: Where they come from, for messages.
    """

    encoded: Sequence[Any]
    rows: Rows
    place: str

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: Any) -> Any:
        try:
            return decode_image(_content(self.encoded[index]))
        except DataError as error:
            row = int(self.rows[index])
            raise DataError(f"{self.place}, row {row} (from 0): the image {error}, or remove the row") from error


def _content(cell: Any) -> bytes:
    """Return the content of an image's file, which a table holds or names."""
    if isinstance(cell, bytes):
        return cell
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    if cell["path"] is None:
        raise DataError("is missing: it has neither bytes nor a path; give one")
    try:
        return Path(cell["path"]).read_bytes()
    except OSError as error:
        raise DataError(
            f"lies in a file that cannot be read ({error.strerror}: {cell['path']}); give the images' bytes"
        ) from error


def _holds_bytes(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def _input_message(table: Any, settings: DatasetSettings, column: str, expected: str) -> str:
    return (
        f"data set {settings.name!r}: column {column!r} holds {table.data.schema.field(column).type}, expected "
        f"{expected}; set dataset.input_columns or dataset.kind (now {settings.kind})"
    )
