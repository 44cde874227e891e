"""Training can be stopped anywhere and ends the same, refuses what it cannot use, and leaves whole files."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import binn
import clm5
from binn import steps, training
from binn.objective import build_network
from binn.uncertainty import draw_units
from tests.binn.killing import Killed, kill_in_epochs

FALSE_ALARM = 1e-6  # how often a right answer may turn a statistical test red, whatever the seed


def leaves(run):
    return [np.asarray(leaf) for weights in run.weights for leaf in jax.tree.leaves(weights)]


def assert_same(a, b):
    for left, right in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(left, right)
    assert a.history.equals(b.history)
    assert (a.best_epoch, a.n_solves, a.n_gradients) == (b.best_epoch, b.n_solves, b.n_gradients)


def test_a_killed_run_resumes_to_the_numbers_of_an_unbroken_one(sites, trained, tmp_path, monkeypatch):
    unbroken, _ = trained
    # in epoch 6 of member 0, in its last epoch, in epoch 10 of member 1
    begun = kill_in_epochs(monkeypatch, 6, 42, 56)
    arguments = {"seed": 1, "progress": False, "checkpoint_every": 4}
    for _ in range(3):
        with pytest.raises(Killed):
            binn.fit(sites, unbroken.config, tmp_path / "a", **arguments)
        with pytest.raises(ValueError, match="unfinished run"):
            binn.load(tmp_path / "a")
    resumed = binn.fit(sites, unbroken.config, tmp_path / "a", **arguments)
    assert len(begun) == 2 * 40 + 2 + 4 + 2  # only the epochs since the last checkpoint are done twice
    assert_same(resumed, unbroken)
    assert not [path for path in (tmp_path / "a").iterdir() if path.name.startswith(".")]  # no half-written rest


def test_a_killed_run_remembers_the_best_it_has_seen(sites, config, tmp_path, monkeypatch):
    scripted = iter([5.0, 1.0, 4.0, Killed, *[3.0] * 40])
    real = training.evaluate

    def score(*args, **kwargs):
        loss = next(scripted)
        if loss is Killed:
            raise Killed
        return real(*args, **kwargs)._replace(loss=np.float64(loss))

    monkeypatch.setattr(training, "evaluate", score)
    config = dataclasses.replace(config, patience=4)
    with pytest.raises(Killed):
        binn.fit(sites, config, tmp_path, progress=False, checkpoint_every=1)
    run = binn.fit(sites, config, tmp_path, progress=False, checkpoint_every=1)
    assert run.best_epoch == (2,)
    assert len(run.history) == 2 + 4


def test_every_epoch_visits_every_site_in_another_order_under_other_masks(sites, config, monkeypatch):
    real, seen = training.step, []

    def watch(params, state, batch, key, **static):
        seen.append((tuple(np.asarray(batch.site)), tuple(np.asarray(jax.random.key_data(key)))))
        return real(params, state, batch, key, **static)

    monkeypatch.setattr(training, "step", watch)
    run = binn.fit(sites, dataclasses.replace(config, patience=1), progress=False)
    epochs = len(run.history)
    assert epochs >= 2
    assert len(seen) == 10 * epochs
    orders = [sum((batch for batch, _ in seen[start : start + 10]), ()) for start in range(0, len(seen), 10)]
    train = set(np.flatnonzero(run.labels(sites) == "train"))
    assert all(set(order) == train and len(order) == len(train) for order in orders)
    assert len(set(orders)) == epochs
    assert len({key for _, key in seen}) == len(seen)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(sites, config):
    runs = [binn.fit(sites, config, seed=seed, progress=False) for seed in (1, 1, 2)]
    assert_same(runs[0], runs[1])
    assert not np.array_equal(leaves(runs[0])[0], leaves(runs[2])[0])
    np.testing.assert_array_equal(runs[0].split.label, runs[2].split.label)  # judged by the same sites


def test_members_differ_and_the_first_is_what_it_is_alone(sites, trained, config):
    run, _ = trained
    alone = binn.fit(sites, config, seed=1, progress=False)
    first, second = (jax.tree.leaves(weights) for weights in run.weights)
    for left, right in zip(jax.tree.leaves(alone.weights[0]), first, strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(first[0], second[0])


def test_training_teaches_the_network_what_unknown_means(trained):
    run, _ = trained
    unknown = [name.endswith("=unknown") for name in run.features.columns]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(run.seed), 0), 0)
    first = np.asarray(build_network(run.config, run.features, key).hidden[0].linear.kernel[...])[unknown]
    learned = np.asarray(run.network(0).hidden[0].linear.kernel[...])[unknown]
    assert len(first) == 3
    assert np.all(np.abs(learned - first).max(axis=1) > 0.01)  # weight decay alone moves them by 1e-4


def test_the_share_of_units_that_are_off_is_the_rate_in_training_and_in_draws_and_none_in_validation(
    sites, config, monkeypatch
):
    """Weights are rigged so that output k is ½ exactly where hidden unit k is off, and the loss is the share of ½."""
    config = dataclasses.replace(config, width=21, depth=1, dropout=0.3, weight_decay=0.0, epochs=1)
    real = training.build_network

    def rigged(*args):
        network = real(*args)
        (hidden,) = network.hidden
        hidden.linear.kernel[...] = jnp.zeros_like(hidden.linear.kernel[...])
        hidden.linear.bias[...] = jnp.ones_like(hidden.linear.bias[...])
        network.head.kernel[...] = jnp.eye(21, dtype=jnp.float32)
        network.head.bias[...] = jnp.zeros_like(network.head.bias[...])
        return network

    def count(unit, data, config):
        off = jnp.sum(jnp.abs(unit - 0.5) < 1e-4, axis=-1).astype(unit.dtype)
        return off, jnp.full_like(off, 21.0), jnp.ones((len(unit), 20), unit.dtype)

    monkeypatch.setattr(training, "build_network", rigged)
    monkeypatch.setattr(steps, "site_losses", count)
    run = binn.fit(sites, config, progress=False)
    drawn = np.mean(np.abs(draw_units(run, sites.isel(site=slice(0, 1)), 400) - 0.5) < 1e-4)
    assert run.history.validation_loss.to_list() == [0.0]
    for share, masked in ((run.history.train_loss[0], 320 * 21), (drawn, 400 * 21)):
        low, high = stats.binom.ppf([FALSE_ALARM / 4, 1 - FALSE_ALARM / 4], masked, 0.3) / masked
        assert low <= share <= high
        assert not low <= 0.15 <= high  # half the rate


def test_features_are_those_of_the_training_sites_alone(sites, trained):
    run, _ = trained
    assert run.features == binn.Features.fit(sites, run.labels(sites) == "train")
    assert run.features != binn.Features.fit(sites, np.full(sites.sizes["site"], True))


@pytest.mark.parametrize("every", [0, -1])
def test_saving_every_so_many_epochs_needs_a_number_of_epochs(sites, config, tmp_path, every):
    with pytest.raises(ValueError, match=f"checkpoint_every must be a whole number, 1 or more, got {every}"):
        binn.fit(sites, config, tmp_path / "a", checkpoint_every=every)
    assert not (tmp_path / "a").exists()


def test_a_finished_run_loads_as_it_was(sites, trained, monkeypatch):
    run, folder = trained
    loaded = binn.load(folder)
    assert_same(loaded, run)
    assert loaded.split.equals(run.split)
    for name in ("config", "seed", "features", "sites_fingerprint", "wall_time"):
        assert getattr(loaded, name) == getattr(run, name)
    np.testing.assert_array_equal(loaded.predict(sites), run.predict(sites))
    monkeypatch.setattr(training, "step", None)  # a finished run is read, not trained
    assert_same(binn.fit(sites, run.config, folder, seed=1), run)


def test_another_run_in_the_folder_is_refused(sites, trained):
    run, folder = trained
    with pytest.raises(ValueError, match=r"another run: width was 32, is 17"):
        binn.fit(sites, dataclasses.replace(run.config, width=17), folder, seed=1)
    with pytest.raises(ValueError, match=r"another run: seed was 1, is 2"):
        binn.fit(sites, run.config, folder, seed=2)
    options = clm5.ModelOptions(sigma=0.3)
    with pytest.raises(ValueError, match=r"another run: model\.sigma was 0\.2, is 0\.3"):
        binn.fit(sites, dataclasses.replace(run.config, model=options), folder, seed=1)
    with pytest.raises(ValueError, match=r"another run: sites_fingerprint was"):
        binn.fit(sites.isel(site=slice(0, 399)), run.config, folder, seed=1)
    with pytest.raises(FileExistsError, match="holds a run already"):
        binn.fit(sites, run.config, folder, seed=1, resume=False)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        binn.load(folder / "elsewhere")


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    from binn import files

    files.write_record(tmp_path / "a.msgpack", {"x": np.arange(3)})
    with pytest.raises(TypeError):
        files.write_record(tmp_path / "a.msgpack", {"x": object()})
    np.testing.assert_array_equal(files.read_record(tmp_path / "a.msgpack")["x"], np.arange(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.msgpack"]


def test_a_damaged_checkpoint_is_refused_by_name(sites, config, tmp_path, monkeypatch):
    kill_in_epochs(monkeypatch, 1)
    with pytest.raises(Killed):
        binn.fit(sites, config, tmp_path, progress=False)
    (tmp_path / "member-0.checkpoint.msgpack").write_bytes(b"\x83half")
    with pytest.raises(ValueError, match=r"member-0\.checkpoint\.msgpack: not a readable record"):
        binn.fit(sites, config, tmp_path, progress=False)


def test_the_weights_that_are_kept_are_those_of_the_best_validation_loss(sites, trained):
    run, _ = trained
    for member, epoch in enumerate(run.best_epoch):
        rows = run.history[run.history.member == member]
        assert rows.epoch.to_list() == list(range(1, len(rows) + 1))
        assert rows.validation_loss.idxmin() == rows.index[epoch - 1]
    # the deterministic network of member 0 on the validation sites, computed anew
    sites = sites.isel(site=np.flatnonzero(run.labels(sites) == "validation"))
    alone = dataclasses.replace(run, weights=run.weights[:1])
    with jax.enable_x64(True):
        theta = run.config.model.space.physical(alone.predict(sites))
        soc = clm5.simulate(theta, clm5.Forcing.from_sites(sites)).soc
        density = clm5.log_likelihood(soc, clm5.Observations.from_sites(sites), run.config.model)
        expected = -float(density.sum() / clm5.Observations.from_sites(sites).measured.sum())
    rows = run.history[run.history.member == 0]
    assert rows.validation_loss.min() == pytest.approx(expected, rel=1e-6)  # float32 network, compiled and not


def test_early_stopping_waits_for_patience_and_no_longer(sites, config, monkeypatch):
    scripted = iter([5.0, 3.0, 4.0, 3.0, 2.0, 1.0])
    real = training.evaluate
    monkeypatch.setattr(training, "evaluate", lambda *a, **k: real(*a, **k)._replace(loss=np.float64(next(scripted))))
    run = binn.fit(sites, dataclasses.replace(config, patience=2), progress=False)
    assert run.best_epoch == (2,)  # an equal loss is not a better one
    assert run.history.validation_loss.to_list() == [5.0, 3.0, 4.0, 3.0]


def test_solves_and_gradients_are_counted(trained):
    run, _ = trained  # 320 training sites in 10 batches of 32 an epoch, 40 validation sites, 40 epochs, 2 members
    assert run.n_gradients == 2 * 40 * 10 * 32
    assert run.n_solves == run.n_gradients + 2 * 40 * 40
    assert 0 < run.wall_time < 600


def test_carbon_that_is_not_a_number_is_refused_with_site_and_epoch(sites, config, monkeypatch):
    """The check of the data set is passed by; then one site's forcing spoils its column."""
    monkeypatch.setattr(clm5.sites, "check", lambda sites, **_: None)
    labels = binn.split(sites)
    for label, which, by in (
        ("train", "training", r", by parameter\(s\) q10, w_scaling"),
        ("validation", "validation", ""),
    ):
        at = int(np.flatnonzero(labels == label)[2])
        spoiled = sites.copy(deep=True)
        spoiled.soil_temperature[at] = np.nan
        with pytest.raises(
            FloatingPointError, match=rf"{which} loss.* in epoch 1, at site\(s\) {spoiled.site.values[at]}{by}\."
        ):
            binn.fit(spoiled, config, progress=False)


