"""Formats of the objects of a prediction: measures, masks, cut-outs, drawings, COCO results and YOLO labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from d2tune.annotations.convert import read_dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from d2tune.inference.results import Detections, LabelMap, PanopticMap, Segment
from d2tune.inference.writers import image_files
from d2tune.inference.writers.base import Images, Writer, WriterOptions
from d2tune.inference.writers.coco_results import CocoResultsWriter
from d2tune.inference.writers.image_files import CutoutWriter, MaskWriter, OverlayWriter, overlay_image
from d2tune.inference.writers.instance import CocoWriter
from d2tune.inference.writers.several import SeveralWriter
from d2tune.inference.writers.tables import MeasurementsWriter
from d2tune.inference.writers.yolo import YoloWriter
from d2tune.report.sheets.drawing import draw_instances

HEIGHT, WIDTH = 20, 30
CLASSES = ("bolt", "=1+1")
READER = SimpleNamespace(channels=3, raster=None)
PREDICTOR: Any = SimpleNamespace(class_names=CLASSES, reader=READER)


def rectangle(left: int, top: int, width: int, height: int) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def detections(*objects: tuple[NDArray[np.bool_], float, int], lower: tuple[float, ...] = ()) -> Detections:
    raw = [mask_utils.encode(np.asfortranarray(mask.astype(np.uint8))) for mask, _, _ in objects]
    boxes = [mask_utils.toBbox(one) for one in raw]
    return Detections(
        HEIGHT,
        WIDTH,
        np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in objects], np.float32),
        np.array([class_id for _, _, class_id in objects], np.int64),
        tuple(Rle(HEIGHT, WIDTH, one["counts"].decode()) for one in raw),
        CLASSES,
        lower,
    )


TWO = detections((rectangle(3, 2, 10, 4), 0.9, 0), (rectangle(8, 4, 6, 16), 0.75, 1), lower=(0.3,))
"""A bolt of 10 x 4 px, and below it an object of 6 x 16 px that reaches the lower border."""
NOTHING = detections()


def photo() -> NDArray[np.uint8]:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, :10], pixels[:, 10:] = (200, 100, 0), (0, 0, 50)
    return pixels


def images(folder: Path, *names: str) -> Images:
    return Images(folder, [folder / name for name in names])


def written(writer: Writer[Any, Any], *results: Any) -> int:
    """The number of objects that a writer counts on results in order."""
    with writer:
        total = 0
        for index, result in enumerate(results):
            kept = json.loads(json.dumps(writer.convert(index, result, photo())))
            total += writer.add(index, kept)
        writer.finish()
    return total


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_measures_in_pixels_and_millimeters(tmp_path: Path) -> None:
    some = images(tmp_path, "a.jpg", "empty.jpg")
    writer = MeasurementsWriter(tmp_path / "out", some, PREDICTOR, WriterOptions(mm_per_px=0.5))
    assert written(writer, TWO, NOTHING) == 2
    assert (writer.lower, writer.highest_lower) == (1, pytest.approx(0.3))
    first, second = table(tmp_path / "out" / "measurements.csv")
    expected = {"image": "a.jpg", "object": "1", "class": "bolt", "score": "0.9", "area_px2": "40", "area_mm2": "10.0"}
    expected |= {"length_px": "10.0", "width_px": "4.0", "perimeter_px": "28.0", "length_mm": "5.0", "width_mm": "2.0"}
    expected |= {"x_px": "8.0", "y_px": "4.0", "left_px": "3", "top_px": "2", "box_width_px": "10"}
    expected |= {"diameter_px": f"{np.sqrt(160 / np.pi):.3f}", "touches_border": "no"}
    expected |= {"red": "140.0", "green": "70.0", "blue": "15.0"}  # 7 of 10 columns are orange
    assert expected.items() <= first.items()
    assert second["class"] == "'=1+1" and second["touches_border"] == "yes" and second["area_px2"] == "96"
    counts = [tuple(row.values()) for row in table(tmp_path / "out" / "counts.csv")]
    assert counts == [
        ("a.jpg", "bolt", "1", "40", "6.6667", "10.0"),
        ("a.jpg", "'=1+1", "1", "96", "16.0", "24.0"),
        ("empty.jpg", "bolt", "0", "0", "0.0", "0.0"),
        ("empty.jpg", "'=1+1", "0", "0", "0.0", "0.0"),
    ]


def test_objects_below_the_smallest_area_are_not_written(tmp_path: Path) -> None:
    options = WriterOptions(min_area_px2=41)
    for writer in (MeasurementsWriter, MaskWriter, CutoutWriter):
        assert written(writer(tmp_path / writer.__name__, images(tmp_path, "a.jpg"), PREDICTOR, options), TWO) == 1
    assert [row["object"] for row in table(tmp_path / "MeasurementsWriter" / "measurements.csv")] == ["2"]
    with PilImage.open(next((tmp_path / "MaskWriter" / "masks").glob("a*.png"))) as mask:
        assert np.unique(np.asarray(mask)).tolist() == [0, 2]


def test_without_a_scale_there_are_no_millimeters(tmp_path: Path) -> None:
    written(MeasurementsWriter(tmp_path, images(tmp_path, "a.jpg"), PREDICTOR, WriterOptions()), NOTHING)
    header = (tmp_path / "measurements.csv").read_text(encoding="utf-8")
    assert header.startswith("image,object,class,score,area_px2,length_px,") and "mm" not in header


def test_regions_of_label_maps_and_segments_are_measured(tmp_path: Path) -> None:
    class_ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    class_ids[rectangle(1, 1, 5, 5)] = class_ids[rectangle(6, 6, 3, 3)] = 1  # they touch at a corner: one region
    class_ids[rectangle(20, 10, 4, 2)] = 1
    class_ids[0] = 255
    writer = MeasurementsWriter(
        tmp_path / "map", images(tmp_path, "a.png"), PREDICTOR, WriterOptions(), background="bolt"
    )
    assert written(writer, LabelMap(class_ids, CLASSES)) == 2
    assert [row["area_px2"] for row in table(tmp_path / "map" / "measurements.csv")] == ["34", "8"]
    rows = table(tmp_path / "map" / "counts.csv")
    assert [(row["objects"], row["area_px2"]) for row in rows] == [("0", str(600 - 30 - 42)), ("2", "42")]
    ids = np.zeros((HEIGHT, WIDTH), np.int32)
    ids[rectangle(2, 3, 6, 4)], ids[rectangle(10, 3, 2, 2)] = 7, 9
    panoptic = PanopticMap(ids, (Segment(7, 0, True, 24, 0.5), Segment(9, 1, False, 4)), CLASSES)
    writer = MeasurementsWriter(tmp_path / "panoptic", images(tmp_path, "a.png"), PREDICTOR, WriterOptions())
    assert written(writer, panoptic) == 2
    rows = table(tmp_path / "panoptic" / "measurements.csv")
    assert [(row["object"], row["score"], row["length_px"]) for row in rows] == [("7", "0.5", "6.0"), ("9", "", "2.0")]


def test_masks_number_the_objects_and_the_highest_score_wins(tmp_path: Path) -> None:
    some = images(tmp_path, "a.jpg", "empty.jpg")
    assert written(MaskWriter(tmp_path, some, PREDICTOR, WriterOptions()), TWO, NOTHING) == 2
    with PilImage.open(tmp_path / "masks" / "a.png") as png:
        numbers = np.asarray(png)
    expected = np.where(rectangle(3, 2, 10, 4), 1, np.where(rectangle(8, 4, 6, 16), 2, 0))
    assert numbers.dtype == np.uint8 and np.array_equal(numbers, expected)
    with PilImage.open(tmp_path / "masks" / "empty.png") as png:
        assert not np.asarray(png).any()
    assert [row["class"] for row in table(tmp_path / "objects.csv")] == ["bolt", "'=1+1"]


def test_masks_of_more_than_255_objects_have_16_bits(tmp_path: Path) -> None:
    pixels = [rectangle(x, y, 1, 1) for y in range(HEIGHT) for x in range(WIDTH)][:300]
    result = detections(*((mask, 1 - index / 1000, 0) for index, mask in enumerate(pixels)))
    written(MaskWriter(tmp_path, images(tmp_path, "a.jpg"), PREDICTOR, WriterOptions()), result)
    with PilImage.open(tmp_path / "masks" / "a.png") as png:
        numbers = np.asarray(png).astype(int)
    assert numbers.ravel()[:300].tolist() == list(range(1, 301)) and not numbers.ravel()[300:].any()


def test_cutouts_have_the_pixels_of_the_object_and_earlier_ones_go(tmp_path: Path) -> None:
    some = images(tmp_path, "sub/a.jpg")
    l_shape = rectangle(3, 2, 10, 4) & ~rectangle(3, 2, 5, 2)
    written(CutoutWriter(tmp_path, some, PREDICTOR, WriterOptions()), detections((l_shape, 0.93, 0), (l_shape, 0.6, 1)))
    folder = tmp_path / "cutouts" / "sub" / "a"
    assert sorted(path.name for path in folder.glob("*.png")) == ["0001_bolt_0.93.png", "0002__1_1_0.60.png"]
    with PilImage.open(folder / "0001_bolt_0.93.png") as png:
        rgba = np.asarray(png)
    assert np.array_equal(rgba[:, :, :3], photo()[2:6, 3:13])
    assert np.array_equal(rgba[:, :, 3] == 255, l_shape[2:6, 3:13]) and set(np.unique(rgba[:, :, 3])) == {0, 255}
    (folder / "0009_mine.png").write_bytes(b"a person's file")
    with pytest.raises(DataError, match=r"0009_mine\.png"):
        CutoutWriter(tmp_path, some, PREDICTOR, WriterOptions())
    (folder / "0009_mine.png").unlink()
    written(CutoutWriter(tmp_path, some, PREDICTOR, WriterOptions()), detections((l_shape, 0.93, 0)))
    assert [path.name for path in folder.glob("*.png")] == ["0001_bolt_0.93.png"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc", "0001__.._etc_0.90.png"),
        ("a/b\\c:d*e?", "0001_a_b_c_d_e__0.90.png"),
        ("hex nut M6", "0001_hex_nut_M6_0.90.png"),
        ("Schraube_gr\u00f6\u00dfer", "0001_Schraube_gr\u00f6\u00dfer_0.90.png"),
        ("..", "0001___0.90.png"),
        ("\n\t", "0001___0.90.png"),
        ("x" * 300, f"0001_{'x' * 40}_0.90.png"),
        ("\u6f22" * 300, "0001_" + "\u6f22" * 40 + "_0.90.png"),
    ],
)
def test_names_of_classes_in_names_of_cutouts_are_safe(tmp_path: Path, name: str, expected: str) -> None:
    predictor: Any = SimpleNamespace(class_names=(name,), reader=READER)
    writer = CutoutWriter(tmp_path, images(tmp_path, "a.jpg"), predictor, WriterOptions())
    written(writer, detections((rectangle(3, 2, 10, 4), 0.9, 0)))
    assert [path.name for path in (tmp_path / "cutouts" / "a").glob("*.png")] == [expected]


def test_cutouts_of_images_with_other_values_than_8_bits_are_refused(tmp_path: Path) -> None:
    gray: Any = SimpleNamespace(class_names=CLASSES, reader=SimpleNamespace(channels=1, raster=object()))
    writer = CutoutWriter(tmp_path, images(tmp_path, "a.tif"), gray, WriterOptions())
    with pytest.raises(DataError, match=r"a\.tif: cut-outs are PNGs of 8 bits; found values of float32"):
        writer.convert(0, TWO, np.zeros((HEIGHT, WIDTH, 1), np.float32))


def test_more_regions_than_a_png_can_number_are_refused(tmp_path: Path) -> None:
    class_ids = np.zeros((513, 513), np.uint8)
    class_ids[::2, ::2] = 1
    writer = MaskWriter(tmp_path, images(tmp_path, "a.png"), PREDICTOR, WriterOptions(), background="bolt")
    with writer, pytest.raises(DataError, match=r"a\.png: the image has more objects than a PNG of 16 bits.*65,535"):
        writer.convert(0, LabelMap(class_ids, CLASSES), None)
    assert not (tmp_path / "masks" / "a.png").exists()


def test_gray_images_have_one_color_and_pixels_without_data_do_not_count(tmp_path: Path) -> None:
    gray: Any = SimpleNamespace(class_names=CLASSES, reader=SimpleNamespace(channels=1, raster=None))
    pixels = np.full((HEIGHT, WIDTH, 1), 0.25, np.float32)
    pixels[2:4, :8] = np.nan
    with MeasurementsWriter(tmp_path, images(tmp_path, "a.tif"), gray, WriterOptions()) as writer:
        writer.add(0, writer.convert(0, TWO, pixels))
        writer.finish()
    rows = table(tmp_path / "measurements.csv")
    assert [row["gray"] for row in rows] == ["0.25", "0.25"] and "red" not in rows[0]


def test_boxes_without_masks_count_as_their_pixels(tmp_path: Path) -> None:
    boxes = np.array([(2.6, 1.4, 12.7, 5.4), (-3.0, 4.0, 4.0, 99.0)], np.float32)
    result = Detections(
        HEIGHT, WIDTH, boxes, np.array([0.9, 0.8], np.float32), np.array([0, 1], np.int64), None, CLASSES
    )
    writer = MeasurementsWriter(tmp_path, images(tmp_path, "a.jpg"), PREDICTOR, WriterOptions())
    assert written(writer, result) == 2
    first, second = table(tmp_path / "measurements.csv")
    assert (first["left_px"], first["top_px"], first["length_px"], first["width_px"]) == ("3", "1", "10.0", "4.0")
    assert (second["left_px"], second["length_px"], second["width_px"]) == ("0", "16.0", "4.0")
    assert overlay_image(result, photo()).shape == (HEIGHT, WIDTH, 3)


def test_drawings_of_masks_in_their_boxes_are_those_of_whole_masks() -> None:
    scores = [0.9, 0.75]
    expected = draw_instances(photo(), TWO.masks, CLASSES, scores=scores)
    assert np.array_equal(overlay_image(TWO, photo()), expected) and (expected != photo()).any()


def test_the_background_of_a_drawn_label_map_is_the_photo() -> None:
    class_ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    class_ids[:, 15:] = 1
    result = LabelMap(class_ids, CLASSES)
    painted = overlay_image(result, photo(), background=CLASSES[0])
    assert np.array_equal(painted[:, :15], photo()[:, :15]) and (painted[:, 15:] != photo()[:, 15:]).any(axis=2).all()
    assert (overlay_image(result, photo())[:, :15] != photo()[:, :15]).any()


def test_instances_on_a_very_large_image_are_drawn_on_a_reduced_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of three times the size as a drawing of its own size has the drawing of the usual image."""
    large_masks = [np.kron(mask, np.ones((3, 3), np.uint8)) for mask in TWO.masks.astype(np.uint8)]
    encoded = [mask_utils.encode(np.asfortranarray(mask))["counts"].decode() for mask in large_masks]
    large = Detections(
        3 * HEIGHT,
        3 * WIDTH,
        3 * TWO.boxes_xyxy,
        TWO.scores,
        TWO.class_ids,
        tuple(Rle(3 * HEIGHT, 3 * WIDTH, text) for text in encoded),
        TWO.class_names,
    )
    pixels = photo().repeat(3, axis=0).repeat(3, axis=1)
    assert overlay_image(large, pixels).shape == (3 * HEIGHT, 3 * WIDTH, 3)
    monkeypatch.setattr(image_files, "_LARGEST_PX", HEIGHT * WIDTH)
    assert np.array_equal(overlay_image(large, pixels), overlay_image(TWO, photo()))


