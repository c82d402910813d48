"""Examples on disk, as safetensors: written atomically, read memory-mapped."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tracefl.common.paths import usual_mode
from tracefl.errors import RecordError
from tracefl.learning.examples import Examples

FEATURE_PREFIX = "features."


def save_examples(path: Path | str, examples: Examples) -> None:
    """Write examples to a file, replacing it atomically.

    Args:
        path: File to write; its folder must exist.
        examples: What to write.

    Raises:
        RecordError: The file cannot be written.
    """
    path = Path(path)
    tensors = {f"{FEATURE_PREFIX}{name}": tensor.contiguous() for name, tensor in examples.features.items()}
    tensors |= {"labels": examples.labels.contiguous(), "rows": examples.rows.contiguous()}
    tensors |= {
        "mean": torch.tensor(examples.mean, dtype=torch.float64),
        "std": torch.tensor(examples.std, dtype=torch.float64),
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with usual_mode(partial):
            save_file(tensors, partial)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise RecordError(f"examples cannot be written to {path} ({error}); check the folder and free space") from error
    finally:
        partial.unlink(missing_ok=True)


def load_examples(path: Path | str, name: Path | None = None) -> Examples:
    """Read what ``save_examples`` wrote; the tensors are mapped to the file until they are modified.

    Args:
        path: The file.
        name: What messages call it; None for its path.

    Raises:
        RecordError: The file is missing, damaged or holds something else.
    """
    opened, path = path, Path(path) if name is None else name
    try:
        tensors = load_file(opened)
    except (OSError, SafetensorError) as error:
        raise RecordError(f"examples cannot be read from {path} ({error}); prepare the data again") from error
    missing = sorted({"labels", "rows", "mean", "std"} - set(tensors))
    features = {
        name.removeprefix(FEATURE_PREFIX): each for name, each in tensors.items() if name.startswith(FEATURE_PREFIX)
    }
    lengths = {name: len(tensor) for name, tensor in tensors.items() if name not in ("mean", "std")}
    if missing or not features or len(set(lengths.values())) > 1:
        problem = f"lacks {', '.join(missing)}" if missing else f"holds tensors of lengths {lengths}"
        raise RecordError(f"{path} {problem}, so it is no file of examples; prepare the data again")
    if tensors["mean"].ndim != 1 or tensors["std"].ndim != 1:
        raise RecordError(
            f"{path} has no mean and std of channels, so it is no file of examples; prepare the data again"
        )
    return Examples(
        features,
        tensors["labels"],
        tensors["rows"],
        tuple(tensors["mean"].tolist()),
        tuple(tensors["std"].tolist()),
    )
