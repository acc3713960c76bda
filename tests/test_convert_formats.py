"""Types in each output format, read by independent libraries of these formats."""

import json
import math

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import GZIP, VLEN_TEXT, Column, Ragged, table
from checks import assert_frames, assert_table, assert_values
from readers import hdf5_tables as oracle

CASES = ("numeric", "enums", "texts", "vlen_numbers", "complex_numbers", "compounds", "references", "aligned")
#: Those that hold every kind of type, for formats that take longer.
FEW = ("numeric", "enums", "compounds", "texts")
READERS = {"parquet": pl.read_parquet, "arrow": pl.read_ipc, "feather": pl.read_ipc}


def convert(path, folder, output_format, **options):
    return lazynwb.convert_nwb_tables(
        path, folder, output_format=output_format, ignore_errors=False, **options
    )


def plain(value):
    """Tuples as lists, at any depth."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def without_nan(value):
    """Return the JSON equivalent of a value, without NaN and infinities."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@pytest.mark.parametrize("output_format", READERS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(2)
def test_parquet_and_arrow_give_back_every_type_and_value(built, tmp_path, name, output_format):
    path = built(name)
    found = convert(path, tmp_path, output_format)
    assert set(found) == {"/" + t.strip("/") for t in oracle.tables(path) if not _is_series(path, t)}
    for label, out in found.items():
        frame = READERS[output_format](out)
        assert_table(frame, oracle.read_table(path, label), path, label)
        assert_frames(frame, lazynwb.read_nwb(path, label))


def _is_series(path, label):
    with h5py.File(path) as file:
        kind = file[label].attrs.get("neurodata_type", "")
        return kind.endswith("Series")


@pytest.mark.parametrize("name", FEW)
def test_delta_lake_preserves_every_value(built, tmp_path, name):
    path = built(name)
    for label, out in convert(path, tmp_path, "delta").items():
        expected = lazynwb.read_nwb(path, label)
        frame = pl.read_delta(str(out)).sort("_table_index")
        assert_frames(frame.select(pl.col(n).cast(d) for n, d in expected.schema.items()), expected)


@pytest.mark.parametrize("name", FEW)
def test_duckdb_preserves_every_value(built, tmp_path, name):
    import duckdb

    path = built(name)
    for label, out in convert(path, tmp_path, "duckdb").items():
        expected = lazynwb.read_nwb(path, label)
        with duckdb.connect(str(out), read_only=True) as connection:
            rows = connection.execute(f'SELECT * FROM "{label.rsplit("/", 1)[-1]}"').fetchall()  # noqa: S608
        for at, column in enumerate(expected.columns):
            assert_values([plain(row[at]) for row in rows], plain(expected[column].to_list()), column)


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """A column of each supported type, with extreme values."""
    path = tmp_path_factory.mktemp("typed") / "typed.nwb"
    columns = {}
    for kind in "iu":
        for size in (1, 2, 4, 8):
            limits = np.iinfo(f"{kind}{size}")
            columns[f"{kind}{size}"] = np.array([limits.min, limits.max], f"{kind}{size}")
    for size in (2, 4, 8):
        limits = np.finfo(f"f{size}")
        columns[f"f{size}"] = np.array([limits.max, limits.tiny], f"f{size}")
    columns["bool"] = np.array([True, False])
    columns["text"] = ["ü", ""]
    columns["enum"] = Column(np.array([0, 1]), {"dtype": h5py.enum_dtype({"a'b": 0, 'c"d': 1}, "i1")})
    columns["array"] = np.arange(12, dtype="u8").reshape(2, 2, 3) + np.uint64(2**63)
    columns["ragged"] = Ragged([[1.5], []])
    columns["twice_ragged"] = Ragged([[[1], []], [[2, 3]]], "u4", depth=2)
    columns["struct"] = np.array([(1, 0.5), (2, math.nan)], [("x", "u2"), ("weight", "f4")])
    columns["texts"] = Ragged([["a", "b"], []], VLEN_TEXT)
    with h5py.File(path, "w") as file:
        table(file, "t", columns)
    return path


