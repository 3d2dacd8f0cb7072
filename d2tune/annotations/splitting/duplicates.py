"""Equal files, and near-duplicates: copies that were resized, compressed again or brightened, frames of one burst.

An image's hash is the signs of its lowest 255 spatial frequencies, so two copies differ in few bits and two photos
in about half of them. OpenCV has the cosine transform that this takes. The library for such hashes, imagehash, would
bring SciPy and PyWavelets, takes no account of EXIF orientation and decodes large JPEGs at full size.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.dataset import Image

HASH_BITS = 255
"""Bits of a hash."""

DEFAULT_DISTANCE = 40
"""Most bits, out of `HASH_BITS`, in which two near-duplicates differ.

Measured on 74 photos of balloons and 149 of circuit boards, which are similar but all different: they differ in 83
bits or more. Copies compressed to JPEG quality 30, halved, doubled, or shrunk to 256 px differ in at most
11 bits, copies brightened or darkened by up to 30 % in at most 28, and copies cropped by 1 % on all sides in at most
29. Neighboring frames of a driving car, filmed by a camera that follows it, differ in 15 to 31 bits and so count as
near-duplicates; copies cropped by 3 %, with up to 67 bits, mostly do not.
"""

_SIDE_PX = 64
_FREQUENCIES = 16
_NOISE = 1.0
"""Noise of a frequency by compression, in gray levels; frequencies below this have no detail."""

_CHUNK_BYTES = 1 << 20
_MAX_DECODED_PX = 100_000_000
_ROWS = 512


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Images that are near-duplicates of one another, directly or through other members of the group.

    Attributes:
        image_ids: `Image.id` of each, ascending; two or more.
        largest_distance: Most bits in which any two of them differ; more than the given distance where a chain of
            near-duplicates connects the two.
    """

    image_ids: tuple[int, ...]
    largest_distance: int


def equal_files(images: Sequence[Image]) -> list[list[Image]]:
    """Groups of two or more images whose files have the same content; only files of equal size are read."""
    by_size: dict[int, list[Image]] = defaultdict(list)
    for image in images:
        size_bytes = _size_bytes(image.path)
        if size_bytes is not None:
            by_size[size_bytes].append(image)
    groups: dict[tuple[int, str], list[Image]] = defaultdict(list)
    digests: dict[str, str] = {}
    for size_bytes, members in by_size.items():
        for image in members if len(members) > 1 else ():
            path = os.path.realpath(image.path or "")
            if path not in digests:
                digests[path] = content_digest(path)
            groups[size_bytes, digests[path]].append(image)
    return [group for group in groups.values() if len(group) > 1]


def _size_bytes(path: Path | None) -> int | None:
    try:
        return None if path is None else path.stat().st_size
    except OSError:
        return None


def content_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes; the path itself where the file cannot be read."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return str(path)
    return digest.hexdigest()


def perceptual_hash(path: Path) -> int | None:
    """The signs of an image's lowest spatial frequencies, as shown after EXIF orientation, in gray.

    The image is averaged to 64 x 64 px; of its orthonormal two-dimensional discrete cosine transform (type II), the
    16 x 16 lowest coefficients without the first, which is the brightness, give a bit each: whether the
    coefficient is above 1 gray level. JPEGs are decoded at a fraction of their size.

    Args:
        path: The image.

    Returns:
        `HASH_BITS` bits; None where the file cannot be decoded, has more than 100 megapixels, or has too little
        detail to distinguish it: half of the coefficients must be 1 gray level or more.
    """
    import cv2

    gray = _gray(path)
    if gray is None:
        return None
    coefficients = cv2.dct(gray)[:_FREQUENCIES, :_FREQUENCIES].ravel()[1:]
    if np.count_nonzero(np.abs(coefficients) >= _NOISE) < HASH_BITS / 2:
        return None
    return int.from_bytes(np.packbits(coefficients > _NOISE).tobytes(), "big")


def _gray(path: Path) -> NDArray[np.float32] | None:
    """The image as shown, in gray levels from 0 to 255, averaged to ``(64, 64)``; None where it cannot be decoded."""
    from PIL import Image as PilImage

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PilImage.open(path) as image:
                image.draft("L", (4 * _SIDE_PX, 4 * _SIDE_PX))
                if image.width * image.height > _MAX_DECODED_PX:
                    return None
                image.load()
                return np.asarray(_turned(_small(image)), dtype=np.float32)
    except Exception:  # a hostile file can make Pillow raise nearly anything; such a file has no hash
        return None


