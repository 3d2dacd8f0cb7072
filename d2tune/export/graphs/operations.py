"""Steps of the graphs that tracing and the ONNX exporter take differently."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

_LOWEST = -1e30
"""Below all scores and logits: what has this score is not kept."""


def size_wh(image: Tensor) -> Tensor:
    """Width and height of ``(C, h, w)`` as int64 ``(2,)``, which stays open when it is traced."""
    return torch._shape_as_tensor(image)[1:].flip(0)


def pad_to_multiple(image: Tensor, divisor: int) -> Tensor:
    """``(C, h, w)`` with zeros on the right and below, up to a multiple of a side length in pixels."""
    if divisor <= 1:
        return image
    return F.pad(image, (0, -image.shape[-1] % divisor, 0, -image.shape[-2] % divisor))


def clip_boxes(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes ``(..., 4)``, clipped to an image of width and height ``size``."""
    return torch.minimum(boxes.clamp(min=0), size.repeat(2).to(boxes))


def is_nonempty(boxes: Tensor, *, least_px: float = 0.0) -> Tensor:
    """Whether both sides of each box ``(..., 4)`` are longer than ``least_px``."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides[..., 0] > least_px) & (sides[..., 1] > least_px)


def top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest values of ``(N,)`` in descending order, or all of fewer, and their indices."""
    available = torch._shape_as_tensor(values)[0]
    best, indices = values.topk(available.clamp(max=count))  # type: ignore[arg-type]
    return best, indices


def suppressed(
    boxes: Tensor, scores: Tensor, *, threshold: float, least: float | None, most: int, for_onnx: bool
) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression in each of G groups, as in ``torchvision.ops.nms``.

    Args:
        boxes: ``(G, R, 4)``.
        scores: ``(G, R)``.
        threshold: A box is removed where its IoU with a kept box of its group is above this.
        least: Only scores above this are kept; None keeps all above `_LOWEST`.
        most: Kept boxes of a group; of those, the first.
        for_onnx: Whether the ONNX exporter traces this, as ``NonMaxSuppression``.

    Returns:
        The group and the index of each kept box, int64, in descending order of the scores within a group.
    """
    floor = _LOWEST if least is None else least
    if for_onnx:
        rows: Tensor = _NonMaxSuppression.apply(boxes, scores.unsqueeze(1), most, threshold, floor)  # type: ignore[no-untyped-call]
        return rows[:, 0], rows[:, 2]
    kept = [_kept(boxes[group], scores[group], threshold, floor, most) for group in range(len(scores))]
    groups = [torch.full_like(indices, group) for group, indices in enumerate(kept)]
    return torch.cat(groups), torch.cat(kept)


def without(scores: Tensor, mask: Tensor) -> Tensor:
    """The scores, so low where ``mask`` is false that `suppressed` keeps none of these."""
    return torch.where(mask, scores, torch.full_like(scores, 2 * _LOWEST))


def _kept(boxes: Tensor, scores: Tensor, threshold: float, floor: float, most: int) -> Tensor:
    chosen = (scores > floor).nonzero()[:, 0]
    return chosen[nms(boxes[chosen], scores[chosen], threshold)[:most]]


class _NonMaxSuppression(torch.autograd.Function):
    """ONNX's ``NonMaxSuppression``, which stops at the number of boxes that are kept."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, most: int, threshold: float, floor: float) -> Tensor:
        """Rows of group, 0, index, int64 ``(M, 3)``."""
        rows = []
        for group in range(len(scores)):
            kept = _kept(boxes[group], scores[group, 0], threshold, floor, most)
            rows.append(torch.stack([torch.full_like(kept, group), torch.zeros_like(kept), kept], dim=1))
        return torch.cat(rows)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, most: int, threshold: float, floor: float) -> Any:
        """The node of the graph."""
        constants = (torch.tensor([most]), torch.tensor([threshold]), torch.tensor([floor]))
        return g.op("NonMaxSuppression", boxes, scores, *(g.op("Constant", value_t=value) for value in constants))
