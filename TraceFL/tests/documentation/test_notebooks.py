"""Notebooks as they are kept, and one that is run; the examples themselves are run in test_site.py."""

import os

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from documentation.notebooks import execute, page_of, read
from tests.helpers.configuration import REPOSITORY
from tests.helpers.processes import descendants, wait_until

NOTEBOOKS = sorted((REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))


def write(path, *cells):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    markdown, pictures = page_of(notebook, path.stem)
    assert markdown.startswith("# ")
    assert pictures == {}


def test_a_notebook_runs_in_a_folder_of_its_own_and_shows_what_it_says(tmp_path):
    path = write(tmp_path / "made.ipynb", "import os; open('left', 'w').close(); print(os.listdir())", "6 * 7")
    markdown, pictures = page_of(execute(path), "made")
    assert "['left']" in markdown
    assert "    42" in markdown
    assert pictures == {}
    assert [file.name for file in tmp_path.iterdir()] == ["made.ipynb"]


def test_a_cell_that_raises_stops_the_build_and_its_kernel(tmp_path):
    said = tmp_path / "pid"
    cell = f"import os; open({str(said)!r}, 'w').write(str(os.getpid())); raise ValueError('no such thing')"
    with pytest.raises(CellExecutionError, match="no such thing"):
        execute(write(tmp_path / "made.ipynb", cell))
    kernel = int(said.read_text())
    wait_until(lambda: kernel not in descendants(os.getpid()))  # which takes a moment to go
