"""What a run found, in sentences: who carried which predictions, always beside chance.

A client *carries* a prediction if its exact removal costs it most, or, where not all removals were computed, if its
contribution is the highest of the round; nobody does where no removal costs it anything. Chance is what a client drawn
at random from the round would carry. A sentence appears only where its numbers were measured, and none says more than
they do: a client that carries many wrong predictions has contributed most to them, which proves no bad faith.
"""

import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tracefl.common.words import percent
from tracefl.learning.faults import Fault
from tracefl.provenance import TracedInput
from tracefl.provenance.scoring import mean_measured
from tracefl.questions.stand_outs import summarize_stand_outs
from tracefl.questions.suspects import NOBODY_FAULTY, PROVENANCE
from tracefl.records.result import RoundResult, are_exact, bounds_words, left_out_words, times_capped, times_refused
from tracefl.records.run import StoredRun
from tracefl.report.fault_words import MOST_NAMED, client_order, listed, what_was_done

if TYPE_CHECKING:
    from tracefl.questions.replay import Replay

MEANING = (
    "A client carries a prediction if leaving it out of the round's average costs the prediction most, or, where that "
    "was not computed, if its contribution is the highest; if nobody's absence costs it anything, nobody does. Chance "
    "is what a client drawn at random would carry."
)

_FEWEST_ALIKE = 3  # mistakes of one kind that are worth a sentence


@dataclass(frozen=True)
class Sentence:
    """One sentence of an answer.

    Attributes:
        text: It ends in a full stop; class names are as the data set gives them, so escape it for HTML.
        is_main: It is the answer itself, to be shown first or in bold.
    """

    text: str
    is_main: bool = False


def answer(run: StoredRun, rounds: Sequence[RoundResult], replay: "Replay | None" = None) -> tuple[Sentence, ...]:
    """Return what a run found, in the order to be read.

    Args:
        run: The run.
        rounds: The results of its recorded rounds, in order, one or more.
        replay: The same run without some clients, where it was measured.

    Raises:
        RecordError: The run's folder is damaged.
    """
    return tuple(_answer(run, rounds, replay))


def next_commands(run: StoredRun, rounds: Sequence[RoundResult], name: str | None = None) -> tuple[str, ...]:
    """Return commands that ask the run more, each as it can be typed here.

    Args:
        run: The run.
        rounds: The results of its recorded rounds, in order, one or more.
        name: What names the run here, such as ``last``; None for its folder.

    Raises:
        RecordError: The run's folder is damaged.
    """
    program, folder = program_name(), shlex.quote(name or str(run.folder))
    stored = run.store.stored_rounds()
    of_weights = [result for result in rounds if result.server_round in stored]
    commands = []
    traced = [result for result in of_weights if result.traced]
    if of_weights:
        commands.append(" ".join((program, "trace", folder, *_one_prediction(traced, of_weights[-1].server_round))))
        if run.fault is not None and len(of_weights) == len(rounds):
            commands.append(f"{program} replay {folder} without={','.join(run.fault.clients)}")
        else:
            of_all = "" if of_weights[-1].traced else " inputs=all"
            commands.append(f"{program} counterfactual {folder}{of_all}")
    if any(result.traced for result in rounds):
        commands.append(f"{program} ledger {folder}")
    return tuple(commands)


def program_name() -> str:
    """Return how ``tracefl`` is called here: by its name, or by its path if it is not on the PATH."""
    if shutil.which("tracefl"):
        return "tracefl"
    python = Path(sys.executable)
    here = Path.cwd()
    script = python.with_name("tracefl")
    program, rest = (script, []) if script.exists() else (python, ["-m", "tracefl"])
    shown = program.relative_to(here) if program.is_relative_to(here) else program
    return shlex.join([str(shown), *rest])


def _one_prediction(traced: Sequence[RoundResult], last: int) -> tuple[str, ...]:
    """Return the arguments that ask about one prediction, a traced and wrong one if there is one.

    Args:
        traced: The stored rounds with traced inputs.
        last: The last stored round, which is asked by default.
    """
    if not traced:
        return ("input=0",)
    result = traced[-1]
    where = () if result.server_round == last else (f"round={result.server_round}",)
    wrong = [t for t in result.traced if t.predicted != t.label]
    if not wrong:
        return (f"input={result.traced[0].input_index}", *where)
    shown = telling(wrong)
    return (f"input={shown.input_index}", f"against={shown.label}", *where)


