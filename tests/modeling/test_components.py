"""A run imports the modules of the parts that its config names, and no others."""

import importlib
import json
import pkgutil
import subprocess
import sys
from collections import defaultdict

import pytest
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
)

import d2tune.modeling
from d2tune.detectron2_projects import project_module
from d2tune.modeling import components
from d2tune.modeling.config import preset_config
from d2tune.project import preset_names

REGISTRIES = (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
)
UNUSED = ("panopticapi", "detectron2.projects.panoptic_deeplab.dataset_mapper")
"""Modules that no model needs; the second imports the first, which is not on PyPI."""

BUILD = f"""
import json, sys
for name in {UNUSED}:
    sys.modules[name] = None
from d2tune.data.panoptic_mapper import center_targets
from d2tune.modeling.build import build_model
from d2tune.modeling.config import preset_config
answers = []
for preset in sys.argv[1:]:
    cfg = preset_config(preset)
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.TRAIN = ("a name",)
    model, _ = build_model(cfg)
    center_targets(cfg)
    answers.append((type(model).__name__, [name for name, module in sys.modules.items() if module]))
print(json.dumps(answers))
"""
CONFIGS = {"point_rend.config", "deeplab.config", "panoptic_deeplab.config"}


def test_the_tables_name_all_that_is_registered_and_where() -> None:
    for module in pkgutil.walk_packages(d2tune.modeling.__path__, "d2tune.modeling."):
        importlib.import_module(module.name)
    project_module("panoptic_deeplab.panoptic_seg")
    registered: dict[str, set[str]] = defaultdict(set)
    for registry in REGISTRIES:
        for name, component in registry:
            registered[component.__module__].add(name)
    tables = {
        **{f"d2tune.modeling.{module}": set(names) for module, names in components._OWN.items()},
        **{f"detectron2.projects.{module}": set(names) for module, names in components._OF_PROJECTS.items()},
    }
    theirs = ("d2tune.", "detectron2.projects.")
    assert tables == {module: names for module, names in registered.items() if module.startswith(theirs)}


@pytest.mark.parametrize("preset", preset_names())
def test_what_a_preset_names_is_registered(preset: str) -> None:
    cfg = preset_config(preset)
    components.register_components(cfg)
    assert cfg.MODEL.META_ARCHITECTURE in META_ARCH_REGISTRY
    assert cfg.MODEL.BACKBONE.NAME in BACKBONE_REGISTRY
    assert cfg.MODEL.SEM_SEG_HEAD.NAME in SEM_SEG_HEADS_REGISTRY
    assert cfg.MODEL.ROI_MASK_HEAD.NAME in ROI_MASK_HEAD_REGISTRY


@pytest.mark.slow
def test_only_what_a_model_uses_of_the_projects_is_imported() -> None:
    uses = {
        "mask_rcnn_r50_fpn": ("GeneralizedRCNN", set()),
        "unet": ("SemanticBridge", set()),
        "pointrend_mobilenet_v2_fpn": ("GeneralizedRCNN", {"point_rend"}),
        "panoptic_deeplab_r50": ("ContiguousPanopticDeepLab", {"point_rend", "deeplab", "panoptic_deeplab"}),
    }
    done = subprocess.run([sys.executable, "-c", BUILD, *uses], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for (model, projects), (built, imported) in zip(uses.values(), answers, strict=True):
        modules = {name.removeprefix("detectron2.projects.") for name in imported if "detectron2.projects." in name}
        assert built == model
        assert {name.split(".")[0] for name in modules - CONFIGS if "." in name} == projects
