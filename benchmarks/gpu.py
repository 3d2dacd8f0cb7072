"""Training, evaluation and prediction on a CUDA GPU; ``make gpu`` runs it after the tests that need one.

``python benchmarks/gpu.py`` trains PointRend on ResNet-50 on the balloon photos with d2tune in float32 and in the
precision that it chooses, and with Detectron2's ``DefaultTrainer`` and ``AMPTrainer``, each in a process of its own and
in turn, with the same network, weights, sizes, batch, optimizer and number of loading processes. A step is timed from
the end of one to the end of the next, with the GPU synchronized. The evaluation and the predictions are those of the
run in float32. The results go to ``benchmarks/results/gpu_CARD.json``. ``--device cpu --size 96 --steps 8`` tries the
program where there is no GPU, and writes nothing unless ``--out`` says where.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
CONTENDERS = ("d2tune float32", "DefaultTrainer", "d2tune auto", "AMPTrainer")
START = "start"
"""A training before the others, whose weights they all begin with: the number of regions of a step depends on them."""
PAIRS = {"DefaultTrainer / d2tune float32": 1.6, "AMPTrainer / d2tune auto": 1.3}
"""Times of a step that are compared, and by how many times d2tune is to be faster."""
WARM_UP = 10
"""Steps that are not counted."""


def main() -> None:
    """Run everything, or the training that the parent process asks for."""
    options = _options()
    if options.child:
        _child(options)
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu.py: torch finds no CUDA GPU; `--device cpu --size 96 --steps 8` tries the program without one")
    with tempfile.TemporaryDirectory(prefix="d2tune-gpu-") as name:
        results = _machine(options) | _measured(options, Path(name))
    _show(results)
    out = options.out or _default_out(options, results)
    if out is not None:
        out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        print(f"written to {out}")


def _options() -> argparse.Namespace:
    shared = Path(os.environ.get("D2TUNE_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/ (default: D2TUNE_SHARED)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--preset", default="pointrend_r50_fpn")
    parser.add_argument("--size", type=int, default=800, metavar="PX", help="short side (default: 800)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="images of a step (default: 4)")
    parser.add_argument("--steps", type=int, default=60, help="of a training (default: 60)")
    parser.add_argument("--rounds", type=int, default=2, help="trainings of each contender (default: 2)")
    parser.add_argument("--workers", type=int, default=4, help="processes that load images (default: 4)")
    parser.add_argument("--out", type=Path, help="write the results to this file")
    parser.add_argument("--child", choices=[START, *CONTENDERS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    from d2tune.hardware import cpu_name

    on_gpu = options.device == "cuda"
    return {
        "card": torch.cuda.get_device_name() if on_gpu else None,
        "compute_capability": list(torch.cuda.get_device_capability()) if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "torch": torch.__version__,
        "processor": cpu_name(),
        "preset": options.preset,
        "short_side_px": options.size,
        "images_of_a_step": options.batch,
        "workers": options.workers,
    }


def _default_out(options: argparse.Namespace, results: dict[str, Any]) -> Path | None:
    if options.device != "cuda":
        return None
    card = re.sub(r"[^a-z0-9]+", "_", str(results["card"]).lower()).strip("_")
    return ROOT / "benchmarks" / "results" / f"gpu_{card}.json"


def _measured(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All trainings in turn, then the evaluation and the predictions of the first run."""
    import torchvision

    # random weights under the names of ImageNet's: the same network and frozen norms, without a download
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), work / "resnet50.pth")
    photos = options.shared / "data" / "balloon" / "train"
    words = ["convert", str(photos), "--out", str(work / "train.json"), "--to", "coco", "--class-name", "balloon"]
    subprocess.run([sys.executable, "-m", "d2tune", *words], check=True, stdout=subprocess.DEVNULL)
    _training(options, work, START, 0)
    done: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for number in range(options.rounds):
        for name in CONTENDERS:
            done[name].append(_training(options, work, name, number))
    medians = {name: statistics.median(one["step_ms"] for one in rounds) for name, rounds in done.items()}
    return {
        "trainings": done,
        "targets": PAIRS,
        "ratios": {pair: round(medians[pair.split(" / ")[0]] / medians[pair.split(" / ")[1]], 3) for pair in PAIRS},
        "evaluation": _evaluation(_run_folder(work, CONTENDERS[0], 0)),
        "prediction": _prediction(options, _run_folder(work, CONTENDERS[0], 0)),
    }


def _run_folder(work: Path, name: str, number: int) -> Path:
    return work / f"{name.replace(' ', '-')}-{number}"


