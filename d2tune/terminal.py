"""Lines at the bottom of a terminal that are painted again and again, while what is printed goes above them.

The cursor is neither hidden nor moved to another screen: a process that is killed leaves a terminal as good as new.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from d2tune.logs import unescaped
from d2tune.text import printable_lines

if TYPE_CHECKING:
    from rich.text import Text

_MOST_ROWS = 50
"""Rows of a terminal whose size is not known."""


def is_live(stream: TextIO) -> bool:
    """Whether lines can be painted on a stream: it is a terminal that can move its cursor.

    On Windows this is the Windows Terminal, or one that sets ``TERM`` as elsewhere.
    """
    name = os.environ.get("TERM") or ("xterm" if "WT_SESSION" in os.environ else "dumb")
    try:
        return stream.isatty() and name != "dumb"
    except ValueError:  # closed
        return False


def draws_blocks(stream: TextIO) -> bool:
    """Whether the encoding of a stream has the blocks and lines of bars."""
    try:
        "█▁━".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class Painter:
    """Paints lines below everything that is printed.

    Args:
        stream: A terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._stream = stream
        self._raw = unescaped(stream)
        self._console = Console(file=stream, force_terminal=True, markup=False, highlight=False, emoji=False)
        self._lock = threading.RLock()
        self._painted: list[int] = []  # columns of each line
        self._frame = ""

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal now."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            columns, rows = 80, _MOST_ROWS
        return max(columns, 1) if columns else 80, rows or _MOST_ROWS

    def paint(self, lines: Sequence[Text]) -> None:
        """Replace the painted lines; those that are too wide or too many for the terminal are cut."""
        columns, rows = self.size
        shown = list(lines)[: max(1, rows - 1)]
        for line in shown:
            line.truncate(max(1, columns - 1))
        self._console.width = columns
        with self._console.capture() as captured:
            for line in shown:
                self._console.print(line, no_wrap=True, crop=True, overflow="crop")
        with self._lock:
            self._frame, erasing = captured.get(), self._erasing()
            self._painted = [line.cell_len for line in shown]
            self._write(erasing + self._frame)

    def print_above(self, lines: str) -> None:
        """Print whole lines above the painted ones."""
        with self._lock:
            erasing, frame, painted = self._erasing(), self._frame, self._painted
            self._write(f"{erasing}{lines}\n{frame}")
            self._painted = painted

    def erase(self) -> None:
        """Remove the painted lines."""
        with self._lock:
            self._write(self._erasing())
            self._painted, self._frame = [], ""

    def leave(self) -> None:
        """Let the painted lines stay where they are, as if they had been printed."""
        with self._lock:
            self._painted, self._frame = [], ""

    def _erasing(self) -> str:
        """What moves the cursor from below the painted lines to their beginning, and clears what follows.

        A terminal that has become narrower shows a line on several rows, if it is one that wraps its lines anew.
        """
        if not self._painted:
            return ""
        columns, rows = self.size
        taken = sum(max(1, -(-cells // columns)) if _wraps_anew() else 1 for cells in self._painted)
        return f"\r\x1b[{min(taken, rows - 1)}A\x1b[J" if rows > 1 else "\r\x1b[J"

    def _write(self, text: str) -> None:
        if text:
            self._raw.write(text)
            self._raw.flush()


def _wraps_anew() -> bool:
    """Whether the terminal wraps its lines again when its width changes; xterm, screen and the console do not."""
    name = os.environ.get("TERM", "")
    is_screen = name.startswith("screen") and "TMUX" not in os.environ
    return "XTERM_VERSION" not in os.environ and name != "linux" and not is_screen


class Captured:
    """A stream whose whole lines are printed above the lines of a painter.

    A line that is begun anew with a carriage return, as progress bars do, is not printed; it is ``status``.

    Args:
        stream: The stream that it stands for.
        painter: Prints the lines.
    """

    def __init__(self, stream: TextIO, painter: Painter) -> None:
        self._stream = stream
        self._painter = painter
        self._begun = ""
        self._pid = os.getpid()
        self.status = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Print the lines that are whole, and keep the beginning of one that is not."""
        if os.getpid() != self._pid:  # a process that was forked has no painter
            return self._stream.write(text)
        *whole, self._begun = (self._begun + text).split("\n")
        shown = [_last_state(line) for line in whole]
        lines = [line for line, raw in zip(shown, whole, strict=True) if line.strip() or "\r" not in raw]
        if lines:
            self._painter.print_above("\n".join(map(printable_lines, lines)))
        if "\r" in self._begun:
            self._begun = "\r" + _last_state(self._begun)
            self.status = self._begun.strip()
        elif whole:
            self.status = ""
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Does nothing: whole lines are printed at once."""

    def finish(self) -> None:
        """Print a line that was begun."""
        if self._begun.strip() and "\r" not in self._begun:
            self.write("\n")


def _last_state(line: str) -> str:
    """What a terminal shows of a line after its last carriage return; moves to the line above are ignored."""
    return line.replace("\x1b[A", "").rstrip("\r").rpartition("\r")[2]


@contextmanager
def captured_output(painter: Painter) -> Iterator[tuple[Captured, ...]]:
    """Let what is printed on the standard output and the standard error, if they are terminals, go above the lines."""
    earlier = sys.stdout, sys.stderr
    captured = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if is_live(stream):
            captured.append(Captured(stream, painter))
            setattr(sys, name, captured[-1])
    try:
        yield tuple(captured)
    finally:
        sys.stdout, sys.stderr = earlier
        for stream in captured:
            with suppress(ValueError):
                stream.finish()
