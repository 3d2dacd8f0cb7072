"""Which convolutions compute in 8 bits: not those whose values a few outliers stretch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from d2tune.export.graphs.base import Graph
from d2tune.export.sensitivity import tolerant_convolutions


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.zeros(1, 1, 1))
        self.register_buffer("pixel_std", torch.ones(1, 1, 1))


class _TwoLayers(Graph):
    """The second layer gets values of which one is a thousand times larger than the others."""

    def __init__(self) -> None:
        super().__init__(_Model())
        self.network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Identity(), nn.Conv2d(1, 1, 1, bias=False))
        for parameter in self.network.parameters():
            nn.init.ones_(parameter)
        self.network[1] = _Stretched()

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.network(self.normalized(image).unsqueeze(0))[0]
        return scores


class _Stretched(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        stretched = x.clone()
        stretched[..., 0, 0] = 1000 * x[..., 0, 0]
        return stretched


def test_a_convolution_with_outliers_stays_in_float() -> None:
    graph = _TwoLayers()
    random = torch.Generator().manual_seed(0)
    image = torch.rand(1, 64, 64, generator=random)
    image[0, 0, 0] = 0.05  # 50 behind the first layer, where all others are below 1
    # the steps of 8 bits up to 1 are small for both layers; up to 50 they are as large as a fifth of a value
    assert tolerant_convolutions(graph, [(image,)], {"network.0", "network.2"}) == {"network.0"}
    before = [parameter.clone() for parameter in graph.parameters()]
    tolerant_convolutions(graph, [(image,)], set())
    assert all(map(torch.equal, before, graph.parameters()))
    image[0, 0, 0] = 1e-4
    assert tolerant_convolutions(graph, [(image,)], {"network.0", "network.2"}) == {"network.0", "network.2"}
