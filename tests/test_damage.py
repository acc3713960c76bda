"""A few damaged files; `damage.py` runs any number of them."""

import itertools
import os
import random
import struct
import zlib
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

import damage
import damage_hdf5
import lazynwb
from builders import GZIP, VLEN_TEXT, Column, table
from checks import PEAK_MIB, count, run_child
from damage import Case, Seen

CASES = count(12, 240)

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc: run on Linux")


@pytest.mark.long
@pytest.mark.skipif(
    h5py.version.hdf5_version_tuple < (2, 0), reason="needs HDF5 2.0 or later: older ones may crash"
)
def test_damaged_files_give_right_values_or_errors_that_name_them(monkeypatch):
    """HDF5; the corpus is the same on every machine."""
    monkeypatch.delenv("LAZYNWB_TEST_DATA", raising=False)
    cases = damage.run("hdf5", 1, range(CASES))
    report = damage.summary("hdf5", 1, cases)
    outcomes = Counter(case.outcome for case in cases)
    assert not outcomes["FAULT"], report
    # Damage of every sort, some of which is noticed and some of which is not there to be noticed.
    assert outcomes["right"] > CASES // 10, report
    assert outcomes["error"] > CASES // 10, report
    assert outcomes["unverified"] <= CASES // 20, report


@pytest.mark.long
def test_files_of_every_layout_and_filter_exist(tmp_path, monkeypatch):
    monkeypatch.delenv("LAZYNWB_TEST_DATA", raising=False)
    victims = damage_hdf5.build(tmp_path)
    assert len(victims) >= 40
    layouts, filters, formats = set(), set(), set()
    for victim in victims:
        formats.add(victim.read_bytes()[8:9])
        with h5py.File(victim) as file:

            def record(_, item):
                if isinstance(item, h5py.Dataset):
                    properties = item.id.get_create_plist()
                    layouts.add(properties.get_layout())
                    filters.update(properties.get_filter(i)[0] for i in range(properties.get_nfilters()))

            file.visititems(record)
    assert {h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED} <= layouts
    assert {1, 2, 3, 5, 6, 32000} <= filters  # gzip, shuffle, Fletcher's, n-bit, scale and offset, LZF
    assert len(formats - {b"\0"}) >= 1


# --- the harness detects faults ------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path):
    path = tmp_path / "sound" / "file.nwb"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        table(file, "t", {"a": np.arange(8), "b": Column(np.arange(8), {"chunks": (4,), "fletcher32": True})})
    with damage.Bench("hdf5", 0, tmp_path / "work", [path], None) as made:
        yield made


def judged(bench, copy, before, seen):
    case = Case(0, "file", "none", "right")
    changed = bench.compare(case, bench.victims[0], copy, before, seen)
    return case, changed


@pytest.mark.long
def test_values_that_the_independent_reader_does_not_confirm_are_faults(bench):
    path = bench.victims[0]
    before = bench.undamaged(path)
    assert before.values["column", "/t", "a"] == str(list(range(8)))
    wrong = Seen({**before.values, ("column", "/t", "a"): "[9]"})
    case, _ = judged(bench, path, before, wrong)
    assert "wrong" in case.faults[0]
    absent = Seen({key: text for key, text in before.values.items() if key != ("column", "/t", "a")})
    case, _ = judged(bench, path, before, absent)
    assert "silently absent" in case.faults[0]
    case, changed = judged(bench, path, before, Seen(dict(before.values)))
    assert not case.faults
    assert not changed


def test_changed_values_are_read_from_the_file(bench, tmp_path):
    path, copy = bench.victims[0], tmp_path / "copy.nwb"
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        offset = file["t/a"].id.get_offset()
    content[offset] = 77
    copy.write_bytes(content)
    before = bench.undamaged(path)
    case, changed = judged(bench, copy, before, bench.reader.ask((copy, ["/t"]), 60))
    assert changed
    assert not case.faults


@pytest.mark.long
def test_crashes_and_hangs_end_the_process_but_not_the_run():
    server = damage.Server(_answer)
    assert server.ask("well", 60) == "well"
    with pytest.raises(damage.EndedError, match="SIGKILL"):
        server.ask("crash", 60)
    assert server.ask("again", 60) == "again"
    with pytest.raises(damage.EndedError, match="hang"):
        server.ask("hang", 0.5)
    server.stop()


def _answer(connection):
    import signal
    import time

    connection.send("ready")
    while True:
        question = connection.recv()
        if question == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if question == "hang":
            time.sleep(60)
        connection.send(question)


def test_corrected_checksums_are_those_of_libhdf5(tmp_path):
    """Otherwise damage in checksummed structure would not be reached."""
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w", libver="latest") as file:
        table(file, "t", {"a": np.arange(3)})
    content = bytearray(path.read_bytes())
    sound = bytes(content)
    damage_hdf5.mend_checksums(content)
    assert bytes(content) == sound
    assert damage_hdf5.lookup3(b"") == 0xDEADBEEF
    at = content.find(b"OHDR")
    content[at + 5] ^= 0x80  # a reserved bit
    damage_hdf5.mend_checksums(content)
    assert bytes(content) != sound


