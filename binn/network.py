"""The network: site covariates in, the 21 soil-carbon parameters on the unit cube out (Flax nnx)."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key, PRNGKeyArray

ACTIVATIONS: dict[str, Callable] = {
    "relu": nnx.relu,
    "leaky_relu": lambda x: nnx.leaky_relu(x, 0.3),  # the slope of the published network
    "silu": nnx.silu,
    "tanh": nnx.tanh,
}
NORMS = ("none", "batch", "layer")
CONSTRAINTS: dict[str, Callable] = {"sigmoid": nnx.sigmoid, "hard_sigmoid": nnx.hard_sigmoid}
EDGE = 1e-6  # outputs lie in [EDGE, 1 − EDGE]: some bounds are turnover times of 0, which nothing survives
LEAST_SPREAD = 1e-3  # of a posterior on the probit scale, where the prior has 1
CONCRETE_TEMPERATURE = 0.1  # of relaxed masks: as published
PRIOR_PRECISION = 1e-4  # of weights after a learned rate, nats
COOLEST, HOTTEST = 10.0, 109.0  # the range of the published learnable temperature
FURTHEST = 2.5  # sd from the mean at which the curve of a number ends; beyond it is constant


class Layer(nnx.Module):
    """Linear, normalisation, activation, and with `residual` the input added where its width is the output's."""

    def __init__(self, n_in: int, n_out: int, *, norm: str, activation: str, residual: bool, pinned: dict[str, Any]):
        he = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
        self.linear = nnx.Linear(n_in, n_out, kernel_init=he, **pinned)
        kind = {"none": None, "batch": nnx.BatchNorm, "layer": nnx.LayerNorm}[norm]
        self.norm = None if kind is None else kind(n_out, **pinned)
        self.activation = activation
        self.adds = residual and n_in == n_out

    def __call__(self, x: Float[Array, "site unit"], *, training: bool) -> Float[Array, "site out"]:
        y = self.linear(x)
        if isinstance(self.norm, nnx.BatchNorm):
            y = self.norm(y, use_running_average=not training)
        elif self.norm is not None:
            y = self.norm(y)
        y = ACTIVATIONS[self.activation](y)
        return x + y if self.adds else y


