"""When training has diverged: losses, gradients or weights that are not finite, or a loss that keeps exploding."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import nn

from d2tune.engine.loading import FILE
from d2tune.errors import RunError
from d2tune.modeling.reading import first_not_finite

EXPLODED = 30.0
"""A loss so many times as high as that of the initial weights, or as 1, is counted as exploded."""

PATIENCE = 3
"""Consecutive iterations with an exploded loss that end training; single ones can be odd batches."""

_SIGNS = re.compile(r"\b(nan|inf|infinite|infinity|finite|diverged)\b", re.IGNORECASE)
"""Words in the errors of operators, such as those of Detectron2's boxes, that refuse values that are not finite."""

HINT = "Lower train.learning_rate, for example by a factor of 3."


MOST_SKIPPED = 10
"""Steps in a row that are skipped before training ends all the same: then not the images are the reason."""

_NAMED = 4
"""Images that a message names."""


class DivergenceError(RunError):
    """Training has diverged; the weights must not be kept.

    Attributes:
        of_step: Whether only the step has failed, before it changed the weights.
    """

    of_step: bool = False


def step_error(message: str) -> DivergenceError:
    """The error of a step that has not changed the weights."""
    error = DivergenceError(message, hint=HINT)
    error.of_step = True
    return error


class DivergenceGuard:
    """Ends training where its loss explodes.

    Attributes:
        first_loss: Total loss of the initial weights; None before the first iteration.
        suspicious: Iterations in a row, up to the latest one, with an exploded loss.
        skipped: Iterations in a row, up to the latest one, whose step was skipped.
    """

    def __init__(self) -> None:
        self.first_loss: float | None = None
        self.suspicious = 0
        self.skipped = 0

    def check(self, iteration: int, losses: Mapping[str, float]) -> None:
        """Check the losses of an iteration.

        Raises:
            DivergenceError: One of them is not finite, or their sum has exploded for `PATIENCE` iterations in a row.
        """
        total = sum(losses.values())
        if not math.isfinite(total):
            raise step_error(
                f"training has diverged: the loss is not finite at iteration {iteration}: {_terms(losses)}"
            )
        if self.first_loss is None:
            self.first_loss = total
        limit = EXPLODED * max(1.0, self.first_loss)
        self.suspicious = self.suspicious + 1 if total > limit else 0
        if self.suspicious >= PATIENCE:
            largest = max(losses, key=lambda name: losses[name])
            raise DivergenceError(
                f"training has diverged: the loss is {total:.3g} at iteration {iteration}, {self.first_loss:.3g} with "
                f"the initial weights; its largest term is {largest}, {losses[largest]:.3g}",
                hint=HINT,
            )

    def skip(self, error: DivergenceError) -> None:
        """Count a step that is skipped.

        Raises:
            DivergenceError: `MOST_SKIPPED` steps in a row.
        """
        self.skipped += 1
        if self.skipped >= MOST_SKIPPED:
            raise DivergenceError(
                f"{MOST_SKIPPED} steps in a row were skipped; of the last one: {error.message}", hint=HINT
            ) from error


def _terms(losses: Mapping[str, float]) -> str:
    """The terms that are not finite, then the others."""
    wrong = {name: value for name, value in losses.items() if not math.isfinite(value)}
    others = {name: value for name, value in losses.items() if name not in wrong}
    text = ", ".join(f"{name} is {value:.3g}" for name, value in (wrong or losses).items())
    if not wrong or not others:
        return text
    return f"{text} ({', '.join(f'{name} {value:.3g}' for name, value in others.items())})"


def add_images(error: DivergenceError, model: nn.Module | None, samples: Sequence[Mapping[str, Any]]) -> None:
    """Add the images of its step to an error: those that by themselves give a loss that is not finite, or else all.

    Args:
        error: The error.
        model: As it was before the step; None where the images cannot be tried one by one.
        samples: The samples of the step.
    """
    alone = [] if model is None or not error.of_step else [one for one in samples if _is_wrong_alone(model, one)]
    files = list(dict.fromkeys(str(sample[FILE]) for sample in alone or samples if FILE in sample))
    if not files:
        return
    named = ", ".join(files[:_NAMED]) + (f" and {len(files) - _NAMED} more" if files[_NAMED:] else "")
    error.message += f", on {named}" if alone else f", in a batch of {named}"
    error.args = (error.one_line(),)


def _is_wrong_alone(model: nn.Module, sample: Mapping[str, Any]) -> bool:
    """Whether a sample by itself gives a loss that is not finite; the model and the random numbers stay as they are."""
    devices = [torch.cuda.current_device()] if next(model.parameters()).is_cuda else []
    with unchanged_statistics(model), torch.random.fork_rng(devices=devices), torch.no_grad(), EventStorage():
        try:
            losses = model([sample])
        except Exception as error:
            return is_divergence(error)
    return not all(math.isfinite(float(value)) for value in losses.values())


@contextmanager
def unchanged_statistics(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Restore the running statistics of norms that learn when the context ends with an error, or where it is asked.

    Args:
        model: The model.

    Yields:
        Keeps the statistics as they are at the end of the context.
    """
    kept = [
        (value, value.clone())
        for norm in model.modules()
        if isinstance(norm, nn.modules.batchnorm._NormBase) and norm.training
        for value in norm.buffers(recurse=False)
    ]

    def keep() -> None:
        kept.clear()

    try:
        yield keep
    finally:
        for value, before in kept:
            value.copy_(before)


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
