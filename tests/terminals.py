"""Terminals that a test can look at: a pseudo-terminal, and an emulator that draws what is written to it."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import termios
from typing import TextIO

import pyte


class Terminal:
    """A pseudo-terminal with an emulator behind it.

    Attributes:
        stream: What a program would have as its standard output.
        screen: What is shown.
        raw: All bytes that were written.
    """

    def __init__(self, columns: int = 100, rows: int = 24) -> None:
        self.master, slave = os.openpty()
        self.stream: TextIO = os.fdopen(slave, "w", encoding="utf-8")
        self.screen = pyte.Screen(columns, rows)
        self._drawing = pyte.ByteStream(self.screen)
        self.raw = b""
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int = 24) -> None:
        """Change the size; lines are cut, not wrapped anew."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def read(self, timeout_s: float = 0.0) -> bool:
        """Draw what was written; whether more can come."""
        while select.select([self.master], [], [], timeout_s)[0]:
            try:
                content = os.read(self.master, 1 << 16)
            except OSError as error:
                if error.errno == errno.EIO:  # the other side is closed
                    return False
                raise
            if not content:
                return False
            self.raw += content
            self._drawing.feed(content)
            timeout_s = 0.0
        return True

    @property
    def lines(self) -> list[str]:
        """The lines that are shown, without blanks at their ends and empty lines at the bottom."""
        self.read()
        shown = [line.rstrip() for line in self.screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def close(self) -> None:
        self.stream.close()
        os.close(self.master)
