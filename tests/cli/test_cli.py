import argparse
import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d2tune import api, cli
from d2tune.annotate import annotate
from d2tune.annotations.convert import convert
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.splitting.splits import SplitOptions
from d2tune.cli.shared import add_command, add_reading_arguments, given, read_options, reading_overrides
from d2tune.errors import DataError, ProjectError
from d2tune.samples import render_sample


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (one for one in cli.build_parser()._actions if isinstance(one, argparse._SubParsersAction))
    return dict(action.choices)


def parse(*words: str) -> argparse.Namespace:
    return cli._parse(words)


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0 and text.startswith("usage: d2tune ")
    visible = [action for action in commands()[name]._actions if action.help != argparse.SUPPRESS]
    assert all(action.help for action in visible)
    assert "==SUPPRESS==" not in text and "colour" not in text and "--part" not in text


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_command_has_no_defaults_of_its_own(name: str) -> None:
    """What is not given is not in the namespace, so that defaults are in one place, the function's signature."""
    actions = [action for action in commands()[name]._actions if action.option_strings and action.dest != "help"]
    assert all(action.default is argparse.SUPPRESS for action in actions)


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}


def fields(options: type) -> dict[str, Any]:
    return {one.name: one.default for one in dataclasses.fields(options) if one.default is not dataclasses.MISSING}


@pytest.mark.parametrize(
    ("name", "functions"),
    [
        ("sample", [defaults(render_sample)]),
        ("annotate", [defaults(annotate)]),
        ("convert", [defaults(convert), fields(ReadOptions)]),
        ("split", [fields(SplitOptions), fields(ReadOptions)]),
        ("predict", [defaults(api.predict)]),
        ("eval", [defaults(api.evaluate)]),
        ("export", [defaults(api.export)]),
    ],
)
def test_the_help_states_the_defaults_that_apply(name: str, functions: list[dict[str, Any]]) -> None:
    stated = {}
    for action in commands()[name]._actions:
        match = re.search(r"\(default: (-?[\d.]+|[a-z]+)( s)?\)", action.help or "")
        if match:
            stated[action.dest] = match[1]
    known = {key: value for function in functions for key, value in function.items()}
    compared = 0
    for key, text in stated.items():
        value = known.get(key)
        if isinstance(value, (int, float)):
            assert float(text) == value, key
        elif isinstance(value, str):
            assert text == value, key
        compared += value is not None
    assert compared >= 1


def test_only_given_arguments_are_passed_on() -> None:
    options = parse("predict", "run", "--min-score", "0")
    assert given(options, "source", "min_score", "weights", "force") == {"min_score": 0.0}
    assert given(parse("predict", "run", "photos", "--force"), "source", "force") == {
        "source": ["photos"],
        "force": True,
    }


@pytest.mark.parametrize("words", [["--debug", "doctor"], ["doctor", "--debug"]])
def test_debug_may_stand_before_and_behind_the_command(words: list[str]) -> None:
    assert parse(*words).debug and not parse("doctor").debug


def test_debug_shows_where_an_error_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check", "missing"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(DataError):
        cli.main(["check", "missing", "--debug"])


def test_names_of_an_earlier_version_are_still_accepted() -> None:
    assert parse("annotate", "p.yaml", "--part", "val").split == parse("annotate", "p.yaml", "--split", "val").split
    assert parse("check", "a", "--colour-map", "m.txt").color_map == Path("m.txt")


def test_overrides_may_follow_an_option() -> None:
    options = parse("train", "p.yaml", "train.iterations=2", "--resume", "SOLVER.BASE_LR", "0.1")
    assert options.words == ["p.yaml", "train.iterations=2", "SOLVER.BASE_LR", "0.1"] and options.resume
    loop = parse("label-loop", "p.yaml", "new", "--images", "6", "train.iterations=2")
    assert (loop.folder, loop.words, loop.images) == (Path("new"), ["train.iterations=2"], 6)


@pytest.mark.parametrize("words", [["doctor", "more"], ["train", "p.yaml", "--nonsense"]])
def test_words_that_no_command_takes_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2 and "unrecognized arguments" in capsys.readouterr().err


def reading(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    add_reading_arguments(parser)
    return parser.parse_args(["source", *words])


def test_reading_options(tmp_path: Path) -> None:
    assert read_options(reading()) == ReadOptions()
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n", encoding="utf-8")
    words = [
        "--labels",
        str(labels),
        "--stuff",
        "sky, road",
        "--rename",
        "kat=cat",
        "--drop",
        "x",
        "--pixel-offset",
        "0.5",
    ]
    assert read_options(reading(*words, "--skip-bad")) == ReadOptions(
        labels=("cat", "dog"), stuff=("sky", "road"), rename={"kat": "cat", "x": None}, pixel_offset=0.5, skip_bad=True
    )


def test_reading_options_beside_a_project_file() -> None:
    assert reading_overrides(reading("--skip-bad", "--workers", "1")) == {"skip_bad": True, "workers": 1}
    with pytest.raises(ProjectError, match="--image-root does not go with a project file"):
        reading_overrides(reading("--image-root", "photos"))


def test_a_command_is_added_with_its_aliases() -> None:
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers(), "greet", lambda options: 7, "say hello", aliases=("hello",))
    options = parser.parse_args(["hello"])
    assert options.run(options) == 7 and options.command_name == "greet" and "debug" not in options


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "run", "--tolerance-px", "2"],
        ["predict", "run", "--tolerance-px", "2", "--to", "coco"],
        ["convert", "data", "--out", "out", "--tolerance-px", "2"],
        ["convert", "data", "--out", "out", "--to", "semantic", "--tolerance-px", "2"],
        ["convert", "data", "--out", "out", "--min-area", "2"],
    ],
)
def test_options_that_a_format_does_not_use(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 1
    (option,) = (word for word in words if word in ("--tolerance-px", "--min-area"))
    expected = f"error: {option} goes with --to labelme. Remove it, or add --to labelme.\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "words",
    [
        ["check", ""],
        ["check", "data", "--report", " "],
        ["convert", "", "--out", "out"],
        ["convert", "data", "--out", ""],
        ["split", ""],
        ["train", ""],
        ["train", "--config", ""],
        ["train", "p.yaml", "--output-dir", ""],
        ["eval", ""],
        ["eval", "run", "--weights", ""],
        ["predict", ""],
        ["predict", "run", ""],
        ["compare", "run", ""],
        ["annotate", ""],
        ["data", ""],
        ["new", "n", "--data", ""],
        ["sample", "balloon", "--out", ""],
    ],
)
def test_an_empty_path_is_not_the_working_folder(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    assert "the path is empty" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: api.predict("run", min_score=50), "--min-score: must be between 0 and 1; found 50"),
        (lambda: api.predict("run", min_score=float("nan")), "--min-score: must be between 0 and 1; found nan"),
        (lambda: api.predict("run", tolerance_px=-5), "--tolerance-px: must be between 0 and 1000; found -5"),
        (lambda: api.convert("data", out="out", tolerance_px=float("inf")), "--tolerance-px: must be between"),
        (lambda: api.evaluate("run", batch_size=-1), "--batch-size: must be 1 or more; found -1"),
        (lambda: api.evaluate(""), "run: the path is empty"),
        (lambda: api.predict("run", ""), "source: the path is empty"),
        (lambda: api.convert("", out="out"), "source: the path is empty"),
        (lambda: api.split(""), "source: the path is empty"),
        (lambda: api.train(""), "project file: the path is empty"),
    ],
)
def test_the_functions_refuse_what_the_commands_refuse(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ProjectError) as caught:
        call()
    assert words in caught.value.one_line()
