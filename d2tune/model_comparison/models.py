"""The models that can be compared: published networks, runs, packages and exported models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.errors import ProjectError
from d2tune.inference.predictors.base import Predictor
from d2tune.modeling.loaded import LoadedModel
from d2tune.modeling.published.catalog import published_names, published_network
from d2tune.modeling.published.loading import load_published, weights_bytes
from d2tune.modeling.published.presets import coco_presets, load_coco_preset, published_metrics
from d2tune.runs.latest import run_folder
from d2tune.runs.load import load_model, predictor_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComparedModel:
    """A model that is ready to be compared.

    Attributes:
        name: What it is called.
        predictor: Its predictor.
        background: The class of label maps without objects; None for none.
        weights_bytes: Memory of its weights; None where it is not known.
        published: Its published metrics as a text; empty without any.
    """

    name: str
    predictor: Predictor[Any, Any]
    background: str | None
    weights_bytes: int | None
    published: str = ""


def open_model(source: str | Path, *, weights_folder: str | Path | None = None) -> ComparedModel:
    """Load a model.

    Args:
        source: The name of a published network, such as ``fcn_resnet50``; ``NAME=FILE`` takes its weights from a file.
            Or a preset with published weights for COCO, a run folder, a package, an exported model, or a project file
            for its latest run; what exists under the name of a published network is that.
        weights_folder: A folder with files of published networks.

    Raises:
        D2TuneError: There is no such model, or it cannot be loaded.
    """
    text = str(source)
    name, equals, file = text.partition("=")
    if name in published_names() and not Path(text).exists():
        network = published_network(name)
        loaded = load_published(network, folder=weights_folder, file=file if equals else None)
        return compared(loaded, predictor_of(loaded), name=name, published=network.metrics_text)
    if text in coco_presets() and not Path(text).exists():
        loaded = load_coco_preset(text)
        return compared(loaded, predictor_of(loaded), name=text, published=published_metrics(text))
    path = Path(text)
    check_model(path)
    loaded = load_model(run_folder(path))
    return compared(loaded, predictor_of(loaded), name=_shown_name(path, loaded))


def check_model(source: str | Path) -> None:
    """Refuse a source that is not a model, without loading it.

    Raises:
        ProjectError: There is no such model.
    """
    text = str(source)
    names = (*published_names(), *coco_presets())
    if not Path(text).exists() and text.partition("=")[0] not in published_names() and text not in names:
        raise ProjectError(
            "there is no such model",
            found=text,
            expected=f"a run folder, a package, an exported model, a project file, or {', '.join(names)}",
        )


def compared(loaded: LoadedModel, predictor: Predictor[Any, Any], *, name: str, published: str = "") -> ComparedModel:
    """A loaded model with its predictor, as it is compared.

    Args:
        loaded: The model.
        predictor: Its predictor.
        name: What it is called.
        published: Its published metrics.
    """
    return ComparedModel(
        name=name,
        predictor=predictor,
        background=loaded.project.data.background,
        weights_bytes=weights_bytes(loaded.model, loaded.weights),
        published=published,
    )


def _shown_name(path: Path, loaded: LoadedModel) -> str:
    """The project and the folder of a run, the folder of a package."""
    project, folder = str(loaded.record.get("project") or ""), loaded.source.resolve().name
    return f"{project} {folder}" if loaded.run is not None and project else folder
