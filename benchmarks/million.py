"""A million columns in bounded memory: how long they take, and the most that the process ever held.

    uv run python -m benchmarks.million [--columns 1000000] [--devices N] [--float32] [--block 16384]

Virtual sites in a ring, each column with parameters of its own, both made when their block is due. Every number of
devices (default: one, and all cores) runs in a process of its own, which may use all cores; memory is that of the
process, and grows with the block, not with the columns.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import jax
import numpy as np

import clm5
from benchmarks.machine import cores, cpu_model
from benchmarks.timing import peak_memory

SITES = 1000
SPACE = clm5.ParameterSpace("binn")


@dataclass(frozen=True)
class Drawn:
    """Parameters uniform in the BINN box; every block draws its own, from a seed of its own."""

    shape: tuple[int, int]
    dtype: np.dtype

    def __getitem__(self, part: slice) -> np.ndarray:
        unit = np.random.default_rng([0, part.start]).random((part.stop - part.start, self.shape[1]), self.dtype)
        return SPACE.lower + unit * (SPACE.upper - SPACE.lower)


@dataclass(frozen=True)
class Figures:
    """Of one run; memory in bytes."""

    device: str
    first: float  # seconds until the first block is there: compiling, mostly
    wall: float  # seconds of all that follow
    processor: float  # of these, seconds of processor time
    columns: int  # in these
    memory: tuple[int, int, int]  # most in use before streaming, until a tenth of the columns, until the end
    finite: int  # of all columns; float32 says inf where it cannot hold the carbon of a layer


def measure(columns: int, devices: int, precision: str, block: int) -> Figures:
    """Configure JAX before its first use, and stream."""
    jax.config.update("jax_num_cpu_devices", devices)  # where there is an accelerator, its devices are used
    jax.config.update("jax_enable_compilation_cache", False)
    dtype = np.dtype(precision)
    sites = clm5.sites.virtual(SITES, seed=0)
    with jax.enable_x64(True):
        ring = jax.tree.map(lambda x: np.asarray(x, dtype), clm5.Forcing.from_sites(sites))
    memory = [peak_memory()]
    finite = 0
    began = time.perf_counter()
    first, since, busy, warm = 0.0, 0.0, 0.0, 0
    blocks = clm5.stream(
        Drawn((columns, len(clm5.NAMES)), dtype),
        lambda part: ring[np.arange(part.start, part.stop) % SITES],
        block=block,
    )
    for part, soc in blocks:
        finite += int(np.isfinite(soc).all(axis=1).sum())
        if not first:
            since, busy, warm = time.perf_counter(), time.process_time(), part.stop
            first = since - began
        if len(memory) == 1 and part.stop >= columns / 10:
            memory.append(peak_memory())
    wall, processor = time.perf_counter() - since, time.process_time() - busy
    kind = jax.devices()[0].device_kind
    before, tenth, end = *memory, peak_memory()
    return Figures(kind, first, wall, processor, columns - warm, (before, tenth, end), finite)


def main(argv: Sequence[str] | None = None) -> int:
    """Stream with each number of devices, and print a line for each."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.million", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--columns", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, help="that many only")
    parser.add_argument("--float32", action="store_true", help="instead of float64")
    parser.add_argument("--block", type=int, default=16_384, help="columns at once (default 16384)")
    options = parser.parse_args(argv)
    if options.columns < 2 * options.block:
        parser.error("--columns must be at least two blocks")

    precision = "float32" if options.float32 else "float64"
    print(f"{options.columns:,} columns, {precision}, blocks of {options.block:,}; {cpu_model()}, {cores()} cores")
    for devices in [options.devices] if options.devices else sorted({1, cores()}):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = pool.submit(measure, options.columns, devices, precision, options.block).result()
        before, tenth, end = (f"{x / 1e6:,.0f}" for x in found.memory)
        print(
            f"{devices} x {found.device}: {found.columns / found.wall:,.0f} columns a second, "
            f"{1e6 * found.wall / found.columns:.2f} µs a column ({1e6 * found.processor / found.columns:.2f} µs of "
            f"processor time), first block after {found.first:.1f} s; peak memory {before} MB before, {tenth} MB until "
            f"a tenth, {end} MB at the end; {found.finite:,} columns are finite"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
