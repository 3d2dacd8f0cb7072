"""Carry the polygons of one or three frames through real clips, and compare every other frame with its mask.

``python benchmarks/propagation.py --weights ../shared/weights/mobilenet_v2_imagenet.pth`` runs ``d2tune.track`` with
each method on the clips of ``shared/data`` as a person would: the masks of the labeled frames become polygons in
Labelme files, and the polygons in the written files become masks again. J is the mean IoU over the frames without the
labeled ones; empty against empty counts as 1. Beside it stands the mask of the nearest labeled frame kept still. Times
have everything in them: reading, fine-tuning, writing. ``cpu s`` are the seconds of all cores together.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from conversion import machine
from numpy.typing import NDArray
from PIL import Image

import d2tune
from d2tune.annotations.formats import labelme
from d2tune.annotations.geometry.masks import decode_mask, union_segmentations
from d2tune.annotations.geometry.tracing import mask_outlines, simplify
from d2tune.annotations.model.options import ReadOptions

SHARED = Path(os.environ.get("D2TUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
CLIPS = {"car": ("car_video", "car"), "tennis": ("tennis_video", "player")}
FOLDERS = (("JPEGImages", "jpg"), ("Annotations", "png"))
GOOD = 0.75
SHEET_FRAMES, SHEET_WIDTH_PX = 8, 320

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip with the mask of every frame."""

    name: str
    label: str
    folder: Path
    frames: list[Path]
    masks: list[Mask]


@dataclass(frozen=True, slots=True)
class Case:
    """What a method reached on a clip; J is None where no frame is that far from the first reference."""

    clip: str
    references: int
    method: str
    j: float
    j_at: dict[str, float | None]
    share_good: float
    seconds: float
    cpu_seconds: float
    look_first: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", nargs="+", choices=CLIPS, default=list(CLIPS))
    parser.add_argument("--references", nargs="+", type=int, default=[1, 3], help="numbers of labeled frames")
    parser.add_argument("--methods", nargs="+", default=["still", "flow", "fine-tuning"])
    parser.add_argument("--weights", help="ImageNet weights of MobileNetV2 (default: torchvision's)")
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="write a contact sheet of each case")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    cases = []
    head = "".join(f"{name:>7}" for name in ("J5", "J10", "J20", "end", ">=.75", "s", "cpu s"))
    print(f"{'clip':8}{'labeled':>8} {'method':13}{'J':>6}{head}")
    for name in options.clips:
        clip = read_clip(name)
        for count in options.references:
            for method in options.methods:
                case, masks = run(clip, count, method, options.weights)
                cases.append(case)
                at = "".join(f"{'-' if value is None else format(value, '.3f'):>7}" for value in case.j_at.values())
                print(
                    f"{name:8}{count:>8} {method:13}{case.j:6.3f}{at}{case.share_good:7.2f}{case.seconds:7.0f}"
                    f"{case.cpu_seconds:7.0f}",
                    flush=True,
                )
                if options.sheets:
                    write_sheet(options.sheets / f"{name}_{count}_{method}.png", clip, masks)
    if options.out:
        results = {"machine": machine(), "cases": [asdict(case) for case in cases]}
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def read_clip(name: str) -> Clip:
    """A DAVIS folder of one video."""
    folder, label = CLIPS[name]
    root = SHARED / "data" / folder
    frames, annotations = (sorted((root / subfolder).rglob(f"*.{suffix}")) for subfolder, suffix in FOLDERS)
    masks = [np.asarray(Image.open(path).convert("L")) > 0 for path in annotations]
    return Clip(name, label, frames[0].parent, frames, masks)


def labeled(count: int, frames: int) -> list[int]:
    """Indices of the labeled frames: the first one; of several, evenly spaced to the last."""
    return [round(place * (frames - 1) / max(1, count - 1)) for place in range(count)]


