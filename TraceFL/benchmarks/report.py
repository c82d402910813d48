"""How long a run's report takes to write and to open in headless Chromium, and how large it is, as a Markdown table.

    tracefl run num_rounds=100 ...
    python TraceFL/benchmarks/report.py RUN_FOLDER ...

Opening is the browser's own figure, from the navigation's start to the end of the page's load, scripts included; median
of five. Needs chromium and chromedriver on the PATH.
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tracefl.report.page import write_page
from tracefl.report.page.record import read_record

_REPEATS = 5
_LOADED = "return performance.getEntriesByType('navigation')[0].loadEventEnd"


def main() -> None:
    """Print the table for the run folders on the command line."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver") or ""))
    sys.stdout.write("| rounds | traced inputs | MB | written in, s | opens in, s |\n|---|---|---|---|---|\n")
    try:
        with tempfile.TemporaryDirectory() as place:
            for folder in map(Path, sys.argv[1:]):
                record = read_record(folder)
                began = time.perf_counter()
                page = write_page(folder, Path(place) / "report.html")
                seconds = time.perf_counter() - began
                opened = []
                for _ in range(_REPEATS):
                    driver.get(page.as_uri())
                    opened.append(driver.execute_script(_LOADED) / 1000)
                size, opens = page.stat().st_size / 1e6, statistics.median(opened)
                counted = f"{len(record.rounds)} | {len(record.traced)}"
                sys.stdout.write(f"| {counted} | {size:.2f} | {seconds:.1f} | {opens:.2f} |\n")
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
