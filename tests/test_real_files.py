"""Every table of every real file below the folder that LAZYNWB_TEST_DATA names, against the oracle."""

import os
from pathlib import Path

import pytest
from checks import ENGINES, check_file

import lazynwb
import oracle

FOLDER = os.environ.get("LAZYNWB_TEST_DATA")
FILES = sorted(path for path in Path(FOLDER).rglob("*.nwb") if path.is_file()) if FOLDER else []

pytestmark = pytest.mark.skipif(not FILES, reason="LAZYNWB_TEST_DATA names no folder with NWB files")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_table_of(path, engine):
    check_file(path, engine)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_table_is_listed(path):
    """A table by its group, a series by its datasets; the metadata groups are not in the default listing."""
    listed = list(lazynwb.get_internal_paths(path))
    tables = [t for t in oracle.tables(path) if t not in {"/general", "/general/subject"}]
    assert [t for t in tables if not any(p == t or p.rpartition("/")[0] == t for p in listed)] == []


def test_all_files_at_once():
    """A hundred sources of every age in one scan: those without trials are skipped, and the rest are right."""
    having = [path for path in FILES if "/intervals/trials" in oracle.tables(path)]
    expected = sum(oracle.read_table(path, "/intervals/trials").rows for path in having)
    lf = lazynwb.scan_nwb(FILES, "/intervals/trials", ignore_errors=True).select("start_time", "stop_time", "_nwb_path")
    for engine in ENGINES:
        frame = lf.collect(engine=engine)
        assert frame.height == expected
        assert list(dict.fromkeys(frame["_nwb_path"])) == [
            str(path) for path in having if oracle.read_table(path, "/intervals/trials").rows
        ]


def test_sql_context_over_all_files():
    """No odd table keeps the others out."""
    context = lazynwb.get_sql_context(FILES)
    assert {"trials", "units", "session", "subject"} <= set(context.tables())
