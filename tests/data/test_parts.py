from pathlib import Path

import pytest
import yaml

from d2tune.data.parts import load_parts
from d2tune.errors import DataError
from d2tune.project import Project, load_project
from tests.shared_files import SHARED


def project(folder: Path, **keys: object) -> Project:
    path = folder / "p.yaml"
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return load_project(path).project


def test_balloon_photos_in_via_format(tmp_path: Path) -> None:
    parts = load_parts(project(tmp_path, data={"root": str(SHARED / "data/balloon")}, classes=["balloon"]))
    assert (len(parts.train.images), len(parts.train.instances)) == (61, 255)
    assert (len(parts.val.images), len(parts.val.instances)) == (13, 50)
    assert min(one.id for one in parts.train.instances) == 1
    assert parts.train.categories[0].id == 1


def test_microcontroller_photos_with_a_split_of_their_own(tmp_path: Path) -> None:
    data = {"root": str(SHARED / "data/microcontrollers"), "val": 0.2, "split_seed": 3}
    parts = load_parts(project(tmp_path, data=data))
    again = load_parts(project(tmp_path, data=data))
    assert len(parts.train.images) + len(parts.val.images) == 142
    assert 27 <= len(parts.val.images) <= 29
    assert parts.train.class_names == ("Arduino_Nano", "ESP8266", "Heltec_ESP32_Lora", "Raspberry_Pi_3")
    assert parts.val.content_hash() == again.val.content_hash()
    assert not {image.file_name for image in parts.train.images} & {image.file_name for image in parts.val.images}
    for name, count in parts.val.counts().items():
        total = count + parts.train.counts()[name]
        assert 0.1 < count / total < 0.35, name


def test_labelme_zoo_folder_by_folder(tmp_path: Path) -> None:
    """Every dialect is read or refused with a finding; none of them raises anything else."""
    read = refused = 0
    for folder in sorted((SHARED / "data/labelme_zoo").iterdir()):
        try:
            parts = load_parts(
                project(tmp_path, data={"root": str(folder.parent), "train": folder.name, "val": folder.name}),
                restore_dir=tmp_path / "restored",
            )
        except DataError as error:
            refused += 1
            assert folder.name in str(error) or any(path.name in str(error) for path in folder.iterdir())
        else:
            read += 1
            assert parts.train.instances
    assert read >= 11 and read + refused == 14


def test_missing_data_names_what_to_do(tmp_path: Path) -> None:
    wanted = project(tmp_path, name="balloon", data={"root": "none", "sample": "balloon"}, classes=["balloon"])
    with pytest.raises(DataError, match="make data PROJECT=balloon"):
        load_parts(wanted, sample=False)
    assert not (tmp_path / "none").exists()


def test_missing_data_are_rendered_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = {"root": "none", "sample": "balloon", "sample_images": 4}
    parts = load_parts(project(tmp_path, name="balloon", data=data, classes=["balloon"]))
    assert parts.rendered and len(parts.train.images) == 3
    assert "rendering the balloon sample" in caplog.text and "make data PROJECT=balloon" in caplog.text


def test_a_label_outside_the_list_names_the_nearest(balloon_sample: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shape 0.*unknown_label.*Did you mean 'baloon'"):
        load_parts(project(tmp_path, data={"root": str(balloon_sample)}, classes=["baloon"]))


def test_nothing_drawn_in_the_training_part(balloon_sample: Path, tmp_path: Path) -> None:
    renamed = {"root": str(balloon_sample), "rename": {"balloon": None}}
    with pytest.raises(DataError, match="no instance in the training part"):
        load_parts(project(tmp_path, data=renamed, classes=["balloon"]))


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "photos" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="train"):
        load_parts(project(tmp_path, data={"root": "photos"}, classes=["a"]))
