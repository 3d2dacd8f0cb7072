"""What a package holds of a run: nothing of the folders of the machine, and nothing of the accounts of a person."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from detectron2.config import CfgNode

from d2tune.project import Project

DATA_FOLDER = "data"
"""What stands for the folder of the data: beside ``package.json``, where a package has none of them."""


_PATHS = ("train", "val", "annotations", "images", "labels", "color_map")
"""The keys of a project's ``data`` that may be paths, beside its ``root``."""


def portable_project(project: Project) -> Project:
    """A project whose data are in `DATA_FOLDER`; of other absolute paths, the last name is kept."""
    plain = project.model_dump(mode="json")
    plain |= {key: portable(plain[key]) for key in ("weights", "detectron2")}
    plain["data"] |= {key: portable(plain["data"][key]) for key in _PATHS} | {"root": DATA_FOLDER}
    return Project.model_validate(plain)


def portable_config(cfg: CfgNode) -> CfgNode:
    """A copy of a config whose absolute paths are their last names."""
    return CfgNode(portable(_plain(cfg)))


def portable(value: Any) -> Any:
    """A value of JSON or YAML, with the last names of absolute paths, and URLs without users and queries."""
    if isinstance(value, dict):
        return {key: portable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(portable(one) for one in value)
    return _portable_text(value) if isinstance(value, str) else value


def _portable_text(text: str) -> str:
    if "://" in text:
        address = urlsplit(text)
        return urlunsplit((address.scheme, address.netloc.rpartition("@")[2], address.path, "", ""))
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute():
            return path.name or "."
    return text


def _plain(node: Any) -> Any:
    return {key: _plain(value) for key, value in node.items()} if isinstance(node, CfgNode) else node
