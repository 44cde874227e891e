"""What the check lets pass and how it speaks; what it must refuse is in test_site_faults."""

import hypothesis.strategies as st
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings

import clm5.sites
from clm5.sites.schema import VARIABLES
from tests.clm5.sites.good_sites import GOOD, N, changed, good, one_horizon, refusal

RANGED = [v for v in VARIABLES if not v.padded]


def test_the_good_data_set_passes_and_is_left_alone():
    sites = good()
    clm5.sites.check(sites)
    xr.testing.assert_identical(sites, GOOD)


def test_a_site_without_an_observation_is_refused_for_training_and_allowed_for_prediction():
    sites = good()
    for name in ("upper", "lower", "soc"):
        sites[name][4] = np.nan
    assert "virtual-0005: soc no horizon is complete" in refusal(sites)
    clm5.sites.check(sites, observations=False)


@pytest.mark.parametrize(
    ("upper", "lower", "bedrock"), [(0.9, 0.92, 8), (0.5, 1.3, 8), (8.0, 9.2, 25), (0.1, 0.101, 20)]
)
def test_a_horizon_with_its_middle_in_the_soil_passes(upper, lower, bedrock):
    clm5.sites.check(one_horizon(upper, lower, bedrock=bedrock))


def test_a_few_desert_sites_pass_and_many_of_their_kind_do_not():
    sites = changed("soc", lambda v: v / np.nanmax(v) * 500.0)
    clm5.sites.check(sites)
    many = xr.concat(
        [sites.assign_coords(site=[f"{k}-{i}" for i in range(N)]) for k in "ab"],
        "site",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
    )
    assert "soc must be gC m-3" in refusal(many.drop_vars(["true_theta", "true_unit", "true_soc"]))


def test_all_problems_are_listed_at_once():
    sites = changed("soil_temperature", lambda v: v - 273.15).drop_vars("lon")
    sites["soc"][1, 0] = -1.0
    message = refusal(sites)
    assert message.startswith("site data set: 3 problems found")
    assert all(name in message for name in ("lon (longitude) is missing", "soil_temperature must", "soc must lie"))


@pytest.mark.parametrize(("name", "spelling"), [("soil_temperature", "kelvin"), ("soc", "g m-3"), ("upper", "metres")])
def test_other_spellings_of_the_same_unit_pass(name, spelling):
    sites = good()
    sites[name].attrs["units"] = spelling
    clm5.sites.check(sites)


@settings(deadline=None, max_examples=60)
@given(
    variable=st.sampled_from(RANGED),
    where=st.integers(0, 10**6),
    value=st.one_of(st.sampled_from([np.nan, np.inf, -np.inf, -1e20, 1e20]), st.floats(-1e6, 1e6)),
)
def test_one_unusable_number_anywhere_is_found_and_a_usable_one_is_not(variable, where, value):
    sites = good()
    values = sites[variable.name].values.astype(float)
    index = np.unravel_index(where % values.size, values.shape)
    values[index] = value
    sites[variable.name] = sites[variable.name].copy(data=values)
    usable = variable.lower <= value <= variable.upper
    found = [p for p in clm5.sites.problems(sites) if "must lie in" in p]
    if usable:
        assert not found
    else:
        assert len(found) == 1
        assert f"site virtual-{index[0] + 1:04d}: {variable.name} must lie in" in found[0]
        assert "1 of" in found[0]


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(N)), st.integers(0, N - 1))
def test_the_order_of_sites_does_not_matter_and_the_right_site_is_named(order, which):
    sites = good().isel(site=list(order))
    clm5.sites.check(sites)
    sites["soc"][which, 0] = -5.0
    assert f"site {sites.site.values[which]}: soc must lie" in refusal(sites)
