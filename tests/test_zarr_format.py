"""Zarr stores written by hand, as JSON and bytes; zarr-python is the oracle if it is installed."""

from __future__ import annotations

import base64
import gzip
import json
import math
import os
import pickle
import re
import struct
import sys
import types
import zlib
from contextlib import suppress
from typing import Any, NamedTuple
from unittest.mock import patch

import numcodecs
import numpy as np
import pytest

from lazynwb.arrays.chunk_grid import row_bytes
from lazynwb.arrays.fetch import Request, fetch
from lazynwb.catalog.model import MISSING, Array, ChunkKeys, Codec, Table
from lazynwb.codecs.checksums import crc32c
from lazynwb.codecs.object_codecs import parse_json
from lazynwb.codecs.restricted_pickle import PickledArray, read_pickle
from lazynwb.config import config
from lazynwb.errors import (
    BrokenTableLinkError,
    CorruptDataError,
    LazyNWBError,
    NotNWBError,
    UnsupportedTypeError,
)
from lazynwb.formats.zarr import reader as zarr_format
from lazynwb.formats.zarr import store as zarr_file
from lazynwb.formats.zarr.codec_configuration import catalog_codecs
from lazynwb.formats.zarr.data_types import describe_v3, fill_bytes, numpy_dtype
from lazynwb.formats.zarr.object_arrays import decode_utf32
from lazynwb.formats.zarr.reader import ZarrReader
from lazynwb.storage.resolve import resolve
from lazynwb.threads import DECODERS

ALL = 10**9
VLEN = [{"id": "vlen-utf8"}]
JSON2 = [{"id": "json2", "strict": True}]
PICKLE = [{"id": "pickle", "protocol": 5}]


class Objects:
    """A store in a dictionary, which counts requests."""

    pool = DECODERS

    def __init__(self, data: dict[str, Any], path: str = "/stores/a.nwb.zarr", *, lists: bool = True) -> None:
        self.data = {k: v if isinstance(v, bytes) else json.dumps(v).encode() for k, v in data.items()}
        self.source = resolve(path)
        self.lists = lists
        self.rounds: list[list[str]] = []

    def get(self, key: str) -> bytes | None:
        return self.get_many([key])[key]

    def get_range(self, key: str, start: int, size: int) -> bytes | None:
        found = self.data.get(key)
        if found is None:
            return None
        part = found[start : start + size or None]
        if len(part) != size:
            message = f"{self.source.name}: {key} is too short"
            raise CorruptDataError(message)
        return part

    def get_many(self, keys) -> dict[str, bytes | None]:
        self.rounds.append(list(keys))
        return {key: self.data.get(key) for key in self.rounds[-1]}

    def members(self, prefix: str) -> list[str] | None:
        if not self.lists:
            return None
        start = f"{prefix}/" if prefix else ""
        return sorted({k[len(start) :].split("/")[0] for k in self.data if k.startswith(start)})

    def version(self, key: str) -> str:
        return str(hash(self.data.get(key)))


def reader(data: dict[str, Any], **options: Any) -> ZarrReader:
    return ZarrReader(Objects(data, **options))


def consolidated(data: dict[str, Any]) -> dict[str, Any]:
    """The same store of version 2 with all metadata in one document."""
    metadata = {k: v for k, v in data.items() if k.rpartition("/")[2].startswith(".z")}
    rest = {k: v for k, v in data.items() if k not in metadata}
    return {**rest, ".zmetadata": {"zarr_consolidated_format": 1, "metadata": metadata}}


def consolidated_3(data: dict[str, Any]) -> dict[str, Any]:
    metadata = {k[: -len("/zarr.json")]: v for k, v in data.items() if k.endswith("/zarr.json")}
    rest = {k: v for k, v in data.items() if not k.endswith("/zarr.json")}
    rest["zarr.json"] = {
        **data["zarr.json"],
        "consolidated_metadata": {"kind": "inline", "metadata": metadata},
    }
    return rest


def array_2(shape, chunks, dtype="<i8", **more: Any) -> dict[str, Any]:
    base = {"zarr_format": 2, "shape": shape, "chunks": chunks, "dtype": dtype, "order": "C"}
    return {**base, "compressor": None, "filters": None, "fill_value": 0, **more}


def array_3(shape, chunks, data_type="int64", **more: Any) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
        **more,
    }


def group_3(**attributes: Any) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def vlen(*items: str | bytes) -> bytes:
    parts = [item.encode() if isinstance(item, str) else item for item in items]
    return struct.pack("<I", len(parts)) + b"".join(struct.pack("<I", len(p)) + p for p in parts)


def reference(path: str) -> dict[str, Any]:
    return {"source": ".", "path": path, "object_id": "x", "source_object_id": "y"}


GROUP = {"zarr_format": 2}
TABLE_2: dict[str, Any] = {
    ".zgroup": GROUP,
    ".zattrs": {"neurodata_type": "NWBFile"},
    "identifier/.zarray": array_2([1], [1], "|O", filters=VLEN),
    "identifier/.zattrs": {"zarr_dtype": "scalar"},
    "identifier/0": vlen("me"),
    "intervals/.zgroup": GROUP,
    "intervals/t/.zgroup": GROUP,
    "intervals/t/.zattrs": {"colnames": ["x", "s", "r", "g", "b"], "neurodata_type": "DynamicTable"},
    "intervals/t/id/.zarray": array_2([3], [2]),
    "intervals/t/id/0": np.array([0, 1], "<i8").tobytes(),
    "intervals/t/id/1": np.array([2, 9], "<i8").tobytes(),
    "intervals/t/x/.zarray": array_2([3], [3], "<f8", compressor={"id": "gzip", "level": 1}),
    "intervals/t/x/0": gzip.compress(np.array([0, 0.5, 1]).tobytes()),
    "intervals/t/s/.zarray": array_2([3], [2], "|O", filters=VLEN, compressor={"id": "zlib", "level": 1}),
    "intervals/t/s/.zattrs": {"zarr_dtype": "str"},
    "intervals/t/s/0": zlib.compress(vlen("a", "bü")),
    "intervals/t/s/1": zlib.compress(vlen("", b"\xff")),
    "intervals/t/b/.zarray": array_2([3], [3], "|b1", fill_value=True),
    "intervals/t/r/.zarray": array_2([5], [5], ">i2"),
    "intervals/t/ends/.zarray": array_2([3], [3], "|u1"),
    "intervals/t/ends/.zattrs": {
        "neurodata_type": "VectorIndex",
        "target": {"value": reference("/intervals/t/r"), "zarr_dtype": "object"},
    },
    "intervals/t/g/.zarray": array_2([3], [3], "|O", filters=JSON2),
    "intervals/t/g/.zattrs": {"zarr_dtype": "object"},
    "intervals/t/g/0": json.dumps([reference("/a"), reference("b/c"), None, "|O", [3]]).encode(),
}


