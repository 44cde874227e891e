"""A network's posterior batch by batch: the numbers of one made at once, also after a kill; other requests refused."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

import binn
import clm5
from binn.objective import build_network
from binn.uncertainty import draw_units

pytest.importorskip("zarr", reason="stores need the extra 'zarr'")

DRAWS, BATCH, N = 3, 4, 10  # batches of 4, 4 and 2 sites


class Killed(BaseException):
    """What ends a process."""


@pytest.fixture(scope="module", autouse=True)
def few_columns():
    """Small programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clm5.posterior.COLUMNS_AT_ONCE", 64)
        yield


@pytest.fixture(scope="module")
def lazy(sites, tmp_path_factory):
    path = clm5.sites.save(sites.isel(site=slice(0, N)), tmp_path_factory.mktemp("sites") / "sites.nc")
    return clm5.sites.open(path, lazy=True)


@pytest.fixture(scope="module")
def amortised(trained):
    """A network of distributions, untrained: about the prior at every site."""
    config = dataclasses.replace(trained[0].config, loss="elbo", members=1)
    network = build_network(config, trained[0].features, jax.random.key(0))
    return dataclasses.replace(trained[0], config=config, weights=(nnx.split(network)[1],))


@pytest.fixture(scope="module")
def stored(trained, lazy, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "posterior.zarr"
    return binn.posterior(trained[0], lazy, DRAWS, seed=3, out=path, batch=BATCH), path


def test_a_store_holds_what_is_made_at_once_of_a_file_that_stays_on_disk(trained, sites, lazy, stored):
    tree, path = stored
    assert not lazy["soil_temperature"].variable._in_memory
    assert not tree["posterior"].dataset["theta"].variable._in_memory
    whole = binn.posterior(trained[0], sites.isel(site=slice(0, N)), DRAWS, seed=3)
    for name, group in whole.children.items():
        for variable, expected in group.data_vars.items():
            found = clm5.open_posterior(path)[name][variable]
            assert found.dims == expected.dims
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-6)  # float32 sums
            else:
                np.testing.assert_array_equal(found, expected)
    changing = {"wall_time_s", "created_at"}
    assert {k: v for k, v in tree.attrs.items() if k not in changing} == {
        k: v for k, v in whole.attrs.items() if k not in changing
    }
    assert tree.attrs["wall_time_s"] > trained[0].wall_time


@pytest.mark.parametrize("kind", ["trained", "amortised"])
def test_draws_do_not_depend_on_blocks(kind, trained, amortised, sites):
    run, method = {"trained": (trained[0], "mc_dropout"), "amortised": (amortised, "amortised")}[kind]
    some = sites.isel(site=slice(0, N))
    whole = draw_units(run, some, DRAWS, method, seed=3)
    halves = [draw_units(run, some.isel(site=half), DRAWS, method, seed=3) for half in (slice(0, 5), slice(5, N))]
    np.testing.assert_allclose(np.concatenate(halves, axis=2), whole, rtol=1e-4)
    assert not np.allclose(*halves, rtol=0.05)


def test_sites_of_an_amortised_posterior_have_noise_of_their_own(amortised, sites):
    twins = sites.isel(site=[0] * 50).assign_coords(site=[f"s{i}" for i in range(50)])
    unit = draw_units(amortised, twins, DRAWS, "amortised")
    assert len(np.unique(unit[0, 0, :, 0])) == 50


def test_a_killed_run_goes_on_with_the_same_numbers(trained, lazy, stored, tmp_path, monkeypatch):
    written, write = [], clm5.PosteriorStore.write

    def dies_at_the_second(self, tree):
        if len(written) == 1:
            raise Killed
        written.append(tree)
        write(self, tree)

    def ask():
        return binn.posterior(trained[0], lazy, DRAWS, seed=3, out=tmp_path / "a.zarr", batch=BATCH)

    with monkeypatch.context() as patch:
        patch.setattr(clm5.PosteriorStore, "write", dies_at_the_second)
        with pytest.raises(Killed):
            ask()
    assert clm5.open_posterior(tmp_path / "a.zarr", unfinished=True)["posterior"].sizes["site"] == BATCH
    made, assemble = [], clm5.assemble_posterior
    monkeypatch.setattr(clm5, "assemble_posterior", lambda *a, **k: made.append(1) or assemble(*a, **k))
    tree = ask()
    assert len(made) == 2  # the first batch is not made again
    for name in ("theta", "soc"):
        np.testing.assert_array_equal(tree["posterior"][name], stored[0]["posterior"][name])
    ask()
    assert len(made) == 2  # a finished one is opened


def test_other_requests_are_refused_by_name(trained, lazy, stored, tmp_path):
    run, path = trained[0], stored[1]
    with pytest.raises(ValueError, match="draws was 3, is 4; seed was 3, is 5"):
        binn.posterior(run, lazy, 4, seed=5, out=path, batch=BATCH)
    other = dataclasses.replace(run, weights=run.weights[::-1])
    with pytest.raises(ValueError, match="network was"):
        binn.posterior(other, lazy, DRAWS, seed=3, out=path, batch=BATCH)
    with pytest.raises(ValueError, match="in batches of 4, not these 10 in batches of 5"):
        binn.posterior(run, lazy, DRAWS, seed=3, out=path, batch=5)
    with pytest.raises(ValueError, match=r"must end in \.zarr"):
        binn.posterior(run, lazy, DRAWS, out=tmp_path / "a.nc")
    with pytest.raises(ValueError, match="of a store named by `out`"):
        binn.posterior(run, lazy, DRAWS, batch=5)
    with pytest.raises(FileExistsError, match="resume=True"):
        binn.posterior(run, lazy, DRAWS, seed=3, out=path, batch=BATCH, resume=False)


@pytest.mark.slow
def test_laplace_learns_its_curvature_once(trained, sites, lazy, tmp_path, monkeypatch):
    calls, ask = [], binn.laplace.head_posteriors
    monkeypatch.setattr(binn.laplace, "head_posteriors", lambda *a: calls.append(1) or ask(*a))
    how = {"method": "laplace", "training_sites": sites}
    tree = binn.posterior(trained[0], lazy, DRAWS, out=tmp_path / "a.zarr", batch=BATCH, **how)
    assert len(calls) == 1  # all members in one pass over the training sites
    expected = draw_units(trained[0], lazy, DRAWS, **how)
    np.testing.assert_allclose(tree["posterior"].unit, expected, rtol=1e-3)
