"""Files for the tests: NWB tables written by h5py in every layout that HDF5 has, and by pynwb.

Each function decorated with `case` writes one file; `CASES` and `PYNWB_CASES` hold them by name.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Builder = Callable[[Path], None]
CASES: dict[str, Builder] = {}
PYNWB_CASES: dict[str, Builder] = {}
VLEN_TEXT = h5py.string_dtype()
GZIP = {"compression": "gzip", "shuffle": True}

try:
    import hdf5plugin
except ImportError:  # the plugin filters are an extra
    hdf5plugin = None


def case(function: Builder) -> Builder:
    CASES[function.__name__] = function
    return function


def pynwb_case(function: Builder) -> Builder:
    def quiet(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(path)

    PYNWB_CASES[function.__name__] = quiet
    return quiet


# --- helpers ---------------------------------------------------------------------------------------------------------


@dataclass
class Column:
    """A dataset with its storage options and attributes."""

    data: Any
    options: dict[str, Any] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Ragged:
    """Rows of unequal length, `depth` levels deep, over a flat dataset."""

    rows: Sequence[Any]
    dtype: Any = "f8"
    depth: int = 1
    index_dtype: str = "u4"
    options: dict[str, Any] = field(default_factory=dict)
    index_options: dict[str, Any] = field(default_factory=dict)
    inner: tuple[int, ...] = ()
    vector_index: bool = True  # the attributes that hdmf writes
    target: bool = True


def flatten(rows: Sequence[Any], depth: int) -> tuple[list[Any], list[list[int]]]:
    """The flat values and the cumulative ends of each level, innermost first."""
    if depth == 0:
        return list(rows), []
    ends = np.cumsum([len(row) for row in rows], dtype="u8").tolist()
    flat, inner = flatten(list(chain.from_iterable(rows)), depth - 1)
    return flat, [*inner, ends]


def put(group: h5py.Group, name: str, column: Any) -> h5py.Dataset:
    """Write one column, with its indices where it is ragged."""
    if isinstance(column, Ragged):
        values, levels = flatten(column.rows, column.depth)
        data = np.array(values, dtype=column.dtype).reshape((len(values), *column.inner))
        dataset = group.create_dataset(name, data=data, dtype=column.dtype, **column.options)
        dataset.attrs["neurodata_type"] = "VectorData"
        previous = dataset
        for ends in levels:
            name += "_index"
            index = group.create_dataset(
                name, data=np.array(ends, dtype=column.index_dtype), **column.index_options
            )
            if column.vector_index:
                index.attrs["neurodata_type"] = "VectorIndex"
            if column.target:
                index.attrs["target"] = previous.ref
            previous = index
        return dataset
    if not isinstance(column, Column):
        column = Column(column)
    data, options = column.data, dict(column.options)
    if (
        isinstance(data, (list, np.ndarray))
        and len(data)
        and isinstance(np.ravel(np.array(data, "O"))[0], (str, bytes))
    ):
        if not (isinstance(data, np.ndarray) and data.dtype.kind == "S"):
            data, options = np.array(data, "O"), {"dtype": VLEN_TEXT, **options}
    dataset = group.create_dataset(name, data=data, **options)
    for key, value in column.attrs.items():
        dataset.attrs[key] = value
    return dataset


def table(
    parent: h5py.Group,
    path: str,
    columns: Mapping[str, Any],
    *,
    rows: int | None = None,
    kind: str | None = "DynamicTable",
    colnames: Any = ...,
) -> h5py.Group:
    """Write a DynamicTable; `colnames` may be given to lie, None leaves it out, `rows=-1` leaves out `id`."""
    group = parent.require_group(path)
    for name, column in columns.items():
        put(group, name, column)
    if rows is None:
        heights = [len(c.rows) if isinstance(c, Ragged) else len(c.data if isinstance(c, Column) else c)
                   for c in columns.values()]  # fmt: skip
        rows = max(heights, default=0)
    if rows >= 0 and "id" not in group:
        group["id"] = np.arange(rows)
        group["id"].attrs["neurodata_type"] = "ElementIdentifiers"
    if colnames is ...:
        colnames = np.array(list(columns), dtype=VLEN_TEXT) if columns else np.zeros(0, "f8")
    if colnames is not None:
        group.attrs["colnames"] = colnames
    if kind is not None:
        group.attrs["neurodata_type"] = kind
    return group


def series(
    parent: h5py.Group, path: str, data: Any = None, timestamps: Any = None, *, start: float | None = None,
    rate: float = 1.0, kind: str = "TimeSeries", **options: Any,
) -> h5py.Group:  # fmt: skip
    """Write a TimeSeries."""
    group = parent.require_group(path)
    group.attrs["neurodata_type"] = kind
    if data is not None:
        group.create_dataset("data", data=data, **options).attrs["unit"] = "V"
    if timestamps is not None:
        group["timestamps"] = timestamps
    if start is not None:
        group["starting_time"] = float(start)
        group["starting_time"].attrs["rate"] = rate
    return group


def nwb_root(
    file: h5py.File, session_id: str = "s0", keywords: Sequence[str] = ("production", "ecephys")
) -> None:
    """What every NWB file has at its root, and a subject."""
    file.attrs["nwb_version"] = "2.8.0"
    file.attrs["neurodata_type"] = "NWBFile"
    file["identifier"] = f"id-{session_id}"
    file["session_description"] = "a session"
    file["session_start_time"] = "2024-01-02T03:04:05+00:00"
    file["timestamps_reference_time"] = "2024-01-02T03:04:05+00:00"
    file.create_dataset("file_create_date", data=["2024-02-01T00:00:00+00:00"], dtype=VLEN_TEXT)
    general = file.require_group("general")
    general["session_id"] = session_id
    general.create_dataset("keywords", data=list(keywords), dtype=VLEN_TEXT)
    general.create_dataset("experimenter", data=["Doe, Jane", "Müller, Jörg"], dtype=VLEN_TEXT)
    subject = general.require_group("subject")
    subject.attrs["neurodata_type"] = "Subject"
    for name, value in {"subject_id": f"mouse-{session_id}", "sex": "F", "species": "Mus musculus"}.items():
        subject[name] = value


def raw_type(
    group: h5py.Group, name: str, tid: h5py.h5t.TypeID, memory: np.ndarray, **kw: Any
) -> h5py.Dataset:
    """A dataset of an HDF5 type that h5py's high-level interface does not make."""
    space = h5py.h5s.create_simple(memory.shape)
    dataset = h5py.h5d.create(group.id, name.encode(), tid, space, **kw)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(memory))
    return h5py.Dataset(dataset)


def dcpl(*, chunks: tuple[int, ...] | None = None) -> h5py.h5p.PropDCID:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if chunks:
        plist.set_chunk(chunks)
    return plist


def numbers(*shape: int, dtype: str = "f8") -> np.ndarray:
    """Different, compressible values; NaN among the floating ones."""
    array = (np.arange(int(np.prod(shape))) * 7 % 1009).reshape(shape).astype(dtype)
    if array.dtype.kind == "f" and array.size > 3:
        array.flat[3] = np.nan
    return array


