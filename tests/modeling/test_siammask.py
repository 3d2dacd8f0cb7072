"""SiamMask: sizes and parameters of the paper, the published names, anchors and losses by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from d2tune.errors import WeightsError
from d2tune.modeling.build import ChosenWeights, build_model
from d2tune.modeling.config import preset_config
from d2tune.modeling.siammask.anchors import Assigned, anchors, assign, decode, encode, ious
from d2tune.modeling.siammask.heads import correlate
from d2tune.modeling.siammask.meta_arch import mask_targets, score_loss
from d2tune.modeling.weights import WeightsFile, find, read_state_dict
from tests.shared_files import SHARED

RATIOS = [0.33, 0.5, 1.0, 2.0, 3.0]


def siammask(preset: str = "siammask_mobilenet_v2") -> Any:
    torch.manual_seed(0)
    cfg = preset_config(preset)
    cfg.MODEL.DEVICE = "cpu"
    model, _ = build_model(cfg)
    return model


def pair(box: tuple[int, int, int, int] | None = (97, 97, 60, 60)) -> dict[str, Tensor]:
    """Random images with a rectangle: left, top, width and height."""
    mask = torch.zeros(255, 255, dtype=torch.bool)
    indices = torch.zeros(0)
    if box is not None:
        left, top, width, height = box
        mask[top : top + height, left : left + width] = True
        indices = torch.tensor([left + (width - 1) / 2, top + (height - 1) / 2, width, height])
    exemplar, image = (torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for side in (127, 255))
    return {"exemplar": exemplar, "image": image, "mask": mask, "box": indices}


def parameters(module: Any) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def test_the_network_of_the_paper() -> None:
    model = siammask("siammask_r50").eval()
    assert parameters(model) == pytest.approx(21.48, rel=1e-3)
    assert parameters(model.backbone.bottom_up) == pytest.approx(13.79, abs=0.005)
    of_heads = [parameters(model.heads[name]) for name in ("cls", "loc", "mask")]
    assert of_heads == pytest.approx([1.25, 1.25, 2.27], abs=0.005)
    assert parameters(model.refine) == pytest.approx(2.66, abs=0.006)
    with torch.no_grad():
        assert model.backbone.exemplar(torch.zeros(1, 3, 127, 127)).shape == (1, 256, 7, 7)
        kernels = model.kernels(torch.zeros(1, 3, 127, 127))
        assert kernels.scores.shape == (1, 256, 5, 5)
        image = torch.zeros(1, 3, 255, 255)
        assert model.backbone(image)["last"].shape == (1, 256, 31, 31)
        searched = model.search(kernels, image)
        assert searched.logits.shape == (1, 2, 5, 25, 25) and searched.deltas.shape == (1, 5, 25, 25, 4)
        assert searched.correlation.shape == (1, 256, 25, 25)
        assert model.heads["mask"].head(searched.correlation).shape == (1, 63 * 63, 25, 25)
        places = torch.tensor([[0, 0, 0], [0, 24, 24]])
        assert model.masks(searched, places).shape == (2, 127, 127)


def test_the_small_network() -> None:
    model = siammask().eval()
    assert parameters(model) == pytest.approx(1.33, abs=0.01)
    with torch.no_grad():
        searched = model.search(model.kernels(torch.zeros(2, 3, 127, 127)), torch.zeros(2, 3, 255, 255))
        assert searched.logits.shape == (2, 2, 5, 25, 25)
        assert model.masks(searched, torch.tensor([[1, 24, 0]])).shape == (1, 127, 127)


@pytest.mark.parametrize("side", [1, 3])
def test_correlation_is_a_sum_of_products_by_channel(side: int) -> None:
    generator = torch.Generator().manual_seed(1)
    search = torch.rand(2, 3, 6, 5, generator=generator)
    kernels = torch.rand(2, 3, side, side, generator=generator)
    given = correlate(search, kernels)
    for image, channel, row, column in [(0, 0, 0, 0), (1, 2, 6 - side, 5 - side), (1, 0, 1, 2)]:
        window = search[image, channel, row : row + side, column : column + side]
        assert float(given[image, channel, row, column]) == pytest.approx(
            float((window * kernels[image, channel]).sum())
        )


def published() -> dict[str, Tensor]:
    """Tensors by the names of a published file, from the description of the network."""
    state: dict[str, Tensor] = {}

    def conv(name: str, out: int, into: int, side: int, *, bias: bool = False) -> None:
        state[f"{name}.weight"] = torch.randn(out, into, side, side) * 0.01
        if bias:
            state[f"{name}.bias"] = torch.zeros(out)

    def norm(name: str, channels: int) -> None:
        for key, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            state[f"{name}.{key}"] = torch.full((channels,), value)
        state[f"{name}.num_batches_tracked"] = torch.tensor(1)

    body = "features.features"
    conv(f"{body}.conv1", 64, 3, 7)
    norm(f"{body}.bn1", 64)
    for stage, (width, blocks, into, shortcut) in enumerate([(64, 3, 64, 1), (128, 4, 256, 3), (256, 6, 512, 3)], 1):
        for block in range(blocks):
            name = f"{body}.layer{stage}.{block}"
            conv(f"{name}.conv1", width, 4 * width if block else into, 1)
            conv(f"{name}.conv2", width, width, 3)
            conv(f"{name}.conv3", 4 * width, width, 1)
            for number, channels in enumerate((width, width, 4 * width), 1):
                norm(f"{name}.bn{number}", channels)
            if not block:
                conv(f"{name}.downsample.0", 4 * width, into, shortcut)
                norm(f"{name}.downsample.1", 4 * width)
    conv("features.downsample.downsample.0", 256, 1024, 1)
    norm("features.downsample.downsample.1", 256)
    for head, channels in (("rpn_model.cls", 10), ("rpn_model.loc", 20), ("mask_model.mask", 63 * 63)):
        for layer, side in (("conv_kernel", 3), ("conv_search", 3), ("head", 1)):
            conv(f"{head}.{layer}.0", 256, 256, side)
            norm(f"{head}.{layer}.1", 256)
        conv(f"{head}.head.3", channels, 256, 1, bias=True)
    for name, (into, middle, out) in {
        "v0": (64, 16, 4),
        "v1": (256, 64, 16),
        "v2": (512, 128, 32),
        "h2": (32, 32, 32),
        "h1": (16, 16, 16),
        "h0": (4, 4, 4),
    }.items():
        conv(f"refine_model.{name}.0", middle, into, 3, bias=True)
        conv(f"refine_model.{name}.2", out, middle, 3, bias=True)
    state["refine_model.deconv.weight"] = torch.zeros(256, 32, 15, 15)
    state["refine_model.deconv.bias"] = torch.zeros(32)
    for number, (into, out) in enumerate([(32, 16), (16, 4), (4, 1)]):
        conv(f"refine_model.post{number}", out, into, 3, bias=True)
    return state


def loaded(state: dict[str, Tensor], folder: Path, preset: str = "siammask_r50") -> Any:
    file = folder / "SiamMask_DAVIS.pth"
    torch.save({"epoch": 20, "state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    cfg = preset_config(preset)
    cfg.MODEL.DEVICE = "cpu"
    given = read_state_dict(file)
    return build_model(cfg, ChosenWeights(WeightsFile(str(file), file, ""), ""), given)


def test_every_name_of_a_published_file_is_mapped(tmp_path: Path) -> None:
    state = published()
    state["rpn_model.loc.head.3.bias"][7] = 0.25
    model, report = loaded(state, tmp_path)
    assert report.unused == 0 and report.loaded == report.total
    assert model.heads["loc"].head[3].bias[7].item() == 0.25
    torch.testing.assert_close(model.backbone.adjust[0].weight, state["features.downsample.downsample.0.weight"])
    deep = "layer3.5.conv2.weight"
    torch.testing.assert_close(model.backbone.bottom_up.body.state_dict()[deep], state[f"features.features.{deep}"])


def test_a_published_file_of_the_first_stage_has_no_refinement(tmp_path: Path) -> None:
    state = {key: value for key, value in published().items() if not key.startswith("refine_model.")}
    _, report = loaded(state, tmp_path)
    assert report.unused == 0
    assert {row.component: row.loaded for row in report.rows}["refine"] == 0


def test_a_name_left_over_is_an_error(tmp_path: Path) -> None:
    state = published() | {"mask_model.mask.head.4.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"SiamMask_DAVIS.pth.*1 name left over, such as mask_model.mask.head.4"):
        loaded(state, tmp_path)
    del state["mask_model.mask.head.4.weight"], state["features.features.bn1.bias"]
    with pytest.raises(WeightsError, match=r"1 name missing, such as backbone.bottom_up.body.bn1.bias"):
        loaded(state, tmp_path)


def test_imagenet_weights_fill_the_small_backbone() -> None:
    file = find(str(SHARED / "weights" / "mobilenet_v2_imagenet.pth"))
    cfg = preset_config("siammask_mobilenet_v2")
    cfg.MODEL.DEVICE = "cpu"
    _, report = build_model(cfg, ChosenWeights(file, ""), read_state_dict(file.path))
    assert report is not None
    rows = {row.component: (row.loaded, row.total) for row in report.rows}
    assert rows["backbone"][0] == rows["backbone"][1] > 100


def test_anchors_of_the_paper() -> None:
    given = anchors(RATIOS, 8.0)
    assert given.shape == (5, 25, 25, 4)
    assert given[:, 12, 12].tolist() == [
        [127, 127, 104, 32],
        [127, 127, 88, 40],
        [127, 127, 64, 64],
        [127, 127, 40, 80],
        [127, 127, 32, 96],
    ]
    assert given[2, 0, 24].tolist() == [223, 31, 64, 64]


def test_encoding_by_hand_and_back() -> None:
    anchor, box = torch.tensor([100.0, 80.0, 64.0, 32.0]), torch.tensor([116.0, 76.0, 128.0, 16.0])
    expected = [0.25, -0.125, math.log(2), -math.log(2)]
    assert encode(box, anchor).tolist() == pytest.approx(expected)
    assert decode(encode(box, anchor), anchor).tolist() == pytest.approx(box.tolist())
    # 48 x 16 px of 64 x 32 and 128 x 16
    assert float(ious(anchor, torch.tensor([116.0, 76.0, 64.0, 32.0]))) == pytest.approx(
        48 * 28 / (2 * 64 * 32 - 48 * 28)
    )


def test_anchors_of_an_object_and_of_the_background() -> None:
    torch.manual_seed(0)
    every = anchors(RATIOS, 8.0)
    options: dict[str, Any] = {"iou_thresholds": [0.6, 0.3], "most": 64, "most_positives": 16}
    chosen = assign(every, torch.tensor([127.0, 127.0, 64.0, 64.0]), **options)
    assert 0 < len(chosen.positives) <= 16 and len(chosen.positives) + len(chosen.negatives) == 64
    overlap = ious(every.reshape(-1, 4), torch.tensor([127.0, 127.0, 64.0, 64.0]))
    assert float(overlap[chosen.positives].min()) >= 0.6 and float(overlap[chosen.negatives].max()) < 0.3
    # a rod that no anchor covers well still has its best anchor
    assert len(assign(every, torch.tensor([127.0, 127.0, 8.0, 200.0]), **options).positives) >= 1
    empty = assign(every, None, **options)
    assert len(empty.positives) == 0 and len(empty.negatives) == 64


def test_the_loss_of_scores_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 25, 25)
    logits[0, 1, 0, 12, 12] = math.log(3)  # a probability of 3/4
    one = Assigned(torch.tensor([12 * 25 + 12]), torch.tensor([0, 1]))
    assert float(score_loss(logits, [one])) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    none = Assigned(torch.tensor([], dtype=torch.int64), torch.tensor([0]))
    assert float(score_loss(logits, [none])) == pytest.approx(math.log(2) / 2)


def test_mask_targets_are_cut_around_places() -> None:
    mask = torch.zeros(255, 255, dtype=torch.bool)
    mask[127, 127] = mask[0, 0] = True
    center, corner = mask_targets([mask], torch.tensor([[0, 12, 12], [0, 0, 0]]))
    assert center.shape == (127, 127) and (center == 1).nonzero().tolist() == [[63, 63]]
    assert (corner == 1).nonzero().tolist() == [[32, 32]]
    assert set(corner.unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(
    "pairs",
    [
        [(97, 97, 60, 60), None],
        [None, None],
        [(0, 0, 255, 255), (254, 0, 1, 1)],
    ],
    ids=["object and none", "none", "whole and a pixel"],
)
def test_losses_are_finite_and_have_gradients(pairs: list[tuple[int, int, int, int] | None]) -> None:
    model = siammask().train()
    losses = model([pair(box) for box in pairs])
    assert set(losses) == {"loss_score", "loss_box", "loss_refined"}
    sum(losses.values()).backward()
    assert all(math.isfinite(float(loss.detach())) for loss in losses.values())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in trained)
    assert not any(parameter.requires_grad for parameter in model.backbone.bottom_up.parameters())


def test_evaluation_is_deterministic() -> None:
    model = siammask().eval()
    given = pair()
    with torch.no_grad():
        first, second = model([given, given]), model([given])
    torch.testing.assert_close(first[0]["scores"], second[0]["scores"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first[1]["boxes"], second[0]["boxes"], rtol=1e-4, atol=1e-3)
