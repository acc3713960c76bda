"""HDF5 for `damage.py`: files of every layout and filter, kinds of damage, and h5py for comparison.

What is damaged is found by the signatures that the format has everywhere, and by the addresses of the object
headers, whose older form has none: so half of the damage meets structure, however large the data beside it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import struct
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

import builders
from builders import GZIP, VLEN_TEXT, Column, Ragged, hdf5plugin, numbers, nwb_root, series, table
from damage import ABSENT, AmbiguousError
from readers import hdf5_tables as oracle

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from damage import Key

SIGNATURES = (
    *(b"TREE", b"SNOD", b"HEAP", b"GCOL"),
    *(b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"FHIB", b"FSHD", b"FSSE", b"BTHD", b"BTLF", b"BTIN"),
    *(b"FAHD", b"FADB", b"EAHD", b"EAIB", b"EASB", b"EADB", b"SMTB", b"SMLI"),
)
_MAX_BYTES = 300_000
#: Larger ones of those that tests build say nothing new.
_LARGEST_BUILT = 300_000
_MAX_OBJECTS = 5000
#: Bytes of a structure that are taken for it: most are shorter, and most of what is in longer ones repeats.
_HEAD = 400


# --- undamaged files -----------------------------------------------------------------------------------


def one_of_everything(path: Path, **options: Any) -> None:
    """A small session with each kind of column, storage and link, in one format of the library."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w", **options) as file:
        nwb_root(file)
        file.attrs["tags"] = np.array(["a", "bc", "def"], VLEN_TEXT)
        n = 40
        columns: dict[str, Any] = {
            "plain": numbers(n),
            "gzip": Column(rng.normal(size=n), {"chunks": (16,), "maxshape": (None,), **GZIP}),
            "checked": Column(np.arange(n), {"chunks": (8,), "fletcher32": True}),
            "lzf": Column(np.arange(n) // 3, {"chunks": (8,), "compression": "lzf"}),
            "scaled": Column(np.arange(n), {"chunks": (8,), "scaleoffset": 0}),
            "matrix": Column(numbers(n, 3, 2), {"chunks": (7, 3, 2), "compression": "gzip"}),
            "text": [f"row {k}" for k in range(n)],
            "fixed": np.array([b"row %d" % k for k in range(n)]),
            "flag": np.arange(n) % 2 == 0,
            "spikes": Ragged([rng.normal(size=k % 5).tolist() for k in range(n)]),
            "deep": Ragged([[[1.0] * (k % 3), [2.0]] for k in range(n)], depth=2, options={"chunks": (16,)}),
            "pixels": np.array([(k, k, 0.5) for k in range(n)], [("x", "u4"), ("y", "u4"), ("weight", "f4")]),
        }
        units = table(file, "units", columns, kind="Units")
        units.attrs["refers"] = file["general"].ref
        kinds = h5py.enum_dtype({"RED": 0, "GREEN": 1}, "i1")
        units.create_dataset("colour", data=np.arange(n) % 2, dtype=kinds)
        sequences = units.create_dataset("sequences", (n,), h5py.vlen_dtype("i4"))
        for k in range(n):
            sequences[k] = np.arange(k % 4)
        targets = units.create_dataset("targets", (n,), h5py.ref_dtype)
        targets[...] = [units["plain"].ref] * n
        region = units.create_dataset("electrodes", data=np.arange(n) % 4)
        table(file, "general/extracellular_ephys/electrodes", {"x": numbers(4), "name": list("abcd")})
        region.attrs["neurodata_type"] = "DynamicTableRegion"
        region.attrs["table"] = file["general/extracellular_ephys/electrodes"].ref
        series(file, "acquisition/a", rng.normal(size=(200, 2)), start=0.5, rate=30.0, chunks=(32, 2), **GZIP)
        series(file, "acquisition/b", np.arange(100), np.arange(100) / 7)
        file["acquisition/link"] = h5py.SoftLink("/acquisition/b")
        file["acquisition/around"] = h5py.SoftLink("/acquisition/around")
        file["again"] = file["units"]


def variants() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        "everything_earliest": {"libver": "earliest"},
        "everything_v108": {"libver": ("v108", "v108")},
        "everything_latest": {"libver": "latest"},
        "everything_tracked": {"libver": "latest", "track_order": True},
        "everything_user_block": {"userblock_size": 512},
        "everything_paged": {"fs_strategy": "page", "fs_page_size": 1024},
    }
    return found