# --- layouts and filters ---------------------------------------------------------------------------------------------


@case
def layouts(path: Path) -> None:
    n = 103
    with h5py.File(path, "w") as file:
        group = table(
            file,
            "t",
            {
                "contiguous": numbers(n),
                "contiguous_2d": numbers(n, 5),
                "chunked": Column(numbers(n), {"chunks": (10,)}),
                "one_chunk": Column(numbers(n), {"chunks": (n,)}),
                "row_chunks": Column(numbers(n), {"chunks": (1,)}),
                "large_chunk": Column(numbers(n), {"chunks": (500,), "maxshape": (None,)}),
                "chunked_2d": Column(numbers(n, 5), {"chunks": (10, 2)}),
                "chunked_3d": Column(numbers(n, 5, 7), {"chunks": (20, 5, 3)}),
                "wide_chunk": Column(numbers(n, 5), {"chunks": (7, 9), "maxshape": (None, None)}),
                "length_one": numbers(n, 1),
                "ragged": Ragged([[float(k)] * (k % 4) for k in range(n)], options={"chunks": (10,)}),
            },
        )
        compact = dcpl()
        compact.set_layout(h5py.h5d.COMPACT)
        raw_type(group, "compact", h5py.h5t.IEEE_F64LE, numbers(n), dcpl=compact)


@case
def chunk_indices(path: Path) -> None:
    """The five kinds of chunk index of the newer formats, filtered and not."""
    with h5py.File(path, "w", libver="latest") as file:
        n, kinds = 57, {}
        for name, filters in {"plain": {}, "gzip": GZIP}.items():
            kinds |= {
                f"single_{name}": Column(numbers(n, 2), {"chunks": (n, 2), **filters}),
                f"fixed_{name}": Column(numbers(n, 2), {"chunks": (4, 2), **filters}),
                f"extensible_{name}": Column(
                    numbers(n, 2), {"chunks": (4, 2), "maxshape": (None, 2), **filters}
                ),
                f"btree_{name}": Column(
                    numbers(n, 2), {"chunks": (4, 1), "maxshape": (None, None), **filters}
                ),
            }
        group = table(file, "t", kinds)
        early = dcpl(chunks=(4,))
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        raw_type(group, "implicit", h5py.h5t.IEEE_F64LE, numbers(n), dcpl=early)


@case
def many_chunks(path: Path) -> None:
    """Indices of several levels."""
    n = 10_000
    columns = {
        "plain": {"chunks": (2,)},
        "gzip": {"chunks": (16,), **GZIP},
        "grows": {"chunks": (8,), "maxshape": (None,)},
    }
    with h5py.File(path, "w") as file:
        table(file, "t", {k: Column(np.arange(n), v) for k, v in columns.items()})
    with h5py.File(path, "a", libver="latest") as file:
        table(file, "latest", {k: Column(np.arange(n), v) for k, v in columns.items()})


FILTERS: dict[str, dict[str, Any]] = {
    "gzip1": {"compression": 1},
    "gzip9": {"compression": 9},
    "shuffle": {"shuffle": True},
    "shuffle_gzip": GZIP,
    "fletcher32": {"fletcher32": True},
    "gzip_fletcher32": {"compression": "gzip", "fletcher32": True},
    "shuffle_gzip_fletcher32": {**GZIP, "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "shuffle_lzf": {"compression": "lzf", "shuffle": True},
    "scaleoffset": {"scaleoffset": 4},
}
if h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
    FILTERS["szip_nn"] = {"compression": "szip", "compression_opts": ("nn", 8)}
    FILTERS["szip_ec"] = {"compression": "szip", "compression_opts": ("ec", 16)}


@case
def filters(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, options in FILTERS.items():
            columns = {
                "f8": Column(np.round(numbers(64, 3), 2), {"chunks": (10, 2), **options}),
                "f4": Column(numbers(64, dtype="f4"), {"chunks": (16,), **options}),
                "i2_be": Column(numbers(64, dtype=">i2"), {"chunks": (10,), **options}),
                "u1": Column(numbers(64, dtype="u1"), {"chunks": (64,), **options}),
                "noise": Column(np.random.default_rng(0).integers(0, 2**63, 64), {"chunks": (7,), **options}),
            }
            if name == "scaleoffset":
                columns = {
                    "f8": columns["f8"],
                    "i4": Column(numbers(64, dtype="i4"), {"chunks": (10,), "scaleoffset": 0}),
                }
                columns["f8"].data = np.nan_to_num(columns["f8"].data)
            if name.startswith("szip"):
                columns.pop("u1")
                for column in columns.values():
                    column.options["chunks"] = (32, 3)[: np.ndim(column.data)]
            columns["ragged"] = Ragged(
                [list(range(k % 5)) for k in range(64)], "i4", options={"chunks": (32,), **options}
            )
            table(file, name, columns)


@case
def nbit(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"i": np.arange(64)})
        narrow = h5py.h5t.STD_I32LE.copy()
        narrow.set_precision(20)
        raw_type(group, "odd_precision", narrow, np.arange(-32, 32, dtype="i4"))
        plist = dcpl(chunks=(10,))
        plist.set_filter(h5py.h5z.FILTER_NBIT, h5py.h5z.FLAG_OPTIONAL)
        raw_type(group, "nbit", narrow, np.arange(-32, 32, dtype="i4"), dcpl=plist)


@case
def filter_orders(path: Path) -> None:
    """Pipelines in an order that h5py does not make, and filters that are applied twice."""
    data = np.arange(40, dtype="<i4")
    orders = {
        "checksum_first": "fz",
        "zip_then_shuffle": "zs",
        "twice": "zz",
        "checksums": "fszf",
        "shuffled_twice": "ss",
    }
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"i": data})
        for name, order in orders.items():
            plist = dcpl(chunks=(15,))
            for letter in order:
                {"f": plist.set_fletcher32, "s": plist.set_shuffle, "z": lambda p=plist: p.set_deflate(4)}[
                    letter
                ]()
            raw_type(group, name, h5py.h5t.STD_I32LE, data, dcpl=plist)


@case
def skipped_filters(path: Path) -> None:
    """Chunks that say of themselves that a filter was not applied to them."""
    data = np.arange(40, dtype="<i4")
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"i": Column(data, {"chunks": (10,), **GZIP})})
        group["i"].id.write_direct_chunk((10,), data[10:20].tobytes(), filter_mask=0b11)
        group["i"].id.write_direct_chunk((30,), data[30:].tobytes(), filter_mask=0b11)


