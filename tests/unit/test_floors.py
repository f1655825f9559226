"""No version that our dependencies' floors let in has a flaw that is known, as of 2026-11-29."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
# The first version without each.
MENDED = {
    "fastapi": {"CVE-2024-24762": "0.109.1"},
    "h11": {"CVE-2025-43859": "0.16.0"},
    "jinja2": {"CVE-2024-56201": "3.1.5", "CVE-2025-27516": "3.1.6"},
    "pydantic": {"CVE-2024-3772": "2.4.0"},
    "pyyaml": {"CVE-2020-14343": "5.4"},
    "ray": {"CVE-2025-62593": "2.52.0"},
    "starlette": {"CVE-2024-47874": "0.40.0", "CVE-2025-54121": "0.47.2", "CVE-2025-62727": "0.49.1"},
    "torch": {"CVE-2025-32434": "2.6.0"},
}


def floors() -> dict[str, Version]:
    """By name; of everything that someone is made to install."""
    extras = PROJECT["optional-dependencies"]
    found = [*PROJECT["dependencies"], *(line for name, lines in extras.items() if name != "dev" for line in lines)]
    requirements = [Requirement(line) for line in found]
    return {
        one.name.lower(): Version(next(part.version for part in one.specifier if part.operator == ">="))
        for one in requirements
    }


@pytest.mark.parametrize("name", MENDED)
def test_a_floor_is_above_what_is_known_to_be_broken(name):
    found = floors()
    assert name in found, "a library that others bring along needs a floor of its own"
    for flaw, first in MENDED[name].items():
        assert found[name] >= Version(first), flaw


@pytest.mark.parametrize("name", sorted({*MENDED} - {"ray"}))
def test_what_is_installed_is_above_the_floor(name):
    assert Version(version(name)) >= floors()[name]
