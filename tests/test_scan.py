"""Scans in Polars: the queries of the notebook, projections, predicates and limits."""

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import table, write_session
from checks import ENGINES, assert_frames

engines = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(scope="module")
def units(cube):
    """The whole table, read once: every lazy result is compared with the same query on it."""
    return lazynwb.read_nwb(cube, "/units")


# --- the notebook -------------------------------------------------------------------------------------

GOOD_UNITS = (
    pl.col("location").str.starts_with("CA1"),
    pl.col("activity_drift") <= 0.01,
    pl.col("amplitude_cutoff") <= 0.1,
    pl.col("presence_ratio") >= 0.7,
    pl.col("isi_violations_ratio") <= 0.5,
    pl.col("decoder_label") != "noise",
)


@engines
def test_the_units_query_of_the_notebook(cube, units, engine):
    names = ["unit_id", "location", "spike_times", "_nwb_path"]
    lf = lazynwb.scan_nwb(cube, table_path="/units", infer_schema_length=1)
    assert_frames(
        lf.filter(*GOOD_UNITS).select(names).collect(engine=engine), units.filter(*GOOD_UNITS).select(names)
    )


@engines
def test_the_performance_query_of_the_notebook(cube, engine):
    def query(scan):
        return (
            scan("/intervals/performance")
            .join(scan("/general").select("_nwb_path", "keywords", "session_id"), on="_nwb_path", how="left")
            .join(scan("/general/subject").select("_nwb_path", "subject_id"), on="_nwb_path", how="left")
            .filter(
                pl.col("keywords").list.contains("production"),
                pl.col("signed_cross_modality_dprime").drop_nans().mean().over("session_id") > 2.0,
            )
            .with_columns((pl.col("stop_time") - pl.col("start_time")).alias("block_duration"))
            .select(
                "block_index", "block_duration", "signed_cross_modality_dprime", "subject_id", "_nwb_path"
            )
            .sort("_nwb_path", "block_index")
        )

    lazy = query(lambda path: lazynwb.scan_nwb(cube, table_path=path, infer_schema_length=1)).collect(
        engine=engine
    )
    eager = query(lambda path: lazynwb.read_nwb(cube, path, infer_schema_length=1).lazy()).collect()
    assert_frames(lazy, eager)
    assert 0 < lazy.height < 30
    assert str(cube[3]) not in lazy["_nwb_path"]


# --- pushdown -----------------------------------------------------------------------------------------


@engines
@pytest.mark.parametrize(
    "predicate",
    [
        pl.col("presence_ratio") > 0.8,
        pl.col("amplitude_cutoff").is_nan(),
        (pl.col("presence_ratio") > 0.8) & (pl.col("location") == "CA1"),
        (pl.col("presence_ratio") > 0.9) | (pl.col("location") == "CA1"),
        pl.col("spike_times").list.len() > 100,
        (pl.col("spike_times").list.len() > 100) & (pl.col("location") == "CA1"),
        pl.col("location").is_in(["CA1", "LP"]) & ~(pl.col("decoder_label") == "noise"),
        pl.col("presence_ratio") > pl.col("isi_violations_ratio"),
        pl.col("presence_ratio") > pl.col("presence_ratio").mean(),
        pl.col("activity_drift") == pl.col("activity_drift").max(),
        pl.col("id").cum_sum() < 30,
        pl.col("activity_drift").rank() <= 5,
        pl.col("presence_ratio").mean().over("location") > 0.6,
        pl.col("id").shift(1) == 3,
        pl.col("unit_id").map_elements(lambda text: sum(map(ord, text)) % 3 == 0, return_dtype=pl.Boolean),
        pl.col("_table_index") % 7 == 0,
        pl.lit(value=True),
        pl.lit(value=False),
        pl.lit(None, dtype=pl.Boolean),
    ],
    ids=str,
)
@pytest.mark.sample(2)
def test_a_predicate_equals_the_same_filter_in_memory(cube, units, engine, predicate):
    lazy = lazynwb.scan_nwb(cube, "/units").filter(predicate).select("unit_id", "spike_times")
    assert_frames(lazy.collect(engine=engine), units.filter(predicate).select("unit_id", "spike_times"))


