"""Track objects on rendered clips and on the car video, side by side with ByteTrack of the library trackers.

``python benchmarks/tracking.py`` renders clips (``clips.py``) with the detections of a noisy stand-in for a detector,
and gives both trackers the same detections. ``--train`` fine-tunes the compact preset on five evenly spaced frames of
the car video, ``--run RUN`` takes such a run, and both track the car on all 40 frames. The library has an environment
of its own, ``benchmarks/.venv-peers-tracking``, made on the first run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from clips import rendered_frames, rle
from conversion import machine, peer_python
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_utils

from d2tune.annotations.model.types import Rle
from d2tune.inference.results import Detections
from d2tune.metrics.tracking import TrackingMetrics, TrackingScorer
from d2tune.video import Tracker

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("D2TUNE_SHARED", HERE.parents[1] / "shared"))
ENVIRONMENT, REQUIREMENTS = HERE / ".venv-peers-tracking", HERE / "tracking_peers.txt"
LIBRARY: dict[str, dict[str, Any]] = {
    "trackers, its defaults": {},
    "trackers, scores as d2tune": {"track_activation_threshold": 0.5, "high_conf_det_threshold": 0.5},
}
"""Options of the library besides the frame rate: its score thresholds are 0.7 and 0.6 by default, d2tune's is 0.5."""

TRAINED_FRAMES = 5
MIN_SCORE, LOW_SCORE = 0.5, 0.1
FRAME_RATE = 25

Frames = list[dict[str, Any]]
Ids = list[list[int | None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=10, help="number of rendered clips (default: 10)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first clip (default: 0)")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of each clip (default: 12)")
    parser.add_argument("--video", type=Path, default=SHARED / "data" / "car_video", help="DAVIS folder of one video")
    parser.add_argument("--train", type=Path, metavar="FOLDER", help="fine-tune on five frames of it, into this folder")
    parser.add_argument("--run", type=Path, help="a run that --train made")
    parser.add_argument("--no-peers", action="store_true", help="without the library")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine()}
    if options.clips:
        seeds = range(options.first_seed, options.first_seed + options.clips)
        clips = [rendered_frames(seed, seconds=options.seconds) for seed in seeds]
        results["rendered"] = compare(clips, peers=not options.no_peers)
        print(table(results["rendered"], f"{options.clips} rendered clips of {options.seconds:g} s"))
    run = options.run
    if options.train:
        run, results["training_s"] = train_on_car(options.video, options.train)
        print(f"trained in {results['training_s']:.0f} s: {run}", flush=True)
    if run:
        results["car"] = compare([car_frames(run, options.video)], peers=not options.no_peers)
        print(table(results["car"], f"{options.video.name}, {run}"))
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def compare(videos: list[Frames], *, peers: bool) -> list[dict[str, Any]]:
    """The metrics of all contenders on each video, from the same detections."""
    rows = []
    start_s = time.perf_counter()
    ours = [track(video) for video in videos]
    rows.append(row("d2tune", videos, ours, time.perf_counter() - start_s))
    perfect = [best_ids(video) for video in videos]
    if peers:
        python = peer_python(ENVIRONMENT, REQUIREMENTS)
        for name, options in LIBRARY.items():
            ids, seconds = track_with_library(python, videos, options)
            rows.append(row(name, videos, ids, seconds))
    rows.append(row("the best ids for these detections", videos, perfect, 0.0))
    return rows


def row(name: str, videos: list[Frames], ids: list[Ids], seconds: float) -> dict[str, Any]:
    """The metrics of one contender."""
    each = [score(video, one) for video, one in zip(videos, ids, strict=True)]
    return {
        "tracker": name,
        "idf1": [round(metrics.idf1, 4) for metrics in each],
        "mean_idf1": round(float(np.mean([metrics.idf1 for metrics in each])), 4),
        "switches": [metrics.switches for metrics in each],
        "all_switches": sum(metrics.switches for metrics in each),
        "mota": round(float(np.mean([metrics.mota for metrics in each])), 4),
        "ms_per_frame": round(1000 * seconds / sum(map(len, videos)), 2),
    }


