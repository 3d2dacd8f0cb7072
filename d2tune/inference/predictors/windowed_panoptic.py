"""The predictor of objects and regions on large images: what precedes the segments is put together from windows."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch import Tensor

from d2tune.inference.combining import combine, without_hidden
from d2tune.inference.loop import Sample, fitting_batch, is_on_cuda
from d2tune.inference.predictors.instance import RawDetections, box_sized, detections_of, off_device
from d2tune.inference.predictors.panoptic import PanopticPredictor, RawSegments, is_panoptic_fpn
from d2tune.inference.predictors.windowed import PredictsInWindows
from d2tune.inference.results import Detections, PanopticMap
from d2tune.inference.sliding_window import blend_rows
from d2tune.inference.stitching import Stitcher
from d2tune.inference.windows import Window, WindowedImage, Windows, WindowSamples, grid

_BATCH_BYTES = 1 << 28
"""Most memory for the probabilities of the windows of a batch; more windows are in memory than those of one batch."""


_RawWindow = tuple[RawDetections, Tensor]
"""The instances of a window that can get a segment, and the probabilities ``(K, h, w)`` of the classes of its pixels,
float32, on the device of the model."""


class WindowedPanopticPredictor(PredictsInWindows[RawSegments, PanopticMap], PanopticPredictor):
    """Predicts `PanopticMap` in overlapping windows.

    The segments of windows would not fit together, so those of the image are made once: the instances that are not
    hidden in their window are stitched (see `stitching`), the probabilities of the classes of pixels are averaged (see
    `sliding_window`), and both are combined (see `combining`) with the thresholds of the model. An image of one window
    is predicted as a whole image is.

    Args:
        model: A Panoptic FPN, or a callable with its outputs ``instances``, ``sem_seg`` (logits) and ``panoptic_seg``.
        cfg: The config of the run, which sets ``TEST.WINDOW_PX``.
        class_names: As in `PanopticPredictor`.
        things: As in `PanopticPredictor`.
        reader: As in `Predictor`.
        is_model_own: As in `Predictor`.
        min_scores: As in `PanopticPredictor`; compared with the scores in each window.
    """

    def _stitched(self, image: WindowedImage, options: dict[str, Any]) -> PanopticMap:
        chosen = Windows.of_config(self._cfg)
        windows = grid(image.height_px, image.width_px, chosen)
        samples = WindowSamples(image, windows, scale=chosen.scale(self._size.short_side_px))
        if len(windows) == 1:
            return self._alone(samples, options)
        size = {"height_px": image.height_px, "width_px": image.width_px}
        stitcher = Stitcher(**size, windows=windows, class_names=self.class_names)
        options = options | {"batch_size": options["batch_size"] or self._fitting_batch(samples, windows[0])}
        labels = np.empty((image.height_px, image.width_px), np.uint8)
        for rows in blend_rows(self._planes(samples, stitcher, options), **size, windows=chosen):
            labels[rows.top_px : rows.top_px + len(rows.class_ids)] = rows.class_ids
        return combine(labels, stitcher.finish(), self._thresholds(self.model), things=self.things)

    def _alone(self, samples: WindowSamples, options: dict[str, Any]) -> PanopticMap:
        """The result of an image of one window."""

        def finish(index: int, sample: Sample, raw: RawSegments) -> PanopticMap:
            return self._result(raw, sample)

        results: list[PanopticMap] = list(self._of_windows(samples, self._forward, finish, options))
        return results[0]

    def _planes(
        self, samples: WindowSamples, stitcher: Stitcher, options: dict[str, Any]
    ) -> Generator[Tensor, None, None]:
        """Yield the probabilities of each window, and give its detections to the stitcher."""
        outputs = self._of_windows(samples, self._forward_window, self._pasted, options)
        for index, (detections, probabilities) in enumerate(outputs):
            stitcher.add(index, detections)
            yield probabilities

    def _forward_window(self, model: Any, batch: Sequence[Sample]) -> list[_RawWindow]:
        if is_panoptic_fpn(model):
            detected, logits, sizes = self._detected(model, batch)
            raws = [box_sized(instances, sample) for instances, sample in zip(detected, batch, strict=True)]
            planes = [
                sem_seg_postprocess(one, size, sample["height"], sample["width"])
                for one, size, sample in zip(logits, sizes, batch, strict=True)
            ]
        else:
            outputs = model(batch)
            every = [output["instances"] for output in outputs]
            raws = [off_device(one[self._can_be_segments(model, one)], is_pasted=True) for one in every]
            planes = [output["sem_seg"] for output in outputs]
        return [
            (raw, torch.softmax(plane, dim=0, dtype=torch.float32)) for raw, plane in zip(raws, planes, strict=True)
        ]

    def _pasted(self, index: int, sample: Sample, output: _RawWindow) -> tuple[Detections, Tensor]:
        raw, probabilities = output
        detections = detections_of(raw, sample, self.class_names)
        return without_hidden(detections, self._thresholds(self.model)), probabilities

    def _fitting_batch(self, samples: WindowSamples, window: Window) -> int:
        """As many windows as in other predictions, if their probabilities are not too large."""
        usual = fitting_batch(*samples.input_size(0), on_cuda=is_on_cuda(self.model))
        classes = 1 + len(self.class_names) - self.things
        area_px2 = (window.bottom_px - window.top_px) * (window.right_px - window.left_px)
        return max(1, min(usual, _BATCH_BYTES // (4 * classes * area_px2)))
