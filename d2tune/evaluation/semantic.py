"""The evaluator of label maps: their agreement with annotated label maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2tune import files
from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.io.outputs import beside
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.data.image_reader import ImageReader, Pixels
from d2tune.data.label_maps import decode_png, encode_png, label_files, read_label_map
from d2tune.evaluation.comparison import MapSide
from d2tune.evaluation.contact_sheet import chosen_images
from d2tune.evaluation.evaluator import Evaluator, Quick, Scoring
from d2tune.evaluation.images.semantic import SemanticImages
from d2tune.evaluation.map_metrics import MapOutcome, spanned_main
from d2tune.evaluation.predicted_images import check_predicted_images, write_predicted_images
from d2tune.evaluation.semantic_metrics import SemanticMetrics, semantic_metrics
from d2tune.inference.results import LabelMap
from d2tune.inference.writers.semantic import CATEGORIES, write_categories
from d2tune.inference.writers.submission import dataset_of_maps
from d2tune.metrics import bootstrap
from d2tune.metrics.competitions import COMPETITIONS, competition_score
from d2tune.metrics.metric import Metric
from d2tune.metrics.semantic import SemanticScorer
from d2tune.report.sheets.label_overlay import to_rgb
from d2tune.report.sheets.label_sheet import LabelPanel, write_label_sheet

PREDICTIONS = "predicted_labels"
"""Folder of label maps in a run folder, PNGs of class indices and 255 for ignored pixels."""

LabelPng = bytes
"""A label map ``(H, W)`` as a PNG, which takes a hundredth of the memory of the pixels."""


class SemanticEvaluator(Evaluator[LabelPng]):
    """Evaluates `LabelMap` on a split; keeps a PNG for each image.

    Args:
        dataset: See `Evaluator`.
        reader: Reader of the images to draw on.
        background: The class of the pixels that no shape covers.
        csv_preset: The dialect of the competition of the data; None if they are not of a competition.
    """

    def __init__(
        self, dataset: Dataset, *, reader: ImageReader, background: str | None = None, csv_preset: str | None = None
    ) -> None:
        super().__init__(dataset)
        self._reader = reader
        self._background = background
        self._csv_preset = csv_preset
        self._labels = label_files(dataset)

    def _kept(self, index: int, result: LabelMap, pixels: Pixels | None) -> LabelPng:
        return encode_png(result.class_ids)

    def quick(self, predictions: Sequence[LabelPng]) -> Quick:
        """Mean IoU, pixel accuracy and Dice, without boundaries."""
        scorer = self.scorer(predictions, boundary=False)
        metrics = semantic_metrics(scorer, intervals=False)
        spanned = partial(spanned_main, metrics, scorer)
        return Quick(metrics.main.value, metrics.short_line(), metrics.scalars, spanned)

    def evaluate(self, predictions: Sequence[LabelPng], scoring: Scoring) -> MapOutcome:
        """All metrics with their intervals."""
        with scoring.times.scoring():
            metrics = semantic_metrics(self.scorer(predictions), intervals=True)
            preset = self._csv_preset
            if preset in COMPETITIONS:
                metrics = replace(metrics, metrics=metrics.metrics | {preset: self._competition(predictions, preset)})
            return MapOutcome(metrics)

    def side(self, predictions: Sequence[LabelPng], *, name: str, truth_sha256: str) -> MapSide:
        """The label maps as a side of a comparison."""
        metrics = SemanticMetrics
        return MapSide(name, truth_sha256, self.scorer(predictions), metrics.task, metrics.main_name)

    def images(self, predictions: Sequence[LabelPng]) -> SemanticImages:
        """Which regions are missed or false on each image."""
        return SemanticImages(
            self._dataset.class_names,
            len(predictions),
            lambda index: self._label_maps(predictions, index),
            background=self._background,
        )

    def save(self, predictions: Sequence[LabelPng], folder: Path) -> str:
        """Write a PNG for each image and ``categories.json`` to ``predicted_labels``."""
        write_predicted_images(folder, self._dataset)
        save_labels(predictions, self._dataset.images, self._dataset.class_names, folder / PREDICTIONS)
        return self.digest(folder)

    def files(self, folder: Path) -> list[Path]:
        """The PNGs and ``categories.json``."""
        png_files = beside(self._dataset.images, folder / PREDICTIONS, ".png")
        return [*png_files.values(), folder / PREDICTIONS / CATEGORIES]

    def digest(self, folder: Path) -> str:
        """A SHA-256 of the PNGs and their names."""
        png_files = beside(self._dataset.images, folder / PREDICTIONS, ".png")
        return files.sha256_files(folder / PREDICTIONS, [png_files[image.id] for image in self._dataset.images])

    def load(self, folder: Path) -> list[LabelPng]:
        """Read the PNGs."""
        check_predicted_images(folder, self._dataset)
        png_files = beside(self._dataset.images, folder / PREDICTIONS, ".png")
        return [png_files[image.id].read_bytes() for image in self._dataset.images]

    def draw(self, path: Path, predictions: Sequence[LabelPng], *, title: str, subtitle: str) -> None:
        """Draw images, annotated and predicted label maps, with a legend."""
        panels = []
        for index in chosen_images(len(predictions)):
            image, (predicted, truth) = self._dataset.images[index], self._label_maps(predictions, index)
            scorer = SemanticScorer(self._dataset.class_names, boundary=False)
            scorer.add(predicted, truth, image.file_name)
            panels.append(
                LabelPanel(
                    image_rgb=to_rgb(self._reader.shown(self._reader.read(str(image.path)))),
                    title=image.file_name,
                    truth=truth,
                    predicted=predicted,
                    note=f"mIoU {scorer.result().metrics['mIoU']}",
                )
            )
        write_label_sheet(path, panels, class_names=self._dataset.class_names, title=title, subtitle=subtitle)

    def _competition(self, predictions: Sequence[LabelPng], preset: str) -> Metric:
        """The metric of a competition, times 100, with its interval over the images."""
        maps = (decode_png(prediction) for prediction in predictions)
        predicted = dataset_of_maps(
            self._dataset.images, maps, classes=self._dataset.class_names, background=self._background, preset=preset
        )
        result = competition_score(preset, self._dataset, predicted, background=self._background)
        scores = 100 * np.array(list(result.per_image.values()))
        span = bootstrap.interval(lambda weights: weights @ scores / weights.sum(axis=1), len(scores))
        return Metric(100 * result.value, low=span.low, high=span.high)

    def _label_maps(self, predictions: Sequence[LabelPng], index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Predicted and annotated label map ``(H, W)`` of an image; pixels without data are ignored in both."""
        predicted, truth = decode_png(predictions[index]), read_label_map(self._labels.semantic[index])
        return predicted, np.where(predicted == IGNORE_LABEL, np.uint8(IGNORE_LABEL), truth)

    def scorer(self, predictions: Sequence[LabelPng], *, boundary: bool = True) -> SemanticScorer:
        """A scorer with all images of the split added."""
        scorer = SemanticScorer(self._dataset.class_names, boundary=boundary)
        for index, image in enumerate(self._dataset.images):
            scorer.add(*self._label_maps(predictions, index), image.file_name)
        return scorer


def save_labels(
    predictions: Sequence[LabelPng], images: Sequence[Image], class_names: Sequence[str], folder: Path
) -> None:
    """Write the PNG of each image, and ``categories.json`` with the class of each value."""
    png_files = beside(images, folder, ".png")
    for image, content in zip(images, predictions, strict=True):
        files.write_bytes(png_files[image.id], content)
    write_categories(folder, class_names)
