"""On virtual sites the network finds what the data can tell: the carbon of unseen sites, and a parameter behind it.

Everything is seeded, so a result moves only with the code or the arithmetic. Limits were set from other pairs of land
and network: on ten lands of 400 sites (mean, sd) NSE of ln SOC at test sites 0.76, 0.10; on ten of 1000 sites NSE
0.82, 0.03, correlation of beta with its truth 0.57, 0.13, mean correlation over all 21 parameters 0.21, 0.04. No single
parameter is found on every land, as carbon alone does not tell them apart: tau4s3 had 0.68, 0.06 on the former lands
and 0.31, 0.34 on the latter. The quick test therefore is about one land; the slow one pools five.
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
TAU4S3 = clm5.NAMES.index("tau4s3")


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
def test_recovery_on_other_lands():
    """Means over five lands of 1000 sites: every limit lies four sd or more from a right network and from chance.

    By chance (covariates of another site) a correlation over 100 test sites has sd 0.1, so the mean of five 0.045, and
    of five times 21 parameters 0.01.
    """
    skills, correlations = [], []
    for seed in range(5):
        sites = clm5.sites.virtual(1000, seed=200 + seed)
        run = binn.fit(sites, seed=seed, progress=False)
        test = held_out(run, sites)
        skills.append(skill(run.predict(test), test, run.config.model))
        correlations.append([recovery(run, sites, parameter) for parameter in range(21)])
    assert np.mean(skills) > 0.7
    assert np.mean(correlations) > 0.1
    assert np.mean(correlations, axis=0)[clm5.NAMES.index("beta")] > 0.3
