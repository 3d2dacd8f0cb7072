from __future__ import annotations

import pytest

from d2tune.errors import D2TuneError, ProjectError, check_path, check_range
from d2tune.text import a_or_an, counted, in_bytes, nearest_hint, printable, printable_lines, shortened


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (1200, "image", "1,200 images"),
        (2, "class", "2 classes"),
        (2, "box", "2 boxes"),
        (2, "batch", "2 batches"),
        (2, "category", "2 categories"),
        (2, "array", "2 arrays"),
        (3, "training image", "3 training images"),
    ],
)
def test_counts(count: int, noun: str, words: str) -> None:
    assert counted(count, noun) == words


@pytest.mark.parametrize(
    "words", ["an instance", "a semantic run", "an object", "a unit", "an unlabeled image", "a used name"]
)
def test_articles(words: str) -> None:
    assert a_or_an(words.split(" ", 1)[1]) == words


def test_hints_name_a_similar_word_or_say_what_there_is() -> None:
    assert nearest_hint("baloon", ["balloon", "car"]) == "Did you mean 'balloon'?"
    assert nearest_hint("zzz", ["balloon"]) is None
    assert nearest_hint("zzz", [], otherwise="There is none.") == "There is none."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é气 \u00a0x", "é气 \u00a0x"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\r", "a\\nb\\r"),
        ("\u202egnp.a", "\\u202egnp.a"),
        ("\u200b\u2066", "\\u200b\\u2066"),
        ("\ud800", "\\ud800"),
        ("\u2028", "\\u2028"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_names_on_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_on_a_terminal_stay_lines() -> None:
    assert printable_lines("a\n\tb\x1b\r\n") == "a\n\tb\\x1b\\r\n"


def test_long_errors_keep_their_beginning_and_their_end() -> None:
    line = shortened(f"first {'x' * 3000}\n   last", 100)
    assert len(line) <= 100 and line.startswith("first xxx") and line.endswith("xxx last") and " ... " in line
    assert shortened("a\n  b") == "a b"
    assert len(D2TuneError("m" * 5000, hint="Do this.").one_line()) <= 1000
    assert D2TuneError("m" * 5000, hint="Do this.").one_line().endswith(". Do this.")


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_numbers_outside_of_a_range(value: float) -> None:
    with pytest.raises(ProjectError, match=r"^--min-score: must be between 0 and 1; found "):
        check_range(value, place="--min-score", least=0, most=1)


def test_limits_of_ranges() -> None:
    check_range(0, place="x", least=0, most=1)
    check_range(1, place="x", least=0, most=1)
    with pytest.raises(ProjectError, match="must be 1 or more; found 0"):
        check_range(0, place="x", least=1)
    with pytest.raises(ProjectError, match="must be above 0; found 0"):
        check_range(0, place="x", above=0)
    with pytest.raises(ProjectError, match="must be above 0 and at most 2; found 3"):
        check_range(3, place="x", above=0, most=2)


def test_empty_paths() -> None:
    for path in ("", "  "):
        with pytest.raises(ProjectError, match="the path is empty"):
            check_path(path, place="source")
    check_path(None, place="source")
    check_path(".", place="source")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_499, "999 kB"),
        (999_999, "1.0 MB"),
        (145_913_719, "146 MB"),
        (4_100_000_000, "4.1 GB"),
        (2.5e15, "2500.0 TB"),
    ],
)
def test_sizes(size: int, words: str) -> None:
    assert in_bytes(size) == words
