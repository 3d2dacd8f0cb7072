"""The evaluator of panoptic maps: panoptic quality of objects and regions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune import files
from d2tune.annotations.formats.panoptic import from_colors, to_colors
from d2tune.annotations.io.outputs import beside
from d2tune.annotations.io.photos.reading import read_photo_of
from d2tune.annotations.model.dataset import Dataset
from d2tune.data.image_reader import Pixels
from d2tune.data.label_maps import decode_png, encode_png, label_files, panoptic_table
from d2tune.evaluation.comparison import MapSide
from d2tune.evaluation.contact_sheet import chosen_images
from d2tune.evaluation.evaluator import Evaluator, Quick, Scoring
from d2tune.evaluation.images.panoptic import PanopticImages
from d2tune.evaluation.map_metrics import MapOutcome, spanned_main
from d2tune.evaluation.panoptic_metrics import PanopticMetrics, panoptic_metrics
from d2tune.evaluation.predicted_images import check_predicted_images, write_predicted_images
from d2tune.inference.results import PanopticMap
from d2tune.metrics.panoptic import PanopticScorer
from d2tune.report.sheets.label_overlay import segment_overlay
from d2tune.report.sheets.label_sheet import LabelPanel, write_label_sheet

PREDICTIONS = "predicted_segments"
"""Folder in a run folder with ``panoptic.json`` and its PNGs, in COCO's panoptic format."""

Segments = tuple[bytes, list[dict[str, Any]]]
"""A PNG whose colors are segment ids, and their ``segments_info`` with category ids."""


