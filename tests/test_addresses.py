"""Paths, URLs and web addresses: the sources that they stand for, and errors for unreadable ones."""

import io
import json
import re
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import nwb_root, series, table
from dandi_server import DandiServer
from lazynwb.cli import main
from lazynwb.errors import (
    LazyNWBError,
    NotNWBError,
    SourceChangedError,
    SourceNotFoundError,
    TableNotFoundError,
)
from lazynwb.storage import remote_state
from lazynwb.storage.dandi.web_addresses import ApiAsset, translate
from lazynwb.storage.resolve import expand, resolve
from lazynwb.storage.stores.bucket_urls import bucket_url
from range_server import RangeServer, always, redirect, refuse
from test_zarr import write_lindi_archive
from zarr_stores import Writer

ROWS = 3
ASSET = "0b2f3c4d-0000-4000-8000-000000000000"
API = "https://api.dandiarchive.org/api"


def zarr_documents():
    documents = {
        ".zgroup": {"zarr_format": 2},
        ".zattrs": {"neurodata_type": "NWBFile", "namespace": "core", "nwb_version": "2.8.0"},
        "units/.zgroup": {"zarr_format": 2},
        "units/.zattrs": {"neurodata_type": "Units", "colnames": ["rate"]},
    }
    for name in ("id", "rate"):
        documents[f"units/{name}/.zattrs"] = {}
        documents[f"units/{name}/.zarray"] = {
            "chunks": [ROWS],
            "compressor": None,
            "dtype": "<i8",
            "fill_value": 0,
            "filters": None,
            "order": "C",
            "shape": [ROWS],
            "zarr_format": 2,
        }
    return documents


def zarr_objects(*, consolidated=True):
    documents = zarr_documents()
    objects = {key: json.dumps(document).encode() for key, document in documents.items()}
    if consolidated:
        whole = {"zarr_consolidated_format": 1, "metadata": documents}
        objects[".zmetadata"] = json.dumps(whole).encode()
    return objects | {f"units/{name}/0": np.arange(ROWS).tobytes() for name in ("id", "rate")}


def write_store(folder, **options):
    for key, data in zarr_objects(**options).items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    return folder


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        nwb_root(file)
        table(file, "units", {"id": np.arange(ROWS), "rate": np.arange(ROWS)}, kind="Units")
    return path


def hdf5_bytes():
    content = io.BytesIO()
    write_hdf5(content)
    return content.getvalue()


def read(source, **options):
    return lazynwb.scan_nwb(source, "/units", **options).select("rate").collect()["rate"].to_list()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    remote_state.forget()
    with RangeServer() as running:
        yield running
    remote_state.forget()


@pytest.fixture
def hdf5(tmp_path):
    return write_hdf5(tmp_path / "a.nwb").read_bytes()


# -- the DANDI archive, and sites that show its files -----------------------------------------------------


@pytest.mark.parametrize("ending", ["", "/", "/download", "/download/"])
def test_urls_of_assets(ending):
    wanted = ApiAsset(f"{API}/assets/{ASSET}/download/", ASSET, "", "")
    assert translate(f"{API}/assets/{ASSET}{ending}") == wanted
    of_draft = f"{API}/dandisets/000363/versions/draft/assets/{ASSET}{ending}"
    assert translate(of_draft) == wanted._replace(dandiset="000363", version="draft")


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("https://dandiarchive.org/dandiset/000363", "dandi://000363/"),
        ("https://dandiarchive.org/dandiset/000363/draft", "dandi://000363/draft/"),
        ("https://dandiarchive.org/dandiset/000363/0.231012.2129/files", "dandi://000363/0.231012.2129/"),
        (
            "https://dandiarchive.org/dandiset/000363/draft/files?location=sub-1%2Fses%20a&page=2",
            "dandi://000363/draft/sub-1/ses a",
        ),
        (
            "https://gui.dandiarchive.org/#/dandiset/000363/draft/files?location=sub-1%2F",
            "dandi://000363/draft/sub-1",
        ),
        ("https://identifiers.org/DANDI:000363/0.231012.2129", "dandi://000363/0.231012.2129/"),
        ("DANDI:000363", "dandi://000363/"),
        ("DANDI:000363/0.231012.2129", "dandi://000363/0.231012.2129/"),
        (f"{API}/dandisets/000363/", "dandi://000363/"),
        (f"{API}/dandisets/000363/versions/draft/", "dandi://000363/draft/"),
        (
            "https://neurosift.app/?p=/dandiset&dandisetId=000363&dandisetVersion=draft",
            "dandi://000363/draft/",
        ),
        ("https://neurosift.app/dandiset/000363", "dandi://000363/"),
        (
            "https://neurosift.app/nwb?url=https%3A%2F%2Flab.org%2Fa.nwb&dandisetId=000363",
            "https://lab.org/a.nwb",
        ),
        (
            f"https://flatironinstitute.github.io/neurosift/?p=/nwb&url={API}/assets/{ASSET}/download/",
            ApiAsset(f"{API}/assets/{ASSET}/download/", ASSET, "", ""),
        ),
    ],
)
def test_web_pages_are_translated_to_their_sources(address, wanted):
    assert translate(address) == wanted


@pytest.mark.parametrize(
    "address",
    [
        "https://dandiarchive.s3.amazonaws.com/blobs/0b2/f3c/0b2f3c4d-0000-4000-8000-000000000000",
        f"https://lab.org/api/assets/{ASSET}/download/",
        "https://dandiarchive.org/about",
        "s3://bucket/dandiset/000363",
        "https://[half/dandiset/000363",
        "/data/DANDI:000363.nwb",
    ],
)
def test_other_addresses_are_unchanged(address):
    assert translate(address) == address


@pytest.fixture
def archive(server):
    with DandiServer(server.url) as running:
        lazynwb.config.dandi_api_url = running.url
        yield running


def _publish(archive, server, name, hdf5):
    """Publish a file or a Zarr store as an asset, which can be downloaded."""
    [asset] = archive.publish("000363", "draft", [name]).values()
    contents = {"": hdf5} if name.endswith(".nwb") else zarr_objects()
    server.objects.update({f"{asset.key}{key}": data for key, data in contents.items()})
    server.faults.append(always(redirect(archive.url_of(asset)), f"api/assets/{asset.asset_id}/download"))
    return asset


