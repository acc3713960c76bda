"""Names in the NWB schema: groups, tables, fields and attributes, with their dimensions.

The schema (NWB core 2.x and HDMF common) defines whether a dataset or attribute is a scalar or an array. Not
all writers follow it, so readers consult these tables. Other names are custom, and have their stored shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Short names of tables with a fixed path in the schema.
TABLE_SHORTCUTS = {
    "trials": "intervals/trials",
    "epochs": "intervals/epochs",
    "invalid_times": "intervals/invalid_times",
    "electrodes": "general/extracellular_ephys/electrodes",
    "session": "general",
    "subject": "general/subject",
}
#: Paths in files before NWB 2 of tables that have other paths since.
OLDER_PATHS = {f"intervals/{name}": name for name in ("trials", "epochs", "invalid_times")}
#: Alternative paths of tables that a file lacks at a requested path: `/trials` in older files, and the
#: expansion of paths that look like shortcuts.
OTHER_PATHS = {**TABLE_SHORTCUTS, **OLDER_PATHS}
GENERAL, SUBJECT, ELECTRODES = "general", "general/subject", "general/extracellular_ephys/electrodes"

#: Groups in the root group that contain data or metadata.
ROOT_GROUPS = frozenset(
    {
        "acquisition",
        "analysis",
        "events",
        "general",
        "intervals",
        "processing",
        "scratch",
        "stimulus",
        "units",
    }
)


class Field(NamedTuple):
    """A dataset of NWBFile or Subject.

    Attributes
    ----------
    kind : {"text", "datetime"}
        "datetime" is `isodatetime` in the schema: text in ISO 8601.
    ndim : int
        Number of dimensions; 0 for a scalar.
    in_root : bool
        Whether it is a member of the root group rather than of `/general` or `/general/subject`.
    optional : bool
        Whether it is a column of `get_metadata_df` only if a file has it.
    """

    kind: Literal["text", "datetime"] = "text"
    ndim: int = 0
    in_root: bool = False
    optional: bool = False


_TEXT, _TEXTS, _RARE = Field(), Field(ndim=1), Field(optional=True)
#: Fields of NWBFile in the order of `get_metadata_df`.
SESSION_FIELDS = {
    "identifier": Field(in_root=True),
    "session_start_time": Field("datetime", in_root=True),
    "session_id": _TEXT,
    "session_description": Field(in_root=True),
    "experiment_description": _TEXT,
    "experimenter": _TEXTS,
    "lab": _TEXT,
    "institution": _TEXT,
    "related_publications": _TEXTS,
    "keywords": _TEXTS,
    "notes": _TEXT,
    "data_collection": _TEXT,
    "surgery": _TEXT,
    "pharmacology": _TEXT,
    "virus": _TEXT,
    "source_script": _TEXT,
    "timestamps_reference_time": Field("datetime", in_root=True),
    "file_create_date": Field("datetime", ndim=1, in_root=True),
    "protocol": _RARE,
    "slices": _RARE,
    "stimulus": _RARE,
    "was_generated_by": Field(ndim=2, optional=True),
}
#: Fields of Subject in the order of `get_metadata_df`.
SUBJECT_FIELDS = {
    "age": _TEXT,
    "description": _TEXT,
    "genotype": _TEXT,
    "sex": _TEXT,
    "species": _TEXT,
    "subject_id": _TEXT,
    "weight": _TEXT,
    "strain": _TEXT,
    "date_of_birth": Field("datetime"),
}


class AttributeField(NamedTuple):
    """An attribute of a metadata field that is a metadata field itself.

    Attributes
    ----------
    table : str
    field : str
        The field that has the attribute.
    attribute : str
    """

    table: str
    field: str
    attribute: str


#: Metadata columns that are stored as attributes of other fields.
ATTRIBUTE_FIELDS = {
    "source_script_file_name": AttributeField(GENERAL, "source_script", "file_name"),
    "age__reference": AttributeField(SUBJECT, "age", "reference"),
}
#: Fields of type isodatetime.
DATETIME_FIELDS = tuple(
    name for name, field in {**SESSION_FIELDS, **SUBJECT_FIELDS}.items() if field.kind == "datetime"
)


def _names(ndim: int, names: str) -> dict[str, int]:
    return dict.fromkeys(names.split(), ndim)


#: Number of dimensions of the datasets of a type, if the schema allows only one. For a ragged column it is
#: that of the flat data.
FIELD_NDIM = {
    "NWBFile": {name: field.ndim for name, field in SESSION_FIELDS.items()},
    "Subject": {name: field.ndim for name, field in SUBJECT_FIELDS.items()},
    "DynamicTable": {"id": 1},
    "TimeIntervals": _names(1, "id start_time stop_time tags timeseries"),
    "Units": {
        **_names(1, "id spike_times electrodes electrode_group"),
        **_names(2, "obs_intervals waveforms"),
    },
    "ElectrodesTable": _names(
        1, "id location group group_name x y z imp filtering rel_x rel_y rel_z reference"
    ),
    "EventsTable": _names(1, "id timestamp duration annotation"),
    "FrequencyBandsTable": {**_names(1, "id band_name band_mean band_stdev"), "band_limits": 2},
    "PlaneSegmentation": _names(1, "id pixel_mask voxel_mask"),
    "SweepTable": _names(1, "id sweep_number series"),
    "IntracellularElectrodesTable": _names(1, "id electrode"),
    "IntracellularStimuliTable": _names(1, "id stimulus stimulus_template"),
    "IntracellularResponsesTable": _names(1, "id response"),
    "SimultaneousRecordingsTable": _names(1, "id recordings"),
    "SequentialRecordingsTable": _names(1, "id simultaneous_recordings stimulus_type"),
    "RepetitionsTable": _names(1, "id sequential_recordings"),
    "ExperimentalConditionsTable": _names(1, "id repetitions"),
    # Fields of all series: a name has the same dimensions in every type of series.
    "TimeSeries": {
        **_names(
            0,
            "starting_time reference_frame gain bias_current bridge_balance capacitance_compensation "
            "capacitance_fast capacitance_slow resistance_comp_bandwidth resistance_comp_correction "
            "resistance_comp_prediction whole_cell_capacitance_comp whole_cell_series_resistance_comp "
            "num_samples format distance orientation metric",
        ),
        **_names(
            1,
            "timestamps control control_description electrodes channel_conversion dimension external_file "
            "field_of_view feature_units features source_channels rois",
        ),
    },
    "ElectrodeGroup": {"position": 0},
    "IntracellularElectrode": _names(
        0, "cell_id description filtering initial_access_resistance location resistance seal slice"
    ),
    "OptogeneticStimulusSite": _names(0, "description excitation_lambda location"),
    "ImagingPlane": {
        **_names(0, "description excitation_lambda imaging_rate indicator location reference_frame"),
        **_names(1, "origin_coords grid_spacing"),
    },
    "OpticalChannel": _names(0, "description emission_lambda"),
}


def field_ndim(neurodata_type: str, name: str, path: str | None = None) -> int | None:
    """Return the number of dimensions of a dataset in the schema.

    Parameters
    ----------
    neurodata_type : str
        Type of the group; "TimeSeries" for any series.
    name : str
        Name of the dataset.
    path : str or None
        Path of the group, without the leading slash: tables at fixed paths have the type DynamicTable in
        older files, and other types in extensions.

    Returns
    -------
    int or None
        0 for a scalar; None if the schema does not define it, and for custom columns.
    """
    return fields_of(neurodata_type, path).get(name)


def fields_of(neurodata_type: str, path: str | None = None) -> Mapping[str, int]:
    """Return the number of dimensions of the datasets of a group in the schema; see `field_ndim`."""
    if path == ELECTRODES:
        neurodata_type = "ElectrodesTable"
    elif path in {"", GENERAL}:
        neurodata_type = "NWBFile"
    elif path == SUBJECT:
        neurodata_type = "Subject"
    elif path == "units":
        neurodata_type = "Units"
    elif path is not None and path.startswith("intervals/"):
        neurodata_type = "TimeIntervals"
    return FIELD_NDIM.get(neurodata_type, {})


#: Attributes that are one-dimensional arrays in the schema.
ARRAY_ATTRIBUTES = frozenset(
    {"colnames", "categories", "starting_frame", "dimension", "field_of_view", "shape"}
)
#: Attributes that are scalars in the schema, for all objects.
SCALAR_ATTRIBUTES = frozenset(
    {
        # of every object
        *("neurodata_type", "namespace", "object_id", "nwb_version", "description", "comments", "notes"),
        # of the data of series
        *("conversion", "offset", "resolution", "unit", "continuity", "rate", "interval", "axis"),
        # of types of series
        *("filtering", "stimulus_description", "sweep_number", "pmt_gain", "scan_line_rate"),
        *("exposure_time", "binning", "power", "intensity"),
        # of columns and tables
        *("sampling_rate", "time_before_peak_in_ms", "source_description", "target", "table", "elements"),
        # of metadata
        *("file_name", "reference", "location", "manufacturer", "model_number", "model_name"),
        *("serial_number", "image_mode", "image_format", "bits_per_pixel", "focal_depth", "format"),
    }
)

#: Members of a series whose paths are aliases of the series.
SERIES_MEMBERS = frozenset({"data", "timestamps"})
_INDEX_SUFFIXES = ("", "_index", "_index_index")
#: Names of groups in the schema, by the paths of their parents.
_GROUPS = {
    "": (*sorted(ROOT_GROUPS), "specifications"),
    GENERAL: (
        *("devices", "extracellular_ephys", "intracellular_ephys", "lab_meta_data", "optogenetics"),
        *("optophysiology", "subject"),
    ),
    "general/extracellular_ephys": ("electrodes",),
    "general/intracellular_ephys": (
        *("experimental_conditions", "filtering", "intracellular_recordings", "repetitions"),
        *("sequential_recordings", "simultaneous_recordings", "sweep_table"),
    ),
    "intervals": ("epochs", "invalid_times", "trials"),
    "processing": ("behavior", "ecephys", "icephys", "misc", "ophys"),
    "stimulus": ("presentation", "templates"),
}
#: Names of members in the schema of groups at fixed paths.
_MEMBERS = {
    **_GROUPS,
    "": (*_GROUPS[""], *(name for name, field in SESSION_FIELDS.items() if field.in_root)),
    GENERAL: (*_GROUPS[GENERAL], *(name for name, field in SESSION_FIELDS.items() if not field.in_root)),
    SUBJECT: tuple(SUBJECT_FIELDS),
}


def likely_members(path: str, columns: list[str]) -> list[str]:
    """Return the names to probe in a group of a store that cannot list its members.

    Parameters
    ----------
    path : str
        Path of the group, without the leading slash.
    columns : list of str
        Columns and categories in the attributes of the group.
    """
    if path in _MEMBERS:
        return list(_MEMBERS[path])
    if columns:
        names = [column for column in columns if "/" not in column and "\0" not in column]
        return ["id", *(name + suffix for name in names for suffix in _INDEX_SUFFIXES)]
    return ["id", "data", "timestamps", "starting_time", "external_file"]
