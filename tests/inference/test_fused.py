"""Fused norms give the same numbers, change no tensor, and are restored afterwards."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.layers import Conv2d as NormedConv2d
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn
from torch.nn import functional as F

from d2tune.inference.fused import fused_norms
from d2tune.inference.loop import inference_mode
from d2tune.modeling.backbone import FeatureBackbone


def with_random_norms(model: nn.Module) -> nn.Module:
    """The model with norms that are not the identity."""
    torch.manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            for name, low in (("weight", 0.5), ("bias", -1.0), ("running_mean", -1.0), ("running_var", 0.5)):
                tensor = getattr(module, name)
                if tensor is not None:
                    tensor.data.copy_(low + torch.rand(tensor.shape))
    return model.eval()


def block(norm: nn.Module, *, bias: bool = False, **options: object) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias, **options), norm, nn.ReLU6(inplace=True))


def normed(norm: nn.Module, activation: Callable[[torch.Tensor], torch.Tensor] | None = None) -> nn.Module:
    return NormedConv2d(3, 4, 3, padding=1, bias=False, norm=norm, activation=activation)


def replaced(model: nn.Module) -> list[nn.Module]:
    """Modules whose ``forward`` is replaced."""
    return [module for module in model.modules() if "forward" in vars(module)]


def test_a_folded_norm_by_hand() -> None:
    """(3 x + 1 - 2) * 5 / 2 + 7 at a variance of 4 is 7.5 x + 4.5."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0)).eval()
    values = {
        "0.weight": 3.0,
        "0.bias": 1.0,
        "1.running_mean": 2.0,
        "1.running_var": 4.0,
        "1.weight": 5.0,
        "1.bias": 7.0,
    }
    model.load_state_dict(
        {name: torch.full(value.shape, values.get(name, 0)) for name, value in model.state_dict().items()}
    )
    x = torch.tensor([-1.0, 0.0, 2.0]).view(3, 1, 1, 1)
    with torch.no_grad(), fused_norms(model):
        assert model(x).flatten().tolist() == [-3.0, 4.5, 19.5]
        assert model[1](x) is x