#: In the order of the contract: what lazynwb has, what Delta Lake has, what DuckDB has.
TYPES = {
    "i1": ("Int8", "byte", "TINYINT"),
    "i2": ("Int16", "short", "SMALLINT"),
    "i4": ("Int32", "integer", "INTEGER"),
    "i8": ("Int64", "long", "BIGINT"),
    "u1": ("UInt8", "short", "UTINYINT"),
    "u2": ("UInt16", "integer", "USMALLINT"),
    "u4": ("UInt32", "long", "UINTEGER"),
    "u8": ("UInt64", "decimal(20,0)", "UBIGINT"),
    "f2": ("Float16", "float", "FLOAT"),
    "f4": ("Float32", "float", "FLOAT"),
    "f8": ("Float64", "double", "DOUBLE"),
    "bool": ("Boolean", "boolean", "BOOLEAN"),
    "text": ("String", "string", "VARCHAR"),
    "enum": ("Enum(categories=[\"a'b\", 'c\"d'])", "string", "ENUM('a''b', 'c\"d')"),
    "array": ("Array(UInt64, shape=(2, 3))", "array<array<decimal(20,0)>>", "UBIGINT[3][2]"),
    "ragged": ("List(Float64)", "array<double>", "DOUBLE[]"),
    "twice_ragged": ("List(List(UInt32))", "array<array<long>>", "UINTEGER[][]"),
    "struct": (
        "Struct({'x': UInt16, 'weight': Float32})",
        "struct<x:integer,weight:float>",
        "STRUCT(x USMALLINT, weight FLOAT)",
    ),
    "texts": ("List(String)", "array<string>", "VARCHAR[]"),
}


def test_types_in_delta_lake(typed, tmp_path):
    from deltalake import DeltaTable

    out = convert(typed, tmp_path, "delta")["/t"]
    fields = {field.name: field.type for field in DeltaTable(str(out)).schema().fields}
    assert {name: _spelled(fields[name]) for name in TYPES} == {name: t[1] for name, t in TYPES.items()}
    schema = lazynwb.get_table_schema(typed, "t")
    assert {name: str(schema[name]) for name in TYPES} == {name: t[0] for name, t in TYPES.items()}
    expected = lazynwb.read_nwb(typed, "t")
    frame = pl.read_delta(str(out))
    for name in TYPES:  # as Python values: 2**64 - 1 as a decimal equals the integer
        assert_values(frame[name].to_list(), expected[name].to_list(), name)


def _spelled(kind):
    if hasattr(kind, "fields"):
        return f"struct<{','.join(f'{f.name}:{_spelled(f.type)}' for f in kind.fields)}>"
    return f"array<{_spelled(kind.element_type)}>" if hasattr(kind, "element_type") else kind.type


def test_types_in_duckdb(typed, tmp_path):
    import duckdb

    out = convert(typed, tmp_path, "duckdb")["/t"]
    with duckdb.connect(str(out), read_only=True) as connection:
        found = {row[0]: row[1] for row in connection.execute("DESCRIBE t").fetchall()}
        rows = connection.execute("SELECT * FROM t").fetchall()
    described = {name: kind.replace('"', "") if name == "struct" else kind for name, kind in found.items()}
    assert {name: described[name] for name in TYPES} == {name: t[2] for name, t in TYPES.items()}
    expected = lazynwb.read_nwb(typed, "t")
    for at, name in enumerate(found):
        assert_values([plain(row[at]) for row in rows], expected[name].to_list(), name)


def test_large_arrays_are_lists_in_duckdb_without_memory_for_missing_rows(tmp_path):
    """A vector of DuckDB has room for 2048 rows: 640 MiB of these arrays, more than its limit."""
    import duckdb

    large = np.arange(5 * 40_960, dtype="f8").reshape(5, 20, 2048)
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "t", {"large": large, "small": np.arange(10.0).reshape(5, 2)})
    out = convert(tmp_path / "a.nwb", tmp_path / "out", "duckdb")["/t"]
    with duckdb.connect(str(out), read_only=True) as connection:
        kinds = {row[0]: row[1] for row in connection.execute("DESCRIBE t").fetchall()}
        rows = connection.execute("SELECT large FROM t ORDER BY _table_index").fetchall()
    assert (kinds["large"], kinds["small"]) == ("DOUBLE[][]", "DOUBLE[2]")
    assert np.array_equal(np.array([row[0] for row in rows]), large)


def test_rows_of_many_duckdb_vectors_keep_their_order(tmp_path):
    import duckdb

    for name, offset in (("a", 0), ("b", 5000)):
        with h5py.File(tmp_path / f"{name}.nwb", "w") as file:
            table(file, "t", {"x": np.arange(5000) + offset, "wide": np.ones((5000, 100))})
    out = convert([tmp_path / "a.nwb", tmp_path / "b.nwb"], tmp_path / "out", "duckdb")["/t"]
    with duckdb.connect(str(out), read_only=True) as connection:
        rows = connection.execute("SELECT x, list_sum(wide::DOUBLE[]) FROM t").fetchall()
        groups = connection.execute(
            "SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('t')"
        ).fetchone()[0]
    assert rows == [(number, 100.0) for number in range(10_000)]
    assert groups == 5  # of 2048 rows, as rows are large


