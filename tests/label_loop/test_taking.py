"""What is taken from a person's files, where it goes, and what is refused with one clear line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PilImage

from d2tune import cli
from d2tune.annotations.io.output_record import PREDICTIONS
from d2tune.annotations.io.outputs import write_output_json
from d2tune.errors import DataError
from d2tune.label_loop.data import KnownFiles, read_loop_data
from d2tune.label_loop.loop import label_loop
from d2tune.label_loop.state import RoundImage
from d2tune.label_loop.taking import check_seen, places_of, seen_images, take
from d2tune.project import load_project
from tests.annotations.builders import labelme_value, shape
from tests.label_loop.places import annotated, copy_labeled, editor, make_place, read_json, state_of

SQUARE = [[10.0, 10.0], [60.0, 10.0], [60.0, 60.0], [10.0, 60.0]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def proposed(label: str = "balloon") -> dict[str, Any]:
    marks = {"flags": {"prediction": True, "blurred": True}, "description": "score=0.812", "score": 0.812345}
    return shape(SQUARE, label) | marks


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line with which the command ends."""
    assert cli.main(["label-loop", *map(str, words)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_saved_file_is_seen_and_a_proposal_is_not(tmp_path: Path) -> None:
    images = [RoundImage(name=f"0{number}_a.jpg", source="a.jpg") for number in range(1, 5)]
    for image in images[:3]:
        write_output_json((tmp_path / image.name).with_suffix(".json"), {"shapes": []}, kind=PREDICTIONS)
    (tmp_path / "02_a.json").write_text('{"shapes": [], "flags": {"checked": true}}', encoding="utf-8")
    (tmp_path / "03_a.json").unlink()
    (tmp_path / "04_a.json").write_text("{}", encoding="utf-8")
    assert [image.name for image in seen_images(images, tmp_path)] == ["02_a.jpg", "04_a.jpg"]


def test_files_are_taken_without_the_marks_of_predictions_and_never_over_others(
    balloon_sample: Path, place: Path
) -> None:
    make_place(balloon_sample, place, new=2)
    first, second = sorted((place / "new").glob("*.jpg"))
    inner = place / "data/train/label_loop"
    inner.mkdir()
    shutil.copy(balloon_sample / "train/balloon_0000.jpg", inner / first.name)  # another image of this name
    folder = place / "round"
    folder.mkdir()
    images = [
        RoundImage(name="01_a.jpg", source=str(first)),
        RoundImage(name="02_b.jpg", source=str(second)),
        RoundImage(name="03_c.jpg", source=str(place / "data/train" / "inside.jpg")),
    ]
    shutil.copy(first, place / "data/train/inside.jpg")
    content = labelme_value(proposed(), shape(SQUARE, "balloon"), image="01_a.jpg") | {"flags": {"checked": True}}
    for image in images:
        (folder / image.name).with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")
    data = read_loop_data(load_project("loop.yaml"))
    taken = places_of(images, data, place / "new")
    assert [image.listed for image in taken] == [
        f"label_loop/{first.stem}_2.jpg",
        f"label_loop/{second.name}",
        "inside.jpg",
    ]
    for _ in range(2):  # a call that was killed is repeated
        take(taken, images, folder)
    for one, source in zip(taken, (first, second, first), strict=True):
        assert Path(one.image).read_bytes() == source.read_bytes()
        value = read_json(Path(one.annotation))
        assert value["imagePath"] == Path(one.image).name and value["flags"] == {"checked": True}
        changed, unchanged = value["shapes"]
        assert changed["flags"] == {"blurred": True} and changed["description"] == "" and "score" not in changed
        assert changed["points"] == SQUARE and unchanged == content["shapes"][1]
    (folder / "03_c.json").write_text(json.dumps(content | {"shapes": []}), encoding="utf-8")
    with pytest.raises(DataError, match="the Labelme file is already there and is not overwritten"):
        take(taken[2:], images, folder)
    assert len(read_json(Path(taken[2].annotation))["shapes"]) == 2


def test_an_unchanged_prediction_beside_an_image_of_the_training_folder_is_replaced(
    balloon_sample: Path, place: Path
) -> None:
    (photo, *_) = make_place(balloon_sample, place, new=1)
    shutil.copy(photo, place / "data/train")
    beside = write_output_json(place / "data/train" / f"{photo.stem}.json", {"shapes": []}, kind=PREDICTIONS)
    image = RoundImage(name="01_a.jpg", source=str(place / "data/train" / photo.name))
    (place / "01_a.json").write_text(json.dumps(labelme_value(shape(SQUARE, "balloon"), image="a")), encoding="utf-8")
    data = read_loop_data(load_project("loop.yaml"))
    taken = places_of([image], data, place / "data/train")
    assert taken[0].annotation == str(beside)
    take(taken, [image], place)
    assert len(read_json(beside)["shapes"]) == 1


def test_files_are_known_by_their_place_and_their_content(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"one")
    (tmp_path / "copy.jpg").write_bytes(b"one")
    (tmp_path / "b.jpg").write_bytes(b"two")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    known = KnownFiles([tmp_path / "a.jpg"])
    assert [known.has(tmp_path / name) for name in ("a.jpg", "copy.jpg", "link.jpg", "b.jpg")] == [True] * 3 + [False]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("value['shapes'][0]['label'] = 'baloon'", ["_balloon_", "shape 0", "'baloon'", "Did you mean 'balloon'?"]),
        ("value['shapes'][0]['points'] = 7", ["_balloon_", "shape 0"]),
        ("value = []", ["_balloon_", "not a Labelme annotation"]),
    ],
)
def test_a_file_with_a_mistake_is_named_and_nothing_is_taken(
    change: str, words: list[str], balloon_sample: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_place(balloon_sample, place, new=2)
    mistake = f"""
path = next(path for path in sorted(folder.glob("*.json")) if json.loads(path.read_text("utf-8"))["shapes"])
value = json.loads(path.read_text("utf-8"))
{change}
path.write_text(json.dumps(value), "utf-8")
"""
    command = editor(place, annotated(balloon_sample) + mistake)
    line = refused(capsys, "loop.yaml", "new", "--labelme", command, "--yes")
    assert all(word in line for word in words), line
    assert "nothing has been taken" in line and not (place / "data/train/label_loop").exists()
    assert state_of(place)["rounds"][0]["stage"] == "label"


def test_a_semantic_image_without_shapes_is_refused(balloon_sample: Path, place: Path) -> None:
    make_place(balloon_sample, place, new=1)
    text = (place / "loop.yaml").read_text("utf-8").split("model:")[0].replace("[balloon]", "[balloon, sky]")
    for path in (place / "data").rglob("*.json"):
        value = read_json(path)
        value["shapes"].append(shape([[1.0, 1.0], [9.0, 1.0], [9.0, 9.0]], "sky"))
        path.write_text(json.dumps(value), encoding="utf-8")
    (place / "loop.yaml").write_text(f"task: semantic\n{text}model: {{preset: unet}}\n", encoding="utf-8")
    photo = next((place / "new").glob("*.jpg"))
    shutil.copy(photo, place / "01_a.jpg")
    with PilImage.open(photo) as image:
        empty = labelme_value(image="01_a.jpg", size=image.size)
    (place / "01_a.json").write_text(json.dumps(empty), encoding="utf-8")
    data = read_loop_data(load_project("loop.yaml"))
    with pytest.raises(DataError, match="the image has no shapes, so it has no labeled pixels"):
        check_seen([RoundImage(name="01_a.jpg", source=str(photo))], place, data)


@pytest.mark.slow
def test_folders_projects_and_models_that_cannot_be_used(
    balloon_sample: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_place(balloon_sample, place, new=1)
    (place / "empty").mkdir()
    cases = {
        ("loop.yaml", "nowhere"): "the folder of images does not exist",
        ("loop.yaml", "empty"): "the folder has no images",
        ("loop.yaml", "data/train"): "all images are labeled",
        ("loop.yaml", "data/val"): "the images are in the validation split, which is never trained on",
        ("loop.yaml", "new", "--images", 0): "--images: must be 1 or more; found 0",
        ("loop.yaml", "new", "--rounds", 0): "--rounds: must be 1 or more; found 0",
        ("loop.yaml", "new", "--model", "empty"): "empty",
        ("loop.yaml", "new", "--labelme", "nothing-like-this", "--yes"): "Labelme cannot be started",
        ("loop.yaml", "empty", "--yes"): "round 1 is not finished, and has the images of another folder",
        ("loop.yaml", "new", "--model", "data"): "round 1 is not finished, and has another model",
        ("loop.yaml", "", "--yes"): "the path is empty",
    }
    for words, message in cases.items():
        assert message in refused(capsys, *words), words
    state = place / "runs/loop/label_loop/label_loop.json"
    state.write_text(state.read_text("utf-8").replace('"stage": "label"', '"stage": "lunch"'), "utf-8")
    line = refused(capsys, "loop.yaml", "new")
    assert "label_loop.json: rounds.0.stage: the state of the loop is damaged" in line and "move it away" in line


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{root: data, train: via.json, val: val}", "the annotations of the split are one file"),
        ("{root: via, train: train, val: 0.2}", "the annotations of the training split are via"),
        ("{root: data, train: nothing, val: val}", "no such folder of images"),
        ("{root: nowhere}", "the data folder is missing"),
        ("{root: data, format: yolo-seg}", "the annotations of the training split are yolo-seg"),
    ],
)
def test_annotations_that_labelme_does_not_write(
    data: str, message: str, balloon_sample: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_place(balloon_sample, place, new=1)
    (place / "via/train").mkdir(parents=True)
    via = {"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": [], "file_attributes": {}}}
    (place / "via/train/via_region_data.json").write_text(json.dumps(via), encoding="utf-8")
    (place / "data/via.json").write_text(json.dumps(via), encoding="utf-8")
    (place / "p.yaml").write_text(f"data: {data}\nclasses: [balloon]\n", encoding="utf-8")
    assert message in refused(capsys, "p.yaml", "new")


def test_a_project_of_label_images_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "data").mkdir()
    text = "task: semantic\ndata: {root: data, format: label_images}\nclasses: [a, b]\nmodel: {preset: unet}\n"
    (place / "p.yaml").write_text(text, encoding="utf-8")
    assert "the project reads label images, and Labelme draws polygons" in refused(capsys, "p.yaml", "data")


def test_images_of_the_validation_split_are_never_chosen(balloon_sample: Path, place: Path) -> None:
    make_place(balloon_sample, place, labeled=3, in_val=2, new=2)
    for photo in (place / "data/val").glob("*.jpg"):
        shutil.copy(photo, place / "new" / f"copy_{photo.name}")
    copy_labeled(sorted(balloon_sample.rglob("*.jpg"))[-1], place / "new")
    lines: list[str] = []
    label_loop("loop.yaml", "new", opens=False, say=lines.append)
    assert lines[0] == "round 1: new: 2 images without labels, 1 labeled, 2 in the validation split"
    chosen = [Path(image["source"]).name for image in state_of(place)["rounds"][0]["images"]]
    assert len(chosen) == 2 and not any(name.startswith("copy_") for name in chosen)
