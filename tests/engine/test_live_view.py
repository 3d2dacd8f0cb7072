"""The live view of a training: its lines from numbers, and a real training in a terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from detectron2.utils.events import EventStorage

from d2tune.engine.hooks.keep_best import EvaluateAndKeepBest
from d2tune.engine.hooks.live_view import LiveView
from d2tune.engine.live.curve import curve
from d2tune.engine.live.frame import Progress, Scored, frame
from d2tune.metrics.metric import Metric
from tests.engine.trainers import climbing
from tests.terminals import Terminal


def test_a_curve_has_the_logarithms_of_the_means() -> None:
    # means of two: 1, 2, 4, 8; their logarithms are a third of the span apart, in eighths 0, 2.67, 5.33 and 8
    assert curve([0.5, 1.5, 1, 3, 4, 4, 9, 7], 4) == "▁▃▆█"
    assert curve([0.5, 1.5, 1, 3, 4, 4, 9, 7], 4, blocks=False) == "_-*@"
    assert curve([3.0, 3.0, 3.0], 8) == "▁▁▁", "not more letters than values"
    assert curve([float("nan"), -1.0, 0.0, float("inf")], 8) == "" == curve([1.0], 0)


def progress(**changes: object) -> Progress:
    values: dict[str, object] = {
        "project": "balloon",
        "metric_name": "mask AP",
        "total": 200,
        "batch_size": 4,
        "done": 50,
        "losses": array("d", [4.0, 3.0, 2.0, 1.0]),
        "terms": {"loss_cls": 0.25, "loss_mask": 0.5},
        "loss": 1.25,
        "rate": 2.83e-4,
        "step_s": 0.5,
        "data_s": 0.01,
        "left_s": 135.0,
        "elapsed_s": 42.0,
        "evaluations_left": 2,
        "next_evaluation": 80,
        "last": Scored(Metric(36.768, None, 25.85, 52.32), 40),
        "best": Scored(Metric(38.0), 20),
        "memory_bytes": (1_900_000_000, 4_100_000_000),
        "now": "training",
    }
    return Progress(**(values | changes))  # type: ignore[arg-type]


def lines(shown: Progress, columns: int, *, blocks: bool = True) -> list[str]:
    return [line.plain.rstrip() for line in frame(shown, columns, blocks=blocks)]


def test_the_lines_of_a_wide_terminal() -> None:
    assert lines(progress(), 110) == [
        "balloon  " + "━" * 10 + "─" * 30 + " 50/200 25 %  2 min 15 s left with 2 evaluations",
        "loss     1.250   █▇▅▁   cls 0.250   mask 0.500",
        "mask AP  36.8 (25.9 to 52.3) after 40   best 38.0 after 20   next after 80",
        "speed    0.50 s/it   8.0 images/s   process memory 1.9 GB of 4.1 GB   lr 0.00028   waiting for images 2 %",
        "now      training   42 s so far",
    ]


def test_narrow_terminals_drop_the_last_fields_and_never_wrap() -> None:
    for columns in range(1, 130):
        for shown in (progress(), progress(last=None, best=None, step_s=None, left_s=None, loss=None)):
            made = lines(shown, columns)
            assert len(made) == 5 and all(len(line) < max(columns, 2) for line in made), columns
    assert lines(progress(), 40) == [
        "balloon  50/200 25 %  2 min 15 s left",
        "loss     1.250   █▇▅▁   cls 0.250",
        "mask AP  36.8 (25.9 to 52.3) after 40",
        "speed    0.50 s/it   8.0 images/s",
        "now      training   42 s so far",
    ]


def test_before_the_first_evaluation_and_without_unicode() -> None:
    shown = progress(last=None, best=None, losses=array("d", [2.0, 1.0]), project="a\x1b[31mvery long name")
    made = lines(shown, 80, blocks=False)
    assert made[0].startswith(r"a\x1b[3~ ###") and "....... 50/200" in made[0]
    assert made[1].startswith("loss     1.250   @_   cls")
    assert made[2] == "mask AP  evaluation after 80 iterations"
    assert all(line.isascii() for line in made)
    assert lines(progress(last=None, next_evaluation=None), 80)[2] == "mask AP  no evaluation follows"
    undefined = Scored(Metric(None, "no object in val"), 40)
    assert lines(progress(last=undefined, best=None), 80)[2] == "mask AP  - (no object in val) after 40   next after 80"


def test_the_numbers_are_read_while_the_training_adds_names() -> None:
    evaluations = EvaluateAndKeepBest(period=0, evaluate=lambda _: 0.0, keep=lambda *_: None)
    view = LiveView(
        project="p",
        metric_name="AP",
        batch_size=2,
        evaluations=evaluations,
        last_metric=lambda: None,
        memory=lambda: None,
        doing=lambda: "",
    )
    trainer = climbing(view, evaluations)
    trainer.max_iter = 4
    with EventStorage(0) as storage:
        trainer.storage = storage
        ended = threading.Event()

        def add() -> None:
            for number in count():
                storage.put_scalar(f"new_{number}", 1.0)
                if ended.is_set():
                    break

        adding = threading.Thread(target=add)
        adding.start()
        try:
            for _ in range(30):
                view._look()
        finally:
            ended.set()
            adding.join()


TRAINING = """
import logging, sys, time
from d2tune.modeling.light_imports import light_imports
with light_imports():
    from detectron2.engine import hooks
    from torch.optim import SGD
    from torch.optim.lr_scheduler import LambdaLR
    from tqdm import tqdm
    from d2tune.engine.hooks.keep_best import EvaluateAndKeepBest
    from d2tune.engine.hooks.live_view import LiveView
    from d2tune.engine.hooks.stop import StopOnSignal
    from d2tune.engine.trainer import StoppedError
    from d2tune.logs import guarded_streams, set_up_terminal
    from d2tune.metrics.metric import Metric
    from tests.engine.trainers import Noisy, trainer_of

