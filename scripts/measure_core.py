"""Figures of the core: errors against the golden columns, carbon balance, the dense solve beside ours.

    uv run python scripts/measure_core.py [GOLDEN_FOLDER]

Without a folder, the 21 columns in tests/clm5/golden are used; with the folder of the two reference files, all 64.
What the core costs: `python -m benchmarks`.
"""

import argparse
import platform
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import clm5
from clm5 import dense

COPY = Path(__file__).resolve().parent.parent / "tests" / "clm5" / "golden" / "reference_columns.npz"


def load(folder: Path | None) -> tuple[clm5.Forcing, dict[tuple[str, str], tuple]]:
    """Forcing, and per (rules, parameter set): unit-cube points, exact SOC (column, layer), which are near-singular."""
    if folder is None:
        data = np.load(COPY)
        cases = {}
        for which in ("rand", "half"):
            unit = data["rand_kp"] if which == "rand" else np.full_like(data["rand_kp"], 0.5)
            cases["proda", which] = (
                unit,
                data[f"proda_{which}_pools"][:, :, 4:].sum(-1),
                data[f"proda_{which}_near_singular"],
            )
            cases["binn", which] = (unit, data[f"binn_{which}_soc"], data[f"binn_{which}_near_singular"])
    else:
        data, other = np.load(folder / "proda_reference.npz"), np.load(folder / "binn_torch_reference.npz")
        cases = {}
        for which in ("rand", "half"):
            soc = data[f"{which}_soc_layer_exact"][:, :, 3]
            cases["proda", which] = (data[f"{which}_kp"], soc, data[f"{which}_near_singular"])
            cases["binn", which] = (other[f"{which}_kp"], other[f"{which}_soc_exact"], other[f"{which}_near_singular"])
    litter = np.stack([data["litter_cwd"], data["litter_l1"], data["litter_l2"], data["litter_l3"]], axis=1)
    bedrock = np.repeat(data["nbedrock"][:, None].astype(float), 12, axis=1)
    fields = (data["tsoil"], data["w_scalar"], data["o_scalar"], data["n_scalar"], litter)
    depths = (data["altmax"], data["altmax_lastyear"], bedrock)
    return clm5.Forcing(*map(jnp.asarray, (*fields, *depths))), cases


def worst(found, exact) -> np.ndarray:
    """Error of each column relative to its largest layer."""
    return np.abs(np.asarray(found) - exact).max(1) / exact.max(1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", help="folder with proda_reference.npz, binn_torch_reference.npz"
    )
    forcing, cases = load(parser.parse_args().folder)
    print(
        f"jax {jax.__version__}, {platform.machine()}, {jax.devices()[0].device_kind}; {forcing.batch_shape[0]} columns"
    )
    for (rules, which), (unit, exact, near_singular) in cases.items():
        theta = clm5.ParameterSpace(rules).physical(unit)
        state = clm5.simulate(theta, forcing, rules=rules)
        by_lapack = jax.jit(jax.vmap(lambda t, f, rules=rules: dense.soc(t, f, rules)))(theta, forcing)
        lost = np.asarray(clm5.processes(theta, forcing, state).carbon_lost) / np.asarray(
            forcing.annual_litter_input
        ).sum(-1)
        print(f"{rules:6s} {which}: SOC error {worst(state.soc, exact).max():.1e} of the largest layer; dense solve "
              f"{worst(by_lapack, exact)[~near_singular].max():.1e}, near-singular columns ({near_singular.sum()}) "
              f"{worst(by_lapack, exact)[near_singular].max() if near_singular.any() else 0:.1e}; carbon lost: "
              f"median {100 * np.median(lost):.2f} %, most {100 * lost.max():.0f} % of the input")  # fmt: skip
        own = clm5.simulate(theta, forcing, rules="conservative")
        put_in = np.asarray(forcing.annual_litter_input).sum(-1)
        balance = np.asarray(own.respiration).sum(-1) / put_in - 1
        print(f"              conservative: respiration / input − 1 at most {np.abs(balance).max():.1e}")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
