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
from d2tune.annotations.splitting.lists import is_list, read_list
from d2tune.data.splits import Splits
from d2tune.engine import launch
from d2tune.engine.result import TrainResult
from d2tune.errors import D2TuneError
from d2tune.evaluation.comparison import RunComparison
from d2tune.label_loop.data import LoopData
from d2tune.label_loop.state import LoopState, Round
from d2tune.modeling import checkpoint
from d2tune.modeling.loaded import LoadedModel
from d2tune.modeling.weights import read_state_dict
from d2tune.project import LoadedProject, Project
from d2tune.project.schedule import LEAST_PASSES, planned_length
from d2tune.run_folder import RunFolder
from d2tune.runs.compare import compare
from d2tune.runs.evaluate import evaluate
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
        train = train.model_copy(update={"iterations": one.iterations, "epochs": None})
    changed: dict[str, object] = {"data": data, "train": train}
    if one.weights is not None:
        changed |= {"weights": one.weights, "weights_sha256": None}
    return replace(loaded, project=project.model_copy(update=changed))


def starting_weights(model: LoadedModel | None) -> str | None:
    """The file of weights that a training continues from; None for the weights of the project."""
    if model is None:
        return None
    if model.weights.suffix not in _READABLE:
        logger.warning("%s cannot be trained on; the training begins with the weights of the project", model.weights)
        return None
    return str(model.weights.absolute())


def continued_iterations(project: Project, *, images: int) -> int:
    """The iterations of a training that begins with the weights of an earlier one.

    They are `CONTINUED` times those of the project, and at least `LEAST_PASSES` passes over the images.

    Args:
        project: The project.
        images: Images to train on.
    """
    whole = planned_length(project, images=images, on_gpu=torch.cuda.is_available()).iterations
    least = math.ceil(LEAST_PASSES * images / project.train.batch_size)
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
    folder = RunFolder(run)
    if folder.last.is_file() or folder.final.is_file():
        return launch.train(loaded, output_dir=run, resume=True, num_gpus=num_gpus, sample=False)
    return launch.train(loaded, output_dir=run, num_gpus=num_gpus, sample=False)


def is_begun_without_checkpoint(run: Path) -> bool:
    """Whether a training was stopped in a run folder before it had anything to continue from."""
    return run.is_dir() and not (RunFolder(run).last.is_file() or RunFolder(run).final.is_file())


def compare_rounds(before: Path, weights: str | None, after: Path, folder: Path) -> RunComparison | None:
    """Compare a run with the one that it continues, on the validation split.

    Where the evaluation of the earlier run is of other data, or there is none, its weights are evaluated with the
    settings of the later run.

    Args:
        before: The earlier run or package.
        weights: The file of its weights.
        after: The later run.
        folder: The folder of the round, for that evaluation.

    Returns:
        The comparison; None, with a line in the log, where the two cannot be compared.
    """
    try:
        return compare(before, after)
    except D2TuneError:
        if weights is None:
            logger.warning("%s cannot be evaluated, so the round is not compared with it", before)
            return None
    try:
        evaluate(after, weights=str(_checkpoint(Path(weights), folder)), out=folder / "before")
        return compare(folder / "before", after)
    except D2TuneError as error:
        logger.warning("the round cannot be compared with %s: %s", before, error.one_line())
        return None


def _checkpoint(weights: Path, folder: Path) -> Path:
    """A file of weights as a checkpoint of a run; that of a package is written to a folder as one."""
    if weights.suffix == ".pth":
        return weights
    path = folder / "before.pth"
    checkpoint.save(path, {"model": read_state_dict(weights)})
    return path


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
