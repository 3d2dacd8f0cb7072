#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Predicts with the exported model beside this file; needs numpy, Pillow and onnxruntime, and nothing else.

pip install -r requirements.txt
python runner.py photo.jpg photos --out predictions                # predictions.json or label maps, and drawings
python runner.py photo.jpg --out predictions --to coco,masks       # a PNG for each instance instead of drawings

In Python: ``Model(folder)("photo.jpg")`` gives `Instances`, or a label map ``(H, W)`` with the index of each pixel's
class. ``package.json`` says what the model takes and gives; it and the model are checked against their hashes.
"""

from __future__ import annotations

import argparse
import colorsys
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

FORMAT = 1  # of package.json, its entry d2tune_package
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
LEAST_SIDE_PX = 16  # of resized images
MARGIN = 1e-6  # below the thresholds, which are compared with rounded scores afterwards
Array = np.ndarray[Any, Any]


class RunnerError(Exception):
    """A package or an image that cannot be used; its text is for the user."""


@dataclass(frozen=True)
class Instances:
    """The N instances on an image, in descending order of their scores.

    Attributes:
        size_px: Height and width of the image.
        boxes: ``(N, 4)`` float32: left, top, right, bottom in pixels.
        scores: ``(N,)`` float32, from 0 to 1.
        class_ids: ``(N,)`` indices of the classes.
        crops: For each instance the left and top pixel of its mask, and the mask from there ``(h, w)``.
    """

    size_px: tuple[int, int]
    boxes: Array
    scores: Array
    class_ids: Array
    crops: list[tuple[int, int, Array]]

    def mask(self, number: int) -> Array:
        """The mask of an instance at the size of the image, bool ``(H, W)``."""
        left, top, crop = self.crops[number]
        mask = np.zeros(self.size_px, dtype=bool)
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        return mask


class Model:
    """The exported model of a folder; calling it with a photo gives its `Instances`, or its label map.

    Args:
        folder: The folder with ``package.json``.
        threads: Threads of the network; 0 takes one for each core.
        min_score: Lowest score of instances; None takes the threshold of each class.

    Raises:
        RunnerError: A file or onnxruntime is missing, a file was changed, or the package needs more than this runner.
    """

    def __init__(self, folder: str | Path, *, threads: int = 0, min_score: float | None = None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise RunnerError("onnxruntime is missing; install it: pip install -r requirements.txt") from None
        self.package = read_package(Path(folder))
        self.classes: list[str] = self.package["classes"]
        self.has_instances: bool = self.package["export"]["gives"] == "instances"
        given = [self.package["thresholds"].get(name, {"value": 0.5})["value"] for name in self.classes]
        self.thresholds = [float(one if min_score is None else min_score) for one in given]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait sleep
        path = Path(folder) / self.package["weights"]["file"]
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no other base class
            raise RunnerError(f"{path}: onnxruntime {onnxruntime.__version__} cannot load it: {error}") from None

    def __call__(self, photo: str | Path | Array) -> Any:
        """Predict on a file, or on RGB pixels ``(H, W, 3)`` uint8.

        Raises:
            RunnerError: The photo cannot be read.
        """
        spec = self.package["input"]
        pixels = photo if isinstance(photo, np.ndarray) else read_photo(Path(photo), white=spec["white_16bit"])
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise RunnerError(f"pixels of {pixels.shape} {pixels.dtype} are invalid; expected (H, W, 3) uint8 in RGB")
        height_px, width_px = pixels.shape[:2]
        size = resized_size((height_px, width_px), spec["short_side_px"], spec["max_side_px"])
        # photos for instances are resized as by Pillow, those for label maps as by OpenCV's INTER_AREA and INTER_LINEAR
        image = resized_by_pillow(pixels, size) if self.has_instances else resized_by_area(pixels, size)
        if spec["channel_order"] == "BGR":
            image = image[:, :, ::-1]
        inputs = {"image": np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)}
        if self.has_instances:
            inputs["min_scores"] = (np.array(self.thresholds) - MARGIN).astype(np.float32)
        names = [output.name for output in self._session.get_outputs()]
        outputs = dict(zip(names, self._session.run(None, inputs), strict=True))
        if not self.has_instances:
            return label_map(outputs["sem_seg"], (height_px, width_px))
        return self._instances(outputs, size, (height_px, width_px))

    def _instances(self, outputs: dict[str, Array], size: tuple[int, int], size_px: tuple[int, int]) -> Instances:
        """The instances from the outputs for an image that was resized from ``size_px`` to ``size``."""
        scale = np.array([size_px[1] / size[1], size_px[0] / size[0]] * 2, dtype=np.float32)
        boxes = np.clip(outputs["boxes"] * scale, 0, np.array([size_px[1], size_px[0]] * 2, dtype=np.float32))
        scores, class_ids = outputs["scores"], outputs["classes"]
        rounded = [round(float(score), 6) for score in scores]  # as in files
        has_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        chosen = [i for i, score in enumerate(rounded) if has_area[i] and score >= self.thresholds[int(class_ids[i])]]
        order = sorted(chosen, key=lambda i: -rounded[i])
        crops = [pasted(outputs["masks"][i], boxes[i], size_px) for i in order]
        return Instances(size_px, boxes[order], scores[order], class_ids[order], crops)


def read_package(folder: Path) -> dict[str, Any]:
    """The content of ``package.json``, whose hash and that of the model are checked."""
    path = folder / "package.json"
    try:
        content = path.read_bytes()
        package: dict[str, Any] = json.loads(content)
    except (OSError, ValueError) as error:
        raise RunnerError(f"{path}: cannot be read: {error}") from None
    if not isinstance(package, dict) or not isinstance(package.get("d2tune_package"), int):
        raise RunnerError(f"{path}: is not the description of a package")
    if package["d2tune_package"] > FORMAT:
        raise RunnerError(f"{path}: has format {package['d2tune_package']}, this runner reads up to {FORMAT}")
    own = re.search(rb'"sha256": "([0-9a-f]{64})"\s*\}\s*\Z', content)
    zeroed = content[: own.start(1)] + b"0" * 64 + content[own.end(1) :] if own else b""
    if own is None or hashlib.sha256(zeroed).hexdigest().encode() != own[1]:
        raise RunnerError(f"{path}: was changed after it was written; copy the package again")
    gives, weights = (package.get("export") or {}).get("gives"), package["weights"]
    if weights["format"] != "onnx" or gives not in ("instances", "labels"):
        raise RunnerError(f"{path}: has {gives or 'a model'} as {weights['format']}; this runner runs ONNX models")
    if package["input"]["raster"] or package["input"]["window_px"]:
        raise RunnerError(f"{path}: the model takes rasters or windows; use d2tune")
    model = folder / weights["file"]
    if not model.is_file():
        raise RunnerError(f"{model}: is missing; copy the package again")
    with model.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != package["files"][weights["file"]]["sha256"]:
        raise RunnerError(f"{model}: was changed after it was written; copy the package again")
    return package


def read_photo(path: Path, *, white: float | None = None) -> Array:
    """A photo as displayed: RGB ``(H, W, 3)`` uint8, turned by its EXIF orientation, without alpha.

    Args:
        path: The file.
        white: The value of gray photos of 16 bits that becomes 255; None refuses them.
    """
    try:
        with Image.open(path) as image:
            bits = image.tag_v2.get(258, 8) if image.format == "TIFF" else 8  # type: ignore[attr-defined]
            deepest = max(bits) if isinstance(bits, tuple) else bits
            if image.format == "PNG":
                with path.open("rb") as stream:
                    deepest = stream.read(25)[24]
            image.load()
            upright = ImageOps.exif_transpose(image)
    except Exception as error:  # decoders raise many kinds of errors for broken files
        raise RunnerError(f"{path}: the image cannot be read: {error}") from None
    if white and upright.mode.startswith("I;16"):
        table = np.minimum((np.arange(1 << 16) * 510 + round(white)) // (2 * round(white)), 255).astype(np.uint8)
        return np.repeat(table[np.asarray(upright).astype(np.uint16)][:, :, None], 3, axis=2)
    if deepest > 8 or upright.mode[:1] in ("I", "F"):
        raise RunnerError(f"{path}: the image has more than 8 bits a channel; save it as 8 bits")
    if upright.mode in ("La", "RGBa"):
        upright = upright.convert({"La": "LA", "RGBa": "RGBA"}[upright.mode])
    return np.asarray(upright.convert("RGB"))


def resized_size(size_px: tuple[int, int], short_side_px: int, max_side_px: int) -> tuple[int, int]:
    """Height and width after resizing: the short side as given, unless the long one would be longer than allowed."""
    if not short_side_px:
        return size_px
    scale = short_side_px / min(size_px)
    sides = [short_side_px if side == min(size_px) else scale * side for side in size_px]
    shrink = min(1.0, max_side_px / max(sides))
    least_px = min(LEAST_SIDE_PX, short_side_px)
    height_px, width_px = (max(least_px, int(side * shrink + 0.5)) for side in sides)
    return height_px, width_px


def resized_by_pillow(pixels: Array, size: tuple[int, int]) -> Array:
    """The pixels ``(H, W, 3)`` resized to a height and width by Pillow's bilinear filter."""
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))


