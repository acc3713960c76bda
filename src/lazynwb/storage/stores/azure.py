"""Azure Blob Storage: `az://container/name`, `abfs[s]://container@account.dfs.core.windows.net/name`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from obstore.store import AzureStore

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

#: fsspec's (adlfs's) names of options.
_OPTION_NAMES = {
    "anon": "skip_signature",
    "sas_token": "sas_key",
    "endpoint_url": "endpoint",
    "account_url": "endpoint",
    "azure_storage_account_name": "account_name",
    "azure_storage_account_key": "account_key",
    "azure_storage_sas_token": "sas_key",
    "azure_storage_sas_key": "sas_key",
    "azure_storage_connection_string": "connection_string",
    "azure_storage_endpoint": "endpoint",
    "azure_storage_token": "token",
    "azure_skip_signature": "skip_signature",
}
_FOREIGN_PREFIXES = ("aws_", "google_", "gcs_")
_SIGNING = frozenset(
    {
        *("account_key", "sas_key", "token", "client_id", "client_secret", "federated_token_file"),
        *("use_azure_cli", "credential_type", "credential_provider", "msi_endpoint"),
        *("use_emulator", "fabric_session_token", "connection_string"),
    }
)
_SIGNING_VARIABLES = (
    *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"),
    *("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_TOKEN"),
    *("AZURE_CLIENT_ID", "AZURE_STORAGE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"),
    *("AZURE_USE_AZURE_CLI", "AZURE_CREDENTIAL_TYPE", "AZURE_STORAGE_USE_EMULATOR"),
    *("AZURE_MSI_ENDPOINT", "IDENTITY_ENDPOINT", "AZURE_SKIP_SIGNATURE"),
)
_ENDPOINT_VARIABLES = ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
_VARIABLES = (
    *_SIGNING_VARIABLES,
    *_ENDPOINT_VARIABLES,
    *("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"),
    *("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY"),
)
_CONNECTION = {
    "accountname": "account_name",
    "accountkey": "account_key",
    "sharedaccesssignature": "sas_key",
    "blobendpoint": "endpoint",
}
_PUBLIC_CLOUD = "core.windows.net"


def open_store(source: Source) -> Location:
    """Return the container and the name of the blob; see `lazynwb.storage.stores.registry`."""
    where, name = bucket_and_name(source)
    container, _, host = where.partition("@")
    return Location(_store(container, host, source.options, read_environment(_VARIABLES)), name)


@memoize_store
def _store(container: str, host: str, options: Options, _environment: object) -> AzureStore:
    found = {**translate_options(options.as_dict(), _OPTION_NAMES, _FOREIGN_PREFIXES), **_from_host(host)}
    unsigned = found.get("skip_signature")
    if not (_SIGNING & found.keys() or is_true(unsigned)):
        found = {**_from_environment(found.get("account_name")), **found}
    if "connection_string" in found:
        found = {**_from_connection(str(found.pop("connection_string"))), **found}
    emulated = is_true(found.get("use_emulator") or os.environ.get("AZURE_STORAGE_USE_EMULATOR"))
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME") or os.environ.get("AZURE_STORAGE_ACCOUNT")
    if account:
        found.setdefault("account_name", account)
    if "account_name" not in found and not emulated:
        raise UnusableError(
            'the account of the container is unknown: pass storage_options={"account_name": ...}, or a URL '
            "such as abfs://container@account.dfs.core.windows.net/..."
        )
    has_credentials = _SIGNING & found.keys() or any(os.environ.get(name) for name in _SIGNING_VARIABLES)
    if not has_credentials and unsigned is None:
        # Otherwise obstore requests a managed identity, which fails outside of Azure's machines.
        found["skip_signature"] = True
    endpoint = endpoint_of(found, "endpoint", *_ENDPOINT_VARIABLES)
    client = client_options(options.as_dict(), allow_http=emulated or endpoint.startswith("http:"))
    return AzureStore(container, client_options=client, retry_config=NO_RETRIES, **found)


def _from_host(host: str) -> dict[str, Any]:
    """Return the account in a URL and its blob endpoint: the host of the URL belongs to another protocol."""
    account, _, rest = host.partition(".")
    _, _, cloud = rest.partition(".")
    if not account:
        return {}
    if cloud in {"", _PUBLIC_CLOUD}:
        return {"account_name": account}
    if cloud == "fabric.microsoft.com":
        return {"account_name": account, "use_fabric_endpoint": True}
    return {"account_name": account, "endpoint": f"https://{account}.blob.{cloud}"}


def _from_environment(account: str | None) -> dict[str, str]:
    """Return credentials from variables of Azure's tools that obstore ignores, unless for another account."""
    found = _from_connection(os.environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    for variable, name in (("AZURE_STORAGE_ACCOUNT", "account_name"), ("AZURE_STORAGE_KEY", "account_key")):
        if os.environ.get(variable):
            found.setdefault(name, os.environ[variable])
    return found if account in {None, found.get("account_name", account)} else {}


def _from_connection(text: str) -> dict[str, str]:
    """Return the options in a connection string such as `AccountName=...;AccountKey=...`."""
    pairs = (part.partition("=") for part in text.split(";") if part.strip())
    parts = {name.strip().lower(): value.strip() for name, _, value in pairs}
    found = {option: parts[name] for name, option in _CONNECTION.items() if name in parts}
    if is_true(parts.get("usedevelopmentstorage", "")):
        found["use_emulator"] = "true"
    suffix = parts.get("endpointsuffix", _PUBLIC_CLOUD)
    if suffix != _PUBLIC_CLOUD and "endpoint" not in found and "account_name" in found:
        found["endpoint"] = f"https://{found['account_name']}.blob.{suffix}"
    if "account_name" not in found and "endpoint" in found:
        found["account_name"] = found["endpoint"].partition("://")[2].partition(".")[0]
    return found
