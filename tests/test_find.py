"""Resolution of table names to paths, by the contents of files."""

import h5py
import numpy as np
import pytest

import lazynwb
from builders import nwb_root, series, table
from lazynwb.errors import NotNWBError, TableNotFoundError
from lazynwb.lookup.names import find_table
from lazynwb.storage.resolve import expand


def write(path, tables=(), timeseries=()):
    with h5py.File(path, "w") as file:
        nwb_root(file)
        for where in tables:
            table(file, where, {"x": [1, 2]})
        for where in timeseries:
            series(file, where, np.arange(3.0), start=0)
    return path


@pytest.fixture
def session(tmp_path):
    return write(
        tmp_path / "session.nwb",
        ["intervals/trials", "intervals/epochs", "units", "processing/left/events", "processing/right/events",
         "processing/sorting/Clusters", "processing/old/trials", "analysis/a/b/deep"],
        ["acquisition/running_speed", "processing/behavior/Position", "stimulus/presentation/position",
         "processing/Running_speed"],
    )  # fmt: skip


def find(path, term, **options):
    return find_table(expand(path), term, **options)


@pytest.mark.parametrize(
    ("term", "path"),
    [
        ("/units", "units"),
        ("units", "units"),
        ("units/", "units"),
        ("trials", "intervals/trials"),
        ("/intervals/trials", "intervals/trials"),
        ("session", "general"),
        ("subject", "general/subject"),
        ("acquisition/running_speed", "acquisition/running_speed"),
        ("/acquisition/running_speed/data", "acquisition/running_speed"),
    ],
)
@pytest.mark.parametrize("exact", [True, False])
def test_paths_and_shortcuts_are_unchanged(session, term, path, exact):
    assert find(session, term, exact=exact) == path


@pytest.mark.parametrize(
    ("term", "path"),
    [
        ("running_speed", "acquisition/running_speed"),
        ("Running_speed", "processing/Running_speed"),
        ("Position", "processing/behavior/Position"),
        ("position", "stimulus/presentation/position"),
        ("clusters", "processing/sorting/Clusters"),
        ("DEEP", "analysis/a/b/deep"),
        ("b/deep", "analysis/a/b/deep"),
        ("left/events", "processing/left/events"),
        ("BEHAVIOR/position", "processing/behavior/Position"),
        ("old/trials", "processing/old/trials"),
    ],
)
def test_a_path_suffix_is_enough_and_an_exact_path_has_precedence(session, term, path):
    assert find(session, term) == path


@pytest.mark.parametrize("term", ["events", "RUNNING_SPEED", "POSITION"])
def test_an_ambiguous_name_is_an_error_that_lists_the_candidates(session, term):
    fitting = {"events": ("/processing/left/events", "/processing/right/events")}.get(
        term, ("unning_speed", "cessing") if "RUN" in term else ("/processing/behavior/Position", "/position")
    )
    with pytest.raises(TableNotFoundError) as caught:
        find(session, term)
    assert all(part in str(caught.value) for part in (*fitting, "session.nwb", "pass the path"))


@pytest.mark.parametrize("term", ["unit", "nits", "speed", "running", "trial", "ials", "", "x", "deep/b"])
def test_an_unknown_name_is_an_error_and_not_guessed(session, term):
    with pytest.raises(TableNotFoundError, match="no table"):
        find(session, term)


def test_the_error_suggests_similar_names(session):
    with pytest.raises(TableNotFoundError, match="did you mean /units"):
        find(session, "unit")


@pytest.mark.parametrize("term", ["running_speed", "left/events", "UNITS"])
def test_exact_path_requires_the_full_path(session, term):
    assert find(session, term)
    with pytest.raises(TableNotFoundError):
        find(session, term, exact=True)
    with pytest.raises(TableNotFoundError):
        find(session, f"/{term}")


def test_a_search_can_be_limited_to_roles(session):
    assert find(session, "position", roles={"series"}) == "stimulus/presentation/position"
    for term, role in (("units", "series"), ("running_speed", "table")):
        with pytest.raises(TableNotFoundError):
            find(session, term, roles={role})


def test_the_first_file_with_the_table_determines_its_path(tmp_path):
    files = [
        write(tmp_path / "0.nwb", ["units"]),
        write(tmp_path / "1.nwb", ["processing/one/extra"]),
        write(tmp_path / "2.nwb", ["processing/two/extra", "processing/three/extra"]),
    ]
    assert find(files, "extra") == "processing/one/extra"
    with pytest.raises(TableNotFoundError, match=r"2\.nwb"):
        find(files[::-1], "extra")


