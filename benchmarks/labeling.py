"""Is it worth labeling the most uncertain images first? On the balloon photos, against a random choice.

``python benchmarks/labeling.py --work FOLDER --out benchmarks/results/labeling.json``. For each seed, ``--start``
photos of the training split are drawn at random, and the compact preset is trained on them. That model chooses
``--add`` of the other photos by their uncertainty, as ``d2tune predict --to labelme --most-uncertain`` does; the other
arm draws as many at random. Both are trained from the same initial weights with the same seed and schedule, and
evaluated on the validation photos. The arms alternate, and the order of the two changes with the seed.

Every training that has ended stays in FOLDER, and the same command goes on from there.
"""

from __future__ import annotations

import json
import math
import platform
import random
import statistics
import subprocess
import sys
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from real_trainings import ROOT, parser_for

from d2tune.annotations.convert import read_dataset
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.inference.uncertainty import Uncertainty, most_uncertain
from d2tune.metrics.bootstrap import student_quantile
from d2tune.run_folder import RunFolder
from d2tune.runs.compare import compare
from d2tune.runs.load import load_model, predictor_of
from d2tune.runs.most_uncertain import share_with_objects
from d2tune.tasks import task_of

ARMS = ("random", "uncertain")


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result of a training, so that a folder is not continued with other settings."""

    start: int
    add: int
    iterations: int
    image_size: int


@dataclass(frozen=True)
class Result:
    """The result of a seed.

    Attributes:
        seed: The seed.
        start_ap: Mask AP with the photos at the start.
        ap: Mask AP of each arm.
        balloons: Annotated balloons that each arm trained on.
        shared: Number of photos that both arms added.
        difference: Mask AP of the uncertain arm minus that of the random one.
        low: Lower end of the 95 % interval of the difference over the validation photos.
        high: Upper end.
    """

    seed: int
    start_ap: float
    ap: dict[str, float]
    balloons: dict[str, int]
    shared: int
    difference: float
    low: float | None
    high: float | None


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1 (default: 3)")
    parser.add_argument("--start", type=int, default=12, metavar="N", help="photos at the start (default: 12)")
    parser.add_argument("--add", type=int, default=20, metavar="N", help="photos that are added (default: 20)")
    parser.add_argument("--iterations", type=int, default=120, metavar="N", help="of each training (default: 120)")
    parser.add_argument("--image-size", type=int, default=320, metavar="PX", help="short side (default: 320)")
    options = parser.parse_args()
    if options.work is None:
        parser.error("name a folder for the trainings with --work; the same command goes on from it")
    settings = Settings(options.start, options.add, options.iterations, options.image_size)
    work = options.work.resolve()
    keep_settings(work, settings)
    dataset = read_dataset(options.shared / "data" / "balloon" / "train", options=ReadOptions(class_name="balloon"))
    results = [run_seed(seed, dataset, settings, options, work) for seed in range(options.seeds)]
    print_table(results, settings)
    if options.out:
        content = {
            "settings": asdict(settings),
            "machine": platform.machine(),
            "seeds": [asdict(one) for one in results],
        }
        options.out.write_text(json.dumps(content | {"mean": mean_of(results)}, indent=2) + "\n", encoding="utf-8")


def keep_settings(work: Path, settings: Settings) -> None:
    """Write the settings into a new folder, and refuse a folder with other settings."""
    path = work / "settings.json"
    if path.is_file():
        if json.loads(path.read_text("utf-8")) != asdict(settings):
            sys.exit(f"{path} has other settings; name another folder with --work")
        return
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(settings)) + "\n", encoding="utf-8")


def run_seed(seed: int, dataset: Dataset, settings: Settings, options: Namespace, work: Path) -> Result:
    """Train at the start and in both arms."""
    folder = work / f"seed_{seed}"
    names = sorted(image.file_name for image in dataset.images)
    random.Random(seed).shuffle(names)
    start, rest = names[: settings.start], names[settings.start :]
    first = train(folder / "start", start, seed, settings, options)
    lists = {
        "random": [*start, *random.Random(1000 + seed).sample(rest, settings.add)],
        "uncertain": [*start, *chosen_by(first, dataset, start, rest, settings.add, folder / "uncertainty.json")],
    }
    order = ARMS if seed % 2 == 0 else ARMS[::-1]
    runs = {arm: train(folder / arm, lists[arm], seed, settings, options) for arm in order}
    row = compare(runs["random"], runs["uncertain"]).metrics["segm AP"]
    counts = {image.file_name: len(instances) for image, instances in by_image(dataset)}
    return Result(
        seed=seed,
        start_ap=mask_ap(first),
        ap={arm: mask_ap(runs[arm]) for arm in ARMS},
        balloons={arm: sum(counts[name] for name in lists[arm]) for arm in ARMS},
        shared=len(set(lists["random"]) & set(lists["uncertain"])) - settings.start,
        difference=float(row.difference or 0.0),
        low=row.interval.low,
        high=row.interval.high,
    )


def by_image(dataset: Dataset) -> list[tuple[Any, list[Any]]]:
    groups = dataset.by_image()
    return [(image, groups[image.id]) for image in dataset.images]


def chosen_by(run: Path, dataset: Dataset, start: list[str], rest: list[str], count: int, kept: Path) -> list[str]:
    """The photos that a run is most unsure of, as `d2tune predict` chooses them; kept in a file."""
    if kept.is_file():
        names: list[str] = json.loads(kept.read_text("utf-8"))["chosen"]
        return names
    paths = {image.file_name: image.path for image in dataset.images if image.path is not None}
    loaded = load_model(run)
    measure = task_of(loaded.project).uncertainty(
        predictor_of(loaded), loaded.cfg, share_with_objects=share_with_objects(loaded)
    )
    results = list(measure.scan([paths[name] for name in rest]))
    values = [one.value if isinstance(one, Uncertainty) else None for one in results]
    known = [paths[name] for name in start]
    chosen, _ = most_uncertain(values, [paths[name] for name in rest], count=count, known=known)
    names = [rest[index] for index in chosen]
    if len(names) < count:
        sys.exit(f"only {len(names)} photos are not near-duplicates; choose fewer with --add")
    listed = {name: one.value for name, one in zip(rest, results, strict=True) if isinstance(one, Uncertainty)}
    kept.write_text(json.dumps({"chosen": names, "values": listed}, indent=2) + "\n", encoding="utf-8")
    return names


def train(folder: Path, names: list[str], seed: int, settings: Settings, options: Namespace) -> Path:
    """Train on some photos, or take the run that is there; returns its folder."""
    run = RunFolder(folder / "run")
    if run.evaluation.is_file() and run.is_finished(settings.iterations):
        return run.path
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / "train.txt"
    listed.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    project = folder / "labeling.yaml"
    project.write_text(yaml.safe_dump(project_of(listed, seed, settings, options)), encoding="utf-8")
    words = [sys.executable, ROOT / "tools" / "train_net.py", "--config", project, "--output-dir", run.path]
    words += ["--resume"] if run.last.is_file() else []
    if run.path.is_dir() and not run.last.is_file():
        run.path.rename(folder / f"stopped_{len(list(folder.glob('stopped_*')))}")
    print(f"\n{folder}: {len(names)} photos", flush=True)
    subprocess.run([str(word) for word in [*words, *options.overrides]], cwd=ROOT, check=True)
    return run.path


def project_of(listed: Path, seed: int, settings: Settings, options: Namespace) -> dict[str, Any]:
    return {
        "name": "labeling",
        "data": {
            "root": str((options.shared / "data" / "balloon").resolve()),
            "train": str(listed.resolve()),
            "val": "val",
            "annotations": "train",
            "class_name": "balloon",
        },
        "classes": ["balloon"],
        "model": {"preset": "pointrend_mobilenet_v2_fpn"},
        "weights": str((options.shared / "weights" / "mobilenet_v2_imagenet.pth").resolve()),
        "train": {
            "batch_size": 4,
            "iterations": settings.iterations,
            "image_size": settings.image_size,
            "scale_jitter": [0.6, 1.2],
            "eval_every": 0,
            "precision": "float32",
            "seed": seed,
        },
    }


def mask_ap(run: Path) -> float:
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return float(evaluation["metrics"]["segm"]["AP"]["value"])


def mean_of(results: list[Result]) -> dict[str, float | None]:
    """The means over the seeds, and Student's 95 % interval of the mean difference, which needs two seeds."""
    differences = [one.difference for one in results]
    mean = statistics.fmean(differences)
    half = None
    if len(results) > 1:
        half = student_quantile(0.975, len(results) - 1) * statistics.stdev(differences) / math.sqrt(len(results))
    return {
        "start": statistics.fmean(one.start_ap for one in results),
        **{arm: statistics.fmean(one.ap[arm] for one in results) for arm in ARMS},
        "difference": mean,
        "low": None if half is None else mean - half,
        "high": None if half is None else mean + half,
    }


