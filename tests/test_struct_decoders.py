"""Decoders of structs are built one at a time: msgspec crashes where threads build them together."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

import lazynwb
from lazynwb import struct_decoders


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_threads_build_decoders_in_turn(form, monkeypatch):
    building = []
    most = 0
    together = threading.Barrier(4)

    def slowly(kind):
        nonlocal most
        building.append(kind)
        most = max(most, len(building))
        time.sleep(0.005)  # another thread runs, if it may
        building.remove(kind)
        return kind

    def build(kind):
        together.wait(60)
        return getattr(struct_decoders, f"{form}_decoder")(kind)

    monkeypatch.setattr(getattr(msgspec, form), "Decoder", slowly)
    kinds = [type(f"Kind{number}", (), {}) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(build, kinds)) == kinds
    assert most == 1


def test_no_module_builds_a_decoder_of_its_own():
    own = re.compile(r"(json|msgpack)\.(Decoder\(|decode\([^\n]*\btype=)|msgspec\.convert\(")
    root = Path(lazynwb.__file__).parent
    found = {path.name for path in root.rglob("*.py") if own.search(path.read_text(encoding="utf-8"))}
    assert found == {"struct_decoders.py"}