def resized_by_area(pixels: Array, size: tuple[int, int]) -> Array:
    """The pixels ``(H, W, 3)`` resized to a height and width: by averages of areas if smaller, else bilinearly."""
    sides = pixels.shape[:2]
    if sides == size:
        return pixels
    if not (size[0] < sides[0] and size[1] <= sides[1]):
        return enlarged(pixels, size)
    columns, rows = area_taps(sides[1], size[1]), area_taps(sides[0], size[0])
    values = resampled(resampled(pixels, *columns, axis=1), *rows, axis=0)
    if (2 * size[0], 2 * size[1]) == sides:
        return np.floor(values + 0.5).astype(np.uint8)  # OpenCV rounds halves up here, elsewhere to even numbers
    return np.rint(values).astype(np.uint8)


def enlarged(pixels: Array, size: tuple[int, int]) -> Array:
    """The pixels ``(H, W, 3)`` resized bilinearly, in the whole numbers that OpenCV computes in."""
    columns, shares = linear_taps(pixels.shape[1], size[1])
    whole = np.rint(shares * 2048).astype(np.int32)
    across = sum(np.take(pixels, columns[:, tap], axis=1) * whole[:, tap, None] for tap in (0, 1)) >> 4
    rows, shares = linear_taps(pixels.shape[0], size[0], clamps=False)
    whole = np.rint(shares * 2048).astype(np.int32)
    down = sum(across[rows[:, tap]] * whole[:, tap, None, None] >> 16 for tap in (0, 1))
    return np.asarray((down + 2) >> 2, dtype=np.uint8)


