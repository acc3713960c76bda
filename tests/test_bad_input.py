"""Bad files: correct rows with a warning, or one clear error; never a crash, a hang or wrong values."""
# ruff: noqa: C901 - one function for each odd structure

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import GZIP, VLEN_TEXT, Column, Ragged, nwb_root, series, table
from checks import ENGINES, PEAK_MIB, count, run_child
from hdf5_structure import compare, describe_file
from lazynwb.formats.hdf5.reader import Hdf5Reader

engines = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture
def write(tmp_path):
    """Write a file with one table `units`."""

    def make(columns, name="bad.nwb", **options):
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            nwb_root(file)
            table(file, "units", columns, **options)
        return path

    return make


def warned(caplog):
    return " | ".join(
        r.getMessage()
        for r in caplog.records
        if r.name.startswith("lazynwb") and r.levelno >= logging.WARNING
    )


def assert_names(error, *parts):
    """The message names the file, the table and the column."""
    for part in parts:
        assert part in str(error), f"{part!r} is not in {error}"


# --- not NWB ------------------------------------------------------------------------------------------

NOT_HDF5 = {
    "empty": b"",
    "one_byte": b"\x89",
    "text": b"not an HDF5 file\n" * 100,
    "signature_only": b"\x89HDF\r\n\x1a\n",
    "signature_and_zeros": b"\x89HDF\r\n\x1a\n" + bytes(5000),
    "signature_and_noise": b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 20,
    "png": b"\x89PNG\r\n\x1a\n" + bytes(2000),
    "zip": b"PK\x03\x04" + bytes(2000),
    "old_matlab": b"MATLAB 5.0 MAT-file" + bytes(1000),
    "lfs_pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
}


@pytest.mark.parametrize("kind", NOT_HDF5)
def test_files_that_are_not_hdf5(kind, tmp_path, caplog):
    path = tmp_path / f"{kind}.nwb"
    path.write_bytes(NOT_HDF5[kind])
    with pytest.raises(lazynwb.NotNWBError, match=path.name):
        lazynwb.scan_nwb(path, "/units").collect()
    with pytest.raises(lazynwb.NotNWBError, match=path.name):
        lazynwb.get_internal_paths(path)
    good = tmp_path / "good.nwb"
    with h5py.File(good, "w") as file:
        table(file, "units", {"a": [1]})
    assert lazynwb.scan_nwb([path, good], "/units", ignore_errors=True).collect()["a"].to_list() == [1]
    assert path.name in warned(caplog)


def test_all_files_are_bad(tmp_path):
    """If all files are ignored, an error is raised instead of an empty result."""
    for name in ("a.nwb", "b.nwb"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(lazynwb.LazyNWBError, match=r"a\.nwb"):
        lazynwb.scan_nwb(tmp_path, "/units", ignore_errors=True).collect()


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="run as another user than root")
def test_a_file_without_read_permission(write):
    path = write({"a": [1]})
    path.chmod(0)
    with pytest.raises((PermissionError, lazynwb.LazyNWBError), match=r"bad\.nwb"):
        lazynwb.read_nwb(path, "/units")


def test_special_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.nwb")
    code = """
import sys, lazynwb
for path in (sys.argv[1], "/dev/null"):
    try:
        lazynwb.read_nwb(path, "/units")
    except lazynwb.LazyNWBError as error:
        print(type(error).__name__)
"""
    assert run_child(code, tmp_path / "pipe.nwb", timeout=20).split() == ["NotNWBError"] * 2


# --- truncated and damaged files ----------------------------------------------------------------------

TRY_ALL = """
import faulthandler, sys, pathlib, random
import lazynwb, checks
from readers import hdf5_tables as oracle

def attempt(path, expected):
    '''The right rows, or an error of ours that names the file.'''
    outcomes = []
    for table_path, table in expected.items():
        for engine in checks.ENGINES:
            try:
                frame = lazynwb.scan_nwb(path, table_path).collect(engine=engine)
            except lazynwb.LazyNWBError as error:
                assert path.name in str(error), f"{path}: {type(error).__name__}: {error}"
                outcomes.append("error")
            else:
                outcomes.append("rows")
                if CHECK_VALUES:
                    checks.assert_table(frame, table, path, table_path)
    return outcomes
"""


@pytest.fixture(params=["earliest", "latest"])
def victim(tmp_path, request):
    """A file in which every chunk has a checksum; its metadata has checksums in the latest format only."""
    path = tmp_path / "victim.nwb"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w", libver=request.param) as file:
        nwb_root(file)
        checked = {"chunks": (64,), "fletcher32": True, **GZIP}
        columns = {
            "f": Column(rng.normal(size=300), checked),
            "i": Column(np.arange(300), {"chunks": (100,), "fletcher32": True}),
            "x": Ragged([rng.normal(size=k % 5) for k in range(300)], options=checked),
        }
        table(file, "units", columns, kind="Units")
        file["units"].create_dataset("text", data=[f"row {k}" for k in range(300)], dtype=VLEN_TEXT)
        series(file, "acquisition/s", rng.normal(size=500), start=0.0, chunks=(100,), fletcher32=True)
    return path


