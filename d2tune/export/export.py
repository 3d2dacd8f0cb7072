"""Exporting a model: its network as a file of another format in a package, kept if a check finds no drift."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from d2tune import files
from d2tune.errors import DataError, PackageError, ProjectError
from d2tune.export.check.images import check_images, is_stacked
from d2tune.export.check.result import CheckResult
from d2tune.export.edge import has_runner, write_runner
from d2tune.export.formats import BOUNDS, OPSET, Format, check_installed, check_precision, format_named
from d2tune.export.graphs.base import Graph
from d2tune.export.graphs.build import example_of, graph_of, kind_of
from d2tune.export.load import ExportEntry
from d2tune.export.onnx_file import halve_weights, write_onnx
from d2tune.export.openvino_file import fixed_sizes, write_openvino
from d2tune.export.quantization import calibration_images, graph_inputs, quantize
from d2tune.export.reference import channels_of, pads_by_mirroring, reference_model, size_divisibility, thing_classes
from d2tune.export.torchscript_file import write_torchscript
from d2tune.inference.loop import inference_mode
from d2tune.modeling.loaded import LoadedModel
from d2tune.packages.folder import check_replaceable, write_folder
from d2tune.packages.manifest import CARD, CONFIG, NAME, PROJECT, Manifest, is_package
from d2tune.packages.read import Package, read_package
from d2tune.packages.write import write_package
from d2tune.tasks import task_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
        format: The format.
        precision: Type of the numbers in its file.
        sizes: Heights and widths that images are padded to; empty takes all sizes.
        calibrate: Photos to measure the ranges of values on; None for precisions that need none.
        images: Images or annotations to check with; None takes the validation split of the run.
        allows_drift: Whether an export that is out of bounds is kept.
    """

    format: Format
    precision: str
    sizes: tuple[tuple[int, int], ...] = ()
    calibrate: Path | None = None
    images: Path | None = None
    allows_drift: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """An exported model.

    Attributes:
        out: Its folder.
        manifest: Its description.
        check: The result of its check.
    """

    out: Path
    manifest: Manifest
    check: CheckResult

    @property
    def summary(self) -> str:
        """The table of the check, its verdict, how the model itself computes, and the folder."""
        weights, own = self.manifest.weights, self.manifest.inference
        table = self.check.table(reference="torch", exported=f"{weights.format} {weights.precision}")
        lines = [table, "", self.check.sentence]
        if own.precision != "float32":
            device = "GPU" if own.device == "cuda" else "processor"
            lines.append(
                f"torch computed in float32 here. On a {device}, the model itself predicts in {own.precision}, with "
                "other scores than this export: see docs/export.md, The check."
            )
        return "\n".join([*lines, str(self.out / weights.file)])


def export(
    model: str | Path,
    out: str | Path,
    *,
    format: str,
    precision: str | None = None,
    weights: str = "best",
    thresholds: str | None = None,
    size: str | None = None,
    calibrate: str | Path | None = None,
    images: str | Path | None = None,
    allow_drift: bool = False,
    force: bool = False,
    say: Callable[[str], None] | None = None,
) -> ExportResult:
    """Export a model and check the export; nothing is written if it drifts.

    Args:
        model: A run folder, or a package of safetensors.
        out: The folder of the exported model.
        format: ``onnx``, ``torchscript`` or ``openvino``.
        precision: Type of the numbers in its file: ``float32``, ``float16`` or ``int8``; None is float32.
        weights: Of a run: ``best``, ``final`` or a checkpoint file.
        thresholds: Of a run, see `packages.thresholds.choose_thresholds`.
        size: For OpenVINO, ``HEIGHTxWIDTH`` that images are resized to fit in; None takes the sizes that the resizing
            of the model gives.
        calibrate: For int8, a folder of photos to measure the ranges of values on.
        images: A folder, an image or annotations to check with; None takes the validation split of a run, if its data
            are there.
        allow_drift: Whether an export that is out of bounds is kept.
        force: Whether an unchanged package in ``out`` is replaced.
        say: Called with a line for each step, and with the table of a check before it is refused.

    Raises:
        D2TuneError: The model, the options or the images cannot be used, a library is missing, the export drifts, or
            the runtime of the format failed.
    """
    chosen = format_named(format)
    precision = precision or chosen.precisions[0]
    check_precision(chosen, precision)
    check_installed(chosen)
    _check_options(chosen, precision, size, calibrate)
    for place, path in (("--calibrate", calibrate), ("--check", images)):
        if path is not None and not Path(path).exists():
            raise DataError("the image or folder does not exist", file=path, place=place)
    target = Path(out)
    check_replaceable(target, force=force)
    with tempfile.TemporaryDirectory(prefix="d2tune-export-") as scratch:
        source = _source(Path(model), Path(scratch) / "source", weights, thresholds)
        reference = reference_model(source)
        run = None if is_package(Path(model)) else Path(model)
        if images is not None:
            check_images(reference, reference.cfg, run=run, chosen=Path(images))
        options = ExportOptions(
            format=chosen,
            precision=precision,
            sizes=_sizes(chosen, size, reference),
            calibrate=None if calibrate is None else Path(calibrate),
            images=None if images is None else Path(images),
            allows_drift=allow_drift,
        )
        candidate = Path(scratch) / "candidate"
        report = say or _silent
        report(f"exporting {source.manifest.project} to {chosen.name} {precision}")
        entries = make_candidate(candidate, source, reference, options)
        report("checking the export against the model, in a process of its own")
        check = run_check(source.folder, candidate, run=run, images=options.images, precision=precision)
        if check.out_of_bounds and not allow_drift:
            raise _drifts(chosen, precision, check, report)
        entries["export"] |= {"check": check.to_json()}
        manifest = write_folder(target, entries, lambda folder: _copy(candidate, folder), force=force)
    return ExportResult(out=target, manifest=manifest, check=check)


