"""How long FedDebug takes for a round, and the other rules beside it. Median seconds; weights are random.

The processor's seconds stand beside the clock's: on a machine that others use too, the clock says little.

python TraceFL/benchmarks/feddebug.py                                    # ResNet-18, 10 clients, 10 random inputs
python TraceFL/benchmarks/feddebug.py --model densenet121 --clients 100 --faults 3
python TraceFL/benchmarks/feddebug.py --rules feddebug krum cosine own_logit removal
"""

import argparse
import statistics
import sys
import time
from functools import partial

import torch
from provenance import model_and_inputs

from tracefl.provenance import RoundRecord
from tracefl.questions.baselines import RULES, Evidence, feddebug


def main() -> None:
    """Print a line a rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("resnet18", "densenet121"), default="resnet18")
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=["feddebug"])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--inputs", type=int, default=10, help="random ones of FedDebug, those of the other rules")
    parser.add_argument("--faults", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    evidence = evidence_of(options.model, options.clients, options.inputs, options.faults)
    rules = {**RULES, "feddebug": partial(feddebug, num_inputs=options.inputs)}
    for name in options.rules:
        rules[name](evidence)  # once, not timed
        seconds, processor = [], []
        for _ in range(options.repeats):
            began, processor_began = time.perf_counter(), time.process_time()
            rules[name](evidence)
            seconds.append(time.perf_counter() - began)
            processor.append(time.process_time() - processor_began)
        sys.stdout.write(
            f"{name}: median {statistics.median(seconds):.3f} s, {min(seconds):.3f} to {max(seconds):.3f} of "
            f"{options.repeats}, of the processor {statistics.median(processor):.3f} s; {options.model} at 32x32, "
            f"{options.clients} clients, {options.inputs} inputs, {options.faults} faulty, {options.threads} threads, "
            f"torch {torch.__version__}\n"
        )


def evidence_of(name: str, num_clients: int, num_inputs: int, num_faults: int) -> Evidence:
    """Return a round whose clients are near the model: their weights with noise of 1 %."""
    model, inputs = model_and_inputs(name, num_inputs)
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    clients = {
        str(k): {
            key: tensor * (1 + 0.01 * torch.randn_like(tensor)) if tensor.is_floating_point() else tensor
            for key, tensor in start.items()
        }
        for k in range(num_clients)
    }
    record = RoundRecord(1, clients, dict.fromkeys(clients, 1 / num_clients), start, start)
    with torch.no_grad():
        predicted = model(inputs).argmax(dim=1)
    return Evidence(record, model, inputs, predicted, seed=0, num_faults=num_faults)


if __name__ == "__main__":
    sys.exit(main())