QUERIES_OF_A_FRAME = {
    "row index": lambda f: f.with_row_index().filter(pl.col("location") == "CA1"),
    "row index after": lambda f: f.filter(pl.col("location") == "CA1").with_row_index(),
    "sort head": lambda f: f.sort("activity_drift").head(4),
    "top k": lambda f: f.top_k(4, by="presence_ratio"),
    "reverse": lambda f: f.drop("waveform_mean", "obs_intervals").reverse().filter(pl.col("id") > 30),
    "every third": lambda f: f.gather_every(3),
    "unique": lambda f: f.unique("location", keep="first", maintain_order=True),
    "last": lambda f: f.last(),
    "explode": lambda f: f.filter(pl.col("id") < 3).explode("spike_times"),
    "rename then filter": lambda f: f.rename({"location": "area"}).filter(pl.col("area") == "LP"),
    "new column then filter": lambda f: f.with_columns(x=pl.col("id") * 2).filter(
        pl.col("x") > 50, pl.col("location") == "LP"
    ),
    "overwritten column": lambda f: f.with_columns(id=pl.col("id") + 1000).filter(pl.col("id") < 1010),
    "drop": lambda f: f.drop("waveform_mean", "spike_times", "_nwb_path").filter(pl.col("id") > 20),
    "two filters": lambda f: (
        f.filter(pl.col("id") > 5).head(40).filter(pl.col("location") != "CA1").slice(2, 9)
    ),
    "no columns": lambda f: f.filter(pl.col("id") > 5).select(pl.lit(1).alias("one")),
    "list to scalar": lambda f: f.select(pl.col("spike_times").list.first(), "id").filter(
        pl.col("spike_times") > 5
    ),
    "null rows": lambda f: f.filter(pl.col("unit_id").is_null()),
    "selectors": lambda f: f.select(pl.selectors.float() | pl.selectors.starts_with("_")),
}


@engines
@pytest.mark.parametrize("name", QUERIES_OF_A_FRAME)
@pytest.mark.sample(3)
def test_a_query_equals_the_same_query_in_memory(cube, units, engine, name):
    query = QUERIES_OF_A_FRAME[name]
    assert_frames(
        query(lazynwb.scan_nwb(cube, "/units")).collect(engine=engine), query(units.lazy()).collect()
    )


@engines
def test_predicates_on_struct_fields(built, engine):
    frame = lazynwb.read_nwb(built("compounds"), "t")
    lf = lazynwb.scan_nwb(built("compounds"), "t")
    for predicate in (
        pl.col("one_reference").struct.field("count") > 2,
        pl.col("one_reference").struct.field("timeseries") == "/acquisition/raw",
        pl.col("pixel_mask").list.first().struct.field("weight") < 0.4,
    ):
        assert_frames(lf.filter(predicate).collect(engine=engine), frame.filter(predicate))
        assert frame.filter(predicate).height == 1


@engines
def test_an_error_in_a_predicate_keeps_its_type(cube, engine):
    with pytest.raises(pl.exceptions.InvalidOperationError):
        lazynwb.scan_nwb(cube, "/units").filter(pl.col("location").cast(pl.Int64) > 1).collect(engine=engine)
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        lazynwb.scan_nwb(cube, "/units").filter(pl.col("no_such_column") > 1).collect(engine=engine)


@engines
def test_a_limit_before_a_filter_limits_first(cube, units, engine):
    predicate = pl.col("location") == "CA1"
    lf = lazynwb.scan_nwb(cube, "/units").select("unit_id", "location", "spike_times")
    eager = units.select("unit_id", "location", "spike_times")
    assert_frames(lf.head(50).filter(predicate).collect(engine=engine), eager.head(50).filter(predicate))
    assert_frames(lf.filter(predicate).head(50).collect(engine=engine), eager.filter(predicate).head(50))
    assert_frames(
        lf.head(60).filter(predicate).head(3).collect(engine=engine), eager.head(60).filter(predicate).head(3)
    )
    assert_frames(
        lf.slice(35, 20).filter(predicate).collect(engine=engine), eager.slice(35, 20).filter(predicate)
    )
    assert_frames(lf.tail(7).collect(engine=engine), eager.tail(7))


@engines
def test_columns_are_in_the_requested_order(cube, units, engine):
    names = ["_table_index", "spike_times", "id", "_nwb_path", "activity_drift"]
    assert_frames(lazynwb.scan_nwb(cube, "/units").select(names).collect(engine=engine), units.select(names))


