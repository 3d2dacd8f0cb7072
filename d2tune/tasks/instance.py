"""Instance segmentation: a mask for each object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune.annotations.geometry.masks import encode_mask, to_rle
from d2tune.annotations.model.dataset import Category, Dataset
from d2tune.classical.regions import regions_of
from d2tune.data.image_reader import image_reader
from d2tune.data.label_maps import LabelFiles
from d2tune.data.training import instance_samples
from d2tune.evaluation.instance import InstanceEvaluator
from d2tune.inference.predictors.instance import InstancePredictor
from d2tune.inference.predictors.windowed import WindowedPredictor
from d2tune.inference.results import Detections
from d2tune.inference.uncertainty import DetectionUncertainty
from d2tune.inference.writers.base import WriterFactory
from d2tune.inference.writers.coco_results import CocoResultsWriter
from d2tune.inference.writers.instance import CocoWriter, LabelmeWriter
from d2tune.inference.writers.yolo import YoloWriter
from d2tune.metrics.coco.summary import InstanceMetrics
from d2tune.project import Project
from d2tune.tasks.base import Samples, Task, counted_classes


class InstanceTask(Task):
    """A mask for each object; see `Task`."""

    name = "instance"
    main_metric = "mask_ap"
    predictions_noun = "instances"
    gives = "A mask, a box and a score for each object of the classes"
    has_instance_metrics = True
    has_scores = True
    has_baseline = True
    takes_windows = True
    uncertainty = DetectionUncertainty

    def label_files(self, dataset: Dataset) -> LabelFiles | None:
        """None, because the model is trained on instances."""
        return None

    def training_samples(
        self, dataset: Dataset, labels: LabelFiles | None, cfg: CfgNode, project: Project, *, cache_bytes: int
    ) -> Samples:
        """Images with their instances."""
        return instance_samples(dataset, cfg, cache_bytes=cache_bytes)

    def predictor(
        self,
        model: Any,
        cfg: CfgNode,
        project: Project,
        categories: Sequence[Category],
        *,
        is_model_own: bool = False,
        min_scores: Sequence[float] | None = None,
    ) -> InstancePredictor:
        """The predictor of `Detections`, in windows if the config sets them."""
        things = [index for index, category in enumerate(categories) if category.isthing]
        predictor = WindowedPredictor if cfg.TEST.WINDOW_PX else InstancePredictor
        return predictor(
            model,
            cfg,
            class_names=[categories[index].name for index in things],
            reader=image_reader(project, cfg),
            is_model_own=is_model_own,
            min_scores=None if min_scores is None else [min_scores[index] for index in things],
        )

    @property
    def writers(self) -> Mapping[str, str]:
        """COCO, Labelme, COCO results and YOLO."""
        return {
            "coco": "a COCO file with scores",
            "labelme": "Labelme files to correct",
            "rle": "COCO results: a list of run-length masks",
            "yolo-seg": "YOLO's label files of polygons",
        }

    def writer_factory(self, to: str, project: Project) -> WriterFactory:
        """The writer of a key of `writers`."""
        writers: dict[str, WriterFactory] = {
            "coco": CocoWriter,
            "labelme": LabelmeWriter,
            "rle": CocoResultsWriter,
            "yolo-seg": YoloWriter,
        }
        return writers[to]

    def evaluator(self, dataset: Dataset, cfg: CfgNode, project: Project) -> InstanceEvaluator:
        """The evaluator of average precision."""
        return InstanceEvaluator(dataset)

    def of_class_map(
        self, class_ids: NDArray[np.uint8], class_names: Sequence[str], *, typical_area_px2: float
    ) -> Detections:
        """Each connected region of a class is an object."""
        regions = regions_of(class_ids, n_classes=len(class_names), typical_area_px2=typical_area_px2)
        return Detections(
            class_ids.shape[0],
            class_ids.shape[1],
            np.array([one.box_xyxy for one in regions], dtype=np.float32).reshape(-1, 4),
            np.array([one.score for one in regions], dtype=np.float32),
            np.array([one.class_id for one in regions], dtype=np.int64),
            tuple(to_rle(encode_mask(one.mask)) for one in regions),
            tuple(class_names),
        )

    def metrics_from_json(self, evaluation: Mapping[str, Any]) -> InstanceMetrics:
        """`InstanceMetrics`."""
        return InstanceMetrics.from_json(evaluation)

    def describe_model(self, cfg: CfgNode, project: Project) -> str:
        """Classes and mask format."""
        return f"{counted_classes(cfg.MODEL.ROI_HEADS.NUM_CLASSES)}, {cfg.INPUT.MASK_FORMAT} masks"
