"""Trainings of seconds, whose configs evaluate images at less than half of the size that they were trained at."""

from __future__ import annotations

from pathlib import Path

import pytest

import d2tune
from d2tune import api
from d2tune.samples import render_sample
from tests.shared_files import SHARED

SIZE_PX, SMALL_PX = 96, 40

PROJECT = """\
name: small
task: semantic
data: {{root: {root}, sample: null, background: scene}}
classes: [scene, balloon]
model: {{preset: semantic_fpn_mobilenet_v2{model}}}
weights: {weights}
train: {{iterations: {iterations}, batch_size: 4, image_size: {size}, eval_every: 0, precision: float32}}
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered images, 14 of them to validate on."""
    folder = render_sample("balloon", tmp_path_factory.mktemp("sample") / "balloon", images=70, seed=0).folder
    assert len(list((folder / "val").glob("*.jpg"))) == 14
    return folder


@pytest.fixture(scope="session")
def project(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project file of `run` and `folds`."""
    weights = SHARED / "weights" / "mobilenet_v2_imagenet.pth"
    path = tmp_path_factory.mktemp("project") / "small.yaml"
    path.write_text(PROJECT.format(root=data, weights=weights, iterations=60, size=SIZE_PX, model=""), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    d2tune.train(project, output_dir=folder, num_gpus=0)
    _evaluate_small(folder)
    return folder


@pytest.fixture(scope="session")
def folds(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two folds."""
    folder = tmp_path_factory.mktemp("folds") / "kfold"
    for run in api.kfold(project, folds=2, output_dir=folder, num_gpus=0).folds:
        _evaluate_small(run.run)
    return folder


def _evaluate_small(run: Path) -> None:
    config = run / "detectron2.yaml"
    text = config.read_text(encoding="utf-8")
    for key, px in (("MIN_SIZE_TEST", SIZE_PX), ("MAX_SIZE_TEST", round(SIZE_PX * 5 / 3))):
        assert f"{key}: {px}\n" in text
        text = text.replace(f"{key}: {px}\n", f"{key}: {round(px * SMALL_PX / SIZE_PX)}\n")
    config.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def quick_evaluations(without_plots: None) -> None:
    """Evaluations without plots in all tests of this folder."""
