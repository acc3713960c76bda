"""Dandisets as sources: listings and locations of assets, from an archive on loopback."""

import gzip
import logging
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

import lazynwb
from dandi_server import DandiServer, Fault, identifier
from lazynwb.errors import LazyNWBError, SourceNotFoundError
from lazynwb.storage import http_client, retry
from lazynwb.storage.dandi import api as dandi_api
from lazynwb.storage.dandi import asset_listing as dandi_listing
from lazynwb.storage.dandi import resolver
from lazynwb.storage.dandi.resolver import Asset, expand, get_dandi_sources, resolve, resolve_all

VERSION = "0.231012.2129"
OLDER = "0.220101.0000"
KEY = "c0ffee1234567890"
FILES = ["sub-1/a.nwb", "sub-1/b.nwb", "sub-10/c d,e.nwb", "sub-2/deep/f.nwb.zarr"]
OTHERS = ["dataset_description.json", "sub-1/a.nwb.json", "sub-1/movie.mp4", "sub-2/image.ome.zarr"]


@pytest.fixture
def archive(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("DANDI_API_KEY", raising=False)
    resolver.forget()
    with DandiServer() as running:
        lazynwb.config.dandi_api_url = running.url
        running.keys = {KEY: True, "0ther": False}
        running.publish("000363", OLDER, ["sub-1/a.nwb"])
        running.publish("000363", VERSION, [*FILES, *OTHERS])
        running.publish("000363", "draft", [*FILES, "sub-3/new.nwb"])
        running.publish("000728", "draft", ["a.nwb"])
        yield running
    resolver.forget()


@pytest.fixture
def embargoed(archive, monkeypatch):
    monkeypatch.setenv("DANDI_API_KEY", KEY)
    archive.publish("001111", "draft", ["a.nwb", "b.nwb", "c.nwb.zarr"], embargoed=True)
    return archive


@pytest.fixture
def pauses(monkeypatch):
    """Record the pauses between attempts without waiting."""
    made = []
    clock = SimpleNamespace(monotonic=time.monotonic, time=time.time, sleep=made.append)
    monkeypatch.setattr(retry, "time", clock)
    return made


def urls(paths, version=VERSION, dandiset="000363"):
    return [f"dandi://{dandiset}/{version}/{path}" for path in paths]


# --- listing a dandiset -------------------------------------------------------------------------------


def test_the_newest_published_version_is_listed_unless_another_is_named(archive):
    assert get_dandi_sources("000363") == urls(FILES)
    assert get_dandi_sources("000363", OLDER) == urls(["sub-1/a.nwb"], OLDER)
    assert get_dandi_sources("000363", "draft") == urls([*FILES, "sub-3/new.nwb"], "draft")


def test_the_draft_is_listed_without_a_published_version(archive):
    assert get_dandi_sources("000728") == ["dandi://000728/draft/a.nwb"]


@pytest.mark.parametrize("dandiset", ["000363", "363", "DANDI:000363", "dandi:000363"])
def test_forms_of_a_dandisets_number(archive, dandiset):
    assert get_dandi_sources(dandiset) == urls(FILES)


def test_a_new_version_is_used_immediately(archive):
    assert get_dandi_sources("000728") == ["dandi://000728/draft/a.nwb"]
    archive.publish("000728", VERSION, ["a.nwb"])
    assert get_dandi_sources("000728") == [f"dandi://000728/{VERSION}/a.nwb"]


def test_a_listing_of_many_pages(archive):
    paths = [f"sub-{number:02}.nwb" for number in range(10)]
    archive.publish("000800", "draft", paths)
    archive.page_size = 3
    assert get_dandi_sources("000800", "draft") == urls(paths, "draft", "000800")
    assert [seen.query.get("page") for seen in archive.log] == [None, "2", "3", "4"]
    assert archive.log[0].query == {"order": "path", "glob": "*.nwb*", "page_size": "1000"}


def test_a_growing_draft_is_listed_without_duplicates(archive):
    archive.publish("000800", "draft", ["b.nwb", "c.nwb", "d.nwb"])
    archive.page_size = 2
    pages = dandi_api.pages

    def growing(path, query):
        for page in pages(path, query):
            yield page
            archive.publish("000800", "draft", ["a.nwb", "b.nwb", "c.nwb", "d.nwb"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dandi_api, "pages", growing)
        assert get_dandi_sources("000800") == urls(["b.nwb", "c.nwb", "d.nwb"], "draft", "000800")


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("path", FILES),
        ("-path", FILES[::-1]),
        ("created", FILES[::-1]),
        ("-created", FILES),
        ("modified", [FILES[0], FILES[3], FILES[2], FILES[1]]),
        ("-modified", [FILES[1], FILES[2], FILES[3], FILES[0]]),
    ],
)
def test_listings_are_sorted_by_the_requested_order(archive, order, expected):
    archive.publish("000363", VERSION, FILES)
    assert get_dandi_sources("000363", order=order) == urls(expected)


