"""Test files with every data type of a column."""

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
    raw_type,
    series,
    table,
)

if TYPE_CHECKING:
    from pathlib import Path


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
    """More text than one heap collection contains, written in another order."""
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
            ("f8", "f8", {}),
            ("i2", "i2", {}),
            ("be", ">i4", {}),
            ("chunked", "u8", {"chunks": (3,)}),
            ("gzip", "f4", {"chunks": (3,), **GZIP}),
            ("bool", "?", {}),
        ):
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
    """Columns that raise an error only if they are selected."""
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
    """Rows that are arrays by their data type, not by the shape of the dataset."""
    with h5py.File(path, "w") as file:
        for name, dtype in (("i4", "i4"), ("be", ">f8")):
            group = table(file, f"t_{name}", {"a": np.arange(4)})
            tid = h5py.h5t.array_create(h5py.h5t.py_create(np.dtype(dtype)), (2, 3))
            space = h5py.h5s.create_simple((4,))
            dataset = h5py.h5d.create(group.id, b"arrays", tid, space)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(24).reshape(4, 2, 3).astype(dtype), mtype=tid)
