import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from d2tune.errors import D2TuneError
from d2tune.samples import render_sample
from d2tune.samples.render import PHOTO_KINDS, render_image
from d2tune.samples.rendering.labelme_files import labelme_document
from d2tune.samples.rendering.scene import SampleInstance
from tests.shared_files import SHARED


def filled(instance: SampleInstance, shape: tuple[int, int]) -> np.ndarray:
    """The outlines as pycocotools fills them: an independent rasterizer."""
    flat = [polygon.ravel().tolist() for polygon in instance.polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, *shape))).astype(bool)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("kind", PHOTO_KINDS)
def test_outlines_follow_what_is_seen(kind):
    labels, sides = set(), []
    for index in range(5, 12):
        image = render_image(kind, index, seed=5)
        height, width = image.image_rgb.shape[:2]
        assert len(image.instances) <= 6
        assert bool(image.instances) == (index != 11)
        seen = np.zeros((height, width), int)
        for instance in image.instances:
            labels.add(instance.label)
            seen += instance.mask
            again = filled(instance, (height, width))
            overlap = (again & instance.mask).sum() / (again | instance.mask).sum()
            assert overlap >= (0.95 if instance.mask.sum() >= 200 else 0.8)
            sides.append(np.sqrt(instance.mask.sum()) / min(height, width))
            points = np.concatenate(instance.polygons)
            assert points.min() >= 0 and (points <= (width, height)).all()
        assert seen.max(initial=0) <= 1, "two annotated objects claim a pixel"
    assert len(labels) == {"balloon": 1, "chipset": 4, "face": 1}[kind]
    assert np.median(sides) > 0.18 and np.mean(np.array(sides) * 288 < 20) < 0.1


