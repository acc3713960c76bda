"""Hostile contents and names cannot run code, read other files, control terminals or reveal secrets.

Beside what each module's own tests say of this: links in `test_objects.py`, trees in `test_tree.py`,
terminals in `test_cli.py`, web servers in `test_remote_faults.py`, names of files in `test_convert.py`.
"""

import base64
import json
import logging
import os
import pickle
import struct
import traceback
import zipfile

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import nwb_root, series, table
from checks import run_child
from lazynwb import cli
from lazynwb.errors import CorruptDataError, LazyNWBError, SourceNotFoundError, UnsupportedTypeError
from lazynwb.storage.source import Source
from range_server import RangeServer

# --- code -----------------------------------------------------------------------------------------------


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def write_json(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


STORED = ["pickled", "filled", "in_json", "in_msgpack", "no_codec", "imported", "typed", "fields"]


def hostile_store(root, mark, column):
    """A Zarr store with a column whose chunks, fill values and attributes are pickles and code."""
    code = pickle.dumps(Payload(mark))
    tags = {"python/object/apply": f"os.mkdir('{mark}')", "py/reduce": [{"py/type": "os.mkdir"}, [str(mark)]]}
    plain = {"zarr_format": 2, "shape": [1], "chunks": [1], "order": "C", "compressor": None, "filters": None}
    arrays = {
        "pickled": {"dtype": "|O", "fill_value": 0, "filters": [{"id": "pickle"}]},
        "filled": {
            "dtype": "|O",
            "fill_value": base64.b64encode(code).decode(),
            "filters": [{"id": "pickle"}],
        },
        "in_json": {"dtype": "|O", "fill_value": None, "filters": [{"id": "json2"}]},
        "in_msgpack": {"dtype": "|O", "fill_value": None, "filters": [{"id": "msgpack2"}]},
        "no_codec": {"dtype": "|O", "fill_value": None},
        "imported": {"dtype": "|O", "fill_value": None, "filters": [{"id": "os.mkdir", "path": str(mark)}]},
        "typed": {"dtype": f"__import__('os').mkdir('{mark}')", "fill_value": 0},
        "fields": {"dtype": [[f"__import__('os').mkdir('{mark}')", "<i8"]], "fill_value": None},
    }
    write_json(root / ".zgroup", {"zarr_format": 2})
    write_json(root / "t" / ".zgroup", {"zarr_format": 2})
    write_json(root / "t" / ".zattrs", {"colnames": [column], "neurodata_type": "DynamicTable", **tags})
    tagged = json.dumps(["!!python/object/apply:os.mkdir", "|O", [1]]).encode()
    chunks = {"in_json": tagged, "in_msgpack": b"\xc7" + struct.pack("<B", len(code) % 256) + b"\x2a" + code}
    for name, more in {column: arrays[column], "id": {"dtype": "<i8", "fill_value": 0}}.items():
        write_json(root / "t" / name / ".zarray", {**plain, **more})
        write_json(root / "t" / name / ".zattrs", tags)
        if name != "filled":
            (root / "t" / name / "0").write_bytes(bytes(8) if name == "id" else chunks.get(name, code))
    return root


def hostile_file(path, mark):
    """An HDF5 file of the same kind."""
    code = pickle.dumps(Payload(mark))
    call = f"__import__('os').mkdir('{mark}')"
    with h5py.File(path, "w") as file:
        nwb_root(file, call)
        group = table(file, "t", {"text": [call], call.replace("/", "\\"): [1]})
        group["bytes"] = np.frombuffer(code, "u1").reshape(1, -1)
        group.create_dataset("opaque", data=np.array([np.void(code)]))
        group["fixed"] = np.array([code], f"S{len(code)}")
        group.create_dataset(
            "objects", data=[code.decode("latin-1").replace("\0", "")], dtype=h5py.string_dtype()
        )
        group.attrs["code"] = call
        group.attrs["pickle"] = np.void(code)
        group["text"].attrs["pandas_type"] = "object"
        file[".specloc"] = call
    return ["text", "bytes", "opaque", "fixed", "objects"]


#: Whatever is unpickled, or run as a command, tells of itself.
EVERYTHING = """
import sys, lazynwb, polars as pl
columns, paths = sys.argv[1].split(","), sys.argv[2:]
watched = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.mkdir")
armed, seen = False, []
sys.addaudithook(lambda event, args: seen.append((event, args)) if armed and event in watched else None)
def told(work):
    try:
        return str(work())
    except (lazynwb.LazyNWBError, pl.exceptions.ColumnNotFoundError) as error:
        return str(error)
lazynwb.config.disable_cache = True  # it makes folders
for armed in (False, True):  # modules are imported the first time
    lazynwb.clear_cache()
    for path in paths:
        for column in columns:
            told(lambda: lazynwb.scan_nwb(path, "t").select(column).collect())
        told(lambda: lazynwb.get_attrs(path, "/t"))
        told(lambda: lazynwb.get_internal_paths(path, include_metadata=True, include_specifications=True))
        told(lambda: lazynwb.get_metadata_df(path))
        told(lambda: lazynwb.get_sql_context(path).execute("SELECT * FROM t", eager=True))
        session = lazynwb.LazyNWB(path)
        told(lambda: (repr(session), session._repr_html_(), session.describe()))
print(seen)
"""


def test_contents_of_files_are_never_executed(tmp_path):
    mark = tmp_path / "was run"
    paths = [hostile_store(tmp_path / f"{name}.zarr", mark, name) for name in STORED]
    columns = [*STORED, *hostile_file(tmp_path / "a.nwb", mark)]
    found = run_child(EVERYTHING, ",".join(columns), tmp_path / "a.nwb", *paths)
    assert found.splitlines()[-1] == "[]"
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))  # noqa: S301 - that it would have been seen
    assert mark.exists()


