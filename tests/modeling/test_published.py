"""Published networks: torchvision's own models with random weights, in files of torchvision's kind."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from d2tune.errors import WeightsError
from d2tune.modeling.published.catalog import (
    TORCHVISION_NAMES,
    PublishedNetwork,
    published_names,
    published_network,
)
from d2tune.modeling.published.loading import find_published, has_published, load_published, weights_bytes
from d2tune.modeling.weights import UnreachableWeightsError
from d2tune.runs.load import predictor_of
from tests.shared_files import SHARED

SMALL = "deeplabv3_mobilenet_v3_large"


@pytest.fixture(autouse=True)
def no_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("D2TUNE_PUBLISHED_WEIGHTS", raising=False)


def original(name: str) -> torch.nn.Module:
    """Torchvision's own network with random weights, and statistics that are not those of a new one."""
    torch.manual_seed(4)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    model.eval()
    with torch.no_grad():  # so that no class is the highest everywhere
        last, logits = model.classifier[-1], model(torch.randn(1, 3, 104, 137))["out"]
        scale = 1 / logits.std((0, 2, 3))
        last.bias.copy_((last.bias - logits.mean((0, 2, 3))) * scale)
        last.weight.mul_(scale[:, None, None, None])
    return model


def pattern() -> np.ndarray:
    """An image of 137 x 104 px with squares of random colors."""
    squares = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return np.repeat(np.repeat(squares, 20, axis=0), 20, axis=1)[:104, :137].copy()


def published(folder: Path, name: str = SMALL, *, state: dict[str, torch.Tensor] | None = None) -> PublishedNetwork:
    """The network with a file in a folder, which is named by its hash as torchvision names its files."""
    path = folder / "new.pth"
    torch.save(original(name).state_dict() if state is None else state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    named = path.rename(folder / f"{name}-{digest[:8]}.pth")
    return replace(published_network(name), file_name=named.name, size_bytes=named.stat().st_size, url=None)


def test_the_published_files_and_metrics() -> None:
    fcn, deeplab = published_network("fcn_resnet50"), published_network("deeplabv3_resnet50")
    assert fcn.url == "https://download.pytorch.org/models/fcn_resnet50_coco-1167a1af.pth"
    assert deeplab.file_name == "deeplabv3_resnet50_coco-cd0a2569.pth" and deeplab.size_bytes == 168_312_152
    assert fcn.metrics == {"mIoU": 60.5, "pixel accuracy": 91.4}
    assert deeplab.metrics == {"mIoU": 66.4, "pixel accuracy": 92.4}
    for name in TORCHVISION_NAMES:
        one = published_network(name)
        assert len(one.class_names) == 21 and one.class_names[15] == "person" and one.short_side_px == 520
        assert re.fullmatch(r"\w+-[0-9a-f]{8}\.pth", one.file_name)


@pytest.mark.parametrize("name", [SMALL, pytest.param("fcn_resnet50", marks=pytest.mark.extended)])
def test_a_published_file_predicts_what_torchvision_does(tmp_path: Path, name: str) -> None:
    network, model = published(tmp_path, name), original(name)
    loaded = load_published(replace(network, short_side_px=104, max_side_px=400), folder=tmp_path)
    assert not any("aux_classifier" in key for key in loaded.model.state_dict())
    own = sum(value.nbytes for key, value in model.state_dict().items() if "aux_" not in key) + 6 * 4
    assert weights_bytes(loaded.model, loaded.weights) == own, "and the mean and deviation of three channels"
    # torchvision's own way from an image to a label map; the image has the size that it would be resized to
    image = pattern()
    tensor = torchvision.transforms.functional.normalize(
        torch.from_numpy(image.transpose(2, 0, 1).copy()) / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    with torch.no_grad():
        logits = model(tensor[None])["out"][0]
    result = predictor_of(loaded)(image)
    best, second = logits.topk(2, dim=0).values
    clear = (best - second > 1e-3).numpy()
    assert clear.mean() > 0.9 and len(np.unique(result.class_ids)) > 3
    assert np.array_equal(result.class_ids[clear], logits.argmax(0).numpy()[clear])
    if name == SMALL:  # in the preset for training it is 6, 12, 18, and all tensors fit nevertheless
        branches = loaded.model.network.inner.classifier[0].convs
        assert [branch[0].dilation[0] for branch in branches[1:4]] == [12, 24, 36]


def test_files_come_from_a_folder_the_environment_torchvision_or_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Path], str]
) -> None:
    network = published(tmp_path, state={"a": torch.ones(3)})
    path = tmp_path / network.file_name
    assert find_published(network, folder=tmp_path).path == path and has_published(network, folder=tmp_path)
    with pytest.raises(WeightsError, match=f"expected {network.file_name} in the folder"):
        find_published(network)
    assert find_published(network, file=path).path == path
    remote = replace(network, url=f"{serve(tmp_path)}/{network.file_name}")
    downloaded = find_published(remote).path
    assert downloaded != path and downloaded.read_bytes() == path.read_bytes()
    monkeypatch.setenv("D2TUNE_PUBLISHED_WEIGHTS", str(tmp_path))
    assert find_published(network).path == path
    monkeypatch.delenv("D2TUNE_PUBLISHED_WEIGHTS")
    kept = tmp_path / "torch" / "hub" / "checkpoints" / network.file_name
    kept.parent.mkdir(parents=True)
    path.rename(kept)
    assert find_published(network).path == kept