def test_weights_that_run_away_are_not_blamed_on_a_site(sites, config, monkeypatch):
    def runaway(*args):
        network = build_network(*args)
        network.head.bias[...] = np.nan * network.head.bias[...]
        return network

    monkeypatch.setattr(training, "build_network", runaway)
    with pytest.raises(FloatingPointError, match="no single site is the cause"):
        binn.fit(sites, config, progress=False)


def test_sites_are_checked_before_anything_runs(sites, config):
    bad = sites.copy(deep=True)
    bad.soil_temperature[4, 3, 7] = 12.5
    with pytest.raises(ValueError, match=r"virtual-0005.*soil_temperature"):
        binn.fit(bad, config)


def test_a_site_of_the_run_that_moved_is_refused_and_a_new_one_is_new(sites, trained):
    run, _ = trained
    other = sites.assign_coords(site=["elsewhere", *sites.site.values[1:]])
    labels = run.labels(other)
    assert labels[0] == "new"
    np.testing.assert_array_equal(labels[1:], run.labels(sites)[1:])
    moved = sites.assign(lon=sites.lon + 0.1)
    with pytest.raises(ValueError, match=r"site virtual-0001: lon is .*as at 400 sites.*another id"):
        run.labels(moved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width must be a whole number, 1 or more, got 0"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"members": True}, "members must be a whole number"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"learning_rate": 0.0}, "learning_rate must be finite and above 0"),
        ({"weight_decay": float("nan")}, "weight_decay must be finite and 0 or more, got nan"),
        ({"activation": "sine"}, "activation must be one of"),
        ({"loss": "mse"}, "loss must be one of"),
        ({"split": "altitude"}, "split must be one of"),
        ({"split_seed": -1}, "split_seed must be a whole number, 0 or more"),
        ({"model": {"sigma": 0.2}}, "model must be a clm5.ModelOptions, got dict"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(change, message):
    config = binn.Config()
    for name, value in change.items():  # past the types, which tests check before the values are looked at
        object.__setattr__(config, name, value)
    with pytest.raises(ValueError, match=message):
        config.__post_init__()


def test_a_config_survives_json_and_an_unknown_field_is_refused():
    config = binn.Config(model=clm5.ModelOptions(bounds="proda", sigma=0.6), loss="smooth_l1")
    record = json.loads(json.dumps(config.to_json()))
    assert binn.Config.from_json(record) == config
    with pytest.raises(ValueError, match="no field rate"):
        binn.Config.from_json({**record, "rate": 1})


def test_importing_changes_no_setting_of_jax_and_loads_no_sampler():
    code = (
        "import jax; before = jax.config.jax_enable_x64; import binn; binn.fit, binn.posterior, binn.Features;"
        "import sys; assert jax.config.jax_enable_x64 == before == False;"
        "assert not {'bayes', 'comparisons', 'numpyro'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_fit_leaves_the_precision_as_it_was(trained):
    assert not jax.config.jax_enable_x64
    assert all(leaf.dtype == np.float32 for leaf in leaves(trained[0]))
