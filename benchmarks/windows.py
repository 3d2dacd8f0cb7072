"""Small objects in large images with and without windows: ``python benchmarks/windows.py RUN``.

The 13 balloon photos for validation are reduced and put side by side into mosaics, in another order in each, so that
the balloons are small in a large image. The model is evaluated on the whole mosaics and in windows of several sizes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from conversion import machine
from numpy.typing import NDArray

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "balloon" / "val"
COLUMNS = 4
MIDDLE_GRAY = 114


@dataclass(frozen=True)
class Placed:
    """A photo in a mosaic: its pixels, its corner, its factor, and its polygons in pixels of the photo."""

    pixels: NDArray[np.uint8]
    left_px: int
    top_px: int
    factor: float
    polygons: list[NDArray[np.float64]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run or a package of a model of balloons")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder with via_region_data.json")
    parser.add_argument("--cell", type=int, default=512, help="longest side of a photo in a mosaic (default: 512 px)")
    parser.add_argument("--mosaics", type=int, default=4, help="default: 4")
    parser.add_argument("--windows", type=int, nargs="*", default=[256, 384, 512, 768], help="sizes, in pixels")
    parser.add_argument("--overlap", type=float, default=0.2, help="share of a window (default: 0.2)")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="d2tune-bench-") as folder:
        data = write_mosaics(Path(folder) / "mosaics", options.photos, options.cell, options.mosaics)
        rows = [measured(options.run, data, Path(folder), None, options.overlap)]
        rows += [measured(options.run, data, Path(folder), side, options.overlap) for side in options.windows]
    given = {"cell_px": options.cell, "mosaics": options.mosaics, "overlap": options.overlap}
    results = {"machine": machine(), **given, "rows": rows}
    print(table(results))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def write_mosaics(folder: Path, photos: Path, cell_px: int, count: int) -> Path:
    """Write mosaics of all photos and a COCO file; the same arguments give the same files."""
    annotated = json.loads((photos / "via_region_data.json").read_text(encoding="utf-8")).values()
    files = sorted(annotated, key=lambda entry: entry["filename"])
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        order = np.random.default_rng(number).permutation(len(files))
        rows = -(-len(files) // COLUMNS)
        canvas = np.full((rows * cell_px, COLUMNS * cell_px, 3), MIDDLE_GRAY, np.uint8)
        name = f"mosaic{number}.png"
        images.append({"id": number, "file_name": name, "width": canvas.shape[1], "height": canvas.shape[0]})
        for placed in placed_photos([files[at] for at in order], photos, cell_px):
            height_px, width_px = placed.pixels.shape[:2]
            columns = slice(placed.left_px, placed.left_px + width_px)
            canvas[placed.top_px : placed.top_px + height_px, columns] = placed.pixels
            for polygon in placed.polygons:
                moved = polygon * placed.factor + (placed.left_px, placed.top_px)
                annotations.append(annotation(len(annotations), number, moved))
        cv2.imwrite(str(folder / name), canvas)
    categories = [{"id": 1, "name": "balloon"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = folder / "mosaics.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def placed_photos(entries: list[dict[str, Any]], photos: Path, cell_px: int) -> Iterator[Placed]:
    """Yield the photos in their cells, row by row."""
    for at, entry in enumerate(entries):
        pixels = cv2.imread(str(photos / entry["filename"]))
        factor = cell_px / max(pixels.shape[:2])
        size = round(pixels.shape[1] * factor), round(pixels.shape[0] * factor)
        shapes = [region["shape_attributes"] for region in entry["regions"].values()]
        polygons = [np.array([shape["all_points_x"], shape["all_points_y"]], float).T for shape in shapes]
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        yield Placed(small, at % COLUMNS * cell_px, at // COLUMNS * cell_px, factor, polygons)


def annotation(number: int, image: int, polygon: NDArray[np.float64]) -> dict[str, Any]:
    """The entry of a COCO file for a polygon ``(V, 2)``."""
    (left, top), (right, bottom) = polygon.min(axis=0), polygon.max(axis=0)
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "segmentation": [polygon.round(2).reshape(-1).tolist()],
        "bbox": [left, top, right - left, bottom - top],
        "area": float(cv2.contourArea(polygon.astype(np.float32))),
        "iscrowd": 0,
    }


def measured(run: Path, data: Path, folder: Path, window_px: int | None, overlap: float) -> dict[str, Any]:
    """AP, and detections with a score of at least 0.5, on the mosaics."""
    import d2tune

    out = folder / f"evaluation{window_px}"
    windows: dict[str, Any] = {} if window_px is None else {"window_px": window_px, "overlap": overlap}
    began = time.perf_counter()
    d2tune.evaluate(run, data=data, out=out, metrics=("bbox", "segm"), **windows)
    seconds = time.perf_counter() - began
    metrics = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["metrics"]
    detections = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    truth = json.loads(data.read_text(encoding="utf-8"))
    return {
        "window_px": window_px,
        "mask_ap": metrics["segm"]["AP"]["value"],
        "mask_ap50": metrics["segm"]["AP50"]["value"],
        "box_ap": metrics["bbox"]["AP"]["value"],
        "detections": sum(row["score"] >= 0.5 for row in detections),
        "objects": len(truth["annotations"]),
        "seconds": round(seconds, 1),
    }


def table(results: dict[str, Any]) -> str:
    """The results as a table of Markdown."""
    lines = [
        "| windows | mask AP | mask AP50 | box AP | detections from score 0.5 (objects) | evaluation |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        windows = "none: the whole image" if row["window_px"] is None else f"{row['window_px']} px"
        values = [f"{row[name]:.1f}" for name in ("mask_ap", "mask_ap50", "box_ap")]
        count = f"{row['detections']} ({row['objects']})"
        lines.append(f"| {windows} | {' | '.join(values)} | {count} | {row['seconds']:.0f} s |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
