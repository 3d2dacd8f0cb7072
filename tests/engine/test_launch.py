"""From a project to a run: the plan, one process and several, hooks and loggers of the caller."""

from __future__ import annotations

import json
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import get_event_storage
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

import d2tune
from d2tune.engine import launch, memory
from d2tune.engine.cost import measure_cost
from d2tune.engine.memory import peak_process_bytes
from d2tune.engine.plan import make_plan
from d2tune.engine.process import seeded_model
from d2tune.errors import RunError
from d2tune.loggers import wandb_file
from d2tune.project import load_project
from tests.engine.test_tasks import raster_project
from tests.engine.two_processes import FileLogger, Noting, launch_on_cpu
from tests.loggers.read_back import finished_wandb
from tests.shared_files import SHARED

MOBILENET = SHARED / "weights" / "mobilenet_v2_imagenet.pth"

PRETRAINED = """\
task: semantic
data: {{root: {root}, sample: null, background: scene}}
classes: [scene, balloon]
model: {{preset: semantic_fpn_mobilenet_v2}}
weights: {weights}
train: {{iterations: 4, batch_size: 2, image_size: 64, eval_every: 0, precision: float32}}
detectron2: {{MODEL.DEVICE: cpu, SOLVER.WARMUP_ITERS: 1}}
"""


@pytest.fixture(scope="module", autouse=True)
def quick_evaluations() -> None:
    """Evaluations with their plots, some of which loggers get."""


def pretrained_project(folder: Path, root: Path, weights: str = str(MOBILENET)) -> Path:
    path = folder / "pretrained.yaml"
    path.write_text(PRETRAINED.format(root=root, weights=weights), encoding="utf-8")
    return path


def test_the_plan_does_not_grow_with_the_weights(balloon_sample: Path, tmp_path: Path) -> None:
    sizes_bytes = []
    for weights in (str(MOBILENET), "scratch"):
        project = pretrained_project(tmp_path, balloon_sample, weights)
        plan, state = make_plan(load_project(project), num_gpus=0, sample=False)
        assert (state is None) == (weights == "scratch")
        sizes_bytes.append(len(ForkingPickler.dumps(plan)))
    assert MOBILENET.stat().st_size > 10_000_000
    assert sizes_bytes[0] < 100_000 and abs(sizes_bytes[0] - sizes_bytes[1]) < 1_000


@pytest.mark.slow
def test_two_processes_start_equal_stop_together_and_are_resumed(
    balloon_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "launch", launch_on_cpu)
    monkeypatch.setattr(launch, "check_gpus", lambda num_gpus: None)
    project, log = pretrained_project(tmp_path, balloon_sample), tmp_path / "log.txt"

    def train(*, stop_at: int, resume: bool) -> list[dict[str, Any]]:
        extensions: dict[str, Any] = {"hooks": [Noting(tmp_path, stop_at=stop_at)], "loggers": [FileLogger(log)]}
        try:
            d2tune.train(project, output_dir=tmp_path / "run", num_gpus=2, resume=resume, wandb=True, **extensions)
        except SystemExit as end:
            assert end.code == 130 and stop_at >= 0
        return [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1)]

    stopped = train(stop_at=1, resume=False)
    first = [json.loads((tmp_path / f"first_{rank}.json").read_text()) for rank in (0, 1)]
    assert first[0] == first[1] and first[0][1], "both read the pretrained weights"
    assert first[0][0] != stopped[0]["weights"][0]
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.pth", weights_only=True)["trainer"]["iteration"] == 2
    resumed = train(stop_at=-1, resume=True)
    for before, after in ((stopped, 0), (resumed, 2)):
        assert before[0] == before[1], "both processes have the same weights after each step"
        events = [f"{event} {after + step}" for step in (0, 1) for event in ("before_step", "after_backward")]
        assert before[0]["events"] == events and len(set(before[0]["weights"])) == 2
    expected = ["rank 0 from 0", "0 True", "1 True", "rank 0 from 2", "2 True", "3 True", "4 False"]
    *noted, images = log.read_text().splitlines()
    charts = ["evaluation/classes", "evaluation/confusion"]
    assert noted == expected and images == f"4 {['contact_sheet', *charts, 'predictions']}"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [0, 1, 2, 3]
    first_start, second_start = (finished_wandb(path) for path in wandb_file.files_of(tmp_path / "run"))
    assert first_start.run_id == second_start.run_id, "one process of two logs, under one id"
    assert [step for start in (first_start, second_start) for step, _ in start.history] == [1, 2, 3, 4, 5]
    assert (tmp_path / "run" / "evaluation.json").is_file()


