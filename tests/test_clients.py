"""Code for lazynwb 1.x: public names, call patterns, and nwb-mcp-server over stdio.

What 1.0.0 does is written down in `names_1.0.0.json` and `call_patterns_1.0.0.json`. With the environment
variable LAZYNWB_PEER_PYTHON, the interpreter of an environment that has it, the package itself is asked:

    python -m venv peer
    peer/bin/pip install 'lazynwb[pynwb]==1.0.0' fastmcp nwb-mcp-server==0.1.8 \
        deflate msgspec nanoarrow google-crc32c cloudpickle platformdirs
    peer/bin/pip install --no-deps nwb-mcp-server==0.1.9   # it asks for a pre-release of lazynwb 1.0.0
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import polars as pl
import pytest

import call_patterns
import lazynwb
from builders import table, write_cube, write_session
from checks import child_environment, run_child
from dandi_server import DandiServer
from mcp_client import McpServer
from range_server import RangeServer

HERE = Path(__file__).parent
NAMES = json.loads((HERE / "names_1.0.0.json").read_text())
RECORDED = json.loads((HERE / "call_patterns_1.0.0.json").read_text())
PAGE = HERE.parent / "docs" / "from-lazynwb-1.md"
SOURCES = str(Path(lazynwb.__file__).parents[1])
PEER = os.environ.get("LAZYNWB_PEER_PYTHON", "")
needs_peer = pytest.mark.skipif(
    not PEER,
    reason="LAZYNWB_PEER_PYTHON names no interpreter of an environment with lazynwb==1.0.0 and "
    "nwb-mcp-server: the head of tests/test_clients.py has the commands that make one",
)


# --- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "name"), [(m, name) for m, names in NAMES.items() for name in names])
def test_public_names_of_1_0_exist_or_name_their_replacement(module, name):
    found = importlib.import_module(module)
    try:
        getattr(found, name)
    except AttributeError as error:
        before, colon, advice = str(error).partition(": ")
        assert repr(name) in before
        assert colon
        assert advice


def test_unknown_names_are_ordinary_attribute_errors():
    with pytest.raises(AttributeError, match=r"^module 'lazynwb' has no attribute 'absent'$"):
        _ = lazynwb.absent
    assert not hasattr(lazynwb, "absent")


def test_forwarded_names_are_the_public_ones():
    for path in NAMES.keys() - {"lazynwb", "lazynwb.exceptions"}:
        module = importlib.import_module(path)
        shared = set(module.__all__) & set(lazynwb.__all__)
        assert shared
        for name in shared:
            assert getattr(module, name) is getattr(lazynwb, name)
    assert lazynwb.exceptions.InternalPathError is lazynwb.TableNotFoundError
    assert lazynwb.exceptions.ColumnError is lazynwb.ColumnNotFoundError


def test_modules_of_1_0_need_no_import_of_their_own():
    run_child(
        "import lazynwb; lazynwb.exceptions.InternalPathError, lazynwb.utils, lazynwb.attrs.get_sub_attrs"
    )


@pytest.mark.parametrize("sources", [[], ()])
@pytest.mark.parametrize("function", ["scan_nwb", "get_df", "get_table_schema"])
def test_no_sources_are_a_value_error(function, sources):
    with pytest.raises(ValueError, match="no source given"):
        getattr(lazynwb, function)(sources, "units")


# --- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "text", "shown", "expected"),
    [
        ("LAZYNWB_ANON", "true", "anon", "True"),
        ("LAZYNWB_FILE_IO_ANON", "0", "storage_options", "{'anon': False}"),
        ("LAZYNWB_FSSPEC_STORAGE_OPTIONS", '{"key": "a"}', "storage_options", "{'key': 'a'}"),
        ("LAZYNWB_FILE_IO_FSSPEC_STORAGE_OPTIONS", '{"key": "a"}', "storage_options", "{'key': 'a'}"),
        ("LAZYNWB_FILE_IO_USE_POLARS", "1", "use_polars", "True"),
        ("LAZYNWB_FILE_IO_DISABLE_CACHE", "1", "disable_cache", "True"),
    ],
)
def test_environment_variables_of_1_0_are_read(monkeypatch, variable, text, shown, expected):
    monkeypatch.setenv(variable, text)
    assert str(getattr(lazynwb.Config(), shown)) == expected


def test_current_variables_take_precedence(monkeypatch):
    monkeypatch.setenv("LAZYNWB_ANON", "1")
    monkeypatch.setenv("LAZYNWB_STORAGE_OPTIONS", '{"anon": false, "region": "x"}')
    assert lazynwb.Config().storage_options == {"anon": False, "region": "x"}


def test_variables_are_read_at_import():
    assert run_child("import lazynwb; print(lazynwb.config.anon)", LAZYNWB_ANON="1").strip() == "True"


@pytest.mark.parametrize(
    "variable", ["LAZYNWB_CATALOG_CACHE_PATH", "LAZYNWB_USE_OBSTORE", "LAZYNWB_FILE_IO_USE_REMFILE"]
)
def test_variables_without_effect_cause_one_warning(variable):
    code = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
import lazynwb
lazynwb.Config()
"""
    messages = run_child(code, **{variable: "1"}).splitlines()
    assert len(messages) == 1
    assert variable in messages[0]