@pytest.mark.parametrize("name", ["sub-1/a.nwb", "sub-1/a.nwb.zarr"])
@pytest.mark.parametrize("ending", ["", "/", "/download/"])
def test_all_urls_of_an_asset_are_equivalent(name, ending, archive, server, hdf5):
    asset = _publish(archive, server, name, hdf5)
    url = f"{archive.url}/dandisets/000363/versions/draft/assets/{asset.asset_id}{ending}"
    assert read(url) == [0, 1, 2]
    assert [source.path for source in expand(url)] == [f"dandi://000363/draft/{name}"]
    assert read([f"{archive.url}/assets/{asset.asset_id}{ending}"]) == [0, 1, 2]


#: How the units of one source are read, or how many there are.
ENTRIES = {
    "scan": lambda url, _: read(url),
    "pattern": lambda url, _: lazynwb.read_nwb(url, "/unit*")["rate"].to_list(),
    "get_df": lambda url, _: lazynwb.get_df(url, "units", as_polars=True)["rate"].to_list(),
    "session": lambda url, _: lazynwb.LazyNWB(url).units["rate"].to_list(),
    "schema": lambda url, _: [0, 1, 2] * ("rate" in lazynwb.get_table_schema(url, "units")),
    "tables": lambda url, _: [0, 1, 2] * ("/units" in " ".join(lazynwb.get_internal_paths(url))),
    "metadata": lambda url, _: [0, 1, 2] * (lazynwb.get_metadata_df(url, as_polars=True).height == 1),
    "sessions": lambda url, _: [*range(lazynwb.scan_sessions(url).collect()["n_units"].item())],
    "SQL": lambda url, _: (
        lazynwb.get_sql_context(url).execute("SELECT rate FROM units", eager=True)["rate"].to_list()
    ),
    "executor": lambda url, _: read(url, executor=ThreadPoolExecutor(2)),
    "index": lambda url, folder: read(None, index=_index(url, folder)),
    "values of an index": lambda url, folder: read(None, index=_index(url, folder, values=True)),
    "conversion": lambda url, folder: pl.read_parquet(
        lazynwb.convert_nwb_tables(url, folder, tables="units")["/units"]
    )["rate"].to_list(),
}


@pytest.mark.parametrize("way", ENTRIES)
@pytest.mark.sample(3)
def test_every_entry_point_takes_every_web_address(way, archive, server, hdf5, tmp_path):
    """A file for every other entry point, and a Zarr store."""
    name = "sub-1/a.nwb" + ".zarr" * ([*ENTRIES].index(way) % 2)
    asset = _publish(archive, server, name, hdf5)
    download = f"{archive.url}/assets/{asset.asset_id}/download/"
    for number, url in enumerate(
        (
            download,
            f"https://neurosift.app/nwb?url={download}&dandisetId=000363",
            "https://dandiarchive.org/dandiset/000363/draft/files?location=sub-1",
            "DANDI:000363/draft",
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert ENTRIES[way](url, folder) == [0, 1, 2], url


def test_many_urls_of_assets_are_looked_up_together(archive):
    assets = archive.publish("000363", "draft", [f"sub-1/{i}.nwb" for i in range(50)])
    urls = [
        f"{archive.url}/dandisets/000363/versions/draft/assets/{asset.asset_id}/download/"
        for asset in assets.values()
    ]
    assert [source.path for source in expand(urls)] == [f"dandi://000363/draft/{path}" for path in assets]
    assert len(archive.log) < 10


@pytest.mark.parametrize("ending", ["download", "download/"])
def test_a_download_that_redirects(ending, server, hdf5):
    server.objects["blobs/b"] = hdf5
    server.faults.append(always(redirect("/blobs/b?sig=1"), f"api/assets/{ASSET}/{ending}"))
    url = f"{server.url}/api/assets/{ASSET}/{ending}"
    assert read(url) == [0, 1, 2]
    assert len(lazynwb.LazyNWB(url).units) == ROWS
    assert lazynwb.get_sql_context(url).execute("SELECT rate FROM units").collect().height == ROWS


# -- buckets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://b.s3.amazonaws.com/x/y/", "s3://b/x/y/"),
        ("https://b.c.s3.us-west-2.amazonaws.com/x%20y/", "s3://b.c/x y/"),
        ("https://s3.amazonaws.com/b/x/", "s3://b/x/"),
        ("https://s3-eu-west-1.amazonaws.com/b/x/", "s3://b/x/"),
        ("https://us-west-2.console.aws.amazon.com/s3/buckets/b?prefix=x/", "s3://b/x/"),
        ("https://storage.googleapis.com/b/x/", "gs://b/x/"),
        ("https://b.storage.googleapis.com/x/", "gs://b/x/"),
        ("https://acc.blob.core.windows.net/c/x/", "abfss://c@acc.dfs.core.windows.net/x/"),
        ("https://b.s3.amazonaws.com/x/?X-Amz-Signature=a", None),
        ("https://lab.org/s3.amazonaws.com/x/", None),
    ],
)
def test_https_urls_of_buckets(url, wanted):
    assert bucket_url(url) == wanted


# -- Zarr stores of any name ------------------------------------------------------------------------------

NAMES = ["nwb/ecephys.nwb", "zarr/ccefbc9f-30e7-4000-8000-0123456789ab", "plain", "a.nwb.zarr"]


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.servers
@pytest.mark.sample(4)
def test_a_store_of_any_name_on_a_web_server(name, slash, consolidated, server):
    server.objects.update({f"{name}/{k}": v for k, v in zarr_objects(consolidated=consolidated).items()})
    url = f"{server.url}/{name}{slash}"
    assert read(url) == [0, 1, 2]
    assert lazynwb.read_nwb(url, "/units")["_nwb_path"].unique().to_list() == [url]
    remote_state.forget()
    assert read(url) == [0, 1, 2]  # from the catalog
    assert set(lazynwb.get_internal_path_info(url)) >= {"/units"}


