"""Which format a folder or file has, how few files are opened for that, and what is said where none is recognized."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from d2tune.annotations import recognition
from d2tune.annotations.convert import check, convert, detect_format, read_dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.recognition import recognize
from d2tune.annotations.registry import FORMATS, TARGETS, USED_BY
from d2tune.cli import main
from d2tune.errors import DataError
from d2tune.project.schema import Format
from tests.annotations.builders import SQUARE, labelme_file, labelme_value, photo, shape

LABEL_STUDIO = [{"id": 1, "data": {"image": "a.png"}, "annotations": [{"id": 1, "result": []}]}]
MINIMAL = [{"image": "a.png", "label": [{"original_width": 64, "original_height": 48}]}]
DATUMARO = {"categories": {"label": {"labels": []}}, "items": []}
ISAT = {"info": {"description": "ISAT", "name": "a.png", "width": 64, "height": 48}, "objects": []}
CITYSCAPES = {"imgHeight": 48, "imgWidth": 64, "objects": []}
SUPERVISELY = {"size": {"height": 48, "width": 64}, "objects": [], "tags": []}
META = {"classes": [{"title": "car", "shape": "any"}], "tags": []}
DARWIN = {"version": "2.0", "item": {"name": "a.png", "slots": []}, "annotations": []}
COCO = {"images": [], "annotations": []}
VIA = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".png", ".jpg")):
            photo(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("files", "format"),
    [
        ({"all.json": [labelme_value()]}, "labelme"),
        ({"project.json": LABEL_STUDIO}, "label-studio"),
        ({"project.json": MINIMAL}, "label-studio"),
        ({"annotations/default.json": DATUMARO}, "datumaro"),
        ({"a.json": ISAT}, "isat"),
        ({"gtFine/a_gtFine_polygons.json": CITYSCAPES}, "cityscapes"),
        ({"ds/ann/a.png.json": SUPERVISELY, "meta.json": META}, "supervisely"),
        ({"a.json": DARWIN}, "darwin"),
        ({"annotations.xml": "<annotations><version>1.1</version></annotations>"}, "cvat"),
        ({"via.csv": VIA}, "via-csv"),
        ({"data.yaml": "train: images\nnames: [car]\n"}, "yolo-seg"),
        ({"labels/a.txt": "0 0.5 0.5 0.1 0.1\n"}, "yolo-seg"),
        ({"a.txt": "0 0.5 0.5 0.1 0.1 0.2 0.3\n"}, "yolo-seg"),
    ],
)
def test_formats_are_recognized_from_the_content(tmp_path: Path, files: dict[str, Any], format: str) -> None:
    write(tmp_path, files | {"a.png": ""})
    assert detect_format(tmp_path) == format
    first = tmp_path / next(iter(files))
    if first.suffix != ".txt":
        assert detect_format(first) == format


def test_few_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def counted(path: Path, read: Callable[[Path], bytes] = recognition.read_bytes) -> bytes:
        opened.append(path)
        return read(path)

    monkeypatch.setattr(recognition, "read_bytes", counted)
    for content, most in ((ISAT, 1), (CITYSCAPES, 1), (DARWIN, 1), ({"nothing": 1}, 50)):
        opened.clear()
        folder = tmp_path / str(most) / str(len(content))
        write(folder, {f"{number:03d}.json": content for number in range(120)} | {"a.png": ""})
        recognize(folder)
        assert len(opened) == most


REFUSED = [
    (
        {"c.json": {"images": [{"id": 1}], "categories": []}, "a.png": ""},
        ["COCO file without annotations (image info)"],
    ),
    ({"c.json": {"nothing": 1}, "b.json": {}, "a.png": ""}, ["no annotations that are read", "2 .json files, 1 image"]),
    ({"c.json": [{"image_id": 1, "category_id": 2}], "a.png": ""}, ["COCO predictions"]),
    ({"c.json": [{"data": {"image": "a.png"}}], "a.png": ""}, ["Label Studio tasks without annotations"]),
    ({"meta.json": META, "a.png": ""}, ["meta.json of a Supervisely project"]),
    ({"g.json": {"type": "FeatureCollection"}, "a.png": ""}, ["g.json looks like GeoJSON"]),
    ({"x.json": [{"data_row": {}, "projects": {}}], "a.png": ""}, ["a Labelbox export"]),
    ({"t.csv": "a,b\n", "a.png": ""}, ["1 .csv file", "a CSV with the columns 'a,b'"]),
    ({"k.xml": "<kml/>", "a.png": ""}, ["XML with the element <kml>"]),
    ({"notes.txt": "x"}, ["neither annotations nor images", "1 .txt file"]),
    ({"a.png": "", "b.png": ""}, ["images and no annotations", "2 images", "d2tune annotate"]),
    ({"set.zip": "x", "a.mp4": "x"}, ["1 .zip file, 1 .mp4 file", "Unpack set.zip"]),
    ({"set.zip": "x", "a.png": "", "c.json": {}}, ["Unpack set.zip"]),
]


@pytest.mark.parametrize(("files", "words"), REFUSED)
def test_unknown_folders_are_errors_that_say_what_was_seen(tmp_path: Path, files: Any, words: list[str]) -> None:
    folder = write(tmp_path / "src", files)
    for action in (check, detect_format):
        with pytest.raises(DataError) as raised:
            action(folder)
        for text in words:
            assert text in raised.value.one_line()


@pytest.mark.parametrize(("files", "words"), REFUSED)
def test_nothing_is_written_over_an_earlier_output(tmp_path: Path, files: Any, words: list[str]) -> None:
    labelme_file(tmp_path / "good" / "a.json", shape(SQUARE))
    convert(tmp_path / "good", out=tmp_path / "out.json")
    before = (tmp_path / "out.json").read_bytes()
    with pytest.raises(DataError):
        convert(write(tmp_path / "src", files), out=tmp_path / "out.json", force=True)
    assert (tmp_path / "out.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("set.zip", "x", "an archive, which is not read. Unpack it"),
        ("set.tar.gz", "x", "an archive"),
        ("a.mp4", "x", "the file is a video"),
        ("a.png", "", "an image and has no annotations"),
        ("a.txt", "0 0.5 0.5 0.1 0.1", "labels of YOLO or a list of images"),
        ("c.json", {"images": []}, "COCO file without annotations"),
        ("t.csv", "a,b\n", "a CSV with the columns 'a,b'"),
        ("k.xml", "<kml/>", "XML with the element <kml>"),
        ("README", "x", "no suffix of an annotation file"),
        ("model.h5", "x", "the format of the file is not recognized"),
    ],
)
def test_unknown_files_are_errors_that_name_them(tmp_path: Path, name: str, content: Any, words: str) -> None:
    write(tmp_path, {name: content})
    with pytest.raises(DataError) as raised:
        check(tmp_path / name)
    assert words in raised.value.one_line()


def test_damaged_files_are_reported_by_their_reader(tmp_path: Path) -> None:
    write(tmp_path / "json", {"a.json": '{"shapes": [', "a.png": ""})
    assert [one.code for one in check(tmp_path / "json").dataset.errors()] == ["bad_json"]
    write(tmp_path / "xml", {"a.xml": "<annotation", "a.png": ""})
    assert [one.code for one in check(tmp_path / "xml").dataset.errors()] == ["bad_xml"]
    write(tmp_path / "csv", {"a.csv": "filename,rle\na.png,1 1\n", "a.png": ""})
    with pytest.raises(DataError, match="--preset"):
        check(tmp_path / "csv")


@pytest.mark.parametrize(
    ("other", "format", "file"),
    [
        ({"a.txt": "0 0.5 0.5 0.1 0.1\n"}, "yolo-seg", "a.txt"),
        ({"b.xml": "<annotation/>"}, "voc", "b.xml"),
        ({"c.xml": "<annotations/>"}, "cvat", "c.xml"),
        ({"v.csv": VIA}, "via-csv", "v.csv"),
    ],
)
def test_a_second_format_in_the_folder_is_a_warning(tmp_path: Path, other: Any, format: str, file: str) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE))
    result = check(write(tmp_path, other))
    (finding,) = result.findings
    assert (finding.level, finding.code, finding.file) == ("warning", "other_format", file)
    assert f"--format {format}" in str(finding.hint) and len(result.dataset.instances) == 1
    assert not check(tmp_path, format="labelme").findings


def test_masks_beside_annotation_files_are_not_another_format(tmp_path: Path) -> None:
    labelme_file(tmp_path / "images" / "a.json", shape(SQUARE))
    photo(tmp_path / "masks" / "a.png")
    assert "other_format" not in {one.code for one in check(tmp_path).findings}


def test_a_named_format_that_no_file_has_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": ISAT, "a.png": ""})
    for name in (
        "labelme",
        "via",
        "cvat",
        "label-studio",
        "datumaro",
        "supervisely",
        "darwin",
        "cityscapes",
        "yolo-seg",
    ):
        with pytest.raises(DataError):
            check(tmp_path, format=name)
        with pytest.raises(DataError):
            convert(tmp_path, format=name, out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_the_description_of_a_yolo_data_set_is_not_a_project(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, {"data.yaml": "train: images\nval: images\nnames: [car]\n", "images/a.png": ""})
    assert main(["check", str(tmp_path / "data.yaml")]) == 1
    assert (
        f"describes a YOLO data set and is not a project file. Name its folder, {tmp_path}" in capsys.readouterr().err
    )


def test_images_alone_are_negatives_on_request(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    assert len(read_dataset(tmp_path, options=ReadOptions(include_unlabeled=True)).images) == 1
    assert recognize(tmp_path).has_images_alone and recognize(tmp_path).format is None


GIVEN: dict[str, Any] = {
    "class_name": "car",
    "class_attribute": "type",
    "pixel_offset": 0.5,
    "nested_groups": "hole",
    "preset": "airbus",
    "color_map": Path("map.txt"),
    "split_components": True,
    "no_predictions": True,
    "unknown_shapes": "polygon",
    "include_unlabeled": True,
}


@pytest.mark.parametrize("field", USED_BY)
def test_options_that_a_format_does_not_use_are_refused(tmp_path: Path, field: str) -> None:
    coco = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}
    write(tmp_path, {"c.json": coco, "a.png": ""})
    options = ReadOptions(**{field: GIVEN[field]}, unused="refuse")
    flag, key, formats = USED_BY[field]
    with pytest.raises(DataError) as raised:
        check(tmp_path / "c.json", options=options)
    text = raised.value.one_line()
    assert f"{flag} is not used by the format coco" in text
    assert all(name in text for name in formats) or "all but coco, panoptic" in text
    noted = check(tmp_path / "c.json", options=ReadOptions(**{field: GIVEN[field]}))
    (finding,) = noted.findings
    assert (finding.level, finding.code) == ("info", "option_unused") and (key or flag) in finding.message


def test_the_dialect_of_a_written_table_is_used(tmp_path: Path) -> None:
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE))
    result = convert(tmp_path / "src", to="rle", out=tmp_path / "out", options=ReadOptions(preset="severstal"))
    assert not result.findings
    noted = convert(tmp_path / "src", out=tmp_path / "c.json", options=ReadOptions(preset="severstal"))
    assert [one.code for one in noted.findings] == ["option_unused"]


def test_every_format_has_a_reader_and_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(get_args(Format)) == {"auto", *FORMATS}
    for one in FORMATS.values():
        with pytest.raises(DataError, match=r"no such file or folder|from a folder|there is no"):
            one.read(Path("/nowhere/at/all"), ReadOptions())
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    words = set(re.findall(r"[a-z]+(?:[-_][a-z]+)*", capsys.readouterr().out))
    assert {*FORMATS, *TARGETS} <= words
    assert all(set(formats) <= set(FORMATS) for _, _, formats in USED_BY.values())


def test_only_the_reader_that_is_needed_is_imported(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": ISAT, "a.png": ""})
    program = (
        "import sys; from d2tune.annotations.convert import check; check(sys.argv[1]); "
        "print(sorted(name for name in sys.modules if name.startswith('d2tune.annotations.formats.tools.')))"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['d2tune.annotations.formats.tools.isat']"
