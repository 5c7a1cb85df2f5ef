"""The two files of exact versions against the bounds in pyproject.toml."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = {
    canonicalize_name(requirement.name): requirement.specifier
    for requirement in map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["samples"])
}


def versions(file: str) -> dict[str, Version]:
    lines = (ROOT / file).read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize("file", ["constraints-oldest.txt", "constraints-tested.txt"])
def test_versions_lie_within_the_bounds(file):
    found = versions(file)
    assert found.keys() & NEEDED.keys()
    for name in found.keys() & NEEDED.keys():
        assert NEEDED[name].contains(found[name]), name


def test_nothing_that_is_installed_is_left_to_chance():
    assert NEEDED.keys() <= versions("constraints-tested.txt").keys()


def test_the_oldest_are_the_lower_bounds():
    lowest = {name: Version(next(b.version for b in bounds if b.operator == ">=")) for name, bounds in NEEDED.items()}
    oldest = versions("constraints-oldest.txt")
    # pyproject.toml leaves it to jax.
    del oldest["jaxlib"]
    assert oldest == {name: lowest[name] for name in oldest}
