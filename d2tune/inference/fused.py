"""Batch norms in the convolutions before them: in inference a norm is a factor and an offset for each channel.

On the CPU a norm of its own reads and writes every feature map once more, which takes a third of a
MobileNetV2's time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from detectron2.layers import Conv2d as NormedConv2d
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn import functional as F


@contextmanager
def fused_norms(model: nn.Module) -> Iterator[None]:
    """Let convolutions do the work of the norms behind them, as long as this lasts.

    Taken are Detectron2's convolutions with a norm of their own, and convolutions that a norm follows in an
    ``nn.Sequential``. Results change by rounding alone. Only what the modules compute is replaced: parameters, buffers
    and the state dict stay as they are all the while.

    Args:
        model: In evaluation mode. Weights that change meanwhile are not noticed.
    """
    replaced: list[nn.Module] = []

    def replace(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        module.forward = forward
        replaced.append(module)

    try:
        for convolution, norm in _pairs(model):
            replace(convolution, partial(_convolve, convolution, *_folded(convolution, norm)))
            if getattr(convolution, "norm", None) is not norm:
                replace(norm, _unchanged)
        yield
    finally:
        for module in replaced:
            del module.forward


def _pairs(model: nn.Module) -> list[tuple[nn.Conv2d, Any]]:
    """Each convolution with the norm that takes its output, where nothing else does."""
    pairs: list[tuple[Any, Any]] = []
    for module in model.modules():
        if isinstance(module, NormedConv2d):
            pairs.append((module, module.norm))
        elif isinstance(module, nn.Sequential):
            pairs += pairwise(module)
    uses = Counter(id(module) for pair in pairs for module in set(pair) if _can_fuse(*pair))
    return [pair for pair in pairs if _can_fuse(*pair) and all(uses[id(module)] == 1 for module in pair)]


def _can_fuse(convolution: Any, norm: Any) -> bool:
    """Whether both are of the plain kinds, with nothing between them and no forward of somebody else's."""
    if type(convolution) not in (nn.Conv2d, NormedConv2d) or type(norm) not in (nn.BatchNorm2d, FrozenBatchNorm2d):
        return False
    own = getattr(convolution, "norm", None)
    has_room = own is norm or (own is None and getattr(convolution, "activation", None) is None)
    is_plain = "forward" not in vars(convolution) and "forward" not in vars(norm)
    is_fixed = norm.running_var is not None and not norm.training
    return has_room and is_plain and is_fixed and convolution.padding_mode == "zeros"


@torch.no_grad()
def _folded(convolution: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Weights and bias of a convolution that does what both do."""
    factor = (norm.running_var + norm.eps).rsqrt()
    factor = factor if norm.weight is None else norm.weight * factor
    offset = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    bias = offset * factor if norm.bias is None else norm.bias + offset * factor
    return convolution.weight * factor.view(-1, 1, 1, 1), bias


def _convolve(convolution: nn.Conv2d, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    one = convolution
    found = F.conv2d(x, weight, bias, one.stride, one.padding, one.dilation, one.groups)
    activation = getattr(one, "activation", None)
    return found if activation is None else activation(found)


def _unchanged(x: Tensor) -> Tensor:
    return x
