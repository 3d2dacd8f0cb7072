"""A folder of four images with squares, their ground truth, predictions of two tools, and a server of the page."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from PIL import Image

from d2tune.acceptance.predictions import CocoFile, Predictions
from d2tune.acceptance.routes import data_router, page_router
from d2tune.acceptance.session import Acceptance, AcceptanceSettings
from d2tune.acceptance.two_models import TwoModels

WIDTH, HEIGHT = 400, 300
NAMES = ("a.png", "b.png", "c.png", "deep/d.png")
# left, top, side, class id, score
SQUARES: dict[str, list[tuple[int, int, int, int, float]]] = {
    "a.png": [(50, 40, 60, 1, 0.95), (200, 100, 120, 2, 0.8), (330, 20, 20, 1, 0.3)],
    "b.png": [(10, 10, 100, 1, 0.9)],
    "c.png": [(100, 100, 50, 2, 0.7), (250, 150, 30, 1, 0.6)],
    "deep/d.png": [],
}


def write_world(folder: Path) -> Path:
    """Images in ``images``, predictions in ``tool.json`` and ``other.json``; a.png has a Labelme file."""
    for name in NAMES:
        pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        for left, top, side, class_id, _ in SQUARES[name]:
            pixels[top : top + side, left : left + side] = (230, 230, 60) if class_id == 1 else (60, 120, 240)
        place = folder / "images" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    (folder / "tool.json").write_text(json.dumps(coco(SQUARES)), encoding="utf-8")
    fewer = {name: rows[:1] for name, rows in SQUARES.items()}
    (folder / "other.json").write_text(json.dumps(coco(fewer)), encoding="utf-8")
    left, top, side = SQUARES["a.png"][0][:3]
    shape = {"label": "cat", "points": [[left, top], [left + side, top + side]], "shape_type": "rectangle"}
    labelme: dict[str, Any] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [shape],
        "imagePath": "a.png",
        "imageData": None,
    }
    content = labelme | {"imageWidth": WIDTH, "imageHeight": HEIGHT}
    (folder / "images" / "a.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def coco(squares: dict[str, list[tuple[int, int, int, int, float]]]) -> dict[str, Any]:
    """Predictions as a COCO file with scores."""
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for image_id, (name, objects) in enumerate(squares.items(), start=1):
        images.append({"id": image_id, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for left, top, side, class_id, score in objects:
            ring = [left, top, left + side, top, left + side, top + side, left, top + side]
            ids = {"id": len(rows) + 1, "image_id": image_id, "category_id": class_id}
            box = {"bbox": [left, top, side, side], "area": side * side, "iscrowd": 0}
            rows.append(ids | box | {"segmentation": [ring], "score": score})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "categories": categories, "annotations": rows}


def opened(folder: Path, *, models: Sequence[Predictions] | None = None, **settings: Any) -> Acceptance:
    """The page's data for a world."""
    given = {"database": folder / "judgments.sqlite", "images": folder / "images"} | settings
    if models is None:
        names = ("tool", "other") if given.get("is_blind") else ("tool",)
        models = [CocoFile(folder / f"{name}.json", images=folder / "images") for name in names]
    return Acceptance(AcceptanceSettings(**given), models)


@dataclass(frozen=True)
class Served:
    """A server of the page."""

    acceptance: Acceptance
    address: str
    client: httpx.Client

    def image_id(self, name: str) -> int:
        """The number of an image."""
        return next(one.id for one in self.acceptance.images.all() if one.name == name)

    def judge(self, name: str, **judgment: Any) -> httpx.Response:
        """Send a judgment."""
        given = {"judged_by": "Ann", "min_score": 0.5} | judgment
        seen = given.pop("seen", None)
        content = {"seen": seen, "judgment": given}
        return self.client.put(f"/acceptance/images/{self.image_id(name)}/judgment", json=content)


@contextlib.contextmanager
def served(acceptance: Acceptance, *, key: str | None = None, two_models: TwoModels | None = None) -> Iterator[Served]:
    """Serve the page on a free port of this machine, in a thread; with a key, only to those who send it."""

    def check(request: Request) -> None:
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            raise HTTPException(401, "a key is needed")

    app = FastAPI()
    app.include_router(page_router())
    app.include_router(data_router(acceptance, two_models=two_models), dependencies=[Depends(check)])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        stop = time.monotonic() + 30
        while not server.started and time.monotonic() < stop:
            time.sleep(0.01)
        address = f"http://127.0.0.1:{port}"
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        try:
            with httpx.Client(base_url=address, timeout=30, headers=headers) as client:
                yield Served(acceptance, address, client)
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            acceptance.close()
