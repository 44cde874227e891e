"""`bayes.sample_proda`: mended it agrees with brute force, and each published choice does what is said of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chances import z_limit

import bayes
import clm5
from bayes import diagnostics, proda

FREE = ("q10", "tau4s3")
WHERE = [clm5.NAMES.index(name) for name in FREE]
OPTIONS = clm5.ModelOptions()
MENDED = bayes.ProdaConfig.mended(
    model=OPTIONS, chains=4, explore=500, steps=4_000, draws=1_000, adapt_from=300, scale=5.7, batch=2, free=FREE
)
PUBLISHED = dataclasses.replace(
    MENDED, annealed=True, accepted_only=True, best_chain_only=True, filters=True, redraw=True, same_start=True,
    adapt_always=True, scale=2.4,
)  # fmt: skip

simulate = jax.jit(lambda theta, forcing: clm5.simulate(theta, forcing, OPTIONS.rules).soc)


@pytest.fixture(scope="module")
def made(sites):
    """Two sites whose horizons come from a column that is CLM5's default but for the two free parameters."""
    rng = np.random.default_rng(5)
    pair = sites.isel(site=[1, 3])
    with jax.enable_x64(True):
        unit = np.tile(MENDED.fixed_unit, (2, 1))
        unit[:, WHERE] = rng.uniform(0.3, 0.7, (2, 2))
        soc = simulate(OPTIONS.space.physical(jnp.asarray(unit)), clm5.Forcing.from_sites(pair))
        observations = clm5.Observations.from_sites(pair)
        measured = np.asarray(clm5.sample_observations(jax.random.key(1), soc, observations, OPTIONS))
    return pair.assign(soc=(("site", "horizon"), measured, pair.soc.attrs))


@pytest.fixture(scope="module")
def mended(made):
    return bayes.sample_proda(made, MENDED, progress=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("proda") / "run"


@pytest.fixture(scope="module")
def published(made, folder):
    """As published, but all chains and sites are reported."""
    config = dataclasses.replace(PUBLISHED, best_chain_only=False, filters=False)
    return bayes.sample_proda(made, config, folder, progress=False)


def grid_moments(site, sigma: float, n: int = 101) -> np.ndarray:
    """Posterior means of u and u² of the free unit values on an n × n grid of midpoints, (2, 2)."""
    middle = (np.arange(n) + 0.5) / n
    unit = np.tile(MENDED.fixed_unit, (n * n, 1))
    unit[:, WHERE] = np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2)
    with jax.enable_x64(True):
        forcing, observations = clm5.Forcing.from_sites(site)[0], clm5.Observations.from_sites(site)[0]
        soc = simulate(OPTIONS.space.physical(jnp.asarray(unit)), forcing)
        options = dataclasses.replace(OPTIONS, sigma=sigma)
        log_density = np.asarray(jnp.sum(clm5.log_likelihood(soc, observations, options), axis=-1))
    weight = np.exp(log_density - log_density.max())
    return (weight / weight.sum()) @ np.stack([unit[:, WHERE], unit[:, WHERE] ** 2])


def free_units(tree) -> np.ndarray:
    return tree["posterior"].unit.sel(parameter=list(FREE)).values.astype(float)


def test_mended_agrees_with_brute_force(mended, made):
    draws = free_units(mended)
    found = diagnostics.estimate(np.stack([draws, draws**2], axis=-2))
    right, wrong = (
        np.stack([grid_moments(made.isel(site=[i]), sigma) for i in range(2)])
        for sigma in (OPTIONS.sigma, 1.25 * OPTIONS.sigma)
    )
    limit = z_limit(right.size)
    assert np.abs((found["mean"] - right) / found["mcse_mean"]).max() < limit
    assert np.abs((found["mean"] - wrong) / found["mcse_mean"]).max() > limit  # sigma wrong by a quarter is caught


def test_published_draws_are_as_narrow_as_the_annealed_posterior(published, made):
    sd = free_units(published).std(axis=(0, 1))
    power = np.log(0.75 * PUBLISHED.steps)
    for i in range(2):
        exact, cold = (
            np.sqrt(square - mean**2)
            for mean, square in (grid_moments(made.isel(site=[i]), s) for s in (0.2, 0.2 / np.sqrt(power)))
        )
        assert np.all(sd[i] < 0.7 * exact)
        np.testing.assert_allclose(sd[i], cold, rtol=0.3)  # accepted states alone, and walls avoided


