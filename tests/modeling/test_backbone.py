import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d

from d2tune.errors import ProjectError
from d2tune.modeling.backbone import FeatureBackbone

NAMES = [
    "torchvision/mobilenet_v2",
    "torchvision/mobilenet_v3_small",
    "torchvision/resnet18",
    "torchvision/regnet_y_400mf",
    "torchvision/efficientnet_b0",
    "torchvision/swin_t",
    "timm/resnet18",
    "timm/convnext_atto",
    "timm/mobilenetv3_small_050",
]


@pytest.mark.parametrize("name", NAMES)
def test_four_strides_at_any_size(name: str) -> None:
    backbone = FeatureBackbone(name, freeze_norm=True, freeze_at=2).eval()
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, 64, 160))
    shapes = backbone.output_shape()
    assert list(features) == ["stride4", "stride8", "stride16", "stride32"]
    for feature, stride in zip(features.values(), (4, 8, 16, 32), strict=True):
        assert feature.shape == (2, shapes[f"stride{stride}"].channels, 64 // stride, 160 // stride)


def test_a_frozen_norm_takes_no_batch_statistics() -> None:
    frozen = FeatureBackbone("torchvision/resnet18", freeze_norm=True, freeze_at=0).train()
    learning = FeatureBackbone("torchvision/resnet18", freeze_norm=False, freeze_at=0).train()
    assert any(isinstance(module, FrozenBatchNorm2d) for module in frozen.modules())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in frozen.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in learning.modules())


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18"])
@pytest.mark.parametrize(
    ("freeze_at", "expected"),
    [
        (0, set()),
        (2, {"conv1", "layer1"}),
        (3, {"conv1", "layer1", "layer2"}),
        (5, {"conv1", "layer1", "layer2", "layer3", "layer4"}),
    ],
)
def test_stages_are_frozen_as_detectron2_counts_them(name: str, freeze_at: int, expected: set[str]) -> None:
    backbone = FeatureBackbone(name, freeze_norm=True, freeze_at=freeze_at)
    stages = {key.split(".")[1]: value.requires_grad for key, value in backbone.named_parameters()}
    assert {stage for stage, learns in stages.items() if not learns} == expected


def test_gradients_reach_every_learning_parameter() -> None:
    backbone = FeatureBackbone("torchvision/mobilenet_v2", freeze_norm=False, freeze_at=0).train()
    sum(feature.sum() for feature in backbone(torch.rand(2, 3, 64, 64)).values()).backward()
    assert all(value.grad is not None for value in backbone.parameters())


@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet18", "regnetx_002"])
def test_frozen_norms_of_timm_keep_their_activations(name: str) -> None:
    """timm's ``BatchNormAct2d`` is a batch norm with an activation, which freezing must not lose."""
    torch.manual_seed(0)
    plain = FeatureBackbone(f"timm/{name}", freeze_norm=False, freeze_at=0).eval()
    frozen = FeatureBackbone(f"timm/{name}", freeze_norm=True, freeze_at=0).eval()
    frozen.load_state_dict(plain.state_dict(), strict=False)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for key, feature in plain(x).items():
            assert torch.allclose(feature, frozen(x)[key], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/swin_tiny_patch4_window7_224", "fails on an image|no features of stride|gives no feature maps"),
        ("torchvision/resnet19", "Did you mean 'torchvision/resnet1[58]'"),
        ("timm/resnet18x", "Did you mean 'timm/resnet18"),
        ("torchvision/vit_b_16", "has no stages"),
        ("torchvision/alexnet", "no features of stride|no stages"),
    ],
)
def test_networks_that_cannot_be_a_backbone(name: str, message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        FeatureBackbone(name, freeze_norm=True, freeze_at=2)
