"""The benchmark of the order of labeling runs, and goes on from what is there; its results are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "labeling.py"


@pytest.mark.extended
def test_the_order_of_labeling_is_compared_with_a_random_one(tmp_path: Path) -> None:
    words = ["--work", tmp_path / "work", "--out", tmp_path / "results.json", "--seeds", 1, "--start", 4, "--add", 3]
    words += ["--iterations", 1, "--image-size", 64]
    shown = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stderr
        shown.append(done.stdout[done.stdout.index("mask AP on the validation photos") :])
    assert shown[0] == shown[1] and "photos, 4 photos at the start, 3 added" in shown[0]
    (seed,) = json.loads((tmp_path / "results.json").read_text("utf-8"))["seeds"]
    runs = sorted((tmp_path / "work").glob("seed_0/*/run"))
    assert [run.parent.name for run in runs] == ["random", "start", "uncertain"]
    records = [json.loads((run / "record.json").read_text("utf-8"))["data"] for run in runs]
    assert [record["train_images"] for record in records] == [7, 4, 7]
    assert seed["balloons"] == {
        arm: sum(record["train_instances"].values())
        for arm, record in zip(("random", "uncertain"), records[::2], strict=True)
    }
    chosen = json.loads((tmp_path / "work/seed_0/uncertainty.json").read_text("utf-8"))
    ranked = sorted(chosen["values"], key=lambda name: -chosen["values"][name])
    assert len(chosen["chosen"]) == 3 and chosen["chosen"] == [name for name in ranked if name in chosen["chosen"]]
