"""How a trained network answers when one covariate moves: partial dependence, and how far sites differ in it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import clm5
from binn.features import Categorical, Features, Numeric
from binn.importance import answers, chosen_sites, forcing_of, simulated, spans
from binn.run import Run
from clm5.six_processes import stock_above

if TYPE_CHECKING:
    import xarray as xr

SPREAD = (0.1, 0.9)  # quantiles over sites
_DIMS = ("covariate", "point", "parameter")


def partial_dependence(
    run: Run,
    sites: "xr.Dataset",
    covariates: Sequence[str] | None = None,
    points: int = 20,
    quantiles: tuple[float, float] = (0.05, 0.95),
    *,
    stock_depth: float | None = None,
) -> "xr.Dataset":
    """The network's answers with one covariate set to the same value at all sites, the others as they are.

    A site's answers over the values of a covariate are its curve; the mean over sites is the partial dependence.
    Values are combined with covariates that may never go with them (hot sites with many frozen months): the network
    then answers outside of what it has seen. The network is that of `run.predict`, without dropout.

    Args:
        run: a trained network.
        sites: a site data set with the covariates of the run.
        covariates: names; default all that the network reads. The waves of `Config.coordinates` cannot be set.
        points: values of a numeric covariate, equally spaced between `quantiles` of the run's training sites among
            `sites` (of all sites where there is none; `grid_from` tells). Of a categorical one, every category that was
            seen in training.
        quantiles: ends of that grid.
        stock_depth: simulate soil carbon too, and give the stock to this depth, m. Forcing stays: only the parameters
            follow the covariate.

    Returns:
        Dimensions `covariate`, `point` (padded with NaN), `parameter`. `value` (covariate, point), in `units`
        (covariate); `meaning` (covariate, point), the category; `categorical` (covariate). Of the unit parameters
        (covariate, point, parameter): `unit_mean`, and the 10 % and 90 % quantiles over sites of their curves
        (`unit_low`, `unit_high`) and of these less each site's own mean over the values (`unit_shift_low`,
        `unit_shift_high`), which shows how far sites differ in what the covariate does. `theta_...`: the first three in
        physical units. With `stock_depth`, `stock_mean`, `stock_low`, `stock_high` (covariate, point), gC m⁻².
        `effect` (covariate, parameter): largest − smallest `unit_mean`.

    Raises:
        ValueError: an unknown covariate, fewer than 2 points, quantiles out of order, or a covariate that
            `Features.matrix` refuses.

    Source:
        Friedman (2001), Ann. Statist. 29, 1189; curves of single sites: Goldstein et al. (2015), J. Comput. Graph.
        Stat. 24, 44.
    """
    import xarray as xr

    if points < 2:
        raise ValueError(f"partial_dependence: points must be 2 or more, got {points!r}")
    if not 0 <= quantiles[0] < quantiles[1] <= 1:
        raise ValueError(f"partial_dependence: quantiles must rise within [0, 1], got {quantiles}")
    if stock_depth is not None and not stock_depth > 0:
        raise ValueError(f"partial_dependence: stock_depth must be above 0 m, got {stock_depth!r}")
    chosen = _chosen(run.features, covariates)
    x, answer = run.inputs(sites), answers(run)
    training = chosen_sites(run, sites, "train")
    grids = {c.name: _grid(c, sites, training if training.any() else ~training, points, quantiles) for c in chosen}
    shape = (len(chosen), max(len(grid) for grid in grids.values()), len(clm5.NAMES))
    names = ("unit_mean", "unit_low", "unit_high", "unit_shift_low", "unit_shift_high")
    found = {name: np.full(shape, np.nan) for name in names}
    value, meaning = np.full(shape[:2], np.nan), np.full(shape[:2], "", dtype=object)
    stocks = {name: np.full(shape[:2], np.nan) for name in ("stock_mean", "stock_low", "stock_high")}
    forcing = None if stock_depth is None else forcing_of(sites)
    place = dict(spans(run.features))
    for row, covariate in enumerate(chosen):
        grid = grids[covariate.name]
        value[row, : len(grid)] = grid
        if isinstance(covariate, Categorical):
            meaning[row, : len(grid)] = [word or f"{v:g}" for v, word in zip(grid, covariate.meanings, strict=True)]
        curves = np.empty((len(grid), len(x), shape[2]), dtype=np.float32)  # as the network answers
        moved = x.copy()
        for point, number in enumerate(grid):
            moved[:, place[covariate.name]] = covariate.encode(np.array([number]))
            unit = answer(moved)
            curves[point] = unit
            found["unit_mean"][row, point] = unit.mean(axis=0)
            if forcing is not None and stock_depth is not None:
                soc = simulated(unit, forcing, run.config.model)
                with jax.enable_x64(True):
                    stock = np.asarray(stock_above(jnp.asarray(soc), stock_depth))
                stocks["stock_mean"][row, point] = stock.mean()
                stocks["stock_low"][row, point], stocks["stock_high"][row, point] = np.quantile(stock, SPREAD)
        _spread(found, "unit", row, curves)
        _spread(found, "unit_shift", row, curves - curves.mean(axis=0))

    space = run.config.model.space
    theta = {
        f"theta_{end}": (_DIMS, space.lower + found[f"unit_{end}"] * (space.upper - space.lower))
        for end in ("mean", "low", "high")
    }
    effect = np.nanmax(found["unit_mean"], axis=1) - np.nanmin(found["unit_mean"], axis=1)
    return xr.Dataset(
        {name: (_DIMS, values, {"units": "1"}) for name, values in found.items()}
        | theta
        | ({} if forcing is None else {name: (_DIMS[:2], v, {"units": "gC m-2"}) for name, v in stocks.items()})
        | {"effect": (("covariate", "parameter"), effect, {"units": "1"})},
        {
            "covariate": [covariate.name for covariate in chosen],
            "parameter": list(clm5.NAMES),
            "value": (_DIMS[:2], value),
            "meaning": (_DIMS[:2], meaning.astype(str)),
            "units": ("covariate", [covariate.units for covariate in chosen]),
            "categorical": ("covariate", [isinstance(covariate, Categorical) for covariate in chosen]),
            "parameter_units": ("parameter", [parameter.unit for parameter in clm5.PARAMETERS]),
        },
        {"sites": len(x), "grid_from": f"{training.sum()} training sites" if training.any() else "all sites"}
        | {"grid_quantiles": list(quantiles), "spread_quantiles": list(SPREAD), "bounds": run.config.model.bounds}
        | ({} if stock_depth is None else {"stock_depth_m": float(stock_depth)}),
    )


def _chosen(features: Features, names: Sequence[str] | None) -> list[Numeric | Categorical]:
    known = {covariate.name: covariate for covariate in features.covariates}
    names = list(known) if names is None else list(names)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"partial_dependence: covariates must be of {', '.join(known)}, at least one; got {names}"
            + (f", unknown: {', '.join(unknown)}" if unknown else "")
        )
    return [known[name] for name in dict.fromkeys(names)]


def _grid(covariate, sites, among: np.ndarray, points: int, quantiles) -> Float[np.ndarray, " point"]:
    """Values at which a covariate is set, in its units; one where it does not vary."""
    if isinstance(covariate, Categorical):
        return np.array(covariate.values)
    values = np.asarray(sites[covariate.name].values, dtype=float)[among]
    low, high = (float(np.nanquantile(values, quantile)) for quantile in quantiles)
    return np.array([low]) if low == high else np.linspace(low, high, points)


def _spread(found: dict[str, np.ndarray], name: str, row: int, curves: Float[np.ndarray, "point site 21"]) -> None:
    low, high = np.quantile(curves, SPREAD, axis=1)
    found[f"{name}_low"][row, : len(curves)], found[f"{name}_high"][row, : len(curves)] = low, high