@pytest.mark.parametrize("version", [2, 3])
def test_a_store_without_listing_and_consolidated_metadata_is_reported(version, server, tmp_path, caplog):
    """All objects are found by full path; listings and lookups by name may be incomplete."""
    writer = Writer(version, [])
    writer.group("", neurodata_type="NWBFile")
    for name in ("acquisition", "processing", "processing/mine"):
        writer.group(name)
    writer.group("processing/mine/lick_rate", neurodata_type="TimeSeries")
    writer.array("processing/mine/lick_rate/data", np.arange(4.0), (2,))
    writer.array("processing/mine/lick_rate/timestamps", np.arange(4.0), (2,))
    server.objects.update({f"{version}.zarr/{key}": data for key, data in writer.objects.items()})
    url = f"{server.url}/{version}.zarr"
    path = "/processing/mine/lick_rate"
    assert lazynwb.scan_nwb(url, path).collect()["data"].to_list() == [0, 1, 2, 3]
    assert lazynwb.get_timeseries(url, path).between(1, 3).shape == (2,)
    assert not caplog.records
    remedy = r"not consolidated: .*consolidate_metadata, or pass the full paths"
    calls = [
        lambda: lazynwb.scan_nwb(url, "lick_rate").collect(),
        lambda: lazynwb.scan_nwb(url, "/processing/**").collect(),
        lambda: lazynwb.get_df(url, "lick_rate"),
        lambda: lazynwb.get_sql_context(url),
        lambda: lazynwb.get_timeseries(url, "lick_rate"),
    ]
    for call in calls:
        with pytest.raises(TableNotFoundError, match=f"{version}.zarr.*{remedy}"):
            call()
    lazynwb.get_internal_paths(url)
    (warning,) = [record.getMessage() for record in caplog.records if url in record.getMessage()]
    assert re.search(remedy, warning)
    lazynwb.build_index(url, tmp_path / "index")
    assert re.search(remedy, lazynwb.scan_index(tmp_path / "index").collect()["problem"].item())
    assert lazynwb.scan_nwb(None, path, index=tmp_path / "index").collect()["data"].to_list() == [0, 1, 2, 3]
    writer.consolidate()
    server.objects.update({f"c{version}.zarr/{key}": data for key, data in writer.objects.items()})
    assert lazynwb.scan_nwb(f"{server.url}/c{version}.zarr", "lick_rate").collect().height == 4


@pytest.fixture(params=["s3", "gcs", "azure"])
def cloud(request):
    return request.getfixturevalue(request.param)


@pytest.mark.long
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.sample(3)
@pytest.mark.servers
def test_a_store_of_any_name_in_a_bucket(name, slash, cloud):
    for key, data in zarr_objects().items():
        cloud.put(f"private/any/{name}/{key}", data)
    options = {"storage_options": cloud.options}
    assert read(f"{cloud.scheme}://private/any/{name}{slash}", **options) == [0, 1, 2]
    found = lazynwb.read_nwb(f"{cloud.scheme}://private/any/{name}{slash}", "/units", **options)["_nwb_path"]
    assert read(found.unique().to_list(), **options) == [0, 1, 2]


def test_a_pattern_in_a_bucket_finds_stores_of_any_name(cloud):
    for name in ("c1", "c2.nwb"):
        for key, data in zarr_objects().items():
            cloud.put(f"private/patterns/{name}/{key}", data)
    assert read(f"{cloud.scheme}://private/patterns/c*", storage_options=cloud.options) == [0, 1, 2] * 2


@pytest.mark.servers
def test_every_kind_is_found_in_a_bucket(cloud, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for key, data in zarr_objects().items():
            archive.writestr(key, data)
    refs = {key: data.decode("latin-1") for key, data in zarr_objects().items()}
    files = {"a.nwb": hdf5_bytes(), "b.nwb.zarr.zip": packed.getvalue()}
    files["c.nwb.lindi.json"] = json.dumps({"refs": refs}).encode()
    files["d.lindi.tar"] = write_lindi_archive(tmp_path / "d.lindi.tar", {"refs": refs}, {}).read_bytes()
    files |= {f"e.nwb.zarr/{key}": data for key, data in zarr_objects().items()}
    for name, data in files.items():
        cloud.put(f"private/kinds/{name}", data)
    place, options = f"{cloud.scheme}://private/kinds", {"storage_options": cloud.options}
    assert read(place, **options) == [0, 1, 2] * 5
    assert read(f"{place}/*", **options) == [0, 1, 2] * 5
    context = lazynwb.get_sql_context(place, **options)
    assert context.execute("SELECT count(*) FROM units").collect().item() == 15


def test_a_store_on_a_server_with_folder_listings(server):
    server.objects.update({f"x.nwb/{key}": data for key, data in zarr_objects().items()})
    page = refuse(200, b"<!DOCTYPE html><html><body>Index of x.nwb</body></html>")
    server.faults.append(always(page, "x.nwb"))
    assert read(f"{server.url}/x.nwb") == [0, 1, 2]


def test_a_web_page_is_an_error_that_says_so(server):
    server.objects["a.nwb"] = b"\n<!doctype HTML>\n<html><head></head></html>"
    with pytest.raises(NotNWBError, match=r"a\.nwb is a web page .*pass the URL that downloads the file"):
        read(f"{server.url}/a.nwb")


def test_a_folder_on_a_web_server_cannot_be_listed(server):
    with pytest.raises(SourceNotFoundError, match="web servers do not list folders: pass the URLs of the"):
        read(f"{server.url}/data/")


# -- folders ----------------------------------------------------------------------------------------------


def test_every_kind_is_found_in_a_folder(tmp_path):
    folder = tmp_path / "sessions"
    folder.mkdir()
    write_hdf5(folder / "a.nwb")
    with zipfile.ZipFile(folder / "b.nwb.zarr.zip", "w") as archive:
        for key, data in zarr_objects().items():
            archive.writestr(key, data)
    refs = {key: data.decode("latin-1") for key, data in zarr_objects().items()}
    (folder / "c.nwb.lindi.json").write_text(json.dumps({"refs": refs}))
    write_store(folder / "d.NWB.zarr")
    write_store(folder / "e.nwb")
    names = ["a.nwb", "b.nwb.zarr.zip", "c.nwb.lindi.json", "d.NWB.zarr", "e.nwb"]
    assert [Path(source.path).name for source in expand(folder)] == names
    assert [Path(source.path).name for source in expand(str(folder / "*"))] == names
    assert [Path(source.path).name for source in expand(str(folder / "**"))] == names
    assert [Path(source.path).name for source in expand(str(folder / "**" / "*"))] == names
    assert read(folder) == [0, 1, 2] * 5
    context = lazynwb.get_sql_context(folder)
    assert context.execute("SELECT count(*) FROM units").collect().item() == 15


def _odd_names(put):
    """Write NWB files under names that a search of a folder skips, and other files."""
    put("other.h5", hdf5_bytes())
    put("deep/er/packed.nwb.gz", b"gzip")
    put("got.nwb.part", b"HDF")
    for key, data in zarr_objects().items():
        put(f"5f0a-uuid/{key}", data)
    for name in ("README.txt", "a.csv", "images/b.png", "a.nwb.json", "notes.nwb.md5", ".hidden/c.h5"):
        put(name, b"plain")


_SKIPPED = (
    "4 files or folders that look like NWB skipped",
    "5f0a-uuid (a Zarr store without an NWB suffix)",
    "deep/er/packed.nwb.gz (compressed)",
    "got.nwb.part (an unfinished transfer)",
    "other.h5 (",
    "pass their paths or a pattern",
)


def test_skipped_files_in_a_folder_are_reported_once(tmp_path, caplog):
    def put(name, data):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)

    _odd_names(put)
    put("analysis.h5", b"\x89HDF\r\n\x1a\n and nothing of a session")
    with pytest.raises(SourceNotFoundError, match="no NWB file") as caught:
        expand(tmp_path)
    assert all(part in str(caught.value) for part in _SKIPPED), str(caught.value)
    write_hdf5(tmp_path / "a.nwb")
    assert read(tmp_path) == [0, 1, 2]
    warnings = [record.getMessage() for record in caplog.records if "NWB skipped in" in record.getMessage()]
    assert len(warnings) == 1
    assert all(part in warnings[0] for part in (*_SKIPPED, str(tmp_path))), warnings[0]
    caplog.clear()
    assert read([tmp_path / "a.nwb", tmp_path / "other.h5", tmp_path / "5f0a-uuid"]) == [0, 1, 2] * 3
    assert not caplog.records


