"""Any number of columns in bounded memory: block after block through one compiled program, on all local devices."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from clm5.column import SteadyState, simulate
from clm5.forcing import Forcing
from clm5.grid import N_LAYERS
from clm5.options import RULES
from clm5.parameters import NAMES

PROGRAMS = 16  # kept compiled, one per function and rule set that was streamed


@runtime_checkable
class Rows(Protocol):
    """What holds parameters: NumPy array, memory map, Zarr array, or your own class."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, part: slice, /) -> Any: ...


def _soc(theta: jax.Array, forcing: Forcing, state: SteadyState) -> jax.Array:
    return state.soc


def stream(
    theta: Rows,
    forcing: Forcing | Callable[[slice], Forcing],
    rules: str = "conservative",
    *,
    of: Callable[[jax.Array, Forcing, SteadyState], Any] = _soc,
    block: int = 16384,
) -> Iterator[tuple[slice, Any]]:
    """Simulate any number of columns a block at a time, in memory that does not grow with their number.

        for part, soc in clm5.stream(theta, forcing):
            zarr_array[part] = soc

    A block is computed while the one before is in your hands and the one after is being read. Where JAX shows several
    local devices, each takes an equal share of every block. It compiles once: the last block is filled up with copies
    of its last column, which are taken off again.

    Args:
        theta: physical parameters, (n, 21), float32 or float64: anything with `shape` and `dtype` that gives its rows
            for a slice. All is computed in its precision, whatever JAX's global one.
        forcing: of n columns or of one, which all share; or a function that gives the forcing of the columns of a
            slice, for forcing that does not fit in memory. It is called once per block, inside `jax.enable_x64` where
            theta is float64, and has to make new arrays each time (the last ones may be in use).
        rules: as in `clm5.simulate`.
        of: what to keep, a function of (theta, forcing, state) of a block; only what it needs is computed, and what it
            returns copied: an array or a tree of arrays, columns along the first axis. Default: soil carbon,
            (column, layer), gC m⁻³. `of=clm5.processes` gives the processes. A named function is compiled once per
            session, a lambda once per call.
        block: columns per block. Memory in use is about 30 kB times this in float64, and what you keep.

    Yields:
        (part, result) in order: the slice of columns, `block` long but for the last, and what `of` returned for them,
        with NumPy leaves (read-only). NaN in a column's parameters or forcing makes all of that column NaN.

    Raises:
        ValueError, TypeError: at the call for a theta of another shape or precision, a forcing of another number of
            columns, unknown rules, a block below 1, or, under rules "proda", bedrock below layer 20; at a block for
            what `forcing` or `of` then return.

    Example:
        Stocks of a million columns and a progress bar:

        def stock(theta, forcing, state):
            return state.stock

        blocks = clm5.stream(theta, lambda part: clm5.Forcing.from_sites(sites.isel(site=part)), of=stock)
        for part, gc_per_m2 in tqdm(blocks, total=-(-len(theta) // 16384)):
            stocks[part] = gc_per_m2
    """
    shape, precision = tuple(theta.shape), getattr(theta.dtype, "name", None)
    if len(shape) != 2 or shape[1] != len(NAMES):
        raise ValueError(f"stream: theta must have shape (n, {len(NAMES)}), got {shape}; reshape other leading axes")
    if precision not in ("float32", "float64"):
        raise TypeError(f"stream: theta must be float32 or float64, got {theta.dtype}")
    if rules not in RULES:
        raise ValueError(f"stream: rules must be one of {RULES}, got {rules!r}")
    if not callable(of):
        raise TypeError(f"stream: of must be a function of (theta, forcing, state), got {of!r}")
    if block < 1:
        raise ValueError(f"stream: block must be at least 1, got {block!r}")
    n = shape[0]
    if isinstance(forcing, Forcing):
        if forcing.batch_shape not in ((), (n,)):
            raise ValueError(
                f"stream: forcing must be a single column or have as many as theta, {n}; got leading axes "
                f"{forcing.batch_shape}"
            )
        _check_bedrock(forcing, rules, "forcing")
    elif not callable(forcing):
        raise TypeError(f"stream: forcing must be a clm5.Forcing or a function of a slice, got {type(forcing)}")
    parts = [slice(start, min(start + block, n)) for start in range(0, n, block)]
    return _blocks(theta, forcing, rules, of, parts, np.dtype(precision))


