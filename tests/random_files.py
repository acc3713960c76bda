"""Random sessions for hypothesis: tables, series and metadata, and differences between files.

What is drawn is plain content, which `random_writers` puts into HDF5 or Zarr. Hypothesis draws structures and
the few values that a column is made of; which of them is in which row comes from NumPy's generator, so that
a table of hundreds of rows costs a few draws, and filters and joins find values again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import h5py
import hypothesis.strategies as st
import numpy as np
from hypothesis.extra import numpy as hnp

INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
FLOATS = ("f2", "f4", "f8")
NUMBERS = (*INTEGERS, *FLOATS, ">i2", ">i4", ">i8", ">u2", ">f4", ">f8")
#: Exact in any of these types, and in any that they have in common.
SMALL = (0, 1, 2, 3, 7, 100)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
FIXED = (b"", b"a", b"ab", b"abcde", "é".encode(), b"\xff", b"a\0b", b" a", b"a ")
MEMBERS = ("left", "right", "größer", "no", "yes")
FIELDS = {"x": "<i4", "y": "<f8", "be": ">i2", "flag": "?", "name": "S3", "pair": ("<f4", (2,))}
INNER = ((), (), (), (2,), (3,), (2, 3))
NAMES = ("a", "b", "c", "d", "Größe", "two words", "from", "block_index")
#: Names of columns that have a part in the duration of a session.
TIMES = ("start_time", "stop_time")
TABLE, OTHER, SERIES = "t", "general/other", "acquisition/s"


@dataclass(frozen=True)
class Kind:
    """Properties of a column in one file.

    Attributes
    ----------
    family : str
        number, bool, enum, text, fixed, compound, reference, region, complex or vlen.
    dtype : object
        Of a number its NumPy type; of an enum or a compound the names of its members or fields.
    depth : int
        How many indices it has.
    inner : tuple of int
        The shape of an element.
    pool : tuple
        The values that occur.
    """

    family: str
    dtype: Any = ""
    depth: int = 0
    inner: tuple[int, ...] = ()
    pool: tuple[Any, ...] = ()

    @property
    def numpy(self) -> np.dtype:
        """The type of the elements in memory; of text, references and rows of any length `object`."""
        if self.family == "compound":
            return np.dtype([(name, *_field(FIELDS[name])) for name in self.dtype])
        if self.family == "enum":
            return h5py.enum_dtype({name: _code(name) for name in self.dtype}, basetype="i1")
        if self.family in {"text", "reference", "vlen"}:
            return np.dtype("O")
        return np.dtype({"bool": "?", "fixed": "S5", "region": "i8"}.get(self.family, self.dtype))


def _code(member: str) -> int:
    return 3 * MEMBERS.index(member) - 1


def _field(spec: Any) -> tuple[Any, ...]:
    return spec if isinstance(spec, tuple) else (spec,)


@dataclass
class Stored:
    """A column in one file: its elements, and the levels that form rows, the outermost first."""

    kind: Kind
    values: np.ndarray = field(repr=False)  # too long to be shown with an example that failed
    lengths: list[np.ndarray] = field(default_factory=list, repr=False)
    unwritten: int = 0  # elements at the end that nobody wrote: there is the fill value
    layout: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.lengths[0]) if self.lengths else len(self.values)


@dataclass
class Table:
    rows: int
    columns: dict[str, Stored]
    hidden: tuple[str, ...] = ()  # columns that `colnames` does not list
    has_id: bool = True


@dataclass
class Series:
    data: Stored
    timestamps: np.ndarray | None
    start: float = 0.0
    rate: float = 1.0
    chunk: int = 0


@dataclass
class Session:
    table: Table | None
    other: Table
    series: Series | None
    general: dict[str, Any]
    subject: dict[str, Any] | None
    zarr: dict[str, Any] | None = None  # how a store is written, where it is one
    libver: str = "earliest"


# --- values -------------------------------------------------------------------------------------------


def number_values(dtype: str) -> st.SearchStrategy:
    """Numbers of a type: extremes, special values, small ones, and any."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        odd = st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 1.5, -1.0])
        return st.one_of(odd, st.floats(width=8 * kind.itemsize))
    limits = np.iinfo(kind)
    low = 0 if kind.kind == "u" else -3
    return st.one_of(
        st.integers(low, 12),
        st.sampled_from([int(limits.min), int(limits.max)]),
        st.integers(int(limits.min), int(limits.max)),
    )


