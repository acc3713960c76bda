"""Names that NWB gives to what a session has: those to look for where a store cannot list its members."""

from __future__ import annotations

_TEXTS = "data_collection experiment_description experimenter institution keywords lab notes pharmacology"
_MORE_TEXTS = (
    "protocol related_publications session_id slices source_script stimulus surgery virus was_generated_by"
)
_GROUPS = "devices extracellular_ephys intracellular_ephys lab_meta_data optogenetics optophysiology subject"
_ROOT = "acquisition analysis events general intervals processing scratch stimulus specifications units"
_ROOT_TEXTS = "file_create_date identifier session_description session_start_time timestamps_reference_time"
_SUBJECT = "age age__reference date_of_birth description genotype sex species strain subject_id weight"

#: Members of the groups that every session has, by path.
_MEMBERS = {
    "": f"{_ROOT} {_ROOT_TEXTS}",
    "general": f"{_TEXTS} {_MORE_TEXTS} {_GROUPS}",
    "general/subject": _SUBJECT,
    "general/extracellular_ephys": "electrodes",
    "general/intracellular_ephys": (
        "experimental_conditions filtering intracellular_recordings repetitions sequential_recordings "
        "simultaneous_recordings sweep_table"
    ),
    "intervals": "epochs invalid_times trials",
    "processing": "behavior ecephys icephys misc ophys",
    "stimulus": "presentation templates",
}
_SERIES = ("data", "timestamps", "starting_time", "external_file")
_INDICES = ("", "_index", "_index_index")


def likely_members(path: str, columns: list[str]) -> list[str]:
    """Return the names that a group may have members of.

    Parameters
    ----------
    path : str
    columns : list of str
        What it says itself of its columns and categories.
    """
    if path in _MEMBERS:
        return _MEMBERS[path].split()
    if columns:
        names = [column for column in columns if "/" not in column and "\0" not in column]
        return ["id", *(name + suffix for name in names for suffix in _INDICES)]
    return ["id", *_SERIES]
