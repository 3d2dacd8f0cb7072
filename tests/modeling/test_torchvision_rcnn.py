"""torchvision's own Mask R-CNN with random weights against the preset that its file is loaded into."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2

from d2tune.errors import WeightsError
from d2tune.modeling.build import ChosenWeights, build_model
from d2tune.modeling.config import DataFacts, project_config
from d2tune.modeling.published.presets import coco_things
from d2tune.modeling.torchvision_rcnn import is_published, renamed
from d2tune.modeling.weights import WeightsFile, read_state_dict
from d2tune.project import Data, Model, Project

CLASSES = ("a", "b", "c", "d")
SIZE_HW = (160, 224)
"""The last level has 3 x 4 cells, whose stride is 53 x 56 px in torchvision, not 64."""


@dataclass(frozen=True)
class Both:
    """torchvision's network, Detectron2's, and what both compute of one image."""

    original: Any
    converted: Any
    pixels: torch.Tensor
    features: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
    images: tuple[Any, Any]


def config(preset: str) -> Any:
    project = Project(name="p", data=Data(root=Path()), classes=CLASSES, model=Model(preset=preset))
    facts = DataFacts(class_names=CLASSES, train_images=1, has_rle=True, train_name="", val_name="")
    return project_config(project, facts, scratch=False, device="cpu")


def randomized(model: nn.Module) -> nn.Module:
    """Statistics and factors of norms that are not those of an untrained network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.6, 1.4)
            nn.init.uniform_(module.weight, 0.7, 1.1)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return model


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    torch.manual_seed(0)
    sizes = {"min_size": SIZE_HW[0], "max_size": 999, "rpn_post_nms_top_n_test": 60}
    sizes |= {"box_score_thresh": 0.0, "box_detections_per_img": 10}
    original = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=len(CLASSES) + 1, **sizes)
    randomized(original).eval()
    nn.init.normal_(original.roi_heads.box_predictor.cls_score.weight, std=0.05)
    nn.init.normal_(original.rpn.head.cls_logits.weight, std=0.05)
    nn.init.normal_(original.roi_heads.mask_predictor.mask_fcn_logits.weight, std=0.05)
    path = tmp_path_factory.mktemp("weights") / "v2.pth"
    torch.save(original.state_dict(), path)
    cfg = config("mask_rcnn_r50_fpn_v2").clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 60
    cfg.TEST.DETECTIONS_PER_IMAGE = 10
    file = WeightsFile("v2.pth", path, "")
    model, report = build_model(cfg, ChosenWeights(file, ""), read_state_dict(path))
    assert report is not None and (report.loaded, report.unused) == (report.total, 0)
    model.eval()
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, *SIZE_HW), np.uint8))
    with torch.no_grad():
        images = original.transform([pixels / 255])[0], model.preprocess_image([{"image": pixels}])
        features = original.backbone(images[0].tensors), model.backbone(images[1].tensor)
    return Both(original, model, pixels, features, images)


@pytest.mark.slow
def test_the_features_are_the_same(both: Both) -> None:
    # in float64: the values are as large as 17, and in float32 convolutions differ by 2e-4 from processor to processor
    networks = [copy.deepcopy(model.backbone).double() for model in (both.original, both.converted)]
    with torch.no_grad():
        features = networks[0](both.images[0].tensors.double()), networks[1](both.images[1].tensor.double())
    for one, other in zip(("0", "1", "2", "3", "pool"), ("p2", "p3", "p4", "p5", "p6"), strict=True):
        expected, given = features[0][one], features[1][other]
        assert expected.shape == given.shape and expected.std() > 0.01
        assert (expected - given).abs().max() < 1e-4


@pytest.mark.slow
def test_the_proposals_are_the_same(both: Both) -> None:
    maps = list(both.features[1].values())
    head = both.original.rpn.head, both.converted.proposal_generator.rpn_head
    with torch.no_grad():
        for expected, given in zip(head[0](maps), head[1](maps), strict=True):
            assert all((one - other).abs().max() < 1e-4 for one, other in zip(expected, given, strict=True))
        anchors = both.original.rpn.anchor_generator(both.images[0], list(both.features[0].values()))[0]
        ours = Boxes.cat(both.converted.proposal_generator.anchor_generator(maps)).tensor
        proposals = both.original.rpn(*(both.images[0], both.features[0]))[0][0]
        given = both.converted.proposal_generator(both.images[1], both.features[1], None)[0][0]
    assert torch.equal(anchors, ours)
    assert len(proposals) == len(given) == 60
    assert (proposals - given.proposal_boxes.tensor).abs().max() < 1e-3, "in pixels"


