"""The whole site, built as ``make docs`` does: this is where the notebooks are run, once."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import urlsplit

import nbformat
import pytest

from documentation.notebooks import EXECUTED
from tests.helpers.configuration import REPOSITORY
from tests.helpers.processes import PATIENCE

LINKS = "return [...document.querySelectorAll('.md-search-result__link')].map((link) => link.href)"
#: The least room, in em, between the parts of sums and fractions, whose contents are drawn a little beyond their boxes.
LEAST_ROOM = """
const room = (above, below) => {
  const [over, under] = [above, below].map((part) => [part.getBoundingClientRect(), getComputedStyle(part)])
  const between = under[0].top + parseFloat(under[1].paddingTop) - (over[0].bottom - parseFloat(over[1].paddingBottom))
  return between / parseFloat(getComputedStyle(above.parentElement).fontSize)
}
const all = (name) => [...document.querySelectorAll(`article ${name}`)].map((parts) => [...parts.children])
return Math.min(
  ...all("munderover").flatMap(([sign, below, above]) => [room(above, sign), room(sign, below)]),
  ...all("munder").map(([sign, below]) => room(sign, below)),
  ...all("mfrac").map(([above, below]) => room(above, below)),
)
"""


class Loaded(HTMLParser):
    """What a page loads by itself: scripts, styles, pictures, fonts."""

    def __init__(self, page):
        super().__init__()
        self.addresses = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.addresses.append(attrs.get("src") or "")
        elif tag == "link" and attrs.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(attrs.get("href") or "")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site's folder, and what mkdocs said."""
    site = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "TraceFL"), "NO_COLOR": "1", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=3 * PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return site, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(built):
    return built[0]


def outputs(site, name):
    """Return all that a notebook printed, and how many of its outputs are pictures."""
    notebook = nbformat.read(site / "notebooks" / EXECUTED / f"{name}.ipynb", as_version=4)
    found = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") + "\n" for output in found)
    return said, sum("image/png" in output.get("data", {}) for output in found)


pytestmark = [pytest.mark.slow, pytest.mark.simulation]


def test_mkdocs_has_nothing_to_warn_of(built):
    assert not re.search(r"WARNING|ERROR|Traceback", built[1]), built[1]


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    names = {str(page.relative_to(site)) for page in pages}
    assert {"index.html", "method.html", "configuration.html", "extending.html", "api/provenance.html"} <= names
    for page in pages:
        text = page.read_text()
        for address in Loaded(text).addresses:
            parts = urlsplit(address)
            assert not parts.scheme or parts.scheme == "data", (page.name, address)
            assert not parts.netloc, (page.name, address)
    styles = "".join(sheet.read_text() for sheet in site.rglob("*.css"))
    assert not re.search(r"(@import|url\()[\"']?(https?:)?//", styles)


def test_formulas_and_interfaces_are_on_their_pages(site):
    assert (site / "method.html").read_text().count("<math") > 20
    interface = (site / "api" / "provenance.html").read_text()
    for name in ("attribute", "RoundRecord", "explain", "removal_effects"):
        assert f'id="tracefl.provenance.{name}"' in interface


@pytest.mark.parametrize("page", ["index.html", "evidence/speed.html"])
def test_the_search_works_in_a_page_that_was_opened_as_a_file(site, browser, page):
    browser.open(site / page)
    browser.run("document.querySelector('.md-search__input').focus()")
    browser.driver.find_element("css selector", ".md-search__input").send_keys("mitigate")
    browser.wait("document.querySelectorAll('.md-search-result__link').length > 0")
    assert any("mitigation.html" in link for link in browser.run(LINKS))


@pytest.mark.parametrize("page", ["method.html", "counterfactual.html", "replay.html"])
def test_no_part_of_a_formula_lies_on_another(site, browser, page):
    browser.open(site / page)
    assert 0.15 < browser.run(LEAST_ROOM) < 1


def test_no_page_is_wider_than_a_phone(site, browser):
    browser.resize(390)
    for page in sorted(site.rglob("*.html")):
        browser.open(page)
        assert browser.run("return document.documentElement.scrollWidth") <= 390, page.name
    browser.resize(1200)


def test_one_run_from_start_to_report(site):
    said, pictures = outputs(site, "one_run")
    assert pictures == 3
    assert "round 3 of 3: accuracy" in said
    assert "\x1b" not in said  # no colours and bars of a terminal
    assert "Warning" not in said
    assert re.search(r"^ +3 +\d+\.\d% +\d+\.\d% \(\d+\.\d%\)", said, re.MULTILINE)  # localization (chance)
    page = (site / "notebooks" / "one_run.html").read_text()
    assert "exact removal" in page
    assert (site / "notebooks" / "one_run_files").is_dir()


def test_the_faulty_client_is_found_and_removing_it_helps(site):
    said, pictures = outputs(site, "faulty_client")
    assert pictures == 1
    assert "suspected: client 5; faulty: client 5" in said
    assert "Warning" not in said
    before, after = re.search(r"with everybody ([\d.]+)%, without client 5 ([\d.]+)%", said).groups()
    assert float(after) > float(before)
