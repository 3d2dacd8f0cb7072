import io
import math
import os
import random
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from PIL import Image

from d2tune.report.plots import bar_plots, confusion_plot, curve_plots, style
from d2tune.report.plots.bar_plots import ERROR_WORDS, Bar, write_class_metric, write_error_types, write_size_ap
from d2tune.report.plots.confusion_plot import write_confusion
from d2tune.report.plots.curve_plots import Curve, OperatingPoint, ScoreBin, write_calibration, write_precision_recall
from tests.cases import on_demand

RECALLS = np.linspace(0, 1, 101)
ODD_NAMES = [
    "a class name of just forty letters in it", "W" * 40, "$x^2$ and $\\frac{1", "under_score_{", "Größenmaßstab",
    "水晶", "結晶", "line\nend\x00", "", "100 % $",
]  # fmt: skip

Write = Callable[[Path], None]


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Figure, list[Text]]]:
    """Each page that is written, with the texts that were really drawn, as the writing goes on."""
    seen: list[tuple[Figure, list[Text]]] = []

    class Recorder(RendererAgg):
        def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
            assert ismath is False, f"{s!r} was read as mathematics"
            if mtext is not None and s.strip():
                self.texts[id(mtext)] = mtext
            super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)

    def watched(path: str | Path, page: Figure) -> None:
        recorder = Recorder(page.bbox.width, page.bbox.height, page.dpi)
        recorder.texts = {}
        page.draw(recorder)
        # a text of several lines is drawn without saying which text it is
        of_lines = [text for text in page.findobj(Text) if "\n" in text.get_text()]
        seen.append((page, [*recorder.texts.values(), *of_lines]))
        style.save_png(path, page)

    for module in (curve_plots, bar_plots, confusion_plot):
        monkeypatch.setattr(module, "save_png", watched)
    return seen


def curve(name: str, quality: float, *, point: bool = True) -> Curve:
    end = min(1.0, 0.3 + 0.75 * quality)
    precision = np.where(end >= RECALLS, 1 - (1 - quality) * RECALLS**2, 0.0)
    at = OperatingPoint(0.5, float(precision[int(100 * end) - 1]), float(int(100 * end) - 1) / 100)
    return Curve(name, RECALLS, precision, float(100 * precision.mean()), at if point else None)


def no_curve(name: str) -> Curve:
    return Curve(name, RECALLS, np.full(101, -1.0), None)


def bins(count: int, detections: int) -> list[ScoreBin]:
    edges = np.linspace(0, 1, count + 1)
    rows = []
    for number, (low, high) in enumerate(pairwise(edges)):
        inside = 0 if number == 2 else detections * (count - number)
        middle = (low + high) / 2
        rows.append(ScoreBin(low, high, inside, middle if inside else None, middle**1.5 if inside else None))
    return rows


