"""Rows of stored arrays: the chunks that hold them, fetched, decoded and assembled to Arrow memory."""