def table(found: ZarrReader, path: str = "intervals/t") -> Table:
    described = found.describe_table(path)
    assert described is not None
    return described


def arrays(described: Table) -> dict[str, Array]:
    return {column.name: column.data for column in described.columns if column.data is not None}


def values(found: ZarrReader, array: Array, *ranges: tuple[int, int]) -> np.ndarray:
    """Read rows by the usual path of the engine."""
    bounds = np.array([(a, min(b, array.rows)) for a, b in ranges or [(0, array.rows)]], np.int64)
    if array.layout == "indirect":
        return found.read_indirect(array, bounds)
    dtype = np.dtype(array.dtype.numpy) if array.dtype.numpy else np.dtype(f"V{array.dtype.itemsize}")
    rows = int((bounds[:, 1] - bounds[:, 0]).sum())
    out = np.zeros((rows, row_bytes(array)), np.uint8)
    (index,) = found.chunk_indices([array])
    fetch([(found.objects, [Request(array, index, bounds, out)])])
    return out.reshape(-1).view(dtype).reshape(rows, *array.shape[1:])


# -- structure ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrange", [dict, consolidated])
def test_a_table_of_version_2(arrange):
    with reader(arrange(TABLE_2)) as found:
        described = table(found)
        assert (described.kind, described.rows, described.problems) == ("table", 3, ())
        columns = {column.name: column for column in described.columns}
        assert list(columns) == ["b", "g", "id", "r", "s", "x"]
        assert [index.path for index in columns["r"].indices] == ["intervals/t/ends"]
        kinds = {name: (array.dtype.kind, array.dtype.numpy) for name, array in arrays(described).items()}
        assert kinds == {
            "b": ("bool", "|i1"),
            "g": ("reference", ""),
            "id": ("number", "<i8"),
            "r": ("number", ">i2"),
            "s": ("vlen_text", ""),
            "x": ("number", "<f8"),
        }
        x = columns["x"].data
        assert x.layout == "objects"
        assert x.keys == ChunkKeys("intervals/t/x/", ".")
        assert x.codecs == (Codec("gzip"),)
        assert values(found, x).tolist() == [0, 0.5, 1]
        assert values(found, columns["id"].data, (1, 3)).tolist() == [1, 2]
        assert values(found, columns["b"].data).tolist() == [1, 1, 1]
        assert values(found, columns["s"].data).tolist() == ["a", "bü", b""]
        assert values(found, columns["s"].data, (0, 1), (1, 2)).tolist() == ["a", "bü"]
        assert values(found, columns["g"].data).tolist() == ["/a", "/b/c", None]


def test_consolidated_metadata_takes_one_round():
    objects = Objects(consolidated(TABLE_2), "https://x.org/a.nwb.zarr", lists=False)
    with ZarrReader(objects) as found:
        table(found)
        found.list_objects()
    assert len(objects.rounds) == 1


def test_refused_requests_for_missing_objects_do_not_fail_reads():
    class Refusing(Objects):
        def get_many(self, keys):
            keys = list(keys)
            if not self.data.keys() >= set(keys):
                message = "403"
                raise LazyNWBError(message)
            return super().get_many(keys)

    with ZarrReader(Refusing(consolidated(TABLE_2), "s3://x/a.zarr")) as found:
        assert table(found).rows == 3
    with ZarrReader(Refusing({}, "s3://x/a.zarr")) as found, pytest.raises(LazyNWBError, match="403"):
        table(found)


@pytest.mark.parametrize("lists", [True, False])
def test_documents_of_a_remote_store_are_fetched_together(lists):
    data = {k: v for k, v in TABLE_2.items() if "/ends/" not in k}
    data.update({k.replace("/ends/", "/r_index/"): v for k, v in TABLE_2.items() if "/ends/" in k})
    objects = Objects(data, "https://x.org/a.nwb.zarr", lists=lists)
    with ZarrReader(objects) as found:
        described = table(found)
        assert [column.name for column in described.columns] == ["b", "g", "id", "r", "s", "x"]
        assert len(next(c for c in described.columns if c.name == "r").indices) == 1
        assert described.depends == ()
    assert len(objects.rounds) <= 4
    assert len({key for keys in objects.rounds for key in keys}) == sum(map(len, objects.rounds))


def test_a_table_depends_on_the_metadata_documents_of_a_local_store(tmp_path):
    for key, value in TABLE_2.items():
        target = tmp_path / "a.nwb.zarr" / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    with reader(TABLE_2, path=str(tmp_path / "a.nwb.zarr")) as found:
        depends = dict(table(found).depends)
    assert str(tmp_path / "a.nwb.zarr/intervals/t/x/.zarray") in depends
    assert str(tmp_path / "a.nwb.zarr/intervals/t") in depends
    assert "absent" not in depends.values()


