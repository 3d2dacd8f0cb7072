"""The images of each training batch, which depend on the seed and the iteration only.

A resumed run therefore gets the batches of an uninterrupted run, with any number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler

from d2tune.data.sampling import systematic_sample


@dataclass(frozen=True, slots=True)
class SampleKey:
    """One image of a batch.

    Attributes:
        index: Index of the image in the dataset.
        short_side_px: Short side that the image is resized to.
        seed: Seed of the image's augmentation.
    """

    index: int
    short_side_px: int
    seed: int


class TrainingBatches(Sampler[list[SampleKey]]):
    """Endless batches over shuffled epochs.

    A batch has either landscape or portrait images, all resized to the same short side, so that little of a batch is
    padding. Only the images that remain at the end of an epoch are mixed.

    Args:
        is_portrait: For each image, whether its height exceeds its width.
        batch_size: Images per batch on this process.
        short_side_range_px: Smallest and largest short side, both included.
        seed: Seed of all random numbers.
        repeats: The relative frequency of each image in an epoch; None takes each of them once.
        start: First iteration.
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
        repeats: Sequence[float] | None = None,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._is_portrait = np.asarray(is_portrait, dtype=bool)
        self._batch_size = batch_size
        self._range_px = short_side_range_px
        self._seed = seed
        self._repeats = repeats
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
        """The batch with this number, counted from 0 over all processes."""
        per_epoch = len(self._epoch(0))
        indices = self._epoch(number // per_epoch)[number % per_epoch]
        low, high = self._range_px
        short_side_px = int(np.random.default_rng((self._seed, 1, number)).integers(low, high + 1))
        return [
            SampleKey(index, short_side_px, int(np.random.default_rng((self._seed, 2, number, place)).integers(2**31)))
            for place, index in enumerate(indices)
        ]

    def typical(self) -> list[SampleKey]:
        """The first batch at the root mean square of the short sides, which has the average cost of a batch."""
        low, high = self._range_px
        side_px = round(math.sqrt((low * low + low * high + high * high) / 3))
        return [replace(key, short_side_px=side_px) for key in self.batch(0)]

    def _shuffled_epoch(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng((self._seed, 0, epoch))
        order = rng.permutation(
            len(self._is_portrait) if self._repeats is None else systematic_sample(self._repeats, rng)
        )
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
            further = rng.integers(len(order), size=size - len(batch))
            batch += (further if self._repeats is None else order[further]).tolist()
            batches.append(batch)
        return [batches[at] for at in rng.permutation(len(batches))]
