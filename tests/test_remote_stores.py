"""Files in object stores, on web servers and in the DANDI archive equal those on disk."""

import itertools
import os
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

import pytest
from polars.testing import assert_frame_equal

import lazynwb
from builders import write_session
from checks import run_child
from dandi_server import DandiServer
from lazynwb.errors import LazyNWBError, NotNWBError, SourceNotFoundError
from lazynwb.storage import remote_listing
from lazynwb.storage.dandi import resolver
from lazynwb.storage.source import Options, Source
from lazynwb.storage.stores import dandi_assets as dandi_store
from lazynwb.storage.stores.registry import locate
from range_server import Fault, RangeServer, always, first, redirect, refuse

NAME = "sub/deep/a b+c%20é#1.nwb"
NAMES = (NAME, "sub/x_01.nwb", "sub/x_02.nwb", "top.nwb")
CLOUDS = ("s3", "azure", "gcs")
SECRET = "not to be told"  # noqa: S105 - that is what is tested
KEYS = {"key": "AKEY", "secret": SECRET}

clouds = pytest.mark.parametrize("kind", CLOUDS)


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """Remove all configuration, and fail on requests for credentials of cloud machines."""
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "DANDI_", "IDENTITY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    lazynwb.config.max_retries = 0
    with RangeServer() as server:
        for name in ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_METADATA_ENDPOINT"):
            monkeypatch.setenv(name, server.url)
        for name in ("GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"):
            monkeypatch.setenv(name, server.url.removeprefix("http://"))
        yield server
        assert server.log == []


@pytest.fixture
def cloud(kind, request, cube):
    server = request.getfixturevalue(kind)
    for bucket in ("private", "public"):
        for name, path in zip(NAMES, cube, strict=False):
            server.put(f"{bucket}/{name}", path.read_bytes())
    server.put("public/stores/z.zarr/0/c", b"chunk")
    server.put("public/stores/z.zarr/zarr.json", b"{}")
    server.put("public/stores/y.nwb/.zgroup", b"{}")
    server.put("public/stores/y.nwb/units/c.nwb", b"{}")
    server.put("public/stores/no store.zarr/.a.nwb", b"{}")
    server.put("public/stores/no store.zarr/a.nwb", cube[0].read_bytes())
    server.put("public/any/session", cube[0].read_bytes())
    return server


@pytest.fixture
def server(cube):
    """A store that accepts any credentials and records them."""
    with RangeServer() as running:
        running.objects["bucket/a.nwb"] = cube[0].read_bytes()
        yield running


def url(cloud, name, bucket="public"):
    return f"{cloud.scheme}://{bucket}/{name}"


def units(source, **options):
    return lazynwb.read_nwb(source, "/units", storage_options=options or None)


def check(source, local, **options):
    """Assert that every function returns the result for the local file."""
    for table in ("/units", "/intervals/trials"):
        frame = lazynwb.scan_nwb(source, table, storage_options=options).collect()
        assert set(frame["_nwb_path"]) == {str(source)}
        assert_frame_equal(frame.drop("_nwb_path"), lazynwb.read_nwb(local, table).drop("_nwb_path"))
    schema = lazynwb.get_table_schema(source, "/units", storage_options=options)
    assert schema == lazynwb.get_table_schema(local, "/units")
    assert lazynwb.get_internal_paths(source, storage_options=options) == lazynwb.get_internal_paths(local)
    query = "SELECT unit_id FROM units WHERE presence_ratio > 0.7"
    tables = lazynwb.get_sql_context(source, storage_options=options)
    assert_frame_equal(
        tables.execute(query).collect(), lazynwb.get_sql_context(local).execute(query).collect()
    )


def found(source, **options):
    """The files of a source, as named in `_nwb_path`."""
    return list(dict.fromkeys(units(source, **options)["_nwb_path"]))


def signature(server):
    """Key and region of the signatures of new requests; None for unsigned requests."""
    headers = {request.headers.get("authorization", "") for request in server.log if request.status < 300}
    server.reset()
    lazynwb.clear_cache()
    [signed] = {tuple(header.partition("Credential=")[2].split("/")[:3:2]) for header in headers}
    return signed if signed != ("",) else None


# --- three clouds -------------------------------------------------------------------------------------


@clouds
def test_a_private_file_is_read_as_the_local_one(kind, cloud, cube):
    check(url(cloud, NAME, "private"), cube[0], **cloud.options)


@clouds
def test_a_public_file_requires_no_configuration(kind, cloud, cube):
    """No credentials are requested, which would take time."""
    started = time.monotonic()
    check(url(cloud, NAME), cube[0], **without(cloud.anonymous, "skip_signature", "client_options"))
    assert time.monotonic() - started < 5


