"""The structure reader compared with libhdf5: files with every kind of structure, and damage.

usage: hdf5_structure.py [--cases N] [--seed S]

Compared are all contents of a catalog: the listing, all attributes, every table and group of
datasets, and where the chunks are. libhdf5 is asked in a process of its own, because some damage crashes it.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
from msgspec.structs import replace

import builders
import damage_hdf5
from builders import GZIP, VLEN_TEXT, nwb_root
from damage import EndedError, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBVERS: dict[str, Any] = {
    "earliest": "earliest",
    "v108": ("v108", "v108"),
    "v110": ("v110", "v110"),
    "v112": ("v112", "v112"),
    "v114": ("v114", "v114"),
    "latest": "latest",
}
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"libver": libver} for name, libver in LIBVERS.items()},
    "tracked": {"libver": "latest", "track_order": True},
    "tracked_earliest": {"track_order": True},
    "user_block": {"userblock_size": 1024},
    "user_block_latest": {"userblock_size": 512, "libver": "latest"},
    "paged": {"fs_strategy": "page", "fs_page_size": 1024},
    "aggregated": {"fs_strategy": "fsm", "fs_persist": True, "libver": "latest"},
}


# --- files ---------------------------------------------------------------------------------------------


def attributes(owner: h5py.HLObject, file: h5py.File) -> None:
    """Attributes of every type and shape."""
    attrs = owner.attrs
    attrs["text"] = "größer"
    attrs["empty text"] = ""
    attrs["bytes"] = np.bytes_(b"fixed")
    attrs["padded"] = np.array([b"a", b"bcd"])
    attrs["texts"] = np.array([["a", "bc"], ["", "d"]], VLEN_TEXT)
    attrs["ascii"] = np.array(["x", "y"], h5py.string_dtype("ascii"))
    attrs.create("utf8", "é".encode(), dtype=h5py.string_dtype("utf-8", 6))
    for code in ("i1", "<u2", ">i4", "<i8", "u8", "<f2", ">f4", "<f8"):
        attrs[f"number {code}"] = np.array(7, code)
        attrs[f"numbers {code}"] = np.arange(6, dtype=code).reshape(2, 3)
    attrs["flag"] = True
    attrs["flags"] = np.array([True, False])
    attrs["none"] = h5py.Empty("f4")
    attrs["nothing"] = np.zeros((0, 2))
    attrs["no texts"] = np.array([], VLEN_TEXT)
    attrs["reference"] = file.ref
    attrs["references"] = np.array([file.ref, h5py.Reference()], h5py.ref_dtype)
    attrs["complex"] = 1 + 2j
    attrs.create("enum", 1, dtype=h5py.enum_dtype({"RED": 0, "GREEN": 1}, "i2"))
    sequences = np.empty(2, object)
    sequences[:] = [np.arange(3, dtype="i4"), np.arange(0, dtype="i4")]
    attrs.create("sequences", sequences, dtype=h5py.vlen_dtype("i4"))
    pair = np.dtype([("x", "<i2"), ("name", "S4"), ("inner", [("a", "<f8"), ("b", "<i4", (2,))])])
    attrs["compound"] = np.array((1, b"two", (3.0, (4, 5))), pair)
    attrs["compounds"] = np.zeros(3, pair)
    attrs.create("array", np.zeros((2, 3), "i4"), dtype=np.dtype(("i4", (3,))))
    mixed = np.dtype([("first", "i4"), ("target", h5py.ref_dtype), ("text", VLEN_TEXT)])
    attrs["mixed"] = np.array([(1, file.ref, "t")], mixed)


def datasets(group: h5py.Group) -> None:
    """Datasets of every layout, chunk index and kind of type."""
    n = 37
    rng = np.random.default_rng(0)
    group["scalar"] = 3.5
    group["null"] = h5py.Empty("i4")
    group["text"] = [f"row {k}" for k in range(n)]
    group["fixed text"] = np.array([b"%d" % k for k in range(n)])
    group["contiguous"] = rng.normal(size=(n, 2))
    group["big endian"] = np.arange(n, dtype=">i4")
    group.create_dataset("unwritten", (n,), "f8", fillvalue=2.5)
    group.create_dataset("unwritten chunks", (n,), "i2", chunks=(5,), fillvalue=-1)
    group.create_dataset("colour", data=np.arange(n) % 2, dtype=h5py.enum_dtype({"RED": 0, "GREEN": 1}, "i1"))
    group.create_dataset("flag", data=np.arange(n) % 2 == 0)
    group.create_dataset("pairs", data=np.zeros(n, [("x", "<i4"), ("y", "S3"), ("z", "<f4", (2,))]))
    group.create_dataset("sequences", (n,), h5py.vlen_dtype("i4"))
    references = group.create_dataset("references", (n,), h5py.ref_dtype)
    references[:3] = [group.ref] * 3
    compact = builders.dcpl()
    compact.set_layout(h5py.h5d.COMPACT)
    builders.raw_type(group, "compact", h5py.h5t.IEEE_F64LE, builders.numbers(n), dcpl=compact)
    early = builders.dcpl(chunks=(4,))
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    builders.raw_type(group, "implicit", h5py.h5t.IEEE_F64LE, builders.numbers(n), dcpl=early)
    limited = {"maxshape": (90, 5)}
    grid = {
        "single": ((n, 2), {"chunks": (n, 2)}),
        "fixed": ((n, 2), {"chunks": (4, 2)}),
        "fixed limits": ((n, 2), {"chunks": (4, 1), **limited}),
        "fixed pages": ((3000,), {"chunks": (1,)}),
        "extensible": ((n, 2), {"chunks": (4, 2), "maxshape": (None, 2)}),
        "extensible second": ((n, 2), {"chunks": (4, 2), "maxshape": (n, None)}),
        "extensible pages": ((40_000,), {"chunks": (1,), "maxshape": (None,)}),
        "btree": ((n, 9), {"chunks": (2, 2), "maxshape": (None, None)}),
    }
    for name, (shape, options) in grid.items():
        for suffix, filters in {"": {}, " gzip": GZIP, " checked": {"fletcher32": True}}.items():
            large = "pages" in name
            if large and suffix == " checked":
                continue
            made = group.create_dataset(name + suffix, shape, "i2", **options, **filters)
            if large:  # a few chunks that are far apart
                for at in (0, 1, 700, shape[0] - 1):
                    made[at] = at % 1000
            else:
                made[...] = np.arange(np.prod(shape)).reshape(shape)
    shrunk = group.create_dataset("shrunk", (n, 6), "i4", chunks=(4, 3), maxshape=(None, None))
    shrunk[...] = 1
    shrunk.resize((9, 2))
    masked = group.create_dataset("masked", (8,), "i4", chunks=(4,), compression="gzip")
    masked.id.write_direct_chunk((4,), np.arange(4, dtype="i4").tobytes(), filter_mask=1)
    region = group["contiguous"].regionref[2:4]
    group["contiguous"].attrs["region"] = region


def write_file(path: Path, **options: Any) -> None:
    """Write a file with groups, links, attributes and datasets of all kinds."""
    with h5py.File(path, "w", **options) as file:
        nwb_root(file)
        datasets(file.create_group("t"))
        attributes(file["t"], file)
        attributes(file["t/contiguous"], file)
        table = builders.table(
            file,
            "units",
            {"a": np.arange(9), "spikes": builders.Ragged([[1.0] * (k % 3) for k in range(9)])},
            kind="Units",
        )
        table.attrs["long"] = "x" * 3000
        if options.get("libver") in {"latest", ("v110", "v110")}:
            table.attrs["huge"] = np.arange(20_000)
        many = file.create_group("many")
        for k in range(60):
            many.create_group(f"g{k * 7 % 60}").attrs["k"] = k
            many.attrs[f"attribute {k}"] = k
        large = file.create_group("large")
        for k in range(700):
            large[f"{k:04d} of a longer name"] = h5py.SoftLink("/many/g0")  # of few attributes
        file["soft"] = h5py.SoftLink("/units")
        file["soft to all"] = h5py.SoftLink("/t")
        file["dangling"] = h5py.SoftLink("nowhere")
        file["outside"] = h5py.ExternalLink("gone.nwb", "/t")
        file["again"] = file["units"]
        file["types/pair"] = np.dtype([("x", "<i4"), ("y", "<f8")])
        file.create_dataset("types/of_pairs", (4,), file["types/pair"])
        file["types"].attrs.create("pair", np.zeros((), file["types/pair"].dtype), dtype=file["types/pair"])
        builders.series(file, "acquisition/a", np.arange(90.0), start=0.5, rate=30.0, chunks=(32,))


def write_all(folder: Path) -> list[Path]:
    """Write files with all kinds of structures."""
    made = []
    for name, options in OPTIONS.items():
        path = folder / name / "file.nwb"
        path.parent.mkdir(parents=True)
        write_file(path, **options)
        made.append(path)
    return made


# --- descriptions --------------------------------------------------------------------------------------


class Descriptions(NamedTuple):
    """Descriptions of the parts of a file by one reader, and the errors of the other parts."""

    known: dict[str, str]
    errors: dict[str, str]


def describe_file(path: Path, paths: list[str], *, libhdf5: bool) -> Descriptions:
    """Describe all parts of a file that a catalog can contain, by one of the two readers.

    Parameters
    ----------
    path : Path
    paths : list of str
        Groups to describe; by default those of the listing.
    libhdf5 : bool
    """
    from lazynwb.catalog.model import arrays_of
    from lazynwb.formats.hdf5.structure_file import StructureFile
    from lazynwb.formats.libhdf5.chunk_lookup import chunk_index
    from lazynwb.formats.libhdf5.nodes import Hdf5File
    from lazynwb.formats.nwb.object_listing import describe_attributes, list_objects
    from lazynwb.formats.nwb.reader import describe_members
    from lazynwb.formats.nwb.tables import describe_table
    from lazynwb.storage.resolve import expand

    known: dict[str, str] = {}
    errors: dict[str, str] = {}

    def record(part: str, find: Any) -> Any:
        try:
            found = find() if libhdf5 else file.run(lambda _: find())
        except Exception as error:  # noqa: BLE001 - either reader may raise anything of a damaged file
            errors[part] = f"{type(error).__name__}: {error}"
            return None
        # Paths of linked files depend on the folder of the copy.
        known[part] = repr(replace(found, depends=()) if hasattr(found, "depends") else found)
        return found

    (source,) = expand(path)
    try:
        file: Any = (Hdf5File if libhdf5 else StructureFile)(source, source.identity())
    except Exception as error:  # noqa: BLE001
        return Descriptions({}, {"file": f"{type(error).__name__}: {error}"})
    try:
        listing = record("listing", lambda: list_objects(file))
        record("attributes", lambda: describe_attributes(file, "", deep=True))
        groups = (
            paths or [e.path.strip("/") for e in listing.entries if e.kind == "group"] if listing else paths
        )
        for group in groups:
            record(f"table {group}", lambda group=group: describe_table(file, group))
            members = record(f"members {group}", lambda group=group: describe_members(file, group))
            for array in [a for column in members.columns for a in arrays_of(column)] if members else []:
                if array.layout == "chunked":
                    find = file.chunk_index if not libhdf5 else lambda array: chunk_index(file, array)
                    record(f"chunks {array.path}", lambda array=array, find=find: find(array))
    finally:
        file.close()
    return Descriptions(known, errors)


def groups_of(path: Path) -> list[str]:
    """Return the paths of the groups of a file."""
    found = [""]
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Group) else None)
    return found[1:][:80]


class Comparison(NamedTuple):
    """Comparison of two readers on a file.

    Attributes
    ----------
    equal : int
        Number of equal descriptions.
    different : dict of str to (str, str)
        Different descriptions, of libhdf5 and of the structure reader.
    refused : Counter
        Reasons why the structure reader left descriptions to libhdf5.
    """

    equal: int
    different: dict[str, tuple[str, str]]
    refused: Counter[str]


def compare(path: Path) -> Comparison:
    """Compare both readers on an undamaged file."""
    groups = groups_of(path)
    theirs, ours = describe_file(path, groups, libhdf5=True), describe_file(path, groups, libhdf5=False)
    different = {
        what: (found, ours.known[what])
        for what, found in theirs.known.items()
        if ours.known.get(what, found) != found
    }
    refused = Counter(why for what, why in ours.errors.items() if what in theirs.known or what == "file")
    equal = sum(ours.known.get(what) == found for what, found in theirs.known.items())
    return Comparison(equal, different, refused)


# --- damage --------------------------------------------------------------------------------------------


def damage(victim: Path, copy: Path, rng: random.Random) -> str:
    """Write a copy of a file with damaged structure; return a description of the damage."""
    known = damage_hdf5.plan(victim)
    content = bytearray(known.content)
    places = known.structures if rng.random() < 0.6 or not known.headers else known.headers
    at = rng.choice(places) + min(int(rng.expovariate(1 / 80)), 400)
    at = min(at, len(content) - 1)
    kind = rng.choice(["bit", "byte", "zero", "ones", "swap", "cut"])
    if kind == "bit":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        content[at] = rng.randrange(256)
    elif kind == "swap":
        other = min(rng.choice(places) + rng.randrange(64), len(content) - 8)
        content[at : at + 8] = content[other : other + 8]
    elif kind == "cut":
        del content[at:]
    else:
        size = rng.choice([1, 2, 4, 8, 16])
        content[at : at + size] = (b"\0" if kind == "zero" else b"\xff") * len(content[at : at + size])
    copy.write_bytes(content)
    return f"{kind} at {at}"


def serve(connection: Any) -> None:
    """Serve the descriptions of files by libhdf5."""
    connection.send("ready")
    while True:
        path, groups = connection.recv()
        connection.send(tuple(describe_file(Path(path), groups, libhdf5=True)))


class Outcome(NamedTuple):
    """Result for a damaged file.

    Attributes
    ----------
    case : str
        The damaged file, and the damage.
    kind : str
        "right", "error", "unverified" (libhdf5 ended, or has an error where the value is the undamaged
        file's), or "FAULT".
    why : str
    """

    case: str
    kind: str
    why: str = ""


def classify(before: dict[str, str], theirs: Descriptions | None, ours: Descriptions) -> tuple[str, str]:
    """Classify a reading: a fault is a value that differs from libhdf5 and from the undamaged file."""
    from lazynwb.errors import LazyNWBError
    from lazynwb.formats.hdf5 import binary
    from lazynwb.formats.protocols import BrokenLinkError

    expected = {error.__name__ for error in LazyNWBError.__subclasses__()}
    expected |= {"UnsupportedStructureError", "DamagedStructureError", BrokenLinkError.__name__}
    expected |= {"DamagedObjectError", "ForbiddenLinkError", "OSError"}
    assert binary.DamagedStructureError.__name__ in expected
    for what, why in ours.errors.items():
        if why.partition(":")[0] not in expected:
            return "FAULT", f"{what}: {why}"
    unverified = ""
    for what, found in ours.known.items():
        if found == before.get(what):
            continue  # libhdf5 may have left out what it could not open
        if (
            theirs is not None
            and what in theirs.known
            and not _is_partial(theirs.known[what], before.get(what, ""))
        ):
            if theirs.known[what] != found:
                return "FAULT", f"{what}:\n  libhdf5 {theirs.known[what]}\n  ours    {found}"
        elif found != before.get(what, found):
            unverified = f"{what}:\n  before {before[what]}\n  ours   {found}"
    if unverified:
        return "unverified", unverified
    return ("error", "") if ours.errors else ("right", "")


def _is_partial(found: str, before: str) -> bool:
    """Return whether libhdf5 could not read a part of what it describes."""
    marks = ("<unreadable: ", "cannot be ", "role='broken'", "was left out", "there is no ")
    return any(found.count(mark) > before.count(mark) for mark in marks)


def run(count: int, seed: int, victims: list[Path], folder: Path, seconds: float = 20.0) -> Iterator[Outcome]:
    """Damage files, and yield the result of the structure reader for each."""
    server = Server(serve)
    before = {path: describe_file(path, groups_of(path), libhdf5=True).known for path in victims}
    groups = {path: groups_of(path) for path in victims}
    copy = folder / "damaged" / "file.nwb"
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        for number in range(count):
            rng = random.Random(seed * 1_000_003 + number)  # noqa: S311
            victim = rng.choice(victims)
            case = f"{number} {victim.parent.name}: {damage(victim, copy, rng)}"
            begun = time.process_time()
            ours = describe_file(copy, groups[victim], libhdf5=False)
            if time.process_time() - begun > seconds:
                yield Outcome(case, "FAULT", "it takes too long")
                continue
            theirs = None
            # libhdf5 takes most of the time, and is not needed if all descriptions are those of the original.
            if any(found != before[victim].get(what) for what, found in ours.known.items()):
                with suppress(EndedError):
                    theirs = Descriptions(*server.ask((str(copy), groups[victim]), seconds))
            yield Outcome(case, *classify(before[victim], theirs, ours))
    finally:
        server.stop()


def small_victims(folder: Path) -> list[Path]:
    """Write small files of every version, in which half of the damage hits a structure."""
    made = []
    for name, options in OPTIONS.items():
        path = folder / f"small_{name}" / "file.nwb"
        path.parent.mkdir(parents=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            damage_hdf5.one_of_everything(path, **options)
        made.append(path)
    return made


def main() -> int:
    """Run cases, and print each fault when it is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kinds: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        victims = [*small_victims(folder) * 3, *write_all(folder)]  # small ones are read ten times as fast
        for outcome in run(options.cases, options.seed, victims, folder):
            kinds[outcome.kind] += 1
            if outcome.kind == "FAULT":
                print(f"FAULT {outcome.case}\n  {outcome.why[:3000]}", flush=True)  # noqa: T201
    print(dict(kinds))  # noqa: T201
    return int(bool(kinds["FAULT"]))


if __name__ == "__main__":
    sys.exit(main())
