"""Differences on Windows, simulated: no positioned reads, drive letters, open files, long paths, names."""

from __future__ import annotations

import json
import ntpath
import os
from types import SimpleNamespace

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import builders
import lazynwb
from checks import run_child
from lazynwb.storage import resolve
from lazynwb.storage.source import is_url

WITHOUT_PREAD = """
import json, os, sys
for name in ("pread", "preadv"):
    if hasattr(os, name):
        delattr(os, name)
from concurrent.futures import ThreadPoolExecutor
import polars as pl
import lazynwb
lazynwb.config.disable_progress = True
paths = sys.argv[1:]
units = lazynwb.scan_nwb(paths, "units")
queries = [
    units.select(pl.col("spike_times").list.sum()),
    units.filter(pl.col("presence_ratio") > 0.5).select("unit_id", "waveform_mean"),
    lazynwb.scan_nwb(paths, "trials"),
]
with ThreadPoolExecutor(6) as pool:  # the position in a file is shared
    found = list(pool.map(lambda query: query.collect(), queries * 4))
assert all(found[n].equals(found[n + 3]) for n in range(9))
print(json.dumps([repr(frame.hash_rows(1).sum()) for frame in found[:3]]))
"""


def test_files_are_read_without_positioned_reads(cube):
    units = lazynwb.scan_nwb(cube, "units")
    queries = [
        units.select(pl.col("spike_times").list.sum()),
        units.filter(pl.col("presence_ratio") > 0.5).select("unit_id", "waveform_mean"),
        lazynwb.scan_nwb(cube, "trials"),
    ]
    expected = [repr(query.collect().hash_rows(1).sum()) for query in queries]
    assert json.loads(run_child(WITHOUT_PREAD, *cube)) == expected


@pytest.mark.parametrize("path", [r"C:\data\a.nwb", "C:/data/a.nwb", "c:a.nwb", r"\\server\share\a.nwb"])
def test_a_drive_letter_is_not_a_url_scheme(path):
    assert not is_url(path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("file:///C:/data/a%20b.nwb", r"C:\data\a b.nwb"),
        ("file://localhost/C:/data/a.nwb", r"C:\data\a.nwb"),
        ("file://server/share/a.nwb", r"\\server\share\a.nwb"),
        (r"C:\data\..\a.nwb", r"C:\a.nwb"),
        ("C:/data/a.nwb", r"C:\data\a.nwb"),
    ],
)
def test_urls_of_files_are_paths_with_drives(monkeypatch, given, expected):
    monkeypatch.setattr(resolve, "os", SimpleNamespace(name="nt", path=ntpath))
    assert resolve.local_path(given) == expected


def refuse(name, other=None, **_):
    raise PermissionError(13, "used by another process", str(name), None, other and str(other))


def test_a_cache_entry_that_another_process_has_open_does_not_fail_queries(cube, monkeypatch, caplog):
    expected = lazynwb.read_nwb(cube, "trials")
    lazynwb.clear_cache()
    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(os, "unlink", refuse)
    for _ in range(2):
        assert_frame_equal(lazynwb.read_nwb(cube, "trials"), expected)
    said = [record for record in caplog.records if "cache cannot be written" in record.message]
    assert len(said) == 1
    lazynwb.clear_cache()
    assert_frame_equal(lazynwb.read_nwb(cube, "trials"), expected)


def test_an_index_with_open_files_remains_unchanged(cube, tmp_path, monkeypatch):
    lazynwb.build_index(cube[:2], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(lazynwb.LazyNWBError, match="cannot be written"):
            lazynwb.update_index(tmp_path, cube[2:])
    expected = lazynwb.read_nwb(cube[:2], "trials")
    assert_frame_equal(lazynwb.read_nwb(None, "trials", index=tmp_path), expected)


def test_an_output_that_is_open_in_another_process_is_an_error(cube, tmp_path, monkeypatch):
    lazynwb.convert_nwb_tables(cube[:1], tmp_path, tables=["trials"])
    output = tmp_path / "trials.parquet"
    before, replace = output.read_bytes(), os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda a, b: refuse(a, b) if str(b) == str(output) else replace(a, b))
        with pytest.raises(PermissionError, match=r"trials\.parquet"):
            lazynwb.convert_nwb_tables(cube[:2], tmp_path, tables=["trials"])
    assert output.read_bytes() == before
    lazynwb.convert_nwb_tables(cube[:2], tmp_path, tables=["trials"])
    assert pl.read_parquet(output).height == lazynwb.read_nwb(cube[:2], "trials").height


def test_file_suffixes_are_case_insensitive(tmp_path):
    builders.write_session(tmp_path / "A.NWB", 0, units=3)
    assert lazynwb.read_nwb(tmp_path, "units").height == 3


def test_long_paths_are_read_and_cache_paths_stay_short(tmp_path, cache_dir):
    folder = tmp_path.joinpath(*["a folder with a long name"] * 12)
    folder.mkdir(parents=True)
    path = builders.write_session(folder / "a.nwb", 0, units=3)
    os.utime(path, (1e9, 1e9))
    assert len(str(path)) > 260
    assert lazynwb.read_nwb(path, "units").height == 3
    entries = [str(file.relative_to(cache_dir)) for file in cache_dir.rglob("*")]
    assert all(len(entry) < 100 for entry in entries)
