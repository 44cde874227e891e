"""An amortised posterior: a network that answers a distribution of the parameters, trained against the box prior.

Two ways, both with the sampler's model: "elbo", the evidence lower bound of every training site, by gradients through
the column; "simulation", parameters from the prior and profiles that the column and the error model make of them at the
training sites' forcing, so that the observed carbon is not used at all (neural posterior estimation).
Sources: Kingma & Welling (2014), arXiv 1312.6114; Papamakarios & Murray (2016), arXiv 1605.06376.
"""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

import clm5
from binn.config import Config
from binn.network import PosteriorNetwork, unit_of_score
from binn.objective import DRAWS_PER_SITE, Data, modelled_soc, network_inputs, site_losses

if TYPE_CHECKING:
    from numpyro.distributions import MultivariateNormal


def posterior_loss(
    network: PosteriorNetwork,
    data: Data,
    key: PRNGKeyArray,
    config: Config,
    *,
    training: bool,
    inputs: Float[Array, "site input"] | None = None,
) -> tuple[Float[Array, " site"], Float[Array, " site"]]:
    """Loss of each site in nats, and the sum of its horizons' weights; both (site,).

    "elbo": E_q[−log likelihood] + KL(q ‖ prior), by 4 draws of q.
    "simulation": −log q(parameters | what they would be measured as), one pair per site.
    `inputs`: `network_inputs` of the data, where they are at hand.
    """
    draw_key, noise_key, mask_key = jax.random.split(key, 3)
    rngs = nnx.Rngs(dropout=mask_key) if training else None
    if config.loss == "simulation":
        score = jax.random.normal(draw_key, (len(data.x), len(config.parameters)), jnp.float32)
        data = simulated(score, data, noise_key, config)
        mean, factor = network.gaussian(network_inputs(data, config), rngs=rngs, training=training)
        return -log_density(score, mean, factor), jnp.sum(data.observations.measured, axis=-1, dtype=mean.dtype)
    inputs = network_inputs(data, config) if inputs is None else inputs
    mean, factor = network.gaussian(inputs, rngs=rngs, training=training)
    noise = jax.random.normal(draw_key, (DRAWS_PER_SITE, *mean.shape), mean.dtype)
    scores = mean + jnp.einsum("sij,dsj->dsi", factor, noise)
    units = unit_of_score(scores).astype(data.observations.soc.dtype)
    totals, counts, _ = jax.lax.map(lambda unit: site_losses(unit, data, config), units)
    return totals.mean(axis=0) + divergence(mean, factor), counts[0]


def simulated(score: Float[Array, "site free"], data: Data, key: PRNGKeyArray, config: Config) -> Data:
    """The same sites with the profiles that these parameters would have been measured as."""
    unit = unit_of_score(score).astype(data.observations.soc.dtype)
    drawn = clm5.sample_observations(key, modelled_soc(unit, data, config), data.observations, config.model)
    observations = dataclasses.replace(data.observations, soc=drawn)
    return jax.lax.stop_gradient(data._replace(observations=observations))


def _gaussian(mean: Float[Array, "*site free"], factor: Float[Array, "*site free free"]) -> "MultivariateNormal":
    from numpyro.distributions import MultivariateNormal  # a second to import, and most networks need none

    return MultivariateNormal(mean, scale_tril=factor)


def divergence(mean: Float[Array, "site free"], factor: Float[Array, "site free free"]) -> Float[Array, " site"]:
    """KL(N(mean, factor factorᵀ) ‖ N(0, I)) in nats."""
    from numpyro.distributions import kl_divergence

    unit = jnp.eye(mean.shape[-1], dtype=mean.dtype)
    return kl_divergence(_gaussian(mean, factor), _gaussian(jnp.zeros_like(mean[0]), unit))


def log_density(
    score: Float[Array, "site free"], mean: Float[Array, "site free"], factor: Float[Array, "site free free"]
) -> Float[Array, " site"]:
    """ln N(score; mean, factor factorᵀ)."""
    return _gaussian(mean, factor).log_prob(score)
