"""Evaluation of a finished run."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from d2tune import files
from d2tune.annotations.io.photos.findings import with_white
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.splitting.lists import is_list
from d2tune.data.label_maps import with_background
from d2tune.data.splits import load_validation, read_split
from d2tune.errors import DataError
from d2tune.evaluation.evaluator import Scoring
from d2tune.evaluation.output_files import EvaluationFiles
from d2tune.evaluation.summaries import EvaluationResult, closing_sentence
from d2tune.metrics.coco.results import KINDS, Kind
from d2tune.modeling.loaded import ModelDescription
from d2tune.packages.manifest import is_package
from d2tune.project import Project
from d2tune.run_folder import RunFolder, ensure_writable
from d2tune.runs.load import check_has_data, check_outside, default_folder, describe, load_model
from d2tune.runs.windows import WindowChoice
from d2tune.tasks import task_of
from d2tune.timing import StageTimes

logger = logging.getLogger(__name__)


def evaluate(
    run: str | Path,
    *,
    data: str | Path | None = None,
    image_root: str | Path | None = None,
    weights: str = "best",
    out: str | Path | None = None,
    kinds: Sequence[Kind] = KINDS,
    batch_size: int | None = None,
    crowds: Literal["crowds", "objects"] | None = None,
    window_px: int | Literal["auto"] | None = None,
    overlap: float | None = None,
    object_px: int | None = None,
) -> EvaluationResult:
    """Evaluate a model on its validation split, or on other data with the same classes.

    Args:
        run: The run folder, a package or an exported model.
        data: Folder or file of annotations, or a list of images with annotations in the project; None takes the
            validation split of the project.
        image_root: Folder of the images; None looks for them beside the annotations or where the project says.
        weights: Of a run: ``best``, ``final`` or a checkpoint file.
        out: The output folder; None is ``evaluation`` in the run folder, followed by the names of ``data`` and of
            ``weights`` and the size of windows if they are not the defaults; for others than runs, in the working
            folder, with their name.
        kinds: The kinds of metrics: ``bbox``, ``segm``, ``boundary``.
        batch_size: Images per forward pass; None is 8 on CUDA and up to 4 on the CPU.
        crowds: Whether objects marked as crowds are read as ``crowds`` or as ``objects``; None is as in training.
        window_px: Height and width in pixels of the overlapping windows in which images are predicted, or ``auto``;
            None predicts on whole images, or as the config of the model says.
        overlap: Share of a window that the next window covers as well; None is 0.2.
        object_px: Size of the largest objects that are to be whole in a window; None is not known.

    Raises:
        D2TuneError: The run, the weights or the data cannot be used.
    """
    windows = WindowChoice(window_px=window_px, overlap=overlap, object_px=object_px)
    windows.check(describe(run))
    loaded = windows.applied(load_model(run, weights=weights))
    name = _folder_name(data, weights, loaded.cfg.TEST.WINDOW_PX if window_px else 0)
    target = Path(out) if out is not None else default_folder(Path(run), name)
    check_outside(loaded, target)
    project = loaded.project
    project = _with_crowds(project, crowds)
    task = task_of(project)
    if tuple(kinds) != KINDS and not task.has_instance_metrics:
        raise DataError("--metrics is valid for instance models only", file=run, found=f"a {task.name} model")
    dataset = _dataset(loaded, project, data, image_root)
    dataset = with_white(dataset, loaded.cfg.INPUT.WHITE or None)
    times = StageTimes()
    evaluator = task.evaluator(dataset, loaded.cfg, project)
    paths = [image.path for image in dataset.images if image.path is not None]
    outputs = EvaluationFiles(target, predictions=evaluator.files(target), inputs=lambda: [*paths, *loaded.files])
    ensure_writable(target)
    predictor = task.predictor(loaded.model, loaded.cfg, project, dataset.categories)
    predictions = evaluator.predict(predictor, batch_size=batch_size, times=times)
    split = "val" if data is None else Path(data).name
    outcome = evaluator.evaluate(predictions, Scoring(split=split, kinds=kinds, times=times))
    data_sha256 = dataset.content_hash()
    if data is None and data_sha256 != loaded.record["data"]["val_sha256"]:
        logger.warning("the validation split has changed since the training; earlier metrics are not comparable")
    bound: dict[str, Any] = {
        "run": str(Path(run).resolve()),
        "data": None if data is None else str(Path(data).resolve()),
        "image_root": None if image_root is None else str(Path(image_root).resolve()),
        "crowds": crowds,
        "data_sha256": data_sha256,
        "weights": str(loaded.weights.resolve()),
        "weights_sha256": loaded.weights_sha256,
        "config_sha256": loaded.config_sha256,
    }
    contact_sheet = target / "contact_sheet.png"
    with outputs.written():
        bound["predictions_sha256"] = evaluator.save(predictions, target)
        outcome.write(target, bound=bound, times=times)
        evaluator.draw(
            contact_sheet,
            predictions,
            title=loaded.record["project"],
            subtitle=f"{loaded.weights.stem} on {data or 'the validation split'}, {outcome.headline}",
        )
    kind = "validation" if data is None else "other"
    sentence = closing_sentence(outcome.metrics, best_iteration=None, contact_sheet=contact_sheet, kind=kind)
    return EvaluationResult(target, outcome.metrics, sentence)


def _folder_name(data: str | Path | None, weights: str, window_px: int) -> str:
    names = []
    if data is not None:
        # folders can have the same name, so the hash of the whole path is added
        path = Path(data).resolve()
        names.append(f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}")
    names += [] if weights == "best" else [Path(weights).stem]
    names += [f"windows{window_px}"] if window_px else []
    return "_".join(["evaluation", *names])


def dataset_of(
    run: str | Path,
    data: str | Path | None,
    *,
    image_root: str | Path | None = None,
    crowds: Literal["crowds", "objects"] | None = None,
) -> Dataset:
    """The dataset that a model is evaluated on, without loading it.

    Args:
        run: See `evaluate`.
        data: See `evaluate`.
        image_root: See `evaluate`.
        crowds: See `evaluate`.

    Raises:
        D2TuneError: The run or the data cannot be used.
    """
    described = describe(run)
    return _dataset(described, _with_crowds(described.project, crowds), data, image_root)


def _with_crowds(project: Project, crowds: Literal["crowds", "objects"] | None) -> Project:
    if crowds is None:
        return project
    return project.model_copy(update={"data": project.data.model_copy(update={"crowds": crowds})})


def _dataset(
    described: ModelDescription,
    project: Project,
    data: str | Path | None,
    image_root: str | Path | None = None,
) -> Dataset:
    classes = described.class_names
    project = project if project.class_names else project.model_copy(update={"classes": classes})
    if data is None:
        check_has_data(described, hint="Name annotated images with --data, or put the data of the project there.")
        project = project if image_root is None else _with_images(project, image_root, keep_train=True)
        return load_validation(project)
    source = Path(data).resolve()
    if not source.exists():
        raise DataError("the file or folder does not exist", file=source, hint="Correct the path after --data.")
    if not is_list(source):
        keeps_format = project.data.format == "label_images"
        changes = {"root": source.parent} | ({} if keeps_format else {"format": "auto", "images": None})
        project = project.model_copy(update={"data": project.data.model_copy(update=changes)})
    if image_root is not None:
        project = _with_images(project, image_root)
    split = str(source) if is_list(source) else source.name
    dataset = read_split(project, split, labels=classes, restore_dir=_restore_folder(described.source, source))
    return with_background(dataset, project.data.background)


def _restore_folder(model: Path, source: Path) -> Path:
    """The folder for images that exist only inside annotations: in a run folder, or for others in the cache."""
    if not is_package(model):
        return RunFolder(model).restored_images
    return files.cache_folder() / "restored_images" / hashlib.sha256(str(source).encode()).hexdigest()[:12]


def _with_images(project: Project, image_root: str | Path, *, keep_train: bool = False) -> Project:
    """A project with another folder of images.

    Args:
        project: The project.
        image_root: The folder.
        keep_train: Whether a training split that is read from files of its own keeps its folder.
    """
    root, data = Path(image_root).resolve(), project.data
    if not root.is_dir():
        raise DataError("the folder of images does not exist", file=root, hint="Correct the path after --image-root.")
    images: str | dict[str, str] = str(root)
    if keep_train and isinstance(data.val, str) and data.fold is None:
        of_train = data.images_of(data.train)
        images = {"val": str(root)} | ({} if of_train is None else {"train": of_train})
    return project.model_copy(update={"data": data.model_copy(update={"images": images})})
