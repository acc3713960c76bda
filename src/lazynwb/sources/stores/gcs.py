"""Google Cloud Storage: `gs://bucket/name`."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obstore.store import GCSStore

from lazynwb.sources.stores import NO_RETRIES, Location, client_options, translated

if TYPE_CHECKING:
    from lazynwb.sources.source import Options, Source

#: fsspec's (gcsfs's) names of options.
_NAMES = {
    "anon": "skip_signature",
    "endpoint_url": "base_url",
    "google_base_url": "base_url",
    "google_bearer_token": "bearer_token",
    "google_service_account": "service_account",
    "google_service_account_key": "service_account_key",
    "google_skip_signature": "skip_signature",
}
_OTHERS = ("aws_", "azure_")
_SIGNING = frozenset(
    {"service_account", "service_account_key", "bearer_token", "credential_provider", "skip_signature"}
)
_SIGNING_VARIABLES = (
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SKIP_SIGNATURE",
)


def open_store(source: Source) -> Location:
    """Return the bucket, and the object's name; see `lazynwb.sources.stores`."""
    bucket, _, name = source.path.partition("://")[2].partition("/")
    return Location(_store(bucket, source.options), name)


@lru_cache(maxsize=256)
def _store(bucket: str, options: Options) -> GCSStore:
    found = translated(options, _NAMES, _OTHERS)
    if "token" in found:
        found.update(_from_token(found.pop("token")))
    found.pop("project", None)
    if not _SIGNING & found.keys() and not _has_credentials():
        # Else obstore asks for instance metadata, which nothing answers outside of Google's machines.
        found["skip_signature"] = True
    base = str(found.get("base_url") or os.environ.get("GOOGLE_BASE_URL", ""))
    client = client_options(options.as_dict(), allow_http=base.startswith("http:"))
    return GCSStore(bucket, client_options=client, retry_config=NO_RETRIES, **found)


def _from_token(token: Any) -> dict[str, Any]:  # noqa: ANN401 - gcsfs's option takes many things
    """Translate gcsfs's option: "anon", the path of a service account's file, or its contents."""
    if token == "anon":  # noqa: S105 - a word, not a token
        return {"skip_signature": True}
    if isinstance(token, dict):
        import json

        return {"service_account_key": json.dumps(token)}
    return {"service_account": str(token)}


def _has_credentials() -> bool:
    folder = os.environ.get("CLOUDSDK_CONFIG") or (
        Path(os.environ.get("APPDATA", "")) / "gcloud" if os.name == "nt" else "~/.config/gcloud"
    )
    usual = Path(folder).expanduser() / "application_default_credentials.json"
    return any(os.environ.get(name) for name in _SIGNING_VARIABLES) or usual.exists()
