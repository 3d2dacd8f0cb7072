import copy
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer, hooks
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import CosineParamScheduler
from torch import nn

from d2tune.engine.hooks.base import Hook
from d2tune.engine.hooks.keep_best import EvaluateAndKeepBest
from d2tune.engine.hooks.save_last import SaveLast
from d2tune.engine.hooks.stop import StopOnSignal
from d2tune.engine.hooks.weight_average import WeightAverage
from d2tune.engine.trainer import StoppedError
from d2tune.errors import RunError
from d2tune.modeling import checkpoint
from tests.engine.trainers import SEED, Batches, Climbing, Noisy, climbing, trainer_of


class Reporting(Hook):
    """Adds each event to a list, with the iteration and the weight."""

    def __init__(self, name: str, events: list[tuple[str, str, int, float]]) -> None:
        self._name = name
        self._events = events

    def _add(self, event: str) -> None:
        self._events.append((self._name, event, self.trainer.iter, self.trainer.model.weight.item()))

    def before_train(self) -> None:
        self._add("before_train")

    def before_step(self) -> None:
        self._add("before_step")

    def after_backward(self) -> None:
        self._add("after_backward")

    def after_step(self) -> None:
        self._add("after_step")

    def after_train(self) -> None:
        self._add("after_train")


def test_all_events_in_the_order_of_registration() -> None:
    events: list[tuple[str, str, int, float]] = []
    climbing(Reporting("a", events), Reporting("b", events)).train(3, 5)
    assert [event for event in events if event[0] == "a"] == [
        ("a", "before_train", 3, 0),
        ("a", "before_step", 3, 0),
        ("a", "after_backward", 3, 0),
        ("a", "after_step", 3, 1),
        ("a", "before_step", 4, 1),
        ("a", "after_backward", 4, 1),
        ("a", "after_step", 4, 2),
        ("a", "after_train", 5, 2),
    ]
    assert events == [(name, *event) for _, *event in events[::2] for name in ("a", "b")]


def test_a_hook_of_detectron2_alone_needs_no_after_backward() -> None:
    steps: list[int] = []
    climbing(hooks.CallbackHook(after_step=lambda trainer: steps.append(trainer.iter))).train(0, 3)
    assert steps == [0, 1, 2]


class Norms(Hook):
    """The norm of the gradient before and after it is clipped, and what a hook made of it."""

    def __init__(self) -> None:
        self.after_backward_norms: list[float] = []
        self.after_step_norms: list[float] = []

    def _norm(self) -> float:
        gradients = [weight.grad.reshape(-1) for weight in self.trainer.model.parameters() if weight.grad is not None]
        return float(torch.cat(gradients).norm())

    def after_backward(self) -> None:
        self.after_backward_norms.append(self._norm())

    def after_step(self) -> None:
        self.after_step_norms.append(self._norm())


def test_after_backward_sees_the_gradients_before_they_are_clipped() -> None:
    norms = Norms()
    trainer_of(Noisy(), norms, clip_norm=0.01).train(0, 3)
    assert min(norms.after_backward_norms) > 0.1
    assert norms.after_step_norms == pytest.approx([0.01] * 3, rel=1e-3)


def test_what_after_backward_does_to_gradients_is_what_the_step_uses() -> None:
    class Freeze(HookBase):
        def after_backward(self) -> None:
            self.trainer.model.weight.grad.mul_(self.trainer.iter % 2)

    trainer = climbing(Freeze())
    trainer.train(0, 5)
    assert trainer.model.weight.item() == 2


def test_steps_are_those_of_a_plain_loop() -> None:
    model, reference = Noisy(), Noisy()
    trainer_of(model, optimizer=torch.optim.AdamW(model.parameters(), lr=0.1), clip_norm=0.3).train(0, 4)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=0.1)
    for iteration, batch in zip(range(4), Batches(), strict=False):
        torch.manual_seed(SEED * 1_000_003 + iteration)
        losses = reference(batch)
        optimizer.zero_grad()
        (losses["loss_square"] + losses["loss_absolute"]).backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 0.3)
        optimizer.step()
    assert torch.equal(model.layer.weight, reference.layer.weight)
    assert not torch.equal(model.layer.weight, Noisy().layer.weight)


