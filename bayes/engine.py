"""NumPyro's NUTS for many sites and chains at once: one compiled program, advanced in short stretches."""

# Every (site, chain) is a lane with its own key, step size and mass matrix. Lanes are vmapped and, where JAX shows more
# than one device, the sites are spread over them. The lanes of a device wait for each other at every draw, so that a
# draw costs as much as the deepest tree among them: shallow trees and more draws waste less than deep trees and few.

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray
from numpyro.infer import HMC, NUTS

STRETCH = 25  # draws per call: short enough for a progress bar, long enough that calls cost nothing
CANDIDATES = 8  # starting points that a lane tries until its density is finite

Potential = Callable[[Float[Array, " dim"], Any], Float[Array, ""]]
State = Any  # numpyro's HMCState, every leaf with leading axes (site, chain)
Records = dict[str, np.ndarray]
MakeKernel = Callable[..., HMC]


class NoStart(FloatingPointError):
    """Chains that found no start with finite density; `lanes` is their mask, (site, chain)."""

    def __init__(self, lanes: np.ndarray):
        super().__init__(f"{int(lanes.sum())} of {lanes.size} chains found no start with finite density")
        self.lanes = lanes


class Engine:
    """A compiled sampler for batches of one shape.

    Args:
        potential: (position of one chain, data of one site) → negative log density up to a constant.
        draw_start: (key, data of one site) → a position to start from; called until the potential is finite there.
        report: (position, data of one site) → what a draw should be kept as, for example the unit cube.
        warmup: transitions that adapt step size and mass matrix.
        target_accept, max_tree_depth: as in `numpyro.infer.NUTS`.
        make_kernel: another kernel than that NUTS: called with `potential_fn=` (of one chain), it gives an object with
            the `init`, the `sample` and the state of `numpyro.infer.HMC` (docs/samplers.md compares some).
        devices: where sites are spread; default all devices that JAX shows. The number of sites of a batch must be a
            multiple of their number.
    """

    def __init__(
        self,
        potential: Potential,
        draw_start: Callable[[PRNGKeyArray, Any], Float[Array, " dim"]],
        report: Callable[[Float[Array, " dim"], Any], Float[Array, "..."]],
        *,
        warmup: int,
        target_accept: float,
        max_tree_depth: int,
        make_kernel: MakeKernel | None = None,
        devices: list | None = None,
    ):
        self.devices = jax.devices() if devices is None else devices
        self._warmup = warmup
        settings = {"target_accept_prob": target_accept, "max_tree_depth": max_tree_depth}

        def kernel(data):
            # a fresh kernel per trace: numpyro keeps the functions of the last trace inside it
            bound = lambda position: potential(position, data)  # noqa: E731
            return NUTS(potential_fn=bound, **settings) if make_kernel is None else make_kernel(potential_fn=bound)

        def start(key, data):
            key_start, key_chain = jax.random.split(key)
            candidates = jax.vmap(lambda k: draw_start(k, data))(jax.random.split(key_start, CANDIDATES))
            energies, slopes = jax.vmap(jax.value_and_grad(lambda x: potential(x, data)))(candidates)
            usable = jnp.isfinite(energies) & jnp.all(jnp.isfinite(slopes), axis=-1)
            position = candidates[jnp.argmax(usable)]
            return kernel(data).init(key_chain, warmup, init_params=position)

        def advance(state, data, count):
            sampler = kernel(data)
            sampler.init(jax.random.key(0), warmup, init_params=state.z)  # binds the functions; its state is not used

            def step(i, carry):
                state, kept = carry
                state = sampler.sample(state, (), {})
                return state, jax.tree.map(lambda buffer, value: buffer.at[i].set(value), kept, record(state))

            def record(state):
                return {
                    "report": report(state.z, data),
                    "lp": -state.potential_energy,
                    "energy": state.energy,
                    "diverging": state.diverging,
                    "n_steps": state.num_steps,
                    "acceptance_rate": state.accept_prob,
                    "step_size": state.adapt_state.step_size,
                }

            shapes = jax.eval_shape(record, state)
            empty = jax.tree.map(lambda s: jnp.zeros((STRETCH, *s.shape), s.dtype), shapes)
            return jax.lax.fori_loop(0, count, step, (state, empty))

        start_chains = jax.vmap(start, in_axes=(0, None))
        self._start = self._spread(jax.vmap(start_chains), replicated=0)
        advance_chains = jax.vmap(advance, in_axes=(0, None, None))
        self._advance = self._spread(jax.vmap(advance_chains, in_axes=(0, 0, None)), replicated=1)

    def _spread(self, batch: Callable, replicated: int) -> Callable:
        """Compile `batch`, its leading site axis spread over the devices; the last arguments are the same for all."""
        if len(self.devices) == 1:
            return jax.jit(batch)
        sites, same = PartitionSpec("site"), PartitionSpec()
        mesh = Mesh(np.array(self.devices), ("site",))
        specs = (sites, sites, *[same] * replicated)
        return jax.jit(jax.shard_map(batch, mesh=mesh, in_specs=specs, out_specs=sites, check_vma=False))

    def start(self, keys: Key[Array, "site chain"], data: Any) -> State:
        """The first state of every lane. `keys` has shape (site, chain), the leaves of `data` lead with site."""
        return self._start(keys, data)

    def advance(self, state: State, data: Any, count: int) -> tuple[State, Records]:
        """`count` transitions (at most `STRETCH`): the new state, and records of shape (site, chain, count, ...)."""
        if not 1 <= count <= STRETCH:
            raise ValueError(f"Engine.advance: count must lie in 1 … {STRETCH}, got {count}")
        state, kept = self._advance(state, data, np.int32(count))
        return state, {name: np.asarray(value)[:, :, :count] for name, value in kept.items()}

    def run(
        self, keys: Key[Array, "site chain"], data: Any, draws: int, tick: Callable[[int], None] = lambda count: None
    ) -> tuple[Records, Int[np.ndarray, "site chain"]]:
        """Warm up, then draw.

        Args:
            keys: one per lane, (site, chain).
            data: pytree, leaves (site, ...).
            draws: transitions kept per chain.
            tick: called with the number of transitions after each stretch.

        Returns:
            Records of shape (site, chain, draw, ...), and the gradients spent in warm-up per lane.

        Raises:
            NoStart: if a lane finds no start with finite density; `.lanes` is a (site, chain) mask of them.
        """
        state = self.start(keys, data)
        lost = ~np.isfinite(np.asarray(state.potential_energy))
        if lost.any():
            raise NoStart(lost)
        spent = np.zeros(keys.shape, int)
        for count in stretches(self._warmup):
            state, records = self.advance(state, data, count)
            spent += records["n_steps"].sum(axis=-1)
            tick(count)
        kept = []
        for count in stretches(draws):
            state, records = self.advance(state, data, count)
            kept.append(records)
            tick(count)
        return {name: np.concatenate([part[name] for part in kept], axis=2) for name in kept[0]}, spent


def stretches(total: int) -> list[int]:
    """`total` transitions as calls of at most `STRETCH`."""
    return [min(STRETCH, total - first) for first in range(0, total, STRETCH)]
