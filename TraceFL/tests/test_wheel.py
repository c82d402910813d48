"""The wheel and the source distribution, built as pip builds them."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import tracefl

PROJECT = Path(__file__).parents[1]
REPOSITORY = PROJECT.parent


def build(project, target, folder):
    """Build with the project's own backend, which is installed with [dev]; returns the file."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(PROJECT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_string(archive.read(name).decode())


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {str(path.relative_to(PROJECT)) for path in (PROJECT / "tracefl").rglob("*") if path.is_file()}
    expected = {name for name in there if "__pycache__" not in name}
    assert names == expected | {"hydra_plugins/tracefl_sweeper.py"}  # a namespace: an __init__.py would hide others
    assert "tracefl/py.typed" in names
    assert "tracefl/conf/base.yaml" in names


def test_the_metadata_say_what_a_reader_of_an_index_looks_for(wheel, metadata):
    assert metadata.get_payload() == (REPOSITORY / "README.md").read_text()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "The TraceFL developers"
    assert metadata["Project-URL"] == "Paper, https://arxiv.org/abs/2312.13632"
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = [archive.read(name) for name in archive.namelist() if name.endswith("/LICENSE")]
    assert licence == (REPOSITORY / "LICENSE").read_bytes()


def test_without_extras_the_engine_alone_is_required(metadata):
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {re.match(r"[\w-]+", line)[0] for line in required} == {"torch", "numpy", "safetensors"}
    assert set(metadata.get_all("Provides-Extra")) == {"run", "text", "privacy", "wandb", "dev", "docs"}


def test_the_version_is_the_same_everywhere(metadata):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert metadata["Version"] == project["version"] == tracefl.__version__


def test_a_wheel_made_of_the_source_distribution_is_the_same(wheel, tmp_path):
    source = build(PROJECT, "sdist", tmp_path / "source")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = build(unpacked, "wheel", tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert one.namelist() == other.namelist()
        assert all(one.read(name) == other.read(name) for name in one.namelist())
