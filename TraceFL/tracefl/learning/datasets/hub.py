"""Data sets of the Hugging Face hub, from a folder of parquet files or from the hub itself.

Both are read the same way, since files from the hub are first downloaded to its local cache. With ``dataset.path``, no
network is used.
"""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tracefl.common.paths import expand
from tracefl.errors import ConfigError, DataError, one_line
from tracefl.learning.datasets.settings import DatasetSettings
from tracefl.learning.datasets.sources import RawDataset, register_source
from tracefl.learning.datasets.split_files import SplitFiles, check_apart, find_split
from tracefl.learning.datasets.tables import class_names, raw_dataset

HUB_TIMEOUT_SECONDS = 10.0

log = logging.getLogger(__name__)


@register_source("hub")
def hub(settings: DatasetSettings, seed: int) -> RawDataset:  # noqa: ARG001 - every source takes the seed
    """Open a data set of parquet files with one or more input columns and one label column.

    The folder is ``dataset.path``, or ``dataset.name`` if that is a folder. Otherwise the files of ``dataset.hub_id``
    (or ``dataset.name``) come from the hub's cache, to which they are downloaded once.

    Args:
        settings: Folder or hub id, and columns. A text is its non-empty input columns, joined by newlines.
        seed: Not used: the files hold both splits.

    Raises:
        ConfigError: No columns are named, or several for images.
        DataError: Folder, split, column or network is missing, a split's name is not clear, or the labels do not fit.
    """
    _check_columns(settings)
    folder, remedy = _folder(settings)
    train = find_split(folder, "train", settings.train_split, remedy)
    test = find_split(folder, "test", settings.test_split, remedy)
    notes = (*train.notes, *test.notes, *check_apart(train, test))
    tables = {split.name: _read_split(split, settings) for split in (train, test)}
    return replace(raw_dataset(tables, settings), notes=notes)


def hub_split(settings: DatasetSettings, split: str) -> RawDataset:
    """Open one split of a data set whose folder may lack the other: a deployed client's, or the server's.

    Args:
        settings: As for ``hub``.
        split: ``train`` or ``test``; becomes both splits of the result.

    Raises:
        ConfigError: No columns are named, or several for images.
        DataError: Folder, split, column or network is missing, or the labels do not fit.
    """
    _check_columns(settings)
    folder, remedy = _folder(settings)
    wanted = {"train": settings.train_split, "test": settings.test_split}[split]
    found = find_split(folder, split, wanted, remedy)
    return replace(raw_dataset({found.name: _read_split(found, settings)}, settings), notes=found.notes)


def fetch_command(hub_id: str) -> str:
    """Return the shell command that fetches a data set on a machine with network access."""
    return f"hf download --repo-type dataset {hub_id} --local-dir DIR"


def _check_columns(settings: DatasetSettings) -> None:
    if not settings.label_column:
        raise ConfigError(f"dataset.label_column is {settings.label_column!r}; set it to the column of the labels")
    if not settings.input_columns or (settings.kind == "image" and len(settings.input_columns) > 1):
        raise ConfigError(
            f"dataset.input_columns is {list(settings.input_columns)}; name "
            + ("the image's column" if settings.kind == "image" else "one or more columns of text")
        )


def _folder(settings: DatasetSettings) -> tuple[Path, str]:
    """Return the folder to read, and the advice to give if something is missing from it."""
    hub_id = settings.hub_id or settings.name
    fetch = f"fetch the data set with `{fetch_command(hub_id)}` and set dataset.path=DIR"
    if settings.path is not None:
        folder = expand(settings.path)
        remedy = f"set dataset.path to a folder with train.parquet and test.parquet, or {fetch}"
    elif settings.hub_id is None and settings.name.startswith(("/", ".", "~")):
        folder = expand(settings.name)
        remedy = "set dataset.name to a hub id or to a folder with train.parquet and test.parquet"
    elif settings.hub_id is None and Path(settings.name).is_dir():
        return Path(settings.name), "set dataset.name to a folder with train.parquet and test.parquet"
    else:
        return _download(hub_id, fetch), (
            "a data set of other files has a parquet copy on the hub: add --revision refs/convert/parquet to "
            f"`{fetch_command(hub_id)}` and set dataset.path=DIR"
        )
    if not folder.is_dir():
        raise DataError(f"data set {settings.name!r}: {folder} is not a folder; {remedy}")
    return folder, remedy


def _download(hub_id: str, fetch: str) -> Path:
    """Download a data set's parquet files to the hub's cache and return their folder.

    The hub is contacted once, with a time limit, because its client library retries for minutes without a network. If
    it does not answer, a complete copy in the cache is used. ``HF_HUB_OFFLINE=1`` is respected.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # opt-in here; read when huggingface_hub is imported
    import httpx
    from huggingface_hub import HfApi, snapshot_download

    reason: Exception | None = None
    try:
        HfApi().repo_info(hub_id, repo_type="dataset", timeout=HUB_TIMEOUT_SECONDS)
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = error
        log.info("hub_id=%s not reached (%s); looking in the local cache", hub_id, type(error).__name__)
    try:
        folder = snapshot_download(
            hub_id,
            repo_type="dataset",
            allow_patterns="*.parquet",
            local_files_only=reason is not None,
            etag_timeout=HUB_TIMEOUT_SECONDS,
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        cause = str(reason or error).strip().partition("\n")[0] or type(reason or error).__name__
        raise DataError(
            f"data set {hub_id!r} is neither in the local cache nor to be had from the Hugging Face hub ({cause}); on "
            f"a machine with network {fetch}"
        ) from error
    return Path(folder)


def _read_split(split: SplitFiles, settings: DatasetSettings) -> Any:
    """Read the needed columns into a ``datasets.Dataset``, leaving images encoded and writing no cache."""
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]

    columns = list(dict.fromkeys([*settings.input_columns, str(settings.label_column)]))
    named: list[str] | None = None
    try:
        for path in split.files:
            schema = parquet.read_schema(path)
            missing = [column for column in columns if column not in schema.names]
            if missing:
                key = "dataset.label_column" if missing == [settings.label_column] else "dataset.input_columns"
                raise DataError(
                    f"data set {settings.name!r}: {path.name} has no column {', '.join(map(repr, missing))}, only "
                    f"{', '.join(schema.names)}; set {key}"
                )
            names = class_names(schema, str(settings.label_column))
            if path != split.files[0] and names != named:
                raise DataError(
                    f"data set {settings.name!r}: {split.files[0].name} names its classes {named}, {path.name} "
                    f"{names}, so the same number would be two classes: make the files again, or choose one split"
                )
            named = names
        table = parquet.read_table([str(path) for path in split.files], columns=columns)
    except (OSError, ArrowException) as error:
        raise DataError(
            f"data set {settings.name!r}: {split.files[0].parent} cannot be read as parquet ({one_line(error)}); fetch "
            "the files again"
        ) from error
    return Dataset(InMemoryTable(table))