def without(options, *names):
    return {name: value for name, value in options.items() if name not in names}


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_a_private_file_requires_credentials(kind, cloud):
    started = time.monotonic()
    for options in [{}, {"account_key": "d3Jvbmc="}] if kind == "azure" else [{}]:
        with pytest.raises(LazyNWBError, match=r"private/top.nwb is denied \(the server responds with 403"):
            units(url(cloud, "top.nwb", "private"), **without(cloud.anonymous, "skip_signature"), **options)
    assert time.monotonic() - started < 5


@clouds
@pytest.mark.parametrize("name", ["sub//x_01.nwb", "sub/../top.nwb", "/top.nwb", "./top.nwb", "a\n.nwb"])
def test_names_with_invalid_characters(kind, cloud, name):
    with pytest.raises(LazyNWBError, match="are not supported") as caught:
        units(url(cloud, name), **cloud.anonymous)
    assert url(cloud, name) in str(caught.value)


@clouds
def test_missing_files_and_buckets(kind, cloud):
    for name in ("none.nwb", "none", "none/", "none/*.nwb", "sub/x_1?.nwb"):
        with pytest.raises(SourceNotFoundError) as caught:
            units(url(cloud, name), **cloud.options)
        assert url(cloud, name) in str(caught.value)
    with pytest.raises(FileNotFoundError, match="nobucket"):
        units(url(cloud, "a.nwb", "nobucket"), **cloud.options)


@clouds
def test_folders_and_patterns(kind, cloud):
    for place, names in {
        "sub/": NAMES[:3],
        "sub": NAMES[:3],
        "sub/*.nwb": NAMES[1:3],
        "sub/*_0?.nwb": NAMES[1:3],
        "sub/x_0[2-9].nwb": NAMES[2:3],
        "**/x*.nwb": NAMES[1:3],
        "*.nwb": NAMES[3:],
        "sub/**": NAMES[:3],
        "any/session": ["any/session"],
        "any/*": ["any/session"],
    }.items():
        assert found(url(cloud, place), **cloud.options) == [url(cloud, name) for name in names], place


@clouds
def test_a_zarr_store_is_one_source(kind, cloud, caplog):
    """Both stores have metadata without information on their kind."""
    for place in ("stores/z.zarr", "stores/z.zarr/", "stores/*.zarr", "**/z.*"):
        with pytest.raises(NotNWBError, match=r"public/stores/z.zarr/?: zarr.json describes no group"):
            units(url(cloud, place), **cloud.options)
    options = {"ignore_errors": True, "storage_options": cloud.options}
    frame = lazynwb.read_nwb(url(cloud, "stores"), "/units", **options)
    assert set(frame["_nwb_path"]) == {url(cloud, "stores/no store.zarr/a.nwb")}
    assert "stores/y.nwb" in caplog.text
    assert "stores/z.zarr: zarr.json describes no group" in caplog.text
    assert ".a.nwb" not in caplog.text
    assert "c.nwb" not in caplog.text


# --- S3 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (KEYS, ("AKEY", "us-east-1")),
        ({"access_key_id": "AKEY", "secret_access_key": SECRET, "region": "r"}, ("AKEY", "r")),
        ({"aws_access_key_id": "AKEY", "aws_secret_access_key": SECRET, "aws_region": "r"}, ("AKEY", "r")),
        ({**KEYS, "client_kwargs": {"region_name": "r", "verify": False}}, ("AKEY", "r")),
        ({**KEYS, "anon": False, "config_kwargs": {"retries": {"max_attempts": 3}}}, ("AKEY", "us-east-1")),
        ({**KEYS, "anon": True}, None),
        ({**KEYS, "skip_signature": "true"}, None),
        ({"use_listings_cache": False, "default_block_size": 4, "timeout": 5}, None),
        ({"azure_storage_account_name": "a", "google_bearer_token": "b"}, None),
    ],
)
def test_options_under_the_names_of_obstore_and_of_fsspec(server, options, expected):
    for name in ("endpoint", "endpoint_url", "aws_endpoint_url"):
        units("s3://bucket/a.nwb", **options, **{name: server.url})
        assert signature(server) == expected
    inner = {**options.get("client_kwargs", {}), "endpoint_url": server.url}
    units("s3a://bucket/a.nwb", **{**options, "client_kwargs": inner})
    assert signature(server) == expected


