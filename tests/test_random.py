"""Random tables over several files, random predicates and limits: lazy result == eager result == oracle."""

import itertools
import tempfile
from pathlib import Path

import h5py
import hypothesis.strategies as st
import numpy as np
import polars as pl
from hypothesis import HealthCheck, given, note, settings
from hypothesis.extra import numpy as hnp

import lazynwb
import oracle
from builders import GZIP, VLEN_TEXT, Column, Ragged, table
from checks import ENGINES, assert_frames, assert_values

NUMERIC = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "f4", "f8", ">i4", ">f8", "?"]
FILTERS = [
    {},
    {"chunks": 1},
    {"chunks": 3},
    {"chunks": 7, **GZIP},
    {"chunks": 4, "compression": 1},
    {"chunks": 5, "shuffle": True},
    {"chunks": 64, "fletcher32": True},
    {"chunks": 6, "compression": "lzf"},
]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@st.composite
def column_kinds(draw):
    """What is the same in every file: the type, the raggedness, and the shape of a row."""
    kind = draw(st.sampled_from(["number", "text", "fixed"]))
    dtype = {"number": draw(st.sampled_from(NUMERIC)), "text": "text", "fixed": "S5"}[kind]
    return dtype, draw(st.integers(0, 2)), draw(st.sampled_from([(), (), (2,), (2, 3)]))


@st.composite
def values(draw, dtype, count, inner):
    """An array of `count` values of the type."""
    if dtype == "text":
        size = count * int(np.prod(inner))
        flat = draw(st.lists(TEXT, min_size=size, max_size=size))
        return np.array(flat, "O").reshape(count, *inner) if size else np.zeros((count, *inner), "O")
    elements = {"min_size": 1, "max_size": 4} if dtype == "S5" else {}
    array = draw(hnp.arrays(np.dtype(dtype), (count, *inner), elements=elements or None, fill=st.nothing()))
    return np.array([bytes(b) for b in array.ravel()], "S5").reshape(array.shape) if dtype == "S5" else array


@st.composite
def columns(draw, kind, rows):
    dtype, depth, inner = kind
    options = dict(draw(st.sampled_from(FILTERS)))
    if dtype == "text":
        options.pop("fletcher32", None)  # HDF5 has none for references into its heap
    counts = [rows]
    levels = []
    for _ in range(depth):
        lengths = draw(st.lists(st.integers(0, 4), min_size=counts[-1], max_size=counts[-1]))
        levels.append(lengths)
        counts.append(sum(lengths))
    data = draw(values(dtype, counts[-1], inner))
    if "chunks" in options:
        options["chunks"] = (options["chunks"], *inner)
        options["maxshape"] = (None, *inner)
    if not depth:
        return Column(data, {**options, **({"dtype": VLEN_TEXT} if dtype == "text" else {})})
    return levels, data, options


def write_column(group, name, column):
    """Ragged columns are given by their levels, outermost first, and their flat data."""
    if isinstance(column, Column):
        group.create_dataset(name, data=column.data, **column.options)
        return
    levels, data, options = column
    dataset = group.create_dataset(
        name, data=data, **options, **({"dtype": VLEN_TEXT} if data.dtype == "O" else {})
    )
    for lengths in reversed(levels):
        name += "_index"
        stored = {"chunks": (3,), "maxshape": (None,), **GZIP} if len(lengths) % 2 else {}
        index = group.create_dataset(name, data=np.cumsum(lengths, dtype="u4"), **stored)
        index.attrs.update({"neurodata_type": "VectorIndex", "target": dataset.ref})
        dataset = index


@st.composite
def cubes(draw):
    """Columns by name for each of several files; some columns are missing from some files."""
    kinds = draw(st.dictionaries(st.sampled_from("abcdefgh"), column_kinds(), min_size=1, max_size=5))
    files = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.integers(0, 25))
        present = [name for name in kinds if draw(st.integers(0, 4))]
        files.append((rows, {name: draw(columns(kinds[name], rows)) for name in present}))
    return files


