"""Metadata documents of a Zarr store, fetched in as few rounds as a parse allows."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from lazynwb.codecs.object_codecs import parse_json
from lazynwb.errors import LazyNWBError, NotNWBError, SourceNotFoundError
from lazynwb.formats.nwb.names import likely_members
from lazynwb.formats.partial_file import MAX_ROUNDS, PartialFile
from lazynwb.formats.protocols import DamagedObjectError, unread_target_identity
from lazynwb.formats.zarr.node_metadata import KINDS, NodeMetadata, check_documents
from lazynwb.storage.objects.object_store import open_objects
from lazynwb.storage.placeholders import describe

if TYPE_CHECKING:
    from collections.abc import Hashable

    from lazynwb.storage.objects.object_store import Objects
    from lazynwb.storage.source import Source

#: Maximum size of metadata that is parsed, more than that of any session.
_MAX_BYTES = 512 * 1024 * 1024
#: The documents of one node, by version.
_DOCUMENTS = {2: (".zarray", ".zgroup", ".zattrs"), 3: ("zarr.json",)}

Buffer = bytes | bytearray | memoryview
T = TypeVar("T")


class MissingObjectsError(Exception):
    """Objects required by a parse that have not been fetched."""


class NoStoreError(NotNWBError, SourceNotFoundError):
    """A path without a Zarr store."""


class ZarrStore(PartialFile):
    """The metadata of a store.

    Consolidated metadata (`.zmetadata`, or a member of `zarr.json` of the root) contains the metadata of all
    nodes. Otherwise each group and array has one to three documents. Documents of a local store are read on
    demand. Documents of a remote store are recorded, and fetched together after a run of the parse.

    Parameters
    ----------
    objects : Objects
        The store.

    Raises
    ------
    NotNWBError
        If the root group does not exist.
    """

    _missing_error = MissingObjectsError

    def __init__(self, objects: Objects) -> None:
        super().__init__()
        self.objects = objects
        self.source: Source = objects.source
        self.name = objects.source.name
        self._at_once = not self.source.is_remote
        self._here: dict[str, Buffer | None] = {}
        self._lists: dict[str, list[str] | None] = {}
        self._missing: set[str] = set()
        self._unlisted: set[str] = set()
        self._metas: dict[str, NodeMetadata | None] = {}
        self._looked_up: dict[str, set[str]] = {}
        self._rounds = 0
        self._members: dict[str, set[str]] | None = None
        self._documents: dict[str, dict[str, Any]] = {}
        self._version = self._open()

    # -- the metadata ---------------------------------------------------------------------------------

    def _open(self) -> int:
        """Read the metadata of the root, and consolidated metadata; return the version."""
        self._here.update(_read_alternatives(self.objects, "zarr.json", ".zmetadata"))
        root = self._json("zarr.json")
        if root is not None:
            consolidated = root.get("consolidated_metadata")
            if isinstance(consolidated, dict):
                metadata = self._object(consolidated, "zarr.json: consolidated_metadata")
                documents = {f"{path}/zarr.json": document for path, document in metadata.items()}
                self._consolidate({**documents, "zarr.json": root})
            self._here.pop(".zmetadata", None)
            if root.get("node_type") != "group":
                raise NotNWBError(
                    f"{self.name}: zarr.json describes no group, but a {root.get('node_type')!r}"
                )
            return 3
        consolidated = self._json(".zmetadata")
        if consolidated is not None:
            self._consolidate(self._object(consolidated, ".zmetadata"))
            return 2
        self._here.update(self.objects.get_many(_DOCUMENTS[2]))
        if self._json(".zgroup") is None:
            raise NoStoreError(
                f"{self.name} is not a Zarr store: it has neither zarr.json nor .zmetadata nor .zgroup"
            )
        return 2

    def _object(self, holder: dict[str, Any], where: str) -> dict[str, Any]:
        found = holder.get("metadata")
        if not isinstance(found, dict):
            raise NotNWBError(f"{self.name}: {where}: the metadata is not a JSON object")
        return found

    def _consolidate(self, documents: dict[str, Any]) -> None:
        """Store the consolidated documents by path."""
        self._members = {"": set()}
        for key, document in documents.items():
            path, _, name = key.rpartition("/")
            self._documents.setdefault(path, {})[name] = document
            while path:
                parent, _, last = path.rpartition("/")
                siblings = self._members.setdefault(parent, set())
                if last in siblings:
                    break
                siblings.add(last)
                path = parent

    def _json(self, key: str) -> dict[str, Any] | None:
        """Return a document; None if it does not exist.

        Raises
        ------
        NotNWBError
            If the document is not a JSON object.
        """
        data = self._here.get(key)
        if data is None:
            return None
        if len(data) > _MAX_BYTES:
            raise NotNWBError(f"{self.name}: {key} has {len(data)} bytes, more than valid metadata")
        try:
            found = parse_json(data)
        except (ValueError, RecursionError) as error:
            where = f"{self.name}: {key}"
            raise NotNWBError(describe(where, bytes(data)) or f"{where} is not valid JSON: {error}") from None
        if not isinstance(found, dict):
            raise NotNWBError(f"{self.name}: {key} is not a JSON object")
        return found

    def meta(self, path: str) -> NodeMetadata | None:
        """Return the metadata of the node at a path without following links; None if it does not exist.

        Raises
        ------
        MissingObjectsError
            If its documents have not been fetched.
        NotNWBError
            If a document is not JSON.
        DamagedObjectError
            If the node is neither a group nor an array, or its attributes are invalid.
        """
        if path not in self._metas:
            if self._members is None:
                self._metas[path] = self._own_meta(path)
            elif path in self._documents or path in self._members:
                documents = self._documents.get(path, {})
                check_documents(documents, is_implied=path in self._members)
                self._metas[path] = NodeMetadata.of(documents)
            else:
                self._metas[path] = None
        return self._metas[path]

    def _own_meta(self, path: str) -> NodeMetadata | None:
        documents = self._own_documents(path)
        # As in zarr-python, a node is found by its path even if a group on the path has no document.
        is_implied = documents.keys().isdisjoint(KINDS) and any(
            not self._own_documents(longer).keys().isdisjoint(KINDS)
            for longer in self._looked_up.get(path, ())
        )
        check_documents(documents, is_implied=is_implied)
        return NodeMetadata.of(documents) if documents or is_implied else None

    def _own_documents(self, path: str) -> dict[str, Any]:
        """Return the documents of a node by name."""
        keys = self._keys(path)
        self.prefetch(keys)
        if not all(key in self._here for key in keys):
            raise MissingObjectsError(f"the metadata of /{path} has not been fetched")
        documents = {key.rpartition("/")[2]: self._json(key) for key in keys}
        return {name: document for name, document in documents.items() if document is not None}

    def _keys(self, path: str) -> list[str]:
        return [f"{path}/{name}" if path else name for name in _DOCUMENTS[self._version]]

    def members(self, path: str, meta: NodeMetadata) -> list[str]:
        """Return the names of the members of a group that are stored in it, in order.

        They are from the listing of the store, or are likely names if the store cannot list its objects.
        """
        if self._members is not None:
            return sorted(self._members.get(path, ()))
        if path not in self._lists and self._at_once:
            self._lists[path] = self.objects.members(path)
        if path not in self._lists:
            self._unlisted.add(path)
            raise MissingObjectsError(f"the members of /{path} have not been fetched")
        listed = self._lists[path]
        prefix = f"{path}/" if path else ""
        if listed is not None:
            names = sorted(name for name in listed if not name.startswith(".") and name != "zarr.json")
            self.prefetch([key for name in names for key in self._keys(prefix + name)])
            return names
        self.guesses_members = True
        columns = [*(meta.names("colnames") or []), *(meta.names("categories") or [])]
        likely = likely_members(path, columns)
        self.prefetch([key for name in likely for key in self._keys(prefix + name)])
        return sorted(name for name in likely if self._has(prefix + name))

    def _has(self, path: str) -> bool:
        try:
            return self.meta(path) is not None
        except DamagedObjectError:
            return True

    # -- fetched and missing objects ------------------------------------------------------------------

    def prefetch(self, keys: list[str]) -> None:
        """Record objects that will be needed, so that they are fetched together."""
        absent = [key for key in keys if key not in self._here]
        if self._at_once:
            self._here.update(self.objects.get_many(absent) if absent else {})
        else:
            self._missing.update(absent)

    def chunk(self, key: str) -> Buffer | None:
        """Return a chunk that the description of a table needs; None if it does not exist."""
        self.prefetch([key])
        if key not in self._here:
            raise MissingObjectsError(f"the chunk {key} has not been fetched")
        return self._here[key]

    def _own_missed(self) -> int:
        return len(self._missing) + len(self._unlisted)

    def _own_misses(self) -> int:
        return -1 if self._at_once else self._own_missed()

    def _fetch_own(self, *, ahead: bool) -> bool:
        del ahead
        missing, self._missing = self._missing, set()
        unlisted, self._unlisted = sorted(self._unlisted), set()
        if missing or unlisted:
            self._rounds += 1
            if self._rounds > MAX_ROUNDS:
                raise NotNWBError(f"{self.name} is damaged: its structure does not end")
            self._here.update(self.objects.get_many(sorted(missing)) if missing else {})
            self._lists.update(
                zip(unlisted, self.objects.pool.map(self.objects.members, unlisted), strict=True)
                if len(unlisted) > 1
                else [(path, self.objects.members(path)) for path in unlisted]
            )
        return bool(missing or unlisted)

    def paths_of(self, addresses: set[Hashable]) -> dict[Hashable, str]:
        """Return nothing: references are stored as paths."""
        del addresses
        return {}

    def prefetch_path(self, path: str) -> None:
        """Record the documents of all groups on a path."""
        if self._members is not None:
            return
        names = [name for name in path.split("/") if name and name != "."]
        *groups, whole = ["/".join(names[: i + 1]) for i in range(len(names))] or [""]
        self.prefetch([key for node in (*groups, whole) for key in self._keys(node)])
        for group in groups:
            longer = self._looked_up.setdefault(group, set())
            if whole not in longer:
                longer.add(whole)
                self._metas.pop(group, None)  # its absence may have been cached

    # -- links to other stores ------------------------------------------------------------------------

    def is_own_name(self, source: object) -> bool:
        """Return whether the `source` of a link or a reference stands for this store.

        hdmf-zarr writes ".", and some versions the name of the store itself.
        """
        if source in {None, "", "."}:
            return True
        if not isinstance(source, str):
            return False
        here = self._here_without_slash()
        if source.removeprefix("./").rstrip("/") == here.path.rpartition("/")[2]:
            return True
        return self._linked_source(source.rstrip("/")) in {here, here.resolved()}

    def _here_without_slash(self) -> Source:
        return self.source.with_path(self.source.path.rstrip("/"))

    def _linked_source(self, name: str) -> Source | None:
        """Return the store at a path, absolute or relative to this store; None if it is not a path."""
        here = self._here_without_slash()
        return here.sibling(name if os.path.isabs(name) else f"{here.path.rpartition('/')[2]}/{name}")  # noqa: PTH117 - as the source does

    def external(self, name: str) -> Self:
        """Open the target store of a link by its relative path, if the settings allow it.

        Raises
        ------
        BrokenLinkError
            If the store does not exist, or the settings do not allow it.
        """
        here = self._here_without_slash()
        return self._linked_file(here, self._linked_source(name), "the link to another store, {},", name)

    def _open_linked(self, target: Source) -> Self:
        return type(self)(open_objects(target))

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Paths and identities of the target stores of links, and of local documents that were read.

        The identity of a store is that of the metadata of its root, which includes all consolidated metadata.
        Documents and folders of a local store without consolidated metadata are included. Versions of remote
        documents are not requested, because this would take as long as reading them.
        """
        others = [(source.path, source.identity_or_absent()) for source in self._linked]
        others += [
            (source.path, unread_target_identity(source, why)) for source, why in self._unreadable.items()
        ]
        if self._members is None and self._at_once and os.path.isdir(self.source.path):  # noqa: PTH112
            read = [key for key, data in self._here.items() if data is not None]
            paths = [os.path.join(self.source.path, key) for key in (*read, *self._lists)]  # noqa: PTH118
            others += [(path, self.source.with_path(path).identity_or_absent()) for path in paths]
        return tuple(others) + tuple(pair for linked in self._linked.values() for pair in linked.depends)


def _read_alternatives(objects: Objects, *keys: str) -> dict[str, Buffer | None]:
    """Return alternative objects, of which at least one should exist.

    Without permission to list a bucket, requests for missing objects are refused. Such an error is ignored if
    another object exists.
    """
    try:
        return dict(objects.get_many(keys))
    except LazyNWBError:
        found: dict[str, Buffer | None] = {}
        for key in keys:
            with suppress(LazyNWBError):
                found[key] = objects.get(key)
        if not any(data is not None for data in found.values()):
            raise
        return found
