"""``d2tune serve`` with the predictions of another tool, judged in a real browser, killed, and judged on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.acceptance.visitor import Visitor
from tests.acceptance.world import Served, opened, write_world
from tests.browser import browser

pytestmark = pytest.mark.extended


def started(world: Path) -> tuple[subprocess.Popen[str], str]:
    """The command and the address that it prints."""
    command = [sys.executable, "-m", "d2tune", "serve", "--predictions", "tool.json", "--images", "images"]
    command += ["--judgments", "judgments.sqlite", "--port", "0", "--title", "Cats of May"]
    process = subprocess.Popen(command, cwd=world, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        if address:
            return process, address[0]
    raise AssertionError("the server has ended")


def test_judged_killed_and_judged_on(tmp_path: Path) -> None:
    world = write_world(tmp_path)
    acceptance = opened(world)  # for the numbers of the images, which the server finds there
    with browser(tmp_path / "profile") as tab:
        process, address = started(world)
        with httpx.Client(base_url=address, timeout=60) as client:
            visitor = Visitor(tab, Served(acceptance, address, client))
            visitor.key("a")
            visitor.until_saved("a.png", verdict="right")
            visitor.until_open("b.png")
            visitor.key("w")
            visitor.until_saved("b.png", verdict="wrong")
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        process, address = started(world)
        with httpx.Client(base_url=address, timeout=60) as client:
            visitor = Visitor(tab, Served(acceptance, address, client))
            assert visitor.text("#progress") == "2 of 4 judged" and visitor.text("#name") == "c.png"
            assert visitor.complaints() == []
            assert visitor.text("#title") == "Cats of May"
            report = client.get("/acceptance/report.html").text
            assert "1 of 2 judged images" in report and "<h1>Cats of May</h1>" in report
            assert "default-src 'none'" in client.get("/").headers["content-security-policy"]
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
    acceptance.close()
