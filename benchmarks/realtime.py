"""Frames per second, milliseconds by stage and quality of networks for video, on one clip at one size.

``python benchmarks/realtime.py`` predicts on the frames of the car video with the compact PointRend, YOLACT,
DeepLabV3 on MobileNetV2, LightNet++ x0.5 and the small SiamMask, one frame at a time and in turn, in torch and in
onnxruntime. "Prepare" is from the decoded frame to the input of the network, "finish" from its output to masks of the
size of the frame; semantic networks enlarge their output to the frame in "network".

Quality is the mean IoU with the masks of the car (J). DeepLabV3 and LightNet++ have published weights that know cars.
``--train N`` trains PointRend and YOLACT for N iterations on six frames, which the quality then leaves out; without it
and without ``--run`` their weights are random, and so they have no quality. SiamMask is given the mask of the first
frame, and weights with ``--siammask``. What the papers say, on their cards, is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation import machine
from numpy.typing import NDArray
from PIL import Image
from realtime_models import Contender, exported, instances, labels, tracker
from tracking import TRAINED_FRAMES, car_images, write_coco

import d2tune

PUBLISHED = {
    "PointRend compact": "none; PointRend R50: mask AP 38.3 on COCO (Detectron2's model zoo)",
    "YOLACT MobileNetV2": "none; YOLACT R50: mask AP 28.2, 42.5 fps on a Titan Xp (arXiv 1904.02689)",
    "DeepLabV3 MobileNetV2": "no fps; torchvision's DeepLabV3 R50: mIoU 66.4 on COCO val2017",
    "LightNet++ x0.5": "no fps; MobileNetV2Plus: mIoU 71.5 on Cityscapes test",
    "SiamMask MobileNetV2": "none; SiamMask R50: J 71.3 on DAVIS 2016, 56 fps on an RTX 2080 (its repository)",
}
STAGES = ("prepare", "network", "finish")


def main() -> None:
    shared = Path(os.environ.get("D2TUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path, default=shared / "data" / "car_video", help="DAVIS folder of one video")
    parser.add_argument("--weights", type=Path, default=shared / "weights", help="folder of the published files")
    parser.add_argument("--size", type=int, default=480, help="short side in pixels (default: 480)")
    parser.add_argument("--frames", type=int, default=20, help="timed frames of each (default: 20)")
    parser.add_argument("--train", type=int, metavar="N", help="iterations for PointRend and YOLACT")
    parser.add_argument("--run", nargs=2, type=Path, metavar="RUN", help="runs of PointRend and YOLACT instead")
    parser.add_argument("--siammask", type=Path, metavar="RUN", help="a run of a tracking project")
    parser.add_argument("--threads", type=int, help="threads of torch and onnxruntime (default: all cores)")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    images = car_images(options.video)
    with tempfile.TemporaryDirectory() as scratch:
        runs, trained = options.run, []
        if options.train:
            runs, trained = train(images, Path(scratch), options)
        contenders = [
            instances("PointRend compact", "pointrend_mobilenet_v2_fpn", options.size, run=runs and runs[0]),
            instances("YOLACT MobileNetV2", "yolact_mobilenet_v2", options.size, run=runs and runs[1]),
            labels("DeepLabV3 MobileNetV2", "deeplabv3_mobilenet_v2_voc", options.size, folder=options.weights),
            labels(
                "LightNet++ x0.5",
                "lightnetpp_shufflenetv2plus_x0.5_cityscapes",
                options.size,
                folder=options.weights,
            ),
        ]
        contenders += [exported(one, Path(scratch)) for one in contenders]
        contenders.append(tracker("SiamMask MobileNetV2", run=options.siammask))
        rows = measure(contenders, images, options.frames, left_out=trained)
    show(rows, images, options.size)
    if options.out:
        content = {"machine": machine(), "threads": torch.get_num_threads(), "short_side_px": options.size}
        options.out.write_text(json.dumps(content | {"rows": rows}, indent=2) + "\n", encoding="utf-8")


def train(
    images: list[tuple[Path, NDArray[np.bool_]]], folder: Path, options: argparse.Namespace
) -> tuple[list[Path], list[int]]:
    """Runs of PointRend and YOLACT on evenly spaced frames, and the places of all frames that they have seen."""
    chosen = np.linspace(0, len(images) - 1, TRAINED_FRAMES).round().astype(int).tolist()
    between = [(chosen[0] + chosen[1]) // 2, (chosen[-2] + chosen[-1]) // 2]
    for split, places in (("train", chosen), ("val", between)):
        write_coco(folder / "data" / split, [images[place] for place in places])
    runs = []
    for preset in ("pointrend_mobilenet_v2_fpn", "yolact_mobilenet_v2"):
        project = folder / f"{preset}.yaml"
        project.write_text(
            f"""name: {preset}
