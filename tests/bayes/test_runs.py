"""Runs over many sites: what is kept, sampled again, taken up and listed. Draws are made up here, to be quick."""

import dataclasses
import tracemalloc

import jax
import numpy as np
import pytest
import xarray as xr

import bayes
import clm5
from bayes import batch, diagnostics, runs, sampler, storage

pytest.importorskip("zarr", reason="stores need the extra 'zarr'")

CONFIG = bayes.Config(chains=4, warmup=20, draws=240, batch=2, free=("q10", "tau4s3"), reruns=2, store="zarr")
# the first converges when it is sampled again, the second at the next attempt, the third never
HARD, HARDER, HOPELESS = "virtual-0002", "virtual-0003", "virtual-0005"


def made_up(sites, config, seed, *, attempt=0, width=None, tick=sampler.silent):
    """Draws like those of a sampler: independent, but for chains that disagree where the chains do not mix."""
    longer, n = config.longer(attempt), sites.sizes["site"]
    unit = np.tile(config.fixed_unit, (config.chains, longer.draws, n, 1))
    keys = np.asarray(jax.random.key_data(sampler.chain_keys(seed, list(sites.site.values), 1, attempt)))[:, 0]
    free = [clm5.NAMES.index(name) for name in config.free_names]
    for i, name in enumerate(sites.site.values):
        rng = np.random.default_rng(keys[i])
        apart = {HARD: 0.3 * (attempt < 1), HARDER: 0.3 * (attempt < 2), HOPELESS: 0.1 * (1 + attempt)}.get(
            str(name), 0.0
        )
        shift = apart * np.arange(config.chains)[:, None, None] / config.chains
        unit[:, :, i, free] = rng.uniform(0.0, 0.5, (config.chains, longer.draws, len(free))) + shift
    statistics = {name: np.ones(unit.shape[:3]) for name in sampler.STATISTICS}
    statistics["energy"], statistics["diverging"] = unit[..., free[0]], np.zeros(unit.shape[:3], bool)
    return {**statistics, "unit": unit, "n_gradients": np.full(n, longer.draws), "seconds": np.full(n, 0.5)}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(batch, "draw_batch", made_up)


@pytest.fixture(scope="module")
def whole(sites, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "draw_batch", made_up)
        return bayes.sample(sites, CONFIG, out=tmp_path_factory.mktemp("whole"), progress=False)


def same(tree, other):
    """Whether two files agree in every number but the times of writing."""
    return all(
        tree[name].to_dataset().load().drop_encoding().broadcast_equals(other[name].to_dataset().load())
        for name in {*tree.children, *other.children}
    )


def killed(*args, **kwargs):
    raise KeyboardInterrupt


def test_a_site_that_fails_is_sampled_again_and_one_that_still_fails_is_listed(whole, sites):
    table = bayes.summary(whole)
    np.testing.assert_array_equal(table.attempts, [1, 2, 3, 1, 3])
    np.testing.assert_array_equal(table.converged, [True, True, True, True, False])
    np.testing.assert_array_equal(table.attempt, [0, 1, 2, 0, 0])  # at the last site later attempts are worse
    np.testing.assert_array_equal(table.draws, [960, 2880, 8640, 960, 960])
    np.testing.assert_array_equal(table.n_gradients, 240 * np.array([1, 4, 13, 1, 13]))
    assert whole.attrs["n_gradients"] == 240 * 32
    assert whole.attrs["wall_time_s"] == pytest.approx(0.5 * 10)
    assert whole.attrs["sites_fingerprint"] == clm5.sites.fingerprint(sites)
    text = bayes.verdict(table)
    assert "4 of 5 sites" in text
    assert f"{HOPELESS}: R-hat" in text
    assert "after 3 attempts" in text
    assert f"{HARD}:" not in text
    assert list(bayes.unconverged(table).site) == [HOPELESS]
    assert bayes.unconverged(table).attempts.tolist() == [3]


@pytest.mark.parametrize("store", ["zarr", "netcdf"])
def test_where_all_converge_nothing_is_sampled_again(sites, tmp_path, store):
    easy = sites.isel(site=[0, 3])
    tree = bayes.sample(easy, dataclasses.replace(CONFIG, store=store), out=tmp_path / "run", progress=False)
    np.testing.assert_array_equal(bayes.summary(tree).attempts, [1, 1])