def resampled(values: Array, places: Array, weights: Array, *, axis: int) -> Array:
    """Weighted sums of values along an axis: output ``o`` is the sum of ``weights[o, t] * values[places[o, t]]``."""
    shape = [-1 if number == axis else 1 for number in range(values.ndim)]
    total: Array = np.float32(0)  # type: ignore[assignment]
    for tap in range(places.shape[1]):
        total = total + np.take(values, places[:, tap], axis=axis) * weights[:, tap].reshape(shape)
    return total


def area_taps(cells: int, wanted: int) -> tuple[Array, Array]:
    """Places and weights ``(wanted, T)`` of the cells that each of fewer outputs covers, by the share covered."""
    edges = np.arange(wanted + 1) * (cells / wanted)
    first = np.floor(edges[:-1] + 1e-3).astype(int)
    places = first[:, None] + np.arange(int(np.ceil(cells / wanted)) + 1)
    covered = np.minimum(places + 1, edges[1:, None]) - np.maximum(places, edges[:-1, None])
    covered = np.where(covered > 1e-3, covered, 0)
    return np.minimum(places, cells - 1), (covered / covered.sum(1, keepdims=True)).astype(np.float32)


def linear_taps(cells: int, wanted: int, *, clamps: bool = True) -> tuple[Array, Array]:
    """Places and weights ``(wanted, 2)`` of the two cells around the center of each output.

    With ``clamps``, centers before that of the first cell count as it.
    """
    centers = ((np.arange(wanted) + 0.5) * (cells / wanted) - 0.5).astype(np.float32)
    centers = np.maximum(centers, 0) if clamps else centers
    first = np.floor(centers)
    share = centers - first
    places = np.stack([first, first + 1], axis=1).astype(int)
    return np.clip(places, 0, cells - 1), np.stack([1 - share, share], axis=1)


def label_map(logits: Array, size_px: tuple[int, int]) -> Array:
    """The index of the class with the highest logit of each pixel, uint8 ``(H, W)``, from logits ``(K, h, w)``."""
    rows, columns = linear_taps(logits.shape[1], size_px[0]), linear_taps(logits.shape[2], size_px[1])
    highest = np.full(size_px, -np.inf, dtype=np.float32)
    labels = np.zeros(size_px, dtype=np.uint8)
    for class_id, plane in enumerate(logits):
        whole = resampled(resampled(plane, *columns, axis=1), *rows, axis=0)
        labels[whole > highest] = class_id
        np.maximum(highest, whole, out=highest)
    return labels


