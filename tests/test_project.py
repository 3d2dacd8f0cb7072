from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from d2tune.errors import ProjectError
from d2tune.project import (
    Length,
    evaluation_period,
    fitting_length,
    load_project,
    parse_overrides,
    planned_length,
    preset_names,
)

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


@pytest.mark.parametrize(
    "overrides",
    [{"train.budget": "3s", "train.iterations": None}, {"train.epochs": None, "train.budget": "3s"}],
    ids=["then nothing", "nothing before"],
)
def test_a_length_that_is_not_set_replaces_no_other(tmp_path: Path, overrides: dict[str, object]) -> None:
    path = written(tmp_path, MINIMAL | {"train": {"epochs": 9}})
    train = load_project(path, overrides=overrides).project.train
    assert (train.budget, train.iterations, train.epochs) == (3.0, None, None)
    kept = load_project(path, overrides={"train.iterations": None}).project.train
    assert (kept.epochs, kept.iterations) == (9, None)


def test_words_of_projects_and_of_detectron2() -> None:
    words = ["train.iterations=500", "SOLVER.BASE_LR=1e-3", "MODEL.MASK_ON", "False", "classes=[a, b]", "name=x=y"]
    project, detectron2 = parse_overrides(words)
    assert project == {"train.iterations": 500, "classes": ["a", "b"], "name": "x=y"}
    assert detectron2 == {"SOLVER.BASE_LR": 0.001, "MODEL.MASK_ON": False}


@pytest.mark.parametrize("words", [["train.iterations"], ["--nonsense", "3"], ["train.iterations", "train.seed=1"]])
def test_a_word_without_a_value_is_refused(words: list[str]) -> None:
    with pytest.raises(ProjectError, match="is not an override"):
        parse_overrides(words)


@pytest.mark.parametrize("words", [["train.budget=90", "s"], ["train.budget=90", "s", "train.seed=1"]])
def test_a_value_with_blanks_needs_quotes(words: list[str]) -> None:
    with pytest.raises(ProjectError, match=r"'s' is not an override; .* needs quotes: 'train.budget=90 s'"):
        parse_overrides(words)


SHIPPED = sorted(path.stem for path in (ROOT / "projects").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("hardware", ["gpu", "cpu"])
def test_shipped_projects_are_valid(name: str, hardware: Literal["gpu", "cpu"]) -> None:
    loaded = load_project(ROOT / "projects" / f"{name}.yaml", hardware=hardware)
    assert loaded.project.model.preset in preset_names()
    assert loaded.profile == hardware


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in ("demo", "crops", "membrane")])
@pytest.mark.parametrize("hardware", ["gpu", "cpu"])
def test_the_length_of_a_shipped_project_follows_from_the_data(name: str, hardware: Literal["gpu", "cpu"]) -> None:
    """The demo has images of its own; the others are trained on patches, of which an image has many."""
    train = load_project(ROOT / "projects" / f"{name}.yaml", hardware=hardware).project.train
    assert (train.epochs, train.iterations) == (None, None)


@pytest.mark.parametrize(
    ("task", "images", "batch_size", "on_gpu", "iterations", "note"),
    [
        ("instance", 14, 4, False, 260, "24 epochs of 14 images would be 84, too few"),
        ("instance", 18, 4, False, 260, "24 epochs of 18 images would be 108, too few"),
        ("instance", 48, 4, False, 288, "24 epochs"),
        ("instance", 61, 4, False, 366, "24 epochs"),
        ("instance", 240, 4, False, 400, "24 epochs of 240 images would be 1440, a long time"),
        ("instance", 2400, 4, False, 1800, "24 epochs of 2,400 images would be 14400, a long time"),
        ("instance", 14, 4, True, 600, "40 epochs of 14 images would be 140, too few"),
        ("instance", 240, 4, True, 2400, "40 epochs"),
        ("instance", 2400, 4, True, 20000, "40 epochs of 2,400 images would be 24000, a long time"),
        ("instance", 118_287, 16, True, 22179, "40 epochs of 118,287 images would be 295718, a long time"),
        ("semantic", 64, 8, False, 200, "12 epochs of 64 images would be 96, too few"),
        ("semantic", 256, 8, False, 384, "12 epochs"),
        ("panoptic", 96, 4, False, 200, "8 epochs of 96 images would be 192, too few"),
        ("panoptic", 1, 1, False, 200, "8 epochs of 1 image would be 8, too few"),
    ],
)
def test_the_length_that_fits_a_number_of_images(
    task: Any, images: int, batch_size: int, on_gpu: bool, iterations: int, note: str
) -> None:
    length = fitting_length(task, images=images, batch_size=batch_size, on_gpu=on_gpu)
    assert (length.iterations, length.recommended) == (iterations, None)
    assert length.note == f"chosen by the number of images: {note}"


