"""The notebook runs from its first cell to its last, in a kernel of its own, and shows what it says."""

import json
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"


def kinds(cells):
    """Return the MIME types that cells put out."""
    return {kind for cell in cells for output in cell.get("outputs", []) for kind in output.get("data", {})}


def test_it_runs_and_shows_tables_pictures_and_the_tree_of_a_session():
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


def test_it_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") for cell in cells)
