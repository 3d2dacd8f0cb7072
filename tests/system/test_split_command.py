"""``d2tune split`` on real photos, as a person runs it, and projects that use what it wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image as PilImage

from tests.shared_files import SHARED
from tests.system.commands import d2tune_here, refused, succeeded

pytestmark = pytest.mark.slow


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    """Forty photos of boards, two of them with a smaller copy."""
    folder = tmp_path / "boards"
    folder.mkdir()
    for path in sorted((SHARED / "data/microcontrollers/train").glob("*.json"))[::4]:
        shutil.copy(path, folder)
        shutil.copy(path.with_suffix(".jpg"), folder)
    for path in sorted(folder.glob("*.json"))[:2]:
        annotation = json.loads(path.read_bytes())
        for one in annotation["shapes"]:
            one["points"] = [[x / 2, y / 2] for x, y in one["points"]]
        name = f"copy_of_{path.stem}"
        with PilImage.open(path.with_suffix(".jpg")) as photo:
            photo.resize((400, 300)).save(folder / f"{name}.jpg", quality=80)
        annotation |= {"imagePath": f"{name}.jpg", "imageData": None, "imageWidth": 400, "imageHeight": 300}
        (folder / f"{name}.json").write_text(json.dumps(annotation), "utf-8")
    return folder


def read(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def project(folder: Path, **data: object) -> Path:
    path = folder / "boards.yaml"
    path.write_text(yaml.safe_dump({"data": {"root": "boards"} | data}), "utf-8")
    return path


def test_split_then_convert_the_project(boards: Path, tmp_path: Path) -> None:
    total = len(list(boards.glob("*.jpg")))
    out = succeeded(d2tune_here("split", "boards", "--val", "0.2", "--test", "0.1", folder=tmp_path))
    assert "up to 40 of 255 bits apart: 4 images in 2 groups are kept together" in out
    lists = {name: read(boards / "splits" / f"{name}.txt") for name in ("train", "val", "test")}
    assert sum(map(len, lists.values())) == total == len(set().union(*lists.values()))
    for names in lists.values():
        for copy in [name for name in names if name.startswith("copy_of_")]:
            assert copy.removeprefix("copy_of_") in names
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line[:1].isalpha()}
    assert rows["images"][1:3] == [str(total), str(len(lists["train"]))]
    data = yaml.safe_load(out.split("in a project file: ")[1])["data"]
    assert data == {"root": str(boards), "train": "splits/train.txt", "val": "splits/val.txt"}

    path = project(tmp_path, **data)
    assert "warning" not in d2tune_here("convert", path, "--out", "coco", folder=tmp_path).stderr
    for split in ("train", "val"):
        coco = json.loads((tmp_path / "coco" / f"{split}.json").read_bytes())
        assert sorted(image["file_name"] for image in coco["images"]) == lists[split]
        assert len(coco["categories"]) == 4

    again = succeeded(d2tune_here("split", "boards", "--val", "0.2", "--test", "0.1", folder=tmp_path))
    assert again == out
    line = refused(d2tune_here("split", "boards", "--seed", "1", folder=tmp_path))
    assert "another split is there" in line and "--force" in line
    succeeded(d2tune_here("split", "boards", "--seed", "1", "--force", folder=tmp_path))
    assert not (boards / "splits" / "test.txt").exists()


def test_lists_with_mistakes_are_refused(boards: Path, tmp_path: Path) -> None:
    succeeded(d2tune_here("split", "boards", "--no-duplicates", folder=tmp_path))
    train, val = boards / "splits" / "train.txt", boards / "splits" / "val.txt"
    path = project(tmp_path, train="splits/train.txt", val="splits/val.txt")
    content = train.read_text("utf-8")
    train.write_text(content + "IMG_0001.jpg\n", "utf-8")
    line = refused(d2tune_here("convert", path, "--out", "coco", folder=tmp_path))
    assert (
        f"train.txt: line {len(content.splitlines()) + 1}: IMG_0001.jpg is not among" in line and "Did you mean" in line
    )
    train.write_text(content + read(val)[0] + "\n", "utf-8")
    assert f"{read(val)[0]} is in" in refused(d2tune_here("convert", path, "--out", "coco", folder=tmp_path))
    val.unlink()
    assert "val.txt: the list cannot be read" in refused(d2tune_here("convert", path, "--out", "coco", folder=tmp_path))


def test_classes_are_merged_renamed_and_dropped(boards: Path, tmp_path: Path) -> None:
    """The same by the options of the commands and by the project file."""
    rename = {"ESP8266": "esp", "Heltec_ESP32_Lora": "esp", "Raspberry_Pi_3": "pi", "Arduino_Nano": None}
    labels = [one["label"] for path in boards.glob("*.json") for one in json.loads(path.read_bytes())["shapes"]]
    expected = {
        "esp": labels.count("ESP8266") + labels.count("Heltec_ESP32_Lora"),
        "pi": labels.count("Raspberry_Pi_3"),
    }

    words = ["--rename", "ESP8266=esp,Heltec_ESP32_Lora=esp,Raspberry_Pi_3=pi", "--drop", "Arduino_Nano"]
    out = succeeded(d2tune_here("split", "boards", "--kfold", "3", "--no-duplicates", *words, folder=tmp_path))
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line[:1].isalpha()}
    assert {name: int(rows[name][1]) for name in ("esp", "pi")} == expected and "Arduino_Nano " not in out
    succeeded(d2tune_here("convert", "boards", "--out", "by_options.json", *words, folder=tmp_path))
    path = project(tmp_path, train="splits/fold0/train.txt", val="splits/fold0/val.txt", rename=rename)
    succeeded(d2tune_here("convert", path, "--out", "coco", folder=tmp_path))
    by_options = json.loads((tmp_path / "by_options.json").read_bytes())
    train, val = (json.loads((tmp_path / "coco" / f"{split}.json").read_bytes()) for split in ("train", "val"))
    assert train["categories"] == val["categories"]
    by_project = train | {key: train[key] + val[key] for key in ("images", "annotations")}
    for coco in (by_options, by_project):
        name_of = {one["id"]: one["name"] for one in coco["categories"]}
        counts = dict.fromkeys(name_of.values(), 0)
        for one in coco["annotations"]:
            counts[name_of[one["category_id"]]] += 1
        assert counts == expected
        assert len(coco["images"]) == len(list(boards.glob("*.jpg")))


def test_other_formats_and_embedded_images(tmp_path: Path) -> None:
    source = SHARED / "data/balloon/train/via_region_data.json"
    out = succeeded(d2tune_here("split", source, "--class-name", "balloon", "--out", "lists", folder=tmp_path))
    assert "61 images, 255 instances, 61 groups" in out
    data = yaml.safe_load(out.split("in a project file: ")[1])["data"]
    assert data["annotations"] == source.name and data["val"] == str(tmp_path / "lists" / "val.txt")
    done = d2tune_here("split", source, "--out", "lists", folder=tmp_path)
    assert "no_class" in done.stdout and "no_class" in refused(done)

    embedded = tmp_path / "embedded"
    embedded.mkdir()
    for path in sorted((SHARED / "data/microcontrollers/train").glob("*.json"))[:6]:
        shutil.copy(path, embedded)
    out = succeeded(d2tune_here("split", embedded, "--val", "0.5", folder=tmp_path))
    assert "bits apart: none" in out and "cannot be compared" not in out
    assert [path.name for path in embedded.iterdir() if path.suffix == ".jpg"] == []
    path = project(tmp_path, root="embedded", train="splits/train.txt", val="splits/val.txt")
    succeeded(d2tune_here("convert", path, "--out", "coco", folder=tmp_path))
