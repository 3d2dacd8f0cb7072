"""What a tracking writes: a Labelme file for each frame, the table ``track.csv``, and the journal to go on with."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from d2tune.annotations.formats.labelme import VERSION, image_path_at
from d2tune.annotations.formats.labelme_outlines import new_shapes
from d2tune.annotations.geometry.masks import encode_mask, rle_area_px2, rle_bbox_xywh, to_rle
from d2tune.annotations.io.output_record import PREDICTIONS, OwnFiles
from d2tune.annotations.io.outputs import beside, write_output, write_output_json
from d2tune.annotations.model.dataset import Image, Instance
from d2tune.annotations.model.types import Mask
from d2tune.errors import DataError
from d2tune.files import write_bytes
from d2tune.propagation.clip import Clip
from d2tune.propagation.methods.base import Propagated
from d2tune.propagation.references import References, TrackedObject, read_labelme, read_references

TABLE = "track.csv"
JOURNAL = ".d2tune-track.jsonl"
"""Lines of JSON: first the digest of what is tracked and how, then a line for each finished frame."""

_MIN_AREA_PX2 = 9.0
_HOLE_SHARE = 0.01
"""Holes below this share of an object are filled: with a hole, Labelme can only show a mask, not a polygon."""
_COLUMNS = ("frame", "image", "time_s", "kind", "label", "group_id", "area_px2", "confidence")


def labelme_places(clip: Clip, out: Path) -> list[Path]:
    """The Labelme file of each frame: with its name, in the output folder."""
    images = [
        Image(index + 1, clip.name(index), clip.width_px, clip.height_px, path=path)
        for index, path in enumerate(clip.paths)
    ]
    places = beside(images, out, ".json")
    return [places[image.id] for image in images]


def persons_files(places: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The Labelme files of a person in the output folder: those that are references, and those that are not yet.

    A file is a person's where d2tune did not write it, or where it was changed since. It is a reference once none of
    its shapes has the flag ``prediction``, or the flag ``checked`` of the image is set.

    Returns:
        References, and files that still have shapes with the flag.

    Raises:
        DataError: A person's file is not a Labelme file.
    """
    own = OwnFiles()
    ready: list[Path] = []
    open_files: list[Path] = []
    for path in places:
        if path.exists() and not own.is_unchanged(path, PREDICTIONS):
            (open_files if _is_proposal(read_labelme(path)) else ready).append(path)
    return ready, open_files


def _is_proposal(content: dict[str, Any]) -> bool:
    flags = content.get("flags")
    if isinstance(flags, dict) and flags.get("checked") is True:
        return False
    shapes = [shape for shape in content["shapes"] if isinstance(shape, dict)]
    return any(isinstance(shape.get("flags"), dict) and shape["flags"].get("prediction") is True for shape in shapes)


