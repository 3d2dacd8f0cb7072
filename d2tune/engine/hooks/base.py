"""The base class of d2tune's hooks: Detectron2's, with all events on any version of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detectron2.engine import HookBase

if TYPE_CHECKING:
    from d2tune.engine.trainer import Trainer


class Hook(HookBase):  # type: ignore[misc]  # Detectron2 has no types
    """A hook of a ``Trainer``.

    ``before_train`` and ``after_train`` come once, the latter also when training stops early or fails; ``before_step``,
    ``after_backward`` (the gradients are there, before they are clipped and the weights change) and ``after_step``
    come in every iteration, ``after_last_step`` once after the last one. A hook with ``state_dict`` and
    ``load_state_dict`` is in the checkpoint that a run is resumed from, with tensors, numbers, text, and lists and
    dicts of them.

    Attributes:
        trainer: Set when the hook is registered.
    """

    trainer: Trainer

    def after_backward(self) -> None:
        """Called after the backward pass of each iteration; Detectron2 0.6 itself has no such event."""

    def after_last_step(self) -> None:
        """Called when all iterations are completed and saved, for what a run ends with."""
