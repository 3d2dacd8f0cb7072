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
        most_short_side_px: Short side that images are cut to; each of them then has a size of its own. None for one
            size a batch.
        start: First iteration.
        rank: Number of this process among ``world`` processes, each of which takes its images of a batch.
        world: Number of processes.
        accumulate: How many times gradients are computed for a batch; each process then takes its images of each time.
    """

    def __init__(
        self,
        is_portrait: Sequence[bool],
        *,
        batch_size: int,
        short_side_range_px: tuple[int, int],
        seed: int,
        repeats: Sequence[float] | None = None,
        most_short_side_px: int | None = None,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        self._is_portrait = np.asarray(is_portrait, dtype=bool)
        self._batch_size = batch_size
        self._range_px = short_side_range_px
        self._seed = seed
        self._repeats = repeats
        self._most_short_side_px = most_short_side_px
        self._start = start
        self._rank = rank
        self._world = world
        self._accumulate = accumulate if batch_size % accumulate == 0 else 1
        self._epoch = lru_cache(maxsize=2)(self._shuffled_epoch)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        iteration = self._start
        while True:
            yield self._own(self.batch(iteration))
            iteration += 1

    def _own(self, batch: list[SampleKey]) -> list[SampleKey]:
        """The images of this process, in the order in which one process would have them."""
        size = self._batch_size // self._accumulate
        first = range(self._rank * size, len(batch), self._world * size)
        return [key for at in first for key in batch[at : at + size]]

    def batch(self, number: int) -> list[SampleKey]:
        """The batch of an iteration, of all processes."""
        per_epoch = len(self._epoch(0))
        indices = self._epoch(number // per_epoch)[number % per_epoch]
        low, high = self._range_px
        short_side_px = int(np.random.default_rng((self._seed, 1, number)).integers(low, high + 1))
        return [
            SampleKey(
                index,
                self._own_side(number, place) or short_side_px,
                int(np.random.default_rng((self._seed, 2, number, place)).integers(2**31)),
            )
            for place, index in enumerate(indices)
        ]

    def _own_side(self, number: int, place: int) -> int | None:
        """The short side of an image of a batch; None where the batch has one for all."""
        if self._most_short_side_px is None:
            return None
        low, high = self._range_px
        return int(np.random.default_rng((self._seed, 3, number, place)).integers(low, high + 1))

    def typical(self, number: int = 0) -> list[SampleKey]:
        """The batch of an iteration at the root mean square of the short sides, which has the average cost of a batch.

        Args:
            number: The iteration.
        """
        keys = self._own(self.batch(number))
        low, high = self._range_px
        if self._most_short_side_px is not None:
            sides = np.arange(low, high + 1).clip(max=self._most_short_side_px)
            return [replace(key, short_side_px=round(math.sqrt(np.mean(sides**2)))) for key in keys]
        side_px = round(math.sqrt((low * low + low * high + high * high) / 3))
        return [replace(key, short_side_px=side_px) for key in keys]

    def largest(
        self, sizes_hw: Sequence[tuple[int, int]], instances: Sequence[int], *, count: int | None = None
    ) -> list[SampleKey]:
        """A batch that takes as much memory as any: the largest images that can meet, and the one with most instances.

        Args:
            sizes_hw: Height and width of each image at the largest short side.
            instances: Instances of each image.
            count: Images of the batch; None takes as many as a batch has.
        """
        size = self._batch_size if count is None else count
        images = range(len(sizes_hw))
        by_area = sorted(images, key=lambda index: -sizes_hw[index][0] * sizes_hw[index][1])
        first = by_area[0]
        portraits = int(self._is_portrait.sum())
        mixes = self._repeats is not None or bool(portraits % size or (len(images) - portraits) % size)
        if not mixes:
            by_area = [index for index in by_area if self._is_portrait[index] == self._is_portrait[first]]
        widest = max(by_area, key=lambda index: sizes_hw[index][1])
        tallest = max(by_area, key=lambda index: sizes_hw[index][0])
        fullest = max(by_area, key=lambda index: instances[index])
        order = list(dict.fromkeys([first, widest, tallest, fullest, *by_area]))
        return [SampleKey(order[place % len(order)], self._range_px[1], place) for place in range(size)]

    def _shuffled_epoch(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng((self._seed, 0, epoch))
        order = rng.permutation(
            len(self._is_portrait) if self._repeats is None else systematic_sample(self._repeats, rng)
        )
        size = self._batch_size * self._world
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
