"""A person at the page, in a real browser."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.acceptance.world import HEIGHT, WIDTH, Served
from tests.browser import NavigatedError, Page


class Visitor:
    """A person at the page."""

    def __init__(self, tab: Page, site: Served, *, person: str | None = "Ann", key: str | None = None) -> None:
        self.key_of_api = key
        self.tab = tab
        self.site = site
        tab.call("Emulation.setTouchEmulationEnabled", enabled=False)
        tab.look(width_px=1280)
        tab.call("Storage.clearDataForOrigin", origin=site.address, storageTypes="all")
        if person is None:
            self.open()
            return
        name = f"localStorage.setItem('d2tune.person', JSON.stringify({json.dumps(person)}))"
        script = tab.call("Page.addScriptToEvaluateOnNewDocument", source=f"if (origin !== 'null') {name}")
        self.open()
        tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])

    def open(self, place: str = "/") -> None:
        self.tab.events.clear()
        self.tab.call("Page.navigate", url="about:blank")
        self.tab.call("Page.navigate", url=self.site.address + place)
        if self.key_of_api is not None:
            self.until("document.getElementById('key-dialog')?.open")
            self.enter("#key", self.key_of_api)
            self.click("#key-dialog button")
            self.key_of_api = None
        self.until("document.body && document.body.dataset.ready === 'true'")
        self.until("document.getElementById('stage').getAttribute('aria-busy') !== 'true'")

    def until_open(self, name: str) -> None:
        """Wait until an image can be judged."""
        self.until(f"document.getElementById('name').innerText === {json.dumps(name)}")
        self.until("document.getElementById('stage').getAttribute('aria-busy') !== 'true'")

    def run(self, expression: str) -> Any:
        return self.tab.evaluate(expression)

    def until(self, expression: str) -> None:
        stop = time.monotonic() + 30
        while not self.holds(expression):
            assert time.monotonic() < stop, f"never so: {expression}; {self.text('#banner')}; {self.tab.complaints()}"
            time.sleep(0.03)

    def holds(self, expression: str) -> bool:
        """Whether an expression is true; not while the page loads itself again, when it has no answer."""
        try:
            return bool(self.run(f"Boolean({expression})"))
        except NavigatedError:
            return False

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def texts(self, selector: str) -> list[str]:
        return list(self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.innerText)"))

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def enter(self, selector: str, value: str) -> None:
        """Give a control another value, as a person does."""
        self.run(
            f"(control => {{ control.value = {json.dumps(value)}; for (const kind of ['input', 'change'])"
            f" control.dispatchEvent(new Event(kind)) }})(document.querySelector({json.dumps(selector)}))"
        )

    def key(self, key: str, *, code: int | None = None) -> None:
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        number = {"windowsVirtualKeyCode": code} if code else {}
        self.tab.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **number)
        self.tab.call("Input.dispatchKeyEvent", type="keyUp", key=key, **number)

    def at(self, x: float, y: float, *, pane: int = 0) -> tuple[float, float]:
        """The place on the screen of a place of the whole image, which the canvas shows centered at 98 %."""
        box = self.run(
            f"(box => [box.x, box.y, box.width, box.height])"
            f"(document.querySelectorAll('.pane')[{pane}].getBoundingClientRect())"
        )
        scale = 0.98 * min(box[2] / WIDTH, box[3] / HEIGHT)
        return box[0] + box[2] / 2 + (x - WIDTH / 2) * scale, box[1] + box[3] / 2 + (y - HEIGHT / 2) * scale

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        left, top = self.at(x, y)
        self.tab.call("Input.dispatchMouseEvent", type=kind, x=left, y=top, **more)

    def click_image(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def color(self, x: float, y: float, *, pane: int = 0) -> list[int]:
        """The color that the canvas has at a place of the whole image."""
        left, top = self.at(x, y, pane=pane)
        return list(
            self.run(
                f"(canvas => {{ const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;"
                f" return [...canvas.getContext('2d').getImageData("
                f"ratio * ({left} - box.x), ratio * ({top} - box.y), 1, 1).data].slice(0, 3) }})"
                f"(document.querySelectorAll('.pane canvas')[{pane}])"
            )
        )

    def drop(self, files: dict[str, bytes]) -> None:
        """Drop files onto the page."""
        content = {name: list(data) for name, data in files.items()}
        self.run(
            "(files => { const data = new DataTransfer();"
            " for (const [name, bytes] of Object.entries(files))"
            " data.items.add(new File([new Uint8Array(bytes)], name,"
            " name.endsWith('png') ? { type: 'image/png' } : {}));"
            " for (const kind of ['dragover', 'drop'])"
            " document.body.dispatchEvent(new DragEvent(kind,"
            " { dataTransfer: data, bubbles: true, cancelable: true })) })"
            f"({json.dumps(content)})"
        )

    def complaints(self) -> list[str]:
        """What the browser has to say of the page, but not that this test reads the canvas often."""
        return [text for text in self.tab.complaints() if "getImageData" not in text]

    def saved(self, name: str) -> dict[str, Any] | None:
        """The judgment of an image as the server has it, after all that the page has sent."""
        answer = self.site.client.get(f"/acceptance/images/{self.site.image_id(name)}/objects").json()["saved"]
        return None if answer is None else dict(answer["judgment"])

    def until_saved(self, name: str, **wanted: Any) -> dict[str, Any]:
        stop = time.monotonic() + 20
        while True:
            saved = self.saved(name)
            if saved is not None and all(saved[key] == value for key, value in wanted.items()):
                return saved
            assert time.monotonic() < stop, f"{name}: {saved}"
            time.sleep(0.03)
