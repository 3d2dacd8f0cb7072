"""A conversion as a user starts it, held to its bounds."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from d2tune.annotations.convert import FindingsError, convert, findings_table
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError

_STUCK_S = 60


@dataclass(frozen=True)
class Outcome:
    """What a conversion came to; ``megabytes`` is the peak of the whole process."""

    error: str | None
    codes: list[str]
    instances: int
    images: int
    seconds: float
    megabytes: float


def tried(
    source: Path,
    *,
    to: str = "coco",
    format: str = "auto",
    seconds: float = 2.0,
    out: Path | None = None,
    **options: Any,
) -> Outcome:
    """Convert ``source`` and hold it to its time; what waits for ever is interrupted."""
    out = out or Path(f"{source.with_suffix('')}-out")
    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(_STUCK_S)
    started_s = time.process_time()
    error, instances, images, findings = None, 0, 0, ()
    try:
        result = convert(source, out=out, to=to, format=format, options=ReadOptions(**options))
        findings, instances, images = result.findings, len(result.dataset.instances), len(result.dataset.images)
    except DataError as caught:
        error = str(caught)
        findings = caught.findings if isinstance(caught, FindingsError) else ()
        assert len(error.splitlines()) == 1
        assert not out.exists()
    finally:
        signal.alarm(0)
    findings_table(findings)
    spent_s = time.process_time() - started_s
    assert spent_s < seconds, f"{spent_s:.1f} s"
    codes = sorted({finding.code for finding in findings})
    return Outcome(error, codes, instances, images, spent_s, peak_megabytes())


def _ring(*_: object) -> None:
    raise AssertionError(f"nothing happened for {_STUCK_S} s")


def peak_megabytes() -> float:
    """The most memory that this process has had (not its parent, as ``getrusage`` would say)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def guarded(source: Path, *, megabytes: float = 500.0, **options: Any) -> Outcome:
    """`tried` in its own process, which may crash and whose memory is measured."""
    words = {"source": source, **options}
    command = [sys.executable, "-m", "tests.annotations.hostile.guarded", json.dumps(words, default=str)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * _STUCK_S, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    outcome = Outcome(**json.loads(done.stdout))
    assert outcome.megabytes < megabytes, outcome
    return outcome


def _main() -> None:
    import PIL.Image
    import PIL.PngImagePlugin  # noqa: F401

    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    options = json.loads(sys.argv[1])
    places = {key: Path(options.pop(key)) for key in ("source", "out") if key in options}
    print(json.dumps(asdict(tried(**places, **options))))


if __name__ == "__main__":
    _main()