@pytest.mark.parametrize("name", ["pickled", "no_codec", "imported", "typed"])
def test_unsupported_objects_are_refused_by_name(tmp_path, name):
    hostile_store(tmp_path / "a.zarr", tmp_path / "mark", name)
    with pytest.raises(LazyNWBError, match=rf"a\.zarr.*{name}"):
        lazynwb.scan_nwb(tmp_path / "a.zarr", "t").select(name).collect()


def test_a_record_of_conversions_is_data(tmp_path):
    """A manifest of another user is not executed and cannot refer to files outside the output folder."""
    hostile_file(tmp_path / "a.nwb", tmp_path / "mark")
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (tmp_path / "mine.parquet").write_bytes(b"precious")
    lazynwb.convert_nwb_tables(tmp_path / "a.nwb", out / "deep", tables="session")
    record = out / "deep" / ".lazynwb-manifest"
    (file,) = (out / "deep").glob("*.parquet")
    text = record.read_text().replace(file.name, "../../mine.parquet")
    assert "mine" in text
    for content in (text.encode(), pickle.dumps(Payload(tmp_path / "mark"))):
        record.write_bytes(content)
        lazynwb.convert_nwb_tables(tmp_path / "a.nwb", out / "deep", tables="session")
    assert (tmp_path / "mine.parquet").read_bytes() == b"precious"
    assert not (tmp_path / "mark").exists()


# --- other files ----------------------------------------------------------------------------------------

HERE, THERE = np.arange(4) + 4242, np.arange(4) + 6666


