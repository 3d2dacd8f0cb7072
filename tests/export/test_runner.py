"""The script beside an exported model: what it reads, resizes, pastes and writes is what d2tune does."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from pycocotools import mask as mask_utils

import d2tune
from d2tune import api
from d2tune.annotations.io.photos.reading import read_photo
from d2tune.cli import main
from d2tune.data.mapper import inference_sample
from d2tune.data.semantic_mapper import resized
from d2tune.errors import PackageError
from d2tune.export import runner
from d2tune.export.edge import LIBRARIES, has_runner
from d2tune.inference.results import Detections
from d2tune.packages.read import Package, read_package
from d2tune.packages.write import write_package
from tests.export.models import candidate_of
from tests.packages.builders import make_run, rewrite
from tests.shared_files import SHARED

CLASSES = ("bus", "road", "sky", "tree", "car", "wall", "sign", "lamp")
PHOTOS = SHARED / "data" / "balloon" / "val"


@pytest.fixture(scope="session")
def onnx_labels(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("labels")
    write_package(make_run(folder, "semantic", classes=CLASSES), folder / "package")
    return candidate_of(read_package(folder / "package"), folder / "model", "onnx")[0]


def noise(height_px: int, width_px: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


# ------------------------------------------------------------------------------------------------------------ resizing


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((100, 120), (50, 60)),
        ((100, 120), (37, 51)),
        ((300, 90), (100, 30)),
        ((77, 91), (40, 91)),
        ((50, 61), (55, 70)),
        ((201, 300), (333, 517)),
        ((3, 5), (16, 27)),
        ((97, 64), (97, 64)),
        ((700, 1000), (384, 549)),
    ],
)
def test_photos_for_label_maps_are_resized_to_the_same_bytes(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    np.testing.assert_array_equal(runner.resized_by_area(noise(*size), wanted), resized(noise(*size), wanted))


@pytest.mark.parametrize("size", [(60, 90), (97, 64), (64, 64), (640, 100), (2, 300), (300, 2), (13, 17), (65, 97)])
@pytest.mark.parametrize("sides", [(64, 96), (384, 640)])
def test_photos_for_instances_are_resized_to_the_same_bytes(size: tuple[int, int], sides: tuple[int, int]) -> None:
    wanted = inference_sample(noise(*size), short_side_px=sides[0], max_side_px=sides[1])["image"].numpy()
    chosen = runner.resized_size(size, *sides)
    np.testing.assert_array_equal(runner.resized_by_pillow(noise(*size), chosen).transpose(2, 0, 1), wanted)


def test_areas_by_hand() -> None:
    places, weights = runner.area_taps(5, 2)  # each output covers two cells and a half
    assert places.tolist() == [[0, 1, 2, 3], [2, 3, 4, 4]]
    np.testing.assert_allclose(weights, [[0.4, 0.4, 0.2, 0], [0.2, 0.4, 0.4, 0]], atol=1e-7)
    places, weights = runner.linear_taps(2, 4)  # centers at -0.25, 0.25, 0.75 and 1.25
    assert places.tolist() == [[0, 1], [0, 1], [0, 1], [1, 1]]
    np.testing.assert_allclose(weights, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0.75, 0.25]])


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "RGB"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_photos_are_read_to_the_same_bytes(mode: str, suffix: str, tmp_path: Path) -> None:
    image = PilImage.fromarray(noise(13, 17)).convert(mode)
    path = tmp_path / f"photo.{suffix}"
    try:
        image.save(path)
    except OSError:
        assert suffix in ("png", "jpg") and mode in ("CMYK", "P", "LA", "RGBA")
        return
    np.testing.assert_array_equal(runner.read_photo(path), read_photo(path))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_photos_are_turned_as_displayed(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    PilImage.fromarray(noise(13, 17)).save(tmp_path / f"photo.{suffix}", exif=exif)
    mine = runner.read_photo(tmp_path / f"photo.{suffix}")
    np.testing.assert_array_equal(mine, read_photo(tmp_path / f"photo.{suffix}"))
    assert mine.shape == ((17, 13, 3) if orientation >= 5 else (13, 17, 3))


def test_photos_of_16_bits(tmp_path: Path) -> None:
    gray = np.random.default_rng(1).integers(0, 4096, (13, 17)).astype(np.uint16)
    for suffix in ("png", "tif"):
        path = tmp_path / f"gray.{suffix}"
        PilImage.fromarray(gray).save(path)
        np.testing.assert_array_equal(runner.read_photo(path, white=4095), read_photo(path, white=4095))
        with pytest.raises(runner.RunnerError, match=rf"gray\.{suffix}: the image has more than 8 bits a channel"):
            runner.read_photo(path)
    assert cv2.imwrite(str(tmp_path / "color.png"), np.repeat(gray[:, :, None], 3, axis=2))
    with pytest.raises(runner.RunnerError, match=r"color\.png: the image has more than 8 bits a channel"):
        runner.read_photo(tmp_path / "color.png", white=4095)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_files_that_are_not_photos(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    PilImage.fromarray(noise(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:900] if content is None else content)
    with pytest.raises(runner.RunnerError, match=r"photo\.jpg: the image cannot be read: "):
        runner.read_photo(path)


# --------------------------------------------------------------------------------------------------------- run lengths


def test_run_lengths_by_hand() -> None:
    crop = np.array([[True, False], [True, True]])
    rle = runner.run_lengths((3, 4), 1, 1, crop)  # columns: 000 011 001 000
    assert mask_utils.decode(rle).tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]]
    assert rle == {"size": [3, 4], "counts": "422O1"}  # runs 4 2 2 1 3: from the fourth on less the run two before


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_those_of_pycocotools(seed: int) -> None:
    random = np.random.default_rng(seed)
    height_px, width_px = (int(side) for side in random.integers(1, 90, 2))
    mask = random.random((height_px, width_px)) < random.choice([0, 0.02, 0.5, 0.98, 1])
    top, left = int(random.integers(0, height_px)), int(random.integers(0, width_px))
    whole = np.zeros_like(mask)
    whole[top:, left:] = mask[top:, left:]
    expected = mask_utils.encode(np.asfortranarray(whole.astype(np.uint8)))
    mine = runner.run_lengths((height_px, width_px), left, top, mask[top:, left:])
    assert mine["counts"] == expected["counts"].decode()


# --------------------------------------------------------------------------------------------------------- predictions


def assert_same(mine: runner.Instances, expected: Detections) -> None:
    assert len(mine.scores) == len(expected) > 2 and mine.class_ids.tolist() == expected.class_ids.tolist()
    assert mine.size_px == (expected.height_px, expected.width_px)
    np.testing.assert_allclose(mine.boxes, expected.boxes_xyxy, atol=1e-3)
    np.testing.assert_allclose(mine.scores, expected.scores, atol=1e-6)
    for number, mask in enumerate(expected.masks):
        assert (mine.mask(number) != mask).sum() <= 2


@pytest.mark.parametrize("size", [(60, 90), (97, 64), (64, 64), (200, 31)])
def test_instances_are_those_of_the_predictor(size: tuple[int, int], onnx_package: Package) -> None:
    mine = runner.Model(onnx_package.folder, threads=1)(noise(*size))
    assert_same(mine, d2tune.load_predictor(onnx_package.folder)(noise(*size)))
    everything = runner.Model(onnx_package.folder, threads=1, min_score=0)(noise(*size))
    assert len(everything.scores) == 8 >= len(mine.scores)


def test_channels_in_the_order_of_the_model(onnx_package: Package, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(onnx_package.folder, folder)
    spec = onnx_package.manifest.input.model_dump(mode="json")
    rewrite(folder, {"input": spec | {"channel_order": {"RGB": "BGR", "BGR": "RGB"}[spec["channel_order"]]}})
    reversed_channels = np.ascontiguousarray(noise(60, 90)[:, :, ::-1])
    mine = runner.Model(folder, threads=1)(reversed_channels)
    assert_same(mine, d2tune.load_predictor(onnx_package.folder)(noise(60, 90)))


@pytest.mark.parametrize("size", [(60, 90), (200, 130), (64, 64)])
def test_label_maps_are_those_of_the_predictor(size: tuple[int, int], onnx_labels: Package) -> None:
    photo = np.kron(noise(2, 3, seed=4), np.ones((50, 40, 1), np.uint8))[: size[0], : size[1]]
    mine = runner.Model(onnx_labels.folder, threads=1)(photo)
    expected = d2tune.load_predictor(onnx_labels.folder)(photo)
    assert mine.shape == photo.shape[:2] and mine.dtype == np.uint8 and len(np.unique(mine)) > 1
    assert (mine != expected.class_ids).mean() < 1e-3


@pytest.mark.parametrize("size", [(60, 90), (20, 11), (16, 24), (200, 31)])
def test_logits_are_resized_as_by_torch(size: tuple[int, int]) -> None:
    logits = torch.from_numpy(np.random.default_rng(2).normal(size=(3, 16, 24)).astype(np.float32))
    wanted = torch.nn.functional.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0].argmax(0)
    assert (runner.label_map(logits.numpy(), size) != wanted.numpy()).mean() < 1e-3


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_pixels_that_are_invalid(pixels: Any, onnx_package: Package) -> None:
    with pytest.raises(runner.RunnerError, match=r"are invalid; expected \(H, W, 3\) uint8 in RGB"):
        runner.Model(onnx_package.folder, threads=1)(pixels)


# ------------------------------------------------------------------------------------------------ what is in the folder


def test_it_lies_beside_the_model_with_its_requirements(onnx_package: Package, package: Package) -> None:
    script = onnx_package.folder / "runner.py"
    assert script.read_bytes() == Path(runner.__file__).read_bytes()
    assert {"runner.py", "requirements.txt"} <= onnx_package.manifest.files.keys()
    pinned = (onnx_package.folder / "requirements.txt").read_text("utf-8").split()
    assert pinned == [f"{name}=={importlib.metadata.version(name)}" for name in LIBRARIES]
    nodes = list(ast.walk(ast.parse(script.read_text("utf-8"))))
    imported = {alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module).partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}
    assert not (package.folder / "runner.py").exists()
    cards = [(one.folder / "README.md").read_text("utf-8") for one in (onnx_package, package)]
    command = "\npython runner.py photo.jpg photos --out predictions\n"
    assert command in cards[0] and command not in cards[1]


def test_which_exports_have_a_runner(package: Package) -> None:
    manifest = package.manifest
    assert has_runner(manifest, format_name="onnx", gives="instances")
    assert has_runner(manifest, format_name="onnx", gives="labels")
    assert not has_runner(manifest, format_name="onnx", gives="segments")
    assert not has_runner(manifest, format_name="openvino", gives="instances")
    windowed = manifest.input.model_copy(update={"window_px": 64})
    assert not has_runner(manifest.model_copy(update={"input": windowed}), format_name="onnx", gives="labels")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("flip model.onnx", r"model\.onnx: was changed after it was written"),
        ("remove model.onnx", r"model\.onnx: is missing"),
        ("flip package.json", r"package\.json: was changed after it was written"),
        ("remove package.json", r"package\.json: cannot be read"),
        ("format", r"package\.json: has format 2, this runner reads up to 1"),
        ("list", r"package\.json: is not the description of a package"),
        ("weights", r"has a model as safetensors; this runner runs ONNX models"),
        ("windows", r"the model takes rasters or windows; use d2tune"),
        ("garbage", r"model\.onnx: onnxruntime \S+ cannot load it"),
    ],
)
def test_what_was_changed_or_is_not_for_it(damage: str, message: str, onnx_package: Package, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(onnx_package.folder, folder)
    what, _, name = damage.partition(" ")
    if what == "flip":
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1 if name.endswith("onnx") else 0
        flipped = bytes(content) if name.endswith("onnx") else bytes(content).replace(b'"bus"', b'"bux"', 1)
        (folder / name).write_bytes(flipped)
    elif what == "remove":
        (folder / name).unlink()
    elif what == "list":
        (folder / "package.json").write_text("[]")
    elif what == "garbage":
        (folder / "model.onnx").write_bytes(b"garbage")
        rewrite(folder, {})
    else:
        manifest = json.loads((folder / "package.json").read_bytes())
        rewrite(
            folder,
            {
                "format": {"d2tune_package": 2},
                "weights": {"weights": manifest["weights"] | {"format": "safetensors"}, "export": None},
                "windows": {"input": manifest["input"] | {"window_px": 64}},
            }[what],
        )
    with pytest.raises(runner.RunnerError, match=message):
        runner.Model(folder, threads=1)


# ------------------------------------------------------------------------------------------------------ as a command


def run(folder: Path, *words: str | Path, python: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(python or sys.executable), str(folder / "runner.py"), *map(str, words), "--threads", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_writes_what_predict_writes(onnx_package: Package, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed, name in enumerate(("a.png", "b.jpg")):
        PilImage.fromarray(noise(60, 90, seed=seed)).save(photos / name)
    (photos / "c.png").write_bytes(b"broken")
    done = run(onnx_package.folder, photos, "--out", tmp_path / "out", "--to", "coco,masks,overlays")
    assert done.returncode == 1 and re.fullmatch(r"error: \S+c\.png: the image cannot be read: .*\n", done.stderr)
    mine = json.loads((tmp_path / "out" / "predictions.json").read_bytes())
    (photos / "c.png").unlink()
    d2tune.predict(onnx_package.folder, photos, out=tmp_path / "theirs", to="coco")
    theirs = json.loads((tmp_path / "theirs" / "predictions.json").read_bytes())
    assert mine["categories"] == theirs["categories"]
    assert [(row["file_name"], row["width"], row["height"]) for row in mine["images"]] == [
        ("a.png", 90, 60),
        ("b.jpg", 90, 60),
    ]
    assert len(mine["annotations"]) == len(theirs["annotations"]) > 4
    for one, other in zip(mine["annotations"], theirs["annotations"], strict=True):
        assert [one[key] for key in ("id", "image_id", "category_id", "iscrowd")] == [
            other[key] for key in ("id", "image_id", "category_id", "iscrowd")
        ]
        np.testing.assert_allclose(one["bbox"], other["bbox"], atol=1e-3)
        assert one["score"] == pytest.approx(other["score"], abs=2e-6)
        assert one["area"] == mask_utils.area(one["segmentation"])
        assert (mask_utils.decode(one["segmentation"]) != mask_utils.decode(other["segmentation"])).sum() <= 2
    names = {path.name for path in (tmp_path / "out").iterdir()}
    of_a = [row for row in mine["annotations"] if row["image_id"] == 1]
    masks = {
        f"a_{number}_{('bus', 'road')[row['category_id'] - 1]}.png": row for number, row in enumerate(of_a, start=1)
    }
    assert names >= {"predictions.json", "a.predicted.jpg", "b.predicted.jpg", *masks}
    assert len(names) == 3 + len(mine["annotations"])
    for name, row in masks.items():
        pixels = np.asarray(PilImage.open(tmp_path / "out" / name))
        np.testing.assert_array_equal(pixels, mask_utils.decode(row["segmentation"]).astype(bool))
    with PilImage.open(tmp_path / "out" / "a.predicted.jpg") as drawing:
        assert drawing.size == (90, 60)
    again = run(onnx_package.folder, photos, "--out", tmp_path / "out")
    assert again.returncode == 1 and again.stderr.endswith("out: is not an empty folder; name another one with --out\n")


@pytest.mark.parametrize(("option", "value"), [("--min-score", "1.5"), ("--min-score", "nan"), ("--threads", "-1")])
def test_numbers_out_of_their_ranges(
    option: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["runner.py", "photo.jpg", "--out", str(tmp_path / "out"), option, value])
    assert runner.main() == 1
    assert capsys.readouterr().err.startswith(f"error: {option} {value} is invalid; ")
    assert not (tmp_path / "out").exists()


def test_the_command_with_a_semantic_model(onnx_labels: Package, tmp_path: Path) -> None:
    PilImage.fromarray(noise(60, 90)).save(tmp_path / "a.png")
    done = run(onnx_labels.folder, tmp_path / "a.png", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    labels = np.asarray(PilImage.open(tmp_path / "out" / "a.png"))
    np.testing.assert_array_equal(labels, runner.Model(onnx_labels.folder, threads=1)(tmp_path / "a.png"))
    rows = json.loads((tmp_path / "out" / "categories.json").read_bytes())
    assert rows == [{"label": label, "name": name} for label, name in enumerate(CLASSES)]
    assert (tmp_path / "out" / "a.predicted.jpg").is_file()
    wrong = run(onnx_labels.folder, tmp_path / "a.png", "--out", tmp_path / "other", "--to", "coco")
    assert wrong.stderr == "error: --to coco is invalid; this model gives labels, overlays\n"
    assert not (tmp_path / "other").exists()


def test_sources_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("a.png", "a.jpg"):
        PilImage.fromarray(noise(8, 8)).save(tmp_path / name)
    for sources, message in (
        (["none.jpg"], "none.jpg: does not exist"),
        (["empty"], "empty: has no photos"),
        (["a.png", "a.jpg"], "two photos have the name a, so their outputs would too"),
    ):
        with pytest.raises(runner.RunnerError, match=message):
            runner.photos_of([tmp_path / name for name in sources])


@pytest.mark.extended
def test_package_with_a_runtime(package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder, out = package.folder.parent / "run", tmp_path / "model"
    assert main(["package", str(run_folder), "--runtime", "onnx", "--thresholds", "0.4", "--out", str(out)]) == 0
    assert "largest box difference" in capsys.readouterr().out
    assert runner.Model(out, threads=1).thresholds == [0.4, 0.4]


def test_package_refuses_other_runtimes(package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder, out = package.folder.parent / "run", tmp_path / "model"
    assert main(["package", str(run_folder), "--runtime", "tflite", "--out", str(out)]) == 1
    assert "tflite" in capsys.readouterr().err and not out.exists()


def test_a_package_keeps_its_thresholds(package: Package, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"a package has its thresholds\. Remove --thresholds, or export the run"):
        api.export(package.folder, tmp_path / "out", format="onnx", thresholds=0.4)


@pytest.mark.extended
def test_an_environment_with_three_libraries_gives_the_same(
    onnx_package: Package, onnx_labels: Package, tmp_path: Path
) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    requirements = onnx_package.folder / "requirements.txt"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", requirements], check=True)
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    installed = {row["name"] for row in json.loads(listed.stdout)}
    assert installed >= set(LIBRARIES) and not installed & {"torch", "torchvision", "detectron2", "d2tune"}
    photos = sorted(PHOTOS.glob("*.jpg"))[:4]
    for exported in (onnx_package, onnx_labels):
        folder, out = tmp_path / exported.folder.parent.name / "model", tmp_path / exported.folder.parent.name / "out"
        shutil.copytree(exported.folder, folder)
        done = run(folder, *photos, "--out", out, python=python)
        assert (done.returncode, done.stderr) == (0, "")
        expected = d2tune.load_predictor(exported.folder).batch(photos)
        if exported is onnx_labels:
            for photo, one in zip(photos, expected, strict=True):
                assert (np.asarray(PilImage.open(out / f"{photo.stem}.png")) != one.class_ids).mean() < 1e-3
            continue
        rows = json.loads((out / "predictions.json").read_bytes())["annotations"]
        wanted = [row for number, one in enumerate(expected, start=1) for row in one.to_coco(number)]
        assert len(rows) == len(wanted) > 4
        for mine, theirs in zip(rows, wanted, strict=True):
            assert (mine["image_id"], mine["category_id"]) == (theirs["image_id"], theirs["category_id"])
            np.testing.assert_allclose(mine["bbox"], theirs["bbox"], atol=0.01)
            assert mine["score"] == pytest.approx(theirs["score"], abs=1e-5)
            iou = mask_utils.iou([mine["segmentation"]], [theirs["segmentation"]], [0])[0][0]
            assert iou >= 0.999 or mask_utils.area(theirs["segmentation"]) == 0
