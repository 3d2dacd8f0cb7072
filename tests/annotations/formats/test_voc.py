from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_utils
import pytest
from PIL import Image as PilImage

from d2tune.annotations.formats import voc
from d2tune.annotations.geometry.masks import decode_mask, rasterize, union_rles
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from tests.annotations.builders import codes, photo


def xml(*objects: str, filename: str = "<filename>a.png</filename>", size: tuple[int, int] = (64, 48)) -> str:
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation>{filename}{stated}{''.join(objects)}</annotation>"


def thing(*box: Any, name: str = "dog", more: str = "") -> str:
    keys = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False)
    inside = "".join(f"<{key}>{value}</{key}>" for key, value in keys)
    return f"<object><name>{name}</name>{more}<bndbox>{inside}</bndbox></object>"


def read(folder: Path, text: str, **options: Any) -> Dataset:
    if not (folder / "JPEGImages").exists():
        photo(folder / "JPEGImages" / "a.png")
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "Annotations" / "a.xml").write_text(text, "utf-8")
    return voc.read(folder, ReadOptions(**options))


def test_boxes_count_from_1_and_include_their_last_pixel(tmp_path: Path) -> None:
    dataset = read(
        tmp_path, xml(thing(1, 1, 64, 48), thing(11, 21, 30, 40), thing(5, 5, 5, 5, more="<difficult>1</difficult>"))
    )
    assert dataset.findings == ()
    assert [instance.bbox_xywh for instance in dataset.instances] == [(0, 0, 64, 48), (10, 20, 20, 20), (4, 4, 1, 1)]
    assert [instance.area_px2 for instance in dataset.instances] == [3072, 400, 1]
    assert [instance.difficult for instance in dataset.instances] == [False, False, True]
    assert not any(instance.iscrowd for instance in dataset.instances)
    assert dataset.images[0].file_name == "JPEGImages/a.png"


def test_invalid_boxes_and_labels_are_reported(tmp_path: Path) -> None:
    boxes = [thing(1, 1, 5), thing(1, 1, "x", 5), thing(9, 9, 5, 20), thing(1, 1, "nan", 5), thing(0, 1, 5, 5)]
    dataset = read(tmp_path, xml(*boxes, thing(1, 1, 9, 9, name=""), thing(1, 1, 9, 9, name="cat ")))
    assert codes(dataset) == [
        ("error", "bad_point", 0),
        ("error", "bad_point", 1),
        ("warning", "zero_area", 2),
        ("error", "non_finite_coordinate", 3),
        ("warning", "clipped", 4),
        ("error", "bad_shape", 5),
        ("warning", "label_whitespace", 6),
    ]


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("<annotation>\n<object>", "bad_xml", 2),
        ("", "bad_xml", 1),
        ('<!DOCTYPE a [<!ENTITY b "c">]>\n<annotation>&b;</annotation>', "bad_xml", 2),
        ("<rss/>", "not_voc", None),
        (xml(size=(640, 480)), "size_mismatch", None),
        (xml(filename="<filename>gone.png</filename>"), "image_found_elsewhere", None),
    ],
)
def test_invalid_files_are_reported(tmp_path: Path, text: str, code: str, line: int | None) -> None:
    dataset = read(tmp_path, text)
    assert [(f.code, f.line) for f in dataset.findings if f.level != "info"] == [(code, line)]


ENCODINGS = {
    "utf-8": "utf-8",
    "utf-16": "utf-16",
    "utf-16-be": "utf-16",
    "utf-16-le": "utf-16",
    "latin-1": "iso-8859-1",
}
"""The encoding that a file declares, by the codec that writes it; UTF-16 with and without a byte order mark."""


def read_encoded(folder: Path, text: str, codec: str) -> Dataset:
    read(folder, "")
    declaration = f'<?xml version="1.0" encoding="{ENCODINGS[codec]}"?>'
    (folder / "Annotations" / "a.xml").write_bytes((declaration + text).encode(codec))
    return voc.read(folder, ReadOptions())


@pytest.mark.parametrize("codec", ENCODINGS)
def test_files_in_any_encoding_are_read(tmp_path: Path, codec: str) -> None:
    filename = "<!-- no <!DOCTYPE --><filename>a.png</filename>"
    dataset = read_encoded(tmp_path, xml(thing(11, 21, 30, 40, name="dög"), filename=filename), codec)
    assert (dataset.findings, dataset.class_names) == ((), ("dög",))
    assert [box.bbox_xywh for box in dataset.instances] == [(10, 20, 20, 20)]


