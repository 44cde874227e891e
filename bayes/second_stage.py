"""PRODA's second stage: a network from covariates to the posterior means of sites, and its parameters at every site."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

import clm5
from bayes.second_stage_network import Ensemble

LOSSES = ("joint", "mse")


@dataclass(frozen=True)
class NetworkConfig:
    """The network of the second stage; defaults as published but for `members` and `learning_rate`.

    widths: units of the hidden layers, ReLU.
    dropout: share of hidden units switched off in training; published: none.
    loss: "joint", as published, the product of 500 · mean squared error and 25 · mean relative error; or "mse".
    learning_rate: of Adadelta.
    batch_size: sites in a step.
    epochs, patience: most passes over the training sites, and passes without a better validation loss after which
        training stops; the best weights are kept.
    validation: share of the training sites that is set aside to stop training.
    members: networks, each trained on a bootstrap sample of the training sites; 1 is trained on the sites themselves.
    """

    widths: tuple[int, ...] = (256, 512, 512, 256)
    dropout: float = 0.0
    loss: str = "joint"
    learning_rate: float = 1.0
    batch_size: int = 32
    epochs: int = 6000
    patience: int = 1200
    validation: float = 0.1
    members: int = 10

    def __post_init__(self):
        for name, value in (("widths", min(self.widths, default=0)), *((n, getattr(self, n)) for n in _COUNTS)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"NetworkConfig: {name} must be whole and at least 1, got {getattr(self, name)!r}")
        if self.loss not in LOSSES:
            raise ValueError(f"NetworkConfig: loss must be one of {LOSSES}, got {self.loss!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"NetworkConfig: dropout must lie in [0, 1), got {self.dropout!r}")
        if not 0 < self.validation < 1:
            raise ValueError(f"NetworkConfig: validation must lie between 0 and 1, got {self.validation!r}")
        if not 0 < self.learning_rate < np.inf:
            raise ValueError(f"NetworkConfig: learning_rate must be positive and finite, got {self.learning_rate!r}")


_COUNTS = ("batch_size", "epochs", "patience", "members")


def second_stage(
    posterior: xr.DataTree,
    sites: xr.Dataset,
    config: NetworkConfig | None = None,
    *,
    training: Sequence[str] | None = None,
    seed: int = 0,
) -> xr.DataTree:
    """Train networks on the posterior means of sites, and give their parameters at every site as a posterior file.

    What the network is given is the mean, in the unit cube, of every parameter that was sampled; as published, not how
    sure the posterior is of it. Others stay where they were held. Covariates are standardised, and categories become a
    column each, by the training sites alone (published: scaled by minimum and maximum of all, category codes as
    numbers). What the network answers is cut to the unit cube.

    Args:
        posterior: posterior file of a sampler, of PRODA or any other.
        sites: where parameters are wanted; holds all sites of `posterior`, with covariates.
        config: default `NetworkConfig()`.
        training: ids of the sites to train on; default all of `posterior`.
        seed: of first weights, bootstrap, validation sites and batches.

    Returns:
        A posterior file with method "proda_network" and one chain: a draw is one network, which answers for all sites.
        The spread of draws is that of training anew, not a posterior. `split` in `constant_data` says "train",
        "validation" (for every member others of the training sites; those of the first are named), "test" (in
        `posterior`, not trained on) or "new". `n_solves` (0) and `wall_time_s` are of the network alone. The model
        options are those of `posterior`.

    Raises:
        ValueError: a site of `posterior` or `training` that `sites` or `posterior` lack, fewer than 10 training sites,
            no covariates, or a covariate that is missing somewhere (named).

    Source: phxtao/PRODA_PUBLIC, SRC_NN (Tao et al. 2020, Front. Big Data 3:17; Tao et al. 2023, Nature 618:981).
    """
    config = NetworkConfig() if config is None else config
    began = time.perf_counter()
    ids = [str(name) for name in sites["site"].values]
    group = posterior["posterior"].dataset
    sampled = [str(name) for name in group["site"].values]
    _require_known("the site data set lacks sites of the posterior", sampled, ids)
    chosen = sampled if training is None else [str(name) for name in training]
    _require_known("training names sites that the posterior lacks", chosen, sampled)
    if len(set(chosen)) < 10:
        raise ValueError(f"second_stage: at least 10 training sites are needed, got {len(set(chosen))}")
    is_trained = np.isin(ids, chosen)
    unit = group["unit"].transpose("chain", "draw", "site", "parameter").values
    rows = {name: place for place, name in enumerate(sampled)}
    means = unit.mean(axis=(0, 1), dtype=float)[[rows[name] for name in np.array(ids)[is_trained]]]
    moves = np.ptp(unit, axis=(0, 1, 2)) > 0
    x = covariate_matrix(sites, is_trained)
    with jax.enable_x64(False):
        ensemble = Ensemble(config, x.shape[1], int(moves.sum()))
        answers, set_aside = ensemble.fit(x[is_trained], means[:, moves].astype(np.float32), x, seed)
    drawn = np.broadcast_to(means.mean(axis=0), (1, config.members, len(ids), len(clm5.NAMES))).copy()
    drawn[0][..., moves] = np.clip(answers, 0.0, 1.0)
    return clm5.assemble_posterior(
        np.clip(drawn, 0.0, 1.0),
        sites,
        clm5.ModelOptions.from_attributes(posterior.attrs, "second_stage: the posterior file"),
        method="proda_network",
        seed=seed,
        wall_time=time.perf_counter() - began,
        n_solves=0,
        n_gradients=0,
        constant={"split": (("site",), _split(ids, is_trained, sampled, set_aside))},
        attrs={
            "draws_are": "independent",
            "chain_is": "the only one",
            "draw_is": "a network trained on a bootstrap sample of sites" if config.members > 1 else "the network",
            "members": config.members,
            "widths": ",".join(map(str, config.widths)),
            "loss": config.loss,
            "first_stage": str(posterior.attrs.get("method", "unknown")),
        },
    )


def covariate_matrix(sites: xr.Dataset, training: Bool[np.ndarray, " site"]) -> Float[np.ndarray, "site column"]:
    """Covariates as columns, float32: (value − mean) / sd of the training sites, and a column per category seen there.

    A number that is constant over the training sites is 0; a category that they do not have is 0 in all its columns.
    """
    names = clm5.sites.covariate_names(sites)
    if not names:
        raise ValueError('second_stage: the site data set has no covariates (attrs["role"] == "covariate")')
    columns = []
    for name in names:
        values = np.asarray(sites[name].values, float)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ValueError(
                f"site {sites.site.values[bad[0]]}: covariate {name} is {values[bad[0]]}, as at {bad.size} of "
                f"{values.size} sites; the network needs a finite number. Fill the gap, or drop the site or covariate"
            )
        seen = values[training]
        if "flag_values" in sites[name].attrs:
            columns += [values == value for value in np.unique(seen)]
        else:
            columns.append((values - seen.mean()) / seen.std() if np.ptp(seen) > 0 else np.zeros_like(values))
    return np.stack(columns, axis=1).astype(np.float32)


def _split(
    ids: list[str], training: Bool[np.ndarray, " site"], sampled: list[str], set_aside: Int[np.ndarray, " n"]
) -> np.ndarray:
    labels = np.where(np.isin(ids, sampled), "test", "new").astype(object)
    labels[training] = "train"
    labels[np.flatnonzero(training)[set_aside]] = "validation"
    return labels.astype(str)


def _require_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"second_stage: {what}: {', '.join(unknown[:5])}{', …' * (len(unknown) > 5)}")
