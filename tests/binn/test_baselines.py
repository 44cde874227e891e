"""What the network is held against: fitted on training sites alone, each as good as it can be, and judged alike."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import binn
import clm5
from binn.baseline import METHODS, Horizons, fit_constant, fit_ridge
from binn.objective import read_data, site_losses
from binn.plain import fit_plain


@pytest.fixture(scope="module")
def run(trained):
    return dataclasses.replace(trained[0], weights=trained[0].weights[:1])


@pytest.fixture(scope="module")
def table(run, sites):
    return binn.baselines(run, sites)


def data_of(run, sites):
    with jax.enable_x64(True):
        return jax.tree.map(jnp.asarray, read_data(sites, run.features))


def linear_rows(noise, n=900, seed=0):
    """Rows whose ln SOC is linear in covariates, depth and their products, of which a third each train, stop, judge."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8))
    y = 9 + x @ np.linspace(-0.5, 0.5, 8) + 0.3 * x[:, 0] * x[:, -1] + noise * rng.normal(size=n)
    return Horizons(
        x, y, np.array(["train", "validation", "test"] * (n // 3)), (np.arange(n), np.zeros(n, int)), (n, 1)
    )


@pytest.mark.slow
def test_every_method_is_judged_on_the_same_sites_by_the_same_numbers(table, run, sites):
    assert list(table.method.unique()) == list(METHODS)
    own = table[table.method == "binn"].set_index("label").drop(columns="method")
    pd.testing.assert_frame_equal(own, run.skill(sites), check_names=False)
    for _, rows in table.groupby("label"):
        assert rows.horizons.nunique() == rows.sites.nunique() == rows.distance.nunique() == 1
    train = table[table.label == "train"].set_index("method").nse
    assert train["ridge"] > train["constant"] > train["defaults"]


@pytest.mark.slow
def test_nothing_is_learned_from_the_sites_that_judge(table, run, sites):
    moved = sites.copy(deep=True)
    test = run.labels(sites) == "test"
    moved["soc"].values[test] /= 30.0
    other = binn.baselines(run, moved)
    for label in ("train", "validation"):
        pd.testing.assert_frame_equal(other[other.label == label], table[table.label == label])
    bias = [x[x.label == "test"].set_index("method").bias for x in (table, other)]
    np.testing.assert_allclose(bias[0] - bias[1], -np.log(30.0), rtol=1e-4)  # the answers stayed, the carbon moved


@pytest.mark.slow
def test_one_vector_for_all_is_the_best_there_is(run, sites):
    data, labels = data_of(run, sites), run.labels(sites)
    unit = fit_constant(data, labels, run.config)
    train = data.select(jnp.asarray(np.flatnonzero(labels == "train")))

    def loss(vector):
        with jax.enable_x64(True):
            total, _, _ = site_losses(jnp.tile(jnp.asarray(vector), (train.x.shape[0], 1)), train, run.config)
            return float(total.sum())

    least = loss(unit)
    rng = np.random.default_rng(0)
    for size in (0.003, 0.03, 0.3):
        for _ in range(5):
            assert loss(np.clip(unit + size * rng.normal(size=21), 0.01, 0.99)) > least - 1e-3 * abs(least)


@pytest.mark.slow
def test_one_vector_finds_carbon_that_one_vector_made(run, sites):
    few = sites.isel(site=slice(0, 40))
    config = dataclasses.replace(run.config, parameters=("w_scaling", "efolding"))
    unit = config.held_unit()
    for name, value in (("w_scaling", 0.3), ("efolding", 0.7)):
        unit[clm5.NAMES.index(name)] = value
    data = data_of(run, few)
    with jax.enable_x64(True):
        theta = config.model.space.physical(jnp.tile(jnp.asarray(unit), (40, 1)))
        soc = clm5.predict_horizons(clm5.simulate(theta, data.forcing).soc, data.observations, config.model)
        observations = dataclasses.replace(data.observations, soc=jnp.where(data.observations.measured, soc, jnp.nan))
    found = fit_constant(data._replace(observations=observations), run.labels(few), config)
    np.testing.assert_allclose(found, unit, atol=1e-3)


def test_ridge_finds_a_linear_law_and_shrinks_when_there_is_none():
    law = linear_rows(0.05)
    answer, penalty = fit_ridge(law)
    test = law.label == "test"
    assert np.std((answer - law.y)[test]) < 0.07  # the noise is 0.05
    nothing = dataclasses.replace(law, y=np.random.default_rng(1).normal(size=law.y.size))
    flat, strong = fit_ridge(nothing)
    assert strong > 10 * penalty
    assert np.std(flat) < 0.3


def test_the_plain_network_learns_from_training_rows_and_stops_by_validation_rows(run):
    law = linear_rows(0.05)
    config = dataclasses.replace(run.config, dropout=0.0, epochs=60, patience=60, batch_size=8)
    answer = fit_plain(law.x, law.y, law.label, config, 0)
    test = law.label == "test"
    assert 1 - np.var((answer - law.y)[test]) / np.var(law.y[test]) > 0.9
    np.testing.assert_array_equal(answer, fit_plain(law.x, law.y, law.label, config, 0))
    assert not np.array_equal(answer, fit_plain(law.x, law.y, law.label, config, 1))
    moved = np.where(test, law.y + 7, law.y)
    np.testing.assert_array_equal(answer, fit_plain(law.x, moved, law.label, config, 0))
    stopping = np.where(law.label == "validation", -law.y, law.y)  # they contradict: the first epochs are kept
    early = fit_plain(law.x, stopping, law.label, config, 0)
    assert np.std((early - law.y)[law.label == "train"]) > 2 * np.std((answer - law.y)[law.label == "train"])


def test_sentences_say_where_the_network_does_not_win():
    def of(**nse):
        return pd.DataFrame([{"method": name, "label": "test", "nse": value} for name, value in nse.items()])

    lost = binn.not_beaten(of(binn=0.61, ridge=0.66, constant=0.2))
    assert lost == ["the network does not beat ridge regression at test sites (NSE 0.61 against 0.66)"]
    won = binn.not_beaten(of(binn=0.7, ridge=0.66, constant=0.2))
    assert won == ["the network beats every baseline at test sites (NSE 0.70 against 0.66 of ridge regression)"]
    assert "0.661 against 0.664" in binn.not_beaten(of(binn=0.661, ridge=0.664))[0]
    assert len(binn.not_beaten(of(binn=0.5, ridge=0.5, constant=np.nan))) == 2  # equal, and not a number: not beaten
    assert binn.not_beaten(of(binn=0.7, ridge=0.66).assign(label="train")) == []


def test_sites_without_training_sites_are_refused(run, sites):
    test = sites.isel(site=np.flatnonzero(run.labels(sites) == "test"))
    with pytest.raises(ValueError, match='one of its "train" sites; give the data set that the run was trained on'):
        binn.baselines(run, test)


def test_the_command_prints_the_table_and_the_verdict(trained, sites, tmp_path, capsys):
    from comparisons.cli import main

    path = clm5.sites.save(sites, tmp_path / "sites.nc")
    assert main(["baselines", str(trained[1]), str(path), "--out", str(tmp_path / "b.csv")]) == 0
    said = capsys.readouterr().out
    assert "The network " in said
    assert "at test sites (NSE " in said
    assert list(pd.read_csv(tmp_path / "b.csv").columns[:2]) == ["method", "label"]
