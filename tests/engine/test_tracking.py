"""A tracking project is trained and evaluated as others are; what predicts on images alone refuses its runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

import d2tune
from d2tune.annotations.geometry.masks import decode_mask, encode_mask, rle_bbox_xywh, to_rle
from d2tune.data.splits import load_splits
from d2tune.data.tracking_sequences import instance_mask
from d2tune.errors import D2TuneError
from d2tune.evaluation.contact_sheet import write_images
from d2tune.evaluation.tracking import TrackingEvaluator
from d2tune.inference.predictors.tracking import USE_TRACK
from d2tune.modeling.config import read_config
from d2tune.project import load_project
from d2tune.samples import render_sample
from d2tune.tasks import task_of

PROJECT = """\
task: tracking
data: {{root: {root}, frames: {frames}}}
classes: [object]
model: {{preset: siammask_mobilenet_v2}}
weights: scratch
train: {{iterations: {iterations}, batch_size: 2, image_size: 120, eval_every: 0, precision: float32, workers: 0}}
detectron2: {{MODEL.SIAMMASK.CHANNELS: 8, MODEL.SIAMMASK.RENDERED: 0.5}}
"""


def tracking_project(folder: Path, *, frames: bool = True, iterations: int = 2, images: int = 12) -> Path:
    root = render_sample("clips", folder / "clips", images=images, seed=0).folder
    path = folder / "follow.yaml"
    path.write_text(PROJECT.format(root=root, frames=str(frames).lower(), iterations=iterations))
    return path


@pytest.mark.slow
def test_a_tracking_project_from_clips_to_its_card(tmp_path: Path) -> None:
    project = tracking_project(tmp_path)
    result = d2tune.train(project, output_dir=tmp_path / "run")
    assert result.metrics.task == "tracking" and result.metrics.main_name == "J"
    evaluation = json.loads((result.run / "evaluation.json").read_text(encoding="utf-8"))
    values = evaluation["metrics"]["tracking"]
    assert set(values) == {"J", "box50", "J75"} and values["J"]["low"] is not None
    rows = json.loads((result.run / "predictions.json").read_text(encoding="utf-8"))
    val = load_splits(load_project(project).project, sample=False).val
    # a clip of six frames: all but the first are followed to, and the frame that is given is not scored
    assert {row["image_id"] for row in rows} == {image.id for image in val.images[1:]}
    assert evaluation["classes"][0]["objects"] == len(rows)
    card = (result.run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "d2tune track clip.mp4" in card and "load_predictor" not in card
    again = d2tune.evaluate(result.run)
    assert again.metrics.metrics == result.metrics.metrics and (again.out / "contact_sheet.png").is_file()
    refused: list[Callable[[], Any]] = [
        lambda: d2tune.predict(result.run, tmp_path / "clips" / "val", out=tmp_path / "out"),
        lambda: d2tune.load_predictor(result.run),
        lambda: d2tune.package(result.run, out=tmp_path / "package"),
    ]
    for call in refused:
        with pytest.raises(D2TuneError, match=r"follows objects that are outlined in a frame of a video") as error:
            call()
        assert error.value.hint == USE_TRACK
    assert not (tmp_path / "out").exists() and not (tmp_path / "package").exists()


def test_the_object_of_the_frame_in_which_it_is_given_is_drawn_on_the_contact_sheet(tmp_path: Path) -> None:
    val = load_splits(load_project(tracking_project(tmp_path)).project, sample=False).val
    followed: list[list[dict[str, Any]]] = [[] for _ in val.images]
    everything: list[Any] = []
    for number, image in enumerate(val.images):
        for instance in (one for one in val.instances if one.image_id == image.id):
            raw = encode_mask(instance_mask(instance, image))
            row = {
                "image_id": image.id,
                "category_id": instance.category_id,
                "segmentation": to_rle(raw).to_coco(),
                "bbox": list(rle_bbox_xywh(raw)),
                "score": 1.0,
            }
            everything.append(row)
            if number:  # the clip begins with the frame that is given
                followed[number].append({"instance_id": instance.id} | row)
    words = {"title": "a", "subtitle": "b"}
    TrackingEvaluator(val, are_frames=True).draw(tmp_path / "shown.png", followed, **words)
    write_images(tmp_path / "expected.png", val, everything, **words)
    assert len(everything) > sum(map(len, followed)) > 0
    shown, expected = (np.asarray(PilImage.open(tmp_path / name)) for name in ("shown.png", "expected.png"))
    assert np.array_equal(shown, expected)


@pytest.mark.extended
def test_photos_are_evaluated_on_moved_copies(tmp_path: Path) -> None:
    project = tracking_project(tmp_path, frames=False, iterations=1, images=4)
    result = d2tune.train(project, output_dir=tmp_path / "run")
    loaded = load_project(project).project
    val = load_splits(loaded, sample=False).val
    assert sum(row["objects"] for row in result.metrics.classes) == len(val.instances)
    evaluator = task_of(loaded).evaluator(val, read_config(result.run / "detectron2.yaml"), loaded)
    again = d2tune.evaluate(result.run)
    assert d2tune.compare(result.run, again.out).metrics["tracking J"].difference == pytest.approx(0)
    assert d2tune.write_report(result.run, out=tmp_path / "report.html").path.is_file()
    kept = evaluator.load(result.run)
    assert [len(rows) for rows in kept] == [len(rows) for rows in val.by_image().values()]
    size = (val.images[0].height_px, val.images[0].width_px)
    raw = kept[0][0]["segmentation"]
    assert decode_mask({"size": raw["size"], "counts": raw["counts"].encode()}).shape == size


@pytest.mark.extended
def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    project = tracking_project(tmp_path, iterations=3, images=4)
    whole = d2tune.train(project, output_dir=tmp_path / "whole")
    stopped: list[int] = []

    from detectron2.engine import HookBase

    from d2tune.engine.trainer import StoppedError

    class Stop(HookBase):  # type: ignore[misc]
        def after_step(self) -> None:
            if self.trainer.iter == 1:
                stopped.append(self.trainer.iter)
                raise StoppedError(2)

    with pytest.raises(SystemExit):
        d2tune.train(project, output_dir=tmp_path / "part", hooks=[Stop()])
    resumed = d2tune.train(project, output_dir=tmp_path / "part", resume=True)
    assert stopped == [1]
    first, second = (
        torch.load(run / "checkpoints" / "model_final.pth", weights_only=True)["model"]
        for run in (whole.run, resumed.run)
    )
    assert all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)
