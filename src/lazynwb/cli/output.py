"""Results: to stdout for people or programs, or to a file that is whole or absent."""

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
#: Of a row group: about how many bytes, how many elements a list is taken to have, and the most rows.
_GROUP_BYTES, _LIST_ELEMENTS, _GROUP_ROWS = 48 * 1024 * 1024, 4096, 262_144


class Target(NamedTuple):
    """Where a result goes: the form, and the file or None for stdout; a table may be vertical."""

    form: Format
    file: Path | None
    vertical: bool = False

    @property
    def for_people(self) -> bool:
        """Whether it is a table that is looked at."""
        return self.form is Format.table


def target_of(form: Format | None, output: Path | None, *, vertical: bool = False) -> Target:
    """Decide where a result goes, before anything is read.

    Raises
    ------
    UsageError
        If a binary form would go to a terminal, or the form of a file is not said.
    """
    file = None if output is None or str(output) == "-" else output
    if form is None and file is not None:
        form = _ENDINGS.get(file.suffix.lower())
        if form is None:
            endings = ", ".join(_ENDINGS)
            raise UsageError(f"cannot infer the format of {file}: use a suffix ({endings}) or --format")
    form = form or Format.table
    if form is Format.table and file is not None:
        raise UsageError("a table cannot be written to a file: use --format json, csv, parquet, ...")
    if form in _BINARY and file is None and sys.stdout.isatty():
        raise UsageError(f"{form.value} cannot be written to a terminal: use -o FILE or a pipe")
    if file is not None and file.is_dir():
        raise UsageError(f"{file} is a folder: pass the path of a file")
    if vertical and form is not Format.table:
        raise UsageError(f"--vertical cannot be combined with --format {form.value}")
    return Target(form, file, vertical)


def emit(frame: pl.DataFrame, target: Target, for_people: Callable[[], None]) -> None:
    """Show a small result to people, or write it for programs."""
    if target.for_people:
        for_people()
    else:
        write(frame.lazy(), target)


def write(frame: pl.LazyFrame, target: Target) -> None:
    """Run a query and write its rows as they come, in order, in a form for programs.

    JSON has neither NaN nor infinity: both are null there. Arrays, lists and structs are JSON text in CSV.
    """
    with _opened(target) as stream:
        _write(frame, target.form, stream)


@contextmanager
def _opened(target: Target) -> Iterator[IO[bytes]]:
    """Give what is written to: a file under another name that is renamed in the end, or stdout."""
    if target.file is None:
        sys.stdout.flush()
        if sys.stdout.isatty():
            yield cast("IO[bytes]", _Harmless(sys.stdout, as_json=target.form is not Format.csv))
            return
        pipe = _Pipe(sys.stdout.buffer)
        try:
            yield cast("IO[bytes]", pipe)
        except Exception:
            if pipe.closed_by is not None:
                raise pipe.closed_by from None
            raise
        return
    from lazynwb.errors import refusal

    temporary = target.file.with_name(f".{target.file.name}.{os.urandom(4).hex()}")
    try:
        with temporary.open("xb") as stream:
            yield stream
        temporary.replace(target.file)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        refused = refusal(error, target.file)
        if refused is not None:
            raise refused from error
        raise


def _write(frame: pl.LazyFrame, form: Format, stream: IO[bytes]) -> None:
    from lazynwb.convert.type_mapping import as_text

    if form is Format.parquet:
        frame.sink_parquet(stream, row_group_size=_group_rows(frame))
    elif form is Format.arrow:
        frame.sink_ipc(stream, record_batch_size=_group_rows(frame))
    elif form is Format.csv:
        as_text(frame, frame.collect_schema()).sink_csv(stream)
    elif form is Format.ndjson:
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
    """Return how many rows are held until they are written together."""
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
    """Passes bytes on to stdout; remembers whether nobody reads any more, which Polars would tell otherwise.

    Parameters
    ----------
    stream : binary stream

    Attributes
    ----------
    closed_by : BrokenPipeError or None
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.closed_by: BrokenPipeError | None = None

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, data: object) -> int:
        """Write all of some bytes."""
        given = cast("bytes", data)
        try:
            self._stream.write(given)
        except BrokenPipeError as error:
            self.closed_by = error
            raise
        return len(given)

    def flush(self) -> None:
        """Hand on what was written."""
        if not (self.closed or self._stream.closed):  # Python 3.14 says so where a finalizer raises
            try:
                self._stream.flush()
            except BrokenPipeError as error:
                self.closed_by = error
                raise


class _Harmless(io.RawIOBase):
    """Passes text on to a terminal, with what could steer it made visible.

    Parameters
    ----------
    terminal : text stream
    as_json : bool
        Write such characters as JSON does, so that the text stays the same JSON.
    """

    def __init__(self, terminal: IO[str], *, as_json: bool) -> None:
        import codecs

        self._terminal = terminal
        self._shown = _as_json if as_json else escaped
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, data: object) -> int:
        """Write bytes of UTF-8, of which a character may come in two parts."""
        given = bytes(cast("bytes", data))
        text = self._decoder.decode(given)
        if not text.isprintable():
            text = "".join(c if c.isprintable() or c == "\n" else self._shown(c) for c in text)
        self._terminal.write(text)
        return len(given)

    def flush(self) -> None:
        """Hand on what was written."""
        if not self.closed:
            self._terminal.flush()


def _as_json(character: str) -> str:
    return json.dumps(character)[1:-1]


@contextmanager
def harmless_stdout() -> Iterator[None]:
    """Make what is printed within harmless to a terminal."""
    if not sys.stdout.isatty():
        yield
        return
    kept = sys.stdout
    sys.stdout = io.TextIOWrapper(
        cast("IO[bytes]", _Harmless(kept, as_json=False)), "utf-8", "backslashreplace", line_buffering=True
    )
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = kept
