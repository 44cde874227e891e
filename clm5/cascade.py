"""Who feeds whom: the transfer fractions and turnover times of the seven pools (model.md §4, A and K)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from clm5._layers import PerColumn
from clm5.grid import POOLS
from clm5.parameters import NAMES

# donor, receiver, fraction: what leaves the donor and arrives; the rest of the donor's decay is respired
TRANSFERS = (
    ("cwd", "litter2", "fcwdl2"),
    ("cwd", "litter3", "1 - fcwdl2"),
    ("litter1", "soil1", "fl1s1"),
    ("litter2", "soil1", "fl2s1"),
    ("litter3", "soil2", "fl3s2"),
    ("soil1", "soil2", "fs1s2"),
    ("soil1", "soil3", "fs1s3"),
    ("soil2", "soil1", "fs2s1"),
    ("soil2", "soil3", "fs2s3"),
    ("soil3", "soil1", "fs3s1"),
)

TURNOVER = {
    "cwd": "taucwd",
    "litter1": "taul1",
    "litter2": "taul2",
    "litter3": "taul2",
    "soil1": "tau4s1",
    "soil2": "tau4s2",
    "soil3": "tau4s3",
}


def by_name(theta: Float[Array, "21 *column"]) -> dict[str, PerColumn]:
    """The 21 physical parameters under their names."""
    return {name: theta[i] for i, name in enumerate(NAMES)}


class Cascade(NamedTuple):
    """Turnover times and transfer fractions of one column."""

    tau: dict[str, PerColumn]  # yr, per pool
    fraction: dict[tuple[str, str], PerColumn]  # (donor, receiver) → share of the donor's decay
    respired: dict[str, PerColumn]  # per pool, the share that leaves as CO₂


def cascade(theta: Float[Array, "21 *column"]) -> Cascade:
    """Turnover and transfers of one column; cwd respires nothing, its decay is split between litter2 and litter3."""
    p = by_name(theta)
    p["1 - fcwdl2"] = 1.0 - p["fcwdl2"]
    fraction = {(donor, receiver): p[name] for donor, receiver, name in TRANSFERS}
    nothing = jnp.zeros_like(p["fcwdl2"])
    respired = {pool: 1.0 - sum((f for (donor, _), f in fraction.items() if donor == pool), nothing) for pool in POOLS}
    respired["cwd"] = nothing
    return Cascade({pool: p[name] for pool, name in TURNOVER.items()}, fraction, respired)
