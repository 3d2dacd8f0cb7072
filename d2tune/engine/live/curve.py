"""A curve of a few letters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-~=*#@"


def curve(values: Sequence[float], width: int, *, blocks: bool = True) -> str:
    """The course of positive values, from the first to the last, each letter the mean of as many of them.

    The height is that of the logarithm, so that the end of a loss that fell steeply still shows. Values that are not
    finite or not positive are ignored.

    Args:
        values: In the order of time.
        width: Letters.
        blocks: Whether the letters are blocks; else ASCII.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known) & (known > 0)]
    if not len(known) or width < 1:
        return ""
    starts = np.unique(np.arange(min(width, len(known))) * len(known) // min(width, len(known)))
    means = np.log(np.add.reduceat(known, starts) / np.diff([*starts, len(known)]))
    span = means.max() - means.min()
    letters = _BLOCKS if blocks else _ASCII
    if span < 1e-9:
        return letters[0] * len(means)
    levels = np.minimum((means - means.min()) / span * len(letters), len(letters) - 1).astype(int)
    return "".join(letters[level] for level in levels)
