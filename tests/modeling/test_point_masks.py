"""PointRend's masks from points in rows are those of Detectron2's own head."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.projects.point_rend import PointRendMaskHead
from detectron2.structures import Boxes, Instances
from torch.nn import functional as F

from d2tune.modeling.build import build_model
from d2tune.modeling.config import DataFacts, project_config
from d2tune.modeling.point_masks import Regions
from d2tune.project import Data, Model, Project


def head_of(classes: int, overrides: dict[str, Any]) -> Any:
    """A mask head with random weights whose logits are far from zero on both sides."""
    names = tuple(f"class {number}" for number in range(classes))
    facts = DataFacts(class_names=names, train_images=9, has_rle=True, train_name="t", val_name="v")
    project = Project(name="p", data=Data(root=Path()), model=Model(preset="pointrend_mobilenet_v2_fpn"))
    cfg = project_config(project, facts, scratch=True, device="cpu").clone()
    cfg.defrost()
    cfg.merge_from_list([value for pair in overrides.items() for value in pair])
    torch.manual_seed(5)
    model: Any = build_model(cfg)[0].eval()
    head = model.roi_heads.mask_head
    torch.nn.init.normal_(head.point_head.predictor.weight, std=0.5)
    torch.nn.init.normal_(head.point_head.predictor.bias)
    torch.nn.init.normal_(head.coarse_head.prediction.weight, std=0.2)
    return head


def instances_of(counts: list[int], classes: int, *, sides: tuple[int, int]) -> list[Instances]:
    generator = np.random.default_rng(7)
    result = []
    for count in counts:
        corners = generator.uniform(0, 1, (count, 2, 2)) * (sides[1], sides[0])
        boxes = np.concatenate([corners.min(1), corners.max(1) + 1], axis=1).astype(np.float32)
        one = Instances(sides)
        one.pred_boxes = Boxes(torch.from_numpy(boxes.reshape(-1, 4)))
        one.pred_boxes.clip(sides)
        one.pred_classes = torch.from_numpy(generator.integers(0, classes, count))
        result.append(one)
    return result


@pytest.mark.parametrize(
    ("classes", "counts", "overrides"),
    [
        (1, [3, 0, 2], {}),
        (4, [3, 4], {}),
        (4, [2], {"MODEL.POINT_HEAD.CLS_AGNOSTIC_MASK": True, "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True}),
        (3, [5], {"MODEL.POINT_HEAD.COARSE_PRED_EACH_LAYER": False}),
        (2, [4], {"MODEL.POINT_HEAD.IN_FEATURES": ["p2", "p3"]}),
        (1, [70], {"MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS": 196}),
        (1, [0], {}),
    ],
)
def test_the_masks_of_detectron2s_head(classes: int, counts: list[int], overrides: dict[str, Any]) -> None:
    head = head_of(classes, overrides)
    channels = head.point_head.fc_layers[0].weight.shape[1] // len(head.mask_point_in_features)
    features = {
        name: torch.randn(len(counts), channels // 16 * 16, 160 // stride, 192 // stride)
        for name, stride in (("p2", 4), ("p3", 8))
    }
    with torch.no_grad():
        ours = head(features, instances_of(counts, classes, sides=(150, 190)))
        theirs = PointRendMaskHead.forward(head, features, instances_of(counts, classes, sides=(150, 190)))
    for own, other in zip(ours, theirs, strict=True):
        assert own.pred_masks.shape == other.pred_masks.shape
        if not len(own):
            continue
        # where two points are equally uncertain, rounding decides which one of them is computed
        assert ((own.pred_masks - other.pred_masks).abs() > 1e-3).float().mean() < 1e-3
        masks = own.pred_masks >= 0.5, other.pred_masks >= 0.5
        assert 0.05 < masks[1].float().mean() < 0.95
        inside, either = (masks[0] & masks[1]).sum((1, 2, 3)), (masks[0] | masks[1]).sum((1, 2, 3))
        assert (inside >= 0.999 * either).all()


def test_a_traced_head_has_detectron2s_operators() -> None:
    head = head_of(1, {})
    one = instances_of([2], 1, sides=(96, 128))

    class Masks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def forward(self, p2: torch.Tensor) -> torch.Tensor:
            masks: torch.Tensor = self.head({"p2": p2}, one)[0].pred_masks
            return masks

    trace: Any = torch.jit.trace
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = str(trace(Masks(), torch.randn(1, 64, 24, 32), check_trace=False).inlined_graph)
    assert "grid_sampler" in names and "embedding_bag" not in names


def test_points_outside_of_the_image_get_zeros_as_from_grid_sample() -> None:
    maps = torch.randn(2, 3, 5, 7)
    boxes = [torch.tensor([[-20.0, -9.0, 44.0, 33.0]]), torch.tensor([[0.0, 0.0, 28.0, 20.0]])]
    u, v = torch.rand(2, 200), torch.rand(2, 200)
    ours = Regions.of([maps], [0.25], boxes).sample(u, v).view(2, 200, 3)
    for image, (x0, y0, x1, y1) in enumerate(torch.cat(boxes).tolist()):
        grid = torch.stack([(x0 + u[image] * (x1 - x0)) / 28, (y0 + v[image] * (y1 - y0)) / 20], dim=1) * 2 - 1
        expected = F.grid_sample(maps[image : image + 1], grid.view(1, 1, 200, 2), align_corners=False)[0, :, 0].T
        assert torch.allclose(ours[image], expected, atol=1e-5)
        assert (ours[image] == 0).all(dim=1).any() == (image == 0)
