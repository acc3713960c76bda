"""Scans that the column store answers: the same rows as from the files, after any changes of either."""

import os
import random
import shutil
import subprocess
import sys
import time

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import settings

import lazynwb
from builders import Column, Ragged, table, write_cube, write_session
from checks import ENGINES, assert_frames, child_environment, run_child
from lazynwb.column_store.parts import LocalPart
from lazynwb.column_store.store import column_store, forget_entries
from lazynwb.engine.batches import run
from lazynwb.lookup import catalog_cache
from lazynwb.lookup.stored_tables import store_key
from lazynwb.scan import plan_scan
from lazynwb.storage.resolve import expand
from lazynwb.storage.source import Source
from random_truth import SHARES, as_test
from test_executors import Recorder


@pytest.fixture
def settled(monkeypatch):
    """Cache files immediately after they were written."""
    monkeypatch.setattr(Source, "is_settled", lambda *_: True)


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch):
    lazynwb.config.column_cache_bytes = 2 << 30
    monkeypatch.setenv("LAZYNWB_COLUMN_CACHE_BYTES", str(2 << 30))
    forget_entries()


def stored(query):
    """Return the result of a query, the number of stored rows, and the number of bytes read from files."""
    forget_entries()
    catalog_cache.clear_memory()
    with lazynwb.profile() as profile:
        frame = query()
    return frame, profile.rows_stored, profile.bytes_read


def unstored(query):
    before, lazynwb.config.column_cache_bytes = lazynwb.config.column_cache_bytes, 0
    try:
        return query()
    finally:
        lazynwb.config.column_cache_bytes = before


def parts():
    return sorted(path for path, _ in column_store().files() if path.suffix == ".parquet")


# -- random files and queries -----------------------------------------------------------------------------

EXAMPLES = round(SHARES["tables"] * settings().max_examples)
random_tables = as_test("tables", max_examples=EXAMPLES)


@pytest.mark.usefixtures("settled")
class TestRandom:
    def test_every_table_is_equal_when_read_from_the_store(self):
        """Each query runs on two engines: the second one finds what the first has stored."""
        random_tables()


@pytest.mark.usefixtures("settled")
def test_a_query_records_the_use_of_parts_for_their_eviction(tmp_path):
    paths = write_cube(tmp_path, 1)

    def query():
        return lazynwb.scan_nwb(paths, "/intervals/trials").select("start_time").collect()

    query()
    entries = [path for path, _ in column_store().files() if path.suffix == ".entry"]
    for path in entries:
        os.utime(path, (1e9, 1e9))
    frame, rows, _ = stored(
        lambda: lazynwb.scan_nwb(paths, "/intervals/trials").select("start_time").collect()
    )
    assert rows == len(frame) > 0
    assert max(path.stat().st_mtime for path in entries) > 1e9


# -- queries ----------------------------------------------------------------------------------------------