def test_a_listing_stops_once_enough_assets_are_found(archive):
    archive.publish("000363", VERSION, FILES)
    assert get_dandi_sources("000363", VERSION, max_assets=2) == urls(FILES[:2])
    assert len(archive.log) == 1
    assert archive.log[0].query["page_size"] == "2"
    assert get_dandi_sources("000363", VERSION, max_assets=0) == []
    assert get_dandi_sources("000363", VERSION, max_assets=100) == urls(FILES)


def test_filters_apply_to_listing_and_metadata(archive):
    seen = []

    def is_second(asset):
        seen.append(asset)
        return asset["wasAttributedTo"][0]["identifier"] == "sub-2"

    assert get_dandi_sources("000363", VERSION, asset_filter=is_second) == urls(FILES[3:])
    assert archive.log[-1].query["metadata"] == "true"
    assert [asset["path"] for asset in seen] == FILES
    assert seen[0].keys() >= {"asset_id", "size", "created", "modified", "blob", "zarr", "contentUrl"}
    assert seen[0]["metadata"]["wasAttributedTo"] == [{"identifier": "sub-1"}]


def test_a_limit_applies_after_the_filter(archive):
    archive.page_size = 1
    sources = get_dandi_sources("000363", VERSION, asset_filter=lambda a: a["zarr"] is None, max_assets=3)
    assert sources == urls(FILES[:3])
    assert get_dandi_sources("000363", VERSION, asset_filter=lambda a: False) == []


def test_metadata_are_only_requested_with_a_filter(archive):
    get_dandi_sources("000363", VERSION)
    assert "metadata" not in archive.log[-1].query


# --- chosen assets ------------------------------------------------------------------------------------


def ids(paths, version=VERSION):
    return [identifier("asset", "000363", version, path) for path in paths]


def test_chosen_assets_come_in_their_order(archive):
    chosen = [FILES[3], FILES[0]]
    assert get_dandi_sources("000363", VERSION, asset_ids=ids(chosen)) == urls(chosen)
    assert get_dandi_sources("000363", asset_ids=ids(chosen)[0].upper()) == urls(chosen[:1])
    assert get_dandi_sources("000363", asset_ids=[]) == []
    chosen = ids(FILES)
    assert get_dandi_sources("000363", asset_ids=chosen, asset_filter=lambda a: a["zarr"]) == urls(FILES[3:])
    assert get_dandi_sources("000363", asset_ids=iter(chosen), max_assets=1) == urls(FILES[:1])


def test_many_chosen_assets_are_found_by_one_listing(archive):
    paths = [f"{number:03}.nwb" for number in range(100)]
    archive.publish("000363", VERSION, paths)
    chosen = paths[70:40:-1]
    assert get_dandi_sources("000363", VERSION, asset_ids=ids(chosen)) == urls(chosen)
    assert len(archive.log) == 1
    archive.page_size = 10  # the listing is left where single look-ups are quicker
    archive.log.clear()
    assert get_dandi_sources("000363", VERSION, asset_ids=ids(chosen)) == urls(chosen)
    assert len(archive.log) == 31


