"""`sample`: the posterior of 21 parameters at every site of a data set, in batches of sites, resumable."""

import os
import time
import zlib
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Key

import clm5
from bayes import diagnostics, model
from bayes.config import Config
from bayes.engine import Engine, NoStart
from bayes.progress import Progress
from bayes.storage import RunFolder

STATISTICS = ("lp", "energy", "diverging", "n_steps", "acceptance_rate", "step_size")
RECORDED = ("chains", "warmup", "draws", "target_accept", "max_tree_depth", "scale")  # as attributes of the file


def sample(
    sites: xr.Dataset,
    config: Config | None = None,
    out: str | os.PathLike | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
) -> xr.DataTree:
    """Posterior of every site by NUTS, as a posterior file (docs/architecture.md).

    Every site is a problem of its own: nothing is shared between sites but the compiled program.

    Args:
        sites: a site data set.
        config: settings, default `Config()`.
        out: folder for finished batches and `posterior.nc`. A killed run that is started again with the same arguments
            goes on after its last finished batch and ends with the same draws.
        seed: of all draws. A site's draws depend on the seed and its id, not on its position or its neighbours.
            With another batch width or number of devices sums round differently, and chains part ways after some draws.
        resume: False refuses a folder that already holds a run.
        progress: show batches done and time left; silent where the output is not a terminal.

    Returns:
        A posterior file with method "nuts", `sample_stats` (diverging, n_steps, tree_depth, energy, acceptance_rate,
        step_size, lp; chain, draw, site) and a group `diagnostics`: R-hat, effective sizes and Monte Carlo error of
        every estimate (`bayes.summary`). Its attributes count `n_gradients`, warm-up included, and `n_solves`, the
        forward solves among them; work on empty places of the last batch is not counted. `wall_time_s` is the time in
        the sampler, summed over batches, and includes compiling; in a resumed run, also the batches of before. `free`
        names the sampled parameters, `fixed` the others with the physical values that they were held at.

    Raises:
        ValueError: for sites that do not fit the schema, for a site whose likelihood is nowhere finite (named), and for
            an `out` that holds another run.
        FileExistsError: `resume` is False and `out` holds a run.

    All work is done in float64, whatever the global setting.
    """
    config = Config() if config is None else config
    clm5.sites.check(sites)
    ids = [str(name) for name in sites["site"].values]
    folder = None
    if out is not None:
        request = {"config": config.request(), "seed": seed, "sites": clm5.sites.fingerprint(sites)}
        folder = RunFolder(out, request, resume=resume)
        if folder.posterior.exists():
            return clm5.open_posterior(folder.posterior)
    with jax.enable_x64(True):
        parts = list(_batches(sites, ids, config, seed, folder, progress))
    tree = _assemble(sites, config, seed, parts)
    if folder is not None:
        clm5.save_posterior(tree, folder.posterior)
    return tree


def _batches(
    sites: xr.Dataset, ids: list[str], config: Config, seed: int, folder: RunFolder | None, progress: bool
) -> Iterator[dict[str, np.ndarray]]:
    """Arrays of one batch after the other, from the folder where they are there."""
    columns = clm5.Forcing.from_sites(sites), clm5.Observations.from_sites(sites)
    sampler = _sampler(config)
    width = sampler.width(len(ids), config.batch)
    firsts = range(0, len(ids), width)
    with Progress(len(firsts), config.warmup + config.draws, shown=progress) as bar:
        for first in firsts:
            members = ids[first : first + width]
            arrays = None if folder is None else folder.load(members)
            if arrays is None:
                # empty places of the last batch repeat its first site, so that every batch has one shape
                places = np.array([first + i if i < len(members) else first for i in range(width)])
                forcing, observations = jax.tree.map(lambda leaf, places=places: leaf[places], columns)
                keys = chain_keys(seed, [ids[i] for i in places], config.chains)
                arrays = sampler(keys, forcing, observations, members, config.draws, bar.tick)
                if folder is not None:
                    folder.save(members, arrays)
            bar.batch_done()
            yield arrays


def chain_keys(seed: int, ids: list[str], chains: int) -> Key[Array, "site chain"]:
    """A key per site and chain, made of the seed, the site's id and the chain's number alone, (site, chain)."""
    hashes = np.array([zlib.crc32(name.encode()) for name in ids], np.uint32)
    root = jax.random.key(seed, impl="threefry2x32")
    per_site = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(root, hashes)
    return jax.vmap(lambda key: jax.vmap(partial(jax.random.fold_in, key))(np.arange(chains, dtype=np.uint32)))(
        per_site
    )


_COMPILED: dict[tuple, "Sampler"] = {}