def confusion(classes: int, largest: int) -> np.ndarray:
    rng = np.random.default_rng(classes)
    counts = rng.integers(0, largest // 5 + 1, (classes + 1, classes + 1)) * (rng.random((classes + 1,) * 2) < 0.3)
    counts[np.arange(classes), np.arange(classes)] = largest
    counts[-1, -1] = 0
    return counts


def bars(names: list[str], *, count: int | None = None) -> list[Bar]:
    rng = random.Random(3)
    values = [rng.uniform(0, 100) for _ in names]
    rows = [
        Bar(name, value, max(0, value - 9), min(100, value + 9), count)
        for name, value in zip(names, values, strict=True)
    ]
    if len(rows) > 2:
        rows[1] = Bar(names[1], None, count=0, reason=f"class {names[1]!r} has no ground truth in val")
        rows[2] = Bar(names[2], math.nan)
    return rows


def errors(values: tuple[float | None, ...] = (0.0, 9.8, 0.0, 1.2, 3.4, 14.2), count: int | None = 7) -> dict[str, Bar]:
    return {
        name: Bar(name, value, count=count, reason=None if value is not None else "no instance in the data")
        for name, value in zip(ERROR_WORDS, values, strict=True)
    }


LONG = "masks, 5,000 images of val2017, run a_very_long_name_of_a_run-20240712-121212, score 0.5 or more, weights best"
CASES: dict[str, Write] = {
    "curve": lambda path: write_precision_recall(path, [curve("balloon", 0.8)], subtitle="masks, 13 images of val"),
    "curve, low": lambda path: write_precision_recall(path, [curve("W" * 90, 0.01)]),
    "curve, none": lambda path: write_precision_recall(path, [no_curve("ghost")]),
    "curve, empty": lambda path: write_precision_recall(path, [Curve("x", np.zeros(0), np.zeros(0), math.nan)]),
    "curve, zero": lambda path: write_precision_recall(path, [Curve("x", RECALLS, np.zeros(101), 0.0)]),
    "curve, corner": lambda path: write_precision_recall(
        path, [Curve("x", RECALLS, np.ones(101), 100.0, OperatingPoint(1.0, 1.0, 1.0))]
    ),
    "curve, start": lambda path: write_precision_recall(
        path, [Curve("x", RECALLS, np.ones(101), 100.0, OperatingPoint(0.0, 0.0, 0.0))]
    ),
    "curves, 3": lambda path: write_precision_recall(path, [curve("a", 0.2), curve("b", 0.9), no_curve("c")]),
    "curves, 10": lambda path: write_precision_recall(
        path, [curve(name, (n + 1) / 11) for n, name in enumerate(ODD_NAMES)], subtitle=LONG
    ),
    "curves, 80": lambda path: write_precision_recall(
        path, [curve(f"{ODD_NAMES[n % 10]} {n // 10}", n / 80) for n in range(80)]
    ),
    "curves, 11 none": lambda path: write_precision_recall(path, [no_curve(f"c{n}") for n in range(11)]),
    "calibration": lambda path: write_calibration(path, bins(10, 7), expected_error=14.9, subtitle=LONG),
    "calibration, one bin": lambda path: write_calibration(path, [ScoreBin(0, 1, 3, 0.5, 1.0)], expected_error=50.0),
    "calibration, none": lambda path: write_calibration(path, bins(10, 0), expected_error=None),
    "calibration, many": lambda path: write_calibration(path, bins(25, 1234567), expected_error=math.nan),
    "confusion, 1": lambda path: write_confusion(path, np.array([[40, 6], [5, 0]]), ["balloon"], subtitle=LONG),
    "confusion, pixels": lambda path: write_confusion(path, np.array([[4, 1], [0, 0]]), ["sky"], of_pixels=True),
    "confusion, zeros": lambda path: write_confusion(path, np.zeros((3, 3), int), ["a", "b"]),
    "confusion, 5": lambda path: write_confusion(path, confusion(5, 123), ODD_NAMES[:5]),
    "confusion, 10": lambda path: write_confusion(path, confusion(10, 54321), ODD_NAMES),
    "confusion, 25": lambda path: write_confusion(path, confusion(25, 987), [f"class {n}" for n in range(25)]),
    "confusion, 80": lambda path: write_confusion(
        path, confusion(80, 9999), [f"{ODD_NAMES[n % 10]} {n // 10}" for n in range(80)]
    ),
    "errors": lambda path: write_error_types(path, errors(), AP50=70.5, subtitle=LONG),
    "errors, none": lambda path: write_error_types(path, errors((None,) * 6, None), AP50=None),
    "errors, zero": lambda path: write_error_types(path, errors((0.0,) * 6, 1), AP50=100.0),
    "errors, negative": lambda path: write_error_types(path, errors((-0.4, None, 0, 0, 0, math.nan)), AP50=math.nan),
    "errors, many": lambda path: write_error_types(path, errors((99.9,) * 6, 123456789), AP50=0.1),
    "size": lambda path: write_size_ap(
        path, bars(["below 14 px", "14-32 px", "32-81 px", "above 81 px", "small (below 32 px)"], count=12345)
    ),
    "size, one": lambda path: write_size_ap(path, [Bar("64 px", 100.0, 100.0, 100.0, 1)], metric_name="boundary AP"),
    "size, none": lambda path: write_size_ap(path, [Bar("64 px", None)]),
    "iou": lambda path: write_class_metric(path, bars(ODD_NAMES), mean=61.2, subtitle=LONG),
    "iou, 80": lambda path: write_class_metric(path, bars([f"{ODD_NAMES[n % 10]} {n}" for n in range(80)]), mean=None),
}


MARKS = {
    "confusion, 25": pytest.mark.slow,
    "confusion, 80": pytest.mark.extended,
    "iou, 80": pytest.mark.extended,
    "curves, 80": pytest.mark.extended,
}


@pytest.mark.parametrize("case", [pytest.param(case, marks=MARKS.get(case, ())) for case in CASES])
def test_text_lies_inside_the_page_and_on_no_other_text(case, tmp_path, pages):
    CASES[case](tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as png:
        assert png.width <= 2000
        assert min(png.info["dpi"]) >= 150
        assert png.getextrema() != ((255, 255),) * 3
    page, texts = pages[0]
    renderer = RendererAgg(page.bbox.width, page.bbox.height, page.dpi)
    places = [(text, text.get_window_extent(renderer)) for text in texts]
    assert len(places) >= 5
    for text, place in places:
        assert place.x0 >= 8 and place.y0 >= 8, text.get_text()
        assert place.x1 <= page.bbox.width - 8 and place.y1 <= page.bbox.height - 8, text.get_text()
    upright = [(text, place.padded(-1.5)) for text, place in places if text.get_rotation() in (0, 90)]
    for (one, place), (other, other_place) in combinations(upright, 2):
        assert not place.overlaps(other_place), (one.get_text(), other.get_text())


BYTES = on_demand(
    ["curve", "curves, 10", "calibration", "confusion, 5", "errors", "size", "iou"], "curve", "confusion, 5", "errors"
)


@pytest.mark.parametrize("case", BYTES)
def test_bytes_repeat_and_say_nothing_else(case, tmp_path):
    CASES[case](tmp_path / "one.png")
    CASES[case](tmp_path / "folder" / "two.png")
    first = (tmp_path / "one.png").read_bytes()
    assert first == (tmp_path / "folder" / "two.png").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "folder"}
    stream, kinds = io.BytesIO(first[8:]), []
    while header := stream.read(8):
        length, kind = struct.unpack(">I4s", header)
        kinds.append(kind)
        stream.seek(length + 4, io.SEEK_CUR)
    assert set(kinds) == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


PLOT = """
import sys
from d2tune.report.plots.curve_plots import ScoreBin, write_calibration
write_calibration(sys.argv[1], [ScoreBin(0, 0.5, 3, 0.25, 0.2), ScoreBin(0.5, 1, 4, 0.75, 1.0)], expected_error=9.0)
unwanted = {"torch", "torchvision", "detectron2", "matplotlib.pyplot", "d2tune.evaluation"} & set(sys.modules)
sys.exit(f"imported: {unwanted}" if unwanted else 0)
"""


@pytest.mark.slow
def test_other_process_with_other_settings_writes_the_same(tmp_path):
    settings = tmp_path / "matplotlibrc"
    settings.write_text("text.usetex: True\nfont.size: 20\nfigure.facecolor: black\naxes.grid: True\nsavefig.dpi: 30\n")
    environment = {**os.environ, "MATPLOTLIBRC": str(settings), "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", PLOT, str(tmp_path / "there.png")], check=True, env=environment)
    bins = [ScoreBin(0, 0.5, 3, 0.25, 0.2), ScoreBin(0.5, 1, 4, 0.75, 1.0)]
    write_calibration(tmp_path / "here.png", bins, expected_error=9.0)
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()


