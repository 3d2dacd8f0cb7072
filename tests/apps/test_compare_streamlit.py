"""The Streamlit app: its script in this process, and its server in a browser."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from tests.browser import Page, browser
from tests.runs.random_runs import random_run
from tests.shared_files import SHARED

APP = Path(__file__).resolve().parents[2] / "apps" / "compare_streamlit.py"
VOC = "deeplabv3_mobilenet_v2_voc"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A published network, a run, and a small photo of a car."""
    folder = tmp_path_factory.mktemp("app")
    run = random_run(folder / "semantic", "semantic")
    frame = sorted((SHARED / "data" / "car_video").rglob("*.jpg"))[0]
    (folder / "images").mkdir()
    Image.open(frame).convert("RGB").resize((214, 120)).save(folder / "images" / "car_$1_*.png")
    return [VOC, str(run), "--weights", str(SHARED / "weights"), "--images", str(folder / "images"), "--runs", "none"]


@pytest.fixture
def app(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    def start(*others: str) -> AppTest:
        monkeypatch.setattr(sys, "argv", [str(APP), *(others or arguments)])
        return AppTest.from_file(APP, default_timeout=60).run()

    return start


def test_two_models_an_upload_and_a_broken_one(app: Callable[..., AppTest]) -> None:
    page = app()
    assert not page.exception and not page.error
    offered = page.selectbox(key="a").options
    assert offered[0] == VOC and offered[1].endswith("semantic")
    assert "fcn_resnet50, published mIoU 60.5 (is downloaded once)" in offered
    assert "deeplabv3_resnet50, published mIoU 66.4 (is downloaded once)" in offered
    assert page.selectbox(key="sample").options[:2] == ["car_$1_*.png", "sample: portrait"]
    page.button(key="compare").click().run()
    assert not page.exception and not page.error
    assert [one.label for one in page.metric] == ["Pixels with the same class", "Mean IoU of A and B", "Image"]
    assert page.metric[2].value == "214 x 120 px"
    classes, models = (table.value for table in page.table)
    assert {"car", "background"} <= set(classes["class"])
    assert classes["pixels of A"].sum() == classes["pixels of B"].sum() == 214 * 120
    assert models["model"].tolist() == [VOC, "random semantic"] and models["published"].tolist() == ["none", "none"]
    share = page.metric[0].value
    # exchanged
    page.selectbox(key="a").select_index(1)
    page.selectbox(key="b").select_index(0)
    page.button(key="compare").click().run()
    assert page.metric[0].value == share
    mirrored = page.table[0].value
    assert mirrored["class"].tolist() == classes["class"].tolist()
    assert mirrored["pixels of A"].tolist() == classes["pixels of B"].tolist()
    # an upload that is not an image, and then one that is
    page.file_uploader(key="upload").set_value(("x.jpg", b"\xff\xd8\xff not a photo", "image/jpeg")).run()
    page.button(key="compare").click().run()
    assert not page.exception and not page.metric, "the earlier result is not shown beside the error"
    assert "the image cannot be read" in page.error[0].value.replace("\\", "")
    page.file_uploader(key="upload").set_value(("x.png", png(40, 30), "image/png")).run()
    page.button(key="compare").click().run()
    assert not page.error and page.metric[2].value == "40 x 30 px"
    page.slider(key="opacity").set_value(1.0).run()
    assert not page.exception and page.metric[2].value == "40 x 30 px"


def test_a_network_that_cannot_be_downloaded(app: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    page = app("fcn_resnet50", "fcn_resnet101", "--runs", "none")
    page.button(key="compare").click().run()
    assert not page.exception
    text = page.error[0].value.replace("\\", "")
    assert "fcn_resnet50_coco-1167a1af.pth: cannot be reached" in text and "D2TUNE_PUBLISHED_WEIGHTS" in text


def test_a_folder_that_does_not_exist(app: Callable[..., AppTest]) -> None:
    page = app("--weights", "no_such_folder")
    assert page.error[0].value.replace("\\", "") == "no_such_folder: the folder of weights does not exist"


def test_the_app_holds_no_logic() -> None:
    text = APP.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    assert not any(f"import {name}" in text for name in ("numpy", "torch", "cv2", "PIL", "detectron2"))


@pytest.mark.extended
def test_in_a_browser(arguments: list[str], tmp_path: Path) -> None:
    with running(arguments) as url, browser(tmp_path / "profile") as page:
        page.look(width_px=1280)
        page.call("Page.navigate", url=url)
        until(page, "document.querySelector('.st-key-compare button')")
        page.evaluate("document.querySelector('.st-key-compare button').click()")
        until(page, "document.querySelectorAll('[data-testid=stImage] img').length === 3")
        until(page, "[...document.images].every(image => image.complete && image.naturalWidth)")
        until(page, "document.querySelectorAll('table').length === 2")
        until(page, "document.querySelector('.st-key-download button')")
        text = page.evaluate("document.body.innerText")
        assert "A: deeplabv3_mobilenet_v2_voc" in text and "214 x 120 px" in text
        for width_px, dark in ((1280, True), (390, False)):
            page.look(width_px=width_px, dark=dark)
            time.sleep(1)
            assert page.evaluate("document.documentElement.scrollWidth") <= width_px
        (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
        upload(page, tmp_path / "broken.png")
        until(page, "document.body.innerText.includes('broken.png')")
        page.evaluate("document.querySelector('.st-key-compare button').click()")
        until(page, "document.querySelector('[data-testid=stAlert]')")
        assert "the image cannot be read" in page.evaluate("document.querySelector('[data-testid=stAlert]').innerText")
        assert {httpx.URL(address).host for address in page.requests()} == {"127.0.0.1"}, "nothing from elsewhere"


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@contextlib.contextmanager
def running(arguments: list[str]) -> Iterator[str]:
    """A server of the app."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(APP), "--server.port", str(port), "--", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIT_")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        stop = time.monotonic() + 60
        while not _answers(url):
            assert process.poll() is None and time.monotonic() < stop
            time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/_stcore/health").status_code == 200
    except httpx.TransportError:
        return False


def until(page: Page, condition: str) -> None:
    stop = time.monotonic() + 90
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < stop, page.evaluate("document.body.innerText")
        time.sleep(0.2)


def upload(page: Page, path: Path) -> None:
    """Choose a file, as a person does in the dialog of the browser."""
    expression = "document.querySelector('[data-testid=stFileUploader] input[type=file]')"
    chosen = page.call("Runtime.evaluate", expression=expression)["result"]["objectId"]
    page.call("DOM.setFileInputFiles", files=[str(path)], objectId=chosen)
