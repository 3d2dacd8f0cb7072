import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from d2tune.report.sheets.contact_sheet import Panel, contact_sheet, draw_instances, paired_colors, write_contact_sheet
from d2tune.report.sheets.drawing import font, instance_colors, line_width_px, place_chips, shortened
from d2tune.text import printable
from tests.shared_files import SHARED


def balloons(count: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, photo and masks of the first validation photos, at a width of 400 px."""
    folder = SHARED / "data" / "balloon" / "val"
    annotated = []
    for entry in list(json.loads((folder / "via_region_data.json").read_text()).values())[:count]:
        with Image.open(folder / entry["filename"]) as photo:
            scale = 400 / photo.width
            photo = np.array(photo.convert("RGB").resize((400, round(photo.height * scale))))
        masks = np.zeros((len(entry["regions"]), *photo.shape[:2]), np.uint8)
        for mask, region in zip(masks, entry["regions"].values(), strict=True):
            outline = region["shape_attributes"]
            points = np.stack([outline["all_points_x"], outline["all_points_y"]], axis=1) * scale
            cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
        annotated.append((entry["filename"], photo, masks.astype(bool)))
    return annotated


def shaken(masks: np.ndarray, by_px: int = 3) -> np.ndarray:
    return np.roll(masks, (by_px, by_px), axis=(1, 2))


def panel(name: str, photo: np.ndarray, truth: np.ndarray, predicted: np.ndarray, label: str = "balloon") -> Panel:
    scores = np.linspace(0.99, 0.55, len(predicted))
    return Panel(photo, name, truth, [label] * len(truth), predicted, [label] * len(predicted), scores)


def blank(height: int, width: int, count: int = 0) -> Panel:
    masks = np.zeros((count, height, width), bool)
    for i in range(count):
        masks[i, height // 4 : height // 2, width * i // count : width * (2 * i + 1) // (2 * count)] = True
    return panel(f"{width}x{height}.jpg", np.full((height, width, 3), 128, np.uint8), masks, masks)


def disk(shape: tuple[int, int], center: tuple[int, int], radius: int) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (x - center[0]) ** 2 + (y - center[1]) ** 2 <= radius**2


def close_to(photo: np.ndarray, color: np.ndarray, by: int = 12) -> np.ndarray:
    return (np.abs(photo.astype(int) - color.astype(int)) <= by).all(axis=2)


def test_outline_is_on_the_contour_and_nowhere_else():
    gray = np.full((300, 400, 3), 128, np.uint8)
    mask = disk((300, 400), (200, 170), 80)
    color = np.array([0, 176, 255], np.uint8)
    outlined = draw_instances(gray, mask[None], [""], colors=[color])
    y, x = np.mgrid[:300, :400]
    from_rim = np.hypot(x - 200, y - 170) - 80
    half = line_width_px((300, 400)) / 2
    assert close_to(outlined, color)[np.abs(from_rim - 0.25) < half - 0.8].all()
    assert not close_to(outlined, color, by=40)[np.abs(from_rim) > half + 2.5].any()
    assert (outlined[from_rim > half + 4] == 128).all()
    assert (gray == 128).all()
    inside = outlined[from_rim < -half - 4].astype(int)
    assert np.abs(inside - (128 + 0.26 * (color.astype(int) - 128))).max() <= 1
    levels = len(np.unique(outlined[np.abs(from_rim) < half + 3].reshape(-1, 3), axis=0))
    assert levels > 20, "an antialiased edge has many shades"


def test_outlines_lie_on_real_contours():
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for _, photo, masks in balloons(3):
        colors = instance_colors(len(masks))
        alone = [draw_instances(photo, mask[None], [""], colors=[c]) for mask, c in zip(masks, colors, strict=True)]
        for mask, color, outlined in zip(masks, colors, alone, strict=True):
            rim = mask & ~cv2.erode(mask.astype(np.uint8), cross).astype(bool)
            rim[[0, -1]] = rim[:, [0, -1]] = False
            assert close_to(outlined, color, by=60)[rim].mean() > 0.7
            near = cv2.dilate(mask.astype(np.uint8), np.ones((13, 13))).astype(bool)
            assert (outlined[~near] == photo[~near]).all()


def test_no_instance_leaves_the_photo_alone():
    _, photo, _ = balloons(1)[0]
    outlined = draw_instances(photo, np.zeros((0, *photo.shape[:2]), bool), [])
    assert outlined is not photo and (outlined == photo).all()
    assert (draw_instances(photo, np.zeros((1, *photo.shape[:2]), bool), ["balloon"]) == photo).all()


@pytest.mark.parametrize("shape", [(120, 160), (288, 384), (900, 600)])
@pytest.mark.parametrize("count", [1, 6, 40])
def test_chips_stay_inside_and_apart(shape, count):
    rng = np.random.default_rng(count)
    spots = rng.uniform(-0.02, 1.02, (count, 2)) * shape[::-1]
    masks = [disk(shape, (x, y), 0.06 * min(shape) + 2) for x, y in spots]
    masks = [mask for mask in masks if mask.any()]
    texts = ["microcontroller 0.97"] * len(masks)
    chips = place_chips(masks, texts, instance_colors(len(masks)), shape)
    assert len(chips) == len(masks) or (count == 40 and len(chips) > 5)
    for i, ((left, top, right, bottom), _, _, size_px) in enumerate(chips):
        assert 0 <= left < right <= shape[1] and 0 <= top < bottom <= shape[0] and size_px >= 8
        for (left2, top2, right2, bottom2), *_ in chips[:i]:
            assert right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top


def test_chips_keep_off_small_objects_and_near_their_own():
    shape = (400, 600)
    masks = [disk(shape, (x, y), 15) for x, y in ((100, 100), (300, 30), (590, 395), (300, 200))]
    for mask, (rect, *_) in zip(
        masks, place_chips(masks, ["balloon 0.90"] * 4, instance_colors(4), shape), strict=True
    ):
        left, top, right, bottom = rect
        assert not any(other[top:bottom, left:right].any() for other in masks)
        reach = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15))).astype(bool)
        assert reach[top:bottom, left:right].any()


def test_a_chip_says_class_and_score_in_its_color():
    gray = np.full((300, 400, 3), 128, np.uint8)
    mask = disk((300, 400), (200, 170), 60)
    color = np.array([255, 196, 0], np.uint8)
    with_score = draw_instances(gray, mask[None], ["balloon"], scores=[0.934], colors=[color])
    (rect, text, _, size_px), *_ = place_chips([mask], ["balloon 0.93"], color[None], (300, 400))
    assert text == "balloon 0.93" and rect[2] - rect[0] > font(size_px, bold=True).getlength(text)
    chip = with_score[rect[1] : rect[3], rect[0] : rect[2]]
    assert close_to(chip, color).mean() > 0.45
    assert (chip.max(axis=2) < 60).mean() > 0.03, "dark letters on a bright chip"
    other = draw_instances(gray, mask[None], ["balloon"], scores=[0.95], colors=[color])
    changed = np.argwhere((with_score != other).any(axis=2))
    assert len(changed) and (changed >= (rect[1], rect[0])).all() and (changed < (rect[3], rect[2])).all()


def test_lines_and_letters_grow_with_the_photo():
    assert line_width_px((1200, 1600)) > 2 * line_width_px((300, 400))
    sizes = []
    for shape in ((300, 400), (900, 1200)):
        mask = disk(shape, (shape[1] // 2, shape[0] // 2), shape[0] // 5)
        sizes.append(place_chips([mask], ["balloon"], instance_colors(1), shape)[0][3])
    assert sizes[1] >= 2 * sizes[0]


def test_long_text_is_cut_in_the_middle():
    face = font(16)
    short = shortened("a_very_long_file_name_0001.jpg", face, 120)
    assert face.getlength(short) <= 120 and short.startswith("a_v") and short.endswith(".jpg") and "…" in short
    assert shortened("a.jpg", face, 120) == "a.jpg"
    assert shortened("a.jpg", face, 2) == ""


@pytest.mark.parametrize("name", ["red\ncar", "\x1b[31mcar", "\ud800car", "a\u2028b"])
def test_names_with_line_ends_and_control_characters_are_written_out(name):
    face = font(17)
    assert shortened(name, face, 1000) == printable(name)
    ((_, photo, masks),) = balloons(1)
    sheet = contact_sheet([panel(name, photo, masks, masks, label=name)], title=name, subtitle=name)
    written = printable(name)
    same = contact_sheet([panel(written, photo, masks, masks, label=written)], title=written, subtitle=written)
    assert (sheet == same).all()


def test_colors_are_many_and_apart():
    colors = instance_colors(60)
    assert len(np.unique(colors, axis=0)) == 60
    assert (instance_colors(5) == colors[:5]).all()
    gaps = np.linalg.norm(colors[:12, None].astype(float) - colors[None, :12], axis=2)
    assert gaps[~np.eye(12, dtype=bool)].min() > 60


def test_a_prediction_has_the_color_of_the_truth_it_meets():
    def square(left: int, width: int = 20) -> np.ndarray:
        mask = np.zeros((40, 120), bool)
        mask[10:30, left : left + width] = True
        return mask

    truth = np.stack([square(0), square(30), square(60)])
    predicted = np.stack([square(62), square(90), square(4), square(0), square(42)])
    first, second = paired_colors(truth, predicted)
    assert (first == instance_colors(3)).all()
    pairs = [[i for i in range(3) if (first[i] == color).all()] for color in second]
    assert pairs == [[2], [], [], [0], []], "0.67 and 1.0 on one truth: the better takes it; 0.25 is no match"
    assert len(np.unique(np.concatenate([first, second]), axis=0)) == 3 + 3
    nothing = np.zeros((0, 40, 120), bool)
    assert paired_colors(nothing, truth)[1].shape == (3, 3) and paired_colors(truth, nothing)[1].shape == (0, 3)


@pytest.mark.parametrize("count", [1, 2, 5, 8, 9, 16])
def test_sheet_has_even_margins_and_fits_the_page(count):
    shapes = [(288, 384), (384, 288), (100, 400), (400, 90), (1, 1)]
    sheet = contact_sheet([blank(*shapes[i % 5], count=i % 3) for i in range(count)], title="balloon", subtitle="x")
    height, width = sheet.shape[:2]
    assert sheet.dtype == np.uint8 and 2000 <= width <= 2400 and 300 < height < 4200
    page = sheet[0, 0]
    assert (sheet[:, :40] == page)[200:].all() and (sheet[-40:] == page).all() and (sheet[:, -40:] == page).all()
    white = (sheet == 255).all(axis=2)
    columns = 1 if count == 1 else 2 if count <= 8 else 3
    edges = np.flatnonzero(np.diff(white[150].astype(int)) == 1)
    starts = [x for x in edges + 1 if white[150, x : x + 14].all() and (sheet[150, x - 20 : x] == page).all()]
    assert len(starts) == columns and starts[0] == 40


def test_photos_stand_side_by_side_in_one_size_with_their_instances():
    name, photo, masks = balloons(2)[1]
    sheet = contact_sheet([panel(name, photo, masks, shaken(masks, 1)[1:])], title="balloon", subtitle="")
    without = contact_sheet([panel(name, photo, masks[:0], masks[:0])], title="balloon", subtitle="")
    assert sheet.shape == without.shape
    changed = (sheet != without).any(axis=2)
    middle = sheet.shape[1] // 2
    for half, first in ((changed[:, :middle], 0), (changed[:, middle:], 1)):
        outlined = sheet[:, :middle] if first == 0 else sheet[:, middle:]
        for i, color in enumerate(instance_colors(len(masks))):
            assert (close_to(outlined, color) & half).any() == (i >= first)


def test_real_photos_make_a_png(tmp_path):
    panels = [panel(name, photo, masks, shaken(masks)) for name, photo, masks in balloons(4)]
    path = tmp_path / "new" / "contact_sheet.png"
    write_contact_sheet(path, panels, title="balloon", subtitle="4 photos · mask AP 55.5")
    with Image.open(path) as png:
        assert (png.format, png.mode) == ("PNG", "RGB")
        assert (np.asarray(png) == contact_sheet(panels, title="balloon", subtitle="4 photos · mask AP 55.5")).all()
    assert [p.name for p in path.parent.iterdir()] == ["contact_sheet.png"]


@pytest.mark.parametrize("count", [0, 17])
def test_too_few_or_too_many_panels(count):
    with pytest.raises(ValueError, match=f"1 to 16 panels, not {count}"):
        contact_sheet([blank(30, 40)] * count, title="", subtitle="")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": ["a"]}, "1 labels"),
        ({"scores": [0.5]}, "1 scores for 2 labels"),
        ({"colors": [[1, 2, 3]]}, "1 colors for 2 labels"),
        ({"image_rgb": np.zeros((30, 40), np.uint8)}, r"\(H, W, 3\) uint8"),
        ({"image_rgb": np.zeros((31, 40, 3), np.uint8)}, r"masks are \(2, 30, 40\)"),
    ],
)
def test_arguments_that_do_not_belong_together(change, says):
    given = {"image_rgb": np.zeros((30, 40, 3), np.uint8), "masks": np.zeros((2, 30, 40), bool), "labels": ["a", "b"]}
    with pytest.raises(ValueError, match=says):
        draw_instances(**{**given, **change})


def test_needs_neither_torch_nor_detectron2():
    code = (
        "import sys, d2tune.report.sheets.contact_sheet, d2tune.report.tables\n"
        "d2tune.report.sheets.drawing.font(12)\n"
        "assert not {'torch', 'detectron2', 'matplotlib'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_outlines_of_small_objects_on_a_large_image_leave_their_inside_visible() -> None:
    """A line of 13 px, as wide as suits the image, would cover all of a mask of 12 px."""
    image = np.full((3000, 3000, 3), 100, np.uint8)
    mask = np.zeros((3000, 3000), bool)
    mask[1500:1512, 1500:1512] = True
    outlined = draw_instances(image, mask[None], ["a"], colors=[(200, 0, 100)])
    assert outlined[1506, 1506].tolist() == [126, 74, 100]