@pytest.mark.parametrize("codec", ENCODINGS)
@pytest.mark.parametrize(
    "subset", [' [<!ENTITY dog "puppy"> <!-- ]> -->]', ' SYSTEM "a.dtd"', ' PUBLIC "-//x" \'a"b\'', ""]
)
def test_a_document_type_is_dropped_in_any_encoding(tmp_path: Path, subset: str, codec: str) -> None:
    text = f"<!-- <!DOCTYPE --><?x y?>\n<!DOCTYPE annotation{subset}>{xml(thing(11, 21, 30, 40))}"
    dataset = read_encoded(tmp_path, text, codec)
    assert (dataset.findings, dataset.class_names, len(dataset.instances)) == ((), ("dog",), 1)


@pytest.mark.parametrize("codec", ENCODINGS)
def test_entities_of_a_document_type_are_not_expanded(tmp_path: Path, codec: str) -> None:
    text = f'<!DOCTYPE annotation [<!ENTITY dog "puppy">]>{xml(thing(11, 21, 30, 40, name="&dog;"))}'
    dataset = read_encoded(tmp_path, text, codec)
    assert (dataset.findings[0].level, dataset.findings[0].code) == ("error", "bad_xml")
    assert "entities of a document type are not expanded" in dataset.findings[0].message and not dataset.instances


@pytest.mark.parametrize(
    "start",
    [
        "<!DOCTYPE a [" + '"' * 200_001,
        "<!DOCTYPE a " + "<!-- " * 200_000,
        "<!DOCTYPE a " + "<? " * 200_000,
        "<!DOCTYPE",
    ],
)
def test_a_document_type_without_an_end_is_an_error_at_once(tmp_path: Path, start: str) -> None:
    assert [(f.level, f.code) for f in read(tmp_path, start).findings if f.level != "info"] == [("error", "bad_xml")]


@pytest.mark.parametrize(
    ("declared", "codec", "name"),
    [
        ("gb2312", "gb2312", "汽车"),
        ("gb2312", "gbk", "镕"),
        ("GBK", "gbk", "汽車"),
        ("big5", "big5", "汽車"),
        ("Shift_JIS", "shift_jis", "車"),
        ("euc-kr", "euc_kr", "자동차"),
        ("windows-1251", "cp1251", "машина"),
        ("UTF-8", "utf-8-sig", "汽车"),
    ],
)
def test_declared_encodings_are_read_with_the_codecs_of_python(
    tmp_path: Path, declared: str, codec: str, name: str
) -> None:
    read(tmp_path, "")
    text = f'\n<?xml version="1.0" encoding="{declared}" standalone="yes"?>\n{xml(thing(11, 21, 30, 40, name=name))}'
    (tmp_path / "Annotations" / "a.xml").write_bytes(text.encode(codec))
    dataset = voc.read(tmp_path, ReadOptions())
    assert (dataset.findings, dataset.class_names) == ((), (name,))


@pytest.mark.parametrize("declared", ["klingon", "zip", "hex", "unicode_escape", "punycode", "undefined"])
def test_unknown_encodings_are_named(tmp_path: Path, declared: str) -> None:
    dataset = read(tmp_path, f'<?xml version="1.0" encoding="{declared}"?>{xml()}')
    assert f"declares the encoding {declared}, which is unknown" in dataset.errors()[0].message


def test_text_that_is_not_in_its_encoding_names_the_byte(tmp_path: Path) -> None:
    read(tmp_path, "")
    (tmp_path / "Annotations" / "a.xml").write_bytes("<annotation>é</annotation>".encode("latin-1"))
    assert "not text in utf-8, its encoding (byte 12)" in voc.read(tmp_path, ReadOptions()).errors()[0].message


# Polygons, rotated boxes and mask files ------------------------------------------------------------------------------


def area_px2(*points: tuple[float, float]) -> int:
    flat = [[float(value) for point in points for value in point]]
    return int(mask_utils.area(mask_utils.merge(mask_utils.frPyObjects(flat, 48, 64))))


def numbered(*points: tuple[float, float]) -> str:
    inside = "".join(f"<x{at}>{x}</x{at}><y{at}>{y}</y{at}>" for at, (x, y) in enumerate(points, start=1))
    return f"<polygon>{inside}</polygon>"


def pt(*points: tuple[float, float], tag: str = "pt") -> str:
    inside = "".join(f"<{tag}><x>\n{x}\n</x><y>{y}</y></{tag}>" for x, y in points)
    return f"<polygon><username>me</username>{inside}</polygon>"


