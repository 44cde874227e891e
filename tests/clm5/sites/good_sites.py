"""A good site data set, and ways to spoil it."""

import numpy as np
import pytest
import xarray as xr

import clm5.sites

N = 6
GOOD = clm5.sites.virtual(N, seed=5)


def good() -> xr.Dataset:
    return GOOD.copy(deep=True)


def refusal(sites, **options) -> str:
    with pytest.raises(ValueError, match="site data set: ") as caught:
        clm5.sites.check(sites, **options)
    return str(caught.value)


def changed(name, change, *, units=None):
    """The good data set with one variable's values (and units) changed."""
    sites = good()
    sites[name] = sites[name].copy(data=change(sites[name].values.astype(float)))
    if units is not None:
        sites[name].attrs["units"] = units
    return sites


def at(index, value):
    def change(values):
        values[index] = value
        return values

    return change


def renamed_ids(ids):
    return good().assign_coords(site=("site", ids))


def one_horizon(upper, lower, *, bedrock=20):
    """The good data set with these depths of the first horizon of the first site, whose only one it then is."""
    sites = good()
    for name, value in (("upper", upper), ("lower", lower)):
        sites[name][0] = np.nan
        sites[name][0, 0] = value
    sites["soc"][0, 1:] = np.nan
    sites["bedrock_layer"][0] = bedrock
    return sites
