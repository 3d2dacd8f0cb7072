import copy
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer, hooks
from detectron2.solver import LRMultiplier
from detectron2.utils.events import get_event_storage
from fvcore.common.param_scheduler import CosineParamScheduler
from torch import nn

from d2tune.engine.divergence import DivergenceError
from d2tune.engine.hooks.base import Hook
from d2tune.engine.hooks.keep_best import EvaluateAndKeepBest
from d2tune.engine.hooks.save_last import SaveBeforeEvaluation, SaveLast
from d2tune.engine.hooks.stop import StopOnSignal
from d2tune.engine.hooks.weight_average import WeightAverage
from d2tune.engine.trainer import StoppedAtOnceError, StoppedError, Trainer
from d2tune.errors import DataError, RunError
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
    with pytest.raises(RunError, match=r"not finite at iteration 4: loss_a is -inf \(loss_b 0\)\. Lower train"):
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


class Evaluated:
    """A trainer that evaluates and saves as a run does; its evaluations can fail, or be interrupted."""

    def __init__(self, last: Path, *, start: int = 0, act: Callable[[], None] | None = None, act_at: int = -1) -> None:
        self.model = Noisy()
        self.evaluated: list[int] = []
        self._act, self._act_at = act, act_at
        self.sums = Summing(1)
        evaluation = EvaluateAndKeepBest(period=4, evaluate=self._evaluate, keep=lambda *_: None)
        self.trainer = trainer_of(
            self.model,
            SaveBeforeEvaluation(last, is_due=evaluation.is_due),
            evaluation,
            self.sums,
            SaveLast(last, period=3),
            StopOnSignal(),
            optimizer=torch.optim.AdamW(self.model.parameters(), lr=0.05),
            start=start,
        )
        self.trainer.saved = start

    def _evaluate(self, done: int) -> float:
        if self._act is not None and done == self._act_at:
            self._act()
        self.evaluated.append(done)
        get_event_storage().put_scalar("val/score", float(done), smoothing_hint=False)
        return float(self.model.layer.weight.detach().sum())

    @classmethod
    def resumed(cls, last: Path) -> "Evaluated":
        content = checkpoint.load_training(last)
        whole = cls(last, start=content["trainer"]["iteration"])
        checkpoint.put_weights(whole.model, content["model"], file=last)
        whole.trainer.load_state_dict(content["trainer"])
        whole.trainer.saved_whole = content["trainer"].get("unfinished") is None
        return whole


def fail() -> None:
    raise OSError("no space left")


@pytest.mark.parametrize("at", [4, 10])
@pytest.mark.parametrize(
    ("act", "raised"),
    [(send(signal.SIGTERM), StoppedAtOnceError), (send(signal.SIGHUP), StoppedAtOnceError), (fail, OSError)],
)
def test_an_evaluation_that_is_interrupted_is_repeated_and_nothing_else_is(
    tmp_path: Path, at: int, act: Callable[[], None], raised: type[Exception]
) -> None:
    straight = Evaluated(tmp_path / "straight.pth")
    straight.trainer.train(0, 10)
    assert straight.evaluated == [4, 8, 10]
    broken = Evaluated(tmp_path / "last.pth", act=act, act_at=at)
    with pytest.raises(raised):
        broken.trainer.train(0, 10)
    saved = checkpoint.load_training(tmp_path / "last.pth")["trainer"]
    assert saved["iteration"] == at and saved["unfinished"]["total_loss"][1] is True
    again = Evaluated.resumed(tmp_path / "last.pth")
    again.trainer.train(at, 10)
    assert again.evaluated == [done for done in straight.evaluated if done >= at]
    assert again.sums.sum == straight.sums.sum == sum(range(10))
    contents = [checkpoint.load(tmp_path / name) for name in ("straight.pth", "last.pth")]
    assert equal(*contents) and "unfinished" not in contents[1]["trainer"]


