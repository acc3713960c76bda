"""Names in the NWB schema, compared with the schema in pynwb."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lazynwb.formats.nwb.names import (
    ARRAY_ATTRIBUTES,
    ATTRIBUTE_FIELDS,
    FIELD_NDIM,
    SCALAR_ATTRIBUTES,
    SESSION_FIELDS,
    SUBJECT_FIELDS,
    field_ndim,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

hdmf = pytest.importorskip("hdmf")
pynwb = pytest.importorskip("pynwb")
yaml = pytest.importorskip("ruamel.yaml")

_FLAT = {
    "VectorData",
    "VectorIndex",
    "DynamicTableRegion",
    "TimeSeriesReferenceVectorData",
    "TimestampVectorData",
    "DurationVectorData",
}


@pytest.fixture(scope="module")
def types() -> dict[str, dict[str, Any]]:
    """Every type of the schema, by name."""
    folders = [
        Path(pynwb.__file__).parent / "nwb-schema" / "core",
        Path(hdmf.__file__).parent / "common" / "hdmf-common-schema" / "common",
    ]
    found = {}
    for file in (file for folder in folders for file in sorted(folder.glob("*.yaml"))):
        document = yaml.YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
        for spec in [*(document.get("groups") or []), *(document.get("datasets") or [])]:
            found[spec.get("neurodata_type_def") or spec.get("data_type_def")] = spec
    assert "NWBFile" in found
    assert "DynamicTable" in found
    return found


def _parts(spec: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    for key in ("attributes", "datasets", "groups", "links"):
        for part in spec.get(key) or []:
            if key == kind:
                yield part
            yield from _parts(part, kind)


def _ndim(spec: dict[str, Any]) -> int | None:
    """Return the number of dimensions of a dataset or an attribute; None if the schema allows several."""
    shape = spec.get("shape")
    if shape is None:
        parent = spec.get("neurodata_type_inc") or spec.get("data_type_inc")
        return 1 if parent in _FLAT else 0 if "dtype" in spec else None
    options = shape if isinstance(shape[0], list) else [shape]
    ndims = {len(option) for option in options}
    return ndims.pop() if len(ndims) == 1 else None


def _is_a(types: dict[str, dict[str, Any]], name: str, parent: str) -> bool:
    while name in types and name != parent:
        name = types[name].get("neurodata_type_inc") or types[name].get("data_type_inc") or ""
    return name == parent


def _own(types: dict[str, dict[str, Any]], name: str) -> dict[str, int | None]:
    found = {}
    while name in types:
        spec = types[name]
        for part in _parts(spec, "datasets"):
            if part.get("name") and part["name"] not in found:
                found[part["name"]] = _ndim(part)
        name = spec.get("neurodata_type_inc") or spec.get("data_type_inc") or ""
    return found


@pytest.mark.parametrize("name", sorted(set(FIELD_NDIM) - {"TimeSeries"}))
def test_the_dimensions_of_fields_are_those_of_the_schema(name, types):
    if name not in types:
        pytest.skip(f"this version of the schema has no {name}")
    schema = _own(types, name)
    listed = FIELD_NDIM[name]
    if name == "NWBFile":  # its datasets of other groups are named by their own paths
        schema.pop("filtering", None)
    fixed = {
        field: ndim for field, ndim in schema.items() if ndim is not None and not field.endswith("_index")
    }
    assert {field: listed.get(field) for field in fixed} == fixed
    assert set(listed) <= set(schema)


def test_dimensions_of_series_fields_are_those_of_the_schema(types):
    series = [name for name in types if _is_a(types, name, "TimeSeries")]
    assert len(series) > 15
    for name in series:
        own = {field: ndim for field, ndim in _own(types, name).items() if field != "data"}
        fixed = {field: ndim for field, ndim in own.items() if ndim is not None}
        assert {field: FIELD_NDIM["TimeSeries"].get(field) for field in fixed} == fixed, name


def test_attributes_are_scalars_or_arrays_as_in_the_schema(types):
    fixed: dict[str, set[bool]] = {}
    for spec in types.values():
        for attribute in _parts(spec, "attributes"):
            fixed.setdefault(attribute["name"], set()).add(attribute.get("shape") is None)
    scalars = {name for name, is_scalar in fixed.items() if is_scalar == {True}}
    arrays = {name for name, is_scalar in fixed.items() if is_scalar == {False}}
    assert scalars - {"value"} <= SCALAR_ATTRIBUTES
    assert arrays <= ARRAY_ATTRIBUTES
    assert not SCALAR_ATTRIBUTES & ARRAY_ATTRIBUTES
    assert not SCALAR_ATTRIBUTES & arrays


def test_datetime_fields_are_isodatetime_in_the_schema(types):
    stored = {
        part["name"]: part.get("dtype")
        for name in ("NWBFile", "Subject")
        for part in _parts(types[name], "datasets")
        if part.get("name")
    } | {part["name"]: part.get("dtype") for part in _parts(types["Subject"], "datasets")}
    for name, field in {**SESSION_FIELDS, **SUBJECT_FIELDS}.items():
        assert (stored[name] == "isodatetime") == (field.kind == "datetime"), name
    for _, field, attribute in ATTRIBUTE_FIELDS.values():
        owner = next(
            part
            for name in ("NWBFile", "Subject")
            for part in _parts(types[name], "datasets")
            if part.get("name") == field
        )
        assert attribute in {part["name"] for part in owner["attributes"]}


def test_roles_of_older_files_follow_from_paths():
    assert field_ndim("DynamicTable", "x", "general/extracellular_ephys/electrodes") == 1
    assert field_ndim("DynamicTable", "x", "processing/ecephys/mine") is None
    assert field_ndim("NWBFile", "keywords", "general") == 1
    assert field_ndim("", "sex", "general/subject") == 0
    assert field_ndim("TimeSeries", "data") is None
