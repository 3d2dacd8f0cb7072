"""The names of SiamMask's published weights (github.com/foolwood/SiamMask) in d2tune's model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from d2tune.modeling.weights import check_names

_SIGN = "rpn_model.cls.conv_kernel.0.weight"
"""A name that all published weights of SiamMask have."""

_PREFIXES = (
    (r"^features\.features\.", "backbone.bottom_up.body."),
    (r"^features\.downsample\.downsample\.", "backbone.adjust."),
    (r"^rpn_model\.(cls|loc)\.", r"heads.\1."),
    (r"^mask_model\.mask\.", "heads.mask."),
    (r"^refine_model\.", "refine."),
)


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of published weights."""
    return _SIGN in state


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights by d2tune's names; names that the published model does not have stay.

    Args:
        state: The tensors of a published file, without the prefix ``module.``.
    """
    return {_renamed(key): value for key, value in state.items()}


def check_published(state: Mapping[str, Tensor], expected: Iterable[str], *, file: Path) -> None:
    """Check that a published file has all tensors of the model, and no others.

    Weights of the first stage of the paper's training have no refinement, which then stays as initialized.

    Args:
        state: The tensors of the file.
        expected: Names of the model.
        file: The file.

    Raises:
        WeightsError: A name is left over, or missing.
    """
    names = {key: _renamed(key) for key in state}
    is_refined = any(name.startswith("refine.") for name in names.values())
    wanted = [name for name in expected if is_refined or not name.startswith("refine.")]
    hint = "Use the published file as it is, with the preset siammask_r50."
    check_names(names, wanted, file=file, network="SiamMask", hint=hint)


def _renamed(key: str) -> str:
    for pattern, name in _PREFIXES:
        key = re.sub(pattern, name, key)
    return key
