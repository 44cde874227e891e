"""Multilayer perceptrons with a linear head, trained side by side by Adadelta, stopped early (Flax nnx, float32)."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

if TYPE_CHECKING:
    from bayes.second_stage import NetworkConfig

SQUARED, RELATIVE = 500.0, 25.0  # weights of the published joint loss, which multiplies its two parts
SMALLEST = 1e-3  # of a target, where the loss divides by it


class Perceptron(nnx.Module):
    """ReLU layers with dropout after each, and a linear head."""

    def __init__(self, n_in: int, n_out: int, widths: tuple[int, ...], dropout: float, rngs: nnx.Rngs):
        pinned: dict[str, Any] = {"dtype": jnp.float32, "param_dtype": jnp.float32, "rngs": rngs}
        uniform = nnx.initializers.glorot_uniform()
        self.hidden = nnx.List([nnx.Linear(a, b, kernel_init=uniform, **pinned) for a, b in pairwise((n_in, *widths))])
        self.head = nnx.Linear(widths[-1], n_out, kernel_init=uniform, **pinned)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: Float[Array, "site column"], rngs: nnx.Rngs | None = None) -> Float[Array, "site parameter"]:
        """Deterministic without `rngs`; with them, one dropout draw per site."""
        for layer in self.hidden:
            x = self.dropout(nnx.relu(layer(x)), deterministic=rngs is None, rngs=rngs)
        return self.head(x)


class Ensemble:
    """Networks of one shape that are trained side by side."""

    def __init__(self, config: "NetworkConfig", n_in: int, n_out: int):
        self.config = config

        def fresh(key: PRNGKeyArray):
            return nnx.state(Perceptron(n_in, n_out, config.widths, config.dropout, nnx.Rngs(key)), nnx.Param)

        self.fresh = jax.jit(jax.vmap(fresh))
        graph = nnx.graphdef(
            nnx.eval_shape(lambda: Perceptron(n_in, n_out, config.widths, config.dropout, nnx.Rngs(0)))
        )
        optimiser = optax.adadelta(config.learning_rate, rho=0.95, eps=1e-7)
        self.begin = jax.jit(jax.vmap(optimiser.init))

        def answer(weights, x):
            return nnx.merge(graph, weights)(x)

        def loss(weights, x, y, key):
            found = nnx.merge(graph, weights)(x, nnx.Rngs(key)) if config.dropout else answer(weights, x)
            return _loss(found, y, config.loss)

        def epoch(weights, state, key, x, y, rows):
            """One pass over `rows`, a member's training sites, in a new order; what fills no batch is left out."""
            key_order, key_dropout = jax.random.split(key)
            size = min(config.batch_size, len(rows))
            order = jax.random.permutation(key_order, rows)[: len(rows) // size * size].reshape(-1, size)

            def step(carry, given):
                weights, state = carry
                batch, key = given
                slope = jax.grad(loss)(weights, x[batch], y[batch], key)
                change, state = optimiser.update(slope, state, weights)
                return (optax.apply_updates(weights, change), state), None

            keys = jax.random.split(key_dropout, len(order))
            return jax.lax.scan(step, (weights, state), (order, keys))[0]

        def pass_(weights, state, best, least, key, x, y, rows, checked):
            weights, state = epoch(weights, state, key, x, y, rows)
            now = _loss(answer(weights, x[checked]), y[checked], config.loss)
            better = now < least
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), weights, best)
            return weights, state, best, jnp.minimum(now, least), better

        self.pass_ = jax.jit(jax.vmap(pass_, in_axes=(0, 0, 0, 0, 0, None, None, 0, 0)))
        self.answer = jax.jit(jax.vmap(answer, in_axes=(0, None)))

    def fit(
        self,
        x: Float[np.ndarray, "training column"],
        y: Float[np.ndarray, "training parameter"],
        everywhere: Float[np.ndarray, "site column"],
        seed: int,
    ) -> tuple[Float[np.ndarray, "member site parameter"], Int[np.ndarray, " validation"]]:
        """Train on (x, y) and answer `everywhere`; also the rows that stopped the first member's training."""
        rng = np.random.default_rng(seed)
        n, members = len(x), self.config.members
        n_checked = max(1, round(self.config.validation * n))
        orders = np.stack([rng.permutation(n) for _ in range(members)])
        checked, rows = orders[:, :n_checked], orders[:, n_checked:]
        if members > 1:  # sites that stop training are never in the bootstrap sample
            rows = np.stack([rng.choice(row, len(row)) for row in rows])
        root = jax.random.key(seed, impl="threefry2x32")
        weights = self.fresh(jax.random.split(jax.random.fold_in(root, 0), members))
        state, best, least = self.begin(weights), weights, jnp.full(members, jnp.inf, jnp.float32)
        waited = np.zeros(members, int)
        for number in range(self.config.epochs):
            keys = jax.random.split(jax.random.fold_in(root, 1 + number), members)
            weights, state, now_best, now_least, better = self.pass_(
                weights, state, best, least, keys, x, y, rows, checked
            )
            running = waited < self.config.patience  # a member that has stopped keeps what it had
            best = jax.tree.map(lambda new, old, on=running: _where(on, new, old), now_best, best)
            least = jnp.where(running, now_least, least)
            waited = np.where(running, np.where(np.asarray(better), 0, waited + 1), waited)
            if np.all(waited >= self.config.patience):
                break
        return np.asarray(self.answer(best, everywhere)), np.sort(checked[0])


def _where(which: np.ndarray, new: Array, old: Array) -> Array:
    return jnp.where(which.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def _loss(found: Float[Array, "site parameter"], y: Float[Array, "site parameter"], kind: str) -> Float[Array, ""]:
    squared = jnp.mean((found - y) ** 2)
    if kind == "mse":
        return squared
    return SQUARED * squared * RELATIVE * jnp.mean(jnp.abs(found - y) / jnp.maximum(y, SMALLEST))