def table(rows: Sequence[dict[str, Any]], title: str) -> str:
    """The rows as a table in Markdown."""
    lines = [
        f"\n{title}\n",
        "| tracker | IDF1, mean | lowest | identity switches | MOTA | ms a frame |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['tracker']} | {one['mean_idf1']:.3f} | {min(one['idf1']):.3f} | {one['all_switches']} "
        f"| {one['mota']:.3f} | {one['ms_per_frame']:.1f} |"
        for one in rows
    ]
    return "\n".join(lines)


def track(video: Frames) -> Ids:
    """The ids that d2tune gives the detections of a video, in their order."""
    tracker = Tracker(min_score=MIN_SCORE, low_score=LOW_SCORE)
    return [list(tracker.update(detections_of(frame), time_s=frame["time_s"])) for frame in video]


def track_with_library(python: str, videos: list[Frames], options: dict[str, Any]) -> tuple[list[Ids], float]:
    """The ids that the library gives the boxes of the same detections, and the seconds that it took."""
    boxes = [
        [
            [
                {"box": box, "score": one["score"], "class_id": one["class_id"]}
                for box, one in zip(detections_of(frame).boxes_xyxy.tolist(), frame["detections"], strict=True)
            ]
            for frame in video
        ]
        for video in videos
    ]
    with tempfile.TemporaryDirectory(prefix="d2tune-bench-") as name:
        source, out = Path(name) / "in.json", Path(name) / "out.json"
        source.write_text(json.dumps({"videos": boxes, "options": {"frame_rate": FRAME_RATE} | options}), "utf-8")
        subprocess.run([python, str(HERE / "tracking_peer.py"), str(source), str(out)], check=True)
        result = json.loads(out.read_text(encoding="utf-8"))
    return result["ids"], result["seconds"]


def best_ids(video: Frames) -> Ids:
    """For each detection at an object's place the object's own id: what no tracker can exceed."""
    ids: Ids = []
    for frame in video:
        overlap = iou(frame)
        row_of_ids: list[int | None] = [None] * len(frame["detections"])
        for place, one in enumerate(frame["object_ids"]):
            if len(overlap[place]) and overlap[place].max() >= 0.5:
                row_of_ids[int(overlap[place].argmax())] = one
        ids.append(row_of_ids)
    return ids


def score(video: Frames, ids: Ids) -> TrackingMetrics:
    """The metrics of tracks against the objects, by mask IoU."""
    scorer = TrackingScorer()
    for frame, row_of_ids in zip(video, ids, strict=True):
        kept = [place for place, one in enumerate(row_of_ids) if one is not None]
        tracks = np.array([row_of_ids[place] for place in kept], np.int64)
        scorer.add(np.array(frame["object_ids"], np.int64), tracks, iou(frame)[:, kept])
    return scorer.result()


def iou(frame: dict[str, Any]) -> NDArray[np.float64]:
    """Mask IoU of the objects and the detections of a frame, ``(T, P)``."""
    objects, detections = frame["objects"], [one["segmentation"] for one in frame["detections"]]
    values = mask_utils.iou(objects, detections, [0] * len(detections))
    return np.asarray(values, np.float64).reshape(len(objects), len(detections))


