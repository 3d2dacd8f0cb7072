"""The predictor of objects and regions: at most one segment for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune.data.image_reader import ImageReader
from d2tune.inference.loop import Sample
from d2tune.inference.predictors.base import Predictor
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
    ) -> None:
        super().__init__(model, cfg, class_names=class_names, reader=reader, is_model_own=is_model_own)
        self.things = things

    def _forward(self, model: Any, batch: Sequence[Sample]) -> list[RawSegments]:
        stuff = len(self.class_names) - self.things
        return [segments(output, things=self.things, stuff=stuff) for output in model(batch)]

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
