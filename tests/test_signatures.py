"""Every call that is valid for the PyPI package of the same name binds."""

import inspect

import polars as pl
import pytest

import lazynwb

SCAN = {
    "raise_on_missing": False,
    "ignore_errors": False,
    "infer_schema_length": None,
    "exclude_array_columns": False,
    "low_memory": False,
    "single_file_batches": False,
    "schema": None,
    "schema_overrides": None,
    "disable_progress": False,
}
SQL = {
    "full_path": False, "min_file_count": 1, "exclude_array_columns": False, "exclude_timeseries": False,
    "ignore_errors": True, "disable_progress": False, "infer_schema_length": None, "table_names": None,
    "rename_general_metadata": True,
}  # fmt: skip
PATHS = {
    "include_child_datasets": False, "include_table_columns": False, "include_metadata": False,
    "include_specifications": False, "parents": False,
}  # fmt: skip
SCHEMA = {
    "first_n_files_to_infer_schema": None, "exclude_array_columns": False, "exclude_internal_columns": False,
    "raise_on_missing": False,
}  # fmt: skip


@pytest.mark.parametrize("function", ["scan_nwb", "read_nwb"])
def test_scan(function):
    signature = inspect.signature(getattr(lazynwb, function))
    signature.bind("a.nwb", "/units", **SCAN)
    signature.bind("a.nwb", "/units", *SCAN.values())
    signature.bind(source="a.nwb", table_path="/units")


def test_defaults_of_a_scan():
    parameters = inspect.signature(lazynwb.scan_nwb).parameters
    assert list(parameters)[: 2 + len(SCAN)] == ["source", "table_path", *SCAN]
    assert {name: parameters[name].default for name in SCAN} == SCAN


@pytest.mark.parametrize("function", ["scan_nwb", "read_nwb"])
def test_unknown_options_are_refused(function, cube):
    with pytest.raises(TypeError, match="no_such_option"):
        getattr(lazynwb, function)(cube, "/units", no_such_option=True)


def test_sql():
    signature = inspect.signature(lazynwb.get_sql_context)
    signature.bind(["a.nwb"], **SQL, eager=True)
    signature.bind(nwb_sources=["a.nwb"])
    assert {name: signature.parameters[name].default for name in SQL} == SQL


def test_internal_paths():
    signature = inspect.signature(lazynwb.get_internal_paths)
    signature.bind(nwb_path="a.nwb", **PATHS)
    signature.bind("a.nwb", *PATHS.values())


def test_table_schema():
    signature = inspect.signature(lazynwb.get_table_schema)
    signature.bind(file_paths="a.nwb", table_path="/units", **SCHEMA)
    signature.bind(["a.nwb"], "/units", *SCHEMA.values())


def test_clear_cache():
    inspect.signature(lazynwb.clear_cache).bind()


def test_constants_and_public_names():
    assert lazynwb.NWB_PATH_COLUMN_NAME == "_nwb_path"
    assert lazynwb.TABLE_PATH_COLUMN_NAME == "_table_path"
    assert lazynwb.TABLE_INDEX_COLUMN_NAME == "_table_index"
    for name in lazynwb.__all__:
        assert getattr(lazynwb, name) is not None
    assert {"scan_nwb", "read_nwb", "get_sql_context", "get_internal_paths", "config"} <= set(dir(lazynwb))


def test_what_is_returned(cube):
    assert type(lazynwb.scan_nwb(cube[0], "/units")) is pl.LazyFrame
    assert type(lazynwb.read_nwb(cube[0], "/units")) is pl.DataFrame
    assert type(lazynwb.get_table_schema(cube[0], "/units")) is pl.Schema


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        ("SourceNotFoundError", FileNotFoundError),
        ("NotNWBError", ValueError),
        ("TableNotFoundError", KeyError),
        ("SchemaError", TypeError),
        ("CorruptDataError", ValueError),
        ("UnsupportedTypeError", TypeError),
    ],
)
def test_errors(error, bases):
    assert issubclass(getattr(lazynwb, error), (bases,))
    assert issubclass(getattr(lazynwb, error), lazynwb.LazyNWBError)


def test_public_functions_are_documented():
    for name in lazynwb.__all__:
        thing = getattr(lazynwb, name)
        if inspect.isroutine(thing) or inspect.isclass(thing):
            assert inspect.getdoc(thing), name
