"""Posterior files with a known answer: exact Beta posteriors of a coin-tossing model, in the layout of the real ones.

Each parameter's unit value u is drawn from the prior (uniform), k of N tosses come up heads, and the posterior is
Beta(1 + k, 1 + N − k): calibrated by construction, the prior itself where N = 0. Processes and soil carbon are cheap
smooth functions of theta. The network's tree is made from the same tosses, with a fault when one is asked for.
"""

import numpy as np
import xarray as xr
from scipy.stats import beta

from clm5.parameters import NAMES, ParameterSpace
from clm5.sites import fingerprint

PROCESSES = ("A", "K", "Xi", "V", "I", "carbon_input")
LAYER = np.array([.01, .04, .09, .16, .26, .40, .58, .80, 1.06, 1.36, 1.70, 2.08, 2.50, 2.99, 3.58, 4.27, 5.06, 5.95,
                  6.94, 8.03])  # fmt: skip
TOSSES = {"w_scaling": 200, "tau4s3": 60, "fs1s3": 60, "efolding": 30, "beta": 10, "q10": 4}  # the others: none
AT = {name: i for i, name in enumerate(NAMES)}


def fake_sites(n: int = 12, *, seed: int = 0, truth: bool = True) -> xr.Dataset:
    """A site data set with what comparisons reads of it, and with known parameters unless `truth` is False."""
    rng = np.random.default_rng(seed)
    ids = np.array([f"site-{i:03d}" for i in range(n)], dtype=object)
    unit = rng.random((n, 21))
    theta = np.asarray(ParameterSpace("binn").physical(unit))
    carbon = rng.uniform(200, 900, n)
    horizons = np.array([0.0, 0.1, 0.3, 0.6, 1.0])
    upper, lower = (np.broadcast_to(z, (n, 4)).copy() for z in (horizons[:-1], horizons[1:]))
    upper[1::3, 3] = lower[1::3, 3] = np.nan  # some profiles have three horizons
    sites = xr.Dataset(
        {
            "lon": ("site", rng.uniform(-125, -70, n), {"units": "degrees_east"}),
            "lat": ("site", rng.uniform(25, 49, n), {"units": "degrees_north"}),
            "upper": (("site", "horizon"), upper, {"units": "m"}),
            "lower": (("site", "horizon"), lower, {"units": "m"}),
            "soc": (("site", "horizon"), _horizons(_soc(theta, carbon), upper, lower), {"units": "gC m-3"}),
        },
        {"site": ids, "layer": LAYER, "parameter": list(NAMES)},
    )
    sites["soc"] = sites.soc * np.exp(0.2 * rng.standard_normal((n, 4)))
    sites["soc"].attrs["units"] = "gC m-3"
    if truth:
        sites["true_unit"] = (("site", "parameter"), unit)
        sites["true_theta"] = (("site", "parameter"), theta)
    sites.attrs = {"planted_unit": unit.ravel(), "planted_carbon": carbon}
    return sites


def fake_tree(sites, *, method="nuts", fault=None, chains=4, draws=100, seed=1, tosses=TOSSES, split=None, **attrs):
    """A posterior file over `sites`.

    fault: None, "shifted" (all informed parameters by 0.3 of the box), "narrow" (a third of the spread), "prior"
    (learned nothing), "shuffled" (posteriors of other sites), "unmixed" (each chain around its own value).
    """
    n = sites.sizes["site"]
    unit_true = np.reshape(sites.attrs["planted_unit"], (-1, 21))[:n]
    carbon = np.asarray(sites.attrs["planted_carbon"])[:n]
    data = np.random.default_rng(99)  # the same tosses for every tree
    count = np.array([tosses.get(name, 0) for name in NAMES])
    heads = data.binomial(count, unit_true)
    a, b = 1.0 + heads, 1.0 + count - heads
    rng = np.random.default_rng(seed)
    if fault == "shuffled":
        order = rng.permutation(n)
        a, b = a[order], b[order]
    if fault == "prior":
        a, b = np.ones_like(a), np.ones_like(b)
    unit = rng.beta(a, b, (chains, draws, n, 21))
    if fault == "shifted":
        unit = np.where(count > 0, np.clip(unit + np.where(a > b, -0.3, 0.3), 0, 1), unit)
    if fault == "narrow":
        centre = beta.mean(a, b)
        unit = np.where(count > 0, centre + (unit - centre) / 3, unit)
    if fault == "unmixed":
        unit = 0.1 * unit + 0.9 * rng.random((chains, 1, n, 21))
    return tree_of(unit, sites, carbon, method=method, seed=seed, split=split, **attrs)


