"""The catalog cache on disk: correct after changes of files, and harmless if it is damaged."""

import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import GZIP, Column, Ragged, table
from checks import assert_frames, count, run_child
from lazynwb.catalog import disk_cache
from lazynwb.lookup import catalog_cache


def cached_files(folder):
    return [path for path in folder.rglob("*") if path.is_file() and "columns" not in path.parts]


def read_in_child(path, cache_dir):
    """The values of column `a` and the costs of reading them, in a separate process."""
    code = """
import sys, lazynwb
with lazynwb.profile() as p:
    frame = lazynwb.read_nwb(sys.argv[1], "/t")
print(frame["a"].to_list(), p.files_parsed)
"""
    values, _, parsed = run_child(code, path, LAZYNWB_CACHE_DIR=str(cache_dir)).rpartition(" ")
    return eval(values), int(parsed)  # noqa: S307 - printed by the line above


def settle():
    """Wait for a tick of the file system's clock: younger files are not cached."""
    time.sleep(0.1)


def forget():
    """Clear the caches in memory, as in a new process."""
    catalog_cache.clear_memory()


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "t", {"a": np.arange(5)})
    settle()
    return tmp_path / "a.nwb"


def test_a_second_process_parses_no_file(path, cache_dir):
    assert read_in_child(path, cache_dir) == ([0, 1, 2, 3, 4], 1)
    assert read_in_child(path, cache_dir) == ([0, 1, 2, 3, 4], 0)


def test_a_second_scan_opens_no_file_for_its_structure(cube):
    lazynwb.read_nwb(cube, "/units")
    with lazynwb.profile() as p:
        lazynwb.scan_nwb(cube, "/units").select("unit_id", "spike_times").collect()
    assert p.files_parsed == 0
    assert p.cache_hits >= len(cube)


