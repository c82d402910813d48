"""What attacks do to a federation under each rule of aggregation, and whether the attackers are named.

Trains small federations on digits in this process: eight clients in every round, two of them attackers. The attacks on
updates are those of byzfl (``pip install byzfl``), whose attackers know all honest updates of the round: the mean of
these turned around (sign flip), the same twice as far (IPM, Xie et al. 2020), and 1.5 standard deviations off it (ALIE,
Baruch et al. 2019). Flipped labels, a backdoor with updates multiplied by 5, and free riders are TraceFL's own.

Prints a table in Markdown: of each attack and rule the accuracy after the last round, and in which share of all traced
mispredictions an attacker is the client that carries them (two of eight clients: 25 % by chance); for the backdoor the
attack's success too. Means over seeds.

python TraceFL/benchmarks/robustness.py
"""

import argparse
import copy
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import torch
from attacks import SmallCnn
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from tracefl.common.imports import imported
from tracefl.conf.composing import compose_config
from tracefl.experiment.runner import run_settings
from tracefl.experiment.settings import read_settings
from tracefl.federation import client
from tracefl.federation.in_process import federation_here
from tracefl.federation.messages import ARRAYS, CLIENT_ID, CONFIG, arrays_of, client_id_of
from tracefl.learning.models.family import ModelFamily, register_model
from tracefl.learning.models.settings import ModelSettings, ModelSpec
from tracefl.records.run import StoredRun
from tracefl.records.settings import Settings

CLIENTS, ATTACKERS, BOOST = 8, ("0", "1"), 5
SMALL = (
    *("model=resnet18", "model.name=small_cnn", "dataset=digits", "dataset.image_size=8", "client.lr=0.003"),
    *(f"num_clients={CLIENTS}", f"clients_per_round={CLIENTS}", "dirichlet_alpha=1", "num_rounds=6"),
    *("batch_size=16", "store=none", "backend=in_process"),
    *("provenance.inputs=mispredicted", "provenance.counterfactual=false"),
)
FAULTY = "fault.clients=[0,1]"
RULES = {
    "average": ("strategy.max_update_norm=null",),
    "average within bounds": (),
    "Multi-Krum": ("strategy=krum", "strategy.malicious=2", "strategy.selected=4"),
    "Bulyan": ("strategy=bulyan", "strategy.malicious=1"),
    "trimmed mean": ("strategy=trimmed_mean", "strategy.cut=0.25"),
    "median": ("strategy=median",),
}


@register_model("small_cnn")
class SmallFamily(ModelFamily):
    """The small CNN of attacks.py, by name."""

    family: ClassVar[str] = "torchvision"

    def spec(self, settings: ModelSettings, num_classes: int, encoder: Any) -> ModelSpec:  # noqa: ARG002  of images
        """Describe it."""
        return ModelSpec(self.family, settings.name, num_classes, {})

    def build(self, spec: ModelSpec) -> nn.Module:  # noqa: ARG002  of one size
        """Build it."""
        return SmallCnn(normalised=True)

    def load_pretrained(self, model: nn.Module, settings: ModelSettings) -> None:
        """There are none."""
        raise NotImplementedError


Attack = Callable[[Tensor, Tensor], Tensor]
"""Takes the honest updates, ``(K, P)``, and the attacker's own, ``(P,)``; returns what the attacker sends."""


@dataclass(frozen=True)
class Named:
    """An attack.

    Attributes:
        keys: Its configuration.
        attack: What becomes of an attacker's update; None for nothing.
    """

    keys: tuple[str, ...] = ()
    attack: Attack | None = None


def attacks() -> dict[str, Named]:
    """Return the attacks by name.

    Raises:
        ConfigError: byzfl is not installed.
    """
    byzfl = imported("byzfl", "benchmarks/robustness.py")

    def omniscient(attack: Callable[[Any], Any]) -> Named:
        return Named(attack=lambda honest, _: torch.as_tensor(attack(honest)))

    return {
        "none": Named(),
        "sign flip": omniscient(byzfl.SignFlipping()),
        "IPM": omniscient(byzfl.InnerProductManipulation(2.0)),
        "ALIE": omniscient(byzfl.ALittleIsEnough(1.5)),
        "label flip": Named(("fault=label_flip", "fault.all_to=0", FAULTY)),
        "backdoor, boosted": Named(("fault=backdoor", FAULTY), lambda _, own: BOOST * own),
        "free rider": Named(("fault=free_rider", FAULTY)),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--attacks", nargs="+", metavar="ATTACK")
    given = parser.parse_args()
    known = attacks()
    say(f"| attack | {' | '.join(RULES)} |\n| --- |{' --- |' * len(RULES)}")
    for name in given.attacks or known:
        cells = []
        for keys in RULES.values():
            with tempfile.TemporaryDirectory() as folder:
                found = [measured(Path(folder), known[name], (*keys, f"seed={seed}")) for seed in given.seeds]
            cells.append(", ".join(f"{100 * fmean(column):.1f}" for column in zip(*found, strict=True)))
        say(f"| {name} | {' | '.join(cells)} |")


def measured(folder: Path, named: Named, keys: tuple[str, ...]) -> tuple[float, ...]:
    """Train one federation; returns accuracy, share of mispredictions carried by an attacker, and attack success."""
    composed = compose_config([*SMALL, *named.keys, *keys, f"log_dir={folder}", "overwrite=true"])
    settings: Settings = read_settings(composed)
    with redirect_stdout(sys.stderr):  # the rounds' lines
        run_settings(settings, federation_here(attacked_app(named.attack)), show=lambda *_: None)
    results = list(StoredRun(settings.folder).results())
    wrong = [each for result in results for each in result.traced if each.predicted != each.label]
    carried = fmean(each.responsible in ATTACKERS for each in wrong) if wrong else 0.0
    success = results[-1].row["attack_success"]
    return results[-1].row["global_accuracy"], carried, *(() if success is None else (success,))


def attacked_app(attack: Attack | None) -> ClientApp:
    """Return the clients, of whom attackers send what the attack makes of the honest updates and their own."""
    app = ClientApp()
    replies: dict[tuple[Any, str], Message] = {}

    def trained(message: Message, context: Context, client_id: str) -> Message:
        config = message.content.config_records[CONFIG]
        key = (config["server-round"], client_id)
        if key not in replies:
            own = copy.copy(message)
            own.content = RecordDict(
                {ARRAYS: arrays_of(message), CONFIG: ConfigRecord({**config, CLIENT_ID: client_id})}
            )
            replies[key] = client.train_client(own, context)
        return replies[key]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client_id = client_id_of(message)
        reply = trained(message, context, client_id)
        if attack is None or client_id not in ATTACKERS:
            return reply
        start, state = arrays_of(message).to_torch_state_dict(), arrays_of(reply).to_torch_state_dict()
        names = [name for name, tensor in state.items() if tensor.is_floating_point() and "running_" not in name]
        honest = torch.stack(
            [update(trained(message, context, str(k)), start, names) for k in range(CLIENTS) if str(k) not in ATTACKERS]
        )
        sent = attack(honest, update(reply, start, names))
        parts = sent.split([start[name].numel() for name in names])
        for name, part in zip(names, parts, strict=True):
            state[name] = start[name] + part.reshape(start[name].shape).to(state[name].dtype)
        reply.content[ARRAYS] = ArrayRecord(state)
        return reply

    return app


def update(reply: Message, start: dict[str, Tensor], names: list[str]) -> Tensor:
    """Return what training changed, as one vector."""
    state = arrays_of(reply).to_torch_state_dict()
    return torch.cat([(state[name] - start[name]).reshape(-1) for name in names])


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
