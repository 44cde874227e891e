"""What a network through the column has to beat: the same sites, split and skill for four simpler ways."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.optimize import minimize

import clm5
from binn.config import Config
from binn.losses import log_soc_errors, mean_over_horizons
from binn.network import EDGE
from binn.objective import Data, all_parameters, read_data, site_losses
from binn.plain import fit_plain
from binn.run import Run
from binn.skill import skill_table

if TYPE_CHECKING:
    import xarray as xr

METHODS = {
    "binn": "the network through the column",
    "network without column": "a network without the column",
    "ridge": "ridge regression",
    "constant": "one parameter vector for all sites",
    "defaults": "CLM5's default parameters",
}
PENALTIES = np.logspace(-4, 5, 37)  # of ridge regression, per training horizon's unit variance
NEAR = 0.05  # m: depth enters as ln(depth + this)


@dataclass(frozen=True)
class Horizons:
    """Measured horizons of all sites as rows, for methods without a column.

    x: covariates, depth; matrix columns of the features, then ln(depth + 0.05 m) and depth, standardised on training
    rows. y: ln SOC, SOC in gC m⁻³.
    """

    x: Float[np.ndarray, "row feature"]
    y: Float[np.ndarray, " row"]
    label: np.ndarray  # (row,) of str
    at: tuple[np.ndarray, np.ndarray]  # site and horizon of each row
    shape: tuple[int, int]

    def table(self, answer: Float[np.ndarray, " row"]) -> Float[np.ndarray, "site horizon"]:
        """Answers as (site, horizon), NaN where nothing was measured."""
        filled = np.full(self.shape, np.nan)
        filled[self.at] = answer
        return filled


def baselines(run: Run, sites: "xr.Dataset", *, seed: int = 0) -> pd.DataFrame:
    """Skill of a trained network and of four simpler ways on its own split, one row per (method, label).

    - "binn": the run itself, without dropout;
    - "network without column": covariates and depth → ln SOC, as wide, deep and long trained as the run;
    - "ridge": ridge regression of ln SOC on covariates, depth, ln depth and their products;
    - "constant": one vector of the run's free parameters for all sites, by the run's loss through the column;
    - "defaults": CLM5's values (`Config.held_unit`) for all 21 parameters, nothing fitted.

    All are fitted on training sites; validation sites choose the ridge penalty, the epoch of the network and the start
    of the constant vector. Test sites, and sites the run did not know ("new"), are only judged.

    Args:
        run: a trained run.
        sites: a measured site data set, that of the run or another with the same covariates; it must hold training
            and validation sites of the run.
        seed: of the network without column.

    Returns:
        Columns: method, label, then those of `binn.skill_table`: sites, horizons, nse and bias of ln SOC, distance.

    Raises:
        ValueError: no training or validation site of the run among `sites`.
    """
    clm5.sites.check(sites)
    labels = run.labels(sites)
    for label in ("train", "validation"):
        if not np.any(labels == label):
            raise ValueError(
                f"binn.baselines: baselines are fitted on the run's own split, and none of the {labels.size} sites is "
                f'one of its "{label}" sites; give the data set that the run was trained on'
            )
    distance = run.split.distance.reindex(np.asarray(sites.site.values, dtype=str)).to_numpy(float)
    with jax.enable_x64(True):
        data = jax.tree.map(jnp.asarray, read_data(sites, run.features))
        observed = np.asarray(log_soc_errors(jnp.ones((labels.size, 20)), data.observations, run.config.model)[1])
    rows = horizon_rows(data, observed, labels)
    unit = {
        "binn": run.predict(sites),
        "constant": np.tile(fit_constant(data, labels, run.config), (labels.size, 1)),
        "defaults": np.tile(Config(model=run.config.model).held_unit(), (labels.size, 1)),
    }
    errors = {name: column_error(values, data, run.config) for name, values in unit.items()}
    errors["ridge"] = rows.table(fit_ridge(rows)[0] - rows.y)
    errors["network without column"] = rows.table(fit_plain(rows.x, rows.y, rows.label, run.config, seed) - rows.y)
    tables = [
        skill_table(errors[name], observed, labels, distance).rename_axis("label").reset_index().assign(method=name)
        for name in METHODS
    ]
    whole = pd.concat(tables, ignore_index=True)
    return whole[["method", *(name for name in whole if name != "method")]]


def not_beaten(table: pd.DataFrame, labels: tuple[str, ...] = ("test", "new")) -> list[str]:
    """Sentences that say which baselines the network does not beat at unseen sites, by NSE; one that says it beats all.

    `table` is that of `baselines`; equal NSE counts as not beaten, as does an NSE that is not a number.
    """
    sentences = []
    for label in labels:
        nse = table[table.label == label].set_index("method").nse
        if "binn" not in nse:
            continue
        others = nse.drop("binn")
        for name, other in others[~(others < nse["binn"])].items():
            sentences.append(
                f"the network does not beat {METHODS[str(name)]} at {label} sites (NSE {_two(nse['binn'], other)})"
            )
        if (others < nse["binn"]).all():
            best = others.idxmax()
            sentences.append(
                f"the network beats every baseline at {label} sites (NSE {_two(nse['binn'], others[best])} of "
                f"{METHODS[str(best)]})"
            )
    return sentences


def horizon_rows(data: Data, observed: Float[np.ndarray, "site horizon"], labels: np.ndarray) -> Horizons:
    """Measured horizons as rows; depth is that of a horizon's middle, m."""
    site, horizon = np.nonzero(np.isfinite(observed))
    at = (site, horizon)
    depth = 0.5 * (np.asarray(data.observations.upper, float) + np.asarray(data.observations.lower, float))[at]
    label = labels[at[0]]
    depths = np.column_stack([np.log(depth + NEAR), depth])
    train = depths[label == "train"]
    depths = (depths - train.mean(axis=0)) / np.maximum(train.std(axis=0), 1e-9)
    x = np.concatenate([np.asarray(data.x, float)[at[0]], depths], axis=1)
    return Horizons(x, observed[at], label, at, observed.shape)


