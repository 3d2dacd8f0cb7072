"""Exported models: the predictions and metrics of the model in all formats; what drifts or fails is refused."""

from __future__ import annotations

import ast
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage

import d2tune
from d2tune import api
from d2tune.cli import main
from d2tune.errors import D2TuneError, DataError, MachineError, PackageError, ProjectError
from d2tune.export import export as exporting
from d2tune.export.check.__main__ import run as run_job
from d2tune.export.check.drift import Drift, drift_of
from d2tune.export.check.measure import Measured
from d2tune.export.check.result import CheckResult
from d2tune.export.formats import BOUNDS
from d2tune.export.reference import padded_reference
from d2tune.inference.results import Detections
from d2tune.metrics.coco.summary import InstanceMetrics
from d2tune.packages.manifest import Inference
from d2tune.packages.read import Package
from d2tune.runs.load import predictor_of
from tests.cases import on_demand
from tests.export.models import candidate_of, package_of
from tests.packages.test_evaluate import annotated

LANDSCAPE_AND_PORTRAIT = ((64, 96), (96, 64))


def photos() -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(5)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((60, 90), (97, 64), (64, 64))]


def assert_same_instances(mine: list[Detections], theirs: list[Detections]) -> None:
    for one, other in zip(mine, theirs, strict=True):
        assert len(one) == len(other) and one.class_ids.tolist() == other.class_ids.tolist()
        np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
        np.testing.assert_allclose(one.lower_scores, other.lower_scores, atol=2e-6)
        for mask, expected in zip(one.masks, other.masks, strict=True):
            assert (mask != expected).sum() <= 2
    assert sum(map(len, mine)) > 3 and sum(len(one.lower_scores) for one in mine) > 3


@pytest.mark.parametrize("format_name", on_demand(["onnx", "torchscript"], "onnx"))
def test_an_exported_model_predicts_as_its_package(
    format_name: str, package: Package, onnx_package: Package, tmp_path: Path
) -> None:
    exported = onnx_package
    if format_name != "onnx":
        exported, _ = candidate_of(package, tmp_path / "model", format_name)
    mine = d2tune.load_predictor(exported.folder).batch(photos())
    theirs = d2tune.load_predictor(package.folder).batch(photos())
    assert_same_instances(mine, theirs)
    everything = d2tune.load_predictor(exported.folder, min_score=0)
    assert [len(one) for one in everything.batch(photos())] == [8, 8, 8]
    assert [len(one) for one in d2tune.load_predictor(exported.folder, min_score=1).batch(photos())] == [0, 0, 0]
    assert (
        exported.manifest.weights.format == format_name and exported.manifest.thresholds == package.manifest.thresholds
    )
    if format_name == "onnx":
        onnx.checker.check_model(onnx.load(exported.weights), full_check=True)
        assert onnx.load(exported.weights).opset_import[0].version == 17


@pytest.mark.slow
def test_openvino_undoes_the_padding_to_its_sizes(package: Package, tmp_path: Path) -> None:
    exported, reference = candidate_of(package, tmp_path / "model", "openvino", sizes=LANDSCAPE_AND_PORTRAIT)
    assert exported.manifest.weights.sizes == LANDSCAPE_AND_PORTRAIT
    predictor = d2tune.load_predictor(exported.folder)
    mine = predictor.batch(photos())
    compared = exporting_reference(reference, exported)
    assert_same_instances(mine, compared.batch(photos()))
    for one, image in zip(mine, photos(), strict=True):
        assert (one.height_px, one.width_px) == image.shape[:2]
        assert (one.boxes_xyxy[:, 2:] <= [image.shape[1], image.shape[0]]).all()
    with pytest.raises(DataError, match=r"too large for the exported model; found 200 x 64 px.*at most 96 x 64 px or"):
        predictor.model.raw_detections([{"image": torch.zeros(3, 64, 200), "height": 64, "width": 200}], None)


