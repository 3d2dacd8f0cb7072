"""The choice among variants, and that for each fold by all others, on scores computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from d2tune.assembling.fold_scores import mean_over
from d2tune.assembling.result import FoldRow, FoldsResult
from d2tune.assembling.variants import PLAIN, Possible, Variant, choose, leave_one_out
from d2tune.metrics.bootstrap import Comparison, paired_comparison
from tests.metrics.test_bootstrap import mean_of

ALL = Possible(averages=True, sizes=(True,), views=True)
AVERAGED = Variant(is_averaged=True)
LARGER = Variant(factor=1.25)
LARGER_AVERAGED = Variant(is_averaged=True, factor=1.25)
MIRRORED = Variant(factor=1.25, flips=True)
BOTH = Variant(factor=1.25, flips=True, scales=True)

IMAGES = (10, 10, 20)
SCORES = {
    PLAIN: (50, 40, 30),
    AVERAGED: (40, 44, 32),
    LARGER: (52, 41, 30),
    LARGER_AVERAGED: (41, 45, 36),
    Variant(is_averaged=True, factor=1.5): (42, 44, 30),
    MIRRORED: (51, 42, 31),
    BOTH: (52, 42, 29),
    Variant(is_averaged=True, factor=1.25, flips=True): (60, 44, 36),
}


class Scores:
    """Those of the table, 0 for all other variants; it notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: set[tuple[Variant, int]] = set()

    def __call__(self, variant: Variant, folds: tuple[int, ...]) -> float | None:
        self.asked |= {(variant, fold) for fold in folds}
        values = SCORES.get(variant, (0, 0, 0))
        return mean_over([values[fold] for fold in folds], [IMAGES[fold] for fold in folds])


def test_each_stage_begins_with_the_best_of_those_before() -> None:
    # over all folds: plain 37.5, averaged 37.0, larger 38.25, mirrored 38.75, mirrored and scaled 38.0
    scores = Scores()
    best, tried = choose(lambda variant: scores(variant, (0, 1, 2)), ALL)
    assert best == MIRRORED
    half = Variant(factor=1.5)
    assert tried == (PLAIN, AVERAGED, LARGER, half, MIRRORED, Variant(factor=1.25, scales=True), BOTH)


def test_for_each_fold_the_others_choose() -> None:
    scores = Scores()
    choices, tried = leave_one_out(scores, 3, ALL)
    # without fold 0: plain 33.3, averaged 36, then 39 larger, 38.7 mirrored; without fold 1: plain 36.7, averaged 34.7,
    # then 37.3, 37.7 mirrored, 36.7 mirrored and scaled; without fold 2: plain 45, averaged 42, then 46.5, 46.5 and 47
    assert choices == (LARGER_AVERAGED, MIRRORED, BOTH)
    assert tried[:4] == (PLAIN, AVERAGED, LARGER_AVERAGED, Variant(is_averaged=True, factor=1.5))
    assert {fold for variant, fold in scores.asked if variant == LARGER_AVERAGED} == {1, 2}, "its own fold is not asked"


@pytest.mark.parametrize(
    ("possible", "expected"),
    [
        (Possible(averages=False, sizes=(False,), views=False), (PLAIN,)),
        (Possible(averages=True, sizes=(False,), views=False), (PLAIN, AVERAGED)),
        (Possible(averages=False, sizes=(False,), views=True), (PLAIN, Variant(flips=True))),
        (Possible(averages=False, sizes=(True,), views=False), (PLAIN, LARGER, Variant(factor=1.5))),
    ],
)
def test_what_is_not_possible_is_not_tried(possible: Possible, expected: tuple[Variant, ...]) -> None:
    best, tried = choose(lambda variant: 50.0, possible)
    assert tried == expected and best == PLAIN, "of equals the first"


