"""Progress bars: shown late, once per stage, and never beside other output."""

import time

import polars as pl
import pytest

import lazynwb
from lazynwb.progress import Progress


class Terminal:
    """The last line of a terminal with the output of stderr."""

    def __init__(self, capsys):
        self._capsys = capsys
        self._written = ""

    @property
    def written(self):
        self._written += self._capsys.readouterr().err
        return self._written

    @property
    def line(self):
        text = ""
        for part in self.written.split("\r"):
            text = part + text[len(part) :]
        return text.rstrip()


@pytest.fixture
def terminal(monkeypatch, capsys):
    monkeypatch.setattr(lazynwb.config, "disable_progress", False)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    return Terminal(capsys)


def begun(total=4):
    progress = Progress("Scanning NWB /units", total, disabled=False)
    time.sleep(0.6)
    progress.update()
    return progress


def test_short_work_shows_no_bar(terminal):
    with Progress("Scanning NWB /units", 4, disabled=False) as progress:
        for _ in range(4):
            progress.update()
    assert terminal.written == ""


def test_a_progress_bar_shows_count_rate_and_remaining_time(terminal):
    with begun():
        assert terminal.line.startswith("Scanning NWB /units:  25%|")
        assert "1/4 [00:00<00:0" in terminal.line
        assert terminal.line.endswith("NWB/s]")


def test_a_bar_is_removed_after_an_error(terminal):
    with pytest.raises(ValueError, match="x"), begun():
        raise ValueError("x")
    assert terminal.line == ""


def test_a_bar_is_hidden_while_a_scan_is_suspended(terminal):
    progress = begun()
    with progress.suspended():
        assert terminal.line == ""
    assert "1/4" in terminal.line
    time.sleep(0.2)
    progress.update(2)
    assert "3/4" in terminal.line
    progress.close()
    assert terminal.line == ""


def test_a_count_never_decreases_nor_exceeds_its_total(terminal):
    with begun() as progress:
        progress.update_to(0)
        with progress.suspended():
            pass
        assert "1/4" in terminal.line
        progress.update_to(9)
        with progress.suspended():
            pass
        assert "4/4" in terminal.line


def test_bars_of_two_scans_have_a_line_and_a_label_each(terminal):
    with begun(), begun():
        assert "\n" in terminal.written
        assert "Scanning NWB /units (2): " in terminal.written
        assert "(3)" not in terminal.written
    with begun():
        assert terminal.line.startswith("Scanning NWB /units: ")


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_a_scan_reports_all_of_its_files(cube, engine, monkeypatch):
    counts = []
    monkeypatch.setattr(Progress, "update_to", lambda _, done: counts.append(done))
    frame = lazynwb.scan_nwb(cube, "/units")
    counts.clear()
    frame.filter(pl.col("_table_index") >= 0).collect(engine=engine)
    assert counts[-1] == len(cube)
    assert counts == sorted(counts)


def test_files_that_a_filter_skips_are_counted(cube, monkeypatch):
    counts = []
    monkeypatch.setattr(Progress, "update_to", lambda _, done: counts.append(done))
    frame = lazynwb.scan_nwb(cube, "/units")
    counts.clear()
    frame.filter(pl.col("_nwb_path") == str(cube[-1])).collect()
    assert counts[-1] == len(cube)