def pasted(probabilities: Array, box: Array, size_px: tuple[int, int]) -> tuple[int, int, Array]:
    """The left and top pixel of a mask, and the pixels from there where its ``(M, M)`` over its box are 0.5 or more."""
    (left, top), (right, bottom) = np.floor(box[:2]).astype(int) - 1, np.ceil(box[2:]).astype(int) + 1
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, size_px[1]), min(bottom, size_px[0])
    padded = np.pad(probabilities, 1)
    rows = resampled(padded, *paste_taps(top, bottom, box[1], box[3], len(probabilities)), axis=0)
    crop = resampled(rows, *paste_taps(left, right, box[0], box[2], len(probabilities)), axis=1) >= 0.5
    return int(left), int(top), crop


def paste_taps(start: int, stop: int, low: Any, high: Any, cells: int) -> tuple[Array, Array]:
    """Places in the padded cells from ``low`` to ``high``, and weights, of the pixels from ``start`` to ``stop``.

    The steps are those of torch's ``grid_sample``, each in single precision.
    """
    one, two = np.float32(1), np.float32(2)
    grid = (np.arange(start, stop, dtype=np.float32) + np.float32(0.5) - low) / (high - low) * two - one
    positions = ((grid + one) * np.float32(cells) - one) / two
    before = np.floor(positions)
    share = np.where((before < -1) | (before >= cells), np.float32(0), positions - before)
    places = np.where((before < -1) | (before >= cells), -1, before).astype(int) + 1
    return np.stack([places, places + 1], axis=1), np.stack([one - share, share], axis=1)


def run_lengths(size_px: tuple[int, int], left: int, top: int, crop: Array) -> dict[str, Any]:
    """A mask in COCO's compressed run lengths, column by column."""
    columns = np.zeros((crop.shape[1], size_px[0]), dtype=np.int8)
    columns[:, top : top + crop.shape[0]] = crop.T
    edges = np.flatnonzero(np.diff(columns.reshape(-1), prepend=0, append=0)) + left * size_px[0]
    runs = np.diff(np.concatenate([[0], edges, [size_px[0] * size_px[1]]])).tolist()
    letters = []
    for place, run in enumerate(runs if runs[-1] else runs[:-1]):
        value, goes_on = run - (runs[place - 2] if place > 2 else 0), True
        while goes_on:  # five bits a letter, the lowest first; the sixth says that more follow
            bits, value = value & 31, value >> 5
            goes_on = value != (-1 if bits & 16 else 0)
            letters.append(chr(48 + bits + 32 * goes_on))
    return {"size": list(size_px), "counts": "".join(letters)}


def coco_rows(predicted: Instances) -> Iterator[dict[str, Any]]:
    """The rows of COCO's ``annotations`` but for their ids."""
    for number, (left, top, crop) in enumerate(predicted.crops):
        x0, y0, x1, y1 = map(float, predicted.boxes[number])
        yield {
            "category_id": int(predicted.class_ids[number]) + 1,
            "bbox": [round(side, 3) for side in (x0, y0, x1 - x0, y1 - y0)],
            "area": float(crop.sum()),
            "score": round(float(predicted.scores[number]), 6),
            "iscrowd": 0,
            "segmentation": run_lengths(predicted.size_px, left, top, crop),
        }


