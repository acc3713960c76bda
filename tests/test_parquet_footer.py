"""Footers of Parquet files: the decoded size of untrusted ones, before anything is allocated."""

from io import BytesIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazynwb.column_store.footer import check_decoded_size
from lazynwb.errors import CorruptDataError

MIB = 1024 * 1024


def parquet(frame, **options):
    stream = BytesIO()
    frame.write_parquet(stream, compression="zstd", **options)
    return stream.getvalue()


def entries(*values):
    return pl.DataFrame({"entry": pl.Series(values, dtype=pl.Binary)})


def arrow_parquet(table, **options):
    stream = BytesIO()
    pq.write_table(table, stream, compression="zstd", **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "values", [[], [b""], [b"x" * 1000] * 10, [bytes([n]) * n for n in range(200)], [None]]
)
@pytest.mark.parametrize("size", [16, 1024])
def test_files_within_the_limit(values, size):
    data = parquet(entries(*values), row_group_size=16, data_page_size=size)
    check_decoded_size(data, 16 * MIB)
    check_decoded_size(memoryview(data), 16 * MIB)


def test_the_limit_is_that_of_decoded_values():
    data = parquet(entries(bytes(MIB)))
    assert len(data) < 2000
    check_decoded_size(data, MIB + 1000)
    with pytest.raises(CorruptDataError, match="decoded bytes"):
        check_decoded_size(data, MIB - 1)


@pytest.mark.parametrize("value", [None, b"", b"x"])
def test_few_bytes_that_represent_many_rows(value):
    data = parquet(pl.DataFrame({"entry": pl.Series([value], dtype=pl.Binary).new_from_index(0, 100_000)}))
    assert len(data) < 20_000
    with pytest.raises(CorruptDataError, match="decoded bytes"):
        check_decoded_size(data, MIB)
    check_decoded_size(data, 4 * MIB)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_encodings_that_share_bytes_of_values(version, encoding):
    table = pa.table({"entry": pa.array([bytes(1000)] * 1000)})
    data = arrow_parquet(table, use_dictionary=False, column_encoding=encoding, data_page_version=version)
    if encoding == "DELTA_BYTE_ARRAY":
        with pytest.raises(CorruptDataError, match="encoding"):
            check_decoded_size(data, 16 * MIB)
        return
    check_decoded_size(data, 2 * MIB)
    with pytest.raises(CorruptDataError, match="decoded bytes"):
        check_decoded_size(data, MIB // 2)


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"entry": [1]}),
        pl.DataFrame({"entry": [b"x"], "other": [b"y"]}),
        pl.DataFrame({"entry": [[b"x"]]}),
        pl.DataFrame({"entry": [{"entry": b"x"}]}),
    ],
)
def test_other_columns(frame):
    with pytest.raises(CorruptDataError, match="columns"):
        check_decoded_size(parquet(frame), MIB)


VALID = parquet(entries(*(bytes([n]) * n for n in range(50))), row_group_size=16)


@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_files(changes):
    """A damaged file is refused, or Polars reads no more than the limit from it."""
    data = bytearray(VALID)
    for at, value in changes:
        data[at] = value
    try:
        check_decoded_size(bytes(data), MIB)
    except CorruptDataError:
        return
    try:
        found = pl.read_parquet(BytesIO(data))
    except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception
        assert not isinstance(error, MemoryError)  # noqa: PT017
    else:
        assert found.estimated_size() <= MIB


@pytest.mark.parametrize("data", [b"", b"PAR1PAR1", b"PAR1" + b"\xff" * 100_000 + b"\xa0\x86\x01\x00PAR1"])
def test_no_parquet(data):
    with pytest.raises(CorruptDataError, match="Parquet"):
        check_decoded_size(data, MIB)