def exporting_reference(reference: Any, exported: Package) -> Any:
    """The predictor of the model on images that are padded to the sizes of an export, in torch."""
    cfg = exported.config()
    return predictor_of(padded_reference(replace(reference, cfg=cfg), LANDSCAPE_AND_PORTRAIT))


@pytest.mark.parametrize("task", on_demand(["semantic", "panoptic"], "panoptic"))
def test_label_maps_and_segments_of_exported_models(task: str, tmp_path: Path) -> None:
    source = package_of(tmp_path, task)
    exported, _ = candidate_of(source, tmp_path / "model", "onnx")
    mine = d2tune.load_predictor(exported.folder).batch(photos())
    theirs = d2tune.load_predictor(source.folder).batch(photos())
    for one, other in zip(mine, theirs, strict=True):
        pixels = (one.class_ids, other.class_ids) if task == "semantic" else (one.segment_ids, other.segment_ids)
        assert (pixels[0] != pixels[1]).mean() < 1e-3
        if task == "panoptic":
            assert [segment.class_id for segment in one.segments] == [segment.class_id for segment in other.segments]
            assert len(one.segments) > 1


def job(source: Package, exported: Package, images: Path | None = None) -> dict[str, Any]:
    paths = {"source": source.folder, "exported": exported.folder, "run": None, "images": images}
    return run_job({name: None if path is None else str(path) for name, path in paths.items()})


def test_the_check_measures_drift_metric_latency_and_size(
    package: Package, onnx_package: Package, tmp_path: Path
) -> None:
    val = annotated(tmp_path / "val")
    result = CheckResult.from_json(job(package, onnx_package, val)["measured"], BOUNDS["float32"])
    assert result.out_of_bounds == [] and result.measured.drift.images == 4 + 2
    assert result.measured.drift.instances == result.measured.drift.other_instances != 0
    assert result.measured.metric == "mask_ap" and result.measured.values[0] is not None
    assert result.measured.values[1] == pytest.approx(result.measured.values[0], abs=0.1)
    assert result.measured.size_bytes == (package.weights.stat().st_size, onnx_package.weights.stat().st_size)
    assert min(result.measured.latency_ms) > 1
    table = result.table(reference="torch", exported="onnx float32").splitlines()
    names = ["instances", "kept", "largest box", "lowest mask IoU", "largest score", "mask AP", "latency", "size"]
    assert len(table) == 2 + len(names) and all(map(str.startswith, table[2:], names))


def test_float16_halves_the_file(package: Package, onnx_package: Package, tmp_path: Path) -> None:
    exported, _ = candidate_of(package, tmp_path / "model", "onnx", precision="float16")
    assert exported.weights.stat().st_size < 0.6 * onnx_package.weights.stat().st_size
    mine, theirs = (d2tune.load_predictor(one.folder).batch(photos()) for one in (exported, onnx_package))
    drift = drift_of(theirs, mine)
    assert drift.kept > 0.9 and 1e-4 < (drift.box_px or 0) < 3


def check_result(precision: str, change: dict[str, Any]) -> CheckResult:
    drift = Drift(
        images=4, instances=10, other_instances=10, other_counts=0, kept=1.0, box_px=0.0, mask_iou=1.0, score=0.0
    )
    names = {name for name in change if hasattr(drift, name)}
    measured = Measured(
        drift=replace(drift, **{name: change[name] for name in names}),
        min_scores=True,
        where="photos",
        given_images=2,
        metric="mask_ap",
        values=change.get("values", (50.0, 50.0)),
        latency_ms=(2.0, 1.0),
        size_bytes=change.get("size_bytes", (100, 50)),
    )
    return CheckResult(measured, BOUNDS[precision])


