"""An explanation of one prediction as tables in the terminal, and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from tracefl.common.words import percent
from tracefl.provenance import ClientPart, Explanation, Method
from tracefl.questions.one_input import ExplainedInput, Question
from tracefl.report.console import say_wrapped

CLIENTS_SHOWN = 12
LAYERS_SHOWN = 16
_LAYER_CLIENTS = 5  # columns of the table of layers that fit a terminal of 80 characters


def group_layers(layers: Sequence[str], most: int = LAYERS_SHOWN) -> dict[str, list[int]]:
    """Return parts of the network and the indices of their layers: the finest division into at most ``most`` parts.

    Args:
        layers: Names as in ``named_modules()``; layers whose names begin alike, up to a dot, belong together.
        most: Maximum number of parts, unless the first component of the names already gives more.
    """
    parts: dict[str, list[int]] = {}
    for depth in range(1, 1 + max(name.count(".") + 1 for name in layers)):
        finer: dict[str, list[int]] = {}
        for number, name in enumerate(layers):
            finer.setdefault(".".join(name.split(".")[:depth]) or "the model", []).append(number)
        if parts and len(finer) > most:
            break
        parts = finer
    return parts


def by_part(client: ClientPart, parts: dict[str, list[int]]) -> list[float]:
    """Return what each part of the network adds to the client's contribution."""
    return [sum(client.by_layer[number] for number in numbers) for numbers in parts.values()]


def class_words(number: int, names: Sequence[str]) -> str:
    """Return a class's number, with its name if that says more."""
    name = names[number] if number < len(names) else str(number)
    return str(number) if name == str(number) else f"{number} ({name})"


def show(console: Console, answer: ExplainedInput) -> None:
    """Print the explanation."""
    question, found, method, names = answer

    def say(text: str = "") -> None:
        say_wrapped(console, text)

    for line in _headlines(question, found, names):
        say(line)
    say()
    console.print(_clients(found))
    if len(found.clients) > CLIENTS_SHOWN:
        say(f"and {len(found.clients) - CLIENTS_SHOWN} more clients; --json has them all")
    if found.caveat is not None:
        say(found.caveat)
    if found.layers:
        say()
        say(f"estimated contribution by layer ({len(found.layers)} layers), in logits")
        console.print(_layers(found))
        if any(client.is_exact for client in found.clients):
            exact = "exact contributions above" if found.is_exact else "contributions above that are exact"
            say(f"the layers add up to the first-order estimate, and not to the {exact}")
    checked = [client for client in found.clients if client.removal is not None]
    if checked:
        say()
        say("clients left out, exactly, one at a time: by how much the centered logit falls")
        console.print(_removals(checked, found, names))
    say()
    say(_method_words(found, method))


def as_json(answer: ExplainedInput) -> dict[str, Any]:
    """Return the whole explanation in JSON's types; fractions 0 to 1, contributions in logits."""
    question, found, method, names = answer

    def named(number: int) -> dict[str, Any]:
        return {"class": number, "name": names[number], "probability": found.probabilities[number]}

    return {
        "round": found.server_round,
        "input": {
            "kind": question.way,
            "given": question.given,
            "text": question.text,
            "label": question.label,
            "unlike": question.is_unlike,
        },
        "predicted": named(found.predicted),
        "probabilities": list(found.probabilities),
        "class_names": list(names),
        "responsible": found.responsible,
        "contradicted": list(found.contradicted),
        "holders_fraction": found.holders_fraction,
        "against": None if found.against is None else named(found.against) | {"lead": found.lead},
        "method": asdict(method),
        "layers": list(found.layers),
        "clients": [{"rank": rank, **asdict(client)} for rank, client in enumerate(found.clients, 1)],
    }


