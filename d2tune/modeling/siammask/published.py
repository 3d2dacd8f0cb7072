"""The names of SiamMask's published weights (github.com/foolwood/SiamMask) in d2tune's model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from d2tune.errors import WeightsError

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


def check_names(given: Iterable[str], expected: Iterable[str], *, file: Path) -> None:
    """Check that renamed published weights have all tensors of the model, and no others.

    Weights of the first stage of the paper's training have no refinement, which then stays as initialized.

    Args:
        given: Names of the renamed weights.
        expected: Names of the model.
        file: The file.

    Raises:
        WeightsError: A name is left over, or missing.
    """
    own, wanted = _counted(given), _counted(expected)
    if not any(name.startswith("refine.") for name in own):
        wanted = {name for name in wanted if not name.startswith("refine.")}
    left, missing = sorted(own - wanted), sorted(wanted - own)
    if left or missing:
        what = f"{len(left)} names left over" if left else f"{len(missing)} names missing"
        raise WeightsError(
            "the file is not SiamMask's as it was published",
            file=file,
            found=f"{what}, the first is {(left or missing)[0]}",
            expected=f"the {len(wanted)} tensors of the preset",
            hint="Use the published file as it is, with the preset siammask_r50.",
        )


def _renamed(key: str) -> str:
    for pattern, name in _PREFIXES:
        key = re.sub(pattern, name, key)
    return key


def _counted(names: Iterable[str]) -> set[str]:
    """The names but those of counters that only training reads."""
    return {name for name in names if not name.endswith("num_batches_tracked")}
