"""What a training looks at: the data of a stack of sites, the network over them, and the loss of every site."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, Int32, PRNGKeyArray

import clm5
from binn.config import Config
from binn.features import Features
from binn.losses import DISTRIBUTIONS, horizon_loss, horizon_weights
from binn.network import ParameterNetwork, PosteriorNetwork
from binn.site_encoding import SITE_COLUMNS, encode_site

if TYPE_CHECKING:
    import xarray as xr

DRAWS_PER_SITE = 4  # of the distribution that a network answers, in a step of loss "elbo"


class Data(NamedTuple):
    """What training reads, for a stack of sites; covariates are float32, the physics is float64."""

    x: Float32[jax.Array | np.ndarray, "site covariate"]
    forcing: clm5.Forcing
    observations: clm5.Observations
    site: Int32[jax.Array | np.ndarray, " site"]  # positions in the data set

    def select(self, index: Int[jax.Array | np.ndarray, " chosen"]) -> "Data":
        """The sites at these positions."""
        return jax.tree.map(lambda leaf: leaf[index], self)


def read_data(sites: "xr.Dataset", features: Features) -> Data:
    """The data of a site data set as NumPy arrays."""
    data = Data(
        features.matrix(sites),
        clm5.Forcing.from_sites(sites, dtype=jnp.float64),
        clm5.Observations.from_sites(sites),
        np.arange(sites.sizes["site"], dtype=np.int32),
    )
    return jax.tree.map(np.asarray, data)


def build_network(config: Config, features: Features, key: PRNGKeyArray) -> ParameterNetwork:
    """A network with fresh weights, for the columns of a feature matrix; it answers the free parameters."""
    kind = PosteriorNetwork if config.loss in DISTRIBUTIONS else ParameterNetwork
    return kind(
        len(features.columns) + (SITE_COLUMNS if config.profile else 0),
        len(config.parameters),
        width=config.width,
        depth=config.depth,
        dropout=config.dropout,
        activation=config.activation,
        norm=config.norm,
        residual=config.residual,
        constraint=config.constraint,
        learn_temperature=config.learn_temperature,
        embedding=config.embedding,
        curves=config.curves,
        learn_dropout=config.learn_dropout,
        spans=features.categories,
        tables=features.tables,
        rngs=nnx.Rngs(params=key),
    )


def network_inputs(data: Data, config: Config) -> Float32[Array, "site input"]:
    """What the network reads of a site: covariates, and with `config.profile` its forcing and measured profile."""
    if not config.profile:
        return jnp.asarray(data.x)
    middle = jnp.asarray(config.held_unit())
    return jnp.concatenate([data.x, encode_site(data.forcing, data.observations, config.model, middle)], axis=1)


def all_parameters[T: (np.ndarray, jax.Array)](free: T, config: Config) -> T:
    """(…, free) → (…, 21): unit values that the network answers, and those at which the other parameters are held."""
    if len(config.parameters) == len(clm5.NAMES):
        return free
    xp: Any = np if isinstance(free, np.ndarray) else jnp
    held = config.held_unit().astype(free.dtype)
    return xp.stack(
        [
            free[..., config.parameters.index(name)]
            if name in config.parameters
            else xp.full(free.shape[:-1], value, dtype=free.dtype)
            for name, value in zip(clm5.NAMES, held, strict=True)
        ],
        axis=-1,
    )


def modelled_soc(unit: Float[Array, "site free"], data: Data, config: Config) -> Float[Array, "site layer"]:
    """SOC (gC m⁻³) of the column at every site, at its unit parameters."""
    theta = config.model.space.physical(all_parameters(unit, config))
    return clm5.simulate(theta, data.forcing, rules=config.model.rules).soc


def site_losses(
    unit: Float[Array, "site free"], data: Data, config: Config
) -> tuple[Float[Array, " site"], Float[Array, " site"], Float[Array, "site layer"]]:
    """Run the column at every site: loss summed over horizons, number of horizons, and SOC (gC m⁻³)."""
    soc = modelled_soc(unit, data, config)
    return *losses_of(soc, unit, data, config), soc


def losses_of(
    soc: Float[Array, "site layer"], unit: Float[Array, "site free"], data: Data, config: Config
) -> tuple[Float[Array, " site"], Float[Array, " site"]]:
    """Loss of modelled carbon (gC m⁻³) summed over horizons, and number of horizons."""
    loss = "likelihood" if config.loss in DISTRIBUTIONS else config.loss
    total, count = horizon_loss(loss, unit, soc, data.observations, config.model, config.horizon_weights)
    # the observation operator keeps logarithms finite; carbon that is not a number must not pass for little carbon
    return jnp.where(jnp.isnan(soc).any(axis=-1), jnp.nan, total), count


def gauss_newton(
    unit: Float[Array, "site free"], data: Data, config: Config
) -> tuple[Float[Array, "site layer"], Float[Array, "site free"], Float[Array, "site free free"]]:
    """SOC (gC m⁻³), and gradient and Gauss-Newton matrix of every site's −log likelihood by its unit parameters.

    The matrix is Jᵀ J of the residuals in standard errors, by one transposed solve per horizon.
    """
    root = jnp.sqrt(horizon_weights(config.horizon_weights, data.observations))

    def residuals(unit):
        soc = modelled_soc(unit, data, config)
        return root * clm5.observation.standardised(soc, data.observations, config.model), soc

    value, pull, soc = jax.vjp(residuals, unit, has_aux=True)
    horizons = jnp.eye(value.shape[1], dtype=value.dtype)
    rows = jax.lax.map(lambda one: pull(jnp.broadcast_to(one, value.shape))[0], horizons)  # (horizon, site, free)
    return soc, jnp.einsum("hsa,sh->sa", rows, value), jnp.einsum("hsa,hsb->sab", rows, rows)


def columns_per_site(config: Config, horizons: int) -> tuple[int, int, int]:
    """Columns solved for a site with so many (padded) horizons: in a training step, transposed in it, in a validation.

    A validation of a network of distributions also solves the column at the median, and reads the measured profile.
    """
    if config.gradient == "gauss_newton":
        return 1, horizons, 1
    encoded = 1 if config.profile else 0
    if config.loss == "elbo":
        return DRAWS_PER_SITE + encoded, DRAWS_PER_SITE, 1 + DRAWS_PER_SITE + encoded
    return (1 + encoded, 0, 2 + 2 * encoded) if config.loss == "simulation" else (1, 1, 1)
