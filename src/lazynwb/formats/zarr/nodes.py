"""Attributes of Zarr's groups and arrays: those of NWB, without what hdmf-zarr and LINDI keep beside them.

Groups and arrays of a Zarr store, and the links between them: see `lazynwb.formats.protocols`.

Zarr knows no links and no references. hdmf-zarr stores links as attributes of the group that has them
(`zarr_link` in version 2, `_LINKS` in version 3), and references as JSON objects with a path.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lazynwb.catalog.model import Array, DType, stored_size
from lazynwb.errors import CorruptDataError, NotNWBError
from lazynwb.formats.nwb.object_listing import MOST_ELEMENTS, unreadable
from lazynwb.formats.protocols import BrokenLinkError, CyclicLinkError, DamagedObjectError, broken_at
from lazynwb.formats.zarr.array_metadata import array_metadata, describe_array
from lazynwb.formats.zarr.object_arrays import read_indirect, read_scalar
from lazynwb.storage.objects.key_validation import is_plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.formats.zarr.store import ZarrFile

#: Types, links and dimensions, which HDF5 has without attributes.
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
#: The attribute of the root group that says where the schema is: a reference in HDF5, a path here.
_SPECIFICATIONS = ".specloc"
#: Lists within lists; HDF5 knows 32 dimensions.
_DEEPEST = 32
_INTEGERS = range(-(2**63), 2**64)


def plain_attributes(stored: dict[str, Any]) -> dict[str, Any]:
    """Return attributes as plain values, sorted by name; see `lazynwb.formats.protocols.Node.attributes`."""
    found = {name: _plain(stored[name], 0) for name in sorted(stored) if name not in _BOOKKEEPING}
    if isinstance(path := found.get(_SPECIFICATIONS), str):
        found[_SPECIFICATIONS] = f"/{path.strip('/')}"
    return found


def _plain(value: Any, depth: int) -> Any:  # noqa: ANN401 - JSON
    if depth > _DEEPEST:
        return unreadable("nested too deeply")
    if isinstance(value, list):
        if len(value) > MOST_ELEMENTS:
            return unreadable(f"an attribute of {len(value)} elements")
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        path = reference_path(value)
        return path if path is not None else {key: _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, int) and value not in _INTEGERS:
        return float(value) if abs(value) < 10**300 else unreadable("an integer of too many digits")
    return value


def reference_path(value: dict[str, Any]) -> str | None:
    """Return the path that a reference in an attribute leads to; None if it is no reference.

    hdmf-zarr wraps references in `value` in version 2, and in `_REFERENCE` in version 3, as LINDI does.
    """
    inner = value.get("_REFERENCE", value.get("value") if "zarr_dtype" in value else None)
    path = inner.get("path") if isinstance(inner, dict) else None
    return f"/{path.strip('/')}" if isinstance(path, str) else None


#: Links that may follow one another before they count as cyclic.
_MOST_LINKS = 32
#: Attributes that tables are described by are short; what is longer is not looked at.
_MOST_NAMES = 100_000
#: The documents that say what an object is.
_KINDS = (".zarray", ".zgroup", "zarr.json")
#: What a reference calls the store that it is in.
#: Bytes of a pointer: what objects take in memory, and so in the types that listings show.
_POINTER = 8


class Meta(NamedTuple):
    """The metadata of a group or an array."""

    attributes: dict[str, Any]
    array: dict[str, Any] | None
    key: str

    @classmethod
    def of(cls, documents: dict[str, Any]) -> Meta:
        """Return what the documents of a node say."""
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
        """Return an attribute that lists names: a list of text, or one plain text; None if there is none."""
        value = self.attributes.get(name)
        if value is None:
            return None
        items = value if isinstance(value, list) else [value]
        found = [item.strip(" ") for item in items[:_MOST_NAMES] if isinstance(item, str)]
        return list(dict.fromkeys(item for item in found if item))

    def links(self) -> dict[str, tuple[str | None, str]]:
        """Return the store and the path that each link of a group leads to, by name."""
        found = {}
        listed = self.attributes.get("_LINKS", self.attributes.get("zarr_link"))
        for link in listed if isinstance(listed, list) else []:
            name = link.get("name") if isinstance(link, dict) else None
            if isinstance(name, str) and "/" not in name and is_plain(name):
                source, path = link.get("source"), link.get("path")
                if isinstance(path, str) and (source is None or isinstance(source, str)):
                    found[name] = source, path
        return found

    def soft_link(self) -> str | None:
        """Return the path that stands for this object itself, as LINDI stores links; None if it is one."""
        link = self.attributes.get("_SOFT_LINK")
        path = link.get("path") if isinstance(link, dict) else None
        return path if isinstance(path, str) and path.startswith("/") else None


def check_described(documents: dict[str, Any], *, is_implied: bool = False) -> None:
    """Refuse what is neither a group nor an array, or whose attributes are none.

    What is `is_implied` has members, which make it a group where consolidated metadata do not say so.
    """
    if documents and not is_implied and documents.keys().isdisjoint(_KINDS):
        raise DamagedObjectError(f"it has {min(documents)}, and none of {', '.join(_KINDS)}")
    own = documents.get("zarr.json")
    attributes = own.get("attributes") if isinstance(own, dict) else documents.get(".zattrs")
    if attributes is not None and not isinstance(attributes, dict):
        raise DamagedObjectError("its attributes are no JSON object")


class ZarrNode(NamedTuple):
    """A group or an array, and the store that holds it, which a link may have made another one."""

    path: str
    meta: Meta
    file: ZarrFile

    @property
    def is_group(self) -> bool:
        """Whether it is a group."""
        return self.meta.array is None

    @property
    def is_dataset(self) -> bool:
        """Whether it is an array."""
        return self.meta.array is not None

    @property
    def address(self) -> str:
        """Its path from the root, which references name."""
        return f"/{self.path}"

    def member_names(self) -> Iterable[bytes]:
        """Return the names of a group's members, links among them."""
        own = self.file.members(self.path, self.meta)
        return [name.encode("utf-8", "surrogatepass") for name in sorted({*own, *self.meta.links()})]

    def child(self, key: bytes) -> ZarrNode:
        """Open one member of a group, following links; BrokenLinkError if the link leads nowhere."""
        return follow(self, key.decode("utf-8", "surrogatepass"), 0)

    def address_of(self, key: bytes) -> str | None:
        """Return the address of a member that is stored here; None where a link leads elsewhere."""
        name = key.decode("utf-8", "surrogatepass")
        meta = self.file.meta(self._below(name)) if name not in self.meta.links() else None
        return f"/{self._below(name)}" if meta is not None and meta.soft_link() is None else None

    def _below(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    def step(self, name: str, hops: int) -> ZarrNode:
        """Open a member by its name; `hops` links led here.

        Raises
        ------
        BrokenLinkError
        """
        if not self.is_group:
            raise BrokenLinkError(f"{name!r} was looked up in a dataset")
        path = self._below(name)
        link = self.meta.links().get(name)
        meta = self.file.meta(path) if link is None and name != ".." and "\0" not in name else None
        if meta is not None:
            soft = meta.soft_link()
            return ZarrNode(path, meta, self.file) if soft is None else follow(self, soft, hops + 1)
        if link is None:
            raise BrokenLinkError(f"there is no {name!r}")
        source, target = link
        try:
            file = self.file if self.file.is_own_name(source) else self.file.external(str(source))
            return follow(file.root, target, hops + 1)
        except BrokenLinkError as error:
            raise broken_at(name, error, hops) from None

    # -- attributes -----------------------------------------------------------------------------------

    def has_attribute(self, name: str) -> bool:
        """Tell whether there is such an attribute."""
        return name in self.meta.attributes

    def text(self, name: str) -> str:
        """Return a text attribute; an empty text if there is none."""
        value = self.meta.attributes.get(name)
        while isinstance(value, list):
            value = value[0] if value else None
        return value if isinstance(value, str) else ""

    def names(self, name: str) -> list[str] | None:
        """Return an attribute that lists names; None if there is none."""
        return self.meta.names(name)

    def attributes(self) -> dict[str, Any]:
        """Return all attributes of NWB as plain values, sorted by name."""
        return plain_attributes(self.meta.attributes)

    def target(self, name: str = "target") -> str | None:
        """Return the path of the object that an attribute refers to; None where it does not."""
        value = self.meta.attributes.get(name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, dict):
            value = value.get("_REFERENCE", value.get("value"))
        if (
            not isinstance(value, dict)
            or not self.file.is_own_name(value.get("source"))
            or not isinstance(value.get("path"), str)
        ):
            return None
        return f"/{value['path'].strip('/')}"

    def referred(self, name: str) -> ZarrNode | None:
        """Open the object that an attribute refers to; None where it does not."""
        path = self.target(name)
        if path is None:
            return None
        try:
            return self.file.find(path.lstrip("/"))
        except BrokenLinkError:
            return None

    # -- arrays ---------------------------------------------------------------------------------------

    def describe(self, path: str, main: ZarrFile) -> Array:
        """Describe an array, which a link may have led to from the store `main`.

        Raises
        ------
        CorruptDataError
            If its metadata makes no sense; the message names store, array and document.
        """
        source = None if self.file is main else self.file.source.path
        try:
            stored = array_metadata(self.meta.array or {}, self.path)
            return describe_array(stored, self.meta.attributes, path, source)
        except (ValueError, TypeError, OverflowError) as error:
            raise CorruptDataError(
                f"{self.file.name}: /{self.path}: {self.meta.key} makes no sense: {error}"
            ) from None

    def texts(self, most: int) -> list[str] | None:
        """Return the elements of a list of text; None of any other array, or where there are too many."""
        if not self.is_dataset:
            return None
        array = self.describe(self.path, self.file)
        if array.dtype.kind not in {"text", "vlen_text"} or len(array.shape) != 1 or array.shape[0] > most:
            return None
        try:
            items = read_indirect(self.file.objects, array, np.array([[0, array.shape[0]]])).tolist()
        except (CorruptDataError, NotNWBError):
            raise  # damaged, here or on the way: what these are the names of would be shown without them
        except (TypeError, ValueError):
            return None
        return [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in items]

    def is_null(self) -> bool:
        """Tell whether an array has no value at all: Zarr's always have one."""
        return False

    def number(self) -> float | None:
        """Return the value of an array that is a single number; None of any other."""
        array = self.describe(self.path, self.file)
        if math.prod(array.shape) != 1 or array.keys is None or array.dtype.kind != "number" or array.shard:
            return None
        data = self.file.chunk(array.keys.of((0,) * len(array.chunk)))
        try:
            return float(read_scalar(array_metadata(self.meta.array or {}, self.path), array, data))
        except CorruptDataError as error:
            raise CorruptDataError(f"{self.file.name}: /{self.path}: {error}") from None
        except TypeError:
            return None

    def start_and_rate(self) -> tuple[float, float] | None:
        """Return a `starting_time` array's value and its `rate`; None where they are no numbers."""
        rate = self.meta.attributes.get("rate")
        if isinstance(rate, list) and len(rate) == 1:
            rate = rate[0]
        if not isinstance(rate, int | float):
            return None
        start = self.number()
        return (start, float(rate)) if start is not None and math.isfinite(rate) and rate > 0 else None

    def shown(self) -> tuple[tuple[int, ...] | None, str]:
        """Return an array's shape and type as a listing shows them."""
        array = self.describe(self.path, self.file)
        return array.shape, _shown(array.dtype)


def _shown(dtype: DType) -> str:
    if dtype.kind in {"number", "bool"}:
        return dtype.numpy
    if dtype.kind == "compound":
        return f"|V{_in_memory(dtype)}"
    return f"|S{dtype.itemsize}" if dtype.kind == "text" else "|O"


def _in_memory(dtype: DType) -> int:
    times = math.prod(dtype.dims)
    if dtype.kind == "compound":
        return times * sum(_in_memory(field.dtype) for field in dtype.fields)
    return stored_size(dtype) if dtype.kind in {"number", "bool", "text"} else times * _POINTER


def follow(start: ZarrNode, path: str, hops: int) -> ZarrNode:
    """Go a path from a group, links included, of which `hops` led here.

    Raises
    ------
    BrokenLinkError
        If it leads nowhere; the message says at which link.
    """
    if hops > _MOST_LINKS:
        raise CyclicLinkError("links form a cycle")
    here = start.file.root if path.startswith("/") else start
    for name in path.split("/"):
        if name and name != ".":
            here = here.step(name, hops)
    return here
