"""What is done with a run to make a candidate of it, and the choice among all that can be done, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from d2tune.assembling.candidates import SIZE_FACTORS, Candidate, Network, can_be_fused, fused, has_sizes, single


@dataclass(frozen=True, slots=True)
class Variant:
    """What is done with a run.

    Attributes:
        is_averaged: Whether its weights are the stochastic weight average.
        factor: The size of images, in multiples of that of the run.
        flips: Whether each image is seen mirrored as well.
        scales: Whether each image is seen in a second size as well.
    """

    is_averaged: bool = False
    factor: float = 1.0
    flips: bool = False
    scales: bool = False

    @property
    def key(self) -> str:
        """A name for a folder: ``plain``, or ``averaged-1.25-mirrored-scaled``."""
        words = [
            *(["averaged"] if self.is_averaged else []),
            *([f"{self.factor:g}"] if self.factor != 1 else []),
            *(["mirrored"] if self.flips else []),
            *(["scaled"] if self.scales else []),
        ]
        return "-".join(words) or "plain"

    def candidate(self, network: Network) -> Candidate:
        """The candidate.

        Args:
            network: The run, with its averaged weights if they are wanted.
        """
        if self.flips or self.scales:
            return fused([network], factor=self.factor, flips=self.flips, scales=self.scales)
        return single(network, factor=self.factor)


PLAIN = Variant()
"""The run as it is."""


@dataclass(frozen=True, slots=True)
class Possible:
    """What can be done with a run.

    Attributes:
        averages: Whether its weights are averaged.
        sizes: Whether its images are resized.
        views: Whether predictions of several views can be fused.
    """

    averages: bool
    sizes: bool
    views: bool

    @classmethod
    def of(cls, network: Network, *, averages: bool) -> Possible:
        """What can be done with a network."""
        return cls(averages, has_sizes(network.cfg), can_be_fused(network.cfg))


def choose(score: Callable[[Variant], float | None], possible: Possible) -> tuple[Variant, tuple[Variant, ...]]:
    """Score variants in the stages of `assembling.assemble`, each of which begins with the best one before.

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

    start = best_of([PLAIN, *([Variant(is_averaged=True)] if possible.averages else [])])
    factors = SIZE_FACTORS if possible.sizes else ()
    sized = best_of([start, *(replace(start, factor=factor) for factor in factors)])
    if possible.views:
        best_of([replace(sized, flips=True)])
        if possible.sizes:
            best_of([replace(sized, scales=True), replace(sized, flips=True, scales=True)])
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
