"""The plan of a training as text, with an estimate of time and memory."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from d2tune.data.augmentation.options import augmentations_of
from d2tune.engine.cost import Cost
from d2tune.engine.plan import TrainingPlan
from d2tune.hardware import usable_cores
from d2tune.modeling.config import is_bridge
from d2tune.modeling.weights import LoadReport
from d2tune.project import Length, Project, evaluation_period, evaluations, planned_length
from d2tune.project.budget import RESERVE
from d2tune.project.values import time_text
from d2tune.report.tables import format_table
from d2tune.run_folder import RunFolder
from d2tune.tasks import task_of
from d2tune.text import counted, duration


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
        ("model", _model_line(plan.project, cfg)),
        ("weights", plan.chosen.line),
        ("device", _device_line(plan)),
        ("schedule", _schedule_line(plan)),
        ("images", _images_line(cfg)),
    ]
    varied = _varied_words(cfg)
    if varied:
        rows.append(("varied", varied))
    if plan.batch is not None:
        chosen = f"{counted(plan.batch.size, 'image')}, chosen by the memory of this machine: {plan.batch.reason}"
        rows.append(("batch", chosen))
    rows += _budget_rows(plan)
    if start:
        rows.append(("resuming", f"after {start} iterations"))
    if cost is not None:
        rows.append(("estimate", _estimate_line(plan, cost, start)))
        if cost.evaluation_bytes is not None:
            rows.append(("memory", _memory_line(plan, cost)))
    rows.append(("output", str(folder)))
    text = "\n".join(f"{name:<12} {value}" for name, value in rows)
    blocks = [text, _counts_table(plan)]
    if plan.chosen.fallback:
        blocks.insert(0, _loud(plan.chosen.line))
    continues = RunFolder(folder).record_entries().get("continues") is not None  # its length is in addition
    short = None if continues else _short_line(plan)
    blocks += [line for line in (short, _patience_line(plan)) if line]
    if report is not None:
        blocks.append(_loaded_table(report))
    return "\n\n".join(blocks) + "\n"


def _budget_rows(plan: TrainingPlan) -> list[tuple[str, str]]:
    """What was chosen to fit into a time, and why."""
    budget = plan.budget
    if budget is None:
        return []
    rows = [("budget", f"{time_text(budget.seconds)}, of which {duration(budget.expected_s)} are expected to be used")]
    for key, value in budget.values.items():
        shown = list(value) if isinstance(value, tuple) else value
        rows.append(("", f"{key} {shown}: {budget.reasons[key]}"))
    return rows


def _schedule_line(plan: TrainingPlan) -> str:
    solver, length = plan.cfg.SOLVER, _length(plan)
    note = f"; {length.note}" if length.note and length.iterations == solver.MAX_ITER else ""
    steps = f"{counted(solver.MAX_ITER, 'iteration')} of {counted(solver.IMS_PER_BATCH, 'image')}"
    return (
        f"{steps} ({_epochs(plan):.1f} epochs{note}), "
        f"{solver.OPTIMIZER} with learning rate {solver.BASE_LR:.3g}, "
        f"warm-up {solver.WARMUP_ITERS}, then {_rate_after_warmup(solver)}"
    )


def _rate_after_warmup(solver: CfgNode) -> str:
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
        return "cosine"
    if not solver.STEPS:
        return "constant"
    return f"times {solver.GAMMA:g} after iterations {', '.join(map(str, solver.STEPS))}"


def _short_line(plan: TrainingPlan) -> str | None:
    """What to do where the run is too short for its data."""
    iterations, least = plan.cfg.SOLVER.MAX_ITER, _length(plan).recommended
    if least is None or iterations >= least:
        return None
    images = counted(len(plan.splits.train.images), "image")
    verb = "is" if iterations == 1 else "are"
    wanted = f"train.iterations={least}"
    if plan.budget is not None:
        longer_s = plan.budget.expected_s + (least - iterations) * plan.budget.step_s
        wanted = f'train.budget="{math.ceil(longer_s / (1 - RESERVE) / 60)} min"'
    return (
        f"warning: {counted(iterations, 'iteration')} ({_epochs(plan):.1f} epochs) {verb} too few for {images}; "
        f"{least:,} or more are recommended: {wanted}"
    )


def _patience_line(plan: TrainingPlan) -> str | None:
    """What to do where a training cannot end early, because the first of its evaluations is a gain."""
    patience, total = plan.project.train.early_stopping.patience, plan.cfg.SOLVER.MAX_ITER
    period = evaluation_period(plan.project.train.eval_every, total)
    count = evaluations(period, total)
    if not patience or patience + 1 < count:
        return None
    most = total // (patience + 2)
    wanted = f"; train.eval_every={most} makes enough of them" if most else ""
    return (
        f"warning: this training cannot end early: {counted(count, 'evaluation')} are too few for a patience of "
        f"{patience}{wanted}"
    )


def _length(plan: TrainingPlan) -> Length:
    images = len(plan.splits.train.images)
    return planned_length(plan.project, images=images, on_gpu=plan.cfg.MODEL.DEVICE == "cuda")


def _epochs(plan: TrainingPlan) -> float:
    solver = plan.cfg.SOLVER
    return float(solver.MAX_ITER * solver.IMS_PER_BATCH / len(plan.splits.train.images))


def _estimate_line(plan: TrainingPlan, cost: Cost, start: int) -> str:
    """The time of the steps and, where it was measured, of the evaluations."""
    total = plan.cfg.SOLVER.MAX_ITER
    steps, memory = total - start, f"{cost.memory_bytes / 2**30:.1f} GiB of memory"
    training_s = steps * cost.step_s
    what = f"{counted(steps, 'step')} at {cost.step_s:.2f} s"
    measured = "measured" if comm.get_world_size() == 1 else "measured, without messages between processes"
    if cost.evaluation_s is None:
        return f"{duration(training_s)} for {what} ({measured}), evaluations not counted, {memory}"
    count = evaluations(evaluation_period(plan.project.train.eval_every, total), total, start=start)
    images = counted(len(plan.splits.val.images), "image")
    each = f"{cost.evaluation_s:.0f} s" if cost.evaluation_s >= 1 else "under 1 s"
    return (
        f"{duration(training_s + count * cost.evaluation_s)} for {what} and "
        f"{counted(count, 'evaluation')} of {images} at {each} ({measured}), {memory}"
    )


def _memory_line(plan: TrainingPlan, cost: Cost) -> str:
    """What the largest step and the largest evaluation take."""
    step, evaluation = (f"{size / 2**30:.1f} GiB" for size in (cost.memory_bytes, cost.evaluation_bytes or 0))
    objects = counted(plan.cfg.TEST.DETECTIONS_PER_IMAGE, "object")
    full = f" with {objects}" if plan.project.traits.has_objects else ""
    return f"{step} for a step on the largest images, {evaluation} for the largest image{full} in an evaluation"


def _data_line(plan: TrainingPlan) -> str:
    described = task_of(plan.project).describe_data(plan.splits.train, plan.splits.val)
    fold = plan.project.data.fold
    which = f"; validated on fold {fold.number} of 0 to {fold.of - 1}" if fold is not None else ""
    return described + which + ("; a rendered sample" if plan.splits.rendered else "")


def _images_line(cfg: CfgNode) -> str:
    low, high = cfg.INPUT.MIN_SIZE_TRAIN
    side_px, window_px = cfg.INPUT.PATCH_PX, cfg.TEST.WINDOW_PX
    patches = f"squares of {side_px} px" if side_px else "whole images"
    windows = f"windows of {window_px} px" if window_px else "whole images"
    if cfg.INPUT.ORIGINAL_SIZE:
        return f"in their own size: {patches} in training, {windows} in evaluation"
    taken = f", of which {patches}" if side_px else ""
    return f"short side {low} to {high} px in training{taken}, {cfg.INPUT.MIN_SIZE_TEST} px in evaluation"


def _varied_words(cfg: CfgNode) -> str:
    """What is varied in training images; colors where they can be photos alone."""
    chosen = augmentations_of(cfg)
    can_be_photos = len(cfg.MODEL.PIXEL_MEAN) == 3
    return (chosen if can_be_photos else replace(chosen, color=0.0, gray=0.0, blur=0.0)).in_words


def _model_line(project: Project, cfg: CfgNode) -> str:
    network = cfg.MODEL.BRIDGE.ENCODER if is_bridge(cfg) else cfg.MODEL.FEATURES.NAME
    backbone = f" on {network}" if network else ""
    return f"{project.model.preset}{backbone}, {task_of(project).describe_model(cfg, project)}"


def _device_line(plan: TrainingPlan) -> str:
    if plan.cfg.MODEL.DEVICE == "cuda":
        return f"{plan.num_gpus} x {torch.cuda.get_device_name()}, {plan.precision} ({plan.precision_reason})"
    processes = f", {comm.get_world_size()} processes" if comm.get_world_size() > 1 else ""
    return f"CPU with {counted(usable_cores(), 'core')}{processes}, {plan.precision} ({plan.precision_reason})"


def _counts_table(plan: TrainingPlan) -> str:
    pixels = None if plan.class_pixels is None else (plan.class_pixels.train, plan.class_pixels.val)
    header, rows = task_of(plan.project).count_rows(plan.splits.train, plan.splits.val, pixels)
    return format_table(rows, header=header)


def _loud(line: str) -> str:
    return f"!!! {line}.\n!!! The norms learn and warm-up is longer; expect far less than with pretrained weights."


def _loaded_table(report: LoadReport) -> str:
    rows = [[row.component, f"{row.loaded} of {row.total}", row.why or "-"] for row in report.rows]
    table = format_table(rows, header=["weights for", "loaded", "left as initialized"], align="lrl")
    return table + (f"\n{report.unused} tensors of the file have no place in this model" if report.unused else "")
