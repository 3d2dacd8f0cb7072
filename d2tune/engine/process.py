"""What each process of a training does: build the model, load its weights, train, and return the result."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from detectron2.utils import comm
from torch import nn

from d2tune.engine.assembly import Extensions, build_trainer, training_batches, training_split
from d2tune.engine.cost import Cost, measure_cost, measure_evaluation
from d2tune.engine.plan import TrainingPlan
from d2tune.engine.plan_text import plan_text
from d2tune.engine.record import write_resumed
from d2tune.engine.result import TrainResult, add_duration, read_result
from d2tune.engine.trainer import StoppedError, Trainer
from d2tune.errors import RunError
from d2tune.evaluation.summaries import metrics_text
from d2tune.logs import log_to, set_up_terminal
from d2tune.modeling import checkpoint, weights
from d2tune.modeling.build import build_model
from d2tune.modeling.device import speed_up
from d2tune.modeling.weights import LoadReport, StateDict
from d2tune.run_folder import RunFolder
from d2tune.tasks import task_of

STOPPED = 130
"""Exit status of a training that was stopped by a signal."""


def seeded_model(plan: TrainingPlan, state: StateDict | None, *, device: str) -> tuple[nn.Module, LoadReport | None]:
    """The model with its initial weights, which follow from the run's seed and the pretrained weights.

    Args:
        plan: What to build.
        state: The pretrained weights; None starts from scratch.
        device: Where the model is built.

    Raises:
        WeightsError: The weights are those of another architecture.
    """
    cfg = plan.cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = device
    torch.manual_seed(cfg.SEED)
    return build_model(cfg, plan.chosen, state)


def run_in_process(
    plan: TrainingPlan, folder: RunFolder, report: LoadReport | None, resume: bool, extensions: Extensions
) -> None:
    """What a process that was started for one of several GPUs does; it reads the pretrained weights itself.

    Raises:
        WeightsError: The weights have changed since the plan was made.
    """
    set_up_terminal()
    state = None if plan.chosen.file is None else weights.read_unchanged(plan.chosen.file)
    model, _ = seeded_model(plan, state, device=plan.cfg.MODEL.DEVICE)
    del state
    train_model(plan, folder, model, report, resume=resume, extensions=extensions)


def train_model(
    plan: TrainingPlan,
    folder: RunFolder,
    model: nn.Module,
    report: LoadReport | None,
    *,
    resume: bool,
    extensions: Extensions,
) -> TrainResult:
    """Train in this process, together with those of other GPUs where there are any.

    Args:
        plan: What was decided.
        folder: The run folder, with its record.
        model: With its initial weights.
        report: What of the pretrained weights went into it.
        resume: Continue from the last checkpoint in the folder.
        extensions: Further hooks and loggers.

    Raises:
        RunError: The run is complete, or its checkpoint cannot be used.
        SystemExit: Training was stopped by a signal.
    """
    with log_to(folder.log) if comm.is_main_process() else nullcontext():
        speed_up(model, device=plan.cfg.MODEL.DEVICE, precision=plan.precision)
        trainer = _ready_trainer(plan, folder, model, report, resume=resume, extensions=extensions)
        _train(trainer, plan, folder)
    comm.synchronize()
    return read_result(folder)


def _ready_trainer(
    plan: TrainingPlan,
    folder: RunFolder,
    model: nn.Module,
    report: LoadReport | None,
    *,
    resume: bool,
    extensions: Extensions,
) -> Trainer:
    """The trainer before its first step; prints the plan."""
    state = _resume(plan, folder, model) if resume else None
    start = int(state["iteration"]) if state else 0
    samples, batches = training_split(plan), training_batches(plan, start=start)
    if comm.is_main_process():
        batch = [samples[key] for key in batches.typical()]
        cost = _cost(plan, model, batch) if comm.get_world_size() == 1 else None
        print(plan_text(plan, folder=folder.path, report=report, cost=cost, start=start), flush=True)
    trainer = build_trainer(plan, folder, model, samples, batches, start=start, extensions=extensions)
    if state:
        trainer.load_state_dict(state)
    return trainer


def _cost(plan: TrainingPlan, model: nn.Module, batch: list[dict[str, Any]]) -> Cost:
    """What a step and an evaluation cost."""
    cost, val = measure_cost(model, batch, plan.cfg, plan.precision), plan.splits.val
    predictor = task_of(plan.project).predictor(model, plan.cfg, plan.project, val.categories)
    in_windows = bool(plan.cfg.INPUT.ORIGINAL_SIZE)
    return replace(cost, evaluation_s=measure_evaluation(predictor, val.images, in_windows=in_windows))


def _resume(plan: TrainingPlan, folder: RunFolder, model: nn.Module) -> dict[str, Any]:
    """Load the last weights into the model and return the state of its trainer.

    Raises:
        RunError: The run is complete, or the checkpoint is damaged or that of another model.
    """
    last = checkpoint.load(folder.last)
    state: dict[str, Any] = last["trainer"]
    start = int(state["iteration"])
    if start >= plan.cfg.SOLVER.MAX_ITER:
        raise RunError(
            f"the run is complete with {start} iterations",
            file=folder.path,
            hint=f"To train longer, set more iterations: train.iterations={2 * start}.",
        )
    checkpoint.put_weights(model, last["model"], file=folder.last)
    if comm.is_main_process():
        write_resumed(folder, plan)
    return state


def _train(trainer: Trainer, plan: TrainingPlan, folder: RunFolder) -> None:
    main = comm.is_main_process()
    began = time.perf_counter()
    try:
        trainer.train(trainer.completed, plan.cfg.SOLVER.MAX_ITER)
    except StoppedError as stop:
        if main:
            add_duration(folder, time.perf_counter() - began)
            print(f"Stopped after {stop.args[0]} iterations; --resume goes on from there.", flush=True)
        raise SystemExit(STOPPED) from None
    if main:
        add_duration(folder, time.perf_counter() - began)
        result = read_result(folder)
        print(f"\n{metrics_text(result.metrics)}\n\n{result.sentence}", flush=True)
