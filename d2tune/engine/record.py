"""The record of a run: what was decided, written when training starts and when it is resumed."""

from __future__ import annotations

import json
import platform
import sys
import time
from typing import Any

import torch
from detectron2.config import CfgNode

from d2tune import files
from d2tune.annotations.model.dataset import Dataset
from d2tune.engine.plan import TrainingPlan
from d2tune.errors import RunError
from d2tune.hardware import usable_cores
from d2tune.modeling.build import ChosenWeights
from d2tune.modeling.config import read_config
from d2tune.project import flatten
from d2tune.run_folder import RunFolder
from d2tune.versions import versions

_MAY_CHANGE = ("SOLVER.MAX_ITER", "SOLVER.WARMUP_ITERS", "DATASETS.", "MODEL.DEVICE", "MODEL.WEIGHTS", "OUTPUT_DIR")


def check_resumable(folder: RunFolder, plan: TrainingPlan) -> None:
    """Refuse to resume a run whose classes, data or settings are no longer the project's.

    The number of iterations may change; nothing else that training depends on.

    Raises:
        RunError: Says what changed.
    """
    record = folder.read_record()
    differences = [
        ("classes", record["classes"], list(plan.splits.train.class_names)),
        ("training data", record["data"]["train_sha256"], plan.train_sha256),
    ]
    then, now = flatten(read_config(folder.config)), flatten(plan.cfg)
    differences += [(key, then.get(key), value) for key, value in now.items() if not key.startswith(_MAY_CHANGE)]
    for what, old, new in differences:
        # a config that was written and read again has lists where it had tuples
        if json.dumps(old) != json.dumps(new):
            raise RunError(
                f"{what} changed since this run began",
                file=folder.path,
                found=str(new),
                expected=str(old),
                hint="Start a new run without --resume.",
            )


def write_resumed(folder: RunFolder, plan: TrainingPlan) -> None:
    """Bring the project, the config and the record of a resumed run up to date."""
    files.write_text(folder.project, plan.project.to_yaml())
    files.write_text(folder.config, plan.cfg.dump())
    earlier = folder.read_record().get("resumed", [])
    now = {"command": sys.argv, "time": _now(), "versions": versions()}
    folder.update_record({"resumed": [*earlier, now]})


def write_start(folder: RunFolder, plan: TrainingPlan) -> None:
    """Write the resolved project, the config and the record into a new run folder."""
    cfg = plan.cfg
    files.write_text(folder.project, plan.project.to_yaml())
    files.write_text(folder.config, cfg.dump())
    train = plan.splits.train
    folder.update_record(
        {
            "d2tune_record": 1,
            "project": plan.project.name,
            "project_file": str(plan.loaded.file),
            "profile": plan.loaded.profile,
            "preset": plan.project.model.preset,
            "command": sys.argv,
            "started": _now(),
            "seed": cfg.SEED,
            "versions": versions(),
            "machine": {
                "system": platform.platform(),
                "device": torch.cuda.get_device_name() if cfg.MODEL.DEVICE == "cuda" else platform.processor() or "cpu",
                "cores": usable_cores(),
                "precision": plan.precision,
            },
            "task": plan.project.task,
            "classes": list(train.class_names),
            "thing_ids": [category.id for category in train.categories if category.isthing],
            "data": _data(plan),
            "weights": _weights(plan.chosen, rgb_resnet=plan.rgb_resnet),
            "input": _input(cfg, train),
        }
    )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _data(plan: TrainingPlan) -> dict[str, Any]:
    train, val = plan.splits.train, plan.splits.val
    return {
        "train_sha256": plan.train_sha256,
        "val_sha256": plan.val_sha256,
        "train_images": len(train.images),
        "val_images": len(val.images),
        "train_instances": train.counts(),
        "val_instances": val.counts(),
        "rendered_sample": plan.splits.rendered,
    }


def _weights(chosen: ChosenWeights, *, rgb_resnet: bool) -> dict[str, Any]:
    return {
        "line": chosen.line,
        "source": None if chosen.file is None else chosen.file.source,
        "sha256": None if chosen.file is None else chosen.file.sha256,
        "from_scratch": chosen.file is None,
        "rgb_resnet": rgb_resnet,
    }


def _input(cfg: CfgNode, train: Dataset) -> dict[str, Any]:
    return {
        "channels": len(cfg.MODEL.PIXEL_MEAN),
        "stacked": any(image.path is not None and image.path.is_dir() for image in train.images[:1]),
        "channel_order": cfg.INPUT.FORMAT,
        "white_16bit": cfg.INPUT.WHITE or None,
        "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
        "pixel_std": list(cfg.MODEL.PIXEL_STD),
        "short_side_px": cfg.INPUT.MIN_SIZE_TEST,
        "max_side_px": cfg.INPUT.MAX_SIZE_TEST,
        "mask_format": cfg.INPUT.MASK_FORMAT,
    }
