"""Mean and covariance of the published PRODA parameters, from a sample of them: makes binn/proda_moments.csv.

    uv run python scripts/proda_moments.py FOLDER [--out binn/proda_moments.csv]

FOLDER holds proda_parameters_sample.csv: one row a site, 21 columns of values in the unit cube of PRODA's bounds. Only
the moments are kept; the rows stay where they are.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from clm5.parameters import NAMES

HERE = Path(__file__).resolve().parent.parent / "binn" / "proda_moments.csv"
HEADER = """\
# Moments of the parameters that PRODA published, in the unit cube of PRODA's bounds (ParameterSpace("proda")).
# Row: parameter, mean, then its covariances (divided by n - 1) with the 21 parameters in the order of clm5.NAMES.
# Source: {sites} WoSIS test sites of PRODA, Tao et al. (2023), Nature 618, 981; code phxtao/PRODA_PUBLIC, MIT.
# Made by scripts/proda_moments.py from proda_parameters_sample.csv, whose numbers have four decimals: standard
# deviations below about 1e-3 are theirs to one digit only.
"""


def moments(sample: pd.DataFrame) -> pd.DataFrame:
    """Mean and covariance of a sample of unit parameters, (site, 21); a table with one row per parameter."""
    missing = [name for name in NAMES if name not in sample]
    if missing:
        raise ValueError(f"proda_moments: the sample must have the 21 parameters as columns; it lacks {missing}")
    values = sample[list(NAMES)].to_numpy(float)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError(
            f"proda_moments: unit values must lie in [0, 1], found {np.nanmin(values):g} to {np.nanmax(values):g}. "
            "Physical values in their place, or a gap?"
        )
    table = pd.DataFrame(np.cov(values.T), columns=list(NAMES))
    table.insert(0, "parameter", list(NAMES))
    table.insert(1, "mean", values.mean(axis=0))
    return table


def main() -> None:
    """Read the sample, write the moments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with proda_parameters_sample.csv")
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    sample = pd.read_csv(asked.folder / "proda_parameters_sample.csv")
    table = moments(sample)
    asked.out.write_text(
        HEADER.format(sites=len(sample)) + table.to_csv(index=False, float_format="%.7g"), encoding="utf-8"
    )
    print(f"{asked.out}: mean and covariance of {len(table)} parameters at {len(sample)} sites")


if __name__ == "__main__":
    main()
