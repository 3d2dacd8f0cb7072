"""Presets with published weights for COCO: a file as Detectron2 itself writes it, on a server on loopback."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.modeling import build_model

from d2tune.errors import WeightsError
from d2tune.model_comparison.models import open_model
from d2tune.modeling.published.presets import coco_presets, coco_things, published_metrics
from d2tune.project import preset_names

PLACE = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"


def test_the_presets_exist_and_have_the_objects_of_coco() -> None:
    assert set(coco_presets()) <= set(preset_names())
    assert len(coco_things()) == 80 and coco_things()[0] == "person" and coco_things()[79] == "toothbrush"
    assert published_metrics("pointrend_r50_fpn") == "mask AP 38.3 on COCO val2017"


def test_offline() -> None:
    with pytest.raises(WeightsError, match=r"model_final_f10217.pkl: cannot be reached"):
        open_model("mask_rcnn_r50_fpn")


@pytest.mark.extended
def test_a_file_of_the_zoo_predicts_what_detectron2_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Path], str]
) -> None:
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    original = build_model(cfg).eval()
    torch.nn.init.normal_(original.roi_heads.box_predictor.cls_score.weight, std=0.2)
    state = {key: value.numpy() for key, value in original.state_dict().items()}
    (tmp_path / PLACE).parent.mkdir(parents=True)
    (tmp_path / PLACE).write_bytes(pickle.dumps({"model": state, "__author__": "Detectron2"}))
    monkeypatch.setenv("D2TUNE_ZOO_URL", serve(tmp_path))
    opened = open_model("mask_rcnn_r50_fpn")
    assert opened.published == "mask AP 37.2 on COCO val2017"
    image = np.random.default_rng(0).integers(0, 256, (160, 200, 3), np.uint8)
    sample = {"image": torch.from_numpy(image.transpose(2, 0, 1).copy()), "height": 160, "width": 200}
    with torch.no_grad():
        expected = original([sample])[0]["instances"]
        given = opened.predictor.model([sample])[0]["instances"]
    assert len(expected) == len(given) > 0
    assert torch.allclose(expected.scores, given.scores, atol=1e-3)
    assert torch.equal(expected.pred_classes, given.pred_classes)
