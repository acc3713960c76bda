"""Warm queries on remote files: confirmation without a request that a file has not changed."""

import os
import time

import pytest
from polars.testing import assert_frame_equal

import lazynwb
from builders import write_session
from checks import run_child
from dandi_server import DandiServer, identifier
from lazynwb.column_store.store import forget_entries
from lazynwb.lookup import catalog_cache
from lazynwb.storage import remote_state, revalidation
from lazynwb.storage.resolve import resolve
from range_server import RangeServer
from stores import call
from zarr_stores import corpus

BLOB = "blobs/0a1/b2c/0a1b2c3d-1111-2222-3333-444455556666"
IMMUTABLE = [
    f"https://dandiarchive.s3.amazonaws.com/{BLOB}",
    f"s3://dandiarchive/{BLOB}",
    f"https://s3.us-east-2.amazonaws.com/dandiarchive/{BLOB}",
    f"https://dandiarchive-embargo.s3.amazonaws.com/{BLOB}?X-Amz-Signature=abc",
    "https://bucket.s3.amazonaws.com/a.nwb?versionId=3HL4kqtJvjVBH40Nrjfkd",
    "https://bucket.s3.amazonaws.com/a.nwb?x=1&versionId=3HL4",
    "https://storage.googleapis.com/bucket/a.nwb?generation=1690000000000000",
    "https://account.blob.core.windows.net/c/a.nwb?versionid=2024-01-01T00:00:00.0000000Z",
]
MUTABLE = [
    "https://dandiarchive.s3.amazonaws.com/blobs/0a1/b2c/ffffff3d-1111-2222-3333-444455556666",
    "https://example.org/data/mine/blobs/0a1/b2c/0a1b2c3d-1111-2222-3333-444455556666",
    f"https://dandiarchive.s3.amazonaws.com/{BLOB}.nwb",
    f"https://dandiarchive.s3.amazonaws.com/{BLOB}/0/0",
    "https://dandiarchive.s3.amazonaws.com/zarr/0a1b2c3d-1111-2222-3333-444455556666/",
    "https://bucket.s3.amazonaws.com/a.nwb?versionId=null",
    "https://bucket.s3.amazonaws.com/a.nwb?versionId=",
    "https://bucket.s3.amazonaws.com/a.nwb?xversionId=3",
    "https://example.org/a.nwb?generation=3",
    "https://example.org/a.nwb",
    "s3://bucket/a.nwb",
    "s3://bucket/a.nwb?versionId=3",  # a question mark is part of a name there
    "dandi://dandi/000001/a.nwb",
]


def trials(sources, **options):
    return lazynwb.scan_nwb(sources, "/intervals/trials", **options).collect()


def cost(query):
    """Run a query as in a new process; return its result and the number of requests."""
    for forget in (catalog_cache.clear_memory, remote_state.forget, forget_entries):
        forget()
    with lazynwb.profile() as profile:
        frame = query()
    return frame, profile.requests


@pytest.fixture
def server():
    with RangeServer() as running:
        yield running


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sessions")
    return [write_session(folder / f"{k}.nwb", k) for k in range(3)]


# -- immutable objects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"), [*((u, True) for u in IMMUTABLE), *((u, False) for u in MUTABLE)]
)
def test_immutable_urls(url, expected):
    assert revalidation.is_immutable(resolve(url)) is expected


@pytest.mark.parametrize("path", [BLOB, f"bucket/{BLOB}", "a.nwb?versionId=3HL4kqt"])
def test_immutable_objects_need_no_requests(path, server, sessions):
    server.objects[path.partition("?")[0]] = sessions[0].read_bytes()
    url = f"{server.url}/{path}"
    lazynwb.config.recheck_seconds = 0
    first, cold = cost(lambda: trials(url))
    assert cold > 0
    server.reset()
    for _ in range(2):
        again, requests = cost(lambda: trials(url))
        assert_frame_equal(again, first)
        assert (requests, server.count) == (0, 0)
    # Large data is requested, on the condition that it is of that version.
    lazynwb.scan_nwb(url, "units").select("spike_times").collect()
    assert server.count > 0


