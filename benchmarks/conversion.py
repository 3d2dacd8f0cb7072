"""Time Labelme to COCO against labelme2coco and supervision: ``python benchmarks/conversion.py``.

Every contender converts the same folders in a fresh process, in turn, round after round. The peers have an environment
of their own, ``benchmarks/.venv-peers``, made on the first run: they need opencv-python, which overwrites the headless
wheel that this project uses. ``--large N`` converts N small images at once instead and measures the memory.
"""

from __future__ import annotations

import argparse
import base64
import importlib.metadata
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    import psutil

HERE = Path(__file__).resolve().parent
PEER_ENVIRONMENT = HERE / ".venv-peers"
PEER_REQUIREMENTS = HERE / "conversion_peers.txt"
POLYGONS = 8
LABELS = ("bolt", "cable", "chip", "fan", "plug")
OURS = ("d2tune", "d2tune, 1 worker")
PEERS = ("labelme2coco", "supervision")
SLOW = PEERS[1]
FLOOR = "floor"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slow-rounds", type=int, default=3, help="rounds that supervision takes part in (default: 3)")
    parser.add_argument("--size", default="1024x768", help="of the images, in pixels (default: 1024x768)")
    parser.add_argument("--no-peers", action="store_true", help="without labelme2coco and supervision")
    parser.add_argument("--large", type=int, help="convert this many small images at once and measure the memory")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--run", nargs=3, metavar=("CONTENDER", "SOURCE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run_here(options.run[0], Path(options.run[1]), Path(options.run[2]))))
        return
    width_px, height_px = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory(prefix="d2tune-bench-") as name:
        scratch = Path(name)
        if options.large:
            results = measure_large(scratch, options.large)
            print(large_table(results))
        else:
            contenders = (FLOOR, *OURS) if options.no_peers else (FLOOR, *OURS, *PEERS)
            results = compare(
                scratch, contenders, options.images, (options.rounds, options.slow_rounds), (width_px, height_px)
            )
            print("\n\n".join(table(case) for case in results["cases"]))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"machine": machine()} | results, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


def write_input(folder: Path, images: int, size: tuple[int, int], *, embed: bool, copies_of: int) -> None:
    """Write images like photos and a Labelme file for each; the same arguments give the same files.

    Args:
        folder: The new folder.
        images: Number of images.
        size: Width and height in pixels.
        embed: Whether each file has its image as ``imageData``.
        copies_of: Number of different images, which are repeated.
    """
    import numpy as np

    width_px, height_px = size
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    photos: list[bytes] = []
    for index in range(images):
        if index < copies_of:
            photos.append(_image(generator, width_px, height_px))
        content = photos[index % len(photos)]
        (folder / f"{index:05d}.jpg").write_bytes(content)
        value = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [_shape(generator, width_px, height_px) for _ in range(POLYGONS)],
            "imagePath": f"{index:05d}.jpg",
            "imageData": base64.b64encode(content).decode("ascii") if embed else None,
            "imageHeight": height_px,
            "imageWidth": width_px,
        }
        text = json.dumps(value, ensure_ascii=False, indent=2)
        (folder / f"{index:05d}.json").write_text(text, encoding="utf-8")


