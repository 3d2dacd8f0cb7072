"""From a published file to a model that predicts."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from d2tune.errors import WeightsError
from d2tune.modeling.bridge.meta_arch import SemanticBridge
from d2tune.modeling.bridge.networks import architecture_named, build_network
from d2tune.modeling.bridge.weights import fit_bridge
from d2tune.modeling.config import preset_config
from d2tune.modeling.device import choose_device, speed_up
from d2tune.modeling.loaded import LoadedModel
from d2tune.modeling.published.catalog import PublishedNetwork
from d2tune.modeling.ready import random_init_off
from d2tune.modeling.weights import StateDict, UnreachableWeightsError, WeightsFile, find, read_state_dict
from d2tune.project.schema import Data, Project
from d2tune.text import counted

FOLDER_VARIABLE = "D2TUNE_PUBLISHED_WEIGHTS"
"""The environment variable with the folder that published files are looked for in."""

_DROPPED = "aux_classifier."
"""The second head of torchvision's networks, which only training uses."""

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.pth$")


def load_published(
    network: PublishedNetwork, *, folder: str | Path | None = None, file: str | Path | None = None
) -> LoadedModel:
    """Load a published network.

    Args:
        network: The network.
        folder: See `find_published`.
        file: See `find_published`.

    Raises:
        WeightsError: The file cannot be had, is damaged, or is of another network.
    """
    weights = find_published(network, folder=folder, file=file)
    state = read_state_dict(weights.path)
    device = choose_device()
    with random_init_off():
        model = _bridge(network)
    if network.library == "torchvision":
        _load_all(model.network, state, network=network, path=weights.path)
    else:
        _fit_all(model, state, network=network, path=weights.path)
    model.to(device).eval().requires_grad_(False)
    speed_up(model, device=device, precision="float32")
    cfg = _config(network, device)
    return LoadedModel(
        source=weights.path,
        project=_project(network, weights.path.parent),
        record={"classes": list(network.class_names), "project": network.name, "input": {}, "data": {}},
        cfg=cfg,
        model=model,
        thresholds={},
        weights=weights.path,
        weights_sha256=weights.sha256,
        config_sha256="",
        project_sha256="",
        files=(weights.path,),
    )


def find_published(
    network: PublishedNetwork, *, folder: str | Path | None = None, file: str | Path | None = None
) -> WeightsFile:
    """The file of a published network on this machine.

    It is looked for in ``folder``, in the folder that ``D2TUNE_PUBLISHED_WEIGHTS`` names, and where torchvision keeps
    its downloads, and else downloaded once. Its size and hash are checked, as far as they are known.

    Args:
        network: The network.
        folder: A folder that may have the file.
        file: The file itself, which may have any name.

    Raises:
        WeightsError: There is no such file, it cannot be downloaded, or it is not the published one.
    """
    if file is not None:
        return find(str(file))
    for place in _places(folder):
        path = place / network.file_name
        if path.is_file():
            weights = find(str(path))
            _check(network, weights)
            return weights
    if network.url is None:
        raise WeightsError(
            "its file is not published for download",
            place=network.name,
            expected=f"{network.file_name} in the folder of {FOLDER_VARIABLE} or of weights",
        )
    try:
        weights = find(network.url)
    except UnreachableWeightsError as error:
        hint = f"Put {network.file_name} into a folder and name it, or set {FOLDER_VARIABLE} to it."
        raise UnreachableWeightsError(error.message, file=error.file, hint=hint) from error
    _check(network, weights)
    return weights


def has_published(network: PublishedNetwork, *, folder: str | Path | None = None) -> bool:
    """Whether the file of a published network is in one of the folders, so that it is not downloaded."""
    return any((place / network.file_name).is_file() for place in _places(folder))


def _places(folder: str | Path | None) -> list[Path]:
    """The folders that may have published files, the given one first."""
    given = [Path(folder)] if folder is not None else []
    if given and not given[0].is_dir():
        raise WeightsError("the folder of weights does not exist", file=given[0])
    named = os.environ.get(FOLDER_VARIABLE)
    return [*given, *([Path(named)] if named else []), Path(torch.hub.get_dir()) / "checkpoints"]


