import re

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.model.dataset import Image
from d2tune.report.thumbnails import Album, Sketch, ThumbnailError, jpeg
from tests.report.datasets import saved


def opened(image, view, *, scale=1.0):
    from io import BytesIO

    return np.asarray(PilImage.open(BytesIO(jpeg(image, view, scale=scale))).convert("RGB")).astype(int)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_shown_after_their_exif_orientation(tmp_path, orientation):
    upright = np.zeros((40, 80, 3), np.uint8)
    upright[:20, :40] = (255, 0, 0)
    upright[20:, 40:] = (0, 0, 255)
    turns = {1: [], 2: ["FLIP_LEFT_RIGHT"], 3: ["ROTATE_180"], 4: ["FLIP_TOP_BOTTOM"], 5: ["TRANSPOSE"]}
    turns |= {6: ["ROTATE_90"], 7: ["TRANSVERSE"], 8: ["ROTATE_270"]}
    stored = PilImage.fromarray(upright)
    for turn in turns[orientation]:
        stored = stored.transpose(PilImage.Transpose[turn])
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = Image(1, "a.jpg", 80, 40, tmp_path / "a.jpg")
    red = opened(image, (2, 2, 38, 18))
    blue = opened(image, (42, 22, 78, 38))
    assert red[..., 0].min() > 200 and red[..., 2].max() < 60
    assert blue[..., 2].min() > 200 and blue[..., 0].max() < 60


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_reduced_view_shows_the_same_place(tmp_path, suffix):
    pixels = np.zeros((1200, 1600, 3), np.uint8)
    pixels[800:1000, 400:600] = 255
    image = Image(1, "a", 1600, 1200, saved(tmp_path / f"a.{suffix}", pixels))
    shown = opened(image, (0, 0, 1600, 1200), scale=0.1)
    assert shown.shape == (120, 160, 3)
    rows, columns = np.nonzero(shown[..., 0] > 128)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (80, 99, 40, 59)


@pytest.mark.parametrize("mode", ["I;16", "F", "LA", "P", "CMYK", "1"])
def test_every_kind_of_image_can_be_shown(tmp_path, mode):
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    if mode == "I;16":
        path = saved(tmp_path / "a.png", ramp.astype(np.uint16) * 3)
    else:
        path = tmp_path / "a.tiff"
        PilImage.fromarray(ramp).convert(mode).save(path)
    shown = opened(Image(1, "a", 64, 48, path), (0, 0, 64, 48))
    assert shown[:, -8:].mean() - shown[:, :8].mean() > 100, "what is darker must be seen to be darker"


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_an_image_that_cannot_be_opened_says_so(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ThumbnailError, match="cannot be opened"):
        jpeg(Image(1, "a.png", 9, 9, tmp_path / "a.png"), (0, 0, 9, 9), scale=1)
    with pytest.raises(ThumbnailError, match="has no file"):
        jpeg(Image(1, "a.png", 9, 9), (0, 0, 9, 9), scale=1)


def test_an_album_gets_full(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    image = Image(1, "a.png", 200, 200, saved(tmp_path / "a.png", noise))
    album, frames = Album(100_000), []
    while not album.is_full:
        frames.append(album.frame(image, (0, 0, 200, 200), side_px=200))
    assert 100_000 <= sum(len(frame.uri) for frame in frames) < 100_000 + len(frames[0].uri)


def rendered(path, size):
    """The pixels inside of an SVG path of straight lines, by the even-odd rule, (H, W) bool."""
    import cv2

    rings = [
        np.array([[float(value) for value in point.split()] for point in re.split("[ML]", ring)[1:]])
        for ring in path.split("Z")[:-1]
    ]
    canvas = np.zeros(size, np.uint8)
    cv2.fillPoly(canvas, [np.round(ring * 16).astype(np.int32) for ring in rings], 1, shift=4)
    return canvas.astype(bool)


def test_masks_are_outlined_with_their_holes(tmp_path):
    mask = np.zeros((100, 100), bool)
    mask[20:80, 20:80] = True
    mask[40:60, 40:60] = False
    image = Image(1, "a.png", 100, 100, saved(tmp_path / "a.png", mask.astype(np.uint8) * 255))
    frame = Album(10**6).frame(
        image, (0, 0, 100, 100), side_px=400, outlines=[(Sketch(mask=mask), "#f00", "t", "object")]
    )
    paths = rendered(frame.outlines[0].path, (400, 400))
    wanted = np.kron(mask, np.ones((4, 4))).astype(bool)
    assert (paths & wanted).sum() / (paths | wanted).sum() > 0.97


@pytest.mark.parametrize("view", [(0, 0, 100, 100), (30, 25, 70, 65), (-20, -20, 50, 50), (85, 85, 100, 100)])
@pytest.mark.parametrize("side_px", [50, 400])
def test_a_mask_cut_to_its_box_is_outlined_as_a_whole_one(tmp_path, view, side_px):
    mask = np.zeros((100, 100), bool)
    mask[20:80, 24:76] = True
    mask[40:60, 40:60] = False
    image = Image(1, "a.png", 100, 100, saved(tmp_path / "a.png", mask.astype(np.uint8) * 255))
    cut = Sketch(mask=mask[20:80, 24:76], corner_px=(24, 20))
    assert cut.extent() == Sketch(mask=mask).extent() == (24, 20, 76, 80)
    traced = []
    for sketch in (Sketch(mask=mask), cut):
        frame = Album(10**6).frame(image, view, side_px=side_px, outlines=[(sketch, "#f00", "t", "object")])
        traced.append(rendered(frame.outlines[0].path, (side_px, side_px)) if frame.outlines else None)
    if view[0] == 85:
        assert traced == [None, None], "nothing of it is there"
    else:
        assert (traced[0] & traced[1]).sum() / (traced[0] | traced[1]).sum() > 0.97


def test_a_shape_too_small_to_be_seen_gets_a_mark(tmp_path):
    image = Image(1, "a.png", 100, 100, saved(tmp_path / "a.png", np.zeros((100, 100), np.uint8)))
    speck = Sketch((np.array([[50.0, 50], [50.1, 50], [50, 50.1]]),))
    frame = Album(10**6).frame(image, (0, 0, 100, 100), side_px=100, outlines=[(speck, "#f00", "t", "object")])
    assert "a4 4" in frame.outlines[0].path
