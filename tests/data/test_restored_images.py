"""Images that exist only inside annotation files: what is written is read back without options."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.convert import check, convert, read_dataset
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.api import convert as convert_project
from d2tune.data.splits import load_splits
from d2tune.project import load_project
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, shape

SPLITS = ("train", "val")


def noise(seed: int) -> bytes:
    """The bytes of a PNG that no other seed has."""
    path = Path(f"{seed}.png")
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    PilImage.fromarray(pixels).save(path)
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture
def contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], bytes]:
    """Two splits with equal names: an image inside its file, one beside it and one in a subfolder."""
    monkeypatch.chdir(tmp_path)
    made: dict[tuple[str, str], bytes] = {}
    for number, split in enumerate(SPLITS):
        folder = tmp_path / "data" / split
        for place, name in enumerate(("inside.png", "beside.png", "sub/below.png")):
            made[split, name] = content = noise(10 * number + place)
            file = (folder / name).with_suffix(".json")
            data = base64.b64encode(content).decode() if name == "inside.png" else None
            labelme_file(file, shape(SQUARE), shape(TRIANGLE), image=Path(name).name, draw=False, imageData=data)
            if data is None:
                (folder / name).write_bytes(content)
    (tmp_path / "p.yaml").write_text("classes: [cat]\ndata: {root: data}\n", "utf-8")
    return made


def content_of(dataset: Dataset) -> list[bytes]:
    return [image.path.read_bytes() for image in dataset.images if image.path is not None]


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_project_becomes_is_read_and_trained_on_without_options(
    tmp_path: Path, contents: dict[tuple[str, str], bytes]
) -> None:
    before = tree(tmp_path / "data")
    results = convert_project(tmp_path / "p.yaml", out=tmp_path / "out")
    assert tree(tmp_path / "data") == before
    for split, result in zip(SPLITS, results, strict=True):
        wanted = sorted(content for (of_split, _), content in contents.items() if of_split == split)
        checked = check(tmp_path / "out" / f"{split}.json")
        assert checked.findings == ()
        assert sorted(content_of(checked.dataset)) == sorted(content_of(result.dataset)) == wanted
        rows = json.loads((tmp_path / "out" / f"{split}.json").read_bytes())["images"]
        in_root = [(tmp_path / "out" / row["file_name"]).read_bytes() for row in rows]
        assert sorted(in_root) == wanted, "one image root fits all images of both splits"
    assert len({image.path for result in results for image in result.dataset.images}) == 6
    (tmp_path / "q.yaml").write_text("classes: [cat]\ndata: {root: out, train: train.json, val: val.json}\n", "utf-8")
    original, again = (
        load_splits(load_project(tmp_path / name, hardware="cpu").project) for name in ("p.yaml", "q.yaml")
    )
    for split in SPLITS:
        first, second = getattr(original, split), getattr(again, split)
        assert sorted(content_of(first)) == sorted(content_of(second))
        assert [one.area_px2 for one in first.instances] == [one.area_px2 for one in second.instances]


@pytest.mark.parametrize("force", [False, True])
def test_equal_names_of_two_conversions_stay_two_images(
    tmp_path: Path, contents: dict[tuple[str, str], bytes], force: bool
) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # the second time everything is there
        for split in SPLITS:
            convert(tmp_path / "data" / split, out=out / f"{split}.json", force=force)
        names = {name for name in tree(out) if name.endswith(".png")}
        assert names == {
            *("inside.png", "inside-2.png", "beside.png", "beside-2.png", "sub/below.png", "sub/below-2.png")
        }
    for split in SPLITS:
        wanted = sorted(content for (of_split, _), content in contents.items() if of_split == split)
        assert sorted(content_of(check(out / f"{split}.json").dataset)) == wanted


def test_no_file_of_a_person_is_replaced(tmp_path: Path, contents: dict[tuple[str, str], bytes]) -> None:
    out = tmp_path / "data" / "train"
    (out / "inside.png").mkdir()
    before = tree(tmp_path / "data")
    convert(out, out=out / "all.json", force=True)
    after = tree(tmp_path / "data")
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) - {name for name in after if "/." in name} == {
        "train/all.json",
        "train/inside-2.png",
    }
    (out / "inside.json").unlink()
    dataset = read_dataset(out / "all.json")
    assert dataset.findings == ()
    assert sorted(content_of(dataset)) == sorted(contents["train", name] for _, name in contents if _ == "train")


@pytest.mark.parametrize("to", ["semantic", "panoptic"])
def test_label_maps_and_images_do_not_share_names(
    tmp_path: Path, contents: dict[tuple[str, str], bytes], to: str
) -> None:
    options = ReadOptions(stuff=("cat",) if to == "panoptic" else ())
    result = convert(tmp_path / "data" / "train", out=tmp_path / "out", to=to, options=options)
    images = {image.path for image in result.dataset.images}
    assert {path.parent.relative_to(tmp_path / "out").parts[0] for path in images if path} == {"images"}
    labels = tmp_path / "out" / ("inside.png" if to == "semantic" else "stuff/inside.png")
    with PilImage.open(labels) as image:
        assert image.mode == "L"
    assert sorted(content_of(result.dataset)) == sorted(value for (of, _), value in contents.items() if of == "train")
    if to == "panoptic":
        again = check(tmp_path / "out" / "panoptic.json")
        assert again.findings == () and len(again.dataset.images) == 3


def test_nothing_is_copied_where_no_image_is_inside_a_file(
    tmp_path: Path, contents: dict[tuple[str, str], bytes]
) -> None:
    (tmp_path / "data" / "train" / "inside.json").unlink()
    convert(tmp_path / "data" / "train", out=tmp_path / "out")
    assert [name for name in tree(tmp_path / "out") if not name.startswith(".")] == ["annotations.json"]
    names = [row["file_name"] for row in json.loads((tmp_path / "out" / "annotations.json").read_bytes())["images"]]
    assert names == ["beside.png", "sub/below.png"]


def test_images_restored_for_training_are_those_of_their_split(
    tmp_path: Path, contents: dict[tuple[str, str], bytes]
) -> None:
    splits = load_splits(load_project(tmp_path / "p.yaml", hardware="cpu").project)
    for split, dataset in (("train", splits.train), ("val", splits.val)):
        (image,) = (image for image in dataset.images if image.file_name == "inside.png")
        assert image.path is not None and image.path.read_bytes() == contents[split, "inside.png"]
