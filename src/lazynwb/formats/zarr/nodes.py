"""Groups, arrays and links of a Zarr store; see `lazynwb.formats.protocols`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lazynwb.catalog.model import Array, DType, stored_size
from lazynwb.errors import CorruptDataError, NotNWBError
from lazynwb.formats.protocols import (
    BrokenLinkError,
    NoObjectError,
    follow,
    link_error,
)
from lazynwb.formats.zarr.array_metadata import describe_document, parse_array_metadata
from lazynwb.formats.zarr.node_metadata import NodeMetadata, plain_attributes
from lazynwb.formats.zarr.object_arrays import read_indirect, read_scalar
from lazynwb.formats.zarr.store import ZarrStore

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Size of a pointer, which is the size of objects in the types of listings.
_POINTER = 8


class ZarrFile(ZarrStore):
    """A Zarr store with access to its objects by path; see `lazynwb.formats.protocols.OpenFile`."""

    @property
    def root(self) -> ZarrNode:
        """The root group."""
        return ZarrNode("", self.meta("") or NodeMetadata.of({}), self)

    def find(self, path: str) -> ZarrNode:
        """Open the object at a path from the root.

        Raises
        ------
        BrokenLinkError
            If the object does not exist; the message has the broken link.
        """
        self.prefetch_path(path)
        return follow(self.root, path, 0)


class ZarrNode(NamedTuple):
    """A group or an array, and its store, which may be the target of a link."""

    path: str
    meta: NodeMetadata
    file: ZarrFile

    @property
    def is_group(self) -> bool:
        """Whether the object is a group."""
        return self.meta.array is None

    @property
    def is_dataset(self) -> bool:
        """Whether the object is an array."""
        return self.meta.array is not None

    @property
    def address(self) -> str:
        """The path from the root, by which references identify the object."""
        return f"/{self.path}"

    def member_names(self) -> Iterable[bytes]:
        """Return the names of the members of a group, including links."""
        own = self.file.members(self.path, self.meta)
        return [name.encode("utf-8", "surrogatepass") for name in sorted({*own, *self.meta.links()})]

    def child(self, key: bytes) -> ZarrNode:
        """Open a member of a group, following links; raise BrokenLinkError if a link is broken."""
        return follow(self, key.decode("utf-8", "surrogatepass"), 0)

    def address_of(self, key: bytes) -> str | None:
        """Return the address of a member that is stored in the group; None for links."""
        name = key.decode("utf-8", "surrogatepass")
        meta = self.file.meta(self._below(name)) if name not in self.meta.links() else None
        return f"/{self._below(name)}" if meta is not None and meta.soft_link() is None else None

    def _below(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    def step(self, name: str, hops: int) -> ZarrNode:
        """Open a member by its name after `hops` links; raise BrokenLinkError if it does not exist."""
        if not self.is_group:
            raise NoObjectError(f"{name!r} was looked up in a dataset")
        path = self._below(name)
        link = self.meta.links().get(name)
        meta = self.file.meta(path) if link is None and name != ".." and "\0" not in name else None
        if meta is not None:
            soft = meta.soft_link()
            if soft is None:
                return ZarrNode(path, meta, self.file)
            try:
                return follow(self, soft, hops + 1)
            except BrokenLinkError as error:
                raise link_error(name, error, hops) from None
        if link is None:
            raise NoObjectError(f"there is no {name!r}")
        source, target = link
        try:
            file = self.file if self.file.is_own_name(source) else self.file.external(str(source))
            return follow(file.root, target, hops + 1)
        except BrokenLinkError as error:
            raise link_error(name, error, hops) from None

    # -- attributes -----------------------------------------------------------------------------------

    def has_attribute(self, name: str) -> bool:
        """Return whether an attribute exists."""
        return name in self.meta.attributes

    def text(self, name: str) -> str:
        """Return a text attribute; an empty string if it does not exist."""
        value = self.meta.attributes.get(name)
        while isinstance(value, list):
            value = value[0] if value else None
        return value if isinstance(value, str) else ""

    def names(self, name: str) -> list[str] | None:
        """Return an attribute that is a list of names; None if it does not exist."""
        return self.meta.names(name)

    def attributes(self) -> dict[str, Any]:
        """Return all attributes except internal ones of Zarr as plain values, sorted by name."""
        return plain_attributes(self.meta.attributes)

    def target(self, name: str = "target") -> str | None:
        """Return the path of the object that an attribute refers to; None without such a reference."""
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
        """Open the object that an attribute refers to; None without such a reference."""
        path = self.target(name)
        if path is None:
            return None
        try:
            return self.file.find(path.lstrip("/"))
        except BrokenLinkError:
            return None

    # -- arrays ---------------------------------------------------------------------------------------

    def describe(self, path: str, main: ZarrFile) -> Array:
        """Describe an array, which may be the target of a link in the store `main`.

        Raises
        ------
        CorruptDataError
            If its metadata is invalid; the message has the store, array and document.
        """
        source = None if self.file is main else self.file.source.path
        try:
            return describe_document(self.meta.array or {}, self.meta.attributes, self.path, path, source)
        except (ValueError, TypeError, OverflowError) as error:
            raise CorruptDataError(
                f"{self.file.name}: /{self.path}: {self.meta.key} is invalid: {error}"
            ) from None

    def texts(self, limit: int) -> list[str] | None:
        """Return the elements of a list of text; None for other arrays, and for too many elements."""
        if not self.is_dataset:
            return None
        array = self.describe(self.path, self.file)
        if array.dtype.kind not in {"text", "vlen_text"} or len(array.shape) != 1 or array.shape[0] > limit:
            return None
        try:
            items = read_indirect(self.file.objects, array, np.array([[0, array.shape[0]]])).tolist()
        except (CorruptDataError, NotNWBError):
            raise  # unreadable names must not be left out silently
        except (TypeError, ValueError):
            return None
        return [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in items]

    def is_null(self) -> bool:
        """Return False: arrays of Zarr always have a dataspace."""
        return False

    def number(self) -> float | None:
        """Return the value of an array that is a single number; None for other arrays."""
        array = self.describe(self.path, self.file)
        if math.prod(array.shape) != 1 or array.keys is None or array.dtype.kind != "number" or array.shard:
            return None
        data = self.file.chunk(array.keys.of((0,) * len(array.chunk)))
        try:
            return float(read_scalar(parse_array_metadata(self.meta.array or {}, self.path), array, data))
        except CorruptDataError as error:
            raise CorruptDataError(f"{self.file.name}: /{self.path}: {error}") from None
        except TypeError:
            return None

    def start_and_rate(self) -> tuple[float, float] | None:
        """Return the value of a `starting_time` array and its `rate`; None if they are not numbers."""
        rate = self.meta.attributes.get("rate")
        if isinstance(rate, list) and len(rate) == 1:
            rate = rate[0]
        if not isinstance(rate, int | float):
            return None
        start = self.number()
        return (start, float(rate)) if start is not None and math.isfinite(rate) and rate > 0 else None

    def shown(self) -> tuple[tuple[int, ...] | None, str]:
        """Return the shape and type of an array in a listing."""
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
