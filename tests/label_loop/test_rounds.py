"""Whole rounds: predict, correct, take, train on, compare; and loops that are stopped anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import d2tune
from d2tune.annotations.convert import read_dataset
from d2tune.annotations.splitting.lists import read_list
from d2tune.doctor import labelme_command
from d2tune.errors import MachineError
from d2tune.label_loop import choosing, loop, taking, training
from d2tune.label_loop.loop import label_loop
from d2tune.project import load_project
from d2tune.run_folder import RunFolder
from d2tune.runs.load import load_model
from tests.label_loop.places import annotated, editor, make_place, read_json, state_of
from tests.runs.test_load import quick_run

pytestmark = pytest.mark.slow

PERSON = Path(__file__).with_name("labelme_person.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quick_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """The command of the installed Labelme with a person in its window, without a screen."""
    command = labelme_command(Path(__file__).resolve().parents[2])
    assert command is not None, "Labelme is missing: make .venv-labelme/bin/labelme"
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    for name, value in {"QT_QPA_PLATFORM": "offscreen", "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}.items():
        monkeypatch.setenv(name, value)
    return " ".join([str(command.with_name("python").absolute()), str(PERSON), *words])


def test_a_round_with_labelme(
    balloon_sample: Path, place: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_place(balloon_sample, place)
    lines: list[str] = []
    crashing = person(tmp_path, monkeypatch, "--crash")
    with pytest.raises(MachineError, match=r"Labelme ended with status 3; 1 of 4 images are saved"):
        label_loop("loop.yaml", "new", images=4, model=model, labelme=crashing, say=lines.append)
    assert not (place / "data/train/label_loop").exists()
    (one,) = label_loop("loop.yaml", "new", images=4, labelme=person(tmp_path, monkeypatch), say=lines.append)

    folder = place / "runs/loop/label_loop/round_1"
    names = [image.name for image in one.images]
    assert [name[:3] for name in names] == ["01_", "02_", "03_", "04_"]
    assert [image.name for image in one.taken] == names[:3], "the fourth one was only looked at"
    assert "3 images added to the training split; 1 image unchanged, not trained on" in lines
    proposals = [read_json((folder / name).with_suffix(".json")) for name in names]
    taken = [read_json(Path(image.annotation)) for image in one.taken]
    for value, image in zip(taken, one.taken, strict=True):
        assert Path(image.image).read_bytes() == (place / "new" / Path(image.image).name).read_bytes()
        assert value["imagePath"] == Path(image.image).name
        assert all("prediction" not in shape["flags"] and "score" not in shape for shape in value["shapes"])
    assert taken[0]["flags"] == {"checked": True} and taken[1]["flags"] == {"checked": False}
    assert [shape["points"] for shape in taken[0]["shapes"]] == [shape["points"] for shape in proposals[0]["shapes"]]
    assert len(taken[0]["shapes"]) > 0 and all(shape["description"] == "" for shape in taken[0]["shapes"])
    moved = read_json(folder / names[1].replace(".jpg", ".json"))["shapes"][0]["points"]
    assert taken[1]["shapes"][0]["points"] == moved
    assert [shape["points"] for shape in taken[2]["shapes"]] == [[[10, 10], [90, 10], [90, 80], [10, 80]]]
    assert all(shape["flags"]["prediction"] for shape in proposals[3]["shapes"]), "still a proposal"

    dataset = read_dataset(place / "data/train", format="labelme")
    assert len(dataset.images) == 3 + 3 and not dataset.errors()
    record = RunFolder(Path(str(one.run))).read_record()
    assert (record["data"]["train_images"], record["data"]["val_images"]) == (6, 6)
    assert record["weights"]["source"] == str(model / "checkpoints/model_best.pth")
    assert record["finished"]["iterations"] == 4, "three passes over six images would be more than from the start"
    assert one.sentence is not None and one.sentence.startswith("Round 1 ") and "mask AP" in one.sentence
    assert "on 6 validation images" in one.sentence and one.sentence in lines
    compared = (
        d2tune.evaluate(model, data="data/val", out=place / "evaluation", metrics=["segm"]).metrics.segm["AP"].value
    )
    assert f"mask AP {compared:.1f} before" in one.sentence

    monkeypatch.setattr(training.launch, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        label_loop("loop.yaml", "new", labelme=editor(place, annotated(balloon_sample)), say=lines.append)
    two = state_of(place)["rounds"][1]
    assert Path(one.images[3].source).name in [Path(image["source"]).name for image in two["images"]]
    assert len(two["taken"]) == 2 and two["model"] in (one.run, one.model), "the earlier one if the round was worse"
    assert two["weights"] == str(Path(two["model"]) / "checkpoints/model_best.pth")


def test_a_fraction_of_the_images_validates_the_same_ones_in_all_rounds(
    balloon_sample: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of the photos is that of the training split, as ``d2tune new`` makes it."""
    photos = make_place(balloon_sample, place, train=".", val="0.4", labeled=5, in_val=0, new=8)
    for photo in photos:
        (place / "new" / photo.name).rename(place / "data" / photo.name)
    command = editor(place, annotated(balloon_sample, [0, 2]))
    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(training.launch, "train", stopped)
        with pytest.raises(KeyboardInterrupt):
            label_loop("loop.yaml", "data", images=4, labelme=command, say=lines.append)
    assert "4 images spread over the names, because there is no model yet" in lines
    state = state_of(place)
    assert state["rounds"][0]["stage"] == "train"
    val = set(read_list(Path(state["val_list"])))
    train = set(read_list(Path(state["base_list"])))
    assert len(val) == 2 and len(train) == 3 and not val & train
    (one,) = label_loop("loop.yaml", "data", images=4, labelme="false", say=lines.append)
    listed = {image.listed for image in one.taken}
    assert len(listed) == 2 and {path.name for path in (place / "data").glob("*.json")} == {
        Path(name).with_suffix(".json").name for name in val | train | listed
    }
    assert not (place / "data/label_loop").exists(), "the images were in the folder of the training images"
    run = RunFolder(Path(str(one.run)))
    project = load_project(run.project).project
    assert set(read_list(Path(project.data.train))) == train | listed
    record = run.read_record()
    assert (record["data"]["train_images"], record["data"]["val_images"]) == (5, 2)
    assert record["finished"]["iterations"] == 4 and one.weights is None, "from the start: the project's own"
    assert one.sentence is not None and "not compared" in one.sentence

    monkeypatch.setattr(training.launch, "train", stopped)
    command = editor(place, annotated(balloon_sample))
    with pytest.raises(KeyboardInterrupt):
        label_loop("loop.yaml", "data", images=9, labelme=command, say=lines.append)
    later = state_of(place)
    two = later["rounds"][1]
    assert len(two["taken"]) == 6 and two["model"] == one.run and two["weights"] == str(run.best)
    assert later["val_list"] == state["val_list"] and set(read_list(Path(later["val_list"]))) == val
    assert len(read_list(Path(two["train_list"]))) == 11 and not set(read_list(Path(two["train_list"]))) & val
    names = {image["listed"] for one in later["rounds"] for image in one["taken"]}
    assert read_list(Path(two["train_list"])).keys() == train | names


