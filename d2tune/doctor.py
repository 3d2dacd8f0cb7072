"""What is installed and what the machine can do: ``d2tune doctor``.

Importing this module needs the standard library only, and ``examine`` works where nothing else is installed.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import importlib.util
import netrc
import os
import platform
import shutil
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from d2tune import hardware
from d2tune.errors import D2TuneError
from d2tune.install import detectron2 as installer
from d2tune.text import counted

State = Literal["ok", "warn", "fail"]

ZOO_URL = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-50.pkl"
TORCHVISION_URL = "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth"
NETWORK_TIMEOUT_S = 3.0
LOW_MEMORY_BYTES = 4 * 2**30
LOW_DISK_BYTES = 5 * 2**30

_INSTALL = "Install d2tune again with pip, or in a checkout run: make setup"
_SETUP = "Run: d2tune setup"
_LIBRARIES = {
    # Module, and the distribution that has it, of what training needs.
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "pycocotools": "pycocotools",
    "fvcore": "fvcore",
    "pydantic": "pydantic",
    "yaml": "pyyaml",
    "psutil": "psutil",
    "tqdm": "tqdm",
    "tensorboard": "tensorboard",
}


@dataclass(frozen=True)
class Row:
    """One property of the environment or the machine.

    Attributes:
        name: Its name.
        value: Its value, in a few words.
        state: ``ok``; ``warn`` where something useful is missing; ``fail`` where training cannot run.
        remedy: What to do about it, None where nothing is to be done.
    """

    name: str
    value: str
    state: State = "ok"
    remedy: str | None = None


@dataclass(frozen=True)
class Report:
    """All rows, in the order in which they are shown."""

    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether the main job (convert, train, evaluate) can run here."""
        return all(row.state != "fail" for row in self.rows)


def examine(*, folder: str | Path = ".") -> Report:
    """Examine the environment and the machine; takes a few seconds, never raises.

    Args:
        folder: The project folder, for Labelme's environment and the free disk space.
    """
    # These two are slow and run while torch is imported here.
    detectron2 = _Later(_detectron2)
    answers = _Later(weights)
    place = Path(folder)
    rows = [
        _guarded("Python", _python),
        _guarded("d2tune", _d2tune),
        _guarded("torch", _torch),
        _guarded("torchvision", _torchvision),
        _guarded("libraries", _libraries),
        detectron2.row("Detectron2", timeout_s=120),
        _guarded("device", _device, needed=False),
        _guarded("precision", _precision, needed=False),
        answers.row("weights", timeout_s=NETWORK_TIMEOUT_S + 2),
        _guarded("Labelme", lambda: _labelme(place)),
        _guarded("W&B", wandb),
        _guarded("memory", _memory, needed=False),
        _guarded("disk", lambda: _disk(place)),
    ]
    return Report(tuple(rows))


def format_report(report: Report) -> str:
    """The report as text for one screen: a line for each row, and its remedy below it."""
    marks = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
    width = max(len(row.name) for row in report.rows)
    lines = []
    for row in report.rows:
        lines.append(f"{marks[row.state]}  {row.name:<{width}}  {row.value}")
        if row.remedy is not None:
            lines.append(f"{'':6}{'':<{width}}  -> {row.remedy}")
    failed = [row.name for row in report.rows if row.state == "fail"]
    lines.append("")
    lines.append(f"Training cannot run here: {', '.join(failed)}." if failed else "Training can run here.")
    return "\n".join(lines)


def torchvision_for(torch_version: str) -> str | None:
    """The torchvision release, as ``major.minor``, that belongs to a torch release; None where it is unknown.

    Since 2.0 they are released in pairs, 2.0 with 0.15, 2.1 with 0.16 and so on.
    """
    major, _, rest = torch_version.partition(".")
    minor = rest.partition(".")[0]
    return f"0.{int(minor) + 15}" if major == "2" and minor.isdigit() else None


