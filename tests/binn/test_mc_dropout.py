"""The posterior file of the network: draws of the right shape and law, labelled, reproducible, without JAX inside."""

import dataclasses

import jax
import numpy as np
import pytest

import binn
import clm5
from binn.uncertainty import draw_units


@pytest.fixture(scope="module")
def some_sites(sites):
    return sites.isel(site=slice(0, 24))


@pytest.fixture(scope="module")
def tree(trained, some_sites):
    return binn.posterior(trained[0], some_sites, draws=7, seed=5)


def test_chain_is_member_draw_is_mask_and_the_draws_are_the_networks(tree, trained, some_sites):
    run, _ = trained
    assert dict(tree["posterior"].sizes)["chain"] == 2
    assert tree["posterior"].unit.shape == (2, 7, 24, 21)
    unit = draw_units(run, some_sites, 7, seed=5)
    np.testing.assert_allclose(tree["posterior"].unit, unit, rtol=1e-6)  # stored as float32
    assert unit.dtype == np.float64
    assert np.all((unit > 0) & (unit < 1))
    assert np.all(unit.std(axis=1) > 0)  # masks differ, in both members
    assert not np.array_equal(unit[0], unit[1])


def test_every_site_is_labelled_with_its_part_in_the_training(tree, trained, some_sites):
    split = tree["constant_data"].split
    assert split.dims == ("site",)
    np.testing.assert_array_equal(split, trained[0].split.label.loc[some_sites.site.values])
    assert set(split.values) == {"train", "validation", "test"}


def test_attributes_say_what_made_the_draws(tree, trained):
    run, _ = trained
    assert tree.attrs["method"] == "mc_dropout"
    assert tree.attrs["n_solves"] == run.n_solves
    assert tree.attrs["n_gradients"] == run.n_gradients
    assert tree.attrs["wall_time_s"] > run.wall_time
    for name in ("loss", "split", "split_seed", "dropout", "weight_decay", "members", "width", "depth"):
        assert tree.attrs[name] == getattr(run.config, name)
    assert tree.attrs["best_epoch"] == f"{run.best_epoch[0]},{run.best_epoch[1]}"
    assert tree.attrs["n_solves_of_draws"] == 2 * 7 * 24  # members, draws, sites
    assert tree.attrs["bounds"] == run.config.model.bounds


@pytest.mark.parametrize(("loss", "prior"), [("likelihood", "no"), ("posterior", "yes"), ("smooth_l1", "no")])
def test_attributes_say_whether_the_loss_held_the_prior(trained, some_sites, monkeypatch, loss, prior):
    run = dataclasses.replace(trained[0], config=dataclasses.replace(trained[0].config, loss=loss))
    monkeypatch.setattr(clm5, "assemble_posterior", lambda *args, attrs, **kwargs: attrs)
    assert binn.posterior(run, some_sites, draws=7)["prior_in_loss"] == prior


def test_nothing_in_the_tree_is_a_jax_array_and_it_survives_the_file(tree, tmp_path):
    for group in tree.subtree:
        for name, variable in group.variables.items():
            assert not isinstance(variable.data, jax.Array), (group.path, name)
    clm5.save_posterior(tree, tmp_path / "a.nc")
    again = clm5.open_posterior(tmp_path / "a.nc")
    np.testing.assert_array_equal(again["posterior"].unit, tree["posterior"].unit)
    np.testing.assert_array_equal(again["constant_data"].split.astype(str), tree["constant_data"].split)


def test_the_same_seed_gives_the_same_draws_whatever_the_company_and_the_batch(trained, some_sites, monkeypatch):
    run, _ = trained
    unit = draw_units(run, some_sites, 7, seed=5)
    np.testing.assert_array_equal(unit, draw_units(run, some_sites, 7, seed=5))
    assert not np.array_equal(unit, draw_units(run, some_sites, 7, seed=6))
    two = some_sites.isel(site=[3, 1])
    np.testing.assert_allclose(draw_units(run, two, 7, seed=5), unit[:, :, [3, 1]], rtol=1e-5)  # float32 sums
    monkeypatch.setattr("binn.uncertainty.ACTIVATIONS_AT_ONCE", 24 * 32 * 2)  # batches of 2, the last of 1
    np.testing.assert_allclose(draw_units(run, some_sites, 7, seed=5), unit, rtol=1e-5)


def test_members_get_masks_of_their_own(trained, some_sites):
    run, _ = trained
    twins = dataclasses.replace(run, weights=(run.weights[0], run.weights[0]))
    first, second = draw_units(twins, some_sites, 7)
    assert not np.any(np.all(first[:, None] == second[None], axis=(2, 3)))


@pytest.mark.slow
def test_sites_that_the_network_never_saw(trained, some_sites):
    new = some_sites.isel(site=[0, 5]).assign_coords(site=["a", "b"])
    new["soc"] = new.soc * np.nan  # not measured: prediction needs no measurement
    new["upper"], new["lower"] = new.upper * np.nan, new.lower * np.nan
    for name in ("upper", "lower", "soc"):
        new[name].attrs = some_sites[name].attrs
    tree = binn.posterior(trained[0], new, draws=3)
    assert list(tree["constant_data"].split.values) == ["new", "new"]
    assert np.all(np.isfinite(tree["posterior"].soc))


def test_what_has_no_spread_is_refused(trained, some_sites):
    run, _ = trained
    with pytest.raises(ValueError, match=r"method must be one of \('mc_dropout', .*, got 'variational'"):
        binn.posterior(run, some_sites, method="variational")
    with pytest.raises(ValueError, match="2 draws or more, got 1"):
        binn.posterior(run, some_sites, draws=1)
    still = dataclasses.replace(run, config=dataclasses.replace(run.config, dropout=0.0))
    with pytest.raises(ValueError, match="dropout = 0, so that all its Monte Carlo dropout draws are equal"):
        binn.posterior(still, some_sites)
    with pytest.raises(ValueError, match="which this data set lacks"):
        binn.posterior(run, some_sites.drop_vars("clay"))