def test_a_config_reads_the_environment_when_it_is_made(monkeypatch):
    monkeypatch.setenv("LAZYNWB_USE_POLARS", "1")
    monkeypatch.setenv("LAZYNWB_ANON", "1")
    assert lazynwb.Config().use_polars
    assert lazynwb.Config().anon is True
    assert lazynwb.Config(use_polars=False, anon=False).anon is False
    assert not lazynwb.Config(use_polars=False).use_polars
    monkeypatch.setenv("LAZYNWB_FSSPEC_STORAGE_OPTIONS", '["secret"]')
    with pytest.raises(ValueError, match="LAZYNWB_FSSPEC_STORAGE_OPTIONS") as error:
        lazynwb.Config()
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["absent", "_cache_root", "cache_path"])
def test_an_unknown_setting_is_a_type_error(name):
    with pytest.raises(TypeError, match=f"no setting '{name}'"):
        lazynwb.Config(**{name: 1})


# --- tables of 1.0 --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """The folder that `call_patterns.py` is run on."""
    folder = tmp_path_factory.mktemp("sessions")
    for path in write_cube(folder, 2, units=3):
        with h5py.File(path, "a") as file:
            file["processing/other/plain/a"] = [1, 2, 3]
            file["processing/other/plain/b"] = [0.5, 1.5, 2.5]
    (folder / "mixed").mkdir()
    for number, values in enumerate(([1, 2], ["a", "b"])):
        with h5py.File(folder / "mixed" / f"{number}.nwb", "w") as file:
            table(file, "intervals/mixed", {"x": values}, kind="TimeIntervals")
    return folder


def test_the_root_group_is_a_table_of_one_row(sessions):
    path = str(sessions / "session_00.nwb")
    found = lazynwb.scan_nwb(path, "/").collect().row(0, named=True)
    with h5py.File(path) as file:
        expected = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        for name, dataset in expected.items():
            value = dataset.asstr()[()]
            assert found.pop(name) == (value if isinstance(value, str) else list(value))
    assert found == {"_nwb_path": path, "_table_path": "/", "_table_index": 0}


def test_the_root_group_through_an_index(sessions, tmp_path):
    paths = [str(sessions / f"session_0{number}.nwb") for number in (0, 1)]
    index = tmp_path / "index"
    lazynwb.build_index(paths, index)
    expected = lazynwb.scan_nwb(paths, "/").collect()
    assert lazynwb.scan_nwb(None, "/", index=index).collect().equals(expected)


