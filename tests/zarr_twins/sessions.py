"""Sessions that differ in what they hold, as pynwb makes them.

`SESSIONS` has them by name. None takes anything from the clock or from chance, so that a session is the same
whenever it is made.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
from hdmf.common import (
    AlignedDynamicTable,
    DynamicTable,
    DynamicTableRegion,
    EnumData,
    VectorData,
    VectorIndex,
)
from pynwb import H5DataIO, NWBFile, TimeSeries
from pynwb.base import ImageReferences, Images
from pynwb.behavior import (
    BehavioralEpochs,
    BehavioralEvents,
    BehavioralTimeSeries,
    CompassDirection,
    EyeTracking,
    Position,
    PupilTracking,
    SpatialSeries,
)
from pynwb.ecephys import LFP, ElectricalSeries, FilteredEphys, SpikeEventSeries
from pynwb.epoch import TimeIntervals
from pynwb.event import EventsTable
from pynwb.file import Subject
from pynwb.icephys import CurrentClampSeries, CurrentClampStimulusSeries, IZeroClampSeries
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries, OpticalSeries, RGBAImage, RGBImage
from pynwb.misc import AbstractFeatureSeries, AnnotationSeries, DecompositionSeries, IntervalSeries, Units
from pynwb.ogen import OptogeneticSeries
from pynwb.ophys import (
    DfOverF,
    Fluorescence,
    ImageSegmentation,
    OpticalChannel,
    RoiResponseSeries,
    TwoPhotonSeries,
)

if TYPE_CHECKING:
    from collections.abc import Callable

START = dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
SESSIONS: dict[str, Callable[[], NWBFile]] = {}


def session(function: Callable[[], NWBFile]) -> Callable[[], NWBFile]:
    SESSIONS[function.__name__] = function
    return function


def new(**about: Any) -> NWBFile:
    """A file without data."""
    return NWBFile("a session", "an identifier", START, file_create_date=START, **about)


def values(*shape: int, dtype: str = "f8") -> np.ndarray:
    """Different values; NaN among the floating ones."""
    array = (np.arange(int(np.prod(shape))) * 7 % 113).reshape(shape).astype(dtype)
    if array.dtype.kind == "f" and array.size > 3:
        array.flat[3] = np.nan
    return array


def times(count: int) -> np.ndarray:
    return np.arange(count) * 0.25 + 1


def add_electrodes(nwb: NWBFile, count: int) -> list[Any]:
    """Electrodes in two groups; gives the groups."""
    device = nwb.create_device("probe", description="a probe", manufacturer="Müller")
    groups = [nwb.create_electrode_group(f"shank{k}", f"shank {k}", "CA1", device) for k in range(2)]
    for k in range(count):
        nwb.add_electrode(location=["CA1", "VISp"][k % 2], group=groups[k % 2], x=float(k), y=1.0, z=-2.0)
    return groups


def add_plane(nwb: NWBFile) -> Any:
    return nwb.create_imaging_plane(
        name="plane",
        optical_channel=OpticalChannel("channel", "green", 500.0),
        description="a plane",
        device=nwb.create_device("microscope"),
        excitation_lambda=600.0,
        indicator="GCaMP6f",
        location="V1",
        imaging_rate=30.0,
        grid_spacing=[1.0, 2.0],
    )


# --- what is said about a session ---------------------------------------------------------------------


@session
def bare() -> NWBFile:
    """Nothing but what NWB requires."""
    return new()


@session
def described() -> NWBFile:
    """Each field of `/general` that text or a list of texts can be in."""
    return new(
        session_id="s-1",
        experimenter=["Doe, Jane", "Müller, Jörg", "山田, 花子"],
        keywords=["ecephys", "naïve", "🐭"],
        experiment_description="what was done",
        institution="Universität Zürich",
        lab="a lab",
        notes="one line\nanother line\ttab",
        pharmacology="none",
        protocol="17",
        related_publications=["doi:10.0000/1", "doi:10.0000/2"],
        slices="thin",
        source_script="made.py",
        source_script_file_name="made.py",
        data_collection="by hand",
        surgery="none",
        virus="AAV",
        stimulus_notes="",
        timestamps_reference_time=START - dt.timedelta(days=1),
    )


@session
def with_subject() -> NWBFile:
    """Each field of a subject, dates and times with and without fractions among them."""
    nwb = new(session_id="s-2")
    nwb.subject = Subject(
        subject_id="mouse-1",
        age="P90D",
        age__reference="birth",
        sex="F",
        species="Mus musculus",
        strain="C57BL/6J",
        genotype="wt/wt",
        weight="0.02 kg",
        description="ünïcode",
        date_of_birth=dt.datetime(2023, 10, 4, 1, 2, 3, 456789, tzinfo=dt.timezone(dt.timedelta(hours=-7))),
    )
    return nwb


@session
def with_scratch() -> NWBFile:
    """Arrays, text and a table below `/scratch`; results below `/analysis`."""
    nwb = new(session_id="s-3", keywords=["one"])
    nwb.add_scratch(values(2, 3), name="numbers", description="an array")
    nwb.add_scratch("some words", name="words", description="text")
    nwb.add_scratch(
        DynamicTable("notes", "a table", columns=[VectorData("note", "text", data=["a", "b"])]),
    )
    nwb.add_analysis(TimeSeries("result", data=values(4), unit="V", timestamps=times(4)))
    return nwb


# --- tables -------------------------------------------------------------------------------------------


@session
def trials() -> NWBFile:
    """A column of each scalar kind."""
    nwb = new()
    for name in ("rewarded", "kind", "count", "score", "label"):
        nwb.add_trial_column(name, name)
    for k in range(11):
        nwb.add_trial(
            start_time=float(k),
            stop_time=k + 0.5,
            rewarded=k % 3 == 0,
            kind=["vis", "", "größer", "日本"][k % 4],
            count=k - 5,
            score=float("nan") if k == 4 else k / 7,
            label="x" * (k * 3),
        )
    return nwb


@session
def ragged_trials() -> NWBFile:
    """Ragged numbers and text, doubly ragged numbers, tags, and rows with nothing in them."""
    nwb = new()
    nwb.add_trial_column("licks", "ragged", index=True)
    nwb.add_trial_column("words", "ragged text", index=True)
    nwb.add_trial_column("deep", "doubly ragged", index=2)
    for k in range(9):
        nwb.add_trial(
            start_time=float(k),
            stop_time=k + 0.5,
            tags=["go", "später"][: k % 3],
            licks=[k + 0.1 * i for i in range(k % 4)],
            words=["a", "ß", ""][: (k + 1) % 4],
            deep=[[i * 10 + j for j in range(i)] for i in range(k % 3)],
        )
    return nwb


@session
def trials_with_references() -> NWBFile:
    """References to parts of time series, from trials and from epochs."""
    nwb = new()
    series = [TimeSeries(f"s{k}", data=values(40), unit="V", timestamps=times(40)) for k in range(2)]
    for one in series:
        nwb.add_acquisition(one)
    for k in range(5):
        nwb.add_trial(start_time=k + 1.0, stop_time=k + 1.5, timeseries=series[: 1 + k % 2])
        nwb.add_epoch(start_time=k + 1.0, stop_time=k + 3.0, tags=["t"], timeseries=[series[k % 2]])
    return nwb


@session
def intervals() -> NWBFile:
    """Epochs, invalid times, and intervals under names of their own."""
    nwb = new()
    for k in range(3):
        nwb.add_epoch(start_time=float(k), stop_time=k + 1.0, tags=["a", "b"][: 1 + k % 2])
        nwb.add_invalid_time_interval(start_time=k + 0.25, stop_time=k + 0.5, tags=["noise"])
    own = TimeIntervals("drifting gratings", description="has a space in its name")
    own.add_column("orientation", "degrees")
    own.add_column("contrast", "of two gratings")
    for k in range(6):
        own.add_row(start_time=float(k), stop_time=k + 0.5, orientation=45 * k, contrast=[0.1 * k, 1.0])
    nwb.add_time_intervals(own)
    return nwb


@session
def one_row() -> NWBFile:
    """Tables of one row are tables; so are series of one sample."""
    nwb = new(session_id="s-4", keywords=["only"], experimenter=["Doe, Jane"])
    nwb.subject = Subject(subject_id="mouse-2", sex="M", species="Mus musculus", age="P1D")
    groups = add_electrodes(nwb, 1)
    nwb.add_trial_column("kind", "text")
    nwb.add_trial_column("rewarded", "flag")
    nwb.add_trial_column("licks", "ragged", index=True)
    nwb.add_trial(start_time=0.5, stop_time=1.0, kind="only", rewarded=True, licks=[0.75])
    nwb.add_unit(
        spike_times=[1.5], electrodes=[0], electrode_group=groups[0], waveform_mean=[[1.0], [2.0]], id=7
    )
    nwb.add_acquisition(TimeSeries("sample", data=[3.5], unit="V", timestamps=[1.0]))
    nwb.add_acquisition(TimeSeries("rated", data=[[1, 2]], unit="V", rate=10.0, starting_time=5.0))
    nwb.add_acquisition(AnnotationSeries("note", data=["only"], timestamps=[2.0]))
    return nwb


@session
def no_rows() -> NWBFile:
    """Tables that have columns and no rows, with and without ragged ones, and series without samples."""
    nwb = new()
    nwb.add_time_intervals(TimeIntervals("nothing", description="no rows"))
    nwb.create_processing_module("behavior", "tables").add(
        [
            DynamicTable(
                "empty",
                "no rows",
                columns=[
                    VectorData("number", "a number", data=np.zeros(0, "i4")),
                    VectorData("pair", "two numbers", data=np.zeros((0, 2))),
                ],
            ),
            DynamicTable("no_columns", "neither rows nor columns"),
        ]
    )
    nwb.add_acquisition(TimeSeries("silent", data=np.zeros(0, "f4"), unit="V", timestamps=np.zeros(0)))
    nwb.add_acquisition(TimeSeries("wide", data=np.zeros((0, 3), "i2"), unit="V", rate=2.0))
    return nwb


@session
def every_dtype() -> NWBFile:
    """A column of every number, with its extremes; floats that are no number; dates as text."""
    nwb = new()
    columns = []
    for name in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
        limits = np.iinfo(name)
        columns.append(VectorData(name, name, data=np.array([limits.min, 1, 0, limits.max], name)))
    for name in ("f4", "f8"):
        data = np.array([np.nan, np.inf, -np.inf, np.finfo(name).tiny], name)
        columns.append(VectorData(name, name, data=data))
    columns += [
        VectorData("flag", "bool", data=np.array([True, False, False, True])),
        VectorData("fixed", "text", data=["a", "bb", "ccc", ""]),
        VectorData("date", "ISO 8601", data=[START.isoformat()] * 4),
        VectorData("pair", "(rows, 2)", data=values(4, 2, dtype="f4")),
        VectorData("cube", "(rows, 2, 3)", data=values(4, 2, 3, dtype="i2")),
        VectorData("flags", "(rows, 2)", data=np.array([[True, False]] * 4)),
        VectorData("texts", "(rows, 2)", data=[["a", "ä"], ["", "b"], ["c", "d"], ["e", "f"]]),
    ]
    nwb.create_processing_module("types", "of columns").add(DynamicTable("all", "all types", columns=columns))
    return nwb


@session
def enumerated() -> NWBFile:
    """A column of codes and the texts that they stand for."""
    nwb = new()
    colors = VectorData("color_elements", "what the codes mean", data=["red", "grün", "blue"])
    column = EnumData("color", "a code", data=np.array([0, 2, 1, 1], "u1"), elements=colors)
    table = DynamicTable("colors", "enumerated", columns=[column, colors])
    nwb.create_processing_module("enums", "codes").add(table)
    return nwb


@session
def aligned() -> NWBFile:
    """A table whose categories are tables."""
    nwb = new()
    contrast = VectorData("contrast", "c", data=[0.1, 0.2, 0.3])
    first = DynamicTable("stimulus", "one category", columns=[contrast])
    second = DynamicTable(
        "response",
        "another",
        columns=[
            VectorData("word", "w", data=["left", "right", "größer"]),
            VectorData("lag", "l", data=np.arange(3, dtype="i4")),
        ],
    )
    main = VectorData("number", "of the main table", data=[1, 2, 3])
    table = AlignedDynamicTable("both", "aligned", category_tables=[first, second], columns=[main])
    nwb.create_processing_module("behavior", "d").add(table)
    return nwb


@session
def regions() -> NWBFile:
    """Row numbers of another table, one or several in each row."""
    nwb = new()
    add_electrodes(nwb, 5)
    single = DynamicTableRegion("electrode", [4, 0, 2], "one", table=nwb.electrodes)
    several = DynamicTableRegion("electrodes", [4, 0, 2, 1], "several", table=nwb.electrodes)
    index = VectorIndex("electrodes_index", [0, 3, 4], target=several)
    table = DynamicTable("rows", "regions", columns=[single, several, index])
    nwb.create_processing_module("ecephys", "d").add(table)
    return nwb


@session
def compressed_table() -> NWBFile:
    """Columns that HDF5 stores in compressed chunks."""
    nwb = new()
    columns = [
        VectorData(
            "number",
            "gzip",
            data=H5DataIO(np.arange(300, dtype="i4"), compression="gzip", chunks=(64,), shuffle=True),
        ),
        VectorData("matrix", "gzip", data=H5DataIO(values(300, 4), compression="gzip", chunks=(50, 3))),
        VectorData("plain", "chunks", data=H5DataIO(values(300, dtype="f4"), chunks=(7,))),
        VectorData("text", "chunks", data=H5DataIO([f"row {k}" for k in range(300)], chunks=(90,))),
    ]
    nwb.create_processing_module("stored", "in chunks").add(DynamicTable("table", "d", columns=columns))
    return nwb


# --- units and electrodes -----------------------------------------------------------------------------


@session
def electrodes() -> NWBFile:
    """Columns of NWB's own and of the user's; references to groups."""
    nwb = new()
    device = nwb.create_device("probe")
    group = nwb.create_electrode_group("shank", "d", "CA1", device, position=None)
    for name in ("label", "valid", "spread"):
        nwb.add_electrode_column(name, name)
    for k in range(6):
        nwb.add_electrode(
            location="CA1",
            group=group,
            x=k * 10.0,
            y=float("nan"),
            z=0.0,
            imp=1e6,
            filtering="300 Hz to 6 kHz, µ",
            rel_x=1.0,
            rel_y=2.0,
            label=f"e{k}",
            valid=bool(k % 2),
            spread=[0.5 * k, 1.0],
        )
    return nwb


@session
def units() -> NWBFile:
    """Spike times, intervals and electrodes of units, of which some have none."""
    nwb = new()
    groups = add_electrodes(nwb, 4)
    nwb.add_unit_column("quality", "text")
    nwb.add_unit_column("rank", "number")
    for k in range(8):
        nwb.add_unit(
            spike_times=times(k % 4 * 5),
            obs_intervals=[[0.0, 10.0], [20.0, 30.0 + k]][: 1 + k % 2],
            electrodes=list(range(k % 4)),
            electrode_group=groups[k % 2],
            quality=["good", "mua", ""][k % 3],
            rank=k,
        )
    return nwb


@session
def waveforms() -> NWBFile:
    """Mean waveforms, and those of each spike at each electrode, which are doubly ragged."""
    nwb = new()
    groups = add_electrodes(nwb, 4)
    for k in range(5):
        nwb.add_unit(
            spike_times=times(k),
            electrodes=[0, 1],
            electrode_group=groups[0],
            waveform_mean=values(6, 2) + k,
            waveform_sd=values(6, 2, dtype="f4"),
            waveforms=(values(1 + k, 2, 6) + k).tolist(),
        )
    return nwb


@session
def units_alone() -> NWBFile:
    """Units that nothing else in the file describes; times in chunks that HDF5 compresses."""
    nwb = new()
    ends = np.cumsum(np.arange(40) % 9)
    data = H5DataIO(np.arange(ends[-1]) * 0.5, compression="gzip", chunks=(32,))
    spikes = VectorData("spike_times", "the times of spikes", data=data)
    index = VectorIndex("spike_times_index", ends, target=spikes)
    depth = VectorData("depth", "in µm", data=values(40, dtype="f4"))
    ids = np.arange(100, 140)
    nwb.units = Units("units", description="alone", id=ids, columns=[index, spikes, depth])
    return nwb


@session
def lfp() -> NWBFile:
    """Electrical series with electrodes, gains and offsets; filtered ones; events."""
    nwb = new()
    add_electrodes(nwb, 4)
    two = nwb.create_electrode_table_region([1, 3], "two of four")
    every = nwb.create_electrode_table_region([0, 1, 2, 3], "all")
    raw = ElectricalSeries(
        "raw",
        data=values(30, 4, dtype="i2"),
        electrodes=every,
        rate=30_000.0,
        starting_time=1.5,
        conversion=1e-6,
        offset=0.5,
        channel_conversion=[1.0, 2.0, 3.0, 4.0],
        filtering="none",
    )
    nwb.add_acquisition(raw)
    nwb.add_acquisition(SpikeEventSeries("events", data=values(5, 2, 8), timestamps=times(5), electrodes=two))
    ecephys = nwb.create_processing_module("ecephys", "d")
    ecephys.add(LFP(electrical_series=ElectricalSeries("lfp", values(20, 2), two, timestamps=times(20))))
    ecephys.add(FilteredEphys(electrical_series=ElectricalSeries("theta", values(20, 2), two, rate=1250.0)))
    return nwb


@session
def bands() -> NWBFile:
    """A decomposition into frequency bands, which are a table inside a series."""
    nwb = new()
    series = DecompositionSeries("power", data=values(6, 2, 3), metric="power", unit="V", rate=10.0)
    for k in range(3):
        limits = (k * 4.0, k * 4.0 + 4)
        series.add_band(band_name=f"band {k}", band_limits=limits, band_mean=1.0, band_stdev=0.5)
    nwb.create_processing_module("ecephys", "d").add(series)
    return nwb


# --- series -------------------------------------------------------------------------------------------


@session
def stamped_series() -> NWBFile:
    """Samples of every type and of several dimensions, with timestamps."""
    nwb = new()
    for dtype in ("i1", "u2", "i4", "u8", "f4", "f8"):
        data = values(12, dtype=dtype)
        nwb.add_acquisition(TimeSeries(f"of_{dtype}", data=data, unit="V", timestamps=times(12)))
    flags = np.arange(12) % 3 == 0
    nwb.add_acquisition(TimeSeries("of_bool", data=flags, unit="n/a", timestamps=times(12)))
    nwb.add_acquisition(
        TimeSeries(
            "deep",
            data=values(12, 2, 3, dtype="f4"),
            unit="V",
            timestamps=times(12),
            control=np.arange(12, dtype="u1"),
            control_description=["a"] * 12,
            comments="größer",
        )
    )
    return nwb


@session
def rated_series() -> NWBFile:
    """Timestamps that follow from a rate."""
    nwb = new()
    nwb.add_acquisition(TimeSeries("flat", data=values(25), unit="V", rate=30.0))
    nwb.add_acquisition(TimeSeries("late", data=values(25, 3), unit="V", rate=1 / 3, starting_time=-5.5))
    nwb.add_stimulus(TimeSeries("shown", data=np.arange(5), unit="V", rate=1.0))
    nwb.add_stimulus_template(TimeSeries("template", data=np.arange(5), unit="V", rate=2.0))
    return nwb


@session
def linked_series() -> NWBFile:
    """Series that share their data or their timestamps through links."""
    nwb = new()
    first = TimeSeries("first", data=values(20), unit="V", timestamps=times(20))
    nwb.add_acquisition(first)
    nwb.add_acquisition(TimeSeries("same_times", data=values(20, 2), unit="V", timestamps=first))
    nwb.add_acquisition(TimeSeries("same_data", data=first, unit="V", rate=2.0))
    nwb.add_stimulus(TimeSeries("same_both", data=first, unit="V", timestamps=first))
    return nwb


@session
def compressed_series() -> NWBFile:
    """Series in compressed chunks, the last of which are not full."""
    nwb = new()
    data = H5DataIO(values(500, 3, dtype="f4"), compression="gzip", chunks=(64, 2), shuffle=True)
    stamps = H5DataIO(times(500), compression="gzip", chunks=(100,), fletcher32=True)
    nwb.add_acquisition(TimeSeries("zipped", data=data, unit="V", timestamps=stamps))
    data = H5DataIO(values(500, dtype="i2"), chunks=(128,), maxshape=(None,))
    nwb.add_acquisition(TimeSeries("growing", data=data, unit="V", rate=500.0))
    return nwb


@session
def annotations() -> NWBFile:
    """Series of text, of intervals and of features."""
    nwb = new()
    notes = ["a", "", "größer", "日本語", "🐭🐭", "two\nlines"]
    nwb.add_acquisition(AnnotationSeries("notes", data=notes, timestamps=times(6)))
    nwb.add_acquisition(IntervalSeries("lights", data=np.array([1, -1, 2, -2], "i1"), timestamps=times(4)))
    nwb.add_acquisition(
        AbstractFeatureSeries(
            "features",
            data=values(4, 2),
            timestamps=times(4),
            features=["size", "größe"],
            feature_units=["deg", "%"],
        )
    )
    return nwb


@session
def behavior() -> NWBFile:
    """Positions, directions, events, epochs and pupils, each within its container."""
    nwb = new()
    module = nwb.create_processing_module("behavior", "d")
    position = SpatialSeries("position", values(15, 2), reference_frame="the corner", timestamps=times(15))
    module.add(Position(spatial_series=position))
    direction = SpatialSeries("head", values(15), reference_frame="north", unit="rad", rate=5.0)
    module.add(CompassDirection(spatial_series=direction))
    gaze = SpatialSeries("gaze", values(15, 2), reference_frame="the screen", timestamps=times(15))
    module.add(EyeTracking(spatial_series=gaze))
    licks = TimeSeries("licks", data=values(9), unit="V", timestamps=times(9))
    module.add(BehavioralEvents(time_series=licks))
    speed = TimeSeries("speed", data=values(9, dtype="f4"), unit="m/s", rate=60.0)
    module.add(BehavioralTimeSeries(time_series=[speed]))
    module.add(PupilTracking(time_series=TimeSeries("pupil", data=values(9), unit="mm", rate=60.0)))
    running = IntervalSeries("running", data=np.array([1, -1], "i1"), timestamps=times(2))
    module.add(BehavioralEpochs(interval_series=running))
    return nwb


@session
def events() -> NWBFile:
    """What happened when, for how long, and what kind of event it was."""
    nwb = new()
    table = EventsTable(name="licks", description="licks at two spouts")
    table.add_column("spout", "which one")
    for k in range(5):
        table.add_row(timestamp=k + 0.25, duration=0.1 * k, spout=["left", "right"][k % 2])
    nwb.add_events_table(table)
    return nwb


# --- images -------------------------------------------------------------------------------------------


@session
def image_series() -> NWBFile:
    """Frames within the file and in files of their own; what was shown when."""
    nwb = new()
    nwb.add_acquisition(
        ImageSeries(
            "external",
            external_file=["a.mp4", "b.mp4"],
            format="external",
            starting_frame=[0, 2],
            timestamps=times(4),
            unit="n.a.",
        )
    )
    nwb.add_acquisition(ImageSeries("frames", data=values(5, 4, 3, dtype="u1"), unit="n.a.", rate=30.0))
    shown = OpticalSeries(
        "shown",
        distance=0.5,
        field_of_view=[1.0, 2.0],
        orientation="left",
        data=values(3, 4, 5, 3, dtype="u1"),
        unit="n.a.",
        timestamps=times(3),
    )
    nwb.add_stimulus(shown)
    return nwb


@session
def images() -> NWBFile:
    """Still images in gray and in colors, their order, and a series of their numbers."""
    nwb = new()
    stills = [
        GrayscaleImage("gray", values(4, 5), resolution=70.0, description="gray"),
        RGBImage("rgb", values(4, 5, 3, dtype="u1")),
        RGBAImage("rgba", values(4, 5, 4, dtype="u1")),
    ]
    order = ImageReferences("order_of_images", [stills[2], stills[0], stills[1]])
    collection = Images("pictures", images=stills, order_of_images=order)
    nwb.add_stimulus_template(collection)
    nwb.add_stimulus(
        IndexSeries(
            "presented",
            data=np.array([0, 2, 1, 0], "u4"),
            unit="N/A",
            indexed_images=collection,
            timestamps=times(4),
        )
    )
    return nwb


@session
def ophys() -> NWBFile:
    """Imaging, segmentations in pixels, voxels and images, and the responses of regions."""
    nwb = new()
    plane = add_plane(nwb)
    nwb.add_acquisition(
        TwoPhotonSeries(
            "imaging", data=values(6, 4, 5, dtype="u2"), imaging_plane=plane, unit="n.a.", rate=30.0
        )
    )
    module = nwb.create_processing_module("ophys", "d")
    segmentation = ImageSegmentation()
    module.add(segmentation)
    pixels = segmentation.create_plane_segmentation(name="pixels", description="d", imaging_plane=plane)
    voxels = segmentation.create_plane_segmentation(name="voxels", description="d", imaging_plane=plane)
    masks = segmentation.create_plane_segmentation(name="masks", description="d", imaging_plane=plane)
    masks.add_column("accepted", "flag")
    for k in range(4):
        pixels.add_roi(pixel_mask=[(i, i + 1, 0.5 + k) for i in range(k + 1)])
        voxels.add_roi(voxel_mask=[(i, i + 1, i + 2, 0.25 * k) for i in range(2 * k + 1)])
        masks.add_roi(image_mask=values(4, 5) + k, accepted=k % 2 == 0)
    rois = pixels.create_roi_table_region(region=[0, 2], description="d")
    module.add(Fluorescence(roi_response_series=RoiResponseSeries("f", values(9, 2), "a.u.", rois, rate=5.0)))
    rois = pixels.create_roi_table_region(region=[1, 3], description="d")
    series = RoiResponseSeries("dff", values(9, 2), "a.u.", rois, timestamps=times(9))
    module.add(DfOverF(roi_response_series=series))
    return nwb


# --- what else there is -------------------------------------------------------------------------------


@session
def optogenetics() -> NWBFile:
    """A series that links to the site of its stimulus."""
    nwb = new()
    site = nwb.create_ogen_site(
        name="site",
        device=nwb.create_device("laser"),
        description="d",
        excitation_lambda=473.0,
        location="V1",
    )
    nwb.add_stimulus(OptogeneticSeries("light", data=values(10), site=site, rate=100.0))
    return nwb


@session
def current_clamp() -> NWBFile:
    """Intracellular series with scalars of their own, and the table of recordings."""
    nwb = new()
    electrode = nwb.create_icephys_electrode(name="e", description="d", device=nwb.create_device("amplifier"))
    stimulus = CurrentClampStimulusSeries(
        "stimulus", data=values(8), electrode=electrode, gain=0.02, rate=1e4, sweep_number=1
    )
    response = CurrentClampSeries(
        "response",
        data=values(8),
        electrode=electrode,
        gain=0.02,
        rate=1e4,
        bias_current=1e-12,
        bridge_balance=70e6,
        capacitance_compensation=1e-12,
        sweep_number=1,
    )
    nwb.add_intracellular_recording(electrode=electrode, stimulus=stimulus, response=response, id=10)
    silent = IZeroClampSeries("silent", data=values(8), electrode=electrode, gain=0.1, rate=1e4)
    nwb.add_intracellular_recording(electrode=electrode, response=silent, id=11)
    return nwb


@session
def modules() -> NWBFile:
    """Several modules, one of them empty; tables beside series; awkward names."""
    nwb = new()
    nwb.create_processing_module("empty", "nothing in it")
    one = nwb.create_processing_module("größe 1", "a name that is not ASCII, with a space")
    one.add(TimeSeries("série", data=values(4), unit="V", rate=1.0))
    column = VectorData("column name", "d", data=[1.5, 2.5])
    one.add(DynamicTable("table 1", "d", columns=[column]))
    two = nwb.create_processing_module("second", "d")
    two.add(TimeSeries("série", data=values(4), unit="V", timestamps=times(4)))
    return nwb
