"""Making packages: the same bytes twice, nothing of the machine in them, whole or not at all."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image as PilImage

import d2tune
from d2tune.cli import main
from d2tune.errors import D2TuneError, PackageError, RunError
from d2tune.modeling import checkpoint
from d2tune.modeling.build import build_model
from d2tune.modeling.config import read_config
from d2tune.modeling.ready import random_init_off
from d2tune.packages.card import card_of, quality_line
from d2tune.packages.manifest import Threshold, read_manifest
from d2tune.packages.portable import portable
from d2tune.packages.write import write_package
from tests.packages.builders import evaluate_by_hand, make_run

FILES = ["README.md", "detectron2.yaml", "model.safetensors", "package.json", "project.yaml"]


@pytest.fixture(scope="session")
def instance_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instance")
    return make_run(folder, images=str(folder / "secret-photos"))


@pytest.fixture
def run(instance_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(instance_run, tmp_path / "run"))


def test_two_packages_of_a_run_have_the_same_bytes(run: Path, tmp_path: Path) -> None:
    evaluate_by_hand(run, {"bus": (50, 0.4), "road": (40, 0.7)})
    for name in ("a", "b"):
        write_package(run, tmp_path / name)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == FILES
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in FILES)
    assert all((tmp_path / "a" / name).stat().st_mode & 0o777 == 0o644 for name in FILES)


def test_nothing_of_the_machine_is_in_it(run: Path, tmp_path: Path) -> None:
    write_package(run, tmp_path / "model")
    for path in (tmp_path / "model").iterdir():
        content = path.read_bytes()
        assert str(tmp_path).encode() not in content and str(Path.home()).encode() + b"/" not in content, path
        assert b"secret-data" not in content and b"secret-machine" not in content
    manifest = read_manifest(tmp_path / "model")
    assert manifest.training["pretrained"] == "start.pth" and manifest.input.short_side_px == 64
    assert manifest.input.divisible_by_px == 32 and manifest.input.channel_order == "RGB"
    assert manifest.weights.tensors == len(
        torch.load(run / "checkpoints" / "model_best.pth", weights_only=True)["model"]
    )
    project = d2tune.load_project(tmp_path / "model" / "project.yaml").project
    assert project.data.root == (tmp_path / "model" / "data").resolve()
    assert (project.data.images, Path(project.weights).name) == ("secret-photos", "start.pth")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/data/a.txt", "a.txt"),
        ("C:\\Users\\me\\a.txt", "a.txt"),
        ("//server/share/a.txt", "a.txt"),
        ("/", "."),
        ("train", "train"),
        ("../data", "../data"),
        ("https://me:secret@host.org/a/b.pth?token=1#x", "https://host.org/a/b.pth"),
        ("detectron2://a/b.pkl", "detectron2://a/b.pkl"),
    ],
)
def test_paths_and_addresses_without_the_machine_and_the_person(text: str, expected: str) -> None:
    assert portable({"a": [text, 1], "b": (text,)}) == {"a": [expected, 1], "b": (expected,)}


ROWS = {"bus": (30, 0.1234567), "road": (29, 0.7)}


@pytest.mark.parametrize(
    ("choice", "rows", "expected"),
    [
        (None, ROWS, [(0.123456, "best-f1", 30), (0.5, "default", None)]),
        (None, {"bus": (99, None), "road": (30, 0.7)}, [(0.5, "default", None), (0.7, "best-f1", 30)]),
        (None, None, [(0.5, "default", None), (0.5, "default", None)]),
        ("best-f1", ROWS, [(0.123456, "best-f1", 30), (0.7, "best-f1", 29)]),
        ("0.25", ROWS, [(0.25, "given", None), (0.25, "given", None)]),
        ("1", None, [(1.0, "given", None), (1.0, "given", None)]),
        ("{bus: 0.3}", ROWS, [(0.3, "given", None), (0.5, "default", None)]),
        ('{"bus": 0, "road": 1}', ROWS, [(0.0, "given", None), (1.0, "given", None)]),
    ],
)
def test_thresholds_and_their_origin(
    run: Path,
    tmp_path: Path,
    choice: str | None,
    rows: dict[str, tuple[int, float | None]] | None,
    expected: list[tuple[float, str, int | None]],
) -> None:
    if rows is not None:
        evaluate_by_hand(run, rows)
    if choice is not None and choice.startswith("{"):
        (tmp_path / "t.yaml").write_text(choice, encoding="utf-8")
        choice = str(tmp_path / "t.yaml")
    manifest = write_package(run, tmp_path / "model", thresholds=choice).manifest
    assert [(one.value, one.origin, one.objects) for one in manifest.thresholds.values()] == expected
    assert all((one.why is not None) == (one.origin == "default") for one in manifest.thresholds.values())
    predictor = d2tune.load_predictor(tmp_path / "model")
    assert predictor.min_scores == tuple(value for value, _, _ in expected)
    assert f"2 classes: bus, road, scores from {min(predictor.min_scores):g})" in repr(predictor)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("best-f1", "--thresholds: the weights have no evaluation; found best-f1. Evaluate them first"),
        ("1.1", "--thresholds: must be"),
        ("nan", "--thresholds: must be"),
        ("none.yaml", "none.yaml: --thresholds: there is no such file; expected best-f1, a number"),
        ("[0.4]", "has no thresholds; found [0.4]"),
        ("{buss: 0.4}", "buss: is not a class of the run. Did you mean 'bus'?"),
        ("{bus: high}", "bus: the threshold is invalid; found 'high'; expected from 0 to 1"),
        ("{bus: true}", "bus: the threshold is invalid; found True"),
        ("{bus: 1.5}", "bus: the threshold is invalid; found 1.5"),
        ("{bus: [}", "is not valid YAML"),
    ],
)
def test_thresholds_that_cannot_be_used(run: Path, tmp_path: Path, choice: str, message: str) -> None:
    if choice[0] in "[{":
        (tmp_path / "t.yaml").write_text(choice, encoding="utf-8")
        choice = str(tmp_path / "t.yaml")
    with pytest.raises(D2TuneError) as caught:
        write_package(run, tmp_path / "model", thresholds=choice)
    assert message in str(caught.value) and not (tmp_path / "model").exists()


def test_the_evaluation_is_that_of_the_weights(run: Path, tmp_path: Path) -> None:
    evaluate_by_hand(run, {"bus": (50, 0.4), "road": (40, 0.7)})
    best = run / "checkpoints" / "model_best.pth"
    content = torch.load(best, weights_only=True)
    content["model"]["roi_heads.box_predictor.bbox_pred.bias"] += 1
    torch.save(content, run / "checkpoints" / "model_final.pth")
    assert write_package(run, tmp_path / "best").manifest.metrics is not None
    final = write_package(run, tmp_path / "final", weights="final").manifest
    assert final.metrics is None and final.thresholds["bus"].why == "the weights were not evaluated"
    assert "These weights were not evaluated." in (tmp_path / "final" / "README.md").read_text("utf-8")
    named = write_package(run, tmp_path / "named", weights=str(run / "checkpoints" / "model_final.pth")).manifest
    assert (
        named.weights.source == "model_final.pth"
        and named.files["model.safetensors"] == final.files["model.safetensors"]
    )


def test_weights_of_another_model_are_refused(run: Path, tmp_path: Path) -> None:
    best = run / "checkpoints" / "model_best.pth"
    content = torch.load(best, weights_only=True)
    del content["model"]["roi_heads.box_predictor.bbox_pred.bias"]
    torch.save(content, best)
    with pytest.raises(D2TuneError, match="the checkpoint is that of another model"):
        write_package(run, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_card_says_what_the_files_say(run: Path, tmp_path: Path) -> None:
    evaluate_by_hand(run, {"bus": (50, 0.4), "road": (4, 0.7)})
    write_package(run, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert "| 1 | bus | thing | 0.4 | best F1 on 50 objects: precision 50.0 %, recall 50.0 % | 40 | 40 |" in card
    assert "| 2 | road | thing | 0.5 | default: 4 objects in the evaluation, fewer than 30 | 40 | 40 |" in card
    assert "| AP | 40.0 (30.0 to 55.5) | 40.0 (30.0 to 55.5) |" in card
    assert "30 training images (SHA-256 111111111111) and 9 validation images (222222222222)" in card
    assert "Intervals are up to 26 points wide (mask AP50)" in card
    assert "{{" not in card and "None" not in card


def test_how_good_what_the_package_gives_is(run: Path, tmp_path: Path) -> None:
    """The sentence counts at the score 0.5; what a package gives has the best-F1 threshold of its only class."""
    evaluate_by_hand(run, {"bus": (50, 0.871375)})
    manifest = write_package(run, tmp_path / "model").manifest
    assert quality_line(manifest) == "", "of several classes the table says it"
    assert manifest.metrics is not None
    only = manifest.model_copy(update={"thresholds": {"bus": manifest.thresholds["bus"]}})
    assert quality_line(only) == "With the lowest score of this package, 0.871375: precision 50.0 %, recall 50.0 %."
    assert "With the lowest score" not in card_of(manifest)
    assert f"{manifest.metrics.sentence} {quality_line(only)}" in card_of(only).replace("\\_", "_")
    given = only.model_copy(update={"thresholds": {"bus": Threshold(value=0.3, origin="given")}})
    assert quality_line(given) == "", "the evaluation does not have this score"


def test_names_are_escaped_in_the_card(tmp_path: Path) -> None:
    run = make_run(tmp_path, "semantic", classes=("<img src=x>", "a|b*c*`d`\x1b[31m"))
    write_package(run, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert "<img" not in card and "\x1b" not in card
    assert "| 1 | &lt;img src=x&gt; | thing |" in card
    assert "| 2 | a\\|b\\*c\\*\\`d\\`\\\\x1b\\[31m | thing |" in card


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda out: out.mkdir() or (out / "mine.txt").write_text("x"),
            "the folder is not empty, and is not a package",
        ),
        (lambda out: out.write_text("x"), "a file is already there and is not replaced"),
        (lambda out: out.symlink_to(out.parent), "a link is already there and is not replaced"),
    ],
)
def test_what_is_not_a_package_is_not_replaced(
    run: Path, tmp_path: Path, prepare: Callable[[Path], object], message: str
) -> None:
    prepare(tmp_path / "model")
    with pytest.raises(PackageError, match=message):
        write_package(run, tmp_path / "model", force=True)


def test_only_an_unchanged_package_is_replaced_and_only_with_force(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()  # an empty folder is taken
    write_package(run, out, thresholds="0.1")
    with pytest.raises(PackageError, match=r"is already there and is not replaced.*--force"):
        write_package(run, out)
    write_package(run, out, thresholds="0.2", force=True)
    assert read_manifest(out).thresholds["bus"].value == 0.2
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(PackageError, match=r"notes\.txt: the folder has a file that is not the package's"):
        write_package(run, out, force=True)
    (out / "notes.txt").unlink()
    (out / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(PackageError, match=r"README\.md: the file was changed after it was written"):
        write_package(run, out, force=True)
    assert (out / "README.md").read_text("utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "run"]


def test_what_cannot_be_written_leaves_nothing(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(PackageError, match="file: the folder of the package is a file"):
        write_package(run, tmp_path / "file" / "model")
    with pytest.raises(PackageError, match="the package cannot be written: File name too long"):
        write_package(run, tmp_path / ("m" * 300))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run"]


def test_weights_that_do_not_fit_on_the_disk_are_one_line(run: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(PackageError, match=r"model: the weights cannot be written: .*File too large"):
            write_package(run, tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("inside", [".", "predictions", "a/b"])
def test_results_are_not_written_into_a_package(run: Path, tmp_path: Path, inside: str) -> None:
    package = tmp_path / "model"
    write_package(run, package)
    before = sorted(package.rglob("*"))
    photo = tmp_path / "photo.png"
    PilImage.new("RGB", (64, 48)).save(photo)
    for call in (
        lambda: d2tune.predict(package, photo, out=package / inside),
        lambda: d2tune.predict_video(package, "0", out=package / inside),
        lambda: d2tune.evaluate(package, out=package / inside),
    ):
        with pytest.raises(RunError, match="is in the model, which stays as it is"):
            call()
    assert sorted(package.rglob("*")) == before


def test_a_package_is_not_packaged_again(run: Path, tmp_path: Path) -> None:
    write_package(run, tmp_path / "model")
    with pytest.raises(PackageError, match="is a package already"):
        write_package(tmp_path / "model", tmp_path / "again")


def test_info_says_what_a_model_is(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_by_hand(run, {"bus": (50, 0.4), "road": (4, 0.7)})
    assert main(["info", str(run)]) == 0
    of_run = capsys.readouterr().out
    write_package(run, tmp_path / "model")
    assert main(["info", str(tmp_path / "model")]) == 0
    of_package = capsys.readouterr().out
    for printed in (of_run, of_package):
        assert "instance, pointrend_mobilenet_v2_fpn" in printed and "1 bus, 2 road" in printed
        assert "the model detects 2 of 54 objects with 4 false alarms at score 0.5 (mask AP 40.0" in printed
    assert "bus 0.4 (best F1 on 50 objects: precision 50.0 %, recall 50.0 %)" in of_package
    assert "all unchanged" in of_package
    assert "computes:       in float32 on a processor as it was trained on" in of_package
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    assert main(["info", str(tmp_path / "model")]) == 1
    assert "model.safetensors: the file was changed" in capsys.readouterr().err


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_by_hand(run, {"bus": (50, 0.4), "road": (4, 0.7)})
    out = str(tmp_path / "model")
    assert main(["package", str(run), "--out", out]) == 0
    printed = capsys.readouterr().out
    assert "lowest scores: bus 0.4 (best F1 on 50 objects: precision 50.0 %, recall 50.0 %); road 0.5 (" in printed
    assert "(default: 4 objects in the evaluation, fewer than 30)" in printed
    assert main(["package", str(run), "--out", out]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["package", str(run), "--out", out, "--force", "--thresholds", "0.75"]) == 0
    assert json.loads((tmp_path / "model" / "package.json").read_text("utf-8"))["thresholds"]["road"]["value"] == 0.75


def test_a_model_built_without_random_numbers_is_the_same_once_it_has_its_weights(run: Path) -> None:
    cfg, file = read_config(run / "detectron2.yaml"), run / "checkpoints" / "model_best.pth"
    before = torch.nn.init.kaiming_normal_
    usual = build_model(cfg)[0]
    with random_init_off():
        quick = build_model(cfg)[0]
    assert torch.nn.init.kaiming_normal_ is before
    for model in (usual, quick):
        checkpoint.load_weights(model, file)
    for mine, theirs in (
        (quick.state_dict(), usual.state_dict()),
        *[(dict(quick.named_buffers()), dict(usual.named_buffers()))],
    ):
        assert list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert [value.requires_grad for value in quick.parameters()] == [
        value.requires_grad for value in usual.parameters()
    ]
