"""Time and memory of predicting on a raster larger than memory should hold: ``python benchmarks/sliding_window.py``.

A raster of 4 channels is written tile by tile to a temporary folder. A process of its own predicts on it with one 1 x 1
convolution, so that what is measured is reading, blending and writing, and writes a tiled TIFF and a preview.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from conversion import machine

CHANNELS = 4
TILE_PX = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=20000, help="of the raster, in pixels (default: 20000)")
    parser.add_argument("--window", type=int, default=512, help="in pixels (default: 512)")
    parser.add_argument("--overlap", type=float, default=0.25, help="share of a window (default: 0.25)")
    parser.add_argument("--classes", type=int, default=6, help="default: 6")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1, beside the one that reads)")
    parser.add_argument("--compression", choices=["none", "zlib"], default="none", help="of the raster (default: none)")
    parser.add_argument("--scratch", type=Path, help="folder for the temporary folder")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measure(options.run, options)))
        return
    with tempfile.TemporaryDirectory(prefix="d2tune-bench-", dir=options.scratch) as folder:
        raster = Path(folder) / "raster.tif"
        write_raster(raster, options.side, options.compression)
        same = {name: getattr(options, name) for name in ("window", "overlap", "classes", "threads")}
        words = [word for name, value in same.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, __file__, "--run", str(raster), *words]
        results = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        results["raster_bytes"] = raster.stat().st_size
    results = {"machine": machine(), "side_px": options.side, "channels": CHANNELS, **same, **results}
    print(table(results))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def write_raster(path: Path, side_px: int, compression: str) -> None:
    """Smooth hills and some noise, 16 bits, all channels of a pixel side by side."""
    import tifffile

    tifffile.imwrite(
        path,
        _tiles(side_px),
        shape=(side_px, side_px, CHANNELS),
        dtype=np.uint16,
        tile=(TILE_PX, TILE_PX),
        photometric="minisblack",
        planarconfig="contig",
        compression=None if compression == "none" else compression,
        bigtiff=True,
        metadata=None,
    )


def _tiles(side_px: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 40, (TILE_PX, TILE_PX, CHANNELS), dtype=np.uint16)
    phases = np.arange(CHANNELS) * 1.7
    for top in range(0, side_px, TILE_PX):
        rows = np.sin((top + np.arange(TILE_PX))[:, None, None] / 171 + phases)
        for left in range(0, side_px, TILE_PX):
            columns = np.cos((left + np.arange(TILE_PX))[None, :, None] / 233 + 2 * phases)
            yield ((rows + columns) * 400 + 1000).astype(np.uint16) + noise


def measure(raster_path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Predict on a raster in this process."""
    import torch

    from d2tune.annotations.io.rasters import open_raster
    from d2tune.inference.sliding_window import predict_rows
    from d2tune.inference.writers.raster_files import LabelTiff, Preview

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    convolution = torch.nn.Conv2d(CHANNELS, options.classes, 1)
    seconds = {"read": 0.0, "network": 0.0, "write": 0.0}
    windows = 0

    def model(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        nonlocal windows
        windows += len(samples)
        began = time.perf_counter()
        scores = [{"sem_seg": convolution((sample["image"][None] - 1000) / 300)[0]} for sample in samples]
        seconds["network"] += time.perf_counter() - began
        return scores

    class Timed:
        def read(self, *window: int) -> np.ndarray:
            began = time.perf_counter()
            pixels = raster.read(*window)
            seconds["read"] += time.perf_counter() - began
            return pixels

    began, began_cpu = time.perf_counter(), time.process_time()
    with open_raster(raster_path) as raster:
        image: Any = Timed()
        image.height_px, image.width_px = raster.height_px, raster.width_px
        size = {"height_px": raster.height_px, "width_px": raster.width_px}
        tiff_path = raster_path.with_name("classes.tif")
        with LabelTiff(tiff_path, **size) as tiff, Preview(raster_path.with_name("classes.png"), **size) as preview:
            how: dict[str, Any] = {"classes": options.classes, "window_px": options.window, "overlap": options.overlap}
            for rows in predict_rows(model, image, **how):
                at = time.perf_counter()
                tiff.write(rows.class_ids)
                preview.write(rows.class_ids)
                seconds["write"] += time.perf_counter() - at
    total_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    pixels = size["height_px"] * size["width_px"]
    return {
        "windows": windows,
        "total_s": round(total_s, 2),
        "cpu_s": round(cpu_s, 2),
        "load_average": round(os.getloadavg()[0], 1),
        **{f"{name}_s": round(value, 2) for name, value in seconds.items()},
        "s_per_megapixel": round(total_s / pixels * 1e6, 4),
        "cpu_s_per_megapixel": round(cpu_s / pixels * 1e6, 4),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
        "written_bytes": tiff_path.stat().st_size,
    }


def table(results: dict[str, Any]) -> str:
    return (
        "| raster | windows | whole | processor time "
        "| reading (beside the rest) | network | compressing and writing | memory |\n"
        "|---|---|---|---|---|---|---|---|\n"
        f"| {results['side_px']} x {results['side_px']} x {CHANNELS}, {results['raster_bytes'] / 1e9:.2f} GB "
        f"| {results['windows']} of {results['window']} px, {results['classes']} classes | {results['total_s']:.0f} s "
        f"| {results['cpu_s']:.0f} s "
        f"| {results['read_s']:.0f} s | {results['network_s']:.0f} s | {results['write_s']:.0f} s "
        f"| {results['peak_rss_mb']} MB |"
    )


if __name__ == "__main__":
    main()