def test_session_metadata_are_scalars():
    with reader(consolidated(TABLE_2)) as found:
        described = table(found, "general")
        (identifier,) = described.columns
        assert identifier.data.shape == ()
        assert not identifier.whole
        assert values(found, identifier.data).tolist() == ["me"]
        entries = {entry.path: entry for entry in found.list_objects().entries}
    assert entries["/identifier"].shape == ()
    assert entries["/intervals/t/x"].dtype == "<f8"
    assert entries["/intervals/t/s"].dtype == "|O"
    assert entries["/intervals/t"].role == "table"


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("absent", ["group", "only its attributes are stored"])
@pytest.mark.parametrize("path", ["/stores/a.nwb.zarr", "https://x.org/a.nwb.zarr"])
def test_a_table_is_found_by_its_path_if_a_group_above_it_has_no_document(version, absent, path):
    x = {
        2: {"intervals/t/x/.zarray": array_2([2], [2]), "intervals/t/x/0": np.array([3, 4], "<i8").tobytes()},
        3: {
            "intervals/t/x/zarr.json": array_3([2], [2]),
            "intervals/t/x/c/0": np.array([3, 4], "<i8").tobytes(),
        },
    }[version]
    attributes = {"colnames": ["x"], "neurodata_type": "DynamicTable"}
    data = {
        2: {".zgroup": GROUP, "intervals/t/.zgroup": GROUP, "intervals/t/.zattrs": attributes},
        3: {"zarr.json": group_3(), "intervals/t/zarr.json": group_3(**attributes)},
    }[version]
    if absent != "group" and version == 2:
        data["intervals/.zattrs"] = {"description": "y"}
    objects = Objects({**data, **x}, path, lists=not path.startswith("https"))
    with ZarrReader(objects) as found:
        if "intervals/.zattrs" not in data:
            assert found.describe_table("intervals") is None
        assert values(found, arrays(table(found))["x"]).tolist() == [3, 4]
    assert len(objects.rounds) <= 6


def test_a_path_without_documents_is_not_found():
    with reader({key: value for key, value in TABLE_2.items() if key != "intervals/t/.zgroup"}) as found:
        with pytest.raises(LazyNWBError, match=r"/intervals/t is damaged: it has .zattrs, and none of"):
            found.describe_table("intervals/t")
        assert found.describe_table("intervals/none/t") is None


def test_an_array_without_metadata_is_left_out():
    data = {**TABLE_2, "intervals/t/y/0": b"?"}
    with reader(data) as found:
        assert table(found).problems == ("column 'y' was left out: there is no 'y'",)


# -- version 3, and shards ------------------------------------------------------------------------------


def shard(*chunks: bytes | None, start: bool = False, checksum: bool = True) -> bytes:
    size = 16 * len(chunks) + 4 * checksum
    body, entries = b"", []
    for chunk in chunks:
        entries += [MISSING, MISSING] if chunk is None else [len(body) + size * start, len(chunk)]
        body += chunk or b""
    index = struct.pack(f"<{len(entries)}Q", *entries)
    index += struct.pack("<I", crc32c(index)) if checksum else b""
    return index + body if start else body + index


def sharded(inner: list[int], codecs: list[Any], **more: Any) -> list[Any]:
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    settings = {"chunk_shape": inner, "codecs": codecs, "index_codecs": index, **more}
    return [{"name": "sharding_indexed", "configuration": settings}]


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
STRUCT = {"name": "struct", "configuration": {"fields": [{"name": "x", "data_type": "uint32"}]}}
SERIES_3: dict[str, Any] = {
    "zarr.json": group_3(),
    "acquisition/zarr.json": group_3(),
    "acquisition/s/zarr.json": group_3(
        neurodata_type="TimeSeries",
        _LINKS=[{"source": ".", "path": "/acquisition/times", "name": "timestamps"}],
    ),
    "acquisition/s/data/zarr.json": array_3(
        [5, 3], [4, 4], "int16", codecs=sharded([2, 2], [BYTES]), fill_value=-1
    ),
    "acquisition/s/data/c/0/0": shard(
        np.array([0, 1, 3, 4], "<i2").tobytes(),
        np.array([2, 0, 5, 0], "<i2").tobytes(),
        None,
        np.array([8, 0, 11, 0], "<i2").tobytes(),
    ),
    "acquisition/times/zarr.json": array_3([5], [5], "float64", fill_value="NaN"),
    "acquisition/r/zarr.json": group_3(neurodata_type="TimeSeries"),
    "acquisition/r/data/zarr.json": array_3(
        [3],
        [4],
        "string",
        codecs=sharded([2], [{"name": "vlen-utf8"}], index_location="start"),
        fill_value="?",
    ),
    "acquisition/r/data/c/0": shard(vlen("é", "b"), None, start=True),
    "acquisition/r/starting_time/zarr.json": array_3([], [], "float64", attributes={"rate": 4.0}),
    "acquisition/r/starting_time/c": struct.pack("<d", 2.5),
    "processing/zarr.json": group_3(colnames=["p", "q"], neurodata_type="DynamicTable"),
    "processing/id/zarr.json": array_3([2], [2], fill_value="0"),
    "processing/p/zarr.json": array_3([2], [2], STRUCT, fill_value={"x": 7}),
    "processing/q/zarr.json": array_3(
        [2],
        [2],
        {
            "name": "struct",
            "configuration": {
                "fields": [
                    {"name": "n", "data_type": "int32"},
                    {
                        "name": "o",
                        "data_type": {"name": "fixed_length_utf32", "configuration": {"length_bytes": 8}},
                    },
                ]
            },
        },
        fill_value={"n": 0, "o": ""},
        attributes={"_REFERENCE_FIELDS": ["o"]},
    ),
    "processing/q/c/0": np.array([(1, "/a"), (2, "")], [("n", "<i4"), ("o", "<U2")]).tobytes(),
}


