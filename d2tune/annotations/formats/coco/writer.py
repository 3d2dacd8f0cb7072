"""Writing COCO instances JSON."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from d2tune.annotations.io.outputs import refuse_existing, write_output
from d2tune.annotations.model.dataset import Dataset, Instance
from d2tune.annotations.model.types import Rle
from d2tune.files import holds

_ROWS_AT_ONCE = 1000
_LEAST_USUAL = 1e-3


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids that are written.

    Attributes:
        images: By `Image.id`.
        categories: By `Category.id`.
    """

    images: Mapping[int, int]
    categories: Mapping[int, int]


def own_ids(dataset: Dataset) -> Ids:
    """The dataset's own ids, which count from 1."""
    return Ids({image.id: image.id for image in dataset.images}, {one.id: one.id for one in dataset.categories})


def kept_ids(dataset: Dataset) -> Ids:
    """The ids of the COCO file that the dataset was read from, where all of them are whole numbers.

    Else the dataset's own ids; images and categories are decided separately. An id 0 is kept: COCO's evaluator takes
    only the annotation id 0 for "not matched".
    """
    own = own_ids(dataset)
    images = {key: value for key, value in dataset.source_image_ids().items() if isinstance(value, int)}
    categories = {key: value for key, value in dataset.source_category_ids().items() if isinstance(value, int)}
    return Ids(
        images if len(images) == len(own.images) else own.images,
        categories if len(categories) == len(own.categories) else own.categories,
    )


def to_coco(dataset: Dataset, *, ids: Ids | None = None) -> dict[str, Any]:
    """The dataset as a COCO instances dict with ``images``, ``annotations`` and ``categories``.

    The ids of annotations count from 1, because COCO's evaluator takes 0 for "not matched". Instances of stuff are
    excluded; where there is any stuff, all categories are listed with ``isthing``. Whole numbers are written without a
    fraction.

    Args:
        dataset: What to write.
        ids: The ids of images and categories; None takes `own_ids`.
    """
    ids = ids or own_ids(dataset)
    return {
        "images": list(image_rows(dataset, ids)),
        "annotations": [row for rows, _ in _annotation_rows(dataset, ids) for row in rows],
        "categories": _category_rows(dataset, ids),
    }


def image_rows(dataset: Dataset, ids: Ids) -> Iterator[dict[str, Any]]:
    """The rows of ``images``."""
    for image in dataset.images:
        size = {"width": image.width_px, "height": image.height_px}
        yield {"id": ids.images[image.id], "file_name": image.file_name} | size


def _category_rows(dataset: Dataset, ids: Ids) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"id": ids.categories[one.id], "name": one.name} for one in dataset.categories]
    if all(category.isthing for category in dataset.categories):
        return rows
    kinds = [{"isthing": int(category.isthing)} for category in dataset.categories]
    return [row | kind for row, kind in zip(rows, kinds, strict=True)]


def _annotation_rows(dataset: Dataset, ids: Ids) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """The annotations in blocks, each with whether orjson writes its numbers as Python does."""
    things = {category.id for category in dataset.categories if category.isthing}
    kept = (instance for instance in dataset.instances if instance.category_id in things)
    first = 1
    while block := list(itertools.islice(kept, _ROWS_AT_ONCE)):
        yield _block(block, first, ids)
        first += len(block)


