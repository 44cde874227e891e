"""Which covariates a trained network uses: permutation importance of groups of covariates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

import clm5
from binn.features import Features
from binn.losses import log_soc_errors
from binn.objective import all_parameters
from binn.run import Run
from binn.skill import nash_sutcliffe

if TYPE_CHECKING:
    import xarray as xr

PLACE = "longitude and latitude"  # stands for the waves of `Config.coordinates`
LABELLED = ("train", "validation", "test", "new", "all")
AT_ONCE = 4096  # columns per block of the solver


def permutation_importance(
    run: Run,
    sites: "xr.Dataset",
    groups: Mapping[str, Sequence[str]] | None = None,
    repeats: int = 5,
    *,
    seed: int = 0,
    label: str = "test",
) -> pd.DataFrame:
    """What the network's answers lose when a group of covariates is shuffled over the sites.

    All covariates of a group move together, by one permutation: a site gets the group's values of another site. Every
    group gets the same permutations. Forcing stays: only what the network reads is shuffled. Covariates that say the
    same stand in for each other where they are in different groups; put them into one. The network is that of
    `run.predict`, without dropout.

    Args:
        run: a trained network.
        sites: a site data set with measured horizons and the covariates of the run.
        groups: name → covariates, each in one group; covariates in none stay as they are. The waves of
            `Config.coordinates` are called "longitude and latitude". Default: the covariates of one attrs["group"]
            together, every other by itself.
        repeats: permutations of every group.
        seed: of the permutations.
        label: the sites that are shuffled and judged: "train", "validation", "test", "new" or "all".

    Returns:
        Index: groups, the most important first. Columns: `covariates` (how many); `nse_drop` and `nse_drop_sd`, by how
        much NSE of ln SOC falls, mean and sd over repeats; `change`, mean absolute change of the unit parameters, over
        sites, repeats and free parameters; and one such column per parameter, 0 where it is held.
        `attrs`: `nse` (of the untouched covariates), `label`, `sites`, `repeats`, `seed`.

    Raises:
        ValueError: an unknown label or group member, a covariate in two groups, fewer than two sites of the label, no
            measured horizon among them, or a covariate that `Features.matrix` refuses.

    Source:
        Breiman (2001), Machine Learning 45, 5; in groups: Au et al. (2022), Data Min. Knowl. Disc. 36, 1401.
    """
    if label not in LABELLED:
        raise ValueError(f"permutation_importance: label must be one of {LABELLED}, got {label!r}")
    if repeats < 1:
        raise ValueError(f"permutation_importance: repeats must be 1 or more, got {repeats!r}")
    columns = group_columns(run.features, sites, groups)
    chosen = chosen_sites(run, sites, label)
    if chosen.sum() < 2:
        raise ValueError(
            f"permutation_importance: shuffling needs 2 sites or more, {chosen.sum()} of {len(chosen)} are labelled "
            f"{label!r} in this run; give another label (one of {LABELLED})"
        )
    sites = sites.isel(site=np.flatnonzero(chosen))
    x, answer, skill = run.inputs(sites), answers(run), _skill(run, sites)
    before = answer(x)
    nse = skill(before)
    if not np.isfinite(nse):
        raise ValueError(
            f"permutation_importance: the {len(x)} {label!r} sites have no measured horizons, or all of one value: NSE "
            "is not defined; give sites with observations"
        )
    orders = [np.random.default_rng([seed, repeat]).permutation(len(x)) for repeat in range(repeats)]
    rows = {}
    for name, group in columns.items():
        drops, change = [], np.zeros(len(clm5.NAMES))
        for order in orders:
            after = answer(shuffled(x, group, order))
            drops.append(nse - skill(after))
            change += np.abs(after - before).mean(axis=0) / repeats
        free = [clm5.NAMES.index(parameter) for parameter in run.config.parameters]
        rows[name] = {
            "covariates": len(_members(run.features, group)),
            "nse_drop": float(np.mean(drops)),
            "nse_drop_sd": float(np.std(drops, ddof=1)) if repeats > 1 else np.nan,
            "change": float(change[free].mean()),
            **dict(zip(clm5.NAMES, change.tolist(), strict=True)),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("group")
    table = table.sort_values(["nse_drop", "change"], ascending=False, kind="stable")
    table.attrs = {"nse": nse, "label": label, "sites": len(x), "repeats": repeats, "seed": seed}
    return table


def shuffled(
    x: Float[np.ndarray, "site covariate"], group: Int[np.ndarray, " column"], order: Int[np.ndarray, " site"]
) -> Float[np.ndarray, "site covariate"]:
    """`x` with the columns of `group` taken from the sites in `order`, together."""
    moved = x.copy()
    moved[:, group] = x[np.ix_(order, group)]
    return moved


def answers(run: Run) -> Callable[[Float[np.ndarray, "site covariate"]], Float[np.ndarray, "site 21"]]:
    """`run.predict` for feature matrices."""
    return lambda x: all_parameters(run.answers(x), run.config).mean(axis=0)


def simulated(
    unit: Float[np.ndarray, "site 21"], forcing: clm5.Forcing, options: clm5.ModelOptions
) -> Float[np.ndarray, "site layer"]:
    """SOC at unit parameters, gC m⁻³, float64, in blocks of bounded size."""
    space = options.space
    theta = space.lower + unit * (space.upper - space.lower)
    return np.concatenate([soc for _, soc in clm5.stream(theta, forcing, options.rules, block=AT_ONCE)])


def forcing_of(sites: "xr.Dataset") -> clm5.Forcing:
    """Forcing in float64, with NumPy leaves: `stream` takes slices of them."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, clm5.Forcing.from_sites(sites, dtype=jnp.float64))


