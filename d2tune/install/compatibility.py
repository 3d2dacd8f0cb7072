"""What Detectron2 needs changed to run on today's torch, numpy, Pillow and Python, and without a compiler.

Every fix names one file of Detectron2 0.6's sdist, the text in it, the text that replaces it, and why. A fix whose
text does not occur exactly as often as it should stops the build: an sdist other than the known one must be looked at
by a person. A checkout of upstream's main branch has most of the fixes already and gets those of the rest that apply
to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from d2tune.errors import MachineError


@dataclass(frozen=True)
class CompatibilityFix:
    """Replace ``old`` by ``new`` in ``file``, where ``old`` must occur exactly ``count`` times.

    Attributes:
        file: Path in the sdist.
        old: The text before.
        new: The text after.
        reason: Why it must change.
        count: How often ``old`` must occur.
        in_main: Whether upstream's main branch may need it too. Such a fix needs no other one.
    """

    file: str
    old: str
    new: str
    reason: str
    count: int = 1
    in_main: bool = False


@dataclass(frozen=True)
class Addition:
    """A file that the sources do not have.

    Attributes:
        file: Path in the sdist.
        text: Its content.
        reason: Why it is added.
        in_main: Whether a checkout of upstream's main branch gets it too.
    """

    file: str
    text: str
    reason: str
    in_main: bool = False


COMPILED_PY = '''\
"""The compiled operators of Detectron2, or a stand-in that says so when they are missing."""


class _NotCompiled:
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(
            f"detectron2._C.{name} is a compiled operator and this Detectron2 was built without a compiler. "
            "Mask R-CNN, PointRend, FPN and DeepLab do not need it; deformable and rotated models do: "
            "install a compiled Detectron2 to use them."
        )


try:
    from detectron2 import _C

    COMPILED = True
except ImportError:
    _C = _NotCompiled()
    COMPILED = False
'''

PANOPTIC_IDS_PY = '''\
"""Segment ids of panoptic PNG files: id = red + 256 * green + 256 * 256 * blue, as the COCO format says."""

import numpy as np


def rgb2id(color):
    """(H, W, 3) uint8 colors to (H, W) int32 ids, or one color to one id."""
    rgb = np.asarray(color).astype(np.int32)
    ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
    return ids if ids.ndim else int(ids)


def id2rgb(ids):
    """(H, W) ids to (H, W, 3) uint8 colors, or one id to a list of three numbers."""
    ids = np.asarray(ids).astype(np.int64)
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536 % 256], axis=-1)
    return rgb.astype(np.uint8) if ids.ndim else [int(value) for value in rgb]
'''

ADDITIONS = (
    Addition(
        "detectron2/utils/compiled.py",
        COMPILED_PY,
        "one place that knows whether the compiled operators are there",
    ),
    Addition(
        "detectron2/utils/panoptic_ids.py",
        PANOPTIC_IDS_PY,
        "panopticapi is not on PyPI; these two functions are all that reading and writing panoptic PNG files needs",
        in_main=True,
    ),
)

_NO_COMPILER = "detectron2._C is imported without a fallback; nothing that d2tune trains needs it"
_NUMPY_NAMES = "numpy 1.24 removed the old names of Python's own types"
_NUMPY_BOOL = "numpy 1.24 to 1.26 have no np.bool"
_PANOPTICAPI = "panopticapi is not on PyPI"
_MESHGRID = "torch warns at every start that meshgrid's indexing must be named"

FIXES = (
    # Compiled operators.
    *(
        CompatibilityFix(
            file, "from detectron2 import _C\n", "from detectron2.utils.compiled import _C\n", _NO_COMPILER
        )
        for file in (
            "detectron2/layers/deform_conv.py",
            "detectron2/layers/roi_align_rotated.py",
            "detectron2/layers/rotated_boxes.py",
            "detectron2/evaluation/fast_eval_api.py",
        )
    ),
    CompatibilityFix(
        "detectron2/layers/nms.py",
        "    return torch.ops.detectron2.nms_rotated(boxes, scores, iou_threshold)\n",
        "    from detectron2.utils.compiled import COMPILED, _C\n"
        "\n"
        "    if not COMPILED:\n"
        "        return _C.nms_rotated(boxes, scores, iou_threshold)  # says that it is missing\n"
        "    return torch.ops.detectron2.nms_rotated(boxes, scores, iou_threshold)\n",
        "the operator is looked up in torch.ops, where its absence gives an unclear error",
    ),
    CompatibilityFix(
        "detectron2/evaluation/coco_evaluation.py",
        "from detectron2.structures import Boxes, BoxMode, pairwise_iou\n",
        "from detectron2.structures import Boxes, BoxMode, pairwise_iou\n"
        "from detectron2.utils.compiled import COMPILED\n",
        "the next two fixes check whether the compiled COCO evaluation is there",
    ),
    CompatibilityFix(
        "detectron2/evaluation/coco_evaluation.py",
        "        self._use_fast_impl = use_fast_impl\n",
        "        self._use_fast_impl = use_fast_impl and COMPILED\n",
        "the compiled COCO evaluation is the default; without it pycocotools does the same work",
    ),
    CompatibilityFix(
        "detectron2/evaluation/coco_evaluation.py",
        "(COCOeval_opt if use_fast_impl else COCOeval)(",
        "(COCOeval_opt if use_fast_impl and COMPILED else COCOeval)(",
        "the function is also called by itself, with the compiled evaluation as its default",
    ),
    # numpy.
    CompatibilityFix("detectron2/data/build.py", "dtype=np.int)", "dtype=int)", _NUMPY_NAMES),
    CompatibilityFix("detectron2/data/build.py", "dtype=np.int\n", "dtype=int\n", _NUMPY_NAMES),
    CompatibilityFix(
        "detectron2/evaluation/sem_seg_evaluation.py", "dtype=np.int)", "dtype=int)", _NUMPY_NAMES, count=2
    ),
    CompatibilityFix(
        "detectron2/evaluation/sem_seg_evaluation.py", "dtype=np.float)", "dtype=float)", _NUMPY_NAMES, count=2
    ),
    CompatibilityFix(
        "detectron2/evaluation/sem_seg_evaluation.py", ".astype(np.float)", ".astype(float)", _NUMPY_NAMES, count=3
    ),
    CompatibilityFix(
        "detectron2/evaluation/pascal_voc_evaluation.py", ".astype(np.bool)", ".astype(bool)", _NUMPY_BOOL, count=2
    ),
    CompatibilityFix("detectron2/structures/masks.py", ".astype(np.bool)", ".astype(bool)", _NUMPY_BOOL, count=2),
    CompatibilityFix("detectron2/structures/masks.py", "dtype=np.bool)", "dtype=bool)", _NUMPY_BOOL),
    CompatibilityFix("detectron2/utils/visualizer.py", ".astype(np.bool)", ".astype(bool)", _NUMPY_BOOL, count=3),
    CompatibilityFix("detectron2/utils/video_visualizer.py", "dtype=np.bool)", "dtype=bool)", _NUMPY_BOOL),
    CompatibilityFix(
        "detectron2/layers/mask_ops.py",
        "np.array(mask, copy=False)",
        "np.asarray(mask)",
        "numpy 2 raises an error where copy=False cannot be kept",
    ),
    # Pillow.
    CompatibilityFix(
        "detectron2/data/transforms/transform.py",
        "interp=Image.LINEAR",
        "interp=Image.BILINEAR",
        "Pillow 10 removed the old name of BILINEAR",
    ),
    # setuptools.
    CompatibilityFix(
        "detectron2/model_zoo/model_zoo.py",
        "import pkg_resources\n",
        "from pathlib import Path\n",
        "pkg_resources left setuptools, and is not needed for a file beside this one",
        in_main=True,
    ),
    CompatibilityFix(
        "detectron2/model_zoo/model_zoo.py",
        "    cfg_file = pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n'
        "    )\n",
        '    cfg_file = str(Path(__file__).resolve().parent / "configs" / config_path)\n',
        "pkg_resources left setuptools, and is not needed for a file beside this one",
        in_main=True,
    ),
    # torch.
    CompatibilityFix(
        "detectron2/modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        _MESHGRID,
        in_main=True,
    ),
    # Caffe2, which left torch with 2.x.
    CompatibilityFix(
        "detectron2/export/__init__.py",
        "from .api import *\n",
        "try:\n"
        "    from .api import *\n"
        "except ImportError as error:\n"
        "    _reason = str(error)\n"
        "\n"
        "    def __getattr__(name):\n"
        '        if name == "add_export_config" or "affe2" in name or name == "export_onnx_model":\n'
        "            raise ImportError(\n"
        '                f"detectron2.export.{name} needs Caffe2, which is no longer a part of torch ({_reason})"\n'
        "            )\n"
        "        raise AttributeError(name)\n"
        "\n"
        "\n",
        "the Caffe2 exporter stops the import of the TorchScript and tracing helpers, which work",
    ),
    # Panoptic-DeepLab and panoptic PNG files.
    CompatibilityFix(
        "projects/Panoptic-DeepLab/panoptic_deeplab/dataset_mapper.py",
        "from panopticapi.utils import rgb2id\n",
        "from detectron2.utils.panoptic_ids import rgb2id\n",
        _PANOPTICAPI,
        in_main=True,
    ),
    CompatibilityFix(
        "detectron2/utils/visualizer.py",
        "from panopticapi.utils import rgb2id\n",
        "from detectron2.utils.panoptic_ids import rgb2id\n",
        _PANOPTICAPI,
        in_main=True,
    ),
    CompatibilityFix(
        "detectron2/evaluation/panoptic_evaluation.py",
        "from panopticapi.utils import id2rgb\n",
        "from detectron2.utils.panoptic_ids import id2rgb\n",
        _PANOPTICAPI,
        in_main=True,
    ),
)


def apply(root: Path, *, fixes: Sequence[CompatibilityFix] = FIXES, additions: Sequence[Addition] = ADDITIONS) -> None:
    """Fix the unpacked sdist at ``root`` in place.

    Raises:
        MachineError: A file is missing, or a text does not occur as often as the list says.
    """
    for fix in fixes:
        path = root / fix.file
        if not path.is_file():
            raise MachineError("this file of Detectron2 0.6 is missing", file=fix.file, hint=_WRONG_SDIST)
        text = path.read_text(encoding="utf-8")
        times = text.count(fix.old)
        if times != fix.count:
            raise MachineError(
                f"the text to replace is not in the file as expected: {fix.old.strip()!r}",
                file=fix.file,
                found=f"{times} times",
                expected=str(fix.count),
                hint=_WRONG_SDIST,
            )
        _write(path, text.replace(fix.old, fix.new))
    for addition in additions:
        path = root / addition.file
        if path.exists():
            raise MachineError("a file of this name already exists", file=addition.file, hint=_WRONG_SDIST)
        _write(path, addition.text)


def apply_where_needed(root: Path) -> tuple[list[CompatibilityFix], list[Addition]]:
    """Fix a copy of a checkout at ``root`` in place, where its files have the texts that upstream's main may have.

    The fixes of a file are applied together or not at all.

    Returns:
        What was applied.
    """
    applied: list[CompatibilityFix] = []
    for file, group in itertools.groupby((fix for fix in FIXES if fix.in_main), key=lambda fix: fix.file):
        path, fixes = root / file, list(group)
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not all(text.count(fix.old) == fix.count for fix in fixes):
            continue
        for fix in fixes:
            text = text.replace(fix.old, fix.new)
        _write(path, text)
        applied += fixes
    added = [addition for addition in ADDITIONS if addition.in_main and not (root / addition.file).exists()]
    for addition in added:
        _write(root / addition.file, addition.text)
    return applied, added


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


_WRONG_SDIST = "This is not the Detectron2 0.6 that the list in d2tune/install/compatibility.py was written for"

OF_A_CHECKOUT = "Changes that d2tune made to a checkout of Detectron2:"


def summary(
    fixes: Sequence[CompatibilityFix] = FIXES,
    additions: Sequence[Addition] = ADDITIONS,
    *,
    title: str = "Changes that d2tune made to Detectron2 0.6:",
) -> str:
    """The list as plain text, one entry for each fix, to be kept inside the wheel."""
    entries = [f"{fix.file}: {fix.reason}\n  - {fix.old!r}\n  + {fix.new!r}" for fix in fixes]
    entries += [f"{addition.file} (added): {addition.reason}\n{addition.text}" for addition in additions]
    return f"{title}\n\n" + "\n".join(entries) + "\n"
