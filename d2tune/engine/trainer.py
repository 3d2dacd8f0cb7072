"""The training loop: Detectron2's, with precision, seeds by iteration, and checkpoints that go on exactly."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from torch import nn

from d2tune.errors import RunError
from d2tune.modeling import checkpoint
from d2tune.modeling.device import Precision

logger = logging.getLogger(__name__)


class StoppedError(Exception):
    """Training was stopped on request; ``args[0]`` iterations are completed. A hook raises it after a step."""


class Trainer(SimpleTrainer):  # type: ignore[misc]  # Detectron2 has no types
    """Trains ``model``; all random numbers of a step follow from the seed and the iteration.

    Hooks have Detectron2's five events, each in the order in which they were registered: ``before_train``; then in
    each iteration ``before_step``, ``after_backward`` and ``after_step``; at the end ``after_train``.

    Args:
        model: A Detectron2 model, possibly wrapped for distributed training.
        data_loader: Gives batches in Detectron2's format, beginning at the iteration that training begins at.
        optimizer: As built by ``build_optimizer``.
        precision: ``bfloat16`` runs the whole forward pass under autocast on CUDA.
        device: ``cpu`` or ``cuda``.
        seed: Seed of the run.
        clip_norm: Largest norm of the gradient of the whole model; None does not clip it.

    Attributes:
        completed: Iterations completed, those before a resume included.
        resumable: Whether all that belongs to these iterations is done, so that training can be resumed from here.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    iter: int
    max_iter: int
    _hooks: list[HookBase]

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
        """One step: forward, backward, update.

        Raises:
            RunError: The loss is not finite.
        """
        self.resumable = False
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time_s = time.perf_counter() - start
        torch.manual_seed(self._seed * 1_000_003 + self.iter)
        with torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._autocast):
            losses = self.model(data)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.after_backward()
        try:
            self._write_metrics(losses, data_time_s)
        except FloatingPointError:
            values = ", ".join(f"{name} {value.detach():.3g}" for name, value in losses.items())
            raise RunError(
                f"the loss is not finite at iteration {self.iter} ({values})",
                hint="Lower train.learning_rate, for example by a factor of 3.",
            ) from None
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        self.optimizer.step()

    def after_backward(self) -> None:
        """Hooks between the backward pass and the update; Detectron2 0.6 has no such event."""
        for hook in self._hooks:
            if hasattr(hook, "after_backward"):
                hook.after_backward()

    def after_step(self) -> None:
        """Hooks; training can be resumed from here only when all of them succeed."""
        self.completed = self.iter + 1
        try:
            super().after_step()
        except StoppedError:
            self.resumable = True
            raise
        self.resumable = True

    def state_dict(self) -> dict[str, Any]:
        """The iteration, the optimizer's state, and that of each hook that has one.

        Hooks are named by their class, the second one of a class ``Name#2`` and so on. Detectron2 itself keeps only
        the state of the first.
        """
        states = {name: hook.state_dict() for name, hook in self._named_hooks()}
        return {
            "iteration": self.iter,
            "optimizer": self.optimizer.state_dict(),
            "hooks": {name: state for name, state in states.items() if state},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned; a hook without a state in it begins anew."""
        self.iter = state["iteration"]
        self.optimizer.load_state_dict(state["optimizer"])
        hooks = dict(self._named_hooks())
        for name, hook_state in state.get("hooks", {}).items():
            if name in hooks:
                hooks[name].load_state_dict(hook_state)
            elif comm.is_main_process():
                logger.warning("the checkpoint has the state of a hook that this training does not have: %s", name)

    def _named_hooks(self) -> Iterator[tuple[str, HookBase]]:
        count: Counter[str] = Counter()
        for hook in self._hooks:
            name = type(hook).__qualname__
            count[name] += 1
            yield name if count[name] == 1 else f"{name}#{count[name]}", hook

    def checkpoint(self, completed: int) -> dict[str, Any]:
        """Everything needed to resume after ``completed`` iterations."""
        model: nn.Module = getattr(self.model, "module", self.model)
        return {
            "model": checkpoint.plain_state(model),
            "trainer": checkpoint.detached(self.state_dict()) | {"iteration": completed},
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