def test_chosen_assets_that_do_not_exist(archive):
    unknown = identifier("unknown")
    with pytest.raises(SourceNotFoundError, match=unknown):
        get_dandi_sources("000363", asset_ids=[unknown])
    with pytest.raises(SourceNotFoundError, match=r"no asset.*in version 0\.220101"):
        get_dandi_sources("000363", OLDER, asset_ids=ids(FILES[:1]))
    with pytest.raises(SourceNotFoundError, match="no version"):
        get_dandi_sources("000363", "0.0.1", asset_ids=[unknown])
    with pytest.raises(SourceNotFoundError, match=r"movie\.mp4"):
        get_dandi_sources("000363", asset_ids=ids([FILES[0], "sub-1/movie.mp4"]))
    with pytest.raises(SourceNotFoundError, match=r"'\.\./x' is not the identifier of an asset"):
        get_dandi_sources("000363", asset_ids=["../x"])


# --- what does not exist ------------------------------------------------------------------------------


def test_an_unknown_dandiset(archive):
    for ask in (get_dandi_sources, lambda number: expand(f"dandi://{number}/draft/")):
        with pytest.raises(SourceNotFoundError, match="no dandiset 999999: check"):
            ask("999999")
    with pytest.raises(SourceNotFoundError, match="no dandiset 999999"):
        get_dandi_sources("999999", VERSION)


@pytest.mark.parametrize("version", ["0.999999.0000", "latest", "../draft"])
def test_an_unknown_version(archive, version):
    with pytest.raises(SourceNotFoundError) as caught:
        get_dandi_sources("000363", version)
    assert repr(version) in str(caught.value)
    assert VERSION in str(caught.value)
    with pytest.raises(SourceNotFoundError, match="none has been published; 'draft' always exists"):
        get_dandi_sources("000728", version)


@pytest.mark.parametrize("dandiset", ["", "abc", "0003631", "000363/draft", "../info"])
def test_invalid_dandiset_identifiers(archive, dandiset):
    with pytest.raises(SourceNotFoundError, match="six digits"):
        get_dandi_sources(dandiset)
    assert archive.log == []


def test_invalid_arguments(archive):
    with pytest.raises(ValueError, match="-created"):
        get_dandi_sources("000363", order="size")
    with pytest.raises(ValueError, match="max_assets"):
        get_dandi_sources("000363", max_assets=-1)


# --- URLs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("dandi://000363", FILES),
        ("dandi://363/", FILES),
        (f"DANDI://000363/{VERSION}", FILES),
        (f"dandi://000363/{VERSION}/sub-1", FILES[:2]),
        ("dandi://000363/sub-1/", FILES[:2]),
        ("dandi://000363/sub-2", FILES[3:]),
        ("dandi://000363/sub-1*/*.nwb", FILES[:3]),
        ("dandi://000363/*.nwb", []),
        ("dandi://000363/**/*.nwb", FILES[:3]),
        ("dandi://000363/sub-?/[bc].nwb", FILES[1:2]),
        ("dandi://000363/sub-1/*", FILES[:2]),
        (f"dandi://000363/{VERSION}/sub-2/**", FILES[3:]),
        ("dandi://000363/sub-10/c d,e.nwb", FILES[2:3]),
        (f"dandi://000363/{VERSION}/sub-2/deep/f.nwb.zarr/", FILES[3:]),
        ("dandi://000363/sub-1/movie.mp4", ["sub-1/movie.mp4"]),
        ("dandi://000363/nowhere/", []),
        ("dandi://000363/sub-1/mov", []),
    ],
)
def test_urls_are_expanded(archive, url, expected):
    if expected:
        assert expand(url) == urls(expected)
        assert [expand(one) for one in urls(expected)] == [[one] for one in urls(expected)]
    else:
        with pytest.raises(SourceNotFoundError) as caught:
            expand(url)
        assert url in str(caught.value)


