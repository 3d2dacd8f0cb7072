"""What each process of a training does: build the model, load its weights, train, and return the result."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch import distributed, nn

from d2tune.engine.assembly import Extensions, build_trainer, training_batches, training_split
from d2tune.engine.divergence import DivergenceError
from d2tune.engine.optimizer import check_factors, freeze
from d2tune.engine.plan import TrainingPlan
from d2tune.engine.plan_text import plan_text
from d2tune.engine.preflight import preflight
from d2tune.engine.ranks import agree, is_lost
from d2tune.engine.record import noted_end, write_resumed
from d2tune.engine.result import Stopwatch, TrainResult, read_result
from d2tune.engine.trainer import StoppedAtOnceError, StoppedError, Trainer
from d2tune.errors import D2TuneError, RunError
from d2tune.evaluation.summaries import metrics_text
from d2tune.logs import log_to, set_up_terminal
from d2tune.modeling import checkpoint, weights
from d2tune.modeling.build import build_model
from d2tune.modeling.device import speed_up
from d2tune.modeling.folding import fold_frozen_norms
from d2tune.modeling.weights import LoadReport, StateDict
from d2tune.run_folder import RunFolder
from d2tune.run_lock import note
from d2tune.text import counted

logger = logging.getLogger(__name__)

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
        ProjectError: Parameters are named that it does not have.
    """
    cfg = plan.cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = device
    torch.manual_seed(cfg.SEED)
    model, report = build_model(cfg, plan.chosen, state)
    freeze(model, plan.project.train.freeze)
    check_factors(model, plan.project.train.learning_rate_factors)
    return model, report


def run_in_process(
    plan: TrainingPlan, folder: RunFolder, report: LoadReport | None, resume: bool, extensions: Extensions
) -> None:
    """What a process that was started for one of several GPUs does; it reads the pretrained weights itself.

    At the end, the processes leave their group together: threads of a group that still exists when Python exits can
    abort the process.

    Raises:
        WeightsError: The weights have changed since the plan was made.
        SystemExit: Training was stopped by a signal.
    """
    set_up_terminal()
    state = None if plan.chosen.file is None else weights.read_unchanged(plan.chosen.file)
    model, _ = seeded_model(plan, state, device=plan.cfg.MODEL.DEVICE)
    del state
    try:
        train_model(plan, folder, model, report, resume=resume, extensions=extensions)
    except SystemExit:
        distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()


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
    main = comm.is_main_process()
    with log_to(folder.log) if main else nullcontext(), noted_end(folder) if main else nullcontext():
        speed_up(model, device=plan.cfg.MODEL.DEVICE, precision=plan.precision)
        fold_frozen_norms(model)
        stopwatch = Stopwatch(folder) if comm.is_main_process() else None
        state = _resume(plan, folder, model) if resume else None
        trainer = _ready_trainer(plan, folder, model, report, state=state, stopwatch=stopwatch, extensions=extensions)
        try:
            _train(trainer, plan, folder, stopwatch)
        finally:
            trainer.close()
    comm.synchronize()
    return read_result(folder)


def _ready_trainer(
    plan: TrainingPlan,
    folder: RunFolder,
    model: nn.Module,
    report: LoadReport | None,
    *,
    state: dict[str, Any] | None,
    stopwatch: Stopwatch | None,
    extensions: Extensions,
) -> Trainer:
    """The trainer before its first step; prints the plan."""
    start = int(state["iteration"]) if state else 0
    samples, batches = training_split(plan), training_batches(plan, start=start)
    cost, is_main = None, comm.is_main_process()
    if start < plan.cfg.SOLVER.MAX_ITER:
        doing = partial(note, folder.path) if is_main else _nothing
        cost = plan.cost or agree(lambda: preflight(plan, model, samples, batches, doing=doing))
    if is_main:
        print(plan_text(plan, folder=folder.path, report=report, cost=cost, start=start), flush=True)
    trainer = build_trainer(
        plan,
        folder,
        model,
        samples,
        batches,
        state=state,
        extensions=extensions,
        evaluation_s=None if cost is None else cost.evaluation_s,
        on_save=None if stopwatch is None else stopwatch.write,
    )
    if state:
        trainer.load_state_dict(state)
    return trainer


