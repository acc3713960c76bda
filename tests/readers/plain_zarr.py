"""A plain reader of Zarr stores for inspection by eye: NumPy, numcodecs, and the specifications.

It looks to `readers.zarr_python` like zarr-python, which continuous integration does not have. It refuses
whatever is not exactly as it should be: nothing is padded, clipped or guessed.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import stat
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: More than any array of a test has.
_MOST = 10**7
_ABSENT = 2**64 - 1


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901 - eight steps of one byte
        table.append(value)
    return table


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def unchecked(data: bytes) -> bytes:
    if len(data) < 4 or crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
        message = "another CRC-32C"
        raise ValueError(message)
    return data[:-4]


class Store:
    """The objects of a folder and its metadata, consolidated if available."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        root = self.get("zarr.json")
        self.version = 2 if root is None else 3
        self.documents: dict[str, Any] | None = None
        if root is not None:
            said = json.loads(root)
            if "consolidated_metadata" in said and isinstance(said["consolidated_metadata"], dict):
                metadata = said["consolidated_metadata"]["metadata"]
                self.documents = {"zarr.json": said, **{f"{k}/zarr.json": v for k, v in metadata.items()}}
        elif (consolidated := self.get(".zmetadata")) is not None:
            self.documents = json.loads(consolidated)["metadata"]

    def get(self, key: str) -> bytes | None:
        path = self.folder / key
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                raise
            return None
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode) or not path.resolve().is_relative_to(self.folder):
            message = f"{key} is no file in the store"
            raise ValueError(message)
        return path.read_bytes()

    def document(self, path: str, name: str) -> dict[str, Any] | None:
        key = f"{path}/{name}" if path else name
        if self.documents is not None:
            found = self.documents.get(key)
        else:
            data = self.get(key)
            found = None if data is None else json.loads(data)
        if found is not None and not isinstance(found, dict):
            message = f"{key} is no object"
            raise ValueError(message)
        return found

    def members(self, path: str) -> list[str]:
        prefix = f"{path}/" if path else ""
        if self.documents is not None:
            below = [k[len(prefix) :].split("/")[0] for k in self.documents if k.startswith(prefix)]
            return sorted(
                {name for name in below if name and not name.startswith(".") and name != "zarr.json"}
            )
        return sorted(entry.name for entry in (self.folder / path).iterdir())

    def open(self, path: str) -> Group | Array | None:
        if self.version == 3:
            said = self.document(path, "zarr.json")
            if said is None:
                return self._implied(path)
            kind = Array if said["node_type"] == "array" else Group
            return kind(self, path, said, said.get("attributes", {}))
        said = self.document(path, ".zarray")
        attributes = self.document(path, ".zattrs") or {}
        if said is not None:
            return Array(self, path, said, attributes)
        said = self.document(path, ".zgroup")
        return self._implied(path) if said is None else Group(self, path, said, attributes)

    def _implied(self, path: str) -> Group | None:
        """A group without a document, which consolidated metadata may omit."""
        documents = [key for key in self.documents or () if key.startswith(f"{path}/")]
        below = any("/" in key[len(path) + 1 :] for key in documents)
        if documents and not below:
            message = f"{documents[0]} is of nothing"
            raise ValueError(message)
        return Group(self, path, {}, (self.document(path, ".zattrs") or {})) if below else None


class Group:
    def __init__(self, store: Store, path: str, said: dict[str, Any], attrs: dict[str, Any]) -> None:
        self.store, self.path, self.said, self.attrs = store, path, said, attrs

    def _all(self) -> Iterator[tuple[str, Any]]:
        for name in self.store.members(self.path):
            found = self.store.open(f"{self.path}/{name}" if self.path else name)
            if found is not None:
                yield name, found

    def groups(self) -> Iterator[tuple[str, Group]]:
        return ((name, found) for name, found in self._all() if isinstance(found, Group))

    def arrays(self) -> Iterator[tuple[str, Array]]:
        return ((name, found) for name, found in self._all() if isinstance(found, Array))


