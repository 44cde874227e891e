"""Importance and partial dependence find what a network reads, all of it, and nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx

import binn
import clm5
from binn.importance import group_columns, shuffled, spans
from binn.objective import build_network

USED = ("sand", "land_cover")  # a number and a category


def made_run(sites, used: tuple[str, ...], **changes) -> binn.Run:
    """A network with random weights that reads the covariates `used` alone; the second half of the sites are "test"."""
    config = binn.Config(**{"width": 16, "depth": 1, **changes})
    features = binn.Features.fit(sites, np.ones(sites.sizes["site"], bool), coordinates=config.coordinates)
    net = build_network(config, features, jax.random.key(5))
    kernel = np.array(net.hidden[0].linear.kernel[...])
    read = np.zeros((len(kernel), 1))
    for name, span in spans(features):
        read[span] = name in used
    net.hidden[0].linear.kernel[...] = jnp.asarray(2.0 * kernel * read, jnp.float32)
    net.head.kernel[...] = 10.0 * net.head.kernel[...]
    n = sites.sizes["site"]
    split = pd.DataFrame(
        {
            "label": np.where(np.arange(n) < n // 2, "train", "test"),
            "lon": sites.lon,
            "lat": sites.lat,
            "distance": 0.0,
        },
        index=sites.site.values.astype(str),
    )
    weights = (nnx.split(net)[1],)
    return binn.Run(config, 0, features, split, weights, pd.DataFrame(), (1,), "none", 0, 0, 0.0)


def sensing_opposites(sites, first: str, second: str) -> binn.Run:
    """A network that reads the difference of two covariates alone."""
    run = made_run(sites, (first, second))
    net = run.network(0)
    kernel = np.array(net.hidden[0].linear.kernel[...])
    place = dict(spans(run.features))
    kernel[place[second]] = -kernel[place[first]]
    net.hidden[0].linear.kernel[...] = jnp.asarray(kernel)
    return dataclasses.replace(run, weights=(nnx.split(net)[1],))


def measured_as_predicted(sites, run: binn.Run):
    """The sites with the horizons that the run predicts: NSE is 1."""
    with jax.enable_x64(True):
        theta = run.config.model.space.physical(jnp.asarray(run.predict(sites)))
        soc = clm5.simulate(theta, clm5.Forcing.from_sites(sites, dtype=jnp.float64)).soc
        upper, lower = (jnp.asarray(sites[name].values) for name in ("upper", "lower"))
        horizons = np.asarray(clm5.observe(soc, upper, lower, operator="horizon"))
    return sites.assign(soc=(sites.soc.dims, horizons, sites.soc.attrs))


@pytest.fixture(scope="module")
def few(sites):
    return sites.isel(site=slice(0, 60))


@pytest.fixture(scope="module")
def known(few):
    """Sites whose carbon depends on two covariates by way of the network, and that network."""
    run = made_run(few, USED)
    return measured_as_predicted(few, run), run


@pytest.fixture(scope="module")
def table(known):
    sites, run = known
    return binn.permutation_importance(run, sites, repeats=3)


def test_only_the_covariates_that_the_network_reads_are_important(table):
    assert np.isclose(table.attrs["nse"], 1.0, atol=1e-6)
    assert set(table.index[:2]) == set(USED)
    assert (table.nse_drop[list(USED)] > 0.02).all()
    assert (table.loc[list(USED), list(clm5.NAMES)] > 1e-3).all(axis=None)
    others = table.drop(index=list(USED))
    assert len(others) == 20
    np.testing.assert_allclose(others.nse_drop, 0.0, atol=1e-12)
    np.testing.assert_array_equal(others.change, 0.0)


def test_skill_and_sites_are_those_of_the_label(few, known, table):
    assert table.attrs["sites"] == 30
    run = known[1]
    found = binn.permutation_importance(run, few.isel(site=slice(5, 60)), {"climate": ["mean_temperature"]}, 1)
    skill = run.skill(few).loc["test"]
    assert found.attrs["sites"] == skill.sites == 30
    assert np.isclose(found.attrs["nse"], skill.nse, atol=1e-5)  # float32 network, compiled and not
    assert np.isnan(found.nse_drop_sd.iloc[0])


def test_a_shuffled_matrix_is_that_of_shuffled_covariates(few):
    features = binn.Features.fit(few, np.ones(60, bool))
    group = ["climate_class", "npp", "texture_class"]
    order = np.random.default_rng(3).permutation(60)
    moved = few.copy(deep=True)
    for name in group:
        moved[name][:] = few[name].values[order]
    columns = group_columns(features, few, {"mixed": group})["mixed"]
    np.testing.assert_array_equal(shuffled(features.matrix(few), columns, order), features.matrix(moved))
    assert not np.array_equal(features.matrix(few), features.matrix(moved))


def test_covariates_of_a_group_move_together(few):
    twins = few.copy(deep=True)
    twins["clay"][:] = few["sand"].values  # the network reads their difference, which is 0 at every site
    run = sensing_opposites(twins, "sand", "clay")
    importance = {"together": {"texture": ["sand", "clay"]}, "alone": {"sand": ["sand"], "clay": ["clay"]}}
    together, alone = (binn.permutation_importance(run, twins, groups) for groups in importance.values())
    np.testing.assert_allclose(together.change, 0.0, atol=1e-6)
    assert (alone.change > 1e-3).all()
    assert together.covariates["texture"] == 2


def test_groups_come_from_the_attribute_and_the_place_is_one(few):
    grouped = few.copy()
    for name in ("sand", "clay"):
        grouped[name] = few[name].assign_attrs(group="texture")
    features = binn.Features.fit(grouped, np.ones(60, bool), coordinates=True)
    columns = group_columns(features, grouped, None)
    assert "sand" not in columns
    assert [features.columns[i] for i in columns["texture"]] == ["sand", "clay"]
    assert len(columns["longitude and latitude"]) == 64
    assert sorted(np.concatenate(list(columns.values()))) == list(range(len(features.columns)))


def test_the_seed_decides_and_groups_do_not_disturb_each_other(known, table):
    sites, run = known
    again = binn.permutation_importance(run, sites, {"a": ["sand"], "b": ["ph", "clay"]}, 3)
    np.testing.assert_array_equal(again.loc["a"].iloc[1:], table.loc["sand"].iloc[1:])
    other = binn.permutation_importance(run, sites, {"a": ["sand"]}, 3, seed=1)
    assert other.nse_drop["a"] != again.nse_drop["a"]


def test_held_parameters_do_not_change_and_do_not_dilute(few):
    run = made_run(few, ("sand",), parameters="4")
    table = binn.permutation_importance(run, few, {"sand": ["sand"]}, 2)
    free = list(run.config.parameters)
    assert (table.drop(columns=["covariates", "nse_drop", "nse_drop_sd", "change", *free]) == 0).all(axis=None)
    assert np.isclose(table.change.iloc[0], table[free].iloc[0].mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": {"a": ["sand", "sands"]}}, "'a' names 'sands', which this network does not read"),
        ({"groups": {"a": ["sand"], "b": ["sand"]}}, "sand is in 'a' and again in 'b'"),
        ({"groups": {"a": "sand"}}, "must be a list"),
        ({"groups": {"a": []}}, "at least one"),
        ({"repeats": 0}, "repeats must be 1 or more"),
        ({"label": "held out"}, "label must be one of"),
        ({"label": "new"}, "0 of 60 are labelled 'new'"),
    ],
)
def test_refusals_of_importance(known, arguments, message):
    with pytest.raises(ValueError, match=message):
        binn.permutation_importance(known[1], known[0], **arguments)


def test_sites_without_measurements_have_no_skill_to_lose(known):
    sites, run = known
    with pytest.raises(ValueError, match="no measured horizons"):
        binn.permutation_importance(run, sites.assign(soc=sites.soc * np.nan))


def test_partial_dependence_is_the_mean_of_answers_at_a_set_value(known):
    sites, run = known
    found = binn.partial_dependence(run, sites, ["sand", "land_cover", "ph"], points=3, stock_depth=1.0)
    space = run.config.model.space
    training = sites.sand.values[:30]
    low, high = np.quantile(training, [0.05, 0.95])
    np.testing.assert_allclose(found["value"].sel(covariate="sand")[:3], [low, (low + high) / 2, high])
    classes = run.features.covariates[-2].values
    assert found.sizes["point"] == len(classes) > 3
    for name, point, value in (("sand", 2, float(found["value"][0, 2])), ("land_cover", 1, classes[1])):
        moved = sites.copy(deep=True)
        moved[name][:] = value
        unit, one = run.predict(moved), found.sel(covariate=name).isel(point=point)
        assert float(one["value"]) == value
        np.testing.assert_allclose(one.unit_mean, unit.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(one.unit_low, np.quantile(unit, 0.1, axis=0), atol=1e-6)
        np.testing.assert_allclose(one.unit_high, np.quantile(unit, 0.9, axis=0), atol=1e-6)
        np.testing.assert_allclose(one.theta_mean, space.lower + unit.mean(0) * (space.upper - space.lower), rtol=1e-4)
        with jax.enable_x64(True):
            theta, forcing = space.physical(jnp.asarray(unit)), clm5.Forcing.from_sites(sites, dtype=jnp.float64)
            stock = np.asarray(clm5.processes(theta, forcing, clm5.simulate(theta, forcing)).stock_100cm)
        np.testing.assert_allclose(one.stock_mean, stock.mean(), rtol=1e-4)
        np.testing.assert_allclose(one.stock_high, np.quantile(stock, 0.9), rtol=1e-4)
    assert found.meaning.sel(covariate="land_cover").values[1] == sites.land_cover.attrs["flag_meanings"].split()[1]


def test_what_the_network_does_not_read_has_a_flat_curve(known):
    sites, run = known
    found = binn.partial_dependence(run, sites, points=4)
    effect = found.effect.max("parameter").to_series()
    assert (effect[list(USED)] > 0.05).all()
    np.testing.assert_allclose(effect.drop(list(USED)), 0.0, atol=1e-6)
    flat = found.sel(covariate="ph").isel(point=slice(0, 4))
    np.testing.assert_allclose(flat.unit_shift_low, 0.0, atol=1e-6)
    assert (flat.unit_high - flat.unit_low > 0.01).any()
    slope = found.sel(covariate="sand").isel(point=3)
    assert (slope.unit_shift_high > slope.unit_shift_low).any()
    assert "stock_mean" not in found


def test_held_out_sites_do_not_widen_the_grid(known):
    sites, run = known
    moved = sites.copy(deep=True)
    moved["sand"][30:] = 100.0
    first, second = (binn.partial_dependence(run, data, ["sand"], 3)["value"].values for data in (sites, moved))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"covariates": ["sands"]}, "unknown: sands"),
        ({"covariates": []}, "at least one"),
        ({"points": 1}, "points must be 2 or more"),
        ({"quantiles": (0.9, 0.1)}, "must rise"),
        ({"stock_depth": 0.0}, "above 0 m"),
    ],
)
def test_refusals_of_partial_dependence(known, arguments, message):
    with pytest.raises(ValueError, match=message):
        binn.partial_dependence(known[1], known[0], **arguments)


@pytest.mark.slow
def test_a_trained_network_needs_the_covariates_that_made_the_truth():
    sites = clm5.sites.virtual(1500, seed=3, sigma=0.1)
    truth = made_run(sites, USED)
    sites = measured_as_predicted(sites, truth)
    run = binn.fit(sites, binn.Config(epochs=60), progress=False)
    table = binn.permutation_importance(run, sites, label="test")
    assert set(table.index[:2]) == set(USED)
    used, others = table.nse_drop[list(USED)], table.nse_drop.drop(list(USED))
    assert others.abs().max() < 0.25 * used.min()
