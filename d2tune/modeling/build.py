"""A model from a config, and the pretrained weights in it."""

from __future__ import annotations

from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.modeling import build_model as build_detectron2_model
from torch import nn

from d2tune.errors import ProjectError, WeightsError
from d2tune.modeling import weights
from d2tune.modeling.bridge import weights as bridge_weights
from d2tune.modeling.components import register_components
from d2tune.modeling.config import check_model, is_bridge, preset_config
from d2tune.modeling.siammask import published as siammask_published
from d2tune.modeling.yolact import published as yolact_published
from d2tune.project import Project
from d2tune.text import reason_of


@dataclass(frozen=True, slots=True)
class ChosenWeights:
    """What the model starts from.

    Attributes:
        file: The pretrained weights, or None for a start from scratch.
        line: One line that says what was chosen and why.
        fallback: Whether pretrained weights were wanted but are not available.
    """

    file: weights.WeightsFile | None
    line: str
    fallback: bool = False


def choose_weights(project: Project) -> ChosenWeights:
    """Find the weights that ``project.weights`` asks for; ``auto`` falls back to a start from scratch.

    Raises:
        WeightsError: Weights that the project names are not available.
        ProjectError: The model does not fit the task.
    """
    check_model(project)
    if project.weights == "scratch":
        return ChosenWeights(None, "from scratch, as asked")
    if project.weights != "auto":
        file = weights.find(project.weights, sha256=project.weights_sha256)
        return ChosenWeights(file, f"{project.weights} (sha256 {file.sha256[:12]})")
    source = automatic_source(project)
    if source is None:
        return ChosenWeights(None, f"FROM SCRATCH: no pretrained weights are known for {_network(project)}", True)
    try:
        file = weights.find(source)
    except WeightsError as error:
        return ChosenWeights(None, f"FROM SCRATCH: {source} is not available ({error.message})", True)
    return ChosenWeights(file, f"{source} (sha256 {file.sha256[:12]})")


def _network(project: Project) -> str:
    model = project.model
    return model.backbone or model.encoder or model.preset


def automatic_source(project: Project) -> str | None:
    """Where ``weights: auto`` looks: the preset's weights, or those of the backbone that replaces its own."""
    cfg = preset_config(project.model.preset)
    if is_bridge(cfg):
        return bridge_weights.automatic_source(cfg.MODEL.BRIDGE.ARCHITECTURE, project.model.encoder)
    if project.model.backbone is None:
        return str(cfg.MODEL.WEIGHTS)
    library, _, name = project.model.backbone.partition("/")
    return weights.published_source(library, name)


def build_model(
    cfg: CfgNode, chosen: ChosenWeights | None = None, state: weights.StateDict | None = None
) -> tuple[nn.Module, weights.LoadReport | None]:
    """Build the model of ``cfg`` and load what fits of the chosen weights.

    Args:
        cfg: A whole config.
        chosen: The file of ``state``.
        state: The tensors of the file; None starts from scratch.

    Raises:
        WeightsError: The weights are those of another architecture.
        ProjectError: Detectron2 cannot build the model with the raw keys that were set.
    """
    model = _built(cfg)
    if chosen is None or chosen.file is None or state is None:
        return model, None
    for names in (yolact_published, siammask_published):
        if names.is_published(state):
            names.check_published(state, model.state_dict(), file=chosen.file.path)
            state = names.renamed(state)
    fit = bridge_weights.fit_bridge if is_bridge(cfg) else weights.fit
    return model, fit(model, state, file=chosen.file.path)


def _built(cfg: CfgNode) -> nn.Module:
    register_components(cfg)
    try:
        model: nn.Module = build_detectron2_model(cfg)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
        raise ProjectError(
            f"Detectron2 cannot build the model: {type(error).__name__}: {reason_of(error)}",
            place="detectron2",
            hint="Correct the raw keys of Detectron2; --debug shows where it fails.",
        ) from error
    return model
