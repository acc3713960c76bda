"""Indices in buckets and on web servers: their requests, and what is refused."""

import datetime as dt
import ipaddress
import ssl
import sys
from pathlib import Path

import obstore
import polars as pl
import pytest
from obstore.exceptions import NotSupportedError
from polars.testing import assert_frame_equal

import builders
import lazynwb
from lazynwb.errors import LazyNWBError, SourceChangedError
from lazynwb.index import build as updating
from lazynwb.index import checkpoint
from lazynwb.index import writer as writing
from lazynwb.index.build import build_index, update_index
from lazynwb.index.location import RemoteFolder
from lazynwb.index.reader import open_index
from lazynwb.scan import scan_index
from range_server import RangeServer, always, refuse


@pytest.fixture
def server(cube):
    with RangeServer() as server:
        for path in cube:
            server.objects[path.name] = path.read_bytes()
        yield server


@pytest.fixture
def urls(cube, server):
    return [server.url_of(path.name) for path in cube]


def serve(server, place):
    """Copy an index to the server."""
    for file in place.iterdir():
        server.objects[f"index/{file.name}"] = file.read_bytes()
    return server.url_of("index")


def asked_of_files(server):
    return [seen.path for seen in server.log if not seen.path.startswith("index/")]


def test_planning_opens_no_file_and_a_query_only_the_files_it_reads(server, urls, cube, tmp_path):
    build_index(urls, tmp_path)
    index = serve(server, tmp_path)
    expected = lazynwb.read_nwb(cube, "units")
    lazynwb.clear_cache()
    server.reset()
    frame = lazynwb.scan_nwb(None, "units", index=index, session_columns="session_id")
    assert frame.select(pl.len()).collect().item() == len(expected)
    assert asked_of_files(server) == []
    one = frame.filter(session_id="s2").select("unit_id", "presence_ratio").collect()
    assert set(asked_of_files(server)) == {cube[2].name}
    assert_frame_equal(one, expected.filter(_nwb_path=str(cube[2])).select("unit_id", "presence_ratio"))


def test_an_index_is_fetched_in_few_requests(server, urls, tmp_path):
    build_index(urls, tmp_path)
    index = serve(server, tmp_path)
    lazynwb.clear_cache()
    server.reset()
    lazynwb.scan_nwb(None, "units", index=index)
    kinds = [seen.path.removeprefix("index/").partition("-")[0] for seen in server.log]
    assert sorted(kinds) == ["entries", "manifest.json", "sessions", "tables"]
    scan_index(index, "columns").collect()
    assert len(server.log) == 6


def test_the_same_rows_as_without_an_index(server, urls, tmp_path):
    build_index(urls, tmp_path)
    for index in (tmp_path, serve(server, tmp_path)):
        for table in ("units", "intervals/performance", "acquisition/lick_sensor_events"):
            lazynwb.clear_cache()
            planned = lazynwb.read_nwb(None, table, index=index)
            lazynwb.clear_cache()
            assert_frame_equal(planned, lazynwb.read_nwb(urls, table))


def test_a_changed_file_is_detected_when_it_is_read(server, urls, cube, tmp_path):
    build_index(urls, tmp_path / "index")
    builders.write_session(tmp_path / "new.nwb", 23, units=9)
    server.objects[cube[1].name] = (tmp_path / "new.nwb").read_bytes()
    lazynwb.clear_cache()
    frame = lazynwb.scan_nwb(None, "units", index=tmp_path / "index")
    with pytest.raises(SourceChangedError, match=r"has changed since it was cataloged.*lazynwb index update"):
        frame.collect()
    done = update_index(tmp_path / "index")
    assert (done.changed, done.removed) == (1, 0)
    assert_frame_equal(
        lazynwb.read_nwb(None, "units", index=tmp_path / "index"), lazynwb.read_nwb(urls, "units")
    )


def test_a_change_is_detected_if_the_bytes_are_cached(server, urls, cube, tmp_path):
    build_index(urls, tmp_path / "index")
    frame = lazynwb.scan_nwb(None, "units", index=tmp_path / "index").select("unit_id", "presence_ratio")
    frame.collect()
    lazynwb.config.recheck_seconds = 0
    builders.write_session(tmp_path / "new.nwb", 23, units=9)
    server.objects[cube[1].name] = (tmp_path / "new.nwb").read_bytes()
    found = frame.collect()
    assert found.height == 5 * 40 + 9
    assert_frame_equal(found, lazynwb.read_nwb(urls, "units").select("unit_id", "presence_ratio"))


def test_an_update_makes_one_request_per_unchanged_file(server, urls, tmp_path):
    build_index(urls, tmp_path)
    lazynwb.clear_cache()
    server.reset()
    done = update_index(tmp_path)
    assert (done.added, done.changed, done.removed) == (0, 0, 0)
    assert len(server.log) == len(urls)
    assert server.bytes <= len(urls)