def test_only_accepted_states_are_stored_or_all(published, mended):
    for site, chain in np.ndindex(2, 4):
        draws = published["posterior"].unit.values[chain, :, site]
        stored = int(published["constant_data"].stored.values[site, chain])
        assert len(np.unique(draws, axis=0)) == min(stored, PUBLISHED.draws)
        # of the accepted ones the second half
        accepted = float(published["constant_data"].acceptance_rate[site, chain]) * PUBLISHED.steps
        assert stored == -(-round(accepted) // 2)
    assert np.all(mended["constant_data"].stored == MENDED.steps // 2)
    again = mended["posterior"].unit.values
    assert np.mean(np.all(again[:, 1:] == again[:, :-1], axis=-1)) > 0.1  # a chain that stays is counted as often


@pytest.mark.slow
def test_the_best_chain_is_the_one_of_least_rmse_and_filtered_sites_are_named(published, made, folder, monkeypatch):
    monkeypatch.setattr(proda._Sampler, "__call__", lambda *_: pytest.fail("finished batches are sampled again"))
    best = bayes.sample_proda(made, dataclasses.replace(PUBLISHED, filters=False), folder, progress=False)
    known = published["constant_data"]
    for i, chain in enumerate(known.rmse.values.argmin(axis=1)):
        expected = published["posterior"].unit.values[chain, :, i]
        np.testing.assert_array_equal(best["posterior"].unit.values[0, :, i], expected)
    assert best["posterior"].sizes["chain"] == 1
    soc = published["posterior"].soc.isel(site=0).values.mean(axis=1)
    with jax.enable_x64(True):
        predicted = np.asarray(clm5.observe(soc, made.upper.values[0], made.lower.values[0], OPTIONS.operator))
    rmse = np.sqrt(np.nanmean((predicted - made.soc.values[0]) ** 2, axis=-1))
    np.testing.assert_allclose(known.rmse[0], rmse, rtol=1e-4)  # float32 profiles

    monkeypatch.setattr(proda.proda_criteria, "passes", lambda *_: np.array([False, True]))
    kept = bayes.sample_proda(made, PUBLISHED, folder, progress=False)
    assert list(kept["posterior"].site.values) == [made.site.values[1]]
    assert kept.attrs["filtered_out"] == made.site.values[0]
    np.testing.assert_array_equal(kept["posterior"].unit.values[0, :, 0], best["posterior"].unit.values[0, :, 1])
    monkeypatch.setattr(proda.proda_criteria, "passes", lambda *_: np.array([False, False]))
    with pytest.raises(ValueError, match=r"no site passes PRODA's filters"):
        bayes.sample_proda(made, PUBLISHED, folder, progress=False)
    with pytest.raises(ValueError, match=r"config\.scale: 2\.4 there, 2\.0 now"):
        bayes.sample_proda(made, dataclasses.replace(PUBLISHED, scale=2.0), folder, progress=False)


def test_a_site_depends_on_seed_and_id_alone_and_the_file_says_what_was_done(mended, made):
    alone = bayes.sample_proda(made.isel(site=[1, 0]), MENDED, progress=False)
    np.testing.assert_array_equal(alone["posterior"].unit, mended["posterior"].unit.isel(site=[1, 0]))
    short = dataclasses.replace(MENDED, explore=20, steps=20, draws=8)
    first, other = (bayes.sample_proda(made, short, seed=seed, progress=False) for seed in (0, 1))
    assert not np.array_equal(first["posterior"].unit, other["posterior"].unit)
    assert mended.attrs["method"] == "proda"
    assert mended.attrs["n_solves"] == 2 * 4 * (1 + 500 + 4_000)
    assert [mended.attrs[name] for name in ("annealed", "redraw", "filters")] == [0, 0, 0]
    assert "rhat" in mended["diagnostics"]
    held = np.delete(np.arange(21), WHERE)
    np.testing.assert_allclose(
        mended["posterior"].unit.values[..., held], MENDED.fixed_unit[held] + np.zeros((4, 1000, 2, 19)), rtol=1e-6
    )


@pytest.mark.slow
def test_chains_that_accept_too_much_are_run_again_with_wider_proposals(made):
    timid = dataclasses.replace(PUBLISHED, scale=0.02, steps=400, explore=100, draws=50, filters=False)
    once, thrice = (bayes.sample_proda(made, dataclasses.replace(timid, retune=n), progress=False) for n in (0, 3))
    assert np.all(once["constant_data"].acceptance_rate > 0.5)
    assert once.attrs["n_solves"] == 2 * 4 * 501
    assert thrice.attrs["n_solves"] > once.attrs["n_solves"]
    assert thrice["constant_data"].acceptance_rate.mean() < once["constant_data"].acceptance_rate.mean()


def test_a_site_without_carbon_is_named(made):
    barren = made.copy(deep=True)
    barren["litter_input"][{"site": 1}] = 0.0
    with pytest.raises(ValueError, match=str(made.site.values[1])):
        bayes.sample_proda(barren, MENDED, progress=False)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"chains": 0}, "chains must be a whole number of at least 1"),
        ({"steps": 5}, "steps must be a whole number of at least 10"),
        ({"steps": 100, "draws": 60}, "60 draws cannot be kept of the second half of 100 steps"),
        ({"scale": 0.0}, "scale must be positive and finite"),
        ({"chains": 1}, "Gelman-Rubin needs at least 2 chains"),
        ({"free": ("q11",)}, "free names"),
        ({"free": ("beta",), "fixed": {"q10": 20.0}}, "outside the bounds"),
    ],
)
def test_wrong_settings_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        bayes.ProdaConfig(**wrong)