def _blocks(theta: Rows, forcing, rules: str, of: Callable, parts: list[slice], dtype: np.dtype) -> Iterator:
    """One block in flight: JAX computes in threads of its own while the next is read and the last is used."""
    devices = tuple(jax.local_devices())
    longest = max((_length(part) for part in parts), default=0)
    fill = functools.partial(_filled, width=-(-longest // len(devices)) * len(devices), dtype=dtype)
    stacked = not (isinstance(forcing, Forcing) and not forcing.batch_shape)
    if isinstance(forcing, Forcing):
        forcing = jax.tree.map(np.asarray, forcing)  # slices of JAX's own arrays would be compiled one by one
    run = _program(of, rules, devices, stacked)

    def received(part: slice) -> Forcing:
        if not stacked:
            return jax.tree.map(lambda x: x.astype(dtype), forcing)
        found = forcing[part] if isinstance(forcing, Forcing) else _checked(forcing(part), part, rules)
        return jax.tree.map(fill, found)

    def start(part: slice):
        with jax.enable_x64(dtype == np.float64):  # not around a yield: it would hold for whoever asked for the block
            rows = theta[part]
            if np.shape(rows) != (_length(part), len(NAMES)):
                raise ValueError(
                    f"stream: theta[{part.start}:{part.stop}] must have shape {(_length(part), len(NAMES))}, got "
                    f"{np.shape(rows)}"
                )
            return part, run(fill(rows), received(part))

    for (part, result), _ in itertools.pairwise(itertools.chain(map(start, parts), [None])):
        yield part, jax.tree.map(lambda x, part=part: np.asarray(x)[: _length(part)], result)


def _length(part: slice) -> int:
    return part.stop - part.start


@functools.lru_cache(maxsize=PROGRAMS)
def _program(of: Callable, rules: str, devices: tuple, stacked: bool) -> Callable:
    """(theta, forcing) of a block → what is asked for; every device computes its own columns, and nothing moves."""
    mesh = Mesh(np.array(devices), ("column",))
    columns = PartitionSpec("column")
    specs = (columns, columns if stacked else PartitionSpec())

    def share(theta, forcing):
        result = of(theta, forcing, simulate(theta, forcing, rules))
        for leaf in jax.tree.leaves(result):
            if np.shape(leaf)[:1] != theta.shape[:1]:
                raise ValueError(
                    "stream: of must return arrays with columns along the first axis; for "
                    f"{theta.shape[0]} columns it returned one of shape {np.shape(leaf)}"
                )
        return result

    mapped = jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=columns, check_vma=False)
    # shardings of inputs, not `device_put`: what the program does not read is not copied either
    return jax.jit(mapped, in_shardings=tuple(NamedSharding(mesh, spec) for spec in specs))


def _filled(rows, width: int, dtype: np.dtype) -> np.ndarray:
    """Rows in one dtype, as many as `width`: the last is repeated."""
    rows = np.asarray(rows, dtype)
    missing = width - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


def _checked(forcing: Any, part: slice, rules: str) -> Forcing:
    where = f"forcing({part.start}:{part.stop})"
    if not isinstance(forcing, Forcing):
        raise TypeError(f"stream: {where} must return a clm5.Forcing, got {type(forcing)}")
    if forcing.batch_shape != (_length(part),):
        raise ValueError(f"stream: {where} must return {_length(part)} columns, got leading axes {forcing.batch_shape}")
    _check_bedrock(forcing, rules, where)
    return forcing


def _check_bedrock(forcing: Forcing, rules: str, where: str) -> None:
    deepest = np.max(np.asarray(forcing.bedrock_layer), initial=0) if rules == "proda" else 0
    if deepest > N_LAYERS:
        raise ValueError(
            f"stream: rules 'proda' have no bedrock below layer {N_LAYERS}; {where} has bedrock_layer {deepest:g}. "
            "Set it to 20, or use rules 'conservative' or 'binn', which do so."
        )
