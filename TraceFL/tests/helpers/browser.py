"""A headless Chromium."""

import contextlib
import json
import os
import shutil

import pytest

PROGRAMS = (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))


class Browser:
    """A page in Chromium, and what it said and asked for."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, after=""):
        """Open a file, with what follows its name in the address; what earlier pages said is forgotten."""
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get("about:blank")  # else only the address after # would change
        self.driver.get(path.resolve().as_uri() + after)

    def run(self, script, *arguments):
        """Return what a script returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition):
        """Wait until a JavaScript condition holds."""
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, 60).until(lambda driver: driver.execute_script(f"return {condition}"), condition)

    def back(self):
        """Go back as the page's own history does; WebDriver's button may skip what no hand has added.

        Chromium learns later than the page that it has gone back; until then a second step leads to the same place.
        """
        from selenium.webdriver.support.wait import WebDriverWait

        def place(driver):
            return driver.execute_cdp_cmd("Page.getNavigationHistory", {})["currentIndex"]

        before = place(self.driver)
        self.run("history.back()")
        WebDriverWait(self.driver, 60).until(lambda driver: place(driver) < before, "the step back")

    def complaints(self):
        """Return the console's lines since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Return the addresses that the page asked for since it was opened."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        addresses = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in addresses if not url.startswith("chrome://")]  # Chromium's own start page, still loading

    def resize(self, width, height=900):
        """Make the view that wide and high, as a phone's is."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def colours(self, scheme):
        """Ask for light or dark colours."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def address(self):
        """Return what follows the file's name in the address."""
        return self.run("return decodeURI(location.hash)")

    def text(self, selector):
        """Return the text of each element."""
        return self.run("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)

    def choose(self, name, value):
        """Set one of the filters."""
        self.run(
            "const field = document.querySelector('#filters').elements[arguments[0]];"
            "if (field.type === 'checkbox') field.checked = arguments[1]; else field.value = arguments[1];"
            "field.dispatchEvent(new Event('change', {bubbles: true}))",
            name,
            value,
        )


@contextlib.contextmanager
def open_browser(profile):
    """Start Chromium with its profile in a folder; the test is skipped where it is not installed, or fails in CI."""
    found = [next(filter(None, map(shutil.which, names)), None) for names in PROGRAMS]
    missing = [names[0] for names, path in zip(PROGRAMS, found, strict=True) if path is None]
    if missing:
        message = f"no {', '.join(missing)} here: install chromium and chromium-driver"
        if os.environ.get("TRACEFL_REQUIRE_CHROMIUM") == "1":
            pytest.fail(message)
        pytest.skip(message)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    arguments = ["--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1200,900"]
    arguments += [f"--user-data-dir={profile}"]
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []  # which root cannot have
    for argument in arguments:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    driver.set_page_load_timeout(600)
    yield Browser(driver)
    with contextlib.suppress(Exception):
        driver.quit()