def test_unrelated_files_in_a_folder_cause_no_warning(tmp_path, caplog):
    write_hdf5(tmp_path / "a.nwb")
    for name in ("README.txt", "b.csv", "c.png", "d.json", "e.zip", "a.nwb.md5"):
        (tmp_path / name).write_bytes(b"plain")
    (tmp_path / "images").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    assert read(tmp_path) == [0, 1, 2]
    assert not caplog.records


def test_links_to_folders_and_folders_that_cannot_be_listed_are_named(tmp_path, caplog):
    (tmp_path / "elsewhere").mkdir()
    write_hdf5(tmp_path / "elsewhere" / "b.nwb")
    folder = tmp_path / "sessions"
    folder.mkdir()
    write_hdf5(folder / "a.nwb")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "half.nwb.zarr").mkdir()
    assert read(folder) == [0, 1, 2]
    assert "half.nwb.zarr (not a Zarr store" in caplog.text
    assert "linked (a symbolic link to a folder)" in caplog.text


def test_skipped_objects_in_a_bucket_are_reported(cloud, caplog):
    _odd_names(lambda name, data: cloud.put(f"private/odd/{name}", data))
    cloud.put("private/odd/a.nwb", hdf5_bytes())
    assert read(f"{cloud.scheme}://private/odd/", storage_options=cloud.options) == [0, 1, 2]
    warnings = [record.getMessage() for record in caplog.records if "NWB skipped in" in record.getMessage()]
    assert len(warnings) == 1
    assert all(part in warnings[0] for part in _SKIPPED), warnings[0]


# -- links and placeholders -------------------------------------------------------------------------------


@pytest.fixture
def linking(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "copy").mkdir()
    write_hdf5(tmp_path / "raw" / "r.nwb")
    path = tmp_path / "copy" / "a.nwb"
    with h5py.File(path, "w") as file:
        nwb_root(file)
        file["units"] = h5py.ExternalLink("../raw/r.nwb", "/units")
        file["intervals/trials"] = h5py.ExternalLink("gone.nwb", "/intervals/trials")
        file["acquisition/e"] = h5py.ExternalLink("gone.nwb", "/acquisition/e")
        file["processing/self"] = h5py.SoftLink("/processing/self")
        file["processing/one"] = h5py.SoftLink("/processing/other")
        file["processing/other"] = h5py.SoftLink("/processing/one")
    return path


def test_a_table_behind_a_link_that_the_settings_forbid(linking):
    with pytest.raises(TableNotFoundError) as caught:
        read(linking)
    for word in (str(linking), "/units", "'units'", "raw/r.nwb", "external_links", '"anywhere" follows it'):
        assert word in str(caught.value)
    lazynwb.config.external_links = "anywhere"
    assert read(linking) == [0, 1, 2]


@pytest.mark.parametrize(
    "call",
    [
        lambda path: lazynwb.scan_nwb(path, "/intervals/trials").collect(),
        lambda path: lazynwb.get_df(path, "trials"),
        lambda path: lazynwb.get_timeseries(path, "/acquisition/e"),
        lambda path: lazynwb.get_attrs(path, "/acquisition/e"),
    ],
)
def test_a_table_behind_a_link_to_a_file_that_moved(call, linking):
    with pytest.raises(LazyNWBError) as caught:
        call(linking)
    assert str(linking) in str(caught.value)
    assert str(linking.parent / "gone.nwb") in str(caught.value)
    assert "restore the file, or recreate the link" in str(caught.value)


@pytest.mark.parametrize("name", ["self", "one", "other"])
def test_a_link_to_itself_is_a_one_line_error(name, linking):
    with pytest.raises(TableNotFoundError) as caught:
        lazynwb.scan_nwb(linking, f"/processing/{name}").collect()
    assert f"link {name!r} leads back to itself" in str(caught.value)
    assert len(str(caught.value)) < 200 + len(str(linking))


