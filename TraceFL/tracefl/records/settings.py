"""A run's whole configuration, typed: what ``config.yaml`` in its folder says.

The keys that belong to a part are that part's: ``learning`` has ``client``, ``dataset``, ``fault``, ``model`` and
``privacy``. Units and meanings that a field's type does not say are in ``conf/*.yaml``, beside each key. Nothing here
imports torch, so that an illegal value is answered at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from omegaconf import DictConfig, OmegaConf

from tracefl.common.paths import expand
from tracefl.conf.constraints import (
    Constraint,
    Count,
    above,
    are_different,
    at_least,
    between,
    described,
    is_index,
    read,
)
from tracefl.errors import ConfigError
from tracefl.learning.datasets.partitioning import PartitionSettings
from tracefl.learning.datasets.settings import DatasetSettings
from tracefl.learning.faults.settings import AnyFault
from tracefl.learning.faults.words import fault_in_name
from tracefl.learning.models.settings import ModelSettings
from tracefl.learning.privacy.settings import Privacy, ServerPrivacy
from tracefl.learning.settings import ClientSettings, TrainingSettings
from tracefl.provenance.options import Method, MethodTarget, Precision, Reference, Weighting
from tracefl.records.checksums import CheckedFiles
from tracefl.records.naming import fingerprint
from tracefl.records.reading import reading
from tracefl.records.strategies import Inputs, Strategy

SuspectBy = Literal["contribution", "confusion"]
Keep = Literal["none", "last", "all"]
Dtype = Literal["float32", "bfloat16"]
Kind = Literal["weights", "updates"]
NO_MISPREDICTIONS = (
    "look at mispredictions, and none are traced by themselves: that takes provenance other than off, and a fault such "
    "as fault=label_flip or provenance.inputs=mispredicted"
)

_MOST_BYTES = 1 << 20  # of a config.yaml

BaselineName = Literal[
    "artifact",
    "feddebug",
    "flforensics",
    "fltracer",
    "fldetector",
    "flanders",
    "lfighter",
    "shapfed",
    "krum",
    "multi_krum",
    "update_norm",
    "cosine",
    "shapley",
    "removal",
    "own_logit",
    "last_bias",
    "most_examples",
    "random",
]


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536


_FOLDER = described("a folder's name without '/'", lambda v: bool(v) and "/" not in v and v not in (".", ".."))
_ADDRESS = described("HOST:PORT", _is_address)
_WITHOUT = described(
    "a list of different client numbers such as [3,7], or []", lambda v: all(map(is_index, v)) and are_different(v)
)
_LAYERS = described(
    "a list of layer names such as [fc]", lambda v: bool(v) and all(isinstance(name, str) for name in v)
)


Question: TypeAlias = tuple[Method, SuspectBy]
"""What is computed of a prediction, and by what clients are suspected: what tells presets apart."""


@dataclass(frozen=True)
class ProvenanceSettings:
    """How and when a round is traced.

    Attributes:
        enabled: Rounds are traced at all.
        layer_decay: As in ``Method``, like all other keys that ``Method`` has.
        inputs: ``"correct"`` predictions, ``"mispredicted"`` ones or ``"all"``, both as the server can tell them apart
            without knowing of a fault; None for mispredicted ones in a run with faulty clients, else correct ones.
        inputs_per_label: Correctly predicted server inputs of each held label.
        max_inputs: Mispredicted server inputs.
        suspect_by: By what a client is suspected where mispredictions are traced to the faulty: its contribution to the
            misprediction, or how far it pushes all inputs of the true class towards the predicted one.
        class_inputs: Server inputs of each class that the latter is asked of, at most, and ``stand_outs``.
        stand_outs: Add up over rounds which clients stand out, for whatever class; None for in a run without faulty
            clients.
        false_alarms: Share of runs with honest clients alone in which that may name somebody.
        every: Rounds between two traced rounds.
        counterfactual: Check the answers against each client's exact removal.
        batch_size: Inputs in one forward.
        memory_budget: GiB that an attribution may hold beyond the model.
        precision: Of the products' factors.

    Raises:
        ConfigError: ``verify`` checks what does not estimate the removal.
    """

    enabled: bool
    layer_decay: Annotated[float, between("(0, 1]")]
    weighting: Weighting
    reference: Reference
    target: MethodTarget
    layers: Annotated[tuple[str, ...], _LAYERS] | None
    also: tuple[Literal["batch_norm", "embedding"], ...]
    verify: Annotated[int, at_least(0)] | Literal["all"] | None
    max_update_norm: Annotated[float, at_least(1)] | None
    max_estimate_error: Annotated[float, above(0)] | None
    inputs: Inputs | None
    inputs_per_label: Count
    max_inputs: Count
    suspect_by: SuspectBy
    class_inputs: Count
    stand_outs: bool | None
    false_alarms: Annotated[float, between("(0, 1)")]
    every: Count
    counterfactual: bool
    batch_size: Count
    memory_budget: Annotated[float, above(0)]
    precision: Precision

    def __post_init__(self) -> None:
        if self.enabled:
            try:
                _ = self.method
            except ValueError as error:
                raise ConfigError(f"provenance.{error}") from error

    @cached_property
    def method(self) -> Method:
        """What is computed."""
        return Method(
            float(self.layer_decay),
            self.weighting,
            self.reference,
            self.target,
            self.layers,
            self.also,
            self.verify,
            self.max_update_norm,
            self.max_estimate_error,
        )

    @property
    def question(self) -> Question:
        """What tells presets apart."""
        return self.method, self.suspect_by

    @property
    def memory_bytes(self) -> int:
        """Bytes that an attribution may hold beyond the model."""
        return int(self.memory_budget * 2**30)


@dataclass(frozen=True)
class ExclusionSettings:
    """A client that stands out is no longer drawn.

    Attributes:
        gain: Accuracy on the server's examples that the average must gain without it, in more than half of its window's
            rounds, a fraction; below 0 what leaving it out may cost.
        gain_alone: The same that is enough of a client that does not stand out; None for none.
        window: Rounds of a client, its last ones.
        from_round: First round whose gains count.
    """

    name: ClassVar[str] = "exclude"

    gain: Annotated[float, between("(-1, 1)")]
    gain_alone: Annotated[float, between("(0, 1)")] | None
    window: Count
    from_round: Count


@dataclass(frozen=True)
class DownweightSettings(ExclusionSettings):
    """Its weight in the average is multiplied by ``factor`` instead."""

    name: ClassVar[str] = "downweight"

    factor: Annotated[float, between("(0, 1)")]


Mitigate: TypeAlias = ExclusionSettings | DownweightSettings


@dataclass(frozen=True)
class BaselineSettings:
    """Rules beside provenance, in the order in which tables show them; ``history`` as in ``Evidence``, in rounds."""

    rules: Annotated[tuple[BaselineName, ...], Constraint(are_different, "(each at most once)")]
    history: Count


@dataclass(frozen=True)
class StoreSettings:
    """Which rounds' weights are kept, and how."""

    keep: Keep
    dtype: Dtype
    kind: Kind


