"""Predicting label maps and panoptic segments on images nobody has annotated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from d2tune import files
from d2tune.annotations.formats import labelme, rle_csv
from d2tune.annotations.formats.from_masks import dataset_of_masks
from d2tune.annotations.formats.panoptic import from_colors, to_colors
from d2tune.annotations.io.outputs import beside
from d2tune.annotations.io.raster_files import ARRAY_SUFFIXES
from d2tune.annotations.io.rasters import is_raster_name
from d2tune.annotations.model.dataset import Category, Dataset, Image
from d2tune.data.image_reader import ImageReader, OpenImage, Pixels, image_reader
from d2tune.data.label_maps import decode_png, encode_png, panoptic_table
from d2tune.data.mapper import inference_sample, read_image
from d2tune.data.semantic_mapper import semantic_sample
from d2tune.errors import DataError
from d2tune.evaluation.panoptic import Segments, forward_segments, overlay_of
from d2tune.evaluation.semantic import forward_labels, predict_windows, write_categories
from d2tune.inference.loop import inference_mode
from d2tune.inference.raster_output import LabelTiff, Preview
from d2tune.inference.sliding_window import predict_rows
from d2tune.inference.submission import dataset_of_maps, instances_of_map, write_submission
from d2tune.modeling.from_run import LoadedRun
from d2tune.report.sheets.label_overlay import colors, overlay, to_rgb

_TIFFS = (".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class MapsFound:
    """What was found on some images.

    Attributes:
        images: Images predicted on.
        regions: Regions or objects found.
        skipped: Images that were left out, with the reason.
    """

    images: int
    regions: int
    skipped: tuple[str, ...]


def find_rasters(source: Path, *, stacked: bool) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the images in order: files, or folders of files to stack.

    Raises:
        DataError: There are none.
    """
    if source.is_file():
        return source.parent, [source]
    if not source.is_dir():
        raise DataError("no such image or folder", file=source)
    found = sorted(path for path in source.rglob("*") if path.is_file() and is_raster_name(path.name))
    if not found:
        raise DataError("no images", file=source, expected="photos, TIFFs, .npy or .npz files")
    if not stacked:
        return source, found
    folders = sorted({path.parent for path in found})
    return (source.parent, folders) if folders == [source] else (source, folders)


def predict_semantic(
    loaded: LoadedRun, root: Path, photos: Sequence[Path], out: Path, *, to: str, tolerance_px: float, force: bool
) -> MapsFound:
    """Label every pixel of some images.

    Rasters give ``labels/NAME.tif``, tiled and written while the windows go over them, with the raster's place on
    earth; photos give ``labels/NAME.png``. Beside them there is an image to look at for each.

    Args:
        loaded: The run.
        root: The folder that names are relative to.
        photos: The images.
        out: Where the results go.
        to: ``auto``; ``labelme`` for outlines to be corrected; ``csv`` for a competition's file.
        tolerance_px: How far the outlines in Labelme files may lie from those of the regions.
        force: Write also where there are files already.

    Raises:
        DataError: No image could be read, or the run's project names no dialect of CSV.
    """
    project = loaded.loaded.project
    preset = project.data.csv_preset
    if to == "csv" and preset is None:
        expected = f"one of {', '.join(rle_csv.PRESETS)}"
        raise DataError("the project names no dialect of CSV", place="data.csv_preset", expected=expected)
    reader = image_reader(project, loaded.cfg)
    names = tuple(loaded.record["classes"])
    images: list[Image] = []
    maps: list[bytes] = []
    skipped: list[str] = []
    places = _label_places(photos, root, out / "labels")
    with inference_mode(loaded.model):
        bar = tqdm(photos, desc="predicting", unit="image", disable=None, leave=False)
        for path, place in zip(bar, places, strict=True):
            name = path.relative_to(root).as_posix()
            try:
                if to != "auto":
                    labels = _labels_of(loaded, reader, path, reader.read(path), len(names))
                    height_px, width_px = labels.shape
                    maps.append(encode_png(labels))
                elif _is_raster(path, reader):
                    height_px, width_px = _write_raster(loaded, reader, path, out, place, names)
                else:
                    shown = out / f"{name}.predicted.jpg"
                    height_px, width_px = _write_photo(loaded, reader, path, shown, place, names)
            except DataError as error:
                skipped.append(error.one_line())
                continue
            images.append(Image(len(images) + 1, name, width_px, height_px, path.absolute()))
    if not images:
        raise DataError("no image could be read", file=root, found=skipped[0])
    if to == "auto":
        write_categories(out / "labels", names)
    background = project.data.background
    regions = 0
    if to == "csv" and preset is not None:
        found = dataset_of_maps(images, _decoded(maps), classes=names, background=background, preset=preset)
        write_submission(found, out, preset=preset, background=background, force=force)
        regions = len(found.instances)
    elif to == "labelme":
        masks = (instances_of_map(one, classes=names, background=background, split=True) for one in _decoded(maps))
        found = dataset_of_masks(images, masks, names)
        labelme.write(found, out, tolerance_px=tolerance_px, force=force)
        regions = len(found.instances)
    return MapsFound(len(images), regions, tuple(skipped))


