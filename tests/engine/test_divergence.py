"""A step whose loss or gradients are not finite: which term, which images, and stopping or skipping."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from d2tune.engine.divergence import MOST_SKIPPED, DivergenceError
from d2tune.engine.hooks.save_last import SaveLast
from d2tune.modeling import checkpoint
from tests.engine.trainers import trainer_of


class Sums(nn.Module):
    """The weight grows by the mean of the samples in each step; a norm counts what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.norm = nn.BatchNorm1d(1, affine=False)

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        x = torch.stack([sample["x"] for sample in batch])
        self.norm(torch.cat([x, x + 1])[:, None])
        if any(sample.get("raises") for sample in batch):
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")
        bad = (0 * self.weight * x.sum()).sum()
        return {"loss_good": -(self.weight * x.nan_to_num(0).mean()).sum(), "loss_bad": bad}


class Given:
    """Two samples an iteration; in some iterations one of them gives a loss that is not finite, or an error."""

    def __init__(self, wrong: dict[int, str], *, start: int = 0) -> None:
        self._wrong = wrong
        self._start = start

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        iteration = self._start
        while True:
            how = self._wrong.get(iteration)
            value = float("nan") if how == "nan" else 1.0
            bad = {"x": torch.tensor(value), "file_name": f"/data/bad_{iteration}.jpg", "raises": how == "raises"}
            yield [{"x": torch.tensor(1.0), "file_name": f"/data/good_{iteration}.jpg"}, bad]
            iteration += 1


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "nan",
            "training has diverged: the loss is not finite at iteration 3: loss_bad is nan (loss_good -1.5), "
            "on /data/bad_3.jpg. Lower train.learning_rate, for example by a factor of 3.",
        ),
        (
            "raises",
            "training has diverged at iteration 3: Predicted boxes or scores contain Inf/NaN. Training has diverged, "
            "on /data/bad_3.jpg. Lower train.learning_rate, for example by a factor of 3.",
        ),
    ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_term_and_the_image_are_named(how: str, message: str, accumulate: int) -> None:
    trainer = trainer_of(Sums(), batches=Given({3: how}), accumulate=accumulate)
    with pytest.raises(DivergenceError) as caught:
        trainer.train(0, 9)
    assert caught.value.one_line() == str(caught.value) == message
    assert trainer.model.weight.item() == 3


def test_images_that_fail_only_together_are_all_named() -> None:
    class Together(Sums):
        def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            losses = super().forward(batch)
            return losses | {"loss_bad": losses["loss_bad"] + (float("inf") if len(batch) > 1 else 0.0)}

    with pytest.raises(DivergenceError, match=r"loss_bad is inf .*, in a batch of /data/good_0\.jpg, /data/bad_0\.jpg"):
        trainer_of(Together(), batches=Given({})).train(0, 2)


def test_a_loss_that_explodes_is_named_with_its_largest_term_and_its_images() -> None:
    class Explodes(Sums):
        def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            high = 100.0 if self.weight.item() >= 2 else 1.0
            return {**super().forward(batch), "loss_mask": high + 0 * self.weight.sum()}

    with pytest.raises(
        DivergenceError,
        match=r"iteration 4, 1 with the initial weights; its largest term is loss_mask, 100, in a batch of /data/good",
    ):
        trainer_of(Explodes(), batches=Given({}), skips=True).train(0, 9)


@pytest.mark.parametrize("how", ["nan", "raises"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_skipped_step_changes_nothing_and_is_reported(
    how: str, precision: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Sums()
    trainer = trainer_of(
        model,
        SaveLast(tmp_path / "last.pth", period=4),
        batches=Given({2: how, 3: how, 7: how}),
        skips=True,
        clip_norm=5.0,
        precision=precision,
    )
    trainer.train(0, 10)
    assert model.weight.item() == pytest.approx(7)
    assert model.norm.num_batches_tracked == 7 and torch.isfinite(model.norm.running_mean)
    lines = [record.getMessage() for record in caplog.records if "is skipped" in record.getMessage()]
    assert [line.rpartition(", on ")[2] for line in lines] == [f"/data/bad_{number}.jpg" for number in (2, 3, 7)]
    assert trainer.completed == 10
    scaler = checkpoint.load(tmp_path / "last.pth")["trainer"].get("scaler")
    # the loss was scaled less after each step whose gradients were not finite
    assert scaler is None or scaler["scale"] == 65536.0 * (0.5**3 if how == "nan" else 1)


def test_too_many_skipped_steps_in_a_row_end_training_also_behind_a_resume(tmp_path: Path) -> None:
    wrong = dict.fromkeys([1, *range(4, 40)], "nan")
    first = trainer_of(Sums(), SaveLast(tmp_path / "last.pth", period=8), batches=Given(wrong), skips=True)
    first.train(0, 8)
    content = checkpoint.load_training(tmp_path / "last.pth")
    assert content["trainer"]["skipped"] == 4
    again = trainer_of(Sums(), batches=Given(wrong, start=8), skips=True, start=8)
    checkpoint.put_weights(again.model, content["model"], file=tmp_path / "last.pth")
    again.load_state_dict(content["trainer"])
    with pytest.raises(DivergenceError) as caught:
        again.train(8, 30)
    assert again.iter == 3 + MOST_SKIPPED and again.model.weight.item() == 3
    line = caught.value.one_line()
    assert line.startswith(
        "10 steps in a row were skipped; of the last one: training has diverged: the loss is not finite"
    )
    assert "on /data/bad_13.jpg" in line


def test_gradients_that_are_not_finite_are_skipped_too() -> None:
    class Root(nn.Module):
        """The gradient of a root at 0 is not finite, its value is."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            if str(batch[1]["file_name"]).endswith("_2.jpg"):
                return {"loss": (self.weight.detach() * 0 + 0 * self.weight).abs().sqrt().sum() * 1.0}
            return {"loss": -self.weight.sum()}

    model = Root()
    trainer = trainer_of(model, batches=Given({}), skips=True, clip_norm=5.0)
    trainer.train(0, 6)
    assert model.weight.item() == 5


def test_weights_that_are_not_finite_end_training_where_steps_are_skipped() -> None:
    class Spoiled(Sums):
        def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            if self.weight.item() >= 3:
                self.weight.data.fill_(float("nan"))
            return super().forward(batch)

    with pytest.raises(DivergenceError, match="the weights are not finite"):
        trainer_of(Spoiled(), batches=Given({}), skips=True).train(0, 9)
