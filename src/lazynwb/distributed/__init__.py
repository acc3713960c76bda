"""One scan by many workers: the files' work as small tasks for any executor, their rows back in order."""
