"""``d2tune baseline``: fit classical methods on the training split and score them on the validation split."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from d2tune.annotations.io.photos.findings import white_of
from d2tune.baseline.methods import Method, chosen_methods
from d2tune.baseline.pixels import Scaling, TrainingImages, choose, measure, shown
from d2tune.baseline.result import FOLDER, BaselineResult, BaselineRow, check_output, write_baseline
from d2tune.classical.libraries import check_libraries
from d2tune.data.image_reader import ImageReader
from d2tune.data.sources import raster_options
from d2tune.data.splits import Splits, load_splits
from d2tune.errors import D2TuneError
from d2tune.evaluation.evaluator import Evaluator, Scoring
from d2tune.metrics.coco.results import Kind
from d2tune.metrics.metric import Metric
from d2tune.modeling.config import is_bridge, preset_config
from d2tune.project import Project, load_project
from d2tune.project.traits import MetricPlace
from d2tune.run_folder import latest_run
from d2tune.run_schema import read_evaluation
from d2tune.tasks import Task, task_of

logger = logging.getLogger(__name__)

_MOST_TRAINING_IMAGES = 40
_KINDS: tuple[Kind, ...] = ("bbox", "segm")


def score(path: Path, *, methods: Sequence[str] | None = None, out: Path | None = None) -> BaselineResult:
    """Fit and score classical methods, and write ``baseline.json``.

    Args:
        path: The project file.
        methods: Names of methods; None takes all.
        out: The output folder; None is ``runs/<project>/baseline``.

    Raises:
        D2TuneError: The task has no baseline, the data cannot be used, or a library is missing.
    """
    project = load_project(path).project
    task = task_of(project)
    task.check_has_baseline(path)
    chosen = chosen_methods(methods)
    check_libraries()
    splits = load_splits(project)
    folder = out or Path("runs") / project.name / FOLDER
    inputs = [image.path for split in (splits.train, splits.val) for image in split.images if image.path is not None]
    check_output(folder, inputs)
    reader, cfg = _reading(project, splits)
    evaluator = task.evaluator(splits.val, cfg, project)
    images = _training_images(project, splits, reader)
    scaling = measure(images)
    typical_area_px2 = float(np.median([one.area_px2 for one in splits.train.instances] or [1.0]))
    places = project.traits.main_metrics
    scored = []
    for method in tqdm(chosen, desc="methods", unit=" methods", disable=None, leave=False):
        words = method.fit(images, scaling)
        scored.append(_scored(method, words, splits, reader, scaling, evaluator, task, typical_area_px2, places))
    scored.sort(key=lambda row: -1.0 if row.main.value is None else -row.main.value - 1e-9)
    data_sha256 = splits.val.content_hash()
    result = BaselineResult(
        folder,
        places[0].title,
        len(splits.val.images),
        data_sha256,
        tuple(scored),
        _latest_model(project, places[0], data_sha256),
    )
    write_baseline(result)
    return result


def _reading(project: Project, splits: Splits) -> tuple[ImageReader, CfgNode]:
    """The reader of the images, and a config with what an evaluator asks of one."""
    cfg = preset_config(project.model.preset)
    raster, white = raster_options(project), white_of(splits.train, splits.val)
    channels = 3
    if raster is not None:
        with ImageReader(None, raster=raster).open(str(splits.train.images[0].path)) as first:
            is_gray_photo = first.is_photo and first.channels == 1 and not is_bridge(cfg)
            channels = 3 if is_gray_photo else first.channels
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0] * channels, [1.0] * channels
    cfg.INPUT.FORMAT, cfg.INPUT.WHITE = "RGB", white or 0.0
    return ImageReader(channels, "RGB", raster, white), cfg


def _training_images(project: Project, splits: Splits, reader: ImageReader) -> TrainingImages:
    """Some training images; without label maps, pixels without an object are one more class."""
    classes = len(splits.train.categories)
    background = None if project.has_label_maps else classes
    by_image = splits.train.by_image()
    has_objects = [
        any(one.area_px2 < image.width_px * image.height_px for one in by_image[image.id])  # others are the background
        for image in splits.train.images
    ]
    chosen = choose(has_objects, most=_MOST_TRAINING_IMAGES, seed=0)
    return TrainingImages(splits.train, reader, chosen, background, classes + (background is not None))


def _scored(
    method: Method,
    words: str,
    splits: Splits,
    reader: ImageReader,
    scaling: Scaling,
    evaluator: Evaluator[Any],
    task: Task,
    typical_area_px2: float,
    places: Sequence[MetricPlace],
) -> BaselineRow:
    """Predict with a fitted method on the validation split, and score it as a network is scored."""
    class_names = splits.val.class_names
    results, seconds = [], 0.0
    for image in splits.val.images:
        pixels = shown(reader, str(image.path))
        began = time.perf_counter()
        class_ids = method.predict(pixels, scaling)
        seconds += time.perf_counter() - began
        if pixels.dtype.kind == "f":
            class_ids[~np.isfinite(pixels).any(axis=2)] = 255
        results.append(task.of_class_map(class_ids, class_names, typical_area_px2=typical_area_px2))
    metrics = evaluator.evaluate(evaluator.keep(results), Scoring(split="val", kinds=_KINDS)).metrics
    content = metrics.to_json()
    place = next(one for one in places if one.kind in content["metrics"])
    classes = {row["name"]: metric for row in content["classes"] if (metric := _class_metric(row, place)) is not None}
    main = Metric(**content["metrics"][place.kind][place.name])
    return BaselineRow(method.name, method.title, words, main, 1000 * seconds / len(results), classes)


def _class_metric(row: dict[str, Any], place: MetricPlace) -> Metric | None:
    """The metric of a class, by kinds for instances and without for label maps."""
    values = row["metrics"].get(place.kind, row["metrics"])
    value = values.get(place.name) or values.get("IoU")
    return Metric(**value) if isinstance(value, dict) and "value" in value else None


def _latest_model(project: Project, place: MetricPlace, data_sha256: str) -> tuple[Path, Metric] | None:
    """The latest run of the project and its main metric on the same data."""
    run = latest_run(project.name, having="evaluation.json")
    if run is None:
        return None
    try:
        content = read_evaluation(run.path / "evaluation.json")
        if content.get("data_sha256") != data_sha256:
            return None
        return run.path, Metric(**content["metrics"][place.kind][place.name])
    except (D2TuneError, KeyError, TypeError) as error:
        logger.warning("%s: its evaluation cannot be read (%s)", run.path, error)
        return None
