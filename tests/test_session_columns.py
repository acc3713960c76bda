"""`session_columns`: metadata of the files as columns of every row, and files that filters skip."""

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import builders
import lazynwb
from lazynwb.errors import SchemaError
from range_server import RangeServer

MICE = ["a", "b", "a", None, "c"]
AGES = ["P30D", None, "P31D", None, "P90D"]


def write_session(path, number):
    with h5py.File(path, "w") as file:
        file["identifier"] = f"id{number}"
        file["session_start_time"] = f"2024-01-0{number + 1}T00:00:00Z"
        file.create_dataset("general/session_id", data=f"s{number}")
        if number % 2 == 0:
            file["general/keywords"] = np.array(["production", f"k{number}"], dtype=h5py.string_dtype())
        if MICE[number] is not None:
            file["general/subject/subject_id"] = MICE[number]
        if AGES[number] is not None:
            file["general/subject/age"] = AGES[number]
        builders.table(
            file, "units", {"rate": np.arange(number + 1) * 1.5, "quality": ["good"] * (number + 1)}
        )


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sessions")
    paths = [folder / f"{number}.nwb" for number in range(len(MICE))]
    for number, path in enumerate(paths):
        write_session(path, number)
    return paths


def joined(paths):
    """The same result by two joins, without session columns."""
    units = lazynwb.scan_nwb(paths, "/units")
    general = lazynwb.scan_nwb(paths, "/general").select("_nwb_path", "session_id", "keywords")
    subject = lazynwb.scan_nwb(paths, "/general/subject").select("_nwb_path", "subject_id", "age")
    both = units.join(general, on="_nwb_path", how="left", maintain_order="left")
    both = both.join(subject, on="_nwb_path", how="left", maintain_order="left")
    return both.select(*COLUMNS)


NAMES = ["session_id", "keywords", "subject_id", "age"]
COLUMNS = ["id", "quality", "rate", *NAMES, "_nwb_path", "_table_path", "_table_index"]


def scan(paths, **options):
    return lazynwb.scan_nwb(paths, "/units", session_columns=NAMES, **options)


def test_session_columns_equal_joins_on_the_path(sessions):
    frame = scan(sessions).collect()
    assert frame.columns == COLUMNS
    assert_frame_equal(frame, joined(sessions).collect())
    assert frame["subject_id"].to_list() == [m for n, m in enumerate(MICE) for _ in range(n + 1)]


def test_the_schema_is_known_before_collect(sessions):
    schema = scan(sessions).collect_schema()
    assert schema["keywords"] == pl.List(pl.String)
    assert list(schema) == COLUMNS


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize(
    "predicate",
    [
        pl.col("subject_id") == "a",
        pl.col("keywords").list.contains("production"),
        (pl.col("subject_id") == "a") | (pl.col("rate") > 3),
        (pl.col("subject_id") == "a") & (pl.col("rate") > 1) & (pl.col("session_id") != "s0"),
        pl.col("age").is_null(),
        pl.col("subject_id") == pl.col("session_id"),
        pl.col("subject_id") + pl.col("quality") == "agood",
        pl.col("subject_id") == "no such mouse",
    ],
)
@pytest.mark.sample(2)
def test_filters_on_session_columns_equal_filters_after_joins(sessions, predicate, engine):
    found = scan(sessions).filter(predicate).collect(engine=engine)
    assert_frame_equal(found, joined(sessions).collect().filter(predicate))


@given(
    limit=st.none() | st.integers(0, 20),
    mice=st.sets(st.sampled_from(["a", "b", "c"])),
    columns=st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True),
    rate=st.floats(0, 6),
)
def test_limits_and_projections_with_session_columns(sessions, limit, mice, columns, rate):
    predicate = pl.col("subject_id").is_in(sorted(mice)) & (pl.col("rate") >= rate)
    lazy, eager = scan(sessions), joined(sessions).collect()
    if limit is not None:
        lazy, eager = lazy.head(limit), eager.head(limit)
    assert_frame_equal(
        lazy.filter(predicate).select(columns).collect(), eager.filter(predicate).select(columns)
    )


