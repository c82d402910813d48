"""What the JSON files and tables of a run's folder may hold: names, types, ranges; every number is finite.

Imported where a file is read, for pydantic takes a fifth of a second.
"""

from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal, NotRequired, TypeAlias

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from tracefl.errors import RecordError, plain

_LONGEST = 300  # characters of what a message says of a file

Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Correlation: TypeAlias = Annotated[float, Field(ge=-1.001, le=1.001)]  # beyond 1 by rounding
Seconds: TypeAlias = Annotated[float, Field(ge=0, le=1e12)]
Number: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]
"""How many of something, or its number from 0."""
Loss: TypeAlias = Annotated[float, Field(allow_inf_nan=True)]  # in nats; weights that are finite may overflow in it
RoundNumber: TypeAlias = Annotated[int, Field(ge=1, lt=2**31)]
ClientId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,8})$")]
Line: TypeAlias = Annotated[str, StringConstraints(max_length=10_000)]
Text: TypeAlias = Annotated[str, StringConstraints(max_length=100_000_000)]
Shares: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^([0-9]{1,9}:(-?[0-9]{1,9}(\.[0-9]{1,9})?(e[-+][0-9]{1,3})?|-?inf|nan)( |$))*$")
]
"""Numbers of classes or clients, each with a number, such as ``0:0.75 2:1``."""
Ids: TypeAlias = Annotated[str, StringConstraints(pattern=r"^([0-9]{1,9}( |$))*$")]
"""Numbers of clients or rounds, such as ``3 7``."""
Checksum: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Fingerprint: TypeAlias = Annotated[str, StringConstraints(pattern=r"^SHA256:[A-Za-z0-9+/]{43}$")]
"""Of a SuperNode's key, as ``ssh-keygen -l`` shows it."""
OfClients: TypeAlias = list[tuple[ClientId, float]]

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_OPEN = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


@with_config(_STRICT)
class RoundRow(TypedDict):
    """A row of rounds.csv, see ``tables.ROUND_COLUMNS``."""

    round: RoundNumber
    global_loss: Loss | None
    global_accuracy: Fraction | None
    class_accuracy: Shares | None
    attack_success: Fraction | None
    localization_accuracy: Fraction | None
    chance_accuracy: Fraction | None
    top_holder_accuracy: Fraction | None
    counterfactual_agreement: Fraction | None
    counterfactual_correlation: Correlation | None
    nobody_fraction: Fraction | None
    inputs_traced: Number | None
    clients: Number | None
    clients_dropped: Number | None
    train_loss: Loss | None
    clipping_norm: Annotated[float, Field(ge=0)] | None
    next_clipping_norm: Annotated[float, Field(ge=0)] | None
    epsilon: Annotated[float, Field(ge=0, allow_inf_nan=True)] | None
    epsilon_by_client: Shares | None
    train_seconds: Seconds | None
    evaluate_seconds: Seconds | None
    provenance_seconds: Seconds | None
    counterfactual_seconds: Seconds | None


@with_config(_STRICT)
class SuspectRow(TypedDict):
    """A row of suspects.csv, see ``tables.SUSPECT_COLUMNS``."""

    round: RoundNumber
    rule: Line
    localization_accuracy: Fraction | None
    chance_accuracy: Fraction | None
    mean_rank: Annotated[float, Field(ge=0)] | None
    precision: Fraction | None
    auroc: Fraction | None
    whole_localization: Fraction | None
    whole_rank: Annotated[float, Field(ge=0)] | None
    whole_precision: Fraction | None
    whole_auroc: Fraction | None
    inputs: Number | None
    faulty_clients: Ids | None
    clients: Number | None
    seconds: Seconds | None
    ranking: Shares | None
    note: Line | None


@with_config(_STRICT)
class StandOutRow(TypedDict):
    """A row of stand_outs.csv, see ``tables.STAND_OUT_COLUMNS``."""

    round: RoundNumber
    client: ClientId
    toward: Number
    total: Annotated[float, Field(ge=0)]
    since: RoundNumber
    honest_share: Fraction
    named: bool


@with_config(_STRICT)
class MitigationRow(TypedDict):
    """A row of mitigation.csv, see ``tables.MITIGATION_COLUMNS``."""

    round: RoundNumber
    client: ClientId
    toward: Number | None
    total: Annotated[float, Field(ge=0)] | None
    named: bool | None
    gain: Annotated[float, Field(ge=-1, le=1)]
    window_rounds: Ids
    window_gain: Annotated[float, Field(ge=-1, le=1)]
    decision: Line | None
    from_round: RoundNumber | None
    factor: Fraction | None


@with_config(_STRICT)
class TracedFields(TypedDict):
    """A traced input, see ``provenance.TracedInput``; ``responsible`` follows from the others."""

    input_index: Number
    label: Number
    predicted: Number
    traced_client: ClientId
    expected_clients: list[ClientId]
    localized: bool | None
    score: Fraction
    ranking: OfClients
    chance: Fraction | None
    top_holder: bool | None
    counterfactual_client: ClientId | None
    counterfactual_correlation: Correlation | None
    contributions: OfClients
    verified: list[ClientId]
    probability: Fraction | None
    effects: OfClients
    suspicions: OfClients
    responsible: ClientId | None


