"""From a modelled profile to measured horizons, and the error models that both ways of inference use (model.md §5)."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from clm5._arrays import AnyArray
from clm5._pytree import pytree
from clm5.grid import N_LAYERS, NODE
from clm5.options import OPERATORS, ModelOptions

if TYPE_CHECKING:
    import xarray as xr

THINNEST = 1e-6  # m: a horizon thinner than this is a point at its middle
FLOOR = 1e-3  # gC m⁻³: less is not told apart from nothing (below bedrock, say), and its logarithm stays finite


@pytree
class Observations:
    """Measured horizons of one profile, or of a stack of them; padding is NaN in all three fields."""

    upper: Float[AnyArray, "*site horizon"]  # m
    lower: Float[AnyArray, "*site horizon"]  # m
    soc: Float[AnyArray, "*site horizon"]  # gC m⁻³

    @property
    def measured(self) -> Bool[Array, "*site horizon"]:
        """Where there is a usable measurement: positive carbon between finite depths. False for padding."""
        return jnp.isfinite(self.upper) & jnp.isfinite(self.lower) & jnp.isfinite(self.soc) & (self.soc > 0)

    def __getitem__(self, index) -> "Observations":
        """Select profiles of a stack."""
        return Observations(self.upper[index], self.lower[index], self.soc[index])

    @classmethod
    def from_sites(cls, sites: "xr.Dataset", dtype=None) -> "Observations":
        """The horizons of every site of a site data set, shape (site, horizon)."""
        missing = [name for name in ("upper", "lower", "soc") if name not in sites]
        if missing:
            raise ValueError(f"Observations.from_sites: the data set lacks {', '.join(missing)} (site, horizon)")
        fields = (sites[name].transpose("site", "horizon").values for name in ("upper", "lower", "soc"))
        return cls(*(jnp.asarray(field, dtype=dtype or float) for field in fields))


def observe(
    soc: Float[ArrayLike, "*batch layer"],
    upper: Float[ArrayLike, "*batch2 horizon"],
    lower: Float[ArrayLike, "*batch2 horizon"],
    operator: str = "horizon",
) -> Float[Array, "*batch3 horizon"]:
    """What a measurement of each horizon would find in a modelled profile, gC m⁻³.

    Args:
        soc: profile at the 20 nodes, gC m⁻³; leading axes broadcast with those of the horizons.
        upper, lower: horizon limits, m, positive down. NaN marks padding and gives NaN, as does upper below lower.
        operator: "horizon", mean between upper and lower of the profile that is linear between nodes and constant
            beyond the first and last; "linear", that profile at the middle of the horizon (BINN); "pchip", monotone
            cubic interpolation at the middle (PRODA), constant beyond the nodes.

    Returns:
        One value per horizon; derivatives are finite, and zero through padding.
    """
    if operator not in OPERATORS:
        raise ValueError(f"observe: operator must be one of {OPERATORS}, got {operator!r}")
    soc, upper, lower = jnp.asarray(soc), jnp.asarray(upper), jnp.asarray(lower)
    if soc.shape[-1] != N_LAYERS:
        raise ValueError(f"observe: the last axis of soc must hold {N_LAYERS} layers, got shape {soc.shape}")
    upper, lower = upper.astype(soc.dtype), lower.astype(soc.dtype)
    real = jnp.isfinite(upper) & jnp.isfinite(lower) & (upper <= lower)
    a, b = jnp.where(real, upper, 0.0), jnp.where(real, lower, 1.0)
    if operator == "pchip":
        seen = jnp.vectorize(_pchip, signature="(l),(h)->(h)")(soc, 0.5 * (a + b))
    else:
        weigh = _horizon_weights if operator == "horizon" else _middle_weights
        weights = weigh(a, b).astype(soc.dtype)  # (..., horizon, layer)
        seen = jnp.sum(jnp.where(weights > 0, weights * soc[..., None, :], 0.0), axis=-1)
    return jnp.where(real, seen, jnp.nan)


def _linear_weights(z: Float[Array, "*shape"]) -> Float[Array, "*shape layer"]:
    """Weights of the nodes in linear interpolation at depth z, constant beyond the ends."""
    node = jnp.asarray(NODE, z.dtype)
    z = jnp.clip(z, node[0], node[-1])[..., None]
    rising = (z - jnp.concatenate([node[:1] - 1.0, node[:-1]])) / jnp.diff(node, prepend=node[:1] - 1.0)
    falling = (jnp.concatenate([node[1:], node[-1:] + 1.0]) - z) / jnp.diff(node, append=node[-1:] + 1.0)
    return jnp.clip(jnp.minimum(rising, falling), 0.0, 1.0)


def _middle_weights(upper, lower):
    return _linear_weights(0.5 * (upper + lower))


def _pieces() -> tuple[np.ndarray, ...]:
    """The profile's pieces above and below every node: their ends (m), and the node's weight there, slope · z + start.

    The first piece and the last are constant and reach to infinity. Each array is (side, layer).
    """
    ends = np.array([[-np.inf, *NODE[:-1]], [*NODE[1:], np.inf]])
    upper, lower = np.stack([ends[0], NODE]), np.stack([NODE, ends[1]])
    slope = np.array([[1.0], [-1.0]]) / (lower - upper)
    zero_at = np.where(np.isfinite(ends), ends, 0.0)
    return upper, lower, slope, np.where(np.isfinite(ends), -slope * zero_at, 1.0)


def _horizon_weights(upper: Float[Array, "*shape"], lower: Float[Array, "*shape"]) -> Float[Array, "*shape layer"]:
    """Weights of the nodes in the mean of the profile over each horizon: exact for the piecewise-linear profile.

    Each piece between two nodes (and each end) is linear, so that its mean over an interval is its value in the middle.
    """
    a, b = upper[..., None], lower[..., None]
    thin = (b - a) < THINNEST
    per_thickness = 1.0 / jnp.where(thin, 1.0, b - a)

    def from_piece(top, bottom, slope, start):
        first, last = jnp.maximum(a, top), jnp.minimum(b, bottom)
        share = jnp.maximum(last - first, 0.0) * per_thickness
        return share * jnp.clip(slope * (0.5 * (first + last)) + start, 0.0, 1.0)

    above, below = zip(*(constants.astype(upper.dtype) for constants in _pieces()), strict=True)
    return jnp.where(thin, _middle_weights(upper, lower), from_piece(*above) + from_piece(*below))


def _pchip(soc: Float[Array, "layer"], z: Float[Array, "horizon"]) -> Float[Array, "horizon"]:
    """Monotone piecewise-cubic interpolation (Fritsch & Carlson 1980, as MATLAB's and SciPy's pchip)."""
    node = jnp.asarray(NODE, soc.dtype)
    h = jnp.diff(node)
    slope = jnp.diff(soc) / h
    w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    same_sign = slope[:-1] * slope[1:] > 0
    left, right = jnp.where(same_sign, slope[:-1], 1.0), jnp.where(same_sign, slope[1:], 1.0)
    inner = jnp.where(same_sign, (w1 + w2) / (w1 / left + w2 / right), 0.0)
    d = jnp.concatenate([_pchip_end(h[0], h[1], slope[0], slope[1])[None], inner,
                         _pchip_end(h[-1], h[-2], slope[-1], slope[-2])[None]])  # fmt: skip
    z = jnp.clip(z, node[0], node[-1])
    k = jnp.clip(jnp.searchsorted(node, z, side="right") - 1, 0, N_LAYERS - 2)
    t = (z - node[k]) / h[k]
    return (
        soc[k] * (1 + 2 * t) * (1 - t) ** 2
        + soc[k + 1] * t**2 * (3 - 2 * t)
        + h[k] * (d[k] * t * (1 - t) ** 2 - d[k + 1] * t**2 * (1 - t))
    )


def _pchip_end(h0, h1, slope0, slope1):
    """One-sided three-point derivative at an end, kept monotone."""
    d = ((2 * h0 + h1) * slope0 - h0 * slope1) / (h0 + h1)
    d = jnp.where(d * slope0 <= 0, 0.0, d)
    return jnp.where((slope0 * slope1 <= 0) & (jnp.abs(d) > 3 * jnp.abs(slope0)), 3 * slope0, d)


def proda_layer_weights(observations: Observations) -> Float[Array, "*site horizon"]:
    """PRODA's weights of the horizons of a profile: 10 · exp(−(rank − 1)), at least 1; 0 for padding.

    rank = mean of the ranks (1 = largest; ties, to 1e-4, share theirs) of the horizons' distances from the profile's
    mean SOC and mean depth: top and bottom of the profile weigh most.

    Source: PRODA's code, `da_cesm2_clm5_cen_vr_v2.m`, which sorts the distances in descending order.
    """
    real = observations.measured
    depth = jnp.where(real, 0.5 * (observations.upper + observations.lower), 0.0)
    rank = 0.5 * (_rank_of_distance(jnp.where(real, observations.soc, 0.0), real) + _rank_of_distance(depth, real))
    return jnp.where(real, jnp.maximum(10.0 * jnp.exp(-(rank - 1.0)), 1.0), 0.0)


def _rank_of_distance(x, real):
    mean = jnp.sum(x, axis=-1, keepdims=True) / jnp.maximum(jnp.sum(real, axis=-1, keepdims=True), 1)
    distance = jnp.where(real, jnp.abs(x - mean), 0.0)
    tie = 1e-4 * jnp.max(distance, axis=-1, keepdims=True)  # of two horizons, both are equally far
    apart = distance[..., :, None] - distance[..., None, :]  # of horizon i from horizon j
    farther = (apart < -tie[..., None]) & real[..., None, :]  # horizon j than i
    equal = (jnp.abs(apart) <= tie[..., None]) & real[..., None, :]
    return 1.0 + jnp.sum(farther, axis=-1) + 0.5 * (jnp.sum(equal, axis=-1) - 1)


def predict_horizons(
    soc: Float[AnyArray, "*batch layer"], observations: Observations, options: ModelOptions
) -> Float[Array, "*batch horizon"]:
    """Modelled carbon of every measured horizon, gC m⁻³, at least `FLOOR`; 1 at padding. NaN profiles give NaN."""
    modelled = observe(soc, observations.upper, observations.lower, operator=options.operator)
    return jnp.where(observations.measured, jnp.where(modelled <= FLOOR, FLOOR, modelled), 1.0)


def log_likelihood(
    soc: Float[AnyArray, "*batch layer"],
    observations: Observations,
    options: ModelOptions,
    *,
    sigma: Float[AnyArray, "*#batch"] | None = None,
) -> Float[Array, "*batch horizon"]:
    """Log density of each measured horizon given a modelled profile, in units of 1 / (gC m⁻³); 0 at padding.

    lognormal: ln(observed) ~ Normal(ln(modelled), sigma). proda: weight × log density of observed ~ Normal(modelled,
    sigma · observed), with `proda_layer_weights` (a weighted pseudo-likelihood, as published). A `sigma` of every
    profile, above 0, takes the place of `options.sigma`.
    """
    z = standardised(soc, observations, options, sigma=sigma)
    scale = _scale(options, sigma)
    real = observations.measured
    observed = jnp.where(real, observations.soc, 1.0)
    root = jnp.sqrt(2 * jnp.pi)
    if options.error == "lognormal":
        density = -0.5 * z**2 - jnp.log(scale * root) - jnp.log(observed)
    else:
        density = -0.5 * z**2 - proda_layer_weights(observations) * jnp.log(scale * observed * root)
    return jnp.where(real, density, 0.0)


def standardised(
    soc: Float[AnyArray, "*batch layer"],
    observations: Observations,
    options: ModelOptions,
    *,
    sigma: Float[AnyArray, "*#batch"] | None = None,
) -> Float[Array, "*batch horizon"]:
    """Residuals in standard errors, observed − modelled as `log_likelihood` sees them; 0 at padding.

    Their squares, halved and summed, are minus the log likelihood but for a constant.
    """
    modelled, scale = predict_horizons(soc, observations, options), _scale(options, sigma)
    real = observations.measured
    observed = jnp.where(real, observations.soc, 1.0)
    if options.error == "lognormal":
        return jnp.where(real, (jnp.log(observed) - jnp.log(modelled)) / scale, 0.0)
    weight = jnp.where(real, proda_layer_weights(observations), 0.0)
    return jnp.where(real, jnp.sqrt(weight) * (observed - modelled) / (scale * observed), 0.0)


def sample_observations(
    key: PRNGKeyArray,
    soc: Float[Array, "*batch layer"],
    observations: Observations,
    options: ModelOptions,
    *,
    sigma: Float[AnyArray, "*#batch"] | None = None,
) -> Float[Array, "*batch horizon"]:
    """Draws of what would be measured at the horizons of `observations`, gC m⁻³; NaN at padding.

    Under the proda error the scale is sigma times the observed value, as in its density (draws can be negative).
    `sigma` is as for `log_likelihood`.
    """
    modelled, scale = predict_horizons(soc, observations, options), _scale(options, sigma)
    noise = jax.random.normal(key, modelled.shape, dtype=modelled.dtype)
    if options.error == "lognormal":
        drawn = modelled * jnp.exp(scale * noise)
    else:
        drawn = modelled + scale * jnp.where(observations.measured, observations.soc, 0.0) * noise
    return jnp.where(observations.measured, drawn, jnp.nan)


def _scale(options: ModelOptions, sigma):
    """Scale of the error, to be broadcast over horizons."""
    return options.sigma if sigma is None else jnp.asarray(sigma)[..., None]