def test_immutable_objects_need_no_requests_in_other_processes(server, sessions, cache_dir):
    server.objects[BLOB] = sessions[0].read_bytes()
    url = f"{server.url}/{BLOB}"
    expected = trials(url)
    server.reset()
    script = f"import lazynwb; print(lazynwb.scan_nwb({url!r}, '/intervals/trials').collect().height)"
    assert run_child(script).strip() == str(expected.height)
    assert server.count == 0


def test_a_changed_immutable_object_is_an_error_at_most_once(server, sessions):
    """Servers other than that of the archive may do this; data of two versions is not mixed."""
    server.objects[BLOB] = sessions[0].read_bytes()
    url = f"{server.url}/{BLOB}"
    trials(url)
    server.objects[BLOB] = sessions[1].read_bytes()
    spikes = lambda: lazynwb.scan_nwb(url, "units").select("spike_times").collect()  # noqa: E731
    try:
        found = cost(spikes)[0]
    except lazynwb.SourceChangedError:
        found = spikes()
    assert_frame_equal(found, lazynwb.scan_nwb(sessions[1], "units").select("spike_times").collect())


def test_blobs_of_assets_need_no_requests(server, sessions, monkeypatch):
    monkeypatch.delenv("DANDI_API_KEY", raising=False)
    paths = [f"sub-1/{path.name}" for path in sessions]
    with DandiServer(server.url) as archive:
        lazynwb.config.dandi_api_url = archive.url
        for path, asset in zip(sessions, archive.publish("000001", "draft", paths).values(), strict=True):
            server.objects[asset.key] = path.read_bytes()
        url = "dandi://000001/draft/"
        first, _ = cost(lambda: trials(url))
        server.reset()
        again, _ = cost(lambda: trials(url))
        assert_frame_equal(again, first)
        assert server.count == 0  # the archive alone was asked, for the listing
        # The asset gets another content, and so another blob.
        asset = archive.dandisets["000001"].versions["draft"][1]
        asset.store_id = identifier("another")
        server.objects[asset.key] = sessions[0].read_bytes()
        changed, _ = cost(lambda: trials(url))
        assert server.count > 0
        assert {seen.path for seen in server.log} == {asset.key}
        expected = trials([sessions[0], sessions[0], sessions[2]])
        assert_frame_equal(changed.drop("_nwb_path"), expected.drop("_nwb_path"))


# -- settings ---------------------------------------------------------------------------------------------


def test_checks_are_shared_with_other_processes_within_revalidate_seconds(server, sessions):
    server.objects["a.nwb"] = sessions[0].read_bytes()
    url = server.url_of("a.nwb")
    first, _ = cost(lambda: trials(url))
    assert cost(lambda: trials(url))[1] == 1  # by default every process asks once
    lazynwb.config.revalidate_seconds = 3600
    cost(lambda: trials(url))
    server.reset()
    again, requests = cost(lambda: trials(url))
    assert (requests, server.count) == (0, 0)
    assert_frame_equal(again, first)


def test_expired_checks_are_repeated(server, sessions, monkeypatch):
    server.objects["a.nwb"] = sessions[0].read_bytes()
    url = server.url_of("a.nwb")
    lazynwb.config.revalidate_seconds = 3600
    trials(url)
    assert cost(lambda: trials(url))[1] == 0
    now = time.time
    for shift in (3601, -10):  # a clock that was set back says nothing of how old a check is
        monkeypatch.setattr(time, "time", lambda shift=shift: now() + shift)
        assert cost(lambda: trials(url))[1] == 1
        monkeypatch.undo()
        lazynwb.config.revalidate_seconds = 3600


