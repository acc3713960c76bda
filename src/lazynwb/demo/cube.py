"""Synthetic NWB sessions, written with h5py; equal arguments give equal files."""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

SESSION_SECONDS = 3600.0
BLOCKS = 6

# One in this many sessions has no performance table, like recordings without a task.
_SESSIONS_PER_MISSING_TABLE = 10

# Areas of every session, and areas of one in this many sessions.
_COMMON_AREAS = ("VISp", "MOs", "SCm", "LP")
_RARER_AREAS = {"CA3": 4, "CA1": 8}

_STIMULI = ("vis1", "vis2", "sound1", "sound2", "catch")

_TRIAL_TIMES = (
    "quiescent_start_time",
    "quiescent_stop_time",
    "stim_start_time",
    "stim_stop_time",
    "response_window_start_time",
    "response_window_stop_time",
    "response_time",
    "reward_time",
    "timeout_start_time",
    "timeout_stop_time",
    "post_response_window_start_time",
    "post_response_window_stop_time",
)
_TRIAL_NUMBERS = (
    "grating_contrast",
    "grating_orientation",
    "grating_phase",
    "opto_power",
    "opto_stim_duration",
    "pupil_area",
    "reward_volume",
    "running_speed_mean",
    "sound_level",
    "sound_frequency",
)
_TRIAL_COUNTS = ("block_index", "n_licks", "repeat_index", "trial_index", "trial_index_in_block")
_TRIAL_FLAGS = (
    "is_aud_rewarded",
    "is_aud_stim",
    "is_catch",
    "is_contingent_reward",
    "is_correct",
    "is_false_alarm",
    "is_go",
    "is_hit",
    "is_instruction",
    "is_miss",
    "is_noncontingent_reward",
    "is_opto",
    "is_response",
    "is_vis_stim",
)
_UNIT_METRICS = (
    "amplitude",
    "amplitude_cv_median",
    "amplitude_cv_range",
    "amplitude_median",
    "ccf_ap",
    "ccf_dv",
    "ccf_ml",
    "d_prime",
    "drift_mad",
    "drift_ptp",
    "drift_std",
    "exp_decay",
    "firing_rate",
    "half_width",
    "isi_violations_count",
    "isolation_distance",
    "l_ratio",
    "nn_hit_rate",
    "nn_miss_rate",
    "peak_to_valley",
    "peak_trough_ratio",
    "recovery_slope",
    "repolarization_slope",
    "rp_contamination",
    "rp_violations",
    "silhouette",
    "sliding_rp_violation",
    "snr",
    "spread",
    "velocity_above",
    "velocity_below",
)