@pytest.mark.usefixtures("no_store")
def test_a_filter_on_session_columns_skips_files_before_other_reads(sessions):
    query = scan(sessions).filter(pl.col("subject_id") == "b")
    lazynwb.clear_cache()
    with lazynwb.profile() as cold:
        assert len(query.collect()) == 2
    assert cold.files_skipped == 4
    # The subject of each file; of the one that is left, the other metadata and the units.
    assert cold.files_parsed == len(sessions) + 2
    with lazynwb.profile() as warm:
        query.select("rate").collect()
    unfiltered = lazynwb.scan_nwb(sessions, "/units").select("rate")
    with lazynwb.profile() as whole:
        unfiltered.collect()
    assert (warm.files_skipped, whole.files_skipped) == (4, 0)
    # Four subjects' names, a reference and the text that it leads to each; then the column of one file.
    assert warm.requests == 2 * 4 + 1
    assert whole.requests == len(sessions)


@pytest.mark.usefixtures("no_store")
def test_metadata_that_a_query_does_not_need_is_not_read(sessions):
    query = scan(sessions)
    with lazynwb.profile() as without:
        query.select("rate").collect()
    plain = lazynwb.scan_nwb(sessions, "/units").select("rate")
    with lazynwb.profile() as bare:
        plain.collect()
    assert without.bytes_read == bare.bytes_read
    assert without.files_opened == bare.files_opened


def test_metadata_of_the_first_files_only_if_they_suffice(tmp_path):
    paths = []
    for number in range(200):
        paths.append(tmp_path / f"{number:03}.nwb")
        with h5py.File(paths[-1], "w") as file:
            file["general/session_id"] = str(number)
            builders.table(file, "units", {"rate": np.arange(5.0)})
    query = lazynwb.scan_nwb(paths, "/units", infer_schema_length=1, session_columns="session_id")
    with lazynwb.profile() as counts:
        found = query.head(12).collect(engine="streaming")
    assert found["session_id"].to_list() == ["0"] * 5 + ["1"] * 5 + ["2"] * 2
    assert counts.files_parsed < 150


def test_remote_files_that_are_skipped_cost_only_their_metadata(sessions):
    with RangeServer(sessions[0].parent, latency=0.001) as server:
        urls = [server.url_of(path.name) for path in sessions]
        query = lazynwb.scan_nwb(
            urls, "/units", infer_schema_length=1, session_columns=["subject_id", "session_id"]
        ).filter(pl.col("subject_id") == "c")
        assert query.collect()["session_id"].to_list() == ["s4"] * 5
        with lazynwb.profile() as counts:
            query.collect()
        assert counts.files_skipped == 4


def test_other_names_and_paths(sessions):
    found = lazynwb.scan_nwb(
        sessions, "/units", session_columns={"mouse": "subject_id", "start": "session_start_time"}
    ).collect()
    assert found["mouse"].to_list() == [m for n, m in enumerate(MICE) for _ in range(n + 1)]
    assert found["start"][0] == "2024-01-01T00:00:00Z"
    paths = lazynwb.scan_nwb(
        sessions,
        "/units",
        session_columns=["subject/age", "/general/session_id", "general/subject/subject_id"],
    )
    assert paths.collect_schema().names()[3:6] == ["age", "session_id", "subject_id"]


def test_a_single_name_may_be_a_string(sessions):
    one = lazynwb.scan_nwb(sessions[0], "/units", session_columns="identifier").collect()
    assert one["identifier"].to_list() == ["id0"]


def test_the_same_file_twice_gives_its_rows_twice(sessions):
    found = scan([sessions[1], sessions[0], sessions[1]]).select("session_id").collect()
    assert found.to_series().to_list() == ["s1"] * 2 + ["s0"] + ["s1"] * 2


