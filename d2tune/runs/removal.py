"""Removing old runs, but for those that are still needed."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.annotations.io.output_record import NAME as OUTPUTS
from d2tune.annotations.io.output_record import OwnFiles
from d2tune.errors import D2TuneError, ProjectError
from d2tune.files import sha256_file
from d2tune.report.tables import format_table
from d2tune.run_folder import RunFolder
from d2tune.run_lock import LOCK, locked
from d2tune.runs.overview import ROOT, RunSummary, find_runs, list_runs, runs_folder, walk, with_best
from d2tune.text import counted, in_bytes, printable, reason_of

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(h|d|w)")
_AGE_S = {"h": 3600, "d": 86400, "w": 604800}
_LEAVING = ".removing-"
"""Beginning of the name of a folder whose files are being removed."""

_OF_TRAINING = frozenset(
    {"project.yaml", "detectron2.yaml", "record.json", "metrics.jsonl", "log.txt", "evaluation.json"}
    | {"predictions.json", "predicted_images.json", "contact_sheet.png", LOCK, OUTPUTS}
)
_FOLDERS_OF_TRAINING = frozenset(
    {"tensorboard", "plots", "wandb", "mlruns", "trackio", "restored_images", "predicted_labels", "predicted_segments"}
)
_CHECKPOINTS = frozenset({"last.pth", "model_best.pth", "model_final.pth"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """An old run.

    Attributes:
        run: The run.
        kept: Why it is kept; None where it is removed.
    """

    run: RunSummary
    kept: str | None


@dataclass(frozen=True, slots=True)
class Removal:
    """What is removed, or would be.

    Attributes:
        candidates: The old runs.
        removed: Whether the runs that are not kept were removed.
    """

    candidates: tuple[Candidate, ...]
    removed: bool

    @property
    def text(self) -> str:
        """A table of the old runs, and what was done, or would be."""
        gone = [one.run for one in self.candidates if one.kept is None]
        if not self.candidates:
            return "No run is that old."
        rows = [
            [
                printable(str(one.run.path)),
                one.run.state,
                "-" if one.run.ended is None else f"{one.run.ended:%Y-%m-%d}",
                in_bytes(one.run.size_bytes),
                ("removed" if self.removed else "would be removed") if one.kept is None else f"kept: {one.kept}",
            ]
            for one in self.candidates
        ]
        table = format_table(rows, header=["run", "state", "ended", "size", ""], align="lllrl")
        size = in_bytes(sum(run.size_bytes for run in gone))
        what = f"{counted(len(gone), 'run')}, {size}"
        if self.removed:
            return f"{table}\n\nRemoved {what}."
        last = f"{what}, would be removed; nothing was removed yet. Add --yes to remove them."
        return f"{table}\n\n{last if gone else 'Nothing would be removed.'}"

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        rows = [{**one.run.to_json(), "kept": one.kept} for one in self.candidates]
        return {"removed": self.removed, "runs": rows}


def age_s(text: str) -> float:
    """Seconds of an age such as ``12h``, ``30d`` or ``2w``.

    Raises:
        ProjectError: It is not valid.
    """
    hit = _AGE.fullmatch(text.strip().lower())
    if hit is None:
        expected = "a number of hours, days or weeks, such as 12h, 30d or 2w"
        raise ProjectError("is not valid", place="--older-than", found=repr(text), expected=expected)
    return float(hit[1]) * _AGE_S[hit[2]]


def remove_old(
    older_than: str, project: str | Path | None = None, *, root: Path = ROOT, remove: bool = False
) -> Removal:
    """Find the runs that ended longer ago than an age, and remove those that are not needed.

    A run is kept that is the best of its project on its validation split, runs, is damaged, has files that d2tune did
    not write or that were changed, or is pointed to: by the weights of a run or a project file, by a labeling loop, or
    by a link in the folder of all runs.

    Args:
        older_than: Such as ``30d``.
        project: As in `list_runs`.
        root: The folder of all runs, in which pointers are looked for.
        remove: Whether they are removed; else nothing is changed.

    Raises:
        ProjectError: The age is not valid.
        RunError: The folder does not exist.
    """
    before_s = time.time() - age_s(older_than)
    runs = list_runs(project, root=root)
    old = [run for run in runs if run.ended is not None and run.ended.timestamp() < before_s]
    pointers = _pointers({root, runs_folder(project, root=root)}) if old else []
    usable = with_best(run for run in runs if RunFolder(run.path).best.is_file())
    best = {run.path for run in (*runs, *usable) if run.is_best}
    best |= {run.path for run in _newest(runs) if not any(one.project == run.project for one in runs if one.is_best)}
    candidates = [Candidate(run, _reason_to_keep(run, best, pointers)) for run in old]
    if not remove:
        return Removal(tuple(candidates), removed=False)
    return Removal(tuple(one if one.kept else _removed(one) for one in candidates), removed=True)


def _newest(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """The newest run of each project; ``runs`` begins with the newest."""
    return list({run.project: run for run in reversed(runs)}.values())


def _reason_to_keep(run: RunSummary, best: Container[Path], pointers: list[tuple[str, Path]]) -> str | None:
    if run.state == "running":
        return "it runs"
    if run.state == "damaged":
        return f"its value is not known: {run.note}"
    if run.path in best:
        return "the best of its project" if run.metric else "the newest of a project without a metric"
    path = run.path.resolve()
    for by, target in pointers:
        own = Path(by).parent.resolve() / Path(by).name  # a link is where it lies, not what it leads to
        if target.is_relative_to(path) and not own.is_relative_to(path):
            return f"{by} points to it"
    foreign = list(_foreign_files(run.path))
    if foreign:
        first = foreign[0].relative_to(run.path)
        return f"{counted(len(foreign), 'file')} not written by d2tune, or changed since, such as {first}"
    return None


def _removed(candidate: Candidate) -> Candidate:
    """Remove a run; the folder is renamed first, so that one that is removed by halves is not taken for a run."""
    path = candidate.run.path
    leaving = path.with_name(_LEAVING + path.name)
    try:
        with locked(path):
            path.rename(leaving)
        shutil.rmtree(leaving)
    except (OSError, D2TuneError) as error:
        reason = error.message if isinstance(error, D2TuneError) else (error.strerror or reason_of(error))
        return Candidate(candidate.run, f"cannot be removed: {reason}")
    return candidate


def _foreign_files(folder: Path) -> Iterator[Path]:
    """Files of a run folder that neither its training nor a command wrote, or that were changed since."""
    own = OwnFiles()
    card = _card_sha256(folder)
    for path, _, _ in walk(folder):
        steps = path.relative_to(folder).parts
        is_known = (
            (len(steps) == 1 and steps[0] in _OF_TRAINING)
            or (len(steps) > 1 and steps[0] in _FOLDERS_OF_TRAINING)
            or (len(steps) == 2 and steps[0] == "checkpoints" and steps[1] in _CHECKPOINTS)
            or (len(steps) > 1 and steps[0].startswith("evaluation"))
            or steps[-1] == OUTPUTS
            or (steps == ("MODEL_CARD.md",) and card is not None and sha256_file(path) == card)
        )
        if not is_known and not any(own.is_unchanged(path, kind) for kind in own.kinds(path)):
            yield path


def _card_sha256(folder: Path) -> str | None:
    try:
        card = RunFolder(folder).record_entries().get("card")
    except D2TuneError:
        return None
    return card.get("sha256") if isinstance(card, dict) else None


def _pointers(folders: set[Path]) -> list[tuple[str, Path]]:
    """What points to which path: the runs, project files, labeling loops and links in and around some folders."""
    projects = [*Path().glob("*.yaml"), *Path("projects").glob("*.yaml")]
    pointers = [(str(path), target) for path in projects for target in _named(path)]
    for folder in folders:
        if not folder.is_dir():
            continue
        for run in find_runs(folder):
            files = RunFolder(run)
            pointers += [(str(run), target) for path in (files.project, files.record) for target in _named(path)]
        for state in folder.rglob("label_loop.json"):
            pointers += [(str(state), target) for target in _named(state)]
        pointers += [(str(path), path.resolve()) for path in folder.rglob("*") if path.is_symlink()]
    return pointers


_NAMED = re.compile(r"""["']?(?:weights|source|model|run)["']?\s*:\s*["']?([^"'\n,}]+)""")
"""The keys of records, project files and labeling loops that name runs or their weights."""


def _named(path: Path) -> Iterator[Path]:
    """The existing paths that a file of JSON or YAML names, relative to the working folder or to the file."""
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError):
        return
    for value in _NAMED.findall(text):
        name = json.loads(f'"{value.strip()}"') if "\\" in value and _is_json_text(value) else value.strip()
        if "://" in name or "\0" in name or len(name) > 4096:
            continue
        for base in (Path(), path.parent):
            target = base / name
            if target.exists():
                yield target.resolve()


def _is_json_text(value: str) -> bool:
    try:
        json.loads(f'"{value.strip()}"')
    except ValueError:
        return False
    return True
