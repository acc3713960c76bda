"""The command line: results on stdout, messages on stderr, exit codes, and output for terminals."""

import csv
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import lazynwb
from builders import nwb_root, series, table
from checks import child_environment, sample
from dandi_server import DandiServer
from lazynwb import cli
from lazynwb.demo import write_cube
from lazynwb.storage.source import Source
from range_server import SILENT, RangeServer, always
from zarr_twins.make import ARCHIVE, unpack

pytest.importorskip("typer")
pytest.importorskip("rich")

FORMATS = (".nwb", ".v2.nwb.zarr", ".v3.nwb.zarr")
#: What a file could do to a terminal, or to rich, if its names and values got there as they are.
HOSTILE = "\x1b[31mred\x1b]0;title\x07 [bold]x[/bold] \u202e\x9b2J :smile:"
NAME = HOSTILE.replace("/", "")  # a slash parts the names of groups


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run each command in a separate folder without a project file."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsysbinary):
    """Run a command in this process; return its exit code, stdout and stderr."""

    def run(*arguments):
        code = cli.main([str(one) for one in arguments])
        done = capsysbinary.readouterr()
        return code, done.out, done.err.decode()

    return run


@pytest.fixture
def answer(run):
    """Run a command that must succeed; return its stdout."""

    def answer(*arguments):
        code, out, err = run(*arguments)
        assert code == 0, err
        return out

    return answer


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """One session in HDF5 and in both versions of Zarr. Not to be changed."""
    folder = tmp_path_factory.mktemp("session")
    unpack(ARCHIVE, folder, ["session."])
    return {suffix: folder / f"session{suffix}" for suffix in FORMATS}


def in_process(*arguments, **options):
    """Run a command in a separate process."""
    env = child_environment(**options.pop("env", {}))
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "lazynwb", *map(str, arguments)],
        env=env,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options},
    )


def on_terminal(*arguments, columns=80, env=None):
    """Return the output in a terminal of some columns, and the exit code."""
    (shown,), code = all_on_terminal([arguments], columns=columns, env=env)
    return shown, code


#: Runs commands one after the other, and parts what they write.
SEVERAL = """
import json, logging, sys
from lazynwb.cli import main
for arguments in json.loads(sys.argv[1]):
    code = main(arguments)
    logging.getLogger("lazynwb").handlers.clear()
    print(f"--- exit code {code}", flush=True)
sys.exit(code)
"""


def all_on_terminal(commands, columns=80, env=None):
    """Return the output of several commands, and the exit code of the last."""
    import fcntl
    import pty
    import struct
    import termios

    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {"TERM": "xterm-256color", "NO_COLOR": "", **(env or {})}
    listed = json.dumps([[str(one) for one in arguments] for arguments in commands])
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", SEVERAL, listed],
        stdin=other,
        stdout=other,
        stderr=other,
        env=child_environment(**environment),
    )
    os.close(other)
    shown = b""
    try:
        while select.select([main], [], [], 60)[0]:
            try:
                data = os.read(main, 65536)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            shown += data
    finally:
        os.close(main)
    parts = re.split(r"--- exit code \d+\n", shown.decode().replace("\r\n", "\n"))
    assert parts.pop() == ""
    return parts, process.wait(30)


