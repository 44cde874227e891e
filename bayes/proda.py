"""`sample_proda`: the published Bayesian way (PRODA), as published or with its faults removed, as a posterior file."""

import functools
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Key

import clm5
from bayes import diagnostics, proda_criteria
from bayes.proda_config import FAULTS, FURTHER, ProdaConfig
from bayes.proda_walk import STRETCH, Rules, State, Walk, random_starts, stage_keys
from bayes.progress import Progress
from bayes.sampler import batch_width, chain_keys, padded_places
from bayes.storage import RunFolder

RECORDED = ("chains", "explore", "steps", "draws", "half_width", "scale", "adapt_from", "retune")
LEAST_ACCEPTED, MOST_ACCEPTED = 0.1, 0.5  # of proposals: outside of it a chain is run again
NARROWER, WIDER = 0.7, 2.0  # the scale of the proposals then


def sample_proda(
    sites: xr.Dataset,
    config: ProdaConfig | None = None,
    out: str | os.PathLike | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
) -> xr.DataTree:
    """Posterior of every site by PRODA's adaptive Metropolis sampler, as a posterior file (docs/architecture.md).

    Each chain keeps the second half of what it stores: of all states, or, with `accepted_only`, of the accepted ones,
    whose number differs between chains. From that half `draws` evenly spaced states are taken, so that all chains have
    as many; a chain that stored fewer repeats some, and `stored` says how many there were.

    Args:
        sites: a site data set.
        config: settings; default as published, 210,000 solves a site.
        out: folder for finished batches and `posterior.nc`; a killed run goes on after its last finished batch. The
            choices of `best_chain_only` and `filters` may change between calls: they only choose what is reported.
        seed: of all draws. A site's draws depend on the seed and its id, not on its position or its neighbours.
        resume: False refuses a folder that already holds a run.
        progress: show batches done and time left; silent where the output is not a terminal.

    Returns:
        A posterior file with method "proda" and one chain with `best_chain_only`. `constant_data` adds `rmse` (gC m⁻³),
        `r_squared`, `acceptance_rate` (of stage 2), `stored` (site, proda_chain), `best_chain` and `kept` (site) and
        `gelman_rubin` (site, parameter), all three as PRODA computes them. With `filters` it holds the kept sites
        alone, and the attribute `filtered_out` names the others. `n_solves` counts chains that were run again.
        `diagnostics` are those of `bayes.summary`.

    Raises:
        ValueError: for sites that do not fit the schema, a site whose likelihood is not finite at the start (named), an
            `out` that holds another run, or filters that no site passes.
        FileExistsError: `resume` is False and `out` holds a run.

    Not reproduced: the published stage 2 compares its first proposal with the cost of the middle of the box, whatever
    the state; after a chain that was run again, its later chains at that site keep the changed scale; stage 1 is
    repeated where it accepts fewer than 50 of 20,000. All work is done in float64.
    """
    config = ProdaConfig() if config is None else config
    clm5.sites.check(sites)
    ids = [str(name) for name in sites["site"].values]
    folder = None
    if out is not None:
        request = {"config": config.request(), "seed": seed, "sites": clm5.sites.fingerprint(sites)}
        folder = RunFolder(out, request, resume=resume)
    with jax.enable_x64(True):
        parts = _batches(sites, ids, config, seed, folder, progress)
    tree = _assemble(sites, config, seed, parts)
    if folder is not None:
        clm5.save_posterior(tree, folder.posterior)
    return tree


def _batches(
    sites: xr.Dataset, ids: list[str], config: ProdaConfig, seed: int, folder: RunFolder | None, progress: bool
) -> list[dict[str, np.ndarray]]:
    forcing, observations = clm5.Forcing.from_sites(sites), clm5.Observations.from_sites(sites)
    sampler = _Sampler(config)
    width = batch_width(len(ids), config.batch, len(sampler.walk.devices))
    firsts = range(0, len(ids), width)
    parts = []
    with Progress(len(firsts), config.explore + config.steps, shown=progress) as bar:
        for first in firsts:
            members = ids[first : first + width]
            arrays = None if folder is None else folder.load(members)
            if arrays is None:
                places = first + padded_places(len(members), width)  # every batch has one shape
                data = jax.tree.map(lambda leaf, places=places: leaf[places][:, None], (forcing, observations))
                keys = chain_keys(seed, [ids[i] for i in places], config.chains)
                arrays = sampler(keys, data, members, bar.tick)
                if folder is not None:
                    folder.save(members, arrays)
            bar.batch_done()
            parts.append(arrays)
    return parts


