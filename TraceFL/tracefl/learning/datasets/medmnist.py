"""MedMNIST's two-dimensional data sets (Yang et al. 2023, MedMNIST v2), through the medmnist package.

Clients train on the train split and the server tests on the test split; the val split is not used.
"""

import contextlib
import socket
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tracefl.common.paths import expand
from tracefl.errors import ConfigError, DataError
from tracefl.learning.datasets.settings import DatasetSettings
from tracefl.learning.datasets.sources import RawDataset, Rows, Split, register_source

DOWNLOAD_TIMEOUT_SECONDS = 15.0
SINGLE_LABEL_TASKS = ("multi-class", "binary-class", "ordinal-regression")


@register_source("medmnist")
def medmnist(settings: DatasetSettings, seed: int) -> RawDataset:  # noqa: ARG001 - every source takes the seed
    """Open ``NAME.npz`` of 28 x 28 images, such as ``pathmnist`` (colour) or ``organamnist`` (grayscale).

    Args:
        settings: ``name`` is MedMNIST's flag, ``root`` the file's folder. Without ``root``, the package's own folder is
            used, and the file is downloaded to it if absent.
        seed: Not used: the file holds both splits.

    Raises:
        ConfigError: MedMNIST has no such data set, or the data set does not have exactly one label per image.
        DataError: The file is absent, damaged or not in MedMNIST's layout.
    """
    import medmnist as package

    info = _info(settings, package.INFO)
    python_class = getattr(package, info["python_class"])
    root, download = _root(settings, python_class.__name__)
    label_names = tuple(info["label"][str(index)] for index in range(len(info["label"])))
    train, test = (
        _split(_open(python_class, split, root, download, settings), split, len(label_names), root, settings)
        for split in ("train", "test")
    )
    return RawDataset(settings.name, "image", train, test, label_names)


def _info(settings: DatasetSettings, known: dict[str, Any]) -> dict[str, Any]:
    flags = [
        flag for flag, info in known.items() if info["task"] in SINGLE_LABEL_TASKS and "3D" not in info["python_class"]
    ]
    if settings.name not in flags:
        raise ConfigError(f"dataset.name is {settings.name!r}; set it to one of {', '.join(flags)}")
    return dict(known[settings.name])


def _root(settings: DatasetSettings, class_name: str) -> tuple[Path, bool]:
    """Return the folder of the file, and whether to download it there."""
    from medmnist.info import DEFAULT_ROOT

    if settings.root is None and DEFAULT_ROOT is not None:
        root = Path(DEFAULT_ROOT)
        return root, not (root / f"{settings.name}.npz").is_file()
    root = expand(settings.root or ".")
    if settings.root is None or not (root / f"{settings.name}.npz").is_file():
        where = (
            "the home directory cannot be written" if settings.root is None else f"{root} has no {settings.name}.npz"
        )
        raise DataError(f"data set {settings.name!r}: {where}; {_remedy(class_name)}")
    return root, False


def _remedy(class_name: str) -> str:
    return (
        'on a machine with network run `mkdir -p DIR && python -c "import medmnist; medmnist.'
        f"{class_name}(split='train', download=True, root='DIR')\"` and set dataset.root=DIR"
    )


def _open(python_class: Any, split: str, root: Path, download: bool, settings: DatasetSettings) -> Any:
    file = root / f"{settings.name}.npz"
    try:
        with _socket_timeout(DOWNLOAD_TIMEOUT_SECONDS):
            return python_class(split=split, root=str(root), download=download)
    except RuntimeError as error:  # the only error that medmnist raises for a failed download
        raise DataError(
            f"data set {settings.name!r} is not in {root} and could not be downloaded; {_remedy(python_class.__name__)}"
        ) from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"data set {settings.name!r}: {file} is not MedMNIST's file ({type(error).__name__}: {error}); remove it, "
            "then " + _remedy(python_class.__name__)
        ) from error


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limit how long new connections wait: medmnist's own download has no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _split(opened: Any, split: str, num_classes: int, root: Path, settings: DatasetSettings) -> Split:
    images, labels = opened.imgs, np.asarray(opened.labels).reshape(-1)
    problem = None
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        problem = f"{split}_images is {images.dtype} {images.shape}, expected uint8 (N, 28, 28) or (N, 28, 28, 3)"
    elif labels.dtype.kind not in "iu" or len(labels) != len(images) or not len(labels):
        problem = f"{split}_labels is {labels.dtype} of {len(labels)} labels for {len(images)} images"
    elif labels.min() < 0 or labels.max() >= num_classes:
        problem = f"{split}_labels holds {labels.min()} to {labels.max()}, expected 0 to {num_classes - 1}"
    if problem:
        raise DataError(
            f"data set {settings.name!r}: {root / f'{settings.name}.npz'}: {problem}; remove the file, then "
            + _remedy(type(opened).__name__)
        )

    def read(rows: Rows) -> list[Any]:
        return [images[row] for row in rows]

    return Split(labels.astype(np.int64), read)
