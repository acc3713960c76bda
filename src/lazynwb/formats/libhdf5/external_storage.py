"""Datasets with data in other files: external storage and virtual datasets, if the settings allow them.

libhdf5 searches these files by its own rules: external storage relative to the working directory of the
process, sources of virtual datasets also in the working directory, and through all links in a source. The
files that it would open are therefore determined in advance, and checked by the rules for links.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from h5py import h5d, h5i, h5p, h5t

from lazynwb.config import config
from lazynwb.errors import UnsupportedTypeError
from lazynwb.formats.protocols import BrokenLinkError, ForbiddenLinkError, UnreachableLinkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from h5py.h5d import DatasetID
    from h5py.h5p import PropDCID

    from lazynwb.formats.libhdf5.file import LibHdf5File, Located

#: Maximum nesting of virtual datasets.
_MAX_DEPTH = 16
#: Prefix for names relative to the folder of the file (H5Pset_efile_prefix).
_ORIGIN_PREFIX = b"${ORIGIN}"


def may_be_external(properties: PropDCID) -> bool:
    """Return whether the data of a dataset may be in other files."""
    return bool(properties.get_layout() == h5d.VIRTUAL or properties.get_external_count())


def describe_forbidden(properties: PropDCID, file: LibHdf5File) -> str:
    """Describe the first external file of a dataset that the settings do not allow; empty if none."""
    for name in sorted({*_external(properties), *(name for name, _ in _virtual(properties))}):
        if name == "." and not properties.get_external_count():
            continue  # the file itself
        if file.source.is_remote:
            return f"data in another file, {name!r}, which libhdf5 would search on this machine"
        target = file.source.sibling(name)
        inside = target is not None and target.is_below_folder_of(file.source)
        setting = config.external_links
        if setting == "never" or (setting == "folder" and not inside):
            return f"data in another file, {name!r} (lazynwb.config.external_links is {setting!r})"
    return ""


@contextmanager
def with_checked_heaps(found: Located) -> Iterator[Located]:
    """Provide a dataset whose heaps are validated before libhdf5 loads them; see `heap_validation`."""
    name = h5i.get_name(found.id) if found.file.heaps is not None and _is_variable(found.id) else None
    if not name or may_be_external(found.id.get_create_plist()):
        yield found
        return
    with found.file.reopen() as own:
        yield own.open_path(name)


def _is_variable(dataset: DatasetID) -> bool:
    stored = dataset.get_type()
    if isinstance(stored, h5t.TypeStringID):
        return bool(stored.is_variable_str())
    return bool(stored.detect_class(h5t.VLEN))


@contextmanager
def permitted_dataset(found: Located) -> Iterator[DatasetID]:
    """Provide a dataset whose data is read only from files that the settings allow.

    Raises
    ------
    UnsupportedTypeError
        If the settings do not allow its files; the message has the reason.
    """
    properties = found.id.get_create_plist()
    if not may_be_external(properties):
        yield found.id
        return
    refusal = describe_forbidden(properties, found.file)
    if properties.get_external_count() and not refusal:
        # Other handles of this file in the process have no prefix, and libhdf5 requires equal properties.
        with found.file.reopen() as own:
            access = h5p.create(h5p.DATASET_ACCESS)
            access.set_efile_prefix(_ORIGIN_PREFIX)
            yield h5d.open(own.id, h5i.get_name(found.id), access)
        return
    if not refusal and found.file.is_streamed and any(name != "." for name, _ in _virtual(properties)):
        refusal = "data in other files, which cannot be read while this process has the file open otherwise"
    if not refusal and (config.external_links != "anywhere" or found.file.source.is_remote):
        refusal = _check_virtual(found)
    if refusal:
        name = (h5i.get_name(found.id) or b"").decode("utf-8", "replace")
        raise UnsupportedTypeError(f"{found.file.name}: {name} has {refusal}")
    yield found.id


def _check_virtual(found: Located) -> str:
    """Describe a source of a virtual dataset that is not allowed; empty if there is none."""
    if found.file.source.is_remote:
        return _forbidden_source(found.id, found.file, set(), 0)
    # Separate handles, because libhdf5 may refuse to open files that this process has opened differently.
    with found.file.reopen() as own:
        return _forbidden_source(found.id, own, set(), 0)


def _forbidden_source(
    dataset: DatasetID, file: LibHdf5File, seen: set[tuple[str, str, str]], depth: int
) -> str:
    """Describe any direct or indirect source of a virtual dataset that is not allowed; empty if none."""
    if depth > _MAX_DEPTH:
        return f"data behind more than {_MAX_DEPTH} virtual datasets"
    for name, path in _virtual(dataset.get_create_plist()):
        key = (file.source.path, name, path)
        if key in seen:
            continue
        seen.add(key)
        try:
            source = _source(file, name, path)
        except ForbiddenLinkError as error:
            return f"data behind a link: {error}"
        refusal = source if isinstance(source, str) else _refusal_reason(source, file, seen, depth)
        if refusal:
            return refusal
    return ""


def _source(file: LibHdf5File, name: str, path: str) -> Located | str:
    """Return the source that libhdf5 would find; empty if it finds none; or the reason for a refusal."""
    if "%" in name + path:
        return f"data in files of a pattern, {name!r} (this requires external_links = 'anywhere')"
    if name != "." and not _exists(file, name):
        if os.path.exists(name) or os.path.exists(os.path.basename(name)):  # noqa: PTH110, PTH119 - as libhdf5
            return f"data in {name!r}, which is not beside the file but in the working directory"
        return ""  # libhdf5 returns the fill value
    try:
        holder = file if name == "." else file.external(os.fsencode(name))
        return holder.open_path(path.encode("utf-8", "surrogateescape"))
    except (ForbiddenLinkError, UnreachableLinkError):
        raise
    except BrokenLinkError:
        file.raise_if_missing()
        return ""  # libhdf5 does not find the source


def _refusal_reason(source: Located, file: LibHdf5File, seen: set[tuple[str, str, str]], depth: int) -> str:
    """Return the reason why an object is not allowed as a source of a virtual dataset of `file`."""
    if file.source.is_remote and source.file is not file:
        return f"data in another file, {source.file.name}, which libhdf5 would search on this machine"
    if not source.is_dataset:
        return ""
    properties = source.id.get_create_plist()
    if not all(map(os.path.isabs, _external(properties))):
        return "data in external files of a virtual dataset's source, whose location is ambiguous"
    return describe_forbidden(properties, source.file) or _forbidden_source(
        source.id, source.file, seen, depth + 1
    )


def _exists(file: LibHdf5File, name: str) -> bool:
    target = file.source.sibling(name)
    return target is not None and os.path.exists(target.path)  # noqa: PTH110 - as the source does


def _external(properties: PropDCID) -> list[str]:
    """Return the names of the files of external storage."""
    names = (properties.get_external(i)[0] for i in range(properties.get_external_count()))
    return [_text(name) for name in names]


def _virtual(properties: PropDCID) -> list[tuple[str, str]]:
    """Return the distinct source files and datasets of a virtual dataset."""
    if properties.get_layout() != h5d.VIRTUAL:
        return []
    pairs = (
        (_text(properties.get_virtual_filename(i)), _text(properties.get_virtual_dsetname(i)))
        for i in range(properties.get_virtual_count())
    )
    return list(dict.fromkeys(pairs))


def _text(name: str | bytes) -> str:
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
