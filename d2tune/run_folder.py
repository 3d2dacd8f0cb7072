"""The folder of a run and the paths of its files."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.errors import RunError


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
    def restored_images(self) -> Path:
        """Images that existed only inside the annotations."""
        return self.path / "restored_images"

    def read_record(self) -> dict[str, Any]:
        """Read the record.

        Raises:
            RunError: The folder is not a run folder, or its record is damaged.
        """
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(
                "is not a run folder",
                file=self.path,
                expected="a folder with record.json, such as runs/<project>/<time>",
            ) from None
        except (OSError, ValueError) as error:
            raise RunError(f"the record cannot be read: {error}", file=self.record) from None
        if not isinstance(record, dict):
            raise RunError("the record is not a JSON object", file=self.record, found=type(record).__name__)
        return record

    def update_record(self, values: Mapping[str, Any]) -> None:
        """Add or replace top-level entries of the record."""
        files.write_json(self.record, {**(self.read_record() if self.record.is_file() else {}), **values})


def new_run(project: str, *, output_dir: Path | None, root: Path = Path("runs")) -> RunFolder:
    """Create the folder of a new run.

    Args:
        project: Name of the project.
        output_dir: The run folder, which must be empty; None is ``<root>/<project>/<time>``.
        root: The folder of all runs.

    Raises:
        RunError: The folder cannot be written, or is not empty.
    """
    if output_dir is None:
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        path, again = root / project / stamp, 1
        while path.exists():
            again += 1
            path = root / project / f"{stamp}_{again}"
    else:
        path = output_dir
    if path.is_dir() and any(path.iterdir()):
        raise RunError(
            "the output folder is not empty",
            file=path,
            hint="Set another folder with --output-dir, or continue the run with --resume.",
        )
    ensure_writable(path / "checkpoints")
    return RunFolder(path)


def ensure_writable(folder: Path) -> None:
    """Create a folder if it does not exist, and check that files can be written to it.

    Raises:
        RunError: The folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / ".writable", "")
        (folder / ".writable").unlink()
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
