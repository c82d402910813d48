import subprocess
import sys

import pytest

from tracefl.errors import ConfigError
from tracefl.learning.datasets import load_source, source_names


def test_sources_are_registered():
    assert source_names() == ("digits", "hub", "medmnist", "synthetic_text")


def test_unknown_source_names_near_matches(make_settings):
    with pytest.raises(ConfigError, match=r"dataset\.source is 'digit', .*did you mean 'digits'\?"):
        load_source(make_settings(source="digit"), seed=0)


def test_import_is_light():
    # What only one source needs, or another part of the project, is not loaded with the package.
    heavy = ("flwr", "hydra", "omegaconf", "ray", "datasets", "flwr_datasets", "medmnist", "sklearn", "transformers")
    code = f"import sys, tracefl.learning.datasets; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
