"""The formats of predictions, written by ``d2tune.predict``: ids, several in one pass, and refused options."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import d2tune
from d2tune.annotations.convert import read_dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.cli import main
from d2tune.errors import D2TuneError, DataError, ProjectError
from d2tune.evaluation.from_files import evaluate as evaluation
from tests.cases import on_demand
from tests.runs.random_runs import random_run
from tests.runs.test_predict_files import content, stop_at

FORMATS = {
    "instance": "coco,overlays,rle,yolo-seg,labelme,measurements,masks,cutouts",
    "semantic": "label_maps,overlays,labelme,measurements,masks,cutouts",
    "panoptic": "coco_panoptic,overlays,labelme,measurements,masks,cutouts",
}


def photo(seed: int, height_px: int = 48, width_px: int = 64) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return np.asarray(PilImage.fromarray(coarse).resize((width_px, height_px), PilImage.Resampling.BICUBIC))


def photos(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for seed in range(count):
        PilImage.fromarray(photo(seed)).save(folder / f"{seed}.png")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def instance_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("runs") / "instance", "instance")


@pytest.mark.slow
@pytest.mark.parametrize("task", on_demand(sorted(FORMATS), "semantic"))
def test_several_formats_are_those_of_each_and_resume(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, source = random_run(tmp_path / "run", task), photos(tmp_path / "in", 3)
    options: dict[str, Any] = {"mm_per_px": 0.5} | ({"min_score": 0.0} if task == "instance" else {})
    for to in FORMATS[task].split(","):
        given = {key: value for key, value in options.items() if to == "measurements" or key != "mm_per_px"}
        d2tune.predict(run, source, out=tmp_path / "each", to=to, **given)
    each = content(tmp_path / "each")
    measured = rows_of(tmp_path / "each" / "measurements.csv")
    counted = rows_of(tmp_path / "each" / "counts.csv")
    assert len(measured) > 2 and len({row["image"] for row in counted}) == 3
    assert sum(int(row["objects"]) for row in counted) == len(measured)
    assert sum(name.startswith("cutouts/") for name in each) == len(measured)
    out = tmp_path / "together"
    with monkeypatch.context() as patch:
        stop_at(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt, match="interrupted after 2 of 3 images"):
            d2tune.predict(run, source, out=out, to=FORMATS[task], **options)
    next(iter(sorted((out / "cutouts" / "0").glob("*.png")))).unlink()  # its image is predicted again
    d2tune.predict(run, source, out=out, to=FORMATS[task], **options)
    together = content(out)
    assert sorted(together) == sorted(each)
    assert [name for name in each if each[name] != together[name] and not name.endswith(".json")] == []
    labelme = json.loads(each["0.json"]), json.loads(together["0.json"])
    assert labelme[0]["shapes"] == labelme[1]["shapes"]
    assert not list(out.glob(".d2tune-predict*"))


def test_auto_is_what_it_was_and_coco_alone_has_no_drawings(instance_run: Path, tmp_path: Path) -> None:
    source = photos(tmp_path / "in", 1)
    for to in ("auto", "coco", "overlays", "coco, overlays"):
        d2tune.predict(instance_run, source, out=tmp_path / to, to=to, min_score=0.0)
    auto = content(tmp_path / "auto")
    assert sorted(auto) == ["0.png.predicted.jpg", "predictions.json"]
    assert content(tmp_path / "coco, overlays") == auto
    coco, overlays = content(tmp_path / "coco"), content(tmp_path / "overlays")
    assert len(coco) == len(overlays) == 1 and coco | overlays == auto


def test_results_of_the_validation_split_have_the_ids_of_the_persons_coco_file(tmp_path: Path) -> None:
    truth: dict[str, Any] = {
        "images": [{"id": 71 + seed, "file_name": f"{seed}.png", "width": 64, "height": 48} for seed in range(3)],
        "categories": [{"id": 5, "name": "bus"}, {"id": 3, "name": "road"}],
        "annotations": [
            {"id": 900 + seed, "image_id": 71 + seed, "category_id": 3 + 2 * (seed % 2), "iscrowd": 0, "area": 200}
            | {"bbox": [4, 4, 20, 10], "segmentation": [[4, 4, 24, 4, 24, 14, 4, 14]]}
            for seed in range(3)
        ],
    }
    run = random_run(tmp_path / "run", "instance")
    photos(run / "val", 3)
    (run / "train").mkdir()
    for seed in range(3):
        PilImage.fromarray(photo(seed + 10)).save(run / "train" / f"{seed}.png")
    path = run / "val" / "coco.json"
    for folder in ("train", "val"):
        (run / folder / "coco.json").write_text(json.dumps(truth), encoding="utf-8")
    d2tune.predict(run, None, out=tmp_path / "out", to="rle", min_score=0.0)
    results = tmp_path / "out" / "results.json"
    coco = COCO(str(path))
    loaded = coco.loadRes(str(results))
    rows = loaded.loadAnns(loaded.getAnnIds())
    assert {row["image_id"] for row in rows} == {71, 72, 73} and {row["category_id"] for row in rows} <= {3, 5}
    assert all(row["segmentation"]["size"] == [48, 64] for row in rows)
    scorer = COCOeval(coco, loaded, "segm")
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    metrics = evaluation.evaluate_files(results, path, out=tmp_path / "scored").metrics
    assert metrics.segm["AP50"].value == pytest.approx(100 * scorer.stats[1], abs=0.06)  # type: ignore[union-attr]
    about = json.loads((tmp_path / "out" / "predicted_images.json").read_text("utf-8"))
    assert [(row["id"], row["file_name"]) for row in about["images"]] == [(71 + at, f"{at}.png") for at in range(3)]
    assert [row["bytes"] for row in about["images"]] == [(run / "val" / f"{at}.png").stat().st_size for at in range(3)]


def test_yolo_labels_are_read_back_beside_the_photos(instance_run: Path, tmp_path: Path) -> None:
    source = photos(tmp_path / "data" / "images", 2)
    d2tune.predict(instance_run, source, out=tmp_path / "data", to="yolo-seg", min_score=0.0)
    assert (tmp_path / "data" / "classes.txt").read_text("utf-8") == "bus\nroad\n"
    dataset = read_dataset(tmp_path / "data", format="yolo-seg", options=ReadOptions())
    d2tune.predict(instance_run, source, out=tmp_path / "coco", to="coco", min_score=0.0)
    coco = json.loads((tmp_path / "coco" / "predictions.json").read_text("utf-8"))["annotations"]
    expected = sorted((row["area"], round(row["score"], 6)) for row in coco if row["area"])
    assert sorted((one.area_px2, one.score) for one in dataset.instances) == expected and expected


def test_measures_of_overlapping_objects_and_a_photo_of_16_bits(instance_run: Path, tmp_path: Path) -> None:
    """The color is that of the 8 bits that are shown; the area of a class has each pixel once."""
    deep = photo(1).astype(np.uint16)[:, :, 0] * 257
    (tmp_path / "in").mkdir()
    PilImage.fromarray(deep).save(tmp_path / "in" / "deep.png")
    d2tune.predict(instance_run, tmp_path / "in", out=tmp_path / "out", to="measurements,coco,cutouts", min_score=0.0)
    rows = rows_of(tmp_path / "out" / "measurements.csv")
    coco = json.loads((tmp_path / "out" / "predictions.json").read_text("utf-8"))
    masks = COCO()
    masks.dataset = coco
    masks.createIndex()
    pixels = [masks.annToMask(row).astype(bool) for row in coco["annotations"]]
    with_pixels = [mask for mask in pixels if mask.any()]
    assert [int(row["area_px2"]) for row in rows] == [int(mask.sum()) for mask in with_pixels]
    for row, mask in zip(rows, with_pixels, strict=True):
        assert float(row["red"]) == pytest.approx(float((deep // 257)[mask].mean()), abs=0.06)
        assert row["red"] == row["green"] == row["blue"]
    for class_id, counts in enumerate(rows_of(tmp_path / "out" / "counts.csv"), start=1):
        of_class = [
            mask for mask, row in zip(pixels, coco["annotations"], strict=True) if row["category_id"] == class_id
        ]
        union_px2 = int(np.any(of_class, axis=0).sum()) if of_class else 0
        assert int(counts["area_px2"]) == union_px2
        assert float(counts["share_percent"]) == pytest.approx(100 * union_px2 / deep.size, abs=1e-3)
    with PilImage.open(next(iter(sorted((tmp_path / "out" / "cutouts" / "deep").glob("*.png"))))) as png:
        assert png.mode == "RGBA"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mm_per_px": 0.5}, ProjectError, "--scale goes with --to measurements"),
        ({"to": "measurements", "mm_per_px": 0.0}, ProjectError, "--scale.*above 0"),
        ({"to": "measurements", "mm_per_px": -1.0}, ProjectError, "--scale.*above 0"),
        ({"to": "measurements", "mm_per_px": float("nan")}, ProjectError, "--scale.*above 0.*found nan"),
        ({"to": "measurements", "mm_per_px": float("inf")}, ProjectError, "--scale.*above 0.*found inf"),
        ({"to": "coco,nothing"}, DataError, "an instance run cannot write this format; found nothing; expected auto"),
        ({"to": "coco,"}, DataError, "an instance run cannot write this format"),
        ({"to": "label_maps"}, DataError, "an instance run cannot write this format; found label_maps"),
        ({"to": "coco,rle", "out": "both.csv"}, DataError, "several formats are written to a folder"),
    ],
)
def test_invalid_formats_and_scales_are_refused(
    instance_run: Path, tmp_path: Path, options: dict[str, Any], error: type[D2TuneError], message: str
) -> None:
    source = photos(tmp_path / "in", 1)
    given = {"out": tmp_path / "out"} | options
    given["out"] = tmp_path / given["out"]
    with pytest.raises(error, match=message):
        d2tune.predict(instance_run, source, **given)
    assert not list(tmp_path.glob("out/*"))


def test_two_formats_do_not_write_one_file(instance_run: Path, tmp_path: Path) -> None:
    """The Labelme file of ``results.png`` has the name of the list of COCO results."""
    photos(tmp_path / "in", 1)
    (tmp_path / "in" / "0.png").rename(tmp_path / "in" / "results.png")
    with pytest.raises(DataError, match=r"results\.json: --to: two of the formats would write this file.*another fold"):
        d2tune.predict(instance_run, tmp_path / "in", out=tmp_path / "out", to="labelme,rle")
    assert not (tmp_path / "out" / "results.json").exists()


def test_options_on_the_command_line(instance_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = photos(tmp_path / "in", 1)
    words = ["predict", str(instance_run), str(source), "--out", str(tmp_path / "out"), "--min-score", "0"]
    labelme = ["--to", "labelme,measurements", "--tolerance-px", "2", "--scale", "0.25"]
    assert main([*words, *labelme]) == 0
    assert f"instances on 1 image: {tmp_path / 'out'}" in capsys.readouterr().out
    assert (tmp_path / "out" / "0.json").is_file()
    first = rows_of(tmp_path / "out" / "measurements.csv")[0]
    assert float(first["length_mm"]) == pytest.approx(float(first["length_px"]) / 4, rel=1e-3)
    for wrong, message in (
        (["--to", "measurements", "--scale", "0"], "--scale"),
        (["--scale", "1"], "--scale goes with --to measurements"),
        (["--to", "rle", "--to", "masks", "--tolerance-px", "2"], "--tolerance-px goes with --to labelme"),
    ):
        assert main([*words, *wrong]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
