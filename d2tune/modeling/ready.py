"""A model that is ready to predict, from a config and weights that replace every tensor of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from detectron2.config import CfgNode
from torch import Tensor, nn

from d2tune.modeling.build import build_model
from d2tune.modeling.device import choose_device, speed_up
from d2tune.modeling.precision import choose_precision, is_native

_RANDOM = (
    "uniform_",
    "normal_",
    "trunc_normal_",
    "xavier_uniform_",
    "xavier_normal_",
    "kaiming_uniform_",
    "kaiming_normal_",
    "orthogonal_",
)
"""The functions of ``torch.nn.init`` that draw random numbers."""


def ready_model(cfg: CfgNode, *, recorded: str, load: Callable[[nn.Module], None]) -> nn.Module:
    """Build a model in evaluation mode on this machine's device; its config is set to that device and frozen.

    Args:
        cfg: The config of the run.
        recorded: The precision of the run, which is taken on the kind of device that it was trained on.
        load: Replaces all tensors of the model, which are not initialized before.
    """
    device = choose_device()
    goes_on = device == cfg.MODEL.DEVICE and is_native(recorded, device)
    precision = choose_precision(recorded if goes_on else "auto", device)
    cfg.MODEL.DEVICE = device
    cfg.freeze()
    with random_init_off():
        model, _ = build_model(cfg)
    load(model)
    speed_up(model, device=device, precision=precision)
    return model.eval()


@contextmanager
def random_init_off() -> Iterator[None]:
    """Let modules be built without drawing random numbers for tensors that are replaced at once.

    What is drawn by other means than the functions of ``torch.nn.init`` is still drawn.
    """
    with ExitStack() as stack:
        for name in _RANDOM:
            stack.enter_context(mock.patch.object(nn.init, name, _unchanged))
        yield


def _unchanged(tensor: Tensor, *arguments: Any, **options: Any) -> Tensor:
    return tensor
