"""Semantic and panoptic projects are trained, evaluated and used as instance projects are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from huggingface_hub import ModelCard
from PIL import Image as PilImage

import d2tune
from d2tune.data.splits import load_splits
from d2tune.engine.plan import make_plan
from d2tune.errors import D2TuneError, DataError, ProjectError
from d2tune.project import load_project
from d2tune.samples import render_sample
from tests.cases import on_demand

LABELS = """\
task: semantic
data: {{root: {root}, format: label_images}}
classes: [low, high]
model: {{preset: unet_2015, class_weights: balanced, loss: {{cross_entropy: 1, dice: 0.5}}}}
weights: scratch
train: {{iterations: {iterations}, batch_size: 4, image_size: original, patch_size: 32, augment: overhead,
  learning_rate: 0.003, precision: float32, eval_every: 0}}
detectron2: {{MODEL.BRIDGE.WIDTH: 4}}
"""


def write_raster(folder: Path, name: str, channels: int, seed: int, *, stacked: bool = False) -> None:
    """An image of noise whose first channel is 3 higher where the label is 1; a corner has no data, one no label."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((48, 56), np.uint8)
    top, left = draw.integers(4, 20, size=2)
    labels[top : top + 20, left : left + 24] = 1
    pixels = draw.normal(size=(48, 56, channels)).astype(np.float32)
    pixels[:, :, 0] += 3 * labels
    pixels[-6:, -6:] = np.nan
    labels[:5, :5] = 255
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    PilImage.fromarray(labels).save(folder / "labels" / f"{name}.png")
    if not stacked:
        np.save(folder / "images" / f"{name}.npy", pixels)
        return
    (folder / "images" / name).mkdir()
    for month in range(channels):
        tifffile.imwrite(folder / "images" / name / f"month_{month + 1}.tif", pixels[:, :, month])


def raster_project(tmp_path: Path, *, channels: int = 5, iterations: int = 40, stacked: bool = False) -> Path:
    for number, split in enumerate(("train", "train", "train", "val")):
        write_raster(tmp_path / "data" / split, f"scene_{number}", channels, number, stacked=stacked)
    path = tmp_path / "rasters.yaml"
    path.write_text(LABELS.format(root=tmp_path / "data", iterations=iterations))
    return path


def street_project(tmp_path: Path) -> tuple[Path, Path]:
    """A panoptic project of five rendered streets that trains in seconds, and its data folder."""
    root = render_sample("street", tmp_path / "street", images=5, seed=0).folder
    project = tmp_path / "street.yaml"
    project.write_text(
        f"task: panoptic\ndata: {{root: {root}}}\nthings: [car, person]\nstuff: [road, sky, building, vegetation]\n"
        "model: {preset: panoptic_fpn_mobilenet_v2}\nweights: scratch\n"
        "train: {iterations: 3, batch_size: 2, image_size: 96, eval_every: 0, precision: float32}\n"
    )
    return project, root


@pytest.mark.slow
def test_instances_are_trained_on_squares_and_predicted_in_windows(tiny_project: Path, tmp_path: Path) -> None:
    words = ["train.image_size=original", "train.patch_size=96", "train.iterations=2", "train.eval_every=0"]
    result = d2tune.train(tiny_project, output_dir=tmp_path / "run", overrides=words, num_gpus=0, sample=False)
    predictor = d2tune.load_predictor(result.run)
    assert not predictor.takes_whole_images


@pytest.mark.extended
def test_objects_and_regions_are_trained_on_squares_and_predicted_in_windows(tmp_path: Path) -> None:
    project, root = street_project(tmp_path)
    words = ["train.image_size=original", "train.patch_size=96", "train.iterations=2", "TEST.WINDOW_PX=300"]
    result = d2tune.train(project, output_dir=tmp_path / "run", overrides=words)
    assert result.metrics.task == "panoptic" and result.metrics.main.value is not None
    (row, *_) = json.loads((result.run / "predicted_segments/panoptic.json").read_text(encoding="utf-8"))["annotations"]
    d2tune.package(result.run, tmp_path / "package")
    predictor = d2tune.load_predictor(tmp_path / "package")
    (photo,) = (path for path in (root / "val").glob(f"{Path(row['file_name']).stem}.*") if path.suffix != ".json")
    given = predictor(photo)
    assert not predictor.takes_whole_images and given.segment_ids.shape == (256, 384)
    assert given.to_segments_info() == row["segments_info"]


def evaluation_of(folder: Path) -> dict[str, Any]:
    evaluation: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return evaluation


