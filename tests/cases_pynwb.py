"""Test files written by pynwb."""
# ruff: noqa: PLR0915 - a file has many parts

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np

from builders import (
    pynwb_case,
)

if TYPE_CHECKING:
    from pathlib import Path


@pynwb_case
def session(path: Path) -> None:
    """Trials, units, electrodes, a plane segmentation, a subject and time series."""
    from hdmf.common import DynamicTable, DynamicTableRegion, VectorData, VectorIndex
    from pynwb import NWBHDF5IO, H5DataIO, NWBFile, TimeSeries
    from pynwb.base import Images
    from pynwb.behavior import Position, SpatialSeries
    from pynwb.ecephys import LFP, ElectricalSeries
    from pynwb.epoch import TimeIntervals
    from pynwb.file import Subject
    from pynwb.image import GrayscaleImage, ImageSeries
    from pynwb.misc import AnnotationSeries
    from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel, RoiResponseSeries

    rng = np.random.default_rng(0)
    start = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
    nwb = NWBFile(
        "a session", "id-1", start, session_id="s1", keywords=["production", "ünï"], experimenter=["A, B"]
    )
    nwb.subject = Subject(subject_id="m1", age="P90D", sex="F", species="Mus musculus", date_of_birth=start)

    stamped = TimeSeries("stamped", data=rng.normal(size=50), unit="V", timestamps=np.arange(50.0))
    nwb.add_acquisition(stamped)
    nwb.add_acquisition(TimeSeries("linked", data=rng.normal(size=50), unit="V", timestamps=stamped))
    nwb.add_acquisition(TimeSeries("linked_data", data=stamped, unit="V", starting_time=0.0, rate=2.0))
    nwb.add_acquisition(
        TimeSeries("rated", data=rng.integers(0, 9, (30, 4)), unit="V", starting_time=3.0, rate=30.0)
    )
    nwb.add_acquisition(
        TimeSeries(
            "zipped",
            data=H5DataIO(rng.normal(size=(300, 2)), compression="gzip", chunks=(64, 2)),
            unit="V",
            timestamps=H5DataIO(np.arange(300.0), compression="gzip"),
        )
    )
    nwb.add_acquisition(AnnotationSeries("notes", data=["a", "bé"], timestamps=[1.0, 2.0]))
    nwb.add_acquisition(
        ImageSeries(
            "video",
            external_file=["v.mp4"],
            format="external",
            starting_frame=[0],
            timestamps=[1.0, 2.0],
            unit="n.a.",
        )
    )
    nwb.add_stimulus(TimeSeries("stimulus", data=np.arange(5), unit="V", rate=1.0))

    device = nwb.create_device("probe")
    shanks = [nwb.create_electrode_group(f"shank{k}", "d", "CA1", device) for k in range(2)]
    nwb.add_electrode_column("label", "text")
    for k in range(8):
        nwb.add_electrode(location="CA1", group=shanks[k % 2], x=float(k), y=1.0, z=2.0, label=f"e{k}")
    region = nwb.create_electrode_table_region([1, 3], "two")
    lfp = ElectricalSeries("lfp", data=rng.normal(size=(20, 2)), electrodes=region, rate=100.0)
    nwb.create_processing_module("ecephys", "d").add(LFP(electrical_series=lfp))

    for name, about in (("go", "flag"), ("kind", "text"), ("count", "number")):
        nwb.add_trial_column(name, about)
    nwb.add_trial_column("licks", "ragged", index=True)
    nwb.add_trial_column("deep", "doubly ragged", index=2)
    for k in range(12):
        nwb.add_trial(
            start_time=float(k),
            stop_time=k + 0.5,
            go=bool(k % 2),
            kind=["a", "", "größer"][k % 3],
            count=k,
            licks=[k + 0.1] * (k % 4),
            deep=[[float(i)] * i for i in range(k % 3)],
            tags=["t"] * (1 + k % 2),
            timeseries=[stamped],
        )

    nwb.add_unit_column("quality", "text")
    for k in range(10):
        nwb.add_unit(
            spike_times=np.sort(rng.uniform(0, 100, k * 3)),
            obs_intervals=[[0.0, 10.0], [20.0, 30.0 + k]][: 1 + k % 2],
            quality="good" if k % 2 else "noise",
            electrodes=[k % 8, 0],
            electrode_group=shanks[k % 2],
            waveform_mean=rng.normal(size=(6, 2)),
            waveforms=rng.normal(size=(1 + k % 3, 2, 4)).tolist(),
        )

    epochs = TimeIntervals("custom intervals", description="d")
    epochs.add_row(start_time=0.0, stop_time=1.0)
    nwb.add_time_intervals(epochs)
    nwb.add_time_intervals(TimeIntervals("empty", description="no rows"))

    channel = OpticalChannel("channel", "d", 500.0)
    plane = nwb.create_imaging_plane(
        name="plane",
        optical_channel=channel,
        description="d",
        device=device,
        excitation_lambda=600.0,
        indicator="GFP",
        location="V1",
    )
    segmentation = ImageSegmentation()
    ophys = nwb.create_processing_module("ophys", "d")
    ophys.add(segmentation)
    pixels = segmentation.create_plane_segmentation(name="pixels", description="d", imaging_plane=plane)
    images = segmentation.create_plane_segmentation(name="images", description="d", imaging_plane=plane)
    for k in range(4):
        pixels.add_roi(pixel_mask=[(i, i + 1, 0.5) for i in range(k + 1)])
        images.add_roi(image_mask=rng.uniform(size=(5, 6)))
    rois = pixels.create_roi_table_region(region=[0, 2], description="d")
    ophys.add(
        Fluorescence(
            roi_response_series=RoiResponseSeries(
                "roi", data=rng.normal(size=(9, 2)), rois=rois, unit="F", rate=5.0
            )
        )
    )

    behavior = nwb.create_processing_module("behavior", "d")
    behavior.add(
        Position(
            SpatialSeries(
                "spatial", data=rng.normal(size=(7, 2)), reference_frame="r", timestamps=np.arange(7.0)
            )
        )
    )
    words = VectorData("words", "d", data=["a", "b", "c"])
    behavior.add(
        DynamicTable(
            "plain",
            "d",
            columns=[
                VectorData("number", "d", data=[1, 2, 4]),
                words,
                VectorIndex("words_index", [1, 1, 3], target=words),
            ],
        )
    )
    behavior.add(
        DynamicTable(
            "to_electrodes", "d", columns=[DynamicTableRegion("electrode", [5, 0], "d", table=nwb.electrodes)]
        )
    )
    nwb.add_scratch(np.arange(3), name="numbers", description="d")
    nwb.add_acquisition(Images("pictures", images=[GrayscaleImage("one", np.zeros((3, 3)))]))
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb)


