"""Glob patterns as table paths: all matching tables as one frame."""

import logging
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import builders
import lazynwb
from lazynwb import cli
from lazynwb.errors import LazyNWBError, SchemaError, TableNotFoundError, UnsupportedTypeError
from lazynwb.lookup import loader
from test_executors import Recorder
from zarr_stores import CODECS, Writer

PATTERN = "/intervals/*_presentations"
#: Tables that match, with their columns; the last parts of the paths are shared with tables that do not.
COLUMNS = {
    "intervals/drifting_presentations": {"start": np.arange(5) / 2, "angle": np.arange(5, dtype="i4")},
    "intervals/flash_presentations": {"start": np.arange(3) + 10.0, "colour": np.arange(3) - 1.0},
    "intervals/spont_presentations": {"start": np.arange(4, dtype="i8")},
}
OTHERS = {"intervals/trials": {"start": np.arange(2.0)}, "processing/a_presentations": {"start": [7.0]}}
INTERNAL = ["_nwb_path", "_table_path", "_table_index"]


def write_hdf5(path, number, tables):
    with h5py.File(path, "w") as file:
        builders.nwb_root(file, f"s{number}")
        for table in tables:
            builders.table(file, table, {**COLUMNS, **OTHERS}[table])


def write_zarr(path, number, tables):
    writer = Writer(3 if number % 2 else 2, CODECS["plain"])
    writer.group("", neurodata_type="NWBFile", nwb_version="2.7.0")
    for group in ("general", "intervals", "processing"):
        writer.group(group)
    for table in tables:
        columns = {name: np.asarray(values) for name, values in {**COLUMNS, **OTHERS}[table].items()}
        writer.group(table, colnames=list(columns), neurodata_type="TimeIntervals")
        rows = len(next(iter(columns.values())))
        writer.array(f"{table}/id", np.arange(rows), (rows,), neurodata_type="ElementIdentifiers")
        for name, values in columns.items():
            writer.array(f"{table}/{name}", values, (2,), neurodata_type="VectorData")
    writer.write(path)


WRITERS = {"nwb": write_hdf5, "nwb.zarr": write_zarr}


def expected(files):
    """The expected rows, by file and then by table path."""
    frames = [
        pl.DataFrame({"id": np.arange(len(COLUMNS[table]["start"])), **COLUMNS[table]})
        .with_row_index("_table_index")
        .with_columns(_nwb_path=pl.lit(str(path)), _table_path=pl.lit(table))
        for path, tables in files.items()
        for table in sorted(tables)
        if table in COLUMNS
    ]
    found = pl.concat(frames, how="diagonal_relaxed")
    return found.select(*sorted(set(found.columns) - set(INTERNAL)), *INTERNAL)


@pytest.fixture(scope="module")
def presence(tmp_path_factory):
    """Files with given tables; each is written once."""
    folder = tmp_path_factory.mktemp("presentations")

    def made(number, suffix, tables):
        name = "-".join(sorted(table.rpartition("/")[2] for table in tables)) or "none"
        path = folder / f"{number}-{name}.{suffix}"
        if not path.exists():
            WRITERS[suffix](path, number, sorted(tables))
        return path

    return made


@pytest.fixture
def files(presence):
    names = list(COLUMNS)
    tables = [{*names, *OTHERS}, {names[1]}, set(OTHERS), {names[0], names[2]}]
    return {
        presence(number, suffix, own): own
        for number, (own, suffix) in enumerate(
            zip(tables, ["nwb", "nwb.zarr", "nwb", "nwb.zarr"], strict=True)
        )
    }


every_table = st.sets(st.sampled_from([*COLUMNS, *OTHERS]))


