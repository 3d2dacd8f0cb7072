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
    backbone = FeatureBackbone(name, freeze_norm=True, freeze_stem=True).eval()
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, 64, 160))
    shapes = backbone.output_shape()
    assert list(features) == ["stride4", "stride8", "stride16", "stride32"]
    for feature, stride in zip(features.values(), (4, 8, 16, 32), strict=True):
        assert feature.shape == (2, shapes[f"stride{stride}"].channels, 64 // stride, 160 // stride)


def test_a_frozen_norm_takes_no_batch_statistics() -> None:
    frozen = FeatureBackbone("torchvision/resnet18", freeze_norm=True, freeze_stem=False).train()
    learning = FeatureBackbone("torchvision/resnet18", freeze_norm=False, freeze_stem=False).train()
    assert any(isinstance(module, FrozenBatchNorm2d) for module in frozen.modules())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in frozen.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in learning.modules())


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18"])
def test_the_stem_is_what_stride_four_depends_on(name: str) -> None:
    backbone = FeatureBackbone(name, freeze_norm=True, freeze_stem=True)
    frozen = {key for key, value in backbone.named_parameters() if not value.requires_grad}
    learning = {key for key, value in backbone.named_parameters() if value.requires_grad}
    assert frozen and all(key.startswith(("body.conv1", "body.layer1")) for key in frozen)
    assert learning and all(key.startswith(("body.layer2", "body.layer3", "body.layer4")) for key in learning)


def test_gradients_reach_every_learning_parameter() -> None:
    backbone = FeatureBackbone("torchvision/mobilenet_v2", freeze_norm=False, freeze_stem=False).train()
    sum(feature.sum() for feature in backbone(torch.rand(2, 3, 64, 64)).values()).backward()
    assert all(value.grad is not None for value in backbone.parameters())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("torchvision/resnet19", "Did you mean 'torchvision/resnet1[58]'"),
        ("timm/resnet18x", "Did you mean 'timm/resnet18"),
        ("torchvision/vit_b_16", "has no stages"),
        ("torchvision/alexnet", "no features of stride|no stages"),
    ],
)
def test_networks_that_cannot_be_a_backbone(name: str, told: str) -> None:
    with pytest.raises(ProjectError, match=told):
        FeatureBackbone(name, freeze_norm=True, freeze_stem=True)
