"""Execution of jobs: missing and outdated outputs are written under temporary names and renamed."""

from __future__ import annotations

import contextlib
import shutil
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from lazynwb.convert import databases
from lazynwb.convert.file_formats import FORMATS, Content, FileFormat, Options
from lazynwb.convert.jobs import path_in_manifest
from lazynwb.convert.manifest import Manifest, Output, remove_stale, replacing
from lazynwb.errors import LazyNWBError, may_skip, system_error
from lazynwb.lookup.loader import load_listing
from lazynwb.progress import Progress
from lazynwb.storage.source import ABSENT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl

    from lazynwb.convert.jobs import Job
    from lazynwb.storage.source import Source

#: File name of a folder's database.
_DATABASE = "tables.duckdb"


class Place(NamedTuple):
    """The destination of an output: a path in the folder, and the name of the table in a database."""

    path: str
    table: str = ""

    @property
    def name(self) -> str:
        """Name in the manifest."""
        return f"{self.path}#{self.table}" if self.table else self.path


class Target(NamedTuple):
    """Format, layout and options of the outputs.

    Attributes
    ----------
    format : str
    layout : str
        Layout of the request.
    options : Options
    row_group_bytes : int
    """

    format: str
    layout: str
    options: Options
    row_group_bytes: int

    @property
    def kind(self) -> str:
        """Kind of output: output of another kind is not replaced."""
        return f"{self.format}, {self.layout}"

    @property
    def file_format(self) -> FileFormat | None:
        """The format of one file for each output; None for a database."""
        return FORMATS.get(self.format)

    def place(self, job: Job) -> Place:
        """Return the destination of an output."""
        file_format = self.file_format
        if file_format is not None:
            return Place(f"{job.target}{file_format.ending(self.options.compression)}")
        if self.format == "delta":
            return Place(f"{job.target}.delta")
        return Place(str(job.target.with_name(_DATABASE)), job.target.name)

    def described(self) -> list[Any]:
        """Return the options that determine outputs."""
        arguments = sorted((name, repr(value)) for name, value in self.options.arguments.items())
        return [self.kind, self.options.compression, arguments, self.row_group_bytes]


