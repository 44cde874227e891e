"""What the core costs: time per column, forward and gradient, beside a dense solve and the least any code must do.

    uv run python -m benchmarks [--columns 4096] [--float32] [--devices N] [--out FILE.md] [--quick]

Figures are medians of 15 rounds (7 over sizes) in which everything that is compared takes its turn; ratios are formed
within a round. Columns are virtual sites with random parameters, all of them arguments of the jitted functions.

Every setting (number of devices, precision) runs in a process of its own, one after the other. Without --devices: one
device, and all there are. In float64; on an accelerator, in float64 and float32. JAX_PLATFORMS=cpu hides a GPU. On a
processor, a device is a core: the process is kept to as many cores as it has devices; and the column "processor" has
the same figures by processor time, which is that of all cores, without what other jobs take of a shared machine.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from benchmarks.machine import cores, cpu_model, load, pinned
from benchmarks.table import Row, as_csv, markdown, significant

ROOT = Path(__file__).resolve().parent.parent
SITES, QUICK_SITES = 300, 8


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write it if asked to."""
    parser = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--columns", type=int, default=4096, help="in one call (default 4096; also a quarter, x4, x16)")
    parser.add_argument("--devices", type=int, help="that many only")
    parser.add_argument("--float32", action="store_true", help="float32 only")
    parser.add_argument("--out", type=Path, help="also write the table: .csv, or else markdown")
    parser.add_argument("--quick", action="store_true", help="everything once and tiny: does it run?")
    options = parser.parse_args(argv)
    if options.columns < 4 or (options.devices or 1) < 1:
        parser.error("--columns must be at least 4, --devices at least 1")

    rows, load_before = [], load()
    with tempfile.TemporaryDirectory() as folder:
        sites = Path(folder) / "sites.npz"
        (machine,) = _worker("prepare", sites, QUICK_SITES if options.quick else SITES)
        for devices, dtype in settings(machine, options):
            columns = 0 if options.quick else options.columns
            with pinned(devices) if machine["backend"] == "cpu" else nullcontext():
                for answer in _worker("measure", sites, devices, dtype, columns):
                    rows.append(Row(**answer))
                    print(f"{devices} x {dtype}: {rows[-1].what}: {significant(rows[-1].value)}", file=sys.stderr)
    header = describe(machine, sys.argv[1:] if argv is None else argv) | {"load before": load_before}
    print(markdown(rows, header))
    if options.out:
        write = as_csv if options.out.suffix == ".csv" else markdown
        options.out.write_text(write(rows, header), encoding="utf-8")
    return 0


def settings(machine: dict, options: argparse.Namespace) -> list[tuple[int, str]]:
    """Numbers of devices and precisions to measure."""
    on_cpu = machine["backend"] == "cpu"
    most = cores() if on_cpu else machine["n_devices"]
    devices = [options.devices] if options.devices else sorted({1, most})
    dtypes = ["float32"] if options.float32 else ["float64"] if on_cpu else ["float64", "float32"]
    return [(n, dtype) for dtype in dtypes for n in devices]


def describe(machine: dict, command: Sequence[str]) -> dict[str, str]:
    """What a figure is worth nothing without."""
    cpu = f"{cpu_model()}, {cores()} cores"
    return {
        "machine": cpu if machine["backend"] == "cpu" else f"{machine['n_devices']} x {machine['device_kind']}; {cpu}",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "jax": f"{machine['jax']}, jaxlib {machine['jaxlib']}",
        "sites": "virtual, seed 0, repeated; parameters uniform in the BINN box, seed 0",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": " ".join(("python -m benchmarks", *command)),
    }


def _worker(*arguments) -> Iterator[dict]:
    """The answers of a `benchmarks.worker`, as they come."""
    command = [sys.executable, "-m", "benchmarks.worker", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        sys.exit(f"benchmarks: measuring ended with status {process.returncode}: {' '.join(command)}")


if __name__ == "__main__":
    sys.exit(main())
