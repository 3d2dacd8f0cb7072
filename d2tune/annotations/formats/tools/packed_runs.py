"""The packed run lengths in which Label Studio writes brush masks (the format of thi.ng/rle-pack).

A stream of bits, the highest of each byte first: the number of values (32 bits), the width of a value minus 1 (5 bits),
four widths of counts minus 1 (4 bits each), then blocks. A block is a flag (1 bit), which width its count has (2 bits),
its count minus 1, and one value for a run (flag 1) or ``count`` values (flag 0).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER_BITS = 53


class PackedRunsError(ValueError):
    """Data that are not valid packed run lengths."""


def unpack(data: bytes, *, limit: int) -> NDArray[np.int64]:
    """The values ``(N,)``.

    Args:
        data: The bytes.
        limit: The largest number of values that is read.

    Raises:
        PackedRunsError: The data end too early, or have more values than ``limit`` or than they state.
    """
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    if len(bits) < _HEADER_BITS:
        raise PackedRunsError("the data are shorter than their header")
    total, width = _number(bits, 0, 32), _number(bits, 32, 5) + 1
    widths = [_number(bits, 37 + 4 * place, 4) + 1 for place in range(4)]
    if total > limit:
        raise PackedRunsError(f"the data have {total} values, expected {limit}")
    values = np.zeros(total, dtype=np.int64)
    at, done = _HEADER_BITS, 0
    while done < total:
        is_run, kind = _number(bits, at, 1), _number(bits, at + 1, 2)
        count = _number(bits, at + 3, widths[kind]) + 1
        at += 3 + widths[kind]
        used = width if is_run else width * count
        if at + used > len(bits) or done + count > total:
            raise PackedRunsError("the data end in the middle of a run")
        block = bits[at : at + used].reshape(-1, width).astype(np.int64) @ (1 << np.arange(width)[::-1])
        values[done : done + count] = block
        at, done = at + used, done + count
    return values


def _number(bits: NDArray[Any], at: int, width: int) -> int:
    """The number in some bits.

    Raises:
        PackedRunsError: They are beyond the end.
    """
    if at + width > len(bits):
        raise PackedRunsError("the data end in the middle of a run")
    number = 0
    for bit in bits[at : at + width].tolist():
        number = number << 1 | bit
    return number
