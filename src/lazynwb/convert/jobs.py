"""Jobs of a conversion: one per output, with a fingerprint of everything that the output depends on."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
from polars import selectors

from lazynwb.arrays.size_estimates import max_table_bytes
from lazynwb.catalog.dtypes import NWB_PATH, TABLE_INDEX, instance
from lazynwb.convert.manifest import SCHEMA
from lazynwb.convert.output_names import distinct_names, file_stem, names_of, partition_names
from lazynwb.convert.table_selection import partition_column
from lazynwb.errors import LazyNWBError
from lazynwb.scan import scan_nwb

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lazynwb.convert.table_selection import Request, Table
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source

#: Maximum and minimum number of rows of a row group or record batch.
_MAX_ROWS, _MIN_ROWS = 262_144, 16
#: Maximum excess of a row group over the requested size, in the file with the largest rows.
_SKEW = 8
#: Number of sampled rows for the size of text, and rows up to which tables are not sampled.
_SAMPLE, _FEW = 64, 4096
#: Size of the provenance columns of a row in bytes.
_PROVENANCE_BYTES = 32


@dataclass(frozen=True)
class Job:
    """One output of a conversion.

    Attributes
    ----------
    key : str
        Key in the result.
    table : Table
        Table to convert.
    files : tuple of TableFile
        Files whose rows the output contains.
    target : PurePosixPath
        Path in the output folder, without a suffix.
    folder : str
        Folder of the dataset that the output is a part of; empty if there is none.
    """

    key: str
    table: Table
    files: tuple[TableFile, ...]
    target: PurePosixPath
    folder: str = ""

    @property
    def label(self) -> str:
        """The table and its files, for messages."""
        first = self.files[0].name
        return f"{self.table.label} of {first}" + (
            f" and {len(self.files) - 1} more files" if len(self.files) > 1 else ""
        )

    @property
    def rows(self) -> int:
        """The number of rows of all files."""
        return sum(file.table.rows for file in self.files)

    @property
    def frame(self) -> pl.LazyFrame:
        """The rows of the files in their order."""
        if len(self.files) == len(self.table.files):
            return self.table.frame
        return self.table.frame.filter(pl.col(NWB_PATH).is_in([file.source.path for file in self.files]))

    @cached_property
    def sources(self) -> dict[str, str]:
        """The identities of the files by their paths without secrets."""
        return {path_in_manifest(file.source): identity_of(file) for file in self.files}

    def fingerprint(self, options: Sequence[Any]) -> str:
        """Return a string that changes whenever the output may change."""
        schema = [(name, repr(dtype)) for name, dtype in self.table.schema.items()]
        described = [SCHEMA, self.table.path, schema, list(self.sources.items()), list(options)]
        return hashlib.blake2b(msgspec.json.encode(described), digest_size=16).hexdigest()

    def group_rows(self, size: int) -> int:
        """Return the number of rows of a row group with approximately this size in bytes."""
        names = [name for name in self.table.schema if name != NWB_PATH]
        text = self._text_bytes()
        sizes = [
            (max_table_bytes(file, names) + (_PROVENANCE_BYTES + text) * file.table.rows, file.table.rows)
            for file in self.files
            if file.table.rows
        ]
        if not sizes:
            return _MAX_ROWS
        mean = sum(total for total, _ in sizes) / sum(rows for _, rows in sizes)
        largest = max(total / rows for total, rows in sizes)
        return int(min(max(size / max(mean, largest / _SKEW), _MIN_ROWS), _MAX_ROWS))

    def _text_bytes(self) -> float:
        """Return the mean size of text per row in bytes, from a sample of rows."""
        file = max(self.files, key=lambda file: file.table.rows)
        rows = file.table.rows
        names = [
            name for name, dtype in self.table.schema.items() if _has_text(dtype) and name in file.columns
        ]
        if not names or rows <= _FEW:
            return 0.0
        frame = scan_nwb(file.source, self.table.path, disable_progress=True)
        with suppress(LazyNWBError):  # the conversion raises the error
            some = frame.filter(pl.col(TABLE_INDEX) % (rows // _SAMPLE) == 0).select(
                selectors.by_name(*names)
            )
            sample = some.collect()
            return float(sample.estimated_size()) / max(sample.height, 1)
        return 0.0


def _has_text(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(_has_text(instance(field.dtype)) for field in dtype.fields)
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else None
    return _has_text(instance(inner)) if inner is not None else dtype == pl.String()


def path_in_manifest(source: Source) -> str:
    """Return the path of a file in the manifest: without secrets, on one line."""
    return source.key.rstrip("\0").replace("\0", "#")


def identity_of(file: TableFile) -> str:
    """Return a string that changes whenever a file or the target of one of its links is written to."""
    if not file.table.depends:
        return file.identity
    linked = hashlib.blake2b(repr(file.table.depends).encode("utf-8", "surrogatepass"), digest_size=8)
    return f"{file.identity}+{linked.hexdigest()}"


def plan(tables: Iterable[Table], sources: Sequence[Source], request: Request) -> list[Job]:
    """Return the jobs of a conversion, one per session if the layout separates sessions."""
    if request.layout == "table":
        return [Job(t.label, t, t.files, PurePosixPath(t.name)) for t in tables]
    tables = list(tables)
    files_by_table = {t.path: {file.source: file for file in t.files} for t in tables}
    kind = "subject" if request.layout == "subject" else "session"
    values = names_of(sources, kind, disable_progress=request.disable_progress)
    jobs = []
    if request.layout == "subdirectories":
        folders = distinct_names({path: value or "_" for path, value in values.items()})
    else:
        stems = distinct_names({source.path: file_stem(source.name) for source in sources})
        steps = {t.path: partition_names(partition_column(t.schema, kind), values.values()) for t in tables}
    for source in sources:
        for t in tables:
            file = files_by_table[t.path].get(source)
            if file is None:
                continue
            if request.layout == "subdirectories":
                folder = folders[source.path]
                jobs.append(Job(f"{folder}{t.label}", t, (file,), PurePosixPath(folder, t.name)))
            else:
                target = PurePosixPath(t.name, steps[t.path][values[source.path]], stems[source.path])
                jobs.append(Job(t.label, t, (file,), target, t.name))
    return jobs
