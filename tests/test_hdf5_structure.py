"""The structure reader: equal to libhdf5 on every file, and no wrong values from damaged files."""

import os
import random
import re
import struct
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import builders
import checks
import hdf5_structure
import lazynwb
import random_files
import random_writers
from lazynwb.catalog.model import MISSING, arrays_of
from lazynwb.formats.hdf5 import binary, checksums
from lazynwb.formats.hdf5.structure_file import StructureFile
from lazynwb.formats.nwb.object_listing import describe_attributes
from lazynwb.formats.nwb.reader import describe_members
from lazynwb.formats.protocols import BrokenLinkError
from lazynwb.storage.resolve import expand

#: What the structure reader leaves to libhdf5, of the files that tests make.
LEFT_TO_LIBHDF5 = {
    "external_storage": {"UnsupportedStructureError: a virtual dataset"},
    "unsupported_types": {"UnsupportedStructureError: a listing of opaque bytes"},
}


def check(path, allowed=frozenset()):
    found = hdf5_structure.compare(path)
    assert not found.different, found.different
    assert set(found.refused) <= set(allowed), found.refused
    assert found.equal


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return {path.parent.name: path for path in hdf5_structure.write_all(tmp_path_factory.mktemp("files"))}


@pytest.mark.parametrize("name", hdf5_structure.OPTIONS)
@pytest.mark.sample(4)
def test_structures_of_all_kinds_equal_libhdf5(files, name):
    check(files[name])


@pytest.mark.parametrize("name", sorted({**builders.CASES, **builders.PYNWB_CASES}))
@pytest.mark.sample(5)
def test_files_of_other_tests_equal_libhdf5(tmp_path, name):
    path = tmp_path / "file.nwb"
    {**builders.CASES, **builders.PYNWB_CASES}[name](path)
    check(path, LEFT_TO_LIBHDF5.get(name, ()))


def _real():
    folder = os.environ.get("LAZYNWB_TEST_DATA")
    found = sorted(Path(folder).rglob("*.nwb")) if folder else []
    return [path for path in found if path.is_file() and h5py.is_hdf5(path)]


@pytest.mark.skipif(not _real(), reason="set LAZYNWB_TEST_DATA to a folder of NWB files")
def test_real_files_equal_libhdf5():
    for path in checks.sample(_real(), 4):
        try:
            h5py.File(path).close()
        except OSError:
            continue  # cut short
        check(path)


@given(sessions=random_files.sessions(), libver=st.sampled_from(["earliest", "v110", "latest"]))
def test_random_files_equal_libhdf5(tmp_path_factory, sessions, libver):
    for session in sessions:
        path = tmp_path_factory.mktemp("random") / "file.nwb"
        random_writers.write_hdf5(path, session)
        check(path)


@pytest.mark.parametrize("libver", ["earliest", "v110", "latest"])
def test_columns_that_differ_only_in_location_are_distinguished(tmp_path, libver):
    path = tmp_path / "file.nwb"
    with h5py.File(path, "w", libver=libver) as file:
        table = file.create_group("t")
        for k in range(3):
            table[f"contiguous{k}"] = np.arange(4.0) + k
            table.create_dataset(f"chunked{k}", data=np.arange(4.0) - k, chunks=(2,))
        table.create_dataset("never_written", (4,), "f8")
        table["shorter"] = np.arange(3.0)
    check(path)
    (source,) = expand(path)
    file = StructureFile(source, "")
    file.open()
    with h5py.File(path) as stored:
        for name, dataset in stored["t"].items():
            array = file.find(f"t/{name}").describe(f"t/{name}", file)
            assert array.shape == dataset.shape
            assert array.layout == ("chunked" if dataset.chunks else "contiguous")
            offset = dataset.id.get_offset()
            assert array.offset == (-1 if offset is None else offset), name
    file.close()


