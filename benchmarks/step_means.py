"""What two means of decision 041 save by themselves: the frozen first stages of MobileNetV2, and AdamW's update.

``python benchmarks/step_means.py`` takes half a minute of one core. All ways are run in turns in one process, and
processor milliseconds are medians; what counts are their ratios. The stages are those of the compact preset up to
stride 4 in training, on four images of 352 x 480 px, with the norms as layers of their own, inside the convolutions,
and inside them with one image at a time. AdamW updates the parameters of the preset with torch's default on processors,
which is a loop over tensors, and with one operator. Both are measured with the memory of the C library as it is, and
with freed memory kept (``--keep``).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

TARGETS = {"stages": 2.0, "AdamW": 3.0}
"""How many times less each was to take."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21, metavar="N", help="times that each way is run")
    parser.add_argument("--keep", action="store_true", help="keep freed memory, as the commands of d2tune do")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    from d2tune.hardware import cpu_features, cpu_name, keep_freed_memory

    if options.keep and not keep_freed_memory():
        sys.exit("this machine has another C library, or MALLOC_ variables are set")
    import torch

    torch.set_num_threads(1)
    ways = {"stages": _stages(), "AdamW": _updates()}
    times = {name: _in_turns(some, options.rounds) for name, some in ways.items()}
    results = {
        "processor": cpu_name(),
        "instructions": sorted(one for one in cpu_features() if one.startswith(("avx", "amx", "fma"))),
        "torch": torch.__version__,
        "freed_memory_is_kept": options.keep,
        "ms": times,
        "times_less": {
            name: round(next(iter(some.values())) / list(some.values())[-1], 2) for name, some in times.items()
        },
        "targets": TARGETS,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, some in times.items():
        listed = ", ".join(f"{way} {value:.1f} ms" for way, value in some.items())
        print(f"{name}: {listed}; {results['times_less'][name]} times less (target {TARGETS[name]})")


def _in_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median processor milliseconds of each way, without the first two rounds."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 2):
        for name, run in ways.items():
            began_s = time.process_time()
            run()
            taken[name].append(1000 * (time.process_time() - began_s))
    return {name: round(statistics.median(values[2:]), 2) for name, values in taken.items()}


def _model() -> tuple[Any, Any]:
    """The model of the compact preset, ready for training, and its config."""
    import torch

    from d2tune.modeling.build import build_model
    from d2tune.modeling.config import DataFacts, project_config
    from d2tune.modeling.device import speed_up
    from d2tune.project import Data, Model, Project

    project = Project(
        name="means", data=Data(root=Path()), model=Model(preset="pointrend_mobilenet_v2_fpn"), classes=["object"]
    )
    facts = DataFacts(class_names=("object",), train_images=4, has_rle=False, train_name="train", val_name="val")
    cfg = project_config(project, facts, scratch=False, device="cpu")
    torch.manual_seed(0)
    model, _ = build_model(cfg)
    return speed_up(model, device="cpu", precision="float32").train(), cfg


def _stages() -> dict[str, Callable[[], object]]:
    import torch

    from d2tune.modeling.folding import fold_frozen_norms
    from d2tune.modeling.frozen_stages import run_stages

    layered, folded = (list(_model()[0].backbone.bottom_up.body.children()) for _ in range(2))
    count = len(list(takewhile(lambda stage: not any(one.requires_grad for one in stage.parameters()), layered)))
    layered, folded = layered[:count], folded[:count]
    for stage in folded:
        fold_frozen_norms(stage)
    x = torch.rand(4, 3, 352, 480).contiguous(memory_format=torch.channels_last)

    def batch(stages: list[torch.nn.Module]) -> torch.Tensor:
        value = x
        for stage in stages:
            value = stage(value)
        return value

    def one_at_a_time() -> torch.Tensor:
        return run_stages(folded, x, wanted={count - 1})[count - 1]

    gap = float((batch(layered) - one_at_a_time()).abs().max())
    print(f"{count} frozen stages; largest difference of their outputs {gap:.1g}")
    return {"layers": lambda: batch(layered), "folded": lambda: batch(folded), "one image at a time": one_at_a_time}


def _updates() -> dict[str, Callable[[], object]]:
    import torch

    from d2tune.engine.optimizer import build_optimizer

    def update(*, is_own: bool) -> Callable[[], object]:
        model, cfg = _model()
        parameters = [value for value in model.parameters() if value.requires_grad]
        for value in parameters:
            value.grad = torch.rand_like(value)
        optimizer = build_optimizer(cfg, model) if is_own else torch.optim.AdamW(parameters, lr=cfg.SOLVER.BASE_LR)
        return optimizer.step

    return {"torch's default": update(is_own=False), "one operator": update(is_own=True)}


if __name__ == "__main__":
    main()
