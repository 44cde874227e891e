"""Compiled programs are kept where a user asks for it, and nowhere else; a folder that cannot hold them is refused."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import xarray as xr
from jax.experimental.compilation_cache import compilation_cache

from comparisons import launch
from comparisons.cli import main

COMMANDS = {
    "demo": ["demo"],
    "run": ["run", "sites.nc"],
    "train": ["train", "sites.nc"],
    "sample": ["sample", "sites.nc"],
    "explain": ["explain", "run", "sites.nc"],
    "sensitivity": ["sensitivity", "sites.nc"],
    "virtual": ["sites", "virtual", "5"],
}


@pytest.fixture
def restored(monkeypatch):
    """What `Launch.start` sets, as it was; `XLA_FLAGS` goes back by `monkeypatch`."""
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    names = ["compilation_cache_dir", "persistent_cache_min_compile_time_secs", "persistent_cache_min_entry_size_bytes"]
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def entries(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


COUNTED = """
import collections, sys
import jax.monitoring
from comparisons.cli import main
seen = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: seen.update([event]))
assert main(sys.argv[1:]) == 0
print(*(seen[f"/jax/compilation_cache/{event}"] for event in ("compile_requests_use_cache", "cache_hits")))
"""


@pytest.mark.slow
def test_a_second_command_compiles_nothing(tmp_path):
    kept = tmp_path / "new" / "folder"
    others = {launch.VARIABLE, "XLA_FLAGS"}
    bare = {name: value for name, value in os.environ.items() if name not in others and not name.startswith("JAX_")}

    def programs(out, *more, **variables):
        """How many programs `binn sites virtual` asked for, and how many of them were there."""
        command = [sys.executable, "-c", COUNTED, "sites", "virtual", "5", "--out", str(tmp_path / out), *more]
        shown = subprocess.run(command, env=bare | variables, check=True, capture_output=True, text=True).stdout
        return [int(n) for n in shown.split()[-2:]]

    asked, there = programs("one.nc", "--compile-cache", str(kept))
    assert there < asked
    assert any(name.startswith("jit__simulate") for name in entries(kept)), "the expensive program"
    assert kept.stat().st_mode & 0o077 == 0, "what lies there is run: it is the user's own"
    assert programs("two.nc", **{launch.VARIABLE: str(kept)}) == [asked, asked]
    one, two = (xr.load_dataset(tmp_path / name, engine="h5netcdf") for name in ("one.nc", "two.nc"))
    xr.testing.assert_identical(one, two)


def test_the_folder_serves_a_process_that_has_compiled_before(tmp_path, restored):
    jax.jit(lambda x: x * 3.25)(1.0)
    launch.Launch(tmp_path / "kept").start()
    jax.jit(lambda x: x * 7.75)(1.0)
    assert any(name.startswith("jit__lambda") for name in entries(tmp_path / "kept"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_compiles_takes_the_option_before_the_variable(name, tmp_path, monkeypatch):
    asked = []

    def start(self):
        asked.append(self.compile_cache)
        raise KeyboardInterrupt

    monkeypatch.setattr(launch.Launch, "start", start)
    monkeypatch.delenv(launch.VARIABLE, raising=False)
    command = [*COMMANDS[name], "--out", str(tmp_path / "out")]
    assert main(command) == 130
    monkeypatch.setenv(launch.VARIABLE, "variable")
    assert main(command) == 130
    assert main([*command, "--compile-cache", "option"]) == 130
    monkeypatch.setenv(launch.VARIABLE, "")
    assert main(command) == 130
    assert asked == [None, Path("variable"), Path("option"), None]


def test_a_command_keeps_nothing_unasked(restored):
    before = jax.config.jax_compilation_cache_dir
    launch.Launch().start()
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.parametrize("under", ["", "deeper"])
def test_a_folder_that_cannot_be_made_is_refused_before_any_work(under, tmp_path, capsys, restored):
    (tmp_path / "file").touch()
    bad = tmp_path / "file" / under
    before = jax.config.jax_compilation_cache_dir
    assert main(["demo", "--out", str(tmp_path / "out"), "--compile-cache", str(bad)]) == 2
    message = capsys.readouterr().err
    for text in ("--compile-cache", launch.VARIABLE, str(bad), "a file" if not under else "Not a directory", "another"):
        assert text in message, text
    assert not (tmp_path / "out").exists()
    assert jax.config.jax_compilation_cache_dir == before


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, capsys, monkeypatch):
    def refused(dir):  # root may write anywhere: permissions alone would not show it
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(launch.tempfile, "TemporaryFile", refused)
    assert main(["demo", "--out", str(tmp_path / "out"), "--compile-cache", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert f"{tmp_path} must be a folder that can be made and written, but: Permission denied" in message