def test_session_tokens_and_requester_pays_add_headers(server):
    for token, payer in (("token", "requester_pays"), ("session_token", "request_payer")):
        units("s3://bucket/a.nwb", endpoint=server.url, **KEYS, **{token: "TOKEN", payer: True})
        assert {request.headers["x-amz-security-token"] for request in server.log} == {"TOKEN"}
        assert {request.headers["x-amz-request-payer"] for request in server.log} == {"requester"}
        assert signature(server) == ("AKEY", "us-east-1")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
@pytest.mark.parametrize("region", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_environment(server, monkeypatch, name, region):
    monkeypatch.setenv(name, server.url)
    units("s3://bucket/a.nwb")
    assert signature(server) is None
    given = {"AWS_ACCESS_KEY_ID": "EKEY", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": "ETOKEN"}
    for variable, value in {**given, region: "r"}.items():
        monkeypatch.setenv(variable, value)
    units("s3://bucket/a.nwb")
    assert {request.headers["x-amz-security-token"] for request in server.log} == {"ETOKEN"}
    assert signature(server) == ("EKEY", "r")
    units("s3://bucket/a.nwb", **KEYS, region="s")
    assert not any("x-amz-security-token" in request.headers for request in server.log)
    assert signature(server) == ("AKEY", "s")
    units("s3://bucket/a.nwb", anon=True)
    assert signature(server) is None


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    """A profile of each kind that needs no server, in files that boto3 reads."""
    pytest.importorskip("boto3")
    credentials, settings = tmp_path / "credentials", tmp_path / "config"
    credentials.write_text(
        f"[default]\naws_access_key_id = DKEY\naws_secret_access_key = {SECRET}\n"
        f"[lab]\naws_access_key_id = LKEY\naws_secret_access_key = {SECRET}\n"
    )
    settings.write_text(
        f"[default]\nregion = d\n[profile lab]\nregion = l\n[profile empty]\nregion = e\n"
        f"[profile script]\ncredential_process = {sys.executable} {tmp_path / 'script.py'}\n"
        "[profile sso]\nsso_start_url = https://sso.test\nsso_region = r\n"
        "sso_account_id = 1\nsso_role_name = n\n"
    )
    (tmp_path / "script.py").write_text(
        f'print(\'{{"Version": 1, "AccessKeyId": "SKEY", "SecretAccessKey": "{SECRET}"}}\')'
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(settings))
    return settings


def test_profiles_of_the_shared_configuration(server, profiles, monkeypatch):
    def signed(**options):
        units("s3://bucket/a.nwb", endpoint=server.url, **options)
        return signature(server)

    assert signed() == ("DKEY", "d")
    assert signed(profile="lab") == ("LKEY", "l")
    assert signed(profile="script") == ("SKEY", "us-east-1")
    assert signed(profile="lab", region="r", anon=False) == ("LKEY", "r")
    assert signed(profile="lab", anon=True) is None
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert signed() == ("LKEY", "l")
    assert signed(**KEYS) == ("AKEY", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "EKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert signed() == ("EKEY", "us-east-1")
    assert signed(profile="lab") == ("LKEY", "l")


def test_the_endpoint_of_a_profile(server, profiles):
    profiles.write_text(f"[profile lab]\nendpoint_url = {server.url}\nregion = l\n")
    units("s3://bucket/a.nwb", profile="lab")
    assert signature(server) == ("LKEY", "l")


@pytest.mark.parametrize(("name", "reason"), [("none", "none"), ("empty", "no credentials"), ("sso", "SSO")])
def test_an_unusable_profile_is_an_error(profiles, name, reason):
    with pytest.raises(LazyNWBError, match=rf"s3://bucket/a.nwb: .*{reason}"):
        units("s3://bucket/a.nwb", profile=name)


def test_profiles_without_boto3(server, profiles, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    units("s3://bucket/a.nwb", endpoint=server.url)
    assert signature(server) is None
    with pytest.raises(LazyNWBError, match=r"s3://bucket/a.nwb: profile 'lab'.*pip install 'lazynwb\[aws\]'"):
        units("s3://bucket/a.nwb", profile="lab")


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_the_role_of_a_machine_is_only_used_on_request(server, nobody, scheme):
    units(f"{scheme}://bucket/a.nwb", endpoint_url=server.url)
    assert nobody.log == []
    with pytest.raises(LazyNWBError):
        units(f"{scheme}://bucket/a.nwb", endpoint_url=server.url, anon=False)
    assert nobody.log
    nobody.reset()


def test_managed_identities_of_azure_are_only_used_on_request():
    """Their address is fixed, so the test asserts that they are not requested."""
    store = locate(Source("az://bucket/a.nwb", Options({"account_name": "a"}))).store
    assert store.config["skip_signature"] == "true"


@pytest.mark.parametrize(
    "options",
    [
        {"frobnicate": SECRET},
        {"client_kwargs": {"frobnicate": SECRET}},
        {"client_options": {"frobnicate": SECRET}},
    ],
)
def test_an_unknown_option(options):
    with pytest.raises(
        LazyNWBError, match=r"s3://bucket/a.nwb: .*\(.*\): unknown option 'frobnicate'"
    ) as caught:
        units("s3://bucket/a.nwb", **options)
    assert all(name in str(caught.value) for name in options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"region": {"a": SECRET}},
        {"timeout": SECRET},
        {"skip_signature": SECRET},
        {"headers": {SECRET: "é\n"}},
    ],
)
def test_an_ineffective_option_is_named_without_its_value(options):
    [name] = options
    with pytest.raises(LazyNWBError, match=rf"s3://bucket/a.nwb: .*{name}") as caught:
        units("s3://bucket/a.nwb", **options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
@pytest.mark.parametrize("endpoint", ["localhost:9000", "http://", "not a url"])
def test_an_endpoint_that_is_no_url(scheme, endpoint):
    with pytest.raises(LazyNWBError, match=rf"{scheme}://bucket/a.nwb: the endpoint must be a URL"):
        units(f"{scheme}://bucket/a.nwb", endpoint_url=endpoint, account_name="a")


def test_credentials_with_characters_that_no_request_can_have(server):
    options = {"endpoint": server.url, "region": "r", "secret": SECRET}
    units("s3://bucket/a.nwb", **options, key=" AKEY\n")
    assert signature(server) == ("AKEY", "r")
    with pytest.raises(LazyNWBError, match=r"s3://bucket/a.nwb: option 'access_key_id' contains characters"):
        units("s3://bucket/a.nwb", **options, key="Ä KEY")


def test_half_an_access_key():
    with pytest.raises(LazyNWBError, match="secret_access_key"):
        units("s3://bucket/a.nwb", key="AKEY")


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_credentials_that_are_refused(server, code):
    body = f"<Error><Code>{code}</Code><StringToSign>{SECRET}</StringToSign></Error>".encode()
    server.faults.append(always(refuse(403, body)))
    started = time.monotonic()
    for place in ("a.nwb", "sub/"):
        with pytest.raises(LazyNWBError, match=rf"s3://bucket/{place} .*403") as caught:
            units(f"s3://bucket/{place}", endpoint=server.url, **KEYS)
        assert SECRET not in str(caught.value)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("refusal", [refuse(301), refuse(400, b"<Code>AuthorizationHeaderMalformed</Code>")])
@pytest.mark.parametrize("place", ["a.nwb", "*.nwb"])
def test_the_region_of_a_bucket_is_determined_once(server, refusal, place):
    """The region is in the response to HEAD; obstore does not report it for other responses."""

    def answer(seen):
        if seen.method == "HEAD":
            return refuse(403, x_amz_bucket_region="far")
        return None if "/far/" in seen.headers["authorization"] else refusal

    server.faults += [answer, lists({"list-type": ["a.nwb"]})]
    for _ in range(2):
        units([f"s3://bucket/{place}"] * 2, endpoint=server.url, region="near", **KEYS)
    assert [request.method for request in server.log].count("HEAD") == 1
    assert [request.status for request in server.log].count(refusal.status) == 1
    assert signature(server) == ("AKEY", "far")


def test_the_region_that_a_refusal_names(server):
    body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>far</Region></Error>"
    server.faults.append(lambda seen: None if "/far/" in seen.headers["authorization"] else refuse(400, body))
    units("s3://bucket/a.nwb", endpoint=server.url, region="near", **KEYS)
    assert server.log[0].status == 400
    assert signature(server) == ("AKEY", "far")


def test_a_bucket_region_that_another_thread_has_determined(server, cube):
    """All requests are sent before the first is refused; later refusals have no new information."""
    body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>far</Region></Error>"
    delays = itertools.count(1)

    def answer(seen):
        return None if "/far/" in seen.headers["authorization"] else Fault(400, body=body, delay=next(delays))

    server.faults.append(answer)
    server.objects.update({f"bucket/{name}.nwb": cube[0].read_bytes() for name in "bc"})
    options = {"endpoint": server.url, "region": "near", **KEYS}
    with ThreadPoolExecutor(3) as pool:
        frames = list(pool.map(lambda name: units(f"s3://bucket/{name}.nwb", **options), "abc"))
    assert [frame.height for frame in frames] == [40] * 3
    assert [request.status for request in server.log].count(400) == 3
    assert signature(server) == ("AKEY", "far")


def test_a_bucket_region_that_cannot_be_determined(server):
    server.faults.append(always(refuse(301)))
    with pytest.raises(LazyNWBError, match=r"s3://bucket/a.nwb: .*another region.*\"region\""):
        units("s3://bucket/a.nwb", endpoint=server.url)
    assert len(server.log) == 2


# --- listings -----------------------------------------------------------------------------------------


def lists(pages):
    """Pages of an S3 listing by the query of their requests."""

    def answer(seen):
        page = next((page for page in reversed(pages) if page in seen.target), None)
        if page is None:
            return None
        following = [*pages, None][list(pages).index(page) + 1]
        more = f"<NextContinuationToken>{following}</NextContinuationToken>" if following else ""
        entries = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;1&quot;</ETag><Size>1</Size></Contents>"
            for key in pages[page]
        )
        head = f"<ListBucketResult><IsTruncated>{'true' if following else 'false'}</IsTruncated>"
        return Fault(200, body=f"{head}{entries}{more}</ListBucketResult>".encode())

    return answer


def test_a_listing_resumes_after_a_fault(server, monkeypatch):
    monkeypatch.setattr(remote_listing, "PAGE_ENTRIES", 10)
    lazynwb.config.max_retries = 2
    names = [f"{number:03}.nwb" for number in range(30)]
    fault = first(1, refuse(500))
    server.faults += [
        first(1, refuse(500), "bucket"),
        lambda seen: fault(seen) if "third" in seen.target else None,
        lists({"start-after": names[20:]}),
        lists({"list-type": names[:10], "second": names[10:20], "third": names[20:]}),
        lambda seen: redirect("/bucket/a.nwb") if seen.path.removeprefix("bucket/") in names else None,
    ]
    assert found("s3://bucket/", endpoint=server.url) == [f"s3://bucket/{name}" for name in names]
    assert [request.status for request in server.log[:5]] == [500, 200, 200, 500, 200]
    assert "start-after=019.nwb" in server.log[4].target


def test_a_listing_with_an_unsupported_name(server):
    server.faults.append(lists({"list-type": ["a.nwb", "b//c.nwb"]}))
    with pytest.raises(LazyNWBError, match=r"s3://bucket/\*.nwb: .*pass the URLs"):
        units("s3://bucket/*.nwb", endpoint=server.url)


# --- Google and Azure ---------------------------------------------------------------------------------


def test_credentials_of_google(server, monkeypatch, tmp_path):
    options = {"endpoint_url": server.url}
    for given, expected in (
        ({"token": "anon"}, None),
        ({"token": "ya29.a"}, "Bearer ya29.a"),
        ({"google_bearer_token": "ya29.a", "aws_region": "r"}, "Bearer ya29.a"),
    ):
        units("gs://bucket/a.nwb", **options, **given)
        assert {request.headers.get("authorization") for request in server.log} == {expected}
        server.reset()
        lazynwb.clear_cache()
    units("gcs://bucket/a.nwb", **options, anon=True, requester_pays=True, project="lab")
    assert {request.headers["x-goog-user-project"] for request in server.log} == {"lab"}
    for token in ("browser", "no/such file.json"):
        with pytest.raises(LazyNWBError, match=r"gs://bucket/a.nwb: token must be"):
            units("gs://bucket/a.nwb", token=token)
    (tmp_path / "application_default_credentials.json").write_text("{}")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(LazyNWBError, match=r"gs://bucket/a.nwb: its store cannot be opened"):
        units("gs://bucket/a.nwb")


def test_forms_of_azure_urls_and_accounts(azure, cube, monkeypatch):
    azure.put(f"private/{NAME}", cube[0].read_bytes())
    key, endpoint = azure.options["account_key"], azure.options["endpoint"]
    host = "tester.dfs.core.windows.net"
    connection = f"DefaultEndpointsProtocol=http;AccountName=tester;AccountKey={key};BlobEndpoint={endpoint};"
    for container, options in (
        ("az://private", {"account_name": "tester", "account_key": key, "endpoint_url": endpoint}),
        ("abfs://private", {"connection_string": connection}),
        (f"abfs://private@{host}", {"account_key": key, "endpoint": endpoint}),
        (
            f"abfss://private@{host}",
            {"azure_storage_account_key": key, "endpoint": endpoint, "aws_region": "r"},
        ),
    ):
        check(f"{container}/{NAME}", cube[0], **options)
        assert found(f"{container}/sub/deep/", **options) == [f"{container}/{NAME}"]
    with pytest.raises(LazyNWBError, match=r"az://private/a.nwb: the account"):
        units("az://private/a.nwb")
    for variables in (
        {"AZURE_STORAGE_CONNECTION_STRING": connection},
        {"AZURE_STORAGE_ACCOUNT_NAME": "tester", "AZURE_STORAGE_ACCOUNT_KEY": key},
        {"AZURE_STORAGE_ACCOUNT": "tester", "AZURE_STORAGE_KEY": key, "AZURE_STORAGE_ENDPOINT": endpoint},
    ):
        with monkeypatch.context() as patch:
            for variable, value in variables.items():
                patch.setenv(variable, value)
            check(f"az://private/{NAME}", cube[0], **({} if len(variables) == 1 else {"endpoint": endpoint}))


def test_credentials_of_azure(server, monkeypatch):
    def signed(**options):
        units("az://bucket/a.nwb", endpoint=server.url, account_name="lab", **options)
        headers = {request.headers.get("authorization", "").partition(":")[0] for request in server.log}
        queries = {request.target.partition("?")[2] for request in server.log}
        server.reset()
        lazynwb.clear_cache()
        return [*headers, *queries]

    key = "c2VjcmV0"
    assert signed() == ["", ""]
    assert signed(account_key=key) == ["SharedKey lab", ""]
    for name, value, header, query in (
        ("sas_token", "?sv=1&sig=a%3D", "", "sv=1&sig=a%3D"),
        ("connection_string", "SharedAccessSignature=sv=1&sig=a%3D", "", "sv=1&sig=a%3D"),
        ("token", "abc", "Bearer abc", ""),
    ):
        assert signed(**{name: value}) == [header, query]
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"AccountName=other;AccountKey={key}")
    assert signed() == ["", ""]
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"AccountName=lab;AccountKey={key}")
    assert signed() == ["SharedKey lab", ""]
    assert signed(anon=True) == ["", ""]