@pytest.mark.parametrize("name", CASES)
def test_csv_holds_every_value_as_text(built, tmp_path, name):
    path = built(name)
    for label, out in convert(path, tmp_path, "csv").items():
        expected = lazynwb.read_nwb(path, label)
        frame = pl.read_csv(out, infer_schema=False)
        assert frame.columns == expected.columns
        for column, dtype in expected.schema.items():
            texts, values = frame[column].to_list(), expected[column].to_list()
            if dtype.is_nested():
                found = [None if text is None else json.loads(text) for text in texts]
                values = [without_nan(value) for value in values]
            elif dtype.is_float():
                found = [None if text is None else float(text) for text in texts]
                if dtype != pl.Float64:  # the shortest text that is no other value of the type
                    found = pl.Series(found, dtype=pl.Float64).cast(dtype).to_list()
            elif dtype.is_integer():
                found = [None if text is None else int(text) for text in texts]
            elif dtype == pl.Boolean:
                found = [{"true": True, "false": False}[text] for text in texts]
            else:
                found = texts
            _assert_as_stored(found, values, dtype, column)


@pytest.mark.parametrize("output_format", ["json", "ndjson"])
@pytest.mark.parametrize("name", CASES)
def test_json_holds_every_value(built, tmp_path, name, output_format):
    path = built(name)
    for label, out in convert(path, tmp_path, output_format).items():
        expected = lazynwb.read_nwb(path, label)
        text = out.read_text(encoding="utf-8")
        rows = json.loads(text) if output_format == "json" else list(map(json.loads, text.splitlines()))
        assert [list(row) for row in rows] == [expected.columns] * expected.height
        for column, dtype in expected.schema.items():
            values = [without_nan(value) for value in expected[column].to_list()]
            _assert_as_stored([row[column] for row in rows], values, dtype, column)


def _assert_as_stored(found, values, dtype, column):
    """Floats of less than 64 bits have shorter texts, that mean the same value of their type."""
    if "Float32" in str(dtype) or "Float16" in str(dtype):
        found, values = (pl.Series(v, dtype=dtype, strict=False).to_list() for v in (found, values))
    assert_values(found, values, column)


def test_an_empty_table_is_an_empty_list_in_json(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "t", {"x": np.zeros(0)})
    assert json.loads(convert(tmp_path / "a.nwb", tmp_path / "out", "json")["/t"].read_text()) == []


# --- Excel --------------------------------------------------------------------------------------------


