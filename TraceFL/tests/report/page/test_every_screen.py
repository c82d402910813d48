"""The page on a phone and on a wide screen, in light and dark, of a small run and of one with a hundred clients."""

import importlib.util
import os
from pathlib import Path

import pytest

from tests.helpers.made_page import FAULT, make_hundred_clients, make_run, result, suspects_row, traced_input
from tracefl.report.page import write_page

pytestmark = pytest.mark.slow

# What is wider than its card, or than the view. What a box scrolls may be: the box itself may not.
LEAVES_ITS_CARD = """
const view = document.documentElement.clientWidth;
const found = document.documentElement.scrollWidth > view ? ['the page is wider than its view'] : [];
for (const element of document.querySelectorAll('body *')) {
  const isScrolled = element.parentElement.closest('.scroll, pre, blockquote');
  const box = element.getBoundingClientRect();
  if (isScrolled || element.closest('.unseen') || element.ownerSVGElement || !box.width) continue;
  const card = element.closest('section');
  const right = card && card !== element ? card.getBoundingClientRect().right : view;
  const isCut = getComputedStyle(element).overflowX === 'visible' && element.scrollWidth > element.clientWidth + 1;
  if (box.right > right + 0.5 || box.left < -0.5 || (isCut && element.clientWidth))
    found.push(`${element.outerHTML.slice(0, 80)}: ${box.left} to ${box.right} of ${right}, ${element.scrollWidth}`);
}
return found;
"""
VIOLATIONS = """
const done = arguments[arguments.length - 1];
const words = (each) => `${each.id}: ${each.nodes.map((node) => node.html)}`;
axe.run({resultTypes: ['violations']}).then((all) => done(all.violations.map(words)), (error) => done([`${error}`]));
"""


@pytest.fixture(scope="module", params=["small", "hundred"])
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "hundred":
        return write_page(make_hundred_clients(folder))
    exact = {"effects": (("0", 0.5), ("2", -0.25), ("3", 0.0)), "probability": 0.75}
    traced = (traced_input(0, 1, predicted=0, expected=("2",), **exact), traced_input(1, 1, **exact))
    rounds = [result(1, traced, [suspects_row(1)], dropped={"1": "it failed"}), result(2, traced[:1]), result(3)]
    run = make_run(folder, rounds, "fault=label_flip", "fault.clients=[2]", "baselines=fast", fault=FAULT)
    (run / "rounds" / "0002" / "weights").mkdir()  # kept, so that its inputs have a command
    (run / "rounds" / "0003" / "SHA256SUMS").unlink()  # so that the page says what it lacks
    return write_page(run)


@pytest.fixture(scope="module")
def axe():
    """Axe, which finds what keeps readers with disabilities from a page."""
    found = importlib.util.find_spec("selenium_axe_python")
    if found is None:
        message = "no selenium-axe-python here: install the extra dev"
        if os.environ.get("TRACEFL_REQUIRE_CHROMIUM") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return (Path(found.origin).parent / "axe-core" / "axe.min.js").read_text()


@pytest.fixture
def screen(browser):
    yield browser
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.colours("light")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_leaves_its_card(screen, written, width):
    screen.resize(width)
    for after in ("", "#client-2", "#inputs?sort=round"):
        screen.open(written, after)
        screen.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        screen.wait("document.querySelector('.scores') !== null")
        assert screen.run(LEAVES_ITS_CARD) == []
        assert screen.complaints() == []


def test_on_a_phone_a_row_can_be_told_while_its_numbers_are_scrolled(screen, written):
    screen.resize(390)
    screen.open(written)
    places = screen.run(
        "return [...document.querySelectorAll('.scroll > .numbers')].map((table) => {"
        " table.parentElement.scrollLeft = 9999;"
        " const left = (each) => each.getBoundingClientRect().left;"
        " return [left(table.parentElement), left(table), ...[...table.rows].map((row) => left(row.cells[0]))] })"
    )
    assert len(places) >= 3
    assert any(table < box for box, table, *_ in places)  # some are wider than the phone
    assert all(round(cell - box) == 0 for box, _, *cells in places for cell in cells)
    height = "return document.querySelector(arguments[0]).offsetHeight"
    assert screen.run(height, "[data-sort=client]") < 25  # one line: its arrow stands beside its word
    assert screen.run(height, "#client-table thead") < 75  # three lines


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_axe_finds_nothing(screen, written, axe, scheme, width):
    screen.resize(width)
    screen.colours(scheme)
    screen.open(written, "#client-2")
    screen.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    screen.wait("document.querySelector('.scores') !== null")
    screen.driver.set_script_timeout(600)  # half a minute of a busy CPU where there are a hundred clients
    screen.run(axe)
    assert screen.driver.execute_async_script(VIOLATIONS) == []


def test_what_is_asked_for_by_keyboard(screen, written):
    """Every control can be reached by Tab alone, and says what it is."""
    screen.open(written, "#client-2")
    silent = screen.run(
        "return [...document.querySelectorAll('a, button, select, input, summary')].filter((each) => each.tabIndex < 0"
        " || !(each.textContent || each.getAttribute('aria-label') || each.closest('label')?.textContent).trim())"
        ".map((each) => each.outerHTML)"
    )
    assert silent == []


def test_a_hundred_clients_are_quick_and_no_more_than_megabytes(tmp_path, browser, record_property):
    path = write_page(make_hundred_clients(tmp_path))
    assert path.stat().st_size < 2_000_000
    browser.open(path)
    assert browser.run("return document.querySelectorAll('*').length") < 9000
    assert browser.text("#clients-count") == ["100 of 100 clients"]
    assert browser.run("return document.querySelectorAll('.heat tbody tr').length") == 100
    browser.run("document.querySelector('#client-table button[data-sort=wrong]').click()")
    carried = browser.run(
        "return [...document.querySelectorAll('#client-table tbody tr')].map((row) => row.cells[7].dataset.value)"
    )
    counts = [int(count) for count in carried if count]  # those that took part in no round come last
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 0
    assert set(carried[len(counts) :]) <= {""}


def test_signed_contributions_have_both_colours(tmp_path, browser):
    browser.open(write_page(make_hundred_clients(tmp_path)))
    colours = browser.run(
        "return [...document.querySelectorAll('td.contributed:not(.none)')].map((cell) =>"
        " [cell.textContent, cell.classList.contains('against'), getComputedStyle(cell).backgroundColor])"
    )
    against = {colour for text, is_against, colour in colours if is_against and text.startswith("\N{MINUS SIGN}")}
    speaking = {colour for text, is_against, colour in colours if not is_against and text.startswith("+")}
    assert len(against) > 20
    assert len(speaking) > 20
    assert not against & speaking
    assert all(is_against == text.startswith("\N{MINUS SIGN}") for text, is_against, _ in colours if text != "0")
    assert browser.text("#classes .legend")[0].count("logits") == 1
