"""The real ``Trainer`` on models of a few weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import nn

from d2tune.engine.trainer import Trainer
from d2tune.modeling.precision import Precision

SEED = 7


class Climbing(nn.Module):
    """Its only weight begins at 0 and, with plain SGD and a learning rate of 1, grows by 1 in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {"loss": -self.weight.sum()}


class Noisy(nn.Module):
    """Two losses of a layer with dropout, so that a step depends on random numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 5)

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        x = torch.stack([sample["x"] for sample in batch])
        y = nn.functional.dropout(self.layer(x), 0.5)
        return {"loss_square": y.square().mean(), "loss_absolute": 0.5 * y.abs().mean()}


class Batches:
    """Four samples for each iteration, which follow from its number."""

    def __init__(self, start: int = 0) -> None:
        self._start = start

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        iteration = self._start
        while True:
            generator = torch.Generator().manual_seed(iteration)
            yield [{"x": torch.randn(6, generator=generator)} for _ in range(4)]
            iteration += 1


def trainer_of(
    model: nn.Module,
    *hooks: HookBase,
    optimizer: torch.optim.Optimizer | None = None,
    start: int = 0,
    clip_norm: float | None = None,
    accumulate: int = 1,
    skips: bool = False,
    precision: Precision = "float32",
    batches: Iterable[list[dict[str, Any]]] | None = None,
) -> Trainer:
    """A trainer on the CPU with these hooks and, by default, plain SGD with a learning rate of 1."""
    trainer = Trainer(
        model,
        Batches(start) if batches is None else batches,
        optimizer or torch.optim.SGD(model.parameters(), lr=1.0),
        precision=precision,
        device="cpu",
        seed=SEED,
        clip_norm=clip_norm,
        accumulate=accumulate,
        skips=skips,
    )
    trainer.completed = start
    trainer.register_hooks(list(hooks))
    return trainer


def climbing(*hooks: HookBase) -> Trainer:
    """A trainer whose model's weight is the number of steps."""
    return trainer_of(Climbing(), *hooks)
