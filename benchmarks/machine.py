"""The machine that figures belong to, and the part of it that a measuring process may use."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """As the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def load() -> str:
    """How many processes wanted a core in the last minute, this one and its neighbours together."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


@contextmanager
def pinned(n: int) -> Iterator[None]:
    """Processes started inside the block have `n` cores, where the system can say so (Linux).

    XLA splits some programs over all the cores it sees and others not: on cores of one device each, ratios are fair.
    """
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_cores)[-n:])  # the last: the first serve interrupts
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)
