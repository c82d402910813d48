"""The example notebooks as pages: run once, while the site is built, and shown with their outputs.

A hook of mkdocs (``on_startup``, ``on_files``). Notebooks are kept without outputs, so that no output is older than the
code. ``mkdocs serve`` shows them as they are, without running them.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode
from traitlets.config import Config

_SECONDS = 900  # per cell: generous, to catch only what hangs, because a busy machine takes minutes instead of seconds
EXECUTED = "executed"
"""Folder, beside the pages, of the notebooks with their outputs."""

_run_them = True


class NotebookPage(File):
    """A notebook's page: Markdown in place of the notebook, at the notebook's own address."""

    def is_documentation_page(self) -> bool:
        """Return True, which mkdocs itself does only for .md files."""
        return True


def read(path: Path) -> NotebookNode:
    """Return a notebook as it is."""
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def execute(path: Path) -> NotebookNode:
    """Run a notebook in an empty folder, and return it with its outputs.

    Raises:
        CellExecutionError: A cell raised.
    """
    notebook = read(path)
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as sockets:
        config = Config({"AsyncKernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})  # no open ports
        resources = {"metadata": {"path": place}}
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # so that rounding does not depend on the number of cores
        NotebookClient(notebook, config=config, timeout=_SECONDS, resources=resources).execute(env=environment)
    return notebook


def page_of(notebook: NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and its pictures by the paths used in the Markdown."""
    resources = {"unique_key": name, "output_files_dir": f"{name}_files"}
    exporter = MarkdownExporter()  # type: ignore[no-untyped-call]
    markdown, found = exporter.from_notebook_node(notebook, resources=resources)
    return markdown, found["outputs"]


def on_startup(command: str, **_: Any) -> None:
    """Remember whether the site is built or only previewed."""
    global _run_them
    _run_them = command != "serve"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the notebooks by pages, with their pictures and the executed notebooks beside them."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        assert file.abs_src_path is not None
        path, folder = Path(file.abs_src_path), Path(file.src_uri).parent
        notebook = execute(path) if _run_them else read(path)
        markdown, pictures = page_of(notebook, path.stem)
        markdown += f"\n[This notebook]({EXECUTED}/{path.name}), as it was run for this page.\n"
        beside: dict[str, str | bytes] = {**pictures}
        beside[f"{EXECUTED}/{path.name}"] = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
        files.remove(file)
        files.append(NotebookPage.generated(config, file.src_uri, content=markdown))
        for name, content in beside.items():
            files.append(File.generated(config, str(folder / name), content=content))
    return files
