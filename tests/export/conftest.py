"""A package of a small model, and its export as ONNX."""

from __future__ import annotations

import pytest

from d2tune.packages.read import Package
from tests.export.models import candidate_of, package_of


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return package_of(tmp_path_factory.mktemp("instance"))


@pytest.fixture(scope="session")
def onnx_package(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return candidate_of(package, tmp_path_factory.mktemp("onnx") / "model", "onnx")[0]