def _nothing(doing: str) -> None:
    """The first process notes what is done."""


def _resume(plan: TrainingPlan, folder: RunFolder, model: nn.Module) -> dict[str, Any]:
    """Load the last weights into the model and return the state of its trainer.

    Raises:
        RunError: The run is complete, or the checkpoint is damaged or that of another model.
    """
    last, file = _last_good(folder)
    state: dict[str, Any] = last["trainer"]
    start = int(state["iteration"])
    last_iteration = plan.cfg.SOLVER.MAX_ITER
    longer = f"To train longer, set more iterations: train.iterations={2 * start}."
    if start > last_iteration:
        message = f"the run has {start} iterations, more than it would have now"
        raise RunError(message, file=folder.path, found=counted(last_iteration, "iteration"), hint=longer)
    if start == last_iteration and "unfinished" not in state and folder.is_finished(start):
        raise RunError(f"the run is complete with {start} iterations", file=folder.path, hint=longer)
    patience = plan.project.train.early_stopping.patience
    without_gain = state.get("hooks", {}).get("EarlyStopping", {}).get("without_gain", 0)
    if 0 < patience <= without_gain and "unfinished" not in state and folder.is_finished(start):
        evaluations = counted(without_gain, "evaluation")
        raise RunError(
            f"the run is complete: after {start} of {last_iteration} iterations, {evaluations} had been without a gain",
            file=folder.path,
            hint="To train to the end, set train.early_stopping.patience=0.",
        )
    checkpoint.put_weights(model, last["model"], file=file)
    if comm.is_main_process():
        write_resumed(folder, plan)
    return state


def _last_good(folder: RunFolder) -> tuple[dict[str, Any], Path]:
    """The last checkpoint, or the one before it where the last is damaged, and its file.

    Raises:
        RunError: Neither can be used.
    """
    try:
        return checkpoint.load_training(folder.last), folder.last
    except RunError as error:
        try:
            earlier = checkpoint.load_training(folder.before_last)
        except RunError:
            raise error from None
        if comm.is_main_process():
            logger.warning("%s: the checkpoint before it is used", error.one_line())
        return earlier, folder.before_last


def _train(trainer: Trainer, plan: TrainingPlan, folder: RunFolder, stopwatch: Stopwatch | None) -> None:
    try:
        trainer.train(trainer.completed, plan.cfg.SOLVER.MAX_ITER)
    except StoppedError as stop:
        if stopwatch is not None:
            stopwatch.write()
            print(_stopped_line(stop), flush=True)
        raise SystemExit(STOPPED) from None
    except D2TuneError as error:
        raise _with_next_step(error, trainer, folder) from error.__cause__
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise _with_next_step(RunError("another process of this training has ended"), trainer, folder) from error
    except OSError as error:
        reason = RunError(f"cannot be written: {error.strerror or error}", file=error.filename or folder.path)
        raise _with_next_step(reason, trainer, folder) from error
    if stopwatch is not None:
        stopwatch.write()
        result = read_result(folder)
        print(f"\n{metrics_text(result.metrics)}\n\n{result.sentence}", flush=True)


def _stopped_line(stop: StoppedError) -> str:
    done = f"Stopped after {stop.args[0]} iterations"
    if isinstance(stop, StoppedAtOnceError):
        return f"{done}, in their evaluation; the same command with --resume goes on from there and evaluates again."
    return f"{done}; the same command with --resume goes on from there."


def _with_next_step(error: D2TuneError, trainer: Trainer, folder: RunFolder) -> D2TuneError:
    """The error with what is kept of the run, and how to go on."""
    if not folder.last.is_file():
        kept = "No checkpoint was written before."
    else:
        kept = f"{folder.last} is the checkpoint of {trainer.saved} iterations"
        kept += "." if isinstance(error, DivergenceError) else "; the same command with --resume goes on from there."
    error.hint = kept if error.hint is None else f"{error.hint} {kept}"
    return error
