"""Test files with every shape of table, series and metadata, links, and kinds of HDF5 file."""

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
    numbers,
    nwb_root,
    series,
    table,
)

if TYPE_CHECKING:
    from pathlib import Path


@case
def raggedness(path: Path) -> None:
    """Index columns, and columns that resemble them."""
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
    """`colnames` in every form that occurs in published files."""
    columns = {"a": np.arange(3), "b": np.arange(3.0)}
    with h5py.File(path, "w") as file:
        forms: dict[str, Any] = {
            "plain_string": "a",
            "bytes_array": np.array([b"a", b"b"]),
            "object_array": np.array(["b", "a"], VLEN_TEXT),
            "padded": np.array([b"a   ", b"b   "]),
            "padded_string": "a  ",
            "empty": np.zeros(0, "S1"),
            "empty_string": "",
            "numpy_bytes": np.bytes_(b"a"),
            "null": h5py.Empty("S1"),
        }
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
    """Listed columns are padded or truncated to the rows of the table; others must have its length."""
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
    """Names that need quoting."""
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
        general["subject/alive"] = np.bool_(1)


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
        reference = np.array([file["t"].ref, h5py.Reference(), file["t/text"].ref], "O")
        file["t"].create_dataset("ref", data=reference, dtype=h5py.ref_dtype)
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
        series(file, "acquisition/far_data", start=1, rate=2)["data"] = h5py.ExternalLink(
            other.name, "/s/data"
        )
        group["external_ref"] = h5py.ExternalLink(other.name, "/t/ref")
        file["external_table"] = h5py.ExternalLink(other.name, "/t")
        file["external_series"] = h5py.ExternalLink(other.name, "/s")


def _mixed(file: h5py.File) -> None:
    nwb_root(file)
    columns = {
        "i": np.arange(40),
        "f": Column(numbers(40), {"chunks": (16,), **GZIP}),
        "text": [f"row {k}" for k in range(40)],
        "arrays": numbers(40, 2),
        "ragged": Ragged([[float(k)] * (k % 3) for k in range(40)]),
        "flag": np.arange(40) % 3 == 0,
    }
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