def test_the_url_of_an_asset_only_requests_its_version(archive):
    assert expand("dandi://000363/draft/gone.nwb") == ["dandi://000363/draft/gone.nwb"]
    assert archive.log == []
    assert expand("dandi://000363/gone.nwb") == urls(["gone.nwb"])
    assert expand("dandi://000363/other.nwb.zarr") == urls(["other.nwb.zarr"])
    assert archive.paths == ["dandisets/000363/"]


def test_a_name_with_brackets_is_a_pattern_and_a_literal_name(archive):
    archive.publish("000728", "draft", ["a[1].nwb", "a1.nwb"])
    assert expand("dandi://000728/draft/a[1].nwb") == ["dandi://000728/draft/a[1].nwb"]
    archive.publish("000728", "draft", ["a1.nwb"])
    assert expand("dandi://000728/draft/a[1].nwb") == ["dandi://000728/draft/a1.nwb"]


def test_urls_with_errors_that_suggest_dandi_urls(archive):
    for url in ("s3://bucket/a.nwb", "dandi:/000363"):
        with pytest.raises(SourceNotFoundError, match="dandi://000363"):
            expand(url)
    with pytest.raises(SourceNotFoundError, match="six digits"):
        expand("dandi://*/a.nwb")


# --- from URLs to bytes -------------------------------------------------------------------------------


def test_open_assets_are_in_the_bucket(archive):
    assets = archive.publish("000363", VERSION, FILES)
    for path in FILES:
        (url,) = urls([path])
        assert resolve(url) == Asset(f"https://bucket.test/{assets[path].key}", (), expires=False)
    assert resolve(url).url.endswith("/")  # the last one is a Zarr store
    assert "/blobs/" in resolve(urls(FILES)[0]).url


def test_listed_assets_need_no_more_requests(archive):
    paths = [f"sub-{number:03}.nwb" for number in range(200)]
    assets = archive.publish("000363", VERSION, paths)
    sources = get_dandi_sources("000363")
    archive.log.clear()
    for expected in (1, 0, 0):  # once, to see where the bucket is
        found = [one.url for one in resolve_all(sources)]
        assert found == [archive.url_of(assets[path]) for path in paths]
        assert len(archive.log) == expected
        archive.log.clear()
    assert [resolve(source).url for source in sources] == found
    assert archive.log == []


def test_a_listing_with_metadata_reveals_the_bucket(archive):
    sources = get_dandi_sources("000363", VERSION, asset_filter=lambda asset: True)
    resolve_all(sources)
    assert len(archive.log) == 1


def test_one_asset_takes_one_request(archive):
    resolve(urls(FILES)[0])
    assert len(archive.log) == 1
    assert resolve_all(urls([FILES[1], FILES[0], FILES[1]])) == [
        resolve(url) for url in urls([FILES[1], FILES[0], FILES[1]])
    ]
    assert len(archive.log) == 2


def test_unlisted_assets_are_found_by_one_listing(archive):
    paths = [f"sub-1/{number}.nwb" for number in range(10)]
    assets = archive.publish("000363", VERSION, [*paths, "other.nwb"])
    archive.publish("000728", "draft", paths)
    found = resolve_all([*urls(paths), "dandi://000728/draft/sub-1/3.nwb"])
    assert [one.url for one in found[:-1]] == [archive.url_of(assets[path]) for path in paths]
    assert len(archive.log) == 3
    assert archive.log[0].query["path"] == "sub-1/"


def test_an_asset_of_any_name(archive):
    paths = [*FILES, *OTHERS]
    assets = archive.publish("000363", VERSION, paths)
    assert [one.url for one in resolve_all(urls(paths))] == [archive.url_of(assets[path]) for path in paths]


