"""Panoptic segmentation: objects of the things and regions of the stuff."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode

from d2tune.annotations.model.dataset import Category, Dataset
from d2tune.data.image_reader import image_reader
from d2tune.data.label_maps import LabelFiles, label_files
from d2tune.data.training import panoptic_samples
from d2tune.evaluation.panoptic import PanopticEvaluator
from d2tune.evaluation.panoptic_metrics import PanopticMetrics
from d2tune.inference.predictors.panoptic import PanopticPredictor
from d2tune.inference.predictors.windowed_panoptic import WindowedPanopticPredictor
from d2tune.inference.uncertainty import DetectionUncertainty
from d2tune.inference.writers.base import WriterFactory
from d2tune.inference.writers.panoptic import CocoPanopticWriter, LabelmeSegmentsWriter
from d2tune.modeling.config import takes_windows
from d2tune.project import Project
from d2tune.tasks.base import Samples, Task, counted_classes


class PanopticTask(Task):
    """Objects of the things and regions of the stuff; see `Task`."""

    name = "panoptic"
    main_metric = "pq"
    predictions_noun = "objects and regions"
    gives = "A mask for each object, and the class of each other pixel, of the classes"
    takes_windows = True
    uncertainty = DetectionUncertainty

    def label_files(self, dataset: Dataset) -> LabelFiles:
        """The class and the segment of each pixel."""
        return label_files(dataset, with_segments=True)

    def training_samples(
        self, dataset: Dataset, labels: LabelFiles | None, cfg: CfgNode, project: Project, *, cache_bytes: int
    ) -> Samples:
        """Images with their instances and label maps."""
        return panoptic_samples(dataset, labels, cfg, cache_bytes=cache_bytes)

    def predictor(
        self,
        model: Any,
        cfg: CfgNode,
        project: Project,
        categories: Sequence[Category],
        *,
        is_model_own: bool = False,
        min_scores: Sequence[float] | None = None,
    ) -> PanopticPredictor:
        """The predictor of `PanopticMap`, in windows if the config sets them."""
        in_windows = cfg.TEST.WINDOW_PX and takes_windows(cfg)
        predictor = WindowedPanopticPredictor if in_windows else PanopticPredictor
        return predictor(
            model,
            cfg,
            class_names=[category.name for category in categories],
            things=sum(category.isthing for category in categories),
            reader=image_reader(project, cfg),
            is_model_own=is_model_own,
            min_scores=min_scores,
        )

    @property
    def writers(self) -> Mapping[str, str]:
        """COCO panoptic and Labelme."""
        return {"coco_panoptic": "a COCO panoptic file with its PNGs", "labelme": "Labelme files to correct"}

    def writer_factory(self, to: str, project: Project) -> WriterFactory:
        """The writer of a COCO panoptic file or of Labelme files."""
        return CocoPanopticWriter if to == "coco_panoptic" else LabelmeSegmentsWriter

    def evaluator(self, dataset: Dataset, cfg: CfgNode, project: Project) -> PanopticEvaluator:
        """The evaluator of panoptic quality."""
        return PanopticEvaluator(dataset)

    def metrics_from_json(self, evaluation: Mapping[str, Any]) -> PanopticMetrics:
        """`PanopticMetrics`."""
        return PanopticMetrics.from_json(evaluation)

    def describe_model(self, cfg: CfgNode, project: Project) -> str:
        """Classes of things and stuff."""
        things, stuff = cfg.MODEL.ROI_HEADS.NUM_CLASSES, len(project.stuff)
        return f"{counted_classes(things)} of things and {stuff} of stuff"
