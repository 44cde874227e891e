"""What is compiled: one training step, the validation, and the search for sites that are not finite."""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float

from binn import amortised
from binn.config import Config
from binn.losses import DISTRIBUTIONS, log_soc_errors, mean_over_horizons
from binn.network import hide_categories
from binn.objective import Data, gauss_newton, losses_of, network_inputs, site_losses
from binn.optimiser import optimiser
from binn.skill import nash_sutcliffe

# of Gauss-Newton steps: added to a matrix whose unit is 1 / (unit cube)², longest step in the cube, and their weight
# beside `Config.gradient_clip`; chosen on virtual lands 7 and 8
DAMPING, LONGEST, GAIN = 0.3, 0.3, 10.0


class Scores(NamedTuple):
    """How the deterministic network does on a set of sites."""

    loss: np.float64  # mean over horizons, in the unit of the loss
    nse: np.float64  # of ln SOC over all horizons
    site_loss: Float[np.ndarray, " site"]  # summed over horizons


@partial(jax.jit, static_argnames=("graph", "config", "spans", "steps", "steps_per_epoch"))
def step(params, state, batch: Data, key, *, graph, config: Config, spans, steps: int, steps_per_epoch: int):
    """One AdamW step on the sites of a batch: new weights, new optimiser state, loss, and length of the gradient."""
    weights, statistics = split_state(params)
    (loss, statistics), gradient = jax.value_and_grad(_loss, has_aux=True)(
        weights, statistics, batch, key, graph, config, spans, steps_per_epoch
    )
    updates, state = optimiser(config, steps).update(gradient, state, weights)
    params = nnx.merge_state(optax.apply_updates(weights, updates), statistics)
    return params, state, loss, optax.tree.norm(gradient)


def split_state(params: Any) -> tuple[Any, Any]:
    """What gradients train, and what a network keeps besides: running statistics of batch normalisation."""
    weights, statistics = nnx.split_state(params, nnx.Param, ...)
    return weights, statistics


def _loss(weights, statistics, batch: Data, key, graph, config: Config, spans, steps_per_epoch: int):
    network = nnx.merge(graph, weights, statistics, copy=True)
    batch, mask_key = _some_hidden(batch, key, config, spans)
    if config.loss in DISTRIBUTIONS:
        total, count = amortised.posterior_loss(network, batch, mask_key, config, training=True)
    else:
        unit = _trained_unit(network, batch, mask_key, config)
        if config.gradient == "gauss_newton":
            return _gauss_newton_loss(unit, batch, config), split_state(nnx.state(network))[1]
        total, count, _ = site_losses(unit, batch, config)
    loss = mean_over_horizons(total, count)
    if config.learn_dropout:  # the loss is a mean over horizons: what they cost together is shared by all of an epoch
        loss = loss + network.dropout_cost() / (steps_per_epoch * jnp.maximum(jnp.sum(count), 1.0))
    return loss, split_state(nnx.state(network))[1]


def _some_hidden(batch: Data, key, config: Config, spans) -> tuple[Data, Any]:
    """The batch with some categories unknown, and the key of the masks."""
    hide_key, mask_key = jax.random.split(key)
    x = hide_categories(jnp.asarray(batch.x), hide_key, spans, config.hide_categories)
    return batch._replace(x=x), mask_key


def _trained_unit(network, batch: Data, mask_key, config: Config) -> Float[Array, "site free"]:
    """The network's answer as in training, in the precision of the column."""
    unit = network(network_inputs(batch, config), rngs=nnx.Rngs(dropout=mask_key), training=True)
    return unit.astype(batch.observations.soc.dtype)


def _gauss_newton_loss(unit: Float[Array, "site free"], batch: Data, config: Config) -> Float[Array, ""]:
    """The loss, with each site's gradient replaced by its damped Gauss-Newton step in the unit cube.

    Carbon tells directions of the cube up to a thousand times apart; a plain gradient learns the loud ones and leaves
    the quiet ones where they are. Where the truth is a function of what the network sees both vanish at the same place.
    Source: Levenberg (1944), Marquardt (1963), site by site; Martens (2010) for networks.
    """
    at = jax.lax.stop_gradient(unit)
    soc, gradient, information = gauss_newton(at, batch, config)
    damped = information + DAMPING * jnp.eye(unit.shape[1], dtype=unit.dtype)
    step = jnp.clip(jnp.linalg.solve(damped, gradient[..., None])[..., 0], -LONGEST, LONGEST)
    pull = GAIN * jnp.mean(jnp.sum(jax.lax.stop_gradient(step) * unit, axis=-1))
    loss = mean_over_horizons(*losses_of(soc, at, batch, config))
    return jax.lax.stop_gradient(loss - pull) + pull


def evaluate(params, blocks: Iterable[Data], *, graph, config: Config) -> Scores:
    """Loss and skill of the deterministic network (no dropout), over blocks of sites."""
    parts = [jax.device_get(_evaluate(params, block, graph=graph, config=config)) for block in blocks]
    total, count, error, observed = (np.concatenate(leaves) for leaves in zip(*parts, strict=True))
    return Scores(
        np.float64(mean_over_horizons(total, count)), np.float64(nash_sutcliffe(error, observed)), np.asarray(total)
    )


@partial(jax.jit, static_argnames=("graph", "config"))
def _evaluate(params, data: Data, *, graph, config: Config):
    network = nnx.merge(graph, params)
    inputs = network_inputs(data, config)
    unit = network(inputs).astype(data.observations.soc.dtype)
    total, count, soc = site_losses(unit, data, config)
    if config.loss in DISTRIBUTIONS:  # always the same draws: epochs differ by their weights alone
        key = jax.random.key(0)
        total, count = amortised.posterior_loss(network, data, key, config, training=False, inputs=inputs)
    return total, count, *log_soc_errors(soc, data.observations, config.model)


@partial(jax.jit, static_argnames=("graph", "config", "spans"))
def not_finite(
    params, batch: Data, key, *, graph, config: Config, spans
) -> tuple[Bool[Array, " site"], Bool[Array, "site free"]]:
    """Which sites of a batch have a loss or a gradient that is not finite, and by which parameters that gradient is.

    All false where the network's own weights are the cause. Networks of distributions tell the sites alone.
    """
    network = nnx.merge(graph, params, copy=True)
    batch, mask_key = _some_hidden(batch, key, config, spans)
    if config.loss in DISTRIBUTIONS:
        total, _ = amortised.posterior_loss(network, batch, mask_key, config, training=True)
        return ~jnp.isfinite(total), jnp.zeros((len(batch.x), len(config.parameters)), bool)
    unit = _trained_unit(network, batch, mask_key, config)

    def summed(unit):
        total, _, _ = site_losses(unit, batch, config)
        return jnp.sum(total), total

    gradient, total = jax.grad(summed, has_aux=True)(unit)
    finite_unit = jnp.isfinite(unit).all(axis=-1)
    bad = finite_unit & ~(jnp.isfinite(total) & jnp.isfinite(gradient).all(axis=-1))
    return bad, bad[:, None] & ~jnp.isfinite(gradient)
