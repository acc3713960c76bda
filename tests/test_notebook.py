"""The notebook runs in a kernel and shows its results; calls in a kernel can be interrupted."""

import json
import os
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from lazynwb import interrupts
from lazynwb.profile import Query, working_for
from lazynwb.threads import raise_if_interrupted

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"


def kinds(cells):
    """Return the MIME types of the outputs of cells."""
    return {kind for cell in cells for output in cell.get("outputs", []) for kind in output.get("data", {})}


@pytest.mark.long
def test_the_notebook_runs_and_shows_tables_images_and_a_session_tree():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": "."}}
    ).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    pictures = [cell for cell in cells if "image/png" in kinds([cell])]
    assert len(pictures) == 2
    tree = cells[1].outputs[0]["data"]["text/html"]
    assert "spike_times" in tree
    assert "<details" in tree
    errors = [
        output for cell in cells for output in cell.outputs if output.output_type in {"error", "stream"}
    ]
    assert [output.get("text", "") for output in errors] == [cells[4].outputs[0]["text"]]
    assert "units; " in cells[4].outputs[0]["text"]


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") for cell in cells)


CALLS = {
    "get_df": 'lazynwb.get_df(paths, "units", exclude_array_columns=False, as_polars=True)',
    "collect": 'lazynwb.scan_nwb(paths, "units").collect()',
    "convert": 'lazynwb.convert_nwb_tables(paths, folder + "/converted")',
    "index": 'lazynwb.build_index(paths, folder + "/index", values=True)',
    "spikes": """lazynwb.get_spike_times_in_intervals(
        lazynwb.scan_nwb(paths, "units"), {"trial": ("start_time", "stop_time")}
    ).collect()""",
}
#: Of 24 reads of a frame, and of hundreds of a conversion, which reads the structure of its files ahead.
MAX_READS = {"get_df": 6, "collect": 6, "convert": 15, "index": 15, "spikes": 15}
#: From the third read on, a read waits until the interrupt is sent.
HELD = """
import _thread, os, threading, time
import lazynwb
from lazynwb import interrupts

folder, paths, signal_fifo = {arguments!r}
lazynwb.config.disable_cache = True
lazynwb.config.max_threads = 2
read, reads, reached, sent = os.preadv, [], threading.Event(), threading.Event()

def held(*arguments):
    reads.append(arguments)
    if len(reads) >= 3:
        reached.set()
        sent.wait()
    return read(*arguments)

def interrupt():
    reached.wait()
    before = interrupts.count()
    if {on_windows}:
        _thread.interrupt_main()  # by ipykernel's ParentPollerWindows
    else:
        open(signal_fifo, "w").close()  # the test interrupts the kernel
        open(signal_fifo).close()
    deadline = time.monotonic() + 1
    while interrupts.count() == before and time.monotonic() < deadline:
        time.sleep(0.01)  # until the signal has arrived, on a busy machine
    sent.set()

threading.Thread(target=interrupt, daemon=True).start()
"""


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel()
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "preadv"), reason="needs os.preadv, to hold up reads")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("on_windows", [False, True])
@pytest.mark.sample(3)
def test_an_interrupted_kernel_ends_the_call_before_its_next_reads(kernel, call, on_windows, cube, tmp_path):
    manager, client = kernel
    fifo = tmp_path / "signal"
    os.mkfifo(fifo)
    arguments = (str(tmp_path), [str(path) for path in cube], str(fifo))
    replies = [client.execute(HELD.format(arguments=arguments, on_windows=on_windows))]
    replies.append(client.execute(f"os.preadv = held\n{CALLS[call]}", stop_on_error=False))
    if not on_windows:
        fifo.open().close()
        manager.interrupt_kernel()
        fifo.open("w").close()
    replies.append(client.execute("os.preadv = read", user_expressions={"reads": "len(reads)"}))
    contents = [reply_to(client, message) for message in replies]
    assert [content["status"] for content in contents] == ["ok", "error", "ok"]
    assert contents[1]["ename"] == "KeyboardInterrupt"
    assert int(contents[2]["user_expressions"]["reads"]["data"]["text/plain"]) <= MAX_READS[call]


def test_a_kernel_converts_to_duckdb_with_or_without_ipywidgets(kernel, cube, tmp_path):
    pytest.importorskip("duckdb")
    _, client = kernel
    paths = [str(path) for path in cube[:2]]
    code = f"""
import lazynwb
written = lazynwb.convert_nwb_tables({paths}, {str(tmp_path)!r}, output_format="duckdb", tables="units")
"""
    reply = reply_to(client, client.execute(code, user_expressions={"tables": "list(written)"}))
    assert reply["status"] == "ok"
    assert reply["user_expressions"]["tables"]["data"]["text/plain"] == "['/units']"


def test_an_interrupt_of_a_query_ends_the_queries_that_it_begins_afterwards(monkeypatch):
    count = [0]
    monkeypatch.setattr(interrupts, "count", lambda: count[0])
    with working_for(Query("spikes of units")):
        count[0] += 1
        with working_for(Query("spike times of a block of units")), pytest.raises(KeyboardInterrupt):
            raise_if_interrupted()
    with working_for(Query("the next cell")):
        raise_if_interrupted()


def reply_to(client, message):
    """Return the content of a kernel's reply to a message."""
    while True:
        reply = client.get_shell_msg(timeout=60)
        if reply["parent_header"].get("msg_id") == message:
            return reply["content"]