@st.composite
def conjuncts(draw, frame):
    """A condition on one column of the frame, with a value that is in it."""
    name = draw(st.sampled_from([n for n in frame.columns if n != "_table_path"]))
    column, dtype = pl.col(name), frame.schema[name]
    value = draw(st.sampled_from(frame[name].to_list())) if frame.height else None
    if isinstance(dtype, pl.List):
        return draw(st.sampled_from([column.list.len() > 1, column.is_not_null(), column.list.len() == 0]))
    if isinstance(dtype, pl.Array) or value is None:
        return draw(st.sampled_from([column.is_null(), column.is_not_null()]))
    if dtype == pl.Boolean:
        return draw(st.sampled_from([column, ~column, column.is_null()]))
    if dtype == pl.String:
        return draw(
            st.sampled_from([column == value, column != value, column.str.len_chars() > 2, column > value])
        )
    literal = pl.lit(value, dtype=dtype)
    return draw(
        st.sampled_from([column <= literal, column == literal, column > literal, column.is_in([value])])
    )


@st.composite
def predicates(draw, frame):
    """ANDs and ORs of conditions."""
    found = draw(conjuncts(frame))
    for _ in range(draw(st.integers(0, 3))):
        other = draw(conjuncts(frame))
        found = found & other if draw(st.integers(0, 3)) else found | other
    return found


def write(folder, files):
    paths = []
    for number, (rows, content) in enumerate(files):
        paths.append(Path(folder) / f"{number}.nwb")
        with h5py.File(paths[-1], "w", libver="latest" if number % 2 else "earliest") as file:
            group = table(file, "t", {}, rows=rows, colnames=np.array([*content, ""], VLEN_TEXT))
            for name, column in content.items():
                write_column(group, name, column)
    return paths


@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
)
@given(st.data())
def test_lazy_equals_eager_equals_oracle(data):
    files = data.draw(cubes())
    with tempfile.TemporaryDirectory() as folder:
        paths = write(folder, files)
        lazynwb.config.batch_bytes = data.draw(st.sampled_from([100, 5_000, 64 << 20]))
        lf = lazynwb.scan_nwb(paths, "t")
        eager = lf.collect()
        assert eager.schema == lf.collect_schema()
        expected = [oracle.read_table(path, "t") for path in paths]
        for name in eager.columns[:-3]:
            parts = (t.columns.get(name, [None] * t.rows) for t in expected)
            assert_values(eager[name].to_list(), list(itertools.chain.from_iterable(parts)), name)
        names = data.draw(st.lists(st.sampled_from(eager.columns), min_size=1, unique=True))
        predicate, limit = data.draw(predicates(eager)), data.draw(st.integers(0, 30))
        note(f"select {names} where {predicate} limit {limit}")
        queries = {
            "project": lambda frame: frame.select(names),
            "filter": lambda frame: frame.filter(predicate).select(names),
            "filter then limit": lambda frame: frame.filter(predicate).select(names).head(limit),
            "limit then filter": lambda frame: frame.head(limit).filter(predicate).select(names),
            "slice": lambda frame: frame.slice(limit, 5).select(names),
            "count": lambda frame: frame.filter(predicate).select(pl.len()),
        }
        for title, query in queries.items():
            for engine in ENGINES:
                note(f"{title} on {engine}")
                assert_frames(query(lf).collect(engine=engine), query(eager.lazy()).collect())


WIDENING = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "f4", "f8"]


@given(
    st.lists(
        st.tuples(st.sampled_from(WIDENING), st.lists(st.integers(0, 100), max_size=5)),
        min_size=1,
        max_size=4,
    )
)
def test_numbers_of_any_types_keep_their_values(files):
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, (dtype, content) in enumerate(files):
            paths.append(Path(folder) / f"{number}.nwb")
            with h5py.File(paths[-1], "w") as file:
                table(file, "t", {"x": np.array(content, dtype)})
        everything = [float(value) for _, content in files for value in content]
        for engine in ENGINES:
            assert (
                lazynwb.scan_nwb(paths, "t").collect(engine=engine)["x"].cast(pl.Float64).to_list()
                == everything
            )


@given(
    st.lists(st.lists(st.lists(st.integers(-5, 5), max_size=4), max_size=4), max_size=8),
    st.sampled_from(FILTERS[:4]),
)
def test_doubly_ragged_rows(rows, options):
    options = {
        **options,
        **({"chunks": (options["chunks"],), "maxshape": (None,)} if "chunks" in options else {}),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nwb"
        with h5py.File(path, "w") as file:
            table(file, "t", {"x": Ragged(rows, "i2", 2, options=options)})
        assert lazynwb.read_nwb(path, "t")["x"].to_list() == rows
        for row in range(0, len(rows), 3):
            frame = lazynwb.scan_nwb(path, "t").filter(pl.col("_table_index") == row).select("x").collect()
            assert frame["x"].to_list() == [rows[row]]
