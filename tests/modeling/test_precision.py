"""The precision is decided by what is native, and on a processor once for a machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from d2tune import hardware
from d2tune.errors import ProjectError
from d2tune.files import cache_folder
from d2tune.hardware import cpu_features, cpu_name, cuda_precision
from d2tune.modeling import precision
from d2tune.modeling.config import DataFacts, project_config
from d2tune.modeling.precision import (
    Decision,
    autocast_dtype,
    bfloat16_speedup,
    choose_precision,
    decide,
)
from d2tune.project import Data, Model, Project


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 1), "float32"),  # GTX 1080
        ((7, 0), "float16"),  # V100
        ((7, 5), "float16"),  # T4
        ((8, 0), "bfloat16"),  # A100
        ((8, 6), "bfloat16"),  # RTX 3090
        ((9, 0), "bfloat16"),  # H100
        ((12, 0), "bfloat16"),
    ],
)
def test_a_gpu_takes_what_it_has_natively(capability: tuple[int, int], expected: str) -> None:
    assert cuda_precision(capability) == expected


def test_cards_of_amd_have_bfloat16() -> None:
    assert cuda_precision((7, 5), is_amd=True) == "bfloat16"


def test_types_of_autocast() -> None:
    assert autocast_dtype("float16") == torch.float16 and autocast_dtype("bfloat16") == torch.bfloat16


CPUINFO = """processor\t: 0
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu avx2 {flags}

processor\t: 1
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu
"""


def test_the_instructions_of_the_processor_are_read(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO.format(flags="amx_bf16"), encoding="utf-8")
    assert cpu_features(path) == {"fpu", "avx2", "amx_bf16"} and cpu_name(path) == "Some CPU @ 2.00GHz"
    path.write_text("processor\t: 0\nFeatures\t: fp asimd bf16\nCPU part\t: 0xd40\n", encoding="utf-8")
    assert "bf16" in cpu_features(path) and cpu_name(path) == "0xd40"
    assert cpu_features(tmp_path / "none") == frozenset()


def config() -> Any:
    project = Project(
        name="p",
        task="semantic",
        data=Data(root=Path()),
        model=Model(preset="unet_2015"),
        detectron2={"MODEL.BRIDGE.WIDTH": 4},
    )
    facts = DataFacts(class_names=("a", "b"), train_images=9, has_rle=False, train_name="t", val_name="v")
    return project_config(project, facts, scratch=True, device="cpu")


@pytest.mark.parametrize("features", [set(), {"avx512f", "avx512_vnni"}])
def test_without_instructions_for_bfloat16_nothing_is_measured(
    features: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_features", lambda: frozenset(features))
    assert bfloat16_speedup(config()) is None and choose_precision("auto", "cpu", config()) == "float32"
    assert not (cache_folder() / "precision.json").exists()


def test_the_speed_is_measured_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_features", lambda: frozenset({"avx512_bf16"}))
    before = torch.get_rng_state()
    first = bfloat16_speedup(config())
    assert torch.equal(torch.get_rng_state(), before), "a seeded training draws the same numbers"
    assert first is not None and 0.01 < first < 100
    kept = json.loads((cache_folder() / "precision.json").read_text("utf-8"))
    assert list(kept.values()) == [first] and "unet_2015" in next(iter(kept)) and torch.__version__ in next(iter(kept))
    for value, expected in ((1.24, "float32"), (1.25, "bfloat16"), (3.0, "bfloat16")):
        (cache_folder() / "precision.json").write_text(json.dumps(dict.fromkeys(kept, value)), "utf-8")
        assert choose_precision("auto", "cpu", config()) == expected
    (cache_folder() / "precision.json").write_text("damaged", "utf-8")
    assert bfloat16_speedup(config()) is not None


def test_a_cache_that_cannot_be_written_takes_float32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv("D2TUNE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(hardware, "cpu_features", lambda: frozenset({"amx_bf16"}))
    assert choose_precision("auto", "cpu", config()) == "float32"


def test_what_a_project_names_is_taken() -> None:
    assert [choose_precision(wanted, "cpu") for wanted in ("float32", "bfloat16", "auto")] == [
        "float32",
        "bfloat16",
        "float32",
    ]
    assert choose_precision("float16", "cuda") == "float16"
    with pytest.raises(ProjectError, match=r"train\.precision: float16 is for GPUs"):
        choose_precision("float16", "cpu")


def test_the_decision_says_why_and_does_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_features", lambda: frozenset({"amx_bf16"}))
    monkeypatch.setattr(precision, "_measured_speedup", lambda cfg: 1.3)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = decide("auto", "cpu", config())
        monkeypatch.setattr(precision, "_measured_speedup", lambda cfg: 0.7)
        torch.set_num_threads(2)
        assert decide("auto", "cpu", config()) == first
    finally:
        torch.set_num_threads(threads)
    assert first == Decision("bfloat16", "bfloat16 was measured 1.30 times as fast as float32 on this machine")
    assert decide("float32", "cpu") == Decision("float32", "as it is set")
    monkeypatch.setattr(hardware, "cpu_features", lambda: frozenset({"avx2"}))
    assert decide("auto", "cpu", config()).reason == "the processor has no instructions for bfloat16"


def test_of_two_processes_that_measure_at_once_the_first_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """In doubt float32: the gain must be there in each round, and 1.2 is too little."""
    monkeypatch.setattr(hardware, "cpu_features", lambda: frozenset({"amx_bf16"}))
    key, real = precision._machine_key(config()), precision._measured_speedup

    def measured(cfg: Any) -> float:
        (cache_folder() / "precision.json").write_text(json.dumps({key: 1.2}), "utf-8")  # meanwhile, the first
        return 1.9

    monkeypatch.setattr(precision, "_measured_speedup", measured)
    decision = decide("auto", "cpu", config())
    assert decision.precision == "float32"
    assert decision.reason.endswith("1.20 times as fast as float32 on this machine, and 1.25 times is taken as a gain")
    assert json.loads((cache_folder() / "precision.json").read_text("utf-8")) == {key: 1.2}
    rounds = iter([1.0, 1.0, 2.0, 1.0, 2.0, 1.9, 2.0, 1.0, 2.0, 1.0])
    monkeypatch.setattr(precision, "_step_s", lambda *_: next(rounds))
    assert real(config()) == pytest.approx(2.0 / 1.9)
