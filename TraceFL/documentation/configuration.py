"""The page of all configuration keys, generated from the comments in ``tracefl/conf``: a mkdocs hook (``on_files``).

A group's files build on one another (``defaults: [_common, _self_]``), and a file that changes a value need not repeat
the comment: that of the file it builds on then applies.
"""

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from documentation.config_files import ConfigFile, read_config_file, whole_entries
from tracefl.conf.key_text import CONF

PAGE = "configuration.md"
_INTRODUCTION = """# Configuration

{header} For example:

```bash
tracefl run model=densenet121 dirichlet_alpha=0.1 client.epochs=1
```

`tracefl run --help` prints the keys too, and `--cfg job` the whole configuration of one command. This page
is made from the comments in `tracefl/conf`. Beside a value that only some choices of a group have stand their names.
"""
_HYDRA = """## Set for Hydra

TraceFL names its runs' folders and says itself what happens; these keep Hydra from doing so.
"""


@dataclass(frozen=True)
class Row:
    """A key with one of its comments.

    Attributes:
        key: Dotted, as on the command line.
        values: Its values, each with the choices that have it: none if all do, or only the choice of that name.
        comment: The description.
    """

    key: str
    values: tuple[tuple[str, tuple[str, ...]], ...]
    comment: str


def configuration_page(conf: Path = CONF) -> str:
    """Return the page, in Markdown with tables in HTML.

    Args:
        conf: The folder of ``base.yaml`` and the groups.
    """
    base = read_config_file(conf / "base.yaml")
    rows = [Row(e.key, ((e.value, ()),), e.comment) for e in base.entries if not e.key.startswith("hydra.")]
    parts = [_INTRODUCTION.format(header=_lines(base.header)), "## Keys of a run\n", _table(rows)]
    for group, choice, comment in re.findall(r"^  - (\w+): (\w+)(?: +# (.*))?$", base.text, re.MULTILINE):
        default = "None by default." if choice == "null" else f"`{group}={choice}` is the default."
        parts.append(f"## {group}\n\n{default} {comment[:1].upper()}{comment[1:]}\n")
        parts += _group(conf / group)
    return "\n".join([*parts, _HYDRA, _yaml(base.text[base.text.index("hydra:\n") :])])


def _group(folder: Path) -> Iterator[str]:
    """Yield a group's part of the page: its choices, then its keys."""
    files = {path.stem: read_config_file(path) for path in sorted(folder.glob("*.yaml"))}
    names = [name for name in files if not name.startswith("_")]
    if "@package _global_" in files[names[0]].header:  # these set keys of other groups and are shown unchanged
        for name, file in files.items():
            yield f"### {folder.name}={name}\n" if name in names else f"### What others build on: {name}\n"
            yield _yaml(file.text)
        return
    choices = [
        f"<tr><td><code>{folder.name}={name}</code></td><td>{_lines(files[name].header)}</td></tr>" for name in names
    ]
    yield _html_table("Choice", "What", rows=choices)
    shared = [(name, file.header) for name, file in files.items() if name not in names and file.header]
    yield from (f"<small><code>{name}.yaml</code> {_lines(header)}</small>\n" for name, header in shared)
    yield _table(_rows(folder.name, names, files))


def _rows(group: str, names: Sequence[str], files: Mapping[str, ConfigFile]) -> Iterator[Row]:
    """Yield a group's keys, each once per distinct comment."""
    whole = {name: whole_entries(name, files) for name in names}
    for key in dict.fromkeys(key for entries in whole.values() for key in entries):
        having = {name: entries[key] for name, entries in whole.items() if key in entries}
        for comment in dict.fromkeys(entry.comment for entry in having.values()):
            users: dict[str, tuple[str, ...]] = {}
            for name, entry in having.items():
                if entry.comment == comment:
                    users[entry.value] = (*users.get(entry.value, ()), name)
            values = tuple((v, () if who in ((v,), tuple(names)) else who) for v, who in users.items())
            yield Row(f"{group}.{key}", values, comment)


def _table(rows: Iterable[Row]) -> str:
    lines = []
    for row in rows:
        values = [
            f"<code>{html.escape(value)}</code>" + (f" <small>{', '.join(who)}</small>" if who else "")
            for value, who in row.values
        ]
        cells = (f"<code>{row.key}</code>", "<br>".join(values), html.escape(row.comment, quote=False))
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return _html_table("Key", "Value", "What", rows=lines)


def _html_table(*head: str, rows: Sequence[str]) -> str:
    columns = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(rows)
    return f'<div class="keys"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>\n'


def _lines(header: Sequence[str]) -> str:
    return "<br>".join(html.escape(line, quote=False) for line in header)


def _yaml(text: str) -> str:
    return f"```yaml\n{text.strip()}\n```\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site."""
    files.append(File.generated(config, PAGE, content=configuration_page()))
    return files