def test_names_with_a_common_prefix(archive):
    assets = archive.publish("000363", VERSION, ["a.nwb", "A.nwb", "a.nwb.zarr", "a.nwb2"])
    assert resolve(urls(["a.nwb"])[0]).url == archive.url_of(assets["a.nwb"])
    assert resolve(urls(["a.nwb2"])[0]).url == archive.url_of(assets["a.nwb2"])
    with pytest.raises(SourceNotFoundError, match=r"no asset a\.nw in"):
        resolve(urls(["a.nw"])[0])


def test_a_missing_asset(archive):
    for ask in (lambda: resolve(urls(["gone.nwb"])[0]), lambda: resolve_all(urls([*FILES, "gone.nwb"]))):
        with pytest.raises(SourceNotFoundError, match=r"no asset gone\.nwb in version 0\.231012"):
            ask()
    with pytest.raises(SourceNotFoundError, match="without a path"):
        resolve("dandi://000363/draft")
    assert resolve_all([]) == []


def test_the_newest_version_is_the_default(archive):
    assert resolve("dandi://000363/sub-1/a.nwb") == resolve(urls(["sub-1/a.nwb"])[0])
    assert resolve("dandi://000363/sub-1/a.nwb") != resolve("dandi://000363/draft/sub-1/a.nwb")


@pytest.mark.parametrize("filtered", [False, True])
def test_a_bucket_of_another_layout(archive, filtered):
    archive.key_of = lambda asset: f"somewhere/{asset.asset_id}.bin"
    options = {"asset_filter": lambda asset: True} if filtered else {}
    sources = get_dandi_sources("000363", **options)
    archive.log.clear()
    found = [one.url for one in resolve_all(sources)]
    assert found == [f"https://bucket.test/somewhere/{one}.bin" for one in ids(FILES)]
    assert len(archive.log) == (0 if filtered else len(FILES))


def test_assets_that_are_only_available_from_the_api(archive):
    archive.bucket = "file:///bucket"  # no URL that anything can be read from, as in metadata without one
    sources = get_dandi_sources("000363")
    archive.signed_redirect = lambda url: (302, {"Location": "https://signed.test/?signature=secret"})
    assert resolve(sources[0]) == Asset("https://signed.test/?signature=secret", (), expires=True)
    store = resolve(sources[3])
    assert store.url.startswith(f"{archive.url}/zarr/")
    assert store.headers == ()


def test_drafts_are_cached_for_a_while(archive, monkeypatch):
    url = "dandi://000363/draft/sub-1/a.nwb"
    before = resolve(url)
    archive.dandisets["000363"].versions["draft"][0].store_id = identifier("replaced")
    assert resolve(url) == before
    after = resolve(url, fresh=True)
    assert after != before
    assert resolve(url) == after
    archive.dandisets["000363"].versions["draft"][0].store_id = identifier("replaced again")
    later = time.monotonic() + 3600
    monkeypatch.setattr(dandi_listing, "time", SimpleNamespace(monotonic=lambda: later))
    assert resolve(url) != after


def test_the_cache_of_assets_is_bounded(archive, monkeypatch):
    monkeypatch.setattr(dandi_listing, "MAX_ASSETS_KEPT", 10)
    paths = [f"{number:02}.nwb" for number in range(50)]
    archive.publish("000363", VERSION, paths)
    sources = get_dandi_sources("000363")
    resolve(sources[-1])
    before = len(archive.log)
    resolve(sources[-10])
    assert len(archive.log) == before  # one of the ten that are cached
    resolve(sources[0])
    assert len(archive.log) > before
    assert len({one.url for one in resolve_all(sources)}) == 50


# --- embargo ------------------------------------------------------------------------------------------


def test_embargoed_files_have_signed_urls(embargoed):
    sources = get_dandi_sources("001111")
    assert sources == urls(["a.nwb", "b.nwb", "c.nwb.zarr"], "draft", "001111")
    first, second = resolve_all(sources[:2])
    assert first.expires
    assert first.headers == ()
    assert first.url.startswith("https://bucket.test/blobs/")
    assert "X-Amz-Signature=" in first.url
    assert second.url != first.url
    assert resolve(sources[0]).url != first.url  # signed anew


