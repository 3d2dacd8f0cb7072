"""Splits of random datasets and of real photos."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage
from PIL import ImageEnhance

from d2tune.annotations.convert import read_dataset
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.annotations.splitting.groups import group_images, taken_at
from d2tune.annotations.splitting.lists import read_list
from d2tune.annotations.splitting.splits import Split, SplitOptions, distribute, make_split, split, write_split
from d2tune.errors import DataError
from tests.shared_files import SHARED

BOARDS = SHARED / "data/microcontrollers/train"
NO_POLYGON = (np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),)


def made_of(images: dict[str, Sequence[str]], *, paths: dict[str, Path] | None = None) -> Dataset:
    """A dataset of file names and the classes of the instances on each."""
    classes = sorted({name for labels in images.values() for name in labels})
    categories = tuple(Category(number, name) for number, name in enumerate(classes, start=1))
    listed = tuple(Image(n, name, 10, 10, (paths or {}).get(name)) for n, name in enumerate(images, start=1))
    instances: list[Instance] = []
    for image, labels in zip(listed, images.values(), strict=True):
        for label in labels:
            number = len(instances) + 1
            instances.append(Instance(number, image.id, classes.index(label) + 1, NO_POLYGON, (0, 0, 1, 1), 1))
    return Dataset(listed, categories, tuple(instances))


def names(made: Split) -> dict[str, list[str]]:
    name_of = {image.id: image.file_name for image in made.dataset.images}
    return {name: sorted(name_of[image_id] for image_id in ids) for name, ids in made.splits.items()}


def shuffled(dataset: Dataset, seed: int) -> Dataset:
    """The same dataset with its images in another order and other ids."""
    order = list(dataset.images)
    random.Random(seed).shuffle(order)
    new_id = {image.id: number for number, image in enumerate(order, start=1)}
    return Dataset(
        tuple(Image(new_id[image.id], image.file_name, 10, 10, image.path) for image in order),
        dataset.categories,
        tuple(
            replace(instance, image_id=new_id[instance.image_id], area_px2=1)
            for instance in reversed(dataset.instances)
        ),
    )


datasets = st.lists(st.lists(st.sampled_from(["ant", "bee", "cow", "dog"]), max_size=4), min_size=6, max_size=40).map(
    lambda rows: made_of({f"{n % 5}/{n:03}.jpg": labels for n, labels in enumerate(rows)})
)


@settings(max_examples=25, deadline=None)
@given(dataset=datasets, seed=st.integers(0, 5), kfold=st.sampled_from([None, 2, 3]), test=st.sampled_from([0.0, 0.2]))
def test_every_image_is_in_one_split_and_all_orders_give_the_same(
    dataset: Dataset, seed: int, kfold: int | None, test: float
) -> None:
    options = SplitOptions(kfold=kfold, test=test, seed=seed)
    made = make_split(dataset, options)
    splits = names(made)
    assert sorted(itertools.chain(*splits.values())) == sorted(image.file_name for image in dataset.images)
    assert all(splits.values())
    assert names(make_split(shuffled(dataset, seed), options)) == splits
    counts = made.counts()
    totals = Counter(dataset.categories[instance.category_id - 1].name for instance in dataset.instances)
    for name, total in totals.items():
        assert sum(row[f"class {name}"] for row in counts.values()) == total
    images_without = len(dataset.images) - len({instance.image_id for instance in dataset.instances})
    assert sum(row["negatives"] for row in counts.values()) == images_without


@settings(max_examples=25, deadline=None)
@given(dataset=datasets, seed=st.integers(0, 5))
def test_folders_stay_whole(dataset: Dataset, seed: int) -> None:
    splits = names(make_split(dataset, SplitOptions(group_by="folder", seed=seed)))
    train, val = ({file.split("/")[0] for file in splits[name]} for name in ("train", "val"))
    assert not train & val


@pytest.mark.parametrize("seed", range(300))
def test_no_split_lacks_a_class_that_it_could_have(seed: int) -> None:
    """Against every possible assignment of a few groups."""
    draw = np.random.default_rng(seed)
    groups, classes, shares = draw.integers(3, 7), draw.integers(1, 4), [[0.8, 0.2], [0.7, 0.2, 0.1]][seed % 2]
    counts = np.zeros((groups, 2 + classes))
    counts[:, 0] = draw.integers(1, 4, groups)
    counts[:, 2:] = draw.integers(0, 3, (groups, classes)) * (draw.random((groups, classes)) < 0.5)
    counts[:, 1] = counts[:, 2:].sum(axis=1) == 0

    def lacking(place: Sequence[int]) -> int:
        held = [counts[np.asarray(place) == split] for split in range(len(shares))]
        return sum(not rows[:, column].any() for rows in held for column in (0, *range(2, 2 + classes)))

    least = min(map(lacking, itertools.product(range(len(shares)), repeat=int(groups))))
    assert lacking(distribute(counts, shares)) == least  # type: ignore[arg-type]


def test_rare_classes_are_in_every_split() -> None:
    images = {f"{n:04}.jpg": ["common"] * (1 + n % 3) for n in range(600)}
    rare = ["rare", "scarce", "seldom"]
    for number, name in enumerate(rare * 3):
        images[f"{number * 50:04}.jpg"] = ["common", name]
    for seed in range(3):
        made = make_split(made_of(images), SplitOptions(val=0.1, test=0.05, seed=seed))
        for row in made.counts().values():
            assert [row[f"class {name}"] for name in rare] == [1, 1, 1]
        assert made.warnings == ()


def test_a_class_that_some_split_lacks_is_reported() -> None:
    images = {f"{n}.jpg": ["cat"] for n in range(20)} | {"x.jpg": ["cat", "lynx"], "y.jpg": ["puma"], "z.jpg": ["puma"]}
    made = make_split(made_of(images), SplitOptions(test=0.1))
    assert made.warnings == (
        "no lynx in val, test: it occurs in 1 group",
        "no puma in test: it occurs in 2 groups",
    )
    assert "x.jpg" in names(made)["train"]  # a class that only one split can have is in the training split


def test_the_mix_of_classes_is_nearer_than_by_chance() -> None:
    dataset = read_dataset(BOARDS)
    total = np.array(list(dataset.counts().values()))

    def worst(image_ids: Sequence[int]) -> float:
        held = np.array(list(dataset.subset(image_ids).counts().values()))
        return float(np.abs(held / total - 0.2).max())

    ours = []
    for seed in range(10):
        made = make_split(dataset, SplitOptions(seed=seed, duplicate_distance=None))
        assert abs(len(made.splits["val"]) - 0.2 * 142) <= 1.5
        ours.append(worst(made.splits["val"]))
    chance = [worst(random.Random(seed).sample(range(1, 143), 28)) for seed in range(200)]
    assert max(ours) < 0.03 < np.quantile(chance, 0.1)
    assert (
        len({tuple(make_split(dataset, SplitOptions(seed=s, duplicate_distance=None)).splits["val"]) for s in range(3)})
        == 3
    )


def test_negatives_are_spread_in_proportion() -> None:
    images = {f"{n:03}.jpg": [] if n < 80 else ["cat"] for n in range(200)}
    counts = make_split(made_of(images), SplitOptions(val=0.25)).counts()
    assert counts["val"]["negatives"] == 20 and counts["val"]["class cat"] == 30


def test_folds_cover_each_image_once() -> None:
    dataset = read_dataset(BOARDS)
    made = make_split(dataset, SplitOptions(kfold=5, test=0.1, duplicate_distance=None))
    lists = made.lists()
    everything = {image.file_name for image in dataset.images}
    test = set(lists["test.txt"])
    vals = [lists[f"fold{fold}/val.txt"] for fold in range(5)]
    assert sorted(itertools.chain(*vals, test)) == sorted(everything)
    for fold, val in enumerate(vals):
        assert set(lists[f"fold{fold}/train.txt"]) == everything - test - set(val)
        assert abs(len(val) - 0.18 * 142) <= 2
    assert set(lists) == {"test.txt"} | {f"fold{n}/{name}.txt" for n in range(5) for name in ("train", "val")}


def test_copies_of_a_photo_stay_together(tmp_path: Path) -> None:
    paths = {}
    for photo in sorted(BOARDS.glob("*.jpg"))[::4]:
        with PilImage.open(photo) as opened:
            original = opened.convert("RGB")
        for number, copy in enumerate(
            [original, original.resize((300, 225)), ImageEnhance.Brightness(original).enhance(1.15)]
        ):
            name = f"{number}_{photo.name}"
            paths[name] = tmp_path / name
            copy.save(paths[name], quality=60 + 10 * number)
    dataset = made_of({name: ["board"] for name in paths}, paths=paths)
    made = make_split(dataset)
    assert made.notes == (
        f"near-duplicates, up to 40 of 255 bits apart: {len(paths)} images in {len(paths) // 3} "
        "groups are kept together",
    )
    val = Counter(name.split("_", 1)[1] for name in names(made)["val"])
    assert set(val.values()) == {3} and abs(3 * len(val) - len(paths) / 5) <= 3
    divided = Counter(
        name.split("_", 1)[1] for name in names(make_split(dataset, SplitOptions(duplicate_distance=None)))["val"]
    )
    assert set(divided.values()) != {3}
    train_split, val_split = split(dataset, fraction=0.2, seed=0)
    assert sorted(image.file_name for image in val_split.images) == names(made)["val"]
    assert len(train_split.images) + len(val_split.images) == len(paths)


def test_groups_by_a_pattern() -> None:
    images = made_of(
        {f"{kind}/board{n}_{view}.jpg": [] for kind in "ab" for n in (1, 2) for view in "xy"} | {"odd.jpg": []}
    )
    grouped = group_images(images.images, group_by=r"regex:board(\d+)_", gap_s=0, duplicate_distance=None)
    assert sorted(map(len, grouped.groups)) == [1, 4, 4]
    assert grouped.notes == (r"by board(\d+)_: 2 groups; 1 image without a match, each a group of its own",)
    whole = group_images(images.images, group_by=r"regex:^./board\d", gap_s=0, duplicate_distance=None)
    assert sorted(map(len, whole.groups)) == [1, 2, 2, 2, 2]


def test_bursts_by_exif_time(tmp_path: Path) -> None:
    times = [
        "2024:05:01 10:00:00",
        "2024:05:01 10:00:50",
        "2024:05:01 10:01:40",
        "2024:05:01 10:10:00",
        "nonsense",
        None,
    ]
    images = []
    for number, time in enumerate(times, start=1):
        exif = PilImage.Exif()
        if time is not None:
            exif.get_ifd(0x8769)[0x9003] = time
        path = tmp_path / f"{number}.jpg"
        PilImage.new("RGB", (32, 32)).save(path, exif=exif)
        images.append(Image(number, path.name, 32, 32, path))
    assert str(taken_at(tmp_path / "2.jpg")) == "2024-05-01 10:00:50"
    assert taken_at(tmp_path / "missing.jpg") is None
    grouped = group_images(images, group_by="exif-time", gap_s=60, duplicate_distance=None)
    assert grouped.groups == ((1, 2, 3), (4,), (5,), (6,))
    assert grouped.notes == (
        "by EXIF time: 2 bursts, gaps up to 60 s; 2 images without the time, each a group of its own",
    )
    assert len(group_images(images, group_by="exif-time", gap_s=49, duplicate_distance=None).groups) == 6


def test_a_group_that_is_too_large_is_reported() -> None:
    images = {f"big/{n:02}.jpg": ["cat"] for n in range(60)} | {f"small{n}/a.jpg": ["cat"] for n in range(40)}
    made = make_split(made_of(images), SplitOptions(group_by="folder"))
    assert made.warnings == ("the group of big/00.jpg has 60 images, the share of val is 20",)
    images = {f"{folder}/{n:02}.jpg": ["cat"] for folder in "ab" for n in range(50)}
    made = make_split(made_of(images), SplitOptions(group_by="folder"))
    assert "val has 50 images instead of 20: groups are not divided" in made.warnings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": 0.0}, "share for val"),
        ({"val": 1.5}, "found 1.5"),
        ({"val": 0.6, "test": 0.4}, "no images are left for training"),
        ({"test": -0.1}, "share for test"),
        ({"val": float("nan")}, "share for val"),
        ({"kfold": 1}, "2 or more"),
        ({"kfold": 3, "val": 0.2}, "cannot be combined"),
        ({"kfold": 9}, "9 splits"),
        ({"group_by": "folder"}, "1 group of 4 images"),
        ({"group_by": "folders"}, "Did you mean 'folder'"),
        ({"group_by": "regex"}, "regex:PATTERN"),
        ({"group_by": "regex:("}, "regular expression"),
        ({"group_by": "exif-time", "gap_s": -1}, "0 s or more"),
        ({"duplicate_distance": 255}, "between 0 and 254 bits"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message.replace("(", r"\(")) as caught:
        make_split(made_of({f"{n}.jpg": ["cat"] for n in range(4)}), SplitOptions(**options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_name_of_any_bytes_is_listed_and_read_back(tmp_path: Path) -> None:
    made = make_split(made_of({"caf\udce9.jpg": ["cat"], "c.jpg": ["cat"]}))
    write_split(made, tmp_path)
    assert {*read_list(tmp_path / "train.txt"), *read_list(tmp_path / "val.txt")} == {"caf\udce9.jpg", "c.jpg"}
    assert b"caf\xe9.jpg" in (tmp_path / "train.txt").read_bytes() + (tmp_path / "val.txt").read_bytes()


def test_lists_are_written_once_and_do_not_replace_those_of_another_split(tmp_path: Path) -> None:
    dataset = made_of({f"{n}/ä {n}.jpg": ["cat"] for n in range(10)})
    first = make_split(dataset, SplitOptions(val=0.2, test=0.1, seed=1))
    paths = write_split(first, tmp_path)
    assert {path.name for path in paths} == {"train.txt", "val.txt", "test.txt", "split.yaml"}
    lines = (tmp_path / "val.txt").read_text("utf-8").splitlines()
    assert lines == names(first)["val"] and len(lines) == 2
    content = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    write_split(first, tmp_path)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths} == content
    summary = yaml.safe_load((tmp_path / "split.yaml").read_text("utf-8"))
    assert summary["options"]["seed"] == 1 and summary["options"]["duplicate_distance"] == 40
    assert summary["parts"]["test"] == {"images": 1, "instances": 1, "negatives": 0, "groups": 1, "class cat": 1}
    second = make_split(dataset, SplitOptions(kfold=2))
    with pytest.raises(DataError, match="another split is there"):
        write_split(second, tmp_path)
    assert {path: path.read_bytes() for path in paths} == {path: old for path, (old, _) in content.items()}
    write_split(second, tmp_path, force=True)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("[!.]*.*")) == [
        *("fold0/train.txt", "fold0/val.txt", "fold1/train.txt", "fold1/val.txt", "split.yaml")
    ]
    write_split(first, tmp_path, force=True)
    four = ["split.yaml", "test.txt", "train.txt", "val.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".d2tune-outputs.jsonl", *four]
    # lists of an earlier version, which kept no record, are replaced; those of a person are not
    (tmp_path / ".d2tune-outputs.jsonl").unlink()
    write_split(second, tmp_path, force=True)
    (tmp_path / "fold0" / "train.txt").write_text("mine.jpg\n")
    with pytest.raises(DataError, match="It was changed after d2tune wrote it"):
        write_split(first, tmp_path, force=True)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.txt").write_text("mine.jpg\n")
    with pytest.raises(DataError, match="d2tune did not write it as split"):
        write_split(first, tmp_path / "own", force=True)
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["train.txt"]


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\u2028b.jpg", "\ud800.jpg"])
def test_a_name_that_cannot_be_a_line_is_refused(tmp_path: Path, name: str) -> None:
    made = make_split(made_of({name: ["cat"], "c.jpg": ["cat"]}))
    with pytest.raises(DataError, match="cannot be a line"):
        write_split(made, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_thousands_of_images_are_divided_in_seconds() -> None:
    """80 classes as frequent as in COCO, two to seven on an image: every class is within 2 % of its share."""
    draw = random.Random(3)
    classes = [f"class{n:02}" for n in range(80)]
    weights = [1 / (n + 1) for n in range(80)]
    images = {f"{n:05}.jpg": draw.choices(classes, weights, k=draw.randint(0, 7)) for n in range(5000)}
    counts = make_split(made_of(images), SplitOptions(duplicate_distance=None)).counts()
    for key in counts["val"]:
        total = counts["val"][key] + counts["train"][key]
        assert abs(counts["val"][key] - 0.2 * total) <= max(1, 0.02 * total), key


def test_a_rule_that_matches_no_image_gives_a_warning() -> None:
    dataset = made_of({f"a{number}.png": ["cat"] for number in range(8)})
    options = SplitOptions(val=0.25, group_by="regex:^board", duplicate_distance=None)
    (warning,) = make_split(dataset, options).warnings
    assert warning == "--group-by regex:^board matches no image, so it keeps no images together"
    applies = SplitOptions(val=0.25, group_by="regex:^a([0-3])?", duplicate_distance=None)
    made = make_split(dataset, applies)
    # 0 to 3 by the group; where it does not match, by the whole match, which is "a" for 4 to 7
    assert sorted(map(len, made.groups)) == [1, 1, 1, 1, 4]
