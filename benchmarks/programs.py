"""What is timed: the core, the dense solve of the same equations, and the least that any code must do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

import clm5
from benchmarks.inputs import Inputs, placement
from clm5.modifiers import climate

RULES = "conservative"
OPTIONS = clm5.ModelOptions(rules=RULES)  # horizon means, log-normal error
PASSES = 8  # over memory; one more makes the copy that they work on
Q10, W_SCALING = clm5.NAMES.index("q10"), clm5.NAMES.index("w_scaling")


@dataclass(frozen=True)
class Program:
    """A jitted function with the arguments that it is timed on."""

    name: str
    run: Any  # of jax.jit
    arguments: tuple
    columns: int  # that one call computes

    def __call__(self):
        """One call, waited for."""
        return jax.block_until_ready(self.run(*self.arguments))


def soc(theta, forcing):
    """SOC of 20 layers, gC m⁻³."""
    return clm5.simulate(theta, forcing, rules=RULES).soc


def full_state(theta, forcing):
    """All of `clm5.SteadyState`."""
    return clm5.simulate(theta, forcing, rules=RULES)


def log_likelihood(theta, forcing, observations):
    """Of all horizons of all columns, by physical parameters; its gradient holds that of every column."""
    return clm5.log_likelihood(soc(theta, forcing), observations, OPTIONS).sum()


def dense_soc(theta, forcing):
    """SOC of 20 layers by a 140 × 140 LAPACK (on a GPU: cuSOLVER) solve a column."""
    return clm5.dense.simulate_soc(theta, forcing, RULES)


def monthly_means(theta, forcing):
    """The core's own pass over the months: 240 modifiers a column, their means without and with nitrogen."""
    return climate(forcing, theta[:, Q10], theta[:, W_SCALING])


def monthly_values(theta, forcing):
    """The 240 modifiers of a column in plain JAX, elementwise, written out."""
    q10, w_scaling = theta[:, Q10, None, None], theta[:, W_SCALING, None, None]
    temperature = jnp.exp(jnp.log(q10) * (forcing.soil_temperature - 298.15) / 10.0)
    return temperature * jnp.minimum(w_scaling * forcing.water_scalar, 1.0) * forcing.oxygen_scalar


FORWARD, FULL_STATE, GRADIENT = jax.jit(soc), jax.jit(full_state), jax.jit(jax.value_and_grad(log_likelihood))


def passes(numbers):
    """Every number read and written in place, again and again: the time is that of memory."""
    n = jnp.where(numbers[0] < jnp.inf, PASSES, 1)  # not known to the compiler, which would merge passes
    return jax.lax.fori_loop(0, n, lambda _, x: x + 1.0, numbers)


def core_programs(inputs: Inputs) -> dict[str, Program]:
    """The core at work, as a user jits it: everything is an argument, nothing a constant of the program."""
    site, columns = (inputs.theta, inputs.forcing), inputs.columns
    horizons = (*site, inputs.observations)
    return {
        "forward": Program("forward: 20-layer SOC", FORWARD, site, columns),
        "state": Program("forward: full state", FULL_STATE, site, columns),
        "gradient": Program("value and gradient, 21 parameters", GRADIENT, horizons, columns),
    }


def yardsticks(inputs: Inputs, few: Inputs, mesh: Mesh, *, passed_over: int) -> dict[str, Program]:
    """What the core is held against: dense solves of `few` columns, the modifiers alone, passes over memory."""
    arguments, few_arguments = (inputs.theta, inputs.forcing), (few.theta, few.forcing)
    numbers = jax.device_put(jnp.zeros(passed_over), placement(mesh))
    dense, means, values, memory = (
        _everywhere(function, mesh) for function in (dense_soc, monthly_means, monthly_values, passes)
    )
    return {
        "dense": Program("dense solve", dense, few_arguments, few.columns),
        "means": Program("floor: monthly modifiers and means", means, arguments, inputs.columns),
        "values": Program("floor: 240 modifiers written out", values, arguments, inputs.columns),
        "memory": Program("passes over memory", memory, (numbers,), 2 * PASSES * numbers.nbytes),  # a "column": a byte
    }


def _everywhere(function: Callable, mesh: Mesh) -> Any:
    """Jitted, on every device's own columns; the core does the same by itself."""
    if mesh.size == 1:
        return jax.jit(function)
    columns = PartitionSpec(*mesh.axis_names)
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=columns, out_specs=columns, check_vma=False))
