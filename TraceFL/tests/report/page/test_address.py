"""The page's address: filters, orders and clients in it, restored at load and by the back button."""

import shlex

import pytest

from tests.helpers.made_page import FAULT, make_run, result, traced_input
from tracefl.report.page import write_page

pytestmark = pytest.mark.slow

INPUTS = (
    traced_input(0, 0, probability=0.9, effects=(("0", 0.5), ("2", 0.25), ("3", -0.125))),
    traced_input(1, 1, scores={"2": 0.5, "3": 0.3, "0": 0.2}, probability=0.4),
    traced_input(2, 2, predicted=1, scores={"2": 0.7, "0": 0.2, "3": 0.1}, probability=0.6),
)


@pytest.fixture
def written(tmp_path):
    rounds = [result(1, INPUTS), result(2, INPUTS[:2])]
    return write_page(make_run(tmp_path, rounds, "fault=label_flip", "fault.clients=[2]", fault=FAULT))


def shown(browser):
    return [text.split(" ⚑")[0] for text in browser.text("#list .where")]


def clients(browser):
    return browser.run(
        "return [...document.querySelectorAll('#client-table tbody tr')].filter((row) => !row.hidden)"
        ".map((row) => row.dataset.client)"
    )


def test_a_filter_is_in_the_address_and_comes_back(browser, written):
    browser.driver.switch_to.new_window("tab")  # Chromium keeps 50 steps of a tab, and earlier tests have taken them
    browser.open(written)
    everything = shown(browser)
    browser.run("delete URLSearchParams.prototype.size")  # as in Safari 16
    browser.choose("client", "2")
    browser.choose("prediction", "wrong")
    assert browser.address() == "#inputs?client=2&prediction=wrong"
    assert shown(browser) == ["round 1, input 2"]
    browser.back()
    browser.wait("location.hash === '#inputs?client=2'")
    assert shown(browser) == ["round 1, input 1", "round 1, input 2", "round 2, input 1"]  # round 1 is suspicious
    assert browser.run("return document.querySelector('#filters').elements.prediction.value") == ""
    browser.back()
    browser.wait("location.hash === '' && document.querySelectorAll('#list .input').length === 5")
    assert shown(browser) == everything


def test_an_address_that_was_shared(browser, written):
    browser.open(written, "#inputs?round=1&sort=unsure")
    assert shown(browser) == ["round 1, input 1", "round 1, input 2", "round 1, input 0"]  # 0.4, 0.6, 0.9
    assert browser.run("return document.querySelector('#inputs').getBoundingClientRect().top < innerHeight / 2")
    browser.open(written, "#inputs?round=77&class=none&wrong&client=%E0%A")  # of another run, and cut off
    assert len(shown(browser)) == 5
    assert browser.complaints() == []


def test_the_clients_can_be_sorted_and_searched(browser, written):
    browser.open(written)
    assert clients(browser) == ["0", "1", "2", "3", "4"]
    browser.run("document.querySelector('#client-table button[data-sort=examples]').click()")
    assert clients(browser) == ["0", "3", "2", "1", "4"]  # 13, 11, 9, 4 and 3 examples
    assert browser.address() == "#clients?sort=examples"
    assert browser.run("return document.querySelector('th[aria-sort]').textContent").strip() == "examples"
    in_map = "return [...document.querySelectorAll('.heat tbody tr')].map((row) => row.dataset.client)"
    assert browser.run(in_map) == ["0", "3", "2", "2", "1", "4"]  # the faulty one has a second row
    browser.open(written, "#clients?search=faulty&sort=correct")
    assert clients(browser) == ["2"]
    assert browser.text("#clients-count") == ["1 of 5 clients"]
    browser.open(written, "#clients?search=4 1&sort=correct_contribution")
    assert clients(browser) == ["1", "4"]  # without a traced prediction, so by number
    assert browser.complaints() == []


def test_a_client_has_a_section_and_a_way_back(browser, written):
    browser.open(written, "#clients?sort=examples")
    browser.run("document.querySelector('#client-table a[href=\"#client-2\"]').click()")
    browser.wait("document.getElementById('client-2') !== null")
    (section,) = browser.text("#client-2")
    for words in (
        "took part in 2 of 2",
        "30.0%",  # its share
        "carried 2 of the 4 traced in its rounds (chance 1.3)",
        "carried 1 of the 1 traced in its rounds (chance 0.3)",
        "without it the predicted class's centered logit falls by 0.250 on average; ",
        "is its own, the rest is common to all removals",
        "faulty",
        "as trained on",
    ):
        assert words in section
    facts = browser.text("#client-2 dl.pairs > div")
    (unchecked,) = [text for text in facts if text.startswith("exact effects on wrong ones")]
    assert unchecked.endswith("\N{EN DASH}")
    assert browser.run("return document.activeElement.textContent").startswith("Client 2")
    browser.run("document.querySelector('#client-2 .ways a').click()")
    browser.wait("location.hash === '#clients?sort=examples'")
    assert browser.text("#client-2") == []
    browser.back()
    browser.wait("document.getElementById('client-2') !== null")
    browser.run("document.querySelector('#client-2 a[href*=wrong]').click()")
    browser.wait("document.querySelectorAll('#list .input').length === 1")
    assert shown(browser) == ["round 1, input 2"]
    browser.open(written, "#client-99")  # of another run
    assert browser.text("#client section") == []
    assert browser.complaints() == []


def test_numbers_beside_an_input(browser, written):
    browser.open(written, "#inputs?round=1&sort=sure")
    first = "#list .input:first-child "
    assert "probability 90.0%" in browser.text(first + ".classes")[0]
    cells = browser.text(first + ".parts tbody tr:first-child > *")
    assert [cell.strip() for cell in cells] == ["0 ●", "", "\N{MINUS SIGN}0.511", "+0.500"]  # the logarithm of 0.6
    browser.run(f"document.querySelector('{first}summary').click()")
    browser.wait(f"document.querySelectorAll('{first}.scores tbody tr').length === 3")
    assert browser.text(first + ".scores tbody tr:first-child td") == ["\N{MINUS SIGN}0.511", "+0.500", "0.600"]
    assert browser.text("#list .ask") == []  # no round's weights are kept


def test_the_command_of_an_input_is_copied(browser, tmp_path):
    run = make_run(tmp_path, [result(1, INPUTS[:1]), result(2, INPUTS[:1])])
    (run / "rounds" / "0002" / "weights").mkdir()  # kept
    browser.open(write_page(run), "#inputs?sort=round")
    command = f"tracefl trace {shlex.quote(str(run))} round=2 input=0"
    assert browser.text("#list .ask code") == [command]
    browser.run("document.execCommand = () => ((window.copied = document.activeElement.value), true)")
    browser.run("Object.defineProperty(navigator, 'clipboard', {value: {writeText: () => Promise.reject()}})")
    browser.run("document.querySelector('#list .copy').click()")
    browser.wait("window.copied !== undefined")
    assert browser.run("return window.copied") == command
    assert browser.text("#list .copy") == ["copied"]