def evaluate(done):
    for _ in tqdm(range(4), desc="evaluating", leave=False, mininterval=0):
        time.sleep(0.5 if done == 10 else 0.05)  # so that a busy machine sees it
    print(f"  {done} iterations: AP 40.0")
    return float(done)

def slow(trainer):
    if trainer.iter == 2:
        logging.getLogger("d2tune.x").warning("a warning while it trains")
    time.sleep(0.02 if trainer.iter < 19 else 0.3)

with guarded_streams():
    set_up_terminal()
    model = Noisy()
    optimizer = SGD(model.parameters(), lr=0.01)
    schedule = hooks.LRScheduler(optimizer, LambdaLR(optimizer, lambda _: 1.0))
    evaluation = EvaluateAndKeepBest(period=10, evaluate=evaluate, keep=lambda *_: None, expected_s=0.2)
    view = LiveView(
        project="noisy", metric_name="AP", batch_size=4, evaluations=evaluation,
        last_metric=lambda: (Metric(40.0, None, 30.0, 50.0), view.trainer.completed),
        memory=lambda: (5_000_000, 10_000_000, "process"), doing=lambda: "training", refresh_s=0.2,
    )
    trainer = trainer_of(
        model, hooks.IterationTimer(), schedule, evaluation, hooks.CallbackHook(after_step=slow), view, StopOnSignal(),
        optimizer=optimizer,
    )
    try:
        trainer.train(0, int(sys.argv[1]))
    except StoppedError as stop:
        print(f"Stopped after {stop.args[0]} iterations")
"""


def until(terminal: Terminal, what: str) -> list[str]:
    """The lines of the terminal when one of them has a text for the first time."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < 60:
        terminal.read(0.2)
        if any(what in line for line in terminal.lines):
            return terminal.lines
    raise AssertionError(f"{what!r} did not come: {terminal.lines}")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    one = Terminal(columns=100, rows=24)
    yield one
    one.close()


@pytest.fixture
def training(terminal: Terminal) -> Iterator[subprocess.Popen[bytes]]:
    root = Path(__file__).parents[2]
    environment = os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(root), "XTERM_VERSION": "XTerm(390)"}
    command = [sys.executable, "-c", TRAINING, "100000"]
    process = subprocess.Popen(command, stdout=terminal.stream, stderr=terminal.stream, env=environment, cwd=root)
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_training_in_a_terminal_that_is_resized_and_stopped(
    terminal: Terminal, training: subprocess.Popen[bytes]
) -> None:
    shown = until(terminal, "a warning while it trains")
    assert shown[0] == "a warning while it trains"
    shown = until(terminal, "evaluating:")
    now = next(line for line in shown if line.startswith("now      evaluating:"))
    assert re.match(r"now      evaluating: \d+% [0-4]/4 \[", now), "the numbers of the bar without the bar"
    shown = until(terminal, " 10/100000 ")
    assert "  10 iterations: AP 40.0" not in shown, "the ten steps count while they are evaluated"
    shown = until(terminal, "40.0 (30.0 to 50.0) after 20")
    assert shown[:3] == ["a warning while it trains", "  10 iterations: AP 40.0", "  20 iterations: AP 40.0"]
    view = shown[3:]
    assert len(view) == 5 and view[0].startswith("noisy    ") and "/100000 0 %" in view[0] and "left with" in view[0]
    assert view[1].startswith("loss     ") and "square 0." in view[1] and "absolute 0." in view[1]
    assert view[2].startswith("AP       40.0 (30.0 to 50.0) after 20   best 20.0 after 20   next after 30")
    assert "process memory 5.0 MB of 10 MB" in view[3]
    assert b"\x1b[?25l" not in terminal.raw and b"\x1b[?1049h" not in terminal.raw
    terminal.resize(50, 24)
    shown = until(terminal, "30 iterations")
    assert max(map(len, shown[-5:])) < 50 and shown[-5].startswith("noisy    ")
    training.send_signal(signal.SIGINT)
    shown = until(terminal, "Stopped after")
    assert training.wait(30) == 0
    shown = terminal.lines
    assert shown[-2].startswith("now      stopped after ") and shown[-1].startswith("Stopped after ")
    assert sum(line.startswith("noisy  ") for line in shown) == 1, "no frame is left behind"
    assert (terminal.screen.cursor.y, terminal.screen.cursor.x) == (len(shown), 0)
