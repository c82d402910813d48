"""How fast the engine is, against Algorithm 1 read literally and against the hardware's limit. Needs torch alone.

    python TraceFL/benchmarks/provenance.py                                  # four models, 10 and 100 clients
    python TraceFL/benchmarks/provenance.py --models resnet18 --clients 10 100 1000 --from-disk --no-literal
    python TraceFL/benchmarks/provenance.py --device cuda --full             # full-size GPT and BERT

Timed in one run, in turn, several times:

(a) Algorithm 1 as the artifact goes about it: one input at a time, each client's layers run one by one. Its time is
    proportional to the inputs, so it is timed on some of them (--literal-inputs) and scaled up;
(b) the engine, ``tracefl.provenance.attribute``;
(c) the limit: one forward and one backward of the batch to the layers' outputs, and one reading of all traced client
    weights from where they lie.

The disagreement is between (a) and (b), relative to the largest contribution. The errors are of what the scores depend
on, the contributions' differences between clients, against the same computed in float64: (a) multiplies whole weights,
(b) subtracts the global model first.
"""

import argparse
import copy
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tracefl.provenance import Compute, attribute

MODELS = ("resnet18", "densenet121", "gpt", "bert")
LAYER_DECAY = 0.9
_PUBLISHED: dict[str, Any] = {
    **{"target": "predicted", "weighting": "none", "reference": "none", "layer_decay": LAYER_DECAY, "also": ()}
}
_KINDS = ("Linear", "Conv1d", "Conv2d", "Conv1D", "LayerNorm")


def main() -> None:
    """Run the benchmark and print its table; JSON goes to --json."""
    options = _options()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message="not traced")
    rows = []
    for name in options.models:
        for num_clients in options.clients:
            rows.append(measure(name, num_clients, options))
            sys.stderr.write(_line(rows[-1]) + "\n")
    report = {"machine": _machine(options), "rows": rows}
    sys.stdout.write("\n".join(("", f"{report['machine']}", "", *_table(rows), "")))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def measure(name: str, num_clients: int, options: argparse.Namespace) -> dict[str, Any]:
    """Time the three for one model and number of clients."""
    device = torch.device(options.device)
    model, inputs = model_and_inputs(name, options.inputs, options.full)
    layers = _traced(model)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        clients: Mapping[str, Any] = _clients(model, num_clients, Path(folder) if options.from_disk else None, device)
        model.to(device)
        inputs = {k: t.to(device) for k, t in inputs.items()} if isinstance(inputs, dict) else inputs.to(device)
        few = _first(inputs, options.literal_inputs)
        found: dict[str, Any] = {}

        def engine(target: Any = "predicted") -> None:
            found["b" if target == "predicted" else "all"] = attribute(
                model,
                clients,
                inputs,
                **{**_PUBLISHED, "target": target},
                compute=Compute(options.inputs, precision=options.precision, device=device),
            )

        def literal() -> None:
            found["a"] = _literal(model, clients, few, layers)

        def limit() -> None:
            _forward_backward(model, inputs, layers)
            _read(clients, layers)

        ways: dict[str, Callable[[], None]] = {"b": engine, "c": limit}
        if not (options.no_literal or options.from_disk):
            ways["a"] = literal
        if options.all_classes:
            ways["all"] = lambda: engine("all")
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        peak = _peak_beyond(engine, device)
        for way in ("b", "c"):
            ways[way]()  # once more, not timed
        for _ in range(options.repeats):
            for way, run in ways.items():
                if way == "a" and len(seconds["a"]) >= options.literal_repeats:
                    continue
                seconds[way].append(_timed(run, device))
    median = {way: statistics.median(values) for way, values in seconds.items()}
    row = {
        "model": name,
        "clients": num_clients,
        "inputs": options.inputs,
        "a": median["a"] * options.inputs / options.literal_inputs if "a" in median else None,
        "b": median["b"],
        "c": median["c"],
        "all": median.get("all"),
        "classes": found["all"].contributions.shape[2] if "all" in found else None,
        "spread": {way: [min(values), max(values)] for way, values in seconds.items()},
        "peak_mib": peak / 2**20,
        "disagreement": None,
        "error_a": None,
        "error_b": None,
    }
    row["a/b"] = row["a"] / row["b"] if row["a"] else None
    row["b/c"] = statistics.median(b / c for b, c in zip(seconds["b"], seconds["c"], strict=True))
    row["all/b"] = row["all"] / row["b"] if row["all"] else None
    if "a" in found:
        a, b = found["a"], found["b"].contributions[: options.literal_inputs].double()
        row["disagreement"] = float((a - b).abs().max() / a.abs().max())
        some = dict(list(clients.items())[:10])
        exact = _between_clients(_in_float64(model, some, few))
        for way, contributions in (("error_a", a), ("error_b", b)):
            error = _between_clients(contributions[:, : len(some)]) - exact
            row[way] = float(error.abs().max() / exact.abs().max())
    return row