def test_a_path_in_any_file_takes_precedence_over_a_name_in_an_earlier_file(tmp_path):
    files = [
        write(tmp_path / "0.nwb", ["processing/mine/trials"]),
        write(tmp_path / "1.nwb", ["intervals/trials"]),
    ]
    assert find(files, "trials") == "intervals/trials"
    assert find(files[:1], "trials") == "processing/mine/trials"


def test_files_that_cannot_be_read_are_skipped_on_request(tmp_path):
    bad = tmp_path / "0.nwb"
    bad.write_bytes(b"nothing")
    good = write(tmp_path / "1.nwb", ["processing/one/extra", "units"])
    for term in ("extra", "units", "/units"):
        assert find([bad, good], term, ignore_errors=True)
        with pytest.raises(NotNWBError, match=r"0\.nwb"):
            find([bad, good], term)


def test_a_path_is_found_without_listing_the_file(session, monkeypatch):
    def fail(source):
        raise AssertionError(source)

    monkeypatch.setattr("lazynwb.lookup.loader.load_listing", fail)
    assert find(session, "/units") == find(session, "units") == "units"
    with pytest.raises(AssertionError):
        find(session, "running_speed")


def test_a_file_is_listed_once_for_any_number_of_names(cube):
    assert find(cube, "running_speed") == "processing/behavior/running_speed"
    with lazynwb.profile() as again:
        find(cube, "lick_sensor_events")
    assert again.files_parsed == 0


# --- scans -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "path"),
    [
        ("Clusters", "processing/sorting/Clusters"),
        ("clusters", "processing/sorting/Clusters"),
        ("left/events", "processing/left/events"),
        ("trials", "intervals/trials"),
        ("running_speed", "acquisition/running_speed"),
    ],
)
def test_scans_and_schemas_accept_the_same_names(session, term, path):
    expected = lazynwb.scan_nwb(session, f"/{path}")
    assert lazynwb.scan_nwb(session, term).collect().equals(expected.collect())
    assert lazynwb.get_table_schema(session, term) == expected.collect_schema()


def test_a_scan_of_a_name_includes_all_files(session, tmp_path):
    other = write(tmp_path / "other.nwb", ["processing/sorting/Clusters"])
    none = write(tmp_path / "none.nwb", ["units"])
    found = lazynwb.scan_nwb([none, session, other], "Clusters").collect()
    assert found["_nwb_path"].unique().sort().to_list() == sorted([str(other), str(session)])


@pytest.mark.parametrize("term", ["Nothing", "/Clusters", "speed"])
def test_a_scan_does_not_guess(session, term):
    with pytest.raises(TableNotFoundError, match="available tables"):
        lazynwb.scan_nwb(session, term)


def test_a_scan_of_an_ambiguous_name_is_an_error(session, tmp_path):
    path = write(tmp_path / "two.nwb", ["processing/left/spots", "processing/right/spots"])
    with pytest.raises(
        TableNotFoundError, match="is ambiguous: /processing/left/spots, /processing/right/spots"
    ):
        lazynwb.scan_nwb(path, "spots")


def test_an_index_resolves_names_without_opening_files(session, tmp_path):
    lazynwb.build_index([session], tmp_path / "index", disable_progress=True)
    expected = lazynwb.scan_nwb(session, "/processing/sorting/Clusters").collect_schema()
    session.rename(tmp_path / "elsewhere.nwb")
    lazynwb.clear_cache()
    assert lazynwb.get_table_schema(None, "Clusters", index=tmp_path / "index") == expected


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("running", "/processing/behavior/running_speed"),
        ("trial", "/intervals/trials"),
        ("lick", "/processing/behavior/licks"),
        ("Unit", "/units"),
        ("unist", "/units"),
        ("/interval/trials", "/intervals/trials"),
    ],
)
def test_suggestions_are_plausible(name, suggested, tmp_path):
    paths = ["units", "intervals/trials", "intervals/rf_trials", "processing/behavior/licks"]
    file = write(tmp_path / "a.nwb", paths, ["processing/behavior/running_speed"])
    with pytest.raises(TableNotFoundError) as caught:
        lazynwb.scan_nwb(file, name)
    assert f"did you mean {suggested}?" in str(caught.value)
