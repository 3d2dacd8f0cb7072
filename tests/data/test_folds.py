"""Folds: every image is validated on once, near-duplicates stay together, and nothing else depends on the split."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from d2tune import cli
from d2tune.checking import check
from d2tune.data.folds import join
from d2tune.data.splits import load_splits, load_validation
from d2tune.errors import DataError
from d2tune.loggers.chosen import group_of
from d2tune.project import LoadedProject, load_project
from d2tune.runs.evaluate import _with_images
from tests.annotations.builders import labelme_value, shape

SIZE = 64


def write_image(folder: Path, name: str, label: str, *, seed: int) -> None:
    """An image of noise, which has no near-duplicates, with a square in it."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(folder / f"{name}.png")
    points = [[10, 10], [40, 10], [40, 40], [10, 40]]
    value = labelme_value(shape(points, label), image=f"{name}.png", size=(SIZE, SIZE))
    (folder / f"{name}.json").write_text(json.dumps(value))


def loaded(tmp_path: Path, **data: object) -> LoadedProject:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump({"classes": ["a", "b"], "data": {"root": str(tmp_path), **data}}))
    return load_project(path)


@pytest.fixture
def two_folders(tmp_path: Path) -> Path:
    """Nine images in ``train`` and three in ``val``, some with the same names; class b is on every third image."""
    for number in range(12):
        folder, name = ("train", number) if number < 9 else ("val", number - 9)
        write_image(tmp_path / folder, f"{name:02d}", "b" if number % 3 == 0 else "a", seed=number)
    return tmp_path


def test_each_image_is_validated_on_once(two_folders: Path) -> None:
    whole = loaded(two_folders)
    seen: list[str] = []
    for number in range(4):
        splits = load_splits(whole.with_fold(number, of=4).project)
        train, val = ({image.file_name for image in split.images} for split in (splits.train, splits.val))
        assert not train & val and len(train | val) == 12
        assert len(val) == 3 and set(splits.val.counts().values()) == {1, 2}  # b on one of three images
        for split in (splits.train, splits.val):
            assert [image.id for image in split.images] == list(range(1, len(split.images) + 1))
            assert {instance.image_id for instance in split.instances} == {image.id for image in split.images}
            assert all(image.path == two_folders / image.file_name for image in split.images)
        seen += val
    assert sorted(seen) == [*(f"train/{n:02d}.png" for n in range(9)), *(f"val/{n:02d}.png" for n in range(3))]


def test_a_fraction_is_not_set_aside_from_folds(two_folders: Path) -> None:
    whole = loaded(two_folders, val=0.3)
    seen = [
        image.file_name
        for number in range(3)
        for image in load_splits(whole.with_fold(number, of=3).project).val.images
    ]
    assert sorted(seen) == [f"{number:02d}.png" for number in range(9)]  # those of data.train alone


def test_near_duplicates_are_in_one_fold(tmp_path: Path) -> None:
    for number in range(6):
        write_image(tmp_path / "train", f"{number}", "a", seed=number)
    with Image.open(tmp_path / "train/0.png") as image:
        (tmp_path / "val").mkdir()
        brighter = Image.fromarray((np.asarray(image) * 0.97).astype(np.uint8))
    brighter.save(tmp_path / "val/copy.png")
    shutil.copy(tmp_path / "train/0.json", tmp_path / "val/copy.json")
    value = json.loads((tmp_path / "val/copy.json").read_text()) | {"imagePath": "copy.png"}
    (tmp_path / "val/copy.json").write_text(json.dumps(value))
    for number in range(3):
        splits = load_splits(loaded(tmp_path).with_fold(number, of=3).project)
        val = {image.file_name for image in splits.val.images}
        assert ("train/0.png" in val) == ("val/copy.png" in val)


