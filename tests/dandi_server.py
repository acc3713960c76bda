"""A DANDI archive on loopback: the API paths that reading requires, and faults on request.

    with DandiServer() as archive:
        archive.publish("000363", "0.231012.2129", ["sub-1/a.nwb", "sub-1/b.nwb.zarr"])
        archive.faults.append(Fault(503))
        ...
        assert archive.paths == ["dandisets/000363/", ...]

Listings sort, filter and end as the archive's do: `path` is what names begin with, `*` in `glob` stands for
anything, case does not matter, and `count` is on the first page only. The bytes are elsewhere: `bucket` is
the URL that assets are below, and `Asset.key` is their path there.
"""

import gzip
import json
import re
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit


def identifier(*names):
    """A UUID that is the same in every run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(names)))


@dataclass
class Asset:
    """One asset of one version."""

    path: str
    asset_id: str
    store_id: str
    created: str
    modified: str
    metadata: dict = field(default_factory=dict)

    @property
    def is_zarr(self):
        return self.path.endswith(".zarr")

    @property
    def key(self):
        name = self.store_id
        return f"zarr/{name}/" if self.is_zarr else f"blobs/{name[:3]}/{name[3:6]}/{name}"


@dataclass
class Dandiset:
    versions: dict = field(default_factory=lambda: {"draft": []})
    embargoed: bool = False


@dataclass(frozen=True)
class Fault:
    """Answer of a request in place of the valid answer."""

    status: int = 200
    body: bytes | str = b"{}"
    headers: dict = field(default_factory=dict)
    end: str | None = None  # "close": no answer at all; "cut": half of the body; "drip": bytes one by one


@dataclass(frozen=True)
class Seen:
    path: str  # below the API's address
    query: dict
    headers: dict  # names in lower case


class DandiServer:
    """An archive whose content, limits and faults may change at any time.

    Attributes
    ----------
    dandisets : dict
        Identifier to `Dandiset`.
    keys : dict
        Key to whether its account may read what is embargoed.
    faults : deque
        Answers to the next requests; with None, a request is answered as it should be.
    page_size : int
        What a page has at most.
    bucket : str
    log : list of Seen
    """

    def __init__(self, bucket="https://bucket.test"):
        self.bucket = bucket
        self.dandisets = {}
        self.keys = {}
        self.faults = deque()
        self.page_size = 1000
        self.key_of = lambda asset: asset.key
        self.log = []
        self.signatures = 0
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}/api"

    @property
    def paths(self):
        return [seen.path for seen in self.log]

    def publish(self, dandiset, version, paths, *, embargoed=False):
        """Put assets at these paths, and return them by their paths."""
        of = self.dandisets.setdefault(dandiset, Dandiset())
        of.embargoed = embargoed
        of.versions[version] = [
            Asset(
                path,
                identifier("asset", dandiset, version, path),
                identifier("store", dandiset, version, path),
                created=f"2023-01-{1 + len(paths) - number:02}T00:00:00Z",
                modified=f"2024-01-{1 + (number * 7) % len(paths):02}T00:00:00Z",
                metadata={"wasAttributedTo": [{"identifier": path.partition("/")[0]}]},
            )
            for number, path in enumerate(paths)
        ]
        return {asset.path: asset for asset in of.versions[version]}

    def url_of(self, asset):
        return f"{self.bucket}/{self.key_of(asset)}"

    # -- what is answered; a pair of a status and what becomes JSON, or headers -----------------------

    def answer(self, seen):
        authorization = seen.headers.get("authorization")
        key = authorization.removeprefix("token ") if authorization else None
        if key is not None and key not in self.keys:
            return 401, {"detail": "Invalid token."}
        for pattern, method in _ROUTES:
            found = re.fullmatch(pattern, seen.path)
            if found:
                return method(self, seen.query, key, *found.groups())
        return 404, {"detail": "Not found."}

    def _refused(self, dandiset, key):
        if not dandiset.embargoed:
            return None
        if key is None:
            return 401, {"detail": "Authentication credentials were not provided."}
        return None if self.keys[key] else (403, {"detail": "You do not have permission."})

    def _dandiset(self, query, key, number):
        dandiset = self.dandisets.get(number)
        if dandiset is None:
            return 404, {"detail": "Not found."}
        published = sorted(version for version in dandiset.versions if version != "draft")
        return self._refused(dandiset, key) or (
            200,
            {
                "identifier": number,
                "embargo_status": "EMBARGOED" if dandiset.embargoed else "OPEN",
                "most_recent_published_version": {"version": published[-1]} if published else None,
                "draft_version": {"version": "draft"},
            },
        )

    def _assets(self, query, key, number, version):
        dandiset = self.dandisets.get(number)
        if dandiset is None or version not in dandiset.versions:
            return 404, {"detail": "Not found."}
        refused = self._refused(dandiset, key)
        if refused:
            return refused
        glob = re.compile(".*".join(map(re.escape, query.get("glob", "*").split("*"))), re.IGNORECASE)
        order = query.get("order", "created")
        assets = sorted(dandiset.versions[version], key=lambda asset: getattr(asset, order.lstrip("-")))
        assets = [
            asset
            for asset in (reversed(assets) if order.startswith("-") else assets)
            if asset.path.lower().startswith(query.get("path", "").lower()) and glob.fullmatch(asset.path)
        ]
        page, size = int(query.get("page", 1)), min(int(query.get("page_size", 100)), self.page_size)
        shown = assets[(page - 1) * size : page * size]
        if page > 1 and not shown:
            return 404, {"detail": "Invalid page."}
        following = urlencode({**query, "page": page + 1}) if page * size < len(assets) else None
        path = f"dandisets/{number}/versions/{version}/assets/"
        return 200, {
            "count": len(assets) if page == 1 else None,
            "next": following and f"{self.url}/{path}?{following}",
            "previous": None,
            "results": [self._entry(asset, metadata="metadata" in query) for asset in shown],
        }

    def _info(self, query, key, number, version, asset_id):
        dandiset = self.dandisets.get(number, Dandiset())
        found = [a for a in dandiset.versions.get(version, []) if a.asset_id == asset_id]
        refused = self._refused(dandiset, key)
        return refused or ((200, self._entry(found[0], metadata=True)) if found else (404, {}))

    def _asset(self, query, key, asset_id):
        dandiset, asset = self._find("asset_id", asset_id)
        if asset is None:
            return 404, {"detail": "Not found."}
        return self._refused(dandiset, key) or (200, self._metadata(asset))

    def _download(self, query, key, asset_id):
        dandiset, asset = self._find("asset_id", asset_id)
        if asset.is_zarr:
            return 400, "Unable to provide download link for zarr assets."
        return self._refused(dandiset, key) or self.signed_redirect(self.url_of(asset))

    def _zarr(self, query, key, zarr_id):
        dandiset, asset = self._find("store_id", zarr_id)
        if query.get("download") != "true":
            return 400, {}
        return self._refused(dandiset, key) or self.signed_redirect(
            self.url_of(asset) + query["prefix"].lstrip("/")
        )

    def _find(self, name, value):
        for dandiset in self.dandisets.values():
            for assets in dandiset.versions.values():
                for asset in assets:
                    if getattr(asset, name) == value:
                        return dandiset, asset
        return None, None

    def signed_redirect(self, url):
        self.signatures += 1
        return 302, {"Location": f"{url}?X-Amz-Signature=secret{self.signatures}"}

    def _metadata(self, asset):
        content = [f"{self.url}/assets/{asset.asset_id}/download/", self.url_of(asset)]
        return {**asset.metadata, "path": asset.path, "identifier": asset.asset_id, "contentUrl": content}

    def _entry(self, asset, *, metadata):
        return {
            "asset_id": asset.asset_id,
            "blob": None if asset.is_zarr else asset.store_id,
            "zarr": asset.store_id if asset.is_zarr else None,
            "path": asset.path,
            "size": len(asset.path),
            "created": asset.created,
            "modified": asset.modified,
            **({"metadata": self._metadata(asset)} if metadata else {}),
        }


_ROUTES = [
    (r"dandisets/(\d{6})/", DandiServer._dandiset),
    (r"dandisets/(\d{6})/versions/([^/]+)/assets/", DandiServer._assets),
    (r"dandisets/(\d{6})/versions/([^/]+)/assets/([^/]+)/info/", DandiServer._info),
    (r"assets/([^/]+)/", DandiServer._asset),
    (r"assets/([^/]+)/download/", DandiServer._download),
    (r"zarr/([^/]+)/files/", DandiServer._zarr),
]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """Ignore clients that have disconnected."""


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            target = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen = Seen(target.path.removeprefix("/api/"), dict(parse_qsl(target.query)), headers)
            server.log.append(seen)
            fault = server.faults.popleft() if server.faults else None
            if fault is None:
                status, answer = server.answer(seen)
                fault = (
                    Fault(status, b"", answer)
                    if status == 302
                    else Fault(status, json.dumps(answer), {"Content-Type": "application/json"})
                )
                if "gzip" in headers.get("accept-encoding", "") and status == 200:
                    fault = Fault(
                        status,
                        gzip.compress(fault.body.encode()),
                        {**fault.headers, "Content-Encoding": "gzip"},
                    )
            self.give(fault)

        def give(self, fault):
            if fault.end == "close":
                return
            body = fault.body if isinstance(fault.body, bytes) else fault.body.encode()
            self.send_response(fault.status)
            for name, value in {"Content-Type": "application/json", **fault.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if fault.end == "drip":
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.03)
            self.wfile.write(body[: len(body) // 2] if fault.end == "cut" else body)

        def log_message(self, *_):
            pass

    return Handler
