"""Codecs: the stored bytes of chunks and of objects to their elements."""

__all__ = ["Buffer"]

#: Stored or decoded bytes.
Buffer = bytes | bytearray | memoryview
