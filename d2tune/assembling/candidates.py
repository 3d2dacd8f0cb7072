"""The models that may become the final one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch import Tensor

from d2tune.assembling.members import Member
from d2tune.modeling.assembled.config import ARCHITECTURES, View, assembled_config

SIZE_FACTORS = (1.25, 1.5)
"""Sizes of images in evaluations, in multiples of that of a run."""
SCALE = 0.8
"""The size of the smaller one of two views, in multiples of the larger one."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Weights with their config.

    Attributes:
        name: What they are, for the table.
        member: The run that the config, the data and the record are of.
        cfg: The config.
        state: The tensors by name.
    """

    name: str
    member: Member
    cfg: CfgNode
    state: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A model that may become the final one.

    Attributes:
        name: What it is, for the table.
        member: The run that its project and record are of.
        cfg: Its config.
        state: Its tensors by name.
        passes: Forward passes of a network for an image.
        weights: The networks that it is made of.
    """

    name: str
    member: Member
    cfg: CfgNode
    state: Mapping[str, Tensor]
    passes: int
    weights: tuple[str, ...]


def averaged_name(member: Member) -> str:
    """What the stochastic weight average of a run is called."""
    return f"{member.name}, weights averaged"


def single(network: Network, *, factor: float = 1.0) -> Candidate:
    """A network on whole images.

    Args:
        network: The network.
        factor: The size of images, in multiples of that of its config.
    """
    cfg = network.cfg.clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = _size(network.cfg, factor)
    return Candidate(_named(network.name, cfg, factor), network.member, cfg, network.state, 1, (network.name,))


def _named(name: str, cfg: CfgNode, factor: float) -> str:
    return name if factor == 1 else f"{name}, {cfg.INPUT.MIN_SIZE_TEST} px"


def _size(cfg: CfgNode, factor: float) -> tuple[int, int]:
    return round(cfg.INPUT.MIN_SIZE_TEST * factor), round(cfg.INPUT.MAX_SIZE_TEST * factor)


def has_sizes(cfg: CfgNode) -> bool:
    """Whether images are resized before they are predicted on."""
    return bool(cfg.INPUT.MIN_SIZE_TEST)


def can_be_fused(cfg: CfgNode) -> bool:
    """Whether predictions of the model can be fused with those of others."""
    return cfg.MODEL.META_ARCHITECTURE in ARCHITECTURES


def fused(networks: Sequence[Network], *, factor: float = 1.0, flips: bool = False, scales: bool = False) -> Candidate:
    """The predictions of several networks or views, fused.

    Args:
        networks: The networks; all else is of the first.
        factor: The size of images, in multiples of those of the networks.
        flips: Whether each image is seen mirrored as well.
        scales: Whether each image is seen `SCALE` times as large as well.
    """
    sizes = [_size(network.cfg, factor) for network in networks]
    largest = max(sizes)
    views = [
        View(number, (size[0] / largest[0] if largest[0] else 1.0) * scale, flip)
        for number, size in enumerate(sizes)
        for scale in ((1.0, SCALE) if scales else (1.0,))
        for flip in ((False, True) if flips else (False,))
    ]
    cfg = assembled_config([network.cfg for network in networks], views, size_px=largest)
    state = {
        f"members.{number}.{key}": value
        for number, network in enumerate(networks)
        for key, value in network.state.items()
    }
    name = networks[0].name if len(networks) == 1 else f"ensemble of {len(networks)} runs"
    ways = [*(["mirrored too"] if flips else []), *(["in two sizes"] if scales else [])]
    name = ", ".join([_named(name, cfg, factor), *ways])
    return Candidate(name, networks[0].member, cfg, state, len(views), tuple(network.name for network in networks))


def can_be_averaged(members: Sequence[Member]) -> bool:
    """Whether the tensors of runs have the same names, shapes and types, and their networks the same config."""
    return all(is_same_network(member, members[0]) for member in members[1:])


def is_same_network(member: Member, first: Member) -> bool:
    """Whether the tensors of a run have the names, shapes and types of another, and its network has the same config."""
    return _tensors(member.state) == _tensors(first.state) and _network(member.cfg) == _network(first.cfg)


def _tensors(state: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in state.items()}


def _network(cfg: CfgNode) -> str:
    model = cfg.MODEL.clone()
    model.defrost()
    model.DEVICE, model.WEIGHTS = "", ""
    return str(model.dump())


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the tensors of several networks; of integers the first one's."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value.clone()
        for name, value in states[0].items()
    }