def _check(network: PublishedNetwork, weights: WeightsFile) -> None:
    """Compare size and hash with what is published.

    Raises:
        WeightsError: One differs.
    """
    size_bytes = weights.path.stat().st_size
    if network.size_bytes is not None and size_bytes != network.size_bytes:
        raise WeightsError(
            "is not the published file, or was cut off",
            file=weights.path,
            found=f"{size_bytes:,} bytes",
            expected=f"{network.size_bytes:,} bytes",
            hint="Download it again.",
        )
    hit = _HASH_IN_NAME.search(network.file_name)
    if hit and not weights.sha256.startswith(hit[1]):
        raise WeightsError(
            "is not the published file, or is damaged",
            file=weights.path,
            found=f"sha256 {weights.sha256[:16]}",
            expected=f"sha256 {hit[1]}...",
            hint="Download it again.",
        )


class _Logits(nn.Module):
    """A network of torchvision that gives its logits ``(N, K, h, w)`` alone."""

    def __init__(self, name: str, classes: int) -> None:
        super().__init__()
        import torchvision

        self.inner = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=classes, aux_loss=False
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)["out"]
        return logits


def _bridge(network: PublishedNetwork) -> SemanticBridge:
    """The network with random weights, as a Detectron2 model of RGB images of any size.

    Torchvision's own class is built for torchvision's files: the dilation of its DeepLabV3 on MobileNetV3 is not that
    of the preset ``torchvision_deeplab_v3``, and the names of the tensors do not show it.
    """
    classes = len(network.class_names)
    is_torchvision = network.library == "torchvision"
    if is_torchvision:
        body: nn.Module = _Logits(network.architecture, classes)
    else:
        body = build_network(architecture=network.architecture, encoder=network.encoder, in_channels=3, classes=classes)
    bridge: SemanticBridge = SemanticBridge(
        network=body,
        loss=nn.Identity(),  # it only predicts
        size_divisibility=1 if is_torchvision else architecture_named(network.architecture).divisibility_px,
        pixel_mean=network.pixel_mean,
        pixel_std=network.pixel_std,
    )
    return bridge


def _load_all(body: nn.Module, state: StateDict, *, network: PublishedNetwork, path: Path) -> None:
    """Load every tensor of one of torchvision's files.

    Raises:
        WeightsError: A tensor is missing, left over, or of another shape.
    """
    prefix = "inner."
    given = {f"{prefix}{key}": value for key, value in state.items() if not key.startswith(_DROPPED)}
    target = body.state_dict()
    missing = [key for key in target if key not in given and not key.endswith("num_batches_tracked")]
    extra = [key for key in given if key not in target]
    reshaped = [key for key in given if key in target and given[key].shape != target[key].shape]
    for keys, what in ((missing, "not in the file"), (extra, "left over"), (reshaped, "of another shape")):
        if keys:
            raise WeightsError(
                f"{counted(len(keys), 'tensor')} of {network.name} {'is' if len(keys) == 1 else 'are'} {what}",
                file=path,
                place=keys[0].removeprefix(prefix),
                hint=f"It must be the file of {network.name}.",
            )
    body.load_state_dict(given, strict=False)


def _fit_all(model: nn.Module, state: StateDict, *, network: PublishedNetwork, path: Path) -> None:
    """Load every tensor of the file of another library, under the names of the network here.

    Raises:
        WeightsError: A tensor is missing, left over, or of another shape.
    """
    report = fit_bridge(model, state, file=path)
    if report.loaded < report.total or report.unused:
        raise WeightsError(
            f"is not the file of {network.name}",
            file=path,
            found=f"{report.loaded} of {report.total} tensors, {report.unused} left over",
        )


def _config(network: PublishedNetwork, device: str) -> CfgNode:
    """What predicting needs of a config: sizes, channels and device."""
    cfg: Any = preset_config("torchvision_fcn")
    cfg.MODEL.DEVICE = device
    cfg.MODEL.BRIDGE.NUM_CLASSES = len(network.class_names)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = list(network.pixel_mean), list(network.pixel_std)
    cfg.INPUT.FORMAT = network.channel_order
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = network.short_side_px, network.max_side_px
    cfg.TEST.WINDOW_PX = 0
    cfg.freeze()
    return cfg


def _project(network: PublishedNetwork, root: Path) -> Project:
    """A project with what predicting needs: the task and the classes."""
    data = Data(root=root, background=network.background)
    return Project(name=network.name, task="semantic", data=data, classes=network.class_names)


def weights_bytes(model: Any, file: Path) -> int:
    """The memory that the weights of a model take; the size of the file where the model is not a module."""
    if not isinstance(model, nn.Module):
        return file.stat().st_size
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
