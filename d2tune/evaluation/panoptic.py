"""Evaluating a panoptic model: how well it finds and outlines objects and regions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune import files
from d2tune.annotations.formats.panoptic import from_colors, to_colors
from d2tune.annotations.io.outputs import beside
from d2tune.annotations.model.dataset import Dataset
from d2tune.data.catalog import detectron2_dicts
from d2tune.data.label_maps import decode_png, encode_png, label_files, panoptic_table
from d2tune.data.mapper import EvaluationSamples, read_image
from d2tune.evaluation.contact_sheet import chosen_images
from d2tune.evaluation.evaluator import Quick, Scoring
from d2tune.evaluation.map_metrics import map_metrics
from d2tune.evaluation.semantic import MapOutcome
from d2tune.inference.loop import StageTimes, stream
from d2tune.metrics.panoptic import PanopticScorer
from d2tune.modeling.panoptic import segments
from d2tune.report.sheets.label_overlay import segment_overlay
from d2tune.report.sheets.label_sheet import LabelPanel, write_label_sheet

PREDICTIONS = "predicted_segments"
"""Folder in a run's folder with ``panoptic.json`` and its PNGs, COCO's panoptic format."""

Segments = tuple[bytes, list[dict[str, Any]]]
"""A PNG whose colors number segments, and their ``segments_info`` with category ids."""


class PanopticEvaluator:
    """Evaluates panoptic models on one part of the data; see `tasks.Evaluator`.

    Args:
        dataset: The part, its background painted.
        cfg: The run's config.
    """

    def __init__(self, dataset: Dataset, cfg: CfgNode) -> None:
        self._dataset = dataset
        self._cfg = cfg
        self._labels = label_files(dataset, task="panoptic")

    def predict(
        self,
        model: Any,
        *,
        times: StageTimes | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
    ) -> list[Segments]:
        """The segments of each image, in order."""
        samples = EvaluationSamples(
            detectron2_dicts(self._dataset),
            channel_order=self._cfg.INPUT.FORMAT,
            short_side_px=self._cfg.INPUT.MIN_SIZE_TEST,
            max_side_px=self._cfg.INPUT.MAX_SIZE_TEST,
        )
        found: list[Segments] = [(b"", [])] * len(samples)

        def forward(
            model: Any, batch: Sequence[dict[str, Any]]
        ) -> list[tuple[NDArray[np.int32], list[dict[str, Any]]]]:
            return forward_segments(model, batch, self._dataset)

        def finish(index: int, sample: dict[str, Any], one: tuple[NDArray[np.int32], list[dict[str, Any]]]) -> None:
            found[index] = encode_png(to_colors(one[0])), one[1]

        stream(model, samples, forward, finish, times=times, batch_size=batch_size, show_progress=show_progress)
        return found

    def quick(self, found: Sequence[Segments]) -> Quick:
        """PQ and what belongs to it."""
        metrics = map_metrics(self.scorer(found), intervals=False)
        scalars = {f"panoptic/{name}": one.value for name, one in metrics.metrics.items() if one.value is not None}
        of_classes = {row["name"]: row["metrics"]["PQ"].value for row in metrics.classes}
        scalars |= {f"panoptic/PQ-{name}": value for name, value in of_classes.items() if value is not None}
        figures = metrics.metrics
        line = f"PQ {figures['PQ']} (things {figures['PQ_th']}, stuff {figures['PQ_st']})  SQ {figures['SQ']}"
        return Quick(metrics.main.value, f"{line}  RQ {figures['RQ']}", scalars)

    def evaluate(self, found: Sequence[Segments], scoring: Scoring) -> MapOutcome:
        """All figures with their intervals."""
        with scoring.times.scoring():
            return MapOutcome(map_metrics(self.scorer(found), intervals=True))

    def save(self, found: Sequence[Segments], folder: Path) -> str:
        """Write ``predicted_segments/panoptic.json`` and a PNG for each image."""
        target = folder / PREDICTIONS
        places = beside(self._dataset.images, target / "panoptic", ".png")
        rows = []
        for image, (png, infos) in zip(self._dataset.images, found, strict=True):
            files.write_bytes(places[image.id], png)
            name = places[image.id].relative_to(target / "panoptic").as_posix()
            rows.append({"image_id": image.id, "file_name": name, "segments_info": infos})
        files.write_json(target / "panoptic.json", panoptic_table(self._dataset, rows))
        return self.digest(folder)

    def digest(self, folder: Path) -> str:
        """A SHA-256 over ``panoptic.json`` and the PNGs."""
        target = folder / PREDICTIONS
        places = beside(self._dataset.images, target / "panoptic", ".png")
        return files.sha256_files(target, [target / "panoptic.json", *places.values()])

    def load(self, folder: Path) -> list[Segments]:
        """Read them."""
        target = folder / PREDICTIONS
        places = beside(self._dataset.images, target / "panoptic", ".png")
        rows = json.loads((target / "panoptic.json").read_bytes())["annotations"]
        infos = {row["image_id"]: row["segments_info"] for row in rows}
        return [(places[image.id].read_bytes(), infos[image.id]) for image in self._dataset.images]

    def draw(self, path: Path, found: Sequence[Segments], *, title: str, subtitle: str) -> None:
        """The photo, the segments drawn and those predicted, with a legend."""
        panels = []
        for at in chosen_images(len(found)):
            image = self._dataset.images[at]
            photo = read_image(str(image.path), "RGB")
            ids, infos = from_colors(decode_png(found[at][0])), found[at][1]
            panels.append(
                LabelPanel(
                    image_rgb=photo,
                    title=image.file_name,
                    truth_rgb=self._overlay(photo, self._truth(at), self._labels.infos[at]),
                    predicted_rgb=self._overlay(photo, ids, infos),
                    note=f"PQ {self._scored_one(at, found[at])}",
                )
            )
        write_label_sheet(path, panels, class_names=self._dataset.class_names, title=title, subtitle=subtitle)

    def _overlay(
        self, photo: NDArray[np.uint8], ids: NDArray[np.int32], infos: Sequence[dict[str, Any]]
    ) -> NDArray[np.uint8]:
        return overlay_of(photo, ids, infos, self._dataset)

    def _truth(self, at: int) -> NDArray[np.int32]:
        return from_colors(decode_png(self._labels.segments[at].read_bytes()))

    def _scored_one(self, at: int, found: Segments) -> str:
        scorer = PanopticScorer(self._dataset.categories)
        self._add(scorer, at, found)
        return str(scorer.result().metrics["PQ"])

    def scorer(self, found: Sequence[Segments]) -> PanopticScorer:
        """A scorer with all images of the part added."""
        scorer = PanopticScorer(self._dataset.categories)
        for at, one in enumerate(found):
            self._add(scorer, at, one)
        return scorer

    def _add(self, scorer: PanopticScorer, at: int, found: Segments) -> None:
        ids, infos = from_colors(decode_png(found[0])), found[1]
        scorer.add(ids, infos, self._truth(at), self._labels.infos[at], self._dataset.images[at].file_name)


def forward_segments(
    model: Any, batch: Sequence[dict[str, Any]], dataset: Dataset
) -> list[tuple[NDArray[np.int32], list[dict[str, Any]]]]:
    """The segments of each image of a batch, off the device: ids ``(H, W)`` and ``segments_info`` with category ids.

    Args:
        model: A panoptic model of Detectron2.
        batch: Its samples.
        dataset: For its categories.
    """
    things = sum(category.isthing for category in dataset.categories)
    found = []
    for output in model(batch):
        ids, infos = segments(output, things=things, stuff=len(dataset.categories) - things)
        found.append((ids, [_info(info, ids, dataset) for info in infos]))
    return found


def _info(info: dict[str, Any], ids: NDArray[np.int32], dataset: Dataset) -> dict[str, Any]:
    category = dataset.categories[info["category_id"]]
    row = {"id": int(info["id"]), "category_id": category.id, "isthing": int(category.isthing)}
    row["area"] = int((ids == info["id"]).sum())
    return row | ({"score": round(float(info["score"]), 6)} if info.get("score") is not None else {})


def overlay_of(
    photo: NDArray[np.uint8], ids: NDArray[np.int32], infos: Sequence[dict[str, Any]], dataset: Dataset
) -> NDArray[np.uint8]:
    """Segments in the colors of their classes on a photo."""
    rows = [
        (info["id"], info["category_id"] - 1, dataset.categories[info["category_id"] - 1].isthing) for info in infos
    ]
    drawn: NDArray[np.uint8] = segment_overlay(photo, ids, rows, dataset.class_names)
    return drawn