def telling(inputs: Sequence[TracedInput]) -> TracedInput:
    """Return the surest of those predictions that the client carries which carries most."""
    first = next(iter(_first(inputs).clients), None)
    return max((t for t in inputs if t.responsible == first), key=lambda t: (t.probability or 0, t.score))


def _answer(run: StoredRun, rounds: Sequence[RoundResult], replay: "Replay | None") -> Iterator[Sentence]:
    last, examples, kind = rounds[-1], len(run.server), run.settings.dataset.kind
    yield Sentence(
        f"After round {last.server_round} the model is right on {percent(last.row['global_accuracy'])} of "
        f"{_many(examples, f'test {kind}')}."
    )
    for words in bounds_words(times_refused(rounds), times_capped(rounds)):
        yield Sentence(f"What clients sent was {words}.")
    for words in left_out_words(rounds):
        yield Sentence(words)
    if run.settings.provenance is None:
        yield Sentence("No prediction was traced: provenance=off.")
        return
    if run.settings.traces_before_noise:
        yield Sentence("Traced is each round's average before the noise, not the model that was deployed.")
    yield from _of_stand_outs(run, rounds)
    yield from _of_fault(run, rounds) if run.fault is not None else _of_mistakes(run, rounds)
    yield from _of_correct(rounds)
    if replay is not None:
        yield _of_replay(replay, run.fault)


def _of_fault(run: StoredRun, rounds: Sequence[RoundResult]) -> Iterator[Sentence]:
    """Yield what the known faulty clients carry of the mistakes that the fault brings about."""
    fault, names = run.fault, run.label_names
    assert fault is not None
    did = what_was_done(fault, names)
    found = [(r, kept) for r in rounds if (kept := _misled(fault, r.traced))]
    there = [(r, kept) for r, kept in found if any(_took_part(fault, t) for t in kept)]
    if not there:
        they = "It" if len(fault.clients) == 1 else "They"
        never_there = f"{they} took part in no round of which a prediction of that kind was traced"
        nothing = never_there if found else "No prediction of that kind was traced"
        yield Sentence(f"{did}. {nothing}.", is_main=True)
        return
    result, inputs = there[-1]
    it, carries = ("it", "carries") if len(fault.clients) == 1 else ("they", "carry")
    yield Sentence(
        f"{did}: {it} {carries} {_share(fault.clients, inputs)} traced predictions of that kind in round "
        f"{result.server_round} ({_chance(fault.clients, inputs)}).",
        is_main=True,
    )
    yield from _of_suspicions(f"{it} {'pushes' if it == 'it' else 'push'}", fault.clients, inputs)
    first = _first(inputs)
    if not set(first.clients) & set(fault.clients) or _of_nobody(inputs):
        yield _who(inputs, "Of these")
    yield from _of_removals(inputs, "them")
    if result is not rounds[-1]:
        absent = found[-1][0] is rounds[-1]
        yield Sentence(_nobody_faulty_in(rounds[-1]) if absent else _nothing_in(rounds[-1]))
    if len(there) > 1:
        together = [t for _, kept in there for t in kept]
        yield Sentence(
            f"Over the {_many(len(there), 'round')} with such predictions that {it} took part in, {it} {carries} "
            f"{_share(fault.clients, together)} ({_chance(fault.clients, together)})."
        )


def _of_stand_outs(run: StoredRun, rounds: Sequence[RoundResult]) -> Iterator[Sentence]:
    """Yield which clients stand out over the rounds, whatever for, where that was asked."""
    found, settings = summarize_stand_outs(rounds), run.settings.provenance
    assert settings is not None
    most = found["most"]
    if most is None:
        return
    for each in found["named"]:
        yield Sentence(
            f"Client {each['client']} stands out as one that was taught that others are "
            f"{run.label_names[each['toward']]}, from round {each['since']} on: somebody stands out so far in "
            f"{_rare(each['honest_share'])} of runs in which all clients are honest.",
            is_main=True,
        )
    if not found["named"]:
        yield Sentence(
            f"No client stands out over {_many(found['rounds'], 'round')}: in {percent(most['honest_share'])} of runs "
            "in which all clients are honest, somebody stands out as far as any did here."
        )


