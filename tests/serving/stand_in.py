"""A stand-in for a network, whose predictions are known: the box around the bright pixels of an image.

As a program it serves itself: ``python -m tests.serving.stand_in --port 0``.
"""

from __future__ import annotations

import argparse
import io
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from d2tune.data.image_reader import image_reader
from d2tune.inference.loop import Sample
from d2tune.inference.predictors.instance import InstancePredictor, RawDetections
from d2tune.modeling.config import DataFacts, project_config
from d2tune.modeling.loaded import ModelDescription
from d2tune.project import Project
from d2tune.serving.models import Ready, ServedModel

SIDE_PX = 64
CLASSES = ("lamp",)
BRIGHT = 128


class BrightBox:
    """Detects the box around all bright pixels of an image, ``copies`` times with falling scores.

    Args:
        pass_s: Seconds of a forward pass.
        copies: Number of equal detections.
        before: Called before each pass with its samples.
    """

    size_divisibility = 1

    def __init__(
        self,
        *,
        pass_s: float = 0.0,
        copies: int = 1,
        before: Callable[[Sequence[Sample]], object] = lambda samples: None,
    ) -> None:
        self.pass_s = pass_s
        self.copies = copies
        self.before = before
        self.batches: list[int] = []

    def raw_detections(self, batch: Sequence[Sample], min_scores: Sequence[float] | None) -> list[RawDetections]:
        self.batches.append(len(batch))
        self.before(batch)
        time.sleep(self.pass_s)
        return [self._detected(sample) for sample in batch]

    def _detected(self, sample: Sample) -> RawDetections:
        image = np.asarray(sample["image"])
        rows, columns = np.nonzero(image.max(axis=0) > BRIGHT)
        scale = sample["width"] / image.shape[2]
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        count = self.copies if len(rows) else 0
        return RawDetections(
            np.tile(np.array(box, np.float32) * np.float32(scale), (count, 1)),
            np.array([0.9 - 0.001 * number for number in range(count)], np.float32),
            np.zeros(count, np.int64),
            np.ones((count, 64, 64), np.float32),
            is_pasted=False,
        )


def served(network: BrightBox, *, name: str = "lamps", load: Callable[[], object] = lambda: None) -> ServedModel:
    """The stand-in as a served model; ``load`` is called before it is ready."""
    plain = {
        "name": name,
        "task": "instance",
        "data": {"root": "data"},
        "classes": list(CLASSES),
        "model": {"preset": "pointrend_mobilenet_v2_fpn"},
    }
    project = Project.model_validate(plain)
    facts = DataFacts(class_names=CLASSES, train_images=1, has_rle=True, train_name="t", val_name="v")
    cfg = project_config(project, facts, scratch=True, device="cpu").clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = SIDE_PX, 10 * SIDE_PX
    record = {"project": name, "classes": list(CLASSES), "input": {"stacked": False}}

    def make() -> Ready:
        load()
        predictor = InstancePredictor(
            network, cfg, class_names=CLASSES, reader=image_reader(project, cfg), min_scores=[0.5]
        )
        classes = [{"id": 1, "name": CLASSES[0], "is_thing": True}]
        details: dict[str, Any] = dict.fromkeys(("metrics", "card", "trained"))
        details |= {"task": "instance", "classes": classes, "thresholds": {CLASSES[0]: 0.5}, "input": {}}
        details |= {"project": name, "preset": "none", "weights_sha256": "5" * 64}
        details["data_sha256"] = {"train": "6" * 64, "val": "7" * 64}
        return Ready(predictor, details)

    return ServedModel(
        name=name, description=ModelDescription(source=Path(name), project=project, record=record), load=make
    )


def lamp(
    box_xyxy: tuple[int, int, int, int] = (10, 20, 40, 50), *, size_px: tuple[int, int] = (SIDE_PX, SIDE_PX)
) -> NDArray[np.uint8]:
    """A black image ``(H, W, 3)`` with a white box."""
    pixels = np.zeros((size_px[1], size_px[0], 3), np.uint8)
    left, top, right, bottom = box_xyxy
    pixels[top:bottom, left:right] = 255
    return pixels


def encoded(pixels: NDArray[Any], format_name: str = "PNG", **options: Any) -> bytes:
    """An image file of pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format_name, **options)
    return stream.getvalue()


class Gate:
    """Holds forward passes until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def __call__(self, samples: Sequence[Sample]) -> None:
        if not np.asarray(samples[0]["image"]).any():
            return  # the black image that a model predicts on before it is ready
        self.entered.set()
        assert self._open.wait(30)

    def open(self) -> None:
        self._open.set()


def main() -> None:
    """Serve the stand-in."""
    from d2tune.serving.app import create_app
    from d2tune.serving.server import address_of, bind, run
    from d2tune.serving.service import Service
    from d2tune.serving.settings import ServingSettings

    parser = argparse.ArgumentParser()
    parser.add_argument("--pass-s", type=float, default=0.0)
    parser.add_argument("--queue", type=int, default=64)
    options = parser.parse_args()
    model = served(BrightBox(pass_s=options.pass_s))
    service = Service({model.name: model}, ServingSettings(queue=options.queue))
    with bind("127.0.0.1", 0) as listener:
        run(service, create_app(service), listener, on_ready=lambda: print(address_of(listener), flush=True))


if __name__ == "__main__":
    main()
