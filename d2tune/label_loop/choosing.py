"""The images of a round: which are not labeled yet, which come first, and the folder that Labelme opens."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from d2tune.annotations.io.output_record import PREDICTIONS, OwnFiles
from d2tune.errors import DataError
from d2tune.inference.images import find_images
from d2tune.inference.uncertainty import most_uncertain
from d2tune.inference.writers.base import Images
from d2tune.label_loop.data import KnownFiles, LoopData
from d2tune.label_loop.state import RoundImage
from d2tune.runs.load import describe, load_model, predictor_of
from d2tune.runs.most_uncertain import select
from d2tune.runs.predict import predict
from d2tune.tasks import task_of
from d2tune.text import counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The images of a folder that can be labeled.

    Attributes:
        images: The images without labels.
        labeled: Number of images that are labeled or in the training split.
        in_val: Number of images of the validation split.
    """

    images: Images
    labeled: int
    in_val: int

    @property
    def note(self) -> str:
        """The numbers on a line."""
        line = f"{counted(len(self.images.paths), 'image')} without labels, {self.labeled} labeled"
        return f"{line}, {self.in_val} in the validation split" if self.in_val else line


def candidates(folder: Path, data: LoopData, loop: Path) -> Candidates:
    """The images of a folder that are not labeled yet.

    Args:
        folder: The folder.
        data: The data of the project.
        loop: The folder of the loop, which is skipped.

    Raises:
        DataError: The folder does not exist, has no images, or is in the validation split.
    """
    if not folder.is_dir():
        raise DataError("the folder of images does not exist", file=folder)
    val_folder = data.val_folder
    if val_folder is not None and folder.resolve().is_relative_to(val_folder.resolve()):
        raise _in_validation(folder)
    root, paths = find_images(folder, skip=loop)
    everything = Images(root, paths)
    own, val, train = OwnFiles(), KnownFiles(data.val_images), KnownFiles(data.train_images)
    left: list[int] = []
    in_val = 0
    for index, (path, file) in enumerate(zip(paths, everything.output_files(root, ".json"), strict=True)):
        if val.has(path) or (val_folder is not None and path.resolve().is_relative_to(val_folder.resolve())):
            in_val += 1
        elif not train.has(path) and (not os.path.lexists(file) or own.is_unchanged(file, PREDICTIONS)):
            left.append(index)
    if in_val == len(paths):
        raise _in_validation(folder)
    return Candidates(everything.only(left), len(paths) - len(left) - in_val, in_val)


def _in_validation(folder: Path) -> DataError:
    return DataError(
        "the images are in the validation split, which is never trained on",
        file=folder,
        hint="Name a folder of other images.",
    )


def check_model(model: Path, data: LoopData) -> None:
    """Check that the project has all classes of a model.

    Raises:
        DataError: It does not.
    """
    described = describe(model)
    known = (*data.labels, data.project.data.background)
    unknown = [name for name in described.class_names if name not in known]
    if unknown:
        raise DataError(
            "the model predicts a class that the project does not have",
            file=model,
            found=unknown[0],
            expected=", ".join(data.labels),
            hint="Name a model of this project with --model.",
        )


def choose(
    model: Path | None, unlabeled: Candidates, data: LoopData, folder: Path, *, count: int
) -> tuple[list[Path], str]:
    """Choose the images of a round; near-duplicates of labeled or chosen images are passed over.

    Args:
        model: The model; None takes images spread evenly over the names.
        unlabeled: The images to choose from.
        data: The data of the project.
        folder: The folder of the round, which gets a table of the uncertainty of all images.
        count: How many to choose.

    Returns:
        The images, most uncertain first, and a line about the choice.

    Raises:
        DataError: There is no image to choose.
    """
    images = unlabeled.images
    if model is None:
        values = spread(len(images.paths), count)
        chosen, _ = most_uncertain(values, images.paths, count=count, known=data.train_images)
        if not chosen:
            raise DataError("all images are near-duplicates of labeled ones", file=images.root)
        note = f"{counted(len(chosen), 'image')} spread over the names, because there is no model yet"
        return [images.paths[index] for index in chosen], note
    loaded = load_model(model)
    task = task_of(loaded.project)
    selection = select(loaded, task, predictor_of(loaded), images, folder, count=count, known=data.train_images)
    for line in selection.skipped:
        logger.warning("skipped: %s", line)
    selection.journal.remove()
    return list(selection.images.paths), f"{selection.note}: {selection.table}"


def spread(images: int, count: int) -> list[float]:
    """Values that rank images spread evenly over their order first, so that those of one scene are not together.

    Args:
        images: Number of images.
        count: How many will be chosen.
    """
    step = max(1, images // count)
    order = sorted(range(images), key=lambda index: (index % step, index))
    values = [0.0] * images
    for rank, index in enumerate(order):
        values[index] = 1 - rank / max(1, images)
    return values


def round_images(paths: Sequence[Path]) -> list[RoundImage]:
    """The names of images in the folder of a round: with their rank before them, so that Labelme keeps the order."""
    digits = max(2, len(str(len(paths))))
    return [
        RoundImage(name=f"{rank:0{digits}d}_{path.name}", source=str(path.absolute()))
        for rank, path in enumerate(paths, start=1)
    ]


def gather(images: Sequence[RoundImage], folder: Path) -> None:
    """Put images into the folder of a round: as links that need no disk, or as copies.

    Raises:
        DataError: An image is no longer there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        target, source = folder / image.name, Path(image.source)
        if target.exists():
            continue
        if not source.is_file():
            raise DataError("the image is no longer there", file=source, hint="Restore it.")
        try:
            os.link(source.resolve(), target)
        except OSError:
            scratch = target.with_name(f".{target.name}.tmp")
            shutil.copyfile(source, scratch)
            scratch.replace(target)


def annotation_of(image: RoundImage, folder: Path) -> Path:
    """The Labelme file of an image in the folder of a round."""
    return (folder / image.name).with_suffix(".json")


def propose(model: Path | None, images: Sequence[RoundImage], folder: Path) -> None:
    """Write the predictions of a model as Labelme files to correct; an interrupted call is continued."""
    if model is not None and not all(annotation_of(image, folder).exists() for image in images):
        predict(model, folder, out=folder, to="labelme")
