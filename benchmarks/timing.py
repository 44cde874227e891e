"""Seconds on a machine that others use too: programs take turns, and ratios are formed within a turn."""

import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.programs import Program


@dataclass(frozen=True)
class Compiled:
    """What it takes to make a program, and what the program takes in and gives out."""

    seconds: np.ndarray  # trace and compile, nothing of it cached, of every repeat
    moved: int  # bytes of the arguments that are read, and of the results, on all devices
    temporary: int  # bytes that it needs besides, likewise


class Times(NamedTuple):
    """Seconds per column, one value a round."""

    wall: np.ndarray
    processor: np.ndarray  # of all cores: what others take of a shared machine is not in it


def compile_program(program: Program, *, repeats: int) -> Compiled:
    """Trace and compile, each time as if for the first time in the process."""
    seconds = []
    for repeat in range(repeats):
        if repeat:
            jax.clear_caches()
        began = time.perf_counter()
        compiled = program.run.lower(*program.arguments).compile()
        seconds.append(time.perf_counter() - began)
    memory, devices = compiled.memory_analysis(), jax.tree.leaves(program.arguments)[0].sharding.num_devices
    moved = devices * (memory.argument_size_in_bytes + memory.output_size_in_bytes)
    return Compiled(np.array(seconds), moved, devices * memory.temp_size_in_bytes)


def take_turns(programs: Mapping[str, Program], *, rounds: int, slot: float) -> dict[str, Times]:
    """Times of every program in every round: A B C A B C …

    Args:
        programs: by name. Each is called twice beforehand: once to compile, once to see how long it takes.
        rounds: how many turns each has.
        slot: a turn is as many calls, each waited for, as fill about this many seconds.
    """
    calls = {name: max(1, math.ceil(slot / _warmed_up(program))) for name, program in programs.items()}
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            seconds[name].append(_seconds(program, calls[name]) / program.columns)
    return {name: Times(*np.array(values).T) for name, values in seconds.items()}


def _warmed_up(program: Program) -> float:
    program()
    wall, _ = _seconds(program, 1)
    return wall


def _seconds(program: Program, calls: int) -> np.ndarray:
    """Of one call: by the clock, and of all cores together."""
    began = np.array([time.perf_counter(), time.process_time()])
    for _ in range(calls):
        program()
    return (np.array([time.perf_counter(), time.process_time()]) - began) / calls


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The programs that XLA compiles inside the block, one entry each."""
    seen: list[str] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def peak_memory() -> int:
    """Most bytes that this process has held, without an accelerator's own memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_device_memory() -> int | None:
    """Most bytes in use on one accelerator; None where the device is the processor."""
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use")
