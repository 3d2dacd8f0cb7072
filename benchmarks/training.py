"""Training steps of d2tune, of an earlier commit of it and of Detectron2's ``DefaultTrainer``, in turn.

Each training is a process of its own on the balloon photos: the same network, image sizes, batch and optimizer, in
float32. Processor seconds are those between the first optimizer steps and the last one, with which the process ends:
loading images, forward, backward, update, hooks. The losses of d2tune are compared with those of a commit that draws
the same random numbers. ``DefaultTrainer`` is given the network of the earlier commit, with its weights after the
steps, no workers, no average of the weights and no clipping of gradients.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from real_trainings import ROOT, report

WARM_UP = 5
"""Steps that are not counted: the first ones load libraries and ask for memory."""

_VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd")


@dataclass(frozen=True)
class Steps:
    """A training.

    Attributes:
        step_s: Processor seconds of a step.
        process_s: Processor seconds of the whole process, with its start.
        peak_mb: The most memory of the process.
        losses: The losses of each step by name.
    """

    step_s: float
    process_s: float
    peak_mb: float
    losses: list[dict[str, float]]


def main() -> None:
    """Run the trainings and print the ratios."""
    options = _options()
    if options.child:
        _child(options)
        return
    with tempfile.TemporaryDirectory(prefix="d2tune-bench-") as name:
        work = Path(name)
        sources = {"d2tune": ROOT, "earlier": _checkout(options.earlier, work)}
        if options.same:
            sources["same"] = _checkout(options.same, work)
        runs: dict[str, list[Steps]] = {}
        for number in range(options.rounds):
            for contender, source in sources.items():
                if contender != "same" or not number:
                    runs.setdefault(contender, []).append(_train(options, source, work / f"{contender}-{number}"))
            runs.setdefault("detectron2", []).append(_plain(options, sources["earlier"], work, number))
        if options.same:
            runs["control"] = [_train(options, sources["same"], work / "control-0", threads=options.threads + 1)]
        report(_results(options, runs), options.out)


def _options() -> argparse.Namespace:
    shared = Path(os.environ.get("D2TUNE_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/ and weights/")
    parser.add_argument("--iterations", type=int, default=55)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--earlier", default="0ff596b", help="commit to compare with")
    parser.add_argument("--same", help="commit whose losses must be the same")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--child", choices=["d2tune", "detectron2"], help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help="project keys such as train.image_size=320")
    return parser.parse_args()


def _checkout(commit: str, work: Path) -> Path:
    """The files of a commit in a new folder."""
    folder = work / f"commit-{commit}"
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "x"], cwd=folder, check=True, input=archive)
    return folder


def _train(options: argparse.Namespace, source: Path, run: Path, *, threads: int | None = None) -> Steps:
    """``d2tune train`` of the package in a folder."""
    last = options.iterations
    words = [str(ROOT / "benchmarks" / "projects" / "balloon_cpu.yaml"), "--output-dir", str(run), "--num-gpus", "0"]
    words += [f"data.root={options.shared / 'data' / 'balloon'}"]
    words += [f"weights={options.shared / 'weights' / 'mobilenet_v2_imagenet.pth'}"]
    words += [f"train.iterations={last}", f"train.eval_every={last}", "train.precision=float32", "train.workers=0"]
    return _process(options, "d2tune", source, run, [*words, *options.words], threads=threads)


def _plain(options: argparse.Namespace, source: Path, work: Path, number: int) -> Steps:
    """``DefaultTrainer`` with the config and the weights of a training of the earlier commit."""
    truth = work / "train.json"
    if not truth.is_file():
        photos = options.shared / "data" / "balloon" / "train"
        words = ["convert", str(photos), "--out", str(truth), "--to", "coco", "--class-name", "balloon"]
        subprocess.run([sys.executable, "-m", "d2tune.cli", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    earlier, run = work / "earlier-0", work / f"detectron2-{number}"
    words = [str(earlier), str(truth), str(options.shared / "data" / "balloon" / "train"), str(run)]
    return _process(options, "detectron2", source, run, words)


def _process(
    options: argparse.Namespace, child: str, source: Path, run: Path, words: list[str], *, threads: int | None = None
) -> Steps:
    """Run this file as one of the contenders, in a process that imports d2tune from ``source``."""
    out = run.with_suffix(".json")
    command = [sys.executable, __file__, "--child", child, "--out", str(out), "--iterations", str(options.iterations)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(source), str(ROOT / "benchmarks")]),
        "OMP_NUM_THREADS": str(threads or options.threads),
        "OMP_WAIT_POLICY": "passive",
    }
    with out.with_suffix(".txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen([*command, "--", *words], cwd=source, env=environment, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{child} ended with {status}:\n{out.with_suffix('.txt').read_text()[-3000:]}")
    rows = json.loads(out.read_text())
    times = [row["process_s"] for row in rows]
    step_s = (times[-1] - times[WARM_UP - 1]) / (len(times) - WARM_UP)
    print(f"{run.name}: {step_s:.3f} s a step", file=sys.stderr, flush=True)
    return Steps(step_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, [row["losses"] for row in rows])


def _results(options: argparse.Namespace, runs: dict[str, list[Steps]]) -> dict[str, Any]:
    from d2tune.hardware import cpu_features, cpu_name

    median = {name: statistics.median(one.step_s for one in done) for name, done in runs.items()}
    ratios = {
        f"{other} / d2tune": [round(b.step_s / a.step_s, 3) for a, b in zip(runs["d2tune"], runs[other], strict=True)]
        for other in ("earlier", "detectron2")
    }
    results: dict[str, Any] = {
        "processor": cpu_name(),
        "instructions": sorted(cpu_features() & set(_VECTORS)),
        "threads": options.threads,
        "iterations": options.iterations,
        "commits": {"earlier": options.earlier, "same": options.same},
        "step_s": {name: round(value, 3) for name, value in median.items()},
        "targets": {"earlier / d2tune": 1.25, "detectron2 / d2tune": 1.6},
        "ratios": ratios,
        "runs": {name: [asdict(one) | {"losses": None} for one in done] for name, done in runs.items()},
    }
    if "same" in runs:
        same = runs["same"][0].losses
        results["largest difference of losses"] = _difference(runs["d2tune"][0].losses, same)
        results["the same of the control"] = _difference(runs["control"][0].losses, same)
    return results


def _difference(own: list[dict[str, float]], others: list[dict[str, float]]) -> dict[str, float]:
    """The largest difference of any loss, up to some steps."""
    gaps = [max(abs(a[name] - b[name]) for name in a) for a, b in zip(own, others, strict=True)]
    return {f"{count} steps": max(gaps[:count]) for count in (1, 5, 10, 20, 50) if count <= len(gaps)}


def _child(options: argparse.Namespace) -> None:
    """Train in this process, and write the processor time and the losses at each optimizer step.

    The process ends after the last one. d2tune leaves its weights after the first one beside them.
    """
    import torch
    from detectron2.modeling import GeneralizedRCNN
    from detectron2.utils.events import get_event_storage
    from torch.optim.optimizer import register_optimizer_step_post_hook

    rows: list[dict[str, Any]] = []

    def record(*_: object) -> None:
        latest = get_event_storage().latest()
        losses = {name: float(value) for name, (value, _) in latest.items() if "loss" in name}
        rows.append({"process_s": time.process_time(), "losses": losses})
        if len(rows) == 1 and options.child == "d2tune":
            model = next(one for one in gc.get_objects() if type(one) is GeneralizedRCNN)
            torch.save({"model": model.state_dict()}, options.out.with_suffix(".pth"))
        if len(rows) == options.iterations:
            options.out.write_text(json.dumps(rows))
            os._exit(0)

    register_optimizer_step_post_hook(record)
    if options.child == "d2tune":
        from d2tune import cli

        sys.argv = ["d2tune", "train", *options.words]
        raise SystemExit(getattr(cli, "command", cli.main)())
    from default_trainer import train_plainly

    earlier, truth, photos, run = map(Path, options.words)
    config, weights = earlier / "detectron2.yaml", earlier.with_suffix(".pth")
    train_plainly(config, weights, truth, photos, run, iterations=options.iterations)
    raise SystemExit(f"there were {len(rows)} steps")


if __name__ == "__main__":
    main()
