"""What an effective draw costs by sampler and setting, at the same virtual sites; see docs/samplers.md.

uv run python scripts/measure_samplers.py [--sites 8] [--seed 5] [--only NAME ...]
uv run python scripts/measure_samplers.py --lockstep 64
uv run python scripts/measure_samplers.py --timed 64
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
from numpyro.infer import NUTS
from scipy.special import ndtri

import bayes
import clm5
from bayes import Config
from bayes.diagnostics import ESS_LIMIT, R_HAT_LIMIT, estimate
from bayes.engine import Engine, stretches
from bayes.kernels import JitteredHMC
from bayes.sampler import Sampler, chain_keys

sys.path.insert(0, str(Path(__file__).parent))
from elliptical_slice import EllipticalSlice

CHAINS, WARMUP, DRAWS = 4, 400, 800
REFERENCE = Config(warmup=1000, draws=3000, target_accept=0.95, max_tree_depth=7)
UPDATES = 25  # elliptical slices per draw
TIMED = {"default": Config(), "hmc": Config(sampler="hmc", target_accept=0.7)}


def nuts(depth, accept: float, dense: bool = False) -> Callable:
    """NUTS with a dense metric, or another cap on its trees in warm-up (a pair)."""
    return partial(NUTS, target_accept_prob=accept, max_tree_depth=depth, dense_mass=dense)


def settings() -> dict[str, tuple[str, Callable]]:
    """Name → (scale, kernel)."""
    chosen = {f"NUTS depth {d}, accept {a}": ("probit", nuts(d, a)) for d in (4, 5, 6, 8) for a in (0.8, 0.9)}
    chosen |= {f"NUTS depth {d}, accept {a}, logit": ("logit", nuts(d, a)) for d, a in ((6, 0.8), (6, 0.9))}
    chosen |= {
        f"NUTS depth {d}, accept {a}, dense": ("probit", nuts(d, a, True))
        for d, a in ((4, 0.8), (5, 0.8), (6, 0.8), (6, 0.9))
    }
    chosen |= {
        f"HMC {steps} steps, accept {accept}": ("probit", partial(JitteredHMC, steps=steps, target_accept=accept))
        for steps, accept in (
            (8, 0.8),
            (16, 0.8),
            (16, 0.9),
            (24, 0.8),
            (32, 0.7),
            (32, 0.8),
            (32, 0.9),
            (48, 0.8),
            (64, 0.8),
        )
    }
    chosen |= {
        f"HMC {steps} steps, accept 0.8, dense": (
            "probit",
            partial(JitteredHMC, steps=steps, target_accept=0.8, dense=True),
        )
        for steps in (8, 16, 32)
    }
    return chosen | {"elliptical slice": ("probit", partial(EllipticalSlice, updates=UPDATES))}


def run(sites, config: Config, make_kernel, seed: int) -> dict:
    """Records (site, chain, draw, ...) after warm-up, with the wall and the processor time of the kept draws."""
    data = clm5.Forcing.from_sites(sites), clm5.Observations.from_sites(sites)
    sampler = Sampler(config, jax.devices())
    engine = Engine(
        sampler.potential,
        lambda key, _: jax.random.normal(key, (len(clm5.NAMES),)),
        lambda latent, _: sampler.unit(latent),
        warmup=config.warmup,
        target_accept=config.target_accept,
        max_tree_depth=config.max_tree_depth,
        make_kernel=make_kernel,
    )
    keys = chain_keys(seed, [str(name) for name in sites.site.values], config.chains)
    state, warm = engine.start(keys, data), 0
    for count in stretches(config.warmup):
        state, records = engine.advance(state, data, count)
        warm = warm + records["n_steps"].sum(-1)
    wall, processor, kept = time.perf_counter(), time.process_time(), []
    for count in stretches(config.draws):
        state, records = engine.advance(state, data, count)
        kept.append(records)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    joined = {name: np.concatenate([part[name] for part in kept], axis=2) for name in kept[0]}
    return joined | {"warm": warm, "wall": wall, "processor": processor}


def executed(steps: np.ndarray, order: np.ndarray, batch: int) -> np.ndarray:
    """Gradients that are executed at every site, of steps (site, chain, draw), in batches of `order`: (site,)."""
    cost = np.zeros(len(steps))
    for first in range(0, len(order), batch):
        members = order[first : first + batch]
        cost[members] = steps.shape[1] * steps[members].max(axis=(0, 1)).sum()
    return cost


def judged(found: dict, reference: dict | None) -> list:
    """One row of the table."""
    unit = np.moveaxis(found["report"], 0, 2)
    sites = unit.shape[2]
    score = estimate(ndtri(np.clip(unit, 1e-12, 1 - 1e-12)))
    bulk, tail = score["ess_bulk"].min(-1), score["ess_tail"].min(-1)
    steps = found["n_steps"]
    used = steps.sum(axis=(1, 2))
    waited = executed(steps, np.arange(sites), sites)
    effective = np.minimum(bulk, tail)
    row = [
        used.mean() / steps[0].size,
        np.median(used / bulk),
        np.median(used / tail),
        np.max(used / effective),
        np.median(waited / effective),
        used.sum() / waited.sum(),
        np.median(effective) * sites / found["wall"],
        1e6 * found["processor"] / waited.sum(),
        score["rhat"].max(),
        np.mean((score["rhat"].max(-1) < R_HAT_LIMIT) & (effective >= ESS_LIMIT)),
        found["diverging"].sum(),
    ]
    if reference is None:
        return [*row, np.nan, np.nan]
    ratio = score["sd"] / reference["sd"]
    apart = [
        np.abs(score[what] - reference[what]) / np.hypot(score[error], reference[error])
        for what, error in (("mean", "mcse_mean"), ("sd", "mcse_sd"))
    ]
    return [*row, np.exp(np.log(ratio).mean()), np.max(apart)]


HEADS = (
    "steps a draw", "per bulk draw", "per tail draw", "the same, worst site", "executed per effective draw",
    "used / executed", "effective draws/s a site", "µs a gradient", "R-hat", "pass", "divergences",
    "sd ratio", "largest z",
)  # fmt: skip
FORMATS = ("{:.0f}", "{:.0f}", "{:.0f}", "{:.0f}", "{:.0f}", "{:.2f}", "{:.1f}", "{:.1f}", "{:.3f}", "{:.2f}", "{:.0f}",
           "{:.3f}", "{:.1f}")  # fmt: skip


def compare(asked: argparse.Namespace) -> None:
    """Print a row per setting."""
    sites = clm5.sites.virtual(asked.sites, seed=asked.seed)
    with jax.enable_x64(True):
        long = run(sites, REFERENCE, None, asked.seed + 1)
        reference = estimate(ndtri(np.moveaxis(long["report"], 0, 2)))
        print(f"{asked.sites} sites, {CHAINS} chains, warm-up {WARMUP}, draws {DRAWS}, seed {asked.seed}", flush=True)
        print("| sampler | " + " | ".join(HEADS) + " |\n" + "|---" * (len(HEADS) + 1) + "|")
        print_row("reference", judged(long, None))
        for name, (scale, kernel) in settings().items():
            if asked.only and name not in asked.only:
                continue
            config = Config(chains=CHAINS, warmup=WARMUP, draws=DRAWS, scale=scale)
            print_row(name, judged(run(sites, config, kernel, asked.seed), reference))


def print_row(name: str, row: list) -> None:
    """A line of the table."""
    print("| " + " | ".join([name, *(f.format(x) for f, x in zip(FORMATS, row, strict=True))]) + " |", flush=True)


def lockstep(asked: argparse.Namespace) -> None:
    """What lanes wait for each other by the size of a batch, and what grouping sites by their cost would save."""
    sites = clm5.sites.virtual(asked.lockstep, seed=asked.seed)
    config = Config()
    with jax.enable_x64(True):
        found = run(sites, config, None, asked.seed)
    steps = found["n_steps"]
    of_site = steps.mean(axis=(1, 2))
    lanes = steps.mean(axis=2)
    print(f"NUTS as by default, {len(steps)} sites; gradients a draw: variance between sites {of_site.var():.1f}, "
          f"between chains of a site {lanes.var(axis=1).mean():.1f}, within a chain {steps.var(axis=2).mean():.1f}; "
          f"mean {of_site.mean():.1f}, of sites {of_site.min():.1f} to {of_site.max():.1f}; draws at the cap "
          f"{np.mean(steps >= 2**config.max_tree_depth - 1):.2f}")  # fmt: skip
    orders = {"as they come": np.arange(len(steps)), "sorted by warm-up": np.argsort(found["warm"].sum(axis=1)),
              "sorted by their own cost": np.argsort(of_site)}  # fmt: skip
    print("| used / executed | " + " | ".join(orders) + " |\n|---|---|---|---|")
    for batch in (1, 4, 16, 64):
        shares = [steps.sum() / executed(steps, order, batch).sum() for order in orders.values()]
        print(f"| batches of {batch} sites | " + " | ".join(f"{share:.3f}" for share in shares) + " |")
    print(f"effective draws of the slowest parameter: {np.array2string(slowest(found), precision=0)}")


def slowest(found: dict) -> np.ndarray:
    """Effective draws, bulk or tail, of the slowest parameter at every site."""
    score = estimate(np.moveaxis(found["report"], 0, 2))
    return np.minimum(score["ess_bulk"], score["ess_tail"]).min(-1)


def timed(asked: argparse.Namespace) -> None:
    """`bayes.sample` at that many virtual sites, its compilation included."""
    sites = clm5.sites.virtual(asked.timed, seed=asked.seed)
    for name, config in TIMED.items():
        print_time(name, sites, config, asked.seed)


def print_time(name: str, sites, config: Config, seed: int) -> None:
    """One run of all sites."""
    began, processor = time.perf_counter(), time.process_time()
    tree = bayes.sample(sites, config, seed=seed, progress=False)
    wall, processor = time.perf_counter() - began, time.process_time() - processor
    table = bayes.summary(tree)
    print(f"bayes.sample, {name}, {sites.sizes['site']} sites, {len(jax.devices())} devices: {wall:.0f} s "
          f"({processor:.0f} s of the processors), {float(table.seconds.sum()):.0f} s in the sampler with its "
          f"compilation; passed {int(table.converged.sum())}, sampled again {int((table.attempts > 1).sum())}; "
          f"gradients a site {float(table.n_gradients.mean()):.0f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=settings())
    parser.add_argument("--lockstep", type=int, metavar="SITES")
    parser.add_argument("--timed", type=int, metavar="SITES")
    asked = parser.parse_args()
    for chosen, measure in ((asked.lockstep, lockstep), (asked.timed, timed)):
        if chosen:
            measure(asked)
    if not (asked.lockstep or asked.timed):
        compare(asked)
