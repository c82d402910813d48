"""Which extra brings a library: the table that messages are made of says what pyproject.toml and the imports say."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from documentation.rooms import library_users
from tracefl.common.imports import EXTRAS, broken_library, check_installed, missing_library
from tracefl.errors import ConfigError, LibraryError
from tracefl.records.reading import reading

PROJECT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
NEEDED_ALWAYS = {"torch", "numpy", "safetensors"}
PLUGINS = {"hydra-joblib-launcher", "hydra-submitit-launcher"}  # Hydra finds them; nothing imports them
PLUGINS_LIBRARIES = {"submitit", "joblib"}  # of which the plugins, or the sweeper alone, import these


def normal(name):
    return name.lower().replace("_", "-")


def distributions(requirements):
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def test_each_extra_brings_the_libraries_of_the_table():
    brought = packages_distributions()
    declared = PYPROJECT["optional-dependencies"]
    said = {extra: {normal(brought[library][0]) for library in libraries} for extra, libraries in EXTRAS.items()}
    assert said == {extra: distributions(declared[extra]) - PLUGINS for extra in EXTRAS}


def test_every_library_that_is_imported_is_in_the_table():
    imported = library_users(PROJECT / "tracefl").keys() - set(sys.stdlib_module_names) - {"tracefl"}
    table = {library for libraries in EXTRAS.values() for library in libraries}
    assert imported == (table | NEEDED_ALWAYS) - PLUGINS_LIBRARIES


def test_the_engine_installs_three_libraries_and_dev_installs_every_extra():
    assert distributions(PYPROJECT["dependencies"]) == NEEDED_ALWAYS
    assert f"tracefl[{','.join(EXTRAS)},docs]" in PYPROJECT["optional-dependencies"]["dev"]


def test_a_run_without_text_privacy_and_wandb_imports_none_of_their_libraries():
    hidden = [library for extra in ("text", "privacy", "wandb") for library in EXTRAS[extra]]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({hidden}))  # any import of them raises
import tracefl.client_app, tracefl.collect, tracefl.counterfactual, tracefl.ledger, tracefl.main, tracefl.replay
import tracefl.experiment.experiment, tracefl.experiment.preparation, tracefl.experiment.session, tracefl.server_app
import tracefl.questions.replay, tracefl.questions.retrace, tracefl.report.page.write, tracefl.trace, tracefl.visualize
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("hydra.core", "hydra is not installed; pip install 'tracefl[run]'"),
        ("tokenizers", "tokenizers is not installed; pip install 'tracefl[text]'"),
        ("opacus", "opacus is not installed; pip install 'tracefl[privacy]'"),
        ("safetensors.torch", "safetensors is not installed; pip install tracefl"),
        (
            "a_library_of_a_library",
            "a_library_of_a_library is not installed; pip install 'tracefl[run,text,privacy,wandb]'",
        ),
    ],
)
def test_a_missing_library_names_its_extra(missing, line, monkeypatch):
    monkeypatch.setitem(sys.modules, missing.partition(".")[0], None)
    assert missing_library(ModuleNotFoundError(name=missing)) == line


def test_a_missing_part_of_an_installed_library_is_said_as_such():
    line = missing_library(ModuleNotFoundError(name="torch.no_such_part"))
    assert line == "torch.no_such_part is not in the torch that is installed; pip install tracefl"


def test_a_missing_module_of_our_own_is_an_error_of_ours():
    with pytest.raises(ModuleNotFoundError):
        missing_library(ModuleNotFoundError(name="tracefl.nothing"))


def test_a_key_says_which_library_it_needs(monkeypatch):
    check_installed("opacus", "privacy=dp_sgd")
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(
        ConfigError, match=r"^privacy=dp_sgd needs opacus, which is not installed; pip install 'tracefl\[privacy\]'$"
    ):
        check_installed("opacus", "privacy=dp_sgd")


def test_a_packages_names_are_imported_when_they_are_used(tmp_path, monkeypatch):
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "room.py").write_text("DOOR = 1")
    (tmp_path / "house" / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\nfrom tracefl.common.imports import on_demand\n"
        "if TYPE_CHECKING:\n    from house.room import DOOR\n__getattr__ = on_demand(__name__, __file__)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    house = import_module("house")
    assert "house.room" not in sys.modules
    assert house.DOOR == 1
    assert vars(house)["DOOR"] == 1  # found at once from now on
    with pytest.raises(AttributeError, match="module 'house' has no attribute 'WINDOW'"):
        house.WINDOW  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'WINDOW'"):
        exec("from house import WINDOW")


@pytest.mark.parametrize("package", ["provenance", "learning.datasets", "learning.faults", "learning.models"])
def test_every_public_name_is_found(package):
    module = import_module(f"tracefl.{package}")
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Return the folder of a torchvision that was built for another torch."""
    place = tmp_path / "torchvision"
    place.mkdir()
    (place / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


BROKEN = (
    "torchvision is installed and cannot be imported: operator torchvision::nms does not exist; install torch and "
    "torchvision together, from one index"
)


def test_a_library_that_fails_to_import_is_no_damaged_file(broken, tmp_path):
    with pytest.raises(LibraryError, match=BROKEN), reading(tmp_path / "model.json"):
        import_module("torchvision")


def test_what_fails_elsewhere_is_no_broken_library():
    assert broken_library(RuntimeError("operator torchvision::nms does not exist")) is None
    with pytest.raises(ImportError) as caught:
        from json import no_such_name  # noqa: F401
    assert broken_library(caught.value).startswith("json is installed and cannot be imported: cannot import name")


def test_a_library_that_fails_to_import_is_one_line(broken):
    keys = ("num_rounds=1", f"log_dir={broken}", "backend=in_process")
    command = [sys.executable, "-m", "tracefl", "run", *keys]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": f"{broken}:{PROJECT}"}
    )
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (2, [f"tracefl: {BROKEN}"])
    assert "Traceback" not in done.stdout + done.stderr
