"""Stochastic weight averaging: a run is trained on at a constant learning rate, and its weights are averaged.

Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018; for detectors Zhang et
al., "SWA Object Detection", 2020, arXiv 2012.12645.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d2tune.assembling.candidates import Network, averaged_name
from d2tune.assembling.members import Member
from d2tune.assembling.norms import with_measured_norms
from d2tune.engine import launch
from d2tune.engine.assembly import Extensions
from d2tune.engine.hooks.base import Hook
from d2tune.engine.plan import make_plan
from d2tune.engine.process import seeded_model, train_model
from d2tune.engine.run_start import new_run_of
from d2tune.errors import ProjectError
from d2tune.modeling import checkpoint
from d2tune.project import LoadedProject
from d2tune.project.sections import EarlyStopping
from d2tune.run_folder import RunFolder

ITERATIONS_SHARE = 0.25
"""Iterations that a run is trained on, as a share of those that it had."""
LEAST_ITERATIONS = 4
"""Below, there is nothing to average."""
RATE_FACTOR = 0.25
"""The constant learning rate, in multiples of the largest one of the run."""
WARM_UP_SHARE = 0.2
"""Share of the iterations whose weights are not averaged: the optimizer begins without its averages."""


class MeanOfWeights(Hook):
    """The mean of the weights after each iteration, once the first ones are over.

    Args:
        first: Iterations whose weights are not averaged.
    """

    def __init__(self, *, first: int) -> None:
        self._first = first
        self._mean: dict[str, Tensor] = {}
        self._count = 0

    def _model(self) -> nn.Module:
        model: nn.Module = getattr(self.trainer.model, "module", self.trainer.model)
        return model

    def after_step(self) -> None:
        if self.trainer.iter < self._first:
            return
        state = {name: value for name, value in self._model().state_dict().items() if value.is_floating_point()}
        self._count += 1
        if self._count == 1:
            self._mean = {name: value.detach().clone() for name, value in state.items()}
            return
        with torch.no_grad():
            torch._foreach_lerp_([self._mean[name] for name in state], list(state.values()), 1 / self._count)

    def state_dict(self) -> dict[str, Any]:
        """The mean, and the number of weights that it is of."""
        return {"count": self._count, "mean": dict(self._mean)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from an earlier start."""
        device = next(self._model().parameters()).device
        self._count = state["count"]
        self._mean = {name: value.to(device) for name, value in state["mean"].items()}


def default_iterations(member: Member) -> int:
    """The iterations that a run is trained on."""
    return max(LEAST_ITERATIONS, round(int(member.cfg.SOLVER.MAX_ITER) * ITERATIONS_SHARE))


def averaged_network(member: Member, path: Path, *, iterations: int | None, shown: str | None = None) -> Network:
    """The stochastic weight average of a run, with a line that says so.

    Args:
        member: The run.
        path: See `averaged_weights`.
        iterations: How long it is trained on; None is a quarter of the iterations that it had.
        shown: What it is called in the line; None is its name.

    Raises:
        D2TuneError: See `averaged_weights`.
        SystemExit: Training was stopped by a signal.
    """
    if iterations is None:
        iterations = default_iterations(member)
    print(f"  training {shown or member.name} on for {iterations} iterations, to average its weights", flush=True)
    return Network(averaged_name(member), member, member.cfg, averaged_weights(member, path, iterations=iterations))


def averaged_weights(member: Member, path: Path, *, iterations: int) -> Mapping[str, Tensor]:
    """Train a run on, and average its weights.

    Args:
        member: The run.
        path: The run folder of this training. One that was ended goes on, one that is finished is read.
        iterations: How long it is trained.

    Returns:
        All tensors of the model.

    Raises:
        D2TuneError: The data have changed, or the folder cannot be written.
        SystemExit: Training was stopped by a signal.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ProjectError("models are assembled by one process", hint="Start the command without torchrun.")
    folder = RunFolder(path)
    loaded = _continued(member, iterations)
    hook = MeanOfWeights(first=int(iterations * WARM_UP_SHARE))
    if not folder.record_entries().get("finished"):
        if folder.last.is_file() or folder.before_last.is_file():
            launch.train(loaded, output_dir=path, resume=True, sample=False, hooks=[hook])
        else:
            shutil.rmtree(path, ignore_errors=True)  # of a training that was killed before its first checkpoint
            _begin(member, loaded, path, hook)
        gc.collect()  # the model and its optimizer, which refer to each other
    kept = checkpoint.load_training(folder.last)
    state = {**kept["model"], **kept["trainer"]["hooks"]["MeanOfWeights"]["mean"]}
    plan, _ = make_plan(loaded, num_gpus=None, sample=False, resumed=folder)
    return with_measured_norms(plan, state, folder)


def _continued(member: Member, iterations: int) -> LoadedProject:
    """The project of a run with a short schedule at a constant learning rate, evaluated at its end only."""
    project = member.loaded.project
    changes = {
        "iterations": iterations,
        "epochs": None,
        "budget": None,
        "learning_rate": float(member.cfg.SOLVER.BASE_LR) * RATE_FACTOR,
        "schedule": "constant",
        "steps": (),
        "warmup": "auto",
        "eval_every": 0,
        "early_stopping": EarlyStopping(),
        "validation_loss": False,
    }
    # without steps at which it falls, this schedule is constant
    raw = {"SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR", "SOLVER.EMA_DECAY": 0.0}
    own = ("SOLVER.BASE_LR", "SOLVER.WARMUP_ITERS")
    given = {key: value for key, value in project.detectron2.items() if key not in own}
    project = project.model_copy(
        update={"train": project.train.model_copy(update=changes), "detectron2": {**given, **raw}, "tracking": "none"}
    )
    return replace(member.loaded, project=project)


def _begin(member: Member, loaded: LoadedProject, path: Path, hook: Hook) -> None:
    plan, _ = make_plan(loaded, num_gpus=None, sample=False, resumed=member.folder)
    model, _ = seeded_model(plan, None, device=plan.cfg.MODEL.DEVICE)
    checkpoint.put_weights(model, member.state, file=member.folder.best)
    with new_run_of(plan, path) as folder:
        folder.update_record({"weights": member.record["weights"], "continues": member.given})
        train_model(plan, folder, model, None, resume=False, extensions=Extensions((hook,)))