def test_several_runs_are_averaged_resized_and_taken_together() -> None:
    asked: list[Variant] = []

    def score(variant: Variant) -> float:
        asked.append(variant)
        better = {Variant((1,)): 3.0, Variant((1,), factor=1.5): 4.0, Variant((0, 1, 2), factor=1.5, flips=True): 5.0}
        return better.get(variant, 2.0)

    every = (0, 1, 2)
    best, tried = choose(score, Possible(averages=True, sizes=(False, True, False), views=True, mean=True))
    assert best == Variant(every, factor=1.5, flips=True)
    assert (
        tuple(asked)
        == tried
        == (
            *(Variant((number,)) for number in every),
            Variant((1,), is_averaged=True),
            Variant(every, is_averaged=True),
            Variant((1,), factor=1.25),
            Variant((1,), factor=1.5),
            Variant((1,), factor=1.5, flips=True),
            Variant((1,), factor=1.5, scales=True),
            Variant((1,), factor=1.5, flips=True, scales=True),
            Variant(every, factor=1.5),
            Variant(every, factor=1.5, flips=True),
        )
    )
    asked.clear()
    possible = Possible(averages=False, sizes=(True, False), views=False, mean=True)
    best, _ = choose(lambda variant: score(variant) + (variant.runs == (1,)), possible)
    assert best == Variant((1,)) and asked == [Variant((0,)), Variant((1,)), Variant((0, 1), is_averaged=True)]


def test_a_metric_that_is_not_defined_is_the_worst() -> None:
    best, _ = choose(lambda variant: 1.0 if variant == MIRRORED else None, ALL)
    assert best == PLAIN, "no size is better, so that the mirrored view of a larger one is not tried"
    best, _ = choose(lambda variant: 1.0 if variant.flips else None, ALL)
    assert best == Variant(flips=True)


def test_names_of_folders() -> None:
    assert [one.key for one in (PLAIN, AVERAGED, LARGER, BOTH)] == [
        "plain",
        "averaged",
        "1.25",
        "1.25-mirrored-scaled",
    ]


@pytest.mark.parametrize(
    ("values", "images", "expected"),
    [([30.0, 60.0], [10, 20], 50.0), ([30.0, None], [10, 20], 30.0), ([None, None], [10, 20], None)],
)
def test_the_mean_over_folds_is_that_of_their_images(
    values: list[float | None], images: list[int], expected: float | None
) -> None:
    assert mean_over(values, images) == expected


def result(choices: tuple[str, ...], proof: Comparison | None, *, chosen: str = "run, mirrored too") -> FoldsResult:
    row = FoldRow(name="run, mirrored too", passes=2, value=41.25, folds=(40.0, 42.5), chosen=choices.count(chosen))
    other = FoldRow(name="run, 480 px", passes=1, value=None, folds=(40.0, None), chosen=0)
    return FoldsResult(
        folder=Path("out"),
        metric="mask AP",
        best_member="run",
        chosen=chosen,
        proof=proof,
        is_written=proof is not None and proof.better == "B",
        rows=(row, other),
        images=(10, 10),
        groups=19,
        choices=choices,
    )


def test_the_result_in_words() -> None:
    draw = np.random.default_rng(0)
    a = draw.normal(50, 5, 20)
    better = paired_comparison(mean_of(a), mean_of(a + draw.normal(2, 0.5, 20)), 20)
    same = paired_comparison(mean_of(a), mean_of(a), 20)
    one, other = "run, mirrored too", "run, 480 px"
    proven = result((one, one), better)
    assert proven.sentence.startswith("run, mirrored too is better than run on the 20 images of 2 folds: +")
    assert "each fold" not in proven.sentence and proven.table().splitlines()[2].split()[-6:] == [
        "*",
        "2",
        "41.2",
        "2",
        "of",
        "2",
    ]
    assert proven.table().splitlines()[3].split()[-5:] == ["1", "-", "0", "of", "2"]
    mixed = result((one, other), better).sentence
    assert mixed.startswith("What is chosen by the other folds is better than run on the 20 images of 2 folds: +")
    assert mixed.endswith(
        "For each fold, the others chose: run, mirrored too (1 of 2), run, 480 px (1 of 2); "
        "all together chose run, mirrored too."
    )
    assert result((one, one), same).sentence == (
        "run, mirrored too was chosen, but it is not proven to be better than run on the 20 images of 2 folds: "
        "+0.0 points of mask AP, 95 % interval +0.0 to +0.0. No model is written."
    )
    assert result(("run", "run"), None, chosen="run").sentence == (
        "Nothing beat the best run, run: no model is written."
    )
    assert proven.to_json()["images"] == {"folds": [10, 10], "groups": 19} and proven.to_json()["written"] is True
