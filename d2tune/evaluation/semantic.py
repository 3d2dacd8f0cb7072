"""Evaluating a semantic model: how well its label images agree with those drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune import files
from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.io.outputs import beside
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.data.catalog import detectron2_dicts
from d2tune.data.image_reader import ImageReader, image_reader
from d2tune.data.label_maps import decode_png, encode_png, label_files, read_labels
from d2tune.data.semantic_mapper import SemanticEvaluationSamples, resized_labels
from d2tune.evaluation.contact_sheet import chosen_images
from d2tune.evaluation.evaluator import Quick, Scoring
from d2tune.evaluation.map_metrics import MapMetrics, map_metrics, write_map_outcome
from d2tune.inference.loop import StageTimes, stream
from d2tune.inference.sliding_window import predict_rows
from d2tune.inference.submission import dataset_of_maps
from d2tune.metrics import bootstrap
from d2tune.metrics.competitions import competition_score
from d2tune.metrics.metric import Metric
from d2tune.metrics.semantic import SemanticScorer
from d2tune.project import Project
from d2tune.report.sheets.label_overlay import to_rgb
from d2tune.report.sheets.label_sheet import LabelPanel, write_label_sheet

PREDICTIONS = "predicted_labels"
"""Folder of label images in a run's folder: the place of the class, 255 where there is none."""

LabelPng = bytes
"""A label image ``(H, W)`` as a PNG, which takes a hundredth of its pixels' memory."""


@dataclass(frozen=True, slots=True)
class MapOutcome:
    """An evaluation of label images or panoptic predictions in full."""

    metrics: MapMetrics

    @property
    def headline(self) -> str:
        """The figure that counts, by name: ``mIoU 81.3``."""
        return self.metrics.headline

    def write(self, folder: Path, *, bound: Mapping[str, Any], times: StageTimes | None) -> None:
        """Write ``evaluation.json`` and ``plots``."""
        write_map_outcome(folder, self.metrics, bound=bound, times=times)