def test_settings_of_the_user_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 23.0)
    names = set(matplotlib.rcParams) - {"backend"}
    before = {name: matplotlib.rcParams[name] for name in names}
    CASES["curve"](tmp_path / "plot.png")
    assert {name: matplotlib.rcParams[name] for name in names} == before


def texts_of(pages: list[tuple[Figure, list[Text]]]) -> list[str]:
    return [text.get_text() for _, texts in pages for text in texts]


def test_names_are_written_as_they_are_and_distinguishable(tmp_path, pages):
    names = ["$a_1$", "水晶", "結晶", "line\nend", "W" * 300, "W" * 301, "Größe"]
    write_class_metric(tmp_path / "plot.png", [Bar(name, 50.0) for name in names], mean=None)
    shown = texts_of(pages)
    assert {"$a_1$", "#2 □□", "#3 □□", "line\\nend", "Größe"} <= set(shown)
    long = [text for text in shown if "W…W" in text]
    assert len(set(long)) == 2 and all(text.startswith("#") for text in long)


def test_letters_come_from_a_font_of_the_machine_that_has_them(tmp_path, pages):
    with TTFont(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf") as font:
        for table in font["cmap"].tables:
            if table.isUnicode():
                table.cmap[ord("水")] = "W"
        for record in font["name"].names:
            if record.nameID in (1, 16):
                record.string = "WenQuanYi Zen Hei"
        font.save(tmp_path / "other.ttf")
    known = list(fontManager.ttflist)
    try:
        fontManager.addfont(tmp_path / "other.ttf")
        write_class_metric(tmp_path / "plot.png", [Bar("水晶", 50.0)], mean=None)
    finally:
        fontManager.ttflist[:] = known
    assert "水□" in texts_of(pages)


def test_curve_is_drawn_to_scale_with_its_point(tmp_path, pages):
    one = curve("balloon", 0.8)
    write_precision_recall(tmp_path / "plot.png", [one])
    line, mark = pages[0][0].axes[0].lines
    defined = RECALLS <= 0.915
    np.testing.assert_allclose(line.get_xdata(), RECALLS[defined])
    np.testing.assert_allclose(line.get_ydata(), one.precision[defined])
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (one.point.recall, one.point.precision)
    assert any("score ≥ 0.50" in text for text in texts_of(pages))
    assert f"Precision and recall at IoU 0.5: AP50 {one.AP50:.1f}" in texts_of(pages)


def test_named_classes_differ_in_more_than_color(tmp_path, pages):
    write_precision_recall(tmp_path / "plot.png", [curve(f"c{n}", n / 10) for n in range(10)])
    lines = pages[0][0].axes[0].lines
    marks = [(line.get_color(), line.get_marker()) for line in lines if line.get_marker() not in ("None", "")]
    strokes = {(line.get_color(), line.get_linestyle()) for line in lines if line.get_linestyle() != "None"}
    assert len(set(marks)) == 10 and len(strokes) == 10


def test_mean_of_many_classes_is_the_mean_of_their_best_precision_from_each_recall_on(tmp_path, pages):
    rng = np.random.default_rng(0)
    curves = []
    for number in range(12):
        recall = np.sort(rng.random(30))
        curves.append(Curve(f"c{number}", recall, rng.random(30), 5.0 * number))
    write_precision_recall(tmp_path / "plot.png", [*curves, no_curve("ghost")])
    expected = [
        np.mean([max(one.precision[one.recall >= place - 1e-9], default=0.0) for one in curves]) for place in RECALLS
    ]
    np.testing.assert_allclose(pages[0][0].axes[0].lines[-1].get_ydata(), expected)
    shown = texts_of(pages)
    assert "mean of the 12 classes that have a curve" in shown
    assert shown.index("c0") < shown.index("c4") and "c5" not in shown


def test_calibration_is_drawn_to_scale(tmp_path, pages):
    bins = [ScoreBin(0, 0.5, 30, 0.4, 0.1), ScoreBin(0.5, 0.75, 0, None, None), ScoreBin(0.75, 1, 12, 0.9, 1.0)]
    write_calibration(tmp_path / "plot.png", bins, expected_error=25.0)
    shares, counts = pages[0][0].axes
    assert [bar.get_height() for bar in shares.patches] == [0.1, 1.0]
    assert [bar.get_height() for bar in counts.patches] == [30, 0, 12]
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in shares.lines if line.get_marker() == "o"]
    assert points == [(0.4, 0.1), (0.9, 1.0)]
    gaps = [tuple(line.get_ydata()) for line in shares.lines if len(set(line.get_xdata())) == 1 < len(line.get_xdata())]
    assert gaps == [(0.1, 0.4), (1.0, 0.9)]
    assert {"30", "0", "12"} <= set(texts_of(pages))