def model_and_inputs(name: str, num_inputs: int, full: bool = False) -> tuple[nn.Module, Any]:
    """Return a model with random weights and a batch for it: 32x32 images, or 128 tokens."""
    torch.manual_seed(0)
    if name in ("resnet18", "densenet121"):
        import torchvision

        model = getattr(torchvision.models, name)(num_classes=10)
        images = torch.randn(num_inputs, 3, 32, 32)
        model.train()
        with torch.no_grad():
            for _ in range(20):
                model(torch.randn(64, 3, 32, 32))  # running statistics of these weights
        return model.eval(), images
    import transformers

    layers, width = (12, 768) if full else (4, 256)
    tokens = torch.randint(1, 1000, (num_inputs, 128))
    if name == "gpt":
        config = transformers.OpenAIGPTConfig(
            n_layer=layers, n_embd=width, n_head=width // 64, num_labels=14, pad_token_id=0
        )
        return transformers.OpenAIGPTForSequenceClassification(config).eval(), {"input_ids": tokens}
    config = transformers.BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        num_labels=14,
    )
    mask = torch.ones_like(tokens)
    return transformers.BertForSequenceClassification(config).eval(), {"input_ids": tokens, "attention_mask": mask}


def _clients(model: nn.Module, count: int, folder: Path | None, device: torch.device) -> dict[str, Any]:
    """Return clients that differ from the model as trained ones do, by a hundredth; the model is their average.

    On disk, at most 100 files are written and each is read by as many clients as it takes: what is read is the same.
    """
    from safetensors.torch import save_file

    state = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    made: dict[str, Any] = {}
    for k in range(min(count, 100) if folder else count):
        generator = torch.Generator().manual_seed(k + 1)
        weights = {
            name: tensor + 0.01 * tensor.std().nan_to_num() * torch.randn(tensor.shape, generator=generator)
            for name, tensor in state.items()
        }
        if folder is None:
            made[str(k)] = {name: tensor.to(device) for name, tensor in weights.items()}
        else:
            made[str(k)] = folder / f"{k}.safetensors"
            save_file(weights, made[str(k)])
    return {str(k): made[str(k % len(made))] for k in range(count)}


def _literal(model: nn.Module, clients: Mapping[str, Any], inputs: Any, layers: dict[str, nn.Module]) -> Tensor:
    """Algorithm 1: for each input and client, the client's layers on the global layers' inputs, times the gradients."""
    client_layers = {k: _layers_of(weights, layers) for k, weights in clients.items()}
    rows = []
    for i in range(_count(inputs)):
        seen, outputs, logits = _record(model, _first(inputs, i + 1, i), layers)
        gradients = torch.autograd.grad(logits.max(), outputs, allow_unused=True)
        row = []
        for own in client_layers.values():
            contribution = 0.0
            for position, ((name, layer_input), gradient) in enumerate(zip(seen, gradients, strict=True)):
                if gradient is None:
                    continue
                with torch.no_grad():
                    part = (own[name](layer_input) * gradient).sum()
                contribution += LAYER_DECAY ** (len(layers) - 1 - position) * float(part)
            row.append(contribution)
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def _in_float64(model: nn.Module, clients: Mapping[str, Any], inputs: Any) -> Tensor:
    """Return the contributions of the same weights, computed in float64."""
    weights = {k: {name: tensor.double() for name, tensor in own.items()} for k, own in clients.items()}
    double = copy.deepcopy(model).double()
    inputs = inputs if isinstance(inputs, dict) else inputs.double()
    return attribute(double, weights, inputs, **_PUBLISHED).contributions