def _is_raster(path: Path, reader: ImageReader) -> bool:
    is_file_of_raster = path.suffix.lower() in (*_TIFFS, *ARRAY_SUFFIXES)
    return reader.raster is not None and (path.is_dir() or is_file_of_raster)


def _decoded(maps: Sequence[bytes]) -> Iterator[NDArray[np.uint8]]:
    return (decode_png(one) for one in maps)


def _label_places(photos: Sequence[Path], root: Path, folder: Path) -> list[Path]:
    """A PNG for each image; those that differ by their suffix alone keep theirs before the new one."""
    names = [path.relative_to(root).as_posix() for path in photos]
    # a point in the name of a folder begins no suffix
    named = [f"{name}.tif" if path.is_dir() else name for name, path in zip(names, photos, strict=True)]
    places = beside([Image(number, name, 0, 0) for number, name in enumerate(named)], folder, ".png")
    return list(places.values())


def _labels_of(loaded: LoadedRun, reader: ImageReader, path: Path, pixels: Pixels, classes: int) -> NDArray[np.uint8]:
    """The label map of an image that fits into memory."""
    cfg = loaded.cfg
    if cfg.TEST.WINDOW_PX and max(pixels.shape[:2]) > cfg.TEST.WINDOW_PX:
        return predict_windows(loaded.model, path, cfg, reader, classes=classes)
    sizes = {"short_side_px": cfg.INPUT.MIN_SIZE_TEST, "max_side_px": cfg.INPUT.MAX_SIZE_TEST}
    (labels,) = forward_labels(loaded.model, [semantic_sample(pixels, **sizes)])
    return labels


def _write_photo(
    loaded: LoadedRun, reader: ImageReader, path: Path, shown: Path, place: Path, names: Sequence[str]
) -> tuple[int, int]:
    """Write the labels of a photo to ``place`` and an image of them to ``shown``; gives its height and width."""
    pixels = reader.read(path)
    labels = _labels_of(loaded, reader, path, pixels, len(names))
    files.write_bytes(place, encode_png(labels))
    _write_jpeg(shown, overlay(to_rgb(reader.shown(pixels)), labels, colors=colors(names)))
    return labels.shape[0], labels.shape[1]


def _write_raster(
    loaded: LoadedRun, reader: ImageReader, path: Path, out: Path, place: Path, names: Sequence[str]
) -> tuple[int, int]:
    """Label a raster, and write rows as they are finished; gives its height and width."""
    shown = out / place.relative_to(out / "labels").with_suffix(".predicted.png")
    with reader.open(path) as photo, ExitStack() as stack:
        size: dict[str, Any] = {"height_px": photo.height_px, "width_px": photo.width_px, "colors": colors(names)}
        tiff = LabelTiff(place.with_suffix(".tif"), georeference=photo.georeference, **size)
        targets = stack.enter_context(tiff), stack.enter_context(Preview(shown, **size))
        for rows in _rows_of(loaded, reader, path, photo, len(names)):
            for target in targets:
                target.write(rows)
        return photo.height_px, photo.width_px


def _rows_of(
    loaded: LoadedRun, reader: ImageReader, path: Path, photo: OpenImage, classes: int
) -> Iterator[NDArray[np.uint8]]:
    """The labels of a raster from top to bottom: by windows, or at once where the model sees it resized."""
    window_px = loaded.cfg.TEST.WINDOW_PX
    if not window_px:
        yield _labels_of(loaded, reader, path, photo.read(), classes)
        return
    for rows in predict_rows(loaded.model, photo, classes=classes, window_px=window_px, scores="probabilities"):
        yield rows.class_ids


