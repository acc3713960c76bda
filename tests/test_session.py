"""`LazyNWB`: one session as an object with the attribute names of PyNWB's NWBFile."""

import copy
import datetime as dt
import inspect
import logging
import pickle

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import nwb_root, series, table
from checks import run_child
from lazynwb.session.contents import Container
from range_server import RangeServer

TABLES = ("units", "trials", "epochs", "invalid_times", "electrodes")
FIELDS = (
    "identifier", "session_id", "session_description", "session_start_time", "timestamps_reference_time",
    "experiment_description", "lab", "institution", "notes", "data_collection", "surgery", "pharmacology",
    "virus", "protocol", "slices", "stimulus_notes", "source_script", "source_script_file_name",
)  # fmt: skip
LISTS = ("experimenter", "keywords", "related_publications", "file_create_date")
GROUPS = ("acquisition", "analysis", "processing", "stimulus", "scratch", "devices", "electrode_groups")


@pytest.fixture
def session(built):
    return lazynwb.LazyNWB(built("session"))


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "a.nwb"
    with h5py.File(made, "w") as file:
        nwb_root(file, "20240102")
        table(file, "units", {"a": [1, 2]}, kind="Units")
        module = file.create_group("processing/behavior")
        module.attrs.update({"neurodata_type": "ProcessingModule", "description": "of behavior"})
        series(module, "running speed", np.arange(6.0).reshape(3, 2), np.arange(3.0))
        file["acquisition/link"] = h5py.SoftLink("/processing/behavior")
        file["acquisition/broken"] = h5py.SoftLink("/nowhere")
        image = file.create_dataset("acquisition/images/one", data=np.arange(12).reshape(3, 4))
        image.attrs["neurodata_type"] = "GrayscaleImage"
        file["general/lab_thing/value"] = 3.5
        file["general/lab_thing/name"] = "thing"
        file["general/lab_thing/flag"] = True
        file["general/lab_thing/words"] = np.array(["a", "bé"], object)
        file["general/lab_thing/where"] = np.array([image.ref, h5py.Reference()], h5py.ref_dtype)
        file.create_dataset("general/lab_thing/nothing", data=h5py.Empty("f8"))
        file["general/custom"] = 7
        file["general/subject/implants/count"] = 2
        file.create_group("my_extension")["x"] = 1
    return made


# --- against pynwb ------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("name", ["session", "described", "with_subject", "bare", "modules", "lfp", "ophys"])
def test_metadata_and_groups_equal_pynwb(name, twins):
    pynwb = pytest.importorskip("pynwb")
    path = twins / f"{name}.nwb"
    ours = lazynwb.LazyNWB(path)
    with pynwb.NWBHDF5IO(path, "r") as io:
        theirs = io.read()
        for field in FIELDS:
            assert getattr(ours, field) == getattr(theirs, field), field
        for field in LISTS:
            value = getattr(theirs, field)
            assert getattr(ours, field) == (None if value is None else list(value)), field
        for field in GROUPS:
            assert set(getattr(ours, field)) == set(getattr(theirs, field)), field
        assert set(ours.imaging_planes) == set(theirs.imaging_planes)
        assert (ours.subject is None) == (theirs.subject is None)
        if theirs.subject is not None:
            for field in theirs.subject.fields:
                assert getattr(ours.subject, field) == getattr(theirs.subject, field), field
        for field in TABLES:
            found, expected = getattr(ours, field), getattr(theirs, field)
            assert (found is None) == (expected is None), field
            if expected is not None:
                assert found["id"].tolist() == expected.id[:].tolist()
        for module in theirs.processing.values():
            interfaces = ours.processing[module.name]
            assert set(interfaces) == set(module.data_interfaces)
            assert interfaces.description == module.description


