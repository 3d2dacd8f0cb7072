"""The predictor of objects and regions: at most one segment for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.modeling import PanopticFPN
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import Instances
from numpy.typing import NDArray
from torch import Tensor

from d2tune.data.image_reader import ImageReader
from d2tune.inference.combining import Thresholds
from d2tune.inference.loop import Sample
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.predictors.instance import is_above
from d2tune.inference.predictors.rcnn import detect, full_instances, has_two_steps
from d2tune.inference.results import PanopticMap, Segment
from d2tune.modeling.panoptic import segments

RawSegments = tuple[NDArray[np.int32], list[dict[str, Any]]]
"""Segment ids ``(H, W)``, and the list of segments; see `modeling.panoptic.segments`."""


class PanopticPredictor(Predictor[RawSegments, PanopticMap]):
    """Predicts `PanopticMap`.

    Args:
        model: A panoptic model of Detectron2.
        cfg: The config of the run.
        class_names: The classes in the order of their ids, things before stuff.
        things: Number of thing classes.
        reader: Reader of image files.
        is_model_own: As in `Predictor`.
        min_scores: As in `Predictor`; those of stuff classes are not used.
    """

    def __init__(
        self,
        model: Any,
        cfg: CfgNode,
        *,
        class_names: Sequence[str],
        things: int,
        reader: ImageReader,
        is_model_own: bool = False,
        min_scores: Sequence[float] | None = None,
    ) -> None:
        super().__init__(
            model, cfg, class_names=class_names, reader=reader, is_model_own=is_model_own, min_scores=min_scores
        )
        self.things = things

    def _forward(self, model: Any, batch: Sequence[Sample]) -> list[RawSegments]:
        stuff = len(self.class_names) - self.things
        outputs = _merged(model, batch, *self._detected(model, batch)) if is_panoptic_fpn(model) else model(batch)
        return [segments(output, things=self.things, stuff=stuff) for output in outputs]

    def _detected(
        self, model: PanopticFPN, batch: Sequence[Sample]
    ) -> tuple[list[Instances], Tensor, list[tuple[int, int]]]:
        """What ``PanopticFPN.inference`` combines, with masks only for instances that can get a segment.

        Returns:
            The instances of each image in pixels of the network's input, the logits ``(N, K, h, w)`` of the classes of
            pixels, and height and width of each image without its padding.
        """
        images = model.preprocess_image(batch)
        features = model.backbone(images.tensor)
        logits, _ = model.sem_seg_head(features, None)
        detected, _ = detect(model, features, images, batch, lambda instances: self._can_be_segments(model, instances))
        return detected, logits, images.image_sizes

    def _can_be_segments(self, model: Any, instances: Instances) -> Tensor:
        """Whether each instance has the least score of segments and that of its class, as bool ``(N,)``."""
        chosen: Tensor = instances.scores >= self._thresholds(model).min_score
        return chosen if self.min_scores is None else chosen & is_above(instances, self.min_scores)

    def _thresholds(self, model: Any) -> Thresholds:
        """How the model combines instances and regions; of models that are not Detectron2's by the config."""
        if isinstance(model, PanopticFPN):
            limits = model.combine_overlap_thresh, model.combine_stuff_area_thresh, model.combine_instances_score_thresh
            return Thresholds(*limits)
        combine = self._cfg.MODEL.PANOPTIC_FPN.COMBINE
        return Thresholds(combine.OVERLAP_THRESH, combine.STUFF_AREA_LIMIT, combine.INSTANCES_CONFIDENCE_THRESH)

    def _forward_full(self, model: Any, batch: Sequence[Sample], instances: int) -> list[RawSegments]:
        if not is_panoptic_fpn(model):
            return self._forward(model, batch)
        images = model.preprocess_image(batch)
        features = model.backbone(images.tensor)
        logits, _ = model.sem_seg_head(features, None)
        full = full_instances(model, features, images, batch, instances)
        stuff = len(self.class_names) - self.things
        outputs = _merged(model, batch, full, logits, images.image_sizes)
        return [segments(output, things=self.things, stuff=stuff) for output in outputs]

    def _result(self, raw: RawSegments, sample: Sample) -> PanopticMap:
        ids, infos = raw
        numbers, areas = np.unique(ids, return_counts=True)
        area_px2 = dict(zip(numbers.tolist(), areas.tolist(), strict=True))
        listed = tuple(
            Segment(
                int(info["id"]),
                int(info["category_id"]),
                int(info["category_id"]) < self.things,
                area_px2.get(int(info["id"]), 0),
                None if info.get("score") is None else float(info["score"]),
            )
            for info in infos
        )
        return PanopticMap(ids, listed, self.class_names)


def _merged(
    model: PanopticFPN,
    batch: Sequence[Sample],
    detected: Sequence[Instances],
    logits: Tensor,
    sizes: Sequence[tuple[int, int]],
) -> list[dict[str, Any]]:
    """The segments of pasted instances and of the classes of pixels, as in ``PanopticFPN.inference``.

    Args:
        model: The model.
        batch: The samples.
        detected: The instances of each image.
        logits: Of the classes of pixels, ``(N, C, h, w)``.
        sizes: Height and width of each image without its padding.
    """
    limits = model.combine_overlap_thresh, model.combine_stuff_area_thresh, model.combine_instances_score_thresh
    outputs = []
    for sample, instances, one, size in zip(batch, detected, logits, sizes, strict=True):
        height_px, width_px = sample["height"], sample["width"]
        labels = sem_seg_postprocess(one, size, height_px, width_px).argmax(dim=0)
        pasted = detector_postprocess(instances, height_px, width_px)
        outputs.append({"panoptic_seg": combine_semantic_and_instance_outputs(pasted, labels, *limits)})
    return outputs


def is_panoptic_fpn(model: Any) -> bool:
    """Whether a model is Detectron2's, which predicts boxes first and masks then."""
    return isinstance(model, PanopticFPN) and has_two_steps(model)
