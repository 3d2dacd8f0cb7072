"""Trainings under a budget of processor seconds, shared by the benchmarks of accuracy and of defaults.

A recipe is a commit of d2tune and project keys. Its steps are timed for each data set, in a short training of the first
split and, because they take longer once a model is trained, in those that are finished; all its trainings there have
the iterations that fill the budget by these. Evaluations are not counted.
With ``train.budget``, d2tune takes evaluations and its own measurements from the budget. Each training is a process
with one thread that gets the same COCO files, whatever the commit, and one evaluation at the end, so that no weights
are chosen by what they are scored on. All predictions are scored by this checkout.

The journal has a line of JSON for each finished timing or training. What was killed in between is run again; what is in
the journal is not. Several processes may share a work folder: a lock says who runs what.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from real_trainings import ROOT

if TYPE_CHECKING:
    from d2tune.annotations.model.dataset import Dataset
    from d2tune.data.splits import Splits

BUDGET = "budget"
"""The word of recipes that leave sizes and length to ``train.budget``."""

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""Metrics of masks that are kept."""

_DATA: dict[str, dict[str, Any]] = {
    "balloon": {"train": "train", "val": "val", "class_name": "balloon"},
    "microcontrollers": {"train": "train", "val": "test"},
}

_VALIDATION: dict[str, dict[str, Any]] = {"balloon": {}, "microcontrollers": {"val": 0.2}}
"""The validation split where photos are not divided into folds: the 7 test photos of the boards would be too few."""

DATA = tuple(_DATA)
"""Names of the data sets."""


@dataclass(frozen=True)
class Recipe:
    """What is compared.

    Attributes:
        name: In tables.
        commit: The code that trains.
        keys: Project keys beyond data, preset and weights.
        sets_budget: Whether d2tune gets ``train.budget`` and chooses the iterations itself.
    """

    name: str
    commit: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    sets_budget: bool = False


