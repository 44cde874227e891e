"""Batches: every site once an epoch, from memory or from a file that is read in parts, on one device or several."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import xarray as xr

import binn
import clm5
from binn.batches import Batches, _sharing
from binn.features import Features
from tests.binn.killing import Killed, kill_in_epochs

TWO_DEVICES = """
import sys, jax, numpy as np, binn, clm5
from binn import batches
batches.LEAST_ON_A_DEVICE = 64
sites = clm5.sites.open(sys.argv[1])
config = binn.Config(width=16, epochs=3, batch_size=160, norm="batch", learning_rate=1e-3)
shares = set()
place = batches.Batches.place
def watch(self, data):
    placed = place(self, data)
    shares.add(tuple(len(part.data) for part in placed.x.addressable_shards))
    return placed
batches.Batches.place = watch
run = binn.fit(sites, config, sys.argv[2], progress=False, checkpoint_every=1)
print(sorted(shares))
"""


@pytest.fixture(scope="module")
def file(sites, tmp_path_factory):
    return clm5.sites.save(sites, tmp_path_factory.mktemp("sites") / "sites.nc")


def batches(sites, in_memory=0, batch_size=32):
    labels = binn.split(sites)
    features = Features.fit(sites, labels == "train")
    places = (np.flatnonzero(labels == label) for label in ("train", "validation"))
    return Batches(sites, features, *places, batch_size=batch_size, sites_in_memory=in_memory)


def test_parts_of_a_file_hold_the_sites_that_memory_would(sites, file):
    """A site's covariates, forcing and horizons are the same, whatever is read with it; no site comes twice."""
    lazy = clm5.sites.open(file, lazy=True)
    with jax.enable_x64(True):
        whole = batches(sites)
        parts = batches(lazy, in_memory=80)
        assert parts.parts == 4
        seen = list(parts.epoch(jax.random.key(0)))
        kept = whole.kept
        for batch in seen:
            expected = kept.select(np.asarray(batch.site))
            for left, right in zip(jax.tree.leaves(batch), jax.tree.leaves(expected), strict=True):
                np.testing.assert_array_equal(left, right)
        order = np.concatenate([batch.site for batch in seen])
        again = np.concatenate([batch.site for batch in parts.epoch(jax.random.key(1))])
        validating = np.concatenate([block.site for block in parts.validating()])
    assert len(set(order.tolist())) == len(order) == parts.steps * parts.batch
    assert len(order) > 0.9 * len(whole.training)
    assert set(order.tolist()) <= set(whole.training.tolist())
    assert not np.array_equal(order, again)
    np.testing.assert_array_equal(validating, whole.validation_sites)
    assert len(parts.validation) == 1
    first = {site for batch in seen[: parts.steps // 4] for site in np.asarray(batch.site).tolist()}
    assert np.ptp(list(first)) > 200  # pages from all over the file lie in memory together


@pytest.mark.slow
def test_training_from_a_file_reads_in_parts_and_learns_as_well(sites, file, monkeypatch):
    lazy = clm5.sites.open(file, lazy=True)
    most = []
    real = xr.Dataset.load
    monkeypatch.setattr(xr.Dataset, "load", lambda self: most.append(self.sizes["site"]) or real(self))
    config = binn.Config(width=32, epochs=10, learning_rate=1e-2)
    parts = binn.fit(lazy, dataclasses.replace(config, sites_in_memory=200), progress=False)
    assert most.count(200) == 2  # the check, a block at a time; the training reads pages
    assert max(read for read in most if read != 200) <= 200 // 8
    whole = binn.fit(sites, config, progress=False)
    assert whole.sites_fingerprint == parts.sites_fingerprint
    best = [run.history.validation_nse.max() for run in (whole, parts)]
    assert best[1] > 0.4
    assert abs(best[0] - best[1]) < 0.2


@pytest.mark.slow
def test_a_killed_run_from_a_file_ends_the_same(file, tmp_path, monkeypatch):
    lazy = clm5.sites.open(file, lazy=True)
    config = binn.Config(width=16, epochs=3, sites_in_memory=200)
    unbroken = binn.fit(lazy, config, progress=False)
    kill_in_epochs(monkeypatch, 2)
    with pytest.raises(Killed):
        binn.fit(lazy, config, tmp_path / "a", progress=False, checkpoint_every=1)
    resumed = binn.fit(lazy, config, tmp_path / "a", progress=False, checkpoint_every=1)
    assert resumed.history.equals(unbroken.history)


def test_a_file_with_a_fault_is_refused_a_block_at_a_time(sites, tmp_path):
    """The fault lies in the last block; ids are compared over all sites."""
    bad = sites.copy(deep=True)
    bad.water_scalar[390] = 2.0
    with pytest.raises(ValueError, match=f"site {sites.site.values[390]}: water_scalar"):
        clm5.sites.check(bad, block=100)
    clm5.sites.check(bad.isel(site=slice(0, 390)), block=100)
    twice = sites.assign_coords(site=[*sites.site.values[:-1], sites.site.values[0]])
    with pytest.raises(ValueError, match="occurs 2 times"):
        clm5.sites.check(twice, block=100)


@pytest.mark.slow
def test_two_devices_share_a_batch_and_train_to_the_same_numbers(file, tmp_path):
    """To rounding: sums are taken in another order. Both hold half of every batch."""
    runs = {}
    for devices in (1, 2):
        flags = f"--xla_force_host_platform_device_count={devices}"
        out = tmp_path / str(devices)
        done = subprocess.run(
            [sys.executable, "-c", TWO_DEVICES, str(file), str(out)],
            env={**os.environ, "XLA_FLAGS": flags},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        expected = {1: [(40,), (160,)], 2: [(20, 20), (80, 80)]}  # validation sites, and those of a batch
        assert done.stdout.strip() == str(expected[devices])
        runs[devices] = binn.load(out)
    one, two = (run.history.to_numpy() for run in runs.values())
    np.testing.assert_allclose(one, two, rtol=1e-4)
    assert len(one) == 3


@pytest.mark.parametrize(
    ("batch", "devices", "used"), [(1024, 2, 2), (1025, 2, 1), (512, 2, 1), (4096, 3, 2), (4098, 3, 3)]
)
def test_a_batch_is_shared_by_devices_that_divide_it_and_have_enough_to_do(batch, devices, used):
    assert _sharing(batch, devices) == used
