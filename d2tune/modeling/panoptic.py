"""Segments from the outputs of panoptic models, with the indices of their classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.data.catalog import LABEL_DIVISOR


def segments(output: Mapping[str, Any], *, things: int, stuff: int) -> tuple[NDArray[np.int32], list[dict[str, Any]]]:
    """The segments of an image.

    Panoptic FPN gives a list of segments, with the index of thing classes among the things and that of stuff classes in
    the semantic head, whose class 0 is all things. Panoptic-DeepLab gives no list: its ids encode the class, and -1
    stands for pixels without a segment.

    Args:
        output: Output of a model for an image, with ``panoptic_seg``.
        things: Number of thing classes.
        stuff: Number of stuff classes.

    Returns:
        Segment ids ``(H, W)``, 0 for pixels without a segment, and for each segment its ``id``, its ``category_id``,
        which is the index of its class among the things followed by the stuff, and its ``score`` if the model gives
        scores.
    """
    id_map, infos = output["panoptic_seg"]
    ids = id_map.cpu().numpy()
    if infos is None:
        return _from_coded_ids(ids, things + stuff)
    listed = [
        {"id": int(info["id"]), "category_id": _class_index(info, things)}
        | ({"score": float(info["score"])} if "score" in info else {})
        for info in infos
    ]
    return ids.astype(np.int32), listed


def _class_index(info: Mapping[str, Any], things: int) -> int:
    category = int(info["category_id"])
    return category if info["isthing"] else things + category - 1


def _from_coded_ids(coded: NDArray[Any], classes: int) -> tuple[NDArray[np.int32], list[dict[str, Any]]]:
    values, indices = np.unique(coded, return_inverse=True)
    is_segment = (values >= 0) & (values // LABEL_DIVISOR < classes)
    ids = np.where(is_segment, np.cumsum(is_segment), 0).astype(np.int32)
    listed = [
        {"id": int(segment), "category_id": int(value // LABEL_DIVISOR)}
        for segment, value in zip(ids, values, strict=True)
        if segment
    ]
    return ids[indices].reshape(coded.shape), listed
