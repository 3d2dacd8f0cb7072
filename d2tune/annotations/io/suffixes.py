"""The files that are images, by their names and by their first bytes; the only list of suffixes in the package.

Formats of cameras, phones and editors that are not read are named, so that a message can say what to do with them.
"""

# ruff: noqa: PTH122

from __future__ import annotations

import os
from collections.abc import Iterable

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "dib", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
"""The suffixes of the images that are read, in lower case."""

IMAGE_TYPES = tuple(f"image/{name}" for name in ("jpeg", "png", "webp", "tiff", "gif", "bmp", "jp2", "avif"))
"""The media types of those images, the most common first."""

PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "JPEG2000", "AVIF", "PPM")
"""Those images by Pillow's names, which has decoders for 30 more."""

JPEG_SUFFIXES = frozenset({".jfif", ".jpe", ".jpeg", ".jpg"})
"""The suffixes of JPEG files, which cannot hold exact values such as labels."""

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "asf", "avi", "flv", "m2ts", "m4v", "mjpeg", "mjpg", "mkv", "mov", "mp4", "mpeg", "mpg", "mts"),
        *("mxf", "ogv", "ts", "vob", "webm", "wmv", "y4m"),
    )
)
"""The suffixes of videos, in lower case."""

_COMMON = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
SUFFIXES_BY_USE = tuple(
    cased
    for suffix in (*_COMMON, *sorted(IMAGE_SUFFIXES - set(_COMMON)))
    for cased in dict.fromkeys((suffix, suffix.upper()))
)
"""The suffixes of images in both cases, the most common first, for images that are named without one."""

_CONVERT = "convert it to JPEG or PNG"
_UNREADABLE = {
    "HEIC": (".heic", ".heif", ".hif"),
    "camera raw": (
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".mrw", ".nef", ".nrw", ".orf", ".pef"),
        *(".raf", ".raw", ".rw2", ".srw", ".x3f"),
    ),
    "Photoshop": (".psb", ".psd"),
    "SVG": (".svg", ".svgz"),
    "PostScript": (".eps", ".ps", ".ai"),
    "PDF": (".pdf",),
}
_KIND_OF_SUFFIX = {suffix: kind for kind, suffixes in _UNREADABLE.items() for suffix in suffixes}
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\x00", ".tif"),
    (b"MM\x00*", ".tif"),
)


def is_image_name(name: str) -> bool:
    """Whether a file has the suffix of an image that is read, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_video_name(name: str) -> bool:
    """Whether a file has the suffix of a video, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def unreadable_hint(name: str) -> str | None:
    """What to do with an image whose format is not read, by its suffix: ``HEIC images are not read; convert ...``.

    Returns:
        The sentence, None for other suffixes.
    """
    kind = _KIND_OF_SUFFIX.get(os.path.splitext(name)[1].lower())
    return None if kind is None else _sentence(kind)


def unreadable_hint_of(names: Iterable[str]) -> str | None:
    """`unreadable_hint` of the first such file among names, with their number; None where there is none."""
    kinds = [kind for name in names if (kind := _KIND_OF_SUFFIX.get(os.path.splitext(name)[1].lower())) is not None]
    if not kinds:
        return None
    count = f"{len(kinds)} {kinds[0]} file{'' if len(kinds) == 1 else 's'}"
    return f"{count}; {_sentence(kinds[0])}"


def unreadable_content(start: bytes) -> str | None:
    """`unreadable_hint` by the first 64 bytes of a file, whatever its name is."""
    kind = None
    brands = {start[8:12], *(start[at : at + 4] for at in range(16, min(len(start), 64), 4))}
    if start[4:8] == b"ftyp":
        if start[8:12] == b"crx ":
            kind = "camera raw"
        elif b"avif" not in brands and b"avis" not in brands and brands & _HEIC_BRANDS:
            kind = "HEIC"
    elif start.startswith((b"8BPS\x00\x01", b"8BPS\x00\x02")):
        kind = "Photoshop"
    elif start.startswith((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\x00", b"FOVb")) or (
        start.startswith((b"II*\x00", b"MM\x00*")) and start[8:10] == b"CR"
    ):
        kind = "camera raw"
    elif start.startswith(b"%!PS"):
        kind = "PostScript"
    elif start.startswith(b"%PDF"):
        kind = "PDF"
    elif b"<svg" in start or (start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<?xml") and b"svg" in start):
        kind = "SVG"
    return None if kind is None else _sentence(kind)


def _sentence(kind: str) -> str:
    return f"{kind} images are not read; {_CONVERT}"


def magic_suffix(content: bytes) -> str | None:
    """The file suffix that matches the first bytes, or None where they are not those of an image."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    if content[4:12] in (b"ftypavif", b"jP  \r\n\x87\n"):
        return ".avif" if content[4:8] == b"ftyp" else ".jp2"
    return next((suffix for start, suffix in _MAGIC if content.startswith(start)), None)
