"""The whole chain on real soil profiles: convert plain tables, train, sample, compare, report.

    uv run python scripts/real_sites.py FOLDER --out real-sites

FOLDER holds profiles.csv, sites.csv and climate_monthly.csv (see `clm5.sites.from_tables`). Forcing is made from
climate normals, an approximation; `scripts/check_forcing.py` says how far off. Test sites are whole 2-degree blocks, so
that skill on them is not skill at recognising a neighbour. The error of a measured horizon is taken as 50 % (sigma 0.5
of ln SOC): it has to hold what model and forcing get wrong, too; PRODA takes 60 %.
"""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the three tables")
    parser.add_argument("--out", type=Path, required=True, help="new folder for everything that is written")
    parser.add_argument("--n-sites", type=int, default=600, help="sites of the contiguous US to train on")
    parser.add_argument("--sampled", type=int, default=40, help="sites to sample by MCMC")
    parser.add_argument("--sigma", type=float, default=0.5, help="error of a measured horizon, of ln SOC")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    from comparisons.cli import main as binn

    args.out.mkdir(parents=True)  # refuses to write over an earlier run
    sites, seed = str(args.out / "sites.nc"), ["--seed", str(args.seed)]
    convert = ["sites", "convert", str(args.folder), "--out", sites, "--n-sites", str(args.n_sites), "--box", "conus"]
    chain = ["run", sites, "--out", str(args.out / "run"), "--sampled", str(args.sampled), "--sigma", str(args.sigma)]
    chain += ["--split", "blocks", "--warmup", "400", "--samples", "800", "--batch", "20"]
    return binn([*convert, *seed]) or binn([*chain, *seed])


if __name__ == "__main__":
    sys.exit(main())