def test_a_replaced_file_is_detected_after_the_revalidation_period(server, sessions):
    url = server.url_of("a.nwb")
    server.objects["a.nwb"] = sessions[0].read_bytes()
    lazynwb.config.recheck_seconds, lazynwb.config.revalidate_seconds = 0, 0.2
    trials(url)
    server.objects["a.nwb"] = sessions[1].read_bytes()
    time.sleep(0.25)
    expected = trials(sessions[1]).drop("_nwb_path")
    assert_frame_equal(cost(lambda: trials(url))[0].drop("_nwb_path"), expected)


def test_data_of_another_version_is_never_mixed_in(server, sessions):
    url = server.url_of("a.nwb")
    server.objects["a.nwb"] = sessions[0].read_bytes()
    lazynwb.config.revalidate_seconds = 3600
    trials(url)
    lazynwb.scan_nwb(url, "units").select("unit_id").collect()
    server.objects["a.nwb"] = sessions[1].read_bytes()
    spikes = lambda: lazynwb.scan_nwb(url, "units").select("unit_id", "spike_times").collect()  # noqa: E731
    with pytest.raises(lazynwb.SourceChangedError):
        cost(spikes)
    expected = lazynwb.scan_nwb(sessions[1], "units").select("unit_id", "spike_times").collect()
    assert_frame_equal(spikes(), expected)
    assert_frame_equal(cost(spikes)[0], expected)


# -- listings ---------------------------------------------------------------------------------------------

clouds = pytest.mark.parametrize("kind", ["s3", "azure", "gcs"])


@pytest.fixture
def cloud(kind, request, monkeypatch):
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return request.getfixturevalue(kind)


@clouds
@pytest.mark.parametrize("place", ["", "*.nwb"])
def test_files_of_a_folder_or_pattern_are_validated_by_its_listing(kind, cloud, place, sessions, request):
    folder = f"listed{abs(hash(request.node.name)) % 10**8}"
    for path in sessions:
        cloud.put(f"private/{folder}/{path.name}", path.read_bytes())
    url = f"{cloud.scheme}://private/{folder}/{place}"
    query = lambda: trials(url, storage_options=cloud.options)  # noqa: E731
    first, _ = cost(query)
    listing = cost(lambda: lazynwb.storage.resolve.expand(url, cloud.options))[1]
    again, requests = cost(query)
    assert_frame_equal(again, first)
    assert requests == listing <= 2  # of a folder: whether it is a Zarr store
    # One of them is replaced: only that one is looked at, at once.
    cloud.put(f"private/{folder}/1.nwb", write_session(sessions[1].with_name("other.nwb"), 7).read_bytes())
    changed = query()
    expected = trials([sessions[0], sessions[1].with_name("other.nwb"), sessions[2]])
    assert_frame_equal(changed.drop("_nwb_path"), expected.drop("_nwb_path"))
    again, requests = cost(query)
    assert_frame_equal(again, changed)
    assert requests == listing


@clouds
def test_listings_are_reused_within_recheck_seconds(kind, cloud, sessions):
    cloud.put("private/old/a.nwb", sessions[0].read_bytes())
    url = f"{cloud.scheme}://private/old/*.nwb"
    query = lambda: trials(url, storage_options=cloud.options)  # noqa: E731
    first, _ = cost(query)
    lazynwb.config.recheck_seconds = 0
    again, requests = cost(query)
    assert_frame_equal(again, first)
    assert requests > 1


