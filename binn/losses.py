"""What training minimises: the sampler's own likelihood, or the loss that BINN was published with."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import clm5
from clm5.observation import predict_horizons, proda_layer_weights

if TYPE_CHECKING:
    from clm5 import ModelOptions, Observations

LOSSES = ("likelihood", "posterior", "smooth_l1", "log_smooth_l1")
WEIGHTS = ("equal", "thickness", "proda")
DISTRIBUTIONS = ("elbo", "simulation")  # losses of a network that answers a distribution, see `binn.amortised`
ALL_LOSSES = (*LOSSES, *DISTRIBUTIONS)
WITH_PRIOR = ("posterior", *DISTRIBUTIONS)  # losses that hold the sampler's prior


def horizon_loss(
    loss: str,
    unit: Float[Array, "site free"],
    soc: Float[Array, "site layer"],
    observations: "Observations",
    options: "ModelOptions",
    weights: str = "equal",
) -> tuple[Float[Array, " site"], Float[Array, " site"]]:
    """Loss of each site summed over its horizons, and the sum of the horizons' weights; both (site,).

    "likelihood": −log p(observed | modelled), exactly the sampler's likelihood, nothing added. The prior is the uniform
        box, which the network's output cannot leave; in directions that the data do not see, anything goes.
    "posterior": minus the sampler's log posterior per site, likelihood times uniform box, as a density of logit(p): the
        likelihood's loss − Σ ln(4 p (1 − p)). Its optimum at a site without information is the middle of the box, which
        is the posterior's mean there.
    "smooth_l1": Huber's loss (δ = 1) of raw SOC in gC m⁻³, plus 100 · mean over parameters of (cosh(10 (p − ½)) − 1)
        per horizon, which pulls unit parameters to the middle. Another target than the sampler's.
        Source: Xu et al. (2025), gomes-lab/ScIReN.

    "log_smooth_l1": Huber's loss (δ = 1) of ln(modelled) − ln(observed), no pull. A horizon measured as 0 counts for
        nothing.

    weights: of the horizons of a profile: "equal" (1, as the sampler), "thickness" (in dm), or "proda" (up to 10 at the
        ends of the profile, 1 near its mean SOC and depth). A padded horizon adds 0 to both numbers.
    """
    measured = observations.measured
    weight = horizon_weights(weights, observations).astype(soc.dtype)
    count = jnp.sum(weight, axis=-1)
    if loss in ("likelihood", "posterior"):
        total = -jnp.sum(weight * clm5.log_likelihood(soc, observations, options), axis=-1)
        if loss in WITH_PRIOR:
            total = total - jnp.sum(jnp.log(4.0 * unit * (1.0 - unit)), axis=-1)
        return total, count
    if loss == "smooth_l1":
        modelled = predict_horizons(soc, observations, options)
        # both are replaced before the difference: a NaN behind `where` would still reach the gradient
        error = jnp.where(measured, modelled, 0.0) - jnp.where(measured, observations.soc, 0.0)
        pull = 100.0 * jnp.mean(jnp.cosh(10.0 * (unit - 0.5)) - 1.0, axis=-1)
        return jnp.sum(weight * optax.losses.huber_loss(error), axis=-1) + count * pull, count
    if loss == "log_smooth_l1":
        error, observed = log_soc_errors(soc, observations, options)
        seen = jnp.isfinite(observed)
        weight = jnp.where(seen, weight, 0.0)
        return jnp.sum(weight * optax.losses.huber_loss(jnp.where(seen, error, 0.0)), axis=-1), weight.sum(axis=-1)
    raise ValueError(f"binn: loss must be one of {LOSSES}, got {loss!r}")


def horizon_weights(weights: str, observations: "Observations") -> Float[Array, "site horizon"]:
    """Weights of the horizons, 0 for padding; see `horizon_loss`."""
    if weights == "proda":
        return proda_layer_weights(observations)
    if weights == "thickness":
        return jnp.where(observations.measured, 10.0 * (observations.lower - observations.upper), 0.0)
    if weights != "equal":
        raise ValueError(f"binn: horizon_weights must be one of {WEIGHTS}, got {weights!r}")
    return observations.measured.astype(observations.soc.dtype)


def mean_over_horizons(
    total: Float[jax.Array | np.ndarray, " site"], count: Float[jax.Array | np.ndarray, " site"]
) -> Float[Array, ""]:
    """Mean over all observed horizons of all sites: every measurement weighs the same, as for the sampler."""
    return jnp.sum(total) / jnp.maximum(jnp.sum(count), 1.0)


def log_soc_errors(
    soc: Float[Array, "site layer"], observations: "Observations", options: "ModelOptions"
) -> tuple[Float[Array, "site horizon"], Float[Array, "site horizon"]]:
    """ln(modelled) − ln(observed), and ln(observed), of every horizon; NaN where it is padding or measured as 0."""
    positive = observations.measured & (observations.soc > 0)
    log_observed = jnp.where(positive, jnp.log(jnp.where(positive, observations.soc, 1.0)), jnp.nan)
    return jnp.log(predict_horizons(soc, observations, options)) - log_observed, log_observed
