"""Covariates reach the network standardised by the training sites alone, and nothing unusable reaches it at all."""

import json

import numpy as np
import pytest
import xarray as xr

import binn


def covariate_sites(n=8):
    """Just enough of a site data set: two numbers, a constant and a category."""
    rng = np.random.default_rng(0)
    role = {"role": "covariate"}
    order = {**role, "units": "1", "flag_values": [1, 2, 3, 4], "flag_meanings": "mollisol alfisol spodosol gelisol"}
    return xr.Dataset(
        {
            "temperature": ("site", rng.normal(280, 8, n), {**role, "units": "K"}),
            "clay": ("site", rng.uniform(0, 60, n), {**role, "units": "%"}),
            "same": ("site", np.full(n, 0.1), {**role, "units": "m"}),
            "soil_order": ("site", np.arange(n) % 3 + 1, order),
            "not_a_covariate": ("site", np.full(n, np.nan), {"units": "1"}),
        },
        coords={"site": [f"s{i}" for i in range(n)]},
    )


@pytest.fixture
def sites():
    return covariate_sites()


TRAINING = np.array([True] * 6 + [False] * 2)


def test_numbers_have_mean_zero_and_sd_one_over_the_training_sites(sites):
    matrix = binn.Features.fit(sites, TRAINING).matrix(sites)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix[TRAINING][:, :2].mean(axis=0), 0, atol=1e-6)  # float32 of numbers near 1
    np.testing.assert_allclose(matrix[TRAINING][:, :2].std(axis=0), 1, atol=1e-6)


def test_other_sites_do_not_move_the_features(sites):
    changed = sites.copy(deep=True)
    changed.temperature[~TRAINING] += 1000.0
    changed.soil_order[~TRAINING] = 4
    assert binn.Features.fit(changed, TRAINING) == binn.Features.fit(sites, TRAINING)
    assert binn.Features.fit(changed, ~TRAINING) != binn.Features.fit(sites, ~TRAINING)  # the comparison can see it


def test_categories_are_one_hot_and_an_unseen_one_is_unknown(sites):
    features = binn.Features.fit(sites, TRAINING)
    assert features.columns[3:] == ("soil_order=1", "soil_order=2", "soil_order=3", "soil_order=unknown")
    assert features.categories == ((3, 7),)
    seen = features.matrix(sites)[:, 3:]
    np.testing.assert_array_equal(seen, np.eye(4)[(sites.soil_order - 1).values])
    sites.soil_order[0] = 4  # declared, but in no training site
    np.testing.assert_array_equal(features.matrix(sites)[0, 3:], [0, 0, 0, 1])


def test_a_covariate_that_is_constant_in_training_is_zero_everywhere(sites):
    features = binn.Features.fit(sites, TRAINING)
    sites.same[7] = 5.0  # its weight was never trained: it must not speak (the sd of 0.1, 0.1, ... is 1e-17, not 0)
    np.testing.assert_array_equal(features.matrix(sites)[:, 2], 0)


def test_features_survive_json(sites):
    features = binn.Features.fit(sites, TRAINING)
    assert binn.Features.from_json(json.loads(json.dumps(features.to_json()))) == features


def missing_value(sites):
    sites.clay[3] = np.nan


def other_unit(sites):
    sites.temperature.attrs["units"] = "degC"


def recoded(sites):
    sites.soil_order.attrs["flag_meanings"] = "alfisol mollisol spodosol gelisol"


def became_numeric(sites):
    del sites.soil_order.attrs["flag_values"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing_value, "site s3: covariate clay is nan, as at 1 of 8 sites.*Fill the gap"),
        (other_unit, "temperature is in 'degC' here but was in 'K' in training; convert it"),
        (recoded, "category 1 of covariate soil_order means 'alfisol' here but meant 'mollisol'"),
        (became_numeric, "soil_order was categorical in training and is not here"),
    ],
)
def test_a_covariate_that_cannot_be_used_is_refused_by_name(sites, spoil, message):
    features = binn.Features.fit(sites, TRAINING)
    features.matrix(sites)  # fine as it was
    spoil(sites)
    with pytest.raises(ValueError, match=message):
        features.matrix(sites)