@pytest.mark.parametrize("arrange", [dict, consolidated_3])
def test_series_and_shards_of_version_3(arrange):
    with reader(arrange(SERIES_3)) as found:
        described = table(found, "acquisition/s")
        data, stamps = arrays(described)["data"], arrays(described)["timestamps"]
        assert (data.shard, data.chunk, data.keys) == (
            (4, 4),
            (2, 2),
            ChunkKeys("acquisition/s/data/c/", "/"),
        )
        assert stamps.path == "acquisition/s/timestamps"
        assert stamps.keys == ChunkKeys("acquisition/times/c/", "/")
        (index,) = found.chunk_indices([data])
        offsets = np.frombuffer(index.offsets, "<u8").reshape(3, 2)
        assert offsets[:2].tolist() == [[0, 8], [MISSING, 16]]
        assert offsets[2].tolist() == [MISSING, MISSING]  # a shard that was never written
        expected = [[0, 1, 2], [3, 4, 5], [-1, -1, 8], [-1, -1, 11], [-1, -1, -1]]
        assert values(found, data).tolist() == expected
        assert np.isnan(values(found, stamps)).all()


def test_text_in_shards_whose_index_comes_first():
    with reader(consolidated_3(SERIES_3)) as found:
        described = table(found, "acquisition/r")
        assert described.columns[1].regular == (2.5, 4.0)
        assert values(found, arrays(described)["data"]).tolist() == ["é", "b", "?"]


def test_compounds_of_version_3():
    with reader(consolidated_3(SERIES_3)) as found:
        described = arrays(table(found, "processing"))
        assert described["p"].layout == "objects"
        assert described["p"].fill == struct.pack("<I", 7)
        assert [(f.name, f.dtype.kind) for f in described["q"].dtype.fields] == [
            ("n", "number"),
            ("o", "reference"),
        ]
        assert values(found, described["q"]).tolist() == [(1, "/a"), (2, None)]


@pytest.mark.parametrize("checksum", [True, False])
def test_a_damaged_index_of_a_shard(checksum):
    data = dict(SERIES_3)
    whole = bytearray(data["acquisition/s/data/c/0/0"])
    whole[-9] ^= 1
    data["acquisition/s/data/c/0/0"] = bytes(whole) if checksum else b"short"
    with reader(data) as found:
        array = arrays(table(found, "acquisition/s"))["data"]
        with pytest.raises(
            CorruptDataError, match=r"a\.nwb\.zarr: /acquisition/s/data: the index of the shard .*c/0/0"
        ):
            found.chunk_indices([array])


# -- links and references -------------------------------------------------------------------------------


def linked(*links: dict[str, Any]) -> dict[str, Any]:
    return {**TABLE_2, "intervals/.zattrs": {"zarr_link": list(links)}}


def test_links_to_other_paths():
    data = linked({"name": "u", "path": "/intervals/t", "source": "."})
    with reader(consolidated(data)) as found:
        assert arrays(table(found, "intervals/u"))["x"].path == "intervals/u/x"
        entries = {entry.path for entry in found.list_objects().entries}
    assert "/intervals/u" in entries
    assert "/intervals/u/x" not in entries


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ({"name": "u", "path": "/nowhere", "source": "."}, "link 'u' is broken: there is no 'nowhere'"),
        ({"name": "u", "path": "../../x", "source": "."}, "link 'u' is broken: there is no '..'"),
        ({"name": "u", "path": "/intervals/u", "source": "."}, "^link 'u' leads back to itself$"),
        ({"name": "u", "path": "/t", "source": "../../elsewhere.zarr"}, "was not followed"),
        ({"name": "u", "path": "/t", "source": "https://x.org/b.zarr"}, ".*cannot be read|was not followed"),
    ],
)
def test_broken_links(link, why):
    with reader(linked(link)) as found:
        with pytest.raises(BrokenTableLinkError, match=r"intervals/u cannot be read: .*" + why.strip("^$")):
            found.describe_table("intervals/u")
        (broken,) = [e for e in found.list_objects().entries if e.kind == "broken"]
        assert broken.path == "/intervals/u"
        assert re.search(why, broken.note)


def test_links_to_other_stores(monkeypatch):
    stores = {"/stores/b.zarr": Objects(consolidated(TABLE_2), "/stores/b.zarr")}

    def open_objects(source) -> Objects:
        if source.path not in stores:
            message = f"no such store: {source.path}"
            raise LazyNWBError(message)
        return stores[source.path]

    monkeypatch.setattr(zarr_file, "open_objects", open_objects)
    monkeypatch.setattr(zarr_format, "open_objects", open_objects)
    links = [
        {"name": "u", "path": "/intervals/t", "source": "../b.zarr"},
        {"name": "v", "path": "/intervals/t", "source": "../c.zarr"},
    ]
    with reader(linked(*links)) as found:
        described = table(found, "intervals/u")
        assert arrays(described)["s"].source == "/stores/b.zarr"
        assert dict(described.depends) == {"/stores/b.zarr": "absent"}
        assert values(found, arrays(described)["s"]).tolist() == ["a", "bü", b""]
        with pytest.raises(BrokenTableLinkError, match=r"'v' is broken: .*no such store: /stores/c"):
            found.describe_table("intervals/v")
    monkeypatch.setattr(config, "external_links", "never")
    with reader(linked(*links)) as found, pytest.raises(BrokenTableLinkError, match="was not followed"):
        found.describe_table("intervals/u")


# -- pickles --------------------------------------------------------------------------------------------


class ZarrReference(dict):
    __module__ = "hdmf_zarr.utils"


def pickled(array: np.ndarray, protocol: int = 5) -> bytes:
    """Return the bytes that numcodecs' Pickle writes."""
    module = types.ModuleType("hdmf_zarr.utils")
    module.ZarrReference = ZarrReference
    stand_ins = {"hdmf_zarr": types.ModuleType("hdmf_zarr"), "hdmf_zarr.utils": module}
    with patch.dict(sys.modules, stand_ins):  # hdmf looks there for what is installed
        return pickle.dumps(array, protocol)


def objects_of(*items: Any) -> np.ndarray:
    return np.fromiter(items, object, len(items))