def readable_photos(
    photos: Sequence[Path], root: Path, skipped: list[str]
) -> Iterator[tuple[Path, str, NDArray[np.uint8]]]:
    """Each photo with its name below ``root`` and its pixels in RGB; why others were left out goes into ``skipped``."""
    for path in tqdm(photos, desc="predicting", unit="image", disable=None, leave=False):
        try:
            image_rgb = read_image(str(path), "RGB")
        except DataError as error:
            skipped.append(error.one_line())
            continue
        yield path, path.relative_to(root).as_posix(), image_rgb


def predict_panoptic(
    loaded: LoadedRun, root: Path, photos: Sequence[Path], out: Path, *, to: str, tolerance_px: float, force: bool
) -> MapsFound:
    """Find the objects and regions of some photos.

    This writes ``panoptic.json``, a COCO panoptic file, with its PNGs in ``panoptic``, and an image to look at for
    each photo.

    Args:
        loaded: The run.
        root: The folder that names are relative to.
        photos: The photos.
        out: Where the results go.
        to: ``auto``, or ``labelme`` for outlines to be corrected.
        tolerance_px: How far the outlines in Labelme files may lie from those of the segments.
        force: Write Labelme files also where there are some already.

    Raises:
        DataError: No photo could be read.
    """
    cfg, record = loaded.cfg, loaded.record
    things = set(record["thing_ids"])
    categories = tuple(Category(at, name, at in things) for at, name in enumerate(record["classes"], start=1))
    known = Dataset((), categories, ())
    images: list[Image] = []
    found: list[Segments] = []
    skipped: list[str] = []
    with inference_mode(loaded.model):
        for path, name, image_rgb in readable_photos(photos, root, skipped):
            pixels = image_rgb if cfg.INPUT.FORMAT == "RGB" else image_rgb[:, :, ::-1]
            sizes = {"short_side_px": cfg.INPUT.MIN_SIZE_TEST, "max_side_px": cfg.INPUT.MAX_SIZE_TEST}
            ((ids, infos),) = forward_segments(loaded.model, [inference_sample(pixels, **sizes)], known)
            images.append(Image(len(images) + 1, name, image_rgb.shape[1], image_rgb.shape[0], path.absolute()))
            # a PNG takes a hundredth of the memory
            found.append((encode_png(to_colors(ids)), infos))
            if to == "auto":
                _write_jpeg(out / f"{name}.predicted.jpg", overlay_of(image_rgb, ids, infos, known))
    if not images:
        raise DataError("no image could be read", file=root, found=skipped[0])
    if to == "labelme":
        masks = (_masks(*one) for one in found)
        outlines = dataset_of_masks(images, masks, record["classes"])
        labelme.write(outlines, out, tolerance_px=tolerance_px, force=force)
    else:
        _write_panoptic(out, replace(known, images=tuple(images)), found)
    return MapsFound(len(images), sum(len(infos) for _, infos in found), tuple(skipped))


def _masks(png: bytes, infos: Sequence[dict[str, Any]]) -> list[tuple[int, NDArray[np.bool_]]]:
    """Place of the class and pixels ``(H, W)`` of each segment."""
    ids = from_colors(decode_png(png))
    return [(info["category_id"] - 1, ids == info["id"]) for info in infos]


def _write_panoptic(out: Path, dataset: Dataset, found: Sequence[Segments]) -> None:
    places = beside(dataset.images, out / "panoptic", ".png")
    rows = []
    for image, (png, infos) in zip(dataset.images, found, strict=True):
        files.write_bytes(places[image.id], png)
        name = places[image.id].relative_to(out / "panoptic").as_posix()
        rows.append({"image_id": image.id, "file_name": name, "segments_info": infos})
    files.write_json(out / "panoptic.json", panoptic_table(dataset, rows))


def _write_jpeg(path: Path, image_rgb: NDArray[np.uint8]) -> None:
    encoded = cv2.imencode(".jpg", image_rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    files.write_bytes(path, encoded.tobytes())
