"""`bayes.sample` on virtual sites: the right posterior, the same after a kill, and a file that says how good it is."""

import dataclasses
import json
import zlib
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from chances import z_limit
from jaxtyping import TypeCheckError

import bayes
import clm5
from bayes import diagnostics, runs, sampler
from bayes.storage import InMemory, RunFolder

FREE = ("q10", "tau4s3")
OPTIONS = clm5.ModelOptions()
CONFIG = bayes.Config(OPTIONS, chains=4, warmup=200, draws=40, max_tree_depth=5, batch=2, free=FREE, reruns=0)

simulate = jax.jit(lambda theta, forcing: clm5.simulate(theta, forcing, OPTIONS.rules).soc)


@pytest.fixture(scope="module")
def made(sites):
    """The virtual sites with horizons measured from a column that is CLM5's default but for the two free parameters."""
    rng = np.random.default_rng(5)
    with jax.enable_x64(True):
        unit = np.tile(CONFIG.fixed_unit, (sites.sizes["site"], 1))
        unit[:, [clm5.NAMES.index(name) for name in FREE]] = rng.uniform(0.2, 0.8, (len(unit), 2))
        soc = simulate(OPTIONS.space.physical(jnp.asarray(unit)), clm5.Forcing.from_sites(sites))
        observations = clm5.Observations.from_sites(sites)
        measured = np.asarray(clm5.sample_observations(jax.random.key(1), soc, observations, OPTIONS))
    return sites.assign(soc=(("site", "horizon"), measured, sites.soc.attrs))


@pytest.fixture(scope="module")
def whole(made):
    return bayes.sample(made, CONFIG, progress=False)


def same_draws(tree, other):
    return all(
        np.array_equal(tree[group][name], other[group].dataset[name])
        for group in ("posterior", "sample_stats")
        for name in tree[group].data_vars
    )


def grid_moments(site: xr.Dataset, sigmas, n: int = 101) -> list[np.ndarray]:
    """Posterior means of u and u² of the two free unit values on an n × n grid of midpoints, (2, 2) per sigma."""
    where = [clm5.NAMES.index(name) for name in FREE]
    middle = (np.arange(n) + 0.5) / n
    unit = np.tile(CONFIG.fixed_unit, (n * n, 1))
    unit[:, where] = np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2)
    moments = []
    with jax.enable_x64(True):
        forcing, observations = clm5.Forcing.from_sites(site)[0], clm5.Observations.from_sites(site)[0]
        soc = simulate(OPTIONS.space.physical(jnp.asarray(unit)), forcing)
        for sigma in sigmas:
            options = clm5.ModelOptions(sigma=sigma)
            log_density = np.asarray(jnp.sum(clm5.log_likelihood(soc, observations, options), axis=-1))
            weight = np.exp(log_density - log_density.max())
            moments.append((weight / weight.sum()) @ np.stack([unit[:, where], unit[:, where] ** 2]))
    return moments


def units(sites: xr.Dataset, seed: int = 0, config=CONFIG) -> np.ndarray:
    """Draws alone, without the work of a posterior file: (chain, draw, site, 21)."""
    parts = sampler.draw_batches(sites, config, seed)
    return np.concatenate([part["unit"] for part in parts], axis=2).astype(np.float32)


@pytest.mark.slow
def test_two_free_parameters_agree_with_brute_force(made):
    places = [1, 3]
    unit = units(made.isel(site=places), config=dataclasses.replace(CONFIG, draws=600))
    draws = unit[..., [clm5.NAMES.index(name) for name in FREE]].astype(float)
    found = diagnostics.estimate(np.stack([draws, draws**2], axis=-2))  # (site, moment, parameter)
    limit = z_limit(found["mean"].size)
    sigmas = (OPTIONS.sigma, 1.25 * OPTIONS.sigma)
    right, wrong = np.swapaxes([grid_moments(made.isel(site=[place]), sigmas) for place in places], 0, 1)
    assert np.abs((found["mean"] - right) / found["mcse_mean"]).max() < limit
    assert np.abs((found["mean"] - wrong) / found["mcse_mean"]).max() > limit  # sigma wrong by a quarter is caught