def item(*inside: str, name: str = "car") -> str:
    return f"<object><name>{name}</name>{''.join(inside)}</object>"


BOX = "<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"


@pytest.mark.parametrize(
    "text",
    [
        item(BOX, numbered((11, 11), (31, 11), (11, 41))),
        item(numbered((11, 11), (31, 11), (11, 41))),
        item(pt((10, 10), (30, 10), (10, 40))),
        item(pt((10, 10), (30, 10), (10, 40), tag="point"), BOX),
        item("<polygon/>", BOX, numbered((11, 11), (31, 11), (11, 41))),
        item("<polygon><x>11</x><y>11</y><x>31</x><y>11</y><x>11</x><y>41</y></polygon>"),
    ],
)
def test_a_polygon_wins_over_the_box(tmp_path: Path, text: str) -> None:
    dataset = read(tmp_path, xml(text))
    assert dataset.findings == ()
    (instance,) = dataset.instances
    assert (instance.area_px2, instance.bbox_xywh, instance.is_box) == (300, (10, 10, 20, 30), False)
    assert area_px2((10, 10), (30, 10), (10, 40)) == 300


def test_several_polygons_are_one_object(tmp_path: Path) -> None:
    first, second = ((1, 1), (11, 1), (11, 11), (1, 11)), ((21, 21), (26, 21), (26, 31), (21, 31))
    dataset = read(tmp_path, xml(item(numbered(*first), numbered(*second), "<difficult>1</difficult>")))
    (instance,) = dataset.instances
    assert (instance.area_px2, instance.shapes, instance.difficult) == (150, (0,), True)
    assert len(instance.segmentation) == 2
    hole = item(numbered(*first), numbered((4, 4), (8, 4), (8, 8), (4, 8)))
    assert codes(read(tmp_path, xml(hole))) == [("warning", "group_part_nested", 0)]
    assert read(tmp_path, xml(hole), nested_groups="hole").instances[0].area_px2 == 100 - 16


@pytest.mark.parametrize("angle", [0.0, 0.5, 1.5707963, 2.8])
def test_rotated_boxes_are_polygons(tmp_path: Path, angle: float) -> None:
    numbers = {"cx": 32, "cy": 24, "w": 20, "h": 10, "angle": angle}
    box = "".join(f"<{key}>{value}</{key}>" for key, value in numbers.items())
    dataset = read(tmp_path, xml(item("<type>robndbox</type>", f"<robndbox>{box}</robndbox>")))
    assert codes(dataset) == []
    corners = cv2.boxPoints(((32, 24), (20, 10), float(np.degrees(angle))))
    gaps = np.linalg.norm(dataset.instances[0].segmentation[0][:, None] - corners[None], axis=2)
    assert sorted(gaps.argmin(axis=1)) == [0, 1, 2, 3] and gaps.min(axis=1).max() < 0.001
    assert dataset.instances[0].area_px2 == pytest.approx(200, abs=8)


def test_boxes_are_marked_as_boxes_and_deleted_objects_are_not_read(tmp_path: Path) -> None:
    segm = "<segm><box><xmin>40</xmin><ymin>20</ymin><xmax>50</xmax><ymax>30</ymax></box></segm>"
    gone = item("<deleted>1</deleted>", pt((10, 10), (30, 10), (10, 40)))
    bezier = item("<cubic_bezier><x1>1</x1><y1>1</y1></cubic_bezier>", BOX.replace("40<", "20<"))
    dataset = read(tmp_path, xml(item("<deleted>0</deleted>", BOX), item(segm), gone, bezier))
    assert [(one.area_px2, one.is_box) for one in dataset.instances] == [(600, True), (100, True), (200, True)]
    assert ("warning", "unknown_shape_type", 3) in codes(dataset)
    assert [row.message for row in dataset.ledger if row.fate == "dropped"] == ["marked as deleted"]


