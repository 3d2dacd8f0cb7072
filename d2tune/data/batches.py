"""Which images make up which batch: a function of the seed and the iteration, and of nothing else.

A resumed run therefore sees exactly the batches it would have seen, whatever the number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler


@dataclass(frozen=True, slots=True)
class SampleKey:
    """One image of a batch: which, resized to what short side in pixels, and the seed of its augmentation."""

    index: int
    short_side_px: int
    seed: int


class TrainingBatches(Sampler[list[SampleKey]]):
    """Endless batches over shuffled epochs.

    Landscape and portrait images are kept apart, and the images of one batch share a short side, so that
    little of a batch is padding.

    Args:
        is_portrait: For each image, whether it is higher than wide.
        batch_size: Images per batch on this process.
        short_side_range_px: Smallest and largest short side, both included.
        seed: Seed of everything drawn.
        start: Iteration to begin with.
        rank: Number of this process among ``world`` processes, each of which takes every ``world``-th batch.
        world: Number of processes.
    """

    def __init__(
        self,
        is_portrait: Sequence[bool],
        *,
        batch_size: int,
        short_side_range_px: tuple[int, int],
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._is_portrait = np.asarray(is_portrait, dtype=bool)
        self._batch_size = batch_size
        self._range_px = short_side_range_px
        self._seed = seed
        self._start = start
        self._rank = rank
        self._world = world
        self._epoch = lru_cache(maxsize=2)(self._shuffled_epoch)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        iteration = self._start
        while True:
            yield self.batch(iteration * self._world + self._rank)
            iteration += 1

    def batch(self, number: int) -> list[SampleKey]:
        """The batch of that number, counted from 0 over all processes."""
        per_epoch = len(self._epoch(0))
        indices = self._epoch(number // per_epoch)[number % per_epoch]
        low, high = self._range_px
        short_side_px = int(np.random.default_rng((self._seed, 1, number)).integers(low, high + 1))
        return [
            SampleKey(index, short_side_px, int(np.random.default_rng((self._seed, 2, number, place)).integers(2**31)))
            for place, index in enumerate(indices)
        ]

    def typical(self) -> list[SampleKey]:
        """The first batch at the root mean square of the short sides, which costs what batches cost on average."""
        low, high = self._range_px
        side_px = round(math.sqrt((low * low + low * high + high * high) / 3))
        return [replace(key, short_side_px=side_px) for key in self.batch(0)]

    def _shuffled_epoch(self, epoch: int) -> list[list[int]]:
        draw = np.random.default_rng((self._seed, 0, epoch))
        order = draw.permutation(len(self._is_portrait))
        size = self._batch_size
        batches: list[list[int]] = []
        rest: list[int] = []
        for portrait in (False, True):
            group = order[self._is_portrait[order] == portrait].tolist()
            whole = len(group) - len(group) % size
            batches.extend(group[at : at + size] for at in range(0, whole, size))
            rest.extend(group[whole:])
        while rest:
            batch, rest = rest[:size], rest[size:]
            batch += draw.integers(len(order), size=size - len(batch)).tolist()
            batches.append(batch)
        return [batches[at] for at in draw.permutation(len(batches))]