def test_names_with_line_ends_stay_in_their_cell(tmp_path: Path) -> None:
    some = images(tmp_path, "=a\r.jpg", "b\nc.jpg")
    written(MeasurementsWriter(tmp_path, some, PREDICTOR, WriterOptions()), TWO, NOTHING)
    counts = table(tmp_path / "counts.csv")
    assert [row["image"] for row in counts] == ["'=a\r.jpg"] * 2 + ["b\nc.jpg"] * 2


def test_drawings_alone(tmp_path: Path) -> None:
    some = images(tmp_path, "a.jpg", "empty.jpg")
    assert written(OverlayWriter(tmp_path / "out", some, PREDICTOR, WriterOptions()), TWO, NOTHING) == 2
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith("."))
    assert names == ["a.jpg.predicted.jpg", "empty.jpg.predicted.jpg"]
    with PilImage.open(tmp_path / "out" / names[1]) as drawing:
        assert np.abs(np.asarray(drawing).astype(int) - photo()).mean() < 8
    with PilImage.open(tmp_path / "out" / names[0]) as drawing:
        assert np.abs(np.asarray(drawing).astype(int) - photo()).mean() > 20


def test_coco_results_are_loaded_beside_the_persons_own_file(tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 71, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 5, "name": "bolt"}, {"id": 3, "name": "=1+1"}],
        "annotations": [],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    some = Images(tmp_path, [tmp_path / "a.jpg"], image_ids=[71], category_ids={"bolt": 5, "=1+1": 3})
    assert written(CocoResultsWriter(tmp_path, some, PREDICTOR, WriterOptions()), TWO) == 2
    loaded = COCO(tmp_path / "truth.json").loadRes(str(tmp_path / "results.json"))
    rows = loaded.loadAnns(loaded.getAnnIds(imgIds=[71]))
    assert [(row["category_id"], row["score"], row["area"]) for row in rows] == [(5, 0.9, 40), (3, 0.75, 96)]
    assert np.array_equal(loaded.annToMask(rows[0]) == 1, rectangle(3, 2, 10, 4))
    about = json.loads((tmp_path / "predicted_images.json").read_text())
    assert about["images"] == [{"id": 71, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT, "bytes": None}]
    assert about["categories"] == [{"id": 5, "name": "bolt"}, {"id": 3, "name": "=1+1"}] and about["schema"] == 1
    written(CocoResultsWriter(tmp_path / "none", images(tmp_path, "a.jpg"), PREDICTOR, WriterOptions()), NOTHING)
    assert json.loads((tmp_path / "none" / "results.json").read_text()) == []