def pickled_store(data: bytes, **more: Any) -> dict[str, Any]:
    return {
        **TABLE_2,
        "intervals/t/g/.zarray": array_2([3], [3], "|O", filters=PICKLE),
        "intervals/t/g/.zattrs": {"zarr_dtype": "object"},
        "intervals/t/g/0": data,
        **more,
    }


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pickled_references(protocol):
    held = objects_of(ZarrReference(source=".", path="/a"), ZarrReference(source=".", path="/b"), None)
    with reader(consolidated(pickled_store(pickled(held, protocol)))) as found:
        array = arrays(table(found))["g"]
        assert values(found, array).tolist() == ["/a", "/b", None]
        assert values(found, array, (1, 2)).tolist() == ["/b"]


def test_pickled_compounds():
    held = np.zeros(3, [("n", "<i4"), ("o", "O")])
    held["n"] = [1, 2, 3]
    held["o"] = objects_of(*(ZarrReference(path=f"/{k}") for k in "abc"))
    zarr_dtype = [{"name": "n", "dtype": "int32"}, {"name": "o", "dtype": "object"}]
    more = {
        "intervals/t/g/.zarray": array_2(
            [3], [3], [["n", "<i4"], ["o", "|O"]], filters=PICKLE, fill_value="gAVLAC4="
        ),
        "intervals/t/g/.zattrs": {"zarr_dtype": zarr_dtype},
    }
    with reader(consolidated(pickled_store(pickled(held), **more))) as found:
        array = arrays(table(found))["g"]
        assert [(f.name, f.offset, f.dtype.kind) for f in array.dtype.fields] == [
            ("n", 0, "number"),
            ("o", 4, "reference"),
        ]
        assert values(found, array).tolist() == [(1, "/a"), (2, "/b"), (3, "/c")]


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_plain_pickles_are_read_as_pickle_reads_them(protocol, order):
    items = [1, -7, 2**70, 1.5, "é", b"\0x", None, True, (1, (2, 3)), ["a", []], {"k": {"l": 1}}, np.int64(4)]
    held = np.asarray(objects_of(*items).reshape(3, 4), order=order)
    found = read_pickle(pickle.dumps(held, protocol))
    assert isinstance(found, PickledArray)
    assert found.values.tolist() == held.tolist()
    assert found.values.reshape(-1, order="A").tolist() == held.reshape(-1, order="A").tolist()


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def raw(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("nested", [True, False])
def test_malicious_pickles_are_refused_and_have_no_effect(tmp_path, protocol, nested):
    mark = tmp_path / "mark"
    evil = Evil(os.mkdir, str(mark))
    data = pickle.dumps(objects_of(None, evil, None) if nested else evil, protocol)
    with reader(consolidated(pickled_store(data))) as found:
        array = arrays(table(found))["g"]
        with pytest.raises(
            UnsupportedTypeError, match=r"a\.nwb\.zarr: /intervals/t/g: chunk intervals/t/g/0: .*pickle"
        ):
            values(found, array)
    assert not mark.exists()
    pickle.loads(pickle.dumps(evil))  # noqa: S301 - it would have had one
    assert mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        raw(b"cbuiltins\neval\n", b"X\x01\x00\x00\x001", b"\x85R"),
        raw(b"\x8c\x08builtins", b"\x8c\x04exec", b"\x93"),
        raw(b"(S'true'\nios\nsystem\n"),
        raw(b"cnumpy\nndarray\n", b"(K\x05\x85tR"),  # NumPy's own class, called otherwise than arrays are
        raw(b"cnumpy\nndarray\n", b")\x81"),
        raw(b"chdmf_zarr.utils\nZarrReference\n", b"K\x01\x85\x81"),
        raw(b"chdmf_zarr.utils\nZarrReference\n", b"}b"),
        raw(b"chdmf_zarr.utils\nZarrReference\n", b")\x81}b"),
        raw(b"\x82\x01"),
        raw(b"Pid\n"),
        raw(b"chdmf_zarr.utils\nZarrReference.__class__\n"),
    ],
)
def test_pickles_of_anything_but_data_are_refused(data):
    with pytest.raises(UnsupportedTypeError, match="nothing is executed"):
        read_pickle(data)


def test_damaged_pickles_are_errors():
    data = pickled(objects_of({"path": "/a"}, "x", 1.5))
    for size in range(len(data)):
        with pytest.raises((CorruptDataError, UnsupportedTypeError)):
            read_pickle(data[:size])
    generator = np.random.default_rng(0)
    for _ in range(2000):
        changed = bytearray(data)
        for at in generator.integers(0, len(data), 2).tolist():
            changed[at] = int(generator.integers(256))
        with suppress(CorruptDataError, UnsupportedTypeError):
            read_pickle(bytes(changed))


# -- invalid stores -------------------------------------------------------------------------------------

BAD_ARRAYS = [
    {"shape": "x"},
    {"shape": [-1]},
    {"shape": [3.5]},
    {"shape": [True]},
    {"shape": [2**61, 2**61], "chunks": [2**61, 1]},
    {"shape": [10**12], "chunks": [1]},
    {"shape": [3] * 40, "chunks": [3] * 40},
    {"chunks": [3, 3]},
    {"chunks": None},
    {"chunks": [2**60]},
    {"dtype": "<i3"},
    {"dtype": "i4,i4"},
    {"dtype": [["a"]]},
    {"dtype": None},
    {"fill_value": "x"},
    {"fill_value": 1.5},
    {"fill_value": [1]},
    {"order": "Z"},
    {"dimension_separator": "//"},
    {"filters": 3},
    {"compressor": "gzip"},
    {"zarr_format": 3},
]