def virtual(group, name, file, dataset):
    layout = h5py.VirtualLayout((4,), "i8")
    layout[:] = h5py.VirtualSource(str(file), dataset, (4,), "i8")
    group.create_virtual_dataset(name, layout, fillvalue=-1)


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """A file with other files in and outside of its folder, and another working directory."""
    folder, cwd = tmp_path / "data", tmp_path / "working"
    folder.mkdir()
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    for path, values in ((folder / "near", HERE), (tmp_path / "far", THERE), (cwd / "far", THERE)):
        path.with_suffix(".bin").write_bytes(values.astype("<i8").tobytes())
        with h5py.File(path.with_suffix(".h5"), "w") as file:
            file["x"] = values
            file["t/x"] = values
    with h5py.File(folder / "between.h5", "w") as file:
        file["out"] = h5py.ExternalLink("../far.h5", "/x")
        file["in"] = h5py.ExternalLink("near.h5", "/x")
        file["soft"] = h5py.SoftLink("/out")
        file.create_dataset("raw", (4,), "<i8", external=[(str(tmp_path / "far.bin"), 0, 32)])
        file.create_dataset("beside", (4,), "<i8", external=[("far.bin", 0, 32)])
        virtual(file, "virtual", "../far.h5", "x")
    path = folder / "a.nwb"
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"own": np.arange(4)})
        for name, where in {"raw": "far.bin", "near raw": "near.bin", "raw above": "../far.bin"}.items():
            group.create_dataset(name, (4,), "<i8", external=[(where, 0, 32)])
        file["hop"] = h5py.ExternalLink("../far.h5", "/x")
        sources = {
            "beside": ("near.h5", "x"),
            "through a near link": ("between.h5", "in"),
            "itself": (".", "t/own"),
            "nowhere": ("gone.h5", "x"),
            "in the working folder": ("far.h5", "x"),
            "in the working folder, absolute": (tmp_path / "data" / "far.h5", "x"),
            "above": ("../far.h5", "x"),
            "through itself": (".", "hop"),
            "through a link": ("between.h5", "out"),
            "through a soft link": ("between.h5", "soft"),
            "through raw data": ("between.h5", "raw"),
            "through raw data beside": ("between.h5", "beside"),
            "through another": ("between.h5", "virtual"),
            "by a pattern": ("../f%%ar.h5", "x"),
        }
        for name, (where, dataset) in sources.items():
            virtual(group, name, where, dataset)
        group["soft"] = h5py.SoftLink("/hop")
    return path


ALLOWED = {
    "near raw": HERE,
    "beside": HERE,
    "through a near link": HERE,
    "itself": np.arange(4),
    "nowhere": -1,
}
FORBIDDEN = [
    "raw above", "in the working folder", "in the working folder, absolute", "above", "through itself",
    "through a link", "through a soft link", "through raw data", "through raw data beside", "through another",
    "by a pattern",
]  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_external_data_in_the_same_folder_is_read(linked, name):
    expected = np.broadcast_to(ALLOWED[name], 4).tolist()
    assert lazynwb.scan_nwb(linked, "t").select(name).collect().to_series().to_list() == expected


@pytest.mark.parametrize("name", FORBIDDEN)
def test_no_dataset_reads_files_outside_of_the_folder(linked, name):
    """Neither by file names, nor by links in those files, nor by libhdf5's search of the working folder."""
    frame = lazynwb.scan_nwb(linked, "t").select(name)
    with pytest.raises(UnsupportedTypeError, match=r"a\.nwb.*data (in|behind)"):
        frame.collect()


def test_external_data_is_only_read_from_the_folder_of_the_file(linked):
    frame = lazynwb.scan_nwb(linked, "t").select("raw")
    with pytest.raises(CorruptDataError, match="unable to open external raw data file"):
        frame.collect()
    (linked.parent / "far.bin").write_bytes(HERE.astype("<i8").tobytes())
    assert frame.collect().to_series().to_list() == HERE.tolist()


def test_links_out_of_the_folder_are_not_columns(linked):
    assert "soft" not in lazynwb.scan_nwb(linked, "t").collect_schema()


def test_external_links_are_read_if_the_settings_allow_it(linked):
    lazynwb.config.external_links = "anywhere"
    for name in ("raw above", "above", "through itself", "through a link", "soft"):
        found = lazynwb.scan_nwb(linked, "t").select(name).collect().to_series()
        assert found.to_list() == THERE.tolist(), name


def test_external_files_are_only_read_with_permission(linked):
    lazynwb.config.external_links = "never"
    assert lazynwb.scan_nwb(linked, "t").select("itself").collect().to_series().to_list() == [0, 1, 2, 3]
    for name in ("near raw", "beside", "through a near link"):
        with pytest.raises(UnsupportedTypeError, match="never"):
            lazynwb.scan_nwb(linked, "t").select(name).collect()


