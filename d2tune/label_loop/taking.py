"""Taking what a person has corrected: into the training split, never over a file that is there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.annotations.formats import labelme
from d2tune.annotations.io.json_files import JsonError, decode_json, read_bytes
from d2tune.annotations.io.output_record import PREDICTIONS, OwnFiles
from d2tune.annotations.splitting.duplicates import content_digest
from d2tune.data.sources import split_source
from d2tune.errors import DataError
from d2tune.label_loop.choosing import annotation_of
from d2tune.label_loop.data import LoopData
from d2tune.label_loop.state import RoundImage, TakenImage

SUBFOLDER = "label_loop"
"""Folder below that of the training images for images that lie elsewhere."""

CHECKED = "checked"
"""The flag of an image that a person ticks in Labelme to confirm annotations that need no change."""

_AGAIN = "Correct it, then run the same command again; nothing has been taken."


def seen_images(images: Sequence[RoundImage], folder: Path) -> list[RoundImage]:
    """The images whose Labelme file a person has saved: it is not, or no longer, that of a prediction.

    Args:
        images: The images of the round.
        folder: The folder of the round.
    """
    own = OwnFiles()
    files = {image.name: annotation_of(image, folder) for image in images}
    return [
        image
        for image in images
        if os.path.lexists(files[image.name]) and not own.is_unchanged(files[image.name], PREDICTIONS)
    ]


def check_seen(images: Sequence[RoundImage], folder: Path, data: LoopData) -> None:
    """Read the Labelme files of images as training will read them.

    Raises:
        DataError: A file has an error, such as a label that the project does not have.
    """
    project = data.project
    labels = project.class_names or data.labels
    for image in images:
        path = annotation_of(image, folder)
        _, options = split_source(project, str(path), labels)
        options = replace(
            options, image_root=None, data_root=None, image_list=None, skip_bad=False, no_predictions=False
        )
        dataset = labelme.read(path, options)
        for finding in dataset.errors():
            shape = None if finding.shape is None else f"shape {finding.shape}"
            near = f"Did you mean {finding.hint!r}? " if finding.code == "unknown_label" and finding.hint else ""
            raise DataError(finding.message, file=path, place=shape, hint=f"{near}{_AGAIN}")
        if not dataset.images:
            raise DataError("the file is not a Labelme annotation", file=path, hint=_AGAIN)
        if project.has_label_maps and project.data.background is None and not dataset.instances:
            raise DataError("the image has no shapes, so it has no labeled pixels", file=path, hint=_AGAIN)


@dataclass(slots=True)
class _Places:
    """Chooses places for files that nothing has yet.

    Attributes:
        data: The data of the project.
        taken: Places that were chosen before.
    """

    data: LoopData
    taken: set[Path]

    def of(self, image: RoundImage, folder: Path) -> TakenImage:
        """The places of an image and its Labelme file.

        An image below the folder of the training images stays where it is; another one is copied there, into
        `SUBFOLDER`, with its path below ``folder``.

        Args:
            image: The image.
            folder: The folder of images that the loop was given.
        """
        images, annotations = self.data.folders.images, self.data.folders.annotations
        source = Path(image.source)
        if source.resolve().is_relative_to(images.resolve()):
            target = images / source.resolve().relative_to(images.resolve())
        else:
            target = self._free(images / SUBFOLDER / _below(source, folder), source)
        listed = target.relative_to(images)
        return TakenImage(
            name=image.name,
            image=str(target),
            annotation=str(self._annotation(annotations / listed)),
            listed=listed.as_posix(),
        )

    def _free(self, target: Path, source: Path) -> Path:
        """A path that no other image has; one with the same content is taken as it is."""
        number = 1
        place = target
        while place in self.taken or (os.path.lexists(place) and content_digest(place) != content_digest(source)):
            number += 1
            place = target.with_name(f"{target.stem}_{number}{target.suffix}")
        self.taken.add(place)
        return place

    def _annotation(self, image: Path) -> Path:
        """The Labelme file of an image: with its name, and with its whole name if that is another image's."""
        own = OwnFiles()
        for place in (image.with_suffix(".json"), image.with_name(f"{image.name}.json")):
            is_free = not os.path.lexists(place) or own.is_unchanged(place, PREDICTIONS)
            if is_free and place not in self.taken:
                self.taken.add(place)
                return place
        raise DataError(
            "the Labelme file is already there and is not overwritten",
            file=image.with_suffix(".json"),
            hint="The image was labeled in the meantime; move one of the two files away.",
        )


def _below(source: Path, folder: Path) -> Path:
    try:
        return source.relative_to(folder.absolute())
    except ValueError:
        return Path(source.name)


def places_of(images: Sequence[RoundImage], data: LoopData, folder: Path) -> list[TakenImage]:
    """Where each image and its Labelme file will be.

    Args:
        images: The images that a person has seen.
        data: The data of the project.
        folder: The folder of images that the loop was given.

    Raises:
        DataError: A Labelme file is there that is not a prediction.
    """
    places = _Places(data, set())
    return [places.of(image, folder) for image in images]


def take(taken: Sequence[TakenImage], sources: Sequence[RoundImage], folder: Path) -> None:
    """Copy images and write their Labelme files, without the marks of predictions; what is there already stays.

    Args:
        taken: The images with their places.
        sources: The images of the round.
        folder: The folder of the round.

    Raises:
        DataError: A file is in the way.
    """
    by_name = {image.name: image for image in sources}
    for one in taken:
        image = by_name[one.name]
        target, place = Path(one.image), Path(one.annotation)
        if not target.exists():
            _copy(Path(image.source), target)
        content = _content(annotation_of(image, folder), os.path.relpath(target, place.parent).replace(os.sep, "/"))
        if os.path.lexists(place) and not OwnFiles().is_unchanged(place, PREDICTIONS):
            if place.read_bytes() == content:
                continue
            raise DataError(
                "the Labelme file is already there and is not overwritten", file=place, hint="Move it away."
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(place, content)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, scratch)
    scratch.replace(target)


def _content(path: Path, image: str) -> bytes:
    """The Labelme file of an image as a person's work, with the path of the image that it lies beside."""
    try:
        value, _ = decode_json(read_bytes(path))
    except JsonError as error:
        raise DataError(str(error), file=path) from None
    value |= {"imagePath": image, "shapes": [_without_marks(shape) for shape in value["shapes"]]}
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")


def _without_marks(shape: Any) -> Any:
    """A shape without the flag ``prediction`` and the score, which those that a person has seen no longer are."""
    if not isinstance(shape, dict):
        return shape
    kept = {key: value for key, value in shape.items() if key != "score"}
    if isinstance(kept.get("flags"), dict):
        kept["flags"] = {key: value for key, value in kept["flags"].items() if key != "prediction"}
    if str(kept.get("description")).startswith("score="):
        kept["description"] = ""
    return kept
