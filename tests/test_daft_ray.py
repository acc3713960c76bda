"""Daft data frames of tables on Ray, whose workers are separate processes."""

import importlib.util
import os
import tempfile

import pytest

from checks import run_child

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"pip install {name}")
    for name in ("daft", "ray")
]

# Daft can be told once in a process what it is to run on.
QUERIES = """
import os, sys
import lazynwb, lazynwb.daft, daft, ray
import polars as pl
from daft import col

folder, damaged = sys.argv[1:]
quiet = {"include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}
ray.init(num_cpus=2, object_store_memory=80 * 2**20, **quiet)
daft.set_runner_ray()
units = lazynwb.daft.scan_nwb(folder, "/units", infer_schema_length=1)
good = units.where(
    (col("location") >= "CA1") & (col("location") < "CA2") & (col("presence_ratio") >= 0.6)
    & (col("decoder_label") != "noise")
).select("unit_id", "location", "spike_times", "_nwb_path")
with lazynwb.profile() as p:
    rows = pl.from_arrow(good.sort("unit_id").to_arrow())
assert p.bytes_read == 0, "the workers are other processes"
scan = lazynwb.scan_nwb(folder, "/units", infer_schema_length=1).filter(
    pl.col("location").str.starts_with("CA1"),
    pl.col("presence_ratio") >= 0.6,
    pl.col("decoder_label") != "noise",
)
expected = scan.select("unit_id", "location", "spike_times", "_nwb_path").sort("unit_id").collect()
assert expected.height > 10 and rows.equals(expected), (rows, expected)
assert len(units.where(col("presence_ratio") > 0.5).select("unit_id").limit(5).to_pydict()["unit_id"]) == 5
try:
    lazynwb.daft.scan_nwb([damaged], "/units", schema={"unit_id": pl.String}).to_arrow()
except Exception as error:
    assert f"NotNWBError: {damaged}" in str(error), error
else:
    raise AssertionError("a damaged file was read")
print("done")
ray.shutdown()
"""


@pytest.fixture
def ray_folder():
    """Folder of the sockets of Ray, whose paths are limited to 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.mark.long
def test_on_ray_a_query_returns_equal_rows_and_errors_name_the_file(cube, tmp_path, ray_folder):
    damaged = tmp_path / "damaged.nwb"
    damaged.write_bytes(cube[0].read_bytes())
    os.truncate(damaged, 3000)
    out = run_child(
        QUERIES,
        cube[0].parent,
        damaged,
        timeout=480,
        DAFT_ANALYTICS_ENABLED="0",
        DAFT_PROGRESS_BAR="0",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
        RAY_TMPDIR=ray_folder,
    )
    assert out.splitlines()[-1] == "done"