def test_the_objects_of_an_embargoed_store_are_signed_by_the_api(embargoed):
    store = resolve("dandi://001111/draft/c.nwb.zarr")
    name = identifier("store", "001111", "draft", "c.nwb.zarr")
    assert store.url == f"{embargoed.url}/zarr/{name}/files/?download=true&prefix="
    assert store.headers == (("Authorization", f"token {KEY}"),)
    assert not store.expires
    path = (store.url + "units/spike_times/.zarray").removeprefix(embargoed.url + "/")
    assert dandi_api.redirect(path).startswith(
        f"https://bucket.test/zarr/{name}/units/spike_times/.zarray?X-Amz"
    )


def test_an_api_key_does_not_change_open_dandisets(embargoed):
    assert resolve(urls(FILES)[0]) == Asset(
        f"https://bucket.test/blobs/{_folders(identifier('store', '000363', VERSION, FILES[0]))}"
    )
    assert {seen.headers["authorization"] for seen in embargoed.log} == {f"token {KEY}"}


def _folders(name):
    return f"{name[:3]}/{name[3:6]}/{name}"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("", "if it is embargoed, set the environment variable DANDI_API_KEY"),
        ("wr0ngkey", "the key in the environment variable DANDI_API_KEY is invalid"),
        ("0ther", "ask its owners for access with the account of the key"),
    ],
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda: get_dandi_sources("001111"),
        lambda: get_dandi_sources("001111", "draft"),
        lambda: get_dandi_sources("001111", asset_ids=[identifier("asset", "001111", "draft", "a.nwb")]),
        lambda: expand("dandi://001111"),
        lambda: resolve("dandi://001111/draft/a.nwb"),
    ],
)
def test_embargoed_dandisets_without_the_right_key(embargoed, monkeypatch, key, hint, ask):
    monkeypatch.setenv("DANDI_API_KEY", key)
    with pytest.raises(LazyNWBError, match=hint) as caught:
        ask()
    assert "001111" in str(caught.value)
    assert key not in str(caught.value) or not key


@pytest.mark.parametrize("key", ["a b", "line\nbreak", "schlüssel"])
def test_invalid_keys_are_refused(archive, monkeypatch, key):
    monkeypatch.setenv("DANDI_API_KEY", key)
    with pytest.raises(LazyNWBError, match="DANDI_API_KEY") as caught:
        get_dandi_sources("000363")
    assert key not in str(caught.value)


def test_spaces_around_a_key_are_removed(embargoed, monkeypatch):
    monkeypatch.setenv("DANDI_API_KEY", f" {KEY}\n")
    assert len(get_dandi_sources("001111")) == 3


def test_signatures_and_keys_are_not_shown(embargoed, caplog):
    caplog.set_level(logging.DEBUG)
    shown = repr(resolve_all(get_dandi_sources("001111")))
    assert "bucket.test/blobs" in shown
    for text in (shown, caplog.text):
        assert KEY not in text
        assert "secret" not in text


def test_the_key_is_not_sent_to_other_servers(embargoed):
    with DandiServer() as other:
        page = Fault(body=f'{{"results": [], "next": "{other.url}/dandisets/001111/"}}')
        moved = Fault(302, headers={"Location": f"{other.url}/dandisets/001111/"})
        for fault in (page, moved):
            embargoed.faults.append(fault)
            with pytest.raises(LazyNWBError, match="not of the DANDI API"):
                get_dandi_sources("001111", "draft")
        assert other.log == []


