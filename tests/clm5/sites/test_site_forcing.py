"""Forcing from climate normals: the equations' limits, and fields that a soil could have."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from clm5.grid import N_LAYERS, NODE, NODE_ALL
from clm5.sites import climate
from clm5.sites.climate import FREEZING, Normals
from clm5.sites.water import liquid_potential, potential_evapotranspiration, rain_and_melt, soil, water_balance

MONTH = np.arange(12)


def normals(*, mean=12.0, swing=8.0, rain=70.0, season=0.0, lat=40.0, sand=40.0, clay=20.0, bedrock=np.inf):
    """One place with a sinusoidal year; °C, mm a month."""
    phase = np.cos(2 * np.pi * (MONTH - 6.5) / 12) * np.sign(lat if lat else 1)
    one = np.ones(1)
    return Normals(
        (mean + FREEZING + swing * phase)[None], rain * (1 + season * phase)[None], lat * one, sand * one, clay * one,
        500.0 * one, 0.2 * one, bedrock * one,
    )  # fmt: skip


places = st.builds(
    normals,
    mean=st.floats(-18, 30), swing=st.floats(0, 22), rain=st.floats(0, 500), season=st.floats(-0.99, 0.99),
    lat=st.floats(-60, 75), sand=st.floats(1, 95), clay=st.floats(1, 70), bedrock=st.floats(0.1, 100),
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(places)
def test_every_climate_gives_forcing_that_the_equations_can_use(place):
    forcing = climate.forcing_from_climate(place)
    for name, values in forcing.items():
        assert np.all(np.isfinite(values)), name
    for name in ("water_scalar", "oxygen_scalar", "nitrogen_scalar"):
        assert forcing[name].min() > 0, name
        assert forcing[name].max() <= 1, name
    assert np.all(forcing["active_layer_depth"] <= forcing["active_layer_depth_last_year"] + 1e-12)
    assert np.ptp(forcing["active_layer_depth_last_year"]) == 0
    np.testing.assert_allclose(forcing["litter_input"].sum(), 500.0, rtol=1e-12)
    assert 3 <= forcing["bedrock_layer"][0, 0] <= N_LAYERS


@settings(deadline=None, max_examples=50)
@given(st.floats(2, 25), st.floats(0.5, 12))
def test_an_annual_wave_above_freezing_is_damped_and_delayed_as_the_equation_says(mean, swing):
    """A pure annual harmonic against the closed form; damping depth √(κ·year/π) = 2.24 m."""
    swing = min(swing, mean)
    omega = 2 * np.pi / 12
    surface = mean + FREEZING + swing * np.cos(omega * (MONTH - 6))
    depth = np.array([0.0, 0.5, 2.0, 8.0])
    found = climate.damped_wave(surface[None], depth)[0]
    d = np.sqrt(climate.DIFFUSIVITY * climate.SECONDS_PER_YEAR / np.pi)
    expected = (
        mean + FREEZING + swing * np.exp(-depth / d)[:, None] * np.cos(omega * (MONTH - 6)[None] - (depth / d)[:, None])
    )
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert d == pytest.approx(2.24, abs=0.01)


def test_snow_keeps_frost_out_of_the_ground():
    frost = np.full((1, 12), FREEZING - 20.0)
    assert climate.damped_wave(frost, np.array([0.0]))[0, 0, 0] == pytest.approx(FREEZING - 20.0 * climate.SNOW_DAMPING)


def test_the_water_scalar_has_clm5s_ends_and_its_logarithm_between():
    psi = np.array([-50.0, -2.0, -np.sqrt(2.0 * 0.002), -0.002, 0.0])
    np.testing.assert_allclose(climate.water_scalar(psi), [climate.WATER_FLOOR, climate.WATER_FLOOR, 0.5, 1.0, 1.0])


def test_ice_holds_the_water_that_soil_organisms_need():
    assert liquid_potential(np.array([FREEZING + 1.0])) == 0.0
    np.testing.assert_allclose(liquid_potential(np.array([FREEZING - 1.0])), -1.2217, rtol=1e-3)  # MPa per kelvin
    cold = climate.forcing_from_climate(normals(mean=-12.0, swing=14.0))
    frozen = cold["soil_temperature"] < FREEZING - 1.7
    assert frozen.any()
    assert np.all(cold["water_scalar"][frozen] == climate.WATER_FLOOR)


def test_thaw_depth_lies_between_the_nodes_that_it_separates():
    temperature = np.full((1, 25, 12), FREEZING - 2.0)
    temperature[:, :5] = FREEZING + 2.0
    np.testing.assert_allclose(climate.thaw_depth(temperature), 0.5 * (NODE_ALL[4] + NODE_ALL[5]))
    assert np.all(climate.thaw_depth(np.full((1, 25, 12), FREEZING - 1.0)) == 0.0)
    assert np.all(climate.thaw_depth(np.full((1, 25, 12), FREEZING + 1.0)) == NODE_ALL[-1])


def test_the_active_layer_of_permafrost_is_shallow_and_of_other_soils_deep():
    permafrost = climate.forcing_from_climate(normals(mean=-14.0, swing=18.0))
    assert 0.2 < permafrost["active_layer_depth_last_year"][0, 0] < 3.0
    for mean in (5.0, 25.0):
        temperate = climate.forcing_from_climate(normals(mean=mean, swing=5.0))
        assert temperate["active_layer_depth_last_year"][0, 0] == NODE_ALL[-1]


def test_the_running_maximum_starts_in_january_in_the_north_and_in_july_in_the_south():
    thaw = np.array([[5.0, 1, 1, 1, 1, 1, 2, 3, 3, 1, 1, 1]])
    north, _ = climate.running_maximum(thaw, np.array([50.0]))
    south, annual = climate.running_maximum(thaw, np.array([-50.0]))
    np.testing.assert_array_equal(north[0], np.full(12, 5.0))
    np.testing.assert_array_equal(south[0], [5, 5, 5, 5, 5, 5, 2, 3, 3, 3, 3, 3])
    np.testing.assert_array_equal(annual[0], np.full(12, 5.0))


@settings(deadline=None, max_examples=60)
@given(places, st.floats(1.05, 3.0))
def test_more_rain_never_makes_soil_drier(place, more):
    less = climate.forcing_from_climate(place)["water_scalar"]
    rainier = climate.forcing_from_climate(place._replace(precipitation=more * place.precipitation))["water_scalar"]
    assert np.all(rainier >= less - 1e-9)


def test_deserts_are_dry_and_rain_forests_wet():
    desert = climate.forcing_from_climate(normals(mean=25.0, rain=5.0))["water_scalar"]
    forest = climate.forcing_from_climate(normals(mean=26.0, swing=1.0, rain=250.0, lat=0.0))["water_scalar"]
    assert desert.max() < 0.1
    assert 0.6 < forest[:, :10].mean() < 0.95


def test_water_drains_at_field_capacity_or_wetter_and_sand_holds_less():
    wet = water_balance(normals(mean=10.0, rain=200.0))
    assert np.all(wet.potential[:, : N_LAYERS // 2] >= -0.0331)
    sandy, clayey = soil(np.array([85.0]), np.array([5.0])), soil(np.array([15.0]), np.array([45.0]))
    assert sandy.content(-0.033) < 0.6 * clayey.content(-0.033)
    np.testing.assert_allclose(sandy.potential(sandy.content(-0.5)), -0.5)


def test_demand_for_water_follows_heat_and_the_length_of_the_day():
    """Thornthwaite's own normalisation: 16 mm for a month of 12-hour days at the temperature where 10 T equals I."""
    hot, cool = (potential_evapotranspiration(normals(mean=m, swing=5.0)).sum() for m in (25.0, 8.0))
    assert 1200 < hot < 2200
    assert 350 < cool < 750
    equator = potential_evapotranspiration(normals(mean=20.0, swing=0.0, lat=0.0))
    assert np.ptp(equator) < 0.01 * equator.mean()
    north = potential_evapotranspiration(normals(mean=15.0, swing=0.0, lat=60.0))[0]
    assert north[5] > 1.8 * north[11]


