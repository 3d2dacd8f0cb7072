"""A server that is killed while judgments come in has kept every one that it answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from tests.acceptance.world import NAMES, opened, write_world

pytestmark = pytest.mark.slow


def test_nothing_is_lost_on_kill_9(tmp_path: Path) -> None:
    world = write_world(tmp_path)
    command = [sys.executable, "-m", "tests.acceptance.process", str(world)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = f"http://127.0.0.1:{int(process.stdout.readline())}"
    images = {row["name"]: row["id"] for row in httpx.get(f"{address}/acceptance/images", timeout=60).json()}
    answered: list[tuple[str, int, str]] = []

    def judge(name: str) -> None:
        with httpx.Client(timeout=60) as client:
            seen = None
            for number in range(10_000):
                judgment = {"verdict": "right", "judged_by": "Ann", "comment": f"{name} {number}"}
                content = {"seen": seen, "judgment": judgment}
                try:
                    answer = client.put(f"{address}/acceptance/images/{images[name]}/judgment", json=content)
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200
                seen = answer.json()["revision"]
                answered.append((name, seen, judgment["comment"]))
                if len(answered) == 60:
                    os.kill(process.pid, signal.SIGKILL)  # in the middle of the other requests

    threads = [threading.Thread(target=judge, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process.wait(timeout=30)
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL and len(answered) >= 60
    acceptance = opened(world)
    kept = dict(acceptance.store._rows("SELECT revision, content FROM judgment"))
    for _, revision, comment in answered:
        assert f'"comment":"{comment}"' in kept[revision]
    assert len(acceptance.judgments(0)) == len(NAMES)
    acceptance.close()
