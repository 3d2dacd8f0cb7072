"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune.annotations.formats.rle_csv import PRESETS
from d2tune.annotations.model.dataset import Category, Dataset
from d2tune.data.image_reader import image_reader
from d2tune.data.label_maps import LabelFiles, label_files
from d2tune.data.training import semantic_samples
from d2tune.errors import DataError
from d2tune.evaluation.semantic import SemanticEvaluator
from d2tune.evaluation.semantic_metrics import SemanticMetrics
from d2tune.inference.predictors.semantic import SemanticPredictor
from d2tune.inference.results import LabelMap
from d2tune.inference.uncertainty import PixelUncertainty
from d2tune.inference.writers.base import WriterFactory
from d2tune.inference.writers.semantic import LabelMapWriter, LabelmeRegionsWriter, MapOverlayWriter, SubmissionWriter
from d2tune.modeling.config import is_bridge
from d2tune.project import Project
from d2tune.tasks.base import OVERLAYS, Samples, Task, counted_classes


class SemanticTask(Task):
    """A class for each pixel; see `Task`."""

    name = "semantic"
    main_metric = "miou"
    predictions_noun = "regions"
    gives = "The class of each pixel, one of"
    takes_windows = True
    measures_pixels = True
    has_baseline = True
    uncertainty = PixelUncertainty

    def label_files(self, dataset: Dataset) -> LabelFiles:
        """The class of each pixel."""
        return label_files(dataset)

    def training_samples(
        self, dataset: Dataset, labels: LabelFiles | None, cfg: CfgNode, project: Project, *, cache_bytes: int
    ) -> Samples:
        """Images, or patches of images, with their label maps."""
        return semantic_samples(dataset, labels, cfg, project, cache_bytes=cache_bytes)

    def predictor(
        self,
        model: Any,
        cfg: CfgNode,
        project: Project,
        categories: Sequence[Category],
        *,
        is_model_own: bool = False,
        min_scores: Sequence[float] | None = None,
    ) -> SemanticPredictor:
        """The predictor of `LabelMap`."""
        names = [category.name for category in categories]
        reader = image_reader(project, cfg)
        return SemanticPredictor(model, cfg, class_names=names, reader=reader, is_model_own=is_model_own)

    @property
    def writers(self) -> Mapping[str, str]:
        """Label maps, Labelme, the CSV of a competition, and drawings."""
        return {
            "label_maps": "label maps as PNG or TIFF",
            "labelme": "Labelme files to correct",
            "csv": "the CSV of a competition",
            OVERLAYS: "drawings of the predictions",
        }

    def writer_factory(self, to: str, project: Project) -> WriterFactory:
        """The writer of a key of `writers`.

        Raises:
            DataError: ``to`` is ``csv`` and the project does not set ``data.csv_preset``.
        """
        background, preset = project.data.background, project.data.csv_preset
        if to == "label_maps":
            return LabelMapWriter
        if to == OVERLAYS:
            return partial(MapOverlayWriter, background=background)
        if to == "labelme":
            return partial(LabelmeRegionsWriter, background=background)
        if preset is None:
            expected = f"one of {', '.join(PRESETS)}"
            raise DataError("the dialect of the CSV is not set", place="data.csv_preset", expected=expected)
        return partial(SubmissionWriter, preset=preset, background=background)

    def evaluator(self, dataset: Dataset, cfg: CfgNode, project: Project) -> SemanticEvaluator:
        """The evaluator of mean IoU and, for data of a competition, its metric."""
        data = project.data
        reader = image_reader(project, cfg)
        return SemanticEvaluator(dataset, reader=reader, background=data.background, csv_preset=data.csv_preset)

    def of_class_map(
        self, class_ids: NDArray[np.uint8], class_names: Sequence[str], *, typical_area_px2: float
    ) -> LabelMap:
        """The class of each pixel as it is."""
        return LabelMap(class_ids, tuple(class_names))

    def metrics_from_json(self, evaluation: Mapping[str, Any]) -> SemanticMetrics:
        """`SemanticMetrics`."""
        return SemanticMetrics.from_json(evaluation)

    def describe_model(self, cfg: CfgNode, project: Project) -> str:
        """Classes; for a model of the bridge also channels and loss."""
        if not is_bridge(cfg):
            return counted_classes(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
        bridge = cfg.MODEL.BRIDGE
        loss = " + ".join(f"{weight:g} {name}" for name, weight in bridge.LOSS)
        channels = len(cfg.MODEL.PIXEL_MEAN)
        plural = "" if channels == 1 else "s"
        return f"{counted_classes(bridge.NUM_CLASSES)}, {channels} channel{plural}, {loss}"

    def describe_data(self, train: Dataset, val: Dataset) -> str:
        """The number of images."""
        return f"{len(train.images)} training and {len(val.images)} validation images"

    def count_rows(
        self, train: Dataset, val: Dataset, pixels: tuple[Sequence[int], Sequence[int]] | None = None
    ) -> tuple[list[str], list[list[str]]]:
        """The share of each class in the labeled pixels; the number of its annotations if pixels are not counted."""
        if pixels is None:
            return super().count_rows(train, val)
        shares = [[f"{100 * count / max(1, sum(counts)):.1f} %" for count in counts] for counts in pixels]
        rows = [[name, *pair] for name, *pair in zip(train.class_names, *shares, strict=True)]
        return ["class", "pixels in train", "in val"], rows
