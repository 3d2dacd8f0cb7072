"""A run that was killed goes on to the same bits: with workers, averaged weights, warm-up, parts of batches, early
stopping, and evaluations in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.killed_runs import WAYS
from tests.engine.test_tasks import raster_project
from tests.system.test_interrupted import steps_of_tensorboard


def equal(a: Any, b: Any) -> bool:
    """Whether two checkpoints have the same structure and the same bits."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def rows(run: Path) -> list[dict[str, Any]]:
    """The lines of the log of metrics without what times took."""
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    taken = ("time", "data_time", "eval_time", "eta_seconds")
    return [{name: value for name, value in json.loads(line).items() if name not in taken} for line in lines]


@pytest.mark.extended
def test_killed_runs_go_on_to_the_same_bits(tmp_path: Path) -> None:
    """Three runs: killed before steps, in an evaluation, and in a save."""
    ways = list(WAYS)
    (tmp_path / "project").mkdir()
    project = raster_project(tmp_path / "project")
    words = [sys.executable, "-m", "tests.engine.killed_runs", str(project), str(tmp_path), *ways]
    process = subprocess.run(
        words, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert process.returncode == 0, process.stdout + process.stderr
    straight = tmp_path / "straight"
    assert "training ends after 9 of 20 iterations" in process.stdout
    assert len(rows(straight)) == 9
    for way in ways:
        run = tmp_path / way
        assert json.loads((run / "record.json").read_text("utf-8"))["resumed"]
        for name in ("last.pth", "model_best.pth", "model_final.pth"):
            one, other = (torch.load(folder / "checkpoints" / name, weights_only=True) for folder in (straight, run))
            assert equal(one, other), (way, name)
        assert {"WeightAverage", "EarlyStopping", "EvaluateAndKeepBest"} <= set(
            torch.load(run / "checkpoints" / "last.pth", weights_only=True)["trainer"]["hooks"]
        )
        assert rows(run) == rows(straight)
        assert [row["iteration"] for row in rows(run)] == list(range(9)) == steps_of_tensorboard(run)
        evaluations = [json.loads((folder / "evaluation.json").read_text("utf-8")) for folder in (straight, run)]
        assert evaluations[0]["metrics"] == evaluations[1]["metrics"]
        assert evaluations[0]["predictions_sha256"] == evaluations[1]["predictions_sha256"]
        assert not list(run.rglob(".*.tmp"))
