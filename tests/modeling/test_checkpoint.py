import math
import os
import pickle
import resource
import zipfile
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


class Runs:
    """An object that would run a command where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, ("exit 3",)


def zip_with_an_unnamed_entry(path: Path) -> None:
    torch.save({"model": {}}, path)
    with zipfile.ZipFile(path, "a") as archive:
        entry = zipfile.ZipInfo("x")
        entry.filename = ""
        archive.writestr(entry, b"content")


def cut_off(path: Path) -> None:
    torch.save({"model": {"w": torch.zeros(99)}}, path)
    path.write_bytes(path.read_bytes()[:-50])


def bytes_changed(path: Path) -> None:
    torch.save({"model": {"w": torch.zeros(99)}}, path)
    content = bytearray(path.read_bytes())
    start = content.find(b"data.pkl")
    content[start + 60 : start + 80] = b"\xff" * 20
    path.write_bytes(content)


def a_bit_flipped(path: Path) -> None:
    torch.save({"model": {"w": torch.zeros(999)}}, path)
    content = bytearray(path.read_bytes())
    content[content.find(b"data/0") + 2000] ^= 0x40
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["model"]["w"].sum() != 0  # torch itself does not notice


def test_the_checkpoint_that_is_replaced_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last, before = tmp_path / "last.pth", tmp_path / "before.pth"

    def number(path: Path) -> float:
        return float(checkpoint.load(path)["model"]["w"])

    for value in range(3):
        checkpoint.save(last, {"model": {"w": torch.tensor(float(value))}}, keep=before)
        assert number(last) == value and before.exists() == (value > 0)
    assert number(before) == 1

    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    checkpoint.save(last, {"model": {"w": torch.tensor(3.0)}}, keep=before)
    assert number(last) == 3 and number(before) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before.pth", "last.pth"]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "does not exist"),
        (a_bit_flipped, "data/0: the checkpoint is damaged: a checksum is wrong"),
        (lambda path: path.write_bytes(b""), "cannot be read: the file is empty"),
        (lambda path: path.mkdir(), "cannot be read: it is a folder"),
        (lambda path: path.write_bytes(b"PK\x03\x04 cut off"), "cannot be read: it is cut off or damaged"),
        (cut_off, "cannot be read: it is cut off or damaged"),
        (bytes_changed, "cannot be read: it is damaged, or not a file of torch"),
        (zip_with_an_unnamed_entry, "cannot be read: it is a ZIP file with other entries"),
        (lambda path: path.write_text("some notes\n" * 9), "cannot be read: it is damaged, or not a file of torch"),
        (lambda path: path.write_bytes(pickle.dumps(print, 2)), "it refers to print, which weights"),
        (lambda path: path.write_bytes(pickle.dumps(print)), "it is damaged, or not a file of torch"),
        (lambda path: torch.save({"model": Runs()}, path), r"it refers to \w+.system, which weights do not need"),
        (lambda path: torch.save(network(), path), "it refers to torch.nn.modules.container.Sequential"),
        (lambda path: torch.save({"weights": {}}, path), "is not a checkpoint of d2tune; expected an entry 'model'"),
        (
            lambda path: torch.save({"model": {"w": 1}}, path),
            "is not a checkpoint of d2tune; expected an entry 'model'",
        ),
        (lambda path: torch.save({"model": {1: torch.zeros(2)}}, path), "is not a checkpoint of d2tune"),
        (lambda path: torch.save(torch.zeros(2), path), "is not a checkpoint of d2tune"),
    ],
)
def test_other_files_are_refused_in_a_line(write: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write(tmp_path / "w.pth")
    with pytest.raises(RunError, match=message) as caught:
        checkpoint.load(tmp_path / "w.pth")
    line = caught.value.one_line()
    assert "weights_only" not in line and "\n" not in line and len(line) < 400


def test_weights_alone_are_not_resumed_from(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "w.pth", {"model": {}})
    with pytest.raises(RunError, match="has no state to resume from; expected an entry 'trainer'"):
        checkpoint.load_training(tmp_path / "w.pth")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, tmp_path: Path) -> None:
    model = network()
    state = checkpoint.plain_state(model)
    state["1.bias"][2] = value
    checkpoint.save(tmp_path / "w.pth", {"model": state})
    with pytest.raises(RunError, match=r"w\.pth: 1\.bias: the weights hold NaN or infinite numbers"):
        checkpoint.load_weights(model, tmp_path / "w.pth")
    assert torch.isfinite(model.state_dict()["1.bias"]).all()


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does: within a write."""
    path = tmp_path / "w.pth"
    checkpoint.save(path, {"model": {"w": torch.ones(4)}})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(RunError, match=r"w\.pth: the checkpoint cannot be written: File too large\. Make room"):
            checkpoint.save(path, {"model": {"w": torch.zeros(1_000_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(checkpoint.load(path)["model"]["w"], torch.ones(4))
    assert [one.name for one in tmp_path.iterdir()] == ["w.pth"]


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
