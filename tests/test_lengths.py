"""Lengths of lists from index columns: `length_columns`, and filters on `list.len()` and nulls.

The truth are the Python lists that the files were written from; how much is read is compared with the sizes
of the index datasets as h5py gives them.
"""

import functools
import json
import operator
import pickle
import tempfile
from pathlib import Path

import h5py
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

import lazynwb
from builders import Column, Ragged, numbers, nwb_root, table, write_cube
from checks import ENGINES, assert_frames
from lazynwb.cli import main
from lazynwb.column_store.store import forget_entries
from lazynwb.lookup import catalog_cache
from lazynwb.storage.source import Source

TIMES, SPANS = "spike_times", "obs_intervals"
LENGTH = pl.col(TIMES).list.len()


@pytest.fixture
def cube(tmp_path):
    return write_cube(tmp_path / "cube", 4)


@pytest.fixture
def settled(monkeypatch):
    """Cache files immediately after they were written."""
    monkeypatch.setattr(Source, "is_settled", lambda *_: True)


def index_bytes(paths, *names):
    total = 0
    for path in paths:
        with h5py.File(path) as file:
            total += sum(file[f"units/{name}_index"].id.get_storage_size() for name in names)
    return total


def lengths_in(paths, name):
    """The lengths of the rows, from their cumulative ends as h5py reads them."""
    found = []
    for path in paths:
        with h5py.File(path) as file:
            found += np.diff(file[f"units/{name}_index"][:].astype(int), prepend=0).tolist()
    return found


def counted(query):
    with lazynwb.profile() as profile:
        frame = query.collect()
    return frame, profile


class TestBytes:
    """Return the size of the index datasets of columns, the only datasets to be read."""

    def test_length_column(self, cube):
        lf = lazynwb.scan_nwb(cube, "units", length_columns=True)
        frame, profile = counted(lf.select("spike_times_len"))
        assert frame["spike_times_len"].to_list() == lengths_in(cube, TIMES)
        assert frame.schema == {"spike_times_len": pl.UInt32}
        assert profile.bytes_read == index_bytes(cube, TIMES)
        assert profile.chunks_decoded == 0

    def test_filter_on_length_column(self, cube):
        lf = lazynwb.scan_nwb(cube, "units", length_columns=TIMES)
        frame, profile = counted(lf.filter(pl.col("spike_times_len") > 100).select("spike_times_len"))
        assert frame["spike_times_len"].to_list() == [n for n in lengths_in(cube, TIMES) if n > 100]
        assert profile.bytes_read == index_bytes(cube, TIMES)

    @pytest.mark.parametrize(
        "predicate",
        [
            LENGTH > 10_000,
            pl.col(TIMES).is_null(),
            ~pl.col(TIMES).is_not_null(),
            LENGTH.is_null(),
            (LENGTH > 10_000) | (LENGTH.cast(pl.Float64) / 2 > 5000.5),
            ~(LENGTH <= 10_000),
            LENGTH.is_between(5000, 6000),
            LENGTH.is_in([5000, 6000]),
            pl.when(LENGTH > 0).then(LENGTH).otherwise(0) > 10_000,
        ],
        ids=str,
    )
    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.sample(2)
    def test_a_filter_that_no_row_passes(self, cube, predicate, engine):
        with lazynwb.profile() as profile:
            frame = lazynwb.scan_nwb(cube, "units").filter(predicate).collect(engine=engine)
        assert frame.height == 0
        assert profile.bytes_read == index_bytes(cube, TIMES)
        assert profile.chunks_decoded == 0

    def test_a_predicate_on_two_length_columns(self, cube):
        lengths = lengths_in(cube, TIMES), lengths_in(cube, SPANS)
        predicate = pl.col(SPANS).list.len() > LENGTH
        lf = lazynwb.scan_nwb(cube, "units").filter(predicate)
        _, profile = counted(lf.filter(LENGTH > 10_000))
        assert profile.bytes_used == index_bytes(cube, TIMES, SPANS)
        assert lf.select(pl.len()).collect().item() == sum(map(operator.lt, *lengths))

    def test_values_of_survivors_only(self, cube):
        """Polars requests the columns of a predicate, so their elements are read for the remaining rows."""
        most = max(lengths_in(cube, TIMES))
        lf = lazynwb.scan_nwb(cube, "units")
        frame, profile = counted(lf.filter(most == LENGTH).select(TIMES))
        assert [len(row) for row in frame[TIMES]] == [most] * lengths_in(cube, TIMES).count(most)
        whole = sum(Path(path).stat().st_size for path in cube)
        assert profile.chunks_decoded <= 3 * frame.height
        assert profile.bytes_read < whole / 20

    def test_a_null_filter_on_arrays_of_fixed_shape(self, cube):
        _, profile = counted(lazynwb.scan_nwb(cube, "units").filter(pl.col("waveform_mean").is_null()))
        assert profile.bytes_read == 0

    def test_values_used_by_the_predicate_are_read(self, cube):
        lf = lazynwb.scan_nwb(cube, "units")
        predicate = (LENGTH > 3) & (pl.col(TIMES).list.max() > 999) | (LENGTH == 0)
        assert_frames(lf.filter(predicate).collect(), lf.collect().filter(predicate))