def test_truncated_files(victim, tmp_path):
    code = (
        TRY_ALL
        + """
CHECK_VALUES = True
victim = pathlib.Path(sys.argv[1])
content = victim.read_bytes()
expected = {t: oracle.read_table(victim, t) for t in oracle.tables(victim)}
for number, part in enumerate((1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)):
    path = pathlib.Path(sys.argv[2]) / f"cut_{number}.nwb"
    path.write_bytes(content[: int(len(content) * part / 100)])
    assert "error" in attempt(path, expected), path
print("ok")
"""
    )
    assert run_child(code, victim, tmp_path, timeout=120).strip() == "ok"


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_flipped_bytes(victim, tmp_path, seed):
    """Damage anywhere in the file causes no crash, no hang and no exception other than LazyNWBError."""
    code = (
        TRY_ALL
        + """
CHECK_VALUES = False
victim = pathlib.Path(sys.argv[1])
content = victim.read_bytes()
expected = {t: oracle.read_table(victim, t) for t in oracle.tables(victim)}
random.seed(int(sys.argv[3]))
for number in range(int(sys.argv[4])):
    damaged = bytearray(content)
    for _ in range(random.choice((1, 1, 4, 30))):
        damaged[random.randrange(len(damaged))] = random.randrange(256)
    path = pathlib.Path(sys.argv[2]) / f"flipped_{number}.nwb"
    path.write_bytes(damaged)
    attempt(path, expected)
    try:
        list(lazynwb.get_internal_paths(path))
    except lazynwb.LazyNWBError:
        pass
print("ok")
"""
    )
    assert run_child(code, victim, tmp_path, seed, count(8, 60), timeout=240).strip() == "ok"


def flip_chunk(path, dataset, number=1, size=4):
    """Change bytes in the middle of one stored chunk."""
    with h5py.File(path, "r") as file:
        chunk = file[dataset].id.get_chunk_info(number)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset + chunk.size // 2)
        old = raw.read(size)
        raw.seek(-size, os.SEEK_CUR)
        raw.write(bytes(byte ^ 0xFF for byte in old))


CHECKED = {
    "fletcher32": {"fletcher32": True},
    "gzip": {"compression": "gzip"},
    "shuffle-gzip": GZIP,
    "gzip-fletcher32": {"compression": "gzip", "fletcher32": True},
    "lzf-fletcher32": {"compression": "lzf", "fletcher32": True},
}


@engines
@pytest.mark.parametrize("filters", CHECKED.values(), ids=CHECKED)
def test_a_corrupted_chunk_is_detected(write, filters, engine):
    noise = np.random.default_rng(0).normal(size=400)
    path = write({"good": noise, "broken": Column(noise, {"chunks": (100,), **filters})})
    flip_chunk(path, "units/broken")
    with pytest.raises(lazynwb.CorruptDataError) as caught:
        lazynwb.scan_nwb(path, "/units").collect(engine=engine)
    assert_names(caught.value, "bad.nwb", "units", "broken")
    lf = lazynwb.scan_nwb(path, "/units")
    assert lf.select("good").collect(engine=engine)["good"].to_list() == noise.tolist()
    assert lf.filter(pl.col("_table_index") < 50).select("broken").collect(engine=engine).height == 50


@pytest.mark.parametrize(
    "ask",
    [
        lambda paths, _: lazynwb.scan_nwb(paths, "/units", ignore_errors=True).collect(),
        lambda paths, _: lazynwb.scan_nwb(paths, "/uni*", ignore_errors=True).collect(),
        lambda paths, _: lazynwb.scan_nwb(paths, "units", ignore_errors=True, resolve_regions=True),
        lambda paths, _: lazynwb.get_sql_context(paths),
        lambda paths, _: lazynwb.get_df(paths, "units", ignore_errors=True),
        lambda paths, out: lazynwb.convert_nwb_tables(paths, out, ignore_errors=True),
        lambda paths, out: lazynwb.build_index(paths, out, ignore_errors=True),
        lambda paths, _: lazynwb.scan_nwb(
            paths, "/units", ignore_errors=True, executor=ThreadPoolExecutor(1)
        ).collect(),
    ],
    ids=["scan", "pattern", "regions", "sql", "get_df", "convert", "index", "executor"],
)
def test_a_missing_package_is_an_error_even_if_errors_are_ignored(ask, tmp_path, monkeypatch):
    paths = [tmp_path / "a.nwb", tmp_path / "b.nwb"]
    for path in paths:
        with h5py.File(path, "w") as file:
            table(file, "units", {"rate": np.arange(3.0)})

    def lacking(describe):
        def raising(reader, *args):
            name = reader.run_parse("", lambda file: file.name)
            if "b.nwb" in name:
                raise lazynwb.MissingPackageError(f"{name}: codec x takes the package y")
            return describe(reader, *args)

        return raising

    for name in ("describe_table", "list_objects"):
        monkeypatch.setattr(Hdf5Reader, name, lacking(getattr(Hdf5Reader, name)))
    with pytest.raises(lazynwb.MissingPackageError, match=r"b\.nwb: codec x takes the package y"):
        ask(paths, tmp_path / "out")


