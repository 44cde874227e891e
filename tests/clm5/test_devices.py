"""Property: columns that lie on two devices are computed by both, each its own half, to the same numbers as on one.

JAX has to be told of two virtual CPU devices before it starts: all of it runs in a process of its own.
"""

import functools
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import clm5
from tests.clm5.conftest import GOLDEN, forcing_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
AXES = ("Explicit", "Auto")  # of a mesh: in the types of arrays, or left to XLA
FULL, ODD = 16_384, 602  # columns: on each of two devices 32 blocks of 256; 301 in two blocks of 151
COLLECTIVE = re.compile(r"all-gather|all-reduce|all-to-all|collective-\w+|reduce-scatter")
THREADS = Path("/proc/self/task")


def measure(path: str) -> None:
    """Runs in the process with two devices, and leaves what it found in a file."""
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)  # of LLVM, which has no say in who computes what
    places: dict = {"one": jax.devices()[0]}
    for axes in AXES:
        mesh = jax.make_mesh((2,), ("column",), axis_types=(AxisType[axes],))
        places[axes] = NamedSharding(mesh, PartitionSpec("column"))
    unit = np.random.default_rng(0).uniform(0.02, 0.98, (FULL, 21))
    theta = np.asarray(clm5.ParameterSpace("binn").physical(unit))
    golden = jax.tree.map(np.asarray, forcing_of(np.load(GOLDEN)))
    forcing = golden[np.arange(FULL) % golden.batch_shape[0]]

    @jax.jit
    def forward(theta, forcing):
        return clm5.simulate(theta, forcing).soc

    @jax.jit
    def gradient(theta, forcing):
        """Of Σ ln(SOC) of every column by itself: nothing is summed over columns."""
        top, back = jax.vjp(lambda t: jnp.log(clm5.simulate(t, forcing).soc[:, 0]), theta)
        return back(jnp.ones_like(top))[0]

    found: dict = {}
    for place, sharding in places.items():
        for name, run, n in (("forward", forward, ODD), ("forward", forward, FULL), ("gradient", gradient, ODD)):
            arguments = jax.device_put((theta[:n], forcing[:n]), sharding)
            program = run.lower(*arguments).compile()
            call = functools.partial(program, *arguments)
            result = call()
            found[place, name, n] = {
                "result": np.asarray(result),
                "shards": {
                    shard.device.id: (shard.index[0], np.asarray(shard.data)) for shard in result.addressable_shards
                },
                "program": program.as_text(),
                "threads": [_milliseconds(call) for _ in range(5)],
            }

    def of(theta, forcing, state):  # runs when it is compiled: with the columns of one device
        found["share of a device"] = theta.shape
        return state.soc

    for name, received in (("own", forcing[:ODD]), ("repeated", forcing[np.zeros(ODD, int)]), ("shared", forcing[0])):
        found["streamed", name] = list(clm5.stream(theta[:ODD], received, of=of, block=201))
    Path(path).write_bytes(pickle.dumps(found))


def _milliseconds(call) -> list[float]:
    """Processor time of every thread of this process during a call, most first; [] where the system does not say."""

    def now() -> dict[str, int]:
        return {path.parent.name: int(path.read_text().split()[0]) for path in THREADS.glob("*/schedstat")}

    before = now()
    call().block_until_ready()
    return sorted(((after - before.get(name, 0)) / 1e6 for name, after in now().items()), reverse=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    path = tmp_path_factory.mktemp("devices") / "found.pickle"
    code = f"from tests.clm5 import test_devices; test_devices.measure({str(path)!r})"
    here = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return pickle.loads(path.read_bytes())


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(("name", "n"), [("forward", ODD), ("forward", FULL), ("gradient", ODD)])
def test_two_devices_compute_half_of_the_columns_each(found, axes, name, n):
    """The same numbers as on one, sharded as the arguments were, and nothing moves between the devices."""
    expected, on_two = found["one", name, n]["result"], found[axes, name, n]
    assert np.all(np.isfinite(expected))
    np.testing.assert_allclose(on_two["result"], expected, rtol=1e-12, atol=1e-15)  # a gradient of 0 is 1e-23 or so
    assert sorted(on_two["shards"]) == [0, 1]
    for device, (part, data) in on_two["shards"].items():
        half = slice(device * n // 2, (device + 1) * n // 2)
        assert part.indices(n) == half.indices(n)
        np.testing.assert_allclose(data, expected[half], rtol=1e-12, atol=1e-15)
    assert COLLECTIVE.findall(on_two["program"]) == []


@pytest.mark.parametrize("axes", AXES)
def test_both_devices_are_busy(found, axes):
    """Processor time by thread, which other programs on the machine do not change; best of five calls."""

    def balance(place: str) -> list[float]:
        calls = found[place, "forward", FULL]["threads"]
        return [second / first for first, second, *_ in calls]

    if not found["one", "forward", FULL]["threads"][0]:
        pytest.skip("the system does not tell the processor time of threads")
    assert max(balance(axes)) > 0.7
    assert min(balance("one")) < 0.5, "one device is one thread and a little: the figure can tell them apart"


def test_streaming_over_two_devices(found):
    """A block that two devices cannot share equally (201), and a last one that is not full."""

    def streamed(name: str) -> np.ndarray:
        parts, results = zip(*found["streamed", name], strict=True)
        assert [part.stop - part.start for part in parts] == [201, 201, 200]
        return np.concatenate(results)

    assert found["share of a device"] == (101, 21)
    np.testing.assert_allclose(streamed("own"), found["one", "forward", ODD]["result"], rtol=1e-12)
    np.testing.assert_allclose(streamed("shared"), streamed("repeated"), rtol=1e-12)
