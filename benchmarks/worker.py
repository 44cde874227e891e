"""One process, one setting: what `python -m benchmarks` starts, so that settings share neither memory nor threads."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import jax
import jaxlib
from jax.sharding import AxisType


def main() -> None:
    """`prepare FILE SITES` or `measure FILE DEVICES DTYPE COLUMNS`; answers in lines of JSON on standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    sites = tasks.add_parser("prepare")
    sites.add_argument("file", type=Path)
    sites.add_argument("n_sites", type=int)
    timed = tasks.add_parser("measure")
    timed.add_argument("file", type=Path)
    timed.add_argument("n_devices", type=int)
    timed.add_argument("dtype", choices=("float32", "float64"))
    timed.add_argument("columns", type=int, help="0: quick")
    arguments = vars(parser.parse_args())
    task = prepare if arguments.pop("task") == "prepare" else measure
    task(**arguments)


def prepare(file: Path, n_sites: int) -> None:
    """Write the sites, and say what JAX runs on when it is left to choose."""
    from benchmarks.inputs import save_sites

    save_sites(file, n_sites)
    versions = {"jax": jax.__version__, "jaxlib": jaxlib.__version__}
    kind = jax.devices()[0].device_kind
    _answer({"backend": jax.default_backend(), "device_kind": kind, "n_devices": jax.device_count()} | versions)


def measure(file: Path, n_devices: int, dtype: str, columns: int) -> None:
    """Configure JAX before its first use, and measure."""
    jax.config.update("jax_num_cpu_devices", n_devices)  # where there is an accelerator, its devices are used
    jax.config.update("jax_enable_x64", dtype == "float64")
    jax.config.update("jax_enable_compilation_cache", False)
    if not columns:
        jax.config.update("jax_disable_most_optimizations", True)

    from benchmarks import measure as measuring
    from benchmarks.inputs import load_sites

    if len(jax.devices()) < n_devices:
        sys.exit(f"benchmarks: {n_devices} devices asked for, JAX finds {len(jax.devices())} ({jax.default_backend()})")
    mesh = jax.make_mesh((n_devices,), ("site",), (AxisType.Explicit,), devices=jax.devices()[:n_devices])
    effort = measuring.Effort.usual(columns) if columns else measuring.Effort.quick()
    setting = {"device": jax.default_backend(), "devices": n_devices, "dtype": dtype}
    for row in measuring.measure(load_sites(file), mesh, effort):
        _answer(asdict(row) | setting)


def _answer(answer: dict) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
