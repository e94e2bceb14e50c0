"""A browser without a window, in which pages are opened and looked at."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import needs
from tests.lab.conda_wheel import importable

_SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
#: So long (seconds) a chart may take, on a machine that has other work.
_PATIENCE = 60


@dataclass
class Browser:
    """Chromium, driven by ChromeDriver."""

    driver: Any

    def show(self, page: Path, width: int = 1280, dark: bool = False) -> None:
        """Open a page as if for the first time."""
        self.look(width, dark)
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(page.as_uri())

    def look(self, width: int, dark: bool) -> None:
        """Have a window of that width, and somebody who wants it dark."""
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: str) -> Any:
        """Wait until an expression is true in the page; return what it is."""
        end = time.monotonic() + _PATIENCE
        while not (found := self.run(f"return {condition}")):
            assert time.monotonic() < end, f"never: {condition}"
            time.sleep(0.02)
        return found

    def draw_all(self) -> list[str]:
        """Bring every chart into view until it is drawn; return their names."""
        names: list[str] = self.run("return [...document.querySelectorAll('.chart')].map(one => one.id)")
        for name in names:
            self.run("document.getElementById(arguments[0]).scrollIntoView()", name)
            self.wait(f"document.querySelector('#{name}.js-plotly-plot .main-svg') !== null")
        return [name.removeprefix("chart-") for name in names]

    def complaints(self) -> list[str]:
        """What the page said on the console since it was opened, errors of scripts among it."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """What was asked for since the page was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
        return [message["params"]["request"]["url"] for message in sent]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Run a browser with a new profile; skips the test where there is none."""
    needs("needs the package selenium", importable("selenium"))
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    needs("needs chromium and chromedriver", program and driver)
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = program
    for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(running)
    finally:
        running.quit()
