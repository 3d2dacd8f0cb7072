"""The whole way through the real command line: sample, convert, train, stop, resume, evaluate, predict."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.engine import HookBase
from PIL import Image as PilImage
from pycocotools.coco import COCO

from d2tune.errors import RunError
from tests.labelme_app import open_in_labelme
from tests.system.commands import TRAIN_NET, d2tune, d2tune_here, refused, succeeded, train_net

pytestmark = pytest.mark.slow

PROJECT = """\
name: journey
data: {root: data}
classes: [balloon]
model: {preset: pointrend_r50_fpn}
weights: scratch
train: {batch_size: 2, iterations: 9, image_size: 96, eval_every: 3, precision: float32}
detectron2: {TEST.DETECTIONS_PER_IMAGE: 5}
profiles:
  cpu: {model: {preset: pointrend_mobilenet_v2_fpn}}
"""

SEMANTIC = """\
task: semantic
data: {root: membrane, format: label_images, val: 0.25,
  label_images: {images: image, labels: label, values: {0: membrane, 255: cell}}}
classes: [membrane, cell]
model: {preset: unet_2015, class_weights: balanced, loss: {cross_entropy: 1, dice: 1}}
weights: scratch
train: {batch_size: 4, iterations: 60, image_size: original, patch_size: 64, augment: overhead, eval_every: 20,
  precision: float32}
detectron2: {MODEL.BRIDGE.WIDTH: 4}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("journey")
    (folder / "journey.yaml").write_text(PROJECT, encoding="utf-8")
    succeeded(d2tune_here("sample", "balloon", "--out", "data", "--images", 12, "--seed", 1, folder=folder))
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """A finished run, made by the door that Detectron2 users know."""
    words = ["--config-file", "journey.yaml", "--output-dir", "run", "train.seed=5", "SOLVER.BASE_LR", "0.0002"]
    out = succeeded(train_net(*words, folder=folder))
    (folder / "train.out").write_text(out, encoding="utf-8")
    return folder / "run"


def test_decisions_are_printed_before_training(folder: Path, trained: Path) -> None:
    out = (folder / "train.out").read_text(encoding="utf-8")
    before = out[: out.index("loss")]
    for expected in (
        "profile cpu",
        "training images with",
        "pointrend_mobilenet_v2_fpn on torchvision/mobilenet_v2",
        "from scratch, as asked",
        "float32",
        "9 iterations of 2 images",
        "learning rate 0.0002",
        "estimate",
        "GiB of memory",
        "output       run",
    ):
        assert expected in before, expected
    assert out.rstrip().splitlines()[-1].startswith("On ")
    assert out.count("iterations: box AP") == 3


