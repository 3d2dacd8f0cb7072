"""A hash of the weights of a method, so that a tracking goes on only with frames of the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor


def identity_of(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of tensors and their names, in any order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
