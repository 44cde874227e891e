"""The NumPyro model: the same density as the core's likelihood, and the box as its prior."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from chances import z_limit
from numpyro import handlers
from scipy import stats

import clm5
from bayes import model
from clm5.observation import proda_layer_weights

SITE = 1
ERRORS = (clm5.ModelOptions(), clm5.ModelOptions(error="proda", sigma=0.6, operator="pchip"))


def one_site(columns, extra_padding=2):
    forcing, observations = columns
    pad = lambda x: jnp.concatenate([x, jnp.full(extra_padding, jnp.nan)])  # noqa: E731
    return forcing[SITE], jax.tree.map(pad, observations[SITE])


def written_out(soc, observations, options):
    """The log likelihood of the profile, once more, by SciPy's densities."""
    real = np.asarray(observations.measured)
    predicted, measured = (
        np.asarray(values)[real]
        for values in (
            clm5.observe(soc, observations.upper, observations.lower, operator=options.operator),
            observations.soc,
        )
    )
    if options.error == "lognormal":
        return stats.lognorm.logpdf(measured, s=options.sigma, scale=predicted).sum()
    weight = np.asarray(proda_layer_weights(observations))[real]
    return (weight * stats.norm.logpdf(measured, predicted, options.sigma * measured)).sum()


simulate = jax.jit(lambda theta, forcing: clm5.simulate(theta, forcing).soc)  # the rules of both `ERRORS`


@pytest.mark.parametrize(("error", "scale"), [(0, "probit"), (0, "logit"), (1, "probit")])
def test_log_density_is_the_flat_prior_times_the_likelihood(columns, error, scale):
    options = ERRORS[error]
    forcing, observations = one_site(columns)
    latent = jnp.linspace(-1.0, 1.2, 21)
    prior = stats.norm if scale == "probit" else stats.logistic  # a uniform's logit is logistic
    log_prior = prior.logpdf(latent).sum()
    density = -float(jax.jit(lambda x: model.potential(x, forcing, observations, options, scale=scale))(latent))
    soc = simulate(options.space.physical(model.unit_from_latent(latent, scale)), forcing)
    expected = log_prior + written_out(soc, observations, options)
    assert density == pytest.approx(expected, rel=1e-10)  # float64, about 1e3 roundings
    other = clm5.ModelOptions(error=options.error, operator=options.operator, sigma=options.sigma * 1.001)
    moved = log_prior + written_out(soc, observations, other)
    assert moved != pytest.approx(expected, rel=1e-10)  # a sigma wrong by 0.1 % would be seen


def negative_log_density(forcing, options, latent, observations):
    return model.potential(latent, forcing, observations, options, scale="probit")


def test_gradients_are_finite_through_padding_and_far_out_in_the_box(columns):
    forcing, observations = one_site(columns)
    nothing = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), observations)
    corners = jnp.stack([jnp.full(21, v) for v in (-6.0, 0.0, 6.0)])
    for options in ERRORS:
        energy = functools.partial(negative_log_density, forcing, options)
        slope = jax.jit(jax.vmap(jax.grad(energy), (0, None)))
        assert np.all(np.isfinite(slope(corners, observations)))
        np.testing.assert_allclose(slope(corners, nothing), corners, rtol=1e-12)  # no data: the standard normal's slope


def test_without_observations_the_unit_cube_is_uniform(columns):
    forcing, _ = one_site(columns)

    def draw(key, scale):
        trace = handlers.trace(handlers.seed(model.site_model, key)).get_trace(forcing, None, ERRORS[0], scale=scale)
        assert "soc_observed" not in trace
        return trace["unit"]["value"]

    n = 500
    for scale in model.SCALES:
        unit = np.asarray(jax.jit(jax.vmap(lambda k, s=scale: draw(k, s)))(jax.random.split(jax.random.key(1), n)))
        assert unit.shape == (n, 21)
        size = unit.size
        z_mean = (unit.mean() - 0.5) / np.sqrt(1 / 12 / size)
        z_square = (np.mean((unit - 0.5) ** 2) - 1 / 12) / np.sqrt(1 / 180 / size)  # variance of (U − ½)² is 1/180
        assert max(abs(z_mean), abs(z_square)) < z_limit(2 * len(model.SCALES))


def test_some_parameters_can_be_held(columns):
    forcing, observations = one_site(columns)
    where = np.array([2, 9])
    place = lambda free: jnp.full(21, 0.4).at[where].set(free)  # noqa: E731
    trace = handlers.trace(handlers.seed(model.site_model, 0)).get_trace(
        forcing, observations, ERRORS[0], place=place, n_free=2
    )
    assert trace["score"]["value"].shape == (2,)
    np.testing.assert_array_equal(np.delete(trace["unit"]["value"], where), np.full(19, 0.4))


def test_unknown_scale_is_refused(columns):
    with pytest.raises(ValueError, match="scale must be one of"):
        handlers.seed(model.site_model, 0)(columns[0][0], None, ERRORS[0], scale="log")


def test_importing_the_room_changes_no_global_setting():
    assert not jax.config.jax_enable_x64
    assert numpyro.__version__
