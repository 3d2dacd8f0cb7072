"""A real browser without a window, driven through its DevTools pipe: no driver and no library is needed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""What the browser may be called."""

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
)
_PATIENCE_S = 120.0


def program() -> str:
    """The browser on PATH."""
    path = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert path is not None, (
        f"no browser: none of {', '.join(NAMES)} is on PATH. Install one (Debian: apt install chromium), or run "
        "`make test`, which does that where it runs as root"
    )
    return path


class NavigatedError(AssertionError):
    """The page was left while an expression was evaluated in it."""


class Page:
    """One tab: commands go out, their answers and the events in between come back."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "navigated" in answer.get("error", {}).get("message", ""):
                    raise NavigatedError(method)
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def wait_for(self, method: str) -> None:
        """Wait for an event that has not come yet, or take one that has."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        stop = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, stop - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser has closed"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def look(self, *, width_px: int, dark: bool = False) -> None:
        """Set the width of the window and the color scheme that the person prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width_px, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path: Path) -> None:
        """Open a file and wait until it is loaded and all its images are decoded or have failed."""
        self.events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        self.wait_for("Page.loadEventFired")
        self.evaluate("Promise.all([...document.images].map(image => image.decode().catch(() => null)))")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, as JSON."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, *, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def requests(self) -> list[str]:
        """The addresses that were asked for since the page was opened; what is in the page itself is not."""
        sent = [event["params"]["request"]["url"] for event in self.events if _is(event, "Network.requestWillBeSent")]
        return [address for address in sent if not address.startswith("data:")]

    def complaints(self) -> list[str]:
        """What the page has put on the console since it was opened, and what the browser has to say of it."""
        messages = [event["params"]["entry"]["text"] for event in self.events if _is(event, "Log.entryAdded")]
        messages += [str(event["params"]) for event in self.events if _is(event, "Runtime.consoleAPICalled")]
        return messages + [str(event["params"]) for event in self.events if _is(event, "Runtime.exceptionThrown")]


def _is(event: dict[str, Any], method: str) -> bool:
    return event.get("method") == method


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Start a browser with a new profile folder, give one page of it, and end it."""
    to_browser, from_browser = os.pipe(), os.pipe()
    # the browser reads commands from descriptor 3 and answers on descriptor 4
    shell = 'exec "$0" "$@" 3<&' + str(to_browser[0]) + " 4>&" + str(from_browser[1])
    process = subprocess.Popen(
        ["bash", "-c", shell, program(), *_FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(to_browser[0], from_browser[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        yield Page(to_browser[1], from_browser[0])
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(to_browser[1])
        os.close(from_browser[0])