class Summing(HookBase):
    """Sums a multiple of the iterations, and keeps the sum in checkpoints."""

    def __init__(self, factor: int) -> None:
        self._factor = factor
        self.sum = 0

    def after_step(self) -> None:
        self.sum += self._factor * self.trainer.iter

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self.sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sum = state["sum"]


class Whole:
    """A trainer with all hooks that have a state."""

    def __init__(self, last: Path, *, start: int = 0, kill_at: int = -1) -> None:
        self.model = Noisy()
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        schedule = LRMultiplier(optimizer, CosineParamScheduler(1.0, 0.0), max_iter=10)
        self.average = WeightAverage(self.model, decay=0.9)
        self.best = EvaluateAndKeepBest(period=2, evaluate=self._score, keep=lambda *_: None)
        self.sums = Summing(1), Summing(10)
        self.trainer = trainer_of(
            self.model,
            hooks.LRScheduler(optimizer, schedule),
            self.average,
            self.best,
            *self.sums,
            SaveLast(last, period=100),
            hook_at("before_step", kill_at, send(signal.SIGTERM)),
            StopOnSignal(),
            optimizer=optimizer,
            start=start,
        )

    def _score(self, iteration: int) -> float:
        return float(10 - abs(iteration - 4))

    def content(self) -> dict[str, Any]:
        return self.trainer.checkpoint(self.trainer.completed)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(*pair) for pair in zip(a, b, strict=True))
    return bool(a == b)


def resumed(last: Path, iterations: int) -> Whole:
    content = checkpoint.load(last)
    start = content["trainer"]["iteration"]
    whole = Whole(last.with_name("resumed.pth"), start=start)
    checkpoint.put_weights(whole.model, content["model"], file=last)
    whole.trainer.load_state_dict(content["trainer"])
    whole.trainer.train(start, iterations)
    return whole


def test_stopped_by_a_signal_and_resumed_is_bit_for_bit_a_run_in_one_piece(tmp_path: Path) -> None:
    straight = Whole(tmp_path / "straight.pth")
    straight.trainer.train(0, 10)
    stopped = Whole(tmp_path / "last.pth", kill_at=5)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match="6"):
        stopped.trainer.train(0, 10)
    assert signal.getsignal(signal.SIGTERM) == before
    assert checkpoint.load(tmp_path / "last.pth")["trainer"]["iteration"] == 6
    again = resumed(tmp_path / "last.pth", 10)
    assert equal(straight.content(), again.content())
    assert set(again.content()["trainer"]["hooks"]) == {
        "LRScheduler",
        "WeightAverage",
        "EvaluateAndKeepBest",
        "Summing",
        "Summing#2",
    }
    assert [one.sum for one in again.sums] == [45, 450] and again.best.best_iteration == 4
    with straight.average.averaged():
        averaged = copy.deepcopy(straight.model.state_dict())
    with again.average.averaged():
        assert equal(averaged, again.model.state_dict())
    assert not equal(averaged, straight.model.state_dict())
    # and the comparison notices one step of difference
    assert not equal(straight.content()["model"], resumed(tmp_path / "last.pth", 9).content()["model"])


def test_checkpoints_in_the_form_of_detectron2_are_resumed(tmp_path: Path) -> None:
    """As d2tune wrote them when it took the trainer's state from Detectron2."""
    earlier, straight = Whole(tmp_path / "none.pth"), Whole(tmp_path / "none.pth")
    straight.trainer.train(0, 8)
    earlier.trainer.train(0, 5)
    state = SimpleTrainer.state_dict(earlier.trainer)
    assert list(state["hooks"]).count("Summing") == 1 and "Summing#2" not in state["hooks"]
    checkpoint.save(tmp_path / "last.pth", earlier.content() | {"trainer": checkpoint.detached(state)})
    later = resumed(tmp_path / "last.pth", 8)
    assert equal(later.content()["model"], straight.content()["model"])
    assert later.sums[0].sum == sum(range(8)) and later.sums[1].sum == 10 * sum(range(5, 8))