@pynwb_case
def intracellular(path: Path) -> None:
    """The icephys tables: aligned categories and references to time series."""
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.icephys import VoltageClampSeries, VoltageClampStimulusSeries

    nwb = NWBFile("icephys", "id-2", dt.datetime(2024, 1, 2, tzinfo=dt.UTC))
    electrode = nwb.create_icephys_electrode(name="e", description="d", device=nwb.create_device("amp"))
    rows = []
    for k in range(3):
        stimulus = VoltageClampStimulusSeries(
            f"stim{k}", data=np.arange(4.0), starting_time=0.0, rate=10.0, electrode=electrode, gain=0.1
        )
        response = VoltageClampSeries(
            f"resp{k}", data=np.arange(6.0), starting_time=0.0, rate=10.0, electrode=electrode, gain=0.1
        )
        rows.append(
            nwb.add_intracellular_recording(electrode=electrode, stimulus=stimulus, response=response)
        )
    nwb.intracellular_recordings.add_column("tag", "d", data=["A", "B", "C"])
    nwb.intracellular_recordings.add_column("voltage", "d", category="electrodes", data=[0.1, 0.2, 0.3])
    simultaneous = nwb.add_icephys_simultaneous_recording(recordings=rows[:2])
    other = nwb.add_icephys_simultaneous_recording(recordings=rows[2:])
    sequence = nwb.add_icephys_sequential_recording(
        simultaneous_recordings=[simultaneous, other], stimulus_type="square"
    )
    repetition = nwb.add_icephys_repetition(sequential_recordings=[sequence])
    nwb.add_icephys_experimental_condition(repetitions=[repetition])
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb)


