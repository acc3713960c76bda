"""Requests and bytes of queries on remote files: the budgets of docs/remote.md."""

import os
import subprocess
import sys
from collections import Counter

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import lazynwb
from layouts import write_layouts
from lazynwb.demo import write_cube
from lazynwb.formats.libhdf5 import block_stream
from lazynwb.lookup import catalog_cache
from lazynwb.storage import remote_state
from lazynwb.storage.remote_file import RemoteFile
from range_server import RangeServer

SESSIONS = 4
GOOD = (
    pl.col("location").str.starts_with("CA1"),
    pl.col("activity_drift") <= 0.02,
    pl.col("amplitude_cutoff") <= 0.1,
    pl.col("presence_ratio") >= 0.99,
)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    return write_cube(tmp_path_factory.mktemp("cube"), SESSIONS, 300)


@pytest.fixture
def server(sessions):
    with RangeServer(sessions[0].parent, latency=0.002) as running:
        yield running


@pytest.fixture
def urls(sessions, server):
    return [server.url_of(path.name) for path in sessions]


def performance(sources):
    return lazynwb.scan_nwb(sources, "/intervals/performance").collect()


def trials(sources):
    return lazynwb.scan_nwb(sources, "/intervals/trials").collect()


def good_spikes(sources):
    units = lazynwb.scan_nwb(sources, "/units", infer_schema_length=1)
    return units.filter(*GOOD).select("unit_id", "spike_times").collect()


# A twentieth of the budget for twenty sessions: requests and bytes per file.
BUDGETS = [(performance, 10, 500_000), (good_spikes, 12, 800_000), (trials, 8, 500_000)]


@pytest.mark.parametrize(("query", "requests", "size"), BUDGETS)
@pytest.mark.sample(3)
def test_a_cold_query_stays_within_its_budget(query, requests, size, urls, server):
    with lazynwb.profile() as cold:
        query(urls)
    spikes = query is good_spikes
    # Chunks of spike times come on top: how many and how large, and how far apart, is their writer's choice.
    if not block_stream.MAY_FAIL:  # an older libhdf5 asks for one part after the other
        requests, size = 2 * requests, 2 * size
    assert server.count == cold.requests <= requests * SESSIONS + spikes * cold.chunks_decoded
    assert server.bytes == cold.bytes_read <= size * SESSIONS + spikes * cold.bytes_used
    assert cold.files_parsed == SESSIONS
    assert not any(seen.method == "HEAD" for seen in server.log)


@pytest.mark.parametrize(("query", "most"), [(performance, 1), (good_spikes, 4), (trials, 2)])
def test_structure_needs_one_round_trip_per_pointer(query, most, urls, monkeypatch):
    """In addition to the first bytes, which are read with the identity of the file."""
    rounds = Counter()
    fetch = RemoteFile.fetch_blocks

    def counted(file, ranges, **options):
        rounds[file.name] += 1
        fetch(file, ranges, **options)

    monkeypatch.setattr(RemoteFile, "fetch_blocks", counted)
    query(urls)
    assert rounds.keys() == set(urls)
    assert max(rounds.values()) <= most, rounds


@pytest.mark.parametrize(("query", "requests", "size"), BUDGETS)
def test_a_repeated_query_only_requests_identities_and_large_data(query, requests, size, urls, server):
    first = query(urls)
    lazynwb.config.recheck_seconds = 0
    catalog_cache.clear_memory()
    server.reset()
    with lazynwb.profile() as warm:
        assert_frame_equal(query(urls), first)
    assert warm.files_parsed == 0
    if query is good_spikes:
        assert server.count <= 3 * SESSIONS + 1
    else:
        # Once for the schema and once for the query, a byte each.
        assert {seen.range for seen in server.log} == {(0, 1)}
        assert server.count <= 2 * SESSIONS


@pytest.mark.parametrize("query", [performance, good_spikes, trials])
def test_the_column_store_costs_no_request(query, urls, server):
    counts = []
    for limit in (0, 2 << 30):
        lazynwb.config.column_cache_bytes = limit
        for _ in range(3):
            catalog_cache.clear_memory()
            remote_state.forget()
            server.reset()
            query(urls)
            counts.append((server.count, server.bytes))
        lazynwb.clear_cache()
    _, without, _, cold, *warm = counts
    assert cold == counts[0]
    assert all(requests <= without[0] and size <= without[1] for requests, size in warm)


def test_a_second_process_reads_from_the_cache(urls, server, cache_dir):
    script = f"""if True:
        import lazynwb
        with lazynwb.profile() as p:
            lazynwb.scan_nwb({urls}, "/intervals/trials").collect()
        print(p.requests, p.bytes_read, p.files_parsed)"""
    environment = {**os.environ, "LAZYNWB_CACHE_DIR": str(cache_dir)}
    command = [sys.executable, "-c", script]
    outputs = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
        for _ in range(2)
    ]
    assert outputs[0].stdout.split()[2] == str(SESSIONS)
    assert outputs[1].stdout.split() == [str(SESSIONS), str(SESSIONS), "0"]


def test_trusted_identities_need_no_requests(urls, server):
    trials(urls)
    server.reset()
    trials(urls)
    assert server.count == 0


def test_a_condition_on_the_path_skips_other_files(urls, server):
    lf = lazynwb.scan_nwb(urls, "/units", infer_schema_length=1, schema={"unit_id": pl.String})
    lf.filter(pl.col("_nwb_path") == urls[2]).collect()
    assert {seen.path for seen in server.log} == {urls[2].rpartition("/")[2]}


