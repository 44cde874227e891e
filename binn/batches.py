"""From a site data set to batches: all of it in memory, or a part at a time from a file that is larger."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, PRNGKeyArray

from binn.features import Features
from binn.objective import Data, read_data

LEAST_ON_A_DEVICE = 512  # sites; below, sharing a batch costs more than it saves: docs/measured.md
PAGES = 8  # pieces of the file that lie in memory together, so that neighbours in the file meet others


class Batches:
    """The sites of a training, in an order that is fresh in every epoch, shared by as many devices as divide a batch.

    Args:
        sites: a site data set, in memory or opened with `clm5.sites.open(path, lazy=True)`.
        features: how covariates become columns.
        training, validation: positions of the sites in the data set.
        batch_size: sites in a step, about.
        sites_in_memory: 0 keeps all sites in memory. Otherwise so many training sites are read at a time, as pages of
            neighbours in the file, pages in random order and sites in random order among those that are read together.
    """

    def __init__(
        self,
        sites: xr.Dataset,
        features: Features,
        training: Int[np.ndarray, " training"],
        validation: Int[np.ndarray, " validation"],
        *,
        batch_size: int,
        sites_in_memory: int = 0,
    ):
        self.sites, self.features, self.training, self.at_once = sites, features, training, sites_in_memory
        self.horizons = sites.sizes["horizon"]
        n = len(training)
        parts = -(-n // sites_in_memory) if sites_in_memory else 1
        self.parts, share = parts, n // parts  # in parts of equal size, so that every epoch has as many steps
        steps = max(1, round(share / batch_size))
        self.batch, self.steps = share // steps, parts * steps
        self.mesh = Mesh(jax.local_devices()[: _sharing(self.batch, jax.local_device_count())], ("site",))
        self.kept = None if sites_in_memory else read_data(sites.load(), features)
        self.validation_kept: Data | None = None
        self.validation_sites, self.validation = validation, self._blocks(validation)

    def epoch(self, key: PRNGKeyArray) -> Iterator[Data]:
        """The batches of one epoch, on their devices."""
        steps = self.steps // self.parts
        for part in self._parts(key):
            data, places = self._load(part)
            for start in range(0, steps * self.batch, self.batch):
                yield self.place(data.select(places[start : start + self.batch]))

    def validating(self) -> Iterator[Data]:
        """The validation sites, a block at a time; read once where they are no more than training sites at a time."""
        if self.validation_kept is not None:
            yield self.validation_kept
            return
        for block in self.validation:
            data, places = self._load(block)
            block_data = self.place(data.select(places))
            if len(self.validation) == 1:
                self.validation_kept = block_data
            yield block_data

    def place(self, data: Data) -> Data:
        """Rows shared by the devices where these divide them; copied to each otherwise."""
        if self.mesh.size == 1:
            return jax.tree.map(jnp.asarray, data)
        spec = PartitionSpec("site") if len(data.site) % self.mesh.size == 0 else PartitionSpec()
        return jax.device_put(data, NamedSharding(self.mesh, spec))

    def everywhere[T](self, tree: T) -> T:
        """Weights and the state of the optimiser: a copy on every device."""
        return tree if self.mesh.size == 1 else jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def _parts(self, key: PRNGKeyArray) -> list[np.ndarray]:
        if not self.at_once:
            return [np.asarray(jax.random.permutation(key, jnp.asarray(self.training)))]
        page_key, *keys = jax.random.split(key, self.parts + 1)
        pages = np.array_split(self.training, PAGES * self.parts)
        order = np.asarray(jax.random.permutation(page_key, len(pages)))
        share = len(self.training) // self.parts
        whole = np.concatenate([pages[page] for page in order])
        parts = [whole[start * share : (start + 1) * share] for start in range(self.parts)]
        return [
            np.asarray(jax.random.permutation(key, jnp.asarray(part))) for key, part in zip(keys, parts, strict=True)
        ]

    def _blocks(self, validation: np.ndarray) -> list[np.ndarray]:
        return np.array_split(validation, -(-len(validation) // self.at_once)) if self.at_once else [validation]

    def _load(self, chosen: np.ndarray) -> tuple[Data, np.ndarray]:
        """Data that hold the sites `chosen`, and where in them these are."""
        if self.kept is not None:
            return self.kept, chosen
        ordered = np.sort(chosen)
        page = ordered // max(1, self.at_once // PAGES)  # never more of the file at a time
        runs = np.split(ordered, np.flatnonzero(np.diff(page)) + 1)
        # together before anything is computed: what depends on the number of sites is compiled once
        read = [self.sites.isel(site=slice(run[0], run[-1] + 1)).load().isel(site=run - run[0]) for run in runs]
        whole = xr.concat(read, "site", data_vars="minimal", coords="minimal", compat="override", join="override")
        data = read_data(whole, self.features)
        return data._replace(site=ordered.astype(np.int32)), np.searchsorted(ordered, chosen)


def _sharing(batch: int, devices: int) -> int:
    """How many of the devices share a batch: as many as divide it and have enough to do."""
    most = max(1, min(devices, batch // LEAST_ON_A_DEVICE))
    return max(n for n in range(1, most + 1) if batch % n == 0)