def _between_clients(contributions: Tensor) -> Tensor:
    """Return the contributions less their mean over the clients: all that the scores depend on."""
    return contributions - contributions.mean(dim=1, keepdim=True)


def _layers_of(weights: Mapping[str, Tensor], layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Return a client's own copies of the traced layers."""
    made = {}
    for name, layer in layers.items():
        made[name] = copy.deepcopy(layer)
        for parameter in dict(layer.named_parameters()):
            getattr(made[name], parameter).data = weights[f"{name}.{parameter}"]
    return made


def _forward_backward(model: nn.Module, inputs: Any, layers: dict[str, nn.Module]) -> None:
    _, outputs, logits = _record(model, inputs, layers)
    torch.autograd.grad(logits.max(dim=1).values.sum(), outputs, allow_unused=True)


def _record(
    model: nn.Module, inputs: Any, layers: dict[str, nn.Module]
) -> tuple[list[tuple[str, Tensor]], list[Tensor], Tensor]:
    """Run the model; return each layer's name and input, its output, and the logits. In the layers' own order."""
    model.requires_grad_(False)
    seen: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def keep(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            seen[name] = args[0].detach()
            outputs[name] = output if output.requires_grad else output.requires_grad_()
            return outputs[name]

        return keep

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    out = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    for handle in handles:
        handle.remove()
    called = [name for name in layers if name in outputs]
    return [(name, seen[name]) for name in called], [outputs[name] for name in called], getattr(out, "logits", out)


def _read(clients: Mapping[str, Any], layers: dict[str, nn.Module]) -> None:
    """Read every traced number of every client once, from memory or from its file."""
    names = [f"{name}.{parameter}" for name, layer in layers.items() for parameter, _ in layer.named_parameters()]
    for weights in clients.values():
        if isinstance(weights, Path):
            from safetensors import safe_open

            with safe_open(weights, framework="pt") as file:
                for name in names:
                    file.get_tensor(name).sum()
        else:
            for name in names:
                weights[name].sum()


def _traced(model: nn.Module) -> dict[str, nn.Module]:
    return {name: layer for name, layer in model.named_modules() if type(layer).__name__ in _KINDS}


def _timed(run: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _peak_beyond(run: Callable[[], None], device: torch.device) -> int:
    """Return by how many bytes a first run raises the highest memory this process has had, the clients' included."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024


def _count(inputs: Any) -> int:
    return len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)


def _first(inputs: Any, stop: int, start: int = 0) -> Any:
    if isinstance(inputs, dict):
        return {name: tensor[start:stop] for name, tensor in inputs.items()}
    return inputs[start:stop]


def _line(row: dict[str, Any]) -> str:
    return "  ".join(
        f"{key}={_text(row[key])}" for key in ("model", "clients", "a", "b", "c", "a/b", "b/c", "peak_mib")
    )


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    columns = ("model", "clients", "a", "b", "c", "a/b", "b/c", "peak_mib", "disagreement", "error_a", "error_b")
    heads = ("a, s", "b, s", "c, s", *columns[5:7], "peak, MiB", "disagreement", "error of a", "error of b")
    if any(row["all"] for row in rows):
        columns, heads = (*columns, "all/b", "classes"), (*heads, "all/b", "classes")
    yield "| " + " | ".join((*columns[:2], *heads)) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(_text(row[column]) for column in columns) + " |"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _machine(options: argparse.Namespace) -> str:
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{_processor()}, {options.threads} threads"
    return f"{where}, torch {torch.__version__}, {options.inputs} inputs, {time.strftime('%Y-%m-%d')}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--clients", nargs="+", type=int, default=[10, 100])
    parser.add_argument("--inputs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--literal-inputs", type=int, default=2, help="inputs that (a) is timed on")
    parser.add_argument("--literal-repeats", type=int, default=3)
    parser.add_argument("--no-literal", action="store_true", help="leave (a) out")
    parser.add_argument("--from-disk", action="store_true", help="clients as safetensors files; leaves (a) out")
    parser.add_argument("--folder", help="where the files are written; the system's folder for such by default")
    parser.add_argument("--full", action="store_true", help="12 layers of width 768 instead of 4 of 256")
    parser.add_argument("--all-classes", action="store_true", help="time target='all' too: all/b, against one target")
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"), help="of the engine's factors")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", help="file to write the figures to")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