@dataclass(frozen=True)
class Split:
    """Images to train on and to validate on.

    Attributes:
        data: The name of the data set.
        name: Of this way to divide it, such as ``fold0``.
        folder: Holds ``train.json`` and ``val.json``.
        image_root: What their file names are relative to.
        classes: Class names.
    """

    data: str
    name: str
    folder: Path
    image_root: Path
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        recipe: What trains.
        split: On what.
        seed: Of the training.
        budget_s: Processor seconds.
        like: The training whose steps took as long as those of this one may take; None has the budget for steps.
    """

    recipe: Recipe
    split: Split
    seed: int
    budget_s: float
    like: Job | None = None

    @property
    def key(self) -> str:
        """What the journal knows it by."""
        about = {} if self.like is None else {"like": self.like.recipe.name}
        about |= {"data": self.split.data, "split": self.split.name, "seed": self.seed}
        return _key(self.recipe, **about, budget_s=float(self.budget_s))

    @property
    def about(self) -> dict[str, Any]:
        """What a row says of it."""
        return {
            "recipe": self.recipe.name,
            "commit": self.recipe.commit,
            "keys": dict(self.recipe.keys),
            "data": self.split.data,
            "split": self.split.name,
            "seed": self.seed,
            "budget_s": self.budget_s,
        }


class Journal:
    """The finished timings and trainings of a work folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self) -> dict[str, dict[str, Any]]:
        """By their keys. A last line that was cut off by a kill is not a row."""
        text = self._path.read_text(encoding="utf-8") if self._path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        return {row["key"]: row for row in map(json.loads, filter(None, whole.splitlines()))}

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row, on a line of its own also after one that was cut off."""
        line = json.dumps(row) + "\n"
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


class Bench:
    """A work folder with its data, its sources and its journal.

    Args:
        work: The folder, made where it is missing.
        shared: The folder with ``data`` and ``weights``.
        measured_steps: Steps of the training that times a recipe.
    """

    def __init__(self, work: Path, shared: Path, *, measured_steps: int) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work, self._shared, self._measured_steps = work.resolve(), shared.resolve(), measured_steps
        self.journal = Journal(self.work / "journal.jsonl")

    def folds(self, data: str, numbers: Sequence[int], *, of: int) -> list[Split]:
        """The folds that ``data.fold`` makes, as COCO files."""
        splits = [self._load(data, {"fold": {"of": of, "number": one}}) for one in numbers]
        return [
            self._written(data, f"fold{number}of{of}", one.train, one.val)
            for number, one in zip(numbers, splits, strict=True)
        ]

    def subsets(self, data: str, sizes: Sequence[int | None], *, seed: int) -> list[Split]:
        """Some of the training photos with the whole validation split, each subset within the next larger one.

        Args:
            data: The name of the data set.
            sizes: How many photos; None takes all.
            seed: Of the draw.
        """
        whole = self._load(data, _VALIDATION[data])
        order = _in_random_order(whole.train, seed)
        names = ["all" if size is None else f"{size} photos of seed {seed}" for size in sizes]
        return [
            self._written(data, name, whole.train.subset(order[:size]), whole.val)
            for name, size in zip(names, sizes, strict=True)
        ]

    def _load(self, data: str, keys: Mapping[str, Any]) -> Splits:
        from d2tune.data.splits import load_splits
        from d2tune.project import Project

        about = {"root": str(self._shared / "data" / data)} | _DATA[data] | dict(keys)
        project = Project.model_validate({"name": data, "data": about, "model": {"preset": _PRESET}})
        return load_splits(project, sample=False)

    def _written(self, data: str, name: str, train: Dataset, val: Dataset) -> Split:
        from d2tune.annotations.formats.coco import writer

        root, val_root = train.image_root, val.image_root
        if root is None or val_root is None:
            raise SystemExit(f"{data}, {name}: the images have no folder")
        if root != val_root:
            train, val = (_below(root.parent, one) for one in (train, val))
            root = root.parent
        folder = self.work / "splits" / data / name
        for one, dataset in (("train", train), ("val", val)):
            writer.write(dataset, folder / f"{one}.json")
        return Split(data, name, folder, root, train.class_names)

    def run(self, jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
        """Do what the journal does not have, and yield each row that is added for a training."""
        for number, job in enumerate(jobs, 1):
            with self._claimed(job.key) as is_mine:
                if not is_mine or job.key in self.journal.rows():
                    continue
                row = self._train(job)
                self.journal.add(row)
            print(
                f"{number} of {len(jobs)}: {job.recipe.name}, {job.split.data} {job.split.name}, seed {job.seed}: "
                f"mask AP {row['segm']['AP']:.1f} after {row['iterations']} iterations, "
                f"{row['training_s']:.0f} s of training and {row['rest_s']:.0f} s beside it",
                flush=True,
            )
            yield row

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """The trainings that the journal does not have."""
        done = self.journal.rows()
        return [job for job in jobs if job.key not in done]

    def finished(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """The rows of the trainings that the journal has, without their keys."""
        done = self.journal.rows()
        rows = [done[job.key] for job in jobs if job.key in done]
        return [{name: value for name, value in row.items() if name not in ("key", "kind")} for row in rows]

    def take_over(self, rows: Sequence[Mapping[str, Any]], jobs: Sequence[Job]) -> int:
        """Add the trainings of a file of results that the journal does not have, and return how many.

        Args:
            rows: From `finished`, perhaps on another machine.
            jobs: What they are looked for.
        """
        known = {_identity(row): row for row in rows}
        added = 0
        for job in self.missing(jobs):
            row = known.get(_identity(job.about))
            if row is not None:
                self.journal.add({"key": job.key, "kind": "training", **row})
                added += 1
        return added

    def _length(self, job: Job) -> str:
        """The project key that makes a training fill its budget."""
        if job.recipe.sets_budget:
            return f"train.budget={job.budget_s:g} s"
        speed = self._speed(job.recipe, job.split)
        seconds = job.budget_s if job.like is None else self._training_s(job.like)
        return f"train.iterations={max(1, round((seconds - speed['first_s']) / speed['step_s']))}"

    def _training_s(self, job: Job) -> float:
        """The processor seconds of the steps of another training, which is waited for."""
        with self._claimed(job.key, wait=True):
            row = self.journal.rows().get(job.key)
        if row is None:
            raise SystemExit(f"{job.recipe.name}, {job.split.data} {job.split.name}: was to be trained first")
        return float(row["training_s"])

    def _speed(self, recipe: Recipe, split: Split) -> dict[str, Any]:
        """The processor seconds of a step, and what the first steps take more, measured or from the journal."""
        finished = [row["training_s"] / row["iterations"] for row in self._trainings(recipe, split.data)]
        if finished:
            return {"step_s": sum(finished) / len(finished), "first_s": 0.0}
        key = _key(recipe, data=split.data, steps=self._measured_steps)
        with self._claimed(key, wait=True):
            known = self.journal.rows().get(key)
            if known is not None:
                return known
            count = self._measured_steps
            words = [f"train.iterations={count}", "train.seed=0"]
            name = _file_name(key, recipe.name, split.data)
            steps_s, _, folder = self._process(recipe, split, name, words, stop_after=count)
            shutil.rmtree(folder.parent)
            half = count // 2
            step_s = (steps_s[-1] - steps_s[half - 1]) / (count - half)
            first_s = max(0.0, steps_s[half - 1] - steps_s[0] - (half - 1) * step_s)
            row = {"key": key, "kind": "speed", "recipe": recipe.name, "step_s": step_s, "first_s": first_s}
            self.journal.add(row)
            print(f"{recipe.name}, {split.data}: {step_s:.3f} s a step", flush=True)
            return row

    def _trainings(self, recipe: Recipe, data: str) -> list[dict[str, Any]]:
        """The finished trainings of a recipe on a data set."""
        about = {"recipe": recipe.name, "commit": recipe.commit, "keys": dict(recipe.keys), "data": data}
        rows = [row for row in self.journal.rows().values() if row["kind"] == "training"]
        return [row for row in rows if all(row[name] == value for name, value in about.items())]

    def _train(self, job: Job) -> dict[str, Any]:
        words = [self._length(job), f"train.seed={job.seed}"]
        run = _file_name(job.key, job.recipe.name, job.split.data, job.split.name, f"seed {job.seed}")
        steps_s, process_s, folder = self._process(job.recipe, job.split, run, words)
        train = yaml.safe_load((folder / "project.yaml").read_text(encoding="utf-8"))["train"]
        iterations = train["iterations"]
        training_s = steps_seconds(steps_s, iterations)
        metrics = score(job.split, folder / "predictions.json")
        kept = self.work / "predictions" / f"{run}.json"
        kept.parent.mkdir(exist_ok=True)
        shutil.move(folder / "predictions.json", kept)
        shutil.rmtree(folder.parent)
        return {
            "key": job.key,
            "kind": "training",
            **job.about,
            "iterations": iterations,
            "image_size": train["image_size"],
            "scale_jitter": train["scale_jitter"],
            "training_s": round(training_s, 1),
            "rest_s": round(process_s - training_s, 1),
            "predictions": kept.name,
            **metrics,
        }

    def _process(
        self, recipe: Recipe, split: Split, name: str, words: Sequence[str], *, stop_after: int | None = None
    ) -> tuple[list[float], float, Path]:
        """Train: the processor time after each step, that of the whole process, and the run folder."""
        folder = self.work / "running" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        project, out, log = folder / "project.yaml", folder / "steps.json", folder / "log.txt"
        project.write_text(json.dumps(self._project(split)), encoding="utf-8")
        command = [sys.executable, str(ROOT / "benchmarks" / "timed_training.py"), str(out)]
        command += [] if stop_after is None else ["--stop-after", str(stop_after)]
        command += ["--", str(project), "--output-dir", str(folder / "run"), "--num-gpus", "0"]
        command += [*_ALWAYS, *(f"{key}={json.dumps(value)}" for key, value in recipe.keys.items()), *words]
        environment = os.environ | {
            "PYTHONPATH": str(self._source(recipe.commit)),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
        }
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
            try:
                _, status, used = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                raise
        if status:
            raise SystemExit(
                f"{recipe.name}, {split.data} {split.name}: the training ended with status "
                f"{os.waitstatus_to_exitcode(status)}:\n{log.read_text(encoding='utf-8')[-3000:]}"
            )
        steps_s = [float(value) for value in json.loads(out.read_text(encoding="utf-8"))]
        return steps_s, used.ru_utime + used.ru_stime, folder / "run"

    def _project(self, split: Split) -> dict[str, Any]:
        files = {one: str(split.folder / f"{one}.json") for one in ("train", "val")}
        return {
            "name": "benchmark",
            "data": {"root": str(split.image_root), "images": ".", "format": "coco"} | files,
            "classes": list(split.classes),
            "model": {"preset": _PRESET},
            "weights": str(self._shared / "weights" / "mobilenet_v2_imagenet.pth"),
            # these weights were trained on x / 127.5 - 1
            "detectron2": {"MODEL.PIXEL_MEAN": [127.5] * 3, "MODEL.PIXEL_STD": [127.5] * 3},
        }

    def _source(self, commit: str) -> Path:
        """The files of a commit, in the work folder."""
        folder = self.work / "sources" / commit
        with self._claimed(f"source {commit}", wait=True):
            if not folder.is_dir():
                unfinished = folder.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
                archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
                subprocess.run(["tar", "x"], cwd=unfinished, check=True, input=archive)
                unfinished.rename(folder)
        return folder

    @contextmanager
    def _claimed(self, key: str, *, wait: bool = False) -> Iterator[bool]:
        """Whether no other process does this, as long as the context lasts; with ``wait``, once none does."""
        path = self.work / "locks" / _file_name(key)
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


_PRESET = "pointrend_mobilenet_v2_fpn"

_ALWAYS = ("train.precision=float32", "train.workers=0", "train.eval_every=0")
"""In all trainings: no choice that depends on the machine, and no weights chosen by evaluations."""


def steps_seconds(steps_s: Sequence[float], iterations: int) -> float:
    """The processor seconds of a training's steps.

    Args:
        steps_s: The processor time at the end of each optimizer step of the process, those with which a budget measures
            before the training included.
        iterations: Steps of the training, which are the last ones.
    """
    own = steps_s[-iterations:]
    return (own[-1] - own[0]) * iterations / max(1, iterations - 1)


def score(split: Split, predictions: Path) -> dict[str, dict[str, float | None]]:
    """The metrics of masks and the box AP of a file of predictions, in percent; None where one is undefined."""
    from d2tune.metrics.coco.scorer import score_coco
    from d2tune.metrics.coco.summary import metrics_of

    truth, rows = (json.loads(path.read_text(encoding="utf-8")) for path in (split.folder / "val.json", predictions))
    metrics = metrics_of(score_coco(truth, rows, kinds=("bbox", "segm")))
    return {"segm": {name: metrics.segm[name].value for name in METRICS}, "bbox": {"AP": metrics.bbox["AP"].value}}


def _in_random_order(dataset: Dataset, seed: int) -> list[int]:
    """The ids of the images in a random order that begins with an image of each class."""
    ids = [image.id for image in dataset.images]
    random.Random(seed).shuffle(ids)
    classes = {one: {instance.category_id for instance in dataset.by_image()[one]} for one in ids}
    first = [next(one for one in ids if category.id in classes[one]) for category in dataset.categories]
    return list(dict.fromkeys([*first, *ids]))


def _below(folder: Path, dataset: Dataset) -> Dataset:
    """The dataset with file names relative to a folder above its images."""
    assert dataset.image_root is not None
    prefix = dataset.image_root.relative_to(folder)
    images = [replace(image, file_name=str(prefix / image.file_name)) for image in dataset.images]
    return replace(dataset, images=tuple(images), image_root=folder)


def commit_of(name: str) -> str:
    """The full name of a commit."""
    words = ["git", "rev-parse", "--verify", f"{name}^{{commit}}"]
    return str(subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout).strip()


def parser_of(text: str) -> argparse.ArgumentParser:
    """The options that both benchmarks have."""
    shared = Path(os.environ.get("D2TUNE_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the journal, new or to go on with")
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, help="write the results as JSON, after each training")
    parser.add_argument("--known", type=Path, metavar="FILE", help="results of another work folder, to go on with them")
    parser.add_argument("--table", action="store_true", help="train nothing: show what is finished")
    parser.add_argument("--budget-s", type=float, default=1200, metavar="S", help="processor seconds of a training")
    parser.add_argument("--measured-steps", type=int, default=40, metavar="N", help="steps that time a recipe")
    parser.add_argument("--today", metavar="COMMIT", help="(default: that of the work folder or of --known, else HEAD)")
    return parser


def run_all(
    options: argparse.Namespace,
    jobs_of: Callable[[argparse.Namespace, Bench], list[Job]],
    results_of: Callable[[argparse.Namespace, Bench, Sequence[Job]], dict[str, Any]],
) -> dict[str, Any]:
    """Do the trainings of a benchmark that its journal does not have, none with ``--table``, and return the results.

    Args:
        options: Of `parser_of`, and those of the benchmark.
        jobs_of: The trainings of the benchmark.
        results_of: What is finished of them, for ``--out``.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the training that was started, like Ctrl-C
    options.today = _commit_of_today(options)
    bench = Bench(options.work, options.shared, measured_steps=options.measured_steps)
    jobs = jobs_of(options, bench)
    if options.known is not None:
        rows = json.loads(options.known.read_text(encoding="utf-8"))["trainings"]
        print(f"{bench.take_over(rows, jobs)} trainings are known from {options.known.name}")
    missing = len(bench.missing(jobs))
    hours = missing * options.budget_s / 3600
    print(f"{missing} of {len(jobs)} trainings to do: {hours:.1f} hours of a processor, and evaluations", flush=True)
    if not options.table:
        for _ in bench.run(jobs):
            _write(results_of(options, bench, jobs), options.out)
    results = results_of(options, bench, jobs)
    _write(results, options.out)
    return results


