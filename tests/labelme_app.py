"""Labelme itself, without a screen."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from PIL import Image as PilImage

from d2tune.doctor import labelme_command


def open_in_labelme(files: list[Path], tmp_path: Path) -> list[dict[str, Any]]:
    """What Labelme's window shows of each file; it saves each in place."""
    command = labelme_command()
    assert command is not None, "Labelme is missing: make .venv-labelme/bin/labelme"
    script = Path(__file__).with_name("labelme_window.py")
    images, home = tmp_path / "windows", tmp_path / "home"
    for folder in (images, home):
        folder.mkdir(exist_ok=True)
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen", "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    done = subprocess.run(
        [str(command.with_name("python")), str(script), str(images), *(str(file) for file in files)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for file in files:
        with PilImage.open(images / f"{file.stem}.png") as window:
            assert len(window.getcolors(1 << 24) or range(100)) > 50  # an image is shown, not an empty window
    shown: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return shown