@pytest.mark.parametrize(
    ("number", "error", "said"),
    [
        (32013, lazynwb.MissingPackageError, "filter 32013.*pip install hdf5plugin"),
        (411, lazynwb.UnsupportedTypeError, "filter 411.*HDF5_PLUGIN_PATH"),
    ],
)
def test_a_filter_that_libhdf5_lacks(number, error, said, tmp_path, monkeypatch):
    if h5py.h5z.filter_avail(number):
        pytest.skip("the filter is here")
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        table(file, "units", {"rate": np.arange(3.0)})
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((3,))
        properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((3,))
        stored = h5py.h5d.create(file["units"].id, b"odd", h5py.h5t.NATIVE_DOUBLE, space, properties)
        stored.write_direct_chunk((0,), bytes(24))
        file["units"].attrs["colnames"] = ["odd", "rate"]
    with pytest.raises(error, match=said):
        lazynwb.scan_nwb(path, "/units").collect()
    frame = lazynwb.scan_nwb(path, "/units", ignore_errors=True)
    assert frame.select("rate").collect()["rate"].to_list() == [0.0, 1.0, 2.0]
    if error is lazynwb.MissingPackageError:
        with pytest.raises(error, match=said):
            frame.collect()
        with pytest.raises(error, match=said):
            lazynwb.get_sql_context(path).execute("SELECT * FROM units", eager=True)
    else:
        assert frame.collect()["odd"].to_list() == [None] * 3


def test_an_unsupported_column_does_not_affect_others(tmp_path, caplog):
    for name, values in {"bad": np.zeros(3, np.longdouble), "good": np.arange(3.0)}.items():
        with h5py.File(tmp_path / f"{name}.nwb", "w") as file:
            table(file, "units", {"odd": values, "rate": np.arange(3) * 1.5})
    bad, good = tmp_path / "bad.nwb", tmp_path / "good.nwb"
    rates = [0.0, 1.5, 3.0]
    assert lazynwb.scan_nwb(bad, "/units").select("rate").collect()["rate"].to_list() == rates
    for excluded in (
        lazynwb.scan_nwb(bad, "/units", exclude_array_columns=True).collect(),
        lazynwb.get_df(bad, "/units", as_polars=True),
    ):
        assert "odd" not in excluded.columns
        assert excluded["rate"].to_list() == rates
    with pytest.raises(
        lazynwb.UnsupportedTypeError, match=r"bad\.nwb: /units: column 'odd' cannot be read: "
    ):
        lazynwb.scan_nwb([bad, good], "/units").collect()
    for engine in ENGINES:
        caplog.clear()
        frame = lazynwb.scan_nwb([bad, good], "/units", ignore_errors=True).collect(engine=engine)
        assert frame["rate"].to_list() == rates * 2
        assert frame["odd"].to_list() == [None] * 3 + [0.0, 1.0, 2.0]
        assert warned(caplog).count("column 'odd' is null where it cannot be read") == 1
    found = lazynwb.get_sql_context([bad, good]).execute("SELECT * FROM units WHERE rate > 1", eager=True)
    assert found["odd"].to_list() == [None, None, 1.0, 2.0]


def test_a_chunk_of_the_wrong_size(write):
    """A chunk that decodes to fewer bytes than its shape needs."""
    import zlib

    path = write({"x": Column(np.arange(40.0), {"chunks": (10,), "compression": "gzip"})})
    with h5py.File(path, "a") as file:
        file["units/x"].id.write_direct_chunk((10,), zlib.compress(b"short"))
        file["units/x"].id.write_direct_chunk((20,), zlib.compress(bytes(5000)))
    for start in (10, 20):
        with pytest.raises(lazynwb.CorruptDataError) as caught:
            lazynwb.scan_nwb(path, "/units").filter(pl.col("_table_index") == start).select("x").collect()
        assert_names(caught.value, "bad.nwb", "units", "x")


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc: run on Linux")
def test_a_decompression_bomb(write):
    """A chunk of a few kilobytes that would inflate to gigabytes is refused, not inflated."""
    import zlib

    path = write({"x": Column(np.arange(40_000.0), {"chunks": (10_000,), "compression": "gzip"})})
    bomb = zlib.compressobj(9)
    content = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(200)) + bomb.flush()
    with h5py.File(path, "a") as file:
        file["units/x"].id.write_direct_chunk((10_000,), content)
    code = """
import sys, lazynwb
try:
    lazynwb.read_nwb(sys.argv[1], "/units")
except lazynwb.CorruptDataError:
    print(peak_mib())
"""
    assert int(run_child(PEAK_MIB + code, path)) < 250


def test_corrupt_text(write):
    """References into a missing heap collection."""
    path = write({"text": [f"row {k}" * 100 for k in range(50)], "a": np.arange(50)})
    with h5py.File(path) as file:
        offset = file["units/text"].id.get_offset()
    content = path.read_bytes()
    heap = int.from_bytes(content[offset + 25 * 16 + 4 : offset + 25 * 16 + 12], "little")  # of row 25
    assert content[heap : heap + 4] == b"GCOL"
    path.write_bytes(content[:heap] + b"LOCG" + content[heap + 4 :])
    lf = lazynwb.scan_nwb(path, "/units")
    assert lf.select("a").collect().height == 50
    with pytest.raises(lazynwb.CorruptDataError) as caught:
        lf.select("text").collect()
    assert_names(caught.value, "bad.nwb", "units", "text")


