"""Output of results: as a table on stdout, or in a format for programs, on stdout or in an atomic file."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from lazynwb.cli.base import UsageError
from lazynwb.cli.options import Format
from lazynwb.terminal_text import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import polars as pl

_ENDINGS = {
    ".json": Format.json,
    ".ndjson": Format.ndjson,
    ".jsonl": Format.ndjson,
    ".csv": Format.csv,
    ".parquet": Format.parquet,
    ".arrow": Format.arrow,
    ".feather": Format.arrow,
    ".ipc": Format.arrow,
}
_BINARY = {Format.parquet, Format.arrow}
#: Approximate bytes of a row group, assumed elements of a list, and maximum rows of a row group.
_GROUP_BYTES, _LIST_ELEMENTS, _GROUP_ROWS = 48 * 1024 * 1024, 4096, 262_144


class Target(NamedTuple):
    """Format and destination of a result: a file, or None for stdout; a table may be vertical."""

    output_format: Format
    file: Path | None
    vertical: bool = False

    @property
    def is_table(self) -> bool:
        """Whether the result is printed as a table."""
        return self.output_format is Format.table


def target_of(output_format: Format | None, output: Path | None, *, vertical: bool = False) -> Target:
    """Return the target that options describe, before anything is read.

    Raises
    ------
    UsageError
        If a binary format would go to a terminal, or the format of a file is unknown.
    FileNotFoundError
        If the folder of the file does not exist.
    """
    file = None if output is None or str(output) == "-" else output
    if file is not None and not file.parent.is_dir():
        raise FileNotFoundError(
            f"the folder {file.parent} does not exist: create it before writing {file.name}"
        )
    if output_format is None and file is not None:
        output_format = _ENDINGS.get(file.suffix.lower())
        if output_format is None:
            endings = ", ".join(_ENDINGS)
            raise UsageError(f"cannot infer the format of {file}: use a suffix ({endings}) or --format")
    output_format = output_format or Format.table
    if output_format is Format.table and file is not None:
        raise UsageError("a table cannot be written to a file: use --format json, csv, parquet, ...")
    if output_format in _BINARY and file is None and sys.stdout.isatty():
        raise UsageError(f"{output_format.value} cannot be written to a terminal: use -o FILE or a pipe")
    if file is not None and file.is_dir():
        raise UsageError(f"{file} is a folder: pass the path of a file")
    if vertical and output_format is not Format.table:
        raise UsageError(f"--vertical cannot be combined with --format {output_format.value}")
    return Target(output_format, file, vertical)


def emit(frame: pl.DataFrame, target: Target, show: Callable[[], None]) -> None:
    """Print a small result as a table by `show`, or write it in a format for programs."""
    if target.is_table:
        show()
    else:
        write(frame.lazy(), target)


def write(frame: pl.LazyFrame, target: Target) -> None:
    """Run a query and write its rows in batches, in order, in a format for programs.

    NaN and infinity are null in JSON. Arrays, lists and structs are JSON text in CSV.
    """
    with _opened(target) as stream:
        _write(frame, target.output_format, stream)


@contextmanager
def _opened(target: Target) -> Iterator[IO[bytes]]:
    """Open the destination: stdout, or a temporary file that replaces the output file at the end."""
    if target.file is None:
        sys.stdout.flush()
        if sys.stdout.isatty():
            yield cast(
                "IO[bytes]", _TerminalStream(sys.stdout, as_json=target.output_format is not Format.csv)
            )
            return
        pipe = _Pipe(sys.stdout.buffer)
        try:
            yield cast("IO[bytes]", pipe)
        except Exception:
            if pipe.closed_by is not None:
                raise pipe.closed_by from None
            raise
        return
    from lazynwb.errors import system_error

    temporary = target.file.with_name(f".{target.file.name}.{os.urandom(4).hex()}")
    try:
        with temporary.open("xb") as stream:
            yield stream
        temporary.replace(target.file)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        refused = system_error(error, target.file)
        if refused is not None:
            raise refused from error
        raise


def _write(frame: pl.LazyFrame, output_format: Format, stream: IO[bytes]) -> None:
    from lazynwb.convert.type_mapping import as_text

    if output_format is Format.parquet:
        frame.sink_parquet(stream, row_group_size=_group_rows(frame))
    elif output_format is Format.arrow:
        frame.sink_ipc(stream, record_batch_size=_group_rows(frame))
    elif output_format is Format.csv:
        as_text(frame, frame.collect_schema()).sink_csv(stream)
    elif output_format is Format.ndjson:
        frame.sink_ndjson(stream)
    else:
        _write_json(frame, stream)


def _write_json(frame: pl.LazyFrame, stream: IO[bytes]) -> None:
    before = b"["
    for batch in frame.collect_batches(maintain_order=True):
        if batch.height:
            stream.write(before + batch.write_json().encode()[1:-1])
            before = b",\n"
    stream.write(b"[]\n" if before == b"[" else b"]\n")


def _group_rows(frame: pl.LazyFrame) -> int:
    """Return the number of rows of a row group or record batch."""
    row = sum(_bytes_of(dtype) for dtype in frame.collect_schema().dtypes())
    return max(min(_GROUP_BYTES // max(row, 1), _GROUP_ROWS), 1)


def _bytes_of(dtype: pl.DataType) -> int:
    import polars as pl

    if isinstance(dtype, pl.Array):
        return dtype.size * _bytes_of(cast("pl.DataType", dtype.inner))
    if isinstance(dtype, pl.List):
        return _LIST_ELEMENTS * _bytes_of(cast("pl.DataType", dtype.inner))
    if isinstance(dtype, pl.Struct):
        return sum(_bytes_of(cast("pl.DataType", field.dtype)) for field in dtype.fields)
    return 8


class _Pipe(io.RawIOBase):
    """A binary stream to stdout that records whether the pipe was closed, which Polars reports differently.

    Attributes
    ----------
    closed_by : BrokenPipeError or None
        The error of the first write to a closed pipe.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.closed_by: BrokenPipeError | None = None

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: object) -> int:
        """Write bytes, and return their number."""
        content = cast("bytes", data)
        try:
            self._stream.write(content)
        except BrokenPipeError as error:
            self.closed_by = error
            raise
        return len(content)

    def flush(self) -> None:
        """Flush stdout."""
        if not (self.closed or self._stream.closed):  # Python 3.14 reports errors of finalizers
            try:
                self._stream.flush()
            except BrokenPipeError as error:
                self.closed_by = error
                raise


