"""Evaluations and comparisons replace those before them, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

import d2tune
from d2tune.errors import DataError
from d2tune.evaluation.from_files.evaluate import evaluate_files
from tests.evaluation.from_files.test_matching import files, ground_truth, listed
from tests.runs.test_load import quick_run

TRUTH = ground_truth([1, 2], {1: "cod"})


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["evaluation.json", "plots/confusion.png"])
def test_a_persons_file_stays(tmp_path: Path, name: str) -> None:
    both = files(tmp_path, listed(TRUTH), TRUTH)
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"mine": 1}')
    before = content(tmp_path)
    with pytest.raises(DataError, match="d2tune did not write it as evaluation"):
        evaluate_files(*both, out=tmp_path / "out")
    assert content(tmp_path) == before


def test_an_evaluation_replaces_the_one_before(tmp_path: Path) -> None:
    both = files(tmp_path, listed(TRUTH)[:1], TRUTH)
    for _ in range(2):
        evaluate_files(*both, out=tmp_path / "out")
    first = (tmp_path / "out" / "evaluation.json").read_text()
    evaluate_files(*files(tmp_path, listed(TRUTH), TRUTH), out=tmp_path / "out")
    assert (tmp_path / "out" / "evaluation.json").read_text() != first
    (tmp_path / "out" / "evaluation.json").write_text("my notes")
    with pytest.raises(DataError, match="It was changed after d2tune wrote it"):
        evaluate_files(*both, out=tmp_path / "out")


def test_an_evaluation_of_an_earlier_version_is_replaced(tmp_path: Path) -> None:
    both = files(tmp_path, listed(TRUTH), TRUTH)
    evaluate_files(*both, out=tmp_path / "out")
    for record in (tmp_path / "out").rglob(".d2tune-outputs.jsonl"):
        record.unlink()
    evaluate_files(*both, out=tmp_path / "out")


def test_label_images_that_are_evaluated_stay(tmp_path: Path) -> None:
    for folder in ("predicted", "truth"):
        (tmp_path / folder).mkdir()
        PilImage.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / folder / "a.png")
    (tmp_path / "labels.txt").write_text("ground\n")
    (tmp_path / "truth" / "__MACOSX").mkdir()
    (tmp_path / "truth" / "__MACOSX" / "._a.png").write_bytes(b"attributes")
    before = content(tmp_path)
    evaluate_files(
        tmp_path / "predicted", tmp_path / "truth", labels=tmp_path / "labels.txt", out=tmp_path / "evaluation"
    )
    assert content(tmp_path).items() >= before.items()


def test_a_comparison_replaces_comparisons_only(tmp_path: Path) -> None:
    predictions, truth = files(tmp_path, listed(TRUTH), TRUTH)
    path = tmp_path / "comparison.json"
    for earlier in (None, {"schema": 1, "a": "x", "b": "y", "verdict": "", "figures": {}}):
        if earlier is not None:
            (tmp_path / ".d2tune-outputs.jsonl").unlink()
            path.write_text(json.dumps(earlier))
        d2tune.compare(predictions, predictions, ground_truth=truth, out=tmp_path)
        assert json.loads(path.read_text())["images"] == 2
    path.write_text("mine")
    with pytest.raises(DataError, match="It was changed after d2tune wrote it"):
        d2tune.compare(predictions, predictions, ground_truth=truth, out=tmp_path)
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "comparison.json"
    other.write_text(json.dumps(TRUTH))
    with pytest.raises(DataError, match="the output would replace an input"):
        d2tune.compare(predictions, predictions, ground_truth=other, out=tmp_path / "other")


def test_lower_scores_are_named_where_nothing_has_the_score_that_counts(tmp_path: Path) -> None:
    rows = listed(TRUTH)
    for row, score in zip(rows, (0.41, 0.4999), strict=True):
        row["score"] = score
    result = evaluate_files(*files(tmp_path, rows, TRUTH), out=tmp_path / "out")
    words = "no detection has a score of 0.5 or more, but 2 have lower scores, the highest is 0.499"
    assert f"; {words}; see " in result.sentence and result.metrics.segm["AP"].value == pytest.approx(100)
    rows[0]["score"] = 0.5
    result = evaluate_files(*files(tmp_path, rows, TRUTH), out=tmp_path / "out")
    assert "no detection" not in result.sentence


@pytest.mark.slow
def test_the_evaluation_of_a_run(tmp_path: Path) -> None:
    """The folder of the run keeps what training wrote; a person's predictions stay; the default folder is replaced."""
    run = quick_run(tmp_path)
    before = content(run)
    with pytest.raises(DataError, match=r"(evaluation|predictions)\.json: the file is already there"):
        d2tune.evaluate(run, out=run)
    assert content(run) == before
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "predictions.json").write_text("[]")
    with pytest.raises(DataError, match="d2tune did not write it as evaluation"):
        d2tune.evaluate(run, out=tmp_path / "own")
    first = d2tune.evaluate(run, metrics=["segm"])
    for record in first.out.rglob(".d2tune-outputs.jsonl"):
        record.unlink()
    again = d2tune.evaluate(run, metrics=["segm"])
    assert again.out == first.out == run / "evaluation" and again.metrics.to_json() == first.metrics.to_json()
    # the options with which the data were read belong to the evaluation
    objects = d2tune.evaluate(run, crowds="objects", metrics=["segm"], out=tmp_path / "objects")
    assert json.loads((objects.out / "evaluation.json").read_text())["crowds"] == "objects"
    assert d2tune.compare(again.out, objects.out).metrics["segm AP"].difference == 0
