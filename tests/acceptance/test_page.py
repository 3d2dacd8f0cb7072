"""The page in a real browser without a window: judged from the first image to the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from d2tune.acceptance.predictions import CocoFile
from tests.acceptance.test_routes import png
from tests.acceptance.visitor import Visitor
from tests.acceptance.world import HEIGHT, WIDTH, Served, opened, served
from tests.browser import Page, browser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


def test_from_the_first_image_to_the_report(tab: Page, site: Served, world: Path) -> None:
    visitor = Visitor(tab, site, person=None)
    assert visitor.texts("#images .name") == ["a.png", "b.png", "c.png", "d.png"]
    assert visitor.text("#progress") == "0 of 4 judged"
    assert visitor.texts("#objects button") == ["1. cat 0.95", "2. dog 0.80"]
    # the name is asked for once
    visitor.click("#right")
    visitor.until("document.getElementById('person-dialog').open")
    visitor.click("#person-cancel")
    visitor.until("!document.getElementById('person-dialog').open")
    assert visitor.saved("a.png") is None
    visitor.click("#right")
    visitor.until("document.activeElement.matches('#person-dialog[open] input')")
    tab.call("Input.insertText", text="Ann")
    visitor.until("document.activeElement.value === 'Ann'")
    visitor.key("Enter", code=13)
    visitor.until("document.getElementById('name').innerText === 'b.png'")
    assert visitor.until_saved("a.png")["judged_by"] == "Ann"
    assert visitor.text("#progress") == "1 of 4 judged"
    # back, and wrong: the second object has a bad outline, and a cat was missed
    visitor.key("ArrowLeft", code=37)
    visitor.until_open("a.png")
    visitor.key("w")
    visitor.until_saved("a.png", verdict="wrong")
    visitor.click_image(260, 160)
    assert visitor.text("#editor h3") == "2: dog 0.80"
    visitor.key("3")
    visitor.until("document.querySelector('#editor select')")
    assert visitor.texts("#editor option") == ["not known", "cat"], "not the class that is wrong"
    visitor.key("4")
    visitor.until("!document.querySelector('#editor select')")
    visitor.key("m")
    visitor.click_image(370, 280)
    visitor.until("document.querySelector('#editor select')")
    visitor.enter("#editor select", "cat")
    visitor.enter("#comment", "far right")
    saved = visitor.until_saved("a.png", comment="far right")
    outline, missed = saved["marks"]
    assert (outline["kind"], outline["object"]) == ("bad_outline", 2)
    assert (missed["kind"], missed["class_name"]) == ("missed", "cat")
    assert (missed["x"], missed["y"]) == pytest.approx((370, 280), abs=1.5)
    assert visitor.texts("#objects .kind") == ["bad outline", "missed"]
    # what was typed a moment ago is kept although the page is left
    visitor.enter("#comment", "far right, small")
    visitor.tab.call("Page.navigate", url="about:blank")
    visitor.until_saved("a.png", comment="far right, small")
    # after a reload everything is as it was
    visitor.open()
    assert visitor.text("#name") == "b.png", "the first image that is to be judged"
    assert visitor.text("#images li:first-child .state") == "✕\nwrong, 2 marks"
    visitor.click("#images li:first-child button")
    visitor.until("document.getElementById('comment').value === 'far right, small'")
    assert visitor.run("document.getElementById('wrong').getAttribute('aria-pressed')") == "true"
    assert visitor.texts("#objects .kind") == ["bad outline", "missed"]
    # all others are right; the results sign off
    for _ in range(3):
        visitor.run("document.activeElement.blur()")
        visitor.open()
        visitor.key("a")
        visitor.until("document.querySelectorAll('#images .sign.right').length > 0")
        visitor.tab.evaluate("new Promise(done => setTimeout(done, 100))")
    visitor.until("document.getElementById('progress').innerText === '4 of 4 judged'")
    visitor.key("r")
    visitor.until("document.getElementById('sign-off')")
    assert visitor.texts("#results .tile b") == ["75 %", "80 %", "1"]
    visitor.click("#sign-off")
    visitor.until("document.getElementById('results').innerText.includes('Accepted by Ann.')")
    report = site.client.get("/acceptance/report.html").text
    assert "Signed off by Ann" in report and "3 of 4 judged images are right" in report
    assert visitor.complaints() == []
    # and the report is a page without complaints at any width, in both color schemes
    for width_px, dark in ((1280, False), (400, True)):
        tab.look(width_px=width_px, dark=dark)
        tab.events.clear()
        tab.call("Page.navigate", url=f"{site.address}/acceptance/report.html")
        tab.wait_for("Page.loadEventFired")
        assert tab.complaints() == []
        assert tab.evaluate("document.documentElement.scrollWidth") == width_px
        assert tab.evaluate("getComputedStyle(document.querySelector('.tile')).borderRadius") == "12px"
        assert low_contrast(tab) == []


def test_the_canvas(tab: Page, site: Served) -> None:
    visitor = Visitor(tab, site)
    ground = [90, 90, 90]
    assert visitor.color(160, 20) == pytest.approx(ground, abs=8)
    cat = visitor.color(80, 70)
    assert cat != pytest.approx([230, 230, 60], abs=15), "the mask is over the cat"
    # a switch for each class
    visitor.click("[data-class=cat]")
    assert visitor.color(80, 70) == pytest.approx([230, 230, 60], abs=15)
    assert visitor.color(260, 160) != pytest.approx([60, 120, 240], abs=8), "the dog is still there"
    visitor.click("[data-class=cat]")
    # the score slider
    assert visitor.color(340, 30) == pytest.approx([230, 230, 60], abs=15), "its score is below 0.5"
    visitor.enter("#score", "0.2")
    assert visitor.color(340, 30) != pytest.approx([230, 230, 60], abs=15)
    assert len(visitor.texts("#objects button")) == 3
    # hover names the object, and lights it up
    visitor.mouse("mouseMoved", 80, 70)
    assert visitor.text("#tip") == "1: cat 0.95"
    lit = visitor.color(80, 70)
    visitor.mouse("mouseMoved", 160, 20)
    assert visitor.run("document.getElementById('tip').hidden") and visitor.color(80, 70) != lit
    # all masks off
    visitor.key("h")
    assert visitor.color(260, 160) == pytest.approx([60, 120, 240], abs=8)
    visitor.key("h")
    # zoom keeps the place under the pointer
    assert visitor.color(195, 160) == pytest.approx(ground, abs=8)
    visitor.mouse("mouseWheel", 260, 160, deltaX=0, deltaY=-500)
    assert visitor.color(260, 160) != pytest.approx(ground, abs=20)
    assert visitor.color(195, 160) != pytest.approx(ground, abs=20), "beyond the dog before, now in it"
    visitor.key("0")
    assert visitor.color(160, 20) == pytest.approx(ground, abs=8)
    # the ground truth beside it has one cat and no dog
    visitor.key("g")
    visitor.until("document.querySelectorAll('.pane').length === 2")
    assert visitor.texts(".pane-title") == ["Prediction", "Ground truth"]
    assert visitor.color(260, 160, pane=1) == pytest.approx([60, 120, 240], abs=8)
    assert visitor.color(80, 70, pane=1) != pytest.approx([230, 230, 60], abs=15)
    assert visitor.complaints() == []


def test_images_are_dropped_in(tab: Page, world: Path) -> None:
    with served(opened(world, images=None, title="Only added")) as site:
        visitor = Visitor(tab, site)
        assert "No images yet" in visitor.text("#empty")
        visitor.drop({"one.png": png(1, (60, 80)), "two.png": png(2), "notes.txt": b"no image"})
        visitor.until("document.querySelectorAll('#images li').length === 2")
        visitor.until("!document.getElementById('banner').hidden")
        assert "1 of 3 not added. notes.txt: is not added" in visitor.text("#banner")
        visitor.until_open("one.png")
        visitor.key("a")
        visitor.until_saved("added/one.png", verdict="right")
        (complaint,) = visitor.tab.complaints()
        assert "422" in complaint, "the browser notes the file that was refused, and nothing else"


def test_a_folder_is_dropped_in(tab: Page, world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "from_the_camera"
    for name in ("b.png", "a.png", "deep/c.png", "deep/.trash/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(len(list(folder.rglob("*.png"))) + 1))
    (folder / "notes.txt").write_text("not an image", encoding="utf-8")
    with served(opened(world, images=None)) as site:
        visitor = Visitor(tab, site)
        data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "dragOver", "drop"):
            tab.call("Input.dispatchDragEvent", type=kind, x=600, y=400, data=data)
            visitor.run("new Promise(requestAnimationFrame)")
        visitor.until("document.querySelectorAll('#images li').length === 3")
        visitor.until_open("a.png")
        assert visitor.texts("#images .name") == ["a.png", "b.png", "c.png"]
        assert visitor.run("document.getElementById('banner').hidden") and visitor.complaints() == []


def test_the_selected_object_is_distinguished_from_its_neighbors(tab: Page, site: Served) -> None:
    visitor = Visitor(tab, site)
    dog, ground = visitor.color(260, 160), [60, 120, 240]
    visitor.key("n")
    # the cat has a white line around it, and the dog is nearly as in the image
    edge = [visitor.color(x / 4, 70) for x in range(190, 211)]
    assert max(min(color) for color in edge) > 200
    distance = [sum(abs(a - b) for a, b in zip(color, ground, strict=True)) for color in (visitor.color(260, 160), dog)]
    assert distance[0] < distance[1] / 2


def test_messages_while_a_dialog_is_open_are_in_the_dialog(tab: Page, site: Served) -> None:
    site.judge("a.png", verdict="right")
    visitor = Visitor(tab, site)
    visitor.key("r")
    visitor.until("document.getElementById('sign-off')")
    visitor.enter("#decision", "accepted_with_conditions")
    visitor.enter("#role", "Head of cats")
    visitor.run("document.getElementById('role').focus()")
    visitor.key("Enter", code=13)
    assert visitor.run("document.getElementById('results-dialog').open"), "Enter in a field does not throw it away"
    visitor.click("#sign-off")
    visitor.until("document.querySelector('#results-dialog [role=status]').innerText === 'Signed off'")
    # the form goes on with the decision that was made, and the focus is where it was
    assert visitor.run("document.activeElement.id") == "sign-off"
    values = visitor.run("['decision', 'signed-by', 'role'].map(id => document.getElementById(id).value)")
    assert values == ["accepted_with_conditions", "Ann", "Head of cats"]


def test_the_report_on_paper_and_on_a_phone(tab: Page, world: Path) -> None:
    """Nothing is cut off on A4 (178 mm between the margins), and no column is as narrow as a letter."""
    with served(opened(world)) as site:
        site.judge("a.png", verdict="wrong", marks=[{"kind": "bad_outline", "object": 1}])
        site.judge("c.png", verdict="wrong", marks=[{"kind": "missed", "x": 5, "y": 5, "class_name": "cat"}])
        Visitor(tab, site)
        for width_px, medium in ((673, "print"), (390, "screen")):
            tab.look(width_px=width_px)
            tab.call("Emulation.setEmulatedMedia", media=medium)
            tab.events.clear()
            tab.call("Page.navigate", url=f"{site.address}/acceptance/report.html")
            tab.wait_for("Page.loadEventFired")
            assert tab.evaluate("document.querySelectorAll('th').length") == 15, "8 by class and 7 by size"
            lines = "[...document.querySelectorAll('th')].map(one => one.offsetHeight)"
            assert max(tab.evaluate(lines)) < 60, "two lines at most"
            if medium == "print":
                widths = "[...document.querySelectorAll('.scroll')].map(one => one.scrollWidth - one.offsetWidth)"
                assert max(tab.evaluate(widths)) == 0
                columns = "getComputedStyle(document.querySelector('.worst')).gridTemplateColumns.split(' ').length"
                assert tab.evaluate(columns) == 2
        tab.call("Emulation.setEmulatedMedia", media="")


def test_nothing_is_lost_while_the_server_is_away(tab: Page, world: Path) -> None:
    with served(opened(world)) as site:
        visitor = Visitor(tab, site)
        network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        tab.call("Network.emulateNetworkConditions", offline=True, **network)
        visitor.key("w")
        visitor.until("!document.getElementById('banner').hidden")
        assert "nothing is lost" in visitor.text("#banner")
        assert visitor.saved("a.png") is None
        tab.call("Network.emulateNetworkConditions", offline=False, **network)
        visitor.open()  # a reload sends what is kept in the browser
        visitor.until_saved("a.png", verdict="wrong")


def test_another_person_was_faster(tab: Page, site: Served) -> None:
    visitor = Visitor(tab, site)
    site.judge("a.png", verdict="right", judged_by="Ben", comment="fine")
    visitor.key("w")
    visitor.until("document.getElementById('comment').value === 'fine'")
    assert visitor.run("document.getElementById('right').getAttribute('aria-pressed')") == "true"
    saved = visitor.saved("a.png")
    assert saved is not None and saved["judged_by"] == "Ben"
    visitor.key("w")
    assert visitor.until_saved("a.png", verdict="wrong")["judged_by"] == "Ann"


def test_names_and_comments_are_text(tab: Page, world: Path) -> None:
    evil = '<img src=x onerror="document.title=1">.png'
    (world / "images" / "b.png").rename(world / "images" / evil)
    with served(opened(world, title="<b>T</b>")) as site:
        site.judge(evil, verdict="wrong", comment="<script>document.title=2</script>", judged_by="<i>Eve</i>")
        visitor = Visitor(tab, site)
        visitor.open(f"/#image={site.image_id(evil)}")
        visitor.until("document.getElementById('comment').value.startsWith('<script>')")
        assert visitor.text("#title") == "<b>T</b>" and visitor.text("#name") == evil
        assert visitor.text("#judged-by").startswith("Judged by <i>Eve</i>")
        assert visitor.run("document.title") == "<b>T</b>"
        assert visitor.run("document.querySelectorAll('main img[src=x], i i').length") == 0


def test_several_models_and_a_filter(tab: Page, world: Path) -> None:
    models = [CocoFile(world / "tool.json"), CocoFile(world / "other.json")]
    with served(opened(world, models=models)) as site:
        site.judge("b.png", verdict="wrong")
        visitor = Visitor(tab, site)
        assert visitor.text("#progress") == "1 of 4 judged"
        visitor.enter("#filter", "wrong")
        shown = "[...document.querySelectorAll('#images li')].filter(one => !one.hidden).map(one => one.innerText)"
        assert [text.split("\n")[0] for text in visitor.run(shown)] == ["a.png", "b.png"], (
            "the open one and the wrong one"
        )
        visitor.run("document.body.dataset.ready = 'false'")
        visitor.enter("#model", "1")
        visitor.until("document.body && document.body.dataset.ready === 'true'")
        assert visitor.text("#progress") == "0 of 4 judged"
        visitor.until("document.querySelectorAll('#objects button').length === 1")


def test_a_key_is_asked_for_once(tab: Page, world: Path) -> None:
    with served(opened(world), key="secret") as site:
        visitor = Visitor(tab, site, person=None, key="secret")
        visitor.run("localStorage.setItem('d2tune.person', '\"Ann\"')")
        visitor.open()
        visitor.until("document.querySelector('#images img').naturalWidth === 240")
        visitor.key("a")
        visitor.until_saved("a.png", verdict="right")


def test_a_blind_comparison(tab: Page, world: Path) -> None:
    with served(opened(world, is_blind=True)) as site:
        visitor = Visitor(tab, site)
        assert visitor.texts(".pane-title") == ["A", "B"]
        assert "tool" not in visitor.run("document.body.innerText")
        for done, key in enumerate("1323", start=1):
            visitor.key(key)
            visitor.until(f"document.getElementById('progress').innerText === '{done} of 4 compared'")
            visitor.tab.evaluate("new Promise(done => setTimeout(done, 150))")
        visitor.open()
        assert visitor.text("#progress") == "4 of 4 compared"
        visitor.key("r")
        visitor.until("document.getElementById('reveal')")
        assert "tool" not in visitor.run("document.body.innerText")
        visitor.click("#reveal")
        visitor.until("document.getElementById('comparison-words')")
        assert visitor.text("#comparison-words").startswith("No real preference")
        assert "tool" in visitor.text("#results")
        assert visitor.complaints() == []
        # nothing is taken any more, and the page says so, also after a reload
        closed = "[...document.querySelectorAll('#verdict button, #comment')].every(one => one.disabled)"
        for _ in range(2):
            visitor.until(closed)
            visitor.until("document.getElementById('judged-by').innerText.includes('The comparison is closed')")
            visitor.open()


def test_a_comparison_that_another_person_ends(tab: Page, world: Path) -> None:
    with served(opened(world, is_blind=True)) as site:
        visitor = Visitor(tab, site)
        visitor.key("1")
        visitor.until("document.getElementById('progress').innerText === '1 of 4 compared'")
        visitor.until_open("b.png")
        visitor.until("document.getElementById('status').innerText.startsWith('Saved')")
        assert site.client.post("/acceptance/reveal", json={}).status_code == 204
        visitor.key("3")
        # it was not taken, and the page does not count it
        visitor.until("[...document.querySelectorAll('#verdict button')].every(one => one.disabled)")
        visitor.until("document.getElementById('progress').innerText === '1 of 4 compared'")
        assert site.client.get("/acceptance/comparison").json()["compared"] == 1


# what a client needs who has a phone, a screen reader or only a keyboard

_CONTRAST = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] > 0.79) return color;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const box = element.getBoundingClientRect();
    if (!own || !box.width || element.closest("[hidden], svg, .toast, option, noscript, [disabled]")) continue;
    const style = getComputedStyle(element);
    if (style.visibility === "hidden") continue;
    const [a, b] = [light(parse(style.color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.push(`${element.tagName} ${element.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return bad;
})()
"""


