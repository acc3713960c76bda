"""Metadata of sessions and subjects, one row per file: `get_metadata_df`."""

from __future__ import annotations

import datetime as dt
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from lazynwb.catalog.dtypes import NWB_PATH, RESERVED, column_dtype
from lazynwb.catalog.merge import conform, merge_schemas
from lazynwb.errors import (
    BrokenTableLinkError,
    LazyNWBError,
    SchemaError,
    TableNotFoundError,
    UnsupportedTypeError,
    may_skip,
)
from lazynwb.formats.nwb.names import (
    ATTRIBUTE_FIELDS,
    DATETIME_FIELDS,
    GENERAL,
    SESSION_FIELDS,
    SUBJECT,
    SUBJECT_FIELDS,
)
from lazynwb.frames.pandas_output import as_frame, wants_polars
from lazynwb.lookup.loader import load_attributes
from lazynwb.lookup.prefetch import load_tables
from lazynwb.lookup.schema import SchemaInference
from lazynwb.progress import Progress
from lazynwb.scan import lazy_frame, plan_scan, scan_nwb
from lazynwb.storage.remote_state import save
from lazynwb.storage.resolve import expand
from lazynwb.storage.source import map_concurrently

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import pandas as pd

    from lazynwb.index.reader import Index
    from lazynwb.lookup.loader import TableFile
    from lazynwb.lookup.providers import CatalogProvider
    from lazynwb.storage.resolve import Sources
    from lazynwb.storage.source import Source

_LOGGER = logging.getLogger("lazynwb")

_TEXT, _TEXTS = pl.String(), pl.List(pl.String())
#: Columns of all results, in this order. An attribute of a field follows the field.
_COLUMNS = {
    table: {
        column: _TEXTS if field.ndim else _TEXT
        for name, field in fields.items()
        if not field.optional
        for column in (name, *(own for own, at in ATTRIBUTE_FIELDS.items() if at[:2] == (table, name)))
    }
    for table, fields in ((GENERAL, SESSION_FIELDS), (SUBJECT, SUBJECT_FIELDS))
}
_UTC = pl.Datetime("us", "UTC")
#: Maximum number of files in a warning.
_MAX_NAMES = 3


class MetadataField(NamedTuple):
    """A column of metadata.

    Attributes
    ----------
    table, column : str
        Table ("general" or "general/subject"), and name of the column in it.
    stored, dtype : DataType
        Types in the files and in the result.
    """

    table: str
    column: str
    stored: pl.DataType
    dtype: pl.DataType


class Metadata(NamedTuple):
    """Metadata of sessions and subjects as stored, one row per file."""

    general: pl.DataFrame
    subject: pl.DataFrame