def test_the_tree_says_what_was_done_and_how_well(whole, made):
    stats = whole["sample_stats"].dataset
    assert set(stats.data_vars) == {*sampler.STATISTICS, "tree_depth"}
    assert all(stats[name].dims == ("chain", "draw", "site") for name in stats.data_vars)
    assert dict(whole["posterior"]["unit"].sizes) == {"chain": 4, "draw": 40, "site": 5, "parameter": 21}
    assert list(whole["posterior"]["site"].values) == list(made["site"].values)
    assert whole.attrs["method"] == "nuts"
    assert whole.attrs["free"] == ",".join(FREE)
    held = dict(pair.split("=") for pair in whole.attrs["fixed"].split(","))
    assert {*held, *FREE} == set(clm5.NAMES)
    theta = whole["posterior"]["theta"].isel(chain=0, draw=0, site=0)
    np.testing.assert_allclose([float(v) for v in held.values()], theta.sel(parameter=list(held)), rtol=1e-5)
    for name in ("chains", "warmup", "draws", "target_accept", "max_tree_depth", "scale"):
        assert whole.attrs[name] == getattr(CONFIG, name)
    # at least one gradient a transition, at most a full tree
    transitions = 4 * 240 * 5
    assert transitions <= whole.attrs["n_gradients"] <= transitions * (2**CONFIG.max_tree_depth - 1)
    assert whole.attrs["n_gradients"] > int(stats["n_steps"].sum())  # warm-up is in it
    np.testing.assert_array_equal(stats["tree_depth"], np.ceil(np.log2(stats["n_steps"] + 1)))
    beside = whole["diagnostics"].to_dataset()
    xr.testing.assert_identical(beside, bayes.summary(whole))
    computed = diagnostics.of_draws(whole)  # of draws that were rounded to float32 no more than in the file
    xr.testing.assert_allclose(beside[list(computed.data_vars)], computed)
    assert (beside["attempts"] == 1).all()
    assert int(beside["n_gradients"].sum()) == whole.attrs["n_gradients"]
    assert float(beside["seconds"].sum()) == pytest.approx(whole.attrs["wall_time_s"])
    assert beside["rhat"].sel(parameter=list(FREE)).notnull().all()
    held = np.delete(np.arange(21), [clm5.NAMES.index(name) for name in FREE])
    expected = np.broadcast_to(CONFIG.fixed_unit[held], (4, 40, 5, 19))
    np.testing.assert_allclose(whole["posterior"]["unit"].isel(parameter=held), expected, rtol=1e-6)  # float32


def test_lp_is_the_log_density_of_the_draws(whole, made):
    """In the probit coordinate: log likelihood plus standard normal densities."""
    from scipy import stats

    unit = whole["posterior"]["unit"].sel(parameter=list(FREE)).values.astype(float)
    prior = stats.norm.logpdf(stats.norm.ppf(unit)).sum(-1)
    likelihood = whole["log_likelihood"]["soc_observed"].sum("horizon", skipna=True).values
    np.testing.assert_allclose(whole["sample_stats"]["lp"], prior + likelihood, rtol=1e-4, atol=1e-3)  # float32 draws


def test_a_killed_run_goes_on_and_ends_with_the_same_draws(whole, made, tmp_path, monkeypatch):
    put, saved = InMemory.put, []

    def killed_in_the_second_batch(self, tree, attempt):
        if saved:
            raise KeyboardInterrupt
        saved.append(list(tree["posterior"].site.values))
        put(self, tree, attempt)

    with monkeypatch.context() as patch:
        patch.setattr(InMemory, "put", killed_in_the_second_batch)
        with pytest.raises(KeyboardInterrupt):
            bayes.sample(made, CONFIG, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "posterior.nc").exists()

    run, done = runs.sample_batch, []

    def counted(part, *args, **kwargs):
        done.append(list(part.site.values))
        return run(part, *args, **kwargs)

    monkeypatch.setattr(runs, "sample_batch", counted)
    resumed = bayes.sample(made, CONFIG, out=tmp_path / "run", progress=False)
    assert saved[0] not in done
    assert len(done) == 2
    assert same_draws(resumed, whole)
    assert not same_draws(resumed, whole.map_over_datasets(lambda group: group * 1.001 if group else group))
    assert same_draws(clm5.open_posterior(tmp_path / "run" / "posterior.nc"), whole)
    again = bayes.sample(made, CONFIG, out=tmp_path / "run", progress=False)  # finished: only read
    assert len(done) == 2
    assert same_draws(again, whole)

    for changed, words in (
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"config": dataclasses.replace(CONFIG, draws=41)}, "config.draws: 40 there, 41 now"),
        ({"sites": made.assign(soc=made.soc * 1.01)}, "sites: "),
    ):
        arguments = {"sites": made, "config": CONFIG, "seed": 0} | changed
        with pytest.raises(ValueError, match=words):
            bayes.sample(**arguments, out=tmp_path / "run", progress=False)
    with pytest.raises(FileExistsError, match="resume=True"):
        bayes.sample(made, CONFIG, out=tmp_path / "run", resume=False, progress=False)


def test_a_site_does_not_depend_on_its_neighbours_or_its_place(whole, made):
    places = [4, 1, 0]  # one of them alone in the last batch
    expected = whole["posterior"]["unit"].isel(site=places).values
    np.testing.assert_array_equal(units(made.isel(site=places)), expected)
    assert not np.array_equal(units(made.isel(site=places[:2]), seed=1), expected[:, :, :2])


