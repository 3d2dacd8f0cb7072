"""What training leaves for its loggers besides the scalars and images of Detectron2's ``EventStorage``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from d2tune.loggers.base import LoggedFile, LoggedImage


class Logbook:
    """Keeps metrics of the finished run, charts, galleries and files until ``FeedLoggers`` takes them.

    Args:
        takes_galleries: Whether a logger takes galleries; otherwise they need not be made.
    """

    def __init__(self, *, takes_galleries: bool) -> None:
        self.takes_galleries = takes_galleries
        self._scalars: dict[int, dict[str, float]] = defaultdict(dict)
        self._images: dict[int, dict[str, LoggedImage]] = defaultdict(dict)
        self._files: dict[int, list[LoggedFile]] = defaultdict(list)

    def put_scalars(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        """Leave scalars for the loggers that take evaluations; ``iteration`` counts from 0."""
        self._scalars[iteration].update(scalars)

    def put_images(self, images: Mapping[str, LoggedImage], *, iteration: int) -> None:
        """Leave images by name; ``iteration`` counts from 0."""
        self._images[iteration].update(images)

    def put_file(self, file: LoggedFile, *, iteration: int) -> None:
        """Leave a file; ``iteration`` counts from 0."""
        self._files[iteration].append(file)

    def take(
        self,
    ) -> tuple[dict[int, dict[str, float]], dict[int, dict[str, LoggedImage]], dict[int, list[LoggedFile]]]:
        """All scalars, images and files by iteration; the logbook is empty then."""
        taken = self._scalars, self._images, self._files
        self._scalars, self._images, self._files = defaultdict(dict), defaultdict(dict), defaultdict(list)
        return taken
