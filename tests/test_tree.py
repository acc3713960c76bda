"""Trees of the contents of a file, as text and HTML: complete if small, limited if large, and harmless."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import checks
import lazynwb
from builders import nwb_root, series, table
from lazynwb.catalog.model import Entry, Listing
from lazynwb.session.tree import Contents, html_tree, visible

FOLDER = os.environ.get("LAZYNWB_TEST_DATA")
REAL = sorted(str(file) for file in Path(FOLDER).rglob("*.nwb") if h5py.is_hdf5(file)) if FOLDER else []

HOSTILE = "\x1b[31m\x1b]0;owned\x07<script>alert('x')</script>\"&'\u202egnp.exe\r\n\u2028\x00"
#: A hostile name of a member: no slash, and no end of text.
NAME = HOSTILE.replace("/", "\\").replace("\x00", "")


class Page(HTMLParser):
    """The elements, attributes and text of HTML; fails if elements are not closed in order."""

    def __init__(self, source):
        super().__init__()
        self.stack, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(source)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.stack.append(tag)
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "style" not in self.stack:
            self.words.append(data.strip())

    @property
    def text(self):
        return "\n".join(filter(None, self.words))


def write(path):
    with h5py.File(path, "w") as file:
        nwb_root(file, "s1", ["production", "ecephys"])
        table(file, "units", {"a": [1.0, 2.0], "name": ["x", "y"]}, kind="Units")
        series(file, "acquisition/licks", np.zeros((7, 2), "i2"), np.arange(7.0))
        file["acquisition/licks"].attrs["neurodata_type"] = "TimeSeries"
        file["acquisition/link"] = h5py.SoftLink("/processing/behavior")
        file["acquisition/broken"] = h5py.SoftLink("/nowhere")
        file["acquisition/nothing"] = h5py.Empty("f8")
        module = file.create_group("processing/behavior")
        module.attrs["neurodata_type"] = "ProcessingModule"
        module["deep/deeper/deepest"] = 1
        file.create_group("specifications/core/2.8.0")["namespace"] = "{}"
    return path


@pytest.fixture
def session(tmp_path):
    return lazynwb.LazyNWB(write(tmp_path / "a.nwb"))


def test_the_text_is_the_tree_with_shapes_types_and_neurodata_types(session):
    assert repr(session).splitlines() == [
        f"LazyNWB({session.path!r})",
        "  identifier: id-s1",
        "  session_id: s1",
        "  session_start_time: 2024-01-02 03:04:05+00:00",
        "  session_description: a session",
        "  subject.subject_id: mouse-s1",
        "  acquisition  4 members",
        "    broken  broken: link 'broken' is broken: there is no 'nowhere'",
        "    licks  [TimeSeries]  series: (7, 2) int16",
        "    link  [ProcessingModule]  → /processing/behavior",
        "    nothing  empty",
        "  general  4 members",
        "    subject  [Subject]  3 members",
        "  processing  1 member",
        "    behavior  [ProcessingModule]  1 member",
        "      deep  1 member",
        "        deeper  1 member",
        "          deepest  int64",
        "  units  [Units]  table: 2 rows, 3 columns",
    ]
    assert repr(session.acquisition).splitlines()[0] == "Container /acquisition"
    assert repr(session.processing.behavior).splitlines()[1:] == [
        "  deep  1 member",
        "    deeper  1 member",
        "      deepest  int64",
    ]
    assert repr(session.subject).splitlines() == [
        "Subject /general/subject",
        "  sex: F",
        "  species: Mus musculus",
        "  subject_id: mouse-s1",
    ]


def test_the_html_is_folded_and_has_columns_and_metadata_too(session):
    page = Page(session._repr_html_())
    assert page.tags.count("details") == page.tags.count("summary") > 5
    assert ("open", None) not in page.attributes
    for word in (
        session.path,
        "keywords",
        ": production; ecephys",
        "subject.sex",
        "Units",
        "licks",
        "(7, 2) int16",
    ):
        assert word in page.text
    for column in ("a", "id", "name"):
        assert column in page.words
    assert "specifications" not in page.text


def test_the_html_uses_the_colours_of_the_notebook(session):
    style = session._repr_html_().partition("</style>")[0]
    assert "background" not in style
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b|(?<![-\w])color: (?!inherit)", style)
    assert re.findall(r"rgba?\([^)]*\)", style) == ["rgba(128, 128, 128, 0.4)"]  # halfway in either theme


def test_names_and_values_of_a_file_are_escaped(tmp_path):
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        group = file["acquisition"].create_group(NAME)
        group.attrs["neurodata_type"] = HOSTILE.replace("\x00", "")
        group[NAME] = np.arange(3)
        file["acquisition/soft"] = h5py.SoftLink("/" + NAME)
        for field in ("session_description", "general/subject/subject_id", "general/keywords"):
            del file[field]
            file[field] = HOSTILE.replace("\x00", "")
    session = lazynwb.LazyNWB(path)
    for shown in (repr(session), repr(session.acquisition), repr(session.subject)):
        assert all(c.isprintable() or c == "\n" for c in shown)
        assert "\\x1b[31m" in shown
    for shown in (session._repr_html_(), session.acquisition._repr_html_(), session.subject._repr_html_()):
        page = Page(shown)
        assert set(page.tags) <= {"style", "div", "details", "summary", "b", "span"}
        assert {name for name, _ in page.attributes} <= {"class", "open"}
        assert all(c.isprintable() or c == "\n" for c in shown)
        assert "<script>alert" in page.text
    with pytest.raises(AttributeError) as caught:
        _ = session.acquisition.zzz
    assert str(caught.value).isprintable()


def test_unprintable_text_is_truncated_and_escaped():
    assert visible("größer ✓") == "größer ✓"
    assert visible("a\tb\nc") == "a b c"
    assert visible("\x1b[0m\u202e\u200b\ud800") == "\\x1b[0m\\u202e\\u200b\\ud800"
    assert visible("x" * 1000, 10) == "x" * 9 + "…"
    assert len(visible("\x1b" * 1000, 10)) <= 40


@given(st.text(max_size=60), st.integers(1, 40))
def test_printed_text_is_a_single_line(text, limit):
    found = visible(text, limit)
    assert found.isprintable() or not found
    assert len(found) <= 10 * limit
    if text.isprintable() and len(text) <= limit:
        assert found == text


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=9), st.text(max_size=9)), max_size=12), st.integers(0, 3)
)
def test_html_is_complete_for_all_names_and_types(named, depth):
    parent = "".join(f"/p{k}" for k in range(depth))
    groups = [
        Entry("/p0" + "".join(f"/p{j}" for j in range(1, k + 1)), "group", "group") for k in range(depth)
    ]
    names = {name.replace("/", "_"): kind for name, kind in named}
    entries = [
        Entry(f"{parent}/{name}", "dataset", "dataset", 0, (2,), "<f8", "", kind)
        for name, kind in names.items()
    ]
    contents = Contents(Listing((*groups, *entries)))
    page = Page(html_tree("title", names, contents, "", contents.members("")))
    assert set(page.tags) <= {"style", "div", "details", "summary", "b", "span"}
    for name in names:
        assert visible(name).strip() in page.text


@pytest.mark.skipif(not REAL, reason="set LAZYNWB_TEST_DATA to a folder of NWB files")
def test_every_real_file_has_its_tree():
    for path in checks.sample(REAL, 3):
        session = lazynwb.LazyNWB(path)
        assert len(repr(session).splitlines()) < 120
        assert Page(session._repr_html_()).text.startswith(visible(str(path), 300))
        assert session.describe()["paths"] is not None
        assert {"units", "acquisition"} <= set(dir(session))


def test_the_tree_of_a_file_with_ten_thousand_objects_is_truncated(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        file["identifier"] = "many"
        table(file, "units", {"a": [1]}, kind="Units")
        group = file.create_group("acquisition")
        for number in range(9_990):
            group.create_group(f"g{number:05}")
    session = lazynwb.LazyNWB(path)
    text = repr(session)
    assert len(text.splitlines()) <= 90
    assert "and 9,978 more" in text
    assert "units  [Units]" in text
    html = session._repr_html_()
    assert len(html) < 400_000
    assert "and 9,890 more" in Page(html).text
    assert "Units" in Page(html).text


def test_the_tree_of_many_groups_with_many_members_is_bounded(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        for a in range(20):
            for b in range(20):
                for c in range(20):
                    file.create_group(f"acquisition{a:02}/b{b:02}/c{c:02}")
    session = lazynwb.LazyNWB(path)
    assert len(repr(session).splitlines()) <= 90
    assert "and 8 more" in repr(session)
    page = Page(session._repr_html_())
    assert page.tags.count("div") < 2_100
    assert all(f"acquisition{a:02}" in page.text for a in range(20))


def test_deep_files_are_shown_as_far_as_is_readable(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        file.create_group("/".join(["deep"] * 100))
    lines = repr(lazynwb.LazyNWB(path)).splitlines()
    assert 10 < len(lines) < 40
    assert max(len(line) for line in lines) < 200
    Page(lazynwb.LazyNWB(path)._repr_html_())


def test_an_unreadable_file_has_a_text_representation(tmp_path):
    path = tmp_path / "a.nwb"
    path.write_bytes(b"nothing")
    assert "not an HDF5 file" in repr(lazynwb.LazyNWB(path))
    assert "not an HDF5 file" in lazynwb.LazyNWB(path)._repr_html_()


def test_the_types_of_real_objects_are_listed(built):
    text = repr(lazynwb.LazyNWB(built("session")))
    for kind in ("ElectricalSeries", "PlaneSegmentation", "GrayscaleImage", "Device", "ScratchData", "Units"):
        assert f"[{kind}]" in text or kind in lazynwb.LazyNWB(built("session"))._repr_html_()


def test_a_session_with_unreadable_metadata_has_a_tree(session, monkeypatch):
    def failing(*_, **__):
        raise lazynwb.CorruptDataError("general: <damaged>")

    monkeypatch.setattr("lazynwb.session.session.read_metadata", failing)
    for text in (repr(session), session._repr_html_()):
        assert "cannot be read" in text
        assert "units" in text
