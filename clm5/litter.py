"""Where plant carbon enters the soil: the vertical distribution of litter input (model.md §4, Input)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from clm5.forcing import Forcing
from clm5.grid import DEPTH, INTERFACE, N_LAYERS
from clm5.transport import bedrock_position


def is_frozen(forcing: Forcing, rules: str) -> Bool[Array, ""]:
    """Whether a column counts as frozen, which puts all its carbon input into layer 0.

    conservative: no active layer in any month, this year or last. proda: not all months of last year's active layer
    above 0. binn: their mean not above 0.
    """
    last_year = forcing.active_layer_depth_last_year
    if rules == "proda":
        return ~jnp.all(last_year > 0)
    if rules == "binn":
        return jnp.mean(last_year) <= 0
    return jnp.all(jnp.maximum(forcing.active_layer_depth, last_year) <= 0)


def log_input_fraction(forcing: Forcing, beta: Float[Array, ""], rules: str) -> Float[Array, "layer"]:
    """ln v_j, the share of the carbon input that enters layer j; −inf where none does.

        v_j = (beta^(100 zᵢ[j−1]) − beta^(100 zᵢ[j])) / (1 − beta^(100 · 8.6)),   zᵢ in m, beta per cm

    Under conservative rules what would enter below bedrock enters the deepest soil layer, as CTSM moves it. As a
    logarithm, because v leaves float32 (and K with it, so that their ratio matters) well inside the prior box.

    Source: Jackson et al. 1996.
    """
    log_beta = jnp.log(beta)
    layer = jnp.arange(N_LAYERS)
    lower = jnp.asarray(INTERFACE, beta.dtype)
    upper = jnp.concatenate([jnp.zeros_like(lower[:1]), lower[:-1]])
    reached = jnp.full(N_LAYERS, True)
    if rules == "conservative":
        bedrock = bedrock_position(forcing.bedrock_layer, rules)
        lower = jnp.where(layer == bedrock - 1, DEPTH, jnp.where(layer < bedrock, lower, 2 * DEPTH))
        reached = layer < bedrock
    log_share = (
        100.0 * upper * log_beta
        + jnp.log(-jnp.expm1(100.0 * (lower - upper) * log_beta))
        - jnp.log(-jnp.expm1(100.0 * DEPTH * log_beta))
    )
    log_share = jnp.where(reached, log_share, -jnp.inf)
    surface_only = jnp.where(layer == 0, 0.0, -jnp.inf)
    return jnp.where(is_frozen(forcing, rules), surface_only, log_share)
