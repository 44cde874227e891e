"""What each fault of PRODA's sampler does to the width of the posterior: a table, and a figure.

uv run python scripts/measure_proda.py [--sites 12] [--seed 0] [--error lognormal] [--out FOLDER]

Virtual sites whose parameters are drawn from the box, 0.02 from its walls, with 20 % noise on the carbon. --error
lognormal (default) has the likelihood that made the data, so that coverage of the truth is a test; --error proda has
PRODA's 60 % error and weights, under which a correct posterior covers more often than it promises. NUTS samples the
same posterior. Steps are as published, 210,000 solves a site; no chain is run again for its acceptance, so that all
variants cost the same.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import bayes
import binn
import clm5
from bayes.prior_gain import PRIOR_SD
from binn.recovery import LEVELS, inside
from comparisons.launch import Launch

NOISE = 0.2
UPPER = 1.0  # m: layers whose nodes lie above it are where carbon was measured
WIDEST = 1.5  # times NUTS: wider ones are drawn there
LEARNED = 0.9  # a parameter counts as informed where NUTS narrows its sd below this share of the prior's
PUBLISHED_SOLVES = 210_000


def variants(published: bayes.ProdaConfig) -> dict[str, bayes.ProdaConfig]:
    """Published, without each departure alone, without the four faults, and without any; all sites are reported."""
    without = lambda *names: dataclasses.replace(published, **dict.fromkeys(("filters", *names), False))  # noqa: E731
    return {
        "PRODA as published": without(),
        "without annealing": without("annealed"),
        "all states stored": without("accepted_only"),
        "all chains reported": without("best_chain_only"),
        "proposals outside rejected": without("redraw"),
        "the four faults removed": without("annealed", "accepted_only", "best_chain_only"),
        "mended": bayes.ProdaConfig.mended(
            model=published.model, draws=published.draws, explore=published.explore, steps=published.steps,
            adapt_from=published.adapt_from, batch=published.batch,
        ),
    }  # fmt: skip


def compared(
    tree: xr.DataTree, reference: xr.DataTree, sites: xr.Dataset, ids: np.ndarray
) -> tuple[dict[str, float], tuple[np.ndarray, np.ndarray]]:
    """A row of the table, and the ratios of sd to that of NUTS, of the sites `ids`: informed parameters, and ln SOC."""
    unit = tree["posterior"].unit.sel(site=ids).transpose("chain", "draw", "site", "parameter").values.astype(float)
    theirs = reference["posterior"].unit.sel(site=ids).transpose("chain", "draw", "site", "parameter").values
    draws = unit.reshape(-1, *unit.shape[2:])
    sd, their_sd = draws.std(axis=0), theirs.reshape(-1, *unit.shape[2:]).astype(float).std(axis=0)
    ratio, told = sd / their_sd, their_sd < LEARNED * PRIOR_SD
    carbon = _carbon_sd(tree, ids) / _carbon_sd(reference, ids)
    truth = sites.true_unit.sel(site=ids).values
    held = inside(draws.reshape(len(draws), -1), truth.ravel()).mean(axis=1)
    found = bayes.estimate(unit)
    slowest = np.nanmin(found["ess_bulk"], axis=1)
    stats, known = tree.get("sample_stats"), tree["constant_data"]
    accepted = (
        known.acceptance_rate if stats is None else stats["acceptance_rate"]
    )  # proposals taken; of NUTS, the mean
    solves = tree.attrs["n_solves"] / sites.sizes["site"]
    return {
        "sites": len(ids),
        "sd / NUTS, informed": float(np.median(ratio[told])),
        "sd / NUTS, all": float(np.median(ratio)),
        "sd / NUTS, ln SOC": float(np.median(carbon)),
        **{f"{level:.0%}": float(share) for level, share in zip(LEVELS, held, strict=True)},
        "R-hat": float(np.median(found["rhat"].max(axis=1))),  # none of one chain
        "draws": float(np.median(slowest)),
        "of 210,000 solves": float(np.median(slowest)) * PUBLISHED_SOLVES / solves,
        "solves": solves,
        "accepted": float(accepted.mean()),
        "s a site": tree.attrs["wall_time_s"] / sites.sizes["site"],
    }, (ratio[told], carbon.ravel())


def _carbon_sd(tree: xr.DataTree, ids: np.ndarray) -> np.ndarray:
    """Posterior sd of ln SOC in the layers of the upper metre, (site, layer)."""
    soc = tree["posterior"].soc.sel(site=ids)
    upper = np.log(soc.where(soc.layer < UPPER, drop=True))
    return upper.std(("chain", "draw")).transpose("site", "layer").values


def width_figure(table: pd.DataFrame, ratios: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Widths over those of NUTS, of informed parameters and of ln SOC, and coverage of 90 % intervals; a row a variant.

    Dots are sites times parameters or layers, at most `WIDEST` here; diamonds and numbers are their medians.
    """
    figure = Figure(figsize=(9.6, 0.42 * len(ratios) + 1.5), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True, width_ratios=[3, 3, 2])
    rng = np.random.default_rng(0)
    for row, (name, both) in enumerate(ratios.items()):
        for axis, ratio in zip(axes, both, strict=False):
            axis.plot(
                np.minimum(ratio, WIDEST),
                row + rng.uniform(-0.18, 0.18, len(ratio)),
                "o",
                ms=2.4,
                mew=0,
                color="#0072B2",
                alpha=0.35,
            )
            axis.plot(np.median(ratio), row, "D", ms=6, color="#D55E00", mec="white")
            axis.text(1.74, row, f"{np.median(ratio):.2f}", va="center", ha="right", fontsize=8)
        axes[2].plot(table.loc[name, "90%"], row, "s", ms=6, color="#0072B2")
    axes[2].plot(table.loc["NUTS", "90%"], len(ratios), "s", ms=6, color="#0072B2")
    for axis, what in zip(
        axes,
        ("sd / sd of NUTS, informed parameters", "sd / sd of NUTS, ln SOC, upper metre", "truths in 90 % intervals"),
        strict=True,
    ):
        axis.set_xlabel(what, fontsize=8)
        axis.axvline(0.9 if axis is axes[2] else 1, color="#444444", lw=0.8, ls="--")
        axis.set(xlim=(0.4, 1.02) if axis is axes[2] else (0, 1.75))
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", color="#E5E5E5", lw=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set(yticks=range(len(ratios) + 1), yticklabels=[*ratios, "NUTS"])
    axes[0].invert_yaxis()
    return figure


