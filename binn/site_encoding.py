"""A site's own profile and forcing as numbers for a network, for those that answer what one profile says."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

import clm5
from clm5 import ModelOptions
from clm5.grid import NODE
from clm5.observation import predict_horizons

CENTRES = np.linspace(np.log(0.02), np.log(3.0), 16)  # ln m, of the depths that horizons are told by
WIDTH = float(CENTRES[1] - CENTRES[0])
LAYERS = (0, 2, 4, 6, 8, 10, 12, 14)  # that stand for the forcing's profile: 0.01 to 2.9 m
SITE_COLUMNS = 2 * len(CENTRES) + len(LAYERS) * 6 + 4 + 2


def encode_site(
    forcing: clm5.Forcing, observations: clm5.Observations, options: ModelOptions, middle: Float[Array, "21"]
) -> Float32[Array, "site column"]:
    """Forcing and profile as (site, SITE_COLUMNS) numbers of about unit size; a site without horizons says so.

    The profile is ln(observed) − ln(modelled with the parameters `middle`) of the horizons, averaged around 16 depths,
    with the number of horizons around each: the model has then said what the litter and the climate do.

    Args:
        forcing: of a stack of sites.
        observations: of the same sites, padded with NaN.
        options: the column and the operator.
        middle: unit parameters of the column that the profile is compared with.
    """
    theta = jnp.broadcast_to(options.space.physical(middle), (*forcing.batch_shape, len(clm5.NAMES)))
    soc = clm5.simulate(theta, forcing, rules=options.rules).soc
    seen = observations.measured & (observations.soc > 0)
    residual = jnp.log(jnp.where(seen, observations.soc, 1.0)) - jnp.log(predict_horizons(soc, observations, options))
    depth = jnp.log(jnp.maximum(jnp.where(seen, 0.5 * (observations.upper + observations.lower), 1.0), 1e-3))
    weight = jnp.exp(-0.5 * ((depth[..., None] - CENTRES) / WIDTH) ** 2) * seen[..., None]
    count = weight.sum(axis=-2)
    profile = (weight * jnp.where(seen, residual, 0.0)[..., None]).sum(axis=-2) / (count + 0.1)
    chosen = np.array(LAYERS)
    temperature, water = forcing.soil_temperature[:, chosen], forcing.water_scalar[:, chosen]
    parts = [
        profile,
        jnp.log1p(count),
        (jnp.log(soc[:, chosen] + 1.0) - 9.0) / 2.0,
        (temperature.mean(axis=-1) - 283.0) / 10.0,
        jnp.ptp(temperature, axis=-1) / 20.0,
        2.0 * water.mean(axis=-1) - 1.0,
        2.0 * forcing.oxygen_scalar[:, chosen].mean(axis=-1) - 1.0,
        2.0 * forcing.nitrogen_scalar[:, chosen].mean(axis=-1) - 1.0,
        jnp.log(forcing.annual_litter_input + 1.0) - 4.0,
        jnp.minimum(forcing.active_layer_depth.max(axis=-1, keepdims=True), NODE[-1]) / 5.0,
        forcing.bedrock_layer[:, :1] / 10.0 - 1.5,
    ]
    return jnp.concatenate([jnp.clip(part, -10.0, 10.0) for part in parts], axis=-1).astype(jnp.float32)
