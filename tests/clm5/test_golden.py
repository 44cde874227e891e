"""Golden: is it still the model that was published? Both codes' equations, evaluated in 1,400 bits, on every column."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clm5
from clm5 import dense
from tests.clm5.conftest import forcing_of

TOLERANCE = 1e-9  # of the column's largest layer; the structured solve reaches 1e-13, so this is what was asked
SETS = ("rand", "half")


def unit_of(data, which):
    return data["rand_kp"] if which == "rand" else np.full_like(data["rand_kp"], 0.5)


def worst(found, expected):
    """Largest error of each column, relative to its largest entry; found and expected are (column, ...)."""
    axes = tuple(range(1, expected.ndim))
    return np.abs(np.asarray(found) - expected).max(axes) / expected.max(axes)


@pytest.mark.parametrize("which", SETS)
@pytest.mark.usefixtures("x64")
def test_pools_equal_proda(golden, golden_forcing, which):
    theta = clm5.ParameterSpace("proda").physical(jnp.asarray(unit_of(golden, which)))
    pools = clm5.simulate(theta, golden_forcing, rules="proda").pools
    expected = np.moveaxis(golden[f"proda_{which}_pools"], 2, 1)
    assert worst(pools, expected).max() < TOLERANCE
    assert worst(pools[:, 4:], expected[:, 4:]).max() < TOLERANCE


@pytest.mark.parametrize("which", SETS)
@pytest.mark.usefixtures("x64")
def test_soc_equals_binn(golden, golden_forcing, which):
    theta = clm5.ParameterSpace("binn").physical(jnp.asarray(unit_of(golden, which)))
    soc = clm5.simulate(theta, golden_forcing, rules="binn").soc
    assert worst(soc, golden[f"binn_{which}_soc"]).max() < TOLERANCE


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("parameter", clm5.NAMES)
def test_the_golden_columns_would_notice_one_part_in_a_thousand(golden, golden_forcing, parameter):
    theta = np.array(clm5.ParameterSpace("proda").physical(jnp.asarray(golden["rand_kp"])))
    theta[:, clm5.NAMES.index(parameter)] *= 1.001
    pools = clm5.simulate(theta, golden_forcing, rules="proda").pools
    assert worst(pools, np.moveaxis(golden["proda_rand_pools"], 2, 1)).max() > 100 * TOLERANCE


@pytest.mark.usefixtures("x64")
def test_rules_differ_where_they_should(golden, golden_forcing):
    theta = clm5.ParameterSpace("binn").physical(jnp.asarray(golden["rand_kp"]))
    soc = {rules: np.asarray(clm5.simulate(theta, golden_forcing, rules=rules).soc) for rules in clm5.options.RULES}
    assert worst(soc["proda"], soc["binn"]).max() > 0.05  # the taper in shallow permafrost
    assert worst(soc["proda"], soc["conservative"]).max() > 0.05  # bedrock


@pytest.mark.usefixtures("x64")
def test_dense_solve_agrees_where_it_can_and_only_there(golden, golden_forcing):
    """The same matrices by LAPACK: right in ordinary columns, lost in near-singular ones, where ours is not."""
    theta = clm5.ParameterSpace("proda").physical(jnp.asarray(golden["rand_kp"]))
    by_lapack = jax.jit(jax.vmap(lambda t, f: dense.pools(t, f, "proda")))(theta, golden_forcing)
    expected = np.moveaxis(golden["proda_rand_pools"], 2, 1)
    near_singular = golden["proda_rand_near_singular"]
    assert worst(by_lapack, expected)[~near_singular].max() < 1e-6
    assert worst(by_lapack, expected)[near_singular].max() > 1e-3
    ours = clm5.simulate(theta, golden_forcing, rules="proda").pools
    assert worst(ours, expected)[near_singular].max() < TOLERANCE


@pytest.mark.usefixtures("x64")
def test_dense_matrices_equal_proda(golden, golden_forcing):
    theta = clm5.ParameterSpace("proda").physical(jnp.asarray(golden["rand_kp"]))
    m = jax.jit(jax.vmap(lambda t, f: dense.matrices(t, f, "proda")))(theta, golden_forcing)
    V = np.asarray(m.V)[:, 20:40, 20:40]
    for offset, name in ((-1, "rand_tri_a"), (0, "rand_tri_b"), (1, "rand_tri_c")):
        expected = golden[name][:, max(0, -offset) : 20 - max(0, offset)]
        np.testing.assert_allclose(
            np.diagonal(V, offset, 1, 2), expected, rtol=1e-9, atol=1e-18
        )  # a taper may end in 1e-20
    K = np.diagonal(np.asarray(m.K), 0, 1, 2).reshape(-1, 7, 20)
    np.testing.assert_allclose(np.moveaxis(K, 1, 2), golden["rand_kk_diag"], rtol=1e-11)


@pytest.mark.usefixtures("x64")
def test_carbon_lost_by_the_published_rules(golden, golden_forcing):
    """What goes in and does not come out, gC m⁻² day⁻¹ in the golden file, is reported."""
    theta = clm5.ParameterSpace("proda").physical(jnp.asarray(golden["rand_kp"]))
    state = clm5.simulate(theta, golden_forcing, rules="proda")
    lost = np.asarray(clm5.processes(theta, golden_forcing, state).carbon_lost) / 365
    fine = np.isfinite(golden["proda_rand_lost"])
    scale = np.asarray(golden_forcing.annual_litter_input).sum(1) / 365
    assert np.abs(lost - golden["proda_rand_lost"])[fine].max() < 1e-9 * scale.max()
    assert (np.abs(lost) / scale).max() > 0.01


@pytest.mark.usefixtures("x64")
def test_every_golden_column(shared_golden):
    """All 64 columns of both files, both parameter sets: the copy in tests/ holds 21 of them."""
    proda, binn = np.load(shared_golden / "proda_reference.npz"), np.load(shared_golden / "binn_torch_reference.npz")
    forcing = forcing_of(proda)
    for which in SETS:
        pools = clm5.simulate(proda[f"{which}_par"], forcing, rules="proda").pools
        assert worst(pools, np.moveaxis(proda[f"{which}_cpools_exact"], 2, 1)).max() < TOLERANCE
        state = clm5.simulate(binn[f"{which}_par"], forcing, rules="binn")
        assert worst(state.soc, binn[f"{which}_soc_exact"]).max() < TOLERANCE
