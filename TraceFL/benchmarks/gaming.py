"""Whether an attribution can be gamed: who is named where a client hides, shines, or frames another.

Trains small federations on digits in this process, and makes their last round anew for every attack of attacks.py: as
it is sent, and as a run takes it, with updates bounded to five times the median norm. Every preset is asked about up to
50 predictions that the attack is about. Printed are, for each number of clients, the accuracy on the server's digits,
and the share of triggered ones that are led to the target; and for every preset the share of these predictions whose
first client is the attacker (one of them), and its mean rank (that of the first of them); means over seeds. Where
another is framed, its share follows. A dash: fewer than five such predictions, the attack has failed.

python TraceFL/benchmarks/gaming.py --clients 10 20
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean

import torch
from attacks import ATTACKER, ATTACKS, Attack, Scene, SmallCnn, State
from torch import Tensor, nn

from tracefl.common.seeds import derive_seed
from tracefl.conf.composing import compose_config
from tracefl.experiment.preparation import prepare_run
from tracefl.experiment.settings import read_settings
from tracefl.federation.bounds import bounded
from tracefl.learning.datasets.federated import FederatedData
from tracefl.learning.examples import Examples
from tracefl.learning.faults.trigger import Trigger
from tracefl.learning.settings import TrainingSettings
from tracefl.learning.training import train
from tracefl.provenance import Method, RoundRecord, attribute_round, confusions, select_of_each_class
from tracefl.provenance.norms import bound_of, update_norms
from tracefl.records.settings import Settings

METHODS: dict[str, Method | None] = {
    "removal (default)": Method(),
    "leave_one_out": Method.leave_one_out(),
    "removal, unbounded": Method(max_update_norm=None, max_estimate_error=None),
    "removal, verify=3": Method(verify=3),
    "removal, verify=0": Method(verify=0),
    "artifact": Method.artifact(),
    "paper": Method.paper(),
    "unlike": Method.unlike(),
    "fault": None,  # suspicions, of confusions
}
TARGET, TRIGGER = 0, Trigger(size=3)
WARM_UP_ROUNDS = 4
HOSTILE_EPOCHS = 20
FEW_PARAMETERS_LR = 30
"""Times the learning rate where few parameters are trained, and have to move farther."""
ASKED_AT_MOST, ASKED_AT_LEAST = 50, 5
OF_CLASS = 10  # provenance.class_inputs
BOUND = 5.0  # strategy.max_update_norm


@dataclass(frozen=True)
class Row:
    """One preset's answers about one round.

    Attributes:
        clients: In the round.
        attack: Its name.
        bound: Medians of the round's update norms that none exceeds; None for no bound.
        seed: Of everything.
        accuracy: Of the round's model on the server's digits, 0 to 1.
        success: Share of the server's digits of other classes that the trigger leads to the target.
        inputs: Predictions that were asked about.
        preset: Who was asked.
        first: Share of them whose first client is an attacker; None where there are too few.
        rank: Mean rank of the attacker, from 1.
        framed: Share of them whose first client is the framed one.
        proofs: Exact removals, in clients for each input.
    """

    clients: int
    attack: str
    bound: float | None
    seed: int
    accuracy: float
    success: float
    inputs: int
    preset: str
    first: float | None = None
    rank: float | None = None
    framed: float | None = None
    proofs: float | None = None


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--clients", type=int, nargs="+", default=[10])
    parser.add_argument("--attacks", nargs="+", choices=tuple(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--presets", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--json", action="store_true", help="a JSON line for each round and preset instead")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # the model is small
    for count in given.clients:
        rows: list[Row] = []
        for seed in given.seeds:
            for row in rows_of(count, seed, given.attacks, given.presets):
                rows.append(row)
                if given.json:
                    say(json.dumps(asdict(row)))
        if not given.json:
            say(f"{count} clients\n\n{table(rows)}\n")


def rows_of(count: int, seed: int, attacks: Sequence[str], presets: Sequence[str]) -> Iterator[Row]:
    """Train a federation up to its last round, and yield a row for each attack, bound and preset."""
    scenes: dict[bool, tuple[Scene, Examples]] = {}
    for name in attacks:
        attack = ATTACKS[name]
        if attack.normalised not in scenes:
            scenes[attack.normalised] = scene_of(count, seed, attack.normalised)
        scene, server = scenes[attack.normalised]
        sent = {**scene.honest, **attack.make(scene)}
        hostile = tuple(k for k in sent if sent[k] is not scene.honest[k]) or (ATTACKER,)
        for bound in (None, BOUND):
            record = round_of(scene.model, scene.start, sent, scene.shares, bound)
            row = Row(count, name, bound, seed, 0, 0, 0, "")
            yield from asked(row, attack, record, hostile, scene, server, presets)


def prepared(count: int, per_round: int, seed: int, alpha: float) -> tuple[Settings, FederatedData]:
    """Return the settings of a federation on digits, and its data."""
    with tempfile.TemporaryDirectory() as folder:
        settings = read_settings(
            compose_config(
                [
                    *(
                        "dataset=digits",
                        "dataset.image_size=8",
                        f"num_clients={count}",
                        f"clients_per_round={per_round}",
                    ),
                    *(f"seed={seed}", f"dirichlet_alpha={alpha}", "batch_size=16", "client.epochs=4"),
                    *("dataset.min_examples_per_label=1", "provenance=off", f"log_dir={folder}"),
                ]
            )
        )
        return settings, prepare_run(settings).data


def scene_of(count: int, seed: int, normalised: bool) -> tuple[Scene, Examples]:
    """Train the rounds before the last one, and the last one's honest clients."""
    settings, data = prepared(count, count, seed, alpha=5)
    torch.manual_seed(seed)
    model = SmallCnn(normalised)
    start: State = {n: t.clone() for n, t in model.state_dict().items()}
    sizes = {k: len(examples) for k, examples in data.clients.items()}
    shares = {k: n / sum(sizes.values()) for k, n in sizes.items()}

    def seed_of(server_round: int, client_id: str) -> int:
        return derive_seed(seed, "train", server_round, client_id)

    for server_round in range(1, WARM_UP_ROUNDS + 1):
        trained = {
            k: trained_on(own, model, start, settings.training, seed_of(server_round, k))
            for k, own in data.clients.items()
        }
        start = averaged(trained, shares)
    last = WARM_UP_ROUNDS + 1
    honest = {k: trained_on(own, model, start, settings.training, seed_of(last, k)) for k, own in data.clients.items()}

    def backdoored(client_id: str, names: tuple[str, ...] | None) -> State:
        own = data.clients[client_id]
        half = torch.arange(0, len(own), 2)
        poisoned = TRIGGER.put_on(own, half)
        poisoned = replace(poisoned, labels=own.labels.index_fill(0, half, TARGET))
        lr = settings.training.lr * (1 if names is None else FEW_PARAMETERS_LR)
        longer = replace(settings.training, epochs=HOSTILE_EPOCHS, lr=lr)
        return trained_on(poisoned, model, start, longer, seed_of(last, client_id), names)

    inputs, labels = data.clients[ATTACKER].batch(torch.arange(sizes[ATTACKER]))
    triggered, _ = TRIGGER.put_on(data.clients[ATTACKER]).batch(torch.arange(sizes[ATTACKER]))
    assert isinstance(inputs, Tensor)
    assert isinstance(triggered, Tensor)
    return Scene(model, start, honest, shares, inputs, labels, triggered, TARGET, backdoored), data.server


