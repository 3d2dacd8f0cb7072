import re
import shutil

import numpy as np
import pytest

from d2tune.errors import MachineError
from d2tune.install import compatibility
from tests.install.sdist import unpacked_sdist

NO_LONGER_THERE = re.compile(
    r"np\.(bool|int|float|object)\b|Image\.LINEAR|pkg_resources|from panopticapi\.utils|^from detectron2 import _C",
    re.MULTILINE,
)
MAY_ASK_FOR_THE_OPERATORS = {"detectron2/utils/compiled.py", "detectron2/utils/collect_env.py"}


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fixed") / "source"
    shutil.copytree(unpacked_sdist(), root)
    compatibility.apply(root)
    return root


def python_files(root):
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}


def test_what_stops_the_import_is_in_the_sdist_and_gone_after_the_fixes(fixed):
    before = {name for name, text in python_files(unpacked_sdist()).items() if NO_LONGER_THERE.search(text)}
    after = {name for name, text in python_files(fixed).items() if NO_LONGER_THERE.search(text)}
    assert len(before) > 10
    assert after <= MAY_ASK_FOR_THE_OPERATORS


def test_only_the_listed_files_change(fixed):
    before, after = python_files(unpacked_sdist()), python_files(fixed)
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed == {fix.file for fix in compatibility.FIXES} | {
        addition.file for addition in compatibility.ADDITIONS
    }


def test_the_fixed_files_are_python(fixed):
    for name, text in python_files(fixed).items():
        compile(text, name, "exec")


def test_every_entry_has_a_reason():
    assert all(len(entry.reason) > 20 for entry in (*compatibility.FIXES, *compatibility.ADDITIONS))


@pytest.mark.parametrize("fix", compatibility.FIXES, ids=lambda fix: f"{fix.file}:{fix.old.strip()[:30]}")
@pytest.mark.parametrize("change", ["gone", "once more"])
def test_a_changed_text_stops_the_build_and_is_named(tmp_path, fix, change):
    text = (unpacked_sdist() / fix.file).read_text(encoding="utf-8")
    path = tmp_path / fix.file
    path.parent.mkdir(parents=True)
    changed = text.replace(fix.old, "", 1) if change == "gone" else text + fix.old
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(MachineError) as caught:
        compatibility.apply(tmp_path, fixes=(fix,), additions=())
    assert fix.file in str(caught.value)
    assert fix.old.strip().splitlines()[0].strip()[:20] in str(caught.value)
    assert path.read_text(encoding="utf-8") == changed


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MachineError, match=re.escape(compatibility.FIXES[0].file)):
        compatibility.apply(tmp_path)


def test_an_addition_never_replaces_a_file(tmp_path):
    path = tmp_path / compatibility.ADDITIONS[0].file
    path.parent.mkdir(parents=True)
    path.write_text("", encoding="utf-8")
    with pytest.raises(MachineError, match=re.escape(compatibility.ADDITIONS[0].file)):
        compatibility.apply(tmp_path, fixes=())


@pytest.mark.parametrize(
    ("rgb", "segment"), [((1, 2, 3), 1 + 2 * 256 + 3 * 65536), ((255, 0, 0), 255), ((0, 1, 0), 256)]
)
def test_panoptic_ids_of_one_color(rgb, segment):
    names: dict = {}
    exec(compatibility.PANOPTIC_IDS_PY, names)
    assert names["rgb2id"](rgb) == segment
    assert names["id2rgb"](segment) == list(rgb)


def test_panoptic_ids_of_an_image():
    names: dict = {}
    exec(compatibility.PANOPTIC_IDS_PY, names)
    ids = np.array([[0, 7], [70_000, 2**24 - 1]])
    colors = names["id2rgb"](ids)
    assert colors.dtype == np.uint8
    assert colors[1, 0].tolist() == [112, 17, 1]
    assert names["rgb2id"](colors).tolist() == ids.tolist()
