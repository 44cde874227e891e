"""Sobol indices: closed forms, exact integrals of the column itself, and what cannot act."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import clm5
from clm5 import sensitivity
from clm5.parameters import INDEX

SAMPLES = 512
# Ishigami and Homma (1990) with a = 7, b = 0.1: first order and total, closed form
ISHIGAMI = (0.3139, 0.4424, 0.0), (0.5576, 0.4424, 0.2437)


def ishigami(unit):
    x = np.pi * (2 * unit - 1)
    return np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])


@pytest.fixture(scope="module")
def sites():
    """Four sites, warm and cold, whose soil is as deep as the column or shallow."""
    return clm5.sites.virtual(40, seed=2).isel(site=slice(0, 4))


@pytest.fixture(scope="module")
def result(sites):
    return clm5.sobol(sites, samples=SAMPLES, seed=1)


def at(result, name, parameter, depth=1.0):
    return float(result[name].sel(scale="ln", depth=depth, parameter=parameter))


def test_the_ishigami_function_has_its_indices():
    found = sensitivity.indices(ishigami(sensitivity.saltelli(3, 4096, seed=0)), 3)
    np.testing.assert_allclose(found.first, ISHIGAMI[0], atol=0.02)
    np.testing.assert_allclose(found.total, ISHIGAMI[1], atol=0.02)
    assert found.total[0] - found.first[0] > 0.2, "first order and total in their places"


def test_a_sum_has_the_shares_of_its_terms():
    weight = np.array([3.0, 2.0, 1.0, 0.0])
    found = sensitivity.indices(sensitivity.saltelli(4, 1024, seed=3) @ weight, 4)
    share = weight**2 / np.sum(weight**2)
    np.testing.assert_allclose(found.first, share, atol=0.02)
    np.testing.assert_allclose(found.total, share, atol=0.02)
    assert found.total[3] == 0


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_promise():
    inside = []
    for seed in range(200):
        found = sensitivity.indices(ishigami(sensitivity.saltelli(3, 256, seed)), 3, seed=seed)
        for value, draws, truth in zip(found[:2], found[2:], ISHIGAMI, strict=True):
            inside.append(np.abs(value - truth) <= 1.96 * draws.std(axis=0, ddof=1))
    share = np.mean(inside)
    assert share > 0.93, share  # quasi-random points: intervals of the bootstrap are, if anything, too wide


def test_indices_of_the_column_are_those_of_exact_integrals(sites):
    """Two parameters on a Gauss-Legendre grid: E[y | p] is a weighted row sum, no sampling at all."""
    names = ("efolding", "tau4s3")
    node, weight = np.polynomial.legendre.leggauss(24)
    node, weight = (node + 1) / 2, weight / 2
    space = clm5.ParameterSpace("binn")
    theta = np.broadcast_to(space.default(), (24, 24, 21)).copy()
    for axis, name in enumerate(names):
        low, high = space.lower[INDEX[name]], space.upper[INDEX[name]]
        theta[..., INDEX[name]] = np.expand_dims(low + node * (high - low), 1 - axis)
    one = sites.isel(site=[1])
    with jax.enable_x64(True):
        forcing = clm5.Forcing.from_sites(one)
        y = np.log(np.asarray(clm5.processes(theta, forcing[0], clm5.simulate(theta, forcing[0])).stock_200cm))
    mean = weight @ y @ weight
    variance = weight @ (y - mean) ** 2 @ weight
    alone = np.array([weight @ (y @ weight - mean) ** 2, weight @ (weight @ y - mean) ** 2]) / variance
    found = clm5.sobol(one, parameters=names, samples=2048, depths=(2.0,)).isel(site=0, depth=0, scale=0)
    assert alone.min() > 0.02, "both act, or the test sees nothing"
    assert 1 - alone.sum() > 1e-3, "they interact"
    np.testing.assert_allclose(found.first_order, alone, atol=0.02)
    np.testing.assert_allclose(found.total, 1 - alone[::-1], atol=0.02)
    np.testing.assert_allclose(found.output_sd, np.sqrt(variance), rtol=0.02)


def test_a_parameter_that_cannot_act_has_index_0(sites):
    """Cryoturbation acts where the active layer ends above 2 m, bioturbation elsewhere."""
    for depth, idle, acting in ((5.0, "cryo", "diffus"), (1.0, "diffus", "cryo")):
        thawed = sites.isel(site=[0]).copy(deep=True)
        thawed["active_layer_depth"][:] = depth
        thawed["active_layer_depth_last_year"][:] = depth
        found = clm5.sobol(thawed, parameters=("diffus", "cryo", "taul2"), samples=128)
        for name in ("mean_first_order", "mean_total", "mean_total_ci"):
            assert abs(at(found, name, idle)) < 1e-12
        assert at(found, "mean_total", acting) > 0.1


def test_indices_keep_their_order(result):
    assert (result.mean_first_order <= result.mean_total + result.mean_first_order_ci + result.mean_total_ci).all()
    assert (result.mean_total >= 0).all()
    width = float(np.sqrt((result.mean_first_order_ci**2).sum("parameter").max()))
    assert (result.mean_first_order.sum("parameter") <= 1 + width).all()
    assert (result.mean_total.sum("parameter") >= 1 - width).all()
    leading = result.mean_total.sel(scale="ln", depth=1.0).to_series().nlargest(4).index
    assert {"w_scaling", "tau4s3"} <= set(leading)  # as published
    assert at(result, "mean_total", "beta", 0.3) > at(result, "mean_total", "taucwd", 0.3)


def test_means_are_over_sites_and_sites_share_the_sample(sites, result):
    for name in ("first_order", "total"):
        np.testing.assert_allclose(result[f"mean_{name}"], result[name].mean("site"), rtol=1e-12)
    assert (result.mean_total_ci <= result.total_ci.mean("site") * (1 + 1e-9)).all(), "errors of one sample add up"
    with jax.enable_x64(True):
        forcing = clm5.Forcing.from_sites(sites)
    one = clm5.sobol(forcing[2], samples=SAMPLES, depths=(1.0,), seed=1)
    assert one.site.values.tolist() == ["0"]
    np.testing.assert_allclose(one.total.isel(site=0, depth=0), result.total.isel(site=2).sel(depth=1.0), rtol=1e-9)
    assert result.attrs["sites_fingerprint"] == clm5.sites.fingerprint(sites)
    assert result.attrs["n_solves"] == 4 * SAMPLES * 23


def test_the_raw_stock_says_that_it_has_not_converged(sites):
    found = clm5.sobol(sites.isel(site=[0]), samples=SAMPLES, scales=("raw", "ln"), depths=(1.0,))
    share = found.largest_share.isel(site=0, depth=0)
    assert float(share.sel(scale="raw")) > 0.3
    assert float(share.sel(scale="ln")) < 0.15


@pytest.mark.slow
def test_a_column_without_litter_has_no_index_and_does_not_count(sites):
    bare = sites.isel(site=[0, 1]).copy(deep=True)
    bare["litter_input"][0] = 0.0
    found = clm5.sobol(bare, samples=32, parameters="4")
    assert np.isnan(found.total.isel(site=0)).all()
    assert (found.sites_used == 1).all()
    np.testing.assert_allclose(found.mean_total, found.total.isel(site=1))
    with pytest.raises(ValueError, match="no stock of 1 column"):
        clm5.sobol(bare.isel(site=[0]), samples=32, parameters="4")


def test_seed_0_is_a_seed_and_leaves_the_global_one_alone(sites):
    def run(seed):
        return clm5.sobol(sites.isel(site=[0]), samples=32, parameters="4", seed=seed)

    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = run(0), run(0), run(1)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.testing.assert_array_equal(first.total_ci, again.total_ci)
    assert (first.total != other.total).all()


def test_the_published_indices_stand_beside(result):
    published = result.published_first_order.to_series()
    assert published.notna().sum() == 6
    assert published["w_scaling"] == 0.486
    assert published["fl2s1"] == 0.024


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 1000}, "power of 2, 2 or more, got 1000; 1024 is near"),
        ({"samples": 1}, "power of 2"),
        ({"parameters": ("q10", "alpha")}, "unknown: alpha"),
        ({"parameters": ("q10", "q10")}, "different names"),
        ({"parameters": ()}, "at least one"),
        ({"parameters": "7"}, "or one of"),
        ({"scales": ("log",)}, "scales must be of"),
        ({"depths": ()}, "above 0 m, at least one"),
        ({"depths": (0.0,)}, "above 0 m"),
        ({"seed": -1}, "seed 0 or more"),
        ({"resamples": 1}, "resamples must be 2 or more"),
        ({"confidence": 1.0}, "between 0 and 1"),
    ],
)
def test_refusals(sites, arguments, message):
    with pytest.raises(ValueError, match=message):
        clm5.sobol(sites, **arguments)


def test_salib_waits_until_it_is_asked_and_is_missed_by_name(sites, monkeypatch):
    code = "import clm5, sys; clm5.sobol; assert not {'SALib', 'xarray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in ("SALib", "SALib.analyze", "SALib.analyze.sobol"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"clm5\.sobol needs SALib.*uv sync"):
        clm5.sobol(sites, samples=32)
