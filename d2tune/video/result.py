"""What a prediction on a video returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from d2tune.text import counted


@dataclass(slots=True)
class StageSeconds:
    """Where the time went, in seconds; stages run at the same time, so that their sum can exceed ``total_s``.

    Attributes:
        decode_s: Reading frames and resizing them for the network.
        forward_s: The network.
        follow_s: Pasting masks and tracking.
        write_s: Drawing, encoding and writing.
        latency_s: From the arrival of a frame, or of a file from the start of the network, to its output, summed over
            frames.
        total_s: Elapsed time.
    """

    decode_s: float = 0.0
    forward_s: float = 0.0
    follow_s: float = 0.0
    write_s: float = 0.0
    latency_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResult:
    """The result of a prediction on a video.

    Attributes:
        out: The output folder.
        source: The name of the video.
        video: The drawn video; None if none was to be written.
        frames: Number of frames with predictions.
        tracks: Number of objects that have a track.
        objects: Number of objects and regions in all frames.
        has_objects: Whether the model predicts objects.
        dropped: Number of frames that were dropped, because they came faster than they were predicted on.
        omitted: Number of frames that are not in the drawn video, because others follow too closely.
        cut_s: Seconds of pauses that the drawn video does not show.
        ending: Why the video ended before its end; None if it did not.
        is_live: Whether it came from a camera or a stream without an end.
        is_interrupted: Whether the prediction on a file was interrupted.
        seconds: Where the time went.
    """

    out: Path
    source: str
    video: Path | None
    frames: int
    tracks: int
    objects: int
    has_objects: bool
    dropped: int
    omitted: int
    cut_s: float
    ending: str | None
    is_live: bool
    is_interrupted: bool
    seconds: StageSeconds

    @property
    def frame_rate(self) -> float:
        """Frames per second of the whole prediction."""
        return self.frames / self.seconds.total_s if self.seconds.total_s else 0.0

    @property
    def summary(self) -> str:
        """What was predicted, where it is, and where the time went, on two lines."""
        what = f"{counted(self.tracks, 'tracked object')} on " if self.has_objects else "classes of "
        share = self.frames / max(1, self.frames + self.dropped)
        each = {
            ("waiting and decoding" if self.is_live else "decoding"): self.seconds.decode_s * share,
            "network": self.seconds.forward_s,
            "masks and tracks": self.seconds.follow_s,
            "drawing and encoding": self.seconds.write_s,
            "latency": self.seconds.latency_s,
        }
        times = ", ".join(f"{name} {1000 * seconds / max(1, self.frames):.0f} ms" for name, seconds in each.items())
        return (
            f"{what}{counted(self.frames, 'frame')} of {self.source}: {self.out}\n"
            f"{self.frame_rate:.1f} frames/s; of each frame: {times}"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for everything that a person may not expect."""
        lines = []
        if self.is_interrupted:
            lines.append(f"interrupted after {counted(self.frames, 'frame')}; the files are complete for these")
        if self.ending is not None:
            lines.append(f"{self.source}: {self.ending}. The files are complete for the frames before it.")
        if self.dropped:
            lines.append(f"{counted(self.dropped, 'frame')} dropped with --realtime, because the model is slower")
        if self.omitted and self.video is not None:
            lines.append(
                f"{self.video.name} does not show {counted(self.omitted, 'frame')} that others follow within half of "
                "its interval; frames.json has all"
            )
        if self.cut_s and self.video is not None:
            lines.append(f"{self.video.name} does not show {self.cut_s:.0f} s of pauses; frames.json has all times")
        return tuple(lines)
