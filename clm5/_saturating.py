"""Numbers by which a derivative stays within the range of float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LARGEST_DERIVATIVE = 1e30  # a sum of millions of them is a float32 number


def saturating(x: Float[Array, "*#shape"], shape: tuple[int, ...]) -> Float[Array, "*#shape"]:
    """x itself, in float64; in narrower dtypes x broadcast to `shape`, by whose entries a derivative saturates.

    In reverse, the derivative of a loss by each entry is held within ± `LARGEST_DERIVATIVE`: before the sum over what
    was broadcast, where inf − inf would be NaN. Forward nothing is held.
    """
    if x.dtype == jnp.float64:
        return x

    def held(_, derivative):
        return jnp.clip(derivative, -LARGEST_DERIVATIVE, LARGEST_DERIVATIVE)

    # a solve with the identity: what JAX has for a transpose of one's own that knows forward, reverse and `vmap`
    return jax.lax.custom_linear_solve(lambda same: same, jnp.broadcast_to(x, shape), lambda _, same: same, held)
