"""Stores of objects: folders, prefixes, zip archives and reference files return the same objects."""

import base64
import json
import os
import random
import struct
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lazynwb
from dandi_server import DandiServer
from lazynwb.errors import (
    CorruptDataError,
    LazyNWBError,
    NotNWBError,
    SourceChangedError,
    SourceNotFoundError,
    UnsupportedTypeError,
)
from lazynwb.storage.objects import local_folder as folder_module
from lazynwb.storage.objects.object_store import open_objects
from lazynwb.storage.resolve import resolve
from lazynwb.storage.source import ABSENT, Options
from range_server import WHOLE, RangeServer, always, first, refuse

CHUNK = bytes(range(256)) * 8
CONTENTS = {
    ".zgroup": b'{"zarr_format": 2}',
    ".zmetadata": b'{"metadata": {}}',
    "units/.zgroup": b"{}",
    "units/spike times (µ)+#%?/0.0": CHUNK,
    "units/spike_times/.zarray": b'{"shape": [1]}',
    "units/spike_times/0": CHUNK[::-1],
    "units/spike_times/1/0": b"nested",
    "units/empty": b"",
}
HOSTILE = ("", "/", "/etc/passwd", "../secret", "units/../../secret", "units//0", ".", "units/.", "a\0b")
KINDS = ("folder", "stored", "deflated", "inline", "ranges", "web", "web zip", "s3", "azure", "gcs")
BUCKETS = ("s3", "azure", "gcs")

every = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def one_try():
    lazynwb.config.max_retries = 0


@pytest.fixture
def server():
    with RangeServer() as running:
        yield running


@pytest.fixture
def store(kind, tmp_path, request):
    """The same objects in a store of each kind."""
    return make(kind, tmp_path, request)


def make(kind, tmp_path, request):
    path = tmp_path / "x.nwb.zarr"
    if kind == "folder":
        return open_objects(resolve(str(write_folder(path))))
    if kind in {"stored", "deflated"}:
        method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        return open_objects(resolve(str(write_zip(tmp_path / "x.zarr.zip", CONTENTS, method))))
    if kind == "inline":
        refs = {key: "base64:" + base64.b64encode(data).decode() for key, data in CONTENTS.items()}
        return references(tmp_path, refs)
    if kind == "ranges":
        return references(tmp_path, refer(tmp_path / "data.h5"))
    if kind in BUCKETS:
        cloud = request.getfixturevalue(kind)
        for key, data in CONTENTS.items():
            cloud.put(f"private/lab/x.nwb.zarr/{key}", data)
        return open_objects(resolve(f"{cloud.scheme}://private/lab/x.nwb.zarr", Options(cloud.options)))
    server = request.getfixturevalue("server")
    if kind == "web zip":
        data = write_zip(tmp_path / "x.zarr.zip", CONTENTS).read_bytes()
        server.objects["lab/x.zarr.zip"] = data
        return open_objects(resolve(server.url_of("lab/x.zarr.zip")))
    server.objects.update({f"lab/x.nwb.zarr/{key}": data for key, data in CONTENTS.items()})
    return open_objects(resolve(server.url_of("lab/x.nwb.zarr")))


def write_folder(path, contents=CONTENTS):
    for key, data in contents.items():
        (path / key).parent.mkdir(parents=True, exist_ok=True)
        (path / key).write_bytes(data)
    return path


def write_zip(path, contents, method=zipfile.ZIP_STORED, top=""):
    with zipfile.ZipFile(path, "w", method) as archive:
        for key, data in contents.items():
            archive.writestr(top + key, data)
    return path


def references(tmp_path, refs, **other):
    path = tmp_path / "x.nwb.lindi.json"
    path.write_text(json.dumps({"refs": refs, **other}))
    return open_objects(resolve(str(path)))


def refer(path, url=None):
    """Write the objects into one file, one after the other; return the references to them."""
    refs, data = {}, b"head"
    for key, value in CONTENTS.items():
        refs[key] = [url or path.name, len(data), len(value)]
        data += value + b"between"
    path.write_bytes(data)
    return refs


def same(found):
    return {key: None if data is None else bytes(data) for key, data in found.items()}


# --- every kind ---------------------------------------------------------------------------------------