def test_a_state_without_a_hook_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with_hook, without = climbing(Summing(1)), climbing()
    with_hook.train(0, 2)
    without.load_state_dict(with_hook.state_dict())
    assert "the state of a hook that this training does not have: Summing" in caplog.text


class Exploding(Climbing):
    """Its loss is infinite in iteration 4."""

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        factor = 0.0 if self.weight.item() == 4 else 1.0
        return {"loss_a": -self.weight.sum() / factor, "loss_b": 0 * self.weight.sum()}


def test_a_loss_that_is_not_finite_ends_training_before_the_weights_change(tmp_path: Path) -> None:
    trainer = trainer_of(Exploding(), SaveLast(tmp_path / "last.pth", period=3))
    with pytest.raises(RunError, match=r"not finite at iteration 4 \(loss_a -inf, loss_b 0\)\. Lower train\.learning"):
        trainer.train(0, 9)
    assert trainer.model.weight.item() == 4 and not trainer.resumable
    assert checkpoint.load(tmp_path / "last.pth")["trainer"]["iteration"] == 3


def hook_at(event: str, iteration: int, act: Callable[[], None]) -> HookBase:
    """A hook that acts in one event of one iteration."""
    hook = Hook()

    def maybe() -> None:
        if hook.trainer.iter == iteration:
            act()

    setattr(hook, event, maybe)
    return hook


@pytest.mark.parametrize(("event", "saved"), [("before_step", 4), ("after_backward", 3), ("after_step", 3)])
def test_an_iteration_that_fails_half_way_is_not_saved(tmp_path: Path, event: str, saved: int) -> None:
    def fail() -> None:
        raise RuntimeError("a hook that fails half-way")

    trainer = climbing(hook_at(event, 4, fail), SaveLast(tmp_path / "last.pth", period=3))
    with pytest.raises(RuntimeError, match="half-way"):
        trainer.train(0, 9)
    content = checkpoint.load(tmp_path / "last.pth")
    assert content["trainer"]["iteration"] == saved and content["model"]["weight"].item() == saved


def send(number: int, *, times: int = 1, apart_s: float = 0.0) -> Callable[[], None]:
    def kill() -> None:
        for _ in range(times):
            signal.raise_signal(number)
            time.sleep(apart_s)

    return kill


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_ends_training_after_the_current_step(tmp_path: Path, number: int, times: int) -> None:
    """Also one that comes twice at once, as `timeout` sends it."""
    before = signal.getsignal(number)
    hook = hook_at("before_step", 4, send(number, times=times))
    trainer = climbing(hook, SaveLast(tmp_path / "last.pth", period=100), StopOnSignal())
    with pytest.raises(StoppedError):
        trainer.train(0, 9)
    saved = checkpoint.load(tmp_path / "last.pth")
    assert saved["trainer"]["iteration"] == 5 and saved["model"]["weight"].item() == 5
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_training_at_once(tmp_path: Path) -> None:
    hook = hook_at("after_backward", 4, send(signal.SIGINT, times=2, apart_s=0.3))
    trainer = climbing(hook, SaveLast(tmp_path / "last.pth", period=100), StopOnSignal())
    with pytest.raises(KeyboardInterrupt):
        trainer.train(0, 9)
    assert trainer.model.weight.item() == 4 and not (tmp_path / "last.pth").exists()


def test_a_signal_in_the_last_step_changes_nothing() -> None:
    trainer = climbing(hook_at("before_step", 4, send(signal.SIGTERM)), StopOnSignal())
    trainer.train(0, 5)
    assert trainer.resumable and trainer.completed == 5


def test_a_checkpoint_of_a_wrapped_model_has_the_names_of_the_model() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = Climbing()

        def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            losses: dict[str, torch.Tensor] = self.module(batch)
            return losses

    trainer = trainer_of(Wrapper())
    trainer.train(0, 2)
    assert trainer.checkpoint(2)["model"] == {"weight": torch.tensor([2.0])}
