from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2tune.annotations.formats import coco, labelme
from d2tune.annotations.geometry.masks import check_rle
from d2tune.annotations.geometry.polygons import PointError
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, TRIANGLE, codes, labelme_file, photo, shape

FLAT_TRIANGLE = [10, 10, 30, 10, 10, 40]


def annotation(**more: Any) -> dict[str, Any]:
    return {"id": 0, "image_id": 0, "category_id": 0, "iscrowd": 0, "segmentation": [FLAT_TRIANGLE]} | more


def value(*annotations: Any, **more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 0, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": list(annotations),
        "categories": [{"id": 0, "name": "cat"}, {"id": 7, "name": "ant"}],
    } | more


def read(folder: Path, content: Any, **options: Any) -> Dataset:
    if not (folder / "a.png").exists():
        photo(folder / "a.png")
    (folder / "coco.json").write_text(json.dumps(content), "utf-8")
    return coco.read(folder / "coco.json", ReadOptions(**options))


def test_everything_is_numbered_from_1_in_the_order_of_the_ids(tmp_path: Path) -> None:
    dataset = read(tmp_path, value(annotation(), annotation(category_id=7)))
    assert [(c.id, c.name) for c in dataset.categories] == [(1, "cat"), (2, "ant")]
    assert [(instance.id, instance.image_id, instance.category_id) for instance in dataset.instances] == [
        (1, 1, 1),
        (2, 1, 2),
    ]
    assert dataset.images[0].id == 1
    labeled = read(tmp_path, value(annotation()), labels=["ant", "bee", "cat"])
    assert [instance.category_id for instance in labeled.instances] == [3]


def test_a_perfect_detector_scores_1(tmp_path: Path) -> None:
    boxes = ([[0, 0], [9, 9]], [[20, 20], [40, 40]])
    labelme_file(tmp_path / "a.json", *(shape(box, "cat", "rectangle") for box in boxes))
    written = coco.to_coco(labelme.read(tmp_path, ReadOptions()))
    truth = COCO()
    truth.dataset = written
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes([row | {"score": 1.0} for row in written["annotations"]]), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_areas_and_boxes_are_measured_anew(tmp_path: Path) -> None:
    dataset = read(tmp_path, value(annotation(area=5, bbox=[0, 0, 1, 1])))
    assert (dataset.instances[0].area_px2, dataset.instances[0].bbox_xywh) == (300, (10, 10, 20, 30))


def test_a_box_alone_becomes_a_rectangle(tmp_path: Path) -> None:
    for nothing in ([], None):
        dataset = read(tmp_path, value(annotation(segmentation=nothing, bbox=[10, 20, 20, 20])))
        assert dataset.instances[0].coco_segmentation() == [[10, 20, 30, 20, 30, 40, 10, 40]]
    assert codes(read(tmp_path, value(annotation(segmentation=[])))) == [("error", "bad_point", 0)]


@pytest.mark.parametrize(
    ("segmentation", "code"),
    [
        ([[1, 1, 9, 9]], "too_few_points"),  # pycocotools takes four numbers for a box
        ([[1, 1, 9, 9, 5]], "bad_point"),
        ([[1, 1, 9, None, 5, 5]], "bad_point"),
        ([[1, 1, 9, float("nan"), 5, 5]], "non_finite_coordinate"),
        ([[1, 1, 9, 1, 9, 1e9]], "clipped"),
        ([[70, 1, 90, 1, 90, 9]], "outside_image"),
        ("abc", "bad_point"),
        ([7], "bad_point"),
        ({"size": [48, 63], "counts": "0"}, "bad_rle"),
        ({"size": [48, 64], "counts": [1, 2]}, "bad_rle"),
        ({"size": [48, 64], "counts": [4000, -1000, 72]}, "bad_rle"),
        ({"size": [48, 64], "counts": "zzzzzz"}, "bad_rle"),
        ({"size": [48, 64], "counts": "\u00e9"}, "bad_rle"),
        ({"size": [48, 64], "counts": None}, "bad_rle"),
        ({"counts": [3072]}, "bad_rle"),
        ({"size": [48, 64], "counts": [3072]}, "rasterizes_empty"),
    ],
)
def test_invalid_segmentations_are_reported(tmp_path: Path, segmentation: Any, code: str) -> None:
    dataset = read(tmp_path, value(annotation(segmentation=segmentation), annotation()))
    assert [(finding.code, finding.shape) for finding in dataset.findings] == [(code, 0)]
    assert dataset.instances[-1].shapes == (1,)


def test_masks_become_polygons_where_they_can(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[10:20, 5:15] = 1
    ring = mask.copy()
    ring[14:16, 9:11] = 0
    counts = [[int(run) for run in coco_mask_counts(m)] for m in (mask, ring)]
    compressed = coco_mask.encode(np.asfortranarray(ring))["counts"].decode()
    rows = [
        annotation(segmentation={"size": [48, 64], "counts": counts[0]}),
        annotation(segmentation={"size": [48, 64], "counts": counts[1]}),
        annotation(segmentation={"size": [48, 64], "counts": compressed}, iscrowd=1),
    ]
    dataset = read(tmp_path, value(*rows))
    assert dataset.findings == ()
    assert dataset.instances[0].coco_segmentation() == [[5, 10, 15, 10, 15, 20, 5, 20]]
    assert dataset.instances[1].segmentation == Rle(48, 64, compressed)
    assert [instance.area_px2 for instance in dataset.instances] == [100, 96, 96]
    assert [instance.iscrowd for instance in dataset.instances] == [False, False, True]


def coco_mask_counts(mask: np.ndarray) -> list[int]:
    """Uncompressed counts, straight from the definition: lengths of runs down the columns, zeros first."""
    counts, current = [0], 0
    for pixel in mask.reshape(-1, order="F"):
        if pixel != current:
            counts.append(0)
            current = pixel
        counts[-1] += 1
    return counts


@settings(deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1)))
def test_compressed_and_plain_run_lengths_are_understood(mask: np.ndarray) -> None:
    wanted = coco_mask.encode(np.asfortranarray(mask))
    size = {"width_px": mask.shape[1], "height_px": mask.shape[0]}
    for counts in (wanted["counts"].decode(), coco_mask_counts(mask)):
        raw = check_rle({"size": list(mask.shape), "counts": counts}, **size)
        assert np.array_equal(coco_mask.decode(raw), mask)


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30))
def test_hostile_run_lengths_never_reach_pycocotools(text: str) -> None:
    try:
        raw = check_rle({"size": [48, 64], "counts": text}, width_px=64, height_px=48)
    except PointError as error:
        assert error.code == "bad_rle"
    else:
        assert coco_mask.decode(raw).shape == (48, 64)