QUERIES = {
    "all": ("intervals/trials", lambda lf: lf),
    "two columns": ("intervals/trials", lambda lf: lf.select("stim_name", "start_time")),
    "filter": (
        "units",
        lambda lf: lf.filter(pl.col("location") == "CA1").select("unit_id", "presence_ratio"),
    ),
    "filter on NaN": ("units", lambda lf: lf.filter(pl.col("amplitude_cutoff").is_nan()).select("unit_id")),
    "filter on files": (
        "units",
        lambda lf: lf.filter(pl.col("_nwb_path").str.contains("_0[135]")).select("unit_id", "_nwb_path"),
    ),
    "filter on files and rows": (
        "units",
        lambda lf: lf.filter(
            pl.col("_nwb_path").str.contains("_04") | (pl.col("_table_index") > 37),
            pl.col("presence_ratio") > 0.5,
        ).select("unit_id", "_table_index"),
    ),
    "group": ("units", lambda lf: lf.group_by("location").agg(pl.len()).sort("location")),
    "head": ("intervals/trials", lambda lf: lf.head(77)),
    "slice": ("intervals/trials", lambda lf: lf.slice(40, 50)),
    "filtered head": ("units", lambda lf: lf.filter(pl.col("location") == "LP").head(3)),
    "count": ("units", lambda lf: lf.select(pl.len())),
    "filtered count": ("units", lambda lf: lf.filter(pl.col("presence_ratio") > 0.7).select(pl.len())),
    "spikes": (
        "units",
        lambda lf: lf.filter(pl.col("location") == "CA1").select("spike_times", "unit_id", "_nwb_path"),
    ),
    "spikes alone": ("units", lambda lf: lf.filter(pl.col("presence_ratio") > 0.9).select("spike_times")),
    "filter on spikes": (
        "units",
        lambda lf: lf.filter(pl.col("spike_times").list.len() > 100, pl.col("decoder_label") == "sua").select(
            "unit_id", "_table_index"
        ),
    ),
    "waveforms": ("units", lambda lf: lf.select("unit_id", "waveform_mean").tail(45)),
    "some lack the table": ("intervals/performance", lambda lf: lf.filter(pl.col("block_index") > 2)),
    "metadata": ("general", lambda lf: lf.select("session_id", "keywords", "experimenter")),
    "series": ("acquisition/lick_sensor_events", lambda lf: lf.filter(pl.col("timestamps") > 50)),
    "session columns": (
        "units",
        lambda lf: lf.filter(pl.col("location") == "CA1").select("unit_id", "session_id", "sex"),
        {"session_columns": ["session_id", "sex"]},
    ),
    "filter on session columns": (
        "units",
        lambda lf: lf.filter(pl.col("session_id").is_in(["s1", "s4"]), pl.col("presence_ratio") > 0.6),
        {"session_columns": ["session_id", "keywords"]},
    ),
    "nothing is left": ("units", lambda lf: lf.filter(pl.col("location") == "nowhere")),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.sample(2)
def test_a_second_query_returns_equal_rows(cube, name, engine):
    table_path, query, *options = QUERIES[name]

    def run():
        return query(lazynwb.scan_nwb(cube, table_path, **dict(*options))).collect(engine=engine)

    expected = unstored(run)
    for _ in range(3):
        found, _, _ = stored(run)
        assert_frames(found, expected)


@pytest.mark.parametrize("table_path", ["intervals/trials", "intervals/performance"])
def test_a_whole_small_table_is_read_once(cube, table_path):
    def run():
        return lazynwb.scan_nwb(cube, table_path).collect()

    first, rows, read = stored(run)
    assert rows == 0
    assert read > 0
    second, rows, read = stored(run)
    assert (rows, read) == (len(first), 0)
    assert_frames(second, first)


def test_another_query_on_the_same_columns_reads_no_file(cube):
    stored(lambda: lazynwb.scan_nwb(cube, "units").select("location", "presence_ratio").collect())
    expected = unstored(lambda: lazynwb.read_nwb(cube, "units").group_by("location").len().sort("location"))
    found, rows, read = stored(
        lambda: lazynwb.scan_nwb(cube, "units").group_by("location").len().sort("location").collect()
    )
    assert (rows, read) == (240, 0)
    assert_frames(found, expected)


def test_scans_on_an_executor_read_from_the_store_and_do_not_fill_it(cube):
    recorder = Recorder()
    units = lazynwb.scan_nwb(cube, "units", executor=recorder)

    def run():
        recorder.works.clear()
        found = units.filter(pl.col("presence_ratio") > 0.7).select("unit_id", "presence_ratio").collect()
        return found, len(recorder.works)

    expected, tasks = run()
    assert tasks > 0
    assert run()[1] == tasks
    lazynwb.scan_nwb(cube, "units").select("unit_id", "presence_ratio").collect()
    found, tasks = run()
    assert tasks == 0
    assert_frames(found, expected)


class TestStoredColumnsOfFilteredQueries:
    """A filtered query stores the columns that it decodes anyway, and the others when it is repeated."""

    def query(self, cube):
        lf = lazynwb.scan_nwb(cube, "units").filter(
            pl.col("presence_ratio") > 0.5, pl.col("location") == "CA1"
        )
        return lf.select("unit_id", "decoder_label", "amplitude_cutoff", "_nwb_path").collect()

    def test_no_chunk_is_decoded_for_the_store(self, tmp_path):
        with h5py.File(tmp_path / "a.nwb", "w") as file:
            columns = {"key": 100, "many": 100, "one": 1000}
            table(
                file,
                "t",
                {n: Column(np.arange(1000), {"chunks": (c,), "compression": 1}) for n, c in columns.items()},
            )
        time.sleep(0.1)
        lf = lazynwb.scan_nwb(tmp_path / "a.nwb", "t").filter(pl.col("key") == 555)
        decoded = []
        for names in (["many", "one"], ["many", "one"], ["one"]):
            forget_entries()
            with lazynwb.profile() as profile:
                assert lf.select(names).collect().rows() == [(555,) * len(names)]
            decoded.append(profile.chunks_decoded)
        assert decoded == [10 + 1 + 1, 1, 0]

    def test_the_third_run_reads_no_file(self, cube):
        expected = unstored(lambda: self.query(cube))
        found = [stored(lambda: self.query(cube)) for _ in range(3)]
        for frame, _, _ in found:
            assert_frames(frame, expected)
        assert found[0][1] == 0
        assert found[1][1:] > (0, 0)
        assert found[2][1:] == (240, 0)

    def test_files_without_remaining_rows_are_not_read(self, cube):
        lf = lazynwb.scan_nwb(cube, "units").filter(pl.col("unit_id").str.starts_with("s3_"))
        expected = unstored(lambda: lf.select("decoder_label", "amplitude_cutoff").collect())
        for _ in range(2):
            assert_frames(
                stored(lambda: lf.select("decoder_label", "amplitude_cutoff").collect())[0], expected
            )
        found, rows, read = stored(lambda: lf.select("decoder_label", "amplitude_cutoff").collect())
        assert (rows, read) == (240, 0)
        assert_frames(found, expected)
        # Of the other files these columns are not stored, and a query that needs them reads them there.
        unfiltered = lazynwb.scan_nwb(cube, "units").select("unit_id", "decoder_label")
        expected = unstored(unfiltered.collect)
        for _ in range(3):
            found, _, read = stored(unfiltered.collect)
            assert_frames(found, expected)
        assert read == 0

    @pytest.mark.parametrize("engine", ENGINES)
    def test_filters_on_columns_that_only_some_sessions_have_stored(self, cube, engine):
        for number in (1, 4):
            lf = lazynwb.scan_nwb(cube[number], "units").select("location", "presence_ratio")
            stored(lf.collect)
        stored(lambda: lazynwb.scan_nwb(cube, "units").select("decoder_label").collect())
        lf = lazynwb.scan_nwb(cube, "units").filter(
            pl.col("location") == "CA1", pl.col("presence_ratio") > 0.4, pl.col("decoder_label") == "sua"
        )
        lf = lf.select("unit_id", "spike_times", "_table_index", "_nwb_path")
        expected = unstored(lf.collect)
        for _ in range(3):
            assert_frames(stored(lambda: lf.collect(engine=engine))[0], expected)


def test_absent_tables_are_stored(cube, tmp_path, caplog):
    with h5py.File(tmp_path / "other.nwb", "w") as file:
        table(file, "intervals/blocks", {"x": Column(np.arange(3))})
    time.sleep(0.1)
    paths = [*cube, tmp_path / "other.nwb"]

    def run():
        return (
            lazynwb.scan_nwb(paths, "/units", infer_schema_length=1).select("unit_id", "_nwb_path").collect()
        )

    expected = unstored(run)
    for _ in range(3):
        caplog.clear()
        with lazynwb.profile() as profile:
            found, rows, read = stored(run)
        assert_frames(found, expected)
        assert "no table /units in 1 of 7 files" in caplog.text
    assert (rows, read, profile.cache_hits) == (240, 0, 0)
    with pytest.raises(lazynwb.TableNotFoundError, match=r"other\.nwb has no table /units"):
        lazynwb.scan_nwb(paths, "/units", infer_schema_length=1, raise_on_missing=True).collect()
    with pytest.raises(lazynwb.TableNotFoundError, match=r"no table /units"):
        lazynwb.scan_nwb(paths[-1], "/units")
    assert (
        len(
            lazynwb.scan_nwb(paths, "/units").filter(pl.col("_nwb_path").str.ends_with("other.nwb")).collect()
        )
        == 0
    )
    time.sleep(0.1)
    shutil.copy(cube[0], paths[-1])
    time.sleep(0.1)
    assert len(stored(run)[0]) == 280


def test_row_counts_are_stored(cube):
    def run():
        return lazynwb.scan_nwb(cube, "/units", infer_schema_length=1).select(pl.len()).collect().item()

    for rows in (0, 240, 240):
        with lazynwb.profile() as profile:
            assert stored(run)[:2] == (240, rows)
    assert profile.cache_hits == 0


def test_columns_of_several_queries_are_combined(cube):
    columns = ["decoder_label", "location", "presence_ratio"]
    for name in columns:
        stored(lambda name=name: lazynwb.scan_nwb(cube, "units").select(name).collect())
    found, rows, read = stored(lambda: lazynwb.scan_nwb(cube, "units").select(columns).collect())
    assert (rows, read) == (240, 0)
    assert_frames(found, unstored(lambda: lazynwb.scan_nwb(cube, "units").select(columns).collect()))


def test_a_scan_yields_rows_part_by_part(cube):
    """In addition to the returned rows, at most one part is in memory."""
    for path in cube:
        stored(lambda path=path: lazynwb.read_nwb(path, "intervals/trials"))
    expected = unstored(lambda: lazynwb.read_nwb(cube, "intervals/trials"))
    kept = column_store().parts_of(store_key("intervals/trials"))
    lazynwb.config.batch_bytes = sum(part.decoded for part in kept) // 2
    plan = plan_scan(tuple(expand(cube)), "/intervals/trials")
    batches, rows, read = stored(lambda: list(run(plan, expected.columns, None, None)))
    assert (len(batches), rows, read) == (len(kept), expected.height, 0)
    assert_frames(pl.concat(batches), expected)


def test_sources_come_in_any_order_and_more_than_once(cube):
    stored(lambda: lazynwb.read_nwb(cube, "intervals/trials"))
    for order in ([5, 0, 3], [2, 2], [4, 1, 4, 0, 1]):
        paths = [cube[number] for number in order]
        found, _, read = stored(lambda paths=paths: lazynwb.read_nwb(paths, "intervals/trials"))
        assert read == 0
        assert_frames(found, unstored(lambda paths=paths: lazynwb.read_nwb(paths, "intervals/trials")))


def test_a_query_over_more_files_reads_only_new_files(cube):
    stored(lambda: lazynwb.read_nwb(cube[1:3] + cube[5:], "intervals/trials"))
    found, rows, _ = stored(lambda: lazynwb.read_nwb(cube, "intervals/trials"))
    assert rows == 90
    assert_frames(found, unstored(lambda: lazynwb.read_nwb(cube, "intervals/trials")))
    assert stored(lambda: lazynwb.read_nwb(cube, "intervals/trials"))[1:] == (180, 0)


def test_limits_count_rows_of_all_files(cube):
    stored(lambda: lazynwb.read_nwb(cube[::2], "intervals/trials"))
    for limit in (0, 1, 30, 31, 75, 500):
        found, _, _ = stored(
            lambda limit=limit: lazynwb.scan_nwb(cube, "intervals/trials").head(limit).collect()
        )
        assert_frames(found, unstored(lambda: lazynwb.read_nwb(cube, "intervals/trials")).head(limit))


def test_settings_that_bypass_the_store(cube):
    lazynwb.config.column_cache_bytes = 0
    stored(lambda: lazynwb.read_nwb(cube, "units"))
    assert column_store().usage() == (0, 0)
    lazynwb.config.column_cache_bytes = 1 << 30
    stored(lambda: lazynwb.read_nwb(cube, "intervals/trials"))
    assert parts()
    lazynwb.config.disable_cache = True
    assert stored(lambda: lazynwb.read_nwb(cube, "intervals/trials"))[1] == 0


def test_clearing_the_cache_clears_the_store(cube):
    stored(lambda: lazynwb.read_nwb(cube, "intervals/trials"))
    assert parts()
    lazynwb.clear_cache()
    assert not list(column_store().files())


# -- files that differ ------------------------------------------------------------------------------------


@pytest.fixture
def unlike(tmp_path):
    """Files whose tables differ in types, columns, lengths and defects."""
    contents = [
        {"x": np.arange(3, dtype="i2"), "t": ["a", "b", "c"]},
        {"x": np.arange(4, dtype="f8") / 3, "y": np.arange(4)},
        {"x": np.arange(2, dtype="u4"), "t": np.array([b"one", b"two"], "S3"), "y": np.arange(2, dtype="i1")},
        {"y": np.array([7, 8]), "r": Ragged([[1.0], [2.0, 3.0]])},
        {},
        {"x": np.arange(3, dtype="i2"), "y": np.arange(2), "a": np.arange(6).reshape(3, 2)},
    ]
    paths = []
    for number, columns in enumerate(contents):
        paths.append(tmp_path / f"{number}.nwb")
        with h5py.File(paths[-1], "w") as file:
            table(file, "t", columns, rows=max([len(getattr(c, "rows", c)) for c in columns.values()] or [0]))
    time.sleep(0.1)
    return paths


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"infer_schema_length": 2},
        {"schema_overrides": {"x": pl.String, "y": pl.Float32}},
        {"schema": {"x": pl.Float64, "z": pl.Int8}},
        {"exclude_array_columns": True},
    ],
)
def test_schemas_of_other_queries_have_no_effect(unlike, options, caplog):
    def run():
        return lazynwb.scan_nwb(unlike, "t", **options).collect()

    for other in ({"schema_overrides": {"x": pl.Float64, "y": pl.String}}, {}):
        stored(lambda other=other: lazynwb.read_nwb(unlike, "t", **other))
    caplog.clear()
    expected = unstored(run)
    said = [record.getMessage() for record in caplog.records]
    for _ in range(2):
        caplog.clear()
        assert_frames(stored(run)[0], expected)
        assert [record.getMessage() for record in caplog.records] == said


