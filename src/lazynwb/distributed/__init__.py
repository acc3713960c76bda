"""Scans on executors: work items of some files each, whose rows come back in order."""
