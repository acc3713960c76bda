"""Writes to the folder of an index that end after some calls, as those of a process that is killed."""

from lazynwb.index.location import LocalFolder


class CutOff(BaseException):
    """The simulated end of the process: code that catches it cannot write or remove files."""


class WriteLimit:
    """Number of files of indexes that can be written, replaced or removed before `CutOff` is raised."""

    def __init__(self, monkeypatch):
        self.left = 0
        for name in ("write", "replace", "remove"):
            monkeypatch.setattr(LocalFolder, name, self._limited(getattr(LocalFolder, name)))

    def _limited(self, method):
        def call(folder, *arguments):
            self.left -= 1
            if self.left < 0:
                raise CutOff
            return method(folder, *arguments)

        return call
