"""Profiles: what differs in a project for one kind of hardware."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2tune.errors import ProjectError
from d2tune.project.overrides import numbers


def take_profiles(raw: dict[str, Any], file: Path) -> dict[str, dict[str, Any]]:
    """Remove the profiles from a project as it was read.

    Returns:
        The sections of each profile, by its name.

    Raises:
        ProjectError: They do not map names to sections.
    """
    profiles = numbers(raw.pop("profiles", None) or {})
    if not isinstance(profiles, dict) or not all(isinstance(value, dict) for value in profiles.values()):
        raise ProjectError("profiles must map names to sections", file=file, place="profiles")
    return profiles


def choose_profile(profiles: Mapping[str, Any], wanted: str | None, hardware: str, file: Path) -> str | None:
    """Name of the profile to merge: the wanted one, else the hardware's where there is one.

    Raises:
        ProjectError: There is no profile of the wanted name.
    """
    if wanted is None:
        return hardware if hardware in profiles else None
    if wanted not in profiles:
        names = ", ".join(profiles) or "none"
        raise ProjectError(f"has no profile {wanted!r}", file=file, place="profiles", found=names)
    return wanted
