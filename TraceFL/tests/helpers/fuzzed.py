"""What becomes of a damaged folder: a copy of a run is damaged in one place, and asked what the run was asked."""

import re
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePath
from random import Random

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.helpers.asking import ask
from tests.helpers.damage import WEIGHTS_GO
from tests.helpers.fuzzing import mutate
from tests.helpers.runs import TINY_MODEL, run
from tracefl.records.checksums import CHECKSUMS, is_covered
from tracefl.records.reading import RESULTS
from tracefl.records.signature import SIGNATURE

_SAID_ONCE = (
    *("config.yaml", "command.txt", "label_counts.json", "model.json", "fault.json", "server.safetensors", RESULTS),
    "tokenizer/",
)
"""Files that say what no other one repeats, or not all of it: another value is told by a signature alone."""

_SHARED = ("num_rounds=2", "store=all")

RUNS = {
    "images": (
        *TINY_MODEL,
        *("fault=random_labels", "fault.min_examples=1", "provenance.inputs=mispredicted", "baselines=fast"),
        *("mitigate=exclude", "mitigate.window=1", "mitigate.from_round=1", *_SHARED),
        *("mitigate.gain=0.001", "mitigate.gain_alone=0.001", "clients_per_round=4", "client.lr=0.03"),
        "dataset.max_server_examples=6",
    ),
    "texts": (
        *("dataset=synthetic_text", "dataset.max_tokens=12", "model=gpt", "model.pretrained=false"),
        *("++model.config.n_layer=1", "++model.config.n_embd=16", "++model.config.n_head=2"),
        *("model.tokenizer=trained", "model.tokenizer_vocab=300", "provenance.inputs=all"),
        *("store.kind=updates", "store.dtype=bfloat16", *_SHARED),
        "dataset.max_server_examples=12",
        "clients_per_round=4",
    ),
}
COMMANDS = {
    "images": ("trace", "input", "counterfactual", "ledger", "report", "collect", "replay"),
    "texts": ("trace", "input", "counterfactual", "ledger", "report", "collect", "replay", "figures"),
}
"""What is asked beside ``verify``, which is asked each time; a figure is drawn of runs without a fault."""


@dataclass(frozen=True)
class Fuzzed:
    """A run whose copies are damaged.

    Attributes:
        folder: The run's folder; its checksums are signed.
        key: The public key of the signature.
        truth: Command to what it answers of the run itself.
        commands: What is asked beside ``verify``.
    """

    folder: Path
    key: Path
    truth: dict
    commands: tuple


@dataclass(frozen=True)
class Finding:
    """A command's reply that it should not have given.

    Attributes:
        kind: ``traceback``, ``hang``, ``words`` (not one line), ``silent`` (another answer without a word; of
            ``verify``, damage that it does not see without a key) or ``unsigned`` (nor with one).
        seed: The mutation's.
        mutation: What was damaged.
        command: What was asked.
        details: What was said.
    """

    kind: str
    seed: str
    mutation: object
    command: str
    details: str

    def __str__(self):
        return f"{self.kind} of {self.command}, seed {self.seed!r}: {self.mutation}\n{self.details}"


