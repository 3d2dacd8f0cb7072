"""The presets of Detectron2's new baselines against the configs that Detectron2 itself has of them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.model_zoo.model_zoo import _ModelZooUrls
from detectron2.modeling import build_model

from d2tune.modeling.build import ChosenWeights
from d2tune.modeling.build import build_model as build_with_weights
from d2tune.modeling.components import register_components
from d2tune.modeling.config import DataFacts, project_config
from d2tune.modeling.published.presets import coco_things
from d2tune.modeling.weights import WeightsFile, read_state_dict
from d2tune.project import Data, Model, Project

BASELINES = {
    "mask_rcnn_r50_fpn_lsj": "mask_rcnn_R_50_FPN_400ep_LSJ",
    "mask_rcnn_r101_fpn_lsj": "mask_rcnn_R_101_FPN_400ep_LSJ",
    "mask_rcnn_regnetx_4gf_fpn_lsj": "mask_rcnn_regnetx_4gf_dds_FPN_400ep_LSJ",
}


def config(preset: str, *, scratch: bool = False, **model: Any) -> Any:
    project = Project(name="p", data=Data(root=Path()), classes=coco_things(), model=Model(preset=preset, **model))
    facts = DataFacts(class_names=coco_things(), train_images=1, has_rle=True, train_name="", val_name="")
    cfg = project_config(project, facts, scratch=scratch, device="cpu").clone()
    cfg.defrost()
    return cfg


def baseline(preset: str) -> Any:
    return model_zoo.get_config(f"new_baselines/{BASELINES[preset]}.py").model


@pytest.mark.parametrize("preset", BASELINES)
def test_the_tensors_are_those_of_the_baseline(preset: str) -> None:
    cfg = config(preset)
    name = f"new_baselines/{BASELINES[preset]}"
    assert f"detectron2://{name}/{_ModelZooUrls.CONFIG_PATH_TO_URL_SUFFIX[name]}" == cfg.MODEL.WEIGHTS
    cfg.MODEL.DEVICE = "meta"
    register_components(cfg)
    given = baseline(preset)
    with torch.device("meta"):
        original, ours = instantiate(given), build_model(cfg)
    wanted = {key: value.shape for key, value in original.state_dict().items() if "num_batches_tracked" not in key}
    assert {key: value.shape for key, value in ours.state_dict().items()} == wanted
    assert list(cfg.MODEL.PIXEL_MEAN) == list(given.pixel_mean) and list(cfg.MODEL.PIXEL_STD) == list(given.pixel_std)
    assert given.input_format == cfg.INPUT.FORMAT == "BGR"


@pytest.mark.parametrize(
    "given", [{"scratch": True}, {"backbone": "torchvision/resnet18"}], ids=["scratch", "backbone"]
)
def test_norms_without_pretrained_statistics_are_group_norms(given: dict[str, Any]) -> None:
    cfg = config("mask_rcnn_regnetx_4gf_fpn_lsj", **given)
    assert cfg.MODEL.FPN.NORM == cfg.MODEL.ROI_BOX_HEAD.NORM == cfg.MODEL.ROI_MASK_HEAD.NORM == "GN"
    assert config("mask_rcnn_r50_fpn_lsj").MODEL.ROI_BOX_HEAD.NORM == "FrozenBN"


@pytest.mark.extended
@pytest.mark.parametrize("preset", ["mask_rcnn_r50_fpn_lsj", "mask_rcnn_regnetx_4gf_fpn_lsj"])
def test_a_file_of_the_zoo_predicts_what_the_baseline_does(tmp_path: Path, preset: str) -> None:
    torch.manual_seed(0)
    original = instantiate(baseline(preset)).eval()
    torch.nn.init.normal_(original.roi_heads.box_predictor.cls_score.weight, std=0.2)
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": {key: value.numpy() for key, value in original.state_dict().items()}}))
    file = WeightsFile("zoo", path, "")
    model, report = build_with_weights(config(preset), ChosenWeights(file, ""), read_state_dict(path))
    assert report is not None and (report.loaded, report.unused) == (report.total, 0)
    image = np.random.default_rng(0).integers(0, 256, (3, 128, 160), np.uint8)
    sample = {"image": torch.from_numpy(image), "height": 128, "width": 160}
    with torch.no_grad():
        expected, given = original([sample])[0]["instances"], model.eval()([sample])[0]["instances"]
    assert len(expected) == len(given) > 0 and torch.equal(expected.pred_classes, given.pred_classes)
    assert torch.allclose(expected.scores, given.scores, atol=1e-4)
    assert torch.allclose(expected.pred_boxes.tensor, given.pred_boxes.tensor, atol=1e-2)
