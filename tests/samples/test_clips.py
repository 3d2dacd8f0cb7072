"""Rendered clips: objects that keep their looks, masks that are what is seen, files as a person would make them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from d2tune.annotations.formats import labelme
from d2tune.annotations.model.options import ReadOptions
from d2tune.data.tracking_sequences import tracks_of
from d2tune.samples import render_sample
from d2tune.samples.clips import Clip


def test_frames_follow_from_the_seed_and_change_smoothly() -> None:
    clip = Clip(np.random.default_rng(3))
    first, again, near, far = (clip.frame(time).image_rgb.astype(int) for time in (0.2, 0.2, 0.21, 0.9))
    assert np.array_equal(first, again)
    assert np.abs(near - first).mean() < np.abs(far - first).mean()
    assert np.array_equal(Clip(np.random.default_rng(3)).frame(0.2).image_rgb, first)


def test_masks_are_what_is_seen() -> None:
    for seed in range(4):
        frame = Clip(np.random.default_rng(seed)).frame(0.0)
        assert frame.image_rgb.shape == (240, 320, 3) and 2 <= len(frame.masks) <= 3
        assert np.sum(frame.masks, axis=0).max() <= 1
        stand_out = [
            np.abs(frame.image_rgb[mask].mean(axis=0) - frame.image_rgb[~mask].mean(axis=0)).max()
            for mask in frame.masks
            if np.count_nonzero(mask) > 200
        ]
        assert stand_out and min(stand_out) > 3


def test_a_sample_of_clips_has_a_folder_of_frames_for_each(tmp_path: Path) -> None:
    result = render_sample("clips", tmp_path / "clips", images=30)
    assert dict(result.images) == {"train": 20, "val": 10} and result.class_names == ("object",)
    names = sorted(path.relative_to(tmp_path / "clips").as_posix() for path in (tmp_path / "clips").rglob("*.jpg"))
    assert names[0] == "train/clip_000/frame_00.jpg" and names[-1] == "val/clip_002/frame_09.jpg"
    dataset = labelme.read(tmp_path / "clips" / "train", ReadOptions())
    assert not dataset.errors()
    lengths = [len(track) for track in tracks_of(dataset, are_frames=True)]
    assert max(lengths) == 10 and sum(lengths) == len(dataset.instances)
