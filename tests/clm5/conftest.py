"""Columns that the tests of the core run on: the golden ones, and a sweep through the corners of site and prior."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clm5
from clm5.grid import INTERFACE_ALL

GOLDEN = Path(__file__).parent / "golden" / "reference_columns.npz"


def forcing_of(data) -> clm5.Forcing:
    """The forcing in one of the golden files' own layouts."""
    litter = np.stack([data["litter_cwd"], data["litter_l1"], data["litter_l2"], data["litter_l3"]], axis=1)
    bedrock = np.repeat(data["nbedrock"][:, None].astype(float), 12, axis=1)
    fields = (data["tsoil"], data["w_scalar"], data["o_scalar"], data["n_scalar"], litter, data["altmax"])
    with jax.enable_x64(True):
        return clm5.Forcing(*map(jnp.asarray, (*fields, data["altmax_lastyear"], bedrock)))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def golden():
    return np.load(GOLDEN)


@pytest.fixture(scope="session")
def golden_forcing(golden) -> clm5.Forcing:
    return forcing_of(golden)


def at_the_corners(forcing: clm5.Forcing, n: int, seed: int) -> tuple[clm5.Forcing, np.ndarray]:
    """Columns and unit-cube points at the corners of what the equations meet.

    Frozen all year, active layers between and exactly on interfaces and at 2 m, bedrock from the first to the last
    layer; 30 % of the parameters at their lower bound, 30 % at their upper.
    """
    rng = np.random.default_rng(seed)
    chosen = jax.tree.map(lambda x: np.array(x)[rng.integers(0, len(np.asarray(x)), n)], forcing)
    active, bedrock = np.array(chosen.active_layer_depth), np.array(chosen.bedrock_layer)
    kind = rng.integers(0, 5, n)
    active[kind == 0] = 0.0
    active[kind == 1] = rng.choice(INTERFACE_ALL[:13], (kind == 1).sum())[:, None]
    active[kind == 2] = rng.uniform(0, 2.2, (kind == 2).sum())[:, None]
    active[kind == 3] = 2.0
    last_year = np.where((kind == 4)[:, None], np.array(chosen.active_layer_depth_last_year), active)
    bedrock[:] = rng.integers(1, 21, n)[:, None]
    bedrock[:2] = [[1.0], [20.0]]
    scalars = (chosen.soil_temperature, chosen.water_scalar, chosen.oxygen_scalar, chosen.nitrogen_scalar)
    unit, face = rng.uniform(0, 1, (n, 21)), rng.random((n, 21))
    unit[face < 0.3] = 0.0
    unit[face > 0.7] = 1.0
    return clm5.Forcing(*scalars, chosen.litter_input, active, last_year, bedrock), unit
