"""Making a handover: one folder with everything that somebody needs who takes a model over."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.errors import PackageError
from d2tune.export.edge import LIBRARIES
from d2tune.export.export import export
from d2tune.handover import machine_names
from d2tune.handover.folder import FORMAT, NAME, check_replaceable, entries, new_folder
from d2tune.handover.licenses import Library, libraries, write_texts
from d2tune.handover.page import Contents, write_pages
from d2tune.handover.reports import Report, copy_acceptance, copy_evaluations
from d2tune.handover.wheel import copy_wheel
from d2tune.packages.manifest import NAME as PACKAGE
from d2tune.packages.manifest import RUNNER, Manifest, is_package
from d2tune.packages.read import read_package
from d2tune.packages.weights_license import license_of_training
from d2tune.packages.write import write_package
from d2tune.run_folder import RunFolder
from d2tune.text import counted
from d2tune.versions import own_version

MODEL, EDGE, LICENSES, DATA = "model", "edge", "licenses", "data.json"

_BINARY = (".safetensors", ".onnx", ".pt", ".bin", ".png", ".jpg", ".whl")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverResult:
    """A written handover.

    Attributes:
        out: Its folder.
        manifest: The description of its model.
        files: Number of files.
        size_bytes: Their sizes together.
        missing: What it could have and does not, in sentences.
    """

    out: Path
    manifest: Manifest
    files: int
    size_bytes: int
    missing: tuple[str, ...]

    @property
    def summary(self) -> str:
        """What is missing, the size, and the page to open."""
        size_mb = self.size_bytes / 1e6
        return "\n".join([*self.missing, f"{counted(self.files, 'file')}, {size_mb:.1f} MB: {self.out / 'index.html'}"])


def make_handover(
    model: str | Path,
    out: str | Path,
    *,
    weights: str = "best",
    thresholds: str | None = None,
    acceptance: str | Path | None = None,
    wheel: str | Path | None = None,
    runtime: str | None = None,
    force: bool = False,
) -> HandoverResult:
    """Make a handover of a model.

    Args:
        model: A run folder, a package or an exported model.
        out: The folder; it appears whole or not at all.
        weights: Of a run: ``best``, ``final`` or a checkpoint file.
        thresholds: Of a run: see `packages.thresholds.choose_thresholds`.
        acceptance: An acceptance report to add, a file or a folder.
        wheel: The wheel of this d2tune to add.
        runtime: ``onnx`` adds an export for devices without torch; None adds none.
        force: Whether an unchanged handover in ``out`` is replaced.

    Raises:
        D2TuneError: The model or the report cannot be used, a file would name this machine, or the folder cannot be
            written.
    """
    source, target = Path(model), Path(out)
    check_replaceable(target, force=force)
    names = machine_names.patterns(source, target.parent)
    with new_folder(target) as folder:
        report_files = [] if acceptance is None else copy_acceptance(Path(acceptance), folder)
        wheel_file = None if wheel is None else copy_wheel(Path(wheel), folder)
        machine_names.check(folder, names, skip=_BINARY)
        manifest, reports = _write_model(source, folder, weights=weights, thresholds=thresholds)
        if runtime is not None:
            chosen = None if is_package(source) else thresholds
            export(source, folder / EDGE, format=runtime, weights=weights, thresholds=chosen)
        files.write_json(folder / DATA, _data(manifest))
        needed, texts = _write_licenses(folder, manifest)
        contents = Contents(
            manifest=manifest,
            reports=tuple(reports),
            acceptance=tuple(report_files),
            wheel=wheel_file,
            has_edge=runtime is not None,
            has_runner=RUNNER in manifest.files,
            libraries=tuple(needed),
            texts=texts,
            weights_license=license_of_training(manifest.training),
            missing=tuple(_missing(source, reports, report_files, wheel_file)),
        )
        write_pages(folder, contents)
        listed = entries(folder)
        own = {"d2tune_handover": FORMAT, "d2tune": own_version(), "project": manifest.project, "files": listed}
        files.write_json(folder / NAME, own)
        machine_names.check(folder, names, skip=_BINARY)
        size_bytes = sum(entry["bytes"] for entry in listed.values()) + (folder / NAME).stat().st_size
    return HandoverResult(
        out=target, manifest=manifest, files=len(listed) + 1, size_bytes=size_bytes, missing=contents.missing
    )


def _write_model(source: Path, folder: Path, *, weights: str, thresholds: str | None) -> tuple[Manifest, list[Report]]:
    """Write the package of a run and its evaluations, or copy a package."""
    if is_package(source):
        for option, is_given in (("--weights", weights != "best"), ("--thresholds", thresholds is not None)):
            if is_given:
                raise PackageError("a package has its weights and thresholds", file=source, hint=f"Remove {option}.")
        package = read_package(source)
        (folder / MODEL).mkdir()
        for name in (PACKAGE, *package.manifest.files):
            shutil.copyfile(source / name, folder / MODEL / name)
        return package.manifest, []
    manifest = write_package(source, folder / MODEL, weights=weights, thresholds=thresholds).manifest
    reports = copy_evaluations(RunFolder(source), folder, weights_sha256=manifest.weights.source_sha256)
    return manifest, reports


def _data(manifest: Manifest) -> dict[str, Any]:
    """The data that the model was trained on: counts and hashes, and none of its images."""
    return {
        "project": manifest.project,
        "classes": list(manifest.classes),
        "thing_ids": list(manifest.thing_ids),
        **manifest.data,
    }


def _write_licenses(folder: Path, manifest: Manifest) -> tuple[list[Library], dict[str, list[str]]]:
    """Write the texts of licenses and their list; returns the libraries and the names of the texts by library."""
    needed = libraries(("d2tune[serve]", "detectron2", *LIBRARIES))
    texts = write_texts(folder / LICENSES, needed)
    rows = [
        {"name": one.name, "version": one.version, "license": one.license, "texts": texts.get(one.name, [])}
        for one in needed
    ]
    weights = license_of_training(manifest.training)
    files.write_json(folder / LICENSES / "licenses.json", {"weights": weights, "libraries": rows})
    return needed, texts


def _missing(source: Path, reports: list[Report], acceptance: list[str], wheel: str | None) -> list[str]:
    lines = []
    if not reports:
        why = "a package has none" if is_package(source) else "these weights were not evaluated; run `d2tune eval`"
        lines.append(f"There is no evaluation report: {why}.")
    if not acceptance:
        lines.append("There is no acceptance report: add one with --acceptance.")
    if wheel is None:
        lines.append(f"The wheel of d2tune {own_version()} is not part of it: add it with --wheel.")
    return lines
