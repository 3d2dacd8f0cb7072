"""The optimizer of a training, with learning rates by the names of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping, reduce_param_groups
from torch import nn

from d2tune.errors import ProjectError, RunError


def build_optimizer(
    cfg: CfgNode, model: nn.Module, *, factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW, as ``SOLVER.OPTIMIZER`` says, with gradients clipped as configured.

    Norms and biases have no weight decay under AdamW, which updates all parameters by one operator on a processor.

    Args:
        cfg: The run's config.
        model: Its frozen parameters are not optimized.
        factors: Multiples of the learning rate by the beginning of the names of parameters, of which the longest
            counts; see `within`.

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
    if factors:
        parameters = _with_factors(parameters, model, factors)

    kind_of: Any = torch.optim.AdamW if adaptive else torch.optim.SGD
    if clip_norm(cfg) is None:
        kind_of = maybe_add_gradient_clipping(cfg, kind_of)
    if not adaptive:
        sgd: torch.optim.Optimizer = kind_of(
            parameters, lr=cfg.SOLVER.BASE_LR, momentum=cfg.SOLVER.MOMENTUM, nesterov=cfg.SOLVER.NESTEROV
        )
        return sgd
    is_fused = True if all(value.is_cpu for group in parameters for value in group["params"]) else None
    adamw: torch.optim.Optimizer = kind_of(parameters, lr=cfg.SOLVER.BASE_LR, fused=is_fused)
    adamw.register_load_state_dict_pre_hook(partial(_with_fused, is_fused=is_fused))
    if is_fused:
        adamw.register_load_state_dict_post_hook(_align_state)
        adamw.register_step_pre_hook(_align_gradients)
    return adamw


def _with_fused(_: torch.optim.Optimizer, state: dict[str, Any], *, is_fused: bool | None) -> dict[str, Any]:
    """The state of an optimizer that may have been built for another device or by an earlier version."""
    return state | {"param_groups": [group | {"fused": is_fused} for group in state["param_groups"]]}


def _align_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Give gradients the strides of their parameters, which the fused operator takes for granted."""
    for group in optimizer.param_groups:
        for value in group["params"]:
            if value.grad is not None:
                value.grad = _aligned(value.grad, value)


def _align_state(optimizer: torch.optim.Optimizer) -> None:
    """Give the averages of gradients the strides of their parameters, see `_align_gradients`."""
    for value, state in optimizer.state.items():
        state |= {name: _aligned(one, value) for name, one in state.items() if one.shape == value.shape}


def _aligned(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The tensor with the strides of another one, in a copy where it has others."""
    same = tensor.stride() == like.stride() or all(
        a == b for a, b, size in zip(tensor.stride(), like.stride(), like.shape, strict=True) if size > 1
    )
    return tensor if same else torch.empty_like(like).copy_(tensor)


def clip_norm(cfg: CfgNode) -> float | None:
    """The largest gradient norm over the whole model, where ``CLIP_TYPE`` is ``full_model``."""
    clip = cfg.SOLVER.CLIP_GRADIENTS
    return float(clip.CLIP_VALUE) if clip.ENABLED and clip.CLIP_TYPE == "full_model" else None


def freeze(model: nn.Module, beginnings: Sequence[str]) -> None:
    """Leave parameters as they are from now on; see also `norms_within`.

    Args:
        model: Gets parameters without gradients.
        beginnings: The beginnings of their names; see `within`.

    Raises:
        ProjectError: No parameter has such a name, or all parameters do.
    """
    for beginning in beginnings:
        frozen = [value for name, value in model.named_parameters() if within(name, beginning)]
        if not frozen:
            raise _no_parameter(model, beginning, place="train.freeze")
        for value in frozen:
            value.requires_grad_(False)
    if beginnings and not any(value.requires_grad for value in model.parameters()):
        raise ProjectError(
            "all parameters are frozen, so that nothing would be trained",
            place="train.freeze",
            found=", ".join(beginnings),
            hint="Freeze fewer of them.",
        )


def norms_within(model: nn.Module, beginnings: Sequence[str]) -> list[nn.Module]:
    """The norms of frozen parts: in evaluation mode their running statistics do not change either."""
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase) and any(within(name, one) for one in beginnings)
    ]


def check_factors(model: nn.Module, factors: Iterable[str]) -> None:
    """Refuse factors of learning rates that have no effect.

    Raises:
        ProjectError: No trained parameter has a name that begins so.
    """
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    for beginning in factors:
        if not any(within(name, beginning) for name in names):
            raise _no_parameter(model, beginning, place="train.learning_rate_factors")


def within(name: str, beginning: str) -> bool:
    """Whether a parameter or module is ``beginning`` or inside it, as ``backbone.stem`` is in ``backbone``."""
    return name == beginning or name.startswith(f"{beginning}.")


def _with_factors(groups: list[dict[str, Any]], model: nn.Module, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """The groups of parameters, with each learning rate multiplied by the factor of the parameter."""
    names = {value: name for name, value in model.named_parameters() if value.requires_grad}
    single = []
    for group in groups:
        for value in group["params"]:
            fitting = [beginning for beginning in factors if within(names[value], beginning)]
            factor = factors[max(fitting, key=len)] if fitting else 1.0
            single.append({**group, "params": [value], "lr": group["lr"] * factor})
    merged: list[dict[str, Any]] = reduce_param_groups(single)
    return merged


def _no_parameter(model: nn.Module, beginning: str, *, place: str) -> ProjectError:
    return ProjectError(
        "no parameter that is trained has a name that begins so",
        place=place,
        found=repr(beginning),
        expected=f"{', '.join(_components(model))}, or the beginning of a longer name",
    )


def _components(model: nn.Module) -> list[str]:
    """The names of the parts of a model that have trained parameters, of the first two levels."""
    names = [name.split(".") for name, value in model.named_parameters() if value.requires_grad]
    return list(dict.fromkeys(".".join(name[: 2 if len(name) > 2 else 1]) for name in names))
