"""The loss on the validation split: what it is the mean of, and that training does not notice it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from PIL import Image as PilImage
from torch import nn

import d2tune
from d2tune.engine.plan import TrainingPlan, make_plan
from d2tune.engine.process import seeded_model
from d2tune.engine.validation_loss import MOST_IMAGES, ValidationLoss, validation_keys
from d2tune.project import load_project
from tests.engine.test_tasks import raster_project


class Brightness(nn.Module):
    """Its losses are the brightness of an image and a random number; it counts how it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.seen: list[tuple[str, bool]] = []

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        assert not torch.is_grad_enabled()
        assert self.training and not self.norm.training and not self.drop.training
        (sample,) = batch
        self.seen.append((str(sample["image_id"]), "instances" in sample))
        return {"loss_brightness": sample["image"].float().mean() / 255, "loss_chance": torch.rand(())}


def planned(project: Path) -> TrainingPlan:
    return make_plan(load_project(project), num_gpus=0, sample=False)[0]


SIDE_PX = 256


@pytest.fixture
def plan(tiny_project: Path) -> TrainingPlan:
    project = tiny_project.read_text("utf-8").replace("image_size: 96", f"image_size: {SIDE_PX}")
    tiny_project.write_text(project, encoding="utf-8")
    return planned(tiny_project)


def brightness(path: Path) -> float:
    """The mean of an image from 0 to 1, at the size that it is evaluated at."""
    with PilImage.open(path) as image:
        factor = SIDE_PX / min(image.size)
        small = image.resize((round(image.width * factor), round(image.height * factor)), PilImage.Resampling.BILINEAR)
    return float(np.asarray(small).mean()) / 255


def test_it_is_the_mean_over_the_images(plan: TrainingPlan, balloon_sample: Path) -> None:
    model = Brightness().eval()
    losses = ValidationLoss(plan, model).measure()
    values = [brightness(path) for path in (balloon_sample / "val").glob("*.jpg")]
    assert len(values) == 4 == len(set(model.seen)) and np.ptp(values) > 0.01
    assert losses["loss_brightness"] == pytest.approx(np.mean(values), abs=1e-3)
    assert losses["total_loss"] == pytest.approx(losses["loss_brightness"] + losses["loss_chance"], abs=1e-9)
    assert not any(module.training for module in model.modules())


def test_it_is_the_same_each_time_and_nothing_else_changes(plan: TrainingPlan) -> None:
    model, _ = seeded_model(plan, None, device="cpu")
    model.train()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured = ValidationLoss(plan, model)
    torch.manual_seed(3)
    states = random.getstate(), str(np.random.get_state()), torch.random.get_rng_state()
    with EventStorage(7) as storage:
        first = measured.measure()
        assert not storage.latest()
    assert states[:2] == (random.getstate(), str(np.random.get_state()))
    assert torch.equal(states[2], torch.random.get_rng_state())
    torch.manual_seed(4)
    assert measured.measure() == first == ValidationLoss(plan, model).measure()
    assert {"loss_rpn_cls", "loss_mask", "loss_mask_point", "total_loss"} <= set(first)
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_which_images(plan: TrainingPlan) -> None:
    cfg = plan.cfg
    assert [key.index for key in validation_keys(cfg, images=3)] == [0, 1, 2]
    many = [key.index for key in validation_keys(cfg, images=10 * MOST_IMAGES)]
    assert many == list(range(0, 10 * MOST_IMAGES, 10))
    low, high = cfg.INPUT.MIN_SIZE_TRAIN
    assert all(low <= key.short_side_px <= high for key in validation_keys(cfg, images=3))


@pytest.mark.slow
def test_training_is_the_same_with_and_without_it(tmp_path: Path) -> None:
    project = raster_project(tmp_path, iterations=4)
    runs = []
    for wanted in (True, False):
        overrides = ["train.eval_every=2", f"train.validation_loss={str(wanted).lower()}"]
        runs.append(d2tune.train(project, output_dir=tmp_path / f"run_{wanted}", overrides=overrides, num_gpus=0).run)
    weights = [torch.load(run / "checkpoints/model_final.pth", weights_only=True)["model"] for run in runs]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()] for run in runs]
    logged = [{row["iteration"]: row["val/total_loss"] for row in rows if "val/total_loss" in row} for rows in lines]
    assert set(logged[0]) == {1, 3} and logged[1] == {}
    assert all(0 < value < 10 for value in logged[0].values())
