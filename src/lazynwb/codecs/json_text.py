"""Text of Zarr stores: JSON as zarr-python writes it, and characters that are none."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np

#: The last code point, those that stand for no character, and what is shown instead of them (Unicode 3.9).
_LAST, _SURROGATES, _REPLACEMENT = 0x10FFFF, (0xD800, 0xDFFF), 0xFFFD


def parse_json(data: bytes | bytearray | memoryview) -> Any:  # noqa: ANN401 - JSON
    """Parse a JSON text.

    NaN and infinities are allowed, which zarr-python writes although JSON has none.

    Raises
    ------
    ValueError
        If it is no JSON, or holds text that is no Unicode.
    RecursionError
        If it is nested too deeply.
    """
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        text = bytes(data)
        found = json.loads(text)
        if b"\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()
        return found


def as_texts(values: np.ndarray) -> np.ndarray:
    """Return text of fixed length (UTF-32) as objects; what is no character is replaced."""
    codes = np.ascontiguousarray(values).reshape(-1, 1).view(f"{values.dtype.str[0]}u4")
    bad = (codes > _LAST) | ((codes >= _SURROGATES[0]) & (codes <= _SURROGATES[1]))
    if bad.any():
        values = (
            np.where(bad, _REPLACEMENT, codes).astype(codes.dtype).view(values.dtype).reshape(values.shape)
        )
    return values.astype(object)