@pynwb_case
def icephys_hierarchy(path: Path) -> None:
    """All five icephys tables; recordings without a stimulus, and ragged columns in their categories."""
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.icephys import VoltageClampSeries, VoltageClampStimulusSeries

    nwb = NWBFile("icephys", "id-3", dt.datetime(2024, 1, 2, tzinfo=dt.UTC))
    amplifier = nwb.create_device("amp")
    electrodes = [
        nwb.create_icephys_electrode(name=f"e{k}", description="d", device=amplifier) for k in range(2)
    ]
    rows = []
    for k in range(7):
        about = {"rate": 10.0, "starting_time": float(k), "electrode": electrodes[k % 2], "gain": 0.1}
        stimulus = VoltageClampStimulusSeries(f"stim{k}", data=np.arange(9.0), **about)
        response = VoltageClampSeries(f"resp{k}", data=np.arange(9.0), **about)
        rows.append(
            nwb.add_intracellular_recording(
                electrode=electrodes[k % 2],
                stimulus=None if k == 3 else stimulus,
                stimulus_start_index=-1 if k == 3 else k,
                stimulus_index_count=-1 if k == 3 else 2,
                response=None if k == 5 else response,
            )
        )
    table = nwb.intracellular_recordings
    table.add_column("tag", "text", data=[f"ü{k}" for k in range(7)])
    table.add_column("voltage", "number", category="electrodes", data=np.linspace(0, 1, 7))
    ends = [0, 2, 2, 3, 6, 6, 7]
    table.add_column("peaks", "ragged", category="responses", data=np.arange(7.0), index=ends)
    words = ["a", "ß", "", "d", "e", "f", "g"]
    table.add_column("words", "ragged text", category="stimuli", data=words, index=ends)
    simultaneous = [nwb.add_icephys_simultaneous_recording(rows[a:b]) for a, b in ((0, 3), (3, 4), (4, 7))]
    sequential = [
        nwb.add_icephys_sequential_recording(simultaneous_recordings=part, stimulus_type=kind)
        for part, kind in ((simultaneous[1:], "square"), (simultaneous[:1], "ramp"))
    ]
    repetitions = [nwb.add_icephys_repetition(sequential_recordings=part) for part in (sequential, [])]
    nwb.add_icephys_experimental_condition(repetitions=repetitions)
    nwb.icephys_experimental_conditions.add_column("drug", "text", data=["none"])
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb)


@pynwb_case
def event_tables(path: Path) -> None:
    """Events with durations, meanings and enumerated columns, ragged ones too (NWB 2.10)."""
    from hdmf.common import MeaningsTable
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.event import EventsTable

    nwb = NWBFile("events", "id-4", dt.datetime(2024, 1, 2, tzinfo=dt.UTC))
    table = EventsTable(name="stimuli", description="what was shown")
    table.add_column("kind", "a code that has meanings")
    table.add_column("trial", "a number")
    for k in range(8):
        about = {"annotation": f"é{k}"}
        table.add_row(
            timestamp=k / 3,
            duration=float("nan") if k == 2 else 0.1,
            kind=["go", "nogo"][k % 2],
            trial=k,
            **about,
        )
    table.add_column(
        name="spout", description="enumerated", data=np.arange(8, dtype="u1") % 3, enum=["left", "ö", "right"]
    )
    table.add_column(
        name="tastes",
        description="ragged",
        data=[[0], [], [1, 0], [1], [], [2], [2, 2], [0]],
        enum=["a", "b", "c"],
        index=True,
    )
    nwb.add_events_table(table)
    meanings = MeaningsTable(target=table["kind"], description="of kinds")
    meanings.add_row(value="go", meaning="lick at once")
    meanings.add_row(value="nogo", meaning="hold still")
    meanings.add_row(value="other", meaning="never observed")
    table.add_meanings_table(meanings)
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb)


@pynwb_case
def plane_segmentations(path: Path) -> None:
    """Regions of interest as pixels, as voxels and as images, and a region that refers to some of them."""
    from hdmf.common import DynamicTable, DynamicTableRegion
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.ophys import ImageSegmentation, OpticalChannel

    rng = np.random.default_rng(0)
    nwb = NWBFile("planes", "id-5", dt.datetime(2024, 1, 2, tzinfo=dt.UTC))
    plane = nwb.create_imaging_plane(
        name="plane",
        optical_channel=OpticalChannel("channel", "d", 500.0),
        description="d",
        device=nwb.create_device("microscope"),
        excitation_lambda=600.0,
        indicator="GFP",
        location="V1",
    )
    segmentation = ImageSegmentation()
    ophys = nwb.create_processing_module("ophys", "d")
    ophys.add(segmentation)
    pixels, voxels, images = (
        segmentation.create_plane_segmentation(name=name, description="d", imaging_plane=plane)
        for name in ("pixels", "voxels", "images")
    )
    for k in range(5):
        pixels.add_roi(pixel_mask=[(i, i + k, 0.5 * i) for i in range(k + 1)])
        voxels.add_roi(voxel_mask=[(i, i + k, 7, 0.25 * i) for i in range(3 if k == 2 else 1)])
        images.add_roi(image_mask=rng.uniform(size=(4, 6)))
    pixels.add_column("label", "text", data=[f"cell {k}" for k in range(5)])
    chosen = DynamicTableRegion("roi", [4, 1, 1], "some", table=pixels)
    ophys.add(DynamicTable("chosen", "d", columns=[chosen]))
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb)
