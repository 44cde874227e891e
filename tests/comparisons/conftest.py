"""Fixtures of the comparison tests: one small pair of posterior files and what is made of it."""

import fake_trees
import numpy as np
import pytest

import comparisons


@pytest.fixture(scope="session")
def sites():
    return fake_trees.fake_sites(15)


@pytest.fixture(scope="session")
def network(sites):
    split = np.where(np.arange(15) % 3 == 0, "test", "train")
    return fake_trees.fake_tree(sites, method="mc_dropout", seed=2, chains=2, draws=200, split=split)


@pytest.fixture(scope="session")
def sampler(sites):
    return fake_trees.fake_tree(sites, seed=1)


@pytest.fixture(scope="session")
def result(network, sampler, sites):
    return comparisons.compare(network, sampler, sites)
