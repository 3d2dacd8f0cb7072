"""A search for better settings of a project: trials of a study, each a training or one for each fold."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from d2tune import files
from d2tune.errors import D2TuneError, ProjectError, RunError
from d2tune.project import LoadedProject
from d2tune.project.names import safe_name
from d2tune.report.plots.trial_plots import KeyRange, TrialPoint, write_history, write_parameters
from d2tune.report.tables import format_table
from d2tune.run_folder import ensure_writable
from d2tune.search.kfold import check_startable, data_hash
from d2tune.search.settings import settings_of
from d2tune.search.space import Load, Parameter, Space
from d2tune.search.statistics import fold_mean
from d2tune.search.study import NAME, SearchStudy, SearchTrial, TrialResult
from d2tune.search.training import train_in
from d2tune.text import counted, describe, reason_of

logger = logging.getLogger(__name__)

RESULTS = "sweep.json"
"""The file with all trials, in the folder of the study."""

_MOST_FAILURES = 3
"""Trials that may fail in a row before a process gives up: what fails them all is not in their settings."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The trials of a study.

    Attributes:
        folder: The folder of the study.
        project_file: The project that was searched for.
        metric_name: The main metric, such as ``mask AP``.
        trials: All trials in the order of their numbers.
        words: Overrides that all trials had.
        space: What was varied.
    """

    folder: Path
    project_file: Path
    metric_name: str
    trials: tuple[TrialResult, ...]
    words: tuple[str, ...]
    space: Space

    @property
    def best(self) -> TrialResult | None:
        """The finished trial with the highest metric, of equal ones the first; None where none is finished."""
        done = [trial for trial in self.trials if trial.state == "finished" and trial.value is not None]
        return max(done, key=lambda trial: trial.value or 0.0, default=None)

    @property
    def command(self) -> str | None:
        """The training with the settings of the best trial."""
        if self.best is None:
            return None
        words = [*self.words, *self.space.words(self.best.settings)]
        return shlex.join(["d2tune", "train", str(self.project_file), *words])

    def line(self, number: int) -> str:
        """A trial in a line, and the best one so far."""
        trial = self.trials[number]
        value = "" if trial.value is None else f", {self.metric_name} {trial.value:.1f}"
        best = "" if self.best is None else f"; best so far: trial {self.best.number}, {self.best.value:.1f}"
        return f"trial {number} {trial.state}{value}{best}"

    def text(self) -> str:
        """A table of the trials, and how to train with the best settings."""
        keys = [one.key for one in self.space.parameters]
        folds = any(trial.folds for trial in self.trials)
        header = ["trial", "state", self.metric_name, *(["interval", "folds"] if folds else []), *keys]
        rows = [self._row(trial, keys, folds=folds) for trial in self.trials]
        align = "rlr" + ("rr" if folds else "") + "l" * len(keys)
        lines = [format_table(rows, header=header, align=align)]
        failed = [trial for trial in self.trials if trial.reason]
        lines += ["", *(f"trial {trial.number} failed: {trial.reason}" for trial in failed)] if failed else []
        if self.best is not None:
            lines += ["", f"Best: trial {self.best.number}, {self.metric_name} {_mean(self.best)}.", f"{self.command}"]
        return "\n".join(lines)

    def _row(self, trial: TrialResult, keys: Sequence[str], *, folds: bool) -> list[str]:
        value = "-" if trial.value is None else f"{trial.value:.1f}"
        interval = "-"
        if len(trial.folds) > 1:
            mean = fold_mean(trial.folds)
            interval = f"{mean.low:.1f} to {mean.high:.1f}"
        settings = [_setting(trial.settings[key]) if key in trial.settings else "-" for key in keys]
        state = f"{trial.state}, best" if trial is self.best else trial.state
        return [str(trial.number), state, value, *([interval, str(len(trial.folds))] if folds else []), *settings]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "project_file": str(self.project_file),
            "metric": self.metric_name,
            "trials": [asdict(trial) for trial in self.trials],
            "best": None if self.best is None else self.best.number,
            "command": self.command,
        }


def sweep(
    load: Load,
    space: Space,
    *,
    trials: int,
    words: Sequence[str] = (),
    folds: int | None = None,
    output_dir: Path | None = None,
    num_gpus: int | None = None,
    sample: bool = True,
) -> SweepResult:
    """Train a project with settings out of a space until its study has so many trials.

    Several processes may do the same at a time, each with trials of its own. A trial whose process was ended goes on in
    the next one, from its checkpoint.

    Args:
        load: Reads the project with further overrides.
        space: What is varied.
        trials: Trials of the study, those of other processes and of earlier starts included.
        words: The overrides that `load` has already.
        folds: Number of folds that each trial is trained on; None trains on the project's own split.
        output_dir: Folder of the study and its runs; None is ``runs/<project>/sweep_<name of the space>``.
        num_gpus: GPUs of each training.
        sample: Render the project's sample where its data are missing.

    Raises:
        D2TuneError: The project, its data, the space or the study cannot be used, or three trials in a row failed.
        SystemExit: A training was stopped by a signal.
    """
    for place, value, least in (("--trials", trials, 1), ("--folds", 2 if folds is None else folds, 2)):
        if value < least:
            raise ProjectError(f"must be {least} or more", place=place, found=str(value))
    loaded = load([])
    check_startable(loaded, folds=folds)
    name = loaded.project.name
    folder = output_dir or Path("runs") / name / f"sweep_{safe_name(space.file.stem)}"
    searched = {one.key for one in space.parameters}
    settings = {key: value for key, value in settings_of(loaded.project).items() if key not in searched}
    about = {
        "project": name,
        "folds": folds,
        "data_sha256": data_hash(loaded, folds=folds, sample=sample),
        "settings": settings,
    }
    _refuse_filled(folder)
    ensure_writable(folder)
    study = SearchStudy(folder, space, about, seed=loaded.project.train.seed)
    job = _Job(load, space, study, folder, folds, num_gpus, sample)
    result = SweepResult(folder, loaded.file, loaded.project.traits.main_metrics[0].title, (), tuple(words), space)
    failures = 0
    while True:
        with study.next_trial(trials) as trial:
            if trial is None:
                break
            failure = job.run(trial)
            written = _write(study, result)
        failures = failures + 1 if failure is not None else 0
        if failure is not None and failures >= _MOST_FAILURES:
            message = f"{counted(failures, 'trial')} in a row failed, the last one: {failure}"
            raise RunError(message, file=folder, hint="Correct the project or the space.")
        print(f"\n{written.line(trial.number)}", flush=True)
    return _write(study, result)


def _refuse_filled(folder: Path) -> None:
    """Check that a folder is that of a study, or empty.

    Raises:
        RunError: It has other files.
    """
    if folder.is_dir() and not (folder / NAME).exists() and any(one.name != ".lock" for one in folder.iterdir()):
        raise RunError("the output folder is not empty and has no study", file=folder, hint="Set another --output-dir.")


def _write(study: SearchStudy, result: SweepResult) -> SweepResult:
    """Write the table and the plots, and return the result with all trials."""
    with study.writing() as trials:
        result = replace(result, trials=tuple(trials))
        files.write_json(result.folder / RESULTS, result.to_json())
        points = [
            TrialPoint(trial.number, trial.value, trial.state == "finished", trial.settings)
            for trial in trials
            if trial.value is not None and trial.state in ("finished", "pruned")
        ]
        if points:
            subtitle = f"{result.project_file.stem}, {counted(len(trials), 'trial')}"
            plots = result.folder / "plots"
            plots.mkdir(exist_ok=True)
            write_history(plots / "trials.png", points, metric_name=result.metric_name, subtitle=subtitle)
            write_parameters(
                plots / "parameters.png",
                points,
                axes={one.key: _range(one) for one in result.space.parameters},
                metric_name=result.metric_name,
                subtitle=subtitle,
            )
    return result


def _range(one: Parameter) -> KeyRange | None:
    if one.kind == "choice":
        return None
    return KeyRange(one.low, one.high, is_logarithmic=one.kind == "log_uniform", is_whole=one.kind == "integer")


@dataclass(frozen=True, slots=True)
class _Job:
    """What is the same for all trials; see `sweep`."""

    load: Load
    space: Space
    study: SearchStudy
    folder: Path
    folds: int | None
    num_gpus: int | None
    sample: bool

    def run(self, trial: SearchTrial) -> str | None:
        """Train a trial, and note its metric; returns why it failed, None where it did not.

        Raises:
            D2TuneError: A file cannot be written; the trial goes on at the next start.
            SystemExit: Training was stopped by a signal.
        """
        began = "begins" if trial.is_new else "goes on"
        settings = ", ".join(f"{key} {_setting(value)}" for key, value in trial.settings.items())
        print(f"\ntrial {trial.number} {began}: {settings}", flush=True)
        try:
            loaded = self.load(self.space.words(trial.settings))
            loaded = loaded.with_tracking_group(f"{loaded.project.name}-{self.folder.name}")
            self._train(trial, loaded)
        except SystemExit:
            print(f"A sweep needs no --resume: the same command goes on with trial {trial.number}.", flush=True)
            raise
        except (D2TuneError, MemoryError, torch.OutOfMemoryError) as error:
            if isinstance(error.__cause__, OSError):
                raise
            reason = error.one_line() if isinstance(error, D2TuneError) else f"out of memory: {reason_of(error)}"
            trial.fail(reason)
            logger.warning("trial %d failed: %s", trial.number, reason)
            return reason
        return None

    def _train(self, trial: SearchTrial, loaded: LoadedProject) -> None:
        name = f"trial{trial.number:04d}"
        if self.folds is None:
            trial.finish(self._value(loaded, self.folder / name))
            return
        values: list[float] = []
        for fold in range(self.folds):
            print(f"\ntrial {trial.number}, fold {fold} of 0 to {self.folds - 1}", flush=True)
            one = loaded.with_fold(fold, of=self.folds)
            values.append(self._value(one, self.folder / f"{name}_fold{fold}"))
            is_worse = trial.report(fold, values[-1])
            if is_worse and fold + 1 < self.folds:
                print(f"trial {trial.number} is pruned: it is worse than the best trial in these folds", flush=True)
                trial.prune()
                return
        trial.finish(sum(values) / len(values))

    def _value(self, loaded: LoadedProject, path: Path) -> float:
        trained = train_in(loaded, path, num_gpus=self.num_gpus, sample=self.sample)
        title, value = next(iter(trained.values.items()))
        if value is None:
            raise RunError(f"{title} is not defined on the validation split", file=path)
        return value


def _mean(trial: TrialResult) -> str:
    return str(fold_mean(trial.folds)) if len(trial.folds) > 1 else f"{trial.value:.1f}"


def _setting(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else describe(value) if not isinstance(value, str) else value
