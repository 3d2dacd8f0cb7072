"""Exported models beside torch on the same images, in turns: ``python benchmarks/export.py MODEL``.

The model is exported to every format, each export is checked as ``d2tune export`` does, and all of them predict on the
same photos in memory, one after the other, image by image. "network" is the time from the resized image to boxes and
box-sized masks or scores; "whole" also has resizing, and masks of the size of the photo, which all have in common.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from conversion import machine

FORMATS = (
    ("torchscript", "float32"),
    ("onnx", "float32"),
    ("onnx", "float16"),
    ("onnx", "int8"),
    ("openvino", "float32"),
    ("openvino", "float16"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="run folder or package")
    parser.add_argument("--images", type=Path, required=True, help="photos to time and to check with, or annotations")
    parser.add_argument("--calibrate", type=Path, help="photos for int8; without them int8 is not measured")
    parser.add_argument("--formats", nargs="+", default=["torchscript", "onnx", "openvino"], help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="predictions on each photo (default: 5)")
    parser.add_argument("--min-score", type=float, default=0.5, help="default: 0.5")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="d2tune-bench-") as scratch:
        rows = exported(options, Path(scratch))
        timed(rows, options)
    results = {"machine": machine(), "rounds": options.rounds, "rows": [row["result"] for row in rows]}
    print(table(results["rows"]))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def exported(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """The models: in torch as d2tune loads it, in torch with float32, and every export."""
    from d2tune import api
    from d2tune.export.reference import reference_model
    from d2tune.packages.manifest import is_package
    from d2tune.packages.read import read_package
    from d2tune.packages.write import write_package
    from d2tune.runs.load import load_model, predictor_of

    package = options.model
    if not is_package(package):
        package = scratch / "package"
        write_package(options.model, package)
    source = read_package(package)
    plain, reference = load_model(package), reference_model(source)
    size = source.weights.stat().st_size
    rows = [
        {"model": plain, "result": {"name": f"torch, {source.manifest.inference.precision}", "size_bytes": size}},
        {"model": reference, "result": {"name": "torch, float32", "size_bytes": size}},
    ]
    for name, precision in FORMATS:
        if name not in options.formats or (precision == "int8" and options.calibrate is None):
            continue
        out = scratch / f"{name}-{precision}"
        given = {"calibrate": options.calibrate} if precision == "int8" else {}
        done = api.export(
            options.model, out, format=name, precision=precision, images=options.images, allow_drift=True, **given
        )
        measured, drift = done.check.measured, done.check.measured.drift
        result = {
            "name": f"{name}, {precision}",
            "size_bytes": measured.size_bytes[1],
            "metric": measured.metric,
            "values": measured.values,
            "drift": {key: getattr(drift, key) for key in ("kept", "box_px", "mask_iou", "score")},
            "out_of_bounds": done.check.out_of_bounds,
        }
        rows.append({"model": load_model(out), "result": result})
    for row in rows:
        has_scores = bool(source.manifest.thresholds)
        row["predictor"] = predictor_of(row["model"], min_score=options.min_score if has_scores else None)
    return rows


def timed(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Time all models in turns on each photo; a first round is not counted."""
    from d2tune.inference.images import find_images, read_pixels

    reader = rows[0]["predictor"].reader
    pixels = [reader.shown(read_pixels(path, reader)) for path in find_images(options.images)[1]]
    seconds: list[dict[str, list[float]]] = [{"network": [], "whole": []} for _ in rows]
    for round_number in range(options.rounds + 1):
        for photo in pixels:
            for row, own in zip(rows, seconds, strict=True):
                network_s, whole_s = predicted(row["predictor"], photo)
                if round_number:
                    own["network"].append(network_s)
                    own["whole"].append(whole_s)
    for row, own in zip(rows, seconds, strict=True):
        row["result"]["images"] = len(pixels)
        for step in ("network", "whole"):
            row["result"][f"{step}_ms"] = 1e3 * statistics.median(own[step])
            for name, base in zip(("torch", "float32"), seconds, strict=False):
                ratios = [a / b for a, b in zip(base[step], own[step], strict=True)]
                row["result"][f"{step}_times_{name}"] = statistics.median(ratios)


def predicted(predictor: Any, photo: Any) -> tuple[float, float]:
    """Seconds of the network and of the whole prediction."""
    start = time.perf_counter()
    sample = predictor.prepare(photo)
    resized = time.perf_counter()
    (raw,) = predictor.run([sample])
    ran = time.perf_counter()
    predictor.finish(raw, sample)
    return ran - resized, time.perf_counter() - start


def table(rows: list[dict[str, Any]]) -> str:
    """The results in Markdown."""
    header = ("network", "times torch, float32", "whole", "times torch, float32", "times torch", "size")
    lines = [f"| model | {' | '.join(header)} | kept | box | mask IoU | metric | check |", "|---" * 12 + "|"]
    for row in rows:
        drift = row.get("drift", {})
        value = (row.get("values") or (None, None))[1]
        cells = [
            row["name"],
            f"{row['network_ms']:.1f} ms",
            f"{row['network_times_float32']:.2f}",
            f"{row['whole_ms']:.1f} ms",
            f"{row['whole_times_float32']:.2f}",
            f"{row['whole_times_torch']:.2f}",
            f"{row['size_bytes'] / 1e6:.1f} MB",
            "" if not drift else f"{100 * drift['kept']:.1f} %",
            "" if drift.get("box_px") is None else f"{drift['box_px']:.2g} px",
            "" if drift.get("mask_iou") is None else f"{drift['mask_iou']:.4f}",
            "" if value is None else f"{value:.1f}",
            "" if not drift else "; ".join(row["out_of_bounds"]) or "passed",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
