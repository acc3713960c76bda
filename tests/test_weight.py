"""The size of a plain installation, as stated in the README."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
_STATED = re.compile(r"A plain installation has (\d+) packages with (\d+) MB")


def closure(requirements):
    """The installed distributions that requirements without extras bring, by name."""
    requirement = pytest.importorskip("packaging.requirements").Requirement
    found, left = {}, list(requirements)
    while left:
        one = requirement(left.pop())
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            left += found[name].requires or []
    return found


def megabytes(distribution):
    if distribution.files is None:
        pytest.skip(f"{distribution.metadata['Name']} was installed without a list of its files")
    sizes = [path.stat().st_size for file in distribution.files if (path := Path(file.locate())).is_file()]
    return sum(sizes) / 1e6


def test_the_readme_states_packages_and_megabytes_of_a_plain_installation():
    project = tomllib.loads(README.with_name("pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        found = closure(project["dependencies"])
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"a dependency is not installed as a distribution: {error}")
    stated = _STATED.search(README.read_text(encoding="utf-8"))
    assert stated is not None
    assert abs(len(found) - int(stated[1])) <= 2, sorted(found)
    # Wheels differ between platforms.
    assert sum(map(megabytes, found.values())) == pytest.approx(int(stated[2]), rel=0.3)
