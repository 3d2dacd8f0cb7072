"""Norms that do not change, computed inside the convolutions before them.

Such a norm is a factor and an offset for each channel. As a separate layer it reads and writes each feature map once
more, in training two or three times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from detectron2.layers import Conv2d as NormedConv2d
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from d2tune.modeling.bridge.norms import SteadyBatchNorm2d

_NORMS = (nn.BatchNorm2d, SteadyBatchNorm2d, FrozenBatchNorm2d)


def fold_frozen_norms(model: nn.Module) -> None:
    """Compute frozen norms inside the convolutions before them from now on, in training too.

    Weights are folded in each forward pass, so that changes of weights and norms have their effect at once, and
    gradients are those of the separate layers. Results differ by rounding only. Only the ``forward`` of modules is
    replaced: parameters, buffers and the state dict do not change.

    Args:
        model: Its frozen norms are those of Detectron2, and batch norms without a trained parameter while they are in
            evaluation mode; see `pairs_of` for the convolutions.
    """
    for convolution, norm in pairs_of(model, is_fixed=_is_frozen):
        _replace(convolution, FoldedConvolution(convolution, norm))
        if getattr(convolution, "norm", None) is not norm:
            _replace(norm, _WithinConvolution(norm))


def pairs_of(model: nn.Module, *, is_fixed: Callable[[Any], bool]) -> list[tuple[nn.Conv2d, Any]]:
    """Each convolution with the norm that follows it, if nothing else uses its output.

    These are Detectron2's convolutions with a norm of their own, convolutions that a norm follows in an
    ``nn.Sequential``, and those in the blocks of torchvision's ResNets.

    Args:
        model: A model.
        is_fixed: Whether a norm does not use the statistics of its input.
    """
    pairs = [pair for module in model.modules() for pair in _neighbors(module)]
    pairs = [(convolution, norm) for convolution, norm in pairs if _can_fold(convolution, norm) and is_fixed(norm)]
    uses = Counter(id(module) for pair in pairs for module in pair)
    return [pair for pair in pairs if all(uses[id(module)] == 1 for module in pair)]


def folded(convolution: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that computes both."""
    factor = (norm.running_var + norm.eps).rsqrt()
    factor = factor if norm.weight is None else norm.weight * factor
    offset = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    bias = offset * factor if norm.bias is None else norm.bias + offset * factor
    return convolution.weight * factor.view(-1, 1, 1, 1), bias


def convolve(convolution: nn.Conv2d, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """What a convolution and its activation give with another weight and bias."""
    output = F.conv2d(
        x, weight, bias, convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    )
    activation: Callable[[Tensor], Tensor] | None = getattr(convolution, "activation", None)
    return output if activation is None else activation(output)


class FoldedConvolution:
    """The ``forward`` of a convolution that computes its norm too, while that is fixed.

    Args:
        convolution: The convolution.
        norm: The norm behind it.
    """

    def __init__(self, convolution: Any, norm: nn.Module) -> None:
        self._convolution = convolution
        self._norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        if _is_training(self._norm):
            output: Tensor = type(self._convolution).forward(self._convolution, x)
            return output
        return convolve(self._convolution, *folded(self._convolution, self._norm), x)


class _WithinConvolution:
    """The ``forward`` of a norm that the convolution before it computes, while it is fixed."""

    def __init__(self, norm: nn.Module) -> None:
        self._norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        if _is_training(self._norm):
            output: Tensor = type(self._norm).forward(self._norm, x)
            return output
        return x


def is_own_forward(module: nn.Module) -> bool:
    """Whether the ``forward`` of a module is that of its class, or was replaced by `fold_frozen_norms`."""
    return isinstance(vars(module).get("forward"), FoldedConvolution | _WithinConvolution | None)


def _neighbors(module: nn.Module) -> Iterator[tuple[Any, Any]]:
    """Pairs of modules of which the second is given the output of the first."""
    if isinstance(module, NormedConv2d):
        yield module, module.norm
    elif isinstance(module, nn.Sequential):
        yield from pairwise(module)
    elif type(module) in (BasicBlock, Bottleneck):
        for number in "123" if isinstance(module, Bottleneck) else "12":
            yield getattr(module, f"conv{number}"), getattr(module, f"bn{number}")


def _can_fold(convolution: Any, norm: Any) -> bool:
    """Whether both are plain modules without a ``forward`` of others, and nothing is computed between them."""
    if type(convolution) not in (nn.Conv2d, NormedConv2d) or type(norm) not in _NORMS:
        return False
    own = getattr(convolution, "norm", None)
    is_adjacent = own is norm or (own is None and getattr(convolution, "activation", None) is None)
    is_plain = is_own_forward(convolution) and is_own_forward(norm)
    return is_adjacent and is_plain and norm.running_var is not None and convolution.padding_mode == "zeros"


def _replace(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
    module.forward = forward


def _is_training(norm: nn.Module) -> bool:
    """Whether a norm uses the statistics of its input."""
    return norm.training and not isinstance(norm, FrozenBatchNorm2d)


def _is_frozen(norm: nn.Module) -> bool:
    return not any(value.requires_grad for value in norm.parameters())
