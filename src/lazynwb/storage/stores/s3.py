"""S3 and compatible object stores: `s3://bucket/key`."""

from __future__ import annotations

import importlib.util
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

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
    is_true,
    memoize_store,
    read_environment,
    translate_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynwb.storage.source import Options, Source

#: fsspec's (s3fs's) and boto's names of options.
_OPTION_NAMES = {
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
_FOREIGN_PREFIXES = ("azure_", "google_", "gcs_")
#: Options and environment variables that determine how requests are signed.
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
#: Files of the user's shared configuration: the variable with the path, and the default path.
_SHARED = (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), ("AWS_CONFIG_FILE", "~/.aws/config"))
_VARIABLES = (
    *_SIGNING_VARIABLES,
    *_ENDPOINT_VARIABLES,
    *_REGION_VARIABLES,
    *_PROFILE_VARIABLES,
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN", "AWS_ROLE_ARN", "AWS_REQUEST_PAYER"),
)
#: Lifetime of boto3's credentials in obstore, which renews them five minutes early; boto3 itself renews
#: credentials that expire within ten minutes.
_TTL = timedelta(minutes=10)


def open_store(source: Source) -> Location:
    """Return the bucket and the key in it; see `lazynwb.storage.stores.registry`."""
    bucket, key = bucket_and_name(source)
    region = _last_region.region = _regions.get((bucket, source.options))
    return Location(
        _store(bucket, source.options, region, read_environment(_VARIABLES), _shared_mtimes()), key
    )


@memoize_store
def _store(bucket: str, options: Options, region: str | None, *_surroundings: object) -> S3Store:
    found = _with_credentials(_translated_options(options))
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
            "option 'verify' must be the path of a file with certificates, or False"
        ) from None


def _translated_options(options: Options) -> dict[str, Any]:
    """Return options under obstore's names, including those nested in `client_kwargs` and `config_kwargs`."""
    found = options.as_dict()
    found.update(found.pop("client_kwargs", None) or {})
    settings = dict(found.pop("config_kwargs", None) or {})
    if dict(settings.get("s3") or {}).get("addressing_style") == "virtual":
        found["virtual_hosted_style_request"] = True
    return translate_options(found, _OPTION_NAMES, _FOREIGN_PREFIXES)


# -- credentials --------------------------------------------------------------------------------------


def _with_credentials(found: dict[str, Any]) -> dict[str, Any]:
    """Return options with credentials from the first place that has some, or with unsigned requests.

    Instance metadata is not queried by default: it is only available on Amazon's machines, and without other
    credentials the bucket is probably public. `skip_signature=False` (or `anon=False`) enables it.
    """
    profile = found.pop("profile", None)
    unsigned = found.get("skip_signature")
    if unsigned is not None and is_true(unsigned):
        return found
    keys = [found.pop(name, None) for name in ("access_key_id", "secret_access_key", "session_token")]
    if any(keys):
        # Not as options: obstore would mix them with those of the environment, which belong to other keys.
        return {**found, "credential_provider": _static_credentials(*keys), "skip_signature": False}
    if _SIGNING & found.keys() or (profile is None and _first_variable(_SIGNING_VARIABLES)):
        return found
    shared = _from_profile(profile)
    if shared is not None:
        return {**shared, "skip_signature": False, **found}
    return found if unsigned is not None else {**found, "skip_signature": True}


def _static_credentials(key: str | None, secret: str | None, token: str | None) -> Callable[[], Any]:
    if not (key and secret):
        raise UnusableError("access_key_id and secret_access_key (key and secret) must be passed together")
    return lambda: {
        "access_key_id": key,
        "secret_access_key": secret,
        "token": token,
        "expires_at": None,
    }


def _from_profile(profile: str | None) -> dict[str, Any] | None:
    """Return the options that boto3 finds in the user's shared configuration (profiles, SSO), if any.

    Raises
    ------
    UnusableError
        If a named profile needs boto3, which is not installed, or has no credentials; or if the credentials
        of a profile cannot be used.
    """
    named = profile or _first_variable(_PROFILE_VARIABLES)
    if not (named or any(_shared_mtimes())):
        return None
    if importlib.util.find_spec("boto3") is None:
        if named:
            raise UnusableError(
                f"profile {named!r}: reading profiles requires boto3: pip install 'lazynwb[aws]'"
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
        provider()  # raises boto3's own error for an expired login
        endpoint = inner.get_scoped_config().get("endpoint_url")
    except (BotoCoreError, ClientError) as error:
        raise UnusableError(
            f'the shared AWS configuration cannot be used ({error}); {{"anon": True}} reads public data'
        ) from None
    found = {"credential_provider": provider, **provider.config}
    return {**found, "endpoint": endpoint} if endpoint and not _first_variable(_ENDPOINT_VARIABLES) else found


def _shared_mtimes() -> tuple[float, ...]:
    """Return the modification times of the user's shared configuration; 0 for a missing file."""
    return tuple(_mtime(os.environ.get(name, usual)) for name, usual in _SHARED)


def _mtime(path: str) -> float:
    try:
        return os.stat(os.path.expanduser(path)).st_mtime
    except OSError:
        return 0.0


def _first_variable(names: tuple[str, ...]) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


# -- regions ------------------------------------------------------------------------------------------

#: Regions of buckets; None if a query failed.
_regions: dict[tuple[str, Options], str | None] = {}
#: The region of this thread's last request.
_last_region = threading.local()


def relocate(source: Source, region: str | None) -> bool:
    """Determine the region of a bucket that refused a request; return whether it differs from the one used.

    Unless the response names the region, query it: S3 sends it in a header of any response of the bucket.
    """
    bucket = bucket_and_name(source)[0]
    place = bucket, source.options
    refused: str | None = _last_region.region
    if _regions.get(place) != refused:
        return True  # another thread has determined it already
    if region is None and place in _regions:
        return False
    found = _regions[place] = region or _region_of(*place)
    return found not in {None, refused}


def _region_of(bucket: str, options: Options) -> str | None:
    import http.client  # late: Python's HTTP client takes long to import
    from urllib.request import Request

    endpoint = endpoint_of(_translated_options(options), "endpoint", *_ENDPOINT_VARIABLES)
    url = f"{endpoint or 'https://s3.amazonaws.com'}/{quote(bucket)}"
    count(requests=1)
    try:
        with http_client.opener().open(Request(url, method="HEAD"), timeout=config.request_timeout) as answer:  # noqa: S310 - S3's own
            found: str | None = answer.headers.get("x-amz-bucket-region")
            return found
    except (OSError, ValueError, http.client.HTTPException):
        return None
