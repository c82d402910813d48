"""The configuration's keys as they stand in its files, read as text: help and completion wait for no library."""

import re
from collections.abc import Iterator
from pathlib import Path

CONF = Path(__file__).parent

_HEAD = """TraceFL: train a federation and trace its predictions to the clients responsible for them.

    tracefl run [group=choice ...] [key=value ...] [--json]
    tracefl run                         a first run: experiment=first_run. It stays that one with keys that
                                        change no number: dry_run, resume, overwrite, store, log_dir, device ...
    tracefl run num_rounds=5 --json     print the results alone, as JSON
    tracefl run --multirun dirichlet_alpha=0.1,0.3 seed=1,2
    tracefl run dry_run=true            print what would run, and stop
    tracefl run model=gpt --cfg job     print the whole configuration, and stop
"""


def help_text() -> str:
    """Return the groups with their choices, and every key with its unit and range."""
    lines = [_HEAD, "Groups (choose with group=choice):", ""]
    lines += [f"    {group:<11} {', '.join(choices(group))}" for group in group_names()]
    lines += ["", "Keys, with their defaults:", "", *(f"    {line}".rstrip() for line in _base_text().splitlines())]
    for group, name in (
        ("model", "resnet18"),
        ("dataset", "digits"),
        ("strategy", "fedprox"),
        ("strategy", "provenance_selection"),
        ("strategy", "krum"),
        ("strategy", "trimmed_mean"),
        ("privacy", "central"),
        ("fault", "label_flip"),
        ("fault", "backdoor"),
        ("fault", "weight_noise"),
        ("mitigate", "downweight"),
        ("provenance", "removal"),
        ("baselines", "fast"),
    ):
        lines += ["", f"Keys of the group {group}, as in {group}={name}:", ""]
        lines += [f"    {line}".rstrip() for line in _group_lines(group, name)]
    return "\n".join(lines) + "\n"


def choices(group: str) -> list[str]:
    """Return the choices of a configuration group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


def _group_lines(group: str, name: str) -> Iterator[str]:
    """Yield the commented keys of one choice and of the files that it builds on, each key once."""
    text = (CONF / group / f"{name}.yaml").read_text()
    parents = re.search(r"^defaults:\s*\[([^\]]*)\]", text, re.MULTILINE)
    own = {line.split(":")[0] for line in text.splitlines() if re.match(r"^\w+:", line)}
    for parent in parents.group(1).split(",") if parents else ():
        if parent.strip() != "_self_":
            yield from (line for line in _group_lines(group, parent.strip()) if line.split(":")[0] not in own)
    for line in text.splitlines():
        if line and not line.startswith(("#", "defaults:")):
            yield line


def _base_text() -> str:
    """Return the part of base.yaml that holds TraceFL's own keys."""
    return (CONF / "base.yaml").read_text().split("\n\n", 1)[1].split("\nhydra:")[0]


def base_keys() -> dict[str, str]:
    """Return the keys that are in no group, dotted, each with its comment."""
    return _keys(_base_text())


def configuration_keys() -> list[str]:
    """Return the groups, and the keys that are in none, dotted."""
    return [*group_names(), *base_keys()]


def group_names() -> list[str]:
    """Return the groups of the configuration."""
    return sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and choices(folder.name))


def group_keys(group: str) -> dict[str, str]:
    """Return the keys of a group's choices, dotted, each with its comment; of no group none."""
    texts = [path.read_text() for path in sorted((CONF / group).glob("*.yaml"))]
    found: dict[str, str] = {}
    for key, comment in (item for text in texts if "@package _global_" not in text for item in _keys(text).items()):
        if key != "defaults" and not (found.get(key) and comment.startswith("not used")):
            found[key] = comment or found.get(key, "")
    return {f"{group}.{key}": comment for key, comment in found.items()}


def _keys(text: str) -> dict[str, str]:
    """Return the keys of a file of one or two levels, dotted, each with its comment."""
    keys: dict[str, str] = {}
    above = ""
    for indent, key, value, comment in re.findall(r"^( *)(\w+):([^#\n]*)(?:# *(.*))?$", text, re.MULTILINE):
        above = above if indent else key
        if value.strip() or indent:
            keys[f"{above}.{key}" if indent else key] = comment
    return keys


def named_values(comment: str) -> list[str]:
    """Return the values that a comment such as ``true | false: run again`` names, if it names any."""
    first, *rest = re.sub(r"\([^)]*\)", "", comment).split(" | ")
    words = [*first.split()[-1:], *(part.split()[0] for part in rest if part.split())] if rest else []
    return [word.rstrip(":;,") for word in words]
