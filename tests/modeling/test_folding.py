"""Frozen norms inside convolutions give the same numbers and gradients in training, and follow every change."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from detectron2.layers import Conv2d as NormedConv2d
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from d2tune.inference.fused import fused_norms
from d2tune.modeling.backbone import FeatureBackbone
from d2tune.modeling.folding import FoldedConvolution, fold_frozen_norms


def with_random_norms(model: nn.Module) -> nn.Module:
    """The model in training mode, with norms that are not the identity."""
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -1.0), (module.running_mean, -1.0)):
                tensor.data.copy_(low + torch.rand(tensor.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return model.train()


def both(build: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module]:
    """A model, and a copy with folded norms."""
    torch.manual_seed(1)
    plain = with_random_norms(build())
    model = copy.deepcopy(plain)
    fold_frozen_norms(model)
    return plain, model


def folded(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(vars(module).get("forward"), FoldedConvolution)]


def frozen_block() -> nn.Module:
    return FrozenBatchNorm2d.convert_frozen_batchnorm(Bottleneck(8, 2))


def test_gradients_by_hand() -> None:
    """The norm is 5 (x - 1) / 2 + 7 at a variance of 4: the sum of 5 (3 x - 1) / 2 + 7 over x has the derivative
    5/2 of the sum of x by the weight."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), FrozenBatchNorm2d(1, eps=0))
    model[0].weight.data.fill_(3)
    for name, value in (("weight", 5.0), ("bias", 7.0), ("running_mean", 1.0), ("running_var", 4.0)):
        getattr(model[1], name).fill_(value)
    fold_frozen_norms(model)
    output = model(torch.tensor([-1.0, 0.0, 2.0]).view(3, 1, 1, 1))
    output.sum().backward()
    assert output.flatten().tolist() == [-3.0, 4.5, 19.5]
    assert model[0].weight.grad.item() == 2.5


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: nn.Sequential(nn.Conv2d(8, 8, 3), FrozenBatchNorm2d(8), nn.ReLU6(inplace=True)), 1),
        (lambda: NormedConv2d(8, 8, 3, bias=False, norm=FrozenBatchNorm2d(8), activation=torch.relu), 1),
        (lambda: BottleneckBlock(8, 8, bottleneck_channels=4, norm="FrozenBN"), 3),
        (lambda: FrozenBatchNorm2d.convert_frozen_batchnorm(BasicBlock(8, 8)), 2),
        (frozen_block, 3),
    ],
)
def test_a_step_is_the_same_as_with_separate_norms(build: Callable[[], nn.Module], count: int) -> None:
    plain, model = both(build)
    assert len(folded(model)) == count
    for _ in range(2):
        x = torch.randn(2, 8, 9, 11)
        outputs = [one(x) for one in (plain, model)]
        assert (outputs[0] - outputs[1]).abs().max() < 1e-5
        for one, output in zip((plain, model), outputs, strict=True):
            one.zero_grad()
            output.square().sum().backward()
            torch.optim.SGD(one.parameters(), lr=1e-4).step()
        for a, b in zip(plain.parameters(), model.parameters(), strict=True):
            assert a.grad is not None and b.grad is not None
            assert (a.grad - b.grad).abs().max() < 1e-4 * a.grad.abs().max()
    assert list(plain.state_dict()) == list(model.state_dict())


def test_norms_that_learn_are_left_alone() -> None:
    _, model = both(lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)))
    assert not folded(model)


def test_norms_frozen_by_name_are_folded_while_they_do_not_change() -> None:
    """In training mode, as in the steps before training begins, they measure the batch and learn from it."""

    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)).requires_grad_(False)

    plain, model = both(build)
    x = torch.randn(2, 8, 9, 11)
    assert torch.equal(plain(x), model(x)) and torch.equal(plain[1].running_mean, model[1].running_mean)
    for one in (plain, model):
        one[1].eval()
    before = model[1].running_mean.clone()
    assert (plain(x) - model(x)).abs().max() < 1e-5 and not torch.equal(plain(x), model(x))
    assert torch.equal(model[1].running_mean, before)


def test_an_evaluation_in_training_has_the_bits_of_a_later_one() -> None:
    plain, model = both(frozen_block)
    x = torch.randn(1, 8, 9, 11)
    results = []
    for one in (plain, model):
        one.eval()
        with torch.no_grad(), fused_norms(one):
            results.append(one(x))
        one.train()
    assert torch.equal(*results)
    assert len(folded(model)) == 3 and not folded(plain), "training goes on as it was"


@pytest.mark.parametrize(("network", "at_once"), [("mobilenet_v2", 1), ("resnet18", 3)])
def test_frozen_stages_with_depthwise_convolutions_see_one_image_at_a_time(network: str, at_once: int) -> None:
    plain, model = both(lambda: FeatureBackbone(f"torchvision/{network}", freeze_norm=True, freeze_at=2))
    seen: list[int] = []
    for stage in model.body.children():
        stage.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    x = torch.randn(3, 3, 64, 96)
    features, expected = model(x), plain.eval()(x)
    frozen = sum(not any(value.requires_grad for value in stage.parameters()) for stage in model.body.children())
    assert seen == [at_once] * (3 // at_once) * frozen + [3] * (len(model.body) - frozen) and frozen >= 4
    for name, feature in expected.items():
        assert (features[name] - feature).abs().max() < 1e-4 * feature.abs().max()
        assert features[name].shape == feature.shape
    assert not features["stride4"].requires_grad and features["stride8"].requires_grad


def test_stages_that_measure_batches_or_draw_see_whole_batches() -> None:
    for model in (
        FeatureBackbone("torchvision/mobilenet_v2", freeze_norm=False, freeze_at=2),
        FeatureBackbone("torchvision/efficientnet_b0", freeze_norm=True, freeze_at=2),
    ):
        seen: list[int] = []
        model.train().body[2].register_forward_pre_hook(lambda _, given, seen=seen: seen.append(len(given[0])))
        model(torch.randn(2, 3, 64, 64))
        assert seen == [2]


def test_changed_weights_have_their_effect_at_once() -> None:
    _, model = both(lambda: FeatureBackbone("torchvision/mobilenet_v2", freeze_norm=True, freeze_at=2))
    x = torch.randn(2, 3, 64, 64)
    before = model(x)["stride4"]
    state = {
        name: 2 * value if name.startswith("body.features_0") else value for name, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    assert not torch.allclose(model(x)["stride4"], before)
