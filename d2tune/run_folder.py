"""The folder of a run and the paths of its files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from d2tune import files, run_schema
from d2tune.errors import RunError
from d2tune.run_lock import LOCK, locked


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of the files of a run.

    Attributes:
        path: The run folder.
    """

    path: Path

    @property
    def project(self) -> Path:
        """The project with all overrides and the profile."""
        return self.path / "project.yaml"

    @property
    def config(self) -> Path:
        """Detectron2's config."""
        return self.path / "detectron2.yaml"

    @property
    def record(self) -> Path:
        """Versions, hashes, command, seed, durations, and everything derived from the data."""
        return self.path / "record.json"

    @property
    def metrics(self) -> Path:
        """A line with a JSON object for each logged iteration."""
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """Detectron2's and d2tune's log."""
        return self.path / "log.txt"

    @property
    def last(self) -> Path:
        """The checkpoint to resume training from."""
        return self.path / "checkpoints" / "last.pth"

    @property
    def best(self) -> Path:
        """Weights with the best main metric on the validation split."""
        return self.path / "checkpoints" / "model_best.pth"

    @property
    def final(self) -> Path:
        """Weights after the last iteration."""
        return self.path / "checkpoints" / "model_final.pth"

    @property
    def predictions(self) -> Path:
        """Predictions of the best weights on the validation split of an instance run, as COCO results."""
        return self.path / "predictions.json"

    @property
    def evaluation(self) -> Path:
        """Metrics of the predictions of the best weights."""
        return self.path / "evaluation.json"

    @property
    def contact_sheet(self) -> Path:
        """Ground truth beside predictions for up to 16 validation images."""
        return self.path / "contact_sheet.png"

    @property
    def card(self) -> Path:
        """The card of the model, for people and for Hugging Face."""
        return self.path / "MODEL_CARD.md"

    @property
    def restored_images(self) -> Path:
        """Images that existed only inside the annotations."""
        return self.path / "restored_images"

    def weights(self, name: str) -> Path:
        """The file of weights.

        Args:
            name: ``best``, ``final`` or a checkpoint file.

        Raises:
            RunError: It does not exist.
        """
        file = {"best": self.best, "final": self.final}.get(name, Path(name))
        if not file.is_file():
            hint = "Use --resume to finish the training of the run."
            raise RunError("the weights do not exist", file=file, hint=hint)
        return file

    def read_record(self) -> dict[str, Any]:
        """Read the record.

        Raises:
            RunError: The folder is not a run folder, or its record is damaged.
        """
        try:
            return run_schema.read_record(self.record)
        except FileNotFoundError:
            raise RunError(
                "is not a run folder",
                file=self.path,
                expected="a folder with record.json, such as runs/<project>/<time>",
            ) from None

    def read_evaluation(self) -> dict[str, Any]:
        """Read the evaluation of the best weights that training has written.

        Raises:
            RunError: There is none, or it is damaged.
        """
        try:
            return run_schema.read_evaluation(self.evaluation)
        except FileNotFoundError:
            hint = f"Run `d2tune eval {self.path}`."
            raise RunError("the evaluation does not exist", file=self.evaluation, hint=hint) from None

    def update_record(self, values: Mapping[str, Any]) -> None:
        """Add or replace top-level entries of the record."""
        files.write_json(self.record, {**self.record_entries(), **values})

    def record_entries(self) -> dict[str, Any]:
        """The entries of the record, complete or not; none where there is no record yet."""
        return run_schema.read_object(self.record, "record") if self.record.is_file() else {}

    def is_finished(self, iterations: int) -> bool:
        """Whether the end of a training of so many iterations was evaluated and drawn completely."""
        if not (self.final.is_file() and self.evaluation.is_file()):
            return False
        record = self.read_record()
        if "finished" not in record:
            return True  # a run of an earlier version
        return bool((record["finished"] or {}).get("iterations") == iterations)

    def remove_leftovers(self) -> None:
        """Remove the temporary files of a training that was killed; to be called by the process that has the lock."""
        own = {path.name for path in (self.project, self.config, self.record, self.evaluation, self.predictions)}
        own |= {path.name for path in (self.metrics, self.contact_sheet, self.last, self.best, self.final, self.card)}
        for folder in (self.path, self.last.parent):
            for path in folder.glob(".*.tmp") if folder.is_dir() else ():
                if files.temporary_of(path) in own:
                    path.unlink(missing_ok=True)
        for folder in self.path.glob("predicted_*"):
            for path in folder.rglob(".*.tmp"):
                if files.temporary_of(path) is not None:
                    path.unlink(missing_ok=True)


@contextmanager
def new_run(project: str, *, output_dir: Path | None, root: Path = Path("runs")) -> Iterator[RunFolder]:
    """Create the folder of a new run, and hold its lock.

    Args:
        project: Name of the project.
        output_dir: The run folder, which must be empty; None is ``<root>/<project>/<time>``.
        root: The folder of all runs.

    Raises:
        RunError: The folder cannot be written, is not empty, or another process trains in it.
    """
    if output_dir is None:
        ensure_writable(root / project)
        path = _claimed(root / project, time.strftime("%Y-%m-%d_%H-%M-%S"))
    else:
        path = output_dir
        _refuse_filled(path)
        ensure_writable(path)
    with locked(path):
        _refuse_filled(path)  # another process may have trained in it since
        ensure_writable(path / "checkpoints")
        yield RunFolder(path)


def _claimed(parent: Path, name: str) -> Path:
    """A folder that did not exist before and that no other process gets."""
    for number in count(1):
        path = parent / (name if number == 1 else f"{name}_{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("count has no end")


def _refuse_filled(path: Path) -> None:
    if path.is_dir() and any(one.name != LOCK for one in path.iterdir()):
        raise RunError(
            "the output folder is not empty",
            file=path,
            hint="Set another folder with --output-dir, or continue the run with --resume.",
        )


def ensure_writable(folder: Path) -> None:
    """Create a folder if it does not exist, and check that files can be written to it.

    Raises:
        RunError: The folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a name of its own, because several processes may look at the same folder
        with tempfile.TemporaryFile(prefix=".writable-", dir=folder):
            pass
    except OSError as error:
        raise RunError(
            f"the output folder cannot be written: {error.strerror or error}",
            file=folder,
            hint="Set another folder with --output-dir or --out.",
        ) from None


def latest_run(project: str, *, root: Path = Path("runs"), having: str = "record.json") -> RunFolder | None:
    """The newest run of a project.

    Args:
        project: Name of the project.
        root: The folder of all runs.
        having: Path of a file in the run folder; runs without this file are ignored.

    Returns:
        The run with the newest file ``having``; None if no run has it.
    """
    folder = root / project
    if not folder.is_dir():
        return None
    hits = [path for path in folder.iterdir() if (path / having).is_file()]
    return RunFolder(max(hits, key=lambda path: (path / having).stat().st_mtime)) if hits else None