def main() -> None:
    """Sample by every variant, print the table, write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("sites", 12), ("seed", 0), ("explore", 20_000), ("steps", 50_000), ("draws", 2_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--error", choices=("lognormal", "proda"), default="lognormal")
    parser.add_argument("--out", type=Path, default=Path("."))
    asked = parser.parse_args()
    Launch().start()
    published = bayes.ProdaConfig(
        explore=asked.explore, steps=asked.steps, draws=asked.draws, batch=asked.sites,
        adapt_from=min(4_000, asked.steps // 4), retune=0,
    )  # fmt: skip
    model = published.model
    if asked.error == "lognormal":
        model = dataclasses.replace(model, error="lognormal", sigma=NOISE)
    published = dataclasses.replace(published, model=model)
    land = clm5.sites.virtual(asked.sites, seed=asked.seed, bounds=model.bounds, rules=model.rules)
    sites = binn.synthetic(land, "prior", noise=NOISE, parameters="all", model=model, seed=asked.seed)

    nuts = bayes.Config(model, warmup=600, draws=1000, batch=asked.sites)
    reference = bayes.sample(sites, nuts, seed=asked.seed, progress=False)
    rows: dict[str, dict[str, float]] = {}
    ratios: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, config) in enumerate(variants(published).items()):
            began = time.perf_counter()
            shared = config.request() == published.request()  # what differs is only what is reported
            tree = bayes.sample_proda(
                sites, config, Path(folder) / ("published" if shared else str(number)), asked.seed, progress=False
            )
            rows[name], ratios[name] = compared(tree, reference, sites, sites.site.values)
            passed = sites.site.values[tree["constant_data"].kept.values]
            if name == "PRODA as published" and len(passed):
                kept = "published, sites it keeps"
                rows[kept], ratios[kept] = compared(tree, reference, sites, passed)
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    rows["NUTS"], _ = compared(reference, reference, sites, sites.site.values)
    table = pd.DataFrame(rows).T
    print(f"{asked.sites} sites, {asked.error} error, seed {asked.seed}")
    print(table.to_string(float_format="%.2f"))
    print(f"informed parameters: {len(ratios['mended'][0]) / asked.sites:.1f} a site")
    path = asked.out / f"proda_width_{asked.error}.png"
    width_figure(table, ratios).savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    main()
