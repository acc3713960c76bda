"""Contents of a store as read by zarr-python, as an HDF5 file for the HDF5 oracle.

It knows the conventions of hdmf-zarr (`zarr_dtype` and `zarr_link` up to 0.13; `_DTYPE`, `_LINKS`,
`_REFERENCE` and `_REFERENCE_FIELDS` from 0.14 on) and leaves all else to zarr-python and h5py. zarr-python 3
cannot open what hdmf-zarr wrote with zarr-python 2, nor the other way round, so each reads its own.
"""

from __future__ import annotations

import io
import pickle
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import h5py
import numcodecs
import numpy as np
from numcodecs.pickles import Pickle

try:
    import zarr
except ImportError:  # `plain_zarr` stands in for it
    zarr = None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VERSION = int(zarr.__version__.partition(".")[0]) if zarr else 0
OWN = frozenset(
    ["zarr_dtype", "zarr_link", "_ARRAY_DIMENSIONS", "_DTYPE", "_LINKS", "_REFERENCE_FIELDS", ".specloc"]
)
TEXT = h5py.string_dtype()
BROKEN = "cannot be read"
#: What stands for a null, at which text in HDF5 ends.
NULL = "\ue001"


class Reference(dict[str, Any]):
    """A reference of hdmf-zarr: a dictionary with `source` and `path`."""


