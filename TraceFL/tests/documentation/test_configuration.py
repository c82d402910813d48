import html
import re
from html.parser import HTMLParser

import pytest
import yaml
from omegaconf import OmegaConf

from documentation.config_files import read_config_file, whole_entries
from documentation.configuration import configuration_page
from tests.helpers.configuration import compose_config
from tracefl.conf.key_text import CONF, choices

FILES = sorted(CONF.rglob("*.yaml"))


@pytest.fixture(scope="module")
def page():
    return configuration_page()


class Table(HTMLParser):
    """The rows of a page's tables, as lists of text."""

    def __init__(self, page):
        super().__init__()
        self.rows = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def flat(node, prefix=""):
    """Return every key of a mapping, dotted, with its value."""
    found = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def comments_of(text):
    """Return every comment, a line a piece, without the parser that made the page."""
    return [found.strip() for found in re.findall(r"(?:^|\s)#\s?(.*)", text) if found.strip() != "@package _global_"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_key_and_every_comment_of_a_file_is_on_the_page(path, page):
    text = path.read_text()
    shown = re.sub(r"\s+", " ", html.unescape(re.sub(r"</?(?:td|tr|br|code|small)>", " ", page))).casefold()
    for comment in comments_of(text):
        assert re.sub(r"\s+", " ", comment).casefold() in shown, comment
    keys = yaml.safe_load(text)
    group = "" if path.parent == CONF else f"{path.parent.name}."
    is_global = text.startswith("# @package _global_")
    for key in flat({k: v for k, v in keys.items() if k not in ("defaults", "hydra")}):
        assert text.strip() in page if is_global else f"<code>{group}{key}</code>" in page, key
    if "hydra" in keys and not is_global:
        assert "  run: {dir: .}" in page


def test_a_key_stands_beside_its_value_and_its_comment(page):
    rows = Table(page).rows
    assert ["clients_per_round", "4", "clients sampled a round, 1 to num_clients"] in rows
    assert ["client.epochs", "2", "passes over a client's examples in a round, at least 1"] in rows
    assert ["privacy.clipping_norm", "15.0 central", CLIPPING] in rows
    assert ["privacy.clipping_norm", "null central_adaptive, dp_sgd, none", "not used"] in rows
    decay = next(row for row in rows if row[0] == "provenance.layer_decay" and "removal" in row[1])
    assert "0.9 artifact, paper" in decay[1]  # without a comment of its own: that of removal.yaml
    assert decay[2] == "factor in (0, 1] for each layer further from the output"


CLIPPING = "largest L2 norm of a client's update, trainable parameters alone, above 0"


def test_every_key_but_hydras_has_a_comment(page):
    for row in Table(page).rows:
        assert len(row) < 3 or row[2] or row[0].endswith((".name", ".source", ".kind", ".family", ".architecture")), row


@pytest.mark.parametrize("group", ["provenance", "privacy", "fault", "store", "strategy", "baselines", "mitigate"])
def test_entries_are_what_the_configuration_composes(group):
    files = {path.stem: read_config_file(path) for path in (CONF / group).glob("*.yaml")}
    for choice in choices(group):
        composed = compose_config(f"{group}={choice}")[group]
        entries = whole_entries(choice, files)
        assert {key: yaml.safe_load(entry.value) for key, entry in entries.items()} == OmegaConf.to_container(composed)


def test_a_comment_may_go_on_below_and_a_list_stand_below_its_key(tmp_path):
    (tmp_path / "made.yaml").write_text(
        "# First line\n# second.\ndefaults: [_common, _self_]\n"
        "names:    # of the\n          # classes\n  - a b\n  - c\n"
        "sizes: {n: [1, 2]}  # a | b # and c\nplain: 1\nmore:\n  deep: ???   # needed\n"
    )
    file = read_config_file(tmp_path / "made.yaml")
    assert file.header == ("First line", "second.")
    assert file.parents == ("_common",)
    assert [(e.key, e.value, e.comment) for e in file.entries] == [
        ("names", "[a b, c]", "of the classes"),
        ("sizes", "{n: [1, 2]}", "a | b # and c"),
        ("plain", "1", ""),
        ("more.deep", "???", "needed"),
    ]
