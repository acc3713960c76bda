"""Daft data frames of tables: the same rows as in Polars, for the same bytes."""
# ruff: noqa: E402 - whether Daft is there is asked first

import asyncio
import gc
import logging
import math
import os
import pickle
import time

import h5py
import numpy as np
import polars as pl
import pytest

os.environ["DAFT_ANALYTICS_ENABLED"] = "0"  # it would tell a server of each import and query
os.environ["DAFT_PROGRESS_BAR"] = "0"
daft = pytest.importorskip("daft", reason="pip install daft")

from daft import col, lit
from daft.io.__internal import _get_record_batches
from daft.io.pushdowns import Pushdowns
from hypothesis import given
from hypothesis import strategies as st

import builders
import lazynwb
import lazynwb.daft.dataframe
from checks import run_child, same
from lazynwb.daft.data_source import NWBSource, daft_schema, plain, record_batch
from lazynwb.daft.expressions import translate_filters
from lazynwb.errors import UnsupportedTypeError
from lazynwb.scan import plan_scan
from lazynwb.storage.resolve import expand
from lazynwb.storage.source import Options, Source

ORDER = ["_nwb_path", "_table_index"]


def polars_of(frame):
    """Return the rows of a Daft frame as a Polars frame."""
    return pl.from_arrow(frame.to_arrow())


def source_of(paths, table="/units", predicate=None, **options):
    return NWBSource(plan_scan(tuple(expand(paths)), table, **options), predicate)


def tasks_of(source, **pushdowns):
    return source.plan_tasks(Pushdowns(**pushdowns))


def good(units):
    """The second query of the notebook; Daft does not push functions down, so the prefix is a range."""
    return units.where(
        (col("location") >= "CA1")
        & (col("location") < "CA2")
        & (col("activity_drift") <= 0.3)
        & (col("amplitude_cutoff") <= 0.3)
        & (col("presence_ratio") >= 0.6)
        & (col("isi_violations_ratio") <= 0.8)
        & (col("decoder_label") != "noise")
    ).select("unit_id", "location", "spike_times", "_nwb_path")


def good_in_polars(units, prefix=pl.col("location").str.starts_with("CA1")):  # noqa: B008 - a constant
    return units.filter(
        prefix,
        pl.col("activity_drift") <= 0.3,
        pl.col("amplitude_cutoff") <= 0.3,
        pl.col("presence_ratio") >= 0.6,
        pl.col("isi_violations_ratio") <= 0.8,
        pl.col("decoder_label") != "noise",
    ).select("unit_id", "location", "spike_times", "_nwb_path")


# -- rows and types ---------------------------------------------------------------------------------------


def test_a_table_has_the_columns_and_rows_of_scan_nwb(cube):
    expected = lazynwb.read_nwb(cube, "/units")
    frame = lazynwb.daft.scan_nwb(cube, "/units")
    assert frame.column_names == expected.columns
    found = polars_of(frame.sort(ORDER))
    assert same(found.to_dict(as_series=False), expected.to_dict(as_series=False))


def test_tasks_planned_from_an_index_carry_its_catalogs(cube, tmp_path):
    lazynwb.build_index(cube, tmp_path / "index")
    expected = polars_of(lazynwb.daft.scan_nwb(cube, "/units").sort(ORDER))
    lazynwb.clear_cache()
    with lazynwb.profile() as planning:
        frame = lazynwb.daft.scan_nwb(None, "/units", index=tmp_path / "index", infer_schema_length=1)
    assert (planning.files_opened, planning.files_parsed) == (0, 0)
    with lazynwb.profile() as reading:
        found = polars_of(frame.sort(ORDER))
    assert found.equals(expected)
    assert reading.files_parsed < len(cube)  # for their chunks at most, and not for what they contain