def test_scalars_of_an_iteration_whose_evaluation_is_repeated_are_logged_with_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space"):
        Evaluated(tmp_path / "last.pth", act=fail, act_at=4).trainer.train(0, 10)
    again = Evaluated.resumed(tmp_path / "last.pth")
    seen: dict[str, int] = {}

    def look(trainer: Any) -> None:
        if trainer.iter == 3:
            seen.update({name: iteration for name, (_, iteration) in trainer.storage.latest().items()})

    again.trainer.register_hooks([hooks.CallbackHook(after_step=look)])
    again.trainer.train(4, 10)
    assert seen["total_loss"] == seen["loss_square"] == seen["val/score"] == 3


def test_a_signal_before_an_evaluation_stops_before_it(tmp_path: Path) -> None:
    whole = Evaluated(tmp_path / "last.pth")
    whole.trainer.register_hooks([hook_at("before_step", 3, send(signal.SIGTERM))])
    with pytest.raises(StoppedAtOnceError, match="4"):
        whole.trainer.train(0, 10)
    assert whole.evaluated == []
    assert checkpoint.load_training(tmp_path / "last.pth")["trainer"]["iteration"] == 4


def test_an_image_that_cannot_be_read_leaves_the_state_after_the_last_step(tmp_path: Path) -> None:
    """At iteration 5; the last periodic checkpoint is that of 3."""

    class Broken(Batches):
        def __iter__(self) -> Iterator[list[dict[str, Any]]]:
            for number, batch in enumerate(super().__iter__()):
                yield [DataError("is truncated", file="a.jpg")] if number == 5 else batch  # type: ignore[list-item]

    trainer = climbing(SaveLast(tmp_path / "last.pth", period=3))
    trainer._data_loader_iter = iter(Broken())
    with pytest.raises(DataError, match=r"a\.jpg: is truncated"):
        trainer.train(0, 9)
    content = checkpoint.load(tmp_path / "last.pth")
    assert content["trainer"]["iteration"] == 5 and content["model"]["weight"].item() == 5


def test_hooks_are_finished_when_one_of_them_fails_at_the_end() -> None:
    ended: list[str] = []
    failing = hooks.CallbackHook(after_train=lambda _: fail())
    with pytest.raises(OSError, match="no space"):
        climbing(failing, hooks.CallbackHook(after_train=lambda _: ended.append("second"))).train(0, 2)
    assert ended == ["second"]


