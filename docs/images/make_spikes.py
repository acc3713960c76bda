"""Draw the raster and the PSTH of docs/spikes.md from a small session.

The session is made here and written by pynwb: 60 trials, and four units that
answer to a stimulus after 60 ms. It is read by the same calls as on the page.

    python docs/images/make_spikes.py
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from pynwb import NWBHDF5IO, NWBFile

import lazynwb

TRIALS = 60
PERIOD, STIMULUS, LATENCY = 5.0, 2.0, 0.06  # seconds
BEFORE, AFTER, BIN = 0.5, 1.0, 0.05
OURS = "#009485"


def rate(since_stimulus: np.ndarray, gain: float) -> np.ndarray:
    """Return spikes per second: a base, a transient, a weaker answer, a pause."""
    late = since_stimulus - LATENCY
    answer = np.where(
        late > 0, 45 * np.exp(-late / 0.08) + 10 * (late < STIMULUS / 4), 0.0
    )
    pause = (late > STIMULUS / 4) & (late < STIMULUS / 4 + 0.25)
    return np.where(pause, 2.0, 6.0 + gain * answer)


def write(path: Path) -> None:
    """Write the session."""
    made = np.random.default_rng(0)
    nwb = NWBFile(
        session_description="made up",
        identifier="psth",
        session_start_time=datetime(2024, 1, 1, tzinfo=UTC),
    )
    nwb.add_trial_column("stim_start_time", "when the stimulus came on")
    starts = np.arange(TRIALS) * PERIOD
    stimuli = starts + STIMULUS + made.uniform(-0.5, 0.5, TRIALS)
    for start, stimulus in zip(starts, stimuli, strict=True):
        nwb.add_trial(
            start_time=start, stop_time=start + PERIOD, stim_start_time=stimulus
        )
    # One chance of a spike in each millisecond.
    time = np.arange(0, TRIALS * PERIOD, 0.001)
    last = np.searchsorted(stimuli, time, side="right") - 1
    since = np.where(last < 0, -1.0, time - stimuli[last])
    for gain in (1.0, 0.8, 0.6, 0.4):
        nwb.add_unit(
            spike_times=time[
                made.uniform(size=len(time)) < rate(since, gain) * 0.001
            ]
        )
    with NWBHDF5IO(path, "w") as file:
        file.write(nwb)


def aligned(path: Path) -> pl.DataFrame:
    """Return the spikes of each unit and trial, in seconds from the stimulus."""
    return lazynwb.get_spike_times_in_intervals(
        lazynwb.scan_nwb(path, "/units"),
        {
            "spikes": (
                pl.col("stim_start_time") - BEFORE,
                pl.col("stim_start_time") + AFTER,
            )
        },
        align_to="stim_start_time",
    ).collect()


def draw(spikes: pl.DataFrame, folder: Path) -> None:
    """Draw both pictures."""
    mpl.rcParams.update(
        {
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.dpi": 120,
            "figure.figsize": (6.4, 2.9),
            "figure.constrained_layout.use": True,
            "font.size": 9,
        }
    )
    figure, axes = plt.subplots()
    axes.eventplot(
        spikes.filter(pl.col("_units_table_index") == 0)["spikes"].to_list(),
        colors="black",
        linewidths=0.8,
    )
    axes.axvline(0, color=OURS)
    axes.set(
        xlabel="time from stimulus (s)",
        ylabel="trial",
        xlim=(-BEFORE, AFTER),
        ylim=(-1, TRIALS),
    )
    figure.savefig(folder / "raster.png")

    bins = round((BEFORE + AFTER) / BIN)
    counts, edges = np.histogram(
        spikes["spikes"].list.explode().drop_nulls(), bins, (-BEFORE, AFTER)
    )
    figure, axes = plt.subplots()
    axes.stairs(
        counts / (len(spikes) * np.diff(edges)), edges, fill=True, color="#b5b5b5"
    )
    axes.axvline(0, color=OURS)
    axes.set(
        xlabel="time from stimulus (s)",
        ylabel="spikes per second",
        xlim=(-BEFORE, AFTER),
    )
    figure.savefig(folder / "psth.png")


if __name__ == "__main__":
    mpl.use("agg")
    with tempfile.TemporaryDirectory() as made_in:
        session = Path(made_in) / "session.nwb"
        write(session)
        draw(aligned(session), Path(__file__).parent)
