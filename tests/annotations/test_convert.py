from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from d2tune import annotations
from d2tune.annotations.convert import (
    FindingsError,
    check,
    convert,
    detect_format,
    findings_table,
    read_dataset,
    read_labels,
)
from d2tune.annotations.model.findings import Finding
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, photo, shape

SOURCES = Path(str(annotations.__file__)).parent
DOCS = Path(__file__).resolve().parents[2] / "docs"


def files(folder: Path) -> list[str]:
    """The files below a folder but for the records of what d2tune wrote."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name[0] != "."
    )


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ({"a.json": {"shapes": []}, "z.json": {"images": [], "annotations": []}}, "labelme"),
        ({"a.json": {"images": [], "annotations": []}, "b.json": {"shapes": []}}, "labelme"),
        ({"a.json": {"images": [], "annotations": []}}, "coco"),
        ({"a.json": {"images": [], "annotations": [{"segments_info": []}]}}, "panoptic"),
        ({"a.json": {"a.png1": {"filename": "a.png", "regions": []}}}, "via"),
        ({"a.json": {"metadata": {}, "file": {}, "view": {}}}, "via"),
        ({"a.json": "{"}, "labelme"),
        ({"Annotations/a.xml": "<annotation/>"}, "voc"),
        ({"SegmentationClass/a.png": "", "JPEGImages/a.jpg": ""}, "voc-masks"),
        ({"t.csv": "img,rle_mask\n"}, "rle"),
        ({"images/a.png": "", "masks/a.png": ""}, "masks"),
    ],
)
def test_formats_are_recognized_from_the_content(tmp_path: Path, names: dict[str, Any], wanted: str) -> None:
    for name, content in names.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    assert detect_format(tmp_path) == wanted
    single = tmp_path / next(iter(names))
    if single.suffix in (".xml", ".csv") or (single.suffix == ".json" and len(names) == 1):
        assert detect_format(single) == wanted


def test_sources_without_annotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"contains neither annotations nor images; found no files") as caught:
        read_dataset(tmp_path)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(DataError, match="no such file or folder"):
        read_dataset(tmp_path / "gone")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="the format of the file is not recognized"):
        read_dataset(tmp_path / "notes.txt")
    labelme_file(tmp_path / "a.json", shape(SQUARE))
    with pytest.raises(DataError, match="Did you mean 'labelme'"):
        read_dataset(tmp_path, format="lableme")
    with pytest.raises(DataError, match="unknown target format"):
        convert(tmp_path, to="yolo", out=tmp_path / "out")


def test_errors_write_nothing_but_the_findings(tmp_path: Path) -> None:
    source = tmp_path / "src"
    labelme_file(source / "a.json", shape(SQUARE, "cat"))
    labelme_file(source / "b.json", shape([[1, 1], [2, float("inf")], [3, 3]]), shape(SQUARE, "dgo"))
    with pytest.raises(FindingsError, match=r"b\.json: shape 0: .*\[non_finite_coordinate\] \(and 1 more") as caught:
        convert(
            source, out=tmp_path / "out", options=ReadOptions(labels=["cat", "dog"]), findings_path=tmp_path / "f.json"
        )
    assert not (tmp_path / "out").exists()
    assert [finding.code for finding in caught.value.findings] == ["non_finite_coordinate", "unknown_label"]
    written = json.loads((tmp_path / "f.json").read_text("utf-8"))
    assert [(row["file"], row["shape"], row["level"]) for row in written] == [
        ("b.json", 0, "error"),
        ("b.json", 1, "error"),
    ]
    assert written[1]["hint"] == "dog"
    result = convert(source, out=tmp_path / "out", options=ReadOptions(labels=["cat", "dog"], skip_bad=True))
    assert [image.file_name for image in result.dataset.images] == ["a.png"]
    assert files(tmp_path / "out") == ["annotations.json"]


def test_strict_makes_errors_of_warnings(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape([[-5, 1], [9, 1], [9, 9]]))
    photo(tmp_path / "b.png")
    assert [f.level for f in check(tmp_path).findings] == ["warning", "info"]
    assert [f.level for f in check(tmp_path, strict=True).findings] == ["error", "info"]
    with pytest.raises(FindingsError, match="clipped"):
        convert(tmp_path, out=tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()


def test_restored_images_go_to_the_output_only_without_errors(tmp_path: Path) -> None:
    data = base64.b64encode(photo(tmp_path / "photo.png").read_bytes()).decode()
    source = tmp_path / "src"
    labelme_file(source / "a.json", shape(SQUARE), draw=False, imageData=data)
    before = files(source)
    assert [f.code for f in check(source).findings] == ["image_restored_from_imageData"]
    result = convert(source, out=tmp_path / "out")
    assert files(tmp_path / "out") == ["a.png", "annotations.json"]
    assert result.dataset.images[0].path == tmp_path / "out" / "a.png"
    assert files(source) == before
    convert(source, out=tmp_path / "file" / "c.json")
    assert files(tmp_path / "file") == ["a.png", "c.json"]
    labelme_file(source / "b.json", shape(SQUARE, None))
    with pytest.raises(FindingsError):
        convert(source, out=tmp_path / "failed")
    assert not (tmp_path / "failed").exists()


def test_labelme_to_labelme_and_back(tmp_path: Path) -> None:
    labelme_file(tmp_path / "src" / "x" / "a.json", shape(SQUARE, "cat", note="kept"), shape(TRIANGLE, "dog"))
    convert(tmp_path / "src", to="labelme", out=tmp_path / "out")
    value = json.loads((tmp_path / "out" / "x" / "a.json").read_text("utf-8"))
    assert value["shapes"][0]["note"] == "kept"
    assert value["imagePath"] == "../../src/x/a.png"
    with pytest.raises(DataError, match="--force"):
        convert(tmp_path / "src", to="labelme", out=tmp_path / "out")
    convert(tmp_path / "src", to="labelme", out=tmp_path / "out", force=True)


def test_coco_to_labelme_to_coco(tmp_path: Path) -> None:
    labelme_file(
        tmp_path / "src" / "a.json",
        shape(SQUARE, "cat", group_id=1),
        shape([[30, 30], [40, 30], [40, 40]], "cat", group_id=1),
        shape(TRIANGLE, "dog", flags={"iscrowd": True}),
    )
    first = convert(tmp_path / "src", out=tmp_path / "src" / "coco.json").dataset
    convert(tmp_path / "src" / "coco.json", to="labelme", out=tmp_path / "lab", tolerance_px=0.0)
    again = read_dataset(tmp_path / "lab", options=ReadOptions(image_root=tmp_path / "src"))
    assert again.findings == ()
    rows = [[(row.area_px2, row.bbox_xywh, row.iscrowd) for row in dataset.instances] for dataset in (first, again)]
    assert rows[0] == rows[1]
    assert again.instances[0].coco_segmentation() == first.instances[0].coco_segmentation()


def test_labels_files(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeff__ignore__\n_background_\r\n\n person \ndog\n".encode())
    assert read_labels(path) == ("__ignore__", "_background_", "person", "dog")
    path.write_text("dog\ncat\ndog\n")
    with pytest.raises(DataError, match=r"line 3.*twice.*'dog'"):
        read_labels(path)
    path.write_text("\n")
    with pytest.raises(DataError, match="empty"):
        read_labels(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "gone.txt")


def test_the_table_groups_by_code_and_counts_the_rest() -> None:
    findings = [
        Finding("warning", "clipped", f"{n}.json", "the shape extends beyond the image", shape=n) for n in range(5)
    ]
    findings += [Finding("error", "bad_json", "x.json", "cut off", line=3, column=9, hint="restore it")]
    assert findings_table(findings).splitlines() == [
        "level    code      count  where",
        "error    bad_json      1  x.json: line 3, column 9",
        "    cut off (restore it)",
        "warning  clipped       5  0.json: shape 0; 1.json: shape 1; 2.json: shape 2; and 2 more",
        "    the shape extends beyond the image",
    ]
    assert findings_table([]) == "no findings"


def codes_in_sources() -> set[str]:
    """Every finding code that occurs in the sources with a level or in a `PointError`."""
    text = "\n".join(path.read_text("utf-8") for path in SOURCES.rglob("*.py"))
    codes = set(re.findall(r'(?:note|Finding)\(\s*"(?:error|warning|info)",\s*"(\w+)"', text))
    return codes | set(re.findall(r'(?:PointError\(\s*|dropped\(unit, )"(\w+)"', text))


def test_every_code_is_explained_with_its_level() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (error|warning|info) \|", (DOCS / "findings.md").read_text("utf-8"), re.M)
    assert len(rows) == len(dict(rows))
    assert codes_in_sources() <= set(dict(rows))
    package = "\n".join(
        path.read_text("utf-8") for path in SOURCES.parent.rglob("*.py") if "check_page" not in path.parts
    )
    assert [code for code in dict(rows) if f'"{code}"' not in package] == []
    text = "\n".join(path.read_text("utf-8") for path in SOURCES.rglob("*.py"))
    for level, code in re.findall(r'(?:note|Finding)\(\s*"(error|warning|info)",\s*"(\w+)"', text):
        assert dict(rows)[code] == level


def test_reading_needs_neither_torch_nor_detectron2() -> None:
    program = (
        "import sys; import d2tune.annotations.convert; "
        "print(sorted({'torch', 'detectron2', 'cv2', 'PIL.Image', 'matplotlib', 'shapely'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
