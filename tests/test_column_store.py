"""The column store: stored values are read unchanged, or not at all."""

import errno
import io
import os
import random
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazynwb.catalog import disk_cache
from lazynwb.catalog.model import Array, Column, DType, Field
from lazynwb.column_store import compaction, store
from lazynwb.column_store.compaction import add, compact
from lazynwb.column_store.entries import Layout, Session, without_addresses
from lazynwb.column_store.parts import SESSION, LocalPart, write_part
from lazynwb.column_store.reading import PartLostError, drop_lost, find, guarded, scan_picks, scan_sessions
from lazynwb.column_store.small_columns import is_small, is_still_small
from lazynwb.column_store.store import Block, ColumnStore, forget_entries
from lazynwb.errors import CorruptDataError

TABLE = "intervals/trials\0folder"
GIB = 1 << 30


def block(sessions, columns=None, identity="1"):
    """Sessions by key, each a dict of columns as lists or Series."""
    frames = {key: pl.DataFrame(values) for key, values in sessions.items()}
    stored = tuple(sorted(next(iter(frames.values())).columns)) if columns is None else columns
    layout = Layout("intervals/trials", "table", (), stored)
    listed = [Session(key, identity, len(frame), 0) for key, frame in frames.items()]
    return Block(listed, [layout], pl.concat(frames.values()))


def read(made, key, columns, identity="1"):
    """The stored columns of one session as lists; None unless all of them are stored."""
    picks = find(made.parts_of(TABLE), key, identity, columns)
    if not picks or set(columns) != set().union(*(pick.columns for pick in picks)):
        return None
    try:
        frame = scan_picks([picks])
        found = guarded(picks[0].part, frame.select(*sorted(columns)).collect)
    except PartLostError as error:
        drop_lost(made, error)
        return None
    return found.to_dict(as_series=False)


@pytest.fixture
def made(tmp_path):
    forget_entries()
    return ColumnStore(tmp_path / "columns", GIB)


def files_of(made, suffix):
    return sorted(path for path, _ in made.files() if path.suffix == suffix)


# -- values -----------------------------------------------------------------------------------------------

ENUM = pl.Enum(["left", "right", "none"])
NAN = float("nan")
SERIES = {
    **{
        f"{dtype}": pl.Series([0, 1, 100, 127], dtype=dtype)
        for dtype in (pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Int8, pl.Int16, pl.Int32, pl.Int64)
    },
    "uint64 ends": pl.Series([0, 2**63, 2**64 - 1], dtype=pl.UInt64),
    "int64 ends": pl.Series([-(2**63), -1, 2**63 - 1], dtype=pl.Int64),
    "float16": pl.Series([1.5, NAN, None], dtype=getattr(pl, "Float16", pl.Float32)),
    "float32": pl.Series([1.5, NAN, None, float("inf")], dtype=pl.Float32),
    "float64": pl.Series([0.1, NAN, None, float("-inf"), 5e-324]),
    "boolean": pl.Series([True, None, False]),
    "text": pl.Series(["a", "", None, "\u00fc\0b", "x" * 70_000]),
    "enum": pl.Series(["right", None, "left"], dtype=ENUM),
    "enum without values": pl.Series([None, None], dtype=ENUM),
    "array": pl.Series([[1.0, 2.0], None, [NAN, 4.0]], dtype=pl.Array(pl.Float64, 2)),
    "array of arrays": pl.Series([[[1, 2], [3, 4], [5, 6]]] * 2, dtype=pl.Array(pl.UInt8, (3, 2))),
    "array of text": pl.Series([["a", None], ["", "b"]], dtype=pl.Array(pl.String, 2)),
    "array of enums": pl.Series([["left", None]], dtype=pl.Array(ENUM, 2)),
    "array of booleans": pl.Series([[True, False, None]], dtype=pl.Array(pl.Boolean, 3)),
    "array of nothing": pl.Series([[], []], dtype=pl.Array(pl.Int32, 0)),
    "struct": pl.Series(
        [{"a": 1, "b": "x"}, None, {"a": None, "b": None}], dtype=pl.Struct({"a": pl.UInt8, "b": pl.String})
    ),
    "struct of an array": pl.Series([{"a": [1, 2]}], dtype=pl.Struct({"a": pl.Array(pl.UInt8, 2)})),
    "null": pl.Series([None, None], dtype=pl.Null),
    "list of text": pl.Series([["a"], [], None, ["b", None]], dtype=pl.List(pl.String)),
    "list of enums": pl.Series([["left"], [], None], dtype=pl.List(ENUM)),
    "list of structs": pl.Series([[{"a": 1}], [], None], dtype=pl.List(pl.Struct({"a": pl.Int8}))),
}


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("repeat", [1, 50_000])
@pytest.mark.sample(4)
def test_values_and_types_are_equal_after_a_round_trip(made, name, repeat):
    if repeat > 1 and name == "text":
        pytest.skip("gigabytes")
    series = pl.concat([SERIES[name]] * repeat).alias("x")
    add(made, TABLE, [block({"a": {"x": series}, "b": {"x": series[:1]}})])
    parts = made.parts_of(TABLE)
    found = pl.concat(
        [
            scan_picks([find([part], key, "1", ["x"])]).collect()["x"]
            for key in ("a", "b")
            for part in parts
            if key in part.ordinals
        ]
    )
    expected = series.append(series[:1])
    assert found.dtype == expected.dtype
    assert found.equals(expected, null_equal=True)