def test_an_absent_covariate_is_refused_by_name(sites):
    features = binn.Features.fit(sites, TRAINING)
    with pytest.raises(ValueError, match=r"trained with covariate clay \[%\], which this data set lacks"):
        features.matrix(sites.drop_vars("clay"))


def test_fitting_needs_covariates_and_training_sites(sites):
    with pytest.raises(ValueError, match="no covariates"):
        binn.Features.fit(sites[["not_a_covariate"]], TRAINING)
    with pytest.raises(ValueError, match="at least one true"):
        binn.Features.fit(sites, np.zeros(8, bool))
    sites.clay[3] = np.nan
    with pytest.raises(ValueError, match="site s3: covariate clay is nan"):
        binn.Features.fit(sites, TRAINING)


def test_a_missing_number_becomes_the_training_median_and_a_column_says_so(sites):
    sites.temperature[:] = [-1.0, 0.0, 0.0, 4.0, np.nan, 9.0, np.nan, 2.0]  # the training median is 0
    sites.soil_order[7] = 3
    sites["soil_order"] = sites.soil_order.astype(float).copy(deep=True)
    sites.soil_order[6] = np.nan
    with pytest.raises(ValueError, match=r"s4: covariate temperature is nan, as at 2 of 8.*missing=\"impute\""):
        binn.Features.fit(sites, TRAINING)
    features = binn.Features.fit(sites, TRAINING, missing="impute")
    matrix = features.matrix(sites)
    temperature, told = (features.columns.index(name) for name in ("temperature", "temperature=missing"))
    np.testing.assert_array_equal(matrix[:, told], [0, 0, 0, 0, 1, 0, 1, 0])
    assert matrix[4, temperature] == matrix[6, temperature] == matrix[1, temperature]  # as a site that has the median
    assert "clay=missing" not in features.columns  # no training site misses it
    assert matrix[6, features.columns.index("soil_order=unknown")] == 1
    assert binn.Features.from_json(json.loads(json.dumps(features.to_json()))) == features
    sites.temperature[5] = np.inf
    with pytest.raises(ValueError, match="s5: covariate temperature is inf"):
        features.matrix(sites)


def test_a_group_has_the_categories_of_all_its_covariates(sites):
    sites["subsoil_order"] = sites.soil_order.copy(data=np.full(8, 4))
    apart = binn.Features.fit(sites, TRAINING)
    assert apart.tables == (0, 1)
    for name in ("soil_order", "subsoil_order"):
        sites[name].attrs["group"] = "order"
    features = binn.Features.fit(sites, TRAINING)
    assert features.tables == (0, 0)
    assert [c.values for c in features.covariates[3:]] == [(1, 2, 3, 4)] * 2
    sites.subsoil_order.attrs["flag_meanings"] = "mollisol alfisol gelisol spodosol"
    with pytest.raises(ValueError, match="soil_order and subsoil_order are of one group, 'order'"):
        binn.Features.fit(sites, TRAINING)


def test_coordinates_are_waves_of_longitude_and_latitude(sites):
    sites = sites.assign(lon=("site", np.linspace(-180, 170, 8)), lat=("site", np.linspace(-80, 80, 8)))
    features = binn.Features.fit(sites, TRAINING, coordinates=True)
    waves = dict(zip(features.columns, features.matrix(sites).T, strict=True))
    assert len(waves) == 7 + 64
    np.testing.assert_allclose(waves["lon sin 360°"], np.sin(np.radians(sites.lon)), atol=1e-6)
    np.testing.assert_allclose(waves["lat cos 360°"], np.cos(np.radians(sites.lat)), atol=1e-6)
    assert "lon cos 1e-06°" in waves
    assert binn.Features.from_json(json.loads(json.dumps(features.to_json()))) == features
