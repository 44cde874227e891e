"""The random walk of PRODA: adaptive Metropolis in the unit cube, many sites and chains in one compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

STRETCH = 500  # steps per call: bounds the records in memory, and calls cost nothing
AT_ONCE = 4  # proposals that are drawn together where those outside the cube are drawn again
MOST_DRAWN = 4000  # proposals after which a step stays where it is; published: a minute
JITTER = 1e-14  # added to variances, so that a chain that hardly moved has a Cholesky factor

Cost = Callable[[Float[Array, "site chain free"], Any], Float[Array, "site chain"]]


class State(NamedTuple):
    """Where every chain is, and how it proposes."""

    unit: Float[Array, "site chain free"]
    cost: Float[Array, "site chain"]  # minus the log likelihood
    root: Float[Array, "site chain free free"]  # a proposal of stage 2 is unit + root · noise
    mean: Float[Array, "site chain free"]  # of the states of this stage
    scatter: Float[Array, "site chain free free"]  # sum of squares about it


class Rules(NamedTuple):
    """How steps are made; what differs between them needs no other program.

    annealed: accept by exp(−Δcost · ln(step + 2)), as published, in place of exp(−Δcost).
    redraw: draw a proposal outside the cube again, as published, in place of rejecting it.
    adapt_from, adapt_until: after the first and up to the second of these steps of stage 2, proposals adapt.
    """

    annealed: bool
    redraw: bool
    adapt_from: int
    adapt_until: int


class Walk:
    """A compiled adaptive Metropolis sampler for batches of one shape.

    Stage 1 proposes uniformly in a box around the state; its states give the covariance that stage 2 starts with.
    Stage 2 proposes normally; while it adapts, the covariance of proposals follows from all of its own states so far
    (Haario et al. 2001, Bernoulli 7:223).

    Args:
        cost: (free unit values, data) → minus the log likelihood, for all sites and chains at once.
        half_width: of stage 1's box.
        devices: where sites are spread; the number of sites of a batch must be a multiple of their number.
    """

    def __init__(self, cost: Cost, *, half_width: float, devices: list):
        self.devices = devices

        def near(key, unit, root, redraw) -> Float[Array, " free"]:
            # uniform in a box, drawn again until inside the cube, is uniform in what they have in common
            lower = jnp.where(redraw, jnp.maximum(unit - half_width, 0.0), unit - half_width)
            upper = jnp.where(redraw, jnp.minimum(unit + half_width, 1.0), unit + half_width)
            return lower + jax.random.uniform(key, unit.shape, float) * (upper - lower)

        def normal(key, unit, root, redraw) -> Float[Array, " free"]:
            def draw(carry):
                drawn, key, _ = carry
                key, now = jax.random.split(key)
                candidates = unit + jax.random.normal(now, (AT_ONCE, *unit.shape), float) @ root.T
                inside = redraw & jnp.all(_in_cube(candidates), axis=-1)
                return drawn + AT_ONCE, key, candidates[jnp.argmax(inside)]

            def missing(carry):
                return (carry[0] == 0) | (redraw & ~jnp.all(_in_cube(carry[2])) & (carry[0] < MOST_DRAWN))

            return jax.lax.while_loop(missing, draw, (0, key, unit))[2]

        def propose(key, unit, root, gaussian, redraw) -> Float[Array, " free"]:
            return jax.lax.cond(gaussian, normal, near, key, unit, root, redraw)

        def move(
            state: State, step, keys, scale, data, gaussian, rules: Rules
        ) -> tuple[State, Bool[Array, "site chain"]]:
            now = _on_lanes(lambda key: jax.random.split(jax.random.fold_in(key, step)))(keys)
            given = now[..., 0], state.unit, state.root, gaussian, rules.redraw
            proposal = _on_lanes(propose, (0, 0, 0, None, None))(*given)
            inside = jnp.all(_in_cube(proposal), axis=-1)
            proposed = cost(jnp.where(inside[..., None], proposal, state.unit), data)
            coldness = jnp.where(rules.annealed, jnp.log(step + 2.0), 1.0)
            chance = -(proposed - state.cost) * coldness
            drawn = jnp.log(_on_lanes(lambda key: jax.random.uniform(key, (), float))(now[..., 1]))
            accepted = inside & jnp.isfinite(proposed) & (drawn < chance)
            unit = jnp.where(accepted[..., None], proposal, state.unit)
            before = unit - state.mean
            mean = state.mean + before / step
            scatter = state.scatter + before[..., :, None] * (unit - mean)[..., None, :]
            root = jax.lax.cond(
                gaussian & (step > rules.adapt_from) & (step <= rules.adapt_until),
                lambda: _proposal_root(scatter, step, scale),
                lambda: state.root,
            )
            return State(unit, jnp.where(accepted, proposed, state.cost), root, mean, scatter), accepted

        def advance(state: State, keys, scale, data, gaussian, rules: Rules, done, count):
            def one(i, carry):
                state, units, moved = carry
                state, accepted = move(state, done + i + 1, keys, scale, data, gaussian, rules)
                return state, units.at[i].set(state.unit.astype(jnp.float32)), moved.at[i].set(accepted)

            units = jnp.zeros((STRETCH, *state.unit.shape), jnp.float32)
            moved = jnp.zeros((STRETCH, *state.cost.shape), bool)
            return jax.lax.fori_loop(0, count, one, (state, units, moved))

        self._advance = _spread(advance, devices)
        self._cost = jax.jit(cost)

    def start(self, unit: Float[Array, "site chain free"], data: Any) -> State:
        """The state before stage 1. Where the cost is not finite there, the state's is not."""
        square = jnp.zeros((*unit.shape, unit.shape[-1]))
        return State(unit, self._cost(unit, data), square, jnp.zeros_like(unit), square)

    def second(self, state: State, steps: int, scale: Float[Array, "site chain"]) -> State:
        """The state before stage 2, from the one after the `steps` of stage 1.

        scale: the covariance of proposals is that of the states times scale / number of free parameters.
        """
        root = _proposal_root(state.scatter, steps, scale)
        return state._replace(root=root, mean=jnp.zeros_like(state.mean), scatter=jnp.zeros_like(state.scatter))

    def advance(
        self,
        state: State,
        keys: Key[Array, "site chain"],
        scale: Float[Array, "site chain"],
        data: Any,
        *,
        gaussian: bool,
        rules: Rules,
        done: int,
        count: int,
    ) -> tuple[State, np.ndarray, np.ndarray]:
        """`count` steps (at most `STRETCH`) of stage 2 (`gaussian`) or stage 1, of which `done` are done.

        Args:
            keys: of the stage, one per chain; a step's random numbers depend on them and its number alone.

        Returns:
            The new state; the state after each step, (step, site, chain, free), float32; whether its proposal was
            accepted, (step, site, chain).
        """
        numbers = np.bool_(gaussian), rules, np.int32(done), np.int32(count)
        state, units, moved = self._advance(state, keys, scale, data, *numbers)
        return state, np.asarray(units)[:count], np.asarray(moved)[:count]