class Careful(pickle.Unpickler):
    """Unpickles only arrays, plain values and references of hdmf-zarr."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("hdmf_zarr.utils", "ZarrReference"):
            return Reference
        if (module.replace("_core", "core"), name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }:
            return super().find_class(module, name)
        message = f"{module}.{name}"
        raise pickle.UnpicklingError(message)


class CarefulPickle(Pickle):
    """Replaces the codec of numcodecs, which refuses either all pickles or none."""

    def decode(self, buf: Any, out: Any = None) -> Any:
        array = Careful(io.BytesIO(numcodecs.compat.ensure_bytes(buf))).load()
        if out is None:
            return array
        np.copyto(out, array)
        return out


def version_of(store: Path) -> int:
    return 3 if (store / "zarr.json").exists() else 2


def open_root(store: Path) -> Any:
    """Use consolidated metadata if available, as hdmf-zarr does."""
    if (store / ".zmetadata").exists():
        return zarr.open_consolidated(str(store), mode="r")
    return zarr.open_group(str(store), mode="r")  # version 3 of Zarr has them in the root's own


def to_hdf5(store: Path, path: Path, root: Any = None) -> None:
    """Copy groups, datasets, attributes, links and references.

    With a `root` of another reader, what cannot be copied is left out: see `copy_group`.
    """
    numcodecs.register_codec(CarefulPickle, "pickle")
    try:
        is_whole = root is None
        with h5py.File(path, "w") as file:
            later: list[Callable[[], None]] = []  # references, to what has to be there first
            copy_group(open_root(store) if root is None else root, file, later, is_whole=is_whole)
            for step in later:
                with nullcontext() if is_whole else suppress(Exception):
                    step()
    finally:
        numcodecs.register_codec(Pickle, "pickle")


def copy_group(
    source: Any, group: h5py.Group, later: list[Callable[[], None]], *, is_whole: bool = True
) -> None:
    """Copy a group; an unreadable array becomes one with the attribute `BROKEN`."""
    attributes = dict(source.attrs)
    careful = nullcontext if is_whole else partial(suppress, Exception)
    copy_attributes(attributes, group, later, careful)
    for name, child in sorted(members(source)):
        if hasattr(child, "groups"):
            copy_group(child, group.create_group(name), later, is_whole=is_whole)
            continue
        try:
            later += copy_array(child, group, name, later, careful)
        except Exception as error:
            if is_whole:
                raise
            with suppress(KeyError):
                del group[name]
            with suppress(Exception):
                dtype = TEXT if child.dtype.kind == "O" else child.dtype
                broken = group.create_dataset(name, child.shape, dtype)
                copy_attributes(dict(child.attrs), broken, later, careful)
                broken.attrs[BROKEN] = f"{type(error).__name__}: {error}"
    for link in [*attributes.get("zarr_link", []), *attributes.get("_LINKS", [])]:
        with careful():
            if link["source"] == ".":
                if not is_whole and link["name"] in group:
                    del group[link["name"]]  # a link comes before what has its name
                group[link["name"]] = h5py.SoftLink(link["path"] or "/")


def members(group: Any) -> Iterator[tuple[str, Any]]:
    yield from group.groups()
    yield from group.arrays()


def copy_attributes(
    attributes: dict[str, Any], target: Any, later: list[Callable[[], None]], careful: Any = nullcontext
) -> None:
    for name, value in attributes.items():
        if name in OWN:
            continue
        with careful():
            path = referred(value)
            if path is not None:
                later.append(partial(set_reference, target, name, path))
            elif isinstance(value, list):
                target.attrs[name] = value or np.zeros(0)
            elif value is not None:
                target.attrs[name] = value


def referred(value: Any) -> str | None:
    """The path that a reference in an attribute or an array names."""
    if isinstance(value, dict):
        for key in ("_REFERENCE", "value"):
            if isinstance(value.get(key), dict):
                value = value[key]
        return value.get("path")
    return None


def set_reference(target: Any, name: str, path: str) -> None:
    with suppress(KeyError):  # the target is not there
        target.attrs[name] = target.file[path].ref


def copy_array(
    source: Any, group: h5py.Group, name: str, later: list[Callable[[], None]], careful: Any = nullcontext
) -> list[Callable[[], None]]:
    """Copy an array if possible; return the function that writes an array of references."""
    attributes = dict(source.attrs)
    kind = attributes.get("zarr_dtype", attributes.get("_DTYPE"))
    data = np.asarray(source[...])
    if kind == "scalar":
        data = data.reshape(-1)[0]
    fields = attributes.get("_REFERENCE_FIELDS", [])
    if isinstance(kind, list):
        fields = [part["name"] for part in kind if isinstance(part, dict) and part.get("dtype") == "object"]
    if kind in ("object", "object_reference"):
        dataset = group.create_dataset(name, data.shape, h5py.ref_dtype)
        copy_attributes(attributes, dataset, later, careful)
        return [partial(fill_references, dataset, data)]
    if fields:
        parts = [(n, h5py.ref_dtype if n in fields else data.dtype[n]) for n in data.dtype.names]
        dataset = group.create_dataset(name, data.shape, np.dtype(parts))
        copy_attributes(attributes, dataset, later, careful)
        return [partial(fill_fields, dataset, data, fields)]
    dtype = getattr(data, "dtype", np.dtype("O"))
    if dtype.kind in "OTU":
        plain = np.asarray(data, dtype="O")
        texts = [t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t) for t in plain.ravel()]
        texts = [t.replace("\0", NULL) for t in texts]
        data = np.array(texts, "O").reshape(plain.shape)
        dataset = group.create_dataset(name, plain.shape, TEXT, data=data)
    else:
        dataset = group.create_dataset(name, data=data)
    copy_attributes(attributes, dataset, later, careful)
    return []


def reference(file: h5py.File, value: Any) -> h5py.Reference:
    path = referred(value) or str(value)
    return file[path].ref if path in file else h5py.Reference()


def fill_references(dataset: h5py.Dataset, data: np.ndarray) -> None:
    for place in np.ndindex(data.shape):
        dataset[place] = reference(dataset.file, data[place])


def fill_fields(dataset: h5py.Dataset, data: np.ndarray, fields: list[str]) -> None:
    filled = np.zeros(data.shape, dataset.dtype)
    for name in data.dtype.names:
        values = data[name]
        if name in fields:
            values = np.array([reference(dataset.file, value) for value in values.ravel()], "O")
        filled[name] = values.reshape(data.shape)
    dataset[...] = filled