def plugin_filters() -> dict[str, dict[str, Any]]:
    if hdf5plugin is None:
        return {}
    p = hdf5plugin
    found = {
        f"blosc_{name}": dict(p.Blosc(cname=name)) for name in ("blosclz", "lz4", "lz4hc", "zlib", "zstd")
    }
    found |= {
        "blosc_bitshuffle": dict(p.Blosc(cname="zstd", shuffle=p.Blosc.BITSHUFFLE)),
        "blosc2": dict(p.Blosc2()),
    }
    found |= {
        "blosc_noshuffle": dict(p.Blosc(shuffle=p.Blosc.NOSHUFFLE)),
        "zstd": dict(p.Zstd()),
        "lz4": dict(p.LZ4()),
    }
    found |= {
        "bitshuffle": dict(p.Bitshuffle()),
        "shuffle_zstd": {"shuffle": True, **p.Zstd()},
        "bzip2": dict(p.BZip2()),
    }
    return found


@case
def plugins(path: Path) -> None:
    """Filters of hdf5plugin that numcodecs can read, and some that only the plugin can."""
    with h5py.File(path, "w") as file:
        table(file, "none", {"a": np.arange(3)})
        for name, options in plugin_filters().items():
            columns: dict[str, Any] = {
                "f8": Column(numbers(2000, 3), {"chunks": (600, 3), **options}),
                "u2": Column(numbers(2000, dtype="u2"), {"chunks": (2000,), **options}),
            }
            columns["ragged"] = Ragged(
                [[float(k)] * (k % 3) for k in range(2000)], options={"chunks": (500,), **options}
            )
            table(file, name, columns)


@case
def fill_values(path: Path) -> None:
    """Space that nobody wrote reads as the fill value."""
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"a": np.arange(50)})
        for name, dtype, fill in (
            ("i", "i4", -7),
            ("f", "f8", np.nan),
            ("be", ">i8", 300),
            ("zero", "u2", None),
        ):
            for kind, options in (
                ("chunked", {"chunks": (8,)}),
                ("gzip", {"chunks": (8,), **GZIP}),
                ("contiguous", {}),
            ):
                dataset = group.create_dataset(f"{kind}_{name}", (50,), dtype, fillvalue=fill, **options)
                if kind != "contiguous":
                    dataset[10:13] = [1, 2, 3]
                    dataset[49] = 4
        group.create_dataset("two_d", (50, 3), "f4", fillvalue=2.5, chunks=(7, 2))[20:22, 1] = 9
        group.create_dataset("text", (50,), VLEN_TEXT, chunks=(8,))[3] = "written"
        group.create_dataset("contiguous_text", (50,), VLEN_TEXT)
        group.create_dataset("filled_text", (50,), "S4", fillvalue=b"fill", chunks=(8,))[3] = b"ab"
        grown = group.create_dataset("grown", data=np.arange(30), maxshape=(None,), chunks=(8,), fillvalue=-1)
        grown.resize((13,))
        grown.resize((50,))
        shrunk = group.create_dataset("shrunk", data=np.arange(90), maxshape=(None,), chunks=(20,), **GZIP)
        shrunk.resize((50,))


@case
def external_storage(path: Path) -> None:
    """Datasets whose bytes are elsewhere: virtual ones, here over the same file."""
    with h5py.File(path, "w") as file:
        file["source"] = np.arange(12.0)
        layout = h5py.VirtualLayout((20,), "f8")
        layout[4:16] = h5py.VirtualSource(".", "source", (12,))
        group = table(file, "t", {"a": np.arange(20)})
        group.create_virtual_dataset("virtual", layout, fillvalue=-1.0)


# --- data types ------------------------------------------------------------------------------------------------------


@case
def numeric(path: Path) -> None:
    with h5py.File(path, "w") as file:
        columns: dict[str, Any] = {}
        for kind in "iuf":
            for size in (2, 4, 8) if kind == "f" else (1, 2, 4, 8):
                for order in "<>":
                    if kind == "f":
                        data = np.array([0, -1.5, np.nan, np.inf, -np.inf, 6e-5], f"{order}f{size}")
                    else:
                        limits = np.iinfo(f"{kind}{size}")
                        data = np.array([0, 1, limits.min, limits.max, 5, 7], f"{order}{kind}{size}")
                    end = "le" if order == "<" else "be"
                    columns[f"{kind}{size}_{end}"] = data
                    columns[f"{kind}{size}_{end}_gzip"] = Column(data, {"chunks": (4,), **GZIP})
                    columns[f"{kind}{size}_{end}_2d"] = np.stack([data, data], axis=1)
        columns["bool"] = np.array([True, False, True, True, False, False])
        columns["bool_2d"] = np.array([[True, False]] * 6)
        columns["bool_gzip"] = Column(np.array([True, False] * 3), {"chunks": (4,), **GZIP})
        columns["bool_ragged"] = Ragged([[True], [], [False, True], [], [], [True]], "?")
        for ragged in (">i2", ">f8", "u8", "f4"):
            columns[f"ragged_{ragged.replace('>', 'be_')}"] = Ragged(
                [[1, 2], [], [3], [], [4, 5, 6], []], ragged
            )
        table(file, "t", columns)


@case
def enums(path: Path) -> None:
    def enum(members: dict[str, int], basetype: str = "i1") -> np.dtype:
        return h5py.enum_dtype(members, basetype=basetype)

    with h5py.File(path, "w") as file:
        columns: dict[str, Any] = {
            "plain": (enum({"left": 0, "right": 1}), [0, 1, 1, 0]),
            "unordered": (enum({"b": 7, "a": 3, "c": -5}), [7, 3, -5, 3]),
            "wide": (enum({"one": 1, "many": 60_000}, "u2"), [60_000, 1, 1, 60_000]),
            "big_endian": (enum({"one": 1, "many": 60_000}, ">i4"), [60_000, 1, 1, 60_000]),
            "like_bool": (enum({"no": 0, "yes": 1}), [0, 1, 0, 1]),
            "unicode": (enum({"links": 0, "größer": 1}), [0, 1, 0, 1]),
        }
        columns = {k: Column(np.array(v, dtype), {"dtype": dtype}) for k, (dtype, v) in columns.items()}
        columns["ragged"] = Ragged([[0], [1, 0], [], [1]], enum({"x": 0, "y": 1}))
        table(file, "t", columns)


LONG_TEXTS = ["", "a", "x" * 300, "ü" * 3000, "z" * 100_000, "last"]


