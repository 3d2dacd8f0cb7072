"""A stream of images of many sizes takes memory that does not grow with their number."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.inference.predictors.test_lowest_scores import built, predictor_of

SIZES, FIRST, LAST = 20, 60, 180


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.extended
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_images() -> None:
    model, cfg = built("pointrend_mobilenet_v2_fpn", {"TEST.DETECTIONS_PER_IMAGE": 2})
    generator = np.random.default_rng(1)
    sizes = generator.integers(800, 1200, (SIZES, 2))

    class Fresh(list[int]):
        """New pixels each time, as from a file."""

        def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
            return np.full((*sizes[index % SIZES], 3), index % 256, np.uint8)

    predictor, after = predictor_of(model, cfg, [0.0, 0.0]), {}
    for number, _ in enumerate(predictor.stream(Fresh(range(LAST)), show_progress=False), start=1):  # type: ignore[arg-type]
        if number in (FIRST, LAST):
            after[number] = resident_bytes()
    pixels_bytes = 3 * 1000**2 * (LAST - FIRST)
    assert after[LAST] - after[FIRST] < pixels_bytes / 6
