"""Virtual sites: deterministic, inside the box, plausible, their carbon what the model makes of the stored truth."""

import jax
import numpy as np
import pytest

import clm5
import clm5.sites
from clm5.grid import INTERFACE, THICKNESS
from clm5.sites.landscape import OUTLINE, inside
from clm5.sites.schema import covariate_names

SITES = clm5.sites.virtual(400, seed=0)
STOCK = (SITES.true_soc.values[:, :8] * THICKNESS[:8]).sum(axis=1) + SITES.true_soc.values[:, 8] * 0.08  # gC m⁻², 0-1 m


def test_the_same_seed_gives_the_same_sites_in_either_precision():
    here = clm5.sites.fingerprint(clm5.sites.virtual(12, seed=3))
    with jax.enable_x64(not jax.config.jax_enable_x64):
        there = clm5.sites.fingerprint(clm5.sites.virtual(12, seed=3))
    assert here == there
    assert here != clm5.sites.fingerprint(clm5.sites.virtual(12, seed=4))


def test_making_sites_leaves_the_global_precision_alone():
    before = jax.config.jax_enable_x64
    clm5.sites.virtual(12)
    assert jax.config.jax_enable_x64 == before


@pytest.mark.parametrize("rules", ["conservative", "proda", "binn"])
@pytest.mark.parametrize("bounds", ["binn", "proda"])
def test_without_noise_the_observations_are_the_model_at_the_stored_truth(bounds, rules):
    sites = clm5.sites.virtual(12, seed=1, bounds=bounds, rules=rules, sigma=0.0)
    assert (sites.attrs["bounds"], sites.attrs["rules"], sites.attrs["sigma"]) == (bounds, rules, 0.0)
    with jax.enable_x64(True):
        soc = clm5.simulate(sites.true_theta.values, clm5.Forcing.from_sites(sites), rules=rules).soc
        observed = clm5.observe(soc, sites.upper.values, sites.lower.values, operator="horizon")
    np.testing.assert_allclose(soc, sites.true_soc, rtol=1e-9)  # litter may be cut after the solve: linear, to rounding
    np.testing.assert_allclose(observed, sites.soc, rtol=1e-9)
    np.testing.assert_allclose(
        clm5.ParameterSpace(bounds).physical(sites.true_unit.values), sites.true_theta, rtol=1e-5
    )


def test_the_noise_has_the_stated_size():
    """ln(observed/true) ~ N(0, sigma): mean and variance within 5 standard errors of n independent horizons."""
    exact = clm5.sites.virtual(400, seed=0, sigma=0.0).soc.values
    for sigma in (0.2, 0.5):
        z = np.log(clm5.sites.virtual(400, seed=0, sigma=sigma).soc.values / exact) / sigma
        z = z[np.isfinite(z)]
        assert abs(z.mean()) < 5 / np.sqrt(len(z))
        assert abs(z.var() - 1) < 5 * np.sqrt(2 / len(z))
        assert abs((1.1 * z).var() - 1) > 5 * np.sqrt(2 / len(z))  # a tenth too wide would be seen


def test_the_truth_spans_the_box_without_touching_its_walls():
    unit = SITES.true_unit.values
    assert np.all((unit > 0.02) & (unit < 0.98))
    assert np.all((unit.std(axis=0) > 0.12) & (unit.std(axis=0) < 0.28))
    assert np.all(np.ptp(unit, axis=0) > 0.5)


def test_covariates_tell_a_part_of_the_truth_as_much_as_asked():
    """A linear fit on half of the sites explains more of the other half when information is high, and never all."""

    def explained(information):
        sites = clm5.sites.virtual(400, seed=0, information=information)
        numeric = [name for name in covariate_names(sites) if "flag_values" not in sites[name].attrs]
        x = np.stack([sites[name].values for name in numeric], axis=1)
        x = np.column_stack([np.ones(len(x)), (x - x.mean(0)) / x.std(0)])
        y = sites.true_unit.values
        fit = np.linalg.lstsq(x[:200], y[:200], rcond=None)[0]
        return np.mean(1 - ((y[200:] - x[200:] @ fit) ** 2).mean(0) / y[200:].var(0))

    little, default, all_of_it = explained(0.0), explained(0.7), explained(1.0)
    assert little < 0.15 < 0.25 < default < all_of_it < 0.95


def test_places_lie_on_land_and_climates_reach_from_warm_to_permafrost():
    assert np.all(inside(np.stack([SITES.lon, SITES.lat], 1), OUTLINE))
    temperature = SITES.soil_temperature.values
    assert temperature.max() > 300
    frozen = SITES.active_layer_depth_last_year.values[:, 0] < 3.0
    assert 3 <= frozen.sum() <= 40
    assert np.all(temperature[frozen][:, -1].mean(axis=1) < 273.15)
    assert np.all(SITES.active_layer_depth_last_year.values[temperature.min(axis=(1, 2)) > 273.15] > 41)
    assert len(np.unique(SITES.bedrock_layer)) > 8
    assert len(np.unique(SITES.climate_class)) == 6


def test_carbon_is_as_much_as_in_real_soils_and_falls_with_depth():
    quantiles = np.quantile(STOCK / 1e3, [0.05, 0.5, 0.95])  # kgC m⁻²
    assert 2 < quantiles[0] < 6
    assert 6 < quantiles[1] < 14
    assert 25 < quantiles[2] < 60
    assert SITES.true_soc.values.max() <= 1.2e5 * (1 + 1e-9)
    assert np.mean(SITES.true_soc.values[:, 0] > SITES.true_soc.values[:, 5]) > 0.95


def test_horizons_are_contiguous_thicken_and_end_above_bedrock():
    upper, lower = SITES.upper.values, SITES.lower.values
    count = np.isfinite(lower).sum(axis=1)
    assert count.min() == 3
    assert count.max() == 9
    assert np.all(upper[:, 0] == 0)
    np.testing.assert_array_equal(upper[:, 1:][np.isfinite(upper[:, 1:])], lower[:, :-1][np.isfinite(upper[:, 1:])])
    assert np.mean(np.diff(lower - upper, axis=1) > 0) > 0.15  # NaN compares as False
    deepest = np.nanmax(lower, axis=1)
    assert np.all(deepest <= INTERFACE[SITES.bedrock_layer.values[:, 0].astype(int) - 1] + 1e-12)
    assert deepest.max() > 1.7


def test_covariates_are_about_twenty_with_categories():
    names = covariate_names(SITES)
    assert 18 <= len(names) <= 25
    assert sum("flag_values" in SITES[name].attrs for name in names) >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"information": 1.2}, "information must lie in"),
        ({"sigma": -0.1}, "sigma must be finite"),
        ({"bounds": "clm"}, "bounds must be one of"),
        ({"rules": "clm"}, "rules must be one of"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        clm5.sites.virtual(**{"n": 2, **options})


@pytest.mark.parametrize("n", [1])
def test_very_few_sites_can_be_made(n):
    assert clm5.sites.virtual(n).sizes["site"] == n
