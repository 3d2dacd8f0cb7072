"""The segments of a panoptic image from its instances and the classes of its pixels.

The rule is that of Detectron2's ``combine_semantic_and_instance_outputs``, after Kirillov et al., "Panoptic
segmentation", 2019, section 4.3. Detectron2 takes a bitmap of the image for each instance; here a mask is decoded in
its box, one after the other, so that memory does not grow with the number of instances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.inference.results import Detections, PanopticMap, Segment
from d2tune.metrics.overlap.run_lengths import crops

_BLOCK_PX = 1 << 22
"""Pixels whose classes are counted at once."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How instances and regions become segments.

    Attributes:
        overlap: Largest share of an instance that lies under instances with higher scores.
        stuff_area_px2: Least pixels of a region, all pixels of its class in the image together.
        min_score: Lowest score of an instance.
    """

    overlap: float
    stuff_area_px2: float
    min_score: float


def combine(labels: NDArray[np.uint8], detections: Detections, thresholds: Thresholds, *, things: int) -> PanopticMap:
    """The segments of an image.

    Instances are taken in descending order of their scores; each gets the pixels that no other has before it, unless it
    lies under the others with too much of its mask. What is left of each stuff class is one segment.

    Args:
        labels: ``(H, W)`` classes of the semantic head: 0 for all things, the stuff from 1, 255 for none.
        detections: The instances, with masks; ``class_names`` are all classes, things before stuff.
        thresholds: The limits.
        things: Number of thing classes.

    Returns:
        Segments in the order in which they are taken, with ids from 1.
    """
    ids = np.zeros(labels.shape, np.int32)
    listed = [
        Segment(number, int(detections.class_ids[index]), True, area_px2, float(detections.scores[index]))
        for number, (index, area_px2) in enumerate(_placed(ids, detections, thresholds), start=1)
    ]
    listed += _fill_with_stuff(ids, labels, thresholds.stuff_area_px2, things=things, first_id=len(listed) + 1)
    return PanopticMap(ids, tuple(listed), detections.class_names)


def without_hidden(detections: Detections, thresholds: Thresholds) -> Detections:
    """The instances of a window that would get a segment in it, with their whole masks and in their order.

    Of several detections of one object those with lower scores are hidden. If they were stitched, the mask of one of
    them could become that of the object.
    """
    ids = np.zeros((detections.height_px, detections.width_px), np.int32)
    kept = sorted(index for index, _ in _placed(ids, detections, thresholds))
    arrays: dict[str, Any] = {name: getattr(detections, name)[kept] for name in ("boxes_xyxy", "scores", "class_ids")}
    assert detections.rles is not None
    return replace(detections, **arrays, rles=tuple(detections.rles[index] for index in kept))


def _placed(ids: NDArray[np.int32], detections: Detections, thresholds: Thresholds) -> Iterator[tuple[int, int]]:
    """Give pixels to instances in descending order of their scores, with ids from 1.

    Yields:
        The index of each instance that gets a segment, and the number of its pixels.
    """
    assert detections.rles is not None
    segment_id = 0
    for index in np.argsort(-detections.scores, kind="stable").tolist():
        if float(detections.scores[index]) < thresholds.min_score:
            break
        columns, left, top = crops([detections.rles[index].to_coco()])[0]
        mask = columns.T
        area_px2 = int(np.count_nonzero(mask))
        inside = ids[top : top + mask.shape[0], left : left + mask.shape[1]]
        is_own = mask & (inside == 0)
        own_px2 = int(np.count_nonzero(is_own))
        if not area_px2 or (area_px2 - own_px2) / area_px2 > thresholds.overlap:
            continue
        segment_id += 1
        inside[is_own] = segment_id
        yield index, own_px2


def _fill_with_stuff(
    ids: NDArray[np.int32], labels: NDArray[np.uint8], least_px2: float, *, things: int, first_id: int
) -> list[Segment]:
    """Give the pixels without a segment to one of their stuff class, if it has enough of them."""
    step = max(1, _BLOCK_PX // max(1, ids.shape[1]))
    blocks = [slice(top, top + step) for top in range(0, ids.shape[0], step)]
    counts = np.zeros(256, np.int64)
    for block in blocks:
        counts += np.bincount(labels[block][ids[block] == 0], minlength=256)
    counts[[0, 255]] = 0
    id_of_label = np.zeros(256, np.int32)
    stuff = [label for label in np.flatnonzero(counts).tolist() if counts[label] >= least_px2]
    id_of_label[stuff] = np.arange(first_id, first_id + len(stuff))
    for block in blocks:
        is_free = ids[block] == 0
        ids[block][is_free] = id_of_label[labels[block][is_free]]
    return [Segment(int(id_of_label[label]), things + label - 1, False, int(counts[label])) for label in stuff]
