"""The graphs: what Detectron2's own code gives, for every size and number of instances after tracing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d2tune.errors import PackageError
from d2tune.export.graphs.base import Graph
from d2tune.export.graphs.build import example_of, graph_of, kind_of
from d2tune.export.networks import OnnxModel, TorchScriptModel, TracedGraph
from d2tune.export.onnx_file import write_onnx
from d2tune.export.torchscript_file import write_torchscript
from tests.cases import on_demand
from tests.export.models import SIZES_HW, SMALL_INSTANCE, build, detected_by_detectron2, image_of

POINT_REND = ("instance", "pointrend_mobilenet_v2_fpn", SMALL_INSTANCE)
MASK_RCNN = (
    "instance",
    "pointrend_mobilenet_v2_fpn",
    SMALL_INSTANCE
    | {
        "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
        "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
        "MODEL.ROI_MASK_HEAD.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    },
)
MANY = ("instance", "pointrend_mobilenet_v2_fpn", SMALL_INSTANCE | {"TEST.DETECTIONS_PER_IMAGE": 100})


def lowest_scores(model: Any, image: torch.Tensor) -> list[list[float]]:
    """Lowest scores that all, some and none of the instances have."""
    scores = detected_by_detectron2(model, image, [0.0] * 3)[2].tolist()
    between = (scores[len(scores) // 3] + scores[len(scores) // 3 - 1]) / 2
    return [[0.0] * 3, [between] * 3, [1.1] * 3]


def traced(graph: Graph, path: Path, *, classes: int = 3) -> Any:
    example = example_of(graph, channels=3, classes=classes)
    if path.suffix == ".onnx":
        write_onnx(graph, example, path)
        return OnnxModel(path)
    write_torchscript(graph, example, path)
    return TorchScriptModel(path, graph.input_names, graph.output_names)


def run(network: Any, image: torch.Tensor, min_scores: Sequence[float] | None = None) -> list[torch.Tensor]:
    inputs = {"image": image.numpy()}
    if min_scores is not None:
        inputs["min_scores"] = np.array(min_scores, dtype=np.float32)
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in network.run(inputs).values()]


def test_a_traced_rcnn_has_the_bits_of_detectron2(tmp_path: Path) -> None:
    built = build(*POINT_REND)
    graph = graph_of(built, for_onnx=False, is_fixed=False)
    network = traced(graph, tmp_path / "model.pt")
    counts = set()
    for size_hw in SIZES_HW:
        image = image_of(size_hw)
        for lowest in lowest_scores(built, image):
            expected = detected_by_detectron2(built, image, lowest)
            outputs = run(network, image, lowest)
            counts.add(len(outputs[0]))
            assert all(map(torch.equal, outputs[:3], expected[:3]))
            assert all(map(torch.equal, outputs, run(TracedGraph(graph), image, lowest)))
            assert_masks_are_close(outputs[3], expected[3])
    assert {0, 8} < counts


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        pytest.param(MANY, SIZES_HW, marks=pytest.mark.extended),
        pytest.param(MASK_RCNN, SIZES_HW[:1], marks=pytest.mark.extended),
    ],
    ids=["point_rend", "mask_rcnn"],
)
def test_an_onnx_rcnn_gives_the_instances_of_detectron2(
    model: tuple[str, str, dict[str, Any]], sizes: Sequence[tuple[int, int]], tmp_path: Path
) -> None:
    built = build(*model)
    network = traced(graph_of(built, for_onnx=True, is_fixed=False), tmp_path / "model.onnx")
    counts = set()
    for size_hw in sizes:
        image = image_of(size_hw)
        for lowest in lowest_scores(built, image):
            boxes, classes, scores, masks, lower = run(network, image, lowest)
            expected = detected_by_detectron2(built, image, lowest)
            counts.add(len(boxes))
            assert (len(boxes), len(boxes) + len(lower)) == (len(expected[0]), 100 if model is MANY else 8)
            torch.testing.assert_close(boxes, expected[0], atol=1e-3, rtol=0)
            torch.testing.assert_close(scores, expected[2], atol=1e-5, rtol=0)
            assert torch.equal(classes, expected[1])
            assert_masks_are_close(masks, expected[3])
    assert {0, 100 if model is MANY else 8} < counts


def assert_masks_are_close(masks: torch.Tensor, expected: torch.Tensor) -> None:
    """Of equally uncertain points rounding decides which one is computed; without instances Detectron2's are small."""
    assert len(masks) == len(expected) and masks.shape[1:] in ((28, 28), (56, 56))
    if len(masks):
        assert ((masks - expected).abs() > 1e-3).float().mean() < 1e-3