def test_confusion_shows_counts_and_shares_of_rows(tmp_path, pages):
    counts = np.array([[30, 10, 0], [0, 0, 0], [7, 0, 99]])
    write_confusion(tmp_path / "plot.png", counts, ["a", "b"])
    page, texts = pages[0]
    assert "30 of 40 instances detected with the right class, 0 missed, 7 false" in " ".join(texts_of(pages))
    cells = {text.get_text(): text for text in texts if text.axes is page.axes[0]}
    assert set(cells) == {"30", "10", "7"}
    pixels = np.array(Image.open(tmp_path / "plot.png").convert("RGB"))

    def color_beside(text: str) -> np.ndarray:
        x, y = cells[text].get_transform().transform(cells[text].get_position())
        return pixels[round(pixels.shape[0] - y) + 50, round(x)]

    for text, colors, share in (("30", confusion_plot._RIGHT, 0.75), ("10", confusion_plot._WRONG, 0.25)):
        np.testing.assert_allclose(color_beside(text), 255 * np.array(colors(share)[:3]), atol=2)
    np.testing.assert_allclose(color_beside("7"), 255 * np.array(confusion_plot._WRONG(1.0)[:3]), atol=2)


@pytest.mark.slow
def test_large_counts_are_shortened_in_all_cells_or_in_none(tmp_path, pages):
    write_confusion(tmp_path / "plot.png", np.array([[1234567, 950], [12, 0]]), ["a"])
    assert {"1,234,567", "950", "12"} <= set(texts_of(pages))
    counts = np.diag([1234567] * 14 + [0])
    counts[0, 1] = 950
    write_confusion(tmp_path / "plot.png", counts, [f"c{n}" for n in range(14)])
    assert {"1.2M", "950"} <= set(texts_of(pages[1:]))
    write_confusion(tmp_path / "plot.png", confusion(80, 9999), [f"c{n}" for n in range(80)])
    assert {f"c{n}" for n in range(80)} <= set(texts_of(pages[2:]))
    assert not [text for text in pages[2][1] if text.axes is not None]


