"""Rows of stored arrays: selection of chunks, reads, decoding, and assembly in Arrow memory."""
