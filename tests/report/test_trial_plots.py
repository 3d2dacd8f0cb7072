"""Plots of the trials of a search."""

from pathlib import Path

from PIL import Image

from d2tune.report.plots.style import house_style
from d2tune.report.plots.trial_plots import KeyRange, TrialPoint, _history, _parameters, write_history

POINTS = [
    TrialPoint(0, 40.0, True, {"rate": 1e-4, "size": 64, "preset": [0.6, 1.2]}),
    TrialPoint(1, 55.0, False, {"rate": 1e-5, "size": 96, "preset": None}),
    TrialPoint(3, 50.0, True, {"rate": 1e-3, "size": 96, "preset": None}),
    TrialPoint(4, 45.0, True, {"rate": 5e-4, "size": 64, "preset": [0.6, 1.2]}),
]
RANGES = {
    "rate": KeyRange(1e-5, 1e-3, is_logarithmic=True),
    "size": KeyRange(64, 128, is_whole=True),
    "preset": None,
    "narrow": KeyRange(2e-4, 9e-4, is_logarithmic=True),
}


def test_the_best_so_far_is_of_finished_trials() -> None:
    with house_style():
        whole = _history(POINTS, "mask AP", "tiny")
    (axes,) = whole.axes
    (line,) = axes.lines
    assert list(line.get_xdata()) == [0, 3, 4] and list(line.get_ydata()) == [40, 50, 50]
    pruned, finished = axes.collections
    assert pruned.get_offsets().tolist() == [[1, 55]]
    assert finished.get_offsets().tolist() == [[0, 40], [3, 50], [4, 45]]
    assert "mask AP of each trial: the best is trial 3, 50.0" in [text.get_text() for text in whole.texts]
    (legend,) = whole.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "finished",
        "pruned: of its folds so far",
        "best so far",
    ]


def test_each_key_has_its_axis() -> None:
    with house_style():
        whole = _parameters(POINTS, RANGES, "mask AP", "tiny")
    rate, size, preset, narrow = whole.axes
    labels = {
        axes.get_xlabel(): [tick.get_text() for tick in axes.get_xticklabels()] for axes in (rate, preset, narrow)
    }
    assert labels["rate"] == ["1e-05", "0.0001", "0.001"] and rate.get_xscale() == "log"
    assert labels["narrow"] == ["0.0002", "0.0005"]
    assert labels["preset"] == ["[0.6, 1.2]", "null"]
    assert size.get_xlim()[0] < 64 and size.get_xlim()[1] > 128
    assert preset.collections[1].get_offsets().tolist() == [[0, 40], [1, 50], [0, 45]]
    assert not narrow.collections  # a key that these trials do not have


def test_a_plot_is_written(tmp_path: Path) -> None:
    write_history(tmp_path / "trials.png", POINTS[:1], metric_name="PQ", subtitle="tiny, 1 trial")
    with Image.open(tmp_path / "trials.png") as image:
        assert image.mode == "RGB" and image.width > 1000
