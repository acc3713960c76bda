"""The same sessions three times: in HDF5, in Zarr v2 and in Zarr v3.

No environment can write both versions of Zarr, so it takes two::

    python3.11 -m venv v2 && v2/bin/pip install "hdmf-zarr==0.13.*" "pynwb==4.2.*" msgpack
    python3.12 -m venv v3 && v3/bin/pip install "hdmf-zarr==0.14.*" "pynwb==4.2.*"
    python tests/zarr_twins/make.py --v2 v2/bin/python --v3 v3/bin/python

packs all of them into `twins.tar.xz` beside this script; with `--folder FOLDER` they are left there as
`NAME.nwb`, `NAME.v2.nwb.zarr` and `NAME.v3.nwb.zarr`. The HDF5 file of a session is written first, and both
stores are exports of it. What is made does not depend on when and where: with the same packages, the archive
is the same, byte for byte.
"""

from __future__ import annotations

import argparse
import io
import lzma
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import uuid
import warnings
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).parent
ARCHIVE = HERE / "twins.tar.xz"
#: Version 2 has these for arrays of references; what hdmf-zarr takes for the other sessions is pickle.
OBJECT_CODECS = {"electrodes": "JSON", "one_row": "JSON", "units": "MsgPack"}


# --- in one of the environments -----------------------------------------------------------------------


def write(folder: Path) -> None:
    """Write the HDF5 files that are not there, and the stores of the version that is installed."""
    import zarr

    sys.path.insert(0, str(HERE.parent))
    from cases_pynwb import intracellular, session
    from zarr_twins import sessions

    version = int(zarr.__version__.partition(".")[0])
    codecs = OBJECT_CODECS if version == 2 else {}
    warnings.simplefilter("ignore")
    makers = {name: partial(write_session, make=make) for name, make in sessions.SESSIONS.items()}
    for name, make in {**makers, "session": session, "intracellular": intracellular}.items():
        path = folder / f"{name}.nwb"
        if not path.exists():
            with reproducible(name, sessions.START):
                make(path)
        export(path, folder / f"{name}.v{version}.nwb.zarr", codecs.get(name))


def write_session(path: Path, make: Any) -> None:
    from pynwb import NWBHDF5IO

    with NWBHDF5IO(path, "w") as io:
        io.write(make(), cache_spec=False)  # it is the same in all of them, and larger than the rest


def reproducible(name: str, created: Any) -> ExitStack:
    """Identifiers that follow from the session's name, and a time of creation that is not now."""
    import pynwb

    chance = random.Random(name)  # noqa: S311 - not a secret
    stack = ExitStack()
    new_id = lambda: uuid.UUID(int=chance.getrandbits(128), version=4)  # noqa: E731 - a function's stand-in
    stack.enter_context(patch("hdmf.container.uuid4", new_id))
    dated = partial(pynwb.NWBFile, file_create_date=created)
    stack.enter_context(patch.object(pynwb, "NWBFile", dated))
    return stack


def export(path: Path, store: Path, object_codec: str | None) -> None:
    """Do what `NWBZarrIO.export` does, which offers neither codecs nor to leave out the specifications."""
    import h5py
    import numcodecs
    from hdmf_zarr.backend import ZarrIO
    from pynwb import NWBHDF5IO, get_manager

    with h5py.File(path) as file:
        cached = "specifications" in file
    options = {} if object_codec is None else {"object_codec_class": getattr(numcodecs, object_codec)}
    with (
        NWBHDF5IO(path, "r") as source,
        ZarrIO(str(store), manager=get_manager(), mode="w", **options) as io,
    ):
        io.export(src_io=source, write_args={"link_data": False}, cache_spec=cached)


# --- in any environment -------------------------------------------------------------------------------


def make_twins(folder: Path, *pythons: str | Path) -> None:
    """Run this script in each of the environments, one after the other."""
    folder = folder.resolve()
    settings = {
        "PYTHONHASHSEED": "0",  # the order of sets
        "NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE": "1",  # hdmf-zarr unpickles what it has just pickled
        "TZ": "UTC",
    }
    for python in pythons:
        subprocess.run(  # noqa: S603 - our own code
            [python, __file__, "--write", folder], env={**os.environ, **settings}, check=True
        )


def pack(folder: Path, archive: Path) -> None:
    """Put all files into one archive: as a stream, they compress to a twentieth."""
    with tarfile.open(archive, "w:xz", format=tarfile.PAX_FORMAT, preset=9) as tar:
        for path in files_of(folder):
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size = path.stat().st_size
            entry.mtime = 1_700_000_000
            with path.open("rb") as content:
                tar.addfile(entry, content)


def files_of(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def unpack(archive: Path, folder: Path, prefixes: Iterable[str] = ("",)) -> None:
    """Write the files of an archive whose names have one of the prefixes.

    To decompress everything at once takes a quarter of the time that `tarfile` takes with these members.
    """
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(archive.read_bytes()))) as tar:
        wanted = [member for member in tar if member.name.startswith(tuple(prefixes))]
        for parent in {(folder / member.name).parent for member in wanted}:
            parent.mkdir(parents=True, exist_ok=True)
        for member in wanted:
            content = tar.extractfile(member)
            assert content is not None
            path = folder / member.name
            path.write_bytes(content.read())
            os.utime(path, (member.mtime, member.mtime))


@cache
def session_names() -> list[str]:
    """Return the names of the sessions in the archive, whose members have to be decompressed for that."""
    with tarfile.open(ARCHIVE) as tar:
        return sorted(name.removesuffix(".nwb") for name in tar.getnames() if name.endswith(".nwb"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write sessions in HDF5, Zarr v2 and Zarr v3.")
    parser.add_argument("--v2", help="the interpreter of an environment with hdmf-zarr 0.13")
    parser.add_argument("--v3", help="the interpreter of an environment with hdmf-zarr 0.14 or later")
    parser.add_argument("--folder", type=Path, help="leave the twins there, and the archive as it is")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.write is not None:
        write(asked.write)
        return
    if asked.v2 is None or asked.v3 is None:
        parser.error("both --v2 and --v3 are needed")
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        make_twins(folder, asked.v2, asked.v3)
        if asked.folder is None:
            pack(folder, ARCHIVE)


if __name__ == "__main__":
    main()