@pytest.mark.parametrize("kind", PHOTO_KINDS)
def test_images_look_like_photos(kind):
    """Noise everywhere, no flat color, neither black nor burnt out, objects that stand out from what is around."""
    for index in (0, 3):
        image = render_image(kind, index, seed=1).image_rgb
        gray = image.mean(axis=2)
        assert 35 < gray.mean() < 215 and gray.std() > 18
        assert np.mean(gray > 253) < 0.1 and np.mean(gray < 2) < 0.1
        tiles = gray[: gray.shape[0] // 16 * 16, : gray.shape[1] // 16 * 16]
        tiles = tiles.reshape(gray.shape[0] // 16, 16, -1, 16).std(axis=(1, 3))
        assert np.mean(tiles > 0.4) > 0.97
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 5000


def test_an_object_behind_a_post_is_one_instance_in_pieces():
    pieces = [
        (index, instance)
        for index in range(9, 12)
        for instance in render_image("balloon", index, seed=0).instances
        if len(instance.polygons) > 1
    ]
    assert pieces
    index, split = pieces[0]
    whole = render_image("balloon", index, seed=0)
    shapes = labelme_document(
        "a.jpg", whole.image_rgb.shape[:2], [(one.label, one.polygons) for one in whole.instances]
    )["shapes"]
    grouped = [shape for shape in shapes if shape["group_id"] == 1]
    assert [shape["points"] for shape in grouped] == [polygon.tolist() for polygon in split.polygons]
    assert len(grouped) >= 2 and {shape["label"] for shape in grouped} == {"balloon"}


@pytest.mark.slow
def test_folder_is_what_labelme_leaves(tmp_path):
    result = render_sample("chipset", tmp_path / "board", images=12, seed=2)
    assert result.folder == tmp_path / "board"
    names = ("microcontroller", "capacitor", "connector", "crystal")
    assert result.class_names == names
    assert (result.folder / "labels.txt").read_text() == "".join(f"{name}\n" for name in names)
    assert dict(result.images) == {"train": 10, "val": 2}
    model = json.loads((SHARED / "conversion_cases" / "01_polygon" / "a.json").read_text())
    numbers = []
    for split in ("train", "val"):
        files = sorted((result.folder / split).glob("*.json"))
        instances = 0
        assert len(list((result.folder / split).iterdir())) == 2 * len(files) == 2 * result.images[split]
        for path in files:
            text = path.read_text()
            document = json.loads(text)
            numbers.append((int(path.stem[-4:]), split))
            assert list(document) == list(model)
            assert text == json.dumps(document, ensure_ascii=False, indent=2)
            assert (document["imagePath"], document["imageData"]) == (path.with_suffix(".jpg").name, None)
            with Image.open(path.with_suffix(".jpg")) as photo:
                assert (photo.format, photo.mode) == ("JPEG", "RGB")
                assert photo.size == (document["imageWidth"], document["imageHeight"])
            for shape in document["shapes"]:
                assert list(shape) == list(model["shapes"][0])
                assert shape["label"] in names and len(shape["points"]) >= 3
            groups = [shape["group_id"] for shape in document["shapes"]]
            instances += groups.count(None) + len(set(groups) - {None})
            assert (document["shapes"] == []) == (numbers[-1][0] == 11)
        assert instances == result.instances[split]
    assert sorted(numbers) == [(i, "val" if i in (2, 7) else "train") for i in range(12)]


@pytest.mark.parametrize(("images", "train", "val"), [(2, 1, 1), (3, 2, 1), (8, 6, 2)])
def test_every_size_has_both_splits(tmp_path, images, train, val):
    result = render_sample("balloon", tmp_path, images=images)
    assert dict(result.images) == {"train": train, "val": val}
    assert min(result.instances.values()) >= 1


@pytest.mark.slow
def test_same_seed_same_bytes_whatever_the_threads(tmp_path):
    script = (
        "import sys, cv2; cv2.setNumThreads(int(sys.argv[1]))\n"
        "from d2tune.samples.render import PHOTO_KINDS, render_sample\n"
        "for kind in PHOTO_KINDS: render_sample(kind, f'{sys.argv[2]}/{kind}', images=2, seed=9)\n"
        "assert 'torch' not in sys.modules and 'detectron2' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for threads in ("1", "4"):
        subprocess.run([sys.executable, "-c", script, threads, str(tmp_path / threads)], check=True, env=environment)
    first, second = hashes(tmp_path / "1"), hashes(tmp_path / "4")
    assert len(first) == 3 * 5 and first == second
    render_sample("balloon", tmp_path / "more", images=3, seed=9)
    more = hashes(tmp_path / "more")
    assert more["train/balloon_0000.jpg"] == first["balloon/train/balloon_0000.jpg"]
    assert more["train/balloon_0001.json"] == first["balloon/val/balloon_0001.json"]
    assert not np.array_equal(render_image("balloon", 0, seed=10).image_rgb, render_image("balloon", 0).image_rgb)


def test_force_replaces_an_earlier_sample_and_nothing_else(tmp_path):
    render_sample("face", tmp_path, images=3)
    mine = tmp_path / "train" / "holiday.jpg"
    mine.write_bytes(b"my own")
    result = render_sample("balloon", tmp_path, images=2, force=True)
    assert mine.read_bytes() == b"my own"
    assert sorted(p.name for p in tmp_path.rglob("*.json")) == ["balloon_0000.json", "balloon_0001.json"]
    assert (tmp_path / "labels.txt").read_text() == "balloon\n"
    assert dict(result.images) == {"train": 1, "val": 1}


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("baloon", {}, r"found 'baloon'; expected one of balloon, chipset, face, .*Did you mean balloon\?"),
        ("zebra", {}, r"unknown sample; found 'zebra'"),
        ("face", {"images": 1}, r"found 1; expected 2 or more images"),
        ("face", {"seed": -1}, r"seed cannot be negative"),
    ],
)
def test_bad_wishes_are_refused_before_anything_is_written(tmp_path, kind, options, says):
    with pytest.raises(D2TuneError, match=says):
        render_sample(kind, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_and_a_file_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("keep")
    with pytest.raises(D2TuneError, match=r"not empty.*--force"):
        render_sample("face", tmp_path, images=2)
    with pytest.raises(D2TuneError, match="the output is a file"):
        render_sample("face", tmp_path / "notes.txt", images=2)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
