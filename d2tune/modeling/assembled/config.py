"""The keys of assembled models in Detectron2's config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from detectron2.config import CfgNode

from d2tune.project import flatten

ARCHITECTURES = {
    "GeneralizedRCNN": "AssembledInstances",
    "Yolact": "AssembledInstances",
    "GapSafeSemanticSegmentor": "AssembledSemantic",
    "SemanticBridge": "AssembledSemantic",
}
"""The meta architecture of an assembled model by that of its members."""

_OWN = ("MODEL.ASSEMBLED.", "MODEL.DEVICE", "MODEL.WEIGHTS", "MODEL.LOAD_PROPOSALS")


class View(NamedTuple):
    """How a member sees an image.

    Attributes:
        member: Number of the member, from 0.
        scale: The sides of its input in multiples of the input of the assembled model, at most 1.
        flip: Whether it sees the image mirrored left to right.
    """

    member: int
    scale: float = 1.0
    flip: bool = False


def add_assembled_config(cfg: CfgNode) -> None:
    """Add ``MODEL.ASSEMBLED``, the config of ``AssembledInstances`` and ``AssembledSemantic``."""
    cfg.MODEL.ASSEMBLED = CfgNode()
    # for each member the keys of MODEL in which its config is not that of the assembled model
    cfg.MODEL.ASSEMBLED.MEMBERS = []
    # triples: the number of a member, the scale of its input, whether that is mirrored
    cfg.MODEL.ASSEMBLED.VIEWS = []


def assembled_config(members: Sequence[CfgNode], views: Sequence[View], *, size_px: tuple[int, int]) -> CfgNode:
    """The config of a model of several members and views.

    Args:
        members: Their configs, which read images in the same way; all else is taken from the first.
        views: What the predictions are fused from.
        size_px: The short side at which images are evaluated, and the most that the long side may have.

    Raises:
        KeyError: The architecture of a member cannot be assembled.
    """
    cfg = members[0].clone()
    cfg.defrost()
    kinds = {ARCHITECTURES[member.MODEL.META_ARCHITECTURE] for member in members}
    if len(kinds) > 1:
        raise KeyError("members of several tasks")
    cfg.MODEL.META_ARCHITECTURE = kinds.pop()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = size_px
    own = flatten(cfg.MODEL, "MODEL.")
    cfg.MODEL.ASSEMBLED.MEMBERS = [_differences(own, flatten(member.MODEL, "MODEL.")) for member in members]
    cfg.MODEL.ASSEMBLED.VIEWS = [list(view) for view in views]
    return cfg


def _differences(own: dict[str, Any], member: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in member.items() if not key.startswith(_OWN) and own[key] != value}


def member_configs(cfg: CfgNode) -> list[CfgNode]:
    """The configs of the members of an assembled model."""
    configs = []
    for changes in cfg.MODEL.ASSEMBLED.MEMBERS:
        member = cfg.clone()
        member.defrost()
        member.MODEL.ASSEMBLED.MEMBERS = []
        member.MODEL.ASSEMBLED.VIEWS = []
        for key, value in changes.items():
            member.merge_from_list([key, value])
        configs.append(member)
    return configs
