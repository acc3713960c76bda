"""Codecs: the bytes of a chunk as stored to its elements."""
