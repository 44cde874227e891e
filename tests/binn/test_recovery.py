"""On virtual sites the network finds what the data can tell: the carbon of unseen sites, and a parameter behind it.

Everything here is seeded, so a result moves only with the code or the arithmetic. Limits come from ten other pairs of
virtual land and network (mean, sd): NSE of ln SOC at test sites 0.76, 0.10; correlation of tau4s3 with its truth
0.68, 0.06. Both limits lie four to five sd below, where a right network lands less than once in ten thousand pairs.
Networks whose covariates were dealt to the wrong sites gave 0.02, 0.10 for tau4s3, four sd below its limit.
"""

import dataclasses

import jax
import numpy as np
import pytest

import binn
import clm5
from clm5.sites.schema import covariate_names

NSE_LIMIT = 0.3
TAU4S3_LIMIT = 0.4
TAU4S3 = clm5.NAMES.index("tau4s3")  # turnover of passive carbon: carbon at depth is nearly proportional to it


def held_out(run, sites):
    return sites.isel(site=np.flatnonzero(run.labels(sites) == "test"))


def skill(unit, sites, options):
    """1 − Σ error² / Σ (deviation from the mean)² of ln SOC, over all horizons: 0 for the best constant."""
    with jax.enable_x64(True):
        soc = clm5.simulate(options.space.physical(unit), clm5.Forcing.from_sites(sites), options.rules).soc
        modelled = np.asarray(clm5.observe(soc, sites.upper.values, sites.lower.values))
    observed = np.log(sites.soc.values)
    return 1 - np.nansum((np.log(modelled) - observed) ** 2) / np.nansum((observed - np.nanmean(observed)) ** 2)


def recovery(run, sites, parameter):
    test = held_out(run, sites)
    return np.corrcoef(run.predict(test)[:, parameter], test.true_unit[:, parameter])[0, 1]


def first_member(run):
    return dataclasses.replace(run, weights=run.weights[:1])


def test_carbon_of_unseen_sites_is_predicted(trained, sites):
    run = first_member(trained[0])
    test = held_out(run, sites)
    assert skill(run.predict(test), test, run.config.model) > NSE_LIMIT
    untrained = np.full((test.sizes["site"], 21), 0.5)  # what a network says before it has learned
    assert skill(untrained, test, run.config.model) < 0
    assert skill(test.true_unit.values, test, run.config.model) > 0.9  # the truth; the rest is measurement error


def test_turnover_of_passive_carbon_is_recovered(trained, sites, config):
    run = first_member(trained[0])
    assert recovery(run, sites, TAU4S3) > TAU4S3_LIMIT
    wrong = sites.copy(deep=True)  # every site gets the covariates of another one
    order = np.random.default_rng(0).permutation(sites.sizes["site"])
    for name in covariate_names(sites):
        wrong[name].values[:] = sites[name].values[order]
    assert recovery(binn.fit(wrong, config, seed=1, progress=False), wrong, TAU4S3) < TAU4S3_LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_recovery_on_other_land(seed):
    """With 1000 sites and the default configuration; the limits hold with more room."""
    sites = clm5.sites.virtual(1000, seed=100 + seed)
    run = binn.fit(sites, seed=seed, progress=False)
    test = held_out(run, sites)
    assert skill(run.predict(test), test, run.config.model) > NSE_LIMIT
    assert recovery(run, sites, TAU4S3) > TAU4S3_LIMIT