def test_floats_are_equal_in_each_bit(made):
    bits = [0x7FF8_0000_DEAD_BEEF, 0x8000_0000_0000_0000, 0xFFF8_0000_0000_0001, 0]
    values = [struct.unpack("<d", struct.pack("<Q", bit))[0] for bit in bits]
    add(made, TABLE, [block({"a": {"x": values}})])
    found = read(made, "a", ["x"])["x"]
    assert [struct.unpack("<Q", struct.pack("<d", value))[0] for value in found] == bits


def test_nan_is_not_pruned(made):
    rows = 70_000
    values = [0.0] * rows
    values[1] = values[-1] = NAN
    add(made, TABLE, [block({"a": {"x": values}})])
    (part,) = made.parts_of(TABLE)
    frame = scan_sessions(part, [0], ["x"])
    assert frame.filter(pl.col("x") > 1).collect()["_table_index"].to_list() == [1, rows - 1]
    assert frame.filter(pl.col("x").is_nan()).collect()["_table_index"].to_list() == [1, rows - 1]


def test_rows_are_in_the_requested_order(made):
    sizes = {"a": 3, "b": 0, "c": 40_000, "d": 50_000, "e": 1}
    add(made, TABLE, [block({k: {"x": [f"{k}{i}" for i in range(n)]} for k, n in sizes.items()})])
    (part,) = made.parts_of(TABLE)
    keys = list(sizes)
    for ordinals in ([0, 1, 2, 3, 4], [2, 3], [4, 0], [3, 1, 0], [1], [0, 2, 4]):
        frame = scan_sessions(part, ordinals, ["x"]).collect()
        expected = [
            (place, row, f"{keys[o]}{row}")
            for place, o in enumerate(ordinals)
            for row in range(sizes[keys[o]])
        ]
        assert frame.select(SESSION, "_table_index", "x").rows() == expected


def test_files_with_different_types_keep_them(made):
    add(made, TABLE, [block({"a": {"x": [1, 2]}}), block({"b": {"x": ["1"]}}), block({"c": {"x": [3]}})])
    assert read(made, "a", ["x"]) == {"x": [1, 2]}
    assert read(made, "b", ["x"]) == {"x": ["1"]}
    assert read(made, "c", ["x"]) == {"x": [3]}
    assert made.usage()[0] == 2