def trained_on(
    examples: Examples,
    model: nn.Module,
    start: State,
    training: TrainingSettings,
    seed: int,
    names: tuple[str, ...] | None = None,
) -> State:
    """Return weights after a client's training from ``start``; of the parameters that are named, or of all."""
    model.load_state_dict(dict(start))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(names is None or name in names)
    train(model, examples, training, seed)
    model.requires_grad_(True)
    return {n: t.clone() for n, t in model.state_dict().items()}


def averaged(states: Mapping[str, State], shares: Mapping[str, float]) -> State:
    """Return the weighted mean; of whole numbers, the first client's."""
    first = next(iter(states.values()))
    return {
        n: sum((p * states[k][n].double() for k, p in shares.items()), torch.zeros(())).to(like.dtype)
        if like.is_floating_point()
        else like
        for n, like in first.items()
    }


def round_of(
    model: nn.Module, start: State, sent: Mapping[str, State], shares: Mapping[str, float], multiple: float | None
) -> RoundRecord:
    """Return the round of what was sent, brought down to a bound as a run does it."""
    kept = {k: dict(state) for k, state in sent.items()}
    floating = [n for n, tensor in start.items() if tensor.is_floating_point()]
    trained = {n for n, _ in model.named_parameters()}
    for names in ([n for n in floating if n in trained], [n for n in floating if n not in trained]):
        norms = update_norms(sent, start, names)
        most = bound_of(norms.values(), multiple)
        for k, norm in norms.items():
            if most is not None and norm > most:
                kept[k] = bounded(kept[k], start, names, most / norm)
    return RoundRecord(WARM_UP_ROUNDS + 1, kept, shares, start, averaged(kept, shares))


