"""Attributes of HDF5 objects, read by the low-level API, which is much faster than the high-level one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from h5py import h5a, h5o, h5r, h5t

from lazynwb.formats.nwb.object_listing import MAX_BYTES, MAX_ELEMENTS, Reference, unreadable_placeholder
from lazynwb.formats.protocols import DamagedObjectError

if TYPE_CHECKING:
    from h5py.h5g import GroupID

    from lazynwb.formats.libhdf5.file import LibHdf5File

#: Errors of h5py for attributes that it cannot read.
_ERRORS = (TypeError, ValueError, RuntimeError, OSError, KeyError)
#: Errors of h5py for unsupported types; the others mean damage or missing bytes.
_UNKNOWN_TYPES = (TypeError, ValueError)
_DOUBLE = 8


def has_attribute(owner: GroupID, name: str, file: LibHdf5File) -> bool:
    """Return whether an object has an attribute, readable or not; raise as `read_attribute` does."""
    try:
        return bool(h5a.exists(owner, name.encode()))
    except _ERRORS as error:
        _raise_unless_missing(name, file, error)
        return False


def read_attribute(owner: GroupID, name: str, file: LibHdf5File) -> Any:  # noqa: ANN401 - of any type
    """Return an attribute as a NumPy value; None if it does not exist or its type is not supported.

    Raises
    ------
    DamagedObjectError
        If it cannot be read, because its value must not be guessed.
    """
    key = name.encode()
    try:
        if not h5a.exists(owner, key):
            return None
        return _read(h5a.open(owner, key), owner, file)
    except _UNKNOWN_TYPES:
        return None
    except _ERRORS as error:
        _raise_unless_missing(name, file, error)
        return None


def _raise_unless_missing(name: str, file: LibHdf5File, error: Exception) -> None:
    """Raise unless bytes of the file are still missing, in which case the parse is repeated."""
    if not file.missed:
        raise DamagedObjectError(f"its attribute {name!r} cannot be read: {error}") from None


def _read(attribute: h5a.AttrID, owner: GroupID, file: LibHdf5File) -> Any:  # noqa: ANN401 - of any type
    """Return an attribute as a NumPy value; None if it has no dataspace (h5py.Empty).

    Raises
    ------
    ValueError
        If it is too large.
    DamagedHeapError
        If it refers to a heap that libhdf5 must not load.
    """
    shape, dtype = attribute.shape, attribute.dtype
    if shape is None:
        return None
    memory = attribute.get_type() if dtype.kind == "S" else None
    if dtype.subdtype is not None:
        memory = h5t.py_create(dtype)
        dtype, inner = dtype.subdtype
        shape = (*shape, *inner)
    size = math.prod(shape)
    if size > MAX_ELEMENTS or size * dtype.itemsize > MAX_BYTES:
        raise ValueError(f"an attribute of {size} elements")
    if dtype.hasobject and file.heaps is not None:
        file.heaps.check_attributes(int(h5o.get_info(owner).addr))
    value = np.zeros(shape, dtype)
    attribute.read(value, mtype=memory)
    return value[()]


def read_attributes(owner: GroupID, file: LibHdf5File) -> dict[str, Any]:
    """Return all attributes as plain values, sorted by name; see `protocols.Node`."""
    names: list[bytes] = []
    h5a.iterate(owner, names.append)
    return {name.decode("utf-8", "replace"): _plain_attribute(owner, name, file) for name in sorted(names)}


def _plain_attribute(owner: GroupID, name: bytes, file: LibHdf5File) -> Any:  # noqa: ANN401
    try:
        attribute = h5a.open(owner, name)
        if attribute.get_type().equal(h5t.STD_REF_OBJ):
            return _references(attribute, file)
        return _plain(_read(attribute, owner, file), owner, file)
    except _ERRORS as error:
        return unreadable_placeholder(str(error))


def _references(attribute: h5a.AttrID, file: LibHdf5File) -> Any:  # noqa: ANN401
    """Return object references as addresses, without opening their targets."""
    shape = attribute.shape
    if shape is None:
        return None
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"{math.prod(shape)} references")
    addresses = np.zeros(shape, "<u8")
    attribute.read(addresses, mtype=h5t.STD_REF_OBJ)

    def marked(value: Any) -> Any:  # noqa: ANN401 - lists within lists
        if isinstance(value, list):
            return [marked(item) for item in value]
        return Reference(file, value) if value else None

    return marked(addresses.tolist())


def _plain(value: Any, owner: GroupID, file: LibHdf5File) -> Any:  # noqa: ANN401
    if value is None:
        return None
    if isinstance(value, (bytes, str)):
        return as_text(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biuf" and value.dtype.itemsize <= _DOUBLE:
            return value.tolist()
        return [_plain(item, owner, file) for item in value]
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, np.complexfloating):
        return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, np.void) and value.dtype.names:
        return {as_text(name): _plain(value[name], owner, file) for name in value.dtype.names}
    if isinstance(value, h5r.Reference) and not isinstance(value, h5r.RegionReference):
        return Reference(file, int(h5o.get_info(h5r.dereference(value, owner)).addr)) if value else None
    kind = (
        "a region reference" if isinstance(value, h5r.RegionReference) else f"of type {type(value).__name__}"
    )
    return unreadable_placeholder(kind)


def as_text(value: object) -> str:
    """Return the text of an attribute or a string element, without the padding of fixed-length types."""
    if isinstance(value, bytes):
        return value.split(b"\0", 1)[0].decode("utf-8", "replace")
    return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def read_text(owner: GroupID, name: str, file: LibHdf5File) -> str:
    """Return a text attribute; an empty string if it does not exist."""
    value = read_attribute(owner, name, file)
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else None
    return as_text(value) if isinstance(value, (bytes, str)) else ""


def read_names(owner: GroupID, name: str, file: LibHdf5File) -> list[str] | None:
    """Return an attribute with a list of names, an array or a single string; None if it does not exist."""
    value = read_attribute(owner, name, file)
    if value is None:
        return None
    items = value.ravel().tolist() if isinstance(value, np.ndarray) else [value]
    names = [as_text(item).strip(" ") for item in items if isinstance(item, (bytes, str))]
    return list(dict.fromkeys(n for n in names if n))


def read_reference(owner: GroupID, name: str, file: LibHdf5File) -> tuple[GroupID, int] | None:
    """Return the target of a reference attribute and its address; None if it is not a reference."""
    value = read_attribute(owner, name, file)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    if not isinstance(value, h5r.Reference) or not value:
        return None
    try:
        found = h5r.dereference(value, owner)
        return found, int(h5o.get_info(found).addr)
    except (KeyError, RuntimeError, ValueError, AttributeError, TypeError):
        return None
