"""Averages of weights along a training, and the statistics of norms for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from d2tune.assembling.norms import learning_norms, measure
from d2tune.assembling.swa import MeanOfWeights
from tests.engine.trainers import Climbing, trainer_of


def test_the_mean_of_a_training_and_of_one_that_goes_on() -> None:
    hook = MeanOfWeights(first=2)
    trainer = trainer_of(Climbing(), hook)
    trainer.train(0, 6)
    # the weight is 1 after the first step; those after the steps 3 to 6 are averaged
    assert hook.state_dict()["count"] == 4
    assert hook.state_dict()["mean"]["weight"].item() == pytest.approx((3 + 4 + 5 + 6) / 4)

    first = MeanOfWeights(first=2)
    begun = trainer_of(Climbing(), first)
    begun.train(0, 4)
    state, weights = begun.checkpoint(4)["trainer"], begun.model.state_dict()
    second, model = MeanOfWeights(first=2), Climbing()
    model.load_state_dict(weights)
    later = trainer_of(model, second)
    later.load_state_dict(state)
    later.train(4, 6)
    assert torch.equal(second.state_dict()["mean"]["weight"], hook.state_dict()["mean"]["weight"])


class Normed(nn.Module):
    """Two norms, of which one is frozen by its name, and a dropout that is off while they are measured."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.BatchNorm1d(2)
        self.head = nn.BatchNorm1d(2)

    def forward(self, batch: list[dict[str, Any]]) -> torch.Tensor:
        x = torch.stack([sample["x"] for sample in batch])
        y: torch.Tensor = self.head(self.stem(x))
        return y


def test_statistics_are_the_mean_over_batches() -> None:
    model = Normed()
    model.stem.running_mean = torch.tensor([1.0, 2.0])
    model.head.running_mean = torch.tensor([100.0, 100.0])
    norms = learning_norms(model, ["stem"])
    assert norms == [model.head]
    batches = [
        [{"x": torch.tensor(row)} for row in rows] for rows in ([[1.0, 2.0], [3.0, 2.0]], [[5.0, 6.0], [9.0, 8.0]])
    ]
    measure(model, norms, batches)
    scale = (1 + model.stem.eps) ** -0.5
    # means of the batches are 2, 2 and 7, 7; unbiased variances 2, 0 and 8, 2; the stem subtracts 1 and 2
    assert model.head.running_mean is not None and model.head.running_var is not None
    assert model.head.running_mean.tolist() == pytest.approx([3.5 * scale, 2.5 * scale])
    assert model.head.running_var.tolist() == pytest.approx([5.0 * scale**2, 1.0 * scale**2])
    assert model.stem.running_mean.tolist() == [1.0, 2.0]
    assert model.head.momentum == 0.1 and not model.training and not model.head.training
