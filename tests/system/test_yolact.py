"""YOLACT through the real commands: train, stop, resume, evaluate, predict, package, export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.system.commands import d2tune, succeeded
from tests.system.test_journey import assert_same_weights, stopped_and_resumed

pytestmark = [pytest.mark.slow, pytest.mark.extended]

PROJECT = """\
data: {root: data}
classes: [balloon]
model: {preset: yolact_mobilenet_v2, backbone: torchvision/resnet18}
weights: scratch
train: {batch_size: 2, iterations: 12, image_size: 96, eval_every: 0, precision: float32}
detectron2: {MODEL.FPN.OUT_CHANNELS: 32}
"""


def test_a_yolact_is_trained_resumed_evaluated_and_used(tmp_path: Path) -> None:
    succeeded(d2tune("sample", "balloon", "--out", "data", "--images", 10, "--seed", 1, folder=tmp_path))
    (tmp_path / "small.yaml").write_text(PROJECT, encoding="utf-8")
    succeeded(d2tune("train", "small.yaml", "--output-dir", "run", folder=tmp_path))
    stopped = stopped_and_resumed(["--config", "small.yaml"], at="5/12", iterations=12, folder=tmp_path)
    assert_same_weights(tmp_path / "run", stopped)
    succeeded(d2tune("eval", "run", "--out", "scores", folder=tmp_path))
    metrics = json.loads((tmp_path / "scores" / "evaluation.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["segm"]["AP"]["value"] >= 0
    succeeded(d2tune("package", "run", "--out", "package", folder=tmp_path))
    succeeded(d2tune("predict", "package", "data/val", "--to", "coco", "--out", "ours", folder=tmp_path))
    words = ["export", "run", "--format", "onnx", "--out", "onnx", "--check", "data/val"]
    assert "within the bounds" in succeeded(d2tune(*words, folder=tmp_path))