def test_series_are_reached_as_in_pynwb(twins):
    pynwb = pytest.importorskip("pynwb")
    path = twins / "session.nwb"
    ours = lazynwb.LazyNWB(path)
    with pynwb.NWBHDF5IO(path, "r") as io:
        theirs = io.read()
        for name in ("stamped", "rated", "zipped", "linked", "linked_data"):
            found = ours.acquisition[name]
            assert isinstance(found, lazynwb.TimeSeries)
            np.testing.assert_array_equal(found.data[:], theirs.acquisition[name].data[:])
        lfp = theirs.processing["ecephys"]["LFP"]["lfp"]
        np.testing.assert_array_equal(ours.processing.ecephys.LFP.lfp.data[:], lfp.data[:])
        np.testing.assert_array_equal(ours.processing["ecephys"]["LFP/lfp"].data[:], lfp.data[:])
        np.testing.assert_array_equal(
            ours.acquisition.pictures.one[:], theirs.acquisition["pictures"]["one"].data[:]
        )
        np.testing.assert_array_equal(ours.scratch.numbers[:], theirs.scratch["numbers"].data[:])
        plane = theirs.imaging_planes["plane"]
        assert ours.imaging_planes.plane.indicator == plane.indicator
        assert ours.imaging_planes.plane.excitation_lambda == plane.excitation_lambda
        group = theirs.electrode_groups["shank1"]
        assert ours.electrode_groups.shank1.location == group.location
        assert list(ours.intervals) == sorted(theirs.intervals)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_zarr_stores_equal_their_hdf5_twins(version, twins):
    one = lazynwb.LazyNWB(twins / "session.nwb")
    other = lazynwb.LazyNWB(twins / f"session.{version}.nwb.zarr")
    assert one.describe() == other.describe()
    for field in (*FIELDS, *LISTS):
        assert getattr(one, field) == getattr(other, field)
    assert set(one.processing.ecephys.LFP) == set(other.processing.ecephys.LFP)
    np.testing.assert_array_equal(one.acquisition.pictures.one[:], other.acquisition.pictures.one[:])
    assert one.units.drop(columns="_nwb_path").equals(other.units.drop(columns="_nwb_path"))
    assert other.imaging_planes.plane.excitation_lambda == one.imaging_planes.plane.excitation_lambda
    assert repr(one).splitlines()[1:] == repr(other).splitlines()[1:]


# --- values -------------------------------------------------------------------------------------------


def test_values_keep_the_types_of_the_file(path):
    session = lazynwb.LazyNWB(path)
    assert session.session_id == "20240102"
    assert session.custom == 7
    thing = session.lab_meta_data.lab_thing
    assert (thing.value, thing.name, thing.nothing) == (3.5, "thing", None)
    assert thing.flag is True
    assert thing.words[:].tolist() == ["a", "bé"]
    assert thing.where[:].tolist() == ["/acquisition/images/one", None]


def test_only_the_times_of_the_schema_are_datetimes_with_the_offset_of_the_file(path):
    with h5py.File(path, "a") as file:
        del file["session_start_time"]
        file["session_start_time"] = "2024-01-02T03:04:05-08:00"
        file["general/surgery"] = "2024-01-02T03:04:05-08:00"
        file["general/subject/date_of_birth"] = "2023-01-02"
    session = lazynwb.LazyNWB(path)
    offset = dt.timezone(dt.timedelta(hours=-8))
    assert session.session_start_time == dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=offset)
    assert session.session_start_time.utcoffset() == dt.timedelta(hours=-8)
    assert session.surgery == "2024-01-02T03:04:05-08:00"
    assert session.subject.date_of_birth == dt.datetime(2023, 1, 2)  # noqa: DTZ001 - the file gives no offset
    assert session.file_create_date == [dt.datetime(2024, 2, 1, tzinfo=dt.UTC)]


def test_an_invalid_time_is_none_with_a_warning(path, caplog):
    with h5py.File(path, "a") as file:
        del file["session_start_time"]
        file["session_start_time"] = "some day"
    with caplog.at_level(logging.WARNING):
        assert lazynwb.LazyNWB(path).session_start_time is None
    assert "a.nwb: session_start_time is not a time" in caplog.text


def test_missing_objects_of_the_schema_are_none_or_empty(path):
    session = lazynwb.LazyNWB(path)
    assert session.lab is session.pharmacology is session.trials is session.electrodes is None
    assert session.subject.weight is session.subject.strain is None
    assert len(session.stimulus) == len(session.events) == len(session.devices) == 0
    with h5py.File(path, "a") as file:
        del file["general/subject"]
    assert session.subject is None


def test_the_subject_has_its_fields_and_other_members(path):
    subject = lazynwb.LazyNWB(path).subject
    assert (subject.subject_id, subject["sex"]) == ("mouse-20240102", "F")
    assert subject.implants.count == 2
    assert {"subject_id", "age", "implants"} <= set(dir(subject))
    assert set(subject) == {"subject_id", "sex", "species", "implants"}