@every
def test_objects_equal_the_written_bytes(kind, store):
    for key, data in CONTENTS.items():
        assert bytes(store.get(key)) == data
    assert same(store.get_many(iter(CONTENTS))) == CONTENTS
    assert store.get_many([]) == {}


@every
def test_missing_objects_are_none(kind, store):
    for key in ("zarr.json", "units/none", "none/at/all", "units/spike_times/0/0", "units"):
        assert store.get(key) is None
        assert store.get_range(key, 0, 5) is None
        assert store.get_range(key, -5, 5) is None
        assert store.version(key) == ABSENT
    assert same(store.get_many(["none", "units/.zgroup"])) == {"none": None, "units/.zgroup": b"{}"}


@every
def test_parts_of_objects(kind, store):
    key = "units/spike times (µ)+#%?/0.0"
    size = len(CHUNK)
    for start, length in ((0, 1), (0, size), (300, 7), (size - 5, 5), (-8, 8), (-size, 3), (-20, 4)):
        begin = start % size if start < 0 else start
        assert bytes(store.get_range(key, start, length)) == CHUNK[begin : begin + length]


@every
def test_missing_parts_are_errors(kind, store):
    size = len(CHUNK)
    for start, length in ((size, 1), (size + 9, 1), (size - 4, 5), (0, size + 1), (-size - 1, 1), (-4, 5)):
        # What stands in for Google's breaks the connection at some of these.
        words = "truncated|connection was lost" if kind == "gcs" else "truncated"
        with pytest.raises(LazyNWBError if kind == "gcs" else CorruptDataError, match=words):
            store.get_range("units/spike_times/0", start, length)
    with pytest.raises(LazyNWBError):
        store.get_range("units/empty", -4, 4)


@every
def test_members_are_names_right_below_a_prefix(kind, store):
    if kind == "web":
        assert store.members("") is None
        return
    assert store.members("") == [".zgroup", ".zmetadata", "units"]
    assert store.members("units") == [".zgroup", "empty", "spike times (µ)+#%?", "spike_times"]
    assert store.members("units/") == store.members("units")
    assert store.members("units/spike_times") == [".zarray", "0", "1"]
    assert store.members("units/spike_tim") == []


