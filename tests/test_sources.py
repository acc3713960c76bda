"""Kinds of sources, and missing tables."""

import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import write_session
from checks import ENGINES

engines = pytest.mark.parametrize("engine", ENGINES)


# --- sources ------------------------------------------------------------------------------------------


def heights(source, **options):
    return lazynwb.scan_nwb(source, "/units", **options).select(pl.len()).collect().item()


def test_one_path_in_every_form(cube):
    path = cube[0]
    for source in (path, str(path), [path], (str(path),), path.as_uri(), [path.as_uri()], iter([path])):
        assert heights(source) == 40


def test_many_paths_in_every_form(cube):
    assert heights(cube) == 240
    assert heights(tuple(map(str, cube))) == 240
    assert heights(path for path in cube) == 240
    assert heights({str(path): None for path in cube}.keys()) == 240
    assert heights(pl.Series([str(path) for path in cube])) == 240
    assert heights(np.array([str(path) for path in cube])) == 240
    assert heights([cube[0], str(cube[1]), cube[2].as_uri()]) == 120
    assert heights([cube[0], cube[0]]) == 80


def test_a_glob(cube):
    assert heights(str(cube[0].parent / "*.nwb")) == 240
    assert heights(str(cube[0].parent / "session_0[0-2].nwb")) == 120
    assert heights(cube[0].parent / "session_?4.nwb") == 40


def test_a_folder_is_searched_recursively_in_sorted_order(tmp_path):
    for name in ("b.nwb", "a/z.nwb", "a/b/c.nwb", "C.nwb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_session(tmp_path / name, 1, units=3)
    (tmp_path / "notes.txt").write_text("not an NWB file")
    (tmp_path / "a" / "data.csv").write_text("1,2")
    frame = lazynwb.read_nwb(tmp_path, "/units")
    assert frame.height == 12
    assert list(dict.fromkeys(frame["_nwb_path"])) == sorted(
        str(tmp_path / name) for name in ("b.nwb", "a/z.nwb", "a/b/c.nwb", "C.nwb")
    )
    assert lazynwb.read_nwb(str(tmp_path), "/units").height == 12


def test_a_universal_path(cube):
    upath = pytest.importorskip("upath")
    assert heights(upath.UPath(cube[0])) == 40
    assert heights([upath.UPath(path) for path in cube]) == 240
    assert heights(upath.UPath(cube[0].as_uri())) == 40


def test_paths_that_need_quoting(tmp_path):
    names = [
        "with space.nwb",
        "100%.nwb",
        "per%20cent.nwb",
        "hash#1.nwb",
        "ünï.nwb",
        "q?.nwb",
        "[1].nwb",
        "a'b\".nwb",
    ]
    paths = [write_session(tmp_path / name, k, units=2) for k, name in enumerate(names)]
    frame = lazynwb.read_nwb(paths, "/units")
    assert list(dict.fromkeys(frame["_nwb_path"])) == [str(path) for path in paths]
    assert lazynwb.read_nwb([path.as_uri() for path in paths], "/units")["unit_id"].equals(frame["unit_id"])
    assert [heights(str(path)) for path in paths] == [2] * len(paths)


def test_relative_paths_become_absolute(cube, monkeypatch):
    monkeypatch.chdir(cube[0].parent)
    frame = lazynwb.read_nwb(cube[0].name, "/units")
    assert frame["_nwb_path"].unique().to_list() == [str(cube[0])]
    lf = lazynwb.scan_nwb(["session_00.nwb", "./session_01.nwb"], "/units")
    monkeypatch.chdir("/")
    assert lf.collect().height == 80


def test_home_is_expanded(cube, monkeypatch):
    monkeypatch.setenv("HOME", str(cube[0].parent))
    monkeypatch.setenv("USERPROFILE", str(cube[0].parent))
    assert heights("~/session_00.nwb") == 40


def test_a_named_file_may_have_any_suffix(cube, tmp_path):
    for name in ("session.h5", "session", "session.NWB"):
        (tmp_path / name).write_bytes(cube[0].read_bytes())
        assert heights(tmp_path / name) == 40


@pytest.mark.parametrize("source", ["gone.nwb", "*.nwb", "no_folder/", "file:///no/such/file.nwb"])
def test_a_missing_source(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        lazynwb.scan_nwb(source, "/units").collect()
    assert isinstance(caught.value, lazynwb.SourceNotFoundError)
    assert source.removeprefix("file://").rstrip("/") in str(caught.value)


def test_a_missing_file_among_others(cube, tmp_path, caplog):
    gone = tmp_path / "gone.nwb"
    with pytest.raises(FileNotFoundError, match="gone"):
        lazynwb.scan_nwb([*cube, gone], "/units").collect()
    assert lazynwb.scan_nwb([*cube, gone], "/units", ignore_errors=True).collect().height == 240
    assert "gone.nwb" in caplog.text


def test_no_source_at_all(tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)):
        lazynwb.scan_nwb([], "/units").collect()
    with pytest.raises(FileNotFoundError):
        lazynwb.scan_nwb(tmp_path, "/units").collect()


@pytest.mark.parametrize("source", [5, None, [None], b"bytes"])
def test_invalid_sources(source):
    with pytest.raises((TypeError, ValueError, FileNotFoundError)):
        lazynwb.scan_nwb(source, "/units").collect()


# --- missing tables -----------------------------------------------------------------------------------


def test_a_table_in_no_file_is_an_error(cube):
    with pytest.raises(KeyError) as caught:
        lazynwb.scan_nwb(cube, "/intervals/trails").collect()
    assert isinstance(caught.value, lazynwb.TableNotFoundError)
    assert "/intervals/trails" in str(caught.value)
    assert "intervals/trials" in str(caught.value)
    assert "units" in str(caught.value)


def test_a_table_that_some_files_lack_is_reported_once(cube, caplog):
    frame = lazynwb.scan_nwb(cube, "/intervals/performance").collect()
    assert frame.height == 30
    warnings = [
        r.getMessage() for r in caplog.records if r.name.startswith("lazynwb") and r.levelname == "WARNING"
    ]
    assert len(warnings) == 1
    assert "performance" in warnings[0]
    assert "session_03.nwb" in warnings[0]
    assert "1" in warnings[0]


@pytest.mark.integration
def test_the_warning_about_many_files_names_a_few(tmp_path, caplog):
    paths = [write_session(tmp_path / f"{k:02}.nwb", k, units=1, performance=k == 0) for k in range(30)]
    assert lazynwb.scan_nwb(paths, "/intervals/performance").collect().height == 6
    warnings = [
        r.getMessage() for r in caplog.records if r.name.startswith("lazynwb") and r.levelname == "WARNING"
    ]
    assert len(warnings) == 1
    assert "29" in warnings[0]
    assert len(warnings[0]) < 2000


def test_raise_on_missing(cube):
    with pytest.raises(lazynwb.TableNotFoundError, match="session_03"):
        lazynwb.scan_nwb(cube, "/intervals/performance", raise_on_missing=True).collect()
    assert lazynwb.scan_nwb(cube, "/units", raise_on_missing=True).collect().height == 240
