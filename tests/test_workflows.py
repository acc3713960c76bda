"""The workflows of the repository: valid by the published schema, and of the versions that are declared."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="needs .github/workflows: run in a clone")


def test_workflows_are_valid():
    pytest.importorskip("check_jsonschema", reason="needs check-jsonschema: pip install check-jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, *WORKFLOWS], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_declared_version_is_tested_on_every_system():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [
        found[1]
        for name in project["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", name))
    ]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    versions = re.search(r"python: \[(.*)\]", workflow)[1]
    assert re.findall(r"3\.\d+", versions) == declared
    assert project["requires-python"] == f">={declared[0]}"
    systems = re.search(r"os: \[(.*)\]", workflow)[1]
    assert systems.split(", ") == ["ubuntu-latest", "macos-latest", "windows-latest"]


def test_commands_of_workflows_and_of_the_release_checklist_exist():
    texts = [path.read_text(encoding="utf-8") for path in [*WORKFLOWS, ROOT / "RELEASING.md"]]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {name for text in texts for name in re.findall(r"\bmake ([a-z]+)", text)}
    scripts = {name for text in texts for name in re.findall(r"tests/\w+\.py", text)}
    assert targets
    assert scripts
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    assert all((ROOT / script).is_file() for script in scripts)
