"""Every site is for training, for stopping or for judging, and for one of them only."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import binn
from binn.splits import EARTH, FOLD_RULES, RULES, distances

seeds = st.integers(0, 2**32 - 1)
fold_rule = pytest.mark.parametrize("rule", FOLD_RULES)


def places(n=200, seed=0):
    rng = np.random.default_rng(seed)
    return xr.Dataset(
        {"lon": ("site", rng.uniform(-120, -70, n)), "lat": ("site", rng.uniform(25, 50, n))},
        coords={"site": [f"s{i}" for i in range(n)]},
    )


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


def test_virtual_sites_split_by_every_rule(sites):
    for rule in RULES:
        assert set(binn.split(sites, rule, folds=3, fold=2)) == {"train", "validation", "test"}


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