@pytest.mark.slow
def test_the_heads_give_the_same_for_the_same_boxes(both: Both) -> None:
    boxes = torch.tensor([[3.3, 5.1, 90.2, 70.9], [100, 20, 131, 55.5], [0, 0, 224, 160], [10, 10, 14, 17]])
    heads, ours = both.original.roi_heads, both.converted.roi_heads
    maps = [both.features[1][name] for name in ("p2", "p3", "p4", "p5")]
    with torch.no_grad():
        scores, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(both.features[0], [boxes], [SIZE_HW])))
        given = ours.box_predictor(ours.box_head(ours.box_pooler(maps, [Boxes(boxes)])))
        masks = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(both.features[0], [boxes], [SIZE_HW])))
        given_masks = ours.mask_head.layers(ours.mask_pooler(maps, [Boxes(boxes)]))
    assert masks.std() > 0.01 and scores.std() > 0.01
    assert (torch.cat([scores[:, 1:], scores[:, :1]], dim=1) - given[0]).abs().max() < 1e-4
    assert (deltas[:, 4:] - given[1]).abs().max() < 1e-4
    assert (masks[:, 1:] - given_masks).abs().max() < 1e-4


@pytest.mark.slow
def test_an_image_has_the_same_detections(both: Both) -> None:
    with torch.no_grad():
        expected = both.original([both.pixels / 255])[0]
        height, width = SIZE_HW
        given = both.converted([{"image": both.pixels, "height": height, "width": width}])[0]["instances"]
    assert len(expected["scores"]) == len(given) == 10
    assert (expected["scores"] - given.scores).abs().max() < 1e-4
    assert torch.equal(expected["labels"] - 1, given.pred_classes)
    assert (expected["boxes"] - given.pred_boxes.tensor).abs().max() < 1e-2


def test_the_ids_of_coco_become_its_80_classes() -> None:
    """The row of id 90, toothbrush, is the last one, and that of the background comes after it."""
    state = {
        "backbone.body.conv1.weight": torch.zeros(1),
        "rpn.head.conv.1.0.weight": torch.zeros(1),
        "roi_heads.box_predictor.cls_score.weight": torch.arange(91.0)[:, None],
        "roi_heads.box_predictor.bbox_pred.bias": torch.arange(364.0),
        "roi_heads.mask_predictor.mask_fcn_logits.weight": torch.arange(91.0)[:, None],
        "roi_heads.box_head.0.1.num_batches_tracked": torch.zeros(1),
    }
    given = renamed(state)
    scores = given["roi_heads.box_predictor.cls_score.weight"].flatten().tolist()
    assert scores[:12] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13] and scores[-2:] == [90, 0] and len(scores) == 81
    assert coco_things()[11] == "stop sign", "id 13 of COCO"
    assert given["roi_heads.mask_head.predictor.weight"].flatten().tolist() == scores[:-1]
    assert given["roi_heads.box_predictor.bbox_pred.bias"].tolist()[44:48] == [52, 53, 54, 55]
    assert len(given) == 5
    with pytest.raises(WeightsError, match="no place in Detectron2's network"):
        renamed(state | {"head.weight": torch.zeros(1)})


def test_files_of_other_networks_are_named(tmp_path: Path) -> None:
    with torch.device("meta"):
        first = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5).state_dict()
        second = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=5).state_dict()
    assert not is_published(first) and is_published(second)
    file = WeightsFile("v2.pth", tmp_path / "v2.pth", "")
    cfg = config("mask_rcnn_r50_fpn").clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    with pytest.raises(WeightsError) as caught, torch.device("meta"):
        build_model(cfg, ChosenWeights(file, ""), second)
    assert "Set model.preset: mask_rcnn_r50_fpn_v2." in caught.value.one_line()