def _rare(share: float) -> str:
    """Return a share in percent, or that it is below a tenth of one."""
    return percent(share) if share >= 0.001 else "less than 0.1%"


def _of_suspicions(pushes: str, faulty: Collection[str], inputs: Sequence[TracedInput]) -> Iterator[Sentence]:
    """Yield for how many predictions a faulty client is suspected most, where confusions were asked about."""
    asked = [t for t in inputs if t.suspicions]
    if asked:
        found = sum(t.traced_client in faulty for t in asked)
        expected = sum(sum(k in faulty for k, _ in t.suspicions) / len(t.suspicions) for t in asked)
        yield Sentence(
            f"Asked of all test examples of the class, {pushes} them most towards the predicted one for {found} of "
            f"the {len(asked)} (chance: {_number(expected)})."
        )


def _took_part(fault: Fault, traced: TracedInput) -> bool:
    """Return whether a faulty client was among the participants of an input's round."""
    return any(client in fault.clients for client, _ in traced.ranking)


def _of_mistakes(run: StoredRun, rounds: Sequence[RoundResult]) -> Iterator[Sentence]:
    """Yield who carries the wrong predictions, where no fault is known."""
    found = [(r, wrong) for r in rounds if (wrong := [t for t in r.traced if t.predicted != t.label])]
    if not found:
        settings = run.settings.provenance
        assert settings is not None
        if settings.inputs not in (None, "correct"):
            yield Sentence("No wrong prediction was found to trace.")
        elif any(result.traced for result in rounds):
            yield Sentence("Only right predictions were traced; provenance.inputs=all traces wrong ones too.")
        else:
            yield Sentence("No prediction was traced.")
        return
    result, wrong = found[-1]
    yield _who(wrong, f"Of the {_many(len(wrong), 'wrong prediction')} traced in round {result.server_round}", True)
    kinds = Counter((t.label, t.predicted) for t in wrong).most_common(2)
    (label, predicted), count = kinds[0]
    if count >= _FEWEST_ALIKE and (len(kinds) == 1 or kinds[1][1] < count):
        alike = [t for t in wrong if (t.label, t.predicted) == (label, predicted)]
        names = run.label_names
        yield _who(alike, f"The most frequent is {names[label]} taken for {names[predicted]}: of these {count}")
    yield from _of_removals(wrong, "the wrong ones")
    if result is not rounds[-1]:
        yield Sentence(_nothing_in(rounds[-1]))
    if len(found) > 1:
        together = [t for _, some in found for t in some]
        yield _who(together, f"Of all {len(together)} wrong predictions traced in {_many(len(found), 'round')}")


def _of_correct(rounds: Sequence[RoundResult]) -> Iterator[Sentence]:
    """Yield who carries the correct predictions of the last round that has traced ones."""
    found = [(r, right) for r in rounds if (right := [t for t in r.traced if t.predicted == t.label])]
    if not found:
        return
    result, right = found[-1]
    yield _who(right, f"Of the {_many(len(right), 'correct prediction')} traced in round {result.server_round}")
    found_holder, chance = mean_measured([t.localized for t in right]), mean_measured([t.chance for t in right])
    if found_holder is not None:
        yield Sentence(
            "The client with the highest contribution to a correct prediction has examples of its class in "
            f"{percent(found_holder)} of cases (chance: {percent(chance)})."
        )


def _of_removals(inputs: Sequence[TracedInput], what: str) -> Iterator[Sentence]:
    """Yield how often the exact removal of every client names the same one, unless contributions are those removals."""
    known = [t for t in inputs if t.counterfactual_client is not None]
    checked = [t for t in known if t.responsible is not None]
    if checked and are_exact(checked):
        yield Sentence(
            "Each client was left out exactly: contributions are what that changes, so that there is nothing to check."
        )
    elif checked:
        agree = sum(t.counterfactual_client == t.first_contributor for t in checked)
        somebodys = " that somebody carries" if len(checked) < len(known) else ""
        yield Sentence(
            f"Checked by leaving each client out of the average exactly: of {what}{somebodys}, {agree} of "
            f"{len(checked)} depend most on the client with the highest contribution (chance: "
            f"{_number(sum(1 / len(t.ranking) for t in checked))})."
        )


