"""Azure Blob Storage: `az://container/name`, `abfs[s]://container@account.dfs.core.windows.net/name`."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

from obstore.store import AzureStore

from lazynwb.sources.stores import NO_RETRIES, Location, client_options, translated

if TYPE_CHECKING:
    from lazynwb.sources.source import Options, Source

#: fsspec's (adlfs's) names of options.
_NAMES = {
    "anon": "skip_signature",
    "sas_token": "sas_key",
    "azure_storage_account_name": "account_name",
    "azure_storage_account_key": "account_key",
    "azure_storage_sas_token": "sas_key",
    "azure_storage_sas_key": "sas_key",
    "endpoint_url": "endpoint",
    "account_url": "endpoint",
}
_OTHERS = ("aws_", "google_", "gcs_")
_SIGNING = frozenset(
    {"account_key", "sas_key", "token", "client_id", "credential_provider", "skip_signature", "use_emulator"}
)
_SIGNING_VARIABLES = (
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_TOKEN",
    "AZURE_CLIENT_ID",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_STORAGE_USE_EMULATOR",
    "AZURE_SKIP_SIGNATURE",
)


def open_store(source: Source) -> Location:
    """Return the container, and the blob's name; see `lazynwb.sources.stores`."""
    where, _, name = source.path.partition("://")[2].partition("/")
    container, _, host = where.partition("@")
    account = host.partition(".")[0] or None
    return Location(_store(container, account, source.options), name)


@lru_cache(maxsize=256)
def _store(container: str, account: str | None, options: Options) -> AzureStore:
    found = translated(options, _NAMES, _OTHERS)
    if account:
        found["account_name"] = account
    if not _SIGNING & found.keys() and not any(os.environ.get(name) for name in _SIGNING_VARIABLES):
        # Else obstore asks for a managed identity, which nothing answers outside of Azure's machines.
        found["skip_signature"] = True
    endpoint = str(found.get("endpoint") or "")
    plain = endpoint.startswith("http:") or bool(found.get("use_emulator"))
    client = client_options(options.as_dict(), allow_http=plain)
    return AzureStore(container, client_options=client, retry_config=NO_RETRIES, **found)