def _commit_of_today(options: argparse.Namespace) -> str:
    """The commit of today's recipes: the given one, or that which the work folder or the known results began with."""
    note: Path = options.work / "today.txt"
    if options.today is None and not note.is_file() and options.known is not None:
        options.today = json.loads(options.known.read_text(encoding="utf-8"))["today"]
    if options.today is None and note.is_file():
        return note.read_text(encoding="utf-8").strip()
    commit = commit_of(options.today or "HEAD")
    options.work.mkdir(parents=True, exist_ok=True)
    note.write_text(commit + "\n", encoding="utf-8")
    return commit


def about_run(options: argparse.Namespace) -> dict[str, Any]:
    """The machine and the options that both benchmarks have."""
    from d2tune.hardware import cpu_name

    return {
        "processor": cpu_name(),
        "threads": 1,
        "today": options.today,
        "budget_s": options.budget_s,
        "data": options.data,
    }


def _write(results: Mapping[str, Any], out: Path | None) -> None:
    """Write the results as JSON, where a file is named."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def shown(value: float | None, digits: int = 1) -> str:
    """A number of a table."""
    return "-" if value is None else f"{value:.{digits}f}"


def span(ends: Sequence[float | None]) -> str:
    """An interval of a table."""
    return "-" if None in ends else " to ".join(f"{end:+.1f}" for end in ends if end is not None)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are defined."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return sum(known) / len(known) if known else None


def _file_name(key: str, *words: str) -> str:
    """Words that a person knows a file by, and the hash of a key."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return "-".join([*(re.sub("[^A-Za-z0-9.]+", "_", word) for word in words), digest])


def _identity(row: Mapping[str, Any]) -> str:
    """What a row of results is about, as one word."""
    names = ("recipe", "commit", "keys", "data", "split", "seed", "budget_s")
    return json.dumps([row[name] for name in names])


def _key(recipe: Recipe, **about: Any) -> str:
    budget = {"sets_budget": True} if recipe.sets_budget else {}
    return json.dumps({"recipe": recipe.name, "commit": recipe.commit, "keys": dict(recipe.keys)} | budget | about)