@pytest.mark.usefixtures("settled")
class TestStore:
    """Lengths are kept in the column store."""

    def test_a_second_process_reads_no_file(self, cube):
        lf = lazynwb.scan_nwb(cube, "units", length_columns=True)
        first = lf.select("unit_id", "spike_times_len").collect()
        forget_entries()
        catalog_cache.clear_memory()
        lf = lazynwb.scan_nwb(cube, "units", length_columns=True)
        query = lf.filter(pl.col("spike_times_len") > 100).select("unit_id", "spike_times_len")
        second, profile = counted(query)
        assert_frames(second, first.filter(pl.col("spike_times_len") > 100))
        assert (profile.bytes_read, profile.chunks_decoded, profile.files_opened) == (0, 0, 0)
        assert profile.rows_stored == first.height
        assert profile.bytes_stored > 0

    def test_filter_and_length_column_share(self, cube):
        lazynwb.scan_nwb(cube, "units").filter(LENGTH > 10_000).collect()
        forget_entries()
        frame, profile = counted(
            lazynwb.scan_nwb(cube, "units", length_columns=True).select("spike_times_len")
        )
        assert frame["spike_times_len"].to_list() == lengths_in(cube, TIMES)
        assert profile.bytes_read == 0

    def test_values_are_read_for_survivors(self, cube):
        lf = lazynwb.scan_nwb(cube, "units", length_columns=True)
        whole = lf.collect()
        for predicate in (LENGTH > 190, pl.col("spike_times_len") > 190):
            forget_entries()
            assert_frames(lf.filter(predicate).collect(), whole.filter(predicate))

    def test_lengths_of_a_replaced_file(self, tmp_path):
        path = tmp_path / "a.nwb"
        for rows in ([[1.0], [2.0, 3.0]], [[], [1.0, 2.0, 3.0], [4.0]]):
            path.unlink(missing_ok=True)
            with h5py.File(path, "w") as file:
                nwb_root(file)
                table(file, "units", {TIMES: Ragged(rows)})
            frame = lazynwb.scan_nwb(path, "units", length_columns=True).select("spike_times_len").collect()
            assert frame["spike_times_len"].to_list() == [len(row) for row in rows]

    def test_a_stored_column_with_the_name_of_a_length_column_is_distinguished(self, tmp_path):
        """A file's column `a_len` and the lengths of `a` are two columns of the store."""
        path = tmp_path / "a.nwb"
        with h5py.File(path, "w") as file:
            nwb_root(file)
            table(file, "units", {"a": Ragged([[1.0], [], [2.0, 3.0]]), "a_len": [7.5, 8.5, 9.5]})
        lf = lazynwb.scan_nwb(path, "units")
        for _ in range(2):
            found = lf.filter(pl.col("a").list.len() > 0, pl.col("a_len") > 8).collect()
            assert found["a_len"].to_list() == [9.5]
            forget_entries()


