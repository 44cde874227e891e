"""Property: streaming gives what simulating all at once gives, compiles once, and holds a few blocks in memory."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

import clm5

N, BLOCK = 40, 16  # two whole blocks and half of one
MEASURED = """
import resource, jax, numpy as np, clm5

sites = clm5.Forcing.from_sites(clm5.sites.virtual(8, seed=0))
sites = jax.tree.map(np.asarray, sites)
middle = np.float32(clm5.ParameterSpace("binn").default())

def everything(theta, forcing, state):
    return state

def peak_after(n):
    theta = np.broadcast_to(middle, (n, 21))
    for part, kept in clm5.stream(theta, lambda p: sites[np.arange(p.start, p.stop) % 8], of=everything, block=512):
        assert np.isfinite(kept.soc).all()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB

print(peak_after(16_384), peak_after(131_072))
"""


def everything(theta, forcing, state):
    return state


def gathered(blocks):
    """What a stream yields, put together by the slices that it yields."""
    parts, results = zip(*blocks, strict=True)
    assert [(part.start, part.stop) for part in parts] == [(i, min(i + BLOCK, N)) for i in range(0, N, BLOCK)]
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(results))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)


def columns_of(golden, forcing, precision):
    """Forcing of N columns as NumPy arrays, and parameters drawn from the box."""
    chosen = jax.tree.map(lambda x: np.asarray(x, precision)[np.arange(N) % len(np.asarray(x))], forcing)
    with jax.enable_x64(True):
        theta = clm5.ParameterSpace("binn").physical(
            jnp.asarray(golden["rand_kp"])[np.arange(N) % len(golden["rand_kp"])]
        )
    return np.asarray(theta, precision), chosen


@pytest.fixture
def columns(golden, golden_forcing):
    return columns_of(golden, golden_forcing, np.float32)


@pytest.mark.parametrize(
    ("rules", "precision", "rtol"),
    [
        pytest.param("conservative", np.float32, 1e-5, marks=pytest.mark.slow),
        pytest.param("proda", np.float64, 1e-13, marks=pytest.mark.slow),
        ("binn", np.float64, 1e-13),
    ],
)
def test_streaming_equals_simulating_all_at_once(golden, golden_forcing, rules, precision, rtol):
    theta, forcing = columns_of(golden, golden_forcing, precision)
    with jax.enable_x64(precision == np.float64):
        expected = clm5.simulate(theta, forcing, rules)
    found = gathered(clm5.stream(theta, forcing, rules, of=everything, block=BLOCK))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype == precision
        np.testing.assert_allclose(one, other, rtol=rtol)


@pytest.mark.slow
def test_it_compiles_once_and_computes_what_is_asked_for(columns):
    theta, forcing = columns
    traced = []

    def six(theta, forcing, state):
        traced.append(theta.shape)
        return clm5.processes(theta, forcing, state).stacked()

    found = gathered(clm5.stream(theta, forcing, of=six, block=BLOCK))
    assert traced == [(BLOCK, 21)]
    states = gathered(clm5.stream(theta, forcing, of=everything, block=BLOCK))
    np.testing.assert_allclose(found, clm5.processes(theta, forcing, states).stacked(), rtol=1e-5)
    gathered(clm5.stream(theta + 0.0, forcing, of=six, block=BLOCK))
    assert len(traced) == 1, "a second stream of the same function"


@pytest.mark.slow
def test_parameters_and_forcing_from_anywhere(columns, tmp_path):
    """Memory maps, Zarr, functions of a slice, arrays of JAX; one column of forcing for all."""
    theta, forcing = columns
    soc = gathered(clm5.stream(theta, forcing, block=BLOCK))
    np.testing.assert_allclose(soc, gathered(clm5.stream(theta, forcing, of=everything, block=BLOCK)).soc, rtol=1e-5)
    np.save(tmp_path / "theta.npy", theta)
    stored = zarr.array(theta, chunks=(7, 21))
    for source in (np.load(tmp_path / "theta.npy", mmap_mode="r"), stored, jnp.asarray(theta)):
        np.testing.assert_array_equal(gathered(clm5.stream(source, forcing, block=BLOCK)), soc)
    for received in (lambda part: forcing[part], jax.tree.map(jnp.asarray, forcing)):
        np.testing.assert_array_equal(gathered(clm5.stream(theta, received, block=BLOCK)), soc)
    shared = gathered(clm5.stream(theta, forcing[3], block=BLOCK))
    repeated = gathered(clm5.stream(theta, forcing[np.full(N, 3)], block=BLOCK))
    np.testing.assert_allclose(shared, repeated, rtol=1e-5)
    assert list(clm5.stream(theta[:0], forcing[:0])) == []
    [(part, few)] = clm5.stream(theta[:BLOCK], forcing[:BLOCK])
    assert part == slice(0, BLOCK), "a block longer than all there is"
    np.testing.assert_array_equal(few, soc[:BLOCK])


def test_precision_is_that_of_theta_and_the_callers_own_setting_stays(golden, golden_forcing):
    theta, forcing = columns_of(golden, golden_forcing, np.float64)
    inside = []

    def of_part(part):
        inside.append(jnp.zeros(0, float).dtype)
        return forcing[part]

    for setting in (False, True):
        with jax.enable_x64(setting):
            for source, rules in ((theta, "proda"), (theta.astype(np.float32), "conservative")):
                for part, state in clm5.stream(source, of_part, rules, of=everything, block=BLOCK):
                    assert jax.config.jax_enable_x64 == setting, part
                    assert state.soc.dtype == source.dtype
    assert inside == 2 * [*3 * [np.float64], *3 * [np.float32]]


def test_nan_stays_in_its_column(columns):
    theta, forcing = columns
    broken = theta.copy()
    broken[N - 1, 5] = np.nan  # the column that fills up the last block
    found, expected = (gathered(clm5.stream(t, forcing, block=BLOCK)) for t in (broken, theta))
    assert np.all(np.isnan(found[-1]))
    np.testing.assert_array_equal(found[:-1], expected[:-1])


def test_it_reads_one_block_ahead(columns):
    theta, forcing = columns
    read = []

    def of_part(part):
        read.append(part.start)
        return forcing[part]

    blocks = clm5.stream(theta, of_part, block=BLOCK)
    assert read == [], "nothing before a block is asked for"
    ahead = [len(read) for _ in blocks]
    assert ahead == [2, 3, 3]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_columns():
    """Eight times as many columns, whose forcing would take 600 MB more and their states 160 MB."""
    out = subprocess.run([sys.executable, "-c", MEASURED], check=True, capture_output=True, text=True).stdout
    few, many = map(float, out.split())
    assert many - few < 50


def test_refusals_come_before_any_work(columns):
    theta, forcing = columns
    deep = np.full((N, 12), 20.0)
    deep[-1] = 25.0
    fields = {name: getattr(forcing, name) for name in forcing.__dataclass_fields__}
    too_deep = clm5.Forcing(**fields | {"bedrock_layer": deep})
    for match, error, arguments in (
        (r"theta must have shape \(n, 21\), got \(40, 20\)", ValueError, (theta[:, :20], forcing)),
        (r"theta must have shape \(n, 21\), got \(21,\)", ValueError, (theta[0], forcing)),
        ("float32 or float64, got int64", TypeError, (theta.astype(np.int64), forcing)),
        (r"as many as theta, 40; got leading axes \(39,\)", ValueError, (theta, forcing[:39])),
        ("rules must be one of", ValueError, (theta, forcing, "matlab")),
        ("below layer 20; forcing has bedrock_layer 25", ValueError, (theta, too_deep, "proda")),
    ):
        with pytest.raises(error, match=f"stream: .*{match}"):
            clm5.stream(*arguments)
    with pytest.raises(ValueError, match="stream: block must be at least 1, got 0"):
        clm5.stream(theta, forcing, block=0)


def test_refusals_of_what_functions_return(columns):
    theta, forcing = columns

    class Short:
        shape, dtype = theta.shape, theta.dtype

        def __getitem__(self, part):
            return theta[part][:-1]

    for match, source, received, of in (
        (
            r"forcing\(0:16\) must return 16 columns, got leading axes \(17,\)",
            theta,
            lambda part: forcing[:17],
            everything,
        ),
        (r"forcing\(0:16\) must return a clm5.Forcing, got <class 'NoneType'>", theta, lambda part: None, everything),
        (r"theta\[0:16\] must have shape \(16, 21\), got \(15, 21\)", Short(), forcing, everything),
        (r"for 16 columns it returned one of shape \(\)", theta, forcing, lambda t, f, state: state.soc.sum()),
    ):
        with pytest.raises((ValueError, TypeError), match=f"stream: .*{match}"):
            next(clm5.stream(source, received, of=of, block=BLOCK))
