"""The columns that benchmarks run on: virtual sites, repeated, each with parameters of its own."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import clm5

SITES_SEED = 0
FORCING = tuple(field.name for field in fields(clm5.Forcing))
HORIZONS = tuple(field.name for field in fields(clm5.Observations))

Sites = tuple[clm5.Forcing, clm5.Observations]


@dataclass(frozen=True)
class Inputs:
    """Arguments of the timed programs, columns along the first axis of everything, on the devices that run them."""

    theta: jax.Array  # (column, 21), physical, uniform in the whole BINN box
    forcing: clm5.Forcing
    observations: clm5.Observations  # 3 to 9 horizons a column, padded with NaN

    @property
    def columns(self) -> int:
        """How many."""
        return self.theta.shape[0]


def save_sites(path: Path, n_sites: int) -> None:
    """Make virtual sites and keep their forcing and horizons, so that no measuring process has to make them."""
    sites = clm5.sites.virtual(n_sites, seed=SITES_SEED)
    with jax.enable_x64(True):
        forcing, observations = clm5.Forcing.from_sites(sites), clm5.Observations.from_sites(sites)
        arrays: dict[str, Any] = {name: np.asarray(getattr(forcing, name)) for name in FORCING}
        arrays |= {f"horizon_{name}": np.asarray(getattr(observations, name)) for name in HORIZONS}
    np.savez(path, **arrays)


def load_sites(path: Path) -> Sites:
    """Forcing and horizons as `save_sites` left them, in NumPy float64."""
    with np.load(path) as data:
        forcing = clm5.Forcing(**{name: data[name] for name in FORCING})
        return forcing, clm5.Observations(**{name: data[f"horizon_{name}"] for name in HORIZONS})


def make_inputs(sites: Sites, columns: int, mesh: Mesh, *, seed: int, first: int = 0) -> Inputs:
    """At least `columns` columns, as many on each device; column i has the climate of site `first` + i, in a ring."""
    columns += -columns % mesh.size
    forcing, observations = sites
    theta = clm5.ParameterSpace("binn").physical(np.random.default_rng(seed).uniform(size=(columns, len(clm5.NAMES))))
    index = (first + np.arange(columns)) % forcing.batch_shape[0]
    horizons = jax.tree.map(lambda x: x[index], observations)
    return Inputs(*jax.device_put((theta, forcing[index], horizons), placement(mesh)))


def placement(mesh: Mesh) -> NamedSharding | jax.Device:
    """Where arrays with columns along the first axis go: the one device, or an equal part on each."""
    if mesh.size == 1:
        return mesh.devices.flat[0]
    return NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