@every
def test_keys_cannot_leave_the_store(kind, store, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    for key in HOSTILE:
        for ask in (store.get, store.version, lambda key: store.get_range(key, 0, 1)):
            with pytest.raises(CorruptDataError, match="not a valid key"):
                ask(key)
    with pytest.raises(CorruptDataError):
        store.members("../..")


@every
def test_a_version_depends_on_the_content_and_not_on_the_client(kind, store):
    again = open_objects(store.source)
    for key in (".zmetadata", "units/spike_times/0"):
        assert store.version(key) == again.version(key) != ABSENT


# --- folders ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "x.zarr")


def opened(path):
    return open_objects(resolve(str(path)))


def test_links_inside_of_a_folder_are_followed(folder):
    (folder / "alias").symlink_to("units")
    (folder / "units" / "again").symlink_to(folder / "units" / "spike_times" / "0")
    store = opened(folder)
    assert store.get("alias/spike_times/0") == store.get("units/again") == CHUNK[::-1]
    assert store.version("units/again") == store.version("units/spike_times/0")


@pytest.mark.parametrize("allowed", ["folder", "never"])
def test_links_out_of_a_folder_are_errors(folder, tmp_path, allowed):
    (tmp_path / "x.zarr2").mkdir()
    (tmp_path / "x.zarr2" / "0").write_bytes(b"secret")
    (folder / "file").symlink_to(tmp_path / "x.zarr2" / "0")
    (folder / "out").symlink_to("../x.zarr2")
    lazynwb.config.external_links = allowed
    for key in ("file", "out/0", "out/none"):
        store = opened(folder)
        for ask in (store.get, store.version, lambda key, store=store: store.get_many([key])):
            with pytest.raises(NotNWBError, match="to outside of the folder"):
                ask(key)
    with pytest.raises(NotNWBError, match="to outside of the folder"):
        opened(folder).members("out")
    lazynwb.config.external_links = "anywhere"
    assert opened(folder).get("file") == opened(folder).get("out/0") == b"secret"
    assert opened(folder).members("out") == ["0"]


def test_a_folder_that_is_a_link_itself(folder, tmp_path):
    (tmp_path / "alias.zarr").symlink_to(folder)
    assert opened(tmp_path / "alias.zarr").get("units/.zgroup") == b"{}"


def test_pipes_and_devices_are_refused_immediately(folder):
    os.mkfifo(folder / "pipe")
    (folder / "circle").symlink_to("circle")
    (folder / "broken").symlink_to("nothing")
    store = opened(folder)
    with pytest.raises(NotNWBError, match="pipe"):
        store.get("pipe")
    with pytest.raises(NotNWBError, match="cannot be read"):
        store.get("circle")
    with pytest.raises(NotNWBError, match="cannot be read"):
        store.get("a" * 300)
    with pytest.raises(LazyNWBError):
        store.get("\ud800")
    with pytest.raises(NotNWBError, match="which does not exist"):  # not: an object that was never written
        store.get("broken")
    (folder / "gone").symlink_to("nothing")
    with pytest.raises(NotNWBError, match="which does not exist"):
        store.get("gone/0")
    assert store.get("nothing/0") is None


def test_separators_of_another_system_are_no_part_of_a_name(folder, monkeypatch):
    monkeypatch.setattr(folder_module, "SEPARATORS", frozenset("\\:"))
    for key in ("..\\secret", "C:\\secret", "units\\.zgroup", "units/0:stream", "..\\a/b"):
        with pytest.raises(CorruptDataError, match="not a valid file name"):
            opened(folder).get(key)


def test_many_files_are_read_and_counted(tmp_path):
    contents = {f"a/{i}": bytes([i]) * i for i in range(100)}
    store = opened(write_folder(tmp_path / "x.zarr", contents))
    with lazynwb.profile() as cost:
        assert same(store.get_many([*contents, "a/100"])) == {**contents, "a/100": None}
    assert (cost.requests, cost.bytes_read) == (100, sum(range(100)))


def test_a_files_version_changes_with_it(folder):
    store = opened(folder)
    before = store.version("units/empty")
    (folder / "units" / "empty").write_bytes(b"now")
    assert store.version("units/empty") != before


# --- prefixes -----------------------------------------------------------------------------------------


@pytest.fixture
def web(server, tmp_path, request):
    store = make("web", tmp_path, request)
    server.reset()
    return store


def test_each_object_or_part_takes_one_request(web, server):
    assert web.get(".zmetadata")
    assert web.version(".zmetadata")  # came with it
    assert web.get("zarr.json") is None
    assert web.get_range("units/spike_times/0", 5, 5)
    assert web.get_range("units/spike_times/0", -5, 5)
    assert [seen.headers.get("range") for seen in server.log] == [None, None, "bytes=5-9", "bytes=-5"]
    assert server.bytes == len(CONTENTS[".zmetadata"]) + len(b"no such file\n") + 10


def test_a_version_check_reads_one_byte(web, server):
    assert web.version(".zmetadata") == web.version(".zmetadata")
    assert (server.count, server.bytes) == (1, 1)
    lazynwb.config.recheck_seconds = 0
    web.version(".zmetadata")
    assert server.count == 2


def test_many_objects_are_requested_concurrently(web, server):
    server.latency = 0.1
    assert same(web.get_many(CONTENTS)) == CONTENTS
    assert server.count == len(CONTENTS)
    assert server.most_at_once > len(CONTENTS) // 2


def test_the_query_of_a_url_is_sent_with_each_object(server):
    server.objects["x.zarr/a b/0"] = b"chunk"
    store = open_objects(resolve(f"{server.url}/x.zarr/?X-Signature=a%2Bb"))
    assert bytes(store.get("a b/0")) == b"chunk"
    assert server.log[-1].target == "/x.zarr/a%20b/0?X-Signature=a%2Bb"
    server.faults.append(always(refuse(403)))
    with pytest.raises(LazyNWBError, match=r"a%20b/0\?X-Signature=\*\*\*") as refused:
        store.get("a b/0")
    assert "a%2Bb" not in str(refused.value)


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_refused_and_failed_requests_are_not_missing_objects(web, server, status):
    server.faults.append(always(refuse(status)))
    for ask in (web.get, web.version, lambda key: web.get_many([key]), lambda key: web.get_range(key, -3, 3)):
        with pytest.raises(LazyNWBError, match=str(status)) as refused:
            ask("units/spike_times/0")
        assert not isinstance(refused.value, SourceNotFoundError)


def test_a_temporary_fault_has_no_effect(web, server):
    lazynwb.config.max_retries = 1
    server.faults.append(first(1, refuse(500)))
    assert bytes(web.get_range("units/spike_times/0", -3, 3)) == CHUNK[::-1][-3:]


def test_a_server_without_ranges(web, server):
    server.faults.append(always(WHOLE))
    assert bytes(web.get("units/spike_times/0")) == CHUNK[::-1]
    assert web.version(".zgroup") != ABSENT
    with pytest.raises(LazyNWBError, match="download_bytes"):
        web.get_range("units/spike_times/0", 3, 3)
    lazynwb.config.download_bytes = 10_000
    assert bytes(web.get_range("units/spike_times/0", -3, 3)) == CHUNK[::-1][-3:]


def test_a_prefix_is_a_folder_or_a_whole_bucket(s3):
    s3.put("private/top.zarr/.zgroup", b"{}")
    s3.put("private/top.zarr2/.zgroup", b"{}")
    s3.put("private/root/.zgroup", b"{}")
    assert open_objects(resolve("s3://private/top.zarr/", Options(s3.options))).members("") == [".zgroup"]
    assert "top.zarr" in open_objects(resolve("s3://private", Options(s3.options))).members("")


@pytest.mark.parametrize("embargoed", [False, True])
def test_an_asset_of_dandi(server, embargoed, monkeypatch):
    with DandiServer(server.url) as archive:
        lazynwb.config.dandi_api_url = archive.url
        archive.publish("000363", "draft", ["sub 1/a.nwb.zarr"])
        if embargoed:
            archive.dandisets["000363"].embargoed = True
            archive.keys["secret"] = True
            monkeypatch.setenv("DANDI_API_KEY", "secret")
        [asset] = archive.dandisets["000363"].versions["draft"]
        server.objects[f"{asset.key}units/a+b/0"] = b"chunk"
        store = open_objects(resolve("dandi://000363/draft/sub 1/a.nwb.zarr"))
        assert bytes(store.get("units/a+b/0")) == b"chunk"
        assert store.version("units/a+b/0") != ABSENT
        assert store.get("units/none") is None
        assert store.members("") is None
        assert "authorization" not in server.log[-1].headers


# --- zip archives -------------------------------------------------------------------------------------


def test_archives_of_zarr_itself(tmp_path):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "x.nwb.zarr.zip"
    store = zarr.ZipStore(str(path)) if hasattr(zarr, "ZipStore") else zarr.storage.ZipStore(path, mode="w")
    group = zarr.open_group(store, mode="w")
    group.create_group("units").attrs["neurodata_type"] = "Units"
    store.close()
    found = opened(path)
    with zipfile.ZipFile(path) as archive:
        assert all(bytes(found.get(name)) == archive.read(name) for name in archive.namelist())
    assert "units" in found.members("")


def test_a_remote_archive_takes_few_requests(server, tmp_path):
    contents = {".zgroup": b"{}", **{f"units/{i:04}": bytes([i % 256]) * 1000 for i in range(2000)}}
    server.objects["x.zip"] = write_zip(tmp_path / "x.zip", contents).read_bytes()
    store = open_objects(resolve(f"{server.url}/x.zip"))
    assert server.count == 3  # its version, its end, its directory
    assert same(store.get_many(contents)) == contents
    assert server.count == 4
    assert store.get("units/0500") == contents["units/0500"]
    assert server.bytes < 1.2 * len(server.objects["x.zip"])


def test_distant_members_are_read_concurrently(server, tmp_path):
    noise = random.Random(0).randbytes(1 << 20)  # noqa: S311 - test data
    contents = {f"{i}": noise[: 100_000 + i] for i in range(8)}
    server.objects["x.zip"] = write_zip(tmp_path / "x.zip", contents).read_bytes()
    store = open_objects(resolve(f"{server.url}/x.zip"))
    server.reset()
    server.latency = 0.1
    assert same(store.get_many(["0", "3", "7"])) == {key: contents[key] for key in "037"}
    assert (server.count, server.most_at_once) == (3, 3)


def test_the_range_of_a_member_is_a_range_of_the_archive(server, tmp_path):
    noise = random.Random(0).randbytes(1 << 20)  # noqa: S311 - test data
    server.objects["x.zip"] = write_zip(tmp_path / "x.zip", {"a": noise}).read_bytes()
    store = open_objects(resolve(f"{server.url}/x.zip"))
    server.reset()
    assert bytes(store.get_range("a", -16, 16)) == noise[-16:]
    assert bytes(store.get_range("a", 500_000, 16)) == noise[500_000:500_016]
    assert (server.count, server.bytes) == (2, 30 + 16)  # the end came with the directory


def test_a_store_in_a_folder_of_the_archive(tmp_path):
    contents = {**CONTENTS, "units/x.zarr/.zgroup": b"{}"}
    path = write_zip(tmp_path / "x.zip", contents, top="x.nwb.zarr/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/x.nwb.zarr/._.zgroup", b"fork")
    assert same(opened(path).get_many(contents)) == contents
    assert opened(path).members("") == [".zgroup", ".zmetadata", "units"]


@pytest.mark.long
def test_a_zip64_archive_of_many_files(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(70_000):
            archive.writestr(f"a/{i}", b"")
        with archive.open("large", "w", force_zip64=True) as member:
            member.write(b"64")
    store = opened(path)
    assert len(store.members("a")) == 70_000
    assert store.get("large") == b"64"
    assert bytes(store.get_range("large", 1, 1)) == b"4"


def test_zip64_sizes(tmp_path):
    entry, extra = widen(zipped(tmp_path, {"a": b"wide"}))
    assert extra
    (tmp_path / "wide.zip").write_bytes(entry)
    assert opened(tmp_path / "wide.zip").get("a") == b"wide"


def widen(data):
    """An archive of one member with zip64 sizes in its directory."""
    at = data.index(b"PK\1\2")
    stored, size, names = struct.unpack_from("<LLH", data, at + 20)
    [offset] = struct.unpack_from("<L", data, at + 42)
    extra = struct.pack("<HHB", 0x7777, 1, 0) + struct.pack("<HHQQQ", 1, 24, size, stored, offset)
    entry = bytearray(data[at : at + 46 + names]) + extra
    struct.pack_into("<LL", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, len(extra))
    struct.pack_into("<L", entry, 42, 0xFFFFFFFF)
    end = bytearray(data[data.index(b"PK\5\6") :])
    struct.pack_into("<L", end, 12, len(entry))
    return data[:at] + entry + end, extra


def zipped(tmp_path, contents, method=zipfile.ZIP_STORED):
    return write_zip(tmp_path / "made.zip", contents, method).read_bytes()


def damaged(tmp_path, data):
    path = tmp_path / "damaged.zip"
    path.write_bytes(data)
    return opened(path)


def patched(data, at, form, *values):
    changed = bytearray(data)
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


def test_an_archive_with_a_prefix_and_a_comment(tmp_path):
    path = write_zip(tmp_path / "x.zip", CONTENTS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"a comment" * 100
    store = damaged(tmp_path, b"PK, or not" + path.read_bytes())
    assert same(store.get_many(CONTENTS)) == CONTENTS


def test_names_that_lead_out_of_the_archive_are_ignored(tmp_path):
    names = ("../a", "/a", "a/../../b", "a\\..\\b", "./a", "a//b")
    store = damaged(tmp_path, zipped(tmp_path, {**dict.fromkeys(names, b"out"), "in": b"in", "dir/": b""}))
    assert store.members("") == ["in"]


def test_the_last_of_several_members_of_one_name_is_read(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a": b"first"})
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a", b"second")
    assert opened(path).get("a") == b"second"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unsupported_compression_methods_are_refused(tmp_path, method):
    with pytest.raises(UnsupportedTypeError, match=f"a is compressed by zip method {method}"):
        damaged(tmp_path, zipped(tmp_path, {"a": b"data"}, method)).get("a")


def test_encryption_is_refused(tmp_path):
    data = zipped(tmp_path, {"a": b"data"})
    store = damaged(tmp_path, patched(data, data.index(b"PK\1\2") + 8, "<H", 1))
    for ask in (store.get, lambda key: store.get_range(key, 0, 1)):
        with pytest.raises(UnsupportedTypeError, match="a is encrypted"):
            ask("a")


def test_impossible_sizes_are_refused_before_allocation(tmp_path):
    data = zipped(tmp_path, {"a": b"data"}, zipfile.ZIP_DEFLATED)
    at = data.index(b"PK\1\2") + 24
    store = damaged(tmp_path, patched(data, at, "<L", 0xFFFFFF00))
    with pytest.raises(CorruptDataError, match="cannot have 4,294,967,040 bytes"):
        store.get("a")
    with pytest.raises(CorruptDataError, match="cannot have"):
        store.get_range("a", 0, 4)
    data = zipped(tmp_path, {"a": b"data"})
    with pytest.raises(CorruptDataError, match="cannot have 5 bytes compressed to 4"):
        damaged(tmp_path, patched(data, data.index(b"PK\1\2") + 24, "<L", 5)).get_range("a", 0, 5)


def test_a_decompression_bomb_is_limited_to_its_declared_size(tmp_path):
    bomb = zipped(tmp_path, {"a": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    store = damaged(tmp_path, patched(bomb, bomb.index(b"PK\1\2") + 24, "<L", 1000))
    with pytest.raises(CorruptDataError, match="size and checksum"):
        store.get("a")


def test_checksums_of_members_are_verified(tmp_path):
    data = zipped(tmp_path, {"a": b"the data"})
    with pytest.raises(CorruptDataError, match="checksum"):
        damaged(tmp_path, data.replace(b"the data", b"The data")).get("a")


@pytest.mark.parametrize("step", [1, 7])
def test_truncated_and_damaged_archives_are_errors_or_correct(tmp_path, step):
    data = zipped(tmp_path, {"a": b"data" * 9, "b/c": zlib.compress(b"d")}, zipfile.ZIP_DEFLATED)
    for stop in range(4, len(data), step):
        with pytest.raises(LazyNWBError):
            damaged(tmp_path, data[:stop])
    noise = random.Random(step)  # noqa: S311 - test data
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(step):
            changed[noise.randrange(4, len(data))] = noise.randrange(256)
        try:
            found = damaged(tmp_path, bytes(changed)).get_many(["a", "b/c"])
        except LazyNWBError:
            continue
        assert same(found)["a"] in {None, b"data" * 9}


def test_a_replaced_archive_is_detected(server, tmp_path):
    server.objects["x.zip"] = zipped(tmp_path, {"large": bytes(200_000)})
    store = open_objects(resolve(f"{server.url}/x.zip"))
    server.objects["x.zip"] = zipped(tmp_path, {"large": bytes(200_001)})
    with pytest.raises(SourceChangedError):
        store.get("large")
    zipped(tmp_path, CONTENTS)
    local = opened(tmp_path / "made.zip")
    zipped(tmp_path, CONTENTS)
    with pytest.raises(SourceChangedError):
        local.get("units/spike_times/0")


# --- references ---------------------------------------------------------------------------------------


def test_inline_contents_of_a_reference_file(tmp_path):
    nested = {"zarr_format": 2, "é": [1.5, None]}
    store = references(tmp_path, {"text": "é", "json": nested, "base64": "base64:AAH/"})
    assert store.get("text") == "é".encode()
    assert json.loads(store.get("json")) == nested
    assert store.get("base64") == b"\0\1\xff"
    assert store.reference("text") is None


def test_references_to_ranges_and_whole_files_with_templates(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.h5").write_bytes(b"0123456789")
    url = "{{where}}/{{ name }}.h5"
    refs = {"part": [url, 2, 3], "whole": ["./sub/a.h5"], "none": [url, 0, 0]}
    store = references(tmp_path, refs, templates={"where": "sub", "name": "a"})
    assert same(store.get_many(refs)) == {"part": b"234", "whole": b"0123456789", "none": b""}
    found = store.reference("part")
    assert (found.file.name, found.offset, found.size) == (str(tmp_path / "sub" / "a.h5"), 2, 3)


def test_references_beside_a_remote_file_and_to_another_server(server, tmp_path):
    with RangeServer() as other:
        other.objects["b.h5"] = b"abcdefghij"
        server.objects["lab/data/a.h5"] = b"0123456789"
        refs = {"near": ["data/a.h5", 1, 2], "far": [f"{other.url}/b.h5", 1, 2]}
        server.objects["lab/x.lindi.json"] = json.dumps({"refs": refs}).encode()
        headers = {"headers": {"Authorization": "secret"}}
        store = open_objects(resolve(f"{server.url}/lab/x.lindi.json", Options(headers)))
        assert same(store.get_many(refs)) == {"near": b"12", "far": b"bc"}
        assert all(seen.headers["authorization"] == "secret" for seen in server.log)
        assert not any("authorization" in seen.headers for seen in other.log)


def test_references_to_a_bucket_take_its_options(s3, tmp_path):
    s3.put("private/b.h5", b"abcdefghij")
    lazynwb.config.storage_options = s3.options
    assert bytes(references(tmp_path, {"a": ["s3://private/b.h5", 1, 2]}).get("a")) == b"bc"


@pytest.mark.parametrize(
    ("url", "goes"),
    [
        ("https://lab.org/b.h5", True),
        ("https://lab.org:444/b.h5", False),
        ("http://lab.org/b.h5", False),
        ("https://lab.org@evil.org/b.h5", False),
        ("s3://bucket/b.h5", None),
        ("abfss://container@evil.org/b.h5", False),
        ("dandi://000363/draft/b.nwb", False),
    ],
)
def test_references_do_not_determine_where_credentials_are_sent(server, tmp_path, url, goes):
    references(tmp_path, {})
    store = open_objects(resolve(str(tmp_path / "x.nwb.lindi.json")))
    options = Options({"headers": {"Authorization": "secret"}, "key": "secret"})
    store.source = resolve("https://lab.org/x.lindi.json", options)
    expected = {True: options, False: Options(), None: Options({"key": "secret"})}[goes]
    assert store.options_for("a", url) == expected


def test_local_files_outside_of_the_folder_require_permission(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "in" / "link").symlink_to("../secret")
    urls = ("../secret", str(tmp_path / "secret"), (tmp_path / "secret").as_uri(), "link")
    refs = {str(i): [url, 0, 6] for i, url in enumerate(urls)}
    store = references(tmp_path / "in", refs)
    for key in refs:
        with pytest.raises(CorruptDataError, match="external_links is 'folder'"):
            store.get(key)
    lazynwb.config.external_links = "anywhere"
    assert set(same(store.get_many(refs)).values()) == {b"secret"}


def test_references_are_not_followed_if_forbidden(server, tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    lazynwb.config.external_links = "never"
    store = references(tmp_path, {"a": ["a", 0, 1], "b": [f"{server.url}/?key=secret", 0, 1], "c": "text"})
    for key in "ab":
        with pytest.raises(CorruptDataError, match="'never'") as refused:
            store.get(key)
        assert "secret" not in str(refused.value)
    assert store.get("c") == b"text"
    assert server.count == 0


def test_remote_references_cannot_read_local_files(server, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    urls = (str(tmp_path / "secret"), (tmp_path / "secret").as_uri(), "../../../secret")
    refs = {str(i): [url, 0, 6] for i, url in enumerate(urls)}
    server.objects["x.json"] = json.dumps({"refs": refs}).encode()
    lazynwb.config.external_links = "anywhere"
    store = open_objects(resolve(f"{server.url}/x.json"))
    for key in refs:
        with pytest.raises(CorruptDataError, match="not followed"):
            store.get(key)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "\ud800",
            None,
            1,
            True,
            [],
            [1, 2, 3],
            ["a"] * 3,
            ["a.h5", -1, 2],
            ["a.h5", 0, -2],
            ["a.h5", 0.5, 1],
        ),
        *(["a.h5", 0], ["a.h5", 0, 1, 2], ["a.h5", 8, 3], ["a.h5", 0, 10**18], ["a.h5", 10**30, 1]),
        *(["none.h5", 0, 1], ["{{u}}", 0, 1], ["{{f(1)}}", 0, 1], ["", 0, 1], ["a\0.h5", 0, 1]),
        *(["gopher://a/b", 0, 1], ["http://[", 0, 1], ["a.h5", True, 1], "base64:?", "base64:A"),
    ],
)
def test_invalid_references_are_errors(tmp_path, value):
    (tmp_path / "a.h5").write_bytes(b"0123456789")
    with pytest.raises(LazyNWBError):
        references(tmp_path, {"a": value}).get("a")


@pytest.mark.parametrize(
    "text",
    [
        *("{", "{}", '{"refs": []}', '{"refs": {"a": ', '{"refs": {}, "templates": {"u": 1}}'),
        *('{"refs": {}, "gen": [{}]}', '{"refs": {"a": ' + "[" * 100_000, "{" + " " * 1000),
        '{"refs": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}",
    ],
)
def test_invalid_reference_files(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    # How deep JSON may be is the interpreter's choice: what is not refused as a whole is refused as a part.
    with pytest.raises(
        (NotNWBError, CorruptDataError),
        match=r"x\.json(: a)? (is not valid JSON|is not a JSON|has generated)",
    ):
        opened(tmp_path / "x.json").get("a")


def test_a_changed_target_is_detected(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"0123456789")
    store = references(tmp_path, {"a": ["a.h5", 0, 2]})
    before = store.version("a")
    assert store.get("a") == b"01"
    (tmp_path / "a.h5").write_bytes(b"0123456789!")
    with pytest.raises(SourceChangedError):
        store.get("a")
    assert opened(tmp_path / "x.nwb.lindi.json").version("a") != before


# --- detection of formats -----------------------------------------------------------------------------


def test_missing_and_invalid_stores(tmp_path, server):
    (tmp_path / "x.nwb").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "empty.zip").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.zip")
    for name in ("x.nwb", "empty.zip", "pipe.zip"):
        with pytest.raises(NotNWBError):
            opened(tmp_path / name)
    for source in (str(tmp_path / "none"), f"{server.url}/none.zip", f"{server.url}/none.json"):
        with pytest.raises(SourceNotFoundError):
            open_objects(resolve(source))
    server.reset()
    open_objects(resolve(f"{server.url}/none.zarr"))
    assert server.count == 0


def test_formats_of_local_files_are_detected_by_content(tmp_path):
    path = write_zip(tmp_path / "zip", CONTENTS)
    assert opened(path).get(".zgroup") == CONTENTS[".zgroup"]
    (tmp_path / "json").write_text(' \n{"refs": {"a": "b"}}')
    assert opened(tmp_path / "json").get("a") == b"b"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_directory_returns_the_stored_bytes_or_an_error(data, tmp_path):
    """Any bytes of the directory may be damaged; entries are checked before use."""
    contents = {".zgroup": b"{}", "units/a": bytes(range(200)), "units/b": b"b" * 5000}
    path = write_zip(tmp_path / "x.zarr.zip", contents, zipfile.ZIP_DEFLATED)
    archive = bytearray(path.read_bytes())
    start = archive.index(b"PK\1\2")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(start, len(archive) - 1))
        archive[at] = data.draw(st.sampled_from([0, 1, 8, 0x2F, 0x5C, 0x7F, 0x80, 0xFE, 0xFF]))
    if data.draw(st.booleans()):
        del archive[data.draw(st.integers(start, len(archive))) :]
    path.write_bytes(archive)
    tracemalloc.start()
    try:
        found = opened(path).get_many(contents)
    except LazyNWBError:
        found = {}
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert all(found[key] is None or bytes(found[key]) == contents[key] for key in found)
    assert peak < 4_000_000


def test_a_directory_that_is_as_large_as_the_file_is_not_allocated(tmp_path):
    """The end record has a directory that starts at byte 0 and has a size of one gigabyte."""
    path = tmp_path / "x.zarr.zip"
    size = 1 << 30
    with path.open("wb") as file:
        file.write(b"PK\3\4")
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0))
    tracemalloc.start()
    with pytest.raises(NotNWBError, match=r"x\.zarr\.zip: the zip file is damaged or truncated"):
        opened(path)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()