def test_files_that_are_not_the_published_ones(tmp_path: Path, serve: Callable[[Path], str]) -> None:
    network = published(tmp_path, state={"a": torch.ones(3)})
    with pytest.raises(WeightsError, match="the folder of weights does not exist"):
        find_published(network, folder=tmp_path / "none")
    content = (tmp_path / network.file_name).read_bytes()
    (tmp_path / network.file_name).write_bytes(content[:-1])
    with pytest.raises(WeightsError, match=rf"found {len(content) - 1:,} bytes; expected {len(content):,} bytes"):
        find_published(network, folder=tmp_path)
    (tmp_path / network.file_name).write_bytes(content[:-1] + b"x")
    with pytest.raises(WeightsError, match=r"is not the published file, or is damaged; found sha256"):
        find_published(network, folder=tmp_path)
    with pytest.raises(WeightsError, match="the download is damaged"):
        find_published(replace(network, url=f"{serve(tmp_path)}/{network.file_name}"))
    offline = replace(network, url=f"http://127.0.0.1:9/{network.file_name}")
    with pytest.raises(UnreachableWeightsError, match=r"cannot be reached: .*D2TUNE_PUBLISHED_WEIGHTS"):
        find_published(offline)
    with pytest.raises(WeightsError, match=r"no published network of this name; found fcn_resnet_50; .*Did you mean"):
        published_network("fcn_resnet_50")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("classifier.4.bias"), "1 tensor of deeplabv3_mobilenet_v3_large is not in the file"),
        (lambda state: state.update(extra=torch.ones(1)), r"extra: 1 tensor of \S+ is left over"),
        (lambda state: state.update({"classifier.4.bias": torch.ones(5)}), r"1 tensor of \S+ is of another shape"),
    ],
)
def test_a_file_of_another_network(tmp_path: Path, change: Callable[[object], object], message: str) -> None:
    state = original(SMALL).state_dict()
    change(state)
    with pytest.raises(WeightsError, match=message):
        load_published(published(tmp_path, state=state), folder=tmp_path)


def test_a_real_car_on_a_real_road() -> None:
    """The weights for Pascal VOC: frame 0 of a clip whose car has a mask."""
    loaded = load_published(published_network("deeplabv3_mobilenet_v2_voc"), folder=SHARED / "weights")
    clip = SHARED / "data" / "car_video"
    frame, mask = sorted(clip.rglob("*.jpg"))[0], sorted(clip.rglob("*.png"))[0]
    car = predictor_of(loaded)(frame).mask("car")
    truth = torchvision.io.decode_image(str(mask)).amax(0).numpy() > 0
    assert (car & truth).sum() / (car | truth).sum() > 0.8
    assert len(published_names()) == 7


@pytest.mark.extended
def test_a_real_street_with_lightnet() -> None:
    """The published LightNet++ x0.5 on a photo of Cityscapes: channels in its order, and no class without objects."""
    network = published_network("lightnetpp_shufflenetv2plus_x0.5_cityscapes")
    assert network.background is None and network.channel_order == "BGR"
    loaded = load_published(replace(network, short_side_px=512), folder=SHARED / "weights")
    labels = sorted((SHARED / "data" / "cityscapes_three").glob("*_labels.png"))[0]
    truth = torchvision.io.decode_image(str(labels))[0].numpy()
    predicted = predictor_of(loaded)(labels.with_name(labels.name.replace("_labels", ""))).class_ids
    known = truth < 19
    assert (predicted == truth)[known].mean() > 0.85


def test_the_file_of_another_library_of_another_network(tmp_path: Path) -> None:
    network = published_network("lightnetpp_shufflenetv2plus_x0.5_cityscapes")
    file = SHARED / "weights" / "shufflenetv2_x0.5_imagenet.pth"
    with pytest.raises(WeightsError, match=r"is not the file of lightnetpp\S+; found \d+ of \d+ tensors"):
        load_published(network, file=file)