def test_the_run_folder_says_everything(folder: Path, trained: Path) -> None:
    record = json.loads((trained / "record.json").read_text(encoding="utf-8"))
    assert record["seed"] == 5 and record["classes"] == ["balloon"]
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["weights"]["from_scratch"] is True and record["durations"]["training_s"] > 0
    resolved = yaml.safe_load((trained / "project.yaml").read_text(encoding="utf-8"))
    assert resolved["detectron2"]["SOLVER.BASE_LR"] == 0.0002
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[-1]["iteration"] == 8 and any("val/segm/AP" in line for line in lines)
    assert list((trained / "tensorboard").iterdir())
    sheet = PilImage.open(trained / "contact_sheet.png")
    assert sheet.width >= 2000 and len(sheet.getcolors(1 << 24) or []) > 1000
    predictions = json.loads((trained / "predictions.json").read_text(encoding="utf-8"))
    evaluation = json.loads((trained / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["data_sha256"] == record["data"]["val_sha256"]
    assert evaluation["weights_sha256"] == record["best"]["sha256"]
    assert {row["image_id"] for row in predictions} <= set(range(1, record["data"]["val_images"] + 1))


def test_converted_data_are_coco(folder: Path) -> None:
    succeeded(d2tune_here("convert", "journey.yaml", folder=folder))
    for split in ("train", "val"):
        coco = COCO(folder / "data" / "coco" / f"{split}.json")
        assert min(coco.getAnnIds()) == 1 and coco.loadCats(1)[0]["name"] == "balloon"
        for image in coco.dataset["images"]:
            assert (folder / "data" / split / image["file_name"]).is_file()


def test_evaluating_again_gives_the_same_scores(folder: Path, trained: Path) -> None:
    out = succeeded(
        d2tune_here("train", "--config", "journey.yaml", "--eval-only", "--output-dir", "run", folder=folder)
    )
    assert "balloon" in out and "On " in out.splitlines()[-1]
    first = json.loads((trained / "evaluation.json").read_text(encoding="utf-8"))
    again = json.loads((trained / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    assert again["data_sha256"] == first["data_sha256"] and again["weights_sha256"] == first["weights_sha256"]
    for kind in ("bbox", "segm"):
        for name, metric in first["metrics"][kind].items():
            assert again["metrics"][kind][name]["value"] == pytest.approx(metric["value"], abs=0.05)


def test_predicting_on_a_folder(folder: Path, trained: Path) -> None:
    (folder / "photos" / "deep").mkdir(parents=True, exist_ok=True)
    source = next((folder / "data" / "val").glob("*.jpg"))
    (folder / "photos" / "deep" / "a.jpg").write_bytes(source.read_bytes())
    (folder / "photos" / "broken.png").write_bytes(b"no image")
    done = d2tune("predict", "run", "photos", "--out", "found", "--min-score", 0.01, folder=folder)
    assert "1 image: found" in succeeded(done)
    assert "broken.png" in done.stderr
    coco = COCO(folder / "found" / "predictions.json")
    (image,) = coco.dataset["images"]
    assert image["file_name"] == "deep/a.jpg"
    for annotation in coco.dataset["annotations"]:
        assert coco.annToMask(annotation).sum() == annotation["area"]
    with PilImage.open(folder / "found" / "deep" / "a.jpg.predicted.jpg") as overlay:
        assert overlay.size == (image["width"], image["height"])


def test_detectron2_loads_the_weights(trained: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer

    from d2tune.modeling.from_run import load_run

    run = load_run(trained)
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    with torch.no_grad():
        for value in run.model.parameters():
            value.zero_()
    DetectionCheckpointer(run.model).load(str(trained / "checkpoints" / "model_best.pth"))
    assert all(torch.equal(value, before[key]) for key, value in run.model.state_dict().items())


def stopped_and_resumed(words: list[str], *, at: str, iterations: int, folder: Path) -> Path:
    """A run that Ctrl-C ended behind a line of progress, and that --resume brought to its end."""
    words = [*words, "--output-dir", "stopped"]
    command = [sys.executable, str(TRAIN_NET), *words]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().startswith(at):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
        assert process.wait(timeout=300) == 130
    assert "--resume goes on from there" in rest
    completed = torch.load(folder / "stopped" / "checkpoints" / "last.pth", weights_only=True)["trainer"]["iteration"]
    assert int(at.split("/")[0]) <= completed < iterations
    out = succeeded(d2tune_here("train", *words, "--resume", folder=folder))
    assert f"after {completed} iterations" in out
    again = d2tune_here("train", *words, "--resume", folder=folder)
    assert again.returncode == 1 and f"the run is complete with {iterations} iterations" in again.stderr
    return folder / "stopped"


def assert_same_weights(run: Path, other: Path) -> None:
    whole, resumed = (
        torch.load(folder / "checkpoints" / "model_final.pth", weights_only=True)["model"] for folder in (run, other)
    )
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(folder: Path, trained: Path) -> None:
    """Ctrl-C, then --resume, ends in the very weights of the run that was never stopped."""
    words = ["--config", "journey.yaml", "train.seed=5", "SOLVER.BASE_LR=0.0002"]
    assert_same_weights(trained, stopped_and_resumed(words, at="3/9", iterations=9, folder=folder))


class FullDisk(HookBase):
    """Fails in the fifth iteration."""

    def after_step(self) -> None:
        if self.trainer.iter == 4:
            raise OSError(28, "No space left on device", "some/file")


def test_a_run_that_failed_goes_on_to_the_same_weights(folder: Path, trained: Path) -> None:
    import d2tune as package

    overrides = ["train.seed=5", "SOLVER.BASE_LR=0.0002"]
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        package.train(folder / "journey.yaml", output_dir=folder / "failed", overrides=overrides, hooks=[FullDisk()])
    words = ["train", "--config", "journey.yaml", *overrides, "--output-dir", "failed", "--resume"]
    succeeded(d2tune_here(*words, folder=folder))
    assert_same_weights(trained, folder / "failed")


@pytest.mark.extended
def test_a_semantic_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "maps.yaml").write_text(SEMANTIC, encoding="utf-8")
    succeeded(d2tune_here("sample", "membrane", "--out", "membrane", "--images", 4, folder=tmp_path))
    words = ["--config", "maps.yaml"]
    out = succeeded(train_net(*words, "--output-dir", "run", folder=tmp_path))
    assert out.count("iterations: mIoU") == 3 and "mask" not in out
    other = stopped_and_resumed(words, at="7/60", iterations=60, folder=tmp_path)
    assert_same_weights(tmp_path / "run", other)
    scores = [json.loads((run / "evaluation.json").read_text("utf-8"))["metrics"] for run in (tmp_path / "run", other)]
    assert scores[0] == scores[1]


@pytest.mark.extended
def test_from_python(folder: Path, trained: Path) -> None:
    import d2tune as package

    loaded = package.load_project(folder / "journey.yaml", overrides=["train.iterations=3", "train.eval_every=0"])
    result = package.train(loaded, output_dir=folder / "python")
    assert result.best_iteration == 3 and result.run == folder / "python"
    evaluated = package.evaluate(result.run)
    assert evaluated.metrics.images == result.metrics.images
    (train_split, val_split) = package.convert(folder / "journey.yaml", out=folder / "coco2")
    assert len(train_split.dataset.images) == result_images(trained, "train_images")
    assert len(val_split.dataset.images) == result_images(trained, "val_images")


def result_images(run: Path, key: str) -> int:
    return int(json.loads((run / "record.json").read_text(encoding="utf-8"))["data"][key])


def test_eval_only_takes_a_checkpoint_named_as_detectron2_users_do(folder: Path, trained: Path) -> None:
    words = ["train", "--config", "journey.yaml", "--eval-only", "--output-dir", "run"]
    succeeded(d2tune_here(*words, "MODEL.WEIGHTS", "run/checkpoints/model_final.pth", folder=folder))
    place = trained / "evaluation_model_final" / "evaluation.json"
    evaluation = json.loads(place.read_text(encoding="utf-8"))
    final = trained / "checkpoints" / "model_final.pth"
    assert evaluation["weights_sha256"] == hashlib.sha256(final.read_bytes()).hexdigest()
    refused(d2tune_here(*words, "train.batch_size=2", folder=folder))
    refused(d2tune_here(*words, "weights=none.pth", folder=folder))
    assert "--resume has no effect with --eval-only" in refused(d2tune_here(*words, "--resume", folder=folder))


def test_resuming_with_other_settings_is_refused(folder: Path, trained: Path) -> None:
    words = [
        "train",
        "--config",
        "journey.yaml",
        "--output-dir",
        "run",
        "--resume",
        "train.seed=5",
        "train.iterations=12",
    ]
    line = refused(d2tune_here(*words, "SOLVER.BASE_LR=0.1", folder=folder))
    assert "SOLVER.BASE_LR changed since this run began; found 0.1; expected 0.0002" in line


@pytest.mark.extended
def test_two_runs_in_one_process_are_the_same(folder: Path) -> None:
    import d2tune as package

    loaded = package.load_project(folder / "journey.yaml", overrides=["train.iterations=2", "train.eval_every=0"])
    weights = [
        torch.load(package.train(loaded, output_dir=folder / name).run / "checkpoints/model_final.pth")["model"]
        for name in ("one", "two")
    ]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_predicting_without_a_source_takes_the_validation_images(folder: Path, trained: Path) -> None:
    succeeded(d2tune_here("predict", "run", "--out", "found_val", folder=folder))
    images = json.loads((folder / "found_val" / "predictions.json").read_text(encoding="utf-8"))["images"]
    assert {image["file_name"] for image in images} == {path.name for path in (folder / "data" / "val").glob("*.jpg")}


def test_predictions_go_back_into_labelme(folder: Path, trained: Path, tmp_path: Path) -> None:
    """Pre-labelling: a human's file stays, all others are written, Labelme opens them, and training can tell them."""
    photos = folder / "unlabeled"
    photos.mkdir(exist_ok=True)
    for source in sorted((folder / "data" / "val").glob("*.jpg"))[:2]:
        (photos / source.name).write_bytes(source.read_bytes())
    first, second = sorted(photos.glob("*.jpg"))
    first.with_suffix(".json").write_text("drawn by hand", "utf-8")
    words = ["predict", "run", "unlabeled", "--to", "labelme", "--out", "unlabeled", "--min-score", 0.01]
    done = d2tune_here(*words, folder=folder)
    assert " instances on 1 image: unlabeled" in succeeded(done)
    assert f"{first.name}: {first.stem}.json already exists" in done.stderr
    assert first.with_suffix(".json").read_text("utf-8") == "drawn by hand"
    assert sorted(path.suffix for path in photos.glob("[!.]*")) == [".jpg", ".jpg", ".json", ".json"]
    file = second.with_suffix(".json")
    value = json.loads(file.read_text("utf-8"))
    assert value["imagePath"] == second.name and value["shapes"]
    assert all(shape["flags"] == {"prediction": True} and 0 < shape["score"] <= 1 for shape in value["shapes"])
    line = refused(d2tune_here(*words, folder=folder))
    assert "all 2 images already have a Labelme file" in line and "--force" in line
    first.with_suffix(".json").unlink()
    (seen,) = open_in_labelme([file], tmp_path)
    assert seen["errors"] == [] and len(seen["shapes"]) == len(value["shapes"])
    succeeded(d2tune_here("convert", "unlabeled", "--out", "pre.json", folder=folder))
    succeeded(d2tune_here("convert", "unlabeled", "--out", "none.json", "--no-predictions", folder=folder))
    assert COCO(folder / "pre.json").dataset["annotations"]
    assert not json.loads((folder / "none.json").read_text("utf-8"))["annotations"]


def test_runs_are_compared_on_what_they_found_and_stale_results_are_refused(folder: Path, trained: Path) -> None:
    import d2tune as package

    overrides = ["train.seed=6", "train.iterations=4", "train.eval_every=0"]
    other = package.train(folder / "journey.yaml", output_dir=folder / "other", overrides=overrides).run
    out = succeeded(d2tune_here("compare", "run", "other", "--out", "compared", folder=folder))
    images = result_images(trained, "val_images")
    assert f"A is run, B is other; {images} images" in out and "mask AP: " in out.splitlines()[-1]
    metrics = json.loads((folder / "compared" / "comparison.json").read_text(encoding="utf-8"))["figures"]
    evaluation = json.loads((trained / "evaluation.json").read_text(encoding="utf-8"))
    assert metrics["segm AP"]["value_a"] == pytest.approx(evaluation["metrics"]["segm"]["AP"]["value"])
    assert set(evaluation["metrics"]) == {"bbox", "segm", "boundary"} and (trained / "plots" / "sizes.png").is_file()
    assert evaluation["times"]["forward_s"] > 0 and evaluation["times"]["score_s"] > 0
    predictions = other / "predictions.json"
    predictions.write_text(predictions.read_text("utf-8").replace("]", "] ", 1), "utf-8")
    with pytest.raises(RunError, match="the predictions changed after the evaluation"):
        package.compare(trained, other)
    (other / "evaluation.json").write_text('{"schema": 1}', "utf-8")
    with pytest.raises(RunError, match="written by an earlier version"):
        package.compare(trained, other)
    package.evaluate(other)
    assert package.compare(trained, other).verdict == out.splitlines()[-1].removesuffix(".")
    shutil.move(other, folder / "moved")
    assert package.compare(trained, folder / "moved" / "evaluation").verdict == out.splitlines()[-1].removesuffix(".")
    (folder / "moved" / "checkpoints" / "model_best.pth").unlink()
    with pytest.raises(RunError, match="the weights of this evaluation are missing"):
        package.compare(trained, folder / "moved")
