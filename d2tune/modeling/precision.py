"""The precision of the forward pass: what the processor or GPU computes natively, and what pays off."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from detectron2.config import CfgNode
from torch import nn

from d2tune import files
from d2tune.errors import ProjectError
from d2tune.hardware import NO_BFLOAT16, card_precision, cpu_name, has_bfloat16

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16", "float16"]

WORTHWHILE_SPEEDUP = 1.25
"""bfloat16 is used on a processor from this speedup on; the margin is that of a measurement on a busy machine."""

_SIDE_PX = 192
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Decision:
    """The precision to train or predict in, and why.

    Attributes:
        precision: The precision.
        reason: For the plan and the record of a run.
    """

    precision: Precision
    reason: str


def autocast_dtype(precision: Precision) -> torch.dtype:
    """The type of autocast; for ``float32``, where autocast is off, it has no effect."""
    return torch.float16 if precision == "float16" else torch.bfloat16


def choose_precision(wanted: str, device: str, cfg: CfgNode | None = None) -> Precision:
    """The precision of `decide`."""
    return decide(wanted, device, cfg).precision


def decide(wanted: str, device: str, cfg: CfgNode | None = None) -> Decision:
    """The precision to train or predict in; ``auto`` is decided once for a machine.

    On a GPU its generation decides. On a processor with instructions for bfloat16 the backbone is timed once, and the
    result is kept in the cache; others, and machines whose cache cannot be written, take float32.

    Args:
        wanted: ``auto`` or a precision.
        device: ``cpu`` or ``cuda``.
        cfg: The config of the model that is timed; without it a processor takes float32.

    Raises:
        ProjectError: ``float16`` is wanted on a processor.
    """
    if wanted == "float16" and device == "cpu":
        raise ProjectError(
            "float16 is for GPUs", place="train.precision", found=wanted, expected="auto, float32 or bfloat16"
        )
    if wanted in ("float32", "bfloat16", "float16"):
        return Decision(wanted, "as it is set")  # type: ignore[arg-type]
    if device == "cuda":
        return Decision(*card_precision())
    if not has_bfloat16():
        return Decision("float32", NO_BFLOAT16)
    speedup = None if cfg is None else bfloat16_speedup(cfg)
    if speedup is None:
        return Decision("float32", "bfloat16 was not measured on this machine")
    measured = f"bfloat16 was measured {speedup:.2f} times as fast as float32 on this machine"
    if speedup >= WORTHWHILE_SPEEDUP:
        return Decision("bfloat16", measured)
    return Decision("float32", f"{measured}, and {WORTHWHILE_SPEEDUP} times is taken as a gain")


def is_native(precision: str, device: str) -> bool:
    """Whether the device computes in a precision without emulating it."""
    if device == "cpu":
        return precision != "float16"
    return precision == "float32" or card_precision()[0] in (precision, "bfloat16")


def bfloat16_speedup(cfg: CfgNode) -> float | None:
    """How many times faster the backbone of ``cfg`` trains in bfloat16 than in float32 on this processor, at least.

    It is measured once for a processor, a version of torch and a backbone, in processor seconds, which other programs
    hardly change, and kept in ``precision.json`` of the cache, so that a project is always trained in the same
    precision. Of two processes that measure at the same time, the value of the first is taken by both.

    Returns:
        None where the processor has no instructions for bfloat16, or the cache cannot be used.
    """
    if not has_bfloat16():
        return None
    kept, key = files.cache_folder() / "precision.json", _machine_key(cfg)
    known = _read(kept)
    if isinstance(known.get(key), float):
        return float(known[key])
    try:
        # the file is written before the measurement too, whose result would be another one each time without it
        files.write_json(kept, known)
        measured = round(_measured_speedup(cfg), 3)
        with _alone(kept):
            known = _read(kept)
            speedup = known[key] if isinstance(known.get(key), float) else measured
            files.write_json(kept, known | {key: speedup})
    except OSError as error:
        logger.warning("%s cannot be written (%s): training in float32", kept, error.strerror or error)
        return None
    return float(speedup)


@contextmanager
def _alone(kept: Path) -> Iterator[None]:
    """Inside, no other process is at this place, where the system has locks; it waits for up to ten seconds.

    Raises:
        OSError: The folder cannot be written.
    """
    handle = os.open(kept.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        for _ in range(1000):
            if files.try_lock(handle) is not False:
                break
            time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _machine_key(cfg: CfgNode) -> str:
    model = cfg.MODEL
    if model.META_ARCHITECTURE == "SemanticBridge":
        network = f"{model.BRIDGE.ARCHITECTURE} {model.BRIDGE.ENCODER}"
    else:
        network = f"{model.BACKBONE.NAME} {model.FEATURES.NAME or model.RESNETS.DEPTH}"
        if model.META_ARCHITECTURE == "Yolact" and model.YOLACT.DEFORM_EVERY:
            network += " deformable"
    return f"{cpu_name()}; torch {torch.__version__}; {network.strip()}"


def _measured_speedup(cfg: CfgNode) -> float:
    from d2tune.modeling.build import build_model

    with torch.random.fork_rng(devices=[]):
        model: Any = build_model(cfg)[0]
        body: nn.Module = model.backbone if hasattr(model, "backbone") else model.network
        body.train()
        body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = torch.rand(2, len(cfg.MODEL.PIXEL_MEAN), _SIDE_PX, _SIDE_PX).contiguous(
            memory_format=torch.channels_last
        )
        times_s = [(_step_s(body, image, False), _step_s(body, image, True)) for _ in range(_ROUNDS)][1:]
    return min(plain_s / half_s for plain_s, half_s in times_s)


def _step_s(body: nn.Module, image: torch.Tensor, bfloat16: bool) -> float:
    """Processor seconds of a forward and a backward pass."""
    began_s = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        result = body(image)
    outputs = list(result.values()) if isinstance(result, dict) else [result]
    torch.stack([one.float().mean() for one in outputs]).sum().backward()  # type: ignore[no-untyped-call]
    body.zero_grad(set_to_none=True)
    return time.process_time() - began_s