@st.composite
def pools(draw, family: str, dtype: Any) -> tuple[Any, ...]:
    """A few values of a kind."""
    sizes = {"min_size": 1, "max_size": 5}
    if family == "number":
        return tuple(draw(st.lists(number_values(dtype), **sizes)))
    if family == "complex":
        return tuple(draw(st.lists(st.sampled_from([0j, 1 - 2j, complex(np.nan, np.inf)]), **sizes)))
    if family == "text":
        return tuple(draw(st.lists(TEXTS, **sizes)))
    if family == "fixed":
        return tuple(draw(st.lists(st.sampled_from(FIXED), **sizes)))
    if family == "reference":
        return tuple(draw(st.lists(st.sampled_from(["", "/general/größe/b", "/general/a"]), **sizes)))
    return ()


@st.composite
def arrays(draw, rows: int, dtype: str, inner: tuple[int, ...]) -> np.ndarray:
    """Values of a type, including extremes, drawn independently; text as objects."""
    shape = (rows, *inner)
    if dtype in {"text", "U5", "S5"}:
        count = int(np.prod(shape))
        ascii_texts = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=5)
        flat = draw(st.lists(TEXTS if dtype == "text" else ascii_texts, min_size=count, max_size=count))
        return np.array([*flat, None], "O")[:-1].reshape(shape).astype("O" if dtype == "text" else dtype)
    return draw(hnp.arrays(np.dtype(dtype), shape))


def fill(kind: Kind, count: int, rng: np.random.Generator) -> np.ndarray:
    """A number of elements, drawn from the values of a kind."""
    shape = (count, *kind.inner)
    size = int(np.prod(shape))
    dtype = kind.numpy
    if kind.family == "bool":
        return rng.integers(0, 2, shape).astype("?")
    if kind.family == "region":
        return rng.integers(0, 12, shape)
    if kind.family == "enum":
        codes = np.array([_code(name) for name in kind.dtype], "i1")
        return codes[rng.integers(0, len(codes), shape)].astype(dtype)
    if kind.family == "compound":
        values = np.zeros(shape, dtype)
        for name in kind.dtype:
            found = rng.integers(0, 4, values[name].shape)
            values[name] = found.astype("S3") if FIELDS[name] == "S3" else found
        return values
    if kind.family == "vlen":
        values = np.empty(size, "O")
        for place in range(size):
            values[place] = rng.integers(0, 50, rng.integers(0, 4)).astype(kind.dtype)
        return values.reshape(shape)
    pool = np.empty(len(kind.pool), dtype) if dtype == "O" else np.array(kind.pool, dtype)
    if dtype == "O":
        pool[:] = kind.pool
    return pool[rng.integers(0, len(pool), shape)]


# --- columns ------------------------------------------------------------------------------------------


@st.composite
def kinds(draw, families: tuple[str, ...], depth: int = 3) -> Kind:
    family = draw(st.sampled_from(families))
    dtype: Any = ""
    if family == "number":
        dtype = draw(st.sampled_from(NUMBERS))
    elif family == "vlen":
        dtype = draw(st.sampled_from(["i2", "f8"]))
    elif family == "complex":
        dtype = draw(st.sampled_from(["c8", "c16"]))
    elif family == "enum":
        dtype = tuple(sorted(draw(st.sets(st.sampled_from(MEMBERS), min_size=1)), key=MEMBERS.index))
    elif family == "compound":
        dtype = tuple(sorted(draw(st.sets(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3))))
    levels = 0 if family == "vlen" else draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3]))
    inner = draw(st.sampled_from(INNER)) if family not in {"compound", "region", "vlen", "complex"} else ()
    return Kind(family, dtype, min(levels, depth), inner, draw(pools(family, dtype)))


FAMILIES = (
    *["number"] * 5,
    "bool",
    "enum",
    "text",
    "text",
    "fixed",
    "compound",
    "reference",
    "region",
    "vlen",
)