class SemanticEvaluator:
    """Evaluates semantic models on one part of the data; see `tasks.Evaluator`.

    Args:
        dataset: The part, its background painted.
        cfg: The run's config.
        project: How its images are read, and the competition that its data are of.
    """

    def __init__(self, dataset: Dataset, cfg: CfgNode, project: Project) -> None:
        self._dataset = dataset
        self._cfg = cfg
        self._project = project
        self._reader = image_reader(project, cfg)
        self._labels = label_files(dataset, task="semantic")

    def predict(
        self,
        model: Any,
        *,
        times: StageTimes | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
    ) -> list[LabelPng]:
        """A label image for each image, in order."""
        return predict_labels(
            model,
            self._dataset,
            self._cfg,
            self._reader,
            times=times,
            batch_size=batch_size,
            show_progress=show_progress,
        )

    def quick(self, found: Sequence[LabelPng]) -> Quick:
        """Mean IoU and what belongs to it, without boundaries."""
        metrics = map_metrics(self.scorer(found, boundary=False), intervals=False)
        scalars = {f"semantic/{name}": one.value for name, one in metrics.metrics.items() if one.value is not None}
        of_classes = {row["name"]: row["metrics"]["IoU"].value for row in metrics.classes}
        scalars |= {f"semantic/IoU-{name}": value for name, value in of_classes.items() if value is not None}
        figures = metrics.metrics
        line = f"mIoU {figures['mIoU']}  pixel accuracy {figures['pACC']}  mean Dice {figures['mDice']}"
        return Quick(metrics.main.value, line, scalars)

    def evaluate(self, found: Sequence[LabelPng], scoring: Scoring) -> MapOutcome:
        """All figures with their intervals."""
        with scoring.times.scoring():
            metrics = map_metrics(self.scorer(found), intervals=True)
            preset = self._project.data.csv_preset
            if preset is not None:
                metrics = replace(metrics, metrics=metrics.metrics | {preset: self._competition(found, preset)})
            return MapOutcome(metrics)

    def save(self, found: Sequence[LabelPng], folder: Path) -> str:
        """Write a PNG for each image into ``predicted_labels``, and the classes into ``categories.json`` there."""
        save_labels(found, self._dataset.images, self._dataset.class_names, folder / PREDICTIONS)
        return self.digest(folder)

    def digest(self, folder: Path) -> str:
        """A SHA-256 over the PNGs and their names."""
        places = beside(self._dataset.images, folder / PREDICTIONS, ".png")
        return files.sha256_files(folder / PREDICTIONS, [places[image.id] for image in self._dataset.images])

    def load(self, folder: Path) -> list[LabelPng]:
        """Read the PNGs."""
        places = beside(self._dataset.images, folder / PREDICTIONS, ".png")
        return [places[image.id].read_bytes() for image in self._dataset.images]

    def draw(self, path: Path, found: Sequence[LabelPng], *, title: str, subtitle: str) -> None:
        """The image, the labels drawn and those predicted, with a legend."""
        panels = []
        for at in chosen_images(len(found)):
            image, (predicted, truth) = self._dataset.images[at], self._both(found, at)
            scorer = SemanticScorer(self._dataset.class_names, boundary=False)
            scorer.add(predicted, truth, image.file_name)
            panels.append(
                LabelPanel(
                    image_rgb=shown(self._reader, image),
                    title=image.file_name,
                    truth=truth,
                    predicted=predicted,
                    note=f"mIoU {scorer.result().metrics['mIoU']}",
                )
            )
        write_label_sheet(path, panels, class_names=self._dataset.class_names, title=title, subtitle=subtitle)

    def _competition(self, found: Sequence[LabelPng], preset: str) -> Metric:
        """The figure by which a competition ranks, from 0 to 100, with its interval over the images."""
        background = self._project.data.background
        maps = (decode_png(one) for one in found)
        predicted = dataset_of_maps(
            self._dataset.images, maps, classes=self._dataset.class_names, background=background, preset=preset
        )
        result = competition_score(preset, self._dataset, predicted, background=background)
        each = 100 * np.array(list(result.per_image.values()))
        span = bootstrap.interval(lambda weights: weights @ each / weights.sum(axis=1), len(each))
        return Metric(100 * result.value, low=span.low, high=span.high)

    def _both(self, found: Sequence[LabelPng], at: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Prediction and ground truth of an image; pixels without data are left out of both."""
        predicted, truth = decode_png(found[at]), read_labels(self._labels.semantic[at])
        return predicted, np.where(predicted == IGNORE_LABEL, np.uint8(IGNORE_LABEL), truth)

    def scorer(self, found: Sequence[LabelPng], *, boundary: bool = True) -> SemanticScorer:
        """A scorer with all images of the part added."""
        scorer = SemanticScorer(self._dataset.class_names, boundary=boundary)
        for at, image in enumerate(self._dataset.images):
            scorer.add(*self._both(found, at), image.file_name)
        return scorer


def predict_labels(
    model: Any,
    dataset: Dataset,
    cfg: CfgNode,
    reader: ImageReader,
    *,
    times: StageTimes | None = None,
    batch_size: int | None = None,
    show_progress: bool | None = None,
) -> list[LabelPng]:
    """The class of every pixel of every image of ``dataset``, in order.

    Args:
        model: A semantic model.
        dataset: Images to run on; its instances are not looked at.
        cfg: For image size, and the size of windows where images are large.
        reader: Reads the images.
        times: Takes the time of each stage.
        batch_size: Images or windows per forward pass.
        show_progress: Whether to draw a progress bar; None draws one on a terminal.
    """
    times = times or StageTimes()
    options: dict[str, Any] = {"batch_size": batch_size, "show_progress": show_progress}
    if cfg.TEST.WINDOW_PX:
        with times.running():
            return [
                encode_png(
                    predict_windows(model, str(image.path), cfg, reader, classes=len(dataset.categories), **options)
                )
                for image in dataset.images
            ]
    samples = SemanticEvaluationSamples(
        detectron2_dicts(dataset),
        reader=reader,
        short_side_px=cfg.INPUT.MIN_SIZE_TEST,
        max_side_px=cfg.INPUT.MAX_SIZE_TEST,
    )
    found: list[LabelPng] = [b""] * len(samples)

    def finish(index: int, sample: dict[str, Any], labels: NDArray[np.uint8]) -> None:
        found[index] = encode_png(labels)

    stream(model, samples, forward_labels, finish, times=times, **options)
    return found


def predict_windows(
    model: Any, path: str | Path, cfg: CfgNode, reader: ImageReader, *, classes: int, **options: Any
) -> NDArray[np.uint8]:
    """The labels ``(H, W)`` of one image, found in windows of ``cfg.TEST.WINDOW_PX``."""
    with reader.open(path) as image:
        labels = np.empty((image.height_px, image.width_px), np.uint8)
        for rows in predict_rows(
            model, image, classes=classes, window_px=cfg.TEST.WINDOW_PX, scores="probabilities", **options
        ):
            labels[rows.top_px : rows.top_px + len(rows.class_ids)] = rows.class_ids
    return labels


def forward_labels(model: Any, batch: Sequence[dict[str, Any]]) -> list[NDArray[np.uint8]]:
    """The class of every pixel of each image of a batch, off the device."""
    found = [one["sem_seg"].argmax(dim=0).to(torch.uint8).cpu().numpy() for one in model(batch)]
    return [_without_data(labels, sample) for labels, sample in zip(found, batch, strict=True)]


def _without_data(labels: NDArray[np.uint8], sample: dict[str, Any]) -> NDArray[np.uint8]:
    """The labels, 255 where no channel of what the model saw has data."""
    image = sample["image"]
    if not image.is_floating_point():
        return labels
    empty = resized_labels(image.isnan().all(dim=0).numpy().astype(np.uint8), labels.shape)
    return np.where(empty == 1, np.uint8(IGNORE_LABEL), labels)


def save_labels(found: Sequence[LabelPng], images: Sequence[Image], class_names: Sequence[str], folder: Path) -> None:
    """Write label images, and ``categories.json`` with what each value means."""
    places = beside(images, folder, ".png")
    for image, content in zip(images, found, strict=True):
        files.write_bytes(places[image.id], content)
    write_categories(folder, class_names)


def write_categories(folder: Path, class_names: Sequence[str]) -> None:
    """Write ``categories.json``: what each value of the label images in a folder means."""
    files.write_json(folder / "categories.json", [{"label": at, "name": name} for at, name in enumerate(class_names)])


def shown(reader: ImageReader, image: Image) -> NDArray[np.uint8]:
    """An image of any number of channels as RGB ``(H, W, 3)``, for people."""
    rgb: NDArray[np.uint8] = to_rgb(reader.shown(reader.read(str(image.path))))
    return rgb