# --- faults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500),
        Fault(502, b"<html>"),
        Fault(503),
        Fault(504),
        Fault(429),
        Fault(end="close"),
        Fault(body=b'{"results": []}' * 100, end="cut"),
        Fault(body=b"\x1f\x8b\x08\x00", headers={"Content-Encoding": "gzip"}),
        Fault(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
    ],
)
def test_transient_failures_are_retried(archive, pauses, fault):
    archive.faults.extend([fault, fault, None, fault])
    with lazynwb.profile() as counted:
        assert get_dandi_sources("000363") == urls(FILES)
    for pause, least in zip(pauses, [0.5, 1.0, 0.5], strict=True):
        assert least <= pause <= 1.4 * least
    assert counted.requests == len(archive.log) == 5
    assert counted.retries == 3


def test_retry_after_of_the_archive_is_respected(archive, pauses):
    archive.faults.append(Fault(429, headers={"Retry-After": "7"}))
    archive.faults.append(Fault(503, headers={"Retry-After": formatdate(time.time() + 20, usegmt=True)}))
    archive.faults.append(Fault(503, headers={"Retry-After": "soon"}))
    assert get_dandi_sources("000363") == urls(FILES)
    assert 7 <= pauses[0] <= 7.7
    assert 18 < pauses[1] <= 22
    assert 2 <= pauses[2] <= 2.8


def test_retries_are_limited(archive, pauses):
    lazynwb.config.max_retries = 4
    archive.faults.extend([Fault(500)] * 100)
    with pytest.raises(
        LazyNWBError, match=r"dandisets/000363/ cannot be read \(status 500\).*\(tried 5 times\)"
    ):
        get_dandi_sources("000363")
    assert len(archive.log) == 5


def test_a_long_retry_after_is_not_awaited(archive, pauses):
    archive.faults.append(Fault(429, headers={"Retry-After": "3600"}))
    with pytest.raises(
        LazyNWBError, match=r"status 429.*\(tried 1 time; the server asks to retry after 3600 s"
    ):
        get_dandi_sources("000363")
    assert pauses == []


def test_an_unreachable_server(archive, pauses):
    lazynwb.config.max_retries = 1
    with DandiServer() as gone:
        url = gone.url
    lazynwb.config.dandi_api_url = url
    with pytest.raises(LazyNWBError, match=r"refused.*\(tried 2 times\)"):
        get_dandi_sources("000363")


def test_a_proxy_that_the_environment_names(archive, monkeypatch):
    monkeypatch.setenv("http_proxy", archive.url.removesuffix("/api"))
    http_client.opener.cache_clear()
    lazynwb.config.dandi_api_url = "http://api.test/api"
    try:
        assert get_dandi_sources("000363") == urls(FILES)
    finally:
        http_client.opener.cache_clear()
    assert {seen.headers["host"] for seen in archive.log} == {"api.test"}


def test_a_server_that_does_not_respond(archive, pauses, monkeypatch):
    lazynwb.config.max_retries = 0
    lazynwb.config.request_timeout = 0.1
    answer = archive.answer
    monkeypatch.setattr(archive, "answer", lambda seen: time.sleep(0.5) or answer(seen))
    with pytest.raises(LazyNWBError, match="timeout"):
        get_dandi_sources("000363")


def test_a_server_with_an_endless_response(archive, pauses):
    lazynwb.config.max_retries = 0
    lazynwb.config.request_timeout = 0.1
    archive.faults.append(Fault(body=" " * 1000, end="drip"))
    with pytest.raises(LazyNWBError, match="timeout"):
        get_dandi_sources("000363")


def test_a_response_that_is_not_json(archive):
    archive.faults.append(Fault(body="{}", headers={"Content-Type": "text/html"}))
    with pytest.raises(LazyNWBError, match="invalid JSON"):
        get_dandi_sources("000363")


GOOD = {"asset_id": f'"{identifier("a")}"', "blob": f'"{identifier("b")}"', "zarr": "null", "path": '"a.nwb"'}


