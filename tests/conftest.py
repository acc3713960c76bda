"""Fixtures: a cache folder per test; files and servers, which are created once per session."""
# ruff: noqa: E402 - the helpers are found after the path is set

import importlib
import itertools
import sys
import time
import warnings
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helpers, whatever pytest's import mode

pytest.register_assert_rewrite("checks")

import hypothesis

import builders
import checks
from stores import azure, gcs, gcs_uploads, nginx, s3  # noqa: F401 - fixtures
from zarr_twins.make import ARCHIVE, unpack

for part in ("storage", "types", "tables", "pynwb"):
    importlib.import_module(f"cases_{part}")  # each registers its files in `builders`

hypothesis.settings.register_profile("quick", max_examples=12, deadline=None)
hypothesis.settings.register_profile("slow", max_examples=200, deadline=None)
hypothesis.settings.load_profile("quick")

#: The modules that are not unit tests, by what they need; `make quick` leaves them out.
MARKERS = {
    "integration": """
        attributes batches cache chunk_lookup cli clients column_store config convert
        convert_formats hdf5_structure index index_checkpoints index_scans
        index_value_updates index_values interop late_columns lengths limits metadata
        oracle pandas_output processes random real_files regions session session_columns
        sessions spikes stored_scan table_patterns table_types tables times tree windows
        zarr zarr_random
    """,
    "servers": """
        dandi faulty_stores index_remote objects range_server remote remote_costs remote_faults remote_stores
        revalidation
    """,
    "distributed": "daft daft_ray dask executors",
    "damage": "bad_input damage damage_zarr damaged_columns hostile_content index_hostile_values",
    "docs": "docs notebook",
}
_MARKER_OF = {f"test_{module}": marker for marker, modules in MARKERS.items() for module in modules.split()}
_NUMBERS = itertools.count()
#: Fixtures that start a server.
_SERVERS = {"azure", "cloud", "gcs", "nginx", "s3", "server", "urls"}


def pytest_addoption(parser):
    parser.addoption(
        "--long", action="store_true", help="run the long tests, too, as continuous integration does"
    )
    parser.addoption(
        "--slow", action="store_true", help="run the long and the slow tests, too, and more random examples"
    )
    parser.addoption(
        "--unit", action="store_true", help="run the unit tests only: those without a marker of conftest.py"
    )


def pytest_configure(config):
    if config.getoption("--slow"):
        hypothesis.settings.load_profile("slow")
        checks.THOROUGH = True


def pytest_ignore_collect(collection_path, config):
    """Do not import modules without unit tests for `--unit`: that costs seconds."""
    return True if config.getoption("--unit") and collection_path.stem in _MARKER_OF else None


def pytest_itemcollected(item):
    marker = _MARKER_OF.get(item.path.stem)
    if marker is not None:
        item.add_marker(marker)
    if _SERVERS & set(getattr(item, "fixturenames", ())):
        item.add_marker("servers")


def pytest_collection_modifyitems(config, items):
    numbers, sampled = Counter(), Counter()
    for item in items:
        mark = item.get_closest_marker("sample")
        if mark is not None and "slow" not in item.keywords:
            case = item.path, item.originalname
            if not is_in_sample(numbers[case], *mark.args):
                item.add_marker("slow")
            else:
                if not is_in_sample(sampled[case], 2):
                    item.add_marker("long")
                sampled[case] += 1
            numbers[case] += 1
    if config.getoption("--unit"):
        others = {"slow", "long", *MARKERS}
        config.hook.pytest_deselected(items=[item for item in items if others & set(item.keywords)])
        items[:] = [item for item in items if not others & set(item.keywords)]
        return
    left_out = [] if config.getoption("--slow") else ["slow"]
    left_out += [] if config.getoption("--slow") or config.getoption("--long") else ["long"]
    for mark in left_out:
        if mark not in (config.getoption("-m") or ""):
            for item in items:
                if mark in item.keywords:
                    item.add_marker(pytest.mark.skip(reason=f"{mark}: run with --{mark}"))


def is_in_sample(number, step):
    """Return whether a run with `--long` includes a case of a test with `pytest.mark.sample(step)`.

    One of every `step` cases in a row, another one each time: each value of every parameter has its turn.
    """
    return (number + number // step) % step == 0


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory, monkeypatch):
    """A separate catalog cache for each test, and settings that a test may change."""
    import lazynwb

    # Not `mktemp`, which lists the folders of all tests before.
    folder = tmp_path_factory.getbasetemp() / "caches" / str(next(_NUMBERS))
    folder.mkdir(parents=True)
    monkeypatch.setenv("LAZYNWB_CACHE_DIR", str(folder))
    monkeypatch.setenv("LAZYNWB_DISABLE_PROGRESS", "1")
    saved = {f.name: getattr(lazynwb.config, f.name) for f in fields(lazynwb.config)}
    lazynwb.config.cache_dir = folder
    lazynwb.config.disable_progress = True
    lazynwb.clear_cache()  # what earlier tests left in memory
    yield folder
    for name, value in saved.items():
        setattr(lazynwb.config, name, value)


@pytest.fixture(autouse=True)
def immediate_writes(request, monkeypatch):
    """Write to the caches at once, so that tests may look at their files; not in tests marked `deferred`."""
    if not request.node.get_closest_marker("deferred"):
        from lazynwb.threads import DeferredWrites

        monkeypatch.setattr(DeferredWrites, "submit", lambda _, write: write())


@pytest.fixture
def no_store(cache_dir):
    """Disable the column store, for tests of the costs of reading files."""
    import lazynwb

    lazynwb.config.column_cache_bytes = 0


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The file of a case of `builders`, created on demand. Must not be modified."""
    folder = tmp_path_factory.mktemp("built")
    makers = {**builders.CASES, **builders.PYNWB_CASES}

    def make(name):
        path = folder / f"{name}.nwb"
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                makers[name](path)
            time.sleep(0.1)  # a file that was just written is not remembered by the catalog cache
        return path

    return make


@pytest.fixture(scope="session")
def twins(tmp_path_factory):
    """The same sessions in HDF5 and in both versions of Zarr. Not to be changed."""
    folder = tmp_path_factory.mktemp("twins")
    unpack(ARCHIVE, folder)
    return folder


@pytest.fixture(scope="session")
def cube(tmp_path_factory):
    """Six sessions; the fourth lacks `/intervals/performance`. Must not be modified."""
    paths = builders.write_cube(tmp_path_factory.mktemp("cube"))
    time.sleep(0.1)
    return paths