# --- web servers and other forms of sources -----------------------------------------------------------


@pytest.mark.parametrize("location", ["/", "/redirect/", "/gzip/", "/bare/"])
def test_a_web_server(nginx, cube, location):
    path = nginx.folder / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cube[0].read_bytes())
    os.utime(path, (time.time() - 60,) * 2)
    check(nginx.url_of(NAME, location), path)


def test_a_web_server_that_denies_or_sends_whole_files_only(nginx, cube):
    (nginx.folder / "a.nwb").write_bytes(cube[0].read_bytes())
    with pytest.raises(LazyNWBError, match=r"/denied/a.nwb is denied \(the server responds with 403"):
        units(nginx.url_of("a.nwb", "/denied/"))
    with pytest.raises(LazyNWBError, match=r"/whole/a.nwb.*download_bytes"):
        units(nginx.url_of("a.nwb", "/whole/"))
    lazynwb.config.download_bytes = 1 << 24
    check(nginx.url_of("a.nwb", "/whole/"), cube[0])


def test_a_login_before_the_host_is_for_this_server_only(server, nobody, cube):
    server.faults.append(first(1, redirect(nobody.url_of("a.nwb"))))
    nobody.objects["a.nwb"] = cube[0].read_bytes()
    source = f"{server.url.replace('//', '//me:p%40ss@')}/bucket/a.nwb"
    units(source)
    units(server.url_of("bucket/a.nwb"), client_kwargs={"headers": {"Authorization": "Basic bWU6cEBzcw=="}})
    assert {request.headers["authorization"] for request in server.log} == {"Basic bWU6cEBzcw=="}
    assert [request.headers.get("authorization") for request in nobody.log] == [None]
    nobody.reset()


