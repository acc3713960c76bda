"""Attributes of objects: `get_attrs`, `get_sub_attrs`, `consolidate_attrs` and `clear_attrs_cache`."""

from __future__ import annotations

import difflib
from functools import partial
from typing import TYPE_CHECKING, Any

from lazynwb.errors import TableNotFoundError
from lazynwb.formats.protocols import with_remedy
from lazynwb.lookup.loader import (
    copy_values,
    forget_attributes,
    load_all_attributes,
    load_attributes,
    load_listing,
)
from lazynwb.paths import one_source
from lazynwb.storage.remote_state import prefetch, save
from lazynwb.storage.resolve import expand
from lazynwb.storage.source import map_concurrently

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynwb.storage.resolve import PathOrUrl, Sources
    from lazynwb.storage.source import Source

#: Attributes of HDMF that describe no data: identifiers of objects and types, and the target of an index.
_PRIVATE = frozenset({"id", "namespace", "object_id", "target"})
#: HDMF's default for missing descriptions.
_EMPTY: tuple[Any, ...] = (None, "", [], {}, "no description", "no comments")


def get_attrs(
    nwb_path: PathOrUrl,
    internal_path: str,
    exclude_private: bool = True,  # noqa: FBT001, FBT002 - positional in existing code
    exclude_empty_fields: bool = False,  # noqa: FBT001, FBT002
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the attributes of one object of an NWB file.

    Parameters
    ----------
    nwb_path : path or URL
        One file.
    internal_path : str
        Path of a group or a dataset: `"/units"`, `"/units/spike_times"`, `"/"`, ...
    exclude_private : bool
        Whether to leave out names that start with `_` or `.`, and the attributes `id`, `object_id`,
        `namespace` and `target` of HDMF.
    exclude_empty_fields : bool
        Whether to leave out empty attributes: None, empty text, lists and dictionaries, and "no description".
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    dict of str to value
        Attributes, sorted by name. Values are str, bool, int, float, None (a null dataspace), nested lists of
        these for arrays, and dictionaries for compounds. Object references are the paths of their targets,
        None for null references. An unreadable value is a string that starts with `<unreadable`. A Zarr store
        has the same values as the HDF5 file that it was exported from.

    Raises
    ------
    TableNotFoundError
        If the object does not exist. It is a KeyError; the message suggests similar paths.
    SourceNotFoundError or NotNWBError
        If the file cannot be read.

    Notes
    -----
    The attributes of all members of a group are read together and cached.
    """
    source = one_source(nwb_path, storage_options, "get_attrs")
    path = _normalized(internal_path)
    found = _attributes(source, path)
    save()
    if found is None:
        raise TableNotFoundError(_not_found(path, [source]))
    return {
        name: copy_values(value)
        for name, value in _public(found, exclude_private).items()
        if not exclude_empty_fields or not _is_empty(value)
    }


def get_sub_attrs(
    nwb_path: PathOrUrl,
    parent_path: str = "/",
    exclude_private: bool = True,  # noqa: FBT001, FBT002 - positional in existing code
    exclude_empty: bool = True,  # noqa: FBT001, FBT002
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the attributes of an object of an NWB file and of all objects below it.

    Parameters
    ----------
    nwb_path : path or URL
        One file.
    parent_path : str
        Path of a group or a dataset.
    exclude_private : bool
        As for `get_attrs`; index columns (`spike_times_index` of `spike_times`) and `/specifications` are
        left out, too, unless `parent_path` is in `/specifications`.
    exclude_empty : bool
        Whether to leave out objects without attributes.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    dict of str to dict
        Attributes by path, with the leading slash; values as for `get_attrs`. Empty if the object does not
        exist. A group with several hard links is descended into once; targets of other links are listed with
        their own attributes only.

    Raises
    ------
    SourceNotFoundError or NotNWBError
        If the file cannot be read.
    """
    source = one_source(nwb_path, storage_options, "get_sub_attrs")
    path = _normalized(parent_path)
    found = load_all_attributes(source, path)
    save()
    shown = {}
    for below, attributes in (found or {}).items():
        is_index = below.endswith("_index") and below.removesuffix("_index") in (found or {})
        is_schema = not path and below.partition("/")[0] == "specifications"
        if exclude_private and (is_index or is_schema):
            continue
        public = _public(attributes, exclude_private)
        if public or not exclude_empty:
            shown["/" + "/".join(filter(None, (path, below)))] = copy_values(public)
    return shown


def consolidate_attrs(
    nwb_paths: Sources,
    internal_path: str,
    exclude_private: bool = True,  # noqa: FBT001, FBT002 - positional in existing code
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the attributes of an object in many NWB files, with common and differing values.

    Parameters
    ----------
    nwb_paths : path or URL, or iterable of these
        As for `scan_nwb`.
    internal_path : str
        Path of a group or a dataset.
    exclude_private : bool
        As for `get_attrs`.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    dict of str to dict
        `{path: {attribute: {"common": value, file: value, ...}}}`: the most frequent value (the first of
        equally frequent ones), and the differing values by `_nwb_path`. The value is None in a file without
        the attribute or the object.

    Raises
    ------
    TableNotFoundError
        If no file has the object.
    SourceNotFoundError or NotNWBError
        If a file cannot be read.
    """
    sources = expand(nwb_paths, storage_options)
    path = _normalized(internal_path)
    prefetch(sources)
    found = map_concurrently(partial(_attributes, path=path), sources, sources)
    save()
    if all(attributes is None for attributes in found):
        raise TableNotFoundError(_not_found(path, sources))
    public = {
        source.path: _public(attributes or {}, exclude_private)
        for source, attributes in zip(sources, found, strict=True)
    }
    names = sorted({name for attributes in public.values() for name in attributes})
    return {f"/{path}": {name: _consolidated(name, public) for name in names}}


def clear_attrs_cache(
    nwb_path: PathOrUrl | None = None, *, storage_options: Mapping[str, Any] | None = None
) -> None:
    """Remove the attributes of one file, or of all files, from memory.

    This is never required, because attributes of changed files are read again. `clear_cache` clears the cache
    on disk.

    Parameters
    ----------
    nwb_path : path or URL, or None
        One file; None for all files.
    storage_options : mapping or None
        As for `scan_nwb`.
    """
    if nwb_path is None:
        forget_attributes()
    else:
        forget_attributes(one_source(nwb_path, storage_options, "clear_attrs_cache"))


def _normalized(path: str) -> str:
    if not isinstance(path, str):
        raise TypeError(
            f"internal_path must be the path of an object inside the file, such as '/units', not {path!r}"
        )
    return "/".join(part for part in path.split("/") if part)


def _attributes(source: Source, path: str) -> dict[str, Any] | None:
    """Return an object's attributes from those of its group, which are cached together."""
    parent, _, name = path.rpartition("/")
    siblings = load_attributes(source, parent)
    if siblings is not None and name in siblings:
        return siblings[name]
    # The group may be the target of a link, or the object may be unlisted.
    own = load_attributes(source, path) if name else siblings
    return own[""] if own is not None else None


def _public(attributes: dict[str, Any], exclude_private: bool) -> dict[str, Any]:  # noqa: FBT001
    if not exclude_private:
        return attributes
    return {
        name: value
        for name, value in attributes.items()
        if not name.startswith(("_", ".")) and name not in _PRIVATE
    }


def _is_empty(value: object) -> bool:
    return any(type(value) is type(empty) and value == empty for empty in _EMPTY)


def _consolidated(name: str, by_file: dict[str, dict[str, Any]]) -> dict[str, Any]:
    # Compare representations: lists are not hashable, 1 equals True, and NaN does not equal itself.
    texts = {file: repr(attributes[name]) for file, attributes in by_file.items() if name in attributes}
    counts: dict[str, int] = {}
    for text in texts.values():
        counts[text] = counts.get(text, 0) + 1
    most_frequent = max(counts, key=lambda text: counts[text])
    common = next(file for file, text in texts.items() if text == most_frequent)
    others = {
        file: copy_values(attributes.get(name))
        for file, attributes in by_file.items()
        if texts.get(file) != most_frequent
    }
    return {"common": copy_values(by_file[common][name]), **others}


def _not_found(path: str, sources: list[Source]) -> str:
    listing = load_listing(sources[0])
    if (broken := listing.broken_link(path)) is not None:
        return f"{sources[0].name}: /{path} cannot be read: {with_remedy(broken[1])}"
    listed = [entry.path for entry in listing.entries if entry.kind != "broken"]
    close = difflib.get_close_matches(f"/{path}", listed, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    where = (
        sources[0].name
        if len(sources) == 1
        else f"any of {len(sources)} files (the first is {sources[0].name})"
    )
    return f"no object /{path} in {where}{hint}; list existing objects with lazynwb.get_internal_paths"
