"""Build hooks: the readme lies one folder above this one in a checkout, and beside this file in a source distribution.

Hatchling itself reads a readme only from the project's own folder.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


def readme(root: str) -> Path:
    """Return the readme's place; raises FileNotFoundError where there is none."""
    here = Path(root)
    for path in (here / "README.md", here.parent / "README.md"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"no README.md in {here} or the folder above; build tracefl from a whole checkout")


class Readme(MetadataHookInterface):
    """Gives the distribution its description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the readme's text."""
        metadata["readme"] = {"content-type": "text/markdown", "text": readme(self.root).read_text(encoding="utf-8")}


class SourceReadme(BuildHookInterface[Any]):
    """Puts the readme into the source distribution."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file."""
        del version
        build_data["force_include"][str(readme(self.root))] = "README.md"
