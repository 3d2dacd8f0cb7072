"""Norms whose running statistics do not change while the rest of a model is trained."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from d2tune.engine.hooks.base import Hook


class KeepNormsFrozen(Hook):
    """Puts norms back into evaluation mode before each step, because an evaluation leaves the model in training mode.

    Args:
        norms: Those of the frozen parts.
    """

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        self._norms = norms

    def before_step(self) -> None:
        for norm in self._norms:
            norm.eval()