class TestNames:
    def test_length_columns_follow_their_list_columns(self, cube):
        schema = lazynwb.get_table_schema(cube, "units", length_columns=True)
        plain = list(lazynwb.get_table_schema(cube, "units"))
        for name in (SPANS, TIMES):
            plain.insert(plain.index(name) + 1, f"{name}_len")
        assert list(schema) == plain
        assert schema["spike_times_len"] == pl.UInt32

    def test_names_of_length_columns(self, cube):
        schema = lazynwb.get_table_schema(cube, "units", length_columns=[TIMES])
        assert [name for name in schema if name.endswith("_len")] == ["spike_times_len"]

    def test_length_columns_without_array_columns(self, cube):
        schema = lazynwb.get_table_schema(cube, "units", exclude_array_columns=True, length_columns=True)
        assert "spike_times_len" in schema
        assert TIMES not in schema

    def test_an_unknown_column(self, cube):
        with pytest.raises(lazynwb.ColumnNotFoundError, match=r"'spike_time'.*did you mean.*spike_times"):
            lazynwb.scan_nwb(cube, "units", length_columns="spike_time")

    @pytest.mark.parametrize("name", ["unit_id", "waveform_mean"])
    def test_naming_a_column_that_is_not_a_list_is_an_error(self, cube, name):
        with pytest.raises(
            lazynwb.SchemaError, match=f"'{name}' of /units is .*only list columns have length columns"
        ):
            lazynwb.scan_nwb(cube, "units", length_columns=["spike_times", name])

    @pytest.mark.parametrize("length_columns", [True, "a"])
    def test_a_table_with_a_column_of_the_new_name_is_an_error(self, tmp_path, length_columns):
        with h5py.File(tmp_path / "a.nwb", "w") as file:
            nwb_root(file)
            table(file, "units", {"a": Ragged([[1.0]]), "a_len": [1], "b": Ragged([[1.0, 2.0]])})
        with pytest.raises(lazynwb.SchemaError, match=r"has a column 'a_len' already: leave out 'a'"):
            lazynwb.scan_nwb(tmp_path / "a.nwb", "units", length_columns=length_columns)
        found = lazynwb.scan_nwb(tmp_path / "a.nwb", "units", length_columns=["b"]).collect()
        assert found.select("a_len", "b_len").row(0) == (1, 2)
        sql = lazynwb.get_sql_context(tmp_path / "a.nwb", length_columns=True)
        assert sql.execute("SELECT a_len, b_len FROM units").collect().row(0) == (1, 2)

    def test_session_column_of_that_name(self, cube):
        with pytest.raises(lazynwb.SchemaError, match="spike_times_len"):
            lazynwb.scan_nwb(
                cube, "units", length_columns=True, session_columns={"spike_times_len": "session_id"}
            )


