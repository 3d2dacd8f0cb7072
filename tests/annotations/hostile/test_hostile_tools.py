"""Damaged files of other annotation tools: any value may be anything, and the reader ends in findings or one error."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2tune.annotations.convert import check, findings_table
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, labelme_value, photo, shape
from tests.annotations.formats.cityscapes import test_cityscapes as cityscapes
from tests.annotations.formats.tools import test_cvat as cvat
from tests.annotations.formats.tools import test_darwin as darwin
from tests.annotations.formats.tools import test_datumaro as datumaro
from tests.annotations.formats.tools import test_isat as isat
from tests.annotations.formats.tools import test_label_studio as label_studio
from tests.annotations.formats.tools import test_supervisely as supervisely

MUTANTS = 120
JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 1e300, float("nan"), -5.5, 10**30, "", "x", "1", "a\nb", "\ud800"),
    *([], {}, [[]], [1, 2], [None], {"a": 1}),
)


def seeds(folder: Path) -> dict[str, tuple[Path, str, str]]:
    """The folder, the file to be damaged and the format of a small data set of each tool."""
    mask = np.zeros((48, 64), dtype=bool)
    mask[3:9, 4:9] = True
    studio, points = label_studio, {"points": label_studio.SQUARE, "polygonlabels": ["car"]}
    box = {"x": 1, "y": 2, "width": 5, "height": 9, "rotation": 3, "rectanglelabels": ["car"]}
    regions = [
        studio.result(points, "polygonlabels"),
        studio.result({"rle": studio.brush(mask)[:60], "brushlabels": ["car"]}, "brushlabels"),
        studio.result(box, "rectanglelabels"),
        studio.result({"points": studio.SQUARE}, "polygon", id="q"),
        studio.result({"labels": ["van"]}, "labels", id="q"),
        studio.result({"x": 1, "y": 2, "radiusX": 5, "radiusY": 9, "ellipselabels": ["c"]}, "ellipselabels"),
    ]
    minimal = points | {"original_width": 64, "original_height": 48}
    rows = {"image": "a.png", "id": 5, "label": [minimal], "annotator": 1, "annotation_id": 3}
    raster = {"dense_rle": [0, 64 * 48], "mask_annotation_ids_mapping": {"m": 0}}
    photo(folder / "list" / "a.png")
    (folder / "list" / "all.json").write_text(json.dumps([labelme_value(shape(SQUARE))]), "utf-8")
    objects = [supervisely.polygon(supervisely.SQUARE, supervisely.HOLE), supervisely.bitmap(mask[:9, :9], 3, 4)]
    objects.append(supervisely.object_("rectangle", points={"exterior": [[1, 2], [5, 9]], "interior": []}))
    project = supervisely.supervisely(folder / "supervisely", *objects)
    return {
        "tasks": (studio.export(folder / "tasks", studio.task(*regions)), "project-1.json", "label-studio"),
        "minimal": (studio.export(folder / "minimal", rows), "project-1.json", "label-studio"),
        "datumaro": (
            datumaro.datumaro(
                folder / "datumaro",
                datumaro.annotation("polygon", points=datumaro.SQUARE),
                datumaro.annotation("bbox", bbox=[1, 2, 3, 4], attributes={"rotation": 3}),
                datumaro.annotation("ellipse", points=[1, 2, 3, 4]),
                datumaro.annotation("mask", rle={"counts": [0, 64 * 48], "size": [48, 64]}),
            ),
            "annotations/default.json",
            "datumaro",
        ),
        "darwin": (
            darwin.darwin(
                folder / "darwin",
                darwin.annotation(polygon={"paths": [darwin.path_of(darwin.SQUARE), darwin.path_of(darwin.HOLE)]}),
                darwin.annotation(ellipse={"center": {"x": 20, "y": 20}, "radius": {"x": 3, "y": 4}, "angle": 1}),
                darwin.annotation(number="m", mask={}),
                {"id": "r", "name": "layer", "raster_layer": raster},
            ),
            "a.json",
            "darwin",
        ),
        "supervisely": (project, "ds/ann/a.png.json", "supervisely"),
        "meta": (project, "meta.json", "supervisely"),
        "isat": (
            isat.isat(folder / "isat" / "a.json", isat.row(SQUARE), isat.row([], bbox=[1, 2, 3, 9], group=2)),
            "a.json",
            "isat",
        ),
        "cityscapes": (
            cityscapes.cityscapes(folder / "city", cityscapes.row("car"), cityscapes.row("cargroup"), below="x"),
            "gtFine/x/aachen_000_gtFine_polygons.json",
            "cityscapes",
        ),
        "list": (folder / "list", "all.json", "labelme"),
    }


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*place, key)
        yield from places(one, (*place, key))


def damaged(value: Any, rng: random.Random) -> Any:
    """A copy in which up to three values are other values, or missing."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        known = list(places(value))
        if not known:
            break
        *outer, last = rng.choice(known)
        node = value
        for key in outer:
            node = node[key]
        if rng.random() < 0.25:
            del node[last]
        else:
            node[last] = copy.deepcopy(rng.choice(JUNK))
    return value


@pytest.mark.parametrize(
    "name", ["tasks", "minimal", "datumaro", "darwin", "supervisely", "meta", "isat", "cityscapes", "list"]
)
def test_damaged_files_end_in_findings_or_one_error(tmp_path: Path, name: str) -> None:
    folder, file, format = seeds(tmp_path)[name]
    path, rng, ended = folder / file, random.Random(name), {"read": 0, "refused": 0}
    whole = json.loads(path.read_text("utf-8"))
    for number in range(MUTANTS):
        path.write_text(json.dumps(damaged(whole, rng)), "utf-8")
        try:
            result = check(folder, format="auto" if number % 2 else format)
        except DataError as error:
            assert "\n" not in error.one_line()
            ended["refused"] += 1
        else:
            assert len(findings_table(result.findings)) > 0
            ended["read"] += 1
    assert ended["read"] > MUTANTS // 4


@pytest.mark.parametrize(
    "mask",
    [
        '<mask label="car" rle="999999999999" left="0" top="0" width="1000000" height="999999"/>',
        '<mask label="car" rle="1,1" left="1e300" top="0" width="1" height="2"/>',
        '<mask label="car" rle="1,1" left="nan" top="0" width="1" height="2"/>',
        '<polygon label="car" points="1e300,0;5,5;9,0"/>',
        '<ellipse label="car" cx="9" cy="9" rx="1e300" ry="2"/>',
        '<box label="car" xtl="1" ytl="1" xbr="9" ybr="9" rotation="1e300"/>',
    ],
)
def test_huge_numbers_of_cvat(tmp_path: Path, mask: str) -> None:
    dataset = check(cvat.cvat(tmp_path, cvat.image(mask))).dataset
    assert not dataset.instances and any(finding.level != "info" for finding in dataset.findings)


def test_names_that_grow_without_bound(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "data.yaml").write_text("\n".join([*lines, "train: x", "nc: 1", "names: [*a11]"]))
    photo(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    start = time.monotonic()
    assert len(check(tmp_path).dataset.instances) == 1
    assert time.monotonic() - start < 10