def print_table(results: list[Result], settings: Settings) -> None:
    total = settings.start + settings.add
    print(f"\nmask AP on the validation photos, {settings.start} photos at the start, {settings.add} added")
    print(
        f"| seed | {settings.start} photos | {total}, random | {total}, most uncertain | "
        "difference (95 % interval over the validation photos) | balloons, random | balloons, most uncertain | shared |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for one in results:
        span = "-" if one.low is None or one.high is None else f"{one.low:+.1f} to {one.high:+.1f}"
        print(
            f"| {one.seed} | {one.start_ap:.1f} | {one.ap['random']:.1f} | {one.ap['uncertain']:.1f} | "
            f"{one.difference:+.1f} ({span}) | {one.balloons['random']} | {one.balloons['uncertain']} | {one.shared} |"
        )
    mean = mean_of(results)
    low, high = mean["low"], mean["high"]
    span = "-" if low is None or high is None else f"{low:+.1f} to {high:+.1f} over the seeds"
    print(
        f"| mean | {mean['start']:.1f} | {mean['random']:.1f} | {mean['uncertain']:.1f} | "
        f"{mean['difference']:+.1f} ({span}) | | | |"
    )
    better = sum(one.difference > 0 for one in results)
    print(f"\nmost uncertain first is better with {better} of {len(results)} seeds")


if __name__ == "__main__":
    main()