@pytest.mark.parametrize("name", ["*", "^a.*$", "a b/c", "\u00fc", "_lazynwb_session", "left"])
@pytest.mark.sample(2)
def test_columns_whose_names_are_patterns_in_polars(tmp_path, name):
    paths = [tmp_path / f"{number}.nwb" for number in range(2)]
    for number, path in enumerate(paths):
        with h5py.File(path, "w") as file:
            name_in_file = name.replace("/", ":")
            table(
                file, "t", {name_in_file: np.arange(3) + number, "ab": np.arange(3.0), "ac": ["x", "y", "z"]}
            )
    time.sleep(0.1)

    def run():
        return lazynwb.scan_nwb(paths, "t").filter(pl.col("ab") > 0).collect()

    expected = unstored(run)
    for _ in range(3):
        found, rows, _ = stored(run)
        assert_frames(found, expected)
    assert rows == 6 or name == "_lazynwb_session"
    forget_entries()
    lazynwb.read_nwb(paths, "t")
    assert_frames(
        stored(lambda: lazynwb.read_nwb(paths, "t"))[0], unstored(lambda: lazynwb.read_nwb(paths, "t"))
    )


def test_casts_that_lose_values_stay_errors(unlike):
    for _ in range(2):
        with pytest.raises(lazynwb.SchemaError, match=r"1\.nwb"):
            stored(lambda: lazynwb.read_nwb(unlike[:2], "t", infer_schema_length=1))
        stored(lambda: lazynwb.read_nwb(unlike, "t"))


