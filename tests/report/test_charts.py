import re

import numpy as np
import pytest

from d2tune.report.axes import number
from d2tune.report.check_page.advice import listed
from d2tune.report.check_page.charts import Line, count_bars, heat_map, histogram, size_scatter


def tips(svg):
    return re.findall(r"<title>(.*?)</title>", str(svg))


@pytest.mark.parametrize("span", [(10, 12), (5, 2000), (3, 3), (0.02, 90)])
def test_a_histogram_counts_every_value_once(span):
    values = np.geomspace(*span, num=500)
    svg = histogram(values, x_label="size (px)", things="objects", unit=" px")
    counts = [int(re.search(r": ([\d,]+) objects", tip)[1].replace(",", "")) for tip in tips(svg)]
    assert sum(counts) == 500
    assert ("logarithmic" in svg) == (span[1] > 8 * span[0])


def test_a_bar_is_as_high_as_its_count_on_the_axis():
    svg = str(histogram(np.array([1.0] * 30 + [2.0] * 10), x_label="x", things="things"))
    heights = [float(height) for height in re.findall(r'class="bar".*?height="([\d.]+)"', svg)]
    assert heights[0] / heights[1] == pytest.approx(3, rel=0.01)
    ticks = dict(re.findall(r'class="tick end" x="\d+" y="([\d.]+)">(\d+)<', svg))
    (zero,) = [float(y) for y, text in ticks.items() if text == "0"]
    (thirty,) = [float(y) for y, text in ticks.items() if text == "30"]
    assert heights[0] == pytest.approx(zero - thirty, abs=0.2)


def test_lines_stand_where_their_value_is_and_only_on_the_axis():
    svg = str(histogram(np.geomspace(8, 128, 50), x_label="x", things="t", lines=(Line(32, "medium"), Line(500, "no"))))
    (x,) = re.findall(r'class="border" x1="([\d.]+)"', svg)
    marks = dict(re.findall(r'class="tick middle" x="([\d.]+)" y="[\d.]+">([\d.]+)<', svg))
    assert marks[x] == "32" and ">no<" not in svg


def test_bars_of_whole_numbers():
    assert tips(count_bars(np.array([0, 2, 2]), x_label="objects", things="images")) == [
        "0 objects: 1 image (33.3 %)",
        "2 objects: 2 images (66.7 %)",
    ]
    wide = tips(count_bars(np.array([0, 3, 250]), x_label="objects", things="images"))
    assert wide == ["0 to 10 objects: 2 images (66.7 %)", "242 to 252 objects: 1 image (33.3 %)"]


def test_scatter_and_heat_map():
    assert tips(size_scatter(np.array([[800.0, 600], [800, 600], [20, 30]]))) == [
        "800 x 600 px: 2 images",
        "20 x 30 px: 1 image",
    ]
    svg = str(heat_map(np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])))
    assert tips(svg) == ["1 object center", "2 object centers"]
    assert re.findall(r'class="heat" x="([\d.]+)" y="([\d.]+)"', svg) == [("14.0", "14.0"), ("428.0", "201.5")]


def test_numbers_and_words():
    assert [number(value) for value in (0.04567, 3.14159, 12345.6, 8.0)] == ["0.0457", "3.14", "12,346", "8"]
    assert listed(["a"]) == "a" and listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefg")) == "a, b, c, d and 3 more"
