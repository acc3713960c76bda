"""Decoded bytes as NumPy values: what slices of arrays are made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lazynwb.engine.build import build

if TYPE_CHECKING:
    from lazynwb.catalog.model import DType
    from lazynwb.engine.build import Context, Elements

#: Types of a fixed size, which need nothing but the bytes.
_PLAIN = frozenset({"number", "bool"})


def value_dtype(dtype: DType) -> np.dtype:
    """Return the NumPy type of values: native byte order; text, names of enums and paths as objects."""
    if dtype.kind == "number":
        return np.dtype(dtype.numpy).newbyteorder("=")
    if dtype.kind == "bool":
        return np.dtype(bool)
    if dtype.kind == "compound":
        return np.dtype([(f.name, value_dtype(f.dtype), f.dtype.dims) for f in dtype.fields])
    return np.dtype(object)


def needs_context(dtype: DType) -> bool:
    """Tell whether elements refer to what lies elsewhere in their file."""
    if dtype.kind == "compound":
        return any(needs_context(field.dtype) for field in dtype.fields)
    return dtype.kind in {"vlen_text", "vlen", "reference"}


def values_of(elements: Elements, context: Context) -> np.ndarray:
    """Return elements as a flat array of the type that `value_dtype` says.

    Numbers share the memory of the elements where their byte order is this machine's.
    """
    dtype, raw = elements.dtype, elements.raw
    target = value_dtype(dtype)
    if dtype.kind in _PLAIN:
        flat = np.ascontiguousarray(raw).reshape(-1)
        if dtype.kind == "bool":
            truth: np.ndarray = flat.view(np.dtype(dtype.numpy)) != 0
            return truth
        return flat.view(np.dtype(dtype.numpy)).astype(target, copy=False)
    if dtype.kind == "compound":
        out = np.empty(len(raw), target)
        for i, field in enumerate(dtype.fields):
            member = values_of(elements.member(i), context)
            out[field.name] = member.reshape(len(raw), *field.dtype.dims)
        return out
    series = build(elements, context)
    out = np.empty(len(series), object)
    for i, value in enumerate(series):
        out[i] = value.to_numpy() if dtype.kind == "vlen" else value
    return out


def value_bytes(dtype: DType) -> int:
    """Return the bytes of one value in memory, what objects refer to not counted."""
    return value_dtype(dtype).itemsize * math.prod(dtype.dims)
