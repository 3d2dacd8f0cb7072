"""Profiles: what differs in a project for one kind of hardware."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2tune.errors import ProjectError
from d2tune.text import nearest_hint


def take_profiles(raw: dict[str, Any], file: Path) -> dict[str, dict[str, Any]]:
    """Remove the profiles from a project as it was read.

    Returns:
        The sections of each profile, by its name; a profile with nothing in it changes nothing.

    Raises:
        ProjectError: They do not map names to sections.
    """
    profiles = raw.pop("profiles", None) or {}
    if isinstance(profiles, dict):
        profiles = {name: {} if value is None else value for name, value in profiles.items()}
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
        names = ", ".join(map(str, profiles)) or "none"
        hint = nearest_hint(wanted, map(str, profiles))
        raise ProjectError(f"has no profile {wanted!r}", file=file, place="profiles", found=names, hint=hint)
    return wanted
