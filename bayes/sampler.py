"""The compiled sampler of a configuration, and the draws of one batch of sites: arrays, not yet a posterior file."""

import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Key

import clm5
from bayes import model
from bayes.config import Config
from bayes.engine import Engine, NoStart
from bayes.kernels import JitteredHMC

STATISTICS = ("lp", "energy", "diverging", "n_steps", "acceptance_rate", "step_size")

Tick = Callable[[int], None]


def silent(count: int) -> None:
    """A `tick` that shows nothing."""


def draw_batch(
    sites: xr.Dataset, config: Config, seed: int, *, attempt: int = 0, width: int | None = None, tick: Tick = silent
) -> dict[str, np.ndarray]:
    """Draws at one batch of sites.

    Args:
        sites: the members of the batch, in memory.
        config: settings; warm-up and draws are those of `config.longer(attempt)`.
        seed: of the run.
        attempt: 0, or 1, 2, … for sites that are sampled again: it makes keys, and so starting points from the prior,
            of its own.
        width: places of the compiled program, by default the number of sites; empty places repeat the first site.
        tick: called with the number of transitions done.

    Returns:
        `unit` (chain, draw, site, 21), where it is inferred `sigma` and all statistics (chain, draw, site),
        `n_gradients` (site,), `seconds` (site,): the time of the batch, shared out evenly.

    Raises:
        ValueError: the likelihood is nowhere finite at a site (named). At a second attempt the starts of the first are
            taken there instead.
    """
    ids = [str(name) for name in sites["site"].values]
    longer, places = config.longer(attempt), padded_places(len(ids), width)
    with jax.enable_x64(True):
        padded = sites.isel(site=places)
        columns = clm5.Forcing.from_sites(padded), clm5.Observations.from_sites(padded)
        sampler = compiled(longer, len(places))
        keys = chain_keys(seed, [ids[place] for place in places], config.chains, attempt)
        try:
            return sampler(keys, *columns, ids, longer.draws, tick)
        except NoStart as error:
            if attempt == 0:
                lost = [name for name, lane in zip(ids, error.lanes, strict=False) if lane.any()]
                raise ValueError(
                    f"the likelihood is not finite anywhere in the prior at {', '.join(lost)}: the column's carbon "
                    "overflows or vanishes there. Check the forcing of these sites (no carbon input? water or "
                    "temperature out of range?) and their horizons (all below bedrock?)"
                ) from error
            first = chain_keys(seed, [ids[place] for place in places], config.chains)
            return sampler(jnp.where(error.lanes, first, keys), *columns, ids, longer.draws, tick)


def draw_batches(sites: xr.Dataset, config: Config, seed: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Draws alone, without the work of a posterior file: what `draw_batch` gives, for batch after batch of sites."""
    n = sites.sizes["site"]
    width = batch_width(n, config.batch, len(jax.devices()))
    for first in range(0, n, width):
        yield draw_batch(sites.isel(site=slice(first, first + width)).load(), config, seed, width=width)


def batch_width(n_sites: int, batch: int, devices: int) -> int:
    """Sites in a batch: as configured, no more than there are, rounded up to a multiple of the devices."""
    return -(-min(batch, n_sites) // devices) * devices


def padded_places(n: int, width: int | None = None) -> np.ndarray:
    """Which of n sites stands at every place of a program: itself, and the first one at the places left over."""
    return np.array([place if place < n else 0 for place in range(width or n)])


def chain_keys(seed: int, ids: list[str], chains: int, attempt: int = 0) -> Key[Array, "site chain"]:
    """A key per site and chain, made of seed, site id, number of the attempt and number of the chain, (site, chain)."""
    hashes = np.array([zlib.crc32(name.encode()) for name in ids], np.uint32)
    root = jax.random.key(seed, impl="threefry2x32")
    root = jax.random.fold_in(root, attempt) if attempt else root
    per_site = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(root, hashes)
    return jax.vmap(lambda key: jax.vmap(partial(jax.random.fold_in, key))(np.arange(chains, dtype=np.uint32)))(
        per_site
    )


_COMPILED: dict[tuple, "Sampler"] = {}


def compiled(config: Config, width: int) -> "Sampler":
    """The sampler of a configuration for batches of so many places, on the most devices that these can be shared by.

    The last one is kept: a next call with like settings need not compile.
    """
    shown = jax.devices()
    devices = shown[: max(n for n in range(1, len(shown) + 1) if width % n == 0)]
    adaptation = (config.warmup, config.target_accept, config.max_tree_depth, config.sampler, config.steps)
    density = (config.model, config.scale, config.spread_of_sigma, config.free_names, config.fixed_unit.tobytes())
    key = (*adaptation, *density, tuple(devices))
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
        self._choices["sigma_spread"] = config.spread_of_sigma
        hmc = partial(JitteredHMC, steps=config.steps, target_accept=config.target_accept)
        self.engine = Engine(
            self.potential,
            lambda key, data: model.latent_from_prior(key, self._n_free, config.scale, config.infer_sigma),
            lambda latent, data: self.report(latent),
            warmup=config.warmup,
            target_accept=config.target_accept,
            max_tree_depth=config.max_tree_depth,
            make_kernel=hmc if config.sampler == "hmc" else None,
            devices=devices,
        )

    def potential(self, latent: Float[Array, " latent"], data) -> Float[Array, ""]:
        """Negative log density of one site in the coordinate of `config.scale`; data is (forcing, observations)."""
        return model.potential(latent, *data, self.config.model, **self._choices)

    def unit(self, latent: Float[Array, " latent"]) -> Float[Array, "21"]:
        """All 21 unit values, the fixed ones included."""
        free = model.unit_from_latent(latent[: self._n_free], self.config.scale)
        return free if self.place is None else self.place(free)

    def report(self, latent: Float[Array, " latent"]) -> Float[Array, " told"]:
        """The unit values and, where it is inferred, sigma behind them."""
        spread = self.config.spread_of_sigma
        if spread is None:
            return self.unit(latent)
        return jnp.append(self.unit(latent), model.sigma_from_score(latent[-1], self.config.model, spread))

    def __call__(self, keys, forcing, observations, members: list[str], draws: int, tick) -> dict[str, np.ndarray]:
        """Sample one batch.

        Args:
            keys: of every place and chain, `chain_keys`.
            forcing, observations: leaves (place, ...).
            members: the ids of the first places; the others are padding and are dropped.
            draws: kept per chain.
            tick: called with the number of transitions done.

        Returns:
            `unit` (chain, draw, member, 21), where it is inferred `sigma` and all statistics (chain, draw, member),
            `n_gradients` and `seconds` (member,).

        Raises:
            NoStart: a chain found no start with finite density.
        """
        began = time.perf_counter()
        records, spent = self.engine.run(keys, (forcing, observations), draws, tick)
        n = len(members)
        arrays = {name: np.moveaxis(records[name][:n], 0, 2) for name in STATISTICS}
        told = np.moveaxis(records["report"][:n], 0, 2)
        arrays["unit"] = told[..., : model.N_PARAMETERS]
        if self.config.infer_sigma:
            arrays["sigma"] = told[..., -1]
        arrays["n_gradients"] = (spent + records["n_steps"].sum(axis=-1)).sum(axis=-1)[:n]
        arrays["seconds"] = np.full(n, (time.perf_counter() - began) / n)
        return arrays