@engines
def test_rows_come_in_the_order_of_the_sources(cube, engine):
    backwards = cube[::-1]
    frame = lazynwb.scan_nwb(backwards, "/units").select("_nwb_path", "_table_index").collect(engine=engine)
    assert list(dict.fromkeys(frame["_nwb_path"])) == [str(path) for path in backwards]
    assert frame["_table_index"].to_list() == list(range(40)) * 6


@engines
def test_counting_rows_reads_no_data(cube, engine):
    lf = lazynwb.scan_nwb(cube, "/units")
    assert lf.select(pl.len()).collect(engine=engine).item() == 240
    with lazynwb.profile() as p:
        assert lf.select(pl.len()).collect(engine=engine).item() == 240
    assert p.bytes_read == 0


@engines
def test_counting_the_rows_of_a_filter_reads_its_columns_only(cube, units, engine):
    lf = lazynwb.scan_nwb(cube, "/units")
    predicate = pl.col("presence_ratio") > 0.8
    lf.select(pl.len()).collect()
    with lazynwb.profile() as p:
        assert (
            lf.filter(predicate).select(pl.len()).collect(engine=engine).item()
            == units.filter(predicate).height
        )
    assert p.bytes_read <= 6 * 16 * 1024


@engines
def test_a_filter_on_the_path_skips_files(cube, engine):
    lf = lazynwb.scan_nwb(cube, "/units")
    lf.select(pl.len()).collect()
    for predicate in (
        pl.col("_nwb_path") == str(cube[2]),
        pl.col("_nwb_path").str.ends_with("session_02.nwb"),
        (pl.col("location") == "CA1") & pl.col("_nwb_path").str.contains("session_02"),
    ):
        with lazynwb.profile() as p:
            frame = lf.filter(predicate).select("unit_id", "_nwb_path").collect(engine=engine)
        assert set(frame["_nwb_path"]) == {str(cube[2])}
        assert p.files_skipped == 5


@pytest.mark.integration
def test_a_streaming_head_stops_after_a_few_rows(tmp_path):
    """Polars requests two batches before it stops, so the first batches are small."""
    paths = [write_session(tmp_path / f"{k:02}.nwb", k, units=100) for k in range(30)]
    lf = lazynwb.scan_nwb(paths, "/units", infer_schema_length=1).select(
        "unit_id", "presence_ratio", "spike_times", "waveform_mean"
    )
    with lazynwb.profile() as unfiltered:
        lf.collect()
    for query in (
        lf,
        lf.filter(pl.col("presence_ratio") > 0.5),
        lf.filter(pl.col("spike_times").list.len() > 3),
    ):
        with lazynwb.profile() as p:
            frame = query.head(5).collect(engine="streaming")
        assert frame.height == 5
        assert p.bytes_read < unfiltered.bytes_read / 3


def test_large_columns_are_read_for_remaining_rows_only(cube):
    lf = lazynwb.scan_nwb(cube, "/units")
    lf.select("waveform_mean").head(1).collect()
    with lazynwb.profile() as unfiltered:
        lf.select("waveform_mean", "unit_id").collect()
    with lazynwb.profile() as p:
        frame = lf.filter(pl.col("unit_id") == "s3_20").select("waveform_mean", "unit_id").collect()
    assert frame.height == 1
    assert p.chunks_decoded <= 1
    assert p.bytes_read < unfiltered.bytes_read / 3


def test_a_predicate_is_evaluated_after_casts_and_after_missing_columns_are_filled(tmp_path):
    paths = [tmp_path / "a.nwb", tmp_path / "b.nwb"]
    for path, columns in zip(
        paths, ({"x": np.array([1, 2, 3])}, {"x": np.array([2.5]), "y": np.array([7])}), strict=True
    ):
        with h5py.File(path, "w") as file:
            table(file, "t", columns)
    lf = lazynwb.scan_nwb(paths, "t")
    for engine in ENGINES:
        assert lf.filter(pl.col("x") / 2 > 1.2).collect(engine=engine)["x"].to_list() == [3.0, 2.5]
        assert lf.filter(pl.col("y").is_null()).collect(engine=engine).height == 3
        assert lf.filter(pl.col("y").fill_null(9) == 9).collect(engine=engine).height == 3