@pytest.mark.parametrize(
    ("precision", "change", "words"),
    [
        ("float32", {}, []),
        ("float32", {"other_counts": 2}, ["another number of instances on 2 images"]),
        (
            "float32",
            {"box_px": 0.02, "mask_iou": 0.99},
            ["boxes differ by 0.02 px, more than 0.01", "mask IoU 0.99"],
        ),
        ("float32", {"values": (50.0, 50.2)}, ["mask AP is off by 0.2, more than 0.1"]),
        ("float32", {"values": (50.0, None)}, ["mask AP cannot be computed of the export"]),
        ("int8", {"other_counts": 2, "box_px": 3.0, "mask_iou": 0.8, "values": (50.0, 49.1)}, []),
        (
            "int8",
            {"instances": 200, "kept": 0.97, "values": (50.0, 48.8)},
            ["6 of 200 instances lost, 3 %, more than 2 %", "by 1.2, "],
        ),
        (
            "int8",
            {"instances": 7, "kept": 6 / 7},
            ["1 of 7 instances lost, 14 % (too few to judge: check with more images), more than 2 %"],
        ),
        ("int8", {"instances": None, "kept": 0.97}, ["3 % of the pixels have another class, more than 2 %"]),
        ("int8", {"size_bytes": (100, 51)}, ["0.51 times the size, more than 0.5"]),
    ],
)
def test_what_is_out_of_bounds(precision: str, change: dict[str, Any], words: list[str]) -> None:
    result = check_result(precision, change)
    assert len(result.out_of_bounds) == len(words)
    assert all(word in text for word, text in zip(words, result.out_of_bounds, strict=True))
    assert CheckResult.from_json(json.loads(json.dumps(result.to_json())), BOUNDS[precision]) == result