def test_columns_of_one_session_may_come_from_two_queries(made):
    add(made, TABLE, [block({"a": {"x": [1, 2]}, "b": {"x": [3]}})])
    assert read(made, "a", ["x", "y"]) is None
    add(made, TABLE, [block({"b": {"y": ["3"]}, "a": {"y": ["1", "2"]}})])
    assert read(made, "a", ["x", "y"]) == {"x": [1, 2], "y": ["1", "2"]}
    assert read(made, "b", ["x", "y"]) == {"x": [3], "y": ["3"]}


def test_tables_without_stored_columns_have_layout_and_row_counts(made):
    columns = (Column("waveforms", Array("", (0, 3), DType("number", 4, "<f4"), "contiguous")),)
    known = Layout("units", "table", columns, ())
    add(made, TABLE, [Block([Session("a", "1", 7, 0), Session("b", "1", 0, 0)], [known], pl.DataFrame())])
    (part,) = made.parts_of(TABLE)
    assert part.layout(part.ordinals["a"]) == known
    assert [part.session(n).rows for n in range(2)] == [7, 0]
    assert not files_of(made, ".parquet")
    with pytest.raises(PartLostError):
        scan_sessions(part, [0], [])


def test_another_version_of_a_file_is_not_found(made):
    add(made, TABLE, [block({"a": {"x": [1]}}, identity="1")])
    assert read(made, "a", ["x"], identity="2") is None
    add(made, TABLE, [block({"a": {"x": [2]}}, identity="2")])
    assert read(made, "a", ["x"], identity="2") == {"x": [2]}
    assert read(made, "a", ["x"], identity="1") == {"x": [1]}


# -- damage -----------------------------------------------------------------------------------------------


def test_flipped_bits_never_change_a_value(made):
    generator = random.Random(1)  # noqa: S311 - the same bits each time
    values = {"x": list(range(300)), "y": [f"t{i % 7}" for i in range(300)], "z": [i / 3 for i in range(300)]}
    add(made, TABLE, [block({"a": values})])
    (path,) = files_of(made, ".parquet")
    (entry,) = files_of(made, ".entry")
    whole, described = path.read_bytes(), entry.read_bytes()
    lost = 0
    for at in generator.sample(range(len(whole)), min(400, len(whole))):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        for columns in (["x"], ["x", "y", "z"]):
            found = read(made, "a", columns)
            assert found is None or found == {name: values[name] for name in columns}
            lost += found is None
            entry.write_bytes(described)  # what is damaged is no longer published
    path.write_bytes(whole)
    assert lost > 400
    assert read(made, "a", ["x"]) == {"x": values["x"]}


def test_a_damaged_entry_is_treated_as_missing(made):
    generator = random.Random(2)  # noqa: S311 - the same bits each time
    add(made, TABLE, [block({"a": {"x": [1, 2, 3]}})])
    (entry,) = files_of(made, ".entry")
    whole = entry.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << generator.randrange(8)
        entry.write_bytes(damaged)
        forget_entries()
        assert read(made, "a", ["x"]) is None
    for stop in range(0, len(whole), 7):
        entry.write_bytes(whole[:stop])
        forget_entries()
        assert read(made, "a", ["x"]) is None
    entry.write_bytes(whole)
    forget_entries()
    assert read(made, "a", ["x"]) == {"x": [1, 2, 3]}


@pytest.mark.parametrize("change", ["cut", "longer", "empty", "gone", "another", "folder"])
def test_a_part_swapped_with_another_is_not_used(made, change):
    add(made, TABLE, [block({"a": {"x": [1, 2, 3]}})])
    (path,) = files_of(made, ".parquet")
    data = path.read_bytes()
    if change == "cut":
        path.write_bytes(data[:-9])
    elif change == "longer":
        path.write_bytes(data + b"\0")
    elif change == "empty":
        path.write_bytes(b"")
    elif change == "another":
        path.write_bytes(write_part(pl.DataFrame({SESSION: [0], "_table_index": [0], "x": [9]}))[0])
    else:
        path.unlink()
        if change == "folder":
            path.mkdir()
    assert read(made, "a", ["x"]) is None
    assert made.parts_of(TABLE) == []  # the next query does not stumble over it
    add(made, TABLE, [block({"a": {"x": [1, 2, 3]}})])
    assert read(made, "a", ["x"]) == {"x": [1, 2, 3]}


