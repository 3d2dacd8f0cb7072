import base64
import csv
import functools
import hashlib
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from d2tune.errors import MachineError
from d2tune.install import compatibility, sources
from d2tune.install import detectron2 as installer
from d2tune.install.wheel import make_wheel, make_wheel_of_checkout
from tests.install.sdist import real_sdist, unpacked_sdist

REPOSITORY = Path(__file__).resolve().parents[2]
SETUP = "import sys; from d2tune.cli import main; sys.exit(main(['setup', *sys.argv[1:]]))"
IMPORTS = (
    "import detectron2, detectron2.model_zoo, detectron2.projects.point_rend, detectron2.projects.deeplab, "
    "detectron2.projects.panoptic_deeplab, detectron2.export"
)
USE_IT = (
    IMPORTS
    + """
import sys
assert "d2tune" not in sys.modules
print(detectron2.__file__)

import numpy as np, torch
from detectron2 import model_zoo
from detectron2.layers import DeformConv, ROIAlignRotated, nms_rotated
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

def refused(call):
    try:
        call()
    except ImportError as error:
        return str(error)

assert "compiled operator" in refused(lambda: nms_rotated(torch.rand(2, 5), torch.rand(2), 0.5))
assert "compiled operator" in refused(lambda: ROIAlignRotated((2, 2), 1.0, 0)(torch.rand(1, 3, 8, 8), torch.rand(1, 6)))
assert "Caffe2" in refused(lambda: detectron2.export.Caffe2Tracer)
assert DeformConv(3, 4, 3, padding=1)(torch.rand(1, 3, 8, 8), torch.zeros(1, 18, 8, 8)).shape == (1, 4, 8, 8)
assert model_zoo.get_config("new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py").train.max_iter > 0

cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
detectron2.projects.point_rend.add_pointrend_config(cfg)
cfg.merge_from_list([
    "MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.ROI_HEADS.NUM_CLASSES", 1,
    "MODEL.POINT_HEAD.NUM_CLASSES", 1, "MODEL.ROI_MASK_HEAD.NAME", "PointRendMaskHead",
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE", "", "MODEL.ROI_MASK_HEAD.FC_DIM", 64, "MODEL.ROI_MASK_HEAD.NUM_FC", 1,
    "MODEL.ROI_MASK_HEAD.OUTPUT_SIDE_RESOLUTION", 7, "MODEL.ROI_MASK_HEAD.IN_FEATURES", ["p2"],
    "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON", True, "MODEL.POINT_HEAD.FC_DIM", 64, "MODEL.POINT_HEAD.IN_FEATURES", ["p2"],
    "MODEL.ROI_BOX_HEAD.FC_DIM", 64, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8, "TEST.DETECTIONS_PER_IMAGE", 3,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "INPUT.MASK_FORMAT", "bitmask",
])
torch.manual_seed(0)
model = build_model(cfg)
mask = torch.zeros(1, 96, 128, dtype=torch.bool)
mask[0, 20:70, 30:90] = True
truth = Instances((96, 128), gt_boxes=Boxes([[30.0, 20.0, 90.0, 70.0]]), gt_classes=torch.tensor([0]))
truth.gt_masks = BitMasks(mask)
image = {"image": torch.randint(0, 255, (3, 96, 128)).float(), "height": 96, "width": 128, "image_id": 0}
with EventStorage():
    losses = model([{**image, "instances": truth}])
assert "loss_mask_point" in losses and all(loss.isfinite() for loss in losses.values())
sum(losses.values()).backward()
assert model.roi_heads.mask_head.point_head.predictor.weight.grad.abs().sum() > 0

record = {"file_name": "0.png", "image_id": 0, "height": 96, "width": 128, "annotations": [{
    "bbox": [30, 20, 90, 70], "bbox_mode": 0, "category_id": 0, "iscrowd": 0,
    "segmentation": [[30, 20, 90, 20, 90, 70, 30, 70]]}]}
DatasetCatalog.register("one", lambda: [record])
MetadataCatalog.get("one").set(thing_classes=["thing"])
evaluator = COCOEvaluator("one", output_dir=sys.argv[1])
evaluator.reset()
model.eval()
with torch.no_grad():
    predicted = model([image])
assert predicted[0]["instances"].pred_masks.shape[1:] == (96, 128)
right = Instances((96, 128), pred_boxes=Boxes([[30.0, 20.0, 90.0, 70.0]]), scores=torch.tensor([0.9]))
right.pred_classes = torch.tensor([0])
right.pred_masks = mask
evaluator.process([image], [{"instances": right}])
scores = evaluator.evaluate()
assert abs(scores["segm"]["AP"] - 100) < 1e-6 and abs(scores["bbox"]["AP"] - 100) < 1e-6, scores
"""
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return make_wheel(tmp_path_factory.mktemp("wheel"), sdist=real_sdist())


@pytest.fixture(scope="module")
def bare_venv(tmp_path_factory):
    """An environment with pip and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for entry in Path(sysconfig.get_path("purelib")).glob("pip*"):
        (site / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def run_installer(python, *arguments, **environment):
    command = [str(python), "-c", SETUP, *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables)


def unpacked(wheel, folder):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_is_pure_python_and_named_detectron2(wheel):
    assert wheel.name == "detectron2-0.6-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read("detectron2-0.6.dist-info/METADATA").decode()
        changes = archive.read("detectron2-0.6.dist-info/COMPATIBILITY.txt").decode()
    assert "\nName: detectron2\nVersion: 0.6\n" in metadata
    assert "Requires-Dist: black" not in metadata
    assert changes == compatibility.summary()
    assert "detectron2/model_zoo/configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml" in names
    assert {f"detectron2/projects/{name}/__init__.py" for name in sources.PROJECTS} <= names
    assert all(name.startswith(("detectron2/", "detectron2-0.6.dist-info/")) for name in names)


def test_the_record_of_the_wheel_names_every_file_with_its_hash(wheel):
    with zipfile.ZipFile(wheel) as archive:
        rows = list(csv.reader(io.StringIO(archive.read("detectron2-0.6.dist-info/RECORD").decode())))
        assert {row[0] for row in rows} == set(archive.namelist())
        for name, digest, size in rows:
            if name.endswith("/RECORD"):
                continue
            content = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={expected}", len(content))


def test_the_same_sdist_gives_the_same_wheel(wheel, tmp_path):
    assert make_wheel(tmp_path, sdist=real_sdist()).read_bytes() == wheel.read_bytes()


@pytest.mark.slow
def test_pip_installs_it_under_the_name_detectron2(wheel, bare_venv):
    pip = [str(bare_venv), "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    listed = subprocess.run([*pip, "list", "--format=freeze"], capture_output=True, text=True, check=True).stdout
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "detectron2"], check=True)
    assert "detectron2==0.6" in listed.splitlines()


@pytest.mark.slow
def test_a_fresh_process_imports_trains_predicts_and_evaluates(wheel, tmp_path):
    site = unpacked(wheel, tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", USE_IT, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[0]).is_relative_to(site)


@pytest.mark.extended
def test_the_environment_of_the_tests_imports_it_without_d2tune(tmp_path):
    code = f"{IMPORTS}, sys; sys.exit('d2tune' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_wrong_sdist_stops_it_with_one_line(bare_venv, tmp_path):
    path = tmp_path / sources.SDIST_NAME
    path.write_bytes(real_sdist().read_bytes() + b"\0")
    done = run_installer(bare_venv, "--sdist", path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(path) in done.stderr
    assert hashlib.sha256(path.read_bytes()).hexdigest() in done.stderr
    assert sources.SDIST_SHA256 in done.stderr


@pytest.fixture
def index(tmp_path):
    """A package index on this machine: its address, and its folder to put files into."""
    folder = tmp_path / "index" / sources.SDIST_PROJECT
    folder.mkdir(parents=True)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", folder
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("tampered", [True, False], ids=["tampered", "absent"])
def test_the_index_that_pip_is_configured_for_is_asked_and_not_trusted(bare_venv, index, tampered):
    address, folder = index
    link = ""
    if tampered:
        (folder / sources.SDIST_NAME).write_bytes(b"another file")
        link = f'<a href="{sources.SDIST_NAME}">{sources.SDIST_NAME}</a>'
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>", encoding="utf-8")
    # Configured by a file, as a user would, and cut off from every other index.
    configuration = folder.parent / "pip.conf"
    configuration.write_text(f"[global]\nindex-url = {address}\nextra-index-url =\nfind-links =\n", encoding="utf-8")
    done = run_installer(bare_venv, PIP_CONFIG_FILE=str(configuration), PIP_EXTRA_INDEX_URL="", PIP_FIND_LINKS="")
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    expected = "not the Detectron2 sdist that d2tune knows" if tampered else f"has {sources.SDIST_NAME}"
    assert error.startswith("error: ") and expected in error


def test_a_local_sdist_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MachineError, match="nowhere"):
        make_wheel(tmp_path, sdist=tmp_path / "nowhere.tar.gz")


@pytest.mark.parametrize("name", ["../evil.py", "a/../../evil.py", "/evil.py", "a\\..\\evil.py"])
def test_a_name_that_leads_out_of_the_archive_is_refused(tmp_path, name):
    archive = tmp_path / "bad.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        member = tarfile.TarInfo(name)
        member.size = 4
        opened.addfile(member, io.BytesIO(b"evil"))
    folder = tmp_path / "inside" / "folder"
    with pytest.raises(MachineError, match="leads out"):
        sources.unpack(archive, folder)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_links_are_not_unpacked(tmp_path):
    archive = tmp_path / "links.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        member = tarfile.TarInfo("top/link")
        member.type = tarfile.SYMTYPE
        member.linkname = "/etc/passwd"
        opened.addfile(member)
    sources.unpack(archive, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("fixes", "import_error", "kept"),
    [
        (None, None, True),  # Somebody else's, compiled or not.
        (compatibility.summary(), None, True),
        ("an older list", None, False),
        (compatibility.summary([], [], title=compatibility.OF_A_CHECKOUT), None, True),
        (compatibility.summary(), "ImportError: broken", False),
    ],
)
def test_what_works_is_kept(fixes, import_error, kept):
    assert installer.is_kept(installer.Installed("0.6", "somewhere", False, fixes, import_error)) is kept


@pytest.mark.parametrize("name", ["COMPATIBILITY.txt", "MENDS.txt"])
def test_a_detectron2_that_d2tune_built_is_recognized_under_both_names_of_its_list(name, tmp_path, monkeypatch):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("", encoding="utf-8")
    metadata = tmp_path / "detectron2-0.6.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: detectron2\nVersion: 0.6\n", encoding="utf-8")
    (metadata / name).write_text("the list of changes", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    detectron2 = installer.installed()
    assert detectron2 is not None and detectron2.fixes == "the list of changes"
    assert Path(detectron2.folder) == tmp_path / "detectron2"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The sdist's files laid out as in upstream's repository, with a C++ source and a compiled extension."""
    root = tmp_path_factory.mktemp("upstream") / "detectron2"
    shutil.copytree(unpacked_sdist(), root)
    shutil.move(root / "detectron2" / "model_zoo" / "configs", root / "configs")
    (root / "detectron2" / "model_zoo" / "configs").symlink_to(root / "configs")
    (root / "detectron2" / "layers" / "csrc").mkdir()
    (root / "detectron2" / "layers" / "csrc" / "vision.cpp").write_text("#error not compiled\n", encoding="utf-8")
    (root / "detectron2" / "_C.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\x7fELF")
    (root / "detectron2" / "data" / "build.py").write_text("# fixed upstream\n", encoding="utf-8")
    return root


def test_a_checkout_is_packed_without_its_extension_and_left_as_it_is(wheel, checkout, tmp_path):
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    made = make_wheel_of_checkout(tmp_path, checkout)
    assert {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()} == before
    with zipfile.ZipFile(made) as archive, zipfile.ZipFile(wheel) as known:
        expected = set(known.namelist()) - {"detectron2/utils/compiled.py"}
        assert set(archive.namelist()) == expected
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert texts["detectron2/data/build.py"] == "# fixed upstream\n"
    assert "panopticapi" not in texts["detectron2/projects/panoptic_deeplab/dataset_mapper.py"]
    assert "pkg_resources" not in texts["detectron2/model_zoo/model_zoo.py"]
    assert "from detectron2 import _C" in texts["detectron2/layers/deform_conv.py"]
    changes = texts["detectron2-0.6.dist-info/COMPATIBILITY.txt"]
    named = {
        line.split(":")[0].split(" ")[0] for line in changes.splitlines() if line.startswith(("detectron2/", "pro"))
    }
    assert named == {fix.file for fix in compatibility.FIXES if fix.in_main} | {"detectron2/utils/panoptic_ids.py"}


def test_the_fixes_of_a_file_are_applied_together_or_not_at_all(checkout, tmp_path):
    root = sources.copy_checkout(checkout, tmp_path)
    zoo = root / "detectron2" / "model_zoo" / "model_zoo.py"
    text = zoo.read_text(encoding="utf-8").replace("import pkg_resources\n", "import pkg_resources as resources\n")
    zoo.write_text(text, encoding="utf-8")
    applied, _ = compatibility.apply_where_needed(root)
    assert zoo.read_text(encoding="utf-8") == text
    assert "detectron2/model_zoo/model_zoo.py" not in {fix.file for fix in applied} != set()


@pytest.mark.parametrize("missing", ["configs", "detectron2/__init__.py", "projects/DeepLab/deeplab"])
def test_only_the_whole_repository_is_a_checkout(checkout, tmp_path, missing):
    root = tmp_path / "copy"
    shutil.copytree(checkout, root, symlinks=True)
    assert sources.is_checkout(root)
    shutil.rmtree(root / missing) if (root / missing).is_dir() else (root / missing).unlink()
    assert not sources.is_checkout(root)


@pytest.mark.slow
def test_a_detectron2_from_elsewhere_is_kept(wheel, tmp_path):
    site = unpacked(wheel, tmp_path / "site")
    (site / "detectron2-0.6.dist-info" / "COMPATIBILITY.txt").unlink()
    before = sorted(site.rglob("*.py"))
    done = run_installer(sys.executable, PYTHONPATH=f"{site}{os.pathsep}{REPOSITORY}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Kept Detectron2 0.6 (not built by d2tune, no compiled operators) in {site / 'detectron2'}\n"
    assert sorted(site.rglob("*.py")) == before


def test_a_broken_detectron2_from_elsewhere_is_reported_and_left_alone(tmp_path):
    package = tmp_path / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text("import a_module_that_is_gone\n", encoding="utf-8")
    (tmp_path / "detectron2-0.6.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: detectron2\nVersion: 0.6\n"
    (tmp_path / "detectron2-0.6.dist-info" / "METADATA").write_text(metadata, encoding="utf-8")
    done = run_installer(sys.executable, PYTHONPATH=f"{tmp_path}{os.pathsep}{REPOSITORY}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {package}: ")
    assert "a_module_that_is_gone" in done.stderr and "pip uninstall detectron2" in done.stderr
    assert (package / "__init__.py").is_file()


def test_importing_the_installer_needs_only_the_standard_library(tmp_path):
    shutil.copytree(REPOSITORY / "d2tune", tmp_path / "d2tune", ignore=shutil.ignore_patterns("__pycache__"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import d2tune.install.detectron2"
    subprocess.run([sys.executable, "-S", "-I", "-c", code], check=True)


def test_versions_that_are_installed_are_not_replaced() -> None:
    constraints = "# all of them\n\ntorch==2.11.0\nhydra-core==1.3\nnumpy==2.4.6\n"
    assert installer.missing_constraints(constraints, ["Torch", "hydra_core"]) == "numpy==2.4.6\n"
    assert installer.missing_constraints(constraints, []) == "torch==2.11.0\nhydra-core==1.3\nnumpy==2.4.6\n"