VARIANTS = """
import os, pathlib, signal, sys
import lazynwb
lazynwb.config.disable_cache = True
path, variant = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
content, failed = path.read_bytes(), []

def damage(start, new):  # read a copy that differs in a few bytes in a process of its own: does it crash?
    variant.write_bytes(content[:start] + new + content[start + len(new) :])
    child = os.fork()
    if not child:
        signal.alarm(5)
        try:
            lazynwb.read_nwb(variant, "t")
        except lazynwb.LazyNWBError:
            pass
        os._exit(0)
    if status := os.waitpid(child, 0)[1]:
        failed.append((start, new, status))
"""


@pytest.fixture
def old_format(tmp_path):
    """A file without checksums of its metadata."""
    with h5py.File(tmp_path / "bad.nwb", "w", libver="earliest") as file:
        table(file, "t", {"a": np.arange(3), "text": ["x", "y", "z"], "r": Ragged([[1.0], [], [2.0]])})
    return tmp_path / "bad.nwb"


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork: run on Linux or macOS")
def test_damaged_heaps(old_format, tmp_path):
    """Heaps that hold attributes and text, damaged in every field: libhdf5 alone loops for ever on some."""
    code = """
at = -1
while (at := content.find(b"GCOL", at + 1)) >= 0:
    first = at + 16  # index, reference count, reserved, size
    second = first + 16 + -(-int.from_bytes(content[first + 8 : first + 16], "little") // 8) * 8
    for place in (first, second):
        for offset, new in (0, bytes(1)), (0, bytes(16)), (1, b"\\xff"), (8, bytes(8)), (8, b"\\xff" * 8):
            damage(place + offset, new)
print(failed)
"""
    assert run_child(VARIANTS + code, old_format, tmp_path / "variant.nwb", timeout=300).strip() == "[]"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork: run on Linux or macOS")
def test_damaged_object_headers(old_format, tmp_path):
    """Every byte of the headers of a table and an index: libhdf5 alone crashes on some."""
    with h5py.File(old_format) as file:
        starts = [h5py.h5o.get_info(file[name].id).addr for name in ("t", "t/r_index")]
    code = """
for start in map(int, sys.argv[3:]):
    for place in range(start, start + 400):
        damage(place, bytes([0xC6]))
print(failed)
"""
    out = run_child(VARIANTS + code, old_format, tmp_path / "variant.nwb", *starts, timeout=580)
    assert out.strip() == "[]"


def test_names_that_are_not_utf8_are_left_out(write, caplog):
    """A path with replaced characters leads nowhere, and may be that of two objects."""
    path = write({"a": np.arange(3)})
    with h5py.File(path, "a") as file:
        for group in (file["units"], series(file, "acquisition/s", np.arange(4.0), rate=1.0)):
            for number, name in enumerate((b"\xff_time", b"\xfe_time")):
                group.create_dataset(name, data=[number], chunks=(1,)).attrs["unit"] = f"unit {number}"
    compared = compare(path)
    assert not compared.different
    assert not compared.refused
    assert lazynwb.read_nwb(path, "units").select(pl.exclude("^_.*$")).columns == ["a", "id"]
    assert "is not UTF-8" in warned(caplog)
    assert lazynwb.get_timeseries(path, "s").data[:].tolist() == [0, 1, 2, 3]
    for found in (
        describe_file(path, ["acquisition/s"], libhdf5=is_fallback) for is_fallback in (False, True)
    ):
        assert not found.errors
        assert "unit 1" not in found.known["attributes"]
        assert not any("_time" in part for part in found.known)


# --- ragged columns -----------------------------------------------------------------------------------


@engines
@pytest.mark.parametrize(
    ("ends", "dtype"),
    [
        ([3, 1, 5], "u4"),
        ([2, 4, 9], "u4"),
        ([2, 4, 2**32 - 1], "u4"),
        ([2, 4, 2**64 - 1], "u8"),
        ([-1, 2, 5], "i4"),
        ([5, 0, 5], "u1"),
    ],
    ids=["not-monotonic", "past-the-end", "far-past", "huge", "negative", "back-to-zero"],
)
def test_a_ragged_index_that_contradicts_its_data(write, ends, dtype, engine):
    path = write({"a": np.arange(3)})
    with h5py.File(path, "a") as file:
        file["units/x"] = np.arange(5.0)
        file["units/x_index"] = np.array(ends, dtype)
        file["units/x_index"].attrs.update({"neurodata_type": "VectorIndex", "target": file["units/x"].ref})
        file["units"].attrs["colnames"] = np.array(["a", "x"], VLEN_TEXT)
    lf = lazynwb.scan_nwb(path, "/units")
    assert lf.select("a").collect(engine=engine)["a"].to_list() == [0, 1, 2]
    for query in (lf, lf.select("x"), lf.filter(pl.col("a") >= 0).select("x")):
        with pytest.raises(lazynwb.CorruptDataError) as caught:
            query.collect(engine=engine)
        assert_names(caught.value, "bad.nwb", "units", "x")


def test_a_doubly_ragged_index_that_contradicts_its_data(write):
    path = write({"x": Ragged([[[1.0], [2.0, 3.0]], [[4.0]]], depth=2)})
    with h5py.File(path, "a") as file:
        file["units/x_index_index"][...] = [2, 7]
    with pytest.raises(lazynwb.CorruptDataError) as caught:
        lazynwb.read_nwb(path, "/units")
    assert_names(caught.value, "bad.nwb", "units", "x")