class ParameterNetwork(nnx.Module):
    """A multilayer perceptron with dropout after every hidden layer, in float32 whatever the global precision.

    The head starts small, so that an untrained network answers about ½, the middle of the box, everywhere. With
    `learn_temperature`, logits are divided by a learned number between 10 and 109, as published. With `embedding`
    above 0, every categorical covariate (`spans`, its columns) is first mapped to that many learned numbers, by the
    table whose number stands in `tables`. With `curves` above 0 every number is given as that many hat functions too,
    so that the next layer sums learned curves; with a depth of 0 that layer is the head, and the network an additive
    model of its inputs. With `learn_dropout`, `dropout` is where the rates of the layers start.
    Source: Xu et al. (2025), BINN.
    """

    HEAD_VARIANCE = 0.01  # of its first weights, as a share of 1 / width

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        width: int,
        depth: int,
        dropout: float,
        activation: str = "silu",
        norm: str = "none",
        residual: bool = False,
        constraint: str = "sigmoid",
        learn_temperature: bool = False,
        embedding: int = 0,
        curves: int = 0,
        learn_dropout: bool = False,
        spans: tuple[tuple[int, int], ...] = (),
        tables: tuple[int, ...] = (),
        rngs: nnx.Rngs,
    ):
        pinned: dict[str, Any] = {"dtype": jnp.float32, "param_dtype": jnp.float32, "rngs": rngs}
        small = nnx.initializers.variance_scaling(self.HEAD_VARIANCE, "fan_in", "truncated_normal")
        self.spans = spans if embedding else ()
        self.table_of = tables if embedding else ()
        sizes = {table: stop - start for table, (start, stop) in zip(self.table_of, self.spans, strict=True)}
        self.tables = nnx.Dict(
            {str(table): nnx.Linear(size, embedding, use_bias=False, **pinned) for table, size in sizes.items()}
        )
        n_in += curves * (n_in - sum(stop - start for start, stop in self.spans))
        n_in += sum(embedding - (stop - start) for start, stop in self.spans)
        self.curves = curves
        shape: dict[str, Any] = {"norm": norm, "activation": activation, "residual": residual, "pinned": pinned}
        self.hidden = nnx.List([Layer(a, b, **shape) for a, b in pairwise([n_in, *[width] * depth])])
        self.head = nnx.Linear(width if depth else n_in, self.n_answers(n_out), kernel_init=small, **pinned)
        self.n_out = n_out
        self.temperature = nnx.Param(jnp.zeros((), jnp.float32)) if learn_temperature else None
        # the rate of every hidden layer, by its logit, where it is learned
        start = jnp.full((depth,), np.log(dropout / (1 - dropout)) if learn_dropout else 0.0, jnp.float32)
        self.rates = nnx.Param(start) if learn_dropout else None
        self.dropout = dropout
        self.constraint = constraint

    @staticmethod
    def n_answers(n_out: int) -> int:
        """Numbers that the head gives for `n_out` parameters."""
        return n_out

    def __call__(
        self,
        x: Float[Array, "site covariate"],
        *,
        rngs: nnx.Rngs | None = None,
        training: bool = False,
    ) -> Float[Array, "site parameter"]:
        """Unit parameters, in [1e-6, 1 − 1e-6]. Deterministic without `rngs`; with them, one dropout draw.

        All sites share the mask, so that one draw is one network and equal covariates give equal answers, as a draw of
        a map needs; batch normalisation uses the statistics that it learned. With `training` every row has a mask of
        its own (the same law at every single site and a less noisy gradient), and batch normalisation uses the batch's
        statistics and updates its own.
        """
        return self.constrained(self.head(self.hidden_units(x, rngs=rngs, training=training)))

    def hidden_units(
        self, x: Float[Array, "site covariate"], *, rngs: nnx.Rngs | None = None, training: bool = False
    ) -> Float[Array, "site unit"]:
        """The last hidden layer, which the head is linear in; arguments as those of a call."""
        # built here, not stored: it holds no state, and a float32 rate draws the same mask with and without x64
        rate: Any = np.float32(self.dropout)
        drop = nnx.Dropout(rate, broadcast_dims=() if training else (0,))
        x = self._embedded(x)
        for number, layer in enumerate(self.hidden):
            x = layer(x, training=training)
            if self.rates is None:
                x = drop(x, deterministic=rngs is None, rngs=rngs)
            elif rngs is not None:
                rows = x.shape[0] if training else 1
                x = x * concrete_mask(rngs.dropout(), self.rates[number], (rows, x.shape[1]))
        return x

    def constrained(self, logits: Float[Array, "site parameter"]) -> Float[Array, "site parameter"]:
        """From the head's numbers to the unit cube."""
        if self.temperature is not None:
            logits = logits / (COOLEST + (HOTTEST - COOLEST) * nnx.sigmoid(self.temperature[...]))
        return EDGE + (1 - 2 * EDGE) * CONSTRAINTS[self.constraint](logits)

    def dropout_cost(self) -> Float[Array, ""]:
        """What learned rates cost in nats: − Σ units · entropy(rate), and a broad prior of the weights after them.

        Without it the rates fall to 0. Source: Gal, Hron & Kendall (2017), arXiv 1705.07832, equations 3-5.
        """
        assert self.rates is not None
        rate = nnx.sigmoid(self.rates[...])
        entropy = -rate * jnp.log(rate) - (1 - rate) * jnp.log1p(-rate)
        after = [*(layer.linear for layer in self.hidden[1:]), self.head]
        squares = jnp.stack([jnp.sum(linear.kernel[...] ** 2) for linear in after])
        widths = jnp.array([linear.kernel.shape[0] for linear in after], jnp.float32)
        return jnp.sum(0.5 * PRIOR_PRECISION * squares / (1 - rate) - widths * entropy)

    def _embedded(self, x: Float[Array, "site covariate"]) -> Float[Array, "site feature"]:
        categorical = {column for start, stop in self.spans for column in range(start, stop)}
        numbers = np.array([column for column in range(x.shape[1]) if column not in categorical], dtype=int)
        spans = zip(self.table_of, self.spans, strict=True)
        embedded = [self.tables[str(table)](x[:, start:stop]) for table, (start, stop) in spans]
        if self.curves:
            embedded.append(hats(x[:, numbers], self.curves))
        return jnp.concatenate([x[:, numbers], *embedded], axis=1) if embedded else x