@pytest.mark.slow
def test_the_command_exports_checks_and_evaluates(package: Package, tmp_path: Path, capsys: Any) -> None:
    val = annotated(tmp_path / "val")
    out = tmp_path / "exported"
    words = ["export", str(package.folder), "--format", "onnx", "--out", str(out), "--check", str(val)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "mask AP" in printed and "within the bounds" in printed
    assert printed.splitlines()[0].startswith("exporting ") and "checking the export" in printed.splitlines()[1]
    described = json.loads((out / "package.json").read_text("utf-8"))
    assert described["export"]["check"]["out_of_bounds"] == [] and described["export"]["opset"] == 17
    assert main(words) == 1
    assert "is already there and is not replaced" in capsys.readouterr().err
    assert main(["export", str(out), "--format", "onnx", "--out", str(tmp_path / "again")]) == 1
    assert "is an exported model already; found onnx" in capsys.readouterr().err


def test_the_summary_says_where_the_model_itself_computes_otherwise(onnx_package: Package) -> None:
    manifest, check = onnx_package.manifest, check_result("float32", {})
    for precision, expected in (("float32", False), ("bfloat16", True)):
        own = manifest.model_copy(
            update={"inference": Inference.model_validate({"device": "cpu", "precision": precision})}
        )
        summary = exporting.ExportResult(out=onnx_package.folder, manifest=own, check=check).summary
        assert ("the model itself predicts in bfloat16" in summary) == expected
        assert summary.splitlines()[-1] == str(onnx_package.folder / "model.onnx")


@pytest.mark.extended
def test_an_exported_model_is_evaluated_as_its_package(package: Package, onnx_package: Package, tmp_path: Path) -> None:
    val = annotated(tmp_path / "val")
    mine = d2tune.evaluate(onnx_package.folder, data=val, out=tmp_path / "mine")
    theirs = d2tune.evaluate(package.folder, data=val, out=tmp_path / "theirs")
    assert isinstance(mine.metrics, InstanceMetrics) and mine.metrics == theirs.metrics
    assert mine.metrics.classes[0].instances == 2


def test_a_runtime_that_aborts_is_refused_and_nothing_is_left(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process that aborts takes the place of the one of the check."""
    script, scratch = tmp_path / "python", tmp_path / "scratch"
    script.write_text("#!/bin/sh\necho 'pure virtual method called' >&2\nkill -ABRT $$\n", encoding="utf-8")
    script.chmod(0o755)
    scratch.mkdir()
    monkeypatch.setattr("sys.executable", str(script))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with pytest.raises(PackageError, match=r"with signal 6 while the export was checked: pure virtual method called"):
        api.export(package.folder, tmp_path / "out", format="torchscript")
    assert not (tmp_path / "out").exists() and not list(scratch.iterdir())


@pytest.mark.extended
def test_int8_is_smaller_and_its_check_decides(package: Package, tmp_path: Path) -> None:
    calibration = tmp_path / "photos"
    calibration.mkdir()
    for number, image in enumerate(photos() * 4):
        PilImage.fromarray(image).save(calibration / f"{number:02}.png")
    exported, _ = candidate_of(package, tmp_path / "model", "onnx", precision="int8", calibrate=calibration)
    names = {node.op_type for node in onnx.load(exported.weights).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= names
    assert exported.weights.stat().st_size <= 0.5 * package.weights.stat().st_size
    result = CheckResult.from_json(job(package, exported)["measured"], BOUNDS["int8"])
    assert 0 < result.measured.drift.kept <= 1 and result.measured.drift.box_px != 0
    (calibration / "05.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"05\.png"):
        candidate_of(package, tmp_path / "unreadable", "onnx", precision="int8", calibrate=calibration)
    for path in list(calibration.iterdir())[:4]:
        path.unlink()
    with pytest.raises(
        DataError, match=r"too few images to measure the ranges of values; found 8; expected 10 or more"
    ):
        candidate_of(package, tmp_path / "few", "onnx", precision="int8", calibrate=calibration)
    assert not (tmp_path / "unreadable").exists() and not (tmp_path / "few").exists()


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"format": "onx"}, ProjectError, "--format: the format is unknown; found onx; .*Did you mean onnx"),
        (
            {"format": "tensorrt"},
            ProjectError,
            "the format is unknown; found tensorrt; expected onnx, torchscript, openvino. d2tune writes no engines",
        ),
        ({"format": "torchscript", "precision": "int8"}, ProjectError, "torchscript has no such precision; found int8"),
        ({"format": "onnx", "size": "64x96"}, ProjectError, "--size: onnx models take images of all sizes"),
        ({"format": "openvino", "size": "64"}, ProjectError, "--size: the size is invalid; found 64; expected HEIGHTx"),
        ({"format": "openvino", "size": "50x96"}, ProjectError, "multiples of 32 px; found 50x96; expected 64x96"),
        ({"format": "onnx", "precision": "int8"}, ProjectError, "int8 needs photos .* --calibrate FOLDER"),
        ({"format": "onnx", "calibrate": "."}, ProjectError, "--calibrate: only int8 is calibrated"),
        ({"format": "onnx", "images": "nothing"}, DataError, "nothing: --check: the image or folder does not exist"),
        ({"format": "onnx", "weights": "final"}, PackageError, "a package has one file of weights"),
    ],
)
def test_bad_input_is_a_line(
    options: dict[str, str], error: type[D2TuneError], line: str, package: Package, tmp_path: Path
) -> None:
    with pytest.raises(error, match=line):
        api.export(package.folder, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_folder_without_images_is_noticed_before_the_export(package: Package, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    steps: list[str] = []
    with pytest.raises(DataError, match="empty"):
        api.export(package.folder, tmp_path / "out", format="onnx", images=tmp_path / "empty", say=steps.append)
    assert not steps and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_missing_library_is_named_with_its_extra(
    name: str, package: Package, onnx_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module.startswith(name) else real(module))
    with pytest.raises(MachineError, match=rf'needs the library {name}.* pip install "d2tune\[{name}\]"'):
        api.export(package.folder, tmp_path / "out", format=name)
    if name == "onnx":
        with pytest.raises(MachineError, match=r'pip install "d2tune\[onnx\]"'):
            d2tune.load_predictor(onnx_package.folder)


def test_runtimes_are_imported_where_they_are_used() -> None:
    for path in Path(exporting.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not {name for name in names if name.partition(".")[0] in ("onnx", "onnxruntime", "openvino")}, path
