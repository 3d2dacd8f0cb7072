"""What COCO files may hold, and the one line that is said where they hold something else."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from d2tune.annotations.geometry.masks import check_rle
from d2tune.errors import DataError
from d2tune.metrics.coco.results import KINDS, Kind
from d2tune.metrics.coco.rows import CocoSet, read_coco
from d2tune.metrics.overlap import run_lengths
from tests.metrics.coco.random_sets import decode, encode, random_set

Files = dict[str, Any]
SQUARE = [12, 10, 62, 10, 62, 60, 12, 60]


def files() -> Files:
    images = [{"id": number, "height": 200, "width": 300} for number in (1, 2)]
    row = {"image_id": 1, "category_id": 7, "bbox": [10, 10, 50, 50], "segmentation": [list(SQUARE)]}
    return {
        "truth": {
            "images": images,
            "categories": [{"id": 1, "name": "a"}, {"id": 7, "name": "b"}],
            "annotations": [{**copy.deepcopy(row), "id": 4, "area": 2500, "iscrowd": 0}],
        },
        "results": [{**copy.deepcopy(row), "score": 0.5}, {**copy.deepcopy(row), "score": 0.5}],
    }


def read(both: Files, kinds: tuple[Kind, ...] = KINDS) -> CocoSet:
    return read_coco(both["truth"], both["results"], kinds)


def result(**values: Any) -> Callable[[Files], None]:
    return lambda both: both["results"][1].update(values)


def annotation(**values: Any) -> Callable[[Files], None]:
    return lambda both: both["truth"]["annotations"][0].update(values)


def image(**values: Any) -> Callable[[Files], None]:
    return lambda both: both["truth"]["images"][0].update(values)


def added(where: str, row: Any) -> Callable[[Files], None]:
    return lambda both: both["truth"][where].append(row)


def polygon(*numbers: Any) -> Callable[[Files], None]:
    return result(segmentation=[SQUARE, list(numbers)])


def rle(counts: Any, size: Any = (200, 300)) -> Callable[[Files], None]:
    return result(segmentation={"size": list(size) if isinstance(size, tuple) else size, "counts": counts})


def unsized(change: Callable[[Files], None]) -> Callable[[Files], None]:
    def both_changes(both: Files) -> None:
        for one in both["truth"]["images"]:
            del one["height"], one["width"]
        mask = encode(np.eye(200, 300))
        for row in (*both["truth"]["annotations"], *both["results"]):
            row["segmentation"] = mask
        change(both)

    return both_changes


RESULT = "result 2 of 2: "
ANNOTATION = "annotation 4: "
RUNS = RESULT + "the runs add up to "
COUNTS = RESULT + "the counts of the run-length mask are neither whole numbers nor compressed text"
SIZE = RESULT + "the size of the mask differs from the size of its image; found size"
BOX = RESULT + "the box is not four finite numbers"
BAD_ID = "is not a whole number; found"
NO_OUTLINE = RESULT + "polygon 2 is not an outline; found "
BAD_IMAGE = "image 1: the image has no usable height and width; found height"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (polygon(1, 2, math.nan, 4, 5, 6), RESULT + "polygon 2: point 1 has the coordinate nan"),
        (polygon(1, 2, 3, math.inf, 5, 6), RESULT + "polygon 2: point 1 has the coordinate inf"),
        (polygon(1, 2, 10**400, 4, 5, 6), RESULT + "polygon 2: point 1 has a coordinate beyond"),
        (polygon(1, 2, 1e12, 4, 5, 6), RESULT + "polygon 2 lies far outside its image; found 1000000000000.0"),
        (polygon(1, 2, -1201, 4, 5, 6), "found -1201.0; expected nothing beyond 1200 px"),
        (polygon(*[0, 0, 299, 199] * 10_000), RESULT + "polygon 2 is longer than 4,000,000 px"),
        (polygon(1, 2, 3, 4), NO_OUTLINE + "4 numbers"),
        (polygon(1, 2, 3), NO_OUTLINE + "3 numbers"),
        (polygon(1, 2, 3, 4, 5, 6, 7), NO_OUTLINE + "7 numbers"),
        (polygon(), NO_OUTLINE + "0 numbers"),
        (polygon("a", "b", "c", "d", "e", "f"), RESULT + "polygon 2: point 0 has 'a'"),
        (polygon(True, 2, 3, 4, 5, 6), RESULT + "polygon 2: point 0 has True"),
        (result(segmentation=[SQUARE, "abcdef"]), NO_OUTLINE + "'abcdef'"),
        (result(segmentation=list(SQUARE)), RESULT + "polygon 1 is not an outline; found 12"),
        (result(segmentation="abc"), RESULT + "the segmentation is neither polygons nor run lengths; found 'abc'"),
        (result(segmentation={}), RESULT + "the segmentation is neither polygons nor run lengths; found {}"),
        (result(segmentation=[]), RESULT + "there is no segmentation"),
        (annotation(segmentation=[[1, 2, 3, 4]]), ANNOTATION + "polygon 1 is not an outline; found 4 numbers"),
        (annotation(segmentation=[[]]), "Remove the polygon, or its row if it has no other polygon"),
        (annotation(segmentation=[]), ANNOTATION + "there is no segmentation"),
        (
            annotation(segmentation=[[1, 2, math.nan, 4, 5, 6]]),
            ANNOTATION + "polygon 1: point 1 has the coordinate nan",
        ),
        (rle([5, 500_000]), RUNS + "500005 pixels, the image has 60000"),
        (rle([5, 5]), RUNS + "10 pixels"),
        (rle([5.5, 59_994.5]), COUNTS),
        (rle([5, -5, 60_000]), COUNTS),
        (rle([5, 10**400]), RUNS),
        (rle(["a"]), COUNTS),
        (rle(None), COUNTS),
        (rle(""), RUNS + "0 pixels"),
        (rle(b""), RUNS + "0 pixels"),
        (rle("abc"), COUNTS),
        (rle(b"abc"), COUNTS),
        (rle("ZZZZ!!0~~"), COUNTS),
        (rle("o" * 30 + "0"), COUNTS),
        (rle("PPPPPPPPPP0"), RUNS + "0 pixels"),
        (rle("5é"), RESULT + "the compressed runs hold '5é'"),
        (rle("5\ud800"), RESULT + "the compressed runs hold"),
        (rle(b"5\xff"), RESULT + "the compressed runs hold"),
        (rle("abc", (200,)), SIZE + " [200]"),
        (rle("abc", (200, 300, 1)), SIZE + " [200, 300, 1]"),
        (rle("abc", None), SIZE + " None"),
        (
            rle("abc", (300, 200)),
            RESULT + "the size of the mask differs from the size of its image; found 300 x 200 px",
        ),
        (rle("abc", ("a", 300)), "found 'a' x 300 px (height x width); expected 200 x 300 px"),
        (added("images", {"id": 2}), "image 3 of 3: another image has the same id; found id 2"),
        (added("categories", {"id": 1, "name": "z"}), "category 3 of 3: another category has the same id; found id 1"),
        (image(height=0, width=0), BAD_IMAGE + " 0, width 0"),
        (image(height="200"), BAD_IMAGE + " '200', width 300"),
        (image(height=None), BAD_IMAGE + " None, width 300"),
        (image(height=200.0), BAD_IMAGE + " 200.0"),
        (image(height=200_000, width=300_000), BAD_IMAGE + " 200000"),
        (image(height=None, width=None), BAD_IMAGE + " None, width None"),
        (unsized(rle("abc", (200,))), SIZE + " [200]; expected 200 x 300 px"),
        (unsized(annotation(segmentation={"size": [0, 5], "counts": "0"})), ANNOTATION + "the mask has no size; found"),
        (result(category_id=[1]), RESULT + "the category_id is not a whole number; found category_id [1]"),
        (result(image_id=[1]), RESULT + "the image_id is not a whole number; found image_id [1]"),
        (result(image_id=1.5), RESULT + "the image_id is not a whole number; found image_id 1.5"),
        (result(image_id=True), "found image_id True"),
        (result(image_id=None), "found image_id None"),
        (result(image_id=2**64), BAD_ID),
        (result(image_id="1"), RESULT + "the image_id is text; found image_id '1'; expected a whole number"),
        (result(category_id="1"), RESULT + "the category_id is text; found category_id '1'"),
        (
            image(id="x"),
            "image 1 of 2: the id is text; found id 'x'; expected a whole number. Give images and classes whole",
        ),
        (
            lambda both: both["truth"]["images"][0].pop("id"),
            "image 1 of 2: the id is not a whole number; found id None",
        ),
        (added("categories", {"id": "c1", "name": "c"}), "category 3 of 3: the id is text; found id 'c1'"),
        (added("categories", {"id": 9}), "category 3 of 3: the category has no name; found name None; expected text"),
        (added("categories", "x"), "category 3 of 3: the row is not a JSON object; found 'x'"),
        (added("images", 5), "image 3 of 3: the row is not a JSON object; found 5"),
        (added("annotations", 5), "annotation 2 of 2: the row is not a JSON object; found 5"),
        (lambda both: both["results"].append(None), "result 3 of 3: the row is not a JSON object; found None"),
        (result(score=10**400), RESULT + "the score is not a finite number; found a number of hundreds of digits"),
        (result(score=True), RESULT + "the score is not a finite number; found True"),
        (result(bbox=5), BOX + "; found 5"),
        (result(bbox=0), BOX + "; found 0"),
        (result(bbox="1234"), BOX + "; found '1234'"),
        (result(bbox={"x": 1}), BOX),
        (result(bbox=[True, 1, 2, 3]), BOX + "; found [True, 1, 2, 3]; expected [x, y, w, h]"),
        (result(bbox=[0, 0, 1e300, 1e300]), BOX),
        (result(bbox=[10, 10, -5, -5]), RESULT + "the box has a negative side; found [10, 10, -5, -5]"),
        (annotation(iscrowd=None), ANNOTATION + "iscrowd is neither 0 nor 1; found iscrowd None"),
        (annotation(iscrowd="yes"), ANNOTATION + "iscrowd is neither 0 nor 1; found iscrowd 'yes'"),
        (annotation(iscrowd=2), ANNOTATION + "iscrowd is neither 0 nor 1; found iscrowd 2"),
        (annotation(area="x"), ANNOTATION + "the area must be a number of 0 or more; found area 'x'"),
        (annotation(area=-5), ANNOTATION + "the area must be a number of 0 or more; found area -5"),
        (annotation(area=math.nan), ANNOTATION + "the area must be a number of 0 or more; found area nan"),
        (annotation(area=1e12), ANNOTATION + "the area is larger than the image; found area 1000000000000.0"),
    ],
)
def test_an_error_names_the_row(change: Callable[[Files], None], words: str) -> None:
    both = files()
    read(both)
    change(both)
    with pytest.raises(DataError) as caught:
        read(both)
    assert words in str(caught.value), str(caught.value)


def test_sizes_of_images_do_not_matter_to_boxes() -> None:
    both = files()
    image(height=0, width="x")(both)
    annotation(area=1e12)(both)
    assert read(both, ("bbox",)).truth[0]["area"] == 1e12


def test_what_is_missing_is_computed_from_the_mask() -> None:
    """The square is 50 px wide and high."""
    both = files()
    for row in (both["truth"]["annotations"][0], both["results"][1]):
        row["bbox"] = None
    del both["truth"]["annotations"][0]["area"], both["truth"]["annotations"][0]["iscrowd"]
    data = read(both)
    assert data.truth[0]["area"] == 2500 and data.truth[0]["iscrowd"] == 0
    assert data.truth[0]["bbox"] == data.results[1]["bbox"] == [12, 10, 50, 50]


def test_without_sizes_the_first_mask_of_an_image_defines_it() -> None:
    both = files()
    unsized(lambda _: None)(both)
    assert [row["rle"]["size"] for row in read(both).results] == [[200, 300]] * 2
    both["results"][1]["segmentation"] = encode(np.eye(20, 30))
    with pytest.raises(
        DataError, match="result 2 of 2: the size of the mask differs from the size of its image; found 20 x 30 px"
    ):
        read(both)


def test_whole_numbers_may_be_written_as_floats() -> None:
    both = files()
    result(image_id=1.0, category_id=np.int64(7))(both)
    assert read(both).results[1]["image_id"] == 1


@pytest.mark.parametrize("as_bytes", [False, True])
def test_masks_come_through_as_they_are(as_bytes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text of drawn masks, empty and full ones among them, in bunches of a few and of many."""
    masks = [row["segmentation"] for seed in range(8) for row in random_set(seed)[1]]
    if as_bytes:
        masks = [{**mask, "counts": mask["counts"].encode()} for mask in masks]
    assert len(masks) > 100
    for bunch in (50, 2**20):
        monkeypatch.setattr(run_lengths, "TEXT_BYTES", bunch)
        assert run_lengths.checked_texts(masks, str) == masks