@engines
def test_data_past_the_last_end_is_not_shown(write, engine):
    """Data past the last end of an index belongs to no row."""
    path = write({"x": Ragged([[1.0, 2.0], [3.0]])})
    with h5py.File(path, "a") as file:
        file["units/x_index"][...] = [1, 2]
    assert lazynwb.scan_nwb(path, "/units").collect(engine=engine)["x"].to_list() == [[1.0], [2.0]]


def retarget(path, index, target):
    with h5py.File(path, "a") as file:
        file[f"units/{index}"].attrs["target"] = file[target].ref


def test_an_index_that_targets_itself_belongs_to_the_column_of_its_name(write):
    path = write({"x": Ragged([[1.0, 2.0], [3.0]])})
    retarget(path, "x_index", "units/x_index")
    assert lazynwb.read_nwb(path, "/units")["x"].to_list() == [[1.0, 2.0], [3.0]]


def test_an_index_without_its_column_is_not_a_column(write):
    path = write({"a": np.arange(2), "x": Ragged([[[1.0], [2.0, 3.0]], [[4.0]]], depth=2)})
    with h5py.File(path, "a") as file:
        del file["units/x"]
        file["units/x"] = h5py.SoftLink("/nowhere")
    assert list(lazynwb.read_nwb(path, "/units").drop(lazynwb.INTERNAL_COLUMN_NAMES).columns) == ["a", "id"]


def test_an_index_without_its_column_does_not_affect_other_columns(write):
    """The target of `x_index` is missing; `y_index` is the index of `x`."""
    path = write({"x": Ragged([[1.0, 2.0], [3.0]]), "y": Ragged([[4.0], [5.0, 6.0]])})
    retarget(path, "x_index", "units/y")
    retarget(path, "y_index", "units/x")
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        at = h5py.h5o.get_info(file["units/y"].id).addr
    content[at : at + 4] = b"\xee" * 4  # the version of its object header
    path.write_bytes(content)
    frame = lazynwb.read_nwb(path, "/units")
    assert frame["x"].to_list() == [[1.0], [2.0, 3.0]]
    assert "y" not in frame.columns


def test_a_column_whose_index_belongs_to_another_is_not_shown_flat(write):
    path = write({"x": Ragged([[1.0, 2.0], [3.0]]), "y": Ragged([[4.0], [5.0, 6.0]])})
    retarget(path, "x_index", "units/y")
    retarget(path, "y_index", "general")
    lf = lazynwb.scan_nwb(path, "/units")
    assert lf.select("y").collect()["y"].to_list() == [[4.0, 5.0], [6.0]]
    with pytest.raises(lazynwb.UnsupportedTypeError, match="x_index belongs to another column"):
        lf.select("x").collect()


def test_a_ragged_dataset_under_two_names(write):
    path = write({"x": Ragged([[1.0, 2.0], [3.0]])})
    with h5py.File(path, "a") as file:
        file["units/w"] = file["units/x"]
        file["units"].attrs["colnames"] = np.array(["x", "w"], VLEN_TEXT)
    frame = lazynwb.read_nwb(path, "/units")
    assert frame["w"].to_list() == frame["x"].to_list() == [[1.0, 2.0], [3.0]]


def test_a_missing_id_does_not_change_the_number_of_rows(write):
    path = write({"x": np.arange(3), "y": np.arange(2)})
    with h5py.File(path, "a") as file:
        del file["units/id"]
        file["units/id"] = h5py.SoftLink("/nowhere")
    with pytest.raises(lazynwb.CorruptDataError, match=r"bad\.nwb.*/units.*`id`"):
        lazynwb.read_nwb(path, "/units")


def test_an_index_that_indexes_itself(write):
    """A cycle of targets must not hang."""
    path = write({"a": np.arange(3)})
    with h5py.File(path, "a") as file:
        for name in ("p", "q", "s"):
            file[f"units/{name}"] = np.array([1, 2, 3], "u1")
            file[f"units/{name}"].attrs["neurodata_type"] = "VectorIndex"
        file["units/p"].attrs["target"] = file["units/q"].ref
        file["units/q"].attrs["target"] = file["units/p"].ref
        file["units/s"].attrs["target"] = file["units/s"].ref
    code = """
import sys, lazynwb
try:
    print(lazynwb.read_nwb(sys.argv[1], "/units")["a"].to_list())
except lazynwb.LazyNWBError as error:
    assert "bad.nwb" in str(error)
    print([0, 1, 2])
"""
    assert run_child(code, path, timeout=30).strip() == "[0, 1, 2]"


def destroy(path, name):
    """Make the header of one object unreadable."""
    with h5py.File(path) as file:
        address = h5py.h5o.get_info(file[name].id).addr
    with path.open("r+b") as raw:
        raw.seek(address)
        raw.write(b"\xff" * 16)


@pytest.mark.parametrize("how", ["destroyed", "soft link", "external link"])
def test_an_index_that_cannot_be_opened(write, how):
    """Without its index, a ragged column has unknown rows and must not be read as flat data."""
    path = write({"a": [1, 2, 3], "x": Ragged([[1.0], [2.0], [3.0]])})
    if how == "destroyed":
        destroy(path, "units/x_index")
    else:
        with h5py.File(path, "a") as file:
            del file["units/x_index"]
            soft, external = h5py.SoftLink("/nowhere"), h5py.ExternalLink("gone.nwb", "/x")
            file["units/x_index"] = soft if how == "soft link" else external
    lf = lazynwb.scan_nwb(path, "/units")
    assert lf.select("a").collect()["a"].to_list() == [1, 2, 3]
    if "x" in lf.collect_schema():
        with pytest.raises(lazynwb.LazyNWBError) as caught:
            lf.select("x").collect()
        assert_names(caught.value, "bad.nwb", "units", "x")