@pytest.mark.parametrize("change", BAD_ARRAYS, ids=str)
def test_inconsistent_metadata(change):
    data = {**TABLE_2, "intervals/t/x/.zarray": {**array_2([3], [3]), **change}}
    with (
        reader(consolidated(data)) as found,
        pytest.raises(CorruptDataError, match=r"a\.nwb\.zarr: /intervals/t/x: \.zarray is invalid"),
    ):
        found.describe_table("intervals/t")


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff", b"[" * 10**6, b'{"a":' * 10**5], ids=range(6))
@pytest.mark.parametrize("key", ["intervals/t/x/.zarray", ".zgroup", ".zmetadata", "zarr.json"])
def test_bad_json(text, key):
    with (
        reader({**TABLE_2, key: text}) as found,
        pytest.raises(NotNWBError, match=rf"a\.nwb\.zarr: {key} is no"),
    ):
        found.describe_table("intervals/t")


def test_objects_that_are_not_a_store():
    with reader({"x": b""}) as found, pytest.raises(NotNWBError, match="is not a Zarr store"):
        found.list_objects()
    with reader({"zarr.json": array_3([1], [1])}) as found, pytest.raises(NotNWBError, match="no group"):
        found.list_objects()


def test_attributes_with_numbers_that_are_not_json():
    data = {**TABLE_2, "intervals/t/x/.zattrs": b'{"resolution": NaN}'}
    with reader(data) as found:
        assert table(found).problems == ()


def test_arrays_with_similar_metadata_are_distinguished():
    own = array_2([3], [2], "<f8")
    documents = {
        "a": own,
        "b": {**own, "fill_value": math.nan},  # as written by zarr-python: no JSON
        "c": {**own, "fill_value": None},
        "d": {**own, "fill_value": 1},
        "e": {**own, "fill_value": True},
        "f": {**own, "dimension_separator": "/"},
        "g": {**own, "shape": [2]},
        "h": own,
    }
    data = {".zgroup": {"zarr_format": 2}}
    data |= {f"{name}/.zarray": json.dumps(document).encode() for name, document in documents.items()}
    for _ in range(2):  # the second time from what is remembered
        with reader(data) as found:
            members = found.describe_members("")
        arrays = {column.name: column.data for column in members.columns}
        assert {name: array.path.strip("/") for name, array in arrays.items()} == {
            name: name for name in arrays
        }
        fills = [np.frombuffer(arrays[name].fill or bytes(8), "<f8")[0] for name in "abcde"]
        np.testing.assert_array_equal(fills, [0, math.nan, 0, 1, 1])
        assert arrays["f"].keys == ChunkKeys("f/", "/")
        assert [arrays[name].keys for name in "ah"] == [ChunkKeys("a/", "."), ChunkKeys("h/", ".")]
        assert [arrays[name].shape for name in "agh"] == [(3,), (2,), (3,)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x", b"no gzip"),
        ("x", gzip.compress(bytes(8), mtime=0)),
        ("x", gzip.compress(bytes(10**6), mtime=0)),
        ("s", zlib.compress(vlen("a"))),
        ("s", zlib.compress(vlen("a", "b"))[:-6]),
        ("s", zlib.compress(struct.pack("<III", 2, 10**9, 0))),
        ("s", zlib.compress(struct.pack("<I", 2**32 - 1))),
        ("g", b"[1"),
        ("g", b'[1, 2, "|O", [2]]'),
        ("g", b"[" * 10**6),
    ],
)
def test_damaged_chunks_are_named(name, data):
    with reader(consolidated({**TABLE_2, f"intervals/t/{name}/0": data})) as found:
        array = arrays(table(found))[name]
        with pytest.raises(
            CorruptDataError, match=rf"a\.nwb\.zarr: /intervals/t/{name}: chunk intervals/t/{name}/0: "
        ):
            values(found, array)


def test_objects_of_a_type_other_than_the_column():
    data = json.dumps([1, 2, 3, "|O", [3]]).encode()
    changed = {"intervals/t/g/.zattrs": {"zarr_dtype": "str"}, "intervals/t/g/0": data}
    with (
        reader(consolidated({**TABLE_2, **changed})) as found,
        pytest.raises(UnsupportedTypeError, match="int"),
    ):
        values(found, arrays(table(found))["g"])


@pytest.mark.parametrize(
    ("codec", "package"),
    [
        ({"id": "mystery"}, ""),
        ({"id": "pickle"}, ""),
        ({"id": "categorize"}, ""),
        ({"id": "wavpack"}, r" \(package wavpack-numcodecs\)"),
        ({"id": "imagecodecs_jpeg2k"}, r" \(package imagecodecs\)"),
    ],
)
def test_unknown_codecs_are_named_with_their_package(codec, package):
    data = {**TABLE_2, "intervals/t/x/.zarray": array_2([3], [3], "<f8", filters=[codec])}
    with reader(consolidated(data)) as found:
        array = arrays(table(found))["x"]
        assert array.layout == "indirect"
        with pytest.raises(
            UnsupportedTypeError, match=rf"/intervals/t/x: .*'{codec['id']}'{package}\)? is not supported"
        ):
            values(found, array)


@pytest.fixture
def wavpack(tmp_path, monkeypatch):
    """Install a package with a codec named "wavpack", whose chunks are reversed bytes after a mark."""
    (tmp_path / "wavpack_stand_in.py").write_text(
        "import numcodecs.abc\n"
        "class WavPack(numcodecs.abc.Codec):\n"
        "    codec_id = 'wavpack'\n"
        "    def __init__(self, level=1):\n"
        "        self.level = level\n"
        "    def encode(self, buf):\n"
        "        return b'wvpk' + bytes(buf)[::-1]\n"
        "    def decode(self, buf, out=None):\n"
        "        if bytes(buf[:4]) != b'wvpk':\n"
        "            raise ValueError('no block of WavPack')\n"
        "        return bytes(buf)[:3:-1]\n"
    )
    info = tmp_path / "wavpack_stand_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wavpack-stand-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[numcodecs.codecs]\nwavpack = wavpack_stand_in:WavPack\nmystery = wavpack_stand_in:WavPack\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = numcodecs.registry
    monkeypatch.setattr(registry, "entries", dict(registry.entries))
    monkeypatch.setattr(registry, "codec_registry", dict(registry.codec_registry))
    registry.run_entrypoints()
    yield
    sys.modules.pop("wavpack_stand_in", None)


