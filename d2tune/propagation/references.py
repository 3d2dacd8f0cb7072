"""The objects that a person drew on some frames of a clip, read from Labelme files."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2tune.annotations.formats.labelme import is_labelme
from d2tune.annotations.formats.labelme_shapes import area_type, read_shape
from d2tune.annotations.formats.shared.labels import SPECIAL_LABELS
from d2tune.annotations.formats.shared.units import ImageDraft, Unit
from d2tune.annotations.geometry.masks import decode_mask
from d2tune.annotations.io.json_files import JsonError, decode_json, read_bytes
from d2tune.annotations.model.types import Mask
from d2tune.errors import DataError
from d2tune.propagation.clip import Clip
from d2tune.propagation.methods.base import Reference
from d2tune.text import counted, describe


@dataclass(frozen=True, slots=True)
class TrackedObject:
    """An object of a clip.

    Attributes:
        label: Its class.
        group_id: Its group in the Labelme files; None where it is the only object of its class and has none.
    """

    label: str
    group_id: int | None

    @property
    def name(self) -> str:
        """As messages name it."""
        return self.label if self.group_id is None else f"{self.label} (group {self.group_id})"


@dataclass(frozen=True, slots=True)
class References:
    """What a person drew on a clip.

    Attributes:
        objects: The objects; their numbers in `frames` are their places here.
        frames: The frames with their masks, in the order of time.
        files: The Labelme file of each of these frames.
    """

    objects: tuple[TrackedObject, ...]
    frames: tuple[Reference, ...]
    files: tuple[Path, ...]

    def digest(self) -> str:
        """A hash of the objects and their masks."""
        digest = hashlib.sha256(repr(self.objects).encode())
        for frame in self.frames:
            digest.update(str(frame.index).encode())
            for number, mask in sorted(frame.masks.items()):
                digest.update(str(number).encode() + mask.tobytes())
        return digest.hexdigest()


@dataclass(slots=True)
class _Annotated:
    """The shapes of a file that are one object.

    Attributes:
        label: Its class.
        group_id: The group in the file.
        mask: The union of the shapes ``(H, W)``.
        place: The first of the shapes, as messages name it.
    """

    label: str
    group_id: int | None
    mask: Mask
    place: str


@dataclass(slots=True)
class _AnnotatedFile:
    """A Labelme file with what is drawn in it."""

    path: Path
    index: int
    objects: list[_Annotated] = field(default_factory=list)


def read_labelme(path: Path) -> dict[str, Any]:
    """The content of a Labelme file.

    Raises:
        DataError: It cannot be read, or is not a Labelme file.
    """
    try:
        value, _ = decode_json(read_bytes(path))
    except JsonError as error:
        raise DataError(str(error), file=path) from None
    except FileNotFoundError:
        raise DataError("the Labelme file does not exist", file=path) from None
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror})", file=path) from None
    if not is_labelme(value):
        raise DataError("the file is not a Labelme annotation", file=path, hint="Annotate a frame with Labelme.")
    content: dict[str, Any] = value
    return content


def read_references(files: Sequence[tuple[Path, int]], clip: Clip) -> References:
    """Read Labelme files, and find out which shapes in them are the same object.

    Shapes of one label and one ``group_id`` are one object, in all files. A shape without ``group_id`` is an object of
    its own: the only one of its label, or one that gets a number in the order of the file.

    Args:
        files: Labelme files, and the indices of their frames.
        clip: The clip.

    Raises:
        DataError: A file cannot be read, or is of another size; two objects have one group, or it is not clear which
            object of a file is which one of another file; or no object is drawn at all.
    """
    annotated = [_read(path, index, clip) for path, index in sorted(files, key=lambda item: item[1])]
    _refuse_shared_groups(annotated)
    _number(annotated)
    if not any(file.objects for file in annotated):
        raise DataError(
            "no object is drawn in the labeled frames",
            file=annotated[0].path,
            hint="Draw a polygon around each object on one of the frames.",
        )
    keys = {TrackedObject(one.label, one.group_id): None for file in annotated for one in file.objects}
    numbers = {key: number for number, key in enumerate(keys)}
    frames = [
        Reference(
            file.index,
            {numbers[TrackedObject(one.label, one.group_id)]: one.mask for one in file.objects},
        )
        for file in annotated
    ]
    return References(tuple(keys), tuple(frames), tuple(file.path for file in annotated))


def _read(path: Path, index: int, clip: Clip) -> _AnnotatedFile:
    """The objects of a file; shapes without a group are not joined."""
    content = read_labelme(path)
    check_size(path, content, clip)
    file = _AnnotatedFile(path, index)
    by_group: dict[tuple[str, int], _Annotated] = {}
    for place, label, group_id, mask in _shapes(path, content, clip):
        if group_id is not None and (label, group_id) in by_group:
            by_group[label, group_id].mask |= mask
            continue
        one = _Annotated(label, group_id, mask, place)
        file.objects.append(one)
        if group_id is not None:
            by_group[label, group_id] = one
    return file


def check_size(path: Path, content: dict[str, Any], clip: Clip) -> None:
    """Refuse a Labelme file of an image of another size than the frames.

    Raises:
        DataError: The sizes differ.
    """
    size = content.get("imageWidth"), content.get("imageHeight")
    if size != (None, None) and size != (clip.width_px, clip.height_px):
        raise DataError(
            "the annotated image has another size than the frames of the clip",
            file=path,
            found=f"{size[0]} x {size[1]} px",
            expected=f"{clip.width_px} x {clip.height_px} px",
            hint="Annotate a frame of this clip.",
        )


def _shapes(path: Path, content: dict[str, Any], clip: Clip) -> Iterator[tuple[str, str, int | None, Mask]]:
    """Place, label, group and mask of the shapes of a file that have an area."""
    unit = Unit(path.name, ImageDraft(clip.paths[0].name, clip.width_px, clip.height_px, None))
    for index, shape in enumerate(content["shapes"]):
        place = f"shape {index}"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
            raise DataError("the shape has no label", file=path, place=place)
        label, kind = shape["label"].strip(), area_type(shape.get("shape_type"))
        if kind is None or label in SPECIAL_LABELS:
            continue
        group_id = shape.get("group_id")
        if group_id is not None and type(group_id) is not int:
            raise DataError("the group_id is not a whole number", file=path, place=place, found=describe(group_id))
        shape_mask = read_shape(shape, unit, index, kind=kind)
        errors = [finding for finding in unit.findings if finding.level == "error"]
        if errors:
            raise DataError(errors[0].message, file=path, place=place)
        if shape_mask is None or not shape_mask.area_px2:
            raise DataError("the shape has no pixels on the frame", file=path, place=place, hint="Draw or remove it.")
        yield f"{place} ({label})", label, group_id, decode_mask(shape_mask.rle)


def _refuse_shared_groups(files: Sequence[_AnnotatedFile]) -> None:
    """Refuse one group of objects with different labels."""
    owners: dict[int, tuple[_AnnotatedFile, _Annotated]] = {}
    for file in files:
        for one in file.objects:
            if one.group_id is None:
                continue
            first, owner = owners.setdefault(one.group_id, (file, one))
            if owner.label != one.label:
                where = "in this file" if first is file else f"in {first.path}"
                raise DataError(
                    f"two objects have the group_id {one.group_id}: {one.label!r} here, and {owner.label!r} {where}, "
                    f"{owner.place.split(' (')[0]}",
                    file=file.path,
                    place=one.place.split(" (")[0],
                    hint="Give each object a group_id of its own, the same in all frames.",
                )


def _number(files: Sequence[_AnnotatedFile]) -> None:
    """Give objects without a group that of the same object in other files, or a number where there are several."""
    groups: dict[str, set[int]] = {}
    for file in files:
        for one in file.objects:
            groups.setdefault(one.label, set())
            if one.group_id is not None:
                groups[one.label].add(one.group_id)
    for label, known in groups.items():
        counts = {file.path: Counter(one.label for one in file.objects)[label] for file in files}
        loose = [file for file in files if any(one.label == label and one.group_id is None for one in file.objects)]
        if not loose:
            continue
        if max(counts.values()) == 1 and len(known) <= 1:
            _assign(loose, label, iter([*known, None]), repeat=True)
        elif len(loose) == 1:
            used = {one.group_id for one in loose[0].objects}
            most = max(counts.values()) + len(loose[0].objects) + len(used)
            _assign(loose, label, (number for number in range(1, most + 2) if number not in used))
        else:
            raise DataError(
                f"{label!r} has objects without a group_id in several frames, so that it is not known which are the "
                "same",
                file=loose[1].path,
                found=f"{counted(counts[loose[1].path], 'object')} here, {counts[loose[0].path]} in {loose[0].path}",
                hint="Give each object a group_id, the same in all frames.",
            )


def _assign(
    files: Sequence[_AnnotatedFile], label: str, numbers: Iterator[int | None], *, repeat: bool = False
) -> None:
    """Give numbers to the objects of a label that have none."""
    number = next(numbers) if repeat else None
    for file in files:
        for one in file.objects:
            if one.label == label and one.group_id is None:
                one.group_id = number if repeat else next(numbers)
