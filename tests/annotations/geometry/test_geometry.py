from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.path import Path as MatplotlibPath
from shapely.geometry import MultiPoint, Polygon, box

from d2tune.annotations.geometry import tracing
from d2tune.annotations.geometry.masks import (
    Patch,
    decode_mask,
    encode_mask,
    mask_runs,
    rasterize,
    rle_area_px2,
    runs_to_rle,
    union_rles,
)
from d2tune.annotations.geometry.polygons import (
    PointError,
    check_points,
    clean_points,
    clip_polygon,
    ellipse_points,
    has_no_area,
    polygons_bbox_xywh,
    rectangle_points,
    round_vertex_count,
    self_intersects,
    signed_area_px2,
)
from d2tune.annotations.model.types import Points

SIZE = {"width_px": 64, "height_px": 48}
BOW_TIE = [[10, 10], [40, 40], [40, 10], [10, 40]]
KEYHOLE = [[5, 4], [45, 4], [45, 44], [5, 44], [5, 4], [15, 14], [15, 34], [35, 34], [35, 14], [15, 14]]
PENTAGRAM = [[24 + 20 * math.sin(4 * math.pi * k / 5), 24 - 20 * math.cos(4 * math.pi * k / 5)] for k in range(5)]

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))
coordinates = st.floats(-100, 160, allow_nan=False).map(lambda value: round(value, 3)) | st.integers(-40, 100)
outlines = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=12).map(
    lambda p: np.array(p, dtype=float)
)


def points(rows: object) -> Points:
    return np.array(rows, dtype=np.float64)


def pixels(polygons: object) -> np.ndarray:
    return decode_mask(union_rles(rasterize([points(p) for p in polygons], **SIZE)))


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ([[1, 2], [float("nan"), 3]], "non_finite_coordinate"),
        ([[1, 2], [3, float("-inf")]], "non_finite_coordinate"),
        ([[1, 2], [3, 1e13]], "bad_point"),
        ([[1, 2], [3, 10**400]], "bad_point"),
        ([[1, 2], [3, "4"]], "bad_point"),
        ([[1, 2], [3, None]], "bad_point"),
        ([[1, 2], [3, True]], "bad_point"),
        ([[1, 2], [3, 4, 5]], "bad_point"),
        ([[1, 2], 3], "bad_point"),
        ("1,2", "bad_point"),
        (None, "bad_point"),
    ],
)
def test_invalid_points_are_refused(raw: object, code: str) -> None:
    with pytest.raises(PointError) as caught:
        check_points(raw)
    assert caught.value.code == code


def test_points_may_be_whole_far_or_missing() -> None:
    assert check_points([[1, 2.5], [1e9, -3]]).tolist() == [[1, 2.5], [1e9, -3]]
    assert check_points([]).shape == (0, 2)


def test_repeated_vertices_are_removed() -> None:
    given = points([[10, 10], [10, 10], [30, 10], [30, 10], [10, 40], [10, 10]])
    assert {tuple(p) for p in clean_points(given).tolist()} == {(10, 10), (30, 10), (10, 40)}
    assert len(clean_points(given)) == 3
    assert clean_points(points([[7, 7], [7, 7], [7, 7]])).tolist() == [[7, 7]]


@pytest.mark.parametrize(
    ("outline", "crosses"),
    [
        (BOW_TIE, True),
        (PENTAGRAM, True),
        (KEYHOLE, False),
        ([[0, 0], [10, 0], [10, 10], [0, 10]], False),
        ([[0, 0], [5, 5], [10, 10], [10, 0], [5, 5], [0, 10]], True),  # crosses at a vertex of both
        ([[0, 0], [10, 0], [5, 5], [10, 10], [0, 10], [5, 5]], False),  # touches itself at a vertex
        ([[0, 0], [20, 0], [20, 10], [10, 0], [0, 10]], False),  # touches its own edge
        ([[0, 0], [10, 0], [20, 0], [10, 0], [10, 10]], False),  # a spike
    ],
)
def test_crossing_itself(outline: list[list[float]], crosses: bool) -> None:
    for turned in (outline, outline[::-1], outline[2:] + outline[:2], [[y, x] for x, y in outline]):
        assert self_intersects(points(turned)) is crosses