@pytest.mark.parametrize("is_plus", on_demand([False, True], True))
def test_an_onnx_yolact_gives_the_instances_of_the_model(is_plus: bool, tmp_path: Path) -> None:
    built = build("instance", "yolact_mobilenet_v2", {"MODEL.YOLACT.RESCORE_MASKS": is_plus})
    network = traced(graph_of(built, for_onnx=True, is_fixed=False), tmp_path / "model.onnx")
    counts = set()
    for size_hw in SIZES_HW:
        image = image_of(size_hw)
        sample = {"image": image, "height": size_hw[0], "width": size_hw[1]}
        with torch.no_grad():
            ((every,), _) = built.detect([sample])
        every = every[every.pred_boxes.nonempty()]
        between = float(every.scores.sort().values[len(every) // 2 - 1 : len(every) // 2 + 1].mean())
        for lowest in (0.0, between, 1.1):
            boxes, classes, scores, masks, lower = run(network, image, [lowest] * 3)
            chosen, rest = every[every.scores >= lowest], every[every.scores < lowest]
            counts.add(len(boxes))
            for some, expected in ((scores, chosen.scores), (lower, rest.scores)):
                torch.testing.assert_close(some.sort().values, expected.sort().values, atol=1e-5, rtol=0)
            if not len(boxes):
                continue
            # of equal scores rounding decides which one is first
            same = (boxes[:, None] - chosen.pred_boxes.tensor).abs().amax(2) + 1e4 * (
                classes[:, None] != chosen.pred_classes
            )
            nearest, places = same.min(1)
            assert nearest.max() < 1e-2 and len(set(places.tolist())) == len(boxes)
            torch.testing.assert_close(masks, chosen.pred_masks[places, 0], atol=1e-3, rtol=0)
    assert len(counts) > 2 and 0 in counts


SEMANTIC = {
    "semantic_fpn": ("semantic", "semantic_fpn_mobilenet_v2", {"MODEL.FPN.OUT_CHANNELS": 32}),
    "unet_2015": ("semantic", "unet_2015", {"MODEL.BRIDGE.WIDTH": 8}),
    "unet_2015 valid": ("semantic", "unet_2015", {"MODEL.BRIDGE.WIDTH": 8}),
    "deeplab_v3": ("semantic", "deeplab_v3_mobilenet_v2", {}),
    "lightnet": ("semantic", "lightnet_shufflenet_v2", {}),
}
OPTIONS = {"unet_2015 valid": {"padding": "valid"}}
TOLERANCES = {"lightnet": 1e-4}
"""Its attention multiplies features by up to e = 2.7, and rounding with them."""


@pytest.mark.parametrize(
    ("name", "suffix"),
    on_demand(
        [*((name, ".onnx") for name in SEMANTIC), ("semantic_fpn", ".pt"), ("unet_2015 valid", ".pt")],
        ("semantic_fpn", ".onnx"),
        ("unet_2015 valid", ".onnx"),
        ("deeplab_v3", ".onnx"),
        ("semantic_fpn", ".pt"),
    ),
)
def test_a_semantic_graph_gives_the_scores_of_the_model_for_all_sizes(name: str, suffix: str, tmp_path: Path) -> None:
    built = build(*SEMANTIC[name], model=OPTIONS.get(name))
    network = traced(graph_of(built, for_onnx=suffix == ".onnx", is_fixed=False), tmp_path / f"model{suffix}")
    for size_hw in (*SIZES_HW, (32, 64)):
        image = image_of(size_hw)
        image[0, 3:9, 5:20] = torch.nan
        with torch.no_grad():
            expected = built([{"image": image, "height": size_hw[0], "width": size_hw[1]}])[0]["sem_seg"]
        (logits,) = run(network, image)
        assert expected.std() > 1e-3
        torch.testing.assert_close(logits.softmax(0), expected, atol=TOLERANCES.get(name, 1e-5), rtol=0)


def test_a_point_rend_semantic_graph_gives_the_scores_of_the_model_for_all_sizes(tmp_path: Path) -> None:
    raw = {
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    }
    small = {"MODEL.FPN.OUT_CHANNELS": 32, "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32, "MODEL.POINT_HEAD.FC_DIM": 16}
    points = {"MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS": 300}
    built = build("semantic", "pointrend_semantic_r50", raw | small | points)
    network = traced(graph_of(built, for_onnx=True, is_fixed=False), tmp_path / "model.onnx")
    for size_hw in SIZES_HW:
        image = image_of(size_hw)
        with torch.no_grad():
            expected = built([{"image": image, "height": size_hw[0], "width": size_hw[1]}])[0]["sem_seg"]
        (logits,) = run(network, image)
        # of equally uncertain points rounding decides which one is computed
        assert ((logits.softmax(0) - expected).abs() > 1e-4).float().mean() < 1e-3


def test_models_without_a_graph_are_refused() -> None:
    built = build(*POINT_REND)
    built.roi_heads.mask_head.mask_point_on = False
    with pytest.raises(PackageError, match=r"cannot be exported; found GeneralizedRCNN, StandardROIHeads, .*Make a"):
        kind_of(built)
    with pytest.raises(PackageError, match="cannot be exported; found Linear"):
        kind_of(torch.nn.Linear(1, 1))
