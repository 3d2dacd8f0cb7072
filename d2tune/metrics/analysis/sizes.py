"""Ranges of size that divide a user's own ground truth evenly; COCO's fixed ranges may not fit it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.metrics.coco.matching import COCO_AREAS, AreaRange


def quantile_ranges(areas_px2: NDArray[np.floating[Any]] | Sequence[float], *, count: int = 4) -> tuple[AreaRange, ...]:
    """Divide areas into ranges with numbers of instances as equal as possible.

    An edge lies halfway between the sides of two instances that are neighbors in size, never on one, so that every
    instance lies in one range whether edges count as inside or not. Instances of equal area stay together: there are
    fewer than ``count`` ranges if there are too few different areas.

    Args:
        areas_px2: ``(N,)``, areas of the ground truth in square pixels, without crowds.
        count: Number of ranges.

    Returns:
        Ranges from small to large, named by the side of a square of that area, such as ``14-32 px``; none without
        areas. The first begins at 0, the last ends with COCO's largest.
    """
    sides = np.sqrt(np.sort(np.asarray(areas_px2, np.float64)))
    if not len(sides):
        return ()
    steps = np.flatnonzero(sides[1:] > sides[:-1]) + 1  # number of areas smaller than each possible edge
    wanted = [len(sides) * number / count for number in range(1, count)]
    cuts = sorted({int(steps[np.argmin(np.abs(steps - smaller))]) for smaller in wanted}) if len(steps) else []
    edges = [(sides[cut - 1] + sides[cut]) / 2 for cut in cuts]
    bounds = [COCO_AREAS[0].low_px2, *(float(edge) ** 2 for edge in edges), COCO_AREAS[0].high_px2]
    words = _words(edges, float(sides[0]), float(sides[-1]))
    return tuple(
        AreaRange(name, low, high, meaning)
        for (name, meaning), (low, high) in zip(words, itertools.pairwise(bounds), strict=True)
    )


def _words(edges: Sequence[float], smallest: float, largest: float) -> list[tuple[str, str]]:
    """The name of each range and its meaning, with enough decimals to distinguish the edges."""
    if not edges:
        name = f"{smallest:.0f} px" if smallest == largest else f"{smallest:.0f}-{largest:.0f} px"
        return [(name, "of any size")]
    decimals = next((digits for digits in range(6) if len({f"{edge:.{digits}f}" for edge in edges}) == len(edges)), 6)
    texts = [f"{edge:.{decimals}f}" for edge in edges]
    inner = [
        (f"{low}-{high} px", f"between {low} x {low} and {high} x {high} px") for low, high in itertools.pairwise(texts)
    ]
    first, last = texts[0], texts[-1]
    return [
        (f"below {first} px", f"smaller than {first} x {first} px"),
        *inner,
        (f"above {last} px", f"larger than {last} x {last} px"),
    ]