def labelme_command(folder: str | Path = ".") -> Path | None:
    """Labelme's program: from the environment that ``make annotate`` makes in ``folder``, else from the PATH."""
    own = Path(folder, ".venv-labelme")
    for path in (own / "bin" / "labelme", own / "Scripts" / "labelme.exe"):
        if path.is_file():
            return path
    program = shutil.which("labelme")
    return Path(program) if program else None


class _Later:
    """A row that is computed in its own thread, with a time limit."""

    def __init__(self, look: Callable[[], Row]) -> None:
        self._rows: list[Row] = []
        self._thread = threading.Thread(target=lambda: self._rows.append(_guarded("", look)), daemon=True)
        self._thread.start()

    def row(self, name: str, *, timeout_s: float) -> Row:
        self._thread.join(timeout_s)
        if not self._rows:
            return Row(name, f"no answer in {timeout_s:.0f} s", "warn")
        return dataclasses.replace(self._rows[0], name=name)


def _guarded(name: str, look: Callable[[], Row], *, needed: bool = True) -> Row:
    """The row, or the reason why it could not be computed: a broken package may raise anything on import."""
    try:
        return look()
    except ModuleNotFoundError as error:
        if not needed:
            return Row(name, f"unknown, because {error.name} is not installed", "warn")
        return Row(name, f"{error.name} is not installed", "fail", _INSTALL)
    except Exception as error:
        return Row(name, f"{type(error).__name__}: {' '.join(str(error).split())}"[:200], "fail", _INSTALL)


def _python() -> Row:
    return Row("Python", f"{platform.python_version()} in {sys.prefix}")


def _d2tune() -> Row:
    place = Path(__file__).resolve().parent
    try:
        version = importlib.metadata.version("d2tune")
    except importlib.metadata.PackageNotFoundError:
        return Row("d2tune", f"not installed, run from {place}", "warn", _INSTALL)
    return Row("d2tune", f"{version} in {place}")


def _detectron2() -> Row:
    try:
        detectron2 = installer.installed()
    except D2TuneError as error:
        return Row("Detectron2", str(error), "fail", _SETUP)
    if detectron2 is None:
        return Row("Detectron2", "not installed", "fail", _SETUP)
    if detectron2.import_error is not None:
        return Row("Detectron2", f"cannot be imported: {detectron2.import_error}", "fail", _SETUP)
    return Row("Detectron2", installer.describe(detectron2).removeprefix("Detectron2 "))


def _torch() -> Row:
    import torch

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    return Row("torch", f"{torch.__version__}, {built}")


def _torchvision() -> Row:
    import torch

    expected = torchvision_for(torch.__version__)
    remedy = f"Install torchvision {expected} for torch {torch.__version__}" if expected else _INSTALL
    try:
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except ModuleNotFoundError:
        raise
    except (ImportError, RuntimeError, AttributeError) as error:
        return Row("torchvision", f"does not work with torch {torch.__version__}: {error}", "fail", remedy)
    version = torchvision.__version__
    if expected is not None and not version.startswith(f"{expected}."):
        return Row(
            "torchvision", f"{version} does not match torch {torch.__version__}, which needs {expected}", "fail", remedy
        )
    return Row("torchvision", f"{version}, matches torch")


def _libraries() -> Row:
    missing = [brings for module, brings in _LIBRARIES.items() if importlib.util.find_spec(module) is None]
    if missing:
        return Row("libraries", f"missing: {', '.join(missing)}", "fail", _INSTALL)
    opencv = [name for name in ("opencv-python", "opencv-python-headless", "opencv-contrib-python") if _version(name)]
    if len(opencv) > 1:
        remedy = f"Keep one: pip uninstall {' '.join(opencv)}, then pip install opencv-python-headless"
        return Row("libraries", f"two OpenCV wheels overwrite each other: {', '.join(opencv)}", "warn", remedy)
    names = ("numpy", "opencv-python-headless", "pillow", "pycocotools", "timm")
    return Row("libraries", ", ".join(f"{name} {_version(name)}" for name in names if _version(name)))


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> Row:
    import torch

    cores = counted(hardware.usable_cores(), "CPU core")
    if not torch.cuda.is_available():
        text = f"CPU, {counted(torch.get_num_threads(), 'thread')} on {cores}"
        return Row("device", text) if shutil.which("nvidia-smi") is None else _unused_gpu(text, torch.version.cuda)
    cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    names = ", ".join(f"{card.name} {_gib(card.total_memory)}" for card in cards)
    return Row("device", f"CUDA: {names}; {cores}")


