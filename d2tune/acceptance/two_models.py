"""The page that compares two models on one image: its models and its latest comparisons."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from d2tune.model_comparison import drawings
from d2tune.model_comparison.compare import Comparison, compare_models
from d2tune.model_comparison.models import ComparedModel

_KEPT = 6
LAYERS = ("a", "b", "agreement")


class NoSuchComparisonError(Exception):
    """A comparison that was not made, or is no longer kept."""


class TwoModels:
    """Models that can be compared; any number of threads may use it, and one comparison is made at a time.

    What was made before is given while another one is made.

    Args:
        models: By name, what loads each; it is called when the model is chosen first.
        max_pixels: Larger images are refused.
    """

    def __init__(self, models: Mapping[str, Callable[[], ComparedModel]], *, max_pixels: int) -> None:
        self._load = dict(models)
        self._loaded: dict[str, ComparedModel] = {}
        self._max_pixels = max_pixels
        self._kept: OrderedDict[str, Comparison] = OrderedDict()
        self._making = threading.Lock()
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models."""
        return tuple(self._load)

    def compare(self, a: str, b: str, image: Path, sha256: str) -> tuple[str, Comparison]:
        """Compare two models on an image.

        Args:
            a: Name of the first model.
            b: Name of the second model.
            image: The image file.
            sha256: Its hash.

        Returns:
            The key by which `kept` has the comparison, and the comparison.

        Raises:
            KeyError: There is no such model.
            D2TuneError: A model cannot be loaded, or the image cannot be read.
        """
        place = {name: at for at, name in enumerate(self._load)}
        key = f"{place[a]}-{place[b]}-{sha256[:16]}"
        with self._making:
            made = self._kept.get(key)
            if made is None:
                first, second = (self._model(name) for name in (a, b))
                made = compare_models(first, second, image, max_pixels=self._max_pixels)
            with self._lock:
                self._kept[key] = made
                self._kept.move_to_end(key)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return key, made

    def kept(self, key: str) -> Comparison:
        """A comparison that was made before.

        Raises:
            NoSuchComparisonError: It is not kept.
        """
        with self._lock:
            if key not in self._kept:
                raise NoSuchComparisonError
            return self._kept[key]

    def _model(self, name: str) -> ComparedModel:
        if name not in self._loaded:
            self._loaded[name] = self._load[name]()
        return self._loaded[name]


def as_shown(key: str, comparison: Comparison) -> dict[str, Any]:
    """A comparison as the page gets it: numbers, tables and colors, without pixels."""
    content = drawings.to_json(comparison)
    more = {"key": key, "colors": drawings.class_colors(comparison), "rows": drawings.side_rows(comparison)}
    return content | more


def layer_png(comparison: Comparison, name: str) -> bytes:
    """One of `LAYERS` as a PNG that lies over the image."""
    if name == "agreement":
        return drawings.png(drawings.agreement_layer(comparison))
    return drawings.png(drawings.layer(comparison, "a" if name == "a" else "b"))