def test_hooks_that_cannot_be_sent_to_processes_are_refused(
    balloon_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "check_gpus", lambda num_gpus: None)
    project = pretrained_project(tmp_path, balloon_sample, "scratch")
    with pytest.raises(RunError, match=r"cannot be pickled.*Use classes and functions of a module"):
        d2tune.train(project, output_dir=tmp_path / "run", num_gpus=2, hooks=lambda trainer: [])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ProcessExitedException("", 1, 2, exit_code=-9, signal_name="SIGKILL"), "was ended by SIGKILL"),
        (ProcessExitedException("", 1, 2, exit_code=3), "was ended with status 3"),
        (ProcessRaisedException("\n\n-- Process 1\nValueError: no\n", 1, 2), "failed: ValueError: no"),
    ],
)
def test_a_process_that_fails_is_reported(
    error: Exception, message: str, balloon_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(launch, "check_gpus", lambda num_gpus: None)
    monkeypatch.setattr(launch, "launch", fail)
    project = pretrained_project(tmp_path, balloon_sample, "scratch")
    with pytest.raises(RunError, match=rf"log\.txt: a training process {message}"):
        d2tune.train(project, output_dir=tmp_path / "run", num_gpus=2)


class Gradients(HookBase):
    """Puts the norm of the gradient into the storage, counts steps, and looks for the scores of the evaluation."""

    def __init__(self) -> None:
        self.steps = 0
        self.scored: list[int] = []

    def after_backward(self) -> None:
        norms = [weight.grad.norm() for weight in self.trainer.model.parameters() if weight.grad is not None]
        get_event_storage().put_scalar("gradient_norm", float(torch.stack(norms).norm()), smoothing_hint=False)

    def after_step(self) -> None:
        self.steps += 1
        if get_event_storage().latest().get("val/semantic/mIoU", (0, -1))[1] == self.trainer.iter:
            self.scored.append(self.trainer.iter)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


@pytest.mark.slow
def test_hooks_and_loggers_of_the_caller(tmp_path: Path) -> None:
    project = raster_project(tmp_path, iterations=4)
    hook = Gradients()
    overrides = ["train.eval_every=2"]
    run = d2tune.train(project, output_dir=tmp_path / "run", overrides=overrides, hooks=[hook]).run
    assert hook.steps == 4 and hook.scored == [1, 3]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3] and all(row["gradient_norm"] > 0 for row in rows)
    last = torch.load(run / "checkpoints" / "last.pth", weights_only=True)
    assert last["trainer"]["hooks"]["Gradients"] == {"steps": 4}
    made: list[Gradients] = []

    def make(trainer: Any) -> list[HookBase]:
        assert trainer.completed == 4
        made.append(Gradients())
        return list(made)

    log = FileLogger(tmp_path / "log.txt")
    overrides.append("train.iterations=6")
    d2tune.train(project, output_dir=run, overrides=overrides, resume=True, hooks=make, loggers=[log])
    assert made[0].steps == 6 and hook.steps == 4
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[:-1] == ["rank 0 from 4", "4 True", "5 True", "6 False"]
    assert lines[-1] == "6 ['contact_sheet', 'evaluation/classes', 'evaluation/confusion']"


def test_a_measured_step_changes_neither_weights_nor_random_numbers(tmp_path: Path) -> None:
    plan, _ = make_plan(load_project(raster_project(tmp_path)), num_gpus=0, sample=False)
    model, _ = seeded_model(plan, None, device="cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    image = torch.rand(5, 32, 32)
    torch.manual_seed(3)
    batch = [{"image": image, "sem_seg": torch.zeros(32, 32, dtype=torch.long), "height": 32, "width": 32}] * 2
    measured = measure_cost(model, batch, plan.cfg, "float32")
    assert torch.rand(1) == expected
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert 0 < measured.step_s < 60 and 50e6 < measured.memory_bytes < 1e12


def test_peak_memory_with_and_without_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    here = peak_process_bytes()
    monkeypatch.setitem(sys.modules, "resource", None)
    now = peak_process_bytes()
    assert 50e6 < now <= here * 1.2
    windows = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=1, peak_wset=2))
    monkeypatch.setattr(memory.psutil, "Process", lambda: windows)
    assert peak_process_bytes() == 2
