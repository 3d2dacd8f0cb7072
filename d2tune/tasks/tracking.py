"""Tracking: the masks of objects that are given in a frame, in all other frames of a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode

from d2tune.annotations.model.dataset import Category, Dataset
from d2tune.data.image_reader import image_reader
from d2tune.data.label_maps import LabelFiles
from d2tune.data.training import tracking_pairs
from d2tune.evaluation.tracking import TrackingEvaluator
from d2tune.evaluation.tracking_metrics import TrackingMetrics
from d2tune.inference.predictors.tracking import TrackingPredictor, needs_outline
from d2tune.inference.uncertainty import DetectionUncertainty
from d2tune.inference.writers.base import WriterFactory
from d2tune.project import Project
from d2tune.tasks.base import Samples, Task


class TrackingTask(Task):
    """The masks of given objects in other frames; see `Task`."""

    name = "tracking"
    main_metric = "j"
    predictions_noun = "objects"
    gives = "The mask of an object that is given in a frame, in the other frames of a video; trained on objects of"
    follows_objects = True
    uncertainty = DetectionUncertainty

    def label_files(self, dataset: Dataset) -> LabelFiles | None:
        """None, because the model is trained on objects."""
        return None

    def training_samples(
        self, dataset: Dataset, labels: LabelFiles | None, cfg: CfgNode, project: Project, *, cache_bytes: int
    ) -> Samples:
        """Pairs of images that show an object."""
        return tracking_pairs(dataset, cfg, project, cache_bytes=cache_bytes)

    def predictor(
        self,
        model: Any,
        cfg: CfgNode,
        project: Project,
        categories: Sequence[Category],
        *,
        is_model_own: bool = False,
        min_scores: Sequence[float] | None = None,
    ) -> TrackingPredictor:
        """What gives trackers of the model."""
        names = [category.name for category in categories]
        reader = image_reader(project, cfg)
        return TrackingPredictor(model, cfg, class_names=names, reader=reader, is_model_own=is_model_own)

    @property
    def writers(self) -> Mapping[str, str]:
        """None: `check_output` refuses all."""
        return {}

    def writer_factory(self, to: str, project: Project) -> WriterFactory:
        """Refuse; see `check_output`."""
        raise needs_outline()

    def check_output(self, to: str, min_score: float | None, project: Project) -> None:
        """Refuse images alone.

        Raises:
            DataError: Always.
        """
        self.check_predicts_images()

    def evaluator(self, dataset: Dataset, cfg: CfgNode, project: Project) -> TrackingEvaluator:
        """The evaluator of J and of the success of boxes."""
        return TrackingEvaluator(dataset, are_frames=project.data.frames)

    def metrics_from_json(self, evaluation: Mapping[str, Any]) -> TrackingMetrics:
        """`TrackingMetrics`."""
        return TrackingMetrics.from_json(evaluation)

    def describe_model(self, cfg: CfgNode, project: Project) -> str:
        """The backbone, and where pairs are from."""
        siammask = cfg.MODEL.SIAMMASK
        videos = "videos" if project.data.frames else "photos"
        return f"objects of any class, pairs from {videos} and {100 * siammask.RENDERED:.0f} % rendered"
