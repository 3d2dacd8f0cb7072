"""Pretrained weights of the bridge's networks: their sources, and their fit to a model."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from d2tune.modeling.bridge.networks import architecture_named
from d2tune.modeling.weights import LoadReport, StateDict, check_names, load_fitting, published_source, stage_names

ENCODER_ATTRIBUTES = ("encoder", "backbone", "features")
"""Attributes of networks with the encoder."""


def automatic_source(architecture: str, encoder: str | None = None) -> str | None:
    """The source of ImageNet weights of an architecture's encoder for ``weights: auto``.

    Torchvision's files are preferred, because their names contain their hash. Encoders that begin with ``tu-`` take
    timm's weights, all others those of segmentation-models-pytorch.

    Args:
        architecture: A name of ``networks.ARCHITECTURES``.
        encoder: Name of the encoder; None takes the default.

    Returns:
        A URL; None if no weights are published.

    Raises:
        ProjectError: The architecture is unknown.
    """
    name = encoder or architecture_named(architecture).encoder
    if name is None:
        return None
    if name.startswith("tu-"):
        return published_source("timm", name.removeprefix("tu-"))
    in_torchvision = name.startswith(("resnet", "resnext", "mobilenet", "shufflenet", "vgg"))
    if in_torchvision and (url := published_source("torchvision", name)):
        return url
    from segmentation_models_pytorch.encoders import encoders

    settings = encoders.get(name, {}).get("pretrained_settings", {}).get("imagenet")
    if settings is None:
        return None
    return f"https://huggingface.co/{settings['repo_id']}/resolve/{settings['revision']}/model.safetensors"


def fit_bridge(model: nn.Module, state: StateDict, *, file: Path) -> LoadReport:
    """Load all tensors that fit by name and shape into a ``SemanticBridge``; the others keep their initial values.

    A pretrained first convolution of 3 channels is adapted to the N channels of the model: each gets the sum over red,
    green and blue divided by N, so that an image with equal channels gives the same response.

    Args:
        model: A ``SemanticBridge``.
        state: Tensors of a whole bridge model, of its network, or of its encoder with the names of torchvision, timm or
            segmentation-models-pytorch.
        file: The file of the tensors, for errors.

    Returns:
        The report, with the layers that do not fit because of the number of classes or channels.

    Raises:
        WeightsError: Less than half of the encoder's convolutions (without an encoder, of the network's) fit, so the
            weights are of another architecture; or a whole LightNet++ has a name that is left over or missing.
    """
    target = model.state_dict()
    encoder = next((name for name in ENCODER_ATTRIBUTES if hasattr(model.network, name)), None)
    trunk = [
        key
        for key, value in target.items()
        if value.ndim > 1 and key.startswith(f"network.{encoder}." if encoder else "")
    ]
    if _is_lightnet(state, whole=True):
        names = {key: f"network.{_lightnet_encoder_name(key)}" for key in state}
        hint = "Use the published file as it is, with the preset lightnet_shufflenet_v2."
        check_names(names, target, file=file, network="LightNet++", hint=hint)
    given = _best_names(state, target, encoder)
    remark = _widen_first(given, target, trunk) or _lightnet_remark(model, state)
    return load_fitting(
        model,
        given,
        trunk=trunk,
        trunk_name="network" if encoder is None else "encoder",
        sample=next(iter(state)),
        file=file,
        component_of=_component,
        remarks={_component(trunk[0]): remark} if remark else {},
    )


def _best_names(state: StateDict, target: StateDict, encoder: str | None) -> StateDict:
    """The tensors with the names of the model, by the naming scheme for which most names match."""
    plain = {f"network.{key.removeprefix('network.')}": value for key, value in state.items()}
    candidates = [plain]
    if encoder is not None:
        prefix = f"network.{encoder}."
        torchvision_names = {_torchvision_mobilenet_name(key): value for key, value in state.items()}
        lightnet_names = {_lightnet_encoder_name(key): value for key, value in state.items()}
        candidates.append({f"network.{key}": value for key, value in lightnet_names.items()})
        for tensors in (state, torchvision_names):
            candidates.append({f"{prefix}{key}": value for key, value in tensors.items()})
            candidates.append({f"{prefix}{key.removeprefix('features.')}": value for key, value in tensors.items()})
        for inner in (prefix, f"{prefix}model."):
            inside = [key for key in target if key.startswith(inner)]
            candidates.append(stage_names(state, inside, prefix=inner))
    return max(candidates, key=lambda candidate: sum(key in target for key in candidate))


_STAGE_STARTS = (1, 2, 4, 7, 11, 14, 17)
"""Index of the first of torchvision's features in each of timm's stages of MobileNetV2."""


def _torchvision_mobilenet_name(key: str) -> str:
    """Torchvision's name of a tensor of timm's MobileNetV2, such as ``blocks.1.0.conv_dw.weight``."""
    key = re.sub(r"^conv_stem\.", "features.0.0.", key)
    key = re.sub(r"^bn1\.", "features.0.1.", key)
    key = re.sub(r"^conv_head\.", "features.18.0.", key)
    key = re.sub(r"^bn2\.", "features.18.1.", key)
    hit = re.match(r"^blocks\.([0-6])\.(\d+)\.(\w+)\.(.+)$", key)
    if hit is None:
        return key
    stage, block, layer, rest = int(hit[1]), int(hit[2]), hit[3], hit[4]
    if stage == 0:
        layers = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
    else:
        layers = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}
    return f"features.{_STAGE_STARTS[stage] + block}.conv.{layers.get(layer, layer)}.{rest}"


def _lightnet_encoder_name(key: str) -> str:
    """D2tune's name of a tensor of LightNet++, whose encoder has torchvision's layers under other names."""
    key = key.removeprefix("module.")
    key = re.sub(r"^mod1\.(conv|norm)\.", lambda hit: f"features.conv1.{int(hit[1] == 'norm')}.", key)
    return re.sub(r"^mod([234])\.block(\d+)\.", lambda hit: f"features.stage{hit[1]}.{int(hit[2]) - 1}.", key)


_LIGHTNET_BGR_MEAN = (76.4, 86.8, 78.3)
"""Of blue, green and red, in the evaluation of the published weights."""


def _is_lightnet(state: StateDict, *, whole: bool = False) -> bool:
    """Whether tensors have the names of LightNet++, of its encoder or of all of it."""
    starts = {key.removeprefix("module.").partition(".")[0] for key in state}
    return "mod1" in starts and (not whole or "score" in starts)


def _lightnet_remark(model: nn.Module, state: StateDict) -> str | None:
    """What images the published weights of LightNet++ take, where the model has others."""
    mean = getattr(model, "pixel_mean", torch.zeros(0)).flatten().cpu()
    if not _is_lightnet(state) or len(mean) != 3 or torch.allclose(mean, torch.tensor(_LIGHTNET_BGR_MEAN), atol=2):
        return None
    return "the file takes BGR: set INPUT.FORMAT, MODEL.PIXEL_MEAN and MODEL.PIXEL_STD (docs/semantic.md)"


def _widen_first(given: StateDict, target: StateDict, trunk: list[str]) -> str | None:
    """Adapt the first convolution to the channels of the model, in place.

    Returns:
        A description of the change; None if there is none.
    """
    first = next(key for key in trunk if target[key].ndim == 4)
    pretrained: Tensor | None = given.get(first)
    channels = target[first].shape[1]
    if pretrained is None or pretrained.ndim != 4 or pretrained.shape[1] != 3 or channels == 3:
        return None
    given[first] = (pretrained.float().sum(1, keepdim=True) / channels).repeat(1, channels, 1, 1)
    if channels == 1:
        return "first convolution narrowed from 3 channels to 1 by their sum"
    factor = f"the mean over red, green and blue times 3/{channels}"
    return f"first convolution widened from 3 to {channels} channels by {factor}"


def _component(key: str) -> str:
    _, name, *rest = key.split(".")
    if name in ENCODER_ATTRIBUTES:
        return "encoder"
    return f"{name}.{rest[0]}" if name == "classifier" else name
