"""What is done with runs to make a candidate of them, and the choice among all that can be done, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from d2tune.assembling.candidates import SIZE_FACTORS, Candidate, Network, can_be_fused, fused, has_sizes, single


@dataclass(frozen=True, slots=True)
class Variant:
    """What is done with the runs.

    Attributes:
        runs: Their numbers. Several are an ensemble, or with `is_averaged` the mean of their weights.
        is_averaged: Whether the weights of one run are its stochastic weight average.
        factor: The size of images, in multiples of that of the runs.
        flips: Whether each image is seen mirrored as well.
        scales: Whether each image is seen in a second size as well.
    """

    runs: tuple[int, ...] = (0,)
    is_averaged: bool = False
    factor: float = 1.0
    flips: bool = False
    scales: bool = False

    @property
    def key(self) -> str:
        """A name for a folder, among the variants of one run: ``plain``, or ``averaged-1.25-mirrored-scaled``."""
        words = [
            *(["averaged"] if self.is_averaged else []),
            *([f"{self.factor:g}"] if self.factor != 1 else []),
            *(["mirrored"] if self.flips else []),
            *(["scaled"] if self.scales else []),
        ]
        return "-".join(words) or "plain"

    def candidate(self, networks: Sequence[Network]) -> Candidate:
        """The candidate.

        Args:
            networks: One for each run, or the one with averaged weights.
        """
        if len(networks) > 1 or self.flips or self.scales:
            return fused(networks, factor=self.factor, flips=self.flips, scales=self.scales)
        return single(networks[0], factor=self.factor)


PLAIN = Variant()
"""The first run as it is."""


@dataclass(frozen=True, slots=True)
class Possible:
    """What can be done with the runs.

    Attributes:
        averages: Whether the weights of one are averaged.
        sizes: For each run, whether its images are resized.
        views: Whether predictions of several views or runs can be fused.
        mean: Whether all runs have a mean of their weights.
    """

    averages: bool
    sizes: tuple[bool, ...]
    views: bool
    mean: bool = False

    @classmethod
    def of(cls, networks: Sequence[Network], *, averages: bool, mean: bool = False) -> Possible:
        """What can be done with networks."""
        configs = [network.cfg for network in networks]
        return cls(averages, tuple(has_sizes(cfg) for cfg in configs), all(can_be_fused(cfg) for cfg in configs), mean)


def choose(score: Callable[[Variant], float | None], possible: Possible) -> tuple[Variant, tuple[Variant, ...]]:
    """Score variants in stages, each of which begins with the best one before.

    The runs themselves; the stochastic weight average of the best one, and the mean of all; larger images; mirrored
    images, a second size, and all runs together.

    Args:
        score: The metric of a variant, higher is better; None where it is not defined, which is the worst.
        possible: What can be done.

    Returns:
        The best one, of equals the one that was tried first, and all that were tried.
    """
    ranks: dict[Variant, float] = {}

    def best_of(variants: Sequence[Variant]) -> Variant:
        for variant in variants:
            if variant not in ranks:
                value = score(variant)
                ranks[variant] = -math.inf if value is None else value
        return max(variants, key=ranks.__getitem__)

    everything = tuple(range(len(possible.sizes)))
    runs = [Variant((number,)) for number in everything]
    averages = [replace(best_of(runs), is_averaged=True)] if possible.averages else []
    averages += [Variant(everything, is_averaged=True)] if possible.mean else []
    start = best_of([*runs, *averages])
    is_resized = possible.sizes[start.runs[0]]
    sized = best_of([start, *(replace(start, factor=factor) for factor in (SIZE_FACTORS if is_resized else ()))])
    if possible.views:
        best_of([replace(sized, flips=True)])
        if is_resized:
            best_of([replace(sized, scales=True), replace(sized, flips=True, scales=True)])
        if len(runs) > 1:
            together = Variant(everything, factor=sized.factor)
            best_of([together, replace(together, flips=True)])
    return best_of(list(ranks)), tuple(ranks)


def leave_one_out(
    score: Callable[[Variant, tuple[int, ...]], float | None], folds: int, possible: Possible
) -> tuple[tuple[Variant, ...], tuple[Variant, ...]]:
    """For each fold the variant that all others choose.

    Args:
        score: The metric of a variant over the folds with some numbers.
        folds: Number of folds, at least 2.
        possible: What can be done.

    Returns:
        The choice for each fold, and all variants that were tried, in the order of the first trial.
    """
    chosen, tried = [], list[Variant]()
    for number in range(folds):
        others = tuple(other for other in range(folds) if other != number)
        best, scored = choose(partial(_over, score, others), possible)
        chosen.append(best)
        tried += scored
    return tuple(chosen), tuple(dict.fromkeys(tried))


def _over(
    score: Callable[[Variant, tuple[int, ...]], float | None], folds: tuple[int, ...], variant: Variant
) -> float | None:
    return score(variant, folds)
