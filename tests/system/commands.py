"""Running the real commands: in processes of their own, as a person does, or here, where only the command is tested."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

import pytest

from d2tune.cli import main

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


def d2tune_here(
    *words: object, folder: Path, terminal: TextIO | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What `d2tune` gives, by a call in this process, which spares the start; loggers are as before afterwards.

    An exception that the command does not turn into a line leaves it. With ``terminal``, both outputs go there.
    """
    out, err = io.StringIO(), io.StringIO()
    loggers = [logging.getLogger(name) for name in ("d2tune", "detectron2", "fvcore")]
    earlier = [(one, list(one.handlers), one.level, one.propagate) for one in loggers]
    arguments = [str(word) for word in words]
    try:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(terminal or out), redirect_stderr(terminal or err):
            patch.chdir(folder)
            for name, value in environment.items():
                patch.setenv(name, value)
            status = main(arguments)
    finally:
        for logger, handlers, level, propagate in earlier:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
    return subprocess.CompletedProcess(["d2tune", *arguments], status, out.getvalue(), err.getvalue())