def asked(
    row: Row,
    attack: Attack,
    record: RoundRecord,
    hostile: Sequence[str],
    scene: Scene,
    server: Examples,
    presets: Sequence[str],
) -> Iterator[Row]:
    """Yield every preset's row about the predictions that an attack is about."""
    everything = torch.arange(len(server))
    clean, labels = server.batch(everything)
    led, _ = TRIGGER.put_on(server).batch(everything)
    model = scene.model
    model.load_state_dict(dict(record.global_weights))
    model.eval()
    with torch.no_grad():
        predicted, predicted_led = (model(inputs).argmax(dim=1) for inputs in (clean, led))
    other = labels != TARGET
    row = replace(
        row,
        accuracy=float((predicted == labels).double().mean()),
        success=float((predicted_led[other] == TARGET).double().mean()),
    )
    wanted = {
        "triggered": other & (predicted_led == TARGET),
        "wrong": predicted != labels,
        "right": predicted == labels,
    }
    rows = torch.nonzero(wanted[attack.asked]).flatten()[:ASKED_AT_MOST]
    of_all, taken_for = (led, predicted_led) if attack.asked == "triggered" else (clean, predicted)
    assert isinstance(of_all, Tensor)
    for preset in presets:
        of_preset, method = replace(row, preset=preset, inputs=len(rows)), METHODS[preset]
        if len(rows) < ASKED_AT_LEAST or (method is None and attack.asked == "right"):  # of which nobody is suspected
            yield of_preset
            continue
        proofs = 0.0
        if method is None:
            some = select_of_each_class(labels, OF_CLASS)
            suspicion = confusions(model, record, of_all[some], labels[some]).suspicion[
                :, labels[rows], taken_for[rows]
            ]
            orders, ids = suspicion.t().argsort(dim=1, descending=True).tolist(), tuple(record.clients)
            rankings = [[ids[k] for k in order] for order in orders]
        else:
            found = attribute_round(model, record, of_all[rows], labels[rows], method)
            rankings = [[k for k, _ in found.ranking(i)] for i in range(len(rows))]
            proofs = 0.0 if found.verified is None else float(found.verified.double().sum(dim=1).mean())
        yield replace(
            of_preset,
            first=fmean(ranking[0] in hostile for ranking in rankings),
            rank=fmean(1 + min(ranking.index(k) for k in hostile) for ranking in rankings),
            framed=None if attack.framed is None else fmean(ranking[0] == attack.framed for ranking in rankings),
            proofs=proofs,
        )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table, means over seeds."""
    presets = list(dict.fromkeys(row.preset for row in rows))
    head = ("the attacker", "bound", "accuracy", "success", *(f"`{preset}`" for preset in presets))
    lines = [head, ("---", "---", *("---:" for _ in head[2:]))]
    for name, bound in dict.fromkeys((row.attack, row.bound) for row in rows):
        of_round = [row for row in rows if (row.attack, row.bound) == (name, bound)]
        cells = [_cell([row for row in of_round if row.preset == preset]) for preset in presets]
        whole = (
            f"{100 * fmean(row.accuracy for row in of_round):.0f} %",
            f"{100 * fmean(row.success for row in of_round):.0f} %",
        )
        words = ATTACKS[name].words
        lines.append((words, "none" if bound is None else f"{bound:g}", *whole, *cells))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(rows: Sequence[Row]) -> str:
    """Return one preset's numbers over the seeds in which the attack had any effect."""
    known = [row for row in rows if row.first is not None]
    if not known:
        return "-"
    first = f"{100 * fmean(row.first or 0.0 for row in known):.0f} %, {fmean(row.rank or 0.0 for row in known):.1f}"
    framed = [row.framed for row in known if row.framed is not None]
    return first + (f" (framed {100 * fmean(framed):.0f} %)" if framed else "")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
