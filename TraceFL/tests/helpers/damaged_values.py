"""Ways to change one value in a file of a run's folder, as somebody does who knows its format; see ``damage``."""

import json

import yaml
from safetensors.torch import load_file, save_file

_WORDS = (
    *("", "x", "-1", "nan", "a" * 100_000, "\x1b[31mred\x07", "\u202ereversed", "\x00", "\ud800", "two\nlines", "\r"),
    *("=1+1", "@SUM(A1)", "../../../etc/passwd", "/etc/passwd", "${oc.env:HOME}", "${seed}"),
    *("<script>alert(1)</script>", "[red]", "$\\frac$"),
)
_NUMBERS = (
    *(0, 1, -1, 7, 0.5, -0.0, 1.5, 1e308, 2**31, 2**63, -(2**63), 10**400),
    *(float("nan"), float("inf"), -float("inf")),
)
VALUES = (None, True, False, *_NUMBERS, *_WORDS, [], {}, [[]], [None], {"a": {}}, {"": 1})
"""What takes the place of a value; JSON writes some of them in words that it does not have."""

_CELLS = ("", "x", "-1", "nan", "inf", "1e400", "7", "=1+1", "\x1b[31m", '"', "9" * 5000)


def change_json(path, draw, aside):
    content = json.loads(path.read_text())
    said = _change(content, draw)
    return _write(path, said, lambda: json.dumps(content).encode(errors="surrogatepass"))


def change_yaml(path, draw, aside):
    content = yaml.safe_load(path.read_text())
    said = _change(content, draw)
    form = {"allow_unicode": draw.random() < 0.5, "sort_keys": False}
    return _write(path, said, lambda: yaml.safe_dump(content, **form).encode(errors="surrogatepass"))


def change_cell(path, draw, aside):
    """Change one cell or line of a table."""
    lines = path.read_text().splitlines()
    number = draw.randrange(len(lines))
    cells = lines[number].split(",")
    column = draw.randrange(len(cells))
    action = draw.choice(("set", "set", "drop", "line", "again"))
    if action == "line":
        del lines[number]
    elif action == "again":
        lines.insert(number, lines[number])
    else:
        cells[column : column + 1] = [draw.choice(_CELLS)] if action == "set" else []
        lines[number] = ",".join(cells)
    path.write_text("".join(f"{line}\n" for line in lines))
    return f"line {number}, cell {column}: {action}"


def change_checksums(path, draw, aside):
    """Drop or double one of the lines, or exchange what two of them say."""
    lines = path.read_text().splitlines()
    one, other = (draw.randrange(len(lines)) for _ in range(2))
    action = draw.choice(("dropped", "doubled", "exchanged"))
    if action == "dropped":
        del lines[one]
    elif action == "doubled":
        lines.insert(other, lines[one])
    else:
        a, b = lines[one], lines[other]
        lines[one], lines[other] = b[:64] + a[64:], a[:64] + b[64:]
    path.write_text("".join(f"{line}\n" for line in lines))
    return f"line {one} is {action}" + (f" with {other}" if action == "exchanged" else "")


def change_tensor(path, draw, aside):
    """Change one tensor and write the file again, as a library would."""
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    name = draw.choice(sorted(name for name, tensor in tensors.items() if tensor.numel()))
    tensor = tensors.pop(name)
    flat = tensor.reshape(-1)
    actions = {
        "one": lambda: _with(flat, draw, flat.new_tensor(1)),
        "double": tensor.double,
        "flat": flat.clone,
        "less": flat[:-1].clone,
        "int": tensor.nan_to_num().clamp(-100, 100).char,
        "zero": tensor.zero_,
        "renamed": tensor.clone,
        "gone": None,
    }
    if tensor.is_floating_point():
        for word in ("nan", "inf", "1e30"):
            actions[word] = lambda word=word: _with(flat, draw, float(word))
    action = draw.choice(sorted(actions))
    if action != "gone":
        changed = actions[action]()
        tensors[f"{name}.x" if action == "renamed" else name] = (
            changed if action in ("flat", "less") else changed.reshape(tensor.shape)
        )
    save_file(tensors, path)
    return f"{name}: {action}"


def change_header(path, draw, aside):
    """Change what a safetensors file says of its tensors, and leave the numbers."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    said = _change(header, draw)

    def whole():
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return _write(path, f"header {said}", whole)


def _with(flat, draw, value):
    flat[draw.randrange(len(flat))] = value
    return flat


def _write(path, said, make):
    try:
        data = make()
    except (UnicodeError, ValueError):  # such as a lone surrogate, which the format cannot hold
        return None
    path.write_bytes(data)
    return said


def _change(content, draw):
    """Change one place of a structure; return what was done in words."""
    *way, key = draw.choice(list(_places(content)))
    holder = content
    for step in way:
        holder = holder[step]
    shown = f"[{']['.join(map(str, (*way, key)))}]"
    action = draw.choice(("set", "set", "set", "set", "near", "near", "near", "drop", "add"))
    if action == "near" and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = draw.choice((holder[key] + 1, holder[key] * 10, -holder[key], holder[key] / 3, str(holder[key])))
    elif action == "drop":
        del holder[key]
        return f"{shown} is dropped"
    elif action == "add" and isinstance(holder, dict):
        holder[draw.choice(("auto_map", "_target_", "new", "\x1b[1m"))] = draw.choice(VALUES)
        return f"a key beside {shown}"
    else:
        holder[key] = draw.choice(VALUES)
    return f"{shown} becomes {str(holder[key])[:30]!r}"


def _places(content, way=()):
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*way, key)
        yield from _places(value, (*way, key))