class TestWays:
    """Functions and commands with length columns."""

    def test_length_columns_in_sql(self, cube):
        context = lazynwb.get_sql_context(cube, length_columns=True)
        with lazynwb.profile() as profile:
            found = context.execute(
                "SELECT SUM(spike_times_len) AS n FROM units WHERE spike_times_len > 50"
            ).collect()
        assert found.item() == sum(n for n in lengths_in(cube, TIMES) if n > 50)
        assert profile.bytes_read == index_bytes(cube, TIMES)
        assert "start_time" in context.execute("SELECT * FROM trials LIMIT 1").collect().columns

    def test_sql_array_length(self, cube):
        context = lazynwb.get_sql_context(cube, ignore_errors=False)
        with lazynwb.profile() as profile:
            context.execute("SELECT unit_id FROM units WHERE ARRAY_LENGTH(spike_times) > 10000").collect()
        assert profile.bytes_read == index_bytes(cube, TIMES)

    def test_length_columns_of_get_df(self, cube):
        frame = lazynwb.get_df(cube, "units", length_columns=True, as_polars=True)
        assert TIMES not in frame.columns
        assert frame["spike_times_len"].to_list() == lengths_in(cube, TIMES)

    def test_length_columns_of_get_df_with_row_numbers(self, cube):
        rows = {cube[1]: [5, 3], cube[0]: [0]}
        frame = lazynwb.get_df(
            cube, "units", nwb_path_to_row_indices=rows, length_columns=[TIMES], as_polars=True
        )
        one, other = (lengths_in([path], TIMES) for path in cube[:2])
        assert frame["spike_times_len"].to_list() == [one[0], other[5], other[3]]

    def test_length_columns_of_a_session(self, cube):
        frame = lazynwb.LazyNWB(cube[0]).get_df("units", length_columns=TIMES, as_polars=True)
        assert frame["spike_times_len"].to_list() == lengths_in(cube[:1], TIMES)

    def test_lengths_on_the_command_line(self, cube, capsys):
        def run_cli(*arguments):
            assert main([*arguments]) == 0
            return capsys.readouterr().out

        arguments = ["--lengths", "-c", "spike_times_len", "-f", "json", "-n", "3", str(cube[0]), "units"]
        found = json.loads(run_cli("head", *arguments))
        assert [row["spike_times_len"] for row in found] == lengths_in(cube[:1], TIMES)[:3]
        statement = "SELECT MAX(spike_times_len) AS most FROM units"
        found = json.loads(run_cli("query", "--lengths", "-f", "json", statement, str(cube[0])))
        assert found == [{"most": max(lengths_in(cube[:1], TIMES))}]

    def test_lengths_with_an_index(self, cube, tmp_path):
        lazynwb.build_index(cube, tmp_path / "index")
        lf = lazynwb.scan_nwb(None, "units", index=tmp_path / "index", length_columns=True)
        with lazynwb.profile() as profile:
            found = lf.filter(pl.col("spike_times_len") > 100).select("spike_times_len").collect()
        assert found["spike_times_len"].to_list() == [n for n in lengths_in(cube, TIMES) if n > 100]
        assert profile.bytes_read == index_bytes(cube, TIMES)
        assert profile.files_parsed == 0

    def test_lengths_with_values_of_an_index(self, cube, tmp_path):
        """Lengths are values of an index: no file is read."""
        lazynwb.build_index(cube, tmp_path / "index", values=True)
        lazynwb.clear_cache()
        whole = lazynwb.scan_nwb(cube, "units", length_columns=True).collect()
        lf = lazynwb.scan_nwb(None, "units", index=tmp_path / "index", length_columns=True)
        found, profile = counted(lf.filter(pl.col("spike_times_len") >= 0).select("spike_times_len"))
        assert found.to_series().to_list() == lengths_in(cube, TIMES)
        assert (profile.bytes_read, profile.files_opened, profile.files_parsed) == (0, 0, 0)
        values = lazynwb.scan_index(tmp_path / "index", "/units")
        assert values.select("spike_times_len").collect().equals(found)
        for predicate in (LENGTH > 100, pl.col("spike_times_len") > 100, pl.col(TIMES).is_null()):
            both = lf.filter(predicate).select("unit_id", "spike_times_len").collect()
            assert_frames(both, whole.filter(predicate).select("unit_id", "spike_times_len"))
            assert lf.filter(predicate).select(pl.len()).collect().item() == whole.filter(predicate).height

    def test_lengths_of_tables_that_match_a_pattern(self, cube):
        lf = lazynwb.scan_nwb(cube, "/un*", length_columns=True)
        found, profile = counted(lf.select("spike_times_len"))
        assert found["spike_times_len"].to_list() == lengths_in(cube, TIMES)
        assert profile.bytes_read == index_bytes(cube, TIMES)

    def test_lengths_on_an_executor(self, cube):
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(2) as executor:
            lf = lazynwb.scan_nwb(cube, "units", length_columns=True, executor=executor)
            found = (
                lf.filter(LENGTH > 100, pl.col("spike_times_len") < 150).select("spike_times_len").collect()
            )
        assert found["spike_times_len"].to_list() == [n for n in lengths_in(cube, TIMES) if 100 < n < 150]

    def test_a_query_can_be_pickled(self, cube):
        lf = lazynwb.scan_nwb(cube, "units", length_columns=True).filter(pl.col("spike_times_len") > 100)
        copy = pickle.loads(pickle.dumps(lf.select("unit_id", "spike_times_len")))  # noqa: S301 - its own
        assert_frames(copy.collect(), lf.select("unit_id", "spike_times_len").collect())

    def test_lengths_and_late_columns(self, cube):
        whole = lazynwb.scan_nwb(cube, "units").collect()
        rows = lazynwb.scan_nwb(cube, "units", exclude_array_columns=True)
        late = rows.nwb.with_columns(TIMES)
        for predicate in (LENGTH > 190, pl.col(TIMES).is_null(), LENGTH > 10_000):
            with lazynwb.profile() as profile:
                found = late.filter(predicate).select("unit_id", TIMES).collect()
            assert_frames(found, whole.filter(predicate).select("unit_id", TIMES))
        assert profile.bytes_decoded < 100_000

    def test_firing_rates(self, cube):
        lf = lazynwb.scan_nwb(cube, "units", length_columns=TIMES)
        rates = lf.select("unit_id", rate=pl.col("spike_times_len") / 1024).sort("rate").collect()
        assert rates["rate"].to_list() == sorted(n / 1024 for n in lengths_in(cube, TIMES))


