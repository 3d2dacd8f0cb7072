"""Training a project from its data to a run folder that says everything about it."""

from __future__ import annotations

import json
import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.engine import create_ddp_model, hooks, launch
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter
from torch import nn
from torch.multiprocessing import ProcessRaisedException
from torch.utils.data import DataLoader

from d2tune.data.batches import TrainingBatches
from d2tune.data.mapper import CACHE_BYTES
from d2tune.data.training import training_samples
from d2tune.engine.hooks import (
    EvaluateAndKeepBest,
    ProgressWriter,
    SaveLast,
    StopOnSignal,
    StoppedError,
    WeightAverage,
)
from d2tune.engine.plan import Cost, describe, measure_cost
from d2tune.engine.prepare import Prepared, check_gpus, check_resumable, prepare, write_beginning, write_resumed
from d2tune.engine.trainer import Trainer, build_optimizer, clip_norm
from d2tune.engine.validation import Validation
from d2tune.errors import RunError
from d2tune.evaluation.evaluator import Metrics
from d2tune.evaluation.map_metrics import MapMetrics
from d2tune.evaluation.summaries import closing_sentence, metrics_text
from d2tune.hardware import usable_cores
from d2tune.logs import log_to, set_up_terminal
from d2tune.metrics.coco.summary import InstanceMetrics
from d2tune.modeling import checkpoint, weights
from d2tune.modeling.build import build_model
from d2tune.modeling.device import speed_up
from d2tune.project import LoadedProject, Project
from d2tune.run_folder import RunFolder, ensure_writable, latest_run, new_run

if TYPE_CHECKING:
    from d2tune.loggers.wandb import WandbRun


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What training made.

    Attributes:
        run: The run folder.
        metrics: Scores of the best weights on the validation part: `InstanceMetrics`, or `MapMetrics` of a semantic or
            panoptic task.
        best_iteration: When those weights were reached.
        seconds: Wall time of training, evaluations included.
        sentence: The result in one sentence.
    """

    run: Path
    metrics: Metrics
    best_iteration: int
    seconds: float
    sentence: str


def train(
    loaded: LoadedProject,
    *,
    output_dir: str | Path | None = None,
    resume: bool = False,
    num_gpus: int | None = None,
    sample: bool = True,
) -> TrainResult:
    """Train a project and evaluate it.

    Args:
        loaded: From ``load_project``.
        output_dir: The run folder; ``runs/<project>/<time>`` unless given.
        resume: Go on with the latest run of the project, or with the one in ``output_dir``.
        num_gpus: GPUs to train on; None takes one where there is one.
        sample: Render the project's sample where its data are missing.

    Raises:
        D2TuneError: Something the person must mend first; nothing has been written then.
    """
    check_gpus(num_gpus)
    resumed = _run_to_resume(loaded.project, output_dir) if resume else None
    prepared = prepare(loaded, num_gpus=num_gpus, sample=sample, resumed=resumed)
    if resumed is not None:
        check_resumable(resumed, prepared)
    several = prepared.num_gpus > 1
    model, report = _seeded_model(prepared, device="cpu" if several else prepared.cfg.MODEL.DEVICE)
    if resumed is None:
        folder = new_run(loaded.project.name, output_dir=None if output_dir is None else Path(output_dir))
        write_beginning(folder, prepared)
    else:
        folder = resumed
        ensure_writable(folder.path)
    if not several:
        return _run(prepared, folder, model, report, resume=resume)
    del model
    try:
        launch(_worker, prepared.num_gpus, dist_url="auto", args=(prepared, folder, report, resume))
    except ProcessRaisedException as error:
        raise RunError(f"a training process ended: {str(error).strip().splitlines()[-1]}", file=folder.log) from error
    return read_result(folder)


def _seeded_model(prepared: Prepared, *, device: str) -> tuple[nn.Module, weights.LoadReport | None]:
    """The model with its initial weights, which follow from the run's seed."""
    cfg = prepared.cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = device
    torch.manual_seed(cfg.SEED)
    return build_model(cfg, prepared.chosen, prepared.state)


