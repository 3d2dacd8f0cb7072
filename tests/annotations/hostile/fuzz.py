"""Mutants of annotation files, each read and written in a watched process.

Run it: ``python -m tests.annotations.hostile.fuzz``.

A mutant must end in a result or in typed findings, under 2 s and 500 MB, and may write nowhere but where it is told.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unicodedata import category

from tests.annotations.hostile.guarded import peak_megabytes
from tests.annotations.hostile.mutants import Mutant, mutant

LIMIT_S = 2.0
"""Processor time that one mutant may take for all that is done with it."""

LIMIT_BYTES = 500 * 2**20
"""Memory that the process may have at its peak."""

_STUCK_S = 30.0


Attack = Callable[[Mutant, Path], tuple[bool, list[str]]]


class Timeout(BaseException):
    """The processor time of a mutant ran out; no Exception, so that nothing under test can swallow it."""


class BrokenError(AssertionError):
    """A result that is none."""


@dataclass
class Report:
    """What a run came to."""

    mutants: int = 0
    results: int = 0
    refused: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest: int = -1
    peak_bytes: int = 0
    wall_s: float = 0.0

    def text(self) -> str:
        rate = self.mutants / max(self.wall_s, 1e-9)
        lines = [f"seed {number}: {problem}" for number, problem in sorted(self.failures.items())]
        lines += [
            f"{self.mutants} mutants in {self.wall_s:.0f} s ({rate:.0f}/s): {self.results} results, "
            f"{self.refused} refused, {len(self.failures)} failures",
            f"slowest {self.slowest_s:.2f} s (seed {self.slowest}), peak memory {self.peak_bytes / 2**20:.0f} MB",
            "findings: " + ", ".join(f"{code} {count}" for code, count in self.codes.most_common()),
        ]
        return "\n".join(lines)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run_one(case: Mutant, home: Path) -> tuple[bool, list[str]]:
    """Put a mutant through what users call.

    Returns:
        Whether it was converted, and the codes of its findings.

    Raises:
        BrokenError: Something came out that must not.
    """
    from d2tune.annotations.convert import FindingsError, check, convert, findings_table
    from d2tune.annotations.model.options import ReadOptions
    from d2tune.errors import DataError

    folder = home / "above" / "near"
    source = folder / "source"
    for name, content in case.files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "canary.png").write_bytes(b"canary")
    before = tree(home)
    options = ReadOptions(**case.options)
    findings: Any = ()
    try:
        if case.number % 3 == 0:
            findings = check(source, format=case.format, options=options).findings
        result = convert(source, out=folder / "out", to="coco", format=case.format, options=options)
        findings = result.findings
        converted = True
    except FindingsError as error:
        findings, converted = error.findings, False
        _is_one_line(error)
        if not findings:
            raise BrokenError("a FindingsError without findings") from error
    except DataError as error:
        converted = False
        _is_one_line(error)
    after = tree(home)
    for finding in findings:
        json.dumps(finding.to_json(), allow_nan=False)
    _is_printable(findings_table(findings))
    allowed = {name for name in after if converted and name.startswith("above/near/out/")}
    if {name: content for name, content in after.items() if name not in allowed} != before:
        raise BrokenError(f"files changed: {sorted(set(after) ^ set(before))[:3]}")
    if converted:
        _check_coco(json.loads((folder / "out" / "annotations.json").read_bytes(), parse_constant=_refuse_constant))
        _convert_again(case, source, folder, options)
    return converted, [finding.code for finding in findings]


def _convert_again(case: Mutant, source: Path, folder: Path, options: Any) -> None:
    """The same bytes once more, and another format."""
    from d2tune.annotations.convert import convert
    from d2tune.errors import DataError

    convert(source, out=folder / "again", to="coco", format=case.format, options=options)
    if tree(folder / "again") != tree(folder / "out"):
        raise BrokenError("a second conversion gave other bytes")
    before = tree(folder.parent.parent)
    try:
        convert(source, out=folder / "other", to=case.to, format=case.format, options=options)
    except DataError as error:
        _is_one_line(error)
        if tree(folder.parent.parent) != before:
            raise BrokenError("files were written although the conversion was refused") from error
        return
    after = tree(folder.parent.parent)
    outside = [name for name in after.keys() - before.keys() if not name.startswith("above/near/other/")]
    if outside or any(after.get(name) != content for name, content in before.items()):
        raise BrokenError(f"files outside were written: {outside[:3]}")
    for name in after:
        if name.startswith("above/near/other/") and name.endswith(".json"):
            json.loads(after[name], parse_constant=_refuse_constant)


def _is_one_line(error: Exception) -> None:
    text = str(error)
    if len(text.splitlines()) != 1:
        raise BrokenError(f"the message is not one line: {text[:200]!r}")
    _is_printable(text)


def _is_printable(text: str) -> None:
    strange = [letter for letter in text if not (letter == "\n" or letter.isprintable() or category(letter) == "Zs")]
    if strange:
        raise BrokenError(f"the terminal would get {strange[0]!r}")


def _refuse_constant(text: str) -> None:
    raise BrokenError(f"the output holds {text}")


def _check_coco(value: dict[str, Any]) -> None:
    sizes = {image["id"]: (image["width"], image["height"]) for image in value["images"]}
    classes = {row["id"] for row in value["categories"]}
    if len(sizes) < len(value["images"]) or len(classes) < len(value["categories"]):
        raise BrokenError("two images or two categories have the same id")
    if not all(type(number) is int for number in (*sizes, *classes)):
        raise BrokenError("an id is not a whole number")
    for position, row in enumerate(value["annotations"], start=1):
        width, height = sizes[row["image_id"]]
        x, y, box_width, box_height = row["bbox"]
        if row["id"] != position or row["category_id"] not in classes:
            raise BrokenError("annotation ids do not count from 1, or a category does not exist")
        if not (0 <= x <= x + box_width <= width + 1e-6 and 0 <= y <= y + box_height <= height + 1e-6):
            raise BrokenError(f"the box {row['bbox']} is not inside {width} x {height}")
        if not 0 < row["area"] <= width * height or box_width <= 0 or box_height <= 0:
            raise BrokenError(f"an area of {row['area']}")
        segmentation = row["segmentation"]
        if isinstance(segmentation, dict):
            if segmentation["size"] != [height, width]:
                raise BrokenError("a run-length mask of another size")
        elif not segmentation or any(len(part) < 6 or len(part) % 2 for part in segmentation):
            raise BrokenError(f"an empty segmentation: {segmentation}")


def _work(pipe: Connection, home: Path, attack: Attack) -> None:
    """Run the mutants whose numbers come through the pipe; each is answered with what it came to."""
    signal.signal(signal.SIGPROF, _ring)
    import d2tune.annotations.convert  # noqa: F401

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    own = _address_space_bytes() + LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (own, own))
    while True:
        number = pipe.recv()
        if number is None:
            return
        case = mutant(number)
        folder = home / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        started_s = time.process_time()
        problem, converted, codes = None, False, []
        try:
            signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
            converted, codes = attack(case, folder)
        except Timeout:
            problem = f"more than {LIMIT_S} s"
        except BaseException as error:  # whatever it is, it is what the run looks for
            last = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__}: {str(error)[:200]!a} ({Path(last.filename).name}:{last.lineno})"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        peak = int(peak_megabytes() * 2**20)
        if problem is None and peak > LIMIT_BYTES:
            problem = f"{peak / 2**20:.0f} MB of memory"
        pipe.send((problem, converted, codes, time.process_time() - started_s, peak, case.seed, case.steps))


def _ring(*_: object) -> None:
    raise Timeout


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class _Worker:
    """A process of its own, started anew when a mutant has killed it."""

    def __init__(self, home: Path, attack: Attack) -> None:
        self._home = home
        self._attack = attack
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._home, self._attack), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, number: int) -> tuple[Any, ...]:
        """What a mutant came to."""
        self._pipe.send(number)
        try:
            if self._pipe.poll(_STUCK_S):
                answer: tuple[Any, ...] = self._pipe.recv()
                if answer[4] > LIMIT_BYTES:
                    self.stop()
                    self._start()
                return answer
            problem = f"stuck for {_STUCK_S:.0f} s"
        except (EOFError, ConnectionError):
            self._process.join()
            problem = f"the process died with status {self._process.exitcode}"
        self.stop()
        self._start()
        case = mutant(number)
        return problem, False, [], 0.0, 0, case.seed, case.steps

    def stop(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._pipe.close()


def run(
    count: int, *, first: int = 0, save: Path | None = None, quiet: bool = True, attack: Attack = run_one
) -> Report:
    """Run the mutants ``first`` to ``first + count - 1``.

    Args:
        count: How many.
        first: The first seed number.
        save: Where the files of failing mutants are kept.
        quiet: Whether nothing is printed on the way.
        attack: What is done with each mutant, a function of a module.
    """
    report = Report()
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as home:
        worker = _Worker(Path(home), attack)
        try:
            for number in range(first, first + count):
                problem, converted, codes, spent_s, peak, seed, steps = worker.ask(number)
                report.mutants += 1
                report.results += converted
                report.refused += problem is None and not converted
                report.codes.update(set(codes))
                if spent_s > report.slowest_s:
                    report.slowest_s, report.slowest = spent_s, number
                report.peak_bytes = max(report.peak_bytes, peak)
                if problem is not None:
                    report.failures[number] = f"{problem} [{seed}; {'; '.join(steps)}]"
                    if not quiet:
                        print(f"seed {number}: {report.failures[number]}", flush=True)
                    if save is not None:
                        _save(mutant(number), save / str(number))
                if not quiet and report.mutants % 2000 == 0:
                    report.wall_s = time.monotonic() - started_s
                    print(f"... {report.mutants} in {report.wall_s:.0f} s", flush=True)
        finally:
            worker.stop()
    report.wall_s = time.monotonic() - started_s
    return report


def _save(case: Mutant, folder: Path) -> None:
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--save", type=Path, help="folder for the files of failing mutants")
    options = parser.parse_args()
    report = run(options.mutants, first=options.seed, save=options.save, quiet=False)
    print(report.text())
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