def test_a_count_reads_no_column(urls, server):
    lf = lazynwb.scan_nwb(urls, "/units")
    server.reset()
    assert lf.select(pl.len()).collect().item() == SESSIONS * 300
    assert server.count == 0


@pytest.mark.parametrize("layout", ["as written", "at the end", "scattered", "paged"])
@pytest.mark.sample(2)
def test_layouts(layout, sessions, tmp_path):
    """The position of the structure in a file changes no values, and the number of requests is bounded."""
    path = write_layouts(sessions[0], tmp_path)[layout]
    with RangeServer(tmp_path) as server:
        for query, most in ((performance, 8), (good_spikes, 20), (trials, 14)):
            lazynwb.clear_cache()
            server.reset()
            remote = query([server.url_of(path.name)]).drop("_nwb_path", strict=False)
            assert_frame_equal(remote, query([path]).drop("_nwb_path", strict=False))
            assert server.count <= most


def test_data_for_other_libraries_is_fetched_in_one_round(tmp_path):
    """Chunks with a filter that only libhdf5 decodes do not take one request each."""
    import h5py
    import numpy as np

    from builders import Column, table

    path = tmp_path / "lzf.nwb"
    values = np.random.default_rng(0).integers(0, 99, (20_000, 20))
    with h5py.File(path, "w") as file:
        table(file, "units", {"x": Column(values, {"chunks": (500, 20), "compression": "lzf"})})
    with RangeServer(tmp_path) as server:
        lf = lazynwb.scan_nwb(server.url_of("lzf.nwb"), "/units")
        server.reset()
        assert (lf.select("x").collect()["x"].to_numpy() == values).all()
        assert server.count <= 6


def test_a_member_of_a_large_group_is_found_without_reading_all_its_links(tmp_path):
    import h5py
    import numpy as np

    from builders import table

    path = tmp_path / "large.nwb"
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("acquisition")
        for k in range(1500):
            group[f"{k:04d}"] = h5py.SoftLink("/a path that makes the group larger" * 30)
        table(file, "acquisition/0999 table", {"x": np.arange(9)})
    size = path.stat().st_size
    with RangeServer(tmp_path) as server:
        found = lazynwb.scan_nwb(server.url_of("large.nwb"), "/acquisition/0999 table").collect()
        assert found["x"].to_list() == list(range(9))
        assert server.bytes < size // 2


def test_a_small_file_is_fetched_in_two_requests(tmp_path):
    import h5py
    import numpy as np

    from builders import GZIP, Column, table

    path = tmp_path / "small.nwb"
    values = np.arange(30.0)
    with h5py.File(path, "w") as file:
        table(file, "units", {f"c{k}": Column(values + k, GZIP) for k in range(40)})
    assert 64 * 1024 < path.stat().st_size < 256 * 1024
    with RangeServer(tmp_path) as server:
        found = lazynwb.read_nwb(server.url_of("small.nwb"), "/units")
        assert found["c39"].to_list() == (values + 39).tolist()
        assert server.count == 2
        assert server.bytes == path.stat().st_size


def test_a_heap_collection_is_read_in_one_request(tmp_path):
    """Its size is not known before: the minimum is 4 KiB, and long text needs more."""
    import h5py
    import numpy as np

    from builders import table

    texts = ["x" * 6000, "y" * 9000]
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "units", {"text": ["", ""]})
        for row, text in enumerate(texts):
            file[f"other {row}"] = np.zeros(1 << 20, "u1")
            file["units/text"][row] = text
    with RangeServer(tmp_path) as server:
        lf = lazynwb.scan_nwb(server.url_of("a.nwb"), "/units").select("text")
        lf.collect_schema()
        server.reset()
        assert lf.collect()["text"].to_list() == texts
        assert server.count == 2


def test_ends_of_rows_are_fetched_while_chunks_of_elements_are_looked_up(tmp_path, monkeypatch):
    import h5py
    import numpy as np

    from builders import GZIP, Ragged, table

    counts = np.random.default_rng(0).integers(0, 40, 3000)
    rows = [[float(row)] * count for row, count in enumerate(counts)]
    chunked = {**GZIP, "chunks": (500,), "maxshape": (None,)}
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "units", {"x": Ragged(rows, options=chunked, index_options=GZIP)})
        elements, ends = file["units/x"][:], file["units/x_index"][:]
        file["units/x"].resize((0,))
        file["units/x_index"][:] = 0
    with h5py.File(tmp_path / "a.nwb", "r+") as file:
        # The nodes of the chunk index, and the ends, whose chunk is larger now, are far from the headers.
        file["other"] = np.zeros(1 << 20, "u1")
        file["units/x"].resize((len(elements),))
        file["units/x"][:] = elements
        file["units/x_index"][:] = ends
        file.flush()
        chunk = file["units/x_index"].id.get_chunk_info(0)
    place = (chunk.byte_offset, chunk.byte_offset + chunk.size)
    assert place[0] > 1 << 20
    fetched = []
    fetch = RemoteFile.fetch_blocks

    def noted(file, ranges, *, data=(), **options):
        fetched.append(set(data))
        fetch(file, ranges, data=data, **options)

    monkeypatch.setattr(RemoteFile, "fetch_blocks", noted)
    with RangeServer(tmp_path) as server:
        lf = lazynwb.scan_nwb(server.url_of("a.nwb"), "/units").select("x")
        lf.collect_schema()
        fetched.clear()
        assert lf.slice(100, 2).collect()["x"].to_list() == rows[100:102]
        assert fetched[0] == {place}
        assert sum(seen.range[0] <= place[0] < seen.range[1] for seen in server.log) == 1