def _sampler(config: Config) -> "Sampler":
    """The sampler of a configuration; the last one is kept: a next call with like settings need not compile."""
    devices = jax.devices()
    settings = (config.model, config.warmup, config.target_accept, config.max_tree_depth, config.scale)
    key = (*settings, config.free_names, config.fixed_unit.tobytes(), tuple(devices))
    if key not in _COMPILED:
        _COMPILED.clear()
        _COMPILED[key] = Sampler(config, devices)
    return _COMPILED[key]


class Sampler:
    """The compiled program of a `Config`, for batches of sites. Use it inside `jax.enable_x64(True)`.

    It does not depend on the configuration's chains, draws and batch.
    """

    def __init__(self, config: Config, devices: list | None = None):
        self.config = config
        free = np.array([clm5.NAMES.index(name) for name in config.free_names])
        fixed = config.fixed_unit

        def place(unit_free: Float[Array, " free"]) -> Float[Array, "21"]:
            return jnp.asarray(fixed, unit_free.dtype).at[free].set(unit_free)

        self.place = None if len(free) == model.N_PARAMETERS else place
        self._n_free = len(free)
        self._choices: dict = {"scale": config.scale, "place": self.place, "n_free": self._n_free}
        self.engine = Engine(
            self.potential,
            lambda key, data: model.latent_from_prior(key, self._n_free, config.scale),
            lambda latent, data: self.unit(latent),
            warmup=config.warmup,
            target_accept=config.target_accept,
            max_tree_depth=config.max_tree_depth,
            devices=devices,
        )

    def potential(self, latent: Float[Array, " free"], data) -> Float[Array, ""]:
        """Negative log density of one site in the coordinate of `config.scale`; data is (forcing, observations)."""
        return model.potential(latent, *data, self.config.model, **self._choices)

    def unit(self, latent: Float[Array, " free"]) -> Float[Array, "21"]:
        """All 21 unit values, the fixed ones included."""
        free = model.unit_from_latent(latent, self.config.scale)
        return free if self.place is None else self.place(free)

    def width(self, n_sites: int, batch: int) -> int:
        """Sites in a batch: as configured, no more than there are, rounded up to a multiple of the devices."""
        devices = len(self.engine.devices)
        return -(-min(batch, n_sites) // devices) * devices

    def __call__(self, keys, forcing, observations, members: list[str], draws: int, tick) -> dict[str, np.ndarray]:
        """Sample one batch.

        Args:
            keys: of every place and chain, `chain_keys`.
            forcing, observations: leaves (place, ...).
            members: the ids of the first places; the others are padding and are dropped.
            draws: kept per chain.
            tick: called with the number of transitions done.

        Returns:
            `unit` (chain, draw, member, 21), statistics (chain, draw, member), `n_gradients` (member,), `wall_time`.
        """
        began = time.perf_counter()
        try:
            records, spent = self.engine.run(keys, (forcing, observations), draws, tick)
        except NoStart as error:
            lost = [name for name, lane in zip(members, error.lanes, strict=False) if lane.any()]
            raise ValueError(
                f"the likelihood is not finite anywhere in the prior at {', '.join(lost)}: the column's carbon "
                "overflows or vanishes there. Check the forcing of these sites (no carbon input? water or temperature "
                "out of range?) and their horizons (all below bedrock?)"
            ) from error
        n = len(members)
        arrays = {name: np.moveaxis(records[name][:n], 0, 2) for name in STATISTICS}
        arrays["unit"] = np.moveaxis(records["report"][:n], 0, 2)
        arrays["n_gradients"] = (spent + records["n_steps"].sum(axis=-1)).sum(axis=-1)[:n]
        arrays["site"] = np.array(members)
        arrays["wall_time"] = np.array(time.perf_counter() - began)
        return arrays


def _assemble(sites: xr.Dataset, config: Config, seed: int, parts: list[dict[str, np.ndarray]]) -> xr.DataTree:
    def joined(name: str) -> np.ndarray:
        return np.concatenate([part[name] for part in parts], axis=2)

    statistics = {name: joined(name) for name in STATISTICS}
    statistics["tree_depth"] = np.floor(np.log2(np.maximum(statistics["n_steps"], 1))).astype(int) + 1
    n_gradients = int(sum(part["n_gradients"].sum() for part in parts))
    tree = clm5.assemble_posterior(
        joined("unit"),
        sites,
        config.model,
        method="nuts",
        seed=seed,
        wall_time=float(sum(part["wall_time"] for part in parts)),
        n_solves=n_gradients,
        n_gradients=n_gradients,
        sample_stats=statistics,
        attrs={name: getattr(config, name) for name in RECORDED}
        | {
            "free": ",".join(config.free_names),
            "fixed": ",".join(f"{name}={value:.10g}" for name, value in config.held.items()),
        },
    )
    tree["diagnostics"] = xr.DataTree(diagnostics.summary(tree))
    return tree