def stage_keys(keys: Key[Array, "site chain"], stage: int) -> Key[Array, "site chain"]:
    """Keys of a stage: 0 the starts, 1 and 2."""
    return _on_lanes(lambda key: jax.random.fold_in(key, stage))(keys)


def random_starts(keys: Key[Array, "site chain"], n_free: int) -> Float[Array, "site chain free"]:
    """A draw from the prior for every chain."""
    return _on_lanes(lambda key: jax.random.uniform(key, (n_free,), float))(stage_keys(keys, 0))


def _on_lanes(function: Callable, axes: Any = 0) -> Callable:
    """`function` of one chain, for all (site, chain)."""
    return jax.vmap(jax.vmap(function, axes), axes)


def _spread(advance: Callable, devices: list) -> Callable:
    """Compile, the sites spread over the devices; the last four arguments are the same for all."""
    if len(devices) == 1:
        return jax.jit(advance)
    sites, steps, same = PartitionSpec("site"), PartitionSpec(None, "site"), PartitionSpec()
    return jax.jit(
        jax.shard_map(
            advance,
            mesh=Mesh(np.array(devices), ("site",)),
            in_specs=(sites, sites, sites, sites, same, same, same, same),
            out_specs=(sites, steps, steps),
            check_vma=False,
        )
    )


def _in_cube(unit: Float[Array, "*shape"]) -> Bool[Array, "*shape"]:
    return (unit > 0.0) & (unit < 1.0)


def _proposal_root(
    scatter: Float[Array, "*lane free free"], count: Int[Array, ""] | int, scale: Float[Array, "*lane"]
) -> Float[Array, "*lane free free"]:
    """Cholesky factor of scale / free · covariance, from the sum of squares of `count` states."""
    n_free = scatter.shape[-1]
    covariance = scatter / jnp.maximum(count - 1, 1) * (scale / n_free)[..., None, None]
    return jnp.linalg.cholesky(covariance + JITTER * jnp.eye(n_free))