def test_names_of_very_many_classes_are_thinned_out(tmp_path, pages):
    write_confusion(tmp_path / "plot.png", np.zeros((201, 201), int), [f"c{n}" for n in range(200)])
    shown = {text for text in texts_of(pages) if text.startswith("c")}
    assert 50 < len(shown) < 120 and "c0" in shown


def test_bars_are_drawn_to_scale_with_intervals_and_reasons(tmp_path, pages):
    rows = [
        Bar("small", 20.0, 10.0, 35.5, 1),
        Bar("large", None, count=0, reason="no instance of this size"),
        Bar("all", 60),
    ]
    write_size_ap(tmp_path / "plot.png", rows, metric_name="box AP")
    axes, shown = pages[0][0].axes[0], texts_of(pages)
    assert [bar.get_width() for bar in axes.patches] == [20.0, 60.0]
    assert [tuple(line.get_xdata()) for line in axes.lines][:3] == [(10.0, 35.5), (10.0, 10.0), (35.5, 35.5)]
    assert axes.get_xlim() == (0, 100)
    assert {"Box AP by the size of instances", "20.0", "10.0 to 35.5", "60.0", "\u2013", "1 instance"} <= set(shown)
    assert "no value: no instance of this size" in shown


def test_mean_iou_is_a_line_and_in_the_title(tmp_path, pages):
    write_class_metric(tmp_path / "plot.png", [Bar("road", 90.0), Bar("pole", 40.0)], mean=65.0)
    assert [line.get_xdata()[0] for line in pages[0][0].axes[0].lines] == [0, 65.0]
    assert "IoU of each class; the mean (mIoU, dashed) is 65.0" in texts_of(pages)


