"""The model of one soil column in NumPyro: a flat prior over the box, and the likelihood that the network shares."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.infer.util import potential_energy

import clm5

SCALES = ("probit", "logit")
N_PARAMETERS = len(clm5.NAMES)

FreeUnit = Float[Array, " free"]
Latent = Float[Array, " latent"]


def site_model(
    forcing: clm5.Forcing,
    observations: clm5.Observations | None,
    options: clm5.ModelOptions,
    *,
    scale: str = "probit",
    place: Callable[[FreeUnit], Float[Array, " parameter"]] | None = None,
    n_free: int = N_PARAMETERS,
    sigma_spread: float | None = None,
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
        sigma_spread: infer the scale of the error, sigma ~ LogNormal(ln(options.sigma), sigma_spread); without it
            sigma is `options.sigma`.

    Sites recorded: `score` or `free` (free,), `unit` and `theta` (21,), `soc` (layer,), where the scale is inferred
    `sigma_score`, a standard normal, and `sigma`; and the factor `soc_observed`, which adds `clm5.log_likelihood`
    summed over horizons: there is one density, for both ways and both errors. Being a factor it draws nothing;
    predictive draws are made from `soc` by `clm5.sample_observations`.

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
    sigma = None
    if sigma_spread is not None:
        sigma_score = numpyro.sample("sigma_score", dist.Normal(0.0, 1.0))
        sigma = numpyro.deterministic("sigma", sigma_from_score(sigma_score, options, sigma_spread))
    if observations is not None:
        numpyro.factor("soc_observed", jnp.sum(clm5.log_likelihood(soc, observations, options, sigma=sigma)))


def sigma_from_score(
    score: Float[ArrayLike, "*batch"], options: clm5.ModelOptions, spread: float
) -> Float[Array, "*batch"]:
    """Scale of the error from a standard normal: log-normal around that of the options."""
    return options.sigma * jnp.exp(spread * jnp.asarray(score))


def latent_name(scale: str) -> str:
    """The name of the sampled site of `site_model`."""
    return {"probit": "score", "logit": "free"}[scale]


def unit_from_latent(latent: FreeUnit, scale: str) -> FreeUnit:
    """Free unit values from the unconstrained coordinate that NUTS moves in."""
    return jax.scipy.special.ndtr(latent) if scale == "probit" else jax.nn.sigmoid(latent)


def latent_from_prior(key: PRNGKeyArray, n_free: int, scale: str, infer_sigma: bool = False) -> Latent:
    """One draw from the prior, in the unconstrained coordinate; that of an inferred sigma, `sigma_score`, is last."""
    draw = jax.random.normal if scale == "probit" else jax.random.logistic
    free = draw(key, (n_free,), jnp.result_type(float))
    if not infer_sigma:
        return free
    return jnp.append(free, jax.random.normal(jax.random.fold_in(key, 1), (), free.dtype))


def potential(latent: Latent, *args, scale: str, sigma_spread: float | None = None, **kwargs) -> Float[Array, ""]:
    """Negative log density of `site_model` in the unconstrained coordinate; arguments as for `site_model`."""
    values = {latent_name(scale): latent}
    if sigma_spread is not None:
        values = {latent_name(scale): latent[:-1], "sigma_score": latent[-1]}
    return potential_energy(site_model, args, {"scale": scale, "sigma_spread": sigma_spread, **kwargs}, values)