class Array:
    def __init__(self, store: Store, path: str, said: dict[str, Any], attrs: dict[str, Any]) -> None:
        self.store, self.path, self.said, self.attrs = store, path, said, attrs

    @property
    def shape(self) -> tuple[int, ...]:
        found = tuple(self.said["shape"])
        if any(type(n) is not int or n < 0 for n in found):
            raise ValueError(found)
        return found

    @property
    def dtype(self) -> np.dtype:
        return self._chain()[1]

    def _chain(self) -> tuple[list[dict[str, Any]], np.dtype, tuple[int, ...]]:
        """Codecs in the order of writing, the type, and the shape of an object's chunk."""
        said = self.said
        if self.store.version == 2:
            if said["zarr_format"] != 2:
                raise ValueError(said["zarr_format"])
            steps = [*(said.get("filters") or []), *([said["compressor"]] if said.get("compressor") else [])]
            return steps, np.dtype(_tuples(said["dtype"])), tuple(said["chunks"])
        if said["zarr_format"] != 3 or said["chunk_grid"]["name"] != "regular":
            raise ValueError(said)
        endian = ">" if '"endian": "big"' in json.dumps(said["codecs"]) else "<"
        grid = tuple(said["chunk_grid"]["configuration"]["chunk_shape"])
        return said["codecs"], data_type(said["data_type"], endian), grid

    def __getitem__(self, _: Any) -> np.ndarray:
        shape = self.shape
        steps, dtype, chunk = self._chain()
        if len(chunk) != len(shape) or any(type(n) is not int or n < 1 for n in chunk if math.prod(shape)):
            raise ValueError(chunk)
        if math.prod(shape) > _MOST or math.prod(chunk) > _MOST:
            raise MemoryError(shape)
        out = np.empty(shape, dtype)
        for place in itertools.product(*(range(-(-n // c)) for n, c in zip(shape, chunk, strict=True))):
            data = self.store.get(self._key(place))
            values = self._fill(dtype, chunk) if data is None else self._decode(data, steps, dtype, chunk)
            where = tuple(
                slice(p * c, min((p + 1) * c, n)) for p, c, n in zip(place, chunk, shape, strict=True)
            )
            out[where] = values[tuple(slice(0, s.stop - s.start) for s in where)]
        return out

    def _key(self, place: tuple[int, ...]) -> str:
        if self.store.version == 2:
            name = self.said.get("dimension_separator", ".").join(map(str, place)) or "0"
        else:
            encoding = self.said["chunk_key_encoding"]
            separator = encoding.get("configuration", {}).get("separator", "/")
            mark = {"default": ["c"], "v2": []}[encoding["name"]]
            name = separator.join([*mark, *map(str, place)]) or "0"
        return f"{self.path}/{name}"

    def _fill(self, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        value = self.said.get("fill_value")
        out = np.zeros(shape, dtype)
        if dtype.kind == "O":
            out[...] = "" if value in (None, 0) else value
        elif isinstance(value, dict):
            for name in dtype.names or ():
                out[name] = value[name]
        elif dtype.kind in "SV" and isinstance(value, str):
            out[...] = np.frombuffer(base64.b64decode(value).ljust(dtype.itemsize, b"\0"), dtype)[0]
        elif isinstance(value, str) and value.startswith("0x"):
            out[...] = np.array(int(value, 16), f"{dtype.str[0]}u{dtype.itemsize}").view(dtype)
        elif value is not None:
            out[...] = {"f": float, "i": int, "u": int, "b": bool}.get(dtype.kind, lambda v: v)(value)
        return out

    def _decode(  # noqa: C901 - one branch for each kind of codec
        self, data: bytes, steps: Any, dtype: np.dtype, shape: tuple[int, ...]
    ) -> np.ndarray:
        transpositions = []
        for step in reversed(steps):
            name = step["id"] if "id" in step else step["name"]
            settings = step if "id" in step else step.get("configuration", {})
            if name == "sharding_indexed":
                return self._unshard(data, settings, dtype, shape)
            if name == "transpose":
                transpositions.append(settings["order"])
            elif name in {"vlen-utf8", "vlen-bytes"}:
                data = numcodecs.VLenBytes().decode(data)
                if name == "vlen-utf8":
                    data = np.array([*(item.decode("utf-8", "replace") for item in data), None], object)[:-1]
            elif name in {"json2", "msgpack2", "pickle", "vlen-array"}:
                config = {"encoding": "utf-8"} if name == "json2" else {}
                codec = numcodecs.get_codec({**settings, **config, "id": name})
                data = codec.decode(data)
            elif name != "bytes":
                data = _undone(name, settings, data)
        if isinstance(data, np.ndarray) and dtype.kind == "O":
            values = data.reshape(-1)
        else:
            values = _characters(np.frombuffer(bytes(data), dtype))
        if values.size != math.prod(shape):
            message = f"{values.size} elements for a chunk of shape {shape}"
            raise ValueError(message)
        if self.said.get("order") == "F":
            return values.reshape(shape, order="F")
        for order in transpositions[:1]:
            stored = values.reshape([shape[i] for i in order])
            return stored.transpose(np.argsort(order))
        return values.reshape(shape)

    def _unshard(self, data: bytes, settings: Any, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        inner = tuple(settings["chunk_shape"])
        counts = [n // c for n, c in zip(shape, inner, strict=True)]
        if [c * n for c, n in zip(counts, inner, strict=True)] != list(shape):
            raise ValueError(inner)
        names = [step["name"] for step in settings["index_codecs"]]
        size = 16 * math.prod(counts) + 4 * ("crc32c" in names)
        if len(data) < size:
            raise ValueError(size)
        index = data[:size] if settings.get("index_location", "end") == "start" else data[-size:]
        index = unchecked(index) if "crc32c" in names else index
        out = np.empty(shape, dtype)
        for number, place in enumerate(itertools.product(*map(range, counts))):
            start, length = struct.unpack_from("<QQ", index, 16 * number)
            where = tuple(slice(p * n, (p + 1) * n) for p, n in zip(place, inner, strict=True))
            if (start, length) == (_ABSENT, _ABSENT):
                out[where] = self._fill(dtype, inner)
                continue
            if start + length > len(data):
                raise ValueError(start)
            out[where] = self._decode(data[start : start + length], settings["codecs"], dtype, inner)
        return out


def _characters(values: np.ndarray) -> np.ndarray:
    """Text of fixed length with replacements for invalid characters."""
    if values.dtype.kind != "U":
        return values
    codes = values.reshape(-1, 1).view(f"{values.dtype.str[0]}u4")
    bad = (codes > 0x10FFFF) | ((codes >= 0xD800) & (codes <= 0xDFFF))
    return np.where(bad, 0xFFFD, codes).astype(codes.dtype).view(values.dtype).reshape(-1)


def _tuples(described: Any) -> Any:
    if not isinstance(described, list):
        return described
    return [(f[0], _tuples(f[1]), *(tuple(part) for part in f[2:])) for f in described]


def _undone(name: str, settings: dict[str, Any], data: Any) -> Any:
    if name == "crc32c":
        return unchecked(bytes(data))
    if name in {"zlib", "gzip"}:
        stream = zlib.decompressobj(15 if name == "zlib" else 31)
        found = stream.decompress(bytes(data), 8 * _MOST)
        if not stream.eof:
            message = "the stream ends early"
            raise ValueError(message)
        return found
    if name == "blosc":
        declared, _, stored = struct.unpack_from("<III", data, 4)
        if (
            stored > len(data) or declared > 8 * _MOST
        ):  # it would read beyond the end of a frame that is cut off
            raise ValueError(name)
    known = {
        "zlib",
        "gzip",
        "zstd",
        "blosc",
        "lz4",
        "bz2",
        "lzma",
        "shuffle",
        "delta",
        "fletcher32",
        "bitround",
    }
    if name.removeprefix("numcodecs.") not in known | {"fixedscaleoffset", "astype", "packbits", "quantize"}:
        raise ValueError(name)
    plain = {"blosc": {}, "zstd": {}, "gzip": {}, "lzma": {"format": settings.get("format", 1)}}
    config = plain.get(name, settings)
    decoded = numcodecs.get_codec({**config, "id": name.removeprefix("numcodecs.")}).decode(data)
    return np.ascontiguousarray(decoded).tobytes() if isinstance(decoded, np.ndarray) else decoded


def data_type(said: Any, endian: str) -> np.dtype:
    """A data type of version 3."""
    if said in ("string", "bytes", "variable_length_bytes"):
        return np.dtype(object)
    if isinstance(said, str):
        if said.startswith("r"):
            return np.dtype(f"V{int(said[1:]) // 8}")
        if said in {"str", "object", "b", "O"}:
            raise ValueError(said)
        return np.dtype(said).newbyteorder(endian)
    settings = said.get("configuration", {})
    if said["name"] in {"struct", "structured"}:
        parts = [(f["name"], f["data_type"]) if isinstance(f, dict) else f for f in settings["fields"]]
        return np.dtype([(name, data_type(kind, endian)) for name, kind in parts])
    letter, width = {
        "fixed_length_utf32": ("U", 4),
        "null_terminated_bytes": ("S", 1),
        "raw_bytes": ("V", 1),
    }[said["name"]]
    return np.dtype(f"{endian}{letter}{settings['length_bytes'] // width}")


def open_root(folder: Path) -> Group:
    found = Store(folder).open("")
    if not isinstance(found, Group):
        message = f"{folder} is no group"
        raise TypeError(message)
    return found
