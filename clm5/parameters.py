"""The 21 calibrated parameters: one table, two published sets of bounds, unit cube ⇄ physical values."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Parameter:
    """One calibrated parameter: what it is, where each published code lets it lie, and CLM5's value.

    `process` is the letter of the matrix model that it enters (V transport, Xi environment, K turnover,
    A transfer, I input). `default` is None where CLM5 derives the value from soil texture.
    """

    name: str
    unit: str
    proda: tuple[float, float]
    binn: tuple[float, float]
    default: float | None
    process: str
    meaning: str

    def __post_init__(self):
        for bounds in (self.proda, self.binn):
            if not bounds[0] < bounds[1]:
                raise ValueError(
                    f"parameter {self.name}: lower bound {bounds[0]:g} is not below upper bound {bounds[1]:g}"
                )


# fmt: off
PARAMETERS = (
    #         name         unit       proda          binn           default   process meaning
    Parameter("diffus",    "m2 yr-1", (3e-5, 5e-4),  (3e-5, 5e-4),  1e-4,     "V",  "bioturbation diffusivity"),
    Parameter("cryo",      "m2 yr-1", (3e-5, 16e-4), (3e-5, 16e-4), 5e-4,     "V",  "cryoturbation diffusivity"),
    Parameter("q10",       "1",       (1.2, 3.0),    (1.2, 3.0),    1.5,      "Xi", "decomposition rate increase per 10 K"),
    Parameter("efolding",  "m",       (0.0, 1.0),    (0.1, 1.0),    10.0,     "Xi", "e-folding depth of decomposition"),
    Parameter("taucwd",    "yr",      (1.0, 6.0),    (1.0, 6.0),    3.333,    "K",  "turnover time of coarse woody debris"),
    Parameter("taul1",     "yr",      (0.0, 0.11),   (1e-4, 0.11),  0.0541,   "K",  "turnover time of metabolic litter"),
    Parameter("taul2",     "yr",      (0.1, 0.3),    (0.1, 0.3),    0.2041,   "K",  "turnover time of cellulose and lignin litter"),
    Parameter("tau4s1",    "yr",      (0.0, 1.0),    (1e-4, 0.5),   0.137,    "K",  "turnover time of fast soil carbon"),
    Parameter("tau4s2",    "yr",      (1.0, 50.0),   (1.0, 10.0),   5.0,      "K",  "turnover time of slow soil carbon"),
    Parameter("tau4s3",    "yr",      (200., 1000.), (20.0, 400.0), 222.222,  "K",  "turnover time of passive soil carbon"),
    Parameter("fl1s1",     "1",       (0.1, 0.8),    (0.1, 0.8),    0.45,     "A",  "transfer, metabolic litter to fast"),
    Parameter("fl2s1",     "1",       (0.2, 0.8),    (0.2, 0.8),    0.5,      "A",  "transfer, cellulose litter to fast"),
    Parameter("fl3s2",     "1",       (0.2, 0.8),    (0.2, 0.8),    0.5,      "A",  "transfer, lignin litter to slow"),
    Parameter("fs1s2",     "1",       (0.0, 0.4),    (1e-4, 0.4),   None,     "A",  "transfer, fast to slow"),
    Parameter("fs1s3",     "1",       (0.0, 0.05),   (1e-4, 0.1),   0.004,    "A",  "transfer, fast to passive"),
    Parameter("fs2s1",     "1",       (0.1, 0.74),   (0.1, 0.74),   0.42,     "A",  "transfer, slow to fast"),
    Parameter("fs2s3",     "1",       (0.0, 0.1),    (1e-4, 0.1),   0.03,     "A",  "transfer, slow to passive"),
    Parameter("fs3s1",     "1",       (0.0, 0.9),    (1e-4, 0.9),   0.45,     "A",  "transfer, passive to fast"),
    Parameter("fcwdl2",    "1",       (0.5, 1.0),    (0.5, 1.0),    0.76,     "A",  "transfer, woody debris to cellulose (rest to lignin)"),
    Parameter("w_scaling", "1",       (0.0, 5.0),    (1e-4, 5.0),   1.0,      "Xi", "multiplier of the water scalar"),
    Parameter("beta",      "1",       (0.5, 0.9999), (0.5, 0.9999), 0.95,     "I",  "root-profile base, per cm (Jackson 1996)"),
)
# fmt: on
# proda: Tao et al. (2023), phxtao/PRODA_PUBLIC src_cesm2_clm5_cen_vr_v2. binn: Xu et al. (2025), gomes-lab/ScIReN.
# defaults: CLM5 parameter file c171117 and technical note, chapter Decomposition.

NAMES = tuple(parameter.name for parameter in PARAMETERS)
INDEX = {name: i for i, name in enumerate(NAMES)}
BOUNDS = ("binn", "proda")
_FOUR = ("efolding", "tau4s3", "fs1s3", "w_scaling")
_NOT_OF_SIXTEEN = ("cryo", "taucwd", "taul1", "taul2", "fs3s1")
# the free parameters of published recovery experiments (Xu et al. 2025), by the name of the experiment
SUBSETS = {
    "4": _FOUR,
    "5": (*_FOUR, "beta"),
    "16": tuple(name for name in NAMES if name not in _NOT_OF_SIXTEEN),
    "all": NAMES,
}


def texture_transfer_fs1s2(sand_percent: float) -> float:
    """CLM5's transfer from fast to slow soil carbon as a function of sand (%), for given fs1s3 = 0.004.

    rf = 0.85 − 0.0068 (100 − sand), fs1s2 = 1 − rf − 0.004. Source: CENTURY cascade of the CLM5 technical note.
    """
    return 1.0 - (0.85 - 0.0068 * (100.0 - sand_percent)) - 0.004


def chosen(parameters: Sequence[str] | str, who: str) -> tuple[str, ...]:
    """Names in the order of `NAMES`, from names or from that of a published subset; `who` asks, for the message."""
    if isinstance(parameters, str):
        if parameters not in SUBSETS:
            raise ValueError(
                f"{who}: parameters must be names, or one of {tuple(SUBSETS)}; got {parameters!r}. "
                'A single parameter is a tuple: ("beta",)'
            )
        return SUBSETS[parameters]
    unknown = [name for name in parameters if name not in NAMES]
    if unknown or not parameters or len(set(parameters)) < len(parameters):
        found = f"unknown: {', '.join(map(str, unknown))}" if unknown else f"got {tuple(parameters)!r}"
        raise ValueError(f"{who}: parameters must be different names of clm5.NAMES, at least one; {found}")
    return tuple(name for name in NAMES if name in parameters)


class ParameterSpace:
    """The box that parameters live in: `ParameterSpace("binn")` or `ParameterSpace("proda")`.

    The same unit value is a different physical value in the two sets: compare physical values only.
    """

    def __init__(self, bounds: str = "binn"):
        if bounds not in BOUNDS:
            raise ValueError(f"ParameterSpace: bounds must be one of {BOUNDS}, got {bounds!r}")
        self.bounds = bounds
        table = np.array([getattr(parameter, bounds) for parameter in PARAMETERS])
        self.lower, self.upper = table[:, 0], table[:, 1]

    names = NAMES

    def __repr__(self) -> str:
        return f'ParameterSpace("{self.bounds}")'

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParameterSpace) and other.bounds == self.bounds

    def __hash__(self) -> int:
        return hash(self.bounds)

    def physical(self, unit: Float[ArrayLike, "*batch parameter"]) -> Float[Array, "*batch 21"]:
        """Physical values, in the units of the table, of points of the unit cube."""
        unit = jnp.asarray(unit)
        lower, upper = self._bounds_like(unit, "physical")
        return lower + unit * (upper - lower)

    def unit(self, theta: Float[ArrayLike, "*batch parameter"]) -> Float[Array, "*batch 21"]:
        """Points of the unit cube of physical values: the inverse of `physical`, outside [0, 1] where values are."""
        theta = jnp.asarray(theta)
        lower, upper = self._bounds_like(theta, "unit")
        return (theta - lower) / (upper - lower)

    def default(self, sand_percent: float = 43.0) -> np.ndarray:
        """CLM5's default values, moved to the nearest bound where they lie outside (efolding), shape (21,).

        `sand_percent` sets fs1s2, which CLM5 derives from texture.
        """
        values = [texture_transfer_fs1s2(sand_percent) if p.default is None else p.default for p in PARAMETERS]
        return np.clip(values, self.lower, self.upper)

    def _bounds_like(self, x, method: str):
        if jnp.ndim(x) == 0 or jnp.shape(x)[-1] != len(NAMES):
            raise ValueError(
                f"ParameterSpace.{method}: the last axis must hold the 21 parameters, got shape {jnp.shape(x)}"
            )
        dtype = jnp.result_type(x, float)  # float32 in, float32 out, whatever the global precision
        if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating):
            dtype = jnp.asarray(x).dtype
        return jnp.asarray(self.lower, dtype), jnp.asarray(self.upper, dtype)
