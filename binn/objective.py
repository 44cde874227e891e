"""One training step: from covariates through the network and the column to a loss, and back."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, PRNGKeyArray

import clm5
from binn.config import Config
from binn.features import Features
from binn.losses import horizon_loss, log_soc_errors, mean_over_horizons
from binn.network import ParameterNetwork, hide_categories
from binn.skill import nash_sutcliffe


class Data(NamedTuple):
    """What training reads, for a stack of sites; covariates are float32, the physics is float64."""

    x: Float32[Array, "site covariate"]
    forcing: clm5.Forcing
    observations: clm5.Observations

    def select(self, index: Int[Array, " chosen"]) -> "Data":
        """The sites at these positions."""
        return jax.tree.map(lambda leaf: leaf[index], self)


class Scores(NamedTuple):
    """How the deterministic network does on a set of sites."""

    loss: Float[Array, ""]  # mean over horizons, in the unit of the loss
    nse: Float[Array, ""]  # of ln SOC over all horizons: 1 − Σ error² / Σ (deviation from their mean)²
    site_loss: Float[Array, " site"]  # summed over horizons


def build_network(config: Config, features: Features, key: PRNGKeyArray) -> ParameterNetwork:
    """A network with fresh weights, for the columns of a feature matrix; one output per free parameter."""
    return ParameterNetwork(
        len(features.columns),
        len(config.parameters),
        width=config.width,
        depth=config.depth,
        dropout=config.dropout,
        activation=config.activation,
        norm=config.norm,
        residual=config.residual,
        constraint=config.constraint,
        learn_temperature=config.learn_temperature,
        embedding=config.embedding,
        spans=features.categories,
        tables=features.tables,
        rngs=nnx.Rngs(params=key),
    )


def all_parameters[T: (np.ndarray, jax.Array)](free: T, config: Config) -> T:
    """(…, free) → (…, 21): unit values that the network answers, and those at which the other parameters are held."""
    if len(config.parameters) == len(clm5.NAMES):
        return free
    xp: Any = np if isinstance(free, np.ndarray) else jnp
    held = config.held_unit().astype(free.dtype)
    return xp.stack(
        [
            free[..., config.parameters.index(name)]
            if name in config.parameters
            else xp.full(free.shape[:-1], value, dtype=free.dtype)
            for name, value in zip(clm5.NAMES, held, strict=True)
        ],
        axis=-1,
    )


def optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    """AdamW with gradient clipping; the learning rate rises, then falls as a cosine over `steps` steps."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, max(1, steps // 20), max(2, steps), 0.05 * config.learning_rate
    )
    matrices = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    return optax.chain(
        optax.clip_by_global_norm(config.gradient_clip),
        optax.adamw(schedule, weight_decay=config.weight_decay, mask=matrices),
    )


def site_losses(
    unit: Float[Array, "site free"], data: Data, config: Config
) -> tuple[Float[Array, " site"], Float[Array, " site"], Float[Array, "site layer"]]:
    """Run the column at every site: loss summed over horizons, number of horizons, and SOC (gC m⁻³)."""
    options = config.model
    theta = options.space.physical(all_parameters(unit, config))
    soc = clm5.simulate(theta, data.forcing, rules=options.rules).soc
    total, count = horizon_loss(config.loss, unit, soc, data.observations, options, config.horizon_weights)
    # the observation operator keeps logarithms finite; carbon that is not a number must not pass for little carbon
    return jnp.where(jnp.isnan(soc).any(axis=-1), jnp.nan, total), count, soc


@partial(jax.jit, static_argnames=("graph", "config", "spans", "steps"))
def step(params, state, data: Data, index, key, *, graph, config: Config, spans, steps: int):
    """One AdamW step on the sites at `index`: new weights, new optimiser state, loss, and length of the gradient."""
    weights, statistics = split_state(params)
    (loss, statistics), gradient = jax.value_and_grad(_loss, has_aux=True)(
        weights, statistics, data.select(index), key, graph, config, spans
    )
    updates, state = optimiser(config, steps).update(gradient, state, weights)
    params = nnx.merge_state(optax.apply_updates(weights, updates), statistics)
    return params, state, loss, optax.tree.norm(gradient)


def split_state(params: Any) -> tuple[Any, Any]:
    """What gradients train, and what a network keeps besides: running statistics of batch normalisation."""
    weights, statistics = nnx.split_state(params, nnx.Param, ...)
    return weights, statistics


def _loss(weights, statistics, batch: Data, key, graph, config: Config, spans):
    unit, statistics = _unit(nnx.merge(graph, weights, statistics, copy=True), batch, key, config, spans)
    total, count, _ = site_losses(unit, batch, config)
    return mean_over_horizons(total, count), statistics


def _unit(network: ParameterNetwork, batch: Data, key, config: Config, spans):
    """The network's answer as in training, as float64 for the column, and its statistics afterwards."""
    hide_key, mask_key = jax.random.split(key)
    x = hide_categories(batch.x, hide_key, spans, config.hide_categories)
    unit = network(x, rngs=nnx.Rngs(dropout=mask_key), training=True)
    statistics = split_state(nnx.state(network))[1]
    return unit.astype(batch.observations.soc.dtype), statistics


@partial(jax.jit, static_argnames=("graph", "config"))
def evaluate(params, data: Data, *, graph, config: Config) -> Scores:
    """Loss and skill of the deterministic network (no dropout)."""
    unit = nnx.merge(graph, params)(data.x).astype(data.observations.soc.dtype)
    total, count, soc = site_losses(unit, data, config)
    error, observed = log_soc_errors(soc, data.observations, config.model)
    return Scores(mean_over_horizons(total, count), nash_sutcliffe(error, observed), total)


@partial(jax.jit, static_argnames=("graph", "config", "spans"))
def bad_sites(params, data: Data, index, key, *, graph, config: Config, spans) -> Bool[Array, " chosen"]:
    """Which of the sites at `index` have a loss that is not finite, or a gradient that is not: a mask over `index`.

    All false where the network's own weights are the cause.
    """
    batch = data.select(index)
    unit, _ = _unit(nnx.merge(graph, params, copy=True), batch, key, config, spans)

    def summed(unit):
        total, _, _ = site_losses(unit, batch, config)
        return jnp.sum(total), total

    gradient, total = jax.grad(summed, has_aux=True)(unit)
    finite_unit = jnp.isfinite(unit).all(axis=-1)
    return finite_unit & ~(jnp.isfinite(total) & jnp.isfinite(gradient).all(axis=-1))
