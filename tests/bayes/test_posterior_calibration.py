"""Simulation-based calibration of all 21 parameters and the log likelihood, at full size.

What it can see, by simulation of one quantity with 128 replicates and 40 independent draws (400 experiments each, for a
normal posterior, and for a uniform one as of a parameter that the data do not tell): a fault in a single quantity is
called at these rates.

| fault | normal | uniform |
|---|---|---|
| half as wide | 100 % | 100 % |
| twice as wide | 100 % | 100 % |
| 0.7 times as wide | 41 % | 100 % |
| 1.5 times as wide | 62 % | 100 % |
| 0.5 sd aside | 72 % | 88 % |
| 0.35 sd aside | 15 % | 40 % |

A smaller fault in one parameter mostly passes; the brute-force test of `test_sampling.py` is the sharper one there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import bayes
import clm5
from bayes import diagnostics, sampling

pytestmark = pytest.mark.slow

OPTIONS = clm5.ModelOptions()
CONFIG = bayes.Config(OPTIONS, warmup=300, draws=400, batch=32)
REPLICATES = 128
KEPT = 40  # draws per site for ranks, thinned until nearly independent
FALSE_ALARM = 1e-4  # of each of the two tests that spend it, over all quantities and statistics that it looks at


@pytest.fixture(scope="module")
def replicates():
    """Sites whose truth is drawn from the prior and horizons from the likelihood, and their posterior."""
    sites = clm5.sites.virtual(REPLICATES, seed=11)
    truth = np.random.default_rng(12).uniform(size=(REPLICATES, 21))
    with jax.enable_x64(True):
        forcing, observations = clm5.Forcing.from_sites(sites), clm5.Observations.from_sites(sites)
        simulate = jax.jit(lambda unit: clm5.simulate(OPTIONS.space.physical(unit), forcing).soc)
        soc = simulate(jnp.asarray(truth))
        measured = np.array(clm5.sample_observations(jax.random.key(13), soc, observations, OPTIONS))
        sites = sites.assign(soc=(("site", "horizon"), measured, sites.soc.attrs))
        ids = [str(name) for name in sites["site"].values]
        parts = list(sampling._batches(sites, ids, CONFIG, 0, None, False))
        unit = np.concatenate([part["unit"] for part in parts], axis=2)
        thinned = unit[:, :: CONFIG.draws * CONFIG.chains // KEPT].reshape(-1, REPLICATES, 21)
        fit = jax.jit(
            jax.vmap(lambda s: jnp.sum(clm5.log_likelihood(s, clm5.Observations.from_sites(sites), OPTIONS), -1))
        )
        quantity = np.concatenate([thinned, np.asarray(fit(jax.vmap(simulate)(jnp.asarray(thinned))))[..., None]], -1)
        true_quantity = np.concatenate([truth, np.asarray(fit(soc[None]))[0][:, None]], -1)
    return unit, quantity, true_quantity  # the last quantity is the log likelihood


def p_values(quantity, truth) -> np.ndarray:
    """p-value of uniform ranks for every quantity, times the number of quantities.

    The smallest of three statistics, times three: Kolmogorov-Smirnov of the ranks; mean and sum of squares of their
    normal scores (Cook, Gelman & Rubin 2006), which see a shift and a wrong width where Kolmogorov-Smirnov is weak.
    """
    n = len(quantity)
    ranks = (quantity < truth).sum(0)  # 0 … n
    place = (ranks + np.random.default_rng(0).uniform(size=ranks.shape)) / (n + 1)  # exactly uniform if calibrated
    replicates, quantities = place.shape
    score = stats.norm.ppf(place)
    ks = [stats.kstest(place[:, i], "uniform").pvalue for i in range(quantities)]
    shift = 2 * stats.norm.sf(np.abs(score.sum(0)) / np.sqrt(replicates))
    squares = (score**2).sum(0)
    width = 2 * np.minimum(stats.chi2.cdf(squares, replicates), stats.chi2.sf(squares, replicates))
    return np.min([ks, shift, width], axis=0) * 3 * quantities


def test_ranks_of_the_truth_are_uniform(replicates):
    """A fault in a quantity alone must be called in it; see the rates at the head of this file."""
    _, quantity, truth = replicates
    assert p_values(quantity, truth).min() > FALSE_ALARM
    centre = quantity.mean(0)
    for factor in (0.5, 2.0):
        assert p_values(centre + factor * (quantity - centre), truth).max() < FALSE_ALARM  # in every one
    aside = p_values(quantity + 0.5 * quantity.std(0), truth) < FALSE_ALARM
    assert aside.mean() > 0.4  # 0.7 or more expected; quantities of a replicate are not independent


def test_intervals_of_ninety_percent_hold_the_truth_nine_times_in_ten(replicates):
    unit, _, truth = replicates
    low, high = np.quantile(unit, [0.05, 0.95], axis=(0, 1))
    held = ((truth[:, :21] > low) & (truth[:, :21] < high)).sum(0)
    bounds = stats.binom.ppf([FALSE_ALARM / 42, 1 - FALSE_ALARM / 42], REPLICATES, 0.9)
    assert held.min() >= bounds[0]
    assert held.max() <= bounds[1]
    narrow_low, narrow_high = np.quantile(unit, [0.25, 0.75], axis=(0, 1))  # intervals of half the draws are caught
    assert ((truth[:, :21] > narrow_low) & (truth[:, :21] < narrow_high)).sum(0).min() < bounds[0]


def test_chains_agree(replicates):
    found = diagnostics.estimate(replicates[0])
    assert np.mean(found["rhat"].max(1) < 1.02) > 0.8
    assert np.median(np.minimum(found["ess_bulk"], found["ess_tail"]).min(1)) > 300
