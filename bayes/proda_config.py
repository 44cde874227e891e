"""How PRODA sampled a site, as published, and which of its faults are left in."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

import clm5
from bayes.config import Config

PUBLISHED_MODEL = clm5.ModelOptions(bounds="proda", rules="proda", operator="pchip", error="proda", sigma=0.6)
FAULTS = ("annealed", "accepted_only", "best_chain_only", "filters")
FURTHER = ("redraw", "same_start", "adapt_always")
REPORTED_ONLY = ("best_chain_only", "filters")  # which chains and sites are shown; the walk does not know of them


@dataclass(frozen=True)
class ProdaConfig:
    """PRODA's adaptive Metropolis. The defaults are as published; `mended` is the same without its faults.

    model: bounds, rules, operator, error and sigma; default as published.
    chains: per site.
    explore: steps of stage 1, which proposes uniformly within `half_width` of the state in every parameter.
    steps: of stage 2, which proposes normally; the first half of what is stored is left out as burn-in.
    draws: evenly spaced ones that are kept of each chain's second half.
    batch: sites in one program.
    half_width: in the unit cube.
    scale: proposals of stage 2 have the covariance of earlier states times scale / number of free parameters.
    adapt_from: step of stage 2 from which its own states, no longer those of stage 1, give that covariance.
    retune: how often chains are run again that accept less than 0.1 or more than 0.5, with 0.7 or 2 times the scale.
    free, fixed: as in `bayes.Config`.

    What was published, and can be switched off. Faults:
    annealed: accept with chance exp(−Δcost · ln(step + 2)), so that the chain samples the likelihood to the power of
        about 10 and is too narrow.
    accepted_only: store accepted states alone, each once however long the chain stayed.
    best_chain_only: report the chain whose mean profile has the lowest RMSE.
    filters: drop sites whose mean Gelman-Rubin is 1.05 or more, or whose R² of carbon is 0 or less.
    Further departures from a correct Metropolis sampler:
    redraw: draw proposals outside the box again without correcting for it, so that the walls are avoided.
    same_start: start all chains in the middle of the box, where Gelman-Rubin cannot see what they have not reached.
    adapt_always: adapt to the last step, instead of to the end of burn-in.

    Source: phxtao/PRODA_PUBLIC, SRC_DA/src_cesm2_clm5_cen_vr_v2 (Tao et al. 2023, Nature 618:981).
    """

    model: clm5.ModelOptions = PUBLISHED_MODEL
    chains: int = 3
    explore: int = 20_000
    steps: int = 50_000
    draws: int = 1_000
    batch: int = 16
    half_width: float = 0.1
    scale: float = 2.4
    adapt_from: int = 4_000
    retune: int = 5
    annealed: bool = True
    accepted_only: bool = True
    best_chain_only: bool = True
    filters: bool = True
    redraw: bool = True
    same_start: bool = True
    adapt_always: bool = True
    free: tuple[str, ...] | None = None
    fixed: Mapping[str, float] | None = None

    def __post_init__(self):
        leasts = {"chains": 1, "explore": 10, "steps": 10, "draws": 4, "batch": 1, "adapt_from": 1, "retune": 0}
        for name, least in leasts.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"ProdaConfig: {name} must be a whole number of at least {least}, got {value!r}")
        for name in ("half_width", "scale"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"ProdaConfig: {name} must be positive and finite, got {value!r}")
        if self.draws > self.steps - self.steps // 2:
            raise ValueError(
                f"ProdaConfig: {self.draws} draws cannot be kept of the second half of {self.steps} steps; take more "
                "steps or keep fewer draws"
            )
        if self.filters and self.chains < 2:
            raise ValueError("ProdaConfig: Gelman-Rubin needs at least 2 chains; take more, or filters=False")
        object.__setattr__(self, "free", self._space.free)
        object.__setattr__(self, "fixed", self._space.fixed)

    @property
    def _space(self) -> Config:
        return Config(self.model, free=self.free, fixed=self.fixed)

    @classmethod
    def mended(cls, **changes: Any) -> "ProdaConfig":
        """A correct adaptive Metropolis of the stated posterior: every departure above is removed.

        Proposals outside the box are rejected, chains start from draws of the prior, and adaptation ends with burn-in:
        what is kept is a Metropolis chain of one fixed symmetric proposal.
        """
        return cls(**(dict.fromkeys((*FAULTS, *FURTHER), False) | {"retune": 0} | changes))

    @property
    def adapt_until(self) -> int:
        """The last step of stage 2 that adapts."""
        return self.steps if self.adapt_always else self.steps // 2

    @property
    def free_names(self) -> tuple[str, ...]:
        """The sampled parameters, in the order of `clm5.NAMES`."""
        return self._space.free_names

    @property
    def fixed_unit(self) -> Float[np.ndarray, "21"]:
        """Unit values of the parameters that are held fixed (those of free parameters are not read)."""
        return self._space.fixed_unit

    def said_of_parameters(self) -> dict[str, str]:
        """Which parameters are free and where the others are held, as attributes of a file."""
        return self._space.said_of_parameters()

    def request(self) -> dict:
        """The choices that stored batches depend on, JSON-like."""
        chosen = {name: value for name, value in asdict(self).items() if name not in REPORTED_ONLY}
        return {"method": "proda", **chosen, "free": list(self.free_names), "fixed": dict(self.fixed or {})}
