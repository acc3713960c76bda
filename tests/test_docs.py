"""The Python of the README and of the documentation runs as it stands there, page by page.

A block that cannot run here has a comment right above it: `<!-- not run: why -->`. What a page prints is not
compared. Each page finds the demonstration's cube in a folder `data`.
"""

import re
import textwrap
from pathlib import Path

import pytest

from lazynwb.demo import write_cube

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"^(?P<why><!-- not run: [^\n]+ -->\n+)?(?P<indent> *)```python\n(?P<code>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)
_SKIPPED = re.compile(r"^<!-- not run: .+ -->$", re.MULTILINE)


def blocks(page):
    """Return the line number and the code of each block that runs."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start("code")) + 1, textwrap.dedent(found["code"]))
        for found in _BLOCK.finditer(text)
        if not found["why"]
    ]


WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.fixture(scope="module")
def cube_folder(tmp_path_factory):
    """A folder with the cube's sessions in `data`."""
    folder = tmp_path_factory.mktemp("docs")
    write_cube(folder / "data", 10, 60)
    return folder


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_code_of_a_page_runs(page, cube_folder, monkeypatch):
    monkeypatch.chdir(cube_folder)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = {"__name__": "__main__"}
    for line, code in blocks(page):
        # Padded, so that a traceback names the line of the page.
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)  # noqa: S102 - our own pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_block_that_is_left_out_stands_below_its_reason(page):
    text = page.read_text(encoding="utf-8")
    assert len(_SKIPPED.findall(text)) == sum(bool(found["why"]) for found in _BLOCK.finditer(text))


def test_pages_of_a_navigation_exist():
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:])