def _small(image: Any) -> Any:
    from PIL import Image as PilImage

    size = (_SIDE_PX, _SIDE_PX)
    if not image.mode.startswith(("I", "F")):
        return image.convert("L").resize(size, PilImage.Resampling.BOX)
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    scaled = PilImage.fromarray((values - low) * (255 / max(high - low, 1e-30)))
    scaled.info = image.info
    return scaled.resize(size, PilImage.Resampling.BOX)


def _turned(small: Any) -> Any:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(small)
    except Exception:  # as in `io.images`: viewers show an image with a broken EXIF block unturned
        return small


def perceptual_hashes(images: Sequence[Image], *, progress: bool = True) -> list[int | None]:
    """The `perceptual_hash` of every image, in their order; None also where an image has no file.

    Args:
        images: The images.
        progress: Show a bar on a terminal when it takes over two seconds.
    """
    from tqdm import tqdm

    def hash_of(image: Image) -> int | None:
        return None if image.path is None else perceptual_hash(image.path)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = pool.map(hash_of, images)
        disable = None if progress else True
        bar = tqdm(hashes, "comparing", len(images), leave=False, unit=" images", delay=2, disable=disable)
        return list(bar)


def duplicate_groups(
    images: Sequence[Image], *, max_distance: int = DEFAULT_DISTANCE, progress: bool = True
) -> list[DuplicateGroup]:
    """Find the groups of near-duplicate images.

    Args:
        images: The images; each is compared with all others.
        max_distance: Most bits in which two near-duplicates differ.
        progress: Show a bar on a terminal when it takes over two seconds.

    Returns:
        Groups of two or more, by their first image id. Images without a hash are in none.
    """
    return group_hashes(images, perceptual_hashes(images, progress=progress), max_distance=max_distance)


def group_hashes(
    images: Sequence[Image], hashes: Sequence[int | None], *, max_distance: int = DEFAULT_DISTANCE
) -> list[DuplicateGroup]:
    """`duplicate_groups` for hashes that were computed before.

    The time grows with the square of the number of images (20,000 take seconds), the memory in proportion to it.

    Args:
        images: The images.
        hashes: Their `perceptual_hashes`.
        max_distance: Most bits in which two near-duplicates differ.
    """
    hashed = [(image.id, value) for image, value in zip(images, hashes, strict=True) if value is not None]
    signs = _signs([value for _, value in hashed])
    label = np.arange(len(hashed))
    for start, distances in _distances(signs):
        for row, column in _linked(distances <= max_distance, start, label):
            label[label == label[column]] = label[row]
    groups = []
    for shared in np.flatnonzero(np.bincount(label) > 1) if len(hashed) else ():
        members = np.flatnonzero(label == shared)
        largest = max(int(distances.max()) for _, distances in _distances(signs[members]))
        groups.append(DuplicateGroup(tuple(sorted(hashed[member][0] for member in members)), largest))
    return sorted(groups, key=lambda group: group.image_ids)


def _signs(hashes: Sequence[int]) -> NDArray[np.float32]:
    """Hashes as rows of 256 times 1 or -1; the bit beyond the 255 is the same in all."""
    size_bytes = (HASH_BITS + 7) // 8
    raw = b"".join(value.to_bytes(size_bytes, "big") for value in hashes)
    bits = np.unpackbits(np.frombuffer(raw, np.uint8).reshape(-1, size_bytes), axis=1)
    return bits.astype(np.float32) * 2 - 1


def _distances(signs: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Hamming distances of some rows to themselves and all later rows, with the first row's index.

    Two rows of N signs that differ in d of them have the inner product N - 2 d, which float32 holds exactly.
    """
    for start in range(0, len(signs), _ROWS):
        yield start, (signs.shape[1] - signs[start : start + _ROWS] @ signs[start:].T) / 2


def _linked(near: NDArray[np.bool_], start: int, label: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Pairs of rows that are near and do not have the same label when they are yielded."""
    for row, is_near in enumerate(near, start=start):
        columns = np.flatnonzero(is_near) + start
        for column in columns[label[columns] != label[row]]:
            if label[column] != label[row]:
                yield row, int(column)
