"""ByteTrack of the library trackers, run by benchmarks/tracking.py in the environment of tracking_peers.txt.

``python tracking_peer.py IN OUT``: IN is JSON with ``options`` of the tracker and ``videos``, each a list of frames,
each a list of ``{"box": [left, top, right, bottom], "score": ..., "class_id": ...}``. OUT gets the same lists with a
track id or null for each detection, and the seconds that all took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import supervision
from trackers import ByteTrackTracker


def main(source: Path, out: Path) -> None:
    task = json.loads(source.read_text(encoding="utf-8"))
    begin_s = time.perf_counter()
    ids = [tracked(video, task["options"]) for video in task["videos"]]
    out.write_text(json.dumps({"ids": ids, "seconds": time.perf_counter() - begin_s}), encoding="utf-8")


def tracked(video: list[list[dict[str, Any]]], options: dict[str, Any]) -> list[list[int | None]]:
    """The track of each detection of each frame."""
    tracker = ByteTrackTracker(**options)
    ids = []
    for frame in video:
        detections = supervision.Detections(
            xyxy=np.array([one["box"] for one in frame], np.float32).reshape(-1, 4),
            confidence=np.array([one["score"] for one in frame], np.float32),
            class_id=np.array([one["class_id"] for one in frame], int),
            data={"place": np.arange(len(frame))},
        )
        result = tracker.update(detections)
        row: list[int | None] = [None] * len(frame)
        for place, track_id in zip(result.data.get("place", ()), result.tracker_id, strict=True):
            row[int(place)] = None if track_id < 0 else int(track_id)
        ids.append(row)
    return ids


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
