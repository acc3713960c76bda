"""MkDocs hook: run the examples of a page and show their output below them.

Every `python` block of a page runs in one namespace, as the cells of a notebook do, in a folder that holds a
small cube of sessions in `data`; output shows the path of that folder as `/study`. Below a block follow the
text that it printed or logged, the value of its last expression, and its figures. On a page with the comment
`<!-- show what is read -->`, the cost of each block's queries follows its output.

The commands of a `console` block (lines that start with `$ lazynwb`, continued on lines that start with `> `)
run on a terminal of 120 columns in the same folder. Below a comment `<!-- exit code: 3 -->` they must fail
with that code. A block below a comment `<!-- not run: reason -->` is shown only.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import html
import io
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynwb.profile import Profile

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(
    r"^(?P<why><!-- not run: [^\n]+ -->\n+)?(?P<indent> *)```python[^\n]*\n(?P<code>.*?)^ *```\n",
    re.MULTILINE | re.DOTALL,
)
_CONSOLE = re.compile(
    r"^(?P<why><!-- not run: [^\n]+ -->\n+)?(?P<fails><!-- exit code: (?P<code>\d+) -->\n+)?"
    r"```console\n(?P<body>.*?)^```\n",
    re.MULTILINE | re.DOTALL,
)
#: Width of the terminal of `console` blocks.
_COLUMNS = 120
#: Runs several commands in one process, and writes the exit code after the output of each.
_COMMANDS = """
import json, logging, sys
from lazynwb.cli import main
for arguments in json.loads(sys.argv[1]):
    code = main(arguments)
    logging.getLogger("lazynwb").handlers.clear()
    print(f"--- exit code {code}", flush=True)
