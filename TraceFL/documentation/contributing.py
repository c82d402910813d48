"""The page on contributing is the repository's CONTRIBUTING.md: a hook of mkdocs (``on_files``)."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGE = "contributing.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site, its links relative to the other pages."""
    text = Path(config.config_file_path).with_name("CONTRIBUTING.md").read_text()
    files.append(File.generated(config, PAGE, content=text.replace("](docs/", "](")))
    return files