@pytest.mark.long
@pytest.mark.parametrize("kind", ["s3"])
@pytest.mark.parametrize("name", ["v2-gzip-apart", "v2-plain-consolidated", "v3-plain-consolidated"])
def test_zarr_stores_are_validated_by_the_listing_of_their_documents(kind, cloud, name, tmp_path):
    """Each store has a different metadata document."""
    store = corpus()[name](tmp_path / "a.zarr")
    for file in store.rglob("*"):
        if file.is_file():
            cloud.put(f"private/{name}/a.zarr/{file.relative_to(store).as_posix()}", file.read_bytes())
    url = f"s3://private/{name}/*.zarr"

    def query():
        lf = lazynwb.scan_nwb(url, "units", storage_options=cloud.options, exclude_array_columns=True)
        return lf.select("id").collect()

    first, _ = cost(query)
    again, requests = cost(query)
    assert_frame_equal(again, first)
    assert requests == 1  # the listing
    (document,) = [key for key in (".zmetadata", "zarr.json", ".zgroup") if (store / key).exists()][:1]
    text = (store / document).read_bytes()
    cloud.put(f"private/{name}/a.zarr/{document}", text + b" ")
    again, requests = cost(query)
    assert_frame_equal(again, first)
    assert requests > 1


# -- contents of listings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "meta", "expected"),
    [
        ('10\te\t"a"', {"size": 10, "e_tag": '"a"'}, True),
        ('10\te\t"a"', {"size": 10, "e_tag": "a"}, True),  # Azure
        ('10\tv5\t"a"', {"size": 10, "e_tag": '"a"'}, True),
        ('10\te\t"a"', {"size": 11, "e_tag": '"a"'}, False),
        ('10\te\t"a"', {"size": 10, "e_tag": '"b"'}, False),
        ('10\te\t"a"', {"size": 10, "e_tag": None}, False),
        ('10\te\t"a"', {"size": 10}, False),
        ('10\te\t"a"', {"e_tag": '"a"'}, False),
        ('10\te\tW/"a"', {"size": 10, "e_tag": 'W/"a"'}, False),
        ("10\tv5\t", {"size": 10, "e_tag": ""}, False),
        ("10\t?", {"size": 10}, False),
        ('10\te\t"a"', None, False),
        ("absent", {"size": 10}, False),
    ],
)
def test_an_incomplete_listing_confirms_nothing(identity, meta, expected):
    assert revalidation.matches_listing(identity, meta) is expected


def test_dates_validate_files_without_etags():
    from datetime import UTC, datetime

    when = datetime(2024, 1, 2, tzinfo=UTC)
    identity = f"10\tm{when.timestamp()}"
    assert revalidation.matches_listing(identity, {"size": 10, "last_modified": when})
    assert not revalidation.matches_listing(identity, {"size": 10, "last_modified": when.replace(day=3)})
    assert not revalidation.matches_listing(identity, {"size": 10, "last_modified": when, "e_tag": '"a"'})
    assert not revalidation.matches_listing(identity, {"size": 10, "last_modified": None})


@pytest.mark.parametrize("kind", ["s3"])
def test_the_same_content_as_another_version_is_the_same_file(kind, cloud, sessions):
    """A listing has ETags but no versions, so an unchanged upload is the same file."""
    signed = (
        "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    )
    port = int(cloud.url.rpartition(":")[2])
    status = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    call(port, "PUT", "/versioned", authorization=signed)
    call(port, "PUT", "/versioned?versioning", status, authorization=signed)
    url = "s3://versioned/*.nwb"

    def put(data):
        call(port, "PUT", "/versioned/a.nwb", data, authorization=signed)

    def spikes():
        lf = lazynwb.scan_nwb(url, "units", storage_options=cloud.options)
        return lf.select("unit_id", "spike_times").collect()

    put(sessions[0].read_bytes())
    first, _ = cost(spikes)
    identity = lazynwb.storage.resolve.expand(url, cloud.options)[0].identity()
    assert identity.partition("\t")[2].startswith("v")
    put(sessions[0].read_bytes())
    assert_frame_equal(cost(spikes)[0], first)
    put(sessions[1].read_bytes())
    local = lazynwb.scan_nwb(sessions[1], "units").select("unit_id", "spike_times").collect()
    assert_frame_equal(cost(spikes)[0], local)
