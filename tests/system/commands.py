"""Running the real commands in processes of their own, as a person does."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAIN_NET = ROOT / "tools" / "train_net.py"


def run(*words: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with ``words`` in ``folder``; both outputs are captured."""
    command = [sys.executable, *(str(word) for word in words)]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False
    )


def d2tune(*words: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command ``d2tune``."""
    return run("-c", "import sys; from d2tune.cli import main; sys.exit(main())", *words, folder=folder, **environment)


def train_net(*words: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``tools/train_net.py``."""
    return run(TRAIN_NET, *words, folder=folder, **environment)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """The standard output of a command that must have ended well."""
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that must have refused."""
    assert done.returncode == 1, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def refused_here(
    *words: object, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """The one line of a ``d2tune`` command that must have refused, run in this process, which takes no start."""
    from d2tune.cli import main

    monkeypatch.chdir(folder)
    loggers = [logging.getLogger(name) for name in ("d2tune", "detectron2", "fvcore")]
    earlier = [(one, list(one.handlers), one.level, one.propagate) for one in loggers]
    capsys.readouterr()
    try:
        assert main([str(word) for word in words]) == 1
    finally:
        for logger, handlers, level, propagate in earlier:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, lines
    return lines[0]
