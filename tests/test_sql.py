"""SQL over every table and series of many files."""

import sys

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import Ragged, nwb_root, series, table
from checks import ENGINES, assert_frames
from lazynwb.lookup import loader
from lazynwb.lookup.table_listing import shortest_names


def test_the_query_of_the_notebook(cube):
    context = lazynwb.get_sql_context(cube, infer_schema_length=1)
    assert isinstance(context, pl.SQLContext)
    frame = context.execute("SELECT * FROM performance", eager=True)
    assert_frames(frame, lazynwb.read_nwb(cube, "/intervals/performance"))


def test_tables_are_named_by_the_last_part_of_their_path(cube):
    names = lazynwb.get_sql_context(cube).tables()
    assert {
        "units",
        "trials",
        "performance",
        "lick_sensor_events",
        "running_speed",
        "session",
        "subject",
    } <= set(names)


@pytest.mark.parametrize("name", ["session", "general"])
def test_the_session_is_registered_as_session_and_general(cube, name):
    frame = lazynwb.get_sql_context(cube).execute(f"SELECT session_id, keywords FROM {name}", eager=True)  # noqa: S608
    assert frame["session_id"].to_list() == [f"s{k}" for k in range(6)]
    assert frame["keywords"].dtype == pl.List(pl.String)


def test_subject(cube):
    frame = lazynwb.get_sql_context(cube).execute("SELECT subject_id FROM subject", eager=True)
    assert frame["subject_id"].to_list() == [f"mouse-s{k}" for k in range(6)]


@pytest.mark.parametrize("engine", ENGINES)
def test_filters_joins_and_limits(cube, engine):
    context = lazynwb.get_sql_context(cube)
    lazy = context.execute(
        """
        SELECT u.unit_id, u.spike_times, s.subject_id
        FROM units u JOIN subject s ON u._nwb_path = s._nwb_path
        WHERE u.presence_ratio > 0.8 AND u.location LIKE 'CA1%'
        ORDER BY u.unit_id LIMIT 5
        """
    )
    eager = (
        lazynwb.read_nwb(cube, "/units")
        .filter(pl.col("presence_ratio") > 0.8, pl.col("location").str.starts_with("CA1"))
        .join(lazynwb.read_nwb(cube, "/general/subject").select("_nwb_path", "subject_id"), on="_nwb_path")
        .select("unit_id", "spike_times", "subject_id")
        .sort("unit_id")
        .head(5)
    )
    assert_frames(lazy.collect(engine=engine), eager)
    counts = context.execute("SELECT location, COUNT(*) AS n FROM units GROUP BY location ORDER BY location")
    assert counts.collect(engine=engine)["n"].sum() == 240


def test_sql_predicates_are_pushed_down(cube):
    context = lazynwb.get_sql_context(cube)
    context.execute("SELECT unit_id FROM units", eager=True)
    with lazynwb.profile() as p:
        frame = context.execute(
            "SELECT waveform_mean FROM units WHERE unit_id = 's2_9' AND presence_ratio > 0", eager=True
        )
    assert frame.height == 1
    assert p.chunks_decoded <= 1


@pytest.fixture
def twins(tmp_path):
    """Two tables with the same last name, and one with another name."""
    with h5py.File(tmp_path / "twins.nwb", "w") as file:
        nwb_root(file)
        table(file, "processing/left/events", {"side": ["l"], "n": [1]})
        table(file, "processing/right/events", {"side": ["r"], "n": [2]})
        table(file, "intervals/a table (1)", {"x": Ragged([[1.0]])})
        series(file, "acquisition/speed", np.arange(4.0), start=0)
        series(file, "stimulus/presentation/speed", np.arange(3.0), start=0)
        table(file, "intervals/general", {"odd": [1, 2]})
    return tmp_path / "twins.nwb"


def test_tables_with_equal_names_are_distinguished(twins):
    context = lazynwb.get_sql_context(twins)
    names = context.tables()
    assert len(names) == len(set(names))
    frames = {name: context.execute(f'SELECT * FROM "{name}"', eager=True) for name in names}  # noqa: S608
    paths = {name: frame["_table_path"][0] for name, frame in frames.items()}
    assert set(paths.values()) == {
        "processing/left/events", "processing/right/events", "intervals/a table (1)", "acquisition/speed",
        "stimulus/presentation/speed", "intervals/general", "general", "general/subject",
    }  # fmt: skip
    for name, path in paths.items():
        if path.endswith("/events"):
            assert path.split("/")[1] in name


