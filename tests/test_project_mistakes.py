"""Project files as people write them: every file of ``70_project_mistakes``, and inputs of the same kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from d2tune.errors import D2TuneError, ProjectError
from d2tune.project import Project, load_project, parse_overrides
from tests.shared_files import SHARED

FOLDER = SHARED / "strangers" / "70_project_mistakes"

READ: dict[str, dict[str, Any]] = {
    "My Balloons.yaml": {"name": "My_Balloons", "classes": ("balloon",)},
    "_x.yaml": {"name": "x"},
    "气球.yaml": {"name": "气球"},
    "batch_str.yaml": {"train.batch_size": "auto"},
    "case_class.yaml": {"classes": ("Balloon",)},
    "classes_background.yaml": {"classes": ("background", "balloon")},
    "classes_ignore.yaml": {"classes": ("_background_", "balloon")},
    "classes_null.yaml": {"classes": ()},
    "classes_space.yaml": {"classes": ("balloon",)},
    "crlf.yaml": {"classes": ("balloon",)},
    "env.yaml": {"data.root": FOLDER / "$HOME" / "data"},
    "iter_float.yaml": {"train.iterations": 500},
    "json_style.yaml": {"classes": ("balloon",)},
    "lr_1e-3.yaml": {"train.learning_rate": 0.001},
    "model_null.yaml": {"model.preset": "pointrend_r50_fpn"},
    "nan.yaml": {"train.learning_rate": 1e9},
    "same_folder.yaml": {"data.train": "train", "data.val": "train"},
    "tilde.yaml": {"data.root": Path("~/nowhere_data").expanduser()},
    "train_null.yaml": {"train.batch_size": 4},
    "two.yaml": {"train.iterations": 2},
    "two_more.yaml": {"classes": ("balloon", "car")},
    "utf16.yaml": {"classes": ("balloon",)},
    "val_dot.yaml": {"data.train": ".", "data.val": "val"},
    "val_dot_train.yaml": {"data.train": "."},
    "val_missing_folder.yaml": {"data.val": "valid"},
    "weights_missing.yaml": {"weights": str(FOLDER / "nowhere.pth")},
}
"""Files that are read, and what they say."""

REFUSED = {
    "anchor.yaml": ["unknown key 'x'"],
    "backslash.yaml": ["line 1", "unknown escape character", "single quotes"],
    "class_string.yaml": ["classes: must be a list of names; found 'balloon'", "classes: [balloon]"],
    "classes_bool.yaml": ["classes.0: must be text; found True", "quotes"],
    "classes_dict.yaml": ["classes: must be a list of names", "classes: [balloon]"],
    "classes_dup.yaml": ["'balloon' is named twice"],
    "classes_empty_str.yaml": ["classes: the name is empty"],
    "classes_num.yaml": ["classes.0: must be text; found 1", "quotes"],
    "data_null.yaml": ["data.root is missing", "data: {root: FOLDER}"],
    "dup_nested.yaml": ["data: the key 'train' is written twice", "line 3 and line 4"],
    "dup_top.yaml": ["the key 'data' is written twice", "line 1 and line 3"],
    "empty.yaml": ["is not a project", "an empty file"],
    "epochs_str.yaml": ["train.epochs: must be a number above 0; found 'ten'"],
    "img_tuple.yaml": ["must be a whole number from 32 to 4096, or original", "[640, 480]"],
    "iter_zero.yaml": ["train.iterations: must be a whole number above 0; found 0"],
    "lists.yaml": ["data.train: must be a folder or file", "d2tune split"],
    "lr_neg.yaml": ["must be a number above 0, or auto; found -0.1"],
    "multi_doc.yaml": ["line 4", "single document"],
    "nodata.yaml": ["data is missing"],
    "preset_typo.yaml": ["Did you mean 'pointrend_r50_fpn'?"],
    "tabs.yaml": ["line 3", "spaces"],
    "val0.0.yaml": ["must be a folder or file, or a number between 0 and 1; found 0.0", "0.2"],
    "val0.yaml": ["must be a folder or file, or a number between 0 and 1; found 0.", "0.2"],
    "val1.0.yaml": ["must be a folder or file, or a number between 0 and 1; found 1.0"],
    "val1.yaml": ["must be a folder or file, or a number between 0 and 1; found 1."],
    "val20.yaml": ["must be a folder or file, or a number between 0 and 1; found 20"],
    "val20p.yaml": ["the text '20%'", "write 0.2, without quotes"],
    "val_null.yaml": ["data.val: is empty", "default, 'val'"],
    "val_str02.yaml": ["the text '0.2'", "write 0.2, without quotes", "./0.2"],
}
"""Files that are refused, and words of the line."""


def value_at(project: Project, key: str) -> Any:
    value: Any = project
    for name in key.split("."):
        value = getattr(value, name)
    return value


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(ProjectError) as caught:
        load_project(path, **options)
    line = caught.value.one_line()
    assert "\n" not in line
    return line


def written(folder: Path, text: str, name: str = "pets.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_file_is_in_a_table() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} == set(READ) | set(REFUSED)


@pytest.mark.parametrize("name", READ)
def test_what_is_read(name: str) -> None:
    project = load_project(FOLDER / name).project
    for key, value in READ[name].items():
        assert value_at(project, key) == value


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    line = refusal(FOLDER / name)
    assert name in line
    for words in REFUSED[name]:
        assert words in line


@pytest.mark.parametrize("value", ["large", "0", "2.5"])
def test_a_batch_size_that_is_neither_a_number_nor_auto(tmp_path: Path, value: str) -> None:
    line = refusal(written(tmp_path, f"data: {{root: a}}\ntrain: {{batch_size: {value}}}\n"))
    assert "train.batch_size: must be" in line and value in line and "auto" in line


@pytest.mark.parametrize(
    ("text", "lines", "key"),
    [
        ("data: {root: a}\nclasses: [b]\n'data': {root: c}\n", "line 1 and line 3", "'data'"),
        ("data: {root: a, root: b}\n", "line 1 and line 1", "'root'"),
        ("data: {root: a}\nprofiles:\n  cpu: {train: {epochs: 1}}\n  cpu: {}\n", "line 3 and line 4", "'cpu'"),
        ("data: {root: a}\ndetectron2:\n  MODEL:\n    A: 1\n    A: 2\n", "line 4 and line 5", "'A'"),
        ("data: {root: a, rename: {cat: x,\n  cat: y}}\n", "line 1 and line 2", "'cat'"),
        ("data:\n  root: a\n  label_images: {values: {0: a, 0x0: b}}\n", "line 3 and line 3", "'0x0'"),
        ("data: {root: a}\nlists: [{b: 1,\n b: 2}]\n", "line 2 and line 3", "'b'"),
        ("p: &p {b: 1}\ndata:\n  <<: *p\n  <<: *p\n", "line 3 and line 4", "'<<'"),
    ],
)
def test_a_key_that_is_written_twice(tmp_path: Path, text: str, lines: str, key: str) -> None:
    line = refusal(written(tmp_path, text))
    assert f"the key {key} is written twice; found {lines}" in line


def test_a_key_of_detectron2_nested_and_dotted(tmp_path: Path) -> None:
    text = "data: {root: a}\ndetectron2: {SOLVER: {MOMENTUM: 0.8}, SOLVER.MOMENTUM: 0.9}\n"
    assert "'SOLVER.MOMENTUM' is there twice" in refusal(written(tmp_path, text))


def test_a_profile_replaces_keys_of_detectron2_however_they_are_written(tmp_path: Path) -> None:
    text = "data: {root: a}\ndetectron2: {SOLVER.MOMENTUM: 0.8, SOLVER.GAMMA: 0.2}\n"
    text += "profiles: {cpu: {detectron2: {SOLVER: {MOMENTUM: 0.7}}}}\n"
    assert load_project(written(tmp_path, text)).project.detectron2 == {"SOLVER.MOMENTUM": 0.7, "SOLVER.GAMMA": 0.2}


def test_anchors_and_merges(tmp_path: Path) -> None:
    text = (
        "data: {root: a}\n"
        "train: &usual\n  batch_size: 2\n  epochs: 3\n"
        "profiles:\n"
        "  cpu: {train: &small {<<: *usual, epochs: 7}}\n"
        "  gpu: {train: {<<: [{seed: 5}, *small], batch_size: 16}}\n"
        "  again: {train: *small}\n"
    )
    path = written(tmp_path, text)
    small = load_project(path, hardware="cpu").project.train
    assert (small.batch_size, small.epochs, small.seed) == (2, 7, 0)
    large = load_project(path, hardware="gpu").project.train
    assert (large.batch_size, large.epochs, large.seed) == (16, 7, 5)
    assert load_project(path, profile="again").project.train == small


def test_an_alias_of_itself(tmp_path: Path) -> None:
    line = refusal(written(tmp_path, "data: {root: a}\ndetectron2: &a\n  B: *a\n"))
    assert "an alias contains itself" in line and "line 2" in line


def test_sections_with_every_key_commented_out(tmp_path: Path) -> None:
    keys = "model:\n  # preset: x\ntrain:\n  # epochs: 3\ndetectron2:\nclasses:\nthings:\nstuff:\nprofiles:\n  cpu:\n"
    path = written(tmp_path, f"data:\n  root: a\n  label_images:\n  rename:\n{keys}  gpu: {{train: }}\n")
    for hardware in ("cpu", "gpu"):
        project = load_project(path, hardware=hardware).project
        expected = Project.model_validate({"name": "pets", "data": {"root": tmp_path / "a"}})
        assert project == expected
    assert load_project(written(tmp_path, f"data: {{root: a}}\n{keys}")).project == expected
    assert load_project(path, overrides={"train": None}).project == expected


def test_an_empty_section_of_a_profile_leaves_the_project_as_it_is(tmp_path: Path) -> None:
    text = "data: {root: a}\nclasses: [b]\ntrain: {epochs: 3}\nprofiles: {cpu: {train: , classes: , model: }}\n"
    project = load_project(written(tmp_path, text)).project
    assert (project.train.epochs, project.classes) == (3, ("b",))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train: {batch_size: }", "train.batch_size: is empty, but must be a whole number of 1 or more"),
        ("train: {learning_rate: .nan}", "must be a number above 0, or auto; found nan"),
        ("train: {learning_rate: .inf}", "must be a number above 0, or auto; found inf"),
        ("train: {eval_every: -1}", "must be a whole number of 0 or more, or auto; found -1"),
        ("train: {workers: 1.5}", "must be a whole number of 0 or more, or auto; found 1.5"),
        ("train: {iterations: 5.5}", "must be a whole number above 0; found 5.5"),
        ("train: {patch_balance: 2}", "must be a number from 0 to 1; found 2"),
        ("train: {precision: half}", "must be auto, float32"),
        ("train: {precision: bfloat}", "Did you mean 'bfloat16'?"),
        ("train: {seed: 4294967296}", "must be a whole number from 0 and below 2147483648"),
        ("train: {scale_jitter: 0.5}", "must be a list of 2, each a number; found 0.5"),
        ("train: {schedule: linear}", "must be cosine, step or constant; found 'linear'"),
        ("train: {steps: [0.5]}", "steps are for schedule: step; found schedule: cosine"),
        ("train: {schedule: step, steps: [0.9, 0.6]}", "must be rising shares of the training; found [0.9, 0.6]"),
        ("train: {schedule: step, steps: 0.5}", "a number between 0 and 1; found 0.5. Write a list: steps: [0.5]."),
        ("train: {schedule: step, steps: [200]}", "train.steps.0: must be a number between 0 and 1; found 200"),
        ("train: {iterations: 9, warmup: 9}", "warmup must be less than iterations, 9; found 9"),
        ("train: {optimizer: adam}", "must be auto, adamw or sgd; found 'adam'"),
        ("train: {ema_decay: 1}", "must be a number from 0 and below 1, or auto; found 1"),
        ("train: [1]", "train: must be a section of keys; found [1]"),
        ("model: {class_weights: even}", "must be a list, each item a number of 0 or more, or none or balanced"),
        ("model: {output_stride: 4}", "must be 8 or 16; found 4"),
        ("model: {loss: {dice: -1}}", "model.loss.dice: must be a number above 0; found -1"),
        ("model: {preset: zzzz}", "no preset 'zzzz'. The presets are: "),
        ("task: pixel", "task: must be instance, semantic, panoptic or tracking; found 'pixel'"),
        ("tracking: wandbb", "Did you mean 'wandb'?"),
        ("name: My Balloons", "Write name: My_Balloons"),
        ("name: 2024", "name: must be text; found 2024. Names that YAML reads as numbers"),
        ("weights: ''", "weights: must be auto, scratch, a file or a URL; found ''"),
        ("weights_sha256: abc", "must be 64 hexadecimal digits; found 'abc'"),
        ("classes: [a, 'a ']", "'a' is named twice"),
        ("classes: [a, '  ']", "the name is empty"),
        ('classes: ["a\\nb"]', "must be on one line"),
        ("classes: cat, dog", "classes: [cat, dog]"),
        ("task: semantic\nmodel: {preset: unet}\ntrain: {patch_size: 16}", "must be a whole number from 32 to 4096"),
        ("task: semantic\nthings: [a]\nstuff: road", "stuff: must be a list of names"),
        ("classes: [2024-02-31]", "is not valid YAML: day is out of range"),
    ],
)
def test_values_are_refused_with_everything_that_is_valid(tmp_path: Path, line: str, words: str) -> None:
    assert words in refusal(written(tmp_path, f"data: {{root: a}}\n{line}\n"))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("-0.2", "found -0.2"),
        ("true", "found True"),
        ("1.5", "found 1.5"),
        (".nan", "found nan"),
        ("'0.2'", "write 0.2, without quotes"),
        ("'.25'", "write 0.25, without quotes"),
        ("20 %", "write 0.2, without quotes"),
        ("'1.5'", "write a fraction such as 0.2"),
        ("100%", "write a fraction such as 0.2"),
        ("''", "must be a folder or file, or a number between 0 and 1; found ''"),
        ("[val, test]", "d2tune split"),
    ],
)
def test_validation_splits_that_are_neither_folder_nor_fraction(tmp_path: Path, value: str, words: str) -> None:
    line = refusal(written(tmp_path, f"data: {{root: a, val: {value}}}\n"))
    assert "data.val: " in line and "between 0 and 1" in line and words in line


@pytest.mark.parametrize("value", ["2017", "./0.2", "v1.0", "val.txt", "20"])
def test_folders_whose_names_look_like_numbers(tmp_path: Path, value: str) -> None:
    assert load_project(written(tmp_path, f"data: {{root: a, val: '{value}'}}\n")).project.data.val == value


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("format: coco, csv_preset: airbus", "data.csv_preset is for data.format: rle, and the format is coco"),
        ("label_images: {labels: masks}", "data.label_images is for data.format: label_images, and the format is auto"),
        ("format: masks, label_images: {values: {0: a}}", "and the format is masks; set the format"),
    ],
)
def test_keys_that_a_format_does_not_use(tmp_path: Path, keys: str, words: str) -> None:
    assert words in refusal(written(tmp_path, f"task: semantic\ndata: {{root: a, {keys}}}\n"))


def test_an_empty_root(tmp_path: Path) -> None:
    assert "data.root: the path is empty" in refusal(written(tmp_path, "data: {root: ' '}\n"))


def test_numbers_in_every_notation(tmp_path: Path) -> None:
    text = (
        "task: semantic\n"
        "data: {root: a, sample_images: 2e1, split_seed: 3.0, format: label_images,\n"
        "  label_images: {nodata: -3.4e38, channels: [0.0, 1]}}\n"
        "model: {preset: unet, loss: {dice: 5e-1}, class_weights: [1e-1, 2]}\n"
        "train: {iterations: 5.0e+2, batch_size: '8', learning_rate: .5e-3, patch_balance: 1e-1, seed: 1e3}\n"
    )
    project = load_project(written(tmp_path, text)).project
    assert (project.data.sample_images, project.data.split_seed) == (20, 3)
    assert (project.data.label_images.nodata, project.data.label_images.channels) == (-3.4e38, (0, 1))
    assert (project.model.loss, project.model.class_weights) == ({"dice": 0.5}, (0.1, 2.0))
    train = project.train
    assert (train.iterations, train.batch_size, train.learning_rate) == (500, 8, 0.0005)
    assert (train.patch_balance, train.seed) == (0.1, 1000)
    assert all(isinstance(value, int) for value in (train.iterations, train.batch_size, train.seed))


def test_numbers_on_the_command_line_and_names_that_look_like_numbers(tmp_path: Path) -> None:
    words = ["train.iterations=5e2", "classes=[1e5, b]", "data.background=1e5", "task=semantic"]
    project = load_project(written(tmp_path, "data: {root: a}\n"), overrides=parse_overrides(words)[0]).project
    assert (project.train.iterations, project.classes, project.data.background) == (500, ("1e5", "b"), "1e5")
    with pytest.raises(ProjectError, match="the key 'a' is written twice"):
        parse_overrides(["data.rename={a: b, a: c}"])


def test_class_names_lose_their_blanks_as_labels_do(tmp_path: Path) -> None:
    text = (
        "task: semantic\ndata: {root: a, background: 'sky ', class_name: ' b', rename: {' old ': ' b', drop: }}\n"
        "classes: [' b', 'sky ']\n"
    )
    project = load_project(written(tmp_path, text)).project
    assert project.classes == ("b", "sky")
    assert (project.data.background, project.data.class_name) == ("sky", "b")
    assert project.data.rename == {"old": "b", "drop": None}
    assert "'a' is named twice" in refusal(written(tmp_path, "data: {root: a, rename: {a: b, 'a ': c}}\n"))


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("My Balloons", "My_Balloons"),
        ("气球", "气球"),
        ("éte\u0301", "été"),
        ("2024-05 (copy)", "2024-05_copy"),
        ("$(rm)", "rm"),
        ("...", "project"),
        ("🎈", "project"),
        ("a" * 200, "a" * 80),
    ],
)
def test_a_project_without_a_name_takes_one_from_its_file(tmp_path: Path, stem: str, name: str) -> None:
    assert load_project(written(tmp_path, "data: {root: a}\n", f"{stem}.yaml")).project.name == name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"data: {root: caf\xe9}\n", "is not UTF-8 text"),
        (b"data: {root: a}\x00\n", "is not valid YAML"),
        (b"# nothing\n", "an empty file"),
        (b"- data\n", "found list"),
        (b"data: " + b"[" * 3000, "is not valid YAML"),
    ],
)
def test_files_without_a_project(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "pets.yaml"
    path.write_bytes(content)
    assert words in refusal(path)


def test_a_folder_in_place_of_a_project_file(tmp_path: Path) -> None:
    with pytest.raises(D2TuneError, match=r"is a folder; expected a project file.*--resume --output-dir FOLDER"):
        load_project(tmp_path)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfdata: {root: a}\r\n", "data: {root: a}\n".encode("utf-16")])
def test_files_with_byte_order_marks(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pets.yaml"
    path.write_bytes(content)
    assert load_project(path).project.data.root == tmp_path / "a"
