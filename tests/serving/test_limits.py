"""Images and bodies that are malformed, cut off, huge, slow or hostile: an error each, and the server goes on."""

from __future__ import annotations

import io
import socket
import struct
import time
import zlib
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from d2tune.serving.settings import Limits
from tests.serving.conftest import Running, Start
from tests.serving.stand_in import BrightBox, Gate, encoded, lamp

BOX = (10, 20, 40, 50)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width_px: int, height_px: int, *chunks: bytes, bits: int = 8, color: int = 2, data: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width_px, height_px, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bomb(side_px: int = 60_000) -> bytes:
    """A PNG of 3.6 gigapixels whose compressed rows are a few kilobytes."""
    return png(side_px, side_px, bits=1, color=0, data=zlib.compress(b"\0" * 1_000_000, 9))


def frames(format_name: str) -> bytes:
    stream = io.BytesIO()
    images = [Image.fromarray(lamp((0, 0, 10 + number, 10))) for number in range(3)]
    images[0].save(stream, format_name, save_all=True, append_images=images[1:])
    return stream.getvalue()


def jpeg_with_profile(profile_bytes: int) -> bytes:
    return encoded(lamp(BOX), "JPEG", icc_profile=b"p" * profile_bytes)


def deep_tiff() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ones((64, 64), np.float32)).save(stream, "TIFF")
    return stream.getvalue()