@st.composite
def columns(draw, files: int) -> tuple[str, list[Kind | None]]:
    """One column of several files: how they differ, and its kind in each; None where it is missing."""
    how = draw(
        st.sampled_from([*["same"] * 6, "numbers", "shapes", "ragged", "texts", "lists", "enums", "structs"])
    )
    if how == "same":
        one = draw(kinds((*FAMILIES, "complex")))
        found = [one] * files
    elif how in {"numbers", "shapes", "ragged"}:
        base = draw(kinds(("number",), 2))
        found = []
        for _ in range(files):
            own = replace(base, dtype=draw(st.sampled_from(NUMBERS)), pool=SMALL)
            if how == "shapes":
                own = replace(own, inner=draw(st.sampled_from([(2,), (3,)])))
            elif how == "ragged":
                own = replace(
                    own, **draw(st.sampled_from([{"depth": 1, "inner": ()}, {"depth": 0, "inner": (2,)}]))
                )
            found.append(own)
    elif how == "texts":
        texts = Kind("text", pool=draw(pools("text", "")))
        found = [
            texts if draw(st.booleans()) else replace(draw(kinds(("fixed",), 0)), inner=())
            for _ in range(files)
        ]
    elif how == "lists":  # a text, and a list of texts, which may themselves be in lists
        texts = Kind("text", pool=draw(pools("text", "")), depth=draw(st.integers(0, 1)))
        found = [replace(texts, depth=texts.depth + draw(st.integers(0, 1))) for _ in range(files)]
    else:
        family = "enum" if how == "enums" else "compound"
        depth = draw(st.integers(0, 1))
        found = [replace(draw(kinds((family,), 0)), depth=depth, inner=()) for _ in range(files)]
    return how, [one if draw(st.integers(0, 6)) else None for one in found]


@st.composite
def layouts(draw, kind: Kind, count: int) -> dict[str, Any]:
    """Storage layout of elements; writers leave out what a format does not support for a type."""
    how = draw(st.sampled_from(["contiguous", "chunked", "chunked", "chunked", "compact"]))
    if how != "chunked":
        return {"how": how}
    filters: dict[str, Any] = draw(st.sampled_from(FILTERS))
    chunk = (draw(st.sampled_from([1, 2, 3, 7, 16, 64])), *(draw(st.integers(1, n)) for n in kind.inner))
    grows = draw(st.sampled_from(["no", "rows", "all"]))
    if grows == "no" and count:
        chunk = (min(chunk[0], count), *chunk[1:])
    return {"how": how, "filters": filters, "chunk": chunk, "grows": grows}


FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"compression": "gzip", "shuffle": True},
    {"compression": "gzip", "compression_opts": 1},
    {"compression": "lzf"},
    {"shuffle": True},
    {"fletcher32": True},
    {"compression": "gzip", "fletcher32": True},
    {"compression": "plugin", "name": "zstd"},
    {"compression": "plugin", "name": "blosc"},
    {"compression": "plugin", "name": "bitshuffle"},
)


@st.composite
def contents(draw, kind: Kind, rows: int, rng: np.random.Generator) -> Stored:
    """Values of a column in one file."""
    lengths: list[np.ndarray] = []
    count = rows
    for _ in range(kind.depth):
        most = draw(st.sampled_from([0, 1, 3, 3, 8])) if count < 200 else 2
        lengths.append(rng.integers(0, most + 1, count))
        count = int(lengths[-1].sum())
    values = fill(kind, count, rng)
    stored = Stored(kind, values, lengths, layout=draw(layouts(kind, count)))
    if kind.family in {"number", "bool"} and count and not draw(st.integers(0, 4)):
        stored.unwritten = draw(st.integers(0, count))
        stored.layout["fill"] = kind.pool[0] if kind.pool else False
        values[count - stored.unwritten :] = stored.layout["fill"]
    return stored


# --- sessions -----------------------------------------------------------------------------------------

ROWS = st.sampled_from([30, 13, 70, 5, 2, 1, 0, 8, 30, 200, 3])
#: Of a column, about.
MAX_ELEMENTS = 3000
#: Text for the metadata of sessions.
SUBJECTS = ("m1", "m2", "Mäuschen", "")


