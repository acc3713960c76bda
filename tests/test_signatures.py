"""Every valid call of the PyPI package of the same name, version 1.0.0, is valid here."""

import importlib
import inspect
from typing import Any, NamedTuple

import polars as pl
import pytest

import lazynwb

EMPTY = inspect.Parameter.empty


class Call(NamedTuple):
    """The parameters of one function: those without a default, those with one, and those by name alone."""

    required: list[str]
    positional: dict[str, Any]
    by_name: dict[str, Any]


SCAN = Call(
    ["source", "table_path"],
    {
        "raise_on_missing": False, "ignore_errors": False, "infer_schema_length": None,
        "exclude_array_columns": False, "low_memory": False, "single_file_batches": False, "schema": None,
        "schema_overrides": None, "disable_progress": False,
    },
    {},
)  # fmt: skip
PATHS = Call(
    ["nwb_path"],
    {
        "include_child_datasets": False, "include_table_columns": False, "include_metadata": False,
        "include_specifications": False, "parents": False,
    },
    {},
)  # fmt: skip
COLUMNS = {"include_column_names": None, "exclude_column_names": None}

#: What that package's functions take; parameters with a leading underscore are left out.
#: `convert_nwb_tables` follows with the module that converts.
CALLS = {
    "scan_nwb": SCAN,
    "read_nwb": SCAN,
    "get_df": Call(
        ["nwb_data_sources", "search_term"],
        {
            "exact_path": False, **COLUMNS, "nwb_path_to_row_indices": None, "exclude_array_columns": True,
            "parallel": True, "use_process_pool": False, "disable_progress": False, "raise_on_missing": False,
            "ignore_errors": False, "low_memory": False, "as_polars": None,
        },
        {},
    ),
    "get": Call(
        ["nwb_data_sources", "search_term"],
        {},
        {
            "as_df": False, "exact_path": False, **COLUMNS, "exclude_array_columns": True,
            "use_process_pool": False, "disable_progress": False, "raise_on_missing": False,
            "ignore_errors": False, "as_polars": None,
        },
    ),
    "get_timeseries": Call(
        ["nwb_path"], {"search_term": None, "exact_path": False, "match_all": False}, {}
    ),
    "get_metadata_df": Call(["nwb_path_or_paths"], {"disable_progress": False, "as_polars": None}, {}),
    "get_attrs": Call(
        ["nwb_path", "internal_path"], {"exclude_private": True, "exclude_empty_fields": False}, {}
    ),
    "get_sub_attrs": Call(
        ["nwb_path"], {"parent_path": "/", "exclude_private": True, "exclude_empty": True}, {}
    ),
    "consolidate_attrs": Call(["nwb_paths", "internal_path"], {"exclude_private": True}, {}),
    "clear_attrs_cache": Call([], {"nwb_path": None}, {}),
    "merge_array_column": Call(["df", "column_name"], {"missing_ok": True}, {}),
    "get_spike_times_in_intervals": Call(
        ["filtered_units_df", "intervals"],
        {
            "intervals_df": "/intervals/trials", "intervals_df_filter": None, "apply_obs_intervals": True,
            "as_counts": False, "keep_only_necessary_cols": False, "use_process_pool": True,
            "disable_progress": False, "as_polars": None, "align_times": False,
        },
        {},
    ),
    "insert_is_observed": Call(["intervals_frame"], {"units_frame": None, "col_name": "is_observed"}, {}),
    "get_internal_paths": PATHS,
    "get_internal_path_info": PATHS,
    "get_table_schema": Call(
        ["file_paths", "table_path"],
        {
            "first_n_files_to_infer_schema": None, "exclude_array_columns": False,
            "exclude_internal_columns": False, "raise_on_missing": False,
        },
        {},
    ),
    "get_sql_context": Call(
        ["nwb_sources"],
        {},
        {
            "full_path": False, "min_file_count": 1, "exclude_array_columns": False,
            "exclude_timeseries": False, "ignore_errors": True, "disable_progress": False,
            "infer_schema_length": None, "table_names": None, "rename_general_metadata": True,
        },
    ),
    "get_dandi_sources": Call(
        ["dandiset_id"],
        {"version": None, "order": "path"},
        {"asset_ids": None, "asset_filter": None, "max_assets": None},
    ),
    "clear_cache": Call([], {}, {}),
    "LazyNWB": Call(["path"], {}, {}),
    "LazyNWB.get": Call(
        ["search_term"],
        {},
        {
            "as_df": False, "exact_path": False, **COLUMNS, "exclude_array_columns": True,
            "use_process_pool": False, "disable_progress": True, "raise_on_missing": True,
            "ignore_errors": False, "as_polars": None,
        },
    ),
    "LazyNWB.get_df": Call(
        ["search_term"],
        {
            "exact_path": False, **COLUMNS, "exclude_array_columns": True, "use_process_pool": False,
            "disable_progress": True, "raise_on_missing": True, "ignore_errors": False, "as_polars": None,
        },
        {},
    ),
    "LazyNWB.get_timeseries": Call([], {"search_term": None}, {}),
    "LazyNWB.describe": Call([], {}, {}),
}  # fmt: skip

