"""Statistics of batch norms for weights that were averaged, on which no training has measured them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from d2tune.engine.assembly import training_batches, training_split
from d2tune.engine.optimizer import within
from d2tune.engine.plan import TrainingPlan
from d2tune.engine.process import seeded_model
from d2tune.modeling import checkpoint
from d2tune.modeling.device import speed_up
from d2tune.run_folder import RunFolder

MOST_BATCHES = 50
"""Training batches that the statistics are the mean of."""


def learning_norms(model: nn.Module, frozen: Sequence[str]) -> list[nn.modules.batchnorm._BatchNorm]:
    """The norms of a model that keep running statistics of their batches.

    Args:
        model: The model.
        frozen: Beginnings of the names of those that stay as they are.
    """
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.track_running_stats
        and not any(within(name, one) for one in frozen)
    ]


def with_measured_norms(plan: TrainingPlan, state: Mapping[str, Tensor], folder: RunFolder) -> Mapping[str, Tensor]:
    """Weights with the statistics that their norms have on the training images.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018, section 3.2.

    Args:
        plan: How the run of the weights trains.
        state: The weights; they are returned as they are where no norm learns.
        folder: The run folder, for messages.
    """
    model, _ = seeded_model(plan, None, device=plan.cfg.MODEL.DEVICE)
    checkpoint.put_weights(model, state, file=folder.best)
    norms = learning_norms(model, plan.project.train.freeze)
    if not norms:
        return state
    speed_up(model, device=plan.cfg.MODEL.DEVICE, precision=plan.precision)
    measure(model, norms, _batches(plan))
    return checkpoint.plain_state(model)


def _batches(plan: TrainingPlan) -> list[Any]:
    samples, batches = training_split(plan), training_batches(plan, start=0)
    count = min(MOST_BATCHES, max(1, -(-len(plan.splits.train.images) // plan.cfg.SOLVER.IMS_PER_BATCH)))
    keys = [batch for batch, _ in zip(batches, range(count), strict=False)]
    return [[samples[key] for key in batch] for batch in keys]


def measure(model: nn.Module, norms: Sequence[nn.modules.batchnorm._BatchNorm], batches: Sequence[Any]) -> None:
    """Set the running statistics of norms to their mean over batches.

    Args:
        model: Gets the batches, as in training, without gradients; it is in evaluation mode then.
        norms: Its norms.
        batches: Training batches.
    """
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    try:
        with torch.no_grad():
            model.train()
            kept = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
            for norm in kept:
                norm.train(any(norm is one for one in norms))
            for batch in batches:
                model(batch)
    finally:
        model.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
