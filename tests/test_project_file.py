"""`lazynwb.toml`: the sources and settings of a project."""

import json
import os
from pathlib import Path

import pytest

import lazynwb
from lazynwb import cli

pytest.importorskip("typer")

from lazynwb.cli import project_file
from lazynwb.cli.project_file import ProjectError


@pytest.fixture
def write(tmp_path):
    def write(text, folder=tmp_path):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lazynwb.toml").write_text(text)
        return folder / "lazynwb.toml"

    return write


@pytest.fixture
def files_of(capsysbinary):
    """Return the files that a command reads, its exit code and stderr."""

    def files_of(*arguments):
        code = cli.main(["query", "SELECT DISTINCT _nwb_path FROM units", *arguments, "-f", "json"])
        done = capsysbinary.readouterr()
        found = sorted(Path(row["_nwb_path"]).name for row in json.loads(done.out)) if code == 0 else []
        return found, code, done.err.decode()

    return files_of


@pytest.fixture
def data(tmp_path, cube):
    """The sessions of the cube in a folder whose name looks like a pattern."""
    folder = tmp_path / "a [b]" / "data"
    folder.mkdir(parents=True)
    for path in cube:
        os.link(path, folder / path.name)
    return folder


def test_paths_are_relative_to_the_project_file(data, write, files_of, monkeypatch):
    write('[sources]\npaths = ["data/*_00.nwb", "data/session_01.nwb"]', data.parent)
    deep = data / "deep"
    deep.mkdir()
    for folder in (data.parent, data, deep):
        monkeypatch.chdir(folder)
        assert files_of() == (["session_00.nwb", "session_01.nwb"], 0, "")


def test_a_table_without_sources_uses_those_of_the_project_file(data, write, capsys, monkeypatch):
    write('[sources]\npaths = ["data"]', data.parent)
    monkeypatch.chdir(data)
    assert cli.main(["head", "units", "-n", "1", "-c", "unit_id", "-f", "csv"]) == 0
    assert capsys.readouterr().out == "unit_id\ns0_0\n"


def test_given_sources_replace_those_of_the_project_file(data, write, files_of, monkeypatch):
    write('[sources]\npaths = ["data"]', data.parent)
    monkeypatch.chdir(data)
    assert files_of("session_02.nwb")[0] == ["session_02.nwb"]


def test_named_sets_of_sources(data, write, files_of, monkeypatch):
    write('[sets]\none = ["data/session_00.nwb"]\ntwo = ["data/*_0[12].nwb"]', data.parent)
    monkeypatch.chdir(data)
    assert files_of("@one", "@two")[0] == ["session_00.nwb", "session_01.nwb", "session_02.nwb"]
    _, code, err = files_of("@three")
    assert code == 2
    assert "@one, @two" in err
    _, code, err = files_of()
    assert code == 2
    assert "no source" in err


def test_the_nearest_project_file_is_used(data, write, files_of, monkeypatch):
    write('[sources]\npaths = ["nowhere"]', data.parent)
    write('[sources]\npaths = ["session_03.nwb"]', data)
    monkeypatch.chdir(data)
    assert files_of()[0] == ["session_03.nwb"]


def test_without_a_project_file_sources_are_required(tmp_path):
    assert project_file.find(tmp_path) is None


def test_urls_stay_as_they_are_and_absolute_paths_too(write):
    found = project_file.read(
        write('[sources]\npaths = ["s3://bucket/a*.nwb", "/data/*.nwb", "dandi://000363/"]')
    )
    assert found.paths == ("s3://bucket/a*.nwb", "/data/*.nwb", "dandi://000363/")


def test_settings_apply_unless_the_environment_overrides_them(write, monkeypatch, tmp_path):
    monkeypatch.delenv("LAZYNWB_CACHE_DIR")
    monkeypatch.setenv("LAZYNWB_MAX_THREADS", "3")
    before = lazynwb.config.max_threads
    project_file.read(write('[config]\ncache_dir = ".cache"\nmax_threads = 7\nrequest_timeout = 5')).apply()
    assert lazynwb.config.cache_path == tmp_path / ".cache"
    assert lazynwb.config.max_threads == before
    assert lazynwb.config.request_timeout == 5


def test_options_of_stores(write):
    found = project_file.read(write('[storage]\nregion = "us-west-2"\nskip_signature = true'))
    assert found.storage == {"region": "us-west-2", "skip_signature": True}


WRONG = {
    "no TOML": ("[sources", "lazynwb.toml: Expected"),
    "a table that is not known": ("[source]\npaths = []", "did you mean sources?"),
    "a key that is not known": ('[sources]\npath = ["a"]', "did you mean paths?"),
    "one path": ('[sources]\npaths = "a"', "list of paths"),
    "no path": ("[sources]\npaths = [1]", "list of paths"),
    "a set of one path": ('[sets]\na = "b"', "sets.a"),
    "sources as a list": ('sources = ["a"]', "sources must be a table"),
    "a secret": ('[storage]\nsecret_access_key = "hunter2"', "secret_access_key"),
    "an endpoint, which gets to see secrets": ('[storage]\nendpoint = "https://evil.test"', "endpoint"),
    "where a key is sent": ('[config]\ndandi_api_url = "https://evil.test"', "dandi_api_url"),
    "which other files are opened": ('[config]\nexternal_links = "anywhere"', "external_links"),
    "a setting that is not known": ("[config]\nmax_thread = 1", "did you mean max_threads?"),
    "a setting of another type": ('[config]\nmax_threads = "many"', "a number"),
    "a number that is none": ("[config]\nmax_threads = true", "a number"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_errors_in_the_project_file_are_explained(kind, write, monkeypatch, tmp_path, capsys):
    text, said = WRONG[kind]
    file = write(text)
    with pytest.raises(ProjectError) as error:
        project_file.read(file)
    assert said in str(error.value)
    assert str(file) in str(error.value)
    assert "hunter2" not in str(error.value)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["tables"]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert "--ignore-errors" not in err
    assert err.count("\n") == 1
