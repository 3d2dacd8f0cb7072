"""The parts of a training put together as its plan says: samples, batches, optimizer, hooks and loggers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import yaml
from detectron2.engine import HookBase, create_ddp_model, hooks
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from torch import nn

from d2tune.data.batches import TrainingBatches
from d2tune.data.mapper import CACHE_BYTES
from d2tune.data.sampling import repeats_of
from d2tune.engine.hooks.early_stop import EarlyStopping, EndTogether
from d2tune.engine.hooks.feed_loggers import FeedLoggers
from d2tune.engine.hooks.frozen_norms import KeepNormsFrozen
from d2tune.engine.hooks.keep_best import EvaluateAndKeepBest
from d2tune.engine.hooks.live_view import LiveView
from d2tune.engine.hooks.progress import PrintProgress
from d2tune.engine.hooks.save_last import SaveBeforeEvaluation, SaveLast
from d2tune.engine.hooks.stop import StopOnSignal
from d2tune.engine.hooks.weight_average import WeightAverage
from d2tune.engine.loading import ImageLoader, ReportedErrors, outlive_stop_signals
from d2tune.engine.logbook import Logbook
from d2tune.engine.optimizer import build_optimizer, clip_norm, norms_within
from d2tune.engine.plan import TrainingPlan
from d2tune.engine.shared_evaluation import Assist, SharedEvaluation
from d2tune.engine.trainer import Trainer
from d2tune.engine.validation import Validation
from d2tune.hardware import usable_cores
from d2tune.loggers import Logger, RunInfo, chosen
from d2tune.modeling.device import used_memory
from d2tune.modeling.together import train_together
from d2tune.project import evaluation_period
from d2tune.run_folder import RunFolder
from d2tune.run_lock import holder_of
from d2tune.tasks import task_of
from d2tune.terminal import is_live

Samples = torch.utils.data.Dataset[dict[str, Any]]

HookSource = Sequence[HookBase] | Callable[[Trainer], Iterable[HookBase]]
"""Hooks, or a function that makes them for a trainer."""


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a caller adds to a training.

    Attributes:
        hooks: For every process.
        loggers: For the first process, after those of the project.
    """

    hooks: HookSource = ()
    loggers: tuple[Logger, ...] = ()


def training_split(plan: TrainingPlan) -> Samples:
    """The samples of the training split."""
    cache_bytes = CACHE_BYTES // max(1, loading_processes(plan))
    task, train = task_of(plan.project), plan.splits.train
    return task.training_samples(train, task.label_files(train), plan.cfg, plan.project, cache_bytes=cache_bytes)


def training_batches(plan: TrainingPlan, *, start: int) -> TrainingBatches:
    """What this process trains on in each iteration from ``start`` on."""
    cfg, world = plan.cfg, comm.get_world_size()
    squares = bool(cfg.INPUT.PATCH_PX)
    return TrainingBatches(
        [image.height_px > image.width_px and not squares for image in plan.splits.train.images],
        batch_size=cfg.SOLVER.IMS_PER_BATCH // world,
        short_side_range_px=tuple(cfg.INPUT.MIN_SIZE_TRAIN),
        seed=cfg.SEED,
        repeats=repeats_of(plan.splits.train, plan.project.train.sampling),
        most_short_side_px=cfg.INPUT.MIN_SIZE_TEST if cfg.INPUT.LARGE_SCALE_JITTER else None,
        start=start,
        rank=comm.get_rank(),
        world=world,
        accumulate=plan.project.train.accumulate,
    )