def low_contrast(tab: Page) -> list[str]:
    """Texts whose contrast is below 4.5 (Web Content Accessibility Guidelines 2.2, 1.4.3)."""
    return list(tab.evaluate(_CONTRAST))


def test_contrast_in_both_color_schemes(tab: Page, site: Served) -> None:
    site.judge("b.png", verdict="right")
    site.judge("c.png", verdict="wrong", marks=[{"kind": "false_alarm", "object": 1}])
    visitor = Visitor(tab, site)
    visitor.run("localStorage.setItem('d2tune.truth', '\"beside\"')")
    for dark in (False, True):
        for width_px in (1280, 390):
            tab.look(width_px=width_px, dark=dark)
            visitor.open(f"/#image={site.image_id('c.png')}")
            visitor.click("#objects button")
            assert low_contrast(tab) == []
            visitor.click("#open-results")
            visitor.until("document.getElementById('sign-off')")
            assert low_contrast(tab) == []
            visitor.run("document.getElementById('results-dialog').close()")
    assert len(tab.evaluate(_CONTRAST.replace("ratio < 4.5", "ratio < 99"))) > 30, "nothing was measured"


def test_every_control_has_a_name_and_the_tab_key_goes_through_them_in_order(tab: Page, site: Served) -> None:
    visitor = Visitor(tab, site)
    tab.call("Accessibility.enable")
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "checkbox", "switch", "slider", "combobox", "textbox", "image", "progressbar"}
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in roles
    ]
    assert [role for role, name in named if not name.strip()] == []
    assert ("image", "a.png: 1 cat, 1 dog") in named and ("switch", "cat 1") in named
    assert ("progressbar", "Judged images") in named and ("slider", "Lowest score") in named
    landmarks = [node["role"]["value"] for node in nodes if not node.get("ignored") and "role" in node]
    assert {"banner", "main", "navigation", "complementary", "status"} <= set(landmarks)
    assert landmarks.count("heading") >= 4
    order = []
    visitor.run("document.activeElement.blur()")
    for _ in range(40):
        visitor.key("Tab", code=9)
        order.append(visitor.run("document.activeElement.id || document.activeElement.tagName"))
    wanted = ["person", "open-results", "filter", "files", "next", "right", "wrong", "add-missed", "score", "comment"]
    places = [order.index(name) for name in wanted]
    assert places == sorted(places), order
    assert visitor.run("[...document.querySelectorAll('[tabindex]')].every(one => one.tabIndex <= 0)")


