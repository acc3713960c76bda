"""Zarr for `damage.py`: stores of every kind, kinds of damage, and a plain reader for comparison."""

from __future__ import annotations

import bz2
import functools
import json
import lzma
import os
import re
import shutil
import struct
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

import damage_hdf5
import zarr_stores
from damage import ABSENT
from lazynwb.codecs.checksums import crc32c
from lazynwb.formats.nwb.object_listing import unreadable_placeholder
from readers import plain_zarr, zarr_python
from zarr_twins.make import ARCHIVE, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from damage import Key

DOCUMENTS = frozenset([".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json"])
#: Of the sessions that hdmf-zarr has written, those of different kinds.
TWINS = frozenset(
    [
        *(
            "aligned",
            "bare",
            "compressed_series",
            "compressed_table",
            "described",
            "electrodes",
            "enumerated",
        ),
        *(
            "events",
            "every_dtype",
            "image_series",
            "intervals",
            "linked_series",
            "no_rows",
            "one_row",
            "ophys",
        ),
        *("ragged_trials", "rated_series", "regions", "trials_with_references", "units", "waveforms"),
    ]
)
#: Values of the wrong type, the wrong sign, the wrong size, or none at all.
ABSURD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 7, 255, 2**31, 2**40, 2**62, 2**63, 2**64, 10**400, -(2**62), 0.5,
        1e308,
    float("nan"), float("inf"), "", "x", "\0", "..", "../../../etc", "/", "ü", "\ud800", "<f8", "|O",
        "float64",
    [], [0], [1], [-1], [2**62], [2**40, 2**40], [None], [[]], ["a"], [1] * 40, {}, {"a": 1}, {"name": None},
    {"id": "pickle"}, {"id": "no such codec"}, {"name": "no such codec"}, {"path": "/units", "source": "."},
    {"_REFERENCE": {"path": "..", "source": ".."}}, [{"name": "..", "path": "..", "source": ".."}],
]  # fmt: skip
#: Values that are of the right type for a field, and wrong nevertheless.
LIKELY: dict[str, list[Any]] = {
    "shape": [[0], [1], [2], [5], [19], [21], [10**6], [2**40], [2**62], [20, 3], [20, 3, 2, 1], [], [20.0],
        ["20"]],
    "chunks": [[0], [1], [3], [-1], [2**31], [2**62], [20, 1], [], [2**40], [True]],
    "chunk_shape": [[0], [1], [3], [-1], [2**31], [2**62], [20, 1], [], [2**40]],
    "dtype": ["<f8", ">f8", "<i8", "<u1", "|O", "|b1", "<U1", "<U99999999", "|S0", "|S999999999", "<c16",
        "<M8[ns]",
              "|V8", "<f16", "object", [["a", "<i4"]], [["a", "<i4", [2**19]]] * 3, [["a", "|O"]], [],
              [["a", "<i4"], ["a", "<i4"]]],
    "data_type": ["float64", "int8", "uint64", "bool", "string", "bytes", "complex128", "float16", "r8",
        "r999999992", "no",
                  {"name": "struct", "configuration": {"fields": []}},
                  {"name": "fixed_length_utf32", "configuration": {"length_bytes": 2**40}},
                  {"name": "numpy.datetime64", "configuration": {"unit": "ns", "scale_factor": 1}}],
    "compressor": [None, {"id": "zlib", "level": 1}, {"id": "gzip"}, {"id": "blosc"}, {"id": "zstd"},
        {"id": "lz4"},
                   {"id": "bz2"}, {"id": "lzma"}, {"id": "delta", "dtype": "<f8"}, {"id": "pickle"}, {}],
    "filters": [[], [{"id": "delta", "dtype": "<f8"}], [{"id": "delta", "dtype": "|O"}],
        [{"id": "vlen-utf8"}],
                [{"id": "shuffle", "elementsize": 2**40}], [{"id": "shuffle", "elementsize": 0}],
                [{"id": "pickle"}],
                [{"id": "fixedscaleoffset", "dtype": "<f8", "astype": "<i2", "scale": 0, "offset": 0}],
                [{"id": "astype", "encode_dtype": "|O", "decode_dtype": "<f8"}], [{"id": "packbits"}],
                [{"id": "quantize", "digits": 10**9, "dtype": "<f8"}], [{"id": "zlib"}] * 50,
                [{"id": "vlen-array"}],
                [{"id": "json2"}], [{"id": "msgpack2"}], [{"id": "vlen-array", "dtype": "|O"}]],
    "codecs": [[], [{"name": "bytes"}], [{"name": "bytes", "configuration": {"endian": "big"}}],
               [{"name": "transpose", "configuration": {"order": [5, 5]}}, {"name": "bytes"}],
               [{"name": "sharding_indexed", "configuration": {"chunk_shape": [1], "codecs": [],
               "index_codecs": []}}],
               [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}], [{"name": "crc32c"}],
               [{"name": "bytes"}, {"name": "zstd"}], [{"name": "bytes"}, {"name": "blosc"}],
               [{"name": "vlen-utf8"}]],
    "index_location": ["start", "end", "middle"],
    "fill_value": [1, -1, 0.5, "NaN", "Infinity", "0x7ff8000000000001", "x", "AAAA", 2**70, True, [1, 2],
        {"a": 1}],
    "order": ["F", "C", "K", [0], [1, 0], [2, 1, 0]],
    "dimension_separator": ["/", ".", "..", ""],
    "separator": ["/", ".", "..", ""],
    "zarr_format": [1, 2, 3, 4, "2"],
    "node_type": ["array", "group", "x"],
    "endian": ["big", "little", "x"],
    "name": ["gzip", "zstd", "blosc", "bytes", "crc32c", "sharding_indexed", "transpose", "vlen-utf8",
        "../x", "data", "f"],
    "id": ["gzip", "zstd", "blosc", "zlib", "lz4", "vlen-utf8", "json2", "pickle", "delta", "shuffle"],
    "path": ["/", "", "..", "../../x", "/units", "/units/f", "/processing/linked", "/acquisition",
        "x" * 5000, "/\0"],
    "source": ["..", "../other.zarr", "/etc", "/", "http://localhost:1/x.zarr", "./units", "\0", "."],
    "neurodata_type": ["DynamicTable", "TimeSeries", "VectorIndex", "DynamicTableRegion", "EnumData",
        "Units"],
    "colnames": [["f"], [], ["f", "f"], ["../f"], ["a/b"], ["\0"], [""], ["f"] * 1000, "f", ["no"],
        ["x_index"], [".."]],
    "rate": [0, -1, 1e-300, 1e300, float("nan"), float("inf"), 10**400],
    "zarr_dtype": ["scalar", "object", "str", "int", "float", [{"name": "a", "dtype": "object"}]],
    "_DTYPE": ["object_reference", "int", [{"name": "a", "dtype": "object"}]],
    "elementsize": [0, -1, 1, 3, 2**31, 2**62],
    "must_understand": [True],
}  # fmt: skip


