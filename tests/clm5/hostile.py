"""Columns that no site should have, and how float32 fares on them: `python -m tests.clm5.hostile [--columns N]`.

Every column lies on some faces of the box: turnover times of 0, no depth of decomposition, no input, transfers of 0 and
1. Soils are dry or frozen for months or for ever, receive no litter or too little, and end at any layer.
"""

import argparse
import functools
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import clm5
from clm5.options import RULES
from clm5.parameters import BOUNDS
from tests.clm5.conftest import GOLDEN, at_the_corners, forcing_of

COMBINATIONS = [(b, r) for b in BOUNDS for r in RULES]
FLOAT32_MAX = 3.4e38
LEAST = 1e-6  # gC m⁻³: below, float32 may hold 0
SUMMABLE = 1e30  # gC m⁻³: a sum over layers, and its derivatives by most parameters, is a float32 number
CHUNK = 1500  # columns


LEGEND = """
inf, NaN: layers, those from 1e-6 up that float32 can hold, and all. The others are columns.
not finite: a derivative by a parameter that is not, in float32; log: of the sum over those layers of ln SOC; log+: of
ln (SOC + 1e-3) of all finite layers; sum: of SOC below 1e30. float64: of "log" in float64.
off: a derivative of "log", times the parameter's width in the box, off by more than 1 % of the column's largest.
forward: the derivative of "log" along one direction is not that in reverse, by more than 1 % of its terms' sizes."""


class Hostile(NamedTuple):
    """The same numbers for both precisions."""

    narrow: clm5.Forcing  # float32
    wide: clm5.Forcing  # float64
    unit: jax.Array  # float32


def hostile(golden_forcing: clm5.Forcing, n: int, seed: int = 0) -> Hostile:
    """Forcing in both precisions, and unit parameters in float32, so that both are given the same numbers.

    But for depths: they are compared with the grid's, which float32 rounds as it rounds them.
    """
    rng = np.random.default_rng(2 + seed)
    with jax.enable_x64(True):
        forcing, unit = at_the_corners(golden_forcing, n, seed=21 + seed)
        f = {k: np.array(getattr(forcing, k)) for k in forcing.__dataclass_fields__}
    weather, litter = rng.integers(0, 8, n), rng.integers(0, 8, n)
    f["soil_temperature"][weather == 0] = 200.0
    f["soil_temperature"][weather == 1] = 330.0
    f["water_scalar"][weather == 2] = rng.uniform(0, 1, ((weather == 2).sum(), 20, 12)) ** 4
    f["water_scalar"][(weather == 3)[:, None, None] & (rng.random((n, 1, 12)) < 0.9) & np.ones((n, 20, 12), bool)] = 0.0
    f["litter_input"][litter == 0] = 0.0
    f["litter_input"][litter == 1, 0] = 0.0
    f["litter_input"][litter == 2, 1:] = 0.0
    f["litter_input"][litter == 3] *= 1e-6
    near = rng.random(unit.shape) < 0.1
    unit = np.where(near, np.clip(unit, 1e-6, 1 - 1e-6), unit)
    narrow = {k: v.astype(np.float32) for k, v in f.items()}
    wide = {k: v if "depth" in k else narrow[k].astype(float) for k, v in f.items()}
    return Hostile(clm5.Forcing(**narrow), clm5.Forcing(**wide), jnp.asarray(unit, jnp.float32))


def in_both(columns: Hostile, bounds: str):
    """(theta, forcing) in float32 and in float64."""
    theta = clm5.ParameterSpace(bounds).physical(columns.unit)
    return (theta, columns.narrow), (theta.astype(jnp.float64), columns.wide)


@functools.cache
def losses(loss: str, rules: str):
    """Per column, the sum over the layers with a weight of "log" ln SOC, "log+" ln (SOC + 1e-3) or "sum" SOC."""

    def of_columns(theta, forcing, weight):
        soc = clm5.simulate(theta, forcing, rules=rules).soc
        counted = weight != 0
        soc = jnp.where(counted, soc, 1.0)
        term = {"log": jnp.log(soc), "log+": jnp.log(soc + 1e-3), "sum": soc}[loss]
        return jnp.where(counted, term * weight.astype(soc.dtype), 0.0).sum(axis=-1)

    return of_columns


@functools.cache
def gradient(loss: str, rules: str):
    return jax.jit(jax.grad(lambda theta, *given: losses(loss, rules)(theta, *given).sum()))