@pytest.mark.parametrize("name", ["a.nwb", "s~1,b=(c)+d.nwb", "a%20b.nwb", "%C3%A9.nwb", "per%25cent.nwb"])
def test_files_of_a_web_server_share_its_connections(server, name):
    assert requested(server, name) == name
    assert stores_of(server.url_of("b.nwb"), f"{server.url}/{name}") == 1


@pytest.mark.parametrize(
    "name", ["a%2Fb.nwb", "%c3%a9.nwb", "b//a.nwb", "a%zz.nwb", "a.nwb?id=a%2Fb&key=%C3%A9", "%2E.nwb"]
)
def test_a_url_is_sent_unchanged(server, name):
    assert requested(server, name) == name
    assert stores_of(server.url_of("b.nwb"), f"{server.url}/{name}") == 2


@pytest.mark.parametrize(("name", "sent"), [("a b.nwb", "a%20b.nwb"), ("é.nwb#x", "%C3%A9.nwb")])
def test_invalid_characters_of_urls_are_quoted(server, name, sent):
    assert requested(server, name) == sent


def requested(server, name):
    server.objects[unquote(name.partition("?")[0].partition("#")[0])] = server.objects["bucket/a.nwb"]
    units(f"{server.url}/{name}")
    return server.log[0].target.removeprefix("/")


