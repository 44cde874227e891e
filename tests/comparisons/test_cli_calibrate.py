"""`binn calibrate` writes ranks, tests and a figure, and goes on with --resume."""

import inspect

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes
import clm5
from bayes import calibration
from comparisons.cli import main
from comparisons.cli_calibrate import calibrate
from comparisons.launch import Launch

FREE = ("q10", "tau4s3")
SMALL = ["--free", FREE[0], "--free", FREE[1], "--chains", "2", "--samples", "20", "--simulations", "60"]


@pytest.fixture(autouse=True)
def unchanged_jax(monkeypatch):
    monkeypatch.setattr(Launch, "start", lambda self: None)


def blind(members, config, *, seed, progress):
    """A sampler that ignores the data and draws from the prior: every parameter's rank is uniform all the same."""
    unit = np.tile(config.fixed_unit, (config.chains, config.draws, members.sizes["site"], 1))
    where = [clm5.NAMES.index(name) for name in config.free_names]
    unit[..., where] = np.random.default_rng(seed).uniform(size=(*unit.shape[:3], len(where)))
    return clm5.assemble_posterior(
        unit, members, config.model, method="blind", seed=seed, wall_time=0.0, n_solves=0, n_gradients=0,
        attrs={"free": ",".join(config.free_names)},
    )  # fmt: skip


@pytest.mark.slow
def test_a_sampler_that_ignores_data_is_called_by_the_log_likelihood(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(calibration, "sample", blind)
    out = tmp_path / "a"
    asked = ["calibrate", *SMALL, "--kept", "19", "--seed", "4", "--out", str(out)]
    assert main(asked) == 0
    said = capsys.readouterr().out
    ranks = xr.load_dataset(out / "ranks.nc", engine="h5netcdf")
    assert dict(ranks.sizes) == {"simulation": 60, "quantity": 4}
    assert ranks.attrs["kept"] == 19
    table = pd.read_csv(out / "uniformity.csv", index_col="quantity")
    pd.testing.assert_frame_equal(table, bayes.uniformity(ranks), rtol=1e-4)
    assert list(table.index) == [*FREE, "log_likelihood", "stock"]
    assert table.p_holm["log_likelihood"] < 1e-6
    assert table.p_holm[list(FREE)].min() > 1e-4  # false alarm of this line, whatever the seed
    assert bayes.uniformity_verdict(ranks) in said
    assert "log_likelihood: p" in said
    image = matplotlib.image.imread(out / "ranks.png")
    assert image.shape[0] > 200
    assert image.std() > 0.01  # not blank

    (out / "uniformity.csv").unlink()
    assert main(asked) == 2
    assert "To take up an interrupted run there, add --resume" in capsys.readouterr().err
    assert main([*asked, "--resume", "--false-alarm", "0.05"]) == 0
    assert "with probability 0.05 at most" in capsys.readouterr().out
    assert (out / "uniformity.csv").exists()
    assert main([*asked[:-4], "--seed", "5", "--out", str(out), "--resume"]) == 2
    assert "seed: 4 there, 5 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--false-alarm", "0"], "--false-alarm must lie between 0 and 1"),
        (["--kept", "41"], "kept must lie in 1 … 40"),
        (["--error", "proda", "--kept", "9"], "cannot be drawn from the error model"),
        (["--free", "q11"], "free names"),
    ],
)
def test_wrong_requests_end_with_a_sentence(tmp_path, capsys, wrong, words):
    assert main(["calibrate", *SMALL, *wrong, "--out", str(tmp_path / "b")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_defaults_are_those_of_the_package():
    ours, theirs = inspect.signature(calibrate).parameters, inspect.signature(bayes.calibrate).parameters
    for name in ("simulations", "kept", "seed"):
        assert ours[name].default == theirs[name].default, name
    assert ours["false_alarm"].default == inspect.signature(bayes.uniformity).parameters["false_alarm"].default
