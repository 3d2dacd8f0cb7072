"""The record of a run: what was decided, written when training starts and when it is resumed."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import torch
from detectron2.config import CfgNode

from d2tune import files
from d2tune.annotations.model.dataset import Dataset
from d2tune.data.in_common import in_common
from d2tune.engine.plan import TrainingPlan
from d2tune.errors import D2TuneError, RunError
from d2tune.hardware import usable_cores
from d2tune.modeling.build import ChosenWeights
from d2tune.modeling.config import read_config
from d2tune.packages.weights_license import earlier_sources
from d2tune.project import Project, evaluation_period, flatten, load_project
from d2tune.run_folder import RunFolder
from d2tune.run_schema import RECORD_VERSION
from d2tune.text import reason_of
from d2tune.versions import versions

_MAY_CHANGE = (
    "SOLVER.MAX_ITER",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.STEPS",
    "DATASETS.",
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "OUTPUT_DIR",
)
"""Beginnings of keys of the config that follow from others, or may change when a run is resumed."""

CHANGEABLE = (
    "train.iterations",
    "train.epochs",
    "train.eval_every",
    "train.early_stopping.patience",
    "train.early_stopping.min_gain",
    "train.validation_loss",
    "train.on_divergence",
    "train.workers",
    "tracking",
    "tracking_group",
    "intended_use",
    "MODEL.DEVICE",
)
"""Keys of a project that may change when a run is resumed; the places of its data may change too."""


def check_resumable(folder: RunFolder, plan: TrainingPlan) -> TrainingPlan:
    """Refuse to resume a run whose classes, data or settings are no longer the project's.

    Returns:
        The plan with the run's own weights and precision, whose settings are not used again.

    Raises:
        RunError: Says what changed.
    """
    record = folder.read_record()
    project = plan.project
    began = load_project(folder.project).project
    precision = record["machine"]["precision"]
    for what, old, new in _differences(folder, record, plan, began):
        # a config that was written and read again has lists where it had tuples
        if json.dumps(old) != json.dumps(new):
            raise RunError(
                f"{what} changed since this run began",
                file=folder.path,
                found=str(new),
                expected=str(old),
                hint=_how_it_began(record),
            )
    if project.train.precision not in ("auto", precision):
        raise RunError(
            "train.precision changed since this run began",
            file=folder.path,
            found=project.train.precision,
            expected=f"{precision}, or auto",
            hint=_how_it_began(record),
        )
    train = project.train.model_copy(update={"precision": began.train.precision})
    return replace(plan, loaded=replace(plan.loaded, project=project.model_copy(update={"train": train})))


def _how_it_began(record: dict[str, Any]) -> str:
    """What to do where a setting has changed: usually overrides of the first command are missing."""
    program, *words = record.get("command") or [""]
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    again = f"The run began with {shlex.join(overrides)}: give the same again. " if overrides and program else ""
    return f"{again}Only {', '.join(CHANGEABLE)} may change; for other settings start a new run without --resume."


def _differences(
    folder: RunFolder, record: dict[str, Any], plan: TrainingPlan, began: Project
) -> Iterator[tuple[str, Any, Any]]:
    """What may not change, as it was and as it is."""
    project = plan.project
    yield "classes", record["classes"], list(plan.splits.train.class_names)
    yield "training data", record["data"]["train_sha256"], plan.train_sha256
    yield "weights", began.weights, project.weights
    yield "weights_sha256", began.weights_sha256, project.weights_sha256
    for name in ("accumulate", "freeze", "learning_rate_factors", "sampling", "steps", "warmup"):
        then, now = (one.train.model_dump()[name] for one in (began, project))
        yield f"train.{name}", then, now
    key = "SOLVER.WARMUP_ITERS"  # which otherwise follows from the iterations
    yield key, began.detectron2.get(key, "the usual ones"), project.detectron2.get(key, "the usual ones")
    yield "train.early_stopping.metric", began.train.early_stopping.metric, project.train.early_stopping.metric
    then, now = flatten(read_config(folder.config)), flatten(plan.cfg)
    for key, value in now.items():
        if not key.startswith(_MAY_CHANGE):
            yield key, then.get(key), value


def write_resumed(folder: RunFolder, plan: TrainingPlan) -> None:
    """Bring the project, the config and the record of a resumed run up to date."""
    files.write_text(folder.project, plan.project.to_yaml())
    files.write_text(folder.config, plan.cfg.dump())
    record = folder.read_record()
    now = {"command": sys.argv, "time": _now(), "versions": versions()}
    resumed = [*record.get("resumed", []), now]
    changed = {
        "evaluation_period": _period(plan),
        "resumed": resumed,
        "data": record["data"] | _data(plan),
        "finished": None,
        "ended": None,
    }
    folder.update_record(changed)


@contextmanager
def noted_end(folder: RunFolder) -> Iterator[None]:
    """Note in the record of a run how its training ended, where it did not end well.

    The entry ``ended`` has the ``state``, ``stopped`` (by a signal) or ``failed``, the ``reason`` and the ``time``.
    """
    try:
        yield
    except BaseException as error:
        is_stop = isinstance(error, SystemExit | KeyboardInterrupt)
        reason = "stopped by a signal" if is_stop else _why(error)
        ended = {"state": "stopped" if is_stop else "failed", "reason": reason, "time": _now()}
        with suppress(OSError, RunError):  # a full disk can be what ended it
            folder.update_record({"ended": ended})
        raise


def _why(error: BaseException) -> str:
    return error.message if isinstance(error, D2TuneError) else f"{type(error).__name__}: {reason_of(error)}"


def write_start(folder: RunFolder, plan: TrainingPlan) -> None:
    """Write the resolved project, the config and the record into a new run folder."""
    cfg = plan.cfg
    files.write_text(folder.project, plan.project.to_yaml())
    files.write_text(folder.config, cfg.dump())
    train = plan.splits.train
    folder.update_record(
        {
            "d2tune_record": RECORD_VERSION,
            "project": plan.project.name,
            "project_file": str(plan.loaded.file),
            "profile": plan.loaded.profile,
            "preset": plan.project.model.preset,
            "command": sys.argv,
            "started": _now(),
            "seed": cfg.SEED,
            "evaluation_period": _period(plan),
            "versions": versions(),
            "machine": {
                "system": platform.platform(),
                "device": torch.cuda.get_device_name() if cfg.MODEL.DEVICE == "cuda" else platform.processor() or "cpu",
                "cores": usable_cores(),
                "precision": plan.precision,
                "precision_reason": plan.precision_reason,
            },
            "task": plan.project.task,
            "classes": list(train.class_names),
            "thing_ids": [category.id for category in train.categories if category.isthing],
            "data": _data(plan),
            "weights": _weights(plan.chosen, rgb_resnet=plan.rgb_resnet),
            "batch": _batch(plan),
            "budget": _budget(plan),
            "input": _input(cfg, train),
            "finished": None,
        }
    )


def _period(plan: TrainingPlan) -> int:
    return evaluation_period(plan.project.train.eval_every, plan.cfg.SOLVER.MAX_ITER)


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
        "in_common": in_common(train.images),
    }


def _weights(chosen: ChosenWeights, *, rgb_resnet: bool) -> dict[str, Any]:
    return {
        "line": chosen.line,
        "source": None if chosen.file is None else chosen.file.source,
        "sha256": None if chosen.file is None else chosen.file.sha256,
        "chain": [] if chosen.file is None else earlier_sources(chosen.file.source),
        "from_scratch": chosen.file is None,
        "rgb_resnet": rgb_resnet,
    }


def _batch(plan: TrainingPlan) -> dict[str, Any]:
    """The batch size and, where it was chosen on this machine, how."""
    size: dict[str, Any] = {"images": plan.cfg.SOLVER.IMS_PER_BATCH, "chosen": plan.batch is not None}
    if plan.batch is None:
        return size
    steps = {str(images): taken for images, taken in plan.batch.step_bytes.items()}
    return size | {"reason": plan.batch.reason, "step_bytes": steps, "free_bytes": plan.batch.free_bytes}


def _budget(plan: TrainingPlan) -> dict[str, Any] | None:
    """What was chosen so that the training fits into a time, and why; None where no time was given."""
    return None if plan.budget is None else asdict(plan.budget)


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
        "image_short_side_px": round(median(min(image.height_px, image.width_px) for image in train.images)),
        "mask_format": cfg.INPUT.MASK_FORMAT,
    }
