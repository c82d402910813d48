"""Imports that take seconds, and libraries that are not installed."""

import ast
import gc
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tracefl.errors import ConfigError, TraceFLError, one_line

EXTRAS = {
    "run": (
        *("flwr", "flwr_datasets", "ray", "torchvision", "datasets", "pyarrow", "huggingface_hub", "httpx", "medmnist"),
        *(
            "sklearn",
            "hydra",
            "omegaconf",
            "yaml",
            "pydantic",
            "typing_extensions",
            "submitit",
            "joblib",
            "cryptography",
            "psutil",
            "pandas",
            "matplotlib",
            "PIL",
            "rich",
            "jinja2",
            "markupsafe",
        ),
    ),
    "text": ("transformers", "tokenizers"),
    "privacy": ("opacus",),
    "wandb": ("wandb",),
}
"""The extras of a user, and the libraries that each brings, as they are imported."""

_OURS = ("tracefl", "hydra_plugins", "__main__", "")
_PAIR = ("torch", "torchvision")  # built for one another
_NEEDED_ALWAYS = ("torch", "numpy", "safetensors")


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Pause the garbage collector: imports make millions of objects that stay, and it would visit each again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def on_demand(package: str, file: str) -> Callable[[str], Any]:
    """Return a package's ``__getattr__``, which imports its names when they are first used.

    Args:
        package: The package's ``__name__``.
        file: Its ``__file__``, where each name is imported under ``TYPE_CHECKING``, for the readers of types.
    """
    places: dict[str, str] = {}

    def __getattr__(name: str) -> Any:  # noqa: N807 - becomes the package's
        if not places and not name.startswith("__"):
            tree = ast.parse(Path(file).read_text(encoding="utf-8"))
            froms = [node for block in tree.body if isinstance(block, ast.If) for node in block.body]
            found = [node for node in froms if isinstance(node, ast.ImportFrom)]
            # At once: another thread may look meanwhile.
            places.update({alias.name: node.module for node in found if node.module for alias in node.names})
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(places[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__


def missing_library(error: ModuleNotFoundError) -> str:
    """Return in one line which library is missing and what installs it; raises the error again where it is our own."""
    name = (error.name or "").partition(".")[0]
    if name in ("", "tracefl"):
        raise error
    if _is_there(name):  # the library is, and lacks a part
        return f"{error.name} is not in the {name} that is installed; {_how_to_install(name)}"
    return f"{name} is not installed; {_how_to_install(name)}"


def broken_library(error: BaseException) -> str | None:
    """Return in one line which installed library failed when it was imported, and why; None where none did.

    Args:
        error: What was raised: by the library's own code as it is imported, or by an import from it.
    """
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    modules = [str(frame.f_globals.get("__name__")) for frame in frames if frame.f_code.co_name == "<module>"]
    if isinstance(error, ImportError):  # also of a name that the library lacks
        modules.append(error.name or "")
    libraries = [module.partition(".")[0] for module in modules]
    name = next((library for library in libraries if library not in _OURS), None)
    if name is None or isinstance(error, TraceFLError):
        return None
    again = "install torch and torchvision together, from one index" if name in _PAIR else "install it again"
    return f"{name} is installed and cannot be imported: {one_line(error).rstrip('.')}; {again}"


def check_installed(library: str, needed_by: str) -> None:
    """Check that a library can be imported, without importing it.

    Args:
        library: As it is imported.
        needed_by: The key that needs it, such as ``"privacy=dp_sgd"``.

    Raises:
        ConfigError: It is not installed.
    """
    if not _is_there(library):
        raise ConfigError(f"{needed_by} needs {library}, which is not installed; {_how_to_install(library)}")


def imported(module: str, needed_by: str) -> Any:
    """Return a module of a library that not everybody has installed.

    Args:
        module: Such as ``"matplotlib.pyplot"``.
        needed_by: What needs it, such as ``"plot()"``.

    Raises:
        ConfigError: It is not installed.
    """
    check_installed(module.partition(".")[0], needed_by)
    return import_module(module)


def _is_there(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ValueError:  # imported, and without a specification, as a module made by hand is
        return True


def _how_to_install(library: str) -> str:
    if library in _NEEDED_ALWAYS:
        return "pip install tracefl"
    extras = [extra for extra, libraries in EXTRAS.items() if library in libraries]
    return f"pip install 'tracefl[{','.join(extras or EXTRAS)}]'"  # all of them for what a library of ours needs
