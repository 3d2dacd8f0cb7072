"""The page in a real browser without a window: seen, pointed at, typed on, printed."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import d2tune
from d2tune.project.traits import TaskName
from d2tune.review.page import LIMIT_BYTES
from tests.browser import Page, browser
from tests.review.world import coco_results, make_data, make_run

pytestmark = pytest.mark.slow

CONTRASTS = """(() => {
  const parse = text => { const parts = text.match(/[\\d.]+/g)?.map(Number) ?? [0, 0, 0, 0];
    const unit = text.startsWith("color(") ? 255 : 1;
    return [parts[0] * unit, parts[1] * unit, parts[2] * unit, parts[3] ?? 1]; };
  const over = (top, below) => [0, 1, 2].map(at => top[at] * top[3] + below[at] * (1 - top[3]));
  const backing = node => { const layers = [];
    for (let one = node; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]); };
  const light = rgb => { const part = rgb.map(value => value / 255)
      .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2]; };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    if (node.closest(".frame, script, style") || !node.checkVisibility()) continue;
    if (![...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())) continue;
    if (node.tagName === "title") continue;
    const style = getComputedStyle(node), isText = node instanceof SVGElement;
    const behind = backing(node), front = over(parse(isText ? style.fill : style.color), behind);
    const [a, b] = [light(front), light(behind)].sort((one, other) => other - one);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push([node.textContent.trim().slice(0, 40), node.className.baseVal ?? node.className, ratio]);
  }
  return low; })()"""
"""Texts whose contrast is below 4.5 (WCAG 2.2, 1.4.3), but for those on photos."""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        # the network is off: nothing but files can be read
        page.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
        yield page


@pytest.fixture(scope="module")
def several(run_of: Callable[[TaskName], Path], better: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it, in a folder without anything else."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "yolo.json").write_text(json.dumps(coco_results()), encoding="utf-8")
    out = tmp_path_factory.mktemp("elsewhere") / "page.html"
    return d2tune.write_report(run_of("instance"), better, predictions={"yolo": folder / "yolo.json"}, out=out).path


@pytest.fixture(scope="module")
def pages(
    run_of: Callable[[TaskName], Path], several: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    tasks: tuple[TaskName, ...] = ("instance", "semantic", "panoptic")
    made = {task: d2tune.write_report(run_of(task), out=folder / f"{task}.html").path for task in tasks}
    return made | {"several": several}


@pytest.mark.parametrize("name", ["instance", "semantic", "panoptic", "several"])
def test_every_page_in_both_schemes_and_at_all_widths(tab: Page, pages: dict[str, Path], name: str) -> None:
    for dark in (False, True):
        tab.look(width_px=1280, dark=dark)
        tab.open(pages[name])
        assert tab.complaints() == []
        assert tab.requests() == [pages[name].as_uri()], "nothing but the file itself"
        tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert tab.evaluate(CONTRASTS) == []
    for width_px in (390, 820):
        tab.look(width_px=width_px)
        assert tab.evaluate("document.documentElement.scrollWidth") == width_px, "no sideways scrolling"
    without = "[...document.images].filter(one => !one.alt || !one.naturalWidth).length"
    assert tab.evaluate(without) == 0 < tab.evaluate("document.images.length")
    named = "[...document.querySelectorAll('svg[role=img], input, button, select')].filter(one => !(" + (
        "one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length)).length"
    )
    assert tab.evaluate(named) == 0
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
    links = tab.evaluate("[...document.querySelectorAll('a')].map(one => one.getAttribute('href'))")
    assert {link.removeprefix("#") for link in links} <= set(ids)
    levels = tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_a_class_name_of_300_letters_does_not_widen_the_page(tab: Page, tmp_path: Path) -> None:
    name = "a" * 300
    run = make_run(tmp_path / "run", make_data(tmp_path / "data", bus=name), "instance", bus=name)
    page = d2tune.write_report(run).path
    for width_px in (1300, 390):
        tab.look(width_px=width_px)
        tab.open(page)
        tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert tab.evaluate("document.documentElement.scrollWidth") == width_px
        assert tab.evaluate("document.querySelector('.controls select').getBoundingClientRect().right") < width_px


def press(tab: Page, key: str, code: int) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)


def at(tab: Page, selector: str) -> dict[str, float]:
    box: dict[str, float] = tab.evaluate(
        f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.scrollIntoView({{block: 'center', "
        "behavior: 'instant'}); const box = one.getBoundingClientRect(); "
        "return {x: box.x, y: box.y, width: box.width, height: box.height}; })()"
    )
    return box


def divider(tab: Page) -> float:
    """How far from the left the divider of the first image is, and the layers with it, from 0 to 1."""
    value: list[Any] = tab.evaluate(
        "(() => { const slider = document.querySelector('.slider'), box = slider.getBoundingClientRect();"
        "const handle = slider.querySelector('.handle').getBoundingClientRect();"
        "return [(handle.x + handle.width / 2 - box.x) / box.width,"
        "getComputedStyle(slider.querySelector('.left-layer')).clipPath,"
        "getComputedStyle(slider.querySelector('.right-layer')).clipPath]; })()"
    )
    assert f"{round(100 * value[0])}%" in value[2], value
    return float(value[0])


def divider_near(tab: Page, place: Any) -> bool:
    """Whether the divider comes there: on a busy machine a touch reaches the page a little after the call."""
    end = time.monotonic() + 20
    while divider(tab) != place and time.monotonic() < end:
        time.sleep(0.02)
    return divider(tab) == place


def test_the_divider_follows_keys_pointer_and_finger(tab: Page, pages: dict[str, Path]) -> None:
    tab.look(width_px=1280)
    tab.open(pages["instance"])
    assert divider_near(tab, pytest.approx(0.5, abs=0.01))
    tab.evaluate("document.querySelector('.slider input').focus()")
    for _ in range(10):
        press(tab, "ArrowRight", 39)
    assert divider_near(tab, pytest.approx(0.6, abs=0.01))
    box = at(tab, ".slider")
    place = {"y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
    tab.call("Input.dispatchMouseEvent", type="mousePressed", x=box["x"] + 0.3 * box["width"], buttons=1, **place)
    assert divider_near(tab, pytest.approx(0.3, abs=0.02))
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=box["x"] + 0.8 * box["width"], buttons=1, **place)
    assert divider_near(tab, pytest.approx(0.8, abs=0.02))
    tab.call("Input.dispatchMouseEvent", type="mouseReleased", x=box["x"] + 0.8 * box["width"], **place)
    tab.call("Emulation.setTouchEmulationEnabled", enabled=True)
    point = {"x": box["x"] + 0.2 * box["width"], "y": place["y"]}
    tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[point])
    assert divider_near(tab, pytest.approx(0.2, abs=0.02))
    tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    tab.call("Emulation.setTouchEmulationEnabled", enabled=False)
    width = at(tab, ".compare")["width"]
    tab.evaluate("document.querySelector('.enlarge').click()")
    assert at(tab, ".compare")["width"] > 1.3 * width


def shown(tab: Page) -> list[list[str]]:
    return list(
        tab.evaluate(
            "[...document.querySelectorAll('.mistakes li:not([hidden])')]"
            ".map(one => [one.dataset.kind, one.dataset.score])"
        )
    )


def test_mistakes_are_filtered_and_sorted(tab: Page, pages: dict[str, Path]) -> None:
    tab.look(width_px=1280)
    tab.open(pages["instance"])
    assert len(shown(tab)) == 7
    tab.evaluate("document.querySelector('.chip[data-kind=missed]').click()")
    assert [kind for kind, _ in shown(tab)] == ["missed"] * 3
    assert tab.evaluate("document.querySelector('.controls output').textContent") == "3 of 7 shown"
    tab.evaluate("document.querySelector('.chip[data-kind=missed]').click()")
    choose = (
        "(one => {{ one.value = {value!r}; one.dispatchEvent(new Event('change')); }})(document.getElementById({id!r}))"
    )
    tab.evaluate(choose.format(value="score", id="mistake-order"))
    assert [score for _, score in shown(tab)[:4]] == ["0.85", "0.8", "0.7", "0.6"]
    tab.evaluate(choose.format(value="car", id="mistake-class"))
    assert [kind for kind, _ in shown(tab)] == ["missed"] * 2
    tab.evaluate("document.getElementById('only-wrong').click()")
    right = (
        "[...document.querySelectorAll('.slider .right-one')].every(one => getComputedStyle(one).display === 'none')"
    )
    assert tab.evaluate(right) and tab.complaints() == []


def test_tables_are_sorted_with_the_keyboard(tab: Page, pages: dict[str, Path]) -> None:
    tab.look(width_px=1280)
    tab.open(pages["instance"])
    names = "[...document.querySelector('#classes table').tBodies[0].rows].map(row => row.cells[0].textContent.trim())"
    assert tab.evaluate(names) == ["bus", "car"]
    tab.evaluate(
        "[...document.querySelectorAll('#classes thead button')].find(one => one.textContent === 'false').focus()"
    )
    press(tab, " ", 32)
    assert tab.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"
    assert tab.evaluate(names) == ["bus", "car"]
    press(tab, " ", 32)
    assert tab.evaluate(names) == ["car", "bus"]


def test_tab_goes_through_the_page_in_its_order(tab: Page, pages: dict[str, Path]) -> None:
    tab.look(width_px=1280)
    tab.open(pages["instance"])
    first = []
    for _ in range(3):
        press(tab, "Tab", 9)
        first.append(tab.evaluate("document.activeElement.textContent.trim()"))
    assert first == ["Skip to the content", "What to do next", "Curves"]
    positive = "document.querySelectorAll('[tabindex]:not([tabindex=\"0\"])').length"
    assert tab.evaluate(positive) == 0


def test_on_paper_both_sides_are_there(tab: Page, pages: dict[str, Path]) -> None:
    tab.look(width_px=1280, dark=True)
    tab.call("Emulation.setEmulatedMedia", media="print")
    tab.open(pages["instance"])
    hidden = (
        "['nav', '.controls', '.handle', '.slider input']"
        ".map(one => getComputedStyle(document.querySelector(one)).display)"
    )
    assert tab.evaluate(hidden) == ["none"] * 4
    assert tab.evaluate("getComputedStyle(document.querySelector('.left-layer')).clipPath") == "none"
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate(CONTRASTS) == []
    assert len(tab.call("Page.printToPDF", printBackground=True)["data"]) > 20_000
    tab.call("Emulation.setEmulatedMedia", media="")


def test_tables_are_whole_on_paper_and_low_on_a_phone(tab: Page, pages: dict[str, Path]) -> None:
    """A4 is 680 px wide between margins of 15 mm; a row has no more lines than a name has words."""
    tab.call("Emulation.setEmulatedMedia", media="print")
    tab.call("Emulation.setDeviceMetricsOverride", width=680, height=900, deviceScaleFactor=1, mobile=False)
    tab.open(pages["several"])
    ends = "[...document.querySelectorAll('.scroll table')].filter(one => one.checkVisibility())"
    assert tab.evaluate(f"Math.max(...{ends}.map(one => one.getBoundingClientRect().right))") <= 680
    tab.call("Emulation.setEmulatedMedia", media="")
    tab.look(width_px=390)
    tab.open(pages["several"])
    heights = "[...document.querySelectorAll('#runs tbody tr')].map(one => one.offsetHeight)"
    assert max(tab.evaluate(heights)) < 80


def test_forty_large_images_stay_below_the_limit(tab: Page, tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", images=40, size=(1200, 800))
    run = make_run(tmp_path / "run", data, "instance", kinds=("segm",))
    result = d2tune.write_report(run, images=40)
    assert result.problems == () and result.size_bytes < LIMIT_BYTES == 10_000_000
    moved = tmp_path / "elsewhere" / "page.html"
    moved.parent.mkdir()
    result.path.rename(moved)
    tab.look(width_px=1280)
    tab.open(moved)
    assert tab.evaluate("document.querySelectorAll('.slider img').length") == 40
    assert tab.evaluate("[...document.images].every(one => one.naturalWidth > 0)") and tab.complaints() == []
