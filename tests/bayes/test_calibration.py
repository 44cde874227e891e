"""Simulation-based calibration: simulations are what they claim, ranks are the truth's, and a kill loses little.

Slow: all 21 parameters, log likelihood and stock, right and with planted faults. Rates at which a fault in one quantity
alone is called, over 23 quantities (150 experiments each: normal posterior / uniform one, as where data tell nothing):

| fault | 96 simulations, 49 draws, FALSE_ALARM | `binn calibrate`: 200, 99, 1 % | 1000, 99, 1 % |
|---|---|---|---|
| half as wide | 91 % / 100 % | 100 % / 100 % | 100 % / 100 % |
| 0.7 times as wide | 3 % / 99 % | 90 % / 100 % | 100 % / 100 % |
| 0.8 times as wide | 1 % / 65 % | 23 % / 100 % | 99 % / 100 % |
| 1.5 times as wide | 1 % / 26 % | 85 % / 100 % | 100 % / 100 % |
| twice as wide | 25 % / 100 % | 100 % / 100 % | 100 % / 100 % |
| 0.5 sd aside | 26 % / 83 % | 100 % / 100 % | 100 % / 100 % |
| 0.35 sd aside | 1 % / 41 % | 78 % / 100 % | 100 % / 100 % |
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from chances import z_limit

import bayes
import clm5
from bayes import calibration

FREE = ("q10", "tau4s3")
OPTIONS = clm5.ModelOptions()
CONFIG = bayes.Config(OPTIONS, chains=4, warmup=200, draws=40, max_tree_depth=5, batch=2, free=FREE, reruns=0)
WHERE = [clm5.NAMES.index(name) for name in FREE]
FALSE_ALARM = 1e-4  # of a set of ranks, over all its quantities


def same(ranks: xr.Dataset, other: xr.Dataset) -> bool:
    """The same ranks of the same quantities; sums over other numbers of sites round differently."""
    close = (np.allclose(ranks[name], other[name], rtol=1e-9) for name in ("truth", "mean", "sd", "r_hat", "ess"))
    return bool(ranks["rank"].equals(other["rank"]) and ranks["converged"].equals(other["converged"]) and all(close))


def test_truths_are_uniform_and_data_follow_the_error_model(sites):
    n = 400
    simulated = bayes.simulated_sites(sites, CONFIG, n, seed=1)
    clm5.sites.check(simulated)
    unit = simulated["true_unit"].values
    np.testing.assert_array_equal(np.delete(unit, WHERE, 1), np.tile(np.delete(CONFIG.fixed_unit, WHERE), (n, 1)))
    free = unit[:, WHERE]
    with jax.enable_x64(True):
        forcing, observations = clm5.Forcing.from_sites(simulated), clm5.Observations.from_sites(simulated)
        theta = OPTIONS.space.physical(jnp.asarray(unit))
        soc = clm5.simulate(theta, forcing, OPTIONS.rules).soc
        predicted = np.asarray(clm5.predict_horizons(soc, observations, OPTIONS))
    np.testing.assert_allclose(simulated["true_theta"], theta, rtol=1e-12)
    residual = (np.log(simulated["soc"].values) - np.log(predicted)) / OPTIONS.sigma
    residual = residual[np.isfinite(residual)]
    z = [
        *(free.mean(0) - 0.5) / np.sqrt(1 / 12 / n),
        *(((free - 0.5) ** 2).mean(0) - 1 / 12) / np.sqrt(1 / 180 / n),
        residual.mean() * np.sqrt(residual.size),
        ((residual**2).mean() - 1) / np.sqrt(2 / residual.size),
    ]
    assert np.abs(z).max() < z_limit(len(z))
    assert np.abs(((1.2 * residual) ** 2).mean() - 1) / np.sqrt(2 / residual.size) > z_limit(len(z))  # sigma + 20 %
    np.testing.assert_array_equal(simulated["simulated_at"][:6], [*sites["site"].values, sites["site"].values[0]])
    np.testing.assert_array_equal(simulated["soil_temperature"][5], sites["soil_temperature"][0])


def test_a_simulation_depends_on_its_number_alone(sites):
    few, more = (bayes.simulated_sites(sites, CONFIG, n, seed=2) for n in (3, 7))
    xr.testing.assert_allclose(few["soc"], more["soc"].isel(site=slice(3)), rtol=1e-12)
    xr.testing.assert_identical(few["true_unit"], more["true_unit"].isel(site=slice(3)))
    other = bayes.simulated_sites(sites, CONFIG, 3, seed=3)
    assert not np.any(few["true_unit"].values[:, WHERE] == other["true_unit"].values[:, WHERE])


def test_carbon_that_no_site_file_holds_is_drawn_again(sites, monkeypatch):
    plain = bayes.simulated_sites(sites, CONFIG, 5, seed=1)
    limit = float(np.nanmax(plain["soc"])) * 0.9
    monkeypatch.setattr(calibration, "MOST_CARBON", limit)
    again = bayes.simulated_sites(sites, CONFIG, 5, seed=1)
    assert again.attrs["drawn_again"] > plain.attrs["drawn_again"] == 0
    changed = (plain["true_unit"] != again["true_unit"]).any("parameter")
    np.testing.assert_array_equal(changed, plain["soc"].max("horizon") > limit)  # truth and data together
    xr.testing.assert_allclose(again["soc"][~changed.values], plain["soc"][~changed.values], rtol=1e-12)
    assert float(again["soc"].max()) <= limit
    monkeypatch.setattr(calibration, "MOST_CARBON", 1e-3)
    with pytest.raises(ValueError, match=f"at site {sites['site'].values[0]}, 50 draws from the prior in a row"):
        bayes.simulated_sites(sites, CONFIG, 5, seed=1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"simulations": 0}, "simulations must be at least 1"),
        ({"config": bayes.Config(clm5.ModelOptions(error="proda", sigma=0.6))}, "cannot be drawn from the error model"),
        ({"unit": np.full((4, 20), 0.5)}, r"unit must have shape \(4, 21\)"),
        ({"unit": np.full((4, 21), 1.5)}, r"lie in \[0, 1\]"),
    ],
)
def test_wrong_requests_are_refused(sites, wrong, words):
    with pytest.raises(ValueError, match=words):
        bayes.simulated_sites(**{"sites": sites, "simulations": 4} | wrong)


@pytest.fixture(scope="module")
def small(sites):
    """Simulations, their posterior and the ranks in it."""
    simulated = bayes.simulated_sites(sites, CONFIG, 5, seed=5)
    tree = bayes.sample(simulated, CONFIG, seed=5, progress=False)
    return simulated, tree, bayes.truth_ranks(tree, simulated, kept=19)


def test_ranks_count_the_evenly_spaced_draws_below_the_truth(small):
    simulated, tree, ranks = small
    assert list(ranks["quantity"].values) == [*FREE, "log_likelihood", "stock"]
    assert list(ranks["is_parameter"].values) == [True, True, False, False]
    pooled = (
        tree["posterior"].dataset.stack(all=("chain", "draw")).isel(all=((np.arange(19) + 0.5) * 160 / 19).astype(int))
    )
    parameters = pooled["unit"].sel(parameter=list(FREE)).transpose("all", "site", "parameter").values
    truth = simulated["true_unit"].sel(parameter=list(FREE)).values
    np.testing.assert_array_equal(ranks["rank"][:, :2], (parameters < truth).sum(0))
    np.testing.assert_allclose(ranks["mean"][:, :2], parameters.mean(0), rtol=1e-6)
    np.testing.assert_allclose(ranks["sd"][:, :2], parameters.std(0, ddof=1), rtol=1e-6)
    fit = tree["log_likelihood"]["soc_observed"].sum("horizon").stack(all=("chain", "draw")).sel(all=pooled["all"])
    true_fit = ranks["truth"].sel(quantity="log_likelihood").values
    np.testing.assert_array_equal(ranks["rank"].sel(quantity="log_likelihood"), (true_fit > fit.values.T).sum(0))
    np.testing.assert_allclose(ranks["mean"].sel(quantity="log_likelihood"), fit.values.mean(1), rtol=1e-5)
    thickness = clm5.grid.THICKNESS
    stock = (pooled["soc"].transpose("all", "site", "layer").values * thickness).sum(-1)
    np.testing.assert_allclose(ranks["mean"].sel(quantity="stock"), stock.mean(0), rtol=1e-5)
    beside = tree["diagnostics"].to_dataset()
    np.testing.assert_array_equal(ranks["converged"], bayes.converged(beside))
    assert not ranks["converged"].any()  # 160 draws are never 400 effective ones: kept all the same
    assert np.all(ranks["r_hat"] >= beside["rhat"].max("parameter").values)
    assert np.all(ranks["ess"] <= beside["ess_bulk"].min("parameter").values)


def test_ranks_of_other_sites_are_refused(small, sites):
    simulated, tree, _ = small
    with pytest.raises(ValueError, match="made from other sites"):
        bayes.truth_ranks(tree, simulated.assign(soc=simulated["soc"] * 1.01), kept=19)
    with pytest.raises(ValueError, match="must hold true_unit"):
        bayes.truth_ranks(tree, simulated.drop_vars("true_unit"), kept=19)
    summaries = tree.copy()
    del summaries["posterior"]["unit"]
    with pytest.raises(ValueError, match="holds no draws"):
        bayes.truth_ranks(summaries, simulated, kept=19)
    with pytest.raises(ValueError, match="kept must lie in 1 … 160"):
        bayes.truth_ranks(tree, simulated, kept=161)
    with pytest.raises(ValueError, match="kept must lie in 1 … 160"):
        bayes.calibrate(sites, CONFIG, 4, kept=161)


ASKED = {"config": CONFIG, "simulations": 5, "seed": 5, "kept": 19, "progress": False}


def test_calibration_simulates_samples_and_ranks(small, sites, tmp_path):
    ranks = bayes.calibrate(sites, **ASKED, out=tmp_path / "a")
    assert same(ranks, small[-1])
    assert not same(ranks, small[-1].assign(rank=small[-1]["rank"] + 1))
    assert ranks.attrs["kept"] == 19
    assert ranks.attrs["wall_time_s"] > 0
    xr.testing.assert_identical(bayes.calibrate(sites, **ASKED, out=tmp_path / "a"), ranks)  # finished: only read
    with pytest.raises(ValueError, match="kept: 19 there, 20 now"):
        bayes.calibrate(sites, **ASKED | {"kept": 20}, out=tmp_path / "a")
    with pytest.raises(FileExistsError, match="resume=True"):
        bayes.calibrate(sites, **ASKED, out=tmp_path / "a", resume=False)


def test_a_killed_calibration_goes_on_after_its_last_group(small, sites, tmp_path, monkeypatch):
    _, tree, expected = small
    asked = ASKED | {"config": dataclasses.replace(CONFIG, batch=3)}  # two groups, of three simulations and of two
    sampled: list[list[str]] = []

    def known_draws(members, config, *, seed, progress):
        """Draws that were sampled before, of the sites that are asked for."""
        if len(sampled) == 1:
            sampled.append([])
            raise KeyboardInterrupt
        sampled.append([str(name) for name in members["site"].values])
        part = tree.map_over_datasets(lambda group: group.sel(site=sampled[-1]) if "site" in group.dims else group)
        part.attrs = tree.attrs | {"sites_fingerprint": clm5.sites.fingerprint(members)}
        return part

    monkeypatch.setattr(calibration, "BATCHES_AT_ONCE", 1)
    monkeypatch.setattr(calibration, "sample", known_draws)
    with pytest.raises(KeyboardInterrupt):
        bayes.calibrate(sites, **asked, out=tmp_path / "a")
    assert not (tmp_path / "a" / "ranks.nc").exists()
    with pytest.raises(ValueError, match="seed: 5 there, 6 now"):
        bayes.calibrate(sites, **asked | {"seed": 6}, out=tmp_path / "a")
    ranks = bayes.calibrate(sites, **asked, out=tmp_path / "a")
    assert [name for group in sampled for name in group] == list(expected["simulation"].values)  # none of them twice
    assert same(ranks, expected)


ALL = bayes.Config(OPTIONS, chains=2, warmup=250, draws=400, max_tree_depth=5, batch=32, reruns=0)
KEPT = 49


def ranks_of(simulated) -> tuple[xr.DataTree, xr.Dataset]:
    """The posterior of `ALL` and the ranks of the truth in it."""
    tree = bayes.sample(simulated, ALL, seed=1, progress=False)
    return tree, bayes.truth_ranks(tree, simulated, KEPT)


@pytest.fixture(scope="module")
def lent():
    return clm5.sites.virtual(96, seed=11)


@pytest.fixture(scope="module")
def right(lent):
    simulated = bayes.simulated_sites(lent, ALL, 96, seed=12)
    return simulated, *ranks_of(simulated)


def alarms(ranks: xr.Dataset) -> list[str]:
    table = bayes.uniformity(ranks, FALSE_ALARM)
    return list(table.index[table.alarm])


@pytest.mark.slow
def test_the_sampler_is_calibrated(right):
    _, _, ranks = right
    assert ranks.sizes == {"simulation": 96, "quantity": 23}
    assert float(ranks["ess"].median()) > KEPT  # of the worst quantity of a simulation
    assert alarms(ranks) == []


@pytest.mark.slow
def test_a_posterior_drawn_in_by_a_fifth_is_caught(right):
    simulated, tree, _ = right
    unit = tree["posterior"]["unit"]
    centre = unit.mean(("chain", "draw"))
    narrow = tree.copy()
    narrow["posterior"]["unit"] = centre + 0.8 * (unit - centre)
    assert alarms(bayes.truth_ranks(narrow, simulated, KEPT))


@pytest.mark.slow
def test_a_wrong_sigma_is_caught(lent):
    noisier = dataclasses.replace(ALL, model=dataclasses.replace(OPTIONS, sigma=1.5 * OPTIONS.sigma))
    _, ranks = ranks_of(bayes.simulated_sites(lent, noisier, 32, seed=13))
    assert "log_likelihood" in alarms(ranks)


@pytest.mark.slow
def test_a_shifted_prior_is_caught(lent):
    unit = np.random.default_rng(14).uniform(0.4, 1.0, size=(32, 21))  # the sampler takes 0 … 1 for granted
    _, ranks = ranks_of(bayes.simulated_sites(lent, ALL, 32, seed=14, unit=unit))
    assert len(alarms(ranks)) >= 3
