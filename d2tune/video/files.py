"""The files of a predicted video: COCO-style JSON of all frames, and CSV tables, written while frames come."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from d2tune.annotations.io.output_record import DRAWING, PREDICTIONS
from d2tune.annotations.io.outputs import refuse_existing
from d2tune.inference.writers.base import JsonRows
from d2tune.inference.writers.tables import CsvRows
from d2tune.video.annotators import Annotated, SeenObject
from d2tune.video.encoder import CODECS
from d2tune.video.tracks import TrackTable

FRAMES, TRACKS, OBJECTS, CLASSES = "frames.json", "tracks.csv", "frames.csv", "classes.csv"
VIDEO_STEM = "predicted"

_OBJECT_COLUMNS = (
    "frame", "time_s", "track_id", "class", "score", "area_px2", "x_px", "y_px", "left_px", "top_px",
    "box_width_px", "box_height_px",
)  # fmt: skip


def video_path(out: Path, suffix: str) -> Path:
    """The path of the drawn video in an output folder."""
    return out / f"{VIDEO_STEM}.{suffix}"


def check_outputs(out: Path) -> None:
    """Refuse to replace files that an earlier prediction did not write, or that were changed since.

    Raises:
        DataError: There is such a file.
    """
    refuse_existing([out / name for name in (FRAMES, TRACKS, OBJECTS, CLASSES)], force=True, kind=PREDICTIONS)
    refuse_existing([video_path(out, suffix) for suffix in CODECS], force=True, kind=DRAWING)


def remove_earlier(out: Path, written: Sequence[Path]) -> None:
    """Remove files of an earlier prediction into the folder that this one did not write, such as of another task."""
    names = [out / name for name in (FRAMES, TRACKS, OBJECTS, CLASSES)]
    for path in [*names, *(video_path(out, suffix) for suffix in CODECS)]:
        if path not in written:
            path.unlink(missing_ok=True)


class FrameFiles:
    """Writes `FRAMES`, and of objects `TRACKS` and `OBJECTS`, of classes `CLASSES`; to be used as a context manager.

    Args:
        out: The output folder.
        class_names: All classes in the order of their ids.
        tracks: The table of tracks.
        has_objects: Whether results have objects.
        has_classes: Whether results have the class of each pixel.
        mm_per_px: Millimeters that a pixel stands for; None measures in pixels alone.
    """

    def __init__(
        self,
        out: Path,
        class_names: Sequence[str],
        tracks: TrackTable,
        *,
        has_objects: bool,
        has_classes: bool,
        mm_per_px: float | None = None,
    ) -> None:
        self._class_names = class_names
        self._tracks = tracks
        self._mm_per_px = mm_per_px
        self._stack = ExitStack()
        self._objects_written = 0
        categories = [{"id": number, "name": name} for number, name in enumerate(class_names, start=1)]
        lists = {"videos": None, "categories": categories, "images": None, "annotations": None}
        self._json = JsonRows(out / FRAMES, lists, self._stack)
        area = () if mm_per_px is None else ("area_mm2",)
        self._objects = CsvRows(out / OBJECTS, (*_OBJECT_COLUMNS, *area), self._stack) if has_objects else None
        self._table = CsvRows(out / TRACKS, tracks.columns, self._stack) if has_objects else None
        columns = ("frame", "time_s", "class", "area_px2", "share_percent", *area)
        self._classes = CsvRows(out / CLASSES, columns, self._stack) if has_classes else None
        wanted = ((FRAMES, True), (TRACKS, has_objects), (OBJECTS, has_objects), (CLASSES, has_classes))
        self.paths = tuple(out / name for name, is_written in wanted if is_written)
        self.frames = 0

    def __enter__(self) -> FrameFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, annotated: Annotated, *, stem: str) -> None:
        """Append a frame.

        Args:
            annotated: The frame.
            stem: Beginning of the names of frames, which are not written as files.
        """
        self.frames += 1
        frame = annotated.frame
        height_px, width_px = frame.image_rgb.shape[:2]
        row: dict[str, Any] = {
            "id": self.frames,
            "video_id": 1,
            "frame_index": frame.index,
            "time_s": frame.time_s,
            "file_name": f"{stem}/{frame.index:06d}.jpg",
            "width": width_px,
            "height": height_px,
        }
        if annotated.class_area_px2 is not None:
            row["classes"] = self._add_classes(annotated, height_px * width_px)
        self._json.add("images", row)
        for one in annotated.objects:
            self._add_object(annotated, one)

    def finish(self, video: dict[str, Any]) -> None:
        """Write all files.

        Args:
            video: The row of ``videos``, without its id.
        """
        self._json.add("videos", {"id": 1} | video)
        self._json.write()
        if self._table is not None and self._objects is not None:
            for row in self._tracks.rows():
                self._table.add(row)
            self._table.write()
            self._objects.write()
        if self._classes is not None:
            self._classes.write()

    def _add_classes(self, annotated: Annotated, pixels: int) -> list[dict[str, Any]]:
        assert annotated.class_area_px2 is not None and self._classes is not None
        frame = annotated.frame
        rows = []
        for class_id, area_px2 in enumerate(annotated.class_area_px2):
            share = round(100 * area_px2 / pixels, 4)
            rows.append({"category_id": class_id + 1, "area_px2": area_px2, "share_percent": share})
            line = [frame.index, frame.time_s, self._class_names[class_id], area_px2, share]
            self._classes.add(line + self._area_mm2(area_px2))
        return rows

    def _add_object(self, annotated: Annotated, one: SeenObject) -> None:
        frame = annotated.frame
        self._objects_written += 1
        row: dict[str, Any] = {
            "id": self._objects_written,
            "image_id": self.frames,
            "video_id": 1,
            "category_id": one.class_id + 1,
        }
        row |= {} if one.track_id is None else {"track_id": one.track_id}
        row |= {} if one.score is None else {"score": one.score}
        self._json.add("annotations", row | {"iscrowd": 0} | one.row)
        if self._objects is None or one.is_region:
            return
        track_id, score = "" if one.track_id is None else one.track_id, "" if one.score is None else one.score
        line = [frame.index, frame.time_s, track_id, self._class_names[one.class_id], score, one.row["area"]]
        line += [round(float(value), 2) for value in (*one.mask.center_px, *one.row["bbox"])]
        self._objects.add(line + self._area_mm2(one.row["area"]))

    def _area_mm2(self, area_px2: float) -> list[float]:
        return [] if self._mm_per_px is None else [float(f"{area_px2 * self._mm_per_px**2:.6g}")]
