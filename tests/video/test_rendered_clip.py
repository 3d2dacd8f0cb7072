"""The tracker on a rendered clip with crossing, hidden, leaving and returning objects, as the benchmark measures it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "tracking.py"


@pytest.mark.slow
def test_objects_of_a_rendered_clip_keep_their_identity(tmp_path: Path) -> None:
    """One switch is inevitable: an object returns after three seconds, and a lost track waits for one."""
    out = tmp_path / "results.json"
    command = [sys.executable, str(BENCHMARK), "--clips", "1", "--no-peers", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ours, best = json.loads(out.read_text("utf-8"))["rendered"]
    assert (ours["tracker"], best["tracker"]) == ("d2tune", "the best ids for these detections")
    assert ours["mean_idf1"] >= 0.9 and ours["all_switches"] <= 1
    assert 0.93 < best["mean_idf1"] < 0.96 and best["all_switches"] == 0  # a tenth of the detections is missing
    assert "| d2tune | 0.9" in done.stdout
