"""The second stage: a network from covariates to posterior means, and a posterior file of its answers everywhere."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

import bayes
import clm5
from bayes.second_stage import covariate_matrix

N = 120
SMALL = bayes.NetworkConfig(widths=(32, 32), loss="mse", epochs=150, patience=60, members=2)
OPTIONS = clm5.ModelOptions()


@pytest.fixture(scope="module")
def land():
    return clm5.sites.virtual(N, seed=1)


@pytest.fixture(scope="module")
def posterior(land):
    """A sampler's posterior at all sites but the last 20: parameter 2 follows a covariate, the last is held."""
    made = land.isel(site=slice(0, N - 20))
    unit = np.random.default_rng(0).uniform(0.45, 0.55, (1, 4, N - 20, 21))
    unit[..., 2] += 0.3 * np.sin(covariate(made))
    unit[..., 20] = 0.25
    group = xr.Dataset({"unit": (("chain", "draw", "site", "parameter"), unit)}, {"site": made.site.values})
    tree = xr.DataTree.from_dict({"posterior": group})
    tree.attrs = {**OPTIONS.as_attributes(), "method": "proda"}
    return tree


def covariate(sites) -> np.ndarray:
    name = next(n for n in clm5.sites.covariate_names(sites) if "flag_values" not in sites[n].attrs)
    values = sites[name].values.astype(float)
    return (values - values.mean()) / values.std()


@pytest.fixture(scope="module")
def answered(posterior, land):
    training = [str(name) for name in land.site.values[: N - 40]]
    return bayes.second_stage(posterior, land, SMALL, training=training)


@pytest.mark.slow
def test_parameters_that_covariates_tell_are_found_at_sites_held_out(answered, posterior, land):
    assert dict(answered["posterior"].unit.sizes) == {"chain": 1, "draw": 2, "site": N, "parameter": 21}
    split = answered["constant_data"].split.values.astype(str)
    assert list(split[: N - 40]).count("validation") == round(0.1 * (N - 40))
    assert set(split[N - 40 : N - 20]) == {"test"}
    assert set(split[N - 20 :]) == {"new"}
    unit = answered["posterior"].unit.values[0].mean(axis=0)
    target = posterior["posterior"].unit.values.mean(axis=(0, 1))[N - 40 : N - 20, 2]
    residual = np.sum((unit[N - 40 : N - 20, 2] - target) ** 2)
    assert 1 - residual / np.sum((target - target.mean()) ** 2) > 0.6
    np.testing.assert_allclose(unit[:, 20], 0.25, rtol=1e-6)  # held
    draws = answered["posterior"].unit.values[0]
    assert not np.array_equal(draws[0], draws[1])  # members
    assert answered.attrs["method"] == "proda_network"
    assert answered.attrs["draws_are"] == "independent"
    assert answered.attrs["first_stage"] == "proda"


@pytest.mark.slow
def test_sites_held_out_teach_nothing(answered, posterior, land):
    """Neither through their means nor through the scale of their covariates."""
    changed, moved = posterior.copy(deep=True), land.copy(deep=True)
    changed["posterior"]["unit"].values[:, :, N - 40 :, :20] = 0.9
    for name in clm5.sites.covariate_names(moved):
        if "flag_values" not in moved[name].attrs:
            moved[name] = moved[name].astype(float)
            moved[name].values[N - 40 :] *= 3.0
    training = [str(name) for name in land.site.values[: N - 40]]
    again = bayes.second_stage(changed, moved, SMALL, training=training)
    seen = slice(0, N - 40)
    np.testing.assert_array_equal(again["posterior"].unit[:, :, seen], answered["posterior"].unit[:, :, seen])
    other = bayes.second_stage(posterior, land, dataclasses.replace(SMALL, epochs=2), training=training, seed=1)
    assert not np.array_equal(other["posterior"].unit[:, :, seen], answered["posterior"].unit[:, :, seen])


def test_covariates_are_standardised_and_categories_have_a_column_each(land):
    training = np.arange(N) < 60
    matrix = covariate_matrix(land, training)
    names = clm5.sites.covariate_names(land)
    flagged = [name for name in names if "flag_values" in land[name].attrs]
    seen = [len(np.unique(land[name].values[training])) for name in flagged]
    assert matrix.shape == (N, len(names) - len(flagged) + sum(seen))
    numeric = [column for column in matrix.T if len(np.unique(column)) > 2]
    np.testing.assert_allclose([column[training].mean() for column in numeric], 0, atol=1e-5)
    np.testing.assert_allclose([column[training].std() for column in numeric], 1, rtol=1e-5)


def test_what_cannot_be_used_is_refused_by_name(posterior, land):
    with pytest.raises(ValueError, match="lacks sites of the posterior"):
        bayes.second_stage(posterior, land.isel(site=slice(1, N)), SMALL)
    with pytest.raises(ValueError, match="training names sites that the posterior lacks: nowhere"):
        bayes.second_stage(posterior, land, SMALL, training=["nowhere"])
    with pytest.raises(ValueError, match="at least 10 training sites"):
        bayes.second_stage(posterior, land, SMALL, training=[str(n) for n in land.site.values[:9]])
    gap = land.copy(deep=True)
    name = next(n for n in clm5.sites.covariate_names(gap) if "flag_values" not in gap[n].attrs)
    gap[name] = gap[name].astype(float)
    gap[name].values[7] = np.nan
    with pytest.raises(ValueError, match=f"site {land.site.values[7]}: covariate {name}"):
        bayes.second_stage(posterior, gap, SMALL)
    unsaid = posterior.copy()
    del unsaid.attrs["sigma"]
    with pytest.raises(ValueError, match="does not say its sigma"):
        bayes.second_stage(unsaid, land, SMALL)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"widths": ()}, "widths must be"),
        ({"loss": "mae"}, "loss must be one of"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"validation": 0.0}, "validation must lie between"),
        ({"members": 0}, "members must be whole"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
    ],
)
def test_wrong_settings_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        bayes.NetworkConfig(**wrong)