def plain(text):
    """Text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals: run on Linux or macOS")


# --- the commands, on HDF5 and on Zarr ----------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.sample(2)
def test_tables_with_rows_columns_and_files(suffix, session, answer):
    found = {row["table"]: row for row in json.loads(answer("tables", session[suffix], "-f", "json"))}
    assert set(found) >= {"/units", "/intervals/trials", "/general", "/general/subject"}
    for path, row in found.items():
        frame = lazynwb.read_nwb(session[suffix], path)
        names = set(frame.columns) - lazynwb.INTERNAL_COLUMN_NAMES
        assert (row["rows"], row["columns"], row["files"]) == (frame.height, len(names), 1), path
    assert found["/general"]["sql_name"] == "session"


@pytest.mark.parametrize("suffix", FORMATS)
def test_schema_with_types_and_descriptions(suffix, session, answer):
    rows = json.loads(answer("schema", session[suffix], "units", "-f", "json"))
    schema = lazynwb.get_table_schema(session[suffix], "units")
    assert {row["column"]: row["dtype"] for row in rows} == {n: str(t) for n, t in schema.items()}
    with h5py.File(session[".nwb"]) as file:
        said = {name: one.attrs.get("description") for name, one in file["units"].items()}
    described = {row["column"]: row["description"] for row in rows if row["description"]}
    assert described
    assert described == {name: said[name] for name in described}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_head_is_the_head_of_the_frame(suffix, form, session, answer):
    expected = lazynwb.scan_nwb(session[suffix], "/units").head(3).collect()
    out = answer("head", session[suffix], "units", "-n", 3, "-f", form)
    read = {"parquet": pl.read_parquet, "arrow": pl.read_ipc}[form]
    assert_frame_equal(read(io.BytesIO(out)), expected)


def test_sql_commands_accept_table_names(cube, answer):
    by_path = answer("head", *cube, "/intervals/performance", "-f", "csv")
    assert by_path.count(b"\n") == 11
    assert answer("head", *cube, "performance", "-f", "csv") == by_path
    rows = json.loads(answer("schema", *cube, "performance", "-f", "json"))
    assert {row["column"]: row["files"] for row in rows}["rewarded_modality"] == len(cube) - 1


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_query_equals_that_of_the_sql_context(suffix, session, answer):
    sql = "SELECT id, spike_times FROM units WHERE id > 2"
    expected = lazynwb.get_sql_context(session[suffix]).execute(sql, eager=True)
    assert expected.height
    assert_frame_equal(
        pl.read_parquet(io.BytesIO(answer("query", sql, session[suffix], "-f", "parquet"))), expected
    )
    assert json.loads(answer("query", sql, session[suffix], "-f", "json")) == expected.to_dicts()
    lines = answer("query", sql, session[suffix], "-f", "ndjson").decode().splitlines()
    assert [json.loads(line) for line in lines] == expected.to_dicts()


@pytest.mark.parametrize("suffix", FORMATS)
def test_paths_with_shapes_types_sizes_and_chunks(suffix, session, answer):
    rows = json.loads(answer("paths", session[suffix], "--all", "-f", "json"))
    found = {row["path"]: row for row in rows}
    listed = lazynwb.get_internal_paths(session[suffix])
    assert set(listed) <= set(found)
    for path, info in listed.items():
        shape = found[path]["shape"]
        assert (tuple(shape) if shape is not None else None) == info.shape, path
    assert found["/acquisition/zipped/data"]["chunk"] == [64, 2]
    assert "zlib" in found["/acquisition/zipped/data"]["codecs"]
    assert found["/units/spike_times"]["bytes"] > 0
    assert [row["path"] for row in json.loads(answer("paths", session[suffix], "-f", "json"))] == list(listed)


def test_sizes_equal_those_of_libhdf5(session, answer):
    rows = json.loads(answer("tree", session[".nwb"], "-f", "json"))
    known = {row["path"]: row["bytes"] for row in rows if row["bytes"] is not None}
    assert len(known) > 50
    with h5py.File(session[".nwb"]) as file:
        assert known == {path: file[path].id.get_storage_size() for path in known}


@pytest.mark.parametrize("suffix", FORMATS[1:])
def test_sizes_of_zarr_arrays_are_those_of_their_chunks(suffix, session, answer):
    rows = json.loads(answer("tree", session[suffix], "-f", "json"))
    known = {row["path"]: row["bytes"] for row in rows if row["bytes"] is not None}
    folder = session[suffix] / "acquisition/zipped/data"
    chunks = [
        f for f in folder.rglob("*") if f.is_file() and not f.name.startswith(".z") and f.name != "zarr.json"
    ]
    assert len(chunks) == 5
    assert known["/acquisition/zipped/data"] == sum(file.stat().st_size for file in chunks)


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_tree_has_every_object_and_broken_links(suffix, session, answer):
    text = answer("tree", session[suffix]).decode()
    for path in lazynwb.get_internal_paths(session[suffix], include_table_columns=True):
        assert re.search(rf"[─ ]{re.escape(path.rpartition('/')[2])}  ", text), path
    assert "table: 10 rows" in text
    short = answer("tree", session[suffix], "--depth", 1).decode()
    assert "units" in short
    assert "spike_times" not in short
    assert "spike_times" not in answer("tree", session[suffix], "--no-columns").decode()


@pytest.mark.parametrize("suffix", FORMATS)
def test_convert(suffix, session, answer, tmp_path):
    text = answer("convert", session[suffix], "-o", tmp_path / "out", "-t", "units", "-t", "trials").decode()
    assert "/units" in text
    assert_frame_equal(
        pl.read_parquet(tmp_path / "out/units.parquet"), lazynwb.read_nwb(session[suffix], "units")
    )
    answer("convert", session[suffix], "-o", tmp_path / "by", "--partition-by", "session", "-t", "units")
    assert list((tmp_path / "by/units").glob("session=*/*.parquet"))


#: Links in the place of a table, and what is said of them.
BROKEN_LINKS = {
    "missing": (
        h5py.ExternalLink("gone.nwb", "/units"),
        r"gone\.nwb.*restore the file, or recreate the link",
    ),
    "cyclic": (h5py.SoftLink("/units"), r"link 'units' leads back to itself; recreate the link"),
    "forbidden": (h5py.ExternalLink("../other.nwb", "/units"), r"other\.nwb.*external_links"),
}


@pytest.mark.parametrize("kind", BROKEN_LINKS)
def test_commands_on_a_file_with_a_broken_link(kind, tmp_path, run):
    """Commands on the table behind the link give the reason; others show the rest of the file."""
    link, reason = BROKEN_LINKS[kind]
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "linked.nwb"
    with h5py.File(path, "w") as file:
        nwb_root(file)
        table(file, "intervals/trials", {"start_time": np.arange(2.0)}, kind="TimeIntervals")
        file["units"] = link
    for command in (
        ("head", path, "units"),
        ("schema", path, "units"),
        ("query", "SELECT * FROM units", path),
        ("convert", path, "-o", tmp_path / "out", "-t", "units"),
    ):
        code, _, err = run(*command)
        assert code != 0, command
        assert "linked.nwb" in err, command
        assert re.search(reason, " ".join(err.split())), command
        assert "Traceback" not in err
    for command, shown in (
        (("tables", path), b"/intervals/trials"),
        (("tree", path), b"units"),
        (("paths", path), b"/intervals/trials"),
        (("sessions", path), b"linked.nwb"),
        (("head", path, "trials"), b"start_time"),
        (("schema", path, "trials"), b"start_time"),
        (("query", "SELECT count(*) AS n FROM trials", path, "--format", "csv"), b"n\n2"),
    ):
        code, out, err = run(*command)
        assert code == 0, err
        assert shown in out.replace(b"\r", b""), command
        if command[0] == "tables":
            assert re.search(rf"broken links were left out: /units: .*{reason}", " ".join(err.split()))
    code, out, _ = run("tree", path)
    assert re.search(rb"units.*(broken|cannot|link)", out)
    code, _, err = run("convert", path, "-o", tmp_path / "all")
    assert code == 0, err
    assert re.search(rf"broken links were left out: /units: .*{reason}", " ".join(err.split()))
    assert sorted(one.name for one in (tmp_path / "all").glob("*.parquet")) == [
        "general.parquet",
        "subject.parquet",
        "trials.parquet",
    ]


def test_a_column_of_conflicting_types(tmp_path, run):
    for name, values in {"a": [1, 2], "b": ["one", "two"]}.items():
        with h5py.File(tmp_path / f"{name}.nwb", "w") as file:
            table(file, "units", {"x": values, "rate": np.arange(2.0)})
    for command in ("head", "schema"):
        code, out, err = run(command, tmp_path, "units")
        assert code == 0
        assert b"rate" in out
        assert re.search(r"column 'x' of /units is Int64 in \S*a\.nwb but String in \S*b\.nwb", err)
    code, out, _ = run("head", tmp_path, "units", "-c", "rate", "--format", "csv")
    assert (code, out.decode().split()) == (0, ["rate", "0.0", "1.0", "0.0", "1.0"])
    for arguments in (("-c", "x"), ("--format", "csv")):
        code, _, err = run("head", tmp_path, "units", *arguments)
        assert code == 1
        assert re.search(r"column 'x' of /units .*schema_overrides", err)


def test_dandi_ls(answer, run):
    with DandiServer() as archive:
        lazynwb.config.dandi_api_url = archive.url
        archive.publish("000363", "0.1.2", ["sub-1/a.nwb", "sub-1/b.nwb", "sub-2/c.nwb.zarr"])
        urls = answer("dandi", "ls", "000363").decode().split()
        assert urls == lazynwb.get_dandi_sources("000363")
        assert json.loads(answer("dandi", "ls", "363", "-n", 1, "-f", "json")) == [{"source": urls[0]}]
        code, out, err = run("dandi", "ls", "000001")
        assert (code, out) == (3, b"")
        assert "000001" in err
        assert run("dandi", "ls", "000363", "--order", "size")[0] == 2


def test_cache_info_and_clear(cube, answer, run, cache_dir):
    answer("tables", cube[0])
    (info,) = json.loads(answer("cache", "info", "-f", "json"))
    files = [file for file in cache_dir.rglob("*") if file.is_file()]
    assert (info["entries"], info["bytes"]) == (len(files), sum(file.stat().st_size for file in files))
    assert info["folder"] == str(cache_dir)
    assert str(cache_dir) in answer("cache", "info").decode()
    code, out, err = run("cache", "clear")
    assert (code, out) == (0, b"")
    assert f"{len(files)} files removed" in err
    assert not [file for file in cache_dir.rglob("*") if file.is_file()]


def test_cache_info_lists_cached_data_by_source(cube, answer, cache_dir, monkeypatch):
    monkeypatch.setattr(Source, "is_settled", lambda *_: True)  # else files made just now are not kept
    lazynwb.scan_nwb(cube[:2], "/intervals/trials").collect()
    lazynwb.scan_nwb(cube[:1], "/general/subject").collect()
    kept = json.loads(answer("cache", "info", "--sources", "-f", "json"))
    assert {one["source"] for one in kept} == {str(path) for path in cube[:2]}
    tables = {one["source"]: one["tables"] for one in kept}
    assert tables[str(cube[0])] == ["general/subject", "intervals/trials"]
    assert tables[str(cube[1])] == ["intervals/trials"]
    files = [file for file in cache_dir.rglob("*") if file.is_file()]
    stored = sum(file.stat().st_size for file in files if "columns" in file.parts)
    assert sum(one["column_bytes"] for one in kept) == stored > 0
    assert sum(one["catalog_bytes"] for one in kept) + stored == sum(file.stat().st_size for file in files)
    assert "/intervals/trials" in answer("cache", "info", "--sources").decode()


def test_demo_on_given_files(cube, run):
    out, err = in_process("demo", cube[0]).communicate(timeout=60)
    text = out.decode()
    assert not err
    assert "1 NWB file" in text
    assert "/units" in text
    assert run("demo", "missing")[0] == 3


# --- forms of a result --------------------------------------------------------------------------------


def test_csv_has_arrays_as_json_text(cube, answer):
    out = answer("head", cube[0], "units", "-n", 4, "-c", "unit_id", "-c", "spike_times", "-f", "csv")
    expected = lazynwb.scan_nwb(cube[0], "units").head(4).collect()
    rows = list(csv.DictReader(io.StringIO(out.decode())))
    assert [row["unit_id"] for row in rows] == expected["unit_id"].to_list()
    assert [json.loads(row["spike_times"]) for row in rows] == expected["spike_times"].to_list()


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.arrow", "a.feather", "a.csv", "a.json", "a.ndjson", "a.jsonl"]
)
def test_the_suffix_of_an_output_file_determines_the_format(name, cube, answer, tmp_path):
    file = tmp_path / name
    file.write_bytes(b"what was there before")
    assert answer("query", "SELECT unit_id, presence_ratio FROM units", *cube, "-o", file) == b""
    expected = lazynwb.read_nwb(cube, "units").select("unit_id", "presence_ratio")
    read = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".json": pl.read_json}
    read |= dict.fromkeys((".arrow", ".feather"), pl.read_ipc) | dict.fromkeys(
        (".ndjson", ".jsonl"), pl.read_ndjson
    )
    assert_frame_equal(read[file.suffix](file), expected)
    assert sorted(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "parquet", "arrow"])
def test_a_result_without_rows_is_no_failure(form, cube, answer):
    out = answer("query", "SELECT unit_id FROM units WHERE presence_ratio > 9", cube[0], "-f", form)
    if form == "json":
        assert json.loads(out) == []
    elif form == "csv":
        assert out == b"unit_id\n"
    elif form != "ndjson":
        read = {"parquet": pl.read_parquet, "arrow": pl.read_ipc}[form]
        assert read(io.BytesIO(out)).schema == {"unit_id": pl.String}
    else:
        assert out == b""


def test_an_output_file_is_complete_or_absent(cube, run, tmp_path):
    broken = tmp_path / "broken.nwb"
    with h5py.File(broken, "w") as file:
        nwb_root(file)
        table(file, "units", {"unit_id": [f"u{k}" for k in range(40)], "presence_ratio": np.arange(40.0)})
        file["units/presence_ratio"].id.get_offset()
        at = file["units/presence_ratio"].id.get_offset()
    os.truncate(broken, at)
    output = tmp_path / "out.parquet"
    output.write_bytes(b"before")
    code, _, err = run("query", "SELECT presence_ratio FROM units", cube[0], broken, "-o", output)
    assert code == 1
    assert "broken.nwb" in err
    assert output.read_bytes() == b"before"
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.usefixtures("no_store")
def test_an_output_file_is_streamed(cube, answer, tmp_path, monkeypatch):
    """The whole result is never collected."""
    monkeypatch.setattr(pl.LazyFrame, "collect", lambda *_, **__: pytest.fail("collected"))
    for name in ("a.parquet", "a.arrow", "a.csv", "a.json", "a.ndjson"):
        answer("query", "SELECT unit_id, spike_times FROM units", *cube, "-o", tmp_path / name)
        assert (tmp_path / name).stat().st_size


def test_only_the_tables_of_a_query_are_described(cube, answer):
    with lazynwb.profile() as cost:
        answer("query", "SELECT count(*) FROM trials", cube[0], "-f", "csv")
    assert cost.files_parsed == 2  # what the file contains, and the one table


def test_a_table_shows_the_first_rows_and_the_number_of_others(cube, run):
    code, out, err = run("query", "SELECT unit_id FROM units ORDER BY unit_id", *cube)
    assert code == 0
    assert len(out.decode().splitlines()) == 3 + 20
    assert "-n shows more" in err
    _, out, err = run("query", "SELECT unit_id FROM units LIMIT 5", cube[0], "-n", 5)
    assert len(out.decode().splitlines()) == 3 + 5
    assert "5 rows" in err
    assert "more" not in err


def test_a_table_in_a_pipe_is_plain_and_has_every_column(cube, run):
    code, out, err = run("head", cube[0], "units", "-n", 2)
    header, types, _, *rows = out.decode().splitlines()
    assert code == 0
    assert sorted(header.split()) == sorted(lazynwb.scan_nwb(cube[0], "units").collect_schema())
    assert "list[f64]" in types
    assert "array[f64, 21×8]" in types  # noqa: RUF001
    assert len(rows) == 2
    assert str(cube[0]) in rows[0]
    assert "\x1b" not in out.decode() + err
    assert "2 of 40 rows" in err


# --- sources ------------------------------------------------------------------------------------------


def test_files_patterns_and_folders(cube, answer):
    for source in (cube[0].parent, cube[0].parent / "*.nwb"):
        (row,) = [r for r in json.loads(answer("tables", source, "-f", "json")) if r["table"] == "/units"]
        assert row["files"] == len(cube)
        assert row["rows"] == 40 * len(cube)


def test_a_list_on_stdin(cube, answer, run, monkeypatch):
    def given(text):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    given("".join(f"{path}\n" for path in cube[:2]) + "\n")
    rows = json.loads(answer("tables", "-", "-f", "json"))
    assert {row["files"] for row in rows if row["table"] == "/units"} == {2}
    given("")
    assert run("tables", "-")[0] == 3


def test_files_behind_a_server(cube, answer):
    with RangeServer(cube[0].parent) as server:
        urls = [server.url_of(path.name) for path in cube[:2]]
        local = lazynwb.read_nwb(cube[:2], "trials").drop("_nwb_path")
        out = answer("query", "SELECT * FROM trials", *urls, "-f", "parquet")
        assert_frame_equal(pl.read_parquet(io.BytesIO(out)).drop("_nwb_path"), local)
        rows = json.loads(answer("tree", urls[0], "-f", "json"))
        assert not any(row["bytes"] for row in rows)  # that would take requests
        rows = json.loads(answer("tree", urls[0], "--storage", "-f", "json"))
        (size,) = [row["bytes"] for row in rows if row["path"] == "/units/spike_times"]
    with h5py.File(cube[0]) as file:
        assert size == file["units/spike_times"].id.get_storage_size()


# --- errors -------------------------------------------------------------------------------------------

USAGE = {
    "no such command": ["tabels"],
    "no such option": ["tables", "--formt", "json"],
    "no such form": ["tables", "FILE", "-f", "xml"],
    "no source": ["tables"],
    "no table": ["head", "FILE"],
    "no table in a folder": ["head", "FOLDER"],
    "no table of two files": ["head", "FILE", "FILE"],
    "the table first": ["schema", "units", "FOLDER"],
    "a file for a command": ["FILE"],
    "no form for the file": ["tables", "FILE", "-o", "out.txt"],
    "a table is no file": ["tables", "FILE", "-f", "table", "-o", "out.csv"],
    "a folder for a file": ["tables", "FILE", "-f", "csv", "-o", "."],
    "a set without a project": ["tables", "@pilot"],
    "half an option": ["tables", "FILE", "--storage-option", "region"],
    "no such output format": ["convert", "FILE", "-o", "out", "-f", "xml"],
    "a vertical layout of what is no table": ["head", "FILE", "units", "-x", "-f", "csv"],
    "two files where one is described": ["tree", "FOLDER"],
}


@pytest.mark.parametrize("kind", USAGE)
def test_wrong_usage(kind, cube, run):
    places = {"FILE": cube[0], "FOLDER": cube[0].parent}
    code, out, err = run(*[places.get(one, one) for one in USAGE[kind]])
    assert (code, out) == (2, b"")
    assert err.startswith("lazynwb: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["schema", "units", "data folder"], "lazynwb schema 'data folder' units"),
        (["head", "data folder"], "lazynwb tables 'data folder'"),
        (["data folder"], "lazynwb tables 'data folder'"),
        (["query", "data folder", "SELECT 1"], "lazynwb query 'SELECT ...' 'data folder'"),
    ],
)
def test_wrong_usage_suggests_the_intended_command(arguments, said, run, tmp_path):
    (tmp_path / "data folder").mkdir()
    code, _, err = run(*arguments)
    assert code == 2
    assert said in err


def test_a_folder_named_like_a_table_is_no_obstacle(cube, answer, tmp_path):
    (tmp_path / "units").mkdir()
    assert json.loads(answer("head", cube[0], "units", "-n", "1", "-f", "json"))
    assert json.loads(answer("head", cube[0].parent / "*.nwb", "units", "-n", "1", "-f", "json"))


def test_a_comparison_of_unlike_types_shows_the_expression_and_a_cast(cube, run):
    code, _, err = run("query", "SELECT unit_id FROM units WHERE location > 3", cube[0])
    assert code == 1
    assert 'col("location")' in err
    assert "CAST" in err


def test_options_that_a_command_does_not_have_are_not_suggested(run, tmp_path):
    (tmp_path / "notes.md").write_text("no NWB")
    code, _, err = run("tree", "notes.md")
    assert code == 1
    assert "--ignore-errors" not in err
    assert "HDF5 file or a Zarr store" in err


def test_terminals_show_identifying_columns_first_and_arrays_last(cube, run):
    _, out, _ = run("head", cube[0], "units", "-n", "1")
    titles = out.decode().splitlines()[0].split()
    schema = lazynwb.get_table_schema(cube[0], "units")
    assert titles[:2] == ["id", "unit_id"]
    assert sorted(titles) == sorted(schema)
    arrays = [name for name, dtype in schema.items() if dtype.is_nested()]
    assert arrays
    assert set(titles[-len(arrays) :]) == set(arrays)


NOTHING = {
    "no such file": (["tables", "nowhere.nwb"], "nowhere.nwb"),
    "no match": (["tables", "*.nwb"], "*.nwb"),
    "an empty folder": (["tables", "."], "no NWB file"),
    "no such table": (["head", "FILE", "unit"], "did you mean /units?"),
    "no such table for its columns": (["schema", "FILE", "unit"], "/units"),
    "no such table in SQL": (["query", "SELECT * FROM unit", "FILE"], "did you mean 'units'?"),
    "one of two tables": (["query", "SELECT 1 FROM units JOIN trails USING (id)", "FILE"], "'trials'"),
    "nothing to convert": (["convert", "FILE", "-o", "out", "-t", "unit"], "unit"),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_commands_without_results(kind, cube, run):
    arguments, said = NOTHING[kind]
    code, out, err = run(*[cube[0] if one == "FILE" else one for one in arguments])
    assert (code, out) == (3, b"")
    assert said in err
    assert err.count("\n") == 1


FAILURES = {
    "not NWB": (["tables", "TEXT"], "text.nwb"),
    "no such column": (["head", "FILE", "units", "-c", "unit_idd"], "'unit_id'"),
    "no such column in SQL": (["query", "SELECT unit_idd FROM units", "FILE"], "'unit_id'"),
    "no SQL": (["query", "SELEC 1", "FILE"], "SELEC"),
    "no folder for the file": (["tables", "FILE", "-o", "no/such/folder/a.csv"], "no/such/folder"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_failures_are_reported_in_one_line(kind, cube, run, tmp_path):
    text = tmp_path / "text.nwb"
    text.write_text("not HDF5")
    arguments, said = FAILURES[kind]
    places = {"FILE": cube[0], "TEXT": text}
    code, out, err = run(*[places.get(one, one) for one in arguments])
    assert (code, out) == (1, b"")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("place", [0, -1])
def test_a_traceback_is_shown_on_request(place, cube, run):
    arguments = ["query", "SELEC 1", cube[0]]
    arguments.insert(place if place == 0 else len(arguments), "--debug")
    code, _, err = run(*arguments)
    assert code == 1
    assert "Traceback" in err


def test_bad_files_can_be_skipped(cube, run, tmp_path):
    bad = tmp_path / "bad.nwb"
    bad.write_text("not HDF5")
    code, out, err = run("tables", cube[0], bad, "--ignore-errors", "-f", "json")
    assert code == 0
    assert {row["files"] for row in json.loads(out)} == {1}
    assert err.startswith("warning: ")
    assert "bad.nwb" in err
    assert run("--quiet", "tables", cube[0], bad, "--ignore-errors")[2] == ""
    code, _, err = run("tables", cube[0], bad)
    assert code == 1
    assert "--ignore-errors" in err


def test_values_of_options_are_not_repeated(cube, run):
    code, _, err = run("tables", "s3://bucket/a.nwb", "--storage-option", "hunter2")
    assert code == 2
    assert "hunter2" not in err


def test_missing_packages_are_named_with_the_install_command(run, monkeypatch):
    monkeypatch.setattr("lazynwb.cli.entry_point.find_spec", lambda name: None if name == "typer" else True)
    code, out, err = run("--help")
    assert (code, out) == (1, b"")
    assert err == "lazynwb: the command line is an extra: pip install 'lazynwb[cli]'\n"


# --- pipes, Ctrl-C, terminals ---------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="needs EPIPE: run on Linux or macOS")
@pytest.mark.parametrize("form", ["csv", "json", "ndjson", "parquet", "arrow", "table"])
def test_a_closed_pipe_is_not_a_failure(form, cube, capfd, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with io.TextIOWrapper(os.fdopen(write, "wb")) as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert cli.main(["head", str(cube[0]), "units", "-f", form]) == 0
        monkeypatch.undo()
    assert "ipe" not in capfd.readouterr().err


def test_a_closed_pipe_is_not_an_error(cube):
    with in_process("query", "SELECT * FROM units", *cube * 3, "-f", "csv") as process:
        process.stdout.read(10)
        process.stdout.close()
        err = process.stderr.read()
        assert (process.wait(60), err) == (0, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT for another process: run on Linux or macOS")
@pytest.mark.parametrize("command", [["tables"], ["query", "SELECT * FROM units", "-o", "out.csv"]])
def test_ctrl_c_exits_without_a_traceback(command, cube, tmp_path):
    with RangeServer(cube[0].parent) as server:
        server.faults.append(always(SILENT))
        with in_process(*command, server.url_of(cube[0].name)) as process:
            deadline = time.monotonic() + 60
            while not server.log and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == (b"", b"")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT for another process: run on Linux or macOS")
@pytest.mark.parametrize("form", ["csv", "parquet", "ndjson"])
def test_ctrl_c_during_a_query_leaves_no_files(form, cube, tmp_path):
    """Polars continues the query on its threads; the process exits without waiting or aborting."""
    out = tmp_path / f"out.{form}"
    for seconds in (0.0, 0.1, 0.3):
        with in_process("query", "SELECT * FROM units", *cube * 300, "-o", out) as process:
            deadline = time.monotonic() + 60
            while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            assert (*process.communicate(timeout=60), process.returncode) == (b"", b"", 130)
        assert not list(tmp_path.iterdir())


@terminal
def test_output_fits_the_terminal(cube):
    for columns in sample((60, 100), 2):
        shown, code = on_terminal("head", cube[0], "units", "-n", 3, columns=columns)
        assert code == 0
        lines = plain(shown).splitlines()
        assert max(map(len, lines)) <= columns
        assert re.search(r"3 of 40 rows; \d+ of 14 columns fit", lines[-1])
        assert "\x1b[1m" in shown
    plainly, _ = on_terminal("head", cube[0], "units", "-n", 3, env={"NO_COLOR": "1"})
    assert "\x1b[3" not in plainly


@terminal
def test_a_narrow_terminal_shows_the_ends_of_sessions_and_names_hidden_columns(tmp_path):
    paths = write_cube(tmp_path, 2, 2)
    (sessions, tables), code = all_on_terminal([["sessions", *paths], ["tables", *paths]], columns=70)
    assert code == 0
    for path in paths:
        assert plain(sessions).count(path.stem[-5:]) >= 2  # of the file, and of the session
    assert "not shown:" in plain(tables).splitlines()[-1]


@terminal
@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.sample(2)
def test_vertically_every_column_of_a_row_fits_the_terminal(columns, cube):
    shown, code = on_terminal("head", cube[0], "units", "-n", 2, "--vertical", columns=columns)
    assert code == 0
    lines = plain(shown).splitlines()
    assert max(map(len, lines)) <= columns
    schema = lazynwb.get_table_schema(cube[0], "units")
    assert [line.rstrip() for line in lines if line.startswith("row ")] == ["row 1", "row 2"]
    names = [line.split()[0] for line in lines if line and line.split()[0] in schema]
    assert names[: len(schema)] == names[len(schema) :]
    assert sorted(names) == sorted([*schema] * 2)


def test_a_vertical_table_has_the_values_of_the_query(cube, answer):
    out = answer("query", "SELECT unit_id, location FROM units LIMIT 1", cube[0], "-x").decode()
    row = lazynwb.read_nwb(cube[0], "units").row(0, named=True)
    cells = [line.split() for line in out.splitlines()]
    assert ["unit_id", "str", row["unit_id"]] in cells
    assert ["location", "str", row["location"]] in cells


def test_vertical_sessions_have_every_column(cube, answer):
    out = answer("sessions", cube[0], cube[1], "--vertical").decode()
    names = [line.split()[0] for line in out.splitlines() if len(line.split()) > 2]
    expected = lazynwb.scan_sessions(cube[:2]).collect_schema()
    assert set(expected) <= set(names)
    assert out.count("session_start_time") == 2


@terminal
def test_binary_formats_are_not_written_to_a_terminal(cube):
    shown, code = on_terminal("head", cube[0], "units", "-f", "parquet")
    assert code == 2
    assert "cannot be written to a terminal" in plain(shown)


@pytest.fixture
def hostile(tmp_path):
    path = tmp_path / f"{NAME}.nwb"
    with h5py.File(path, "w") as file:
        nwb_root(file, HOSTILE)
        columns = {f"col {NAME}": [f"value {HOSTILE}"], "n": [1], "[bold]": ["[/bold]"]}
        table(file, f"intervals/name {NAME}", columns, kind=f"Type {HOSTILE}")
        series(file, "acquisition/\u202eseries\x1b[2J", np.arange(3.0), np.arange(3.0))
        table(file, "units", columns)
        file["units"]["n"].attrs["description"] = HOSTILE
    return path


HOSTILE_COMMANDS = {
    "paths": ["paths", "FILE", "--all"],
    "tree": ["tree", "FILE"],
    "tables": ["tables", "FILE"],
    "schema": ["schema", "FILE", "units"],
    "head": ["head", "FILE", "units"],
    "head as csv": ["head", "FILE", "units", "-f", "csv"],
    "head as json": ["-q", "head", "FILE", "units", "-f", "json"],
    "head as ndjson": ["head", "FILE", "units", "-f", "ndjson"],
    "query": ["query", "SELECT * FROM units", "FILE"],
    "demo": ["demo", "FILE"],
    "convert": ["convert", "FILE", "-o", "out"],
    "a traceback": ["--debug", "head", "FILE", NAME],
    "an error": ["head", "FILE", "nothing"],
}


@terminal
def test_text_of_files_cannot_control_the_terminal(hostile):
    commands = [[hostile if one == "FILE" else one for one in given] for given in HOSTILE_COMMANDS.values()]
    parts, code = all_on_terminal(commands, columns=400)
    assert code == 3
    for kind, shown in zip(HOSTILE_COMMANDS, parts, strict=True):
        text = plain(shown)
        assert not [c for c in text if not c.isprintable() and c != "\n"], kind
        assert "\x1b[31m" not in shown, kind
        assert "[bold]" in text, kind  # not taken for markup
        assert "\\x1b" in text or "\\u001b" in text, kind
        if kind == "head as json":
            assert json.loads(text) == lazynwb.read_nwb(hostile, "units").to_dicts()


def test_output_for_programs_is_not_escaped(hostile, answer):
    (row,) = json.loads(answer("head", hostile, "units", "-f", "json"))
    assert row[f"col {NAME}"] == f"value {HOSTILE}"


# --- start-up ---------------------------------------------------------------------------------------------


def imports_of(*arguments):
    """Run a command in a separate process; return its stdout and the imported modules."""
    process = in_process(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.decode(), {line.rpartition("|")[2].strip() for line in err.decode().splitlines()}


def test_the_version_needs_no_other_package():
    out, imported = imports_of("--version")
    assert out == f"lazynwb {lazynwb.__version__}\n"
    assert "lazynwb.config" in imported
    assert not {"polars", "numpy", "typer", "rich"} & imported


@pytest.mark.parametrize("arguments", [["--help"], ["head", "--help"], ["query", "-h"]])
@pytest.mark.sample(3)
def test_help_imports_no_slow_modules(arguments):
    _, imported = imports_of(*arguments)
    assert "lazynwb.cli.app" in imported
    assert not {"polars", "numpy", "msgspec", "h5py", "obstore", "pandas", "pyarrow", "nanoarrow"} & imported


@pytest.mark.parametrize("command", [[], ["head"], ["query"], ["tables"], ["convert"]])
def test_help_has_metavars_in_words(command, answer):
    text = answer(*command, "--help").decode()
    assert "--help" in text
    assert not re.search(r"<\w+|\bBOOL|list\[", text)


def test_calls_without_arguments_show_the_contents(run):
    code, out, err = run()
    assert code == 2
    assert "tables" in out.decode() + err


def test_completion_of_commands(cube):
    env = {"_LAZYNWB_COMPLETE": "complete_bash", "COMP_WORDS": "lazynwb ta", "COMP_CWORD": "1"}
    process = in_process(env=env)
    out, _ = process.communicate(timeout=60)
    assert out.split() == [b"tables"]


# -- lazynwb index ----------------------------------------------------------------------------------------


def test_an_index_is_built_described_and_updated(run, answer, tmp_path):
    folder = tmp_path / "data"
    first, second, third = write_cube(folder, sessions=3)
    kept = third.read_bytes()
    third.unlink()
    code, out, err = run("index", "build", folder, "-o", "here")
    assert (code, out) == (0, b"")
    assert "2 sessions in here" in err
    (said,) = json.loads(answer("index", "info", "here", "--format", "json"))
    assert (said["sessions"], said["with_problems"], said["generation"]) == (2, 0, 1)
    assert said["tables"] == lazynwb.scan_index("here", "tables").collect().height
    third.write_bytes(kept)
    second.unlink()
    code, _, err = run("index", "update", "here", third, first)
    assert code == 0
    assert "1 added, 0 changed, 1 removed; 2 sessions in here" in err
    units = lazynwb.read_nwb(None, "units", index="here")
    assert sorted(units["_nwb_path"].unique()) == sorted([str(first), str(third)])


def test_an_unreadable_file_is_a_warning_or_with_strict_an_error(run, tmp_path):
    write_cube(tmp_path / "data", sessions=1)
    (tmp_path / "data" / "broken.nwb").write_bytes(b"no file of this kind")
    code, _, err = run("index", "build", tmp_path / "data", "-o", "here")
    assert code == 0
    assert "not indexed" in err
    assert "broken.nwb" in err
    assert "1 file could not be read" in err
    code, _, err = run("index", "build", tmp_path / "data", "-o", "there", "--strict")
    assert code == 1
    assert "broken.nwb" in err
    code, _, err = run("index", "info", "nowhere")
    assert code != 0
    assert "nowhere" in err


def test_chunks_of_a_column_are_cached_on_request(run, answer, tmp_path):
    write_cube(tmp_path / "data", sessions=1)
    sizes = []
    for number, chunks in enumerate(([], ["--chunks", "spike_times"], ["--chunks", "all"])):
        assert run("index", "build", tmp_path / "data", "-o", f"i{number}", *chunks)[0] == 0
        sizes.append(json.loads(answer("index", "info", f"i{number}", "--format", "json"))[0]["bytes"])
    assert sizes[0] < sizes[1] < sizes[2]