@pytest.fixture
def sheet(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        columns = {
            "big": np.array([2**63 - 1, 1]),
            "formula": ["=1+1", "http://x.org"],
            "spikes": Ragged([[0.5], []]),
            "n": np.array([1.25, -3]),
            "enum": Column(np.array([0, 1]), {"dtype": h5py.enum_dtype({"a": 0, "b": 1}, "i1")}),
        }
        columns["N"] = np.array([7, 8])
        table(file, "t", columns)
    return tmp_path / "a.nwb"


def test_excel_holds_numbers_and_texts_as_they_are(sheet, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    out = convert(sheet, tmp_path, "excel")["/t"]
    rows = list(openpyxl.load_workbook(out).active.values)
    found = {name: [row[at] for row in rows[1:]] for at, name in enumerate(rows[0])}
    assert found["big"] == [str(2**63 - 1), "1"]  # a double would be another number
    assert found["formula"] == ["=1+1", "http://x.org"]
    assert found["spikes"] == ["[0.5]", "[]"]
    assert found["N"] == [7, 8]
    assert found["n_2"] == [1.25, -3]
    assert found["enum"] == ["a", "b"]


def test_a_formula_in_a_file_stays_a_text_in_excel(sheet, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    out = convert(sheet, tmp_path, "excel")["/t"]
    cells = [cell for row in openpyxl.load_workbook(out).active.rows for cell in row]
    assert next(cell.data_type for cell in cells if cell.value == "=1+1") in {"s", "inlineStr"}
    assert not any(cell.hyperlink for cell in cells)


def test_more_rows_than_a_worksheet_has_are_refused_before_reading(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "t", {"x": Column(np.zeros(1_048_576, "i1"), {"chunks": (65_536,), **GZIP})})
    with lazynwb.profile() as cost, pytest.raises(lazynwb.LazyNWBError, match=r"1048576 rows.*parquet"):
        convert(tmp_path / "a.nwb", tmp_path / "out", "excel")
    assert cost.chunks_decoded == 0
    assert not list((tmp_path / "out").glob("*.xlsx"))


def test_a_text_longer_than_a_cell_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "t", {"x": Ragged([np.arange(20_000.0), []])})
    with pytest.raises(lazynwb.UnsupportedTypeError, match=r"'x' of /t.*exclude_array_columns"):
        convert(tmp_path / "a.nwb", tmp_path / "out", "excel")
    assert convert(tmp_path / "a.nwb", tmp_path / "out", "excel", exclude_array_columns=True)


# --- limits of formats --------------------------------------------------------------------------------


@pytest.mark.parametrize("output_format", ["parquet", "duckdb", "csv"])
def test_columns_without_a_type_are_omitted_with_a_warning(built, tmp_path, caplog, output_format):
    path = built("unsupported_types")
    convert(path, tmp_path, output_format)
    assert "'opaque'" in caplog.text
    assert "'region_reference'" in caplog.text
    assert str(path) in caplog.text


@pytest.mark.parametrize("output_format", ["delta", "duckdb"])
def test_columns_that_differ_only_in_case_are_numbered(tmp_path, output_format):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "t", {"Rate": [1], "rate": [2], "rate_2": [3], 'odd "name", *': [4], "^a$": [5]})
    out = convert(tmp_path / "a.nwb", tmp_path / "out", output_format)["/t"]
    if output_format == "delta":
        row = pl.read_delta(str(out)).row(0, named=True)
    else:
        import duckdb

        with duckdb.connect(str(out), read_only=True) as connection:
            result = connection.execute("SELECT * FROM t")
            row = dict(zip([d[0] for d in result.description], result.fetchone(), strict=True))
    assert [row[n] for n in ("Rate", "rate_3", "rate_2", 'odd "name", *', "^a$")] == [1, 2, 3, 4, 5]


def test_options_are_passed_to_the_writer(cube, tmp_path):
    import pyarrow.parquet as pq

    out = lazynwb.convert_nwb_tables(cube, tmp_path, tables="units", compression="snappy", statistics=False)
    chunk = pq.ParquetFile(out["/units"]).metadata.row_group(0).column(0)
    assert chunk.compression == "SNAPPY"
    assert chunk.statistics is None
    text = lazynwb.convert_nwb_tables(cube, tmp_path, output_format="csv", tables="trials", separator=";")
    assert ";start_time;" in text["/intervals/trials"].read_text().splitlines()[0]
    small = lazynwb.convert_nwb_tables(
        cube, tmp_path, output_format="csv", tables="trials", compression="gzip"
    )
    assert small["/intervals/trials"].name == "trials.csv.gz"
    assert_frames(
        pl.read_csv(small["/intervals/trials"]), pl.read_csv(text["/intervals/trials"], separator=";")
    )


def test_parquet_has_statistics_and_zstd_by_default(cube, tmp_path):
    import pyarrow.parquet as pq

    out = lazynwb.convert_nwb_tables(cube, tmp_path, tables="trials")["/intervals/trials"]
    group = pq.ParquetFile(out).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    starts = lazynwb.read_nwb(cube, "trials")["start_time"]
    assert columns["start_time"].compression == "ZSTD"
    assert columns["start_time"].statistics.min == starts.min()
    assert columns["start_time"].statistics.max == starts.max()


def test_row_groups_follow_the_size_of_rows(cube, tmp_path):
    import pyarrow.parquet as pq

    row = 8 * 82 * 384  # more than a row of this cube takes
    for size in (row, 64 * row):
        out = lazynwb.convert_nwb_tables(cube, tmp_path / str(size), row_group_bytes=size, tables="units")
        metadata = pq.ParquetFile(out["/units"]).metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        assert max(g.total_byte_size for g in groups) <= 1.5 * size or max(g.num_rows for g in groups) <= 16
        assert sum(g.num_rows for g in groups) == 240
    frames = [pl.read_parquet(tmp_path / str(size) / "units.parquet") for size in (row, 64 * row)]
    assert_frames(*frames)


def test_output_does_not_depend_on_modification_times(cube, tmp_path):
    """Two equal calls write the same bytes."""
    a, b = (lazynwb.convert_nwb_tables(cube, tmp_path / name, tables="trials") for name in "ab")
    assert a["/intervals/trials"].read_bytes() == b["/intervals/trials"].read_bytes()
