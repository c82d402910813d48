"""Seeded damage to the folder of a run: what a bad disk, a careless hand or a hostile sender may leave of it."""

import hashlib
import json
import os
import random
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file

SUMS = "SHA256SUMS"
HUGE = 1 << 40  # bytes, of a file that takes none on the disk
NOT_ANSWERS = (".png", ".pdf", ".log", ".html")

VALUES = (
    *(None, True, False, "", "x", "-1", "nan", 0, 1, -1, 7, 0.5, -0.0, 1.5, 1e308, 2**31, 2**63, -(2**63), 10**400),
    *(float("nan"), float("inf"), -float("inf"), [], {}, [[]], [None], {"a": {}}, {"": 1}),
    *("a" * 100_000, "\x1b[31mred\x07", "‮reversed", "\x00", "\ud800", "=1+1", "@SUM(A1)", "two\nlines", "\r"),
    *(
        "../../../etc/passwd",
        "/etc/passwd",
        "${oc.env:HOME}",
        "${seed}",
        "<script>alert(1)</script>",
        "[red]",
        "$\\frac$",
    ),
)
"""What takes the place of a value; JSON writes some of them in words that it does not have."""

TEXTS = (
    *(
        b"",
        b"\n",
        b"\xff\xfe\x00",
        b"[]",
        b"{}",
        b"null",
        b"3",
        b'{"a": [',
        b"a: &a [*a]\n",
        b"- x\n" * 3,
        b"\x00" * 64,
    ),
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b"1" * 100_000,
    b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n".encode()
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    b"{" * 20_000,
    b"!!python/object/apply:os.system ['true']\n",
)
"""What takes the place of a whole file."""


@dataclass(frozen=True)
class Mutation:
    """What was done.

    Attributes:
        words: In words.
        name: The file, within the folder.
        sums: Which checksums were made again: none (``stale``), those of the file's round (``round``), or all that
            there are (``fresh``).
    """

    words: str
    name: str
    sums: str

    def __str__(self):
        return f"{self.name}: {self.words}, checksums {self.sums}"


def mutate(folder, seed, aside):
    """Damage one file of a run's folder, as the seed says.

    Args:
        folder: The run's folder.
        seed: Of what is done.
        aside: A folder that is not there yet, for what a link leads to.

    Returns:
        The mutation, None where it changed nothing.
    """
    aside.mkdir()
    draw = random.Random(seed)
    name = _pick(folder, draw)
    path = folder / name
    ways = [*_ANY, *(_ANY if draw.random() < 0.3 else ())]
    inner = {
        ".json": [_json_value] * 12,
        ".yaml": [_yaml_value] * 12,
        ".csv": [_cell] * 10,
        ".safetensors": [_tensor] * 10,
    }
    way = draw.choice([*ways, *inner.get(path.suffix, [])])
    before = path.read_bytes()
    words = way(path, draw, aside)
    if words is None or (
        path.is_file() and not path.is_symlink() and path.stat().st_size < HUGE and path.read_bytes() == before
    ):
        return None
    sums = draw.choices(("stale", "round", "fresh"), (5, 1, 3))[0]
    if sums != "stale" and path.name != SUMS:
        freshen(folder, sums)
    return Mutation(words, name, sums)


def freshen(folder, which="fresh"):
    """Make checksums again as somebody does who wants damage to pass: of the rounds alone, or of the whole run too."""
    deepest = sorted(folder.rglob(SUMS), key=lambda path: -len(path.parts))
    for path in deepest:
        if path.parent != folder or which == "fresh":
            names = dict.fromkeys(line[66:] for line in path.read_text().splitlines() if not line.startswith("#"))
            there = [name for name in names if _is_plain(path.parent / name)]
            path.write_text("".join(f"{_sha256(path.parent / name)}  {name}\n" for name in there))


def _pick(folder, draw):
    """Return a file's name: each kind of file is as likely, however many there are of it."""
    kinds = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _is_plain(path) and path.suffix not in NOT_ANSWERS:
            kinds.setdefault(re.sub(r"\d+", "N", name), []).append(name)
    return draw.choice(kinds[draw.choice(sorted(kinds))])


def _edit(path, draw, aside):
    data = bytearray(path.read_bytes())
    if not data:
        return None
    at = draw.randrange(len(data))
    data[at] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return f"a bit of byte {at} is turned"


