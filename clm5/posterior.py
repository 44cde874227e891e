"""The posterior file: what both ways of inference write, and all that comparisons read."""

import dataclasses
import datetime
import functools
import importlib.metadata
import time
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from clm5.column import simulate
from clm5.forcing import Forcing
from clm5.grid import NODE
from clm5.observation import Observations, log_likelihood, sample_observations
from clm5.options import ModelOptions
from clm5.parameters import NAMES, PARAMETERS
from clm5.six_processes import LONG_NAMES, PROCESSES, UNITS, processes

if TYPE_CHECKING:
    import xarray as xr

SCHEMA_VERSION = 1
PRIOR_DRAWS = 200
COLUMNS_AT_ONCE = 8192  # bounds memory: about 100 MB of intermediates in float64, whatever the number of sites
WORTH_SPREADING = 16  # so many times `COLUMNS_AT_ONCE`: a device more is compiled for
_VERSIONED = ("jax", "numpyro", "flax", "numpy", "xarray", "binn-clm5")


def assemble_posterior(
    unit: np.ndarray,
    sites: "xr.Dataset",
    options: ModelOptions,
    *,
    method: str,
    seed: int,
    wall_time: float,
    n_solves: int,
    n_gradients: int,
    sigma: np.ndarray | None = None,
    sample_stats: Mapping[str, np.ndarray] | None = None,
    constant: Mapping[str, tuple] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> "xr.DataTree":
    """Make the posterior file's tree from draws on the unit cube.

    Profiles, processes, predictive draws and log likelihoods are computed here, so that both ways write the same thing.
    The random numbers of a site follow from the seed, its id and the draw's number: a site's tree is the same whichever
    sites are assembled with it.

    Args:
        unit: draws on the unit cube, (chain, draw, site, 21); the site axis follows `sites.site`.
        sites: the site data set that was inferred from.
        options: what the draws mean and how they were compared with data.
        method: how the draws were made, for example "nuts" or "mc_dropout".
        seed: the seed of that method; predictive and prior draws use it too.
        wall_time: seconds that the inference took (without this assembly).
        n_solves: steady states computed by the inference.
        n_gradients: gradients of steady states computed by the inference.
        sigma: scale of the error of every draw, (chain, draw, site), where it was inferred; otherwise that of
            `options`.
        sample_stats: arrays (chain, draw, site) by name.
        constant: further constant data, name → (dims, values).
        attrs: further root attributes: numbers or text.

    Returns:
        An `xarray.DataTree`; docs/architecture.md lists its groups. Draws are stored as float32.
    """
    import xarray as xr

    unit = np.asarray(unit)
    n_site = sites.sizes["site"]
    if unit.ndim != 4 or unit.shape[2:] != (n_site, len(NAMES)):
        raise ValueError(
            f"assemble_posterior: unit must have shape (chain, draw, {n_site} sites, {len(NAMES)} parameters), "
            f"got {unit.shape}"
        )
    if not np.all((unit >= 0) & (unit <= 1)):  # also catches NaN
        where = tuple(int(i) for i in np.argwhere(~((unit >= 0) & (unit <= 1)))[0])
        raise ValueError(
            f"assemble_posterior: unit must lie in [0, 1]; at (chain, draw, site, parameter) = {where} it is "
            f"{unit[where]!r} "
            f"(site {sites.site.values[where[2]]}, {NAMES[where[3]]})"
        )

    if sigma is not None and (np.shape(sigma) != unit.shape[:3] or not np.all((sigma > 0) & np.isfinite(sigma))):
        raise ValueError(
            f"assemble_posterior: sigma must have shape {unit.shape[:3]}, (chain, draw, site) as in unit, and be "
            f"positive and finite; got shape {np.shape(sigma)}"
        )

    with jax.enable_x64(True):
        key_predictive, key_prior = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
        posterior = _push_through(unit, sites, options, key_predictive, sigma)
        prior_unit = np.asarray(jax.random.uniform(key_prior, (1, PRIOR_DRAWS, len(NAMES)), dtype=jnp.float64))
        per_site = np.broadcast_to(prior_unit[:, :, None], (1, PRIOR_DRAWS, n_site, len(NAMES)))
        prior = _push_through(per_site, sites, options, key_prior)
        constant_data = _constant_data(sites, options, constant or {})

    predictive, density = posterior.pop("predictive"), posterior.pop("density")
    groups = {
        "posterior": xr.Dataset(posterior),
        "posterior_predictive": xr.Dataset({"soc_observed": predictive}),
        "log_likelihood": xr.Dataset({"soc_observed": density}),
        "prior": xr.Dataset(
            {
                "unit": (("chain", "draw", "parameter"), prior_unit.astype(np.float32)),
                "theta": (("chain", "draw", "parameter"), prior["theta"][1][:, :, 0]),
                "processes": prior["processes"],
            }
        ),
        "observed_data": xr.Dataset(
            {"soc_observed": (("site", "horizon"), sites.soc.transpose("site", "horizon").values)}
        ),
        "constant_data": constant_data,
    }
    if sample_stats:
        groups["sample_stats"] = xr.Dataset(
            {name: (("chain", "draw", "site"), np.asarray(values)) for name, values in sample_stats.items()}
        )
    tree = xr.DataTree.from_dict({name: _with_coordinates(group, sites) for name, group in groups.items()})
    tree.attrs = _attributes(sites, options, method, seed, wall_time, n_solves, n_gradients) | dict(attrs or {})
    return tree


_DIMS = {
    "parameter": ("chain", "draw", "site", "parameter"),
    "process": ("chain", "draw", "site", "process"),
    "layer": ("chain", "draw", "site", "layer"),
    "horizon": ("chain", "draw", "site", "horizon"),
}


@functools.partial(jax.jit, static_argnames="options")
def _consequences(unit, sigma, numbers, keys, forcing: Forcing, observations: Observations, options: ModelOptions):
    """theta, processes, profiles, predictive draws and log densities of unit-cube points (draw, site, 21), float32.

    `sigma` is (draw, site) or None. `numbers` (draw,) and `keys` (site,) make the random numbers.
    """

    def predict(number, soc, sigma):
        def at_site(key, soc, observations, sigma):
            return sample_observations(jax.random.fold_in(key, number), soc, observations, options, sigma=sigma)

        return jax.vmap(at_site)(keys, soc, observations, sigma)

    theta = options.space.physical(unit)
    state = simulate(theta, forcing, rules=options.rules)
    six = processes(theta, forcing, state).stacked()
    predicted = jax.vmap(predict)(numbers, state.soc, sigma)
    density = log_likelihood(state.soc, observations, options, sigma=sigma)
    density = jnp.where(observations.measured, density, jnp.nan)
    return jax.tree.map(lambda x: x.astype(jnp.float32), (theta, six, state.soc, predicted, density))


def _push_through(
    unit: np.ndarray, sites, options: ModelOptions, key, sigma: np.ndarray | None = None
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Everything that follows from draws (chain, draw, site, 21), a few draws at a time to bound memory."""
    n_site = sites.sizes["site"]
    if n_site > COLUMNS_AT_ONCE:
        blocks = [slice(i, i + COLUMNS_AT_ONCE) for i in range(0, n_site, COLUMNS_AT_ONCE)]
        scales = [None if sigma is None else sigma[:, :, block] for block in blocks]
        parts = [
            _push_through(unit[:, :, block], sites.isel(site=block), options, key, scale)
            for block, scale in zip(blocks, scales, strict=True)
        ]
        names = {name: dims for name, (dims, _) in parts[0].items()}
        return {name: (dims, np.concatenate([part[name][1] for part in parts], axis=2)) for name, dims in names.items()}
    forcing, observations = Forcing.from_sites(sites), Observations.from_sites(sites)
    chains, draws, _, _ = unit.shape
    n_draws = chains * draws
    flat = unit.reshape(n_draws, n_site, -1), None if sigma is None else sigma.reshape(n_draws, n_site)
    step = max(1, COLUMNS_AT_ONCE // n_site)
    at_least = lambda x: np.concatenate([x, np.repeat(x[-1:], -n_draws % step, axis=0)])  # noqa: E731
    padded = jax.tree.map(at_least, flat)  # one shape, one compilation
    starts = range(0, n_draws, step)
    devices = jax.local_devices() if len(starts) >= WORTH_SPREADING else jax.local_devices()[:1]
    hashes = np.array([zlib.crc32(str(name).encode()) for name in sites.site.values], np.uint32)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, hashes)
    given = [jax.device_put((keys, forcing, observations), device) for device in devices]
    running: list[Any] = []
    pieces = []
    for number, start in enumerate(starts):  # a piece on every device at a time
        device = number % len(devices)
        piece = [None if x is None else x[start : start + step].astype(np.float64) for x in padded]
        piece = jax.device_put(piece, devices[device])
        numbers = np.arange(start, start + step, dtype=np.uint32)
        running.append(_consequences(*piece, numbers, *given[device], options))
        if len(running) > len(devices):
            pieces.append(jax.device_get(running.pop(0)))
    pieces += map(jax.device_get, running)
    joined = (np.concatenate(parts)[:n_draws] for parts in zip(*pieces, strict=True))
    theta, six, soc, predicted, density = (part.reshape(chains, draws, *part.shape[1:]) for part in joined)
    scale = {} if sigma is None else {"sigma": (("chain", "draw", "site"), sigma.astype(np.float32))}
    return scale | {
        "theta": (_DIMS["parameter"], theta),
        "unit": (_DIMS["parameter"], unit.astype(np.float32)),
        "processes": (_DIMS["process"], six),  # not "process": xarray keeps that name for the coordinate
        "soc": (_DIMS["layer"], soc),
        "predictive": (_DIMS["horizon"], predicted),
        "density": (_DIMS["horizon"], density),
    }


def _constant_data(sites, options: ModelOptions, constant: Mapping[str, tuple]):
    import xarray as xr

    known = {name: sites[name] for name in ("lon", "lat", "upper", "lower", "true_theta", "true_unit") if name in sites}
    data = xr.Dataset({name: (array.dims, array.values) for name, array in known.items()})
    if "true_theta" in sites:
        truth = jnp.asarray(sites.true_theta.transpose("site", "parameter").values, jnp.float64)
        made_by = dataclasses.replace(options, rules=sites.attrs.get("rules", options.rules))
        unit = np.asarray(options.space.unit(truth))[None, None]
        data["true_processes"] = (
            ("site", "process"),
            _push_through(unit, sites, made_by, jax.random.key(0))["processes"][1][0, 0],
        )
    return data.assign({name: (dims, np.asarray(values)) for name, (dims, values) in constant.items()})


def _with_coordinates(group, sites):
    coordinates: dict[str, Any] = {
        "site": np.asarray(sites.site.values, dtype=object),
        "parameter": np.asarray(NAMES, dtype=object),
        "process": np.asarray(PROCESSES, dtype=object),
        "layer": NODE,
        "chain": np.arange(group.sizes.get("chain", 0)),
        "draw": np.arange(group.sizes.get("draw", 0)),
        "horizon": np.arange(group.sizes.get("horizon", 0)),
    }
    group = group.assign_coords({name: values for name, values in coordinates.items() if name in group.dims})
    if "layer" in group.coords:
        group.layer.attrs.update(units="m", long_name="node depth", positive="down")
    units = {"soc": "gC m-3", "soc_observed": "gC m-3", "upper": "m", "lower": "m", "unit": "1"}
    for name, unit in units.items():
        if name in group:
            group[name].attrs["units"] = unit
    if "processes" in group:
        group.processes.attrs["units"] = ", ".join(f"{name}: {UNITS[name]}" for name in PROCESSES)
        group.processes.attrs["long_name"] = ", ".join(f"{name}: {LONG_NAMES[name]}" for name in PROCESSES)
    if "sigma" in group:
        group.sigma.attrs.update(units="1", long_name="scale of the error")
    if "theta" in group:
        group.theta.attrs["units"] = ", ".join(f"{p.name}: {p.unit}" for p in PARAMETERS)
    return group


def _attributes(sites, options, method, seed, wall_time, n_solves, n_gradients) -> dict[str, Any]:
    from clm5.sites import fingerprint

    versions = {}
    for package in _VERSIONED:
        try:
            versions[f"version_{package.replace('-', '_')}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "schema_version": SCHEMA_VERSION,
        "method": method,
        **options.as_attributes(),
        "seed": int(seed),
        "sites_fingerprint": fingerprint(sites),
        "wall_time_s": float(wall_time),
        "n_solves": int(n_solves),
        "n_gradients": int(n_gradients),
        "created_at": datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat(timespec="seconds"),
        **versions,
    }