@pytest.mark.parametrize("locking", [True, False])
def test_a_virtual_dataset_of_a_file_that_is_open_otherwise(linked, locking):
    """libhdf5 would read the open file in place of the source."""
    with h5py.File(linked, locking=locking):
        assert lazynwb.scan_nwb(linked, "t").select("own").collect().to_series().to_list() == [0, 1, 2, 3]
        frame = lazynwb.scan_nwb(linked, "t").select("beside")
        try:
            assert frame.collect().to_series().to_list() == HERE.tolist()
        except UnsupportedTypeError as error:
            assert "open otherwise" in str(error)  # noqa: PT017 - either will do, other values will not


def test_forbidden_external_storage_of_metadata_is_not_read(linked):
    with h5py.File(linked, "a") as file:
        group = series(file, "acquisition/s", np.arange(4.0))
        start = group.create_dataset("starting_time", (1,), "<f8", external=[("../far.bin", 0, 8)])
        start.attrs["rate"] = 1.0
        file.create_dataset("session_id", (1,), "<i8", external=[("../far.bin", 0, 8)])
    lazynwb.clear_cache()
    assert "timestamps" not in lazynwb.read_nwb(linked, "acquisition/s").columns
    described = lazynwb.get_metadata_df(linked, as_polars=True).to_dicts()
    assert str(THERE[0]) not in str(described)
    assert lazynwb.get_timeseries(linked, "s").rate is None
    lazynwb.config.external_links = "anywhere"
    stolen = float(THERE[:1].astype("<i8").view("<f8")[0])
    assert lazynwb.read_nwb(linked, "acquisition/s")["timestamps"].to_list() == [stolen + k for k in range(4)]


def test_a_remote_file_reads_no_file_of_this_machine(linked, tmp_path):
    """libhdf5 would follow links within the sources of a virtual dataset, regardless of the settings."""
    lazynwb.config.external_links = "anywhere"
    with h5py.File(linked, "a") as file:
        file["local"] = h5py.ExternalLink(str(tmp_path / "far.h5"), "/x")
        virtual(file["t"], "over a link", ".", "local")
    with RangeServer(linked.parent) as server:
        frame = lazynwb.scan_nwb(f"{server.url}/a.nwb", "t")
        assert frame.select("itself").collect().to_series().to_list() == [0, 1, 2, 3]
        for name in ("raw", "raw above", "above", "in the working folder", "over a link", "through itself"):
            with pytest.raises(LazyNWBError):
                frame.select(name).collect()


# --- terminals ------------------------------------------------------------------------------------------

#: Steers a terminal, turns text around, and ends a line that is not meant to.
STEERS = "\x1b[2J\x1b]0;title\x07\x9b31m\u202egnp\x7f\u2028"


def assert_harmless(*texts):
    for text in texts:
        assert not [c for c in text if not c.isprintable() and c not in "\n\t"], repr(text)


@pytest.fixture
def steering(tmp_path):
    path = tmp_path / f"a {STEERS}.nwb"
    with h5py.File(path, "w") as file:
        nwb_root(file, STEERS)
        group = table(file, f"intervals/{STEERS}", {f"c {STEERS}": [STEERS], "n": [1]})
        group["n"].attrs["unit"] = STEERS
        group.attrs["colnames"] = [f"c {STEERS}", "n", f"absent {STEERS}"]
        series(file, f"acquisition/{STEERS}", np.arange(3.0), np.arange(3.0))
    return path


def test_errors_and_log_messages_are_harmless(steering, caplog):
    asked = [
        lambda: lazynwb.read_nwb(steering, f"no {STEERS}"),
        lambda: lazynwb.read_nwb(f"{steering}{STEERS}", "units"),
        lambda: lazynwb.get_timeseries(steering, f"no {STEERS}"),
        lambda: lazynwb.get_attrs(steering, f"/{STEERS}/x"),
        lambda: lazynwb.read_nwb(steering, f"intervals/{STEERS}", session_columns=[STEERS]),
    ]
    for ask in asked:
        with pytest.raises(LazyNWBError) as raised:
            ask()
        assert_harmless(str(raised.value), *traceback.format_exception_only(raised.value))
        assert "\\x1b" in str(raised.value)
    lazynwb.read_nwb(steering, f"intervals/{STEERS}")
    assert "\\x1b" in caplog.text
    assert_harmless(caplog.text)


