from pathlib import Path

import pytest
import yaml

from d2tune.errors import ProjectError
from d2tune.project import load_project, parse_overrides, preset_names

ROOT = Path(__file__).resolve().parents[1]
MINIMAL = {"data": {"root": "photos"}, "classes": ["cat", "dog"]}


def written(folder: Path, content: object, name: str = "pets.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_defaults_and_paths_relative_to_the_file(tmp_path: Path) -> None:
    loaded = load_project(written(tmp_path, MINIMAL))
    assert loaded.project.name == "pets"
    assert loaded.project.data.root == tmp_path / "photos"
    assert loaded.project.classes == ("cat", "dog")
    assert loaded.project.weights == "auto"
    assert loaded.project.data.annotations == "."
    assert loaded.profile is None


def test_resolved_project_reads_back_equal(tmp_path: Path) -> None:
    loaded = load_project(written(tmp_path, MINIMAL | {"train": {"epochs": 3, "scale_jitter": [0.5, 1]}}))
    again = tmp_path / "again.yaml"
    again.write_text(loaded.project.to_yaml(), encoding="utf-8")
    assert load_project(again).project == loaded.project


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        (MINIMAL | {"clases": []}, "clases", "Did you mean 'classes'?"),
        (MINIMAL | {"train": {"learning_rte": 1}}, "train.learning_rte", "Did you mean 'learning_rate'?"),
        (MINIMAL | {"profiles": {"cpu": {"modle": {}}}}, "profiles.cpu.modle", "Did you mean 'model'?"),
        (MINIMAL | {"model": {"preset": "pointrend_r50"}}, "model.preset", "'pointrend_r50_fpn'"),
        (MINIMAL | {"train": {"epochs": 1, "iterations": 2}}, "train", "keep one of them"),
        (MINIMAL | {"train": {"batch_size": "four"}}, "train.batch_size", "'four'"),
        (MINIMAL | {"train": {"batch_size": 0}}, "train.batch_size", "a whole number of 1 or more"),
        (MINIMAL | {"classes": ["cat", "cat"]}, "classes", "named twice"),
        (MINIMAL | {"model": {"backbone": "resnet18"}}, "model.backbone", "torchvision/"),
        ({"classes": ["cat"]}, "data is missing", "data is missing"),
        ([1, 2], "list", "keys such as task"),
    ],
)
def test_an_invalid_value_is_one_line_with_its_place(tmp_path: Path, content: object, place: str, words: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ProjectError) as caught:
        load_project(path)
    line = str(caught.value)
    assert str(path) in line and place in line and words in line
    assert "\n" not in line


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    written(tmp_path, MINIMAL, "balloon.yaml")
    with pytest.raises(ProjectError, match=r"no such project file.*Did you mean .*balloon\.yaml"):
        load_project(tmp_path / "baloon.yaml")


def test_broken_yaml_says_the_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("task: instance\ndata: {root: [\n", encoding="utf-8")
    with pytest.raises(ProjectError, match="line 3"):
        load_project(path)


def test_numbers_that_yaml_takes_for_text(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    text = "data: {root: x}\ntrain: {learning_rate: 1e-4}\nprofiles: {cpu: {train: {learning_rate: 2e-4}}}\n"
    path.write_text(text, encoding="utf-8")
    assert load_project(path, hardware="cpu").project.train.learning_rate == 2e-4
    assert load_project(path, hardware="gpu").project.train.learning_rate == 1e-4


def test_profiles_follow_the_hardware_and_the_wish(tmp_path: Path) -> None:
    profiles = {"gpu": {"train": {"image_size": 800}}, "cpu": {"train": {"image_size": 320, "iterations": 5}}}
    path = written(tmp_path, MINIMAL | {"train": {"batch_size": 2, "epochs": 9}, "profiles": profiles})
    assert load_project(path, hardware="gpu").project.train.image_size == 800
    cpu = load_project(path, hardware="cpu")
    assert (cpu.profile, cpu.project.train.image_size, cpu.project.train.batch_size) == ("cpu", 320, 2)
    assert (cpu.project.train.epochs, cpu.project.train.iterations) == (None, 5)
    assert load_project(path, hardware="cpu", profile="gpu").profile == "gpu"
    with pytest.raises(ProjectError, match="has no profile 'tpu'"):
        load_project(path, profile="tpu")


def test_overrides_come_last_and_replace_their_rival(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL | {"train": {"epochs": 9}, "profiles": {"cpu": {"train": {"epochs": 4}}}})
    train = load_project(path, overrides={"train.iterations": 500}).project.train
    assert (train.iterations, train.epochs) == (500, None)


def test_words_of_projects_and_of_detectron2() -> None:
    words = ["train.iterations=500", "SOLVER.BASE_LR=1e-3", "MODEL.MASK_ON", "False", "classes=[a, b]", "name=x=y"]
    project, detectron2 = parse_overrides(words)
    assert project == {"train.iterations": 500, "classes": ["a", "b"], "name": "x=y"}
    assert detectron2 == {"SOLVER.BASE_LR": 0.001, "MODEL.MASK_ON": False}


@pytest.mark.parametrize("words", [["train.iterations"], ["--nonsense", "3"]])
def test_a_word_without_a_value_is_refused(words: list[str]) -> None:
    with pytest.raises(ProjectError, match="is not an override"):
        parse_overrides(words)


@pytest.mark.parametrize("name", ["balloon", "chipset", "faces", "demo"])
@pytest.mark.parametrize("hardware", ["gpu", "cpu"])
def test_shipped_projects_are_valid(name: str, hardware: str) -> None:
    loaded = load_project(ROOT / "projects" / f"{name}.yaml", hardware=hardware)  # type: ignore[arg-type]
    assert loaded.project.model.preset in preset_names()
    assert loaded.profile == hardware
