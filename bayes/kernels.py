"""Hamiltonian Monte Carlo with trajectories that are the same length in every lane, so that none waits for another."""

import jax
from jaxtyping import PRNGKeyArray
from numpyro.infer import HMC
from numpyro.infer.hmc import HMCState

SHORT = 1 - 1e-9  # numpyro rounds the length over the step size up


class JitteredHMC(HMC):
    """NumPyro's HMC, its step size and metric adapted as for NUTS, with a random number of leapfrog steps.

    The number is uniform on 1 … 2 · `steps` − 1 and follows from the number of the transition alone: all lanes of a
    program make the same, and detailed balance holds. It varies since a fixed one returns to where it started wherever
    a period of the motion fits.

    Args:
        potential_fn: position of one chain → negative log density.
        steps: mean number of leapfrog steps, so of gradients, per draw.
        target_accept: mean acceptance that the step size is adapted to.
        dense: a full metric in place of a diagonal one.

    Source:
        Neal 2011, MCMC using Hamiltonian dynamics, section 3.2 (arXiv 1206.1901).
    """

    def __init__(self, potential_fn, *, steps: int, target_accept: float, dense: bool = False):
        super().__init__(
            potential_fn=potential_fn, target_accept_prob=target_accept, dense_mass=dense, trajectory_length=1.0
        )
        self._mean_steps = steps

    def sample(self, state: HMCState, model_args, model_kwargs) -> HMCState:
        """One transition."""
        steps = jax.random.randint(_key_of(state.i), (), 1, 2 * self._mean_steps)
        length = SHORT * steps * state.adapt_state.step_size
        moved = super().sample(state._replace(trajectory_length=length), model_args, model_kwargs)
        return moved._replace(trajectory_length=state.trajectory_length)


def _key_of(transition) -> PRNGKeyArray:
    """The same in every lane, seed and program."""
    return jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), transition)