@pytest.mark.parametrize(
    ("datasets", "rows"),
    [
        ({"a": [1, 2], "b": [[1.0, 2.0], [3.0, 4.0]]}, 2),
        ({"a": [1, 2]}, 2),
        ({"a": []}, 0),
        ({"a": [1, 2], "b": [1, 2, 3]}, None),
        ({"a": [1, 2], "b": 3}, None),
        ({"a": 1}, None),
        ({}, None),
    ],
)
def test_a_group_named_by_its_path_is_a_table_if_its_datasets_have_equal_lengths(tmp_path, datasets, rows):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        table(file, "units", {"x": [1]})
        group = file.create_group("scratch/things")
        for name, values in datasets.items():
            group[name] = values
        group.create_group("below")
    if rows is None:
        with pytest.raises(lazynwb.TableNotFoundError, match="no table /scratch/things"):
            lazynwb.scan_nwb(path, "/scratch/things")
    else:
        frame = lazynwb.scan_nwb(path, "/scratch/things").collect()
        assert {name: frame[name].to_list() for name in datasets} == datasets
        assert len(frame) == rows
    with pytest.raises(lazynwb.TableNotFoundError):
        lazynwb.get_df(path, "things")
    assert "/scratch/things" not in lazynwb.get_internal_paths(path)
    assert not [name for name in lazynwb.get_sql_context(path).tables() if "things" in name]


def test_a_column_that_only_an_override_names_is_null(sessions):
    frame = lazynwb.scan_nwb(sessions / "session_00.nwb", "units", schema_overrides={"depth": pl.Float32})
    assert frame.collect_schema()["depth"] == pl.Float32
    assert frame.select("depth").collect()["depth"].to_list() == [None] * 3
    assert frame.filter(pl.col("depth") > 1).collect().is_empty()


def test_listings_as_json(sessions):
    found = lazynwb.get_internal_paths(sessions / "session_00.nwb")
    written = json.loads(json.dumps({path: info.to_dict() for path, info in found.items()}))
    with h5py.File(sessions / "session_00.nwb") as file:
        for path, info in written.items():
            assert info["is_group"] == isinstance(file[path], h5py.Group)
            assert info["shape"] == (None if info["is_group"] else list(file[path].shape))


@pytest.mark.parametrize(("use_polars", "kind"), [(False, "pandas"), (True, "polars")])
def test_one_setting_selects_the_kind_of_frame(sessions, use_polars, kind):
    lazynwb.config.use_polars = use_polars
    path = sessions / "session_00.nwb"
    session = lazynwb.LazyNWB(path)
    frames = [
        session.trials,
        session.units,
        session.get_df("units"),
        session.get("trials", as_df=True),
        lazynwb.get_df(path, "units"),
        lazynwb.get(path, "trials", as_df=True),
        lazynwb.get_metadata_df(path),
        lazynwb.get_metadata_df([]),
    ]
    assert {type(frame).__module__.partition(".")[0] for frame in frames} == {kind}


def test_signatures_name_the_frames(sessions):
    import inspect

    assert inspect.signature(lazynwb.read_nwb).return_annotation == "pl.DataFrame"
    assert inspect.signature(lazynwb.scan_nwb).return_annotation == "pl.LazyFrame"
    assert inspect.signature(lazynwb.get_df).return_annotation == "pl.DataFrame | pd.DataFrame"
    trials = inspect.signature(lazynwb.LazyNWB.trials.fget).return_annotation
    assert trials == "pl.DataFrame | pd.DataFrame | None"
    assert list(inspect.signature(lazynwb.read_nwb).parameters) == list(
        inspect.signature(lazynwb.scan_nwb).parameters
    )


# --- call patterns --------------------------------------------------------------------------------------


def run_patterns(python, folder, environment):
    done = subprocess.run(  # noqa: S603 - the interpreter that the test's user names
        [python, str(HERE / "call_patterns.py"), str(folder)],
        env=environment,
        capture_output=True,
        check=True,
        timeout=300,
    )
    return json.loads(done.stdout)


def agree(theirs, ours):
    """Return whether values are equal, or an error has the built-in classes of the other one."""
    if "raises" in theirs:
        return set(theirs["raises"]) <= set(ours.get("raises", ()))
    return theirs == ours


@pytest.fixture(scope="module")
def ours(sessions, tmp_path_factory):
    environment = child_environment(LAZYNWB_CACHE_DIR=str(tmp_path_factory.mktemp("cache")))
    return run_patterns(sys.executable, sessions, environment)


def test_every_call_pattern_is_recorded():
    assert RECORDED.keys() == call_patterns.PATTERNS.keys()
    assert call_patterns.DIFFERENT.keys() <= call_patterns.PATTERNS.keys()