class TestShapes:
    """Each kind of column that is a list in a scan."""

    def write(self, path, **columns):
        with h5py.File(path, "w") as file:
            nwb_root(file)
            table(file, "units", columns)
        return path

    def assert_lengths(self, paths, expected):
        lf = lazynwb.scan_nwb(paths, "units", length_columns="x")
        for _ in range(2):  # the second time from the column store, as far as it has them
            forget_entries()
            assert lf.select("x_len").collect()["x_len"].to_list() == expected
            whole = lf.collect()
            assert whole["x_len"].to_list() == expected
            assert whole["x"].list.len().to_list() == expected
            for predicate in (pl.col("x").is_null(), pl.col("x").list.len() > 1, pl.col("x_len") <= 1):
                assert_frames(lf.filter(predicate).collect(), whole.filter(predicate))

    @pytest.mark.usefixtures("settled")
    def test_arrays_of_other_shapes(self, tmp_path):
        one = self.write(tmp_path / "a.nwb", x=numbers(2, 3))
        other = self.write(tmp_path / "b.nwb", x=numbers(3, 5))
        ragged = self.write(tmp_path / "c.nwb", x=Ragged([[1.0], []]))
        self.assert_lengths([one, other, ragged], [3, 3, 5, 5, 5, 1, 0])

    @pytest.mark.usefixtures("settled")
    def test_text_and_lists_of_text(self, tmp_path):
        one = self.write(tmp_path / "a.nwb", x=["a", "b"])
        other = self.write(tmp_path / "b.nwb", x=Ragged([["a", "b"], []], dtype=h5py.string_dtype()))
        self.assert_lengths([one, other], [1, 1, 2, 0])

    def test_lengths_of_variable_length_sequences(self, tmp_path):
        kind = h5py.vlen_dtype(np.int32)
        with h5py.File(tmp_path / "a.nwb", "w") as file:
            nwb_root(file)
            group = table(file, "units", {"y": [1, 2, 3]}, colnames=["x", "y"])
            group.create_dataset("x", (3,), kind)[:] = [np.arange(n, dtype="i4") for n in (2, 0, 5)]
        self.assert_lengths([tmp_path / "a.nwb"], [2, 0, 5])

    def test_index_with_a_second_dimension(self, tmp_path):
        with h5py.File(tmp_path / "a.nwb", "w") as file:
            nwb_root(file)
            group = table(file, "units", {"x": Ragged([[1.0, 2.0], [], [3.0]])})
            ends = group["x_index"][:]
            target = group["x_index"].attrs["target"]
            del group["x_index"]
            group["x_index"] = ends.reshape(-1, 1)
            group["x_index"].attrs["target"] = target
            group["x_index"].attrs["neurodata_type"] = "VectorIndex"
        whole = lazynwb.scan_nwb(tmp_path / "a.nwb", "units").collect()
        if isinstance(whole.schema["x"], pl.List):
            self.assert_lengths([tmp_path / "a.nwb"], [2, 0, 1])

    @pytest.mark.usefixtures("settled")
    def test_index_that_is_too_short(self, tmp_path):
        with h5py.File(tmp_path / "a.nwb", "w") as file:
            nwb_root(file)
            table(file, "units", {"x": Ragged([[1.0, 2.0], []]), "y": [1, 2, 3]})
        self.assert_lengths([tmp_path / "a.nwb"], [2, 0, None])

    def test_damaged_index(self, tmp_path):
        with h5py.File(tmp_path / "a.nwb", "w") as file:
            nwb_root(file)
            table(file, "units", {"x": Ragged([[1.0, 2.0], [], [3.0]])})
            file["units/x_index"][:] = [2, 1, 3]
        lf = lazynwb.scan_nwb(tmp_path / "a.nwb", "units", length_columns=True)
        for query in (lf.select("x_len"), lf.filter(pl.col("x").list.len() > 0), lf.select("x")):
            with pytest.raises(lazynwb.CorruptDataError, match="column 'x': its index /units/x_index"):
                query.collect()

    def test_values_that_cannot_be_read(self, tmp_path, caplog):
        """A column that is null under `ignore_errors` has null lengths, too."""
        with h5py.File(tmp_path / "a.nwb", "w") as file:
            nwb_root(file)
            group = table(file, "units", {"x": Ragged([[1.0], []])})
            target = group["x_index"].attrs["target"]
            del group["x"]
            group.create_dataset("x", (1,), h5py.opaque_dtype(np.dtype("M8[s]")))
            group["x"].attrs["neurodata_type"] = "VectorData"
            group["x_index"].attrs["target"] = group["x"].ref
            assert target != group["x"].ref
        good = self.write(tmp_path / "b.nwb", x=Ragged([[1.0, 2.0]]))
        lf = lazynwb.scan_nwb([tmp_path / "a.nwb", good], "units", length_columns="x", ignore_errors=True)
        with caplog.at_level("WARNING", "lazynwb"):
            whole = lf.collect()
        assert caplog.text.count("column 'x' is null where it cannot be read") == 1
        assert whole["x_len"].to_list() == [None, None, 2]
        for predicate in (pl.col("x").is_null(), pl.col("x").list.len() >= 0, pl.col("x_len").is_null()):
            assert_frames(lf.filter(predicate).collect(), whole.filter(predicate))

    def test_lengths_of_lists_of_metadata(self, cube):
        found = lazynwb.scan_nwb(cube, "session", length_columns="keywords").collect()
        assert found["keywords_len"].to_list() == [2] * len(cube)


