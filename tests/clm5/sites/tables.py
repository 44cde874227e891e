"""Plain tables that the tests of reading them make up, spoil and read."""

import json

import numpy as np
import pandas as pd

import clm5.sites
from clm5.sites.table_files import MONTHS


def made_up(folder, n=8):
    """Tables of `n` invented sites; site p3 has five horizons, all others three."""
    rng = np.random.default_rng(0)
    ids = [f"p{i}" for i in range(n)]
    sites = pd.DataFrame({"profile_id": ids, "lon": np.linspace(-120, -75, n), "lat": np.linspace(30, 48, n)})
    sites["clim_cell"] = [str(100 + i % 4) for i in range(n)]
    sites["BIO1"] = rng.normal(10, 5, n)
    sites["koppen"] = ["Cfa", "Dfb"] * (n // 2)
    sites["clay_0cm"] = [20.0, np.nan, *rng.uniform(10, 40, n - 2)]
    sites["npp_miami_gC"] = rng.uniform(300, 800, n)
    sites["clim_suspect"] = 0
    rows = []
    for name in ids:
        for j in range(5 if name == "p3" else 3):
            rows.append((name, 0.2 * j, 0.2 * (j + 1), 30000.0 / (j + 1)))
    profiles = pd.DataFrame(rows, columns=["profile_id", "upper_m", "lower_m", "soc_gC_m3"])
    climate = pd.DataFrame({"clim_cell": ["100", "101", "102", "103"], "lat": 40.0, "lon": -100.0})
    for i, month in enumerate(MONTHS):
        climate[f"T{month}"] = 10.0 + 12.0 * np.cos(2 * np.pi * (i - 6.5) / 12) + np.arange(4)
        climate[f"P{month}"] = 60.0 + 5.0 * i
    return write(folder, profiles=profiles, sites=sites, climate_monthly=climate)


def write(folder, **tables):
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def edit(folder, name, change):
    """Change one of the tables on disk."""
    table = pd.read_csv(folder / f"{name}.csv", dtype={"profile_id": str, "clim_cell": str})
    changed = change(table)
    write(folder, **{name: table if changed is None else changed})


def read(folder, **options):
    sites = clm5.sites.from_tables(folder, **options)
    return sites, json.loads(sites.attrs["dropped"])