@pytest.mark.parametrize(
    ("inside", "code", "message"),
    [
        ("<pose>x</pose>", "bad_shape", "neither a polygon nor a box; it has <name>, <pose>, expected <bndbox>"),
        ("<polygon/>", "bad_shape", "neither a polygon nor a box"),
        ("<line><x1>1</x1></line>", "unsupported_shape_type", "the object is a <line>, which has no area"),
        ("<bndbox><xmin>1</xmin><ymin>1</ymin></bndbox>", "bad_point", "the box has no <xmax>, <ymax>"),
        ("<bndbox/>", "bad_point", "the box has no <xmin>, <ymin>, <xmax>, <ymax>"),
        (BOX.replace("11", "x", 1), "bad_point", "<xmin> of the box is 'x', expected a number"),
        ("<polygon><x1>1</x1><y1>1</y1><x2>5</x2></polygon>", "bad_point", "point 2 of the polygon has no y"),
        ("<polygon><pt><x>1</x></pt></polygon>", "bad_point", "a point has no <y>"),
        ("<robndbox><cx>1</cx></robndbox>", "bad_point", "the rotated box has no <cy>, <w>, <h>, <angle>"),
        (numbered((1, 1), (9, 9)), "too_few_points", "it has 2"),
        (numbered((1, 1), ("inf", 9), (5, 5)), "non_finite_coordinate", "point 1"),
        ("<segm><mask>gone.png</mask></segm>", "mask_missing", "'gone.png' is neither in Masks nor beside"),
    ],
)
def test_objects_that_cannot_be_read_say_what_is_missing(tmp_path: Path, inside: str, code: str, message: str) -> None:
    dataset = read(tmp_path, xml(item(inside)))
    assert [(finding.code, finding.shape) for finding in dataset.findings] == [(code, 0)]
    assert message in dataset.findings[0].message and not dataset.instances


@pytest.mark.parametrize("place", ["Annotations/Masks", "Masks", "Annotations"])
def test_mask_files_of_objects_are_read(tmp_path: Path, place: str) -> None:
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[10:20, 5:15] = 255
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(mask).save(tmp_path / place / "a_mask_0.png")
    PilImage.fromarray(mask[8:22, 3:17]).save(tmp_path / place / "a_mask_1.png")
    box = "<box><xmin>30</xmin><ymin>20</ymin><xmax>44</xmax><ymax>34</ymax></box>"
    objects = [
        item("<segm><mask>a_mask_0.png</mask></segm>"),
        item(f"<segm><mask>x/a_mask_1.png</mask>{box}</segm>"),
        item("<segm><mask>a_mask_1.png</mask></segm>"),
    ]
    dataset = read(tmp_path, xml(*objects))
    assert codes(dataset) == [("error", "size_mismatch", 2)]
    assert [(one.area_px2, one.bbox_xywh) for one in dataset.instances] == [
        (100, (5, 10, 10, 10)),
        (100, (32, 22, 10, 10)),
    ]


def test_mask_files_outside_of_the_source_are_not_read(tmp_path: Path) -> None:
    PilImage.fromarray(np.full((48, 64), 255, dtype=np.uint8)).save(tmp_path / "secret.png")
    (tmp_path / "set" / "Annotations" / "Masks").mkdir(parents=True)
    (tmp_path / "set" / "Annotations" / "Masks" / "linked.png").symlink_to(tmp_path / "secret.png")
    for name in ("linked.png", "../../../secret.png", str(tmp_path / "secret.png")):
        dataset = read(tmp_path / "set", xml(item(f"<segm><mask>{name}</mask></segm>")))
        assert [(f.code, f.shape) for f in dataset.errors()] == [("mask_missing", 0)]


def test_files_of_labelme_on_the_web_find_their_images_and_state_their_size(tmp_path: Path) -> None:
    photo(tmp_path / "Images" / "street" / "a.jpg")
    (tmp_path / "Annotations" / "street").mkdir(parents=True)
    size = "<imagesize><nrows>{}</nrows><ncols>{}</ncols></imagesize>"
    head = "<annotation><filename>\na.jpg\n</filename><folder>\nstreet\n</folder>"
    body = item(pt((10, 10), (30, 10), (10, 40)), name="\ncar\n") + "</annotation>"
    file = tmp_path / "Annotations" / "street" / "a.xml"
    file.write_text(head + size.format(48, 64) + body)
    dataset = voc.read(tmp_path, ReadOptions())
    assert (dataset.findings, dataset.counts()) == ((), {"car": 1})
    file.write_text(head + size.format(64, 48) + body)
    assert codes(voc.read(tmp_path, ReadOptions())) == [("error", "size_mismatch", None)]


def test_a_file_without_an_image_name_finds_it_by_its_own(tmp_path: Path) -> None:
    for filename in ("", "<filename></filename>", "<filename>a</filename>"):
        assert read(tmp_path, xml(thing(1, 1, 9, 9), filename=filename)).images[0].file_name == "JPEGImages/a.png"


