"""`sample_on`: the batches of `bayes.sample` on the workers of dask.distributed."""

import os
import threading
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import xarray as xr

from bayes.batch import sample_batch
from bayes.config import Config
from bayes.runs import Batch, Run
from bayes.sampler import Tick

if TYPE_CHECKING:
    from distributed import Client

WAITING = 2  # batches per worker thread that are on their way: bounds the memory of workers and of this process

_one_at_a_time = threading.Lock()  # a batch takes all devices of its worker


def sample_on(
    cluster: "Client | str",
    sites: xr.Dataset,
    config: Config | None = None,
    out: str | os.PathLike | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
) -> xr.DataTree:
    """`bayes.sample` with its batches on the workers of dask.distributed (docs/cluster.md).

    This process reads the sites, hands out a batch at a time, and alone writes the results: workers need this package
    and no common file system. The batch of a worker that is lost is done again elsewhere. Draws are those of
    `bayes.sample` on machines of the workers' kind with the same number of devices.

    Args:
        cluster: a `distributed.Client`, or the address of a scheduler, such as "tcp://10.0.0.1:8786".
        sites, config, out, seed, resume, progress: as for `bayes.sample`.

    Returns:
        As `bayes.sample`.

    Raises:
        ImportError: dask.distributed is not installed.
        ValueError: as `bayes.sample`; and where there is no worker.
        distributed.KilledWorker: a batch was lost with several workers (as many as the scheduler's setting
            `distributed.scheduler.allowed-failures` says): memory? A smaller `batch` needs less. Finished batches are
            kept, the run can be resumed.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("sample_on needs the extra: pip install 'binn-clm5[cluster]'") from error
    config = Config() if config is None else config
    client = Client(cluster) if isinstance(cluster, str) else cluster
    try:
        if not client.nthreads():
            raise ValueError(f"sample_on: the scheduler at {client.scheduler.address} has no workers; start some first")
        devices = client.submit(_devices, pure=False).result()
        run = Run(sites, config, out, seed, resume=resume, devices=devices)
        return run.sample(lambda run, batches, tick: _spread(client, run, batches, tick), progress)
    finally:
        if isinstance(cluster, str):
            client.close()


def _spread(client: Any, run: Run, batches: list[Batch], tick: Tick) -> Iterator[tuple[Batch, xr.DataTree]]:
    """Batches as they finish, a few at a time on their way."""
    from distributed import as_completed

    def submit(batch: Batch):
        future = client.submit(_work, run.part(batch), run.config, run.seed, batch, pure=False)
        asked[future.key] = batch
        return future

    asked: dict[str, Batch] = {}
    waiting = iter(batches)
    threads = sum(client.nthreads().values())
    running = as_completed(map(submit, islice(waiting, WAITING * threads)))
    for future in running:
        groups, attrs = future.result()
        tree = xr.DataTree.from_dict(groups)
        tree.attrs = attrs
        yield asked.pop(future.key), tree
        future.release()
        for batch in islice(waiting, 1):
            running.add(submit(batch))


def _work(sites: xr.Dataset, config: Config, seed: int, batch: Batch) -> tuple[dict[str, xr.Dataset], dict]:
    with _one_at_a_time:
        tree = sample_batch(sites, config, seed, attempt=batch.attempt, width=batch.width)
    return {name: node.to_dataset() for name, node in tree.children.items()}, dict(tree.attrs)


def _devices() -> int:
    import jax

    return len(jax.devices())
