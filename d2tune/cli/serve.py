"""``d2tune serve``: models behind an HTTP API."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from d2tune.cli.shared import add_command, given, name, path
from d2tune.cli.windows import add_window_arguments, window_arguments
from d2tune.errors import ProjectError

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands
    from d2tune.serving.settings import PageOptions, ServingSettings

_SETTINGS = ("queue", "deadline_s", "keys", "drain_delay_s")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "serve", run, "serve models over HTTP (docs/serving.md)", runs_network=True)
    parser.add_argument(
        "models",
        type=name,
        nargs="*",
        metavar="MODEL",
        help="run folder, package, exported model, or a project file for its latest run; NAME=PATH names it",
    )
    parser.add_argument("--host", type=name, help="address to listen at; 0.0.0.0 is all (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port, 0 for a free one (default: 8000)")
    parser.add_argument("--weights", type=name, metavar="NAME", help="of runs: best, final or a file (default: best)")
    parser.add_argument(
        "--min-score", type=float, metavar="SCORE", help="lowest score of instances (default: those of the model)"
    )
    add_window_arguments(parser)
    group = parser.add_argument_group("the page for judging predictions at / (docs/acceptance.md)")
    group.add_argument("--images", type=path, metavar="FOLDER", help="images to judge (default: those dropped there)")
    group.add_argument(
        "--truth",
        type=path,
        metavar="FILE",
        help="annotations to show as well (default: those in the folder of images)",
    )
    group.add_argument(
        "--judgments", type=path, metavar="FILE", help="database of judgments (default: acceptance.sqlite)"
    )
    group.add_argument(
        "--predictions",
        type=name,
        action="append",
        metavar="FILE",
        help="judge these COCO predictions of any tool as those of a model; NAME=FILE names them; may be repeated",
    )
    group.add_argument("--blind", action="store_true", dest="is_blind", help="compare two models without their names")
    group.add_argument(
        "--compare",
        type=name,
        action="append",
        metavar="MODEL",
        help="a further model for the page /models, which compares two on an image: a run, a package, or a published "
        "network such as fcn_resnet50; NAME=PATH names it; may be repeated",
    )
    group.add_argument("--title", metavar="TEXT", help="heading of the page and of the report (default: Acceptance)")
    group.add_argument("--no-page", action="store_true", help="serve the API alone")
    group = parser.add_argument_group("keys")
    group.add_argument("--keys", type=path, metavar="FILE", help="file with the hashes of the keys of clients")
    group.add_argument("--new-key", type=name, metavar="CLIENT", help="add a key to --keys, print it, and end")
    group.add_argument(
        "--cors", action="append", metavar="ORIGIN", help="origin whose pages may call the server (default: none)"
    )
    group.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="public name by which a server without keys is called (default: addresses and private names)",
    )
    group = parser.add_argument_group("limits")
    group.add_argument("--max-mb", type=float, metavar="MB", help="largest body of a request in MiB (default: 32)")
    group.add_argument(
        "--max-megapixels", type=float, metavar="MP", help="largest image, as its header says (default: 50)"
    )
    group.add_argument(
        "--max-instances", type=int, metavar="N", help="most instances of an image, by their scores (default: 1000)"
    )
    group.add_argument(
        "--first-frame", action="store_true", help="of images of several frames or pages, take the first"
    )
    group.add_argument(
        "--queue", type=int, metavar="N", help="most images in progress; further ones get 429 (default: 64)"
    )
    group.add_argument(
        "--deadline",
        type=float,
        dest="deadline_s",
        metavar="S",
        help="seconds until the model must begin with an image (default: 30)",
    )
    group.add_argument(
        "--drain-delay",
        type=float,
        dest="drain_delay_s",
        metavar="S",
        help="seconds after SIGTERM in which requests are still accepted (default: 0)",
    )


def run(options: argparse.Namespace) -> int:
    """Serve, or make a key."""
    from d2tune import api

    if "new_key" in options:
        print(api.new_serving_key(options.new_key, getattr(options, "keys", None)))
        return 0
    chosen = {**given(options, "host", "port", "weights", "min_score"), **window_arguments(options)}
    api.serve(getattr(options, "models", []), **chosen, settings=_settings(options), page=_page(options), say=_say)
    return 0


def _page(options: argparse.Namespace) -> PageOptions | None:
    from d2tune.serving.settings import PageOptions

    shown = given(options, "images", "truth", "judgments", "predictions", "is_blind", "title", "compare")
    if "no_page" not in options:
        lists = {key: tuple(getattr(options, key, ())) for key in ("predictions", "compare")}
        return PageOptions(**shown | lists)
    for option in shown:
        text = "--blind" if option == "is_blind" else f"--{option}"
        raise ProjectError(f"{text} goes with the page", hint="Remove it, or remove --no-page.")
    return None


def _say(line: str) -> None:
    print(line, flush=True)


def _whole(value: float) -> float:
    return int(value) if math.isfinite(value) else value  # the settings refuse others


def _settings(options: argparse.Namespace) -> ServingSettings:
    from d2tune.serving.settings import MIB, Limits, ServingSettings

    limits: dict[str, Any] = {}
    if "max_mb" in options:
        limits["body_bytes"] = _whole(options.max_mb * MIB)
    if "max_megapixels" in options:
        limits["pixels"] = _whole(options.max_megapixels * 1e6)
    if "max_instances" in options:
        limits["instances"] = options.max_instances
    if "first_frame" in options:
        limits["several_frames"] = True
    chosen: dict[str, Any] = given(options, *_SETTINGS)
    if "cors" in options:
        chosen["cors_origins"] = tuple(options.cors)
    if "allow_host" in options:
        chosen["hosts"] = tuple(options.allow_host)
    return ServingSettings(limits=Limits(**limits), **chosen)
