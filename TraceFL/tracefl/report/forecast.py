"""What a run would do, before it is made: ``dry_run=true``."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal

from tracefl.common.words import counted, duration
from tracefl.report.console import say, say_wrapped


@dataclass(frozen=True)
class Work:
    """What is known of a run once its data can be read.

    Attributes:
        examples: Training examples that the clients keep, all together.
        clients: Clients that hold a full batch and can take part.
        participants: Of a round.
        parameters: The model's parameters, buffers not counted.
        backend: Where the clients are called and why, one line.
        training_seconds: Of all rounds to make, as they follow one another.
        server_bytes: Memory of the server's process at most, beyond that of the libraries.
        client_bytes: Memory of each client while it trains, beyond its activations.
        clients_at_once: Clients that train at the same time.
        disk_bytes: Most bytes on disk at any time.
        kept_bytes: Bytes of weights and examples that stay.
    """

    examples: int
    clients: int
    participants: int
    parameters: int
    backend: str
    training_seconds: float
    server_bytes: int
    client_bytes: int
    clients_at_once: int
    disk_bytes: int
    kept_bytes: int


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Attributes:
        folder: Its folder.
        model: The model's name.
        dataset: The data set's name.
        num_clients: Clients that share the data.
        num_rounds: Rounds of the whole run.
        rounds_done: Rounds that it has recorded.
        is_complete: It has ended, and would only be shown.
        goes_on: It would go on after the recorded rounds, rather than begin again.
        keeps: The configuration's ``store.keep``.
        free_bytes: Of the disk.
        work: None where the run is complete, or where ``missing`` says why it is not known.
        missing: Why no more can be known; None where it is.
        overwrites: What is recorded would be replaced.
    """

    folder: Path
    model: str
    dataset: str
    num_clients: int
    num_rounds: int
    rounds_done: int
    is_complete: bool
    goes_on: bool
    keeps: str
    free_bytes: int
    work: Work | None = None
    missing: str | None = None
    overwrites: bool = False


def show_forecast(console: Console, forecast: Forecast) -> None:
    """Print it, each fact on a line of its own, or on as many as it fills."""
    what, *facts = forecast_lines(forecast)
    say(console, what)  # with the run's folder, to be copied
    for line in facts:
        say_wrapped(console, line, " " * 10)


def forecast_lines(forecast: Forecast) -> Iterator[str]:
    """Yield the lines that ``show_forecast`` prints."""
    if forecast.is_complete:
        yield f"would run nothing: {forecast.folder} is complete; overwrite=true runs it again"
        return
    yield f"would run in {forecast.folder}"
    yield f"state     {_state(forecast)}"
    work = forecast.work
    if work is None:
        yield f"clients   {forecast.num_clients} that share {forecast.dataset}; {counted(forecast.num_rounds, 'round')}"
        yield f"model     {forecast.model}"
        yield f"unknown   time, memory and disk: {forecast.missing}"
        return
    yield (
        f"clients   {work.participants} a round, of {work.clients} that can take part ({forecast.num_clients} share "
        f"{work.examples:,} training examples of {forecast.dataset}); {counted(forecast.num_rounds, 'round')}"
    )
    yield f"model     {forecast.model}, {work.parameters / 1e6:.2f} million parameters"
    yield f"backend   {work.backend.removeprefix('backend=')}"
    yield (
        f"time      roughly {duration(work.training_seconds)} of training, by one forward pass timed just now; start, "
        "evaluation and tracing come on top"
    )
    yield (
        f"memory    up to {decimal(work.server_bytes)} in the server, {decimal(work.client_bytes)} in each client that "
        f"trains ({work.clients_at_once} at once); activations and about 1 GB of libraries a process come on top"
    )
    yield (
        f"disk      {decimal(work.disk_bytes)} at most, {decimal(work.kept_bytes)} of it kept with "
        f"store={forecast.keeps}, {decimal(forecast.free_bytes)} are free; tables and the report come on top"
    )


def _state(forecast: Forecast) -> str:
    if not forecast.rounds_done:
        return "new"
    recorded = f"{forecast.rounds_done} of {forecast.num_rounds} rounds recorded"
    if forecast.overwrites:
        return f"{recorded}; begins again, as overwrite=true says"
    done = f"unfinished, {recorded}"
    return f"{done}; goes on" if forecast.goes_on else f"{done}; begins again, resume=true goes on"