data: {{root: data, train: train, val: val}}
classes: [car]
model: {{preset: {preset}}}
weights: {(options.weights / "mobilenet_v2_imagenet.pth").resolve()}
train: {{batch_size: 4, iterations: {options.train}, image_size: {options.size}, eval_every: 0}}
detectron2: {{MODEL.PIXEL_MEAN: [127.5, 127.5, 127.5], MODEL.PIXEL_STD: [127.5, 127.5, 127.5]}}
""",
            encoding="utf-8",
        )
        runs.append(Path(d2tune.train(project, output_dir=folder / f"{preset}_run").run))
    return runs, [*chosen, *between]


def measure(
    contenders: list[Contender], images: list[tuple[Path, NDArray[np.bool_]]], count: int, *, left_out: list[int]
) -> list[dict[str, Any]]:
    """Median milliseconds by stage and the mean IoU of each contender, frame by frame in turn."""
    places = np.linspace(1, len(images) - 1, min(count, len(images) - 1)).round().astype(int).tolist()
    spent: dict[int, list[tuple[float, float, float]]] = {at: [] for at in range(len(contenders))}
    overlaps: dict[int, list[float]] = {at: [] for at in range(len(contenders))}
    with Image.open(images[0][0]) as first:
        for contender in contenders:
            contender.start(np.asarray(first.convert("RGB")), images[0][1])
    for number, place in enumerate([places[0], *places]):  # the first one fills caches
        path, truth = images[place]
        with Image.open(path) as opened:
            frame = np.asarray(opened.convert("RGB"))
        for at, contender in enumerate(contenders):
            mask, seconds = contender.predict(frame)
            if number:
                spent[at].append(seconds)
                if place not in left_out and contender.is_trained:
                    union = np.count_nonzero(mask | truth)
                    overlaps[at].append(np.count_nonzero(mask & truth) / union if union else 1.0)
    rows = []
    for at, contender in enumerate(contenders):
        stages = [1000 * statistics.median(one[stage] for one in spent[at]) for stage in range(3)]
        total = 1000 * statistics.median(sum(one) for one in spent[at])
        quality = 100 * statistics.mean(overlaps[at]) if overlaps[at] else None
        rows.append(
            {
                "network": contender.name,
                "runtime": contender.runtime,
                "fps": 1000 / total,
                "ms": dict(zip(STAGES, stages, strict=True)),
                "total_ms": total,
                "J": quality,
                "frames": len(spent[at]),
            }
        )
    return rows


def show(rows: list[dict[str, Any]], images: list[tuple[Path, NDArray[np.bool_]]], size_px: int) -> None:
    """Print the table."""
    height_px, width_px = images[0][1].shape
    print(f"\nframes of {width_px} x {height_px} px, short side {size_px} px, {torch.get_num_threads()} threads")
    print("| network | runtime | fps | prepare, network, finish (ms) | J | published |")
    print("|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda one: one["network"]):
        stages = ", ".join(f"{row['ms'][stage]:.0f}" for stage in STAGES)
        quality = "random weights" if row["J"] is None else f"{row['J']:.1f}"
        texts = row["network"], row["runtime"], f"{row['fps']:.1f}", stages, quality, PUBLISHED[row["network"]]
        print(f"| {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
