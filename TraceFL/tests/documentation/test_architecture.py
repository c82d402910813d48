"""The pages name files, classes and functions that exist, and the page on the architecture names every room."""

import ast
import re

import pytest

from documentation.rooms import FLOORS, library_users
from tests.helpers.configuration import REPOSITORY
from tracefl.records.tables import PROVENANCE_COLUMNS, ROUND_COLUMNS

PROJECT = REPOSITORY / "TraceFL"
DOCS = REPOSITORY / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "README.md"]
ARCHITECTURE = DOCS / "architecture.md"
FOLDERS = "tracefl|tests|benchmarks|documentation|hydra_plugins"
NAMES_OF_LIBRARIES = {
    "flwr": "Flower",
    "ray": "Ray",
    "hydra": "Hydra",
    "omegaconf": "OmegaConf",
    "rich": "rich",
    "matplotlib": "matplotlib",
    "jinja2": "Jinja",
    "PIL": "Pillow",
    "wandb": "W&B",
    "safetensors": "safetensors",
}
GENERATED = {"configuration.md", "contributing.md"}  # pages that documentation/ makes
PLACEHOLDER = re.compile(r"[A-Z]{3,}")  # NAME in what a reader is to write


def ids(path):
    return str(path.relative_to(REPOSITORY))


def named_paths(page):
    """Every path in the page: ``tracefl/main.py``, ``tests/paper/``."""
    return re.findall(rf"(?<![\w./-])(?:TraceFL/)?((?:{FOLDERS})/[\w./*-]*[\w/])", page)


def defined(path):
    """What a file defines, methods and fields as ``Class.name``."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    names.add(f"{node.name}.{member.name}")
                if isinstance(member, ast.AnnAssign):
                    names.add(f"{node.name}.{member.target.id}")
    return names


def is_there(dotted):
    """Whether a dotted name is a module, what one defines, or what a package takes over in its ``__init__.py``."""
    place, names = PROJECT, dotted.split(".")
    while names and (place / names[0]).is_dir():
        place /= names.pop(0)
    if names and (place / f"{names[0]}.py").is_file():
        file = place / f"{names.pop(0)}.py"
        return not names or ".".join(names) in defined(file)
    tree = ast.parse((place / "__init__.py").read_text())  # also what it imports under TYPE_CHECKING, and on demand
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return not names or names[0] in {alias.name for node in imports for alias in node.names} | defined(
        place / "__init__.py"
    )


def named_objects(page):
    """Every ```name` in `tracefl/file.py```, also ``name` and `name` in ...``, as (name, file)."""
    found = re.findall(rf"((?:`[\w.]+`(?:, | and ))*`[\w.]+`)\s+in\s+`((?:{FOLDERS})/[\w/]+\.py)`", page)
    return [(name, path) for names, path in found for name in re.findall(r"`([\w.]+)`", names)]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_path_exists(page):
    for path in named_paths(page.read_text()):
        if PLACEHOLDER.search(path):
            path = path[: PLACEHOLDER.search(path).start()].rpartition("/")[0]  # the folder that it goes into
        assert list(PROJECT.glob(path.rstrip("/"))), path


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_class_and_function_is_in_the_file_that_is_named_with_it(page):
    for name, path in named_objects(page.read_text()):
        assert name in defined(PROJECT / path), f"{name} in {path}"


@pytest.mark.parametrize("page", [*PAGES, *sorted((DOCS / "notebooks").glob("*.ipynb"))], ids=ids)
def test_every_dotted_name_is_there(page):
    text = page.read_text()
    imported = re.findall(r"from (tracefl[\w.]*) import (\w+(?:, \w+)*)", text)
    names = {f"{module}.{name}" for module, found in imported for name in found.split(", ")}
    names |= set(re.findall(r"(?<![\w/.-])tracefl(?:\.\w+)+", text))
    assert {name for name in names if not is_there(name)} == set()


def anchors(page):
    """What a link may lead to within a page, as GitHub and mkdocs both name its headings."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "CHANGELOG.md"], ids=ids)
def test_every_link_and_picture_leads_to_a_file_and_every_anchor_to_a_heading(page):
    text = page.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text) + re.findall(r'<img src="([^"]+)"', text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if page.is_relative_to(DOCS) and target.parent == DOCS and target.name in GENERATED:
            continue  # mkdocs checks these; beside the site, on GitHub, they are not there
        assert target.is_file(), link
        assert not anchor or anchor.startswith("tracefl.") or anchor in anchors(target), link


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 200


def test_the_architecture_names_what_it_explains():
    assert len(named_objects(ARCHITECTURE.read_text())) >= 40


def test_every_name_on_top_of_the_package_is_explained():
    page = ARCHITECTURE.read_text()
    top = (PROJECT / "tracefl").iterdir()
    names = [f"{path.name}/" if path.is_dir() else path.name for path in top if not path.name.startswith("__")]
    assert [name for name in names if f"`tracefl/{name}`" not in page] == []


def test_the_drawing_is_the_order_that_is_tested():
    drawn = re.search(r"(?:^    \S.*\n)*^    jobs\n(?:^    \S.*\n)*", ARCHITECTURE.read_text(), re.MULTILINE).group()
    assert [set(line.split()) for line in drawn.splitlines()] == [set(floor) for floor in FLOORS]


def test_each_room_imports_the_libraries_that_are_named_for_it():
    rows = re.findall(r"^\| `tracefl/(\w+)/` \|.*\| (.*) \|$", ARCHITECTURE.read_text(), re.MULTILINE)
    assert len(rows) == 11
    users = library_users(PROJECT / "tracefl")
    for room, cell in rows:
        named = {library for library, name in NAMES_OF_LIBRARIES.items() if name in cell}
        used = {library for library in NAMES_OF_LIBRARIES if room in users[library]}
        assert named <= used if cell.endswith("...") else named == used, room


@pytest.mark.parametrize("page", [ARCHITECTURE, DOCS / "extending.md"], ids=ids)
def test_every_class_method_and_constant_is_in_the_package(page):
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    folders = ("tracefl", "documentation", "tests/provenance")
    known = {name for folder in folders for path in (PROJECT / folder).rglob("*.py") for name in defined(path)}
    named = set(re.findall(r"`([A-Z]\w+(?:\.\w+)?|[a-z]+(?:_[a-z]+)+)(?:\(\w*\))?`", text))
    others = {*PROVENANCE_COLUMNS, *ROUND_COLUMNS, "log_dir", "without_from", "NAME", "SHA256SUMS"}
    assert named - known - others == set()


def test_every_class_of_a_round_is_explained():
    page = ARCHITECTURE.read_text()
    classes = {
        name
        for path in (PROJECT / "tracefl").rglob("*.py")
        for name in defined(path)
        if re.fullmatch(r"(\w+ed)?Round(Record|Outcome|Trace|Result)?", name) and not name.startswith("_")
    }
    assert classes == set(re.findall(r"^\| `(\w*Round\w*)` in ", page, re.MULTILINE))