def test_a_missed_object_without_a_mouse(tab: Page, site: Served) -> None:
    visitor = Visitor(tab, site)
    visitor.key("m")
    assert visitor.run("document.activeElement.tagName") == "CANVAS"
    visitor.key("Enter", code=13)
    (mark,) = visitor.until_saved("a.png", verdict="wrong")["marks"]
    assert visitor.run("document.activeElement.dataset.field") == "class", "the next thing to say"
    assert (mark["kind"], mark["x"], mark["y"]) == ("missed", WIDTH / 2, HEIGHT / 2)
    # single letters as keys can be turned off (Web Content Accessibility Guidelines 2.2, 2.1.4)
    visitor.run("document.activeElement.blur()")
    visitor.click("#use-keys")
    visitor.key("a")
    visitor.tab.evaluate("new Promise(done => setTimeout(done, 300))")
    saved = visitor.saved("a.png")
    assert saved is not None and saved["verdict"] == "wrong"


def test_on_a_phone(tab: Page, site: Served) -> None:
    visitor = Visitor(tab, site)
    tab.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
    tab.call("Emulation.setTouchEmulationEnabled", enabled=True)
    visitor.open()
    assert visitor.run("document.documentElement.scrollWidth") == 390
    assert visitor.run("getComputedStyle(document.querySelector('.camera')).display") != "none"
    assert visitor.run("document.getElementById('camera').getAttribute('capture')") == "environment"
    small = visitor.run(
        "[...document.querySelectorAll('button, select, label.file, .check')]"
        ".filter(one => one.offsetParent && !one.closest('dialog, #objects'))"
        ".filter(one => one.getBoundingClientRect().height < 43.5).map(one => one.id || one.className)"
    )
    assert small == []
    box = visitor.run("(box => [box.top, box.bottom])(document.querySelector('.verdict').getBoundingClientRect())")
    assert box[1] <= 844.5 and box[0] > 700, "the verdict is at the thumb"
    left, top = visitor.at(80, 70)
    for kind, points in (("touchStart", [{"x": left, "y": top}]), ("touchEnd", [])):
        tab.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    visitor.until("!document.getElementById('editor').hidden")
    assert visitor.text("#editor h3") == "1: cat 0.95"
    assert visitor.run("document.querySelector('[data-field=close]').offsetHeight") == 44
    visitor.click("[data-field=false_alarm]")
    visitor.until_saved("a.png", verdict="wrong")
    # two fingers zoom: the ground beside the cat becomes cat
    visitor.click("[data-field=close]")
    visitor.click("#masks")
    assert visitor.color(115, 70) == pytest.approx([90, 90, 90], abs=8)
    for kind, apart in (("touchStart", 10), ("touchMove", 20), ("touchMove", 40), ("touchEnd", 0)):
        points = [{"x": left - apart, "y": top, "id": 1}, {"x": left + apart, "y": top, "id": 2}] if apart else []
        tab.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    assert visitor.color(115, 70) == pytest.approx([230, 230, 60], abs=15)
    tab.call("Emulation.setTouchEmulationEnabled", enabled=False)
    assert visitor.complaints() == []
