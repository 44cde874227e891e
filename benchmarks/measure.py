"""All rows of one setting: so many devices, one precision."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks.inputs import Sites, make_inputs
from benchmarks.programs import Program, core_programs, yardsticks
from benchmarks.table import Row
from benchmarks.timing import (
    Compiled,
    Times,
    compilations,
    compile_program,
    peak_device_memory,
    peak_memory,
    take_turns,
)

SEED = 0  # of the parameters


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    columns: int
    sizes: tuple[int, ...]  # numbers of columns over which the cost of one must not change
    dense: int = 256  # columns that are solved densely: 140 × 140 numbers each
    passed_over: int = 2**24  # numbers per device: more than a cache holds
    rounds: int = 15
    rounds_of_sizes: int = 7
    compiled: int = 3  # times
    slot: float = 0.05  # s

    @classmethod
    def usual(cls, columns: int) -> "Effort":
        """What a figure that is claimed rests on."""
        return cls(columns, (columns // 4, columns, 4 * columns, 16 * columns))

    @classmethod
    def quick(cls) -> "Effort":
        """Everything once and tiny: shows that it runs, and no more."""
        return cls(64, (32, 64), dense=4, passed_over=2**12, rounds=2, rounds_of_sizes=2, compiled=1, slot=0.0)


def measure(sites: Sites, mesh: Mesh, effort: Effort) -> Iterator[Row]:
    """The rows, as they come."""
    inputs = make_inputs(sites, effort.columns, mesh, seed=SEED)
    few = make_inputs(sites, effort.dense, mesh, seed=SEED)
    core = core_programs(inputs)
    compiled = {name: compile_program(core[name], repeats=effort.compiled) for name in ("forward", "gradient")}

    programs = yardsticks(inputs, few, mesh, passed_over=effort.passed_over * mesh.size) | core
    times = take_turns(programs, rounds=effort.rounds, slot=effort.slot)
    for name in ("dense", "means", "values", "forward", "state", "gradient"):
        yield _time(programs[name], times[name])
    yield _ratio("dense / forward", times["dense"], times["forward"], "≥ 200", inputs.columns)
    yield _ratio("forward / floor (means)", times["forward"], times["means"], "≤ 2.5", inputs.columns)
    yield _ratio("forward / floor (written out)", times["forward"], times["values"], "≤ 2.5", inputs.columns)
    yield _ratio("gradient / forward", times["gradient"], times["forward"], "≤ 3.5", inputs.columns)
    moved = {name: made.moved / inputs.columns for name, made in compiled.items()}
    yield from _memory_floor(programs, times, moved)

    yield from _compilation(core, compiled, sites, mesh)
    yield from _not_finite(core)
    yield Row("peak memory of the process so far", peak_memory() / 1e6, "MB", inputs.columns)
    yield from _sizes(sites, mesh, effort, programs["memory"], moved)
    yield Row("peak memory of the process", peak_memory() / 1e6, "MB", max(effort.sizes))
    if (peak := peak_device_memory()) is not None:
        yield Row("peak memory of a device", peak / 1e6, "MB", max(effort.sizes))


def _memory_floor(
    programs: Mapping[str, Program], times: Mapping[str, Times], moved: Mapping[str, float]
) -> Iterator[Row]:
    """How near programs come to the time in which their arguments and results pass through memory once.

    `moved` is bytes a column, by the program's name.
    """
    per_byte = times["memory"].wall
    yield _spread("memory bandwidth", 1e-9 / per_byte, "GB/s", None)
    for name, in_and_out in moved.items():
        share = in_and_out * per_byte / times[name].wall
        yield _spread(f"memory floor / {name}", share, "", programs[name].columns)


def _compilation(
    core: Mapping[str, Program], compiled: Mapping[str, Compiled], sites: Sites, mesh: Mesh
) -> Iterator[Row]:
    for name, made in compiled.items():
        yield _spread(f"trace and compile: {name}", made.seconds, "s", core[name].columns)
        yield Row(f"working memory: {name}", made.temporary / 1e6, "MB", core[name].columns)
    columns = core["forward"].columns
    others = [make_inputs(sites, columns, mesh, seed=SEED + i, first=i) for i in (1, 2)]
    with compilations() as seen:
        for inputs in others:
            for name, program in core_programs(inputs).items():
                jax.block_until_ready(core[name].run(*program.arguments))
    yield Row("recompilations: other values, equal shapes", len(seen), "", columns, "0")


def _not_finite(core: Mapping[str, Program]) -> Iterator[Row]:
    """Float32 does not hold the whole box: the deepest layers of some columns are inf (`clm5.SteadyState`)."""
    for name, rows in (("forward", core["forward"]()), ("gradient", core["gradient"]()[1])):
        bad = int(np.sum(~np.isfinite(np.asarray(rows)).all(axis=1)))
        asked = "0" if rows.dtype == jnp.float64 else ""
        yield Row(f"columns with a value that is not finite: {name}", bad, "", core[name].columns, asked)


def _sizes(sites: Sites, mesh: Mesh, effort: Effort, memory: Program, moved: Mapping[str, float]) -> Iterator[Row]:
    """The forward at all sizes, and the gradient at the largest."""
    *smaller, largest = [core_programs(make_inputs(sites, columns, mesh, seed=SEED)) for columns in effort.sizes]
    programs = {str(core["forward"].columns): core["forward"] for core in smaller}
    programs |= {"forward": largest["forward"], "gradient": largest["gradient"]}
    times = take_turns(programs | {"memory": memory}, rounds=effort.rounds_of_sizes, slot=effort.slot)
    for name, program in programs.items():
        yield _time(program, times[name])
    wall, processor = (
        np.median([times[name][clock] for name in programs if name != "gradient"], axis=1) for clock in (0, 1)
    )
    flat = Row("forward: dearest size / cheapest", wall.max() / wall.min(), "times", asked="flat")
    yield _with_processor(flat, processor.max() / processor.min())
    yield _ratio("gradient / forward", times["gradient"], times["forward"], "≤ 3.5", programs["forward"].columns)
    yield from _memory_floor(programs, times, moved)


def _time(program: Program, times: Times) -> Row:
    row = _spread(program.name, 1e6 * times.wall, "µs a column", program.columns)
    return _with_processor(row, 1e6 * np.median(times.processor))


def _ratio(what: str, above: Times, below: Times, asked: str, columns: int) -> Row:
    """Formed within every round."""
    row = _spread(what, above.wall / below.wall, "times", columns, asked)
    return _with_processor(row, np.median(above.processor / below.processor))


def _with_processor(row: Row, value) -> Row:
    """Where work is done by the processor."""
    return replace(row, processor=float(value)) if jax.default_backend() == "cpu" else row


def _spread(what: str, values: np.ndarray, unit: str, columns: int | None, asked: str = "") -> Row:
    return Row(what, float(np.median(values)), unit, columns, asked, float(values.min()), float(values.max()))
