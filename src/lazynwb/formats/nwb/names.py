"""Names that the NWB schema fixes: groups, tables, fields and attributes, with their dimensions.

The schema (NWB core 2.x and HDMF common) says of each dataset and attribute whether it is a scalar or an
array. Writers do not always follow it, so readers consult these tables. Names that are not here are the
user's own, and keep the shape in which they are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Short names of tables that the schema puts at a fixed path.
TABLE_SHORTCUTS = {
    "trials": "intervals/trials",
    "epochs": "intervals/epochs",
    "invalid_times": "intervals/invalid_times",
    "electrodes": "general/extracellular_ephys/electrodes",
    "session": "general",
    "subject": "general/subject",
}
#: Where files from before NWB 2 have tables that the schema has put elsewhere since.
OLDER_PATHS = {f"intervals/{name}": name for name in ("trials", "epochs", "invalid_times")}
#: Where a file has a table that it does not have at the path asked for: `/trials` in older files, and in
#: newer ones what a path that reads like a shortcut means.
OTHER_PATHS = {**TABLE_SHORTCUTS, **OLDER_PATHS}
GENERAL, SUBJECT, ELECTRODES = "general", "general/subject", "general/extracellular_ephys/electrodes"

#: Groups of the root group that hold data or metadata.
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
        "datetime" is the schema's `isodatetime`: text in ISO 8601.
    ndim : int
        0 for a scalar.
    in_root : bool
        A member of the root group; else of `/general`, or of `/general/subject`.
    optional : bool
        A column of `get_metadata_df` only where a file has it.
    """

    kind: Literal["text", "datetime"] = "text"
    ndim: int = 0
    in_root: bool = False
    optional: bool = False


_TEXT, _TEXTS, _RARE = Field(), Field(ndim=1), Field(optional=True)
#: Fields of NWBFile, in the order in which `get_metadata_df` shows them.
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
#: Fields of Subject, in the same order.
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
    """An attribute of a metadata field that is itself shown as a field.

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


#: Dimensions of the datasets of a type, where the schema allows one number only. Of a ragged column it is
#: the number of dimensions of the flat data.
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
    # Of any series: no name has other dimensions in another type of series.
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
    """Return the number of dimensions that the schema fixes for a dataset.

    Parameters
    ----------
    neurodata_type : str
        Of the group; "TimeSeries" for any series.
    name : str
        Of the dataset.
    path : str or None
        Of the group, without the leading slash: older files call the tables at fixed paths DynamicTable, and
        extensions give them types of their own.

    Returns
    -------
    int or None
        0 for a scalar; None where the schema fixes none, and for the user's own columns.
    """
    return fields_of(neurodata_type, path).get(name)


def fields_of(neurodata_type: str, path: str | None = None) -> Mapping[str, int]:
    """Return the number of dimensions that the schema fixes for the datasets of a group; see `field_ndim`."""
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


#: Attributes that are arrays in the schema, of one dimension.
ARRAY_ATTRIBUTES = frozenset(
    {"colnames", "categories", "starting_frame", "dimension", "field_of_view", "shape"}
)
#: Attributes that are scalars in the schema, whatever they are attributes of.
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

#: Members of a series whose path stands for the series.
SERIES_MEMBERS = frozenset({"data", "timestamps"})
_INDEX_SUFFIXES = ("", "_index", "_index_index")
#: Names of the groups that every session may have, by the path of their parent.
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
#: Names of all members that a group at a fixed path may have.
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
        Of the group, without the leading slash.
    columns : list of str
        The columns and categories that the group's attributes list.
    """
    if path in _MEMBERS:
        return list(_MEMBERS[path])
    if columns:
        names = [column for column in columns if "/" not in column and "\0" not in column]
        return ["id", *(name + suffix for name in names for suffix in _INDEX_SUFFIXES)]
    return ["id", "data", "timestamps", "starting_time", "external_file"]
