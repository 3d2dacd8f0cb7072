"""Runs whose predictions are written by hand: what is right and wrong on them is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PilImage
from pycocotools import mask as mask_utils

from d2tune import files
from d2tune.annotations.formats.panoptic import to_colors
from d2tune.data.label_maps import encode_png
from d2tune.data.splits import load_splits
from d2tune.evaluation.evaluator import Scoring
from d2tune.metrics.coco.results import KINDS, Kind
from d2tune.modeling.config import DataFacts, project_config
from d2tune.project import Data, Model, Project
from d2tune.project.traits import TaskName
from d2tune.run_folder import RunFolder
from d2tune.tasks import task_of
from tests.runs.random_runs import PRESETS

WIDTH, HEIGHT = 120, 80
BUS, CAR = (10, 10, 30, 20), (70, 40, 30, 20)
"""Boxes of the two objects on each image: left, top, width, height."""

FIRST_ID = 1001
"""Id of the first image in the files of annotations; d2tune counts its own from 1."""

Box = tuple[int, int, int, int]
Detection = tuple[int, Box, float]
"""Class from 0 (bus, car), box and score."""

OFF = (28, 10, 30, 20)
"""A bus that is 18 px too far to the right: IoU 240 / 960 = 0.25 with the annotated one."""

DETECTIONS: tuple[tuple[Detection, ...], ...] = (
    ((0, BUS, 0.95), (1, CAR, 0.9)),  # all right
    ((0, BUS, 0.95),),  # the car is missed
    ((0, BUS, 0.95), (0, CAR, 0.8)),  # the car is predicted as a bus
    ((0, BUS, 0.95), (1, CAR, 0.9), (0, (10, 55, 15, 15), 0.7)),  # a false alarm
    ((0, OFF, 0.85), (1, CAR, 0.9)),  # a bad outline
    ((0, BUS, 0.95), (1, CAR, 0.9), (0, (11, 10, 30, 20), 0.6)),  # a duplicate
)
BETTER: tuple[tuple[Detection, ...], ...] = tuple(((0, BUS, 0.95), (1, CAR, 0.9)) for _ in DETECTIONS)
"""Detections without a mistake."""

BACKGROUND = "ground"


def make_data(folder: Path, *, images: int = len(DETECTIONS), size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Images of noise with COCO files ``train.json`` and ``val.json``; up to six to train on."""
    factor = size[0] / WIDTH
    for split, seed in (("train", 1), ("val", 2)):
        generator = np.random.default_rng(seed)
        (folder / split).mkdir(parents=True)
        rows: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(1, (images if split == "val" else min(images, 6)) + 1):
            blocks = generator.integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
            photo = PilImage.fromarray(blocks).resize(size, PilImage.Resampling.BICUBIC)
            name = f"{split}/{number:03}.jpg"
            photo.save(folder / name, quality=92)
            rows.append({"id": FIRST_ID - 1 + number, "file_name": name, "width": size[0], "height": size[1]})
            for category, box in ((1, BUS), (2, CAR)):
                x, y, width, height = (factor * side for side in box)
                outline = [x, y, x + width, y, x + width, y + height, x, y + height]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": FIRST_ID - 1 + number,
                        "category_id": category,
                        "bbox": [x, y, width, height],
                        "area": width * height,
                        "iscrowd": 0,
                        "segmentation": [outline],
                    }
                )
        categories = [{"id": 1, "name": "bus"}, {"id": 2, "name": "car"}]
        content = {"images": rows, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def make_run(
    folder: Path,
    data: Path,
    task: TaskName,
    detections: Sequence[Sequence[Detection]] = DETECTIONS,
    *,
    kinds: Sequence[Kind] = KINDS,
) -> Path:
    """A finished run whose weights are no weights, evaluated on given predictions.

    Args:
        folder: The run folder.
        data: See `make_data`.
        task: The task.
        detections: What is predicted on each image; further images have those of the first one.
        kinds: The kinds of metrics of an instance run.
    """
    names = ("bus", "car") if task == "instance" else ("bus", "car", BACKGROUND)
    classes: dict[str, Any] = {"things": names[:2], "stuff": names[2:]} if task == "panoptic" else {"classes": names}
    background = None if task == "instance" else BACKGROUND
    project = Project(
        name="crossing",
        task=task,
        data=Data(root=data, train="train.json", val="val.json", background=background),
        model=Model(preset=PRESETS[task]),
        **classes,
    )
    stuff: dict[str, Any] = {"thing_names": names[:2], "stuff_names": names[2:]} if task == "panoptic" else {}
    facts = DataFacts(class_names=names, train_images=9, has_rle=False, train_name="t", val_name="v", **stuff)
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    cfg = project_config(project, facts, scratch=True, device="cpu")
    files.write_text(run.config, cfg.dump())
    files.write_text(run.project, project.to_yaml())
    run.best.parent.mkdir()
    run.best.write_bytes(b"weights that nothing loads")
    splits = load_splits(project, sample=False)
    evaluator = task_of(project).evaluator(splits.val, cfg, project)
    size = splits.val.images[0].width_px, splits.val.images[0].height_px
    rows = [detections[at] if at < len(detections) else detections[0] for at in range(len(splits.val.images))]
    made = [_prediction(task, image.id, row, size) for image, row in zip(splits.val.images, rows, strict=True)]
    bound = {
        "run": str(folder),
        "data": None,
        "data_sha256": splits.val.content_hash(),
        "weights": str(run.best),
        "weights_sha256": files.sha256_file(run.best),
        "config_sha256": files.sha256_file(run.config),
        "predictions_sha256": evaluator.save(made, folder),
    }
    scoring = Scoring(split="val", kinds=kinds)
    evaluator.evaluate(made, scoring).write(folder, bound=bound, times=scoring.times)
    files.write_json(run.record, _record(task, names, splits, bound))
    lines = [
        {"iteration": at, "total_loss": 3.0 / (at + 1), "loss_cls": 1.0 / (at + 1), "loss_mask": 2.0 / (at + 1)}
        | {"lr": 0.001, "time": 0.5, "data_time": 0.1}
        for at in range(0, 40, 4)
    ]
    place = project.traits.main_metrics[0].scalar
    for at, value in ((19, 21.5), (39, 40.0)):
        lines.append({"iteration": at, place: value, "total_loss": 3.0 / (at + 1)})
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def _record(task: str, names: Sequence[str], splits: Any, bound: dict[str, Any]) -> dict[str, Any]:
    return {
        "d2tune_record": 1,
        "project": "crossing",
        "project_file": "crossing.yaml",
        "preset": PRESETS[task],
        "command": ["/opt/bin/d2tune", "train", "projects/my crossing.yaml"],
        "started": "2026-01-02T03:04:05+0000",
        "seed": 7,
        "versions": {"d2tune": "0.1.0", "torch": "2.11.0"},
        "machine": {"device": "cpu", "cores": 2, "precision": "float32"},
        "task": task,
        "classes": list(names),
        "thing_ids": [1, 2],
        "data": {
            "train_sha256": splits.train.content_hash(),
            "val_sha256": bound["data_sha256"],
            "train_images": len(splits.train.images),
            "val_images": len(splits.val.images),
            "train_instances": splits.train.counts(),
            "val_instances": splits.val.counts(),
            "rendered_sample": False,
        },
        "weights": {"line": "ImageNet", "from_scratch": False, "rgb_resnet": False},
        "input": {"stacked": False},
        "best": {"iteration": 40, "sha256": bound["weights_sha256"], "predictions_sha256": bound["predictions_sha256"]},
        "durations": {"training_s": 754.0},
        "finished": {"iterations": 40},
    }


def _prediction(task: str, image_id: int, detections: Sequence[Detection], size: tuple[int, int]) -> Any:
    """A prediction of an image as the evaluator of the task keeps it."""
    if task == "instance":
        return [_row(image_id, *one, size=size) for one in detections]
    ids = np.full((size[1], size[0]), 1, np.int32)
    infos = [{"id": 1, "category_id": 3, "isthing": False, "iscrowd": 0}]
    for number, (class_number, box, _) in enumerate(reversed(detections), start=2):
        ids[pixels(box, size)] = number
        infos.append({"id": number, "category_id": class_number + 1, "isthing": True, "iscrowd": 0})
    infos = [info for info in infos if (ids == info["id"]).sum() > 100]
    if task == "semantic":
        table = np.array([0, *(info["category_id"] - 1 for info in infos)], np.uint8)
        places = {info["id"]: at for at, info in enumerate(infos, start=1)}
        places = {number: places.get(number, 1) for number in np.unique(ids).tolist()}
        return encode_png(table[np.vectorize(places.__getitem__)(ids)])
    ids[~np.isin(ids, [info["id"] for info in infos])] = 1
    return encode_png(to_colors(ids)), infos


def pixels(box: Box, size: tuple[int, int]) -> Any:
    """The pixels of a box as an index of an image of a size."""
    factor = size[0] / WIDTH
    x, y, width, height = (round(factor * side) for side in box)
    return np.s_[y : y + height, x : x + width]


def _row(image_id: int, class_number: int, box: Box, score: float, *, size: tuple[int, int]) -> Any:
    mask = np.zeros((size[1], size[0]), np.uint8, order="F")
    mask[pixels(box, size)] = 1
    rle = mask_utils.encode(mask)
    factor = size[0] / WIDTH
    return {
        "image_id": image_id,
        "category_id": class_number + 1,
        "bbox": [factor * side for side in box],
        "score": score,
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
    }


def coco_results(
    detections: Sequence[Sequence[Detection]] = DETECTIONS, *, first_id: int = FIRST_ID
) -> list[dict[str, Any]]:
    """The detections as another tool writes them: a list of COCO results."""
    rows = [(number, one) for number, image in enumerate(detections, start=first_id) for one in image]
    return [_row(number, *one, size=(WIDTH, HEIGHT)) for number, one in rows]