@functools.cache
def along(loss: str, rules: str):
    """The derivative per column along a direction, forward."""

    def forward(theta, forcing, weight, direction):
        return jax.jvp(lambda t: losses(loss, rules)(t, forcing, weight), (theta,), (direction,))[1]

    return jax.jit(forward)


def measure(columns: Hostile, bounds: str, rules: str, seed: int) -> dict[str, np.ndarray]:
    """What `main` prints, per layer or per column."""
    narrow, wide = in_both(columns, bounds)
    soc32, soc = (np.asarray(clm5.simulate(*given, rules=rules).soc) for given in (narrow, wide))
    counted = (soc > LEAST) & (soc < FLOAT32_MAX)
    weight = np.where(counted, 1.0, 0.0)
    error = np.abs(soc32[counted] / soc[counted] - 1)
    space = clm5.ParameterSpace(bounds)
    width = space.upper - space.lower
    single, exact = (np.asarray(gradient("log", rules)(*given, weight), float) * width for given in (narrow, wide))
    finite = {"log": np.isfinite(single).all(axis=1)}
    for loss, weighed in (("log+", np.isfinite(soc32)), ("sum", soc32 < SUMMABLE)):
        found = gradient(loss, rules)(*narrow, np.where(weighed, 1.0, 0.0))
        finite[loss] = np.isfinite(np.asarray(found)).all(axis=1)
    direction = np.random.default_rng(seed).normal(size=width.shape)
    apart = {}
    for bits, given, reverse in ((32, narrow, single), (64, wide, exact)):
        step = jnp.asarray(np.broadcast_to(direction * width, exact.shape), given[0].dtype)
        forward = np.asarray(along("log", rules)(*given, weight, step), float)
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.abs(reverse * direction).sum(axis=1)
            difference = np.abs(forward - (reverse * direction).sum(axis=1)) / np.where(total > 0, total, 1.0)
        apart[bits] = ~(difference <= 0.01)
    with np.errstate(invalid="ignore", over="ignore"):
        largest = np.abs(exact).max(axis=1)
        off = np.abs(single - exact).max(axis=1) / np.where(largest > 0, largest, 1.0)
    return {
        "error": error,
        "inf": ~np.isfinite(soc32[counted]),
        "nan": np.isnan(soc32) | np.isnan(soc),
        **{f"not finite, {loss}": ~of_column for loss, of_column in finite.items()},
        "not finite, float64": ~np.isfinite(exact).all(axis=1),
        "off": ~(off <= 0.01),
        **{f"forward, float{bits}": of_column for bits, of_column in apart.items()},
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.clm5.hostile", description=__doc__)
    parser.add_argument("--columns", type=int, default=24_000, help="columns per box and rule set")
    args = parser.parse_args(argv)
    n_chunks = -(-args.columns // CHUNK)
    forcing = forcing_of(np.load(GOLDEN))
    print(f"{args.columns} columns for each box and rule set; SOC from {LEAST:g} to {FLOAT32_MAX:g} gC m⁻³\n")
    shares = ("not finite, log", "not finite, log+", "not finite, sum", "not finite, float64", "off")
    shares += ("forward, float32", "forward, float64")
    print("| box | rules | worst error of SOC | inf | NaN | " + " | ".join(shares) + " |")
    print("|---|---|" + "---:|" * (3 + len(shares)))
    with jax.enable_x64(True):
        for bounds, rules in COMBINATIONS:
            found = []
            for chunk in range(n_chunks):
                print(f"\r{bounds}, {rules}: {chunk + 1} of {n_chunks}", end="", file=sys.stderr, flush=True)
                n = min(CHUNK, args.columns - chunk * CHUNK)
                found.append(measure(hostile(forcing, n, seed=chunk), bounds, rules, seed=chunk))
            whole = {name: np.concatenate([part[name].ravel() for part in found]) for name in found[0]}
            print(file=sys.stderr)
            cells = [f"{whole['error'].max():.1e}", f"{whole['inf'].sum()}", f"{whole['nan'].sum()}"]
            cells += [f"{whole[name].sum()} ({whole[name].mean():.2%})" for name in shares]
            print(f"| {bounds} | {rules} | " + " | ".join(cells) + " |", flush=True)
    print(LEGEND)


if __name__ == "__main__":
    main()
