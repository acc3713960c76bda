"""Codecs: decoding of chunks of numbers and of objects."""

__all__ = ["Buffer"]

#: Stored or decoded bytes.
Buffer = bytes | bytearray | memoryview
