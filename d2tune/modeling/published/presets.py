"""Instance presets with the weights for COCO that Detectron2's model zoo or torchvision publishes for them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from d2tune.errors import WeightsError
from d2tune.modeling.build import build_model
from d2tune.modeling.config import DataFacts, preset_config, project_config
from d2tune.modeling.device import choose_device, speed_up
from d2tune.modeling.loaded import DEFAULT_THRESHOLD, LoadedModel
from d2tune.modeling.weights import find, fit, read_state_dict
from d2tune.project import Data, Model, Project

_METRICS = {
    "mask_rcnn_r50_fpn": 37.2,
    "mask_rcnn_r50_fpn_v2": 41.8,
    "mask_rcnn_r50_fpn_lsj": 42.5,
    "mask_rcnn_r101_fpn_lsj": 43.7,
    "mask_rcnn_regnetx_4gf_fpn_lsj": 43.5,
    "pointrend_r50_fpn": 38.3,
    "pointrend_r101_fpn": 40.1,
    "pointrend_x101_fpn": 41.1,
}
"""Mask AP on COCO val2017 as Detectron2's model zoo, and torchvision for its own model, publish it, by preset."""


def coco_presets() -> tuple[str, ...]:
    """The names of the presets."""
    return tuple(_METRICS)


def published_metrics(preset: str) -> str:
    """``mask AP 38.3 on COCO val2017``."""
    return f"mask AP {_METRICS[preset]:.1f} on COCO val2017"


@lru_cache
def coco_things() -> tuple[str, ...]:
    """The 80 classes of COCO's objects in the order of their ids."""
    return tuple(str(category["name"]) for category in COCO_CATEGORIES if category["isthing"])


def load_coco_preset(preset: str) -> LoadedModel:
    """Load a preset with its weights for COCO, which are downloaded once.

    Args:
        preset: One of `coco_presets`.

    Raises:
        WeightsError: The weights cannot be downloaded, or are of another model.
    """
    source, names = str(preset_config(preset).MODEL.WEIGHTS), coco_things()
    project = Project(name=preset, data=Data(root=Path()), classes=names, model=Model(preset=preset))
    facts = DataFacts(class_names=names, train_images=1, has_rle=True, train_name="", val_name="")
    device = choose_device()
    cfg = project_config(project, facts, scratch=False, device=device)
    file = find(source)
    model, _ = build_model(cfg)
    report = fit(model, read_state_dict(file.path), file=file.path)
    if report.loaded < report.total:
        raise WeightsError(
            f"is not the file of {preset} for COCO",
            file=file.path,
            found=f"{report.loaded} of {report.total} tensors",
        )
    speed_up(model, device=device, precision="float32")
    return LoadedModel(
        source=file.path,
        project=project,
        record={"classes": list(names), "project": preset, "input": {}, "data": {}},
        cfg=cfg,
        model=model.eval(),
        thresholds=dict.fromkeys(names, DEFAULT_THRESHOLD),
        weights=file.path,
        weights_sha256=file.sha256,
        config_sha256="",
        project_sha256="",
        files=(file.path,),
    )