def test_a_query_on_one_column_reads_no_other(made):
    rows = 150_000
    add(made, TABLE, [block({"a": {"x": list(range(rows)), "y": [i * 0.37 for i in range(rows)]}})])
    (path,) = files_of(made, ".parquet")
    (part,) = made.parts_of(TABLE)
    file = part.entry.part
    data = bytearray(path.read_bytes())
    for number in range(len(file.checksums)):
        if file.columns[number % len(file.columns)] == "y":
            start, stop = file.bounds[number], file.bounds[number + 1]
            data[start:stop] = os.urandom(stop - start)
    path.write_bytes(data)
    assert scan_sessions(part, [0], ["x"]).collect()["x"].to_list() == list(range(rows))
    with pytest.raises(PartLostError):
        scan_sessions(part, [0], ["x", "y"])


def test_a_query_on_few_sessions_reads_only_their_row_groups(made):
    rows = 70_000
    sessions = {key: {"x": [f"{key}{i % 100}" for i in range(rows)]} for key in "abcd"}
    add(made, TABLE, [block(sessions)])
    (path,) = files_of(made, ".parquet")
    (part,) = made.parts_of(TABLE)
    file = part.entry.part
    data = bytearray(path.read_bytes())
    first, last = file.bounds[len(file.columns)], file.bounds[2 * len(file.columns)]
    data[first:last] = bytes(last - first)  # the second row group: rows of a and b
    path.write_bytes(data)
    for key in "cd":
        found = scan_sessions(part, [part.ordinals[key]], ["x"]).collect()
        assert found["x"].to_list() == sessions[key]["x"]
    with pytest.raises(PartLostError):
        scan_sessions(part, [0], ["x"])


def test_a_part_may_vanish_while_its_rows_are_read(made):
    add(made, TABLE, [block({"a": {"x": [1, 2, 3]}})])
    (part,) = made.parts_of(TABLE)
    frame = scan_sessions(part, [0], ["x"])
    part.part_path.write_bytes(b"")
    part.part_path.unlink()
    assert frame.collect()["x"].to_list() == [1, 2, 3]


# -- folders and processes --------------------------------------------------------------------------------


def test_files_are_private(made):
    add(made, TABLE, [block({"a": {"x": [1]}})])
    for path, status in made.files():
        assert stat.S_IMODE(status.st_mode) == 0o600, path
    assert stat.S_IMODE(made.folder_of(TABLE).stat().st_mode) & 0o077 == 0


def test_a_full_disk_only_disables_the_store(made, monkeypatch, caplog):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store.os, "fdopen", full)
        disk_cache.warned.clear()
        add(made, TABLE, [block({"a": {"x": [1]}})])
        add(made, TABLE, [block({"a": {"x": [1]}})])
    assert [record.getMessage().count("No space left") for record in caplog.records] == [1]
    assert list(made.files()) == []
    add(made, TABLE, [block({"a": {"x": [1]}})])
    assert read(made, "a", ["x"]) == {"x": [1]}


