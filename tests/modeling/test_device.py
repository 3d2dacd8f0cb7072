from mmap import mmap
from pathlib import Path

import pytest
import torch

from d2tune.modeling.build import build_model
from d2tune.modeling.config import DataFacts, project_config
from d2tune.modeling.device import speed_up, used_memory
from d2tune.modeling.precision import choose_precision
from d2tune.project import Data, Model, Project


@pytest.mark.parametrize(
    ("preset", "model"),
    [("unet", {"encoder": "resnet18"}), ("semantic_fpn_mobilenet_v2", {})],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_speed_up_changes_neither_names_nor_types_nor_much_of_the_scores(
    preset: str, model: dict, precision: str
) -> None:
    names = ("a", "b", "c")
    project = Project(
        name="p", task="semantic", data=Data(root=Path()), classes=names, model=Model(preset=preset, **model)
    )
    facts = DataFacts(class_names=names, train_images=9, has_rle=False, train_name="t", val_name="v")
    cfg = project_config(project, facts, scratch=True, device="cpu")
    torch.manual_seed(0)
    plain, _ = build_model(cfg)
    fast, _ = build_model(cfg)
    fast.load_state_dict(plain.state_dict())
    assert speed_up(fast, device="cpu", precision=choose_precision(precision, "cpu")) is fast
    assert list(fast.state_dict()) == list(plain.state_dict())
    sample = {"image": torch.randint(256, (3, 64, 96), dtype=torch.uint8), "height": 64, "width": 96}
    with torch.no_grad():
        expected, actual = (network.eval()([sample])[0]["sem_seg"] for network in (plain, fast))
    assert actual.dtype == torch.float32 and actual.shape == (3, 64, 96)
    assert float((actual - expected).abs().mean()) < (1e-5 if precision == "float32" else 0.03)


def test_the_memory_of_this_process() -> None:
    used, total, whose = used_memory("cpu")
    size = 120_000_000
    # pages of their own: an allocator could give memory that was freed before, which this process still has
    with mmap(-1, size) as pages:
        pages.write(bytes(size // 2))
        half = used_memory("cpu")[0]
        pages.write(bytes(size // 2))
        whole = used_memory("cpu")[0]
    assert half - used > 0.4 * size and whole - used > 0.9 * size and used < total and whose == "process"
