"""Draws of a network's answer: four ways to say how sure it is."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from binn import laplace, losses
from binn.config import Config
from binn.network import PosteriorNetwork, mc_dropout, unit_of_score
from binn.objective import Data, all_parameters, read_data
from binn.run import BLOCK, Run

if TYPE_CHECKING:
    import xarray as xr

ACTIVATIONS_AT_ONCE = 2**24  # numbers in a hidden layer over sites and draws, float32: 64 MB a layer


class Method(NamedTuple):
    """A way to draw unit parameters, and what its chains and draws are.

    `prepare` does once what does not depend on the sites that are drawn for.
    """

    prepare: Callable[..., Callable[..., np.ndarray]]  # (run, draws, seed, sites of the training) → (sites → draws)
    chain_is: str
    draw_is: str


def draw_units(
    run: Run,
    sites: "xr.Dataset",
    draws: int,
    method: str = "mc_dropout",
    *,
    seed: int = 0,
    training_sites: "xr.Dataset | None" = None,
) -> Float[np.ndarray, "chain draw site 21"]:
    """Unit parameters by a method of `posterior`, float64, in (0, 1); memory beyond the answer stays bounded."""
    refuse_unreadable(run, sites)
    return prepare(run, sites, draws, method, seed, training_sites)(sites)


def prepare(run: Run, sites, draws: int, method: str, seed: int, training_sites) -> Callable[..., np.ndarray]:
    """What draws at any sites, after the work that is done once."""
    with jax.enable_x64(True):  # as in training; the network's arrays stay float32
        draw = METHODS[method].prepare(run, draws, seed, sites if training_sites is None else training_sites)

    def units(part: "xr.Dataset") -> np.ndarray:
        with jax.enable_x64(True):
            return all_parameters(draw(part), run.config)

    return units


def refuse_unreadable(run: Run, sites: "xr.Dataset") -> None:
    """Raise ValueError for sites without what the network reads."""
    for start in range(0, sites.sizes["site"], BLOCK):
        block = sites.isel(site=slice(start, start + BLOCK))
        run.features.matrix(block)
        unseen = ~np.isfinite(np.asarray(block.soc)).any(axis=1)
        if run.config.profile and unseen.any():
            raise ValueError(
                f"site {block.site.values[int(np.argmax(unseen))]}: no measured horizon, as at {unseen.sum()} sites. "
                "This network answers from a profile and was never shown a site without one: drop those sites, or "
                'train with loss="elbo" and profile=False'
            )


def default_method(config: Config) -> str:
    """The method for a network trained like this: "amortised" where it answers a distribution, else "mc_dropout"."""
    return "amortised" if config.loss in losses.DISTRIBUTIONS else "mc_dropout"


def refuse_method(config: Config, method: str) -> None:
    """Raise ValueError for an unknown method, or a network that cannot be asked in that way; good before training."""
    if method not in METHODS:
        raise ValueError(f"binn.posterior: method must be one of {tuple(METHODS)}, got {method!r}")
    distribution = config.loss in losses.DISTRIBUTIONS
    if distribution != (method == "amortised"):
        what = "a distribution: ask for" if distribution else "parameters and no distribution: ask for another than"
        raise ValueError(f"binn.posterior: a network trained with loss {config.loss!r} answers {what} 'amortised'")
    if method == "mc_dropout" and config.dropout == 0:
        raise ValueError(
            "binn.posterior: this network was trained with dropout = 0, so that all its Monte Carlo dropout draws are "
            "equal and have no spread; train with a dropout above 0, or use run.predict for a single answer"
        )
    if method == "ensemble" and config.members < 2:
        raise ValueError("binn.posterior: an ensemble needs a run of 2 members or more; train with members=5")
    if method == "laplace" and config.loss != "likelihood":
        raise ValueError(
            f'binn.posterior: "laplace" is for networks trained with loss "likelihood", got {config.loss!r}'
        )


def _mc_dropout(run: Run, draws: int, seed: int, _) -> Callable[..., np.ndarray]:
    """One network per mask; masks are worked off in batches that shrink as sites grow."""
    keys = [jax.random.split(_key(seed, member), draws) for member in range(len(run.weights))]
    graph = nnx.split(run.network())[0]

    def draw(sites) -> np.ndarray:
        x = jnp.asarray(run.inputs(sites))
        batch = int(np.clip(ACTIVATIONS_AT_ONCE // (len(x) * run.config.width), 1, draws))
        members = zip(run.weights, keys, strict=True)
        return np.stack([np.asarray(_masked(*member, x, graph=graph, batch=batch), np.float64) for member in members])

    return draw


@partial(jax.jit, static_argnames=("graph", "batch"))
def _masked(weights, keys, x, *, graph, batch):
    return mc_dropout(nnx.merge(graph, weights), x, keys, batch=batch)


def _ensemble(run: Run, *_) -> Callable[..., np.ndarray]:
    return lambda sites: run.answers(run.inputs(sites))[None]


def _laplace(run: Run, draws: int, seed: int, training_sites) -> Callable[..., np.ndarray]:
    chosen = np.flatnonzero(run.labels(training_sites) == "train")
    wanted = int((run.split.label == "train").sum())
    if len(chosen) < wanted:
        raise ValueError(
            f'binn.posterior: "laplace" needs all {wanted} training sites, and finds {len(chosen)} of them here; give '
            "the data set of the training as training_sites"
        )

    def training() -> Iterator[Data]:
        for start in range(0, wanted, laplace.BLOCK):
            part = training_sites.isel(site=chosen[start : start + laplace.BLOCK])
            yield read_data(part.compute(), run.features)

    networks = [run.network(member) for member in range(len(run.weights))]
    posteriors = laplace.head_posteriors(networks, training(), run.config)
    heads = [found.draw(_key(seed, member), draws) for member, found in enumerate(posteriors)]

    def draw(sites) -> np.ndarray:
        x = jnp.asarray(run.inputs(sites))
        members = zip(networks, heads, strict=True)
        return np.stack([laplace.units_of_heads(net, laplace.with_bias(net, x), drawn) for net, drawn in members])

    return draw


def _amortised(run: Run, draws: int, seed: int, _) -> Callable[..., np.ndarray]:
    def draw(sites) -> np.ndarray:
        x = jnp.asarray(run.inputs(sites))
        found = np.empty((len(run.weights), draws, len(x), len(run.config.parameters)))
        for member in range(len(run.weights)):
            network = run.network(member)
            assert isinstance(network, PosteriorNetwork)  # by its loss
            mean, factor = network.gaussian(x)
            keys = _site_keys(_key(seed, member), sites.site.values)
            for number in range(draws):
                found[member, number] = _answer(mean, factor, keys, np.uint32(number))
        return found

    return draw


def _site_keys(key, names: np.ndarray):
    """A key per site, made of its id: noise is the same whichever sites it is drawn with."""
    digests = b"".join(hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in names)
    words = np.frombuffer(digests, "<u4").reshape(-1, 2)
    return jax.vmap(lambda pair: jax.random.fold_in(jax.random.fold_in(key, pair[0]), pair[1]))(words)


@jax.jit
def _answer(mean, factor, keys, number):
    one = lambda key: jax.random.normal(jax.random.fold_in(key, number), mean.shape[1:], jnp.float32)  # noqa: E731
    return unit_of_score((mean + jnp.einsum("sij,sj->si", factor, jax.vmap(one)(keys))).astype(jnp.float64))


def _key(seed: int, member: int):
    return jax.random.fold_in(jax.random.key(seed), member)


METHODS = {
    "mc_dropout": Method(_mc_dropout, "an independently trained network", "a dropout mask, shared by all sites"),
    "ensemble": Method(_ensemble, "one ensemble", "an independently trained network, without dropout"),
    "laplace": Method(_laplace, "an independently trained network", "a head of it, shared by all sites"),
    "amortised": Method(_amortised, "an independently trained network", "a draw of its answer at every site by itself"),
}