def few_filters(path: Path) -> None:
    """One column with each available filter."""
    with h5py.File(path, "w") as file:
        n = 60
        columns: dict[str, Any] = {
            "gzip": Column(numbers(n), {"chunks": (20,), "compression": "gzip"}),
            "shuffled": Column(numbers(n), {"chunks": (20,), **GZIP}),
            "all": Column(numbers(n), {"chunks": (20,), "fletcher32": True, **GZIP}),
            "lzf": Column(np.arange(n) // 4, {"chunks": (20,), "compression": "lzf"}),
            "scaled": Column(np.arange(n), {"chunks": (20,), "scaleoffset": 0}),
        }
        if h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
            columns["szip"] = Column(numbers(n), {"chunks": (20,), "compression": "szip"})
        if hdf5plugin is not None:
            for name, made in {
                "blosc": hdf5plugin.Blosc(cname="lz4"),
                "blosc_zstd": hdf5plugin.Blosc(cname="zstd"),
                "blosc2": hdf5plugin.Blosc2(),
                "zstd": hdf5plugin.Zstd(),
                "lz4": hdf5plugin.LZ4(),
                "bitshuffle": hdf5plugin.Bitshuffle(),
            }.items():
                columns[name] = Column(numbers(n), {"chunks": (20,), **made})
        table(file, "t", columns)


def text_in_heaps(path: Path) -> None:
    """Text in datasets and attributes that fills several heap collections."""
    with h5py.File(path, "w", libver="earliest") as file:
        table(file, "t", {"a": np.arange(60), "text": [f"row {k} " * 9 for k in range(60)]})
        file["t"].attrs["many"] = np.array([f"name {k}" * 5 for k in range(90)], VLEN_TEXT)
        for name in file["t"]:
            file["t"][name].attrs["description"] = f"a column called {name}"


OWN: dict[str, Callable[[Path], None]] = {
    **{
        name: (lambda path, options=options: one_of_everything(path, **options))
        for name, options in variants().items()
    },
    "few_filters": few_filters,
    "text_in_heaps": text_in_heaps,
}


def build(folder: Path) -> list[Path]:
    """Write the files of this module and of other tests, and copy real files if there are any."""
    for part in ("storage", "types", "tables", "pynwb"):
        importlib.import_module(f"cases_{part}")
    victims = []
    for name, write in {**OWN, **builders.CASES, **builders.PYNWB_CASES}.items():
        path = folder / name / "file.nwb"
        path.parent.mkdir(parents=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(path)
        if path.stat().st_size <= _LARGEST_BUILT:
            victims.append(path)
    real = os.environ.get("LAZYNWB_TEST_DATA")
    for source in sorted(Path(real).rglob("*.nwb")) if real else []:
        if source.is_file() and source.stat().st_size <= _MAX_BYTES and h5py.is_hdf5(source):
            path = folder / "_".join(source.relative_to(real).parts).removesuffix(".nwb") / "file.nwb"
            path.parent.mkdir(parents=True)
            shutil.copyfile(source, path)
            victims.append(path)
    return victims


# --- locations of structure ----------------------------------------------------------------------------


class Plan(NamedTuple):
    """Positions of the structures and the data of a file."""

    content: bytes
    structures: list[int]
    headers: list[int]
    chunks: list[tuple[int, int]]
    deflated: list[tuple[str, tuple[int, ...]]]  # chunks that zlib inflates


@cache
def plan(path: Path) -> Plan:
    content = path.read_bytes()
    structures = [0]
    for signature in SIGNATURES:
        at = content.find(signature)
        while at >= 0:
            structures.append(at)
            at = content.find(signature, at + 1)
    headers: list[int] = []
    chunks: list[tuple[int, int]] = []
    deflated: list[tuple[str, tuple[int, ...]]] = []
    with h5py.File(path) as file:
        base = file.id.get_create_plist().get_userblock()

        def record(name: str, item: Any) -> None:
            headers.append(h5py.h5o.get_info(item.id).addr + base)
            if not isinstance(item, h5py.Dataset):
                return
            if item.chunks is None:
                offset = item.id.get_offset()
                if offset is not None and item.id.get_storage_size():
                    chunks.append((offset, item.id.get_storage_size()))
                return
            for k in range(min(item.id.get_num_chunks(), 100)):
                info = item.id.get_chunk_info(k)
                chunks.append((info.byte_offset, info.size))
                if item.compression == "gzip":
                    deflated.append((name, tuple(info.chunk_offset)))

        record("", file)
        file.visititems(record)
    return Plan(content, sorted({*structures, *headers}), headers, chunks, deflated)


# --- damage --------------------------------------------------------------------------------------------


def damage(victim: Path, copy: Path, rng: random.Random) -> str:
    """Write a damaged copy, together with the other files in the folder of the undamaged one."""
    for other in victim.parent.iterdir():
        if other != victim and other.is_file():
            shutil.copyfile(other, copy.parent / other.name)
    known = plan(victim)
    kinds = list(KINDS)
    kind = rng.choices(kinds, [KINDS[name][1] for name in kinds])[0]
    if kind == "bomb":
        if known.deflated:
            shutil.copyfile(victim, copy)
            _plant_bomb(copy, *rng.choice(known.deflated))
            return kind
        kind = "huge number"
    content = bytearray(known.content)
    KINDS[kind][0](content, known, rng)
    if kind not in _CUTS and rng.random() < _MENDED:
        mend_checksums(content)
        kind += ", checksums mended"
    copy.write_bytes(content)
    return kind


_MENDED = 0.35


def _in_structure(known: Plan, rng: random.Random) -> int:
    start = rng.choice(rng.choice([known.structures, known.headers]))
    return min(start + rng.randrange(_HEAD), len(known.content) - 1)


def _anywhere(known: Plan, rng: random.Random) -> int:
    """Return a random position: three times out of four in a structure, otherwise in data or gaps."""
    if rng.random() < 0.75:
        return _in_structure(known, rng)
    if known.chunks and rng.random() < 0.5:
        start, size = rng.choice(known.chunks)
        return min(start + rng.randrange(max(size, 1)), len(known.content) - 1)
    return rng.randrange(len(known.content))


def _cut_anywhere(content: bytearray, _: Plan, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _cut_structure(content: bytearray, known: Plan, rng: random.Random) -> None:
    del content[_in_structure(known, rng) :]


def _cut_superblock(content: bytearray, _: Plan, rng: random.Random) -> None:
    del content[rng.randrange(min(2048, len(content))) :]


def _cut_chunk(content: bytearray, known: Plan, rng: random.Random) -> None:
    if not known.chunks:
        return _cut_anywhere(content, known, rng)
    start, size = rng.choice(known.chunks)
    del content[rng.choice([start, start + size, start + size - 1, start + 1, start + size // 2]) :]
    return None


def _cut_end(content: bytearray, _: Plan, rng: random.Random) -> None:
    del content[-rng.choice([1, 2, 8, 512, 4096, len(content) // 2]) :]


def _flip_bit(content: bytearray, known: Plan, rng: random.Random) -> None:
    content[_anywhere(known, rng)] ^= 1 << rng.randrange(8)


def _flip_bits(content: bytearray, known: Plan, rng: random.Random) -> None:
    for _ in range(rng.choice([2, 4, 8, 30])):
        _flip_bit(content, known, rng)


def _change_byte(content: bytearray, known: Plan, rng: random.Random) -> None:
    content[_in_structure(known, rng)] = rng.choice(
        [0, 1, 2, 0x7F, 0x80, 0xC6, 0xFE, 0xFF, rng.randrange(256)]
    )


def _fill(byte: int) -> Callable[[bytearray, Plan, random.Random], None]:
    def fill(content: bytearray, known: Plan, rng: random.Random) -> None:
        size = rng.choice([4, 8, 16, 64, 512, 4096])
        start = _anywhere(known, rng)
        content[start : start + size] = bytes([byte]) * len(content[start : start + size])

    return fill


def _swap(content: bytearray, known: Plan, rng: random.Random) -> None:
    size = rng.choice([8, 64, 512, 4096])
    a, b = sorted((_anywhere(known, rng), _anywhere(known, rng)))
    size = min(size, b - a, len(content) - b)
    content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]


def _splice(content: bytearray, known: Plan, rng: random.Random) -> None:
    """Overwrite a structure with bytes of another one or with noise."""
    size = rng.choice([8, 64, 512, 4096])
    to, source = rng.choice(known.structures), rng.choice(known.structures)
    part = content[source : source + size] if rng.random() < 0.7 else rng.randbytes(size)
    part = part[: len(content) - to]
    content[to : to + len(part)] = part


_HUGE = (
    2**63 - 1,
    2**64 - 1,
    2**64 - 2,
    2**63,
    2**40,
    2**33,
    2**32,
    2**32 - 1,
    2**31,
    2**31 - 1,
    2**30,
    10**9,
    65535,
    0,
)


def _huge_number(content: bytearray, known: Plan, rng: random.Random) -> None:
    """Replace a small number in a structure by a huge one."""
    for _ in range(200):
        at, width = _in_structure(known, rng) & ~1, rng.choice([2, 4, 8, 8])
        value = int.from_bytes(content[at : at + width], "little")
        if at + width <= len(content) and 0 < value < min(2**31, 2 ** (8 * width - 1)):
            new = rng.choice([*_HUGE, value * 2, value + 1, value - 1, len(content), len(content) - at])
            content[at : at + width] = (new & (2 ** (8 * width) - 1)).to_bytes(width, "little")
            return


def _other_address(content: bytearray, known: Plan, rng: random.Random) -> None:
    """Redirect a reference to another structure: to itself, its parent, or a structure of another kind."""
    addresses = set(known.structures)
    for _ in range(2000):
        at = _in_structure(known, rng) & ~1
        if int.from_bytes(content[at : at + 8], "little") in addresses - {0}:
            below = [start for start in known.structures if start <= at]
            new = rng.choice([below[-1], at, rng.choice(known.structures), rng.choice(known.headers)])
            content[at : at + 8] = new.to_bytes(8, "little")
            return


KINDS: dict[str, tuple[Callable[[bytearray, Plan, random.Random], None], float]] = {
    "cut anywhere": (_cut_anywhere, 1),
    "cut in a structure": (_cut_structure, 2),
    "cut in the first bytes": (_cut_superblock, 1),
    "cut at a chunk": (_cut_chunk, 1),
    "cut at the end": (_cut_end, 1),
    "bit flipped": (_flip_bit, 4),
    "bits flipped": (_flip_bits, 2),
    "byte changed": (_change_byte, 5),
    "zeros": (_fill(0), 2),
    "ones": (_fill(255), 2),
    "blocks swapped": (_swap, 2),
    "blocks spliced": (_splice, 2),
    "huge number": (_huge_number, 6),
    "other address": (_other_address, 5),
    "bomb": (_flip_bit, 0.5),
}
_CUTS = {name for name in KINDS if name.startswith("cut")}


def bomb() -> bytes:
    """Two GiB of zeros, deflated to two MiB of repeated blocks."""
    packer = zlib.compressobj(9)
    head = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * 2047 + packer.flush()


def _plant_bomb(path: Path, name: str, corner: tuple[int, ...]) -> None:
    with h5py.File(path, "a") as file:
        file[name].id.write_direct_chunk(corner, bomb())


# --- checksums of the newer structures (Jenkins' lookup3) ----------------------------------------------


def mend_checksums(content: bytearray) -> None:
    """Correct the checksums of object headers and superblocks of the newer format."""
    if content[8] in {2, 3}:
        content[44:48] = struct.pack("<I", lookup3(bytes(content[:44])))
    at = content.find(b"OHDR")
    while at >= 0:
        flags = content[at + 5] if at + 6 < len(content) else 0
        start = at + 6 + 16 * bool(flags & 32) + 4 * bool(flags & 16)
        width = 1 << (flags & 3)
        stop = start + width + int.from_bytes(content[start : start + width], "little")
        if stop + 4 <= len(content) and stop - at < 100_000:
            content[stop : stop + 4] = struct.pack("<I", lookup3(bytes(content[at:stop])))
        at = content.find(b"OHDR", at + 1)


def lookup3(data: bytes) -> int:
    """The checksum of HDF5's metadata (hashlittle by Bob Jenkins, public domain, with 0 as initial value)."""

    def rot(x: int, k: int) -> int:
        return (x << k | x >> (32 - k)) & 0xFFFFFFFF

    mask = 0xFFFFFFFF
    a = b = c = (0xDEADBEEF + len(data)) & mask
    whole = max((len(data) - 1) // 12 * 12, 0)
    for x, y, z in struct.iter_unpack("<III", data[:whole]):
        a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
        a = (a - c) & mask ^ rot(c, 4)
        c = (c + b) & mask
        b = (b - a) & mask ^ rot(a, 6)
        a = (a + c) & mask
        c = (c - b) & mask ^ rot(b, 8)
        b = (b + a) & mask
        a = (a - c) & mask ^ rot(c, 16)
        c = (c + b) & mask
        b = (b - a) & mask ^ rot(a, 19)
        a = (a + c) & mask
        c = (c - b) & mask ^ rot(b, 4)
        b = (b + a) & mask
    rest = data[whole:]
    if not rest:
        return c
    x, y, z = struct.unpack("<III", rest.ljust(12, b"\0"))
    a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
    c = ((c ^ b) - rot(b, 14)) & mask
    a = ((a ^ c) - rot(c, 11)) & mask
    b = ((b ^ a) - rot(a, 25)) & mask
    c = ((c ^ b) - rot(b, 16)) & mask
    a = ((a ^ c) - rot(c, 4)) & mask
    b = ((b ^ a) - rot(a, 14)) & mask
    return ((c ^ b) - rot(b, 24)) & mask


# --- the independent reader ----------------------------------------------------------------------------


def expected(path: Path, key: Key) -> Any:
    """Return what h5py reads."""
    kind, name, *rest = key
    with h5py.File(path, "r") as file:
        if kind == "object":
            # Types that stand alone are objects, too; damage can make one of a dataset.
            return _presence(file, name) if name in file else ABSENT
        if kind == "attribute":
            if name not in file or _presence(file, name) == ABSENT:
                return ABSENT
            attributes = file[name].attrs
            return _attribute(attributes[rest[0]], file) if rest[0] in attributes else ABSENT
        if kind == "slice":
            member = file[name].get(rest[0])
            is_there = isinstance(member, h5py.Dataset)
            found = oracle.read(member) if is_there else _column(path, name, rest[0])
            return found if found == ABSENT else found[3:40]
    if _has_several_names(path, name, rest[0]):
        raise AmbiguousError
    return _column(path, name, rest[0])


def _presence(file: h5py.File, name: str) -> str:
    """Return whether a dataset or group that every listing contains exists at a path."""
    if not isinstance(file[name], (h5py.Dataset, h5py.Group)):
        return ABSENT  # a type that stands alone: damage can make one of a dataset
    if isinstance(file[name], h5py.Group):
        raise AmbiguousError  # damage can make one of a dataset, and not all are listed
    known = _addresses(file)
    parts = name.strip("/").split("/")
    above = (file["/".join(parts[: k + 1])] for k in range(len(parts)))
    if any(known.count(_address(item)) > 1 for item in above if isinstance(item, h5py.Group)):
        raise AmbiguousError
    return ""


def _address(item: Any) -> int:
    return int(h5py.h5o.get_info(item.id).addr)


def _addresses(file: h5py.File) -> list[int]:
    """Return the address of every object, once for each path of hard links to it."""
    found = [_address(file)]

    def walk(group: h5py.Group, above: frozenset[int]) -> None:
        for name in group:
            with contextlib.suppress(Exception):
                if len(found) < _MAX_OBJECTS and isinstance(group.get(name, getlink=True), h5py.HardLink):
                    item = group[name]
                    found.append(_address(item))
                    if isinstance(item, h5py.Group) and found[-1] not in above:
                        walk(item, above | {found[-1]})

    with contextlib.suppress(RuntimeError):
        walk(file, frozenset(found))
    return found


def _has_several_names(path: Path, name: str, column: str) -> bool:
    """Return whether a column refers to objects of a file in which an object has several paths."""
    with contextlib.suppress(Exception), h5py.File(path, "r") as file:
        item = file[name]
        item = item[column] if isinstance(item, h5py.Group) and column in item else item
        kind = item.dtype if isinstance(item, h5py.Dataset) else np.dtype("O")
        known = _addresses(file)
        text = h5py.check_string_dtype(kind) is not None
        return bool(kind.hasobject and not text and len(set(known)) < len(known))
    return False


def _path_of(target: Any, file: h5py.File) -> str | None:
    """Return an object's name; h5py does not always find one."""
    found = target.name
    if found is None:
        found = file.visititems(lambda name, item: f"/{name}" if item == target else None)
    return found


def _attribute(value: Any, file: h5py.File) -> Any:
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, h5py.Reference):
        try:
            return _path_of(file[value], file) if value else None
        except (RuntimeError, OSError) as error:  # what it leads to is damaged
            raise AmbiguousError from error
    if isinstance(value, bytes):
        return oracle.text(value)
    if isinstance(value, str):
        return oracle.text(value)
    if isinstance(value, np.ndarray):
        return [_attribute(item, file) for item in value]
    if isinstance(value, np.void):
        return {name: _attribute(value[name], file) for name in value.dtype.names}
    return value.item() if isinstance(value, np.generic) else value


def _has_aliases(path: Path, name: str) -> bool:
    """Return whether two columns of a table are one dataset, so that the owner of an index is ambiguous."""
    known: list[int] = []
    with contextlib.suppress(KeyError, RuntimeError), h5py.File(path, "r") as file:
        group = file[name]
        if name.strip("/") != "general" and isinstance(group, h5py.Group):
            for member in group:
                with contextlib.suppress(KeyError, RuntimeError):
                    if isinstance(group.get(member, getlink=True), h5py.HardLink):
                        known.append(_address(group[member]))
    return len(set(known)) < len(known)


def _column(path: Path, name: str, column: str) -> Any:
    if _has_aliases(path, name):
        raise AmbiguousError
    try:
        found = oracle.read_table(path, name)
    except Exception:  # noqa: BLE001 - whatever it is
        # Another column of the table may be to blame: this one alone, if it is that of a plain table.
        with h5py.File(path, "r") as file:
            if name.strip("/") == "general":  # its row has the root's datasets, whether it is there or not
                own = "general" in file and column in file["general"]
                return _member_alone(file["general"] if own else file, column)
            return _column_alone(file[name], column)
    return found.columns.get(column, ABSENT)


def _names(group: h5py.Group) -> list[str]:
    return sorted(name for name in {"id", *oracle.names_in(group, "colnames")} if name in group)


def _member_alone(group: h5py.Group, name: str) -> Any:
    """Return a dataset of a series, or of a row of metadata."""
    dataset = group[name]
    if not dataset.shape:
        return [oracle.plain(dataset[()], dataset.dtype, dataset.file)]
    rows = oracle.read(dataset)
    return rows if oracle.is_series(group) else [rows]


def _ragged(group: h5py.Group, listed: list[str]) -> tuple[dict[str, h5py.Dataset], dict[str, str]]:
    """Return the datasets of a table that can be opened, and the index of each that has one."""
    data: dict[str, h5py.Dataset] = {}
    for name in group:
        with contextlib.suppress(Exception):
            if isinstance(group[name], h5py.Dataset):
                data[name] = group[name]
    indices: dict[str, str] = {}
    for name in data:
        with contextlib.suppress(Exception):
            target = oracle.index_target(name, data, listed)
            if target is not None:
                indices[target] = name
    return data, indices


def _column_alone(group: h5py.Group, column: str) -> Any:
    if not oracle.is_table(group):
        return _member_alone(group, column)
    if isinstance(group[column], h5py.Group):  # a category of an aligned table
        parts = {name: _column_alone(group[column], name) for name in _names(group[column])}
        return [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]
    listed = oracle.names_in(group, "colnames")
    data, indices = _ragged(group, listed)
    if column in indices.values() or (column not in listed and oracle.kind_of(data[column]) == "VectorIndex"):
        return ABSENT  # an index
    chain = [column]
    while (above := indices.get(chain[-1], chain[0])) not in chain:
        chain.append(above)
    ends = [oracle.read(data[name]) for name in chain[:0:-1]]
    if ends and not any(ends[0]):
        return [[]] * len(ends[0])  # nothing is read of what belongs to no row
    values = _member_alone(group, column) if not group[column].shape else oracle.read(group[column])
    with contextlib.suppress(OSError):  # an attribute that only codes need
        if texts := oracle.meanings_of(group[column]):
            values = oracle.decoded(values, texts)
    for cut in reversed(ends):
        values = oracle.fold(values, cut)
    table_ = oracle.Table(rows=len(data["id"]) if "id" in data else len(values))
    return oracle.fit(table_, column, values)
