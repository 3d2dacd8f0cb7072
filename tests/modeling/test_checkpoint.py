import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from d2tune.errors import RunError
from d2tune.modeling import checkpoint


def network(inputs: int = 2) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 3), nn.BatchNorm1d(3))


def test_a_model_gets_every_tensor_back(tmp_path: Path) -> None:
    model, other = network(), network()
    model(torch.rand(4, 2))
    checkpoint.save(tmp_path / "a" / "w.pth", {"model": checkpoint.plain_state(model)})
    checkpoint.load_weights(other, tmp_path / "a" / "w.pth")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["w.pth"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: network(5), r"that of another model: size mismatch for 0\.weight"),
        (lambda: nn.Sequential(nn.Linear(2, 3)), r"w\.pth: 1\.bias: the checkpoint is that of another model"),
    ],
)
def test_weights_of_another_model_are_refused(other: Callable[[], nn.Module], message: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "w.pth", {"model": checkpoint.plain_state(network())})
    with pytest.raises(RunError, match=message):
        checkpoint.load_weights(other(), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b"PK\x03\x04 cut off"), "is damaged"),
        (lambda path: path.write_bytes(pickle.dumps(print)), "is damaged"),
        (lambda path: torch.save({"weights": {}}, path), "is not a checkpoint of d2tune; expected an entry 'model'"),
        (lambda path: torch.save(torch.zeros(2), path), "is not a checkpoint of d2tune"),
    ],
)
def test_other_files_are_refused(write: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write(tmp_path / "w.pth")
    with pytest.raises(RunError, match=message):
        checkpoint.load(tmp_path / "w.pth")


def test_a_detached_state_shares_no_memory() -> None:
    weight = nn.Parameter(torch.ones(2))
    state = {"a": [weight, (weight, 1)], "b": {"c": weight}, "lr": [0.1]}
    copied = checkpoint.detached(state)
    with torch.no_grad():
        weight.zero_()
    state["lr"].append(0.2)
    expected = torch.ones(2)
    assert torch.equal(copied["a"][0], expected) and torch.equal(copied["a"][1][0], expected)
    assert torch.equal(copied["b"]["c"], expected) and copied["lr"] == [0.1]
    assert not copied["b"]["c"].requires_grad and isinstance(copied["a"][1], tuple)