@settings(deadline=None)
@given(outlines)
def test_crossing_itself_agrees_with_shapely_where_no_vertex_touches_an_edge(outline: Points) -> None:
    outline = clean_points(outline)
    shape = Polygon(outline) if len(outline) >= 4 else None
    if shape is not None and shape.is_valid:
        assert not self_intersects(outline)
    spread = outline + np.linspace(0.137, 1.731, len(outline))[:, None] ** 3
    if len(outline) >= 4 and not MultiPoint(spread).convex_hull.area < 1:
        ring = Polygon(spread).exterior
        assert ring.is_simple or self_intersects(spread) or _only_touches(spread)


def _only_touches(outline: Points) -> bool:
    """Whether no two edges cross inside both, by the parameters of their crossing points."""
    ends = np.roll(outline, -1, axis=0)
    for i in range(len(outline)):
        for j in range(i + 1, len(outline)):
            a, b = ends[i] - outline[i], ends[j] - outline[j]
            det = a[0] * b[1] - a[1] * b[0]
            if abs(det) < 1e-6:
                continue
            gap = outline[j] - outline[i]
            s, t = (gap[0] * b[1] - gap[1] * b[0]) / det, (gap[0] * a[1] - gap[1] * a[0]) / det
            if 1e-6 < s < 1 - 1e-6 and 1e-6 < t < 1 - 1e-6:
                return False
    return True


@pytest.mark.parametrize(
    "outline",
    [
        [[1, 1], [9, 9]],
        [[1, 1], [5, 5], [9, 9]],
        [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.7, 0.7]],
        [[0, 0], [10, 0], [10, 5], [10, 0]],
        [[0, 0], [10, 0], [10, 5], [0, 0], [10, 0], [10, 5]],  # wound twice: even-odd leaves nothing
    ],
)
def test_outlines_without_area(outline: list[list[float]]) -> None:
    assert has_no_area(clean_points(points(outline))) is (len(outline) != 6)
    if len(outline) == 6:
        assert rle_area_px2(rasterize([points(outline)], **SIZE)[0]) == 0


def test_a_bow_tie_with_equal_lobes_has_an_area() -> None:
    assert signed_area_px2(points(BOW_TIE)) == 0
    assert not has_no_area(points(BOW_TIE))
    assert not has_no_area(points([[0, 0], [5, 5], [10, 10], [10, 0], [5, 5], [0, 10]]))


def test_clipping_cuts_instead_of_moving_vertices() -> None:
    (part,) = clip_polygon(points([[-20, 24], [20, 4], [20, 44]]), **SIZE)
    # The triangle's edges meet x = 0 half way, at y = 14 and y = 34.
    assert sorted(map(tuple, part.tolist())) == [(0, 14), (0, 34), (20, 4), (20, 44)]
    assert abs(signed_area_px2(part)) == pytest.approx(20 * (20 + 40) / 2)


def test_clipping_takes_a_shape_apart() -> None:
    horseshoe = [[50, 5], [90, 5], [90, 40], [50, 40], [50, 30], [80, 30], [80, 15], [50, 15]]
    parts = clip_polygon(points(horseshoe), **SIZE)
    assert sorted(polygons_bbox_xywh([part]) for part in parts) == [(50, 5, 14, 10), (50, 30, 14, 10)]
    around = [
        [60, 5],
        [100, 5],
        [100, 90],
        [-40, 90],
        [-40, -40],
        [60, -40],
        [60, -30],
        [-30, -30],
        [-30, 80],
        [90, 80],
    ]
    around += [[90, 10], [60, 10]]
    (tongue,) = clip_polygon(points(around), **SIZE)
    assert polygons_bbox_xywh([tongue]) == (60, 5, 4, 5)


def test_clipping_keeps_inside_shapes_and_drops_outside_ones() -> None:
    inside = points([[0, 0], [64, 0], [64, 48]])
    assert clip_polygon(inside, **SIZE)[0] is inside
    assert clip_polygon(points([[64, 0], [70, 0], [70, 9]]), **SIZE) == ()
    assert clip_polygon(points([[60, -10], [80, -10], [80, 12]]), **SIZE) == ()  # passes by the corner
    (whole,) = clip_polygon(points([[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]]), **SIZE)
    assert polygons_bbox_xywh([whole]) == (0, 0, 64, 48)