def make_candidate(folder: Path, source: Package, reference: LoadedModel, options: ExportOptions) -> dict[str, Any]:
    """Write the package of an export that has not been checked; returns its entries.

    Args:
        folder: The folder.
        source: The package that is exported.
        reference: Its model, whose norms are fused into its parameters.
        options: How it is exported.

    Raises:
        PackageError: The model has no graph, or has an operation that the format lacks.
        DataError: The photos to measure the ranges of values on cannot be read.
    """
    entries = _entries(source, reference, options)
    write_folder(folder, entries, lambda into: _fill(into, source, reference, options))
    return entries


def _check_options(chosen: Format, precision: str, size: str | None, calibrate: str | Path | None) -> None:
    if size is not None and not chosen.is_fixed:
        raise ProjectError(f"{chosen.name} models take images of all sizes", place="--size", hint="Remove --size.")
    if calibrate is not None and precision != "int8":
        raise ProjectError("only int8 is calibrated", place="--calibrate", hint="Add --precision int8, or remove it.")
    if calibrate is None and precision == "int8":
        hint = "Name a folder with about a hundred photos like those that the model will get: --calibrate FOLDER."
        raise ProjectError("int8 needs photos to measure the ranges of values on", place="--precision", hint=hint)


def _source(model: Path, scratch: Path, weights: str, thresholds: str | None) -> Package:
    """The package of safetensors that is exported; of a run it is made first."""
    if not is_package(model):
        write_package(model, scratch, weights=weights, thresholds=thresholds)
        return read_package(scratch)
    package = read_package(model)
    given = package.manifest.weights.format
    if given != "safetensors":
        hint = "Export the run or the package that it was made of."
        raise PackageError("is an exported model already", file=model, found=given, hint=hint)
    if weights != "best":
        raise PackageError("a package has one file of weights", file=model, hint="Remove --weights.")
    if thresholds is not None:
        raise PackageError("a package has its thresholds", file=model, hint="Remove --thresholds, or export the run.")
    return package


def _sizes(chosen: Format, size: str | None, reference: LoadedModel) -> tuple[tuple[int, int], ...]:
    if not chosen.is_fixed:
        return ()
    cfg = reference.cfg
    return fixed_sizes(
        size,
        short_side_px=cfg.INPUT.MIN_SIZE_TEST,
        max_side_px=cfg.INPUT.MAX_SIZE_TEST,
        window_px=cfg.TEST.WINDOW_PX,
        divisor_px=size_divisibility(reference.model),
    )


def _entries(source: Package, reference: LoadedModel, options: ExportOptions) -> dict[str, Any]:
    """The entries of ``package.json`` of the export."""
    manifest = source.manifest
    generated = {"d2tune_package", "d2tune", "files", "sha256"}
    entries = manifest.model_dump(mode="python", exclude=generated)
    graph = _graph(reference, options)
    entries["weights"] |= {
        "file": options.format.file,
        "format": options.format.name,
        "precision": options.precision,
        "sizes": options.sizes or None,
        "tensors": None,
    }
    cfg = _config(source, options)
    entries["input"] |= {"short_side_px": cfg.INPUT.MIN_SIZE_TEST, "max_side_px": cfg.INPUT.MAX_SIZE_TEST}
    entry = ExportEntry(
        gives=kind_of(reference.model),
        inputs=graph.input_names,
        outputs=graph.output_names,
        pads_by_mirroring=pads_by_mirroring(reference.model),
        opset=OPSET if "onnx" in options.format.modules else None,
        versions={name: importlib.metadata.version(name) for name in ("torch", *options.format.modules)},
    )
    entries["export"] = entry.model_dump(mode="json")
    return entries


