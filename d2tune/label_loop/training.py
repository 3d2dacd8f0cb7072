"""The training of a round: from the last weights, on everything that is labeled, compared with the earlier run."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from d2tune.annotations.io.output_record import SPLIT
from d2tune.annotations.io.outputs import write_output
from d2tune.annotations.io.photos.findings import with_white
from d2tune.annotations.splitting.lists import is_list, read_list
from d2tune.data.splits import Splits
from d2tune.engine import launch
from d2tune.engine.result import TrainResult
from d2tune.errors import D2TuneError, RunError
from d2tune.evaluation.comparison import RunComparison
from d2tune.evaluation.output_files import EvaluationFiles
from d2tune.label_loop.data import LoopData
from d2tune.label_loop.state import LoopState, Round
from d2tune.modeling.config import read_config
from d2tune.modeling.loaded import LoadedModel
from d2tune.project import LoadedProject, Project, load_project
from d2tune.project.schedule import LEAST_PASSES, planned_length
from d2tune.run_folder import RunFolder, ensure_writable
from d2tune.runs.compare import compare
from d2tune.runs.evaluate import dataset_of
from d2tune.runs.load import load_model
from d2tune.tasks import task_of
from d2tune.text import counted

logger = logging.getLogger(__name__)

CONTINUED = 0.5
"""Iterations of a training from earlier weights, as a share of those of a training from the start."""

_READABLE = (".pth", ".pkl", ".safetensors")


def freeze_split(state: LoopState, data: LoopData, loop: Path) -> None:
    """Write lists of the images of both splits where the project divides them by a fraction.

    Otherwise new images would move others into the validation split, and earlier metrics could not be compared.

    Args:
        state: The state of the loop, which gets the paths of the lists.
        data: The data of the project.
        loop: The folder of the loop.
    """
    if state.base_list is not None or data.splits is None:
        return
    if isinstance(data.project.data.val, float):
        state.base_list = str(_write_list(loop / "train.txt", _names(data.splits, "train")))
        state.val_list = str(_write_list(loop / "val.txt", _names(data.splits, "val")))
    elif is_list(data.project.data.train):
        state.base_list = str((data.project.data.root / data.project.data.train).resolve())


def _names(splits: Splits, split: str) -> list[str]:
    return [image.file_name for image in getattr(splits, split).images]


def _write_list(path: Path, names: Sequence[str]) -> Path:
    content = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
    return write_output(path.absolute(), content, kind=SPLIT)


def write_train_list(state: LoopState, folder: Path) -> str | None:
    """Write the list of the training images of a round; None where the project finds them by itself.

    Args:
        state: The state of the loop, with all that was taken.
        folder: The folder of the round.
    """
    if state.base_list is None:
        return None
    names = dict.fromkeys([*read_list(Path(state.base_list)), *(image.listed for image in state.taken)])
    return str(_write_list(folder / "train.txt", list(names)))


def training_images(data: LoopData, one: Round) -> int:
    """The number of images that a round trains on."""
    return len(data.train_images) if one.train_list is None else len(read_list(Path(one.train_list)))


def round_project(loaded: LoadedProject, state: LoopState, one: Round) -> LoadedProject:
    """The project that a round trains.

    Args:
        loaded: The project.
        state: The state of the loop.
        one: The round, with its weights, iterations and list of images.
    """
    project, data = loaded.project, loaded.project.data
    if one.train_list is not None:
        changes: dict[str, object] = {"train": one.train_list}
        if state.val_list is not None:
            # the images of both splits lie where the project has those that it divides
            changes |= {"val": state.val_list, "images": data.images_of(data.train)}
        if not is_list(data.train):
            changes["annotations"] = data.train
        data = data.model_copy(update=changes)
    train = project.train
    if one.iterations is not None:
        train = train.model_copy(update={"iterations": one.iterations, "epochs": None, "budget": None})
    changed: dict[str, object] = {"data": data, "train": train}
    if one.weights is not None:
        changed |= {"weights": one.weights, "weights_sha256": None}
    return replace(loaded, project=project.model_copy(update=changed))


def starting_weights(model: LoadedModel, project: Project) -> str | None:
    """The file of weights that a training continues from.

    Args:
        model: The model that predicted.
        project: The project that is trained.

    Returns:
        The file; None, with a line in the log, where the project has another network, or the file cannot be trained on.
    """
    if model.weights.suffix in _READABLE and _network(model.project) == _network(project):
        return str(model.weights.absolute())
    logger.warning(
        "%s is not what the project trains; the training begins with the weights of the project", model.source
    )
    return None


def _network(project: Project) -> tuple[object, ...]:
    """What decides which tensors a network has."""
    model = project.model
    others = ("MODEL.DEVICE", "MODEL.WEIGHTS")
    raw = {key: value for key, value in project.detectron2.items() if key.startswith("MODEL.") and key not in others}
    return model.preset, model.backbone, model.encoder, raw


def continued_iterations(project: Project, *, images: int) -> int:
    """The iterations of a training that begins with the weights of an earlier one.

    They are `CONTINUED` times those of the project, and at least `LEAST_PASSES` passes over the images.

    Args:
        project: The project.
        images: Images to train on.
    """
    whole = planned_length(project, images=images, on_gpu=torch.cuda.is_available()).iterations
    least = math.ceil(LEAST_PASSES * images / project.train.images_per_step)
    return max(1, min(whole, max(math.ceil(CONTINUED * whole), least)))


def new_run_folder(project: Project) -> str:
    """A run folder that does not exist yet."""
    parent, name = Path("runs") / project.name, time.strftime("%Y-%m-%d_%H-%M-%S")
    number = 1
    path = parent / name
    while path.exists():
        number += 1
        path = parent / f"{name}_{number}"
    return str(path.absolute())


def train_round(loaded: LoadedProject, run: Path, *, num_gpus: int | None = None) -> TrainResult:
    """Train into a run folder, or continue or finish the training that was stopped there.

    Args:
        loaded: From `round_project`.
        run: The run folder.
        num_gpus: GPUs to train on; None takes one where there is one.
    """
    return launch.train(loaded, output_dir=run, resume=can_be_resumed(run), num_gpus=num_gpus, sample=False)


def can_be_resumed(run: Path) -> bool:
    """Whether a run folder has a checkpoint to continue from, or the final weights."""
    folder = RunFolder(run)
    return folder.last.is_file() or folder.final.is_file()


def compare_rounds(before: Path, after: Path, folder: Path) -> RunComparison | None:
    """Compare a model with the run of the round that it predicted for, on the validation split of that run.

    Where there is no evaluation of the model on these data, it is evaluated.

    Args:
        before: The earlier run or package.
        after: The run of the round.
        folder: The folder of the round, for the predictions of the earlier model.

    Returns:
        The comparison; None, with a line in the log, where the two cannot be compared.
    """
    try:
        return compare(before, after)
    except D2TuneError:
        pass
    try:
        return _evaluated(before, after, folder / "before")
    except D2TuneError as error:
        logger.warning("the round cannot be compared with %s: %s", before, error.one_line())
        return None


def _evaluated(before: Path, after: Path, out: Path) -> RunComparison:
    """Evaluate the earlier model on the validation split of the run, and compare.

    Raises:
        D2TuneError: The model or the data cannot be used, or the classes are different.
    """
    loaded, dataset = load_model(before), dataset_of(after, None)
    if tuple(loaded.class_names) != tuple(dataset.class_names):
        raise RunError(
            "the model has other classes than the run",
            file=before,
            found=", ".join(loaded.class_names),
            expected=", ".join(dataset.class_names),
        )
    run = RunFolder(after)
    project = load_project(run.project).project
    task = task_of(project)
    evaluator = task.evaluator(dataset, read_config(run.config), project)
    earlier = with_white(dataset, loaded.cfg.INPUT.WHITE or None)
    predictor = task.predictor(loaded.model, loaded.cfg, loaded.project, dataset.categories)
    predictions = task.evaluator(earlier, loaded.cfg, project).predict(predictor)
    images = [image.path for image in dataset.images if image.path is not None]
    outputs = EvaluationFiles(out, predictions=evaluator.files(out), inputs=lambda: [*images, *loaded.files])
    ensure_writable(out)
    with outputs.written():
        evaluator.save(predictions, out)
    sides = [
        evaluator.side(evaluator.load(folder), name=str(name), truth_sha256=dataset.content_hash())
        for folder, name in ((out, before), (after, after))
    ]
    return sides[0].compare(sides[1])


def sentence_of(number: int, comparison: RunComparison) -> str:
    """Whether a round helped, in a sentence.

    Args:
        number: The number of the round.
        comparison: Of the run before (A) with the run after the round (B).
    """
    row, name = comparison.metrics[comparison.main], comparison.main_name
    if row.value_a is None or row.value_b is None or row.difference is None:
        return f"Round {number}: {row.verdict}."
    values = f"{name} {row.value_a:.1f} before, {row.value_b:.1f} after"
    span = row.interval
    interval = "" if span.low is None else f", 95 % interval {span.low:+.1f} to {span.high:+.1f}"
    detail = f"{values} ({row.difference:+.1f}{interval}, on {counted(row.images, 'validation image')})"
    if row.better is None:
        return f"Round {number} made no significant difference: {detail}."
    return f"Round {number} {'helped' if row.better == 'B' else 'made the model worse'}: {detail}."