@functools.lru_cache(maxsize=1)
def _walk(
    model: clm5.ModelOptions, free: tuple[str, ...], fixed: tuple[float, ...], half_width: float, devices: tuple
) -> Walk:
    """The compiled program; the last one is kept: a next call with like settings need not compile."""
    where = np.array([clm5.NAMES.index(name) for name in free])

    def cost(unit: Float[Array, "site chain free"], data) -> Float[Array, "site chain"]:
        """Minus the log likelihood, up to a constant; data is (forcing, observations), leaves (site, 1, ...)."""
        forcing, observations = data
        held = jnp.broadcast_to(jnp.asarray(fixed, unit.dtype), (*unit.shape[:-1], len(clm5.NAMES)))
        theta = model.space.physical(held.at[..., where].set(unit))
        soc = clm5.simulate(theta, forcing, model.rules).soc
        return -jnp.sum(clm5.log_likelihood(soc, observations, model), axis=-1)

    return Walk(cost, half_width=half_width, devices=list(devices))


class _Sampler:
    """A configuration's way through a batch of sites."""

    def __init__(self, config: ProdaConfig):
        self.config = config
        self.free = np.array([clm5.NAMES.index(name) for name in config.free_names])
        self.walk = _walk(
            config.model,
            config.free_names,
            tuple(config.fixed_unit.tolist()),
            config.half_width,
            tuple(jax.devices()),
        )

    def __call__(
        self, keys: Key[Array, "place chain"], data, members: list[str], tick: Callable[[int], None]
    ) -> dict[str, np.ndarray]:
        """Sample one batch; places behind those of `members` are padding and are dropped.

        Returns:
            `unit` (chain, draw, member, 21), float32; `stored`, `acceptance_rate`, `rmse`, `r_squared` (chain, member);
            `n_solves` (member,), `wall_time`.
        """
        began = time.perf_counter()
        n, config = len(members), self.config
        start = (
            jnp.full((*keys.shape, len(self.free)), 0.5) if config.same_start else random_starts(keys, len(self.free))
        )
        state = self.walk.start(start, data)
        lost = ~np.isfinite(np.asarray(state.cost)[:n]).all(axis=1)
        if lost.any():
            named = ", ".join(name for name, is_lost in zip(members, lost, strict=True) if is_lost)
            raise ValueError(
                f"sample_proda: the likelihood is not finite where chains start, at {named}: the column's carbon "
                "overflows or vanishes there. Check the forcing of these sites (no carbon input? water or temperature "
                "out of range? under rules 'proda', bedrock below layer 20?)"
            )
        scale = np.full(keys.shape, config.scale)
        draws, stored, rate = self._chains(state, keys, scale, data, tick)
        solves = np.full(keys.shape, 1 + config.explore + config.steps)
        for attempt in range(config.retune):
            low, high = rate < LEAST_ACCEPTED, rate > MOST_ACCEPTED
            again = low | high
            if not again[:n].any():
                break
            scale = scale * np.where(low, NARROWER, np.where(high, WIDER, 1.0))
            new = self._chains(state, stage_keys(keys, 3 + attempt), scale, data, lambda count: None)
            draws = np.where(again[..., None, None], new[0], draws)
            stored, rate = np.where(again, new[1], stored), np.where(again, new[2], rate)
            solves += again * (config.explore + config.steps)
        draws, stored, rate, solves = draws[:n], stored[:n], rate[:n], solves[:n]
        unit = np.broadcast_to(config.fixed_unit, (*draws.shape[:-1], len(clm5.NAMES))).astype(np.float32)
        unit[..., self.free] = draws
        unit = np.transpose(unit, (1, 2, 0, 3))
        forcing, observations = jax.tree.map(lambda leaf: leaf[:n], data)
        rmse, r_squared = proda_criteria.fit(unit, forcing, observations, config.model)
        return {
            "unit": unit,
            "stored": stored.T,
            "acceptance_rate": rate.T,
            "rmse": rmse,
            "r_squared": r_squared,
            "n_solves": solves.sum(axis=1),
            "wall_time": np.array(time.perf_counter() - began),
        }

    def _chains(self, state: State, keys, scale, data, tick) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both stages of all chains: draws (site, chain, draw, free), stored states and share of accepted proposals."""
        config = self.config
        rules = Rules(config.annealed, config.redraw, config.adapt_from, config.adapt_until)
        advance = functools.partial(self.walk.advance, scale=jnp.asarray(scale), data=data, rules=rules)
        for done, count in _stretches(config.explore):
            state, _, _ = advance(state, stage_keys(keys, 1), gaussian=False, done=done, count=count)
            tick(count)
        state = self.walk.second(state, config.explore, jnp.asarray(scale))
        lanes = list(np.ndindex(keys.shape))
        kept: dict[tuple[int, ...], list[np.ndarray]] = {lane: [] for lane in lanes}
        accepted = np.zeros(keys.shape, int)
        half = config.steps // 2
        for done, count in _stretches(config.steps):
            state, units, moved = advance(state, stage_keys(keys, 2), gaussian=True, done=done, count=count)
            accepted += moved.sum(axis=0)
            in_half = np.arange(done, done + count) >= half
            for lane in lanes:
                stays = moved[:, *lane] if config.accepted_only else in_half
                kept[lane].append(units[:, *lane][stays])
            tick(count)
        draws, stored = [], []
        for lane in lanes:
            states = np.concatenate(kept[lane])
            states = states[len(states) // 2 :] if config.accepted_only else states
            stored.append(len(states))
            if not len(states):  # nothing was ever accepted
                states = np.asarray(state.unit)[lane].astype(np.float32)[None]
            draws.append(states[np.linspace(0, len(states) - 1, config.draws).round().astype(int)])
        return (
            np.array(draws).reshape(*keys.shape, config.draws, -1),
            np.array(stored).reshape(keys.shape),
            accepted / config.steps,
        )


def _stretches(total: int) -> list[tuple[int, int]]:
    """`total` steps as (done, count) of at most `STRETCH`."""
    return [(done, min(STRETCH, total - done)) for done in range(0, total, STRETCH)]


def _assemble(sites: xr.Dataset, config: ProdaConfig, seed: int, parts: list[dict[str, np.ndarray]]) -> xr.DataTree:
    unit = np.concatenate([part["unit"] for part in parts], axis=2)
    per_chain = {
        name: np.concatenate([part[name] for part in parts], axis=1).T
        for name in ("rmse", "r_squared", "acceptance_rate", "stored")
    }  # (site, chain)
    best = per_chain["rmse"].argmin(axis=1)
    places = np.arange(len(best))
    found: dict[str, tuple] = {name: (("site", "proda_chain"), values) for name, values in per_chain.items()}
    kept = np.ones(len(best), bool)
    if config.chains > 1:
        statistic = proda_criteria.gelman_rubin(unit)
        kept = proda_criteria.passes(statistic, per_chain["r_squared"][places, best])
        found["gelman_rubin"] = (("site", "parameter"), statistic)
    found |= {"best_chain": (("site",), best), "kept": (("site",), kept)}
    ids = [str(name) for name in sites["site"].values]
    dropped = [name for name, good in zip(ids, kept, strict=True) if config.filters and not good]
    if len(dropped) == len(ids):
        raise ValueError(
            f"sample_proda: no site passes PRODA's filters (mean Gelman-Rubin below "
            f"{proda_criteria.GELMAN_RUBIN_LIMIT}, R² above {proda_criteria.R_SQUARED_LIMIT:g}); take more steps, or "
            "filters=False, which reads the finished batches of `out` again"
        )
    if config.best_chain_only:
        unit = unit[best, :, places].transpose(1, 0, 2)[None]
    if dropped:
        sites, unit = sites.isel(site=kept), unit[:, :, kept]
        found = {name: (dims, values[kept]) for name, (dims, values) in found.items()}
    tree = clm5.assemble_posterior(
        unit,
        sites,
        config.model,
        method="proda",
        seed=seed,
        wall_time=float(sum(part["wall_time"] for part in parts)),
        n_solves=int(sum(part["n_solves"].sum() for part in parts)),
        n_gradients=0,
        constant=found,
        attrs={name: getattr(config, name) for name in RECORDED}
        | {name: int(getattr(config, name)) for name in (*FAULTS, *FURTHER)}
        | config.said_of_parameters()
        | {"filtered_out": ",".join(dropped)},
    )
    tree["diagnostics"] = xr.DataTree(diagnostics.of_draws(tree))
    return tree