def test_broken_references_are_reported(tmp_path: Path) -> None:
    content = value(annotation(image_id=5), annotation(category_id=3), annotation(image_id=[1]), 7, annotation())
    content["images"] += [{"id": 0, "file_name": "b.png"}, {"file_name": "c.png"}, {"id": 9, "file_name": "gone.png"}]
    content["categories"] += [{"id": 7, "name": "bee"}, {"id": 8}, None]
    dataset = read(tmp_path, content)
    wanted = {"image_missing": 3, "unknown_label": 1, "bad_shape": 5, "duplicate_image": 1}
    assert Counter(f.code for f in dataset.errors()) == wanted
    assert len(dataset.instances) == 1


def test_sizes_and_labels_are_checked(tmp_path: Path) -> None:
    images = [{"id": 0, "file_name": "a.png", "width": 640, "height": 480}]
    assert codes(read(tmp_path, value(annotation(), images=images))) == [("error", "size_mismatch", None)]
    assert [f.hint for f in read(tmp_path, value(annotation()), labels=["cart"]).errors()] == ["cart"]


def test_images_are_read_from_images_folders(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "p.png")
    content = value(annotation(), images=[{"id": 0, "file_name": "p.png"}])
    for folder in ("annotations", "json"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "coco.json").write_text(json.dumps(content), "utf-8")
    refused = coco.read(tmp_path / "json" / "coco.json", ReadOptions())
    assert [finding.code for finding in refused.errors()] == ["image_missing"]
    assert "outside the data root" in refused.errors()[0].message
    (tmp_path / "json" / "coco.json").unlink()
    path = tmp_path / "annotations" / "coco.json"
    for options in (ReadOptions(), ReadOptions(image_root=tmp_path / "images")):
        dataset = coco.read(path, options)
        assert [image.file_name for image in dataset.images] == ["p.png"]
    whole = coco.read(tmp_path, ReadOptions())
    assert [image.file_name for image in whole.images] == ["images/p.png"]


def test_files_that_are_not_coco(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a COCO"):
        read(tmp_path, {"images": 3})
    (tmp_path / "cut.json").write_text("{", "utf-8")
    assert codes(coco.read(tmp_path / "cut.json", ReadOptions())) == [("error", "bad_json", None)]
    with pytest.raises(DataError, match="must contain exactly one COCO"):
        coco.read(tmp_path, ReadOptions())


def test_stuff_is_excluded_from_instances_and_listed(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "sky", "isthing": 0}, {"id": 2, "name": "cat", "isthing": 1}]
    rows = [annotation(category_id=1), annotation(category_id=2)]
    dataset = read(tmp_path, value(*rows, categories=categories))
    written = coco.to_coco(dataset)
    assert written["categories"] == categories
    assert [(row["id"], row["category_id"]) for row in written["annotations"]] == [(1, 2)]
    assert "isthing" not in coco.to_coco(read(tmp_path, value(annotation())))["categories"][0]
    with pytest.raises(DataError, match=r"'skye'.*Did you mean 'sky'"):
        read(tmp_path, value(*rows, categories=categories), stuff=["skye"])


def test_writing_is_byte_stable_and_reads_back_the_same(tmp_path: Path) -> None:
    photo(tmp_path / "b.png")
    labelme_file(tmp_path / "a.json", shape(SQUARE, "cat", flags={"iscrowd": True}), shape(TRIANGLE, "éléphant"))
    dataset = labelme.read(tmp_path, ReadOptions())
    (path,) = coco.write(dataset, tmp_path / "out" / "c.json")
    first = path.read_bytes()
    coco.write(dataset, tmp_path / "out" / "c.json")
    assert path.read_bytes() == first and "éléphant".encode() in first
    again = coco.read(path, ReadOptions(image_root=tmp_path))
    assert coco.to_coco(again) == coco.to_coco(dataset) == json.loads(first)
    fewer = Dataset((), (), ())
    with pytest.raises(DataError, match=r"already there.*--force"):
        coco.write(fewer, path)
    coco.write(fewer, path, force=True)
    assert path.read_bytes() != first
    path.write_text("by hand", "utf-8")
    for force in (False, True):
        with pytest.raises(DataError, match="It was changed after d2tune wrote it"):
            coco.write(dataset, path, force=force)
    assert path.read_text("utf-8") == "by hand"


def test_an_empty_dataset_is_still_a_coco_file(tmp_path: Path) -> None:
    (path,) = coco.write(Dataset((), (), ()), tmp_path)
    assert json.loads(path.read_text()) == {"images": [], "annotations": [], "categories": []}
