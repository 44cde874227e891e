"""A network's posterior at any number of sites: batches are read, drawn, carried to carbon and written one by one."""

import gc
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import clm5
from binn.run import Run, flat_config

if TYPE_CHECKING:
    import xarray as xr

DRAWS_AT_ONCE = 2**18  # draws times sites of a batch
LARGEST_BATCH = 8192  # sites
MULTIPLE = 64  # of sites in a batch where there are more, so that the store's chunks are large


def batch_size(draws: int) -> int:
    """Sites whose draws, so many at each, are held in memory together."""
    batch = int(np.clip(DRAWS_AT_ONCE // draws, 1, LARGEST_BATCH))
    return batch - batch % MULTIPLE if batch > MULTIPLE else batch


def request(
    run: Run, sites: "xr.Dataset", draws: int, method: str, seed: int, training_sites: "xr.Dataset | None"
) -> dict[str, Any]:
    """What the draws depend on; a store that was begun for another one is refused."""
    asked = {
        "method": method,
        "draws": draws,
        "seed": seed,
        "sites": clm5.sites.fingerprint(sites),
        "network": run.weights_fingerprint(),
    }
    if method == "laplace" and training_sites is not None:
        asked["training_sites"] = clm5.sites.fingerprint(training_sites)
    return asked | {f"config.{name}": value for name, value in flat_config(run.config).items()}


def open_store(
    path: str | Path, sites: "xr.Dataset", batch: int, asked: Mapping[str, Any], *, resume: bool
) -> clm5.PosteriorStore:
    """A new store, or the one that is there, to be gone on with.

    Raises:
        ValueError: the name does not end in .zarr, or what is there was begun for something else.
        FileExistsError: `resume` is False and something is there.
    """
    if Path(path).exists() and not resume:
        raise FileExistsError(f"binn.posterior: {path} is there. Name another one, or go on with it by resume=True")
    return clm5.PosteriorStore(path, [str(name) for name in sites.site.values], batch, asked)


def fill(
    store: clm5.PosteriorStore,
    sites: "xr.Dataset",
    tree_of: "Callable[[xr.Dataset], xr.DataTree]",
    attrs: Callable[[float], Mapping[str, Any]],
    fingerprint: str,
) -> "xr.DataTree":
    """Write the batches that are missing, and open the store lazily; memory holds one batch.

    Args:
        store: of these sites.
        sites: in memory, or opened lazily.
        tree_of: makes the tree of some sites.
        attrs: root attributes of the whole file, by the seconds that its batches took.
        fingerprint: of the sites.
    """
    if store.complete:
        return clm5.open_posterior(store.path)
    for first in range(0, len(store.site), store.batch):
        rows = slice(first, first + store.batch)
        if not store.finished[rows].all():
            store.write(tree_of(sites.isel(site=rows).compute()))
            gc.collect()  # parents and children of a tree hold each other
    now = datetime.now(UTC).isoformat(timespec="seconds")
    whole = {"sites_fingerprint": fingerprint, "created_at": now}
    return store.finish({**attrs(store.wall_time), **whole})
