"""Write LINDI's JSON files of the HDF5 twins: run by an interpreter that has the package lindi."""

import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    import lindi

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with tarfile.open(HERE / "twins.tar.xz") as tar:
            tar.extractall(folder, filter="data")
        for path in sorted(folder.glob("*.nwb")):
            if path.is_file():
                file = lindi.LindiH5pyFile.from_hdf5_file(str(path), url=path.name)
                file.write_lindi_file(f"{path}.lindi.json")
        with tarfile.open(HERE / "lindi.tar.xz", "w:xz") as tar:
            for path in sorted(folder.glob("*.lindi.json")):
                tar.add(path, path.name)


if __name__ == "__main__":
    sys.exit(main())
