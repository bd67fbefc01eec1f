"""Browser: a page in headless Chromium, the one that the system has."""

import contextlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--disable-extensions",
)  # fmt: skip
HOW = "on Debian and Ubuntu: apt-get install chromium chromium-driver; and: pip install selenium"
SECONDS = 60


def missing() -> str:
    """Return what a browser test lacks here, and how to get it; empty where nothing is missing."""
    lacks = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    lacks += [] if importlib.util.find_spec("selenium") else ["selenium"]
    return f"no {' and no '.join(lacks)} here. {HOW}" if lacks else ""


class Browser:
    """A window of 1200 x 900 pixels.

    Attributes:
        driver: Selenium's driver.
    """

    def __enter__(self) -> Self:
        """Start the browser, with a profile of its own."""
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service

        self._resources = contextlib.ExitStack()
        profile = self._resources.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        options = Options()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1200,900"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = Service(shutil.which("chromedriver"), env={**os.environ, "SE_OFFLINE": "true"})
        self.driver: Any = webdriver.Chrome(options=options, service=service)
        self._resources.callback(self.driver.quit)
        self.driver.get("about:blank")
        self.requests()  # those of the page that it starts with
        return self

    def __exit__(self, *error: object) -> None:
        """End it."""
        self._resources.close()

    def open(self, path: Path) -> float:
        """Open a report; return the seconds until the charts in the window were drawn."""
        self.driver.get(path.resolve().as_uri())
        return int(self.wait("return document.documentElement.dataset.ready")) / 1e3

    def processor_seconds(self) -> float:
        """Return the processor time of the page's own process until now, which other work on the machine leaves as it is."""
        self.driver.execute_cdp_cmd("Performance.enable", {})
        metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return float({each["name"]: each["value"] for each in metrics}["ProcessTime"])

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: object) -> Any:
        """Run a script until it returns something true."""
        from selenium.webdriver.support.ui import WebDriverWait

        until: Callable[[Any], Any] = lambda driver: driver.execute_script(script, *arguments)  # noqa: E731
        return WebDriverWait(self.driver, SECONDS, poll_frequency=0.05).until(until)

    def look(self, *, width: int = 1200, dark: bool = False) -> None:
        """Look at the page through a window of another width, in light or dark."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def messages(self) -> list[str]:
        """Return what the console said since the last call."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]