# -- random ragged columns --------------------------------------------------------------------------------

DEPTHS = {"a": 1, "b": 2, "c": 1, "d": 1}
INNER = {"c": (2,)}


@st.composite
def ragged_rows(draw, count, depth):
    sizes = st.integers(0, 4)
    if depth == 1:
        return [[float(k) for k in range(n)] for n in draw(st.lists(sizes, min_size=count, max_size=count))]
    return [draw(ragged_rows(draw(sizes), depth - 1)) for _ in range(count)]


@st.composite
def conditions(draw, names, depth=2):
    """A predicate of lengths and nulls, mixed with a scalar column, in any combination."""
    if depth and draw(st.booleans()):
        combine = draw(st.sampled_from([operator.and_, operator.or_, operator.xor]))
        found = combine(draw(conditions(names, depth - 1)), draw(conditions(names, depth - 1)))
        return ~found if draw(st.booleans()) else found
    one, other = (pl.col(draw(st.sampled_from(names))) for _ in "ab")
    length, limit = one.list.len(), draw(st.integers(0, 4))
    compare = draw(st.sampled_from([operator.lt, operator.le, operator.eq, operator.ne, operator.gt]))
    return draw(
        st.sampled_from(
            [
                compare(length, limit),
                compare(limit, length),
                compare(length, other.list.len()),
                compare(length.cast(pl.Float64) / 2, limit / 3),
                compare(length.cast(pl.Int64) - 2, other.list.len().cast(pl.Int64)),
                length.eq_missing(other.list.len()),
                length.is_between(limit, 3, closed=draw(st.sampled_from(["both", "left", "right", "none"]))),
                length.is_in([limit, 3, None], nulls_equal=draw(st.booleans())),
                length.fill_null(9) > limit,
                one.is_null(),
                one.is_not_null(),
                length.is_null(),
                pl.all_horizontal(length > limit, other.is_not_null(), pl.col("n") > 1),
                pl.any_horizontal(length > limit, other.is_null()),
                pl.when(other.is_null()).then(length).otherwise(pl.col("n")) > limit,
                compare(pl.col("n"), limit),
                compare(length, pl.col("n")),
                one.list.first().is_null() if draw(st.booleans()) else length % 2 == 1,
            ]
        )
    )


