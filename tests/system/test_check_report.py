"""The page of `d2tune check --report`, made by the real command from real photos, looked at in a real browser."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import Page, browser
from tests.shared_files import SHARED
from tests.system.commands import d2tune_here, refused, succeeded

pytestmark = pytest.mark.slow

BROKEN = ("28_nan", "35_image_missing", "36_size_mismatch", "24_fully_outside", "48_truncated", "55_gray16")
SCRIPT = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def broken_data(folder: Path) -> Path:
    """Cases with errors, and real photos, one of them with shapes and labels that nobody should draw."""
    folder.mkdir()
    for name in BROKEN:
        shutil.copytree(SHARED / "conversion_cases" / name, folder / name)
        (folder / name / "expected.json").unlink()
    (folder / "35_image_missing" / "a.json").rename(folder / "35_image_missing" / "lost.json")
    source = SHARED / "data" / "microcontrollers" / "test"
    for path in sorted(source.iterdir())[:6]:
        shutil.copy(path, folder)
    path = sorted(folder.glob("*.json"))[0]
    content = json.loads(path.read_text(encoding="utf-8"))
    for label, points in (
        (SCRIPT, [[-200, 100], [300, 120], [250, 500]]),
        ('"><img src=x onerror=alert(1)>', [[1e9, 1e9], [1e9 + 50, 1e9], [1e9, 1e9 + 70]]),
        ("\ud800\u202eturned", [[100, 100], [300, 100], [100, 300]]),
    ):
        content["shapes"].append({"label": label, "points": points, "shape_type": "polygon"})
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def look_through(page: Page, report: Path) -> None:
    """What must hold for every page at every width and in both color schemes."""
    for width_px, dark in ((1280, False), (1280, True), (400, False)):
        page.look(width_px=width_px, dark=dark)
        page.open(report)
        assert page.complaints() == []
        assert page.requests() == [report.absolute().as_uri()], "the page loads something"
        assert page.evaluate("[...document.images].filter(one => !one.naturalWidth).length") == 0
        assert page.evaluate("document.documentElement.scrollWidth") == width_px, "the page overflows"
        # what may be wider than its place is in a box that scrolls or cuts; all else stays inside the window
        outside = page.evaluate(
            "[...document.querySelectorAll('main *, header *')].filter(one => "
            "one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.scroll, pre, .frame, svg'))"
            ".map(one => one.outerHTML.slice(0, 200))"
        )
        assert outside == []
        assert page.evaluate("document.scripts.length") == 0
        shown = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        assert shown.shape == (900, width_px, 3)
        assert len(np.unique(shown @ np.array([1 << 16, 1 << 8, 1]))) > 50, "the screenshot is blank"
        assert (shown[5, 5].mean() < 60) == dark, "the ground does not follow the color scheme"


def text(page: Page, selector: str) -> str:
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")


def test_real_photos(page: Page, tmp_path: Path) -> None:
    out = succeeded(
        d2tune_here("check", SHARED / "data" / "microcontrollers", "--report", "check.html", folder=tmp_path)
    )
    assert out.splitlines()[-1].endswith("check.html")
    report = tmp_path / "check.html"
    look_through(page, report)
    assert "149 images, 178 instances of 4 classes" in text(page, ".verdict")
    rows = page.evaluate(
        "[...document.querySelectorAll('#classes tbody')[0].rows].map(row => row.innerText.split('\\t'))"
    )
    assert [row[:5] for row in rows] == [
        ["ESP8266", "47", "48", "46", "2"],
        ["Heltec_ESP32_Lora", "44", "44", "42", "2"],
        ["Arduino_Nano", "43", "43", "41", "2"],
        ["Raspberry_Pi_3", "43", "43", "42", "1"],
    ]
    assert page.evaluate("document.querySelectorAll('#sheet figure img').length") == 60
    assert page.evaluate("document.querySelectorAll('#sheet path.object').length") >= 60
    assert page.evaluate("document.querySelectorAll('#objects svg.chart').length") == 6
    assert report.stat().st_size < 3_000_000


def test_outlines_lie_on_their_objects(page: Page, tmp_path: Path) -> None:
    """A white square on black: the outline's box in the browser is the square's place in the image."""
    image = np.zeros((300, 400, 3), np.uint8)
    image[60:120, 200:320] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    shape = {"label": "box", "points": [[200, 60], [320, 120]], "shape_type": "rectangle"}
    content = {"version": "5.5.0", "flags": {}, "shapes": [shape], "imagePath": "a.png", "imageData": None}
    (tmp_path / "a.json").write_text(json.dumps(content | {"imageWidth": 400, "imageHeight": 300}))
    succeeded(d2tune_here("check", ".", "--report", "check.html", folder=tmp_path))
    page.look(width_px=1280)
    page.open(tmp_path / "check.html")
    frame, outline = page.evaluate(
        "['.frame', '.frame path'].map(name => document.querySelector('#sheet ' + name).getBoundingClientRect())"
        ".map(box => [box.x, box.y, box.width, box.height])"
    )
    measured = [(outline[0] - frame[0]) / frame[2], (outline[1] - frame[1]) / frame[3]]
    measured += [outline[2] / frame[2], outline[3] / frame[3]]
    assert measured == pytest.approx([200 / 400, 60 / 300, 120 / 400, 60 / 300], abs=0.01)


def test_both_splits_of_a_project_and_a_leak_between_them(page: Page, tmp_path: Path) -> None:
    shutil.copytree(SHARED / "data" / "balloon" / "val", tmp_path / "data" / "val")
    shutil.copytree(SHARED / "data" / "balloon" / "val", tmp_path / "data" / "train")
    for photo in (tmp_path / "data" / "train").glob("*.jpg"):
        Image.open(photo).save(photo, quality=60)
    (tmp_path / "mine.yaml").write_text("name: mine\ndata: {root: data}\nclasses: [balloon]\n", encoding="utf-8")
    out = succeeded(d2tune_here("check", "mine.yaml", "--report", "check.html", folder=tmp_path))
    assert "train: 13 images, 50 instances" in out and "val: 13 images, 50 instances" in out
    assert re.search(r"warning +near_duplicate +13 ", out)
    look_through(page, tmp_path / "check.html")
    assert "26 images, 100 instances of 1 class; 13 groups of near-duplicates lie in more than one split" in text(
        page, ".verdict"
    )
    assert text(page, "#advice h3") == "Near-duplicates lie in different splits (13 groups)"
    pills = page.evaluate("[...document.querySelectorAll('.twins')].map(row => row.innerText.match(/train|val/g))")
    assert all(sorted(names[:2]) == ["train", "val"] for names in pills) and len(pills) == 13


def test_lists_say_which_split_an_image_is_in(page: Page, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(SHARED / "data" / "microcontrollers" / "test", data)
    names = sorted(path.name for path in data.glob("*.jpg"))
    (data / "splits").mkdir()
    (data / "splits" / "train.txt").write_text("".join(f"{name}\n" for name in names[:5]), encoding="utf-8")
    (data / "splits" / "val.txt").write_text(f"{names[5]}\n", encoding="utf-8")
    succeeded(d2tune_here("check", "data", "--report", "check.html", folder=tmp_path))
    page.look(width_px=1280)
    page.open(tmp_path / "check.html")
    rows = page.evaluate(
        "[...document.querySelectorAll('#classes tbody')[1].rows].map(row => row.innerText.split('\\t'))"
    )
    assert [row[:2] for row in rows] == [["train", "5"], ["val", "1"], ["in no split", "1"]]


def test_errors_and_hostile_labels(page: Page, tmp_path: Path) -> None:
    broken_data(tmp_path / "data")
    done = d2tune_here("check", "data", "--report", "check.html", folder=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    look_through(page, tmp_path / "check.html")
    assert "4 errors stop training" in text(page, ".verdict")
    codes = page.evaluate("[...document.querySelectorAll('.group h3 code')].map(one => one.innerText)")
    expected = {"non_finite_coordinate", "image_missing", "size_mismatch", "bad_json", "outside_image", "clipped"}
    assert expected <= set(codes)
    for code in ("non_finite_coordinate", "outside_image", "clipped"):
        assert page.evaluate(f"document.querySelectorAll('#findings [id$={code}] path.culprit').length") >= 1, code
    assert "gone.png" in text(page, "#error-image_missing figcaption")
    line, caret = text(page, "#error-bad_json pre").rstrip("\n").split("\n")
    assert line.startswith("    1 …") and caret == " " * line.rindex('"imag') + "^"
    assert SCRIPT in text(page, "#classes")
    assert "\\ud800\\u202eturned" in text(page, "#classes")


def test_nothing_to_see(page: Page, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.json").write_text('{"shapes": [], "imagePath": "a.png"}', encoding="utf-8")
    assert d2tune_here("check", "data", "--report", "check.html", folder=tmp_path).returncode == 1
    look_through(page, tmp_path / "check.html")
    assert "0 images, 0 instances of 0 classes; 1 error stops training" in text(page, ".verdict")


def test_a_page_is_replaced_and_a_file_of_ones_own_is_not(tmp_path: Path) -> None:
    source = SHARED / "conversion_cases" / "01_polygon"
    for _ in range(2):
        succeeded(d2tune_here("check", source, "--report", "check.html", folder=tmp_path))
    (tmp_path / "notes.html").write_text("<p>mine", encoding="utf-8")
    line = refused(d2tune_here("check", source, "--report", "notes.html", folder=tmp_path))
    assert "notes.html: the file exists and is not a page of d2tune check, so it is not overwritten" in line
    assert (tmp_path / "notes.html").read_text(encoding="utf-8") == "<p>mine"
    assert "must be a file, not a folder" in refused(d2tune_here("check", source, "--report", ".", folder=tmp_path))
    assert "has no list" in refused(
        d2tune_here("check", source, "--report", "check.html", "--splits", "nowhere", folder=tmp_path)
    )