def masks_folder(folder: Path, classes: Any, objects: Any = None, *, suffix: str = ".jpg") -> Path:
    height_px, width_px = np.shape(classes)
    photo(folder / "JPEGImages" / f"a{suffix}", width_px, height_px)
    for name, values in (("SegmentationClass", classes), ("SegmentationObject", objects)):
        if values is not None:
            image = PilImage.fromarray(np.asarray(values, dtype=np.uint8), mode="P")
            image.putpalette([value % 251 for value in range(768)])
            (folder / name).mkdir()
            image.save(folder / name / "a.png")
    return folder


def pixels(dataset: Dataset, index: int) -> list[list[int]]:
    segmentation, image = dataset.instances[index].segmentation, dataset.images[0]
    if isinstance(segmentation, Rle):
        mask = decode_mask(segmentation)
    else:
        size = {"width_px": image.width_px, "height_px": image.height_px}
        mask = decode_mask(union_rles(rasterize(segmentation, **size)))
    return np.argwhere(mask).tolist()


CLASSES = [[12, 12, 0, 0], [12, 255, 255, 15], [0, 0, 12, 15]]


def test_objects_take_the_class_of_most_of_their_pixels(tmp_path: Path) -> None:
    objects = [[1, 1, 0, 0], [1, 255, 255, 2], [0, 0, 3, 2]]
    dataset = voc.read_masks(masks_folder(tmp_path, CLASSES, objects), ReadOptions())
    assert dataset.findings == ()
    assert dataset.class_names == ("dog", "person")
    assert [instance.category_id for instance in dataset.instances] == [1, 2, 1]
    assert [pixels(dataset, index) for index in range(3)] == [[[0, 0], [0, 1], [1, 0]], [[1, 3], [2, 3]], [[2, 2]]]
    assert dataset.images[0].annotation_file == "SegmentationClass/a.png"


def test_classes_alone_are_one_instance_or_one_for_each_part(tmp_path: Path) -> None:
    folder = masks_folder(tmp_path, CLASSES)
    assert voc.read_masks(folder, ReadOptions()).counts() == {"dog": 1, "person": 1}
    split = voc.read_masks(folder, ReadOptions(split_components=True))
    assert split.counts() == {"dog": 2, "person": 1}
    own = voc.read_masks(masks_folder(tmp_path / "own", [[1, 2]]), ReadOptions(labels=["_background_", "mug", "pen"]))
    assert own.counts() == {"mug": 1, "pen": 1}