@case
def texts(path: Path) -> None:
    plain = ["a", "", "with space ", "naïve", "日本語", "🐭 mouse"]
    with h5py.File(path, "w") as file:
        vlen = np.array(plain, "O")
        invalid = [b"ok", b"\xff\xfe", b"caf\xe9", b"\xe6\x97", b"", b"end"]
        columns: dict[str, Any] = {
            "vlen": vlen,
            "vlen_ascii": Column(
                np.array(["a", "b", "", "c", "d", "e"], "O"), {"dtype": h5py.string_dtype("ascii")}
            ),
            "vlen_chunked": Column(vlen, {"chunks": (4,), "dtype": VLEN_TEXT}),
            "vlen_gzip": Column(vlen, {"chunks": (4,), "dtype": VLEN_TEXT, **GZIP}),
            "vlen_long": np.array(LONG_TEXTS, "O"),
            "vlen_invalid": np.array(invalid, "O"),
            "vlen_2d": Column(np.array([[a, a * 2] for a in plain], "O"), {"dtype": VLEN_TEXT}),
            "vlen_ragged": Ragged([["a", "b"], [], ["日本"], [""], ["c", "d", "e"], []], VLEN_TEXT),
            "vlen_same": np.array(["the same text"] * 6, "O"),
            "fixed": np.array([text.encode() for text in plain]),
            "fixed_gzip": Column(np.array([text.encode() for text in plain]), {"chunks": (4,), **GZIP}),
            "fixed_utf8": np.array([t.encode() for t in plain]).astype(h5py.string_dtype("utf-8", 12)),
            "fixed_invalid": np.array(invalid),
            "fixed_inner_nul": np.array([b"a\0b", b"\0b", b"ab", b"abc", b"", b"a"]),
            "fixed_2d": np.array([[b"ab", b"c"]] * 6),
            "fixed_ragged": Ragged([[b"ab"], [], [b"c", b"de"], [], [b"f"], [b""]], "S2"),
            "all_empty": np.array([""] * 6, "O"),
        }
        group = table(file, "t", columns)
        padded = np.array([b"a     ", b"ab    ", b" abc  ", b"      ", b"abcdef", b"a b   "])
        for name, padding in (
            ("space", h5py.h5t.STR_SPACEPAD),
            ("term", h5py.h5t.STR_NULLTERM),
            ("null", h5py.h5t.STR_NULLPAD),
        ):
            tid = h5py.h5t.C_S1.copy()
            tid.set_size(6)
            tid.set_strpad(padding)
            space = h5py.h5s.create_simple((6,))
            dataset = h5py.h5d.create(group.id, f"padded_{name}".encode(), tid, space)
            dataset.write(
                h5py.h5s.ALL,
                h5py.h5s.ALL,
                np.char.rstrip(padded, b" ") if name == "space" else padded,
                mtype=tid,
            )


@case
def long_text_column(path: Path) -> None:
    """More text than one heap collection holds, written in an order of its own."""
    n = 5000
    words = [f"unit {k} " + "x" * (k * 37 % 90) for k in range(n)]
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"words": np.array(words, "O")})
        backwards = group.create_dataset("backwards", (n,), VLEN_TEXT, chunks=(256,))
        for start in reversed(range(0, n, 500)):
            backwards[start : start + 500] = words[start : start + 500]
        overwritten = group.create_dataset("overwritten", data=words, dtype=VLEN_TEXT)
        overwritten[:] = words[::-1]


@case
def vlen_numbers(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"a": np.arange(4)})
        for name, dtype, options in (
            ("f8", "f8", {}), ("i2", "i2", {}), ("be", ">i4", {}), ("chunked", "u8", {"chunks": (3,)}),
            ("gzip", "f4", {"chunks": (3,), **GZIP}), ("bool", "?", {}),
        ):  # fmt: skip
            dataset = group.create_dataset(name, (4,), h5py.vlen_dtype(np.dtype(dtype)), **options)
            for row, value in enumerate(([1, 0], [], list(range(100)), None)):
                if value is not None:
                    dataset[row] = np.array(value, dtype)


@case
def complex_numbers(path: Path) -> None:
    with h5py.File(path, "w") as file:
        data = np.array([1 + 2j, -3j, complex(np.nan, 1)])
        columns = {
            "c16": data,
            "c8": data.astype("c8"),
            "c16_2d": np.stack([data, data], 1),
            "ragged": Ragged([[1j], [], [2, 3]], "c16"),
        }
        table(file, "t", columns)


@case
def compounds(path: Path) -> None:
    with h5py.File(path, "w") as file:
        target = series(file, "acquisition/raw", np.arange(5.0), start=0)
        pixel = np.dtype([("x", "u4"), ("y", "u4"), ("weight", "f4")])
        reference = np.dtype([("idx_start", "i4"), ("count", "i4"), ("timeseries", h5py.ref_dtype)])
        odd = np.dtype(
            [
                ("flag", "?"),
                ("name", "S4"),
                ("text", VLEN_TEXT),
                ("xyz", "f8", (3,)),
                ("inner", pixel),
                ("be", ">i2"),
            ]
        )
        refs = np.array(
            [(0, 2, target.ref), (1, 3, file["acquisition"].ref), (-1, -1, h5py.Reference())], reference
        )
        odds = np.array(
            [(True, b"ab", "ünï", (1, 2, 3), (1, 2, 0.5), 7), (False, b"", "", (0, 0, 0), (0, 0, 0), -7)] * 2,
            odd,
        )
        table(
            file,
            "t",
            {
                "pixel_mask": Ragged([[(1, 2, 0.5), (3, 4, 1.0)], [], [(5, 6, 0.25)]], pixel),
                "pixels": np.array([(1, 2, 0.5), (3, 4, 1.0), (5, 6, np.nan)], pixel),
                "pixels_gzip": Column(np.array([(1, 2, 0.5)] * 3, pixel), {"chunks": (2,), **GZIP}),
                "timeseries": Ragged([[tuple(refs[0]), tuple(refs[1])], [], [tuple(refs[2])]], reference),
                "one_reference": refs,
                "odd": odds[:3],
            },
        )


@case
def references(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name in ("shank0", "shank 1", "größe/inner"):
            file.create_group(f"general/extracellular_ephys/{name}")
        home = file["general/extracellular_ephys"]
        found = [home["shank0"].ref, home["shank 1"].ref, h5py.Reference(), home["größe/inner"].ref]
        columns = {
            "group": Column(np.array(found, "O"), {"dtype": h5py.ref_dtype}),
            "group_gzip": Column(np.array(found, "O"), {"dtype": h5py.ref_dtype, "chunks": (3,), **GZIP}),
            "ragged": Ragged([[found[0]], [], [found[1], found[2]], []], h5py.ref_dtype),
            "same": Column(np.array([found[0]] * 4, "O"), {"dtype": h5py.ref_dtype}),
            "region": Column(np.array([3, 2, 1, 0], "i4"), attrs={"neurodata_type": "DynamicTableRegion"}),
            "regions": Ragged([[0, 1], [], [2], [3]], "u2"),
        }
        group = table(file, "t", columns)
        group["regions"].attrs["neurodata_type"] = "DynamicTableRegion"
        group["regions"].attrs["table"] = group.ref


@case
def unsupported_types(path: Path) -> None:
    """Columns that only raise an error when they are selected."""
    with h5py.File(path, "w") as file:
        file["target"] = np.arange(10)
        group = table(file, "t", {"fine": np.arange(3), "text": ["a", "b", "c"]})
        raw_type(group, "opaque", h5py.h5t.create(h5py.h5t.OPAQUE, 4), np.array([b"abcd"] * 3, "V4"))
        group["datetime"] = np.array([1, 2, 3], "M8[s]").astype(h5py.opaque_dtype(np.dtype("M8[s]")))
        raw_type(group, "bitfield", h5py.h5t.STD_B8LE, np.array([1, 2, 3], "u1"))
        if np.dtype("longdouble").itemsize > 8:
            group["longdouble"] = np.array([1, 2, 3], "longdouble")
        regions = group.create_dataset("region_reference", (3,), h5py.regionref_dtype)
        regions[0] = file["target"].regionref[2:4]


@case
def array_types(path: Path) -> None:
    """Rows that are one array each by their data type, not by the shape of the dataset."""
    with h5py.File(path, "w") as file:
        for name, dtype in (("i4", "i4"), ("be", ">f8")):
            group = table(file, f"t_{name}", {"a": np.arange(4)})
            tid = h5py.h5t.array_create(h5py.h5t.py_create(np.dtype(dtype)), (2, 3))
            space = h5py.h5s.create_simple((4,))
            dataset = h5py.h5d.create(group.id, b"arrays", tid, space)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(24).reshape(4, 2, 3).astype(dtype), mtype=tid)