def _places(file, path, numbers=None):
    array = file.find(path).describe(path, file)
    if numbers is None:
        return file.chunk_index(array)
    return file.partial_chunk_index(array, np.array(numbers))


@pytest.mark.parametrize("name", ["earliest", "v110", "latest", "user_block_latest"])
def test_partial_lookups_equal_the_complete_index(files, name):
    rng = random.Random(0)  # noqa: S311
    (source,) = expand(files[name])
    file = StructureFile(source, "")
    with h5py.File(files[name]) as stored:
        chunked = [
            f"t/{key}" for key, item in stored["t"].items() if isinstance(item, h5py.Dataset) and item.chunks
        ]
    looked_up = 0
    for path in chunked:
        if file.find(path).describe(path, file).layout != "chunked":
            continue
        every = _places(file, path)
        total = len(every.offsets) // 8
        numbers = sorted(rng.sample(range(total), min(total, 7)))
        some = _places(file, path, numbers)
        assert [some.locate(k) for k in numbers] == [every.locate(k) for k in numbers], path
        looked_up += sum(some.locate(k)[0] != MISSING for k in numbers)
    assert looked_up > 20
    file.close()


@pytest.mark.parametrize("name", ["earliest", "v108", "latest", "tracked", "user_block_latest"])
@pytest.mark.sample(2)
def test_single_members_of_large_groups_equal_h5py(files, name):
    (source,) = expand(files[name])
    with h5py.File(files[name]) as stored:
        for group in ("large", "many"):
            keys = list(stored[group])[::29]
            file = StructureFile(source, "")
            for key in (*keys, *keys):
                found = file.run(lambda file, path=f"{group}/{key}": file.find(path))
                assert found.address == h5py.h5o.get_info(stored[group][key].id).addr
                with pytest.raises(BrokenLinkError, match="there is no"):
                    StructureFile(source, "").find(f"{group}/{key}x")
            file.close()


def test_single_chunk_locations_equal_h5py(files):
    with h5py.File(files["latest"]) as stored:
        (source,) = expand(files["latest"])
        file = StructureFile(source, "")
        for name in (
            "single gzip",
            "fixed gzip",
            "fixed pages",
            "extensible gzip",
            "extensible pages",
            "btree",
        ):
            dataset = stored["t"][name]
            index = _places(file, f"t/{name}")
            grid = [-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
            found = 0
            for k in range(dataset.id.get_num_chunks()):
                info = dataset.id.get_chunk_info(k)
                cell = [a // b for a, b in zip(info.chunk_offset, dataset.chunks, strict=True)]
                number = int(np.ravel_multi_index(cell, grid))
                assert index.locate(number) == (info.byte_offset, info.size, info.filter_mask)
                found += 1
            assert found
            offsets = np.frombuffer(index.offsets, "u8")
            assert np.count_nonzero(offsets != MISSING) == found
        file.close()


@pytest.mark.parametrize("size", [*range(1, 40), 300, 4096])
def test_checksums_equal_a_compiled_implementation(size):
    numcodecs = pytest.importorskip("numcodecs.checksum32")
    data = random.Random(size).randbytes(size)  # noqa: S311
    assert checksums.plain_lookup3(data) == numcodecs.jenkins_lookup3(data)


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=12))
def test_checksums_in_parallel_lanes_equal_single_checksums(structures):
    found = checksums.parallel_lookup3(structures)
    assert found == [checksums.plain_lookup3(data) for data in structures]


@pytest.mark.parametrize("damaged", [None, 0, 4, 9])
@pytest.mark.parametrize("count", [1, 10, 5000])
def test_recorded_checksums_are_verified(damaged, count):
    queued = checksums.Checksums()
    structures = [number.to_bytes(50, "little") for number in range(count)]
    stored = [data + struct.pack("<I", checksums.plain_lookup3(data)) for data in structures]
    if damaged is not None:
        stored[damaged % count] = b"\xff" + stored[damaged % count][1:]

    def verify():
        for data in stored:
            queued.queue(data, "a structure")
        queued.verify()

    if damaged is None:
        verify()
        return
    with pytest.raises(binary.DamagedStructureError, match="a structure"):
        verify()


