"""Batch norms of the bridge's networks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SteadyBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that uses its running statistics if a channel has a single value, which has no deviation.

    This happens in training with a batch of one image, after DeepLab's image pooling and in the last stage for a small
    image. The weights and their names are those of ``nn.BatchNorm2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


class ActivatedBatchNorm2d(SteadyBatchNorm2d):
    """Batch norm and a leaky ReLU as one layer, which comes before a convolution instead of after it."""

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(input), LEAK)


LEAK = 0.01
"""Slope of leaky ReLUs below 0."""


def with_steady_norms(network: nn.Module) -> nn.Module:
    """Replace all plain batch norms of a network by ``SteadyBatchNorm2d``; returns the network."""
    for name, child in network.named_children():
        if type(child) is not nn.BatchNorm2d:
            with_steady_norms(child)
            continue
        steady = SteadyBatchNorm2d(child.num_features, child.eps, child.momentum, child.affine)
        steady.load_state_dict(child.state_dict())
        setattr(network, name, steady)
    return network