def page(**changes):
    """A page with one asset, and a part of it changed."""
    asset = ", ".join(f'"{name}": {value}' for name, value in {**GOOD, **changes}.items())
    return f'{{"next": null, "results": [{{{asset}}}]}}'


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>",
        "[]",
        "null",
        "{",
        b'{"results": "\xff"}',
        "[" * 100_000,
        "{}",
        '{"results": {}}',
        '{"results": [1]}',
        '{"results": [], "next": 5}',
        '{"results": [{}], "next": null}',
        '{"results": [], "next": "?page=2"}',
        page(asset_id="null"),
        page(asset_id='"../../other"'),
        page(blob="null"),
        page(blob='"a/b"'),
        page(zarr="5"),
        page(path="null"),
        page(path='""'),
        page(path="[]"),
    ],
)
def test_responses_that_are_not_from_the_api(archive, pauses, body):
    archive.faults.append(Fault(body=body))
    with pytest.raises(
        LazyNWBError, match="000363/versions/draft/assets/ sent a response that is not of the DANDI"
    ):
        get_dandi_sources("000363", "draft")
    assert pauses == []


def test_the_valid_answer_of_the_test_cases_is_accepted(archive):
    archive.faults.append(Fault(body=page()))
    assert get_dandi_sources("000363", "draft") == urls(["a.nwb"], "draft")


@pytest.mark.parametrize("version", ["5", '{"version": null}', '{"version": "../x"}', "[]"])
def test_a_dandiset_without_a_version(archive, version):
    archive.faults.append(Fault(body=f'{{"most_recent_published_version": {version}}}'))
    with pytest.raises(LazyNWBError, match="an invalid version"):
        get_dandi_sources("000363")


@pytest.mark.parametrize("fault", [Fault(302), Fault(302, headers={"Location": "/local"}), Fault(200)])
def test_a_download_without_a_valid_redirect(embargoed, fault):
    get_dandi_sources("001111")
    embargoed.faults.append(fault)
    with pytest.raises(LazyNWBError, match=f"status {fault.status}, no redirect"):
        resolve("dandi://001111/draft/a.nwb")


def test_an_endless_listing_is_stopped(archive, monkeypatch):
    again = page().replace("null, ", '"?page=2", ', 1)
    archive.faults.extend([Fault(body=again)] * 10)
    with pytest.raises(LazyNWBError, match="never end"):
        get_dandi_sources("000363", "draft")
    assert len(archive.log) == 2
    archive.faults.clear()
    monkeypatch.setattr(dandi_api, "MAX_PAGES", 5)
    archive.faults.extend(Fault(body=again.replace("page=2", f"page={number}")) for number in range(2, 100))
    with pytest.raises(LazyNWBError, match="never end"):
        get_dandi_sources("000363", "draft")
    assert len(archive.log) == 2 + 5


@pytest.mark.parametrize("compressed", [True, False])
def test_a_response_without_an_end(archive, monkeypatch, compressed):
    monkeypatch.setattr(dandi_api, "MAX_BYTES", 20_000)
    body = b" " * 30_000 + b"{}"
    zipped = Fault(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})
    archive.faults.append(zipped if compressed else Fault(body=body))
    with pytest.raises(LazyNWBError, match="too long"):
        get_dandi_sources("000363", "draft")


@pytest.mark.parametrize(
    "url",
    ["", "api.dandiarchive.org", "ftp://host/api", "https://user:pass@host/api", "https://[", "http://a b"],
)
def test_an_invalid_api_url(archive, url):
    lazynwb.config.dandi_api_url = url
    with pytest.raises(LazyNWBError, match="dandi_api_url") as caught:
        get_dandi_sources("000363")
    assert "pass" not in str(caught.value)


def test_listings_of_two_archives_are_separate(archive):
    with DandiServer("https://other.test") as other:
        other.publish("000363", VERSION, FILES)
        here = resolve(urls(FILES)[0])
        lazynwb.config.dandi_api_url = other.url + "/"
        there = resolve(urls(FILES)[0])
    assert here.url.startswith("https://bucket.test/")
    assert there.url == here.url.replace("bucket.test", "other.test")
