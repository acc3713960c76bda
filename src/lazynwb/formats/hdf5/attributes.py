"""Attributes of HDF5 objects, read by the low-level API: the high-level one takes several times as long."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from h5py import h5a, h5o, h5r

if TYPE_CHECKING:
    from h5py.h5g import GroupID

#: Attributes that NWB tables are described by are short; what is larger is not read at all.
_MOST_ELEMENTS = 100_000


def has_attribute(owner: GroupID, name: str) -> bool:
    """Tell whether an object has an attribute, readable or not."""
    try:
        return bool(h5a.exists(owner, name.encode()))
    except (RuntimeError, OSError, KeyError):
        return False


def read_attribute(owner: GroupID, name: str) -> Any:  # noqa: ANN401 - an attribute holds any type
    """Return an attribute as NumPy reads it; None if there is none or its type cannot be read."""
    key = name.encode()
    try:
        if not h5a.exists(owner, key):
            return None
        attribute = h5a.open(owner, key)
        shape, dtype = attribute.shape, attribute.dtype
        if shape is None or math.prod(shape) > _MOST_ELEMENTS:
            return None
        if dtype.subdtype is not None:
            dtype, inner = dtype.subdtype
            shape = (*shape, *inner)
        value = np.zeros(shape, dtype)
        attribute.read(value, mtype=attribute.get_type() if dtype.kind == "S" else None)
    except (TypeError, ValueError, RuntimeError, OSError, KeyError):
        return None
    return value[()]


def as_text(value: object) -> str:
    """Return text of an attribute or a string element, without the padding that fixed-length fields have."""
    if isinstance(value, bytes):
        return value.split(b"\0", 1)[0].decode("utf-8", "replace")
    return str(value)


def read_text(owner: GroupID, name: str) -> str:
    """Return a text attribute; an empty text if there is none."""
    value = read_attribute(owner, name)
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else None
    return as_text(value) if isinstance(value, (bytes, str)) else ""


def read_names(owner: GroupID, name: str) -> list[str] | None:
    """Return an attribute that lists names: an array of text, or one plain text; None if there is none."""
    value = read_attribute(owner, name)
    if value is None:
        return None
    items = value.ravel().tolist() if isinstance(value, np.ndarray) else [value]
    names = [as_text(item).strip(" ") for item in items if isinstance(item, (bytes, str))]
    return list(dict.fromkeys(n for n in names if n))


def read_target(owner: GroupID) -> int | None:
    """Return the address of the object that the attribute `target` refers to; None where it does not."""
    value = read_attribute(owner, "target")
    if not isinstance(value, h5r.Reference) or not value:
        return None
    try:
        return int(h5o.get_info(h5r.dereference(value, owner)).addr)
    except (KeyError, RuntimeError, ValueError, AttributeError, TypeError):
        return None