def rewritten(path, values, how):
    """Replace a file by another one of the same size and modification time."""
    before = path.stat()
    other = path.with_name("other.nwb")
    with h5py.File(other, "w") as file:
        table(file, "t", {"a": np.array(values)})
    assert other.stat().st_size == before.st_size
    time.sleep(0.02)
    if how == "replaced":
        other.replace(path)
    else:
        with path.open("r+b") as file:
            file.write(other.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.long
@pytest.mark.parametrize("how", ["replaced", "overwritten"])
def test_a_file_of_the_same_size_and_time_is_another_file(path, how, cache_dir):
    assert lazynwb.read_nwb(path, "/t")["a"].to_list() == [0, 1, 2, 3, 4]
    rewritten(path, [5, 6, 7, 8, 9], how)
    assert lazynwb.read_nwb(path, "/t")["a"].to_list() == [5, 6, 7, 8, 9]
    assert read_in_child(path, cache_dir)[0] == [5, 6, 7, 8, 9]


def test_another_structure_of_the_same_size(tmp_path, cache_dir):
    """The chunks have other addresses; cached addresses would return wrong values."""
    path, other = tmp_path / "a.nwb", tmp_path / "b.nwb"
    for target, order in ((path, "abcd"), (other, "dcba")):
        with h5py.File(target, "w") as file:
            table(file, "t", {name: np.full(100, ord(name)) for name in order})
    assert path.stat().st_size == other.stat().st_size
    settle()
    assert lazynwb.read_nwb(path, "/t")["a"].unique().to_list() == [97]
    other.replace(path)
    assert lazynwb.read_nwb(path, "/t")["a"].unique().to_list() == [97]


def test_a_deleted_file_is_an_error_despite_the_cache(path):
    lf = lazynwb.scan_nwb(path, "/t")
    lf.collect()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.nwb"):
        lazynwb.read_nwb(path, "/t")
    with pytest.raises(FileNotFoundError, match=r"a\.nwb"):
        lf.collect()
    with pytest.raises(FileNotFoundError):
        lazynwb.get_internal_paths(path)


def test_an_appended_column_and_appended_rows(tmp_path, cache_dir):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        growing = {"chunks": (4,), "maxshape": (None,), **GZIP}
        table(file, "t", {"a": Column(np.arange(5), growing)}, rows=-1)
        file["t"].create_dataset("id", data=np.arange(5), **growing)
    settle()
    assert lazynwb.read_nwb(path, "/t")["a"].to_list() == [0, 1, 2, 3, 4]
    with h5py.File(path, "a") as file:
        file["t/b"] = np.arange(5) * 2
    settle()
    assert lazynwb.read_nwb(path, "/t")["b"].to_list() == [0, 2, 4, 6, 8]
    with h5py.File(path, "a") as file:
        for name in ("a", "id"):
            file[f"t/{name}"].resize((7,))
        file["t/a"][5:] = [50, 60]
    assert lazynwb.read_nwb(path, "/t")["a"].to_list() == [0, 1, 2, 3, 4, 50, 60]
    assert read_in_child(path, cache_dir)[0] == [0, 1, 2, 3, 4, 50, 60]


def test_a_new_table_in_a_known_file(path):
    with pytest.raises(lazynwb.TableNotFoundError):
        lazynwb.read_nwb(path, "new")
    with h5py.File(path, "a") as file:
        table(file, "new", {"z": [1]})
    assert lazynwb.read_nwb(path, "new")["z"].to_list() == [1]
    assert "/new" in lazynwb.get_internal_paths(path)


@pytest.mark.parametrize("how", ["replaced", "overwritten"])
def test_a_file_that_changes_after_the_scan_was_created_is_never_mixed(path, how):
    """A frame that was created before the change returns the new values or raises an error."""
    lf = lazynwb.scan_nwb(path, "/t")
    lf.collect()
    rewritten(path, [5, 6, 7, 8, 9], how)
    try:
        values = lf.collect()["a"].to_list()
    except lazynwb.LazyNWBError as error:
        assert "a.nwb" in str(error)  # noqa: PT017
    else:
        assert values == [5, 6, 7, 8, 9]


def test_a_touched_file_returns_equal_results(path):
    expected = lazynwb.read_nwb(path, "/t")
    os.utime(path)
    assert_frames(lazynwb.read_nwb(path, "/t"), expected)


def test_two_names_of_one_file(path, tmp_path):
    (tmp_path / "link.nwb").symlink_to(path)
    frame = lazynwb.read_nwb([path, tmp_path / "link.nwb"], "t")
    assert frame["a"].to_list() == [0, 1, 2, 3, 4] * 2


def test_a_symbolic_link_with_a_new_target(path, tmp_path):
    other, link = tmp_path / "b.nwb", tmp_path / "link.nwb"
    with h5py.File(other, "w") as file:
        table(file, "t", {"a": [9]})
    link.symlink_to(path)
    assert lazynwb.read_nwb(link, "t").height == 5
    link.unlink()
    link.symlink_to(other)
    assert lazynwb.read_nwb(link, "t")["a"].to_list() == [9]


def test_a_copy_in_another_folder(path, tmp_path):
    lazynwb.read_nwb(path, "/t")
    (tmp_path / "sub").mkdir()
    shutil.copy2(path, tmp_path / "sub" / "a.nwb")
    frame = lazynwb.read_nwb(tmp_path / "sub" / "a.nwb", "t")
    assert frame["_nwb_path"].unique().to_list() == [str(tmp_path / "sub" / "a.nwb")]


def test_concurrent_processes_share_the_cache(cube, cache_dir):
    code = """
import sys, lazynwb, polars as pl
for _ in range(2):
    assert lazynwb.scan_nwb(sys.argv[1:], "/units").select("spike_times").collect().height == 240
    assert lazynwb.scan_nwb(sys.argv[1:], "/intervals/trials").collect().height == 180
    if len(sys.argv) % 2: lazynwb.clear_cache()
print("ok")
"""
    source = str(Path(lazynwb.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    children = [
        subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, "-c", code, *map(str, cube)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(count(3, 6))
    ]
    for child in children:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err.decode()
        assert out.strip() == b"ok"
    assert not [p for p in cached_files(cache_dir) if "tmp" in p.suffix]


def test_a_cache_folder_that_cannot_be_created(path, tmp_path, caplog):
    (tmp_path / "a file").write_text("")
    lazynwb.config.cache_dir = tmp_path / "a file" / "cache"
    assert lazynwb.read_nwb(path, "/t").height == 5
    assert "cache" in caplog.text


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="run as another user than root")
def test_a_cache_folder_that_cannot_be_written(path, cache_dir, caplog):
    cache_dir.chmod(0o500)
    try:
        assert lazynwb.read_nwb(path, "/t").height == 5
    finally:
        cache_dir.chmod(0o700)
    assert "cache" in caplog.text


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "executed")


@pytest.mark.parametrize("damage", ["garbage", "empty", "truncated", "zeros", "flipped", "pickle", "folder"])
@pytest.mark.sample(3)
def test_damaged_entries_are_ignored(damage, cube, cache_dir, tmp_path):
    """A damaged cache is ignored with a warning, and never executed."""
    expected = lazynwb.read_nwb(cube, "/units")
    files = cached_files(cache_dir)
    assert files
    executed = tmp_path / "executed"
    for number, file in enumerate(files):
        content = bytearray(file.read_bytes())
        if damage == "folder":
            file.unlink()
            file.mkdir()
            continue
        if damage == "flipped" and content:
            content[len(content) * (number % 7) // 7] ^= 0xFF
        file.write_bytes(
            {
                "garbage": os.urandom(len(content)),
                "empty": b"",
                "truncated": content[: len(content) // 2],
                "zeros": bytes(len(content)),
                "flipped": content,
                "pickle": pickle.dumps(Payload(executed)),
            }[damage]
        )
    code = """
import sys, logging, lazynwb
logging.basicConfig(level="DEBUG", stream=sys.stderr)
frame = lazynwb.read_nwb(sys.argv[2:], "/units")
frame.write_ipc(sys.argv[1])
print(lazynwb.scan_nwb(sys.argv[2:], "/units").collect().equals(frame, null_equal=True))
"""
    out = run_child(code, tmp_path / "frame.arrow", *cube, LAZYNWB_CACHE_DIR=str(cache_dir))
    assert out.strip() == "True"
    assert not executed.exists()
    assert_frames(pl.read_ipc(tmp_path / "frame.arrow"), expected)


def test_flipped_bits_are_detected(path, cache_dir):
    """A cache entry with flipped bits could otherwise return wrong values."""
    expected = lazynwb.read_nwb(path, "/t")
    originals = {file: file.read_bytes() for file in cached_files(cache_dir)}
    assert originals
    random = np.random.default_rng(0)
    for _ in range(100):
        for file, content in originals.items():
            damaged = bytearray(content)
            damaged[random.integers(len(damaged))] ^= 1 << int(random.integers(8))
            file.write_bytes(damaged)
        forget()
        assert_frames(lazynwb.read_nwb(path, "/t"), expected)


@pytest.mark.long
def test_the_size_is_bounded(tmp_path, cache_dir, monkeypatch):
    monkeypatch.setattr(disk_cache, "PRUNE_EVERY", 1)
    lazynwb.config.cache_max_bytes = 256 * 1_000
    paths = [tmp_path / f"{number:03}.nwb" for number in range(100)]
    for path in paths:
        with h5py.File(path, "w") as file:
            for name in "abcdefgh":
                table(file, name, {f"a column with a name {k}": [k] for k in range(5)})
    settle()
    for name in "abcdefgh":
        lazynwb.read_nwb(paths, name)
        assert sum(file.stat().st_size for file in cached_files(cache_dir)) <= lazynwb.config.cache_max_bytes
    assert cached_files(cache_dir)


def test_replaced_versions_are_removed(path, cache_dir):
    for number in range(15):
        with h5py.File(path, "w") as file:
            table(file, "t", {"a": np.arange(number)})
        settle()
        assert lazynwb.read_nwb(path, "/t").height == number
    assert len(cached_files(cache_dir)) <= 12


def test_clear_cache(path, cache_dir):
    lazynwb.read_nwb(path, "/t")
    assert cached_files(cache_dir)
    lazynwb.clear_cache()
    assert not cached_files(cache_dir)
    with lazynwb.profile() as p:
        assert lazynwb.read_nwb(path, "/t").height == 5
    assert p.files_parsed == 1


def test_clear_cache_keeps_other_files(path, cache_dir):
    """`cache_dir` may be a folder with other files."""
    (cache_dir / "thesis.txt").write_text("important")
    lazynwb.read_nwb(path, "/t")
    lazynwb.clear_cache()
    assert (cache_dir / "thesis.txt").read_text() == "important"


def test_disable_cache(path, cache_dir):
    lazynwb.config.disable_cache = True
    assert lazynwb.read_nwb(path, "/t").height == 5
    assert not cached_files(cache_dir)


def test_the_cache_of_a_raw_recording_is_small(tmp_path, cache_dir):
    """Only requested chunks are looked up."""
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        file.create_dataset("acquisition/raw/data", (20_000, 4), "i2", chunks=(4, 4))[:] = 1
        file["acquisition/raw"].attrs["neurodata_type"] = "ElectricalSeries"
        file["acquisition/raw/starting_time"] = 0.0
        file["acquisition/raw/starting_time"].attrs["rate"] = 30_000.0
        table(file, "units", {"x": Ragged([[1.0], [2.0]])})
    settle()
    lazynwb.read_nwb(path, "/units")
    list(lazynwb.get_internal_paths(path))
    assert sum(file.stat().st_size for file in cached_files(cache_dir)) < 20_000


@pytest.fixture
def linked(tmp_path):
    """A column that is stored in another file."""
    with h5py.File(tmp_path / "far.nwb", "w") as file:
        file["x"] = [1, 2]
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "t", {"own": [5, 6]})["far"] = h5py.ExternalLink("far.nwb", "/x")
    settle()
    return tmp_path / "a.nwb"


def test_a_file_behind_an_external_link_is_replaced(linked):
    assert lazynwb.read_nwb(linked, "t")["far"].to_list() == [1, 2]
    with h5py.File(linked.with_name("far.nwb"), "w") as file:
        file["x"] = [3, 4]
    assert lazynwb.read_nwb(linked, "t")["far"].to_list() == [3, 4]
    forget()
    assert lazynwb.read_nwb(linked, "t")["far"].to_list() == [3, 4]


def test_the_target_of_an_external_link_disappears_and_returns(linked):
    far = linked.with_name("far.nwb")
    content = far.read_bytes()
    assert "far" in lazynwb.read_nwb(linked, "t").columns
    far.unlink()
    assert lazynwb.read_nwb(linked, "t")["own"].to_list() == [5, 6]
    settle()
    lazynwb.read_nwb(linked, "t")
    far.write_bytes(content)
    assert lazynwb.read_nwb(linked, "t")["far"].to_list() == [1, 2]


def test_cached_results_depend_on_the_settings(linked):
    """Cached links are not used after the setting of links has changed."""
    for setting, followed in (("folder", True), ("never", False), ("anywhere", True)):
        lazynwb.config.external_links = setting
        assert ("far" in lazynwb.read_nwb(linked, "t").columns) == followed
        forget()
        assert ("far" in lazynwb.read_nwb(linked, "t").columns) == followed