@pytest.mark.slow
def test_sites_with_too_few_draws_are_sampled_again_until_they_have_enough(made):
    """380 draws hardly make 400 effective ones; many times as many do."""
    config = dataclasses.replace(CONFIG, draws=95, reruns=3)
    pair = made.isel(site=[0, 1])
    table = bayes.summary(bayes.sample(pair, config, progress=False))
    assert (table["attempts"] > 1).all()
    assert table["converged"].all(), bayes.verdict(table)
    first = bayes.summary(bayes.sample(pair, dataclasses.replace(config, reruns=0), progress=False))
    assert not first["converged"].any()
    assert all(str(site) in bayes.verdict(first) for site in pair.site.values)
    sampled = first["sd"].values > 0
    apart = np.abs(table["mean"] - first["mean"]).values[sampled] / first["mcse_mean"].values[sampled]
    assert 0 < apart.max() < z_limit(sampled.sum())  # other draws of the same posterior; MCSE of the shorter dominates


def test_chains_and_sites_have_keys_of_their_own():
    keys = jax.random.key_data(sampler.chain_keys(0, ["a", "b"], 3)).reshape(6, -1)
    assert len({tuple(map(int, key)) for key in keys}) == 6
    first = jax.random.key_data(sampler.chain_keys(0, ["b"], 2))
    np.testing.assert_array_equal(first, keys.reshape(2, 3, -1)[1:, :2])
    again = [jax.random.key_data(sampler.chain_keys(0, ["a", "b"], 3, attempt)).reshape(6, -1) for attempt in (1, 2)]
    assert len({tuple(map(int, key)) for key in np.concatenate([keys, *again])}) == 18  # other starts at every attempt
    assert zlib.crc32(b"a") != zlib.crc32(b"b")


def test_a_site_without_carbon_is_named(made):
    barren = made.copy(deep=True)
    barren["litter_input"][{"site": 1}] = 0.0
    with pytest.raises(ValueError, match=str(made["site"].values[1])):
        bayes.sample(barren.isel(site=[0, 1]), CONFIG, progress=False)


def test_progress_is_silent_where_nobody_looks(whole, capfd, made):
    bayes.sample(made.isel(site=[0, 1]), CONFIG, progress=True)
    out, err = capfd.readouterr()
    assert out == err == ""


def test_the_folder_records_the_request(made, tmp_path):
    folder = RunFolder(tmp_path / "a", {"config": CONFIG.request(), "seed": 0})
    recorded = json.loads((folder.path / "run.json").read_text())
    assert recorded["request"]["config"]["model"]["sigma"] == OPTIONS.sigma
    assert "jax" in recorded["versions"]
    (folder.path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="not the record of a sampling run"):
        RunFolder(tmp_path / "a", {"config": CONFIG.request(), "seed": 0})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"chains": 0}, "chains must be a whole number of at least 1"),
        ({"warmup": 5}, "warmup must be a whole number of at least 20"),
        ({"target_accept": 1.0}, "target_accept must lie between 0 and 1"),
        ({"max_tree_depth": 16}, "max_tree_depth"),
        ({"scale": "log"}, "scale must be one of"),
        ({"sampler": "gibbs"}, "sampler must be one of"),
        ({"steps": 0}, "steps must be a whole number of at least 1"),
        ({"keep": "some"}, "keep must be one of"),
        ({"store": "csv"}, "store must be one of"),
        ({"reruns": -1}, "reruns must be a whole number of at least 0"),
        ({"draws": 40, "thin": 11}, "thin 11 leaves 3 of 40 draws"),
        ({"free": ("q11",)}, "free names"),
        ({"free": ()}, "free names no parameter"),
        ({"free": ("q10", "q10")}, "twice"),
        ({"fixed": {"q10": 2.0}}, "both free and fixed"),
        ({"free": ("beta",), "fixed": {"q10": 20.0}}, "outside the bounds"),
    ],
)
def test_wrong_settings_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        bayes.Config(**wrong)


@pytest.mark.parametrize("wrong", [{"draws": 10.5}, {"model": "binn"}])
def test_settings_of_the_wrong_type_are_refused(wrong):
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(wrong))):  # tests check annotations first
        bayes.Config(**wrong)


def test_fixed_values_are_physical_and_others_default():
    config = bayes.Config(free=("beta",), fixed={"q10": 2.1})
    space = OPTIONS.space
    theta = np.asarray(space.physical(jnp.asarray(config.fixed_unit)))
    assert theta[clm5.NAMES.index("q10")] == pytest.approx(2.1, rel=1e-6)
    held = [i for i, name in enumerate(clm5.NAMES) if name not in ("beta", "q10")]
    np.testing.assert_allclose(theta[held], np.asarray(space.default())[held], rtol=1e-5)
    assert all(a < b for a, b in pairwise([clm5.NAMES.index(n) for n in bayes.Config(free=("beta", "q10")).free_names]))