def _block(instances: Sequence[Instance], first: int, ids: Ids) -> tuple[list[dict[str, Any]], bool]:
    """The annotations of some instances, numbered from ``first``; see `_annotation_rows`."""
    polygons = [instance.segmentation for instance in instances if not isinstance(instance.segmentation, Rle)]
    outlines = [part.reshape(-1) for parts in polygons for part in parts]
    all_boxes = np.array([instance.bbox_xywh for instance in instances], dtype=np.float64)
    lists, is_usual = _plain_lists([*outlines, *all_boxes])
    boxes = lists[len(outlines) :]
    flat = iter(lists)
    rows = []
    for number, (instance, box) in enumerate(zip(instances, boxes, strict=True), start=first):
        segmentation, area_px2 = instance.segmentation, instance.area_px2
        row: dict[str, Any] = {
            "id": number,
            "image_id": ids.images[instance.image_id],
            "category_id": ids.categories[instance.category_id],
            "iscrowd": int(instance.iscrowd),
            "area": int(area_px2) if area_px2 == int(area_px2) else area_px2,
            "bbox": box,
            "segmentation": segmentation.to_coco()
            if isinstance(segmentation, Rle)
            else [next(flat) for _ in segmentation],
        }
        if instance.score is not None:
            row["score"] = instance.score
        if instance.difficult:
            row["difficult"] = 1
        rows.append(row)
        is_usual = is_usual and instance.score is None and not isinstance(segmentation, Rle) and area_px2 >= 1
    return rows, is_usual


def _plain_lists(arrays: Sequence[NDArray[np.float64]]) -> tuple[list[list[float | int]], bool]:
    """Arrays ``(N,)`` as lists with whole numbers as integers, and whether all others are of a usual size."""
    values = np.concatenate(arrays)
    is_whole = values == np.trunc(values)
    is_usual = bool((is_whole | (np.abs(values) >= _LEAST_USUAL)).all())
    numbers: list[float | int] = values.tolist()
    for index in np.flatnonzero(is_whole).tolist():
        numbers[index] = int(numbers[index])
    stops = np.cumsum([len(array) for array in arrays]).tolist()
    return [numbers[start:stop] for start, stop in zip([0, *stops], stops, strict=False)], is_usual


def write(dataset: Dataset, out: Path, *, force: bool = False) -> list[Path]:
    """Write the COCO instances file, a record per line; the same dataset gives the same bytes.

    Images and categories have the ids of the COCO file that they were read from, see `kept_ids`.

    Args:
        dataset: What to write.
        out: The file, where it ends in ``.json``; else a folder, which gets ``annotations.json``.
        force: Whether files that an earlier conversion wrote are replaced; others never are.

    Returns:
        The files written.

    Raises:
        DataError: A file with other content exists.
    """
    path = out if out.suffix.lower() == ".json" else out / "annotations.json"
    ids = kept_ids(dataset)
    if not holds(path, _content(dataset, ids)):
        refuse_existing([path], force=force)
        write_output(path, _content(dataset, ids))
    return [path]


def _content(dataset: Dataset, ids: Ids) -> Iterator[bytes]:
    """The file in pieces."""
    images, categories = image_rows(dataset, ids), _category_rows(dataset, ids)
    yield b'{"images": ['
    yield from _joined(_lines(block) for block in iter(lambda: list(itertools.islice(images, _ROWS_AT_ONCE)), []))
    yield b',\n"annotations": ['
    yield from _joined(_number_lines(rows) if usual else _lines(rows) for rows, usual in _annotation_rows(dataset, ids))
    yield b',\n"categories": ['
    yield from _joined(_lines(rows) for rows in [categories] if rows)
    yield b"}\n"


def _joined(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines between an opening bracket that is already written and a closing bracket."""
    separator = b"\n"
    for lines in blocks:
        yield separator + lines
        separator = b",\n"
    yield b"]" if separator == b"\n" else b"\n]"


def _lines(rows: Sequence[dict[str, Any]]) -> bytes:
    text = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    return text.encode("utf-8", errors="backslashreplace")


def _number_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """The same bytes as `_lines` for rows without text whose numbers are of a usual size, much faster.

    orjson writes the same shortest digits as Python, but other exponents, and no spaces.
    """
    lines: bytes = orjson.dumps(rows)[1:-1]
    return lines.replace(b"},{", b"}\n{").replace(b",", b", ").replace(b":", b": ").replace(b"}\n{", b"},\n{")