def test_clipping_a_crossing_outline_keeps_its_even_odd_fill() -> None:
    moved = points(PENTAGRAM) - [24, 0]
    clipped = clip_polygon(moved, **SIZE)
    _y, _x = np.mgrid[:48, :64] + 0.5
    half = [points(PENTAGRAM)]
    whole = pixels(half)
    assert np.array_equal(pixels(clipped)[:, :20], whole[:, 24:44])
    assert not pixels(clipped)[24, 1]  # the middle of the star is wound twice


@settings(deadline=None, max_examples=150)
@given(outlines)
def test_clipping_agrees_with_shapely_and_never_grows(outline: Points) -> None:
    outline = clean_points(outline)
    if len(outline) < 3 or has_no_area(outline):
        return
    parts = clip_polygon(outline, **SIZE)
    for part in parts:
        assert np.all(part >= 0) and np.all(part <= [64, 48])
    shape = Polygon(outline)
    if shape.is_valid:
        wanted = shape.intersection(box(0, 0, 64, 48)).area
        assert sum(abs(signed_area_px2(part)) for part in parts) == pytest.approx(wanted, abs=1e-6)
        assert wanted <= shape.area + 1e-9


@settings(deadline=None, max_examples=60)
@given(outlines)
def test_clipping_keeps_the_even_odd_fill_of_any_outline(outline: Points) -> None:
    outline = clean_points(outline)
    if len(outline) < 3 or has_no_area(outline):
        return
    y, x = np.mgrid[2:48:5, 2:64:5] + 0.4871
    centers = np.stack([x.ravel(), y.ravel()], axis=1)
    if min(_distance(outline, center) for center in centers) < 1e-6:
        return
    count = sum(_winds(part, centers) for part in clip_polygon(outline, **SIZE)) if len(outline) else 0
    assert np.array_equal(np.asarray(count) % 2 * np.ones(len(centers)), _winds(outline, centers) % 2)


def _distance(outline: Points, point: Points) -> float:
    return Polygon(outline).exterior.distance(MultiPoint([point]))