def test_tables_are_frames_and_in_groups_lazy_ones(session):
    pandas = pytest.importorskip("pandas")
    assert isinstance(session.units, pandas.DataFrame)
    assert "spike_times" not in session.units
    assert isinstance(session.intervals.trials, pl.LazyFrame)
    lazynwb.config.use_polars = True
    assert session.trials.equals(lazynwb.get_df(session.path, "trials", as_polars=True))
    full = lazynwb.scan_nwb(session.path, "/intervals/trials").collect()
    assert session.intervals["trials"].collect().equals(full)
    assert session.intervals["custom intervals"].collect().height == 1


def test_linked_groups_have_the_members_of_their_targets(path):
    session = lazynwb.LazyNWB(path)
    linked = session.acquisition.link
    assert list(linked) == ["running speed"]
    assert linked["running speed"].data[:].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert session.acquisition["link/running speed"].data.shape == (3, 2)
    assert linked.description == "of behavior"
    assert linked.neurodata_type == "ProcessingModule"


def test_other_groups_of_the_file_are_reached_by_their_names(path):
    session = lazynwb.LazyNWB(path)
    assert session.my_extension.x == 1
    assert session.general.custom == 7
    assert {"my_extension", "custom"} <= set(dir(session))


# --- names --------------------------------------------------------------------------------------------


def test_unknown_names_are_errors_with_suggestions(path):
    session = lazynwb.LazyNWB(path)
    with pytest.raises(AttributeError, match=r"a\.nwb has no 'unit'; did you mean 'units'"):
        _ = session.unit
    with pytest.raises(AttributeError, match="/processing has no 'behaviour'; did you mean 'behavior'"):
        _ = session.processing.behaviour
    with pytest.raises(KeyError, match="/processing has no 'x'; available: behavior"):
        _ = session.processing["x"]
    with pytest.raises(KeyError):
        _ = session.processing["behavior/x"]
    with pytest.raises(KeyError):
        _ = session.processing[0]
    assert not hasattr(session, "nothing_like_it")
    assert not hasattr(session, "_repr_mimebundle_")
    assert getattr(session.subject, "nothing_like_it", 5) == 5


def test_broken_links_are_errors_when_they_are_opened(path):
    acquisition = lazynwb.LazyNWB(path).acquisition
    assert "broken" in acquisition
    with pytest.raises(lazynwb.NotNWBError, match=r"/acquisition/broken .*nowhere"):
        _ = acquisition["broken"]


def test_completion_offers_members_attributes_and_fields(path):
    session = lazynwb.LazyNWB(path)
    assert {*FIELDS, *LISTS, *TABLES, *GROUPS, "subject", "describe", "get_df"} <= set(dir(session))
    assert {"behavior"} <= set(dir(session.processing))
    behavior = session.processing.behavior
    assert "description" in dir(behavior)
    assert "running speed" not in dir(behavior)  # no name of an attribute
    assert behavior._ipython_key_completions_() == ["running speed"]


def test_groups_are_mappings(session):
    acquisition = session.acquisition
    assert len(acquisition) == len(list(acquisition)) == 8
    assert "stamped" in acquisition
    assert acquisition.get("nothing") is None
    assert {type(value) for value in acquisition.values()} == {lazynwb.TimeSeries, Container}
    assert acquisition == lazynwb.LazyNWB(session.path).acquisition != session.processing
    assert len({acquisition, session.acquisition}) == 1


def test_sessions_are_copied_and_pickled_by_their_path(path):
    session = lazynwb.LazyNWB(path)
    assert session.identifier == copy.copy(session).identifier
    assert pickle.loads(pickle.dumps(session)).describe() == session.describe()  # noqa: S301 - our own
    assert pickle.loads(pickle.dumps(session.processing)) == session.processing  # noqa: S301


def test_results_may_be_modified(path):
    session = lazynwb.LazyNWB(path)
    session.keywords.append("x")
    session.attrs["neurodata_type"] = "x"
    assert session.keywords == ["production", "ecephys"]
    assert session.attrs["neurodata_type"] != "x"


# --- functions ----------------------------------------------------------------------------------------


def test_describe_is_the_metadata_and_the_paths_of_tables_and_series(path):
    found = lazynwb.LazyNWB(path).describe()
    assert found["session_id"] == "20240102"
    assert found["sex"] == "F"
    assert found["lab"] is None
    assert found["paths"] == ["/processing/behavior/running speed", "/units"]
    for internal in found["paths"]:
        lazynwb.get(path, internal, exact_path=True)