class Steps(nn.Module):
    """Its loss in each iteration is given; the gradient of its weight is 0, and in one iteration not finite."""

    def __init__(self, losses: list[float], *, not_finite_at: int = -1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self._losses = iter(enumerate(losses))
        self._not_finite_at = not_finite_at

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        number, value = next(self._losses)
        zero = self.weight.abs().sqrt() if number == self._not_finite_at else 0 * self.weight
        return {"loss": value + zero.sum()}


@pytest.mark.parametrize(
    ("losses", "ends_at"),
    [
        ([2, 2, 70, 80, 90, 2, 2, 2], 4),  # three times more than 30 times the first loss
        ([2, 2, 70, 80, 2, 90, 91, 92], 7),  # not before three in a row
        ([2, 2, 59, 59, 59, 59, 2, 2], None),
        ([0.01, 9, 29, 29, 29, 29, 2, 2], None),  # a first loss below 1 counts as 1
        ([0.01, 9, 31, 31, 31, 31, 2, 2], 4),
        ([2, 1, 1e30, 1e30, 1e30, 1, 1, 1], 4),
    ],
)
def test_a_loss_that_explodes_ends_training(tmp_path: Path, losses: list[float], ends_at: int | None) -> None:
    trainer = trainer_of(Steps(losses), SaveLast(tmp_path / "last.pth", period=1))
    if ends_at is None:
        trainer.train(0, 8)
        assert trainer.completed == 8
        return
    with pytest.raises(DivergenceError, match=rf"training has diverged: the loss is .* at iteration {ends_at}, .*with"):
        trainer.train(0, 8)
    # what was saved is the state before the loss exploded
    assert checkpoint.load(tmp_path / "last.pth")["trainer"]["iteration"] == ends_at - 2


def test_gradients_that_are_not_finite_end_training_before_the_weights_change(tmp_path: Path) -> None:
    model = Steps([1.0] * 9, not_finite_at=4)
    trainer = trainer_of(model, SaveLast(tmp_path / "last.pth", period=3), clip_norm=5.0)
    with pytest.raises(DivergenceError, match="the gradients are not finite at iteration 4"):
        trainer.train(0, 9)
    assert torch.isfinite(model.weight).all()
    assert checkpoint.load(tmp_path / "last.pth")["trainer"]["iteration"] == 3


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    def spoil(trainer: Any) -> None:
        if trainer.iter == 4:
            trainer.model.weight.data.fill_(float("nan"))

    spoiling = hooks.CallbackHook(after_step=spoil)
    trainer = climbing(spoiling, SaveLast(tmp_path / "last.pth", period=1))
    with pytest.raises(DivergenceError, match=r"the weights are not finite after 5 iterations \(weight\)"):
        trainer.train(0, 9)
    assert checkpoint.load(tmp_path / "last.pth")["model"]["weight"].item() == 4


@pytest.mark.parametrize(
    "error",
    [
        FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged."),
        AssertionError("Box tensor contains infinite or NaN!"),
        AssertionError("Box regression deltas become infinite or NaN!"),
    ],
)
def test_what_detectron2_says_of_a_diverged_model_is_a_line(error: Exception) -> None:
    class Diverged(Climbing):
        def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            raise error

    with pytest.raises(DivergenceError, match=r"training has diverged at iteration 0: .*Lower train\.learning_rate"):
        trainer_of(Diverged()).train(0, 3)


def test_another_error_of_the_model_stays_as_it_is() -> None:
    class Wrong(Climbing):
        def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            raise ValueError("the information is missing")

    with pytest.raises(ValueError, match="information"):
        trainer_of(Wrong()).train(0, 3)


def test_float16_scales_the_loss_and_goes_on_exactly(tmp_path: Path) -> None:
    def whole(start: int = 0) -> Any:
        model = Noisy()
        trainer = Trainer(
            model,
            Batches(start),
            torch.optim.SGD(model.parameters(), lr=0.1),
            precision="float16",
            device="cpu",
            seed=SEED,
            clip_norm=1.0,
        )
        trainer.completed = start
        trainer._scaler.set_growth_interval(2)
        return trainer

    straight, first = whole(), whole()
    straight.train(0, 7)
    first.train(0, 3)
    state = first.checkpoint(3)
    assert state["trainer"]["scaler"]["scale"] == 2 * 65536.0 and state["trainer"]["scaler"]["_growth_tracker"] == 1
    checkpoint.save(tmp_path / "last.pth", state)
    content = checkpoint.load_training(tmp_path / "last.pth")
    second = whole(3)
    checkpoint.put_weights(second.model, content["model"], file=tmp_path / "last.pth")
    second.load_state_dict(content["trainer"])
    second.train(3, 7)
    assert equal(second.checkpoint(7), straight.checkpoint(7))
    plain = trainer_of(Noisy(), clip_norm=1.0)
    plain.optimizer.param_groups[0]["lr"] = 0.1
    plain.train(0, 7)
    assert torch.allclose(plain.model.layer.weight, straight.model.layer.weight, atol=1e-6)


def test_a_state_of_another_training_is_refused() -> None:
    state = climbing().state_dict()
    with pytest.raises(RunError, match=r"the checkpoint does not fit this training: .*Start a new run"):
        trainer_of(Noisy()).load_state_dict(state)
    with pytest.raises(RunError, match="does not fit this training: KeyError"):
        climbing().load_state_dict({"iteration": 3})


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