def _image(generator: numpy.random.Generator, width_px: int, height_px: int) -> bytes:
    """A JPEG with the frequencies of a photo: coarse structures under fine grain."""
    import numpy as np
    from PIL import Image

    pixels = np.zeros((height_px, width_px, 3))
    for cells, strength in ((6, 90), (24, 40), (96, 20), (384, 8)):
        noise = generator.integers(0, 255, (cells, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((width_px, height_px), Image.Resampling.BICUBIC)
        pixels += (np.asarray(layer, dtype=float) - 127) * strength / 127
    stream = io.BytesIO()
    Image.fromarray((pixels + 127).clip(0, 255).astype(np.uint8)).save(stream, format="JPEG", quality=90)
    return stream.getvalue()


def _shape(draw: numpy.random.Generator, width_px: int, height_px: int) -> dict[str, Any]:
    """A wavy outline of 12 to 60 vertices inside the image; every third outline is bent like a banana."""
    import numpy as np

    count = int(draw.integers(12, 61))
    radius_px = draw.uniform(0.03, 0.2) * min(width_px, height_px)
    center = draw.uniform([1.3 * radius_px] * 2, [width_px - 1.3 * radius_px, height_px - 1.3 * radius_px])
    if draw.integers(3):
        angle = np.arange(count) * (2 * np.pi / count)
        waves = [draw.uniform(0, 0.1) * np.sin(k * angle + draw.uniform(0, 6)) for k in (2, 3, 5)]
        reach = radius_px * (1 + np.sum(waves, axis=0))
    else:
        forth = np.linspace(0, 4, count // 2)
        angle = np.concatenate([forth, forth[::-1]]) + draw.uniform(0, 6)
        reach = radius_px * np.concatenate([np.ones(count // 2), np.full(count // 2, 0.6)])
        reach += radius_px * draw.uniform(-0.05, 0.05, len(reach))
    points = np.stack([center[0] + reach * np.cos(angle), center[1] + reach * np.sin(angle)], axis=1)
    return {
        "label": LABELS[int(draw.integers(len(LABELS)))],
        "points": points.tolist(),
        "group_id": None,
        "description": "",
        "shape_type": "polygon",
        "flags": {},
        "mask": None,
    }


def run_here(contender: str, source: Path, out: Path) -> dict[str, Any]:
    """Import a contender and convert once; returns the seconds of both and the bytes written."""
    started = time.perf_counter()
    convert, versions = CONTENDERS[contender]()
    imported = time.perf_counter()
    convert(source, out)
    done = time.perf_counter()
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {
        "import_s": imported - started,
        "conversion_s": done - imported,
        "written_bytes": written,
        "versions": {name: importlib.metadata.version(name) for name in versions},
    }


Contender = tuple[Callable[[Path, Path], object], tuple[str, ...]]


def _d2tune(workers: int | None = None) -> Contender:
    from d2tune.annotations.convert import convert
    from d2tune.annotations.model.options import ReadOptions

    options = ReadOptions(workers=workers)
    return lambda source, out: convert(source, out=out, options=options), ("d2tune", "numpy", "pillow", "pycocotools")


def _floor() -> Contender:
    from PIL import Image

    def convert(source: Path, out: Path) -> None:
        out.mkdir()
        for path in sorted(source.glob("*.json")):
            json.loads(path.read_bytes())
            with Image.open(path.with_suffix(".jpg")) as image:
                image.size  # noqa: B018

    return convert, ("pillow",)


def _labelme2coco() -> Contender:
    import labelme2coco

    return (
        lambda source, out: labelme2coco.convert(str(source), str(out), category_id_start=1),
        ("labelme2coco", "sahi", "numpy"),
    )


def _supervision() -> Contender:
    import supervision

    def convert(source: Path, out: Path) -> None:
        dataset = supervision.DetectionDataset.from_labelme(
            images_directory_path=str(source), annotations_directory_path=str(source)
        )
        out.mkdir()
        dataset.as_coco(annotations_path=str(out / "annotations.json"))

    return convert, ("supervision", "numpy", "opencv-python")


CONTENDERS: dict[str, Callable[[], Contender]] = {
    FLOOR: _floor,
    OURS[0]: _d2tune,
    OURS[1]: lambda: _d2tune(1),
    PEERS[0]: _labelme2coco,
    PEERS[1]: _supervision,
}


def compare(
    scratch: Path, contenders: Sequence[str], images: int, rounds: tuple[int, int], size: tuple[int, int]
) -> dict[str, Any]:
    """Convert with every contender in turn, with and without embedded images.

    Args:
        scratch: An empty folder.
        contenders: The contenders to time.
        images: Number of images.
        rounds: Number of rounds, and of rounds with supervision, which needs a minute or two.
        size: Width and height of the images in pixels.
    """
    peers = peer_python() if set(contenders) & set(PEERS) else sys.executable
    pythons = {name: peers if name in PEERS else sys.executable for name in contenders}
    cases = []
    versions: dict[str, str] = {}
    for embed in (False, True):
        source = scratch / f"input{int(embed)}"
        write_input(source, images, size, embed=embed, copies_of=32)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
        for number in range(rounds[0]):
            for name in contenders:
                if name == SLOW and number >= rounds[1]:
                    continue
                timing = timed(pythons[name], name, source, scratch / f"out{int(embed)}-{number}-{name}")
                versions |= timing.pop("versions")
                runs[name].append(timing)
        ran = {name: rows for name, rows in runs.items() if rows}
        input_mb = sum(path.stat().st_size for path in source.glob("*.json")) / 1e6
        cases.append(
            {
                "embedded_images": embed,
                "images": images,
                "polygons": images * POLYGONS,
                "rounds": rounds[0],
                "json_mb": round(input_mb, 1),
                "contenders": {name: summary(rows, ran) for name, rows in ran.items()},
            }
        )
    return {"versions": dict(sorted(versions.items())), "cases": cases}


def timed(python: str, contender: str, source: Path, out: Path) -> dict[str, Any]:
    """One conversion in a fresh process; ``process_s`` is the time from the start of Python to its end."""
    command = [python, str(Path(__file__).resolve()), "--run", contender, str(source), str(out)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    process_s = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{contender} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1]) | {"process_s": process_s}


def summary(rows: list[dict[str, Any]], runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The medians of a contender, and the medians of its ratios to every other contender in the same round."""
    median = {key: statistics.median(row[key] for row in rows) for key in ("conversion_s", "process_s", "import_s")}
    ratios = {
        name: round(
            statistics.median(a["conversion_s"] / b["conversion_s"] for a, b in zip(rows, rival, strict=False)), 4
        )
        for name, rival in runs.items()
        if rival is not rows
    }
    return {
        **{key: round(value, 4) for key, value in median.items()},
        "conversion_s_all": [round(row["conversion_s"], 4) for row in rows],
        "written_bytes": rows[0]["written_bytes"],
        "ratio_to": ratios,
    }


def table(case: dict[str, Any]) -> str:
    """One case as a Markdown table."""
    contenders = case["contenders"]
    with_images = "with embedded images" if case["embedded_images"] else "without embedded images"
    lines = [
        f"{case['images']} images, {case['polygons']} polygons, {with_images} ({case['json_mb']} MB of JSON), "
        f"median of {case['rounds']} rounds",
        "",
        "| | conversion | whole process | "
        + " | ".join(f"times {name}" for name in contenders if name not in OURS)
        + " |",
    ]
    lines.append("|" + "---|" * (lines[-1].count("|") - 1))
    for name, row in contenders.items():
        ratios = [row["ratio_to"].get(rival) for rival in contenders if rival not in OURS]
        shown = " | ".join("1" if ratio is None else f"{ratio:.3f}" for ratio in ratios)
        lines.append(f"| {name} | {row['conversion_s']:.3f} s | {row['process_s']:.2f} s | {shown} |")
    return "\n".join(lines)


def peer_python(environment: Path = PEER_ENVIRONMENT, requirements: Path = PEER_REQUIREMENTS) -> str:
    """The Python of the peers' environment, which is made where it does not exist."""
    folder = environment / ("Scripts" if os.name == "nt" else "bin")
    python = folder / ("python.exe" if os.name == "nt" else "python")
    if not python.is_file():
        print(f"making {environment} ...", file=sys.stderr)
        venv.create(environment, with_pip=True)
    wanted = [line.split()[0] for line in requirements.read_text(encoding="utf-8").splitlines() if line[:1].isalpha()]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
    return str(python)


def measure_large(scratch: Path, images: int) -> dict[str, Any]:
    """Convert many small images with the command, and measure the memory of the process and all its children."""
    import psutil

    source, out = scratch / "input", scratch / "out"
    write_input(source, images, (320, 240), embed=False, copies_of=16)
    code = "from d2tune.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", code, "convert", str(source), "--out", str(out)]
    started = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peaks = {"rss": 0, "pss": 0, "processes": 0}
    while process.poll() is None:
        for key, value in _memory(process).items():
            peaks[key] = max(peaks[key], value)
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"the conversion of {images} images failed")
    content = (out / "annotations.json").read_bytes()
    return {
        "images": images,
        "polygons": images * POLYGONS,
        "process_s": round(seconds, 2),
        "peak_rss_mb": round(peaks["rss"] / 1e6),
        "peak_pss_mb": round(peaks["pss"] / 1e6),
        "processes": peaks["processes"],
        "written_mb": round(len(content) / 1e6, 1),
    }


def _memory(process: psutil.Process) -> dict[str, int]:
    """Bytes of a process and its children: resident, and with shared pages counted once where they are known."""
    import psutil

    members = {"rss": 0, "pss": 0, "processes": 0}
    for member in [process, *process.children(recursive=True)]:
        try:
            info = member.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        members["rss"] += info.rss
        members["pss"] += getattr(info, "pss", info.rss)
        members["processes"] += 1
    return members


def large_table(results: dict[str, Any]) -> str:
    """The results of one large conversion as a Markdown table."""
    return (
        "| images | polygons | whole process | memory, all processes | shared pages counted once | written |\n"
        "|---|---|---|---|---|---|\n"
        f"| {results['images']} | {results['polygons']} | {results['process_s']:.1f} s | {results['peak_rss_mb']} MB "
        f"| {results['peak_pss_mb']} MB | {results['written_mb']} MB |"
    )


if __name__ == "__main__":
    main()