class Run:
    """One conversion into one locked folder.

    Parameters
    ----------
    jobs : sequence of Job
    folder : Path
    target : Target
    failures : list of str
        Messages of outputs left out; more are appended.
    ignore_errors : bool
    started_ns : int
        Time before the first access to the sources.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - parameters of a run
        self,
        jobs: Sequence[Job],
        folder: Path,
        target: Target,
        failures: list[str],
        ignore_errors: bool,  # noqa: FBT001
        started_ns: int,
    ) -> None:
        self._folder = folder
        self._target = target
        self._failures = failures
        self._ignore_errors = ignore_errors
        self._started = started_ns
        self._manifest = Manifest(folder)
        self._duckdb = databases.DuckDB()
        described = target.described()
        self._work = [(job, target.place(job), job.fingerprint(described)) for job in jobs]

    def run(self, *, overwrite: bool, disable_progress: bool) -> dict[str, Path]:
        """Write missing and outdated outputs; return the paths of all outputs by the keys of their jobs.

        Raises
        ------
        LazyNWBError
            If a table cannot be read or written, unless errors are ignored.
        OSError
            If the disk is full or a write fails, even if errors are ignored; the message has the file.
        """
        remove_stale({(self._folder / place.path).parent for _, place, _ in self._work} | {self._folder})
        with self._duckdb:
            return self._run(overwrite=overwrite, disable_progress=disable_progress)

    def _run(self, *, overwrite: bool, disable_progress: bool) -> dict[str, Path]:
        todo = self._outdated(overwrite=overwrite)
        # Entries are removed before outputs are replaced, so that a killed run leaves no invalid entries.
        for name in todo:
            self._manifest.forget(name)
        self._manifest.save()
        done: dict[str, Path] = {}
        try:
            with Progress("Converting NWB", len(self._work), disabled=disable_progress) as progress:
                for job, place, fingerprint in self._work:
                    try:
                        if place.name in todo:
                            self._convert(job, place, fingerprint)
                        done[job.key] = self._folder / (job.folder or place.path)
                    except LazyNWBError as error:
                        if not may_skip(error, ignore_errors=self._ignore_errors):
                            raise
                        self._failures.append(f"{job.label}: {error}")
                    progress.update()
            self._remove_moved()
        finally:
            self._manifest.save()
        return done

    def _outdated(self, *, overwrite: bool) -> set[str]:
        """Return the names of outputs that are missing or outdated."""
        tables: dict[str, frozenset[str]] = {}
        outdated = set()
        for _, place, fingerprint in self._work:
            known, path = self._manifest.get(place.name), self._folder / place.path
            if overwrite or known is None or known.fingerprint != fingerprint:
                outdated.add(place.name)
            elif self._target.file_format is not None:
                if not path.is_file() or path.stat().st_size != known.size:
                    outdated.add(place.name)
            elif self._target.format == "delta":
                if not databases.has_delta(path):
                    outdated.add(place.name)
            else:
                if place.path not in tables:
                    tables[place.path] = self._duckdb.tables(path)
                if place.table not in tables[place.path]:
                    outdated.add(place.name)
        return outdated

    def _convert(self, job: Job, place: Place, fingerprint: str) -> None:
        path = self._folder / place.path
        path.parent.mkdir(parents=True, exist_ok=True)
        target, counter = self._target, RowCounter()
        group_rows = job.group_rows(target.row_group_bytes)

        def check() -> None:
            is_empty = not counter.rows and target.layout != "table"
            if counter.rows != job.rows and (is_empty or not self._ignore_errors):
                raise LazyNWBError(
                    f"{counter.rows} of {job.rows} rows of {job.label} arrived: run the conversion again"
                )

        content = Content(
            job.label,
            job.frame,
            job.table.schema,
            job.rows,
            group_rows,
            -(-target.row_group_bytes // group_rows),
            check,
            counter,
        )
        try:
            if target.file_format is not None:
                with replacing(path) as temporary:
                    target.file_format.write(content, temporary, target.options)
                    check()
            elif target.format == "delta":
                databases.write_delta(content, path, target.options, job.table.partitions)
            else:
                self._duckdb.write(content, path, place.table)
        except Exception as error:
            refused = system_error(error, path)
            if refused is not None:
                raise refused from error
            if not _is_of_writer(error):
                raise
            raise LazyNWBError(f"{job.label} cannot be written as {target.format}: {error}") from error
        if counter.rows != job.rows:
            self._failures.append(
                f"{job.label}: {counter.rows} of {job.rows} rows could be read; the next call tries again"
            )
        elif self._is_settled(job):
            size = path.stat().st_size if target.file_format is not None else None
            self._manifest.add(
                place.name,
                Output(job.table.label, target.kind, fingerprint, counter.rows, size, job.sources),
            )

    def _is_settled(self, job: Job) -> bool:
        """Return whether any write to a source since its identity was read changes the identity."""
        files = [(file.source, file.identity) for file in job.files]
        for file in job.files:
            linked = (pair for pair in file.table.depends if pair[1] != ABSENT)
            files += [(file.source.with_path(path), known) for path, known in linked]
        try:
            return all(source.is_settled(known, self._started) for source, known in files)
        except FileNotFoundError:
            return False

    def _remove_moved(self) -> None:
        """Remove outputs of sessions that lost the table or changed their name."""
        if self._target.layout == "table":
            return
        current = {place.name for _, place, _ in self._work}
        present = {
            (path_in_manifest(file.source), job.table.label) for job, _, _ in self._work for file in job.files
        }
        sources = {
            path_in_manifest(file.source): file.source for job, _, _ in self._work for file in job.files
        }
        for name, source, known in self._manifest.single_source_outputs():
            path = self._manifest.path_of(name)
            if source not in sources or name in current or known.kind != self._target.kind or path is None:
                continue
            if (source, known.table) in present or not _has_table(sources[source], known.table):
                if self._target.format == "duckdb":
                    self._duckdb.drop(path, name.partition("#")[2])
                elif self._target.format == "delta":
                    if databases.has_delta(path):
                        shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    path.parent.rmdir()
                self._manifest.forget(name)


class RowCounter:
    """A counter of the rows that are written."""

    def __init__(self) -> None:
        self.rows = 0
        self._lock = threading.Lock()

    def __call__(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Count the rows of a frame, and return the frame."""
        with self._lock:
            self.rows += frame.height
        return frame


def _is_of_writer(error: Exception) -> bool:
    """Return whether an error comes from the library that writes, not from this package or the system."""
    return type(error).__module__.partition(".")[0] in {
        "polars",
        "duckdb",
        "_duckdb",
        "_internal",
        "deltalake",
    }


def _has_table(source: Source, label: str) -> bool:
    try:
        return label.strip("/") in load_listing(source).tables()
    except LazyNWBError:
        return True
