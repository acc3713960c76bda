"""Zarr stores written by hand, as JSON and bytes, in every codec, layout and version, without zarr-python.

Each holds the same session: a table with a column of every kind, electrodes, series, metadata, links.
"""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import lzma
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np

from lazynwb.codecs.checksums import crc32c, fletcher32

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = 20
Codecs = list[dict[str, Any]]

#: What undoes a codec is the library's; what does it is this: from bytes and the size of an element.
ENCODERS: dict[str, Callable[[bytes, int, dict[str, Any]], bytes]] = {
    "gzip": lambda data, _, __: gzip.compress(data, mtime=0),
    "zlib": lambda data, _, __: zlib.compress(data),
    "bz2": lambda data, _, __: bz2.compress(data),
    "lzma": lambda data, _, __: lzma.compress(data),
    "lz4": lambda data, _, __: numcodecs.LZ4().encode(data),
    "zstd": lambda data, _, said: numcodecs.Zstd(checksum=said.get("checksum", False)).encode(data),
    "crc32c": lambda data, _, __: data + struct.pack("<I", crc32c(data)),
    "fletcher32": lambda data, _, __: data + struct.pack("<I", fletcher32(data)),
    "shuffle": lambda data, size, _: np.frombuffer(data, "u1").reshape(-1, size).T.tobytes(),
    "blosc": lambda data, size, said: numcodecs.blosc.compress(
        np.frombuffer(data, f"V{size}"), said["cname"].encode(), said["clevel"], said["shuffle"], 0
    ),
}


def blosc(name: str, shuffle: int) -> Codecs:
    return [{"id": "blosc", "cname": name, "clevel": 5, "shuffle": shuffle, "blocksize": 0}]


CODECS: dict[str, Codecs] = {
    "plain": [],
    "gzip": [{"id": "gzip", "level": 1}],
    "zlib": [{"id": "zlib", "level": 1}],
    "zstd": [{"id": "zstd", "level": 1}],
    "zstd_checked": [{"id": "zstd", "level": 1, "checksum": True}],
    "lz4": [{"id": "lz4", "acceleration": 1}],
    "bz2": [{"id": "bz2", "level": 1}],
    "lzma": [{"id": "lzma", "format": 1, "check": -1, "preset": None, "filters": None}],
    "shuffled": [{"id": "shuffle", "elementsize": 0}, {"id": "zlib", "level": 1}],
    "crc32c": [{"id": "crc32c"}],
    "fletcher32": [{"id": "fletcher32"}],
    "blosc_lz4": blosc("lz4", 1),
    "blosc_blosclz": blosc("blosclz", 2),
    "blosc_lz4hc": blosc("lz4hc", 0),
    "blosc_zlib": blosc("zlib", 1),
    "blosc_zstd": blosc("zstd", 2),
}
#: Those that notice whatever happens to the bytes that they hold.
CHECKED = frozenset({"gzip", "zlib", "zstd_checked", "bz2", "lzma", "shuffled", "crc32c", "fletcher32"})
_V3 = ("plain", "gzip", "zstd", "zstd_checked", "crc32c", "blosc_lz4", "blosc_zstd")


