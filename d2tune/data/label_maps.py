"""Label maps of a dataset, painted once and cached under a hash of their content."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Container, Iterator, Sequence
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
from d2tune.data import label_cache
from d2tune.errors import DataError
from d2tune.files import cache_folder, write_bytes, write_json
from d2tune.text import counted

logger = logging.getLogger(__name__)

_VERSION = 1
"""To be increased when the same dataset is painted differently than before."""


@dataclass(frozen=True, slots=True)
class LabelFiles:
    """The label maps of a dataset, in the order of its images.

    Attributes:
        folder: The folder of the files.
        semantic: Gray PNGs with the index of the class, 255 (ignored) where no shape is.
        separated: For panoptic tasks, the label maps of Detectron2's panoptic FPN: 0 for all things, 1 and up for the
            stuff, 255 (ignored) where no shape is.
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
        """The folder with the PNGs of the COCO panoptic file."""
        return self.folder / "panoptic"


def with_background(dataset: Dataset, name: str | None) -> Dataset:
    """The dataset with a region of the class ``name`` under all shapes of each image.

    Args:
        dataset: A dataset with a category of that name.
        name: The class of the pixels that no shape covers; None returns the dataset as it is.

    Raises:
        DataError: ``name`` is not among the classes.
    """
    if name is None:
        return dataset
    background = next((category for category in dataset.categories if category.name == name), None)
    if background is None:
        raise DataError(f"the class of the background, {name!r}, is not among the classes", place="data.background")
    by_image = dataset.by_image()
    instances: list[Instance] = []
    for image in dataset.images:
        layers = [_whole_image(image, background.id), *by_image[image.id]]
        instances += [replace(layer, id=len(instances) + number) for number, layer in enumerate(layers, start=1)]
    return replace(dataset, instances=tuple(instances))


def _whole_image(image: Image, category_id: int) -> Instance:
    """An instance that covers the image and is below all others."""
    raw = encode_mask(np.ones((image.height_px, image.width_px), dtype=bool))
    rle = Rle(image.height_px, image.width_px, raw["counts"].decode())
    box = (0.0, 0.0, float(image.width_px), float(image.height_px))
    return Instance(0, image.id, category_id, rle, box, float(image.width_px * image.height_px), shapes=(-1,))


def label_files(dataset: Dataset, *, with_segments: bool = False) -> LabelFiles:
    """Paint the label maps of a dataset, later shapes over earlier ones, or return those in the cache.

    The user's cache has them under a hash of everything that they depend on. A changed annotation changes the hash, so
    cached label maps are never out of date. Those that were changed or removed since are painted again. The least
    recently used ones are removed where the cache becomes large.

    Args:
        dataset: The dataset to paint, with its background.
        with_segments: Whether to paint the segments of panoptic tasks as well.

    Raises:
        DataError: There are more than 255 classes.
    """
    kind = "panoptic" if with_segments else "semantic"
    folder = cache_folder() / "labels" / f"{kind}-{_content_hash(dataset)[:24]}"
    if folder.is_dir():
        _repaint(dataset, folder, with_segments=with_segments)
        label_cache.note_use(folder)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with label_cache.scratch_folder(folder.parent) as scratch:
            # a temporary folder is private; a folder inside it has the usual permissions
            painted = Path(scratch) / "labels"
            painted.mkdir()
            _paint(dataset, painted, with_segments=with_segments)
            label_cache.write_manifest(painted, _all_files(dataset, painted, with_segments=with_segments))
            _move(painted, folder)
        label_cache.trim(folder.parent)
    semantic = _png_files(dataset, folder / "semantic")
    if not with_segments:
        return LabelFiles(folder, semantic)
    infos = [row["segments_info"] for row in json.loads((folder / "panoptic.json").read_bytes())["annotations"]]
    return LabelFiles(
        folder,
        semantic,
        separated=_png_files(dataset, folder / "separated"),
        segments=_png_files(dataset, folder / "panoptic"),
        infos=tuple(infos),
    )


def _all_files(dataset: Dataset, folder: Path, *, with_segments: bool) -> list[Path]:
    """The files of a cached dataset: those of the first image, those of the second one, and so on."""
    names = ("semantic", "separated", "panoptic") if with_segments else ("semantic",)
    by_image = zip(*(_png_files(dataset, folder / name) for name in names), strict=True)
    files = [path for paths in by_image for path in paths]
    return [*files, folder / "panoptic.json"] if with_segments else files


