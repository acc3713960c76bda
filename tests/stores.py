"""Real servers on loopback: S3 (moto), Azure (Azurite), GCS (fake-gcs-server) and HTTP (nginx).

Each starts once per session, when a test first asks for its fixture. Those that are programs are looked up in
`PATH` and in the folders of the environment variable `LAZYNWB_TEST_TOOLS`, separated as in `PATH`;
`tests/tools/install.sh` fills such a folder. A test of a server that is not there is skipped.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

TOOLS = os.environ.get("LAZYNWB_TEST_TOOLS", "")
KEY = base64.b64encode(b"a key that opens nothing but a test").decode()


@dataclass(frozen=True)
class Cloud:
    """An object store with a bucket `private`, and a bucket `public` that is read without credentials.

    The options are what `obstore.store.from_url` takes besides the URL of an object.
    """

    scheme: str
    url: str  # of the server
    options: dict[str, Any]
    anonymous: dict[str, Any]
    put: Callable[[str, bytes], None]  # "private/a b.nwb" and its bytes

    def url_of(self, path):
        return f"{self.scheme}://{quote(path)}"


@dataclass(frozen=True)
class Nginx:
    """A web server over a folder, which it serves in several ways.

    `/` as nginx does; `/redirect/` by a redirect to `/`; `/gzip/` compressed for clients that accept it;
    `/bare/` without ETag and Last-Modified; `/whole/` without ranges; `/denied/` to nobody.
    """

    folder: Path
    url: str

    def url_of(self, path, location="/"):
        return f"{self.url}{location}{quote(path)}"


def find(tool):
    """The path of a program; without it, the test is skipped."""
    found = shutil.which(tool, path=os.pathsep.join([os.environ.get("PATH", os.defpath), TOOLS]))
    if found is None:
        pytest.skip(
            f"{tool} is not in PATH: tests/tools/install.sh FOLDER, and set LAZYNWB_TEST_TOOLS=FOLDER/bin"
        )
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def running(command, folder, **env):
    """Run a server, given by a function of its port to its arguments, until the block ends."""
    log = folder / "server.log"
    for _ in range(3):  # another process may be quicker to take the port
        port = free_port()
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603 - the programs named below
                command(port), stdout=out, stderr=out, cwd=folder, env={**os.environ, **env}
            )
        try:
            deadline = time.monotonic() + 30
            while process.poll() is None and time.monotonic() < deadline:
                if listens(port):
                    yield port
                    return
                time.sleep(0.02)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    message = f"the server does not start: {log.read_text()[-2000:]}"
    raise RuntimeError(message)


def call(port, method, target, body=b"", **headers):
    """One HTTP request that must succeed."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, target, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        assert answer.status < 300, (answer.status, answer.read())


# --- S3 -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def moto():
    """Run an S3 server until the block ends; ImportError if moto is not installed."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    account = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **account)
    for bucket in ("private", "public"):
        client.create_bucket(Bucket=bucket)

    port = server.get_host_and_port()[1]

    signed = (
        "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    )

    def put(path, data):  # moto checks no signature, and boto3 takes several times as long to make one
        acl = {"public": "public-read", "private": "private"}[path.partition("/")[0]]
        call(port, "PUT", "/" + quote(path), data, x_amz_acl=acl, authorization=signed)

    options = {"endpoint": url, "region": "us-east-1", "client_options": {"allow_http": True}}
    anonymous = options | {"skip_signature": True}
    try:
        private = options | {name.removeprefix("aws_"): value for name, value in account.items()}
        yield Cloud("s3", url, private, anonymous, put)
    finally:
        client.close()
        server.stop()


@pytest.fixture(scope="session")
def s3():
    pytest.importorskip("boto3", reason="pip install 'moto[server]'")
    pytest.importorskip("moto.server", reason="pip install 'moto[server]'")
    with moto() as cloud:
        yield cloud


# --- Azure --------------------------------------------------------------------------------------------

ACCOUNT = "tester"


@pytest.fixture(scope="session")
def azure(tmp_path_factory):
    tool, folder = find("azurite-blob"), tmp_path_factory.mktemp("azurite")

    def command(port):
        flags = ["--silent", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence"]
        return [tool, "--blobHost", "127.0.0.1", "--blobPort", str(port), *flags]

    with running(command, folder, AZURITE_ACCOUNTS=f"{ACCOUNT}:{KEY}") as port:

        def request(path, query="", body=b"", **headers):
            headers = {f"x_ms_{name}": value for name, value in headers.items()}
            headers |= {"x_ms_date": formatdate(usegmt=True), "x_ms_version": "2021-12-02"}
            target = f"/{ACCOUNT}/{quote(path)}"
            headers["authorization"] = azure_signature("PUT", target, query, len(body), headers)
            call(port, "PUT", f"{target}?{query}" if query else target, body, **headers)

        request("private", "restype=container")
        request("public", "restype=container", blob_public_access="blob")

        def put(path, data):
            request(path, body=data, blob_type="BlockBlob")

        url = f"http://127.0.0.1:{port}"
        options = {
            "account_name": ACCOUNT,
            "endpoint": f"{url}/{ACCOUNT}",
            "client_options": {"allow_http": True},
        }
        yield Cloud("az", url, options | {"account_key": KEY}, options | {"skip_signature": True}, put)


def azure_signature(method, target, query, length, headers):
    """The authorization header of a request with a shared key for Azure Blob Storage."""
    own = sorted((name.replace("_", "-"), value) for name, value in headers.items())
    resource = [f"/{ACCOUNT}{target}", *sorted(part.replace("=", ":") for part in query.split("&") if part)]
    lines = [method, "", "", str(length or ""), *[""] * 8, *(f"{k}:{v}" for k, v in own), *resource]
    digest = hmac.digest(base64.b64decode(KEY), "\n".join(lines).encode(), hashlib.sha256)
    return f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"


# --- GCS ----------------------------------------------------------------------------------------------


class Uploads(BaseHTTPRequestHandler):
    """A proxy of the stand-in for GCS: uploads by the XML API, which it refuses, go to its JSON API.

    Their conditions, which it does not heed there, are checked here.
    """

    protocol_version = "HTTP/1.1"
    port = 0
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def ask(self, method, target, body=b"", **headers):
        """Return the status, headers and body of a response of the stand-in."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()

    def upload(self, body):
        """Upload an object if it has the required generation; 0 if it must not exist."""
        demanded = self.headers.get("x-goog-if-generation-match")
        with self.lock:
            found = self.ask("HEAD", self.path)[1].get("x-goog-generation", "0")
            if demanded not in {None, found}:
                return 412, {}, b""
            bucket, _, name = unquote(self.path.partition("?")[0]).lstrip("/").partition("/")
            target = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}"
            status, _, data = self.ask("POST", target, body, **{"content-type": "application/octet-stream"})
            return status, {"etag": json.loads(data)["etag"]} | self.ask("HEAD", self.path)[1], b""

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.command == "PUT":
            status, headers, data = self.upload(body)
        else:
            kept = {k: v for k, v in self.headers.items() if k.lower() in {"range", "content-type"}}
            status, headers, data = self.ask(self.command, self.path, body, **kept)
        self.send_response(status)
        if self.command != "HEAD":
            headers["content-length"] = str(len(data))
        for name, value in headers.items():
            if name not in {"transfer-encoding", "connection", "date"}:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - as http.server calls them


