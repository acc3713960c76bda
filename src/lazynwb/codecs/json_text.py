"""Text of Zarr stores: JSON with the extensions of zarr-python, and UTF-32 with invalid characters."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np

#: The last code point, the range of surrogates, and the replacement character (Unicode 3.9).
_LAST, _SURROGATES, _REPLACEMENT = 0x10FFFF, (0xD800, 0xDFFF), 0xFFFD


def parse_json(data: bytes | bytearray | memoryview) -> Any:  # noqa: ANN401 - JSON
    """Parse JSON, with NaN and infinities as zarr-python writes them.

    Raises
    ------
    ValueError
        If it is not valid JSON, or contains text that is not valid Unicode.
    RecursionError
        If it is nested too deeply.
    """
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        text = str(data, "utf-8")
        found = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()
        return found


def decode_utf32(values: np.ndarray) -> np.ndarray:
    """Return fixed-length text (UTF-32) as objects, with invalid characters replaced."""
    codes = np.ascontiguousarray(values).reshape(-1, 1).view(f"{values.dtype.str[0]}u4")
    bad = (codes > _LAST) | ((codes >= _SURROGATES[0]) & (codes <= _SURROGATES[1]))
    if bad.any():
        values = (
            np.where(bad, _REPLACEMENT, codes).astype(codes.dtype).view(values.dtype).reshape(values.shape)
        )
    return values.astype(object)
