"""Every table of every real file in the folder LAZYNWB_TEST_DATA, compared with the oracle."""

import os
from pathlib import Path

import polars as pl
import pytest

import checks
import lazynwb
from checks import ENGINES, check_file, sample
from readers import hdf5_tables as oracle

FOLDER = os.environ.get("LAZYNWB_TEST_DATA")
METADATA = {"/general", "/general/subject"}  # not in the default listing
FILES = sorted(path for path in Path(FOLDER).rglob("*.nwb") if path.is_file()) if FOLDER else []

pytestmark = pytest.mark.skipif(not FILES, reason="set LAZYNWB_TEST_DATA to a folder of NWB files")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
@pytest.mark.sample(5)
def test_all_tables_equal_the_oracle(path):
    """With either engine for every other file, or with both: `test_a_scan_of_all_files` runs both."""
    for engine in ENGINES if checks.THOROUGH else ENGINES[FILES.index(path) % len(ENGINES) :][:1]:
        check_file(path, engine)


@pytest.mark.parametrize("path", sample(FILES, 4), ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_table_is_listed(path):
    """A table by its group, a series by its datasets (if it has any)."""
    listed = list(lazynwb.get_internal_paths(path))
    tables = [t for t in oracle.tables(path) if t not in METADATA and oracle.read_table(path, t).rows]
    assert [t for t in tables if not any(p == t or p.rpartition("/")[0] == t for p in listed)] == []


@pytest.mark.long
def test_a_scan_of_all_files():
    """Files of all NWB versions in one scan: those without trials are skipped, the others are correct."""
    having = [path for path in FILES if "/intervals/trials" in oracle.tables(path)]
    expected = sum(oracle.read_table(path, "/intervals/trials").rows for path in having)
    with pytest.raises(
        lazynwb.SchemaError, match="auto_train_stage_overridden"
    ):  # Boolean here and Float64 there
        lazynwb.read_nwb(FILES, "/intervals/trials")
    assert lazynwb.scan_nwb(FILES, "/intervals/trials").select("start_time").collect().height == expected
    lf = lazynwb.scan_nwb(
        FILES, "/intervals/trials", schema={"start_time": pl.Float64, "stop_time": pl.Float64}
    )
    for engine in ENGINES:
        frame = lf.collect(engine=engine)
        assert frame.height == expected
        assert list(dict.fromkeys(frame["_nwb_path"])) == [
            str(path) for path in having if oracle.read_table(path, "/intervals/trials").rows
        ]


def test_sql_context_over_all_files():
    """Unusual tables do not affect others. (The columns of their `trials` have no common types.)"""
    context = lazynwb.get_sql_context(FILES)
    assert {"units", "electrodes", "session", "subject"} <= set(context.tables())
    assert context.execute("SELECT * FROM session", eager=True).height == sum(
        "/general" in oracle.tables(p) for p in FILES
    )