def write_frame(
    place: Path, clip: Clip, result: Propagated, objects: Sequence[TrackedObject], *, tolerance_px: float
) -> None:
    """Write the Labelme file of a frame, which replaces one that d2tune wrote.

    Args:
        place: The file.
        clip: The clip.
        result: The masks of the frame.
        objects: The objects by their numbers.
        tolerance_px: How far the outlines may move where they are simplified.
    """
    shapes: list[dict[str, Any]] = []
    for number, mask in sorted(result.masks.items()):
        outlines = _shapes(objects[number], mask, result.confidences[number], tolerance_px)
        group_id = objects[number].group_id
        if len(outlines) > 1 and group_id is None:
            group_id = free_group(objects, number)
        shapes += [outline | {"group_id": group_id} for outline in outlines]
    content: dict[str, Any] = {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path_at(clip.paths[result.index], place),
        "imageData": None,
        "imageHeight": clip.height_px,
        "imageWidth": clip.width_px,
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    write_output_json(place, content, kind=PREDICTIONS)


def without_small_holes(masks: Mapping[int, Mask]) -> dict[int, Mask]:
    """Masks ``(H, W)`` whose small holes are filled, but for those in which there is another object."""
    others = np.sum(list(masks.values()), axis=0) if masks else 0
    return {number: _filled(mask, others > mask) for number, mask in masks.items()}


def _filled(mask: Mask, taken: Mask) -> Mask:
    """A mask with its small holes filled where no pixel of them is taken."""
    ground = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, numbers, rows, _ = cv2.connectedComponentsWithStats(ground, connectivity=4)
    areas = rows[:, cv2.CC_STAT_AREA]
    is_small = areas < max(_MIN_AREA_PX2, _HOLE_SHARE * float(mask.sum()))
    is_small[0] = False  # the object itself
    is_small[numbers[0, 0]] = False  # what surrounds it
    inside = numbers[1:-1, 1:-1]
    is_small[np.unique(inside[taken])] = False
    filled: Mask = mask | is_small[inside]
    return filled


def free_group(objects: Sequence[TrackedObject], number: int) -> int:
    """The group that joins the outlines of an object without one: a number that no other object has or may get.

    Args:
        objects: The objects.
        number: The place of the object among them.
    """
    used = {one.group_id for one in objects}
    free = (group for group in range(1, 2 * len(objects) + 2) if group not in used)
    return next(islice(free, number, None))


def _shapes(one: TrackedObject, mask: Mask, confidence: float, tolerance_px: float) -> list[dict[str, Any]]:
    """The shapes of a mask, without their group."""
    rle = encode_mask(mask)
    instance = Instance(
        id=1,
        image_id=1,
        category_id=1,
        segmentation=to_rle(rle),
        bbox_xywh=rle_bbox_xywh(rle),
        area_px2=rle_area_px2(rle),
        score=float(np.clip(confidence, 0, 1)),
    )
    outlines, _ = new_shapes(instance, one.label, tolerance_px=tolerance_px, min_area_px2=_MIN_AREA_PX2)
    return [{"mask": None} | outline for outline in outlines]


def masks_of(place: Path, index: int, clip: Clip, references: References) -> dict[int, Mask]:
    """The masks in a Labelme file that `write_frame` wrote.

    Raises:
        DataError: It cannot be read.
    """
    if not read_labelme(place)["shapes"]:
        return {}
    numbers = {(one.label, one.group_id): number for number, one in enumerate(references.objects)}
    read = read_references([(place, index)], clip)
    masks: dict[int, Mask] = {}
    for number, mask in read.frames[0].masks.items():
        one = read.objects[number]
        known = numbers.get((one.label, one.group_id), numbers.get((one.label, None)))
        if known is not None:
            masks[known] = mask
    return masks


@dataclass(frozen=True, slots=True)
class FinishedFrame:
    """A frame whose file is written.

    Attributes:
        confidences: The confidence of each object, by its number.
        areas_px2: The area of each object that the frame shows.
    """

    confidences: dict[int, float]
    areas_px2: dict[int, int]


class Journal:
    """The frames that are finished, for a call that goes on where an earlier one was stopped.

    Args:
        out: The output folder.
        digest: Of the references and the settings; a journal with another one is begun anew. Of one whose last line
            was cut off, that line is removed.
    """

    def __init__(self, out: Path, digest: str) -> None:
        self._path = out / JOURNAL
        self.finished: dict[int, FinishedFrame] = {}
        header, *rows = _rows_of(self._path) or [{}]
        if header.get("digest") == digest:
            write_bytes(self._path, b"".join(json.dumps(row).encode() + b"\n" for row in (header, *rows)))
            for row in rows:
                confidences, areas_px2 = (
                    {int(key): value for key, value in row[name].items()} for name in ("confidences", "areas_px2")
                )
                self.finished[row["frame"]] = FinishedFrame(confidences, areas_px2)
        else:
            write_bytes(self._path, (json.dumps({"digest": digest}) + "\n").encode())

    def add(self, result: Propagated) -> None:
        """Note a frame whose file is written."""
        confidences = {number: round(float(value), 6) for number, value in result.confidences.items()}
        areas_px2 = {number: int(mask.sum()) for number, mask in result.masks.items()}
        self.finished[result.index] = FinishedFrame(confidences, areas_px2)
        row = {"frame": result.index, "confidences": confidences, "areas_px2": areas_px2}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


def _rows_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal; a last line that is cut off is ignored."""
    rows = []
    try:
        for line in path.read_bytes().splitlines():
            rows.append(json.loads(line))
    except (OSError, ValueError):
        return rows
    return rows


def check_table(out: Path) -> None:
    """Refuse to replace a person's ``track.csv``.

    Raises:
        DataError: There is one.
    """
    path = out / TABLE
    if path.exists() and not OwnFiles().is_unchanged(path, PREDICTIONS):
        raise DataError(
            "the file is already there and is not overwritten", file=path, hint="Move it away, or name another --out."
        )


def write_table(
    out: Path,
    clip: Clip,
    references: References,
    finished: Mapping[int, FinishedFrame],
) -> Path:
    """Write ``track.csv``: a row for each object in each frame that is known.

    Args:
        out: The output folder.
        clip: The clip.
        references: The references.
        finished: The frames whose files are written.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    annotated = {one.index: one for one in references.frames}
    for index in sorted({*annotated, *finished}):
        time_s = "" if clip.times_s is None else f"{clip.times_s[index]:.6f}".rstrip("0").rstrip(".")
        for number, one in enumerate(references.objects):
            if index in annotated:
                mask = annotated[index].masks.get(number)
                area, kind, confidence = 0 if mask is None else int(mask.sum()), "reference", ""
            else:
                area, kind = finished[index].areas_px2.get(number, 0), "tracked"
                confidence = f"{finished[index].confidences.get(number, 0.0):.4f}"
            group = "" if one.group_id is None else one.group_id
            writer.writerow((index, clip.name(index), time_s, kind, one.label, group, area, confidence))
    return write_output(out / TABLE, stream.getvalue().encode("utf-8", "backslashreplace"), kind=PREDICTIONS)