def test_names_that_need_quoting(twins):
    frame = lazynwb.get_sql_context(twins).execute('SELECT x FROM "a table (1)"', eager=True)
    assert frame["x"].to_list() == [[1.0]]


def test_full_path(cube):
    names = lazynwb.get_sql_context(cube, full_path=True).tables()
    assert [name for name in names if name.strip("/") == "intervals/trials"]
    assert [name for name in names if name.strip("/") == "acquisition/lick_sensor_events"]


def test_exclude_timeseries(cube):
    names = lazynwb.get_sql_context(cube, exclude_timeseries=True).tables()
    assert {"units", "trials"} <= set(names)
    assert {"running_speed", "lick_sensor_events"}.isdisjoint(names)


def test_table_names(cube):
    names = lazynwb.get_sql_context(cube, table_names=["units", "session"]).tables()
    assert {"units", "session"} <= set(names)
    assert {"trials", "subject", "running_speed"}.isdisjoint(names)


def test_min_file_count(cube):
    assert "performance" not in lazynwb.get_sql_context(cube, min_file_count=6).tables()
    assert "performance" in lazynwb.get_sql_context(cube, min_file_count=5).tables()


def test_exclude_array_columns(cube):
    frame = lazynwb.get_sql_context(cube, exclude_array_columns=True).execute(
        "SELECT * FROM units", eager=True
    )
    assert "spike_times" not in frame.columns


def test_options_of_the_context(cube):
    frame = lazynwb.get_sql_context(cube, eager=True).execute("SELECT unit_id FROM units")
    assert isinstance(frame, pl.DataFrame)


def test_one_unreadable_table_does_not_hide_the_others(tmp_path, caplog):
    for number, x in enumerate((["text"], np.array([1]))):
        with h5py.File(tmp_path / f"{number}.nwb", "w") as file:
            table(file, "conflict", {"x": x})
            table(file, "fine", {"y": [number]})
    (tmp_path / "bad.nwb").write_bytes(b"nothing")
    context = lazynwb.get_sql_context(tmp_path)
    assert context.execute("SELECT y FROM fine", eager=True)["y"].to_list() == [0, 1]
    assert "bad.nwb" in caplog.text


def test_names_of_thousands_of_tables_are_found_in_linear_time():
    tables = [f"acquisition/a{number}" for number in range(500)] + ["one/same", "two/same", "three/one/same"]
    names = shortest_names(tables, {})
    assert names["acquisition/a7"] == "a7"
    assert [names[path] for path in tables[-3:]] == ["one/same", "two/same", "three/one/same"]

    compared = 0

    class Counted(str):
        __slots__ = ()

        def endswith(self, *args):
            nonlocal compared
            compared += 1
            return str.endswith(self, *args)

    shortest_names([Counted(path) for path in tables], {})
    assert compared <= 20 * len(tables)