def column_error(unit: Float[np.ndarray, "site 21"], data: Data, config: Config) -> Float[np.ndarray, "site horizon"]:
    """ln(modelled) − ln(observed) of the column at these unit parameters."""
    with jax.enable_x64(True):
        theta = config.model.space.physical(jnp.asarray(unit))
        soc = clm5.simulate(theta, data.forcing, rules=config.model.rules).soc
        return np.asarray(log_soc_errors(soc, data.observations, config.model)[0])


def fit_constant(data: Data, labels: np.ndarray, config: Config) -> Float[np.ndarray, "21"]:
    """The one unit vector that fits all training sites best, by the run's loss through the column (L-BFGS-B).

    From CLM5's values and from the middle of the box; the validation sites choose between the two ends.
    """
    free = [clm5.NAMES.index(name) for name in config.parameters]
    bounds = [(EDGE, 1 - EDGE)] * len(free)
    with jax.enable_x64(True):
        train, validation = (data.select(jnp.asarray(np.flatnonzero(labels == x))) for x in ("train", "validation"))

        @jax.jit
        def loss(part: Data, vector):
            unit = jnp.tile(vector, (part.x.shape[0], 1))
            total, count, _ = site_losses(unit, part, config)
            return mean_over_horizons(total, count)

        slope = jax.jit(jax.value_and_grad(loss, argnums=1))

        def target(vector):
            value, gradient = slope(train, jnp.asarray(vector))
            return float(value), np.asarray(gradient, float)

        starts = (config.held_unit()[free], np.full(len(free), 0.5))
        clipped = [np.clip(start, 0.02, 0.98) for start in starts]
        ends = [minimize(target, start, jac=True, method="L-BFGS-B", bounds=bounds).x for start in clipped]
        best = min(ends, key=lambda vector: float(loss(validation, jnp.asarray(vector))))
    return np.asarray(all_parameters(best[None], config))[0]


def fit_ridge(rows: Horizons) -> tuple[Float[np.ndarray, " row"], float]:
    """Answers of ridge regression (ln SOC), and the penalty that the validation horizons chose.

    Features: covariates, ln depth, depth, and every covariate times each of the two. min ‖y − Xb‖² + α ‖b‖² on the
    standardised training rows, intercept free. Source: Hoerl and Kennard (1970), Technometrics 12, 55.
    """
    covariates, depths = rows.x[:, :-2], rows.x[:, -2:]
    x = np.concatenate([rows.x, *(covariates * depths[:, [i]] for i in range(2))], axis=1)
    train, validation = (rows.label == name for name in ("train", "validation"))
    spread = x[train].std(axis=0)
    x = (x - x[train].mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0) * (spread > 1e-9)
    middle = rows.y[train].mean()
    left, values, right = np.linalg.svd(x[train], full_matrices=False)
    told = left.T @ (rows.y[train] - middle)

    def answer(penalty: float) -> np.ndarray:
        return middle + x @ (right.T @ (values / (values**2 + penalty) * told))

    def missed(penalty: float) -> float:
        return float(np.mean((answer(penalty) - rows.y)[validation] ** 2))

    best = float(min(PENALTIES, key=missed))
    return answer(best), best


def _two(ours: float, other: float) -> str:
    """The two numbers with as many digits, two to four, as tell them apart; two where they are equal."""
    shown = [(f"{ours:.{digits}f}", f"{other:.{digits}f}") for digits in (2, 3, 4)]
    return " against ".join(next((pair for pair in shown if pair[0] != pair[1]), shown[0]))