def test_a_column_that_cannot_be_opened(write, caplog):
    path = write({"a": [1, 2], "b": [3, 4]})
    destroy(path, "units/b")
    lf = lazynwb.scan_nwb(path, "/units")
    assert lf.select("a").collect()["a"].to_list() == [1, 2]
    if "b" in lf.collect_schema():
        with pytest.raises(lazynwb.LazyNWBError) as caught:
            lf.select("b").collect()
        assert_names(caught.value, "bad.nwb", "units", "b")
    else:
        assert "'b'" in warned(caplog)


@pytest.mark.parametrize("target", ["null", "missing", "group", "other_table"])
def test_an_index_with_a_useless_target(write, target):
    """If the target is unusable, the index is assigned by name."""
    path = write({"x": Ragged([[1.0, 2.0], [3.0]], target=False)})
    with h5py.File(path, "a") as file:
        table(file, "other", {"y": [1, 2]})
        file["gone"] = [1]
        reference = {
            "null": h5py.Reference(), "missing": file["gone"].ref, "group": file["other"].ref,
            "other_table": file["other/y"].ref,
        }[target]  # fmt: skip
        file["units/x_index"].attrs.create("target", reference, dtype=h5py.ref_dtype)
        del file["gone"]
    assert lazynwb.read_nwb(path, "/units")["x"].to_list() == [[1.0, 2.0], [3.0]]


# --- tables that contradict themselves ----------------------------------------------------------------


@engines
def test_columns_of_unequal_length_are_repaired_with_a_warning(write, engine, caplog):
    columns = {
        "fits": np.arange(5),
        "short": np.arange(3.0),
        "long": np.arange(9),
        "ragged": Ragged([[1.0], []]),
    }
    path = write(columns, rows=5)
    frame = lazynwb.scan_nwb(path, "units").collect(engine=engine)
    assert frame["short"].to_list() == [0.0, 1.0, 2.0, None, None]
    assert frame["long"].to_list() == [0, 1, 2, 3, 4]
    assert frame["ragged"].to_list() == [[1.0], [], None, None, None]
    for name in ("short", "long", "ragged", "bad.nwb", "units"):
        assert name in warned(caplog)
    assert "fits" not in warned(caplog)


def test_one_query_warns_once(write, caplog):
    paths = [write({"fits": np.arange(5), "short": np.arange(3)}, f"{k}.nwb", rows=5) for k in range(20)]
    assert lazynwb.scan_nwb(paths, "units").collect()["short"].null_count() == 40
    assert (
        len([r for r in caplog.records if r.name.startswith("lazynwb") and r.levelno >= logging.WARNING]) == 1
    )


def test_series_with_timestamps_of_another_length(built, caplog):
    frame = lazynwb.read_nwb(built("time_series"), "/acquisition/short_stamps")
    assert frame["timestamps"].to_list() == [0.0, 1.0, 2.0, None, None]
    assert "timestamps" in warned(caplog)
    assert lazynwb.read_nwb(built("time_series"), "/acquisition/long_stamps").height == 5


def test_broken_links_are_excluded(built):
    frame = lazynwb.read_nwb(built("links"), "/intervals/trials")
    assert {"broken_soft", "broken_external", "cycle_a", "cycle_b"}.isdisjoint(frame.columns)
    assert frame["soft"].to_list() == [0, 1, 2]


def test_a_listed_column_behind_a_broken_link(write, caplog):
    path = write({"a": [1, 2]}, colnames=np.array(["a", "lost"], VLEN_TEXT))
    with h5py.File(path, "a") as file:
        file["units/lost"] = h5py.SoftLink("/nowhere")
    frame = lazynwb.read_nwb(path, "/units")
    assert frame["a"].to_list() == [1, 2]
    assert "lost" in warned(caplog)


def test_a_table_behind_a_broken_link(write):
    path = write({"a": [1]})
    with h5py.File(path, "a") as file:
        file["soft"] = h5py.SoftLink("/nowhere")
        file["external"] = h5py.ExternalLink("gone.nwb", "/t")
        file["cycle"] = h5py.SoftLink("/cycle")
    for name in ("soft", "external", "cycle"):
        with pytest.raises(lazynwb.LazyNWBError, match=r"bad\.nwb|units"):
            lazynwb.read_nwb(path, name)


@pytest.mark.parametrize(
    "path", ["/units/a", "/general/devices", "", "/units/nothing", "/nothing", "..", "/units/../units"]
)
def test_paths_that_are_not_tables(write, path):
    with pytest.raises(lazynwb.TableNotFoundError, match="units"):
        lazynwb.read_nwb(write({"a": [1]}), path)


def test_cyclic_groups(tmp_path):
    """Groups that contain each other by hard and soft links."""
    path = tmp_path / "cycle.nwb"
    with h5py.File(path, "w") as file:
        a, b = file.create_group("a"), file.create_group("a/b")
        b["a"] = a
        b["root"] = file["/"]
        a["soft"] = h5py.SoftLink("/a")
        table(b, "t", {"x": [1]})
    code = """
import sys, lazynwb
found = list(lazynwb.get_internal_paths(sys.argv[1]))
assert "/a/b/t" in found and len(found) < 10, found
print(lazynwb.get_sql_context(sys.argv[1]).execute("SELECT x FROM t", eager=True).height)
"""
    assert run_child(code, path, timeout=30).strip() == "1"