# -- files that change ------------------------------------------------------------------------------------


def test_changes_of_files_are_detected(tmp_path):
    paths = write_cube(tmp_path / "cube", 4)
    time.sleep(0.1)

    def check(others=paths):
        def run():
            return lazynwb.read_nwb(others, "intervals/trials")

        expected = unstored(run)
        for _ in range(2):
            assert_frames(stored(run)[0], expected)
            time.sleep(0.1)
        return expected

    first = check()
    write_session(tmp_path / "other.nwb", 77)
    shutil.move(tmp_path / "other.nwb", paths[1])
    assert not check().equals(first)
    with h5py.File(paths[2], "r+") as file:
        file["intervals/trials/start_time"][3] = -5.0
    assert check().filter(pl.col("start_time") == -5).height == 1
    paths[3].unlink()
    with pytest.raises(lazynwb.SourceNotFoundError):
        check()
    assert check(paths[:3]).height == 90
    status = paths[0].stat()
    with h5py.File(paths[0], "r+") as file:
        file["intervals/trials/start_time"][0] = -7.0
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert check(paths[:3])["start_time"][0] == -7.0


@pytest.mark.parametrize("limit", [None, 1, 6, 9])
def test_a_file_that_grows_while_its_part_vanishes(tmp_path, monkeypatch, limit):
    """After a file has been read, its rows are counted in the file and not in its stored part."""
    paths = [tmp_path / f"{number}.nwb" for number in range(2)]

    def write(rows):
        for path in paths:
            with h5py.File(path, "w") as file:
                table(file, "t", {"x": np.arange(rows)})

    def run():
        scan = lazynwb.scan_nwb(paths, "t").select("x")
        return scan.collect() if limit is None else scan.head(limit).collect()

    def vanish(*_):
        write(7)
        raise FileNotFoundError

    write(5)
    time.sleep(0.1)
    stored(lambda: lazynwb.read_nwb(paths, "t"))
    for name in ("read", "read_into"):
        monkeypatch.setattr(LocalPart, name, vanish)
    assert stored(run)[0]["x"].to_list() == [*range(7), *range(7)][:limit]


