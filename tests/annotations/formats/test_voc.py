from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
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
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "bad_xml", None),
        ("<rss/>", "not_voc", None),
        (xml(size=(640, 480)), "size_mismatch", None),
        (xml(filename="<filename>gone.png</filename>"), "image_missing", None),
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
@pytest.mark.parametrize("subset", [' [<!ENTITY dog "puppy">]', ' SYSTEM "a.dtd"', ""])
def test_a_document_type_is_refused_in_any_encoding(tmp_path: Path, subset: str, codec: str) -> None:
    name = "&dog;" if "ENTITY" in subset else "dog"
    text = f"<!DOCTYPE annotation{subset}>{xml(thing(11, 21, 30, 40, name=name))}"
    dataset = read_encoded(tmp_path, text, codec)
    assert (dataset.findings[0].level, dataset.findings[0].code) == ("error", "bad_xml")
    assert "document type" in dataset.findings[0].message and not dataset.instances


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