def test_draws_of_a_longer_attempt_are_thinned_to_the_length_of_the_file(whole, sites):
    place = list(sites.site.values).index(HARD)
    again = made_up(sites.isel(site=[place]), CONFIG, 0, attempt=1)["unit"]
    assert whole["posterior"].sizes["draw"] == 240
    stored = whole["posterior"].unit.sel(site=HARD)
    np.testing.assert_array_equal(stored, again[:, 2::3, 0].astype(np.float32))
    every = diagnostics.estimate(
        np.asarray(CONFIG.model.space.physical(again[:, :, 0]))
    )  # the table rests on all of them
    np.testing.assert_allclose(bayes.summary(whole).ess_bulk.sel(site=HARD), every["ess_bulk"], rtol=1e-3)
    assert np.nanmin(every["ess_bulk"]) > 2000


def test_arviz_reads_a_store_that_is_open(whole):
    import arviz_stats

    assert "_MemoryCachedArray" not in repr(whole["posterior"].variables["theta"]._data)
    one = whole.sel(site="virtual-0001", parameter=list(CONFIG.free_names))
    rhat = arviz_stats.rhat(one, var_names=["theta"])["theta"].sel(parameter="q10")
    assert float(rhat) == pytest.approx(
        float(bayes.summary(whole).rhat.sel(site="virtual-0001", parameter="q10")), 1e-6
    )
    assert len(arviz_stats.summary(one, var_names=["theta"])) == 2


def test_netcdf_and_store_hold_the_same(whole, sites, tmp_path):
    other = bayes.sample(sites, dataclasses.replace(CONFIG, store="netcdf"), out=tmp_path / "run", progress=False)
    assert same(whole, other)
    assert same(whole, clm5.open_posterior(tmp_path / "run" / "posterior.nc"))
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["posterior.nc", "run.json"]
    one = other["posterior"].isel(site=[0, 1, 2, 4, 3])
    assert not same(whole, other.assign({"posterior": xr.DataTree(one.to_dataset())}))


