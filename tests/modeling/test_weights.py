import hashlib
import http.server
import io
import os
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision

from d2tune import files
from d2tune.errors import WeightsError
from d2tune.modeling import weights
from d2tune.modeling.build import build_model, choose_weights
from d2tune.modeling.config import DataFacts, project_config
from d2tune.modeling.weights import UnreachableWeightsError, find, fit, read_state_dict, read_unchanged
from d2tune.project import Data, Model, Project
from tests.cases import on_demand
from tests.shared_files import SHARED

FACTS = DataFacts(class_names=("a", "b"), train_images=9, has_rle=False, train_name="t", val_name="v")


def model_of(preset: str = "pointrend_mobilenet_v2_fpn", *, rgb_resnet: bool = False, **model: str) -> torch.nn.Module:
    project = Project(name="p", data=Data(root=Path()), model=Model(preset=preset, **model))  # type: ignore[arg-type]
    cfg = project_config(project, FACTS, scratch=False, device="cpu", rgb_resnet=rgb_resnet)
    return build_model(cfg)[0].eval()


def saved(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class _BreakingOff(http.server.BaseHTTPRequestHandler):
    """Promises 100 bytes and sends 7."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"weights")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def breaking_off() -> Iterator[str]:
    """The address of a server whose connections break off."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _BreakingOff)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class TestFinding:
    def test_a_file(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "w.pth", {"a": torch.zeros(1)})
        assert find(str(path)).sha256 == sha256(path)
        with pytest.raises(WeightsError, match="weights file does not exist"):
            find(str(tmp_path / "none.pth"))
        with pytest.raises(WeightsError, match="not the expected ones"):
            find(str(path), sha256="0" * 64)

    def test_a_download_is_kept_and_checked_again(self, tmp_path: Path, serve: Callable[[Path], str]) -> None:
        origin = saved(tmp_path / "w.pth", {"a": torch.zeros(1)})
        url = f"{serve(tmp_path)}/w.pth"
        first = find(url)
        assert first.path.read_bytes() == origin.read_bytes() and first.path != origin
        expected = origin.read_bytes()
        origin.write_bytes(b"something else")
        assert find(url).path.read_bytes() == expected
        first.path.write_bytes(b"damaged")
        assert find(url).path.read_bytes() == b"something else"

    def test_a_file_put_there_by_hand_is_taken(self, tmp_path: Path, serve: Callable[[Path], str]) -> None:
        with pytest.raises(UnreachableWeightsError) as caught:
            find("detectron2://COCO/1/model_final.pth")
        (named,) = re.findall(r"put it at (\S+),", str(caught.value))
        Path(named).parent.mkdir(parents=True, exist_ok=True)
        saved(Path(named), {"a": torch.zeros(1)})
        assert find("detectron2://COCO/1/model_final.pth").path == Path(named)

    def test_addresses_that_differ_in_their_query_are_two_files(
        self, tmp_path: Path, serve: Callable[[Path], str]
    ) -> None:
        (tmp_path / "w.pth").write_bytes(b"one")
        address = serve(tmp_path)
        first = find(f"{address}/w.pth?id=1")
        (tmp_path / "w.pth").write_bytes(b"two")
        assert find(f"{address}/w.pth?id=2").path.read_bytes() == b"two"
        assert first.path.read_bytes() == b"one"

    def test_the_model_zoo(self, tmp_path: Path, serve: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "COCO" / "1").mkdir(parents=True)
        origin = saved(tmp_path / "COCO" / "1" / "model_final.pth", {"a": torch.zeros(1)})
        monkeypatch.setenv("D2TUNE_ZOO_URL", serve(tmp_path))
        assert find("detectron2://COCO/1/model_final.pth").sha256 == sha256(origin)

    def test_a_name_that_carries_its_hash(self, tmp_path: Path, serve: Callable[[Path], str]) -> None:
        path = saved(tmp_path / "w.pth", {"a": torch.zeros(1)})
        good = tmp_path / f"net-{sha256(path)[:8]}.pth"
        good.write_bytes(path.read_bytes())
        (tmp_path / "net-deadbeef.pth").write_bytes(path.read_bytes())
        address = serve(tmp_path)
        assert find(f"{address}/{good.name}").path.is_file()
        with pytest.raises(WeightsError, match="the download is damaged"):
            find(f"{address}/net-deadbeef.pth")
        assert not list(files.cache_folder().rglob("net-deadbeef.pth"))

    def test_a_server_that_has_it_not(self, tmp_path: Path, serve: Callable[[Path], str]) -> None:
        with pytest.raises(WeightsError, match="404"):
            find(f"{serve(tmp_path)}/none.pth")

    def test_a_download_that_breaks_off_leaves_nothing(self, breaking_off: str) -> None:
        with pytest.raises(WeightsError, match=r"net\.pth: the download broke off: IncompleteRead\(7 bytes read, 93"):
            find(f"{breaking_off}/net.pth")
        assert not [path for path in files.cache_folder().rglob("*") if path.is_file()]

    def test_a_failed_download_leaves_the_earlier_file(self, tmp_path: Path, serve: Callable[[Path], str]) -> None:
        (tmp_path / "w.pth").write_bytes(b"one")
        url = f"{serve(tmp_path)}/w.pth"
        path = find(url).path
        path.write_bytes(b"damaged")
        (tmp_path / "w.pth").unlink()
        with pytest.raises(WeightsError, match="the server answers 404"):
            find(url)
        assert path.read_bytes() == b"damaged"

    def test_a_download_can_be_read_by_others(self, tmp_path: Path, serve: Callable[[Path], str]) -> None:
        (tmp_path / "w.pth").write_bytes(b"one")
        mask = os.umask(0o022)
        try:
            path = find(f"{serve(tmp_path)}/w.pth").path
        finally:
            os.umask(mask)
        assert path.stat().st_mode & 0o777 == 0o644

    def test_a_server_that_cannot_be_reached(self) -> None:
        with pytest.raises(UnreachableWeightsError, match=r"cannot be reached.*put it at"):
            find("detectron2://COCO/1/model_final.pth")
        assert not list(files.cache_folder().rglob("*.pth"))

    def test_a_file_that_has_changed_is_not_read_by_another_process(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "w.pth", {"a": torch.zeros(1)})
        file = find(str(path))
        assert list(read_unchanged(file)) == ["a"]
        saved(path, {"a": torch.ones(1)})
        with pytest.raises(WeightsError, match="has changed since"):
            read_unchanged(file)
        path.unlink()
        with pytest.raises(WeightsError, match="has changed since"):
            read_unchanged(file)


class TestAutomatic:
    def test_unreachable_weights_fall_back_loudly(self) -> None:
        project = Project(name="p", data=Data(root=Path()), model=Model(preset="pointrend_r50_fpn"))
        chosen = choose_weights(project)
        assert chosen.file is None and chosen.fallback
        assert chosen.line.startswith("FROM SCRATCH: detectron2://PointRend")

    def test_a_server_that_refuses_is_a_fallback_too(
        self, tmp_path: Path, serve: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("D2TUNE_ZOO_URL", serve(tmp_path))
        chosen = choose_weights(Project(name="p", data=Data(root=Path()), model=Model(preset="pointrend_r50_fpn")))
        assert chosen.fallback and "404" in chosen.line

    def test_named_weights_do_not_fall_back(self) -> None:
        project = Project(name="p", data=Data(root=Path()), weights="detectron2://x/y.pkl")
        with pytest.raises(UnreachableWeightsError):
            choose_weights(project)

    def test_reachable_zoo_weights_are_taken(
        self, tmp_path: Path, serve: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project = Project(name="p", data=Data(root=Path()), model=Model(preset="mask_rcnn_r50_fpn"))
        path = tmp_path / "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
        path.parent.mkdir(parents=True)
        path.write_bytes(pickle.dumps({"model": {"a": np.zeros(2, np.float32)}, "__author__": "x"}, protocol=2))
        monkeypatch.setenv("D2TUNE_ZOO_URL", serve(tmp_path))
        chosen = choose_weights(project)
        assert chosen.file is not None and chosen.file.sha256 == sha256(path) and not chosen.fallback


class TestReading:
    def test_detectron2_pickles_of_arrays(self, tmp_path: Path) -> None:
        content = {"model": {"backbone.x": np.arange(6, dtype=np.float32).reshape(2, 3)}, "__author__": "zoo"}
        path = tmp_path / "w.pkl"
        path.write_bytes(pickle.dumps(content, protocol=2))
        assert torch.equal(read_state_dict(path)["backbone.x"], torch.arange(6.0).reshape(2, 3))

    def test_a_pickle_that_runs_something_is_refused_before_it_does(self, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple:
                return os.mkdir, (str(tmp_path / "exploded"),)

        for path in (tmp_path / "bomb.pkl", tmp_path / "bomb.pth"):
            path.write_bytes(pickle.dumps({"model": Bomb()}))
            with pytest.raises(WeightsError, match="cannot be read as weights"):
                read_state_dict(path)
        torch.save({"model": Bomb()}, tmp_path / "zip.pth")
        with pytest.raises(WeightsError, match="cannot be read as weights"):
            read_state_dict(tmp_path / "zip.pth")
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize("content", [b"", b"\x80\x02", b"PK\x03\x04 cut off"])
    def test_damaged_files(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "w.pth"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"w\.pth: cannot be read as weights"):
            read_state_dict(path)

    def test_no_tensors_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="has no tensors"):
            read_state_dict(saved(tmp_path / "w.pth", {"epoch": 3}))

    def test_wrappers_and_prefixes_come_off(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "w.pth", {"state_dict": {"module.fc.weight": torch.ones(2)}})
        assert list(read_state_dict(path)) == ["fc.weight"]


class TestFitting:
    def test_the_shared_mobilenet(self) -> None:
        path = SHARED / "weights" / "mobilenet_v2_imagenet.pth"
        model = model_of()
        report = fit(model, read_state_dict(path), file=path)
        backbone = next(row for row in report.rows if row.component == "backbone")
        assert backbone.loaded == backbone.total
        others = [row for row in report.rows if row.component != "backbone"]
        assert others and all(row.loaded == 0 and "not in the file" in row.why for row in others)
        reference = torchvision.models.mobilenet_v2()
        reference.load_state_dict(torch.load(path, weights_only=True))
        x = torch.rand(1, 3, 96, 96)
        with torch.no_grad():
            expected = reference.eval().features[:18](x)
            assert torch.allclose(model.backbone.bottom_up(x)["stride32"], expected, atol=1e-4)

    @pytest.mark.parametrize("library", on_demand(["torchvision", "timm"], "torchvision"))
    def test_detectron2s_resnet_takes_theirs_and_computes_the_same(self, library: str, tmp_path: Path) -> None:
        torch.manual_seed(0)
        reference = torchvision.models.resnet50() if library == "torchvision" else timm.create_model("resnet50")
        path = saved(tmp_path / "r50.pth", reference.state_dict())
        model = model_of("mask_rcnn_r50_fpn", rgb_resnet=True)
        report = fit(model, read_state_dict(path), file=path)
        assert next(row for row in report.rows if row.component == "backbone").why == ""
        x = torch.rand(1, 3, 64, 64)
        reference.eval()
        act = reference.relu if library == "torchvision" else reference.act1
        with torch.no_grad():
            stem = reference.maxpool(act(reference.bn1(reference.conv1(x))))
            layers = (reference.layer1, reference.layer2, reference.layer3, reference.layer4)
            expected = torch.nn.Sequential(*layers)(stem)
            assert torch.allclose(model.backbone.bottom_up(x)["res5"], expected, atol=1e-3)

    @pytest.mark.parametrize("name", ["convnext_atto", "resnet18"])
    def test_timm_state_dicts_fit_timm_backbones(self, name: str, tmp_path: Path) -> None:
        path = saved(tmp_path / "w.pth", timm.create_model(name).state_dict())
        model = model_of(backbone=f"timm/{name}")
        backbone = next(row for row in fit(model, read_state_dict(path), file=path).rows if row.component == "backbone")
        assert backbone.loaded >= 0.95 * backbone.total

    def test_class_dependent_layers_are_named_and_not_loaded(self, tmp_path: Path) -> None:
        state = model_of("mask_rcnn_r50_fpn").state_dict()
        state["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(81, 1024)
        state["roi_heads.box_predictor.cls_score.bias"] = torch.zeros(81)
        model = model_of("mask_rcnn_r50_fpn")
        report = fit(model, state, file=tmp_path / "w.pth")
        (left,) = [row for row in report.rows if row.why]
        assert (left.component, left.loaded, left.total) == ("roi_heads.box_predictor", 2, 4)
        assert left.why == "2 of another shape ([81, 1024] in the file, [3, 1024] here)"

    def test_values_that_are_not_finite_are_refused_by_name(self, tmp_path: Path) -> None:
        model = model_of()
        state = {key: value.clone() for key, value in model.state_dict().items()}
        name = next(key for key in state if key.startswith("roi_heads.") and state[key].ndim > 1)
        state[name].view(-1)[3] = float("nan")
        with pytest.raises(WeightsError, match=re.escape(f"w.pth: {name}: the weights hold NaN")):
            fit(model, state, file=tmp_path / "w.pth")

    def test_point_rends_first_names(self, tmp_path: Path) -> None:
        model = model_of("pointrend_r50_fpn")
        state = {
            key.replace("mask_head.point_head.", "mask_point_head.")
            .replace("mask_head.coarse_head.fc", "mask_coarse_head.coarse_mask_fc")
            .replace("mask_head.coarse_head.", "mask_coarse_head."): value
            for key, value in model.state_dict().items()
        }
        assert any("coarse_mask_fc" in key for key in state)
        report = fit(model_of("pointrend_r50_fpn"), state, file=tmp_path / "w.pkl")
        assert report.unused == 0 and all(row.loaded == row.total for row in report.rows)

    @pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18"])
    def test_another_architecture_is_refused(self, name: str, tmp_path: Path) -> None:
        path = saved(tmp_path / "other.pth", torchvision.models.get_model(name).state_dict())
        with pytest.raises(WeightsError, match=r"other\.pth: these are the weights of another architecture"):
            fit(model_of(), read_state_dict(path), file=path)


@pytest.mark.parametrize("content", [b"not weights, but text\n", b"", b"\x80\x02}q\x00"])
def test_what_is_not_a_pickle_is_called_that(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pkl").write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.pkl: cannot be read as weights: it is damaged, or is not a pickle;"):
        read_state_dict(tmp_path / "w.pkl")


def test_unpickler_reads_nothing_but_arrays() -> None:
    stream = io.BytesIO(pickle.dumps(np.float64(3.5), protocol=2))
    assert weights._ArrayUnpickler(stream, encoding="latin1").load() == 3.5
    with pytest.raises(pickle.UnpicklingError, match=r"builtins.*eval|eval"):
        weights._ArrayUnpickler(io.BytesIO(b"cbuiltins\neval\n(S'1'\ntR."), encoding="latin1").load()
