"""The order in which the frames of a clip get their masks: outward from the references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def steps_of(count: int, references: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of neighboring frames: one that has masks, and the one that gets its masks next.

    Each frame is reached from the nearest reference; of two equally near ones, from the earlier one.

    Args:
        count: Number of frames.
        references: Indices of one reference frame or more, ascending.
    """
    for place, start in enumerate(references):
        lower = 0 if place == 0 else (references[place - 1] + start) // 2 + 1
        upper = count - 1 if place == len(references) - 1 else (start + references[place + 1]) // 2
        yield from ((index - 1, index) for index in range(start + 1, upper + 1))
        yield from ((index + 1, index) for index in range(start - 1, lower - 1, -1))
