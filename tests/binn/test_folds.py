"""Every site is judged in exactly one fold, and the sites of a place, a block or a climate together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import binn
from binn.splits import FOLD_RULES
from tests.binn.globe import all_folds, divided, fold_rule, place_of, places, seeds, with_climate, world


@fold_rule
@given(seed=seeds, folds=st.integers(2, 7))
@settings(deadline=None, max_examples=15)
def test_every_site_is_judged_in_exactly_one_fold_and_no_place_is_divided(rule, seed, folds):
    sites = world(seed=seed)
    labels = all_folds(sites, rule, folds, seed)
    np.testing.assert_array_equal(np.sum(labels == "test", axis=0), 1)
    for one in labels:
        assert set(one) == {"train", "validation", "test"}
        assert divided(one, place_of(sites)) == 0
        rest = one[one != "test"]
        assert abs(np.mean(rest == "validation") - 1 / 9) < 4.5 / rest.size + 0.05  # places hold a few of 150 sites


@fold_rule
@given(seed=seeds)
@settings(deadline=None, max_examples=10)
def test_a_fold_belongs_to_the_ids_whatever_the_order_of_sites(rule, seed):
    sites = world(seed=seed)
    order = np.random.default_rng(seed + 1).permutation(sites.sizes["site"])
    labels = binn.split(sites, rule, seed=seed, fold=1)
    np.testing.assert_array_equal(labels[order], binn.split(sites.isel(site=order), rule, seed=seed, fold=1))


@fold_rule
def test_seeds_deal_anew_and_what_is_not_random_stays(rule):
    sites = world()
    one, again, other = (all_folds(sites, rule, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert np.any((one == "validation") != (other == "validation"))
    same_tests = np.array_equal(one == "test", other == "test")
    assert same_tests if rule in ("latitude", "longitude") else rule == "climate" or not same_tests


@fold_rule
@given(seed=seeds, folds=st.integers(2, 7))
@settings(deadline=None, max_examples=15)
def test_folds_are_equal_within_one_group(rule, seed, folds):
    if rule == "climate":
        return  # clusters have the sizes they have
    sites = world(seed=seed)
    group = place_of(sites)
    if rule == "block_kfold":
        group = np.floor((sites.lat.values + 90) / 2) * 180 + np.floor(np.round(sites.lon.values % 360, 3) / 2)
    largest = np.unique(group, return_counts=True)[1].max()
    sizes = np.sum(all_folds(sites, rule, folds, seed) == "test", axis=1)
    if rule in ("latitude", "longitude"):
        assert np.all(np.abs(sizes - 150 / folds) <= largest)
    else:
        assert np.ptp(sizes) <= largest
    alone = world(151, seed=seed, several=False)  # and within one site where each has a place of its own
    if rule != "block_kfold":
        assert np.ptp(np.sum(all_folds(alone, rule, folds, seed) == "test", axis=1)) <= 1


@pytest.mark.parametrize("axis", ["lat", "lon"])
def test_bands_are_contiguous_and_go_north_or_east(axis):
    sites = places(100)
    labels = all_folds(sites, {"lat": "latitude", "lon": "longitude"}[axis])
    band = np.argmax(labels == "test", axis=0)
    np.testing.assert_array_equal(band[np.argsort(sites[axis].values)], np.repeat(np.arange(5), 20))


@given(seed=seeds, turn=st.integers(-360, 360))
@settings(deadline=None, max_examples=30)
def test_bands_of_longitude_do_not_know_where_the_date_line_is(seed, turn):
    sites = places(60, seed)
    sites["lon"] = np.round(sites.lon, 3)
    turned = sites.assign(lon=(sites.lon + turn + 180) % 360 - 180 + 360 * (np.arange(60) % 2))
    for fold in (0, 4):
        np.testing.assert_array_equal(*(binn.split(s, "longitude", fold=fold) == "test" for s in (sites, turned)))


@fold_rule
def test_both_ways_to_write_the_date_line_are_one_place_and_one_block_in_folds(rule):
    n = 60
    sites = world(n, several=False)
    sites["lat"] = ("site", np.repeat(np.arange(-60.0, 60.0, 4.0), 2))
    for west, east in ((-180.0, 180.0), (-179.5, 180.5)):
        sites["lon"] = ("site", np.where(np.arange(n) % 2, west, east) + np.repeat(np.arange(n / 2) % 3, 2))
        for fold in range(3):
            labels = binn.split(sites, rule, folds=3, fold=fold)
            np.testing.assert_array_equal(labels[::2], labels[1::2])


@pytest.mark.parametrize("rule", [rule for rule in FOLD_RULES if rule != "kfold"])
def test_validation_keeps_blocks_whole_where_folds_are_regions(rule):
    sites = world(150).assign(lon=("site", places(150).lon.values), lat=("site", places(150).lat.values))
    block = np.floor(sites.lat.values / 2) * 1000 + np.floor(sites.lon.values / 2)
    labels = binn.split(sites, rule)
    rest = labels != "test"
    assert divided(labels[rest], block[rest]) == 0
    if rule == "block_kfold":
        assert divided(labels, block) == 0
    dealt_by_places = binn.split(sites, "kfold")
    assert divided(dealt_by_places, block) > 0  # the count can see validation that ignores blocks


def test_a_place_on_the_edge_of_two_blocks_is_not_divided():
    sites = places(120)
    sites["lat"] = ("site", 2.0 * (np.arange(120) // 4) - 58.0 + 2e-5 * (np.arange(120) % 2) - 1e-5)
    sites["lon"] = ("site", np.repeat(np.arange(60) % 2 * 4.0, 2))
    for fold in range(5):
        labels = binn.split(sites, "block_kfold", fold=fold)
        np.testing.assert_array_equal(labels[::2], labels[1::2])
    labels = binn.split(sites, "blocks")
    assert np.any(labels[::2] != labels[1::2])  # as the plain rule does, which goes by the block of each site


def test_climate_leaves_out_one_class_numbered_from_the_south():
    sites = places(200)
    koppen = 9 - np.digitize(sites.lat.values, [30, 35, 40, 45])  # flag values fall northward
    labels = all_folds(with_climate(sites, koppen), "climate")
    np.testing.assert_array_equal(np.argmax(labels == "test", axis=0), 9 - koppen)
    plain = with_climate(sites, koppen, "soil")
    with pytest.raises(ValueError, match=r"climate.*koppen.*numeric.*soil"):
        binn.split(plain, "climate")


def test_more_classes_than_folds_stay_whole_and_the_small_ones_share():
    sites = places(100)
    koppen = np.repeat([3, 8, 1, 2, 7], [50, 30, 10, 6, 4])
    labels = all_folds(with_climate(sites, koppen), "climate", folds=3)
    assert all(divided(one == "test", koppen) == 0 for one in labels)
    assert sorted(np.sum(labels == "test", axis=1)) == [20, 30, 50]


def test_the_shared_places_of_a_class_follow_their_first_site():
    sites = places(100)
    at = np.arange(100) // 2
    sites = sites.assign_coords(site=[f"s{i:03d}" for i in range(100)])
    sites = sites.assign({name: ("site", sites[name].values[at]) for name in ("lon", "lat")})
    koppen = np.where(np.arange(100) % 2, (at + 1) % 5, at % 5)  # the second site of a place says another class
    labels = all_folds(with_climate(sites, koppen), "climate")
    fold = np.argmax(labels == "test", axis=0)
    np.testing.assert_array_equal(fold[::2], fold[1::2])
    assert divided(fold, at % 5) == 0


@pytest.mark.parametrize("seed", range(3))
def test_climate_without_classes_finds_the_clusters_of_numeric_covariates(seed):
    sites = world(200, several=False)
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(200) % 4)
    sites["lat"] = ("site", -45.0 + 30.0 * truth + rng.uniform(-5, 5, 200))
    centres = np.array([[0, 0], [8, 8], [0, 8], [8, 0]])  # 8 sd apart; rain in units a million times smaller
    for column, (name, unit) in enumerate((("warmth", 1.0), ("rain", 1e6))):
        sites[name] = sites[name].copy(data=unit * (centres[truth, column] + rng.normal(size=200)))
    labels = all_folds(sites, "climate", folds=4, seed=seed)
    np.testing.assert_array_equal(np.argmax(labels == "test", axis=0), truth)


def test_folds_that_cannot_be_are_refused_by_name():
    sites = world()
    for folds in (1, 0, -3, True):
        with pytest.raises(ValueError, match=rf"folds must be a whole number, 2 or more, got {folds}"):
            binn.split(sites, "kfold", folds=folds)
    for fold in (-1, 5, True):
        with pytest.raises(ValueError, match=rf"fold must be a whole number from 0 to 4 \(folds=5\), got {fold}"):
            binn.split(sites, "latitude", fold=fold)
    for rule in ("kfold", "block_kfold"):
        with pytest.raises(ValueError, match=r"4 sites in 4 group.*fold 0, fold 1.*fewer folds"):
            binn.split(world(4, several=False), rule)
    crowd = places(20).assign(lon=("site", [0.0] * 18 + [10.0, 20.0]))
    crowd["lat"] = ("site", [5.0] * 18 + [10.0, 20.0])
    for rule in ("latitude", "longitude"):
        with pytest.raises(ValueError, match=rf"{rule}.*each of 5 folds; 20 sites at 3 place.*fold 0, 1, 3 empty"):
            binn.split(crowd, rule)
    with pytest.raises(ValueError, match=r"1 group.*train, validation"):
        binn.split(places(2), "kfold", folds=2)
    together = places(20).assign(lat=("site", np.linspace(0.1, 1.9, 20)), lon=("site", np.ones(20)))
    with pytest.raises(ValueError, match=r'1 group.*split="kfold"'):
        binn.split(together, "latitude")


def test_climates_that_cannot_be_are_refused_by_name():
    sites = world()
    with pytest.raises(ValueError, match="5 folds needs as many classes of Koppen_class; places have 2: 0, 1"):
        binn.split(with_climate(sites, np.arange(150) // 75), "climate")
    gap = np.append(np.nan, np.arange(149) % 6)
    with pytest.raises(ValueError, match=r"Koppen_class.*1 of .*first site s"):
        binn.split(with_climate(world(several=False), gap), "climate")
    with pytest.raises(ValueError, match="the covariates are none"):
        binn.split(places(), "climate")
    with pytest.raises(ValueError, match="different covariates, found 1 at"):
        binn.split(sites.drop_vars(["warmth", "rain"]), "climate")
    with pytest.raises(ValueError, match="warmth is nan"):
        binn.split(sites.assign(warmth=sites.warmth * np.nan), "climate")