#: A table of two files that is a link to nowhere in the second: how it is read.
WAYS = {
    "scan": lambda paths, _: lazynwb.scan_nwb(paths, "trials").collect(),
    "schema of the first": lambda paths, _: lazynwb.read_nwb(
        paths, "/intervals/trials", infer_schema_length=1
    ),
    "count": lambda paths, _: lazynwb.scan_nwb(paths, "trials").select(pl.len()).collect(),
    "pattern": lambda paths, _: lazynwb.read_nwb(paths, "/intervals/*"),
    "SQL": lambda paths, _: _query(paths, ignore_errors=False),
    "SQL of one file": lambda paths, _: _query(paths[1:]),
    "SQL by name": lambda paths, _: lazynwb.get_sql_context(paths[1:], table_names=["trials"]),
    "get_df": lambda paths, _: lazynwb.get_df(paths, "trials"),
    "end of a path": lambda paths, _: lazynwb.get_df(paths[1:], "speed"),
    "series": lambda paths, _: lazynwb.get_timeseries(paths[1], "/acquisition/speed"),
    "session": lambda paths, _: lazynwb.LazyNWB(paths[1]).intervals["trials"],
    "attributes": lambda paths, _: lazynwb.get_attrs(paths[1], "/intervals/trials"),
    "sessions": lambda paths, _: lazynwb.scan_sessions(paths).select("n_trials").collect(),
    "index": lambda paths, folder: lazynwb.read_nwb(None, "trials", index=_index(paths, folder)),
    "pattern in an index": lambda paths, folder: lazynwb.read_nwb(
        None, "/intervals/*", index=_index(paths, folder)
    ),
    "SQL of an index": lambda paths, folder: _query(None, index=_index(paths, folder), ignore_errors=False),
    "conversion": lambda paths, folder: lazynwb.convert_nwb_tables(
        paths, folder, tables="trials", ignore_errors=False
    ),
    "conversion of one file": lambda paths, folder: lazynwb.convert_nwb_tables(
        paths[1:], folder, tables="trials"
    ),
    "executor": lambda paths, _: lazynwb.read_nwb(paths, "trials", executor=ThreadPoolExecutor(2)),
}
LINKS = {
    "to a file that moved": ("gone", "/intervals/trials", r"gone.*restore the file, or recreate"),
    "to itself": ("broken.nwb", None, r"link '(trials|speed)' leads back to itself; recreate the link"),
}


def _query(paths, **options):
    context = lazynwb.get_sql_context(paths, **options)
    return context.execute("SELECT COUNT(*) FROM trials", eager=True)


def _index(paths, folder, **options):
    lazynwb.build_index(paths, folder / "index", **options)
    return folder / "index"


PLACES = ("intervals/trials", "acquisition/speed")


def _write_linked(path, source, target):
    with h5py.File(path, "w") as file:
        nwb_root(file)
        table(file, PLACES[0], {"a": [0, 1, 2]}, kind="TimeIntervals")
        series(file, PLACES[1], np.arange(3.0))
        for name in PLACES if source else ():
            del file[name]
            file[name] = h5py.ExternalLink(f"{source}.nwb", target) if target else h5py.SoftLink(f"/{name}")
    return str(path)


def _write_linked_store(path, version, source, target):
    writer = Writer(version, [])
    writer.group("", neurodata_type="NWBFile")
    for name in PLACES:
        parent, _, last = name.partition("/")
        link = {"name": last, "source": source and f"../{source}", "path": target or f"/{name}"}
        writer.group(parent, **({"zarr_link": [link]} if source else {}))
        if not source:
            kind = {"colnames": ["a"]} if parent == "intervals" else {}
            writer.group(name, neurodata_type="TimeIntervals" if kind else "TimeSeries", **kind)
            writer.array(f"{name}/{'a' if kind else 'data'}", np.arange(3), (3,))
    return str(writer.write(path))


@pytest.fixture(scope="module", params=["HDF5", 2, 3])
def linked(request, tmp_path_factory):
    """Two files by kind of link; the second has links in place of a table and a series."""
    made = {}
    for kind, (source, target, _) in LINKS.items():
        folder = tmp_path_factory.mktemp("linked")
        made[kind] = [
            _write_linked(folder / name, *link)
            if request.param == "HDF5"
            else _write_linked_store(folder / name, request.param, *link)
            for name, link in (("whole.nwb", (None, None)), ("broken.nwb", (source, target)))
        ]
    return made


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.sample(3)
def test_a_broken_link_is_not_reported_as_a_missing_table(way, kind, linked, tmp_path):
    with pytest.raises((LazyNWBError, pl.exceptions.SQLInterfaceError)) as caught:
        WAYS[way](linked[kind], tmp_path)
    message = str(caught.value)
    assert linked[kind][1] in message
    assert re.search(r"/intervals/trials|/acquisition/speed", message)
    assert re.search(LINKS[kind][2], message, re.DOTALL)
    assert len(message) < 400 + 3 * len(linked[kind][1])


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("way", ["scan", "pattern", "get_df", "SQL", "index", "conversion", "executor"])
@pytest.mark.sample(3)
def test_a_broken_link_is_skipped_with_one_warning(way, kind, linked, tmp_path, caplog):
    paths, options = linked[kind], {"ignore_errors": True}
    found = {
        "scan": lambda: lazynwb.read_nwb(paths, "trials", **options),
        "pattern": lambda: lazynwb.read_nwb(paths, "/intervals/*", **options),
        "get_df": lambda: lazynwb.get_df(paths, "trials", as_polars=True, **options),
        "SQL": lambda: lazynwb.get_sql_context(paths).execute("SELECT * FROM trials", eager=True),
        "index": lambda: lazynwb.read_nwb(None, "trials", index=_index(paths, tmp_path), **options),
        "conversion": lambda: pl.read_parquet(
            lazynwb.convert_nwb_tables(paths, tmp_path, tables="trials", **options)["/intervals/trials"]
        ),
        "executor": lambda: lazynwb.read_nwb(paths, "trials", executor=ThreadPoolExecutor(2), **options),
    }[way]()
    assert found["a"].to_list() == [0, 1, 2]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert paths[1] in warning
    assert re.search(LINKS[kind][2], warning, re.DOTALL)


def _write_with_lost_column(path, version, link):
    """Write a table with the columns `own` and `far`, or with a link to a file that moved as `far`."""
    values = {"own": [1, 2], "far": [0.5, 1.5]}
    if version == "HDF5":
        with h5py.File(path, "w") as file:
            nwb_root(file)
            group = table(file, "units", values, kind="Units")
            if link:
                del group["far"]
                group["far"] = h5py.ExternalLink("gone.nwb", "/units/far")
        return path
    writer = Writer(version, [])
    writer.group("", neurodata_type="NWBFile")
    links = {"zarr_link": [{"name": "far", "source": "../gone.nwb", "path": "/units/far"}]} if link else {}
    writer.group("units", neurodata_type="Units", colnames=["own", "far"], **links)
    for name, column in ({**values, "id": [0, 1]}).items():
        if name != "far" or not link:
            writer.array(f"units/{name}", np.array(column), (2,))
    return writer.write(path)


