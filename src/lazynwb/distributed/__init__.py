"""Scans on executors: work items of a few files each, whose results are returned in order."""