def test_invalid_masks_are_reported(tmp_path: Path) -> None:
    folder = masks_folder(tmp_path, CLASSES, [[7, 0, 9, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert codes(voc.read_masks(folder, ReadOptions())) == [("error", "unknown_label", 9)]
    PilImage.new("P", (9, 9)).save(folder / "SegmentationClass" / "a.png")
    assert codes(voc.read_masks(folder, ReadOptions())) == [("error", "size_mismatch", None)]
    PilImage.new("RGB", (4, 3)).save(folder / "SegmentationClass" / "a.png")
    assert codes(voc.read_masks(folder, ReadOptions())) == [("error", "mask_undecodable", None)]
    (folder / "SegmentationClass" / "a.png").write_bytes(b"")
    assert codes(voc.read_masks(folder, ReadOptions())) == [("error", "mask_undecodable", None)]
    (folder / "JPEGImages" / "a.jpg").unlink()
    assert codes(voc.read_masks(folder, ReadOptions())) == [("error", "image_missing", None)]
    with pytest.raises(DataError, match="folder"):
        voc.read_masks(folder / "a.png", ReadOptions())


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({"labels": ["road", "dog"], "background": "road"}, "dog"),
        ({"labels": ["animal"], "rename": {"dog": "animal"}}, "animal"),
        ({"labels": ["a", "b", *"cdefghijklmnop"]}, "l"),
    ],
)
def test_indices_are_those_of_voc_beside_a_background_and_new_names(
    tmp_path: Path, options: dict[str, Any], label: str
) -> None:
    photo(tmp_path / "JPEGImages" / "a.png")
    pixels = np.zeros((48, 64), np.uint8)
    pixels[10:20, 10:20] = 12
    (tmp_path / "SegmentationClass").mkdir()
    PilImage.fromarray(pixels).save(tmp_path / "SegmentationClass" / "a.png")
    dataset = voc.read_masks(tmp_path, ReadOptions(**options))
    assert not dataset.findings and {name for name, count in dataset.counts().items() if count} == {label}


# Color masks ---------------------------------------------------------------------------------------------------------


def color_folder(folder: Path, classes: Any, objects: Any = None) -> Path:
    colors = np.asarray(classes, dtype=np.uint8)
    photo(folder / "JPEGImages" / "a.jpg", colors.shape[1], colors.shape[0])
    for name, values in (("SegmentationClass", classes), ("SegmentationObject", objects)):
        if values is not None:
            (folder / name).mkdir(exist_ok=True)
            PilImage.fromarray(np.asarray(values, dtype=np.uint8)).save(folder / name / "a.png")
    return folder


CAR, ROAD, BLACK, BORDER = (51, 221, 255), (128, 64, 128), (0, 0, 0), (224, 224, 192)
MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:51,221,255::\nroad:128,64,128::\n"


def test_color_masks_of_cvat_are_read_by_their_label_map(tmp_path: Path) -> None:
    classes = [[CAR, CAR, BLACK, ROAD], [CAR, CAR, BORDER, ROAD]]
    objects = [[(128, 0, 0), (0, 128, 0), BLACK, (0, 0, 128)], [(128, 0, 0), (0, 128, 0), BORDER, (0, 0, 128)]]
    folder = color_folder(tmp_path, classes, objects)
    (folder / "labelmap.txt").write_text(MAP)
    dataset = voc.read_masks(folder, ReadOptions())
    assert dataset.findings == ()
    names = [dataset.class_names[instance.category_id - 1] for instance in dataset.instances]
    regions = sorted(zip(names, (pixels(dataset, index) for index in range(3)), strict=True))
    assert regions == [("car", [[0, 0], [1, 0]]), ("car", [[0, 1], [1, 1]]), ("road", [[0, 3], [1, 3]])]


def test_classes_of_color_masks_without_objects_are_regions(tmp_path: Path) -> None:
    folder = color_folder(tmp_path, [[CAR, BLACK, CAR], [CAR, BLACK, ROAD]])
    (folder / "labelmap.txt").write_text(MAP)
    assert voc.read_masks(folder, ReadOptions()).counts() == {"car": 1, "road": 1}
    assert voc.read_masks(folder, ReadOptions(split_components=True)).counts() == {"car": 2, "road": 1}
    (folder / "labelmap.txt").rename(tmp_path / "colors.txt")
    options = ReadOptions(color_map=tmp_path / "colors.txt", labels=["road", "car"])
    assert voc.read_masks(folder, options).counts() == {"road": 1, "car": 1}
    dataset = voc.read_masks(folder, ReadOptions())
    assert "(51, 221, 255) (3 px), (128, 64, 128) (1 px)" in dataset.errors()[0].message
    assert "labelmap.txt" in str(dataset.errors()[0].hint)


def test_colors_of_the_voc_palette_need_no_label_map(tmp_path: Path) -> None:
    """Index 15 (person) has the color (192, 128, 128), index 7 (car) the color (128, 128, 128)."""
    person, car = (192, 128, 128), (128, 128, 128)
    dataset = voc.read_masks(color_folder(tmp_path, [[person, BLACK, BORDER], [car, car, BLACK]]), ReadOptions())
    assert (dataset.findings, dataset.counts()) == ((), {"car": 1, "person": 1})


def test_indices_follow_a_label_map_without_their_colors(tmp_path: Path) -> None:
    folder = masks_folder(tmp_path, [[0, 1, 2], [0, 255, 2]])
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:::\ncar:::\nroad:::\n")
    dataset = voc.read_masks(folder, ReadOptions())
    assert (codes(dataset), dataset.counts()) == ([], {"car": 1, "road": 1})


def test_a_palette_of_the_label_map_wins_over_indices(tmp_path: Path) -> None:
    folder = masks_folder(tmp_path, [[0, 1, 2]])
    (folder / "labelmap.txt").write_text("background:0,0,0::\nroad:10,20,30::\ncar:40,50,60::\n")
    image = PilImage.fromarray(np.array([[0, 2, 1]], dtype=np.uint8), mode="P")
    image.putpalette([0, 0, 0, 40, 50, 60, 10, 20, 30])
    image.save(folder / "SegmentationClass" / "a.png")
    dataset = voc.read_masks(folder, ReadOptions())
    assert dataset.class_names == ("car", "road")
    assert [(one.category_id, pixels(dataset, at)) for at, one in enumerate(dataset.instances)] == [
        (2, [[0, 1]]),
        (1, [[0, 2]]),
    ]
