"""The model of a run, a package or an exported model, and its predictor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from d2tune.errors import DataError, PackageError, ProjectError, RunError, check_range
from d2tune.inference.predictors.base import Predictor
from d2tune.modeling.from_run import load_run
from d2tune.modeling.loaded import LoadedModel, ModelDescription
from d2tune.packages.manifest import is_package
from d2tune.packages.read import load_package, read_package
from d2tune.project import load_project
from d2tune.run_folder import RunFolder
from d2tune.runs.windows import WindowChoice
from d2tune.tasks import task_of
from d2tune.text import a_or_an


def describe(path: str | Path) -> ModelDescription:
    """The project and the record of a model, without loading it.

    Args:
        path: A run folder, a package or an exported model.

    Raises:
        RunError: The folder is neither a run folder nor a package.
        PackageError: The package was written by a later version, or a file is missing or was changed.
    """
    folder = Path(path)
    if is_package(folder):
        return read_package(folder, with_weights=False).description()
    run = RunFolder(folder)
    record = _read_record(run)
    return ModelDescription(source=folder, project=load_project(run.project).project, record=record)


def load_model(path: str | Path, *, weights: str = "best") -> LoadedModel:
    """Read a model.

    Args:
        path: A run folder, a package or an exported model.
        weights: Of a run: ``best``, ``final`` or a checkpoint file. A package has one file of weights.

    Raises:
        RunError: The folder is neither a run folder nor a package, or the weights do not exist or are of another model.
        PackageError: The package was written by a later version, or a file is missing or was changed.
        MachineError: The library of the format of an exported model is missing.
    """
    folder = Path(path)
    if not is_package(folder):
        _read_record(RunFolder(folder))
        return load_run(folder, weights=weights)
    if weights != "best":
        hint = "Remove --weights, or make a package of those weights with `d2tune package RUN --weights`."
        raise PackageError("a package has one file of weights", file=folder, found=f"--weights {weights}", hint=hint)
    package = read_package(folder)
    if package.manifest.weights.format == "safetensors":
        return load_package(package)
    from d2tune.export.load import load_exported

    return load_exported(package)


def default_folder(model: Path, name: str) -> Path:
    """Where results of a model go that no folder was given for.

    Args:
        model: A run folder, a package or an exported model.
        name: Name of the results.

    Returns:
        A folder in the run folder; for others, one in the working folder, because a package stays as it is.
    """
    return Path(f"{name}_{model.resolve().name}") if is_package(model) else model / name


def check_outside(model: ModelDescription, out: Path) -> None:
    """Check that results do not go into a package or an exported model, which stay as they are.

    Raises:
        RunError: ``out`` is the folder of the model, or in it.
    """
    folder = model.source.resolve()
    if is_package(model.source) and (out.resolve() == folder or folder in out.resolve().parents):
        raise RunError("is in the model, which stays as it is", file=out, hint="Choose another folder with --out.")


def check_has_data(model: ModelDescription, *, hint: str) -> None:
    """Check that a package, which has no data, lies beside those of its project.

    Args:
        model: The model.
        hint: What to do where they are missing.

    Raises:
        DataError: They are missing.
    """
    root = model.project.data.root
    if is_package(model.source) and not root.exists():
        raise DataError("a package does not have the data of its project", file=root, hint=hint)


def _read_record(run: RunFolder) -> dict[str, Any]:
    if not run.record.exists():
        raise RunError(
            "is not a run folder or a package",
            file=run.path,
            expected="a folder with record.json, such as runs/<project>/<time>, or with package.json",
        )
    return run.read_record()


def predictor_of(loaded: LoadedModel, *, min_score: float | None = None) -> Predictor[Any, Any]:
    """The predictor of a loaded model, which must be its only user.

    Args:
        loaded: The model.
        min_score: Lowest score of an instance of any class, from 0 to 1; None takes the thresholds of the model.

    Raises:
        ProjectError: The lowest score is not between 0 and 1, or predictions of the model have no scores.
        DataError: The model follows objects.
    """
    task = task_of(loaded.project)
    task.check_predicts_images()
    if min_score is not None:
        check_range(min_score, place="min_score", least=0, most=1)
        if not task.has_scores:
            message = f"predictions of {a_or_an(task.name)} model have no scores"
            raise ProjectError(message, place="min_score", hint="Remove it.")
    thresholds = loaded.with_min_score(min_score).thresholds
    min_scores = [thresholds[name] for name in loaded.class_names] if task.has_scores else None
    return task.predictor(
        loaded.model, loaded.cfg, loaded.project, loaded.categories, is_model_own=True, min_scores=min_scores
    )


def load_predictor(
    path: str | Path,
    *,
    weights: str = "best",
    min_score: float | None = None,
    window_px: int | Literal["auto"] | None = None,
    overlap: float | None = None,
    object_px: int | None = None,
) -> Predictor[Any, Any]:
    """The predictor of a model.

    ``predictor(image)`` returns `Detections`, a `LabelMap` or a `PanopticMap`, depending on the task of the model;
    ``predictor.batch(images)`` returns a list of them. Images are files, or arrays ``(H, W, 3)`` uint8 in RGB.

    Args:
        path: A run folder, a package or an exported model.
        weights: Of a run: ``best``, ``final`` or a checkpoint file.
        min_score: Lowest score of an instance of any class, from 0 to 1; None takes the thresholds of the model.
        window_px: Height and width in pixels of the overlapping windows in which images are predicted, or ``auto``;
            None predicts on whole images, or as the config of the model says.
        overlap: Share of a window that the next window covers as well; None is 0.2.
        object_px: Size of the largest objects that are to be whole in a window; None is not known.

    Raises:
        ProjectError: A number is outside of its range, or predictions of the model have no scores or no windows.
        RunError: The folder is neither a run folder nor a package, or the weights do not exist.
        PackageError: The package was written by a later version, or a file is missing or was changed.
    """
    windows = WindowChoice(window_px=window_px, overlap=overlap, object_px=object_px)
    return predictor_of(windows.applied(load_model(path, weights=weights)), min_score=min_score)
