import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase, TrainerBase

from d2tune.engine.hooks.keep_best import EvaluateAndKeepBest
from d2tune.engine.hooks.progress import duration
from d2tune.engine.hooks.save_last import SaveLast
from d2tune.engine.hooks.stop import StoppedError, StopOnSignal
from d2tune.engine.hooks.weight_average import WeightAverage


class Counting(TrainerBase):
    """A trainer whose step adds one to its only weight."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)
        self.completed = 0
        self.resumable = False

    def before_step(self) -> None:
        self.resumable = False
        super().before_step()

    def run_step(self) -> None:
        with torch.no_grad():
            self.model.weight += 1

    def after_step(self) -> None:
        self.completed = self.iter + 1
        try:
            super().after_step()
        except StoppedError:
            self.resumable = True
            raise
        self.resumable = True

    def checkpoint(self, completed: int) -> dict:
        return {"model": {"weight": self.model.weight.detach().clone()}, "completed": completed}


def test_moving_average_by_hand() -> None:
    trainer = Counting()
    average = WeightAverage(trainer.model, decay=0.5)
    trainer.register_hooks([average])
    trainer.train(0, 3)
    # decays are min(0.5, 1/10), min(0.5, 2/11), min(0.5, 3/12): 0.9 -> 0.9*2/11 + 2*9/11 -> 0.25*that + 0.75*3
    second = 0.9 * 2 / 11 + 2 * 9 / 11
    expected = 0.25 * second + 0.75 * 3
    with average.averaged():
        assert trainer.model.weight.item() == pytest.approx(expected, rel=1e-5)
    assert trainer.model.weight.item() == 3


def test_best_is_kept_and_survives_a_resume() -> None:
    scores = {2: 10.0, 4: 30.0, 6: 20.0, 8: 40.0}
    kept: list[tuple[int, float | None]] = []

    def hook() -> EvaluateAndKeepBest:
        return EvaluateAndKeepBest(
            period=2, evaluate=scores.__getitem__, keep=lambda done, value: kept.append((done, value))
        )

    trainer, first = Counting(), hook()
    trainer.register_hooks([first])
    trainer.train(0, 6)
    assert kept == [(2, 10.0), (4, 30.0)]
    resumed, second = Counting(), hook()
    second.load_state_dict(first.state_dict())
    resumed.register_hooks([second])
    resumed.train(6, 8)
    assert kept[2:] == [(8, 40.0)]


@pytest.mark.parametrize(
    ("period", "iterations", "expected"), [(0, 7, [7]), (3, 7, [3, 7]), (3, 9, [3, 6, 9]), (5, 12, [5, 12])]
)
def test_evaluations_come_every_period_and_last_but_not_twice_at_the_end(
    period: int, iterations: int, expected: list[int]
) -> None:
    done: list[int] = []

    def evaluate(iteration: int) -> float:
        done.append(iteration)
        return 0.0

    trainer = Counting()
    trainer.register_hooks([EvaluateAndKeepBest(period=period, evaluate=evaluate, keep=lambda *_: None)])
    trainer.train(0, iterations)
    assert done == expected


def test_without_a_score_the_latest_weights_are_kept() -> None:
    kept = []
    hook = EvaluateAndKeepBest(period=1, evaluate=lambda _: None, keep=lambda *what: kept.append(what))
    trainer = Counting()
    trainer.register_hooks([hook])
    trainer.train(0, 3)
    assert kept == [(1, None), (2, None), (3, None)]


def test_last_checkpoint_is_written_periodically_and_at_the_end(tmp_path: Path) -> None:
    trainer = Counting()
    trainer.register_hooks([SaveLast(tmp_path / "last.pth", period=3)])
    trainer.train(0, 7)
    saved = torch.load(tmp_path / "last.pth", weights_only=True)
    assert saved["completed"] == 7 and saved["model"]["weight"].item() == 7


class Failing(HookBase):
    def before_step(self) -> None:
        if self.trainer.iter == 4:
            raise RuntimeError("a step that fails half-way")


def test_a_half_finished_step_is_not_saved(tmp_path: Path) -> None:
    trainer = Counting()
    trainer.register_hooks([Failing(), SaveLast(tmp_path / "last.pth", period=3)])
    with pytest.raises(RuntimeError, match="half-way"):
        trainer.train(0, 9)
    assert torch.load(tmp_path / "last.pth", weights_only=True)["completed"] == 3


def test_a_signal_ends_training_after_the_step_under_way(tmp_path: Path) -> None:
    class Kill(HookBase):
        def before_step(self) -> None:
            if self.trainer.iter == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    trainer = Counting()
    trainer.register_hooks([Kill(), SaveLast(tmp_path / "last.pth", period=100), StopOnSignal()])
    with pytest.raises(StoppedError):
        trainer.train(0, 9)
    assert torch.load(tmp_path / "last.pth", weights_only=True)["completed"] == 5
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (75, "1 min 15 s"), (3600, "1 h 00 min"), (9000, "2 h 30 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