def test_only_requested_tables_are_described(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        for number in range(20):
            table(file, f"processing/many/t{number}", {"x": [number]})
    described = []
    describe = loader.load_table

    def counted(source, path, *args):
        described.append(path)
        return describe(source, path, *args)

    monkeypatch.setattr("lazynwb.lookup.prefetch.load_table", counted)
    context = lazynwb.get_sql_context(tmp_path, table_names=["t7"])
    assert context.execute("SELECT x FROM t7", eager=True)["x"].to_list() == [7]
    assert set(described) == {"processing/many/t7"}


def _session_of_sweeps(path, count):
    with h5py.File(path, "w") as file:
        nwb_root(file)
        for number in range(count):
            series(file, f"acquisition/sweep_{number:05}", np.arange(20.0), start=float(number), rate=10.0)
    return path


def _calls(function):
    """Return how many functions are called, in Python and in C."""
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.integration
def test_a_context_of_many_series_is_created_in_linear_time_and_describes_only_queried_series(
    tmp_path, cache_dir
):
    def query(path, **options):
        context = lazynwb.get_sql_context(path, **options)
        return context.execute("SELECT count(*) FROM sweep_00007", eager=True).item()

    few, many = (_session_of_sweeps(tmp_path / f"{count}.nwb", count) for count in (150, 300))
    assert query(few) == 20  # imports
    lazynwb.clear_cache()
    calls = [_calls(lambda path=path: query(path)) for path in (few, many)]
    assert calls[1] < 2.2 * calls[0]
    # A listing and one table of each file.
    assert sum(path.is_file() for path in cache_dir.glob("v*/*/*")) <= 4
    lazynwb.clear_cache()
    with lazynwb.profile() as profile:
        assert query(many, table_names=["sweep_00007"]) == 20
    assert profile.files_parsed == 2
    with lazynwb.profile() as profile:
        assert query(many) == 20
    assert profile.files_parsed == 0


def test_an_invalid_table_only_fails_in_queries_that_use_it(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        nwb_root(file)
        table(file, "units", {"x": [1]})
        table(file, "processing/m/odd", {"y": [1]})
    context = lazynwb.get_sql_context(path)
    with h5py.File(path, "a") as file:
        del file["processing/m/odd"]
    assert context.execute("SELECT x FROM units", eager=True)["x"].to_list() == [1]
    for query in ("SELECT y FROM odd", "SELECT * FROM odd", "SELECT x FROM units JOIN odd ON x = y"):
        with pytest.raises(lazynwb.TableNotFoundError, match=r"processing/m/odd.*a\.nwb"):
            context.execute(query)


def test_unreadable_files_are_errors_on_request(tmp_path):
    (tmp_path / "bad.nwb").write_bytes(b"nothing")
    with pytest.raises(lazynwb.NotNWBError, match=r"bad\.nwb"):
        lazynwb.get_sql_context(tmp_path, ignore_errors=False)


def test_session_columns_of_every_table_skip_files(cube):
    names = {"mouse": "subject_id", "session_id": "session_id"}
    context = lazynwb.get_sql_context(cube, session_columns=names)
    expected = lazynwb.scan_nwb(cube, "/units", session_columns={"mouse": "subject_id"}).collect()
    mouse = expected["mouse"][0]
    query = f"SELECT unit_id, mouse, session_id FROM units WHERE mouse = '{mouse}'"  # noqa: S608 - a test
    with lazynwb.profile() as cost:
        found = context.execute(query, eager=True)
    of_mouse = expected.filter(pl.col("mouse") == mouse)
    assert found["unit_id"].to_list() == of_mouse["unit_id"].to_list()
    assert cost.files_skipped == len(cube) - of_mouse["_nwb_path"].n_unique()
    session = context.execute("SELECT session_id, mouse FROM session", eager=True)
    assert session["session_id"].to_list() == [f"s{k}" for k in range(6)]
    assert session["mouse"].to_list() == [f"mouse-s{k}" for k in range(6)]


def test_a_column_of_the_table_takes_precedence_over_a_session_column(tmp_path):
    for name, mouse in [("a", "m1"), ("b", None)]:
        with h5py.File(tmp_path / f"{name}.nwb", "w") as file:
            nwb_root(file, name)
            table(file, "units", {"subject_id": [1, 2]}, kind="Units")
            if mouse:
                table(file, "intervals/trials", {"start_time": [0.0]}, kind="TimeIntervals")
                del file["general/subject"]
                file["general/subject/subject_id"] = mouse
            else:
                table(file, "intervals/epochs", {"start_time": [0.0]}, kind="TimeIntervals")
                file.pop("general/subject", None)
    context = lazynwb.get_sql_context(tmp_path, session_columns="subject_id")
    assert context.execute("SELECT subject_id FROM units", eager=True)["subject_id"].to_list() == [1, 2, 1, 2]
    assert context.execute("SELECT subject_id FROM trials", eager=True)["subject_id"].to_list() == ["m1"]
    assert context.execute("SELECT subject_id FROM epochs", eager=True)["subject_id"].to_list() == [None]
    with pytest.raises(lazynwb.SchemaError, match="no session metadata 'nope'"):
        lazynwb.get_sql_context(tmp_path, session_columns="nope")


@pytest.mark.parametrize(
    ("name", "answer"), [("unit", "did you mean 'units'"), ("xyz", "available: general, ")]
)
def test_an_unknown_table_is_an_error_that_lists_the_tables(cube, name, answer):
    context = lazynwb.get_sql_context(cube)
    with pytest.raises(pl.exceptions.SQLInterfaceError, match=answer):
        context.execute(f"SELECT * FROM {name}")  # noqa: S608