def _winds(outline: Points, centers: Points) -> np.ndarray:
    """How often a ray to the right from each point meets the outline."""
    ends = np.roll(outline, -1, axis=0)
    x, y = centers[:, :1], centers[:, 1:]
    cuts = (outline[:, 1] > y) != (ends[:, 1] > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = outline[:, 0] + (y - outline[:, 1]) * (ends[:, 0] - outline[:, 0]) / (ends[:, 1] - outline[:, 1])
    return (cuts & (at > x)).sum(axis=1)


def test_a_rectangle_has_no_pixel_more_than_its_area() -> None:
    corners = rectangle_points((30, 40), (10, 20))
    assert corners.tolist() == [[10, 20], [30, 20], [30, 40], [10, 40]]
    assert rle_area_px2(rasterize([corners], **SIZE)[0]) == 400


@pytest.mark.parametrize(("radius_px", "count"), [(0.01, 24), (1, 24), (10, 24), (15, 28), (100, 72), (1e9, 7028)])
def test_vertices_of_a_circle(radius_px: float, count: int) -> None:
    assert round_vertex_count(radius_px) == count
    if 1 <= radius_px <= 100:
        assert radius_px * (1 - math.cos(math.pi / count)) <= 0.1


def test_round_shapes_have_their_area() -> None:
    circle = ellipse_points((32, 24), 15, 15)
    assert signed_area_px2(circle) == pytest.approx(math.pi * 15**2)
    turned = ellipse_points((32, 24), 20, 5, theta_rad=math.pi / 2)
    assert signed_area_px2(turned) == pytest.approx(math.pi * 100)
    _, _, width, height = polygons_bbox_xywh([turned])
    assert height == pytest.approx(40, abs=0.2) and width == pytest.approx(10, abs=0.2)


def test_even_odd_pixels_agree_with_the_center_rule_of_matplotlib() -> None:
    y, x = np.mgrid[:48, :64] + 0.5
    centers = np.stack([x.ravel(), y.ravel()], axis=1)
    bow_tie = [MatplotlibPath([[10, 10], [25, 25], [10, 40]]), MatplotlibPath([[40, 40], [40, 10], [25, 25]])]
    wanted = sum(lobe.contains_points(centers) for lobe in bow_tie).reshape(48, 64)
    assert abs(int(pixels([BOW_TIE]).sum()) - int(wanted.sum())) <= 30
    assert pixels([BOW_TIE]).sum() == 450
    assert pixels([KEYHOLE]).sum() == 1600 - 400


@settings(deadline=None)
@given(masks)
def test_outlines_rasterize_back_to_the_same_pixels(mask: np.ndarray) -> None:
    outer, holes = tracing.mask_outlines(mask)
    size = {"width_px": mask.shape[1], "height_px": mask.shape[0]}
    filled = np.zeros(mask.shape, dtype=bool)
    for outline in [*outer, *holes]:
        filled ^= decode_mask(rasterize([outline], **size)[0])
    assert np.array_equal(filled, mask)
    polygons = tracing.mask_to_polygons(mask)
    assert (polygons is None) is bool(holes)
    if polygons:
        merged = union_rles(rasterize(polygons, **size))
        assert np.array_equal(decode_mask(merged), mask)
        assert sum(signed_area_px2(part) for part in polygons) == mask.sum()


def test_pixels_that_share_a_corner_are_apart_and_open_no_hole() -> None:
    outer, holes = tracing.mask_outlines(np.array([[1, 0], [0, 1]]))
    assert [part.tolist() for part in outer] == [[[0, 0], [1, 0], [1, 1], [0, 1]], [[1, 1], [2, 1], [2, 2], [1, 2]]]
    assert not holes
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    assert len(tracing.mask_outlines(ring)[1]) == 1
    ring[0, 0] = False  # the hole now reaches the outside at a corner
    assert tracing.mask_outlines(ring)[1] == []


@settings(deadline=None)
@given(masks, st.integers(-6, 20), st.integers(-6, 20))
def test_patches_are_clipped_and_placed_as_numpy_would(mask: np.ndarray, left_px: int, top_px: int) -> None:
    canvas = np.zeros((18 + 40, 20 + 40), dtype=bool)
    canvas[top_px + 20 : top_px + 20 + mask.shape[0], left_px + 20 : left_px + 20 + mask.shape[1]] = mask
    wanted = canvas[20:38, 20:40]
    clipped = Patch(mask, left_px, top_px).clipped(width_px=20, height_px=18)
    assert clipped.mask.sum() == wanted.sum()
    if wanted.any():
        assert clipped.rle(width_px=20, height_px=18) == encode_mask(wanted)


@settings(deadline=None)
@given(masks)
def test_runs_and_run_length_masks_agree_with_pycocotools(mask: np.ndarray) -> None:
    starts, lengths = mask_runs(mask)
    if len(starts):
        size = {"width_px": mask.shape[1], "height_px": mask.shape[0]}
        assert runs_to_rle(starts, lengths, **size) == encode_mask(mask)


def test_simplified_outlines_stay_close_and_get_short() -> None:
    y, x = np.mgrid[:200, :200] + 0.5
    disk = np.hypot(x - 100, y - 100) <= 80
    (exact,) = tracing.mask_to_polygons(disk) or ()
    (rough,) = tracing.mask_to_polygons(disk, tolerance_px=1.0) or ()
    (fine,) = tracing.mask_to_polygons(disk, tolerance_px=0.5) or ()
    assert len(rough) < len(fine) < len(exact) == len(tracing.simplify(exact, tolerance_px=0.0))
    assert len(rough) <= len(exact) / 3
    ring = Polygon(rough).exterior
    assert max(ring.distance(point) for point in MultiPoint(exact).geoms) <= 1.0
    size = {"width_px": 200, "height_px": 200}
    back = decode_mask(rasterize([rough], **size)[0])
    assert (back & disk).sum() / (back | disk).sum() > 0.97


def test_simplifying_never_leaves_a_line() -> None:
    pixel = tracing.mask_to_polygons(np.ones((1, 1)), tolerance_px=5.0)
    assert pixel is not None and pixel[0].tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


def test_an_outline_of_a_hundred_thousand_vertices_is_checked_in_seconds() -> None:
    rows = np.arange(100_000)
    comb = np.stack([rows % 2 * 1000.0, rows], axis=1)
    comb = np.concatenate([comb, [[-10, 100_000], [-10, 0]]])
    start = time.perf_counter()
    assert not self_intersects(comb)
    assert time.perf_counter() - start < 10
