"""Lines painted at the bottom of a terminal, as an emulator of terminals shows them."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator

import pytest
from rich.text import Text
from tqdm import tqdm

from d2tune.logs import guarded_streams, set_up_terminal
from d2tune.terminal import Painter, captured_output, draws_blocks, is_live
from tests.terminals import Terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("XTERM_VERSION", raising=False)
    one = Terminal(columns=40, rows=12)
    yield one
    one.close()


def texts(*lines: str) -> list[Text]:
    return [Text(line) for line in lines]


def test_painted_lines_are_replaced_and_printed_ones_stay_above(terminal: Terminal) -> None:
    painter = Painter(terminal.stream)
    painter.paint(texts("bar 1", "loss 2"))
    assert terminal.lines == ["bar 1", "loss 2"]
    painter.paint(texts("bar 3", "loss 4", "now"))
    painter.print_above("a warning\nof two lines")
    assert terminal.lines == ["a warning", "of two lines", "bar 3", "loss 4", "now"]
    painter.paint(texts("bar 5"))
    assert terminal.lines == ["a warning", "of two lines", "bar 5"]
    assert (terminal.screen.cursor.y, terminal.screen.cursor.x) == (3, 0), "where a shell would write its prompt"
    painter.erase()
    assert terminal.lines == ["a warning", "of two lines"]
    painter.paint(texts("last"))
    painter.leave()
    painter.print_above("after")
    assert terminal.lines == ["a warning", "of two lines", "last", "after"]


def test_the_cursor_is_never_hidden_and_the_screen_never_switched(terminal: Terminal) -> None:
    painter = Painter(terminal.stream)
    painter.paint(texts("a"))
    painter.paint(texts("b"))
    painter.leave()
    terminal.read()
    assert b"\x1b[?" not in terminal.raw


def test_a_line_longer_than_the_terminal_wraps_above_and_is_cut_below(terminal: Terminal) -> None:
    painter = Painter(terminal.stream)
    painter.paint(texts("x" * 90))
    painter.print_above("y" * 50)
    painter.paint(texts("z" * 90, "now"))
    assert terminal.lines == ["y" * 40, "y" * 10, "z" * 39, "now"]


def test_a_small_terminal_shows_the_first_lines(terminal: Terminal) -> None:
    terminal.resize(40, 3)
    painter = Painter(terminal.stream)
    for number in range(3):
        painter.paint(texts(*(f"{number} {line}" for line in range(5))))
    assert terminal.lines == ["2 0", "2 1"]


@pytest.mark.parametrize(("wraps", "expected"), [(True, ["above", "new"]), (False, ["above", "below", "new"])])
def test_a_narrower_terminal_is_erased_by_the_rows_that_it_shows(
    wraps: bool, expected: list[str], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that wraps anew shows 30 letters on two rows of 20; the emulator, as xterm does, cuts them."""
    painter = Painter(terminal.stream)
    painter.print_above("above\nbelow")
    painter.paint(texts("x" * 30, "short"))
    terminal.read()
    if not wraps:
        monkeypatch.setenv("XTERM_VERSION", "XTerm(390)")
    terminal.resize(20, 12)
    painter.paint(texts("new"))
    assert terminal.lines == expected, "one row more is erased where lines are wrapped anew"


@pytest.mark.parametrize(("no_color", "has_color"), [(None, True), ("1", False)])
def test_no_color(no_color: str | None, has_color: bool, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    painter = Painter(terminal.stream)
    painter.paint([Text("green", style="green")])
    terminal.read()
    assert (b"\x1b[32m" in terminal.raw) == has_color and terminal.lines == ["green"]


def test_prints_logs_warnings_and_progress_bars_do_not_tear_the_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    earlier = list(logging.getLogger("d2tune").handlers)
    with guarded_streams():
        set_up_terminal()
        painter = Painter(sys.stdout)
        with captured_output(painter) as captured:
            painter.paint(texts("view"))
            print("a", end="")
            print("b\nred \x1b[31m", flush=True)
            logging.getLogger("d2tune.x").warning("logged")
            sys.stderr.write(warnings.formatwarning("warned", UserWarning, "file.py", 3, line=""))
            for _ in tqdm(range(3), desc="evaluating", leave=False, mininterval=0, ascii=True):
                assert captured[1].status.startswith("evaluating:")
            assert captured[1].status == ""
            painter.paint(texts("view 2"))
            print("unfinished", end="")
        painter.leave()
        print("after")
    for handler in set(logging.getLogger("d2tune").handlers) - set(earlier):
        logging.getLogger("d2tune").removeHandler(handler)
    assert terminal.lines == [
        "ab",
        r"red \x1b[31m",
        "logged",
        "file.py:3: UserWarning: warned",
        "unfinished",
        "view 2",
        "after",
    ]


def test_a_process_that_was_forked_writes_past_the_painter(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that holds the painter's lock does not exist there."""
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    painter = Painter(terminal.stream)
    with captured_output(painter), painter._lock:
        pid = os.fork()
        if pid == 0:
            print("from the child", flush=True)
            terminal.stream.flush()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    assert "from the child" in terminal.lines


def test_where_lines_can_be_painted(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_live(terminal.stream) and draws_blocks(terminal.stream)
    assert not is_live(io.StringIO())
    assert not draws_blocks(io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    for name in ("dumb", None):
        if name is None:
            monkeypatch.delenv("TERM")
        else:
            monkeypatch.setenv("TERM", name)
        assert not is_live(terminal.stream)
    monkeypatch.setenv("WT_SESSION", "1")
    assert is_live(terminal.stream), "the Windows Terminal"


def test_a_terminal_that_goes_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    with guarded_streams():
        painter = Painter(sys.stdout)
        painter.paint(texts("a"))
        os.close(terminal.master)
        painter.paint(texts("b"))
        painter.print_above("c")
    terminal.stream.close()