@pytest.mark.slow
def test_rasters_of_five_channels_from_labels_to_predictions(tmp_path: Path) -> None:
    project = raster_project(tmp_path)
    result = d2tune.train(project, output_dir=tmp_path / "run")
    assert result.metrics.task == "semantic" and result.metrics.main.value > 80, result.sentence
    card = ModelCard.load(result.run / "MODEL_CARD.md")
    miou = next(one for one in card.data.eval_results if one.metric_type == "semantic_miou")
    assert miou.metric_value == pytest.approx(result.metrics.main.value, abs=0.01)
    assert 'predictor("image.tif")  # or an array (H, W, 5)' in card.text and "trained from scratch" in card.text
    record = json.loads((result.run / "record.json").read_text(encoding="utf-8"))
    every = [np.load(path) for path in sorted((tmp_path / "data/train/images").iterdir())]
    pixels = np.concatenate([one.reshape(-1, 5) for one in every]).astype(np.float64)
    assert record["input"]["channels"] == 5
    assert record["input"]["pixel_mean"] == pytest.approx(np.nanmean(pixels, axis=0), abs=1e-6)
    assert record["input"]["pixel_std"] == pytest.approx(np.nanstd(pixels, axis=0), abs=1e-6)
    evaluation = evaluation_of(result.run)
    truth = np.asarray(PilImage.open(tmp_path / "data/val/labels/scene_3.png"))
    with PilImage.open(result.run / "predicted_labels/images/scene_3.png") as image:
        assert image.mode == "L"
        predicted = np.asarray(image)
    assert (predicted[-6:, -6:] == 255).all() and set(np.unique(predicted)) == {0, 1, 255}
    counted = (truth != 255) & (predicted != 255)
    right = (predicted == truth) & counted
    assert evaluation["metrics"]["semantic"]["pACC"]["value"] == pytest.approx(100 * right.sum() / counted.sum())
    again = d2tune.evaluate(result.run)
    assert again.metrics.metrics == result.metrics.metrics and again.table == result.metrics.table
    prediction = d2tune.predict(result.run, tmp_path / "data/val/images", out=tmp_path / "found")
    with tifffile.TiffFile(tmp_path / "found/labels/scene_3.tif") as tiff:
        assert np.array_equal(tiff.asarray(), predicted)
    assert prediction.images == 1 and (tmp_path / "found/scene_3.predicted.png").is_file()
    d2tune.evaluate(result.run, weights="final")
    compared = d2tune.compare(result.run, result.run / "evaluation_final")
    assert compared.metrics["semantic mIoU"].value_a == pytest.approx(result.metrics.main.value)


@pytest.mark.slow
def test_folders_of_files_are_one_image_and_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    project = raster_project(tmp_path, channels=12, iterations=4, stacked=True)
    straight = d2tune.train(project, output_dir=tmp_path / "first")
    d2tune.train(project, output_dir=tmp_path / "second")
    weights = [torch.load(tmp_path / run / "checkpoints/model_final.pth") for run in ("first", "second")]
    assert all(torch.equal(weights[0]["model"][name], weights[1]["model"][name]) for name in weights[0]["model"])
    record = json.loads((straight.run / "record.json").read_text(encoding="utf-8"))
    assert record["input"]["channels"] == 12 and record["input"]["stacked"]
    prediction = d2tune.predict(straight.run, tmp_path / "data/val/images", out=tmp_path / "found")
    assert prediction.images == 1 and (tmp_path / "found/labels/scene_3.tif").is_file()


@pytest.mark.slow
def test_polygons_and_what_no_shape_covers_become_classes(balloon_sample: Path, tmp_path: Path) -> None:
    project = tmp_path / "covered.yaml"
    project.write_text(
        f"task: semantic\ndata: {{root: {balloon_sample}, background: scene}}\nclasses: [scene, balloon]\n"
        "model: {preset: unet, encoder: resnet18}\nweights: scratch\n"
        "train: {iterations: 3, batch_size: 2, image_size: 64, eval_every: 0, precision: float32}\n"
    )
    result = d2tune.train(project, output_dir=tmp_path / "run")
    evaluation = evaluation_of(result.run)
    val = load_splits(load_project(project).project).val
    pixels = sum(image.height_px * image.width_px for image in val.images)
    assert [row["name"] for row in evaluation["classes"]] == ["scene", "balloon"]
    assert sum(row["pixels"] for row in evaluation["classes"]) == pixels
    prediction = d2tune.predict(result.run, balloon_sample / "val", out=tmp_path / "drawn", to="labelme")
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((tmp_path / "drawn").glob("*.json"))]
    assert prediction.images == len(documents) == len(val.images)
    assert {shape["label"] for one in documents for shape in one["shapes"]} <= {"balloon"}


