"""Behavior of obstore with real servers that this package relies on."""

import obstore
import pytest
from obstore.exceptions import (
    GenericError,
    NotModifiedError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
)
from obstore.store import HTTPStore, from_url

DATA = bytes(range(256)) * 4
NAME = "ranges/a b+c%20é.nwb"
CLOUDS = ("s3", "azure", "gcs")
IGNORES_IF_MATCH = {"gcs"}  # the fake one; the real one heeds it

clouds = pytest.mark.parametrize("kind", CLOUDS)


@pytest.fixture
def cloud(kind, request):
    server = request.getfixturevalue(kind)
    for bucket in ("private", "public"):
        server.put(f"{bucket}/{NAME}", DATA)
    return server


@pytest.fixture
def web(nginx):
    path = nginx.folder / NAME
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(DATA)

    def store(location="/", **headers):
        url = nginx.url_of("", location).removesuffix("/")
        return HTTPStore.from_url(url, client_options={"allow_http": True, "default_headers": headers})

    return store


def bucket(server, name, options):
    return from_url(server.url_of(name), **options)


def get(store, **options):
    answer = obstore.get(store, NAME, options={"range": (10, 20), **options})
    return answer.meta, answer.bytes().to_bytes()


def check_identity(store, *, if_match=True):
    """Assert that a range has the size and ETag of the object, which later requests can require."""
    meta, data = get(store)
    assert (data, meta["size"]) == (DATA[10:20], len(DATA))
    assert meta["e_tag"] == obstore.head(store, NAME)["e_tag"]
    assert meta["e_tag"][0] == meta["e_tag"][-1] == '"'
    assert get(store, if_match=meta["e_tag"])[1] == DATA[10:20]
    if if_match:
        with pytest.raises(PreconditionError):
            get(store, if_match='"another"')
        with pytest.raises(NotModifiedError):
            get(store, if_none_match=meta["e_tag"])


@clouds
def test_ranges_and_identity(kind, cloud):
    check_identity(bucket(cloud, "private", cloud.options), if_match=kind not in IGNORES_IF_MATCH)


@clouds
def test_a_public_bucket_needs_no_credentials(kind, cloud):
    check_identity(bucket(cloud, "public", cloud.anonymous), if_match=kind not in IGNORES_IF_MATCH)


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_a_private_bucket_needs_credentials(kind, cloud):
    with pytest.raises(PermissionDeniedError, match="403"):
        get(bucket(cloud, "private", cloud.anonymous))


@clouds
def test_missing_objects_and_ranges(kind, cloud):
    store = bucket(cloud, "private", cloud.options)
    with pytest.raises(FileNotFoundError, match="404"):
        obstore.get_range(store, "none.nwb", start=0, length=1)
    with pytest.raises(GenericError, match="416"):
        obstore.get_range(store, NAME, start=2 * len(DATA), length=1)


@clouds
def test_a_listing_has_sizes_and_etags(kind, cloud):
    store = bucket(cloud, "private", cloud.options)
    [found] = [entry for entry in obstore.list(store).collect() if entry["path"] == NAME]
    assert found["size"] == len(DATA)
    assert found["e_tag"].strip('"') == obstore.head(store, NAME)["e_tag"].strip('"')


@clouds
def test_changed_content_has_another_etag(kind, cloud):
    store = bucket(cloud, "private", cloud.options)
    before = get(store)[0]["e_tag"]
    cloud.put(f"private/{NAME}", DATA[::-1])
    assert get(store)[0]["e_tag"] != before
    if kind not in IGNORES_IF_MATCH:
        with pytest.raises(PreconditionError):
            get(store, if_match=before)


@pytest.mark.parametrize("location", ["/", "/redirect/", "/gzip/"])
def test_a_web_server(web, location):
    check_identity(web(location))


def test_a_web_server_without_version_headers(web):
    meta, data = get(web("/bare/"))
    assert (data, meta["size"], meta["e_tag"]) == (DATA[10:20], len(DATA), None)
    assert meta["last_modified"].timestamp() == 0


def test_a_web_server_without_ranges(web):
    with pytest.raises(NotSupportedError, match="Range request not supported"):
        get(web("/whole/"))


def test_a_web_server_compresses_responses_on_request(web):
    with pytest.raises(NotSupportedError, match="Range request not supported"):
        get(web("/gzip/", **{"Accept-Encoding": "gzip"}))


def test_a_web_server_that_denies_access(web):
    with pytest.raises(PermissionDeniedError, match="403"):
        get(web("/denied/"))
