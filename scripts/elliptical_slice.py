"""Elliptical slice sampling as a kernel that `bayes.engine.Engine` takes; for `scripts/measure_samplers.py`."""

import jax
import jax.numpy as jnp
from numpyro.infer import HMC
from numpyro.infer.hmc import HMCState
from numpyro.infer.hmc_util import HMCAdaptState


class EllipticalSlice(HMC):
    """Elliptical slice sampling of a posterior whose prior is a standard normal: `updates` of them are a transition.

    Source:
        Murray, Adams & MacKay 2010, AISTATS, algorithm of figure 2. No gradient: `num_steps` counts solves.
    """

    def __init__(self, potential_fn, *, updates: int):
        super().__init__(potential_fn=potential_fn)
        self._updates = updates

    def _log_likelihood(self, position):
        return -self._potential_fn(position) + 0.5 * position @ position

    def init(self, rng_key, num_warmup, init_params=None, model_args=(), model_kwargs=None):
        """The state at a position; nothing is adapted."""
        zero, energy = jnp.zeros(()), self._potential_fn(init_params)
        still = HMCAdaptState(zero + 1, *[None] * 7)
        none = jnp.zeros((), int)
        return HMCState(none, init_params, None, energy, energy, None, None, none, zero + 1, None,
                        jnp.zeros((), bool), still, rng_key)  # fmt: skip

    def sample(self, state, model_args, model_kwargs):
        """`updates` points, each from an ellipse through the last."""

        def update(i, carry):
            position, log_likelihood, solves, key = carry
            key, key_normal, key_height, key_angle = jax.random.split(key, 4)
            other = jax.random.normal(key_normal, position.shape, position.dtype)
            height = log_likelihood + jnp.log(jax.random.uniform(key_height, (), position.dtype))
            angle = jax.random.uniform(key_angle, (), position.dtype, 0.0, 2 * jnp.pi)

            def shrink(bracket):
                angle, low, high, _, _, count, key = bracket
                point = position * jnp.cos(angle) + other * jnp.sin(angle)
                here = self._log_likelihood(point)
                low, high = jnp.where(angle < 0, angle, low), jnp.where(angle < 0, high, angle)
                key, sub = jax.random.split(key)
                return jax.random.uniform(sub, (), point.dtype, low, high), low, high, point, here, count + 1, key

            first = (angle, angle - 2 * jnp.pi, angle, position, -jnp.inf, 0, key)
            last = jax.lax.while_loop(lambda bracket: ~(bracket[4] > height), shrink, first)
            return last[3], last[4], solves + last[5], last[6]

        start = (state.z, self._log_likelihood(state.z), 0, state.rng_key)
        position, _, solves, key = jax.lax.fori_loop(0, self._updates, update, start)
        energy = self._potential_fn(position)
        return state._replace(
            i=state.i + 1, z=position, potential_energy=energy, energy=energy, num_steps=solves, rng_key=key
        )
