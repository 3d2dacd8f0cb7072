"""An average of the weights over the iterations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from d2tune.engine.hooks.base import Hook


class WeightAverage(Hook):
    """An exponential moving average of the weights, which is what gets evaluated and kept.

    The decay grows as ``(1 + t) / (10 + t)`` up to ``decay``, so that early averages are not those of the
    initial weights (as in TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``).

    Args:
        model: The model that is trained.
        decay: Largest share of the old average that is kept at each step.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._average = {key: value.detach().clone() for key, value in self._floats()}

    def _floats(self) -> Iterator[tuple[str, torch.Tensor]]:
        return ((key, value) for key, value in self._model.state_dict().items() if value.is_floating_point())

    def after_step(self) -> None:
        step = self.trainer.iter
        decay = min(self._decay, (1 + step) / (10 + step))
        keys, values = zip(*self._floats(), strict=True)
        with torch.no_grad():
            torch._foreach_lerp_([self._average[key] for key in keys], list(values), 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        own = {key: value.detach().clone() for key, value in self._floats()}
        self._put(self._average)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, values: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for key, value in self._floats():
                value.copy_(values[key])

    def state_dict(self) -> dict[str, Any]:
        """The averages by name."""
        return {key: value.cpu() for key, value in self._average.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the averages of an earlier start."""
        for key, value in self._average.items():
            value.copy_(state[key])