CASES = [
    *(
        "numeric",
        "enums",
        "texts",
        "vlen_numbers",
        "complex_numbers",
        "compounds",
        "references",
        "array_types",
    ),
    *("raggedness", "empty_tables", "aligned", "time_series", "metadata", "plane_segmentations"),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.sample(3)
def test_every_column_type_equals_its_arrow_type(built, case):
    path = built(case)
    for table in lazynwb.get_internal_paths(path):
        try:
            frame = lazynwb.read_nwb(path, table)
        except lazynwb.LazyNWBError:
            continue
        given = polars_of(lazynwb.daft.scan_nwb(path, table))
        assert given.columns == frame.columns
        arrow = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        for name in frame.columns:
            assert given.schema[name] == plain(frame.schema[name])
            assert same(given[name].to_list(), arrow[name].to_pylist()), (table, name)


def test_enumerations_are_text_and_arrays_without_width_are_lists():
    enum = pl.Enum(["b", "a"])
    dtypes = {
        "enum": enum,
        "enums": pl.List(enum),
        "pair": pl.Array(enum, 2),
        "none": pl.Array(pl.Float64, (2, 0)),
        "struct": pl.Struct({"x": enum, "y": pl.UInt8}),
        "null": pl.Null(),
        "bytes": pl.Binary(),
        "half": pl.Float16(),
    }
    rows = [
        ["a", ["a", None], ["b", "a"], [[], []], {"x": "b", "y": 255}, None, b"\0", 0.5],
        [None, [], None, None, None, None, None, None],
    ]
    frame = pl.DataFrame(rows, schema=dtypes, orient="row")
    batch = record_batch(frame)
    assert batch.schema() == daft_schema(dtypes)
    assert batch.to_pydict() == frame.to_dict(as_series=False)


def test_a_type_that_daft_does_not_have_names_its_column():
    with pytest.raises(UnsupportedTypeError, match=r"column 'big': Daft has no type for Int128"):
        daft_schema({"big": pl.Int128()})


def test_session_columns_are_added_to_every_row(cube):
    frame = lazynwb.daft.scan_nwb(cube, "/units", session_columns=["session_id"], infer_schema_length=1)
    expected = lazynwb.read_nwb(cube, "/units", session_columns=["session_id"])
    first = expected["session_id"][0]
    with lazynwb.profile() as p:
        found = polars_of(frame.where(col("session_id") == first).select("unit_id"))
    assert found["unit_id"].to_list() == expected.filter(session_id=first)["unit_id"].to_list()
    assert p.files_skipped == 5


@pytest.fixture(scope="module")
def several_tables(tmp_path_factory):
    """Files with different tables, and an index of their values."""
    folder = tmp_path_factory.mktemp("several")
    for number in range(4):
        with h5py.File(folder / f"{number}.nwb", "w") as file:
            builders.table(file, "intervals/a_presentations", {"start_time": [1.0 * number, 2], "x": [1, 2]})
            if number % 2:
                builders.table(file, "intervals/b_presentations", {"start_time": [3.0, 4], "y": ["u", "v"]})
            if number < 3:
                spikes = builders.Ragged([[0.5], [1.5, 2.5]])
                builders.table(file, "units", {"quality": [number, 7], "spike_times": spikes})
            builders.table(file, "processing/ecephys/units", {"quality": [number + 0.5], "depth": [3]})
    paths = sorted(folder.glob("*.nwb"))
    lazynwb.build_index(paths, folder / "index", values=["intervals/a_presentations", "units"])
    return paths, folder / "index"


@pytest.mark.parametrize("pattern", ["/intervals/*_presentations", "**/units", "*_presentations"])
@pytest.mark.parametrize("origin", ["paths", "paths of an index", "index"])
@pytest.mark.parametrize("files_per_task", [None, 1])
def test_a_pattern_scans_all_matching_tables(several_tables, pattern, origin, files_per_task):
    paths, index = several_tables
    sources = None if origin == "index" else list(map(str, paths))
    expected = lazynwb.scan_nwb(paths, pattern).collect()
    tables = expected["_table_path"].unique()
    assert len(tables) == 2
    frame = lazynwb.daft.scan_nwb(
        sources, pattern, index=None if origin == "paths" else index, files_per_task=files_per_task
    )
    assert frame.column_names == expected.columns
    found = polars_of(frame)
    for path in map(str, paths):  # the rows of a file are ordered by table
        assert found.filter(_nwb_path=path).equals(expected.filter(_nwb_path=path))
    assert len(found) == len(expected) == frame.count_rows()
    for table in tables:
        some = polars_of(frame.where(col("_table_path") == table).sort(ORDER))
        assert some.equals(expected.filter(_table_path=table))


def test_large_tables_of_a_pattern_are_several_tasks(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "large.nwb", "w") as file:
        for table in ("a_presentations", "b_presentations"):
            wide = builders.Column(np.arange(20_000.0).reshape(-1, 10), options={"chunks": (100, 10)})
            builders.table(file, f"intervals/{table}", {"start_time": np.arange(2000.0), "wide": wide})
    monkeypatch.setattr(lazynwb.config, "batch_bytes", 40_000)
    made = []
    tasks = NWBSource.plan_tasks
    monkeypatch.setattr(NWBSource, "plan_tasks", lambda *given: made.append(tasks(*given)) or made[-1])
    frame = lazynwb.daft.scan_nwb([str(tmp_path / "large.nwb")], "/intervals/*_presentations")
    expected = lazynwb.read_nwb(tmp_path / "large.nwb", "/intervals/*_presentations")
    last = expected["_table_path"][-1]
    with lazynwb.profile() as costs:
        found = polars_of(frame.where((col("start_time") >= 50) & (col("_table_path") == last)).sort(ORDER))
    expected = expected.filter(pl.col("start_time") >= 50, _table_path=last)
    assert same(found.to_dict(as_series=False), expected.to_dict(as_series=False))
    assert len(made[-1]) > 3
    assert costs.tables_skipped  # those of the first table read nothing


# -- costs ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_store")
def test_the_second_query_of_the_notebook_reads_the_same_bytes(cube):
    expected_frame = good_in_polars(lazynwb.scan_nwb(cube, "/units", infer_schema_length=1))
    expected_frame.collect()  # where the chunks are is known from now on
    with lazynwb.profile() as expected:
        rows = expected_frame.collect()
    with lazynwb.profile() as p:
        frame = polars_of(good(lazynwb.daft.scan_nwb(cube, "/units", infer_schema_length=1)))
    assert rows.height > 10
    assert frame.sort("unit_id").equals(rows.sort("unit_id"))
    assert (p.bytes_read, p.chunks_decoded) == (expected.bytes_read, expected.chunks_decoded)
    assert [query.label for query in p.queries] == ["/units"]


def test_predicates_replace_filters_that_daft_does_not_push_down(cube, no_store):
    prefix = pl.col("location").str.starts_with("CA1")
    scan = lazynwb.scan_nwb(cube, "/units", infer_schema_length=1)
    good_in_polars(scan).collect()
    with lazynwb.profile() as expected:
        rows = good_in_polars(scan).collect()
    units = lazynwb.daft.scan_nwb(cube, "/units", predicate=prefix, infer_schema_length=1)
    with lazynwb.profile() as p:
        frame = polars_of(good(units))
    assert frame.sort("unit_id").equals(rows.sort("unit_id"))
    assert p.bytes_read == expected.bytes_read


def test_functions_in_filters_are_not_pushed_down(cube):
    units = lazynwb.daft.scan_nwb(cube, "/units")
    frame = polars_of(units.where(col("location").startswith("CA1") & (col("presence_ratio") > 0.5)))
    expected = lazynwb.read_nwb(cube, "/units").filter(
        pl.col("location").str.starts_with("CA1"), pl.col("presence_ratio") > 0.5
    )
    assert sorted(frame["unit_id"]) == sorted(expected["unit_id"])


def test_counting_rows_reads_no_data(cube):
    units = lazynwb.daft.scan_nwb(cube, "/units")
    with lazynwb.profile() as p:
        assert units.count_rows() == 240
    assert p.bytes_read == 0


def test_a_predicate_on_the_path_skips_files_before_tasks_are_created(cube):
    source = source_of(cube, infer_schema_length=1)
    with lazynwb.profile() as p:
        (task,) = tasks_of(source, filters=col("_nwb_path") == str(cube[3]), columns=["unit_id"])
    assert p.files_skipped == 5
    assert repr(task) == f"<rows of /units in {cube[3]}>"
    units = lazynwb.daft.scan_nwb(cube, "/units", infer_schema_length=1)
    assert units.where(col("_nwb_path") == "nowhere").select("unit_id").to_pydict() == {"unit_id": []}


def test_a_task_that_values_of_an_index_answer_names_its_own_files(cube, tmp_path):
    lazynwb.build_index(cube, tmp_path / "index", values=["units"])
    index = lazynwb.open_index(tmp_path / "index")
    source = NWBSource(plan_scan(tuple(index.sources()), "/units", catalogs=index))
    (task,) = tasks_of(source, filters=col("_nwb_path") == str(cube[3]), columns=["unit_id"])
    assert repr(task) == f"<rows of /units in {cube[3]}>"
    units = lazynwb.daft.scan_nwb(None, "/units", index=index)
    with lazynwb.profile() as p:
        found = polars_of(units.where(col("_nwb_path") == str(cube[3])).select("unit_id"))
    assert found["unit_id"].to_list() == lazynwb.read_nwb(cube[3], "/units")["unit_id"].to_list()
    assert p.files_opened == 0
    assert units.where(col("_nwb_path") == "nowhere").select("unit_id").to_pydict() == {"unit_id": []}


def test_a_limit_without_filter_reads_only_as_many_rows(cube):
    units = lazynwb.daft.scan_nwb(cube, "/units", infer_schema_length=1)
    with lazynwb.profile() as p:
        assert len(units.select("unit_id", "spike_times").limit(3).to_pydict()["unit_id"]) == 3
    assert p.files_opened <= 2  # of six, and its chunks are looked up
    with lazynwb.profile() as p:
        assert units.select("unit_id").limit(50).count_rows() == 50


def test_a_limit_counts_the_rows_that_survive_the_filters(cube):
    units = lazynwb.daft.scan_nwb(cube, "/units")
    found = units.where(col("location") == "LP").limit(7).select("unit_id", "location").to_pydict()
    assert found["location"] == ["LP"] * 7
    # Nothing of this is asked of Polars: rows which Daft is going to drop must not count.
    lazynwb.config.batch_bytes = 1  # a row is a batch
    text = col("presence_ratio").cast(daft.DataType.string())
    late = units.where(text > "0.97").limit(4).select("presence_ratio").to_pydict()["presence_ratio"]
    assert len(late) == 4
    assert min(late) > 0.97


def test_a_task_stops_at_its_limit(cube, monkeypatch):
    monkeypatch.setattr("lazynwb.daft.data_source.MAX_TASKS", 1)
    source = source_of(cube)
    text = col("presence_ratio").cast(daft.DataType.string())
    asked = {"filters": (text >= "0") & (col("presence_ratio") >= 0.3), "columns": ["spike_times"]}
    tasks = tasks_of(source, **asked, limit=2)
    assert [len(task.item.work.sources) for task in tasks] == [1, 2, 3]
    with lazynwb.profile() as limited:
        assert sum(map(len, _get_record_batches(tasks[-1]))) >= 2
    with lazynwb.profile() as whole:
        assert sum(map(len, _get_record_batches(tasks_of(source, **asked)[0]))) == 240
    assert limited.bytes_read < whole.bytes_read / 3


# -- tasks ------------------------------------------------------------------------------------------------


def test_a_task_is_pickled_as_a_small_value_with_equal_rows(cube):
    source = source_of(cube)
    for task in tasks_of(source, filters=col("location") == "LP", columns=["unit_id", "location"]):
        data = pickle.dumps(task)
        assert len(data) < 8192
        rows = [batch.to_pydict() for batch in _batches(pickle.loads(data))]  # noqa: S301 - our own
        assert rows == [batch.to_pydict() for batch in _batches(task)]
        assert {value for batch in rows for value in batch["location"]} <= {"LP"}


def _batches(task):
    from daft.recordbatch import RecordBatch

    for batch in _get_record_batches(task):
        yield RecordBatch._from_pyrecordbatch(batch)


def test_representations_of_tasks_contain_no_secrets(cube):
    spec = plan_scan(tuple(expand(cube[:1])), "/units")
    secret = Source("https://host/a.nwb?sig=hidden", Options({"token": "hidden"}))
    source = NWBSource(spec._replace(sources=(secret,)), None)
    (task,) = tasks_of(source, columns=["unit_id"])
    assert "hidden" not in f"{task!r} {task} {source.name}"
    assert "host/a.nwb" in repr(task)


def test_a_task_contains_many_files(cube):
    spec = plan_scan(tuple(expand(cube[:1])), "/units")
    for files, tasks in ((1, 1), (32, 32), (252, 32), (1000, 32), (100_000, 1563)):
        sources = tuple(Source(f"/{i}.nwb") for i in range(files))
        made = tasks_of(NWBSource(spec._replace(sources=sources), None), columns=["unit_id"])
        assert len(made) == tasks
        assert tuple(source for task in made for source in task.item.work.sources) == sources
    few = NWBSource(spec._replace(sources=tuple(Source(f"/{i}.nwb") for i in range(10))), None, 4)
    assert [len(task.item.work.sources) for task in tasks_of(few)] == [4, 4, 2]
    with pytest.raises(ValueError, match="files_per_task"):
        lazynwb.daft.scan_nwb(cube, "/units", files_per_task=0)


@pytest.mark.parametrize("indexed", [False, True])
def test_a_large_file_is_divided_into_several_tasks(tmp_path, monkeypatch, indexed):
    with h5py.File(tmp_path / "large.nwb", "w") as file:
        wide = builders.Column(np.arange(20_000.0).reshape(-1, 10), options={"chunks": (100, 10)})
        spikes = builders.Ragged([[n / 2] * (n % 3) for n in range(2000)])
        builders.table(file, "units", {"wide": wide, "spikes": spikes})
    if indexed:
        lazynwb.build_index(tmp_path, tmp_path / "index")
    monkeypatch.setattr(lazynwb.config, "batch_bytes", 40_000)
    made = []
    tasks = NWBSource.plan_tasks
    monkeypatch.setattr(NWBSource, "plan_tasks", lambda *given: made.append(tasks(*given)) or made[-1])
    index = tmp_path / "index" if indexed else None
    frame = lazynwb.daft.scan_nwb(None if indexed else tmp_path, "units", index=index)
    found = polars_of(frame.where(col("_table_index") >= 50).sort(ORDER))
    expected = lazynwb.read_nwb(tmp_path / "large.nwb", "units").filter(pl.col("_table_index") >= 50)
    assert same(found.to_dict(as_series=False), expected.to_dict(as_series=False))
    ranges = [(work.read.first_row, work.read.n_rows) for work in (task.item.work for task in made[-1])]
    assert len(ranges) > 3
    assert [first for first, _ in ranges[1:]] == [stop for _, stop in ranges[:-1]]


def test_the_rows_of_a_task_come_in_source_order(cube):
    spec = plan_scan(tuple(expand(cube)), "/units")
    (task,) = tasks_of(NWBSource(spec, None), columns=["unit_id"], limit=240)
    rows = [value for batch in _batches(task) for value in batch.to_pydict()["unit_id"]]
    assert rows == lazynwb.read_nwb(cube, "/units")["unit_id"].to_list()


@pytest.fixture
def read_rows(monkeypatch):
    """The rows that tasks have read, each of them a batch."""
    seen = []
    monkeypatch.setattr(
        "lazynwb.daft.data_source.record_batch", lambda frame: seen.append(len(frame)) or record_batch(frame)
    )
    lazynwb.config.batch_bytes = 1
    return seen


def test_batches_are_read_on_demand(cube, read_rows):
    (task,) = tasks_of(source_of(cube[:1]), columns=["spike_times"])
    batches = _get_record_batches(task)
    for taken in (1, 2, 3):
        next(batches)
        assert _settled(read_rows) <= taken + 2
    assert len(list(batches)) == 40 - 3


def test_reading_ends_when_no_more_rows_are_needed(cube, read_rows, monkeypatch):
    monkeypatch.setattr("lazynwb.daft.data_source.PATIENCE_SECONDS", 0.2)
    (task,) = tasks_of(source_of(cube[:1]), columns=["spike_times"])
    batches = _get_record_batches(task)
    next(batches)
    batches.close()
    del batches, task
    gc.collect()
    assert _settled(read_rows) < 10


def test_a_dropped_task_is_reported(cube):
    async def read():
        return [batch async for batch in tasks_of(source_of(cube[:1]))[0].read()]

    with pytest.raises(lazynwb.LazyNWBError, match="dropped"):
        asyncio.run(read())


def _settled(seen):
    """Return the final number of tasks."""
    while True:
        before = len(seen)
        time.sleep(0.3)
        if len(seen) == before:
            return before


# -- filters ----------------------------------------------------------------------------------------------

NAN, MINUS_NAN = math.nan, -math.nan
NUMBERS = {
    pl.Int8: [None, 0, 1, -1, 127, -128],
    pl.UInt8: [None, 0, 1, 2, 255],
    pl.Int32: [None, 0, 1, -1, 2**31 - 1, -(2**31)],
    pl.Int64: [None, 0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)],
    pl.UInt64: [None, 0, 1, 2**53 + 1, 2**64 - 1],
    pl.Float32: [None, 0.0, -0.0, 0.1, 1.0, -2.5, math.inf, -math.inf, NAN, MINUS_NAN],
    pl.Float64: [None, 0.0, -0.0, 0.1, 1.0, -2.5, math.inf, -math.inf, NAN, MINUS_NAN],
}
TEXTS = [None, "", "CA1", "CA3", "a", "ü"]
MEMBERS = pl.Enum(["z", "a", "m"])


