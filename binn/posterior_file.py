"""The network's posterior file, to be judged by the same reports as the sampler's."""

import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clm5
from binn import losses, parts
from binn.run import BLOCK, Run
from binn.uncertainty import METHODS, prepare, refuse_method, refuse_unreadable

if TYPE_CHECKING:
    import xarray as xr

# choices of the training, as attributes of the file
RECORDED = ("loss", "split", "split_seed", "folds", "fold", "dropout", "weight_decay", "members", "width", "depth")


def posterior(
    run: Run,
    sites: "xr.Dataset",
    draws: int = 400,
    method: str = "mc_dropout",
    *,
    seed: int = 0,
    training_sites: "xr.Dataset | None" = None,
    out: str | Path | None = None,
    batch: int | None = None,
    resume: bool = True,
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

    Args:
        run: a trained network.
        sites: a site data set, in memory or opened with `clm5.sites.open(path, lazy=True)`.
        draws: at every site, per chain.
        method: see above.
        seed: of all draws. A site's draws follow from the seed and, where it is drawn by itself, its id: its company
            and `batch` change them by rounding alone.
        training_sites: for "laplace".
        out: a folder ending in .zarr that is filled a batch of sites at a time (`clm5.PosteriorStore`), for more sites
            than fit in memory; the tree is opened lazily. A killed call that is made again with the same arguments goes
            on after its last batch. Its wall time includes the carrying to carbon.
        batch: sites in memory together, with `out`; default: as many as have about 260,000 draws.
        resume: False refuses an `out` that is there.

    Raises:
        ValueError: an unknown method, fewer than two draws, a network that cannot be asked in that way, sites that it
            cannot read, or an `out` that was begun for something else; what differs is named.
        FileExistsError: `resume` is False and `out` is there.
    """
    refuse_method(run.config, method)
    if draws < 2:
        raise ValueError(f"binn.posterior: a spread needs 2 draws or more, got {draws!r}")
    if batch is not None and (out is None or batch < 1):
        raise ValueError(f"binn.posterior: batch is 1 or more sites of a store named by `out`; got {batch!r}, {out!r}")
    clm5.sites.check(sites, observations=False, block=BLOCK)
    run.labels(sites)
    refuse_unreadable(run, sites)
    chains, per_chain = (1, len(run.weights)) if method == "ensemble" else (len(run.weights), draws)
    prepared = cache(lambda: prepare(run, sites, draws, method, seed, training_sites))  # not for a finished store

    def tree_of(part: "xr.Dataset", before: float = 0.0) -> "xr.DataTree":
        began = time.perf_counter()
        unit = prepared()(part)
        return clm5.assemble_posterior(
            unit,
            part,
            run.config.model,
            method=method,
            seed=seed,
            wall_time=before + time.perf_counter() - began,
            n_solves=run.n_solves,
            n_gradients=run.n_gradients,
            constant={"split": (("site",), run.labels(part))},
            attrs=_attributes(run, method, n_solves_of_draws=chains * per_chain * sites.sizes["site"]),
        )

    if out is None:
        return tree_of(sites.compute(), run.wall_time)
    batch = parts.batch_size(chains * per_chain) if batch is None else batch
    asked = parts.request(run, sites, per_chain, method, seed, training_sites)
    store = parts.open_store(out, sites, batch, asked, resume=resume)
    cost = {"n_solves": run.n_solves, "n_gradients": run.n_gradients}
    attrs = lambda seconds: cost | {"wall_time_s": run.wall_time + seconds}  # noqa: E731
    return parts.fill(store, sites, tree_of, attrs, asked["sites"])


def _attributes(run: Run, method: str, *, n_solves_of_draws: int) -> dict[str, Any]:
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
        "n_solves_of_draws": n_solves_of_draws,
    }
    attrs |= {name: getattr(run.config, name) for name in RECORDED}
    if run.config.learn_dropout:
        attrs["dropout"] = ",".join(f"{rate:.3g}" for rate in run.dropout_rates().ravel())
    return attrs
