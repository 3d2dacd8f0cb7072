"""What the live view of a training costs a step.

    python benchmarks/live_view.py [--pairs N] [--steps N] [--out FILE.json]

Three numbers: the time that the view's hook takes in a step; the processor time of a frame, of which there is one a
second; and, from trainings of the same small project in terminals of their own, with the view and with plain lines
(``TERM=dumb``) in turns, the ratio of the median time of a step of each pair. The order within a pair changes.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import statistics
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

from d2tune.engine.live.frame import Progress, Scored, frame
from d2tune.metrics.metric import Metric
from d2tune.samples import render_sample
from d2tune.terminal import Painter

PROJECT = """\
name: small
data: {{root: {root}, sample: null}}
classes: [balloon]
model: {{preset: pointrend_mobilenet_v2_fpn}}
weights: scratch
train: {{iterations: {steps}, batch_size: 2, image_size: 128, eval_every: {steps}, precision: float32, workers: 0}}
"""


def in_terminal(command: list[str], *, cwd: Path, term: str) -> None:
    """Run a command in a terminal of 100 columns whose output is read and thrown away."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.environ["TERM"] = term
        os.execv(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    while True:
        try:
            if select.select([terminal], [], [], 600)[0] and not os.read(terminal, 1 << 16):
                break
        except OSError:  # the terminal is closed
            break
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise SystemExit(f"{' '.join(command)} failed")


def step_s(folder: Path, *, live: bool, number: int) -> float:
    """The median time of a step of a training, without its first ten."""
    out = folder / f"run{number}{'live' if live else 'plain'}"
    command = [sys.executable, "-m", "d2tune", "train", "small.yaml", "--output-dir", str(out)]
    in_terminal(command, cwd=folder, term="xterm-256color" if live else "dumb")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    return statistics.median(line["time"] for line in lines if line["iteration"] > 10 and "time" in line)


def frame_cpu_s() -> float:
    """Processor time of a frame after 20,000 iterations, painted into a terminal."""
    _, terminal = pty.openpty()
    progress = Progress("balloon", "mask AP", 40_000, 4, done=20_000, loss=1.2, step_s=0.2, data_s=0.01, rate=1e-4)
    progress.losses.extend(2 - number / 20_000 for number in range(20_000))
    progress.terms = {f"loss_{name}": 0.2 for name in ("cls", "box_reg", "mask", "mask_point", "rpn_cls", "rpn_loc")}
    progress.last = progress.best = Scored(Metric(40.0, None, 30.0, 50.0), 16_000)
    with os.fdopen(terminal, "w", encoding="utf-8") as stream:
        painter = Painter(stream)
        times = []
        for _ in range(20):
            began = time.thread_time()
            painter.paint(frame(progress, 100))
            times.append(time.thread_time() - began)
    return statistics.median(times)


def hook_s() -> float:
    """Time that the hook takes in a step, with the storage of a training."""
    from detectron2.utils.events import EventStorage

    from d2tune.engine.hooks.keep_best import EvaluateAndKeepBest
    from d2tune.engine.hooks.live_view import LiveView

    evaluations = EvaluateAndKeepBest(period=0, evaluate=lambda _: None, keep=lambda *_: None)
    view = LiveView(
        project="p",
        metric_name="AP",
        batch_size=2,
        evaluations=evaluations,
        last_metric=lambda: None,
        memory=lambda: None,
        doing=lambda: "",
    )
    steps = 100_000
    with EventStorage(0) as storage:
        storage.put_scalar("total_loss", 1.0)

        class Steps:
            iter, max_iter = 0, 10 * steps

        trainer: Any = Steps()
        trainer.storage = storage
        view.trainer = evaluations.trainer = trainer
        began = time.perf_counter()
        for trainer.iter in range(steps):
            view.after_step()
        return (time.perf_counter() - began) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"hook_us": 1e6 * hook_s(), "frame_cpu_ms": 1e3 * frame_cpu_s()}
    print(f"hook     {result['hook_us']:.2f} us in a step")
    print(f"frame    {result['frame_cpu_ms']:.2f} ms of a processor each second")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        render_sample("balloon", folder / "data", images=20, seed=0)
        (folder / "small.yaml").write_text(PROJECT.format(root=folder / "data", steps=options.steps), "utf-8")
        pairs = []
        for number in range(options.pairs):
            order = (True, False) if number % 2 == 0 else (False, True)
            times = {live: step_s(folder, live=live, number=number) for live in order}
            pairs.append((times[True], times[False]))
            print(f"step     {1e3 * times[True]:.1f} ms with the view, {1e3 * times[False]:.1f} ms with lines")
    if pairs:
        result["steps_s"] = pairs
        result["ratio"] = statistics.median(live / plain for live, plain in pairs)
        print(f"ratio    {result['ratio']:.4f}, the median of {len(pairs)} pairs")
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
