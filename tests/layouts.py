"""One file in four layouts: the same objects at other addresses, as writers arrange them."""

from pathlib import Path

import h5py
import numpy as np


def write_layouts(source: Path, folder: Path) -> dict[str, Path]:
    """Write four copies of a file with the same objects in other positions."""
    layouts = {
        name: folder / f"{name.replace(' ', '_')}.nwb"
        for name in ("as written", "at the end", "scattered", "paged")
    }
    layouts["as written"].write_bytes(source.read_bytes())
    with h5py.File(source) as original:

        def copy_all(file: h5py.File) -> None:
            for name, value in original.attrs.items():
                if name != ".specloc":
                    file.attrs[name] = value
            for name in original:
                original.copy(name, file)

        with h5py.File(layouts["at the end"], "w") as file:
            file["acquisition_first"] = np.random.default_rng(0).integers(0, 1000, 16_000_000, "i2")
        with h5py.File(layouts["at the end"], "a") as file:
            copy_all(file)
        with h5py.File(layouts["paged"], "w", fs_strategy="page", fs_page_size=1 << 16) as file:
            copy_all(file)
        with h5py.File(layouts["scattered"], "w") as file:
            for name in original:
                if name not in {"units", "intervals"}:
                    original.copy(name, file)
        for table in ("units", "intervals/performance", "intervals/trials"):
            for column in original[table]:
                with h5py.File(layouts["scattered"], "a") as file:  # opened anew for every column
                    group = file.require_group(table)
                    original.copy(f"{table}/{column}", group)
                    group.attrs.update(original[table].attrs)
    return layouts
