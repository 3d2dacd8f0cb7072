"""Near-duplicates, on real photos and on copies made of them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import ImageEnhance

from d2tune.annotations.model.dataset import Image
from d2tune.annotations.splitting.duplicates import (
    DEFAULT_DISTANCE,
    HASH_BITS,
    DuplicateGroup,
    duplicate_groups,
    group_hashes,
    perceptual_hash,
)
from tests.annotations.builders import photo
from tests.shared_files import SHARED

BOARDS = sorted((SHARED / "data/microcontrollers").rglob("*.jpg"))
BALLOONS = sorted((SHARED / "data/balloon").rglob("*.jpg"))


def images(paths: list[Path]) -> list[Image]:
    return [Image(number, path.name, 1, 1, path) for number, path in enumerate(paths, start=1)]


def bits_apart(first: int | None, second: int | None) -> int:
    assert first is not None and second is not None
    return bin(first ^ second).count("1")


def copies(photo: Path, folder: Path) -> list[Path]:
    """What happens to photos on their way: smaller, larger, compressed, brighter, darker, gray, another format."""
    with PilImage.open(photo) as opened:
        shown = opened.convert("RGB")
    width, height = shown.size
    made: list[tuple[str, PilImage.Image, dict[str, int]]] = [
        ("hard.jpg", shown, {"quality": 30}),
        ("half.jpg", shown.resize((width // 2, height // 2)), {"quality": 85}),
        ("thumb.png", shown.resize((256, 256 * height // width), PilImage.Resampling.LANCZOS), {}),
        ("double.jpg", shown.resize((2 * width, 2 * height)), {"quality": 90}),
        ("bright.jpg", ImageEnhance.Brightness(shown).enhance(1.2), {"quality": 90}),
        ("dark.webp", ImageEnhance.Brightness(shown).enhance(0.7), {"quality": 80}),
        ("pale.jpg", ImageEnhance.Contrast(shown).enhance(0.8), {"quality": 90}),
        ("gray.png", shown.convert("L"), {}),
    ]
    paths = []
    for name, copy, options in made:
        paths.append(folder / f"{photo.stem}_{name}")
        copy.save(paths[-1], **options)
    return paths


@pytest.mark.parametrize("photo", [*BOARDS[::40], *BALLOONS[::25]], ids=lambda photo: photo.stem)
def test_copies_of_a_photo_are_its_duplicates(photo: Path, tmp_path: Path) -> None:
    all_paths = [photo, *copies(photo, tmp_path)]
    groups = duplicate_groups(images(all_paths))
    assert [group.image_ids for group in groups] == [tuple(range(1, len(all_paths) + 1))]
    assert 0 < groups[0].largest_distance <= DEFAULT_DISTANCE


@pytest.mark.parametrize(("photos", "nearest"), [(BOARDS, 83), (BALLOONS, 96)], ids=["boards", "balloons"])
def test_photos_that_are_only_alike_are_not(photos: list[Path], nearest: int) -> None:
    """The nearest two are more than twice the default distance apart; a few bits may differ with the JPEG decoder."""
    assert duplicate_groups(images(photos)) == []
    hashes = [perceptual_hash(path) for path in photos]
    pairs = [bits_apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert abs(min(pairs) - nearest) <= 4 and min(pairs) >= 2 * DEFAULT_DISTANCE - 4
    assert abs(np.mean(pairs) - HASH_BITS / 2) < 5


def test_the_frames_of_a_video_are_one_group() -> None:
    frames = sorted((SHARED / "data/car_video/JPEGImages").rglob("*.jpg"))
    (group,) = duplicate_groups(images([*frames, *BOARDS[:20]]))
    assert group.image_ids == tuple(range(1, len(frames) + 1))
    assert group.largest_distance > DEFAULT_DISTANCE  # first and last frame are linked by those between


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (2, PilImage.Transpose.FLIP_LEFT_RIGHT),
        (3, PilImage.Transpose.ROTATE_180),
        (6, PilImage.Transpose.ROTATE_90),
        (8, PilImage.Transpose.ROTATE_270),
    ],
)
def test_a_rotated_photo_is_hashed_as_it_is_displayed(
    tmp_path: Path, suffix: str, orientation: int, undo: PilImage.Transpose
) -> None:
    with PilImage.open(BOARDS[0]) as opened:
        stored = opened.convert("RGB").transpose(undo)
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    path, plain = tmp_path / f"turned.{suffix}", tmp_path / f"plain.{suffix}"
    stored.save(path, exif=exif)
    stored.save(plain)
    assert bits_apart(perceptual_hash(path), perceptual_hash(BOARDS[0])) <= 8
    assert bits_apart(perceptual_hash(plain), perceptual_hash(BOARDS[0])) > DEFAULT_DISTANCE


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "I;16"])
def test_every_kind_of_pixel(tmp_path: Path, mode: str) -> None:
    with PilImage.open(BALLOONS[0]) as opened:
        rgb = opened.convert("RGB")
    other = (
        PilImage.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 37) if mode == "I;16" else rgb.convert(mode)
    )
    path = tmp_path / "other.png"
    other.save(path)
    assert bits_apart(perceptual_hash(path), perceptual_hash(BALLOONS[0])) <= 12


def test_images_with_nothing_on_them_are_not_duplicates(tmp_path: Path) -> None:
    paths = [photo(tmp_path / "a.png"), photo(tmp_path / "b.png"), photo(tmp_path / "c.png", 640, 480)]
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    for number in range(2):
        paths.append(tmp_path / f"ramp{number}.jpg")
        PilImage.fromarray(ramp if number else ramp[:, ::-1]).save(paths[-1], quality=70)
    assert [perceptual_hash(path) for path in paths] == [None] * 5
    assert duplicate_groups(images(paths)) == []


def test_files_that_cannot_be_decoded_have_no_hash(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(BOARDS[0].read_bytes()[:9000])
    text, empty, folder = tmp_path / "text.png", tmp_path / "empty.jpg", tmp_path / "folder.png"
    text.write_text("no image", "utf-8")
    empty.touch()
    folder.mkdir()
    bomb = tmp_path / "bomb.png"
    PilImage.new("1", (20_000, 20_000)).save(bomb)
    large = tmp_path / "large.png"
    PilImage.new("1", (12_000, 10_000)).save(large)
    whole = tmp_path / "whole.jpg"
    shutil.copy(BOARDS[0], whole)
    paths = [cut, text, empty, folder, bomb, large, tmp_path / "missing.jpg"]
    assert [perceptual_hash(path) for path in paths] == [None] * len(paths)
    assert perceptual_hash(whole) is not None
    nowhere = Image(99, "nowhere.jpg", 1, 1, None)
    assert duplicate_groups([*images(paths), nowhere]) == []


def test_groups_are_the_connected_components() -> None:
    """Against components found one pair at a time in plain Python."""
    draw = random.Random(5)
    hashes: list[int | None] = []
    for _ in range(60):
        start = draw.getrandbits(HASH_BITS)
        for _ in range(draw.randint(1, 12)):
            hashes.append(start)
            start ^= sum(1 << bit for bit in draw.sample(range(HASH_BITS), draw.randint(0, 60)))
    draw.shuffle(hashes)
    hashes[3] = hashes[17] = None
    given = [Image(number, str(number), 1, 1) for number in range(1, len(hashes) + 1)]
    component = list(range(len(hashes)))
    for i, first in enumerate(hashes):
        for j, second in enumerate(hashes[:i]):
            if first is not None and second is not None and bits_apart(first, second) <= 40:
                component = [component[i] if label == component[j] else label for label in component]
    expected = []
    for shared in set(component):
        members = [number for number, label in enumerate(component) if label == shared]
        if len(members) > 1:
            most = max(bits_apart(hashes[i], hashes[j]) for i in members for j in members)
            expected.append(DuplicateGroup(tuple(number + 1 for number in members), most))
    assert group_hashes(given, hashes, max_distance=40) == sorted(expected, key=lambda group: group.image_ids)
    assert 10 < len(expected) < 200 and any(group.largest_distance > 40 for group in expected)


def test_more_images_than_fit_in_one_block() -> None:
    draw = random.Random(1)
    hashes = [draw.getrandbits(HASH_BITS) for _ in range(3000)]
    hashes[2900], hashes[1500] = hashes[4] ^ 0b111, hashes[4] ^ 0b1
    given = [Image(number, str(number), 1, 1) for number in range(3000)]
    assert group_hashes(given, hashes) == [DuplicateGroup((4, 1500, 2900), 3)]
    assert group_hashes(given, hashes, max_distance=1) == [DuplicateGroup((4, 1500), 1)]
    same = [hashes[0]] * 3000
    assert group_hashes(given, same) == [DuplicateGroup(tuple(range(3000)), 0)]
    assert group_hashes([], []) == []
