"""Every option of the published network trains, is saved, resumes, and does what its name says."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import binn
import clm5
from binn.network import EDGE, ParameterNetwork
from binn.objective import all_parameters
from binn.steps import split_state
from binn.uncertainty import draw_units
from clm5.parameters import INDEX, SUBSETS
from tests.binn.killing import Killed, kill_in_epochs

PUBLISHED = binn.Config.published(width=32, loss="smooth_l1", learning_rate=3e-3, epochs=3, parameters="4")


def network(**changes):
    settings = {"width": 16, "depth": 2, "dropout": 0.3, **changes}
    return ParameterNetwork(5, 21, **settings, rngs=nnx.Rngs(params=jax.random.key(1)))


@pytest.fixture(scope="module")
def x():
    return 3.0 + 2.0 * jax.random.normal(jax.random.key(2), (64, 5), jnp.float32)


@pytest.fixture(scope="module")
def published(sites, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    return binn.fit(sites, PUBLISHED, folder, seed=3, progress=False, checkpoint_every=1), folder


def test_the_published_network_trains_is_saved_and_answers(sites, published):
    run, folder = published
    loaded = binn.load(folder)
    assert loaded.config == run.config
    unit = loaded.predict(sites)
    np.testing.assert_array_equal(unit, run.predict(sites))
    assert unit.shape == (400, 21)
    assert np.isfinite(run.history.validation_loss).all()


def test_a_killed_run_with_running_statistics_ends_the_same(sites, published, tmp_path, monkeypatch):
    run, _ = published
    kill_in_epochs(monkeypatch, 2)
    with pytest.raises(Killed):
        binn.fit(sites, PUBLISHED, tmp_path / "a", seed=3, progress=False, checkpoint_every=1)
    resumed = binn.fit(sites, PUBLISHED, tmp_path / "a", seed=3, progress=False, checkpoint_every=1)
    for left, right in zip(jax.tree.leaves(run.weights), jax.tree.leaves(resumed.weights), strict=True):
        np.testing.assert_array_equal(left, right)


def test_statistics_move_in_training_and_are_frozen_in_draws(sites, published):
    run, _ = published
    net = run.network(0)
    before = jax.tree.leaves(split_state(nnx.state(net))[1])
    means = [leaf for leaf in before if leaf.ndim == 1]
    assert len(means) == 6  # mean and variance of three layers
    assert any(np.abs(leaf).max() > 0.1 for leaf in means)
    x = jnp.asarray(run.features.matrix(sites))
    first = net(x, rngs=nnx.Rngs(dropout=1))
    assert not np.array_equal(first, net(x, rngs=nnx.Rngs(dropout=2)))  # dropout draws on
    np.testing.assert_allclose(first[:3], net(x[:3], rngs=nnx.Rngs(dropout=1)), rtol=1e-5)  # in whatever company
    for left, right in zip(before, jax.tree.leaves(split_state(nnx.state(net))[1]), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_normalised_units_have_mean_0_and_variance_1(x, norm):
    layer = network(norm=norm, activation="tanh").hidden[0]
    y = np.asarray(layer.norm(layer.linear(x), **({"use_running_average": False} if norm == "batch" else {})))
    axis = 0 if norm == "batch" else 1
    np.testing.assert_allclose(y.mean(axis=axis), 0.0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=axis), 1.0, atol=1e-3)


def test_residual_layers_add_their_input(x):
    plain, residual = network(), network(residual=True)
    hidden = plain.hidden[0](x, training=False)
    np.testing.assert_array_equal(residual.hidden[0](x, training=False), hidden)  # 5 wide to 16: nothing to add
    second = plain.hidden[1](hidden, training=False)
    np.testing.assert_allclose(residual.hidden[1](hidden, training=False), hidden + second, rtol=1e-6)


def test_the_hard_sigmoid_reaches_the_edges(x):
    net = network(constraint="hard_sigmoid")
    net.head.kernel[...] = 1e3 * net.head.kernel[...]
    unit = np.asarray(net(x), float)
    assert np.isclose(unit, EDGE, atol=1e-7).any()
    assert np.isclose(unit, 1 - EDGE, atol=1e-7).any()
    assert np.all((unit > 0) & (unit < 1))


def test_a_group_of_categories_shares_one_table_and_others_do_not():
    net = network(embedding=2, spans=((1, 3), (3, 5)), tables=(0, 0))
    swapped = jnp.array([[1.0, 1, 0, 0, 1], [1.0, 0, 1, 1, 0]])
    inside = np.asarray(net._embedded(swapped))
    assert inside.shape == (2, 5)
    np.testing.assert_array_equal(inside[0, 1:3], inside[1, 3:5])
    apart = np.asarray(network(embedding=2, spans=((1, 3), (3, 5)), tables=(0, 1))._embedded(swapped))
    assert not np.array_equal(apart[0, 1:3], apart[1, 3:5])


@pytest.mark.parametrize("size", ["4", "5", "16"])
def test_parameters_that_are_not_free_stay_where_they_are_held(size):
    config = binn.Config(parameters=size, held=(("cryo", 1e-3),))
    assert len(config.parameters) == int(size)
    free = np.random.default_rng(0).uniform(0.2, 0.8, (3, int(size)))
    unit = np.asarray(all_parameters(free, config))
    theta = np.asarray(clm5.ParameterSpace("binn").physical(jnp.asarray(unit)))
    for i, name in enumerate(config.parameters):
        np.testing.assert_array_equal(unit[:, INDEX[name]], free[:, i])
    np.testing.assert_allclose(theta[:, INDEX["cryo"]], 1e-3, rtol=1e-5)
    np.testing.assert_allclose(theta[:, INDEX["taucwd"]], 3.333, rtol=1e-5)  # CLM5's
    if "fs1s2" not in config.parameters:  # CLM5 has it from texture: the middle of the box
        np.testing.assert_allclose(unit[:, INDEX["fs1s2"]], 0.5, rtol=1e-6)


def test_draws_of_a_network_with_four_free_parameters(sites, published):
    run, _ = published
    unit = draw_units(run, sites.isel(site=slice(0, 4)), 5)
    assert unit.shape == (1, 5, 4, 21)
    moves = np.ptp(unit, axis=(0, 1, 2)) > 0
    assert tuple(np.array(clm5.NAMES)[moves]) == tuple(name for name in clm5.NAMES if name in SUBSETS["4"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": "7"}, "parameters must be names, or one of"),
        ({"parameters": ("beta", "alpha")}, "unknown: alpha"),
        ({"parameters": ()}, "at least one"),
        ({"held": (("beta", 0.9),)}, "held names a parameter that is not free"),
        ({"parameters": "4", "held": (("beta", 2.0),)}, "held beta must lie in the binn bounds, 0.5 to 0.9999"),
        ({"norm": "group"}, "norm must be one of"),
        ({"constraint": "softmax"}, "constraint must be one of"),
        ({"fold": 10}, "must be below folds = 10"),
        ({"folds": 1}, "folds must be a whole number, 2 or more"),
        ({"embedding": -1}, "embedding must be a whole number, 0 or more"),
        ({"missing": "zero"}, "missing must be one of"),
        ({"horizon_weights": "depth"}, "horizon_weights must be one of"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(ValueError, match=message):
        binn.Config(**changes)


def test_a_record_of_options_comes_back_equal():
    config = dataclasses.replace(PUBLISHED, held=(("beta", 0.9),), folds=7, fold=6, coordinates=True)
    assert binn.Config.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.slow
def test_coordinates_and_imputed_covariates_train(sites):
    gap = sites.copy(deep=True)
    name = binn.Features.fit(sites, np.full(400, True)).covariates[0].name
    gap[name][3:40] = np.nan
    gap[name].attrs["missing_values"] = "allowed"
    config = binn.Config(width=16, epochs=1, missing="impute", coordinates=True, split="kfold", folds=5, fold=2)
    run = binn.fit(gap, config, progress=False)
    assert f"{name}=missing" in run.features.columns
    assert sum(column.endswith("°") for column in run.features.columns) == 64
    assert np.isfinite(run.predict(gap)).all()
    assert 70 <= (run.split.label == "test").sum() <= 90
    with pytest.raises(ValueError, match=f"covariate {name} is nan.*37 of 400"):
        binn.fit(gap, dataclasses.replace(config, missing="refuse"), progress=False)


def test_skill_per_split_says_how_far_it_had_to_reach(sites, trained):
    run, _ = trained
    skill = run.skill(sites)
    assert list(skill.index) == ["train", "validation", "test"]
    assert skill.sites.tolist() == [320, 40, 40]
    assert skill.distance["train"] == 0 < skill.distance["test"]
    best = run.history[run.history.epoch == run.best_epoch[0]]
    one = dataclasses.replace(run, weights=run.weights[:1])
    assert np.isclose(one.skill(sites).nse["validation"], best[best.member == 0].validation_nse.iloc[0], atol=1e-6)
    elsewhere = sites.isel(site=slice(0, 10)).assign_coords(site=[f"new-{i}" for i in range(10)])
    assert list(run.skill(elsewhere).index) == ["new"]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "weights"), [("log_smooth_l1", "thickness"), ("likelihood", "proda")])
def test_other_losses_and_weights_train(sites, loss, weights):
    config = binn.Config(width=16, epochs=2, loss=loss, horizon_weights=weights)
    run = binn.fit(sites, config, progress=False)
    assert np.isfinite(run.history.validation_loss).all()
