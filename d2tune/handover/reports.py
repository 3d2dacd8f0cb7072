"""The evaluations of a model in a handover, and the acceptance report that is put beside them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune import files, run_schema
from d2tune.errors import DataError, RunError
from d2tune.packages.portable import portable
from d2tune.run_folder import RunFolder

ACCEPTANCE = "acceptance"

_IMAGES = ("contact_sheet.png", "plots/*.png")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An evaluation in a handover.

    Attributes:
        title: On what it was.
        file: Name of its file, relative to the handover.
        sheet: Name of its contact sheet; None without one.
        plots: Names of its plots.
        images: Number of images that it was on.
        data_sha256: Their hash.
    """

    title: str
    file: str
    sheet: str | None
    plots: tuple[str, ...]
    images: int
    data_sha256: str


def copy_evaluations(run: RunFolder, folder: Path, *, weights_sha256: str) -> list[Report]:
    """Copy the evaluations of the weights, without the paths of this machine.

    Args:
        run: The run; its training wrote an evaluation, and ``d2tune eval`` others.
        folder: The folder of the handover.
        weights_sha256: Hash of the checkpoint.
    """
    reports = []
    config_sha256 = files.sha256_file(run.config)
    for path in (run.evaluation, *sorted(run.path.glob("evaluation*/evaluation.json"))):
        try:
            content = run_schema.read_evaluation(path)
        except (FileNotFoundError, RunError):
            continue
        if (content["weights_sha256"], content["config_sha256"]) == (weights_sha256, config_sha256):
            name = "training_evaluation" if path == run.evaluation else path.parent.name
            reports.append(_copy(path, content, folder, name))
    return reports


def copy_acceptance(source: Path, folder: Path) -> list[str]:
    """Copy an acceptance report, a file or a folder; returns the names of its files, relative to the handover.

    Raises:
        DataError: It does not exist, is empty, or holds something else than files and folders.
    """
    if not source.exists():
        raise DataError("the acceptance report does not exist", file=source, place="--acceptance")
    paths = [source] if source.is_file() else sorted(source.rglob("*"))
    copied = []
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            continue
        if path.is_symlink() or not path.is_file():
            raise DataError("the acceptance report has something that is not a file", file=path, place="--acceptance")
        target = folder / ACCEPTANCE / (path.name if path == source else path.relative_to(source))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        copied.append(target.relative_to(folder).as_posix())
    if not copied:
        raise DataError("the folder of the acceptance report is empty", file=source, place="--acceptance")
    return copied


def _copy(path: Path, content: dict[str, Any], folder: Path, name: str) -> Report:
    target = folder / name
    target.mkdir()
    files.write_json(target / "evaluation.json", portable(json.loads(path.read_bytes())))
    images = [source for pattern in _IMAGES for source in sorted(path.parent.glob(pattern))]
    for source in images:
        copy = target / source.relative_to(path.parent)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, copy)
    names = [f"{name}/{source.relative_to(path.parent).as_posix()}" for source in images]
    data = content["data"]
    return Report(
        title="the validation split" if data is None else f"other data ({portable(str(data))})",
        file=f"{name}/evaluation.json",
        sheet=next((one for one in names if one.endswith("contact_sheet.png")), None),
        plots=tuple(one for one in names if "/plots/" in one),
        images=int(content["images"]),
        data_sha256=content["data_sha256"],
    )
