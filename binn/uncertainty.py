"""The network's uncertainty as a posterior file: four ways to say how sure it is, to be judged by the same reports."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

import clm5
from binn import laplace, losses
from binn.config import Config
from binn.network import PosteriorNetwork, mc_dropout, unit_of_score
from binn.objective import all_parameters, read_data
from binn.run import Run

if TYPE_CHECKING:
    import xarray as xr

# choices of the training, as attributes of the file
RECORDED = ("loss", "split", "split_seed", "folds", "fold", "dropout", "weight_decay", "members", "width", "depth")
ACTIVATIONS_AT_ONCE = 2**24  # numbers in a hidden layer over sites and draws, float32: 64 MB a layer


class Method(NamedTuple):
    """A way to draw unit parameters, and what its chains and draws are."""

    draw: Callable[..., np.ndarray]  # (run, sites, draws, seed, training_sites) → (chain, draw, site, free)
    chain_is: str
    draw_is: str


def posterior(
    run: Run,
    sites: "xr.Dataset",
    draws: int = 400,
    method: str = "mc_dropout",
    *,
    seed: int = 0,
    training_sites: "xr.Dataset | None" = None,
) -> "xr.DataTree":
    """Draws of the parameters at every site, and what the column makes of them, as a posterior file.

    "mc_dropout": `chain` is an independently trained member, `draw` a dropout mask shared by all sites, so that one
    draw is one network and a map of it is coherent. With several members it is an ensemble of MC dropout. Source: Gal &
    Ghahramani (2016), arXiv 1506.02142.
    "ensemble": one chain, whose draws are the members without dropout; `draws` is not used. Source: Lakshminarayanan
    et al. (2017), arXiv 1612.01474.
    "laplace": `chain` is a member, `draw` a head from the Gaussian around the trained one, see `binn.laplace`; needs
    the training sites, in `sites` or as `training_sites`.
    "amortised": for a network trained with loss "elbo" or "simulation"; draws of the distribution that it answers, at
    every site by itself.

    R-hat between members is not convergence; draws are independent. The first three tell how the network varies, not
    what one profile leaves open: they are set beside a Bayesian posterior to be judged, they are not one.

    `sites` may hold other sites than the run, with the same covariates, measured or not; `constant_data.split` tells
    which were "train", "validation", "test" or "new". The attributes repeat the choices of the training. Wall time is
    training and drawing, compilation included. `n_solves` and `n_gradients` are those of the training alone (validation
    included); the columns that carry the draws to carbon are `n_solves_of_draws`, draws × members × sites.

    Raises ValueError for an unknown method, fewer than two draws, or a network that cannot be asked in that way.
    """
    refuse_method(run.config, method)
    if draws < 2:
        raise ValueError(f"binn.posterior: a spread needs 2 draws or more, got {draws!r}")
    clm5.sites.check(sites, observations=False)
    labels = run.labels(sites)
    began = time.perf_counter()
    unit = draw_units(run, sites, draws, method, seed=seed, training_sites=training_sites)
    drawing = time.perf_counter() - began
    attrs: dict[str, Any] = {
        "chain_is": METHODS[method].chain_is,
        "draw_is": METHODS[method].draw_is,
        "draws_are": "independent",
        "training_wall_time_s": run.wall_time,
        "training_seed": run.seed,
        "training_sites_fingerprint": run.sites_fingerprint,
        "best_epoch": ",".join(map(str, run.best_epoch)),
        "reads_profile": "yes" if run.config.profile else "no",
        "prior_in_loss": "yes" if run.config.loss in losses.WITH_PRIOR else "no",
        "n_solves_is": "columns solved in training, validation included",
        "n_solves_of_draws": int(np.prod(unit.shape[:3])),
    }
    attrs |= {name: getattr(run.config, name) for name in RECORDED}
    if run.config.learn_dropout:
        attrs["dropout"] = ",".join(f"{rate:.3g}" for rate in run.dropout_rates().ravel())
    return clm5.assemble_posterior(
        unit,
        sites,
        run.config.model,
        method=method,
        seed=seed,
        wall_time=run.wall_time + drawing,
        n_solves=run.n_solves,
        n_gradients=run.n_gradients,
        constant={"split": (("site",), labels)},
        attrs=attrs,
    )


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
    with jax.enable_x64(True):  # as in training; the network's arrays stay float32
        return all_parameters(METHODS[method].draw(run, sites, draws, seed, training_sites), run.config)


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


def _mc_dropout(run: Run, sites, draws: int, seed: int, _) -> np.ndarray:
    """One network per mask; masks are worked off in batches that shrink as sites grow."""
    x = jnp.asarray(run.inputs(sites))
    batch = int(np.clip(ACTIVATIONS_AT_ONCE // (len(x) * run.config.width), 1, draws))
    chains = []
    for member, weights in enumerate(run.weights):
        keys = jax.random.split(_key(seed, member), draws)
        graph = nnx.split(run.network(member))[0]
        chains.append(np.asarray(_masked(weights, x, keys, graph=graph, batch=batch), dtype=np.float64))
    return np.stack(chains)


@partial(jax.jit, static_argnames=("graph", "batch"))
def _masked(weights, x, keys, *, graph, batch):
    return mc_dropout(nnx.merge(graph, weights), x, keys, batch=batch)


def _ensemble(run: Run, sites, *_) -> np.ndarray:
    return run.answers(run.inputs(sites))[None]


def _laplace(run: Run, sites, draws: int, seed: int, training_sites) -> np.ndarray:
    given = sites if training_sites is None else training_sites
    chosen = np.flatnonzero(run.labels(given) == "train")
    wanted = int((run.split.label == "train").sum())
    if len(chosen) < wanted:
        raise ValueError(
            f'binn.posterior: "laplace" needs all {wanted} training sites, and finds {len(chosen)} of them here; give '
            "the data set of the training as training_sites"
        )
    data = read_data(given.isel(site=chosen), run.features)
    here = jnp.asarray(run.inputs(sites))
    chains = []
    for member in range(len(run.weights)):
        network = run.network(member)
        heads = laplace.head_posterior(network, data, run.config).draw(_key(seed, member), draws)
        chains.append(laplace.units_of_heads(network, laplace.with_bias(network, here), heads))
    return np.stack(chains)


def _amortised(run: Run, sites, draws: int, seed: int, _) -> np.ndarray:
    if run.config.profile:
        unseen = ~np.isfinite(np.asarray(sites.soc)).any(axis=1)
        if unseen.any():
            raise ValueError(
                f"site {sites.site.values[int(np.argmax(unseen))]}: no measured horizon, as at {unseen.sum()} sites. "
                "This network answers from a profile and was never shown a site without one: drop those sites, or "
                'train with loss="elbo" and profile=False'
            )
    x = jnp.asarray(run.inputs(sites))
    found = np.empty((len(run.weights), draws, len(x), len(run.config.parameters)))
    for member in range(len(run.weights)):
        network = run.network(member)
        assert isinstance(network, PosteriorNetwork)  # by its loss
        mean, factor = network.gaussian(x)
        for draw in range(draws):
            found[member, draw] = _answer(mean, factor, jax.random.fold_in(_key(seed, member), draw))
    return found


@jax.jit
def _answer(mean, factor, key):
    noise = jax.random.normal(key, mean.shape, jnp.float32)
    return unit_of_score((mean + jnp.einsum("sij,sj->si", factor, noise)).astype(jnp.float64))


def _key(seed: int, member: int):
    return jax.random.fold_in(jax.random.key(seed), member)


METHODS = {
    "mc_dropout": Method(_mc_dropout, "an independently trained network", "a dropout mask, shared by all sites"),
    "ensemble": Method(_ensemble, "one ensemble", "an independently trained network, without dropout"),
    "laplace": Method(_laplace, "an independently trained network", "a head of it, shared by all sites"),
    "amortised": Method(_amortised, "an independently trained network", "a draw of its answer at every site by itself"),
}
