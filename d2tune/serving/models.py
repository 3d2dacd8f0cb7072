"""The models that a server serves: by name, described before they are loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune import run_schema
from d2tune.errors import ProjectError, RunError
from d2tune.inference.loop import divisibility_of
from d2tune.inference.predictors.base import Predictor
from d2tune.modeling.loaded import LoadedModel, ModelDescription
from d2tune.packages.manifest import CARD, is_package, read_manifest
from d2tune.packages.write import input_entries
from d2tune.runs.latest import run_folder
from d2tune.runs.load import describe, load_model, predictor_of
from d2tune.runs.windows import WindowChoice
from d2tune.tasks import task_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WHOLE = WindowChoice()
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Ready:
    """A model that predicts.

    Attributes:
        predictor: Its predictor.
        details: What ``/v1/models/NAME`` gives of it, without paths.
    """

    predictor: Predictor[Any, Any]
    details: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that is served.

    Attributes:
        name: Its name in the API.
        description: What is known of it without loading it.
        load: Loads it.
    """

    name: str
    description: ModelDescription
    load: Callable[[], Ready]

    @property
    def background(self) -> str | None:
        """The class of label maps without objects; None for none."""
        return self.description.project.data.background


def served_models(
    sources: Sequence[str | Path],
    *,
    weights: str = "best",
    min_score: float | None = None,
    windows: WindowChoice = _WHOLE,
) -> dict[str, ServedModel]:
    """Describe models, so that what cannot be served is refused before a server starts.

    Args:
        sources: Run folders, packages, exported models, or project files for their latest run; each may have a name
            before it: ``NAME=PATH``.
        weights: Of runs: ``best``, ``final`` or a checkpoint file.
        min_score: Lowest score of instances; None takes the thresholds of each model.
        windows: Windows in which images are predicted; by default as the model says.

    Returns:
        The models by name, in order.

    Raises:
        D2TuneError: A source is not a model, two models have the same name, or a model takes folders of files.
    """
    models: dict[str, ServedModel] = {}
    for source in sources:
        name, path = named(source)
        folder = run_folder(path)
        description = describe(folder)
        if description.record["input"].get("stacked"):
            message = "the model takes folders of files as images, which a request cannot hold"
            raise ProjectError(message, place=str(path), hint="Use `d2tune predict`.")
        task_of(description.project).check_predicts_images()
        windows.check(description)
        name = name or _name_of(folder, description)
        if name in models:
            hint = f"Name them: `d2tune serve a={models[name].description.source} b={path}`."
            raise ProjectError("two models have the same name", place=str(path), found=name, hint=hint)

        def load(folder: Path = folder) -> Ready:
            loaded = windows.applied(load_model(folder, weights=weights)).with_min_score(min_score)
            return Ready(predictor_of(loaded), _details(loaded))

        models[name] = ServedModel(name=name, description=description, load=load)
    return models


def named(source: str | Path) -> tuple[str | None, Path]:
    """The name and the path of ``NAME=PATH``; a path alone has no name.

    Raises:
        ProjectError: The name has letters that an address cannot have.
    """
    text = str(source)
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, Path(text)
    if not _NAME.fullmatch(name):
        expected = "letters, digits, dots, dashes and underscores, at most 64"
        raise ProjectError("the name of the model is invalid", place=text, found=name, expected=expected)
    return name, Path(path)


def _name_of(folder: Path, description: ModelDescription) -> str:
    """The project of a run, and the name of the folder of a package, in letters that an address can have."""
    text = folder.resolve().name if is_package(folder) else str(description.record["project"])
    name = _OTHER.sub("-", text).strip("-._")[:64]
    return name if _NAME.fullmatch(name) else "model"


def _details(loaded: LoadedModel) -> dict[str, Any]:
    """What the API gives of a model."""
    record, project = loaded.record, loaded.project
    task = task_of(project)
    details: dict[str, Any] = {
        "task": task.name,
        "project": record["project"],
        "preset": project.model.preset,
        "classes": [
            {"id": category.id, "name": category.name, "is_thing": category.isthing} for category in loaded.categories
        ],
        "thresholds": dict(loaded.thresholds) if task.has_scores else {},
        "trained": record.get("started"),
        "weights_sha256": loaded.weights_sha256,
        "data_sha256": {split: record["data"].get(f"{split}_sha256") for split in ("train", "val")},
    }
    if is_package(loaded.source):
        manifest = read_manifest(loaded.source)
        card = loaded.source / CARD
        return details | {
            "trained": manifest.training.get("started"),
            "input": manifest.input.model_dump(mode="json"),
            "metrics": None if manifest.metrics is None else manifest.metrics.model_dump(mode="json"),
            "format": manifest.weights.format,
            "precision": manifest.weights.precision,
            "card": card.read_text("utf-8") if CARD in manifest.files else None,
        }
    divisible_by_px = divisibility_of(loaded.model)
    return details | {
        "input": input_entries(loaded.cfg, project, record, divisible_by_px),
        "metrics": _metrics_of_run(loaded),
        "format": "checkpoint",
        "precision": record["machine"]["precision"],
        "card": None,
    }


def _metrics_of_run(loaded: LoadedModel) -> dict[str, Any] | None:
    """The evaluation of the weights of a run on its validation split; None where these weights have none."""
    assert loaded.run is not None
    try:
        evaluation = run_schema.read_evaluation(loaded.run.evaluation)
    except (FileNotFoundError, RunError):
        return None
    if evaluation["data"] is not None or evaluation["weights_sha256"] != loaded.weights_sha256:
        return None
    return {
        "images": evaluation["images"],
        "data_sha256": evaluation["data_sha256"],
        "values": evaluation["metrics"],
        "classes": evaluation["classes"],
    }
