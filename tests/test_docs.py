"""The Python code and the commands of the README and of the documentation run as printed, page by page."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

import lazynwb

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


def has_examples(page):
    text = text_of(page)
    return any(block.runs for block in examples.blocks(text)) or bool(examples.console_blocks(text))


WITH_CODE = [page for page in PAGES if has_examples(page)]
terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals: run on Linux or macOS")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples") / "data"
    examples.write_data(folder)
    return folder


@pytest.fixture
def example_folder(data):
    with examples.example_folder(data) as folder:
        yield folder


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=terminal) if examples.console_blocks(text_of(page)) else page
        for page in WITH_CODE
    ],
    ids=names,
)
@pytest.mark.sample(3)
def test_the_examples_of_a_page_run(page, example_folder, monkeypatch):
    """Every third page; `make docs` runs the examples of all of them."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    examples.with_output(text_of(page), names(page))


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_a_block_that_is_not_run_has_a_reason_above_it(page):
    text = text_of(page)
    skipped = sum(not block.runs for block in examples.blocks(text))
    skipped += text.count("\n```console\n") - len(examples.console_blocks(text))
    assert len(_SKIPPED.findall(text)) == skipped


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


@terminal
def test_output_follows_its_command_which_may_have_several_lines():
    pytest.importorskip("typer")
    page = "```console\n$ lazynwb --version\n$ lazynwb \\\n>   --version\n```\n"
    version = f"lazynwb {lazynwb.__version__}"
    assert examples.with_output(page, "page") == (
        f"```console\n$ lazynwb --version\n{version}\n$ lazynwb \\\n>   --version\n{version}\n```\n"
    )


@terminal
def test_a_command_that_does_not_exit_as_expected_stops_the_build():
    pytest.importorskip("typer")
    page = "<!-- exit code: 3 -->\n```console\n$ lazynwb unknown\n```\n"
    with pytest.raises(RuntimeError, match="exits with code 2 instead of 3"):
        examples.with_output(page, "page")


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:])
