"""Train, evaluate and use the sample projects as their users do, and report times and metrics.

``python benchmarks/samples.py membrane cells`` renders the sample of each project into a new folder, runs
``tools/train_net.py --config projects/NAME.yaml`` on it and ``d2tune predict`` on its validation images, and prints
the main metric with the clock and processor time of both commands. Without names it takes all semantic and
panoptic projects. ``--out`` adds to a file of earlier results.
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
from pathlib import Path
from typing import Any

from d2tune.project import load_project

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = ("carvana", "ships", "steel", "membrane", "cells", "crops", "street")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("projects", nargs="*", help=f"of {', '.join(PROJECTS)} (default: all)")
    parser.add_argument("--override", action="append", default=[], help="a project key such as train.iterations=4")
    parser.add_argument("--out", type=Path, help="write the results as JSON, beside those of earlier runs")
    options = parser.parse_args()
    unknown = [name for name in options.projects if name not in PROJECTS]
    if unknown:
        parser.error(f"no such sample project: {unknown[0]}")
    results: dict[str, Any] = {}
    for name in options.projects or PROJECTS:
        with tempfile.TemporaryDirectory(prefix="d2tune-bench-") as work:
            results[name] = measure(name, Path(work), options.override)
        print(json.dumps({name: results[name]}), flush=True)
        if options.out:
            earlier = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(earlier | results, indent=2) + "\n", encoding="utf-8")
    print("\n| project | metric | training and evaluation | processor time | predicting |\n|---|---|---|---|---|")
    for name, row in results.items():
        print(
            f"| `{name}` | {row['metric']} {row['value']:.1f} | {row['train_s']:.0f} s | {row['train_cpu_s']:.0f} s "
            f"| {row['predict_s']:.0f} s |"
        )


def measure(name: str, work: Path, overrides: list[str]) -> dict[str, Any]:
    """One project from nothing to predictions."""
    run = work / "run"
    project = ROOT / "projects" / f"{name}.yaml"
    kind = load_project(project).project.data.sample
    words = ["--config", project, "--output-dir", run, f"data.root={work / 'data'}", f"data.sample={kind}"]
    load = os.getloadavg()[0]
    train_s, train_cpu_s = timed(ROOT / "tools" / "train_net.py", *words, *overrides)
    predict_s, _ = timed("-c", "import sys; from d2tune.cli import main; sys.exit(main())", "predict", run)
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    (task,) = evaluation["metrics"]
    metric = {"semantic": "mIoU", "panoptic": "PQ"}[task]
    main = evaluation["metrics"][task][metric]
    return {
        "metric": metric,
        "value": main["value"],
        "low": main["low"],
        "high": main["high"],
        "metrics": {key: one["value"] for key, one in evaluation["metrics"][task].items()},
        "images": evaluation["images"],
        "train_s": round(train_s, 1),
        "train_cpu_s": round(train_cpu_s, 1),
        "predict_s": round(predict_s, 1),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(load, 1),
    }


def timed(*words: object) -> tuple[float, float]:
    """Run Python on some words; the seconds on the clock and of all its processors."""
    before, start = cpu_s(), time.perf_counter()
    subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, check=True, stdout=sys.stderr)
    return time.perf_counter() - start, cpu_s() - before


def cpu_s() -> float:
    """Processor time of the children that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