@dataclass(frozen=True)
class RaySettings:
    """``address`` is a Ray cluster's that runs already; None for one of the run's own, on this machine."""

    address: Annotated[str, _ADDRESS] | None


@dataclass(frozen=True)
class ClientResources:
    """What one client takes: CPUs, and as many threads, and a part of a GPU; None for one GPU with device=cuda."""

    cpus: Count
    gpus: Annotated[float, at_least(0)] | None


@dataclass(frozen=True)
class WandbSettings:
    """Weights & Biases."""

    mode: Literal["disabled", "online", "offline"]
    project: str
    entity: str | None


@dataclass(frozen=True)
class SettingsKeys:
    """Every key of ``conf/base.yaml``, which says what each means. ``provenance`` is None where it is off."""

    exp_key: Annotated[str, _FOLDER]
    run_name: Annotated[str, _FOLDER] | None
    log_dir: str
    overwrite: bool
    resume: bool
    dry_run: bool
    seed: Annotated[int, at_least(0)]
    num_clients: Count
    clients_per_round: Count
    without: Annotated[tuple[int, ...], _WITHOUT]
    without_from: Count
    num_rounds: Count
    dirichlet_alpha: Annotated[float, above(0)]
    batch_size: Count
    client: ClientSettings
    device: Literal["cpu", "cuda"]
    backend: Literal["auto", "in_process", "ray"]
    total_cpus: Count | None
    total_gpus: Annotated[int, at_least(0)] | None
    runs_at_once: Count
    ray: RaySettings
    client_resources: ClientResources
    wandb: WandbSettings
    model: ModelSettings
    dataset: DatasetSettings
    strategy: Strategy
    privacy: Privacy | None
    fault: AnyFault | None
    provenance: ProvenanceSettings | None
    mitigate: Mitigate | None
    baselines: BaselineSettings
    store: StoreSettings


@dataclass(frozen=True)
class Settings(SettingsKeys):
    """A whole run's configuration, each value legal by itself.

    Attributes:
        resolved: The mapping that it was read from: to be written, compared and merged, not to be read key by key.
    """

    resolved: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def training(self) -> TrainingSettings:
        """How a client trains."""
        return TrainingSettings(**vars(self.client), batch_size=self.batch_size)

    @property
    def partition(self) -> PartitionSettings:
        """How the training examples are divided among the clients."""
        return self.dataset.partition_settings(float(self.dirichlet_alpha))

    @property
    def traces_before_noise(self) -> bool:
        """The average before privacy's noise is traced, not the deployed model."""
        privacy = self.privacy
        return isinstance(privacy, ServerPrivacy) and privacy.trace == "before_noise"

    @property
    def folder(self) -> Path:
        """The run's folder: ``log_dir/exp_key/run_name``, the name by default what the run is and its fingerprint."""
        return expand(self.log_dir) / self.exp_key / (self.run_name or self._name)

    @property
    def _name(self) -> str:
        model, dataset = Path(self.model.name).name, Path(self.dataset.name).name
        partition, fault = self.dataset.partition, fault_in_name(self.fault)
        spread = f"alpha{self.dirichlet_alpha}" if partition == "dirichlet" else partition
        spread += f"-{fault}" if fault else ""
        setting = f"{self.clients_per_round}of{self.num_clients}-{self.num_rounds}r-seed{self.seed}"
        return f"{model}-{dataset}-{spread}-{setting}-{fingerprint(self.resolved)}"


def read_keys(resolved: Mapping[str, Any]) -> Settings:
    """Read a whole resolved configuration.

    Raises:
        ConfigError: A key is missing, unknown or illegal by itself; one line.
    """
    return Settings(**vars(read(SettingsKeys, resolved)), resolved=resolved)


def read_composed(cfg: DictConfig) -> Settings:
    """Read a configuration as it has been composed.

    Raises:
        ConfigError: A key is missing, unknown or illegal by itself; one line.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError(f"{missing[0]} is not set: give {missing[0]}=...")
    resolved: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return read_keys(resolved)


def read_config(path: Path) -> Settings:
    """Read a run's config.yaml.

    Raises:
        RecordError: It is missing, damaged, of another version of tracefl, or of no run.
    """
    from tracefl.records.stored_config import parse_config

    data = CheckedFiles(path.parent).read(path.name, _MOST_BYTES)
    with reading(path):
        return read_keys(parse_config(data))
