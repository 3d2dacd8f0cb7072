"""The gradient of group norms in ``channels_last``."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2tune.modeling.group_norm import use_own_gradient

SHAPE = (3, 12, 5, 7)


def norm_of(channels: int, groups: int) -> nn.GroupNorm:
    norm = nn.GroupNorm(groups, channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def own(norm: nn.GroupNorm) -> nn.GroupNorm:
    changed = copy.deepcopy(norm)
    use_own_gradient(changed)
    return changed


def gradients(norm: nn.Module, x: Tensor, to: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    return list(torch.autograd.grad(norm(x), [x, *norm.parameters()], to))


def by_definition(norm: nn.GroupNorm, x: Tensor, to: Tensor) -> list[Tensor]:
    """In float64, from the mean and the deviation of each group."""
    x = x.double().requires_grad_()
    weight, bias = (value.detach().double().requires_grad_() for value in norm.parameters())
    grouped = x.reshape(len(x), norm.num_groups, -1)
    deviation = (grouped.var(2, unbiased=False, keepdim=True) + norm.eps).sqrt()
    z = ((grouped - grouped.mean(2, keepdim=True)) / deviation).view_as(x)
    return list(
        torch.autograd.grad(z * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1), [x, weight, bias], to.double())
    )


@pytest.mark.parametrize("groups", [1, 4, 12])
@pytest.mark.parametrize("given", [torch.channels_last, torch.contiguous_format])
def test_gradients_are_those_of_the_definition(groups: int, given: torch.memory_format) -> None:
    torch.manual_seed(groups)
    norm = norm_of(SHAPE[1], groups)
    x = (torch.randn(SHAPE) * 3 + 2).contiguous(memory_format=torch.channels_last)
    to = torch.randn(SHAPE).contiguous(memory_format=given)
    changed = own(norm)
    assert torch.equal(changed(x), norm(x))
    for value, expected in zip(gradients(changed, x, to), by_definition(norm, x, to), strict=True):
        assert value.dtype == torch.float32
        assert float((value - expected).abs().max()) < 2e-5
    assert gradients(changed, x, to)[0].is_contiguous(memory_format=torch.channels_last)


def test_a_gradient_by_hand() -> None:
    """Groups of the values -1 and 1 are normalized already, z = x. With g = (1, 0), weight 2 and a mean of g z of
    -1/2, dx is 2 ((1, 0) - 1/2 + z / 2) = (0, 0); the gradient of the weight is -1, that of the bias 1."""
    norm = nn.GroupNorm(2, 2, eps=0)
    norm.weight.data.fill_(2)
    x = torch.tensor([-1.0, 1.0, 1.0, -1.0]).view(1, 2, 1, 2).contiguous(memory_format=torch.channels_last)
    dx, weight, bias = gradients(own(norm), x, torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 2, 1, 2))
    assert dx.flatten().tolist() == [0.0, 0.0, 0.0, 0.0]
    assert weight.tolist() == [-1.0, 1.0] and bias.tolist() == [1.0, 1.0]


def test_other_layouts_types_and_modes_are_left_to_torch() -> None:
    norm = norm_of(4, 2)
    changed = own(norm)
    last = torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    assert "ChannelsLast" in type(changed(last).grad_fn).__name__
    assert "NativeGroupNorm" in type(changed(last.contiguous()).grad_fn).__name__
    assert "NativeGroupNorm" in type(changed(torch.randn(2, 4, 9)).grad_fn).__name__
    assert "NativeGroupNorm" in type(own(norm).double()(last.double()).grad_fn).__name__
    with torch.no_grad():
        assert changed(last).grad_fn is None
    assert list(changed.state_dict()) == list(norm.state_dict())


def test_a_copy_computes_with_its_own_weights() -> None:
    changed = own(norm_of(4, 2))
    other = copy.deepcopy(changed)
    nn.init.zeros_(changed.weight)
    nn.init.zeros_(changed.bias)
    x = torch.randn(1, 4, 2, 3).contiguous(memory_format=torch.channels_last)
    assert not bool(changed(x).any())
    assert torch.equal(other(x), F.group_norm(x, 2, other.weight, other.bias))