@pytest.mark.parametrize(
    ("train", "images", "iterations", "recommended"),
    [
        ({"iterations": 84}, 14, 84, 260),
        ({"epochs": 24}, 14, 84, 260),
        ({"epochs": 0.001}, 14, 1, 260),
        ({"iterations": 260}, 14, 260, None),
        ({"iterations": 400}, 2400, 400, 1800),
        ({"epochs": 3}, 2400, 1800, None),
    ],
)
def test_a_length_that_a_project_says_is_kept_and_judged(
    tmp_path: Path, train: dict[str, float], images: int, iterations: int, recommended: int | None
) -> None:
    project = load_project(written(tmp_path, MINIMAL | {"train": train})).project
    length = planned_length(project, images=images, on_gpu=False)
    assert length == Length(iterations=iterations, recommended=recommended)


@pytest.mark.parametrize("iterations", [1, 2, 5, 6, 8, 9, 11, 14, 84, 260, 366, 20_000])
def test_about_five_evaluations_whatever_the_length(iterations: int) -> None:
    period = evaluation_period("auto", iterations)
    assert min(iterations, 3) <= -(-iterations // period) <= 5
    assert evaluation_period(7, iterations) == 7 and evaluation_period(0, iterations) == 0


@pytest.mark.parametrize("written", ["{MODEL.BRIDGE.WIDTH: 16}", "{MODEL: {BRIDGE: {WIDTH: 16}}}"])
@pytest.mark.parametrize(
    "overrides", [{"detectron2.MODEL.BRIDGE.WIDTH": 4}, {"detectron2.MODEL": {"BRIDGE": {"WIDTH": 4}}}]
)
def test_a_raw_key_of_the_command_line_replaces_that_of_the_file(
    tmp_path: Path, written: str, overrides: dict[str, object]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"data: {{root: .}}\ndetectron2: {written}\n", encoding="utf-8")
    assert load_project(path, overrides=overrides).project.detectron2 == {"MODEL.BRIDGE.WIDTH": 4}


def test_raw_keys_in_the_file_are_the_keys_of_the_project(tmp_path: Path) -> None:
    raw = {"SOLVER": {"MAX_ITER": 6, "IMS_PER_BATCH": 3, "BASE_LR": 0.1}, "TEST.EVAL_PERIOD": 2, "SEED": 5}
    path = written(tmp_path, MINIMAL | {"train": {"iterations": 30}, "detectron2": raw})
    project = load_project(path).project
    train = project.train
    assert (train.iterations, train.batch_size, train.eval_every, train.seed) == (6, 3, 2, 5)
    assert project.detectron2 == {"SOLVER.BASE_LR": 0.1}
    assert load_project(path, overrides={"train.iterations": 9}).project.train.iterations == 9
    assert load_project(path, overrides={"detectron2.SOLVER.MAX_ITER": 7}).project.train.iterations == 7
    longer = load_project(path, overrides={"train.budget": "90 s"}).project.train
    assert (longer.iterations, longer.budget) == (None, 90.0)
    with pytest.raises(ProjectError, match=r"detectron2: SOLVER\.MAX_ITER and train\.budget are both set; keep one"):
        load_project(written(tmp_path, MINIMAL | {"train": {"budget": "90 s"}, "detectron2": raw}, "timed.yaml"))
    with pytest.raises(ProjectError, match=r"train: accumulate must divide batch_size, 3; found 2"):
        load_project(path, overrides={"train.accumulate": 2})


def test_raw_keys_of_the_project_and_of_its_profiles(tmp_path: Path) -> None:
    raw = {"detectron2": {"SOLVER.MAX_ITER": 6, "SOLVER.IMS_PER_BATCH": 3}}
    profiles = {"own": {"train": {"iterations": 9}}, "raw": {"detectron2": {"SOLVER.MAX_ITER": 7}}}
    lengths = {"epochs": {"epochs": 2}, "budget": {"budget": "90 s"}}
    path = written(
        tmp_path, MINIMAL | raw | {"profiles": profiles | {key: {"train": one} for key, one in lengths.items()}}
    )
    for name, iterations in (("own", 9), ("raw", 7), ("epochs", None), ("budget", None)):
        train = load_project(path, profile=name).project.train
        assert (train.iterations, train.batch_size) == (iterations, 3)
    assert (train.epochs, train.budget) == (None, 90.0)
    both = MINIMAL | {"profiles": {"cpu": {"train": {"epochs": 2}, "detectron2": {"SOLVER.MAX_ITER": 7}}}}
    with pytest.raises(
        ProjectError, match=r"profiles\.cpu\.detectron2: SOLVER\.MAX_ITER and train\.epochs are both set"
    ):
        load_project(written(tmp_path, both, "both.yaml"))
