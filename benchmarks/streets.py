"""Score LightNet++ with its published weights on photos of streets, and time it.

``python benchmarks/streets.py`` loads ShuffleNetV2Plus x0.5 into the preset ``lightnet_shufflenet_v2`` and compares its
classes with the labels of three Cityscapes photos of 2048 x 1024 px: the share of right pixels, and the mean IoU over
the classes that are present. Then it measures frames per second at 360 x 640 px for each network of the family.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation import machine
from PIL import Image

from d2tune.inference.loop import forward_pass, inference_mode
from d2tune.modeling.bridge.meta_arch import SemanticBridge
from d2tune.modeling.bridge.weights import fit_bridge
from d2tune.modeling.config import preset_config
from d2tune.modeling.weights import find, read_state_dict

CLASSES = 19
MEAN_BGR, STD_BGR = [76.42, 86.75, 78.34], [39.50, 40.26, 39.58]
"""0.2997, 0.3402, 0.3072 and 0.1549, 0.1579, 0.1552 of 255, as LightNet++'s own evaluation has them."""
NETWORKS = (
    ("lightnet_shufflenet_v2", "shufflenet_v2_x0_5"),
    ("lightnet_shufflenet_v2", "shufflenet_v2_x1_0"),
    ("lightnet_mobilenet_v2", "mobilenet_v2"),
)


def main() -> None:
    shared = Path(os.environ.get("D2TUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    weights = shared / "weights" / "lightnetpp_shufflenetv2plus_x0.5_cityscapes.pth"
    parser.add_argument("--weights", default=str(weights))
    parser.add_argument(
        "--photos", type=Path, default=shared / "data" / "cityscapes_three", help="NAME.png, NAME_labels.png"
    )
    parser.add_argument("--frames", type=int, default=30, help="timed frames of each network (default: 30)")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    results = score(options.weights, options.photos)
    results["frames_per_s"] = {encoder: frames_per_s(preset, encoder, options.frames) for preset, encoder in NETWORKS}
    print(f"pixel accuracy {results['pixel_accuracy']:.4f}, mIoU {results['mIoU']:.4f} of {results['classes']} classes")
    for encoder, rate in results["frames_per_s"].items():
        print(f"{encoder}: {rate:.1f} frames/s at 360 x 640 px")
    if options.out:
        content = {"machine": machine(), **results}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def lightnet(preset: str, encoder: str) -> SemanticBridge:
    """A network of the family with Cityscapes' classes and random weights."""
    cfg = preset_config(preset)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BRIDGE.ENCODER = encoder
    cfg.MODEL.BRIDGE.NUM_CLASSES = CLASSES
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = MEAN_BGR, STD_BGR
    return SemanticBridge(cfg).eval()


def score(weights: str, photos: Path) -> dict[str, Any]:
    """Pixel accuracy and mIoU with the published weights on all photos taken as one."""
    model = lightnet(*NETWORKS[0])
    file = find(weights)
    report = fit_bridge(model, read_state_dict(file.path), file=file.path)
    print(f"{report.loaded} of {report.total} tensors loaded from {file.path.name} (sha256 {file.sha256[:12]})")
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    for labels in sorted(photos.glob("*_labels.png")):
        photo = labels.with_name(labels.name.replace("_labels", ""))
        bgr = np.asarray(Image.open(photo).convert("RGB"))[:, :, ::-1]
        truth = np.asarray(Image.open(labels)).astype(int)
        with torch.no_grad():
            scores = model([{"image": torch.from_numpy(bgr.transpose(2, 0, 1).copy())}])[0]["sem_seg"]
        known = truth < CLASSES
        pairs = CLASSES * truth[known] + scores.argmax(0).numpy()[known]
        confusion += np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    right, present = np.diag(confusion), confusion.any(axis=1)
    ious = right[present] / (confusion.sum(0) + confusion.sum(1) - right)[present]
    return {
        "pixel_accuracy": float(right.sum() / confusion.sum()),
        "mIoU": float(ious.mean()),
        "classes": int(present.sum()),
    }


def frames_per_s(preset: str, encoder: str, frames: int) -> float:
    """Frames of 360 x 640 px in a second, one at a time, from the tensor to class probabilities of each pixel."""
    model, seconds = lightnet(preset, encoder), []
    sample = {"image": torch.randint(0, 256, (3, 360, 640), dtype=torch.uint8)}
    with inference_mode(model, is_own=True):
        for _ in range(5 + frames):
            began = time.perf_counter()
            with forward_pass(model):
                model([sample])
            seconds.append(time.perf_counter() - began)
    return 1 / statistics.median(seconds[5:])


if __name__ == "__main__":
    main()