# --- tables ----------------------------------------------------------------------------------------------------------


@case
def raggedness(path: Path) -> None:
    """What is an index, and what only looks like one."""
    rows = [[1.0, 2.0], [], [3.0], [4.0, 5.0, 6.0]]
    deep = [[[1], [2, 3]], [], [[], [4]], [[5]]]
    with h5py.File(path, "w") as file:
        for dtype in ("u1", "u2", "u4", "u8", "i4", "i8", ">u4"):
            table(file, f"index_{dtype.replace('>', 'be_')}", {"x": Ragged(rows, index_dtype=dtype)})
        zipped = {"chunks": (2,), **GZIP}
        table(
            file, "zipped_index", {"x": Ragged(rows, options=zipped, index_options=zipped, index_dtype="u8")}
        )
        checked = {"chunks": (3,), "fletcher32": True}
        table(file, "deep_zipped_index", {"x": Ragged(deep, "i2", 2, options=zipped, index_options=checked)})
        table(file, "array_rows", {"obs_intervals": Ragged([[(0, 1), (2, 3)], [], [(4, 5)], []], inner=(2,))})
        table(
            file,
            "deep",
            {"x": Ragged(deep, "i4", 2), "y": Ragged(deep, "f4", 2, "u1", options={"chunks": (2,), **GZIP})},
        )
        table(file, "triple", {"x": Ragged([[[[1], []], []], [], [[[2, 3]]], [[]]], "i8", 3)})
        table(file, "no_attributes", {"x": Ragged(rows, vector_index=False, target=False)}, kind=None)
        table(file, "type_only", {"x": Ragged(rows, target=False)})
        table(file, "target_only", {"x": Ragged(rows, vector_index=False)})
        table(file, "unlisted", {"x": Ragged(rows), "n": np.arange(4)}, colnames=np.array(["n"], VLEN_TEXT))
        table(file, "all_empty", {"x": Ragged([[], [], []])})
        # genuine columns that end in _index
        table(file, "block_index", {"block_index": np.array([0, 0, 1, 2])})
        table(
            file,
            "block_and_block_index",
            {"block": np.array([5, 6, 7, 8]), "block_index": np.array([0, 0, 1, 2])},
        )
        table(file, "text_index", {"name": ["a", "b"], "name_index": ["x", "y"]})
        typed = Column(np.array([0, 0, 1, 2]), attrs={"neurodata_type": "VectorData"})
        table(
            file,
            "typed_column",
            {"block": np.arange(4), "block_index": typed},
            colnames=np.array(["block"], VLEN_TEXT),
        )
        # an index whose target has another name
        group = table(file, "renamed", {"x": np.arange(6.0)}, rows=3)
        group["elsewhere"] = np.array([1, 1, 6], "u1")
        group["elsewhere"].attrs.update({"neurodata_type": "VectorIndex", "target": group["x"].ref})
        # the target is better evidence than the name
        group = table(file, "crossed", {"a": np.arange(6.0), "b": np.arange(6.0) + 10}, rows=2)
        for name, ends, target in (("a_index", [1, 6], "b"), ("b_index", [4, 6], "a")):
            group[name] = np.array(ends, "u1")
            group[name].attrs.update({"neurodata_type": "VectorIndex", "target": group[target].ref})


@case
def colnames(path: Path) -> None:
    """`colnames` in every form that it takes in the wild."""
    columns = {"a": np.arange(3), "b": np.arange(3.0)}
    with h5py.File(path, "w") as file:
        forms: dict[str, Any] = {
            "plain_string": "a", "bytes_array": np.array([b"a", b"b"]), "object_array": np.array(["b", "a"], VLEN_TEXT),
            "padded": np.array([b"a   ", b"b   "]), "padded_string": "a  ", "empty": np.zeros(0, "S1"),
            "empty_string": "", "numpy_bytes": np.bytes_(b"a"), "null": h5py.Empty("S1"),
        }  # fmt: skip
        for name, value in forms.items():
            table(file, name, columns, colnames=value)
        table(file, "absent", columns, colnames=None)
        table(file, "untyped", columns, kind=None)
        table(file, "listed_but_absent", columns, colnames=np.array(["a", "gone", "b"], VLEN_TEXT))
        table(
            file,
            "with_index",
            {"x": Ragged([[1.0], [], [2.0]])},
            colnames=np.array(["x", "x_index"], VLEN_TEXT),
        )
        table(file, "without_id", columns, rows=-1)
        table(file, "ragged_without_id", {"x": Ragged([[1.0, 2.0], [3.0]])}, rows=-1)
        table(file, "nothing", {}, rows=-1)
        table(file, "only_id", {}, rows=4)
        table(file, "string_ids", {"a": np.arange(2)}, rows=-1)["id"] = np.array(["x", "y"], VLEN_TEXT)


@case
def unequal_lengths(path: Path) -> None:
    """Listed columns are padded or clipped to the table's rows; others only appear when they fit."""
    with h5py.File(path, "w") as file:
        columns = {
            "fits": np.arange(5),
            "short": np.arange(3.0),
            "long": np.arange(9),
            "text_short": ["a", "b"],
            "text_long": list("abcdefgh"),
            "arrays_short": numbers(2, 3),
            "ragged_short": Ragged([[1.0], [2.0, 3.0]]),
            "ragged_long": Ragged([[float(k)] * k for k in range(8)]),
            "none": np.zeros(0),
            "flag_short": np.array([True]),
        }
        group = table(file, "t", columns, rows=5)
        group["unlisted_fits"] = np.arange(5)
        group["unlisted_short"] = np.arange(4)
        group["unlisted_long"] = np.arange(6)
        group["scalar"] = 5
        group.create_group("a_group")
        table(
            file, "longest_wins", {"a": np.arange(2), "b": np.arange(4.0), "c": Ragged([[1.0]] * 3)}, rows=-1
        )