def test_many_paths_to_one_group(tmp_path):
    """Thirty levels of two links each are a thousand million paths; each group is visited once."""
    path = tmp_path / "lattice.nwb"
    with h5py.File(path, "w") as file:
        below = file.create_group("bottom")
        table(below, "t", {"x": [1]})
        for level in range(30):
            group = file.create_group(f"level_{level}")
            group["left"] = group["right"] = below
            below = group
    code = """
import sys, lazynwb
found = list(lazynwb.get_internal_paths(sys.argv[1]))
print(len(found) > 0, lazynwb.read_nwb(sys.argv[1], "/bottom/t").height)
"""
    assert run_child(code, path, timeout=30).strip() == "True 1"


def odd_files():
    """Structures that no NWB writer makes: functions that change the group `units`, by name."""

    def id_is_a_group(g):
        del g["id"]
        g.create_group("id")

    def id_is_scalar(g):
        del g["id"]
        g["id"] = 3

    def column_is_a_group(g):
        del g["b"]
        g.create_group("b")

    def column_is_scalar(g):
        del g["b"]
        g["b"] = 5

    def column_is_null(g):
        del g["b"]
        g["b"] = h5py.Empty("f8")

    def numeric_colnames(g):
        g.attrs["colnames"] = np.arange(3)

    def two_dimensional_colnames(g):
        g.attrs["colnames"] = np.array([["a", "b"]], VLEN_TEXT)

    def colnames_that_are_not_utf8(g):
        g.attrs["colnames"] = np.array([b"a", b"\xff\xfe"])

    def colnames_with_paths(g):
        g.attrs["colnames"] = np.array(["a", "../general/session_id", "/identifier", ".", ""], VLEN_TEXT)

    def colnames_twice(g):
        g.attrs["colnames"] = np.array(["a", "a", "b"], VLEN_TEXT)

    def float_index(g):
        g["b_index"] = np.array([1.0, 2.0, 3.0])
        g["b_index"].attrs["neurodata_type"] = "VectorIndex"

    def two_dimensional_index(g):
        g["b_index"] = np.array([[1], [2], [3]])
        g["b_index"].attrs["neurodata_type"] = "VectorIndex"

    def reserved_names(g):
        g["_nwb_path"] = np.arange(3)
        g["_table_index"] = np.arange(3)

    def type_is_a_number(g):
        g.attrs["neurodata_type"] = 5

    def committed_type(g):
        g.file["a_type"] = np.dtype("f8")
        g.create_dataset("committed", data=np.arange(3.0), dtype=g.file["a_type"])
        g["type_itself"] = h5py.SoftLink("/a_type")

    def categories_of_nothing(g):
        g.attrs["categories"] = np.array(["gone", "a"], VLEN_TEXT)

    def huge_never_written(g):
        g.create_dataset("huge", (3, 2**20, 2**20), "f8", chunks=(1, 1024, 1024))

    def many_dimensions(g):
        g["deep"] = np.zeros((3,) + (1,) * 31)

    def zero_width(g):
        g["empty_rows"] = np.zeros((3, 0))
        g["empty_planes"] = np.zeros((3, 0, 4))

    return {name: make for name, make in locals().items() if callable(make)}


@pytest.mark.parametrize("kind", odd_files())
def test_structures_of_unusual_layouts(kind, write):
    """Valid columns are read correctly, or an error of this package names the file and the object."""
    path = write({"a": np.arange(3), "b": np.arange(3.0)})
    with h5py.File(path, "a") as file:
        odd_files()[kind](file["units"])
    try:
        lf = lazynwb.scan_nwb(path, "/units")
        assert lf.select("a").collect()["a"].to_list() == [0, 1, 2]
        lf.head(1).select(pl.exclude("huge")).collect()
    except lazynwb.LazyNWBError as error:
        assert_names(error, "bad.nwb")
    context = lazynwb.get_sql_context(path)
    assert "session" in context.tables()


def test_series_of_unusual_layouts(tmp_path):
    path = tmp_path / "bad.nwb"
    with h5py.File(path, "w") as file:
        home = file.create_group("acquisition")
        series(home, "no_rate", np.arange(3.0), start=1)["starting_time"].attrs.pop("rate")
        series(home, "zero_rate", np.arange(3.0), start=1, rate=0.0)
        series(home, "scalar_data", None, start=1)["data"] = 5.0
        series(home, "data_is_a_group", None, np.arange(3.0)).create_group("data")
        series(home, "times_2d", np.arange(3.0), np.zeros((3, 1)))
        series(home, "array_start", np.arange(3.0))["starting_time"] = np.array([2.0])
        home["array_start/starting_time"].attrs["rate"] = np.array([10.0])
        series(home, "broken_times", np.arange(3.0))["timestamps"] = h5py.SoftLink("/nowhere")
        series(home, "text_start", np.arange(3.0))["starting_time"] = "soon"
        home["text_start/starting_time"].attrs["rate"] = 1.0
    with h5py.File(path) as file:
        names = list(file["acquisition"])
    for name in names:
        try:
            frame = lazynwb.read_nwb(path, f"/acquisition/{name}")
        except lazynwb.LazyNWBError as error:
            assert_names(error, "bad.nwb")
        else:
            if "data" in frame.columns and name != "scalar_data":
                assert frame["data"].to_list() == [0.0, 1.0, 2.0], name
            if name == "array_start":
                assert frame["timestamps"].to_list() == [2.0, 2.1, 2.2]


