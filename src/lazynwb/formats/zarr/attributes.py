"""Attributes of Zarr's groups and arrays: those of NWB, without what hdmf-zarr and LINDI keep beside them."""

from __future__ import annotations

from typing import Any

from lazynwb.formats.attributes import MOST_ELEMENTS, unreadable

#: Types, links and dimensions, which HDF5 has without attributes.
_BOOKKEEPING = frozenset(
    [
        "_ARRAY_DIMENSIONS",
        "_COMPOUND_DTYPE",
        "_DTYPE",
        "_EXTERNAL_ARRAY_LINK",
        "_LINKS",
        "_REFERENCE_FIELDS",
        "_SCALAR",
        "_SOFT_LINK",
        "zarr_dtype",
        "zarr_link",
    ]
)
#: The attribute of the root group that says where the schema is: a reference in HDF5, a path here.
_SPECIFICATIONS = ".specloc"
#: Lists within lists; HDF5 knows 32 dimensions.
_DEEPEST = 32
_INTEGERS = range(-(2**63), 2**64)


def plain_attributes(stored: dict[str, Any]) -> dict[str, Any]:
    """Return attributes as plain values, sorted by name; see `lazynwb.formats.nodes.Node.attributes`."""
    found = {name: _plain(stored[name], 0) for name in sorted(stored) if name not in _BOOKKEEPING}
    if isinstance(path := found.get(_SPECIFICATIONS), str):
        found[_SPECIFICATIONS] = f"/{path.strip('/')}"
    return found


def _plain(value: Any, depth: int) -> Any:  # noqa: ANN401 - JSON
    if depth > _DEEPEST:
        return unreadable("nested too deeply")
    if isinstance(value, list):
        if len(value) > MOST_ELEMENTS:
            return unreadable(f"an attribute of {len(value)} elements")
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        path = reference_path(value)
        return path if path is not None else {key: _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, int) and value not in _INTEGERS:
        return float(value) if abs(value) < 10**300 else unreadable("an integer of too many digits")
    return value


def reference_path(value: dict[str, Any]) -> str | None:
    """Return the path that a reference in an attribute leads to; None if it is no reference.

    hdmf-zarr wraps references in `value` in version 2, and in `_REFERENCE` in version 3, as LINDI does.
    """
    inner = value.get("_REFERENCE", value.get("value") if "zarr_dtype" in value else None)
    path = inner.get("path") if isinstance(inner, dict) else None
    return f"/{path.strip('/')}" if isinstance(path, str) else None