def test_every_kind_of_damage_changes_a_file(tmp_path):
    victim = tmp_path / "v" / "file.nwb"
    victim.parent.mkdir()
    damage_hdf5.one_of_everything(victim)
    sound, kinds = victim.read_bytes(), set()
    for number in range(300):
        copy = tmp_path / "c" / "copy.nwb"
        copy.parent.mkdir(exist_ok=True)
        kinds.add(damage_hdf5.damage(victim, copy, random.Random(number)).partition(",")[0])  # noqa: S311 - the same again
    assert kinds == set(damage_hdf5.KINDS)
    assert victim.read_bytes() == sound


# --- regressions ---------------------------------------------------------------------------------------


def overwrite(path, at, new):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(new)


def write_text(path):
    with h5py.File(path, "w", libver="earliest") as file:
        group = table(file, "t", {"a": np.arange(3), "text": ["abc", "defg", ""]})
        group.create_dataset("empty", (3,), VLEN_TEXT)
        return file["t/text"].id.get_offset()


@pytest.mark.parametrize("length", [0, 2, 4], ids=["none", "fewer", "more"])
def test_a_text_of_another_length_than_its_object_in_the_heap(tmp_path, length):
    path = tmp_path / "damaged.nwb"
    offset = write_text(path)
    content = bytearray(path.read_bytes())
    assert content[offset : offset + 4] == struct.pack("<I", 3)
    content[offset : offset + 4] = struct.pack("<I", length)
    path.write_bytes(content)
    with pytest.raises(lazynwb.CorruptDataError, match=r"damaged\.nwb"):
        lazynwb.read_nwb(path, "t")


def test_a_text_whose_address_was_overwritten(tmp_path):
    path = tmp_path / "damaged.nwb"
    offset = write_text(path)
    overwrite(path, offset + 4, b"\xff" * 8)
    with pytest.raises(lazynwb.CorruptDataError, match=r"damaged\.nwb"):
        lazynwb.read_nwb(path, "t")


def test_an_object_without_a_size_in_the_heap_of_an_attribute(tmp_path):
    """libhdf5 alone would loop for ever."""
    path = tmp_path / "damaged.nwb"
    with h5py.File(path, "w", libver="earliest") as file:
        table(file, "t", {"a": np.arange(3)})
    overwrite(path, path.read_bytes().index(b"GCOL") + 16, bytes(16))
    code = """
import sys, lazynwb
for read in (lazynwb.read_nwb, lazynwb.get_attrs):
    try:
        print(read(sys.argv[1], "/t"))
    except lazynwb.LazyNWBError as error:
        print(error)
"""
    said = run_child(code, path, timeout=60)
    assert "damaged.nwb" in said
    assert "unreadable" in said


@pytest.mark.parametrize("corner", [struct.pack("<Q", 70_000), b"\xf0" * 8], ids=["another", "no number"])
def test_a_chunk_that_is_listed_out_of_order(tmp_path, corner):
    """Its values would silently be fill values."""
    path = tmp_path / "damaged.nwb"
    with h5py.File(path, "w", libver="earliest") as file:
        table(file, "t", {"a": Column(np.arange(1, 9), {"chunks": (1,)})})
    at = path.read_bytes().index(struct.pack("<IIQQ", 8, 0, 4, 0))  # the key of chunk 4: size, mask, corner
    overwrite(path, at + 8, corner)
    with pytest.raises(lazynwb.CorruptDataError, match=r"damaged\.nwb"):
        lazynwb.read_nwb(path, "t")


def test_a_chunk_at_the_start_of_the_file(tmp_path):
    """libhdf5 treats the address as undefined, and returns fill values."""
    path = tmp_path / "damaged.nwb"
    with h5py.File(path, "w", libver="earliest") as file:
        table(file, "t", {"a": Column(np.arange(1, 9), {"chunks": (1,)})})
        at = file["t/a"].id.get_chunk_info(4).byte_offset
    overwrite(path, path.read_bytes().index(struct.pack("<QQQ", 4, 0, at)) + 16, bytes(8))
    with pytest.raises(lazynwb.CorruptDataError, match=r"damaged\.nwb"):
        lazynwb.read_nwb(path, "t")


def test_a_shuffle_without_an_element_size(tmp_path):
    path = tmp_path / "damaged.nwb"
    with h5py.File(path, "w", libver="earliest") as file:
        table(file, "t", {"a": Column(np.arange(8), {"chunks": (4,), **GZIP})})
    overwrite(path, path.read_bytes().index(b"shuffle\0") + 8, bytes(4))
    with pytest.raises(lazynwb.CorruptDataError, match=r"damaged\.nwb"):
        lazynwb.read_nwb(path, "t")


