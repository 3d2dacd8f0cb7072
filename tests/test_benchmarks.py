"""The benchmarks run; their results are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from budgeted import steps_seconds  # type: ignore[import-not-found]

FOLDER = ROOT / "benchmarks"


def benchmark(*words: object, script: str = "conversion.py") -> str:
    command = [sys.executable, str(FOLDER / script), *(str(word) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_conversions_are_compared(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    shown = benchmark("--images", 4, "--rounds", 1, "--no-peers", "--size", "160x120", "--out", out)
    results = json.loads(out.read_text("utf-8"))
    assert [case["embedded_images"] for case in results["cases"]] == [False, True]
    for case in results["cases"]:
        assert case["polygons"] == 32
        ours = [case["contenders"][name] for name in ("d2tune", "d2tune, 1 worker")]
        assert ours[0]["written_bytes"] == ours[1]["written_bytes"] > 3000
        assert ours[0]["ratio_to"]["floor"] > 0
    assert shown.count("| d2tune |") == 2
    assert {"cpu", "cores", "python"} <= set(results["machine"])


@pytest.mark.slow
def test_memory_of_a_large_conversion_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    assert "| 20 | 160 |" in benchmark("--large", 20, "--out", out)
    results = json.loads(out.read_text("utf-8"))
    assert 10 < results["peak_pss_mb"] <= results["peak_rss_mb"]
    assert results["processes"] == 1


@pytest.mark.extended
def test_a_sample_project_is_timed(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    quick = ["data.sample_images=4", "train.iterations=1", "train.patch_size=64", "detectron2.MODEL.BRIDGE.WIDTH=4"]
    words = [word for key in quick for word in ("--override", key)]
    shown = benchmark("membrane", *words, "--out", out, script="samples.py")
    results = json.loads(out.read_text("utf-8"))["membrane"]
    assert results["train_cpu_s"] > 0 and results["images"] == 1 and 0 <= results["value"] <= 100
    assert "| `membrane` | mIoU " in shown


@pytest.mark.extended
def test_networks_for_video_are_timed(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    shown = benchmark("--frames", 2, "--size", 96, "--threads", 1, "--out", out, script="realtime.py")
    rows = json.loads(out.read_text("utf-8"))["rows"]
    assert [row["runtime"] for row in rows] == ["torch"] * 4 + ["onnxruntime"] * 4 + ["torch"]
    for row in rows:
        assert row["frames"] == 2 and row["fps"] > 0 and set(row["ms"]) == {"prepare", "network", "finish"}
    torch_deeplab, onnx_deeplab = (row for row in rows if row["network"] == "DeepLabV3 MobileNetV2")
    assert abs(torch_deeplab["J"] - onnx_deeplab["J"]) < 1, "both runtimes give the same masks"
    assert shown.count("42.5 fps on a Titan Xp") == 2


def test_steps_that_a_budget_measures_with_are_not_those_of_the_training() -> None:
    measured, trained = [2.0, 2.5, 3.0], [10.0, 11.0, 12.0, 13.0]
    assert steps_seconds(measured + trained, 4) == steps_seconds(trained, 4) == 4.0, "one second for each of them"
    assert steps_seconds([7.0], 1) == 0.0


@pytest.mark.extended
def test_trainings_under_a_budget_are_not_repeated(tmp_path: Path) -> None:
    grid = ["--data", "balloon", "--subsets", 4, "--sizes", 64, "--budget-s", 40, "--measured-steps", 4]
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    shown = benchmark(*grid, "--work", tmp_path / "first", "--out", first, script="defaults.py")
    assert "2 of 2 trainings to do" in shown
    own, other = json.loads(first.read_text("utf-8"))["trainings"]
    assert (own["recipe"], other["recipe"], other["image_size"]) == ("budget", "64 px", 64)
    assert 0.6 < other["training_s"] / own["training_s"] < 1.5, "as long as the steps of the budget"
    known = ["--known", first, "--out", second]
    shown = benchmark(*grid, "--work", tmp_path / "second", *known, script="defaults.py")
    assert "2 trainings are known from first.json" in shown and "0 of 2 trainings to do" in shown
    assert second.read_text("utf-8") == first.read_text("utf-8")