def _config(source: Package, options: ExportOptions) -> CfgNode:
    """The config, whose resizing makes every image fit in one of the fixed sizes."""
    cfg = source.config()
    if options.sizes and cfg.INPUT.MIN_SIZE_TEST:
        short_side_px, long_side_px = sorted(options.sizes[0])
        cfg.INPUT.MIN_SIZE_TEST = min(cfg.INPUT.MIN_SIZE_TEST, short_side_px)
        cfg.INPUT.MAX_SIZE_TEST = min(cfg.INPUT.MAX_SIZE_TEST, long_side_px)
    return cfg


def _graph(reference: LoadedModel, options: ExportOptions) -> Graph:
    return graph_of(reference.model, for_onnx=options.format.name != "torchscript", is_fixed=options.format.is_fixed)


def _fill(folder: Path, source: Package, reference: LoadedModel, options: ExportOptions) -> None:
    """Write the files of the export into its package."""
    shutil.copy(source.folder / PROJECT, folder / PROJECT)
    files.write_text(folder / CONFIG, _config(source, options).dump())
    if has_runner(source.manifest, format_name=options.format.name, gives=kind_of(reference.model)):
        write_runner(folder)
    path = folder / options.format.file
    with inference_mode(reference.model, is_own=True):
        graph = _graph(reference, options)
        example = example_of(graph, channels=channels_of(reference), classes=thing_classes(reference))
        if options.format.name == "torchscript":
            write_torchscript(graph, example, path)
            return
        onnx_path = path.with_suffix(".onnx")
        write_onnx(graph, example, onnx_path)
        if options.precision == "int8":
            _quantize(path, graph, reference, options)
    if options.format.name == "openvino":
        write_openvino(onnx_path, path, halves_weights=options.precision == "float16")
        onnx_path.unlink()
    elif options.precision == "float16":
        halve_weights(path)


def _quantize(path: Path, graph: Graph, reference: LoadedModel, options: ExportOptions) -> None:
    assert options.calibrate is not None
    project, cfg = reference.project, reference.cfg
    is_raster = project.data.format == "label_images"
    images = calibration_images(options.calibrate, is_raster=is_raster, stacked=is_stacked(reference))
    predictor = task_of(project).predictor(reference.model, cfg, project, reference.categories)
    others = {"min_scores": np.zeros(thing_classes(reference), np.float32)} if "min_scores" in graph.input_names else {}
    quantize(path, graph, list(graph_inputs(images, predictor, cfg, others)))


def run_check(source: Path, exported: Path, *, run: Path | None, images: Path | None, precision: str) -> CheckResult:
    """Compare an export with the package that it was made of, in another process.

    Args:
        source: The package of safetensors.
        exported: The package of the export.
        run: The run folder, for its validation split; None for a package.
        images: Images or annotations to check with.
        precision: Type of the numbers in the file.

    Raises:
        PackageError: The exported model cannot be run, or the runtime aborted the process.
    """
    with tempfile.TemporaryDirectory(prefix="d2tune-check-") as scratch:
        job, result = Path(scratch) / "job.json", Path(scratch) / "result.json"
        paths = {"source": source, "exported": exported, "run": run, "images": images}
        plain = {name: None if path is None else str(path.absolute()) for name, path in paths.items()}
        files.write_text(job, json.dumps(plain))
        command = [sys.executable, "-m", "d2tune.export.check", str(job)]
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if not result.is_file():
            raise _crashed(ended)
        measured = json.loads(result.read_bytes())
    if "error" in measured:
        raise PackageError(f"the check failed, and the export is not kept: {measured['error']}")
    return CheckResult.from_json(measured["measured"], BOUNDS[precision])


def _crashed(ended: subprocess.CompletedProcess[str]) -> PackageError:
    """The error of a process that ended without a result."""
    last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
    how = f"signal {-ended.returncode}" if ended.returncode < 0 else f"status {ended.returncode}"
    return PackageError(
        f"the runtime ended its process with {how} while the export was checked: {last}",
        hint="The export is not kept. Update the library, or choose another format.",
    )


def _silent(line: str) -> None:
    """Take a line where none is wanted."""


def _drifts(chosen: Format, precision: str, check: CheckResult, say: Callable[[str], None]) -> PackageError:
    say(check.table(reference="torch", exported=f"{chosen.name} {precision}"))
    return PackageError(
        f"the export drifts and is not kept: {'; '.join(check.out_of_bounds)}",
        hint="Choose another precision or format, or keep it with --allow-drift.",
    )


def _copy(candidate: Path, folder: Path) -> None:
    for path in candidate.iterdir():
        if path.name not in (NAME, CARD):
            shutil.copy(path, folder / path.name)
