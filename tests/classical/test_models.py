"""The map against k-means, mixtures against known Gaussians, skin and white matter on real data."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from skimage import data
from sklearn.cluster import KMeans

from d2tune.classical.clusters import best_classes, count_pairs, mean_iou
from d2tune.classical.mixtures import fit_mixtures
from d2tune.classical.self_organizing_map import fit_map
from d2tune.classical.skin import chroma, fit_skin, unique_rows
from d2tune.classical.tissue import dice, white_matter
from d2tune.errors import DataError
from tests.shared_files import SHARED


@pytest.mark.parametrize("name", ["coffee", "astronaut", "chelsea"])
def test_a_map_is_at_most_a_quarter_worse_than_k_means(name: str) -> None:
    pixels = getattr(data, name)()[::4, ::4].reshape(-1, 3).astype(float)
    fitted = fit_map(pixels, rows=4, columns=4)
    k_means = KMeans(16, n_init=1, random_state=0).fit(pixels)
    error = float(np.linalg.norm(pixels - k_means.cluster_centers_[k_means.labels_], axis=1).mean())
    assert fitted.quantization_error(pixels) <= 1.25 * error
    assert fit_map(pixels, rows=4, columns=4).prototypes.tolist() == fitted.prototypes.tolist(), "the same each time"


def test_neighbors_on_the_map_are_similar() -> None:
    pixels = data.coffee()[::6, ::6].reshape(-1, 3).astype(float)
    grid = fit_map(pixels, rows=5, columns=5).prototypes.reshape(5, 5, 3)
    beside = np.linalg.norm(np.diff(grid, axis=1), axis=-1).mean()
    across = np.linalg.norm(grid[:, :1] - grid[:, -1:], axis=-1).mean()
    assert beside < across / 2


def test_two_points_by_hand() -> None:
    points = np.array([[0.0, 0.0]] * 5 + [[10.0, 0.0]] * 5)
    fitted = fit_map(points, rows=1, columns=2)
    assert sorted(fitted.prototypes[:, 0].round(1).tolist()) == [0.0, 10.0]
    assert fitted.quantization_error(points) == pytest.approx(0, abs=0.1)


def test_mixtures_recover_the_means_of_gaussians() -> None:
    random = np.random.default_rng(0)
    rows = np.concatenate([random.normal(at, 1, (400, 2)) for at in ((0, 0), (8, 0), (0, 8))])
    labels = np.repeat([0, 0, 3], 400)
    fitted = fit_mixtures(rows, labels, components=2)
    means = sorted(fitted.mixtures[0].means_.round(0).tolist())
    assert means == [[0.0, 0.0], [8.0, 0.0]]
    assert fitted.predict(np.array([[0.0, 9.0], [8.0, 0.0]])).tolist() == [3, 0]
    even = fit_mixtures(rows, labels, components=2, priors={0: 0.5, 3: 0.5})
    assert np.exp(fitted.log_priors).round(3).tolist() == [0.667, 0.333]
    assert np.exp(even.log_priors).tolist() == [0.5, 0.5]


def test_a_mixture_of_a_class_with_a_single_row() -> None:
    fitted = fit_mixtures(np.array([[0.0], [1.0], [9.0]]), np.array([0, 0, 1]))
    assert fitted.predict(np.array([[0.5], [9.0]])).tolist() == [0, 1]


def test_one_class_alone() -> None:
    with pytest.raises(DataError, match="one class alone"):
        fit_mixtures(np.ones((4, 2)), np.zeros(4))


def test_classes_of_clusters_by_hand() -> None:
    clusters = np.array([[0, 0, 1], [1, 2, 2]])
    classes = np.array([[0, 0, 1], [0, 1, 255]])
    counts = count_pairs(clusters, classes, n_clusters=3, n_classes=2)
    assert counts.tolist() == [[2, 0], [1, 1], [0, 1]]
    # both classes of cluster 1 give IoU 2/3 with 2/3 or 3/4 with 1/2
    assert best_classes(counts)[[0, 2]].tolist() == [0, 1]
    assert mean_iou(counts, np.array([0, 1, 1])) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert mean_iou(counts, np.array([0, 0, 1])) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert best_classes(counts).tolist() == [0, 1, 1]


def test_a_rare_class_gets_clusters_although_it_has_the_majority_in_none() -> None:
    counts = np.zeros((20, 2), np.int64)
    counts[:15] = (100, 1)
    counts[15:] = (60, 50)
    assert best_classes(counts).tolist() == [0] * 15 + [1] * 5


def test_skin_on_unique_rows() -> None:
    with np.load(SHARED / "data" / "skin" / "skin_nonskin.npz") as table:
        rgb, is_skin = unique_rows(table["bgr"][:, ::-1], table["skin"])
    assert len(rgb) == 51_444
    order = np.random.default_rng(0).permutation(len(rgb))
    train, test = np.split(order, [int(0.7 * len(order))])
    predicted = fit_skin(rgb[train], is_skin[train]).predict(rgb[test])
    iou = (predicted & is_skin[test]).sum() / (predicted | is_skin[test]).sum()
    assert iou >= 0.96


def test_chroma_by_hand() -> None:
    gray, red = chroma(np.array([[128, 128, 128], [255, 0, 0]], np.uint8))
    assert gray == pytest.approx([0, 0], abs=1e-3)
    assert red == pytest.approx([-43.03, 127.5], abs=0.01)


def nifti(path: Path) -> np.ndarray:
    """The voxels of a gzipped NIfTI-1 file of 8-bit values: a header of 348 bytes, then the voxels."""
    content = gzip.decompress(path.read_bytes())
    shape = tuple(int(side) for side in np.frombuffer(content, "<i2", 3, 42))
    assert int(np.frombuffer(content, "<i2", 1, 70)[0]) == 2, "uint8"
    start = int(np.frombuffer(content, "<f4", 1, 108)[0])
    return np.frombuffer(content, np.uint8, int(np.prod(shape)), start).reshape(shape, order="F")


def test_white_matter_of_the_mni_head() -> None:
    spec = find_spec("nilearn")
    assert spec is not None and spec.origin is not None, "pip install --no-deps nilearn"
    folder = Path(spec.origin).parent / "datasets" / "data"
    t1, white = (nifti(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz") for kind in ("t1", "wm"))
    for z in (80, 95, 110):
        assert dice(white_matter(t1[:, :, z]), white[:, :, z] > 127.5) >= 0.92, z


def test_dice_by_hand() -> None:
    a, b = np.array([True, True, False]), np.array([True, False, False])
    assert dice(a, b) == pytest.approx(2 / 3)
    assert dice(a & ~a, b & ~b) == 1