@case
def empty_tables(path: Path) -> None:
    with h5py.File(path, "w") as file:
        columns = {
            "i": np.zeros(0, "i4"),
            "f": Column(np.zeros(0), {"chunks": (10,), "maxshape": (None,), **GZIP}),
            "text": Column(np.zeros(0, "O"), {"dtype": VLEN_TEXT}),
            "arrays": np.zeros((0, 3, 2)),
            "ragged": Ragged([]),
            "deep": Ragged([], depth=2),
            "flag": np.zeros(0, "?"),
        }
        table(file, "t", columns)
        table(file, "one_row", {"a": np.array([1]), "x": Ragged([[]]), "y": Ragged([[1.0]])})


@case
def odd_names(path: Path) -> None:
    """Names that somebody has to quote."""
    names = [
        "with space",
        "ünï",
        "a.b",
        "per%20cent",
        "#hash",
        "quote'\"",
        "q?uery",
        "[0]",
        "SELECT",
        "back\\slash",
        "a:b",
    ]
    with h5py.File(path, "w") as file:
        table(file, "intervals/a table (1)", {name: np.arange(3) + i for i, name in enumerate(names)})
        for name in names:
            table(file, f"odd/{name}", {"a": np.arange(2)})
        series(file, "acquisition/my series 100%", np.arange(3.0), np.arange(3.0))


@case
def aligned(path: Path) -> None:
    """An AlignedDynamicTable: one struct for each category."""
    with h5py.File(path, "w") as file:
        columns = {"own": np.arange(3), "ragged_own": Ragged([[1], [], [2, 3]], "i4")}
        group = table(file, "general/recordings", columns, kind="AlignedDynamicTable")
        table(group, "electrodes", {"resistance": np.arange(3.0), "label": ["a", "b", "c"]})
        table(group, "responses", {"spikes": Ragged([[1.0], [], [2.0, 3.0]]), "shape": numbers(3, 2)})
        group.attrs["categories"] = np.array(["electrodes", "responses"], VLEN_TEXT)


@case
def time_series(path: Path) -> None:
    with h5py.File(path, "w") as file:
        acquisition = file.create_group("acquisition")
        series(acquisition, "stamped", numbers(20), np.arange(20.0) / 3)
        series(acquisition, "rated", numbers(20, dtype="i2"), start=1.5, rate=30.0)
        series(
            acquisition, "rate_be", numbers(7, 4), start=2, rate=np.array(3, ">f4"), kind="ElectricalSeries"
        )
        series(acquisition, "multi", numbers(20, 3), np.arange(20.0), chunks=(6, 2), **GZIP)
        series(acquisition, "images", numbers(5, 4, 3, dtype="u1"), start=0, rate=10.0, kind="ImageSeries")
        series(acquisition, "short_stamps", numbers(5), np.arange(3.0))
        series(acquisition, "long_stamps", numbers(5, 2), np.arange(9.0))
        series(acquisition, "text", np.array(["a", "b"], VLEN_TEXT), np.arange(2.0), kind="AnnotationSeries")
        series(acquisition, "no_data", None, np.arange(4.0))
        series(acquisition, "nothing_yet", np.zeros((0, 2)), np.zeros(0))
        files = series(
            acquisition, "external_file", np.zeros((0, 0, 0), "u1"), np.arange(3.0), kind="ImageSeries"
        )
        files.create_dataset("external_file", data=["video.mp4"], dtype=VLEN_TEXT)
        siblings = series(acquisition, "siblings", numbers(6, 2), np.arange(6.0))
        siblings["control"] = np.arange(3, dtype="u1")
        siblings["feature_units"] = np.array(["cm"] * 2, VLEN_TEXT)
        linked = series(acquisition, "linked", numbers(20))
        linked["timestamps"] = h5py.SoftLink("/acquisition/stamped/timestamps")
        linked = series(acquisition, "linked_data", None, np.arange(20.0))
        linked["data"] = h5py.SoftLink("/acquisition/stamped/data")
        series(acquisition, "with_id", np.arange(4.0), start=0, kind="TimeSeriesWithID")["id"] = 4
        series(
            file, "processing/behavior/Position/spatial", numbers(9, 2), np.arange(9.0), kind="SpatialSeries"
        )


@case
def metadata(path: Path) -> None:
    with h5py.File(path, "w") as file:
        nwb_root(file)
        general = file["general"]
        general["lab"] = np.bytes_("fixed text")
        general["count"] = 7
        general["empty"] = h5py.Empty("f8")
        general["matrix"] = np.arange(6).reshape(2, 3)
        general.create_dataset("no_keywords", data=np.zeros(0, "O"), dtype=VLEN_TEXT)
        general.create_group("devices/probe").attrs["neurodata_type"] = "Device"
        general["subject/weight"] = 25.5
        general["subject/alive"] = np.bool_(True)


@case
def links(path: Path) -> None:
    """Soft, hard and external links, followed; broken and cyclic ones, left out."""
    other, third = path.with_name(path.stem + "_other.nwb"), path.with_name(path.stem + "_third.nwb")
    with h5py.File(third, "w", libver="latest") as file:
        file.create_dataset("far/z", data=np.arange(3) * 100, chunks=(2,), **GZIP)
        file["far/words"] = np.array(["uno", "dos", "tres"], VLEN_TEXT)
    with h5py.File(other, "w", userblock_size=512) as file:  # its addresses are shifted
        file["onward"] = h5py.ExternalLink(third.name, "/far/z")
        file["onward_home"] = h5py.ExternalLink(third.name, "/far")
        table(file, "t", {"far": np.arange(3) + 10, "text": ["x", "y", "z"], "r": Ragged([[1.0], [], [2.0]])})
        series(file, "s", np.arange(3.0), start=0)
    with h5py.File(path, "w") as file:
        group = table(file, "intervals/trials", {"a": np.arange(3), "text": ["a", "b", "c"]})
        group["soft"] = h5py.SoftLink("/intervals/trials/a")
        group["relative"] = h5py.SoftLink("a")
        group["hard"] = group["a"]
        group["external"] = h5py.ExternalLink(other.name, "/t/far")
        group["external_text"] = h5py.ExternalLink(other.name, "/t/text")
        group["external_onward"] = h5py.ExternalLink(other.name, "/onward")
        group["external_through"] = h5py.ExternalLink(other.name, "/onward_home/words")
        group["external_ragged"] = h5py.ExternalLink(other.name, "/t/r")
        group["broken_soft"] = h5py.SoftLink("/nowhere")
        group["broken_external"] = h5py.ExternalLink("gone.nwb", "/t/far")
        group["broken_inside"] = h5py.ExternalLink(other.name, "/t/nothing")
        group["cycle_a"] = h5py.SoftLink("/intervals/trials/cycle_b")
        group["cycle_b"] = h5py.SoftLink("/intervals/trials/cycle_a")
        group["self"] = group
        file["intervals/parent"] = file["intervals"]
        file["intervals/root"] = h5py.SoftLink("/")
        file["linked_table"] = h5py.SoftLink("/intervals/trials")
        file["linked_home"] = h5py.SoftLink("/intervals")
        file["external_table"] = h5py.ExternalLink(other.name, "/t")
        file["external_series"] = h5py.ExternalLink(other.name, "/s")