def test_yolo_labels_are_read_back_with_their_scores(tmp_path: Path) -> None:
    PilImage.fromarray(photo()).save(tmp_path / "a.png")
    PilImage.fromarray(photo()).save(tmp_path / "empty.png")
    some = images(tmp_path, "a.png", "empty.png")
    assert written(YoloWriter(tmp_path, some, PREDICTOR, WriterOptions()), TWO, NOTHING) == 2
    assert (tmp_path / "labels" / "empty.txt").read_bytes() == b""
    lines = (tmp_path / "labels" / "a.txt").read_text().splitlines()
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [("0", "0.9"), ("1", "0.75")]
    dataset = read_dataset(tmp_path, format="yolo-seg", options=ReadOptions())
    read = {one.category_id: (one.area_px2, one.score) for one in dataset.instances}
    assert read == {1: (40, 0.9), 2: (96, 0.75)} and dataset.class_names == CLASSES


def test_several_formats_in_one_pass_have_the_files_of_each(tmp_path: Path) -> None:
    some = images(tmp_path, "a.jpg", "empty.jpg")
    classes: list[Any] = [CocoWriter, CocoResultsWriter, MaskWriter, CutoutWriter, OverlayWriter, YoloWriter]
    for factory in (*classes, MeasurementsWriter):
        written(factory(tmp_path / "each", some, PREDICTOR, WriterOptions()), TWO, NOTHING)
    together = SeveralWriter(
        tmp_path / "together", some, PREDICTOR, WriterOptions(), factories=[*classes, MeasurementsWriter]
    )
    assert written(together, TWO, NOTHING) == 2
    assert (together.written, together.lower) == (2, 1)

    def content(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".d2tune-outputs.jsonl")
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    assert content(tmp_path / "each") == content(tmp_path / "together") and len(content(tmp_path / "each")) == 16


def test_the_examples_of_the_documents_are_what_is_written(tmp_path: Path) -> None:
    one = detections((rectangle(3, 2, 10, 4), 0.9, 0))
    factories: list[Any] = [MeasurementsWriter, CocoWriter, CocoResultsWriter, YoloWriter, MaskWriter]
    some = images(tmp_path, "board_01.jpg")
    assert (
        written(SeveralWriter(tmp_path, some, PREDICTOR, WriterOptions(mm_per_px=0.5), factories=factories), one) == 1
    )
    document = (Path(__file__).parents[3] / "docs" / "predictions.md").read_text(encoding="utf-8").splitlines()
    for name, lines in (("measurements.csv", 2), ("counts.csv", 2), ("objects.csv", 2), ("labels/board_01.txt", 1)):
        rows = (tmp_path / name).read_text(encoding="utf-8").splitlines()[:lines]
        assert [row for row in rows if row not in document] == []
    (row,) = json.loads((tmp_path / "predictions.json").read_bytes())["annotations"]
    (result,) = json.loads((tmp_path / "results.json").read_bytes())
    shown = [json.loads(line) for line in document if line.startswith("{")]
    assert shown == [row, result]