def test_a_store_in_an_invalid_folder_is_empty(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    made = ColumnStore(tmp_path / "file" / "columns", GIB)
    add(made, TABLE, [block({"a": {"x": [1]}})])
    assert made.parts_of(TABLE) == []
    assert made.usage() == (0, 0)
    made.clear()
    assert (tmp_path / "file").exists()


def test_a_limit_of_zero_disables_the_store(tmp_path):
    made = ColumnStore(tmp_path / "columns", 0)
    add(made, TABLE, [block({"a": {"x": [1]}})])
    assert made.parts_of(TABLE) == []
    assert not (tmp_path / "columns").exists()


def test_recently_used_parts_are_kept(made):
    values = os.urandom(50_000).hex()
    for number in range(4):
        add(made, f"{number}", [block({"a": {"x": [values[number:]]}})])
    size = made.usage()[1]
    times = {0: 400.0, 1: 100.0, 2: 300.0, 3: 200.0}
    now = time.time()
    for number, age in times.items():
        (part,) = made.parts_of(f"{number}")
        os.utime(part.path, (now - age * 100, now - age * 100))
    (first,) = made.parts_of("0")
    made.note_use(first)
    made.limit = size // 2 + 1000
    made.sweep()
    assert [bool(made.parts_of(f"{number}")) for number in range(4)] == [True, True, False, False]


def test_abandoned_files_are_removed_later(made, monkeypatch):
    add(made, TABLE, [block({"a": {"x": [1]}})])
    folder = made.folder_of(TABLE)
    for name in ("killed-1.new", "part-without-entry.parquet"):
        (folder / name).write_bytes(b"x" * 1000)
    made.sweep()
    assert len(list(folder.iterdir())) == 4  # somebody may still be writing them
    (part,) = made.parts_of(TABLE)
    made.remove(part.path)
    assert made.parts_of(TABLE) == []
    assert part.part_path.exists()  # somebody may have found the entry before
    monkeypatch.setattr(store, "GRACE_SECONDS", -1.0)
    made.sweep()
    made.sweep()
    assert list(folder.iterdir()) == []


def test_clearing_only_removes_parts(made):
    add(made, TABLE, [block({"a": {"x": [1]}})])
    other = made.folder_of(TABLE) / "notes.txt"
    other.write_text("mine")
    assert made.usage()[0] == 1
    made.clear()
    assert made.usage()[0] == 0
    assert made.parts_of(TABLE) == []
    assert other.read_text() == "mine"


CHILD = """
import sys, polars as pl
from pathlib import Path
from lazynwb.column_store.compaction import add
from lazynwb.column_store.entries import Layout, Session
from lazynwb.column_store.store import Block, ColumnStore
made = ColumnStore(Path(sys.argv[1]), 1 << 30)
own = int(sys.argv[2])
for turn in range(int(sys.argv[3])):
    key = f"s{(own * 7 + turn) % 20}"
    frame = pl.DataFrame({"x": [f"{key}-{i}" for i in range(2000)]})
    add(made, "t", [Block([Session(key, "1", 2000, 0)], [Layout("t", "table", (), ("x",))], frame)])
    print(turn, flush=True)
"""


def child(made, number, turns):
    return subprocess.Popen(  # noqa: S603 - this interpreter, on the text above
        [sys.executable, "-c", CHILD, str(made.root), str(number), str(turns)],
        stdout=subprocess.PIPE,
        text=True,
    )


def check_all(made):
    parts = made.parts_of("t")
    keys = {session.key for part in parts for session in part.entry.sessions}
    for key in keys:
        picks = find(parts, key, "1", ["x"])
        assert scan_picks([picks]).collect()["x"].to_list() == [f"{key}-{i}" for i in range(2000)]
    return keys


@pytest.mark.integration
def test_two_processes_fill_and_compact_at_once(made):
    children = [child(made, number, 25) for number in range(2)]
    for process in children:
        process.communicate()
    assert [process.returncode for process in children] == [0, 0]
    assert check_all(made) == {f"s{n}" for n in range(20)}
    assert len(made.parts_of("t")) <= 3 * compaction.MAX_PARTS


@pytest.mark.integration
def test_a_killed_process_leaves_a_valid_store(made):
    generator = random.Random(3)  # noqa: S311 - the same bits each time
    for turn in range(4):
        process = child(made, turn, 1000)
        process.stdout.readline()
        time.sleep(generator.random() * 0.15)
        process.kill()
        process.wait()
        process.stdout.close()
        forget_entries()
        assert check_all(made)


# -- compaction -------------------------------------------------------------------------------------------


def test_small_parts_are_compacted(made):
    count = compaction.MAX_PARTS + 3
    for number in range(count):
        add(made, TABLE, [block({f"{number:02d}": {"x": [number, number + 1]}})])
    assert len(made.parts_of(TABLE)) <= compaction.MAX_PARTS
    for number in range(count):
        assert read(made, f"{number:02d}", ["x"]) == {"x": [number, number + 1]}


def test_compaction_keeps_the_newest_version_and_all_columns(made, monkeypatch):
    add(made, TABLE, [block({"a": {"x": [1]}, "b": {"x": [2, 3]}, "c": {"x": [4]}})])
    add(made, TABLE, [block({"a": {"y": ["1"]}, "b": {"y": ["2", "3"]}})])
    add(made, TABLE, [block({"c": {"x": [5]}}, identity="2")])
    add(made, TABLE, [block({"d": {"x": ["of another type"]}})])
    monkeypatch.setattr(compaction, "MAX_PARTS", 1)
    compact(made, TABLE)
    assert read(made, "a", ["x", "y"]) == {"x": [1], "y": ["1"]}
    assert read(made, "b", ["x", "y"]) == {"x": [2, 3], "y": ["2", "3"]}
    assert read(made, "c", ["x"]) is None
    assert read(made, "c", ["x"], identity="2") == {"x": [5]}
    assert read(made, "d", ["x"]) == {"x": ["of another type"]}
    assert len(made.parts_of(TABLE)) == 2
    (part,) = [part for part in made.parts_of(TABLE) if "a" in part.ordinals]
    assert [session.key for session in part.entry.sessions] == ["a", "b", "c"]


def test_a_damaged_part_stops_compaction_without_harm(made, monkeypatch):
    add(made, TABLE, [block({"a": {"x": [1]}})])
    add(made, TABLE, [block({"b": {"x": [2]}})])
    damaged = next(part for part in made.parts_of(TABLE) if "a" in part.ordinals)
    damaged.part_path.write_bytes(b"PAR1")
    monkeypatch.setattr(compaction, "MAX_PARTS", 1)
    compact(made, TABLE)
    assert read(made, "b", ["x"]) == {"x": [2]}
    assert read(made, "a", ["x"]) is None


def test_many_sessions_are_divided_into_parts(made, monkeypatch):
    monkeypatch.setattr(compaction, "MAX_PART_BYTES", 100_000)
    monkeypatch.setattr(compaction, "SMALL_PART_BYTES", 100)
    sessions = {f"{n:03d}": {"x": [n + i / 7 for i in range(1000)]} for n in range(50)}
    add(made, TABLE, [block(sessions)])
    assert len(files_of(made, ".parquet")) == 5
    for key, values in sessions.items():
        assert read(made, key, ["x"]) == values


KEYS = st.sampled_from("abcdef")
STEPS = st.lists(
    st.tuples(
        st.dictionaries(KEYS, st.integers(1, 3), min_size=1, max_size=4),  # sessions and their versions
        st.sets(st.sampled_from("xyz"), max_size=3),
        st.sampled_from(["nothing", "compact", "damage", "delete", "forget"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None)
@given(STEPS, st.randoms(use_true_random=False))
def test_any_history_preserves_the_stored_values(tmp_path_factory, steps, generator):
    made = ColumnStore(Path(tmp_path_factory.mktemp("history")), GIB)

    def rows(key, version):
        return (ord(key) * 7 + version) % 5

    def values(key, version, name):
        of_type = str if (key, name, version) == ("a", "x", 2) else int
        return [
            of_type(ord(key) * 1000 + version * 100 + ord(name) + row) for row in range(rows(key, version))
        ]

    seen = set()
    for sessions, columns, event in steps:
        blocks = []
        for key, version in sessions.items():
            frame = {name: values(key, version, name) for name in columns}
            layout = Layout("t", "table", (), tuple(sorted(columns)))
            session = Session(key, str(version), rows(key, version), 0)
            blocks.append(Block([session], [layout], pl.DataFrame(frame, strict=False)))
            seen |= {(key, version, name) for name in columns}
        add(made, TABLE, blocks)
        paths = files_of(made, ".parquet")
        if event == "compact":
            before, compaction.MAX_PARTS = compaction.MAX_PARTS, 0
            try:
                compact(made, TABLE)
            finally:
                compaction.MAX_PARTS = before
        elif event == "damage" and paths:
            path = generator.choice(paths)
            data = bytearray(path.read_bytes())
            data[generator.randrange(len(data))] ^= 1
            path.write_bytes(data)
        elif event == "delete" and paths:
            generator.choice(paths).unlink()
        elif event == "forget":
            forget_entries()
        for key, version, name in seen:
            found = read(made, key, [name], identity=str(version))
            assert found is None or found == {name: values(key, version, name)}


# -- classification of columns ----------------------------------------------------------------------------

F8, I4 = DType("number", 8, "<f8"), DType("number", 4, "<i4")
TEXT = DType("vlen_text", 16)


def column(name="c", shape=(100,), dtype=F8, **options):
    return Column(name, Array(name, shape, dtype, "contiguous"), length=shape[0] if shape else 1, **options)


@pytest.mark.parametrize(
    ("found", "kind", "expected"),
    [
        (column(), "table", True),
        (column(dtype=TEXT), "table", True),
        (column(dtype=DType("reference", 8)), "table", True),
        (column(dtype=DType("enum", 1, "i1", (("a", 0),))), "table", True),
        (column(shape=(100, 3)), "table", True),
        (column(shape=(100, 3, 3)), "table", True),
        (column(shape=(100, 82, 384)), "table", False),
        (column(shape=(100_000,), indices=(Array("i", (100,), I4, "contiguous"),)), "table", False),
        (column(shape=(10_000_000,)), "table", False),
        (column(dtype=DType("vlen", 16, base=F8)), "table", False),
        (column(shape=(5,), dtype=TEXT, whole=True), "metadata", True),
        (column(dtype=DType("unsupported", 8, note="?")), "table", False),
        (column("_nwb_path"), "table", False),
        (column(SESSION), "table", False),
        (column("data"), "series", False),
        (column("timestamps"), "series", True),
        (column("timestamps", shape=(10_000_000,)), "series", False),
        (column(dtype=DType("compound", 12, fields=(Field("a", 0, I4), Field("b", 4, F8)))), "table", True),
        (Column("category", None, children=(column("a"), column("b", dtype=TEXT))), "table", True),
        (Column("category", None, children=(column("a", shape=(100, 1000)),)), "table", False),
    ],
)
def test_classification_of_small_columns(found, kind, expected):
    rows = found.data.rows if found.data is not None and not found.whole and not found.indices else 100
    assert is_small(found, kind, 1 if found.whole else rows) is expected


def test_long_text_is_not_small():
    assert is_still_small(pl.Series(["x" * 200] * 1000))
    assert not is_still_small(pl.Series(["x" * 2000] * 1000))
    assert is_still_small(pl.Series(["x" * 60_000]))


def test_stored_layouts_have_no_chunk_locations():
    one = column("c", shape=(100, 3), indices=(Array("c_index", (40,), I4, "contiguous", 17),))
    other = column("c", shape=(7, 3), indices=(Array("c_index", (2,), I4, "contiguous", 99),))
    assert without_addresses(one) == without_addresses(other)
    assert without_addresses(one) != without_addresses(column("c", shape=(100, 4), indices=one.indices))


def test_short_reads_are_completed(tmp_path, monkeypatch):
    class Short(io.FileIO):
        def read(self, size=-1):
            return super().read(min(size, 100))

    data = bytes(range(250)) * 4
    path = tmp_path / "part"
    path.write_bytes(data)
    monkeypatch.setattr(Path, "open", lambda self, *_, **__: Short(self))
    assert LocalPart(path).read(1000) == data
    for size in (999, 1001):
        with pytest.raises(CorruptDataError, match="size"):
            LocalPart(path).read(size)
