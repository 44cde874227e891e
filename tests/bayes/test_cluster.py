"""The batches of a run on dask.distributed: the same draws as in one process, also when a worker dies."""

import dataclasses
import os
import signal
import threading
import time

import numpy as np
import pytest

import bayes
import clm5

distributed = pytest.importorskip("distributed", reason="sampling on a cluster needs the extra 'cluster'")

CONFIG = bayes.Config(chains=2, warmup=100, draws=300, batch=2, free=("q10", "tau4s3"), reruns=0, max_tree_depth=5)


def kill_a_busy_worker(client, pids: dict[str, int], killed: list[str]) -> None:
    """Wait until a worker is at work, and end its process."""
    while not killed:
        busy = [address for address, tasks in client.processing().items() if tasks and address in pids]
        if busy:
            os.kill(pids[busy[0]], signal.SIGKILL)
            killed.append(busy[0])
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sockets of the worker that is killed
def test_a_batch_of_a_worker_that_dies_is_done_again(sites, tmp_path):
    config = dataclasses.replace(CONFIG, store="zarr")
    alone = bayes.sample(sites, CONFIG, seed=2, progress=False)
    how = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**how) as cluster, distributed.Client(cluster) as client:
        pids, killed = client.run(os.getpid), []
        killer = threading.Thread(target=kill_a_busy_worker, args=(client, pids, killed))
        killer.start()
        spread = bayes.sample_on(client, sites, config, out=tmp_path / "run", seed=2, progress=False)
        killer.join()
        assert set(client.run(os.getpid).values()) != set(pids.values())  # another process took the place of one
    assert killed
    for group, name in (("posterior", "unit"), ("sample_stats", "lp"), ("posterior_predictive", "soc_observed")):
        np.testing.assert_array_equal(spread[group][name], alone[group][name])
    assert spread.attrs["n_gradients"] == alone.attrs["n_gradients"]
    assert not np.array_equal(spread["posterior"].unit[:, :, :1], alone["posterior"].unit[:, :, 1:2])
    assert clm5.open_posterior(tmp_path / "run" / "posterior.zarr").attrs["seed"] == 2


def test_a_scheduler_without_workers_is_refused(sites):
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        pytest.raises(ValueError, match="no workers"),
    ):
        bayes.sample_on(cluster.scheduler_address, sites, CONFIG)
