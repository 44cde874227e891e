"""The array types that callers may put into containers: JAX's own, and NumPy's."""

from typing import TYPE_CHECKING

import jax
import numpy as np

if TYPE_CHECKING:  # for a type checker all arrays are JAX's: NumPy's can do what is done with them here
    AnyArray = jax.Array
else:
    AnyArray = jax.Array | np.ndarray