class _TerminalStream(io.RawIOBase):
    """A binary stream to a terminal that escapes control characters.

    Parameters
    ----------
    terminal : text stream
        The terminal.
    as_json : bool
        Whether to escape as in JSON, so that the text remains the same JSON.
    """

    def __init__(self, terminal: IO[str], *, as_json: bool) -> None:
        import codecs

        self._terminal = terminal
        self._shown = _as_json if as_json else escaped
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: object) -> int:
        """Write UTF-8; a character may be divided between two calls."""
        content = bytes(cast("bytes", data))
        text = self._decoder.decode(content)
        if not text.isprintable():
            text = "".join(c if c.isprintable() or c == "\n" else self._shown(c) for c in text)
        self._terminal.write(text)
        return len(content)

    def flush(self) -> None:
        """Flush the terminal."""
        if not self.closed:
            self._terminal.flush()


def _as_json(character: str) -> str:
    return json.dumps(character)[1:-1]


@contextmanager
def escaped_stdout() -> Iterator[None]:
    """Escape control characters of everything that is printed to a terminal in the `with` block."""
    if not sys.stdout.isatty():
        yield
        return
    terminal = sys.stdout
    sys.stdout = io.TextIOWrapper(
        cast("IO[bytes]", _TerminalStream(terminal, as_json=False)),
        "utf-8",
        "backslashreplace",
        line_buffering=True,
    )
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = terminal