def _training(options: argparse.Namespace, work: Path, name: str, number: int) -> dict[str, float]:
    """A training in a process of its own: milliseconds of a step, and the most memory of the GPU."""
    handed_on = ("shared", "device", "preset", "size", "batch", "steps", "workers")
    words = [word for key in handed_on for word in (f"--{key}", str(getattr(options, key)))]
    log = _run_folder(work, name, number).with_suffix(".log")
    command = [sys.executable, __file__, "--child", name, "--folder", str(work), "--number", str(number), *words]
    with log.open("w") as output:
        status = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    if status:
        sys.exit(f"{name} ended with {status}:\n{log.read_text()[-3000:]}")
    row: dict[str, float] = json.loads(log.with_suffix(".json").read_text())
    print(f"{name:16} {row['step_ms']:8.1f} ms a step", flush=True)
    return row


def _child(options: argparse.Namespace) -> None:
    """Train, and write what a step took."""
    from default_trainer import train_plainly
    from torch.optim.optimizer import register_optimizer_step_post_hook

    work, run = options.folder, _run_folder(options.folder, options.child, options.number)
    times: list[float] = []
    register_optimizer_step_post_hook(lambda *_: times.append(_synchronized()))
    start = _run_folder(work, START, 0) / "checkpoints" / "model_final.pth"
    if options.child == START:
        _train(options, work / "resnet50.pth", run, precision="float32")
    elif options.child.startswith("d2tune"):
        _train(options, start, run, precision=options.child.split()[1])
    else:
        first = _run_folder(work, CONTENDERS[0], 0)
        train_plainly(
            first / "detectron2.yaml",
            start,
            work / "train.json",
            options.shared / "data" / "balloon" / "train",
            run,
            iterations=options.steps,
            workers=options.workers,
            amp=options.child == "AMPTrainer" and options.device == "cuda",
        )
    times = times[min(WARM_UP, len(times) // 2) :]
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    result = {"step_ms": round(1000 * statistics.median(steps), 2), "counted_steps": len(steps)}
    if options.device == "cuda":
        result["gpu_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    run.with_suffix(".json").write_text(json.dumps(result))


def _synchronized() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _train(options: argparse.Namespace, weights: Path, run: Path, *, precision: str) -> None:
    import d2tune

    overrides = [
        f"data.root={options.shared / 'data' / 'balloon'}",
        "data.class_name=balloon",
        f"weights={weights}",
        f"model.preset={options.preset}",
        f"train.image_size={options.size}",
        f"train.batch_size={options.batch}",
        f"train.iterations={options.steps}",
        f"train.workers={options.workers}",
        f"train.precision={precision}",
        "train.eval_every=0",
        "train.validation_loss=false",
    ]
    gpus = 1 if options.device == "cuda" else 0
    project = ROOT / "projects" / "balloon.yaml"
    d2tune.train(project, overrides=overrides, output_dir=run, num_gpus=gpus, sample=False)


def _evaluation(run: Path) -> dict[str, Any]:
    """Seconds of ``d2tune eval`` of the validation photos, without those of starting."""
    import d2tune

    d2tune.evaluate(run, out=run.parent / "evaluation-0")
    began = _synchronized()
    result = d2tune.evaluate(run, out=run.parent / "evaluation-1")
    return {"images": result.metrics.images, "seconds": round(_synchronized() - began, 2)}


def _prediction(options: argparse.Namespace, run: Path) -> dict[str, Any]:
    """Milliseconds from a decoded photo to its instances."""
    import numpy as np
    from PIL import Image

    import d2tune

    predictor = d2tune.load_predictor(run)
    paths = sorted((options.shared / "data" / "balloon" / "val").glob("*.jpg"))
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    for photo in photos[:3]:
        predictor(photo)
    spent = []
    for photo in photos:
        began = _synchronized()
        predictor(photo)
        spent.append(1000 * (_synchronized() - began))
    return {"photos": len(photos), "median_ms": round(statistics.median(spent), 1), "most_ms": round(max(spent), 1)}


def _show(results: dict[str, Any]) -> None:
    print(f"\n{results['card'] or results['processor']}, {results['preset']} at {results['short_side_px']} px")
    for pair, ratio in results["ratios"].items():
        print(f"{pair:34} {ratio:5.2f} (target {PAIRS[pair]})")
    evaluation, prediction = results["evaluation"], results["prediction"]
    print(f"evaluation of {evaluation['images']} photos: {evaluation['seconds']} s")
    print(f"prediction of a photo: {prediction['median_ms']} ms, at most {prediction['most_ms']} ms")


if __name__ == "__main__":
    main()