def test_deleted_files_are_removed_and_unreadable_files_kept(server, urls, cube, tmp_path):
    build_index(urls, tmp_path)
    lazynwb.clear_cache()
    del server.objects[cube[5].name]
    server.faults.append(always(refuse(403), cube[4].name))
    done = update_index(tmp_path)
    assert (done.sessions, done.removed, done.changed) == (5, 1, 0)


def test_an_index_cannot_refer_to_local_files(server, cube, tmp_path):
    build_index(cube, tmp_path)
    index = serve(server, tmp_path)
    with pytest.raises(LazyNWBError, match="is remote but contains the local path"):
        lazynwb.scan_nwb(None, "units", index=index)
    assert scan_index(index).select(pl.len()).collect().item() == len(cube)


def test_an_index_on_a_web_server_cannot_be_written(server, urls):
    with pytest.raises(LazyNWBError, match="web servers are read-only"):
        build_index(urls, server.url_of("index"))


def test_an_index_in_a_bucket(s3, cube, urls, monkeypatch):
    place = "s3://private/archive/index"
    with pytest.raises(LazyNWBError, match="is remote and cannot contain the local file"):
        build_index(cube, place, storage_options=s3.options)
    build_index(urls[:3], place, storage_options=s3.options)
    done = update_index(place, urls[3:], storage_options=s3.options)
    assert done.sessions == 6
    index = open_index(place, s3.options)
    assert_frame_equal(lazynwb.read_nwb(None, "units", index=index), lazynwb.read_nwb(urls, "units"))
    assert update_index(place, storage_options=s3.options).sessions == 6  # what is superseded goes
    assert_frame_equal(lazynwb.read_nwb(None, "units", index=index), lazynwb.read_nwb(urls, "units"))

    publish = updating.publish

    def publish_after_another_build(*arguments):
        monkeypatch.setattr(updating, "publish", publish)
        build_index(urls[:1], place, storage_options=s3.options)
        publish(*arguments)

    monkeypatch.setattr(updating, "publish", publish_after_another_build)
    with pytest.raises(LazyNWBError, match="another process"):
        update_index(place, chunk_locations=True, storage_options=s3.options)
    assert len(open_index(place, s3.options)) == 1


def test_stores_without_conditional_writes_are_checked_before_each_write(s3, urls, monkeypatch):
    put, found = obstore.put, RemoteFolder.find

    def unconditional(*arguments, mode="overwrite", **options):
        if mode != "overwrite":
            raise NotSupportedError("this store has no conditional writes")
        return put(*arguments, mode=mode, **options)

    monkeypatch.setattr(obstore, "put", unconditional)
    place = "s3://private/unconditional/index"
    build_index(urls[:2], place, storage_options=s3.options)
    assert update_index(place, urls[2:3], storage_options=s3.options).added == 1
    looks = []

    def found_after_another_update(folder, name):
        looks.append(name)
        if len(looks) == 2:  # the look before the write
            monkeypatch.setattr(RemoteFolder, "find", found)
            update_index(place, urls[4:5], storage_options=s3.options)
        return found(folder, name)

    monkeypatch.setattr(RemoteFolder, "find", found_after_another_update)
    with pytest.raises(LazyNWBError, match="another process"):
        update_index(place, urls[3:4], storage_options=s3.options)
    assert len(open_index(place, s3.options)) == 4


def test_secrets_of_a_store_are_not_written(s3, cube, tmp_path):
    s3.put("private/cube/a.nwb", cube[0].read_bytes())
    options = {**s3.options, "access_key_id": "topsecretkey", "secret_access_key": "topsecretvalue"}
    build_index("s3://private/cube/a.nwb", tmp_path, storage_options=options)
    assert b"topsecret" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    index = open_index(tmp_path, options)
    assert "topsecret" not in repr(index)
    found = lazynwb.read_nwb(None, "units", index=index, storage_options=s3.options)
    assert found.height == 40


@pytest.mark.long
@pytest.mark.parametrize("kind", ["s3", "azure", "gcs_uploads"])
@pytest.mark.sample(3)
def test_values_in_a_bucket(kind, request, cube, monkeypatch):
    """Values are built, read and updated as in a local folder."""
    cloud = request.getfixturevalue(kind)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sources = []
    for path in cube[:3]:
        cloud.put(f"private/values/{path.name}", path.read_bytes())
        sources.append(f"{cloud.scheme}://private/values/{path.name}")
    place = f"{cloud.scheme}://private/values/index"
    build_index(sources[:2], place, values=["units"], storage_options=cloud.options)
    check_values(place, sources[:2], cloud.options)
    update_index(place, sources[2:], storage_options=cloud.options)
    check_values(place, sources, cloud.options)
    assert update_index(place, storage_options=cloud.options).changed == 0
    check_values(place, sources, cloud.options)
    # Two updates at once: the store refuses the one that comes later.
    cloud.put(f"private/values/{cube[0].name}", cube[3].read_bytes())
    lazynwb.clear_cache()
    publish = writing.publish

    def slowly(*arguments):
        monkeypatch.setattr(updating, "publish", publish)
        update_index(place, storage_options=cloud.options)
        publish(*arguments)

    monkeypatch.setattr(updating, "publish", slowly)
    with pytest.raises(LazyNWBError, match="another process"):
        update_index(place, storage_options=cloud.options)
    lazynwb.clear_cache()
    check_values(place, sources, cloud.options)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["azure", "gcs_uploads"])
