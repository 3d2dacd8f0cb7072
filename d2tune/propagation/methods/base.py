"""What a method that carries masks through a video takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.types import Mask


class Frames(Protocol):
    """The frames of a clip, by their index from 0; all have the same size."""

    def __len__(self) -> int:
        """The number of frames."""
        ...

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]:
        """A frame, ``(H, W, 3)`` uint8 in RGB, upright; it is read anew each time."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A frame with the masks that a person drew.

    Attributes:
        index: Index of the frame.
        masks: The mask ``(H, W)`` of each object that the frame shows, by the number of the object. An object that has
            no mask here is not in this frame.
    """

    index: int
    masks: Mapping[int, Mask]


@dataclass(frozen=True, slots=True, eq=False)
class Propagated:
    """What a method gives for a frame.

    Attributes:
        index: Index of the frame.
        masks: The mask ``(H, W)`` of each object by its number; objects that the frame does not show are missing, and
            masks do not overlap.
        confidences: From 0 to 1 for every object of the references, those that the frame does not show included: how
            sure the method is of the mask, or of its absence.
    """

    index: int
    masks: Mapping[int, Mask]
    confidences: Mapping[int, float]


class PropagationMethod(Protocol):
    """Carries the masks of reference frames to all other frames of a clip."""

    name: str
    """What ``--method`` calls it."""
    identity: str
    """A hash of the weights that it begins with, empty without; frames of other weights are not finished ones."""

    def propagate(
        self, frames: Frames, references: Sequence[Reference], *, finished: Mapping[int, Mapping[int, Mask]]
    ) -> Iterator[Propagated]:
        """Give every frame that is neither a reference nor finished once, in any order, each as soon as it is known.

        Args:
            frames: The frames.
            references: One or more of them with masks, in the order of their indices; at least one has a mask.
            finished: The masks of frames that an earlier, interrupted call gave, read when they are asked for; they may
                help to go on.
        """
        ...