def _write_lost(folder, version):
    return [
        str(_write_with_lost_column(folder / name, version, link))
        for name, link in (("whole.nwb", False), ("broken.nwb", True))
    ]


@pytest.fixture(scope="module", params=["HDF5", 2, 3])
def lost(request, tmp_path_factory):
    """Two files; in the second, column `far` is a link to a file that moved."""
    return _write_lost(tmp_path_factory.mktemp("lost"), request.param)


def _select(paths, column, **options):
    return lazynwb.scan_nwb(paths, "/units", **options).select(column).collect()


def _converted(paths, folder, **options):
    made = lazynwb.convert_nwb_tables(paths, folder, tables="units", **options)
    return pl.read_parquet(made["/units"])


#: How a column is read, by its name.
READS = {
    "scan": lambda paths, column, _: _select(paths, column),
    "reversed": lambda paths, column, _: _select(paths[::-1], column),
    "schema of the first": lambda paths, column, _: _select(paths, column, infer_schema_length=1),
    "given schema": lambda paths, column, _: _select(paths, column, schema={column: pl.Float64}),
    "pattern": lambda paths, column, _: lazynwb.scan_nwb(paths, "/unit*").select(column).collect(),
    "filter": lambda paths, column, _: (
        lazynwb.scan_nwb(paths, "/units").filter(pl.col(column) > -1).select(column).collect()
    ),
    "get_df": lambda paths, column, _: lazynwb.get_df(
        paths, "units", include_column_names=column, as_polars=True
    ),
    "rows of get_df": lambda paths, column, _: lazynwb.get_df(
        paths,
        "units",
        include_column_names=column,
        as_polars=True,
        nwb_path_to_row_indices={path: [0, 1] for path in paths},
    ),
    "late column": lambda paths, column, _: _select(
        paths, ["_nwb_path", "_table_path", "_table_index"]
    ).nwb.with_columns(column),
    "SQL": lambda paths, column, _: lazynwb.get_sql_context(paths, ignore_errors=False).execute(
        f"SELECT {column} FROM units",  # noqa: S608 - a name of this module
        eager=True,
    ),
    "index": lambda paths, column, folder: _select(None, column, index=_index(paths, folder)),
    "values of an index": lambda paths, column, folder: _select(
        None, column, index=_index(paths, folder, values=True)
    ),
    "executor": lambda paths, column, _: _select(paths, column, executor=ThreadPoolExecutor(2)),
}


@pytest.mark.parametrize("way", READS)
@pytest.mark.sample(3)
def test_a_column_behind_a_broken_link_is_an_error_when_it_is_read(way, lost, tmp_path):
    found = READS[way](lost, "own", tmp_path)
    assert found["own"].to_list() == [1, 2, 1, 2]
    shutil.rmtree(tmp_path / "index", ignore_errors=True)
    with pytest.raises(LazyNWBError) as caught:
        READS[way](lost, "far", tmp_path)
    words = (lost[1], "/units", "column 'far'", "'far' is broken", "gone.nwb", "restore the file")
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("way", ["scan", "get_df", "SQL", "index", "conversion", "executor"])
@pytest.mark.sample(2)
def test_a_column_behind_a_broken_link_is_null_with_one_warning(way, lost, tmp_path, caplog):
    options = {"ignore_errors": True}
    found = {
        "scan": lambda: lazynwb.read_nwb(lost, "/units", **options),
        "get_df": lambda: lazynwb.get_df(lost, "units", as_polars=True, **options),
        "SQL": lambda: lazynwb.get_sql_context(lost).execute("SELECT * FROM units", eager=True),
        "index": lambda: lazynwb.read_nwb(None, "/units", index=_index(lost, tmp_path), **options),
        "conversion": lambda: _converted(lost, tmp_path),
        "executor": lambda: lazynwb.read_nwb(lost, "/units", executor=ThreadPoolExecutor(2), **options),
    }[way]()
    assert found["far"].to_list() == [0.5, 1.5, None, None]
    assert found["own"].to_list() == [1, 2, 1, 2]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert f"{lost[1]}: /units: column 'far' is null where it cannot be read" in warning
    assert "restore the file, or recreate the link" in warning


def test_a_column_that_no_file_can_open_is_left_out_with_the_reason(lost, caplog):
    path = lost[1]
    assert "far" not in lazynwb.read_nwb(path, "/units").columns
    reason = (
        rf"{re.escape(path)}: /units: column 'far' was left out: link 'far' is broken: .*gone\.nwb.* recreate"
    )
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert re.search(reason, warning)
    ways = [
        lambda: lazynwb.get_df(path, "units", include_column_names="far"),
        lambda: lazynwb.get_sql_context(path).execute("SELECT far FROM units"),
        lambda: _select(path, ["_nwb_path", "_table_path", "_table_index"]).nwb.with_columns("far"),
        lambda: _select(path, "far"),  # Polars shows what it scanned
    ]
    for way in ways:
        with pytest.raises((LazyNWBError, pl.exceptions.ColumnNotFoundError), match=reason):
            way()
    chosen = lazynwb.scan_nwb(path, "/units", schema_overrides={"far": pl.Float64})
    with pytest.raises(LazyNWBError, match="link 'far' is broken"):
        chosen.collect()