def test_representations_are_harmless(steering):
    name = f"acquisition/{STEERS}"
    series_ = lazynwb.get_timeseries(steering, name)
    session = lazynwb.LazyNWB(steering)
    paths = lazynwb.get_internal_paths(steering)
    with lazynwb.profile() as cost:
        scan = lazynwb.scan_nwb(steering, f"intervals/{STEERS}")
        scan.select("n").collect()
    assert_harmless(repr(series_), repr(series_.data), repr(session), *map(repr, paths.values()), repr(cost))


def test_a_traceback_of_the_command_line_is_harmless(steering, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["--debug", "head", str(steering), f"no {STEERS}"]) == 3
    query = f'SELECT "{STEERS}" FROM session'  # noqa: S608 - a name
    assert cli.main(["--debug", "query", query, str(steering)]) == 1
    told = capsys.readouterr()
    assert told.err.count("Traceback") >= 2
    assert_harmless(told.err, told.out)


# --- SQL ------------------------------------------------------------------------------------------------

NAMES = [
    'a"b', "a'b", "a;b", "a.b", "select", "SELECT 1; DROP TABLE units; --", '"; DROP TABLE "units', "*",
    "^.*$", "with space", "\u0443nits",
    "Units", "unit\u0455", "0", "x" * 300, "`a`", "a\\b", "$1", "?", "{x}", "%s",
]  # fmt: skip


def identifier(name):
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture
def named(tmp_path):
    """A table of each name, with a column of each name, and the units."""
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        nwb_root(file)
        table(file, "units", {"n": [-1]})
        for number, name in enumerate(NAMES):
            table(file, f"intervals/{name}", {name: [number], "other": [STEERS.replace("\x07", "")]})
    return path


def test_every_name_is_an_identifier_in_sql(named):
    context = lazynwb.get_sql_context(named, ignore_errors=False)
    for number, name in enumerate(NAMES):
        if name in {"*", "^.*$"}:  # Polars' SQL takes names of columns for patterns, in quotes too
            assert context.execute(f"SELECT other FROM {identifier(name)}", eager=True).height == 1  # noqa: S608
            continue
        quoted = identifier(name)
        query = f"SELECT {quoted} FROM {quoted} WHERE {quoted} = {number}"  # noqa: S608 - quoted
        assert context.execute(query, eager=True).rows() == [(number,)], name
        found = context.execute(f"SELECT * FROM {quoted}", eager=True)  # noqa: S608
        assert found[name].to_list() == [number], name
    assert context.execute("SELECT n FROM units", eager=True).item() == -1


