import io
import time
from pathlib import Path

import pytest
from detectron2.engine import hooks
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from d2tune.engine.hooks.keep_best import EvaluateAndKeepBest
from d2tune.engine.hooks.progress import PrintProgress
from d2tune.engine.hooks.save_last import SaveLast
from d2tune.engine.hooks.weight_average import WeightAverage
from d2tune.modeling import checkpoint
from d2tune.text import duration
from tests.engine.trainers import Climbing, climbing, trainer_of


def test_moving_average_by_hand() -> None:
    model = Climbing()
    average = WeightAverage(model, decay=0.5)
    trainer_of(model, average).train(0, 3)
    # decays are min(0.5, 1/10), min(0.5, 2/11), min(0.5, 3/12): 0.9 -> 0.9*2/11 + 2*9/11 -> 0.25*that + 0.75*3
    second = 0.9 * 2 / 11 + 2 * 9 / 11
    expected = 0.25 * second + 0.75 * 3
    with average.averaged():
        assert model.weight.item() == pytest.approx(expected, rel=1e-5)
    assert model.weight.item() == 3


def test_whole_numbers_of_a_model_are_not_averaged() -> None:
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, decay=0.5)
    assert "num_batches_tracked" in model.state_dict() and "num_batches_tracked" not in average.state_dict()


def test_best_is_kept_and_survives_a_resume() -> None:
    scores = {2: 10.0, 4: 30.0, 6: 20.0, 8: 40.0}
    kept: list[tuple[int, float | None]] = []

    def hook() -> EvaluateAndKeepBest:
        return EvaluateAndKeepBest(
            period=2, evaluate=scores.__getitem__, keep=lambda done, value: kept.append((done, value))
        )

    first = climbing(hook())
    first.train(0, 6)
    assert kept == [(2, 10.0), (4, 30.0)]
    resumed = climbing(hook())
    resumed.load_state_dict(first.checkpoint(6)["trainer"])
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

    climbing(EvaluateAndKeepBest(period=period, evaluate=evaluate, keep=lambda *_: None)).train(0, iterations)
    assert done == expected


def test_without_a_score_the_latest_weights_are_kept() -> None:
    kept = []
    hook = EvaluateAndKeepBest(period=1, evaluate=lambda _: None, keep=lambda *what: kept.append(what))
    climbing(hook).train(0, 3)
    assert kept == [(1, None), (2, None), (3, None)]


def test_last_checkpoint_is_written_periodically_and_at_the_end(tmp_path: Path) -> None:
    seen: list[int] = []

    def look(_: object) -> None:
        if (tmp_path / "last.pth").exists():
            seen.append(checkpoint.load(tmp_path / "last.pth")["trainer"]["iteration"])

    climbing(SaveLast(tmp_path / "last.pth", period=3), hooks.CallbackHook(after_step=look)).train(0, 7)
    assert seen == [3, 3, 3, 6, 7]
    saved = checkpoint.load(tmp_path / "last.pth")
    assert saved["trainer"]["iteration"] == 7 and saved["model"]["weight"].item() == 7


def test_progress_has_a_line_each_period_and_one_for_the_last_iteration() -> None:
    model, stream = Climbing(), io.StringIO()
    optimizer = SGD(model.parameters(), lr=1.0)
    schedule = hooks.LRScheduler(optimizer, LambdaLR(optimizer, lambda done: 1 - done / 20))
    trainer = trainer_of(model, schedule, PrintProgress(period=4, stream=stream), optimizer=optimizer)
    trainer.train(0, 10)
    # weights before the steps are sums of 1, 0.95, 0.9, ...: the loss is minus the median of 0, 1, 1.95, 2.85, ...
    assert [line.split("  ")[1:] for line in stream.getvalue().splitlines()] == [
        [" 4/10", "loss -1.475", "lr 0.85"],
        [" 8/10", "loss -3.275", "lr 0.65"],
        ["10/10", "loss -4.100", "lr 0.55"],
    ]


def test_progress_with_times() -> None:
    model, stream = Climbing(), io.StringIO()
    optimizer = SGD(model.parameters(), lr=1.0)
    schedule = hooks.LRScheduler(optimizer, LambdaLR(optimizer, lambda _: 1.0))
    progress = PrintProgress(period=5, stream=stream)
    trainer_of(model, hooks.IterationTimer(), schedule, progress, optimizer=optimizer).train(0, 10)
    assert [line.endswith("  0.00 s/it  0 s left") for line in stream.getvalue().splitlines()] == [True, True]


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (3, {0: 4, 2: 4, 3: 3, 6: 2, 8: 2, 9: 1, 11: 1, 12: 0}),  # evaluations come after 3, 6, 9 and 12
        (5, {0: 2, 4: 2, 5: 1, 10: 1, 11: 1, 12: 0}),  # after 5 and 12: 10 is too close to the end
        (0, {0: 1, 11: 1, 12: 0}),
    ],
)
def test_the_evaluations_that_are_left_are_counted(period: int, expected: dict[int, int]) -> None:
    hook = EvaluateAndKeepBest(period=period, evaluate=lambda _: 0.0, keep=lambda *_: None, expected_s=10.0)
    trainer = climbing(hook)
    trainer.max_iter = 12
    assert {done: hook.seconds_left(done) / 10 for done in expected} == expected


def test_the_time_left_includes_evaluations_as_long_as_the_last_one() -> None:
    model, stream = Climbing(), io.StringIO()
    optimizer = SGD(model.parameters(), lr=1.0)
    schedule = hooks.LRScheduler(optimizer, LambdaLR(optimizer, lambda _: 1.0))

    def evaluate(done: int) -> float:
        time.sleep(0.6)
        return 0.0

    evaluation = EvaluateAndKeepBest(period=2, evaluate=evaluate, keep=lambda *_: None, expected_s=60.0)
    progress = PrintProgress(period=1, stream=stream, evaluations_s=evaluation.seconds_left)
    trainer_of(model, hooks.IterationTimer(), schedule, evaluation, progress, optimizer=optimizer).train(0, 6)
    left = [line.split("  ")[-1] for line in stream.getvalue().splitlines() if line.endswith("left")]
    # behind the third step evaluations of 0.6 s come after 4 and 6, behind the fourth and fifth one comes after 6
    assert left == ["1 s left", "1 s left", "1 s left", "0 s left"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (75, "1 min 15 s"), (3600, "1 h 00 min"), (9000, "2 h 30 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
