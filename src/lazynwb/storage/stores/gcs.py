"""Google Cloud Storage: `gs://bucket/name`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from obstore.store import GCSStore

from lazynwb.storage.http_client import is_plain_ascii
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
    from lazynwb.storage.source import Options, Source

#: fsspec's (gcsfs's) names of options.
_OPTION_NAMES = {
    "anon": "skip_signature",
    "endpoint_url": "base_url",
    "google_base_url": "base_url",
    "google_bearer_token": "bearer_token",
    "google_application_credentials": "application_credentials",
    "google_service_account": "service_account",
    "google_service_account_path": "service_account",
    "google_service_account_key": "service_account_key",
    "google_skip_signature": "skip_signature",
}
_FOREIGN_PREFIXES = ("aws_", "azure_")
#: Options of gcsfs that do not matter for reading.
_IGNORED_OPTIONS = frozenset(
    {"access", "consistency", "cache_timeout", "check_connection", "default_location"}
)
_SIGNING = frozenset(
    {
        *("service_account", "service_account_key", "application_credentials", "bearer_token"),
        "credential_provider",
    }
)
_SIGNING_VARIABLES = (
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SKIP_SIGNATURE",
)
_VARIABLES = (*_SIGNING_VARIABLES, "GOOGLE_BASE_URL")


def open_store(source: Source) -> Location:
    """Return the bucket and the name of the object; see `lazynwb.storage.stores.registry`."""
    bucket, name = bucket_and_name(source)
    return Location(_store(bucket, source.options, read_environment(_VARIABLES), _login()), name)


@memoize_store
def _store(bucket: str, options: Options, _environment: object, login: str) -> GCSStore:
    found = translate_options(options.as_dict(), _OPTION_NAMES, _FOREIGN_PREFIXES)
    found = {name: value for name, value in found.items() if name not in _IGNORED_OPTIONS}
    if "token" in found:
        found.update(_from_token(found.pop("token")))
    project = found.pop("project", None)
    payer = found.pop("requester_pays", False)
    unsigned = found.get("skip_signature")
    has_credentials = _SIGNING & found.keys() or any(os.environ.get(name) for name in _SIGNING_VARIABLES)
    if not has_credentials and login and not is_true(unsigned):
        found["application_credentials"] = login
    elif not has_credentials and unsigned is None:
        # Otherwise obstore requests instance metadata, which fails outside of Google's machines.
        found["skip_signature"] = True
    base = endpoint_of(found, "base_url", "GOOGLE_BASE_URL")
    settings = options.as_dict()
    if payer:
        bill = {"x-goog-user-project": _payer(payer, project)}
        settings["headers"] = {**(settings.get("headers") or {}), **bill}
    client = client_options(settings, allow_http=base.startswith("http:"))
    return GCSStore(bucket, client_options=client, retry_config=NO_RETRIES, **found)


def _from_token(token: Any) -> dict[str, Any]:  # noqa: ANN401 - gcsfs's option takes many things
    """Translate the `token` option of gcsfs: a keyword, a credentials file or its contents, or a token."""
    if isinstance(token, dict):
        return {"service_account_key": json.dumps(token)}
    if token in {"anon", "cloud", "google_default"}:
        return {"skip_signature": token == "anon"}  # noqa: S105 - a keyword
    if isinstance(token, str) and os.path.isfile(token):
        return {"application_credentials": token}
    if isinstance(token, str) and token not in {"cache", "browser"} and is_plain_ascii(token):
        return {"bearer_token": token}
    raise UnusableError(
        'token must be "anon", "cloud", "google_default", the path or the contents of a credentials file, or '
        "an OAuth token"
    )


def _payer(payer: Any, project: Any) -> str:  # noqa: ANN401 - any value of the user
    """Return the project to bill; gcsfs accepts it in either option."""
    found = payer if isinstance(payer, str) else project
    if not isinstance(found, str):
        raise UnusableError("requester_pays must be the name of the project that pays")
    return found


def _login() -> str:
    """Return the path of the file that `gcloud auth application-default login` writes, if it exists."""
    folder = os.environ.get("CLOUDSDK_CONFIG") or (
        os.path.join(os.environ.get("APPDATA", ""), "gcloud") if os.name == "nt" else "~/.config/gcloud"
    )
    path = os.path.join(os.path.expanduser(folder), "application_default_credentials.json")
    return path if os.path.exists(path) else ""
