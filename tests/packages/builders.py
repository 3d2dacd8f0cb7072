"""Run folders of models with seeded random weights, as training would have left them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from d2tune.files import sha256_file
from d2tune.modeling import checkpoint
from d2tune.modeling.build import build_model
from d2tune.modeling.config import DataFacts, project_config
from d2tune.packages.manifest import NAME
from d2tune.project import load_project

SMALL_FPN = {"MODEL.FPN.OUT_CHANNELS": 32, "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32}
MODELS: dict[str, dict[str, Any]] = {
    "instance": {
        "preset": "pointrend_mobilenet_v2_fpn",
        "raw": {
            "MODEL.FPN.OUT_CHANNELS": 32,
            "MODEL.ROI_BOX_HEAD.FC_DIM": 64,
            "MODEL.ROI_MASK_HEAD.FC_DIM": 64,
            "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
            "MODEL.POINT_HEAD.FC_DIM": 32,
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
            "TEST.DETECTIONS_PER_IMAGE": 8,
        },
    },
    "semantic": {"preset": "semantic_fpn_mobilenet_v2", "raw": SMALL_FPN},
    "panoptic": {
        "preset": "panoptic_fpn_mobilenet_v2",
        "raw": SMALL_FPN
        | {
            "MODEL.ROI_BOX_HEAD.FC_DIM": 64,
            "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
            "TEST.DETECTIONS_PER_IMAGE": 8,
            "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": 0.1,
        },
    },
}


def make_run(
    folder: Path, task: str = "instance", *, classes: tuple[str, ...] = ("bus", "road"), images: str | None = None
) -> Path:
    """A run folder without an evaluation.

    Args:
        folder: Where it is made.
        task: The task.
        classes: The classes; of a panoptic run, the first is a thing and the others are stuff.
        images: Folder of the images, where they lie apart from the annotations.
    """
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    things, stuff = (classes[:1], classes[1:]) if task == "panoptic" else ((), ())
    project = {
        "name": "traffic",
        "task": task,
        "data": {"root": str(folder / "secret-data"), "images": images},
        "classes": list(classes),
        **({"things": list(things), "stuff": list(stuff), "classes": []} if things else {}),
        "model": {"preset": MODELS[task]["preset"]},
        "train": {"image_size": 64},
        "weights": str(folder / "secret-weights" / "start.pth"),
        "detectron2": MODELS[task]["raw"],
    }
    (run / "project.yaml").write_text(json.dumps(project), encoding="utf-8")
    loaded = load_project(run / "project.yaml").project
    (run / "project.yaml").write_text(loaded.to_yaml(), encoding="utf-8")
    facts = DataFacts(
        class_names=classes,
        train_images=9,
        has_rle=True,
        train_name="t",
        val_name="v",
        thing_names=things,
        stuff_names=stuff,
    )
    cfg = project_config(loaded, facts, scratch=True, device="cpu")
    (run / "detectron2.yaml").write_text(cfg.dump(), encoding="utf-8")
    torch.manual_seed(7)
    model = build_model(cfg)[0]
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_score.weight", "predictor.weight")):
            torch.nn.init.normal_(parameter, std=0.2)  # scores and classes that differ
    checkpoint.save(run / "checkpoints" / "model_best.pth", {"model": checkpoint.plain_state(model)})
    (run / "record.json").write_text(json.dumps(_record(run, task, classes, len(things) or len(classes))), "utf-8")
    return run


def _record(run: Path, task: str, classes: tuple[str, ...], things: int) -> dict[str, Any]:
    counts = dict.fromkeys(classes, 40)
    return {
        "d2tune_record": 1,
        "project": "traffic",
        "command": [str(run)],
        "started": "2026-02-03T04:05:06+0000",
        "seed": 0,
        "versions": {"d2tune": "0.1.0", "torch": "2.11.0"},
        "machine": {"system": "secret-machine", "precision": "float32"},
        "task": task,
        "classes": list(classes),
        "thing_ids": list(range(1, things + 1)),
        "data": {
            "train_sha256": "1" * 64,
            "val_sha256": "2" * 64,
            "train_images": 30,
            "val_images": 9,
            "train_instances": counts,
            "val_instances": counts,
            "rendered_sample": False,
        },
        "weights": {
            "line": f"{run}/secret-weights",
            "source": str(run / "secret-weights" / "start.pth"),
            "sha256": "3" * 64,
            "from_scratch": False,
            "rgb_resnet": False,
        },
        "input": {"stacked": False},
    }


def evaluate_by_hand(run: Path, rows: dict[str, tuple[int, float | None]]) -> None:
    """Write an ``evaluation.json`` of an instance run.

    Args:
        run: The run folder.
        rows: Objects and best-F1 threshold by class.
    """
    value = {"value": 40.0, "low": 30.0, "high": 55.5, "reason": None}
    kinds = {"bbox": {"AP": value, "AP50": value}, "segm": {"AP": value, "AP50": value}}

    def point(threshold: float | None) -> dict[str, Any]:
        numbers = dict.fromkeys(("precision", "recall", "f1"), None if threshold is None else 50.0)
        return {"threshold": threshold, **numbers, "reason": "no detections" if threshold is None else None}

    content = {
        "schema": 2,
        "task": "instance",
        "run": str(run),
        "data": None,
        "data_sha256": "2" * 64,
        "weights": str(run / "checkpoints" / "model_best.pth"),
        "weights_sha256": sha256_file(run / "checkpoints" / "model_best.pth"),
        "config_sha256": sha256_file(run / "detectron2.yaml"),
        "predictions_sha256": "4" * 64,
        "images": 9,
        "metrics": kinds,
        "replicates": 1000,
        "lower": 0,
        "highest_lower": None,
        "classes": [
            {
                "name": name,
                "instances": objects,
                "found": 1,
                "false": 2,
                "metrics": kinds,
                "best_f1": point(threshold),
                "precise": point(threshold),
            }
            for name, (objects, threshold) in rows.items()
        ],
    }
    (run / "evaluation.json").write_text(json.dumps(content), encoding="utf-8")


def rewrite(package: Path, change: dict[str, Any], *, remove: str | None = None) -> None:
    """Change entries of ``package.json`` as a program would that knows the format: its own hash is right again."""
    path = package / NAME
    content = json.loads(path.read_text("utf-8")) | change
    if remove is not None:
        del content[remove]
    content["files"] = {
        name: {"bytes": (package / name).stat().st_size, "sha256": sha256_file(package / name)}
        for name in content.get("files", {})
    } or content.get("files")
    if remove == "files":
        del content["files"]
    content.pop("sha256", None)
    text = json.dumps(content | {"sha256": "0" * 64}, indent=2) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    before, _, after = text.rpartition("0" * 64)
    path.write_text(before + digest + after, encoding="utf-8")
