import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from d2tune.data.splits import load_splits, read_split
from d2tune.errors import DataError
from d2tune.project import Project, load_project
from tests.annotations.builders import labelme_value, shape
from tests.shared_files import SHARED


def project(folder: Path, **keys: object) -> Project:
    path = folder / "p.yaml"
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return load_project(path).project


def test_balloon_photos_in_via_format(tmp_path: Path) -> None:
    splits = load_splits(project(tmp_path, data={"root": str(SHARED / "data/balloon")}, classes=["balloon"]))
    assert (len(splits.train.images), len(splits.train.instances)) == (61, 255)
    assert (len(splits.val.images), len(splits.val.instances)) == (13, 50)
    assert min(instance.id for instance in splits.train.instances) == 1
    assert splits.train.categories[0].id == 1


def test_microcontroller_photos_with_a_split_of_their_own(tmp_path: Path) -> None:
    data = {"root": str(SHARED / "data/microcontrollers"), "val": 0.2, "split_seed": 3}
    splits = load_splits(project(tmp_path, data=data))
    again = load_splits(project(tmp_path, data=data))
    assert len(splits.train.images) + len(splits.val.images) == 142
    assert 27 <= len(splits.val.images) <= 29
    assert splits.train.class_names == ("Arduino_Nano", "ESP8266", "Heltec_ESP32_Lora", "Raspberry_Pi_3")
    assert splits.val.content_hash() == again.val.content_hash()
    assert not {image.file_name for image in splits.train.images} & {image.file_name for image in splits.val.images}
    for name, count in splits.val.counts().items():
        total = count + splits.train.counts()[name]
        assert 0.1 < count / total < 0.35, name


def test_splits_that_are_lists(tmp_path: Path) -> None:
    """Names are relative to the data's root; the classes are those of all annotations, so both splits agree."""
    photos = sorted((SHARED / "data/microcontrollers/train").glob("*.jpg"))
    names = [f"train/{photo.name}" for photo in photos]
    for name, listed in {"learn": names[:9], "judge": names[9:12], "both": names[8:12]}.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{file_name}\n" for file_name in listed), "utf-8")
    root = SHARED / "data/microcontrollers"
    data = {"root": str(root), "train": str(tmp_path / "learn.txt"), "val": str(tmp_path / "judge.txt")}
    splits = load_splits(project(tmp_path, data=data))
    assert [image.file_name for image in splits.train.images] == names[:9]
    assert [image.file_name for image in splits.val.images] == names[9:12]
    assert splits.train.class_names == splits.val.class_names and len(splits.train.class_names) == 4
    with_fraction = load_splits(project(tmp_path, data=data | {"val": 0.34}))
    assert len(with_fraction.val.images) in (3, 4)
    assert (
        sorted(image.file_name for dataset in (with_fraction.train, with_fraction.val) for image in dataset.images)
        == names[:9]
    )
    with pytest.raises(DataError, match=r"both.txt: line 1: train/IMG_\w+.jpg is in .*learn.txt too, line 9"):
        load_splits(project(tmp_path, data=data | {"val": str(tmp_path / "both.txt")}))
    with pytest.raises(DataError, match=r"elsewhere: the annotations are missing.*data\.annotations"):
        load_splits(project(tmp_path, data=data | {"annotations": "elsewhere"}))


def test_near_duplicates_are_not_divided(tmp_path: Path) -> None:
    film = sorted((SHARED / "data/car_video/JPEGImages").rglob("*.jpg"))
    (tmp_path / "photos").mkdir()
    for frame in film[::8]:
        shutil.copy(frame, tmp_path / "photos")
        write_square(tmp_path / "photos" / f"{frame.stem}.json", frame.name, (854, 480))
    for photo in sorted((SHARED / "data/microcontrollers/train").glob("*.jpg"))[:20]:
        shutil.copy(photo, tmp_path / "photos")
        write_square(tmp_path / "photos" / f"{photo.stem}.json", photo.name, (800, 600))
    data = {"root": ".", "train": "photos", "val": 0.2}
    splits = load_splits(project(tmp_path, data=data | {"split_seed": 1}))
    frames = Counter(
        name for name in ("train", "val") for image in getattr(splits, name).images if "IMG" not in image.file_name
    )
    assert len(splits.val.images) == 5 and list(frames.values()) == [5]


