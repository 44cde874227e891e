"""The model of one soil column in NumPyro: a flat prior over the box, and the likelihood that the network shares."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.infer.util import potential_energy

import clm5

SCALES = ("probit", "logit")
N_PARAMETERS = len(clm5.NAMES)

FreeUnit = Float[Array, " free"]
Latent = Float[Array, " free"]


def site_model(
    forcing: clm5.Forcing,
    observations: clm5.Observations | None,
    options: clm5.ModelOptions,
    *,
    scale: str = "probit",
    place: Callable[[FreeUnit], Float[Array, " parameter"]] | None = None,
    n_free: int = N_PARAMETERS,
) -> None:
    """One soil column: parameters come from a flat box, measured horizons from the column with the declared error.

    Args:
        forcing: what the column receives, one column.
        observations: its horizons, upper, lower (m) and soc (gC m⁻³), each (horizon,), padded with NaN. Without them
            the model is the prior alone.
        options: bounds, rules, operator, error and sigma.
        scale: coordinate in which the flat prior is sampled, the same prior either way: "probit", a standard normal
            `score` whose distribution function is the unit value; or "logit", the unit value itself, `free`, which
            NumPyro samples by its logit.
        place: free unit values (n_free,) → all 21 unit values; default: all are free.
        n_free: number of free parameters.

    Sites recorded: `score` or `free` (free,), `unit` and `theta` (21,), `soc` (layer,), and the factor `soc_observed`,
    which adds `clm5.log_likelihood` summed over horizons: there is one density, for both ways and both errors. Being a
    factor it draws nothing; predictive draws are made from `soc` by `clm5.sample_observations`.

    Raises:
        ValueError: for an unknown scale.
    """
    if scale == "probit":
        score = numpyro.sample("score", dist.Normal(0.0, 1.0).expand([n_free]).to_event(1))
        free = jax.scipy.special.ndtr(score)
    elif scale == "logit":
        free = numpyro.sample("free", dist.Uniform(0.0, 1.0).expand([n_free]).to_event(1))
    else:
        raise ValueError(f"site_model: scale must be one of {SCALES}, got {scale!r}")
    unit = numpyro.deterministic("unit", free if place is None else place(free))
    theta = numpyro.deterministic("theta", options.space.physical(unit))
    soc = numpyro.deterministic("soc", clm5.simulate(theta, forcing, options.rules).soc)  # gC m⁻³
    if observations is not None:
        numpyro.factor("soc_observed", jnp.sum(clm5.log_likelihood(soc, observations, options)))


def latent_name(scale: str) -> str:
    """The name of the sampled site of `site_model`."""
    return {"probit": "score", "logit": "free"}[scale]


def unit_from_latent(latent: Latent, scale: str) -> FreeUnit:
    """Free unit values from the unconstrained coordinate that NUTS moves in."""
    return jax.scipy.special.ndtr(latent) if scale == "probit" else jax.nn.sigmoid(latent)


def latent_from_prior(key: PRNGKeyArray, n_free: int, scale: str) -> Latent:
    """One draw from the prior, in the unconstrained coordinate."""
    draw = jax.random.normal if scale == "probit" else jax.random.logistic
    return draw(key, (n_free,), jnp.result_type(float))


def potential(latent: Latent, *args, scale: str, **kwargs) -> Float[Array, ""]:
    """Negative log density of `site_model` in the unconstrained coordinate; arguments as for `site_model`."""
    return potential_energy(site_model, args, {"scale": scale, **kwargs}, {latent_name(scale): latent})