#: What its objects have; each of these is None or a value in a file that lacks it, not an error.
SESSION = [
    "data_collection", "electrodes", "epochs", "experiment_description", "experimenter", "identifier",
    "institution", "keywords", "lab", "notes", "pharmacology", "related_publications", "session_description",
    "session_id", "session_start_time", "source_script", "source_script_file_name", "subject", "surgery",
    "trials", "units", "virus",
]  # fmt: skip
SUBJECT = [
    "age", "age__reference", "date_of_birth", "description", "genotype", "sex", "species", "strain",
    "subject_id", "weight",
]  # fmt: skip
SERIES = [
    "conversion", "data", "description", "electrodes", "offset", "rate", "resolution", "starting_time",
    "timestamps", "timestamps_unit", "unit",
]  # fmt: skip


def parameters_of(name):
    """The function's own parameters, by name; `self` left out."""
    owner, _, method = name.partition(".")
    function = getattr(lazynwb, owner)
    signature = inspect.signature(getattr(function, method) if method else function)
    parameters = [p for p in signature.parameters.values() if not (method and p.name == "self")]
    return signature.replace(parameters=parameters)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_by_position(name):
    call, signature = CALLS[name], parameters_of(name)
    in_order = [*call.required, *call.positional]
    bound = signature.bind(*in_order)
    assert list(bound.arguments) == in_order
    assert list(bound.arguments.values()) == in_order


@pytest.mark.parametrize("name", CALLS)
def test_a_call_by_name(name):
    call, signature = CALLS[name], parameters_of(name)
    given = {key: key for key in [*call.required, *call.positional, *call.by_name]}
    assert signature.bind(**given).arguments == given
    assert signature.bind(*call.required).arguments == {key: key for key in call.required}


@pytest.mark.parametrize("name", CALLS)
def test_the_defaults(name):
    call, signature = CALLS[name], parameters_of(name)
    defaults = {key: signature.parameters[key].default for key in [*call.positional, *call.by_name]}
    assert defaults == {**call.positional, **call.by_name}
    assert all(
        type(defaults[key]) is type(value) for key, value in {**call.positional, **call.by_name}.items()
    )
    assert all(signature.parameters[key].default is EMPTY for key in call.required)


@pytest.mark.parametrize("name", CALLS)
def test_new_parameters_are_optional(name):
    call, signature = CALLS[name], parameters_of(name)
    known = {*call.required, *call.positional, *call.by_name}
    new = [parameter for key, parameter in signature.parameters.items() if key not in known]
    assert all(p.default is not EMPTY or p.kind is p.VAR_KEYWORD for p in new)


def test_options_of_an_sql_context_are_passed_on():
    assert "eager" in parameters_of("get_sql_context").bind(["a.nwb"], eager=True).kwargs


@pytest.mark.parametrize("function", ["scan_nwb", "read_nwb"])
def test_unknown_options_are_refused(function, cube):
    with pytest.raises(TypeError, match="no_such_option"):
        getattr(lazynwb, function)(cube, "/units", no_such_option=True)


@pytest.mark.parametrize("name", SESSION)
def test_members_of_a_session(cube, name):
    getattr(lazynwb.LazyNWB(cube[0]), name)


@pytest.mark.parametrize("name", SUBJECT)
def test_members_of_a_subject(cube, name):
    getattr(lazynwb.LazyNWB(cube[0]).subject, name)


@pytest.mark.parametrize("name", SERIES)
def test_members_of_a_series(name):
    assert (
        inspect.getattr_static(importlib.import_module("lazynwb.series.timeseries").TimeSeries, name)
        is not None
    )


def test_constants_and_public_names():
    assert lazynwb.NWB_PATH_COLUMN_NAME == "_nwb_path"
    assert lazynwb.TABLE_PATH_COLUMN_NAME == "_table_path"
    assert lazynwb.TABLE_INDEX_COLUMN_NAME == "_table_index"
    for name in lazynwb.__all__:
        assert getattr(lazynwb, name) is not None
    assert {"scan_nwb", "read_nwb", "get_sql_context", "get_internal_paths", "config"} <= set(dir(lazynwb))


def test_return_types(cube):
    assert type(lazynwb.scan_nwb(cube[0], "/units")) is pl.LazyFrame
    assert type(lazynwb.read_nwb(cube[0], "/units")) is pl.DataFrame
    assert type(lazynwb.get_table_schema(cube[0], "/units")) is pl.Schema


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        ("SourceNotFoundError", FileNotFoundError),
        ("NotNWBError", ValueError),
        ("TableNotFoundError", KeyError),
        ("ColumnNotFoundError", KeyError),
        ("SchemaError", TypeError),
        ("CorruptDataError", ValueError),
        ("UnsupportedTypeError", TypeError),
        ("MissingPackageError", ImportError),
    ],
)
def test_base_classes_of_errors(error, bases):
    assert issubclass(getattr(lazynwb, error), (bases,))
    assert issubclass(getattr(lazynwb, error), lazynwb.LazyNWBError)


def test_public_functions_are_documented():
    for name in lazynwb.__all__:
        thing = getattr(lazynwb, name)
        if inspect.isroutine(thing) or inspect.isclass(thing):
            assert inspect.getdoc(thing), name
