"""The posterior file: whole, labelled, read back as written, and refused when it is not one."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import xarray as xr

import clm5
from clm5 import posterior as posterior_module

COST = {"method": "nuts", "wall_time": 1.5, "n_solves": 10, "n_gradients": 20}


@pytest.fixture(scope="module")
def sites():
    return clm5.sites.virtual(5, seed=1)


@pytest.fixture(scope="module")
def made(sites):
    unit = np.random.default_rng(0).uniform(0.1, 0.9, (2, 6, 5, 21))
    stats = {"diverging": np.zeros((2, 6, 5), bool)}
    known = {"split": (("site",), np.array(["train", "test", "train", "train", "new"]))}
    options = clm5.ModelOptions()
    tree = clm5.assemble_posterior(
        unit, sites, options, **COST, seed=4, sample_stats=stats, constant=known, attrs={"chains": 2}
    )
    return unit, tree


def test_groups_dimensions_and_labels(made, sites):
    unit, tree = made
    post = tree["posterior"]
    assert post.theta.dims == post.unit.dims == ("chain", "draw", "site", "parameter")
    assert post.processes.dims == ("chain", "draw", "site", "process")
    assert post.soc.dims == ("chain", "draw", "site", "layer")
    assert list(post.parameter.values) == list(clm5.NAMES)
    assert list(post.process.values) == list(clm5.PROCESSES)
    assert list(post.site.values) == list(sites.site.values)
    for group in ("posterior_predictive", "log_likelihood"):
        assert tree[group].soc_observed.dims == ("chain", "draw", "site", "horizon")
    assert tree["prior"].sizes["chain"] == 1
    for group in tree.subtree:
        for name, variable in group.variables.items():
            assert not isinstance(variable.data, jax.Array), name
    assert tree.attrs["method"] == "nuts"
    assert tree.attrs["sites_fingerprint"] == clm5.sites.fingerprint(sites)
    assert {"bounds", "rules", "operator", "error", "sigma", "seed", "n_solves", "n_gradients"} <= set(tree.attrs)
    np.testing.assert_allclose(post.theta, clm5.ParameterSpace("binn").physical(unit.astype(np.float32)), rtol=1e-4)


def test_what_follows_from_the_draws_is_what_the_model_says(made, sites):
    unit, tree = made
    options = clm5.ModelOptions()
    with jax.enable_x64(True):
        forcing, observations = clm5.Forcing.from_sites(sites), clm5.Observations.from_sites(sites)
        theta = options.space.physical(unit[1, 3])
        state = clm5.simulate(theta, forcing)
        density = np.asarray(clm5.log_likelihood(state.soc, observations, options))
        six = np.asarray(clm5.processes(theta, forcing, state).stacked())
    found = tree["log_likelihood"].soc_observed[1, 3].values
    np.testing.assert_allclose(np.nan_to_num(found), density, rtol=1e-5, atol=1e-5)
    assert np.array_equal(np.isnan(found), np.isnan(sites.soc.values))
    np.testing.assert_allclose(tree["posterior"].processes[1, 3], six, rtol=1e-5)
    truth = tree["constant_data"]
    with jax.enable_x64(True):
        state = clm5.simulate(sites.true_theta.values, forcing)
        six = clm5.processes(sites.true_theta.values, forcing, state).stacked()
    np.testing.assert_allclose(truth.true_processes, six, rtol=1e-5)


def test_many_sites_are_carried_in_blocks(made, sites, monkeypatch):
    unit, tree = made
    monkeypatch.setattr(posterior_module, "COLUMNS_AT_ONCE", 2)
    again = clm5.assemble_posterior(unit, sites, clm5.ModelOptions(), **COST, seed=4)
    np.testing.assert_allclose(again["posterior"].soc, tree["posterior"].soc, rtol=1e-6)
    np.testing.assert_allclose(again["prior"].processes, tree["prior"].processes, rtol=1e-5)
    drawn = again["posterior_predictive"].soc_observed, tree["posterior_predictive"].soc_observed
    np.testing.assert_allclose(*drawn, rtol=1e-5)  # noise follows from the site, whichever others are computed with it


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_round_trip_in_another_process(made, tmp_path, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr", reason="Zarr files need the extra 'zarr'")
    _, tree = made
    path = clm5.save_posterior(tree, tmp_path / f"posterior{suffix}")
    code = (
        f"import clm5; t = clm5.open_posterior({str(path)!r}); print(float(t['posterior'].soc.sum()), t.attrs['seed'])"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert float(printed[0]) == pytest.approx(float(tree["posterior"].soc.sum()), rel=1e-5)
    assert printed[1] == "4"
    read = clm5.open_posterior(path)
    xr.testing.assert_identical(read["posterior"].dataset.drop_attrs(), tree["posterior"].dataset.drop_attrs())
    assert list(tmp_path.iterdir()) == [path], "nothing temporary is left"


def test_an_interrupted_write_leaves_nothing(made, tmp_path, monkeypatch):
    def fails(self, path, **kwargs):
        with open(path, "wb") as half:
            half.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(xr.DataTree, "to_netcdf", fails)
    with pytest.raises(OSError, match="disk full"):
        clm5.save_posterior(made[1], tmp_path / "posterior.nc")
    assert not list(tmp_path.iterdir())


def test_refusals(made, sites, tmp_path):
    unit, tree = made
    broken = unit.copy()
    broken[0, 1, 2, 2] = 1.5
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\](.|\n)*virtual-0003.*q10"):
        clm5.assemble_posterior(broken, sites, clm5.ModelOptions(), **COST, seed=0)
    with pytest.raises(ValueError, match="5 sites, 21 parameters"):
        clm5.assemble_posterior(unit[:, :, :4], sites, clm5.ModelOptions(), **COST, seed=0)
    with pytest.raises(FileNotFoundError, match="no posterior file"):
        clm5.open_posterior(tmp_path / "none.nc")
    clm5.sites.save(sites, tmp_path / "sites.nc")
    with pytest.raises(ValueError, match="has no group 'posterior'"):
        clm5.open_posterior(tmp_path / "sites.nc")
    with pytest.raises(ValueError, match=r"must end in \.nc or \.zarr"):
        clm5.save_posterior(tree, tmp_path / "posterior.csv")
    later = tree.copy()
    later.attrs["schema_version"] = 99
    path = clm5.save_posterior(later, tmp_path / "later.nc")
    with pytest.raises(ValueError, match="schema version 99"):
        clm5.open_posterior(path)


TWO_DEVICES = """
import jax, numpy as np, clm5
from clm5 import posterior
sites = clm5.sites.virtual(5, seed=0)
unit = np.random.default_rng(0).uniform(0.1, 0.9, (1, 37, 5, 21))
posterior.COLUMNS_AT_ONCE = 20
assert len(jax.devices()) == 2
used, real = set(), posterior._consequences
def watch(unit, *rest):
    used.update(unit.devices())
    return real(unit, *rest)
posterior._consequences = watch
found = []
for least in (10**9, 1):
    posterior.WORTH_SPREADING = least
    used.clear()
    tree = clm5.assemble_posterior(
        unit, sites, clm5.ModelOptions(), method="test", seed=3, wall_time=0, n_solves=0, n_gradients=0
    )
    found.append(tree)
    print(len(used))
for group in ("posterior", "posterior_predictive", "log_likelihood", "prior"):
    for name, values in found[0][group].data_vars.items():
        np.testing.assert_allclose(found[1][group][name], values, rtol=1e-6, err_msg=name)
"""


@pytest.mark.slow
def test_a_file_computed_on_two_devices_is_that_of_one():
    """37 draws in pieces of 4, the last one filled up; predictive draws included."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["1", "2"]