def run(clip: Clip, count: int, method: Any, weights: str | None) -> tuple[Case, list[Mask]]:
    """Track, and score the frames that are not labeled."""
    known = labeled(count, len(clip.frames))
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    look_first: list[str] = []
    if method == "still":
        distances = np.abs(np.arange(len(clip.frames))[:, None] - np.array(known))
        masks = [clip.masks[known[place]] for place in distances.argmin(axis=1)]
    else:
        masks, look_first = tracked(clip, known, method, weights)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    scores = {index: iou(masks[index], clip.masks[index]) for index in range(len(clip.frames)) if index not in known}
    values = np.array(list(scores.values()))
    j_at = {str(at): scores.get(at) for at in (5, 10, 20)} | {"end": values[-1] if len(known) == 1 else None}
    share = float((values >= GOOD).mean())
    return Case(clip.name, count, method, float(values.mean()), j_at, share, wall_s, cpu_s, look_first), masks


def tracked(clip: Clip, known: Sequence[int], method: Any, weights: str | None) -> tuple[list[Mask], list[str]]:
    """The masks of all frames that `d2tune.track` gives, read from its files; and the frames to look at first."""
    work = Path(tempfile.mkdtemp(prefix="propagation-"))
    try:
        init = []
        for index in known:
            path = work / f"{clip.frames[index].stem}.json"
            path.write_text(json.dumps(labelme_of(clip, index)), encoding="utf-8")
            init.append(path)
        options: dict[str, Any] = {"weights": weights} if method == "fine-tuning" and weights else {}
        result = d2tune.track(clip.folder, init=init, out=work / "out", method=method, **options)
        masks = []
        for index, frame in enumerate(clip.frames):
            place = work / "out" / f"{frame.stem}.json"
            masks.append(clip.masks[index] if index in known else mask_of(place, clip.masks[index].shape))
        return masks, [name for name, _ in result.look_first]
    finally:
        shutil.rmtree(work)


def labelme_of(clip: Clip, index: int) -> dict[str, Any]:
    """The Labelme file of a frame, with outlines simplified as a person would draw them, to 1 px."""
    mask = clip.masks[index]
    outer, _ = mask_outlines(mask)
    shape: dict[str, Any] = {
        "label": clip.label,
        "shape_type": "polygon",
        "flags": {},
        "group_id": 1 if len(outer) > 1 else None,
    }
    return {
        "version": "6.3.0",
        "flags": {},
        "shapes": [shape | {"points": simplify(outline, tolerance_px=1.0).tolist()} for outline in outer],
        "imagePath": str(clip.frames[index]),
        "imageData": None,
        "imageHeight": mask.shape[0],
        "imageWidth": mask.shape[1],
    }


def mask_of(path: Path, shape: tuple[int, ...]) -> Mask:
    """The pixels of all objects in a Labelme file."""
    instances = labelme.read(path, ReadOptions(allow_outside=True)).instances
    if not instances:
        return np.zeros(shape, bool)
    return decode_mask(
        union_segmentations([one.segmentation for one in instances], width_px=shape[1], height_px=shape[0])
    )


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union; 1 where both are empty."""
    union = int((a | b).sum())
    return float((a & b).sum()) / union if union else 1.0


def write_sheet(path: Path, clip: Clip, masks: Sequence[Mask]) -> None:
    """Evenly spaced frames with the predicted outline in orange and the right one in blue."""
    cells = []
    for index in np.linspace(0, len(masks) - 1, SHEET_FRAMES).round().astype(int):
        image = np.asarray(Image.open(clip.frames[index]).convert("RGB"))[:, :, ::-1].copy()
        for mask, color in ((clip.masks[index], (255, 120, 0)), (masks[index], (0, 140, 255))):
            lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(image, lines, -1, color, max(1, image.shape[1] // 320), cv2.LINE_AA)
        text = f"{index}: {iou(masks[index], clip.masks[index]):.2f}"
        small = cv2.resize(image, (SHEET_WIDTH_PX, round(image.shape[0] * SHEET_WIDTH_PX / image.shape[1])))
        cv2.putText(small, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 2, cv2.LINE_AA)
        cv2.putText(small, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        cells.append(small)
    half = SHEET_FRAMES // 2
    rows = [np.concatenate(cells[start : start + half], axis=1) for start in (0, half)]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.concatenate(rows))


if __name__ == "__main__":
    main()