def test_lists_of_images(balloon_sample: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_place(balloon_sample, place, labeled=4, in_val=2, new=3)
    (place / "data/train.txt").write_text(
        "".join(f"train/{path.name}\n" for path in (place / "data/train").glob("*.jpg"))
    )
    (place / "data/val.txt").write_text("".join(f"val/{path.name}\n" for path in (place / "data/val").glob("*.jpg")))
    text = (place / "loop.yaml").read_text("utf-8").replace("train: train, val: val", "train: train.txt, val: val.txt")
    (place / "loop.yaml").write_text(text, "utf-8")
    written = (place / "data/train.txt").read_bytes()
    monkeypatch.setattr(training.launch, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        label_loop("loop.yaml", "new", labelme=editor(place, annotated(balloon_sample)), say=print)
    (one,) = state_of(place)["rounds"]
    names = set(read_list(Path(one["train_list"])))
    assert len(names) == 7 and len([name for name in names if name.startswith("label_loop/")]) == 3
    assert (place / "data/train.txt").read_bytes() == written, "the list of a person stays"
    state = loop.read_state(place / "runs/loop/label_loop")
    assert state is not None
    project = training.round_project(load_project("loop.yaml"), state, state.rounds[0]).project
    splits = training_splits(project)
    assert (len(splits.train.images), len(splits.val.images)) == (7, 2)


def training_splits(project: Any) -> Any:
    from d2tune.data.splits import load_splits

    return load_splits(project, sample=False)


def test_a_loop_that_is_killed_goes_on(
    balloon_sample: Path, place: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_place(balloon_sample, place, new=3)
    call = {"images": 3, "say": print, "labelme": editor(place, annotated(balloon_sample))}

    def killed(module: Any, name: str, after: int, **words: Any) -> None:
        original, calls = getattr(module, name), []

        def once(*arguments: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) > after:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, once)
            with pytest.raises(KeyboardInterrupt):
                label_loop("loop.yaml", "new", **call, **words)

    killed(choosing.os, "link", 1, model=model)
    assert state_of(place)["rounds"][0]["stage"] == "predict"
    assert len(list((place / "runs/loop/label_loop/round_1").glob("*.jpg"))) == 1
    killed(loop, "open_labelme", 0)
    assert state_of(place)["rounds"][0]["stage"] == "label"
    assert len(list((place / "runs/loop/label_loop/round_1").glob("*.json"))) == 3
    killed(taking, "_copy", 1)
    assert state_of(place)["rounds"][0]["stage"] == "take"
    added = place / "data/train/label_loop"
    assert len(list(added.glob("*.json"))) == 1
    killed(training.launch, "train", 0)
    assert len(list(added.glob("*.json"))) == len(list(added.glob("*.jpg"))) == 3
    run = Path(state_of(place)["rounds"][0]["run"])
    run.mkdir(parents=True)
    (run / "log.txt").write_text("killed before the first checkpoint", "utf-8")
    killed(training.launch, "train", 0)
    assert state_of(place)["rounds"][0]["run"] != str(run), "a run without a checkpoint cannot be continued"


def test_nothing_is_trained_where_nothing_was_changed(
    balloon_sample: Path, place: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_place(balloon_sample, place, new=2)
    monkeypatch.setattr(training.launch, "train", stopped)
    lines: list[str] = []
    assert label_loop("loop.yaml", "new", model=model, labelme="true", say=lines.append) == []
    assert lines[-1] == "no image was changed or checked, so nothing is trained; the same command opens Labelme again"
    folder = place / "runs/loop/label_loop/round_1"
    before = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    assert len(before) == 2 and not (place / "data/train/label_loop").exists()

    # labeled elsewhere: listed, and taken by the next call
    assert label_loop("loop.yaml", "new", opens=False, say=lines.append) == []
    assert (folder / "labels.txt").read_text("utf-8") == "balloon\n"
    for image in state_of(place)["rounds"][0]["images"]:
        assert str(Path("runs/loop/label_loop/round_1") / image["name"]) in lines
    assert label_loop("loop.yaml", "new", opens=False, say=lines.append) == []
    first = sorted(folder.glob("*.json"))[0]
    first.write_text(json.dumps(read_json(first) | {"flags": {"checked": True}}), "utf-8")
    with pytest.raises(KeyboardInterrupt):
        label_loop("loop.yaml", "new", labelme="false", say=lines.append)
    assert "1 image added to the training split; 1 image unchanged, not trained on" in lines


def test_weights_of_another_network_are_not_continued(
    balloon_sample: Path, place: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_place(balloon_sample, place)
    project, loaded = load_project("loop.yaml").project, load_model(model)
    assert training.starting_weights(loaded, project) == str(model / "checkpoints/model_best.pth")
    other = project.model_copy(update={"model": project.model.model_copy(update={"backbone": None})})
    assert training.starting_weights(loaded, other) is None
    assert "the training begins with the weights of the project" in caplog.text


def test_weights_that_are_given_are_named(
    balloon_sample: Path, place: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_place(balloon_sample, place)
    monkeypatch.setattr(training.launch, "train", stopped)
    lines: list[str] = []
    opened = editor(place, annotated(balloon_sample))
    with pytest.raises(KeyboardInterrupt):
        label_loop(
            "loop.yaml", "new", images=2, model=model, labelme=opened, overrides=["weights=scratch"], say=lines.append
        )
    assert f"the training begins with the weights that are given, not with those of {model}" in lines


def test_images_spread_over_the_names() -> None:
    values = np.array(choosing.spread(10, 3))
    assert np.argsort(-values)[:4].tolist() == [0, 3, 6, 9]
    assert np.argsort(-np.array(choosing.spread(3, 20))).tolist() == [0, 1, 2]
    assert sorted(np.argsort(-values).tolist()) == list(range(10))


def test_the_length_of_a_continued_training(place: Path, balloon_sample: Path) -> None:
    make_place(balloon_sample, place)
    project = load_project("loop.yaml").project
    long = project.model_copy(update={"train": project.train.model_copy(update={"iterations": 300})})
    assert training.continued_iterations(long, images=40) == 150
    assert training.continued_iterations(long, images=150) == 225  # three passes over 150 images in batches of 2
    assert training.continued_iterations(long, images=500) == 300  # never more than from the start
    assert Path(training.new_run_folder(project)).is_absolute()