SHUFFLE = {"id": "shuffle", "elementsize": 8}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("filters", [[], [SHUFFLE]], ids=["alone", "behind a shuffle"])
@pytest.mark.usefixtures("wavpack")
def test_codecs_of_installed_packages_are_decoded(version, filters):
    expected = np.array([1.5, -2, 3e300])
    chunk = expected.astype("<f8").tobytes()
    if filters:
        chunk = bytes(numcodecs.Shuffle(8).encode(chunk))
    chunk = b"wvpk" + chunk[::-1]
    if version == 2:
        array = array_2([3], [3], "<f8", filters=filters, compressor={"id": "wavpack", "level": 2})
        data = {**TABLE_2, "intervals/t/x/.zarray": array, "intervals/t/x/0": chunk}
        path, name = "intervals/t", "x"
    else:
        codecs = [
            BYTES,
            *({"name": "numcodecs.shuffle", "configuration": {"elementsize": 8}} for _ in filters),
            {"name": "numcodecs.wavpack", "configuration": {"level": 2}},
        ]
        data = {
            "zarr.json": group_3(),
            "t/zarr.json": group_3(colnames=["x"], neurodata_type="DynamicTable"),
            "t/x/zarr.json": array_3([3], [3], "float64", codecs=codecs),
            "t/x/c/0": chunk,
        }
        path, name = "t", "x"
    with reader(data) as found:
        array = arrays(table(found, path))[name]
        assert values(found, array).tolist() == expected.tolist()
        assert values(found, array, (1, 2)).tolist() == [-2]


@pytest.mark.parametrize(
    ("chunk", "codec", "error"),
    [
        (b"no block", {"id": "wavpack"}, "damaged .no block of WavPack"),
        (b"wvpk" + bytes(8), {"id": "wavpack"}, "a chunk decodes to 8 bytes where 24 are needed"),
        (b"wvpk" + bytes(800), {"id": "wavpack"}, "a chunk decodes to 800 bytes where 24 are needed"),
        (b"wvpk" + bytes(24), {"id": "wavpack", "mode": "x"}, "codec 'wavpack' cannot be loaded .*mode"),
        (b"wvpk" + bytes(24), {"id": "mystery"}, "codec 'mystery' is not supported"),
    ],
)
@pytest.mark.usefixtures("wavpack")
def test_damaged_chunks_and_unlisted_codecs_of_installed_packages(chunk, codec, error):
    array = array_2([3], [3], "<f8", compressor=codec)
    data = {**TABLE_2, "intervals/t/x/.zarray": array, "intervals/t/x/0": chunk}
    with reader(data) as found:
        x = arrays(table(found))["x"]
        with pytest.raises(LazyNWBError, match=f"/intervals/t/x: .*{error}"):
            values(found, x)
    assert "mystery" not in numcodecs.registry.codec_registry


# -- types, fill values, codecs -------------------------------------------------------------------------


class Fill(NamedTuple):
    value: Any
    dtype: Any
    expected: Any


FILLS = [
    Fill(None, "<i4", 0),
    Fill(7, ">i4", 7),
    Fill(0.0, "<i4", 0),
    Fill(2**64 - 1, "<u8", 2**64 - 1),
    Fill("NaN", "<f8", math.nan),
    Fill("-Infinity", ">f4", -math.inf),
    Fill("0x7fc00001", "<f4", struct.unpack("<f", struct.pack("<I", 0x7FC00001))[0]),
    Fill([1.0, "NaN"], "<c16", complex(1, math.nan)),
    Fill(value=True, dtype="|b1", expected=True),
    Fill(base64.b64encode(b"ab").decode(), "|S3", b"ab"),
    Fill("é", "<U2", "é"),
    Fill({"a": 3, "b": "Infinity"}, [["a", "<u2"], ["b", "<f4"]], (3, math.inf)),
    Fill(base64.b64encode(bytes([3, 0, 4])).decode(), [["a", "<u2"], ["b", "|u1"]], (3, 4)),
]


@pytest.mark.parametrize("fill", FILLS, ids=str)
def test_fill_values(fill):
    dtype = numpy_dtype(fill.dtype)
    stored = fill_bytes(fill.value, dtype)
    expected = np.array(fill.expected, dtype)
    assert (stored or bytes(dtype.itemsize)) == expected.tobytes() or np.isnan(
        np.frombuffer(stored, dtype)[0]
    ) == np.isnan(expected)


@pytest.mark.parametrize(
    ("data_type", "endian", "expected"),
    [
        ("bool", "little", "|b1"),
        ("int8", "little", "<i1"),
        ("uint64", "big", ">u8"),
        ("complex128", "little", "<c16"),
        ("float16", "little", "<f2"),
        ("string", "little", "|O"),
        ("r16", "little", "|V2"),
        ({"name": "null_terminated_bytes", "configuration": {"length_bytes": 4}}, "little", "<S4"),
        ({"name": "structured", "configuration": {"fields": [["a", "int8"]]}}, "little", [["a", "<i1"]]),
    ],
)
def test_data_types_of_version_3(data_type, endian, expected):
    assert describe_v3(data_type, endian) == expected
    numpy_dtype(expected)


@pytest.mark.parametrize("data_type", ["int7", None, {"name": 3}, {"name": "struct"}, "numpy.made_up"])
def test_unknown_data_types(data_type):
    with pytest.raises(ValueError, match="a data type"):
        numpy_dtype(describe_v3(data_type, "little"))


@pytest.mark.parametrize("order", "<>")
def test_code_points_that_are_not_characters(order):
    codes = np.array([[0x61, 0xD800], [0x110000, 0], [0xFFFFFFFF, 0x1F600]], f"{order}u4")
    found = decode_utf32(codes.view(f"{order}U2")[:, 0])
    assert found.tolist() == ["a\ufffd", "\ufffd", "\ufffd\U0001f600"]


