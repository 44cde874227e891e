"""Laplace's approximation over the head: a Gaussian of its weights, the body of the network held.

The curvature is the Gauss-Newton matrix of the training likelihood through the column; the precision of the prior of
the weights maximises the evidence. Sources: MacKay (1992); Daxberger et al. (2021), arXiv 2106.14806.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from binn.config import Config
from binn.network import ParameterNetwork
from binn.objective import Data, gauss_newton, network_inputs

BLOCK = 2048  # sites differentiated together: a good size for the parts of the training data
ROUNDS, SETTLED = 100, 1e-4  # of the search for the prior's precision


class HeadPosterior(NamedTuple):
    """N(mean, vectors · diag(1 / (curvature + precision)) · vectorsᵀ) over the head's weights, bias last."""

    mean: Float[np.ndarray, "unit free"]
    curvature: Float[np.ndarray, " weight"]  # eigenvalues of the likelihood's Gauss-Newton matrix
    vectors: Float[np.ndarray, "weight weight"]
    precision: float  # of the prior N(0, I / precision)

    def draw(self, key, draws: int) -> Float[np.ndarray, "draw unit free"]:
        """Heads, float64."""
        noise = np.asarray(jax.random.normal(key, (draws, self.curvature.size), jnp.float64))
        # the symmetric root: rounding may turn eigenvectors, which hardly moves it
        turned = noise @ self.vectors * (self.curvature + self.precision) ** -0.5 @ self.vectors.T
        return self.mean + turned.reshape(draws, *self.mean.shape)


def head_posteriors(networks: list[ParameterNetwork], parts: Iterable[Data], config: Config) -> list[HeadPosterior]:
    """The Gaussians around the heads of trained networks.

    Args:
        networks: of one run with loss "likelihood"; dropout is off.
        parts: all training sites, in parts that are gone through once.
        config: what it was trained with.
    """
    means = [_head(network) for network in networks]
    totals: list[Any] = [0.0] * len(networks)
    for part in parts:
        for member, (network, mean) in enumerate(zip(networks, means, strict=True)):
            graph, weights = nnx.split(network)
            rows = jnp.asarray(with_bias(network, network_inputs(part, config)))
            information = _information(rows @ mean, part, weights, graph=graph, config=config)
            totals[member] = totals[member] + np.asarray(_curvature(rows, information))
    return [_posterior(mean, np.asarray(total)) for mean, total in zip(means, totals, strict=True)]


def _head(network: ParameterNetwork) -> Float[np.ndarray, "unit free"]:
    """The weights of a head, those of its constant last, float64."""
    head = nnx.state(network.head)
    return np.vstack([np.asarray(head["kernel"][...]), np.asarray(head["bias"][...])]).astype(np.float64)


def _posterior(mean: Float[np.ndarray, "unit free"], total: Float[np.ndarray, "free free unit unit"]) -> HeadPosterior:
    """The Gaussian of a mean and the curvature of the likelihood there."""
    units, free = mean.shape
    matrix = total.transpose(2, 0, 3, 1).reshape(units * free, units * free)
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    values = np.maximum(values, 0.0)
    return HeadPosterior(mean, values, vectors, _evidence_precision(values, float(np.sum(mean**2))))


def with_bias(network: ParameterNetwork, inputs: Float[Array, "site input"]) -> Float[np.ndarray, "site unit"]:
    """The last hidden layer without dropout, and a column of ones; float64."""
    hidden = np.asarray(network.hidden_units(inputs), dtype=np.float64)
    return np.column_stack([hidden, np.ones(len(hidden))])


def units_of_heads(
    network: ParameterNetwork, hidden: Float[np.ndarray, "site unit"], heads: Float[np.ndarray, "draw unit free"]
) -> Float[np.ndarray, "draw site free"]:
    """Unit parameters by every head, float64."""
    graph, weights = nnx.split(network)
    rows = jnp.asarray(hidden)
    return np.stack([np.asarray(_units_of_head(weights, rows, jnp.asarray(head), graph=graph)) for head in heads])


@partial(jax.jit, static_argnames="graph")
def _units_of_head(weights: Any, hidden, head, *, graph):
    return nnx.merge(graph, weights).constrained(hidden @ head)


@partial(jax.jit, static_argnames=("graph", "config"))
def _information(
    logits: Float[Array, "site free"], data: Data, weights: Any, *, graph, config: Config
) -> Float[Array, "site free free"]:
    """Gauss-Newton matrices of the sites' −log likelihood by the head's answers."""
    network = nnx.merge(graph, weights)
    unit, slope = jax.jvp(network.constrained, (logits,), (jnp.ones_like(logits),))  # element by element
    information = gauss_newton(unit.astype(data.observations.soc.dtype), data, config)[2]
    return slope[:, :, None] * information * slope[:, None, :]


@jax.jit
def _curvature(
    hidden: Float[Array, "site unit"], information: Float[Array, "site free free"]
) -> Float[Array, "free free unit unit"]:
    """Σ over sites of information ⊗ hidden hiddenᵀ."""
    by_pair = information.reshape(len(information), -1).T
    shape = (*information.shape[1:], hidden.shape[1], hidden.shape[1])
    return jax.lax.map(lambda g: (hidden * g[:, None]).T @ hidden, by_pair).reshape(shape)


def _evidence_precision(curvature: Float[np.ndarray, " weight"], squares: float) -> float:
    """The prior precision with the largest evidence (MacKay's fixed point): determined weights / Σ weights²."""
    precision = 1.0
    for _ in range(ROUNDS):
        determined = float(np.sum(curvature / (curvature + precision)))
        before, precision = precision, max(determined / max(squares, 1e-12), 1e-6)
        if abs(np.log(precision / before)) < SETTLED:
            break
    return precision