@pytest.mark.parametrize("batches", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_batch_that_was_cut_off_while_written_is_not_read_and_done_again(
    whole, sites, tmp_path, monkeypatch, batches
):
    """Killed between the last number and the mark of a batch."""
    put, written = clm5.PosteriorStore._put, []

    def cut_off(self, tree, rows):
        put(self, tree, rows)
        written.append(rows)
        if len(written) > batches:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(clm5.PosteriorStore, "_put", cut_off)
        with pytest.raises(KeyboardInterrupt):
            bayes.sample(sites, CONFIG, out=tmp_path, progress=False)
    path = tmp_path / "posterior.zarr"
    with pytest.raises(ValueError, match=f"not finished: {5 - 2 * batches} of 5 sites are missing"):
        clm5.open_posterior(path)
    there = clm5.open_posterior(path, unfinished=True)
    assert list(there["posterior"].site.values) == list(sites.site.values[: 2 * batches])
    if batches:
        first = whole["posterior"].unit.isel(site=[0]).values
        np.testing.assert_array_equal(there["posterior"].unit.isel(site=[0]), first)
    done = count_batches(monkeypatch)
    resumed = bayes.sample(sites, CONFIG, out=tmp_path, progress=False)
    assert len(done) == 3 - batches + 3  # what was missing, an attempt at three sites, and one at two
    assert same(resumed, whole)
    again = bayes.sample(sites, CONFIG, out=tmp_path, progress=False)  # finished: only read
    assert len(done) == 6 - batches
    assert same(again, whole)
    with pytest.raises(FileExistsError, match="resume=True"):
        bayes.sample(sites, CONFIG, out=tmp_path, resume=False, progress=False)


def count_batches(monkeypatch):
    run, done = runs.sample_batch, []

    def counted(part, *args, **kwargs):
        done.append(part.sizes["site"])
        return run(part, *args, **kwargs)

    monkeypatch.setattr(runs, "sample_batch", counted)
    return done


@pytest.mark.parametrize("where", ["within", pytest.param("after", marks=pytest.mark.slow)])
def test_a_kill_while_sites_are_replaced_loses_nothing(whole, sites, tmp_path, monkeypatch, where):
    """Killed within and after the copy of what was sampled again, which shares chunks with other sites."""
    import zarr

    put, replace, write = (
        clm5.PosteriorStore._put,
        clm5.PosteriorStore._copy_pending,
        zarr.Array.set_orthogonal_selection,
    )
    with monkeypatch.context() as patch:
        if where == "within":
            written = []

            def half(self, place, values, **kwargs):
                written.append(self)
                if len(written) > 5 and isinstance(place, tuple) and any(isinstance(p, np.ndarray) for p in place):
                    raise KeyboardInterrupt
                write(self, place, values, **kwargs)

            patch.setattr(zarr.Array, "set_orthogonal_selection", half)
        else:

            def around(self):
                if self._pending.exists():
                    if where == "after":
                        patch.setattr(type(self), "_put", lambda *args: (put(*args), killed()))
                        replace(self)
                    raise KeyboardInterrupt
                replace(self)

            patch.setattr(clm5.PosteriorStore, "_copy_pending", around)
        with pytest.raises(KeyboardInterrupt):
            bayes.sample(sites, CONFIG, out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="sampled again"):
        clm5.open_posterior(tmp_path / "posterior.zarr")
    with pytest.raises(ValueError, match="being replaced"):
        clm5.open_posterior(tmp_path / "posterior.zarr", unfinished=True)
    done = count_batches(monkeypatch)
    assert same(bayes.sample(sites, CONFIG, out=tmp_path, progress=False), whole)
    assert done == [1, 2]  # the rest of the second attempt, and the third


@pytest.mark.slow
def test_a_lazy_site_file_is_read_a_batch_at_a_time_and_draws_are_thinned(whole, sites, tmp_path, monkeypatch):
    clm5.sites.save(sites, tmp_path / "sites.nc")
    lazy = clm5.sites.open(tmp_path / "sites.nc", lazy=True)
    done = count_batches(monkeypatch)
    thin = bayes.sample(lazy, dataclasses.replace(CONFIG, thin=4), out=tmp_path / "thin", progress=False)
    assert max(done) == 2
    assert not lazy["soil_temperature"].variable._in_memory
    assert thin["posterior"].sizes["draw"] == 60
    for place in range(5):  # every fourth draw of what the file holds without thinning
        np.testing.assert_array_equal(thin["posterior"].unit[:, :, place], whole["posterior"].unit[:, 3::4, place])
    xr.testing.assert_identical(bayes.summary(thin), bayes.summary(whole))


def test_a_summary_holds_no_draws_and_what_was_said_of_them(whole, sites, tmp_path):
    summary = bayes.sample(sites, dataclasses.replace(CONFIG, keep="summary"), out=tmp_path, progress=False)
    assert set(summary.children) == {"diagnostics", "observed_data", "constant_data"}
    table = bayes.summary(summary)
    xr.testing.assert_identical(table, bayes.summary(whole))
    middle = whole["posterior"].theta.sel(site="virtual-0001").median(("chain", "draw"))
    np.testing.assert_allclose(table["quantile"].sel(site="virtual-0001", probability=0.5), middle, rtol=1e-6)


@pytest.mark.slow
def test_memory_holds_a_batch_and_not_all_sites(sites, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "GARBAGE", 1e6)
    config = dataclasses.replace(CONFIG, reruns=0)

    def peak(n):
        many = xr.concat([sites] * n, "site").assign_coords(site=[f"s{i}" for i in range(5 * n)])
        tracemalloc.start()
        tree = bayes.sample(many, config, out=tmp_path / str(n), progress=False)
        size = tree["posterior"].nbytes
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found, size

    few, many = peak(2), peak(6)
    assert many[1] > 7e6
    assert many[0] - few[0] < 0.4 * (many[1] - few[1])  # of draws and profiles alone, which are a part of a tree


def test_requests_that_cannot_be_met_are_refused_before_work(sites, tmp_path):
    with pytest.raises(ValueError, match="name it with `out`"):
        bayes.sample(sites, CONFIG)
    huge = dataclasses.replace(CONFIG, store="netcdf", draws=4_000_000)
    with pytest.raises(ValueError, match=r"31 GB.*store='zarr'"):
        bayes.sample(sites, huge, out=tmp_path / "huge")
    assert not (tmp_path / "huge").exists()
