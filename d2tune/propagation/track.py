"""Tracking: from the references in a clip to a Labelme file for every other frame."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from d2tune.annotations.io.output_record import PREDICTIONS, OwnFiles
from d2tune.annotations.model.types import Mask
from d2tune.errors import DataError, ProjectError
from d2tune.inference.sources import is_video
from d2tune.propagation.clip import Clip, folder_of_frames, open_clip, write_frames
from d2tune.propagation.files import (
    Journal,
    check_table,
    labelme_places,
    masks_of,
    persons_files,
    without_small_holes,
    write_frame,
    write_table,
)
from d2tune.propagation.matching import match_files
from d2tune.propagation.methods.base import Propagated, PropagationMethod
from d2tune.propagation.references import References, read_references
from d2tune.run_folder import ensure_writable
from d2tune.run_lock import locked
from d2tune.text import counted

logger = logging.getLogger(__name__)

LOOK_FIRST = 5
"""Number of frames that are named to look at first."""
_APART_SHARE = 0.04
"""Share of the clip by which these frames are apart, because neighbors have the same mistake."""


@dataclass(frozen=True, slots=True)
class TrackResult:
    """What a tracking did.

    Attributes:
        out: The folder of the Labelme files.
        frames: Number of frames of the clip.
        written: Number of Labelme files that this call wrote.
        references: Names of the reference frames.
        objects: Names of the objects.
        kept: Names of frames with a person's file that still has shapes with the flag ``prediction``.
        saved: Names of frames whose files a person saved while this call was under way; they are kept.
        stood: Number of Labelme files of an earlier call that stay, because their frames are finished.
        look_first: Names of the frames to look at first, and their confidences.
        table: ``track.csv``.
        is_interrupted: Whether Ctrl-C ended it before all frames were done.
    """

    out: Path
    frames: int
    written: int
    references: tuple[str, ...]
    objects: tuple[str, ...]
    kept: tuple[str, ...]
    saved: tuple[str, ...]
    stood: int
    look_first: tuple[tuple[str, float], ...]
    table: Path
    is_interrupted: bool

    @property
    def lines(self) -> list[str]:
        """What was done, and what to do next."""
        what = f"{counted(len(self.objects), 'object')} from {counted(len(self.references), 'reference')}"
        lines = [f"{what}: {self._files()}"]
        if self.saved:
            lines.append(
                "saved by a person during the tracking, and kept as they are; the same command uses those without the "
                f"flag prediction: {_some(self.saved)}"
            )
        if self.kept:
            lines.append(
                f"kept as they are, and not used, because shapes still have the flag prediction: {_some(self.kept)}"
            )
        if self.look_first and not self.is_interrupted:
            frames = ", ".join(f"{name} ({value:.2f})" for name, value in self.look_first)
            lines += [
                f"look here first: {frames}",
                "correct them in Labelme without the flag prediction, then run the same command again",
            ]
        if self.is_interrupted:
            lines.append("interrupted; the same command goes on")
        return lines

    def _files(self) -> str:
        """How many files were written, and why none were."""
        if not self.written and self.stood and not self.is_interrupted:
            return (
                f"nothing to do, {counted(self.stood, 'Labelme file')} of an earlier call stand in {self.out}; remove "
                "those of frames that are to be tracked again"
            )
        if not self.written and len(self.references) == self.frames:
            return "nothing to do, all frames are labeled"
        stood = f", {self.stood} stood already" if self.stood else ""
        return f"{counted(self.written, 'Labelme file')} written into {self.out}{stood}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def track(
    source: str | Path,
    init: Sequence[str | Path],
    *,
    out: str | Path | None,
    method: PropagationMethod,
    tolerance_px: float = 1.0,
) -> TrackResult:
    """Carry the objects of labeled frames through a clip.

    References are the files of ``init``, and the Labelme files of a person in the output folder. Files are written as
    they come; an interrupted call goes on with the same command. A person's file is never overwritten.

    Args:
        source: A folder of frames, or a video file.
        init: Labelme files of frames; empty takes those in the output folder.
        out: The output folder; None is the folder of the frames, or a folder with the name of the video.
        method: Carries the masks.
        tolerance_px: How far the outlines may move where they are simplified.

    Raises:
        DataError: The clip or a Labelme file cannot be used.
        RunError: The output folder cannot be written, or another process tracks into it.
    """
    folder = folder_of_frames(source) if out is None else Path(out)
    files = list({Path(path).resolve(): Path(path) for path in init}.values())
    _check_places(files, folder if out is not None or is_video(source) else None)
    check_table(folder)
    clip = open_clip(source, folder)
    places = labelme_places(clip, folder)
    references, kept = _references(files, clip, places)
    ensure_writable(folder)
    with locked(folder, what="output folder"):
        write_frames(source, clip)
        return _tracked(clip, places, references, kept, folder=folder, method=method, tolerance_px=tolerance_px)


def _tracked(
    clip: Clip,
    places: Sequence[Path],
    references: References,
    kept: set[int],
    *,
    folder: Path,
    method: PropagationMethod,
    tolerance_px: float,
) -> TrackResult:
    """Track a clip whose frames are files, with references that are read."""
    frames = [(clip.name(index), path.stat().st_size) for index, path in enumerate(clip.paths)]
    work = f"{method.name} {method.identity} {tolerance_px} {references.digest()} {frames}"
    journal = Journal(folder, hashlib.sha256(work.encode("utf-8", "surrogatepass")).hexdigest())
    job = _Job(clip, references, places, journal, tolerance_px)
    is_interrupted = job.run(method, kept)
    finished = {index: journal.finished[index] for index in job.done}
    table = write_table(folder, clip, references, finished)
    confidences = {index: frame.confidences for index, frame in finished.items()}
    return TrackResult(
        out=folder,
        frames=len(clip),
        written=job.written,
        references=tuple(clip.name(one.index) for one in references.frames),
        objects=tuple(one.name for one in references.objects),
        kept=tuple(clip.name(index) for index in sorted(kept)),
        saved=tuple(clip.name(index) for index in sorted(job.saved)),
        stood=len(job.done) - job.written,
        look_first=tuple((clip.name(index), value) for index, value in least_confident(confidences, len(clip))),
        table=table,
        is_interrupted=is_interrupted,
    )


def _check_places(files: Sequence[Path], folder: Path | None) -> None:
    """Refuse Labelme files that are not files, and an output folder that is a file or below one.

    Args:
        files: The files of ``--init``.
        folder: The output folder; None where it is that of the frames, which is checked when they are read.

    Raises:
        DataError: There is such a path.
    """
    wrong = next((path for path in files if not path.is_file()), None)
    if wrong is not None and wrong.is_dir():
        raise DataError(
            "is a folder, not a Labelme file", file=wrong, place="--init", hint="Name the files, such as a.json b.json."
        )
    if wrong is not None:
        raise DataError("the Labelme file does not exist", file=wrong, place="--init")
    if folder is None:
        return
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if there.exists() and not there.is_dir():
        raise DataError("is a file, not a folder", file=there, place="--out", hint="Name another folder with --out.")


def _references(files: Sequence[Path], clip: Clip, places: Sequence[Path]) -> tuple[References, set[int]]:
    """The references, and the frames whose files of a person are not references yet."""
    index_of = {place.resolve(): index for index, place in enumerate(places)}
    ready, open_files = persons_files(places)
    given = {path.resolve() for path in files}
    matched = match_files(files, clip)
    taken = {index for _, index in matched}
    for path in ready:
        index = index_of[path.resolve()]
        if path.resolve() in given:
            continue
        if index in taken:
            logger.warning(
                "%s: not used, because a file of --init labels the same frame; to use it, do not name that one", path
            )
            continue
        matched.append((path, index))
    if not matched:
        raise ProjectError(
            "no frame is labeled",
            place="--init",
            hint=f"Annotate a frame of {clip.root} with Labelme, such as {clip.name(0)}, and name its JSON file.",
        )
    kept = {index_of[path.resolve()] for path in open_files} - {index for _, index in matched}
    return read_references(matched, clip), kept


@dataclass(slots=True)
class _Job:
    """A tracking whose inputs are read.

    Attributes:
        done: The finished frames, those of an earlier call included.
        saved: Frames whose files a person saved while this call was under way.
        written: Number of files written.
    """

    clip: Clip
    references: References
    places: Sequence[Path]
    journal: Journal
    tolerance_px: float
    done: set[int] = field(default_factory=set)
    saved: set[int] = field(default_factory=set)
    written: int = 0

    def run(self, method: PropagationMethod, kept: set[int]) -> bool:
        """Write the files of all frames; returns whether it was interrupted.

        Args:
            method: Carries the masks.
            kept: Frames whose files stay.
        """
        protected = kept | {one.index for one in self.references.frames}
        finished = _FinishedMasks(self, self._finished(protected))
        self.done.update(finished)
        todo = len(self.clip) - len(protected | self.done)
        if not todo:
            return False
        bar = tqdm(total=todo, desc=method.name, unit=" frames", leave=False, disable=None)
        try:
            with bar:
                for result in method.propagate(self.clip, self.references.frames, finished=finished):
                    if result.index not in protected:
                        self._write(result)
                        bar.update()
        except KeyboardInterrupt:
            return True
        return False

    def _finished(self, protected: set[int]) -> list[int]:
        """The frames that an earlier call wrote and a person has not changed."""
        own = OwnFiles()
        return [
            index
            for index in sorted(self.journal.finished)
            if index not in protected and own.is_unchanged(self.places[index], PREDICTIONS)
        ]

    def _write(self, result: Propagated) -> None:
        """Write the file of a frame, unless a person has saved it meanwhile."""
        place = self.places[result.index]
        if place.exists() and not OwnFiles().is_unchanged(place, PREDICTIONS):
            self.saved.add(result.index)
            return
        result = replace(result, masks=without_small_holes(result.masks))
        write_frame(place, self.clip, result, self.references.objects, tolerance_px=self.tolerance_px)
        self.journal.add(result)
        self.done.add(result.index)
        self.written += 1


class _FinishedMasks(Mapping[int, Mapping[int, Mask]]):
    """The masks of finished frames, read from their files when they are asked for, because a clip may be long."""

    def __init__(self, job: _Job, indices: Sequence[int]) -> None:
        self._job = job
        self._indices = dict.fromkeys(indices)

    def __getitem__(self, index: int) -> Mapping[int, Mask]:
        if index not in self._indices:
            raise KeyError(index)
        return masks_of(self._job.places[index], index, self._job.clip, self._job.references)

    def __contains__(self, index: object) -> bool:
        return index in self._indices

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


def least_confident(confidences: Mapping[int, Mapping[int, float]], count: int) -> list[tuple[int, float]]:
    """The frames to look at first, and their confidences: that of the least sure object.

    Args:
        confidences: The confidence of each object, by frame.
        count: Number of frames of the clip; chosen frames are a share of it apart.
    """
    apart = max(1, round(_APART_SHARE * count))
    values = {index: min(ones.values()) for index, ones in confidences.items() if ones}
    chosen: list[tuple[int, float]] = []
    for index, value in sorted(values.items(), key=lambda item: (item[1], item[0])):
        if all(abs(index - other) > apart for other, _ in chosen):
            chosen.append((index, value))
        if len(chosen) == LOOK_FIRST:
            break
    return chosen