def test_recently_written_files_are_not_stored(tmp_path):
    path = write_session(tmp_path / "a.nwb", 1)
    os.utime(path)
    lazynwb.read_nwb(path, "intervals/trials")
    if time.time() - path.stat().st_mtime < 0.05:
        assert not parts()


def test_linked_files_are_part_of_the_identity(tmp_path):
    with h5py.File(tmp_path / "data.nwb", "w") as file:
        table(file, "t", {"x": np.arange(3)})
    with h5py.File(tmp_path / "main.nwb", "w") as file:
        file["t"] = h5py.ExternalLink("data.nwb", "t")
    time.sleep(0.1)

    def run():
        return lazynwb.read_nwb(tmp_path / "main.nwb", "t")

    stored(run)
    assert stored(run)[1:] == (3, 0)
    with h5py.File(tmp_path / "data.nwb", "r+") as file:
        file["t/x"][0] = 9
    time.sleep(0.1)
    assert stored(run)[0]["x"].to_list() == [9, 1, 2]
    (tmp_path / "data.nwb").unlink()
    with pytest.raises(lazynwb.LazyNWBError):
        stored(run)


# -- damage and other processes ---------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "entry"])
@pytest.mark.sample(2)
def test_queries_on_damaged_parts_read_the_files(cube, damage):
    generator = random.Random(damage)  # noqa: S311 - the same each time

    def run():
        return lazynwb.scan_nwb(cube, "units").filter(pl.col("location") == "CA1").collect()

    expected = unstored(run)
    for _ in range(12):
        stored(run)
        for path in parts():
            if not path.with_suffix(".entry").exists():
                continue  # of an earlier turn
            if damage == "entry":
                path = path.with_suffix(".entry")  # noqa: PLW2901
            data = bytearray(path.read_bytes())
            if damage == "delete":
                path.unlink()
            elif damage == "cut":
                path.write_bytes(data[: generator.randrange(len(data))])
            else:
                for _ in range(20):
                    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
                path.write_bytes(data)
        assert_frames(stored(run)[0], expected)


