"""The frozen first stages of a network in training, one image after the other.

The features inside the blocks of a MobileNetV2 are six times as wide as those between them, and each value of them is
used a few times only. Those of one image at the first stages fit into the cache of a processor, those of a batch do
not. The convolutions of a ResNet compute more with each value, so that a batch is as fast there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

_DRAWING = (nn.modules.dropout._DropoutNd, StochasticDepth)
_OVER_BATCHES = (nn.modules.batchnorm._NormBase,)


def run_stages(stages: Sequence[nn.Module], x: Tensor, *, wanted: Collection[int]) -> dict[int, Tensor]:
    """Run stages one after the other.

    In training on a processor, the first ones that are frozen see one image at a time if some of their convolutions are
    depthwise. The results are the same.

    Args:
        stages: The stages, of which each is given the output of the one before.
        x: Images ``(N, C, H, W)``.
        wanted: The indices of the stages whose outputs are needed.

    Returns:
        The wanted outputs by index.
    """
    frozen = 0
    if x.is_cpu and any(stage.training for stage in stages) and len(x) > 1:
        first = list(takewhile(_is_frozen, stages))
        frozen = len(first) if any(map(_is_depthwise, first)) else 0
    outputs: dict[int, Tensor] = {}
    if frozen:
        outputs = _one_at_a_time(stages[:frozen], x, wanted={*wanted, frozen - 1})
        x = outputs[frozen - 1]
    for index, stage in enumerate(stages[frozen:], start=frozen):
        x = stage(x)
        if index in wanted:
            outputs[index] = x
    return outputs


def _is_frozen(stage: nn.Module) -> bool:
    """Whether nothing is trained in a stage, nothing is drawn at random, and no image has an effect on another."""
    if any(value.requires_grad for value in stage.parameters()):
        return False
    return not any(module.training for module in stage.modules() if isinstance(module, (*_DRAWING, *_OVER_BATCHES)))


def _is_depthwise(stage: nn.Module) -> bool:
    """Whether a stage has convolutions of single channels."""
    return any(isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 for module in stage.modules())


def _one_at_a_time(stages: Sequence[nn.Module], x: Tensor, *, wanted: Collection[int]) -> dict[int, Tensor]:
    kept: dict[int, list[Tensor]] = {index: [] for index in wanted if index < len(stages)}
    with torch.no_grad():
        for image in torch.split(x, 1):
            for index, stage in enumerate(stages):
                image = stage(image)
                if index in kept:
                    kept[index].append(image)
    return {index: torch.cat(images) for index, images in kept.items()}
