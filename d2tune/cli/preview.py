"""``d2tune preview``: what a model sees in training."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, path
from d2tune.errors import ProjectError

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "preview", run, "draw what a model sees in training: augmented images")
    parser.add_argument("words", nargs="+", metavar="PROJECT.yaml key=value", help="project file, then overrides")
    parser.set_defaults(repeated="words")
    parser.add_argument("--profile", metavar="NAME", help="gpu, cpu or another of the project's profiles")
    parser.add_argument("--out", type=path, metavar="FILE.png", help="the image (default: <project>_preview.png)")
    parser.add_argument("--samples", type=int, metavar="N", help="images to draw, at most 64 (default: 12)")
    parser.add_argument("--no-sample", action="store_true", help="stop if the data are missing; render no sample")
    parser.add_argument("--force", action="store_true", help="replace an earlier preview")


def run(options: argparse.Namespace) -> int:
    """Draw, and print where the image is."""
    from d2tune import api

    config, *overrides = options.words
    if "=" in config:
        raise ProjectError(
            "no project file is given", found=config, hint="Name it: d2tune preview projects/balloon.yaml"
        )
    chosen = given(options, "profile", "out", "samples", "force")
    if "no_sample" in options:
        chosen["sample"] = False
    print(api.preview(path(config), overrides=overrides, **chosen).summary)
    return 0
