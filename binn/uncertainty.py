"""The network's spread as a posterior file: Monte Carlo dropout."""

import time
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import clm5
from binn import losses
from binn.network import mc_dropout
from binn.objective import all_parameters
from binn.run import Run

if TYPE_CHECKING:
    import xarray as xr

METHODS = ("mc_dropout",)
# choices of the training, as attributes of the file
RECORDED = ("loss", "split", "split_seed", "folds", "fold", "dropout", "weight_decay", "members", "width", "depth")
ACTIVATIONS_AT_ONCE = 2**24  # numbers in a hidden layer over sites and draws, float32: 64 MB a layer


def posterior(
    run: Run, sites: "xr.Dataset", draws: int = 400, method: str = "mc_dropout", *, seed: int = 0
) -> "xr.DataTree":
    """Draws of the parameters at every site, and what the column makes of them, as a posterior file.

    "mc_dropout": `chain` is an independently trained member, `draw` a dropout mask shared by all sites, so that one
    draw is one network and a map of it is coherent. R-hat between members is not convergence; draws are independent.
    The spread is that of the network under dropout, at the rate that was chosen: it is set beside a Bayesian posterior
    to be judged, it is not one. Source: Gal & Ghahramani (2016), arXiv 1506.02142.

    `sites` may hold other sites than the run, with the same covariates, measured or not; `constant_data.split` tells
    which were "train", "validation", "test" or "new". The attributes repeat the choices of the training. Wall time is
    training and drawing, compilation included. `n_solves` and `n_gradients` are those of the training alone (validation
    included); the columns that carry the draws to carbon are `n_solves_of_draws`, draws × members × sites.

    Raises ValueError for an unknown method, fewer than two draws, or a network trained without dropout.
    """
    if method not in METHODS:
        raise ValueError(f"binn.posterior: method must be one of {METHODS}, got {method!r}")
    if draws < 2:
        raise ValueError(f"binn.posterior: a spread needs 2 draws or more, got {draws!r}")
    if run.config.dropout == 0:
        raise ValueError(
            "binn.posterior: this network was trained with dropout = 0, so that all its Monte Carlo dropout draws are "
            "equal and have no spread; train with a dropout above 0, or use run.predict for a single answer"
        )
    clm5.sites.check(sites, observations=False)
    labels = run.labels(sites)
    began = time.perf_counter()
    unit = draw_units(run, sites, draws, seed=seed)
    drawing = time.perf_counter() - began
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
        attrs={
            "chain_is": "an independently trained network",
            "draw_is": "a dropout mask, shared by all sites",
            "training_wall_time_s": run.wall_time,
            "training_seed": run.seed,
            "training_sites_fingerprint": run.sites_fingerprint,
            "best_epoch": ",".join(map(str, run.best_epoch)),
            "prior_in_loss": "yes" if run.config.loss in losses.WITH_PRIOR else "no",
            "n_solves_is": "columns solved in training, validation included",
            "n_solves_of_draws": int(np.prod(unit.shape[:3])),
        }
        | {name: getattr(run.config, name) for name in RECORDED},
    )


def draw_units(run: Run, sites: "xr.Dataset", draws: int, *, seed: int = 0) -> np.ndarray:
    """Unit parameters under `draws` dropout masks per member: (chain, draw, site, 21), float64, in (0, 1).

    Memory beyond the answer stays bounded: masks are worked off in batches that shrink as sites grow.
    """
    x = run.features.matrix(sites)
    batch = int(np.clip(ACTIVATIONS_AT_ONCE // (len(x) * run.config.width), 1, draws))
    chains = []
    with jax.enable_x64(True):  # as in training; the network's arrays stay float32
        for member, weights in enumerate(run.weights):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), member), draws)
            graph = nnx.split(run.network(member))[0]
            chains.append(np.asarray(_draw(weights, jnp.asarray(x), keys, graph=graph, batch=batch), dtype=np.float64))
    return all_parameters(np.stack(chains), run.config)


@partial(jax.jit, static_argnames=("graph", "batch"))
def _draw(weights, x, keys, *, graph, batch):
    return mc_dropout(nnx.merge(graph, weights), x, keys, batch=batch)
