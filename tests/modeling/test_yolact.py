"""YOLACT: shapes and priors of the paper, matching, losses and NMS by hand, and edge cases of training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from onnxruntime import InferenceSession
from torch import Tensor
from torchvision.ops import box_iou, nms

from d2tune.errors import WeightsError
from d2tune.export.formats import OPSET
from d2tune.export.onnx_file import quiet_tracing
from d2tune.modeling.build import ChosenWeights, build_model
from d2tune.modeling.config import preset_config
from d2tune.modeling.weights import LoadReport, WeightsFile, fit
from d2tune.modeling.yolact.deform import ModulatedConv2d
from d2tune.modeling.yolact.losses import Matched, Truth, class_loss, covered, mask_loss
from d2tune.modeling.yolact.matching import BACKGROUND, NEUTRAL, TRANSFORM, match
from d2tune.modeling.yolact.nms import fast_nms
from d2tune.modeling.yolact.priors import priors
from d2tune.modeling.yolact.published import is_published, renamed

PAPER = [(69, 69), (35, 35), (18, 18), (9, 9), (5, 5)]
SIZES = [[24], [48], [96], [192], [384]]


def yolact(preset: str = "yolact_mobilenet_v2", *, classes: int = 3, **keys: Any) -> Any:
    torch.manual_seed(0)
    cfg = preset_config(preset)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    for key, value in keys.items():
        cfg.MODEL.YOLACT[key] = value
    model, _ = build_model(cfg)
    return model


def sample(
    *boxes: tuple[int, int, int, int, int], size_hw: tuple[int, int] = (96, 128), image: Tensor | None = None
) -> dict[str, Any]:
    """An image with rectangles: left, top, width, height and class."""
    height, width = size_hw
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for mask, (left, top, w, h, _) in zip(masks, boxes, strict=True):
        mask[top : top + h, left : left + w] = True
    instances = Instances(size_hw)
    corners = [(left, top, left + w, top + h) for left, top, w, h, _ in boxes]
    instances.gt_boxes = Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor([box[4] for box in boxes], dtype=torch.int64)
    instances.gt_masks = BitMasks(masks)
    pixels = torch.randint(0, 256, (3, height, width)) if image is None else image
    return {"image": pixels, "height": height, "width": width, "instances": instances}


def test_the_priors_of_the_paper() -> None:
    given = priors(PAPER, (550, 550), sizes_px=SIZES, aspect_ratios=[1.0, 0.5, 2.0])
    assert given.shape == (19_248, 4)
    first, second, third = given[:3].tolist()
    center = 0.5 * 550 / 69
    assert first == pytest.approx([center - 12, center - 12, center + 12, center + 12], abs=1e-4)
    narrow, tall = 12 * math.sqrt(0.5), 12 / math.sqrt(0.5)
    assert second == pytest.approx([center - narrow, center - tall, center + narrow, center + tall], abs=1e-4)
    assert third == pytest.approx([center - tall, center - narrow, center + tall, center + narrow], abs=1e-4)
    assert given[3].tolist() == pytest.approx(
        [1.5 * 550 / 69 - 12, center - 12, 1.5 * 550 / 69 + 12, center + 12], abs=1e-4
    )
    assert given[-1].tolist() == pytest.approx(
        [495 - 384 * math.sqrt(0.5), 495 - 384 / math.sqrt(8), 495 + 384 * math.sqrt(0.5), 495 + 384 / math.sqrt(8)],
        abs=1e-3,
    )


def test_square_priors_are_as_high_as_wide() -> None:
    given = priors(PAPER, (550, 550), sizes_px=SIZES, aspect_ratios=[1.0, 0.5, 2.0], is_square=True)
    sides = given[:, 2:] - given[:, :2]
    torch.testing.assert_close(sides[:, 0], sides[:, 1], atol=1e-4, rtol=0)
    assert sides[1, 0].item() == pytest.approx(24 * math.sqrt(0.5), abs=1e-4)


def test_maps_of_the_paper_at_550_px() -> None:
    model = yolact(SIZE_DIVISIBILITY=1).eval()
    with torch.no_grad():
        levels, predicted, prototypes = model.heads(torch.zeros(1, 3, 550, 550))
    assert [tuple(level.shape[-2:]) for level in levels] == PAPER
    assert prototypes.shape == (1, 32, 138, 138)
    assert predicted.deltas.shape == (1, 19_248, 4) and predicted.coefficients.shape == (1, 19_248, 32)
    assert predicted.logits.shape == (1, 19_248, 4)


def test_predictions_are_in_the_order_of_the_priors() -> None:
    model = yolact(SIZE_DIVISIBILITY=1)
    head = model.head
    level = torch.zeros(1, 64, 4, 5)
    level[0, :, 2, 3] = 1
    with torch.no_grad():
        head.tower.weight.zero_()
        head.tower.weight[range(64), range(64), 1, 1] = 1
        head.boxes.weight.zero_()
        head.boxes.weight[2 * 4 + 1, 7, 1, 1] = 5  # of the third prior, the second delta
        deltas = head([level]).deltas[0]
    assert deltas.nonzero().tolist() == [[(2 * 5 + 3) * 3 + 2, 1]] and deltas.max() == 5


def test_the_encoding_is_that_of_ssd() -> None:
    prior, box = torch.tensor([[10.0, 20.0, 30.0, 60.0]]), torch.tensor([[14.0, 26.0, 44.0, 46.0]])
    expected = [(29 - 20) / (0.1 * 20), (36 - 40) / (0.1 * 40), math.log(30 / 20) / 0.2, math.log(20 / 40) / 0.2]
    assert TRANSFORM.get_deltas(prior, box)[0].tolist() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(TRANSFORM.apply_deltas(TRANSFORM.get_deltas(prior, box), prior), box)


def test_priors_are_objects_background_or_neither() -> None:
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    some = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.5], [0, 0, 10, 3.9], [20, 20, 30, 30]])
    assert match(some, box, positive_iou=0.5, negative_iou=0.4).objects.tolist() == [
        0,
        0,
        NEUTRAL,
        BACKGROUND,
        BACKGROUND,
    ]


def test_each_object_has_a_prior_of_its_own() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [500, 500, 501, 501]])
    some = torch.tensor([[0.0, 0, 10, 10], [0, 0, 40, 40], [400, 400, 600, 600]])
    matches = match(some, boxes, positive_iou=0.5, negative_iou=0.4)
    assert matches.objects.tolist() == [0, 1, 2] and matches.best.tolist() == [0, 1, 2]


def test_the_hardest_background_is_in_the_class_loss() -> None:
    logits = torch.zeros(40, 3)
    logits[:, 0] = torch.arange(40.0)  # the last are the most certain background
    targets = torch.zeros(40, dtype=torch.int64)
    targets[0], targets[1], targets[2:9] = 2, -1, 1
    chosen = [0, *range(2, 9), *range(9, 9 + 24)]
    expected = torch.nn.functional.cross_entropy(logits[chosen], targets[chosen], reduction="sum")
    torch.testing.assert_close(class_loss(logits, targets, negatives=3), expected)


def test_an_image_without_objects_trains_the_background() -> None:
    logits = torch.randn(100, 3)
    hardest = (logits.logsumexp(1) - logits[:, 0]).sort(descending=True).values[:16].sum()
    torch.testing.assert_close(class_loss(logits, torch.zeros(100, dtype=torch.int64), negatives=3), hardest)


def test_the_mask_loss_is_the_mean_inside_the_box() -> None:
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, 4:12, 4:8] = True
    truth = Truth(torch.tensor([[4.0, 4, 12, 12]]), torch.tensor([0]), masks)  # as if the right half were a hole
    prototypes, coefficients = torch.full((1, 4, 4), 2.0), torch.tensor([[math.atanh(0.5)]])  # logit 1 everywhere
    loss = mask_loss(
        prototypes, coefficients, truth, Matched(torch.tensor([0]), torch.tensor([0])), image_hw=(16, 16), most=100
    )
    inside = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))]
    assert loss.item() == pytest.approx(sum(inside) / 2, abs=1e-6)


def test_cells_are_covered_by_area() -> None:
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, :3, :4] = True
    assert covered(masks, (2, 2))[0].tolist() == [[0.75, 0], [0, 0]]
    assert covered(masks[:0], (2, 2)).shape == (0, 2, 2)


def test_fast_nms_suppresses_by_boxes_that_are_suppressed() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]])  # IoU of neighbors 7 / 13
    scores = torch.tensor([[0.9, 0.0], [0.8, 0.7], [0.7, 0.0]])
    places, classes, kept = fast_nms(boxes, scores, lowest_score=0.05, iou_threshold=0.5, most_per_class=200, most=100)
    assert places.tolist() == [0, 1] and classes.tolist() == [0, 1] and kept.tolist() == pytest.approx([0.9, 0.7])
    assert nms(boxes, scores[:, 0], 0.5).tolist() == [0, 2]


@pytest.mark.parametrize("seed", range(5))
def test_fast_nms_against_its_definition(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(60, 2, generator=random) * 50
    boxes = torch.cat([corners, corners + 5 + torch.rand(60, 2, generator=random) * 30], 1)
    scores = torch.rand(60, 3, generator=random)
    places, classes, kept = fast_nms(boxes, scores, lowest_score=0.1, iou_threshold=0.4, most_per_class=30, most=20)
    expected = []
    for one in range(3):
        order = scores[:, one].argsort(descending=True)[:30]
        ious = box_iou(boxes[order], boxes[order])
        for rank, place in enumerate(order.tolist()):
            if scores[place, one] > 0.1 and not any(ious[rank, above] > 0.4 for above in range(rank)):
                expected.append((scores[place, one].item(), place, one))
    expected = sorted(expected, reverse=True)[:20]
    assert list(zip(kept.tolist(), places.tolist(), classes.tolist(), strict=True)) == expected


def test_losses_are_finite_for_all_that_photos_have() -> None:
    model = yolact().train()
    batch = [
        sample(),
        sample((5, 5, 1, 1, 0), (127, 95, 1, 1, 2)),
        sample((0, 0, 128, 96, 1), (0, 0, 128, 96, 1)),
        sample((10, 10, 40, 1, 0), size_hw=(64, 200)),
        sample(*((x, y, 3, 3, (x + y) % 3) for x in range(0, 120, 8) for y in range(0, 90, 8))),
    ]
    losses = model(batch)
    assert set(losses) == {"loss_box", "loss_class", "loss_mask", "loss_semantic"}
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert all(torch.isfinite(loss) for loss in model([sample()]).values())


def odd_sample(generator: np.random.Generator) -> dict[str, Any]:
    """An image without objects, with single pixels, with a crowd, with one object all over it, or with a few."""
    height, width = (int(side) for side in generator.integers(33, 97, 2))

    def boxes(count: int, largest: int) -> list[tuple[int, int, int, int, int]]:
        given = []
        for _ in range(count):
            w, h = (int(generator.integers(1, min(largest, side) + 1)) for side in (width, height))
            left, top = int(generator.integers(0, width - w + 1)), int(generator.integers(0, height - h + 1))
            given.append((left, top, w, h, int(generator.integers(0, 3))))
        return given

    kinds = [[], boxes(3, 1), boxes(80, 12), [(0, 0, width, height, 1)], boxes(3, 60)]
    image = torch.from_numpy(generator.integers(0, 256, (3, height, width)))
    return sample(*kinds[generator.integers(0, len(kinds))], size_hw=(height, width), image=image)


@pytest.mark.parametrize("steps", [12, pytest.param(2000, marks=pytest.mark.extended)])
def test_no_loss_is_infinite_in_a_training_on_single_pixels_empty_images_and_crowds(steps: int) -> None:
    cfg = preset_config("yolact_mobilenet_v2")
    cfg.MODEL.DEVICE, cfg.MODEL.ROI_HEADS.NUM_CLASSES = "cpu", 3
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.YOLACT.RESCORE_MASKS = 32, True
    torch.manual_seed(0)
    model = build_model(cfg)[0].train()
    learned = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-3, weight_decay=0.05)
    generator = np.random.default_rng(0)
    for step in range(steps):
        losses = model([odd_sample(generator) for _ in range(2)])
        optimizer.zero_grad()
        total = torch.stack(list(losses.values())).sum()
        assert torch.isfinite(total), (step, losses)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(learned, 5.0)
        assert torch.isfinite(norm), step
        optimizer.step()
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


@pytest.mark.extended
def test_an_image_is_learned_by_heart() -> None:
    model = yolact(classes=2).train()
    image = torch.full((3, 96, 128), 100.0)
    boxes = [(8, 16, 40, 30, 0), (70, 30, 44, 50, 1)]
    for (left, top, width, height, _), color in zip(boxes, ((255, 0, 0), (0, 0, 255)), strict=True):
        image[:, top : top + height, left : left + width] = torch.tensor(color)[:, None, None].float()
    known = sample(*boxes, image=image)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
    for _ in range(120):
        optimizer.zero_grad()
        torch.stack(list(model([known]).values())).sum().backward()
        optimizer.step()
        rate.step()
    with torch.no_grad():
        instances = model.eval()([known])[0]["instances"]
    likely = instances[instances.scores > 0.5]
    assert sorted(likely.pred_classes.tolist()) == [0, 1]
    for mask, class_id in zip(likely.pred_masks, likely.pred_classes.tolist(), strict=True):
        truth = known["instances"].gt_masks.tensor[class_id]
        assert (mask & truth).sum() / (mask | truth).sum() > 0.9


def test_only_chosen_instances_get_masks() -> None:
    model = yolact().eval()
    batch = [sample(size_hw=(96, 128)), sample(size_hw=(64, 80))]
    with torch.no_grad():
        everything, nothing = model.detect(batch)
        highest, rest = model.detect(batch, lambda instances: torch.arange(len(instances)) < 2)
    for whole, none, two, others in zip(everything, nothing, highest, rest, strict=True):
        assert len(none) == 0 and len(two) == min(2, len(whole)) and len(two) + len(others) == len(whole)
        assert whole.pred_masks.shape[1:] == (1, 56, 56) and not others.has("pred_masks")
        torch.testing.assert_close(two.pred_masks, whole.pred_masks[:2])


def test_a_batch_gives_what_single_images_give() -> None:
    model = yolact().eval()
    batch = [sample(size_hw=(96, 128)), sample(size_hw=(96, 128))]
    with torch.no_grad():
        together = model(batch)
        alone = [model([one])[0] for one in batch]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a["instances"].scores, b["instances"].scores, atol=1e-5)
        assert len(a["instances"]) > 0


def made_up_file(*, classes: int, plus: bool) -> dict[str, Tensor]:
    """A state dict with the names and shapes of the published YOLACT on ResNet-50."""
    shapes: dict[str, tuple[int, ...]] = {"backbone.conv1.weight": (64, 3, 7, 7)}
    norms = ["backbone.bn1"]
    channels = 64
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        for block in range(blocks):
            place = f"backbone.layers.{stage}.{block}"
            shapes[f"{place}.conv1.weight"] = (width, channels, 1, 1)
            shapes[f"{place}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{place}.conv3.weight"] = (4 * width, width, 1, 1)
            if plus and stage > 0:
                shapes[f"{place}.conv2.bias"] = (width,)
                shapes[f"{place}.conv2.conv_offset_mask.weight"] = (27, width, 3, 3)
                shapes[f"{place}.conv2.conv_offset_mask.bias"] = (27,)
            norms += [f"{place}.bn{number}" for number in (1, 2, 3)]
            if not block:
                shapes[f"{place}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                norms.append(f"{place}.downsample.1")
            channels = 4 * width
    convolutions = {f"fpn.lat_layers.{place}": (256, 2048 // 2**place, 1) for place in range(3)}
    convolutions |= {f"fpn.pred_layers.{place}": (256, 256, 3) for place in range(3)}
    convolutions |= {f"fpn.downsample_layers.{place}": (256, 256, 3) for place in range(2)}
    convolutions |= {f"proto_net.{place}": (256, 256, 3) for place in (0, 2, 4, 8)} | {"proto_net.10": (32, 256, 1)}
    priors = 9 if plus else 3
    head = {
        "bbox_layer": 4 * priors,
        "conf_layer": (1 + classes) * priors,
        "mask_layer": 32 * priors,
        "upfeature.0": 256,
    }
    convolutions |= {f"prediction_layers.0.{name}": (count, 256, 3) for name, count in head.items()}
    convolutions["semantic_seg_conv"] = (classes, 256, 1)
    if plus:
        widths = (1, 8, 16, 32, 64, 128)
        for place in range(5):
            convolutions[f"maskiou_net.maskiou_net.{2 * place}"] = (widths[place + 1], widths[place], 3)
        convolutions["maskiou_net.maskiou_net.10"] = (classes, 128, 1)
    for name, (outer, inner, side) in convolutions.items():
        shapes |= {f"{name}.weight": (outer, inner, side, side), f"{name}.bias": (outer,)}
    own = {name.replace("conv", "bn").replace("downsample.0", "downsample.1"): shape for name, shape in shapes.items()}
    for norm in norms:
        for entry in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{entry}"] = own[f"{norm}.weight"][:1]
    random = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=random) for name, shape in shapes.items()}


@pytest.mark.parametrize("preset", ["yolact_r50", "yolact_plus_r50"])
def test_all_names_of_published_weights_are_mapped(preset: str) -> None:
    plus = preset == "yolact_plus_r50"
    model = yolact(preset, classes=5)
    given = made_up_file(classes=5, plus=plus)
    extra = {"backbone.layer1.0.conv1.weight": torch.zeros(1), "fpn.downsample_layers.2.weight": torch.zeros(1)}
    state = renamed(given | extra)
    assert is_published(given) and not is_published(state) and len(state) == len(given)
    own = model.state_dict()
    missing = {name for name in own if not name.endswith("num_batches_tracked")} - state.keys()
    assert not missing and state.keys() <= own.keys()
    report = fit(model, state, file=Path("yolact.pth"))
    assert (report.loaded, report.unused) == (report.total, 0)
    pairs = {
        "fpn.lat_layers.0": "backbone.lateral.2",
        "fpn.pred_layers.2": "backbone.output.0",
        "backbone.layers.3.2.conv3": "backbone.bottom_up.body.layer4.2.conv3",
        "proto_net.8": "protonet.after",
        "prediction_layers.0.conf_layer": "head.classes",
    }
    for theirs, ours in pairs.items():
        assert torch.equal(model.state_dict()[f"{ours}.weight"], given[f"{theirs}.weight"])


def test_a_published_file_with_a_name_left_over_or_missing_is_refused() -> None:
    first, plus = made_up_file(classes=5, plus=False), made_up_file(classes=5, plus=True)
    counters = {name.replace("running_var", "num_batches_tracked"): torch.tensor(1) for name in first if "var" in name}
    report = load_published("yolact_r50", first | counters)
    assert report.total - report.loaded == 4, "the layers of the classes are for five, and counters are not needed"
    for preset, state, words in (
        (
            "yolact_r50",
            first | {"fpn.lat_layers.3.weight": torch.zeros(1)},
            "1 name left over, such as fpn.lat_layers.3",
        ),
        ("yolact_r50", plus, "51 names left over, such as backbone.layers.1.0.conv2.bias"),
        ("yolact_plus_r50", first, "51 names missing"),
        (
            "yolact_r50",
            {name: first[name] for name in first if name != "proto_net.8.bias"},
            "missing, such as protonet",
        ),
    ):
        with pytest.raises(WeightsError, match=rf"^yolact\.pth: .*{words}.*with the preset"):
            load_published(preset, state)


def load_published(preset: str, state: dict[str, Tensor]) -> LoadReport:
    """What training loads of a file with these tensors, for three classes."""
    cfg = preset_config(preset)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    _, report = build_model(cfg, ChosenWeights(WeightsFile("", Path("yolact.pth"), ""), ""), state)
    assert report is not None
    return report


def test_a_deformable_convolution_that_moves_nothing_is_half_a_convolution() -> None:
    plain = torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
    x = torch.randn(2, 4, 11, 13)
    torch.testing.assert_close(ModulatedConv2d(plain)(x), plain(x) / 2)


@pytest.mark.parametrize("is_cast", [True, False], ids=["autocast", "in bfloat16"])
def test_a_deformable_convolution_in_bfloat16(is_cast: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(torch.nn.Conv2d(4, 6, 3, padding=1, bias=False))
    torch.nn.init.normal_(layer.conv_offset_mask.weight, std=0.2)
    x = torch.randn(2, 4, 11, 13)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_cast):
        half = layer(x) if is_cast else layer.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half - expected).abs().mean() < 0.03 * expected.abs().mean()
    half.float().sum().backward()
    assert all(bool(one.grad.isfinite().all()) for one in layer.parameters() if one.grad is not None)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_samples_of_an_export_are_those_of_torchvision(stride: int, dilation: int, tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain = torch.nn.Conv2d(4, 6, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
    layer = ModulatedConv2d(plain).eval()
    torch.nn.init.normal_(layer.conv_offset_mask.weight, std=0.5)  # also far outside of the image
    torch.nn.init.normal_(layer.bias)
    file = tmp_path / "layer.onnx"
    with quiet_tracing():
        axes = {"x": {2: "height", 3: "width"}, "y": {2: "height", 3: "width"}}
        names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
        torch.onnx.export(layer, (torch.randn(1, 4, 8, 8),), file, opset_version=OPSET, dynamo=False, **names)
    session = InferenceSession(file, providers=["CPUExecutionProvider"])
    for size_hw in ((11, 13), (6, 20)):
        x = torch.randn(1, 4, *size_hw)
        (output,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(output, layer(x).detach(), atol=2e-5)


def test_offsets_are_pairs_of_y_and_x() -> None:
    plain = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    moved = ModulatedConv2d(plain)
    with torch.no_grad():
        plain.weight.zero_()
        plain.weight[0, 0, 1, 1] = 1
        moved.conv_offset_mask.bias[2 * 4 + 1] = 2.0  # of the middle sample, along x
        moved.conv_offset_mask.bias[18:] = 100.0
        x = torch.arange(30.0).reshape(1, 1, 5, 6)
        assert torch.equal(moved(x)[0, 0, :, :4], x[0, 0, :, 2:])


def test_plus_rescores_masks_and_trains_to_do_so() -> None:
    model = yolact(RESCORE_MASKS=True).train()
    losses = model([sample((10, 10, 60, 50, 0)), sample()])
    assert set(losses) == {"loss_box", "loss_class", "loss_mask", "loss_semantic", "loss_rescoring"}
    assert losses["loss_rescoring"] > 0
    losses["loss_rescoring"].backward()
    assert all(layer.weight.grad is not None for layer in model.rescoring.convolutions)
    assert model.protonet.after.weight.grad is None or not model.protonet.after.weight.grad.any()
    assert torch.isfinite(model([sample((3, 3, 2, 2, 1))])["loss_rescoring"])
    with torch.no_grad():
        model.eval().rescoring.layers[-1].weight.zero_()
        model.rescoring.layers[-1].bias.fill_(0.5)
        half = model([sample()])[0]["instances"].scores
        model.rescoring.layers[-1].bias.fill_(1.0)
        whole = model([sample()])[0]["instances"].scores
    assert len(half) and half.max() <= 0.5 and whole.max() <= 1
