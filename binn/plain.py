"""A network that knows no soil: covariates and depth in, ln SOC out; for comparison with the one through the column."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from binn.config import Config
from binn.network import ParameterNetwork
from binn.optimiser import optimiser

HORIZONS = 6  # of a profile, about: a batch has this times as many rows as the run's has sites


class PlainNetwork(ParameterNetwork):
    """The network's body with one number per row, not on the unit cube."""

    HEAD_VARIANCE = 1.0

    def __call__(
        self, x: Float[Array, "row feature"], *, rngs: nnx.Rngs | None = None, training: bool = False
    ) -> Float[Array, "row 1"]:
        """Standardised ln SOC; deterministic without `rngs`."""
        return self.head(self.hidden_units(x, rngs=rngs, training=training))


def fit_plain(
    x: Float[np.ndarray, "row feature"],
    y: Float[np.ndarray, " row"],
    label: np.ndarray,
    config: Config,
    seed: int,
) -> Float[np.ndarray, " row"]:
    """Answers (ln SOC) at all rows of a network fitted by least squares on the rows labelled "train".

    Width, depth, activation, dropout, optimiser, epochs and patience are those of `config`, the run's; the weights are
    those of the epoch with the least error on the rows labelled "validation". No other row is read.
    """
    train, validation = (np.flatnonzero(label == name) for name in ("train", "validation"))
    middle, spread = y[train].mean(), max(float(y[train].std()), 1e-9)
    inputs = jnp.asarray(x, jnp.float32)
    wanted = jnp.asarray((y - middle) / spread, jnp.float32)
    steps = max(1, round(len(train) / (HORIZONS * config.batch_size)))
    batch = len(train) // steps
    key = jax.random.key(seed)
    network = PlainNetwork(
        x.shape[1],
        1,
        width=config.width,
        depth=config.depth,
        curves=config.curves,
        dropout=config.dropout,
        activation=config.activation,
        rngs=nnx.Rngs(params=jax.random.fold_in(key, 0)),
    )
    graph, params = nnx.split(network)
    rule = optimiser(config, steps * config.epochs)
    state = rule.init(params)
    best, least, best_epoch = params, np.inf, 0
    for epoch in range(1, config.epochs + 1):
        order_key, mask_key = jax.random.split(jax.random.fold_in(key, epoch))
        order = jax.random.permutation(order_key, jnp.asarray(train))[: steps * batch].reshape(steps, batch)
        params, state = _epoch(params, state, inputs, wanted, order, mask_key, graph=graph, rule=rule)
        missed = float(_missed(params, inputs[validation], wanted[validation], graph=graph))
        if missed < least:
            best, least, best_epoch = params, missed, epoch
        if epoch - best_epoch >= config.patience:
            break
    return middle + spread * np.asarray(nnx.merge(graph, best)(inputs)[:, 0], dtype=np.float64)


@partial(jax.jit, static_argnames=("graph", "rule"))
def _epoch(params, state, x, y, order, key, *, graph, rule):
    def loss(weights, rows, mask_key):
        answer = nnx.merge(graph, weights, copy=True)(x[rows], rngs=nnx.Rngs(dropout=mask_key), training=True)
        return jnp.mean((answer[:, 0] - y[rows]) ** 2)

    def body(carry, step):
        weights, state = carry
        gradient = jax.grad(loss)(weights, *step)
        updates, state = rule.update(gradient, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    keys = jax.random.split(key, len(order))
    (params, state), _ = jax.lax.scan(body, (params, state), (order, keys))
    return params, state


@partial(jax.jit, static_argnames=("graph",))
def _missed(params, x, y, *, graph):
    return jnp.mean((nnx.merge(graph, params)(x)[:, 0] - y) ** 2)