def test_json_text_that_is_not_unicode():
    assert parse_json(b'["\\ud83d\\ude00", NaN]')[0] == "\U0001f600"
    for text in (b'["\\ud800", NaN]', b'["\\ud800"]', b'["\xed\xa0\x80"]'):
        with pytest.raises(ValueError, match=r"."):
            parse_json(text)


def test_codecs_in_the_catalogs_terms():
    assert catalog_codecs([{"id": "shuffle", "elementsize": 4}, {"id": "lz4"}]) == (
        Codec("shuffle", (4,)),
        Codec("lz4block"),
    )
    (delta,) = catalog_codecs([{"id": "delta", "dtype": "<i4", "astype": "<i4"}])
    assert json.loads(delta.config) == {"id": "delta", "dtype": "<i4", "astype": "<i4"}
    assert catalog_codecs([{"id": "bitround", "keepbits": 3}, {"id": "crc32c"}]) == (Codec("crc32c"),)
    assert catalog_codecs([{"id": "zfpy"}]) is None


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"dimension_separator": "/"}, "intervals/t/x/0/0"),
        ({"order": "F"}, "intervals/t/x/0.0"),
    ],
)
def test_other_separators_and_orders(change, key):
    stored = np.arange(6.0).reshape(3, 2)
    data = {**TABLE_2, "intervals/t/x/.zarray": array_2([3, 2], [3, 2], "<f8", **change)}
    data[key] = stored.tobytes(order=change.get("order", "C"))
    with reader(consolidated(data)) as found:
        assert values(found, arrays(table(found))["x"]).tolist() == stored.tolist()


# -- zarr-python ----------------------------------------------------------------------------------------

DTYPES = ["<i4", ">i2", "|u1", "|b1", "<f4", ">f8", "<c8", "|S3", "<U3"]


def sample(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    numbers = np.random.default_rng(seed).integers(0, 100, shape)
    return (numbers % 2 == 0) if dtype == "|b1" else numbers.astype(dtype)


def compare(root: Any, stored: np.ndarray) -> None:
    from lazynwb.storage.objects.local_folder import FolderObjects

    with ZarrReader(FolderObjects(resolve(str(root)))) as found:
        array = arrays(table(found, "t"))["x"]
        assert array.shape == stored.shape
        for ranges in ([(0, ALL)], [(1, 2), (3, stored.shape[0])]):
            rows = np.concatenate([stored[a : min(b, len(stored))] for a, b in ranges])
            seen = values(found, array, *ranges)
            if array.dtype.kind == "text":
                seen = seen.view(f"S{array.dtype.itemsize}").reshape(rows.shape)
            assert seen.tolist() == rows.tolist()


@pytest.mark.parametrize("seed", range(60))
def test_arrays_of_zarr_python(tmp_path, seed):
    zarr = pytest.importorskip("zarr")
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(4, 9, generator.integers(1, 4)).tolist())
    chunk = tuple(generator.integers(1, 6, len(shape)).tolist())
    dtype = DTYPES[seed % len(DTYPES)]
    stored = sample(dtype, shape, seed)
    root = tmp_path / "a.zarr"
    if int(zarr.__version__.split(".")[0]) < 3:
        import numcodecs

        filters = (
            [None, [numcodecs.Delta("<i4")], [numcodecs.Shuffle(4)]][seed % 3] if dtype == "<i4" else None
        )
        compressors = [None, numcodecs.Zlib(), numcodecs.GZip(), numcodecs.Zstd(), numcodecs.Blosc()]
        compressors += [numcodecs.LZ4(), numcodecs.BZ2(), numcodecs.LZMA()]
        group = zarr.open_group(str(root), "w").create_group("t")
        group.create_dataset(
            "x",
            data=stored,
            chunks=chunk,
            filters=filters,
            compressor=compressors[seed % len(compressors)],
            order="CF"[seed // 7 % 2],
            dimension_separator="./"[seed // 5 % 2],
            fill_value=None if seed % 4 else stored.ravel()[0],
            write_empty_chunks=False,
        )
        group.create_dataset("id", data=np.arange(shape[0]))
        end = zarr
    else:
        from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

        compressors = [(), GzipCodec(), ZstdCodec(), BloscCodec(), [ZstdCodec(), Crc32cCodec()]]
        shards = tuple(
            c * k for c, k in zip(chunk, generator.integers(1, 3, len(shape)).tolist(), strict=True)
        )
        group = zarr.create_group(str(root)).create_group("t")
        array = group.create_array(
            "x",
            shape=shape,
            dtype=stored.dtype,
            chunks=chunk,
            shards=shards if seed % 2 else None,
            compressors=compressors[seed % len(compressors)],
            filters=TransposeCodec(order=tuple(range(len(shape)))[::-1]) if seed % 5 == 0 else (),
            fill_value=stored.ravel()[0] if seed % 4 == 0 else None,
            chunk_key_encoding={
                "name": "v2" if seed % 7 == 0 else "default",
                "separator": "./"[seed // 5 % 2],
            },
        )
        array[...] = stored
        group.create_array("id", data=np.arange(shape[0]))
        end = zarr
    group.attrs["colnames"] = ["x"]
    compare(root, stored)
    end.consolidate_metadata(str(root))
    compare(root, stored)


@pytest.mark.parametrize("chunk", [2, 3, 7])
@pytest.mark.integration
def test_text_of_zarr_python(tmp_path, chunk):
    zarr = pytest.importorskip("zarr")
    stored = objects_of("a", "", "é" * 40, "d", "e")
    root = tmp_path / "a.zarr"
    if int(zarr.__version__.split(".")[0]) < 3:
        group = zarr.open_group(str(root), "w").create_group("t")
        group.create_dataset("x", data=stored, chunks=chunk, dtype=str)
        group.create_dataset("id", data=np.arange(5))
    else:
        group = zarr.create_group(str(root)).create_group("t")
        array = group.create_array("x", shape=5, dtype="string", chunks=chunk, shards=2 * chunk)
        array[...] = stored
        group.create_array("id", data=np.arange(5))
    group.attrs["colnames"] = ["x"]
    compare(root, stored)
