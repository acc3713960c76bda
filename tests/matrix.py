"""The test suite on other versions of Python, dependencies and test dependencies.

::

    python tests/matrix.py                                         # every row
    python tests/matrix.py --only lowest zarr2                     # some of them
    python tests/matrix.py --only newest --python /opt/python3.14/bin/python3 -- -k ragged

makes an environment per row, runs the whole suite in it, and prints one line per row: versions, and how many
tests passed, failed and were skipped. It ends with 1 if any failed or a row was not run to its end. uv is
used where it is installed, else venv and pip. Interpreters are those that are installed: none is fetched.
Environments and logs are left in the folder that `--folder` names.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("polars", "numpy", "h5py", "zarr")
LOOK = """
import json, sys, sysconfig
version = sys.version_info
final = version.releaselevel == "final"
print(json.dumps([*version[:3], bool(sysconfig.get_config_var("Py_GIL_DISABLED")), final]))
"""
VERSIONS = """
import importlib.metadata, platform, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "-"
print(platform.python_version(), *map(version, sys.argv[1:]))
"""
#: What is declared lower than the oldest pynwb that the tests can do with allows.
RAISED = {"platformdirs": "4.2.2"}


@dataclass(frozen=True)
class Interpreter:
    """A Python that is installed."""

    path: str
    version: tuple[int, int, int]
    free_threaded: bool


@dataclass(frozen=True)
class Row:
    """A kind of environment."""

    name: str
    about: str
    newest: bool = True  # the newest Python, else the oldest that is supported
    free_threaded: bool = False
    lowest: bool = False  # versions as low as is declared, else as high as there are
    also: tuple[str, ...] = ()


ROWS = (
    Row("lowest", "the lowest versions that are declared", newest=False, lowest=True),
    Row("newest", "the newest versions of everything"),
    Row("zarr2", "beside zarr 2", newest=False, also=("zarr<3", "hdmf-zarr==0.13.*", "numcodecs<0.16")),
    Row("zarr3", "beside zarr 3", also=("zarr>=3", "hdmf-zarr>=0.14")),
    Row("free-threaded", "without the global interpreter lock", free_threaded=True),
)


@dataclass(frozen=True)
class Result:
    """Result of one row."""

    row: Row
    versions: list[str]
    counts: dict[str, int]
    failures: list[str]
    trouble: str = ""  # why there is no more


class NotPossibleError(Exception):
    """A row cannot be run; the message gives the reason."""


def interpreters() -> list[Interpreter]:
    """Return the Python interpreters on `PATH`, of pyenv and uv, and this one; oldest first."""
    names = [f"python3.{minor}{mark}" for minor in range(11, 30) for mark in ("", "t")]
    paths = {sys.executable, *filter(None, map(shutil.which, names))}
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    paths.update(str(path) for path in versions.glob("3.*/bin/python"))
    if uv := shutil.which("uv"):
        command = [uv, "python", "list", "--only-installed", "--output-format", "json"]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
        paths.update(entry["path"] for entry in json.loads(listed.stdout or "[]"))
    return sorted(filter(None, map(look, sorted(paths))), key=lambda one: one.version)


def look(path: str) -> Interpreter | None:
    """Return the version of an interpreter; None for broken shims and previews."""
    try:
        told = subprocess.run([path, "-c", LOOK], capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    *version, free_threaded, final = json.loads(told.stdout)
    return Interpreter(path, tuple(version), free_threaded) if final else None


def choose(row: Row, found: Sequence[Interpreter], declared: tuple[int, ...]) -> Interpreter:
    """Return the interpreter for a row."""
    fit = [one for one in found if one.version[:2] >= declared and one.free_threaded == row.free_threaded]
    if not row.newest:
        fit = [one for one in fit if one.version[:2] == declared]
    if not fit:
        message = "no such Python is installed"
        raise NotPossibleError(message)
    return fit[-1]


def lowest(project: dict) -> list[str]:
    """Return constraints with the lowest declared version of each dependency."""
    extras = project["optional-dependencies"]
    named = [*project["dependencies"]]
    named += [one for name, extra in extras.items() if name not in {"docs", "dev"} for one in extra]
    bounds = (re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", one) for one in named)
    lows = {match[1]: match[2] for match in bounds if match} | RAISED
    return [f"{name}=={version}" for name, version in sorted(lows.items())]


def install(row: Row, python: Interpreter, folder: Path, project: dict) -> str:
    """Make a row's environment; return its interpreter."""
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "env"
    inside = str(made / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    wanted = ["--only-binary", ":all:", "--no-binary", "lazynwb", "--editable", f"{ROOT}[test]", *row.also]
    if row.lowest:
        (folder / "lowest.txt").write_text("\n".join(lowest(project)))
        wanted += ["--constraint", str(folder / "lowest.txt")]
    if uv := shutil.which("uv"):
        commands = [
            [uv, "venv", "--quiet", "--clear", "--python", python.path, str(made)],
            [uv, "pip", "install", "--quiet", "--python", inside, *wanted],
        ]
    else:
        commands = [
            [python.path, "-m", "venv", "--clear", str(made)],
            [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted],
        ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
        if done.returncode:
            (folder / "install.log").write_text(done.stderr)
            message = f"cannot be installed: {' '.join(done.stderr.split())[:300]}"
            raise NotPossibleError(message)
    return inside


def run(row: Row, found: Sequence[Interpreter], folder: Path, options: argparse.Namespace) -> Result:
    """Run the suite in a row's environment."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = tuple(map(int, re.findall(r"\d+", project["requires-python"])))
    versions: list[str] = []
    try:
        python = install(row, choose(row, found, declared), folder, project)
        asked = subprocess.run([python, "-c", VERSIONS, *SHOWN], capture_output=True, text=True, check=True)  # noqa: S603
        versions = asked.stdout.split()
        report = folder / "report.xml"
        report.unlink(missing_ok=True)
        options_of_pytest = [
            "-p",
            "no:cacheprovider",
            f"--junit-xml={report}",
            "-n",
            options.jobs,
            *options.pytest,
        ]
        is_done = run_suite(
            [python, "-m", "pytest", *options_of_pytest], folder / "test.log", options.timeout
        )
        trouble = "" if is_done else f"not done after {options.timeout:.0f} s"
        return Result(row, versions, *read(report), trouble)
    except NotPossibleError as reason:
        return Result(row, versions, {}, [], str(reason))


def run_suite(command: list[str], log: Path, seconds: float) -> bool:
    """Run pytest; return whether it finished, and report its progress if not."""
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT)  # noqa: S603 - ours
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            return False
    return True


def read(report: Path) -> tuple[dict[str, int], list[str]]:
    """Return how many tests passed, failed and were skipped, and which failed."""
    if not report.exists():
        message = f"the suite did not start, or did not end: see {report.with_name('test.log')}"
        raise NotPossibleError(message)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures = []
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it just now
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
            failures.append(f"{case.get('classname')}::{case.get('name')}")
        else:
            counts["passed" if case.find("skipped") is None else "skipped"] += 1
    return counts, failures


def table(results: Sequence[Result]) -> str:
    """Return a table of rows, and below it what failed or could not be run."""
    kinds = ("passed", "failed", "skipped")
    lines = [["row", "Python", *SHOWN, *kinds]]
    for one in results:
        versions = [told for told, _ in zip_longest(one.versions, lines[0][1:-3], fillvalue="-")]
        lines.append([one.row.name, *versions, *(str(one.counts.get(kind, "-")) for kind in kinds)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    text += [f"{one.row.name}: {one.trouble}" for one in results if one.trouble]
    text += [f"{one.row.name}: failed: {name}" for one in results for name in one.failures]
    return "\n".join(text) + "\n"


def main() -> int:
    """Run the rows that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], help="these rows")
    parser.add_argument("--python", help="the interpreter of the rows, instead of those that are found")
    parser.add_argument("--folder", type=Path, help="where environments and logs are left")
    parser.add_argument("--jobs", default="2", help="how many tests at a time")
    parser.add_argument("--timeout", type=float, default=2400, help="seconds for the suite of a row")
    parser.add_argument("pytest", nargs="*", help="after --: further options of pytest")
    options = parser.parse_args()
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    found = [one for one in [look(options.python)] if one] if options.python else interpreters()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        results = []
        for row in rows:
            sys.stderr.write(f"{row.name}: {row.about}\n")
            results.append(run(row, found, (folder / row.name).resolve(), options))
    sys.stdout.write(table(results))
    return 1 if any(one.failures or one.trouble for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
