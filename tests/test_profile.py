"""Counters of queries, and those of files that cannot be read."""

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import table
from lazynwb.profile import Counts, Profile, QueryCounts


@pytest.fixture
def paths(tmp_path):
    made = []
    for number in range(6):
        path = tmp_path / f"{number}.nwb"
        with h5py.File(path, "w") as file:
            group = table(file, "units", {"x": np.arange(100.0)})
            group.attrs["colnames"] = ["x", "wide"]
            group.create_dataset(
                "wide", data=np.random.default_rng(0).random((100, 500)), chunks=(50, 500), compression="gzip"
            )
            second = group["wide"].id.get_chunk_info(1).byte_offset
        made.append(path)
        if number == 3:
            with path.open("r+b") as stream:
                stream.seek(second + 500)
                stream.write(bytes(64))
    return made


def test_profiles_only_count_their_own_queries(paths):
    lf = lazynwb.scan_nwb(paths[0], "/units")
    with lazynwb.profile() as outer:
        lf.select("x").collect()
        with lazynwb.profile() as inner:
            lf.select("wide").collect()
        lf.select(pl.len()).collect()
    lf.select("wide").collect()
    assert inner.bytes_decoded == 100 * 500 * 8
    assert inner.chunks_decoded == outer.chunks_decoded == 2
    assert outer.bytes_read == inner.bytes_read + 800
    assert "bytes_decoded 400,000" in repr(inner)
    assert "retries" not in repr(inner)


def test_the_representation_wraps_between_counts():
    counts = {name: 10**12 + i for i, name in enumerate(Counts().amounts())}
    profile = Profile(**counts, queries=[QueryCounts(**counts, label="/units of 10 files")])
    shown = repr(profile)
    assert max(map(len, shown.splitlines())) <= 96
    for name, amount in counts.items():
        assert shown.count(f"{name} {amount:,}") == 2


def test_the_representation_omits_zeros():
    with lazynwb.profile() as profile:
        pass
    assert repr(profile) == "<Profile: nothing was read>"


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_an_error_names_the_one_file_of_many(paths, engine):
    with pytest.raises(lazynwb.CorruptDataError, match=r"3\.nwb: /units/wide: "):
        lazynwb.scan_nwb(paths, "/units").collect(engine=engine)
