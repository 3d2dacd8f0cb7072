"""Time of a fresh process until its first mask: of a package, of the run that it was made from, and of torch alone.

``python benchmarks/first_mask.py RUN --photo FILE`` makes a package of the run in a temporary folder and starts
processes in turn: one that imports torch, one that predicts with the package, one with the run, and ``d2tune predict``
with the package. "Mask" is the time from the start of the process until it prints that its mask is there, "end" the
time until the process has ended: after torch was imported, Python takes up to 0.7 s more to exit. "Processor" is the
time of all threads in user and system mode, which other processes on the machine change less than the clock's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from evaluation import machine
from processes import timed_process

import d2tune

MASK = """
import sys
import d2tune
result = d2tune.load_predictor(sys.argv[1])(sys.argv[2])
print(result, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        package, photo, run = Path(scratch) / "model", options.photo.resolve(), options.run.resolve()
        d2tune.package(run, package)
        contenders = {
            "import torch": ["-c", "import torch; print(torch.__version__, flush=True)"],
            "package, in Python": ["-c", MASK, str(package), str(photo)],
            "run, in Python": ["-c", MASK, str(run), str(photo)],
            "package, d2tune predict": ["-m", "d2tune", "predict", str(package), str(photo), "--out", "out"],
        }
        times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
        for number in range(options.rounds + 1):
            for name, words in contenders.items():
                measured = timed_process([sys.executable, *words], cwd=scratch)
                if number:  # the first round fills the cache of the file system
                    times[name].append(measured)
    table = {
        name: {
            "mask_s": round(statistics.median(mask for mask, _, _ in rows), 2),
            "slowest_s": round(max(mask for mask, _, _ in rows), 2),
            "end_s": round(statistics.median(end for _, end, _ in rows), 2),
            "processor_s": round(statistics.median(processor for _, _, processor in rows), 2),
        }
        for name, rows in times.items()
    }
    print(f"{'':26}  mask s  slowest s   end s  processor s  ({options.rounds} rounds)")
    for name, row in table.items():
        print(
            f"{name:26} {row['mask_s']:7.2f}  {row['slowest_s']:9.2f}  {row['end_s']:6.2f}  {row['processor_s']:11.2f}"
        )
    if options.out:
        content = {"machine": machine(), "rounds": options.rounds, "contenders": table}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
