"""Shared by the benchmarks of trainings: the folder of the real data, a training in its own process, its results."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        folder: Its run folder.
        minutes: The training time of the record, evaluations included.
        evaluation: ``evaluation.json``.
    """

    folder: Path
    minutes: float
    evaluation: dict[str, Any]

    def metric(self, name: str) -> float:
        """A metric of the whole validation split, in percent."""
        return float(self.evaluation["metrics"]["semantic"][name]["value"])


def parser_for(text: str) -> argparse.ArgumentParser:
    """The options that each of these benchmarks has."""
    shared = Path(os.environ.get("D2TUNE_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/ (default: D2TUNE_SHARED)")
    parser.add_argument("--work", type=Path, help="keep the data and the run in this folder, which must be new")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("overrides", nargs="*", help="project keys such as train.iterations=100")
    return parser


@contextmanager
def work_folder(wanted: Path | None) -> Iterator[Path]:
    """``wanted``, made, or a folder that is removed at the end."""
    if wanted is not None:
        wanted.mkdir(parents=True)
        yield wanted.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="d2tune-bench-") as name:
        yield Path(name)


def train(project: str, work: Path, overrides: list[str]) -> Trained:
    """Run ``tools/train_net.py`` on ``work/data`` with a project of ``benchmarks/projects``, into ``work/run``."""
    command = [sys.executable, ROOT / "tools" / "train_net.py", "--config", ROOT / "benchmarks" / "projects" / project]
    command += ["--output-dir", work / "run", f"data.root={work / 'data'}", *overrides]
    subprocess.run([str(word) for word in command], cwd=ROOT, check=True)
    record, evaluation = (
        json.loads((work / "run" / name).read_text(encoding="utf-8")) for name in ("record.json", "evaluation.json")
    )
    return Trained(work / "run", record["durations"]["training_s"] / 60, evaluation)


def report(results: dict[str, Any], out: Path | None) -> None:
    """Print the results and write them to a file."""
    print(json.dumps(results, indent=2))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
