"""`bayes.sample` against answers found otherwise: on a grid, by importance sampling, by a plain Metropolis sampler.

None of them uses `bayes.model`: the density is the box times `clm5.log_likelihood`, on the unit cube itself.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chances import z_limit

import bayes
import clm5
from bayes import diagnostics

OPTIONS = clm5.ModelOptions()
FREE = ("q10", "tau4s3")
WHERE = np.array([clm5.NAMES.index(name) for name in FREE])
TWO = bayes.Config(OPTIONS, chains=4, warmup=200, draws=400, max_tree_depth=5, batch=2, free=FREE, reruns=0)
ALL = bayes.Config(OPTIONS, warmup=300, draws=500, batch=4, reruns=0)
PLACES = [1, 2, 3, 4]  # of the virtual sites; at site 0 the prior hardly ever meets the data
Columns = tuple[clm5.Forcing, clm5.Observations]


@functools.partial(jax.jit, static_argnames="options")
def log_density(unit, column: Columns, options: clm5.ModelOptions = OPTIONS):
    """Of points (..., 21) inside the unit cube, up to a constant."""
    forcing, observations = column
    soc = clm5.simulate(options.space.physical(unit), forcing, options.rules).soc
    return jnp.sum(clm5.log_likelihood(soc, observations, options), axis=-1)


def column_of(sites, place: int) -> Columns:
    return clm5.Forcing.from_sites(sites)[place], clm5.Observations.from_sites(sites)[place]


def moments(unit: np.ndarray) -> np.ndarray:
    """u and u² of every parameter, (..., 2, parameter)."""
    return np.stack([unit, unit**2], axis=-2)


def posterior_moments(tree, names) -> dict[str, np.ndarray]:
    """Moments with their Monte Carlo error, (site, 2, parameter)."""
    unit = tree["posterior"]["unit"].sel(parameter=list(names)).transpose("chain", "draw", "site", "parameter")
    return diagnostics.estimate(moments(unit.values.astype(float)))


def furthest(found: dict, other: np.ndarray, error: np.ndarray | float = 0.0) -> float:
    """The largest |z| of a difference."""
    return float(np.abs((found["mean"] - other) / np.hypot(found["mcse_mean"], error)).max())


def on_a_grid(column: Columns, options: clm5.ModelOptions, n: int = 121) -> np.ndarray:
    """Posterior moments of the two free parameters by the midpoint rule."""
    middle = (np.arange(n) + 0.5) / n
    unit = np.tile(TWO.fixed_unit, (n * n, 1))
    unit[:, WHERE] = np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2)
    density = np.asarray(log_density(jnp.asarray(unit), column, options))
    weight = np.exp(density - density.max())
    return np.tensordot(weight / weight.sum(), moments(unit[:, WHERE]), 1)


@pytest.mark.slow
def test_two_free_parameters_agree_with_quadrature(sites, float64):
    simulated = bayes.simulated_sites(sites, TWO, 5, seed=21)
    found = posterior_moments(bayes.sample(simulated, TWO, seed=1, progress=False), FREE)
    columns = [column_of(simulated, place) for place in range(5)]
    limit = z_limit(found["mean"].size)
    right = np.stack([on_a_grid(column, OPTIONS) for column in columns])
    coarser = np.stack([on_a_grid(column, OPTIONS, 61) for column in columns])
    assert np.abs((right - coarser) / found["mcse_mean"]).max() < 0.1  # the grid's own error does not matter
    assert furthest(found, right) < limit
    wrong = np.stack([on_a_grid(column, clm5.ModelOptions(sigma=1.3 * OPTIONS.sigma)) for column in columns])
    assert furthest(found, wrong) > limit  # sigma wrong by a third
    moved = [on_a_grid((f, clm5.Observations(o.upper, o.lower, 1.1 * o.soc)), OPTIONS) for f, o in columns]
    assert furthest(found, np.stack(moved)) > limit  # carbon 10 % too high


@pytest.fixture(scope="module")
def nuts(sites):
    """All 21 parameters at four sites."""
    return posterior_moments(bayes.sample(sites.isel(site=PLACES), ALL, seed=2, progress=False), clm5.NAMES)


def by_importance(key, column: Columns, n: int = 2**19) -> tuple[np.ndarray, np.ndarray, float]:
    """Posterior moments from draws of the prior, weighted by the likelihood; their error; effective draws."""
    unit = jax.random.uniform(key, (n, 21), jnp.float64)
    density = np.asarray(log_density(unit, column))
    weight = np.exp(density - density.max())
    weight /= weight.sum()
    values = moments(np.asarray(unit))
    mean = np.tensordot(weight, values, 1)
    error = np.sqrt(np.tensordot(weight**2, (values - mean) ** 2, 1))  # of a ratio, first order
    return mean, error, 1 / (weight**2).sum()


@pytest.mark.slow
def test_all_parameters_agree_with_importance_sampling_from_the_prior(nuts, sites, float64):
    keys = jax.random.split(jax.random.key(3), len(PLACES))
    answers = [by_importance(key, column_of(sites, place)) for key, place in zip(keys, PLACES, strict=True)]
    mean, error = (np.stack([answer[i] for answer in answers]) for i in (0, 1))
    assert min(answer[2] for answer in answers) > 1000
    limit = z_limit(mean.size)
    assert furthest(nuts, mean, error) < limit
    spread = nuts["mean"][:, 1] - nuts["mean"][:, 0] ** 2  # draws drawn in to 0.7 of their distance from the mean
    narrow = nuts | {"mean": np.stack([nuts["mean"][:, 0], nuts["mean"][:, 0] ** 2 + 0.49 * spread], axis=1)}
    assert furthest(narrow, mean, error) > limit


@functools.partial(jax.jit, static_argnames=("steps", "kept"))
def metropolis(key, unit, column: Columns, *, steps: int, kept: int):
    """Many chains (chain, 21) of random-walk Metropolis in the box; the mean moments of the last `kept` states of each.

    A step moves a few parameters by a size drawn anew, folded back at the walls: symmetric, whatever the size.
    """

    def step(i, state):
        unit, density, total = state
        k_size, k_which, k_move, k_accept = jax.random.split(jax.random.fold_in(key, i), 4)
        size = 10.0 ** jax.random.uniform(k_size, (len(unit), 1), minval=-2.0, maxval=0.0)
        which = jax.random.bernoulli(k_which, 0.3, unit.shape)
        there = unit + jnp.where(which, size * jax.random.normal(k_move, unit.shape), 0.0)
        there = 1.0 - jnp.abs(1.0 - there % 2.0)
        proposed = log_density(there, column)
        accepted = jnp.log(jax.random.uniform(k_accept, (len(unit),))) < proposed - density
        unit = jnp.where(accepted[:, None], there, unit)
        total = total + jnp.where(i >= steps - kept, jnp.stack([unit, unit**2], -2), 0.0)
        return unit, jnp.where(accepted, proposed, density), total

    start = unit, log_density(unit, column), jnp.zeros((len(unit), 2, 21))
    return jax.lax.fori_loop(0, steps, step, start)[2] / kept


@pytest.mark.slow
def test_all_parameters_agree_with_a_plain_metropolis_sampler(nuts, sites, float64):
    chains = 256
    for number, place in enumerate(PLACES):
        key_start, key = jax.random.split(jax.random.key(4 + place))
        start = jax.random.uniform(key_start, (chains, 21), jnp.float64)
        mean = np.asarray(metropolis(key, start, column_of(sites, place), steps=3000, kept=1500))
        error = mean.std(0, ddof=1) / np.sqrt(chains)  # chains are independent, however each of them mixes
        here = {name: nuts[name][number] for name in ("mean", "mcse_mean")}
        limit = z_limit(len(PLACES) * mean[0].size)
        assert furthest(here, mean.mean(0), error) < limit, sites["site"].values[place]
        elsewhere = {name: nuts[name][(number + 1) % len(PLACES)] for name in ("mean", "mcse_mean")}
        assert furthest(elsewhere, mean.mean(0), error) > limit  # the posterior of another site