class PosteriorNetwork(ParameterNetwork):
    """The same body with a head that gives a Gaussian of full covariance on the probit scale of the parameters.

    An untrained network gives about the prior, N(0, I), which is the uniform box. A call gives the parameters at the
    median, Φ(mean).
    """

    HEAD_VARIANCE = 1e-4

    @staticmethod
    def n_answers(n_out: int) -> int:
        """Means, and the lower triangle of the Cholesky factor."""
        return n_out + n_out * (n_out + 1) // 2

    def constrained(self, logits: Float[Array, "site answer"]) -> Float[Array, "site parameter"]:
        """The median on the unit cube."""
        return unit_of_score(logits[:, : self.n_out])

    def gaussian(
        self, x: Float[Array, "site covariate"], *, rngs: nnx.Rngs | None = None, training: bool = False
    ) -> tuple[Float[Array, "site parameter"], Float[Array, "site parameter parameter"]]:
        """Mean and Cholesky factor on the probit scale; arguments as those of a call."""
        answers = self.head(self.hidden_units(x, rngs=rngs, training=training))
        mean, triangle = answers[:, : self.n_out], answers[:, self.n_out :]
        factor = jnp.zeros((x.shape[0], self.n_out, self.n_out), x.dtype)
        factor = factor.at[:, *np.tril_indices(self.n_out)].set(triangle)
        diagonal = jnp.diagonal(factor, axis1=1, axis2=2)
        spread = LEAST_SPREAD + (1 - LEAST_SPREAD) * nnx.softplus(diagonal + np.float32(np.log(np.expm1(1.0))))
        places = np.arange(self.n_out)
        return mean, factor.at[:, places, places].set(spread)


def hats(x: Float[Array, "site number"], count: int) -> Float[Array, "site hat"]:
    """Hat functions of standardised numbers, `count` of each with equal distances within ± 2.5: linear B-splines."""
    places = jnp.linspace(-FURTHEST, FURTHEST, count, dtype=x.dtype)
    inside = jnp.clip(x, -FURTHEST, FURTHEST)[..., None]
    rise = 1 - jnp.abs(inside - places) * np.float32((count - 1) / (2 * FURTHEST))
    return jnp.maximum(rise, 0).reshape(x.shape[0], -1)


def unit_of_score(score: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """From the probit scale to the unit cube, [1e-6, 1 − 1e-6]."""
    return EDGE + (1 - 2 * EDGE) * jax.scipy.special.ndtr(score)


def concrete_mask(key: PRNGKeyArray, logit: Float[Array, ""], shape: tuple[int, int]) -> Float[Array, "row unit"]:
    """A relaxed dropout mask, divided by the share that is kept: derivatives by the rate exist."""
    noise = jax.random.logistic(key, shape, jnp.float32)
    return (1 - nnx.sigmoid((logit + noise) / CONCRETE_TEMPERATURE)) / (1 - nnx.sigmoid(logit))


def mc_dropout(
    network: ParameterNetwork, x: Float[Array, "site covariate"], keys: Key[Array, " draw"], *, batch: int
) -> Float[Array, "draw site parameter"]:
    """One network per key, `batch` of them at a time: a spread to compare with a posterior, not a posterior.

    A mask depends on its key alone and not on the sites: a site gets the same draws in whatever company it is asked.
    """
    return jax.lax.map(lambda key: network(x, rngs=nnx.Rngs(dropout=key)), keys, batch_size=batch)


def hide_categories(
    x: Float[Array, "site covariate"], key: PRNGKeyArray, spans: tuple[tuple[int, int], ...], rate: float
) -> Float[Array, "site covariate"]:
    """Turn a share `rate` of the categories of `x` into "unknown", the last column of each span: how it is learned."""
    for number, (start, stop) in enumerate(spans):
        hidden = jax.random.bernoulli(jax.random.fold_in(key, number), np.float32(rate), (x.shape[0], 1))
        unknown = jnp.zeros((stop - start,), x.dtype).at[-1].set(1)
        x = x.at[:, start:stop].set(jnp.where(hidden, unknown, x[:, start:stop]))
    return x
