"""What was decided, told before training begins, with an estimate of time and memory."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import nn

from d2tune.annotations.model.dataset import Dataset
from d2tune.data.label_maps import label_files, read_labels
from d2tune.data.splits import Splits
from d2tune.data.statistics import class_pixels
from d2tune.engine.hooks import detached, duration
from d2tune.hardware import usable_cores
from d2tune.modeling.build import ChosenWeights
from d2tune.modeling.config import is_bridge
from d2tune.modeling.device import Precision
from d2tune.modeling.weights import LoadReport
from d2tune.project import LoadedProject
from d2tune.report.tables import format_table


@dataclass(frozen=True, slots=True)
class Cost:
    """What one training step costs here, measured.

    Attributes:
        step_s: Seconds for forward and backward.
        memory_bytes: Peak memory: of the GPU on CUDA, else of the process.
    """

    step_s: float
    memory_bytes: int


def measure_cost(model: nn.Module, batch: list[dict[str, Any]], cfg: CfgNode, precision: Precision) -> Cost:
    """Time a training step on a real batch; the model is left as it was."""
    before = detached(model.state_dict())
    cuda = cfg.MODEL.DEVICE == "cuda"
    model.train()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    with torch.random.fork_rng(), EventStorage():
        for _ in range(2):
            start = time.perf_counter()
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=cuda and precision == "bfloat16"):
                losses = model(batch)
            sum(losses.values()).backward()
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    model.load_state_dict(before)
    return Cost(seconds[-1], torch.cuda.max_memory_allocated() if cuda else _peak_process_bytes())


def _peak_process_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe(
    *,
    project: LoadedProject,
    parts: Splits,
    cfg: CfgNode,
    chosen: ChosenWeights,
    report: LoadReport | None,
    precision: Precision,
    num_gpus: int,
    cost: Cost | None,
    folder: Path,
    start: int,
) -> str:
    """The decisions as text, a line or a small table each."""
    train, iterations = parts.train, cfg.SOLVER.MAX_ITER
    epochs = iterations * cfg.SOLVER.IMS_PER_BATCH / len(train.images)
    profile = f", profile {project.profile}" if project.profile else ""
    rows = [
        ("project", f"{project.project.name} ({project.file}{profile})"),
        ("data", _data_line(parts, project.project.task)),
        ("model", _model_line(project, cfg)),
        ("weights", chosen.line),
        ("device", _device_line(cfg, precision, num_gpus)),
        (
            "schedule",
            f"{iterations} iterations of {cfg.SOLVER.IMS_PER_BATCH} images ({epochs:.1f} epochs), "
            f"{cfg.SOLVER.OPTIMIZER} with learning rate {cfg.SOLVER.BASE_LR:.3g}, "
            f"warm-up {cfg.SOLVER.WARMUP_ITERS}, then cosine",
        ),
        ("images", _images_line(cfg)),
    ]
    if start:
        rows.append(("resuming", f"after {start} iterations"))
    if cost is not None:
        rows.append(
            (
                "estimate",
                f"{duration((iterations - start) * cost.step_s)} of training at {cost.step_s:.2f} s a step "
                f"(measured), evaluations not counted, {cost.memory_bytes / 2**30:.1f} GiB of memory",
            )
        )
    rows.append(("output", str(folder)))
    text = "\n".join(f"{name:<12} {value}" for name, value in rows)
    blocks = [text, _counts_table(parts, project.project.task)]
    if chosen.fallback:
        blocks.insert(0, _loud(chosen.line))
    if report is not None:
        blocks.append(_loaded_table(report))
    return "\n\n".join(blocks) + "\n"


def _data_line(parts: Splits, task: str) -> str:
    train, val = parts.train, parts.val
    sample = "; a rendered sample" if parts.rendered else ""
    if task == "semantic":
        return f"{len(train.images)} training and {len(val.images)} validation images{sample}"
    empty = sum(not found for found in train.by_image().values())
    negatives = f", {empty} without any" if empty else ""
    what = "instances" if task == "instance" else "objects and regions"
    return (
        f"{len(train.images)} training images with {len(train.instances)} {what}{negatives}; "
        f"{len(val.images)} validation images with {len(val.instances)}{sample}"
    )


def _images_line(cfg: CfgNode) -> str:
    low, high = cfg.INPUT.MIN_SIZE_TRAIN
    side_px, window_px = cfg.INPUT.PATCH_PX, cfg.TEST.WINDOW_PX
    patches = f"squares of {side_px} px" if side_px else "whole images"
    windows = f"windows of {window_px} px" if window_px else "whole images"
    if cfg.INPUT.ORIGINAL_SIZE:
        return f"in their own size: {patches} in training, {windows} in evaluation"
    taken = f", of which {patches}" if side_px else ""
    return f"short side {low} to {high} px in training{taken}, {cfg.INPUT.MIN_SIZE_TEST} px in evaluation"


def _model_line(project: LoadedProject, cfg: CfgNode) -> str:
    backbone = f" on {cfg.MODEL.FEATURES.NAME}" if cfg.MODEL.FEATURES.NAME else ""
    task = project.project.task
    if is_bridge(cfg):
        bridge = cfg.MODEL.BRIDGE
        loss = " + ".join(f"{weight:g} {name}" for name, weight in bridge.LOSS)
        on = f" on {bridge.ENCODER}" if bridge.ENCODER else ""
        channels = len(cfg.MODEL.PIXEL_MEAN)
        return (
            f"{project.project.model.preset}{on}, {_counted(bridge.NUM_CLASSES)}, {channels} channel"
            f"{'' if channels == 1 else 's'}, {loss}"
        )
    if task == "semantic":
        return f"{project.project.model.preset}{backbone}, {_counted(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)}"
    things = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if task == "panoptic":
        stuff = len(project.project.stuff)
        return f"{project.project.model.preset}{backbone}, {_counted(things)} of things and {stuff} of stuff"
    return f"{project.project.model.preset}{backbone}, {_counted(things)}, {cfg.INPUT.MASK_FORMAT} masks"


def _counted(classes: int) -> str:
    return f"{classes} class{'' if classes == 1 else 'es'}"


def _device_line(cfg: CfgNode, precision: Precision, num_gpus: int) -> str:
    if cfg.MODEL.DEVICE == "cuda":
        return f"{num_gpus} x {torch.cuda.get_device_name()}, {precision}"
    return f"CPU with {usable_cores()} cores, {precision}"


def _counts_table(parts: Splits, task: str) -> str:
    if task == "semantic":
        train_share, val_share = _pixel_shares(parts.train), _pixel_shares(parts.val)
        rows = [[name, f"{share:.1f} %", f"{val_share[name]:.1f} %"] for name, share in train_share.items()]
        return format_table(rows, header=["class", "pixels in train", "in val"])
    train, val = parts.train.counts(), parts.val.counts()
    rows = [[name, str(train[name]), str(val.get(name, 0))] for name in train]
    return format_table(rows, header=["class", "train", "val"])


def _pixel_shares(dataset: Dataset) -> dict[str, float]:
    """The share of each class in the pixels that have one, in percent."""
    maps = map(read_labels, label_files(dataset, task="semantic").semantic)
    counts = class_pixels(maps, classes=len(dataset.categories))
    return {name: 100 * count / max(1, sum(counts)) for name, count in zip(dataset.class_names, counts, strict=True)}


def _loud(line: str) -> str:
    return f"!!! {line}.\n!!! The norms learn and warm-up is longer; expect far less than with pretrained weights."


def _loaded_table(report: LoadReport) -> str:
    rows = [[row.part, f"{row.loaded} of {row.total}", row.why or "-"] for row in report.rows]
    table = format_table(rows, header=["weights for", "loaded", "left as initialized"], align="lrl")
    return table + (f"\n{report.unused} tensors of the file have no place in this model" if report.unused else "")
