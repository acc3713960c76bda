"""Settings: attributes of `lazynwb.config`, and environment variables."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

import lazynwb
from builders import table
from lazynwb.config import Config


def value(name, **env):
    """Return a setting in a process with environment variables."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, text in env.items():
            patch.setenv(variable, text)
        return repr(getattr(Config(), name))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("disable_cache", "1", "True"),
        ("disable_cache", "false", "False"),
        ("disable_progress", "yes", "True"),
        ("cache_max_bytes", "1000", "1000"),
        ("external_links", "never", "'never'"),
    ],
)
def test_environment_variables(name, text, expected):
    assert value(name, **{f"LAZYNWB_{name.upper()}": text}) == expected


def test_cache_dir_from_the_environment(tmp_path):
    assert str(tmp_path) in value("cache_dir", LAZYNWB_CACHE_DIR=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "text"), [("DISABLE_CACHE", "perhaps"), ("CACHE_MAX_BYTES", "much"), ("EXTERNAL_LINKS", "x")]
)
def test_a_bad_value_names_its_variable(name, text):
    with pytest.raises(ValueError, match=f"LAZYNWB_{name}='{text}': expected"):
        value("cache_dir", **{f"LAZYNWB_{name}": text})


def test_unknown_variables_are_harmless():
    assert value("disable_cache", LAZYNWB_NO_SUCH_SETTING="1") == "False"


def progress(cube, code, **env):
    """Return the stderr of a process that shows all enabled progress bars."""
    script = f"""
import sys, lazynwb
{code}
lazynwb.scan_nwb(sys.argv[1:], "/units").collect()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(lazynwb.__file__).parents[1]), **env}
    for name in {"TQDM_DISABLE", "LAZYNWB_DISABLE_PROGRESS"} - set(env):
        environment.pop(name, None)
    command = [sys.executable, "-c", script, *map(str, cube)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(
    ("code", "env"),
    [
        ("lazynwb.config.disable_progress = True", {}),
        ("", {"TQDM_DISABLE": "1"}),
        ("", {"LAZYNWB_DISABLE_PROGRESS": "1"}),
    ],
    ids=["config", "tqdm", "environment"],
)
@pytest.mark.sample(2)
def test_progress_bars_can_be_disabled(cube, code, env):
    assert progress(cube, code, **env) == ""


def test_quick_queries_show_no_bar(cube):
    """None at all for work of less than half a second; this machine may be slower than that."""
    code = "import atexit, time\nstart = time.perf_counter()\n"
    code += "atexit.register(lambda: print(time.perf_counter() - start, file=sys.stderr))"
    *bars, seconds = progress(cube, code).split("\n")[:-1]
    assert bars == [] or float(seconds) > 0.4


@pytest.mark.parametrize("setting", ["never", "folder", "anywhere"])
def test_external_links(setting, tmp_path):
    (tmp_path / "here").mkdir()
    with h5py.File(tmp_path / "here" / "near.nwb", "w") as file:
        file["x"] = [1, 2]
    with h5py.File(tmp_path / "far.nwb", "w") as file:
        file["x"] = [3, 4]
    path = tmp_path / "here" / "a.nwb"
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"own": [5, 6]})
        group["near"] = h5py.ExternalLink("near.nwb", "/x")
        group["far"] = h5py.ExternalLink("../far.nwb", "/x")
    lazynwb.config.external_links = setting
    frame = lazynwb.read_nwb(path, "t")
    assert frame["own"].to_list() == [5, 6]
    assert ("near" in frame.columns) == (setting != "never")
    assert ("far" in frame.columns) == (setting == "anywhere")
    if setting == "anywhere":
        assert frame["far"].to_list() == [3, 4]
    if setting != "never":
        assert frame["near"].to_list() == [1, 2]


def test_threads_and_batch_sizes_do_not_affect_results(cube):
    expected = lazynwb.read_nwb(cube, "/units")
    lazynwb.config.max_threads = 1
    lazynwb.config.batch_bytes = 10_000
    for engine in ("in-memory", "streaming"):
        assert lazynwb.scan_nwb(cube, "/units").collect(engine=engine).equals(expected, null_equal=True)


def test_settings_of_lazynwb_1_are_accepted():
    config = Config()
    config.fsspec_storage_options = {"key": "k"}
    config.anon = True
    assert config.storage_options == {"key": "k", "anon": True}
    config.anon = None
    assert config.storage_options == config.fsspec_storage_options == {"key": "k"}
    config.use_remfile = config.use_obstore = True
    assert config.anon is None


def test_unknown_settings_are_errors():
    with pytest.raises(AttributeError, match=r"use_polarz.; did you mean .use_polars"):
        Config().use_polarz = True


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_bytes", 0), ("max_requests", -1), ("retry_seconds", float("nan")), ("max_retries", "6")],
)
def test_numbers_below_the_minimum_are_errors(name, value, monkeypatch):
    before = getattr(lazynwb.config, name)
    with pytest.raises(ValueError, match=f"config.{name} must be a number of at least"):
        setattr(lazynwb.config, name, value)
    assert getattr(lazynwb.config, name) == before
    monkeypatch.setenv(f"LAZYNWB_{name.upper()}", "-1")
    with pytest.raises(ValueError, match=f"environment variable LAZYNWB_{name.upper()}='-1'"):
        lazynwb.Config()


def test_unknown_values_of_external_links_are_errors():
    with pytest.raises(ValueError, match="folder, anywhere, never"):
        lazynwb.config.external_links = "sometimes"
    assert lazynwb.config.external_links == "folder"
