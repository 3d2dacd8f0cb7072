"""What fits into a time: the key, and the rule for sizes, steps and evaluations."""

from __future__ import annotations

from pathlib import Path

import pytest

from d2tune.errors import ProjectError
from d2tune.project import load_project
from d2tune.project.budget import (
    AMPLE_JITTER,
    Material,
    Sizes,
    candidates_px,
    enough_steps,
    fitting_sizes,
    fitting_steps,
    mean_factor,
    raised,
    seconds_for,
)
from d2tune.project.values import time_text


def material(
    *, images: int = 61, short_side_px: int = 768, object_share: float | None = 0.1, width_share: float | None = None
) -> Material:
    return Material(
        task="instance",
        images=images,
        objects=255,
        short_side_px=short_side_px,
        object_share=object_share,
        width_share=object_share if width_share is None else width_share,
    )


def project(tmp_path: Path, train: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(f"data: {{root: .}}\ntrain: {train}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "seconds", "again"),
    [
        ("90 s", 90.0, "90 s"),
        ("20 min", 1200.0, "20 min"),
        ("20min", 1200.0, "20 min"),
        ("1.5 h", 5400.0, "90 min"),
        ("2 h", 7200.0, "2 h"),
        ("1.1 h", 3960.0, "66 min"),
        ("12.345 s", 12.345, "12.345 s"),
    ],
)
def test_a_time_with_its_unit(tmp_path: Path, text: str, seconds: float, again: str) -> None:
    loaded = load_project(project(tmp_path, f"{{budget: {text}}}")).project
    assert loaded.train.budget == seconds and time_text(seconds) == again
    path = tmp_path / "again.yaml"
    path.write_text(loaded.to_yaml(), encoding="utf-8")
    assert load_project(path).project == loaded


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("{budget: .nan}", "train.budget: must be a time such as 90 s, 20 min or 1.5 h; found nan"),
        ("{budget: 20}", "train.budget: must have a unit; found 20. Write 20 s, 20 min or 20 h"),
        ("{budget: 0 min}", "train.budget: must be a time above 0; found 0 min"),
        ("{budget: -5 min}", "train.budget: must be a time such as 90 s, 20 min or 1.5 h; found '-5 min'"),
        ("{budget: 1 day}", "train.budget: must be a time such as 90 s, 20 min or 1.5 h; found '1 day'"),
        ("{budget: true}", "train.budget: must be a time such as 90 s, 20 min or 1.5 h; found True"),
        ("{budget: 20 min, iterations: 500}", "train: iterations and budget are both set; keep one of them"),
        ("{budget: 20 min, epochs: 5}", "train: epochs and budget are both set; keep one of them"),
    ],
)
def test_a_time_that_is_none(tmp_path: Path, train: str, message: str) -> None:
    path = project(tmp_path, train)
    with pytest.raises(ProjectError) as caught:
        load_project(path)
    assert caught.value.one_line() == f"{path}: {message}"


def test_a_length_of_the_command_line_replaces_that_of_the_file(tmp_path: Path) -> None:
    path = project(tmp_path, "{iterations: 500}")
    train = load_project(path, overrides={"train.budget": "20 min"}).project.train
    assert (train.budget, train.iterations) == (1200.0, None)
    train = load_project(project(tmp_path, "{budget: 20 min}"), overrides={"train.epochs": 3}).project.train
    assert (train.budget, train.epochs) == (None, 3)
    with pytest.raises(ProjectError, match="train: iterations and budget are both set"):
        load_project(path, overrides={"train.budget": "20 min", "train.iterations": 5})


def test_models_that_follow_objects_have_no_budget(tmp_path: Path) -> None:
    path = project(tmp_path, "{budget: 20 min}")
    with pytest.raises(ProjectError, match=r"train\.budget is for instance, semantic and panoptic tasks"):
        load_project(path, overrides={"task": "tracking"})


@pytest.mark.parametrize(
    ("images", "on_gpu", "steps"),
    [(14, False, 260), (61, False, 366), (240, False, 400), (2400, False, 1800), (14, True, 600), (2400, True, 1800)],
)
def test_enough_steps(images: int, on_gpu: bool, steps: int) -> None:
    """24 epochs of 61 images in batches of 4 are 366 steps; 3 of 2400 are 1800; else at most 1000."""
    assert enough_steps(material(images=images), batch_size=4, on_gpu=on_gpu) == steps