def stores_of(*urls):
    return len({id(locate(Source(url)).store) for url in urls})


@pytest.mark.parametrize("source", ["http://[::1/a.nwb", "http://127.0.0.1:99999/a.nwb", "http:///a.nwb"])
def test_invalid_urls(source):
    with pytest.raises(LazyNWBError) as caught:
        units(source)
    assert source in str(caught.value)


def test_a_universal_path(cube, s3, nginx):
    upath = pytest.importorskip("upath")
    s3.put(f"private/{NAME}", cube[0].read_bytes())
    s3.put("public/up/a.nwb", cube[1].read_bytes())
    (nginx.folder / "b c.nwb").write_bytes(cube[2].read_bytes())
    check(upath.UPath(cube[0]), cube[0])
    account = dict.fromkeys(("key", "secret"), "test")
    remote = upath.UPath(f"s3://private/{NAME}", **account, endpoint_url=s3.url)
    check(remote, cube[0])
    public = upath.UPath("s3://public/up", anon=True, client_kwargs={"endpoint_url": s3.url})
    check(public / "a.nwb", cube[1])
    web = upath.UPath(nginx.url_of("b c.nwb"))
    check(web, cube[2])
    assert found([web, cube[4], remote, public, cube[3].as_uri(), str(cube[5])]) == [
        *(str(web), str(cube[4]), str(remote), "s3://public/up/a.nwb", str(cube[3]), str(cube[5]))
    ]
    with pytest.raises(LazyNWBError, match=r"memory://a.nwb: memory:// URLs are not supported"):
        units(upath.UPath("memory://a.nwb"))


