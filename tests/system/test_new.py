"""``d2tune new``: a folder is recognized, and the file that is written loads, passes the check and trains."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from d2tune.cli import main
from d2tune.project import Project, load_project
from tests.shared_files import SHARED
from tests.system.commands import d2tune, d2tune_here, refused, succeeded

DATA, CASES = SHARED / "data", SHARED / "conversion_cases"
BALLOON, BOARDS, MEMBRANE = DATA / "balloon", DATA / "microcontrollers", DATA / "membrane"
PANOPTIC = DATA / "panoptic_coco_sample"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def new(*words: object, file: str = "mine.yaml", checked: int = 0) -> Project:
    """Run ``d2tune new mine``, and ``d2tune check``, which ends with ``checked``, on the file that it writes."""
    assert main(["new", "mine", *map(str, words)]) == 0
    assert main(["check", file]) == checked
    return load_project(file).project


def case(name: str, folder: Path) -> Path:
    """A worked conversion case without the file of what is expected, which is itself an annotation file."""
    return Path(shutil.copytree(CASES / name, folder / "data", ignore=shutil.ignore_patterns("expected.json")))


def labels_in(folder: Path) -> Counter[str]:
    """How many shapes of each label Labelme files hold, without d2tune's reader."""
    texts = [json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")]
    return Counter(shape["label"] for text in texts for shape in text["shapes"])


def test_via_photos_in_folders_for_training_and_validation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = new("--data", BALLOON, "--classes", "balloon")
    out = capsys.readouterr().out
    assert f"VIA JSON in {BALLOON}: 61 images, 255 instances to train on, 13 images, 50 instances to validate" in out
    assert "next: d2tune train mine.yaml" in out
    assert (project.task, project.data.root, project.data.format) == ("instance", BALLOON, "via")
    assert (project.data.train, project.data.val, project.classes) == ("train", "val", ("balloon",))
    assert project.model.preset == "pointrend_mobilenet_v2_fpn"
    gpu = load_project("mine.yaml", hardware="gpu").project
    assert gpu.model.preset == "pointrend_r50_fpn"
    assert isinstance(gpu.train.image_size, int) and 512 <= gpu.train.image_size <= 800
    assert (gpu.train.iterations, project.train.iterations) == (61 * 40 // 4, 61 * 24 // 4)
    assert (project.train.image_size, project.train.scale_jitter) == (480, (0.5, 1.0))
    text = (folder / "mine.yaml").read_text("utf-8")
    assert "  - balloon                     # 255 + 50\n" in text
    keys = [
        line
        for line in text.splitlines()
        if ":" in line.split("#")[0] and not line.startswith(("#", "data", "model", "train"))
    ]
    assert all("# " in line for line in keys if line.strip() not in ("cpu:", "label_images:")), keys


def test_regions_without_a_class_ask_for_its_name(folder: Path) -> None:
    line = refused(d2tune_here("new", "mine", "--data", BALLOON, folder=folder))
    assert "the region has no class" in line and "--classes NAME" in line
    assert not list(folder.iterdir())


def test_all_images_without_annotations_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = folder / "photos"
    photos.mkdir()
    Image.new("RGB", (8, 8)).save(photos / "0.png")
    for number in range(1, 1200):
        (photos / f"{number}.png").hardlink_to(photos / "0.png")
    new("--data", "photos", "--classes", "a")
    assert "recognized: 1,200 images without annotations" in capsys.readouterr().out
    assert "share of 1,200 images" in (folder / "mine.yaml").read_text("utf-8")


def test_similar_labels_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder / "data"
    shutil.copytree(CASES / "01_polygon", source, ignore=shutil.ignore_patterns("expected.json"))
    (path,) = source.glob("*.json")
    value = json.loads(path.read_text("utf-8"))
    for shape, label in zip(value["shapes"], ("baloon", "balloon"), strict=True):
        shape["label"] = label
    path.write_text(json.dumps(value), "utf-8")
    new("--data", source, checked=1)
    out = capsys.readouterr().out
    assert "warning: " not in out.split("written:")[0].replace("warning: training stops", "")
    for number in range(1, 10):
        value["shapes"][0]["label"] = "balloon"
        (source / f"{number}.json").write_text(json.dumps(value | {"imagePath": f"{number}.png"}), "utf-8")
        Image.effect_noise((value["imageWidth"], value["imageHeight"]), number).save(source / f"{number}.png")
    new("--data", source, "--force")
    assert "warning: the label 'baloon' (1 time) differs little from 'balloon' (19 times)" in capsys.readouterr().out


def test_labelme_photos_with_a_training_folder_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = new("--data", BOARDS)
    assert (project.data.train, project.data.val) == ("train", 0.2)
    counts = labels_in(BOARDS / "train")
    assert sum(counts.values()) == 171 and set(project.classes) == set(counts)
    text = (folder / "mine.yaml").read_text("utf-8")
    for label, count in counts.items():
        assert f"  - {label:<28}# {count}\n" in text
    assert f"d2tune eval RUN --data {BOARDS / 'test'}" in capsys.readouterr().out


def test_every_folder_of_the_labelme_zoo_gets_a_file_or_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = 0
    for source in sorted((DATA / "labelme_zoo").iterdir()):
        status = main(["new", "mine", "--data", str(source), "--force"])
        streams = capsys.readouterr()
        if status == 0:
            written += 1
            assert labels_in(source).keys() >= set(load_project("mine.yaml").project.classes)
            stops = "training stops" in streams.out
            assert main(["check", "mine.yaml"]) == int(stops), streams.out
        else:
            assert streams.err.count("error: ") == 1 and str(source) in streams.err
    assert written >= 12


def test_every_conversion_case_gets_a_file_or_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = 0
    cases = sorted(path for path in CASES.iterdir() if path.is_dir())
    for source in cases:
        shutil.rmtree(folder / "data", ignore_errors=True)
        status = main(["new", "mine", "--data", str(case(source.name, folder)), "--classes", "cat,dog", "--force"])
        streams = capsys.readouterr()
        if status == 0:
            written += 1
            stops = "training stops" in streams.out
            assert main(["check", "mine.yaml"]) == int(stops), (source.name, streams.out)
        else:
            assert streams.err.count("error: ") == 1, (source.name, streams.err)
    assert written > len(cases) * 0.9


def test_label_images_with_names_for_their_values(folder: Path) -> None:
    project = new("--data", MEMBRANE, "--classes", "membrane,cell")
    assert (project.task, project.data.format, project.data.val) == ("semantic", "label_images", 0.2)
    assert (project.data.label_images.images, project.data.label_images.labels) == ("image", "label")
    assert project.data.label_images.values == {0: "membrane", 255: "cell"}
    assert project.classes == ("membrane", "cell") and project.data.background is None
    assert load_project("mine.yaml", hardware="gpu").project.train.image_size == 512


@pytest.mark.parametrize("names", [None, "membrane,cell,nucleus"])
def test_label_images_without_enough_names(names: str | None, folder: Path) -> None:
    words = ["new", "mine", "--data", MEMBRANE, *(["--classes", names] if names else [])]
    line = refused(d2tune_here(*words, folder=folder))
    assert "the values 0, 255" in line and "expected 2 class names" in line and "--classes" in line


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ([0, 1, 2], "road,car,sky", {0: "road", 1: "car", 2: "sky"}),
        ([0, 1, 2], "car,sky", {0: "background", 1: "car", 2: "sky"}),
        ([0, 1, 2, 255], "road,car,sky", {0: "road", 1: "car", 2: "sky", 255: None}),
        ([0, 7, 9], "null,car,sky", {0: None, 7: "car", 9: "sky"}),
        ([0, 255], "car", {0: "background", 255: "car"}),
        ([0, 1], "car", {0: "background", 1: "car"}),
    ],
)
def test_values_and_names(values: list[int], names: str, expected: dict[int, str | None], folder: Path) -> None:
    for kind in ("images", "labels"):
        (folder / "data" / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.choice(values, (40, 48)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "data" / "labels" / f"{number}.png")
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(
            folder / "data/images" / f"{number}.jpg"
        )
    project = new("--data", "data", "--classes", names)
    assert project.data.label_images.values == expected
    assert project.classes == tuple(name for name in expected.values() if name is not None)


def test_rasters_of_many_channels_are_not_resized(folder: Path) -> None:
    patch = DATA / "landcover_timeseries"
    ndvi, cover = np.load(patch / "data" / "NDVI.npy"), np.load(patch / "mask_timeless" / "LULC.npy")
    for kind in ("images", "labels"):
        (folder / "data" / kind).mkdir(parents=True)
    cover = np.squeeze(cover)
    raster = np.moveaxis(np.squeeze(ndvi)[:9], 0, -1)
    assert raster.shape == (*cover.shape, 9)
    for number, rows in enumerate((slice(0, 50), slice(50, 101))):
        np.save(folder / "data" / "images" / f"{number}.npy", raster[rows])
        np.save(folder / "data" / "labels" / f"{number}.npy", cover[rows].astype(np.uint16))
    values = np.unique(cover).tolist()
    names = ",".join("null" if value == 0 else f"class {value}" for value in values)
    project = new("--data", "data", "--classes", names)
    assert list(project.data.label_images.values) == values
    assert (project.train.image_size, project.train.patch_size, project.data.val) == ("original", 32, 0.5)


def test_masks_beside_images_of_the_same_folder(folder: Path) -> None:
    streets = DATA / "cityscapes_three"
    names = [f"class {number}" for number in range(14)]
    project = new("--data", streets, "--classes", ",".join(names))
    assert (project.task, project.data.format, project.classes) == ("semantic", "masks", tuple(names))


def test_video_frames_cannot_be_divided(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = new("--data", DATA / "car_video", "--classes", "car", checked=1)
    assert (project.data.train, project.data.val) == (".", 0.2)
    out = capsys.readouterr().out
    assert "warning: training stops, because all images are near-duplicates" in out
    assert "next: d2tune check mine.yaml" in out
    assert "error  not_divisible" in out and "1 group of 40 images" in out


def test_one_image_cannot_be_divided(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = new("--data", case("90_voc_xml", folder), checked=1)
    assert project.data.val == 0.5
    out = capsys.readouterr().out
    assert "warning: training stops, because there is one image" in out
    assert "the images cannot be divided into a training and a validation split: 1 image" in out


def test_coco_panoptic_takes_things_and_stuff_from_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = new("--data", PANOPTIC)
    raw = json.loads((PANOPTIC / "panoptic_examples.json").read_text("utf-8"))
    is_thing = {row["name"]: bool(row["isthing"]) for row in raw["categories"]}
    name_of = {row["id"]: row["name"] for row in raw["categories"]}
    of_images = [{name_of[one["category_id"]] for one in row["segments_info"]} for row in raw["annotations"]]
    assert (project.task, project.data.format, project.data.images) == ("panoptic", "panoptic", "input_images")
    assert set(project.class_names) in of_images, "the classes of the one image that is trained on"
    assert all(is_thing[name] for name in project.things) and not any(is_thing[name] for name in project.stuff)
    assert set(project.data.rename) == set.union(*of_images) - set(project.class_names)
    assert "not read: " in capsys.readouterr().out


def test_coco_panoptic_for_other_tasks(folder: Path) -> None:
    source = shutil.copytree(PANOPTIC, folder / "data", ignore=shutil.ignore_patterns("*detection_format.json"))
    things = new("--data", source, "--task", "instance")
    assert "person" in things.classes and "grass-merged" not in things.classes
    assert things.data.rename["grass-merged"] is None and things.data.format == "panoptic"
    pixels = new("--data", source, "--task", "semantic", "--force")
    assert {"person", "grass-merged"} <= set(pixels.classes) and pixels.data.format == "panoptic"


def test_run_lengths_and_their_dialect(folder: Path) -> None:
    project = new("--data", case("80_rle_carvana", folder), "--classes", "car", checked=1)
    assert (project.data.format, project.data.csv_preset, project.data.class_name) == ("rle", "carvana", "car")
    assert (project.classes, project.data.background) == (("background", "car"), "background")
    assert project.data.train == "train_masks.csv"


def test_run_lengths_beside_a_folder_of_images_and_a_submission(folder: Path) -> None:
    source = case("83_rle_severstal_split", folder)
    (source / "train_images").mkdir()
    (source / "a.png").rename(source / "train_images" / "a.png")
    shutil.copy(source / "train.csv", source / "sample_submission.csv")
    project = new("--data", source, checked=1)
    assert (project.data.train, project.data.images, project.data.csv_preset) == (
        "train.csv",
        "train_images",
        "severstal",
    )
    assert all(name == "background" or name.isdecimal() for name in project.classes), "named by the CSV itself"


def test_run_lengths_without_a_class_name(folder: Path) -> None:
    words = ["new", "mine", "--data", case("81_rle_airbus", folder)]
    assert "--classes car" in refused(d2tune_here(*words, folder=folder))


@pytest.mark.parametrize(
    ("name", "format"), [("90_voc_xml", "voc"), ("91_voc_png_masks", "voc-masks"), ("72_via3", "via")]
)
def test_voc_and_a_later_via(name: str, format: str, folder: Path) -> None:
    project = new("--data", case(name, folder), checked=1)
    expected = json.loads((CASES / name / "expected.json").read_text("utf-8"))
    assert project.data.format == format and project.task == "instance"
    assert set(project.classes) == {row["category"] for row in expected["annotations"]}


def test_coco_files_for_each_split_beside_a_folder_of_images(folder: Path) -> None:
    assert main(["convert", str(BOARDS / "test"), "--out", "all.json"]) == 0
    whole = json.loads((folder / "all.json").read_text("utf-8"))
    (folder / "data" / "annotations").mkdir(parents=True)
    shutil.copytree(BOARDS / "test", folder / "data" / "photos", ignore=shutil.ignore_patterns("*.json"))
    for split, rows in (("train", whole["images"][:5]), ("val", whole["images"][5:])):
        ids = {row["id"] for row in rows}
        kept = [row for row in whole["annotations"] if row["image_id"] in ids]
        text = json.dumps(whole | {"images": rows, "annotations": kept})
        (folder / "data" / "annotations" / f"instances_{split}2017.json").write_text(text, "utf-8")
    project = new("--data", "data")
    assert (project.data.train, project.data.val) == (
        "annotations/instances_train2017.json",
        "annotations/instances_val2017.json",
    )
    assert (project.data.format, project.data.images) == ("coco", "photos")


def test_one_file_of_annotations(folder: Path) -> None:
    project = new("--data", BALLOON / "val" / "via_region_data.json", "--classes", "balloon")
    assert (project.data.root, project.data.train, project.data.val) == (BALLOON / "val", "via_region_data.json", 0.2)


def test_lists_of_a_split_are_used(folder: Path) -> None:
    shutil.copytree(BOARDS / "test", folder / "data")
    assert main(["split", "data", "--val", "0.3"]) == 0
    project = new("--data", "data")
    assert (project.data.train, project.data.val) == ("splits/train.txt", "splits/val.txt")


def test_polygons_for_a_semantic_task_have_a_background(folder: Path) -> None:
    project = new("--data", BOARDS, "--task", "semantic")
    assert project.data.background == "background" == project.classes[0] and len(project.classes) == 5


def test_polygons_for_a_panoptic_task_need_to_know_the_stuff(folder: Path) -> None:
    words = ["new", "mine", "--data", BOARDS, "--task", "panoptic"]
    line = refused(d2tune_here(*words, folder=folder))
    assert "needs things and stuff" in line and "--stuff" in line
    project = new("--data", BOARDS, "--task", "panoptic", "--stuff", "ESP8266")
    assert project.stuff == ("ESP8266",) and len(project.things) == 3


def test_photos_without_annotations(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(BOARDS / "test", folder / "photos", ignore=shutil.ignore_patterns("*.json"))
    line = refused(d2tune_here("new", "mine", "--data", "photos", folder=folder))
    assert "no annotations, and no classes are named" in line and "--classes A,B" in line
    project = new("--data", "photos", "--classes", "board,chip")
    assert (project.classes, project.data.train, project.data.val) == (("board", "chip"), ".", 0.3)
    assert project.train.iterations is None, "the number of images that will be annotated is not known"
    assert "next: d2tune annotate mine.yaml" in capsys.readouterr().out
    labelme = folder / "labelme"
    labelme.write_text('#!/bin/sh\necho "$@"\ncat "$5"\n', encoding="utf-8")
    labelme.chmod(0o755)
    monkeypatch.setattr("d2tune.annotate.labelme_command", lambda: labelme)
    monkeypatch.setattr("d2tune.annotate.labelme_arguments", _arguments)
    assert main(["annotate", "mine.yaml"]) == 0


def _arguments(
    command: list[str], images: Path, annotations: Path, labels: Path, *, flags: tuple[str, ...]
) -> list[str]:
    assert flags == ()
    assert images == annotations and len(list(images.glob("*.jpg"))) == 7
    assert labels.read_text("utf-8") == "board\nchip\n"
    return ["true"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("missing", "there is no such folder"),
        ("empty", "the folder is empty"),
        ("texts", "neither annotations nor images"),
        ("broken", "a.json"),
        ("table.csv", "a CSV with the columns"),
        ("cut.json", "cut.json"),
    ],
)
def test_folders_that_cannot_be_used(data: str, words: str, folder: Path) -> None:
    for name in ("empty", "texts", "broken"):
        (folder / name).mkdir()
    (folder / "table.csv").write_text("name,age\nx,3\n", "utf-8")
    (folder / "cut.json").write_text('{"images": [', "utf-8")
    (folder / "texts" / "notes.txt").write_text("nothing", "utf-8")
    (folder / "broken" / "a.json").write_text('{"shapes": [', "utf-8")
    line = refused(d2tune_here("new", "mine", "--data", data, folder=folder))
    assert words in line and str(folder) in line
    assert not (folder / "mine.yaml").exists()


def test_a_folder_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "closed").mkdir()
    listed = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    line = refused(d2tune_here("new", "mine", "--data", "closed", folder=folder))
    assert "closed: the folder cannot be read: Permission denied" in line


def test_where_the_file_goes(folder: Path) -> None:
    (folder / "projects").mkdir()
    shutil.copytree(BOARDS / "test", folder / "datasets" / "boards")
    project = new("--data", "datasets/boards", file="projects/mine.yaml")
    raw = yaml.safe_load((folder / "projects" / "mine.yaml").read_text("utf-8"))
    assert raw["data"]["root"] == "../datasets/boards" and project.data.root == folder / "datasets" / "boards"
    assert "sample" not in raw["data"]
    again = ["new", "mine", "--data", "datasets/boards"]
    line = refused(d2tune_here(*again, folder=folder))
    assert "projects/mine.yaml: the file exists already" in line and "--force" in line
    (folder / "projects" / "mine.yaml").write_text("# own\n", "utf-8")
    assert main([*again, "--out", "other.yaml"]) == 0 and (folder / "other.yaml").is_file()
    # what a person changed stays, what the command wrote is replaced
    line = refused(d2tune_here(*again, "--force", folder=folder))
    assert "It was changed after d2tune wrote it" in line
    assert (folder / "projects" / "mine.yaml").read_text("utf-8") == "# own\n"
    (folder / "projects" / "mine.yaml").unlink()
    for words in ([], ["--force"]):
        assert main([*again, *words]) == 0
        assert yaml.safe_load((folder / "projects" / "mine.yaml").read_text("utf-8")) == raw
    line = refused(d2tune_here("new", "a b", "--data", "datasets/boards", folder=folder))
    assert "the name of the project is invalid" in line


def test_names_that_yaml_would_misread(folder: Path) -> None:
    names = ["yes", "1", "a: b", "#c", "- d", "e'f\"", "车", "null x"]
    (folder / "data").mkdir()
    shapes = [
        {"label": name, "shape_type": "polygon", "points": [[at, 2], [at + 4, 2], [at + 4, 9]], "flags": {}}
        for at, name in enumerate(names)
    ]
    for number in range(2):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (32, 40, 3), dtype=np.uint8)).save(
            folder / "data" / f"{number}.png"
        )
        value = {
            "version": "6.3.0",
            "imagePath": f"{number}.png",
            "imageHeight": 32,
            "imageWidth": 40,
            "shapes": shapes,
        }
        (folder / "data" / f"{number}.json").write_text(json.dumps(value), "utf-8")
    assert set(new("--data", "data").classes) == set(names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "source", "words"),
    [
        pytest.param("instance", BOARDS / "test", [], marks=pytest.mark.extended),
        pytest.param("semantic", MEMBRANE, ["--classes", "membrane,cell"], marks=pytest.mark.extended),
        pytest.param("panoptic", PANOPTIC, [], marks=pytest.mark.extended),
    ],
    ids=["instance", "semantic", "panoptic"],
)
def test_a_training_works_from_the_file(task: str, source: Path, words: list[str], folder: Path) -> None:
    assert new("--data", source, *words).task == task
    small = ["train.iterations=2", "train.image_size=64", "train.batch_size=1", "weights=scratch", "train.workers=0"]
    if task != "semantic":
        small.append("TEST.DETECTIONS_PER_IMAGE=5")
    assert main(["train", "mine.yaml", *small, "--output-dir", "run", "--num-gpus", "0"]) == 0
    evaluation = json.loads((folder / "run" / "evaluation.json").read_text("utf-8"))
    assert evaluation["images"] >= 1
    record = json.loads((folder / "run" / "record.json").read_text("utf-8"))
    assert record["data"]["rendered_sample"] is False


def test_the_command_itself_from_an_empty_folder(folder: Path) -> None:
    out = succeeded(d2tune("new", "boards", "--data", BOARDS / "test", folder=folder))
    assert out.endswith("written: boards.yaml\nnext: d2tune train boards.yaml\n")
    succeeded(d2tune("check", folder / "boards.yaml", folder=folder.parent))