def test_each_broken_text_is_found_among_sound_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """One character of one mask is changed; the text is refused where the plain reader refuses it."""
    monkeypatch.setattr(run_lengths, "TEXT_BYTES", 200)
    draw = np.random.default_rng(5)
    masks = [encode(draw.random((9, 14)) < 0.3) for _ in range(30)]
    refused = 0
    for at in range(30):
        text = masks[at]["counts"]
        place, letter = int(draw.integers(len(text))), chr(int(draw.integers(33, 126)))
        changed = {**masks[at], "counts": text[:place] + letter + text[place + 1 :]}
        try:
            expected = check_rle(changed, width_px=14, height_px=9)
        except ValueError:
            refused += 1
            with pytest.raises(DataError, match=f"^mask {at}: "):
                run_lengths.checked_texts([*masks[:at], changed, *masks[at + 1 :]], lambda index: f"mask {index}")
        else:
            kept = run_lengths.checked_texts([*masks[:at], changed, *masks[at + 1 :]], str)
            assert (decode(kept[at]) == decode(expected)).all()
    assert refused > 20


def test_empty_runs_are_joined() -> None:
    """pycocotools stops comparing where both masks have an empty run at the same place."""
    counts = [10, 5, 0, 5, 30]
    mask = mask_utils.frPyObjects({"size": [5, 10], "counts": counts}, 5, 10)
    plain = mask_utils.frPyObjects({"size": [5, 10], "counts": [10, 10, 30]}, 5, 10)
    assert mask["counts"] != plain["counts"]
    assert run_lengths.checked_texts([mask], str) == [plain]
    assert run_lengths.to_rle({"size": [5, 10], "counts": counts}, 5, 10) == plain