@settings(max_examples=settings().max_examples * 2 // 3, deadline=None)
@given(st.data())
def test_lengths_of_random_files(data):
    draw = data.draw
    with tempfile.TemporaryDirectory() as folder:
        paths, truth = [], {name: [] for name in (*DEPTHS, "n")}
        for number in range(draw(st.integers(1, 3))):
            rows = draw(st.integers(0, 5))
            columns = {"n": Column(np.array([draw(st.integers(0, 4)) for _ in range(rows)], "i8"))}
            truth["n"] += columns["n"].data.tolist()
            for name, depth in DEPTHS.items():
                missing = draw(st.integers(0, 3)) == 0
                short = draw(st.integers(0, min(rows, 2))) if not missing and rows > 1 else 0
                listed = [] if missing else draw(ragged_rows(rows - short, depth))
                if name in INNER:
                    listed = [[(value, value) for value in row] for row in listed]
                if not missing:
                    options = {"chunks": (2,), "maxshape": (None,)} if listed and draw(st.booleans()) else {}
                    columns[name] = Ragged(
                        listed,
                        depth=depth,
                        inner=INNER.get(name, ()),
                        index_dtype=draw(st.sampled_from(["u1", "u2", "u4", "u8"])),
                        index_options=options,
                    )
                truth[name] += [*(len(row) for row in listed), *[None] * (rows - len(listed))]
            path = Path(folder) / f"{number}.nwb"
            with h5py.File(path, "w") as file:
                nwb_root(file)
                table(file, "units", columns, rows=rows)
            paths.append(path)
        whole = lazynwb.scan_nwb(paths, "units").collect()
        names = [name for name in DEPTHS if isinstance(whole.schema.get(name), pl.List)]
        lf = lazynwb.scan_nwb(paths, "units", length_columns=True)
        lengths = lf.select(pl.selectors.by_name(*[f"{name}_len" for name in names])).collect()
        for name in names:
            assert lengths[f"{name}_len"].to_list() == truth[name]
            assert whole[name].list.len().to_list() == truth[name]
        for _ in range(4 if names else 0):
            predicate = draw(conditions(names))
            expected = whole.filter(predicate)
            found = lf.filter(predicate).collect(engine=draw(st.sampled_from(ENGINES)))
            assert_frames(found.select(expected.columns), expected)
            n = draw(st.integers(0, whole.height))
            assert_frames(lf.filter(predicate).head(n).select(expected.columns).collect(), expected.head(n))
            # The same of the length columns, which are integers like others.
            some = functools.reduce(operator.or_, (pl.col(f"{name}_len") > 1 for name in names))
            rows = [
                k
                for k in range(whole.height)
                if any(truth[name][k] is not None and truth[name][k] > 1 for name in names)
            ]
            found = lf.filter(some).select("id", "n").collect()
            assert_frames(found, whole.select("id", "n")[rows])