def _repaint(dataset: Dataset, folder: Path, *, with_segments: bool) -> None:
    """Paint the images again whose files are missing or were changed."""
    files = _all_files(dataset, folder, with_segments=with_segments)
    changed = set(label_cache.changed_files(folder, files))
    if not changed:
        return
    logger.warning("%s: %s missing or changed; painted again", folder, counted(len(changed), "label map"))
    images = None
    if folder / "panoptic.json" not in changed:
        each = 3 if with_segments else 1
        images = {number // each for number, path in enumerate(files) if path in changed}
    _paint(dataset, folder, with_segments=with_segments, images=images)
    label_cache.write_manifest(folder, files)


def read_label_map(path: str | Path) -> NDArray[np.uint8]:
    """Read a PNG that `label_files` painted.

    Returns:
        Class indices ``(H, W)``, or the colors of segment ids ``(H, W, 3)`` as BGR.

    Raises:
        DataError: The file is missing or damaged.
    """
    path = Path(path)
    # OpenCV crashes on paths that are not valid UTF-8
    content = np.fromfile(path, np.uint8) if path.is_file() else np.empty(0, np.uint8)
    labels: Any = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if labels is None:
        is_cached = path.is_relative_to(cache_folder() / "labels")
        hint = "Repeat the command, which paints it again; go on with a training by --resume." if is_cached else None
        raise DataError("the label map cannot be read", file=path, hint=hint)
    pixels: NDArray[np.uint8] = labels
    return pixels


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of gray ``(H, W)`` or RGB ``(H, W, 3)`` pixels, with fast rather than small compression."""
    bgr = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])
    return bytes(cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


def decode_png(content: bytes) -> NDArray[np.uint8]:
    """The gray ``(H, W)`` or RGB ``(H, W, 3)`` pixels of a PNG that `encode_png` made."""
    pixels: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])


def _png_files(dataset: Dataset, folder: Path) -> tuple[Path, ...]:
    files = beside(dataset.images, folder, ".png")
    return tuple(files[image.id] for image in dataset.images)


def _paint(dataset: Dataset, folder: Path, *, with_segments: bool, images: Container[int] | None = None) -> None:
    """Paint the images with these indices, or all of them and the table of their segments."""
    by_image = dataset.by_image()
    rows = []
    semantic, separated, segments = (
        _png_files(dataset, folder / name) for name in ("semantic", "separated", "panoptic")
    )
    bar = tqdm(dataset.images, desc="painting label maps", unit=" images", disable=None, leave=False)
    for number, image in enumerate(bar):
        if images is not None and number not in images:
            continue
        instances = by_image[image.id]
        top = paint(instances, width_px=image.width_px, height_px=image.height_px)
        write_bytes(semantic[number], encode_png(semantic_map(dataset, instances, top)))
        if not with_segments:
            continue
        ids, infos = panoptic.panoptic_map(dataset, instances, top)
        write_bytes(separated[number], encode_png(separated_map(dataset, instances, top)))
        write_bytes(segments[number], encode_png(panoptic.to_colors(ids)))
        name = segments[number].relative_to(folder / "panoptic").as_posix()
        rows.append({"image_id": image.id, "file_name": name, "segments_info": infos})
    if with_segments and images is None:
        write_json(folder / "panoptic.json", panoptic_table(dataset, rows))


def panoptic_table(dataset: Dataset, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The content of a COCO panoptic file.

    Args:
        dataset: Its images and categories.
        rows: The entry of each image under ``annotations``.
    """
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
    """Rename the painted folder; ignore an error if another process has painted the same folder first."""
    try:
        scratch.replace(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _content_hash(dataset: Dataset) -> str:
    """A hash of everything that the label maps depend on: the content, and the order of overlapping shapes."""
    digest = hashlib.sha256(f"{_VERSION} {dataset.content_hash()}".encode())
    for row in _layering(dataset.instances):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _layering(instances: Sequence[Instance]) -> Iterator[list[Any]]:
    for instance in instances:
        yield [instance.shapes, instance.part_shapes, [(order, rle.counts) for order, rle in instance.layers]]