def _of_replay(replay: "Replay", fault: Fault | None) -> Sentence:
    """Return what the run is worth without some clients."""
    last, names = replay.rounds[-1], replay.label_names
    before, after = last.before, last.after
    estimate = "" if last.is_exact else " (an estimate)"
    moves = "rises" if after.accuracy > before.accuracy else "falls" if after.accuracy < before.accuracy else "stays"
    change = (
        f"{moves} at {percent(before.accuracy)}"
        if moves == "stays"
        else f"{moves} from {percent(before.accuracy)} to {percent(after.accuracy)}"
    )
    attack = ""
    if before.attack_success is not None and after.attack_success is not None:
        what = "the fault succeeds"
        if fault is not None and len(fault.flips) == 1:
            ((label, to),) = fault.flips.items()
            what = f"{names[label]} is taken for {names[to]}"
        attack = f", and {what} in {percent(after.attack_success)} of cases instead of {percent(before.attack_success)}"
    return Sentence(
        f"{replay.how_words.capitalize()} without {replay.clients_words} from round {replay.without_from} on"
        f"{estimate}, accuracy after round {last.server_round} {change}{attack}.",
        is_main=True,
    )


@dataclass(frozen=True)
class _First:
    """The clients that carry most: one, or several with the same number ``each``; none where nobody carries any."""

    clients: tuple[str, ...]
    each: int


def _first(inputs: Sequence[TracedInput]) -> _First:
    carried = Counter(t.responsible for t in inputs if t.responsible is not None)
    most = max(carried.values(), default=0)
    return _First(tuple(sorted((k for k, count in carried.items() if count == most), key=client_order)), most)


def _who(inputs: Sequence[TracedInput], beginning: str, is_main: bool = False) -> Sentence:
    """Return which client carries most of some predictions."""
    first = _first(inputs)
    clients, each = first.clients, first.each
    if not clients:
        rest = f"nobody carries {'it' if len(inputs) == 1 else 'any'}: without any one client the model is as sure"
    elif len(inputs) == 1:
        rest = f"client {clients[0]} carries it ({_chance(clients, inputs)})"
    elif len(clients) == 1:
        many = "all" if each == len(inputs) else f"the most: {each}"
        there = [t for t in inputs if any(client == clients[0] for client, _ in t.ranking)]
        its = f" of the {len(there)} in rounds that it took part in" if len(there) < len(inputs) else ""
        rest = f"client {clients[0]} carries {many}{its} ({_chance(clients, inputs)})"
    elif len(clients) <= MOST_NAMED:
        rest = f"{listed(clients).lower()} carry the most: {each} each ({_chance(clients[:1], inputs)})"
    else:
        rest = f"no client stands out: {len(clients)} carry {each} each, and none more"
    if clients and _of_nobody(inputs):
        rest += f"; nobody carries {_of_nobody(inputs)}"
    return Sentence(f"{beginning}, {rest}.", is_main)


def _of_nobody(inputs: Sequence[TracedInput]) -> int:
    """Return how many predictions nobody carries."""
    return sum(t.responsible is None for t in inputs)


def _share(clients: Sequence[str], inputs: Sequence[TracedInput]) -> str:
    return f"{sum(t.responsible in clients for t in inputs)} of the {len(inputs)}"


def _chance(clients: Sequence[str], inputs: Iterable[TracedInput]) -> str:
    """Return how many predictions of the rounds that they took part in these clients would carry by chance."""
    carried = [t for t in inputs if t.responsible is not None]
    expected = sum(sum(k in clients for k, _ in t.ranking) / len(t.ranking) for t in carried)
    return f"chance: {_number(expected)}"


def _misled(fault: Fault, traced: Sequence[TracedInput]) -> list[TracedInput]:
    """Return the traced inputs that are mispredicted in the way that the fault intends."""
    labels, predicted = torch.tensor([t.label for t in traced]), torch.tensor([t.predicted for t in traced])
    if not len(labels):
        return []
    return [t for t, misled in zip(traced, fault.misled(labels, predicted).tolist(), strict=True) if misled]


def _nothing_in(result: RoundResult) -> str:
    """Return why the last round has no traced wrong prediction."""
    notes = [row["note"] for row in result.suspects if row["rule"] == PROVENANCE]
    if NOBODY_FAULTY in notes:
        return _nobody_faulty_in(result)
    return f"In round {result.server_round} no prediction of that kind was traced."


def _nobody_faulty_in(result: RoundResult) -> str:
    return f"No faulty client took part in round {result.server_round}."


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
