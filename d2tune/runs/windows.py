"""Predicting in windows: of which size, for which models, and a warning where images need them."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from d2tune.data.image_reader import image_reader
from d2tune.errors import ProjectError
from d2tune.inference.images import size_of
from d2tune.inference.windows import DEFAULT_OVERLAP, Windows
from d2tune.modeling.config import takes_windows
from d2tune.modeling.loaded import LoadedModel, ModelDescription
from d2tune.tasks import task_of
from d2tune.text import a_or_an

logger = logging.getLogger(__name__)

LARGE = 3
"""An image is much larger than those of training if its short side is longer than theirs by this factor."""
_LOOKED_AT = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowChoice:
    """How a person asks for windows.

    Attributes:
        window_px: Height and width of a window in pixels of the image, or ``auto``; None predicts on whole images, or
            in windows of the size that the config of the model sets.
        overlap: Share of a window that the next window covers as well; None is 0.2.
        object_px: Size of the largest objects that are to be whole in a window; None is not known.
    """

    window_px: int | Literal["auto"] | None = None
    overlap: float | None = None
    object_px: int | None = None

    def check(self, model: ModelDescription) -> None:
        """Refuse what is not possible, before the model is loaded.

        Raises:
            ProjectError: A number is outside of its range or needs windows, or predictions of the model cannot be
                stitched.
        """
        if self.window_px is None and model.project.train.image_size != "original":
            self._refuse_without_windows()
        if self.window_px is None and not self._is_given:
            return
        task = task_of(model.project)
        if not task.takes_windows:
            raise _not_in_windows(f"predictions of {a_or_an(task.name)} model")
        if self.window_px not in (None, "auto"):
            self._windows(int(self.window_px))

    def applied(self, loaded: LoadedModel) -> LoadedModel:
        """The model with a config that sets the windows; the same model without windows.

        Raises:
            ProjectError: See `check`.
        """
        self.check(loaded)
        window_px = self.window_px
        if window_px is None:
            if not self._is_given:
                return loaded
            window_px = loaded.cfg.TEST.WINDOW_PX
            if not window_px:
                self._refuse_without_windows()
        if not takes_windows(loaded.cfg):
            raise _not_in_windows("objects of Panoptic-DeepLab, which are grouped around their centers,")
        windows = self._windows(automatic_px(loaded) if window_px == "auto" else window_px)
        cfg = loaded.cfg.clone()
        cfg.defrost()
        cfg.TEST.WINDOW_PX, cfg.TEST.WINDOW_OVERLAP_PX = windows.window_px, windows.overlap_px
        cfg.freeze()
        words = f"{loaded.config_sha256} {windows.window_px} {windows.overlap_px}"
        return dataclasses.replace(loaded, cfg=cfg, config_sha256=hashlib.sha256(words.encode()).hexdigest())

    @property
    def _is_given(self) -> bool:
        """Whether a person asks for anything."""
        return any(value is not None for value in (self.window_px, self.overlap, self.object_px))

    def _refuse_without_windows(self) -> None:
        for place, value in (("--overlap", self.overlap), ("--object-px", self.object_px)):
            if value is not None:
                raise ProjectError(f"{place} goes with --windows or --window-px", hint="Remove it, or add one.")

    def _windows(self, window_px: int) -> Windows:
        overlap = DEFAULT_OVERLAP if self.overlap is None else self.overlap
        return Windows.chosen(window_px, overlap=overlap, object_px=self.object_px or 0)


def _not_in_windows(what: str) -> ProjectError:
    hint = "Remove it; the whole image is resized for the model."
    return ProjectError(f"{what} cannot be stitched from windows", place="--windows", hint=hint)


def automatic_px(loaded: LoadedModel) -> int:
    """The side of windows that are as large as the training images, so that objects have the size they had there.

    It is the side in the config of a model that is made for windows, and for models that did not record the size of
    their images the short side that the network gets.
    """
    cfg = loaded.cfg
    return int(cfg.TEST.WINDOW_PX or loaded.record["input"].get("image_short_side_px") or cfg.INPUT.MIN_SIZE_TEST)


def warn_of_large_images(loaded: LoadedModel, paths: Sequence[Path]) -> None:
    """Warn where images are much larger than those of training, and windows would keep their small objects.

    Args:
        loaded: The model; there is no warning of one that predicts in windows, or cannot, or that did not record the
            size of its training images.
        paths: The images, of which a few over the whole list are looked at.
    """
    usual_px = loaded.record["input"].get("image_short_side_px")
    can_change = task_of(loaded.project).takes_windows and takes_windows(loaded.cfg)
    if usual_px is None or loaded.cfg.TEST.WINDOW_PX or not can_change:
        return
    reader = image_reader(loaded.project, loaded.cfg)
    for path in paths[:: max(1, -(-len(paths) // _LOOKED_AT))]:
        size_hw = size_of(path, reader)
        if size_hw is None or min(size_hw) <= LARGE * usual_px:
            continue
        logger.warning(
            "%s: %d x %d px are reduced to a short side of %d px, and the training images had about %d px; to "
            "detect small objects, predict in windows with --windows or --window-px",
            path,
            *size_hw[::-1],
            loaded.cfg.INPUT.MIN_SIZE_TEST,
            usual_px,
        )
        return
