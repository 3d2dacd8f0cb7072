"""How close the prediction on a video comes to the network alone, and a contact sheet of what it draws.

``python benchmarks/video.py MODEL`` makes a video of the frames of the car video, and measures in turn the network
alone on frames that are read and resized before, and the whole: reading, network, tracking, drawing and encoding at the
same time. ``--sheet FILE.png`` shows every frame of the drawn video.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from conversion import machine
from numpy.typing import NDArray
from PIL import Image
from tracking import SHARED, write_video

from d2tune.runs.load import load_model, predictor_of
from d2tune.video import VideoOptions, predict_video
from d2tune.video.reader import VideoReader, source_of
from d2tune.video.result import VideoResult

GOAL = 1.1
"""Largest time of the whole, as a multiple of that of the network alone."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="run folder or package of an instance model")
    parser.add_argument("--video", type=Path, help="a video file (default: the frames of the car video)")
    parser.add_argument("--frames", type=int, help="only so many frames")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--min-score", type=float, default=0.5)
    parser.add_argument("--format", choices=["mp4", "webm", "none"], default="mp4", help="of the drawn video")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the drawn video as PNG")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    predictor = predictor_of(load_model(options.model), min_score=min(0.1, options.min_score))
    with tempfile.TemporaryDirectory(prefix="d2tune-bench-") as name:
        scratch = Path(name)
        video = options.video or write_video(SHARED / "data" / "car_video", scratch / "car.mkv")
        if options.frames:
            video = shortened(video, scratch / "short.mkv", options.frames)
        rounds = [one_round(predictor, video, scratch / "out", options) for _ in range(options.rounds)]
        if options.sheet:
            options.sheet.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sheet(scratch / "out" / f"predicted.{options.format}")).save(options.sheet)
    results = {"machine": machine(), "model": options.model.name, "video": video.name, "rounds": rounds}
    results["ratio"] = round(float(np.median([one["ratio"] for one in rounds])), 3)
    print(table(rounds))
    print(f"\nmedian: the whole takes {results['ratio']:.3f} times as long as the network alone (goal: {GOAL})")
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def one_round(predictor: Any, video: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The network alone, and the whole."""
    alone_s, frames = network_alone(predictor, video)
    chosen = VideoOptions(video=options.format, min_scores=[options.min_score] * len(predictor.class_names))
    result: VideoResult = predict_video(predictor, video, out=out, options=chosen)
    seconds = result.seconds
    stages = {
        "decode": seconds.decode_s,
        "network": seconds.forward_s,
        "follow": seconds.follow_s,
        "write": seconds.write_s,
    }
    return {
        "frames": frames,
        "alone_fps": round(frames / alone_s, 2),
        "whole_fps": round(result.frame_rate, 2),
        "ratio": round(seconds.total_s / alone_s, 3),
        "ms": {name: round(1000 * value / frames, 1) for name, value in stages.items()},
        "tracks": result.tracks,
    }


def network_alone(predictor: Any, video: Path) -> tuple[float, int]:
    """The seconds of the network on all frames, in the same batches, with nothing beside it."""
    with VideoReader(source_of(video)) as reader:
        size = reader.batch_of(predictor.batches)
        samples = [predictor.prepare(frame.image_rgb) for frame in reader]
    predictor.run(samples[:size])  # memory and kernels of the first pass
    start_s = time.perf_counter()
    for at in range(0, len(samples), size):
        predictor.run(samples[at : at + size])
    return time.perf_counter() - start_s, len(samples)


def shortened(video: Path, out: Path, frames: int) -> Path:
    """The first frames of a video, without losses."""
    with VideoReader(source_of(video)) as reader:
        size = reader.width_px, reader.height_px
        codec = cv2.VideoWriter.fourcc(*"FFV1")
        writer = cv2.VideoWriter(str(out), cv2.CAP_FFMPEG, codec, reader.frame_rate, size)
        for frame, _ in zip(reader, range(frames), strict=False):
            writer.write(cv2.cvtColor(frame.image_rgb, cv2.COLOR_RGB2BGR))
        writer.release()
    return out


def sheet(video: Path, *, columns: int = 5, width_px: int = 480) -> NDArray[np.uint8]:
    """All frames of a video beside and below each other, each with its number."""
    cells = []
    with VideoReader(source_of(video)) as reader:
        for frame in reader:
            height_px = round(width_px * frame.image_rgb.shape[0] / frame.image_rgb.shape[1])
            cell = cv2.resize(frame.image_rgb, (width_px, height_px), interpolation=cv2.INTER_AREA)
            cv2.putText(cell, str(frame.index), (8, height_px - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 4)
            cv2.putText(cell, str(frame.index), (8, height_px - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1)
            cells.append(cell)
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    rows = [np.hstack(cells[at : at + columns]) for at in range(0, len(cells), columns)]
    return np.vstack(rows)


def table(rounds: list[dict[str, Any]]) -> str:
    """The rounds as a table in Markdown."""
    lines = [
        "| round | network alone | whole | ratio | decode | network | masks and tracks | draw and encode | tracks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for number, one in enumerate(rounds, start=1):
        stages = " | ".join(f"{one['ms'][name]:.1f} ms" for name in ("decode", "network", "follow", "write"))
        rates = f"{one['alone_fps']:.2f} frames/s | {one['whole_fps']:.2f} frames/s | {one['ratio']:.3f}"
        lines.append(f"| {number} | {rates} | {stages} | {one['tracks']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
