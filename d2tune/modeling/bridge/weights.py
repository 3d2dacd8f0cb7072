"""Pretrained weights of the bridge's networks: where they lie, and how they are fitted in."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor, nn

from d2tune.modeling.bridge.networks import architecture_named
from d2tune.modeling.weights import LoadReport, StateDict, load_fitting, published_source, stage_names

ENCODER_ATTRIBUTES = ("encoder", "backbone", "features")
"""Attributes under which the networks hold their encoders."""


def automatic_source(architecture: str, encoder: str | None = None) -> str | None:
    """Where ``weights: auto`` looks for ImageNet weights of an architecture's encoder.

    Torchvision's files come first, for they carry their hash in their names; then timm's for encoders that begin with
    ``tu-``, and those that segmentation-models-pytorch publishes.

    Args:
        architecture: A name of ``networks.ARCHITECTURES``.
        encoder: None takes the architecture's own.

    Returns:
        A URL, or None where none are published.

    Raises:
        ProjectError: The architecture is unknown.
    """
    name = encoder or architecture_named(architecture).encoder
    if name is None:
        return None
    if name.startswith("tu-"):
        return published_source("timm", name.removeprefix("tu-"))
    if name.startswith(("resnet", "resnext", "mobilenet", "vgg")) and (url := published_source("torchvision", name)):
        return url
    from segmentation_models_pytorch.encoders import encoders

    settings = encoders.get(name, {}).get("pretrained_settings", {}).get("imagenet")
    if settings is None:
        return None
    return f"https://huggingface.co/{settings['repo_id']}/resolve/{settings['revision']}/model.safetensors"


def fit_bridge(model: nn.Module, state: StateDict, *, file: Path) -> LoadReport:
    """Load what fits by name and shape into a ``SemanticBridge``; leave the rest as initialized.

    A pretrained first convolution of 3 channels is widened to the model's N: each of the N takes the sum over red,
    green and blue divided by N, so that an image with the same value in all channels gives the same response.

    Args:
        model: A ``SemanticBridge``.
        state: Tensors of a whole bridge model, of its network, or of its encoder as torchvision, timm or
            segmentation-models-pytorch name them.
        file: Where they came from.

    Returns:
        The report; layers that depend on the number of classes or channels and do not fit are named in its rows.

    Raises:
        WeightsError: Less than half of the encoder's convolutions (or of the network's, where it has no encoder) fit,
            so the weights are another architecture's.
    """
    target = model.state_dict()
    encoder = next((name for name in ENCODER_ATTRIBUTES if hasattr(model.network, name)), None)
    trunk = [
        key
        for key, value in target.items()
        if value.ndim > 1 and key.startswith(f"network.{encoder}." if encoder else "")
    ]
    given = _best_names(state, target, encoder)
    remark = _widen_first(given, target, trunk)
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
    """The tensors under the model's names: of all ways to read their names, the one that meets most of them."""
    plain = {f"network.{key.removeprefix('network.')}": value for key, value in state.items()}
    readings = [plain]
    if encoder is not None:
        prefix = f"network.{encoder}."
        torchvision_names = {_torchvision_mobilenet_name(key): value for key, value in state.items()}
        for one in (state, torchvision_names):
            readings.append({f"{prefix}{key}": value for key, value in one.items()})
            readings.append({f"{prefix}{key.removeprefix('features.')}": value for key, value in one.items()})
        for inner in (prefix, f"{prefix}model."):
            inside = [key for key in target if key.startswith(inner)]
            readings.append(stage_names(state, inside, prefix=inner))
    return max(readings, key=lambda reading: sum(key in target for key in reading))


_PLACES_OF_STAGES = (1, 2, 4, 7, 11, 14, 17)
"""Where timm's stages of MobileNetV2 begin among torchvision's features."""


def _torchvision_mobilenet_name(key: str) -> str:
    """``blocks.1.0.conv_dw.weight`` of timm's MobileNetV2 is ``features.2.conv.1.0.weight`` in torchvision's."""
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
    return f"features.{_PLACES_OF_STAGES[stage] + block}.conv.{layers.get(layer, layer)}.{rest}"


def _widen_first(given: StateDict, target: StateDict, trunk: list[str]) -> str | None:
    """Bring the first convolution to the model's channels, in place; says how, or None where it fits or cannot fit."""
    first = next(key for key in trunk if target[key].ndim == 4)
    pretrained: Tensor | None = given.get(first)
    channels = target[first].shape[1]
    if pretrained is None or pretrained.ndim != 4 or pretrained.shape[1] != 3 or channels == 3:
        return None
    given[first] = (pretrained.float().sum(1, keepdim=True) / channels).repeat(1, channels, 1, 1)
    if channels == 1:
        return "first convolution narrowed from 3 channels to 1 by their sum"
    how = f"the mean over red, green and blue times 3/{channels}"
    return f"first convolution widened from 3 to {channels} channels by {how}"


def _component(key: str) -> str:
    _, name, *rest = key.split(".")
    if name in ENCODER_ATTRIBUTES:
        return "encoder"
    return f"{name}.{rest[0]}" if name == "classifier" else name
