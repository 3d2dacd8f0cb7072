"""A self-organizing map (Kohonen 1982), trained in batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.errors import DataError

_AT_ONCE = 65_536
"""Rows whose distances to all units are in memory at the same time."""


@dataclass(frozen=True, slots=True, eq=False)
class SelfOrganizingMap:
    """Units on a grid, each with a prototype; neighbors on the grid are similar.

    Attributes:
        prototypes: ``(rows * columns, D)``, row by row.
        rows: Rows of the grid.
        columns: Columns of the grid.
    """

    prototypes: NDArray[np.float64]
    rows: int
    columns: int

    def predict(self, data: NDArray[Any]) -> NDArray[np.int64]:
        """The unit with the nearest prototype for each row of ``(N, D)``."""
        nearest = np.empty(len(data), dtype=np.int64)
        for start in range(0, len(data), _AT_ONCE):
            block = np.asarray(data[start : start + _AT_ONCE], dtype=np.float64)
            nearest[start : start + _AT_ONCE] = _distances(block, self.prototypes).argmin(axis=1)
        return nearest

    def quantization_error(self, data: NDArray[Any]) -> float:
        """The mean distance of the rows of ``(N, D)`` to their nearest prototype."""
        rows = np.asarray(data, dtype=np.float64)
        return float(np.linalg.norm(rows - self.prototypes[self.predict(rows)], axis=1).mean())


def fit_map(
    data: NDArray[Any], *, rows: int = 4, columns: int = 4, epochs: int = 30, last_radius: float = 0.3
) -> SelfOrganizingMap:
    """Fit a map to data by the batch rule (Kohonen 2013): each prototype becomes a mean weighted by the neighborhood.

    The map begins on the plane of the two principal components, so that it is the same for the same data. The radius of
    the neighborhood shrinks from half of the grid to ``last_radius``, where each unit almost only has its own data.

    Args:
        data: ``(N, D)``.
        rows: Rows of the grid.
        columns: Columns of the grid.
        epochs: Passes over the data.
        last_radius: Standard deviation of the neighborhood at the end, in units of the grid.

    Raises:
        DataError: There are no rows, or a value is not finite.
    """
    values = np.asarray(data, dtype=np.float64)
    if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
        raise DataError("the data of a map are invalid", found=f"shape {values.shape}", expected="finite rows (N, D)")
    if rows < 1 or columns < 1 or rows * columns < 2:
        raise DataError("the grid of a map is too small", found=f"{rows} x {columns}", expected="2 units or more")
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1).reshape(-1, 2)
    between = ((grid[:, None] - grid[None]) ** 2).sum(axis=-1).astype(np.float64)
    prototypes = _on_the_plane(values, grid, rows, columns)
    first_radius = max(max(rows, columns) / 2, last_radius)
    for epoch in range(epochs):
        radius = first_radius * (last_radius / first_radius) ** (epoch / max(1, epochs - 1))
        units = SelfOrganizingMap(prototypes, rows, columns).predict(values)
        counts = np.bincount(units, minlength=len(grid)).astype(np.float64)
        sums = np.stack(
            [np.bincount(units, weights=column, minlength=len(grid)) for column in values.T], axis=1
        )  # one pass over each column
        weights = np.exp(-between / (2 * radius**2))
        total = weights @ counts
        moved = (weights @ sums) / np.maximum(total, 1e-12)[:, None]
        prototypes = np.where((total > 1e-9)[:, None], moved, prototypes)
    return SelfOrganizingMap(prototypes, rows, columns)


def _on_the_plane(values: NDArray[np.float64], grid: NDArray[Any], rows: int, columns: int) -> NDArray[np.float64]:
    """The grid on the plane of the two principal components, two standard deviations wide to each side."""
    mean = values.mean(axis=0)
    covariance = np.atleast_2d(np.cov(values, rowvar=False, bias=True))
    sizes, directions = np.linalg.eigh(covariance)
    order = np.argsort(sizes)[::-1][:2]
    # the sign of an eigenvector is arbitrary
    axes = [directions[:, at] * np.sign(directions[np.abs(directions[:, at]).argmax(), at]) for at in order]
    spans = [2 * np.sqrt(max(0.0, float(sizes[at]))) for at in order]
    places = [2 * grid[:, at] / max(1, side - 1) - 1 for at, side in ((1, columns), (0, rows))]
    prototypes = np.repeat(mean[None], len(grid), axis=0)
    for axis, span, place in zip(axes, spans, places, strict=False):
        prototypes += place[:, None] * span * axis
    return prototypes


def _distances(rows: NDArray[np.float64], prototypes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances ``(N, K)``, without the squared length of the rows."""
    distances: NDArray[np.float64] = (prototypes**2).sum(axis=1) - 2 * rows @ prototypes.T
    return distances
