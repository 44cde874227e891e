"""Known parameters put in and looked for: R² at unseen sites by truth, noise and gradient; see docs/measured.md.

uv run python scripts/measure_recovery.py [--sites 1000] [--lands 0 1 2] [--only NAME ...]
"""

import argparse
import time

import binn
import clm5

SETTINGS = {  # name: (arguments of recover, changes of recovery_config)
    "4 parameters": ({}, {}),
    "4 parameters, no dropout": ({}, {"dropout": 0.0}),
    "4 parameters, no dropout, one start": ({}, {"dropout": 0.0, "members": 1}),
    "4 parameters, plain gradient": ({}, {"gradient": "plain"}),
    "4 parameters, 20 % noise": ({"noise": 0.2}, {}),
    "4 parameters, 20 % noise, plain gradient": ({"noise": 0.2}, {"gradient": "plain"}),
    "4 parameters, 60 % noise": ({"noise": 0.6}, {}),
    "5 parameters": ({}, {"parameters": "5"}),
    "16 parameters": ({}, {"parameters": "16"}),
    "21 parameters, 20 % noise": ({"noise": 0.2}, {"parameters": "all"}),
    "21 parameters, 20 % noise, plain gradient": ({"noise": 0.2}, {"parameters": "all", "gradient": "plain"}),
}


def main() -> None:
    """Print a row per setting and land."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--lands", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    asked = parser.parse_args()
    print("setting | land | mean R² | NSE of ln SOC | 90 % intervals hold | seconds | R² of each")
    for land in asked.lands:
        sites = clm5.sites.virtual(asked.sites, seed=land)
        for name in asked.only:
            arguments, changes = SETTINGS[name]
            began = time.perf_counter()
            config = binn.recovery_config(arguments.get("noise", 0.0), **changes)
            found = binn.recover(sites, config, seed=land, progress=False, **arguments)
            each = found.summary.set_index("parameter")
            print(
                f"{name} | {land} | {found.r2:.3f} | {found.pairs().nse.min():.3f} to {found.pairs().nse.max():.3f} | "
                f"{each.coverage_90.mean():.2f} | {time.perf_counter() - began:.0f} | "
                + " ".join(f"{parameter} {r2:.2f}" for parameter, r2 in each.r2.items()),
                flush=True,
            )


if __name__ == "__main__":
    main()
