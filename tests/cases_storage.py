"""Test files with every layout, chunk index and filter of HDF5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from builders import (
    GZIP,
    VLEN_TEXT,
    Column,
    Ragged,
    case,
    dcpl,
    hdf5plugin,
    numbers,
    raw_type,
    table,
)

if TYPE_CHECKING:
    from pathlib import Path


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
    """Chunks whose mask says that a filter was skipped."""
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
    """Unwritten space reads as the fill value."""
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
    """Datasets whose bytes are stored elsewhere: virtual ones over the same file."""
    with h5py.File(path, "w") as file:
        file["source"] = np.arange(12.0)
        layout = h5py.VirtualLayout((20,), "f8")
        layout[4:16] = h5py.VirtualSource(".", "source", (12,))
        group = table(file, "t", {"a": np.arange(20)})
        group.create_virtual_dataset("virtual", layout, fillvalue=-1.0)