@pytest.mark.parametrize(
    ("short_side_px", "share", "sizes"),
    [
        (1000, None, [256, 320, 384, 480, 640, 800]),
        (1000, 0.1, [256, 320, 384, 480, 640, 800]),
        (1000, 0.03, [480, 640, 800]),  # 12 px are 3 % of 400 px
        (1000, 0.001, [800]),  # objects too small for any size
        (500, 0.1, [256, 320, 384, 480]),
        (200, 0.1, [192]),
        (20, 0.1, [32]),
    ],
)
def test_sizes_that_images_and_objects_allow(short_side_px: int, share: float | None, sizes: list[int]) -> None:
    of = material(short_side_px=short_side_px, object_share=share)
    assert [size_px for size_px, _ in candidates_px(of)] == sizes


@pytest.mark.parametrize(
    ("share", "multiples"),
    [
        (None, [0, 0.5, 0.75, 1, 2, 3]),
        (0.092, [0, 0.5, 0.75, 1, 6, 9]),  # 40 px are 9.2 % of 435 px: at 480 px, objects are large
        (0.12, [0, 0.5, 0.75, 3, 6, 9]),  # of 334 px
        (0.19, [0, 1.5, 2.25, 3, 6, 9]),  # of 211 px
    ],
)
def test_sizes_beyond_that_at_which_objects_are_large_want_three_times_the_steps(
    share: float | None, multiples: list[float]
) -> None:
    of = material(short_side_px=1000, object_share=share)
    assert [multiple for _, multiple in candidates_px(of)] == multiples


def test_long_and_thin_objects_are_not_large() -> None:
    """Of 19 % of the short side by their areas, but 3 % wide: 40 px are twice that of 667 px."""
    of = material(short_side_px=1000, object_share=0.19, width_share=0.06)
    assert candidates_px(of) == [(256, 0), (320, 0.5), (384, 0.75), (480, 1), (640, 2), (800, 3)]


@pytest.mark.parametrize(
    ("share", "size_px", "jitter"),
    [(None, 256, (0.5, 1.0)), (0.1, 256, (0.5, 1.0)), (0.05, 256, (0.7, 1.0)), (0.01, 800, (0.8, 1.0))],
)
def test_objects_are_not_too_small_in_training(share: float | None, size_px: int, jitter: tuple[float, float]) -> None:
    """Objects of 5 % of 256 px have 12.8 px, and 8 px at 0.625 of it, rounded up."""
    assert raised(material(object_share=share), size_px, (0.5, 1.0)) == jitter
    assert raised(material(object_share=share), size_px, (0.9, 1.2)) == (0.9, 1.2)


def sized(seconds: float, **of: float | None) -> Sizes:
    """The sizes where a step takes 1 s at a mean short side of 512 px, as many times that as it has pixels."""
    images = material(object_share=of.get("share", 0.1))
    return fitting_sizes(
        images,
        sizes=candidates_px(images),
        jitter=None,
        step_s=lambda side_px: (side_px / 512) ** 2,
        seconds=seconds,
        enough=366,
        is_pretrained=True,
    )


def test_the_mean_of_sizes_is_that_of_their_pixels() -> None:
    """The squares between a half and one have the mean (1 - 1/8) / 3 / (1 - 1/2) = 7/12."""
    assert mean_factor(0.5, 1.0) ** 2 == pytest.approx(7 / 12)
    assert mean_factor(1.0, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("seconds", "size_px", "jitter", "freezes"),
    [
        # 480 px: a step takes 7/12 * (480 / 512)**2 = 0.5127 s, and 366 of them 187.6 s
        (187, 384, (0.5, 1.0), False),
        (188, 480, (0.5, 1.0), False),
        # objects of a tenth of 480 px are large: of 0.6 to 1.2 times the size the mean square is
        # (1.728 - 0.216) / 3 / 0.6 = 0.84, a step takes 0.7383 s, and 366 of them 270.2 s
        (270, 480, (0.5, 1.0), False),
        (271, 480, (0.6, 1.2), False),
        # 640 px: 0.9115 s and six times 366 steps 2001.6 s
        (2001, 480, (0.6, 1.2), False),
        (2002, 640, (0.5, 1.0), False),
        # 768 px, as large as the images: 1.3125 s and nine times 366 steps 4323.4 s; of 0.6 to 1.2 times the size a
        # step takes 1.89 s and all of them 6225.7 s
        (4324, 768, (0.5, 1.0), False),
        (6225, 768, (0.5, 1.0), False),
        (6226, 768, (0.6, 1.2), False),
        # 256 px: 7/48 s, and a fifth of 366 steps 10.68 s
        (10.7, 256, (0.5, 1.0), False),
        (10.6, 256, (0.5, 1.0), True),
    ],
)
def test_the_largest_size_with_enough_steps(
    seconds: float, size_px: int, jitter: tuple[float, float], freezes: bool
) -> None:
    sizes = sized(seconds)
    assert (sizes.image_px, sizes.jitter, sizes.freezes) == (size_px, jitter, freezes)


