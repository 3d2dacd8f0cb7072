"""Segment the car of a DAVIS video with DeepLabV3 on MobileNetV2 and Pascal VOC weights, without training.

``python benchmarks/car_video.py`` loads the weights into the preset ``deeplab_v3_mobilenet_v2``, runs every frame at
each ``--short-side``, and compares the pixels whose most probable class is ``car`` with the frame's mask.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data.transforms import ResizeShortestEdge
from PIL import Image
from torch import nn

from d2tune.modeling.bridge.meta_arch import SemanticBridge
from d2tune.modeling.bridge.weights import fit_bridge
from d2tune.modeling.config import preset_config
from d2tune.modeling.weights import find, read_state_dict

CAR = 7
"""Place of the car among Pascal VOC's 20 classes and the background."""

VOC_CLASSES = 21


def main() -> None:
    shared = Path(os.environ.get("D2TUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=str(shared / "weights" / "deeplabv3_mobilenet_v2_voc.pth"))
    parser.add_argument("--video", type=Path, default=shared / "data" / "car_video", help="DAVIS folder of one video")
    parser.add_argument(
        "--short-side", type=int, nargs="+", default=[480], help="pixels (default: 480, the frames' own size)"
    )
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    frames = sorted((options.video / "JPEGImages").rglob("*.jpg"))
    if not frames:
        parser.error(f"{options.video / 'JPEGImages'} has no .jpg frames; name a DAVIS folder with --video")
    model = voc_model(options.weights)
    cases = [score_video(model, frames, short_side) for short_side in options.short_side]
    print_tables(cases)
    if options.out:
        options.out.write_text(json.dumps(cases, indent=2) + "\n", encoding="utf-8")


def voc_model(weights: str) -> nn.Module:
    """The preset with Pascal VOC's classes, input scaling and weights, ready to predict."""
    cfg = preset_config("deeplab_v3_mobilenet_v2")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BRIDGE.NUM_CLASSES = VOC_CLASSES
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [127.5, 127.5, 127.5]
    cfg.MODEL.FEATURES.NORM = "frozen"
    model = SemanticBridge(cfg)
    file = find(weights)
    report = fit_bridge(model, read_state_dict(file.path), file=file.path)
    print(f"{report.loaded} of {report.total} tensors loaded from {file.path.name} (sha256 {file.sha256[:12]})")
    return model.eval()


def score_video(model: nn.Module, frames: list[Path], short_side: int) -> dict[str, Any]:
    """IoU of the car on every frame, their mean, and that of all frames taken as one image."""
    rows, hits, either_sum, took_s = [], 0, 0, 0.0
    for frame in frames:
        with Image.open(frame) as photo:
            image = np.asarray(photo.convert("RGB"))
        with Image.open(str(frame.with_suffix(".png")).replace("JPEGImages", "Annotations")) as photo:
            truth = np.asarray(photo) > 0
        start_s = time.perf_counter()
        predicted = car_mask(model, image, short_side)
        took_s += time.perf_counter() - start_s
        both, either = int((predicted & truth).sum()), int((predicted | truth).sum())
        rows.append({"frame": frame.name, "iou": both / either if either else 1.0})
        hits, either_sum = hits + both, either_sum + either
    return {
        "short_side_px": short_side,
        "frames": rows,
        "mean_iou": float(np.mean([row["iou"] for row in rows])),
        "worst_iou": min(row["iou"] for row in rows),
        "video_iou": hits / either_sum,
        "ms_per_frame": round(1000 * took_s / len(frames), 1),
        "threads": torch.get_num_threads(),
    }


@torch.inference_mode()
def car_mask(model: nn.Module, image: np.ndarray, short_side: int) -> np.ndarray:
    """Pixels ``(H, W)`` of an RGB image ``(H, W, 3)`` whose most probable class is the car."""
    height, width = image.shape[:2]
    resized = ResizeShortestEdge(short_side, 10 * short_side).get_transform(image).apply_image(image)
    pixels = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    (output,) = model([{"image": pixels, "height": height, "width": width}])
    mask: np.ndarray = (output["sem_seg"].argmax(0) == CAR).numpy()
    return mask


def print_tables(cases: list[dict[str, Any]]) -> None:
    sides = [case["short_side_px"] for case in cases]
    print("\nIoU of the car by short side in px")
    print("| frame     |" + "".join(f" {side:>6} |" for side in sides))
    print("|-----------|" + "--------|" * len(sides))
    for rows in zip(*(case["frames"] for case in cases), strict=True):
        print(f"| {rows[0]['frame']:<9} |" + "".join(f" {row['iou']:6.3f} |" for row in rows))
    for key, label in (("mean_iou", "mean"), ("worst_iou", "worst"), ("video_iou", "video")):
        print(f"| {label:<9} |" + "".join(f" {case[key]:6.3f} |" for case in cases))
    print("| ms/frame  |" + "".join(f" {case['ms_per_frame']:6.0f} |" for case in cases))


if __name__ == "__main__":
    main()
