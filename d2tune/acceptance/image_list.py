"""The images of the page: those of a folder, and those that came through the page itself."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from d2tune.acceptance.store import Store, StoredImage
from d2tune.annotations.io.images import Header, ImageError, magic_suffix, read_header
from d2tune.annotations.model.dataset import Image
from d2tune.errors import DataError
from d2tune.files import sha256_file, write_bytes
from d2tune.inference.listing import find_images
from d2tune.report.thumbnails import ThumbnailError, jpeg
from d2tune.text import counted, printable

logger = logging.getLogger(__name__)

ADDED = "added"
"""The folder, in names, of images that came through the page."""

SHOWN_PX = 4096
"""Longest side of an image as the page shows it."""
THUMBNAIL_PX = 240

_NAME_LENGTH = 50
_DECODED_AT_ONCE = 2  # a decoded image may take 360 MB


class NoSuchImageError(Exception):
    """An image that is not in the list."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file of the folder that is not in the list, and why."""

    name: str
    reason: str


class ImageList:
    """The images in the order of their names, added ones last.

    Args:
        store: The database.
        folder: The folder with images; None where they only come through the page.
        max_pixels: Larger images are not taken.

    Raises:
        DataError: The folder does not exist or has no images.
    """

    def __init__(self, store: Store, folder: Path | None, *, max_pixels: int) -> None:
        self._store = store
        self._folder = folder
        self._max_pixels = max_pixels
        self._added = store.path.with_name(f"{store.path.stem}_images")
        self._lock = threading.Lock()
        self._decoding = threading.BoundedSemaphore(_DECODED_AT_ONCE)
        self.skipped: tuple[Skipped, ...] = ()
        self._synchronize()

    def _synchronize(self) -> None:
        """Bring the database up to date with the files."""
        paths: dict[str, tuple[Path, bool]] = {}
        if self._folder is not None:
            root, images = find_images(self._folder)
            paths = {path.relative_to(root).as_posix(): (path, False) for path in images}
            self._folder = root
        known = self._store.images()
        added = {one.name: (self._added / _added_file(one.name), True) for one in known.values() if one.is_added}
        skipped = [Skipped(name, "an added image has this name") for name in added if name in paths]
        paths |= added
        changed: list[StoredImage] = []
        present: list[str] = []
        for name, (path, is_added) in paths.items():
            if not _is_text(name):
                skipped.append(Skipped(printable(name), "its name is not UTF-8; rename it"))
                continue
            try:
                one = self._measured(path, name, is_added, known.get(name))
            except (ImageError, OSError) as error:
                if not is_added:
                    skipped.append(Skipped(name, str(error)))
                continue
            present.append(name)
            if one != known.get(name):
                changed.append(one)
        if changed:
            self._store.put_images(changed)
        self.skipped = tuple(skipped)
        for entry in skipped[:3]:
            logger.warning("%s: is not shown: %s", entry.name, entry.reason)
        if len(skipped) > 3:
            logger.warning("%s are not shown", counted(len(skipped), "image"))
        if paths and not present and self._folder is not None:
            raise DataError("no image of the folder can be read", file=self._folder, found=skipped[0].reason)
        stored = self._store.images()
        self._by_id = {stored[name].id: stored[name] for name in present}

    def _measured(self, path: Path, name: str, is_added: bool, known: StoredImage | None) -> StoredImage:
        """An image with its size; its hash where it has one already, and that of its content now."""
        status = path.stat()
        if known is not None and (known.size_bytes, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
            return known
        header = self._header(path)
        sha256 = sha256_file(path) if known is not None and known.sha256 is not None else None
        size = header.width_px, header.height_px
        return StoredImage(0, name, is_added, *size, status.st_size, status.st_mtime_ns, sha256)

    def _header(self, source: Path | bytes) -> Header:
        header = read_header(source)
        if header.width_px * header.height_px > self._max_pixels:
            raise ImageError(
                f"the image has {header.width_px} x {header.height_px} px, at most {self._max_pixels:,} are taken"
            )
        return header

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self) -> list[StoredImage]:
        """The images in their order."""
        return sorted(self._by_id.values(), key=lambda one: (one.is_added, one.id if one.is_added else 0, one.name))

    def path(self, image: StoredImage) -> Path:
        """The file of an image."""
        if image.is_added:
            return self._added / _added_file(image.name)
        assert self._folder is not None
        return self._folder / image.name

    def get(self, image_id: int) -> StoredImage:
        """An image as its file is now, with its hash.

        Raises:
            NoSuchImageError: It is not in the list.
            DataError: Its file cannot be read any more.
        """
        if image_id not in self._by_id:
            raise NoSuchImageError
        image = self._by_id[image_id]
        path = self.path(image)
        try:
            status = path.stat()
            is_same = (status.st_size, status.st_mtime_ns) == (image.size_bytes, image.mtime_ns)
            if is_same and image.sha256 is not None:
                return image
            header = self._header(path)
            image = replace(
                image,
                width_px=header.width_px,
                height_px=header.height_px,
                size_bytes=status.st_size,
                mtime_ns=status.st_mtime_ns,
                sha256=sha256_file(path),
            )
        except (OSError, ImageError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise DataError("the image can no longer be read", place=image.name, found=reason) from None
        with self._lock:
            self._store.put_images([image])
            self._by_id[image_id] = image
        return image

    def add(self, name: str, content: bytes) -> tuple[StoredImage, bool]:
        """Take an image that came through the page; one with the same content is taken once.

        Args:
            name: Its file name, as the browser gives it.
            content: The file.

        Returns:
            The image, and whether it is new in the list.

        Raises:
            DataError: It is not an image that is read, or has too many pixels.
        """
        try:
            header = self._header(content)
        except ImageError as error:
            raise DataError(f"is not added: {error}", place=_shown_name(name)) from None
        sha256 = hashlib.sha256(content).hexdigest()
        with self._lock:
            same = next((one for one in self._by_id.values() if one.sha256 == sha256), None)
            if same is not None:
                return same, False
            chosen = self._free_name(_safe_name(name, content), sha256)
            path = self._added / _added_file(chosen)
            try:
                write_bytes(path, content)
                status = path.stat()
            except OSError as error:
                raise DataError("is not added: the disk cannot be written", found=str(error.strerror)) from None
            size = header.width_px, header.height_px
            image = StoredImage(0, chosen, True, *size, status.st_size, status.st_mtime_ns, sha256)
            self._store.put_images([image])
            stored = self._store.images()[chosen]
            self._by_id[stored.id] = stored
        return stored, True

    def _free_name(self, name: str, sha256: str) -> str:
        """A name that no image of the list has, and no other image ever had."""
        known = self._store.images()
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        number = 1
        chosen = f"{ADDED}/{name}"
        while chosen in known and not (known[chosen].is_added and known[chosen].sha256 == sha256):
            number += 1
            chosen = f"{ADDED}/{stem}_{number}{suffix}"
        return chosen

    def jpeg(self, image: StoredImage, *, longest_px: int) -> bytes:
        """An image as a JPEG in its EXIF orientation, without anything but its pixels.

        Args:
            image: The image.
            longest_px: Largest length of the longer side; smaller images keep their size.

        Raises:
            DataError: It cannot be decoded.
        """
        path = self.path(image)
        try:
            header = read_header(path)
            scale = min(1.0, longest_px / max(header.width_px, header.height_px))
            shown = Image(1, image.name, header.width_px, header.height_px, path=path, pixel_format=header.pixel_format)
            whole = 0.0, 0.0, float(header.width_px), float(header.height_px)
            with self._decoding:
                return jpeg(shown, whole, scale=scale)
        except (ThumbnailError, ImageError) as error:
            raise DataError(f"cannot be shown: {error}", place=image.name) from None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _added_file(name: str) -> str:
    return PurePosixPath(name).name


def _safe_name(name: str, content: bytes) -> str:
    """The last step of a name, with letters, digits, ``-``, ``_`` and one dot, and the suffix of its content."""
    stem = PurePosixPath(name.replace("\\", "/")).name
    stem = stem.rpartition(".")[0] or stem
    stem = re.sub(r"[^\w-]+", "_", stem).strip("_")[:_NAME_LENGTH] or "image"
    return stem + (magic_suffix(content) or ".jpg")


def _shown_name(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name[:_NAME_LENGTH] or "image"