# --- files -----------------------------------------------------------------------------------------------------------


def _mixed(file: h5py.File) -> None:
    nwb_root(file)
    columns = {
        "i": np.arange(40), "f": Column(numbers(40), {"chunks": (16,), **GZIP}), "text": [f"row {k}" for k in range(40)],
        "arrays": numbers(40, 2), "ragged": Ragged([[float(k)] * (k % 3) for k in range(40)]), "flag": np.arange(40) % 3 == 0,
    }  # fmt: skip
    table(file, "units", columns, kind="Units")
    series(file, "acquisition/series", numbers(30, 2), start=0.5, rate=4)


@case
def libver_earliest(path: Path) -> None:
    with h5py.File(path, "w", libver="earliest") as file:
        _mixed(file)


@case
def libver_v108(path: Path) -> None:
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        _mixed(file)


@case
def libver_latest(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        _mixed(file)


@case
def user_block(path: Path) -> None:
    """The HDF5 file starts after 1,024 bytes of something else: every address is shifted."""
    with h5py.File(path, "w", userblock_size=1024) as file:
        _mixed(file)
    with path.open("r+b") as raw:
        raw.write(b"% a text in front of the file\n")


@case
def track_order(path: Path) -> None:
    with h5py.File(path, "w", track_order=True) as file:
        _mixed(file)
        group = file.create_group("reversed", track_order=True)
        table(group, "t", {name: np.arange(2) for name in reversed("abcdefghijklmnop")})


@case
def paged(path: Path) -> None:
    with h5py.File(path, "w", fs_strategy="page", fs_page_size=4096) as file:
        _mixed(file)


@case
def many_columns(path: Path) -> None:
    """Dense link storage, a `colnames` of many kilobytes, and dense attributes."""
    for libver in ("earliest", "latest"):
        with h5py.File(path, "w" if libver == "earliest" else "a", libver=libver) as file:
            group = table(file, libver, {f"column_{k:04}": np.arange(4) + k for k in range(600)})
            for k in range(30):
                group["column_0000"].attrs[f"attribute_{k}"] = "x" * 200


@case
def deep_groups(path: Path) -> None:
    with h5py.File(path, "w") as file:
        table(file, "/".join(f"level{k}" for k in range(40)), {"a": np.arange(3)})


@pynwb_case
def session(path: Path) -> None:
    """Trials, units, electrodes, a plane segmentation, a subject and time series."""
    from hdmf.common import DynamicTable, DynamicTableRegion, VectorData, VectorIndex
    from pynwb import NWBHDF5IO, H5DataIO, NWBFile, TimeSeries
    from pynwb.base import Images
    from pynwb.behavior import Position, SpatialSeries
    from pynwb.ecephys import LFP, ElectricalSeries
    from pynwb.epoch import TimeIntervals
    from pynwb.file import Subject
    from pynwb.image import GrayscaleImage, ImageSeries
    from pynwb.misc import AnnotationSeries
    from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel, RoiResponseSeries

    rng = np.random.default_rng(0)
    start = dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc)
    nwb = NWBFile(
        "a session", "id-1", start, session_id="s1", keywords=["production", "ünï"], experimenter=["A, B"]
    )
    nwb.subject = Subject(subject_id="m1", age="P90D", sex="F", species="Mus musculus", date_of_birth=start)

    stamped = TimeSeries("stamped", data=rng.normal(size=50), unit="V", timestamps=np.arange(50.0))
    nwb.add_acquisition(stamped)
    nwb.add_acquisition(TimeSeries("linked", data=rng.normal(size=50), unit="V", timestamps=stamped))
    nwb.add_acquisition(TimeSeries("linked_data", data=stamped, unit="V", starting_time=0.0, rate=2.0))
    nwb.add_acquisition(
        TimeSeries("rated", data=rng.integers(0, 9, (30, 4)), unit="V", starting_time=3.0, rate=30.0)
    )
    nwb.add_acquisition(TimeSeries("zipped", data=H5DataIO(rng.normal(size=(300, 2)), compression="gzip", chunks=(64, 2)),
                                   unit="V", timestamps=H5DataIO(np.arange(300.0), compression="gzip")))  # fmt: skip
    nwb.add_acquisition(AnnotationSeries("notes", data=["a", "bé"], timestamps=[1.0, 2.0]))
    nwb.add_acquisition(
        ImageSeries(
            "video",
            external_file=["v.mp4"],
            format="external",
            starting_frame=[0],
            timestamps=[1.0, 2.0],
            unit="n.a.",
        )
    )
    nwb.add_stimulus(TimeSeries("stimulus", data=np.arange(5), unit="V", rate=1.0))

    device = nwb.create_device("probe")
    shanks = [nwb.create_electrode_group(f"shank{k}", "d", "CA1", device) for k in range(2)]
    nwb.add_electrode_column("label", "text")
    for k in range(8):
        nwb.add_electrode(location="CA1", group=shanks[k % 2], x=float(k), y=1.0, z=2.0, label=f"e{k}")
    region = nwb.create_electrode_table_region([1, 3], "two")
    lfp = ElectricalSeries("lfp", data=rng.normal(size=(20, 2)), electrodes=region, rate=100.0)
    nwb.create_processing_module("ecephys", "d").add(LFP(electrical_series=lfp))

    for name, about in (("go", "flag"), ("kind", "text"), ("count", "number")):
        nwb.add_trial_column(name, about)
    nwb.add_trial_column("licks", "ragged", index=True)
    nwb.add_trial_column("deep", "doubly ragged", index=2)
    for k in range(12):
        nwb.add_trial(start_time=float(k), stop_time=k + 0.5, go=bool(k % 2), kind=["a", "", "größer"][k % 3], count=k,
                      licks=[k + 0.1] * (k % 4), deep=[[float(i)] * i for i in range(k % 3)], tags=["t"] * (1 + k % 2),
                      timeseries=[stamped])  # fmt: skip

    nwb.add_unit_column("quality", "text")
    for k in range(10):
        nwb.add_unit(spike_times=np.sort(rng.uniform(0, 100, k * 3)), obs_intervals=[[0.0, 10.0], [20.0, 30.0 + k]][: 1 + k % 2],
                     quality="good" if k % 2 else "noise", electrodes=[k % 8, 0], electrode_group=shanks[k % 2],
                     waveform_mean=rng.normal(size=(6, 2)), waveforms=rng.normal(size=(1 + k % 3, 2, 4)).tolist())  # fmt: skip

    epochs = TimeIntervals("custom intervals", description="d")
    epochs.add_row(start_time=0.0, stop_time=1.0)
    nwb.add_time_intervals(epochs)
    nwb.add_time_intervals(TimeIntervals("empty", description="no rows"))

    channel = OpticalChannel("channel", "d", 500.0)
    plane = nwb.create_imaging_plane(name="plane", optical_channel=channel, description="d", device=device, excitation_lambda=600.0,
                                     indicator="GFP", location="V1")  # fmt: skip
    segmentation = ImageSegmentation()
    ophys = nwb.create_processing_module("ophys", "d")
    ophys.add(segmentation)
    pixels = segmentation.create_plane_segmentation(name="pixels", description="d", imaging_plane=plane)
    images = segmentation.create_plane_segmentation(name="images", description="d", imaging_plane=plane)
    for k in range(4):
        pixels.add_roi(pixel_mask=[(i, i + 1, 0.5) for i in range(k + 1)])
        images.add_roi(image_mask=rng.uniform(size=(5, 6)))
    rois = pixels.create_roi_table_region(region=[0, 2], description="d")
    ophys.add(
        Fluorescence(
            roi_response_series=RoiResponseSeries(
                "roi", data=rng.normal(size=(9, 2)), rois=rois, unit="F", rate=5.0
            )
        )
    )

    behavior = nwb.create_processing_module("behavior", "d")
    behavior.add(
        Position(
            SpatialSeries(
                "spatial", data=rng.normal(size=(7, 2)), reference_frame="r", timestamps=np.arange(7.0)
            )
        )
    )
    words = VectorData("words", "d", data=["a", "b", "c"])
    behavior.add(
        DynamicTable(
            "plain",
            "d",
            columns=[
                VectorData("number", "d", data=[1, 2, 4]),
                words,
                VectorIndex("words_index", [1, 1, 3], target=words),
            ],
        )
    )
    behavior.add(
        DynamicTable(
            "to_electrodes", "d", columns=[DynamicTableRegion("electrode", [5, 0], "d", table=nwb.electrodes)]
        )
    )
    nwb.add_scratch(np.arange(3), name="numbers", description="d")
    nwb.add_acquisition(Images("pictures", images=[GrayscaleImage("one", np.zeros((3, 3)))]))
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb)


