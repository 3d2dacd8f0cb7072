"""A training with the processor time at each optimizer step, in a process of its own.

``python timed_training.py OUT [--stop-after N] -- PROJECT.yaml [key=value ...]`` runs ``d2tune train`` of whichever
checkout ``PYTHONPATH`` names, and writes the times to ``OUT`` when it ends. ``--stop-after`` ends the process after N
steps. In this process ``time.perf_counter`` is the processor time, so that ``train.budget`` is in processor seconds,
whatever else runs on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path


def main() -> int:
    """Train, and write the times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--stop-after", type=int)
    parser.add_argument("words", nargs="+")
    options = parser.parse_args()
    time.perf_counter = time.process_time
    from torch.optim.optimizer import register_optimizer_step_post_hook

    steps_s: list[float] = []

    def record(*_: object) -> None:
        steps_s.append(time.process_time())
        if len(steps_s) == options.stop_after:
            options.out.write_text(json.dumps(steps_s), encoding="utf-8")
            os._exit(0)

    register_optimizer_step_post_hook(record)
    from d2tune import cli

    sys.argv = ["d2tune", "train", *options.words]
    status = int(getattr(cli, "command", cli.main)())
    options.out.write_text(json.dumps(steps_s), encoding="utf-8")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