def chosen_sites(run: Run, sites: "xr.Dataset", label: str) -> Bool[np.ndarray, " site"]:
    """Mask of the sites with this label in the run, or of all."""
    labels = run.labels(sites)
    return np.ones(len(labels), dtype=bool) if label == "all" else labels == label


def spans(features: Features) -> Iterator[tuple[str, slice]]:
    """Name of every covariate, and the columns of the matrix that it fills; the waves of the place come last."""
    start = 0
    for covariate in features.covariates:
        stop = start + len(covariate.columns)
        yield covariate.name, slice(start, stop)
        start = stop
    if features.coordinates is not None:
        yield PLACE, slice(start, start + len(features.coordinates.columns))


def group_columns(
    features: Features, sites: "xr.Dataset", groups: Mapping[str, Sequence[str]] | None
) -> dict[str, Int[np.ndarray, " column"]]:
    """Group → columns of the matrix; see `permutation_importance` for the groups."""
    columns = {name: np.arange(span.start, span.stop) for name, span in spans(features)}
    if groups is None:
        made: dict[str, list[str]] = {}
        for name in columns:
            group = str(sites[name].attrs.get("group", "")) if name in sites else ""
            made.setdefault(group or name, []).append(name)
        groups = made
    seen: dict[str, str] = {}
    for group, members in groups.items():
        if isinstance(members, str) or not len(members):
            raise ValueError(f"groups: {group!r} must be a list of covariates, at least one, got {members!r}")
        for name in members:
            if name not in columns:
                raise ValueError(
                    f"groups: {group!r} names {name!r}, which this network does not read; it reads {', '.join(columns)}"
                )
            if name in seen:
                raise ValueError(f"groups: {name} is in {seen[name]!r} and again in {group!r}; leave one of the two")
            seen[name] = group
    return {group: np.concatenate([columns[name] for name in members]) for group, members in groups.items()}


def _members(features: Features, group: np.ndarray) -> list[str]:
    return [name for name, span in spans(features) if span.start in group]


def _skill(run: Run, sites: "xr.Dataset") -> Callable[[np.ndarray], float]:
    """Unit parameters of `sites` → NSE of ln SOC over all their horizons, as in `Run.skill`."""
    forcing, options = forcing_of(sites), run.config.model
    with jax.enable_x64(True):
        observations = clm5.Observations.from_sites(sites)

    def skill(unit: np.ndarray) -> float:
        soc = simulated(unit, forcing, options)
        with jax.enable_x64(True):
            error, observed = map(np.asarray, log_soc_errors(jnp.asarray(soc), observations, options))
        seen = np.isfinite(observed)
        if not seen.any() or np.ptp(observed[seen]) == 0:
            return np.nan
        return float(nash_sutcliffe(error[seen], observed[seen]))

    return skill
