"""Virtual sites for the sampler's tests."""

import jax
import pytest

import clm5


@pytest.fixture(scope="session")
def sites():
    return clm5.sites.virtual(5, seed=3)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def columns(sites, float64):
    """Forcing and observations of the sites, in float64."""
    return clm5.Forcing.from_sites(sites), clm5.Observations.from_sites(sites)