def build_trainer(
    plan: TrainingPlan,
    folder: RunFolder,
    model: nn.Module,
    samples: Samples,
    batches: TrainingBatches,
    *,
    state: Mapping[str, Any] | None,
    extensions: Extensions,
    evaluation_s: float | None = None,
    on_save: Callable[[], None] | None = None,
) -> Trainer:
    """The trainer of a model with its hooks.

    For each event the hooks run in this order: Detectron2's timer and learning rate schedule, the average of the
    weights, the checkpoint before an evaluation, evaluation, the caller's own hooks, the checkpoint to resume from,
    progress, loggers, and the stop by a signal. The caller's own hooks therefore see the new weights and the scalars
    of an evaluation, their state is in the checkpoint of the same iteration, and what they put into the
    ``EventStorage`` is logged with it. All processes predict in evaluations; scores, checkpoints, progress and loggers
    are in the first process only.

    Args:
        plan: What was decided.
        folder: The run folder.
        model: On its device, not wrapped.
        samples: The training split.
        batches: Keys of the samples, from the first iteration on.
        state: The trainer's state of a run that is resumed, which the caller loads; None for a new run.
        extensions: The caller's own hooks and loggers.
        evaluation_s: Seconds that an evaluation is expected to take; None where that is unknown.
        on_save: Called after each checkpoint.
    """
    cfg, train = plan.cfg, plan.project.train
    early = train.early_stopping
    start = int(state["iteration"]) if state else 0
    is_whole = not state or state.get("unfinished") is None
    optimizer = build_optimizer(cfg, model, factors=train.learning_rate_factors)
    on_cuda = cfg.MODEL.DEVICE == "cuda"
    device_ids = [torch.cuda.current_device()] if on_cuda else None
    if comm.get_world_size() > 1:
        train_together(model)
    trainer = Trainer(
        create_ddp_model(model, broadcast_buffers=False, device_ids=device_ids),
        _loader(plan, samples, batches),
        optimizer,
        precision=plan.precision,
        device=cfg.MODEL.DEVICE,
        seed=cfg.SEED + comm.get_rank() if on_cuda else cfg.SEED,
        clip_norm=clip_norm(cfg),
        accumulate=train.accumulate,
        skips=train.on_divergence == "skip",
    )
    trainer.completed = trainer.saved = start
    trainer.saved_whole = is_whole
    average = WeightAverage(model, decay=cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY > 0 else None
    schedule = hooks.LRScheduler(optimizer, build_lr_scheduler(cfg, optimizer))
    main = comm.is_main_process()
    trainer.register_hooks([hooks.IterationTimer(), schedule, average])
    if train.freeze:
        trainer.register_hooks([KeepNormsFrozen(norms_within(model, train.freeze))])
    evaluations = validation = None
    shared = SharedEvaluation(plan, model, average=average)
    if not main:
        earlier = state["hooks"].get("EvaluateAndKeepBest", {}) if state else {}
        is_rechecked = earlier.get("best_iteration") is not None
        trainer.register_hooks([Assist(shared, period=_period(plan), is_rechecked=is_rechecked)])
    else:
        loggers = [*chosen.loggers_of(plan.project), *extensions.loggers]
        logbook = Logbook(takes_galleries=any(one.takes_galleries for one in loggers))
        validation = Validation(plan, folder, model, shared=shared, logbook=logbook)
        evaluations = _evaluations(plan, validation, evaluation_s)
        trainer.register_hooks([SaveBeforeEvaluation(folder.last, is_due=evaluations.is_due), evaluations, validation])
        if early.patience:
            stopping = EarlyStopping(
                patience=early.patience,
                min_gain=early.min_gain,
                is_due=evaluations.is_due,
                value=validation.stopping_value,
            )
            trainer.register_hooks([stopping])
    own = extensions.hooks(trainer) if callable(extensions.hooks) else extensions.hooks
    trainer.register_hooks(list(own))
    if evaluations is not None and validation is not None:
        period = max(50, cfg.SOLVER.MAX_ITER // 10)
        trainer.register_hooks([SaveLast(folder.last, period=period, keep=folder.before_last, on_save=on_save)])
        first = start if is_whole else start - 1
        shown = _live_view(plan, folder, evaluations, validation) if is_live(sys.stdout) else None
        trainer.register_hooks(_output_hooks(plan, folder, loggers, logbook, evaluations, shown=shown, first=first))
    trainer.register_hooks([*([EndTogether()] if early.patience else []), StopOnSignal()])
    return trainer


def _period(plan: TrainingPlan) -> int:
    return evaluation_period(plan.project.train.eval_every, plan.cfg.SOLVER.MAX_ITER)


def _evaluations(plan: TrainingPlan, validation: Validation, expected_s: float | None) -> EvaluateAndKeepBest:
    return EvaluateAndKeepBest(
        period=_period(plan),
        evaluate=validation.run,
        keep=validation.keep,
        recheck=validation.recheck,
        expected_s=expected_s,
    )


def _output_hooks(
    plan: TrainingPlan,
    folder: RunFolder,
    loggers: Sequence[Logger],
    logbook: Logbook,
    evaluations: EvaluateAndKeepBest,
    *,
    shown: HookBase | None,
    first: int,
) -> list[HookBase]:
    period = max(1, plan.cfg.SOLVER.MAX_ITER // 40)
    run = RunInfo(
        plan.project.name, folder, yaml.safe_load(plan.project.to_yaml()), first, chosen.group_of(plan.project)
    )
    return [
        shown or PrintProgress(period=period, evaluations_s=evaluations.seconds_left),
        FeedLoggers(loggers, run, period=min(20, period), logbook=logbook),
    ]


def _live_view(
    plan: TrainingPlan, folder: RunFolder, evaluations: EvaluateAndKeepBest, validation: Validation
) -> LiveView:
    def doing() -> str:
        holder = holder_of(folder.path)
        return holder.doing if holder is not None else ""

    return LiveView(
        project=plan.project.name,
        metric_name=plan.project.traits.main_metrics[0].title,
        batch_size=plan.cfg.SOLVER.IMS_PER_BATCH,
        evaluations=evaluations,
        last_metric=validation.last_metric,
        memory=partial(used_memory, plan.cfg.MODEL.DEVICE),
        doing=doing,
    )


def loading_processes(plan: TrainingPlan) -> int:
    """Processes that load images; 0 loads them in this one."""
    wanted = plan.project.train.workers
    automatic = min(8, usable_cores() // 2) if plan.cfg.MODEL.DEVICE == "cuda" else 0
    return automatic if wanted == "auto" else wanted


def _loader(plan: TrainingPlan, samples: Samples, batches: TrainingBatches) -> ImageLoader:
    return ImageLoader(
        ReportedErrors(samples, [image.path for image in plan.splits.train.images]),
        batch_sampler=batches,
        num_workers=loading_processes(plan),
        collate_fn=list,
        worker_init_fn=outlive_stop_signals,
    )
