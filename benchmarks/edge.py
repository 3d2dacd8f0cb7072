"""Installed size and start-up time of an ONNX export with its runner, without torch.

``python benchmarks/edge.py RUN --photo FILE`` exports a run, makes a virtual environment with the libraries of
``requirements.txt``, and starts fresh processes that predict on a photo: in Python until the first mask is there, and
``runner.py`` until it has written its files. "Installed" are the libraries without pip and setuptools, and the folder
of the export. RUN may be a folder that has been exported already.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from evaluation import machine
from processes import timed_process

import d2tune

TARGET_MB, TARGET_S = 300, 1.5
MASK = """
import sys
sys.path.insert(0, sys.argv[1])
from runner import Instances, Model
result = Model(sys.argv[1])(sys.argv[2])
print(result.mask(0).sum() if isinstance(result, Instances) and len(result.scores) else "no mask", flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder, or an export that has a runner")
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, photo = Path(scratch) / "edge", options.photo.resolve()
        if (options.run / "runner.py").is_file():
            shutil.copytree(options.run, folder)
        else:
            d2tune.package(options.run, folder, runtime="onnx")
        python = _environment(Path(scratch) / "venv", folder / "requirements.txt")
        sizes_mb = {"libraries": _libraries_mb(python), "export": _size_mb(folder)}
        times = {"first mask": [], "runner.py": []}
        for number in range(options.rounds + 1):
            out = Path(scratch) / f"out-{number}"
            measured = {
                "first mask": timed_process([str(python), "-c", MASK, str(folder), str(photo)]),
                "runner.py": timed_process([str(python), str(folder / "runner.py"), str(photo), "--out", str(out)]),
            }
            if number:  # the first round fills the cache of the file system
                for name, values in measured.items():
                    times[name].append(values)
    installed_mb = sum(sizes_mb.values())
    print(
        f"installed: {installed_mb:.0f} MB (target: at most {TARGET_MB}), of which the export {sizes_mb['export']:.0f}"
    )
    rows = {}
    for name, values in times.items():
        median_s, slowest_s = statistics.median(wall for wall, _, _ in values), max(wall for wall, _, _ in values)
        processor_s = statistics.median(used for _, _, used in values)
        rows[name] = {"median_s": median_s, "slowest_s": slowest_s, "processor_s": processor_s}
        print(f"{name:12} {median_s:5.2f} s, slowest {slowest_s:5.2f} s, processor {processor_s:5.2f} s")
    print(f"target until the first mask: at most {TARGET_S} s")
    if options.out:
        content = {"machine": machine(), "installed_mb": sizes_mb, "rounds": options.rounds, "times": rows}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _environment(folder: Path, requirements: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
    subprocess.run(command, check=True)
    return python


def _libraries_mb(python: Path) -> float:
    """The size of what pip installed, with its compiled files."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    folders = [path for path in Path(done.stdout.strip()).iterdir() if not path.name.startswith(("pip", "setuptools"))]
    return sum(map(_size_mb, folders))


def _size_mb(path: Path) -> float:
    paths = path.rglob("*") if path.is_dir() else [path]
    return sum(one.stat().st_size for one in paths if one.is_file()) / 1e6


if __name__ == "__main__":
    main()
