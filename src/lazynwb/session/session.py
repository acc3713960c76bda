"""`LazyNWB`: one session as an object with the attribute names of PyNWB's NWBFile."""

from __future__ import annotations

import html
import logging
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from lazynwb.catalog.dtypes import INTERNAL
from lazynwb.errors import LazyNWBError
from lazynwb.formats.nwb.names import DATETIME_FIELDS, OLDER_PATHS
from lazynwb.lookup.loader import copy_values
from lazynwb.metadata import parse_time, read_metadata, with_prefix
from lazynwb.paths import one_source
from lazynwb.session.contents import Container, File
from lazynwb.suggestions import similar_or_existing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pandas as pd
    import polars as pl

    from lazynwb.catalog.model import Entry, Listing
    from lazynwb.series.timeseries import TimeSeries
    from lazynwb.storage.resolve import PathOrUrl

_LOGGER = logging.getLogger("lazynwb")


class SessionFile(File):
    """A file with the metadata of its session and subject, cached until the file changes."""

    _read: tuple[Listing, dict[str, Any], dict[str, Any]] | None = None

    def metadata(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the metadata of the session and of the subject, with times as datetimes."""
        listing = self.contents.listing
        if self._read is None or self._read[0] is not listing:
            found = read_metadata([self.source], disable_progress=True)
            session, subject = (
                {
                    name: self._parsed(name, value)
                    for name, value in frame.row(0, named=True).items()
                    if name not in INTERNAL
                }
                for frame in found
            )
            self._read = listing, session, subject
        return copy_values(self._read[1]), copy_values(self._read[2])

    def _parsed(self, name: str, value: Any) -> Any:  # noqa: ANN401 - any stored value
        if name not in DATETIME_FIELDS or value is None:
            return value
        items = value if isinstance(value, list) else [value]
        times = [parse_time(item) for item in items]
        if None in times:
            _LOGGER.warning(
                "%s: %s is not a time in ISO 8601 and becomes None: %r", self.source.name, name, value
            )
        return times if isinstance(value, list) else times[0]


class Subject(Container):
    """The subject of a session: its fields, and all other members of `/general/subject`.

    Fields of the schema that the file lacks are None. Values have their stored types; `date_of_birth` is a
    datetime with the stored offset from UTC.
    """

    _file: SessionFile

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any stored value
        """Return a field, a member of the group, or an attribute of it."""
        if not name.startswith("_"):
            fields = self._file.metadata()[1]
            if name in fields:
                return fields[name]
        return super().__getattr__(name)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        """Return a field that the file has, or another member of the group."""
        fields = self._file.metadata()[1]
        return fields[name] if name in self and name in fields else super().__getitem__(name)

    def __dir__(self) -> list[str]:
        """Include the fields."""
        return sorted({*super().__dir__(), *filter(str.isidentifier, self._file.metadata()[1])})

    def __repr__(self) -> str:
        from lazynwb.session.tree import text_fields

        fields = {name: value for name, value in self._file.metadata()[1].items() if value is not None}
        return "\n".join([f"Subject {self.path}", *text_fields(fields)])

    def _repr_html_(self) -> str:
        from lazynwb.session.tree import html_tree

        fields = {name: value for name, value in self._file.metadata()[1].items() if value is not None}
        others = {name: entry for name, entry in self._entries().items() if entry.kind != "dataset"}
        return html_tree(self.path, fields, self._file.contents, self._path, others, unfolded=True)


#: Members of /general in the schema (NWB core, nwb.file.yaml); others are metadata of a lab.
_GENERAL = frozenset({
    "devices", "extracellular_ephys", "intracellular_ephys", "optogenetics", "optophysiology", "subject",
})  # fmt: skip
#: Metadata in the text representation; HTML shows all of it.
_TEXT_FIELDS = ("identifier", "session_id", "session_start_time", "session_description", "subject.subject_id")
#: Maximum number of characters of an error in a representation.
_ERROR = 500


def _field(name: str, about: str) -> Any:  # noqa: ANN401 - a property
    return property(methodcaller("_field", name), doc=f"{about} None if absent.")


def _table(path: str, about: str) -> Any:  # noqa: ANN401
    def read(session: LazyNWB) -> pl.DataFrame | pd.DataFrame | None:
        return session._table(path)  # noqa: SLF001 - its own property

    kind = "pandas, or Polars with `config.use_polars`"
    return property(read, doc=f"{about}: a frame ({kind}) without its array columns. None if absent.")


def _group(path: str, about: str, chosen: Callable[[str, Entry], bool] | None = None) -> Any:  # noqa: ANN401
    return property(methodcaller("_group", path, chosen), doc=f"{about}: a `Container`.")


class LazyNWB:
    """One NWB file as an object with the attribute names of PyNWB's NWBFile, which are read on access.

    The file is not kept open, so it need not be closed, and is read again after it was replaced.

    Parameters
    ----------
    path : path or URL
        One NWB file, HDF5 or Zarr, local or remote.
    storage_options : mapping or None
        As for `scan_nwb`.

    Raises
    ------
    LazyNWBError
        If the path stands for several files. A missing file raises SourceNotFoundError on the first access.

    Notes
    -----
    Metadata (`identifier`, `session_id`, `keywords`, `subject.age`, ...) have their stored types: "20240102"
    is text. Only times of the schema (`session_start_time`, `timestamps_reference_time`, `file_create_date`,
    `subject.date_of_birth`) are datetimes, with the stored offset from UTC.

    `units`, `trials`, `epochs`, `invalid_times` and `electrodes` are frames, as returned by `get_df`: pandas,
    which then must be installed, or Polars with `config.use_polars`. Groups (`acquisition`, `processing`,
    `intervals`, ...) are mappings whose members are also attributes, see
    `lazynwb.session.contents.Container`: tables are LazyFrames with all of their columns, and series are
    `TimeSeries`. Objects of the schema that the file lacks are None, or an empty mapping.

    Examples
    --------
    >>> session = lazynwb.LazyNWB("session.nwb")  # doctest: +SKIP
    >>> session.subject.age  # doctest: +SKIP
    'P90D'
    >>> session.processing.behavior.running_speed.data[:100]  # doctest: +SKIP
    """

    def __init__(self, path: PathOrUrl, *, storage_options: Mapping[str, Any] | None = None) -> None:
        self._file = SessionFile(one_source(path, storage_options, "LazyNWB"))

    # -- metadata -------------------------------------------------------------------------------------

    identifier = _field("identifier", "A unique identifier of the file.")
    session_id = _field("session_id", "The identifier of the session in the lab.")
    session_description = _field("session_description", "A description of the session.")
    session_start_time = _field("session_start_time", "The start of the session as a datetime.")
    timestamps_reference_time = _field(
        "timestamps_reference_time", "The datetime that timestamps are relative to."
    )
    file_create_date = _field("file_create_date", "The datetimes when the file was created and changed.")
    experiment_description = _field("experiment_description", "A description of the experiment.")
    experimenter = _field("experimenter", "A list of names.")
    lab = _field("lab", "The lab of the experiment.")
    institution = _field("institution", "The institution of the experiment.")
    related_publications = _field("related_publications", "A list of DOIs, URLs or PMIDs.")
    keywords = _field("keywords", "A list of search terms.")
    notes = _field("notes", "Notes about the experiment.")
    data_collection = _field("data_collection", "Notes about data collection and analysis.")
    surgery = _field("surgery", "Notes about surgery, with dates.")
    pharmacology = _field("pharmacology", "Notes about drugs, with times.")
    virus = _field("virus", "Notes about viruses.")
    protocol = _field("protocol", "The experimental protocol, such as an IACUC number.")
    slices = _field("slices", "Notes about slices: thickness, orientation, temperature, bath.")
    stimulus_notes = _field("stimulus", "Notes about stimuli.")
    source_script = _field("source_script", "The script that created the file.")
    source_script_file_name = _field("source_script_file_name", "The file name of that script.")

    @property
    def subject(self) -> Subject | None:
        """The animal or person; None if the file has none."""
        path = "/general/subject"
        return Subject(self._file, path) if self._file.contents.at(path) is not None else None

    # -- tables ---------------------------------------------------------------------------------------

    units = _table("units", "Sorted units")
    trials = _table("intervals/trials", "Trials, times in seconds")
    epochs = _table("intervals/epochs", "Epochs, times in seconds")
    invalid_times = _table("intervals/invalid_times", "Times to exclude from analysis, in seconds")
    electrodes = _table("general/extracellular_ephys/electrodes", "Extracellular electrodes")

    # -- groups ---------------------------------------------------------------------------------------

    acquisition = _group("/acquisition", "Recorded data")
    analysis = _group("/analysis", "Results of analysis")
    processing = _group("/processing", "Processing modules")
    intervals = _group("/intervals", "Tables of times: trials, epochs and others")
    events = _group("/events", "Tables of events")
    stimulus = _group("/stimulus/presentation", "Stimuli as they were presented")
    stimulus_template = _group("/stimulus/templates", "Templates of stimuli")
    scratch = _group("/scratch", "Scratch data of the authors")
    devices = _group("/general/devices", "Devices", lambda name, _: name != "models")
    electrode_groups = _group(
        "/general/extracellular_ephys",
        "Groups of electrodes",
        lambda _, entry: entry.kind == "group" and entry.role == "group",
    )
    imaging_planes = _group("/general/optophysiology", "Imaging planes")
    ogen_sites = _group("/general/optogenetics", "Optogenetic stimulation sites")
    icephys = _group("/general/intracellular_ephys", "Intracellular electrodes, and tables of recordings")
    lab_meta_data = _group(
        "/general",
        "Metadata of the lab",
        lambda name, entry: entry.kind == "group" and name not in _GENERAL,
    )

    # -- functions of the package for this file -------------------------------------------------------

    @property
    def path(self) -> str:
        """The path of the file, as in `_nwb_path`."""
        return self._file.source.path

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of the root group, such as `nwb_version`."""
        return self._file.attributes("")

    def get_timeseries(
        self,
        search_term: str | None = None,
        exact_path: bool = False,  # noqa: FBT001, FBT002 - as the function
        match_all: bool = False,  # noqa: FBT001, FBT002
    ) -> TimeSeries | dict[str, TimeSeries]:
        """Return series of this file: `lazynwb.get_timeseries(path, ...)`."""
        from lazynwb.series.timeseries import get_timeseries

        return get_timeseries(self._file.source, search_term, exact_path, match_all)

    def get(  # noqa: PLR0913 - the options of a frame
        self,
        search_term: str,
        *,
        as_df: bool = False,
        exact_path: bool = False,
        include_column_names: str | Iterable[str] | None = None,
        exclude_column_names: str | Iterable[str] | None = None,
        exclude_array_columns: bool = True,
        use_process_pool: bool = False,
        disable_progress: bool = True,
        raise_on_missing: bool = True,
        ignore_errors: bool = False,
        as_polars: bool | None = None,
    ) -> pl.DataFrame | pd.DataFrame | TimeSeries:
        """Return a table as a frame, or a series as a `TimeSeries`: `lazynwb.get(path, ...)`."""
        from lazynwb.frames.get import get

        return get(
            self._file.source,
            search_term,
            as_df=as_df,
            exact_path=exact_path,
            include_column_names=include_column_names,
            exclude_column_names=exclude_column_names,
            exclude_array_columns=exclude_array_columns,
            use_process_pool=use_process_pool,
            disable_progress=disable_progress,
            raise_on_missing=raise_on_missing,
            ignore_errors=ignore_errors,
            as_polars=as_polars,
        )

    def get_df(  # noqa: PLR0913, PLR0917
        self,
        search_term: str,
        exact_path: bool = False,  # noqa: FBT001, FBT002
        include_column_names: str | Iterable[str] | None = None,
        exclude_column_names: str | Iterable[str] | None = None,
        exclude_array_columns: bool = True,  # noqa: FBT001, FBT002
        use_process_pool: bool = False,  # noqa: FBT001, FBT002
        disable_progress: bool = True,  # noqa: FBT001, FBT002
        raise_on_missing: bool = True,  # noqa: FBT001, FBT002
        ignore_errors: bool = False,  # noqa: FBT001, FBT002
        as_polars: bool | None = None,  # noqa: FBT001
        *,
        length_columns: bool | str | Iterable[str] = False,
    ) -> pl.DataFrame | pd.DataFrame:
        """Return a table of this file as a frame: `lazynwb.get_df(path, ...)`."""
        from lazynwb.frames.get import get_df

        return get_df(
            self._file.source,
            search_term,
            exact_path,
            include_column_names,
            exclude_column_names,
            exclude_array_columns=exclude_array_columns,
            use_process_pool=use_process_pool,
            disable_progress=disable_progress,
            raise_on_missing=raise_on_missing,
            ignore_errors=ignore_errors,
            as_polars=as_polars,
            length_columns=length_columns,
        )

    def describe(self) -> dict[str, Any]:
        """Return the metadata of session and subject, and the paths of all tables and series.

        Returns
        -------
        dict of str to value
            All fields of the schema, None if the file lacks them, and additional fields of the file. Fields
            of the subject whose names are also fields of the session have the prefix `subject_`. `paths` is
            the list of the paths of tables and series, with leading slashes, for `get`.
        """
        session, subject = self._file.metadata()
        names = with_prefix(subject, session)
        fields = {**session, **{names[name]: value for name, value in subject.items()}}
        entries = self._file.contents.listing.entries
        paths = [e.path for e in entries if e.kind == "group" and e.role in {"table", "series"}]
        return {**fields, "paths": paths}

    # -- access ---------------------------------------------------------------------------------------

    def _field(self, name: str) -> Any:  # noqa: ANN401 - any stored value
        return self._file.metadata()[0].get(name)

    def _table(self, path: str) -> pl.DataFrame | pd.DataFrame | None:
        for one in (path, OLDER_PATHS.get(path, path)):
            entry = self._file.contents.at(f"/{one}")
            if entry is not None and (entry.role == "table" or entry.kind == "broken"):
                return self.get_df(one, exact_path=True)
        return None

    def _group(self, path: str, chosen: Callable[[str, Entry], bool] | None) -> Container:
        return Container(self._file, path, chosen)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any stored value
        """Return another field of the session, or another group of the file.

        Raises
        ------
        AttributeError
            If it does not exist; the message suggests similar names.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        if isinstance(known := getattr(type(self), name, None), property) and known.fget is not None:
            return known.fget(self)  # a property raised an AttributeError: raise that one
        session = self._file.metadata()[0]
        if name in session:
            return session[name]
        root = Container(self._file, "")
        if name in root:
            return root[name]
        others = [other for other in dir(self) if not other.startswith("_")]
        raise AttributeError(f"{self._file.source.name} has no {name!r}{similar_or_existing(name, others)}")

    def __dir__(self) -> list[str]:
        """Include additional fields and groups of this file."""
        own = [*self._file.metadata()[0], *self._file.contents.members("")]
        return sorted({*super().__dir__(), *filter(str.isidentifier, own)})

    def __repr__(self) -> str:
        from lazynwb.session.tree import text_tree
        from lazynwb.terminal_text import visible

        title = f"LazyNWB({self._file.source.name!r})"
        try:
            contents = self._file.contents
        except LazyNWBError as error:
            return visible(f"{title}: {error}", _ERROR)
        try:
            fields = self._shown_metadata()
        except LazyNWBError as error:
            fields = {_TEXT_FIELDS[0]: f"cannot be read: {error}"}
        shown = {name: fields[name] for name in _TEXT_FIELDS if name in fields}
        return text_tree(title, shown, contents, "", _without_metadata(contents.members("")))

    def _repr_html_(self) -> str:
        from lazynwb.session.tree import html_tree
        from lazynwb.terminal_text import visible

        title = self._file.source.name
        try:
            contents = self._file.contents
        except LazyNWBError as error:
            return f"<pre>{html.escape(visible(f'LazyNWB({title!r}): {error}', _ERROR))}</pre>"
        try:
            fields = self._shown_metadata()
        except LazyNWBError as error:
            fields = {"cannot be read": str(error)}
        return html_tree(title, fields, contents, "", _without_metadata(contents.members("")))

    def _shown_metadata(self) -> dict[str, Any]:
        """Return the metadata of session and subject to show."""
        session, subject = self._file.metadata()
        fields = {**session, **{f"subject.{name}": value for name, value in subject.items()}}
        return {name: value for name, value in fields.items() if value is not None}


def _without_metadata(members: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the members of the root group without metadata, which is shown separately, and the schema."""
    return {
        name: entry
        for name, entry in members.items()
        if entry.kind != "dataset" and entry.role != "specification"
    }
