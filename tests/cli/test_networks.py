"""Which commands run a network, and therefore keep freed memory."""

from __future__ import annotations

import pytest

from d2tune.cli import build_parser


@pytest.mark.parametrize(
    "words",
    [
        ["train", "project.yaml"],
        ["eval", "run"],
        ["predict", "run", "photo.jpg"],
        ["track", "clip.mp4"],
        ["serve", "run"],
        ["export", "run", "--format", "onnx", "--out", "folder"],
        ["label-loop", "project.yaml", "photos"],
        ["kfold", "project.yaml"],
        ["assemble", "run"],
        ["sweep", "project.yaml", "--space", "space.yaml", "--trials", "3"],
    ],
)
def test_commands_that_run_a_network(words: list[str]) -> None:
    assert build_parser().parse_known_args(words)[0].runs_network


@pytest.mark.parametrize("words", [["check", "photos"], ["convert", "photos", "--to", "coco"], ["doctor"], ["runs"]])
def test_commands_that_do_not(words: list[str]) -> None:
    assert not build_parser().parse_known_args(words)[0].runs_network