def make(name, place):
    """Make one of ``RUNS`` in a folder, sign it, and ask it everything."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        folder = run(place, *RUNS[name])
    private, pem = Ed25519PrivateKey.generate(), serialization.Encoding.PEM
    kept = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (place / "key.pem").write_bytes(kept)
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (place / "key.pub").write_bytes(public)
    signed = ask("verify", folder, place / "out", f"sign={place / 'key.pem'}")
    fuzzed = Fuzzed(folder, place / "key.pub", {"sign": signed}, COMMANDS[name])
    fuzzed.truth.update({command: _ask(fuzzed, command, folder, place) for command in ("verify", *COMMANDS[name])})
    refused = {command: reply for command, reply in fuzzed.truth.items() if reply.status != 0}
    assert not refused, refused
    return fuzzed


def examine(fuzzed, seed, place):
    """Damage a copy of a run; verify it with the key, and ask it one other command.

    Args:
        fuzzed: The run.
        seed: Of what is damaged and of what is asked.
        place: An empty folder for the copy.

    Returns:
        The mutation and the findings.
    """
    copy = place / "runs" / "run"
    shutil.copytree(fuzzed.folder, copy, copy_function=shutil.copyfile)
    mutation = mutate(copy, seed, place / "aside")
    asked = ("verify", Random(f"{seed}, asked").choice(fuzzed.commands))
    replies = {command: _ask(fuzzed, command, copy, place) for command in asked}
    is_refused = replies["verify"].status == 2 or bool(_problems(replies["verify"]))
    kinds = {
        command: _kind(command, reply, fuzzed.truth[command], mutation, is_refused)
        for command, reply in replies.items()
    }
    return mutation, [
        Finding(kind, seed, mutation, command, _details(replies[command], fuzzed.truth[command]))
        for command, kind in kinds.items()
        if kind
    ]


def _ask(fuzzed, command, run, place):
    return ask(command, run, place / "out", *([f"key={fuzzed.key}"] if command == "verify" else ()))


def _problems(reply):
    """Return what ``verify`` finds wrong beside the signature: what it finds without a key."""
    return [problem for problem in (reply.answer or {"problems": ()})["problems"] if SIGNATURE not in problem]


def _kind(command, reply, truth, mutation, is_refused):
    """Return in which way a reply is wrong; None where it is right.

    Args:
        command: What was asked.
        reply: The reply.
        truth: The reply of the run itself.
        mutation: What was damaged.
        is_refused: ``verify`` says, without a key too, that the folder is not whole.
    """
    decides = any(map(_decides, mutation.changed))
    if reply.status is None:
        return "hang" if reply.fault == "hung" else "traceback"
    if reply.status and not _is_told(command, reply):
        return "words"
    if command == "verify":
        if reply.status == 0:
            return "unsigned" if decides else None
        return "silent" if decides and mutation.sums == "stale" and not is_refused else None
    if reply.status or reply.answer == truth.answer or _is_said_to_be_unfinished(command, reply, mutation):
        return None
    if command == "report" and mutation.words == WEIGHTS_GO and _without_stored(reply) == _without_stored(truth):
        return None
    return None if mutation.sums != "stale" and (is_refused or _could_be(mutation)) else "silent"


def _could_be(mutation):
    """Return whether a folder whose checksums were made again may be another run's: the only answer that may differ.

    What rounds, weights and tables say is repeated, and ``verify`` tells where it is not the same; but a session of a
    run may have kept no weights of its rounds at all.
    """
    changed = [name for name in mutation.changed if PurePath(name).name != CHECKSUMS]
    said_once = all(name.startswith(_SAID_ONCE) for name in changed)
    return mutation.sums == "fresh" and (said_once or mutation.words == WEIGHTS_GO)


def _is_told(command, reply):
    """Return whether a refusal is one line: of stderr, or for each thing that ``verify`` finds."""
    if command == "verify" and reply.status == 1:
        problems = reply.answer["problems"]
        return bool(problems) and not any("\n" in problem for problem in problems) and not reply.said
    errors = [line.startswith("tracefl: ") for line in reply.said.splitlines()]
    return reply.status in (1, 2) and errors[-1:] == [True] and sum(errors) == 1


def _is_said_to_be_unfinished(command, reply, mutation):
    """Return whether a run that has lost its end or a round is said to be stopped or to have failed."""
    if not any(name == RESULTS or name.endswith("round.json") for name in mutation.gone):
        return False
    if command == "collect":
        return reply.answer["runs"][0]["state"] in ("stopped", "failed")
    return command == "report" and re.search(r'class="state (stopped|failed)"', reply.answer) is not None


def _without_stored(page):
    """Return a report without the rounds that it says it has the weights of."""
    return re.sub(r'"stored": \[[^]]*\]|weights are kept \([^)]*\)', "", page.answer)


def _decides(name):
    """Return whether a file decides an answer, or has such files' checksums."""
    return is_covered(name) or name == CHECKSUMS or name.startswith("rounds/")


def _details(reply, truth):
    return reply.fault or reply.said or _difference(truth.answer, reply.answer)


def _difference(truth, answer, way=""):
    """Return the first places in which two answers differ."""
    if isinstance(truth, dict) and isinstance(answer, dict):
        pairs = [(f"{way}.{k}", truth.get(k), answer.get(k)) for k in dict.fromkeys((*truth, *answer))]
    elif isinstance(truth, list) and isinstance(answer, list) and len(truth) == len(answer):
        pairs = [(f"{way}[{i}]", *pair) for i, pair in enumerate(zip(truth, answer, strict=True))]
    elif isinstance(truth, str) and isinstance(answer, str):
        lines = zip(truth.splitlines(), answer.splitlines(), strict=False)
        return "\n".join(f"{a[:300]}\n-> {b[:300]}" for a, b in lines if a != b)[:1500]
    else:
        return f"{way}: {str(truth)[:100]} -> {str(answer)[:100]}"
    return "; ".join(_difference(a, b, name) for name, a, b in pairs if a != b)[:1500]
