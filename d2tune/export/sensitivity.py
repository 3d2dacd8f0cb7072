"""Which convolutions may compute in 8 bits: those whose rounding changes the features of the backbone little.

The noise of each convolution is measured alone, in torch, with its weights, input and output rounded as onnxruntime
rounds them. Noises of different layers are nearly independent, so that their powers add up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from d2tune.export.graphs.base import Graph

MOST_NOISE = 2e-3
"""Largest power of the noise of all chosen convolutions, as a share of the power of a feature map: 27 dB. With 22 dB
instances of the balloon photos were lost."""

_BODIES = ("backbone", "network")

_Range = tuple[float, float]


def tolerant_convolutions(graph: Graph, inputs: Sequence[tuple[Tensor, ...]], activated: Collection[str]) -> set[str]:
    """The names of the convolutions of the backbone that may compute in 8 bits together.

    Args:
        graph: The graph.
        inputs: The inputs of the graph for some images.
        activated: Names of the convolutions whose outputs only an activation takes, so that they are not rounded.
    """
    prefix = next(name for name in _BODIES if hasattr(graph, name))
    body: nn.Module = getattr(graph, prefix)
    named = {name: one for name, one in graph.named_modules() if name.startswith(prefix) and isinstance(one, nn.Conv2d)}
    with torch.no_grad():
        images = [_input_of(body, graph, one) for one in inputs]
        ranges = _ranges(body, images, named)
        plain = [_features(body, image) for image in images]
        noises = {}
        for name, (given, returned) in ranges.items():
            with _rounded(named[name], given, None if name in activated else returned):
                noises[name] = _noise(plain, [_features(body, image) for image in images])
    return _quietest(noises)


def _quietest(noises: Mapping[str, Tensor]) -> set[str]:
    """As many of the quietest convolutions as fit in `MOST_NOISE` on every feature map."""
    chosen: set[str] = set()
    total = torch.zeros(())
    for name in sorted(noises, key=lambda name: float(noises[name].max())):
        total = total + noises[name]
        if float(total.max()) > MOST_NOISE:
            break
        chosen.add(name)
    return chosen


class _CapturedError(Exception):
    """Ends a forward pass whose remainder is not needed."""


def _input_of(body: nn.Module, graph: Graph, inputs: tuple[Tensor, ...]) -> Tensor:
    """What the backbone gets when a graph runs, without running the backbone."""
    given: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        given.append(arguments[0])
        raise _CapturedError

    handle = body.register_forward_pre_hook(keep)
    try:
        graph(*inputs)
    except _CapturedError:
        pass
    finally:
        handle.remove()
    return given[0]


def _features(body: nn.Module, image: Tensor) -> list[Tensor]:
    output = body(image)
    return list(output.values()) if isinstance(output, Mapping) else [output]


def _noise(plain: Sequence[Sequence[Tensor]], noisy: Sequence[Sequence[Tensor]]) -> Tensor:
    """The power of the noise on each feature map as a share of its power, the mean over the images."""
    shares = []
    for maps, noisy_maps in zip(plain, noisy, strict=True):
        powers = [
            (noisy_map - one).square().sum() / one.square().sum().clamp(min=1e-12)
            for one, noisy_map in zip(maps, noisy_maps, strict=True)
        ]
        shares.append(torch.stack(powers))
    return torch.stack(shares).mean(0)


def _ranges(
    body: nn.Module, images: Sequence[Tensor], convolutions: Mapping[str, nn.Module]
) -> dict[str, tuple[_Range, _Range]]:
    """Lowest and highest input and output, with 0 between them, of the convolutions that run."""
    ranges: dict[str, tuple[_Range, _Range]] = {}

    def watch(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            given, returned = ranges.get(name, ((0.0, 0.0), (0.0, 0.0)))
            ranges[name] = _widened(given, arguments[0]), _widened(returned, output)

        return keep

    handles = [module.register_forward_hook(watch(name)) for name, module in convolutions.items()]
    try:
        for image in images:
            body(image)
    finally:
        for handle in handles:
            handle.remove()
    return ranges


def _widened(limits: _Range, values: Tensor) -> _Range:
    return min(limits[0], float(values.min())), max(limits[1], float(values.max()))


@contextmanager
def _rounded(module: Any, given: _Range, returned: _Range | None) -> Iterator[None]:
    """Let a convolution compute with values that 8 bits can hold; without limits its output is not rounded."""
    weight = module.weight.detach().clone()
    scale = (weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127).clamp(min=1e-12)
    module.weight.copy_((weight / scale).round() * scale)
    handles = [module.register_forward_pre_hook(lambda _, arguments: (_as_uint8(arguments[0], given),))]
    if returned is not None:
        handles.append(module.register_forward_hook(lambda _, arguments, output: _as_uint8(output, returned)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        module.weight.copy_(weight)


def _as_uint8(values: Tensor, limits: _Range) -> Tensor:
    scale = max((limits[1] - limits[0]) / 255, 1e-12)
    zero = round(-limits[0] / scale)
    return ((values / scale + zero).round().clamp(0, 255) - zero) * scale
