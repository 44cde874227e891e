"""An amortised posterior: a network that answers a distribution of the parameters, trained against the box prior.

Two ways, both with the sampler's model: "elbo", the evidence lower bound of every training site, by gradients through
the column; "simulation", parameters from the prior and profiles that the column and the error model make of them at the
training sites' forcing, so that the observed carbon is not used at all (neural posterior estimation).
Sources: Kingma & Welling (2014), arXiv 1312.6114; Papamakarios & Murray (2016), arXiv 1605.06376.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

import clm5
from binn.config import Config
from binn.network import PosteriorNetwork, unit_of_score
from binn.objective import DRAWS_PER_SITE, Data, all_parameters, network_inputs, site_losses


def posterior_loss(
    network: PosteriorNetwork, data: Data, key: PRNGKeyArray, config: Config, *, training: bool
) -> tuple[Float[Array, " site"], Float[Array, " site"]]:
    """Loss of each site in nats, and the sum of its horizons' weights; both (site,).

    "elbo": E_q[−log likelihood] + KL(q ‖ prior), by 4 draws of q.
    "simulation": −log q(parameters | what they would be measured as), one pair per site.
    """
    draw_key, noise_key, mask_key = jax.random.split(key, 3)
    rngs = nnx.Rngs(dropout=mask_key) if training else None
    if config.loss == "simulation":
        score = jax.random.normal(draw_key, (len(data.x), len(config.parameters)), jnp.float32)
        data = simulated(score, data, noise_key, config)
        mean, factor = network.gaussian(network_inputs(data, config), rngs=rngs, training=training)
        return -log_density(score, mean, factor), jnp.sum(data.observations.measured, axis=-1, dtype=mean.dtype)
    mean, factor = network.gaussian(network_inputs(data, config), rngs=rngs, training=training)
    noise = jax.random.normal(draw_key, (DRAWS_PER_SITE, *mean.shape), mean.dtype)
    scores = mean + jnp.einsum("sij,dsj->dsi", factor, noise)
    units = unit_of_score(scores).astype(data.observations.soc.dtype)
    totals, counts, _ = jax.lax.map(lambda unit: site_losses(unit, data, config), units)
    return totals.mean(axis=0) + divergence(mean, factor), counts[0]


def simulated(score: Float[Array, "site free"], data: Data, key: PRNGKeyArray, config: Config) -> Data:
    """The same sites with the profiles that these parameters would have been measured as."""
    unit = unit_of_score(score).astype(data.observations.soc.dtype)
    theta = config.model.space.physical(all_parameters(unit, config))
    soc = clm5.simulate(theta, data.forcing, rules=config.model.rules).soc
    drawn = clm5.sample_observations(key, soc, data.observations, config.model)
    observations = dataclasses.replace(data.observations, soc=drawn)
    return jax.lax.stop_gradient(data._replace(observations=observations))


def divergence(mean: Float[Array, "site free"], factor: Float[Array, "site free free"]) -> Float[Array, " site"]:
    """KL(N(mean, factor factorᵀ) ‖ N(0, I)) in nats."""
    log_diagonal = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1))
    squares = jnp.sum(factor**2, axis=(-2, -1)) + jnp.sum(mean**2, axis=-1)
    return 0.5 * (squares - mean.shape[-1]) - jnp.sum(log_diagonal, axis=-1)


def log_density(
    score: Float[Array, "site free"], mean: Float[Array, "site free"], factor: Float[Array, "site free free"]
) -> Float[Array, " site"]:
    """ln N(score; mean, factor factorᵀ)."""
    standard = jax.scipy.linalg.solve_triangular(factor, (score - mean)[..., None], lower=True)[..., 0]
    log_diagonal = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1))
    constant = 0.5 * mean.shape[-1] * np.log(2 * np.pi)
    return -0.5 * jnp.sum(standard**2, axis=-1) - jnp.sum(log_diagonal, axis=-1) - constant