def test_an_enum_value_without_a_name(write):
    path = write({"a": np.arange(3)})
    with h5py.File(path, "a") as file:
        tid = h5py.h5t.py_create(h5py.enum_dtype({"x": 0, "y": 1}, basetype="i1"), logical=True)
        made = h5py.h5d.create(file["units"].id, b"e", tid, h5py.h5s.create_simple((3,)))
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([0, 1, 7], "i1"), mtype=tid)
    for engine in ENGINES:
        try:
            frame = lazynwb.scan_nwb(path, "/units").collect(engine=engine)
        except lazynwb.LazyNWBError as error:
            assert_names(error, "bad.nwb", "units", "e")
        else:
            assert frame["e"].cast(pl.String).to_list() == ["x", "y", None]


def test_invalid_references(write):
    """A reference whose target was deleted, and one that is noise."""
    path = write({"a": np.arange(3)})
    with h5py.File(path, "a") as file:
        file["gone"] = [1]
        references = np.array([file["gone"].ref, file["units"].ref, h5py.Reference()], "O")
        file["units"].create_dataset("r", data=references, dtype=h5py.ref_dtype)
        del file["gone"]
    try:
        frame = lazynwb.read_nwb(path, "/units")
    except lazynwb.LazyNWBError as error:
        assert_names(error, "bad.nwb", "units", "r")
    else:
        assert frame["r"].to_list()[1:] == ["/units", None]
    assert lazynwb.scan_nwb(path, "/units").select("a").collect().height == 3


def test_an_unknown_filter(tmp_path):
    """Selecting a column with an unknown filter raises an error that names the filter."""
    path = tmp_path / "bad.nwb"
    with h5py.File(path, "w") as file:
        group = table(file, "units", {"a": np.arange(10)})
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((10,))
        plist.set_filter(31_999, h5py.h5z.FLAG_OPTIONAL)
        dataset = h5py.Dataset(
            h5py.h5d.create(group.id, b"x", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((10,)), plist)
        )
        dataset.id.write_direct_chunk((0,), bytes(40))
    lf = lazynwb.scan_nwb(path, "/units")
    assert lf.select("a").collect().height == 10
    with pytest.raises(lazynwb.UnsupportedTypeError, match="31999") as caught:
        lf.collect()
    assert_names(caught.value, "bad.nwb", "units", "x")


def test_names_that_are_not_utf8(write):
    """Such a column is omitted with a warning, or has an escaped name; other columns are correct."""
    path = write({"a": [1, 2], "bcdefgh": [3, 4]})
    path.write_bytes(path.read_bytes().replace(b"bcdefgh", b"bc\xff\xfeefg"))
    for engine in ENGINES:
        frame = lazynwb.scan_nwb(path, "/units").collect(engine=engine)
        assert frame["a"].to_list() == [1, 2]
    assert "/units" in list(lazynwb.get_internal_paths(path))


def test_names_that_look_like_code(tmp_path):
    """The contents of a file are never executed."""
    path, target = tmp_path / "a.nwb", tmp_path / "executed"
    code = f"__import__('pathlib').Path({str(target)!r}).write_text('x')"
    with h5py.File(path, "w") as file:
        nwb_root(file)
        table(file, "units", {code.replace("/", "-"): [code, "1+1"], "text": ["[1, 2]", "{}"]})
        file["general/notes"] = code
    frame = lazynwb.read_nwb(path, "/units")
    assert frame["text"].to_list() == ["[1, 2]", "{}"]
    lazynwb.read_nwb(path, "/general")
    list(lazynwb.get_internal_paths(path))
    assert not target.exists()


def test_huge_tables_are_counted_without_memory(tmp_path):
    """Ten million unwritten rows."""
    path = tmp_path / "huge.nwb"
    n = 10_000_000
    with h5py.File(path, "w") as file:
        group = table(file, "units", {}, rows=-1, colnames=np.array(["x"], VLEN_TEXT))
        for name in ("id", "x"):
            group.create_dataset(name, (n,), "f8", chunks=(100_000,), fillvalue=1.0)
    lf = lazynwb.scan_nwb(path, "/units")
    assert lf.select(pl.len()).collect().item() == n
    assert lf.select("x").head(3).collect(engine="streaming")["x"].to_list() == [1.0] * 3


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc: run on Linux")
def test_failing_queries_leave_nothing_open(write, tmp_path):
    noise = np.random.default_rng(0).normal(size=400)
    corrupt = write({"x": Column(noise, {"chunks": (100,), **GZIP})}, "corrupt.nwb")
    flip_chunk(corrupt, "units/x")
    (tmp_path / "text.nwb").write_bytes(b"text")

    def attempts():
        for path, name in ((corrupt, "/units"), (corrupt, "/nothing"), (tmp_path / "text.nwb", "/units")):
            with pytest.raises(lazynwb.LazyNWBError):
                lazynwb.read_nwb(path, name)

    attempts()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        attempts()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
