"""The oracle, compared with `to_dataframe()` of pynwb."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from checks import same
from readers import hdf5_tables as oracle

pynwb = pytest.importorskip("pynwb")
pd = pytest.importorskip("pandas")


def plain(value: Any) -> Any:
    """A cell of pynwb's frame as plain Python; containers become their path in the file."""
    if isinstance(value, pynwb.core.Container):
        return path_of(value)
    if isinstance(value, pynwb.base.TimeSeriesReference):
        return {name: plain(getattr(value, name)) for name in value._fields}
    if isinstance(value, (np.void, np.ndarray)) and value.dtype.names:
        rows = [{name: plain(row[name]) for name in value.dtype.names} for row in np.atleast_1d(value)]
        return rows if value.ndim else rows[0]
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if hasattr(value, "item") else value


def path_of(container: Any) -> str:
    """Return the path of a container in a file written by pynwb."""
    folders = {
        "ElectrodeGroup": "/general/extracellular_ephys",
        "IntracellularElectrode": "/general/intracellular_ephys",
        "VoltageClampStimulusSeries": "/stimulus/presentation",
    }
    return f"{folders.get(type(container).__name__, '/acquisition')}/{container.name}"


def tables_of(path) -> dict[str, tuple[list[str], dict[str, list[Any]]]]:
    """Every DynamicTable of a file by its path, as pynwb reads it."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pynwb.NWBHDF5IO(path, "r", load_namespaces=True) as io:
            for container in io.read().objects.values():
                if isinstance(container, pynwb.core.DynamicTable) and not container.name.startswith(
                    "intracellular_rec"
                ):
                    frame = container.to_dataframe(index=True).reset_index()
                    columns = {name: [plain(value) for value in frame[name]] for name in frame.columns}
                    found[container.id.data.name.removesuffix("/id")] = columns
    return found


@pytest.mark.parametrize("name", ["session", "intracellular"])
def test_dynamic_tables_equal_those_of_pynwb(name, built):
    path = built(name)
    expected = tables_of(path)
    assert set(expected) <= set(oracle.tables(path))
    assert len(expected) >= 6
    for table_path, columns in expected.items():
        table = oracle.read_table(path, table_path)
        assert sorted(columns) == list(table.columns), table_path
        for column, values in columns.items():
            assert same(table.columns[column], values), (table_path, column, table.columns[column], values)


def test_time_series_equal_those_of_pynwb(built):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pynwb.NWBHDF5IO(built("session"), "r") as io:
            nwb = io.read()
            for series in nwb.acquisition.values():
                if not isinstance(series, pynwb.TimeSeries) or series.name == "video":
                    continue
                table = oracle.read_table(built("session"), f"/acquisition/{series.name}")
                assert same(table.columns["data"], plain(np.asarray(series.data[:]))), series.name
                stamps = np.asarray(series.get_timestamps()[:], "f8")
                np.testing.assert_allclose(table.columns["timestamps"], stamps, rtol=1e-12)


def test_an_aligned_table_has_a_struct_for_each_category(built):
    table = oracle.read_table(built("intracellular"), "/general/intracellular_ephys/intracellular_recordings")
    assert list(table.columns) == ["electrodes", "id", "responses", "stimuli", "tag"]
    assert table.columns["electrodes"][1] == {
        "electrode": "/general/intracellular_ephys/e",
        "id": 1,
        "voltage": 0.2,
    }
    assert table.columns["responses"][2]["response"]["timeseries"] == "/acquisition/resp2"


def test_text_is_decoded_and_ends_at_the_first_nul():
    assert [oracle.text(t) for t in (b"a\0b", b"\xff", "ü", b"")] == ["a", "�", "ü", ""]


@pytest.mark.parametrize(("ends", "right"), [([1, 3], True), ([2, 1], False), ([1, 4], False), ([], True)])
def test_a_ragged_index_that_contradicts_its_data_is_refused(ends, right):
    if right:
        assert oracle.fold([1, 2, 3], ends) == [[1], [2, 3]][: len(ends)]
    else:
        with pytest.raises(oracle.CorruptError):
            oracle.fold([1, 2, 3], ends)


def test_tables_of_the_oracle(built):
    assert set(oracle.tables(built("session"))) >= {
        "/acquisition/stamped", "/general", "/general/subject", "/general/extracellular_ephys/electrodes",
        "/intervals/custom intervals", "/intervals/trials", "/processing/ecephys/LFP/lfp", "/units",
    }  # fmt: skip
    assert "/acquisition/pictures" not in oracle.tables(built("session"))