def tree_of(unit, sites, carbon, *, method, seed=0, split=None, bounds="binn", **attrs):
    """The posterior file of given unit draws (chain, draw, site, parameter), as docs/architecture.md lays it out."""
    rng = np.random.default_rng([seed, 7])
    n = sites.sizes["site"]

    def physical(u):
        return np.asarray(ParameterSpace(bounds).physical(u))

    upper, lower, observed = sites.upper.values, sites.lower.values, sites.soc.values
    theta = physical(unit)
    soc = _soc(theta, carbon)
    predicted = _horizons(soc, upper, lower)
    noisy = predicted * np.exp(0.2 * rng.standard_normal(predicted.shape))
    density = -0.5 * ((np.log(predicted) - np.log(observed)) / 0.2) ** 2
    prior_unit = rng.random((1, 500, 21))
    prior_theta = physical(prior_unit)
    prior_process = _processes(np.repeat(prior_theta[:, :, None], n, axis=2), carbon)
    names = {"parameter": list(NAMES)}
    place = {"site": sites.site.values}
    four = ("chain", "draw", "site")
    constant = {
        "lon": ("site", sites.lon.values), "lat": ("site", sites.lat.values),
        "upper": (("site", "horizon"), upper), "lower": (("site", "horizon"), lower),
    }  # fmt: skip
    if "true_theta" in sites:
        constant["true_theta"] = (("site", "parameter"), sites.true_theta.values)
        constant["true_unit"] = (("site", "parameter"), sites.true_unit.values)
        constant["true_processes"] = (("site", "process"), _processes(sites.true_theta.values, carbon))
    if split is not None:
        constant["split"] = ("site", np.asarray(split, dtype=object))
    stats = {"diverging": (four, np.zeros(unit.shape[:3], bool))} if method == "nuts" else {}
    groups = {
        "posterior": xr.Dataset(
            {
                "theta": ((*four, "parameter"), theta.astype(np.float32)),
                "unit": ((*four, "parameter"), unit.astype(np.float32)),
                "processes": ((*four, "process"), _processes(theta, carbon).astype(np.float32)),
                "soc": ((*four, "layer"), soc.astype(np.float32)),
            },
            names | place | {"process": list(PROCESSES), "layer": LAYER},
        ),
        "posterior_predictive": xr.Dataset({"soc_observed": ((*four, "horizon"), noisy.astype(np.float32))}, place),
        "log_likelihood": xr.Dataset({"soc_observed": ((*four, "horizon"), density)}, place),
        "sample_stats": xr.Dataset(stats, place),
        "prior": xr.Dataset(
            {
                "theta": (("chain", "draw", "parameter"), prior_theta),
                "unit": (("chain", "draw", "parameter"), prior_unit),
                "processes": ((*four, "process"), prior_process),
            },
            names | place | {"process": list(PROCESSES)},
        ),
        "observed_data": xr.Dataset({"soc_observed": (("site", "horizon"), observed)}, place),
        "constant_data": xr.Dataset(constant, names | place | {"process": list(PROCESSES)}),
    }
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {
        "method": method, "bounds": bounds, "rules": "conservative", "operator": "horizon", "error": "lognormal",
        "sigma": 0.2, "version_jax": "0.0", "seed": seed, "sites_fingerprint": fingerprint(sites),
        "wall_time_s": 12.5 if method == "mc_dropout" else 980.0, "n_solves": 40_000 if method == "mc_dropout" else 0,
        "n_gradients": 20_000 if method == "mc_dropout" else 1_500_000,
    } | attrs  # fmt: skip
    return tree


def _soc(theta, carbon):
    """Soil carbon by depth (..., site, 20), gC m⁻³, a smooth made-up function of theta (..., site, 21)."""
    scale = carbon * theta[..., AT["tau4s3"]] * (theta[..., AT["fs1s3"]] + 0.02) / (theta[..., AT["w_scaling"]] + 0.5)
    return scale[..., None] * np.exp(-LAYER / (0.3 + theta[..., AT["efolding"], None])) * 8 + 50


def _horizons(soc, upper, lower):
    """Linear interpolation at mid depth: (..., site, 20) → (..., site, horizon), NaN where a horizon is padding."""
    middle = (upper + lower) / 2
    right = np.clip(np.searchsorted(LAYER, middle), 1, len(LAYER) - 1)  # NaN sorts last
    share = (middle - LAYER[right - 1]) / (LAYER[right] - LAYER[right - 1])

    def take(index):
        return np.take_along_axis(soc, np.broadcast_to(index, (*soc.shape[:-1], index.shape[-1])), axis=-1)

    return take(right - 1) * (1 - share) + take(right) * share


def _processes(theta, carbon):
    """Six made-up processes (..., site, 6) of theta (..., site, 21); the last is forcing."""

    def p(name):
        return theta[..., AT[name]]

    columns = [
        p("fs1s3") + p("fs2s3") + 0.3, 1 / p("tau4s3"), p("w_scaling") * p("q10") * p("efolding") / 8,
        1e-3 * p("diffus") / 1e-4, p("beta"), np.broadcast_to(carbon, theta.shape[:-1]),
    ]  # fmt: skip
    return np.stack(columns, -1)
