from pathlib import Path

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from d2tune.modeling.build import build_model
from d2tune.modeling.config import DataFacts, project_config
from d2tune.project import Data, Model, Project

FACTS = DataFacts(class_names=("a",), train_images=9, has_rle=True, train_name="t", val_name="v")


def image(instances: int) -> dict:
    height = width = 96
    masks = torch.zeros(instances, height, width, dtype=torch.bool)
    for number in range(instances):
        masks[number, 10:60, 20 + number : 70 + number] = True
    truth = Instances((height, width))
    truth.gt_masks = BitMasks(masks)
    truth.gt_boxes = truth.gt_masks.get_bounding_boxes() if instances else Boxes(torch.zeros(0, 4))
    truth.gt_classes = torch.zeros(instances, dtype=torch.long)
    pixels = torch.randint(0, 255, (3, height, width), dtype=torch.uint8)
    return {"image": pixels, "instances": truth, "height": height, "width": width}


PRESETS = (
    "pointrend_mobilenet_v2_fpn",
    pytest.param("pointrend_r50_fpn", marks=pytest.mark.extended),
    pytest.param("mask_rcnn_r50_fpn", marks=pytest.mark.extended),
)


@pytest.fixture(scope="module", params=PRESETS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    project = Project(name="p", data=Data(root=Path()), model=Model(preset=request.param))
    cfg = project_config(project, FACTS, scratch=True, device="cpu").clone()
    return build_model(cfg)[0]


@pytest.mark.parametrize("counts", [(0, 0), (0, 2), (2, 0)])
def test_images_without_instances_train(model: nn.Module, counts: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model.zero_grad()
    with EventStorage():
        losses = model([image(count) for count in counts])
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert all(value.grad is not None for value in model.roi_heads.mask_head.parameters())
    if not any(counts):
        assert losses["loss_mask"].detach().item() == 0
