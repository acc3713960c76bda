"""Translation of `https` URLs of S3, Google and Azure buckets to the schemes of these stores."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote, urlsplit

_S3 = re.compile(
    r"(?:(?P<bucket>[a-z0-9.-]+)\.)?s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?"
)
_S3_CONSOLE = re.compile(r"(?:s3|[a-z0-9-]+)\.console\.aws\.amazon\.com")
_GCS = re.compile(r"(?:(?P<bucket>[a-z0-9._-]+)\.)?storage\.(?:googleapis|cloud\.google)\.com")
_AZURE = re.compile(r"(?P<account>[a-z0-9]+)\.(?:blob|dfs)\.core\.windows\.net")


def bucket_url(url: str) -> str | None:
    """Return the `https` URL of a bucket in the scheme of its store.

    Parameters
    ----------
    url : str
        Such as `https://bucket.s3.us-west-2.amazonaws.com/folder/`.

    Returns
    -------
    str or None
        Such as `s3://bucket/folder/`; None if the server is not an object store, or the URL has a query,
        whose signature would be lost.
    """
    parts = urlsplit(url)
    host, path = parts.hostname or "", unquote(parts.path).lstrip("/")
    if _S3_CONSOLE.fullmatch(host):
        bucket = re.fullmatch(r"s3/(?:buckets|object)/([^/]+)", path.rstrip("/"))
        prefix = parse_qs(parts.query).get("prefix", [""])[0]
        return None if bucket is None else f"s3://{bucket[1]}/{prefix}"
    if parts.query:
        return None
    for pattern, scheme in ((_S3, "s3"), (_GCS, "gs")):
        if (found := pattern.fullmatch(host)) is not None:
            return f"{scheme}://{found['bucket']}/{path}" if found["bucket"] else f"{scheme}://{path}"
    if (found := _AZURE.fullmatch(host)) is not None:
        container, _, name = path.partition("/")
        return f"abfss://{container}@{found['account']}.dfs.core.windows.net/{name}"
    return None
