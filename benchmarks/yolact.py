"""Time YOLACT beside the compact PointRend, on the same frames at the same size.

``python benchmarks/yolact.py`` predicts on frames of the car video with the presets ``pointrend_mobilenet_v2_fpn`` and
``yolact_mobilenet_v2``, one frame at a time, in turn, and prints milliseconds and frames per second: of the network
alone, and from the decoded frame to instances with run-length masks. The weights are random; each model gives as many
instances as ``--instances`` says, because the time of masks depends on it. ``--runs POINTREND YOLACT`` takes two runs
of one size instead, with the instances that they detect.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation import machine
from numpy.typing import NDArray
from PIL import Image

from d2tune.data.image_reader import ImageReader
from d2tune.data.mapper import inference_sample
from d2tune.inference.loop import forward_pass, inference_mode
from d2tune.inference.predictors.instance import InstancePredictor, forward_detections
from d2tune.modeling.build import build_model
from d2tune.modeling.config import preset_config
from d2tune.modeling.device import speed_up
from d2tune.runs.load import load_model

PRESETS = ("pointrend_mobilenet_v2_fpn", "yolact_mobilenet_v2")
TARGET = 2.5
"""Frames per second of YOLACT for each of PointRend."""


def main() -> None:
    shared = Path(os.environ.get("D2TUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=Path, default=shared / "data" / "car_video", help="a folder of JPEGs")
    parser.add_argument("--runs", nargs=2, type=Path, metavar="RUN", help="of PointRend and YOLACT, with their weights")
    parser.add_argument("--size", type=int, nargs="+", default=[320, 416, 544], help="short sides in pixels")
    parser.add_argument("--instances", type=int, default=5, help="of each frame, with random weights (default: 5)")
    parser.add_argument("--rounds", type=int, default=15, help="timed frames of each (default: 15)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    parser.add_argument("--processor", action="store_true", help="processor time, for busy machines; with --threads 1")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    paths = sorted(options.frames.rglob("*.jpg"))
    frames = [np.asarray(Image.open(path).convert("RGB")) for path in paths[:: max(1, len(paths) // options.rounds)]]
    results = {}
    for size_px in options.size:
        results[str(size_px)] = row = compared(frames, size_px, options)
        print(f"\nshort side {size_px} px, frames of {frames[0].shape[1]} x {frames[0].shape[0]} px")
        for name, times in row["ms"].items():
            print(
                f"{name:28} " + ", ".join(f"{stage} {ms:.0f} ms ({1000 / ms:.1f} fps)" for stage, ms in times.items())
            )
        ratios = ", ".join(f"{stage} {ratio:.2f}" for stage, ratio in row["ratios"].items())
        print(f"times as fast as PointRend: {ratios} (target {TARGET})", flush=True)
    if options.out:
        content = {"machine": machine(), "threads": torch.get_num_threads(), "by_short_side_px": results}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def compared(frames: list[NDArray[np.uint8]], size_px: int, options: argparse.Namespace) -> dict[str, Any]:
    """Median milliseconds by contender and stage, and the medians of the ratios within each round."""
    predictors = {name: predictor(number, size_px, options) for number, name in enumerate(PRESETS)}
    spent: dict[str, dict[str, list[float]]] = {name: {"network": [], "predictor": []} for name in PRESETS}
    for number in range(options.rounds + 2):
        frame = frames[number % len(frames)]
        for name in PRESETS if number % 2 else PRESETS[::-1]:
            for stage, call in stages(predictors[name], frame, size_px).items():
                milliseconds = timed(call, time.process_time if options.processor else time.perf_counter)
                if number >= 2:
                    spent[name][stage].append(milliseconds)
    first, second = (spent[name] for name in PRESETS)
    return {
        "ms": {name: {stage: statistics.median(own) for stage, own in times.items()} for name, times in spent.items()},
        "ratios": {
            stage: statistics.median(a / b for a, b in zip(first[stage], second[stage], strict=True)) for stage in first
        },
    }


def predictor(number: int, size_px: int, options: argparse.Namespace) -> InstancePredictor:
    """The predictor of a preset with random weights, or of a run, at a size of choice."""
    state = None
    if options.runs:
        loaded = load_model(options.runs[number])
        cfg, state = loaded.cfg.clone(), loaded.model.state_dict()
        cfg.defrost()
    else:
        cfg = preset_config(PRESETS[number])
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.POINT_HEAD.NUM_CLASSES = 1
        cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = cfg.MODEL.FPN.OUT_CHANNELS
        cfg.TEST.DETECTIONS_PER_IMAGE = options.instances
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = size_px, longest_px(size_px)
    torch.manual_seed(0)
    model, _ = build_model(cfg)
    if state is not None:
        model.load_state_dict(state)
    model = speed_up(model, device="cpu", precision="float32").eval()
    classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    return InstancePredictor(
        model,
        cfg,
        class_names=tuple(map(str, range(classes))),
        reader=ImageReader(order=cfg.INPUT.FORMAT),
        is_model_own=True,
        min_scores=[0.5] * classes if options.runs else None,
    )


def stages(own: InstancePredictor, frame: NDArray[np.uint8], size_px: int) -> dict[str, Callable[[], Any]]:
    """What is timed of a frame."""
    sample = inference_sample(frame, short_side_px=size_px, max_side_px=longest_px(size_px))

    def network() -> Any:
        with inference_mode(own.model, is_own=True), forward_pass(own.model):
            return forward_detections(own.model, [sample], own.min_scores)

    return {"network": network, "predictor": lambda: own(frame)}


def longest_px(size_px: int) -> int:
    """The largest long side for a short side, as projects have it."""
    return round(size_px * 5 / 3)


def timed(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Milliseconds of a call."""
    began = clock()
    call()
    return 1000 * (clock() - began)


if __name__ == "__main__":
    main()