HOSTILE = {
    "empty file of the right type": (b"\xff\xd8\xff", 422, "bad_image"),
    "text": (b"hello", 422, "bad_image"),
    "zeros": (bytes(10_000), 422, "bad_image"),
    "cut JPEG": (encoded(lamp(BOX), "JPEG")[:300], 422, "bad_image"),
    "cut PNG": (encoded(lamp(BOX))[:100], 422, "bad_image"),
    "cut WebP": (encoded(lamp(BOX), "WEBP")[:60], 422, "bad_image"),
    "flipped bytes": (encoded(lamp(BOX))[:60] + b"\0\1\2\3" * 20, 422, "bad_image"),
    "PNG of no pixels": (png(0, 10), 422, "bad_image"),
    "bomb": (bomb(), 422, "bad_image"),
    "too many pixels": (png(20_000, 20_000, data=zlib.compress(b"")), 413, "too_many_pixels"),
    "GIF of frames": (frames("GIF"), 422, "several_frames"),
    "APNG": (frames("PNG"), 422, "several_frames"),
    "WebP of frames": (frames("WEBP"), 422, "several_frames"),
    "TIFF of pages": (frames("TIFF"), 422, "several_frames"),
    "TIFF of floats": (deep_tiff(), 422, "too_deep"),
    "large profile": (jpeg_with_profile(5_000_000), 422, "large_profile"),
    "PDF": (b"%PDF-1.7\n" + bytes(100), 422, "bad_image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", 422, "bad_image"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), 422, "bad_image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_images_are_refused(lamps: Running, name: str) -> None:
    content, status, code = HOSTILE[name]
    answer = lamps.predict(content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert str(Path.cwd()) not in answer.text and "Traceback" not in answer.text and "/tmp" not in answer.text
    assert lamps.predict(encoded(lamp(BOX))).status_code == 200


def test_images_of_other_depths_and_colors_are_read(lamps: Running) -> None:
    gray = lamp(BOX)[:, :, 0]
    deep = io.BytesIO()
    Image.fromarray(gray.astype(np.uint16) * 257).save(deep, "PNG")
    cmyk = io.BytesIO()
    Image.fromarray(lamp(BOX)).convert("CMYK").save(cmyk, "TIFF")
    contents = [encoded(gray), deep.getvalue(), cmyk.getvalue(), encoded(np.dstack([lamp(BOX), gray * 0 + 255]))]
    for content in contents:
        assert lamps.predict(content).json()["objects"][0]["box_xywh"] == [10, 20, 30, 30]


def test_pixels_of_the_header_decide_before_anything_is_decoded(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    from d2tune.serving import images

    def decode(content: bytes, **options: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(images, "read_photo_content", decode)
    server = start(limits=Limits(pixels=64 * 64 - 1))
    answer = server.predict(encoded(lamp(BOX)))
    assert answer.status_code == 413 and "64 x 64 px" in answer.json()["error"]["message"]


def test_first_frame_is_used_where_it_is_allowed(start: Start) -> None:
    server = start(limits=Limits(several_frames=True))
    for format_name in ("GIF", "PNG", "TIFF"):
        assert server.predict(frames(format_name)).json()["objects"][0]["box_xywh"] == [0, 0, 10, 10]


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("application/json", 415, "bad_type"),
        ("application/x-www-form-urlencoded", 415, "bad_type"),
        ("text/plain", 415, "bad_type"),
        ("multipart/form-data", 400, "bad_form"),
        ("multipart/form-data; boundary=x", 400, "bad_form"),
    ],
)
def test_bodies_of_other_types_are_refused(lamps: Running, kind: str, status: int, code: str) -> None:
    answer = lamps.predict(b"--x nonsense", kind)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_forms_without_a_file_and_with_too_many_are_refused(start: Start) -> None:
    server = start(limits=Limits(batch_images=2))
    answer = server.client.post("/v1/predict", data={"image": "text"}, files={"": b""})
    assert answer.status_code in (400, 422)
    files = [("images", (f"{number}.png", encoded(lamp(BOX)), "image/png")) for number in range(3)]
    many = server.client.post("/v1/predict/batch", files=files)
    assert (many.status_code, many.json()["error"]["code"]) == (400, "bad_form")


def test_body_without_content_is_refused(lamps: Running) -> None:
    answer = lamps.predict(b"")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "empty_body")


def test_declared_and_streamed_length_are_limited(start: Start) -> None:
    server = start(limits=Limits(body_bytes=10_000))
    declared = server.predict(bytes(20_000))
    assert (declared.status_code, declared.json()["error"]["code"]) == (413, "body_too_long")
    pieces = (bytes(1000) for _ in range(20))  # without a length in the head
    streamed = httpx.post(f"{server.url}/v1/predict", content=pieces, headers={"Content-Type": "image/png"})
    assert (streamed.status_code, streamed.json()["error"]["code"]) == (413, "body_too_long")
    assert server.service.budget.used_bytes == 0


def test_bytes_of_all_requests_together_are_limited(start: Start) -> None:
    gate = Gate()
    content = encoded(lamp(BOX))
    server = start(BrightBox(before=gate), limits=Limits(waiting_bytes=len(content) + 10))
    with socket.create_connection(server.url.removeprefix("http://").split(":")) as first:
        first.sendall(head(len(content)) + content)
        assert gate.entered.wait(10)
        refused = server.predict(content)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        gate.open()
        assert first.recv(100).startswith(b"HTTP/1.1 200")
    assert server.predict(content).status_code == 200


def head(length: int, *, path: str = "/v1/predict") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", "Content-Type: image/png", f"Content-Length: {length}", "", ""]
    return "\r\n".join(lines).encode()


def connection(server: Running) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def received(one: socket.socket) -> bytes:
    content = b""
    while piece := one.recv(65536):
        content += piece
    return content


def test_slow_heads_and_bodies_end(start: Start) -> None:
    server = start(limits=Limits(header_s=0.3, body_s=0.3))
    with connection(server) as silent, connection(server) as slow_head, connection(server) as slow_body:
        slow_head.sendall(b"POST /v1/predict HTTP/1.1\r\n")
        slow_body.sendall(head(1000) + b"abc")
        began = time.monotonic()
        for _ in range(4):  # a byte now and then does not begin the time anew
            time.sleep(0.1)
            try:
                slow_head.sendall(b"X")
                slow_body.sendall(b"d")
            except OSError:
                break
        assert received(silent) == b""
        assert b"slow_body" in received(slow_body)
        assert time.monotonic() - began < 3
    assert server.predict(encoded(lamp(BOX))).status_code == 200
    assert server.service.budget.used_bytes == 0


def test_requests_that_are_cut_off_leave_nothing(start: Start) -> None:
    gate = Gate()
    server = start(BrightBox(before=gate))
    content = encoded(lamp(BOX))
    with connection(server) as half:
        half.sendall(head(len(content)) + content[:50])
    with connection(server) as gone:  # it goes while its image is with the network
        gone.sendall(head(len(content)) + content)
        assert gate.entered.wait(10)
    with connection(server) as waiting:  # it goes before the network has begun
        waiting.sendall(head(len(content)) + content)
        wait_until(lambda: server.service.workers["lamps"].waiting == 2)
    wait_until(lambda: server.service.workers["lamps"].waiting == 1)
    gate.open()
    wait_until(lambda: server.service.workers["lamps"].waiting == 0)
    assert server.service.budget.used_bytes == 0
    # the black image before the model was ready, and the one that the network had begun with
    assert sum(server.network.batches) == 2
    assert server.predict(content).status_code == 200


def wait_until(condition: object, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.01)