"""
#: Characters of a value that are shown as they are; longer ones are cut.
_LONGEST = 6000
#: The path of the examples' folder, as pages show it: each build has a temporary folder of its own.
SHOWN_FOLDER = "/study"


class Block(NamedTuple):
    """A Python block of a page.

    Attributes
    ----------
    line : int
        Of its first line of code.
    code : str
    indent : str
    end : int
        Position in the page's text behind the block.
    runs : bool
    """

    line: int
    code: str
    indent: str
    end: int
    runs: bool


def blocks(text: str) -> list[Block]:
    """Return the Python blocks of a page in order."""
    return [
        Block(
            text.count("\n", 0, found.start("code")) + 1,
            textwrap.dedent(found["code"]),
            found["indent"],
            found.end(),
            not found["why"],
        )
        for found in _BLOCK.finditer(text)
    ]


class Example:
    """The namespace in which the blocks of one page run.

    Parameters
    ----------
    page : str
        Its name, for tracebacks.
    measured : bool
        Show what each block read.
    """

    def __init__(self, page: str, *, measured: bool = False) -> None:
        self._page = page
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._measured = measured

    def run(self, block: Block) -> Iterator[str]:
        """Run a block and yield Markdown for what it shows."""
        import lazynwb

        with lazynwb.profile() as cost:
            yield from self._outputs(block)
        if self._measured and any(cost.amounts().values()):
            yield f'\n{block.indent}<p class="example-cost">{_described(cost)}</p>\n'

    def _outputs(self, block: Block) -> Iterator[str]:
        padded = "\n" * (block.line - 1) + block.code
        tree = ast.parse(padded, self._page)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        printed = io.StringIO()
        handler = logging.StreamHandler(printed)
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger = logging.getLogger("lazynwb")
        logger.addHandler(handler)
        value = None
        try:
            with (
                contextlib.redirect_stdout(printed),
                contextlib.redirect_stderr(printed),
            ):
                exec(compile(tree, self._page, "exec"), self._names)  # noqa: S102 - pages of this project
                if last is not None:
                    code = compile(ast.Expression(last.value), self._page, "eval")  # type: ignore[attr-defined]
                    value = eval(code, self._names)  # noqa: S307 - pages of this project
        finally:
            logger.removeHandler(handler)
        if printed.getvalue().strip():
            yield _fenced(printed.getvalue(), block.indent)
        if value is not None:
            yield _shown(value, block.indent)
        yield from _figures(block.indent)


def _described(cost: Profile) -> str:
    """Return what was read in words."""
    from lazynwb.cli.render import size_text

    whole = sum(file.stat().st_size for file in Path("data").rglob("*.nwb"))
    if not cost.bytes_read:
        read = "Reads no data"
    else:
        read = f"Reads {size_text(cost.bytes_read)} of {size_text(whole)} in {cost.requests:,} requests"
    parts = [read]
    if cost.chunks_decoded:
        parts.append(f"decodes {cost.chunks_decoded:,} chunks")
    if cost.files_skipped:
        parts.append(f"skips {cost.files_skipped} files")
    return "; ".join(parts) + "."


@contextlib.contextmanager
def _cold_columns() -> Iterator[None]:
    """Cache the structure of the files in `data`, but no columns: queries cost the same in any order."""
    import lazynwb

    before = lazynwb.config.column_cache_bytes
    lazynwb.config.column_cache_bytes = 0
    try:
        for table in lazynwb.get_sql_context("data").tables():
            lazynwb.get_table_schema("data", table)
        yield
    finally:
        lazynwb.config.column_cache_bytes = before


def _fenced(text: str, indent: str) -> str:
    lines = _neutral(text).rstrip().replace("```", "'''")
    if len(lines) > _LONGEST:
        lines = lines[:_LONGEST].rpartition("\n")[0] + "\n…"
    return textwrap.indent(f"```text {{.example-output}}\n{lines}\n```\n", indent)


def _neutral(text: str) -> str:
    return text.replace(str(Path.cwd()), SHOWN_FOLDER)


def _shown(value: object, indent: str) -> str:
    """Return a value as a notebook would show it: HTML where it has some of its own, else its text."""
    as_html = getattr(value, "_repr_html_", None)
    if callable(as_html) and type(value).__module__.partition(".")[0] == "lazynwb":
        inner = re.sub(r"\n\s*\n", "\n", _neutral(as_html()))
        return f'\n<div class="example-output" markdown="0">{inner}</div>\n'
    return _fenced(value if isinstance(value, str) else _text(value), indent)


def _text(value: object) -> str:
    from pprint import pformat

    import polars as pl

    if isinstance(value, pl.DataFrame):  # before its columns are laid out
        return repr(
            value.with_columns(pl.col(pl.String).str.replace(str(Path.cwd()), SHOWN_FOLDER, literal=True))
        )
    if isinstance(value, pl.Schema):
        return pformat(dict(value), width=100, sort_dicts=False)
    if type(value).__repr__ in {dict.__repr__, list.__repr__, tuple.__repr__}:
        return pformat(value, width=100, compact=True, sort_dicts=False)
    return repr(value)


def _figures(indent: str) -> Iterator[str]:
    """Yield the open figures of Matplotlib as pictures, and close them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    for number in pyplot.get_fignums():
        picture = io.BytesIO()
        pyplot.figure(number).savefig(picture, format="png", dpi=110, bbox_inches="tight")
        data = base64.b64encode(picture.getvalue()).decode()
        axes = pyplot.figure(number).axes[0]
        label = html.escape(axes.get_title() or f"{axes.get_ylabel()} against {axes.get_xlabel()}")
        yield f'{indent}<img class="example-output" alt="{label}" src="data:image/png;base64,{data}">\n'
    pyplot.close("all")


def console_blocks(text: str) -> list[re.Match[str]]:
    """Return the `console` blocks of a page that are run."""
    return [found for found in _CONSOLE.finditer(text) if not found["why"]]


def _with_terminal_output(text: str) -> str:
    """Return a page's Markdown with the output of the commands of its `console` blocks.

    Raises
    ------
    RuntimeError
        If a command ends with another exit code than expected.
    """
    found = console_blocks(text)
    commands = [(block, command) for block in found for command in _commands(block["body"])]
    if not commands:
        return text
    arguments = [shlex.split(re.sub(r"\\?\n> ", " ", command))[1:] for _, command in commands]
    outputs = iter(_on_terminal(arguments))
    parts, start = [], 0
    for block in found:
        expected, shown = int(block["code"] or 0), []
        for command in _commands(block["body"]):
            output, code = next(outputs)
            if code != expected:
                raise RuntimeError(f"{command} exits with code {code} instead of {expected}:\n{output}")
            shown.append(f"$ {command}\n{_folded(_neutral(output))}")
        parts += [text[start : block.start("body")], *shown]
        start = block.end("body")
    return "".join([*parts, text[start:]])