def test_options_for_every_call(server):
    lazynwb.config.storage_options = {**KEYS, "endpoint": server.url, "region": "r"}
    units("s3://bucket/a.nwb")
    assert signature(server) == ("AKEY", "r")
    units("s3://bucket/a.nwb", region="s")
    assert signature(server) == ("AKEY", "s")
    assert len(lazynwb.get_internal_paths("s3://bucket/a.nwb")) == 6
    assert signature(server) == ("AKEY", "r")


def test_one_set_of_options_for_sources_of_several_kinds(server, azure, nginx, cube):
    azure.put("private/a.nwb", cube[1].read_bytes())
    (nginx.folder / "a.nwb").write_bytes(cube[2].read_bytes())
    sources = ["s3://bucket/a.nwb", "az://private/a.nwb", nginx.url_of("a.nwb"), str(cube[3])]
    frame = units(
        sources,
        aws_access_key_id="AKEY",
        aws_secret_access_key=SECRET,
        aws_endpoint_url=server.url,
        azure_storage_account_name="tester",
        azure_storage_account_key=azure.options["account_key"],
        azure_storage_endpoint=azure.options["endpoint"],
        google_service_account_key="{}",
        headers={"X-Lab": "mine"},
    )
    assert_frame_equal(frame.drop("_nwb_path"), units(cube[:4]).drop("_nwb_path"))
    assert list(dict.fromkeys(frame["_nwb_path"])) == sources
    assert {request.headers["x-lab"] for request in server.log} == {"mine"}


# --- DANDI --------------------------------------------------------------------------------------------

VERSION = "0.240101.0000"
ASSETS = [f"sub-{number}/s {number}.nwb" for number in range(10)]


@pytest.fixture
def archive(server, cube):
    with DandiServer(bucket=server.url) as running:
        lazynwb.config.dandi_api_url = running.url
        publish(running, server, cube, "000363", VERSION)
        yield running
    resolver.forget()
    dandi_store.forget()


def publish(archive, server, cube, *place, **options):
    for number, asset in enumerate(archive.publish(*place, ASSETS, **options).values()):
        server.objects[asset.key] = cube[number % len(cube)].read_bytes()


