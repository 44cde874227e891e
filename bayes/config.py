"""Everything that decides how sites are sampled, in one record that travels with the draws."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from jaxtyping import Float

import clm5
from bayes.model import SCALES

KEEPS = ("draws", "summary")
STORES = ("netcdf", "zarr")
SAMPLERS = ("nuts", "hmc")
LONGER = 3  # times the warm-up and draws of the attempt before
LEAST = {"chains": 1, "warmup": 20, "draws": 4, "batch": 1, "max_tree_depth": 1, "steps": 1, "reruns": 0, "thin": 1}


@dataclass(frozen=True)
class Config:
    """How sites are sampled.

    model: bounds, rules, operator, error and sigma: the same that the network is trained with.
    chains, warmup, draws: per site; `draws` are kept of each chain after `warmup` transitions that adapt the sampler.
    sampler: "nuts", or "hmc", whose trajectories are as long in every lane (`bayes.kernels.JitteredHMC`;
        docs/samplers.md says what each costs).
    steps: mean number of gradients a draw of "hmc"; "nuts" finds its own.
    target_accept: mean acceptance that the step size is adapted to; nearer 1 means smaller steps.
    max_tree_depth: a draw of "nuts" costs at most 2**max_tree_depth − 1 gradients. A small cap keeps
        a chain from waiting for one that goes deeper; nearly every draw then ends at the cap, and the report says so.
    batch: sites that are sampled in one program. Sites beyond the last full batch are sampled in one of the same shape.
    scale: coordinate in which the flat prior is sampled, "probit" or "logit" (`bayes.site_model`); the posterior is the
        same.
    free: names of the parameters that are sampled; default all 21.
    fixed: physical values of parameters that are not free; those not named are held at CLM5's default, moved to the
        nearest bound where it lies outside.
    infer_sigma: infer the scale of the error at every site, together with the parameters. Its prior is log-normal, with
        median `model.sigma` and standard deviation `sigma_spread` of its logarithm: with 0.5, 95 % within a factor of
        2.7. Under the proda error the layer weights then count as so many measurements.
    sigma_spread: see `infer_sigma`; of no consequence without it.
    reruns: how often a site that misses R-hat < 1.01 or 400 effective draws is sampled again at most, every time with
        three times the warm-up and draws of the time before and from other draws of the prior.
    thin: every so manieth draw is kept in the file. Diagnostics rest on all draws.
    keep: "draws", or "summary": mean, sd, quantiles and diagnostics of every parameter and process, without draws.
    store: "netcdf", one file, made in memory when all batches are done; or "zarr", filled batch by batch and opened
        lazily, for any number of sites.
    """

    model: clm5.ModelOptions = field(default_factory=clm5.ModelOptions)
    chains: int = 4
    warmup: int = 400
    draws: int = 800
    target_accept: float = 0.9
    max_tree_depth: int = 6
    batch: int = 16
    scale: str = "probit"
    sampler: str = "nuts"
    steps: int = 32
    free: tuple[str, ...] | None = None
    fixed: Mapping[str, float] | None = None
    infer_sigma: bool = False
    sigma_spread: float = 0.5
    reruns: int = 2
    thin: int = 1
    keep: str = "draws"
    store: str = "netcdf"

    def __post_init__(self):
        if self.fixed is not None:
            object.__setattr__(self, "fixed", {str(name): float(value) for name, value in self.fixed.items()})
        if not isinstance(self.model, clm5.ModelOptions):
            raise ValueError(f"Config: model must be a clm5.ModelOptions, got {type(self.model).__name__}")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"Config: {name} must be a whole number of at least {least}, got {value!r}")
        if self.max_tree_depth > 15:
            raise ValueError(
                f"Config: max_tree_depth {self.max_tree_depth} allows 2**{self.max_tree_depth} gradients a draw"
            )
        if self.draws // self.thin < LEAST["draws"]:
            raise ValueError(f"Config: thin {self.thin} leaves {self.draws // self.thin} of {self.draws} draws a chain")
        if not 0 < self.target_accept < 1:
            raise ValueError(f"Config: target_accept must lie between 0 and 1, got {self.target_accept!r}")
        if not 0 < self.sigma_spread < float("inf"):
            raise ValueError(f"Config: sigma_spread must be positive and finite, got {self.sigma_spread!r}")
        for name, known in (("scale", SCALES), ("sampler", SAMPLERS), ("keep", KEEPS), ("store", STORES)):
            if getattr(self, name) not in known:
                raise ValueError(f"Config: {name} must be one of {known}, got {getattr(self, name)!r}")
        if self.free is not None:
            object.__setattr__(self, "free", tuple(self.free))
            if not self.free:
                raise ValueError("Config: free names no parameter; None means all 21")
            if len(set(self.free)) < len(self.free):
                raise ValueError(f"Config: free names a parameter twice: {self.free}")
        self._check_names("free", self.free or ())
        self._check_names("fixed", self.fixed or ())
        both = sorted(set(self.fixed or ()) & set(self.free_names))
        if both:
            raise ValueError(f"Config: {', '.join(both)} cannot be both free and fixed; list the free ones in `free`")
        outside = [n for n, u in zip(clm5.NAMES, self.fixed_unit, strict=True) if not 0 <= u <= 1]
        if outside:
            raise ValueError(f"Config: fixed {', '.join(outside)} outside the bounds {self.model.bounds!r}")

    def _check_names(self, what: str, names) -> None:
        unknown = [name for name in names if name not in clm5.NAMES]
        if unknown:
            raise ValueError(f"Config: {what} names {unknown}; the parameters are {', '.join(clm5.NAMES)}")

    @property
    def free_names(self) -> tuple[str, ...]:
        """The sampled parameters, in the order of `clm5.NAMES`."""
        return clm5.NAMES if self.free is None else tuple(name for name in clm5.NAMES if name in self.free)

    @property
    def fixed_unit(self) -> Float[np.ndarray, "21"]:
        """Unit values of the parameters that are held fixed (those of free parameters are not read)."""
        space = self.model.space
        theta = np.array(space.default())
        for name, value in (self.fixed or {}).items():
            theta[clm5.NAMES.index(name)] = value
        return (theta - space.lower) / (space.upper - space.lower)

    @property
    def held(self) -> dict[str, float]:
        """Physical values of the parameters that are not sampled."""
        space = self.model.space
        theta = np.asarray(space.lower) + self.fixed_unit * (np.asarray(space.upper) - np.asarray(space.lower))
        return {
            name: float(value) for name, value in zip(clm5.NAMES, theta, strict=True) if name not in self.free_names
        }

    def said_of_parameters(self) -> dict[str, str]:
        """Which parameters are free and where the others are held, as attributes of a file."""
        return {
            "free": ",".join(self.free_names),
            "fixed": ",".join(f"{name}={value:.10g}" for name, value in self.held.items()),
        }

    @property
    def spread_of_sigma(self) -> float | None:
        """Standard deviation of the prior of ln(sigma); None where sigma is not inferred."""
        return float(self.sigma_spread) if self.infer_sigma else None

    @property
    def kept_draws(self) -> int:
        """Draws of a chain that the file holds."""
        return self.draws // self.thin

    def longer(self, attempt: int) -> "Config":
        """The settings of an attempt: longer every time, thinned to as many draws in the file."""
        factor = LONGER**attempt
        return replace(self, warmup=self.warmup * factor, draws=self.draws * factor, thin=self.thin * factor)

    def request(self) -> dict:
        """The choices that draws depend on, JSON-like."""
        chosen = asdict(self)
        chosen["free"] = list(self.free_names)
        chosen["fixed"] = dict(self.fixed or {})
        if not self.infer_sigma:
            del chosen["infer_sigma"], chosen["sigma_spread"]
        return chosen
