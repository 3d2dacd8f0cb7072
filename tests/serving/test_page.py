"""The page for judging predictions, with a served model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from PIL import Image

from d2tune.acceptance.routes import data_router, page_router
from d2tune.errors import D2TuneError, ProjectError
from d2tune.serving.page import ServedPredictions, open_page
from d2tune.serving.service import Service
from d2tune.serving.settings import Limits, PageOptions, ServingSettings
from tests.serving.conftest import served_by
from tests.serving.stand_in import BrightBox, lamp, served


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(lamp((10, 20, 40, 50))).save(folder / "a.png")
    Image.fromarray(lamp((0, 0, 5, 5))).save(folder / "b.png")
    return folder


def test_page_shows_what_the_model_predicts_and_keeps_judgments(images: Path, tmp_path: Path) -> None:
    model = served(BrightBox())
    service = Service({model.name: model}, ServingSettings())
    options = PageOptions(images=images, judgments=tmp_path / "judgments.sqlite", title="Lamps of the hall")
    acceptance = open_page(service, options)
    routers = [page_router(), data_router(acceptance)]
    with served_by(service, routers=routers) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert "content-security-policy" in client.get("/").headers
        assert client.get("/acceptance/state").json()["title"] == "Lamps of the hall"
        assert [row["name"] for row in client.get("/acceptance/images").json()] == ["a.png", "b.png"]
        (one,) = client.get("/acceptance/images/1/objects").json()["objects"]
        assert (one["class_name"], one["score"], one["box_xywh"]) == ("lamp", 0.9, [10, 20, 30, 30])
        judged = {"seen": None, "judgment": {"verdict": "right", "judged_by": "Ann"}}
        answer = client.put("/acceptance/images/1/judgment", json=judged)
        assert answer.status_code == 200, answer.text
    acceptance.close()
    service = Service({model.name: model}, ServingSettings())
    service.start()
    again = open_page(service, replace(options, title=" "))
    try:
        assert again.settings.title == "Acceptance", "a title of nothing is none"
        (saved,) = again.judgments(0).values()
        assert (saved.judgment.verdict, saved.judgment.judged_by) == ("right", "Ann")
    finally:
        again.close()
        service.close()


def test_predictions_of_two_other_tools_have_names(images: Path, tmp_path: Path) -> None:
    """Two files of one name, of which one is called otherwise; both are lists whose images a third file names."""
    files = []
    for folder, left in (("old", 10), ("new", 30)):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "results.json")
        row = {"image_id": 7, "category_id": 3, "bbox": [left, 20, 5, 6], "score": 0.75}
        files[-1].write_text(json.dumps([row]), encoding="utf-8")
    names = {"images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 64}], "annotations": []}
    (tmp_path / "names.json").write_text(json.dumps(names | {"categories": [{"id": 3, "name": "lamp"}]}), "utf-8")
    service = Service({}, ServingSettings())
    shown = PageOptions(images=images, truth=tmp_path / "names.json", judgments=tmp_path / "judgments.sqlite")
    with pytest.raises(ProjectError, match=r"two models have the same name; found results\..*--predictions NAME="):
        open_page(service, replace(shown, predictions=tuple(files)))
    acceptance = open_page(service, replace(shown, predictions=(files[0], f"new={files[1]}")))
    try:
        assert [model.name for model in acceptance.models] == ["results", "new"]
        image = next(one for one in acceptance.images.all() if one.name == "a.png")
        boxes = [acceptance.objects(acceptance.images.get(image.id), index)[0].box_xywh for index in (0, 1)]
        assert boxes == [(10, 20, 5, 6), (30, 20, 5, 6)]
        assert not acceptance.truth, "a file that only names the images is not ground truth"
    finally:
        acceptance.close()


def test_model_that_cannot_predict_is_an_error_with_a_sentence(images: Path) -> None:
    model = served(BrightBox())
    service = Service({model.name: model}, ServingSettings(limits=Limits(pixels=100)))
    service.start()
    try:
        shown = ServedPredictions(service, model.name)
        with pytest.raises(D2TuneError, match="64 x 64 px"):
            shown.predict(images / "a.png")
        with pytest.raises(D2TuneError, match="cannot be read: No such file"):
            shown.predict(images / "missing.png")
    finally:
        service.close()
    with pytest.raises(D2TuneError, match="not running"):
        shown.predict(images / "a.png")