@pytest.mark.sample(2)
def test_an_interrupted_build_in_a_bucket_is_resumed(kind, request, cube, monkeypatch):
    cloud = request.getfixturevalue(kind)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sources = []
    for path in cube[:4]:
        cloud.put(f"private/resumed/{path.name}", path.read_bytes())
        sources.append(f"{cloud.scheme}://private/resumed/{path.name}")
    place = f"{cloud.scheme}://private/resumed/index"
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "INTERVAL_SECONDS", 0)
        patched.setattr(writing, "MIN_SESSIONS", 2)
        patched.setattr(RemoteFolder, "remove", lambda *_: None)
        patched.setattr(updating, "publish", lambda *_: sys.exit(1))
        with pytest.raises(SystemExit):
            build_index(sources, place, values=["units"], storage_options=cloud.options)
    lazynwb.clear_cache()
    with lazynwb.profile() as counts:
        build_index(sources, place, values=["units"], storage_options=cloud.options)
    assert counts.files_opened == 0
    check_values(place, sources, cloud.options)


def check_values(place, sources, options=None):
    expected = lazynwb.read_nwb(sources, "units", storage_options=options)
    index = open_index(place, options)
    units = lazynwb.scan_nwb(None, "units", index=index, storage_options=options)
    with lazynwb.profile() as counts:
        small = units.filter(pl.col("presence_ratio") > 0.5).select("unit_id", "_nwb_path").collect()
        values = scan_index(index, "/units").select("unit_id", "presence_ratio").collect()
    assert counts.files_opened == 0
    assert_frame_equal(small, expected.filter(pl.col("presence_ratio") > 0.5).select(small.columns))
    assert_frame_equal(values, expected.select(values.columns))
    one = units.filter(unit_id=expected["unit_id"][0]).select("spike_times").collect()
    assert_frame_equal(one, expected.filter(unit_id=expected["unit_id"][0]).select("spike_times"))


def tls_server(folder):
    """The context of a server on this machine, and the file with the certificate of its authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("tests", "localhost")
    ]
    now = dt.datetime.now(dt.UTC)
    for key, name, is_authority in zip(keys, names, (True, False), strict=True):
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder(names[0], name, key.public_key(), 1 + is_authority)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(address, critical=False)
            .sign(keys[0], hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        (folder / f"{'authority' if is_authority else 'server'}.pem").write_bytes(pem)
    private = keys[1].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "server.key").write_bytes(private)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context, folder / "authority.pem"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep the certificates that they trust")
def test_an_index_beside_an_archive_over_https(cube, tmp_path, monkeypatch):
    context, authority = tls_server(tmp_path)
    with RangeServer(tls=context) as server:
        for path in cube:
            server.objects[path.name] = path.read_bytes()
        urls = [server.url_of(path.name) for path in cube]
        with pytest.raises(LazyNWBError, match="certificate is not trusted"):
            lazynwb.read_nwb(urls[0], "units")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with RangeServer(tls=context) as server:
        for path in cube:
            server.objects[path.name] = path.read_bytes()
        urls = [server.url_of(path.name) for path in cube]
        build_index(urls, tmp_path / "index", values=["units"])
        for file in filter(Path.is_file, (tmp_path / "index").rglob("*")):
            name = file.relative_to(tmp_path).as_posix()
            server.objects[name] = file.read_bytes()
        lazynwb.clear_cache()
        server.reset()
        truth = lazynwb.read_nwb(cube, "units").drop("_nwb_path")
        units = lazynwb.scan_nwb(None, "units", index=server.url_of("index"))
        one = pl.col("unit_id") == truth["unit_id"][0]
        small = ["unit_id", "location", "presence_ratio"]
        assert_frame_equal(units.select(small).collect(), truth.select(small))
        assert asked_of_files(server) == []
        assert_frame_equal(
            units.filter(one).select("spike_times").collect(), truth.filter(one).select("spike_times")
        )
        assert set(asked_of_files(server)) == {cube[0].name}


def test_values_on_a_web_server_are_read_by_column(server, urls, tmp_path):
    build_index(urls, tmp_path, values=True)
    for file in filter(Path.is_file, tmp_path.rglob("*")):
        server.objects[f"index/{file.relative_to(tmp_path).as_posix()}"] = file.read_bytes()
    index = server.url_of("index")
    check_values(index, urls)
    lazynwb.clear_cache()
    units = lazynwb.scan_nwb(None, "units", index=index)
    server.reset()
    grouped = units.group_by("location").len().sort("location").collect()
    assert asked_of_files(server) == []
    assert len([seen for seen in server.log if "tables=" in seen.path]) <= 4
    assert grouped["len"].sum() == units.select(pl.len()).collect().item()
    with pytest.raises(LazyNWBError, match="cannot be written"):
        update_index(index, urls[:1], chunk_locations=True)