def _folded(output: str) -> str:
    """Return output without trailing spaces, and with long lines (messages) broken between words."""
    lines = (line if len(line) <= _COLUMNS else textwrap.fill(line, _COLUMNS) for line in output.splitlines())
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _commands(body: str) -> list[str]:
    """Return the commands of a `console` block, without their prompts."""
    return [command.rstrip("\n") for command in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]]


def _on_terminal(commands: list[list[str]]) -> list[tuple[str, int]]:
    """Return the output of commands on a terminal, without colours, and their exit codes."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, _COLUMNS, 0, 0))
    process = subprocess.Popen(  # noqa: S603 - pages of this project
        [sys.executable, "-c", _COMMANDS, json.dumps(commands)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "TQDM_DISABLE": "1", "COLUMNS": str(_COLUMNS)},
    )
    os.close(theirs)
    received = b""
    with contextlib.suppress(OSError):  # raised on Linux when the other end is closed
        while data := os.read(ours, 65536):
            received += data
    os.close(ours)
    process.wait()
    text = re.sub(r"\x1b\[[0-9;]*m", "", received.decode().replace("\r\n", "\n"))
    *parts, rest = re.split(r"--- exit code (\d+)\n", text)
    if rest or len(parts) != 2 * len(commands):
        raise RuntimeError(f"a command ended the process:\n{text}")
    return list(zip(parts[::2], map(int, parts[1::2]), strict=True))


def write_data(folder: Path) -> None:
    """Write the ten sessions of the examples."""
    from lazynwb.demo import write_cube

    write_cube(folder, 10, 60)


@contextlib.contextmanager
def example_folder(data: Path | None = None) -> Iterator[Path]:
    """Change to a temporary folder with ten sessions in `data`: the examples run there.

    Parameters
    ----------
    data : Path, optional
        Folder with these sessions, which are copied; without it they are written.
    """
    folder = Path(tempfile.mkdtemp(prefix="nwb-")).resolve()
    if data is None:
        write_data(folder / "data")
    else:
        shutil.copytree(data, folder / "data")
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def with_output(text: str, page: str) -> str:
    """Return a page's Markdown with the output of its examples below them.

    Raises
    ------
    RuntimeError
        If an example fails; with its traceback.
    """
    measured = "<!-- show what is read -->" in text
    example, parts, start = Example(page, measured=measured), [], 0
    with _cold_columns() if measured else contextlib.nullcontext():
        for block in blocks(text):
            parts.append(text[start : block.end])
            start = block.end
            if block.runs:
                try:
                    parts += ["\n", *example.run(block)]
                except Exception:  # noqa: BLE001 - whatever an example raises
                    raise RuntimeError(f"an example fails:\n{traceback.format_exc()}") from None
    return _with_terminal_output("".join([*parts, text[start:]]))


class _Build:
    """The folder of the examples for as long as the site is built."""

    stack = contextlib.ExitStack()


def on_pre_build(config: object) -> None:  # noqa: ARG001 - MkDocs passes it
    """Prepare the examples' folder, and settings that do not depend on the machine."""
    import matplotlib as mpl
    import pandas as pd
    import polars as pl

    mpl.use("agg")
    pd.set_option("display.width", 118, "display.max_columns", 12)
    pl.Config.set_tbl_width_chars(118)
    pl.Config.set_fmt_str_lengths(36)
    os.environ["TQDM_DISABLE"] = "1"
    _Build.stack = contextlib.ExitStack()
    _Build.stack.enter_context(example_folder())


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:  # noqa: ANN401 - MkDocs' own
    """Run the examples of a page."""
    return with_output(markdown, page.file.src_uri)


def on_post_build(config: object) -> None:  # noqa: ARG001
    """Remove the examples' folder."""
    _Build.stack.close()
