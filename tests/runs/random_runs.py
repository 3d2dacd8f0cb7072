"""Run folders of models with random weights, which are made in a fraction of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from d2tune import files
from d2tune.modeling.build import build_model
from d2tune.modeling.config import DataFacts, project_config
from d2tune.project import Data, Model, Project
from d2tune.run_folder import RunFolder

PRESETS = {
    "instance": "pointrend_mobilenet_v2_fpn",
    "semantic": "semantic_fpn_mobilenet_v2",
    "panoptic": "panoptic_fpn_mobilenet_v2",
}
NAMES = ("bus", "road")


def random_run(folder: Path, task: str, **data: Any) -> Path:
    """A run with two classes whose model predicts many objects of both on any image.

    Args:
        folder: The run folder.
        task: The task.
        data: Keys of the project's data section.
    """
    classes = {"things": NAMES[:1], "stuff": NAMES[1:]} if task == "panoptic" else {"classes": NAMES}
    names = {"thing_names": NAMES[:1], "stuff_names": NAMES[1:]} if task == "panoptic" else {}
    facts = DataFacts(class_names=NAMES, train_images=9, has_rle=True, train_name="t", val_name="v", **names)
    project = Project(
        name="random", task=task, data=Data(root=folder, **data), model=Model(preset=PRESETS[task]), **classes
    )
    cfg = project_config(project, facts, scratch=True, device="cpu").clone()
    cfg.defrost()
    values = {"INPUT.MIN_SIZE_TEST": 64, "INPUT.MAX_SIZE_TEST": 96, "TEST.DETECTIONS_PER_IMAGE": 8}
    values |= {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0, "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": 0.0}
    cfg.merge_from_list([value for pair in values.items() for value in pair])
    torch.manual_seed(3)
    model = build_model(cfg)[0].eval()
    for name, parameter in model.named_parameters():
        if name.endswith("cls_score.weight"):
            torch.nn.init.normal_(parameter, std=0.2)
    run = RunFolder(folder)
    run.best.parent.mkdir(parents=True)
    torch.save({"model": model.state_dict()}, run.best)
    files.write_text(run.config, cfg.dump())
    files.write_text(run.project, project.to_yaml())
    files.write_json(run.record, _record(task))
    return folder


def _record(task: str) -> dict[str, Any]:
    return {
        "project": "random",
        "task": task,
        "classes": list(NAMES),
        "thing_ids": [1] if task == "panoptic" else [1, 2],
        "data": {"train_sha256": "0" * 64, "val_sha256": "0" * 64},
        "weights": {"line": "random", "from_scratch": True, "rgb_resnet": False},
        "machine": {"precision": "float32"},
        "input": {"stacked": False},
    }
