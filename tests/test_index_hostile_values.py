"""Values of an untrusted index: impossible ones are refused, and other data are not affected."""

import json
import zlib
from contextlib import suppress

import h5py
import msgspec
import polars as pl
import pytest

import builders
import lazynwb
from checks import count
from lazynwb.column_store.entries import Entry, encode
from lazynwb.column_store.parts import write_part
from lazynwb.errors import CorruptDataError, LazyNWBError
from lazynwb.index import value_parts
from lazynwb.index.location import open_folder

QUERIES = {
    "scan": lambda place: lazynwb.scan_nwb(None, "/units", index=place).select("x").collect(),
    "arrays": lambda place: lazynwb.scan_nwb(None, "/units", index=place).filter(pl.col("x") > 0).collect(),
    "values": lambda place: lazynwb.scan_index(place, "/units").select("x").collect(),
}


@pytest.fixture
def place(tmp_path):
    for number in range(2):
        with h5py.File(tmp_path / f"{number}.nwb", "w") as file:
            builders.nwb_root(file, f"s{number}")
            builders.table(file, "units", {"x": [1, 2], "spikes": builders.Ragged([[0.5], [1.5, 2.5]])})
    lazynwb.build_index(tmp_path, tmp_path / "index", values=True)
    return tmp_path / "index"


def edit(place, change):
    """Change the manifest's description of the units."""
    path = place / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest["table_values"][0], manifest["table_values"][0]["files"][0])
    path.write_text(json.dumps(manifest))


def replace(place, change, entry_of=lambda entry: entry):
    """Replace the values by other rows with correct checksums."""
    values = lazynwb.open_index(place).table_values("units")
    file = values.files[0]
    entry = value_parts.read_entry(open_folder(place, None), values, file)
    data, part = write_part(change(pl.read_parquet(place / file.name)), is_published=True)
    packed = value_parts.encode_entry(entry_of(msgspec.structs.replace(entry, part=part)))
    (place / file.name).write_bytes(data)
    (place / file.entry_name).write_bytes(packed)

    def described(_, one):
        one["part"] = json.loads(msgspec.json.encode(part))
        one["rows"] = sum(part.rows)
        one["entry_bytes"] = len(packed)

    edit(place, described)


def part_with(number, value):
    return lambda _, file: file["part"].__setitem__(number, value)


@pytest.mark.parametrize(
    "change",
    [
        part_with(0, 2**52),
        part_with(0, -1),
        part_with(3, [2**50]),
        part_with(4, [4, 2**40]),
        part_with(5, []),
        part_with(2, ["x"]),
        lambda _, file: file.update(rows=2**40),
        lambda _, file: file.update(entry_bytes=2**52),
        lambda _, file: file.update(name="tables=units/../../0.nwb"),
        lambda _, file: file.update(name="/etc/passwd"),
        lambda table, _: table.update(schema=[["x", ["List", "NoType"]]]),
        lambda table, _: table.update(schema=[*table["schema"], ["y", "Int64"]]),
    ],
)
def test_an_impossible_manifest(place, change):
    edit(place, change)
    with pytest.raises(CorruptDataError, match="index"):
        QUERIES["scan"](place)
    with suppress(CorruptDataError):  # it needs no entries
        assert QUERIES["values"](place)["x"].to_list() == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.with_columns(x=pl.col("x").cast(pl.Float32)),
        lambda frame: frame.with_columns(x=pl.col("x").cast(pl.String)),
    ],
)
@pytest.mark.parametrize("query", QUERIES)
def test_values_whose_types_differ_from_the_catalog(place, change, query):
    replace(place, change)
    with pytest.raises(CorruptDataError, match="damaged"):
        QUERIES[query](place)


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.with_columns(_table_index=pl.lit(2**31, pl.UInt32)),
        lambda frame: frame.with_columns(_table_index=pl.lit(None, pl.UInt32)),
        lambda frame: frame.with_columns(_lazynwb_session=pl.lit(77, pl.UInt32)),
        lambda frame: frame.with_columns(_lazynwb_session=pl.lit(None, pl.UInt32)),
        pl.DataFrame.reverse,
    ],
)
def test_rows_that_the_sessions_do_not_have(place, change):
    """No array is read of such rows."""
    replace(place, change)
    with pytest.raises(CorruptDataError, match="damaged"):
        QUERIES["arrays"](place)


def test_sessions_with_too_many_rows_in_an_entry(place):
    def larger(entry):
        first, *rest = entry.sessions
        return msgspec.structs.replace(entry, sessions=(msgspec.structs.replace(first, rows=2**31), *rest))

    replace(place, lambda frame: frame, larger)
    with pytest.raises(CorruptDataError):
        QUERIES["scan"](place)


def test_an_entry_that_decompresses_to_too_much(place, monkeypatch):
    monkeypatch.setattr(value_parts, "MAX_ENTRY_BYTES", 100)
    with pytest.raises(CorruptDataError, match="entry"):
        QUERIES["scan"](place)


@pytest.mark.parametrize(
    "data", [b"", b"no zlib", zlib.compress(b"no entry"), zlib.compress(encode(Entry("", 0, (), (), None)))]
)
def test_an_invalid_entry(place, data):
    file = lazynwb.open_index(place).table_values("units").files[0]
    (place / file.entry_name).write_bytes(data)
    edit(place, lambda _, one: one.update(entry_bytes=len(data)))
    with pytest.raises(CorruptDataError, match="entry"):
        QUERIES["scan"](place)


def test_flipped_bits(place):
    file = lazynwb.open_index(place).table_values("units").files[0]
    expected = [QUERIES[name](place) for name in QUERIES]
    for name in (file.name, file.entry_name):
        data = (place / name).read_bytes()
        for at in range(0, len(data), max(len(data) // count(15, 60), 1)):
            (place / name).write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
            for query, truth in zip(QUERIES, expected, strict=True):
                try:
                    assert QUERIES[query](place).equals(truth)
                except LazyNWBError:
                    continue
        (place / name).write_bytes(data)