def write_cube(  # noqa: PLR0913 - the sizes of the sessions
    folder: str | os.PathLike[str],
    sessions: int = 10,
    units: int = 60,
    seed: int = 0,
    compression: Literal["gzip", "lzf"] | None = "gzip",
    *,
    trials: int = 500,
    spikes: tuple[int, int] = (500, 10_000),
    waveform_shape: tuple[int, int] = (82, 48),
) -> list[Path]:
    """Write a cube of sessions, one NWB 2.8 file each.

    A session has `/intervals/trials` (45 columns), `/intervals/performance` (every tenth session
    lacks it), `/units` (44 columns, ragged spike times and 3-D waveforms among them), running speed,
    licks, and the metadata of session and subject. Unit locations vary by session: CA1 is in every
    eighth, CA3 in every fourth, VISp in all.

    Parameters
    ----------
    folder : path-like
        Output folder, which is created if it does not exist.
    sessions : int
        Number of files.
    units : int
        Rows of each `/units` table.
    seed : int
        Seed of all random values.
    compression : {"gzip", "lzf"} or None
        Compression of numeric datasets, after byte shuffling; None stores them uncompressed. Table
        columns are chunked and extensible in either case, as PyNWB writes them.
    trials : int
        Rows of each `/intervals/trials` table.
    spikes : tuple of int
        Minimum number of spikes of a unit, and the exclusive maximum.
    waveform_shape : tuple of int
        Samples and channels of a unit's mean waveform.

    Returns
    -------
    list of Path
        The files, sorted by name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(sessions):
        rng = np.random.default_rng([seed, number])
        start = dt.datetime(2024, 1, 1, 9, tzinfo=dt.UTC) + dt.timedelta(days=number)
        subject_id = f"{700_000 + number // 3}"
        session_id = f"{subject_id}_{start:%Y-%m-%d}"
        path = folder / f"{session_id}.nwb"
        with h5py.File(path, "w") as file:
            writer = _Writer(file, rng, compression)
            writer.session(session_id, start, "production" if number % 3 else "test")
            writer.subject(subject_id, start - dt.timedelta(days=120))
            if number % _SESSIONS_PER_MISSING_TABLE != _SESSIONS_PER_MISSING_TABLE - 1:
                writer.table("intervals/performance", "TimeIntervals", *_performance(rng, number))
            writer.table("intervals/trials", "TimeIntervals", *_trials(rng, trials))
            targets = [area for area, every in _RARER_AREAS.items() if number % every == 1]
            areas = [*_COMMON_AREAS, *targets, *targets]  # target areas twice: most units are in them
            counts = rng.integers(*spikes, units)
            writer.table("units", "Units", *_units(rng, session_id, areas, counts, waveform_shape))
            samples = np.arange(0.0, SESSION_SECONDS, 1 / 60)
            speed = rng.normal(10, 5, samples.size)
            writer.series("processing/behavior/running_speed", speed, samples, "cm/s")
            licks = np.sort(rng.uniform(0, SESSION_SECONDS, 2_734))
            writer.series("acquisition/lick_sensor_events", np.ones(licks.size), licks, "a.u.")
        paths.append(path)
    return sorted(paths)


class _Writer:
    """A writer of NWB objects, with the attributes that their types require."""

    def __init__(self, file: h5py.File, rng: np.random.Generator, compression: str | None) -> None:
        self._file = file
        self._rng = rng
        self._filters = {"compression": compression, "shuffle": True} if compression else {}
        self._text = h5py.string_dtype()

    def session(self, session_id: str, start: dt.datetime, kind: str) -> None:
        """Write the root, the groups that every file has, and the session's own metadata."""
        file = self._file
        self._identify(file, "NWBFile", nwb_version="2.8.0")
        for group in ("acquisition", "analysis", "stimulus/presentation", "stimulus/templates"):
            file.create_group(group)
        self._identify(file.create_group("processing/behavior"), "ProcessingModule", description="behavior")
        for name, text in {
            "identifier": session_id,
            "session_description": "synthetic session",
            "session_start_time": start.isoformat(),
            "timestamps_reference_time": start.isoformat(),
            "general/session_id": session_id,
            "general/institution": "nowhere in particular",
        }.items():
            file.create_dataset(name, data=text, dtype=self._text)
        for name, texts in {
            "file_create_date": [start.isoformat()],
            "general/experimenter": ["Doe, Jane", "Roe, Richard"],
            "general/keywords": [kind, "behavior", "ecephys"],
        }.items():
            file.create_dataset(name, data=texts, dtype=self._text)

    def subject(self, subject_id: str, born: dt.datetime) -> None:
        """Write `/general/subject`."""
        group = self._file.create_group("general/subject")
        self._identify(group, "Subject")
        for name, text in {
            "age": "P120D",
            "date_of_birth": born.isoformat(),
            "genotype": "wt/wt",
            "sex": str(self._rng.choice(["F", "M"])),
            "species": "Mus musculus",
            "strain": "C57BL/6J",
            "subject_id": subject_id,
        }.items():
            group.create_dataset(name, data=text, dtype=self._text)
        group["age"].attrs["reference"] = "birth"

    def table(
        self,
        path: str,
        neurodata_type: str,
        columns: Mapping[str, NDArray[Any] | Sequence[str]],
        ends: Mapping[str, NDArray[np.int64]],
    ) -> None:
        """Write a DynamicTable; `ends` holds the cumulative ends of its ragged columns."""
        group = self._file.create_group(path)
        names = np.array(list(columns), dtype=self._text)
        self._identify(group, neurodata_type, colnames=names, description=f"synthetic {group.name}")
        rows = len(next(c for name, c in columns.items() if name not in ends))
        self._member(group, "id", np.arange(rows), "ElementIdentifiers")
        for name, values in columns.items():
            self._member(group, name, values, "VectorData", description=name.replace("_", " "))
        for name, column_ends in ends.items():
            # The smallest type that fits the last end, as in HDMF.
            index = column_ends.astype(np.min_scalar_type(int(column_ends[-1])))
            description = f"Index for VectorData '{name}'"
            target = group[name].ref
            self._member(group, f"{name}_index", index, "VectorIndex", description=description, target=target)
        if "waveform_mean" in group:
            group["waveform_mean"].attrs.update({"sampling_rate": 30_000.0, "unit": "volts"})

    def series(self, path: str, data: NDArray[Any], timestamps: NDArray[Any], unit: str) -> None:
        """Write a TimeSeries with explicit timestamps (seconds)."""
        group = self._file.create_group(path)
        self._identify(group, "TimeSeries", description="synthetic", comments="no comments")
        values = group.create_dataset("data", data=data, **self._filters)
        values.attrs.update({"conversion": 1.0, "offset": 0.0, "resolution": -1.0, "unit": unit})
        times = group.create_dataset("timestamps", data=timestamps, **self._filters)
        times.attrs.update({"interval": np.int32(1), "unit": "seconds"})

    def _member(
        self,
        group: h5py.Group,
        name: str,
        values: NDArray[Any] | Sequence[str],
        neurodata_type: str,
        **attributes: object,
    ) -> None:
        shape = np.shape(values)
        growing = {"chunks": True, "maxshape": (None, *shape[1:])}
        if isinstance(values, np.ndarray):
            dataset = group.create_dataset(name, data=values, **growing, **self._filters)
        else:
            dataset = group.create_dataset(name, data=values, dtype=self._text, **growing)
        self._identify(dataset, neurodata_type, "hdmf-common", **attributes)

    def _identify(
        self, item: h5py.HLObject, neurodata_type: str, namespace: str = "core", **attributes: object
    ) -> None:
        # From the session's generator, so that two runs write the same identifiers.
        object_id = str(uuid.UUID(bytes=self._rng.bytes(16), version=4))
        item.attrs.update(
            {"neurodata_type": neurodata_type, "namespace": namespace, "object_id": object_id, **attributes}
        )