def test_ids_of_files_are_kept_only_where_they_are_distinct(two_folders: Path) -> None:
    def coco(path: Path, ids: list[int]) -> None:
        images = [{"id": one, "file_name": f"{n:02d}.png", "width": SIZE, "height": SIZE} for n, one in enumerate(ids)]
        square = {"bbox": [10, 10, 30, 30], "area": 900, "segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]]}
        rows = [{"id": n, "image_id": one, "category_id": 1 + n % 2, **square} for n, one in enumerate(ids)]
        names = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
        path.write_text(json.dumps({"images": images, "annotations": rows, "categories": names}))

    images = {"train": "train", "val": "val"}
    keys = {"train": "train.json", "val": "val.json", "images": images, "format": "coco"}
    coco(two_folders / "train.json", [5, 6, 7, 8])
    coco(two_folders / "val.json", [5, 6])
    val = load_splits(loaded(two_folders, **keys).with_fold(0, of=2).project).val
    assert val.source_image_ids() == {image.id: image.id for image in val.images}
    coco(two_folders / "val.json", [15, 16])
    ids = [
        one
        for number in range(2)
        for one in load_splits(loaded(two_folders, **keys).with_fold(number, of=2).project)
        .val.source_image_ids()
        .values()
    ]
    assert sorted(ids) == [5, 6, 7, 8, 15, 16]


def test_a_fold_without_a_class_is_one_line(two_folders: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_splits(loaded(two_folders).with_fold(0, of=5).project)  # b is on four images
    line = caught.value.one_line()
    assert "class 'b' has no annotations in fold" in line and "of 0 to 4" in line
    assert "found the class in 4 groups of images; expected 5 groups or more" in line and "\n" not in line


def test_more_folds_than_images_are_one_line(two_folders: Path) -> None:
    with pytest.raises(DataError, match="cannot be divided into 13 splits; found 12 groups of 12 images"):
        load_splits(loaded(two_folders).with_fold(0, of=13).project)


def test_joined_datasets_of_one_folder_keep_their_names(two_folders: Path) -> None:
    names = sorted(path.name for path in (two_folders / "train").glob("*.png"))
    for name, listed in {"a": names[:5], "b": names[5:]}.items():
        (two_folders / f"{name}.txt").write_text("".join(f"train/{one}\n" for one in listed))
    project = loaded(two_folders, train="a.txt", val="b.txt").project
    splits = load_splits(project)
    joined = join([splits.train, splits.val])
    assert [image.file_name for image in joined.dataset.images] == [f"train/{name}" for name in names]
    assert [origin.dataset for origin in joined.origins] == [0] * 5 + [1] * 4
    assert joined.dataset.image_root == splits.train.image_root


def test_check_shows_the_splits_of_the_fold(two_folders: Path, tmp_path: Path) -> None:
    project = loaded(two_folders)
    path = tmp_path / "fold.yaml"
    content = yaml.safe_load(project.file.read_text())
    content["data"]["fold"] = {"of": 4, "number": 1}
    path.write_text(yaml.safe_dump(content))
    expected = {image.file_name for image in load_splits(load_project(path).project).val.images}
    results = check(path, report=tmp_path / "check.html")
    roots = ("train", "val")
    shown = {
        f"{root}/{image.file_name}"
        for root, one in zip(roots, results, strict=True)
        for image in one.splits["val"].images
    }
    assert shown == expected
    assert sum(len(one.splits["train"].images) for one in results) == 9
    page = (tmp_path / "check.html").read_text()
    assert "The splits are train and val" in page
    content["data"]["fold"]["of"] = 5
    path.write_text(yaml.safe_dump(content))
    codes = [finding.code for one in check(path) for finding in one.findings if finding.level == "error"]
    assert codes == ["not_divisible"]


@pytest.mark.parametrize(
    ("fold", "line"),
    [
        ({"of": 1, "number": 0}, "data.fold.of: must be a whole number of 2 or more; found 1"),
        ({"of": 3, "number": 3}, "data.fold: the number of a fold must be from 0 to 2; found 3"),
        ({"of": 3}, "data.fold.number is missing"),
        ({"of": 3, "nummer": 0}, "data.fold.nummer: unknown key 'nummer'. Did you mean 'number'?"),
        (3, "data.fold: must be null, or {of: NUMBER, number: NUMBER}; found 3"),
    ],
)
def test_invalid_folds_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fold: object, line: str
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump({"classes": ["a"], "data": {"root": str(tmp_path), "fold": fold}}))
    assert cli.main(["check", str(path)]) == 1
    assert capsys.readouterr().err == f"error: {path}: {line}\n"


def test_a_project_file_keeps_its_fold(two_folders: Path) -> None:
    for one in (loaded(two_folders), loaded(two_folders).with_fold(2, of=4)):
        path = two_folders / "again.yaml"
        path.write_text(one.project.to_yaml())
        assert load_project(path).project.data.fold == one.project.data.fold
    assert group_of(loaded(two_folders).project) is None
    assert group_of(loaded(two_folders).with_fold(0, of=2).project) == "p-folds"


def test_images_elsewhere_hold_for_all_images_of_a_fold(two_folders: Path) -> None:
    elsewhere = two_folders / "elsewhere"
    elsewhere.mkdir()
    project = loaded(two_folders).with_fold(0, of=2).project
    assert _with_images(project, elsewhere, keep_train=True).data.images == str(elsewhere)


def test_a_fold_is_not_read_from_its_validation_folder_alone(two_folders: Path) -> None:
    project = loaded(two_folders).with_fold(0, of=4).project
    shutil.rmtree(two_folders / "train")
    with pytest.raises(DataError, match="the annotations are missing"):
        load_validation(project)


@pytest.mark.parametrize(
    ("command", "words"),
    [("convert", "cannot be converted"), ("label-loop", "needs a validation split that stays as it is")],
)
def test_commands_that_take_no_fold_say_so(
    two_folders: Path, capsys: pytest.CaptureFixture[str], command: str, words: str
) -> None:
    path = two_folders / "fold.yaml"
    path.write_text(loaded(two_folders).with_fold(0, of=4).project.to_yaml())
    where = ["--out"] if command == "convert" else []
    assert cli.main([command, str(path), *where, str(two_folders / "out")]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and "data.fold" in line and words in line
