"""Sites that the tests of splits place on the globe."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import strategies as st

import binn
from binn.splits import FOLD_RULES

seeds = st.integers(0, 2**32 - 1)
fold_rule = pytest.mark.parametrize("rule", FOLD_RULES)


def places(n=200, seed=0):
    rng = np.random.default_rng(seed)
    return xr.Dataset(
        {"lon": ("site", rng.uniform(-120, -70, n)), "lat": ("site", rng.uniform(25, 50, n))},
        coords={"site": [f"s{i}" for i in range(n)]},
    )


def world(n=150, seed=0, several=True):
    """Sites all over the globe, listed in both notations of longitude; up to four at a place; three covariates."""
    rng = np.random.default_rng(seed)
    at = rng.integers(0, n // 2, n) if several else np.arange(n)
    lon, lat = np.round(rng.uniform(-180, 180, n), 3)[at], np.round(np.degrees(np.arcsin(rng.uniform(-1, 1, n))), 3)[at]
    lon = lon + 360.0 * (rng.uniform(size=n) < 0.5)
    covariate = {"role": "covariate", "units": "1"}
    return xr.Dataset(
        {
            "lon": ("site", lon),
            "lat": ("site", lat),
            "warmth": ("site", 30 - np.abs(lat) / 2 + rng.normal(size=n), covariate),
            "rain": ("site", rng.gamma(2.0, 500.0, n), covariate),
            "constant": ("site", np.ones(n), covariate),
            "rock": ("site", at % 3, covariate | {"flag_values": [0, 1, 2], "flag_meanings": "a b c"}),
        },
        coords={"site": rng.permutation([f"s{i}" for i in range(n)])},
    )


def with_climate(sites, classes, name="Koppen_class"):
    attrs = {"role": "covariate", "units": "1", "flag_values": np.arange(30)}
    return sites.assign({name: ("site", np.asarray(classes), attrs)})


def place_of(sites):
    degrees = [np.round(sites.lon.values % 360, 4) % 360, np.round(sites.lat.values, 4)]
    return np.unique(np.column_stack(degrees), axis=0, return_inverse=True)[1].ravel()


def all_folds(sites, rule, folds=5, seed=0):
    """Labels of every fold, (fold, site)."""
    return np.array([binn.split(sites, rule, seed=seed, folds=folds, fold=fold) for fold in range(folds)])


def divided(labels, group):
    """Number of groups whose sites do not all have one label."""
    return sum(len(set(labels[group == number])) > 1 for number in np.unique(group))
