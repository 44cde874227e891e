"""Simulation-based calibration: is the truth of a simulated site an ordinary draw of the posterior that is sampled?"""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import clm5
from bayes.config import Config
from bayes.model import sigma_from_score
from bayes.ranks import KEPT, truth_ranks
from bayes.sampling import sample
from clm5._atomic import write_atomically
from clm5.sites.schema import VARIABLES

BATCHES_AT_ONCE = 4  # per call of `sample`: bounds memory, and what is lost by a kill
MOST_ATTEMPTS = 50
MOST_CARBON = next(variable.upper for variable in VARIABLES if variable.name == "soc")  # gC m⁻³, of a site data set
RANKS = "ranks.nc"


def calibrate(
    sites: xr.Dataset,
    config: Config | None = None,
    simulations: int = 200,
    seed: int = 0,
    kept: int = KEPT,
    out: str | os.PathLike | None = None,
    resume: bool = True,
    progress: bool = True,
) -> xr.Dataset:
    """Simulation-based calibration of `bayes.sample`.

    Parameters are drawn from the prior, horizons from the error model, and the posterior is sampled by the very
    function that users call. If model and sampler are right, the truth's rank among independent draws is uniform, for
    every quantity. `uniformity` tests that, `plot_ranks` shows it.

    Args:
        sites: whose forcing and horizons are taken, in turn; what was measured there, and any truth, is replaced.
        config: how sites are sampled, default `Config()`.
        simulations: simulated sites.
        seed: of the simulations and of the sampler.
        kept: draws that the truth is ranked among, see `truth_ranks`.
        out: folder for the ranks of finished groups of simulations, and `ranks.nc`. A killed run that is started again
            with the same arguments goes on after its last finished group and ends with the same ranks.
        resume: False refuses a folder that already holds ranks.
        progress: as in `sample`.

    Returns:
        The ranks, as from `truth_ranks`. Simulations that did not converge are among them, and say so. Attributes:
        `wall_time_s`, `drawn_again` (see `simulated_sites`) and what was asked for, as JSON (`request`).

    Raises:
        ValueError: see `simulated_sites`, `sample`, `truth_ranks`; or `out` holds the ranks of another request.
        FileExistsError: `resume` is False and `out` holds ranks.

    Source:
        Talts, Betancourt, Simpson, Vehtari & Gelman 2018, arXiv 1804.06788.
    """
    config = Config() if config is None else config
    if config.keep != "draws":
        raise ValueError(f'calibrate: ranks are those among draws; use Config(keep="draws"), got {config.keep!r}')
    most = config.chains * config.kept_draws
    if not 1 <= kept <= most:
        raise ValueError(f"calibrate: kept must lie in 1 … {most}, the draws that are kept of a site; got {kept}")
    config = replace(config, store="netcdf")  # draws are ranked and forgotten
    clm5.sites.check(sites)
    asked = {"config": config.request(), "simulations": simulations, "seed": seed, "kept": kept}
    request = json.dumps(asked | {"sites": clm5.sites.fingerprint(sites)}, sort_keys=True)
    folder = None if out is None else Path(out)
    if folder is not None and folder.is_dir() and not resume and any(folder.rglob("*.nc")):
        raise FileExistsError(f"{folder} holds ranks. Pass resume=True to go on with them, or choose another folder.")
    if folder is not None and (folder / RANKS).exists():
        return _load(folder / RANKS, request)
    simulated = simulated_sites(sites, config, simulations, seed)
    groups = np.array_split(np.arange(simulations), -(-simulations // (BATCHES_AT_ONCE * config.batch)))
    parts = []
    for group in groups:
        file = None if folder is None else folder / "groups" / f"{group[0] + 1:06d}-{group[-1] + 1:06d}.nc"
        if file is None or not file.exists():
            began = time.perf_counter()
            members = simulated.isel(site=group)
            part = truth_ranks(sample(members, config, seed=seed, progress=progress), members, kept)
            part.attrs |= {
                "request": request,
                "wall_time_s": time.perf_counter() - began,
                "drawn_again": simulated.attrs["drawn_again"],
            }
            if file is not None:
                _save(part, file)
        else:
            part = _load(file, request)
        parts.append(part)
    ranks = xr.concat(parts, "simulation", data_vars="minimal", coords="minimal", compat="equals", join="exact",
                      combine_attrs="override")  # fmt: skip
    ranks.attrs["wall_time_s"] = float(sum(part.attrs["wall_time_s"] for part in parts))
    if folder is not None:
        _save(ranks, folder / RANKS)
    return ranks


def simulated_sites(
    sites: xr.Dataset,
    config: Config | None = None,
    simulations: int = 200,
    seed: int = 0,
    unit: np.ndarray | None = None,
) -> xr.Dataset:
    """Sites whose truth is drawn from the prior of `config` and whose horizons are drawn from its error model.

    Args:
        sites: whose forcing and depths of horizons are taken, in turn.
        config: which parameters are free, at what the others are held, and the model.
        simulations: how many are made.
        seed: a simulation depends on it and on its number alone.
        unit: true unit values (simulation, 21) in place of draws from the prior.

    Returns:
        A checked site data set, ids `simulation-0001` …, with `true_unit`, `true_theta` (site, parameter), where sigma
        is inferred `true_sigma` (site,), and `simulated_at`, the id of the site that lent its forcing. Data that the
        site schema refuses (above 1e6 gC m⁻³) are drawn again, truth and noise; attribute `drawn_again` counts that.
        Ranks stay uniform: they are so for every set of data, hence for the data that the schema holds.

    Raises:
        ValueError: fewer than one simulation; an error model that no data can be drawn from; a `unit` of another
            shape or outside [0, 1]; a site whose carbon is refused again and again.
    """
    config = Config() if config is None else config
    options = config.model
    if simulations < 1:
        raise ValueError(f"simulated_sites: simulations must be at least 1, got {simulations}")
    if options.error != "lognormal":
        raise ValueError(
            f"simulated_sites: data cannot be drawn from the error model {options.error!r}, a weighted "
            "pseudo-likelihood whose scale is the measured value; calibrate with error='lognormal'"
        )
    shape = (simulations, len(clm5.NAMES))
    if unit is not None and (unit.shape != shape or not np.all((unit >= 0) & (unit <= 1))):
        raise ValueError(f"simulated_sites: unit must have shape {shape} and lie in [0, 1], got {unit.shape}")
    clm5.sites.check(sites)
    ids = sites["site"].values
    lent = np.arange(simulations) % len(ids)
    base = sites.isel(site=lent).drop_vars(["true_unit", "true_theta", "true_soc", "true_sigma"], errors="ignore")
    free = [clm5.NAMES.index(name) for name in config.free_names]
    truth = np.tile(config.fixed_unit, (simulations, 1)) if unit is None else np.array(unit, float)
    sigma = np.full(simulations, options.sigma)
    measured = np.full(base["soc"].shape, np.nan)
    with jax.enable_x64(True):
        forcing, observations = clm5.Forcing.from_sites(base), clm5.Observations.from_sites(base)
        theta = options.space.physical

        @jax.jit
        def measure(unit, sigma, keys):
            def at_site(key, soc, observations, sigma):
                return clm5.sample_observations(key, soc, observations, options, sigma=sigma)

            soc = clm5.simulate(theta(unit), forcing, options.rules).soc
            return jax.vmap(at_site)(keys, soc, observations, sigma)

        real = np.asarray(observations.measured)
        refused, drawn_again = np.ones(simulations, bool), 0
        for attempt in range(MOST_ATTEMPTS):
            generators = [np.random.default_rng((seed, number, attempt)) for number in range(simulations)]
            if unit is None:
                drawn = np.stack([generator.uniform(size=len(free)) for generator in generators])
                truth[np.ix_(refused, free)] = drawn[refused]
            keys = jax.vmap(jax.random.key)(np.array([g.integers(2**32, dtype=np.uint32) for g in generators]))
            if config.infer_sigma:
                score = np.array([generator.normal() for generator in generators])
                sigma[refused] = np.asarray(sigma_from_score(score, options, config.sigma_spread))[refused]
            measured[refused] = np.asarray(measure(jnp.asarray(truth), jnp.asarray(sigma), keys))[refused]
            refused = np.any(real & ~((measured > 0) & (measured <= MOST_CARBON)), axis=1)
            if not refused.any():
                break
            drawn_again += int(refused.sum())
        else:
            raise ValueError(
                f"simulated_sites: at site {ids[lent[refused.argmax()]]}, {MOST_ATTEMPTS} draws from the prior in a "
                f"row hold more than {MOST_CARBON:g} gC m-3. Is its litter_input too large?"
            )
        true_theta = np.asarray(theta(jnp.asarray(truth)))
    width = max(4, len(str(simulations)))
    made = base.assign_coords(
        site=[f"simulation-{number:0{width}d}" for number in range(1, simulations + 1)], parameter=list(clm5.NAMES)
    ).assign(
        soc=(("site", "horizon"), measured, sites["soc"].attrs),
        true_unit=(("site", "parameter"), truth, {"units": "1"}),
        true_theta=(("site", "parameter"), true_theta, {"units": "as in clm5.PARAMETERS"}),
        simulated_at=("site", ids[lent].astype(str)),
    )
    if config.infer_sigma:
        made["true_sigma"] = ("site", sigma, {"units": "1", "long_name": "true scale of the error"})
    made.attrs |= {"bounds": options.bounds, "rules": options.rules, "sigma": options.sigma, "seed": seed,
                   "drawn_again": drawn_again}  # fmt: skip
    clm5.sites.check(made)
    return made


def _save(ranks: xr.Dataset, file: Path) -> None:
    plain = ranks.assign_coords({name: ranks[name].astype(object) for name in ("simulation", "quantity")})
    write_atomically(file, lambda part: plain.to_netcdf(part, engine="h5netcdf"))


def _load(file: Path, request: str) -> xr.Dataset:
    """Ranks from disk, of this request."""
    with xr.open_dataset(file, engine="h5netcdf") as stored:
        ranks = stored.load()
    found, wanted = (_flat(json.loads(text)) for text in (ranks.attrs.get("request", "{}"), request))
    names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if names:
        listed = "; ".join(f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} now" for name in names)
        raise ValueError(f"{file} holds ranks that were asked for otherwise ({listed}). Choose another folder.")
    return ranks.assign_coords({name: ranks[name].astype(str) for name in ("simulation", "quantity")})


def _flat(tree: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat: dict = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