def write_square(path: Path, image: str, size: tuple[int, int]) -> None:
    square = shape([[10, 10], [60, 10], [60, 60], [10, 60]], "thing")
    path.write_text(json.dumps(labelme_value(square, image=image, size=size)), "utf-8")


def test_labelme_zoo_folder_by_folder(tmp_path: Path) -> None:
    """Every dialect is read or refused with a finding; none of them raises anything else."""
    read = refused = 0
    for folder in sorted((SHARED / "data/labelme_zoo").iterdir()):
        try:
            split = read_split(
                project(tmp_path, data={"root": str(folder.parent), "train": folder.name}),
                folder.name,
                labels=None,
                restore_dir=tmp_path / "restored",
            )
        except DataError as error:
            refused += 1
            assert folder.name in str(error) or any(path.name in str(error) for path in folder.iterdir())
        else:
            read += 1
            assert split.instances
    assert read >= 11 and read + refused == 14


def test_the_error_of_missing_data_has_the_next_step(tmp_path: Path) -> None:
    wanted = project(tmp_path, name="balloon", data={"root": "none", "sample": "balloon"}, classes=["balloon"])
    with pytest.raises(DataError, match="d2tune data PROJECT"):
        load_splits(wanted, sample=False)
    assert not (tmp_path / "none").exists()


def test_the_sample_replaces_missing_data_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = {"root": "none", "sample": "balloon", "sample_images": 4}
    splits = load_splits(project(tmp_path, name="balloon", data=data, classes=["balloon"]))
    assert splits.rendered and len(splits.train.images) == 3
    assert "rendering the balloon sample" in caplog.text and "d2tune data PROJECT.yaml" in caplog.text


def test_a_label_outside_the_list_names_the_nearest(balloon_sample: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shape 0.*unknown_label.*Did you mean 'baloon'"):
        load_splits(project(tmp_path, data={"root": str(balloon_sample)}, classes=["baloon"]))


def test_no_annotations_in_the_training_split(balloon_sample: Path, tmp_path: Path) -> None:
    renamed = {"root": str(balloon_sample), "rename": {"balloon": None}}
    with pytest.raises(DataError, match="the training split has no annotations"):
        load_splits(project(tmp_path, data=renamed, classes=["balloon"]))


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "photos" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="train"):
        load_splits(project(tmp_path, data={"root": "photos"}, classes=["a"]))


def test_the_background_is_in_every_image_of_both_splits(
    balloon_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "covered.yaml"
    path.write_text(
        f"task: semantic\nclasses: [scene, balloon]\n"
        f"data: {{root: {balloon_sample}, train: train, val: 0.25, background: scene}}\n"
        "model: {preset: unet}\n"
    )
    splits = load_splits(load_project(path).project)
    assert splits.train.counts()["scene"] == len(splits.train.images)
    assert splits.val.counts()["scene"] == len(splits.val.images) > 0
    assert "without annotations" not in caplog.text


@pytest.mark.parametrize(("column", "shared"), [(4, False), (3, True)])
def test_a_scene_is_in_both_splits_where_its_labels_are_of_different_pixels(tmp_path, column, shared):
    """The labels of training end at column 3; those of validation begin at ``column``."""
    train, val = np.full((2, 8, 8), 255, np.uint8)
    train[:, :4], train[0, 0] = 0, 1
    val[:, column:], val[0, 7] = 0, 1
    scene = tmp_path / "images" / "scene.png"
    scene.parent.mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(scene)
    for split, labels in (("train", train), ("val", val)):
        (tmp_path / split / "labels").mkdir(parents=True)
        Image.fromarray(labels).save(tmp_path / split / "labels" / "scene.png")
    data = {"root": ".", "format": "label_images", "label_images": {"images": "../images"}}
    wanted = project(tmp_path, task="semantic", classes=["a", "b"], data=data, model={"preset": "unet"})
    if shared:
        with pytest.raises(DataError, match=r"the image .*scene\.png of the val split is in the train split too"):
            load_splits(wanted)
    else:
        assert len(load_splits(wanted).val.images) == 1