@given(
    kinds=st.lists(st.tuples(st.sampled_from(list(WRITERS)), every_table), min_size=1, max_size=4).filter(
        lambda kinds: any(not own.isdisjoint(COLUMNS) for _, own in kinds)
    ),
    data=st.data(),
)
def test_rows_are_those_of_all_matching_tables_in_order(presence, kinds, data):
    files = {presence(n, suffix, own): own for n, (suffix, own) in enumerate(kinds)}
    truth = expected(files)
    lazy = lazynwb.scan_nwb(list(files), PATTERN)
    assert lazy.collect_schema() == truth.schema
    limit = data.draw(st.none() | st.integers(0, 20))
    predicates = {
        "none": pl.lit(value=True),
        "table": pl.col("_table_path") == data.draw(st.sampled_from(list(COLUMNS))),
        "table and file": (pl.col("_table_path") != "intervals/spont_presentations")
        | (pl.col("_nwb_path") == str(data.draw(st.sampled_from(list(files))))),
        "values": pl.col("start") > data.draw(st.integers(-1, 12)),
        "row": pl.col("_table_index") < data.draw(st.integers(0, 4)),
        "both": pl.col("_table_path").str.contains("_p")
        & (pl.col("start") < 11)
        & pl.col("id").is_in([0, 2]),
    }
    predicate = predicates[data.draw(st.sampled_from(list(predicates)))]
    columns = data.draw(st.lists(st.sampled_from(truth.columns), min_size=1, unique=True))
    if limit is not None:
        lazy, truth = lazy.head(limit), truth.head(limit)
    query = lazy.filter(predicate).select(columns)
    engine = data.draw(st.sampled_from(["in-memory", "streaming"]))
    assert_frame_equal(query.collect(engine=engine), truth.filter(predicate).select(columns))


def test_a_pattern_scan_is_the_concatenation_of_single_scans(files):
    tables = [(path, table) for path, own in files.items() for table in sorted(own) if table in COLUMNS]
    single = [lazynwb.scan_nwb(path, table).collect() for path, table in tables]
    whole = lazynwb.scan_nwb(list(files), PATTERN).collect()
    truth = pl.concat(single, how="diagonal_relaxed").select(whole.columns)
    assert_frame_equal(whole, truth)


@pytest.mark.usefixtures("no_store")
def test_a_filter_on_the_path_of_the_table_reads_no_other_table(presence):
    paths = [presence(number, "nwb", set(COLUMNS)) for number in range(3)]
    query = lazynwb.scan_nwb(paths, PATTERN).filter(pl.col("_table_path") == "intervals/flash_presentations")
    with lazynwb.profile() as counts:
        assert query.select("start").collect().height == 9
    assert counts.tables_skipped == 6
    assert counts.requests == 3  # one column of one table of each file


@pytest.mark.usefixtures("no_store")
def test_filters_on_session_columns_apply_before_tables_are_looked_up(presence):
    paths = [presence(number, "nwb", set(COLUMNS)) for number in range(3)]
    query = lazynwb.scan_nwb(paths, PATTERN, session_columns="session_id").filter(
        pl.col("session_id") != "s1",
        pl.col("session_id") + pl.col("_table_path") != "s0intervals/flash_presentations",
    )
    with lazynwb.profile() as counts:
        found = query.collect()
    assert (counts.files_skipped, counts.tables_skipped) == (1, 1)
    truth = expected({path: set(COLUMNS) for path in paths}).with_columns(
        session_id="s" + pl.col("_nwb_path").str.extract(r"(\d)-[^/]*$")
    )
    truth = truth.filter(
        pl.col("session_id") != "s1",
        pl.col("session_id") + pl.col("_table_path") != "s0intervals/flash_presentations",
    )
    assert_frame_equal(found, truth.select(found.columns))


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("/intervals/*", {*COLUMNS, "intervals/trials"}),
        ("intervals/[df]*", set(list(COLUMNS)[:2])),
        ("/intervals/????s", {"intervals/trials"}),
        ("*_presentations", {*COLUMNS, "processing/a_presentations"}),
        ("**/*_presentations", {*COLUMNS, "processing/a_presentations"}),
        ("/*/*_presentations", {*COLUMNS, "processing/a_presentations"}),
        ("/**/trials", {"intervals/trials"}),
        ("/processing/**", {"processing/a_presentations"}),
        ("/**/intervals/t*", {"intervals/trials"}),
    ],
)
def test_patterns(presence, pattern, matching):
    path = presence(0, "nwb", {*COLUMNS, *OTHERS})
    found = lazynwb.scan_nwb(path, pattern.replace("????s", "tria?s")).select("_table_path").collect()
    assert set(found["_table_path"]) == matching


def test_a_star_stays_within_a_part_of_the_path(presence):
    path = presence(0, "nwb", {*COLUMNS, *OTHERS})
    with pytest.raises(TableNotFoundError):
        lazynwb.scan_nwb(path, "/*_presentations")


def test_a_pattern_without_matches_lists_existing_tables(files):
    with pytest.raises(TableNotFoundError, match=r"no table matches /intervals/\*_movies .*drifting_pres"):
        lazynwb.scan_nwb(list(files), "/intervals/*_movies")
    with pytest.raises(TableNotFoundError, match="not a table path or a valid pattern"):
        lazynwb.scan_nwb(list(files), "/intervals/[z-a]*")


