"""The sheet of training samples."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image as PilImage

from d2tune import api
from d2tune.cli import main
from d2tune.engine.assembly import training_split
from d2tune.engine.plan import make_plan
from d2tune.engine.preview import _before_and_after, _keys
from d2tune.errors import DataError, ProjectError
from d2tune.project import load_project
from d2tune.tasks import task_of
from tests.engine.test_tasks import raster_project, street_project
from tests.engine.test_tracking import tracking_project


def test_a_sheet_of_an_instance_project(
    tiny_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_project.write_text(
        tiny_project.read_text("utf-8").replace("weights: scratch", "weights: missing.pth"), "utf-8"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["preview", str(tiny_project), "--samples", "3"]) == 0
    assert "tiny_preview.png: 3 training samples of the first batches, seed 0, short side" in capsys.readouterr().out
    with PilImage.open("tiny_preview.png") as sheet:
        assert sheet.format == "PNG" and sheet.width == 2240
    assert main(["preview", str(tiny_project)]) == 1
    line = capsys.readouterr().err
    assert "tiny_preview.png" in line and "already there" in line and line.count("\n") == 1
    assert main(["preview", str(tiny_project), "--force", "--samples", "1", "train.seed=5"]) == 0
    assert "1 training sample of the first batches, seed 5" in capsys.readouterr().out


@pytest.mark.parametrize("samples", [0, 65])
def test_a_number_out_of_range(samples: int, tiny_project: Path, tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        api.preview(tiny_project, out=tmp_path / "a.png", samples=samples)
    assert "--samples" in caught.value.one_line() and not (tmp_path / "a.png").exists()


def test_files_that_are_not_replaced(tiny_project: Path, balloon_sample: Path, tmp_path: Path) -> None:
    image = sorted((balloon_sample / "train").glob("*.jpg"))[0]
    link = tmp_path / "image.png"
    link.hardlink_to(image)
    before = image.read_bytes()
    for out in (link, tmp_path / "a.jpg"):
        with pytest.raises(DataError):
            api.preview(tiny_project, out=out, force=True)
    assert image.read_bytes() == before and not (tmp_path / "a.jpg").exists()


def test_the_masks_lie_on_the_objects(tiny_project: Path) -> None:
    plan, _ = make_plan(load_project(tiny_project), num_gpus=0, sample=False)
    task, train = task_of(plan.project), plan.splits.train
    samples = task.training_samples(train, None, plan.cfg, plan.project, cache_bytes=0)
    sample = samples[next(_keys(plan))]
    image, shown = _before_and_after(plan, sample)
    assert image.shape == shown.shape == (*sample["image"].shape[1:], 3)
    assert np.array_equal(image, sample["image"].numpy().transpose(1, 2, 0))  # this preset takes RGB
    for left, top, right, bottom in sample["instances"].gt_boxes.tensor.round().int().tolist():
        row, column = (top + bottom) // 2, (left + right) // 2
        assert not np.array_equal(image[row, column], shown[row, column])
    sample["instances"] = sample["instances"][:0]
    assert np.array_equal(*_before_and_after(plan, sample))


@pytest.mark.parametrize("kind", ["panoptic", "rasters"])
def test_label_maps_have_a_legend(kind: str, tmp_path: Path) -> None:
    project = street_project(tmp_path)[0] if kind == "panoptic" else raster_project(tmp_path)
    result = api.preview(project, out=tmp_path / "sheet.png", samples=2)
    with PilImage.open(result.path) as sheet:
        colors = {color for _, color in sheet.crop((0, 112, 2240, 170)).getcolors(1 << 20)}
    assert {(255, 59, 92), (0, 176, 255)} <= colors


def test_pairs_of_crops_are_refused(tmp_path: Path) -> None:
    project = tracking_project(tmp_path, images=4)
    with pytest.raises(DataError, match="pairs of crops, which a preview does not show"):
        api.preview(project, out=tmp_path / "a.png", samples=1)
    assert not (tmp_path / "a.png").exists()


def test_augmentations_show(tiny_project: Path, tmp_path: Path) -> None:
    def samples(*overrides: str) -> list[dict[str, Any]]:
        keys = dict(word.split("=") for word in overrides)
        loaded = load_project(tiny_project, overrides={key: yaml.safe_load(value) for key, value in keys.items()})
        plan, _ = make_plan(loaded, num_gpus=0, sample=False)
        read = training_split(plan)
        return [read[key] for key in islice(_keys(plan), 6)]

    plain = samples()
    pasted = samples("train.copy_paste=1")
    assert all(len(one["instances"]) > 0 for one in pasted)
    assert sum(len(one["instances"]) for one in pasted) > sum(len(one["instances"]) for one in plain)
    large = samples("train.large_scale_jitter=true", "train.scale_jitter=[0.2, 1.2]")
    shorts = [min(one["image"].shape[1:]) for one in large]
    assert len(set(shorts)) >= 4 and max(shorts) <= 96, "each has its own size, no larger than in evaluations"
    result = api.preview(tiny_project, out=tmp_path / "a.png", samples=4, overrides=["train.copy_paste=1"])
    assert result.samples == 4
    again = samples("train.copy_paste=1")
    assert all(torch.equal(one["image"], other["image"]) for one, other in zip(pasted, again, strict=True))
