"""When training has diverged: losses, gradients or weights that are not finite, or a loss that keeps exploding."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import nn

from d2tune.errors import RunError
from d2tune.modeling.reading import first_not_finite

EXPLODED = 30.0
"""A loss so many times as high as that of the initial weights, or as 1, is counted as exploded."""

PATIENCE = 3
"""Consecutive iterations with an exploded loss that end training; single ones can be odd batches."""

_SIGNS = re.compile(r"\b(nan|inf|infinite|infinity|finite|diverged)\b", re.IGNORECASE)
"""Words in the errors of operators, such as those of Detectron2's boxes, that refuse values that are not finite."""

HINT = "Lower train.learning_rate, for example by a factor of 3."


class DivergenceError(RunError):
    """Training has diverged; the weights must not be kept."""


class DivergenceGuard:
    """Ends training where its loss explodes.

    Attributes:
        first_loss: Total loss of the initial weights; None before the first iteration.
        suspicious: Iterations in a row, up to the latest one, with an exploded loss.
    """

    def __init__(self) -> None:
        self.first_loss: float | None = None
        self.suspicious = 0

    def check(self, iteration: int, losses: Mapping[str, float]) -> None:
        """Check the losses of an iteration.

        Raises:
            DivergenceError: One of them is not finite, or their sum has exploded for `PATIENCE` iterations in a row.
        """
        total = sum(losses.values())
        if not math.isfinite(total):
            raise DivergenceError(
                f"training has diverged: the loss is not finite at iteration {iteration} ({_listed(losses)})", hint=HINT
            )
        if self.first_loss is None:
            self.first_loss = total
        limit = EXPLODED * max(1.0, self.first_loss)
        self.suspicious = self.suspicious + 1 if total > limit else 0
        if self.suspicious >= PATIENCE:
            raise DivergenceError(
                f"training has diverged: the loss is {total:.3g} at iteration {iteration}, {self.first_loss:.3g} with "
                "the initial weights",
                hint=HINT,
            )


def _listed(losses: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in losses.items())


def check_weights(model: nn.Module, *, iteration: int) -> None:
    """Check that all weights are finite.

    Raises:
        DivergenceError: Names the first tensor that is not.
    """
    name = first_not_finite(model.state_dict())
    if name is not None:
        raise DivergenceError(
            f"training has diverged: the weights are not finite after {iteration} iterations ({name})", hint=HINT
        )


def is_divergence(error: BaseException) -> bool:
    """Whether an error of a forward pass says that values are not finite."""
    if isinstance(error, FloatingPointError):
        return True
    return isinstance(error, AssertionError | ValueError | RuntimeError) and bool(_SIGNS.search(str(error)))
