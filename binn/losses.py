"""What training minimises: the sampler's own likelihood, or the loss that BINN was published with."""

from typing import TYPE_CHECKING

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

import clm5
from clm5.observation import predict_horizons

if TYPE_CHECKING:
    from clm5 import ModelOptions, Observations

LOSSES = ("likelihood", "posterior", "smooth_l1")
WITH_PRIOR = ("posterior",)  # losses that hold the sampler's prior


def horizon_loss(
    loss: str,
    unit: Float[Array, "site 21"],
    soc: Float[Array, "site layer"],
    observations: "Observations",
    options: "ModelOptions",
) -> tuple[Float[Array, " site"], Float[Array, " site"]]:
    """Loss of each site summed over its horizons, and the number of horizons it is a sum of; both (site,).

    "likelihood": −log p(observed | modelled), exactly the sampler's likelihood, nothing added. The prior is the uniform
        box, which the network's output cannot leave; in directions that the data do not see, anything goes.
    "posterior": minus the sampler's log posterior per site, likelihood times uniform box, as a density of logit(p): the
        likelihood's loss − Σ ln(4 p (1 − p)). Its optimum at a site without information is the middle of the box, which
        is the posterior's mean there.
    "smooth_l1": Huber's loss (δ = 1) of raw SOC in gC m⁻³, plus 100 · mean over parameters of (cosh(10 (p − ½)) − 1)
        per horizon, which pulls unit parameters to the middle. Another target than the sampler's.
        Source: Xu et al. (2025), gomes-lab/ScIReN.

    A padded horizon adds 0 to both numbers.
    """
    measured = observations.measured
    count = jnp.sum(measured, axis=-1).astype(soc.dtype)
    if loss in ("likelihood", "posterior"):
        total = -jnp.sum(clm5.log_likelihood(soc, observations, options), axis=-1)
        if loss in WITH_PRIOR:
            total = total - jnp.sum(jnp.log(4.0 * unit * (1.0 - unit)), axis=-1)
        return total, count
    if loss == "smooth_l1":
        modelled = predict_horizons(soc, observations, options)
        # both are replaced before the difference: a NaN behind `where` would still reach the gradient
        error = jnp.where(measured, modelled, 0.0) - jnp.where(measured, observations.soc, 0.0)
        pull = 100.0 * jnp.mean(jnp.cosh(10.0 * (unit - 0.5)) - 1.0, axis=-1)
        return jnp.sum(optax.losses.huber_loss(error), axis=-1) + count * pull, count
    raise ValueError(f"binn: loss must be one of {LOSSES}, got {loss!r}")


def mean_over_horizons(total: Float[Array, " site"], count: Float[Array, " site"]) -> Float[Array, ""]:
    """Mean over all observed horizons of all sites: every measurement weighs the same, as for the sampler."""
    return jnp.sum(total) / jnp.maximum(jnp.sum(count), 1.0)


def log_soc_errors(
    soc: Float[Array, "site layer"], observations: "Observations", options: "ModelOptions"
) -> tuple[Float[Array, "site horizon"], Float[Array, "site horizon"]]:
    """ln(modelled) − ln(observed), and ln(observed), of every horizon; NaN where it is padding or measured as 0."""
    positive = observations.measured & (observations.soc > 0)
    log_observed = jnp.where(positive, jnp.log(jnp.where(positive, observations.soc, 1.0)), jnp.nan)
    return jnp.log(predict_horizons(soc, observations, options)) - log_observed, log_observed