#: Lists and objects within one another that attributes are shown with.
_MAX_DEPTH = 32


class Damage(NamedTuple):
    """One kind of damage, done.

    Attributes
    ----------
    kind : str
    what : str
        Which object, and how: for whoever reads the report.
    """

    kind: str
    what: str


class Store:
    """A copy of a store that may be damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = (path for path in folder.rglob("*") if path.is_file())
        self.keys = sorted(path.relative_to(folder).as_posix() for path in found)
        self.documents = [key for key in self.keys if key.rpartition("/")[2] in DOCUMENTS]
        self.chunks = sorted({*self.keys} - {*self.documents})

    def read(self, key: str) -> bytes:
        return (self.folder / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        """Replace an object; copies share their files with the original store."""
        path = self.folder / key
        path.unlink(missing_ok=True)
        path.write_bytes(data)

    def array_of(self, key: str) -> str:
        """The array to which a chunk belongs."""
        return re.sub(r"(/c)?/[\d./]+$|/c$", "", key)

    def described(self, path: str) -> dict[str, Any]:
        """Damage the metadata of an array."""
        for document, inside in (
            (f"{path}/.zarray", []),
            (f"{path}/zarr.json", []),
            (".zmetadata", ["metadata", f"{path}/.zarray"]),
            ("zarr.json", ["consolidated_metadata", "metadata", path]),
        ):
            if document in self.keys:
                found = json.loads(self.read(document))
                for name in inside:
                    found = found.get(name, {})
                if found:
                    return found
        return {}


# --- documents ----------------------------------------------------------------------------------------


def truncated_document(store: Store, random: Random) -> Damage:
    key = random.choice(store.documents)
    data = store.read(key)
    at = random.choice([0, 1, len(data) - 1, random.randrange(len(data))])
    store.write(key, data[:at])
    return Damage("document truncated", f"{key} after {at} of {len(data)} bytes")


def flipped_document(store: Store, random: Random) -> Damage:
    key = random.choice(store.documents)
    data = bytearray(store.read(key))
    places = [random.randrange(len(data)) for _ in range(random.choice([1, 1, 1, 5]))]
    for at in places:
        data[at] ^= 1 << random.randrange(8)
    store.write(key, bytes(data))
    return Damage("bits of a document", f"{key} at {places}")


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from _places(inner, (*path, name))


def _change(store: Store, random: Random, change: Callable[[Any, Any], Any]) -> tuple[str, str, Any]:
    """Change a value in a document, preferably one with a well-known name."""
    key = random.choice(store.documents)
    document = json.loads(store.read(key))
    places = list(_places(document))
    if not places:
        return _change(store, random, change)
    known = [place for place in places if place[-1] in LIKELY]
    place = random.choice(known if known and random.random() < 0.7 else places)
    holder = functools.reduce(lambda value, name: value[name], place[:-1], document)
    what = change(holder, place[-1])
    store.write(key, json.dumps(document).encode())
    return key, f"{key} {place}", what


def replaced_field(store: Store, random: Random) -> Damage:
    def replace(holder: Any, name: Any) -> Any:
        choices = LIKELY[name] if name in LIKELY and random.random() < 0.7 else ABSURD
        value = random.choice(choices)
        old = holder[name]
        if isinstance(old, list) and isinstance(value, list) and len(value) == 1 and random.random() < 0.7:
            value = [*old[:-1], value[0]] if random.random() < 0.5 else value * len(old)
        holder[name] = value
        return value

    _, where, value = _change(store, random, replace)
    return Damage("field replaced", f"{where} by {str(value)[:100]}")


def removed_field(store: Store, random: Random) -> Damage:
    def remove(holder: Any, name: Any) -> None:
        del holder[name]

    return Damage("field removed", _change(store, random, remove)[1])


def mark_field(store: Store, random: Random, text: str) -> str:
    """Replace a value by a text that JSON does not allow."""
    mark = "\ue000"

    def replace(holder: Any, name: Any) -> None:
        holder[name] = mark

    key, where, _ = _change(store, random, replace)
    store.write(key, store.read(key).replace(json.dumps(mark).encode(), text.encode()))
    return where


def nested_field(store: Store, random: Random) -> Damage:
    deep = random.choice([100, 900, 10_000, 100_000])
    start, stop = random.choice([("[", "]"), ('{"a":', "}")])
    where = mark_field(store, random, start * deep + "1" + stop * deep)
    return Damage("nesting", f"{where}, {deep} times")


def odd_number(store: Store, random: Random) -> Damage:
    text = random.choice(
        ["NaN", "-Infinity", "1e999", "9" * 5000, "-0", "1E400", "0x10", "1" + "0" * 100_000, "'a'"]
    )
    return Damage("odd number", f"{mark_field(store, random, text)} by {text[:20]}")


def duplicate_key(store: Store, random: Random) -> Damage:
    key = random.choice(store.documents)
    document = json.loads(store.read(key))
    if not document:
        return duplicate_key(store, random)
    name = random.choice(list(document))
    value = random.choice(LIKELY.get(name, ABSURD))
    more = f"{json.dumps(name)}:{json.dumps(value)}"
    text = store.read(key).decode().strip()
    text = "{" + more + "," + text[1:] if random.random() < 0.5 else text[:-1] + "," + more + "}"
    store.write(key, text.encode())
    return Damage("duplicate key", f"{key}: {more[:100]}")


def replaced_document(store: Store, random: Random) -> Damage:
    key = random.choice(store.documents)
    other = random.choice(store.documents)
    contents = [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"NaN",
        bytes(100),
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
    ]
    contents += [b"<html>Not Found</html>", b"{" * 100_000, b"[" * 100_000, store.read(other)]
    number = random.randrange(len(contents))
    store.write(key, contents[number])
    return Damage("document replaced", f"{key} by {other if number == 13 else contents[number][:20]!r}")


def absurd_names(store: Store, random: Random) -> Damage:
    """Invalid keys of documents: names of members, attributes and consolidated entries."""
    names = [
        "..",
        "../../x",
        "",
        "/",
        "//",
        "\0",
        "a" * 5000,
        "c/0",
        "\u202e",
        "units/../..",
        ".zgroup",
        "zarr.json",
    ]

    def rename(holder: Any, name: Any) -> str:
        new = random.choice(names)
        if isinstance(holder, dict):
            holder[f"{name}/../{new}" if random.random() < 0.3 else new] = holder.pop(name)
        return new

    _, where, new = _change(store, random, rename)
    return Damage("name replaced", f"{where} by {new[:20]!r}")


# --- chunks -------------------------------------------------------------------------------------------


def truncated_chunk(store: Store, random: Random) -> Damage:
    key = random.choice(store.chunks)
    data = store.read(key)
    at = random.choice([0, 1, 4, 16, max(len(data) - 1, 0), random.randrange(max(len(data), 1))])
    store.write(key, data[:at])
    return Damage("chunk truncated", f"{key} after {at} of {len(data)} bytes")


def lengthened_chunk(store: Store, random: Random) -> Damage:
    key = random.choice(store.chunks)
    data = store.read(key)
    more = random.choice([b"\0", b"\xff" * 8, data, bytes(10_000)]) or b"\0"
    store.write(key, data + more)
    return Damage("chunk lengthened", f"{key} by {len(more)} bytes")


def flipped_chunk(store: Store, random: Random) -> Damage:
    key = random.choice([key for key in store.chunks if store.read(key)])
    data = bytearray(store.read(key))
    places = [random.randrange(len(data)) for _ in range(random.choice([1, 1, 1, 10]))]
    places += [random.randrange(min(len(data), 16))] * random.randrange(2)
    for at in places:
        data[at] ^= random.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
    store.write(key, bytes(data))
    return Damage("bits of a chunk", f"{key} at {places}")


def overwritten_chunk(store: Store, random: Random) -> Damage:
    key = random.choice([key for key in store.chunks if store.read(key)])
    data = store.read(key)
    at = random.choice([0, random.randrange(len(data))])
    size = random.choice([len(data), 4, 8, 16])
    fill = random.choice([b"\0", b"\xff", b"\x80", b"\x7f", b"A"])
    new = data[:at] + (fill * size)[: len(data) - at] + data[at + size :]
    store.write(key, new)
    return Damage("chunk overwritten", f"{key} from {at}, {size} bytes of {fill!r}")


def swapped_chunk(store: Store, random: Random) -> Damage:
    one, other = random.choice(store.chunks), random.choice(store.chunks)
    first, second = store.read(one), store.read(other)
    store.write(one, second)
    store.write(other, first)
    return Damage("chunks swapped", f"{one} and {other}")


def missing_object(store: Store, random: Random) -> Damage:
    key = random.choice(random.choice([store.chunks, store.keys]))
    path = store.folder / key
    if random.random() < 0.2 and path.parent != store.folder:
        shutil.rmtree(path.parent)
        return Damage("folder missing", str(path.parent.relative_to(store.folder)))
    path.unlink()
    return Damage("object missing", key)


@functools.cache
def bombs() -> dict[str, bytes]:
    """Small objects that claim, or decompress to, far more bytes than a chunk."""
    frame = bytearray(b"\x28\xb5\x2f\xfd" + bytes([0b11000000 | 0b100000]) + struct.pack("<Q", 4 * 2**30))
    unknown = bytearray(b"\x28\xb5\x2f\xfd" + bytes([0, 0x58]))  # of undeclared size, in windows of 2 MiB
    blocks = [struct.pack("<I", (131_072 << 3) | 2)[:3] + b"\0"] * 32_767
    blocks.append(struct.pack("<I", (131_072 << 3) | 3)[:3] + b"\0")  # runs of zeros, and the last of them
    zeros = bytes(2**20)
    deflate = zlib.compressobj(9, wbits=-15)
    block = deflate.compress(zeros) + deflate.flush(zlib.Z_FULL_FLUSH)  # which nothing before it matters to
    stream = block * 512 + deflate.flush()
    checksum = functools.reduce(lambda value, _: zlib.crc32(zeros, value), range(512), 0)
    packer, xz = bz2.BZ2Compressor(), lzma.LZMACompressor(preset=0)
    return {
        "zstd": bytes(frame) + b"".join(blocks),
        "zstd without a size": bytes(unknown) + b"".join(blocks),
        "gzip": b"\x1f\x8b\x08" + bytes(7) + stream + struct.pack("<II", checksum, 2**29),
        "zlib": b"\x78\x9c" + stream + struct.pack(">I", 0x00000001),
        "bz2": b"".join(packer.compress(zeros) for _ in range(16)) + packer.flush(),
        "lzma": b"".join(xz.compress(zeros) for _ in range(32)) + xz.flush(),
        "lz4": struct.pack("<I", 0x7FFFFFFF) + bytes(100),
        "lz4 of zeros": struct.pack("<I", 255 * 10**6) + b"\x1f\0\1\0" + b"\xff" * 10**6 + b"\0",
        "blosc": struct.pack("<BBBBIII", 2, 1, 0x21, 8, 0x7FFFFFFF, 2**18, 116) + bytes(100),
        "blosc copied": struct.pack("<BBBBIII", 2, 1, 0x23, 8, 0x7FFFFFFF, 2**18, 116) + bytes(100),
        "vlen": struct.pack("<I", 0xFFFFFFFF) + bytes(100),
        "vlen item": struct.pack("<II", 9, 0xFFFFFFFF) + bytes(100),
        "json": b"[" * 100_000,
        "json numbers": b"[" + b"9" * 200_000 + b"]",
        "pickle": b"\x80\x05\x8e" + struct.pack("<Q", 2**62) + b".",
        "pickle code": b"cos\nsystem\n(S'true'\ntR.",
        "pickle shape": (
            b"\x80\x04cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\1b\x87R(K\1"
            b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86cnumpy\ndtype\nX\2\0\0\0O8K\0K\1\x87R\x89]tb."
        ),
        "zeros": bytes(5 * 2**20),
    }


def bomb(store: Store, random: Random) -> Damage:
    key = random.choice(store.chunks)
    array = store.array_of(key)
    said = json.dumps(store.described(array))
    suited = [name for name in bombs() if f'"{name.partition(" ")[0]}' in said]
    name = random.choice(suited if suited and random.random() < 0.8 else list(bombs()))
    data = bombs()[name]
    if "sharding_indexed" in said:
        old = store.read(key)
        places = _shard_of(store, key)
        if places is None:
            return bomb(store, random)
        body, index, count, start = places
        entries = [struct.unpack_from("<QQ", index, 16 * k) for k in range(count)]
        if start:
            return bomb(store, random)
        entries[random.randrange(count)] = (len(body), len(data))
        data = body + data + _index_of(entries, checked=len(index) % 16 == 4)
        del old
    store.write(key, data)
    return Damage("bomb", f"{key}: {name}")


# --- shards -------------------------------------------------------------------------------------------


def _shard_of(store: Store, key: str) -> tuple[bytes, bytes, int, bool] | None:
    """The chunks of a shard, its index, the number of entries, and whether the index comes first."""
    said = store.described(store.array_of(key))
    outer = said.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape", [])
    first = (said.get("codecs") or [{}])[0]
    if first.get("name") != "sharding_indexed":
        return None
    settings = first["configuration"]
    count = 1
    for n, c in zip(outer, settings["chunk_shape"], strict=True):
        count *= n // c
    size = 16 * count + 4 * (len(settings["index_codecs"]) - 1)
    data = store.read(key)
    if settings.get("index_location") == "start":
        return data[size:], data[:size], count, True
    return data[:-size], data[-size:], count, False


def _index_of(entries: list[tuple[int, int]], *, checked: bool) -> bytes:
    index = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    return index + struct.pack("<I", crc32c(index)) if checked else index


def shard_index(store: Store, random: Random) -> Damage | None:
    """A shard index with wrong locations and a correct or wrong checksum."""
    shards = [
        key for key in store.chunks if "sharding_indexed" in json.dumps(store.described(store.array_of(key)))
    ]
    if not shards:
        return None
    key = random.choice(shards)
    body, index, count, start = _shard_of(store, key)  # type: ignore[misc]
    entries = [struct.unpack_from("<QQ", index, 16 * k) for k in range(count)]
    has_checksum = len(index) % 16 == 4
    number = random.randrange(count)
    offset, size = entries[number]
    missing = 2**64 - 1
    new = random.choice(
        [
            (missing, 0), (0, missing), (missing, missing), (2**63, 8), (2**63 - 1, 2**63 - 1), (len(body),
            8),
            (len(body) - 1, 10**6), (0, len(body) + len(index)), (offset, 0), (offset, 2**40), (0, 0),
            (offset + 1, size), (offset, max(size - 1, 0)), entries[random.randrange(count)], (2**64 - 2,
            2**64 - 2),
        ]
    )  # fmt: skip
    right = random.random() < 0.6
    entries[number] = tuple(n % 2**64 for n in new)
    made = _index_of(entries, checked=has_checksum)
    if has_checksum and not right:
        made = made[:-4] + index[-4:]
    store.write(key, made + body if start else body + made)
    return Damage("index of a shard", f"{key} {number}: {new}")


# --- files --------------------------------------------------------------------------------------------


def odd_file(store: Store, random: Random) -> Damage:
    """Replace an object by a file system entry of another kind."""
    key = random.choice(random.choice([store.chunks, store.documents]))
    path = store.folder / key
    kind = random.choice(["folder", "file", "unreadable", "outside", "loop", "pipe", "dangling", "device"])
    if kind == "file":
        path = path.parent if path.parent != store.folder else path
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.write_bytes(b"a file")
        return Damage("odd file", f"{path.relative_to(store.folder)}: {kind}")
    data = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "unreadable":
        path.write_bytes(data)
        path.chmod(0)
    elif kind == "outside":
        path.symlink_to("/etc/hostname")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)
    return Damage("odd file", f"{key}: {kind}")


def odd_links(store: Store, random: Random) -> Damage:
    """Links of hdmf-zarr to other stores, to themselves, or in cycles."""
    version_3 = "zarr.json" in store.keys
    name = "_LINKS" if version_3 else "zarr_link"
    targets = [
        "/units",
        "/",
        "..",
        "../../..",
        "/units/..",
        "/a",
        "/units/self",
        "",
        "\0",
        "/acquisition/rated",
    ]
    sources = [
        ".",
        "..",
        "/",
        "/etc",
        "../../../../etc",
        "file:///etc",
        "https://localhost:1/x.zarr",
        "\0",
        "other",
    ]
    names = ["self", "f", "..", "", "a/b", "x" * 3000, "name", "\0", "id"]
    links = [
        {"name": random.choice(names), "path": random.choice(targets), "source": random.choice(sources)}
        for _ in range(random.choice([1, 3, 1000]))
    ]
    for key in (".zmetadata", "zarr.json", "units/.zattrs", "units/zarr.json"):
        if key not in store.keys:
            continue
        document = json.loads(store.read(key))
        holder = document
        if key == ".zmetadata":
            holder = document["metadata"].setdefault("units/.zattrs", {})
        elif "consolidated_metadata" in document:
            holder = (
                document["consolidated_metadata"]["metadata"]
                .get("units", document)
                .setdefault("attributes", {})
            )
        elif key.endswith("zarr.json"):
            holder = document.setdefault("attributes", {})
        holder[name] = links
        store.write(key, json.dumps(document).encode())
    return Damage("odd links", repr(links[:2])[:200])


KINDS: list[Callable[[Store, Random], Damage | None]] = [
    truncated_document, flipped_document, flipped_document, replaced_field, replaced_field, replaced_field,
    replaced_field, removed_field, nested_field, odd_number, duplicate_key, replaced_document, absurd_names,
    truncated_chunk, lengthened_chunk, flipped_chunk, flipped_chunk, overwritten_chunk, swapped_chunk,
    missing_object, bomb, shard_index, shard_index, odd_file, odd_links,
]  # fmt: skip


def damage(victim: Path, copy: Path, rng: Random) -> str:
    """Write a damaged copy; see `damage.Format`. What was done is written beside it."""
    shutil.copytree(victim, copy, copy_function=os.link)  # whoever damages a file writes it anew
    store = Store(copy)
    done = None
    while done is None:
        done = rng.choice(KINDS)(store, rng)
    (copy.parent / "damage.txt").write_text(f"{done.kind}: {done.what!a}", encoding="ascii")
    return done.kind


# --- the stores ---------------------------------------------------------------------------------------


def build(folder: Path) -> list[Path]:
    """Write the stores, those of hdmf-zarr among them; see `damage.Format`."""
    made = [make(folder / name / "session.nwb.zarr") for name, make in zarr_stores.corpus().items()]
    twins = folder / "twins"
    unpack(ARCHIVE, twins, [f"{name}." for name in TWINS])
    for source in sorted(twins.glob("*.v[23].nwb.zarr")):
        target = folder / source.name.removesuffix(".nwb.zarr") / "session.nwb.zarr"
        target.parent.mkdir()
        made.append(source.rename(target))
    shutil.rmtree(twins)
    return made


# --- the independent reader ---------------------------------------------------------------------------


@functools.cache
def _copies() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="damage_zarr_")


@functools.lru_cache(maxsize=2)
def _as_hdf5(path: Path) -> Path:
    copy = Path(_copies().name) / f"{abs(hash(path))}.h5"
    copy.unlink(missing_ok=True)
    zarr_python.to_hdf5(path, copy, plain_zarr.open_root(path))
    return copy


@functools.lru_cache(maxsize=2)
def _paths(copy: Path) -> dict[int, str]:
    """The path of each object of a file, regardless of links to it."""
    found = {}
    with h5py.File(copy) as file:
        found[h5py.h5o.get_info(file.id).addr] = ""
        file.visititems(lambda name, item: found.update({h5py.h5o.get_info(item.id).addr: name}))
    return found


def _attribute(path: Path, name: str, attribute: str) -> Any:
    copy = _as_hdf5(path)
    with h5py.File(copy) as file:
        if name not in file:
            return ABSENT
        own = _paths(copy)[h5py.h5o.get_info(file[name].id).addr]
    node = plain_zarr.open_root(path).store.open(own)
    if node is None or attribute not in node.attrs:
        return ABSENT
    value = node.attrs[attribute]
    is_path = attribute == ".specloc" and isinstance(value, str)
    is_reference = isinstance(value, dict) and not {"_REFERENCE", "zarr_dtype"}.isdisjoint(value)
    target = value if is_path else zarr_python.referred(value) if is_reference else None
    return _shallow(value, 0) if not isinstance(target, str) else f"/{target.strip('/')}"


def _shallow(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return unreadable_placeholder("nested too deeply")
    if isinstance(value, dict):
        return {name: _shallow(item, depth + 1) for name, item in value.items()}
    return [_shallow(item, depth + 1) for item in value] if isinstance(value, list) else value


def _with_nulls(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(zarr_python.NULL, "\0")
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    return {name: _with_nulls(item) for name, item in value.items()} if isinstance(value, dict) else value


def _references(array: Any) -> list[str | None]:
    """Paths of targets, which need not exist, as for references in HDF5."""
    paths = [zarr_python.referred(item) or item for item in np.asarray(array[...]).tolist()]
    return [f"/{path.strip('/')}" if isinstance(path, str) and path else None for path in paths]


def expected(path: Path, key: Key) -> Any:
    """Return what `plain_zarr` reads; see `damage.Format`."""
    kind, name, *rest = key
    if kind == "attribute":
        return _attribute(path, name, rest[0])
    copy = _as_hdf5(path)
    if kind == "object":
        with h5py.File(copy) as file:
            found = file.get(name)
            if isinstance(found, h5py.Group) and not len(found):
                return ABSENT  # a group without members plays no part: it is not listed
    if kind in {"column", "slice"}:
        with h5py.File(copy) as file:
            group = file.get(name)
            column = rest[0]
            parts = [column, f"{column}_index", f"{column}_index_index"]
            for part in parts if isinstance(group, h5py.Group) else ():
                dataset = group.get(part)
                if isinstance(dataset, h5py.Dataset) and zarr_python.BROKEN in dataset.attrs:
                    raise ValueError(dataset.attrs[zarr_python.BROKEN])
            found = group.get(column) if isinstance(group, h5py.Group) else None
            if kind == "column" and isinstance(found, h5py.Dataset) and parts[1] not in group:
                own = _paths(copy)[h5py.h5o.get_info(found.id).addr]
                if h5py.check_ref_dtype(found.dtype) and len(found.shape) == 1:
                    return _references(plain_zarr.open_root(path).store.open(own))
    return _with_nulls(damage_hdf5.expected(copy, key))