CHILD = """
import sys, zlib, lazynwb, polars as pl
for column in ("stim_name", "start_time", "block_index"):
    frame = lazynwb.scan_nwb(sys.argv[1], "intervals/trials").select(column, "_nwb_path").collect()
    print(zlib.crc32(repr(frame.rows()).encode()), flush=True)
"""


@pytest.mark.long
def test_two_processes_fill_the_store_at_once(cube, cache_dir):
    def start():
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", CHILD, str(cube[0].parent)],
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(LAZYNWB_CACHE_DIR=str(cache_dir)),
        )

    outputs = [process.communicate()[0] for process in [start() for _ in range(3)]]
    assert outputs[0].count("\n") == 3
    assert len(set(outputs)) == 1
    assert stored(lambda: lazynwb.read_nwb(cube, "intervals/trials").height)[0] == 180
    killed = start()
    killed.stdout.readline()
    killed.kill()
    killed.communicate()
    assert_frames(
        stored(lambda: lazynwb.read_nwb(cube, "intervals/trials"))[0],
        unstored(lambda: lazynwb.read_nwb(cube, "intervals/trials")),
    )


HEAD = """
import sys, lazynwb, polars as pl
units = lazynwb.scan_nwb(sys.argv[1:], "units", infer_schema_length=1)
print(units.filter(pl.col("location") == "CA1").select("location").head(2).collect().height)
"""


