"""The benchmark of conversions runs; its figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "conversion.py"


def benchmark(*words: object) -> str:
    command = [sys.executable, str(SCRIPT), *(str(word) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_conversions_are_compared(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    shown = benchmark("--images", 4, "--rounds", 1, "--no-peers", "--size", "160x120", "--out", out)
    figures = json.loads(out.read_text("utf-8"))
    assert [case["embedded_pictures"] for case in figures["cases"]] == [False, True]
    for case in figures["cases"]:
        assert case["polygons"] == 32
        ours = [case["contenders"][name] for name in ("d2tune", "d2tune, 1 worker")]
        assert ours[0]["written_bytes"] == ours[1]["written_bytes"] > 3000
        assert ours[0]["ratio_to"]["floor"] > 0
    assert shown.count("| d2tune |") == 2
    assert {"cpu", "cores", "python"} <= set(figures["machine"])


@pytest.mark.slow
def test_memory_of_a_large_conversion_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    assert "| 20 | 160 |" in benchmark("--large", 20, "--out", out)
    figures = json.loads(out.read_text("utf-8"))
    assert 10 < figures["peak_pss_mb"] <= figures["peak_rss_mb"]
    assert figures["processes"] == 1
