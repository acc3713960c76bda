"""S3 and what speaks its protocol: `s3://bucket/key`."""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from obstore.store import S3Store

from lazynwb.config import config
from lazynwb.profile import count
from lazynwb.sources.stores import NO_RETRIES, Location, client_options, translated

if TYPE_CHECKING:
    from lazynwb.sources.source import Options, Source

#: fsspec's (s3fs's) and boto's names of options.
_NAMES = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "anon": "skip_signature",
    "aws_skip_signature": "skip_signature",
    "endpoint_url": "endpoint",
    "aws_endpoint": "endpoint",
    "aws_endpoint_url": "endpoint",
    "region_name": "region",
    "aws_region": "region",
    "requester_pays": "request_payer",
    "aws_request_payer": "request_payer",
}
_OTHERS = ("azure_", "google_", "gcs_")
#: Options, and variables of the environment, that say how to sign requests, or not to.
_SIGNING = frozenset({"access_key_id", "skip_signature", "credential_provider", "web_identity_token_file"})
_SIGNING_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SKIP_SIGNATURE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def open_store(source: Source) -> Location:
    """Return the bucket, and the key in it; see `lazynwb.sources.stores`."""
    bucket, _, key = source.path.partition("://")[2].partition("/")
    return Location(_store(bucket, source.options, _regions.get(bucket)), key)


def look_again(source: Source, region: str | None) -> bool:
    """Find out which region a bucket is in, if its refusal did not say; tell whether that is news.

    S3 says so to anybody, in the header of any answer about the bucket.
    """
    bucket = source.path.partition("://")[2].partition("/")[0]
    found = region or _region_of(bucket, source.options)
    if found is None or found == _regions.get(bucket):
        return False
    _regions[bucket] = found
    return True


_regions: dict[str, str] = {}


def _region_of(bucket: str, options: Options) -> str | None:
    import http.client
    from urllib.parse import urlsplit

    endpoint = urlsplit(_endpoint(translated(options, _NAMES, _OTHERS)) or "https://s3.amazonaws.com")
    plain = endpoint.scheme == "http"
    kind = http.client.HTTPConnection if plain else http.client.HTTPSConnection
    connection = kind(endpoint.netloc, timeout=config.request_timeout)
    count(requests=1)
    try:
        connection.request("HEAD", f"/{quote(bucket)}")
        return connection.getresponse().getheader("x-amz-bucket-region")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _endpoint(found: dict[str, Any]) -> str:
    variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return str(found.get("endpoint") or next((os.environ[n] for n in variables if os.environ.get(n)), ""))


@lru_cache(maxsize=256)
def _store(bucket: str, options: Options, region: str | None) -> S3Store:
    found = translated(options, _NAMES, _OTHERS)
    profile = found.pop("profile", None)
    if region is not None:
        found["region"] = region
    if not _SIGNING & found.keys() and (
        profile or not any(os.environ.get(name) for name in _SIGNING_VARIABLES)
    ):
        found.update({**_from_profile(profile), **found})
    client = client_options(options.as_dict(), allow_http=_endpoint(found).startswith("http:"))
    return S3Store(bucket, client_options=client, retry_config=NO_RETRIES, **found)


def _from_profile(profile: str | None) -> dict[str, Any]:
    """Return what boto3 finds in the user's shared configuration (profiles, SSO); else: do not sign.

    The address of instance metadata is never asked: outside of Amazon's machines it does not answer, and the
    bucket is probably public. Who wants it says `skip_signature=False`.

    Raises
    ------
    ValueError
        If a profile is asked for by name, and boto3 is not installed or finds no credentials.
    """
    named = profile or os.environ.get("AWS_PROFILE")
    if not (named or _has_shared_configuration()):
        return {"skip_signature": True}
    if importlib.util.find_spec("boto3") is None:
        if named:
            message = "profiles need boto3: pip install 'lazynwb[aws]'"
            raise ValueError(message)
        return {"skip_signature": True}
    import boto3
    import botocore.session
    from obstore.auth.boto3 import Boto3CredentialProvider

    inner = botocore.session.Session(profile=profile)
    inner.get_component("credential_provider").remove("iam-role")
    session = boto3.Session(botocore_session=inner)
    if session.get_credentials() is None:
        if named:
            message = f"profile {named!r} has no credentials"
            raise ValueError(message)
        return {"skip_signature": True}
    provider = Boto3CredentialProvider(session)
    return {"credential_provider": provider, **provider.config}


def _has_shared_configuration() -> bool:
    files = (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), ("AWS_CONFIG_FILE", "~/.aws/config"))
    return any(Path(os.environ.get(name, usual)).expanduser().exists() for name, usual in files)
