"""The list of runs again and again, until it is ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from d2tune.errors import check_range
from d2tune.terminal import Painter, is_live


def watch(text: Callable[[int | None], str], *, every_s: float) -> None:
    """Show a text again and again until Ctrl-C: in a terminal in its place, elsewhere one below the last.

    Args:
        text: The text as it is now, for a number of letters on a line; None for any number.
        every_s: Seconds between.

    Raises:
        ProjectError: The time is not between 0.2 s and a day.
    """
    check_range(every_s, place="--watch", least=0.2, most=86400)
    painter = Painter(sys.stdout) if is_live(sys.stdout) else None
    try:
        while True:
            if painter is None:
                print(text(None), flush=True)
            else:
                from rich.text import Text

                painter.paint([Text(line) for line in text(painter.size[0] - 1).splitlines()])
            time.sleep(every_s)
    except KeyboardInterrupt:
        if painter is not None:
            painter.leave()
