"""``d2tune outline``: scribbles and boxes become polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from d2tune.annotations.formats.labelme import VERSION, image_path_at
from d2tune.annotations.formats.labelme_outlines import new_shapes
from d2tune.annotations.geometry.masks import encode_mask, rle_area_px2, rle_bbox_xywh, to_rle
from d2tune.annotations.io.output_record import PREDICTIONS
from d2tune.annotations.io.outputs import protected, refuse_existing, write_output_json
from d2tune.annotations.model.dataset import Instance
from d2tune.annotations.model.types import Mask
from d2tune.classical.outline import METHODS, Method, outline_box, outline_scribbles
from d2tune.errors import DataError
from d2tune.scribbles.reading import MarkedFile, MarkedObject, rasterized, read_marks
from d2tune.text import counted

BACKGROUND = "background"
_MIN_AREA_PX2 = 9.0


@dataclass(frozen=True, slots=True)
class OutlineResult:
    """What was outlined.

    Attributes:
        folder: The output folder.
        files: Number of written files.
        objects: Number of outlined objects.
        skipped: Number of JSON files that mark no object.
    """

    folder: Path
    files: int
    objects: int
    skipped: int

    @property
    def summary(self) -> str:
        """A sentence or two."""
        skipped = f" {counted(self.skipped, 'JSON file')} without marks skipped." if self.skipped else ""
        return f"{counted(self.objects, 'outline')} in {counted(self.files, 'file')} in {self.folder}.{skipped}"


def outline(
    source: Path,
    *,
    out: Path | None = None,
    method: str = "grabcut",
    background: str = BACKGROUND,
    tolerance_px: float = 1.0,
    force: bool = False,
) -> OutlineResult:
    """Outline the marked objects of Labelme files, and write Labelme files with polygons to correct.

    All objects are outlined before the first file is written, so that a mistake in the last one leaves no
    files. The polygons have the flag ``prediction``; shapes with an area, other than rectangles, stay as they are.

    Args:
        source: A folder of Labelme files, with its subfolders, or a file.
        out: The output folder; None is one beside the source, whose name ends with ``_outlines``.
        method: ``grabcut`` or ``random-walker``.
        background: The label of scribbles beside the objects.
        tolerance_px: How far outlines may move where they are simplified.
        force: Whether files that an earlier call wrote, if they were not changed, are replaced.

    Raises:
        DataError: There are no marks, a mark is invalid, or an output file exists.
    """
    if method not in METHODS:
        raise DataError("the method does not exist", place="--method", found=method, expected=" or ".join(METHODS))
    if not source.exists():
        raise DataError("the file or folder does not exist", file=source)
    root = source if source.is_dir() else source.parent
    name = source.name if source.is_dir() else source.stem
    target = out or source.resolve().parent / f"{name}_outlines"
    paths = [source] if source.is_file() else _json_files(source, skip=target)
    read = [(path, read_marks(path, background=background)) for path in paths]
    marked = [file for _, file in read if file is not None]
    if not marked:
        raise DataError(
            "no Labelme file has scribbles or boxes",
            file=source,
            found=counted(len(paths), "JSON file"),
            expected="shapes of type line, linestrip, point or rectangle",
        )
    places = [target / file.path.relative_to(root) for file in marked]
    with protected(lambda: [path for file in marked for path in (file.path, file.image) if path is not None]):
        refuse_existing(places, force=force, kind=PREDICTIONS)
    objects, contents = 0, {}
    bar = tqdm(zip(marked, places, strict=True), total=len(marked), desc="outlining", unit=" images", disable=None)
    for file, place in bar:
        masks = masks_of(file, method=method)
        contents[place] = _content(file, masks, place, tolerance_px=tolerance_px)
        objects += len(masks)
    for place, content in contents.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_output_json(place, content, kind=PREDICTIONS)
    return OutlineResult(target, len(marked), objects, len(paths) - len(marked))


def masks_of(file: MarkedFile, *, method: Method = "grabcut") -> list[Mask]:
    """The mask of each marked object ``(H, W)``.

    Scribbles of other classes and of other groups are beside an object, as those of the background are.

    Raises:
        DataError: The image cannot be read, or a mark is outside of it.
    """
    rgb = file.pixels()
    return [_mask(file, one, rgb, method) for one in file.objects]


def _mask(file: MarkedFile, one: MarkedObject, rgb: NDArray[np.uint8], method: Method) -> Mask:
    shape = rgb.shape[0], rgb.shape[1]
    lines = [points for group, points in file.background if group in (None, one.group_id)]
    lines += [points for other in file.objects if other is not one for points in other.lines]
    try:
        inside, outside = rasterized(one.lines, shape), rasterized(lines, shape)
        if one.box_xyxy is not None:
            return outline_box(rgb, one.box_xyxy, inside=inside, outside=outside, method=method)
        return outline_scribbles(rgb, inside, outside, method=method)
    except DataError as error:
        raise DataError(
            error.message,
            file=file.path,
            place=f"{one.place} ({one.label})",
            found=error.found,
            expected=error.expected,
            hint=error.hint,
        ) from None


def _content(file: MarkedFile, masks: Sequence[Mask], place: Path, *, tolerance_px: float) -> dict[str, Any]:
    """The Labelme file with the polygons."""
    shapes = list(file.kept)
    for one, mask in zip(file.objects, masks, strict=True):
        shapes += _shapes(one, mask, _free_group(file, shapes), tolerance_px)
    height_px, width_px = masks[0].shape
    content = file.content | {
        "version": VERSION,
        "shapes": shapes,
        "imageHeight": height_px,
        "imageWidth": width_px,
    }
    if file.image is not None:
        content |= {"imagePath": image_path_at(file.image.absolute(), place), "imageData": None}
    return content


def _shapes(one: MarkedObject, mask: Mask, free_group: int, tolerance_px: float) -> list[dict[str, Any]]:
    """The polygons of an object; several have one group."""
    rle = encode_mask(mask)
    instance = Instance(1, 1, 1, to_rle(rle), rle_bbox_xywh(rle), rle_area_px2(rle))
    polygons, _ = new_shapes(instance, one.label, tolerance_px=tolerance_px, min_area_px2=_MIN_AREA_PX2)
    group_id = free_group if len(polygons) > 1 and one.group_id is None else one.group_id
    own = {"group_id": group_id, "description": "", "mask": None}
    return [own | polygon | {"flags": {"prediction": True}} for polygon in polygons]


def _free_group(file: MarkedFile, shapes: Sequence[dict[str, Any]]) -> int:
    used = {one.group_id for one in file.objects} | {shape.get("group_id") for shape in shapes}
    return next(number for number in range(1, len(used) + 2) if number not in used)


def _json_files(folder: Path, *, skip: Path) -> list[Path]:
    """The JSON files of a folder with its subfolders, without hidden ones and those of the output folder."""
    skipped = skip.resolve()
    if skipped == folder.resolve():
        message = "the output folder is the folder of the scribbles, whose files would be replaced"
        raise DataError(message, file=folder, place="--out", hint="Name another folder.")
    paths = (path for path in sorted(folder.rglob("*.json")) if path.is_file())
    return [
        path
        for path in paths
        if not path.resolve().is_relative_to(skipped)
        and not any(step.startswith(".") for step in path.relative_to(folder).parts)
    ]
