"""Every site is for training, for stopping or for judging, and for one of them only."""

import numpy as np
import pytest

import binn
from binn.splits import RULES
from tests.binn.globe import places


def shares(labels):
    return [np.mean(labels == label) for label in ("train", "validation", "test")]


def test_random_split_is_80_10_10():
    np.testing.assert_allclose(shares(binn.split(places())), [0.8, 0.1, 0.1], atol=1e-12)


def test_block_split_is_about_80_10_10_and_keeps_blocks_whole():
    sites = places()
    labels = binn.split(sites, "blocks")
    np.testing.assert_allclose(shares(labels), [0.8, 0.1, 0.1], atol=0.03)  # blocks hold 1 to 4 of 200 sites
    block = [
        f"{np.floor(lat / 2)} {np.floor(lon / 2)}" for lon, lat in zip(sites.lon.values, sites.lat.values, strict=True)
    ]

    def mixed(labels):
        return sum(len(set(labels[np.array(block) == b])) > 1 for b in set(block))

    assert mixed(labels) == 0
    assert mixed(binn.split(sites, "random")) > 0  # the count can see a split that ignores blocks


def test_blocks_meet_across_the_date_line_and_the_two_ways_to_write_a_longitude():
    sites = places(30)
    sites["lon"] = ("site", np.where(np.arange(30) % 2, -179.5, 180.5))
    sites["lat"] = ("site", np.repeat(np.arange(0.0, 30.0, 2.0), 2) + 0.5)
    labels = binn.split(sites, "blocks")
    np.testing.assert_array_equal(labels[::2], labels[1::2])


@pytest.mark.parametrize("rule", ["random", "blocks"])
def test_a_label_belongs_to_the_site_and_the_seed(rule):
    sites = places()
    labels = binn.split(sites, rule, seed=3)
    np.testing.assert_array_equal(labels, binn.split(sites, rule, seed=3))
    np.testing.assert_array_equal(labels[::-1], binn.split(sites.isel(site=slice(None, None, -1)), rule, seed=3))
    assert not np.array_equal(labels, binn.split(sites, rule, seed=4))


@pytest.mark.parametrize("seed", range(3))
def test_sites_at_one_place_are_on_one_side_of_a_random_split(seed):
    sites = places(200)
    at = np.arange(200) // 2  # two profiles at every place, listed 0.00002° apart
    for name in ("lon", "lat"):
        sites[name] = ("site", np.round(sites[name].values[at], 3) + 2e-5 * (np.arange(200) % 2))
    labels = binn.split(sites, seed=seed)
    np.testing.assert_array_equal(labels[::2], labels[1::2])
    np.testing.assert_allclose(shares(labels), [0.8, 0.1, 0.1], atol=0.0051)
    apart = sites.assign(lat=sites.lat + 0.001 * (np.arange(200) % 2))  # 100 m away is another place
    labels = binn.split(apart, seed=seed)
    assert np.any(labels[::2] != labels[1::2])


def test_a_place_at_the_date_line_is_one_place():
    sites = places(30)
    sites["lon"] = ("site", np.where(np.arange(30) % 2, -180.0, 180.0))
    sites["lat"] = ("site", np.repeat(np.arange(15.0), 2))
    labels = binn.split(sites)
    np.testing.assert_array_equal(labels[::2], labels[1::2])


@pytest.mark.parametrize("n", [3, 4, 7])
def test_few_sites_still_fill_every_label(n):
    assert all(share > 0 for share in shares(binn.split(places(n))))


def test_what_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match="2 sites in 2 group"):
        binn.split(places(2))
    together = places(20).assign(lon=("site", np.full(20, 1.0)), lat=("site", np.full(20, 1.0)))
    with pytest.raises(ValueError, match=r'1 group.*split="random"'):
        binn.split(together, "blocks")
    with pytest.raises(ValueError, match=r"20 sites in 1 group.*more places"):
        binn.split(together, "random")
    with pytest.raises(ValueError, match="must be one of"):
        binn.split(places(), "altitude")


def test_virtual_sites_split_by_every_rule(sites):
    for rule in RULES:
        assert set(binn.split(sites, rule, folds=3, fold=2)) == {"train", "validation", "test"}
