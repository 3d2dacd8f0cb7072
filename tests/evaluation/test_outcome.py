"""A complete evaluation of instances in memory."""

from __future__ import annotations

import pytest

from d2tune.evaluation import outcome
from d2tune.metrics.coco import scorer
from d2tune.metrics.coco.results import KINDS
from d2tune.metrics.coco.rows import CocoSet, read_coco
from d2tune.metrics.coco.scorer import score_coco
from tests.metrics.coco.random_sets import random_set


def test_ground_truth_and_results_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    random = random_set(2)
    expected = score_coco(*random).kinds["segm"].metrics["AP"].value
    reads = []

    def counted(*arguments: object) -> CocoSet:
        reads.append(arguments)
        return read_coco(*arguments)

    for module in (outcome, scorer):
        monkeypatch.setattr(module, "read_coco", counted)
    result = outcome.evaluate_results(*random, kinds=KINDS)
    assert len(reads) == 1
    assert result.metrics.segm["AP"].value == expected
