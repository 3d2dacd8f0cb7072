"""Packages: the same predictions as of the run, and a line for everything that is not as it was written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

import d2tune
from d2tune.errors import DataError, PackageError, ProjectError, RunError
from d2tune.packages.manifest import FORMAT, Manifest
from d2tune.packages.write import write_package
from d2tune.runs.load import describe, load_model
from tests.packages.builders import MODELS, make_run, rewrite

FILES = ("package.json", "project.yaml", "detectron2.yaml", "model.safetensors", "README.md")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package, which tests copy before they change it."""
    folder = tmp_path_factory.mktemp("package")
    write_package(make_run(folder, "semantic"), folder / "model")
    return folder / "model"


@pytest.fixture
def package(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def refused(package: Path) -> str:
    with pytest.raises(PackageError) as caught:
        load_model(package)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    return line


def photos() -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(5)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((60, 90), (97, 64))]


@pytest.mark.parametrize("task", MODELS)
def test_predictions_are_those_of_the_run(task: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, task)
    write_package(run, tmp_path / "model")
    model = tmp_path / "elsewhere" / "copy"
    shutil.copytree(tmp_path / "model", model)
    shutil.rmtree(tmp_path / "model")
    for path in (*model.iterdir(), model):
        path.chmod(0o555 if path.is_dir() else 0o444)
    mine, theirs = load_model(model).model, load_model(run).model
    state, copied = mine.state_dict(), theirs.state_dict()
    assert list(state) == list(copied) and all(torch.equal(state[name], copied[name]) for name in state)
    if task == "semantic":  # the classes of random weights are the same everywhere, their scores are not
        sample = {"image": torch.as_tensor(photos()[0]).permute(2, 0, 1).float(), "height": 60, "width": 90}
        with torch.no_grad():
            scores, expected = (one([sample])[0]["sem_seg"] for one in (mine, theirs))
        assert torch.equal(scores, expected) and scores.std() > 0.001
    options = {"min_score": 0} if task == "instance" else {}
    theirs, mine = (d2tune.load_predictor(path, **options).batch(photos()) for path in (run, model))  # type: ignore[arg-type]
    for one, other in zip(theirs, mine, strict=True):
        if task == "instance":
            assert len(one) == 8 and one.rles == other.rles and len(set(one.scores.tolist())) > 4
            assert np.array_equal(one.boxes_xyxy, other.boxes_xyxy) and np.array_equal(one.scores, other.scores)
        elif task == "semantic":
            assert np.array_equal(one.class_ids, other.class_ids)
        else:
            assert np.array_equal(one.segment_ids, other.segment_ids) and one.segments == other.segments
            assert len(one.segments) > 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.37, 0.999])
def test_a_changed_byte_is_detected(package: Path, name: str, share: float) -> None:
    path = package / name
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 0x01
    path.write_bytes(content)
    assert str(path) in refused(package)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_truncated_file_is_detected(package: Path, name: str, kept: float) -> None:
    path = package / name
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    line = refused(package)
    assert str(path) in line and ("was changed" in line or "is not valid JSON" in line)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_missing_file_is_named(package: Path, name: str) -> None:
    (package / name).unlink()
    assert f"{package / name}: a file of the package is missing" in refused(package)
    (package / name).mkdir()
    assert f"{package / name}: a file of the package is a folder" in refused(package)


def test_the_rights_and_the_content_of_other_files_do_not_matter(package: Path, tmp_path: Path) -> None:
    (package / "notes.txt").write_text("mine", encoding="utf-8")
    (package / "data").mkdir()
    (tmp_path / "link").symlink_to(package, target_is_directory=True)
    (tmp_path / "store").mkdir()
    linked = tmp_path / "linked"  # as caches of downloads have it: each file a link to a blob
    linked.mkdir()
    for name in FILES:
        shutil.copy(package / name, tmp_path / "store" / name)
        (linked / name).symlink_to(tmp_path / "store" / name)
    for path in (tmp_path / "link", linked):
        assert load_model(path).class_names == ("bus", "road")


def test_a_later_format_says_which_version_it_needs(package: Path) -> None:
    rewrite(package, {"d2tune_package": FORMAT + 1, "d2tune": "9.8.7", "novelty": True})
    line = refused(package)
    assert "written by d2tune 9.8.7" in line
    assert f"needs format {FORMAT + 1}; this d2tune reads up to {FORMAT}" in line


@pytest.mark.parametrize("key", [key for key in Manifest.model_fields if key not in ("export", "sha256")])
def test_a_missing_entry_is_named(package: Path, key: str) -> None:
    rewrite(package, {}, remove=key)
    line = refused(package)
    assert key in line and ("the entry is missing" in line or "is not the description of a package" in line)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": []}, "classes: the entry"),
        ({"classes": [1]}, "classes.0: the entry should be a valid string"),
        ({"task": "pose"}, "task: the entry should be 'instance', 'semantic', 'panoptic' or 'tracking'"),
        ({"thing_ids": [3]}, "thing_ids: is not a class of the package; found 3"),
        ({"thresholds": {"tram": {"value": 0.5, "origin": "given"}}}, "thresholds: is not a class of the package"),
        ({"thresholds": {"bus": {"value": 1.5, "origin": "given"}}}, "thresholds.bus.value: the entry should be less"),
        ({"novelty": 1}, "novelty: the entry Extra inputs are not permitted"),
        ({"d2tune_package": 0}, "d2tune_package: the entry should be greater than or equal to 1"),
        ({"inference": {"device": "cpu", "precision": "float8"}}, "inference.precision: the entry should be"),
    ],
)
def test_an_invalid_entry_is_named(package: Path, change: dict[str, Any], message: str) -> None:
    rewrite(package, change)
    assert message in refused(package)