@st.composite
def tables(draw, plan: dict[str, Kind | None], rng: np.random.Generator, *, tidy: bool = False) -> Table:
    sizes = [int(np.prod(kind.inner)) * 2**kind.depth for kind in plan.values() if kind is not None]
    rows = min(draw(ROWS), MAX_ELEMENTS // max(sizes, default=1), *([30] if tidy else []))
    has_id = tidy or bool(draw(st.integers(0, 9)))
    found = {}
    for name, kind in plan.items():
        if kind is None:
            continue
        faulty = not tidy and has_id and not draw(st.integers(0, 24))
        own = max(0, rows + draw(st.sampled_from([-3, -1, 2]))) if faulty else rows
        found[name] = draw(contents(kind, own, rng))
    hidden = tuple(name for name in found if found[name].rows == rows and not draw(st.integers(0, 7)))
    if not has_id and set(found) <= set(hidden):
        has_id = True  # a table has some rows
    return Table(rows, found, () if tidy else hidden, has_id)


@st.composite
def series(draw, rng: np.random.Generator, kind: Kind) -> Series:
    rows = draw(ROWS)
    data = draw(contents(kind, rows, rng))
    start = draw(st.sampled_from([0.0, -2.5, 1e6, 0.1]))
    rate = draw(st.sampled_from([1.0, 30.0, 0.1, 1e-3, 30000.0]))
    if draw(st.booleans()):
        return Series(data, None, start, rate)
    return Series(data, draw(clocks(rng, rows, start)), chunk=draw(st.sampled_from([0, 1, 3, 16])))


@st.composite
def clocks(draw, rng: np.random.Generator, rows: int, start: float) -> np.ndarray:
    """Timestamps: ascending as in the specification, unordered, or with NaN and infinities."""
    # Some are equal, clocks stop and jump.
    steps = rng.choice(draw(st.sampled_from([(1.0,), (0.0, 1.0), (0.5, 0.5, 0.5, 400.0), (1 / 3,)])), rows)
    stamps = start + np.cumsum(steps)
    order = draw(st.sampled_from(["ascending"] * 3 + ["falling", "reset", "swapped", "shuffled"]))
    if order == "falling":
        stamps = stamps[::-1].copy()
    elif order == "reset":
        stamps = np.roll(stamps, draw(st.integers(0, max(rows - 1, 0))))
    elif order == "swapped" and rows:
        one, other = rng.integers(0, rows, 2)
        stamps[[one, other]] = stamps[[other, one]]
    elif order == "shuffled":
        rng.shuffle(stamps)
    if rows and not draw(st.integers(0, 3)):
        odd = draw(st.sampled_from([(np.nan,), (np.inf, -np.inf), (np.nan, 0.0, -0.0)]))
        places = rng.integers(0, rows, draw(st.integers(1, 3)))
        stamps[places] = rng.choice(odd, len(places))
    whole = ["i8", "i2", "u4"] if np.isfinite(stamps).all() and 0 <= start < 1e4 else []
    return stamps.astype(draw(st.sampled_from(["f8", "f8", "f8", "f4", ">f8", *whole])))


@st.composite
def sessions(draw, *, parts: frozenset[str] = frozenset({"table", "series"})) -> list[Session]:
    """One to four similar sessions."""
    files = draw(st.sampled_from([1, 2, 2, 3, 3, 4]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    plans = {name: draw(columns(files))[1] for name in names} if "table" in parts else {}
    others = {
        name: draw(kinds(FAMILIES, 1))
        for name in draw(st.lists(st.sampled_from([*"pqr", *TIMES]), max_size=2, unique=True))
    }
    of_series = draw(kinds(("number", "number", "bool", "text"), 0))
    subjects = draw(st.booleans())
    found = []
    for number in range(files):
        plan = {name: plans[name][number] for name in plans}
        has_table = "table" in parts and (number == 0 or bool(draw(st.integers(0, 7))))
        has_series = "series" in parts and (number == 0 or bool(draw(st.integers(0, 7))))
        table = draw(tables(plan, rng)) if has_table else None
        other = draw(tables(others, rng, tidy=True))
        general: dict[str, Any] = {"session_id": f"s{number % 3}"}
        if draw(st.booleans()):
            general["keywords"] = draw(st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=3))
        subject = (
            {"subject_id": draw(st.sampled_from(SUBJECTS))} if subjects and draw(st.integers(0, 4)) else None
        )
        session = Session(
            table, other, draw(series(rng, of_series)) if has_series else None, general, subject
        )
        session.libver = draw(st.sampled_from(["earliest", "latest"]))
        if draw(st.integers(0, 3)) == 0 and fits_zarr(session):
            session.zarr = draw(zarr_layouts())
        found.append(session)
    return found


IN_ZARR = frozenset({"number", "bool", "text", "region"})


def fits_zarr(session: Session) -> bool:
    """Return whether the writer of Zarr stores supports the session."""
    held = [table for table in (session.table, session.other) if table is not None]
    stored = [column for table in held for column in table.columns.values()]
    if session.series is not None:
        stored.append(session.series.data)
    return all(c.kind.family in IN_ZARR and np.dtype(c.kind.dtype or "i1") != "f2" for c in stored)


@st.composite
def zarr_layouts(draw) -> dict[str, Any]:
    version = draw(st.sampled_from([2, 3]))
    codecs = ["plain", "gzip", "zstd", "zstd_checked", "crc32c", "blosc_lz4", "blosc_zstd"]
    if version == 2:
        codecs += ["zlib", "shuffled", "lz4"]
    shards = draw(st.sampled_from(["", "", "end+crc32c", "start+crc32c"])) if version == 3 else ""
    return {
        "version": version,
        "codec": draw(st.sampled_from(codecs)),
        "shards": shards,
        "order": draw(st.sampled_from("CF")),
        "consolidated": draw(st.booleans()),
    }


# --- metadata -----------------------------------------------------------------------------------------

#: Fields that are scalars in the schema, by the group that they are in.
SCALAR_FIELDS = {
    "": ("identifier", "session_description"),
    "general": ("session_id", "lab", "institution", "notes", "protocol", "experiment_description"),
    "general/subject": ("subject_id", "sex", "species", "genotype"),
}
LIST_FIELDS = ("keywords", "experimenter", "related_publications")


@st.composite
def metadata(draw) -> tuple[dict[str, Any], dict[str, Any]]:
    """Stored data of one file by path, and the decoded values."""
    stored: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for group, names in SCALAR_FIELDS.items():
        for name in names:
            if name in {"identifier", "session_id"} or draw(st.booleans()):
                path = f"{group}/{name}".strip("/")
                value = values[path] = draw(st.sampled_from(SUBJECTS))
                shape = draw(st.sampled_from([(), (), (1,), (1, 1)]))
                stored[path] = draw(_as_text(np.full(shape, value, "O")))
    for name in LIST_FIELDS:
        if draw(st.booleans()):
            several = draw(st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=3))
            shape = draw(st.sampled_from([(-1,), (-1, 1), (1, -1), *([()] if len(several) == 1 else [])]))
            values[f"general/{name}"] = several
            stored[f"general/{name}"] = draw(_as_text(np.array(several, "O").reshape(shape)))
    if draw(st.booleans()):  # of which the schema knows nothing: a number, or several
        number = draw(st.sampled_from([5, [5], [6, 7]]))
        values["general/mine"], stored["general/mine"] = number, np.array(number)
    return stored, values


@st.composite
def _as_text(draw, texts: np.ndarray) -> np.ndarray:
    """Text of any length, or of a fixed one, in UTF-8."""
    if draw(st.booleans()):
        return texts
    coded = [text.encode() for text in texts.ravel()]
    return np.array(coded, f"S{max(1, *map(len, coded), 1)}").reshape(texts.shape)


# --- attributes ---------------------------------------------------------------------------------------

#: Attributes of which the NWB schema says that they are scalars, and one that it does not know.
SCALAR_ATTRIBUTES, FREE_ATTRIBUTES = ("unit", "conversion", "description", "resolution"), ("mine", "Größe")


@st.composite
def attributes(draw) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes of one object: as they are stored, and as plain values."""
    stored, expected = {}, {}
    for name in draw(st.lists(st.sampled_from([*SCALAR_ATTRIBUTES, *FREE_ATTRIBUTES]), unique=True)):
        dtype = draw(st.sampled_from(["f8", "f4", ">f8", "i8", "u1", ">i2", "bool", "text"]))
        items = (
            st.sampled_from(SUBJECTS)
            if dtype == "text"
            else number_values(dtype)
            if dtype != "bool"
            else st.booleans()
        )
        count = draw(st.sampled_from([None, 1, 1, 0, 3]))
        values = draw(
            st.lists(items, min_size=count or int(count is None), max_size=1 if count is None else count)
        )
        array = np.array(values, "O" if dtype == "text" else dtype)
        shape = draw(st.sampled_from([(-1,), (1, -1)])) if count == 1 else (-1,)
        stored[name] = array.reshape(() if count is None else shape)
        plain = stored[name].tolist()
        if name in SCALAR_ATTRIBUTES:
            while isinstance(plain, list) and len(plain) == 1:
                plain = plain[0]
            plain = None if plain == [] else plain
        expected[name] = plain
    return stored, expected
