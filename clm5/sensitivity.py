"""Which parameters decide soil carbon: Sobol indices of the carbon stocks over the parameter box, by SALib."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from clm5.forcing import Forcing
from clm5.options import ModelOptions
from clm5.parameters import INDEX, NAMES, PARAMETERS, chosen
from clm5.six_processes import stock_above
from clm5.streaming import stream

if TYPE_CHECKING:
    import xarray as xr

DEPTHS = (0.3, 1.0, 2.0)  # m
SCALES: dict[str, Callable] = {"ln": np.log, "raw": np.asarray}
AT_ONCE = 16384  # columns per block of the solver
# of SOC, over the contiguous US; all others below 0.021. Source: Xu et al. (2025), BINN
PUBLISHED = {"w_scaling": 0.486, "tau4s3": 0.128, "fs1s3": 0.085, "efolding": 0.026, "fl2s1": 0.024, "q10": 0.023}
_DIMS = ("site", "scale", "depth", "parameter")


class Indices(NamedTuple):
    """Sobol indices of one output, and the same of bootstrap resamples of the sample's rows."""

    first: Float[np.ndarray, " parameter"]
    total: Float[np.ndarray, " parameter"]
    first_draws: Float[np.ndarray, "resample parameter"]
    total_draws: Float[np.ndarray, "resample parameter"]


