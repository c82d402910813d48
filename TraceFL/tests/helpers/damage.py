"""Ways to damage a file of a run's folder, whatever it holds, and folders of it.

A way takes the file's path, a seeded ``random.Random`` and a folder outside the run for what a link leads to. It
returns what it did in words, None where there was nothing to do.
"""

import os
import shutil
import socket
from pathlib import Path

HUGE = 1 << 40  # bytes, of a file that takes none on the disk
WEIGHTS_GO = "its round's weights are removed"

_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
_TEXTS = (
    *(b"", b"\n", b"\xff\xfe\x00", b"\x00" * 64, b"[]", b"{}", b"null", b"3", b'{"a": [', b"- x\n" * 3),
    *(b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b"{" * 20_000, b"1" * 100_000),
    *(b"a: &a [*a]\n", _BOMB.encode(), b"!!python/object/apply:os.system ['true']\n"),
)


def turn_bit(path, draw, aside):
    data = bytearray(path.read_bytes())
    if not data:
        return None
    at = draw.randrange(len(data))
    data[at] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return f"a bit of byte {at} is turned"


def cut(path, draw, aside):
    size = path.stat().st_size
    to = max(0, draw.choice((0, 1, size // 2, size - 1)))
    os.truncate(path, to)
    return f"cut to {to} bytes"


def lengthen(path, draw, aside):
    more = draw.choice((b"\n", b"x", b"\x00" * 1000, b"\xff\xff"))
    with path.open("ab") as file:
        file.write(more)
    return f"{len(more)} bytes more"


def remove(path, draw, aside):
    path.unlink()
    return "removed"


def hold_other_text(path, draw, aside):
    text = draw.choice(_TEXTS)
    path.write_bytes(text)
    return f"holds {text[:24]!r}"


def copy_other_file(path, draw, aside):
    other = _other(path, draw, "*")
    if other is None:
        return None
    shutil.copyfile(other, path)
    return f"is a copy of {other.name}"


def exchange(path, draw, aside):
    """Exchange a file with another of its kind."""
    other = _other(path, draw, f"*{path.suffix}")
    if other is None:
        return None
    data = path.read_bytes()
    shutil.copyfile(other, path)
    other.write_bytes(data)
    return f"exchanged with {other.name}"


def make_folder(path, draw, aside):
    path.unlink()
    path.mkdir()
    return "is a folder"


def make_pipe(path, draw, aside):
    path.unlink()
    os.mkfifo(path)
    return "is a pipe"


def make_socket(path, draw, aside):
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)
    return "is a socket"


def make_link(path, draw, aside):
    to = draw.choice(("/dev/zero", "/dev/full", "/etc/passwd", "/nowhere", path.name, "a copy"))
    if to == "a copy":
        shutil.copyfile(path, aside / path.name)
    path.unlink()
    path.symlink_to(aside / path.name if to == "a copy" else to)
    return f"leads to {to}"


def make_huge(path, draw, aside):
    if draw.random() < 0.5:
        path.write_bytes(b"")
    os.truncate(path, HUGE)
    return "is huge"


def double(path, draw, aside):
    """Put a copy of a file, or of its round, beside it under another name."""
    place = path.parent
    if place.name.isdigit():
        shutil.copytree(place, place.with_name(f"{int(place.name) + draw.choice((1, 2, 9)):04d}"), dirs_exist_ok=True)
        return "its round is there twice"
    shutil.copyfile(path, path.with_name(f"{path.stem}-2{path.suffix}"))
    return "is there twice"


def drop_round(path, draw, aside):
    place = next((folder for folder in path.parents if folder.parent.name == "rounds"), None)
    if place is None:
        return None
    if draw.random() < 0.5:
        shutil.rmtree(place)
        return "its round is removed"
    shutil.rmtree(place / "weights")
    return WEIGHTS_GO


def link_folder(path, draw, aside):
    place = path.parent
    if not (place.name.isdigit() or place.name in ("weights", "rounds", "tokenizer")):
        return None
    place.symlink_to(shutil.move(place, aside / place.name))
    return "its folder leads elsewhere"


WAYS = (
    *(turn_bit, turn_bit, cut, cut, lengthen, remove, hold_other_text, hold_other_text, copy_other_file, exchange),
    *(make_folder, make_pipe, make_socket, make_link, make_huge, double, drop_round, link_folder),
)
"""Each as likely as it is often in there."""


def _other(path, draw, pattern):
    found = [other for other in sorted(path.parent.rglob(pattern)) if is_plain(other) and other != path]
    return draw.choice(found) if found else None


def is_plain(path):
    """Return whether a path is a regular file, and no link to one."""
    return path.is_file() and not path.is_symlink()
