"""Segments from the outputs of panoptic models; their classes are places in the class names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.data.catalog import LABEL_DIVISOR


def segments(output: Mapping[str, Any], *, things: int, stuff: int) -> tuple[NDArray[np.int32], list[dict[str, Any]]]:
    """The segments of one image.

    Panoptic FPN lists its segments, things by their place among the things and stuff by its place in the semantic
    head, whose class 0 is all things. Panoptic-DeepLab lists none: its ids encode the class, and -1 means none.

    Args:
        output: A model's output for one image, with ``panoptic_seg``.
        things: Number of thing classes.
        stuff: Number of stuff classes.

    Returns:
        Segment ids ``(H, W)``, 0 where there is no segment, and for each segment its ``id``, its ``category_id``, which
        is its class's place among the things followed by the stuff, and its ``score`` where the model gives one.
    """
    id_map, infos = output["panoptic_seg"]
    ids = id_map.cpu().numpy()
    if infos is None:
        return _from_coded_ids(ids, things + stuff)
    listed = [
        {"id": int(info["id"]), "category_id": _place(info, things)}
        | ({"score": float(info["score"])} if "score" in info else {})
        for info in infos
    ]
    return ids.astype(np.int32), listed


def _place(info: Mapping[str, Any], things: int) -> int:
    category = int(info["category_id"])
    return category if info["isthing"] else things + category - 1


def _from_coded_ids(coded: NDArray[Any], classes: int) -> tuple[NDArray[np.int32], list[dict[str, Any]]]:
    values, places = np.unique(coded, return_inverse=True)
    is_segment = (values >= 0) & (values // LABEL_DIVISOR < classes)
    number = np.where(is_segment, np.cumsum(is_segment), 0).astype(np.int32)
    listed = [
        {"id": int(segment), "category_id": int(value // LABEL_DIVISOR)}
        for segment, value in zip(number, values, strict=True)
        if segment
    ]
    return number[places].reshape(coded.shape), listed