def _headlines(question: Question, found: Explanation, names: Sequence[str]) -> Iterator[str]:
    label = "" if question.label is None else f", labelled {class_words(question.label, names)}"
    yield f"round {found.server_round}, {question.description}{label}"
    if question.text is not None:
        yield f"  {question.text[:300]}{'…' if len(question.text) > 300 else ''}"
    second = max((c for c in range(len(names)) if c != found.predicted), key=lambda c: found.probabilities[c])
    yield (
        f"predicted {class_words(found.predicted, names)} with probability {percent(found.probability)}; next is "
        f"{class_words(second, names)} with {percent(found.probabilities[second])}"
    )
    if question.is_unlike:
        yield (
            "this image is unlike any of the server's: it may show none of the classes, and is answered as one of them "
            "all the same"
        )
    if found.holders_fraction is not None:
        holders = sum(bool(client.held) for client in found.clients)
        yield (
            f"{holders} of the round's {len(found.clients)} clients hold that class ({percent(found.holders_fraction)})"
        )
    yield _carried(found)
    if found.against is not None:
        yield f"ahead of {class_words(found.against, names)} by {found.lead:.3f} logits"


def _carried(found: Explanation) -> str:
    """Return who carries the prediction, and whether that is settled."""
    if found.responsible is None:
        checked = sum(client.removal is not None for client in found.clients)
        how = "exact removals" if found.is_settled else f"{checked} exact removals and the others' estimates"
        return f"carried by nobody: without any one client the model is as sure, by {how}"
    first = found.clients[0]
    how = "all clients' exact removals" if found.is_settled else "its contribution"
    if not found.is_settled and first.removal is not None:
        how += f", and its exact effect is {first.removal.effect:+.3f}"
    return f"carried by client {found.responsible}, by {how}"


def _clients(found: Explanation) -> Table:
    with_scores, contradicted = found.is_in_order, found.contradicted
    numbers = ["exact contribution"] if found.is_exact else ["contribution", "exact effect"]  # the same, if it is exact
    table = _table("", "client", *numbers, *(["score"] if with_scores else []), "weight", "holds")
    if found.against is not None:
        table.add_column(f"against {found.against}", justify="right")
    for rank, client in enumerate(found.clients[:CLIENTS_SHOWN], 1):
        mark = " *" if client.client_id in contradicted else ""
        effect = "-" if client.removal is None else f"{client.removal.effect:+.3f}{mark}"
        row = [
            str(rank),
            client.client_id,
            f"{client.contribution:+.3f}",
            *([] if found.is_exact else [effect]),
            *([f"{client.score:.3f}"] if with_scores else []),
            percent(client.weight),
            "-" if client.held is None else str(client.held),
        ]
        table.add_row(*row, *([] if client.against is None else [f"{client.against:+.3f}"]))
    return table


def _method_words(found: Explanation, method: Method) -> str:
    if not found.layers:
        return (
            "no layers: a robust rule made this model, of which no part is a client's own; each contribution is what "
            "aggregating again without the client changes"
        )
    target = "true label" if method.target == "label" else method.target
    return (
        f"contributions are to the {target} logit, weighting={method.weighting} reference={method.reference} "
        f"layer_decay={method.layer_decay:g}"
    )


def _layers(found: Explanation) -> Table:
    parts = group_layers(found.layers)
    shown = found.clients[:_LAYER_CLIENTS]
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for client in shown:
        table.add_column(f"client {client.client_id}", justify="right")
    columns = [by_part(client, parts) for client in shown]
    for name, *values in zip(parts, *columns, strict=True):
        table.add_row(name, *(f"{value:+.3f}" for value in values))
    table.add_row("sum", *(f"{client.estimate:+.3f}" for client in shown), style="bold")
    return table


def _removals(checked: Sequence[ClientPart], found: Explanation, names: Sequence[str]) -> Table:
    table = _table("without", "effect", f"p of {found.predicted}")
    if found.against is not None:
        table.add_column(f"lead over {found.against} falls by", justify="right")
    table.add_column("predicted then", no_wrap=True)
    for client in checked:
        removal = client.removal
        assert removal is not None
        row = [
            client.client_id,
            f"{removal.effect:+.3f}",
            percent(removal.probability),
        ]
        lead = [] if removal.against_effect is None else [f"{removal.against_effect:+.3f}"]
        table.add_row(*row, *lead, class_words(removal.predicted, names))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
