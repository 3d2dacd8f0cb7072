"""Label images of a dataset, painted once and kept by what is in them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from d2tune.annotations.formats import panoptic
from d2tune.annotations.formats.semantic import paint, semantic_map, separated_map
from d2tune.annotations.geometry.masks import encode_mask
from d2tune.annotations.io.outputs import beside
from d2tune.annotations.model.dataset import Dataset, Image, Instance
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from d2tune.files import cache_folder, write_bytes, write_json

_VERSION = 1
"""Counts up when the same dataset is painted differently than before."""


@dataclass(frozen=True, slots=True)
class LabelFiles:
    """The label images of a dataset, in the order of its images.

    Attributes:
        folder: Where they are.
        semantic: Gray PNGs: the place of the class, 255 where there is none.
        separated: For panoptic tasks, as Detectron2's panoptic FPN wants them: 0 for all things, 1 and up for the
            stuff, 255 where there is none.
        segments: For panoptic tasks, COCO's panoptic PNGs: id = R + 256 G + 65536 B.
        infos: For panoptic tasks, ``segments_info`` of each image.
    """

    folder: Path
    semantic: tuple[Path, ...]
    separated: tuple[Path, ...] = ()
    segments: tuple[Path, ...] = ()
    infos: tuple[list[dict[str, Any]], ...] = ()

    @property
    def panoptic_json(self) -> Path:
        """The COCO panoptic file of a panoptic task."""
        return self.folder / "panoptic.json"

    @property
    def segments_folder(self) -> Path:
        """Where the PNGs of the COCO panoptic file are."""
        return self.folder / "panoptic"


def with_background(dataset: Dataset, name: str | None) -> Dataset:
    """The dataset with a region of the class ``name`` under everything that is drawn.

    Args:
        dataset: Its categories have one of that name.
        name: The class of what no shape covers; None changes nothing.

    Raises:
        DataError: There is no such class.
    """
    if name is None:
        return dataset
    category = next((one for one in dataset.categories if one.name == name), None)
    if category is None:
        raise DataError(f"the class of the background, {name!r}, is not among the classes", place="data.background")
    drawn = dataset.by_image()
    instances: list[Instance] = []
    for image in dataset.images:
        both = [_whole(image, category.id), *drawn[image.id]]
        instances += [replace(one, id=len(instances) + number) for number, one in enumerate(both, start=1)]
    return replace(dataset, instances=tuple(instances))


def _whole(image: Image, category_id: int) -> Instance:
    """An instance that covers the image and lies under all others."""
    raw = encode_mask(np.ones((image.height_px, image.width_px), dtype=bool))
    rle = Rle(image.height_px, image.width_px, raw["counts"].decode())
    box = (0.0, 0.0, float(image.width_px), float(image.height_px))
    return Instance(0, image.id, category_id, rle, box, float(image.width_px * image.height_px), shapes=(-1,))


def label_files(dataset: Dataset, *, with_segments: bool = False) -> LabelFiles:
    """Paint the label images of a dataset, later shapes on earlier ones, or find those painted before.

    They are kept in the user's cache under a hash of everything they depend on, so that a change of an annotation
    makes new ones and nothing is ever out of date.

    Args:
        dataset: What to paint, with its background.
        with_segments: Whether objects are kept apart, for panoptic tasks.

    Raises:
        DataError: There are more than 255 classes.
    """
    kind = "panoptic" if with_segments else "semantic"
    folder = cache_folder() / "labels" / f"{kind}-{_content_hash(dataset)[:24]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".painting-", dir=folder.parent) as scratch:
            # a folder of its own, which has the usual permissions
            painted = Path(scratch) / "labels"
            painted.mkdir()
            _paint_all(dataset, painted, with_segments=with_segments)
            _move(painted, folder)
    semantic = _places(dataset, folder / "semantic")
    if not with_segments:
        return LabelFiles(folder, semantic)
    infos = [row["segments_info"] for row in json.loads((folder / "panoptic.json").read_bytes())["annotations"]]
    return LabelFiles(
        folder,
        semantic,
        separated=_places(dataset, folder / "separated"),
        segments=_places(dataset, folder / "panoptic"),
        infos=tuple(infos),
    )


def read_labels(path: str | Path) -> NDArray[np.uint8]:
    """A label image ``(H, W)``.

    Raises:
        DataError: The file is missing or damaged.
    """
    path = Path(path)
    labels: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if labels is None:
        kept = cache_folder() / "labels"
        folder = kept / path.relative_to(kept).parts[0] if path.is_relative_to(kept) else None
        hint = f"Remove the folder {folder}; it is painted anew." if folder else None
        raise DataError("the label image cannot be read", file=path, hint=hint)
    found: NDArray[np.uint8] = labels
    return found


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of gray ``(H, W)`` or RGB ``(H, W, 3)`` pixels, written fast rather than small."""
    bgr = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])
    return bytes(cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


def decode_png(content: bytes) -> NDArray[np.uint8]:
    """The pixels that `encode_png` was given."""
    pixels: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])


def _places(dataset: Dataset, folder: Path) -> tuple[Path, ...]:
    places = beside(dataset.images, folder, ".png")
    return tuple(places[image.id] for image in dataset.images)


def _paint_all(dataset: Dataset, folder: Path, *, with_segments: bool) -> None:
    drawn = dataset.by_image()
    rows = []
    semantic, separated, segments = (_places(dataset, folder / name) for name in ("semantic", "separated", "panoptic"))
    bar = tqdm(dataset.images, desc="painting labels", unit="image", disable=None, leave=False)
    for number, image in enumerate(bar):
        instances = drawn[image.id]
        top = paint(instances, width_px=image.width_px, height_px=image.height_px)
        write_bytes(semantic[number], encode_png(semantic_map(dataset, instances, top)))
        if not with_segments:
            continue
        ids, infos = panoptic.panoptic_map(dataset, instances, top)
        write_bytes(separated[number], encode_png(separated_map(dataset, instances, top)))
        write_bytes(segments[number], encode_png(panoptic.to_colors(ids)))
        name = segments[number].relative_to(folder / "panoptic").as_posix()
        rows.append({"image_id": image.id, "file_name": name, "segments_info": infos})
    if with_segments:
        write_json(folder / "panoptic.json", panoptic_table(dataset, rows))


def panoptic_table(dataset: Dataset, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A COCO panoptic file of ``rows``, one for each image."""
    return {
        "images": [
            {"id": image.id, "file_name": image.file_name, "width": image.width_px, "height": image.height_px}
            for image in dataset.images
        ],
        "annotations": list(rows),
        "categories": [
            {"id": category.id, "name": category.name, "isthing": int(category.isthing)}
            for category in dataset.categories
        ],
    }


def _move(scratch: Path, folder: Path) -> None:
    """Put what was painted in its place; another process may have been faster."""
    try:
        scratch.replace(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _content_hash(dataset: Dataset) -> str:
    """Over everything that the images depend on: the content, and which shape lies on which."""
    digest = hashlib.sha256(f"{_VERSION} {dataset.content_hash()}".encode())
    for row in _layering(dataset.instances):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _layering(instances: Sequence[Instance]) -> Iterator[list[Any]]:
    for one in instances:
        yield [one.shapes, one.part_shapes, [(order, rle.counts) for order, rle in one.layers]]
