"""Remote files equal local files: every kind of column, table and filter."""

import os
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import builders
import checks
import lazynwb
from lazynwb.errors import LazyNWBError
from lazynwb.formats.libhdf5 import block_stream
from range_server import RangeServer, refuse
from readers import hdf5_tables as oracle

FOLDER = os.environ.get("LAZYNWB_TEST_DATA")
REAL = sorted(path for path in Path(FOLDER).rglob("*.nwb") if path.is_file()) if FOLDER else []
CASES = sorted({**builders.CASES, **builders.PYNWB_CASES})


@pytest.fixture(scope="module")
def server():
    with RangeServer("/") as running:
        yield running


def both(path, server, read):
    """Return the results of `read` for a file and its URL: a frame without paths, or the text of an error."""
    outcomes = []
    for source in (str(path), server.url_of(str(path).lstrip("/"))):
        try:
            outcome = read(source)
        except LazyNWBError as error:
            outcome = type(error), str(error).replace(source, "FILE")
        else:
            if isinstance(outcome, pl.DataFrame):
                assert outcome.is_empty() or set(outcome["_nwb_path"]) == {source}
                outcome = outcome.drop("_nwb_path")
        outcomes.append(outcome)
    return outcomes


def assert_same(path, server, read):
    local, remote = both(path, server, read)
    if isinstance(local, pl.DataFrame) and isinstance(remote, pl.DataFrame):
        assert_frame_equal(remote, local)
    else:
        assert remote == local
    return local


def readable(source, table):
    """The table without unsupported columns."""
    frame = lazynwb.scan_nwb(source, table)
    known = [name for name, dtype in frame.collect_schema().items() if dtype != pl.Null]
    return frame.select(*known)


def distinct(path, tables):
    """One table of each schema: hundreds of series of one file are alike. All with `--slow`."""
    if checks.THOROUGH:
        return tables
    alike = {}
    for table in tables:
        try:
            schema = str(lazynwb.get_table_schema(path, table))
        except LazyNWBError as error:
            schema = str(error)
        alike.setdefault(schema, []).append(table)
    return [same[0] for same in alike.values()]


def check(path, server):
    tables = distinct(path, oracle.tables(path))
    assert_same(path, server, lambda source: dict(lazynwb.get_internal_paths(source, parents=True)))
    for table in tables:
        whole = assert_same(path, server, lambda source, t=table: lazynwb.scan_nwb(source, t).collect())
        if not isinstance(whole, pl.DataFrame):
            assert_same(path, server, lambda source, t=table: readable(source, t).collect())
        assert_same(
            path,
            server,
            lambda source, t=table: (
                readable(source, t).filter(pl.col("_table_index") % 3 == 1).head(4).collect()
            ),
        )


@pytest.mark.long
@pytest.mark.parametrize("name", checks.sample(CASES, 2))
@pytest.mark.sample(2)
def test_every_kind_of_file_equals_the_local_one(name, built, server):
    check(built(name), server)


@pytest.mark.parametrize("name", ["references", "many_columns", "chunk_indices", "raggedness", "layouts"])
@pytest.mark.sample(2)
def test_older_versions_of_libhdf5_wait_for_missing_bytes(name, built, server, monkeypatch):
    """These versions cannot fail and repeat a read: see `_MAY_FAIL`."""
    told = []
    monkeypatch.setattr(block_stream, "MAY_FAIL", False)
    monkeypatch.setattr(block_stream, "MissingBytesError", lambda why: told.append(why) or OSError(why))
    check(built(name), server)
    assert not told


def test_a_timeout_with_older_versions_of_libhdf5_is_an_error(built, monkeypatch):
    monkeypatch.setattr(block_stream, "MAY_FAIL", False)
    lazynwb.config.max_retries = 0
    path = built("many_columns")
    with RangeServer(path.parent) as server:
        url = server.url_of(path.name)
        server.faults.append(lambda _: refuse(403) if server.count > 2 else None)
        with pytest.raises(LazyNWBError, match=r"many_columns.*403"):
            lazynwb.get_internal_paths(url)


@pytest.mark.long
@pytest.mark.skipif(not REAL, reason="set LAZYNWB_TEST_DATA to a folder of NWB files")
@pytest.mark.parametrize("path", checks.sample(REAL, 3), ids=lambda path: str(path.relative_to(FOLDER)))
@pytest.mark.sample(2)
def test_every_real_file_equals_the_local_one(path, server):
    """Every third file; all of them with `--slow`."""
    check(path, server)