@with_config(_STRICT)
class RoundFile(TypedDict):
    """round.json, see ``result.RoundResult``."""

    row: RoundRow
    traced: list[TracedFields]
    suspects: list[SuspectRow]
    client_weights: dict[ClientId, Annotated[float, Field(gt=0, le=1)]]
    dropped: dict[ClientId, Line]
    mitigation: list[MitigationRow]
    refused: list[ClientId]
    capped: dict[ClientId, Line]
    class_suspicions: dict[ClientId, list[float]]
    stand_outs: list[StandOutRow]
    doubt: Line
    weights: dict[Line, Checksum]


@with_config(_STRICT)
class LabelCountsFile(TypedDict):
    """label_counts.json: training examples of each class, a row for each client."""

    label_names: Annotated[list[Line], Field(min_length=1)]
    label_counts: list[list[Number]]
    deployed: NotRequired[bool]
    keys: NotRequired[dict[ClientId, Fingerprint]]


@with_config(_STRICT)
class TriggerFields(TypedDict):
    """A backdoor's trigger, see ``faults.Trigger``."""

    size: Annotated[int, Field(ge=1, le=1 << 16)] | None
    token: Annotated[int, Field(ge=0, le=1 << 31)] | None


@with_config(_STRICT)
class ChangeFields(TypedDict):
    """What a fault changed on a client, see ``faults.ClientChange``."""

    client: ClientId
    examples: Number
    changeable: Number
    changed: Number
    label_counts: list[Number]
    faulty_label_counts: list[Number]


@with_config(_STRICT)
class FaultFile(TypedDict):
    """fault.json, see ``faults.Fault``."""

    name: Literal["label_flip", "random_labels", "backdoor", "weight_noise", "free_rider"]
    clients: list[ClientId]
    from_round: RoundNumber
    flips: dict[Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")], Number]
    target: Number | None
    trigger: TriggerFields | None
    share: Fraction | None
    scale: Annotated[float, Field(ge=0)] | None
    changes: list[ChangeFields]


@with_config(_STRICT)
class ModelFile(TypedDict):
    """model.json, see ``models.ModelSpec``."""

    family: Literal["torchvision", "transformers"]
    name: Line
    num_classes: Annotated[int, Field(ge=2, le=10_000_000)]
    config: dict[Line, JsonValue]
    norm: Literal["own", "group"]


@with_config(_OPEN)
class Hardware(TypedDict):
    """What a run computed on, see ``environment.describe_environment``."""

    device: Line
    gpu: Line | None
    processor: Line
    cpus: Number
    torch_threads: Number
    system: Line


@with_config(_OPEN)
class ResultsFile(TypedDict):
    """results.json of a complete run; what a summary has beyond these is not read."""

    run: Line
    seed: Number
    rounds: RoundNumber
    final: RoundRow
    classes: list[Line]
    seconds: Seconds
    server_peak_memory_bytes: Number
    versions: dict[Line, Line]
    hardware: Hardware


@with_config(_STRICT)
class StatusFile(TypedDict):
    """status.json; ``updated`` is in seconds since 1970."""

    state: Literal["done", "running", "failed", "stopped"]
    rounds_done: Number
    num_rounds: Number
    seconds: Seconds
    seconds_a_round: Seconds | None
    updated: Seconds
    error: Text | None


@with_config(_STRICT)
class EncoderFile(TypedDict):
    """text_encoder.json beside a tokenizer, see ``models.TextEncoder``."""

    origin: Literal["own", "trained"]


@with_config(_STRICT)
class TensorFields(TypedDict):
    """A tensor in a safetensors file's header."""

    dtype: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]{1,20}$")]
    shape: list[Number]
    data_offsets: tuple[Number, Number]


TensorsHeader: TypeAlias = dict[str, TensorFields | dict[str, str]]


def parse(shape: Any, data: bytes, path: Path) -> Any:
    """Read JSON of a known shape.

    Args:
        shape: One of the classes above.
        data: The file's content.
        path: The file, for messages.

    Raises:
        RecordError: It is no JSON, is nested too deeply, or holds what it may not; one line that says where.
    """
    try:
        return _adapter(shape).validate_json(data)
    except ValidationError as error:
        raise RecordError(_refusal(path, error)) from error


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _refusal(path: Path, error: ValidationError) -> str:
    found: Any = error.errors(include_url=False, include_context=False)[0]
    place = shorten(plain(".".join(map(str, found["loc"]))), 100) or "it"
    if found["type"] == "missing":
        reason = f"it lacks {place}"
    elif found["type"] == "extra_forbidden":
        reason = f"it has {place}, which is unknown"
    elif found["type"] == "json_invalid":
        reason = f"it is no {plain(found['msg'].removeprefix('Invalid '))}"
    else:
        wanted = found["msg"].removeprefix("Input should ").removeprefix("String should ").rstrip(".")
        reason = f"{place} should {wanted}, got {plain(repr(found['input'])[:60])}"
    reason = shorten(reason, _LONGEST, placeholder=" ...")
    return f"{path} is damaged or of another version of tracefl: {reason}; use that version or run again"