def test_every_name_is_an_identifier_in_duckdb(named, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    written = lazynwb.convert_nwb_tables(named, tmp_path / "out", output_format="duckdb", ignore_errors=False)
    (database,) = (tmp_path / "out").glob("*.duckdb")
    with duckdb.connect(str(database), read_only=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        found = {}
        for name in tables:
            done = connection.execute(f"SELECT * FROM {identifier(name)}")  # noqa: S608
            row = dict(zip((column for column, *_ in done.description), done.fetchone(), strict=True))
            if row["_table_path"].startswith("intervals/"):
                found[row["_table_path"].removeprefix("intervals/")] = row
        assert {name: found[name][name] for name in NAMES} == {name: k for k, name in enumerate(NAMES)}
        assert len(tables) == len(written) == len(NAMES) + 3


def test_formulas_are_text(tmp_path):
    """In Excel; CSV has no types, so spreadsheets may interpret cells."""
    pytest.importorskip("xlsxwriter")
    formulas = [
        "=1+1",
        '=HYPERLINK("http://evil.test","x")',
        "+1",
        "-1+1",
        "@SUM(1)",
        "http://evil.test",
        "\t=1",
    ]
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        nwb_root(file)
        table(file, "t", {"=1+2": formulas})
    for form in ("excel", "csv"):
        lazynwb.convert_nwb_tables(tmp_path / "a.nwb", tmp_path / "out", output_format=form, tables="t")
    (book,) = (tmp_path / "out").glob("*.xlsx")
    with zipfile.ZipFile(book) as archive:
        for name in archive.namelist():
            text = archive.read(name).decode(errors="replace")
            assert "<f>" not in text, name
            assert "<hyperlink" not in text, name
    assert pl.read_csv(tmp_path / "out" / "t.csv")["=1+2"].to_list() == formulas


# --- secrets --------------------------------------------------------------------------------------------

SECRET = "hunter2/Zz+9=="  # noqa: S105 - planted
SHOWN = (SECRET, SECRET.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D"), "hunter2")
CLOSED = "http://127.0.0.1:9"
KEY = base64.b64encode(b"hunter2" * 6).decode()
STORES = {
    "keys": ("s3://bucket/a.nwb", {"key": "AK", "secret": SECRET, "token": SECRET, "endpoint": CLOSED}),
    "a password in the URL": (f"s3://AK:{SECRET}@bucket/a.nwb", {"endpoint": CLOSED, "region": "r"}),
    "a token of Google's": ("gs://bucket/a.nwb", {"token": SECRET, "base_url": CLOSED}),
    "a SAS": ("az://c/a.nwb", {"account_name": "x", "sas_token": f"sv=1&sig={SECRET}", "endpoint": CLOSED}),
    "an account's key": ("abfs://c@x.dfs.core.windows.net/a.nwb", {"account_key": KEY, "endpoint": CLOSED}),
    "a connection string": (
        "az://c/a.nwb",
        {"connection_string": f"AccountName=x;AccountKey={KEY};BlobEndpoint={CLOSED}/x"},
    ),
    "a signed URL": (f"{CLOSED}/a.nwb?X-Amz-Credential=AK&X-Amz-Signature={SECRET}&sig={SECRET}", {}),
    "a login": (f"http://user:{SECRET.replace('/', '')}@127.0.0.1:9/a.nwb", {}),
    "headers": (f"{CLOSED}/a.nwb", {"headers": {"Authorization": f"Bearer {SECRET}", "Cookie": SECRET}}),
    "fsspec's": (f"{CLOSED}/a.nwb", {"client_kwargs": {"headers": {"X-Token": SECRET}}}),
    "chained": (f"simplecache::{CLOSED}/a.nwb?token={SECRET}", {}),
    "an unknown scheme": (f"ftp://user:{SECRET.replace('/', '')}@h/a.nwb", {}),
}


def assert_silent(*texts):
    for text in map(str, texts):
        assert not [shown for shown in (*SHOWN, KEY) if shown in text], text


@pytest.fixture
def silence(caplog, recwarn, cache_dir, capfd):
    """Assert that no secret is logged, warned of, printed or written in a test."""
    caplog.set_level(logging.DEBUG)
    lazynwb.config.max_retries, lazynwb.config.request_timeout = 0, 0.5
    yield
    logged = [record.getMessage() for record in caplog.get_records("call")]
    assert_silent(*logged, *(warning.message for warning in recwarn), *capfd.readouterr())
    for path in cache_dir.rglob("*"):
        assert_silent(path, path.read_bytes().decode("latin-1") if path.is_file() else "")


def told_by(work):
    """Return the text of an error, its causes and its traceback."""
    with pytest.raises(LazyNWBError) as raised:
        work()
    error = raised.value
    texts = traceback.format_exception(error)
    while error is not None:
        texts += [str(error), repr(error), str(error.args), str(vars(error))]
        error = error.__cause__ or error.__context__
    return texts


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("how", ["given", "config", "command"])
@pytest.mark.sample(3)
def test_stores_do_not_reveal_credentials(kind, how, capfd, monkeypatch, tmp_path):
    url, options = STORES[kind]
    monkeypatch.chdir(tmp_path)
    if how == "config":
        lazynwb.config.storage_options = options
        assert_silent(repr(lazynwb.config))
        options = {}
    if how == "command":
        plain = all(isinstance(value, str) for value in options.values())
        given = [part for name, value in options.items() for part in ("--storage-option", f"{name}={value}")]
        for command in (
            ["tables"],
            ["--debug", "schema"],
            ["paths"],
            ["head"],
            ["query", "SELECT * FROM units"],
        ):
            last = ["units"] if command[-1] in {"schema", "head"} else []
            assert cli.main([*command, url, *last, *(given if plain else [])]) != 0
        told = capfd.readouterr()
        assert_silent(told.out, told.err)
        assert "lazynwb: " in told.err
        return
    for work in (
        lambda: lazynwb.scan_nwb(url, "units", storage_options=options),
        lambda: lazynwb.get_sql_context(url, storage_options=options, ignore_errors=False),
        lambda: lazynwb.LazyNWB(url, storage_options=options).describe(),
        lambda: lazynwb.convert_nwb_tables(url, tmp_path, storage_options=options),
    ):
        assert_silent(*told_by(work))
    assert_silent(*map(str, tmp_path.rglob("*")))


def test_options_of_an_fsspec_path_apply_to_that_path_only(silence):
    upath = pytest.importorskip("upath")
    pytest.importorskip("s3fs")
    path = upath.UPath("s3://bucket/a.nwb", key="AK", secret=SECRET, endpoint_url=CLOSED)
    assert_silent(*told_by(lambda: lazynwb.scan_nwb(path, "units")))


def test_credentials_of_the_environment(silence, monkeypatch):
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "GOOGLE_BEARER_TOKEN",
        "AZURE_STORAGE_SAS_TOKEN",
    ):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "x")
    endpoints = {"s3://b/a.nwb": "endpoint", "gs://b/a.nwb": "base_url", "az://b/a.nwb": "endpoint"}
    for url, endpoint in endpoints.items():
        assert_silent(*told_by(lambda: lazynwb.scan_nwb(url, "t", storage_options={endpoint: CLOSED})))  # noqa: B023


def test_an_environment_variable_that_is_not_json(monkeypatch):
    monkeypatch.setenv("LAZYNWB_STORAGE_OPTIONS", f'{{"secret": "{SECRET}"')
    with pytest.raises(ValueError, match="LAZYNWB_STORAGE_OPTIONS") as raised:
        type(lazynwb.config)()
    assert_silent(str(raised.value), *traceback.format_exception_only(raised.value))


def test_a_readable_file_reveals_no_other_data(cube, silence, capfd, tmp_path, monkeypatch):
    """Sessions, their parts, series, frames, profiles and terminal output."""
    monkeypatch.chdir(tmp_path)
    options = {"headers": {"Authorization": f"Bearer {SECRET}"}}
    with RangeServer(cube[0].parent) as server:
        url = f"{server.url_of(cube[0].name)}?token={SECRET}"
        session = lazynwb.LazyNWB(url, storage_options=options)
        ts = lazynwb.get_timeseries(url, "running_speed", storage_options=options)
        with lazynwb.profile() as cost:
            scan = lazynwb.scan_nwb(url, "units", storage_options=options)
            assert scan.select(pl.len()).collect().item() == 40
        assert_silent(
            *(
                repr(one)
                for one in (session, session.subject, session.units, ts, ts.data, cost, scan, cost.queries)
            ),
            *(one._repr_html_() for one in (session, session.acquisition, session.subject)),
            *(scan.explain(), str(cost), Source(url), repr(session.__reduce__()[0])),
        )
        assert cli.main(["head", url, "units", "-n", "2"]) == 0
        assert cli.main(["tables", url]) == 0
        assert cli.main(["tree", url]) == 0
        told = capfd.readouterr()
        assert "***" in told.out
        assert_silent(told.out, told.err)


def test_names_of_containers_are_not_masked():
    assert Source("abfs://c@x.dfs.core.windows.net/a.nwb").name == "abfs://c@x.dfs.core.windows.net/a.nwb"
    assert Source("s3://AK:pass@b/a.nwb").name == "s3://***@b/a.nwb"
    with pytest.raises(SourceNotFoundError):
        lazynwb.scan_nwb("/nowhere/a:b@c.nwb", "t")