def test_a_table_named_like_a_pattern_takes_precedence(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        builders.table(file, "intervals/[ab]*", {"x": [1]})
        builders.table(file, "intervals/a1", {"x": [2]})
    assert lazynwb.scan_nwb(tmp_path, "/intervals/[ab]*").collect()["x"].to_list() == [1]
    assert lazynwb.scan_nwb(tmp_path, "/intervals/[a]*").collect()["x"].to_list() == [2]


def test_files_without_a_match_are_reported_once(files, caplog):
    lacking = list(files)[2]
    with caplog.at_level(logging.WARNING, "lazynwb"):
        lazynwb.scan_nwb(list(files), PATTERN).collect()
    assert [str(lacking) in record.getMessage() for record in caplog.records] == [True]
    with pytest.raises(TableNotFoundError, match=r"no table matches"):
        lazynwb.scan_nwb(list(files), PATTERN, raise_on_missing=True)


def test_the_schema_of_the_first_files(files):
    names = set(lazynwb.scan_nwb(list(files)[1:], PATTERN, infer_schema_length=1).collect_schema())
    assert names == {"colour", "id", "start", *INTERNAL}
    schema = lazynwb.get_table_schema(list(files), PATTERN, exclude_internal_columns=True)
    assert schema == {"angle": pl.Int32, "colour": pl.Float64, "id": pl.Int64, "start": pl.Float64}


def test_conflicting_tables_are_both_named(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        builders.table(file, "intervals/a", {"x": [1]})
        builders.table(file, "intervals/b", {"x": ["one"], "y": [2]})
    with pytest.raises(SchemaError, match=r"/intervals/a of .* but String in /intervals/b of"):
        lazynwb.read_nwb(tmp_path, "/intervals/*")
    assert lazynwb.scan_nwb(tmp_path, "/intervals/*").select("y").collect()["y"].to_list() == [None, 2]
    found = lazynwb.scan_nwb(tmp_path, "/intervals/*", schema_overrides={"x": pl.String}).collect()
    assert found["x"].to_list() == ["1", "one"]


def test_an_unreadable_column_or_file_does_not_affect_others(tmp_path, caplog):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        builders.table(file, "intervals/a", {"x": [1, 2], "y": [5, 6]})
        group = builders.table(file, "intervals/b", {"y": [3, 4]}, colnames=["x", "y"])
        builders.raw_type(group, "x", h5py.h5t.NATIVE_B8, np.zeros(2, "u1"))
        builders.table(file, "intervals/c", {"x": [7, 8], "y": [0, 0]})
    (tmp_path / "b.nwb").write_bytes(b"no file of NWB" * 100)
    paths = sorted(tmp_path.glob("*.nwb"))
    with pytest.raises(UnsupportedTypeError):
        lazynwb.scan_nwb(paths[0], "/intervals/*").collect()
    with pytest.raises(LazyNWBError):
        lazynwb.scan_nwb(paths, "/intervals/*")
    with caplog.at_level(logging.WARNING, "lazynwb"):
        found = lazynwb.scan_nwb(paths, "/intervals/*", ignore_errors=True).collect()
    assert found["x"].to_list() == [1, 2, None, None, 7, 8]
    assert found["y"].to_list() == [5, 6, 3, 4, 0, 0]
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "/intervals/b: column 'x'" in told
    assert "b.nwb" in told


def test_an_early_stop_reads_one_file(presence):
    lazynwb.config.column_cache_bytes = 0
    paths = [presence(number, "nwb", set(COLUMNS)) for number in range(40)]
    query = lazynwb.scan_nwb(paths, PATTERN).filter(pl.col("start") >= 0).head(2)
    with lazynwb.profile() as counts:
        assert query.collect(engine="streaming").height == 2
    assert counts.files_opened < 20


def test_regions_are_resolved_separately_for_each_table(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        for name, values in {"a": [10, 20], "b": [30, 40]}.items():
            target = builders.table(file, f"processing/{name}", {"value": values})
            table = builders.table(file, f"intervals/{name}", {"where": [1, 0]})
            table["where"].attrs["neurodata_type"] = "DynamicTableRegion"
            table["where"].attrs["table"] = target.ref
    found = lazynwb.scan_nwb(tmp_path, "/intervals/*", resolve_regions=True).collect()
    assert found["where"].struct.field("value").to_list() == [20, 10, 40, 30]


def test_series_and_their_timestamps(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        for number in range(3):
            times = np.arange(5000) / 100 + 100 * number
            builders.series(file, f"acquisition/s{number}", np.arange(5000), times, chunks=(500,))
    query = lazynwb.scan_nwb(tmp_path, "/acquisition/s*").filter(pl.col("timestamps").is_between(100, 100.02))
    for _ in range(2):  # the second time with zone maps
        assert query.select("_table_path", "data").collect().rows() == [
            ("acquisition/s1", 0), ("acquisition/s1", 1), ("acquisition/s1", 2)
        ]  # fmt: skip


# -- with an index, on executors, and from elsewhere ---------------------------------------------------------


def test_from_an_index_no_file_is_opened_for_the_plan(files, tmp_path):
    lazynwb.build_index(list(files), tmp_path / "index")
    index = lazynwb.open_index(tmp_path / "index")
    truth = expected(files)
    lazynwb.clear_cache()
    with lazynwb.profile() as counts:
        query = lazynwb.scan_nwb(None, PATTERN, index=index)
        assert query.collect_schema() == truth.schema
        assert query.select(pl.len()).collect().item() == len(truth)
    assert counts.files_opened == 0
    order = [str(path) for path in files]
    found = query.collect().sort(
        pl.col("_nwb_path").replace_strict(order, range(len(order))), maintain_order=True
    )
    assert_frame_equal(found, truth)
    with pytest.raises(TableNotFoundError, match="no table matches"):
        lazynwb.scan_nwb(None, "/intervals/*_movies", index=index)


@pytest.fixture(scope="module")
def with_values(presence, tmp_path_factory):
    """Files, and an index of them with the values of all tables."""
    names = list(COLUMNS)
    tables = [{*names, *OTHERS}, {names[1]}, set(OTHERS), {names[0], names[2]}]
    files = {presence(number, "nwb", own): own for number, own in enumerate(tables)}
    index = tmp_path_factory.mktemp("index") / "index"
    assert lazynwb.build_index(list(files), index, values=True).failed == []
    return files, lazynwb.open_index(index)


@given(data=st.data())
def test_values_of_an_index_are_the_rows_of_all_tables(with_values, data):
    files, index = with_values
    some = data.draw(st.permutations(list(files)))[: data.draw(st.integers(2, 4))]
    truth = expected({path: files[path] for path in some})
    predicates = {
        "none": pl.lit(value=True),
        "table": pl.col("_table_path") == data.draw(st.sampled_from(list(COLUMNS))),
        "file": pl.col("_nwb_path") == str(data.draw(st.sampled_from(some))),
        "values": pl.col("start") > data.draw(st.integers(-1, 12)),
        "session": pl.col("session_id") == "s0",
        "all": pl.col("_table_path").str.contains("_p") & (pl.col("start") < 11) & pl.col("id").is_in([0, 2]),
    }
    predicate = predicates[data.draw(st.sampled_from(list(predicates)))]
    sessions = {str(path): f"s{number}" for number, path in enumerate(files)}
    truth = truth.with_columns(session_id=pl.col("_nwb_path").replace_strict(sessions))
    columns = data.draw(st.lists(st.sampled_from(truth.columns), min_size=1, unique=True))
    limit = data.draw(st.none() | st.integers(0, 20))
    recorder = data.draw(st.sampled_from([None, Recorder()]))
    query = lazynwb.scan_nwb(some, PATTERN, index=index, session_columns="session_id", executor=recorder)
    if limit is not None:
        query, truth = query.head(limit), truth.head(limit)
    lazynwb.clear_cache()
    with lazynwb.profile() as counts:
        found = query.filter(predicate).select(columns).collect()
    assert_frame_equal(found, truth.filter(predicate).select(columns))
    assert counts.files_opened == 0
    assert recorder is None or recorder.works == []


def test_a_table_without_values_in_the_index_is_read(with_values, tmp_path):
    files, _ = with_values
    lazynwb.build_index(list(files), tmp_path / "index", values=["intervals/flash_presentations"])
    query = lazynwb.scan_nwb(list(files), PATTERN, index=tmp_path / "index")
    assert_frame_equal(query.collect(), expected(files))


@pytest.mark.parametrize("indexed", [False, True])
def test_on_an_executor(files, tmp_path, indexed):
    index = tmp_path / "index" if indexed else None
    if index is not None:
        lazynwb.build_index(list(files), index)
    truth = expected(files)
    with ThreadPoolExecutor(2) as executor:
        query = lazynwb.scan_nwb(list(files), PATTERN, executor=executor, index=index)
        assert_frame_equal(query.collect(), truth)
        assert_frame_equal(query.head(7).collect(), truth.head(7))
        some = pl.col("_table_path").str.contains("flash"), pl.col("start") > 10
        assert_frame_equal(query.filter(*some).collect(), truth.filter(*some))


def test_a_task_that_stops_within_a_file_is_continued_there(presence):
    from lazynwb.distributed.tasks import Read
    from lazynwb.scan import plan_scan
    from lazynwb.storage.resolve import expand

    paths = [presence(number, "nwb", set(COLUMNS)) for number in range(2)]
    plan = plan_scan(tuple(expand(paths)), PATTERN)
    rest = Read(plan, ("start", *INTERNAL), None, None, 1)
    frames = []
    lazynwb.config.batch_bytes = 16
    while rest is not None:
        rows, rest = rest.run()
        frames += rows.frames
    truth = expected({path: set(COLUMNS) for path in paths}).select("start", *INTERNAL)
    assert_frame_equal(pl.concat(frames), truth)
    assert len(frames) > 6


def test_patterns_in_sql(files):
    context = lazynwb.get_sql_context(list(files), table_names=[PATTERN, "trials"], disable_progress=True)
    assert context.tables() == [PATTERN, "trials"]
    found = context.execute(
        f'SELECT _table_path, count(*) AS n FROM "{PATTERN}" GROUP BY 1 ORDER BY 1'  # noqa: S608
    ).collect()
    truth = expected(files).group_by("_table_path").agg(n=pl.len().cast(pl.UInt32)).sort("_table_path")
    assert found.rows() == truth.rows()
    with pytest.raises(TableNotFoundError, match="no table matches"):
        lazynwb.get_sql_context(list(files), table_names="/intervals/*_movies")


def test_get_df_accepts_patterns(files):
    truth = expected(files)
    assert_frame_equal(lazynwb.get_df(list(files), PATTERN, as_polars=True), truth)
    assert_frame_equal(lazynwb.get(list(files), PATTERN, as_polars=True), truth)
    exact = lazynwb.get_df(list(files), PATTERN.strip("/"), exact_path=True, as_polars=True)
    assert_frame_equal(exact, truth)
    with pytest.raises(LazyNWBError, match="nwb_path_to_row_indices"):
        lazynwb.get_df(list(files), PATTERN, nwb_path_to_row_indices={next(iter(files)): [0]}, as_polars=True)


def test_late_columns_of_pattern_scans(files):
    frame = lazynwb.scan_nwb(list(files), PATTERN).select("id", *INTERNAL).collect()
    assert_frame_equal(frame.nwb.with_columns("start").select("start"), expected(files).select("start"))


def test_on_the_command_line(files, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = [str(path) for path in files]
    truth = expected(files)
    sql = f'SELECT count(*) AS n FROM "{PATTERN}" WHERE start >= 1'  # noqa: S608
    assert cli.main(["query", sql, *names, "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines() == ["n", str(len(truth.filter(pl.col("start") >= 1)))]
    assert cli.main(["head", *names, PATTERN, "-n", "100", "--format", "ndjson"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(truth)
    assert cli.main(["schema", *names, PATTERN, "--format", "csv"]) == 0
    rows = {line.split(",")[0]: line.split(",")[2] for line in capsys.readouterr().out.splitlines()}
    having = [own for own in files.values() if not own.isdisjoint(COLUMNS)]
    assert rows["start"] == str(len(having))
    assert rows["angle"] == str(sum("intervals/drifting_presentations" in own for own in having))


def test_the_tables_of_one_file_are_parsed_together(tmp_path, monkeypatch):
    """The links of their group are read once."""
    opened = []
    original = loader.open_reader
    monkeypatch.setattr(loader, "open_reader", lambda *given: opened.append(given) or original(*given))
    count = 130
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        builders.nwb_root(file)
        for number in range(count):
            builders.series(file, f"acquisition/s{number:03}", [number], start=0.0)
    frame = lazynwb.read_nwb(tmp_path / "a.nwb", "/acquisition/*")
    assert frame["data"].to_list() == list(range(count))
    assert len(opened) < 10