def test_unknown_metadata_are_an_error_with_the_available_names(sessions):
    with pytest.raises(SchemaError, match=r"no session metadata 'subjectid'.*did you mean 'subject_id'"):
        lazynwb.scan_nwb(sessions, "/units", session_columns="subjectid")


def test_ambiguous_session_columns_must_be_renamed(sessions):
    wanted = ["general/session_id", "session_id"]
    with pytest.raises(SchemaError, match="'general/session_id' and 'session_id' have the same column name"):
        lazynwb.scan_nwb(sessions, "/units", session_columns=wanted)
    twice = lazynwb.scan_nwb(sessions, "/units", session_columns=["age", "age"]).collect_schema()
    assert list(twice).count("age") == 1


@pytest.mark.parametrize("wrong", [[5], {"a": 5}, {5: "age"}])
def test_other_objects_than_names_are_type_errors(sessions, wrong):
    with pytest.raises(TypeError, match="session_columns must be names"):
        lazynwb.scan_nwb(sessions, "/units", session_columns=wrong)


def test_a_column_of_the_table_is_not_replaced(sessions):
    with pytest.raises(SchemaError, match=r"session column 'rate'.*session_columns=\{"):
        lazynwb.scan_nwb(sessions, "/units", session_columns={"rate": "session_id"})


def test_session_columns_are_added_without_array_columns_and_to_a_given_schema(sessions):
    bare = scan(sessions, exclude_array_columns=True).collect_schema()
    assert "keywords" in bare
    given_schema = scan(sessions, schema={"rate": pl.Float32}).collect()
    assert given_schema.columns[:2] == ["rate", "session_id"]
    assert given_schema["rate"].dtype == pl.Float32


def test_unreadable_files_are_skipped_on_request(sessions, tmp_path, caplog):
    bad = tmp_path / "bad.nwb"
    bad.write_bytes(b"not HDF5")
    with pytest.raises(lazynwb.NotNWBError, match=r"bad\.nwb"):
        scan([*sessions, bad], infer_schema_length=1).collect()
    found = scan([*sessions, bad], ignore_errors=True).filter(pl.col("subject_id") == "a").collect()
    assert found["session_id"].unique().sort().to_list() == ["s0", "s2"]


def test_sessions_without_the_metadata_cause_no_warning(sessions, caplog):
    scan(sessions).collect()
    assert not caplog.records


def test_only_types_of_requested_columns_must_agree(tmp_path):
    paths = [tmp_path / f"{number}.nwb" for number in range(2)]
    for number, weight in enumerate(("20 g", 20.0)):
        with h5py.File(paths[number], "w") as file:
            file["general/subject/subject_id"] = f"m{number}"
            file["general/subject/weight"] = weight
            builders.table(file, "units", {"rate": np.arange(2.0)})
    expected = ["m0", "m0", "m1", "m1"]
    for name in ("subject_id", "subject/subject_id"):
        found = lazynwb.scan_nwb(paths, "/units", session_columns=name).collect()
        assert found["subject_id"].to_list() == expected
    query = "SELECT subject_id FROM units ORDER BY subject_id"
    context = lazynwb.get_sql_context(paths, session_columns="subject_id")
    assert context.execute(query, eager=True)["subject_id"].to_list() == expected
    lazynwb.build_index(paths, tmp_path / "index")
    indexed = lazynwb.scan_nwb(None, "/units", session_columns="subject_id", index=tmp_path / "index")
    assert indexed.collect()["subject_id"].to_list() == expected
    with pytest.raises(SchemaError, match="'weight'"):
        lazynwb.scan_nwb(paths, "/units", session_columns="weight")
    with pytest.raises(SchemaError, match="did you mean 'subject_id'"):
        lazynwb.scan_nwb(paths, "/units", session_columns="subject_idd")