def _run_to_resume(project: Project, output_dir: str | Path | None) -> RunFolder:
    if output_dir is None:
        folder = latest_run(project.name, having="checkpoints/last.pth")
        if folder is None:
            raise RunError("nothing to resume", file=Path("runs") / project.name, hint="Train without --resume first.")
        return folder
    folder = RunFolder(Path(output_dir))
    if not folder.last.is_file():
        raise RunError("nothing to resume", file=folder.path, expected="checkpoints/last.pth")
    return folder


def _worker(prepared: Prepared, folder: RunFolder, report: weights.LoadReport | None, resume: bool) -> None:
    set_up_terminal()
    model, _ = _seeded_model(prepared, device=prepared.cfg.MODEL.DEVICE)
    _run(prepared, folder, model, report, resume=resume)


def _run(
    prepared: Prepared, folder: RunFolder, model: nn.Module, report: weights.LoadReport | None, *, resume: bool
) -> TrainResult:
    with log_to(folder.log) if comm.is_main_process() else nullcontext():
        cfg = prepared.cfg
        speed_up(model, device=cfg.MODEL.DEVICE, precision=prepared.precision)
        state = checkpoint.load(folder.last) if resume else None
        start = int(state["trainer"]["iteration"]) if state else 0
        if start >= cfg.SOLVER.MAX_ITER:
            raise RunError(
                f"the run is complete with {start} iterations",
                file=folder.path,
                hint=f"To go on, ask for more: train.iterations={2 * start}.",
            )
        if state:
            checkpoint.load_weights(model, folder.last)
            if comm.is_main_process():
                write_resumed(folder, prepared)
        _train(prepared, folder, model, report, state, start=start)
    comm.synchronize()
    return read_result(folder)


def _train(
    prepared: Prepared,
    folder: RunFolder,
    model: nn.Module,
    report: weights.LoadReport | None,
    state: dict[str, Any] | None,
    *,
    start: int,
) -> None:
    main = comm.is_main_process()
    samples, batches = _samples(prepared), _batches(prepared, start=start)
    if main:
        batch = [samples[key] for key in batches.typical()]
        cost = measure_cost(model, batch, prepared.cfg, prepared.precision) if comm.get_world_size() == 1 else None
        print(_plan(prepared, folder, report, cost, start=start), flush=True)
    trainer = _trainer(prepared, folder, model, _loader(prepared, samples, batches))
    trainer.completed = start
    if state:
        trainer.load_state_dict(state["trainer"])
    began = time.perf_counter()
    try:
        trainer.train(start, prepared.cfg.SOLVER.MAX_ITER)
    except StoppedError as stop:
        if main:
            _add_duration(folder, time.perf_counter() - began)
            print(f"Stopped after {stop.args[0]} iterations; --resume goes on from there.", flush=True)
        raise SystemExit(130) from None
    if main:
        _add_duration(folder, time.perf_counter() - began)
        result = read_result(folder)
        print(f"\n{metrics_text(result.metrics)}\n\n{result.sentence}", flush=True)


def _plan(
    prepared: Prepared, folder: RunFolder, report: weights.LoadReport | None, cost: Cost | None, *, start: int
) -> str:
    return describe(
        project=prepared.loaded,
        parts=prepared.parts,
        cfg=prepared.cfg,
        chosen=prepared.chosen,
        report=report,
        precision=prepared.precision,
        num_gpus=prepared.num_gpus,
        cost=cost,
        folder=folder.path,
        start=start,
    )


def _samples(prepared: Prepared) -> torch.utils.data.Dataset[dict[str, Any]]:
    return training_samples(
        prepared.parts.train, prepared.cfg, prepared.project, cache_bytes=CACHE_BYTES // max(1, _workers(prepared))
    )


def _batches(prepared: Prepared, *, start: int) -> TrainingBatches:
    cfg, world = prepared.cfg, comm.get_world_size()
    squares = bool(cfg.INPUT.PATCH_PX)
    return TrainingBatches(
        [image.height_px > image.width_px and not squares for image in prepared.parts.train.images],
        batch_size=cfg.SOLVER.IMS_PER_BATCH // world,
        short_side_range_px=tuple(cfg.INPUT.MIN_SIZE_TRAIN),
        seed=cfg.SEED,
        start=start,
        rank=comm.get_rank(),
        world=world,
    )