def test_the_functions_of_the_package_are_methods(session):
    stamped = session.get_timeseries("stamped")
    assert stamped.data[:].tolist() == lazynwb.get_timeseries(session.path, "stamped").data[:].tolist()
    assert set(session.get_timeseries(match_all=True)) == set(
        lazynwb.get_timeseries(session.path, match_all=True)
    )
    assert isinstance(session.get("stamped"), lazynwb.TimeSeries)
    frame = session.get_df("units", include_column_names="quality", as_polars=True)
    assert frame.equals(lazynwb.get_df(session.path, "units", include_column_names="quality", as_polars=True))
    assert session.get("units", as_polars=True).equals(session.get_df("units", as_polars=True))
    with pytest.raises(KeyError):
        session.get_df("nothing")


def test_the_signatures_of_the_pypi_package_bind():
    options = {
        "exact_path": False, "include_column_names": None, "exclude_column_names": None,
        "exclude_array_columns": True, "use_process_pool": False, "disable_progress": True,
        "raise_on_missing": True, "ignore_errors": False, "as_polars": None,
    }  # fmt: skip
    inspect.signature(lazynwb.LazyNWB).bind("a.nwb")
    inspect.signature(lazynwb.LazyNWB).bind(path="a.nwb")
    get_df = inspect.signature(lazynwb.LazyNWB.get_df)
    get_df.bind(None, "units", *options.values())
    assert {name: get_df.parameters[name].default for name in options} == options
    inspect.signature(lazynwb.LazyNWB.get).bind(None, "units", as_df=False, **options)
    inspect.signature(lazynwb.LazyNWB.get_timeseries).bind(None, search_term=None)


# --- files --------------------------------------------------------------------------------------------


def test_the_source_must_be_one_existing_file(tmp_path, cube):
    with pytest.raises(FileNotFoundError):
        lazynwb.LazyNWB(tmp_path / "absent.nwb").identifier  # noqa: B018
    with pytest.raises(lazynwb.LazyNWBError, match="LazyNWB takes one file, not 6"):
        lazynwb.LazyNWB(cube[0].parent)


def test_a_replaced_file_is_read_again(path):
    session = lazynwb.LazyNWB(path)
    processing = session.processing
    assert (session.session_id, list(processing)) == ("20240102", ["behavior"])
    with h5py.File(path, "a") as file:
        del file["general/session_id"]
        file["general/session_id"] = "another"
        file.create_group("processing/more")
    assert (session.session_id, list(processing)) == ("another", ["behavior", "more"])


def test_files_are_closed(path):
    session = lazynwb.LazyNWB(path)
    _ = session.units, session.processing.behavior["running speed"].data[:], repr(session)
    with h5py.File(path, "r+"):
        pass
    path.unlink()


def test_groups_share_one_listing(built):
    session = lazynwb.LazyNWB(built("session"))
    with lazynwb.profile() as counted:
        for group in GROUPS:
            list(getattr(session, group))
        _ = session.processing.ecephys.LFP, session.acquisition.pictures, "units" in dir(session)
        _ = session.subject.age, session.session_start_time, repr(session), session._repr_html_()
    # The listing, /general, /general/subject, and the attribute that says what the age refers to.
    assert counted.files_parsed == 4
    with lazynwb.profile() as again:
        _ = lazynwb.LazyNWB(session.path).subject.age, repr(session)
    assert again.files_parsed == 0


def test_the_next_process_parses_no_file(built):
    script = """if True:
        import sys, lazynwb
        with lazynwb.profile() as counted:
            session = lazynwb.LazyNWB(sys.argv[1])
            repr(session), session.subject.age, session.session_start_time, list(session.acquisition)
        print(counted.files_parsed)"""
    assert int(run_child(script, built("session"))) == 4
    assert int(run_child(script, built("session"))) == 0


def test_a_remote_session_is_the_same(path):
    with RangeServer(path.parent) as server:
        remote = lazynwb.LazyNWB(server.url_of("a.nwb"))
        assert remote.describe() == lazynwb.LazyNWB(path).describe()
        assert remote.processing.behavior["running speed"].data[1].tolist() == [2, 3]
        assert remote.lab_meta_data.lab_thing.name == "thing"
        again = server.count
        _ = repr(remote), remote.subject.sex, list(remote.acquisition)
        assert server.count == again
