"""Everything that decides how sites are pooled, and how they are then sampled."""

from dataclasses import dataclass, field
from typing import Any

from bayes.config import Config


def _joint() -> Config:
    return Config(warmup=600, max_tree_depth=8)


@dataclass(frozen=True)
class HierarchicalConfig:
    """How sites are pooled and sampled by `bayes.sample_hierarchical`.

    sampler: model, free and fixed parameters, chains, warm-up and draws, as for `bayes.sample`. A joint chain of many
        dimensions needs deeper trees than those of single sites. It is sampled once, on the probit scale, and all
        draws are kept in one netCDF file: other values of scale, thin, keep and store are refused, batch and reruns
        are of no consequence.
    covariates: numeric covariates of the site data set that the parameters' scores are regressed on.
    region: a categorical covariate: every class of it has a mean of its own, pooled towards that of all.
    tau_scale: scale of the prior of tau, a half-normal cut off at 1; tau² is the share of a score's prior variance
        that is a site's own. Small: sites resemble each other; above 1, about uniform.
    tau: holds tau at this value, 0 … 1, rather than inferring it. 1: sites are independent, as in `bayes.sample`.
    """

    sampler: Config = field(default_factory=_joint)
    covariates: tuple[str, ...] = ()
    region: str | None = None
    tau_scale: float = 0.5
    tau: float | None = None

    def __post_init__(self):
        object.__setattr__(self, "covariates", tuple(self.covariates))
        if len(set(self.covariates)) < len(self.covariates):
            raise ValueError(f"HierarchicalConfig: covariates names one twice: {self.covariates}")
        if not 0 < self.tau_scale < float("inf"):
            raise ValueError(f"HierarchicalConfig: tau_scale must be positive and finite, got {self.tau_scale!r}")
        if self.tau is not None and not 0 <= self.tau <= 1:
            raise ValueError(f"HierarchicalConfig: tau must lie in 0 … 1, or be None to be inferred; got {self.tau!r}")
        for name, only in {"scale": "probit", "thin": 1, "keep": "draws", "store": "netcdf"}.items():
            if getattr(self.sampler, name) != only:
                raise ValueError(
                    f"HierarchicalConfig: sampler.{name} must be {only!r} where all sites are one chain, got "
                    f"{getattr(self.sampler, name)!r}"
                )

    def recorded(self) -> dict[str, Any]:
        """What a posterior file says of the pooling, as root attributes."""
        tau = {"tau_scale": self.tau_scale} if self.tau is None else {"tau": self.tau}
        return {"covariates": ",".join(self.covariates), "region": self.region or ""} | tau
