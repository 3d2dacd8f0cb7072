"""Limits that hold before an image is decoded: on bytes while they arrive, and on what its header declares."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from d2tune.annotations.io.images import Header, ImageError, read_header
from d2tune.serving.decoding_costs import (
    opened,
    refuse_costly_structure,
    refuse_costly_tiff,
    refuse_large_tile,
    tile_size,
)
from d2tune.serving.problems import ApiError, ClientGoneError, busy
from d2tune.serving.settings import MIB, Limits

_DISCARDED_S = 2.0
_RETRY_S = 5.0
_DEEP = {"16-bit": 16, "integer": 32, "float": 32}


class ByteBudget:
    """The bytes of bodies that the server holds at a time, used by the event loop alone.

    Args:
        limit_bytes: Most bytes.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.used_bytes = 0

    @contextmanager
    def reserving(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that takes bytes of the budget, which are given back when the context ends."""
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if self.used_bytes + count > self._limit_bytes:
                raise busy("the server holds too many bytes of requests", _RETRY_S)
            self.used_bytes += count
            taken += count

        try:
            yield take
        finally:
            self.used_bytes -= taken


async def read_body(request: Request, limits: Limits, take: Callable[[int], None]) -> bytes:
    """The body of a request, counted while it arrives.

    Args:
        request: The request.
        limits: The limits.
        take: Takes bytes of the budget of the server.

    Raises:
        ApiError: It is empty, too long, slow, or the server holds too many bytes.
        ClientGoneError: The client closed the connection.
    """
    most = limits.body_bytes
    declared = request.headers.get("content-length", "")
    stream = request.stream()
    if declared.isdigit() and int(declared) > most:
        await _discard(stream, most)
        raise _too_long(most)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in stream:
                size += len(chunk)
                if size > most:
                    await _discard(stream, most)
                    raise _too_long(most)
                take(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        message = f"the body did not arrive within {limits.body_s:g} s"
        raise ApiError(408, "slow_body", message, closes=True) from None
    except ClientDisconnect:
        raise ClientGoneError from None
    if not size:
        raise ApiError(422, "empty_body", "the body of the request is empty; send the content of an image file")
    return b"".join(chunks)


async def _discard(stream: AsyncIterator[bytes], most_bytes: int) -> None:
    """Read on for a moment, because many clients look for an answer only after they have sent their body."""
    began, size = time.monotonic(), 0
    try:
        async with asyncio.timeout(_DISCARDED_S):
            async for chunk in stream:
                size += len(chunk)
                if size > most_bytes or time.monotonic() - began > _DISCARDED_S:
                    return
    except (TimeoutError, ClientDisconnect):
        return


def _too_long(most_bytes: int) -> ApiError:
    message = f"the body is longer than {most_bytes / MIB:g} MiB; send a smaller image"
    return ApiError(413, "body_too_long", message, closes=True)


def check_header(content: bytes, limits: Limits) -> Header:
    """Check what the header of an image declares, without decoding it.

    Args:
        content: The content of an image file.
        limits: The limits.

    Raises:
        ApiError: It is not an image, or beyond a limit.
    """
    refuse_costly_structure(content)
    try:
        header = read_header(content)
    except ImageError as error:
        raise _unreadable(error) from None
    _refuse_pixels(header.width_px, header.height_px, limits)
    refuse_costly_tiff(content, most_pixels=limits.pixels)
    profile_bytes = _checked_profile(content, limits)
    form = header.pixel_format
    if form is not None and form.has_frames and not limits.several_frames:
        raise ApiError(422, "several_frames", "the image has several frames or pages; send one of them")
    depth = 8 if form is None else _DEEP.get(form.kind, 8)
    if depth > limits.depth_bits:
        message = f"the image has values of {depth} bits, and at most {limits.depth_bits} bits are read"
        raise ApiError(422, "too_deep", message)
    if profile_bytes > limits.profile_bytes:
        message = f"the color profile or EXIF block has {profile_bytes:,} bytes, more than {limits.profile_bytes:,}"
        raise ApiError(422, "large_profile", message)
    return header


def _refuse_pixels(width_px: int, height_px: int, limits: Limits) -> None:
    if width_px * height_px > limits.pixels:
        message = f"the image has {width_px} x {height_px} px, and at most {limits.pixels:,} pixels are read"
        raise ApiError(413, "too_many_pixels", message)


def _checked_profile(content: bytes, limits: Limits) -> int:
    """The size of the larger one of the color profile and the EXIF block; 0 where Pillow does not read the file.

    The size that Pillow would decode is checked as well.
    """
    try:
        image = opened(content)
    except ImageError as error:
        raise _unreadable(error) from None
    if image is None:
        return 0
    with image:
        _refuse_pixels(image.width, image.height, limits)
        refuse_large_tile(*tile_size(image), most_pixels=limits.pixels)
        blocks = [image.info.get(name) for name in ("icc_profile", "exif")]
    return max(len(block) for block in [b"", *(block for block in blocks if isinstance(block, bytes))])


def _unreadable(error: ImageError) -> ApiError:
    return ApiError(422, "bad_image", f"the image cannot be read: {error}")