def test_a_dandiset_takes_one_listing(archive, cube):
    sources = lazynwb.get_dandi_sources("000363", VERSION)
    frame = lazynwb.scan_nwb(sources, "/units").collect()
    assert list(dict.fromkeys(frame["_nwb_path"])) == [f"dandi://000363/{VERSION}/{path}" for path in ASSETS]
    local = units([cube[number % len(cube)] for number in range(10)])
    assert_frame_equal(frame.drop("_nwb_path"), local.drop("_nwb_path"))
    check(sources[0], cube[0])
    # The second one says where the archive's bucket is.
    assert [path.partition("/")[0] for path in archive.paths] == ["dandisets", "assets"]


def test_many_assets_take_one_listing(archive):
    sources = [f"dandi://000363/{VERSION}/{path}" for path in ASSETS]
    assert found(sources) == sources
    assert [path.partition("/")[0] for path in archive.paths] == ["dandisets", "assets"]


def test_a_folder_of_a_dandiset(archive):
    assert found(f"dandi://000363/{VERSION}/sub-3/") == [f"dandi://000363/{VERSION}/{ASSETS[3]}"]
    assert found("dandi://000363/sub-[1-2]/*.nwb") == [f"dandi://000363/{VERSION}/{p}" for p in ASSETS[1:3]]


def test_a_missing_asset(archive, server):
    gone = f"dandi://000363/{VERSION}/sub-x/gone.nwb"
    others = [f"dandi://000363/{VERSION}/{path}" for path in ASSETS]
    with pytest.raises(SourceNotFoundError, match=r"sub-x/gone.nwb"):
        units([gone])
    frame = lazynwb.read_nwb([*others[:5], gone, *others[5:]], "/units", ignore_errors=True)
    assert list(dict.fromkeys(frame["_nwb_path"])) == others
    server.objects.clear()
    lazynwb.clear_cache()
    with pytest.raises(SourceNotFoundError, match=r"dandi://000363/.*sub-0/s 0.nwb.*404"):
        units(others[0])


def test_signatures_that_expire_are_renewed(archive, server, monkeypatch, tmp_path):
    archive.keys = {"KEY": True}
    monkeypatch.setenv("DANDI_API_KEY", "KEY")
    large = write_session(tmp_path / "large.nwb", 1, units=1000)  # more than parsing looks at
    publish(archive, server, [large], "001111", "draft", embargoed=True)
    sources = lazynwb.get_dandi_sources("001111", "draft", max_assets=3)
    lf = lazynwb.scan_nwb(sources, "/units")
    assert archive.signatures == 3
    server.faults.append(
        lambda seen: refuse(403) if seen.target[-7:-1] == "secret" and seen.target[-1] < "4" else None
    )
    archive.log.clear()
    assert_frame_equal(lf.collect().drop("_nwb_path"), units([large] * 3).drop("_nwb_path"))
    assert len(archive.log) == archive.signatures - 3 == 3
    server.faults.append(always(refuse(403)))
    lazynwb.clear_cache()
    with pytest.raises(LazyNWBError, match=r"dandi://001111/draft/sub-0/s 0.nwb is denied") as caught:
        units(sources[0])
    assert "secret" not in str(caught.value)


# --- threads and processes ----------------------------------------------------------------------------


def test_threads_share_a_store():
    source = Source("s3://bucket/a.nwb", Options({"anon": True}))
    with ThreadPoolExecutor(16) as pool:
        assert len({id(location.store) for location in pool.map(locate, [source] * 64)}) == 1


def test_a_pickled_scan_in_another_process(server, tmp_path):
    lf = lazynwb.scan_nwb("s3://bucket/a.nwb", "/units", storage_options={**KEYS, "endpoint": server.url})
    (tmp_path / "lf.pkl").write_bytes(pickle.dumps(lf.select("unit_id", "spike_times")))
    server.reset()
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).collect().height)"
    assert run_child(code, tmp_path / "lf.pkl", LAZYNWB_DISABLE_CACHE="1").strip() == "40"
    assert signature(server) == ("AKEY", "us-east-1")
    assert SECRET not in repr(lf)
    assert SECRET not in lf.explain()


FORK = """
import multiprocessing, sys
import lazynwb
url = sys.argv[1]
def work(_):
    try:
        return lazynwb.get_table_schema(url, "/units").len()
    except lazynwb.LazyNWBError as error:
        lazynwb.clear_cache()
        return str(error)
if sys.argv[2] == "read":
    work(0)
    lazynwb.clear_cache()
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map(work, [0])[0])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork: run on Linux or macOS")
def test_a_forked_process_can_read_if_its_parent_has_not(server):
    source = server.url_of("bucket/a.nwb")
    assert run_child(FORK, source, "fork only", fresh=True).strip() == "14"
    assert f"{source}: no remote file can be read in a process that was forked" in run_child(
        FORK, source, "read"
    )
