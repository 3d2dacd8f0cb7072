"""The page that compares two models: its routes, and the page in a real browser."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import d2tune
from d2tune.acceptance.two_models import NoSuchComparisonError, TwoModels
from d2tune.errors import ProjectError, WeightsError
from d2tune.model_comparison import drawings
from d2tune.model_comparison.models import ComparedModel, open_model
from d2tune.serving.compared import compared_models
from d2tune.serving.service import Service
from d2tune.serving.settings import ServingSettings
from tests.acceptance.world import HEIGHT, WIDTH, Served, opened, served, write_world
from tests.browser import NavigatedError, Page, browser
from tests.runs.random_runs import random_run
from tests.shared_files import SHARED


def absent() -> ComparedModel:
    raise WeightsError("the weights file does not exist", file="/secret/place.pth")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ComparedModel]:
    folder = tmp_path_factory.mktemp("runs")
    return {task: open_model(random_run(folder / task, task)) for task in ("semantic", "instance")}


@pytest.fixture
def site(tmp_path: Path, models: dict[str, ComparedModel]) -> Iterator[Served]:
    load = {**{name: partial(models.__getitem__, name) for name in models}, "absent": absent}
    with served(opened(write_world(tmp_path)), two_models=TwoModels(load, max_pixels=1_000_000)) as running:
        yield running


def compare(site: Served, a: str, b: str, name: str = "a.png") -> httpx.Response:
    return site.client.post("/acceptance/two-models", json={"a": a, "b": b, "image": site.image_id(name)})


def test_the_page_shows_what_the_function_gives(site: Served, models: dict[str, ComparedModel], tmp_path: Path) -> None:
    assert site.client.get("/acceptance/state").json()["two_models"] == ["semantic", "instance", "absent"]
    there, back = compare(site, "semantic", "instance").json(), compare(site, "instance", "semantic").json()
    expected = d2tune.compare_models(models["semantic"], models["instance"], tmp_path / "images" / "a.png")
    assert there["classes"] == drawings.to_json(expected)["classes"] and there["agreement"] == expected.maps.share
    assert (there["width_px"], there["height_px"]) == (WIDTH, HEIGHT)
    assert [one["name"] for one in there["models"]] == [one["name"] for one in reversed(back["models"])]
    assert back["classes"] == drawings.to_json(expected.mirrored())["classes"]
    assert set(there["colors"]) == {row["name"] for row in there["classes"]}
    for name, pixels in (("a", drawings.layer(expected, "a")), ("agreement", drawings.agreement_layer(expected))):
        answer = site.client.get(f"/acceptance/two-models/{there['key']}/{name}.png")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), pixels)
    mirrored = site.client.get(f"/acceptance/two-models/{back['key']}/b.png").content
    assert mirrored == site.client.get(f"/acceptance/two-models/{there['key']}/a.png").content
    archive = site.client.get(f"/acceptance/two-models/{there['key']}/comparison.zip?opacity=1").content
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        assert json.loads(file.read("comparison.json"))["classes"] == there["classes"]


def test_what_is_refused(site: Served) -> None:
    assert compare(site, "semantic", "other").json() == {"detail": "there is no such model"}
    answer = compare(site, "semantic", "absent")
    assert (answer.status_code, answer.json()) == (422, {"detail": "the weights file does not exist"})
    given = {"a": "semantic", "b": "semantic", "image": 999}
    assert site.client.post("/acceptance/two-models", json=given).json() == {"detail": "there is no such image"}
    assert site.client.post("/acceptance/two-models", json={"a": "semantic"}).status_code == 422
    evil = {"Sec-Fetch-Site": "cross-site"}
    assert site.client.post("/acceptance/two-models", json=given, headers=evil).status_code == 403
    for path in ("9-9-abc/a.png", "0-1-abc/comparison.zip"):
        answer = site.client.get(f"/acceptance/two-models/{path}")
        assert answer.status_code == 404 and "no longer kept" in answer.json()["detail"]
    assert site.client.get("/acceptance/two-models/x/other.png").status_code == 404


def test_a_blind_comparison_does_not_give_its_models_away(tmp_path: Path, models: dict[str, ComparedModel]) -> None:
    two_models = TwoModels({name: partial(models.__getitem__, name) for name in models}, max_pixels=100)
    with served(opened(write_world(tmp_path), is_blind=True), two_models=two_models) as blind:
        assert blind.client.get("/acceptance/state").json()["two_models"] == []
        given = {"a": "semantic", "b": "instance", "image": 1}
        assert blind.client.post("/acceptance/two-models", json=given).status_code == 404


@pytest.mark.extended
def test_only_the_latest_comparisons_are_kept(models: dict[str, ComparedModel], tmp_path: Path) -> None:
    two_models = TwoModels({"a": lambda: models["semantic"]}, max_pixels=1_000_000)
    path = write_world(tmp_path) / "images" / "a.png"
    keys = [two_models.compare("a", "a", path, f"{number:064x}"[::-1])[0] for number in range(8)]
    assert len(set(keys)) == 8 and two_models.kept(keys[-1]) is two_models.compare("a", "a", path, f"{7:064x}"[::-1])[1]
    with pytest.raises(NoSuchComparisonError):
        two_models.kept(keys[0])


def test_an_earlier_comparison_is_given_while_another_is_made(models: dict[str, ComparedModel], tmp_path: Path) -> None:
    is_loading, may_end = threading.Event(), threading.Event()

    def slow() -> ComparedModel:
        is_loading.set()
        assert may_end.wait(60)
        return models["instance"]

    two_models = TwoModels({"a": lambda: models["semantic"], "slow": slow}, max_pixels=1_000_000)
    path = write_world(tmp_path) / "images" / "a.png"
    key, made = two_models.compare("a", "a", path, "0" * 64)
    with ThreadPoolExecutor(2) as pool:
        try:
            other = pool.submit(two_models.compare, "a", "slow", path, "0" * 64)
            assert is_loading.wait(60)
            assert pool.submit(two_models.kept, key).result(10) is made
            assert not other.done()
        finally:
            may_end.set()
        assert other.result(60)[1].b.name == models["instance"].name


def test_the_models_of_a_server(tmp_path: Path) -> None:
    service = Service({}, ServingSettings())
    run = random_run(tmp_path / "mine", "semantic")
    file = SHARED / "weights" / "deeplabv3_mobilenet_v2_voc.pth"
    both = compared_models(service, [f"deeplabv3_mobilenet_v2_voc={file}", str(run)])
    assert both is not None and both.names == ("deeplabv3_mobilenet_v2_voc", "mine"), "no path is shown"
    assert compared_models(service, [str(run)]) is None
    with pytest.raises(ProjectError, match="two models have the same name; found mine"):
        compared_models(service, [str(run), str(run)])
    with pytest.raises(ProjectError, match="there is no such model; found fcn_resnet5"):
        compared_models(service, ["fcn_resnet5"])


@pytest.mark.slow
def test_in_a_browser(site: Served, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as page:
        page.look(width_px=1280)
        page.call("Page.navigate", url=site.address)
        until(page, "document.body?.dataset.ready === 'true'")
        page.evaluate("setTimeout(() => document.getElementById('two-models').click()), 0")
        until(page, "document.body?.className === 'models' && document.body.dataset.ready === 'true'")
        page.evaluate("document.getElementById('compare').click()")
        until(page, "!document.getElementById('result').hidden")
        until(page, "[...document.querySelectorAll('figure img')].every(one => one.naturalWidth === 400)")
        names = "[...document.querySelectorAll('#classes tr')].map(row => [...row.cells].map(cell => cell.innerText))"
        there = page.evaluate(names)
        assert {row[0] for row in there} >= {"bus", "road"}
        page.evaluate("document.getElementById('swap').click()")
        until(page, "document.getElementById('name-a').innerText.startsWith('A: random instance')")
        back = page.evaluate(names)
        assert [[row[0], row[1], row[3], row[2], row[4]] for row in back] == [row[:5] for row in there]
        page.evaluate(
            "(one => { one.value = 1; one.dispatchEvent(new Event('input')) })(document.getElementById('opacity'))"
        )
        assert page.evaluate("getComputedStyle(document.getElementById('layer-a')).opacity") == "1"
        upload(page, "broken.png", b"\x89PNG\r\n\x1a\nbroken")
        until(page, "!document.getElementById('banner').hidden")
        assert "broken.png: is not added" in page.evaluate("document.getElementById('banner').innerText")
        for width_px, dark in ((1280, True), (390, False)):
            page.look(width_px=width_px, dark=dark)
            assert page.evaluate("document.documentElement.scrollWidth") <= width_px
        hosts = {httpx.URL(address).host for address in page.requests() if not address.startswith("blob:")}
        assert hosts == {"127.0.0.1"}, "nothing from elsewhere"
        assert [one for one in page.complaints() if "422" not in one] == []


def until(page: Page, condition: str) -> None:
    stop = time.monotonic() + 60
    while not holds(page, condition):
        assert time.monotonic() < stop, page.evaluate("document.body.innerText")
        time.sleep(0.05)


def holds(page: Page, condition: str) -> bool:
    try:
        return bool(page.evaluate(f"Boolean({condition})"))
    except NavigatedError:
        return False


def upload(page: Page, name: str, content: bytes) -> None:
    text = base64.b64encode(content).decode()
    page.evaluate(
        "(() => { const data = new DataTransfer();"
        f"const bytes = Uint8Array.from(atob('{text}'), c => c.charCodeAt(0));"
        f"data.items.add(new File([bytes], '{name}', {{type: 'image/png'}}));"
        "const input = document.getElementById('files');"
        "input.files = data.files; input.dispatchEvent(new Event('change', {bubbles: true})) })()"
    )