_Table = tuple[dict[str, "NDArray[Any] | list[str]"], dict[str, "NDArray[np.int64]"]]


def _performance(rng: np.random.Generator, number: int) -> _Table:
    """Return one row per block; performance depends on the session."""
    starts = np.arange(BLOCKS) * SESSION_SECONDS / BLOCKS
    columns: dict[str, NDArray[Any] | list[str]] = {
        "start_time": starts,
        "stop_time": starts + SESSION_SECONDS / BLOCKS,
        "block_index": np.arange(BLOCKS),
        "rewarded_modality": [("vis", "aud")[(number + block) % 2] for block in range(BLOCKS)],
        "is_first_block_aud": np.full(BLOCKS, number % 2 == 1),
    }
    level = rng.normal(2.2, 0.8)
    for name in ("cross_modality_dprime", "signed_cross_modality_dprime", "aud_dprime", "vis_dprime"):
        # d' is NaN in a block without responses to one modality.
        columns[name] = np.where(rng.random(BLOCKS) < 1 / BLOCKS, np.nan, rng.normal(level, 0.5, BLOCKS))
    for name in ("hit_rate", "false_alarm_rate", "catch_response_rate"):
        columns[name] = rng.random(BLOCKS)
    for modality in ("aud", "vis"):
        for role in ("target", "nontarget"):
            columns[f"{modality}_{role}_response_rate"] = rng.random(BLOCKS)
    for name in ("n_trials", "n_responses", "n_hits", "n_contingent_rewards"):
        columns[name] = rng.integers(10, 100, BLOCKS)
    return columns, {}


def _trials(rng: np.random.Generator, rows: int) -> _Table:
    starts = np.linspace(0, SESSION_SECONDS, rows, endpoint=False)
    columns: dict[str, NDArray[Any] | list[str]] = {"start_time": starts, "stop_time": starts + 6.0}
    for name in _TRIAL_TIMES:
        columns[name] = starts + rng.uniform(0, 5, rows)
    for name in _TRIAL_NUMBERS:
        columns[name] = rng.normal(size=rows)
    for name in _TRIAL_COUNTS:
        columns[name] = rng.integers(0, 20, rows)
    for name in _TRIAL_FLAGS:
        columns[name] = rng.random(rows) < 1 / 2
    columns["stim_name"] = rng.choice(_STIMULI, rows).tolist()
    columns["rewarded_modality"] = rng.choice(["vis", "aud"], rows).tolist()
    return columns, {}


def _units(
    rng: np.random.Generator,
    session_id: str,
    areas: Sequence[str],
    spike_counts: NDArray[np.int64],
    waveform_shape: tuple[int, int],
) -> _Table:
    rows = len(spike_counts)
    columns: dict[str, NDArray[Any] | list[str]] = {
        "unit_id": [f"{session_id}_{'ABCDEF'[row % 6]}-{row}" for row in range(rows)],
        "location": rng.choice(list(areas), rows).tolist(),
        "decoder_label": rng.choice(["sua", "mua", "noise"], rows, p=[0.5, 0.3, 0.2]).tolist(),
        "activity_drift": rng.exponential(0.015, rows),
        "amplitude_cutoff": rng.exponential(0.08, rows),
        "presence_ratio": rng.beta(5, 1, rows),
        "isi_violations_ratio": rng.exponential(0.5, rows),
        "default_qc": rng.random(rows) < 0.7,
        "peak_channel": rng.integers(0, 384, rows),
        "electrode_group_name": [f"probe{'ABCDEF'[row % 6]}" for row in range(rows)],
        "spike_times": np.concatenate([np.sort(rng.uniform(0, SESSION_SECONDS, n)) for n in spike_counts]),
        "obs_intervals": np.tile([0.0, SESSION_SECONDS], (rows, 1)),
        # Recorded in single precision, stored in double.
        "waveform_mean": rng.normal(size=(rows, *waveform_shape)).astype(np.float32).astype(np.float64),
    }
    for name in _UNIT_METRICS:
        columns[name] = rng.normal(size=rows)
    return columns, {"spike_times": np.cumsum(spike_counts), "obs_intervals": np.arange(1, rows + 1)}