def detections_of(frame: dict[str, Any]) -> Detections:
    """The detections of a frame."""
    height, width = frame["size"]
    rows = frame["detections"]
    boxes = np.array([mask_utils.toBbox(one["segmentation"]) for one in rows], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Detections(
        height,
        width,
        boxes,
        np.array([one["score"] for one in rows], np.float32),
        np.array([one["class_id"] for one in rows], np.int64),
        tuple(Rle(height, width, one["segmentation"]["counts"]) for one in rows),
        ("object",),
    )


def car_images(video: Path) -> list[tuple[Path, NDArray[np.bool_]]]:
    """The frames of a DAVIS folder with the masks of their object, in order."""
    frames = sorted((video / "JPEGImages").rglob("*.jpg"))
    if not frames:
        raise SystemExit(f"{video / 'JPEGImages'} has no .jpg frames; name a DAVIS folder with --video")
    pairs = []
    for frame in frames:
        with Image.open(str(frame.with_suffix(".png")).replace("JPEGImages", "Annotations")) as image:
            pairs.append((frame, np.asarray(image) > 0))
    return pairs


def train_on_car(video: Path, folder: Path) -> tuple[Path, float]:
    """Fine-tune the compact preset on evenly spaced frames; returns the run and the seconds of its training.

    The validation split, two frames in between, is evaluated at the end only, so that it chooses nothing.
    """
    import d2tune

    images = car_images(video)
    chosen = np.linspace(0, len(images) - 1, TRAINED_FRAMES).round().astype(int).tolist()
    between = [(chosen[0] + chosen[1]) // 2, (chosen[-2] + chosen[-1]) // 2]
    for split, indices in (("train", chosen), ("val", between)):
        write_coco(folder / "data" / split, [images[index] for index in indices])
    weights = SHARED / "weights" / "mobilenet_v2_imagenet.pth"
    (folder / "car.yaml").write_text(
        f"""name: car
data: {{root: data, train: train, val: val}}
classes: [car]
model: {{preset: pointrend_mobilenet_v2_fpn}}
weights: {weights}
train: {{batch_size: 4, iterations: 160, image_size: 384, scale_jitter: [0.7, 1.2], eval_every: 0}}
detectron2: {{MODEL.PIXEL_MEAN: [127.5, 127.5, 127.5], MODEL.PIXEL_STD: [127.5, 127.5, 127.5]}}
""",
        encoding="utf-8",
    )
    result = d2tune.train(folder / "car.yaml", output_dir=folder / "run")
    record = json.loads((Path(result.run) / "record.json").read_text(encoding="utf-8"))
    return Path(result.run), float(record["durations"]["training_s"])


def write_coco(folder: Path, images: Sequence[tuple[Path, NDArray[np.bool_]]]) -> None:
    """Copy images into a folder, with a COCO file of their masks."""
    folder.mkdir(parents=True)
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "car"}]}
    for number, (frame, mask) in enumerate(images, start=1):
        (folder / frame.name).write_bytes(frame.read_bytes())
        size = {"width": mask.shape[1], "height": mask.shape[0]}
        content["images"].append({"id": number, "file_name": frame.name} | size)
        box = [float(side) for side in mask_utils.toBbox(rle(mask))]
        ids = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0}
        content["annotations"].append(ids | {"area": float(mask.sum()), "bbox": box, "segmentation": rle(mask)})
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def car_frames(run: Path, video: Path) -> Frames:
    """The frames of the car video: the mask of the car, and what the model of a run detects."""
    import d2tune

    predictor = d2tune.load_predictor(run, min_score=LOW_SCORE)
    frames = []
    for number, (path, mask) in enumerate(car_images(video)):
        detected = predictor(path)
        frames.append(
            {
                "time_s": number / FRAME_RATE,
                "size": list(mask.shape),
                "object_ids": [1],
                "objects": [rle(mask)],
                "detections": [
                    {"segmentation": one["segmentation"], "score": one["score"], "class_id": one["category_id"] - 1}
                    for one in detected.to_coco(1)
                ],
            }
        )
    return frames


def write_video(video: Path, out: Path) -> Path:
    """The frames of a DAVIS folder as a video without losses."""
    images = [cv2.imread(str(path)) for path, _ in car_images(video)]
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(out), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), FRAME_RATE, (width, height))
    for image in images:
        writer.write(image)
    writer.release()
    return out


if __name__ == "__main__":
    sys.exit(main())
