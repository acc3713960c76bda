"""S3 and what speaks its protocol: `s3://bucket/key`."""

from __future__ import annotations

import http.client
import importlib.util
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import Request

from obstore.store import S3Store

from lazynwb.config import config
from lazynwb.profile import count
from lazynwb.storage import http_client
from lazynwb.storage.stores.registry import (
    NO_RETRIES,
    Location,
    UnusableError,
    bucket_and_name,
    client_options,
    endpoint_of,
    environment,
    is_true,
    once,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynwb.storage.source import Options, Source

#: fsspec's (s3fs's) and boto's names of options.
_NAMES = {
    "key": "access_key_id",
    "username": "access_key_id",
    "secret": "secret_access_key",
    "password": "secret_access_key",
    "token": "session_token",
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "aws_token": "session_token",
    "anon": "skip_signature",
    "aws_skip_signature": "skip_signature",
    "endpoint_url": "endpoint",
    "aws_endpoint": "endpoint",
    "aws_endpoint_url": "endpoint",
    "region_name": "region",
    "aws_region": "region",
    "aws_profile": "profile",
    "requester_pays": "request_payer",
    "aws_request_payer": "request_payer",
}
_OTHERS = ("azure_", "google_", "gcs_")
#: Options, and variables of the environment, that say how to sign requests.
_SIGNING = frozenset(
    {
        *("credential_provider", "web_identity_token_file"),
        *("container_credentials_relative_uri", "container_credentials_full_uri"),
    }
)
_SIGNING_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SKIP_SIGNATURE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
_PROFILE_VARIABLES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
#: The user's shared configuration, where the environment does not say otherwise.
_SHARED = (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), ("AWS_CONFIG_FILE", "~/.aws/config"))
_VARIABLES = (
    *_SIGNING_VARIABLES,
    *_ENDPOINT_VARIABLES,
    *_REGION_VARIABLES,
    *_PROFILE_VARIABLES,
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN", "AWS_ROLE_ARN", "AWS_REQUEST_PAYER"),
)
#: For how long obstore uses what boto3 gave it, less five minutes; boto3 renews what has ten minutes left.
_TTL = timedelta(minutes=10)


def open_store(source: Source) -> Location:
    """Return the bucket, and the key in it; see `lazynwb.storage.stores.registry`."""
    bucket, key = bucket_and_name(source)
    region = _sent.region = _regions.get((bucket, source.options))
    return Location(_store(bucket, source.options, region, environment(_VARIABLES), _shared_state()), key)


@once
def _store(bucket: str, options: Options, region: str | None, *_surroundings: object) -> S3Store:
    found = _with_signing(_flat(options))
    if region is not None:
        found["region"] = region
    endpoint = endpoint_of(found, "endpoint", *_ENDPOINT_VARIABLES)
    if endpoint:
        found["endpoint"] = endpoint
    verify = found.pop("verify", True)
    client = client_options(options.as_dict(), allow_http=endpoint.startswith("http:"))
    if isinstance(verify, str):
        client["root_certificate"] = _certificate(verify)
    elif not verify:
        client["allow_invalid_certificates"] = True
    return S3Store(bucket, client_options=client, retry_config=NO_RETRIES, **found)