def test_snow_waits_for_the_thaw_and_is_not_lost():
    place = normals(mean=-4.0, swing=14.0, rain=40.0)
    water = rain_and_melt(place)[0]
    assert np.all(water[[0, 1, 11]] == 0)
    assert water.argmax() in (3, 4, 5)
    np.testing.assert_allclose(water.sum(), place.precipitation.sum())
    wetness = water_balance(place).saturation[0, 0]
    assert wetness[4] > wetness[8]  # melt wets the soil more than the rain of late summer


@pytest.mark.parametrize(("depth", "layer"), [(0.005, 3), (0.12, 3), (0.13, 4), (1.2, 9), (8.6, 20), (np.inf, 20)])
def test_bedrock_lies_in_the_layer_that_holds_it(depth, layer):
    assert climate.bedrock_layer(np.array([depth]))[0] == layer


def test_the_miami_model_gives_its_published_corners():
    """Lieth (1975): 13 °C and 1000 mm yield about 1.46 kg dry matter by rain, 1.67 by warmth; the smaller counts."""
    np.testing.assert_allclose(climate.miami_npp(FREEZING + 13.0, 1000.0), 0.45 * 1455.8, rtol=1e-3)
    assert climate.miami_npp(FREEZING - 10.0, 5000.0) < 0.45 * 300.0


def test_litter_falls_when_it_grows_colder_and_in_the_shares_of_clm5():
    litter = climate.litter_input(np.array([400.0]), np.array([0.25]), normals().air_temperature)[0]
    np.testing.assert_allclose(litter.sum(axis=1), [100.0, 75.0, 150.0, 75.0])
    assert MONTH[litter.sum(axis=0).argmax()] in (8, 9, 10)


def test_depth_axis_is_the_models():
    assert climate.forcing_from_climate(normals())["soil_temperature"].shape == (1, len(NODE), 12)