def _unused_gpu(text: str, cuda: str | None) -> Row:
    """Why torch uses no GPU on a machine with NVIDIA's tools."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        remedy = "CUDA_VISIBLE_DEVICES hides all GPUs: unset it to use one"
    elif cuda is None:
        remedy = "This torch was built for the CPU: install one that was built for CUDA to use a GPU"
    else:
        remedy = f"If nvidia-smi lists a GPU, its driver is too old for CUDA {cuda}; a container needs --gpus all"
    return Row("device", f"{text}; nvidia-smi is installed, but torch finds no GPU", "warn", remedy)


def _precision() -> Row:
    """What ``train.precision: auto`` takes."""
    import torch

    if torch.cuda.is_available():
        return Row("precision", ", ".join(hardware.card_precision()))
    if not hardware.has_bfloat16():
        return Row("precision", f"float32: {hardware.NO_BFLOAT16}")
    return Row("precision", "float32, or bfloat16 where the first training of a network measures that it is faster")


def weights() -> Row:
    """Whether pretrained weights can be downloaded; asks for their headers only."""
    addresses = {"Detectron2's zoo": ZOO_URL, "torchvision's weights": TORCHVISION_URL}
    asked = {name: _Later(functools.partial(_head_row, url)) for name, url in addresses.items()}
    values = {name: later.row("", timeout_s=NETWORK_TIMEOUT_S).value for name, later in asked.items()}
    text = "; ".join(f"{name}: {value}" for name, value in values.items())
    if all(value == "reachable" for value in values.values()):
        return Row("weights", text)
    remedy = "Without them name a file in the project (weights: path), or training starts from scratch"
    return Row("weights", text, "warn", remedy)


def _head_row(url: str) -> Row:
    return Row("", _head(url))


def _head(url: str) -> str:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_TIMEOUT_S):
            return "reachable"
    except urllib.error.HTTPError as error:
        return f"answers HTTP {error.code}"
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return f"not reachable ({getattr(reason, 'strerror', None) or reason})"


def _labelme(folder: Path) -> Row:
    command = labelme_command(folder)
    if command is None:
        return Row("Labelme", "not installed; in a checkout `make annotate` installs it on its first use", "warn")
    return Row("Labelme", str(command))


def wandb() -> Row:
    """Whether Weights & Biases is installed and the user is logged in."""
    version = _version("wandb")
    if version is None:
        return Row("W&B", "not installed; runs are logged to TensorBoard only", "warn")
    mode = os.environ.get("WANDB_MODE")
    if mode in ("offline", "disabled", "dryrun"):
        return Row("W&B", f"{version}, WANDB_MODE={mode}")
    if os.environ.get("WANDB_API_KEY") or _logged_in():
        return Row("W&B", f"{version}, logged in")
    return Row("W&B", f"{version}, not logged in and not used by default (`wandb login`, or WANDB_MODE=offline)")


def _logged_in() -> bool:
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rpartition("://")[2].rstrip("/")
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _memory() -> Row:
    total, available = hardware.memory_bytes()
    value = f"{_gib(available)} free of {_gib(total)}"
    if available < LOW_MEMORY_BYTES:
        return Row("memory", value, "warn", "Close other programs, or use small images and train.batch_size=1")
    return Row("memory", value)


def _disk(folder: Path) -> Row:
    usage = shutil.disk_usage(folder)
    value = f"{_gib(usage.free)} free of {_gib(usage.total)}"
    if usage.free < LOW_DISK_BYTES:
        return Row("disk", value, "warn", "Free disk space: the environment takes 6 GiB, a run 1 GiB or more")
    return Row("disk", value)


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
