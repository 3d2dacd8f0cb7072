"""COCO panoptic: a PNG per image whose colors are segment ids, and a JSON file with the class of each segment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats import coco
from d2tune.annotations.formats.semantic import paint, separated_map
from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.coco_layout import with_layout
from d2tune.annotations.formats.shared.parts import mask_part, unite
from d2tune.annotations.formats.shared.sources import folders_of
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.formats.voc import read_pixels
from d2tune.annotations.geometry.masks import Patch, encode_mask, rle_bbox_xywh
from d2tune.annotations.io.json_files import JsonError, decode_json, read_bytes
from d2tune.annotations.io.outputs import beside, png_bytes, refuse_existing, write_output, write_output_json
from d2tune.annotations.io.places import is_file
from d2tune.annotations.model.dataset import Dataset, Instance
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from d2tune.text import describe


def write(dataset: Dataset, out: Path, *, force: bool = False) -> list[Path]:
    """Write the files that Detectron2's panoptic FPN needs for training and evaluation.

    ``panoptic/*.png`` and ``panoptic.json`` are the COCO panoptic ground truth, ``stuff/*.png`` the label maps
    (0 for things, 1 and up for stuff, 255 for ignored pixels) and ``instances.json`` the things as COCO instances.

    Args:
        dataset: What to write.
        out: The folder.
        force: Whether files that an earlier conversion wrote are replaced; others never are.

    Returns:
        The files written.

    Raises:
        DataError: A file is already there, or there are more than 255 classes.
    """
    segments, stuff = beside(dataset.images, out / "panoptic", ".png"), beside(dataset.images, out / "stuff", ".png")
    tables = [out / "panoptic.json", out / "instances.json"]
    refuse_existing([*segments.values(), *stuff.values(), *tables], force=force)
    groups, written = dataset.by_image(), coco.kept_ids(dataset)
    annotations = []
    for image in dataset.images:
        instances = groups[image.id]
        top = paint(instances, width_px=image.width_px, height_px=image.height_px)
        ids, infos = panoptic_map(dataset, instances, top)
        infos = [info | {"category_id": written.categories[info["category_id"]]} for info in infos]
        write_output(segments[image.id], png_bytes(to_colors(ids)))
        write_output(stuff[image.id], png_bytes(separated_map(dataset, instances, top)))
        name = segments[image.id].relative_to(out / "panoptic").as_posix()
        annotations.append({"image_id": written.images[image.id], "file_name": name, "segments_info": infos})
    categories = [
        {"id": written.categories[category.id], "name": category.name, "isthing": int(category.isthing)}
        for category in dataset.categories
    ]
    images = list(coco.image_rows(dataset, written))
    panoptic = {"images": images, "annotations": annotations, "categories": categories}
    write_output_json(tables[0], panoptic, indent=1)
    coco.write(dataset, tables[1], force=force)
    return [*segments.values(), *stuff.values(), *tables]


def panoptic_map(
    dataset: Dataset, instances: Sequence[Instance], top: NDArray[np.int32]
) -> tuple[NDArray[np.int32], list[dict[str, Any]]]:
    """Segment ids ``(H, W)``, 0 for ignored pixels, and the ``segments_info`` of an image.

    Each thing is a segment; all stuff of a class is one segment. An instance that is fully covered has none.
    """
    isthing = {category.id: category.isthing for category in dataset.categories}
    members: dict[tuple[int, int], list[int]] = {}
    for index, instance in enumerate(instances):
        category_id = instance.category_id
        members.setdefault((category_id, index if isthing[category_id] else -1), []).append(index)
    ids = np.zeros(top.shape, dtype=np.int32)
    infos: list[dict[str, Any]] = []
    for (category_id, _), indices in members.items():
        mask = np.isin(top, indices)
        if not mask.any():
            continue
        number = len(infos) + 1
        ids[mask] = number
        infos.append(
            {
                "id": number,
                "category_id": category_id,
                "isthing": int(isthing[category_id]),
                "iscrowd": int(any(instances[index].iscrowd for index in indices)),
                "area": int(mask.sum()),
                "bbox": [int(value) for value in rle_bbox_xywh(encode_mask(mask))],
            }
        )
    return ids, infos


def to_colors(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Segment ids ``(H, W)`` as colors ``(H, W, 3)``: id = R + 256 G + 65536 B."""
    return np.stack([ids & 255, (ids >> 8) & 255, (ids >> 16) & 255], axis=-1).astype(np.uint8)


def from_colors(colors: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Segment ids ``(H, W)`` from colors ``(H, W, 3)``."""
    wide = colors.astype(np.int32)
    ids: NDArray[np.int32] = wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]
    return ids


def is_panoptic(value: object) -> bool:
    """Whether a parsed JSON file is a COCO panoptic file."""
    rows = value.get("annotations") if isinstance(value, dict) else None
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict) and "segments_info" in rows[0]


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a COCO panoptic file, or the one in a folder; areas and boxes are measured in the PNGs.

    The PNGs are looked up in a folder with the name of the JSON file, in ``panoptic`` and beside the file.

    Args:
        source: JSON file, or a folder with such a file.
        options: How to read.

    Raises:
        DataError: The source does not exist, or has not exactly one COCO panoptic file.
    """
    source = Path(source).absolute()
    path, value = _panoptic_file(source, options)
    folders = with_layout(folders_of(source, options), path, value.get("images"), options)
    unit = Unit(path.relative_to(folders.source).as_posix())
    loose = coco.Loose()
    classes = coco.Classes(value.get("categories"), unit, options, loose, used=lambda: _used(value))
    images, units = coco.read_images(value.get("images"), path, unit, folders, loose)
    annotated: set[int] = set()
    for index, row in enumerate(value["annotations"]):
        image_unit = images.get(row.get("image_id"), key="image_id", index=index) if isinstance(row, dict) else None
        if image_unit is None:
            message = f"the image of annotation {index} does not exist: {describe(row)}"
            unit.note("error", "image_missing", message)
        elif id(image_unit) in annotated:
            unit.note("error", "duplicate_image", f"the image {image_unit.image_name} has two annotations")
        else:
            annotated.add(id(image_unit))
            if image_unit.image is not None and not image_unit.is_bad:
                _read_segments(row, path, image_unit, classes, loose)
    loose.note(unit)
    return assemble(
        [unit, *(one for one in units if id(one) in annotated)],
        options,
        root=folders.root,
        names=classes.names,
        stuff=classes.stuff,
        category_ids=classes.ids,
    )


def _used(value: dict[str, Any]) -> Iterator[object]:
    """The ``category_id`` of all segments."""
    for row in value["annotations"]:
        infos = row.get("segments_info") if isinstance(row, dict) else None
        for info in infos if isinstance(infos, list) else []:
            if isinstance(info, dict):
                yield info.get("category_id")


def _panoptic_file(source: Path, options: ReadOptions) -> tuple[Path, dict[str, Any]]:
    if not source.exists():
        raise DataError("there is no such file or folder", file=source)
    paths = (
        [source]
        if source.is_file()
        else [source / name for name in folders_of(source, options).walk() if name.lower().endswith(".json")]
    )
    matches = []
    for path in paths:
        try:
            value, _ = decode_json(read_bytes(path))
        except JsonError as error:
            if source.is_file():
                raise DataError(str(error), file=path) from error
            continue
        except OSError as error:
            raise DataError(f"the file cannot be read ({error.strerror})", file=path) from error
        if is_panoptic(value):
            matches.append((path, value))
    if len(matches) != 1:
        names = ", ".join(path.name for path, _ in matches[:5])
        raise DataError(
            "expected one COCO panoptic file", file=source, found=names or "none", hint="Give the path of the file."
        )
    return matches[0]


def _read_segments(row: dict[str, Any], path: Path, unit: Unit, classes: coco.Classes, loose: coco.Loose) -> None:
    """Read the segments of one image from its PNG."""
    assert unit.image is not None
    ids = _segment_ids(row.get("file_name"), path, unit)
    if ids is None:
        return
    infos = row.get("segments_info")
    for index, info in enumerate(infos if isinstance(infos, list) else []):
        number = info.get("id") if isinstance(info, dict) else None
        if not isinstance(info, dict) or type(number) is not int or number <= 0:
            message = f"a segment needs an id above 0, found {describe(info)}"
            unit.note("error", "bad_shape", message, shape=index)
            continue
        label = classes.read(info.get("category_id"), unit, index)
        if label is None:
            continue
        mask = ids == number
        if not mask.any():
            message = f"the segment {number} has no pixel in the PNG; dropped"
            unit.note("warning", "rasterizes_empty", message, shape=index)
            continue
        part = mask_part(Patch(mask, 0, 0), unit, index)
        iscrowd = coco.flag_of(info, "iscrowd", unit, index, loose)
        if part is not None:
            unit.drafts.append(unite(label, [part], unit, iscrowd=iscrowd))


def _segment_ids(name: object, path: Path, unit: Unit) -> NDArray[np.int32] | None:
    """The segment ids ``(H, W)`` in the PNG of an image, or None with an error that gives the reason."""
    assert unit.image is not None
    base = str(name).replace("\\", "/")
    if not isinstance(name, str) or ".." in PurePosixPath(base).parts or PurePosixPath(base).is_absolute():
        unit.note("error", "mask_missing", f"the annotation does not name a PNG, found {describe(name)}")
        return None
    places = [folder / base for folder in (path.with_suffix(""), path.parent / "panoptic", path.parent)]
    png = next((place for place in places if is_file(str(place))), None)
    if png is None:
        unit.note("error", "mask_missing", f"the PNG {places[0]} does not exist")
        return None
    colors = read_pixels(png, unit, mode="RGB")
    return None if colors is None else from_colors(colors)
