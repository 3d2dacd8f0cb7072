"""The training loop: Detectron2's, with precision, seeds by iteration, and checkpoints that go on exactly."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn

from d2tune.engine.hooks import StoppedError, detached
from d2tune.errors import RunError
from d2tune.modeling import checkpoint
from d2tune.modeling.device import Precision


class Trainer(SimpleTrainer):
    """Trains ``model``; everything drawn in a step follows from the seed and the iteration.

    Args:
        model: A Detectron2 model, possibly wrapped for distributed training.
        data_loader: Gives batches in Detectron2's format, beginning at the iteration that training begins at.
        optimizer: As built by ``build_optimizer``.
        precision: ``bfloat16`` runs the whole forward pass under autocast on CUDA.
        device: ``cpu`` or ``cuda``.
        seed: Seed of the run.
        clip_norm: Largest norm of the gradient of the whole model; None leaves it alone.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict[str, Any]]],
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision,
        device: str,
        seed: int,
        clip_norm: float | None,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self._autocast = precision == "bfloat16" and device == "cuda"
        self._device = device
        self._seed = seed
        self._clip_norm = clip_norm
        self.completed = 0
        self.resumable = False

    def run_step(self) -> None:
        """One step: forward, backward, update."""
        self.resumable = False
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time_s = time.perf_counter() - start
        torch.manual_seed(self._seed * 1_000_003 + self.iter)
        with torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._autocast):
            losses = self.model(data)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        try:
            self._write_metrics(losses, data_time_s)
        except FloatingPointError:
            parts = ", ".join(f"{name} {value.detach():.3g}" for name, value in losses.items())
            raise RunError(
                f"the loss is no longer a number at iteration {self.iter} ({parts})",
                hint="Lower train.learning_rate, by a factor of 3 to begin with.",
            ) from None
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        self.optimizer.step()

    def after_step(self) -> None:
        """Hooks; only when all of them have ended well can training go on from here."""
        self.completed = self.iter + 1
        try:
            super().after_step()
        except StoppedError:
            self.resumable = True
            raise
        self.resumable = True

    def checkpoint(self, completed: int) -> dict[str, Any]:
        """Everything needed to go on after ``completed`` iterations."""
        model = self.model.module if hasattr(self.model, "module") else self.model
        return {
            "model": checkpoint.plain_state(model),
            "trainer": detached(self.state_dict()) | {"iteration": completed},
        }


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW, as ``SOLVER.OPTIMIZER`` says, with gradients clipped as configured.

    Norms and biases have no weight decay under AdamW.

    Raises:
        RunError: ``SOLVER.OPTIMIZER`` names neither.
    """
    kind = cfg.SOLVER.OPTIMIZER.upper()
    if kind not in ("SGD", "ADAMW"):
        raise RunError("unknown optimizer", place="SOLVER.OPTIMIZER", found=kind, expected="SGD or ADAMW")
    adaptive = kind == "ADAMW"
    parameters = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        weight_decay_norm=0.0 if adaptive else cfg.SOLVER.WEIGHT_DECAY_NORM,
        weight_decay_bias=0.0 if adaptive else cfg.SOLVER.WEIGHT_DECAY_BIAS,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
    )

    def wrap(optimizer: Any) -> Any:
        return optimizer if clip_norm(cfg) is not None else maybe_add_gradient_clipping(cfg, optimizer)

    if adaptive:
        adamw: torch.optim.Optimizer = wrap(torch.optim.AdamW)(parameters, lr=cfg.SOLVER.BASE_LR)
        return adamw
    sgd: torch.optim.Optimizer = wrap(torch.optim.SGD)(
        parameters, lr=cfg.SOLVER.BASE_LR, momentum=cfg.SOLVER.MOMENTUM, nesterov=cfg.SOLVER.NESTEROV
    )
    return sgd


def clip_norm(cfg: CfgNode) -> float | None:
    """The largest gradient norm over the whole model, where ``CLIP_TYPE`` is ``full_model``."""
    clip = cfg.SOLVER.CLIP_GRADIENTS
    return float(clip.CLIP_VALUE) if clip.ENABLED and clip.CLIP_TYPE == "full_model" else None