@pynwb_case
def intracellular(path: Path) -> None:
    """The icephys tables: aligned categories and references to time series."""
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.icephys import VoltageClampSeries, VoltageClampStimulusSeries

    nwb = NWBFile("icephys", "id-2", dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc))
    electrode = nwb.create_icephys_electrode(name="e", description="d", device=nwb.create_device("amp"))
    rows = []
    for k in range(3):
        stimulus = VoltageClampStimulusSeries(
            f"stim{k}", data=np.arange(4.0), starting_time=0.0, rate=10.0, electrode=electrode, gain=0.1
        )
        response = VoltageClampSeries(
            f"resp{k}", data=np.arange(6.0), starting_time=0.0, rate=10.0, electrode=electrode, gain=0.1
        )
        rows.append(
            nwb.add_intracellular_recording(electrode=electrode, stimulus=stimulus, response=response)
        )
    nwb.intracellular_recordings.add_column("tag", "d", data=["A", "B", "C"])
    nwb.intracellular_recordings.add_column("voltage", "d", category="electrodes", data=[0.1, 0.2, 0.3])
    simultaneous = nwb.add_icephys_simultaneous_recording(recordings=rows[:2])
    other = nwb.add_icephys_simultaneous_recording(recordings=rows[2:])
    sequence = nwb.add_icephys_sequential_recording(
        simultaneous_recordings=[simultaneous, other], stimulus_type="square"
    )
    repetition = nwb.add_icephys_repetition(sequential_recordings=[sequence])
    nwb.add_icephys_experimental_condition(repetitions=[repetition])
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb)


# --- a small cube of sessions ----------------------------------------------------------------------------------------

LOCATIONS = ("CA1", "CA1-so", "VISp", "LP", "CA3")


def write_session(
    path: Path, number: int, *, units: int = 40, performance: bool = True, order: Iterable[str] = ()
) -> Path:
    """A session like those of the notebook, written in a few milliseconds."""
    rng = np.random.default_rng(number)
    with h5py.File(path, "w") as file:
        nwb_root(file, f"s{number}", ["production" if number % 3 else "test", "ecephys"])
        bad = rng.uniform(size=units) < 0.5
        columns: dict[str, Any] = {
            "unit_id": [f"s{number}_{k}" for k in range(units)],
            "location": [LOCATIONS[k] for k in rng.integers(0, len(LOCATIONS), units)],
            "activity_drift": rng.uniform(0, 0.03, units),
            "amplitude_cutoff": np.where(bad, np.nan, rng.uniform(0, 0.3, units)),
            "presence_ratio": rng.uniform(0.4, 1, units),
            "isi_violations_ratio": rng.uniform(0, 1, units),
            "decoder_label": ["noise" if b else "sua" for b in bad],
            "spike_times": Ragged([np.sort(rng.uniform(0, 1000, n)) for n in rng.integers(0, 200, units)], options={"chunks": (256,), "maxshape": (None,), **GZIP}),
            "obs_intervals": Ragged([rng.uniform(size=(n, 2)) for n in rng.integers(1, 3, units)], inner=(2,)),
            "waveform_mean": Column(
                rng.normal(size=(units, 21, 8)), {"chunks": (4, 21, 8), "maxshape": (None, 21, 8), **GZIP}
            ),
        }  # fmt: skip
        for name, column in columns.items():
            if isinstance(column, Ragged) and column.inner:
                column.rows = [[tuple(pair) for pair in row] for row in column.rows]
        table(file, "units", columns, kind="Units")
        n = 30
        starts = np.cumsum(rng.uniform(3, 8, n))
        trials = {
            "start_time": starts,
            "stop_time": starts + rng.uniform(1, 3, n),
            "stim_name": [["vis1", "vis2", "sound1", "catch"][k] for k in rng.integers(0, 4, n)],
            "is_rewarded": rng.uniform(size=n) < 0.5,
            "block_index": np.arange(n) // 5,
        }
        table(file, "intervals/trials", trials, kind="TimeIntervals")
        if performance:
            blocks = {
                "start_time": np.arange(6) * 600.0,
                "stop_time": np.arange(6) * 600.0 + 590 + rng.uniform(0, 10, 6),
                "block_index": np.arange(6),
                "rewarded_modality": ["vis", "aud"] * 3,
                "signed_cross_modality_dprime": rng.normal(2, 1, 6),
                "is_first_block_aud": np.array([bool(number % 2)] * 6),
            }
            blocks["signed_cross_modality_dprime"][0] = np.nan
            table(file, "intervals/performance", blocks, kind="TimeIntervals")
        stamps = np.sort(rng.uniform(0, 100, 25 + number))
        series(file, "acquisition/lick_sensor_events", rng.normal(size=len(stamps)), stamps)
        series(file, "processing/behavior/running_speed", rng.normal(size=50), start=0.0, rate=60.0)
    return path


def write_cube(folder: Path, count: int = 6, **options: Any) -> list[Path]:
    """Sessions of which the fourth lacks `/intervals/performance`; the file names sort in order of writing."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_session(folder / f"session_{k:02}.nwb", k, performance=k != 3, **options) for k in range(count)
    ]