@pytest.mark.parametrize(
    "build",
    [
        lambda: block(FrozenBatchNorm2d(4)),
        lambda: block(nn.BatchNorm2d(4), bias=True),
        lambda: block(nn.BatchNorm2d(4, affine=False), stride=2, padding=1),
        lambda: normed(FrozenBatchNorm2d(4), F.relu),
        lambda: normed(nn.BatchNorm2d(4)),
        lambda: BottleneckBlock(3, 8, bottleneck_channels=4, norm="FrozenBN"),
    ],
)
def test_the_same_numbers_from_the_same_tensors(build: Callable[[], nn.Module]) -> None:
    model, x = with_random_norms(build()), torch.randn(2, 3, 15, 17)
    before = {name: (value, value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    with torch.no_grad():
        expected = model(x)
        with fused_norms(model):
            assert replaced(model)
            assert (model(x) - expected).abs().max() < 1e-5
            during = model.state_dict(keep_vars=True)
            assert list(during) == list(before)
            assert all(value is before[name][0] for name, value in during.items())
        assert not replaced(model) and torch.equal(model(x), expected)
    assert all(torch.equal(*pair) for pair in before.values())


class TwoUses(nn.Module):
    """One convolution before two norms."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Conv2d(3, 4, 3)
        self.first, self.second = (nn.Sequential(shared, nn.BatchNorm2d(4)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) * self.second(x)


@pytest.mark.parametrize(
    "build",
    [
        TwoUses,
        lambda: block(nn.BatchNorm2d(4, track_running_stats=False)),
        lambda: block(nn.GroupNorm(2, 4)),
        lambda: block(FrozenBatchNorm2d(4), padding=1, padding_mode="reflect"),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(NormedConv2d(3, 4, 3, activation=F.relu), FrozenBatchNorm2d(4)),
    ],
)
def test_modules_that_cannot_be_fused_do_not_change(build: Callable[[], nn.Module]) -> None:
    model, x = with_random_norms(build()), torch.randn(2, 3, 15, 17)
    with torch.no_grad():
        expected = model(x)
        with fused_norms(model):
            assert not replaced(model) and torch.equal(model(x), expected)


def test_norms_in_training_mode_do_not_change() -> None:
    model = block(nn.BatchNorm2d(4)).train()
    with fused_norms(model):
        assert not replaced(model)


def test_training_goes_on_after_an_evaluation_that_failed() -> None:
    model = with_random_norms(block(nn.BatchNorm2d(4))).train()
    with pytest.raises(ValueError, match="broken"), inference_mode(model):
        assert replaced(model)
        raise ValueError("broken")
    assert not replaced(model) and model.training
    model(torch.randn(2, 3, 9, 9)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_an_evaluation_runs_the_compact_backbone_without_norms() -> None:
    """All 52 norms of a MobileNetV2 up to stride 32; each is restored afterwards."""
    torch.manual_seed(1)
    model = with_random_norms(FeatureBackbone("torchvision/mobilenet_v2", freeze_norm=True, freeze_at=2))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    with inference_mode(model):
        assert all(norm(x) is x for norm in norms) and len(norms) > 50
        features = model(x)
    assert OrderedDict.fromkeys(features) == OrderedDict.fromkeys(expected)
    for name, feature in expected.items():
        assert (features[name] - feature).abs().max() < 1e-4 * feature.abs().max()
    assert not replaced(model)


def test_norms_are_fused_once_for_all_windows_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    from d2tune.inference import fused
    from d2tune.inference.sliding_window import predict_rows

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))

        def forward(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [{"sem_seg": self.body(sample["image"][None].float())[0]} for sample in samples]

    class Pixels:
        height_px = width_px = 64

        def read(self, top_px: int, left_px: int, height_px: int, width_px: int) -> np.ndarray:
            return np.full((height_px, width_px, 3), 7, np.uint8)

    folded: list[nn.Module] = []
    real = fused.folded
    monkeypatch.setattr(fused, "folded", lambda convolution, norm: folded.append(norm) or real(convolution, norm))
    model = Net()
    with inference_mode(model):
        rows = list(predict_rows(model, Pixels(), classes=4, window_px=16, show_progress=False))
    assert sum(len(block.class_ids) for block in rows) == 64 and len(folded) == 1
    assert model.training and "forward" not in vars(model.body[0]), "the previous state is restored"


@pytest.mark.parametrize(
    "build",
    [
        lambda: block(FrozenBatchNorm2d(4)),
        lambda: block(nn.BatchNorm2d(4), bias=True),
        lambda: block(nn.BatchNorm2d(4, affine=False)),
        lambda: normed(nn.BatchNorm2d(4), F.relu),
        lambda: BottleneckBlock(3, 8, bottleneck_channels=4, norm="FrozenBN"),
    ],
)
def test_an_own_model_holds_its_norms_in_its_parameters(build: Callable[[], nn.Module]) -> None:
    model, x = with_random_norms(build()), torch.randn(2, 3, 15, 17)
    with torch.no_grad():
        expected = model(x)
        with fused_norms(model, is_own=True):
            tensors = {value.data_ptr() for value in model.state_dict().values()}
            held = [tensor.data_ptr() for module in replaced(model) for tensor in arguments(module)]
            is_affine = all(getattr(module, "affine", True) for module in model.modules())
            assert held and all(pointer in tensors for pointer in held) == is_affine
            assert (model(x) - expected).abs().max() < 1e-5
        other = build().eval()
        other.load_state_dict(model.state_dict())
        assert (model(x) - expected).abs().max() < 1e-5 and torch.equal(other(x), model(x))


def arguments(module: nn.Module) -> list[torch.Tensor]:
    """The tensors that a replaced ``forward`` computes with."""
    forward: Any = vars(module)["forward"]
    return [value for value in getattr(forward, "args", ()) if isinstance(value, torch.Tensor)]


def test_a_weight_of_two_convolutions_is_not_changed() -> None:
    model = nn.ModuleList([block(nn.BatchNorm2d(4)), block(nn.BatchNorm2d(4))])
    model[1][0].weight = model[0][0].weight
    with_random_norms(model)
    before = model[0][0].weight.clone()
    with fused_norms(model, is_own=True):
        assert len(replaced(model)) == 4 and torch.equal(model[0][0].weight, before)


def test_the_last_of_several_users_restores_the_model() -> None:
    model = with_random_norms(block(nn.BatchNorm2d(4))).train()
    first, second = inference_mode(model), inference_mode(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert replaced(model) and not model.training
    second.__exit__(None, None, None)
    assert not replaced(model) and model.training


def test_a_model_is_freed_with_its_last_user() -> None:
    model = with_random_norms(block(nn.BatchNorm2d(4)))
    context, alive = inference_mode(model, is_own=True), weakref.ref(model)
    context.__enter__()
    del model, context
    gc.collect()
    assert alive() is None