def sobol(
    columns: "Forcing | xr.Dataset",
    options: ModelOptions | None = None,
    parameters: str | Sequence[str] = "all",
    samples: int = 1024,
    *,
    depths: Sequence[float] = DEPTHS,
    scales: Sequence[str] = ("ln",),
    held: Float[np.ndarray, " 21"] | None = None,
    resamples: int = 100,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> "xr.Dataset":
    """First-order and total Sobol indices of soil-carbon stocks, per column and on average over columns.

        first order   S_i = Var(E[y | p_i]) / Var(y)          what p_i explains alone
        total         T_i = E[Var(y | all but p_i)] / Var(y)  what is lost when p_i is known no more

    Parameters are independent and uniform over the box of `options.bounds`. All columns see the same sample, of
    samples · (parameters + 2) points.

    Args:
        columns: a site data set, or the forcing of one column or of a stack of them.
        options: bounds and rules are used. Default: `ModelOptions()`.
        parameters: names, or "all", or the published "4", "5", "16"; the others stay at `held`.
        samples: points of the scrambled Sobol sequence, a power of 2.
        depths: the stocks reach from the surface to these depths, m.
        scales: of y: "ln" of the stock, or the "raw" stock. Towards a w_scaling of 0 carbon grows as 1/w_scaling, and
            its variance over the box belongs to a few points there: where w_scaling varies, raw indices do not
            converge at any number of samples that one can afford, nor do their intervals; see `largest_share`.
        held: physical values of all 21, read for parameters that do not vary. Default: CLM5's, moved into the box.
        resamples: bootstrap resamples of the intervals, 2 or more.
        confidence: of the intervals, between 0 and 1.
        seed: of the sample and of the bootstrap, 0 or more.
        progress: is called after every column with the number of columns done and of all.

    Returns:
        `first_order`, `total` (site, scale, depth, parameter), dimensionless, and `first_order_ci`, `total_ci`, the
        half widths of their intervals; `mean_...`, the four of the mean over sites (its interval is that of the sample,
        shared by all sites; how sites differ is in the others); `stock_median` (site, depth), gC m⁻², over the sample;
        `output_sd` (site, scale, depth); `largest_share` (site, scale, depth), the share of the output's variance that
        one of the `samples` points holds: near 1, that point is all there is to see, and indices and intervals mean
        nothing; `published_first_order` (parameter), NaN where none was published.
        Estimates may fall below 0 or above 1 by their error. NaN where a stock does not vary (no litter, or nothing
        that varies acts), or where a point of the box gives one that is not finite (or, for "ln", not above 0); means
        are over the other sites.

    Raises:
        ValueError: unknown names, a number of samples that is no power of 2, another number out of range, or no column
            with an index at all. ImportError: SALib is not installed.

    Source:
        Saltelli et al. (2010), Comput. Phys. Commun. 181, 259: sample and estimators. Herman and Usher (2017), JOSS
        2, 97; Iwanaga et al. (2022), SESMO 4, 18155: SALib.
    """
    import xarray as xr

    options = ModelOptions() if options is None else options
    names = chosen(parameters, "sobol")
    _check(samples, depths, scales, resamples, confidence, seed)
    forcing, ids, attrs = _columns(columns)
    theta = np.tile(options.space.default() if held is None else _all_21(held), (samples * (len(names) + 2), 1))
    varied = [INDEX[name] for name in names]
    lower, upper = options.space.lower[varied], options.space.upper[varied]
    theta[:, varied] = lower + saltelli(len(names), samples, seed) * (upper - lower)

    shape = (len(ids), len(scales), len(depths), len(names))
    found = {name: np.full(shape, np.nan) for name in ("first_order", "first_order_ci", "total", "total_ci")}
    sums = {name: np.zeros((*shape[1:3], resamples, shape[3])) for name in ("first_order", "total")}
    median, sd, largest = np.empty((shape[0], shape[2])), np.empty(shape[:3]), np.full(shape[:3], np.nan)
    width = _half_width(confidence)
    for at in range(len(ids)):
        stocks = _stocks_of(theta, forcing[at], options.rules, tuple(map(float, depths)))
        median[at] = np.median(stocks, axis=0)
        for row, scale in enumerate(scales):
            with np.errstate(divide="ignore", invalid="ignore"):
                y = SCALES[scale](stocks)
                sd[at, row] = y.std(axis=0)
            for column in range(len(depths)):
                one = indices(y[:, column], len(names), resamples=resamples, seed=seed)
                if one is None:
                    continue
                largest[at, row, column] = _largest_share(y[:, column], samples)
                parts = (("first_order", one.first, one.first_draws), ("total", one.total, one.total_draws))
                for name, value, draws in parts:
                    found[name][at, row, column] = value
                    found[f"{name}_ci"][at, row, column] = width * draws.std(axis=0, ddof=1)
                    sums[name][row, column] += draws
        if progress is not None:
            progress(at + 1, len(ids))
    used = np.isfinite(found["total"]).all(axis=-1).sum(axis=0)  # (scale, depth)
    if not used.any():
        raise ValueError(
            f"sobol: no stock of {len(ids)} column(s) varies and is finite over the box of {', '.join(names)}; is "
            "there litter input, and does anything that varies act there?"
        )
    return xr.Dataset(
        {name: (_DIMS, values, {"units": "1"}) for name, values in found.items()}
        | {f"mean_{name}": (_DIMS[1:], values) for name, values in _means(found, sums, used, width).items()}
        | {
            "sites_used": (_DIMS[1:3], used),
            "stock_median": (("site", "depth"), median, {"units": "gC m-2"}),
            "output_sd": (_DIMS[:3], sd),
            "largest_share": (_DIMS[:3], largest, {"units": "1"}),
            "published_first_order": ("parameter", [PUBLISHED.get(name, np.nan) for name in names]),
        },
        {
            "site": ids,
            "scale": list(scales),
            "depth": ("depth", list(map(float, depths)), {"units": "m"}),
            "parameter": list(names),
            "process": ("parameter", [PARAMETERS[INDEX[name]].process for name in names]),
        },
        {name: value for name, value in asdict(options).items() if name in ("bounds", "rules")}
        | {"samples": samples, "resamples": resamples, "confidence": float(confidence), "seed": seed}
        | {"n_solves": len(ids) * len(theta), "salib": version("SALib")}
        | attrs,
    )


def saltelli(n_parameters: int, samples: int, seed: int) -> Float[np.ndarray, "row parameter"]:
    """Points of the unit cube in Saltelli's order, for `indices`: samples · (n_parameters + 2) rows."""
    sampler, _ = _salib()
    return sampler(_problem(n_parameters), samples, calc_second_order=False, seed=np.random.default_rng(seed))


def indices(y: Float[np.ndarray, " row"], n_parameters: int, *, resamples: int = 100, seed: int = 0) -> Indices | None:
    """Sobol indices of the outputs `y` at the rows of `saltelli`; None where they do not vary, or not all are finite.

    The same seed resamples the same rows, whatever the output.
    """
    if not np.isfinite(y).all() or np.ptp(y) <= 1e-12 * np.abs(y).max():
        return None
    _, analyse = _salib()
    # SALib takes seed 0 for none, and then draws from NumPy's global state
    result = analyse(
        _problem(n_parameters), y, calc_second_order=False, num_resamples=resamples, keep_resamples=True, seed=seed + 1
    )
    return Indices(result["S1"], result["ST"], result["S1_conf_all"], result["ST_conf_all"])


def _salib() -> tuple[Callable, Callable]:
    """SALib's sampler and analyser, imported when they are first needed."""
    try:
        from SALib.analyze.sobol import analyze
        from SALib.sample.sobol import sample
    except ImportError as error:
        raise ImportError(
            f"clm5.sobol needs SALib, which could not be imported ({error}). It is one of this project's requirements: "
            'run `uv sync` or `pip install -e .` again, or `pip install "SALib>=1.6"`'
        ) from error
    return sample, analyze


def _problem(n_parameters: int) -> dict:
    names = [str(number) for number in range(n_parameters)]
    return {"num_vars": n_parameters, "names": names, "bounds": [[0.0, 1.0]] * n_parameters}


def _largest_share(y: Float[np.ndarray, " row"], samples: int) -> float:
    """Share of the sum of squared deviations that the rows of one point of the sequence hold."""
    scaled = y / np.abs(y).max()
    square = ((scaled - scaled.mean()) ** 2).reshape(samples, -1).sum(axis=1)
    return float(square.max() / square.sum())


def _half_width(confidence: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(0.5 + confidence / 2))


def _means(found, sums, used, width: float) -> dict[str, np.ndarray]:
    """Means over the sites that have an index; NaN where none has."""
    count = np.where(used > 0, used, np.nan)[..., None]
    means = {}
    for name, draws in sums.items():
        means[name] = np.nansum(found[name], axis=0) / count
        means[f"{name}_ci"] = width * (draws / count[..., None]).std(axis=2, ddof=1)
    return means


def _stocks_of(theta, forcing: Forcing, rules: str, depths: tuple[float, ...]) -> Float[np.ndarray, "row depth"]:
    """Stocks of one column at many parameters, gC m⁻², float64, in equal blocks of bounded size."""
    block = -(-len(theta) // -(-len(theta) // AT_ONCE))
    parts = stream(theta, forcing, rules, of=_stock_function(depths), block=block)
    return np.concatenate([stocks for _, stocks in parts])


@functools.lru_cache(maxsize=16)
def _stock_function(depths: tuple[float, ...]) -> Callable:
    """One function per choice of depths: `stream` compiles once for each."""

    def stocks(theta: Array, forcing: Forcing, state) -> Array:
        return jnp.stack([stock_above(state.soc, depth) for depth in depths], axis=-1)

    return stocks


def _columns(columns) -> tuple[Forcing, list[str], dict[str, str]]:
    """A stack of forcing with NumPy leaves, ids, and what a file says about the sites."""
    attrs = {}
    if isinstance(columns, Forcing):
        forcing = columns if columns.batch_shape else jax.tree.map(lambda leaf: np.asarray(leaf)[None], columns)
        if len(forcing.batch_shape) != 1:
            raise ValueError(f"sobol: give one column or one stack of them, got leading axes {forcing.batch_shape}")
        ids = [str(number) for number in range(forcing.batch_shape[0])]
    else:
        from clm5.sites.schema import fingerprint

        with jax.enable_x64(True):
            forcing = Forcing.from_sites(columns, dtype=jnp.float64)
        ids = [str(site) for site in columns.site.values]
        attrs["sites_fingerprint"] = fingerprint(columns)
    if not ids:
        raise ValueError("sobol: there is no column to run")
    return jax.tree.map(np.asarray, forcing), ids, attrs


def _all_21(held) -> np.ndarray:
    held = np.asarray(held, float)
    if held.shape != (len(NAMES),):
        raise ValueError(f"sobol: held must have shape ({len(NAMES)},), in the order of clm5.NAMES, got {held.shape}")
    return held


def _check(samples: int, depths, scales, resamples: int, confidence: float, seed: int) -> None:
    if samples < 2 or samples & (samples - 1):
        nearest = 2 ** max(1, round(np.log2(max(samples, 2))))
        raise ValueError(f"sobol: samples must be a power of 2, 2 or more, got {samples}; {nearest} is near")
    if resamples < 2 or seed < 0 or not 0 < confidence < 1:
        raise ValueError(
            f"sobol: resamples must be 2 or more, seed 0 or more and confidence between 0 and 1; got {resamples}, "
            f"{seed} and {confidence}"
        )
    if not scales or any(scale not in SCALES for scale in scales):
        raise ValueError(f"sobol: scales must be of {tuple(SCALES)}, at least one, got {tuple(scales)}")
    if not len(depths) or not all(depth > 0 for depth in depths):
        raise ValueError(f"sobol: depths must be above 0 m, at least one, got {tuple(depths)}")