def _workers(prepared: Prepared) -> int:
    wanted = prepared.project.train.workers
    automatic = min(8, usable_cores() // 2) if prepared.cfg.MODEL.DEVICE == "cuda" else 0
    return automatic if wanted == "auto" else wanted


def _loader(
    prepared: Prepared, samples: torch.utils.data.Dataset[dict[str, Any]], batches: TrainingBatches
) -> DataLoader[Any]:
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=_workers(prepared),
        collate_fn=list,
        worker_init_fn=_leave_ctrl_c_to_the_trainer,
    )


def _leave_ctrl_c_to_the_trainer(number: int) -> None:
    """Ctrl-C reaches every process of the terminal; a loader that dies of it would take the step under way along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _trainer(prepared: Prepared, folder: RunFolder, model: nn.Module, loader: DataLoader[Any]) -> Trainer:
    cfg = prepared.cfg
    optimizer = build_optimizer(cfg, model)
    trainer = Trainer(
        create_ddp_model(model, broadcast_buffers=False),
        loader,
        optimizer,
        precision=prepared.precision,
        device=cfg.MODEL.DEVICE,
        seed=cfg.SEED + comm.get_rank(),
        clip_norm=clip_norm(cfg),
    )
    average = WeightAverage(model, decay=cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY > 0 else None
    trainer.register_hooks(
        [hooks.IterationTimer(), hooks.LRScheduler(optimizer, build_lr_scheduler(cfg, optimizer)), average]
    )
    if comm.is_main_process():
        trainer.register_hooks(_main_hooks(prepared, folder, model, average))
    trainer.register_hooks([StopOnSignal()])
    return trainer


def _main_hooks(
    prepared: Prepared, folder: RunFolder, model: nn.Module, average: WeightAverage | None
) -> list[hooks.HookBase]:
    """What the first process does besides training: evaluate, save, show."""
    iterations = prepared.cfg.SOLVER.MAX_ITER
    dashboards = _dashboards(prepared, folder)
    validation = Validation(prepared, folder, model, average=average, image_logs=dashboards)
    period = max(1, iterations // 40)
    files_and_dashboards: list[EventWriter] = [
        JSONWriter(str(folder.metrics)),
        TensorboardXWriter(str(folder.path / "tensorboard")),
        *dashboards,
    ]
    return [
        EvaluateAndKeepBest(
            period=_eval_period(prepared.project, prepared.cfg), evaluate=validation.run, keep=validation.keep
        ),
        validation,
        SaveLast(folder.last, period=max(50, iterations // 10)),
        hooks.PeriodicWriter([ProgressWriter(iterations)], period=period),
        hooks.PeriodicWriter(files_and_dashboards, period=min(20, period)),
    ]


def _eval_period(project: Project, cfg: CfgNode) -> int:
    wanted = project.train.eval_every
    return max(1, cfg.SOLVER.MAX_ITER // 5) if wanted == "auto" else wanted


def _dashboards(prepared: Prepared, folder: RunFolder) -> list[WandbRun]:
    if prepared.project.tracking != "wandb":
        return []
    from d2tune.loggers.wandb import WandbRun

    run = WandbRun(
        project=f"d2tune-{prepared.project.name}",
        name=folder.path.name,
        config=yaml.safe_load(prepared.project.to_yaml()),
        folder=folder.path,
        run_id=folder.read_record().get("wandb_id"),
    )
    folder.update_record({"wandb_id": run.id})
    print(f"W&B          {run.where}", flush=True)
    return [run]


def _add_duration(folder: RunFolder, seconds: float) -> None:
    """Add the time since training was started or resumed to what came before."""
    earlier_s = folder.read_record().get("durations", {}).get("training_s", 0.0)
    folder.update_record({"durations": {"training_s": round(earlier_s + seconds, 1)}})


def read_result(folder: RunFolder) -> TrainResult:
    """The result of a run that has ended, from its folder."""
    record = folder.read_record()
    evaluation = json.loads(folder.evaluation.read_text(encoding="utf-8"))
    kind: type[InstanceMetrics] | type[MapMetrics] = InstanceMetrics if evaluation["task"] == "instance" else MapMetrics
    metrics = kind.from_json(evaluation)
    best_iteration = int(record["best"]["iteration"])
    sentence = closing_sentence(metrics, best_iteration=best_iteration, contact_sheet=folder.contact_sheet)
    return TrainResult(folder.path, metrics, best_iteration, float(record["durations"]["training_s"]), sentence)