@pytest.mark.slow
def test_a_street_from_polygons_to_segments(tmp_path: Path) -> None:
    project, root = street_project(tmp_path)
    result = d2tune.train(project, output_dir=tmp_path / "run")
    assert result.metrics.task == "panoptic" and result.metrics.main.value is not None
    card = ModelCard.load(result.run / "MODEL_CARD.md")
    pq = next(one for one in card.data.eval_results if one.metric_type == "panoptic_pq")
    assert pq.metric_value == pytest.approx(result.metrics.main.value, abs=0.01)
    assert "| 3 | road | stuff |" in card.text and "rendered itself, not photos" not in card.text
    table = result.run / "predicted_segments" / "panoptic.json"
    plan, _ = make_plan(load_project(project), num_gpus=0, sample=False)
    metadata = MetadataCatalog.get(plan.cfg.DATASETS.TEST[0])
    assert metadata.stuff_classes == ["things", "road", "sky", "building", "vegetation"]
    # the same files, scored as those of any other model, give the same values
    scored = d2tune.evaluate_files(table, metadata.panoptic_json, out=tmp_path / "scored")
    assert scored.metrics.metrics == result.metrics.metrics
    prediction = d2tune.predict(result.run, root / "val", out=tmp_path / "found")
    rows = json.loads((tmp_path / "found/panoptic.json").read_text(encoding="utf-8"))["annotations"]
    assert prediction.images == len(rows)
    ids = {info["category_id"] for row in rows for info in row["segments_info"]}
    assert ids <= set(range(1, 7))


def test_detectron2_itself_can_score_what_is_registered(tmp_path: Path) -> None:
    project = raster_project(tmp_path)
    plan, _ = make_plan(load_project(project), num_gpus=0, sample=False)
    name = plan.cfg.DATASETS.TEST[0]
    (row,) = DatasetCatalog.get(name)
    truth = np.asarray(PilImage.open(tmp_path / "data/val/labels/scene_3.png")).astype(np.int64)
    guess = np.where(truth == 255, 0, truth)
    guess[:10] = 0
    evaluator = SemSegEvaluator(name, distributed=False)
    evaluator.reset()
    scores = torch.nn.functional.one_hot(torch.from_numpy(guess), 2).permute(2, 0, 1).float()
    evaluator.process([row], [{"sem_seg": scores}])
    metrics = evaluator.evaluate()["sem_seg"]
    counted = truth != 255
    overlaps = [
        ((guess == k) & (truth == k) & counted).sum() / (((guess == k) | (truth == k)) & counted).sum() for k in (0, 1)
    ]
    assert metrics["mIoU"] == pytest.approx(100 * np.mean(overlaps))


def wrong(change: str) -> tuple[type[D2TuneError], str]:
    return {
        "id": (DataError, "labels/scene_1.png"),
        "channels": (DataError, "scene_1.npy"),
        "ignored": (DataError, "labels"),
        "size": (DataError, "scene_1"),
        "lonely": (DataError, "scene_9"),
        "channels of val": (DataError, "val/images/scene_3.npy"),
        "no data": (DataError, "train/images/scene_0.npy"),
        "one class": (DataError, "data/train"),
    }[change]