class PanopticEvaluator(Evaluator[Segments]):
    """Evaluates `PanopticMap` on a split; keeps the segment ids of each image as a PNG."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self._labels = label_files(dataset, with_segments=True)

    def _kept(self, index: int, result: PanopticMap, pixels: Pixels | None) -> Segments:
        return encode_png(to_colors(result.segment_ids)), result.to_segments_info()

    def quick(self, predictions: Sequence[Segments]) -> Quick:
        """Panoptic quality (PQ) and its components."""
        scorer = self.scorer(predictions)
        metrics = panoptic_metrics(scorer, intervals=False)
        spanned = partial(spanned_main, metrics, scorer)
        return Quick(metrics.main.value, metrics.short_line(), metrics.scalars, spanned)

    def evaluate(self, predictions: Sequence[Segments], scoring: Scoring) -> MapOutcome:
        """All metrics with their intervals."""
        with scoring.times.scoring():
            return MapOutcome(panoptic_metrics(self.scorer(predictions), intervals=True))

    def side(self, predictions: Sequence[Segments], *, name: str, truth_sha256: str) -> MapSide:
        """The predictions as a side of a comparison."""
        metrics = PanopticMetrics
        return MapSide(name, truth_sha256, self.scorer(predictions), metrics.task, metrics.main_name)

    def images(self, predictions: Sequence[Segments]) -> PanopticImages:
        """Which segments are missed or false on each image."""

        def segments(index: int) -> tuple[tuple[NDArray[np.int32], Any], tuple[NDArray[np.int32], Any]]:
            png, infos = predictions[index]
            return (from_colors(decode_png(png)), infos), (self._truth(index), self._labels.infos[index])

        return PanopticImages(self._dataset.categories, len(predictions), segments)

    def save(self, predictions: Sequence[Segments], folder: Path) -> str:
        """Write ``predicted_segments/panoptic.json``, with the ids of the source file, and a PNG for each image."""
        target = folder / PREDICTIONS
        write_predicted_images(folder, self._dataset)
        image_ids, category_ids = self._dataset.source_image_ids(), self._dataset.source_category_ids()
        png_files = beside(self._dataset.images, target / "panoptic", ".png")
        rows = []
        for image, (png, infos) in zip(self._dataset.images, predictions, strict=True):
            files.write_bytes(png_files[image.id], png)
            name = png_files[image.id].relative_to(target / "panoptic").as_posix()
            written = [info | {"category_id": category_ids[info["category_id"]]} for info in infos]
            rows.append({"image_id": image_ids[image.id], "file_name": name, "segments_info": written})
        table = panoptic_table(self._dataset, rows)
        for key, ids in (("images", image_ids), ("categories", category_ids)):
            table[key] = [row | {"id": ids[row["id"]]} for row in table[key]]
        files.write_json(target / "panoptic.json", table)
        return self.digest(folder)

    def files(self, folder: Path) -> list[Path]:
        """``panoptic.json`` and the PNGs."""
        target = folder / PREDICTIONS
        return [target / "panoptic.json", *beside(self._dataset.images, target / "panoptic", ".png").values()]

    def digest(self, folder: Path) -> str:
        """A SHA-256 over ``panoptic.json`` and the PNGs."""
        target = folder / PREDICTIONS
        png_files = beside(self._dataset.images, target / "panoptic", ".png")
        return files.sha256_files(target, [target / "panoptic.json", *png_files.values()])

    def load(self, folder: Path) -> list[Segments]:
        """Read ``panoptic.json`` and the PNGs."""
        target = folder / PREDICTIONS
        image_ids: dict[int, Any] = {image.id: image.id for image in self._dataset.images}
        class_of: dict[Any, int] = {one.id: one.id for one in self._dataset.categories}
        if check_predicted_images(folder, self._dataset):
            image_ids = dict(self._dataset.source_image_ids())
            class_of = {source: own for own, source in self._dataset.source_category_ids().items()}
        png_files = beside(self._dataset.images, target / "panoptic", ".png")
        rows = json.loads((target / "panoptic.json").read_bytes())["annotations"]
        infos = {
            row["image_id"]: [info | {"category_id": class_of[info["category_id"]]} for info in row["segments_info"]]
            for row in rows
        }
        return [(png_files[image.id].read_bytes(), infos[image_ids[image.id]]) for image in self._dataset.images]

    def draw(self, path: Path, predictions: Sequence[Segments], *, title: str, subtitle: str) -> None:
        """Draw images, annotated and predicted segments, with a legend."""
        panels = []
        for index in chosen_images(len(predictions)):
            image = self._dataset.images[index]
            photo = read_photo_of(image)
            ids, infos = from_colors(decode_png(predictions[index][0])), predictions[index][1]
            panels.append(
                LabelPanel(
                    image_rgb=photo,
                    title=image.file_name,
                    truth_rgb=self._overlay(photo, self._truth(index), self._labels.infos[index]),
                    predicted_rgb=self._overlay(photo, ids, infos),
                    note=f"PQ {self._pq_of(index, predictions[index])}",
                )
            )
        write_label_sheet(path, panels, class_names=self._dataset.class_names, title=title, subtitle=subtitle)

    def scorer(self, predictions: Sequence[Segments]) -> PanopticScorer:
        """A scorer with all images of the split added."""
        scorer = PanopticScorer(self._dataset.categories)
        for index, prediction in enumerate(predictions):
            self._add(scorer, index, prediction)
        return scorer

    def _overlay(
        self, photo: NDArray[np.uint8], ids: NDArray[np.int32], infos: Sequence[dict[str, Any]]
    ) -> NDArray[np.uint8]:
        categories = self._dataset.categories
        rows = [(info["id"], info["category_id"] - 1, categories[info["category_id"] - 1].isthing) for info in infos]
        return segment_overlay(photo, ids, rows, self._dataset.class_names)

    def _truth(self, index: int) -> NDArray[np.int32]:
        return from_colors(decode_png(self._labels.segments[index].read_bytes()))

    def _pq_of(self, index: int, prediction: Segments) -> str:
        scorer = PanopticScorer(self._dataset.categories)
        self._add(scorer, index, prediction)
        return str(scorer.result().metrics["PQ"])

    def _add(self, scorer: PanopticScorer, index: int, prediction: Segments) -> None:
        ids, infos = from_colors(decode_png(prediction[0])), prediction[1]
        scorer.add(ids, infos, self._truth(index), self._labels.infos[index], self._dataset.images[index].file_name)
