"""Masks moved from frame to frame by optical flow, without a network: fast, and it drifts.

The flow is DIS (Kroeger et al. 2016, arXiv 1603.03590), from each frame back to the one before, so that every pixel of
the new frame has a source. Where the flow forward and back again does not return to where it came from, the object may
be hidden or its motion unknown (Sundaram et al. 2010). The confidence of a mask is the share of its pixels that can be
followed back to a reference; of a mask that got lost it is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.types import Mask
from d2tune.propagation.methods.base import Frames, Propagated, Reference
from d2tune.propagation.methods.order import steps_of

Field = NDArray[np.float32]
"""A displacement for each pixel, ``(H, W, 2)``, x and y in pixels."""

_SMALL_PX = 432
"""Longer side of frames whose flow is only compared with other masks."""
_RETURN_PX, _RETURN_SHARE = 1.0, 0.05
"""How far the way forward and back may miss its start: pixels, and in addition a share of its length."""


class Flow:
    """Moves masks by optical flow."""

    name = "flow"
    identity = ""

    def propagate(
        self, frames: Frames, references: Sequence[Reference], *, finished: Mapping[int, Mapping[int, Mask]]
    ) -> Iterator[Propagated]:
        """See `PropagationMethod`; a frame gets the masks of its neighbor on the side of the nearest reference."""
        objects = sorted({number for reference in references for number in reference.masks})
        soft: dict[int, NDArray[np.float32]] = {}
        sure = np.zeros(0, np.float32)
        dense = FlowEstimator()
        before: tuple[int, NDArray[np.uint8]] | None = None
        given = {one.index: one.masks for one in references}
        for previous, index in steps_of(len(frames), [one.index for one in references]):
            if index in finished:
                continue
            source = before[1] if before is not None and before[0] == previous else frames[previous]
            if previous in given or previous in finished:
                starts = given[previous] if previous in given else finished[previous]
                soft = {number: mask.astype(np.float32) for number, mask in starts.items()}
                sure = np.ones(source.shape[:2], np.float32)
            target = frames[index]
            back, forth = dense.between(target, source), dense.between(source, target)
            soft = {number: moved(mask, back) for number, mask in soft.items()}
            before = (index, target)
            masks = separate(soft)
            sure = moved(sure, back) * returns(back, forth)
            shares = {number: float(sure[masks[number]].mean()) if number in masks else 0.0 for number in objects}
            yield Propagated(index, masks, shares)


class FlowEstimator:
    """Dense optical flow between two frames."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def between(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Field:
        """Where each pixel of the first frame is in the second one, both ``(H, W, 3)``."""
        gray = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (first, second)]
        if min(gray[0].shape) < 16:
            return np.zeros((*gray[0].shape, 2), np.float32)
        start = np.zeros((*gray[0].shape, 2), np.float32)
        field: Field = self._flow.calc(gray[0], gray[1], start)
        return field

    def between_small(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Field:
        """`between` of frames that are reduced to `_SMALL_PX`, in the pixels of the frames; faster, and coarser."""
        height, width = first.shape[:2]
        scale = _SMALL_PX / max(height, width)
        if scale >= 1:
            return self.between(first, second)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        reduced = [cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8) for image in (first, second)]
        field = cv2.resize(self.between(*reduced), (width, height), interpolation=cv2.INTER_LINEAR)
        enlarged: Field = (field * np.array([width / size[0], height / size[1]], np.float32)).astype(np.float32)
        return enlarged


def moved(values: NDArray[np.float32], back: Field) -> NDArray[np.float32]:
    """Values ``(H, W)`` of the frame before, at the places of the new frame; 0 from outside of the image."""
    height, width = values.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    result: NDArray[np.float32] = cv2.remap(
        values, x + back[..., 0], y + back[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return result


def returns(back: Field, forth: Field) -> Mask:
    """Whether the way of each pixel ``(H, W)`` to the frame before and forth again ends where it began."""
    there = np.stack([moved(np.ascontiguousarray(forth[..., axis]), back) for axis in range(2)], axis=-1)
    miss = np.linalg.norm(back + there, axis=2)
    length = np.linalg.norm(back, axis=2) + np.linalg.norm(there, axis=2)
    result: Mask = miss <= _RETURN_PX + _RETURN_SHARE * length
    return result


def separate(soft: Mapping[int, NDArray[np.float32]]) -> dict[int, Mask]:
    """Masks that do not overlap of values ``(H, W)``: each pixel has the highest one, if it is at least a half."""
    if not soft:
        return {}
    numbers = list(soft)
    values = np.stack([soft[number] for number in numbers])
    best = values.argmax(axis=0)
    is_object = values.max(axis=0) >= 0.5
    masks = {number: is_object & (best == place) for place, number in enumerate(numbers)}
    return {number: mask for number, mask in masks.items() if mask.any()}