@pytest.mark.skipif(not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP), reason="needs an HDF5 library with szip")
def test_a_filter_whose_parameters_are_zero(tmp_path):
    """The library behind libhdf5 would divide by it."""
    path = tmp_path / "damaged.nwb"
    with h5py.File(path, "w", libver="earliest") as file:
        table(file, "t", {"a": Column(np.arange(64.0), {"chunks": (32,), "compression": "szip"})})
    overwrite(path, path.read_bytes().index(b"szip\0") + 12, bytes(4))
    code = """
import sys, lazynwb
try:
    print(lazynwb.read_nwb(sys.argv[1], "/t"))
except lazynwb.LazyNWBError as error:
    print(error)
"""
    assert "damaged.nwb" in run_child(code, path)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc: run on Linux")
def test_a_decompression_bomb_that_libhdf5_would_decode(tmp_path):
    path = tmp_path / "damaged.nwb"
    with h5py.File(path, "w") as file:
        table(
            file, "u", {"a": Column(np.arange(8), {"chunks": (4,), "scaleoffset": 0, "compression": "gzip"})}
        )
        try:
            file["u/a"].id.write_direct_chunk((0,), damage_hdf5.bomb())
        except OSError:
            pytest.skip("this libhdf5 does not write such a chunk")
    code = """
import sys, lazynwb
try:
    print(lazynwb.read_nwb(sys.argv[1], "/u"))
except lazynwb.LazyNWBError as error:
    print(error, peak_mib())
"""
    said = run_child(PEAK_MIB + code, path)
    assert "damaged.nwb" in said
    assert int(said.split()[-1]) < 400


def widened(raw):
    """A chunk of the filter for scale and offset that claims more bits for each value than it has."""
    return bytes([raw[0] + 40]) + raw[1:]


@pytest.mark.parametrize(
    "filters", [{"compression": "lzf"}, {"scaleoffset": 0}, {"scaleoffset": 0, "compression": "gzip"}]
)
@pytest.mark.parametrize("how", ["shorter", "skipped"])
def test_a_chunk_with_unexpected_contents(tmp_path, filters, how):
    """libhdf5 would return uninitialized memory."""
    path = tmp_path / "damaged.nwb"
    values = np.arange(64) % 5
    with h5py.File(path, "w") as file:
        table(file, "t", {"a": Column(values, {"chunks": (32,), **filters})})
        dataset = file["t/a"].id
        mask, raw = dataset.read_direct_chunk((32,))
        if how == "skipped":
            every = (1 << dataset.get_create_plist().get_nfilters()) - 1
            dataset.write_direct_chunk((32,), bytes(8), every)
        elif "scaleoffset" in filters and "compression" in filters:
            dataset.write_direct_chunk((32,), zlib.compress(widened(zlib.decompress(raw))), mask)
        elif "scaleoffset" in filters:
            dataset.write_direct_chunk((32,), widened(raw), mask)
        else:
            dataset.write_direct_chunk((32,), raw[:2], mask)
    with pytest.raises(lazynwb.CorruptDataError, match=r"damaged\.nwb.*/t/a.*\(32,\)"):
        lazynwb.read_nwb(path, "t")


def test_a_number_whose_exponent_has_another_bias(tmp_path):
    """The type differs from a double only in the bias of its exponent."""
    path = tmp_path / "damaged.nwb"
    with h5py.File(path, "w", libver="earliest") as file:
        table(file, "t", {"a": np.arange(3), "b": np.arange(3.0)})
    double = struct.pack("<HHBBBBI", 0, 64, 52, 11, 0, 52, 1023)  # the format's description of a double
    overwrite(path, path.read_bytes().index(double) + 8, struct.pack("<I", 1000))
    lf = lazynwb.scan_nwb(path, "t")
    assert lf.select("a").collect()["a"].to_list() == [0, 1, 2]
    with pytest.raises(lazynwb.UnsupportedTypeError, match=r"damaged\.nwb"):
        lf.select("b").collect()


def test_undamaged_chunks_of_rare_filters_pass(tmp_path):
    path = tmp_path / "sound.nwb"
    values = {kind: (np.arange(100) % 7).astype(kind) for kind in ("i1", ">u2", "f4", "f8", "S3")}
    choices = itertools.product(
        values, ({}, {"scaleoffset": 2}), (None, "gzip", "lzf"), (False, True), (False, True), (7, 100)
    )
    columns = {}
    with h5py.File(path, "w") as file:
        for number, (kind, scaled, compression, shuffle, fletcher32, rows) in enumerate(choices):
            if scaled and (kind == "S3" or fletcher32):
                continue  # HDF5 has no such thing
            filters = {"compression": compression, "shuffle": shuffle, "fletcher32": fletcher32, **scaled}
            columns[f"{number}"] = Column(values[kind], {"chunks": (rows,), **filters})
        table(file, "t", columns)
        expected = {
            name: file["t"][name].asstr() if column.data.dtype.kind == "S" else file["t"][name]
            for name, column in columns.items()
        }
        expected = {name: found[:].tolist() for name, found in expected.items()}
    frame = lazynwb.read_nwb(path, "t")
    assert {name: frame[name].to_list() for name in columns} == expected
    assert len(columns) > 80