def _certificate(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        raise UnusableError(
            "option 'verify' has to be the path of a file with certificates, or False"
        ) from None


def _flat(options: Options) -> dict[str, Any]:
    """Return options under obstore's names, those among them that s3fs's users put into others."""
    found = options.as_dict()
    found.update(found.pop("client_kwargs", None) or {})
    settings = dict(found.pop("config_kwargs", None) or {})
    if dict(settings.get("s3") or {}).get("addressing_style") == "virtual":
        found["virtual_hosted_style_request"] = True
    return translated(found, _NAMES, _OTHERS)


# -- credentials --------------------------------------------------------------------------------------


def _with_signing(found: dict[str, Any]) -> dict[str, Any]:
    """Return options with credentials from where they are first found; without any, requests are not signed.

    The address of instance metadata is not asked: outside of Amazon's machines it does not answer, and the
    bucket is probably public. Who wants it says `skip_signature=False` (or `anon=False`).
    """
    profile = found.pop("profile", None)
    unsigned = found.get("skip_signature")
    if unsigned is not None and is_true(unsigned):
        return found
    keys = [found.pop(name, None) for name in ("access_key_id", "secret_access_key", "session_token")]
    if any(keys):
        # Not as options: obstore would complete them by the environment's, which belong to other keys.
        return {**found, "credential_provider": _given(*keys), "skip_signature": False}
    if _SIGNING & found.keys() or (profile is None and _variable(_SIGNING_VARIABLES)):
        return found
    shared = _from_profile(profile)
    if shared is not None:
        return {**shared, "skip_signature": False, **found}
    return found if unsigned is not None else {**found, "skip_signature": True}


def _given(key: str | None, secret: str | None, token: str | None) -> Callable[[], Any]:
    if not (key and secret):
        raise UnusableError("an access key takes both access_key_id and secret_access_key (key and secret)")
    return lambda: {
        "access_key_id": key,
        "secret_access_key": secret,
        "token": token,
        "expires_at": None,
    }


def _from_profile(profile: str | None) -> dict[str, Any] | None:
    """Return what boto3 finds in the user's shared configuration (profiles, SSO), if anything.

    Raises
    ------
    UnusableError
        If a profile is asked for by name, and boto3 is not installed or finds no credentials; or if those of
        the profile cannot be used.
    """
    named = profile or _variable(_PROFILE_VARIABLES)
    if not (named or any(_shared_state())):
        return None
    if importlib.util.find_spec("boto3") is None:
        if named:
            raise UnusableError(
                f"profile {named!r}: reading profiles takes boto3: pip install 'lazynwb[aws]'"
            )
        return None
    import boto3
    import botocore.session
    from botocore.exceptions import BotoCoreError, ClientError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        inner = botocore.session.Session(profile=profile)
        inner.get_component("credential_provider").remove("iam-role")
        session = boto3.Session(botocore_session=inner)
        if session.get_credentials() is None:
            if named:
                raise UnusableError(f"profile {named!r} has no credentials")
            return None
        provider = Boto3CredentialProvider(session, ttl=_TTL)
        provider()  # an expired login shows here, and in boto3's own words
        endpoint = inner.get_scoped_config().get("endpoint_url")
    except (BotoCoreError, ClientError) as error:
        raise UnusableError(
            f'the shared AWS configuration is of no use ({error}); public data takes {{"anon": True}}'
        ) from None
    found = {"credential_provider": provider, **provider.config}
    return {**found, "endpoint": endpoint} if endpoint and not _variable(_ENDPOINT_VARIABLES) else found


def _shared_state() -> tuple[float, ...]:
    """Return when the user's shared configuration was written; 0 is for a file that is not there."""
    return tuple(_written(os.environ.get(name, usual)) for name, usual in _SHARED)


def _written(path: str) -> float:
    try:
        return os.stat(os.path.expanduser(path)).st_mtime
    except OSError:
        return 0.0


def _variable(names: tuple[str, ...]) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


# -- regions ------------------------------------------------------------------------------------------

#: None for a bucket that was asked about in vain.
_regions: dict[tuple[str, Options], str | None] = {}
#: Which of them this thread has just asked in.
_sent = threading.local()


def look_again(source: Source, region: str | None) -> bool:
    """Find out which region a bucket is in, if its refusal did not say; return whether that is news.

    S3 says so to anybody, in the header of any answer about the bucket.
    """
    bucket = bucket_and_name(source)[0]
    place = bucket, source.options
    refused: str | None = _sent.region
    if _regions.get(place) != refused:
        return True  # another thread has found out already
    if region is None and place in _regions:
        return False
    found = _regions[place] = region or _region_of(*place)
    return found not in {None, refused}


def _region_of(bucket: str, options: Options) -> str | None:
    endpoint = endpoint_of(_flat(options), "endpoint", *_ENDPOINT_VARIABLES)
    url = f"{endpoint or 'https://s3.amazonaws.com'}/{quote(bucket)}"
    count(requests=1)
    try:
        with http_client.opener().open(Request(url, method="HEAD"), timeout=config.request_timeout) as answer:  # noqa: S310 - S3's own
            found: str | None = answer.headers.get("x-amz-bucket-region")
            return found
    except (OSError, ValueError, http.client.HTTPException):
        return None