def test_most_costly_error_is_named_and_dark(tmp_path, pages):
    write_error_types(tmp_path / "plot.png", errors(), AP50=70.5)
    shown, axes = texts_of(pages), pages[0][0].axes[0]
    assert 'Fixing "missed" errors would gain the most: +14.2 points of AP50' in shown
    assert "localization" in shown and "localisation" not in shown
    assert [bar.get_width() for bar in axes.patches] == [0.0, 9.8, 0.0, 1.2, 3.4, 14.2]
    dark = [to_rgb(bar.get_facecolor()) == to_rgb(style.ACCENT) for bar in axes.patches]
    assert dark == [False] * 5 + [True]
    assert all(any(text.startswith(meaning) for text in shown) for meaning, _ in ERROR_WORDS.values())
    assert all(f"helps: {remedy}" in shown for _, remedy in ERROR_WORDS.values())


def test_errors_without_value_say_why(tmp_path, pages):
    write_error_types(tmp_path / "plot.png", errors((None, -0.31, 0, 0, 0, 0), None), AP50=None)
    shown = texts_of(pages)
    assert "no value: no instance in the data" in shown and "\u22120.3" in shown
    assert "AP50 to gain by fixing each kind of error" in shown


def simulated(color: tuple[float, float, float], matrix: np.ndarray) -> np.ndarray:
    """How a color looks to others, in CIELAB."""
    linear = np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color])
    linear = np.clip(matrix @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    f = [t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in to_xyz @ linear / (0.9505, 1, 1.089)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009
VISIONS = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


@pytest.mark.parametrize("vision", VISIONS)
def test_colors_are_distinguishable_for_everyone(vision):
    seen = [simulated(to_rgb(color), VISIONS[vision]) for color in style.LINES]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 25
    right, wrong = confusion_plot._RIGHT, confusion_plot._WRONG
    for share in (0.4, 0.7, 1.0):
        a, b = (simulated(colors(share)[:3], VISIONS[vision]) for colors in (right, wrong))
        assert np.linalg.norm(a - b) > 15


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: write_precision_recall(path, []), "no curve"),
        (
            lambda path: write_precision_recall(path, [Curve("x", RECALLS, 50 + RECALLS, 1.0)]),
            "must be between 0 and 1",
        ),
        (lambda path: write_precision_recall(path, [Curve("x", RECALLS[:3], RECALLS, 1.0)]), "recall is"),
        (
            lambda path: write_precision_recall(path, [Curve("x", RECALLS, RECALLS, 1.0, OperatingPoint(0.5, 90, 80))]),
            "between 0 and 1, not 90",
        ),
        (lambda path: write_calibration(path, [], expected_error=None), "no range"),
        (
            lambda path: write_calibration(path, [ScoreBin(0, 1, 3, 0.5, 80.0)], expected_error=None),
            "between 0 and 1, not 80",
        ),
        (lambda path: write_confusion(path, np.zeros((2, 2)), ["a", "b"]), "2 classes"),
        (lambda path: write_confusion(path, np.zeros((1, 1)), []), "0 classes"),
        (lambda path: write_confusion(path, np.array([[1, -1], [0, 0]]), ["a"]), "negative"),
        (lambda path: write_error_types(path, {"both": Bar("both", 1.0)}, AP50=1.0), "kinds of errors"),
        (lambda path: write_size_ap(path, []), "no bar"),
        (lambda path: write_class_metric(path, [], mean=None), "no bar"),
    ],
)
def test_what_cannot_be_drawn_is_refused(write, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (1234, "1.2k"), (9999, "10k"), (999_999, "1.0M"), (3_400_000_000, "3.4G")],
)
def test_short_count(count, text):
    assert style.short_count(count) == text