@pytest.mark.parametrize(
    "change", ["id", "channels", "ignored", "size", "lonely", "channels of val", "no data", "one class"]
)
def test_bad_label_images_are_named(tmp_path: Path, change: str) -> None:
    project = raster_project(tmp_path)
    train = tmp_path / "data" / "train"
    label = train / "labels" / "scene_1.png"
    if change == "id":
        PilImage.fromarray(np.full((48, 56), 7, np.uint8)).save(label)
    elif change == "channels":
        np.save(train / "images" / "scene_1.npy", np.zeros((48, 56, 4), np.float32))
    elif change == "ignored":
        for number in range(3):
            PilImage.fromarray(np.full((48, 56), 255, np.uint8)).save(train / "labels" / f"scene_{number}.png")
    elif change == "size":
        PilImage.fromarray(np.zeros((50, 56), np.uint8)).save(label)
    elif change == "channels of val":
        np.save(tmp_path / "data" / "val" / "images" / "scene_3.npy", np.zeros((48, 56, 4), np.float32))
    elif change == "no data":
        for image in (train / "images").iterdir():
            np.save(image, np.full((48, 56, 5), np.nan, np.float32))
    elif change == "one class":
        for one in (train / "labels").iterdir():
            PilImage.fromarray(np.minimum(np.asarray(PilImage.open(one)), 1) // 2).save(one)
    else:
        np.save(train / "images" / "scene_9.npy", np.zeros((48, 56, 5), np.float32))
    kind, place = wrong(change)
    with pytest.raises(kind) as caught:
        d2tune.train(project, output_dir=tmp_path / "run")
    assert place in caught.value.one_line() and "\n" not in caught.value.one_line()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_image_of_other_channels_is_not_predicted_on_and_named(tmp_path: Path) -> None:
    run = d2tune.train(raster_project(tmp_path, iterations=1), output_dir=tmp_path / "run").run
    write_raster(tmp_path / "new", "four", 4, 0)
    with pytest.raises(DataError, match=r"four\.npy.*4 channels.*expected 5"):
        d2tune.predict(run, tmp_path / "new" / "images", out=tmp_path / "found")


def test_an_image_without_data_among_others_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    project = raster_project(tmp_path)
    np.save(tmp_path / "data/train/images/scene_1.npy", np.full((48, 56, 5), np.nan, np.float32))
    make_plan(load_project(project), num_gpus=0, sample=False)
    messages = [record.getMessage() for record in caplog.records if "has no data" in record.getMessage()]
    assert len(messages) == 1 and "train/images/scene_1.npy" in messages[0]


@pytest.mark.parametrize("split", on_demand(["train", "val"], "train"))
def test_an_image_without_a_shape_is_named_unless_there_is_a_background(tmp_path: Path, split: str) -> None:
    root = render_sample("street", tmp_path / "street", images=12, seed=0).folder
    bare = sorted((root / split).glob("*.json"))[0]
    document = json.loads(bare.read_text("utf-8"))
    bare.write_text(json.dumps(document | {"shapes": []}), "utf-8")
    path = tmp_path / "street.yaml"

    def read(more: str) -> Any:
        classes = "[car, person, road, sky, building, vegetation, rest]"
        path.write_text(f"task: semantic\ndata: {{root: {root}{more}}}\nclasses: {classes}\n")
        return load_splits(load_project(path).project)

    with pytest.raises(DataError, match=f"{document['imagePath']}: the image has no shape.*data.background"):
        read("")
    whole, without = read(", background: rest"), read(", skip_bad: true")
    assert len(getattr(without, split).images) == len(getattr(whole, split).images) - 1


@pytest.mark.parametrize("task", ["task: instance\nclasses: [a, b]", "task: panoptic\nthings: [a]\nstuff: [b]"])
def test_label_images_tell_no_objects_apart(tmp_path: Path, task: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"{task}\ndata: {{root: data, format: label_images}}\n")
    with pytest.raises(ProjectError, match="label_images is for semantic tasks"):
        load_project(path)


def test_a_class_without_annotations_is_named_with_the_data(tmp_path: Path) -> None:
    root = render_sample("street", tmp_path / "street", images=2, seed=0).folder
    project = tmp_path / "street.yaml"
    project.write_text(
        f"task: panoptic\ndata: {{root: {root}}}\nthings: [car, person, tram]\n"
        "stuff: [road, sky, building, vegetation]\nmodel: {preset: panoptic_fpn_mobilenet_v2}\n"
    )
    with pytest.raises(DataError, match=r"street.train: things: class 'tram' has no annotations in the training split"):
        make_plan(load_project(project), num_gpus=0, sample=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task: panoptic\nthings: [car]", "needs things and stuff"),
        ("task: semantic\nclasses: [a]\nthings: [b]", "classes, and things or stuff, are both set"),
        ("task: panoptic\nthings: [a]\nstuff: [a]", "'a' is in things and in stuff"),
        ("task: instance\nstuff: [sky]", "an instance task has things alone"),
        ("task: semantic\nmodel: {class_weights: [0, 0]}", "at least one class must have a weight above 0"),
        ("task: instance\ntrain: {image_size: original}", "train.image_size: original needs train.patch_size"),
        ("task: instance\ntrain: {augment: overhead}", "train.augment: overhead is for semantic tasks"),
    ],
)
def test_a_project_that_contradicts_itself_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"{text}\ndata: {{root: data}}\n")
    with pytest.raises(ProjectError, match=says):
        load_project(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("{root: data, background: sky}", "needs the classes to be named"),
        ("{root: data, background: moon}", "'moon', which is not among"),
    ],
)
def test_the_background_must_be_a_class(tmp_path: Path, data: str, says: str) -> None:
    path = tmp_path / "odd.yaml"
    classes = "" if "sky" in data else "classes: [sky, car]\n"
    path.write_text(f"task: semantic\n{classes}data: {data}\n")
    with pytest.raises(ProjectError, match=says):
        load_project(path)
