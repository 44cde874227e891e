"""What a site alone decides is computed when its `Forcing` is built, and only then."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clm5
import clm5.geometry

FIELDS = [field.name for field in dataclasses.fields(clm5.Forcing)]


def soc(theta, forcing):
    return clm5.simulate(theta, forcing).soc


@pytest.fixture
def theta(golden_forcing):
    with jax.enable_x64(True):
        unit = np.random.default_rng(0).uniform(0.1, 0.9, (*golden_forcing.batch_shape, 21))
        return clm5.ParameterSpace("binn").physical(unit)


@pytest.mark.slow
def test_evaluations_do_not_compute_geometry(golden_forcing, theta, monkeypatch, x64):
    """Neither for a forcing that is passed, indexed and vmapped, nor for one that is closed over."""
    expected = soc(theta, golden_forcing)

    def refuse(*_, **__):
        raise AssertionError("geometry was computed again")

    monkeypatch.setattr(clm5.geometry, "_values", refuse)
    passed = jax.jit(lambda theta, forcing: soc(theta, forcing))(theta, golden_forcing)
    closed = jax.jit(lambda theta: soc(theta, golden_forcing))(theta)
    mapped = jax.vmap(soc)(theta[:3], golden_forcing[:3])
    gradient = jax.jit(jax.grad(lambda theta, forcing: soc(theta, forcing).sum()))(theta, golden_forcing)
    assert np.array_equal(passed, expected)
    assert np.array_equal(closed, expected)
    assert np.allclose(mapped, expected[:3], rtol=1e-13)
    assert np.isfinite(gradient).all()
    with pytest.raises(AssertionError, match="computed again"):
        clm5.Forcing(**{name: getattr(golden_forcing, name) for name in FIELDS})


@pytest.mark.parametrize("rules", ["conservative", "proda", "binn"])
def test_built_in_any_way_it_is_the_same(golden_forcing, rules, x64):
    """From NumPy, from JAX arrays, under jit, rebuilt, or column by column."""
    fields = {name: getattr(golden_forcing, name) for name in FIELDS}
    expected = np.asarray(golden_forcing.geometry[rules])
    from_numpy = clm5.Forcing(**{name: np.asarray(field) for name, field in fields.items()})
    traced = jax.jit(lambda fields: clm5.Forcing(**fields))(fields)
    assert isinstance(from_numpy.geometry[rules], np.ndarray)
    for other in (from_numpy, traced, dataclasses.replace(golden_forcing)):
        np.testing.assert_allclose(other.geometry[rules], expected, rtol=1e-14, atol=0)
    single = clm5.Forcing(**{name: field[4] for name, field in fields.items()})
    np.testing.assert_allclose(single.geometry[rules], expected[4], rtol=1e-14, atol=0)


def test_another_bedrock_is_another_geometry(golden_forcing, x64):
    deeper = dataclasses.replace(golden_forcing, bedrock_layer=golden_forcing.bedrock_layer * 0 + 3.0)
    assert not np.array_equal(deeper.geometry["conservative"], golden_forcing.geometry["conservative"])


def test_float64_stays_float64_outside_of_x64(golden_forcing):
    fields = {name: np.asarray(getattr(golden_forcing, name)) for name in FIELDS}
    forcing = clm5.Forcing(**fields)
    assert not jax.config.jax_enable_x64
    assert forcing.geometry["binn"].dtype == np.float64
    with jax.enable_x64(True):
        expected = golden_forcing.geometry["binn"]
    assert np.array_equal(forcing.geometry["binn"], expected)
    single = clm5.Forcing(**{name: jnp.asarray(field, jnp.float32) for name, field in fields.items()})
    assert single.geometry["binn"].dtype == jnp.float32


def test_equal_shapes_compile_once(golden_forcing, theta, x64):
    from clm5.column import _simulate

    clm5.simulate(theta, golden_forcing)
    compiled = _simulate._cache_size()
    for scale in (0.9, 0.8):
        clm5.simulate(
            theta * scale, dataclasses.replace(golden_forcing, water_scalar=golden_forcing.water_scalar * scale)
        )
    assert _simulate._cache_size() == compiled
    clm5.simulate(theta[:2], golden_forcing[:2])
    assert _simulate._cache_size() == compiled + 1


def test_what_is_derived_is_tied_to_a_device_only_as_the_fields_are(golden_forcing):
    fields = [np.asarray(getattr(golden_forcing, name)) for name in golden_forcing.__dataclass_fields__]
    free = clm5.Forcing(*map(jnp.asarray, fields))
    tied = clm5.Forcing(*(jax.device_put(field, jax.devices()[0]) for field in fields))
    assert not any(leaf.committed for leaf in jax.tree.leaves(free))
    assert all(leaf.committed for leaf in jax.tree.leaves(tied))
