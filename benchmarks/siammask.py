"""Train SiamMask on balloon polygons and rendered clips, and follow objects through clips that it has not seen.

``python benchmarks/siammask.py`` trains ``benchmarks/projects/siammask_cpu.yaml`` (about five minutes on two quiet
cores) and follows the objects of held-out rendered clips, and of the real clips of ``shared/data`` from their first
frame. ``--run RUN`` takes a run that is trained already. J is the mean IoU of masks over the frames after the first
one, box that of boxes. Beside it stand the first mask kept still, optical flow, and NanoTrack v2 of OpenCV, which has
no masks.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from conversion import machine
from numpy.typing import NDArray
from propagation import Clip, Mask, iou, read_clip, write_sheet

import d2tune
from d2tune.annotations.formats import labelme
from d2tune.annotations.io.photos.reading import read_photo
from d2tune.annotations.model.options import ReadOptions
from d2tune.data.tracking_crops import box_of
from d2tune.evaluation.tracking import TrackingEvaluator
from d2tune.metrics.mask_tracking import box_iou
from d2tune.propagation.methods.base import PropagationMethod, Reference
from d2tune.propagation.methods.flow import Flow
from d2tune.propagation.methods.siammask import SiamMaskTracking
from d2tune.runs.load import load_model
from d2tune.samples import render_sample
from d2tune.tasks import task_of

SHARED = Path(os.environ.get("D2TUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
PROJECT = Path(__file__).parent / "projects" / "siammask_cpu.yaml"
HELD_OUT_SEED = 1000

Box = tuple[float, float, float, float]
Predicted = Mapping[int, tuple[Mask | None, Box | None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="a trained run (default: train one)")
    parser.add_argument("--rendered", type=int, default=200, metavar="N", help="frames of held-out rendered clips")
    parser.add_argument("--clips", nargs="*", default=["car", "tennis"])
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="write a contact sheet of each clip")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    run = options.run or d2tune.train(PROJECT).run
    results: dict[str, Any] = {"machine": machine(), "rendered": on_rendered(run, options.rendered), "clips": []}
    rendered = results["rendered"]
    print(f"held-out rendered clips, {rendered['objects']} objects in frames: J {rendered['J']:.3f}, ", end="")
    print(f"box success at 0.5 {rendered['box50']:.3f}")
    print(f"{'clip':8} {'method':12}{'J':>7}{'box':>7}{'ms a frame':>12}")
    for name in options.clips:
        clip = read_clip(name)
        for method, predict in methods(run).items():
            row, masks = score(clip, method, predict)
            results["clips"].append(row)
            j, box = ("-" if row[key] is None else f"{row[key]:.3f}" for key in ("J", "box"))
            print(f"{name:8} {method:12}{j:>7}{box:>7}{row['ms']:12.1f}", flush=True)
            if options.sheets and row["J"] is not None:
                write_sheet(options.sheets / f"{name}_{method}.jpg", clip, masks)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def on_rendered(run: Path, frames: int) -> dict[str, Any]:
    """J and success on clips that were rendered from other seeds than those of any training."""
    with tempfile.TemporaryDirectory(prefix="siammask-") as work:
        folder = render_sample("clips", Path(work) / "clips", images=frames, seed=HELD_OUT_SEED).folder
        dataset = labelme.read(folder, ReadOptions())
        loaded = load_model(run)
        predictor = task_of(loaded.project).predictor(loaded.model, loaded.cfg, loaded.project, dataset.categories)
        evaluator = TrackingEvaluator(dataset, are_frames=True)
        predictions = evaluator.predict(predictor)
        values = evaluator.scorer(predictions).metrics()
    shares = {name: metric.value / 100 for name, metric in values.items() if metric.value is not None}
    return {"objects": sum(map(len, predictions)), **shares}


def methods(run: Path) -> dict[str, Callable[[Clip], Predicted]]:
    """The methods by name."""
    chosen: dict[str, Callable[[Clip], Predicted]] = {
        "siammask": lambda clip: propagated(SiamMaskTracking(str(run)), clip),
        "still": lambda clip: dict.fromkeys(range(1, len(clip.frames)), (clip.masks[0], None)),
        "flow": lambda clip: propagated(Flow(), clip),
    }
    if (SHARED / "weights" / "nanotrack_v2_head.onnx").is_file():
        chosen["nanotrack"] = lambda clip: dict(nanotrack(clip))
    return chosen


class Frames:
    """The frames of a clip, read as they are asked for."""

    def __init__(self, clip: Clip) -> None:
        self._paths = clip.frames

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]:
        return read_photo(self._paths[index])


def propagated(method: PropagationMethod, clip: Clip) -> Predicted:
    """What a method gives from the mask of the first frame."""
    given = method.propagate(Frames(clip), [Reference(0, {1: clip.masks[0]})], finished={})
    return {one.index: (one.masks.get(1, np.zeros_like(clip.masks[0])), None) for one in given}


def nanotrack(clip: Clip) -> Iterator[tuple[int, tuple[None, Box]]]:
    """The boxes of NanoTrack v2."""
    parameters = cv2.TrackerNano_Params()
    parameters.backbone = str(SHARED / "weights" / "nanotrack_v2_backbone.onnx")
    parameters.neckhead = str(SHARED / "weights" / "nanotrack_v2_head.onnx")
    tracker = cv2.TrackerNano_create(parameters)
    first = box_of_mask(clip.masks[0])
    tracker.init(cv2.imread(str(clip.frames[0])), [round(value) for value in first])
    for index in range(1, len(clip.frames)):
        _, box = tracker.update(cv2.imread(str(clip.frames[index])))
        yield index, (None, tuple(map(float, box)))  # type: ignore[misc]


def box_of_mask(mask: Mask) -> Box:
    """Left, top, width and height of a mask; zeros where it is empty."""
    box = box_of(np.ascontiguousarray(mask))
    if box is None:
        return 0.0, 0.0, 0.0, 0.0
    return box.x - box.width_px / 2, box.y - box.height_px / 2, box.width_px, box.height_px


def score(clip: Clip, method: str, predict: Callable[[Clip], Predicted]) -> tuple[dict[str, Any], list[Mask]]:
    """The mean IoU of masks and boxes over the frames after the first one, and the masks."""
    began = time.perf_counter()
    given = predict(clip)
    spent_s = time.perf_counter() - began
    masks, scores, boxes = [clip.masks[0]], [], []
    for index in range(1, len(clip.frames)):
        mask, box = given[index]
        truth = clip.masks[index]
        if mask is not None:
            scores.append(iou(mask, truth))
            masks.append(mask)
        boxes.append(box_iou(box or box_of_mask(masks[-1]), box_of_mask(truth)))
    row = {
        "clip": clip.name,
        "method": method,
        "J": float(np.mean(scores)) if scores else None,
        "box": float(np.mean(boxes)),
        "ms": 1000 * spent_s / len(boxes),
    }
    return row, masks


if __name__ == "__main__":
    main()