class Writer:
    """The objects of a store, by their keys.

    Parameters
    ----------
    version : int
    codecs : list of dict
        Of the elements that have a fixed size, as version 2 describes them.
    shards : str
        "": every chunk is an object; "end+crc32c", "end" or "start+crc32c": where the index of a shard is.
    """

    def __init__(self, version: int, codecs: Codecs, shards: str = "") -> None:
        self.version = version
        self.codecs = codecs
        self.shards = shards
        self.objects: dict[str, bytes] = {}

    def _document(self, path: str, name: str, content: dict[str, Any]) -> None:
        key = f"{path}/{name}" if path else name
        self.objects[key] = json.dumps(content).encode()

    def group(self, path: str, **attributes: Any) -> None:
        if self.version == 2:
            self._document(path, ".zgroup", {"zarr_format": 2})
            if attributes:
                self._document(path, ".zattrs", attributes)
        else:
            content = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            self._document(path, "zarr.json", content)

    def array(  # noqa: PLR0913 - what an array has
        self,
        path: str,
        values: Any,
        chunks: tuple[int, ...],
        *,
        order: str = "C",
        missing: tuple[int, ...] = (),
        fill: Any = 0,
        objects: str = "",
        **attributes: Any,
    ) -> None:
        """Write an array; `objects` names the codec of one of objects."""
        values = np.asarray(values)
        codecs = [{"id": objects}, *(c for c in self.codecs if c["id"] != "shuffle")] if objects else []
        codecs = codecs or [
            {**c, "elementsize": values.dtype.itemsize} if c["id"] == "shuffle" else c for c in self.codecs
        ]
        described = values.dtype.descr if values.dtype.names else values.dtype.str
        if self.version == 2:
            # A compressor's codec may stand among the filters; of these, only some may be the compressor.
            content = {
                "zarr_format": 2, "shape": values.shape, "chunks": chunks, "order": order, "filters": None,
                "compressor": None, "fill_value": fill, "dtype": described,
            }  # fmt: skip
            if codecs and codecs[-1]["id"] not in {"crc32c", "fletcher32", "shuffle", objects}:
                *codecs_before, content["compressor"] = codecs
            else:
                codecs_before = codecs
            content["filters"] = codecs_before or None
            self._document(path, ".zarray", content)
            self._document(path, ".zattrs", attributes)
        else:
            self._document(
                path, "zarr.json", self._version_3(values, chunks, order, fill, codecs, attributes)
            )
        self._chunks(path, values, chunks, order, missing, codecs)

    def _version_3(self, values, chunks, order, fill, codecs, attributes):  # noqa: PLR0913, PLR0917 - the same
        outer = tuple(2 * n for n in chunks) if self.shards and chunks else chunks
        big = values.dtype.str.startswith(">")
        steps: list[dict[str, Any]] = []
        if order == "F" and values.ndim > 1:
            steps.append({"name": "transpose", "configuration": {"order": [*range(values.ndim)][::-1]}})
        if values.dtype != object:
            steps.append({"name": "bytes", "configuration": {"endian": "big" if big else "little"}})
        for codec in codecs:
            said = {key: value for key, value in codec.items() if key != "id"}
            if codec["id"] == "blosc":
                said["shuffle"] = ("noshuffle", "shuffle", "bitshuffle")[said["shuffle"]]
                said["typesize"] = values.dtype.itemsize
            steps.append({"name": codec["id"], **({"configuration": said} if said else {})})
        if self.shards and chunks:
            place, _, checked = self.shards.partition("+")
            little = {"name": "bytes", "configuration": {"endian": "little"}}
            index = [little, {"name": "crc32c"}] if checked else [little]
            said = {"chunk_shape": chunks, "codecs": steps, "index_codecs": index, "index_location": place}
            steps = [{"name": "sharding_indexed", "configuration": said}]
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": values.shape,
            "data_type": _data_type(values.dtype),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": outer}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": "" if values.dtype == object else fill,
            "codecs": steps,
            "attributes": attributes,
        }

    def _chunks(self, path, values, chunks, order, missing, codecs):  # noqa: PLR0913, PLR0917 - the same
        starts = [range(0, n, c) for n, c in zip(values.shape, chunks, strict=True)]
        encoded: dict[tuple[int, ...], bytes | None] = {}
        for number, corner in enumerate(itertools.product(*starts)):
            part = values[(*(slice(s, s + c) for s, c in zip(corner, chunks, strict=True)), ...)]
            whole = np.full(chunks, "" if values.dtype == object else 0, values.dtype)
            whole[(*(slice(0, n) for n in part.shape), ...)] = part
            place = tuple(s // c for s, c in zip(corner, chunks, strict=True))
            encoded[place] = None if number in missing else _encoded(whole, order, codecs)
        mark = "c" if self.version == 3 else ""
        separator = "/" if self.version == 3 else "."
        if self.shards and chunks:
            encoded = self._into_shards(encoded, values.shape, chunks)
        for place, data in encoded.items():
            name = separator.join([*filter(None, [mark]), *map(str, place)]) or "0"
            if data is not None:
                self.objects[f"{path}/{name}"] = data

    def _into_shards(self, encoded, shape, chunks) -> dict[tuple[int, ...], bytes | None]:
        found = {}
        counts = [-(-n // (2 * c)) for n, c in zip(shape, chunks, strict=True)]
        for shard in itertools.product(*map(range, counts)):
            inner = itertools.product(*([2 * p, 2 * p + 1] for p in shard))
            found[shard] = _shard([encoded.get(place) for place in inner], self.shards)
        return found

    def consolidate(self) -> None:
        """Put all metadata into one document and remove the others."""
        if self.version == 2:
            keys = [key for key in self.objects if key.rpartition("/")[2].startswith(".z")]
            metadata = {key: json.loads(self.objects.pop(key)) for key in keys}
            self._document("", ".zmetadata", {"zarr_consolidated_format": 1, "metadata": metadata})
            self._document("", ".zgroup", metadata[".zgroup"])
        else:
            keys = [key for key in self.objects if key.endswith("/zarr.json")]
            metadata = {key.removesuffix("/zarr.json"): json.loads(self.objects.pop(key)) for key in keys}
            root = json.loads(self.objects["zarr.json"])
            said = {"kind": "inline", "must_understand": False, "metadata": metadata}
            self._document("", "zarr.json", {**root, "consolidated_metadata": said})

    def write(self, folder: Path) -> Path:
        for key, data in self.objects.items():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder


def _data_type(dtype: np.dtype) -> Any:
    if dtype.names:
        fields = [{"name": name, "data_type": _data_type(dtype[name])} for name in dtype.names]
        return {"name": "struct", "configuration": {"fields": fields}}
    if dtype.kind in "SU":
        name = "null_terminated_bytes" if dtype.kind == "S" else "fixed_length_utf32"
        return {"name": name, "configuration": {"length_bytes": dtype.itemsize}}
    return "string" if dtype.kind == "O" else str(dtype.newbyteorder("=").name)


def _encoded(values: np.ndarray, order: str, codecs: Codecs) -> bytes:
    if values.dtype == object:
        items = [v if isinstance(v, bytes) else str(v).encode() for v in values.ravel()]
        if codecs[0]["id"] == "json2":
            shape = list(values.shape)
            data = json.dumps([*values.ravel().tolist(), "|O", shape]).encode()
        else:
            data = struct.pack("<I", len(items)) + b"".join(struct.pack("<I", len(i)) + i for i in items)
        codecs = codecs[1:]
    else:
        data = values.tobytes(order)
    for codec in codecs:
        data = ENCODERS[codec["id"]](data, values.dtype.itemsize if values.dtype != object else 1, codec)
    return data


def _shard(chunks: list[bytes | None], kind: str) -> bytes | None:
    """A shard, with its index; None if it has no chunk."""
    if not any(chunk is not None for chunk in chunks):
        return None
    place, _, checked = kind.partition("+")
    size = 16 * len(chunks) + (4 if checked else 0)
    body, entries = b"", []
    for chunk in chunks:
        nothing = [2**64 - 1, 2**64 - 1]
        entries += nothing if chunk is None else [len(body) + (size if place == "start" else 0), len(chunk)]
        body += chunk or b""
    index = struct.pack(f"<{len(entries)}Q", *entries)
    index += struct.pack("<I", crc32c(index)) if checked else b""
    return index + body if place == "start" else body + index


def session(writer: Writer, random: np.random.Generator) -> None:
    """Write groups, columns of every kind, series and metadata."""
    version = writer.version
    link = "zarr_link" if version == 2 else "_LINKS"
    here = {"source": "."}
    writer.group("", neurodata_type="NWBFile", nwb_version="2.7.0", **{".specloc": "specifications"})
    _texts(writer, {"identifier": "me", "session_description": "a session", "session_start_time": "2024"})
    for path in ("general", "general/extracellular_ephys", "acquisition", "intervals", "processing"):
        writer.group(path)
    writer.group("general/subject", neurodata_type="Subject")
    _texts(writer, {"general/session_id": "s1", "general/subject/species": "Mus musculus"})
    writer.array("general/keywords", np.array(["one", "two"], object), (2,), objects="vlen-utf8")

    electrodes = "general/extracellular_ephys/electrodes"
    writer.group(electrodes, colnames=["location", "z"], neurodata_type="DynamicTable")
    writer.array(f"{electrodes}/id", np.arange(5), (5,), neurodata_type="ElementIdentifiers")
    names = np.array([f"CA{k}" for k in range(5)], object)
    writer.array(f"{electrodes}/location", names, (3,), objects="vlen-utf8", neurodata_type="VectorData")
    writer.array(f"{electrodes}/z", random.normal(size=5), (5,), neurodata_type="VectorData")

    _units(writer, random, electrodes)
    intervals = {"colnames": ["start_time", "stop_time"], "neurodata_type": "TimeIntervals"}
    shared = [{"name": "stop_time", "path": "/units/f", **here}]
    writer.group("intervals/trials", **intervals, **{link: shared})
    writer.array("intervals/trials/id", np.arange(ROWS), (ROWS,), neurodata_type="ElementIdentifiers")
    writer.array("intervals/trials/start_time", np.arange(ROWS) / 2, (7,), neurodata_type="VectorData")

    writer.group("acquisition/rated", neurodata_type="TimeSeries", description="made", comments="none")
    writer.array("acquisition/rated/data", random.normal(size=(60, 3)), (16, 2), unit="V", conversion=2.0)
    writer.array("acquisition/rated/starting_time", np.float64(1.5), (), rate=10.0, unit="seconds")
    times = [{"name": "timestamps", "path": "/acquisition/stamped/timestamps", **here}]
    writer.group("acquisition/stamped", neurodata_type="TimeSeries")
    writer.array("acquisition/stamped/data", random.integers(0, 99, 40).astype("<i2"), (16,), unit="A")
    writer.array("acquisition/stamped/timestamps", np.arange(40) / 4, (16,), interval=1, unit="seconds")
    writer.group("processing/linked", neurodata_type="TimeSeries", **{link: times})
    writer.array("processing/linked/data", random.normal(size=40).astype("<f4"), (40,), unit="V")


def _texts(writer: Writer, texts: dict[str, str]) -> None:
    """Scalars of text: hdmf-zarr stores them as arrays of one element in version 2."""
    for path, text in texts.items():
        if writer.version == 2:
            array = np.array([text], object)
            writer.array(path, array, (1,), objects="vlen-utf8", zarr_dtype="scalar")
        else:
            writer.array(path, np.array(text, object), (), objects="vlen-utf8")


def _units(writer: Writer, random: np.random.Generator, electrodes: str) -> None:
    lengths = random.integers(0, 5, ROWS)
    total = int(lengths.sum())
    inner = random.integers(0, 3, total)
    records = np.zeros(ROWS, [("a", "<i4"), ("b", "<f8")])
    records["a"], records["b"] = np.arange(ROWS), random.normal(size=ROWS)
    columns: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
        "f": (random.normal(size=ROWS), (7,), {}),
        "i": (np.arange(ROWS, dtype=">i4") * 1000, (8,), {}),
        "m": (random.normal(size=(ROWS, 3, 2)).astype("<f4"), (6, 2, 2), {}),
        "fortran": (random.integers(0, 99, (ROWS, 4)).astype("<i2"), (8, 3), {"order": "F"}),
        "sparse": (np.arange(ROWS) / 2, (5,), {"missing": (1, 3), "fill": 1.5}),
        "ok": (np.arange(ROWS) % 3 == 0, (ROWS,), {"fill": False}),
        "name": (np.array([f"unit {k} ü" for k in range(ROWS)], object), (9,), {"objects": "vlen-utf8"}),
        "wide": (np.array([f"w{k}" for k in range(ROWS)], "<U4"), (6,), {"fill": ""}),
        "fixed": (np.array([f"x{k}" for k in range(ROWS)], "S6"), (ROWS,), {"fill": ""}),
        "record": (records, (8,), {"fill": None if writer.version == 2 else {"a": 0, "b": 0.0}}),
        "x": (random.normal(size=total), (10,), {}),
        "y": (random.integers(0, 99, int(inner.sum())), (16,), {}),
        "where": (random.integers(0, 5, ROWS), (ROWS,), {"neurodata_type": "DynamicTableRegion"}),
        "to": _references(writer.version),
    }
    writer.group("units", colnames=list(columns), neurodata_type="Units", description="units")
    writer.array("units/id", np.arange(ROWS), (6,), neurodata_type="ElementIdentifiers")
    for name, (values, chunks, more) in columns.items():
        said = {"neurodata_type": "VectorData", "description": name, **more}
        if name == "where":
            said["table"] = _reference(writer.version, f"/{electrodes}")
        writer.array(f"units/{name}", values, chunks, **said)
    indices = {
        "x_index": (np.cumsum(lengths), "x"),
        "y_index": (np.cumsum(inner), "y"),
        "y_index_index": (np.cumsum(lengths), "y_index"),
    }
    for name, (ends, target) in indices.items():
        said = {"neurodata_type": "VectorIndex", "target": _reference(writer.version, f"/units/{target}")}
        writer.array(f"units/{name}", ends.astype("u1"), (12,), **said)


def _reference(version: int, path: str) -> dict[str, Any]:
    said = {"source": ".", "path": path, "object_id": "x", "source_object_id": "y"}
    return {"zarr_dtype": "object", "value": said} if version == 2 else {"_REFERENCE": said}


def _references(version: int) -> tuple[np.ndarray, tuple[int, ...], dict[str, Any]]:
    items = np.empty(ROWS, object)
    for row in range(ROWS):
        items[row] = _reference(version, "/units")["value"] if version == 2 else "/units"
    kind = {"zarr_dtype": "object"} if version == 2 else {"_DTYPE": "object_reference"}
    return items, (11,), {"objects": "json2" if version == 2 else "vlen-utf8", **kind}


def corpus() -> dict[str, Callable[[Path], Path]]:
    """Return the writers of the stores by name."""
    kinds = [(2, name, "", number % 2 == 0) for number, name in enumerate(CODECS)]
    kinds += [(3, name, "", number % 2 == 0) for number, name in enumerate(_V3)]
    kinds += [(3, "plain", "end+crc32c", True), (3, "zstd", "end", False), (3, "gzip", "start+crc32c", False)]
    kinds += [(3, "crc32c", "end+crc32c", False), (3, "blosc_lz4", "end+crc32c", True)]
    made = {}
    for version, name, shards, consolidated in kinds:
        parts = [f"v{version}", name, shards.replace("+", "_"), "consolidated" if consolidated else "apart"]
        made["-".join(filter(None, parts))] = _maker(version, name, shards, consolidated=consolidated)
    return made


def _maker(version: int, name: str, shards: str, *, consolidated: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        writer = Writer(version, CODECS[name], shards)
        session(writer, np.random.default_rng(7))
        if consolidated:
            writer.consolidate()
        return writer.write(folder)

    return make
