"""``d2tune check``: what is wrong with annotations, and what is in them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from d2tune.cli.shared import (
    add_command,
    add_reading_arguments,
    given,
    is_project_file,
    path,
    read_options,
    reading_overrides,
)
from d2tune.errors import ProjectError, printable

if TYPE_CHECKING:
    from d2tune.annotations.model.dataset import Dataset
    from d2tune.cli.shared import Commands
    from d2tune.report.check_page.survey import Checked


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "check", run, "read annotations as convert does, and only report what is wrong")
    add_reading_arguments(parser)
    parser.add_argument("--report", type=path, metavar="FILE.html", help="write a page that shows what is in the data")
    parser.add_argument(
        "--splits", type=path, metavar="FOLDER", help="lists train.txt, val.txt, test.txt (default: SOURCE/splits)"
    )


def run(options: argparse.Namespace) -> int:
    """Check, and print the findings and the counts; 1 where there are errors."""
    from d2tune.annotations.convert import write_findings
    from d2tune.annotations.model.ledger import write_ledger
    from d2tune.checking import check

    results = check(options.source, **_arguments(options))
    findings = [finding for result in results for finding in result.findings]
    if "findings" in options:
        write_findings(options.findings, findings)
    if "ledger" in options:
        write_ledger(options.ledger, [row for result in results for row in result.dataset.ledger])
    for result in results:
        _print(result)
    if "report" in options:
        print(f"the page: {options.report}")
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _print(result: Checked) -> None:
    from d2tune.annotations.convert import findings_table
    from d2tune.annotations.model.ledger import summary

    if result.findings:
        print(findings_table(result.findings))
    print(summary(result.dataset.ledger))
    print(_counts(result.dataset, result.split))
    for name, dataset in result.splits.items():
        print(_counts(dataset, name))


def _counts(dataset: Dataset, split: str) -> str:
    """The images of a split and the objects of each class on a line."""
    counts = ", ".join(f"{count} {name}" for name, count in dataset.counts().items())
    if dataset.crowds:
        of_class = ", ".join(f"{count} {name}" for name, count in dataset.crowd_counts().items() if count)
        counts += f"; crowds: {of_class}"
    line = f"{dataset.size_in_words()} ({printable(counts)})" if counts else dataset.size_in_words()
    return f"{split}: {line}" if split else line


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    if "splits" in options and "report" not in options:
        raise ProjectError("--splits goes with --report", hint="The page shows the splits: --report check.html.")
    chosen = given(options, "strict", "report")
    if is_project_file(options.source):
        if "splits" in options:
            raise ProjectError("--splits does not go with a project file", hint="A project names its splits itself.")
        return chosen | {"overrides": reading_overrides(options)}
    return chosen | given(options, "format", "splits") | {"options": read_options(options)}
