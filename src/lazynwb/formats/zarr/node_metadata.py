"""Metadata documents of one group or array: attributes, and the links and references stored in them.

Zarr has neither links nor references. hdmf-zarr stores the links of a group in its attributes (`zarr_link` in
version 2, `_LINKS` in version 3), and references as JSON objects with a path.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lazynwb.formats.nwb.object_listing import MAX_ELEMENTS, unreadable_placeholder
from lazynwb.formats.protocols import DamagedObjectError
from lazynwb.storage.objects.key_validation import is_valid_key

#: Attributes for types, links and dimensions, which are not attributes in HDF5.
_BOOKKEEPING = frozenset(
    [
        "_ARRAY_DIMENSIONS",
        "_COMPOUND_DTYPE",
        "_DTYPE",
        "_EXTERNAL_ARRAY_LINK",
        "_LINKS",
        "_REFERENCE_FIELDS",
        "_SCALAR",
        "_SOFT_LINK",
        "zarr_dtype",
        "zarr_link",
    ]
)
#: The attribute of the root group with the location of the schema: a reference in HDF5, a path in Zarr.
_SPECIFICATIONS = ".specloc"
#: Maximum nesting of lists; HDF5 has at most 32 dimensions.
_MAX_DEPTH = 32
_INTEGERS = range(-(2**63), 2**64)
#: Maximum number of names of a list in an attribute; lists of names in NWB are short.
_MAX_NAMES = 100_000
#: Documents that define the kind of an object.
KINDS = (".zarray", ".zgroup", "zarr.json")


def plain_attributes(stored: dict[str, Any]) -> dict[str, Any]:
    """Return attributes as plain values, sorted by name; see `lazynwb.formats.protocols.Node.attributes`."""
    found = {name: _plain(stored[name], 0) for name in sorted(stored) if name not in _BOOKKEEPING}
    if isinstance(path := found.get(_SPECIFICATIONS), str):
        found[_SPECIFICATIONS] = f"/{path.strip('/')}"
    return found


def _plain(value: Any, depth: int) -> Any:  # noqa: ANN401 - JSON
    if depth > _MAX_DEPTH:
        return unreadable_placeholder("nested too deeply")
    if isinstance(value, list):
        if len(value) > MAX_ELEMENTS:
            return unreadable_placeholder(f"an attribute of {len(value)} elements")
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        path = reference_path(value)
        return path if path is not None else {key: _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, int) and value not in _INTEGERS:
        return (
            float(value) if abs(value) < 10**300 else unreadable_placeholder("an integer of too many digits")
        )
    return value


def reference_path(value: dict[str, Any]) -> str | None:
    """Return the target path of a reference in an attribute; None if the value is not a reference.

    hdmf-zarr wraps references in `value` in version 2, and in `_REFERENCE` in version 3, as LINDI does.
    """
    inner = value.get("_REFERENCE", value.get("value") if "zarr_dtype" in value else None)
    path = inner.get("path") if isinstance(inner, dict) else None
    return f"/{path.strip('/')}" if isinstance(path, str) else None


class NodeMetadata(NamedTuple):
    """The metadata of a group or an array."""

    attributes: dict[str, Any]
    array: dict[str, Any] | None
    key: str

    @classmethod
    def of(cls, documents: dict[str, Any]) -> NodeMetadata:
        """Return the metadata in the documents of a node."""
        own = documents.get("zarr.json")
        if own is None:
            own = documents.get(".zarray")
            attributes = documents.get(".zattrs")
            key = ".zarray"
        else:
            attributes = own.get("attributes") if isinstance(own, dict) else None
            own = None if isinstance(own, dict) and own.get("node_type") == "group" else own
            key = "zarr.json"
        array = own if isinstance(own, dict) or own is None else {}
        return cls(attributes if isinstance(attributes, dict) else {}, array, key)

    def names(self, name: str) -> list[str] | None:
        """Return an attribute with names, which is a list of text or a text; None if it does not exist."""
        value = self.attributes.get(name)
        if value is None:
            return None
        items = value if isinstance(value, list) else [value]
        found = [item.strip(" ") for item in items[:_MAX_NAMES] if isinstance(item, str)]
        return list(dict.fromkeys(item for item in found if item))

    def links(self) -> dict[str, tuple[str | None, str]]:
        """Return the target store and path of each link of a group, by name."""
        found = {}
        listed = self.attributes.get("_LINKS", self.attributes.get("zarr_link"))
        for link in listed if isinstance(listed, list) else []:
            name = link.get("name") if isinstance(link, dict) else None
            if isinstance(name, str) and "/" not in name and is_valid_key(name):
                source, path = link.get("source"), link.get("path")
                if isinstance(path, str) and (source is None or isinstance(source, str)):
                    found[name] = source, path
        return found

    def soft_link(self) -> str | None:
        """Return the target path of an object that LINDI stores as a link; None for other objects."""
        link = self.attributes.get("_SOFT_LINK")
        path = link.get("path") if isinstance(link, dict) else None
        return path if isinstance(path, str) and path.startswith("/") else None


def check_documents(documents: dict[str, Any], *, is_implied: bool = False) -> None:
    """Raise DamagedObjectError if documents describe neither a group nor an array, or attributes are invalid.

    A node that `is_implied` is a group because it has members.
    """
    if documents and not is_implied and documents.keys().isdisjoint(KINDS):
        raise DamagedObjectError(f"it has {min(documents)}, and none of {', '.join(KINDS)}")
    own = documents.get("zarr.json")
    attributes = own.get("attributes") if isinstance(own, dict) else documents.get(".zattrs")
    if attributes is not None and not isinstance(attributes, dict):
        raise DamagedObjectError("its attributes are not a JSON object")
