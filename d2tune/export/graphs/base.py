"""The base class of graphs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Graph(nn.Module):
    """A network from an image to tensors, which shares the parameters of a model.

    Attributes:
        input_names: Names of what ``forward`` takes.
        output_names: Names of what it returns.

    Args:
        model: The model in evaluation mode.
    """

    input_names: tuple[str, ...] = ("image",)
    output_names: tuple[str, ...] = ("sem_seg",)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.register_buffer("mean", model.pixel_mean.clone(), persistent=False)
        self.register_buffer("std", model.pixel_std.clone(), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def normalized(self, image: Tensor) -> Tensor:
        """``(C, h, w)`` after mean and deviation."""
        return (image - self.mean) / self.std