def get_metadata_df(
    nwb_path_or_paths: Sources,
    disable_progress: bool = False,  # noqa: FBT001, FBT002 - positional in existing code
    as_polars: bool | None = None,  # noqa: FBT001
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> pl.DataFrame | pd.DataFrame:
    """Return the metadata of sessions and subjects, one row per file.

    Parameters
    ----------
    nwb_path_or_paths : path or URL, or iterable of these
        As for `scan_nwb`. A file that is passed twice has two rows; without files there are no rows.
    disable_progress : bool
        Whether to hide progress bars.
    as_polars : bool or None
        True for Polars, False for pandas, None for the setting `config.use_polars` (by default pandas).
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    DataFrame
        Rows in the order of the files. The columns are the fields of NWBFile and Subject in the schema
        (`identifier`, `session_start_time`, ..., `subject_id`, `age`, ...), null in files that lack them; the
        additional fields of any file; and `_nwb_path`. Values have their stored types: text is never parsed,
        and lists of text (`keywords`, `experimenter`) are lists. A field of the subject with the name of a
        field of the session has the prefix `subject_`.

        Fields that are times in the schema (`session_start_time`, `timestamps_reference_time`,
        `date_of_birth`, and the list `file_create_date`) are datetimes. They are converted to UTC, because a
        column has one time zone. A time without an offset is assumed to be in UTC, and an invalid ISO 8601
        time is null; a warning lists the files.

    Raises
    ------
    SourceNotFoundError or NotNWBError
        If a file cannot be read.

    Notes
    -----
    NWB core, nwb.file.yaml: the types NWBFile and Subject.
    """
    polars = wants_polars(as_polars)  # raises errors before files are read
    sources = expand(nwb_path_or_paths, storage_options, allow_none=True)
    read = read_metadata(sources, disable_progress=disable_progress)
    subject = read.subject.drop(NWB_PATH)
    frame = read.general.hstack(subject.rename(with_prefix(subject.columns, read.general.columns)))
    frame = frame.with_columns(
        _times(frame[name], frame[NWB_PATH]) for name in DATETIME_FIELDS if name in frame.columns
    )
    frame = frame.select(pl.exclude(NWB_PATH), pl.col(NWB_PATH))
    return as_frame(frame, polars)


def metadata_fields(
    sources: Sequence[Source],
    catalogs: CatalogProvider | None,
    *,
    ignore_errors: bool,
    disable_progress: bool,
) -> dict[str, MetadataField]:
    """Return the columns of `get_metadata_df` except `_nwb_path`, by name and in order."""
    found: dict[str, dict[str, MetadataField]] = {}
    for table, fields in _COLUMNS.items():
        conflicts: dict[str, str] = {}
        inference = SchemaInference(
            ignore_errors=ignore_errors,
            disable_progress=disable_progress,
            catalogs=catalogs,
            conflicts=conflicts,
        )
        try:
            schema, _ = inference.of_table(sources, table)
        except BrokenTableLinkError:
            raise
        except TableNotFoundError:
            schema = {}
        if conflicts:
            files = _load(list(sources), table, disable_progress=disable_progress)
            schema |= {name: _as_text(name, [f for f in files if name in f.columns]) for name in conflicts}
        # A column of type Null cannot be read in any file.
        schema = {
            name: dtype
            for name, dtype in sorted(schema.items())
            if name not in RESERVED and not isinstance(dtype, pl.Null)
        }
        found[table] = {
            name: MetadataField(
                table, name, schema.get(name, dtype), _published(name, schema.get(name), dtype)
            )
            for name, dtype in {**schema, **fields}.items()
        }
        found[table] = {
            name: found[table][name] for name in (*fields, *(n for n in schema if n not in fields))
        }
    general, subject = found[GENERAL], found[SUBJECT]
    names = with_prefix(subject, general)
    return {**general, **{names[name]: field for name, field in subject.items()}}


def _published(name: str, stored: pl.DataType | None, expected: pl.DataType) -> pl.DataType:
    dtype = _TEXTS if stored == _TEXT and expected == _TEXTS else stored if stored is not None else expected
    if name not in DATETIME_FIELDS:
        return dtype
    return pl.List(_UTC) if isinstance(dtype, pl.List | pl.Array) else _UTC


def read_fields(
    sources: Sequence[Source],
    fields: Mapping[str, MetadataField],
    catalogs: Index | None,
    *,
    ignore_errors: bool,
) -> list[pl.Series]:
    """Read columns of the metadata of files, with the values of `get_metadata_df`.

    Parameters
    ----------
    sources : sequence of Source
        Files to read.
    fields : mapping of str to MetadataField
        Fields by the names of the columns in the result.
    catalogs : Index or None
        Index that may have the values.
    ignore_errors : bool
        Whether values of unreadable files are null.
    """
    distinct = tuple(dict.fromkeys(sources))
    paths = pl.Series(NWB_PATH, [source.path for source in distinct], dtype=_TEXT)
    values = _from_catalogs(distinct, fields, catalogs)
    left = {name: field for name, field in fields.items() if name not in values}
    for table in dict.fromkeys(field.table for field in left.values()):
        own = {name: field for name, field in left.items() if field.table == table}
        values |= {
            n: _attributes_of(distinct, f.column, ignore_errors=ignore_errors)
            for n, f in own.items()
            if f.column in ATTRIBUTE_FIELDS
        }
        stored = {field.column: field.stored for name, field in own.items() if name not in values}
        if not stored:
            continue
        plan = plan_scan(
            distinct,
            table,
            schema=stored,
            ignore_errors=ignore_errors,
            disable_progress=True,
            catalogs=catalogs,
        )
        plan = plan._replace(optional=True)
        selected = [*map(_column, stored), pl.col(NWB_PATH)]
        try:
            rows = lazy_frame(plan).select(selected).collect()
        except UnsupportedTypeError:
            # As in `get_metadata_df`: a field that cannot be read in one file is null there, with a warning.
            rows = lazy_frame(plan._replace(ignore_errors=True)).select(selected).collect()
        rows = pl.DataFrame(paths).join(rows, on=NWB_PATH, how="left", maintain_order="left")
        values |= {name: rows[field.column] for name, field in own.items() if name not in values}
    numbers = {source: number for number, source in enumerate(distinct)}
    places = pl.Series([numbers[source] for source in sources], dtype=pl.UInt32)
    columns = []
    for name, field in fields.items():
        series = values[name].alias(name)
        if field.dtype == _TEXTS and series.dtype == _TEXT:
            series = pl.DataFrame(series).select(_listed(name)).to_series()
        if field.column in DATETIME_FIELDS:
            series = _times(series, paths)
        columns.append(series.gather(places))
    return columns


def _from_catalogs(
    sources: Sequence[Source], fields: Mapping[str, MetadataField], catalogs: Index | None
) -> dict[str, pl.Series]:
    """Return the fields that an index has for all sources."""
    if catalogs is None:
        return {}
    keys = {name: (field.table, field.column) for name, field in fields.items()}
    order, known = catalogs.session_values(sources, list(keys.values()))
    if len(order) < len(sources):
        return {}
    places = pl.Series(order, dtype=pl.UInt32).arg_sort()
    found = {}
    for name, key in keys.items():
        if key in known:
            with suppress(SchemaError):  # the files are read, which raises a more specific error
                found[name] = conform(known[key].gather(places), fields[name].stored, "the index")
    return found


def _attributes_of(sources: Sequence[Source], name: str, *, ignore_errors: bool) -> pl.Series:
    """Return a field of each file that is an attribute of another field."""
    where, field, attribute = ATTRIBUTE_FIELDS[name]

    def look_up(source: Source) -> object:
        try:
            found = load_attributes(source, where) or {}
        except LazyNWBError as error:
            if not may_skip(error, ignore_errors=ignore_errors):
                raise
            return None
        return found.get(field, {}).get(attribute)

    values = map_concurrently(look_up, sources, sources)
    texts = [value if isinstance(value, str) else None for value in values]
    return pl.Series(name, texts, dtype=_TEXT)


def _listed(name: str) -> pl.Expr:
    """Convert text to a list of one; early versions of the schema had a single text (`experimenter`)."""
    return pl.when(pl.col(name).is_not_null()).then(pl.concat_list(name)).alias(name)


def with_prefix(subject: Iterable[str], session: Collection[str]) -> dict[str, str]:
    """Return unique names of the subject's fields among those of the session."""
    taken = {*session, *subject}
    names = {}
    for name in subject:
        new = name
        while new in session or (new != name and new in taken):
            new = f"subject_{new}"
        names[name] = new
        taken.add(new)
    return names


def read_metadata(sources: Sequence[Source], *, disable_progress: bool) -> Metadata:
    """Read the metadata of files, with times as stored text.

    Returns
    -------
    Metadata
        Two frames with one row per source, in order, each with `_nwb_path`.
    """
    distinct = list({source.path: source for source in sources}.values())
    paths = pl.DataFrame({NWB_PATH: pl.Series([source.path for source in sources], dtype=_TEXT)})
    frames = []
    for table, fields in _COLUMNS.items():
        files = _load(distinct, table, disable_progress=disable_progress)
        extra = _attribute_columns(table, files)
        rows = _scan(files, table, disable_progress=disable_progress)
        found = paths.join(rows, on=NWB_PATH, how="left", maintain_order="left")
        found = found.join(extra, on=NWB_PATH, how="left", maintain_order="left")
        found = found.with_columns(
            _listed(name)
            for name, dtype in fields.items()
            if dtype == _TEXTS and found.schema.get(name) == _TEXT
        )
        found = found.with_columns(
            pl.lit(None, dtype).alias(name) for name, dtype in fields.items() if name not in found.columns
        )
        frames.append(found.select(*fields, pl.exclude(*fields)))
    save()
    return Metadata(*frames)


def _load(sources: list[Source], table: str, *, disable_progress: bool) -> list[TableFile]:
    """Return the files that have a metadata table."""
    files = []
    with Progress(f"Looking up /{table}", len(sources), disabled=disable_progress) as progress:
        for load in load_tables(sources, table):
            file = load()
            progress.update()
            if file is not None:
                files.append(file)
    return files


def _scan(files: list[TableFile], table: str, *, disable_progress: bool) -> pl.DataFrame:
    schema: dict[str, pl.DataType] = {}
    in_part: dict[str, list[TableFile]] = {}
    for name in sorted({name for file in files for name in file.columns if name not in RESERVED}):
        unreadable = [f for f in files if name in f.columns and column_dtype(f.columns[name]) is None]
        own = [file for file in files if name in file.columns and file not in unreadable]
        if unreadable:
            data = unreadable[0].columns[name].data
            reason = f" ({data.dtype.note})" if data is not None and data.dtype.note else ""
            what = "is null" if own else "was left out"
            _warn(
                f"/{table}: {name} {what} in files where it cannot be read{reason}",
                [file.name for file in unreadable],
            )
            if not own:
                continue
            in_part[name] = own
        try:
            schema |= merge_schemas(own, {}, {name})
        except SchemaError as error:
            _LOGGER.warning("%s is returned as text: %s", name, error)
            schema[name] = _as_text(name, own)
    if not schema:
        return pl.DataFrame(schema={NWB_PATH: _TEXT})

    def read(own: list[TableFile], names: Iterable[str]) -> pl.DataFrame:
        types = {name: schema[name] for name in names}
        frame = scan_nwb([f.source for f in own], table, schema=types, disable_progress=disable_progress)
        return frame.select(*map(_column, types), NWB_PATH).collect()

    found = read(files, schema.keys() - in_part.keys())
    for name, own in in_part.items():
        found = found.join(read(own, [name]).unique(NWB_PATH), on=NWB_PATH, how="left", maintain_order="left")
    return found[[*schema, NWB_PATH]]


def _as_text(name: str, files: Sequence[TableFile]) -> pl.DataType:
    """Return a text type for a column whose types in the files have no common type."""
    return _TEXTS if any(file.columns[name].whole for file in files) else _TEXT


def _column(name: str) -> pl.Expr:
    from polars import selectors

    return selectors.by_name(name).as_expr()  # pl.col interprets "^...$" as a pattern


def _attribute_columns(table: str, files: list[TableFile]) -> pl.DataFrame:
    """Return the fields that are attributes of other fields."""
    frame = pl.DataFrame({NWB_PATH: pl.Series([file.source.path for file in files], dtype=_TEXT)})
    for name, (where, field, attribute) in ATTRIBUTE_FIELDS.items():
        own = [file.source for file in files if field in file.columns] if where == table else []
        if not own:
            continue
        loaded = map_concurrently(partial(load_attributes, path=table), own, own)
        values = {
            source.path: (found or {}).get(field, {}).get(attribute)
            for source, found in zip(own, loaded, strict=True)
        }
        texts = [value if isinstance(value, str) else None for value in map(values.get, frame[NWB_PATH])]
        frame = frame.with_columns(pl.Series(name, texts, dtype=_TEXT))
    return frame


def _times(texts: pl.Series, paths: pl.Series) -> pl.Series:
    """Convert a column of text, or of lists of text, to datetimes in UTC."""
    nested = isinstance(texts.dtype, pl.List | pl.Array)
    bad: list[str] = []
    naive: list[str] = []

    def parse(value: object, path: str) -> dt.datetime | None:
        found = parse_time(value)
        if found is None:
            if value is not None:
                bad.append(path)
            return None
        if found.tzinfo is None:
            naive.append(path)
            found = found.replace(tzinfo=dt.UTC)
        try:
            return found.astimezone(dt.UTC)
        except OverflowError:  # the year 1 or 9999
            bad.append(path)
            return None

    rows = zip(texts.to_list(), paths.to_list(), strict=True)
    values = [
        [parse(item, path) for item in value] if isinstance(value, list) else parse(value, path)
        for value, path in rows
    ]
    if bad:
        _warn(f"{texts.name} is not a time in ISO 8601 and becomes null", bad)
    if naive:
        _warn(f"{texts.name} has no offset and is assumed to be in UTC", naive)
    return pl.Series(texts.name, values, dtype=pl.List(_UTC) if nested else _UTC)


def parse_time(value: object) -> dt.datetime | None:
    """Return a value of the schema's type isodatetime as a time with its stored offset; None if invalid.

    A date without a time is midnight.
    """
    if not isinstance(value, str):
        return None
    try:
        return dt.datetime.fromisoformat(value.strip())
    except ValueError:
        return None


def _warn(what: str, paths: list[str]) -> None:
    distinct = list(dict.fromkeys(paths))
    more = f" and {len(distinct) - _MAX_NAMES} more" if len(distinct) > _MAX_NAMES else ""
    _LOGGER.warning("%s: %s%s", what, ", ".join(distinct[:_MAX_NAMES]), more)
