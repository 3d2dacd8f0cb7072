"""The plan of a training as text, with an estimate of time and memory."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.config import CfgNode

from d2tune.engine.cost import Cost
from d2tune.engine.hooks.progress import duration
from d2tune.engine.plan import TrainingPlan
from d2tune.hardware import usable_cores
from d2tune.modeling.config import is_bridge
from d2tune.modeling.weights import LoadReport
from d2tune.project import LoadedProject
from d2tune.report.tables import format_table


def plan_text(plan: TrainingPlan, *, folder: Path, report: LoadReport | None, cost: Cost | None, start: int) -> str:
    """The decisions as text, a line or a small table each.

    Args:
        plan: The decisions.
        folder: The run folder.
        report: What of the weights went into the model; None where it starts from scratch or is resumed.
        cost: What a step costs; None where it was not measured.
        start: Iterations completed before.
    """
    cfg, loaded = plan.cfg, plan.loaded
    profile = f", profile {loaded.profile}" if loaded.profile else ""
    rows = [
        ("project", f"{plan.project.name} ({loaded.file}{profile})"),
        ("data", _data_line(plan)),
        ("model", _model_line(loaded, cfg)),
        ("weights", plan.chosen.line),
        ("device", _device_line(plan)),
        ("schedule", _schedule_line(plan)),
        ("images", _images_line(cfg)),
    ]
    if start:
        rows.append(("resuming", f"after {start} iterations"))
    if cost is not None:
        rows.append(("estimate", _estimate_line(cost, cfg.SOLVER.MAX_ITER - start)))
    rows.append(("output", str(folder)))
    text = "\n".join(f"{name:<12} {value}" for name, value in rows)
    blocks = [text, _counts_table(plan)]
    if plan.chosen.fallback:
        blocks.insert(0, _loud(plan.chosen.line))
    if report is not None:
        blocks.append(_loaded_table(report))
    return "\n\n".join(blocks) + "\n"


def _schedule_line(plan: TrainingPlan) -> str:
    solver = plan.cfg.SOLVER
    epochs = solver.MAX_ITER * solver.IMS_PER_BATCH / len(plan.splits.train.images)
    return (
        f"{solver.MAX_ITER} iterations of {solver.IMS_PER_BATCH} images ({epochs:.1f} epochs), "
        f"{solver.OPTIMIZER} with learning rate {solver.BASE_LR:.3g}, "
        f"warm-up {solver.WARMUP_ITERS}, then cosine"
    )


def _estimate_line(cost: Cost, iterations: int) -> str:
    return (
        f"{duration(iterations * cost.step_s)} of training at {cost.step_s:.2f} s a step (measured), "
        f"evaluations not counted, {cost.memory_bytes / 2**30:.1f} GiB of memory"
    )


def _data_line(plan: TrainingPlan) -> str:
    train, val = plan.splits.train, plan.splits.val
    task = plan.project.task
    sample = "; a rendered sample" if plan.splits.rendered else ""
    if task == "semantic":
        return f"{len(train.images)} training and {len(val.images)} validation images{sample}"
    empty = sum(not instances for instances in train.by_image().values())
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


def _device_line(plan: TrainingPlan) -> str:
    if plan.cfg.MODEL.DEVICE == "cuda":
        return f"{plan.num_gpus} x {torch.cuda.get_device_name()}, {plan.precision}"
    return f"CPU with {usable_cores()} cores, {plan.precision}"


def _counts_table(plan: TrainingPlan) -> str:
    if plan.class_pixels is not None:
        names = plan.splits.train.class_names
        shares = zip(_shares(plan.class_pixels.train), _shares(plan.class_pixels.val), strict=True)
        rows = [[name, f"{train:.1f} %", f"{val:.1f} %"] for name, (train, val) in zip(names, shares, strict=True)]
        return format_table(rows, header=["class", "pixels in train", "in val"])
    train, val = plan.splits.train.counts(), plan.splits.val.counts()
    rows = [[name, str(train[name]), str(val.get(name, 0))] for name in train]
    return format_table(rows, header=["class", "train", "val"])


def _shares(pixels: tuple[int, ...]) -> list[float]:
    """The share of each class in the labeled pixels, in percent."""
    return [100 * count / max(1, sum(pixels)) for count in pixels]


def _loud(line: str) -> str:
    return f"!!! {line}.\n!!! The norms learn and warm-up is longer; expect far less than with pretrained weights."


def _loaded_table(report: LoadReport) -> str:
    rows = [[row.part, f"{row.loaded} of {row.total}", row.why or "-"] for row in report.rows]
    table = format_table(rows, header=["weights for", "loaded", "left as initialized"], align="lrl")
    return table + (f"\n{report.unused} tensors of the file have no place in this model" if report.unused else "")
