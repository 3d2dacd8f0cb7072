"""Training in several processes on the CPU, and hooks and loggers that can be sent to them."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import distributed, nn

from d2tune.engine.plan import TrainingPlan
from d2tune.engine.process import seeded_model
from d2tune.loggers import Logger, RunInfo
from d2tune.modeling.weights import read_unchanged
from tests.forked import together


def launch_on_cpu(work: Callable[..., None], processes: int, *, dist_url: str, args: tuple[Any, ...]) -> None:
    """What Detectron2's ``launch`` does for GPUs with NCCL, for CPUs with gloo."""
    assert dist_url == "auto"
    with tempfile.TemporaryDirectory() as folder:
        together(_process, work, processes, f"file://{folder}/meeting", args, processes=processes)


def _process(rank: int, work: Callable[..., None], processes: int, address: str, args: tuple[Any, ...]) -> None:
    faulthandler.enable()  # where a process was aborted
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=address, world_size=processes, rank=rank)
    plan, folder = args[0], args[1]
    _note_first_weights(plan, folder.path.parent / f"first_{rank}.json")
    work(*args)


def _note_first_weights(plan: TrainingPlan, file: Path) -> None:
    """Note the weights that this process begins with, before any are exchanged."""
    state = None if plan.chosen.file is None else read_unchanged(plan.chosen.file)
    model, _ = seeded_model(plan, state, device="cpu")
    file.write_text(json.dumps([digest(model), state is not None]))


def digest(model: nn.Module) -> str:
    """A hash over all tensors of a model."""
    content = hashlib.sha256()
    for name, value in model.state_dict().items():
        content.update(name.removeprefix("module.").encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


class Noting(HookBase):
    """Notes events and weights of its process; the second process may get a signal."""

    def __init__(self, folder: Path, *, stop_at: int = -1) -> None:
        self._folder = folder
        self._stop_at = stop_at
        self._events: list[str] = []
        self._weights: list[str] = []

    def before_step(self) -> None:
        self._events.append(f"before_step {self.trainer.iter}")
        if self.trainer.iter == self._stop_at and comm.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def after_backward(self) -> None:
        self._events.append(f"after_backward {self.trainer.iter}")

    def after_step(self) -> None:
        self._weights.append(digest(self.trainer.model))

    def after_train(self) -> None:
        content = {"events": self._events, "weights": self._weights}
        (self._folder / f"rank_{comm.get_rank()}.json").write_text(json.dumps(content))


class FileLogger(Logger):
    """Notes which process started it, and the iterations that it was given."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines: list[str] = []

    def start(self, run: RunInfo) -> None:
        self._lines.append(f"rank {comm.get_rank()} from {run.first_iteration}")

    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        self._lines.append(f"{iteration} {'total_loss' in scalars}")

    def log_images(self, images: Mapping[str, Any], *, iteration: int) -> None:
        self._lines.append(f"{iteration} {sorted(images)}")

    def finish(self) -> None:
        with self._file.open("a") as stream:
            stream.write("\n".join(self._lines) + "\n")