def test_files_outside_of_the_package_are_not_read(package: Path) -> None:
    content = json.loads((package / "package.json").read_text("utf-8"))
    for name in ("../model.safetensors", "/etc/passwd", "a/b"):
        rewrite(package, {"weights": content["weights"] | {"file": name}})
        assert "weights.file: the entry String should match pattern" in refused(package)


def test_a_list_and_an_object_of_another_kind_are_not_packages(package: Path) -> None:
    for text in ("[]", '{"name": "npm"}'):
        (package / "package.json").write_text(text, encoding="utf-8")
        assert "is not the description of a package" in refused(package)


def test_a_folder_of_neither_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run folder or a package; expected .*record\.json.*package\.json"):
        load_model(tmp_path)


BIAS = "sem_seg_head.predictor.bias"


def _without(state: dict[str, torch.Tensor]) -> None:
    del state[BIAS]


def _with_more(state: dict[str, torch.Tensor]) -> None:
    state["backbone.novelty"] = torch.zeros(2)


def _shorter(state: dict[str, torch.Tensor]) -> None:
    state[BIAS] = state[BIAS][:1].clone()


def _half(state: dict[str, torch.Tensor]) -> None:
    state[BIAS] = state[BIAS].half()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without, f"{BIAS}: the weights lack a tensor of the model"),
        (_with_more, "backbone.novelty: the weights have a tensor that the model lacks"),
        (_shorter, "the tensor is not that of the model; found float32 (1,); expected float32 (2,)"),
        (_half, "the tensor is not that of the model; found float16 (2,); expected float32 (2,)"),
    ],
)
def test_tensors_of_another_model_are_refused(package: Path, change: Any, message: str) -> None:
    state = load_file(package / "model.safetensors")
    change(state)
    save_file(state, package / "model.safetensors")
    rewrite(package, {})
    assert message in refused(package)


def test_weights_that_are_not_safetensors_are_refused(package: Path) -> None:
    torch.save({}, package / "model.safetensors")
    rewrite(package, {})
    assert "the weights cannot be read" in refused(package)


def test_options_that_a_package_does_not_have(package: Path) -> None:
    with pytest.raises(PackageError, match=r"a package has one file of weights; found --weights final\. Remove"):
        load_model(package, weights="final")
    with pytest.raises(ProjectError, match="predictions of a semantic model have no scores"):
        d2tune.load_predictor(package, min_score=0.5)


def test_without_data_nothing_is_evaluated_or_predicted(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for call in (d2tune.evaluate, d2tune.predict):
        with pytest.raises(DataError, match="a package does not have the data of its project"):
            call(package)
    assert sorted(path.name for path in package.iterdir()) == sorted(FILES)


def test_the_description_needs_no_weights(package: Path) -> None:
    (package / "model.safetensors").unlink()
    described = describe(package)
    assert described.class_names == ("bus", "road") and described.record["data"]["val_sha256"] == "2" * 64
    assert described.project.data.root == package.resolve() / "data"


PROCESS = """
import sys
import torch

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise SystemExit(f"{arguments} is unpickled")

def load(*arguments, **options):
    raise SystemExit("torch.load is called")

torch.load = load
sys.addaudithook(refuse)
import d2tune
result = d2tune.load_predictor(sys.argv[1])(sys.argv[2])
print(result.class_ids.shape)
"""

LIGHT = """
import sys
import d2tune
d2tune.load_predictor(sys.argv[1])(sys.argv[2])
heavy = {"torch._dynamo", "sympy", "matplotlib", "tensorboard", "wandb", "timm", "segmentation_models_pytorch",
         "scipy", "pandas", "detectron2.engine", "detectron2.solver", "detectron2.evaluation"}
print(sorted(heavy & set(sys.modules)))
import gc, torch
print(gc.isenabled(), gc.get_freeze_count())
from torchvision.ops import roi_align
pixels, boxes = torch.arange(64.0).reshape(1, 1, 8, 8), [torch.tensor([[1.0, 1.0, 5.0, 5.0]])]
values = roi_align(pixels, boxes, 2, aligned=True)
torch.use_deterministic_algorithms(True)
print(torch.equal(values, roi_align(pixels, boxes, 2, aligned=True)))
import torch._dynamo
print(torch._dynamo.utils.__file__ is not None, hasattr(torch._dynamo, "optimize"))
"""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    from PIL import Image as PilImage

    path = tmp_path / "a.png"
    PilImage.fromarray(photos()[0]).save(path)
    return path


def output(code: str, package: Path, photo: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code, package, photo], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_nothing_is_unpickled(package: Path, photo: Path) -> None:
    assert output(PROCESS, package, photo) == ["(60, 90)"]


@pytest.mark.slow
def test_a_fresh_process_imports_no_more_than_it_needs(package: Path, photo: Path) -> None:
    """Nor does it leave torch's compiler or the collection of garbage as they were not."""
    assert output(LIGHT, package, photo) == ["[]", "True 0", "True", "True True"]


COMMAND = """
import sys
from d2tune.cli import main
status = main(["predict", sys.argv[1], sys.argv[2], "--out", sys.argv[1] + "_out"])
print(status, sorted({"torch._dynamo", "sympy"} & set(sys.modules)))
"""


@pytest.mark.slow
def test_the_command_imports_no_compiler_before_it_predicts(package: Path, photo: Path) -> None:
    assert output(COMMAND, package, photo)[-1] == "0 []"