def test_the_usual_sizes_are_those_of_a_project_without_them(tmp_path: Path) -> None:
    assert load_project(project(tmp_path, "{budget: 20 min}")).project.train.scale_jitter == AMPLE_JITTER


def test_large_objects_take_their_size_from_steps() -> None:
    """At 256 px they have 51 px, and of 0.6 to 1.2 times that half of 366 steps of 0.21 s take 38.4 s.

    Steps on 320 px take 0.2279 s, and 1.5 times 366 of them 125.1 s.
    """
    sizes = sized(38, share=0.2)
    assert (sizes.image_px, sizes.jitter) == (256, (0.5, 1.0))
    assert sizes.reasons["scale_jitter"] == "steps on smaller images take less time, larger ones take too long"
    sizes = sized(125, share=0.2)
    assert (sizes.image_px, sizes.jitter) == (256, (0.6, 1.2))
    assert sizes.reasons["scale_jitter"] == "the usual sizes, for which there is time"
    assert sizes.reasons["image_size"] == (
        "320 px would want 549 steps, for which there is no time; "
        "three quarters of 255 objects are then larger than 51 px"
    )
    assert sized(126, share=0.2).image_px == 320


def test_small_objects_come_before_enough_steps() -> None:
    sizes = sized(100, share=0.03)
    assert sizes.image_px == 480 and sizes.jitter == (0.6, 1.0)  # 8 px are 3 % of 267 px, 0.56 of 480 px
    assert "on smaller ones most objects could not be seen" in sizes.reasons["image_size"]
    assert sizes.reasons["image_size"].endswith("three quarters of 255 objects are then larger than 14 px")
    assert sizes.reasons["scale_jitter"] == "smaller objects would be lost, larger ones take too long"


@pytest.mark.parametrize(
    ("evaluation_s", "period", "seconds", "iterations", "evaluations"),
    [
        # of 1010.1 s, 40.4 s are the reserve and 9.6 s for the end: 960.1 s remain
        (10.0, None, 1010.1, 910, 5),
        (40.0, None, 1010.1, 800, 4),  # five would take 200 s, a fifth is 192 s
        (100.0, None, 1010.1, 860, 1),
        (500.0, None, 1010.1, 460, 1),
        (10.0, 0, 1010.1, 950, 1),
        (10.0, 100, 1010.1, 863, 9),  # at 100, 200, ..., 800 and at the end
        (10.0, None, 10, 0, 1),
    ],
)
def test_steps_and_evaluations_share_the_time(
    evaluation_s: float, period: int | None, seconds: float, iterations: int, evaluations: int
) -> None:
    steps = fitting_steps(
        material(),
        batch_size=4,
        step_s=1.0,
        evaluation_s=evaluation_s,
        closing_s=9.6,
        seconds=seconds,
        period=period,
    )
    assert (steps.iterations, steps.evaluations) == (iterations, evaluations)


@pytest.mark.parametrize(("images", "most"), [(61, 3050), (10, 3000)])
def test_more_steps_than_are_useful_are_not_taken(images: int, most: int) -> None:
    """200 epochs of 61 images in batches of 4 are 3050 steps."""
    steps = fitting_steps(
        material(images=images), batch_size=4, step_s=0.01, evaluation_s=1, closing_s=5, seconds=3600, period=None
    )
    assert steps.iterations == most and f"more than {most} for {images} images would gain nothing" in steps.reason


def test_the_least_time_holds_the_steps() -> None:
    least_s = seconds_for(10, step_s=2.0, evaluation_s=7.0, closing_s=5.0, before_s=30.0)
    steps = fitting_steps(
        material(), batch_size=4, step_s=2.0, evaluation_s=7.0, closing_s=5.0, seconds=least_s - 30 + 0.01, period=0
    )
    assert steps.iterations == 10 and least_s == pytest.approx(30 + 32 / 0.96)
