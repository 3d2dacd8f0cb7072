"""A model from a config, and the pretrained weights in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model as build_detectron2_model
from torch import nn

from d2tune.errors import WeightsError
from d2tune.modeling import backbone, deeplab, point_rend, semantic_heads, weights  # noqa: F401 - they register
from d2tune.modeling.config import preset_config
from d2tune.project import Project


@dataclass(frozen=True, slots=True)
class ChosenWeights:
    """What the model starts from.

    Attributes:
        file: The pretrained weights, or None for a start from scratch.
        line: One line that says what was chosen and why.
        fallback: Whether pretrained weights were wanted but could not be had.
    """

    file: weights.WeightsFile | None
    line: str
    fallback: bool = False


def choose_weights(project: Project) -> ChosenWeights:
    """Find the weights that ``project.weights`` asks for; ``auto`` falls back to a start from scratch.

    Raises:
        WeightsError: Weights that were named cannot be had.
    """
    if project.weights == "scratch":
        return ChosenWeights(None, "from scratch, as asked")
    if project.weights != "auto":
        file = weights.find(project.weights, sha256=project.weights_sha256)
        return ChosenWeights(file, f"{project.weights} (sha256 {file.sha256[:12]})")
    source = automatic_source(project)
    if source is None:
        return ChosenWeights(None, f"FROM SCRATCH: no pretrained weights are known for {project.model.backbone}", True)
    try:
        file = weights.find(source)
    except WeightsError as error:
        return ChosenWeights(None, f"FROM SCRATCH: {source} could not be had ({error.message})", True)
    return ChosenWeights(file, f"{source} (sha256 {file.sha256[:12]})")


def automatic_source(project: Project) -> str | None:
    """Where ``weights: auto`` looks: the preset's own weights, or those of the backbone put in its place."""
    if project.model.backbone is None:
        return str(preset_config(project.model.preset).MODEL.WEIGHTS)
    library, _, name = project.model.backbone.partition("/")
    if library == "torchvision":
        import torchvision

        try:
            return str(torchvision.models.get_model_weights(name).DEFAULT.url)
        except ValueError:
            return None
    import timm

    pretrained = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if pretrained is None:
        return None
    if pretrained.url:
        return str(pretrained.url)
    return (
        f"https://huggingface.co/{pretrained.hf_hub_id}/resolve/main/model.safetensors"
        if pretrained.hf_hub_id
        else None
    )


def build_model(
    cfg: CfgNode, chosen: ChosenWeights | None = None, state: weights.StateDict | None = None
) -> tuple[nn.Module, weights.LoadReport | None]:
    """Build the model of ``cfg`` and load what fits of the chosen weights.

    Args:
        cfg: A whole config.
        chosen: Where ``state`` came from.
        state: The chosen file's tensors; None starts from scratch.

    Raises:
        WeightsError: The weights are another architecture's.
    """
    model = build_detectron2_model(cfg)
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        model.register_forward_pre_hook(_fill_missing)
    if chosen is None or chosen.file is None or state is None:
        return model, None
    return model, weights.fit(model, state, file=chosen.file.path)


def _fill_missing(model: nn.Module, arguments: tuple[list[dict[str, Any]]]) -> tuple[list[dict[str, Any]]]:
    """Channels without data (NaN) take their mean, which is 0 after the model has normalised them."""
    mean = model.pixel_mean.cpu()
    filled = [
        one | {"image": torch.where(one["image"].isnan(), mean.to(one["image"]), one["image"])}
        if one["image"].is_floating_point()
        else one
        for one in arguments[0]
    ]
    return (filled,)