def test_a_process_that_only_takes_the_first_rows_fills_the_store(cube, cache_dir):
    """Polars does not close a scan below `head`: its columns are written when the process exits."""
    assert run_child(HEAD, *cube, LAZYNWB_CACHE_DIR=str(cache_dir)).split() == ["2"]
    first = lazynwb.scan_nwb(cube[:1], "units").select("location")
    frame, rows, read = stored(first.collect)
    assert (rows, read) == (40, 0)
    assert_frames(frame, unstored(first.collect))


WARM = """
import sys, lazynwb, polars as pl
imported = set(sys.modules)
lf = lazynwb.scan_nwb(sys.argv[1], "units", session_columns=["subject_id"])
frame = lf.filter(pl.col("location") == "CA1").select("unit_id", "_nwb_path", "_table_index").collect()
lf.select(pl.len()).collect()
lf.filter(pl.col("subject_id").is_not_null()).group_by("location", "subject_id").len().collect()
lf.select("unit_id").head(3).collect()
lazynwb.scan_nwb(sys.argv[1], "/intervals/trials", infer_schema_length=1).collect()
lazynwb.get_table_schema(sys.argv[1], "/units")
heavy = {"numpy", "h5py", "obstore", "nanoarrow", "numcodecs", "urllib.request"} & set(sys.modules)
print(frame.height, *heavy, *(name for name in set(sys.modules) - imported if name.startswith("lazynwb")))
"""


def test_warm_queries_import_nothing(cube, cache_dir):
    expected = stored(
        lambda: (
            lazynwb.scan_nwb(cube, "units").filter(pl.col("location") == "CA1").select("unit_id").collect()
        )
    )[0]
    outputs = [
        subprocess.run(  # noqa: S603
            [sys.executable, "-c", WARM, str(cube[0].parent)],
            capture_output=True,
            text=True,
            check=True,
            env=child_environment(LAZYNWB_CACHE_DIR=str(cache_dir)),
        ).stdout.split()
        for _ in range(3)
    ]
    assert outputs[-1] == [str(expected.height)]
