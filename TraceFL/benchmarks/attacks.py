"""What a hostile client may send in a round, and what its attack is after: the attacks that gaming.py measures.

Every attack is made from the weights that all clients trained honestly from the same start. Those that are optimised
know the others' weights and shares, which is more than a client is told: they are the worst that can be met.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp

from tracefl.provenance import Method
from tracefl.provenance.norms import update_norms
from tracefl.provenance.removal import centered_logit

State: TypeAlias = Mapping[str, Tensor]
Asked: TypeAlias = Literal["triggered", "wrong", "right"]

ATTACKER, VICTIM, SYBILS = "0", "1", ("0", "1", "2")
BOOST = 0.5
"""Times the number of clients, by which an update is multiplied: by 5 with ten of them."""
SHIFT = 100.0
DEAD = -30.0
WITHIN = 4.9
"""Medians of the honest updates' norms within which an attacker stays that knows of a bound of 5."""
STEPS, STEP = 200, 0.01
FRAME = 2.0
"""Nats of spoiling that a logit of framing is worth."""
DEFAULT = Method()
ASKED = 32
"""The attacker's examples on which all removals are tried in each step."""


class SmallCnn(nn.Module):
    """Two convolutions and a hidden layer for images of ``(3, 8, 8)``."""

    def __init__(self, normalised: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(16) if normalised else nn.Identity()
        self.norm2 = nn.BatchNorm2d(32) if normalised else nn.Identity()
        self.hidden, self.out = nn.Linear(32 * 2 * 2, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, 10)`` logits."""
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        return self.out(F.relu(self.hidden(x.flatten(1))))


@dataclass(frozen=True)
class Scene:
    """A round before its attacker has replied.

    Attributes:
        model: The architecture.
        start: The weights that all clients started from.
        honest: Client id to its weights after honest training.
        shares: Client id to its share of the average.
        inputs: ``(N, 3, 8, 8)`` the attacker's own examples.
        labels: ``(N,)`` their classes.
        triggered: ``(N, 3, 8, 8)`` the same with the trigger on.
        target: The class that the trigger is to lead to.
        backdoored: Returns a client's weights after training in which half of its examples have the trigger and the
            target's label; of the parameters that are named, or of all where None is given.
    """

    model: nn.Module
    start: State
    honest: Mapping[str, State]
    shares: Mapping[str, float]
    inputs: Tensor
    labels: Tensor
    triggered: Tensor
    target: int
    backdoored: Callable[[str, tuple[str, ...] | None], State]

    @property
    def parameters(self) -> list[str]:
        """Names of what training changes by gradients."""
        return [name for name, _ in self.model.named_parameters()]

    def boosted(self, state: State, factor: float) -> State:
        """Return a state whose change of the parameters is multiplied."""
        start = self.start
        return {**state, **{n: start[n] + factor * (state[n] - start[n]) for n in self.parameters}}

    def others(self) -> State:
        """Return the honest others' average."""
        rest = 1 - self.shares[ATTACKER]
        parts = {k: p / rest for k, p in self.shares.items() if k != ATTACKER}
        return {n: torch.stack([p * self.honest[k][n] for k, p in parts.items()]).sum(dim=0) for n in self.parameters}


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes:
        words: What the attacker does.
        make: Returns what the hostile clients send, by id.
        asked: About which predictions it matters who is named: with the trigger on and led to the target, mispredicted,
            or right.
        normalised: Whether it needs a model with BatchNorm.
        framed: The honest client that is to be named; None for nobody in particular.
    """

    words: str
    make: Callable[[Scene], Mapping[str, State]]
    asked: Asked = "triggered"
    normalised: bool = False
    framed: str | None = None


def backdoor(scene: Scene) -> State:
    """Return the weights of a boosted backdoor."""
    return scene.boosted(scene.backdoored(ATTACKER, None), BOOST * len(scene.shares))


def shifted(state: State, by: float) -> State:
    """Return a model of the same probabilities: all its logits are shifted alike."""
    return {**state, "out.bias": state["out.bias"] + by}


def permuted(state: State) -> State:
    """Return a model of the same function: its hidden units stand in another order."""
    order = torch.arange(len(state["hidden.bias"])).roll(1)
    moved = {n: state[n][order] for n in ("hidden.weight", "hidden.bias")}
    return {**state, **moved, "out.weight": state["out.weight"][:, order]}


def rescaled(state: State, factor: float) -> State:
    """Return a model of the same function: hidden units are larger, and are read by smaller weights."""
    larger = {n: factor * state[n] for n in ("hidden.weight", "hidden.bias")}
    return {**state, **larger, "out.weight": state["out.weight"] / factor}


def by_batch_norm(scene: Scene) -> State:
    """Return honest weights with a backdoor in BatchNorm's scale and shift."""
    names = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")
    hostile = scene.backdoored(ATTACKER, names)
    factor = BOOST * len(scene.shares)
    changed = {n: scene.start[n] + factor * (hostile[n] - scene.start[n]) for n in names}
    return {**scene.honest[ATTACKER], **changed}


def dead(own: State, bias: float = DEAD) -> State:
    """Return weights whose hidden units are switched off by their bias, and with them many of the average's."""
    return {**own, **{n: torch.full_like(own[n], bias) for n in ("conv2.bias", "hidden.bias")}}


def hidden(scene: Scene, within: float | None = None, preset: Method = DEFAULT) -> State:
    """Return a backdoor that is optimised to stay out of a preset's estimate.

    Args:
        scene: The round.
        within: Most medians of the honest updates' norms; None for no bound.
        preset: Its weighting and its layer decay are those of the estimate.
    """
    p, others = scene.shares[ATTACKER], scene.others()
    layers = list(dict.fromkeys(n.partition(".")[0] for n in others))
    whole = p / (1 - p) if preset.weighting == "leave_one_out" else 1.0
    factors = {n: whole * preset.layer_decay ** (len(layers) - 1 - layers.index(n.partition(".")[0])) for n in others}

    def loss(own: State) -> Tensor:
        average = {n: (1 - p) * others[n] + p * own[n] for n in others}
        step = {n: factors[n] * (own[n] - average[n]) for n in others}
        goal = torch.full_like(scene.labels, scene.target)

        def centered(weights: State) -> Tensor:
            return centered_logit(functional_call(scene.model, dict(weights), (scene.triggered,)), goal)

        _, estimate = jvp(centered, (average,), (step,))
        return _spoils(scene, average) + F.relu(estimate + 1).mean()

    return _optimised(scene, loss, within)


def framing(scene: Scene, within: float | None = None) -> State:
    """Return a backdoor that is optimised so that leaving the victim out takes more from it than anybody else.

    Args:
        scene: The round.
        within: As in ``hidden``.
    """
    p = scene.shares
    others = scene.others()
    goal = torch.full_like(scene.labels[:ASKED], scene.target)

    def centered(weights: State) -> Tensor:
        return centered_logit(functional_call(scene.model, dict(weights), (scene.triggered[:ASKED],)), goal)

    without_own = centered(others).detach()

    def loss(own: State) -> Tensor:
        average = {n: (1 - p[ATTACKER]) * others[n] + p[ATTACKER] * own[n] for n in others}

        def without(k: str) -> Tensor:
            return centered({n: (average[n] - p[k] * scene.honest[k][n]) / (1 - p[k]) for n in others})

        left = torch.stack([without_own, *(without(k) for k in p if k not in (ATTACKER, VICTIM))])  # (K - 1, N)
        return _spoils(scene, average) + FRAME * F.relu(1 + without(VICTIM) - left.amin(dim=0)).mean()

    return _optimised(scene, loss, within)


def _spoils(scene: Scene, average: State) -> Tensor:
    """Return how far an average is from a backdoor that shows in nothing else, in nats."""
    clean = functional_call(scene.model, dict(average), (scene.inputs,))
    led = functional_call(scene.model, dict(average), (scene.triggered,))
    goal = torch.full_like(scene.labels, scene.target)
    return F.cross_entropy(clean, scene.labels) + F.cross_entropy(led, goal)


def _optimised(scene: Scene, loss: Callable[[State], Tensor], within: float | None) -> State:
    """Return the weights that lower a loss, from the boosted backdoor on."""
    begin = backdoor(scene)
    own = {n: begin[n].clone().requires_grad_() for n in scene.parameters}
    optimizer = torch.optim.Adam(own.values(), lr=STEP)
    norms = update_norms(scene.honest, scene.start, scene.parameters)
    median = sorted(norms.values())[(len(norms) - 1) // 2]
    scene.model.eval()
    for _ in range(STEPS):
        if within is not None:
            _bring_within(own, scene.start, within * median)
        optimizer.zero_grad()
        loss(own).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if within is not None:
        _bring_within(own, scene.start, within * median)
    return {**scene.honest[ATTACKER], **{n: w.detach() for n, w in own.items()}}


@torch.no_grad()
def _bring_within(own: State, start: State, most: float) -> None:
    """Bring weights back to where the norm of the update is at most ``most``."""
    norm = torch.stack([(w - start[n]).square().sum() for n, w in own.items()]).sum().sqrt()
    for name, weights in own.items():
        weights.copy_(start[name] + min(1.0, most / float(norm)) * (weights - start[name]))


def _alone(state: State) -> Mapping[str, State]:
    return {ATTACKER: state}


ATTACKS: dict[str, Attack] = {
    "none": Attack("nothing", lambda _: {}, asked="right"),
    "boost": Attack("a backdoor, boosted", lambda scene: _alone(backdoor(scene))),
    "shift": Attack(
        f"the same, less {SHIFT:g} from all its logits", lambda scene: _alone(shifted(backdoor(scene), -SHIFT))
    ),
    "permute": Attack("the same, hidden units permuted", lambda scene: _alone(permuted(backdoor(scene)))),
    "rescale": Attack("the same, hidden units ten times as large", lambda scene: _alone(rescaled(backdoor(scene), 10))),
    "hide": Attack("optimises it to stay out of the estimate", lambda scene: _alone(hidden(scene))),
    "hide within": Attack("the same, within 4.9 medians", lambda scene: _alone(hidden(scene, WITHIN))),
    "hide from fault": Attack(
        "optimises it to stay out of the estimate of `unlike`",
        lambda scene: _alone(hidden(scene, preset=Method.unlike())),
    ),
    "hide from fault within": Attack(
        "the same, within 4.9 medians", lambda scene: _alone(hidden(scene, WITHIN, Method.unlike()))
    ),
    "batch norm": Attack(
        "a backdoor in BatchNorm's scale and shift alone", lambda scene: _alone(by_batch_norm(scene)), normalised=True
    ),
    "sybils": Attack(
        "three sybils share the backdoor",
        lambda scene: {
            k: scene.boosted(scene.backdoored(k, None), BOOST * len(scene.shares) / len(SYBILS)) for k in SYBILS
        },
    ),
    "die": Attack("makes hidden units die", lambda scene: _alone(dead(scene.honest[ATTACKER])), asked="wrong"),
    "frame": Attack("a backdoor that frames another", lambda scene: _alone(framing(scene)), framed=VICTIM),
    "frame within": Attack("the same, within 4.9 medians", lambda scene: _alone(framing(scene, WITHIN)), framed=VICTIM),
    "shine by shift": Attack(
        f"shines: honest, plus {SHIFT:g} on all its logits",
        lambda scene: _alone(shifted(scene.honest[ATTACKER], SHIFT)),
        asked="right",
    ),
    "shine by rescaling": Attack(
        "shines: honest, hidden units ten times as large",
        lambda scene: _alone(rescaled(scene.honest[ATTACKER], 10)),
        asked="right",
    ),
    "shine by boosting": Attack(
        "shines: honest, its update times 4",
        lambda scene: _alone(scene.boosted(scene.honest[ATTACKER], 4)),
        asked="right",
    ),
}