@pytest.mark.parametrize("version", ["HDF5", 2, 3])
@pytest.mark.servers
@pytest.mark.sample(2)
def test_a_column_behind_a_broken_link_of_remote_files(version, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    paths = _write_lost(tmp_path, version)
    with RangeServer(tmp_path) as running:
        urls = [running.url_of(Path(path).name) for path in paths]
        for way in ("scan", "get_df", "late column", "SQL", "index", "executor"):
            folder = tmp_path / way
            assert READS[way](urls, "own", folder)["own"].to_list() == [1, 2, 1, 2]
            shutil.rmtree(folder, ignore_errors=True)
            with pytest.raises(LazyNWBError) as caught:
                READS[way](urls, "far", folder)
            words = (urls[1], "/units", "column 'far'", "'far' is broken", "gone.nwb")
            assert [word for word in words if word not in str(caught.value)] == [], way
        caplog.clear()
        found = lazynwb.read_nwb(urls, "/units", ignore_errors=True)
        assert found["far"].to_list() == [0.5, 1.5, None, None]
        assert found["own"].to_list() == [1, 2, 1, 2]
        (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert f"{urls[1]}: /units: column 'far' is null where it cannot be read" in warning
        caplog.clear()
        assert "far" not in lazynwb.read_nwb(urls[1], "/units").columns
        (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert re.search(r"/units: column 'far' was left out: link 'far' is broken: .*gone\.nwb", warning)


def test_metadata_behind_a_broken_link(tmp_path, caplog):
    """It is null in that file, with a warning; as a column of a scan it is an error."""
    paths = [tmp_path / f"{name}.nwb" for name in ("whole", "broken")]
    for path, value in zip(paths, ("pump", h5py.SoftLink("/nowhere")), strict=True):
        with h5py.File(path, "w") as file:
            nwb_root(file)
            table(file, "units", {"rate": [1, 2]})
            file["general/pharmacology"] = value
    for read in (
        lambda: lazynwb.get_metadata_df(paths, as_polars=True),
        lambda: lazynwb.scan_sessions(paths).collect(),
    ):
        caplog.clear()
        assert read()["pharmacology"].to_list() == ["pump", None]
        assert re.search(r"broken\.nwb.*link 'pharmacology' is broken", caplog.text, re.DOTALL) or re.search(
            r"pharmacology.*link 'pharmacology' is broken.*broken\.nwb", caplog.text, re.DOTALL
        )
    assert lazynwb.scan_sessions(paths).select("session_id").collect().height == 2
    general = lazynwb.scan_nwb(paths, "/general")
    assert general.select("session_id").collect().height == 2
    with_rate = lazynwb.scan_nwb(paths, "/units", session_columns="pharmacology")
    assert with_rate.select("rate").collect()["rate"].to_list() == [1, 2, 1, 2]
    for scan in (general, with_rate):
        with pytest.raises(LazyNWBError, match=r"'pharmacology' is broken: .*recreate the link"):
            scan.select("pharmacology").collect()


def test_a_dangling_symbolic_link(tmp_path):
    (tmp_path / "a.nwb").symlink_to("moved/a.nwb")
    with pytest.raises(
        SourceNotFoundError, match=r"a\.nwb is a symbolic link to moved/a\.nwb, which does not exist"
    ):
        read(tmp_path / "a.nwb")
    key = ".git/annex/objects/Xx/Yy/SHA256E-s9--ab.nwb/SHA256E-s9--ab.nwb"
    (tmp_path / "b.nwb").symlink_to(f"../{key}")
    with pytest.raises(SourceNotFoundError, match=r"b\.nwb is a git-annex link.*datalad get"):
        read(tmp_path / "b.nwb")


POINTERS = {
    "Git LFS pointer.*git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
    "git-annex pointer.*git annex get": b"/annex/objects/SHA256E-s9--ab.nwb\n",
}


@pytest.mark.parametrize("what", POINTERS)
@pytest.mark.parametrize("name", ["a.nwb", "a.nwb.zarr.zip", "a.nwb.lindi.json"])
def test_lfs_and_annex_pointers_are_identified(what, name, tmp_path, server):
    (tmp_path / name).write_bytes(POINTERS[what])
    server.objects[name] = POINTERS[what]
    for source in (str(tmp_path / name), f"{server.url}/{name}"):
        with pytest.raises(NotNWBError, match=what) as caught:
            read(source)
        assert source in str(caught.value)


@pytest.mark.parametrize("what", POINTERS)
@pytest.mark.parametrize("key", ["units/x/1", "units/name/1", "units/x/.zattrs", "units/.zattrs"])
def test_pointer_files_in_a_store_are_identified(key, what, tmp_path):
    """In place of a chunk, a chunk of text, or metadata; a chunk affects one column only."""
    writer = Writer(2, [])
    writer.group("", neurodata_type="NWBFile")
    writer.group("units", neurodata_type="Units", colnames=["x", "name"])
    writer.array("units/id", np.arange(4), (2,))
    writer.array("units/x", np.arange(4), (2,))
    writer.array("units/name", np.array(list("abcd"), "O"), (2,), objects="vlen-utf8")
    writer.array("units/x", np.arange(4), (2,), unit="s")
    writer.objects[key] = POINTERS[what]
    path = writer.write(tmp_path / "a.nwb.zarr")
    with pytest.raises(LazyNWBError, match=f"{path.name}.*{what}") as caught:
        lazynwb.read_nwb(path, "/units")
    assert key in str(caught.value)
    if key.endswith("/1"):
        assert lazynwb.scan_nwb(path, "/units").select("id").collect()["id"].to_list() == [0, 1, 2, 3]


def test_a_store_whose_root_is_a_dangling_link(tmp_path):
    folder = write_store(tmp_path / "a.nwb.zarr", consolidated=False)
    (folder / ".zgroup").unlink()
    (folder / ".zgroup").symlink_to(".git/annex/objects/Xx/Yy/MD5E-s9--ab/MD5E-s9--ab")
    with pytest.raises(LazyNWBError, match=r"a\.nwb\.zarr/\.zgroup is a git-annex link.*datalad get"):
        read(folder)


def _command(path, capsys):
    assert main(["tables", str(path)]) != 0
    raise LazyNWBError(" ".join(capsys.readouterr().err.split()))


_WAYS = {
    "scan": lambda path, *_: lazynwb.scan_nwb(path, "/units"),
    "get_df": lambda path, *_: lazynwb.get_df(path, "units", as_polars=True),
    "sql": lambda path, *_: lazynwb.get_sql_context(path, ignore_errors=False),
    "sql, ignoring errors": lambda path, *_: lazynwb.get_sql_context(path),
    "LazyNWB": lambda path, *_: lazynwb.LazyNWB(path).identifier,
    "series": lambda path, *_: lazynwb.get_timeseries(path, "s"),
    "paths": lambda path, *_: lazynwb.get_internal_paths(path),
    "index": lambda path, out, _: lazynwb.build_index(path, out),
    "convert": lambda path, out, _: lazynwb.convert_nwb_tables(path, out),
    "command": lambda path, _, capsys: _command(path, capsys),
}


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("what", ["LFS", "annex", "dangling", "annex link"])
def test_every_function_identifies_placeholders(way, what, tmp_path, capsys):
    path = tmp_path / "a.nwb"
    key = ".git/annex/objects/Xx/Yy/SHA256E-s9--ab.nwb/SHA256E-s9--ab.nwb"
    said = {
        "LFS": "is a Git LFS pointer",
        "annex": "is a git-annex pointer",
        "dangling": "is a symbolic link to moved/a.nwb",
        "annex link": "is a git-annex link",
    }[what]
    if what == "LFS":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    elif what == "annex":
        path.write_bytes(b"/annex/objects/SHA256E-s9--ab.nwb\n")
    else:
        path.symlink_to("moved/a.nwb" if what == "dangling" else f"../{key}")
    with pytest.raises(LazyNWBError) as caught:
        _WAYS[way](path, tmp_path / "out", capsys)
    assert "a.nwb" in str(caught.value)
    assert said in str(caught.value)


# -- web servers ------------------------------------------------------------------------------------------


class _Unusual(BaseHTTPRequestHandler):
    """Serves `server.data` in chunks without a length, or in parts without the size of the whole."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.data)))
        self.end_headers()

    def do_GET(self):
        data, asked = self.server.data, self.headers.get("Range")
        self.server.asked.append(asked)
        if "parts" in self.path and asked:
            start, stop = (int(one) for one in asked.removeprefix("bytes=").split("-"))
            body = data[start : stop + 1]
            self.send_response(206)
            self.send_header("ETag", '"x"')
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/*")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("ETag", '"x"')
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(ConnectionError):
            for start in range(0, len(data), 1000):
                piece = data[start : start + 1000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


@contextmanager
def serving(handler, data, monkeypatch):
    """A server of some bytes, which records its requests."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    remote_state.forget()
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.data, running.asked = data, []
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    remote_state.forget()


@pytest.fixture
def unusual(hdf5, monkeypatch):
    with serving(_Unusual, hdf5, monkeypatch) as running:
        yield running


def test_a_chunked_response_without_a_length_is_read(unusual):
    url = f"http://127.0.0.1:{unusual.server_port}/chunks/a.nwb"
    with pytest.raises(
        LazyNWBError, match=r"/chunks/a\.nwb: the server does not send the size .*download_bytes"
    ):
        read(url)
    lazynwb.config.download_bytes = len(unusual.data)
    assert read(url) == [0, 1, 2]
    assert read(url) == [0, 1, 2]


class _Chunked(BaseHTTPRequestHandler):
    """Serves each object of `server.data` as a chunked response without a length, ignoring ranges."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        data = self.server.data.get(self.path.strip("/"))
        self.send_response(404 if data is None else 200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(ConnectionError):
            if data:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("consolidated", [True, False])
def test_a_store_whose_objects_have_no_content_length(consolidated, monkeypatch):
    documents = zarr_objects(consolidated=consolidated).items()
    objects = {f"{name}/{key}": data for name in ("a.nwb.zarr", "b.nwb") for key, data in documents}
    with serving(_Chunked, objects, monkeypatch) as running:
        url = f"http://127.0.0.1:{running.server_port}"
        for name in ("a.nwb.zarr", "b.nwb"):
            message = rf"{re.escape(name)}/.*does not send the size .*download_bytes"
            with pytest.raises(LazyNWBError, match=message):
                read(f"{url}/{name}")
        lazynwb.config.download_bytes = 100_000
        for name in ("a.nwb.zarr", "b.nwb"):
            assert read(f"{url}/{name}") == [0, 1, 2]


class _Replicas(BaseHTTPRequestHandler):
    """Two servers behind one address: the first answers one request, the other all later ones."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        number = min(len(server.asked), 2) - 1
        tag = f'"replica-{number}"'
        if self.headers.get("If-Match", tag) != tag:
            self.send_response(412)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, stop = (int(one) for one in self.headers["Range"].removeprefix("bytes=").split("-"))
        body = server.data[start : stop + 1]
        self.send_response(206)
        self.send_header("ETag", tag)
        self.send_header("Last-Modified", server.dates[number])
        self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(server.data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def replicas(hdf5, monkeypatch):
    # The table's values are not among the bytes that parsing the structure brings.
    with serving(_Replicas, hdf5 + bytes(1 << 20), monkeypatch) as running:
        running.dates = ["Tue, 03 Nov 2020 00:00:00 GMT"] * 2
        running.url = f"http://127.0.0.1:{running.server_port}/a.nwb"
        yield running


def _two_ranges(url):
    source = resolve(url)
    identity = source.identity()
    file = source.open(identity)
    with file.reading() as ranges:
        return source, identity, [bytes(ranges.read(at, 10)) for at in (500_000, 700_000, 900_000)]


def test_replicas_with_different_etags_and_equal_dates_serve_the_same_file(replicas, cache_dir):
    _, _, found = _two_ranges(replicas.url)
    assert found == [replicas.data[at : at + 10] for at in (500_000, 700_000, 900_000)]
    assert read(replicas.url) == [0, 1, 2]
    before = len(replicas.asked)
    remote_state.forget()
    assert read(replicas.url) == [0, 1, 2]
    assert len(replicas.asked) > before  # nothing was cached


@pytest.mark.parametrize("when", ["another day", "this moment"])
def test_replicas_that_disagree_about_the_file(when, replicas):
    if when == "this moment":  # in which the file may have been written twice
        replicas.dates[0] = replicas.dates[1] = formatdate(usegmt=True)
    else:
        replicas.dates[0] = "Wed, 04 Nov 2020 00:00:00 GMT"
    seen = r'a\.nwb was changed .*ETag "replica-0", Last-Mod.*ETag "replica-1", Last-Mod.*replicas'
    with pytest.raises(SourceChangedError, match=seen):
        _two_ranges(replicas.url)


def test_ranges_without_a_total_size_are_read(unusual):
    url = f"http://127.0.0.1:{unusual.server_port}/parts/a.nwb"
    assert read(url) == [0, 1, 2]
    assert None not in unusual.asked  # it was never fetched as a whole
    remote_state.forget()
    assert read(url) == [0, 1, 2]