SIGNATURES = b"OHDR|OCHK|BTHD|BTIN|BTLF|FRHP|FHIB|FHDB|FAHD|FADB|EAHD|EAIB|EASB|EADB"


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_structure_with_a_wrong_checksum_is_refused(tmp_path, seed):
    """Checksums are verified after a parse; later parses do not use the bytes that remain in memory."""
    path, copy = tmp_path / "file.nwb", tmp_path / "copy.nwb"
    with h5py.File(path, "w", libver="latest") as file:
        builders.nwb_root(file)
        for name, limits in {"a": (20, 3), "b": (None, 3), "c": (None, None)}.items():
            data = np.arange(60).reshape(20, 3)
            file.create_dataset(f"t/{name}", data=data, chunks=(4, 1), maxshape=limits, **builders.GZIP)
        for k in range(20):
            file["t"].attrs[f"attribute {k}"] = k
            file[f"many/{k}"] = k

    def read(file):
        groups = [describe_members(file, "t"), describe_members(file, "many")]
        arrays = [array for column in groups[0].columns for array in arrays_of(column)]
        chunks = [file.chunk_index(array) for array in arrays if array.layout == "chunked"]
        assert len(chunks) == 3
        return groups, chunks, describe_attributes(file, "", deep=True)

    def parses(path):
        (source,) = expand(path)
        file = StructureFile(source, "")
        for _ in range(3):
            try:
                yield file.run(read)
            except (binary.DamagedStructureError, binary.UnsupportedStructureError):
                yield None
        file.close()

    content = path.read_bytes()
    rng = random.Random(seed)  # noqa: S311
    refused = Counter()
    (right, *again) = parses(path)
    assert right is not None
    assert again == [right, right]
    for found in re.finditer(SIGNATURES, content):
        for distance in rng.sample(range(4, 60), 2):
            damaged = bytearray(content)
            damaged[found.start() + distance] ^= 1 << rng.randrange(8)
            copy.write_bytes(damaged)
            results = list(parses(copy))
            assert all(result is None or result == right for result in results), (found, distance)
            assert results == results[:1] * 3
            refused[found.group()] += results[0] is None
    assert len(refused) > 8
    assert all(refused.values()), refused


def test_a_damaged_group_is_not_a_committed_datatype(tmp_path):
    path = tmp_path / "file.nwb"
    with h5py.File(path, "w", libver="earliest") as file:
        builders.nwb_root(file)
        at = h5py.h5o.get_info(file.create_group("lost").id).addr + 16  # its symbol table message
    content = bytearray(path.read_bytes())
    assert content[at] == 0x11
    content[at] = 3  # of a datatype, whose version is 15
    content[at + 8] = 0xF0
    path.write_bytes(content)
    with pytest.raises(lazynwb.NotNWBError, match="'lost' cannot be opened"):
        lazynwb.scan_nwb(path, "/lost")


@pytest.mark.skipif(
    h5py.version.hdf5_version_tuple < (2, 0), reason="needs HDF5 2.0 or later: older ones may crash"
)
@pytest.mark.parametrize("cases", [20, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_structure_returns_correct_values_or_errors(tmp_path, cases):
    victims = hdf5_structure.small_victims(tmp_path)
    outcomes = list(hdf5_structure.run(cases, cases, victims, tmp_path))
    faults = [outcome for outcome in outcomes if outcome.kind == "FAULT"]
    assert not faults, "\n".join(f"{outcome.case}: {outcome.why[:2000]}" for outcome in faults)
    kinds = Counter(outcome.kind for outcome in outcomes)
    assert kinds["error"] > cases // 10, kinds
    assert kinds["right"] > cases // 10, kinds
