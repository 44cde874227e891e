"""How far what is judged lies from what was trained on."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from binn.splits import EARTH, distances
from tests.binn.globe import all_folds, places, seeds, world


def haversine(lon, lat):
    """Great-circle distance between all pairs, km, (site, site); the textbook formula."""
    lon, lat = np.radians(lon), np.radians(lat)
    half = np.sin((lat[:, None] - lat) / 2) ** 2
    half += np.cos(lat[:, None]) * np.cos(lat) * np.sin((lon[:, None] - lon) / 2) ** 2
    return 2 * EARTH * np.arcsin(np.sqrt(np.minimum(half, 1.0)))


@given(seed=seeds, share=st.floats(0.02, 0.98))
@settings(deadline=None, max_examples=30)
def test_distances_are_the_smallest_of_all_great_circles(seed, share):
    rng = np.random.default_rng(seed)
    sites = world(80, seed)
    sites["lat"] = sites.lat.where(rng.uniform(size=80) > 0.1, 90.0)  # the pole, at any longitude
    labels = np.where(rng.uniform(size=80) < share, "train", rng.choice(["validation", "test"], 80))
    labels[0] = "train"
    pairs = haversine(sites.lon.values, sites.lat.values)
    expected = np.where(labels == "train", 0.0, pairs[:, labels == "train"].min(axis=1))
    np.testing.assert_allclose(distances(sites, labels), expected, rtol=1e-9, atol=1e-3)  # haversine: m at the antipode


@pytest.mark.parametrize(
    ("lon", "lat", "km"),
    [
        ((-179.5, 179.5), (0.0, 0.0), np.pi * EARTH / 180),  # across the date line
        ((-180.0, 180.0), (45.0, 45.0), 0.0),
        ((10.0, 190.0), (89.0, 89.0), np.pi * EARTH / 90),  # over the pole
        ((0.0, 123.0), (-90.0, -90.0), 0.0),
        ((0.0, 180.0), (0.0, 0.0), np.pi * EARTH),  # antipodes
        ((7.0, 7.0), (50.0, 50.0 + 1e-6), np.pi * EARTH / 180e6),  # 0.1 m
    ],
)
def test_distances_known_by_hand(lon, lat, km):
    sites = xr.Dataset({"lon": ("site", list(lon)), "lat": ("site", list(lat))}, coords={"site": ["a", "b"]})
    np.testing.assert_allclose(distances(sites, np.array(["train", "test"])), [0.0, km], rtol=1e-7, atol=1e-9)


def test_distances_of_nothing_and_from_nothing():
    sites = places(6)
    assert distances(sites.isel(site=[]), np.array([], dtype=str)).shape == (0,)
    np.testing.assert_array_equal(distances(sites, np.repeat("train", 6)), np.zeros(6))
    with pytest.raises(ValueError, match=r'labelled "train".*6 labels are test, validation'):
        distances(sites, np.repeat(["test", "validation"], 3))
    with pytest.raises(ValueError, match=r"one label per site, shape \(6,\), got \(5,\)"):
        distances(sites, np.repeat("train", 5))


def test_regions_are_judged_farther_from_training_than_random_places():
    sites = places(300)
    far = {
        rule: np.mean([d[d > 0].mean() for d in (distances(sites, x) for x in all_folds(sites, rule))])
        for rule in ("kfold", "block_kfold", "latitude")
    }
    assert far["kfold"] < far["block_kfold"] < far["latitude"]
