"""Leaves that a container derives from its fields when a caller builds it, so that they are computed once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def derive(function: Callable, *fields) -> Any:
    """`function(*fields)`, a tree of arrays, of the kind the fields are: NumPy, JAX on the same devices, or traced.

    Args:
        function: of arrays with leading axes, written for NumPy and JAX alike (`x.__array_namespace__()`).
        fields: arrays that share their leading axes. Integers count as the default float.

    NumPy does the work unless something is traced: it compiles nothing, and float64 stays float64 whatever JAX's global
    precision is when the container is built.
    """
    if any(isinstance(field, jax.core.Tracer) for field in fields):
        return function(*(jnp.asarray(field) for field in fields))
    arrays = [np.asarray(field) for field in fields]
    dtype = np.result_type(*arrays)
    dtype = dtype if np.issubdtype(dtype, np.floating) else np.dtype(float)
    result = function(*(array.astype(dtype) for array in arrays))
    if not isinstance(fields[0], jax.Array):
        return result
    with jax.enable_x64(dtype == np.float64):
        # tied to devices only as the fields are: what is tied to one cannot be spread over several
        return jax.device_put(result, fields[0].sharding if fields[0].committed else None)
