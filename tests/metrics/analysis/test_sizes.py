import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2tune.metrics.analysis.sizes import quantile_ranges
from d2tune.metrics.coco.matching import AreaRange


def counts(areas: list[float], ranges: tuple[AreaRange, ...]) -> list[int]:
    """Number of areas in each range; both limits are inside, as pycocotools has it."""
    return [sum(one.low_px2 <= area <= one.high_px2 for area in areas) for one in ranges]


def test_quarters_of_squares_by_hand() -> None:
    areas = [side**2 for side in (8, 10, 18, 20, 40, 44, 80, 100)]
    ranges = quantile_ranges(areas)
    assert [one.name for one in ranges] == ["below 14 px", "14-30 px", "30-62 px", "above 62 px"]
    assert [(one.low_px2, one.high_px2) for one in ranges] == [(0, 196), (196, 900), (900, 3844), (3844, 1e10)]
    assert [one.words for one in ranges[1:]] == [
        "between 14 x 14 and 30 x 30 px",
        "between 30 x 30 and 62 x 62 px",
        "larger than 62 x 62 px",
    ]
    assert counts(areas, ranges) == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("sides", "count", "names", "expected"),
    [
        ([], 4, [], []),
        ([12], 4, ["12 px"], [1]),
        ([12, 12, 12], 4, ["12 px"], [3]),
        ([10, 20], 1, ["10-20 px"], [2]),
        ([10, 20], 4, ["below 15 px", "above 15 px"], [1, 1]),
        # equal areas stay together
        ([10, 10, 10, 10, 10, 30], 2, ["below 20 px", "above 20 px"], [5, 1]),
        # edges that whole numbers cannot distinguish
        ([10, 10.2, 10.4, 10.6], 4, ["below 10.1 px", "10.1-10.3 px", "10.3-10.5 px", "above 10.5 px"], [1] * 4),
    ],
)
def test_few_or_equal_areas_give_fewer_ranges(
    sides: list[float], count: int, names: list[str], expected: list[int]
) -> None:
    areas = [side**2 for side in sides]
    ranges = quantile_ranges(areas, count=count)
    assert ([one.name for one in ranges], counts(areas, ranges)) == (names, expected)


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=60), st.integers(1, 6))
def test_every_instance_lies_in_one_range(areas: list[int], count: int) -> None:
    ranges = quantile_ranges(areas, count=count)
    assert 1 <= len(ranges) <= min(count, len(set(areas)))
    assert len({one.name for one in ranges}) == len(ranges)
    assert sum(counts(areas, ranges)) == len(areas) and min(counts(areas, ranges)) > 0
    assert [one.high_px2 for one in ranges[:-1]] == [one.low_px2 for one in ranges[1:]]


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_the_edges_are_the_quantiles_where_areas_differ(count: int) -> None:
    areas = np.random.default_rng(count).permutation(np.arange(1, 1001))
    actual = counts(areas.tolist(), quantile_ranges(areas, count=count))
    assert len(actual) == count and max(actual) - min(actual) <= 1