def _table():
    """Rows of every value of each column beside others'."""
    height = 240
    columns = {
        dtype.__name__: pl.Series(
            [values[(i * 7 // (k + 1)) % len(values)] for i in range(height)], dtype=dtype
        )
        for k, (dtype, values) in enumerate(NUMBERS.items())
    }
    columns["text"] = pl.Series([TEXTS[i // 5 % len(TEXTS)] for i in range(height)])
    columns["enum"] = pl.Series([[None, "z", "a", "m"][i // 3 % 4] for i in range(height)], dtype=MEMBERS)
    columns["yes"] = pl.Series([[None, True, False][i // 2 % 3] for i in range(height)])
    return pl.DataFrame(columns).with_row_index("row")


TABLE = _table()
IN_DAFT = daft.from_arrow(
    TABLE.with_columns(pl.col("enum").cast(pl.String)).to_arrow(compat_level=pl.CompatLevel.oldest())
)

_numbers = st.sampled_from([dtype.__name__ for dtype in NUMBERS]).map(col)
_literals = st.sampled_from([0, 1, -1, 2, 100, 300, 2**31, 2**53, 0.0, -0.0, 0.1, 1.0, 2.5, NAN, math.inf])
_values = st.recursive(
    _numbers,
    lambda inner: st.builds(
        lambda left, right, how: getattr(left, how)(right),
        inner,
        inner | _literals.map(lit),
        st.sampled_from(["__add__", "__sub__", "__mul__", "__truediv__"]),
    ),
    max_leaves=3,
)
_compare = st.sampled_from(["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "eq_null_safe"])
_leaves = st.one_of(
    st.builds(
        lambda left, right, how: getattr(left, how)(right), _values, _values | _literals.map(lit), _compare
    ),
    st.builds(
        lambda name, value, how: getattr(col(name), how)(lit(value)),
        st.sampled_from(["text", "enum"]),
        st.sampled_from(["", "CA1", "CA2", "a", "m"]),
        _compare,
    ),
    st.builds(lambda left, low, high: left.between(low, high), _numbers, _literals, _literals),
    st.builds(lambda left, items: left.is_in(items), _numbers, st.lists(st.integers(-1, 200), min_size=1)),
    st.builds(lambda items: col("enum").is_in(items), st.lists(st.sampled_from("zmaq"), min_size=1)),
    _values.map(lambda value: value.is_null()),
    st.sampled_from(
        [col("text").not_null(), col("yes"), col("yes") == lit(value=True), col("Int8") > col("Int64")]
    ),
    st.sampled_from(["float64", "float32", "int64"]).map(
        lambda name: col("Int32").cast(getattr(daft.DataType, name)()) >= 1
    ),
)
_filters = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        inner.map(lambda part: ~part),
        st.builds(lambda left, right: left & right, inner, inner),
        st.builds(lambda left, right: left | right, inner, inner),
    ),
    max_leaves=4,
)


def _rows(filters):
    """The numbers of the rows that Daft keeps; None if it does not support the comparison."""
    try:
        return IN_DAFT.where(filters).select("row").to_pydict()["row"]
    except Exception:  # noqa: BLE001 - it raises errors of several kinds
        return None


@given(_filters)
def test_the_translation_keeps_every_row_that_daft_keeps(filters):
    expected = _rows(filters)
    if expected is None:
        return
    parts = translate_filters(filters, TABLE.schema, IN_DAFT.schema())
    assert set(expected) <= set(TABLE.filter(*parts)["row"])


@pytest.mark.parametrize("name", ["Int8", "UInt8", "Int64", "Float32", "Float64", "text", "enum"])
@pytest.mark.parametrize("how", ["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "eq_null_safe"])
def test_a_comparison_with_a_literal_keeps_the_same_rows_in_both(name, how):
    value = "a" if TABLE[name].dtype in {pl.String, MEMBERS} else 1
    filters = getattr(col(name), how)(lit(value))
    (part,) = translate_filters(filters, TABLE.schema, IN_DAFT.schema())
    kept = TABLE.filter(part)
    if name.startswith("Float") and how in {"__gt__", "__ge__"}:
        kept = kept.filter(pl.col(name).is_not_nan() | (pl.col(name).reinterpret(dtype=_bits(name)) >= 0))
    assert kept["row"].to_list() == _rows(filters)


def _bits(name):
    return pl.Int64 if name == "Float64" else pl.Int32


def test_translatable_parts_of_a_conjunction_are_pushed_down():
    filters = (
        (col("Int64") > 0) & col("text").startswith("CA") & ((col("Int8") < 5) | col("text").contains("x"))
    )
    (part,) = translate_filters(filters, TABLE.schema, IN_DAFT.schema())
    assert part.meta.eq(pl.col("Int64") > pl.lit(0, dtype=pl.Int64))


def test_filters_with_different_semantics_are_not_pushed_down():
    for filters in (
        col("Float64") == lit(math.nan),
        col("Float64").cast(daft.DataType.int64()) == 1,
        col("Int64").cast(daft.DataType.int8()) == 1,
        col("Int64").cast(daft.DataType.string()) == "1",
        col("Int64") % 2 == 0,
        col("text").is_in(["CA1", None]),
    ):
        assert translate_filters(filters, TABLE.schema, IN_DAFT.schema()) == []


def test_the_order_of_nan_and_zeros_is_that_of_daft(tmp_path):
    values = [NAN, MINUS_NAN, -0.0, 0.0, 1.0]
    path = tmp_path / "a.nwb"
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        builders.nwb_root(file)
        builders.table(file, "/intervals/trials", {"x": np.array(values), "start_time": np.arange(5.0)})
    trials = lazynwb.daft.scan_nwb(path, "/intervals/trials")
    plain_frame = daft.from_arrow(
        lazynwb.read_nwb(path, "/intervals/trials").to_arrow(compat_level=pl.CompatLevel.oldest())
    )
    for filters in (
        col("x") < 0.5,
        col("x") > 0.5,
        col("x") < 0,
        col("x") >= 0,
        col("x") != 0,
        ~(col("x") > 0.5),
    ):
        expected = plain_frame.where(filters).select("_table_index").to_pydict()
        assert trials.where(filters).select("_table_index").to_pydict() == expected


# -- errors -----------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(cube, tmp_path):
    """Three sessions, the second cut short."""
    paths = []
    for path in cube[:3]:
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        paths.append(copy)
    os.truncate(paths[1], 3000)
    return paths


def test_an_error_names_the_file(damaged):
    units = lazynwb.daft.scan_nwb(damaged, "/units", infer_schema_length=1)
    with pytest.raises(Exception, match=rf"NotNWBError: {damaged[1]}"):
        units.select("spike_times").to_arrow()


def test_unreadable_files_can_be_skipped(damaged, caplog):
    units = lazynwb.daft.scan_nwb(damaged, "/units", infer_schema_length=1, ignore_errors=True)
    with caplog.at_level(logging.WARNING, "lazynwb"):
        assert units.select("unit_id").count_rows() == 80
    (message,) = caplog.messages
    assert str(damaged[1]) in message


def test_files_without_the_table_are_reported_once(cube, caplog):
    blocks = lazynwb.daft.scan_nwb(cube, "/intervals/performance", infer_schema_length=1)
    with caplog.at_level(logging.WARNING, "lazynwb"):
        assert blocks.count_rows() == lazynwb.read_nwb(cube, "/intervals/performance").height
    daft_says, *polars_says = caplog.messages
    assert polars_says == [daft_says]
    strict = lazynwb.daft.scan_nwb(
        cube, "/intervals/performance", infer_schema_length=1, raise_on_missing=True
    )
    with pytest.raises(Exception, match=r"has no table /intervals/performance"):
        strict.to_arrow()
    with pytest.raises(lazynwb.TableNotFoundError):
        lazynwb.daft.scan_nwb(cube, "/nothing")


def test_a_column_that_cannot_be_read_is_named_with_its_file(cube, tmp_path):
    import h5py

    path = tmp_path / "damaged.nwb"
    path.write_bytes(cube[0].read_bytes())
    with h5py.File(path) as file:
        chunk = file["units/spike_times"].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\0" * chunk.size)
    units = lazynwb.daft.scan_nwb(path, "/units")
    with pytest.raises(Exception, match=rf"CorruptDataError: {path}.*spike_times"):
        units.select("spike_times").to_arrow()
    assert units.select("unit_id").count_rows() == 40


def test_daft_is_imported_on_demand():
    run_child(
        "import sys, lazynwb, lazynwb.daft\n"
        "assert not {'daft', 'pyarrow', 'ray'} & set(sys.modules)\n"
        "sys.modules['daft'] = None\n"
        "try:\n"
        "    lazynwb.daft.scan_nwb('nowhere.nwb', '/units')\n"
        "except lazynwb.MissingPackageError as error:\n"
        "    assert \"pip install 'lazynwb[daft]'\" in str(error), error\n"
        "else:\n"
        "    raise AssertionError"
    )


def test_a_column_of_conflicting_types(tmp_path):
    for name, values in {"a": [1, 2], "b": ["one", "two"]}.items():
        with h5py.File(tmp_path / f"{name}.nwb", "w") as file:
            builders.table(file, "units", {"x": values, "rate": np.arange(2.0)})
    frame = lazynwb.daft.scan_nwb(tmp_path, "/units")
    assert polars_of(frame.select("rate"))["rate"].to_list() == [0.0, 1.0, 0.0, 1.0]
    with pytest.raises(Exception, match="column 'x' of /units is Int64 in"):
        frame.select("x").to_arrow()