@pytest.fixture(scope="session")
def gcs_uploads(gcs):
    """The emulator with uploads."""
    handler = type("OfPort", (Uploads,), {"port": int(gcs.url.rpartition(":")[2])})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    account = json.loads(gcs.options["service_account_key"]) | {"gcs_base_url": url}
    try:
        yield replace(gcs, url=url, options=gcs.options | {"service_account_key": json.dumps(account)})
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def gcs(tmp_path_factory):
    """It asks nobody for credentials, does not heed If-Match, and takes no uploads by the XML API.

    To `PUT /bucket/name` of obstore, with or without a condition, it answers "400 invalid uploadType".
    """
    tool, folder = find("fake-gcs-server"), tmp_path_factory.mktemp("gcs")

    def command(port):
        address = ["-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
        return [tool, "-scheme", "http", "-backend", "memory", *address]

    with running(command, folder) as port:
        for bucket in ("private", "public"):
            call(port, "POST", "/storage/v1/b?project=test", json.dumps({"name": bucket}).encode())

        def put(path, data):
            bucket, _, name = path.partition("/")
            target = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}"
            call(port, "POST", target, data, content_type="application/octet-stream")

        url = f"http://127.0.0.1:{port}"
        account = {"gcs_base_url": url, "disable_oauth": True}
        account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        options = {"service_account_key": json.dumps(account), "client_options": {"allow_http": True}}
        anonymous = {"base_url": url, "skip_signature": True, "client_options": {"allow_http": True}}
        yield Cloud("gs", url, options, anonymous, put)


# --- HTTP ---------------------------------------------------------------------------------------------

NGINX = """
daemon off;
master_process off;
pid {own}/nginx.pid;
lock_file {own}/nginx.lock;
error_log {own}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {own}/body;
    proxy_temp_path {own}/proxy;
    fastcgi_temp_path {own}/fastcgi;
    uwsgi_temp_path {own}/uwsgi;
    scgi_temp_path {own}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {files};
        location /redirect/ {{ rewrite ^/redirect(/.*)$ $1 redirect; }}
        location /gzip/ {{ alias {files}/; gzip on; gzip_types *; gzip_min_length 0; }}
        location /bare/ {{ alias {files}/; etag off; add_header Last-Modified ""; }}
        location /whole/ {{ alias {files}/; max_ranges 0; }}
        location /denied/ {{ deny all; }}
    }}
}}
"""


@pytest.fixture(scope="session")
def nginx(tmp_path_factory):
    tool, own, files = find("nginx"), tmp_path_factory.mktemp("nginx"), tmp_path_factory.mktemp("served")

    def command(port):
        (own / "nginx.conf").write_text(NGINX.format(own=own, files=files, port=port))
        return [tool, "-p", str(own), "-c", str(own / "nginx.conf"), "-e", str(own / "error.log")]

    with running(command, own) as port:
        yield Nginx(files, f"http://127.0.0.1:{port}")