def color_of(number: int) -> tuple[int, int, int]:
    """A color for each number, neighbors far apart."""
    red, green, blue = colorsys.hsv_to_rgb((0.55 + number * 0.618) % 1, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def drawing(pixels: Array, predicted: Any, classes: Sequence[str]) -> Image.Image:
    """The photo with its instances, or the classes of its pixels, in half-transparent colors."""
    mixed = pixels.copy()
    if not isinstance(predicted, Instances):
        colors = np.array([color_of(number) for number in range(256)], dtype=np.uint8)
        return Image.fromarray(mixed // 2 + colors[predicted] // 2)
    for number, (left, top, crop) in enumerate(predicted.crops):
        place = mixed[top : top + crop.shape[0], left : left + crop.shape[1]]
        place[crop] = place[crop] // 2 + np.array(color_of(number), dtype=np.uint8) // 2
    image = Image.fromarray(mixed)
    draw, width = ImageDraw.Draw(image), max(1, round(max(image.size) / 500))
    for number, box in enumerate(predicted.boxes):
        color = color_of(number)
        text = f"{classes[int(predicted.class_ids[number])]} {predicted.scores[number]:.2f}"
        draw.rectangle([float(side) for side in box], outline=color, width=width)
        place_xy = float(box[0]) + width, float(box[1]) + width
        draw.rectangle(draw.textbbox(place_xy, text, font_size=8 * width + 4), fill=color)
        draw.text(place_xy, text, fill=(0, 0, 0), font_size=8 * width + 4)
    return image


def photos_of(sources: Sequence[Path]) -> list[Path]:
    """The files of sources, of folders the photos in them; no two may have the same name before the suffix."""
    paths: list[Path] = []
    for source in sources:
        inside = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES) if source.is_dir() else []
        if not source.exists() or (source.is_dir() and not inside):
            raise RunnerError(f"{source}: {'has no photos' if source.exists() else 'does not exist'}")
        paths += inside or [source]
    stems = [path.stem for path in paths]
    for stem in (stem for stem in stems if stems.count(stem) > 1):
        raise RunnerError(f"two photos have the name {stem}, so their outputs would too; use two output folders")
    return paths


def write_json(path: Path, content: Any) -> None:
    """Write a file that is whole or not there."""
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(json.dumps(content), encoding="utf-8")
    os.replace(unfinished, path)  # noqa: PTH105


def predict(model: Model, paths: Sequence[Path], out: Path, kinds: Sequence[str]) -> list[str]:
    """Predict on photos and write the results; returns what could not be read."""
    failed: list[str] = []
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for path in paths:
        try:
            pixels = read_photo(path, white=model.package["input"]["white_16bit"])
        except RunnerError as error:
            failed.append(str(error))
            continue
        predicted = model(pixels)
        images.append({"id": len(images) + 1, "file_name": path.name, "height": len(pixels), "width": pixels.shape[1]})
        if isinstance(predicted, Instances):
            rows += [{"id": 0, "image_id": len(images), **row} for row in coco_rows(predicted)]
        if "labels" in kinds:
            Image.fromarray(predicted).save(out / f"{path.stem}.png")
        for number in range(len(predicted.crops) if "masks" in kinds else 0):
            name = re.sub(r"\W", "_", model.classes[int(predicted.class_ids[number])])
            Image.fromarray(predicted.mask(number)).save(out / f"{path.stem}_{number + 1}_{name}.png")
        if "overlays" in kinds:
            drawing(pixels, predicted, model.classes).save(out / f"{path.stem}.predicted.jpg", quality=90)
        what = f"{len(predicted.scores)} instances" if isinstance(predicted, Instances) else "a label map"
        print(f"{path}: {what}", flush=True)
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(model.classes)]
    for number, row in enumerate(rows, start=1):
        row["id"] = number
    if "coco" in kinds:
        write_json(out / "predictions.json", {"images": images, "categories": categories, "annotations": rows})
    if "labels" in kinds:
        write_json(out / "categories.json", [{"label": i, "name": name} for i, name in enumerate(model.classes)])
    return failed


def main() -> int:
    """Run the command, see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sources", nargs="+", type=Path, metavar="PHOTO", help="photos, or folders of them")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new or empty folder")
    parser.add_argument("--to", metavar="KINDS", help="coco, masks, labels, overlays; several with commas between")
    parser.add_argument("--min-score", type=float, metavar="S", help="lowest score (default: that of each class)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="threads (default: one for each core)")
    options = parser.parse_args()
    try:
        if options.min_score is not None and not 0 <= options.min_score <= 1:
            raise RunnerError(f"--min-score {options.min_score:g} is invalid; it is from 0 to 1")
        if options.threads < 0:
            raise RunnerError(f"--threads {options.threads} is invalid; 0 takes one for each core")
        paths = photos_of(options.sources)
        if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
            raise RunnerError(f"{options.out}: is not an empty folder; name another one with --out")
        model = Model(Path(__file__).resolve().parent, threads=options.threads, min_score=options.min_score)
        possible = ("coco", "masks", "overlays") if model.has_instances else ("labels", "overlays")
        kinds = options.to.split(",") if options.to else (possible[0], "overlays")
        for kind in (kind for kind in kinds if kind not in possible):
            raise RunnerError(f"--to {kind} is invalid; this model gives {', '.join(possible)}")
        options.out.mkdir(parents=True, exist_ok=True)
        failed = predict(model, paths, options.out, kinds)
    except (RunnerError, OSError) as error:
        failed = [str(error)]
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