@pytest.mark.parametrize("name", call_patterns.PATTERNS)
def test_call_patterns_equal_1_0_except_for_documented_changes(name, ours):
    if name in call_patterns.DIFFERENT:
        assert not agree(RECORDED[name], ours[name])
        assert call_patterns.DIFFERENT[name] in " ".join(PAGE.read_text().split())
    else:
        assert agree(RECORDED[name], ours[name]), (RECORDED[name], ours[name])


@needs_peer
def test_recorded_results_equal_1_0(sessions):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    assert run_patterns(PEER, sessions, environment) == RECORDED


# --- nwb-mcp-server -------------------------------------------------------------------------------------

QUERIES = [
    'SELECT count(*) AS n FROM "units"',
    "SELECT session_id, identifier FROM session ORDER BY session_id",
    "SELECT obs_intervals, spike_times FROM units LIMIT 2",
    "SELECT location, avg(presence_ratio) AS p FROM units GROUP BY location ORDER BY location",
    'SELECT * FROM "intervals/trials" WHERE start_time < 20 ORDER BY start_time',
    'SELECT * FROM "general/subject"',
]


def answers(server):
    """Return the results of all tools for the active source."""
    found = {
        tool: server.call(tool)
        for tool in ("get_active_source", "get_nwb_paths", "get_tables", "nwb_file_search_code_snippet")
    }
    for name in found["get_tables"]["result"]:
        found["schema", name] = json.loads(server.call("get_table_schema", table_name=name)[0])
        # The session's texts are whole lists here: the migration page.
        if name != "session":
            found["preview", name] = server.call("preview_table_values", table=name)
    return found | {query: server.call("execute_query", query=query) for query in QUERIES}


@pytest.fixture
def server_environment(tmp_path):
    return {"PYTHONPATH": SOURCES, "LAZYNWB_CACHE_DIR": str(tmp_path / "cache")}


@needs_peer
def test_tools_of_nwb_mcp_server_give_equal_results(sessions, server_environment):
    found = []
    for environment in ({}, server_environment):
        with McpServer(PEER, **environment) as server:
            tools = server.tools()
            arguments = {"root_dir": str(sessions), "glob_pattern": "*.nwb"}
            used = server.call("use_local_source", **arguments)
            found.append([tools, used, answers(server), server.call("reset_active_source")])
            if "anon" in tools["use_local_source"]:  # from 0.1.9 on: it sets `lazynwb.config.anon`
                found[-1] += [server.call("use_local_source", **arguments, anon=True), answers(server)]
    assert found[0] == found[1]


@needs_peer
def test_nwb_mcp_server_reads_a_dandiset(tmp_path, server_environment):
    (tmp_path / "bucket").mkdir()
    with RangeServer(tmp_path / "bucket") as bucket, DandiServer(bucket.url_of("").rstrip("/")) as archive:
        assets = archive.publish("000363", "0.231012.2129", ["sub-1/a.nwb", "sub-2/b.nwb", "sub-1/movie.mp4"])
        for number, (path, asset) in enumerate(assets.items()):
            if path.endswith(".nwb"):
                stored = tmp_path / "bucket" / asset.key
                stored.parent.mkdir(parents=True)
                write_session(stored, number, units=3)
        environment = {**server_environment, "LAZYNWB_DANDI_API_URL": archive.url, "no_proxy": "127.0.0.1"}
        with McpServer(PEER, **environment) as server:
            chosen = {"dandiset_id": "000363", "dandiset_path_filter": "sub-*/*.nwb"}
            used = server.call("use_dandiset_source", **chosen)
            assert used["source_count"] == 2
            assert used["active_source"]["dandiset_version"] == "0.231012.2129"
            stored = {bucket.url_of(asset.key) for path, asset in assets.items() if path.endswith(".nwb")}
            assert set(server.call("get_nwb_paths")["result"]) == stored
            query = "SELECT session_id FROM session ORDER BY session_id"
            found = json.loads(server.call("execute_query", query=query)["result"])
            assert found == [{"session_id": "s0"}, {"session_id": "s1"}]
            snippet = server.call("nwb_file_search_code_snippet")["result"]
        code = f"{snippet}\nimport lazynwb; print(len(lazynwb.scan_nwb(nwb_paths, 'units').collect()))"
        assert run_child(code, **environment).strip() == "6"
