"""``d2tune doctor``: what is installed and what this machine can do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(commands, "doctor", run, "say what is installed and what this machine can do")


def run(options: argparse.Namespace) -> int:
    """Print the report; 1 where something that d2tune needs is missing."""
    from d2tune.doctor import examine, format_report

    report = examine()
    print(format_report(report))
    return 0 if report.ok else 1
