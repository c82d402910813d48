"""What storing a round's clients in fewer bytes costs in exactness, as a Markdown table.

    tracefl run ...
    python TraceFL/benchmarks/storage.py RUN_FOLDER

The run's last stored round is stored again in each way and traced from there. The error is the largest difference of a
contribution to the one from the round as it is, relative to the largest contribution; beside it, how often the first
client is the same.
"""

import sys
import tempfile
import warnings
from pathlib import Path
from typing import get_args

import torch

from tracefl.provenance import Method, RoundRecord, attribute_round
from tracefl.records.result import RoundResult
from tracefl.records.run import StoredRun
from tracefl.records.settings import Dtype, Kind
from tracefl.records.store import RoundStore


def main() -> None:
    """Print the table for the run folder on the command line."""
    warnings.filterwarnings("ignore", message="not traced")
    run = StoredRun(Path(sys.argv[1]))
    model, record = run.round()
    result = run.store.result(record.server_round)
    inputs, labels = run.server.batch(torch.tensor([traced.input_index for traced in result.traced]))
    exact = attribute_round(model, record, inputs, labels, Method(verify=0)).contributions
    sys.stdout.write("| kind | dtype | MB a client | error | same first client |\n|---|---|---|---|---|\n")
    for kind in get_args(Kind):
        for dtype in get_args(Dtype):
            with tempfile.TemporaryDirectory() as place:
                size, again = _stored(Path(place), record, result, dtype, kind)  # read from there while it is traced
                found = attribute_round(model, again, inputs, labels, Method(verify=0)).contributions
            error = float((found - exact).abs().max() / exact.abs().max())
            same = float((found.argmax(dim=1) == exact.argmax(dim=1)).double().mean())
            sys.stdout.write(f"| {kind} | {dtype} | {size / 1e6:.1f} | {error:.1e} | {same:.1%} |\n")


def _stored(
    place: Path, record: RoundRecord, result: RoundResult, dtype: Dtype, kind: Kind
) -> tuple[float, RoundRecord]:
    """Store a round and read it back; returns a client's bytes too."""
    store = RoundStore(place, "all", dtype, kind)
    store.commit(result, record)
    files = list(place.rglob("*-*.safetensors"))
    return sum(path.stat().st_size for path in files) / len(files), store.read(record.server_round)


if __name__ == "__main__":
    sys.exit(main())