def _cut(path, draw, aside):
    size = path.stat().st_size
    to = draw.choice((0, 1, size // 2, size - 1))
    os.truncate(path, max(0, to))
    return f"cut to {to} bytes"


def _lengthen(path, draw, aside):
    more = draw.choice((b"\n", b"x", b"\x00" * 1000, b"\xff\xff"))
    with path.open("ab") as file:
        file.write(more)
    return f"{len(more)} bytes more"


def _remove(path, draw, aside):
    path.unlink()
    return "removed"


def _other_text(path, draw, aside):
    text = draw.choice(TEXTS)
    path.write_bytes(text)
    return f"holds {text[:24]!r}"


def _other_file(path, draw, aside):
    others = [other for other in sorted(path.parents[0].rglob("*")) if _is_plain(other) and other != path]
    if not others:
        return None
    other = draw.choice(others)
    shutil.copyfile(other, path)
    return f"is a copy of {other.name}"


def _folder(path, draw, aside):
    path.unlink()
    path.mkdir()
    return "is a folder"


def _pipe(path, draw, aside):
    path.unlink()
    os.mkfifo(path)
    return "is a pipe"


def _socket(path, draw, aside):
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)
    return "is a socket"


def _link(path, draw, aside):
    to = draw.choice(("/dev/zero", "/dev/full", "/etc/passwd", "/nowhere", path.name, "copy"))
    if to == "copy":
        shutil.copyfile(path, aside / path.name)
    path.unlink()
    path.symlink_to(aside / path.name if to == "copy" else to)
    return f"leads to {to}"


def _huge(path, draw, aside):
    if draw.random() < 0.5:
        path.write_bytes(b"")
    os.truncate(path, HUGE)
    return "is huge"


def _twice(path, draw, aside):
    """Put a copy of what is in the same folder beside it, under another name."""
    place = path.parent
    if place.name.isdigit():
        shutil.copytree(place, place.with_name(f"{int(place.name) + draw.choice((1, 2, 9)):04d}"), dirs_exist_ok=True)
        return "its round is there twice"
    shutil.copyfile(path, path.with_name(f"{path.stem}-2{path.suffix}"))
    return "is there twice"


def _round_goes(path, draw, aside):
    place = next((folder for folder in path.parents if folder.name.isdigit()), None)
    if place is None:
        return None
    if draw.random() < 0.5:
        shutil.rmtree(place)
        return "its round is removed"
    shutil.rmtree(place / "weights", ignore_errors=True)
    return "its round's weights are removed"


def _folder_is_link(path, draw, aside):
    place = path.parent
    if not (place.name.isdigit() or place.name in ("weights", "rounds", "tokenizer")):
        return None
    place.symlink_to(shutil.move(place, aside / place.name))
    return "its folder leads elsewhere"


_ANY = (
    *(_edit, _edit, _cut, _cut, _lengthen, _remove, _other_text, _other_text, _other_file, _folder, _pipe),
    *(_socket, _link, _huge, _twice, _round_goes, _folder_is_link),
)


def _json_value(path, draw, aside):
    return _value(path, draw, json.loads, lambda content: json.dumps(content).encode(errors="surrogatepass"))


def _yaml_value(path, draw, aside):
    import yaml

    def dump(content):
        return yaml.safe_dump(content, allow_unicode=draw.random() < 0.5, sort_keys=False).encode(
            errors="surrogatepass"
        )

    return _value(path, draw, yaml.safe_load, dump)


def _value(path, draw, load, dump):
    """Change one place of a structure."""
    content = load(path.read_text())
    *way, key = draw.choice(list(_places(content)))
    holder = content
    for step in way:
        holder = holder[step]
    action = draw.choice(("set", "set", "set", "set", "near", "near", "drop", "add"))
    shown = f"[{']['.join(map(str, (*way, key)))}]"
    if action == "near" and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = draw.choice((holder[key] + 1, holder[key] * 10, -holder[key], holder[key] / 3, str(holder[key])))
        said = f"{shown} becomes {holder[key]!r}"
    elif action == "drop":
        del holder[key]
        said = f"{shown} is dropped"
    elif action == "add" and isinstance(holder, dict):
        holder[draw.choice(("auto_map", "_target_", "new", "\x1b[1m"))] = draw.choice(VALUES)
        said = f"a key beside {shown}"
    else:
        holder[key] = draw.choice(VALUES)
        said = f"{shown} becomes {str(holder[key])[:30]!r}"
    try:
        path.write_bytes(dump(content))
    except (UnicodeError, ValueError):
        return None
    return said


def _places(content, way=()):
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*way, key)
        yield from _places(value, (*way, key))


def _cell(path, draw, aside):
    lines = path.read_text().splitlines()
    if not lines:
        return None
    number = draw.randrange(len(lines))
    cells = lines[number].split(",")
    column = draw.randrange(len(cells))
    action = draw.choice(("set", "set", "drop", "line", "again"))
    if action == "set":
        cells[column] = draw.choice(("", "x", "-1", "nan", "inf", "1e400", "7", "=1+1", "\x1b[31m", '"', "9" * 5000))
        lines[number] = ",".join(cells)
    elif action == "drop":
        del cells[column]
        lines[number] = ",".join(cells)
    elif action == "line":
        del lines[number]
    else:
        lines.insert(number, lines[number])
    path.write_text("".join(f"{line}\n" for line in lines))
    return f"line {number}, cell {column}: {action}"


def _tensor(path, draw, aside):
    """Change one tensor and write the file again, as a library would."""
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    name = draw.choice(sorted(tensors))
    tensor = tensors[name]
    action = draw.choice(
        ("nan", "inf", "huge", "shift", "double", "flat", "less", "drop", "rename", "more", "int", "zero")
    )
    flat = tensor.reshape(-1)
    if action in ("nan", "inf", "huge", "shift"):
        if not tensor.is_floating_point() or not len(flat):
            action = "shift"
        value = {"nan": float("nan"), "inf": float("inf"), "huge": 1e30}.get(action)
        if not len(flat):
            return None
        at = draw.randrange(len(flat))
        flat[at] = flat[at] + 1 if value is None else value
    elif action == "double":
        tensors[name] = tensor.double()
    elif action == "flat":
        tensors[name] = tensor.reshape(-1)
    elif action == "less":
        tensors[name] = tensor.reshape(-1)[:-1].clone()
    elif action == "drop":
        del tensors[name]
    elif action == "rename":
        tensors[f"{name}.x"] = tensors.pop(name)
    elif action == "more":
        tensors["more"] = tensor.clone()
    elif action == "int":
        tensors[name] = tensor.nan_to_num().clamp(-100, 100).char()
    else:
        tensors[name] = tensor * 0
    save_file(tensors, path)
    return f"{name}: {action}"


def _is_plain(path):
    return path.is_file() and not path.is_symlink()


def _sha256(path):
    with path.open("rb") as file:
        if path.stat().st_size >= HUGE:
            return "0" * 64  # nobody waits for that
        return hashlib.file_digest(file, "sha256").hexdigest()
