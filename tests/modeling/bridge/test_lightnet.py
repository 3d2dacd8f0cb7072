"""LightNet++ against its published weights, torchvision's layers, and pooling and shuffling by PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.models.shufflenetv2 import channel_shuffle

from d2tune.errors import WeightsError
from d2tune.modeling.bridge.lightnet import LightNetShuffleNetV2, PreNormShuffle, region_means
from d2tune.modeling.bridge.meta_arch import SemanticBridge
from d2tune.modeling.bridge.weights import automatic_source, fit_bridge
from d2tune.modeling.config import preset_config
from d2tune.modeling.weights import LoadReport, read_state_dict
from tests.shared_files import SHARED

WEIGHTS = SHARED / "weights"
CITYSCAPES_CLASSES = 19
SCALING = {"MEAN": [0.2997, 0.3402, 0.3072], "STD": [0.1549, 0.1579, 0.1552]}
"""Of blue, green and red, as the evaluation of the published weights has them."""


def lightnet(encoder: str, *, classes: int = 3) -> SemanticBridge:
    cfg = preset_config("lightnet_shufflenet_v2")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BRIDGE.ENCODER = encoder
    cfg.MODEL.BRIDGE.NUM_CLASSES = classes
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = ([255 * one for one in SCALING[name]] for name in ("MEAN", "STD"))
    return SemanticBridge(cfg).eval()


def loaded(model: SemanticBridge, name: str) -> LoadReport:
    return fit_bridge(model, read_state_dict(WEIGHTS / name), file=WEIGHTS / name)


def published() -> SemanticBridge:
    model = lightnet("shufflenet_v2_x0_5", classes=CITYSCAPES_CLASSES)
    report = loaded(model, "lightnetpp_shufflenetv2plus_x0.5_cityscapes.pth")
    assert (report.loaded, report.unused) == (report.total, 0)
    return model


def test_the_published_file_fits_completely() -> None:
    file = WEIGHTS / "lightnetpp_shufflenetv2plus_x0.5_cityscapes.pth"
    given = torch.load(file, weights_only=True)["model_state"]
    state = published().network.state_dict()
    assert len(given) == 405
    for name, value in given.items():
        name = name.removeprefix("module.")
        if not name.startswith("mod"):
            assert torch.equal(state[name], value), name
    assert torch.equal(state["features.conv1.1.bias"], given["module.mod1.norm.bias"])
    last = "branch2.6.running_var"
    assert torch.equal(state[f"features.stage3.7.{last}"], given[f"module.mod3.block8.{last}"])


def test_a_published_file_with_a_name_left_over_or_missing_is_refused() -> None:
    state = read_state_dict(WEIGHTS / "lightnetpp_shufflenetv2plus_x0.5_cityscapes.pth")
    model, file = lightnet("shufflenet_v2_x0_5"), WEIGHTS / "x.pth"
    with pytest.raises(WeightsError, match=r"x\.pth: .* 1 name left over, such as score\.other\.weight"):
        fit_bridge(model, state | {"score.other.weight": torch.zeros(1)}, file=file)
    del state["mod2.block1.branch1.0.weight"]
    with pytest.raises(WeightsError, match=r"1 name missing, such as network\.features\.stage2\.0\.branch1\.0\.weight"):
        fit_bridge(model, state, file=file)


def test_a_line_names_the_order_of_channels_where_it_is_another_one() -> None:
    files = ("lightnetpp_shufflenetv2plus_x0.5_cityscapes.pth", "shufflenetv2_x0.5_imagenet.pth")
    for name in files:
        model = lightnet("shufflenet_v2_x0_5")
        assert not any("BGR" in row.why for row in loaded(model, name).rows)
        model.pixel_mean.copy_(torch.tensor([123.7, 116.3, 103.5]).view(-1, 1, 1))
        (row,) = [row for row in loaded(model, name).rows if "BGR" in row.why]
        assert row.component == "encoder"


@pytest.mark.extended
def test_the_published_weights_segment_streets_as_they_were_measured_to() -> None:
    model, confusion = published(), np.zeros((CITYSCAPES_CLASSES, CITYSCAPES_CLASSES), np.int64)
    photos = sorted((SHARED / "data" / "cityscapes_three").glob("*[0-9].png"))
    assert len(photos) == 3
    for photo in photos:
        bgr = np.asarray(Image.open(photo).convert("RGB"))[:, :, ::-1]
        truth = np.asarray(Image.open(photo.with_name(f"{photo.stem}_labels.png"))).astype(int)
        with torch.no_grad():
            scores = model([{"image": torch.from_numpy(bgr.transpose(2, 0, 1).copy())}])[0]["sem_seg"]
        classes = scores.argmax(0).numpy()
        labeled = truth < CITYSCAPES_CLASSES
        pairs = CITYSCAPES_CLASSES * truth[labeled] + classes[labeled]
        confusion += np.bincount(pairs, minlength=CITYSCAPES_CLASSES**2).reshape(confusion.shape)
    right = np.diag(confusion)
    ious = [
        right[one] / (confusion[one].sum() + confusion[:, one].sum() - right[one])
        for one in range(CITYSCAPES_CLASSES)
        if confusion[one].any()
    ]
    assert len(ious) == 14
    assert right.sum() / confusion.sum() == pytest.approx(0.9386, abs=5e-4)
    assert np.mean(ious) == pytest.approx(0.6204, abs=1e-3)


@pytest.mark.parametrize(("encoder", "size"), [("shufflenet_v2_x0_5", "x0.5"), ("shufflenet_v2_x1_0", "x1.0")])
def test_imagenet_encoders_fit_completely(encoder: str, size: str) -> None:
    report = loaded(lightnet(encoder), f"shufflenetv2_{size}_imagenet.pth")
    rows = {row.component: (row.loaded, row.total) for row in report.rows}
    assert rows["encoder"] == (165, 165) and report.unused == 0


def test_the_encoder_of_torchvision_fits_and_computes_the_same_where_nothing_is_dilated() -> None:
    origin = torchvision.models.shufflenet_v2_x0_5(weights=None)
    nn.init.uniform_(origin.conv1[1].running_mean)
    model = lightnet("shufflenet_v2_x0_5")
    report = fit_bridge(model, origin.state_dict(), file=WEIGHTS / "given.pth")
    assert next(row for row in report.rows if row.component == "encoder").loaded == 165
    origin = origin.eval()
    for module in origin.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.LeakyReLU(0.01))
    image = torch.randn(1, 3, 64, 96)
    features = model.network.features
    expected = origin.stage2(origin.maxpool(origin.conv1(image)))
    torch.testing.assert_close(features["stage2"](origin.maxpool(features["conv1"](image))), expected)


def test_automatic_weights_are_those_of_torchvision() -> None:
    source = automatic_source("lightnet_shufflenet_v2", "shufflenet_v2_x0_5")
    assert source == "https://download.pytorch.org/models/shufflenetv2_x0.5-f707e7126e.pth"


@pytest.mark.parametrize("size", [(3, 3), (4, 7), (24, 31), (1, 2), (9, 100)])
def test_means_of_regions_are_those_of_adaptive_pooling(size: tuple[int, int]) -> None:
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    torch.testing.assert_close(region_means(x, 3), nn.AdaptiveAvgPool2d(3)(x))


def test_channels_of_the_branches_are_shuffled() -> None:
    block = PreNormShuffle(6, 8).eval()
    x = torch.randn(1, 6, 9, 11)
    activated = block.in_norm(x)
    torch.testing.assert_close(activated, nn.functional.leaky_relu(x / np.sqrt(1 + 1e-5), 0.01))
    both = torch.cat([block.branch1(activated), block.branch2(activated)], 1)
    assert torch.equal(block(x), channel_shuffle(both, 2))


@pytest.mark.parametrize("encoder", ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0"])
def test_evaluation_is_deterministic_and_ends_dropout(encoder: str) -> None:
    torch.manual_seed(0)
    model = lightnet(encoder)
    sample: dict[str, Any] = {"image": torch.randint(0, 256, (3, 60, 90)), "sem_seg": torch.zeros(60, 90).long()}
    first = model([sample])[0]["sem_seg"]
    with torch.no_grad():
        trained = [model.train()([sample])["loss_cross_entropy"].item() for _ in range(2)]
    assert trained[0] != trained[1]
    assert not any(module.training for module in model.eval().modules())
    again = [model([sample])[0]["sem_seg"] for _ in range(2)]
    assert torch.equal(*again) and first.shape == again[0].shape == (3, 60, 90)


def test_dropped_channels_are_not_in_the_statistics_of_a_norm() -> None:
    """The variance of channels that are dropped in half of a batch is that of their mean against 0."""
    score = lightnet("shufflenet_v2_x0_5").network.score.train()
    features = 5 + torch.randn(2, 128, 8, 8)
    score.norm.momentum = 1.0
    score(features)
    torch.testing.assert_close(score.norm.running_mean, features.mean((0, 2, 3)))
    torch.testing.assert_close(score.norm.running_var, features.var((0, 2, 3)))


def test_only_the_larger_network_sharpens() -> None:
    sizes = {}
    for encoder in ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0"):
        network = LightNetShuffleNetV2(encoder=encoder, in_channels=3, classes=19)
        sizes[encoder] = sum(one.numel() for one in network.parameters()), hasattr(network.usm, "norm_act")
    assert sizes["shufflenet_v2_x0_5"] == (497_541, False) and sizes["shufflenet_v2_x1_0"][1]
