"""The Python code of the README and of the documentation runs as printed, page by page."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_SKIPPED = re.compile(r"^<!-- not run: .+ -->$", re.MULTILINE)

_spec = importlib.util.spec_from_file_location("docs_examples", ROOT / "scripts" / "docs_examples.py")
examples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(examples)


def text_of(page):
    return page.read_text(encoding="utf-8")


def names(page):
    return page.relative_to(ROOT).as_posix()


WITH_CODE = [page for page in PAGES if any(block.runs for block in examples.blocks(text_of(page)))]


@pytest.fixture
def example_folder():
    with examples.example_folder() as folder:
        yield folder


@pytest.mark.parametrize("page", WITH_CODE, ids=names)
def test_the_examples_of_a_page_run(page, example_folder, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    examples.with_output(text_of(page), names(page))


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_a_block_that_is_not_run_stands_below_its_reason(page):
    text = text_of(page)
    assert len(_SKIPPED.findall(text)) == sum(not block.runs for block in examples.blocks(text))


def test_output_follows_its_example():
    page = 'a\n\n```python\nprint("printed")\n1 + 1\n```\n\nb\n'
    shown = examples.with_output(page, "page")
    assert shown.index("print(") < shown.index("\nprinted\n") < shown.index("\n2\n") < shown.index("b\n")


def test_output_shows_a_neutral_path_for_the_folder_of_the_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (
        '```python\nimport pathlib\nimport polars as pl\npath = str(pathlib.Path("data/a.nwb").absolute())\n'
        'print(path)\npl.DataFrame({"_nwb_path": [path]})\n```\n'
    )
    shown = examples.with_output(page, "page")
    assert str(tmp_path) not in shown
    assert shown.count("/study/data/a.nwb") == 2
    widths = {len(line) for line in shown.splitlines() if line[:1] in {"│", "┌", "└"}}
    assert len(widths) == 1


def test_a_failing_example_stops_the_build():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        examples.with_output("```python\n1 / 0\n```\n", "page")


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:])
