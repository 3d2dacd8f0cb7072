import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from d2tune.report.sheets.cards import SHEET_WIDTH_PX
from d2tune.report.sheets.label_overlay import color_map, colors, overlay, segment_overlay, to_rgb
from d2tune.report.sheets.label_sheet import LabelPanel, label_sheet, write_label_sheet
from tests.cases import on_demand
from tests.shared_files import SHARED

LONG = tuple(f"class number {i} with a name that takes quite some room in a legend" for i in range(20))
GRAY = np.full((120, 160, 3), 100, np.uint8)


def halves() -> np.ndarray:
    """Class 0 on the left, class 1 on the right, pixels without a label in the lower right corner."""
    labels = np.zeros((120, 160), np.uint8)
    labels[:, 80:] = 1
    labels[60:, 80:] = 255
    return labels


def membrane(number: int) -> tuple[np.ndarray, np.ndarray]:
    folder = SHARED / "data" / "membrane" / "train"
    with (
        Image.open(folder / "image" / f"{number}.png") as photo,
        Image.open(folder / "label" / f"{number}.png") as border,
    ):
        return np.array(photo.convert("RGB")), (np.array(border) // 255).astype(np.uint8)


def has(photo: np.ndarray, color: np.ndarray) -> bool:
    return bool((photo == color).all(axis=2).any())


def test_colors_are_far_apart_and_do_not_change_with_further_classes():
    table = colors(LONG)
    assert table.shape == (20, 3) and table.dtype == np.uint8
    lab = cv2.cvtColor(table[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    gaps = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert gaps[~np.eye(20, dtype=bool)].min() > 18
    assert (colors(LONG[:7]) == table[:7]).all()
    assert len(np.unique(colors([str(i) for i in range(200)]), axis=0)) == 200


def test_a_background_is_gray_and_takes_no_color_from_the_others():
    with_background, without = colors(["background", "ship", "pier"]), colors(["ship", "pier"])
    assert np.ptp(with_background[0].astype(int)) < 20
    assert (with_background[1:] == without).all()
    assert np.ptp(without.astype(int), axis=1).min() > 100


def test_an_overlay_mixes_color_and_photo_and_draws_borders_in_full():
    table = np.array([[200, 0, 0], [0, 0, 250]], np.uint8)
    painted = overlay(GRAY, halves(), colors=table, alpha=0.5)
    assert painted.dtype == np.uint8 and (GRAY == 100).all()
    assert (painted[:, :79] == (150, 50, 50)).all()
    assert (painted[:59, 81:] == (50, 50, 175)).all()
    assert (painted[:, 79] == table[0]).all() and (painted[:59, 80] == table[1]).all()
    corner = painted[62:, 82:]
    assert (corner == 100).all(axis=2).mean() > 0.4, "the photo shows through"
    assert len(np.unique(corner)) == 3 and corner.min() < 100 < corner.max(), "under light and dark lines"


def test_the_background_of_an_overlay_stays_the_photo():
    table = np.array([[200, 0, 0], [0, 0, 250]], np.uint8)
    painted = overlay(GRAY, halves(), colors=table, alpha=0.5, background=0)
    assert (painted[:, :80] == 100).all()
    assert (painted[:59, 81:] == (50, 50, 175)).all() and (painted[:59, 80] == table[1]).all()


def test_a_map_has_the_colors_of_its_classes_and_hatches_the_rest():
    table = colors(["a", "b"])
    painted = color_map(halves(), table)
    assert (painted[:, :80] == table[0]).all() and (painted[:60, 80:] == table[1]).all()
    rest = painted[60:, 80:].astype(int)
    assert np.ptp(rest, axis=2).max() <= 1 and len(np.unique(rest)) >= 3


@pytest.mark.parametrize(
    "draw",
    [lambda labels: overlay(GRAY, labels, colors=colors("ab")), lambda labels: color_map(labels, colors("ab"))],
)
def test_a_label_outside_the_classes_is_refused(draw):
    labels = halves()
    labels[3, 3] = 2
    with pytest.raises(ValueError, match="label 2 is outside the 2 classes"):
        draw(labels)


def test_things_have_shades_of_their_own_and_stuff_has_its_class_color():
    ids = np.zeros((120, 160), np.int32)
    ids[:60] = 7
    ids[80:110, 10:50], ids[80:110, 60:100], ids[80:110, 110:150] = 1000, 1001, 1002
    names = ("car", "person", "sky")
    painted = segment_overlay(GRAY, ids, [(7, 2, False), (1000, 0, True), (1001, 0, True), (1002, 1, True)], names)
    table = colors(names).astype(float)
    assert (np.abs(painted[10, 80] - (50 + table[2] / 2)) <= 1).all()
    inside = [painted[105, x].astype(float) for x in (15, 65, 115)]
    assert (np.abs(inside[0] - (50 + table[0] / 2)) <= 1).all()
    assert (np.abs(inside[2] - (50 + table[1] / 2)) <= 1).all()
    assert 20 < np.abs(inside[1] - inside[0]).sum() < np.abs(inside[2] - inside[0]).sum()
    plain = segment_overlay(GRAY, ids, [(7, 2, False), (1000, 2, False), (1001, 2, False), (1002, 2, False)], names)
    assert has(painted, table[0]) and not has(plain, table[0])
    nothing = segment_overlay(GRAY, np.zeros_like(ids), [], names)
    assert nothing.min() < 100 < nothing.max() and (nothing == 100).mean() > 0.4


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(1, np.uint8), (1, np.uint16), (2, np.float32), (3, np.float64), (4, np.uint16), (60, np.uint16)],
)
def test_any_raster_can_be_shown(channels, dtype):
    ramp = np.linspace(1, 200, 40 * 50).reshape(40, 50, 1)
    photo = np.concatenate([ramp * (1 + i) if dtype != np.uint8 else ramp for i in range(channels)], axis=2)
    shown = to_rgb(photo.astype(dtype))
    assert shown.shape == (40, 50, 3) and shown.dtype == np.uint8
    assert (np.diff(shown[..., 0].ravel().astype(int)) >= 0).all() and shown.max() - shown.min() > 150


def test_photos_are_shown_as_they_are():
    photo, _ = membrane(0)
    assert (to_rgb(photo) == photo).all() and (to_rgb(photo[..., :1]) == photo).all()


def test_a_series_shows_when_it_is_bright_and_missing_data_are_dark():
    series = np.random.default_rng(0).normal(100, 1, (30, 30, 60)).astype(np.float32)
    series[:10, :, :20] += 50
    series[10:20, :, 40:] += 50
    series[25:, 25:] = np.nan
    series[0, 0, 3] = np.nan
    shown = to_rgb(series).astype(int)
    assert (shown[:10, :, 0] - shown[:10, :, 2]).min() > 100 and (shown[10:20, :, 2] - shown[10:20, :, 0]).min() > 100
    assert (shown[25:, 25:] == 24).all()
    assert (to_rgb(np.full((4, 4, 5), np.nan)) == 24).all()
    with pytest.raises(ValueError, match=r"must be \(H, W, C\)"):
        to_rgb(np.zeros((4, 4)))


@pytest.mark.parametrize("count", on_demand([1, 3, 5], 5))
def test_a_sheet_shows_real_photos_and_their_maps(tmp_path, count):
    panels = []
    for number in range(count):
        photo, labels = membrane(number)
        panels.append(LabelPanel(photo, f"{number}.png", labels, np.roll(labels, 3, axis=0), note="mIoU 63.1"))
    names = ("membrane", "cell")
    path = tmp_path / "new" / "contact_sheet.png"
    write_label_sheet(path, panels, class_names=names, title="membrane", subtitle="mIoU 63.1")
    with Image.open(path) as png:
        sheet = np.array(png)
    assert (sheet == label_sheet(panels, class_names=names, title="membrane", subtitle="mIoU 63.1")).all()
    assert sheet.shape[1] == SHEET_WIDTH_PX
    for color in colors(names):
        assert (sheet[:170] == color).all(axis=2).sum() > 400, "a swatch in the legend"
        assert (sheet[200:] == color).all(axis=2).sum() > 5000, "contours in the panels"


def test_a_legend_of_twenty_long_names_stays_on_the_sheet_and_names_what_is_ignored():
    panel = LabelPanel(
        GRAY, "a", np.arange(120 * 160, dtype=np.uint32).reshape(120, 160).astype(np.uint8) % 20, halves()
    )
    sheet = label_sheet([panel], class_names=LONG, title="many", subtitle="")
    page = sheet[0, 0]
    white = np.flatnonzero((sheet[:, 60] == 255).all(axis=1))
    legend = sheet[110 : white[0]]
    assert (legend[:, :40] == page).all() and (legend[:, -40:] == page).all()
    for color in colors(LONG):
        assert (legend == color).all(axis=2).sum() > 400
    labeled = LabelPanel(GRAY, "a", halves() % 2, halves() % 2)
    shorter = label_sheet([labeled], class_names=LONG, title="many", subtitle="")
    assert (legend[-60:] != shorter[110 : white[0]][-60:]).any()


def test_of_many_classes_the_legend_names_those_that_occur():
    names = tuple(f"class {i}" for i in range(60))
    sheet = label_sheet([LabelPanel(GRAY, "a", halves() % 2, halves() % 2)], class_names=names, title="", subtitle="")
    table = colors(names)
    assert has(sheet[:180], table[0]) and has(sheet[:180], table[1]) and not has(sheet[:180], table[30])


def test_ready_made_photos_take_the_place_of_maps():
    truth, predicted = (np.full((60, 80, 3), tone, np.uint8) for tone in ((9, 99, 199), (199, 99, 9)))
    panel = LabelPanel(GRAY, "a", truth_rgb=truth, predicted_rgb=predicted)
    sheet = label_sheet([panel], class_names=["car", "sky"], title="", subtitle="")
    assert has(sheet[:, : SHEET_WIDTH_PX * 2 // 3], truth[0, 0]) and has(
        sheet[:, SHEET_WIDTH_PX * 2 // 3 :], predicted[0, 0]
    )


@pytest.mark.parametrize(
    ("panels", "says"),
    [
        ([], "1 to 16 panels, not 0"),
        ([LabelPanel(GRAY, "a", halves(), halves())] * 17, "1 to 16 panels, not 17"),
        ([LabelPanel(GRAY, "a", halves())], "panel 'a' has neither"),
        ([LabelPanel(GRAY, "a", halves()[1:], halves())], r"panel 'a' has labels \(119, 160\)"),
    ],
)
def test_panels_that_cannot_be_shown(panels, says):
    with pytest.raises(ValueError, match=says):
        label_sheet(panels, class_names=["a", "b"], title="", subtitle="")


def test_needs_neither_torch_nor_detectron2():
    code = (
        "import sys, d2tune.report.sheets.label_sheet\n"
        "assert not {'torch', 'detectron2', 'matplotlib'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
